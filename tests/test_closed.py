"""Closed forms of the quasistatic flow: equal to the numerical flow, in the literature's shape, run like any flow."""

from functools import cache

import numpy as np
import pytest
import sympy as sp
from conformance import check_flow

import minidyn as md
from minidyn.flows.slow.closed import ClosedFormFlow

x, y, s = sp.symbols("x y s")
lr, sigma, std, momentum = (sp.Symbol(n, positive=True) for n in ("lr", "sigma", "std", "momentum"))
LOGCOSH = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
CURVED = md.Loss((2 + sp.cos(x)) * (y - sp.sin(x)) ** 2 / 2, [x, y])
u = sp.Symbol("u")  # its mean is zero: samples disagree, the minima are those of the first term
SAMPLES = md.Loss((1 + x**2 / 3) * y**2 / 2 + u * (1 + x / 2) * y + u * x, [x, y], data={u: [0.5, -1.0, 0.5]})
RULES = {
    "SGD": md.SGD(0.02),
    "heavy ball": md.SGD(0.01, momentum=0.8),
    "RMSProp": md.RMSProp(0.01, beta2=0.95, eps=1e-3),
    "Adam": md.Adam(0.005, beta1=0.8, beta2=0.95),
    "sign": md.SignGD(0.004),
}
GAUSS, LABEL = md.GaussianNoise(0.3), md.LabelNoise(0.5)
VARYING = md.GaussianNoise([sp.sqrt(sp.Rational(1, 5) + x**2 / 20), sp.sqrt(sp.Rational(1, 10) + y**2 / 20)])


def of_model(name):
    known = md.load_model(name)
    return known.loss, known.manifold


def of_chart(loss, place):
    return loss, md.Manifold(loss, chart=place, coordinates=[s])


PLACES = {
    "valley": lambda: of_model("valley"),
    "ellipse": lambda: of_model("ellipse"),
    "product": lambda: of_model("product"),
    "two_products": lambda: of_model("two_products"),
    "curved": lambda: of_chart(CURVED, {x: s, y: sp.sin(s)}),
    "samples": lambda: of_chart(SAMPLES, {x: s, y: 0}),
}
NOISES = {
    ("valley", "SGD"): GAUSS,
    ("ellipse", "SGD"): GAUSS,
    ("product", "Adam"): LABEL,
    ("two_products", "SGD"): LABEL,
    ("curved", "RMSProp"): VARYING,
    ("samples", "SGD"): md.Minibatch(2),
}
SDE, ODE = ("valley", "SGD"), ("product", "Adam")


@cache
def flow_of(name, rule):
    loss, manifold = PLACES[name]()
    return md.QuasistaticFlow(md.Map(loss, RULES[rule], NOISES[name, rule]), manifold, "full")


@cache
def closed_of(name, rule):
    return flow_of(name, rule).closed_form()


def by_formula(closed, at):
    """Drift (d,) and covariance (d, d) of the coordinates from the printed formulas alone."""
    numbers = dict(closed.values) | dict(zip(closed.coordinates, map(float, at), strict=True))
    for letter, e in closed.letters.items():
        numbers[letter] = e.evalf(20, subs=numbers)
    return [
        np.array([[float(e.evalf(20, subs=numbers)) for e in row] for row in m.tolist()])
        for m in (closed.drift_formula, closed.covariance_formula)
    ]


