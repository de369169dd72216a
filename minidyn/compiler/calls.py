"""Calls: of other compiled functions, of builtins, of the functions of math and numpy."""

import ast
import math
from typing import Any

import numpy as np

from minidyn.compiler.arrays import Arrays
from minidyn.compiler.intrinsics import across, horner, some
from minidyn.compiler.llvm import LIBM
from minidyn.compiler.types import (
    B1,
    F8,
    I8,
    LANE,
    U8,
    VB,
    VF,
    Array,
    Fixed,
    Number,
    Pointer,
    Static,
    Table,
    Tuple,
    spread,
)
from minidyn.compiler.values import Unsupported, Value, arithmetic, literal, quote, result_type, written_out

INTRINSIC = {"sqrt", "fabs", "floor", "ceil", "copysign", "rint"}
SYNONYMS = {f"arc{f}": f"a{f}" for f in "sin cos tan tan2 sinh".split()}
SYNONYMS |= {"power": "pow", "abs": "fabs", "absolute": "fabs"}
_TESTS = {"isnan": ("fcmp uno", None), "isfinite": ("fcmp olt", math.inf), "isinf": ("fcmp oeq", math.inf)}
_FEW, _MANY = 8, 48  # calls of inlined functions in a row, and in loops, from which on they stay calls
_DTYPES = {np.float64: F8, np.int64: I8, np.uint64: U8}


