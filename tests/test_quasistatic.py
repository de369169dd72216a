"""Quasistatic flow: against the literal oracle, closed forms, and discrete runs."""

import numpy as np
import problems as pb
import pytest
import sympy as sp
import twins

import minidyn as md

x, y = pb.x, pb.y
ELLIPSE = pb.ellipse(0.7)
SIGMA = [sp.sqrt(sp.Rational(9, 100) + x**2 / 50), sp.sqrt(sp.Rational(1, 25) + y**2 / 30)]
COVARIANCE = sp.diag(*[s**2 for s in SIGMA])


@md.rule
def clipped_average(theta, g, m, *, lr, beta=0.8, scale=2.0):
    """A rule of our own: a bounded step along an average of gradients."""
    m = beta * m + (1 - beta) * g
    return theta - lr * scale * m / sp.sqrt(1 + m**2), m


@md.rule
def two_memories(theta, g, m, n, *, lr):
    """The sign of two running means at once, for which no average is known."""
    return theta - lr * sp.sign(m + n + g), (m + g) / 2, (n + 3 * g) / 4


@md.rule
def literal_heavy_ball(theta, g, m, *, lr, beta=0.8):
    m = beta * m + g
    return theta - lr * m, m


RULES = {
    "gd": (md.SGD(0.05), {"lr": 0.05}),
    "heavy_ball": (md.SGD(0.02, momentum=0.8), {"lr": 0.02, "beta": 0.8}),
    "nesterov": (md.SGD(0.02, momentum=0.8, nesterov=True), {"lr": 0.02, "beta": 0.8}),
    "rmsprop": (md.RMSProp(0.01, beta2=0.98), {"lr": 0.01, "beta2": 0.98}),
    "adam": (md.Adam(0.01, beta1=0.8, beta2=0.98), {"lr": 0.01, "beta1": 0.8, "beta2": 0.98}),
    "adamw": (
        md.AdamW(0.01, beta1=0.8, beta2=0.98, weight_decay=0.02),
        {"lr": 0.01, "beta1": 0.8, "beta2": 0.98, "weight_decay": 0.02},
    ),
    "sign_gd": (md.SignGD(0.01), {"lr": 0.01}),
}


def loss_of(problem: pb.Problem) -> md.Loss:
    return md.Loss(problem.expr, list(problem.params))


def flow_of(problem, rule, noise, **options):
    return md.QuasistaticFlow(md.Map(loss_of(problem), rule, noise), **options)


def per_step(flow, w):
    """Drift and covariance per step."""
    lr = flow.map.lr()
    s = flow.diffusion(w)
    return flow.drift(w) * lr, s @ s.T * lr


@pytest.mark.parametrize(
    ("name", "accumulators"),
    [
        *((name, "full") for name in RULES),
        *((name, "frozen") for name in ("rmsprop", "adam", "adamw")),
    ],
)
def test_drift_and_covariance_equal_the_literal_oracle(name, accumulators):
    """On an ellipse with noise that depends on the position, drift and covariance are the dense oracle's."""
    rule, hyper = RULES[name]
    flow = flow_of(ELLIPSE, rule, md.GaussianNoise(SIGMA), accumulators=accumulators)
    w = np.array(ELLIPSE.on_manifold)
    expected = twins.quasistatic(ELLIPSE.expr, ELLIPSE.params, name, COVARIANCE, w, hyper, accumulators)
    drift, covariance = per_step(flow, w)
    np.testing.assert_allclose(drift, expected.drift_theta, rtol=1e-8, atol=1e-8 * np.abs(expected.drift_theta).max())
    np.testing.assert_allclose(covariance, expected.diffusion_theta, rtol=1e-8, atol=1e-18)


