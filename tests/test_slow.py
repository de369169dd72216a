"""Small learning rates and slow schedules: what a flow says of them is what it says of large ones, scaled."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import minidyn as md

x, y, z, k = sp.symbols("x y z k")
W = (x, y, z)


@md.rule
def Scaled(theta, g, m, *, lr, beta=0.9):
    """Heavy ball whose momentum is as small as the learning rate."""
    m = beta * m + lr * g
    return theta - m, m


@md.rule
def Slow(theta, g, m, *, lr, rate=3):
    """A running mean that is as slow as the learning rate."""
    m = (1 - rate * lr) * m + rate * lr * g
    return theta - lr * (g + m), m


RULES = {
    "SGD": md.SGD,
    "heavy ball": lambda lr: md.SGD(lr, 0.9),
    "Nesterov": lambda lr: md.SGD(lr, 0.6, nesterov=True),
    "Adam": lambda lr: md.Adam(lr, beta2=0.97),
    "RMSProp": lambda lr: md.RMSProp(lr, beta2=0.95),
    "sign": md.SignGD,
    "Lion": lambda lr: md.Lion(lr),
    "scaled": lambda lr: Scaled(lr),
    "slow": lambda lr: Slow(lr),
}


def valley(seed: int) -> tuple[md.Loss, np.ndarray]:
    """A loss with a turned and curved line or surface of minima, and a point on it."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    u, v, w = (sum(float(c) * s for c, s in zip(row, W, strict=True)) for row in turn)
    a, b, c = rng.uniform(0.5, 2.0, 3).round(2)
    height = v - float(a) * u**2 / 5
    across = (1 + sp.exp(float(b) * u / 2)) * height**2 / 2
    if rng.random() < 0.5:
        across += (2 + sp.sin(float(c) * u)) * (w - u / 3 + height) ** 2 / 2
    loss, start = md.Loss(across, list(W)), turn.T @ rng.uniform(-0.5, 0.5, 3)
    return loss, md.Manifold(loss).project(start)


def per_time(system: md.Map, w: np.ndarray, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Drift and covariance of the noise, over their powers of the learning rate: they have limits at lr = 0."""
    flow, lr = md.QuasistaticFlow(system), system.rule.lr(step)
    b, f = flow.drift(w, step), flow.diffusion(w, step)
    return b / lr, f @ f.T / lr


@pytest.mark.parametrize("seed, name", list(enumerate(RULES)))
def test_a_drift_per_time_has_a_limit_as_the_rate_goes_to_zero(seed, name):
    """Between 1e-13 and 1e-10 drift and covariance, over lr, move a thousandth of what they do up to 1e-7."""
    loss, w = valley(seed)
    found = [per_time(md.Map(loss, RULES[name](lr), md.GaussianNoise(0.1)), w) for lr in (1e-7, 1e-10, 1e-13)]
    for far, near, least in zip(*found, strict=True):
        size = np.abs(least).max()
        assert np.abs(far - least).max() < 1e-3 * size
        assert np.abs(near - least).max() < 1.1e-3 * np.abs(far - least).max() + 1e-11 * size


@pytest.mark.parametrize("lr", [1e-3, 1e-9, 1e-13])
def test_decoupled_weight_decay_keeps_its_digits(lr):
    """AdamW's step of zero gradient is -lr decay theta: along 2 y^2 the drift per time is -decay x."""
    system = md.Map(md.Loss(2 * y**2, [x, y]), md.AdamW(lr, weight_decay=0.03), md.GaussianNoise(0.1))
    assert abs(md.QuasistaticFlow(system).drift([0.7, 0.0])[0] / (-0.03 * 0.7) - 1) < 1e-12


@pytest.mark.parametrize("lr", [1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
def test_small_rates_meet_the_closed_forms(lr):
    """On (1 + x^2) y^2/2 drift/lr is -x sigma^2/((1 + x^2) (2 - lr h)), with momentum that of lr/(1 - beta)."""
    loss, s = md.Loss((1 + x**2) * y**2 / 2, [x, y]), 0.3
    b, C = per_time(md.Map(loss, md.SGD(lr), md.GaussianNoise(s)), np.array([0.7, 0.0]))
    h = 1 + 0.7**2
    assert abs(b[0] / (-0.7 * s**2 / (h * (2 - lr * h))) - 1) < 1e-13
    assert abs(C[0, 0] / s**2 - 1) < 1e-13
    b, C = per_time(md.Map(loss, md.SGD(lr, 0.9), md.GaussianNoise(s)), np.array([0.7, 0.0]))
    exact = -0.7 * s**2 / (h * 2 * 0.1**2)
    assert abs(b[0] / exact - 1) < 1e-13 + 0.9 * lr * h / 0.1
    assert abs(C[0, 0] / (s**2 / 0.1**2) - 1) < 1e-13


@pytest.mark.parametrize("name", ["SGD", "heavy ball", "Adam", "RMSProp", "Lion"])
@pytest.mark.parametrize("step", [1, 1000, 10**9])
def test_a_schedule_says_at_each_step_what_its_number_says(name, step):
    """The flow under 0.01/(k + 1) at step K is that under the constant 0.01/(K + 1)."""
    loss, w = valley(7)
    noise = md.GaussianNoise(0.1)
    moving = md.Map(loss, RULES[name](0.01 / (k + 1)), noise)
    fixed = md.Map(loss, RULES[name](0.01 / (step + 1)), noise)
    for a, b in zip(per_time(moving, w, step), per_time(fixed, w), strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-12 * np.abs(b).max())


def test_noise_that_vanishes_at_the_start_alone_drives_the_flow_beyond_it():
    """Noise of size x - 1 along the valley, from x = 1: all paths go on, and as the closed form's do."""
    loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    valley = md.Manifold(loss, chart={x: z, y: 0}, coordinates=[z])
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.05), md.GaussianNoise([x - 1, 0.5])), valley)
    found, exact = (md.simulate(f, [1.0, 0.0], steps=500, paths=70, rng=1) for f in (flow, flow.closed_form()))
    assert found.finished.all() and found.w[:, -1, 0].std() > 0.01
    assert np.allclose(found.w[:, -1], exact.w[:, -1, :], rtol=1e-9, atol=0)


def test_where_the_noise_vanishes_each_rule_is_told_what_helps_it():
    """A sign has nothing that smooths it, a rule with eps is not told to take one, one without is."""
    loss, noise = md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.GaussianNoise([0.5, y])
    for rule, says in (
        (md.SignGD(0.01), "nothing smooths the sign that SignGD takes"),
        (md.Adam(0.001, eps=0), "give the rule an eps"),
        (md.Adam(0.001, eps=1e-70), "take a larger eps"),
    ):
        with pytest.raises(md.FlowError, match=says):
            md.QuasistaticFlow(md.Map(loss, rule, noise)).drift([1.0, 0.0])


def test_a_step_of_zero_is_not_said_to_change_the_rank_of_the_hessian():
    """At a step whose rate is zero everything rests; the flow still runs through it."""
    loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(sp.Piecewise((0, k < 3), (0.05, True))), md.GaussianNoise(0.3)))
    with pytest.raises(md.FlowError, match="rests at more than the minima here"):
        flow.drift([1.0, 0.0], 1)
    assert md.simulate(flow, [1.0, 0.0], steps=100).finished.all()
