"""Python's arguments taken apart by machine code: a call of a kernel costs a microsecond, however much it takes.

For arguments of some types there is a function `unpack(args, table)`: it looks at the tuple of a call's arguments as
CPython and numpy lay them out, compares all types with those of the table, and calls the kernel with addresses, sizes
and numbers. Where anything is not as expected, a type or the layout, it does nothing and says so (`MISSED`).
"""

import ctypes
import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from minidyn.compiler import cache as disk
from minidyn.compiler import llvm
from minidyn.compiler.addresses import FunctionPointer
from minidyn.compiler.intrinsics import Known
from minidyn.compiler.types import B1, F8, I8, U8, Array, Constant, Fixed, Pointer, Tuple
from minidyn.compiler.values import result_type

MISSED = -(1 << 63)  # no kernel returns this
Quick = tuple[Callable[..., int], int, bool]  # unpack, the address of its table, whether the kernel returns a number

# where things are in an object, in bytes
_TYPE, _VALUE = 8, 16  # any object's type; a float's or a numpy number's value, a pointer's address
_SIZE, _ITEMS = 16, 24  # a tuple's
_COUNT, _DIGITS, _DIGIT = 16, 24, 30  # an int's digits of so many bits
_DATA, _AXES, _SHAPE, _ITEM, _FLAGS = 16, 24, 32, 56, 64  # an array's
_KEY = 32  # the text of a function pointer's type
_USABLE = 0x101  # the flags of an array that is C-contiguous and aligned

_DTYPES = {F8: np.dtype(np.float64), I8: np.dtype(np.int64), U8: np.dtype(np.uint64)}


class _Text:
    """Writes `unpack` for one signature; `expected` are the objects that it compares with, from slot 1 of the table."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parts: list[str] = []
        self.expected = 0
        self.count = 0

    def let(self, line: str) -> str:
        self.count += 1
        self.lines.append(f"  %v{self.count} = {line}")
        return f"%v{self.count}"

    def load(self, kind: str, base: str, offset: int) -> str:
        return self.let(f"load {kind}, ptr {self.let(f'getelementptr i8, ptr {base}, i64 {offset}')}, align 4")

    def demand(self, condition: str) -> None:
        """Go on only where this holds."""
        self.count += 1
        self.lines += [f"  br i1 {condition}, label %on{self.count}, label %missed", f"on{self.count}:"]

    def slot(self) -> str:
        self.expected += 1
        return self.load("ptr", "%table", 8 * self.expected)

    def same(self, found: str) -> str:
        return self.let(f"icmp eq ptr {found}, {self.slot()}")

    def typed(self, value: str, kinds: int = 1) -> None:
        """The object's type is one of the next so many in the table."""
        found = self.load("ptr", value, _TYPE)
        fits = self.same(found)
        for _ in range(kinds - 1):
            fits = self.let(f"or i1 {fits}, {self.same(found)}")
        self.demand(fits)

    def whole(self, value: str) -> str:
        """The number in an int below 2^62."""
        count = self.load("i64", value, _COUNT)
        if sys.version_info >= (3, 12):  # three bits of flags below: 0 is positive, 2 negative
            sign = self.let(f"and i64 {count}, 3")
            negative, digits = self.let(f"icmp eq i64 {sign}, 2"), self.let(f"lshr i64 {count}, 3")
        else:
            negative = self.let(f"icmp slt i64 {count}, 0")
            digits = self.let(f"select i1 {negative}, i64 {self.let(f'sub i64 0, {count}')}, i64 {count}")
        self.demand(self.let(f"icmp ule i64 {digits}, 3"))
        total = "0"
        for place in range(3):  # an int of no digit has room for one, which is read where another is not there
            there = self.let(f"icmp ugt i64 {digits}, {place}")
            offset = self.let(f"select i1 {there}, i64 {_DIGITS + 4 * place}, i64 {_DIGITS}")
            where = self.let(f"getelementptr i8, ptr {value}, i64 {offset}")
            digit = self.let(f"zext i32 {self.let(f'load i32, ptr {where}, align 4')} to i64")
            if place == 2:
                self.demand(self.let(f"icmp ule i64 {self.let(f'select i1 {there}, i64 {digit}, i64 0')}, 4"))
            part = self.let(f"shl i64 {self.let(f'select i1 {there}, i64 {digit}, i64 0')}, {_DIGIT * place}")
            total = self.let(f"add i64 {total}, {part}")
        return self.let(f"select i1 {negative}, i64 {self.let(f'sub i64 0, {total}')}, i64 {total}")

    def take(self, type_: Any, value: str) -> None:
        """The components of one argument, an object."""
        if isinstance(type_, Array):
            self.typed(value)
            self.demand(self.same(self.load("ptr", value, _ITEM)))
            self.demand(self.let(f"icmp eq i32 {self.load('i32', value, _AXES)}, {type_.ndim}"))
            flags = self.let(f"and i32 {self.load('i32', value, _FLAGS)}, {_USABLE}")
            self.demand(self.let(f"icmp eq i32 {flags}, {_USABLE}"))
            shape = self.load("ptr", value, _SHAPE)
            sizes = [f"i64 {self.load('i64', shape, 8 * axis)}" for axis in range(type_.ndim)]
            self.parts += [f"ptr {self.load('ptr', value, _DATA)}", *sizes]
        elif isinstance(type_, Tuple):
            self.typed(value)
            self.demand(self.let(f"icmp eq i64 {self.load('i64', value, _SIZE)}, {len(type_.items)}"))
            for place, item in enumerate(type_.items):
                self.take(item, self.load("ptr", value, _ITEMS + 8 * place))
        elif isinstance(type_, Fixed):
            self.demand(self.same(value))
        elif isinstance(type_, Pointer):
            self.typed(value)
            self.demand(self.same(self.load("ptr", value, _KEY)))
            address = self.whole(self.load("ptr", value, _VALUE))
            self.parts.append(f"ptr {self.let(f'inttoptr i64 {address} to ptr')}")
        elif type_ is F8:
            self.typed(value, 2)
            self.parts.append(f"double {self.load('double', value, _VALUE)}")
        elif type_ is B1:
            self.typed(value)
            self.parts.append(f"i1 {self.same(value)}")
        elif type_ is U8:
            self.typed(value)
            self.parts.append(f"i64 {self.load('i64', value, _VALUE)}")
        else:
            self.typed(value)
            self.parts.append(f"i64 {self.whole(value)}")

    def written(self, types: tuple[Any, ...], result: Any) -> str:
        """The whole function."""
        self.take(Tuple(types), "%args")
        target, kind = self.load("ptr", "%table", 0), result_type(result)
        call = f"call {kind} {target}({', '.join(self.parts)})"
        out = self.let(call) if result is not None else "0"
        self.lines += [] if result is not None else [f"  {call}"]
        head = "define i64 @unpack(ptr %args, ptr %table) nounwind {\nentry:"
        return "\n".join([head, *self.lines, f"  ret i64 {out}", "missed:", f"  ret i64 {MISSED}", "}\n"])


