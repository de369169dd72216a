"""Operations on whole tables of numbers: products of matrices, transposition, inverses, determinants.

A matrix is a node with a loop over its rows and one over its columns; what acts on its entries one by one is ordinary
arithmetic. The operations here take or give all entries at once, and so are their derivatives:

    moved(x)(j) = x(i)        the same table, its loops under other names (a transpose: rows and columns exchanged)
    dot(a, b)(i, j)           = sum_k a(i, k) b(k, j)
    inverse(a), det(a)        of a square matrix; logdet(a) = log(det(a)), NaN where that is negative
    cofactors(a, e1, ..., ek) the derivatives of det(a) along matrices e1, ..., ek and each entry, without an inverse
    literal                   a matrix of numbers
"""

from collections.abc import Mapping, Sequence
from functools import reduce

from minidyn.graph.nodes import NO_INDICES, Graph, Index, Node

TABLES = frozenset(("moved", "dot", "inverse", "det", "logdet", "cofactors"))
_FIRST = 40  # the level of the first axis: inside all sums that are written as such


def axis(place: int, size: int) -> Index | None:
    """The loop over rows (0), columns (1) or what products sum over (2, 3); None where there is but one turn."""
    return Index(_FIRST + place, "axis", size) if size > 1 else None


def moved(n: Node, to: Mapping[Index | None, Index | None]) -> Node:
    """A node with its loops `i` renamed `to[i]`; a table that is read so is computed once, whatever its readers."""
    names = {i: to.get(i) or i for i in n.indices}
    if all(i == j for i, j in names.items()):
        return n
    g = n.graph
    if n.op == "load":
        array, offset, strides = n.data
        new: dict[Index, int] = {}
        for i, stride in strides:
            new[names[i]] = new.get(names[i], 0) + stride
        (*per,) = n.indices - {i for i, _ in strides}
        return g.load(array, offset, new.items(), per=per[0] if per else None)
    if n.op == "index":
        return g.make("index", data=names[n.data], indices=frozenset(names.values()))
    if n.op == "moved":
        inner = dict(n.data)
        return moved(n.args[0], {i: names[inner.get(i, i)] for i in n.args[0].indices})
    if n.op == "neg":
        return g.neg(moved(n.args[0], to))
    factor, rest = _factored(n)
    if factor is not None:
        return g.mul(factor, moved(rest, to))
    pairs = tuple(sorted((i, j) for i, j in names.items() if i != j))
    return g.make("moved", (n,), pairs, frozenset(names.values()))


def strided(n: Node, over: Index, loop: Index | None, start: int, step: int) -> Node:
    """A load whose loop goes over every `step`-th entry from `start` on instead."""
    array, offset, strides = n.data
    stride = dict(strides)[over]
    left = [(i, s) for i, s in strides if i != over] + ([(loop, stride * step)] if loop is not None else [])
    (*per,) = n.indices - {i for i, _ in strides}
    return n.graph.load(array, offset + start * stride, left, per=per[0] if per else None)


def number(graph: Graph, loop: Index) -> Node:
    """Which turn of a loop it is."""
    return graph.make("index", data=loop, indices=frozenset([loop]))


def where(loop: Index, place: Node, node: Node) -> Node:
    """A node at one turn of a loop, 0 at all others."""
    g = node.graph
    return g.select(g.binary("eq", number(g, loop), place), node, 0.0)


def dot(a: Node, b: Node, over: Index | None) -> Node:
    """`sum over a loop of a b`; of two matrices a whole product, in which both may be stored any way round."""
    g = a.graph
    if over is None:
        return a * b
    for x, y in ((a, b), (b, a)):
        if over not in x.indices:
            return x * g.sum(y, over)
        if x.op == "neg":
            return g.neg(dot(x.args[0], y, over))
        factor, rest = _factored(x)
        if factor is not None:
            return g.mul(factor, dot(rest, y, over))
    left, right = sorted((a, b), key=lambda n: (sorted(n.indices - {over}), n.id))
    outer = [*(left.indices - {over}), *(right.indices - {over})]
    if len(outer) == len(set(outer)) == 2 and len(left.indices) == 2 and all(i.kind == "axis" for i in outer):
        return g.make("dot", (left, right), over, frozenset(outer))
    return g.sum(a * b, over)


def inverse(a: Node, size: int) -> Node:
    """The inverse of a square matrix over rows and columns."""
    rows, columns = axis(0, size), axis(1, size)
    if rows is None or columns is None:
        return 1.0 / a
    a = _filled(a, rows, columns)
    return a.graph.make("inverse", (a,), (rows, columns), a.indices)


