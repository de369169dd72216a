"""Slow, literal readings of what minidyn compiles: of its graphs, of its kernels, and of sympy expressions.

`evaluate` walks a graph, one node one Python call, a sum a Python loop, in any arithmetic: `FLOAT` rounds
every operation to the nearest double, `BOUNDED` carries a bound of the rounding error along, `MP` has
mpmath's current precision. `literal` does the same for a sympy expression without any graph, and
`derivative` differentiates it by differences in high precision: nothing of minidyn is used there.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from mpmath import mp, mpf

from minidyn.graph import FUNCTIONS, SAMPLE, Graph, Index, Node, derivatives

# -- graphs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arithmetic:
    """A kind of number: how a double becomes one, and what each operation of a graph does to it."""

    number: Callable[[Any], Any]
    functions: dict[str, Callable[..., Any]]


def _sign(x):
    return x - x + (x > 0) - (x < 0)


@functools.cache
def _pow_derivative(m, k):
    x, y = sp.symbols("x y", positive=True)
    return sp.lambdify([x, y], sp.diff(x**y, x, m, y, k), "mpmath")


def _pow_slope(x, y, m, k):
    """A derivative of x**y; x of either sign where y stays."""
    if not k:
        return mp.ff(y, int(m)) * x ** (y - m)
    return _pow_derivative(int(m), int(k))(x, y)


def _erfcinv(c):
    """y with erfc(y) = c."""
    if c > 1:
        return -_erfcinv(2 - c)
    if c > 0.3 or c <= 0:
        return mp.erfinv(1 - c)
    level = mp.log(c)
    start = mp.sqrt(-level - mp.log(mp.sqrt(-level * mp.pi)))
    return mp.findroot(lambda y: mp.log(mp.erfc(y)) - level, start)


def _erfinv(x):
    return mp.erfinv(x) if abs(x) < 0.7 else mp.sign(x) * _erfcinv(1 - abs(x))


def _gauss_slope(y):
    return mp.sqrt(mp.pi) / 2 * mp.exp(y * y)


def _lambertw(x, k):
    return mp.lambertw(x, int(k)).real if x > -mp.exp(-1) and (k == 0 or x < 0) else mp.nan


def _lambertw_slope(x, k):
    w = _lambertw(x, k)
    return mp.exp(-w) / (1 + w)


def _gap(a, b, n):
    return mp.polygamma(int(n), a + b) - mp.polygamma(int(n), a)


_EXACT: dict[str, Callable[..., Any]] = {  # by definition, for mpmath numbers
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "neg": lambda a: -a, "pow": lambda a, b: a**b,
    "min": min, "max": max, "abs": abs, "sign": _sign, "floor": mp.floor, "ceil": mp.ceil,
    "heaviside": lambda x: (_sign(x) + 1) / 2,
    "logistic": lambda x: 1 / (1 + mp.exp(-x)), "softplus": lambda x: mp.log1p(mp.exp(x)),
    "logcosh": lambda x: mp.log1p(2 * mp.sinh(x / 2) ** 2), "tanh_slope": lambda x: mp.sech(x) ** 2,
    "logistic_slope": lambda x: mp.exp(-abs(x)) / (1 + mp.exp(-abs(x))) ** 2,
    "logaddexp": lambda a, b: max(a, b) + mp.log1p(mp.exp(-abs(a - b))), "held": lambda a: a,
    "undefined": lambda x: x * mp.nan,
    "signed_pow": lambda x, y: _sign(x) * abs(x) ** y,
    "erfc": mp.erfc, "erf_slope": lambda x: 2 * mp.exp(-x * x) / mp.sqrt(mp.pi),
    "csch": lambda x: mp.csch(x), "bose": lambda x: 1 / mp.expm1(x), "pow_slope": _pow_slope,
    "asin_slope": lambda x: 1 / mp.sqrt((1 - x) * (1 + x)), "acosh_slope": lambda x: 1 / mp.sqrt(x * x - 1),
    "asinh_slope": lambda x: 1 / mp.sqrt(x * x + 1), "atan2": mp.atan2, "cbrt": lambda x: _sign(x) * mp.cbrt(abs(x)),
    "atanh_slope": lambda x: 1 / (1 - x * x), "acoth_slope": lambda x: 1 / (1 - x * x),
    "acot": lambda x: mp.atan(1 / x) if x else mp.pi / 2,
    "gamma": mp.gamma, "loggamma": lambda x: mp.loggamma(x) if x > 0 else mp.nan, "beta": mp.beta,
    "binomial": mp.binomial,
    "polygamma_gap": _gap, "log_of_gamma": lambda x: mp.log(mp.gamma(x)) if mp.gamma(x) > 0 else mp.nan,
    "polygamma": lambda x, n: mp.polygamma(int(n), x),
    "erfinv": _erfinv, "erfinv_slope": lambda x: _gauss_slope(_erfinv(x)),
    "erfcinv": _erfcinv, "erfcinv_slope": lambda x: -_gauss_slope(_erfcinv(x)),
    "lambertw": _lambertw, "lambertw_plus": lambda x, k: 1 + _lambertw(x, k), "lambertw_slope": _lambertw_slope,
    "besselj": lambda x, n: mp.besselj(int(n), x), "besseli": lambda x, n: mp.besseli(int(n), x),
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b, "or": lambda a, b: a or b, "not": lambda a: not a,
} | {
    f: getattr(mp, f)
    for f in ("exp log sqrt sin cos tan asin acos atan sinh cosh tanh erf log1p expm1 asinh acosh atanh asech acsch "
              "acoth asec acsc").split()
}  # fmt: skip


def _rounded(function):
    """The same function of doubles, correctly rounded."""

    def of_doubles(*args):
        if any(isinstance(a, float) and math.isnan(a) for a in args):
            return math.nan
        with mp.workdps(50):
            out = function(*(a if isinstance(a, bool) else mpf(float(a)) for a in args))
            return bool(out) if isinstance(out, bool) else np.float64(float(out))

    return of_doubles


# operations that are made of several, such as a fourth power of products
ROUNDINGS = {"logcosh": 2, "pow": 2, "pow_slope": 8} | {
    name: f.ulps / 2 for name, f in FUNCTIONS.items() if f.home.startswith("vectormath.")
}

MP = Arithmetic(mpf, _EXACT)
FLOAT = Arithmetic(np.float64, {op: _rounded(f) for op, f in _EXACT.items()})


@dataclass(frozen=True)
class Bounded:
    """A double, and how far from it another evaluation may lie that errs by 2 ulp in each operation."""

    value: Any
    error: float = 0.0


def _bounded(op, function):
    def of_pairs(*args):
        values = [a.value for a in args]
        out = function(*values)
        if op in ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not"):
            return Bounded(out)
        error = 0.0
        for k, a in enumerate(args):
            if a.error:
                ends = [function(*values[:k], a.value + s * a.error, *values[k + 1 :]) for s in (-1, 1)]
                error += max(abs(end - out) for end in ends)
        exact = op in ("neg", "abs", "min", "max", "sign", "floor", "ceil", "heaviside")
        return Bounded(out, error if exact else error + 2 * ROUNDINGS.get(op, 1) * np.spacing(abs(out)))

    return of_pairs


BOUNDED = Arithmetic(lambda x: Bounded(np.float64(x)), {op: _bounded(op, f) for op, f in FLOAT.functions.items()})


def evaluate(
    node: Node,
    arrays: dict[str, Any],
    numbers: Arithmetic = FLOAT,
    turn: dict[Index, int] | None = None,
    memo: dict | None = None,
) -> Any:
    """The value of a node; `turn` says where its open loops stand. `d` is a table, the rest are lists."""
    turn, memo = turn or {}, {} if memo is None else memo
    key = (node.id, tuple(sorted((i, k) for i, k in turn.items() if i in node.indices)))
    if key in memo:
        return memo[key]
    f = numbers.functions
    if node.op == "const":
        out = numbers.number(node.data)
    elif node.op == "index":
        out = numbers.number(turn[node.data])
    elif node.op == "count":
        out = numbers.number(len(arrays["d"]))
    elif node.op == "load":
        array, offset, strides = node.data
        home = arrays[array]
        if array == "d":
            home = home[turn.get(SAMPLE, 0)]
        out = numbers.number(home[offset + sum(turn[i] * s for i, s in strides)])
    elif node.op == "sum":
        out = numbers.number(0.0)
        for k in range(_turns(node.data, arrays)):
            out = f["add"](out, evaluate(node.args[0], arrays, numbers, turn | {node.data: k}, memo))
    elif node.op == "select":
        condition = evaluate(node.args[0], arrays, numbers, turn, memo)
        condition = condition.value if isinstance(condition, Bounded) else condition
        out = evaluate(node.args[1 if condition else 2], arrays, numbers, turn, memo)
    else:
        args = [evaluate(a, arrays, numbers, turn, memo) for a in node.args]
        if node.op == "powi":
            args.append(numbers.number(float(node.data)))
        if isinstance(node.data, tuple):
            args += [numbers.number(float(order)) for order in node.data]
        out = f["pow" if node.op == "powi" else node.op](*args)
    memo[key] = out
    return out


def _turns(index: Index, arrays: dict[str, Any]) -> int:
    return len(arrays["d"]) if index == SAMPLE else index.size


def gather(pairs, size: int, arrays: dict[str, Any], numbers: Arithmetic = FLOAT) -> list[Any]:
    """The vector that (element, derivative) pairs stand for: each is one number per turn of its loops."""
    out, memo = [numbers.number(0.0) for _ in range(size)], {}
    for element, value in pairs:
        loops = sorted(element.indices)
        for turns in itertools.product(*(range(_turns(i, arrays)) for i in loops)):
            turn = dict(zip(loops, turns, strict=True))
            _, offset, strides = element.data
            k = offset + sum(turn[i] * s for i, s in strides)
            out[k] = numbers.functions["add"](out[k], evaluate(value, arrays, numbers, turn, memo))
    return out


def jets(loss, w, u, v, numbers: Arithmetic = FLOAT) -> dict[str, Any]:
    """`value`, `grad`, `hvp` with u and `third` with u, v of a loss, from its graph."""
    g = Graph()
    node = loss.mean_node(g)
    grad = derivatives.reverse(node, "w")
    arrays = {"w": w, "u": u, "v": v, "c": loss.c, "d": loss.rows}
    out = {"value": evaluate(node, arrays, numbers), "grad": gather(grad, loss.dim, arrays, numbers)}
    if not grad:
        return out | {"hvp": out["grad"], "third": out["grad"]}
    elements = [e for e, _ in grad]
    hvp = derivatives.forward([d for _, d in grad], "w", "u")
    third = derivatives.forward(hvp, "w", "v")
    for name, nodes in (("hvp", hvp), ("third", third)):
        pairs = list(zip(elements, nodes, strict=True))
        out[name] = gather(pairs, loss.dim, arrays, numbers)
    return out


# -- kernels without the compiler -----------------------------------------------------------------


def python_only(**options):
    """In the place of the compiler: nothing is compiled."""
    return lambda function: function


def interpreted(loss, sqrt="math") -> SimpleNamespace:
    """The functions of a loss's generated module as plain Python: the same text, nothing compiled."""
    text = loss.source.text.replace("from math import sqrt", f"from {sqrt} import sqrt")
    assert text.count("from minidyn.compiler import jit\n") == 1
    text = text.replace("from minidyn.compiler import jit\n", "from interpreter import python_only as jit\n")
    namespace: dict[str, Any] = {}
    exec(compile(text, "<generated>", "exec"), namespace)
    return SimpleNamespace(**namespace)


