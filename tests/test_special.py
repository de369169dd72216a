"""Special functions: value and three derivatives against fifty digits, edges, tables, and how they are read."""

import ast
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import MP
from mpmath import mp, mpf

import minidyn as md
from minidyn.common.errors import ExpressionError
from minidyn.compiler.cache import load_module
from minidyn.kernels.vectormath import bessel, lambert, quantiles
from minidyn.kernels.vectormath import gamma as gamma_kernels

INF, NAN = math.inf, math.nan
BRANCH = -0.36787944117144233  # the double next to -1/e
TOLERANCE = mpf("1e-14")
t = sp.Symbol("t")
erfinv, erfcinv = MP.functions["erfinv"], MP.functions["erfcinv"]


# -- what is exact ------------------------------------------------------------------------------------


def product(value, p):
    """Jets of a function by its value and the derivatives p of its logarithm."""
    return [
        value * r
        for r in (
            1,
            p[0],
            p[0] ** 2 + p[1],
            p[0] ** 3 + 3 * p[0] * p[1] + p[2],
            p[0] ** 4 + 6 * p[0] ** 2 * p[1] + 4 * p[0] * p[2] + 3 * p[1] ** 2 + p[3],
        )
    ]


def gamma(x):
    return product(mp.gamma(x), [mp.polygamma(k, x) for k in range(4)])


def beta(b):
    return lambda x: product(mp.beta(x, b), [mp.polygamma(k, x) - mp.polygamma(k, x + b) for k in range(4)])


def logarithmic(value):
    return lambda x: [value(x), *(mp.polygamma(k, x) for k in range(4))]


def polygamma(n):
    return lambda x: [mp.polygamma(n + k, x) for k in range(5)]


def inverse_of_erf(y, sign=1):
    """Jets of a y with `y' = sign sqrt(pi)/2 exp(y^2)`."""

    def jet(x):
        u = y(x)
        s = sign * mp.sqrt(mp.pi) / 2 * mp.exp(u * u)
        return [u, s, 2 * u * s**2, s**3 * (2 + 8 * u**2), s**4 * (28 * u + 48 * u**3)]

    return jet


def lambertw(k):
    def jet(x):
        w = mp.lambertw(x, k).real
        tops = (1, -(w + 2), 2 * w**2 + 8 * w + 9, -(6 * w**3 + 36 * w**2 + 79 * w + 64))
        return [w, *(mp.exp(-i * w) * top / (1 + w) ** (2 * i - 1) for i, top in enumerate(tops, 1))]

    return jet


def bessel_jet(function, n, sign):
    """Jets by `2 f_n' = f_(n - 1) + sign f_(n + 1)`."""

    def order(m, x):
        return (sign if m % 2 else 1) * function(-m, x) if m < 0 else function(m, x)

    def derivative(k, m, x):
        if k == 0:
            return order(m, x)
        return (derivative(k - 1, m - 1, x) + sign * derivative(k - 1, m + 1, x)) / 2

    return lambda x: [derivative(k, n, x) for k in range(5)]


def log_of_gamma(x):
    return mp.log(mp.gamma(x)) if mp.gamma(x) > 0 else mp.nan


# -- the table ------------------------------------------------------------------------------------------


def spread(low, high):
    """Numbers of both signs whose power of ten is uniform."""
    return st.builds(lambda s, p: s * 10.0**p, st.sampled_from([-1.0, 1.0]), st.floats(low, high))


def above(low, high):
    return spread(low, high).map(abs)


def beside(points, low, high=-1.0):
    """Numbers next to some points, down to a distance of `10^low`."""
    return st.builds(lambda p, d: p + d, st.sampled_from(points), spread(low, high))


