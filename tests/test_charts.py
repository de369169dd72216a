"""Charts: what they check before they are used, and the way from parameters to coordinates and back."""

import numpy as np
import problems as pb
import pytest
import sympy as sp
from sympy.core.random import rng

import minidyn as md
from minidyn.minima.charts import tidy

x, y, s, t = sp.symbols("x y s t")
a, b = sp.symbols("a b")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
CIRCLE = md.Loss((x**2 + y**2 - 1) ** 2 / 4, [x, y])


def chart(loss, place, *coordinates):
    return md.Manifold(loss, chart=place, coordinates=list(coordinates)).chart


@pytest.mark.parametrize("name", ["valley", "ellipse", "product", "two_products"])
def test_charts_of_the_library_lie_in_the_minima(name):
    """The charts of the model files are proved to lie in the minima, and the loss is 0 there."""
    known = md.load_model(name).manifold.chart
    assert known.proved
    value = sp.lambdify([known.params], known.expression, "numpy")
    for w in known.point(known.sample(5, np.random.default_rng(3))):
        assert value(w) < 1e-24 and value(w + 0.1) > 1e-4


def test_numerical_evidence_is_called_so():
    """What sympy cannot prove is checked at points, and the chart says that it is not proved."""
    rounded = chart(md.Loss((y - 0.1 * x) ** 2 / 2, [x, y]), {x: s, y: 0.1 * s + 1e-14 * s}, s)
    assert not rounded.proved and "numerically at 12 points, not proved" in rounded.evidence
    assert "proved symbolically" in chart(VALLEY, {x: s, y: 0}, s).evidence


def test_kinks_do_not_disturb():
    """A loss with absolute values is differentiated branch by branch."""
    loss = md.Loss((y - sp.Abs(x)) ** 2 * (1 + x**2), [x, y])
    assert chart(loss, {x: s, y: sp.Abs(s)}, s).proved


@pytest.mark.parametrize("w", [[0.6, 0.8], [-1.0, 0.0], [0.0, -1.0]])
def test_coordinates_come_back(w):
    """The coordinates of a point lead back to the point, for an angle the one nearest to zero."""
    known = chart(CIRCLE, {x: sp.cos(s), y: sp.sin(s)}, s)
    found = known.locate(w)
    np.testing.assert_allclose(known.point(found), w, atol=1e-12, rtol=0)
    assert abs(found[0]) <= np.pi + 1e-9


def test_a_coordinate_may_bear_a_parameters_name():
    """A chart in x itself is the same as one in another letter."""
    own = chart(VALLEY, {x: x, y: 0}, x)
    np.testing.assert_array_equal(own.point([1.5]), [1.5, 0.0])
    system = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.3))
    places = (md.Manifold(VALLEY, chart={x: q, y: 0}, coordinates=[q]) for q in (x, s))
    named, other = (md.QuasistaticFlow(system, place).closed_form() for place in places)
    assert x in named.drift_formula[0].free_symbols
    assert sp.simplify(named.drift_formula[0].subs(x, s) - other.drift_formula[0]) == 0
    np.testing.assert_array_equal(named.drift(named.start([1.5, 0.0])), other.drift(other.start([1.5, 0.0])))


def test_constants_of_the_loss_may_appear():
    """A chart may use the loss's constants, and follows their numbers."""
    r = sp.Symbol("r")
    loss = md.Loss((x**2 + y**2 - r**2) ** 2 / 4, [x, y], constants={r: 2.0})
    known = chart(loss, {x: r * sp.cos(s), y: r * sp.sin(s)}, s)
    assert known.proved
    np.testing.assert_allclose(known.point([0.0]), [2.0, 0.0])


