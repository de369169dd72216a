"""The elementary functions of kernels: accurate everywhere, right at the edges, vectorized."""

import math

import mpmath
import numpy as np
import pytest
from mpmath import mp
from ulp import BEYOND_ONE, INTERVALS, errors, function, points

import minidyn as md
from minidyn.graph import FUNCTIONS
from minidyn.kernels import vectormath
from minidyn.kernels.vectormath import elementwise

INF, NAN, TINY, HUGE = math.inf, math.nan, 5e-324, 1.7976931348623157e308
EDGES = [0.0, 1.0, 0.5, 2.0, TINY, 2.2250738585072014e-308, 2.225e-308, 1e-300, 1e-8, math.pi / 2, math.pi / 4,
         710.4758600739439, 710.475860073944, 709.782712893384, 709.7827128933841, 745.1332191019411, 745.1332191019412,
         36.7, 6381956970095103 * 2.0**797, HUGE, INF]  # fmt: skip
POLES = ("acosh_slope", "atanh_slope", "acoth_slope", "acsch", "atanh", "acoth", "asech")
EDGES += [-x for x in EDGES] + [NAN]


@pytest.mark.parametrize("name", INTERVALS)
def test_error(name):
    """Every function is within 2 ulp of fifty digits at a few thousand points over the whole range; the slope of tanh,
    which is a derivative and no function of the user's, within 2.5, and the small tail of erfc within 3.5."""
    bound = 2.0 if name == "pow" else FUNCTIONS[name].ulps
    assert errors(name, points(name, 2000, seed=1)).max() <= bound


def exact(name, *args):
    """What the function is at an edge, by mpmath and IEEE 754's rules for what has no value there."""
    x = args[0]
    if any(map(math.isnan, args)):
        return NAN
    if math.isinf(x):
        ends = {"exp": (0, INF), "expm1": (-1, INF), "log": (NAN, INF), "log1p": (NAN, INF), "sinh": (-INF, INF),
                "cosh": (INF, INF), "tanh": (-1, 1), "tanh_slope": (0, 0), "erf": (-1, 1),
                "erfc": (2, 0), "atan": (-math.pi / 2, math.pi / 2), "asinh": (-INF, INF), "acosh": (NAN, INF),
                "acsch": (-0.0, 0), "acoth": (-0.0, 0), "asec": (math.pi / 2,) * 2, "acsc": (-0.0, 0),
                "acot": (-0.0, 0), "cbrt": (-INF, INF), "asinh_slope": (0, 0), "acosh_slope": (NAN, 0),
                "acoth_slope": (-0.0, -0.0), "erf_slope": (0, 0)}  # fmt: skip
        return float(ends.get(name, (NAN, NAN))[x > 0])
    if name in ("log", "log1p"):
        place = x + (name == "log1p")
        if place <= 0.0:
            return -INF if place == 0.0 else NAN
    low, high = FUNCTIONS[name].domain
    if not low <= x <= high or (name in BEYOND_ONE and abs(x) < 1.0):
        return NAN
    if x == 0.0 and FUNCTIONS[name].zero:
        return x
    if name in POLES and abs(x) == (name != "acsch" and name != "asech"):
        return math.copysign(INF, x) if name in ("acsch", "atanh", "acoth") else INF
    with mp.workdps(400):
        return float(function(name)(mpmath.mpf(x)))


@pytest.mark.parametrize("name", [n for n in INTERVALS if n not in ("pow", "atan2")])
def test_edges(name):
    """NaN, infinities, signed zeros, subnormal numbers and overflow: the right value and the right sign."""
    got, x = np.empty(len(EDGES)), np.array(EDGES)
    elementwise(name)(x, got)
    for at, g in zip(EDGES, got.tolist(), strict=True):
        want = exact(name, at)
        same = math.isnan(g) if math.isnan(want) else g == want or abs(g - want) <= 2 * math.ulp(want)
        assert same and (math.isnan(want) or np.signbit(g) == np.signbit(want)), (at, g, want)


