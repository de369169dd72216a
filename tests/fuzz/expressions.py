"""Random expressions over the whole language against mpmath, with the conditioning of each computed alongside.

    python tests/fuzz/expressions.py --seed 0 --count 1000     one line for each wrong value, crash or foreign error

Functions are those of the table that `graph` reads sympy by: a new row is tried by itself. Value and three derivatives
along a direction are compared with differences in 80 digits. How far rounding may carry them is seen by evaluating the
same expression with every intermediate result moved a little. Run it under each MINIDYN_COMPILER and MINIDYN_LANES.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from command import parser
from mpmath import mp, mpf
from sympy.codegen import cfunctions

import minidyn as md
from minidyn.graph.vocabulary import VOCABULARY, reading_of

x, y = sp.symbols("x y", real=True)
j = sp.Symbol("j", integer=True)
_TOGETHER = 20  # expressions in one loss
_DIRECTION = (1.0, 0.5)
_DIGITS, _STEP, _MOVED = 80, mpf(10) ** -15, 1e-15
_WITHOUT_NUMBERS = (sp.Not, sp.KroneckerDelta, sp.UnevaluatedExpr)


class Undefined(Exception):
    """The value is no real number."""


# -- the functions of the table -------------------------------------------------------------------


def _reads(e: sp.Basic) -> bool:
    try:
        md.Loss(e + x * 0 + y, [x, y])
    except md.ExpressionError:
        return False
    return True


@functools.cache
def signatures() -> list[tuple[Any, str]]:
    """Each class of the table, and what its arguments may be: x any expression, n a whole number."""
    found = []
    of_c = [k for k in vars(cfunctions).values() if isinstance(k, type) and reading_of(k)]
    known = {*VOCABULARY, *of_c}.difference(_WITHOUT_NUMBERS)
    for kind in sorted(known, key=lambda k: k.__name__):
        for form in ("x", "xx", "nx", "xn", "xxx"):
            try:
                e = kind(*(x / 3 + 2 + y if a == "x" else sp.Integer(2) for a in form), evaluate=False)
            except (TypeError, ValueError):
                continue
            if _reads(e):
                found.append((kind, form))
                break
    return found


def _arg(v):
    return mpf(0) if v >= 0 else mp.pi


def _sign(v):
    return v - v + (v > 0) - (v < 0)


_OWN = {
    "Abs": abs, "sign": _sign, "re": lambda v: v, "conjugate": lambda v: v, "im": lambda v: v - v, "arg": _arg,
    "ceiling": mp.ceil, "frac": lambda v: v - mp.floor(v), "sinc": lambda v: mp.sin(v) / v if v else v + 1,
    "Mod": lambda a, b: a - b * mp.floor(a / b), "Rem": lambda a, b: a - b * _sign(a / b) * mp.floor(abs(a / b)),
    "acot": lambda v: mp.atan(1 / v), "Cbrt": lambda v: _sign(v) * mp.cbrt(abs(v)), "Sqrt": mp.sqrt,
    "fma": lambda a, b, c: a * b + c, "exp2": lambda v: mpf(2) ** v, "log2": lambda v: mp.log(v) / mp.log(2),
    "log10": mp.log10, "erfcinv": lambda v: mp.erfinv(1 - v), "digamma": mp.digamma, "trigamma": lambda v: mp.psi(1, v),
    "polygamma": mp.psi, "LambertW": mp.lambertw, "beta": lambda a, b=None: mp.beta(a, a if b is None else b),
    "FallingFactorial": mp.ff, "RisingFactorial": mp.rf, "Min": min, "Max": max, "factorial": lambda v: mp.gamma(v + 1),
    "Heaviside": lambda v, at: (v > 0) + (v == 0) * at,
}  # fmt: skip


def _function(kind: Any) -> Any:
    return _OWN.get(kind.__name__) or getattr(mp, kind.__name__)


# -- random expressions ---------------------------------------------------------------------------


def expression(rng: np.random.Generator, depth: int, letters: tuple[Any, ...] = (x, y)) -> sp.Expr:
    """A random expression of functions of the table, arithmetic, powers, choices and loops."""

    def again() -> sp.Expr:
        return expression(rng, depth - 1, letters)

    if depth <= 0 or rng.random() < 0.1:
        leaf = letters[rng.integers(len(letters))]
        return leaf * sp.Rational(int(rng.integers(1, 9)), int(rng.integers(1, 5))) if rng.random() < 0.3 else leaf
    kind = rng.choice(
        ["function", "sum", "product", "quotient", "power", "choice", "loop", "number"],
        p=[0.45, 0.15, 0.12, 0.1, 0.07, 0.05, 0.03, 0.03],
    )
    if kind == "function":
        of, form = signatures()[rng.integers(len(signatures()))]
        return of(*(again() if a == "x" else sp.Integer(int(rng.integers(0, 4))) for a in form))
    if kind == "number":
        return again() + sp.Rational(int(rng.integers(-9, 10)), 4)
    if kind == "power":
        return again() ** sp.Rational(str(rng.choice(["2", "3", "-1", "-2", "1/2", "-1/2", "1/3", "3/2", "5"])))
    if kind == "choice":
        if rng.random() < 0.5:
            return (sp.Max, sp.Min)[rng.integers(2)](again(), again())
        met = again() > sp.Rational(int(rng.integers(-4, 5)), 4)
        return sp.Piecewise((again(), met), (again(), True))
    if kind == "loop":
        body = expression(rng, depth - 1, (*letters, j))
        return (sp.Sum, sp.Product)[rng.integers(2)](body, (j, 1, int(rng.integers(1, 4))))
    one, two = again(), again()
    return one + two if kind == "sum" else one * two if kind == "product" else one / two


# -- exact values ---------------------------------------------------------------------------------


def value(e: sp.Basic, at: dict[Any, Any], moved: dict[Any, Any] | None = None) -> Any:
    """An expression in mpmath's numbers; `moved` keeps by how much each subexpression is moved. Undefined is raised
    where a part that counts is not real."""
    if e in at:
        return at[e]
    if e.is_Rational:
        return mpf(e.p) / e.q
    if e.is_Float or e.is_NumberSymbol:
        return mpmath.mpmathify(e.evalf(mp.dps))
    if isinstance(e, sp.Piecewise):
        out = next(value(f, at, moved) for f, met in e.args if value(met, at, moved))
    elif e in (sp.true, sp.false):
        return bool(e)
    elif isinstance(e, (sp.Sum, sp.Product)):
        ((letter, low, high),) = e.limits
        turns = [value(e.function, at | {letter: mpf(i)}, moved) for i in range(int(low), int(high) + 1)]
        out = sum(turns) if isinstance(e, sp.Sum) else mp.fprod(turns)
    else:
        try:
            args = [value(a, at, moved) for a in e.args]
        except Undefined:
            if isinstance(e, sp.Mul) and any(_vanishes(a, at) for a in e.args):
                return mpf(0)  # of a branch: whatever the other factors are
            raise
        if isinstance(e, sp.Rel):
            return bool(e.func(*args)) if all(isinstance(a, sp.Basic) for a in args) else _RELATIONS[e.rel_op](*args)
        if isinstance(e, (sp.And, sp.Or, sp.Not, sp.ITE)):
            return {"And": all, "Or": any, "Not": lambda a: not a[0], "ITE": lambda a: a[1] if a[0] else a[2]}[
                type(e).__name__
            ](args)
        if isinstance(e, sp.Add):
            out = mp.fsum(args)
        elif isinstance(e, sp.Mul):
            out = mp.fprod(args)
        elif isinstance(e, sp.Pow):
            out = args[0] ** args[1]
        else:
            out = _function(type(e))(*args)
    if isinstance(out, mpmath.mpc):
        if out.imag:
            raise Undefined
        out = out.real
    out = mpf(out)
    if not abs(out) < mpf(10) ** 300:  # no double, on the way
        raise ZeroDivisionError
    if moved is None:
        return out
    return out * (1 + moved.setdefault(e, mpf(_MOVED * np.random.default_rng(len(moved)).uniform(-1, 1))))


_RELATIONS = {">": mpf.__gt__, "<": mpf.__lt__, ">=": mpf.__ge__, "<=": mpf.__le__, "==": mpf.__eq__, "!=": mpf.__ne__}


def _vanishes(e: sp.Basic, at: dict[Any, Any]) -> bool:
    try:
        return bool(value(e, at) == 0)
    except (Undefined, ZeroDivisionError):
        return False


def jets(e: sp.Basic, at: tuple[float, float], moved: dict[Any, Any] | None = None) -> list[Any]:
    """Value and three derivatives along the direction, by differences."""
    h = _STEP
    f = [
        value(e, {s: mpf(a) + k * h * mpf(d) for s, a, d in zip((x, y), at, _DIRECTION, strict=True)}, moved)
        for k in (-2, -1, 0, 1, 2)
    ]
    return [
        f[2],
        (f[3] - f[1]) / (2 * h),
        (f[3] - 2 * f[2] + f[1]) / h**2,
        (f[4] - 2 * f[3] + 2 * f[1] - f[0]) / (2 * h**3),
    ]


def expected(e: sp.Basic, at: tuple[float, float]) -> tuple[list[Any], list[Any]] | None:
    """(value and derivatives, how far from them rounding may lead); None where there is nothing to be compared."""
    with mp.workdps(_DIGITS):
        want, trials = None, []
        try:
            want = jets(e, at)
            for trial in range(3):
                shift = tuple(a * (1 + _MOVED * s) for a, s in zip(at, ((1, 0), (0, -1), (-1, 1))[trial], strict=True))
                moved: dict[Any, Any] = {sp.Integer(k): mpf(0) for k in range(-50 * (trial + 1), -50)}
                trials.append(jets(e, shift, moved))
        except (ZeroDivisionError, OverflowError, ValueError, mpmath.libmp.NoConvergence):
            return None
        except Undefined:
            if not trials and want is None:
                raise
            return None  # at the edge of a domain
    size = [max(abs(t[k]) for t in [want, *trials]) for k in range(4)]
    far = [max(abs(t[k] - want[k]) for t in trials) for k in range(4)]
    return want, [40 * f + mpf(10) ** -12 * max(size[: k + 1]) + mpf(10) ** -250 for k, f in enumerate(far)]


# -- comparison -----------------------------------------------------------------------------------


def batch(rng: np.random.Generator, said: Counter[str]) -> list[sp.Expr]:
    """Some expressions that a loss can be made of; what is refused must be refused by minidyn's own errors."""
    found: list[sp.Expr] = []
    while len(found) < _TOGETHER:
        try:
            e = expression(rng, int(rng.integers(1, 5)))
        except Exception:  # sympy's own, while it builds the expression
            said["not built by sympy"] += 1
            continue
        if not e.has(x, y) or e.has(sp.zoo, sp.nan, sp.oo, sp.I) or len(list(sp.preorder_traversal(e))) > 60:
            continue
        try:
            md.Loss(e, [x, y])
        except md.ExpressionError:
            said["refused"] += 1
            continue
        found.append(e)
    return found


