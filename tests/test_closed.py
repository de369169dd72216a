"""Closed forms of the quasistatic flow: equal to the numerical flow, in the literature's shape, run like any flow."""

import numpy as np
import pytest
import sympy as sp
from conformance import check_flow

import minidyn as md
from minidyn.flows.closed import ClosedFormFlow

x, y, s = sp.symbols("x y s")
lr, sigma, std, momentum = (sp.Symbol(n, positive=True) for n in ("lr", "sigma", "std", "momentum"))
LOGCOSH = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
CURVED = md.Loss((2 + sp.cos(x)) * (y - sp.sin(x)) ** 2 / 2, [x, y])
u = sp.Symbol("u")  # its mean is zero: samples disagree, the minima are those of the first term
SAMPLES = md.Loss((1 + x**2 / 3) * y**2 / 2 + u * (1 + x / 2) * y + u * x, [x, y], data={u: [0.5, -1.0, 0.5]})
RULES = {
    "SGD": md.SGD(0.02), "heavy ball": md.SGD(0.01, momentum=0.8), "RMSProp": md.RMSProp(0.01, beta2=0.95, eps=1e-3),
    "Adam": md.Adam(0.005, beta1=0.8, beta2=0.95), "sign": md.SignGD(0.004),
}  # fmt: skip
GAUSS, LABEL = md.GaussianNoise(0.3), md.LabelNoise(0.5)
VARYING = md.GaussianNoise([sp.sqrt(sp.Rational(1, 5) + x**2 / 20), sp.sqrt(sp.Rational(1, 10) + y**2 / 20)])


def of_model(name):
    known = md.load_model(name)
    return known.loss, known.manifold


def of_chart(loss, place):
    return loss, md.Manifold(loss, chart=place, coordinates=[s])


PLACES = {
    "valley": lambda: of_model("valley"), "ellipse": lambda: of_model("ellipse"),
    "product": lambda: of_model("product"), "two_products": lambda: of_model("two_products"),
    "logcosh_valley": lambda: of_chart(LOGCOSH, {x: s, y: 0}), "curved": lambda: of_chart(CURVED, {x: s, y: sp.sin(s)}),
    "samples": lambda: of_chart(SAMPLES, {x: s, y: 0}),
}  # fmt: skip
CASES = [
    ("valley", "SGD", GAUSS, "full"), ("valley", "sign", GAUSS, "full"), ("ellipse", "SGD", GAUSS, "full"),
    ("product", "heavy ball", LABEL, "full"), ("product", "Adam", LABEL, "full"), ("product", "RMSProp", LABEL, "frozen"),
    ("two_products", "SGD", LABEL, "full"), ("logcosh_valley", "Adam", GAUSS, "frozen"),
    ("curved", "RMSProp", VARYING, "full"), ("samples", "SGD", md.Minibatch(2), "full"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rule", "noise", "accumulators"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_closed_form_equals_the_numerical_flow(name, rule, noise, accumulators):
    """Drift and covariance are the numerical flow's to 1e-10 at random points (all cases: `benchmarks.closed_forms`)."""
    loss, manifold = PLACES[name]()
    flow = md.QuasistaticFlow(md.Map(loss, RULES[rule], noise), manifold, accumulators)
    closed = flow.closed_form()
    at = manifold.chart.sample(4, np.random.default_rng(11))
    at = np.sign(at) * (0.6 + 0.3 * np.abs(at))  # where the minima are stable
    points = manifold.chart.point(at)
    state = np.concatenate([points, at], axis=1)
    drift, expected = closed.drift(state), flow.drift(points)
    factor, wanted = closed.diffusion(state), flow.diffusion(points)
    size = loss.dim
    scale = np.abs(expected).max()
    np.testing.assert_allclose(drift[:, :size], expected, rtol=1e-10, atol=1e-10 * scale)
    covariance = factor @ factor.transpose(0, 2, 1)
    wanted = wanted @ wanted.transpose(0, 2, 1)
    np.testing.assert_allclose(covariance[:, :size, :size], wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max())
    # the coordinates' own formulas are those that theta follows
    slope = manifold.chart.jacobian(at)
    np.testing.assert_allclose(
        covariance[:, :size, :size], slope @ covariance[:, size:, size:] @ slope.transpose(0, 2, 1), atol=1e-14
    )


def closed_form(loss, place, rule, noise, **options):
    return md.QuasistaticFlow(md.Map(loss, rule, noise), md.Manifold(loss, chart=place, coordinates=[s]), **options).closed_form()


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


SGD_ON_VALLEY = ("valley", "SGD", GAUSS)
ADAM_ON_PRODUCT = ("product", "Adam", LABEL)


@pytest.mark.parametrize(("case", "w"), [(SGD_ON_VALLEY, [1.3, 0.0]), (ADAM_ON_PRODUCT, [2.0, 0.5])])
def test_closed_forms_are_flows(case, w):
    """A closed form satisfies all that a flow must, with the coordinates behind theta in its state."""
    name, rule, noise = case
    loss, manifold = PLACES[name]()
    check_flow(ClosedFormFlow(md.Map(loss, RULES[rule], noise), manifold), w)


def test_runs_save_theta_and_stay_on_the_chart():
    """Driven by the same normals the closed form follows the numerical flow, and its theta lies on the chart."""
    loss, manifold = of_model("ellipse")
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.02), GAUSS), manifold)
    runs = [md.simulate(f, [0.0, 1.0], 400, paths=8, substeps=1, save_every=100, rng=4) for f in (flow.closed_form(), flow)]
    assert runs[0].w.shape == (8, 5, 2) and runs[0].meta["coupled"]
    assert np.abs(runs[0].w[..., 0] ** 2 / 4 + runs[0].w[..., 1] ** 2 - 1).max() < 1e-12
    spread = runs[1].w[:, -1].std(axis=0)
    assert np.all(np.abs(runs[0].w - runs[1].w)[:, -1].max(axis=0) < 0.05 * spread)