WHOLE = [float(k) for k in range(-20, 1)]
AXIS = st.one_of(above(-60, 2.2), st.floats(1e-3, 171.0), beside([1.0, 1.4616321449683622, 2.0, 3.0], -15, -3))
SIDES = st.one_of(st.floats(-20.0, 0.0), beside(WHOLE, -8, -2), spread(-60, 0)).filter(lambda x: x != round(x))
INSIDE = st.one_of(
    st.floats(-0.999, 0.999),
    spread(-300, -1),
    beside([-1.0], -16).filter(lambda x: x > -1.0),
    above(-16, -1).map(lambda d: 1.0 - d),
)
SHARES = st.one_of(st.floats(1e-3, 1.999), above(-75, -1), above(-15, -1).map(lambda d: 2.0 - d))
EVERYWHERE = st.one_of(st.floats(-30.0, 30.0), spread(-40, 2.8))

# expression in t, its exact jet, points, and whether it has zeros: then 1e-14 is of |x f'| where that is more than |f|
CASES = {
    "gamma": (sp.gamma(t), gamma, AXIS, True),
    "gamma, negative": (sp.gamma(t), gamma, SIDES, True),
    "factorial": (sp.factorial(t), lambda x: gamma(x + 1), st.floats(0.0, 20.0), True),
    "loggamma": (sp.loggamma(t), logarithmic(mp.loggamma), st.one_of(AXIS, above(2, 300)), True),
    "log(gamma)": (sp.log(sp.gamma(t)), logarithmic(log_of_gamma), st.one_of(AXIS, SIDES), True),
    "digamma": (sp.digamma(t), polygamma(0), st.one_of(AXIS, SIDES, above(2, 60)), True),
    "polygamma 1": (sp.polygamma(1, t), polygamma(1), st.one_of(AXIS, SIDES), True),
    "polygamma 5": (sp.polygamma(5, t), polygamma(5), st.one_of(above(-20, 20), SIDES), True),
    "erfinv": (sp.erfinv(t), inverse_of_erf(erfinv), INSIDE, False),
    "erfcinv": (sp.erfcinv(t), inverse_of_erf(erfcinv, -1), SHARES, True),
    "LambertW": (sp.LambertW(t), lambertw(0), st.one_of(above(-100, 90), st.floats(BRANCH, 3.0), spread(-100, -1),
                 above(-16, -1).map(lambda d: BRANCH + d)).filter(lambda x: x > BRANCH), True),
    "LambertW -1": (sp.LambertW(t, -1), lambertw(-1), st.one_of(above(-95, -1).map(lambda x: -x),
                    above(-16, -1).map(lambda d: BRANCH + d)).filter(lambda x: BRANCH < x < 0.0), True),
    "besselj 0": (sp.besselj(0, t), bessel_jet(mp.besselj, 0, -1), EVERYWHERE, True),
    "besselj -3": (sp.besselj(-3, t, evaluate=False), bessel_jet(mp.besselj, -3, -1), EVERYWHERE, True),
    "besselj 30": (sp.besselj(30, t), bessel_jet(mp.besselj, 30, -1), st.floats(-90.0, 90.0), True),
    "besseli 0": (sp.besseli(0, t), bessel_jet(mp.besseli, 0, 1), EVERYWHERE, False),
    "besseli -2": (sp.besseli(-2, t, evaluate=False), bessel_jet(mp.besseli, 2, 1), EVERYWHERE, False),
    "besseli 9": (sp.besseli(9, t), bessel_jet(mp.besseli, 9, 1), st.floats(-200.0, 200.0), False),
    "beta, negative": (sp.beta(t, -5.25), beta(mpf(-5.25)), st.one_of(st.floats(-20.0, 20.0), st.floats(20.0, 600.0))
                       .filter(lambda x: x > 0.0 or x != round(x)), True),
    "beta": (sp.beta(t, sp.Rational(5, 2)), beta(mpf(2.5)), st.one_of(above(-30, 2), st.floats(0.1, 60.0)), False),
}  # fmt: skip


@functools.cache
def joint():
    """Two losses of all functions, compiled once: `sum_k z_k f_k(x_k)`, whose value is one of them where z is a unit
    vector, and `sum_k f_k(x_k)` for their derivatives."""
    xs, zs = sp.symbols(f"x:{len(CASES)}"), sp.symbols(f"z:{len(CASES)}")
    each = [f.subs(t, q) for q, (f, *_) in zip(xs, CASES.values(), strict=True)]
    return md.Loss(sum(z * f for z, f in zip(zs, each, strict=True)), [*xs, *zs]), md.Loss(sum(each), list(xs))