@pytest.mark.parametrize("name", ["gd", "adam"])
def test_correlated_noise_equals_the_oracle(name):
    """A matrix sigma with correlated components goes through oblique projectors like the oracle."""
    factor = np.array([[0.3, 0.1], [-0.05, 0.2]])
    rule, hyper = RULES[name]
    flow = flow_of(ELLIPSE, rule, md.GaussianNoise(factor), accumulators="full")
    expected = twins.quasistatic(
        ELLIPSE.expr, ELLIPSE.params, name, sp.Matrix(factor @ factor.T), ELLIPSE.on_manifold, hyper
    )
    drift, covariance = per_step(flow, np.array(ELLIPSE.on_manifold))
    np.testing.assert_allclose(drift, expected.drift_theta, rtol=1e-8)
    np.testing.assert_allclose(covariance, expected.diffusion_theta, rtol=1e-8)


def test_own_rule_equals_the_built_in_one():
    """A user's rule gets the same flow as the built-in rule that it spells out."""
    own = flow_of(ELLIPSE, literal_heavy_ball(lr=0.02), md.GaussianNoise(SIGMA))
    built_in = flow_of(ELLIPSE, RULES["heavy_ball"][0], md.GaussianNoise(SIGMA))
    w = np.array(ELLIPSE.on_manifold)
    np.testing.assert_allclose(own.drift(w), built_in.drift(w), rtol=1e-12)


# -- closed forms (theory 2.3) ---------------------------------------------------------------------


