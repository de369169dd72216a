"""What a compiled function can hold: numbers, arrays, functions, and tuples of these.

Every type says which LLVM components its values have, in order: an array is its address and its sizes,
a tuple what its members are, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minidyn.compiler.llvm import lane_count


@dataclass(frozen=True)
class Number:
    """A float64, an int64, a uint64 or a bool."""

    name: str
    llvm: str

    @property
    def parts(self) -> tuple[str, ...]:
        """LLVM types of the components."""
        return (self.llvm,)


F8, I8, U8, B1 = Number("f8", "double"), Number("i8", "i64"), Number("u8", "i64"), Number("b1", "i1")


@dataclass(frozen=True)
class Vector:
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

    @property
    def parts(self) -> tuple[str, ...]:
        """One LLVM vector."""
        return (self.llvm,)


VF, VI, VU, VB = Vector(F8), Vector(I8), Vector(U8), Vector(B1)


@dataclass(frozen=True)
class Lane:
    """A whole number that grows by one from lane to lane: what addresses neighbours in memory."""

    name = "lane"
    parts = ("i64",)


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
class Static:
    """A function that is known while compiling: it has no components and is called directly."""

    function: Any
    parts = ()

    @property
    def name(self) -> str:
        """Where the function was defined, and its name."""
        return f"<{self.function.identity}>"


@dataclass(frozen=True)
class Constant:
    """A whole number that is known while compiling."""

    value: int
    parts = ()

    @property
    def name(self) -> str:
        """The value."""
        return f"={self.value}"


@dataclass(frozen=True)
class Fixed:
    """Anything else of the surrounding module, known while compiling."""

    value: Any
    parts = ()

    @property
    def name(self) -> str:
        """The value in words."""
        return f"<{self.value!r}>"


def is_static(type_: Any) -> bool:
    """Whether a value of this type is, or holds, something that exists only while compiling."""
    if isinstance(type_, Tuple):
        return any(map(is_static, type_.items))
    return isinstance(type_, (Static, Constant, Fixed))


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
    result, args = text.rstrip(")").split("(", 1)
    depth, start, parts = 0, 0, []
    for at, char in enumerate(args + ","):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            if args[start:at].strip():
                parts.append(args[start:at])
            start = at + 1
    return Pointer(parse(result), tuple(parse(p) for p in parts))
