"""A subset of Python -> LLVM's assembly, one function at a time.

LANGUAGE.md says what may be written, and what it means. A kernel is trusted, as in C, but in checked mode (`checks`).
"""

import ast
from collections import Counter

from minidyn.compiler.calls import Calls
from minidyn.compiler.llvm import lane_count
from minidyn.compiler.types import F8, I8, LANE, VF, Array, Constant, Tuple, is_static
from minidyn.compiler.values import Unsupported, Value, clean, literal, quote, result_type

_LOOPS = ("range", "lanes", "side_by_side")


class Writer(Calls):
    """Writes one function for one tuple of argument types."""

    # -- the function -----------------------------------------------------------------------------
    def write(self) -> str:
        """The function's text."""
        tree = self.function.tree
        self.inlined = 0 if self.function.inline else self.count_inlined(tree)
        stores = Counter(n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        self.own = set(stores)
        names = [a.arg for a in tree.args.args]
        if len(names) != len(self.types):
            raise Unsupported(f"{self.function.identity} takes {len(names)} arguments, got {len(self.types)}.")
        params = []
        for name, type_ in zip(names, self.types, strict=True):
            parts = tuple(f"%{clean(name)}.{i}" for i in range(len(type_.parts)))
            apart = " noalias" if self.function.noalias and isinstance(type_, Array) else ""
            for kind, part in zip(type_.parts, parts, strict=True):
                params.append(f"{kind}{apart if kind == 'ptr' else ''} {part}")
            self.assign(name, Value(type_, parts))
        self.settled = {name for name, count in stores.items() if count == 1} - set(names)
        self.statements(tree.body)
        if self.given is None:
            self.put("unreachable")
        elif not self.ended:
            self.leave(None)
        self.open("leave")
        for slot in self.heap:
            self.put(f"call void @free(ptr {self.let(f'load ptr, ptr {slot}')})")
        kind = result_type(self.result)
        if self.result is None:
            self.put("ret void")
        else:
            self.put(f"ret {kind} {self.let(f'load {kind}, ptr %result')}")
            self.top.append(f"  %result = alloca {kind}")
        linkage = "internal " if self.internal else ""
        attributes = ' "prefer-vector-width"="512"' + (" alwaysinline" if self.function.inline else "")
        head = f"define {linkage}{kind} @{quote(self.symbol)}({', '.join(params)}) nounwind{attributes} {{"
        return "\n".join([head, "entry:", *self.top, *self.lines, "}\n"])

    def leave(self, value: Value | None) -> None:
        """`return`: keep the result and go to the end, where memory is given back."""
        if not self.returned:
            self.result, self.returned = (value.type if value is not None else None), True
        if self.result is not None:
            if value is None:
                self.fail("one return gives a value, another none")
            if isinstance(self.result, Array):
                self.fail("a function returns numbers, no array: let it write to one that it is given")
            value = self.convert(value, self.result)
            kind = result_type(self.result)
            packed = value.parts[0]
            if isinstance(self.result, Tuple):
                packed = "undef"
                for i, (t, p) in enumerate(zip(self.result.parts, value.parts, strict=True)):
                    packed = self.let(f"insertvalue {kind} {packed}, {t} {p}, {i}")
            self.put(f"store {kind} {packed}, ptr %result")
        self.jump("leave")

    # -- variables ---------------------------------------------------------------------------------
    def assign(self, name: str, value: Value) -> None:
        """Give a variable a value; the first one settles its type."""
        if name == "_":  # not wanted
            return
        fixed = is_static(value.type)
        if isinstance(value.type, Constant):
            self.constants[name] = value.type
            value = literal(value.type.value)
        kept = self.known.setdefault(name, value) if fixed else value
        if name in (self.variables if fixed else self.known) or (kept.type, kept.parts) != (value.type, value.parts):
            self.fail(f"{name} is known while compiling, and stands for one thing only")
        if not fixed:
            self.put_away(name, value)
        if self.given is not None:
            self.given = self.given | {name}

    def put_away(self, name: str, value: Value) -> None:
        """Store what is found while running where the variable lives."""
        if name not in self.variables:
            alone = name in self.settled  # assigned once: it may stay the same in all lanes
            type_ = VF if self.in_lanes and value.type is F8 and not alone else value.type
            slots = tuple(f"%{clean(name)}.v{i}" for i in range(len(type_.parts)))
            self.top += [f"  {slot} = alloca {t}" for slot, t in zip(slots, type_.parts, strict=True)]
            self.variables[name] = (type_, slots)
        type_, slots = self.variables[name]
        self.keep(self.convert(value, type_, name), slots)

    # -- statements --------------------------------------------------------------------------------
    def statements(self, body: list[ast.stmt]) -> None:
        """Write statements until one of them leaves."""
        for s in body:
            if self.ended or self.given is None:
                return
            self.node = s
            method = getattr(self, "do_" + type(s).__name__, None)
            if method is None:
                self.fail(f"{type(s).__name__} is outside the subset")
            method(s)

    def do_Pass(self, s: ast.Pass) -> None:
        """Nothing."""

    def do_Expr(self, s: ast.Expr) -> None:
        """An expression written for what it does, such as a call; of a constant, such as a docstring, nothing."""
        if not isinstance(s.value, ast.Constant):
            self.expr(s.value)

    def do_Return(self, s: ast.Return) -> None:
        """`return`, with a value or without; the first one settles the function's result type."""
        self.leave(None if s.value is None else self.expr(s.value))

    def do_Assign(self, s: ast.Assign) -> None:
        """`a = b = value`, computed once, and `a, b = x, y`, both values computed before either is stored."""
        value = self.expr(s.value)
        for target in s.targets:
            self.store(target, value)

    def do_AnnAssign(self, s: ast.AnnAssign) -> None:
        """`a: T = value`; the annotation is not read, and without a value nothing is written."""
        if s.value is not None:
            self.store(s.target, self.expr(s.value))

    def do_AugAssign(self, s: ast.AugAssign) -> None:
        """`a op= b`, of a variable or an item; an item's indices are computed once."""
        if isinstance(s.target, ast.Name):
            self.assign(s.target.id, self.combine(s.op, self.lookup(s.target.id), s.value))
        else:
            assert isinstance(s.target, ast.Subscript)
            place = self.place(s.target)
            self.write_item(place, self.combine(s.op, self.read_item(place), s.value))

    def store(self, target: ast.expr, value: Value) -> None:
        """Give a target of an assignment its value."""
        if isinstance(target, ast.Name):
            self.assign(target.id, value)
        elif isinstance(target, ast.Tuple):
            if not isinstance(value.type, Tuple) or len(value.type.items) != len(target.elts):
                self.fail("these values cannot be unpacked")
            for t, v in zip(target.elts, value.members(), strict=True):
                self.store(t, v)
        elif isinstance(target, ast.Subscript):
            self.write_item(self.place(target), value)
        else:
            self.fail("this cannot be assigned to")

    def do_If(self, s: ast.If) -> None:
        """`if`; where the condition is known while compiling, the other branch is not written at all."""
        condition = self.condition(s.test)
        if condition in ("true", "false"):  # decided while compiling
            self.statements(s.body if condition == "true" else s.orelse)
            return
        yes, no, after = self.block("then"), self.block("else"), self.block("endif")
        self.branch(condition, yes, no if s.orelse else after)
        self.open(yes)
        self.statements(s.body)
        self.jump(after)
        if s.orelse:
            self.open(no)
            self.statements(s.orelse)
            self.jump(after)
        self.open(after)

    def do_While(self, s: ast.While) -> None:
        """`while`, without `else`; the test, as of every branch, is the same in all lanes."""
        if s.orelse:
            self.fail("a while loop has no else")
        head, body, after = self.block("while"), self.block("body"), self.block("endwhile")
        self.label(head)
        self.branch(self.condition(s.test), body, after)
        self.open(body)
        self.loop_body(s.body, head, after)
        self.open(after)

    def loop_body(self, body: list[ast.stmt], again: str, after: str) -> None:
        """The body of a loop, with where `continue` and `break` go."""
        self.loops.append((again, after))
        self.statements(body)
        self.jump(again)
        self.loops.pop()

    def do_For(self, s: ast.For) -> None:
        """`for` over `range`, `lanes` or `side_by_side`, without `else`; the step is known while compiling.

        Several lanes take one turn together, as many as `lane_count()`; such a loop does not stand inside another one.
        """
        call = s.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _LOOPS):
            self.fail("a for loop runs over range(...), lanes(...) or side_by_side(...)")
        if not isinstance(s.target, ast.Name) or s.orelse:
            self.fail("a for loop has one variable, and no else")
        outside = self.in_lanes
        side_by_side = (call.func.id == "side_by_side" and not outside) or (
            call.func.id == "lanes" and self.module.side_by_side
        )
        args = [self.convert(self.expr(a), I8) for a in call.args]
        first, last = (literal(0), args[0]) if len(args) == 1 else args[:2]
        step = lane_count() if side_by_side else args[2].constant if len(args) == 3 else 1
        if not step:
            self.fail("the step of a range is a number, and not zero")
        start, stop = first.one, last.one
        counter = self.new("k")
        self.top.append(f"  {counter} = alloca i64")
        self.put(f"store i64 {start}, ptr {counter}")
        head, body, more, after = (self.block(p) for p in ("for", "body", "next", "endfor"))
        self.label(head)
        k = self.let(f"load i64, ptr {counter}")
        inside = self.let(f"icmp {'slt' if step > 0 else 'sgt'} i64 {k}, {stop}")
        if first.constant is None or last.constant is None or not range(first.constant, last.constant, step):
            self.branch(inside, body, after)
        else:  # at least one turn: what the body gives a value has one afterwards
            self.arrive(body)
            self.put(f"br i1 {inside}, label %{body}, label %{after}")
        self.open(body)
        if side_by_side and outside:
            self.fail("lanes inside lanes")
        self.in_lanes = outside or side_by_side
        self.assign(s.target.id, Value(LANE if side_by_side else I8, (k,)))
        self.loop_body(s.body, more, after)
        self.in_lanes = outside
        self.open(more)
        k = self.let(f"load i64, ptr {counter}")
        self.put(f"store i64 {self.let(f'add nsw i64 {k}, {step}')}, ptr {counter}")
        block = start == "0" and step == 1 and stop.isdigit() and int(stop) % 8 == 0 and not self.in_lanes
        self.arrive(after)
        self.put(f"br label %{head}{self.module.kept_loop() if block else ''}")
        self.ended = True
        self.open(after)

    def do_Break(self, s: ast.Break) -> None:
        """Go behind the innermost loop."""
        self.jump(self.loops[-1][1])

    def do_Continue(self, s: ast.Continue) -> None:
        """Go on with the next turn of the innermost loop."""
        self.jump(self.loops[-1][0])