def kernel_jets(loss, w, u, v, module=None, only: str = "") -> dict[str, Any]:
    """As `jets`, from the generated module, in plain Python unless a compiled one is given."""
    module = module or interpreted(loss)
    w, u, v = (np.array(a, dtype=float) for a in (w, u, v))
    out: dict[str, Any] = {}
    for name, args in (("value", (w,)), ("grad", (w,)), ("hvp", (w, u)), ("third", (w, u, v))):
        if only in ("", name):
            result = [] if name == "value" else [np.empty(loss.dim)]
            returned = getattr(module, name)(*args, loss.c, loss.rows, *result)
            out[name] = result[0] if result else returned
    return out


def excess(got: dict[str, Any], bounds: dict[str, Any]) -> float:
    """How far `got` is from what `jets(..., BOUNDED)` says, as a fraction of its bounds."""
    worst = 0.0
    for name, want in bounds.items():
        for x, b in zip(np.atleast_1d(got[name]), want if isinstance(want, list) else [want], strict=True):
            gap = abs(x - b.value)
            if gap != 0.0:  # NaN included
                worst = max(worst, gap / b.error if gap == gap and b.error else math.inf)
    return worst


# -- sympy expressions ----------------------------------------------------------------------------

_LITERAL = {
    sp.exp: mp.exp, sp.log: mp.log, sp.sin: mp.sin, sp.cos: mp.cos, sp.tan: mp.tan, sp.asin: mp.asin,
    sp.acos: mp.acos, sp.atan: mp.atan, sp.sinh: mp.sinh, sp.cosh: mp.cosh, sp.tanh: mp.tanh,
    sp.erf: mp.erf, sp.Abs: abs, sp.sign: _sign, sp.floor: mp.floor, sp.ceiling: mp.ceil,
    sp.Heaviside: lambda x, half: (_sign(x) + 1) / 2,
    sp.Min: min, sp.Max: max, sp.StrictLessThan: mpf.__lt__,
    sp.LessThan: mpf.__le__, sp.StrictGreaterThan: mpf.__gt__, sp.GreaterThan: mpf.__ge__,
    sp.ITE: lambda condition, yes, no: yes if condition else no, sp.Not: lambda a: not a,
    sp.And: lambda *a: all(a), sp.Or: lambda *a: any(a),
}  # fmt: skip


