"""Quotients with removable poles, `sin(u)/u`, `u/sinh(u)`, `log(1 + u)/u`, `(1 - cos(u))/u^2`, ..., read as such.

A function with a zero of order n at u = 0 is `u^n s(u)`. Near 0 the series of s stands in its place, in value and in
all derivatives, whose terms would cancel otherwise; powers of u are then counted and not divided.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import sympy as sp

from minidyn.graph.nodes import Graph, Node
from minidyn.graph.series import Series, over, recognized

_ROUNDING = 1e-19  # of the third derivative, below which terms of a series are left out
_FUNCTIONS = {
    sp.sin: ("sin", 1), sp.sinh: ("sinh", 1), sp.tan: ("tan", 1), sp.tanh: ("tanh", 1), sp.asin: ("asin", 1),
    sp.atan: ("atan", 1), sp.asinh: ("asinh", 1), sp.atanh: ("atanh", 1), sp.erf: ("erf", 1),
    sp.csch: ("sinh", -1), sp.coth: ("tanh", -1), sp.erfinv: ("erfinv", 1), sp.LambertW: ("lambertw", 1),
}  # fmt: skip
_LESS = {sp.exp: ("expm1", 1), sp.cosh: ("coshm1", 1), sp.cos: ("versine", -1)}  # what f(u) - 1 is, and its sign


@dataclass(frozen=True)
class Zero:
    """`f(u) = u^order (c_0 + c_1 u^step + ...)` for |u| below the radius."""

    order: int
    step: int
    radius: float
    coefficients: tuple[float, ...]


def _inverse_of_erf(count: int) -> list[Fraction]:
    """b_k with `erfinv(2 v/sqrt(pi)) = v (b_0 + b_1 v^2 + ...)`, from `y' = exp(y^2)` in v, so `y'' = 2 y y'^2`."""
    c = [Fraction(1)]
    for k in range(1, count):
        c.append(sum((c[m] * c[k - 1 - m] / ((m + 1) * (2 * m + 1)) for m in range(k)), Fraction(0)))
    return [b / (2 * k + 1) for k, b in enumerate(c)]


@cache
def zero(name: str) -> Zero:
    """The zero of a function at 0, with as many terms as its third derivative needs."""
    many = range(80)
    whole = math.factorial
    odd, even = ([whole(2 * k + shift) for k in many] for shift in (1, 0))
    circle = {s: tuple([Fraction(s**k, n) for k, n in enumerate(w)] for w in (odd, even)) for s in (1, -1)}
    terms, order, step, radius = {
        "sin": (lambda: circle[-1][0], 1, 2, 1.0),
        "sinh": (lambda: circle[1][0], 1, 2, 1.0),
        "tan": (lambda: over(*circle[-1]), 1, 2, 0.5),
        "tanh": (lambda: over(*circle[1]), 1, 2, 0.5),
        "versine": (lambda: [-c for c in circle[-1][1][1:]], 2, 2, 1.0),
        "coshm1": (lambda: circle[1][1][1:], 2, 2, 1.0),
        "asin": (lambda: [Fraction(whole(2 * k), 4**k * whole(k) ** 2 * (2 * k + 1)) for k in many], 1, 2, 0.5),
        "atan": (lambda: [Fraction((-1) ** k, 2 * k + 1) for k in many], 1, 2, 0.5),
        "asinh": (lambda: [Fraction(whole(2 * k), (-4) ** k * whole(k) ** 2 * (2 * k + 1)) for k in many], 1, 2, 0.5),
        "atanh": (lambda: [Fraction(1, 2 * k + 1) for k in many], 1, 2, 0.5),
        "erf": (lambda: [Fraction((-1) ** k, whole(k) * (2 * k + 1)) for k in many], 1, 2, 1.0),
        "erfinv": (lambda: _inverse_of_erf(len(many)), 1, 2, 0.5),
        "lambertw": (lambda: [Fraction((-k) ** (k - 1), whole(k)) for k in range(1, 81)], 1, 1, 0.15),
        "expm1": (lambda: [Fraction(1, whole(k + 1)) for k in many], 1, 1, 1.0),
        "log1p": (lambda: [Fraction((-1) ** k, k + 1) for k in many], 1, 1, 0.25),
    }[name]
    half = 0.5 * math.sqrt(math.pi)
    factor = {"erf": 1.0 / half, "erfinv": half}.get(name, 1.0)
    found = [factor * float(c) * (half ** (2 * k) if name == "erfinv" else 1.0) for k, c in enumerate(terms())]
    last = max(k for k, c in enumerate(found) if abs(c) * radius ** (step * k) * (1 + step * k) ** 3 > _ROUNDING)
    return Zero(order, step, radius, tuple(found[: last + 1]))


def _zero_of(s: Series) -> Zero:
    """The zero of a sum of functions."""
    step = 2 if not any(s.coefficients[s.order + 1 :: 2]) else 1
    found = [float(c) for c in s.coefficients[s.order :: step]]
    sizes = [abs(c / found[0]) * s.radius ** (step * k) * (1 + step * k) ** 3 for k, c in enumerate(found)]
    last = max(k for k, size in enumerate(sizes) if size > _ROUNDING)
    return Zero(s.order, step, s.radius, tuple(found[: last + 1]))


def _less(number: sp.Expr, other: sp.Expr) -> sp.Expr | None:
    """The function f in `c f(u) - c` that is 1 at 0, None for other sums."""
    c, f = other.as_coeff_Mul()
    return f if number.is_Number and type(f) in _LESS and c == -number else None


@dataclass(frozen=True)
class Factor:
    """`constant f(u)^power` for a function f with a zero at 0, where `u = scale rest`."""

    name: str
    scale: sp.Expr
    rest: sp.Expr
    power: int
    constant: sp.Expr
    known: Zero

    @property
    def order(self) -> int:
        """The order of the factor's zero at u = 0; that of a pole is negative."""
        return self.power * self.known.order