def jet(name, at):
    """Value and three derivatives of a function of the table."""
    n, k = len(CASES), list(CASES).index(name)
    x, z = np.array([-0.2 if other == "LambertW -1" else 0.4 for other in CASES]), np.eye(n)[k]
    x[k] = at
    weighted, loss = joint()
    return [weighted.value([*x, *z]), loss.grad(x)[k], loss.hessian(x)[k, k], loss.third(x, z, z)[k]]


@pytest.mark.parametrize("name", CASES)
def test_value_and_three_derivatives(name):
    """All lie within 1e-14 of fifty digits: of the derivative itself, and near zeros of what its argument's rounding
    makes of it, `|x f'|`."""
    _, exact, points, zeros = CASES[name]

    @settings(derandomize=True, max_examples=40, deadline=None, database=None)
    @given(points)
    def check(at):
        with mp.workdps(60):
            want = exact(mpf(at))
            for order, got in enumerate(jet(name, at)):
                if mp.isnan(want[order]) or mp.isnan(want[0]):
                    assert math.isnan(got), f"order {order} at {at!r}: {got!r}"
                    continue
                size = max(abs(want[order]), abs(at * want[order + 1]) if zeros else 0)
                if size > mpf("1e308") or math.isinf(float(want[order])):
                    continue  # what overflows has a test of its own
                error = abs(mpf(float(got)) - want[order])
                assert error <= TOLERANCE * size + mpf("1e-322"), f"order {order} at {at!r}: {got!r}"

    check()