def determinant(a: Node, size: int, log: bool = False) -> Node:
    """The determinant of a square matrix, or its logarithm."""
    rows, columns = axis(0, size), axis(1, size)
    if rows is None or columns is None:
        return a.graph.unary("log", a) if log else a
    a = _filled(a, rows, columns)
    return a.graph.make("logdet" if log else "det", (a,), (rows, columns), a.indices - {rows, columns})


def cofactors(a: Node, rows: Index, columns: Index, along: Sequence[Node] = ()) -> Node:
    """The derivatives of det(a) in its entries, a matrix; or their mixed derivative along some matrices, each once."""
    g = a.graph
    if len(along) >= rows.size or any(e.is_const and e.data == 0.0 for e in along):
        return g.const(0.0)
    args = [a, *sorted((_filled(e, rows, columns) for e in along), key=lambda n: n.id)]
    return g.make("cofactors", args, (rows, columns))


def _filled(a: Node, rows: Index, columns: Index) -> Node:
    """A matrix whose rows or columns are all the same as one that has all its entries."""
    if {rows, columns} <= a.indices:
        return a
    ones = (1.0,) * (rows.size * columns.size)
    return a * a.graph.make("literal", data=(ones, rows, columns), indices=frozenset((rows, columns)))


def square(n: Node) -> tuple[Index, Index]:
    """The loops over rows and columns of the matrices that an operation takes, other than a product."""
    rows, columns = n.data
    return rows, columns


def tangent(n: Node, tangents: Sequence[Node]) -> Node:
    """The derivative of a node of `TABLES`, given those of its arguments."""
    g, change = n.graph, tangents[0]
    if n.op == "moved":
        return moved(change, dict(n.data))
    if n.op == "dot":
        return dot(change, n.args[1], n.data) + dot(n.args[0], tangents[1], n.data)
    rows, columns = square(n)
    k, m = axis(2, rows.size), axis(3, rows.size)
    if n.op == "inverse":  # -A^-1 dA A^-1
        first = dot(moved(n, {columns: k}), moved(change, {rows: k, columns: m}), k)
        return -dot(first, moved(n, {rows: m}), m)
    if n.op == "cofactors":
        return reduce(g.add, [_with(n, q, t) for q, t in enumerate(tangents)])
    return g.sum(g.sum(_slope(n) * change, columns), rows)


def adjoints(n: Node, bar: Node) -> list[tuple[Node, Node]]:
    """(argument, derivative in it) of a node of `TABLES`, given the derivative in the node."""
    if n.op == "moved":
        return [(n.args[0], moved(bar, {j: i for i, j in n.data}))]
    a, over = n.args[0], n.data
    if n.op == "dot":
        b = n.args[1]
        (i,), (j,) = a.indices - {over}, b.indices - {over}
        return [(a, dot(bar, b, j)), (b, dot(a, bar, i))]
    rows, columns = square(n)
    k, m = axis(2, rows.size), axis(3, rows.size)
    if n.op == "inverse":  # -A^-T bar A^-T
        first = dot(moved(n, {rows: k, columns: rows}), moved(bar, {rows: k, columns: m}), k)
        return [(a, -dot(first, moved(n, {rows: columns, columns: m}), m))]
    if n.op == "cofactors":
        return [(x, _with(n, q, bar)) for q, x in enumerate(n.args)]
    return [(a, bar * _slope(n))]


def _with(n: Node, q: int, change: Node) -> Node:
    """Cofactors along one matrix more (q = 0), or along another one than their q-th."""
    a, *along = n.args
    return cofactors(a, *square(n), [e for k, e in enumerate(along, 1) if k != q] + [change])


def _slope(n: Node) -> Node:
    """The derivatives in the entries of a determinant, or of its logarithm: no numbers where that is none."""
    rows, columns = square(n)
    if n.op == "det":
        return cofactors(n.args[0], rows, columns)
    slope = moved(inverse(n.args[0], rows.size), {rows: columns, columns: rows})
    return n.graph.select(n.graph.binary("eq", n, n), slope, n.graph.unary("undefined", n))


def _factored(n: Node) -> tuple[Node | None, Node]:
    """A number in front of a table, None if there is none, and the table."""
    if n.op == "mul" and n.indices:
        for factor, rest in (n.args, n.args[::-1]):
            if factor.indices == NO_INDICES:
                return factor, rest
    return None, n