def test_edges_of_powers():
    """x**y at zeros, infinities, NaN, negative x, whole and odd y is what the C standard says."""
    some = [0.0, 1.0, 2.0, 3.0, 0.5, 2.5, INF, 1e308, TINY, 2.0**53 + 2, 1 + 2.0**-52, 1 - 2.0**-53]
    some += [-x for x in some] + [NAN]
    x, y = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(some, some))
    got = np.empty(len(x))
    elementwise("pow")(x, y, got)
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    finite = np.isfinite(want)
    assert np.all(np.abs(got[finite] - want[finite]) <= 2 * np.spacing(np.abs(want[finite])))
    np.testing.assert_array_equal(got[~finite], want[~finite])
    known = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(want[known]))


@pytest.mark.parametrize("name", INTERVALS)
def test_same_bits_everywhere(name):
    """A number alone has the bits that it has in an array: of vectors, and of what is left over at the end."""
    args = points(name, 60, seed=2)
    out = np.empty(len(args[0]))
    elementwise(name)(*args, out)
    alone = [getattr(vectormath, name)(*map(float, each)) for each in zip(*args, strict=True)]
    np.testing.assert_array_equal(out, alone)


@pytest.mark.parametrize("name", INTERVALS)
def test_vectorized(name):
    """The compiled loop calls nothing, and divides or multiplies several numbers at once."""
    x = np.ones(8)
    text = elementwise(name).assembly(*([x, x] if name in ("pow", "atan2") else [x]), x)
    assert "call" not in text
    packed = "mulpd fmadd213pd divpd fmul.2d fmla.2d fmul\tv fmla\tv fdiv\tv"
    assert any(p in text for p in packed.split(" "))


def test_odd_and_even():
    """tanh, sin, erf ... are odd and cos, cosh, the slope of tanh even, to the bit."""
    for name in ("tanh", "sin", "tan", "sinh", "erf", "asin", "atan", "cos", "cosh", "tanh_slope", "erf_slope"):
        x = np.abs(points(name, 300)[0])
        plus, minus = np.empty(len(x)), np.empty(len(x))
        elementwise(name)(x, plus)
        elementwise(name)(-x, minus)
        np.testing.assert_array_equal(minus, plus if name in ("cos", "cosh", "tanh_slope", "erf_slope") else -plus)


# -- samples side by side ---------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [2, 3, 7, 8, 9, 16, 20])
def test_any_number_of_samples(samples):
    """Value and gradient of a net are those of numpy whether the last block of eight samples is full or not."""
    import sympy as sp

    rng = np.random.default_rng(samples)
    a, b = md.vector("a", 5), md.vector("b", 5)
    x, j = sp.Symbol("x"), sp.Symbol("j", integer=True)
    inputs, target, w = rng.normal(size=samples), rng.normal(size=samples), rng.normal(size=10)
    loss = md.Loss.regression(sp.Sum(a[j] * sp.tanh(b[j] * x), (j, 0, 4)), [a, b], {x: inputs}, target)
    h = np.tanh(np.outer(inputs, w[5:]))
    r = h @ w[:5] - target
    np.testing.assert_allclose(loss.value(w), (r @ r) / (2 * samples), rtol=1e-14)
    slope = (r[:, None] * (1 - h**2) * inputs[:, None]).mean(axis=0) * w[:5]
    np.testing.assert_allclose(loss.grad(w), np.concatenate([r @ h / samples, slope]), rtol=1e-12)


def test_a_filled_up_block_adds_nothing():
    """A last sample whose loss is infinite counts once: the others' gradient does not become NaN."""
    import sympy as sp

    x, w = sp.symbols("x w")
    loss = md.Loss(w * sp.exp(x), [w], data={x: [0.0] * 9 + [700.0]})
    assert loss.grad([1.0])[0] == pytest.approx((9 + math.exp(700.0)) / 10, rel=1e-15)
