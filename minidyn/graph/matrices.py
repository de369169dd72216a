"""Matrix expressions -> tables: one node for each, over a loop of rows and a loop of columns, whatever their lengths.

Every matrix is read once, over the same two loops; who needs it the other way round, or as a factor of a product, reads
that table under other names (`tables.moved`). A product is a sum over an inner loop, in the order of factors that costs
least. Of a matrix and its transpose, the one with fewer transposed parts is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction
from sympy.matrices.expressions.diagonal import DiagMatrix
from sympy.matrices.expressions.slice import MatrixSlice

from minidyn.common.errors import ExpressionError
from minidyn.graph import tables
from minidyn.graph.nodes import Index, Node
from minidyn.graph.refusals import no_kernel
from minidyn.graph.tables import axis, moved
from minidyn.graph.walk import postorder, printed

if TYPE_CHECKING:
    from minidyn.graph.reading import Converter

_FEW = 3  # rows up to which a determinant is written out


@dataclass(frozen=True)
class Table:
    """A matrix of `m x n` numbers: a node over `axis(0, m)` and `axis(1, n)`; of a diagonal one also its diagonal."""

    node: Node
    m: int
    n: int
    diagonal: Node | None = None

    def at(self, rows: Index | None, columns: Index | None) -> Node:
        """The entries over other loops."""
        return moved(self.node, {axis(0, self.m): rows, axis(1, self.n): columns})

    @property
    def turned(self) -> Table:
        """The transpose."""
        return Table(self.at(axis(1, self.m), axis(0, self.n)), self.n, self.m, self.diagonal)

    def times(self, other: Table) -> Table:
        """The product of two matrices."""
        if self.diagonal is not None:
            return Table(self.diagonal * other.node, self.m, other.n)
        if other.diagonal is not None:
            return Table(self.node * moved(other.diagonal, {axis(0, other.n): axis(1, other.n)}), self.m, self.n)
        over = axis(2, self.n)
        node = tables.dot(self.at(axis(0, self.m), over), other.at(over, axis(1, other.n)), over)
        return Table(node, self.m, other.n)

    def rows(self, start: int, stop: int, step: int) -> Table:
        """Some of the rows, in their order."""
        many, over = len(range(start, stop, step)), axis(0, self.m)
        g, loop, rows = self.node.graph, axis(2, many), axis(0, many)
        if over is None or over not in self.node.indices or (many == self.m and step > 0):
            return Table(self.node, many, self.n)
        if self.node.op == "load":
            return Table(tables.strided(self.node, over, rows, start, step), many, self.n)
        place = g.const(start) if loop is None else step * tables.number(g, loop) + start
        chosen = tables.where(over, place, g.const(1.0))
        return Table(moved(tables.dot(chosen, self.node, over), {loop: rows}), many, self.n)

    def among(self, start: int, m: int) -> Table:
        """The rows from `start` on of `m` rows, of which the others are zero."""
        if self.m == m:
            return self
        g, over, rows = self.node.graph, axis(2, self.m), axis(0, m)
        assert rows is not None
        place = g.const(start) if over is None else tables.number(g, over) + start
        chosen = tables.where(rows, place, g.const(1.0))
        return Table(tables.dot(chosen, self.at(over, axis(1, self.n)), over), m, self.n)


class Matrices:
    """Reads the matrix expressions of a converter."""

    def __init__(self, converter: Converter):
        self.converter, self.graph = converter, converter.graph
        self._memo: dict[Any, Table] = {}

    def __call__(self, e: Any) -> Table:
        """The table of a matrix expression; read from below, so that deep nets do not exhaust the stack."""
        key, todo = self.converter.key, [e]
        while todo:
            part = todo[-1]
            inner = [a for a in _parts(part) if (a, key) not in self._memo]
            if inner:
                todo += inner
            else:
                todo.pop()
                if (part, key) not in self._memo:
                    self._memo[part, key] = self._read(part)
        return self._memo[e, key]

    # -- numbers made of matrices --
    def number(self, e: Any) -> Node:
        """A 1 x 1 matrix as a number."""
        if _shape(e) != (1, 1):
            name = e.name if isinstance(e, sp.MatrixSymbol) else "(...)"
            raise ExpressionError(
                f"{printed(e)} is a {_size(e)} matrix where a number is expected: take its Trace or an entry [i, j]; a "
                f"function of each entry is written {name}.applyfunc(f)."
            )
        return self(e).node

    def element(self, e: Any) -> Node:
        """An entry of a matrix expression, at numbers or at the letters of sums."""
        (m, n), x = _shape(e.parent), e.parent
        i, j = (self._place(e, p, size) for p, size in zip(e.indices, (m, n), strict=True))
        rows, columns = ((p, p + 1, 1) if isinstance(p, int) else (0, s, 1) for p, s in ((i, m), (j, n)))
        node, m, n = (part := self._part(x, rows, columns)).node, part.m, part.n
        for place, loop in ((i, axis(0, m)), (j, axis(1, n))):
            if loop is not None and isinstance(place, Index) and not (place == i == j and loop == axis(1, n)):
                node = moved(node, {loop: place})
            elif loop is not None:
                assert not isinstance(place, int)
                there = tables.number(self.graph, place) if isinstance(place, Index) else place
                node = self.graph.sum(tables.where(loop, there, node), loop)
        return node

    def _place(self, e: Any, p: Any, size: int) -> int | Index | Node:
        """Where an index stands: a number, a loop that visits all entries in order, or a node."""
        index, low = self.converter.loops.get(p, (None, 0))
        if p.is_Integer:
            if not 0 <= p < size:
                raise ExpressionError(f"{printed(e)}: the index {p} lies outside of a {_size(e.parent)} matrix.")
            return int(p)
        return index if index is not None and low == 0 and index.size == size else self.converter.read(p)

    def trace(self, e: Any) -> Node:
        """`Trace(X)`; of a product the sum of the entries of one part times those of the rest's transpose."""
        x, g = e.arg, self.graph
        m, n = _shape(x)
        if m != n:
            raise ExpressionError(f"{printed(e)}: only square matrices have a trace, not {_size(x)} ones.")
        if isinstance(x, sp.MatAdd):
            return reduce(g.add, [self.trace(sp.Trace(a)) for a in x.args])
        factor, found = self._factors(x)
        rows, columns = axis(0, m), axis(1, m)
        if len(found) > 1:
            cost, last = _costs(found), len(found) - 1
            cut = min(range(last), key=lambda k: cost[0, k][0] + cost[k + 1, last][0] + m * found[k].n)
            left, right = self._chain(found[: cut + 1]), self._chain(found[cut + 1 :])
            body, columns = left.node * right.turned.node, axis(1, left.n)
        elif rows is None or columns is None:
            body = found[0].node
        elif found[0].node.op == "load":
            body, columns = found[0].at(rows, rows), None
        else:
            body = tables.where(columns, tables.number(g, rows), found[0].node)
        for loop in (columns, rows):
            body = body if loop is None else g.sum(body, loop)
        return factor * body

    def determinant(self, e: Any, log: bool = False) -> Node:
        """`Determinant(X)` or its logarithm; up to 3 x 3 the polynomial itself, beyond that by elimination."""
        x = e.arg
        m, n = _shape(x)
        if m != n:
            raise ExpressionError(f"{printed(e)}: only square matrices have a determinant, not {_size(x)} ones.")
        if m > _FEW or log:
            return tables.determinant(self(x).node, m, log)
        letters = [[sp.Dummy() for _ in range(m)] for _ in range(m)]
        known = {letters[i][j]: self._part(x, (i, i + 1, 1), (j, j + 1, 1)).node for i in range(m) for j in range(m)}
        return self.converter.beside(known).read(sp.Matrix(letters).det())

    # -- matrices made of matrices --
    def _read(self, e: Any) -> Table:
        m, n = _shape(e)
        if isinstance(e, (sp.Transpose, sp.Adjoint)):
            return self(e.arg).turned
        if e.has(sp.Transpose) and _rank(other := e.T) < _rank(e):
            return self(other).turned
        for kinds, build in self._KINDS.items():
            if isinstance(e, kinds):
                found = build(self, e, m, n)
                return found if isinstance(found, Table) else Table(found, m, n)
        raise no_kernel(e)

    def _symbol(self, e: Any, m: int, n: int) -> Node:
        home = self.converter.arrays.get(e.name)
        if home is None:
            known = ", ".join(sorted(self.converter.arrays)) or "none"
            raise ExpressionError(f"the matrix {e} is neither a parameter, a constant nor data (known: {known}).")
        if home.shape not in ((m, n), (m,) if n == 1 else (m, n)):  # a vector is a column
            raise ExpressionError(f"{e} is used as a {m} x {n} matrix, but declared with the shape {home.shape}.")
        loops = ((axis(0, m), n), (axis(1, n), 1))
        return self.graph.load(home.array, home.offset, [(i, s) for i, s in loops if i is not None], per=home.per)

    def _explicit(self, e: Any, m: int, n: int) -> Node:
        """A matrix that was written out."""
        g, rows, columns = self.graph, axis(0, m), axis(1, n)
        loops = [i for i in (rows, columns) if i is not None]
        entries = [self.converter.read(x) for x in e]
        if loops and all(x.is_const for x in entries):
            return g.make("literal", data=(tuple(x.data for x in entries), *loops), indices=frozenset(loops))
        out = g.const(0.0)
        for k, x in enumerate(entries):
            for loop, place in ((rows, k // n), (columns, k % n)):
                x = x if loop is None else tables.where(loop, g.const(place), x)
            out = out + x
        return out

    def _sum(self, e: Any, m: int, n: int) -> Node:
        return reduce(self.graph.add, [self(a).node for a in e.args])

    def _factors(self, e: Any) -> tuple[Node, list[Table]]:
        """(number in front, matrices) of a product or power."""
        factor, found = self.graph.const(1.0), []
        for a in e.args if isinstance(e, sp.MatMul) else [e]:
            if not _is_matrix(a):
                factor = factor * self.converter.read(a)
            elif isinstance(a, sp.MatPow) and a.exp.is_Integer and a.exp > 1:
                half = int(a.exp) // 2
                found += [self(sp.MatPow(a.base, k).doit(deep=False)) for k in (half, int(a.exp) - half)]
            else:
                found.append(self(a))
        return factor, found

    def _product(self, e: Any, m: int, n: int) -> Node:
        factor, found = self._factors(e)
        return factor * self._chain(found).node

    def _chain(self, factors: list[Table]) -> Table:
        """The product of matrices, in the order that takes the fewest multiplications."""
        costs = _costs(factors)

        def made(i: int, j: int) -> Table:
            k = costs[i, j][1]
            return factors[i] if i == j else made(i, k).times(made(k + 1, j))

        return made(0, len(factors) - 1)

    def _power(self, e: Any, m: int, n: int) -> Table | Node:
        if not e.exp.is_Integer:
            raise ExpressionError(f"{printed(e)}: the power of a matrix must be a whole number.")
        if e.exp < 0:
            return self._chain([self._inverse(e, m, n)] * -int(e.exp))
        return self._product(e, m, n)

    def _inverse(self, e: Any, m: int, n: int) -> Table:
        if m != n:
            raise ExpressionError(f"{printed(e)}: only square matrices have an inverse, not {_size(e.args[0])} ones.")
        return Table(tables.inverse(self(e.args[0]).node, m), m, m)

    def _hadamard(self, e: Any, m: int, n: int) -> Node:
        return reduce(self.graph.mul, [self(a).node for a in e.args])

    def _hadamard_power(self, e: Any, m: int, n: int) -> Node:
        letters = {sp.Dummy(): self(a).node for a in e.args if _is_matrix(a)}
        power = sp.Pow(*[*letters, *(a for a in e.args if not _is_matrix(a))])
        return self.converter.beside(letters).read(power)

    def _applied(self, e: Any, m: int, n: int) -> Node:
        (letter,), body = e.function.variables, e.function.expr
        return self.converter.beside({letter: self(e.expr).node}).read(body)

    def _diagonal(self, e: Any, m: int, n: int) -> Table:
        """`DiagMatrix(x)` of a vector."""
        x = self(e.args[0])
        x = x if x.n == 1 else x.turned
        rows, columns = axis(0, m), axis(1, n)
        if rows is None or columns is None:
            return Table(x.node, m, n)
        return Table(tables.where(columns, tables.number(self.graph, rows), x.node), m, n, x.node)

    def _slice(self, e: Any, m: int, n: int) -> Table:
        found = self._part(e.parent, e.rowslice, e.colslice)
        if (found.m, found.n) != (m, n):
            raise ExpressionError(
                f"{printed(e)}: sympy takes this slice for a {m} x {n} matrix, though it has {found.m} x {found.n} "
                "entries; choose its ends such that the step divides the length."
            )
        return found

    def _part(self, x: Any, rows: Any, columns: Any) -> Table:
        """Rows and columns of a matrix; of a product, rows of the first factor and columns of the last."""
        factor, found = self._factors(x)
        found[0] = found[0].rows(*map(int, rows))
        found[-1] = found[-1].turned.rows(*map(int, columns)).turned
        out = self._chain(found)
        return Table(factor * out.node, out.m, out.n)

    def _blocks(self, e: Any, m: int, n: int) -> Node:
        out, top = self.graph.const(0.0), 0
        for i, height in enumerate(e.rowblocksizes):
            left = 0
            for j, width in enumerate(e.colblocksizes):
                block = self(e.blocks[i, j]).among(top, m).turned.among(left, n).turned
                out, left = out + block.node, left + int(width)
            top += int(height)
        return out

    def _constant(self, e: Any, m: int, n: int) -> Node:
        return self.graph.const(1.0 if isinstance(e, sp.OneMatrix) else 0.0)

    def _identity(self, e: Any, m: int, n: int) -> Table:
        rows, columns, one = axis(0, m), axis(1, m), self.graph.const(1.0)
        if rows is None or columns is None:
            return Table(one, m, n)
        return Table(tables.where(columns, tables.number(self.graph, rows), one), m, n, one)

    _KINDS: ClassVar[dict[Any, Callable[..., Table | Node]]] = {
        sp.MatrixSymbol: _symbol, sp.MatrixBase: _explicit, sp.MatAdd: _sum, sp.MatMul: _product, sp.Inverse: _inverse,
        sp.MatPow: _power, sp.HadamardProduct: _hadamard, sp.HadamardPower: _hadamard_power,
        ElementwiseApplyFunction: _applied, DiagMatrix: _diagonal, MatrixSlice: _slice, sp.BlockMatrix: _blocks,
        (sp.ZeroMatrix, sp.OneMatrix): _constant, sp.Identity: _identity,
    }  # fmt: skip


def _costs(factors: list[Table]) -> dict[tuple[int, int], tuple[int, int]]:
    """(multiplications, where the last product stands) of each run of factors, `i` to `j`."""
    best = {(i, i): (0, i) for i in range(len(factors))}
    for length in range(1, len(factors)):
        for i in range(len(factors) - length):
            j = i + length
            best[i, j] = min(
                (best[i, k][0] + best[k + 1, j][0] + factors[i].m * factors[k].n * factors[j].n, k) for k in range(i, j)
            )
    return best


def _is_matrix(e: Any) -> bool:
    return isinstance(e, (sp.MatrixExpr, sp.MatrixBase))


def _parts(e: Any) -> list[Any]:
    """The matrices that a matrix is made of."""
    return list(e.blocks) if isinstance(e, sp.BlockMatrix) else [a for a in e.args if _is_matrix(a)]


def _shape(e: Any) -> tuple[int, int]:
    m, n = map(sp.sympify, e.shape)
    if not (m.is_Integer and n.is_Integer and m > 0 and n > 0):
        raise ExpressionError(
            f"the matrix {printed(e)} has the shape ({m}, {n}): both sizes must be positive whole numbers, as in "
            "md.matrix('W', 10, 3)."
        )
    return int(m), int(n)


def _size(e: Any) -> str:
    return " x ".join(map(str, e.shape))


def _rank(e: Any) -> Any:
    """Of a matrix and its transpose the one of lower rank is computed."""
    return sum(isinstance(part, sp.Transpose) for part, _ in postorder(e)), sp.default_sort_key(e)
