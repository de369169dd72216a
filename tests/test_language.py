"""What sympy says is read: functions with three derivatives, products, roots; what is undefined is no number."""

import math

import numpy as np
import pytest
import sympy as sp
from mpmath import mp, mpf

import minidyn as md

x, y, z = sp.symbols("x y z", real=True)
a = md.vector("a", 5)
j, n = sp.symbols("j n", integer=True)
W = sp.MatrixSymbol("W", 2, 2)
f = sp.Function("f")

INVERSES = {  # f: points where it is real
    sp.sec: (-2.0, 1e-9, 1.5), sp.csc: (-2.0, 1e-5, 3.1), sp.cot: (-2.0, 1e-5, 1.5, 3.1), sp.coth: (-2.0, 1e-5, 20.0),
    sp.sech: (-2.0, 0.0, 300.0), sp.csch: (-2.0, 1e-5, 300.0), sp.asec: (-7.0, -1.001, 1.0000001, 2.5, 1e8),
    sp.acsc: (-7.0, -1.001, 1.0000001, 2.5, 1e8), sp.acot: (-7.0, -1e-7, 1.0, 1e8),
    sp.asech: (1e-9, 0.3, 0.999999), sp.acsch: (-7.0, 1e-5, 1e8), sp.acoth: (-7.0, 1.0000001, 1e6),
    sp.asinh: (-7.0, 0.0, 1e-9, 0.8, 1e8), sp.acosh: (1.0000001, 2.0, 1e8), sp.atanh: (-0.9999999, 0.0, 1e-9, 0.5),
    sp.sinc: (-7.0, 0.0, 1e-9, 0.99, 1.01, 30.0), sp.frac: (-1.25, 0.5, 3.75),
}  # fmt: skip


def exact(e, at, order):
    """A derivative of an expression in x, by differences of fifty digits and more."""
    value = sp.lambdify(x, e, ["mpmath", {"frac": mp.frac, "sinc": mp.sinc}])
    with mp.workdps(600):
        h = mpf(10) ** -100 * max(abs(mpf(at)), mpf(10) ** -60)
        terms = (math.comb(order, k) * (-1) ** k * value(mpf(at) + (mpf(order) / 2 - k) * h) for k in range(order + 1))
        return sum(terms) / h**order


def jets(loss, at, others=1.0):
    """Value and three derivatives in the first parameter."""
    w, u = np.array([at, *np.full(loss.dim - 1, others)]), np.eye(loss.dim)[0]
    return [loss.value(w), loss.grad(w)[0], loss.hvp(w, u)[0], loss.third(w, u, u)[0]]


@pytest.mark.parametrize("function", INVERSES, ids=str)
def test_value_and_three_derivatives(function):
    """A function and its first three derivatives have 13 digits, where they are not zeros of their own."""
    loss, points = md.Loss(function(x), [x]), INVERSES[function]
    for at in points:
        got = jets(loss, at)
        for order in range(4):
            want = exact(function(x), at, order)
            small = 1e-15 * max(1.0, *(abs(g) for g in got[: order + 1])) if abs(at) > 0.1 else 1e-15
            assert abs(got[order] - want) <= 1e-13 * abs(want) + small, (at, order, got[order], mp.nstr(want, 17))


