"""Random expressions over the whole language against mpmath, with the conditioning of each computed alongside.

    python tests/fuzz/expressions.py --seed 0 --count 1000            value and gradient
    python tests/fuzz/expressions.py --seed 0 --count 200 --order 3   and two derivatives more

prints one line for each wrong value, crash or foreign error, and ends with 1 if there was one. The same seed makes the
same expressions, and the digest that is printed is of all numbers found: run it under each MINIDYN_COMPILER and
MINIDYN_LANES. Functions are those of the table that `graph` reads sympy by: a new row is tried by itself. With
`--count`, `--first 400` goes on after 400 expressions of the same seed.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
from collections import Counter
from typing import Any

import numpy as np
import sympy as sp
from command import parser
from mpmath import mp, mpf
from running import UNIT, Jet, Unclear, Undefined, digits, jet
from sympy.codegen import cfunctions
from sympy.matrices.expressions.matexpr import MatrixElement

import minidyn as md
from minidyn.common.locks import cached_property
from minidyn.graph import Graph, derivatives
from minidyn.graph.vocabulary import VOCABULARY, reading_of
from minidyn.kernels import Source
from minidyn.maps.loss.compiled import add_many

x, y = sp.symbols("x y", real=True)
j = sp.Symbol("j", integer=True)
_TOGETHER = 25  # expressions in one loss
_POINTS = 2
_DIRECTION = (1.0, 0.6180339887498949)
_SLACK = 2.0  # of first order bounds
_FINITE = 1e-3  # relative bounds below which a NaN is wrong
_NOTHING = mpf(10) ** -290
_WITHOUT_NUMBERS = (sp.Not, sp.KroneckerDelta)
_STEPS = (
    sp.sign,
    sp.floor,
    sp.ceiling,
    sp.Heaviside,
    sp.arg,
    sp.im,
    sp.KroneckerDelta,
    sp.frac,
    sp.Mod,
    sp.Rem,
    sp.Piecewise,
)
_EDGES = (0.0, 1.0, -1.0, 0.5, 1e-8, -1e-5, 20.0, -30.0, 1e3)

# -- random expressions ---------------------------------------------------------------------------


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


_FORMS = [  # as people write them
    lambda a, b: sp.log(1 + sp.exp(a)), lambda a, b: 1 / (1 + sp.exp(-a)), lambda a, b: sp.log(sp.exp(a) + sp.exp(b)),
    lambda a, b: a / (1 + sp.exp(-a)), lambda a, b: a * (1 + sp.erf(a / sp.sqrt(2))) / 2,
    lambda a, b: sp.exp(a) / (sp.exp(a) + sp.exp(b)), lambda a, b: sp.real_root(a, 3), lambda a, b: sp.cbrt(a),
    lambda a, b: (1 - sp.exp(-a)) / a, lambda a, b: sp.sinh(a) / a, lambda a, b: (sp.cosh(a) - 1) / a**2,
    lambda a, b: sp.log(sp.cosh(a)), lambda a, b: sp.sech(a), lambda a, b: a**b, lambda a, b: sp.exp(-(a**2)),
    lambda a, b: sp.log(sp.gamma(a) / sp.gamma(b)), lambda a, b: sp.gamma(a + 2) / sp.gamma(a),
    lambda a, b: a - sp.sin(a),
    lambda a, b: sp.Heaviside(a) * b, lambda a, b: sp.KroneckerDelta(sp.floor(a), 1) + b, lambda a, b: (a**2) ** b,
    lambda a, b: sp.LambertW(a, -1), lambda a, b: sp.sqrt(a**2 + b**2), lambda a, b: sp.Max(0, a) ** 2 - sp.Min(b, 0),
]  # fmt: skip
_POWERS = "2 3 -1 -2 1/2 -1/2 1/3 3/2 5 -3 4/3".split()
_KINDS = {
    "function": 0.42, "sum": 0.14, "product": 0.11, "quotient": 0.09, "power": 0.06, "choice": 0.06, "loop": 0.03,
    "number": 0.03, "matrix": 0.02, "form": 0.04,
}  # fmt: skip


class Writer:
    """Random expressions of two letters, or of a loop's letter too."""

    def __init__(self, rng: np.random.Generator, letters: tuple[Any, ...]):
        self.rng, self.letters = rng, letters

    def __call__(self, depth: int) -> sp.Expr:
        """An expression so many layers deep, at most."""
        rng = self.rng
        if depth <= 0 or rng.random() < 0.1:
            leaf = self.letters[rng.integers(len(self.letters))]
            return leaf * sp.Rational(int(rng.integers(1, 9)), int(rng.integers(1, 5))) if rng.random() < 0.3 else leaf
        return getattr(self, rng.choice(list(_KINDS), p=list(_KINDS.values())))(depth - 1)

    def function(self, depth: int) -> sp.Expr:
        """One of the table."""
        of, form = signatures()[self.rng.integers(len(signatures()))]
        return of(*(self(depth) if a == "x" else sp.Integer(int(self.rng.integers(-1, 4))) for a in form))

    def sum(self, depth: int) -> sp.Expr:
        """Of two."""
        return self(depth) + self(depth)

    def product(self, depth: int) -> sp.Expr:
        """Of two."""
        return self(depth) * self(depth)

    def quotient(self, depth: int) -> sp.Expr:
        """Of two."""
        return self(depth) / self(depth)

    def number(self, depth: int) -> sp.Expr:
        """A shift."""
        return self(depth) + sp.Rational(int(self.rng.integers(-9, 10)), 4)

    def power(self, depth: int) -> sp.Expr:
        """A whole or a broken one."""
        return self(depth) ** sp.Rational(str(self.rng.choice(_POWERS)))

    def form(self, depth: int) -> sp.Expr:
        """What has a reading of its own."""
        return _FORMS[self.rng.integers(len(_FORMS))](self(depth), self(depth - 1))

    def _condition(self, depth: int) -> sp.Basic:
        rng, level = self.rng, sp.Rational(int(self.rng.integers(-4, 5)), 4)
        kind = rng.integers(6) if depth > 0 else rng.integers(2)
        if kind < 3:
            return (self(depth) > level, self(depth) <= level, self(depth) < self(depth - 1))[kind]
        one, two = self._condition(depth - 1), self._condition(depth - 1)
        return sp.Not(one) if kind == 5 else (sp.And, sp.Or)[kind - 3](one, two)

    def choice(self, depth: int) -> sp.Expr:
        """By the larger or by conditions, one of which may hold a choice itself."""
        if self.rng.random() < 0.4:
            return (sp.Max, sp.Min)[self.rng.integers(2)](self(depth), self(depth))
        pairs = [(self(depth), self._condition(depth)) for _ in range(int(self.rng.integers(1, 3)))]
        return sp.Piecewise(*pairs, (self(depth), True))

    def loop(self, depth: int) -> sp.Expr:
        """A sum or a product."""
        body = Writer(self.rng, (*self.letters[:2], j))(depth)
        return (sp.Sum, sp.Product)[self.rng.integers(2)](body, (j, 1, int(self.rng.integers(1, 4))))

    def matrix(self, depth: int) -> sp.Expr:
        """A number that is made of matrices."""
        n = int(self.rng.integers(2, 4))
        a, b = (
            sp.ImmutableMatrix(
                n, n, lambda i, k: self(depth - 1) if self.rng.random() < 0.4 else sp.Integer(i - 2 * k + 1)
            )
            for _ in "ab"
        )
        form = self.rng.integers(6)
        if form < 2:
            return sp.Determinant((a, sp.MatMul(a, b, evaluate=False))[form])
        if form == 2:
            return MatrixElement(sp.Inverse(a), 0, n - 1)
        return sp.Trace(
            sp.MatMul(sp.Inverse(a), b, evaluate=False) if form == 3 else sp.HadamardProduct(a, b, evaluate=False)
            if form == 4 else sp.MatMul(sp.MatAdd(a, b, evaluate=False), sp.Transpose(a), evaluate=False)
        )  # fmt: skip


