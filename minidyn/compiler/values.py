"""Values while compiling: a type and the names of its components in LLVM's assembly."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from minidyn.compiler.llvm import lane_count
from minidyn.compiler.types import B1, F8, I8, U8, Tuple


class Unsupported(TypeError):
    """A construct outside the subset: a mistake in minidyn, not in what a user gave."""


class Value:
    """A typed value."""

    __slots__ = ("parts", "type")

    def __init__(self, type_: Any, parts: tuple[str, ...] = ()):
        self.type, self.parts = type_, parts

    @property
    def one(self) -> str:
        """The only component."""
        return self.parts[0]

    @property
    def constant(self) -> int | None:
        """The whole number that the value is, if that is known while compiling."""
        known = self.type in (I8, U8) and self.one.lstrip("-").isdigit()
        return int(self.one) if known else None

    def members(self) -> list[Value]:
        """The members of a tuple."""
        out, at = [], 0
        for t in self.type.items:
            out.append(Value(t, self.parts[at : at + len(t.parts)]))
            at += len(t.parts)
        return out


def together(values: list[Value]) -> Value:
    """Several values as a tuple."""
    return Value(Tuple(tuple(v.type for v in values)), tuple(p for v in values for p in v.parts))


def number(x: float) -> str:
    """A float as LLVM writes it, exactly."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', float(x)))[0]:016X}"


def everywhere(kind: str, constant: str) -> str:
    """A constant in all lanes, as every version of LLVM reads it."""
    return f"<{', '.join([f'{kind} {constant}'] * lane_count())}>"


def literal(value: Any) -> Value:
    """A Python or numpy number as a value."""
    if isinstance(value, (bool, np.bool_)):
        return Value(B1, ("true" if value else "false",))
    if isinstance(value, np.uint64):
        return Value(U8, (str(int(value)),))
    if isinstance(value, (int, np.integer)):
        return Value(I8, (str(int(value)),))
    return Value(F8, (number(value),))


def result_type(type_: Any) -> str:
    """What LLVM calls the type of a function's result."""
    if type_ is None:
        return "void"
    return "{" + ", ".join(type_.parts) + "}" if isinstance(type_, Tuple) else str(type_.parts[0])


def clean(name: str) -> str:
    """A name in the assembly for a variable, whatever its letters."""
    return "v_" + name.encode("ascii", "backslashreplace").decode().replace("\\", "_")


def quote(symbol: str) -> str:
    """A symbol between quotes, so that any character may stand in it."""
    return f'"{symbol}"'