class Calls(Arrays):
    """The part of a `Writer` that writes calls."""

    def of_Call(self, e: ast.Call) -> Value:
        """A call of a compiled function, by name or address, a builtin, a function of math or numpy, or a method.

        Arguments are given by position; `np.empty` and `np.zeros` alone take `dtype=`.
        """
        target = self.expr(e.func)
        type_ = target.type
        what = type_.value if isinstance(type_, Fixed) else None
        if what in (np.empty, np.zeros):
            return self.make_array(e, zero=what is np.zeros)
        if e.keywords:
            self.fail("arguments are given by position")
        if what is horner:
            return self.expr(written_out(e) or self.fail("a polynomial is of a variable, its coefficients in brackets"))
        if isinstance(what, tuple):
            return self.method(what[0], what[1], e)
        args = [self.word(a) if what is np.uint64 else self.expr(a) for a in e.args]
        if isinstance(type_, Static):
            known = (self.constants.get(a.id) if isinstance(a, ast.Name) else None for a in e.args)
            args = [v if c is None else Value(c) for v, c in zip(args, known, strict=True)]
            return self.call(what, args)
        if isinstance(type_, Pointer):
            return self.call_pointer(target, args)
        if what is None:
            self.fail("this cannot be called")
        return self.builtin(what, args) if isinstance(what, str) else self.numeric(what, args)

    def word(self, e: ast.expr) -> Value:
        """What becomes an unsigned number: a constant may have all 64 bits."""
        number = arithmetic(e)
        known = isinstance(number, int) and 0 <= number < 2**64
        return literal(np.uint64(number)) if known else self.expr(e)

    # -- compiled functions ----------------------------------------------------------------------------
    def call(self, function: Any, args: list[Value]) -> Value:
        """A call of a compiled function, which is written into the module for these argument types if it is not there;
        an inlined one stays a call in a text that holds many of them."""
        symbol, result = self.module.function(function, tuple(a.type for a in args))
        apart = function.inline and self.inlined > (_MANY if self.loops else _FEW)
        return self.invoke(f"@{quote(symbol)}", result, args, " noinline" if apart else "")

    def count_inlined(self, tree: ast.AST) -> int:
        """How many calls of inlined functions a text holds; very many stay calls, or compiling takes long."""
        names = (e.func.id for e in ast.walk(tree) if isinstance(e, ast.Call) and isinstance(e.func, ast.Name))
        return sum(bool(getattr(self.globals.get(name), "inline", False)) for name in names)

    def call_pointer(self, target: Value, args: list[Value]) -> Value:
        """A call of a function by its address: arguments are converted to what its signature says."""
        kind: Pointer = target.type
        if len(args) != len(kind.args):
            self.fail(f"{len(kind.args)} arguments are expected")
        return self.invoke(target.one, kind.result, [self.convert(a, t) for a, t in zip(args, kind.args, strict=True)])

    def invoke(self, where: str, result: Any, given: list[Value], how: str = "") -> Value:
        """The line that calls `where`, and the result as a value.  how : attributes of the call, as ` noinline`."""
        args = ", ".join(f"{t} {p}" for v in given for t, p in zip(v.type.parts, v.parts, strict=True))
        if result is None:
            self.put(f"call void {where}({args})")
            return Value(Fixed("nothing"))
        kind = result_type(result)
        got = self.let(f"call {kind} {where}({args}){how}")
        if isinstance(result, Tuple):
            return Value(result, tuple(self.let(f"extractvalue {kind} {got}, {i}") for i in range(len(result.parts))))
        return Value(result, (got,))

    # -- arrays and bits -------------------------------------------------------------------------------
    def make_array(self, e: ast.Call, zero: bool) -> Value:
        """`np.empty` and `np.zeros`."""
        shape = self.expr(e.args[0])
        given = e.args[1] if len(e.args) > 1 else next((k.value for k in e.keywords if k.arg == "dtype"), None)
        item = _dtype(self.expr(given)) if given is not None else F8
        sizes = shape.members() if isinstance(shape.type, Tuple) else [shape]
        return self.allocate(item, [self.convert(s, I8).one for s in sizes], zero)

    def method(self, base: Value, name: str, e: ast.Call) -> Value:
        """`a.copy()` of an array, `x.view(np.uint64)` of a number."""
        if isinstance(base.type, Array) and name == "copy":
            return self.copy(base)
        if isinstance(base.item, Number) and name == "view":
            item = _dtype(self.expr(e.args[0]))
            type_ = spread(item, base.type)
            return Value(type_, (self.let(f"bitcast {base.type.llvm} {base.one} to {type_.llvm}"),))
        self.fail(f"no method {name} here")

    # -- builtins ------------------------------------------------------------------------------------
    def builtin(self, name: str, args: list[Value]) -> Value:
        """`abs min max float int bool len pow round`; of numbers equal or not ordered min and max keep the first."""
        if name == "abs":
            (a,) = args
            if a.item is F8:
                return self.intrinsic("fabs", args)
            return self.select(self.compare("Lt", a, literal(0)), self.negative(a), a)
        if name in ("min", "max"):
            out = args[0]
            for other in args[1:]:
                a, b = self.alike(out, other)
                out = self.select(self.compare("Lt" if name == "min" else "Gt", b, a), b, a)
            return out
        if name == "float":
            return self.convert(args[0], spread(F8, args[0].type))
        if name == "int":
            return self.whole(args[0])
        if name == "bool":
            return args[0] if args[0].item is B1 else self.compare("NotEq", args[0], literal(0))
        if name == "len" and isinstance(args[0].type, Array):
            return Value(I8, (args[0].parts[1],))
        if name == "pow":
            return self.power(*args)
        if name == "round" and len(args) == 1:
            return self.whole(self.intrinsic("rint", args))
        self.fail(f"{name} is not known here")

    def whole(self, a: Value) -> Value:
        """A number as an int64, rounded towards zero."""
        type_ = spread(I8, a.type)
        if a.item is F8:
            return Value(type_, (self.let(f"fptosi {a.type.llvm} {a.one} to {type_.llvm}"),))
        return self.convert(a, type_) if a.item in (B1, LANE) else a

    def numeric(self, what: Any, args: list[Value]) -> Value:
        """A function of math or numpy, or a change of type."""
        if what in (np.int64, np.uint64):
            a = self.whole(args[0])
            return Value(spread(U8 if what is np.uint64 else I8, a.type), a.parts)
        if what is np.float64:
            return self.builtin("float", args)
        if what is some:
            c = self.truth(args[0])
            return c if c.type is B1 else Value(B1, (self.reduced("or", VB, c.one),))
        if what is across:
            return self.across(*args)
        name = getattr(what, "__name__", "")
        name = SYNONYMS.get(name, name)
        home = getattr(what, "__module__", None)
        if home != "math" and not isinstance(what, np.ufunc):
            self.fail("only compiled functions can be called")
        if name in _TESTS:
            return self.builtin_test(*_TESTS[name], args[0])
        if name in ("minimum", "maximum"):
            return self.builtin(name[:3], args)
        if name in INTRINSIC:
            out = self.intrinsic(name, args)
            return self.whole(out) if home == "math" and name in ("floor", "ceil") else out
        if name in LIBM:
            return self.libm(name, args)
        self.fail(f"{name} is not known here")

    def across(self, array: Value, at: Value) -> Value:
        """The sum of eight neighbours. As a vector from the start: LLVM would gather them for several sums at once."""
        if array.type == Array(VF, 1):  # eight numbers per lane: each lane adds its own, in the same order
            places = [self.binary(ast.Add(), at, literal(i)) for i in range(8)]
            return self.pairwise([self.read_item((array, [p])) for p in places])
        if array.type not in (Array(F8, 1), Table(F8, 1)):
            self.fail("eight numbers of an array of floats are added")
        ends = [self.within(array, [self.binary(ast.Add(), at, literal(i))]) for i in (0, 7)]
        where = self.address(array, [self.convert(at, I8)])
        for good in ends:
            where = self.or_spare(good, where)
        wide = self.let(f"load <8 x double>, ptr {where}, align 8")
        for half in (4, 2, 1):
            parts = []
            for first in (0, half):
                mask = ", ".join(f"i32 {first + i}" for i in range(half))
                kind = f"<{2 * half} x double>"
                parts.append(self.let(f"shufflevector {kind} {wide}, {kind} poison, <{half} x i32> <{mask}>"))
            wide = self.let(f"fadd <{half} x double> {parts[0]}, {parts[1]}")
        return Value(F8, (self.let(f"extractelement <1 x double> {wide}, i64 0"),))

    def pairwise(self, numbers: list[Value]) -> Value:
        """The sum of a power of two of numbers: the first half is added to the second, again and again."""
        while len(numbers) > 1:
            half = len(numbers) // 2
            numbers = [self.binary(ast.Add(), a, b) for a, b in zip(numbers[:half], numbers[half:], strict=True)]
        return numbers[0]

    def builtin_test(self, op: str, bound: float | None, a: Value) -> Value:
        """`a op a` of a value as a float, or `|a| op bound` where there is a bound: a condition, or one per lane."""
        a = self.builtin("float", [a])
        other = a
        if bound is not None:
            a, other = self.intrinsic("fabs", [a]), self.convert(literal(bound), a.type)
        return Value(spread(B1, a.type), (self.let(f"{op} {a.type.llvm} {a.one}, {other.one}"),))


def _dtype(value: Value) -> Number:
    what = value.type.value if isinstance(value.type, Fixed) else None
    if what == "float":
        return F8
    if what not in _DTYPES:
        raise Unsupported(f"arrays hold float64, int64 or uint64, not {what}.")
    return _DTYPES[what]
