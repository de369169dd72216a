"""What terms of a sum have in common: their shape, and a template with letters in the place of what differs.

Terms of equal shape differ in leaves alone: places of arrays, and numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
from sympy.concrete.expr_with_limits import ExprWithLimits
from sympy.core.function import Application
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.matrices.expressions.matexpr import MatrixElement

from minidyn.graph.nodes import Node
from minidyn.graph.numbers import double

_INNER = (sp.Add, sp.Mul, sp.Pow, Application, sp.Rel, ExprCondPair, ExprWithLimits)
_SWAPPED = (sp.Add, sp.Mul, sp.Min, sp.Max, sp.And, sp.Or)  # whose arguments have no order


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """A subexpression: the number of its shape, its arguments in an order that follows from their shapes and places."""

    expr: sp.Basic
    shape: int
    order: tuple[int, ...] = (
        0,
        0,
        0,
    )  # of arguments of equal shape: how the first leaf is called, its place, all places
    args: tuple[Part, ...] = ()
    places: tuple[int, ...] | None = None  # of a leaf in its array
    number: bool = False  # whether it is a number that may differ from term to term


class Shapes:
    """The parts of expressions.

    home : where a symbol lies, as the load of its place, or what it stands for; None for what is no entry of an array.
    exponential : whether an expression is made of exponentials and numbers alone. Where these stand in a logarithm or
    below a fraction their numbers belong to the shape, since what does not overflow is recognized by them.
    """

    def __init__(self, home: Callable[[sp.Basic], Node | sp.Basic | None], exponential: Callable[[sp.Basic], bool]):
        self._home, self._exponential = home, exponential
        self._parts: dict[tuple[sp.Basic, bool], Part] = {}
        self._numbers: dict[Any, int] = {}

    def __call__(self, e: sp.Basic) -> Part:
        """The part for an expression, each read once, however deep."""
        todo = [(e, False)]
        while todo:
            at = todo[-1]
            if at not in self._parts:
                inner = self._inner(*at)
                missing = [a for a in inner if a not in self._parts]
                if missing:
                    todo += missing
                    continue
                args = [self._parts[a] for a in inner]
                self._parts[at] = self._composed(at[0], args) if args else self._leaf(*at)
            todo.pop()
        return self._parts[e, False]

    def _inner(self, e: sp.Basic, exact: bool) -> list[tuple[sp.Basic, bool]]:
        """The arguments, and whether numbers among them belong to the shape; none for a leaf."""
        if not isinstance(e, _INNER):
            return []
        if isinstance(e, (sp.Add, sp.Mul)):
            return [(a, exact) for a in e.args]
        if isinstance(e, sp.Pow):
            base, exponent = e.args
            below = exponent.is_Rational and not (exponent.is_Integer and exponent.is_positive)
            kept = base.is_negative if base.is_Number else exact or (below and self._exponential(base))
            return [(base, bool(kept)), (exponent, exponent.is_Number)]
        if isinstance(e, sp.log) and len(e.args) == 1:
            return [(e.args[0], self._exponential(e.args[0]))]
        if isinstance(e, ExprWithLimits):
            return [(e.args[0], False)]
        several = len(e.args) > 1 and isinstance(e, sp.Function) and not isinstance(e, sp.Piecewise)
        return [(a, several and a.is_Number) for a in e.args]

    def _leaf(self, e: sp.Basic, exact: bool) -> Part:
        if e.is_Number and not exact and not e.is_zero:
            return Part(e, self._number("number"), number=True)
        home = self._home(e)
        if isinstance(home, sp.Basic):
            e = home
        if isinstance(e, (sp.Indexed, MatrixElement)):
            split = [sp.sympify(i).as_coeff_Add() for i in e.indices]
            if all(c.is_Integer for c, _ in split):
                places = tuple(int(c) for c, _ in split)
                at = sum(p << 24 * k for k, p in enumerate(reversed(places)))
                return Part(e, self._number((e.args[0], *(rest for _, rest in split))), (0, at, at), places=places)
        if not isinstance(home, Node):
            return Part(e, self._number(e))
        array, offset, strides = home.data
        order = (
            self._number(re.sub(r"\d+", "", str(e))),
            offset,
            offset,
        )  # in u3*v5 and u5*v3 the letters tell who is who
        return Part(e, self._number((array, strides, home.indices)), order, places=(offset,))

    def _composed(self, e: sp.Basic, args: list[Part]) -> Part:
        if isinstance(e, _SWAPPED):
            args = sorted(args, key=lambda a: (a.shape, a.order))
        beside = e.args[1:] if isinstance(e, ExprWithLimits) else ()
        order = *args[0].order[:2], sum((k + 1) * a.order[2] for k, a in enumerate(args))
        return Part(e, self._number((e.func, *(a.shape for a in args), *beside)), order, tuple(args))

    def _number(self, key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))


@dataclass
class Template:
    """What terms of one shape have in common: `expr`, with letters for what differs."""

    expr: sp.Expr
    numbers: dict[sp.Dummy, tuple[float, ...]] = field(default_factory=dict)  # of each term
    leaves: dict[sp.Dummy, tuple[Part, ...]] = field(default_factory=dict)


class Common:
    """Finds the template of terms."""

    def __init__(self) -> None:
        self.found = Template(sp.S.Zero)
        self._made: dict[tuple[int, ...], sp.Basic] = {}
        self._rows: dict[tuple[float, ...], tuple[sp.Dummy, float]] = {}

    def __call__(self, coefficients: Sequence[sp.Expr], terms: tuple[Part, ...]) -> Template:
        """The template of terms of one shape, times their coefficients."""
        body, number = self._merged(terms), self._table(coefficients)
        self.found.expr = body if number == 1 else sp.Mul(number, body, evaluate=False)
        return self.found

    def _merged(self, terms: tuple[Part, ...]) -> sp.Basic:
        """The terms as one, from below: equal tuples of parts are one part of the template."""
        made, todo = self._made, [terms]
        while todo:
            at = todo[-1]
            key = tuple(map(id, at))
            if key not in made:
                if all(p is at[0] for p in at):
                    made[key] = at[0].expr
                elif not at[0].args:
                    made[key] = self._differing(at)
                else:
                    inner = list(zip(*(p.args for p in at), strict=True))
                    missing = [a for a in inner if tuple(map(id, a)) not in made]
                    if missing:
                        todo += missing
                        continue
                    made[key] = self._rebuilt(at[0].expr, [made[tuple(map(id, a))] for a in inner])
            todo.pop()
        return made[tuple(map(id, terms))]

    def _differing(self, leaves: tuple[Part, ...]) -> sp.Basic:
        if leaves[0].number:
            return self._table([p.expr for p in leaves])
        letter = sp.Dummy(str(leaves[0].expr), real=True)
        self.found.leaves[letter] = leaves
        return letter

    def _table(self, given: Sequence[sp.Expr]) -> sp.Expr:
        """A letter for a row of numbers; a multiple of a known one by a power of two is written as such, so that what
        cancels in the terms does so in the template."""
        if all(v == given[0] for v in given):
            return given[0]
        row = tuple(map(double, given))
        fraction, power = math.frexp(row[0])
        scale = math.copysign(2.0**power, fraction) if abs(power) < 500 else 1.0
        shape = tuple(v / scale for v in row)
        if shape not in self._rows:
            self._rows[shape] = letter, _ = sp.Dummy(str(given[0]), real=True), scale
            self.found.numbers[letter] = row
            return letter
        letter, known = self._rows[shape]
        return letter if scale == known else sp.Mul(sp.Rational(scale / known), letter, evaluate=False)

    def _rebuilt(self, like: sp.Basic, args: list[sp.Basic]) -> sp.Basic:
        if isinstance(like, ExprWithLimits):
            return like.func(args[0], *like.args[1:])
        if isinstance(like, ExprCondPair):
            return like.func(*args)
        if isinstance(like, sp.Add):
            return self._sum(args)
        if isinstance(like, sp.Mul):  # flat, and the number in front: so sympy reads products
            args = sorted((f for a in args for f in sp.Mul.make_args(a)), key=lambda a: not a.is_Number)
        return like.func(*args, evaluate=False)

    def _sum(self, args: list[sp.Basic]) -> sp.Basic:
        """A sum; numbers that sympy has multiplied into each term, as in `c exp(x) - c`, are a factor again."""
        factors = [list(a.args) if a.is_Mul else [a] for a in args]
        for letter in factors[0]:
            if letter in self.found.numbers and all(letter in f for f in factors):
                for f in factors:
                    f.remove(letter)
                inside = [sp.Mul(*f, evaluate=False) if len(f) != 1 else f[0] for f in factors]
                return sp.Mul(letter, self._sum(inside), evaluate=False)
        return sp.Add(*sorted(args, key=lambda a: not a.is_Number), evaluate=False)