def literal(expr, values, nudge=lambda e, v: v):
    """A sympy expression in mpmath's precision; `values` maps symbols to numbers and names to arrays.

    `nudge(e, v)` may replace the value v of a subexpression e.
    """
    memo: dict[Any, Any] = {}

    def walk(e, bound):
        key = (e, tuple((s, k) for s, k in bound.items() if s in e.free_symbols))
        if key not in memo:
            memo[key] = nudge(e, step(e, bound))
        return memo[key]

    def step(e, bound):
        if e in (sp.true, sp.false):
            return bool(e)
        if e in bound:
            return mpf(bound[e])
        if e in values:
            return mpf(values[e])
        if e.is_Rational:
            return mpf(e.p) / e.q
        if e.is_Float or e.is_NumberSymbol:
            return mpmath.mpmathify(e.evalf(mp.dps))
        if isinstance(e, sp.Add):
            return sum((walk(a, bound) for a in e.args), mpf(0))
        if isinstance(e, sp.Mul):
            return math.prod((walk(a, bound) for a in e.args), start=mpf(1))
        if isinstance(e, sp.Pow):
            base, power = e.args
            return walk(base, bound) ** (int(power) if power.is_Integer else walk(power, bound))
        if isinstance(e, sp.Piecewise):
            return next(walk(x, bound) for x, c in e.args if c == True or walk(c, bound))  # noqa: E712
        if isinstance(e, sp.Sum):
            total = mpf(0)
            ranges = [range(int(low), int(high) + 1) for _, low, high in e.limits]
            for turn in itertools.product(*ranges):
                inner_wins = zip(reversed(e.limits), reversed(turn), strict=True)  # where a letter is used twice
                total += walk(e.function, bound | {limit[0]: i for limit, i in inner_wins})
            return total
        if isinstance(e, sp.Indexed):
            return mpf(values[str(e.base.label)][tuple(int(walk(i, bound)) for i in e.indices)])
        if isinstance(e, sp.matrices.expressions.matexpr.MatrixElement):
            return mpf(values[str(e.parent)][tuple(int(walk(i, bound)) for i in e.indices)])
        return _LITERAL[type(e)](*(walk(a, bound) for a in e.args))

    return walk(sp.sympify(expr), {})