def test_no_chart_no_closed_form():
    """Without a chart the closed form is refused, and the flow still describes itself."""
    flow = md.QuasistaticFlow(md.Map(LOGCOSH, md.SGD(0.02), GAUSS))
    with pytest.raises(md.FlowError, match="needs a chart"):
        flow.closed_form()
    assert "chart" not in flow.describe()


def test_unstable_minima_are_refused():
    """Where 2 < lr h the closed form gives no number either."""
    loss, manifold = of_model("valley")
    for rule in (md.SGD(0.5), md.SGD(0.5, momentum=0.1)):
        closed = md.QuasistaticFlow(md.Map(loss, rule, GAUSS), manifold).closed_form()
        with pytest.raises(md.FlowError, match="unstable"):
            closed.drift([2.5, 0.0])


def test_rules_without_a_closed_form_say_so():
    """An accumulator that moves the parameters by itself has no closed form here: the numerical flow describes itself."""

    @md.rule
    def pushed(theta, g, v, *, lr, beta=0.9):
        v = beta * v + (1 - beta) * g**2
        return theta - lr * g - lr * (v - v), v

    loss, manifold = of_model("valley")
    closed = md.QuasistaticFlow(md.Map(loss, pushed(0.02), GAUSS), manifold).closed_form()
    plain = md.QuasistaticFlow(md.Map(loss, md.SGD(0.02), GAUSS), manifold).closed_form()
    np.testing.assert_allclose(closed.drift([1.0, 0.0]), plain.drift([1.0, 0.0]), rtol=1e-12)


def test_description_holds_the_formula():
    """`describe` of a flow with a chart prints the closed form, its evidence, its numbers, in text and in LaTeX."""
    loss, manifold = of_model("valley")
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.05), GAUSS), manifold)
    text, latex = flow.describe(), flow.describe(latex=True)
    for part in ("drift of s per t = lr*s*sigma**2/((s**2 + 1)*(lr*s**2 + lr - 2))", "proved symbolically", "sigma = 0.3",
                 "to leading order in lr", "effective potential"):  # fmt: skip
        assert part in text
    assert r"\mathrm{d}s/\mathrm{d}t = \frac{\eta s \sigma^{2}}" in latex
    assert latex.count("$") % 2 == 0 and "sigma**2" not in latex


def test_long_formulas_come_with_definitions():
    """Where the formula is too long it is given in letters with their definitions, and both readings agree."""
    loss, manifold = of_model("product")
    closed = md.QuasistaticFlow(md.Map(loss, RULES["Adam"], LABEL), manifold).closed_form()
    assert closed.letters and "definitions" in closed.describe()
    at = dict(closed.values) | {closed.coordinates[0]: 1.7}
    for letter, e in closed.letters.items():
        at[letter] = sp.N(e.subs(at), 30)
    by_hand = float(closed.drift_formula[0].subs(at))
    assert closed.drift([*manifold.chart.point([1.7]), 1.7])[2] == pytest.approx(by_hand, rel=1e-12)