@pytest.mark.parametrize(("name", "rule"), NOISES)
def test_closed_form_equals_the_numerical_flow(name, rule):
    """Drift and covariance are the numerical flow's to 1e-10 at random points."""
    flow, closed = flow_of(name, rule), closed_of(name, rule)
    chart = flow.manifold.chart
    samples = chart.sample(3, np.random.default_rng(11))
    samples = np.sign(samples) * (0.6 + 0.3 * np.abs(samples))  # where the minima are stable
    bend = [
        [sp.lambdify([chart.coordinates], sp.diff(e, p, q)) for p in chart.coordinates for q in chart.coordinates]
        for e in chart.place
    ]
    for at in samples:
        drift, covariance = by_formula(closed, at)
        w, slope = chart.point(at), chart.jacobian(at)
        ito = np.array([[f(at) for f in row] for row in bend], float) @ covariance.ravel() / 2
        expected, factor = flow.drift(w), flow.diffusion(w)
        np.testing.assert_allclose(slope @ drift[:, 0] + ito, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
        wanted = factor @ factor.T
        np.testing.assert_allclose(slope @ covariance @ slope.T, wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())


@pytest.mark.parametrize("case", [SDE, ODE], ids=lambda c: c[0])
def test_kernels_hold_the_formula(case):
    """The compiled flow returns what the printed formulas say, for theta and for the coordinates."""
    closed = closed_of(*case)
    at = np.array([1.7])
    drift, covariance = by_formula(closed, at)
    state = [*closed.chart.point(at), *at]
    assert closed.drift(state)[-1] == pytest.approx(drift[0, 0], rel=1e-12)
    (q,) = closed.chart.coordinates
    slope, bend = (np.array([float(sp.diff(e, q, n).subs(q, at[0])) for e in closed.chart.place]) for n in (1, 2))
    np.testing.assert_allclose(closed.drift(state)[:2], slope * drift[0, 0] + bend * covariance[0, 0] / 2, rtol=1e-12)
    factor = closed.diffusion(state)
    np.testing.assert_allclose((factor @ factor.T)[-1, -1], covariance[0, 0], rtol=1e-12)


def closed_form(loss, place, rule, noise, **options):
    return md.QuasistaticFlow(
        md.Map(loss, rule, noise), md.Manifold(loss, chart=place, coordinates=[s]), **options
    ).closed_form()


def equal(e, f):
    return sp.simplify(e - f) == 0


def test_valley_in_letters():
    """On the valley the formula is the published one: at finite lr, to leading order, and with its potential log h."""
    flow = closed_form(md.Loss((1 + x**2) * y**2 / 2, [x, y]), {x: s, y: 0}, md.SGD(0.05), GAUSS)
    h = 1 + s**2
    assert equal(flow.drift_formula[0], -(sigma**2) * lr * sp.diff(h, s) / (2 * h * (2 - lr * h)))
    assert equal(flow.covariance_formula[0], lr * sigma**2)
    assert equal(flow.leading_drift[0], -lr * sigma**2 / 4 * sp.diff(h, s) / h)
    assert equal(sp.diff(flow.potential.value, s), lr * sigma**2 / 4 * sp.diff(h, s) / h)
    assert flow.values == {lr: 0.05, sigma: 0.3} and not flow.letters


def test_label_noise_descends_the_trace():
    """On ab = 1 with label noise the effective potential is lr std^2 tr H / 4 in the metric of the hyperbola."""
    loss, manifold = of_model("product")
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.02), LABEL), manifold).closed_form()
    t = flow.coordinates[0]
    assert equal(sp.diff(flow.potential.value - lr * std**2 / 4 * (t**2 + 1 / t**2), t), 0)
    assert equal(flow.potential.metric[0], 1 + 1 / t**4) and not flow.potential.flat
    assert equal(flow.covariance_formula[0], 0)


def test_heavy_ball_is_sgd_with_a_larger_lr_to_leading_order():
    """Label noise: the leading drift per step of heavy ball is SGD's at lr / (1 - momentum), as a formula."""
    loss, manifold = of_model("product")
    sgd = md.QuasistaticFlow(md.Map(loss, md.SGD(0.02), LABEL), manifold).closed_form()
    ball = md.QuasistaticFlow(md.Map(loss, md.SGD(0.02, momentum=0.9), LABEL), manifold).closed_form()
    per_step = (sgd.leading_drift[0] * lr).subs(lr, lr / (1 - momentum))
    assert equal(ball.leading_drift[0] * lr, per_step)


def test_circle_carries_a_brownian_motion():
    """Isotropic noise on the circle: no drift of the angle, variance lr sigma^2 per unit of t, at any lr."""
    flow = closed_form(md.Loss((x**2 + y**2 - 1) ** 2 / 4, [x, y]), {x: sp.cos(s), y: sp.sin(s)}, md.SGD(0.05), GAUSS)
    assert flow.drift_formula[0] == 0 and equal(flow.covariance_formula[0], lr * sigma**2)


def test_coordinates_do_not_matter():
    """In the coordinate u = s^3 + s the drift is that of Ito's formula for the coordinate s."""
    loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    plain = closed_form(loss, {x: s, y: 0}, md.SGD(0.05), GAUSS)
    other = closed_form(loss, {x: s**3 + s, y: 0}, md.SGD(0.05), GAUSS)
    u = s**3 + s
    slope, bend = sp.diff(u, s), sp.diff(u, s, 2)
    carried = other.drift_formula[0] * slope + other.covariance_formula[0] * bend / 2
    assert equal(carried, plain.drift_formula[0].subs(s, u))