NOTHING = (NAN, NAN, NAN, NAN)
EDGES = [  # function, argument, value and three derivatives
    ("gamma", 0.0, INF, -INF, INF, -INF), ("gamma", -0.0, INF, -INF, INF, -INF), ("gamma", -3.0, *NOTHING),
    ("gamma", 5e-324, INF, -INF, INF, -INF), ("gamma", -1e-310, -INF, -INF, -INF, -INF), ("gamma", -1e16, *NOTHING),
    ("gamma", 171.7, INF, INF, INF), ("gamma", 1e308, INF, INF, INF), ("gamma", INF, INF, INF),
    ("gamma", -200.5, 0.0, 0.0, 0.0, 0.0), ("gamma", -INF, *NOTHING), ("gamma", 12.0, 39916800.0),
    ("factorial", 0.0, 1.0), ("factorial", 10.0, 3628800.0), ("factorial", -1.0, INF, -INF),
    ("loggamma", 0.0, INF, -INF, INF, -INF), ("loggamma", 1.0, 0.0), ("loggamma", 2.0, 0.0), ("loggamma", -0.5, NAN),
    ("loggamma", 5e-324, 744.4400719213812, -INF, INF, -INF), ("loggamma", INF, INF, INF, 0.0, 0.0),
    ("loggamma", 1e306, INF, 704.591038456178, 1e-306, 0.0), ("loggamma", -INF, *NOTHING), ("log(gamma)", -0.5, NAN),
    ("log(gamma)", -2.0, NAN), ("log(gamma)", 0.0, INF, -INF, INF, -INF), ("digamma", 0.0, -INF, INF, -INF, INF),
    ("digamma", -4.0, NAN, INF, NAN, INF), ("digamma", INF, INF, 0.0, 0.0, 0.0), ("digamma", -INF, *NOTHING),
    ("polygamma 1", -0.0, INF, -INF, INF, -INF), ("polygamma 1", -4.0, INF, NAN, INF, NAN),
    ("polygamma 1", INF, 0.0, 0.0, 0.0, 0.0), ("polygamma 5", 1e-310, INF, -INF, INF, -INF),
    ("erfinv", 1.0, INF, INF, INF, INF), ("erfinv", -1.0, -INF, INF, -INF, INF), ("erfinv", 5e-324, 5e-324),
    ("erfinv", 1.0000000000000002, *NOTHING), ("erfinv", -INF, *NOTHING),
    ("erfinv", 0.0, 0.0, 0.886226925452758, 0.0), ("erfcinv", 0.0, INF, -INF, INF, -INF),
    ("erfcinv", 2.0, -INF, -INF, -INF, -INF), ("erfcinv", -5e-324, *NOTHING),
    ("erfcinv", 5e-324, 27.213293210812948, -INF, INF, -INF), ("erfcinv", 1.0, 0.0, -0.886226925452758, 0.0),
    ("LambertW", BRANCH, -1.0, INF, -INF, INF), ("LambertW", -0.3678794411714424, *NOTHING),
    ("LambertW", -INF, *NOTHING), ("LambertW", 0.0, 0.0, 1.0, -2.0, 9.0),
    ("LambertW", -5e-324, -5e-324, 1.0, -2.0, 9.0), ("LambertW", INF, INF, 0.0, 0.0),
    ("LambertW", 1.7e308, 703.1712364514887, 5.873999358075266e-309, 0.0, 0.0),
    ("LambertW -1", BRANCH, -1.0, -INF, INF, -INF), ("LambertW -1", -0.0, -INF, -INF, -INF),
    ("LambertW -1", 5e-324, *NOTHING), ("LambertW -1", -5e-324, -751.0615595398791, -INF, -INF, -INF),
    ("LambertW -1", -0.4, *NOTHING), ("besselj 0", 0.0, 1.0, 0.0, -0.5, 0.0), ("besselj 0", INF, 0.0, 0.0, 0.0, 0.0),
    ("besselj -3", -INF, 0.0, 0.0, 0.0, 0.0), ("besselj -3", 0.0, 0.0, 0.0, 0.0, -0.125),
    ("besselj 30", 1e-310, 0.0, 0.0, 0.0, 0.0), ("besseli 0", -0.0, 1.0, 0.0, 0.5, 0.0),
    ("besseli 0", -800.0, INF, -INF, INF, -INF), ("besseli 9", -INF, -INF, INF, -INF, INF),
    ("besseli -2", 5e-324, 0.0, 0.0, 0.25, 0.0), ("beta", 0.0, INF, -INF, INF, -INF), ("beta", -1.0, *NOTHING),
    ("beta, negative", 0.0, INF), ("beta, negative", 5.25, 0.0), ("beta, negative", -2.0, *NOTHING),
    ("beta", 1e300, 0.0, 0.0, 0.0, 0.0), *((name, NAN, *NOTHING) for name in CASES),
]  # fmt: skip


@pytest.mark.parametrize(("name", "at", "want"), [(name, at, want) for name, at, *want in EDGES])
def test_edges(name, at, want):
    """At poles, ends, in overflow, for NaN and subnormal numbers: limits where they exist, NaN where there is none."""
    np.testing.assert_allclose(jet(name, at)[: len(want)], want, rtol=1e-15)


# -- how they are read ----------------------------------------------------------------------------------

a, b = sp.symbols("a b")
LARGE = {  # forms whose gamma functions overflow: their value at a = 400, b = 301
    sp.gamma(a + 1) / sp.gamma(a): lambda a, b: a,
    3 * sp.gamma(a) / sp.gamma(a + 3): lambda a, b: 3 / (a * (a + 1) * (a + 2)),
    sp.gamma(a) * sp.gamma(b) / sp.gamma(a + b): mp.beta,
    sp.gamma(a - b) ** 2 * sp.gamma(b) / sp.gamma(a) / b: lambda a, b: mp.gamma(a - b) * mp.beta(a - b, b) / b,
    sp.log(sp.gamma(a) * sp.gamma(b) ** 2 / sp.gamma(a + b)): lambda a, b: mp.log(mp.beta(a, b) * mp.gamma(b)),
    sp.log(5 * a * sp.gamma(a)): lambda a, b: mp.log(5 * a * mp.gamma(a)),
    sp.log(sp.beta(a, b)): lambda a, b: mp.log(mp.beta(a, b)),
    sp.log(sp.factorial(a)): lambda a, b: mp.loggamma(a + 1),
    sp.log(sp.binomial(a, b)): lambda a, b: mp.log(mp.binomial(a, b)),
    sp.binomial(a, b): mp.binomial,
    sp.binomial(a, 3): lambda a, b: a * (a - 1) * (a - 2) / 6,
    sp.binomial(2 * a, 2): lambda a, b: a * (2 * a - 1),
    sp.rf(a, 2, evaluate=False): lambda a, b: a * (a + 1),
    sp.ff(a, 2, evaluate=False): lambda a, b: a * (a - 1),
}


