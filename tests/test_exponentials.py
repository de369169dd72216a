"""Quotients, logarithms and differences of exponentials are right however they are written, up to |x| = 800."""

import itertools

import numpy as np
import pytest
import sympy as sp
from mpmath import mp, mpf

import minidyn as md

x, a, b, c = sp.symbols("x a b c", real=True)
E = sp.exp
S = 1 / (1 + E(-x))
SOFT = E(a) / (E(a) + E(b) + E(c))
POINTS = [-800.0, -305.5, -34.0, -0.5, 1e-3, 0.7, 34.0, 300.25, 800.0]
NO_ZERO = [1e-8, 1e-3, 0.1, 3.3, 300.25, 800.0]
TINY = mpf(10) ** -300  # below, doubles lose digits

WRITTEN = [
    S, 1 - S, S * (1 - S), -sp.log(S), -sp.log(1 - S), sp.log(S * (1 - S)), 2 * S - 1, 1 / (1 + E(x)) - sp.S.Half,
    E(x) / (1 + E(x)), E(-x) / (1 + E(-x)), 1 / (1 + E(x)) ** 2, E(-x) / (1 + E(-x)) ** 2, E(x) / (1 + E(x)) ** 2,
    1 - 1 / (E(x) + 1), 3 * E(x) / (2 + 5 * E(x)), sp.log(E(x) / (E(x) + 1)), sp.sqrt(1 / (1 + E(x))), x * S,
    sp.log(1 + E(x)), sp.log(1 + E(-2 * x)), sp.log(1 + E(3 * x) / 2), sp.log(E(x) + E(-x)), sp.log(2 * sp.cosh(x)),
    sp.log(1 + E(x) + E(-x)), 1 / sp.cosh(x), sp.cosh(x) ** -2, sp.cosh(x) ** -3, 2 / (E(x) + E(-x)),
    4 / (E(x) + E(-x)) ** 2, (E(x) - E(-x)) / (E(x) + E(-x)), (1 - E(-2 * x)) / (1 + E(-2 * x)),
    (E(2 * x) - 1) / (E(2 * x) + 1), sp.sinh(x) / sp.cosh(x), (1 - sp.tanh(x)) / 2, (1 + sp.tanh(x)) / 2,
    1 - sp.tanh(x) ** 2, sp.log((1 + sp.tanh(x)) / 2), -sp.log(1 - sp.tanh(x)), x * E(x) / (1 + E(x)),
    E(x) / (1 + E(x) + E(-x)), 1 / (1 + E(x) + E(2 * x)), -sp.log(E(x) / (1 + E(x) + E(-x))), -sp.log(1 - E(-x * x)),
    sp.log(E(x**2) - 1), (E(x) + 1) / (E(x) - 1), sp.log(sp.cosh(x)) + sp.log(2), sp.sech(x),
]  # fmt: skip
POLES = [
    1 / (E(x) - 1), x / (E(x) - 1), 3 * x / (1 - E(-2 * x)), x * E(x) / (E(x) - 1), 1 / (1 - E(-x)), 1 / sp.sinh(x),
    1 / sp.tanh(x), sp.cosh(x) / sp.sinh(x), sp.csch(x), sp.coth(x), E(x) / (E(x) - 1) ** 2, 1 / (E(x) - 1) ** 2,
    1 / (1 - E(-x)) ** 3, E(-x) / (E(x) - 1), sp.log(1 - E(-x)), sp.log(E(x) - 1), 1 / (E(x) - 1) + sp.S.Half,
]  # fmt: skip


def compare(forms, points):
    """Value and three derivatives of all forms, in one loss `sum z_k f_k(x_k)`, have 11 digits where doubles have."""
    n = len(forms)
    xs, zs = (sp.symbols(f"{letter}:{n}", real=True) for letter in "xz")
    loss = md.Loss(sum(z * f.subs(x, q) for f, q, z in zip(forms, xs, zs, strict=True)), [*xs, *zs])
    w = np.hstack([np.repeat(np.array(points)[:, None], n, axis=1), np.ones((len(points), n))])
    u = np.hstack([np.ones_like(w[:, :n]), np.zeros_like(w[:, :n])])
    grad = loss.grad(w)
    jets = [grad[:, n:], grad[:, :n], loss.hvp(w, u)[:, :n], loss.third(w, u, u)[:, :n]]
    for k, f in enumerate(forms):
        slopes = list(itertools.accumulate(range(3), lambda g, _: sp.diff(g, x), initial=f))
        exact = sp.lambdify(x, slopes, "mpmath", cse=True)
        for i, p in enumerate(points):
            with mp.workdps(150 if abs(p) < 30 else 1500):
                for order, want in enumerate(exact(mpf(p))):
                    got = float(jets[order][i, k])
                    if abs(want) < mpf(10) ** 300:
                        good = abs(mpf(got) - want) <= 1e-11 * max(abs(want), TINY)
                        assert good, (f, order, p, got, mp.nstr(want, 15))


