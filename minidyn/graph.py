"""sympy expression -> hash-consed graph in single-assignment form.

A node is `(op, args, data)`; building the same node twice gives the same object, so shared
subexpressions are shared by construction and `node.id` is an evaluation order. A node also knows
its *free indices*: a sum over samples, or over the units of a network, is one node whose body is
written once, whatever the length of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from minidyn.errors import ExpressionError


@dataclass(frozen=True, order=True)
class Index:
    """A loop: `level` fixes the nesting order (lane < sample < sums, outermost first)."""

    level: int
    kind: str
    size: int = 0

    @property
    def var(self) -> str:
        names = {"lane": "lane", "sample": "i", "coord": "p", "block": "block", "side": "side"}
        return names.get(self.kind, f"j{self.level}_{self.size}")


LANE = Index(-2, "lane", 64)
SAMPLE = Index(-1, "sample")
NO_INDICES: frozenset[Index] = frozenset()


class Node:
    """One operation of a graph; arithmetic on nodes builds new nodes of the same graph."""

    __slots__ = ("args", "data", "graph", "id", "indices", "op")

    def __init__(self, graph: Graph, op: str, args: tuple[Node, ...], data: Any, indices: frozenset[Index]):
        self.graph, self.op, self.args, self.data = graph, op, args, data
        self.indices = indices
        self.id = len(graph.nodes)

    def __add__(self, other: Node | float) -> Node:
        return self.graph.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Node | float) -> Node:
        return self.graph.sub(self, other)

    def __rsub__(self, other: float) -> Node:
        return self.graph.sub(other, self)

    def __mul__(self, other: Node | float) -> Node:
        return self.graph.mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Node | float) -> Node:
        return self.graph.div(self, other)

    def __rtruediv__(self, other: float) -> Node:
        return self.graph.div(other, self)

    def __neg__(self) -> Node:
        return self.graph.neg(self)

    def __pow__(self, n: int) -> Node:
        return self.graph.powi(self, n)

    @property
    def is_const(self) -> bool:
        return self.op == "const"

    def __repr__(self) -> str:
        data = [repr(self.data)] if self.data is not None else []
        inner = ", ".join([f"#{a.id}" for a in self.args] + data)
        return f"#{self.id}={self.op}({inner})"


UNARY = frozenset(
    "exp log sqrt sin cos tan asin acos atan sinh cosh tanh erf abs sign heaviside "
    "logistic softplus logcosh tanh_slope log1p expm1 asin_slope logistic_slope not".split()
)
_FOLD: dict[str, Callable[[float], float]] = {
    "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "tanh": math.tanh, "atan": math.atan, "cosh": math.cosh, "sinh": math.sinh,
    "erf": math.erf, "abs": abs,
}  # fmt: skip


class Graph:
    """A table of nodes, each stored once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._table: dict[tuple[Any, ...], Node] = {}

    def make(self, op: str, args: Sequence[Node] = (), data: Any = None,
             indices: frozenset[Index] | None = None) -> Node:  # fmt: skip
        key = (op, tuple(a.id for a in args), data)
        node = self._table.get(key)
        if node is None:
            if indices is None:
                indices = NO_INDICES.union(*(a.indices for a in args))
            node = Node(self, op, tuple(args), data, indices)
            self.nodes.append(node)
            self._table[key] = node
        return node

    # -- leaves ---------------------------------------------------------------------------------
    def const(self, value: float) -> Node:
        value = float(value)
        if not math.isfinite(value):
            raise ExpressionError(f"a constant of the expression is {value}: it must be a finite number.")
        return self.make("const", data=value if value != 0.0 else 0.0)

    def load(self, array: str, offset: int = 0, strides: Iterable[tuple[Index, int]] = (),
             per: Index | None = None) -> Node:  # fmt: skip
        """`array[offset + sum(index*stride)]`; `per` names the loop whose every turn has its own row."""
        strides = tuple(sorted(strides))
        indices = frozenset(i for i, _ in strides) | (frozenset([per]) if per else NO_INDICES)
        return self.make("load", data=(array, offset, strides), indices=indices)

    def count(self, index: Index) -> Node:
        """How many turns a loop has, as a number (the sample count is only known at run time)."""
        return self.make("count", data=index) if index.kind == "sample" else self.const(index.size)

    # -- arithmetic -----------------------------------------------------------------------------
    def _lift(self, x: Node | float) -> Node:
        return x if isinstance(x, Node) else self.const(x)

    def add(self, a: Node | float, b: Node | float) -> Node:
        a, b = self._lift(a), self._lift(b)
        if a.is_const and b.is_const:
            return self.const(a.data + b.data)
        if a.is_const and a.data == 0.0:
            return b
        if b.is_const and b.data == 0.0:
            return a
        if b.op == "neg":
            return self.sub(a, b.args[0])
        if a.op == "neg":
            return self.sub(b, a.args[0])
        if a is b:
            return self.mul(2.0, a)
        if _same_mask(a, b):
            return self.select(a.args[0], a.args[1] + b.args[1], a.args[2] + b.args[2])
        return self.make("add", sorted((a, b), key=lambda n: n.id))

    def sub(self, a: Node | float, b: Node | float) -> Node:
        a, b = self._lift(a), self._lift(b)
        if a is b:
            return self.const(0.0)
        if a.is_const and b.is_const:
            return self.const(a.data - b.data)
        if b.is_const and b.data == 0.0:
            return a
        if a.is_const and a.data == 0.0:
            return self.neg(b)
        if b.op == "neg":
            return self.add(a, b.args[0])
        if _same_mask(a, b):
            return self.select(a.args[0], a.args[1] - b.args[1], a.args[2] - b.args[2])
        return self.make("sub", (a, b))

    def neg(self, a: Node) -> Node:
        if a.is_const:
            return self.const(-a.data)
        if a.op == "neg":
            return a.args[0]
        if a.op == "sub":
            return self.make("sub", (a.args[1], a.args[0]))
        return self.make("neg", (a,))

    def mul(self, a: Node | float, b: Node | float) -> Node:
        a, b = self._lift(a), self._lift(b)
        if b.is_const:
            a, b = b, a
        if a.is_const:
            if b.is_const:
                return self.const(a.data * b.data)
            if a.data == 0.0:
                return a
            if a.data == 1.0:
                return b
            if a.data == -1.0:
                return self.neg(b)
            if _masked(b):
                return self.select(b.args[0], self.mul(a, b.args[1]), self.mul(a, b.args[2]))
            if b.op == "mul" and b.args[0].is_const and _exact_product(a.data, b.args[0].data):
                return self.mul(a.data * b.args[0].data, b.args[1])
            if b.op == "neg":
                return self.mul(-a.data, b.args[0])
            return self.make("mul", (a, b))
        if a.op == "neg":
            return self.neg(self.mul(a.args[0], b))
        if b.op == "neg":
            return self.neg(self.mul(a, b.args[0]))
        for x, y in ((a, b), (b, a)):  # zero outside its branch, also where the other factor is infinite
            if _masked(x):
                return self.select(x.args[0], self.mul(x.args[1], y), self.mul(x.args[2], y))
        for x, y in ((a, b), (b, a)):  # powers of two move outwards, where they meet and cancel
            if x.op == "mul" and x.args[0].is_const and _power_of_two(x.args[0].data):
                return self.mul(x.args[0], self.mul(x.args[1], y))
        return self.make("mul", sorted((a, b), key=lambda n: n.id))

    def div(self, a: Node | float, b: Node | float) -> Node:
        a, b = self._lift(a), self._lift(b)
        if b.is_const and b.data != 0.0:
            if a.is_const:
                return self.const(a.data / b.data)
            if _power_of_two(b.data):
                return self.mul(a, 1.0 / b.data)
        if a.is_const and a.data == 0.0:
            return a
        if a.op == "neg":
            return self.neg(self.div(a.args[0], b))
        return self.make("div", (a, b))

    def powi(self, a: Node, n: int) -> Node:
        if n == 0:
            return self.const(1.0)
        if n == 1:
            return a
        if n == 2:
            return self.mul(a, a)
        if n == -1:
            return self.div(1.0, a)
        if a.is_const and (a.data != 0.0 or n > 0):
            try:
                return self.const(a.data**n)
            except OverflowError:
                return self.const(math.inf)
        return self.make("powi", (a,), n)

    def pow(self, a: Node, b: Node) -> Node:
        if b.is_const:
            if b.data == int(b.data) and abs(b.data) <= 1024:
                return self.powi(a, int(b.data))
            if b.data == 0.5:
                return self.unary("sqrt", a)
            if b.data == -0.5:
                return 1.0 / self.unary("sqrt", a)
        return self.make("pow", (a, b))

    def unary(self, op: str, a: Node) -> Node:
        if a.is_const and op in _FOLD:
            try:
                return self.const(_FOLD[op](a.data))
            except (ValueError, OverflowError):
                pass
        return self.make(op, (a,))

    def binary(self, op: str, a: Node, b: Node) -> Node:
        """`min`, `max`, or a comparison `lt le gt ge eq ne`, or `and or` of comparisons."""
        return self.make(op, (a, b))

    def select(self, condition: Node, yes: Node | float, no: Node | float) -> Node:
        yes, no = self._lift(yes), self._lift(no)
        return yes if yes is no else self.make("select", (condition, yes, no))

    def sum(self, body: Node, index: Index) -> Node:
        """`sum over index of body`; a body that does not depend on the index is multiplied instead."""
        if index not in body.indices:
            return self.mul(self.count(index), body)
        if body.op == "neg":
            return self.neg(self.sum(body.args[0], index))
        if body.op == "mul":  # what does not depend on the index leaves the loop
            a, b = body.args
            if index not in a.indices:
                return self.mul(a, self.sum(b, index))
            if index not in b.indices:
                return self.mul(b, self.sum(a, index))
        return self.make("sum", (body,), index, indices=body.indices - {index})


