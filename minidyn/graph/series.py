"""Power series of sums in which terms cancel at 0: `x - sin(x)`, `exp(x) - 1 - x`, `sin(x) - x cos(x)`, ...

Coefficients are exact, so that what cancels is known and not guessed from numbers.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import sympy as sp

from minidyn.graph import walk

_TERMS = 90
_MOST_PARTS = 10
_LARGEST = 200  # parts of a sum, written out as a tree, as which sympy would walk through it
T = sp.Dummy("t")


@dataclass(frozen=True)
class Series:
    """`sum_k coefficients[k] t^k` for |t| below the radius; `order` is that of the first, `lowest` the least order
    among the terms that were added."""

    coefficients: tuple[Fraction, ...]
    radius: float
    lowest: int

    @property
    def order(self) -> int:
        """How many coefficients are zero before the first that is not."""
        return next((k for k, c in enumerate(self.coefficients) if c), _TERMS)


def over(top: list[Fraction], bottom: list[Fraction]) -> list[Fraction]:
    """The quotient of two series."""
    out: list[Fraction] = []
    for k, t in enumerate(top):
        out.append((t - sum((out[j] * bottom[k - j] for j in range(k)), Fraction(0))) / bottom[0])
    return out


def _times(a: Iterable[Fraction], b: Iterable[Fraction]) -> list[Fraction]:
    one, other = ([(k, c) for k, c in enumerate(s) if c] for s in (a, b))
    out = [Fraction(0)] * _TERMS
    for k, c in one:
        for m, d in other:
            if k + m < _TERMS:
                out[k + m] += c * d
    return out


def _spread(of: Callable[[int], Fraction], first: int, step: int) -> list[Fraction]:
    """Coefficients `of(0), of(1), ...` at first, first + step, ..."""
    out = [Fraction(0)] * _TERMS
    for n, k in enumerate(range(first, _TERMS, step)):
        out[k] = of(n)
    return out


@cache
def _function(name: str) -> tuple[list[Fraction], float]:
    """The series of a function, and where it ends; of entire ones 2, where 1/k! still falls fast."""
    whole = math.factorial

    def sign(n: int) -> Fraction:
        return Fraction((-1) ** n)

    def half(n: int) -> Fraction:
        return Fraction(whole(2 * n), 4**n * whole(n) ** 2 * (2 * n + 1))

    exp = [Fraction(1, whole(k)) for k in range(_TERMS)]
    sinh, cosh = ([c if k % 2 == odd else Fraction(0) for k, c in enumerate(exp)] for odd in (1, 0))
    sin, cos = ([c * (-1) ** (k // 2) for k, c in enumerate(s)] for s in (sinh, cosh))
    if name in ("tan", "tanh"):
        return over(sin, cos) if name == "tan" else over(sinh, cosh), 0.75
    return {
        "exp": (exp, 2.0),
        "sin": (sin, 2.0),
        "cos": (cos, 2.0),
        "sinh": (sinh, 2.0),
        "cosh": (cosh, 2.0),
        "asin": (_spread(half, 1, 2), 0.5),
        "asinh": (_spread(lambda n: sign(n) * half(n), 1, 2), 0.5),
        "atan": (_spread(lambda n: sign(n) / (2 * n + 1), 1, 2), 0.5),
        "atanh": (_spread(lambda n: Fraction(1, 2 * n + 1), 1, 2), 0.5),
        "log": (_spread(lambda n: sign(n) / (n + 1), 1, 1), 0.5),
    }[name]


_KNOWN = (sp.exp, sp.sin, sp.cos, sp.sinh, sp.cosh, sp.tan, sp.tanh, sp.asin, sp.asinh, sp.atan, sp.atanh, sp.log)


def _inner(f: sp.Expr) -> sp.Expr:
    """What a function's series is in: of log(1 + u) it is u."""
    return f.args[0] - 1 if isinstance(f, sp.log) else f.args[0]


def _base(f: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """(b, n) of a power b^n; an exponential is none."""
    return (f.base, f.exp) if isinstance(f, sp.Pow) else (f, sp.S.One)


def _exact(c: sp.Expr) -> Fraction | None:
    return Fraction(int(c.p), int(c.q)) if c.is_Rational else Fraction(float(c)) if c.is_Float else None


def _of(e: sp.Expr) -> tuple[list[Fraction], float] | None:
    """The series of an expression in T alone, None where it is not known."""
    c, rest = e.as_coeff_Mul()
    if (factor := _exact(c)) is None:
        return None
    out, radius = [factor] + [Fraction(0)] * (_TERMS - 1), math.inf
    for f in sp.Mul.make_args(rest):
        base, power = _base(f)
        if f == 1:
            continue
        if not power.is_Integer or not 0 < power < 8:
            return None
        if base == T:
            part = _spread(lambda n: Fraction(n == 0), 1, _TERMS)
        elif isinstance(base, _KNOWN) and len(base.args) == 1:
            scale, inner = _inner(base).as_coeff_Mul()
            u, n = _base(inner)
            if u != T or not n.is_Integer or n < 1 or (by := _exact(scale)) is None:
                return None
            coefficients, end = _function(type(base).__name__)
            part = _spread(lambda k: coefficients[k] * by**k, 0, int(n))  # noqa: B023
            radius = min(radius, float((end / abs(by)) ** (1 / int(n))))
        else:
            return None
        for _ in range(int(power)):
            out = _times(out, part)
    return out, radius


@cache
def expansion(e: sp.Expr) -> Series | None:
    """The series of a sum in T alone that is 0 at 0, None for others."""
    total, radius, lowest = [Fraction(0)] * _TERMS, math.inf, _TERMS
    for term in e.args:
        found = _of(term)
        if found is None:
            return None
        total = [a + b for a, b in zip(total, found[0], strict=True)]
        lowest = min(lowest, next((k for k, c in enumerate(found[0]) if c), _TERMS))
        radius = min(radius, found[1])
    return Series(tuple(total), radius, lowest) if not total[0] and any(total) and radius < math.inf else None


def recognized(e: sp.Expr) -> tuple[Series, sp.Expr] | None:
    """(series, t): the sum as a series in t, which its functions are of; None where it is none."""
    if len(e.args) > _MOST_PARTS or not walk.within(e, _LARGEST):
        return None
    bases = (_base(f)[0] for a in e.args for f in sp.Mul.make_args(a))
    first = next((f for f in bases if isinstance(f, _KNOWN) and len(f.args) == 1), None)
    if first is None:
        return None
    u = _base(_inner(first).as_coeff_Mul()[1])[0]
    if u.is_number:
        return None
    if isinstance(u, sp.Add):
        _, u = u.primitive()
        u = -u if u.could_extract_minus_sign() else u
    in_t = _substituted(e, u)
    found = None if in_t is None or not isinstance(in_t, sp.Add) else expansion(in_t)
    return None if found is None else (found, u)


def _substituted(e: sp.Expr, u: sp.Expr) -> sp.Expr | None:
    """The expression in T = u alone, None where other symbols are left."""
    letters = {a: sp.Dummy() for a in e.atoms(sp.Indexed)}
    if letters:
        e, u = e.xreplace(letters), u.xreplace(letters)
    if u.is_Symbol:
        e = e.xreplace({u: T})
    else:
        linear = [s for s in u.free_symbols if u.is_polynomial(s) and sp.degree(u, s) == 1]
        if not linear:
            return None
        s = min(linear, key=str)
        slope = u.coeff(s, 1)
        e = sp.expand_mul(e.subs(s, (T - (u - slope * s)) / slope))
    return e if e.free_symbols <= {T} else None