def test_angles():
    """atan2 is the angle in all quadrants and on the axes, and its slopes are those of the angle."""
    loss = md.Loss(sp.atan2(y, x), [y, x])
    for w in np.vstack([np.random.default_rng(0).normal(size=(20, 2)), [[1, 0], [-1, 0], [0, 1], [1e-300, -1e300]]]):
        assert loss.value(w) == pytest.approx(math.atan2(*w), rel=4e-16)
        if np.abs(w).max() < 10:
            np.testing.assert_allclose(loss.grad(w), np.array([w[1], -w[0]]) / (w @ w), rtol=1e-15)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_products(size):
    """A product over a loop, and its derivatives, are products of the others, also where factors are zero."""
    b = md.vector("b", size)
    loss = md.Loss(sp.Product(b[j] + j, (j, 0, size - 1)), [b])
    rng = np.random.default_rng(size)
    for zeros in range(3):
        w = rng.choice([-1, 1], size) * rng.uniform(0.5, 1.5, size)
        w[: min(zeros, size)] = -np.arange(min(zeros, size))
        factors = w + np.arange(size)
        others = [np.prod(np.delete(factors, k)) for k in range(size)]
        assert loss.value(w) == pytest.approx(np.prod(factors), rel=1e-13)
        np.testing.assert_allclose(loss.grad(w), others, rtol=1e-13)
    double = md.Loss(sp.Product(x + j * n, (n, 0, j), (j, 1, 2)), [x])  # inner bounds may depend on outer letters
    assert double.value([3.0]) == pytest.approx((3 * 4) * (3 * 5 * 7), rel=1e-15)


def test_real_roots():
    """Odd roots of negative numbers, |x| written as sqrt(x**2), and their slopes at 0 as limits."""
    s = sp.Symbol("s")  # of which sympy does not know that it is real
    for e, at, value, slope in (
        (sp.real_root(x, 3), -8.0, -2.0, 1 / 12),
        (sp.real_root(s, 5), -32.0, -2.0, 1 / 80),
        (sp.cbrt(x), 27.0, 3.0, 1 / 27),
        (sp.real_root(x, 3), 0.0, 0.0, math.inf),
        (sp.cbrt(x), 0.0, 0.0, math.inf),
        (sp.sqrt(s**2), -3.0, 3.0, -1.0),
        (sp.sqrt(s**2), 0.0, 0.0, 0.0),
        ((s**2) ** sp.Rational(3, 2), -2.0, 8.0, -12.0),
        (1 / sp.sqrt(s**2), -2.0, 0.5, 0.25),
        (sp.cbrt(x), -8.0, math.nan, math.nan),
        (sp.root(x, 4), -1.0, math.nan, math.nan),
    ):
        loss = md.Loss(e, list(e.free_symbols))
        np.testing.assert_allclose([loss.value([at]), loss.grad([at])[0]], [value, slope], rtol=4e-16)


def test_what_is_to_be_done_later():
    """Derivatives, substitutions, logarithms to a base, parts of real numbers and codegen's functions are read."""
    from sympy.codegen import cfunctions as c

    s = sp.Symbol("s")
    for e, value in (
        (sp.Derivative(x**3 * sp.sin(s), x), 12 * math.sin(0.5)),
        (sp.Subs(x**2 + s, x, s), 0.75),
        (sp.log(x, 2, evaluate=False) + 0 * s, 1.0),
        (sp.re(s) + sp.im(s) + sp.conjugate(s), 1.0),
        (sp.arg(s - 2), math.pi),
        (sp.exp(x, evaluate=False), math.exp(2)),
        (sp.Rem(-x - 3, 3), -2.0),
        (sp.Mod(-x - 3, 3), 1.0),
        (c.exp2(x) + c.log2(x) + c.log10(s) + c.Cbrt(s), 5 + math.log10(0.5) + math.cbrt(0.5)),
        (c.expm1(x) - c.log1p(s) + c.hypot(x, s), math.expm1(2) - math.log1p(0.5) + math.hypot(2, 0.5)),
        (sp.UnevaluatedExpr(x + 1) * x, 6.0),
        (sp.Sum(sp.KroneckerDelta(j, n) * j * x, (j, 0, 3), (n, 1, 2)), 6.0),
    ):
        assert md.Loss(e, [x, s]).value([2.0, 0.5]) == pytest.approx(value, rel=1e-15)


# -- what is undefined ----------------------------------------------------------------------------

