"""How gamma functions and functions with an order are read.

Quotients of gamma functions become what does not overflow: a product where the arguments differ by a whole number, and
`gamma(a) gamma(b)/gamma(a + b)` a beta function. A logarithm of a product of them is a sum where all are positive.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import sympy as sp

from minidyn.common.errors import ExpressionError
from minidyn.graph.functions import of
from minidyn.graph.nodes import Node

_HIGHEST = 100  # order of a Bessel or polygamma function, and the largest shift of a gamma function that is a product
_OF_GAMMAS = (sp.beta, sp.factorial, sp.binomial)
Factors = list[sp.Basic]


def _order(name: str, n: Node, low: int, high: int) -> int:
    """A whole number that the expression gives; raises ExpressionError for others."""
    if not (n.is_const and float(n.data).is_integer() and low <= n.data <= high):
        given = f"{n.data:g}" if n.is_const else "not a number"
        raise ExpressionError(
            f"the order of {name} is {given}: it must be a whole number from {low} to {high}, fixed in the expression."
        )
    return int(n.data)


def _polygamma(n: Node, x: Node) -> Node:
    return of("polygamma", x, _order("polygamma", n, 0, _HIGHEST))


def _bessel(op: str, n: Node, x: Node) -> Node:
    """J or I; `J_(-n) = (-1)^n J_n`."""
    order = _order(op, n, -_HIGHEST, _HIGHEST)
    out = of(op, x, abs(order))
    return -out if op == "besselj" and order < 0 and order % 2 else out


def _lambertw(x: Node, k: Node | None = None) -> Node:
    return of("lambertw", x, 0 if k is None else _order("LambertW", k, -1, 0))


def _beta(a: Node, b: Node | None = None) -> Node:
    return a.graph.make("beta", (a, a if b is None else b))


def _falling(x: Node, k: Node) -> Node:
    """`x (x - 1) ... (x - k + 1)`"""
    return reduce(lambda out, j: out * (x - float(j)), range(_order("ff", k, 0, _HIGHEST)), x.graph.const(1.0))


def _rising(x: Node, k: Node) -> Node:
    """`x (x + 1) ... (x + k - 1)`"""
    return reduce(lambda out, j: out * (x + float(j)), range(_order("rf", k, 0, _HIGHEST)), x.graph.const(1.0))


def _binomial(n: Node, k: Node) -> Node:
    """A polynomial for a whole k that is known now."""
    if k.is_const and float(k.data).is_integer() and 0 <= k.data <= _HIGHEST:
        return _falling(n, k) / float(math.factorial(int(k.data)))
    return n.graph.make("binomial", (n, k))


READINGS: dict[Any, Callable[..., Node]] = {
    sp.gamma: lambda x: of("gamma", x), sp.factorial: lambda x: of("gamma", x + 1.0),
    sp.loggamma: lambda x: of("loggamma", x),
    sp.digamma: lambda x: of("polygamma", x, 0), sp.trigamma: lambda x: of("polygamma", x, 1), sp.polygamma: _polygamma,
    sp.beta: _beta, sp.binomial: _binomial, sp.RisingFactorial: _rising, sp.FallingFactorial: _falling,
    sp.erfinv: lambda x: of("erfinv", x), sp.erfcinv: lambda x: of("erfcinv", x), sp.LambertW: _lambertw,
    sp.besselj: lambda n, x: _bessel("besselj", n, x), sp.besseli: lambda n, x: _bessel("besseli", n, x),
}  # fmt: skip


def _gammas(factors: Factors) -> tuple[list[sp.Basic], list[sp.Basic], Factors]:
    """Arguments of the gamma functions above and below the line, each as often as it stands there, and the rest."""
    above: list[sp.Basic] = []
    below: list[sp.Basic] = []
    rest: Factors = []
    for f in factors:
        base, power = f.args if isinstance(f, sp.Pow) else (f, sp.S.One)
        if isinstance(base, sp.gamma) and power.is_Integer and abs(power) <= 8:
            (above if power > 0 else below).extend([base.args[0]] * abs(int(power)))
        else:
            rest.append(f)
    return above, below, rest


def without_overflow(factors: Factors) -> Factors:
    """The factors of a product, quotients of gamma functions among them replaced as said above."""
    above, below, rest = _gammas(factors)
    if not (above and below):
        return factors
    for b in list(below):
        shifts = [(a, a - b) for a in above if (a - b).is_Integer and abs(a - b) <= _HIGHEST]
        pairs = [(p, q) for i, p in enumerate(above) for q in above[i + 1 :] if p + q == b]
        if not (shifts or pairs):
            continue
        below.remove(b)
        if shifts:
            a, k = shifts[0]
            above.remove(a)
            rest.append(sp.RisingFactorial(b, k) if k >= 0 else 1 / sp.RisingFactorial(a, -k))
        else:
            p, q = pairs[0]
            above.remove(p)
            above.remove(q)
            rest.append(sp.beta(p, q))
    return [*rest, *(sp.gamma(a) for a in above), *(1 / sp.gamma(b) for b in below)]


def logarithm(x: sp.Basic, go: Callable[[sp.Basic], Node]) -> Node | None:
    """`log(x)` of a product with gamma functions: their logarithms one by one where all of them have positive
    arguments. None for others."""
    written = [f.rewrite(sp.gamma) if isinstance(f, _OF_GAMMAS) else f for f in sp.Mul.make_args(x)]
    above, below, rest = _gammas([f for part in written for f in sp.Mul.make_args(part)])
    if not (above or below):
        return None
    if not rest and len(above) == 1 and not below:
        return of("log_of_gamma", go(above[0]))
    g, remaining = go(sp.S.One).graph, sp.Mul(*rest)
    out = g.const(0.0) if remaining is sp.S.One else of("log", go(remaining))
    for args, add in ((above, g.add), (below, g.sub)):
        for a in args:
            out = add(out, of("loggamma", go(a)))
    positive = reduce(
        lambda one, two: g.binary("and", one, two), [g.binary("gt", go(a), g.const(0.0)) for a in above + below]
    )
    return g.select(positive, out, of("log", go(x)))
