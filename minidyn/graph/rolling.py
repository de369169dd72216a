"""Sums that were written out, read as loops: `f(p0, q0) + f(p1, q1) + ...` is `sum over j of f(p[j], q[j])`.

The places of terms of one shape must be linear in the counters of the loops; numbers become a table. A loop is read
from a template, as a `Sum` is; so derivatives and kernels are those of the `Sum`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, product
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import ExpressionError
from minidyn.graph.nodes import Index, Node
from minidyn.graph.shapes import Common, Part, Shapes, Template

if TYPE_CHECKING:
    from minidyn.graph.reading import Converter

Places = NDArray[np.int64]
SHORTEST = 8  # terms of one shape that make a loop
_WRITTEN = 12  # up to so many exponentials are read as one quotient, logarithm or difference
_ORDERS = 8  # orders of the terms that are tried: by the first places that differ


class Numbers(ByValue):
    """The numbers that loops read turn by turn: they lie in one array, behind `first` others.

    shortest : how long a sum is that has loops. used : whether there has been any. Once `closed`, nothing is added.
    """

    def __init__(self, array: str, first: int, shortest: int = SHORTEST):
        self.array, self.first, self.shortest = array, first, shortest
        self.used = self.closed = False
        self.values: list[float] = []
        self._known: dict[tuple[float, ...], int] = {}

    def place(self, row: tuple[float, ...]) -> int | None:
        """Where a row of numbers begins; None for an unknown one if nothing may be added."""
        if row not in self._known and not self.closed:
            self._known[row] = self.first + len(self.values)
            self.values += row
        return self._known.get(row)


@dataclass(frozen=True)
class Turns:
    """Terms that one nest of loops runs over: which they are, in order, and how the places move with each counter."""

    terms: Places
    counts: tuple[int, ...]
    start: Places  # the places of the first term
    steps: Places  # (loops, places)


def turns(places: Places) -> list[Turns]:
    """Nests of loops over the terms whose places are the rows of `places`, in the order that needs the fewest.

    Terms that belong to none, since fewer than `SHORTEST` follow each other in equal steps, are left out.
    """
    best: list[Turns] = []
    columns = list(places.T) or [np.arange(len(places))]
    for k in range(min(_ORDERS, len(columns))):
        order = np.lexsort([*reversed(columns[:k] + columns[k + 1 :]), columns[k]])
        found = list(_whole(places, order)) or list(_runs(places, order))
        if not best or _missed(found) < _missed(best):
            best = found
        if len(best) == 1 and len(best[0].terms) == len(places):
            break
    return best


def _missed(found: list[Turns]) -> tuple[int, int, int]:
    return -sum(len(t.terms) for t in found), len(found), sum(len(t.counts) for t in found)


def _whole(places: Places, order: Places) -> Iterator[Turns]:
    """All terms as one nest of loops, or as several equal ones where some of its loops would be short."""
    steps = _nest(places[order])
    if steps is None:
        return
    counts = [n for n, _ in steps]
    short = [n < SHORTEST and any(m >= SHORTEST for m in counts) for n in counts]
    grid = order.reshape(counts)
    long = [s for s, few in zip(steps, short, strict=True) if not few]
    ways: list[Sequence[Any]] = [range(n) if few else [slice(None)] for n, few in zip(counts, short, strict=True)]
    for at in product(*ways):
        terms = grid[at].ravel()
        yield Turns(terms, tuple(n for n, _ in long), places[terms[0]], np.array([s for _, s in long]))


def _nest(rows: Places) -> list[tuple[int, Places]] | None:
    """(turns, step) of each loop, outermost first, if rows are linear in the counters of a nest of loops."""
    if len(rows) == 1:
        return []
    moved = np.diff(rows, axis=0)
    other = (moved != moved[0]).any(axis=1)
    inner = int(np.argmax(other)) + 1 if other.any() else len(rows)
    if len(rows) % inner:
        return None
    blocks = rows.reshape(len(rows) // inner, inner, rows.shape[1])
    if (blocks - blocks[:, :1] != blocks[:1] - blocks[:1, :1]).any():
        return None
    outer = _nest(blocks[:, 0])
    return None if outer is None else [*outer, (inner, moved[0])]


def _runs(places: Places, order: Places) -> Iterator[Turns]:
    """Runs of terms in equal steps."""
    rows = places[order]
    moved = np.diff(rows, axis=0)
    ends = np.full(len(rows), len(rows))  # where a run from here ends
    for k in range(len(rows) - 3, -1, -1):
        ends[k] = ends[k + 1] if (moved[k] == moved[k + 1]).all() else k + 2
    k = 0
    while k < len(rows) - 1:
        if ends[k] - k < SHORTEST:
            k += 1
            continue
        terms = order[k : ends[k]]
        yield Turns(terms, (len(terms),), rows[k], moved[k : k + 1])
        k = ends[k]


@dataclass(frozen=True)
class Family:
    """Terms of one shape, their template, and the loops over them."""

    terms: list[sp.Expr]
    template: Template
    loops: list[Turns]


class Rolling:
    """The loops in sums that were written out, for one converter.

    read : reads expressions, for the converter. numbers : where those that differ from term to term lie; without it
    nothing is rolled.
    """

    def __init__(self, convert: Converter, read: Callable[[sp.Basic], Node], numbers: Numbers | None):
        self.convert, self._read, self.numbers = convert, read, numbers
        self.letters: dict[sp.Basic, Node | sp.Basic] = {}  # of templates: what they stand for
        self.exponential: set[int] = set()  # ids of what is made of exponentials and numbers alone
        self._shapes = Shapes(self._home, lambda e: id(e) in self.exponential)
        self._split: dict[sp.Basic, tuple[list[Family], list[sp.Expr]]] = {}
        self._count = count()

    def _home(self, e: sp.Basic) -> Node | sp.Basic | None:
        found = self.letters.get(e, self.convert.symbols.get(e))
        return found if isinstance(found, sp.Basic) or (found is not None and found.op == "load") else None

    def split(self, e: sp.Basic) -> tuple[list[Family], Sequence[sp.Expr]]:
        """The families of terms of a sum, and its other terms; for anything else none, and its arguments."""
        args = e.args
        if self.numbers is None or not isinstance(e, sp.Add) or len(args) < SHORTEST:
            return [], args
        if e not in self._split:
            short = self.numbers.shortest
            if all(id(a) in self.exponential for a in args):  # few are known by their terms, many must not overflow
                short = _WRITTEN + 1
            self._split[e] = self._families(args) if len(args) >= short else ([], list(args))
        return self._split[e]

    def _families(self, args: Sequence[sp.Expr]) -> tuple[list[Family], list[sp.Expr]]:
        groups: dict[int, list[tuple[sp.Expr, sp.Expr, Part]]] = {}
        for term in args:
            coefficient, body = term.as_coeff_Mul()
            part = self._shapes(body)
            groups.setdefault(-1 if term.is_Number else part.shape, []).append((term, coefficient, part))
        found, taken = [], set[sp.Expr]()
        for shape, members in groups.items():
            if shape < 0 or len(members) < SHORTEST:
                continue
            terms, coefficients, parts = zip(*members, strict=True)
            template = Common()(coefficients, parts)
            rows = [[p for leaf in template.leaves.values() for p in leaf[k].places or ()] for k in range(len(terms))]
            loops = turns(np.array(rows, np.int64).reshape(len(terms), len(rows[0])))
            found.append(Family(list(terms), template, loops))
            taken.update(terms[k] for t in loops for k in t.terms)
        return found, [a for a in args if a not in taken]

    def summed(self, e: sp.Basic) -> tuple[Node, Sequence[sp.Expr]]:
        """The sum of the loops in a sum, and its other terms."""
        out, (families, rest) = self.convert.graph.const(0.0), self.split(e)
        for family, loop in ((f, loop) for f in families for loop in f.loops):
            try:
                out = out + self._node(family, loop)
            except ExpressionError:  # is said of the terms as they were written
                self.convert.part = None
                for k in loop.terms:
                    out = out + self._read(family.terms[k])
        return out, rest

    def _node(self, family: Family, loop: Turns) -> Node:
        """A loop over terms of a family; ExpressionError where the template cannot be read."""
        letters = [sp.Dummy(f"j{next(self._count)}", integer=True) for _ in loop.counts]
        turns = [(letter, 0, n) for letter, n in zip(letters, loop.counts, strict=True)]
        body = partial(self._body, family.template, loop, letters)
        return self.convert.looped(turns, body, table=bool(family.template.numbers))

    def _body(self, template: Template, loop: Turns, letters: list[sp.Dummy], indices: list[Index]) -> Node:
        """The template where its letters stand for the places and the numbers of one nest of loops."""
        g, numbers = self.convert.graph, self.numbers
        assert numbers is not None
        numbers.used = True
        for letter, row in template.numbers.items():
            at = numbers.place(tuple(row[k] for k in loop.terms))
            if at is None:
                raise ExpressionError("numbers that are not in the table")
            strides = [math.prod(loop.counts[k + 1 :]) for k in range(len(indices))]
            self.letters[letter] = g.load(numbers.array, at, list(zip(indices, strides, strict=True)))
        column = 0
        for letter, leaves in template.leaves.items():
            leaf, first = leaves[loop.terms[0]], column
            assert leaf.places is not None
            column += len(leaf.places)
            steps = loop.steps[:, first:column]
            self.letters[letter] = self._moving(leaf, letters, indices, steps)
        return self._read(template.expr)

    def _moving(self, leaf: Part, letters: list[sp.Dummy], indices: list[Index], steps: Places) -> Node | sp.Basic:
        """A leaf that moves by some steps in every turn."""
        home = self._home(leaf.expr)
        if isinstance(home, Node):
            array, offset, strides = home.data
            per = home.indices - {i for i, _ in strides}
            moved = [(i, int(s)) for i, s in zip(indices, steps[:, 0], strict=True) if s]
            return self.convert.graph.load(array, offset, [*strides, *moved], per=next(iter(per), None))
        e = leaf.expr if home is None else home
        shifts = [sum((int(s) * j for s, j in zip(column, letters, strict=True)), sp.S.Zero) for column in steps.T]
        return e.func(e.args[0], *(i + shift for i, shift in zip(e.indices, shifts, strict=True)))