UNDEFINED = [
    lambda e: sp.Piecewise((y, e < 1), (y**2, True)), lambda e: sp.Piecewise((y, sp.Not(e >= 1)), (y**2, True)),
    lambda e: sp.Piecewise((y, sp.And(y > 0, e > 1)), (y**2, True)), lambda e: sp.Max(e, y), lambda e: sp.Min(y, 3, e),
    lambda e: sp.Piecewise((y, sp.Or(y < 0, sp.Eq(e, y))), (y**2, True)), lambda e: sp.Abs(e) * y,
    lambda e: y * sp.sign(e), lambda e: sp.Max(0, y - e) ** 2, lambda e: sp.Heaviside(e) * y,
]  # fmt: skip
COMPLEX = [
    (sp.log(x), -2.0), (sp.sqrt(x), -2.0), (x ** sp.Rational(1, 3), -8.0), (x**1.5, -1.0), (sp.asin(x), 2.0),
    (sp.acos(x), -1.5), (sp.acosh(x), 0.5), (sp.acosh(x), -2.0), (sp.atanh(x), 1.5), (sp.asec(x), 0.5),
    (sp.acoth(x), 0.5), (sp.asech(x), -0.5), (sp.log(1 + x), -2.0), (sp.log(1 - sp.exp(x)), 1.0), (x**y, -2.0),
]  # fmt: skip


@pytest.mark.parametrize("e, at", COMPLEX, ids=str)
def test_what_is_complex_is_no_number(e, at):
    """A function outside its domain makes NaN of a loss and its slopes, also where only a condition asks for it."""
    for build in UNDEFINED[COMPLEX.index((e, at)) % 3 :: 3]:
        loss = md.Loss(build(e), [x, y])
        assert math.isnan(loss.value([at, 0.7])) and np.isnan(loss.grad([at, 0.7])[1]), build(e)


BEYOND = [
    (sp.log(1 - x**2), 2.0), (sp.log(x, 2), -1.0), (sp.loggamma(x), -0.5), (sp.log(sp.gamma(x)), -0.5),
    (sp.erfinv(x), 1.5), (sp.erfcinv(x), -1.0), (sp.LambertW(x), -1.0), (sp.LambertW(x, -1), 1.0),
    (sp.log(sp.beta(x, y)), -0.3),
    (sp.log(sp.Determinant(sp.ImmutableMatrix(4, 4, lambda i, k: x if i == k else sp.Rational(i + k, 3)))), 1.2),
]  # fmt: skip


STEPS = (sp.sign, sp.floor, sp.ceiling, sp.Heaviside, sp.frac, lambda e: sp.besselj(0, e))


@pytest.mark.parametrize("e, at", COMPLEX + BEYOND, ids=str)
def test_what_is_no_number_has_no_slope(e, at):
    """Outside its domain a function has no derivative of any order, nor has a step of it."""
    for form in (e, STEPS[(COMPLEX + BEYOND).index((e, at)) % len(STEPS)](e)):
        found = jets(md.Loss(form + x + y**2, [x, y]), at, 0.7)
        assert np.isnan(found).all(), (form, found)


def test_parts_of_what_is_undefined_are_undefined():
    """Imaginary part, angle and Kronecker's delta of a NaN are no numbers."""
    for e in (sp.im(y + sp.atanh(x)), sp.arg(sp.atanh(x) + y), sp.KroneckerDelta(sp.acosh(x) - 1, y)):
        assert math.isnan(md.Loss(x + e, [x, y]).value([-2.0, 0.7]))


def test_a_condition_that_is_decided_asks_no_more():
    """`x > 0 and log(x) < 1` is false at negative x, `x < 0 or log(x) < 1` is true there, and both branches stay."""
    for joined, at, value in ((sp.And, x > 0, 9.0), (sp.Or, x < 0, -2.0)):
        loss = md.Loss(sp.Piecewise((x, joined(at, sp.log(x) < 1)), (y**2, True)), [x, y])
        assert loss.value([-2.0, 3.0]) == value and np.isfinite(loss.grad([-2.0, 3.0])).all()
        assert loss.value([2.0, 3.0]) == 2.0 and loss.value([3.0, 3.0]) == 9.0