@pytest.mark.parametrize("part", range(3))
def test_written_variants(part):
    """Value to third derivative have 11 digits from -800 to 800 wherever they are normal doubles."""
    compare(WRITTEN[part::3], POINTS)


def test_differences_of_exponentials():
    """Value to third derivative have 11 digits from 1e-8 to 800, also where there is a pole at 0, or nearly one."""
    compare(POLES, NO_ZERO)


MANY = sp.symbols("q:20", real=True)


@pytest.mark.parametrize("count", [2, 13, 20])
def test_many_terms_written_by_hand(count):
    """Log-sum-exp and cross-entropy of any number of exponentials have their digits at +-1000, Hessian times u too."""
    q, rng = MANY[:count], np.random.default_rng(count)
    whole = sum(E(s) for s in q)
    loss = md.Loss(sp.log(whole) - sp.log(E(q[0]) / whole) / 2, q)
    for scale in (1, 30, 1000):
        w, u = scale * rng.uniform(-1, 1, count), rng.normal(size=count)
        shift = w.max()
        p = np.exp(w - shift) / np.exp(w - shift).sum()
        lse = shift + np.log(np.exp(w - shift).sum())
        assert loss.value(w) == pytest.approx(1.5 * lse - 0.5 * w[0], rel=1e-12)
        np.testing.assert_allclose(loss.grad(w), 1.5 * p - 0.5 * (np.arange(count) == 0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(loss.hvp(w, u), 1.5 * p * (u - p @ u), rtol=1e-9, atol=1e-12)


SEVERAL = [
    sp.log(E(a) + E(b)), sp.log(E(a) + E(b) + E(c)), SOFT, -sp.log(SOFT), 1 - SOFT, -sp.log(1 - SOFT),
    E(a) / (E(a) + E(b)), 1 / (1 + E(b - a)), sp.log(1 + E(-a * b)), a * (1 + sp.tanh(b)) / 2,
    E(a + b) / (E(a) + E(b)) ** 2, sp.log(E(a + 1) + 3 * E(b - 2)), E(b) / sp.sqrt(E(2 * a) + E(2 * b)),
    1 / (a**2 + E(-b * b)), a / (c**2 + E(-a * a)) / (1 + E(b)), (a**2 + E(-b * b)) ** sp.Rational(-3, 2),
]  # fmt: skip


@pytest.mark.parametrize("f", SEVERAL, ids=str)
def test_several_exponents(f):
    """Gradient and Hessian of softmax, cross-entropy, log-sum-exp have 9 digits, down to 1e-20, at random points."""
    loss, letters = md.Loss(f, [a, b, c]), [a, b, c]
    slopes = [sp.diff(f, s) for s in letters]
    exact = sp.lambdify(letters, [f, *slopes, *(sp.diff(d, s) for d in slopes for s in letters)], "mpmath")
    for scale, w in zip([3, 30, 300, 400], np.random.default_rng(7).uniform(-1, 1, (4, 3)), strict=True):
        w = scale * w
        got = [loss.value(w), *loss.grad(w), *loss.hessian(w).ravel()]
        with mp.workdps(1200):
            want = exact(*map(mpf, w))
            errors = [abs(mpf(float(g)) - e) / max(abs(e), mpf(10) ** -20) for g, e in zip(got, want, strict=True)]
        assert max(errors) < 1e-9


def test_softmax_over_a_loop():
    """The logarithm of a looped sum of exponentials, and a share of it, do not overflow: those of the written sum."""
    j = sp.Symbol("j", integer=True)
    y, A = sp.Symbol("y"), md.vector("A", 5)
    whole = sp.Sum(E(A[j] * y), (j, 0, 4))
    w = np.array([-800.0, 3, 700, 699, 5])
    forms = (sp.log(whole), -sp.log(E(A[1] * y) / whole), E(A[2] * y) / whole, sp.log(1 + whole))
    zs = sp.symbols("z:4")  # each with a factor, the slope in which is its value
    looped, plain = (
        md.Loss(
            sum(z * (f.doit() if written else f) for z, f in zip(zs, forms, strict=True)),
            [A, *zs],
            data={y: [1.0, -1.0, 0.3]},
        )
        for written in (False, True)
    )
    w, u = np.append(w, [1.0, 0.7, -0.3, 2.0]), np.append(np.linspace(-1, 2, 5), [1.0, 2.0, 3.0, -1.0])
    for name, args in (("value", ()), ("grad", ()), ("hvp", (u,)), ("third", (u, u[::-1]))):
        got, want = getattr(looped, name)(w, *args), getattr(plain, name)(w, *args)
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
