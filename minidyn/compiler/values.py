"""Values while compiling: a type and the names of its components in LLVM's assembly."""

from __future__ import annotations

import ast
import operator
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from minidyn.compiler.llvm import lane_count
from minidyn.compiler.types import B1, F8, I8, U8, Tuple, Vector


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
    def item(self) -> Any:
        """The type of one lane's number."""
        return self.type.item if isinstance(self.type, Vector) else self.type

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


PYTHON: dict[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Div": operator.truediv, "Pow": operator.pow,
    "FloorDiv": operator.floordiv, "Mod": operator.mod, "LShift": operator.lshift, "RShift": operator.rshift,
    "BitAnd": operator.and_, "BitOr": operator.or_, "BitXor": operator.xor,
    "USub": operator.neg, "UAdd": operator.pos, "Not": operator.not_, "Invert": operator.invert,
}  # fmt: skip


def arithmetic(e: ast.expr) -> Any:
    """The number that a text without names is, as Python finds it; None for any other text, or where there is none."""
    if isinstance(e, ast.Constant):
        return e.value if isinstance(e.value, (bool, int, float)) else None
    if not isinstance(e, (ast.BinOp, ast.UnaryOp)):
        return None
    numbers: list[Any] = []
    for part in (e.right, e.left) if isinstance(e, ast.BinOp) else (e.operand,):  # of a long sum the right one is short
        numbers.insert(0, arithmetic(part))
        if numbers[0] is None:
            return None
    try:
        value = PYTHON[type(e.op).__name__](*numbers)
    except (ArithmeticError, TypeError, ValueError, KeyError):
        return None
    return value if isinstance(value, (bool, int, float)) else None


def is_product(e: ast.AST) -> bool:
    """Whether an expression is a product that is taken while running, and may be added in the same rounding."""
    return isinstance(e, ast.BinOp) and isinstance(e.op, ast.Mult) and arithmetic(e) is None


def written_out(e: ast.Call) -> ast.expr | None:
    """`horner(x, (c_0, ..., c_n))` as `(c_0 * x + c_1) * x + ...`; None where it is not called so."""
    match e.args:
        case [ast.Name() as x, ast.Tuple(elts=[out, *rest])]:
            for c in rest:
                out = ast.BinOp(ast.BinOp(out, ast.Mult(), x), ast.Add(), c)
            return out
    return None


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