def _expected(type_: Any) -> Iterator[Any]:
    """What the table holds for an argument of a type."""
    if isinstance(type_, Array):
        yield from (np.ndarray, _DTYPES[type_.item])
    elif isinstance(type_, Tuple):
        yield tuple
        for item in type_.items:
            yield from _expected(item)
    elif isinstance(type_, Fixed):
        yield Known(type_.value) if isinstance(type_, Constant) else type_.value
    elif isinstance(type_, Pointer):
        yield from (FunctionPointer, sys.intern(type_.name))
    else:
        yield from {F8: (float, np.float64), B1: (bool, True), U8: (np.uint64,)}.get(type_, (int,))


@cache
def _unpacker(types: tuple[Any, ...], result: Any) -> Callable[..., int]:
    """`unpack` for these types, compiled once per machine."""
    text = _Text().written(types, result)
    key = hashlib.sha256(f"{llvm.machine()} {text}".encode()).hexdigest()[:40]
    _, code = disk.code_of(key, lambda: ("i8", llvm.optimize(text, thorough=False)))
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.py_object, ctypes.c_void_p)(llvm.load(code, "unpack"))


def _generic(type_: Any) -> Any:
    """The type without what the table holds, so that signatures share their code."""
    if isinstance(type_, Tuple):
        return Tuple(tuple(map(_generic, type_.items)))
    if isinstance(type_, Fixed):
        return Fixed(None)
    return Pointer(None, ()) if isinstance(type_, Pointer) else type_


def quick(types: tuple[Any, ...], address: int, result: Any) -> Quick | None:
    """What calls the machine code at an address with the tuple of a call's arguments; None where objects are laid out
    otherwise, or a result is neither nothing nor a whole number."""
    if not _as_known() or result not in (None, I8):
        return None
    call = _unpacker(tuple(map(_generic, types)), result)
    held = [*_expected(Tuple(types))]
    table = (ctypes.c_int64 * (1 + len(held)))(address, *map(id, held))
    _tables.append((table, held))
    return call, ctypes.addressof(table), result is not None


_tables: list[Any] = []  # they live as long as the machine code


@cache
def _as_known() -> bool:
    """Whether objects of this Python and this numpy lie in memory as the offsets say."""
    array, whole, number, pair = np.zeros((2, 3)), -(5 << 31), 0.1, (1, "a")
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 14) or sys.int_info.bits_per_digit != _DIGIT:
        return False

    def word(value: Any, offset: int, kind: Any = ctypes.c_int64) -> Any:
        return kind.from_address(id(value) + offset).value

    two_digits = (2 << 3) + 2 if sys.version_info >= (3, 12) else -2
    low, high = (word(whole, _DIGITS + 4 * place, ctypes.c_uint32) for place in range(2))
    shape = (ctypes.c_int64 * 2).from_address(word(array, _SHAPE))
    return (
        word(array, _TYPE) == id(np.ndarray) and word(array, _DATA) == array.ctypes.data
        and word(array, _AXES, ctypes.c_int32) == 2 and list(shape) == [2, 3]
        and word(array, _ITEM) == id(_DTYPES[F8]) and word(array, _FLAGS, ctypes.c_int32) & _USABLE == _USABLE
        and not word(array.T, _FLAGS, ctypes.c_int32) & 1 and word(number, _VALUE, ctypes.c_double) == number
        and word(np.float64(0.3), _VALUE, ctypes.c_double) == 0.3 and word(np.uint64(7), _VALUE) == 7
        and word(pair, _SIZE) == 2 and word(pair, _ITEMS + 8) == id(pair[1])
        and word(whole, _COUNT) == two_digits and -((high << _DIGIT) + low) == whole
    )  # fmt: skip