@pytest.mark.parametrize("at", [-2.0, 0.5, 1.3])
def test_valley_has_its_closed_form_at_finite_lr(at):
    """On (1 + x^2) y^2 / 2 with isotropic noise the drift is -sigma^2 lr h' / (2 h (2 - lr h)), exactly."""
    problem = pb.valley(at=at)
    flow = flow_of(problem, md.SGD(0.05), md.GaussianNoise(0.3))
    drift, _ = pb.valley_sgd(1 + pb.x**2, at, 0.05, 0.3)
    w = np.array([at, 0.0])
    np.testing.assert_allclose(flow.drift(w), [drift, 0.0], rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(flow.diffusion(w) @ flow.diffusion(w).T, np.diag([0.05 * 0.09, 0.0]), atol=1e-16, rtol=0)


def label_flow(problem, rule, std, **options):
    loss = md.Loss.regression(problem.model, list(problem.params), inputs={}, target=[float(problem.target)])
    return md.QuasistaticFlow(md.Map(loss, rule, md.LabelNoise(std)), **options)


def order(lrs, errors):
    return np.polyfit(np.log(lrs), np.log(errors), 1)[0]


LRS = [0.02, 0.01, 0.005, 0.0025]


def relative_errors(make, closed):
    return [np.linalg.norm(make(lr) - closed(lr)) / np.linalg.norm(closed(lr)) for lr in LRS]


def test_label_noise_sgd_descends_the_trace_to_leading_order():
    """Label noise: the drift of SGD tends to -(lr c / 4) P_T grad tr H with order 1 in lr."""
    problem = pb.two_products()
    w = np.array(problem.on_manifold)
    errors = relative_errors(
        lambda lr: label_flow(problem, md.SGD(lr), 0.5).drift(w), lambda lr: pb.label_noise_sgd(problem, w, lr, 0.25)
    )
    assert abs(order(LRS, errors) - 1) < 0.1 and errors[-1] < 0.02


def test_label_noise_heavy_ball_is_sgd_with_a_larger_lr():
    """Label noise: heavy ball moves like SGD with lr/(1 - beta), with order 1 in lr."""
    problem = pb.two_products()
    w = np.array(problem.on_manifold)
    errors = relative_errors(
        lambda lr: label_flow(problem, md.SGD(lr / 4, momentum=0.8), 0.5).drift(w),
        lambda lr: pb.label_noise_heavy_ball(problem, w, lr / 4, 0.25, 0.8),
    )
    assert abs(order(LRS, errors) - 1) < 0.1 and errors[-1] < 0.02


def test_frozen_adam_descends_the_trace_of_the_root():
    """Label noise: with frozen accumulators Adam descends tr diag(H)^(1/2), with order 1 in lr."""
    problem = pb.two_products()
    w = np.array(problem.on_manifold)
    rule = md.Adam(0.01, beta1=0.9, beta2=0.999, eps=0.0)
    errors = relative_errors(
        lambda lr: label_flow(problem, rule.with_hyper(lr=lr / 8), 0.5, accumulators="frozen").drift(w),
        lambda lr: pb.label_noise_adam_frozen(problem, w, lr / 8),
    )
    assert abs(order(LRS, errors) - 1) < 0.1 and errors[-1] < 0.02


def test_circle_carries_a_brownian_motion():
    """On the circle the angle's variance per step is lr^2 sigma^2 and the drift points to the mid-point alone."""
    problem = pb.circle(0.4)
    flow = flow_of(problem, md.SGD(0.05), md.GaussianNoise(0.2))
    w = np.array(problem.on_manifold)
    drift, covariance = per_step(flow, w)
    tangent = np.array([-w[1], w[0]])
    assert abs(drift @ tangent) < 1e-15
    np.testing.assert_allclose(covariance, 0.05**2 * 0.2**2 * np.outer(tangent, tangent), atol=1e-17, rtol=0)
    np.testing.assert_allclose(drift @ w, -0.5 * 0.05**2 * 0.2**2, rtol=1e-9)


def test_smallest_product_ends_at_one():
    """Label noise on (ab - 1)^2 / 2 carries SGD's flow to a = b = 1."""
    flow = label_flow(pb.product(), md.SGD(0.02), 1.0)
    run = md.simulate(flow, [2.0, 0.5], steps=200_000)
    np.testing.assert_allclose(run.w[0, -1], [1.0, 1.0], atol=1e-6, rtol=0)


def test_flow_stays_on_the_manifold():
    """Over 1e5 units of time the circle's flow keeps |w| = 1 to 1e-10."""
    flow = flow_of(pb.circle(0.4), md.SGD(0.05), md.GaussianNoise(0.2))
    run = md.simulate(flow, [1.0, 0.0], steps=2_000_000, paths=2, save_every=100_000, substeps=500, rng=1)
    assert run.time[-1] == pytest.approx(1e5)
    assert np.abs(np.linalg.norm(run.w, axis=-1) - 1).max() < 1e-10
    assert run.w[:, :, 1].std() > 0.3


# -- against discrete runs (theory 9) ----------------------------------------------------------------

DISCRETE = {
    "sgd": md.SGD(0.05),
    "heavy ball": md.SGD(0.01, momentum=0.8),
    "nesterov": md.SGD(0.01, momentum=0.8, nesterov=True),
    "adam": md.Adam(0.003, beta2=0.999),
    "rmsprop": md.RMSProp(0.003, beta2=0.999),
    "own": clipped_average(lr=0.02),
}


@pytest.mark.parametrize("name", list(DISCRETE))
def test_flow_follows_the_discrete_ensemble(name):
    """Mean and spread of the angle on the ellipse after 600 steps agree with hundreds or thousands of discrete runs.

    Tolerance: 3 standard errors of two independent ensembles of that size (map and flow share their noise, so
    the difference itself is known better). RMSProp, which has no bias correction, starts at its fixed point.
    """
    system = md.Map(loss_of(ELLIPSE), DISCRETE[name], md.GaussianNoise(SIGMA))
    angle = {"angle": lambda w: np.arctan2(2 * w[:, 1], w[:, 0])}
    paths = {"own": 400, "adam": 1500}.get(name, 6000)  # curves and self-consistent accumulators take longer
    start = system.fixed_point(ELLIPSE.on_manifold) if name == "rmsprop" else ELLIPSE.on_manifold
    result = md.compare(
        system, md.QuasistaticFlow(system), w0=start, steps=600, paths=paths, rng=5, observe=angle,
        substeps=10, save_every=300,
    )  # fmt: skip
    row = next(r for r in result.errors if r.quantity == "angle" and r.step == 600)
    assert row.paths == paths
    scale = np.hypot(row.map_spread, row.flow_spread) / np.sqrt(paths)
    assert abs(row.difference) < 3 * scale, row
    assert abs(row.flow_spread - row.map_spread) < 3 * scale / np.sqrt(2), row


def test_full_accumulators_beat_frozen_ones_for_adam():
    """Adam with beta2 = 0.99 on two products: the full flow is within 5 % of the map, the frozen one 40 % off."""
    problem = pb.two_products()
    rule = md.Adam(0.002, beta2=0.99)
    full = label_flow(problem, rule, 0.5, accumulators="full")
    frozen = label_flow(problem, rule, 0.5, accumulators="frozen")
    start = np.array(problem.on_manifold)
    moved = {}
    for label, system in (("map", full.map), ("full", full), ("frozen", frozen)):
        run = md.simulate(system, start, steps=4000, paths=40_000 if label == "map" else 1, save_every=2000, rng=3)
        moved[label] = run.w[:, -1, 0].mean() - start[0]
    assert moved["map"] == pytest.approx(-0.0099, abs=0.0004)
    assert abs(moved["full"] / moved["map"] - 1) < 0.05, moved
    assert moved["frozen"] / moved["map"] > 1.4, moved


# -- degenerate noise, manifolds of more dimensions, accumulators that the oscillation adds to ------------


def test_self_consistent_accumulators_have_their_closed_form():
    """On the valley RMSProp's `v* = s^2 + h^2 W`, `W = lr P s^2 / (h (2 - lr P h))`, `P = 1/(sqrt v* + eps)` across it,
    and along it, where nothing oscillates, the drift is -lr h' W / (2 (s + eps))."""
    lr, std, h, slope, v = 0.05, 0.3, 2.0, 2.0, 0.09
    for _ in range(200):
        P = 1 / (np.sqrt(v) + 1e-8)
        W = lr * P * std**2 / (h * (2 - lr * P * h))
        v = std**2 + h**2 * W
    flow = flow_of(pb.valley(at=1.0), md.RMSProp(lr), md.GaussianNoise(std), accumulators="self-consistent")
    assert flow.drift([1.0, 0.0])[0] * lr == pytest.approx(-lr * slope * W / 2 / (std + 1e-8), rel=1e-10, abs=0)
    assert v > 1.15 * std**2


Z = sp.Symbol("z", real=True)
SHELL = sp.Rational(1, 4) * (x**2 + 2 * y**2 + Z**2 - 1) ** 2 * (1 + x / 3)
ON_SHELL = np.array([0.6, 0.4, np.sqrt(1 - 0.36 - 0.32)])


@pytest.mark.parametrize("name", ["gd", "adam", "sign_gd"])
@pytest.mark.parametrize("columns", [1, 3])
def test_two_dimensional_manifold_with_degenerate_noise_equals_the_oracle(name, columns):
    """On a surface, with noise of rank one (along one vector) and of full rank, the flow is the dense oracle's."""
    factor = np.array([[0.3, 0.1, 0.0], [0.1, -0.2, 0.05], [0.2, 0.0, 0.1]])[:, :columns]
    rule, hyper = RULES[name]
    system = md.Map(md.Loss(SHELL, [x, y, Z]), rule, md.GaussianNoise(factor))
    flow = md.QuasistaticFlow(system, accumulators="full")
    expected = twins.quasistatic(SHELL, (x, y, Z), name, sp.Matrix(factor @ factor.T), ON_SHELL, hyper)
    drift, covariance = per_step(flow, ON_SHELL)
    scale = np.abs(expected.drift_theta).max()
    # the arcsine of a correlation of one keeps half the digits
    rtol = 1e-6 if name == "sign_gd" and columns == 1 else 1e-8
    np.testing.assert_allclose(drift, expected.drift_theta, rtol=rtol, atol=1e-9 * scale)
    np.testing.assert_allclose(covariance, expected.diffusion_theta, rtol=rtol, atol=1e-18)
    if columns == 1 and name == "gd":
        assert np.linalg.matrix_rank(covariance, tol=1e-12) == 1


def test_where_one_coordinate_has_no_noise_eps_divides():
    """RMSProp on a valley with noise across it alone: x moves by -lr x W / eps, and discrete runs do so within 3 %."""
    rule, w = md.RMSProp(0.01, beta2=0.998, eps=0.05), np.array([1.0, 0.0])
    flow = flow_of(pb.valley(at=1.0), rule, md.GaussianNoise([0.0, 0.1]), accumulators="full")
    P = 1 / 0.15
    W = 0.01 * P * 0.01 / (2 * (2 - 0.01 * P * 2))
    assert flow.drift(w)[0] == pytest.approx(-W / 0.05, rel=1e-9)
    run = md.simulate(flow.map, flow.map.fixed_point(w), 1000, paths=8000, save_every=200, rng=1)
    ours = md.simulate(flow, w, 1000, save_every=200)
    moved = run.w[:, -1, 0].mean() - run.w[:, 1, 0].mean()
    assert moved == pytest.approx(ours.w[0, -1, 0] - ours.w[0, 1, 0], rel=0.03)


def test_label_noise_without_a_component_is_followed_or_refused():
    """Where the model does not feel c, label noise has no component: SGD and Adam with an eps follow the flow without
    c, Adam without eps is refused in one sentence, and Adam whose eps is so small that c would be driven off is too."""
    p, q, r = sp.symbols("p q r")
    loss = md.Loss.regression(p * q + r**2, [p, q, r], inputs={}, target=[1.0])
    less = md.Loss.regression(p * q, [p, q], inputs={}, target=[1.0])
    for rule in (md.SGD(0.01), md.Adam(0.002, eps=0.1)):
        full, part = (md.QuasistaticFlow(md.Map(one, rule, md.LabelNoise(0.3))) for one in (loss, less))
        drift = full.drift([2.0, 0.5, 0.0])
        np.testing.assert_allclose(drift, [*part.drift([2.0, 0.5]), 0.0], rtol=1e-8, atol=1e-12)
    with pytest.raises(md.FlowError, match="give the rule an eps"):
        md.QuasistaticFlow(md.Map(loss, md.Adam(0.002, eps=0.0), md.LabelNoise(0.3))).drift([2.0, 0.5, 0.0])
    rash = md.Map(loss, md.Adam(0.002, eps=1e-4), md.LabelNoise(0.3))
    last = md.simulate(rash, [2.0, 0.5, 1e-9], 40, paths=64, rng=0).w[:, -1, 2]
    assert np.abs(last).max() > 1e3 * 1e-9  # the map itself drives c off
    with pytest.raises(md.FlowError, match="second moments"):
        md.QuasistaticFlow(rash).drift([2.0, 0.5, 0.0])


# -- where there is no flow ----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [md.Minibatch(2), md.Minibatch(3, replace=True), md.LabelNoise(0.1, batch=2),
                                   md.LabelNoise(0.1, kind="rademacher")], ids=str)  # fmt: skip
