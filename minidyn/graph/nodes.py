"""The hash-consed graph in single-assignment form.

A node is `(op, args, data)`; building the same node twice gives the same object, so shared
subexpressions are shared by construction and `node.id` is an evaluation order. A node also knows
its *free indices*: a sum over samples, or over the units of a network, is one node whose body is
written once, whatever the length of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from minidyn.common.errors import ExpressionError
from minidyn.graph.branches import buried, is_partial, masked, same_mask, support
from minidyn.graph.functions import FUNCTIONS


@dataclass(frozen=True, order=True)
class Index:
    """A loop: `level` fixes the nesting order (lane < sample < sums, outermost first). Of kind "row": over a table."""

    level: int
    kind: str
    size: int = 0

    @property
    def var(self) -> str:
        """The loop's variable in generated code; one name for all sums of one level and size."""
        names = {"lane": "lane", "sample": "i", "coord": "p", "block": "block", "side": "side", "output": "output"}
        return names.get(self.kind, f"j{self.level}_{self.size}")


LANE = Index(-2, "lane", 64)
SAMPLE = Index(-1, "sample")
NO_INDICES: frozenset[Index] = frozenset()


class Node:
    """One operation of a graph; arithmetic on nodes builds new nodes of the same graph."""

    __slots__ = ("args", "data", "finite", "graph", "id", "indices", "op", "partial")

    def __init__(self, graph: Graph, op: str, args: tuple[Node, ...], data: Any, indices: frozenset[Index]):
        self.graph, self.op, self.args, self.data = graph, op, args, data
        self.indices = indices
        self.id = len(graph.nodes)
        self.finite = _finite(self)
        self.partial = is_partial(self)

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
        """Whether the node is a number that is known now, its `data`."""
        return self.op == "const"

    def __repr__(self) -> str:
        data = [repr(self.data)] if self.data is not None else []
        inner = ", ".join([f"#{a.id}" for a in self.args] + data)
        return f"#{self.id}={self.op}({inner})"


_FOLD: dict[str, Callable[[float], float]] = {"abs": abs} | {
    name: getattr(math, name)
    for name in "exp log sqrt sin cos tan tanh atan cosh sinh erf erfc floor ceil asinh acosh atanh".split()
}