def factor(e: sp.Basic, power: int = 1) -> Factor | None:
    """A factor of a product as a power of a function with a zero, None if it is none."""
    if isinstance(e, sp.Pow) and e.exp.is_Integer and abs(e.exp) <= 8:
        return factor(e.base, power * int(e.exp))
    constant = sp.S.One
    if type(e) in _FUNCTIONS and len(e.args) == 1:
        name, sign = _FUNCTIONS[type(e)]
        u, power = e.args[0], power * sign
    elif isinstance(e, sp.log) and len(e.args) == 1 and isinstance(e.args[0], sp.Add) and sp.S.One in e.args[0].args:
        name, u = "log1p", e.args[0] - 1
    elif isinstance(e, sp.Add) and len(e.args) == 2 and _less(*e.args) is not None:
        constant, f = e.args[1].as_coeff_Mul()
        (name, sign), u = _LESS[type(f)], f.args[0]
        constant = (constant * sign) ** power
    elif isinstance(e, sp.Add) and (sum_ := recognized(e)) is not None:
        return Factor("", sp.S.One, sum_[1], power, sp.S.One, _zero_of(sum_[0]))
    else:
        return None
    scale, rest = u.as_coeff_Mul()
    if isinstance(rest, sp.Add):
        content, rest = rest.primitive()
        minus = rest.could_extract_minus_sign()
        scale, rest = scale * content * (-1 if minus else 1), -rest if minus else rest
    return None if rest.is_Number else Factor(name, scale, rest, power, constant, zero(name))


def met(factors: Sequence[sp.Basic]) -> tuple[list[Factor], dict[sp.Basic, int], list[sp.Basic]] | None:
    """The factors of a product in which a zero meets a pole: functions of one `rest`, the integer powers of what it is
    made of that are left once u is counted, and all the factors that this took. None if there are none."""
    if not any(
        isinstance(e, (sp.csch, sp.coth)) or (isinstance(e, sp.Pow) and e.exp.is_Integer and e.exp < 0) for e in factors
    ):
        return None  # most products: nothing is asked of large parts
    known = [(e, factor(e)) for e in factors]
    found: dict[sp.Basic, list[tuple[sp.Basic, Factor]]] = {}
    plain: dict[sp.Basic, tuple[sp.Basic, int]] = {}
    for e, f in known if any(f is not None for _, f in known) else ():
        base, exponent = e.args if isinstance(e, sp.Pow) else (e, sp.S.One)
        if f is not None:
            found.setdefault(f.rest, []).append((e, f))
        elif exponent.is_Integer:
            minus = isinstance(base, sp.Add) and base.could_extract_minus_sign()
            plain[-base if minus else base] = e, int(exponent)
    for rest, group in found.items():
        parts = rest.as_powers_dict()
        if not all(k.is_Integer and k > 0 for k in parts.values()):
            continue
        signs = [f.power for _, f in group] + [plain[b][1] for b in parts if b in plain]
        if all(f.name == "expm1" and f.power < 0 for _, f in group) or min(signs) > 0 or max(signs) < 0:
            continue
        order = sum(f.order for _, f in group)
        left = {b: int(k) * order + (plain[b][1] if b in plain else 0) for b, k in parts.items()}
        return [f for _, f in group], left, [e for e, _ in group] + [plain[b][0] for b in parts if b in plain]
    return None


def near(
    graph: Graph, group: list[Factor], left: dict[sp.Basic, int], taken: list[sp.Basic], go: Callable[[sp.Basic], Node]
) -> tuple[Node, Node]:
    """Whether u lies where the series hold, and the product there."""
    rest, out, radius = go(group[0].rest), graph.const(1.0), math.inf
    for e in taken:  # a base that was met with the other sign: (y - x)^-1 for u = x - y
        base, exponent = e.args if isinstance(e, sp.Pow) else (e, sp.S.One)
        if exponent.is_Integer and factor(e) is None and base not in left and int(exponent) % 2:
            out = graph.neg(out)
    for f in group:
        known, scale = f.known, float(f.scale)
        series = _series(known, graph.mul(scale, rest))
        out = graph.mul(out, graph.mul(float(f.constant) * scale**f.order, graph.powi(series, f.power)))
        radius = min(radius, known.radius / abs(scale))
    for base, power in left.items():
        out = graph.mul(out, graph.powi(go(base), power))
    return graph.binary("lt", graph.unary("abs", rest), graph.const(radius)), out


def _series(known: Zero, u: Node) -> Node:
    """`f(u)/u^order` near 0."""
    z, out = (u if known.step == 1 else u * u), u.graph.const(0.0)
    for c in reversed(known.coefficients):
        out = out * z + c
    return out


def sinc(u: Node) -> Node:
    """`sin(u)/u`, 1 at 0."""
    g, known = u.graph, zero("sin")
    small = g.binary("lt", g.unary("abs", u), g.const(known.radius))
    return g.select(small, _series(known, u), g.unary("sin", u) / u)


def cancelling(graph: Graph, e: sp.Add, go: Callable[[sp.Basic], Node]) -> tuple[Node, Node] | None:
    """Whether u is near 0, and the value there, of a sum whose terms cancel at u = 0; None for other sums."""
    found = recognized(e)
    if found is None or found[0].order == found[0].lowest:
        return None
    known, u = _zero_of(found[0]), go(found[1])
    small = graph.binary("lt", graph.unary("abs", u), graph.const(known.radius))
    return small, graph.powi(u, known.order) * _series(known, u)
