"""A subset of Python -> LLVM's assembly.

The subset is what numerical loops are written in: numbers, C-contiguous arrays, `for`
over `range`, `while`, `if`, arithmetic, the functions of `math`, calls of other compiled functions. A
variable keeps the type of its first assignment. Integers do not wrap around when they index, arrays are
not checked: a kernel is trusted, as in C.

An array made inside a function lives until the function returns, or until the line that made it runs again.
"""

from __future__ import annotations

import ast
import math
import struct
from typing import Any, NoReturn

import numpy as np

from minidyn.compiler.types import B1, F8, I8, U8, Array, Fixed, Number, Pointer, Static, Tuple

_LIBM = {
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cosh", "erf", "erfc", "expm1", "lgamma", "log1p",
    "log2", "sinh", "tan", "tanh", "pow", "exp", "log", "sin", "cos", "log10", "fmod", "cbrt", "hypot",
}  # fmt: skip
_INTRINSIC = {"sqrt": "sqrt", "fabs": "fabs", "floor": "floor", "ceil": "ceil", "copysign": "copysign"}
_SYNONYMS = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "power": "pow", "abs": "fabs", "arctan2": "atan2"}
_FEW, _MANY = 8, 48  # calls of inlined functions in a row, and in loops, from which on they are called
_STACK = 512  # numbers: a smaller array of known size lives on the stack


class Unsupported(TypeError):
    """A construct outside the subset: a mistake in minidyn, not in what a user gave."""


class Value:
    """A typed value: the names of its components in the assembly."""

    __slots__ = ("parts", "type")

    def __init__(self, type_: Any, parts: tuple[str, ...] = ()):
        self.type, self.parts = type_, parts

    @property
    def one(self) -> str:
        return self.parts[0]


def number(x: float) -> str:
    """A float as LLVM writes it, exactly."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', float(x)))[0]:016X}"


def literal(value: Any) -> Value:
    """A Python or numpy number as a value."""
    if isinstance(value, (bool, np.bool_)):
        return Value(B1, ("true" if value else "false",))
    if isinstance(value, np.uint64):
        return Value(U8, (str(int(value)),))
    if isinstance(value, (int, np.integer)):
        return Value(I8, (str(int(value)),))
    return Value(F8, (number(value),))


class Unit:
    """One LLVM module: an entry, everything that it calls, the constants that they read."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.declared: dict[str, str] = {}
        self.constants: dict[int, tuple[str, Any]] = {}
        self.compiled: dict[tuple[Any, tuple[Any, ...]], tuple[str, Any]] = {}
        self.busy: list[Any] = []
        self.loops = 0

    def declare(self, name: str, line: str) -> None:
        self.declared[name] = line

    def constant(self, array: np.ndarray) -> Value:
        item = {"f": F8, "i": I8, "u": U8}[array.dtype.kind]
        if id(array) not in self.constants:
            name = f"@array{len(self.constants)}"
            values = [number(v) if item is F8 else str(int(v)) for v in array.ravel()]
            body = ", ".join(f"{item.llvm} {v}" for v in values)
            kind = f"[{array.size} x {item.llvm}]"
            self.text.append(f"{name} = private unnamed_addr constant {kind} [{body}], align 64\n")
            self.constants[id(array)] = (name, array)
        return Value(Array(item, array.ndim), (self.constants[id(array)][0], *map(str, array.shape)))

    def function(self, function: Any, types: tuple[Any, ...], name: str | None = None) -> tuple[str, Any]:
        """Compile a function for these argument types; its name in the module and its result type."""
        key = (function, types)
        if key not in self.compiled:
            if function in self.busy:
                raise Unsupported(f"{function.identity} calls itself.")
            self.busy.append(function)
            symbol = name or f"{function.name}.{len(self.compiled)}"
            writer = Writer(self, function, types, symbol, internal=name is None)
            text = writer.write()
            self.text.append(text)
            self.compiled[key] = (symbol, writer.result)
            self.busy.pop()
        return self.compiled[key]

    def kept_loop(self) -> str:
        """A mark for a loop that is not to be unrolled before it can be vectorized."""
        self.loops += 1
        return f", !llvm.loop !{self.loops}"

    def module(self) -> str:
        marks = [f"!{k} = distinct !{{!{k}, !0}}" for k in range(1, self.loops + 1)]
        return "\n".join([*self.declared.values(), *self.text, '!0 = !{!"llvm.loop.unroll.disable"}', *marks])