@pytest.mark.parametrize("rule", [md.SignGD(0.01), md.Lion(0.001)], ids=["SignGD", "Lion"])
def test_signs_of_noise_that_is_not_gaussian_are_refused(rule, noise):
    """The average of a sign by erf holds for Gaussian noise alone: flow and stability refuse others with that reason,
    and take normal labels on all samples, which are Gaussian."""
    p, q, u = sp.symbols("p q u")
    loss = md.Loss.regression(p * q * u, [p, q], inputs={u: [0.5, 1.0, 2.0, 1.5]}, target=[0.5, 1.0, 2.0, 1.5])
    with pytest.raises(md.FlowError, match=r"takes signs of the gradient, and .* is not Gaussian"):
        md.QuasistaticFlow(md.Map(loss, rule, noise))
    assert md.QuasistaticFlow(md.Map(loss, rule, md.LabelNoise(0.1))).map.bound.gaussian


def test_isolated_minimum_is_refused():
    """A minimum with a Hessian of full rank has no manifold to move along, and the error says so."""
    flow = md.QuasistaticFlow(md.Map(md.Loss(x**2 + y**2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.1)))
    with pytest.raises(md.ManifoldError, match="isolated"):
        flow.drift([0.0, 0.0])


def test_rank_change_is_refused():
    """Where two valleys cross, the rank of the Hessian changes: a clear error instead of a number."""
    flow = md.QuasistaticFlow(md.Map(md.Loss(x**2 * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.1)))
    with pytest.raises(md.ManifoldError, match=r"zero|rank"):
        flow.drift([0.0, 0.0])


