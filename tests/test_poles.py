"""Removable poles and small tails: sin(u)/u, u/sinh(u), 1 - cos(u), erfc, ... and their derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
from mpmath import mp, mpf

import minidyn as md

x, y, z = sp.symbols("x y z")
POINTS = [0.0, 1e-300, -1e-100, -1e-8, 1e-4, 0.01, -0.2, 0.26, -0.49, 0.51, 1.05, -2.0, 8.0, -30.0]
FAR = [-800.0, -400.0, 400.0, 800.0]
POLES = {
    "sin(x)/x": (sp.sin(x) / x, FAR),
    "x/sinh(x)": (x / sp.sinh(x), FAR), "x coth(x)": (x * sp.coth(x), FAR),
    "tanh(x)/x": (sp.tanh(x) / x, FAR),
    "(exp(x)-1)/x": ((sp.exp(x) - 1) / x, (-800.0, 400.0)), "(1-exp(-2x))/x": ((1 - sp.exp(-2 * x)) / x, (800.0,)),
    "log(1+x)/x": (sp.log(1 + x) / x, ()), "log(1-3x)/x": (sp.log(1 - 3 * x) / x, ()),
    "atan(x)/x": (sp.atan(x) / x, FAR),
    "asin(x)/x": (sp.asin(x) / x, ()), "erf(x)/x": (sp.erf(x) / x, FAR),
    "(1-cos(x))/x^2": ((1 - sp.cos(x)) / x**2, FAR),
    "sin(2x)/sin(x)": (sp.sin(2 * x) / sp.sin(x), ()), "sin(x)/sinh(x)": (sp.sin(x) / sp.sinh(x), ()),
    "x^2/(1-cos(x))": (x**2 / (1 - sp.cos(x)), ()),
    "x/(exp(x)-1)": (x / (sp.exp(x) - 1), FAR), "log(1+x)/tanh(x)": (sp.log(1 + x) / sp.tanh(x), ()),
}  # fmt: skip
SUMS = {  # whose terms cancel at 0
    "(x-sin)/x^3": (x - sp.sin(x)) / x**3, "(exp-1-x)/x^2": (sp.exp(x) - 1 - x) / x**2, "sinh(x)-x": sp.sinh(x) - x,
    "(exp(x)+exp(-x)-2)/x^2": (sp.exp(x) + sp.exp(-x) - 2) / x**2, "(x-tanh)/x^3": (x - sp.tanh(x)) / x**3,
    "(sin-x cos)/x^3": (sp.sin(x) - x * sp.cos(x)) / x**3, "(log(1+x)-x)/x^2": (sp.log(1 + x) - x) / x**2,
    "(atan-x)/x^3": (sp.atan(x) - x) / x**3, "exp(2x)-1-2x": sp.exp(2 * x) - 1 - 2 * x,
    "2cos-2+x^2": 2 * sp.cos(x) - 2 + x**2, "asinh(x)/x": sp.asinh(x) / x, "atanh(x/40)/x": sp.atanh(x / 40) / x,
    "sin(2x)-2sin(x)": (sp.sin(2 * x) - 2 * sp.sin(x)) / x**3, "(asinh-x)/x^3": (sp.asinh(x) - x) / x**3,
}  # fmt: skip
TAILS = {
    "erfc(x)": sp.erfc(x),
    "erfc(-x)": sp.erfc(-x),
    "1+erf(x)": 1 + sp.erf(x),
    "1-erf(x)": 1 - sp.erf(x),
    "(1+erf)/2": (1 + sp.erf(x / sp.sqrt(2))) / 2,
    "gelu": x * (1 + sp.erf(x / sp.sqrt(2))) / 2,
    "1-cos(x)": 1 - sp.cos(x),
    "cosh(x)-1": sp.cosh(x) - 1,
    "3-3cos(2x)": 3 - 3 * sp.cos(2 * x),
}


def exact(e: sp.Expr, at: float, n: int) -> mpf:
    """The n-th derivative at a point; at tiny ones at 1e-40, which no sum with anything feels."""
    f = sp.lambdify(x, sp.diff(e, x, n), "mpmath")
    tiny = abs(at) < 1e-20
    with mp.workdps(320 if tiny else 120 + int(min(at * at, 1000.0) + abs(at))):
        return mpf(f(mpf(10) ** -40 if tiny else mpf(at)))


def outside(e: sp.Expr, at: float) -> bool:
    """Whether a function is real and a double there."""
    a, b = sp.Wild("a", exclude=[x]), sp.Wild("b", exclude=[x])
    logs = [m[a] + m[b] * at for f in e.atoms(sp.log) if (m := f.args[0].match(a + b * x))]
    return any(v <= 0 for v in logs) or (e.has(sp.asin) and abs(at) >= 1)


def check(e: sp.Expr, points: list[float]) -> None:
    loss = md.Loss(e, [x])
    for at in points:
        if outside(e, at):
            continue
        w = [at]
        found = loss.value(w), loss.grad(w)[0], loss.hessian(w)[0, 0], loss.third(w, [1.0], [1.0])[0]
        wanted = [exact(e, at, n) for n in range(4)]
        size = max(map(abs, wanted))
        for n, (got, want) in enumerate(zip(found, wanted, strict=True)):
            if abs(at) < 1e-20 and abs(want) < 1e-20:  # a zero of its own: proportional to x or x^2
                assert abs(got) <= 60 * abs(at), (at, n, got)
                continue
            near_zero_of_its_own = 1e-15 * size if abs(want) < 1e-3 * size and 0.1 < abs(at) < 50 else 0.0
            assert abs(mpf(float(got)) - want) <= 1e-12 * abs(want) + near_zero_of_its_own + 1e-290, (at, n, got)


@pytest.mark.parametrize("name", POLES)
def test_a_removable_pole_has_its_digits_to_the_third_derivative(name):
    """At 0, at 1e-300, at every size between and as far out as the function is a double."""
    e, far = POLES[name]
    check(e, [*POINTS, *far])


@pytest.mark.parametrize("name", TAILS)
def test_a_small_tail_has_its_digits_to_the_third_derivative(name):
    """What is left of 1 - f where f goes to 1 keeps its relative accuracy."""
    far = [-8.0, -20.0, -26.0, 20.0] if TAILS[name].has(sp.erf, sp.erfc) else []
    check(TAILS[name], [*POINTS, *far])


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_that_cancels_has_its_digits_to_the_third_derivative(name):
    """Terms that cancel at 0 do so exactly: what is left has its relative accuracy, divided by a power of x or not."""
    check(SUMS[name], POINTS)


def test_sums_of_products_and_differences_of_parameters_cancel_too():
    """exp(xy) - 1 - xy and sin(x - y) - x + y keep their digits where the product or the difference is small."""
    j, a = sp.Symbol("j", integer=True), md.vector("a", 2)
    turn = sp.Sum((sp.exp(a[j] * x) - 1 - a[j] * x) / x**2, (j, 0, 1))
    product, difference = sp.exp(x * y) - 1 - x * y, sp.sin(x - y) - x + y
    loss = md.Loss(z * product + (1 - z) * difference, [x, y, z])
    u, v = 1e-6, 3e-5
    with mp.workdps(60):
        p, d = mpf(u) * mpf(v), mpf(u) - mpf(v)
        wanted = mp.sin(d) - d, mp.exp(p) - 1 - p
    for which, want in enumerate(wanted):
        assert abs(loss.value([u, v, which]) - want) <= 2e-15 * abs(want)
    assert md.Loss(turn, [x, a]).value([1e-7, 1.0, 2.0]) == pytest.approx(2.5 + 1e-7 * 1.5, rel=1e-14)


def test_poles_of_products_and_sums_of_parameters_are_found():
    """sin(xy)/(xy), sinh(x - y)/(y - x) and tanh(2x + 2y)/(x + y) at their poles and beside."""
    loss = md.Loss(sp.sin(x * y) / (x * y) + sp.sinh(x - y) / (y - x) + sp.tanh(2 * x + 2 * y) / (x + y), [x, y])
    np.testing.assert_allclose(loss.value([0.0, 0.0]), 1 - 1 + 2, rtol=1e-15)
    np.testing.assert_allclose(loss.grad([0.0, 0.0]), 0, atol=1e-15, rtol=0)
    u, s = 1e-9, 0.7  # H of -sinh(d)/d is -1/3 (1, -1; -1, 1), of tanh(2s)/s -16/3 (1, 1; 1, 1), of sin(p)/p here 0
    np.testing.assert_allclose(loss.hessian([0.0, 0.0]), [[-17 / 3, -5], [-5, -17 / 3]], rtol=1e-14)
    want = math.sin(s * s) / s**2 - 1 + math.tanh(4 * s) / (2 * s)
    np.testing.assert_allclose(loss.value([s, s + u]), want, rtol=1e-8)


def test_a_true_pole_stays_one():
    """sin(x)/x^2 is infinite at 0 and has its digits beside it."""
    loss = md.Loss(sp.sin(x) / x**2, [x])
    assert math.isinf(loss.value([0.0]))
    check(sp.sin(x) / x**2, [1e-8, -1e-4, 0.3])