def _masked(x: Node) -> bool:
    """Whether a node is zero outside one branch of a condition."""
    return x.op == "select" and any(arm.is_const and arm.data == 0.0 for arm in x.args[1:])


def _same_mask(a: Node, b: Node) -> bool:
    return _masked(a) and _masked(b) and a.args[0] is b.args[0]


def _power_of_two(x: float) -> bool:
    return abs(math.frexp(x)[0]) == 0.5 and 2.0**-64 <= abs(x) <= 2.0**64


def _exact_product(a: float, b: float) -> bool:
    """Whether a*b is exact, so that regrouping constants does not move the result."""
    whole = float(a).is_integer() and float(b).is_integer() and abs(a * b) < 2**53
    return whole or _power_of_two(a) or _power_of_two(b)


def reachable(outputs: Iterable[Node]) -> list[Node]:
    """All nodes that the outputs need, in evaluation order."""
    seen: dict[int, Node] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.id not in seen:
            seen[node.id] = node
            stack.extend(node.args)
    return [seen[i] for i in sorted(seen)]


# -- from sympy ---------------------------------------------------------------------------------

_FUNCTIONS = {
    sp.exp: "exp", sp.log: "log", sp.sin: "sin", sp.cos: "cos", sp.tan: "tan", sp.asin: "asin",
    sp.acos: "acos", sp.atan: "atan", sp.sinh: "sinh", sp.cosh: "cosh", sp.tanh: "tanh",
    sp.erf: "erf", sp.Abs: "abs", sp.sign: "sign",
}  # fmt: skip
_RELATIONS = {
    sp.StrictLessThan: "lt", sp.LessThan: "le", sp.StrictGreaterThan: "gt", sp.GreaterThan: "ge",
    sp.Equality: "eq", sp.Unequality: "ne",
}  # fmt: skip
_DIVISIONS = (sp.S.NegativeOne, -sp.S.Half)  # the derivatives of other negative powers are powers again
SUPPORTED = (
    "+ - * / **, exp log sqrt sin cos tan asin acos atan sinh cosh tanh erf Abs sign Min Max "
    "Piecewise Heaviside Sum"
)