def test_binomials_at_whole_numbers():
    """A binomial is 0 where k or n - k is a negative whole number, what it counts where both are others, and no number
    where n is a negative one; beside these its value and slopes are those of fifty digits."""
    loss, rng = md.Loss(sp.binomial(a, b), [a, b]), np.random.default_rng(0)
    for n, k in [(2.5, -3), (-1.25, -1), (7, 9), (7, 7.5), (0.5, 3.5), (6, 2), (-2, 0.5), (-41, 7.25)]:
        with mp.workdps(50):
            want = NAN if n < 0 and n == int(n) else float(mp.binomial(n, k))
        np.testing.assert_allclose(loss.value([n, k]), want, rtol=1e-14, atol=0)
        assert want != 0.0 or np.isnan(loss.grad([n, k])[1])  # a pole of psi times zero
    for n, k in rng.normal(size=(40, 2)) * rng.choice([0.5, 3.0, 20.0], size=(40, 1)):
        with mp.workdps(50):
            want = [mp.diff(lambda *w: mp.binomial(*w), (n, k), order) for order in ((1, 0), (0, 1))]
        gaps = [mp.psi(0, n + 1), mp.psi(0, n - k + 1), mp.psi(0, k + 1)]
        size = abs(loss.value([n, k])) * (1 + float(max(map(abs, gaps)))) * (1 + 1 / abs(math.sin(math.pi * (n - k))))
        np.testing.assert_allclose(loss.grad([n, k]), np.array(want, float), rtol=1e-12, atol=1e-13 * size)


@pytest.mark.parametrize("form", LARGE, ids=str)
def test_quotients_do_not_overflow(form):
    """Quotients of gamma functions and their logarithms have values and slopes where gamma itself is infinite."""
    loss = md.Loss(form, [a, b] if form.has(b) else [a])
    at = [400.0, 301.0][: loss.dim]
    got, slope = loss.value(at), loss.grad(at)[0]
    with mp.workdps(50):
        want, exact_slope = LARGE[form](mpf(400), mpf(301)), mp.diff(lambda q: LARGE[form](q, mpf(301)), 400)
        condition = abs(400 * exact_slope / want)
        assert abs(got / want - 1) <= TOLERANCE * max(1, condition)
        assert abs(slope / exact_slope - 1) <= 10 * TOLERANCE * max(1, condition)


def test_logarithm_of_gamma_functions_of_any_sign():
    """log(gamma(a) b) is that of the product also where a factor is negative, NaN where the product is."""
    loss = md.Loss(sp.log(sp.gamma(a) * b), [a, b])
    assert loss.value([-0.5, -2.0]) == pytest.approx(math.log(-2.0 * math.gamma(-0.5)), rel=1e-14)
    assert loss.value([-1.5, 2.0]) == pytest.approx(math.log(2.0 * math.gamma(-1.5)), rel=1e-14)
    assert math.isnan(loss.value([2.5, -2.0]))


REFUSED = {
    sp.besselj(a, b): "the order of besselj is not a number: it must be a whole number "
    "from -100 to 100, fixed in the expression",
    sp.besseli(sp.Rational(1, 2), a): "the order of besseli is 0.5",
    sp.besselj(101, a): "the order of besselj is 101",
    sp.polygamma(a, b): "the order of polygamma is not a number: it must be a whole number from 0 to 100",
    sp.LambertW(a, 2): "the order of LambertW is 2: it must be a whole number from -1 to 0",
    sp.bessely(0, a): r"bessely\(0, a\) uses bessely, which has no kernel; of the Bessel functions besselj and besseli",
    sp.erfi(a): r"erfi\(a\) uses erfi, which has no kernel; write a Sum over the points of a quadrature",
}