@pytest.mark.parametrize(("place", "message"), [(1e-9, "rank of the Hessian changes"), (-1.0, "unstable")])
def test_points_where_the_valley_ends_are_refused(place, message):
    """A valley of curvature x ends at x = 0: there and beyond the field is an error, although the gradient is zero."""
    z = sp.Symbol("z")
    loss = md.Loss((x * y**2 + z**2) / 2, [x, y, z])
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.1), md.GaussianNoise(0.1)))
    numbers = flow.numbers(np.array([[1.0, 0.0, 0.0]]))
    assert np.isfinite(flow.evaluate(np.array([[1.0, 0.0, 0.0]]), 1.0, numbers)[0]).all()
    with pytest.raises(md.FlowError, match=message):
        flow.evaluate(np.array([[place, 0.0, 0.0]]), 1.0, numbers)


def test_vanishing_noise_is_refused_for_adam():
    """Adam divides by the size of the noise: where a coordinate has none there is no flow."""
    rule = md.Adam(0.01, eps=0.0)
    flow = md.QuasistaticFlow(md.Map(md.Loss((1 + x**2) * y**2, [x, y]), rule, md.GaussianNoise([0.0, 0.1])))
    with pytest.raises(md.FlowError, match="noise vanishes"):
        flow.drift([1.0, 0.0])


