"""The functions of one number, or of two, that a graph may hold: who asks about a function reads its row here.

A new function is a row, a kernel of the same name in the module of `minidyn.kernels` that the row names, and in
`reading` the class of sympy that means it. `Node.data` holds its orders, where it has some: whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidyn.graph.nodes import Node

INF = math.inf


@dataclass(frozen=True)
class Function:
    """What there is to know of a function f.

    slopes : `slopes(n, *args)` are the derivatives of the node n = f(*args), None where one is zero
    home : the module of `minidyn.kernels` that has its kernel, "" where every generated module imports it
    domain : the interval of its first argument in which it is real; beyond, its value is NaN
    tame : whether it is finite at all arguments of ordinary size
    zero : whether f(0) = 0
    ulps : how far its kernel may be from the exact value, in units in the last place
    """

    slopes: Callable[..., tuple[Node | float | None, ...]]
    home: str = ""
    domain: tuple[float, float] = (-INF, INF)
    tame: bool = True
    zero: bool = False
    ulps: float = 2.0


def of(op: str, x: Any, *orders: int) -> Any:
    """The function `op` of a node, as a node."""
    return x.graph.unary(op, x, *orders)


def _flat(n: Node, *x: Node) -> tuple[None, ...]:
    """Zero between the jumps."""
    return (None,) * len(x)


def _above_zero(x: Node, slope: Node) -> Node:
    """A slope where x >= 0; below, where the function is no number, neither is its slope."""
    return x.graph.select(x.graph.binary("ge", x, x.graph.const(0.0)), slope, of("undefined", x))


def _reciprocal(x: Node) -> Node:
    """The slope of a logarithm."""
    return _above_zero(x, 1.0 / x)


def _inverse_length(n: Node, y: Node, x: Node) -> tuple[Node, Node]:
    square = x * x + y * y
    return x / square, -(y / square)


def _next(n: Node, x: Node) -> tuple[Node]:
    """What a function with an order becomes whose derivative has the next one."""
    return (of(n.op, x, n.data[0] + 1),)


def _gap(a: Node, b: Node) -> Node:
    """`psi(a + b) - psi(a)`"""
    return a.graph.make("polygamma_gap", (a, b), (0,))


def _beta_slopes(n: Node, a: Node, b: Node) -> tuple[Node, Node]:
    return -n * _gap(a, b), -n * _gap(b, a)


def _binomial_slopes(c: Node, n: Node, k: Node) -> tuple[Node, Node]:
    """`psi(n + 1) - psi(n - k + 1)` and `psi(n - k + 1) - psi(k + 1)` times the function; NaN at poles of
    psi, where the function is zero."""
    g, a, b = c.graph, n - k + 1.0, k + 1.0
    apart = g.select(
        g.binary("eq", c, g.const(0.0)), of("polygamma", a, 0) - of("polygamma", b, 0), _gap(b, n - 2.0 * k)
    )
    return c * _gap(a, k), c * apart


def _gap_slopes(n: Node, a: Node, b: Node) -> tuple[Node, Node]:
    order = n.data[0] + 1
    return n.graph.make("polygamma_gap", (a, b), (order,)), of("polygamma", a + b, order)


def _bessel_slope(n: Node, x: Node) -> tuple[Node]:
    """`2 J_n' = J_(n - 1) - J_(n + 1)`, `2 I_n' = I_(n - 1) + I_(n + 1)`, with `J_(-1) = -J_1` and `I_(-1) = I_1`."""
    order, above = n.data[0], of(n.op, x, n.data[0] + 1)
    above = -above if n.op == "besselj" else above
    return (above,) if order == 0 else (0.5 * (of(n.op, x, order - 1) + above),)


def _lambert_slope(n: Node, x: Node) -> tuple[Node]:
    return (of("lambertw_slope", x, *n.data),)


def _lambert_curvature(n: Node, x: Node) -> tuple[Node]:
    """`W'' = -W'^2 (1 + 1/(1 + W))`"""
    return (-(n * n) * (1.0 + 1.0 / of("lambertw_plus", x, *n.data)),)


def _row(slope: Callable[[Any, Any], Any], **about: Any) -> Function:
    """A function of one number, by its derivative `slope(f(x), x)`."""
    return Function(lambda n, x: (slope(n, x),), **about)


_WITH_POLE: dict[str, Any] = {"tame": False, "home": "vectormath"}


def _special(home: str) -> dict[str, Any]:
    """A special function's row; beside its zeros, ulps are those of what it is around them."""
    return {"tame": False, "home": f"vectormath.{home}", "ulps": 20.0}