class Slopes(md.Loss):
    """A loss with no kernels but that of its gradient, which are a fifth of all."""

    @cached_property
    def source(self) -> Source:
        src = Source("slopes")
        pairs = derivatives.reverse(self.mean_node(Graph()), "w")
        self.add_vector(src.add, "grad", "w, c, d, out", pairs, "gradient")
        add_many(src, "grad", "The gradient")
        return src


Forms = dict[int, sp.Expr]


def _loss(forms: Forms, letters: Any, kind: type[md.Loss]) -> md.Loss:
    """`sum z_k f_k(x_k, y_k)`: its gradient has the values and the slopes of all."""
    xs, ys, zs = letters
    terms = (zs[k] * f for k, f in forms.items())
    return kind(sp.Add(*terms, evaluate=False) if len(forms) > 1 else next(terms), [*xs, *ys, *zs])


def batch(rng: np.random.Generator, said: Counter[str], letters: Any) -> Forms:
    """Some expressions, each in its own letters."""
    forms: Forms = {}
    for k, pair in enumerate(zip(*letters[:2], strict=True)):
        while k not in forms:
            try:
                e = Writer(rng, pair)(int(rng.choice([1, 2, 3, 4], p=[0.15, 0.5, 0.27, 0.08])))
                size = sum(1 for _ in itertools.islice(sp.preorder_traversal(e), 61))
            except Exception:  # sympy's own, while it builds the expression
                said["not built by sympy"] += 1
                continue
            if e.has(*pair) and size <= 60 and not e.has(sp.zoo, sp.nan, sp.oo, sp.I):
                forms[k] = e
    return forms


def readable(forms: Forms, said: Counter[str], letters: Any, kind: type[md.Loss]) -> list[tuple[Forms, md.Loss]]:
    """The forms that a loss can be made of, with that: halved until those that are refused stand alone. They must be
    refused by minidyn's own error."""
    try:
        return [(forms, _loss(forms, letters, kind))]
    except md.ExpressionError:
        keys = list(forms)
        if len(keys) > 1:
            halves = ({k: forms[k] for k in part} for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :]))
            return [pair for half in halves for pair in readable(half, said, letters, kind)]
        said["refused"] += 1
        return []