def test_far_start_is_refused():
    """A start far from the minima is refused, with the point of the manifold that belongs to it."""
    flow = flow_of(pb.circle(), md.SGD(0.05), md.GaussianNoise(0.2))
    with pytest.raises(md.ManifoldError, match="away from the manifold"):
        md.simulate(flow, [3.0, 0.0], steps=10)


def test_unstable_minimum_is_refused():
    """Where the sharpness exceeds 2/lr the map cannot stay, and neither can its flow."""
    flow = flow_of(pb.valley(), md.SGD(0.5), md.GaussianNoise(0.2))
    with pytest.raises(md.FlowError, match="unstable"):
        flow.drift([2.0, 0.0])


@pytest.mark.parametrize(
    ("rule", "noise", "message"),
    [
        (md.SGD(0.1), md.Reshuffle(2), "reshuffling"),
        (md.SGD(0.1), None, "none"),
        (two_memories(lr=0.1), md.GaussianNoise(0.1), "one running mean"),
    ],
)
def test_rules_and_noises_without_an_average_are_refused(rule, noise, message):
    """Random reshuffling, no noise, and the sign of two noisy states are refused when the flow is made."""
    a, b, u = sp.symbols("a b u")
    loss = md.Loss.regression(a * b * u, [a, b], inputs={u: [1.0, 2.0, 3.0]}, target=[1.0, 2.0, 3.0])
    with pytest.raises(md.FlowError, match=message):
        md.QuasistaticFlow(md.Map(loss, rule, noise))


def test_label_noise_flow_has_no_diffusion_on_interpolating_minima():
    """Label noise vanishes along interpolating minima: the flow is an ODE, solved to tolerance."""
    flow = label_flow(pb.product(), md.SGD(0.02), 0.5)
    assert np.abs(flow.diffusion([2.0, 0.5])).max() == 0.0
    assert md.simulate(flow, [2.0, 0.5], steps=10).meta["method"] == "auto (dop853)"
