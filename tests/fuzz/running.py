"""Expressions in fifty digits and more, with a bound of what rounding does to them: their conditioning.

A `Jet` holds the Taylor coefficients `c_k = f^(k)/k!` along a line, and beside each how far doubles may be from it that
follow the expression operation by operation, every function within the ulps of its row (first order in them). What no
double can tell is an exception: a branch, an edge or a jump within that distance, and what overflows on the way.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import mpmath
import sympy as sp
from mpmath import mp, mpf

UNIT = 2.0**-53
_LARGEST = mpf(10) ** 140  # squares of it and of its inverse are doubles
_ELEMENTARY, _SPECIAL = 4.0, 100.0  # ulps
_NEAR = 10**20  # steps of differences, relative


class Undefined(Exception):
    """The value is no real number."""


class Unclear(Exception):
    """Rounding decides: whether it is real, on which side of a jump it lies, or whether it is a double at all."""


def digits(order: int) -> int:
    """How many digits the differences of the functions need, for jets of an order."""
    return 50 + 20 * (order + 1)


class Jet:
    """Coefficients `c` up to an order, and their bounds `e`."""

    __slots__ = ("c", "e")

    def __init__(self, c: list[Any], e: list[float]):
        if c[0] and not 1 / _LARGEST < abs(c[0]) < _LARGEST:
            raise Unclear
        self.c, self.e = c, e

    def __add__(self, other: Jet) -> Jet:
        c = [a + b for a, b in zip(self.c, other.c, strict=True)]
        sizes = (UNIT * float(abs(a) + abs(b)) for a, b in zip(self.c, other.c, strict=True))
        return Jet(c, [a + b + s for a, b, s in zip(self.e, other.e, sizes, strict=True)])

    def __mul__(self, other: Jet) -> Jet:
        c, e = [], []
        sizes, others = ([float(abs(a)) for a in one.c] for one in (self, other))
        for k in range(len(self.c)):
            c.append(mp.fsum(self.c[i] * other.c[k - i] for i in range(k + 1)))
            e.append(
                sum(
                    sizes[i] * other.e[k - i] + self.e[i] * (others[k - i] + other.e[k - i])
                    + (k + 2) * UNIT * sizes[i] * others[k - i]
                    for i in range(k + 1)
                )
            )  # fmt: skip
        return Jet(c, e)

    def scaled(self, by: Any) -> Jet:
        """A multiple by a number."""
        return self * number(by, len(self.c))

    @property
    def exact(self) -> bool:
        """Whether it is what doubles have, too."""
        return not self.e[0]


def number(value: Any, length: int) -> Jet:
    """A number; one that is no double is off by half a unit."""
    value = mpf(value)
    off = 0.0 if mpf(float(value)) == value else UNIT * float(abs(value))
    return Jet([value] + [mpf(0)] * (length - 1), [off] + [0.0] * (length - 1))


def composed(u: Jet, g: list[Any], ulps: float, loose: bool = False) -> Jet:
    """`g(u)` from the Taylor coefficients of g at u_0, one more than those of u; `loose` functions are accurate as if
    their arguments were off by an ulp, too."""
    length = len(u.c)
    out = Jet([mpf(0)] * length, [0.0] * length)
    d = Jet([mpf(0), *u.c[1:]], [0.0, *u.e[1:]])
    power: Jet | None = None
    for i in range(length):
        moved = u.e[0] + (ulps * UNIT * float(abs(u.c[0])) if loose else 0.0)
        off = ulps * UNIT * float(abs(g[i])) + (i + 1) * float(abs(g[i + 1])) * moved
        factor = [g[i]] + [mpf(0)] * (length - 1), [off] + [0.0] * (length - 1)
        part = object.__new__(Jet)
        part.c, part.e = factor
        power = part if power is None else power
        out = out + (part if i == 0 else power * part)
        power = d if i == 0 else power * d
    return out


# -- functions of one number ----------------------------------------------------------------------


def _real(value: Any) -> Any:
    """A real number; Undefined for others."""
    if isinstance(value, mpmath.mpc):
        if value.imag:
            raise Undefined
        value = value.real
    if not mp.isfinite(value):
        raise Unclear
    return mpf(value)


def _defined(f: Callable[[Any], Any], at: Any) -> bool:
    try:
        _real(f(at))
    except Undefined:
        return False
    except (ZeroDivisionError, ValueError):
        pass
    return True


def through(
    f: Callable[[Any], Any], u: Jet, ulps: float, loose: bool = False, edged: bool = False, flat: bool = False
) -> Jet:
    """A function of a jet, its derivatives by differences; an `edged` one is not real everywhere, and one that seems
    to be `flat` is asked again with more digits."""
    at, off = u.c[0], u.e[0]
    if edged:
        ways = {_defined(f, at + s * 2 * mpf(off)) for s in (-1, 0, 1)}
        if len(ways) == 2:
            raise Unclear
    h = (abs(at) or mpf(1)) / _NEAR
    value = _real(f(at))
    try:
        g = [_real(f(at + k * h)) for k in ((-1, 1) if len(u.c) == 2 else (-2, -1, 1, 2))]
    except Undefined:
        raise Unclear from None
    if not flat and abs(g[-1] - g[0]) < abs(value) / _NEAR**2:
        with mp.extradps(600):
            return through(f, u, ulps, loose, flat=True)
    if len(u.c) == 2:
        slopes = [(g[1] - g[0]) / (2 * h), (g[1] - 2 * value + g[0]) / (2 * h**2)]
    else:
        slopes = [
            (8 * (g[2] - g[1]) - (g[3] - g[0])) / (12 * h),
            (16 * (g[2] + g[1]) - (g[3] + g[0]) - 30 * value) / (24 * h**2),
            (g[3] - 2 * g[2] + 2 * g[1] - g[0]) / (12 * h**3),
            (g[3] - 4 * g[2] + 6 * value - 4 * g[1] + g[0]) / (24 * h**4),
        ]
    return composed(u, [value, *slopes], ulps, loose)


def powered(u: Jet, p: Any) -> Jet:
    """`u^p` for a rational number p."""
    p, at = sp.Rational(p), u.c[0]
    if not p.is_Integer and abs(at) <= u.e[0]:
        raise Unclear
    if not p.is_Integer and at < 0:
        raise Undefined
    if not p.is_positive and abs(at) <= 4 * u.e[0]:
        raise Unclear
    q, g, factor = mpf(p.p) / p.q, [], mpf(1)
    for i in range(len(u.c) + 1):
        g.append(factor * at ** (q - i if not p.is_Integer else int(p) - i) if factor else mpf(0))
        factor = factor * (q - i) / (i + 1)
    return composed(u, g, _ELEMENTARY)


def flat(f: Callable[[Any], Any], u: Jet) -> Jet:
    """A step function: flat between its jumps, unclear where rounding may cross one."""
    at, off = u.c[0], mpf(u.e[0])
    value = mpf(f(at))
    if off and len({value, mpf(f(at - 2 * off)), mpf(f(at + 2 * off))}) > 1:
        raise Unclear
    return number(value, len(u.c))


def _sign(v: Any) -> Any:
    return mpf((v > 0) - (v < 0))


def _quotient(a: Jet, b: Jet) -> Jet:
    return a * powered(b, -1)


def _remainder(a: Jet, b: Jet, f: Callable[[Any], Any]) -> Jet:
    return a + (b * flat(f, _quotient(a, b))).scaled(-1)


def larger(a: Jet, b: Jet) -> bool:
    """Whether a > b."""
    off = a.e[0] + b.e[0]
    if abs(a.c[0] - b.c[0]) <= 2 * off:
        raise Unclear
    return bool(a.c[0] > b.c[0])


def _extreme(a: Jet, b: Jet, largest: bool) -> Jet:
    if a.c[0] == b.c[0]:
        raise Unclear
    return a if larger(a, b) == largest else b


def _absolute(u: Jet) -> Jet:
    if abs(u.c[0]) <= 2 * u.e[0] or not u.c[0]:
        raise Unclear
    return u if u.c[0] > 0 else u.scaled(-1)


def _angle(y: Jet, x: Jet) -> Jet:
    """atan2"""
    if abs(y.c[0]) > abs(x.c[0]):
        turned = through(mp.atan, _quotient(x, y), _ELEMENTARY).scaled(-1)
    elif x.c[0] < 0 and abs(y.c[0]) <= 2 * y.e[0]:
        raise Unclear
    else:
        turned = through(mp.atan, _quotient(y, x), _ELEMENTARY)
    return turned + number(mp.atan2(y.c[0], x.c[0]) - turned.c[0], len(x.c))


def _beta(a: Jet, b: Jet | None = None) -> Jet:
    b = a if b is None else b
    gamma = functools.partial(through, mp.gamma, ulps=_SPECIAL, loose=True)
    return gamma(a) * gamma(b) * through(mp.rgamma, a + b, _SPECIAL, loose=True)


def _binomial(n: Jet, k: Jet) -> Jet:
    whole = k.c[0]
    if k.exact and not any(k.c[1:]) and whole == int(whole):
        return through(lambda v: mp.ff(v, int(whole)) / mp.factorial(int(whole)), n, _SPECIAL, loose=True)
    one = number(1, len(n.c))
    under = functools.partial(through, mp.rgamma, ulps=_SPECIAL, loose=True)
    return through(mp.gamma, n + one, _SPECIAL, loose=True) * under(k + one) * under(n + one + k.scaled(-1))


def _step(u: Jet, at: Jet) -> Jet:
    return at if u.exact and not u.c[0] else flat(lambda v: (_sign(v) + 1) / 2, u)


def _inverse_of(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda v: f(1 / v)


def _acot(u: Jet) -> Jet:
    if abs(u.c[0]) <= 2 * u.e[0]:
        raise Unclear
    return through(_inverse_of(mp.atan), u, _ELEMENTARY)


def _sinc(u: Jet) -> Jet:
    return through(lambda v: mp.sin(v) / v if v else mpf(1), u, _ELEMENTARY, loose=abs(u.c[0]) > 0.5)


def _with_order(f: Callable[[int, Any], Any]) -> Callable[..., Jet]:
    return lambda n, u: through(lambda v: f(int(n.c[0]), v), u, _SPECIAL, loose=True)


def _polynomial(f: Callable[[Any, int], Any]) -> Callable[..., Jet]:
    return lambda u, n: through(lambda v: f(v, int(n.c[0])), u, _SPECIAL, loose=True)


def _lambertw(u: Jet, k: Jet | None = None) -> Jet:
    branch = 0 if k is None else int(k.c[0])
    if branch and u.c[0] >= 0:
        raise Unclear if u.c[0] <= u.e[0] else Undefined
    return through(lambda v: mp.lambertw(v, branch), u, _SPECIAL, loose=True, edged=True)


def _of_logarithm(base: int) -> Callable[[Jet], Jet]:
    return lambda u: through(lambda v: mp.log(v) / mp.log(base), u, _ELEMENTARY, edged=True)


def _loggamma(u: Jet) -> Jet:
    if u.c[0] <= 0:
        raise Unclear if abs(u.c[0]) <= u.e[0] else Undefined
    return through(mp.loggamma, u, _SPECIAL, loose=True)


_EDGED = "log asin acos acosh atanh asec acsc acoth asech log1p".split()
_SMOOTH = "exp sin cos tan sec csc cot sinh cosh tanh sech csch coth atan asinh acsch erf erfc expm1".split()
_OF_ONE: dict[str, Callable[[Any], Any]] = {
    "gamma": mp.gamma, "digamma": mp.digamma, "trigamma": lambda v: mp.psi(1, v),
    "factorial": lambda v: mp.gamma(v + 1),
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Jet]] = {
    **{n: functools.partial(through, getattr(mp, n), ulps=_ELEMENTARY, edged=True) for n in _EDGED},
    **{n: functools.partial(through, getattr(mp, n), ulps=_ELEMENTARY) for n in _SMOOTH},
    **{n: functools.partial(through, f, ulps=_SPECIAL, loose=True) for n, f in _OF_ONE.items()},
    **{n: functools.partial(flat, f) for n, f in {"sign": _sign, "floor": mp.floor, "ceiling": mp.ceil}.items()},
    "Abs": _absolute, "re": lambda u: u, "conjugate": lambda u: u, "im": lambda u: number(0, len(u.c)),
    "UnevaluatedExpr": lambda u: u, "arg": lambda u: flat(lambda v: mpf(0) if v >= 0 else mp.pi, u),
    "frac": lambda u: u + flat(mp.floor, u).scaled(-1), "sinc": _sinc, "acot": _acot, "loggamma": _loggamma,
    "Mod": functools.partial(_remainder, f=mp.floor),
    "Rem": functools.partial(_remainder, f=lambda v: _sign(v) * mp.floor(abs(v))),
    "KroneckerDelta": lambda a, b: flat(lambda v: mpf(not v), a + b.scaled(-1)),
    "atan2": _angle, "hypot": lambda a, b: powered(a * a + b * b, sp.S.Half), "fma": lambda a, b, c: a * b + c,
    "Sqrt": lambda u: powered(u, sp.S.Half), "exp2": functools.partial(through, lambda v: 2**v, ulps=_ELEMENTARY),
    "Cbrt": lambda u: powered(u, sp.Rational(1, 3)) if u.c[0] > 0 else powered(u.scaled(-1), "1/3").scaled(-1),
    "log2": _of_logarithm(2), "log10": _of_logarithm(10), "Heaviside": _step, "LambertW": _lambertw,
    "erfinv": functools.partial(through, mp.erfinv, ulps=_SPECIAL, loose=True, edged=True),
    "erfcinv": functools.partial(through, lambda v: mp.erfinv(1 - v), ulps=_SPECIAL, loose=True, edged=True),
    "polygamma": _with_order(mp.psi), "besselj": _with_order(mp.besselj), "besseli": _with_order(mp.besseli),
    "FallingFactorial": _polynomial(mp.ff), "RisingFactorial": _polynomial(mp.rf), "beta": _beta, "binomial": _binomial,
    "Min": lambda *u: functools.reduce(functools.partial(_extreme, largest=False), u),
    "Max": lambda *u: functools.reduce(functools.partial(_extreme, largest=True), u),
}  # fmt: skip

# -- expressions ----------------------------------------------------------------------------------

_RELATIONS = {">": larger, "<": lambda a, b: larger(b, a), ">=": larger, "<=": lambda a, b: larger(b, a)}


def holds(e: sp.Basic, at: dict[Any, Jet]) -> bool:
    """Whether a condition holds; one that is decided by a part asks no more."""
    if e in (sp.true, sp.false):
        return bool(e)
    if isinstance(e, sp.Rel):
        a, b = (jet(side, at) for side in e.args)
        if a.exact and b.exact and a.c[0] == b.c[0]:
            return e.rel_op in (">=", "<=", "==")
        if e.rel_op in _RELATIONS:
            return _RELATIONS[e.rel_op](a, b)
        larger(a, b)  # clear, at least
        return e.rel_op == "!="
    if isinstance(e, sp.Not):
        return not holds(e.args[0], at)
    if isinstance(e, sp.ITE):
        return holds(e.args[1] if holds(e.args[0], at) else e.args[2], at)
    found: list[bool] = []
    failed: Exception | None = None
    for part in e.args:
        try:
            found.append(holds(part, at))
        except (Undefined, Unclear) as error:
            failed = error if not isinstance(failed, Unclear) else failed
    deciding = isinstance(e, sp.Or)
    if deciding in found:
        return deciding
    if failed is not None:
        raise failed
    return not deciding


def _powers(base: Jet, exponent: Jet) -> Jet:
    """`b^y` where the exponent moves."""
    if base.c[0] <= base.e[0]:
        whole = exponent.c[0] == mp.nint(exponent.c[0])
        raise Unclear if abs(base.c[0]) <= base.e[0] or whole else Undefined
    return through(mp.exp, exponent * through(mp.log, base, _ELEMENTARY), _ELEMENTARY)


def _table(e: sp.Basic, at: dict[Any, Jet]) -> list[list[Jet]]:
    """The entries of a matrix; Unclear where one is not real, since none may ask for it."""
    if isinstance(e, sp.MatrixBase):
        try:
            return [[jet(e[i, k], at) for k in range(e.cols)] for i in range(e.rows)]
        except Undefined:
            raise Unclear from None
    parts = [_table(a, at) for a in e.args if getattr(a, "is_Matrix", False)]
    if isinstance(e, sp.MatMul):
        return functools.reduce(_times, parts)
    if isinstance(e, sp.Transpose):
        return [list(row) for row in zip(*parts[0], strict=True)]
    if isinstance(e, sp.Inverse):
        return _inverse(parts[0])
    act = {sp.MatAdd: operator.add, sp.HadamardProduct: operator.mul}[type(e)]
    return functools.reduce(lambda a, b: [list(map(act, *rows)) for rows in zip(a, b, strict=True)], parts)


def _times(a: list[list[Jet]], b: list[list[Jet]]) -> list[list[Jet]]:
    columns = list(zip(*b, strict=True))
    return [[functools.reduce(operator.add, map(operator.mul, row, column)) for column in columns] for row in a]


def _determinant(m: list[list[Jet]]) -> Jet:
    if len(m) == 1:
        return m[0][0]
    parts = (m[0][k] * _determinant(_without(m, 0, k)).scaled((-1) ** k) for k in range(len(m)))
    return functools.reduce(operator.add, parts)


def _without(m: list[list[Jet]], row: int, column: int) -> list[list[Jet]]:
    return [[v for k, v in enumerate(line) if k != column] for i, line in enumerate(m) if i != row]


def _inverse(m: list[list[Jet]]) -> list[list[Jet]]:
    """By cofactors, with the bounds of an elimination: those hold for the largest entry, not for each."""
    under, n = powered(_determinant(m), -1), range(len(m))
    out = [[under * _determinant(_without(m, k, i)).scaled((-1) ** (i + k)) for k in n] for i in n]
    order = range(len(under.c))
    sizes, inverse = ([sum(float(abs(v.c[k])) for row in t for v in row) for k in order] for t in (m, out))
    bounds = [inverse[0]]
    for k in order[1:]:
        bounds.append(inverse[0] * sum(sizes[i] * bounds[k - i] for i in range(1, k + 1)))
    for row in out:
        for v in row:
            v.e = [e + 8 * UNIT * sizes[0] * inverse[0] * (k + 1) * bounds[k] for k, e in enumerate(v.e)]
    return out


def jet(e: sp.Basic, at: dict[Any, Jet]) -> Jet:
    """An expression along the line on which `at` has the symbols; an order of differences is theirs."""
    if e in at:
        return at[e]
    length = len(next(iter(at.values())).c)
    if e.is_Number or e.is_NumberSymbol:
        return number(mpf(e.p) / e.q if e.is_Rational else mpmath.mpmathify(e.evalf(mp.dps)), length)
    if isinstance(e, sp.Piecewise):
        return jet(next(f for f, met in e.args if holds(met, at)), at)
    if isinstance(e, (sp.Sum, sp.Product)):
        ((letter, low, high),) = e.limits
        turns = [jet(e.function, at | {letter: number(i, length)}) for i in range(int(low), int(high) + 1)]
        return functools.reduce(operator.add if isinstance(e, sp.Sum) else operator.mul, turns)
    if isinstance(e, (sp.Trace, sp.Determinant)):
        table = _table(e.args[0], at)
        diagonal = (table[i][i] for i in range(len(table)))
        return functools.reduce(operator.add, diagonal) if isinstance(e, sp.Trace) else _determinant(table)
    if isinstance(e, sp.matrices.expressions.matexpr.MatrixElement):
        return _table(e.args[0], at)[int(e.args[1])][int(e.args[2])]
    if isinstance(e, sp.Pow) and e.exp.is_Rational:
        return powered(jet(e.base, at), e.exp)
    try:
        args = [jet(a, at) for a in e.args]
    except Undefined:
        if isinstance(e, sp.Mul):  # a factor that is zero because of a branch makes the product zero
            raise Unclear from None
        raise
    if isinstance(e, (sp.Add, sp.Mul)):
        return functools.reduce(operator.add if isinstance(e, sp.Add) else operator.mul, args)
    return _powers(*args) if isinstance(e, sp.Pow) else FUNCTIONS[type(e).__name__](*args)
