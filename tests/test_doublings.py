"""Doublings are where multipliers are -1: against mpmath, known digits, closed forms and published ratios."""

import mpmath
import numpy as np
import pytest
import sympy as sp

import minidyn as md

x, y, r = sp.symbols("x y r")
LOGISTIC = md.Map(md.Loss((1 - r) * x**2 / 2 + r * x**3 / 3, [x], constants={r: 2.5}), md.GD(1.0))
KNOWN = [3.0, 1 + 6**0.5, 3.5440903595519, 3.5644072660954, 3.5687594195438, 3.5696916098014]


def product(factors, rule):
    """`(x_1 ... x_k - 1)^2 / 2`."""
    names = sp.symbols(f"a:{factors}")
    return md.Map(md.Loss((sp.prod(names) - 1) ** 2 / 2, names), rule)


def test_the_logistic_map_doubles_where_it_is_known_to():
    """Its first six doublings to eleven digits, and where they lead (Feigenbaum 1978)."""
    seen = md.doublings(LOGISTIC, r, (2.5, 3.6), w0=[0.3], count=6)
    np.testing.assert_allclose(seen.values, KNOWN, rtol=1e-11, atol=0)
    assert seen.periods.tolist() == [1, 2, 4, 8, 16, 32] and seen.limit == pytest.approx(3.569945672, abs=1e-7)


@pytest.mark.parametrize("n", [4, 8])
def test_multipliers_are_minus_one_in_forty_digits(n):
    """At the doubling of period n mpmath finds a cycle of n steps whose multiplier is -1 to 1e-9."""
    value = md.doublings(LOGISTIC, "r", (2.5, 3.6), w0=[0.3], count=4).values[int(np.log2(n))]
    with mpmath.workdps(40):
        mu, point = mpmath.mpf(float(value)), mpmath.mpf("0.3")
        for _ in range(4000):
            point = mu * point * (1 - point)

        def around(start):
            z, slope = start, mpmath.mpf(1)
            for _ in range(n):
                z, slope = mu * z * (1 - z), slope * mu * (1 - 2 * z)
            return z, slope

        point = mpmath.findroot(lambda z: around(z)[0] - z, point)
        half = point
        for _ in range(n // 2):
            half = mu * half * (1 - half)
        assert abs(around(point)[1] + 1) < 1e-9 and abs(half - point) > 1e-3


@pytest.mark.parametrize(
    ("factors", "ratios"), [(2, [4.543, 4.641, 4.663]), (4, [4.338, 4.622, 4.657]), (3, None), (5, None)]
)
def test_the_cascade_of_products(factors, ratios):
    """From a balanced start the first doubling is at 2/k, the next ratios are the published ones to 0.05 %."""
    system = product(factors, md.GD(1.8 / factors))
    seen = md.doublings(system, "lr", (1.8 / factors, 1.5), w0=[0.9] * factors, count=5 if ratios else 1)
    assert seen.values[0] == pytest.approx(2 / factors, abs=1e-12)
    if ratios:
        np.testing.assert_allclose(seen.ratios, ratios, rtol=5e-4, atol=0)
    if factors == 2:  # the orbit of period two is known in closed form
        assert seen.values[1] == pytest.approx(5**0.5 - 1, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [
        (md.SGD(1.0, momentum=0.4), 2 * 1.4 / 2),
        (md.SGD(0.7, momentum=0.4, nesterov=True), 2 * 1.4 / 1.8 / 2),
        (md.SGD(1.0, momentum=0.9), 2 * 1.9 / 2),
    ],
)
def test_momentum_doubles_at_its_own_threshold(rule, threshold):
    """Heavy ball at 2 (1 + b)/h, Nesterov's at 2 (1 + b)/((1 + 2b) h), for the sharpness h = 2 of x y = 1."""
    seen = md.doublings(product(2, rule), "lr", (0.9 * threshold, 3.0), w0=[0.99, 0.99], count=2)
    assert seen.values[0] == pytest.approx(threshold, rel=1e-10) and seen.values[1] > threshold


def test_a_cascade_downwards_and_of_period_three():
    """A parameter that falls: the same points. The window of period three begins a cascade of 3, 6, 12."""
    other = md.Map(md.Loss((1 + r) * x**2 / 2 - r * x**3 / 3, [x], constants={r: -2.5}), md.GD(1.0))
    down = md.doublings(other, r, (-2.5, -3.6), w0=[0.3], count=3)
    np.testing.assert_allclose(-down.values, KNOWN[:3], rtol=1e-11, atol=0)
    three = md.doublings(LOGISTIC, r, (3.835, 3.85), w0=[0.3], count=6)
    assert three.periods.tolist() == [3, 6, 12, 24, 48, 96] and three.values[0] == pytest.approx(3.8414990, abs=1e-7)
    assert three.ratios[-1] == pytest.approx(4.669, abs=0.01)


def test_a_cascade_that_ends_says_so():
    """A quartic valley that stiffens doubles once, into nothing that attracts; one number and the reason are left."""
    stiff = md.Map(md.Loss(x**2 / 2 + x**4 / 4, [x]), md.GD(1.0))
    seen = md.doublings(stiff, "lr", (1.0, 2.5), w0=[0.1], count=3)
    assert seen.values.tolist() == pytest.approx([2.0], abs=1e-12) and np.isnan(seen.limit)
    assert "no attracting cycle of 2 steps begins" in " ".join(seen.summary().split())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: md.doublings(LOGISTIC, r, (2.5, 2.9), w0=[0.3]), "does not double its period"),
        (lambda: md.doublings(LOGISTIC, r, (3.9, 4.0), w0=[0.3]), "settles on no cycle of up to 64"),
        (lambda: md.doublings(LOGISTIC, r, (2.5, 2.5), w0=[0.3]), "two different values"),
        (lambda: md.doublings(LOGISTIC, r, 2.5, w0=[0.3]), "two different values"),
        (lambda: md.doublings(LOGISTIC, "q", (2.5, 3.5), w0=[0.3]), "is no number of this map"),
        (lambda: md.doublings(LOGISTIC, r, (2.5, 3.5), w0=[[0.3]]), "expected one starting point"),
        (
            lambda: md.doublings(md.Map(LOGISTIC.loss, md.SGD(0.1), md.GaussianNoise(1.0)), "lr", (1, 2), w0=[0.3]),
            "without noise",
        ),
        (
            lambda: md.doublings(md.Map(LOGISTIC.loss, md.GD(1 / sp.Symbol("k"))), r, (1, 2), w0=[0.3]),
            "changes from step to step",
        ),
    ],
)
def test_what_has_no_doublings_is_refused(call, words):
    """No doubling in the interval, no cycle at its beginning, and arguments that do not fit: one sentence each."""
    with pytest.raises(md.MinidynError, match=words):
        call()