# -- comparison -----------------------------------------------------------------------------------


def found(loss: md.Loss, w: np.ndarray, order: int) -> np.ndarray:
    """(value and derivatives of every term along the direction, beside them the size of what they are sums of)."""
    n = loss.dim // 3
    u = np.concatenate([np.repeat(_DIRECTION, n), np.zeros(n)])
    grad = loss.grad(w)
    slopes = [grad] if order == 1 else [grad, loss.hvp(w, u), loss.third(w, u, u)]
    parts = [(g[:n], _DIRECTION[1] * g[n : 2 * n]) for g in slopes]
    return np.array([[grad[2 * n :], *(a + b for a, b in parts)], [0 * w[:n], *(abs(a) + abs(b) for a, b in parts)]])


def expected(e: sp.Expr, at: dict[Any, float], order: int) -> Jet:
    """An expression along the direction through a point."""
    lines = {
        s: Jet([mpf(v), mpf(d)] + [mpf(0)] * (order - 1), [0.0] * (order + 1))
        for (s, v), d in zip(at.items(), _DIRECTION, strict=True)
    }
    with mp.workdps(digits(order)):
        return jet(e, lines)


def wrong(e: sp.Expr, at: dict[Any, float], got: np.ndarray, said: Counter[str]) -> list[str]:
    """What is wrong about an expression's value and derivatives at a point."""
    order = got.shape[1] - 1
    try:
        want = expected(e, at, order)
    except Undefined:
        said["not real"] += 1
        last = 0 if e.has(*_STEPS) else order  # a slope of what is flat is 0, defined or not
        numbers = [k for k in range(last + 1) if not (np.isnan(got[0, k]) or (k and not got[0, k]))]
        return [f"{e} at {at}, order {k}: {got[0, k]}, where it is not real" for k in numbers]
    except (Unclear, ZeroDivisionError, OverflowError, ValueError, mp.NoConvergence):
        said["unclear"] += 1
        return []
    bad = []
    for k, factor in enumerate((1, 1, 2, 6)[: order + 1]):
        exact = want.c[k] * factor
        bound = _SLACK * (want.e[k] * factor + UNIT * got[1, k]) + _NOTHING
        clear = bound < _FINITE * abs(exact) or not exact
        said["compared" if clear else "ill-conditioned"] += 1
        if abs(exact) < mpf(10) ** 280 and mp.isfinite(bound) and (clear or np.isfinite(got[0, k])):
            off = abs(mpf(float(got[0, k])) - exact) if np.isfinite(got[0, k]) else mp.inf
            if not off <= bound:
                shown = f"{got[0, k]}, not {mp.nstr(exact, 17)}: {mp.nstr(off / bound, 3)} bounds, {float(bound):.2g}"
                bad.append(f"{e} at {at}, order {k}: {shown}")
    return bad


def points(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random ones of several sizes; some have a special coordinate."""
    w = rng.normal(size=(_POINTS, 2, n)) * rng.choice([0.3, 1.0, 3.0], size=(_POINTS, 1, n))
    special = rng.random((_POINTS, 2, n)) < 0.1
    special[0] = False
    return np.where(special, rng.choice(_EDGES, size=w.shape), w)


def tried(rng: np.random.Generator, order: int, said: Counter[str], digest: Any) -> list[str]:
    """What is wrong about a batch of expressions."""
    letters = [sp.symbols(f"{letter}:{_TOGETHER}", real=True) for letter in "xyz"]
    forms, bad = batch(rng, said, letters), []
    w = points(rng, _TOGETHER)
    for some, loss in readable(forms, said, letters, Slopes if order == 1 else md.Loss):
        said["expressions"] += len(some)
        for at in w:
            got = found(loss, np.concatenate([*at, np.ones(_TOGETHER)]), order)
            digest.update(np.where(np.isnan(got[0]), np.nan, got[0]).tobytes())  # a NaN may have any sign
            for k, f in some.items():
                here = {letters[0][k]: float(at[0, k]), letters[1][k]: float(at[1, k])}
                bad += wrong(f, here, got[:, :, k], said)
    return bad


def failures(seed: int, count: int, order: int = 1, first: int = 0) -> int:
    """How many values of `count` random expressions are wrong, each printed."""
    total, said, digest = 0, Counter[str](), hashlib.sha256()
    for start in range(first, count, _TOGETHER):
        try:
            bad = tried(np.random.default_rng([seed, start]), order, said, digest)
        except Exception as error:  # a crash, or an error that is not minidyn's
            bad = [f"batch {seed}, {start}: {type(error).__name__}: {error}"]
        for line in bad:
            print(" ".join(line.split()), flush=True)
        total += len(bad)
    about = f"seed {seed}, {first} to {count}, order {order}: {total} wrong"
    print(f"{about}; {dict(said)}; {digest.hexdigest()[:16]}", flush=True)
    return total


if __name__ == "__main__":
    given = parser(__doc__, count=1000, order=1, first=0).parse_args()
    sys.exit(failures(given.seed, given.count, given.order, given.first) > 0)