@dataclass(frozen=True)
class Array:
    """Where an indexed symbol lives: `array[offset + strides . index]`."""

    array: str
    offset: int
    shape: tuple[int, ...]
    per: Index | None = None

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(math.prod(self.shape[k + 1 :]) for k in range(len(self.shape)))


class Converter:
    """Turns sympy expressions into nodes of one graph.

    `symbols` maps a `Symbol` to a node; `arrays` maps the name of an `IndexedBase` or
    `MatrixSymbol` to the `Array` where it lives.
    """

    def __init__(self, graph: Graph, symbols: Mapping[sp.Basic, Node],
                 arrays: Mapping[str, Array] | None = None):  # fmt: skip
        self.graph, self.symbols, self.arrays = graph, symbols, dict(arrays or {})
        self._loops: dict[sp.Basic, tuple[Index, int]] = {}
        self._memo: dict[Any, Node] = {}

    def __call__(self, expr: Any) -> Node:
        # an iterative walk over what is deep, so that long sums of sums do not exhaust the stack
        expr = sp.sympify(expr)
        todo = [expr]
        key = tuple(sorted((str(s), i, low) for s, (i, low) in self._loops.items()))
        while todo:
            e = todo[-1]
            if (e, key) in self._memo or isinstance(e, (sp.Sum, sp.Indexed)) or not _plain(e):
                todo.pop()
                continue
            pending = [a for a in e.args if _plain(a) and (a, key) not in self._memo]
            if pending:
                todo.extend(pending)
                continue
            todo.pop()
            self._convert(e, key)
        return self._convert(expr, key)

    def _convert(self, e: sp.Basic, key: Any) -> Node:
        node = self._memo.get((e, key))
        if node is None:
            node = self._memo[(e, key)] = self._build(e, key)
        return node

    def _build(self, e: sp.Basic, key: Any) -> Node:
        g = self.graph

        def go(x: sp.Basic) -> Node:
            return self._convert(x, key)

        if e in self._loops:
            index, low = self._loops[e]
            return g.make("index", data=index, indices=frozenset([index])) + float(low)
        if e in self.symbols:
            return self.symbols[e]
        if isinstance(e, sp.Symbol):
            known = ", ".join(sorted({str(s) for s in self.symbols} | set(self.arrays))) or "none"
            if any(str(s) == str(e) for s in self.symbols):
                raise ExpressionError(
                    f"the expression uses another symbol {e} than the one declared: sympy tells symbols with different "
                    "assumptions (real=True, ...) apart; use the same object in both places."
                )
            raise ExpressionError(
                f"the symbol {e} is neither a parameter, a constant nor data (known: {known}); "
                "declare it or give its number in constants=."
            )
        if isinstance(e, (sp.Integer, sp.Float, sp.Rational)) or (e.is_Number or e.is_NumberSymbol):
            try:
                number = float(e)
            except OverflowError:
                number = math.inf
            if not math.isfinite(number):
                raise ExpressionError(f"the expression contains {_short(e)}, which is not a finite number.")
            return g.const(number)
        if e is sp.I or (getattr(e, "is_number", False) and e.is_real is False):
            raise ExpressionError(f"the subexpression {e} is not real; a loss must be a real expression.")
        if isinstance(e, sp.Add):
            return self._add(e, go)
        if isinstance(e, sp.Mul):
            return self._mul(e, go)
        if isinstance(e, sp.Pow):
            return self._pow(e, go)
        if isinstance(e, sp.log):
            return self._log(e, go)
        if type(e) in _FUNCTIONS:
            return g.unary(_FUNCTIONS[type(e)], go(e.args[0]))
        if isinstance(e, (sp.Min, sp.Max)):
            op = "min" if isinstance(e, sp.Min) else "max"
            args = [go(a) for a in e.args]
            out = args[0]
            for a in args[1:]:
                out = g.binary(op, out, a)
            return out
        if isinstance(e, sp.Heaviside):
            x, at_zero = go(e.args[0]), e.args[1]
            step = g.unary("heaviside", x)
            if at_zero == sp.S.Half:
                return step
            return g.select(g.binary("eq", x, g.const(0.0)), go(at_zero), step)
        if isinstance(e, sp.Piecewise):
            return self._piecewise(e, go)
        if type(e) in _RELATIONS:
            return g.binary(_RELATIONS[type(e)], go(e.args[0]), go(e.args[1]))
        if isinstance(e, (sp.And, sp.Or)):
            op = "and" if isinstance(e, sp.And) else "or"
            out = go(e.args[0])
            for a in e.args[1:]:
                out = g.binary(op, out, go(a))
            return out
        if isinstance(e, sp.Not):
            return g.unary("not", go(e.args[0]))
        if e in (sp.true, sp.false):
            return g.binary("eq" if e else "ne", g.const(0.0), g.const(0.0))
        if isinstance(e, sp.ITE):  # sympy's reading of a Piecewise inside a condition
            condition, yes, no = (go(a) for a in e.args)
            return g.binary("or", g.binary("and", condition, yes), g.binary("and", g.unary("not", condition), no))
        if isinstance(e, sp.Sum):
            return self._sum(e)
        if isinstance(e, sp.Indexed):
            return self._element(str(e.base.label), e.indices, e)
        if isinstance(e, sp.matrices.expressions.matexpr.MatrixElement):
            return self._element(str(e.parent), e.indices, e)
        raise ExpressionError(
            f"the subexpression {_short(e)} uses {type(e).__name__}, which has no kernel; "
            f"supported: {SUPPORTED}."
        )

    def _add(self, e: sp.Add, go: Any) -> Node:
        g, args = self.graph, list(e.args)
        for sign in (1, -1):  # exp(a) - 1 and 1 - exp(a)
            exps = [sign * a for a in args if isinstance(sign * a, sp.exp)]
            if len(args) == 2 and -sign in args and exps:
                return float(sign) * g.unary("expm1", go(exps[0].args[0]))
        out = g.const(0.0)
        constant = 0.0
        for a in args:
            if a.is_Number:
                constant += float(a)
            else:
                out = out + go(a)
        return out + constant

    def _mul(self, e: sp.Mul, go: Any) -> Node:
        g = self.graph
        factors = list(e.args)
        top, bottom = g.const(1.0), g.const(1.0)
        for f in list(factors):  # exp(a) / (1 + exp(a)) is a logistic that must not overflow
            inner = _one_plus_exp(f.base) if isinstance(f, sp.Pow) and f.exp == -1 else None
            if inner is not None and sp.exp(inner) in factors:
                factors.remove(f)
                factors.remove(sp.exp(inner))
                top = top * g.unary("logistic", go(inner))
        for f in factors:
            if isinstance(f, sp.Rational) and not f.is_Integer:
                top, bottom = top * float(f.p), bottom * float(f.q)
            elif isinstance(f, sp.Pow) and f.exp in _DIVISIONS and _one_plus_exp(f.base) is None:
                bottom = bottom * self._power(f.base, -f.exp, go)
            else:
                top = top * go(f)
        return top / bottom

    def _pow(self, e: sp.Pow, go: Any) -> Node:
        base, exponent = e.args
        inner = _one_plus_exp(base)
        if inner is not None and exponent.is_Integer and exponent.is_negative:
            return self.graph.powi(self.graph.unary("logistic", go(-inner)), int(-exponent))
        if exponent in _DIVISIONS:
            return 1.0 / self._power(base, -exponent, go)
        return self._power(base, exponent, go)

    def _power(self, base: sp.Basic, exponent: sp.Basic, go: Any) -> Node:
        g = self.graph
        if base == sp.E:
            return g.unary("exp", go(exponent))
        b = go(base)
        if exponent.is_Integer:
            return g.powi(b, int(exponent))
        return g.pow(b, go(exponent))

    def _log(self, e: sp.log, go: Any) -> Node:
        g, x = self.graph, e.args[0]
        if len(e.args) > 1:
            raise ExpressionError(f"{_short(e)}: use log(x)/log(base).")
        if isinstance(x, sp.cosh):
            return g.unary("logcosh", go(x.args[0]))
        inner = _one_plus_exp(x)
        if inner is not None:
            return g.unary("softplus", go(inner))
        if isinstance(x, sp.Add) and sp.S.One in x.args:
            return g.unary("log1p", go(x - 1))
        return g.unary("log", go(x))

    def _piecewise(self, e: sp.Piecewise, go: Any) -> Node:
        pairs = list(e.args)
        if pairs[-1][1] not in (True, sp.true):
            raise ExpressionError(
                f"{_short(e)} has no last branch `(..., True)`: it would be undefined somewhere."
            )
        out = go(pairs[-1][0])
        for value, condition in reversed(pairs[:-1]):
            out = self.graph.select(go(condition), go(value), out)
        return out

    def _sum(self, e: sp.Sum) -> Node:
        body, limits = e.args[0], e.args[1:]
        opened: list[tuple[sp.Basic, Index]] = []
        saved = dict(self._loops)
        for symbol, low, high in reversed(limits):  # sympy writes the innermost sum first
            if not (low.is_Integer and high.is_Integer):
                raise ExpressionError(
                    f"the sum over {symbol} runs from {low} to {high}: both must be integers."
                )
            size = int(high) - int(low) + 1
            if size <= 0:
                self._loops = saved
                return self.graph.const(0.0)
            level = 1 + max((i.level for i, _ in saved.values()), default=-1) + len(opened)
            index = Index(level, "sum", size)
            self._loops[symbol] = (index, int(low))
            opened.append((symbol, index))
        try:
            node = self(body)
        finally:
            self._loops = saved
        for _, index in reversed(opened):
            node = self.graph.sum(node, index)
        return node

    def _element(self, name: str, positions: Sequence[sp.Basic], e: sp.Basic) -> Node:
        if name not in self.arrays:
            known = ", ".join(sorted(self.arrays)) or "none"
            raise ExpressionError(
                f"{e}: the indexed symbol {name} is neither a parameter nor data (known: {known})."
            )
        home = self.arrays[name]
        if len(home.shape) == 1 and len(positions) == 2 and positions[1] == 0:
            positions = positions[:1]
        if len(positions) != len(home.shape):
            raise ExpressionError(f"{e}: {name} has {len(home.shape)} indices, not {len(positions)}.")
        offset = home.offset
        strides: dict[Index, int] = {}
        for position, stride, length in zip(positions, home.strides, home.shape, strict=True):
            const, reach = sp.sympify(position), []
            for symbol in sorted(position.free_symbols, key=str):
                if symbol not in self._loops:
                    raise ExpressionError(f"{e}: the index {symbol} is not bound by a Sum.")
                slope = sp.diff(position, symbol)
                if not slope.is_Integer:
                    raise ExpressionError(f"{e}: an index must be a whole-number combination of sum indices.")
                index, low = self._loops[symbol]
                strides[index] = strides.get(index, 0) + int(slope) * stride
                const = const.subs(symbol, low)
                reach.append(int(slope) * (index.size - 1))
            if not const.is_Integer:
                raise ExpressionError(f"{e}: the index {position} is not a whole number.")
            least = int(const) + sum(min(r, 0) for r in reach)
            most = int(const) + sum(max(r, 0) for r in reach)
            if least < 0 or most >= length:
                raise ExpressionError(
                    f"{e}: the index runs from {least} to {most}, but {name} has {length} entries."
                )
            offset += int(const) * stride
        return self.graph.load(home.array, offset, [(i, s) for i, s in strides.items() if s], per=home.per)


def _plain(e: sp.Basic) -> bool:
    """True for what the walk descends into: not loops, elements or branches."""
    return isinstance(e, (sp.Add, sp.Mul, sp.Pow)) or type(e) in _FUNCTIONS


def _one_plus_exp(e: sp.Basic) -> sp.Basic | None:
    """`a` where e = 1 + exp(a), else None."""
    if isinstance(e, sp.Add) and len(e.args) == 2 and sp.S.One in e.args:
        other = e - 1
        if isinstance(other, sp.exp):
            return other.args[0]
    return None


def _short(e: sp.Basic) -> str:
    text = str(e)
    return text if len(text) <= 80 else text[:77] + "..."