class Graph:
    """A table of nodes, each stored once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.supports: dict[int, Node | bool] = {}
        self._table: dict[tuple[Any, ...], Node] = {}

    def make(
        self, op: str, args: Sequence[Node] = (), data: Any = None, indices: frozenset[Index] | None = None
    ) -> Node:
        """The node with this op, these arguments and this data, new only if there is none yet; nothing is simplified.

        indices : the loops that the node depends on; None: those of its arguments.
        """
        key = (op, tuple(a.id for a in args), data) if args else (op, data, indices or NO_INDICES)
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
        """A number as a node, -0.0 as 0.0; raises ExpressionError for NaN and infinity."""
        value = float(value)
        if not math.isfinite(value):
            raise ExpressionError(f"a constant of the expression is {value}: it must be a finite number.")
        return self.make("const", data=value if value != 0.0 else 0.0)

    def load(
        self, array: str, offset: int = 0, strides: Iterable[tuple[Index, int]] = (), per: Index | None = None
    ) -> Node:
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
        """`a + b`: numbers are added, zeros left out, `a + (-b)` is a difference, `a + a` a product; two values
        that are zero outside a branch of one condition become one under it."""
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
        if same_mask(a, b):
            return self.select(a.args[0], a.args[1] + b.args[1], a.args[2] + b.args[2])
        return self.make("add", sorted((a, b), key=lambda n: n.id))

    def sub(self, a: Node | float, b: Node | float) -> Node:
        """`a - b`, simplified like a sum; `a - a` is 0, whatever a."""
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
        if same_mask(a, b):
            return self.select(a.args[0], a.args[1] - b.args[1], a.args[2] - b.args[2])
        return self.make("sub", (a, b))

    def neg(self, a: Node) -> Node:
        """`-a`; `-(a - b)` is `b - a`."""
        if a.is_const:
            return self.const(-a.data)
        if a.op == "neg":
            return a.args[0]
        if a.op == "sub":
            return self.make("sub", (a.args[1], a.args[0]))
        return self.make("neg", (a,))

    def mul(self, a: Node | float, b: Node | float) -> Node:
        """`a b`: numbers, signs and powers of two move outwards, and 0 times anything is 0.

        A factor that is zero because of a branch makes the product zero there, also where the other one is infinite.
        """
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
            if masked(b) and not buried(b):
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
            if masked(x) and not buried(x):
                return self.select(x.args[0], self.mul(x.args[1], y), self.mul(x.args[2], y))
        for x, y in ((a, b), (b, a)):  # powers of two move outwards, where they meet and cancel
            if x.op == "mul" and x.args[0].is_const and _power_of_two(x.args[0].data):
                return self.mul(x.args[0], self.mul(x.args[1], y))
        product = self.make("mul", sorted((a, b), key=lambda n: n.id))
        for x, y in ((a, b), (b, a)):  # the same for zeros of several branches, or of all turns of a loop
            condition = True if y.finite else support(x)
            if not isinstance(condition, bool):
                return self.select(condition, product, 0.0)
        return product

    def div(self, a: Node | float, b: Node | float) -> Node:
        """`a / b`; by a power of two it is a product, and `0 / b` is 0, whatever b."""
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
        """`a^n` for a whole n; `a^0` is 1, whatever a. Raises ExpressionError for a number whose power overflows."""
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
        """`a^b`; a number b that is whole, up to 1024, or 1/2 or -1/2 gives products and square roots."""
        if b.is_const:
            if b.data == int(b.data) and abs(b.data) <= 1024:
                return self.powi(a, int(b.data))
            if b.data == 0.5:
                return self.unary("sqrt", a)
            if b.data == -0.5:
                return 1.0 / self.unary("sqrt", a)
        return self.make("pow", (a, b))

    def unary(self, op: str, a: Node, *orders: int) -> Node:
        """A function of `FUNCTIONS`; of a number its value, where Python knows the function and the value is finite."""
        if a.is_const and op in _FOLD:
            with suppress(ValueError, OverflowError):
                return self.const(_FOLD[op](a.data))
        return self.make(op, (a,), orders or None)

    def binary(self, op: str, a: Node, b: Node) -> Node:
        """`min`, `max`, or a comparison `lt le gt ge eq ne`, or `and or` of comparisons."""
        return self.make(op, (a, b))

    def select(self, condition: Node, yes: Node | float, no: Node | float) -> Node:
        """`yes` where the condition holds, `no` elsewhere; an arm that asks for the condition again is shortened."""
        yes, no = self._lift(yes), self._lift(no)
        while yes.op == "select" and yes.args[0] is condition:
            yes = yes.args[1]
        while no.op == "select" and no.args[0] is condition:
            no = no.args[2]
        return yes if yes is no else self.make("select", (condition, yes, no))

    def sum(self, body: Node, index: Index) -> Node:
        """`sum over index of body`; a body that does not depend on the index is multiplied instead."""
        if index not in body.indices:
            return self.mul(self.count(index), body)
        if body.op == "neg":
            return self.neg(self.sum(body.args[0], index))
        if masked(body) and index not in body.args[0].indices:
            return self.select(body.args[0], *(self.sum(arm, index) for arm in body.args[1:]))
        if body.op == "mul":  # what does not depend on the index leaves the loop
            a, b = body.args
            if index not in a.indices:
                return self.mul(a, self.sum(b, index))
            if index not in b.indices:
                return self.mul(b, self.sum(a, index))
        return self.make("sum", (body,), index, indices=body.indices - {index})


_SINGULAR = {"pow", "pow_slope", "inverse", "logdet"} | {name for name, f in FUNCTIONS.items() if not f.tame}
_LARGEST_TAME_POWER = 8


def _finite(n: Node) -> bool:
    """Whether a node is finite at all parameters of ordinary size: no pole, no edge of a domain, no exponential."""
    if n.op == "div" and n.args[1].op not in ("const", "count"):
        return False
    if n.op in _SINGULAR or (n.op == "powi" and not 0 < n.data <= _LARGEST_TAME_POWER):
        return False
    return all(a.finite for a in n.args)


def _power_of_two(x: float) -> bool:
    return abs(math.frexp(x)[0]) == 0.5 and 2.0**-64 <= abs(x) <= 2.0**64


def _exact_product(a: float, b: float) -> bool:
    """Whether a*b is exact, so that regrouping constants does not move the result."""
    whole = float(a).is_integer() and float(b).is_integer() and abs(a * b) < 2**53
    return whole or _power_of_two(a) or _power_of_two(b)


def users(nodes: Iterable[Node]) -> dict[int, list[Node]]:
    """Who takes each node (by id) as an argument, once for each time."""
    found: dict[int, list[Node]] = {}
    for n in nodes:
        for a in n.args:
            found.setdefault(a.id, []).append(n)
    return found


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