def derivative(f: Callable[[list], Any], w, directions) -> Any:
    """The mixed derivative of f(w) along the directions, by central differences of step 1e-25."""
    h, total = mpf(10) ** -25, mpf(0)
    for signs in itertools.product((-1, 1), repeat=len(directions)):
        point = [
            x + h * sum(s * mpf(d[k]) for s, d in zip(signs, directions, strict=True))
            for k, x in enumerate(map(mpf, w))
        ]
        total += math.prod(signs) * f(point)
    return total / (2 * h) ** len(directions)


def literal_loss(loss, w) -> Any:
    """The loss at mpmath numbers w, sample by sample, straight from its sympy expression."""
    values: dict[Any, Any] = {}
    for b in loss.blocks:
        if b.shape:
            values[b.name] = np.array(w[b.offset : b.offset + b.size], dtype=object).reshape(b.shape)
        else:
            values[b.symbol] = w[b.offset]
    values |= loss.constants
    samples = range(loss.n_samples or 1)
    rows = [{s if a.ndim == 1 else str(s.label): a[i] for s, a in loss.data.items()} for i in samples]
    return sum(literal(loss.expr, values | row) for row in rows) / len(rows)


def literal_jets(loss, w, u, v, t) -> dict[str, Any]:
    """Value, and `grad`, `hvp` and `third` along t, by differences of `literal_loss` in 200 digits."""
    with mp.workdps(200):
        directions = {"value": [], "grad": [t], "hvp": [u, t], "third": [u, v, t]}
        return {n: derivative(lambda p: literal_loss(loss, p), w, d) for n, d in directions.items()}