@pytest.mark.parametrize(
    ("error", "message", "place", "coordinates"),
    [
        (md.ManifoldError, r"dL/dx = s\*\*3/100, which is .*every point", {x: s, y: s / 10}, [s]),
        (md.ManifoldError, "singular", {x: s + t, y: 0}, [s, t]),
        (md.ManifoldError, "singular", {x: 1, y: 0}, [s]),
        (md.InputError, "nothing about y", {x: s}, [s]),
        (md.InputError, "no parameter", {x: s, y: 0, a: s}, [s]),
        (md.InputError, "uses t", {x: s * t, y: 0}, [s]),
        (md.InputError, "list of different", {x: s, y: 0}, []),
        (md.InputError, "not finite", {x: sp.sqrt(-1 - s**2), y: 0}, [s]),
    ],
)
def test_wrong_charts_are_refused(error, message, place, coordinates):
    """A chart off the minima, singular, or of the wrong symbols is refused in one sentence that names the trouble."""
    with pytest.raises(error, match=message):
        md.Manifold(VALLEY, chart=place, coordinates=coordinates)


def test_too_few_coordinates_are_refused():
    """A curve on a surface of minima is no chart of it."""
    flat = md.Loss(y**2 / 2 + 0 * x + 0 * a, [x, y, a])
    with pytest.raises(md.ManifoldError, match="minima have dimension 2"):
        md.Manifold(flat, chart={x: s, y: 0, a: 1}, coordinates=[s])


def test_saddles_are_refused():
    """A curve of critical points where the loss curves down is no chart of minima."""
    with pytest.raises(md.ManifoldError, match="saddles"):
        md.Manifold(md.Loss(-(y**2) * (1 + x**2), [x, y]), chart={x: s, y: 0}, coordinates=[s])


def test_both_halves_are_needed():
    """A chart without coordinates says what is missing."""
    with pytest.raises(md.InputError, match="both chart="):
        md.Manifold(VALLEY, chart={x: s, y: 0})


def test_points_off_the_chart_are_refused():
    """A point on another branch of the minima than the chart's is refused."""
    loss = md.Loss((a * b - 1) ** 2 / 2, [a, b])
    known = chart(loss, {a: sp.exp(s), b: sp.exp(-s)}, s)
    np.testing.assert_allclose(known.locate([2.0, 0.5]), [np.log(2)])
    with pytest.raises(md.ManifoldError, match="another branch"):
        known.locate([-2.0, -0.5])


def test_model_files_name_their_chart(tmp_path):
    """A model file whose chart leaves the minima is refused with the section's name."""
    text = md.load_model("valley").text.replace('y = "0"', 'y = "s"')
    path = tmp_path / "crooked.toml"
    path.write_text(text)
    with pytest.raises(md.ModelFileError, match=r"\[manifold\].*does not lie in the minima"):
        md.load_model(path).manifold  # noqa: B018


@pytest.mark.parametrize(
    "e", [sp.sin(s) ** 2 + sp.cos(s) ** 2 - 1, (s**2 - 1) / (s - 1) - s - 1, 1 / (1 + sp.tan(s) ** 2) - sp.cos(s) ** 2]
)
def test_tidy_finds_zeros(e):
    """Sines squared and common factors cancel."""
    assert tidy(e) == 0


def test_tidy_leaves_long_products_alone():
    """A product that would be multiplied out into thousands of terms comes back as it is."""
    product = sp.prod(1 / sum(sp.Symbol(f"z{i}{j}") for j in range(6)) for i in range(8)) + pb.x
    assert tidy(product) == product


def test_what_sympy_draws_at_random_is_the_same_every_time(monkeypatch):
    """sympy factors with random points: `tidy` gives it the same ones each time, and leaves its generator as it was."""
    monkeypatch.setattr("minidyn.minima.charts.sp.factor", lambda e: sp.Integer(rng.randint(0, 10**9)))
    rng.seed(5)
    before = rng.getstate()
    first = tidy((x**2 - 1) / (x - 1) + y)
    assert rng.getstate() == before
    rng.seed(6)
    assert tidy((x**2 - 1) / (x - 1) + y) == first