def compared(forms: list[sp.Expr], points: np.ndarray, said: Counter[str]) -> list[str]:
    """What is wrong about some expressions, by one loss `sum z_k f_k(x_k, y_k)` at some points."""
    n = len(forms)
    xs, ys, zs = (sp.symbols(f"{letter}:{n}", real=True) for letter in "xyz")
    terms = (z * f.subs({x: p, y: q}, simultaneous=True) for f, p, q, z in zip(forms, xs, ys, zs, strict=True))
    loss = md.Loss(sp.Add(*terms, evaluate=False), [*xs, *ys, *zs])
    wrong = []
    for at in points:
        w = np.concatenate([np.repeat(at, n), np.ones(n)])
        u = np.concatenate([np.repeat(_DIRECTION, n), np.zeros(n)])
        grad = loss.grad(w)
        got = [
            grad[2 * n :],
            *(g[:n] + _DIRECTION[1] * g[n : 2 * n] for g in (grad, loss.hvp(w, u), loss.third(w, u, u))),
        ]
        for k, f in enumerate(forms):
            try:
                exact = expected(f, tuple(map(float, at)))
            except Undefined:
                said["undefined"] += 1
                if not np.isnan(got[0][k]):
                    wrong.append(f"{f} at {at}: {got[0][k]}, where it is not real")
                continue
            for order in range(4) if exact is not None else ():
                want, bound = exact[0][order], exact[1][order]
                if bound > mpf(10) ** -4 * abs(want) or abs(want) > mpf(10) ** 280:
                    said["ill-conditioned"] += 1
                    continue
                said["compared"] += 1
                if not abs(mpf(float(got[order][k])) - want) <= bound:
                    shown = f"{got[order][k]}, not {mp.nstr(want, 17)} within {mp.nstr(bound, 3)}"
                    wrong.append(f"{f} at {at}, order {order}: {shown}")
    return wrong


def failures(seed: int, count: int) -> int:
    """How many values of `count` random expressions are wrong, each printed."""
    total, said = 0, Counter()
    for first in range(0, count, _TOGETHER):
        rng = np.random.default_rng([seed, first])
        try:
            forms = batch(rng, said)
            wrong = compared(forms, rng.normal(size=(1, 2)) * rng.choice([0.3, 1.0, 3.0]), said)
        except Exception as error:  # a crash, or an error that is not minidyn's
            wrong = [f"batch {seed}, {first}: {type(error).__name__}: {error}"]
        for line in wrong:
            print(line, flush=True)
        total += len(wrong)
    print(f"{count} expressions of seed {seed}: {total} wrong; {dict(said)}", flush=True)
    return total


if __name__ == "__main__":
    given = parser(__doc__, count=1000).parse_args()
    sys.exit(failures(given.seed, given.count) > 0)