@pytest.mark.parametrize(("case", "w"), [(SDE, [1.3, 0.0]), (ODE, [2.0, 0.5])], ids=["SDE", "ODE"])
def test_closed_forms_are_flows(case, w):
    """A closed form satisfies all that a flow must, with the coordinates behind theta in its state."""
    assert isinstance(closed_of(*case), ClosedFormFlow)
    check_flow(closed_of(*case), w)


def test_runs_save_theta_and_stay_on_the_chart():
    """Driven by the same normals the closed form follows the numerical flow, and its theta lies on the chart."""
    closed, flow = closed_of(*SDE), flow_of(*SDE)
    runs = [md.simulate(f, [1.0, 0.0], 400, paths=8, substeps=1, save_every=100, rng=4) for f in (closed, flow)]
    assert runs[0].w.shape == (8, 5, 2) and runs[0].meta["coupled"]
    assert not runs[0].w[..., 1].any() and runs[0].w[:, -1, 0].std() > 0.01
    np.testing.assert_allclose(runs[0].w, runs[1].w, rtol=1e-10, atol=1e-12)


def test_no_chart_no_closed_form():
    """Without a chart the closed form is refused, and the flow still describes itself."""
    flow = md.QuasistaticFlow(md.Map(LOGCOSH, md.SGD(0.02), GAUSS))
    with pytest.raises(md.FlowError, match="needs a chart"):
        flow.closed_form()
    assert "chart" not in flow.describe()


def test_unstable_minima_are_refused():
    """Where 2 < lr h the closed form gives no number either."""
    closed = closed_of(*SDE)
    closed.drift([9.9, 0.0])
    with pytest.raises(md.FlowError, match="unstable"):
        closed.drift([10.0, 0.0])
    with pytest.raises(md.FlowError, match="unstable"):
        closed_of(*ODE).drift([3000.0, 1 / 3000])


def test_description_holds_the_formula():
    """`describe` of a flow with a chart prints the closed form, its evidence, its numbers, in text and in LaTeX."""
    loss, manifold = of_model("valley")
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.05), GAUSS), manifold)
    text, latex = flow._describe(False), flow.describe(latex=True)
    formula = "drift of s per t = lr*s*sigma**2/((s**2 + 1)*(lr*s**2 + lr - 2))"
    for part in (formula, "proved symbolically", "sigma = 0.3", "to leading order in lr", "effective potential"):
        assert part in text
    assert r"\mathrm{d}s/\mathrm{d}t = \frac{\eta s \sigma^{2}}" in latex
    assert latex.count("$") % 2 == 0 and "sigma**2" not in latex


def test_potentials_are_real():
    """A potential is a real number everywhere in its chart, and its slope is the leading drift."""
    x, y, s = sp.symbols("x y s")
    loss = md.Loss(sp.exp(x) * (x**2 / 4 + y**2 - 1) ** 2 / 2, [x, y])
    manifold = md.Manifold(loss, chart={x: 2 * sp.cos(s), y: sp.sin(s)}, coordinates=[s])
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.05), md.GaussianNoise(0.3)), manifold).closed_form()
    known, at = flow.potential, {v: 1.0 for v in flow.values}
    for place in (-2.5, 0.3, 1.1, 3.0):
        here = at | {flow.coordinates[0]: place}
        assert known.value.subs(here).is_real
        slope = sp.diff(known.value, flow.coordinates[0]).subs(here)
        assert float(flow.leading_drift[0].subs(here)) == pytest.approx(-float(slope / known.metric[0].subs(here)))


def test_long_formulas_come_with_definitions():
    """Where the formula is too long it is given in letters, which the description defines."""
    closed = closed_of(*ODE)
    text = closed._describe(False)
    assert closed.letters and f"{len(closed.letters)} definitions" in text
    assert all(f"  {letter} = " in text for letter in closed.letters)


# -- noise that multiplies the oscillation ---------------------------------------------------------------------

c = sp.Symbol("c")
UNEVEN = md.Loss(c * (1 + x**2) * y**2 / 2, [x, y], data={c: [0.4, 1.0, 1.6]})
PAIRS = md.Loss.regression(x * y * c, [x, y], {c: [0.5, 2.0]}, [0.5, 2.0])
SLOPED = md.Loss((1 + x**2) * y**2 / 2, [x, y])
MULTIPLIED = {
    "batches": (UNEVEN, {x: s, y: 0}, md.GaussianNoise(0.1) + md.Minibatch(2)),
    "labels": (PAIRS, {x: s, y: 1 / s}, md.LabelNoise(0.1, batch=1)),
    "across": (SLOPED, {x: s, y: 0}, md.GaussianNoise([[0.1, 0, 0], [0, 0.1, 3 * y]])),
    "along": (SLOPED, {x: s, y: 0}, md.GaussianNoise([[0.1, 2 * y, 0], [0.05, 0, y]])),
}