_GAMMA, _BETA, _QUANTILE, _LAMBERT, _BESSEL = map(_special, "gamma beta quantiles lambert bessel".split())
FUNCTIONS: dict[str, Function] = {
    "exp": _row(lambda n, x: n, tame=False),
    "expm1": _row(lambda n, x: of("exp", x), tame=False, zero=True),
    "log": _row(lambda n, x: _reciprocal(x), tame=False, domain=(0.0, INF)),
    "log1p": _row(lambda n, x: _reciprocal(1.0 + x), tame=False, zero=True, domain=(-1.0, INF)),
    "sqrt": _row(lambda n, x: 0.5 / n, tame=False, zero=True, domain=(0.0, INF)),
    "cbrt": _row(lambda n, x: 1.0 / (3.0 * (n * n)), tame=False, zero=True, home="vectormath"),
    "sin": _row(lambda n, x: of("cos", x), zero=True),
    "cos": _row(lambda n, x: -of("sin", x)),
    "tan": _row(lambda n, x: 1.0 + n * n, tame=False, zero=True),
    "asin": _row(lambda n, x: of("asin_slope", x), tame=False, zero=True, domain=(-1.0, 1.0)),
    "acos": _row(lambda n, x: -of("asin_slope", x), tame=False, domain=(-1.0, 1.0)),
    "asin_slope": _row(lambda n, x: x * n**3, tame=False, domain=(-1.0, 1.0)),
    "atan": _row(lambda n, x: 1.0 / (1.0 + x * x), zero=True),
    "acot": _row(lambda n, x: -(1.0 / (1.0 + x * x)), home="vectormath"),
    "asec": _row(lambda n, x: of("acosh_slope", of("abs", x)) / of("abs", x), **_WITH_POLE),
    "acsc": _row(lambda n, x: -(of("acosh_slope", of("abs", x)) / of("abs", x)), **_WITH_POLE),
    "atan2": Function(_inverse_length, home="vectormath", tame=False, zero=True),
    "sinh": _row(lambda n, x: of("cosh", x), tame=False, zero=True),
    "cosh": _row(lambda n, x: of("sinh", x), tame=False),
    "tanh": _row(lambda n, x: of("tanh_slope", x), zero=True),
    "tanh_slope": _row(lambda n, x: -2.0 * (n * of("tanh", x)), ulps=2.5),
    "csch": _row(lambda n, x: -(n / of("tanh", x)), tame=False),
    "asinh": _row(lambda n, x: of("asinh_slope", x), home="vectormath", zero=True),
    "asinh_slope": _row(lambda n, x: -(x * n**3), home="vectormath"),
    "acosh": _row(lambda n, x: of("acosh_slope", x), domain=(1.0, INF), **_WITH_POLE),
    "acosh_slope": _row(lambda n, x: -(x * n**3), domain=(1.0, INF), **_WITH_POLE),
    "atanh": _row(lambda n, x: of("atanh_slope", x), domain=(-1.0, 1.0), zero=True, **_WITH_POLE),
    "atanh_slope": _row(lambda n, x: 2.0 * (x * (n * n)), domain=(-1.0, 1.0), **_WITH_POLE),
    "asech": _row(lambda n, x: -_above_zero(x, of("asin_slope", x) / x), domain=(0.0, 1.0), **_WITH_POLE),
    "acsch": _row(lambda n, x: -(of("asinh_slope", x) / of("abs", x)), **_WITH_POLE),
    "acoth": _row(lambda n, x: of("acoth_slope", x), **_WITH_POLE),
    "acoth_slope": _row(lambda n, x: 2.0 * (x * (n * n)), **_WITH_POLE),
    "erf": _row(lambda n, x: of("erf_slope", x), zero=True),
    "erfc": _row(lambda n, x: -of("erf_slope", x), ulps=3.5),
    "erf_slope": _row(lambda n, x: -2.0 * (x * n), home="vectormath"),
    "signed_pow": Function(  # sign(x) |x|^y for a number y
        lambda n, x, y: (y * x.graph.pow(of("abs", x), y - 1.0), None), home="functions", tame=False, zero=True
    ),
    "undefined": _row(lambda n, x: n, home="functions", tame=False),
    "abs": _row(lambda n, x: of("sign", x), zero=True),
    "sign": Function(_flat, zero=True),
    "floor": Function(_flat),
    "ceil": Function(_flat),
    "heaviside": Function(_flat),
    "not": Function(_flat),
    "logistic": _row(lambda n, x: of("logistic_slope", x)),
    "logistic_slope": _row(lambda n, x: -n * of("tanh", 0.5 * x)),
    "softplus": _row(lambda n, x: of("logistic", x)),
    "logaddexp": Function(lambda n, x, y: (of("logistic", x - y), of("logistic", y - x))),
    "logcosh": _row(lambda n, x: of("tanh", x)),
    "bose": _row(lambda n, x: -0.25 * of("csch", 0.5 * x) ** 2, tame=False),
    "gamma": _row(lambda n, x: n * of("polygamma", x, 0), **_GAMMA),
    "loggamma": _row(lambda n, x: _above_zero(x, of("polygamma", x, 0)), **_GAMMA, domain=(0.0, INF)),
    "log_of_gamma": _row(lambda n, x: _above_zero(of("gamma", x), of("polygamma", x, 0)), **_GAMMA),
    "polygamma": Function(_next, **_GAMMA),
    "beta": Function(_beta_slopes, **_BETA),
    "binomial": Function(_binomial_slopes, **_BETA),
    "polygamma_gap": Function(_gap_slopes, **_BETA),
    "erfinv": _row(lambda n, x: of("erfinv_slope", x), domain=(-1.0, 1.0), zero=True, **_QUANTILE),
    "erfinv_slope": _row(lambda n, x: 2.0 * (of("erfinv", x) * (n * n)), domain=(-1.0, 1.0), **_QUANTILE),
    "erfcinv": _row(lambda n, x: of("erfcinv_slope", x), domain=(0.0, 2.0), **_QUANTILE),
    "erfcinv_slope": _row(lambda n, x: 2.0 * (of("erfcinv", x) * (n * n)), domain=(0.0, 2.0), **_QUANTILE),
    "lambertw": Function(_lambert_slope, **_LAMBERT),
    "lambertw_plus": Function(_lambert_slope, **_LAMBERT),
    "lambertw_slope": Function(_lambert_curvature, **_LAMBERT),
    "besselj": Function(_bessel_slope, **_BESSEL | {"tame": True}),
    "besseli": Function(_bessel_slope, **_BESSEL),
}