@pytest.mark.parametrize("form", REFUSED, ids=str)
def test_refused(form):
    """An order that is no number, not whole or too high, and functions without a kernel: one sentence."""
    with pytest.raises(ExpressionError, match=REFUSED[form]):
        md.Loss(form, [a, b]).value([1.0, 1.0])


# -- kernels --------------------------------------------------------------------------------------------


def fitted(f, low, high, count, turn=None):
    """The coefficients of a polynomial near f; with `turn`, in `(s - turn)/(s + turn)` for s from low to high."""
    if turn is None:
        return mp.chebyfit(f, [mpf(low), mpf(high)], count)
    ends = [(mpf(s) - turn) / (mpf(s) + turn) for s in (low, high)]
    return mp.chebyfit(lambda v: f(turn * (1 + v) / (1 - v)), ends, count)


def branch_series(k):
    """`(1 + w)/p` on a branch, p = sqrt(2 (e x + 1))."""
    return lambda p: (1 + mp.lambertw((p * p / 2 - 1) / mp.e, k).real) / p if p else mpf(1)


def far_on_the_lower_branch(u):
    """`-(1 + w)/(u + u^2/2)`, u = sqrt(-2 - 2 log(-x))."""
    w = mp.findroot(lambda w: w + mp.log(-w) + 1 + u * u / 2, -1 - u - u * u / 2)
    return -(w + 1) / (u + u * u / 2)


def hankel(order, odd):
    """Every other term of Hankel's expansion, with its sign."""
    term = lambda k: mp.fprod((4 * order**2 - (2 * j - 1) ** 2) / mpf(8 * j) for j in range(1, k + 1))  # noqa: E731
    return [(-1) ** i * term(2 * i + odd) for i in reversed(range(9))]


POLYNOMIALS = {
    "near_two": [lambda: fitted(lambda u: mp.loggamma(2 + u) / u if u else mp.digamma(2), -0.5, 0.5, 19)],
    "stirling": [lambda: [mp.bernoulli(2 * k) / (2 * k * (2 * k - 1)) for k in range(7, 0, -1)]],
    "erfinv_middle": [lambda: fitted(lambda z: erfinv(z**0.5) / mp.sqrt(z) if z else mp.sqrt(mp.pi) / 2, 0, 0.25, 16)],
    "erfcinv_tail": [lambda: fitted(lambda s: erfcinv(mp.exp(-s * s)) / s, mpf("0.83"), mpf("27.4"), 12, turn=4)],
    "upper": [lambda: fitted(branch_series(0), 0, mpf(0.95), 18)],
    "lower": [
        lambda: fitted(branch_series(-1), -0.75, 0, 22),
        lambda: fitted(far_on_the_lower_branch, mpf("0.74"), mpf("38.7"), 8, turn=5),
    ],
    "from_far": [lambda: hankel(0, 0), lambda: hankel(0, 1), lambda: hankel(1, 0), lambda: hankel(1, 1)],
}


def polynomials(name):
    """The coefficients in the brackets of each `horner` of a kernel."""
    home = next(m for m in (bessel, gamma_kernels, lambert, quantiles) if hasattr(m, name))
    tree = ast.parse(Path(home.__file__).read_text())
    function = next(f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == name)
    calls = [c for c in ast.walk(function) if isinstance(c, ast.Call) and getattr(c.func, "id", "") == "horner"]
    return [ast.literal_eval(c.args[1]) for c in sorted(calls, key=lambda c: c.lineno)]


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name):
    """The coefficients in the text are those of the functions, from fifty digits."""
    with mp.workdps(50):
        want = [tuple(map(float, make())) for make in POLYNOMIALS[name]]
    for got, exact in zip(polynomials(name), want, strict=True):
        assert len(got) == len(exact)
        np.testing.assert_allclose(got, exact, rtol=1e-13)


