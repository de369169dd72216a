"""Algebra with short formulas: letters for intermediate results, linear forms, small symbolic matrices."""

import math
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from minidyn.common.errors import FlowError
from minidyn.minima.charts import terms, tidy

Row = tuple[Any, ...]
Form = dict[Row, sp.Expr]  # a linear form in the rows of the oscillation
_WORK = 20_000  # terms that may be multiplied out in all while letters are written out
_SYMBOLS = 5  # symbols beyond which letters are kept: fractions in many variables are slow to shorten
_SOLUTION = 20_000  # terms that a determinant in the solution of a small linear system may have
_SHORT = 300  # operations up to which a formula is worth writing out


@dataclass
class Letters:
    """Names for intermediate results, so that expressions stay short."""

    meaning: dict[sp.Symbol, sp.Expr] = field(default_factory=dict)

    def __call__(self, e: Any, name: str = "c") -> sp.Expr:
        """The letter that stands for `e`, if need be a new `name_n`; atoms and products of two stand for themselves."""
        e = tidy(e, 24)
        if e.is_Atom or (e.is_Mul and len(e.args) == 2 and all(a.is_Atom for a in e.args)):
            return e
        for symbol, known in self.meaning.items():
            if known == e:
                return symbol
        symbol = sp.Symbol(f"{name}_{len(self.meaning) + 1}", real=True)
        self.meaning[symbol] = e
        return symbol

    def matrix(self, m: sp.Matrix, name: str = "c") -> sp.Matrix:
        """A matrix with a letter for each entry that needs one."""
        return sp.Matrix(m.rows, m.cols, lambda i, j: self(m[i, j], name))


def add(*forms: Form) -> Form:
    """The sum of linear forms."""
    out: Form = {}
    for f in forms:
        for row, e in f.items():
            out[row] = out.get(row, sp.S.Zero) + e
    return {row: e for row, e in out.items() if e != 0}


def scaled(form: Form, factor: sp.Expr) -> Form:
    """A linear form times a number."""
    return {row: factor * e for row, e in form.items()} if factor != 0 else {}


def invert(m: sp.Matrix) -> sp.Matrix:
    """The inverse, by cofactors: short for the small matrices met here."""
    if m.rows == 0:
        return m
    if m.is_diagonal():
        return sp.diag(*[1 / m[i, i] for i in range(m.rows)])
    return m.adjugate() / m.det(method="berkowitz")


def eliminate(m: sp.Matrix, known: list[sp.Expr], letters: Letters) -> list[sp.Expr]:
    """x with `x = m x + known`, unknown by unknown, with a letter for every number on the way.

    No pivots are looked for: with m a positive map of radius below one, `1 - m` needs none."""
    n = len(known)
    a, b = (sp.eye(n) - m).as_mutable(), list(known)
    for k in range(n):
        for i in range(k + 1, n):
            if a[i, k] != 0:
                share = letters(a[i, k] / a[k, k])
                for j in range(k + 1, n):
                    a[i, j] = letters(a[i, j] - share * a[k, j])
                b[i] = letters(b[i] - share * b[k])
    x = [sp.S.Zero] * n
    for k in range(n - 1, -1, -1):
        x[k] = letters((b[k] - sum(a[k, j] * x[j] for j in range(k + 1, n))) / a[k, k])
    return x


def lyapunov(left: sp.Matrix, right: sp.Matrix, known: sp.Matrix, symmetric: bool) -> sp.Matrix:
    """X with `X = left X right^T + known`; FlowError where it has no short solution, for too many symbols in it."""
    if left.is_diagonal() and right.is_diagonal():
        return sp.Matrix(*known.shape, lambda a, b: known[a, b] / (1 - left[a, a] * right[b, b]))
    unknown = sp.Matrix(
        *known.shape, lambda a, b: sp.Symbol(f"x_{max(a, b)}_{min(a, b)}" if symmetric else f"x_{a}_{b}")
    )
    rest = unknown - left * unknown * right.T - known
    names = sorted({*unknown}, key=str)
    symbols = len(left.free_symbols | right.free_symbols)
    if math.comb(2 * len(names) + symbols, symbols) > _SOLUTION:
        raise FlowError(
            f"the oscillation across the minima mixes its directions: {len(names)} covariances in {symbols} symbols "
            "are too many to be solved for in closed form; use the numerical flow, or a chart along the curvatures."
        )
    equations = [rest[a, b] for a in range(rest.rows) for b in range(rest.cols) if not symmetric or b <= a]
    (solution,) = sp.linsolve(equations, names)
    return unknown.xreplace(dict(zip(names, solution, strict=True)))


def expand(
    parts: list[sp.Matrix],
    meaning: dict[sp.Symbol, sp.Expr],
    roots: dict[sp.Symbol, sp.Expr],
) -> tuple[list[sp.Matrix], dict[sp.Symbol, sp.Expr]]:
    """The formulas with their letters written out, if that stays short; else with the letters that they use."""
    work = 0.0
    full: dict[sp.Symbol, sp.Expr] = {}

    def write(e: sp.Expr) -> sp.Expr:
        nonlocal work
        e = e.xreplace({s: full[s] for s in e.free_symbols if s in full})
        size = max(terms(e))
        work += size
        if size > 2000 or work > _WORK:
            raise OverflowError
        short = tidy(e, 2000)
        if sp.count_ops(short) > _SHORT:
            raise OverflowError
        return short

    def finish(e: sp.Expr) -> sp.Expr:
        return shortest(e.xreplace(roots))

    try:
        atoms = {s for e in _needed(parts, meaning).values() for s in e.free_symbols if s not in meaning}
        if len(atoms) > _SYMBOLS:
            raise OverflowError
        for symbol, e in _needed(parts, meaning).items():
            full[symbol] = write(e)
        out = [m.applyfunc(write) for m in parts]
        return [m.applyfunc(finish) for m in out], {}
    except OverflowError:
        used = _needed(parts, meaning)
        roots = {r: tidy(e) for r, e in roots.items()}
        return parts, {**{r: e for r, e in roots.items() if any(r in x.free_symbols for x in used.values())}, **used}


def shortest(e: sp.Expr) -> sp.Expr:
    """The shorter of two ways to write an expression."""
    if e.is_Atom or sp.count_ops(e) > _SHORT:
        return e
    return min((e, tidy(e)), key=sp.count_ops)


def _needed(parts: list[sp.Matrix], meaning: dict[sp.Symbol, sp.Expr]) -> dict[sp.Symbol, sp.Expr]:
    """The letters that some formulas use, directly or not, in the order of their making."""
    used = set().union(*(m.free_symbols for m in parts))
    for symbol in reversed(meaning):
        if symbol in used:
            used |= meaning[symbol].free_symbols
    return {s: e for s, e in meaning.items() if s in used}