class Writer:
    """Writes one function for one tuple of argument types."""

    def __init__(self, unit: Unit, function: Any, types: tuple[Any, ...], symbol: str, internal: bool):
        self.unit, self.function, self.types, self.symbol, self.internal = unit, function, types, symbol, internal
        self.globals = function.py_func.__globals__
        self.lines: list[str] = []
        self.top: list[str] = []
        self.count = 0
        self.variables: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self.known: dict[str, Value] = {}
        self.result: Any = None
        self.returned = False
        self.ended = False
        self.loops: list[tuple[str, str]] = []
        self.depth = 0
        self.heap: list[str] = []
        self.node: ast.AST | None = None
        self.inlined = 0 if function.inline else sum(map(self.calls_inlined, ast.walk(function.tree)))
        flags = sorted(function.fastmath)
        self.flags = "".join(f" {f}" for f in flags)

    def fail(self, what: str) -> NoReturn:
        line = getattr(self.node, "lineno", 0)
        text = ast.unparse(self.node) if self.node is not None else ""
        raise Unsupported(f"{self.function.identity}, line {line}: {what} (`{text[:80]}`)")

    # -- writing lines ----------------------------------------------------------------------------
    def new(self, prefix: str = "t") -> str:
        self.count += 1
        return f"%{prefix}{self.count}"

    def put(self, line: str) -> None:
        if not self.ended:
            self.lines.append("  " + line)

    def let(self, text: str) -> str:
        name = self.new()
        self.put(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        if not self.ended:
            self.lines.append(f"  br label %{name}")
        self.lines.append(f"{name}:")
        self.ended = False

    def jump(self, name: str) -> None:
        self.put(f"br label %{name}")
        self.ended = True

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.put(f"br i1 {condition}, label %{yes}, label %{no}")
        self.ended = True

    def block(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # -- the function -----------------------------------------------------------------------------
    def write(self) -> str:
        tree = self.function.tree
        names = [a.arg for a in tree.args.args]
        if len(names) != len(self.types):
            raise Unsupported(f"{self.function.identity} takes {len(names)} arguments, got {len(self.types)}.")
        params = []
        for name, type_ in zip(names, self.types, strict=True):
            parts = tuple(f"%{_clean(name)}.{i}" for i in range(len(type_.parts)))
            noalias = " noalias" if self.function.noalias and isinstance(type_, Array) else ""
            params += [
                f"{t}{noalias + ' noundef' if t == 'ptr' else ''} {p}" for t, p in zip(type_.parts, parts, strict=True)
            ]
            if isinstance(type_, (Static, Fixed)) or _has_static(type_):
                self.known[name] = Value(type_, parts)
            else:
                self.assign(name, Value(type_, parts))
        self.statements(tree.body)
        if not self.ended:
            self.leave(None)
        self.lines.append("leave:")
        self.ended = False
        for slot in self.heap:
            old = self.let(f"load ptr, ptr {slot}")
            self.put(f"call void @free(ptr {old})")
            self.unit.declare("free", "declare void @free(ptr)")
        if self.result is None:
            self.put("ret void")
            kind = "void"
        else:
            kind = _result_type(self.result)
            self.put(f"ret {kind} {self.let(f'load {kind}, ptr %result')}")
            self.top.append(f"  %result = alloca {kind}")
        linkage = "internal " if self.internal else ""
        attributes = ' "prefer-vector-width"="512"' + (" alwaysinline" if self.function.inline else "")
        head = f"define {linkage}{kind} @{quote(self.symbol)}({', '.join(params)}) nounwind{attributes} {{"
        return "\n".join([head, "entry:", *self.top, *self.lines, "}\n"])

    def leave(self, value: Value | None) -> None:
        type_ = value.type if value is not None else None
        if not self.returned:
            self.result, self.returned = type_, True
        if self.result is not None:
            if value is None:
                self.fail("one return gives a value, another none")
            value = self.convert(value, self.result)
            kind = _result_type(self.result)
            if isinstance(self.result, Tuple):
                packed = "undef"
                for i, (t, p) in enumerate(zip(self.result.parts, value.parts, strict=True)):
                    packed = self.let(f"insertvalue {kind} {packed}, {t} {p}, {i}")
                self.put(f"store {kind} {packed}, ptr %result")
            else:
                self.put(f"store {kind} {value.one}, ptr %result")
        self.jump("leave")

    # -- variables ---------------------------------------------------------------------------------
    def assign(self, name: str, value: Value) -> None:
        if name == "_":  # not wanted
            return
        if isinstance(value.type, (Static, Fixed)) or _has_static(value.type):
            self.known[name] = value
            return
        if name not in self.variables:
            slots = tuple(f"%{_clean(name)}.v{i}" for i in range(len(value.parts)))
            for slot, t in zip(slots, value.type.parts, strict=True):
                self.top.append(f"  {slot} = alloca {t}")
            self.variables[name] = (value.type, slots)
        type_, slots = self.variables[name]
        value = self.convert(value, type_, name)
        for slot, t, part in zip(slots, type_.parts, value.parts, strict=True):
            self.put(f"store {t} {part}, ptr {slot}")

    def lookup(self, name: str) -> Value:
        if name in self.known:
            return self.known[name]
        if name in self.variables:
            type_, slots = self.variables[name]
            return Value(type_, tuple(self.let(f"load {t}, ptr {s}") for t, s in zip(type_.parts, slots, strict=True)))
        if name in self.globals:
            return self.fixed(self.globals[name])
        if name in ("True", "False"):
            return literal(name == "True")
        return Value(Fixed(name))

    def fixed(self, value: Any) -> Value:
        """A value of the surrounding module."""
        if hasattr(value, "py_func") and hasattr(value, "identity"):
            return Value(Static(value))
        if isinstance(value, (bool, int, float, np.number, np.bool_)):
            return literal(value)
        if isinstance(value, np.ndarray):
            return self.unit.constant(value)
        return Value(Fixed(value))

    def convert(self, value: Value, type_: Any, name: str = "") -> Value:
        """The value as another type: whole numbers become floats, bools become numbers."""
        if value.type == type_:
            return value
        if isinstance(type_, Tuple) and isinstance(value.type, Tuple) and len(type_.items) == len(value.type.items):
            members = [self.convert(v, t) for v, t in zip(self.members(value), type_.items, strict=True)]
            return Value(type_, tuple(p for m in members for p in m.parts))
        if isinstance(value.type, Number) and isinstance(type_, Number):
            if type_ is F8:
                op = {"i8": "sitofp i64", "u8": "uitofp i64", "b1": "uitofp i1"}[value.type.name]
                return Value(F8, (self.let(f"{op} {value.one} to double"),))
            if type_ in (I8, U8) and value.type is B1:
                return Value(type_, (self.let(f"zext i1 {value.one} to i64"),))
            if type_ is U8 and value.type is I8 and value.one.lstrip("-").isdigit():
                return Value(U8, value.parts)
        self.fail(f"a {value.type.name} does not fit where a {type_.name} is{' kept in ' + name if name else ''}")

    def members(self, value: Value) -> list[Value]:
        out, at = [], 0
        for t in value.type.items:
            out.append(Value(t, value.parts[at : at + len(t.parts)]))
            at += len(t.parts)
        return out

    # -- statements --------------------------------------------------------------------------------
    def statements(self, body: list[ast.stmt]) -> None:
        for s in body:
            if self.ended:
                return
            self.node = s
            method = getattr(self, "do_" + type(s).__name__, None)
            if method is None:
                self.fail(f"{type(s).__name__} is outside the subset")
            method(s)

    def do_Pass(self, s: ast.Pass) -> None:
        pass

    def do_Expr(self, s: ast.Expr) -> None:
        if not isinstance(s.value, ast.Constant):
            self.expr(s.value)

    def do_Return(self, s: ast.Return) -> None:
        self.leave(None if s.value is None else self.expr(s.value))

    def do_Assign(self, s: ast.Assign) -> None:
        if len(s.targets) == 1 and isinstance(s.targets[0], ast.Tuple) and isinstance(s.value, ast.Tuple):
            values = [self.expr(v) for v in s.value.elts]
            for target, value in zip(s.targets[0].elts, values, strict=True):
                self.store(target, value)
            return
        value = self.expr(s.value)
        for target in s.targets:
            self.store(target, value)

    def do_AnnAssign(self, s: ast.AnnAssign) -> None:
        if s.value is not None:
            self.store(s.target, self.expr(s.value))

    def do_AugAssign(self, s: ast.AugAssign) -> None:
        if isinstance(s.target, ast.Subscript):
            item, address = self.element(s.target)
            old = Value(item, (self.let(f"load {item.llvm}, ptr {address}, align 8"),))
            new = self.convert(self.binary(s.op, old, self.expr(s.value)), item)
            self.put(f"store {item.llvm} {new.one}, ptr {address}, align 8")
            return
        assert isinstance(s.target, ast.Name)
        self.assign(s.target.id, self.binary(s.op, self.lookup(s.target.id), self.expr(s.value)))

    def store(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.assign(target.id, value)
        elif isinstance(target, ast.Tuple):
            if not isinstance(value.type, Tuple) or len(value.type.items) != len(target.elts):
                self.fail("these values cannot be unpacked")
            for t, v in zip(target.elts, self.members(value), strict=True):
                self.store(t, v)
        elif isinstance(target, ast.Subscript):
            item, address = self.element(target)
            value = self.convert(value, item)
            self.put(f"store {item.llvm} {value.one}, ptr {address}, align 8")
        else:
            self.fail("this cannot be assigned to")

    def do_If(self, s: ast.If) -> None:
        condition = self.condition(s.test)
        if condition in ("true", "false"):  # decided while compiling
            self.statements(s.body if condition == "true" else s.orelse)
            return
        yes, no, after = self.block("then"), self.block("else"), self.block("endif")
        self.branch(condition, yes, no if s.orelse else after)
        self.label_ended(yes)
        self.depth += 1
        self.statements(s.body)
        if not self.ended:
            self.jump(after)
        if s.orelse:
            self.label_ended(no)
            self.statements(s.orelse)
            if not self.ended:
                self.jump(after)
        self.depth -= 1
        self.label_ended(after)

    def label_ended(self, name: str) -> None:
        """A label that is reached by jumps only."""
        self.lines.append(f"{name}:")
        self.ended = False

    def do_While(self, s: ast.While) -> None:
        head, body, after = self.block("while"), self.block("body"), self.block("endwhile")
        self.label(head)
        self.branch(self.condition(s.test), body, after)
        self.label_ended(body)
        self.loop_body(s.body, head, after)
        self.label_ended(after)

    def loop_body(self, body: list[ast.stmt], again: str, after: str) -> None:
        self.loops.append((again, after))
        self.depth += 1
        self.statements(body)
        self.depth -= 1
        if not self.ended:
            self.jump(again)
        self.loops.pop()

    def do_For(self, s: ast.For) -> None:
        call = s.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            self.fail("a for loop runs over range(...)")
        args = [self.convert(self.expr(a), I8).one for a in call.args]
        start, stop = ("0", args[0]) if len(args) == 1 else args[:2]
        step = int(args[2]) if len(args) == 3 else 1
        counter = self.new("k")
        self.top.append(f"  {counter} = alloca i64")
        self.put(f"store i64 {start}, ptr {counter}")
        head, body, more, after = (self.block(p) for p in ("for", "body", "next", "endfor"))
        self.label(head)
        k = self.let(f"load i64, ptr {counter}")
        self.branch(self.let(f"icmp {'slt' if step > 0 else 'sgt'} i64 {k}, {stop}"), body, after)
        self.label_ended(body)
        assert isinstance(s.target, ast.Name)
        self.assign(s.target.id, Value(I8, (k,)))
        self.loop_body(s.body, more, after)
        self.label_ended(more)
        k = self.let(f"load i64, ptr {counter}")
        self.put(f"store i64 {self.let(f'add nsw i64 {k}, {step}')}, ptr {counter}")
        lanes = start == "0" and step == 1 and stop.isdigit() and int(stop) % 8 == 0
        self.put(f"br label %{head}{self.unit.kept_loop() if lanes else ''}")
        self.ended = True
        self.label_ended(after)

    def do_Break(self, s: ast.Break) -> None:
        self.jump(self.loops[-1][1])

    def do_Continue(self, s: ast.Continue) -> None:
        self.jump(self.loops[-1][0])

    # -- expressions -------------------------------------------------------------------------------
    def expr(self, e: ast.expr) -> Value:
        outer, self.node = self.node, e
        method = getattr(self, "of_" + type(e).__name__, None)
        if method is None:
            self.fail(f"{type(e).__name__} is outside the subset")
        value: Value = method(e)
        self.node = outer
        return value

    def of_Constant(self, e: ast.Constant) -> Value:
        if not isinstance(e.value, (bool, int, float)):
            self.fail("only numbers are constants here")
        return literal(e.value)

    def of_Name(self, e: ast.Name) -> Value:
        return self.lookup(e.id)

    def of_Tuple(self, e: ast.Tuple) -> Value:
        members = [self.expr(x) for x in e.elts]
        return Value(Tuple(tuple(m.type for m in members)), tuple(p for m in members for p in m.parts))

    def of_Attribute(self, e: ast.Attribute) -> Value:
        base = self.expr(e.value)
        if isinstance(base.type, Array):
            if e.attr == "shape":
                return Value(Tuple((I8,) * base.type.ndim), base.parts[1:])
            return Value(Fixed((base, e.attr)))
        if isinstance(base.type, Fixed) and not isinstance(base.type.value, str):
            return self.fixed(getattr(base.type.value, e.attr))
        if isinstance(base.type, Number):
            return Value(Fixed((base, e.attr)))
        self.fail(f"no attribute {e.attr} here")

    def of_UnaryOp(self, e: ast.UnaryOp) -> Value:
        if isinstance(e.op, ast.Not):
            c = self.condition(e.operand)
            if c in ("true", "false"):
                return literal(c == "false")
            return Value(B1, (self.let(f"xor i1 {c}, true"),))
        value = self.expr(e.operand)
        if isinstance(e.op, ast.UAdd):
            return value
        if not isinstance(e.op, ast.USub):
            self.fail("this operation is outside the subset")
        if value.type is F8:
            if value.one.startswith("0x"):
                return literal(-struct.unpack("<d", struct.pack("<Q", int(value.one, 16)))[0])
            return Value(F8, (self.let(f"fneg{self.flags} double {value.one}"),))
        if value.one.isdigit():
            return Value(I8, ("-" + value.one,))
        return Value(value.type, (self.let(f"sub i64 0, {value.one}"),))

    def of_BinOp(self, e: ast.BinOp) -> Value:
        if self.function.fma and isinstance(e.op, (ast.Add, ast.Sub)):
            fused = self.fused(e)
            if fused is not None:
                return fused
        return self.binary(e.op, self.expr(e.left), self.expr(e.right))

    def fused(self, e: ast.BinOp) -> Value | None:
        """`a*b + c` in one rounding; which products are fused is decided by the text alone."""
        left, right, minus = e.left, e.right, isinstance(e.op, ast.Sub)
        if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Mult):
            a, b, c = self.expr(left.left), self.expr(left.right), self.expr(right)
            if all(v.type in (F8, I8) for v in (a, b, c)) and F8 in (a.type, b.type):
                if minus:
                    c = Value(F8, (self.let(f"fneg double {self.convert(c, F8).one}"),))
                return self.intrinsic("fma", [a, b, c])
            return self.binary(e.op, self.binary(left.op, a, b), c)
        if isinstance(right, ast.BinOp) and isinstance(right.op, ast.Mult):
            c, a, b = self.expr(left), self.expr(right.left), self.expr(right.right)
            if all(v.type in (F8, I8) for v in (a, b, c)) and F8 in (a.type, b.type):
                if minus:
                    a = Value(F8, (self.let(f"fneg double {self.convert(a, F8).one}"),))
                return self.intrinsic("fma", [a, b, c])
            return self.binary(e.op, c, self.binary(right.op, a, b))
        return None

    def binary(self, op: ast.operator, a: Value, b: Value) -> Value:
        for v in (a, b):
            if not isinstance(v.type, Number):
                self.fail(f"arithmetic needs numbers, not {v.type.name}")
        kind = type(op).__name__
        if kind == "Pow":
            return self.power(a, b)
        if kind == "Div" or F8 in (a.type, b.type):
            a, b = self.convert(a, F8), self.convert(b, F8)
            if kind in ("FloorDiv", "Mod"):
                self.fail("whole division is for whole numbers")
            name = {"Add": "fadd", "Sub": "fsub", "Mult": "fmul", "Div": "fdiv"}.get(kind)
            if name is None:
                self.fail("this operation is for whole numbers")
            return Value(F8, (self.let(f"{name}{self.flags} double {a.one}, {b.one}"),))
        a, b = (self.convert(v, I8) if v.type is B1 and kind not in ("BitAnd", "BitOr") else v for v in (a, b))
        if a.type is B1 and b.type is B1:
            return Value(B1, (self.let(f"{'and' if kind == 'BitAnd' else 'or'} i1 {a.one}, {b.one}"),))
        if a.type is not b.type:
            type_ = U8 if U8 in (a.type, b.type) else I8
            a, b = self.convert(a, type_), self.convert(b, type_)
        if a.one.lstrip("-").isdigit() and b.one.lstrip("-").isdigit() and kind in ("Add", "Sub", "Mult"):
            x, y = int(a.one), int(b.one)
            return Value(a.type, (str({"Add": x + y, "Sub": x - y, "Mult": x * y}[kind]),))
        if kind in ("FloorDiv", "Mod") and a.type is I8:
            return self.floor_division(kind, a.one, b.one)
        wrap = " nsw" if a.type is I8 else ""
        name = {
            "Add": "add" + wrap, "Sub": "sub" + wrap, "Mult": "mul" + wrap, "LShift": "shl",
            "RShift": "ashr" if a.type is I8 else "lshr", "BitXor": "xor", "BitAnd": "and", "BitOr": "or",
            "FloorDiv": "udiv", "Mod": "urem",
        }.get(kind)  # fmt: skip
        if name is None:
            self.fail("this operation is outside the subset")
        return Value(a.type, (self.let(f"{name} i64 {a.one}, {b.one}"),))

    def floor_division(self, kind: str, a: str, b: str) -> Value:
        q, r = self.let(f"sdiv i64 {a}, {b}"), self.let(f"srem i64 {a}, {b}")
        apart = self.let(f"icmp slt i64 {self.let(f'xor i64 {r}, {b}')}, 0")
        off = self.let(f"and i1 {self.let(f'icmp ne i64 {r}, 0')}, {apart}")
        if kind == "FloorDiv":
            return Value(I8, (self.let(f"sub nsw i64 {q}, {self.let(f'zext i1 {off} to i64')}"),))
        return Value(I8, (self.let(f"add nsw i64 {r}, {self.let(f'select i1 {off}, i64 {b}, i64 0')}"),))

    def power(self, a: Value, b: Value) -> Value:
        if b.type is I8 and b.one.isdigit() and 1 <= int(b.one) <= 4:
            out = a
            for _ in range(int(b.one) - 1):
                out = self.binary(ast.Mult(), out, a)
            return out
        return self.libm("pow", [a, b])

    def of_BoolOp(self, e: ast.BoolOp) -> Value:
        stop, value = ("false", "and") if isinstance(e.op, ast.And) else ("true", "or")
        parts = e.values
        slot = None
        after = self.block("bool")
        for at, part in enumerate(parts):
            c = self.condition(part)
            if c == stop and slot is None:
                return literal(stop == "true")
            if at == len(parts) - 1:
                if slot is None:
                    return Value(B1, (c,))
                self.put(f"store i1 {c}, ptr {slot}")
                break
            if c in ("true", "false") and c != stop:
                continue
            if slot is None:
                slot = self.new("b")
                self.top.append(f"  {slot} = alloca i1")
            self.put(f"store i1 {stop}, ptr {slot}")
            more = self.block(value)
            self.branch(c, *((more, after) if stop == "false" else (after, more)))
            self.label_ended(more)
        self.label(after)
        return Value(B1, (self.let(f"load i1, ptr {slot}"),))

    def of_Compare(self, e: ast.Compare) -> Value:
        left, out = self.expr(e.left), None
        for op, right_ in zip(e.ops, e.comparators, strict=True):
            right = self.expr(right_)
            c = self.compare(type(op).__name__, left, right)
            out = c if out is None else self.let(f"and i1 {out}, {c}")
            left = right
        assert out is not None
        return Value(B1, (out,))

    def compare(self, kind: str, a: Value, b: Value) -> str:
        if F8 in (a.type, b.type):
            a, b = self.convert(a, F8), self.convert(b, F8)
            name = {"Lt": "olt", "LtE": "ole", "Gt": "ogt", "GtE": "oge", "Eq": "oeq", "NotEq": "une"}[kind]
            return self.let(f"fcmp {name} double {a.one}, {b.one}")
        if a.type is not b.type:
            type_ = U8 if U8 in (a.type, b.type) else I8
            a, b = self.convert(a, type_), self.convert(b, type_)
        name = {"Lt": "lt", "LtE": "le", "Gt": "gt", "GtE": "ge", "Eq": "eq", "NotEq": "ne"}[kind]
        name = name if name in ("eq", "ne") else ("u" if a.type is U8 else "s") + name
        return self.let(f"icmp {name} {a.type.llvm} {a.one}, {b.one}")

    def condition(self, e: ast.expr) -> str:
        value = self.expr(e)
        if value.type is B1:
            return value.one
        if value.type in (I8, U8):
            if value.one.lstrip("-").isdigit():
                return "true" if int(value.one) else "false"
            return self.let(f"icmp ne i64 {value.one}, 0")
        self.fail("a condition must be true or false")

    def of_IfExp(self, e: ast.IfExp) -> Value:
        condition = self.condition(e.test)
        if condition in ("true", "false"):
            return self.expr(e.body if condition == "true" else e.orelse)
        a_node, b_node = e.body, e.orelse
        if _simple(a_node) and _simple(b_node):  # no branch: both sides are cheap and cannot fail
            a, b = self.expr(a_node), self.expr(b_node)
            type_ = self.common(a, b)
            a, b = self.convert(a, type_), self.convert(b, type_)
            parts = [
                self.let(f"select i1 {condition}, {t} {p}, {t} {q}")
                for t, p, q in zip(type_.parts, a.parts, b.parts, strict=True)
            ]
            return Value(type_, tuple(parts))
        yes, no, after = self.block("yes"), self.block("no"), self.block("either")
        self.branch(condition, yes, no)
        self.label_ended(yes)
        a = self.expr(a_node)
        mark = len(self.lines)
        self.ended = True
        self.label_ended(no)
        b = self.expr(b_node)
        type_ = self.common(a, b)
        slots = [self.new("c") for _ in type_.parts]
        self.top += [f"  {s} = alloca {t}" for s, t in zip(slots, type_.parts, strict=True)]
        self.keep(self.convert(b, type_), slots)
        tail, self.lines = self.lines[mark:], self.lines[:mark]
        self.ended = False
        self.keep(self.convert(a, type_), slots)
        self.lines.append(f"  br label %{after}")
        self.lines += tail
        self.label(after)
        return Value(type_, tuple(self.let(f"load {t}, ptr {s}") for t, s in zip(type_.parts, slots, strict=True)))

    def keep(self, value: Value, slots: list[str]) -> None:
        for t, p, s in zip(value.type.parts, value.parts, slots, strict=True):
            self.put(f"store {t} {p}, ptr {s}")

    def common(self, a: Value, b: Value) -> Any:
        if a.type == b.type:
            return a.type
        if isinstance(a.type, Number) and isinstance(b.type, Number):
            return F8 if F8 in (a.type, b.type) else U8 if U8 in (a.type, b.type) else I8
        self.fail("the two sides differ in type")

    # -- arrays ------------------------------------------------------------------------------------
    def element(self, e: ast.Subscript) -> tuple[Number, str]:
        """Type and address of one item."""
        array = self.expr(e.value)
        if not isinstance(array.type, Array):
            self.fail("only arrays have items")
        places = e.slice.elts if isinstance(e.slice, ast.Tuple) else [e.slice]
        if len(places) != array.type.ndim:
            self.fail("one index per axis is expected")
        at = [self.convert(self.expr(p), I8).one for p in places]
        return array.type.item, self.address(array, at)

    def address(self, array: Value, at: list[str]) -> str:
        offset = at[0]
        for axis in range(1, array.type.ndim):
            offset = self.let(f"mul nsw i64 {offset}, {array.parts[1 + axis]}")
            if axis < len(at):
                offset = self.let(f"add nsw i64 {offset}, {at[axis]}")
        return self.let(f"getelementptr inbounds {array.type.item.llvm}, ptr {array.one}, i64 {offset}")

    def of_Subscript(self, e: ast.Subscript) -> Value:
        array = self.expr(e.value)
        if isinstance(array.type, Tuple):
            if not (isinstance(e.slice, ast.Constant) and isinstance(e.slice.value, int)):
                self.fail("a tuple is indexed by a number")
            return self.members(array)[e.slice.value]
        if not isinstance(array.type, Array):
            self.fail("only arrays and tuples have items")
        item = array.type.item
        if isinstance(e.slice, ast.Slice):
            if array.type.ndim != 1 or e.slice.step is not None:
                self.fail("a slice takes a part of one axis")
            low = self.convert(self.expr(e.slice.lower), I8).one if e.slice.lower else "0"
            high = self.convert(self.expr(e.slice.upper), I8).one if e.slice.upper else array.parts[1]
            where = self.address(array, [low])
            return Value(array.type, (where, self.let(f"sub nsw i64 {high}, {low}")))
        places = e.slice.elts if isinstance(e.slice, ast.Tuple) else [e.slice]
        at = [self.convert(self.expr(p), I8).one for p in places]
        rest = array.type.ndim - len(at)
        if rest > 0:
            return Value(Array(item, rest), (self.address(array, at), *array.parts[1 + len(at) :]))
        if rest < 0:
            self.fail("more indices than axes")
        return Value(item, (self.let(f"load {item.llvm}, ptr {self.address(array, at)}, align 8"),))

    def allocate(self, item: Number, sizes: list[str], zero: bool) -> Value:
        total = sizes[0]
        for size in sizes[1:]:
            both = total.isdigit() and size.isdigit()
            total = str(int(total) * int(size)) if both else self.let(f"mul nsw i64 {total}, {size}")
        if total.isdigit() and int(total) <= _STACK:
            where = self.new("a")
            self.top.append(f"  {where} = alloca [{max(int(total), 1)} x {item.llvm}], align 64")
        else:
            slot = self.new("h")
            self.top += [f"  {slot} = alloca ptr", f"  store ptr null, ptr {slot}"]
            self.heap.append(slot)
            bytes_ = self.let(f"shl nsw i64 {total}, 3")
            room = self.let(f"add nsw i64 {bytes_}, 127")
            if self.loops:  # the line may have run before
                self.put(f"call void @free(ptr {self.let(f'load ptr, ptr {slot}')})")
            where = self.let(f"call noalias ptr @malloc(i64 {room})")
            self.put(f"store ptr {where}, ptr {slot}")
            self.unit.declare("malloc", "declare noalias ptr @malloc(i64)")
            self.unit.declare("free", "declare void @free(ptr)")
        if zero:
            bytes_ = self.let(f"shl nsw i64 {total}, 3")
            self.put(f"call void @llvm.memset.p0.i64(ptr {where}, i8 0, i64 {bytes_}, i1 false)")
            self.unit.declare("memset", "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        return Value(Array(item, len(sizes)), (where, *sizes))

    def copy(self, array: Value) -> Value:
        new = self.allocate(array.type.item, list(array.parts[1:]), zero=False)
        total = array.parts[1]
        for s in array.parts[2:]:
            total = self.let(f"mul nsw i64 {total}, {s}")
        bytes_ = self.let(f"shl nsw i64 {total}, 3")
        self.put(f"call void @llvm.memcpy.p0.p0.i64(ptr {new.one}, ptr {array.one}, i64 {bytes_}, i1 false)")
        self.unit.declare("memcpy", "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
        return new

    # -- calls -------------------------------------------------------------------------------------
    def calls_inlined(self, e: ast.AST) -> bool:
        callee = self.globals.get(e.func.id) if isinstance(e, ast.Call) and isinstance(e.func, ast.Name) else None
        return bool(getattr(callee, "inline", False))

    def of_Call(self, e: ast.Call) -> Value:
        target = self.expr(e.func)
        type_ = target.type
        if e.keywords and not (isinstance(type_, Fixed) and type_.value in (np.empty, np.zeros)):
            self.fail("arguments are given by position")
        if isinstance(type_, Static):
            return self.call(type_.function, [self.expr(a) for a in e.args])
        if isinstance(type_, Pointer):
            return self.call_pointer(target, [self.expr(a) for a in e.args])
        if not isinstance(type_, Fixed):
            self.fail("this cannot be called")
        what = type_.value
        if isinstance(what, tuple):
            return self.method(what[0], what[1], e)
        if what in (np.empty, np.zeros):
            return self.make_array(e, zero=what is np.zeros)
        args = [self.expr(a) for a in e.args]
        if isinstance(what, str):
            return self.builtin(what, args)
        return self.numeric(what, args)

    def call(self, function: Any, args: list[Value]) -> Value:
        symbol, result = self.unit.function(function, tuple(a.type for a in args))
        flat = [(t, p) for a in args for t, p in zip(a.type.parts, a.parts, strict=True)]
        apart = function.inline and self.inlined > (_MANY if self.loops else _FEW)
        return self.invoke(f"@{quote(symbol)}", result, flat, " noinline" if apart else "")

    def call_pointer(self, target: Value, args: list[Value]) -> Value:
        kind: Pointer = target.type
        if len(args) != len(kind.args):
            self.fail(f"{len(kind.args)} arguments are expected")
        given = [self.convert(a, t) for a, t in zip(args, kind.args, strict=True)]
        flat = [(t, p) for a in given for t, p in zip(a.type.parts, a.parts, strict=True)]
        return self.invoke(target.one, kind.result, flat)

    def invoke(self, where: str, result: Any, flat: list[tuple[str, str]], how: str = "") -> Value:
        args = ", ".join(f"{t} {p}" for t, p in flat)
        if result is None:
            self.put(f"call void {where}({args})")
            return Value(Fixed("nothing"))
        kind = _result_type(result)
        got = self.let(f"call {kind} {where}({args}){how}")
        if isinstance(result, Tuple):
            return Value(result, tuple(self.let(f"extractvalue {kind} {got}, {i}") for i in range(len(result.parts))))
        return Value(result, (got,))

    def method(self, base: Value, name: str, e: ast.Call) -> Value:
        if isinstance(base.type, Array) and name == "copy":
            return self.copy(base)
        if isinstance(base.type, Number) and name == "view":
            wanted = _dtype(self.expr(e.args[0]))
            if wanted is F8 and base.type in (I8, U8):
                return Value(F8, (self.let(f"bitcast i64 {base.one} to double"),))
            if base.type is F8:
                return Value(wanted, (self.let(f"bitcast double {base.one} to i64"),))
            return Value(wanted, base.parts)
        self.fail(f"no method {name} here")

    def make_array(self, e: ast.Call, zero: bool) -> Value:
        shape = self.expr(e.args[0])
        given = e.args[1] if len(e.args) > 1 else next((k.value for k in e.keywords if k.arg == "dtype"), None)
        item = _dtype(self.expr(given)) if given is not None else F8
        sizes = self.members(shape) if isinstance(shape.type, Tuple) else [shape]
        return self.allocate(item, [self.convert(s, I8).one for s in sizes], zero)

    def builtin(self, name: str, args: list[Value]) -> Value:
        if name == "abs":
            (a,) = args
            if a.type is F8:
                return self.intrinsic("fabs", args)
            minus = self.let(f"sub nsw i64 0, {a.one}")
            return Value(I8, (self.let(f"select i1 {self.let(f'icmp slt i64 {a.one}, 0')}, i64 {minus}, i64 {a.one}"),))
        if name in ("min", "max"):
            out = args[0]
            for other in args[1:]:
                type_ = self.common(out, other)
                a, b = self.convert(out, type_), self.convert(other, type_)
                c = self.compare("Lt" if name == "min" else "Gt", b, a)
                out = Value(type_, (self.let(f"select i1 {c}, {type_.llvm} {b.one}, {type_.llvm} {a.one}"),))
            return out
        if name == "float":
            return self.convert(args[0], F8)
        if name == "int":
            return self.whole(args[0])
        if name == "bool":
            return args[0] if args[0].type is B1 else Value(B1, (self.compare("NotEq", args[0], literal(0)),))
        if name == "len" and isinstance(args[0].type, Array):
            return Value(I8, (args[0].parts[1],))
        if name == "pow":
            return self.power(*args)
        if name == "round" and len(args) == 1:
            return self.whole(self.intrinsic("rint", args))
        self.fail(f"{name} is not known here")

    def whole(self, a: Value) -> Value:
        if a.type is F8:
            return Value(I8, (self.let(f"fptosi double {a.one} to i64"),))
        return Value(I8, self.convert(a, I8).parts if a.type is B1 else a.parts)

    def numeric(self, what: Any, args: list[Value]) -> Value:
        """A function of math or numpy, or a change of type."""
        if what in (np.int64, np.uint64):
            a = self.whole(args[0])
            return Value(U8 if what is np.uint64 else I8, a.parts)
        if what is np.float64:
            return self.convert(args[0], F8)
        name = _SYNONYMS.get(getattr(what, "__name__", ""), getattr(what, "__name__", ""))
        home = getattr(what, "__module__", None) or "numpy"
        if home not in ("math", "numpy") and not isinstance(what, np.ufunc):
            self.fail("only compiled functions can be called")
        if name == "isnan":
            a = self.convert(args[0], F8)
            return Value(B1, (self.let(f"fcmp uno double {a.one}, {a.one}"),))
        if name in ("isfinite", "isinf"):
            size = self.intrinsic("fabs", args).one
            op = "olt" if name == "isfinite" else "oeq"
            return Value(B1, (self.let(f"fcmp {op} double {size}, {number(math.inf)}"),))
        if name in ("minimum", "maximum"):
            return self.builtin(name[:3], args)
        if name in _INTRINSIC:
            out = self.intrinsic(_INTRINSIC[name], args)
            return self.whole(out) if home == "math" and name in ("floor", "ceil") else out
        if name in _LIBM:
            return self.libm(name, args)
        self.fail(f"{name} is not known here")

    def intrinsic(self, name: str, args: list[Value]) -> Value:
        parts = [self.convert(a, F8).one for a in args]
        self.unit.declare(f"llvm.{name}", f"declare double @llvm.{name}.f64({', '.join(['double'] * len(parts))})")
        given = ", ".join(f"double {p}" for p in parts)
        return Value(F8, (self.let(f"call{self.flags} double @llvm.{name}.f64({given})"),))

    def libm(self, name: str, args: list[Value]) -> Value:
        parts = [self.convert(a, F8).one for a in args]
        arguments = ", ".join(["double"] * len(parts))
        self.unit.declare(name, f"declare double @{name}({arguments}) nounwind willreturn memory(none)")
        return Value(F8, (self.let(f"call double @{name}({', '.join(f'double {p}' for p in parts)})"),))


def _dtype(value: Value) -> Number:
    what = value.type.value if isinstance(value.type, Fixed) else None
    known = {np.float64: F8, np.int64: I8, np.uint64: U8}
    if what == "float":
        return F8
    if what not in known:
        raise Unsupported(f"arrays hold float64, int64 or uint64, not {what}.")
    return known[what]


def _result_type(type_: Any) -> str:
    return "{" + ", ".join(type_.parts) + "}" if isinstance(type_, Tuple) else type_.parts[0]


def _has_static(type_: Any) -> bool:
    return isinstance(type_, Tuple) and any(isinstance(t, (Static, Fixed)) or _has_static(t) for t in type_.items)


def _simple(e: ast.expr) -> bool:
    """Whether an expression is so cheap that it is computed whether needed or not."""
    if isinstance(e, (ast.Constant, ast.Name)):
        return True
    if isinstance(e, ast.Attribute):
        return _simple(e.value)
    if isinstance(e, ast.UnaryOp):
        return _simple(e.operand)
    if isinstance(e, ast.BinOp):
        cheap = isinstance(e.op, (ast.Add, ast.Sub, ast.Mult, ast.Div))
        return cheap and _simple(e.left) and _simple(e.right)
    return False


def _clean(name: str) -> str:
    """A name in the assembly for a variable, whatever its letters."""
    return "v_" + name.encode("ascii", "backslashreplace").decode().replace("\\", "_")


def quote(symbol: str) -> str:
    """A symbol between quotes, so that any character may stand in it."""
    return f'"{symbol}"'
