"""Modified flows: their order against discrete runs, the slow manifold, the modified loss, where there is none."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md

x, y = sp.symbols("x y")
LOSS = md.Loss((1 + x**2) * y**2 / 2 + sp.sin(x + y) + x**2 / 2 + sp.exp(y / 2) / 3 + x**4 / 10, [x, y])
START = np.array([1.2, -0.9])


@md.rule
def entangled(theta, g, m, n, *, lr, beta=0.5):
    """A rule of our own: two states that need each other, and a step that is not linear in them."""
    m_new = beta * m + (1 - beta) * g / (1 + n**2)
    n_new = 0.7 * n + 0.3 * m_new * theta
    return theta - lr * sp.tanh(m_new) * (1 + n_new / 3), m_new, n_new


RULES = {
    "GD": (md.GD(0.1), 0.1),
    "heavy ball": (md.SGD(0.1, momentum=0.8), 0.005),
    "Nesterov": (md.SGD(0.1, momentum=0.8, nesterov=True), 0.005),
    "RMSProp": (md.RMSProp(0.1, beta2=0.9, eps=0.3), 0.005),
    "Adam": (md.Adam(0.1, beta1=0.8, beta2=0.9, eps=0.3), 0.005),
    "AdamW": (md.AdamW(0.1, beta1=0.8, beta2=0.9, eps=0.3, weight_decay=0.3), 0.005),
    "own": (entangled(lr=0.1), 0.02),
}
CASES = [("GD", 1), ("Adam", 1), *((name, 2) for name in RULES), ("GD", 3), ("GD", 4)]


def error_at(rule, order, lr, t=1.0, start=None):
    """Distance of the map to its flow at time t; the map starts on the slow manifold, bias corrections over."""
    system = md.Map(LOSS, rule.with_hyper(lr=lr))
    flow, steps = md.ModifiedFlow(system, order), round(t / lr)
    state = flow.slow_state(START) if start is None else start
    theirs = md.simulate(system, state, steps, save_every=steps, first_step=10**6)
    ours = md.simulate(flow, START, steps, save_every=steps, rtol=1e-12, atol=1e-14)
    return np.abs(theirs.w[0, -1] - ours.w[0, -1]).max()


@pytest.mark.parametrize(("name", "order"), CASES)
def test_error_against_the_map_has_the_stated_order(name, order):
    """At t = 1 the error against the discrete path falls with the stated order in lr, within 0.2, twice."""
    rule, lr = RULES[name]
    errors = [error_at(rule, order, lr / 2**i) for i in range(3)]
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([order, order], abs=0.2)


def test_the_slow_manifold_is_needed():
    """Heavy ball that starts with m = 0 ends twenty times farther from its flow: the transient is not described."""
    rule, lr = RULES["heavy ball"]
    zero = error_at(rule, 2, lr / 64, 0.1, np.append(START, [0.0, 0.0]))
    assert zero > 20 * error_at(rule, 2, lr / 64, 0.1)


def test_the_slow_manifold_is_left_in_place_to_second_order():
    """One step of the map carries S0 + lr S1 over theta onto S0 + lr S1 over theta', but for O(lr^2)."""
    gaps = []
    for lr in (0.01, 0.005):
        system = md.Map(LOSS, RULES["own"][0].with_hyper(lr=lr))
        flow = md.ModifiedFlow(system)
        new = system.step(flow.slow_state(START), k=10**6, noise=False)
        gaps.append(np.abs(new - flow.slow_state(new[:2])).max())
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(2.0, abs=0.2)