def test_constants_that_are_complex_are_refused():
    """What sympy folds into a complex number is an error that names it."""
    for e in (
        sp.sqrt(-2 * x**2),
        x + sp.log(-3),
        sp.acosh(sp.Rational(1, 2)) * x,
        x * sp.Integer(-8) ** sp.Rational(1, 3),
        sp.atanh(2) + x,
        sp.Piecewise((sp.asin(2), x > 0), (x, True)),
    ):
        with pytest.raises(md.ExpressionError, match=r"is not real|zoo|not a finite"):
            md.Loss(e, [x])


# -- refusals -------------------------------------------------------------------------------------

REFUSED = {  # subexpression: the nearest form that works
    sp.zeta(x): "Sum", sp.polylog(2, x): "Sum", sp.lerchphi(x, 1, 2): "Sum", sp.dirichlet_eta(x): "Sum",
    sp.hyper([1, x], [2], y): "Sum", sp.Integral(sp.exp(-x * y**2), (x, 0, 1)): "Sum over the points of a quadrature",
    sp.Si(x): "quadrature", sp.Ci(x): "quadrature", sp.Shi(x): "quadrature", sp.Chi(x): "quadrature",
    sp.Ei(x): "quadrature", sp.expint(1, x): "quadrature", sp.li(x): "quadrature", sp.fresnels(x): "quadrature",
    sp.fresnelc(x): "quadrature", sp.erf2(x, y): "quadrature", f(x): "write out", f(x, y) ** 2: "write out",
    sp.Derivative(f(x), x): "write the result", sp.Derivative(f(x), x).subs(x, 0): "write the result",
    sp.Limit(sp.sin(x) / x, x, 0): r"\.doit\(\)", sp.Lambda(x, x**2): "call it", x + sp.Order(x**2): "removeO",
    sp.DiracDelta(x): r"exp\(", x * a: "index", sp.Sum(x**j, (j, 0, n)): r"\.subs",
    sp.Sum(x**j, (j, 0, sp.oo)): "integers", sp.Product(x + j, (j, 1, n)): r"\.subs",
    sp.Piecewise((x, x > 0)): r"\(0, True\)",
    sp.airyai(x): "supported: ",
    sp.elliptic_k(x): "supported: ", sp.legendre(n, x): "supported: ", sp.mathieuc(1, 2, x): "supported: ",
    sp.Ynm(1, 0, x, y): "supported: ", sp.primepi(x): "supported: ", sp.LeviCivita(x, y, 1): "supported: ",
    x * sp.Symbol("q"): "constants=", a[j]: "Sum",
    a[7] * x: "has 5 entries",
    sp.Sum(a[j**2], (j, 0, 1)): "whole-number", x * sp.I: "real",
    sp.sqrt(-x**2): "real", sp.zoo * x: "real", x**sp.oo: "finite|infinit",
}  # fmt: skip
COMPANY = [lambda e: e, lambda e: y + sp.tanh(x + 2 * e), lambda e: y * sp.Sum((a[n] + e) ** 2, (n, 0, 4)) + sp.sin(x)]


@pytest.mark.parametrize("e", REFUSED, ids=str)
def test_refusals(e):
    """A refusal names the subexpression, where it stands, and the nearest form that works."""
    for build in COMPANY:
        whole = build(e)
        with pytest.raises(md.ExpressionError, match=REFUSED[e]) as told:
            md.Loss(whole, [x, y, a])
        text = str(told.value)
        assert len(text) < 700 and text.endswith(".") and "\n" not in text
        names = [type(p).__name__ for p in sp.preorder_traversal(e)] + [str(s) for s in e.atoms(sp.Symbol)] + [str(e)]
        assert any(name in text for name in names)
        if whole is not e and e in whole.atoms(type(e)):
            assert "it stands inside " in text