KERNELS = {
    "gamma.gamma": "", "gamma.loggamma": "", "gamma.log_of_gamma": "", "gamma.polygamma": ", 1", "beta.beta": ", 1.5",
    "beta.polygamma_gap": ", 1.5, 0", "quantiles.erfinv": "", "quantiles.erfinv_slope": "", "quantiles.erfcinv": "",
    "quantiles.erfcinv_slope": "", "lambert.lambertw": ", 0", "lambert.lambertw_plus": ", -1",
    "lambert.lambertw_slope": ", 0", "bessel.besselj": ", 2", "bessel.besseli": ", 1",
}  # fmt: skip
APPLY = '''"""{name} of every element of an array, alone and in lanes."""

from minidyn.compiler import jit, lanes
from minidyn.kernels.vectormath.{home} import {name}


@jit
def alone(x, out):
    for i in range(out.shape[0]):
        out[i] = {name}(x[i]{orders})


@jit(thorough=True)
def in_lanes(x, out):
    for block in range(out.shape[0] // 64):
        for lane in lanes(64):
            out[block*64 + lane] = {name}(x[block*64 + lane]{orders})
'''


@pytest.mark.parametrize("kernel", KERNELS)
def test_same_bits_in_lanes(kernel):
    """A number has the bits alone that it has beside others, whatever ways these take."""
    home, name = kernel.split(".")
    module = load_module(APPLY.format(home=home, name=name, orders=KERNELS[kernel]))
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(-1, 2, 256), rng.normal(size=256) * 10.0 ** rng.uniform(-8, 4, 256), np.full(64, 0.3)]
    )
    alone, beside = np.empty(len(x)), np.empty(len(x))
    module.alone(x, alone)
    module.in_lanes(x, beside)
    assert np.isfinite(alone).sum() > 100
    np.testing.assert_array_equal(alone, beside)


REMOVABLE = {
    sp.LambertW(t) / t: lambda x: mp.exp(-mp.lambertw(x).real),
    sp.erfinv(2 * t) / t: lambda x: erfinv(2 * x) / x if x else mp.sqrt(mp.pi),
}


@pytest.mark.parametrize("form", REMOVABLE, ids=str)
def test_removable_poles(form):
    """A quotient with a removable pole keeps its digits to the third derivative, at 0 too."""
    loss = md.Loss(form, [t])
    for at in (0.0, 1e-12, -1e-9, 1e-3, 0.0333, -0.1, 0.149, 0.151, 0.249, 0.251):
        got = [loss.value([at]), loss.grad([at])[0], loss.hessian([at])[0, 0], loss.third([at], [1.0], [1.0])[0]]
        with mp.workdps(50):
            want = [mp.diff(REMOVABLE[form], at, k) for k in range(4 if at else 1)]
            for g, w in zip(got, want, strict=False):
                assert abs(g - w) <= 10 * TOLERANCE * max(abs(w), abs(at)), at


def test_gradient_descent():
    """A loss of all kinds goes downhill to where its gradient vanishes, and its modified flow follows it."""
    w = sp.symbols("w:8")
    forms = [
        sp.loggamma(w[0]), sp.gamma(w[1]), -sp.besselj(1, w[2]), sp.besseli(0, w[3]), sp.erfinv(w[4]) ** 2,
        (sp.LambertW(w[5]) - sp.Rational(1, 2)) ** 2, sp.erfcinv(w[6]) ** 2, (sp.digamma(w[7]) - 1) ** 2,
    ]  # fmt: skip
    loss = md.Loss(sum(forms), list(w))
    start = [2.0, 2.0, 1.0, 1.0, 0.5, 1.5, 0.6, 2.0]
    run = md.simulate(md.Map(loss, md.SGD(0.1)), start, 600, save_every=600)
    least = [1.4616321449683623, 1.4616321449683623, 1.8411837813406593, 0.0, 0.0, math.exp(0.5) / 2, 1.0, 3.2031714683]
    np.testing.assert_allclose(run.w[0, -1], least, rtol=0, atol=1e-6)