def check_numerical(flow, closed, w, at):
    """At `w`, of the coordinate `at`, drift and diffusion of a closed form are the numerical flow's: its drift."""
    state, expected, wanted = [*w, at], flow.drift(w), flow.diffusion(w)
    np.testing.assert_allclose(closed.drift(state)[:2], expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    ours = closed.diffusion(state)[:2]
    np.testing.assert_allclose(ours @ ours.T, wanted @ wanted.T, rtol=1e-10, atol=1e-16)
    return expected


@pytest.mark.parametrize("name", MULTIPLIED)
@pytest.mark.parametrize("rule", [md.SGD(0.05), md.SGD(0.04, momentum=0.6)], ids=["SGD", "heavy ball"])
def test_multiplied_noise_has_the_numerical_flow_in_closed_form(name, rule):
    """With batches, labels on batches and slopes of sigma, drift and diffusion are the numerical flow's."""
    loss, place, noise = MULTIPLIED[name]
    flow = md.QuasistaticFlow(md.Map(loss, rule, noise), md.Manifold(loss, chart=place, coordinates=[s]))
    closed = flow.closed_form()
    for at in (0.8, 1.6):
        w = closed.chart.point([at])
        check_numerical(flow, closed, w, at)
    assert closed.derivation.feedback.rows == 1


def test_closed_form_ends_where_second_moments_grow():
    """Beyond the mean-square edge of batches the closed form refuses as the numerical flow does."""
    steep = md.Loss(c * (1 + x**2) * y**2 / 2, [x, y], data={c: [0.1, 1.9]})
    flow = md.QuasistaticFlow(
        md.Map(steep, md.SGD(0.45), md.GaussianNoise(0.1) + md.Minibatch(1)),
        md.Manifold(steep, chart={x: s, y: 0}, coordinates=[s]),
    )
    closed = flow.closed_form()
    for at, stable in ((0.5, True), (1.2, True), (1.5, False), (1.8, False)):
        assert md.stability(flow.map, [at, 0.0]).stable == stable
        for which, w in ((flow, [at, 0.0]), (closed, [at, 0.0, at])):
            if stable:
                assert np.isfinite(which.drift(w)).all()
            else:
                with pytest.raises(md.FlowError, match="unstable"):
                    which.drift(w)


def test_mixed_directions_are_refused_before_they_take_hours():
    """Heavy ball in codimension 2 with curvatures that turn along the minima is refused in one sentence, at once."""
    v, z = sp.symbols("v z")
    turned = (
        sp.Matrix([v, z]).T
        * sp.Matrix([[3 + sp.cos(x), sp.sin(x) / 2], [sp.sin(x) / 2, 2 - sp.cos(x) / 3]])
        * sp.Matrix([v, z])
    )
    loss = md.Loss(turned[0] / 2, [x, v, z])
    flow = md.QuasistaticFlow(
        md.Map(loss, md.SGD(0.1, momentum=0.5), md.GaussianNoise(0.1)),
        md.Manifold(loss, chart={x: s, v: 0, z: 0}, coordinates=[s]),
    )
    with pytest.raises(md.FlowError, match="too many to be solved for in closed form"):
        _ = flow.closed_form().derivation
    assert np.isfinite(flow.drift([0.4, 0.0, 0.0])).all()


@pytest.mark.parametrize("rule", [md.RMSProp(0.01, beta2=0.9, eps=1e-3), md.Adam(0.01, 0.6, 0.9, 1e-3)], ids=str)
@pytest.mark.parametrize("name", ["batches", "labels"])
def test_self_consistent_accumulators_have_the_numerical_flow_in_closed_form(name, rule):
    """The equations of what accumulators hear of the oscillation are solved where the form is evaluated: drift and
    diffusion are the numerical flow's, and differ from those around diag Sigma; the leading order is the same."""
    loss, place, noise = MULTIPLIED[name]
    manifold = md.Manifold(loss, chart=place, coordinates=[s])
    flow, full = (md.QuasistaticFlow(md.Map(loss, rule, noise), manifold, a) for a in ("self-consistent", "full"))
    closed = flow.closed_form()
    for at in (0.8, 1.4):
        w = closed.chart.point([at])
        expected = check_numerical(flow, closed, w, at)
        assert np.abs(full.drift(w) - expected).max() > 1e-4 * np.abs(expected).max()
    assert "solve, together" in closed._describe(False)
