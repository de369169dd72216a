"""What a compiled function can hold: numbers, arrays, functions, and tuples of these.

Every type says which LLVM components its values have, in order: an array is its address and its sizes,
a tuple what its members are, one after the other.
"""

import re
from dataclasses import dataclass
from typing import Any

from minidyn.compiler.llvm import lane_count


class _Scalar:
    """What has one component."""

    @property
    def parts(self: Any) -> tuple[str, ...]:
        """LLVM types of the components."""
        return (self.llvm,)


@dataclass(frozen=True)
class Number(_Scalar):
    """A float64, an int64, a uint64 or a bool."""

    name: str
    llvm: str


F8, I8, U8, B1 = Number("f8", "double"), Number("i8", "i64"), Number("u8", "i64"), Number("b1", "i1")


@dataclass(frozen=True)
class Vector(_Scalar):
    """One number for each of the lanes that run side by side."""

    item: Number

    @property
    def name(self) -> str:
        """As in `f8*`."""
        return self.item.name + "*"

    @property
    def llvm(self) -> str:
        """As in `<8 x double>`."""
        return f"<{lane_count()} x {self.item.llvm}>"


VF, VI, VU, VB = Vector(F8), Vector(I8), Vector(U8), Vector(B1)
_WIDE = {F8: VF, I8: VI, U8: VU, B1: VB}


@dataclass(frozen=True)
class Lane(_Scalar):
    """A whole number that grows by one from lane to lane: what addresses neighbours in memory."""

    name, llvm = "lane", "i64"


LANE = Lane()


@dataclass(frozen=True)
class Array:
    """A C-contiguous array of numbers, or of one number per lane."""

    item: Any
    ndim: int

    @property
    def name(self) -> str:
        """As in `f8[:,:]`."""
        return f"{self.item.name}[{','.join(':' * self.ndim)}]"

    @property
    def parts(self) -> tuple[str, ...]:
        """The address of the first item, then the sizes."""
        return ("ptr", *["i64"] * self.ndim)


class Table(Array):
    """An array of the surrounding module, a row or a part of it: read only."""


@dataclass(frozen=True)
class Pointer:
    """The address of a compiled function with these arguments and this result."""

    result: Any
    args: tuple[Any, ...]

    @property
    def name(self) -> str:
        """As in `i8(f8[:],f8)`."""
        return f"{self.result.name if self.result else 'void'}({','.join(a.name for a in self.args)})"

    @property
    def parts(self) -> tuple[str, ...]:
        """The address."""
        return ("ptr",)


@dataclass(frozen=True)
class Tuple:
    """Several values together."""

    items: tuple[Any, ...]

    @property
    def name(self) -> str:
        """As in `(f8,i8)`."""
        return f"({','.join(i.name for i in self.items)})"

    @property
    def parts(self) -> tuple[str, ...]:
        """The members' components."""
        return tuple(p for i in self.items for p in i.parts)


@dataclass(frozen=True)
class Fixed:
    """A thing that is known while compiling: it has no components."""

    value: Any
    parts = ()

    @property
    def name(self) -> str:
        """The value in words."""
        return f"<{self.value!r}>"


class Static(Fixed):
    """A function that is known while compiling, and called directly."""


class Constant(Fixed):
    """A whole number that is known while compiling."""


def is_static(type_: Any) -> bool:
    """Whether a value of this type is, or holds, something that exists only while compiling."""
    if isinstance(type_, Tuple):
        return any(map(is_static, type_.items))
    return isinstance(type_, Fixed)


def spread(item: Number, *types: Any) -> Any:
    """The number, or one for each lane if one of these types differs from lane to lane."""
    return _WIDE[item] if any(isinstance(t, (Vector, Lane)) for t in types) else item


def varies(type_: Any) -> bool:
    """Whether a value of this type differs from lane to lane."""
    if isinstance(type_, Tuple):
        return any(map(varies, type_.items))
    return isinstance(type_, (Vector, Lane)) or (isinstance(type_, Array) and isinstance(type_.item, Vector))


_SHORT = {"f8": F8, "i8": I8, "u8": U8, "b1": B1}


def parse(text: str) -> Any:
    """The type that a short name stands for: `f8`, `i8[:]`, `f8[:,:]`; `void` is None."""
    text = text.strip()
    if text == "void":
        return None
    if text.endswith("]"):
        item, axes = text[:-1].split("[")
        return Array(_SHORT[item], axes.count(":"))
    return _SHORT[text]


def signature(text: str) -> Pointer:
    """A function's type from a line such as `i8(f8[:], f8[:,:], i8)`."""
    result, args = text.split("(", 1)
    return Pointer(parse(result), tuple(map(parse, re.findall(r"\w+(?:\[.*?\])?", args))))
