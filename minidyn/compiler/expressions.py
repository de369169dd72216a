"""Expressions: arithmetic, comparisons, conditions, changes of type."""

import ast
import operator
import struct
from typing import Any

import numpy as np

from minidyn.compiler.checks import Checks
from minidyn.compiler.types import B1, F8, I8, LANE, U8, VB, Array, Fixed, Number, Static, Tuple, spread
from minidyn.compiler.values import PYTHON, Value, arithmetic, everywhere, is_product, literal, together

_FLOAT = {"Add": "fadd", "Sub": "fsub", "Mult": "fmul", "Div": "fdiv"}
_SHIFTS = ((LANE, "Add", I8), (I8, "Add", LANE), (LANE, "Sub", I8))
_ORDER = {"Lt": "lt", "LtE": "le", "Gt": "gt", "GtE": "ge", "Eq": "eq", "NotEq": "ne"}
_CHEAP = (ast.Constant, ast.Name, ast.Attribute, ast.UnaryOp, ast.unaryop, ast.Load,
          ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div)  # fmt: skip


class Expressions(Checks):
    """The part of a `Writer` that writes expressions."""

    def expr(self, e: ast.expr) -> Value:
        """The value of an expression; a whole number without names in it fits into 64 bits."""
        number = arithmetic(e)
        if number is not None:
            return self.fitting(literal(number))
        outer, self.node = self.node, e
        method = getattr(self, "of_" + type(e).__name__, None)
        if method is None:
            self.fail(f"{type(e).__name__} is outside the subset")
        value: Value = method(e)
        self.node = outer
        return value

    def of_Constant(self, e: ast.Constant) -> Value:
        """A text or the like: numbers were written before."""
        self.fail("only numbers are constants here")

    def fitting(self, value: Value) -> Value:
        """A constant; a whole one has 64 bits."""
        number, low, high = value.constant, *((0, 2**64) if value.type is U8 else (-(2**63), 2**63))
        if number is not None and not low <= number < high:
            self.fail(f"{number} does not fit into 64 bits")
        return value

    def of_Name(self, e: ast.Name) -> Value:
        """What the name stands for at this line."""
        return self.lookup(e.id)

    def lookup(self, name: str) -> Value:
        """What a name stands for: a variable, a thing of the module, or a builtin by its name."""
        if name in self.own and self.given is not None and name not in self.given:
            self.fail(f"{name} has no value here on some way to this line")
        if name in self.known:
            return self.known[name]
        if name in self.variables:
            return self.fetch(*self.variables[name])
        if name in self.globals:
            return self.of_module(self.globals[name])
        return Value(Fixed(name))

    def of_Tuple(self, e: ast.Tuple) -> Value:
        """Several values together, computed from left to right."""
        return together([self.expr(x) for x in e.elts])

    def of_module(self, value: Any) -> Value:
        """A thing of the surrounding module."""
        if hasattr(value, "py_func") and hasattr(value, "identity"):
            return Value(Static(value))
        if isinstance(value, (bool, int, float, np.number, np.bool_)):
            return literal(value)
        if isinstance(value, np.ndarray):
            made: Value = self.module.constant(value)
            return made
        return Value(Fixed(value))

    def of_Attribute(self, e: ast.Attribute) -> Value:
        """`a.shape` as a tuple, a method that waits for its call, or a thing of a module, as in `math.exp`."""
        base = self.expr(e.value)
        if isinstance(base.type, Array) and e.attr == "shape":
            return Value(Tuple((I8,) * base.type.ndim), base.parts[1:])
        if isinstance(base.item, (Array, Number)):
            return Value(Fixed((base, e.attr)))
        if isinstance(base.type, Fixed) and not isinstance(base.type.value, str):
            return self.of_module(getattr(base.type.value, e.attr))
        self.fail(f"no attribute {e.attr} here")

    def of_UnaryOp(self, e: ast.UnaryOp) -> Value:
        """`not a`, `+a`, `-a`."""
        if isinstance(e.op, ast.Not):
            c = self.truth(self.expr(e.operand))
            if c.one in ("true", "false"):
                return literal(c.one == "false")
            yes = "true" if c.type is B1 else everywhere("i1", "true")
            return Value(c.type, (self.let(f"xor {c.type.llvm} {c.one}, {yes}"),))
        value = self.expr(e.operand)
        if isinstance(e.op, ast.UAdd):
            return value
        if not isinstance(e.op, ast.USub):
            self.fail("this operation is outside the subset")
        return self.negative(value)

    def negative(self, value: Value) -> Value:
        """Minus a value."""
        if value.item is F8:
            if value.one.startswith("0x"):
                return literal(-struct.unpack("<d", struct.pack("<Q", int(value.one, 16)))[0])
            return Value(value.type, (self.let(f"fneg {value.type.llvm} {value.one}"),))
        if value.constant is not None and value.type is I8:
            return Value(value.type, (str(-value.constant),))
        return self.binary(ast.Sub(), literal(0), value)

    def of_BinOp(self, e: ast.BinOp) -> Value:
        """`left op right`; with `fma` a product beside + or - is fused with it, the right one of two."""
        fuses = self.function.fma and isinstance(e.op, (ast.Add, ast.Sub))
        if fuses and is_product(e.left) and not is_product(e.right):
            return self.fused(e.left, self.expr(e.right), minus_sum=isinstance(e.op, ast.Sub))
        return self.combine(e.op, self.expr(e.left), e.right)

    def combine(self, op: ast.operator, left: Value, right: ast.expr) -> Value:
        """`left op right`; a product on the right is added in one rounding where the function asks for that."""
        if self.function.fma and isinstance(op, (ast.Add, ast.Sub)) and is_product(right):
            return self.fused(right, left, minus_product=isinstance(op, ast.Sub))
        return self.binary(op, left, self.expr(right))

    def fused(self, product: ast.expr, other: Value, minus_sum: bool = False, minus_product: bool = False) -> Value:
        """`a b + c`, `a b - c` or `c - a b` in one rounding; the text alone decides what is fused."""
        assert isinstance(product, ast.BinOp)
        a, b = self.expr(product.left), self.expr(product.right)
        kinds = [v.item for v in (a, b, other)]
        if F8 not in kinds[:2] or not all(k in (F8, I8) for k in kinds):
            op = ast.Sub() if minus_sum or minus_product else ast.Add()
            done = self.binary(product.op, a, b)
            return self.binary(op, other, done) if minus_product else self.binary(op, done, other)
        if minus_sum:
            other = self.negative(self.convert(other, spread(F8, other.type)))
        if minus_product:
            a = self.negative(self.convert(a, spread(F8, a.type)))
        return self.intrinsic("fma", [a, b, other])

    def binary(self, op: ast.operator, a: Value, b: Value) -> Value:
        """Arithmetic on two values."""
        kind = type(op).__name__
        if (a.type, kind, b.type) in _SHIFTS:  # what is the same in all lanes moves a lane's number
            return Value(LANE, (self.let(f"{kind.lower()} nsw i64 {a.one}, {b.one}"),))
        for v in (a, b):
            if not isinstance(v.item, Number) and v.type is not LANE:
                self.fail(f"arithmetic needs numbers, not {v.type.name}")
        if kind == "Pow":
            return self.power(a, b)
        a, b = self.alike(a, b)
        if kind == "Div" and a.item is not F8:
            a, b = (self.convert(v, spread(F8, a.type)) for v in (a, b))
        if a.item is F8:
            if kind not in _FLOAT:
                self.fail("this operation is for whole numbers")
            return Value(a.type, (self.let(f"{_FLOAT[kind]} {a.type.llvm} {a.one}, {b.one}"),))
        return self.whole_binary(kind, a, b)

    def whole_binary(self, kind: str, a: Value, b: Value) -> Value:
        """Arithmetic on two whole numbers or bools of one type.

        Constants are added and multiplied while compiling. uint64 wraps around; int64 is trusted not to overflow, which
        checked mode notes. `&` and `|` of bools are bools, anything else of them is int64.
        """
        item = a.item
        if item is B1:
            if kind not in ("BitAnd", "BitOr"):
                return self.whole_binary(kind, *(self.convert(v, spread(I8, a.type)) for v in (a, b)))
            return Value(a.type, (self.let(f"{'and' if kind == 'BitAnd' else 'or'} {a.type.llvm} {a.one}, {b.one}"),))
        x, y = a.constant, b.constant
        if x is not None and y is not None and kind in ("Add", "Sub", "Mult"):
            number = PYTHON[kind](x, y)
            return self.fitting(Value(a.type, (str(number % 2**64 if item is U8 else number),)))
        if kind in ("FloorDiv", "Mod") and item is I8:
            return self.floor_division(kind, a, b)
        if item is I8 and kind in ("Add", "Sub", "Mult"):
            exact = self.exact(kind[:3].lower(), a, b)
            if exact is not None:
                return exact
        if kind in ("LShift", "RShift"):
            b = self.shift(b)
        if kind in ("FloorDiv", "Mod"):
            b = self.divisor(a, b)
        wrap = " nsw" if item is I8 else ""
        name = {
            "Add": "add" + wrap, "Sub": "sub" + wrap, "Mult": "mul" + wrap, "LShift": "shl",
            "RShift": "ashr" if item is I8 else "lshr", "BitXor": "xor", "BitAnd": "and", "BitOr": "or",
            "FloorDiv": "udiv", "Mod": "urem",
        }.get(kind)  # fmt: skip
        if name is None:
            self.fail("this operation is outside the subset")
        return Value(a.type, (self.let(f"{name} {a.type.llvm} {a.one}, {b.one}"),))

    def floor_division(self, kind: str, a: Value, b: Value) -> Value:
        """Division that rounds downwards, and what is left, as in Python."""
        b = self.divisor(a, b)
        t = a.type.llvm
        flag = spread(B1, a.type).llvm
        q, r = self.let(f"sdiv {t} {a.one}, {b.one}"), self.let(f"srem {t} {a.one}, {b.one}")
        zero = self.convert(literal(0), a.type).one
        apart = self.let(f"icmp slt {t} {self.let(f'xor {t} {r}, {b.one}')}, {zero}")
        off = self.let(f"and {flag} {self.let(f'icmp ne {t} {r}, {zero}')}, {apart}")
        if kind == "FloorDiv":
            return Value(a.type, (self.let(f"sub nsw {t} {q}, {self.let(f'zext {flag} {off} to {t}')}"),))
        back = self.let(f"select {flag} {off}, {t} {b.one}, {t} {zero}")
        return Value(a.type, (self.let(f"add nsw {t} {r}, {back}"),))

    def power(self, a: Value, b: Value) -> Value:
        """Small whole powers by multiplication, others by the library."""
        if b.constant is not None and a.item is not F8 and not 0 <= b.constant <= 4:
            self.fail("a whole number has powers from 0 to 4 here")
        if b.constant == 0 and a.item is not F8:
            return self.convert(literal(1), a.type)
        if b.constant is not None and 1 <= b.constant <= 4:
            out = a
            for _ in range(b.constant - 1):
                out = self.binary(ast.Mult(), out, a)
            return out
        return self.libm("pow", [a, b])

    # -- conditions ----------------------------------------------------------------------------------
    def truth(self, value: Value) -> Value:
        """A value as a condition, one for all lanes or one per lane."""
        if value.type in (B1, VB):
            return value
        if value.constant is not None:
            return literal(bool(value.constant))
        if value.item in (I8, U8, F8):
            return self.compare("NotEq", value, literal(0))
        self.fail("a condition must be true or false")

    def condition(self, e: ast.expr) -> str:
        """A condition that is the same in all lanes."""
        value = self.truth(self.expr(e))
        if value.type is not B1:
            self.fail("a branch must go the same way in all lanes")
        return value.one

    def of_BoolOp(self, e: ast.BoolOp) -> Value:
        """`and`, `or`: the right side is computed only where needed, or always if the left one is one per lane."""
        name, stop = ("and", "false") if isinstance(e.op, ast.And) else ("or", "true")
        first = self.truth(self.expr(e.values[0]))
        rest = e.values[1] if len(e.values) == 2 else ast.BoolOp(e.op, e.values[1:])
        if first.type is VB:  # lanes do not branch: both sides are computed
            a, b = self.alike(first, self.truth(self.expr(rest)))
            return Value(VB, (self.let(f"{name} {VB.llvm} {a.one}, {b.one}"),))
        if first.one in ("true", "false"):
            return first if first.one == stop else self.truth(self.expr(rest))
        slot, more, after = self.new("b"), self.block(name), self.block("bool")
        mark = len(self.lines)
        self.put(f"store i1 {stop}, ptr {slot}")
        self.branch(first.one, *((more, after) if name == "and" else (after, more)))
        self.open(more)
        second = self.truth(self.expr(rest))
        kind = second.type.llvm
        if second.type is VB:  # what the first condition alone decides, it decides for all lanes
            self.lines[mark] = f"  store {kind} {everywhere('i1', stop)}, ptr {slot}"
        self.top.append(f"  {slot} = alloca {kind}")
        self.put(f"store {kind} {second.one}, ptr {slot}")
        self.label(after)
        return Value(second.type, (self.let(f"load {kind}, ptr {slot}"),))

    def of_Compare(self, e: ast.Compare) -> Value:
        """`a < b`, and `a < b < c`; unlike in Python all sides are computed, whatever the first comparison gives."""
        left, out = self.expr(e.left), None
        for op, right_ in zip(e.ops, e.comparators, strict=True):
            right = self.expr(right_)
            c = self.compare(type(op).__name__, left, right)
            out = c if out is None else self.whole_binary("BitAnd", *self.alike(out, c))
            left = right
        assert out is not None
        return out

    def compare(self, kind: str, a: Value, b: Value) -> Value:
        """A comparison; false where one side is NaN, except for `!=`."""
        if a.constant is not None and b.constant is not None:
            return literal(getattr(operator, _ORDER[kind])(a.constant, b.constant))
        a, b = self.alike(a, b)
        name = _ORDER[kind]
        if a.item is F8:
            op = "fcmp une" if name == "ne" else f"fcmp o{name}"
        else:
            op = f"icmp {name}" if name in ("eq", "ne") else f"icmp {'u' if a.item is U8 else 's'}{name}"
        return Value(spread(B1, a.type), (self.let(f"{op} {a.type.llvm} {a.one}, {b.one}"),))

    def of_IfExp(self, e: ast.IfExp) -> Value:
        """`a if condition else b`; both are computed where they cost little or the condition is one per lane."""
        condition = self.truth(self.expr(e.test))
        if condition.one in ("true", "false"):
            return self.expr(e.body if condition.one == "true" else e.orelse)
        if condition.type is VB or (_is_cheap(e.body) and _is_cheap(e.orelse)):  # no branch: both sides are computed
            return self.select(condition, self.expr(e.body), self.expr(e.orelse))
        yes, no, after = self.block("yes"), self.block("no"), self.block("either")
        self.branch(condition.one, yes, no)
        self.open(yes)
        a = self.expr(e.body)
        mark = len(self.lines)
        self.open(no)
        b = self.expr(e.orelse)
        both = a.type if a.type == b.type else self.common(a, b)
        slots = [self.new("c") for _ in both.parts]
        self.top += [f"  {s} = alloca {t}" for s, t in zip(slots, both.parts, strict=True)]
        self.keep(self.convert(b, both), slots)
        tail, self.lines = self.lines[mark:], self.lines[:mark]
        self.keep(self.convert(a, both), slots)
        self.lines.append(f"  br label %{after}")
        self.lines += tail
        self.label(after)
        return self.fetch(both, slots)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """One of two values."""
        if a.type != b.type or a.type is LANE:
            a, b = self.alike(a, b)
        if condition.type is VB and a.item is a.type:
            a, b = self.broadcast(a), self.broadcast(b)
        flag = condition.type.llvm
        parts = [
            self.let(f"select {flag} {condition.one}, {t} {p}, {t} {q}")
            for t, p, q in zip(a.type.parts, a.parts, b.parts, strict=True)
        ]
        return Value(a.type, tuple(parts))


def _is_cheap(e: ast.expr) -> bool:
    """Whether an expression costs so little that it is computed whether needed or not."""
    return all(isinstance(part, _CHEAP) for part in ast.walk(e))