def test_a_schedule_of_lr_keeps_the_order():
    """With lr falling along the run, heavy ball stays second order at fixed t."""
    k, rule, errors = sp.Symbol("k"), RULES["heavy ball"][0], []
    for lr in (0.005, 0.0025, 0.00125):
        steps = round(1 / lr)
        system = md.Map(LOSS, rule.with_hyper(lr=lr * (1 + sp.cos(3 * k / steps) / 2)))
        flow = md.ModifiedFlow(system)
        theirs = md.simulate(system, flow.slow_state(START, k=1), steps, save_every=steps)
        ours = md.simulate(flow, START, steps, save_every=steps, rtol=1e-12, atol=1e-14)
        errors.append(np.abs(theirs.w[0, -1] - ours.w[0, -1]).max())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([2.0, 2.0], abs=0.2)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("GD", lambda b: (1.0, 0.25)),
        ("heavy ball", lambda b: (1 / (1 - b), (1 + b) / (4 * (1 - b) ** 3))),
        ("Nesterov", lambda b: (1 / (1 - b), (1 - b + 2 * b**2) / (4 * (1 - b) ** 3))),
    ],
)
def test_the_modified_loss_has_the_flow_as_its_gradient_flow(name, weights):
    """-grad of the modified loss, by central differences, is the drift; its two weights are the closed forms."""
    system = md.Map(LOSS, RULES[name][0].with_hyper(lr=0.05))
    flow, h = md.ModifiedFlow(system), 1e-6
    slope = [(flow.modified_loss(START + e) - flow.modified_loss(START - e)) / (2 * h) for e in h * np.eye(2)]
    np.testing.assert_allclose(flow.drift(START), -np.array(slope), rtol=1e-7)
    c0, c1 = weights(0.8)
    g = LOSS.grad(START)
    assert flow.modified_loss(START) == pytest.approx(c0 * LOSS.value(START) + 0.05 * c1 * g @ g, rel=1e-12)


def test_rules_without_a_modified_loss_say_so():
    """Adam, and orders above two, have no modified loss: an error that says why."""
    for flow in (md.ModifiedFlow(md.Map(LOSS, md.Adam(0.01))), md.ModifiedFlow(md.Map(LOSS, md.GD(0.01)), 3)):
        with pytest.raises(md.FlowError, match="no modified loss for"):
            flow.modified_loss(START)


def test_sign_descent_follows_its_flow_until_a_sign_changes():
    """Between sign changes sign GD and its flow coincide; at a change the solver stops with a status."""
    flow = md.ModifiedFlow(md.Map(md.Loss(x**2 + 3 * y**2, [x, y]), md.SignGD(0.01)))
    run = md.simulate(flow, [1.0, 0.5], 40, save_every=40)
    np.testing.assert_allclose(run.w[0, -1], [0.6, 0.1], rtol=1e-9)
    assert md.simulate(flow, [1.0, 0.5], 100, save_every=100).status[0] != md.Status.FINISHED


def test_the_validity_is_the_share_of_the_last_correction():
    """For GD on a parabola the last correction's share of the velocity is lr h / 2 to leading order."""
    flow = md.ModifiedFlow(md.Map(md.Loss(3 * x**2 / 2, [x]), md.GD(0.01)))
    assert flow.validity([1.0]) == pytest.approx(0.015 / 1.015, rel=1e-9)
    assert "the velocity, small; at theta = [1] it is 0.0148" in flow._describe(False, [1.0])


def test_what_has_no_modified_flow_is_refused():
    """Unknown orders, orders 3 and 4 of other rules, a schedule of momentum, a gradient of zero without eps."""
    k = sp.Symbol("k")
    adam = md.Map(LOSS, md.Adam(0.01, eps=0.0))
    with pytest.raises(md.InputError, match="1, 2, 3 or 4"):
        md.ModifiedFlow(adam, 5)
    with pytest.raises(md.FlowError, match="known for gradient descent"):
        md.ModifiedFlow(adam, 3)
    with pytest.raises(md.FlowError, match="schedule of momentum"):
        md.ModifiedFlow(md.Map(LOSS, md.SGD(0.1, momentum=1 - 1 / (k + 1))))
    with pytest.raises(md.FlowError, match="no derivatives here"):
        md.ModifiedFlow(md.Map(md.Loss(x**2 + y**2, [x, y]), adam.rule)).drift([0.0, 1.0])
