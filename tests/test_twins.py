"""The oracles checked against closed forms, against each other and against discrete runs; no package code."""

from __future__ import annotations

import numpy as np
import problems as pb
import pytest
import sympy as sp
import twins
from problems import x, y

C = np.array([[0.09, 0.04], [0.04, 0.05]])
VARYING = sp.ImmutableMatrix(C) * (1 + sp.sin(x + 2 * y) / 4)  # correlated, and it depends on the position
HYPER = {
    "gd": {"lr": 0.1},
    "heavy_ball": {"lr": 0.05, "beta": 0.8},
    "nesterov": {"lr": 0.05, "beta": 0.8},
    "sign_gd": {"lr": 0.01},
    "rmsprop": {"lr": 0.02, "beta2": 0.9, "eps": 1e-3},
    "adam": {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3},
}


def fitted_order(error, lrs) -> float:
    """Slope of log error against log η."""
    return float(np.polyfit(np.log(lrs), np.log([error(lr) for lr in lrs]), 1)[0])


# The problems themselves ----------


@pytest.mark.parametrize("make", pb.SMALL, ids=lambda f: f.__name__)
def test_problem_point_is_on_a_manifold_of_the_stated_dimension(make):
    """At `on_manifold` the gradient is zero and the Hessian is ⪰ 0 with a kernel of dimension `dim`."""
    p = make()
    lam = np.linalg.eigvalsh(p.hessian(p.on_manifold))
    assert np.allclose(p.grad(p.on_manifold), 0, atol=1e-13, rtol=0)
    assert np.sum(np.abs(lam) < 1e-12) == p.dim and np.all(lam > -1e-12)


def test_problem_callables_are_derivatives_and_batch():
    """`grad`, `hessian` and `third` are successive derivatives (central differences), for any batch shape."""
    p = pb.two_products()
    w = np.random.default_rng(0).normal(size=(2, 3, 4))
    e = 1e-5 * np.eye(4)
    for low, high in ((p.loss, p.grad), (p.grad, p.hessian), (p.hessian, p.third)):
        slope = np.stack([(low(w + u) - low(w - u)) / 2e-5 for u in e], axis=-1)
        assert np.allclose(slope, high(w), atol=1e-8, rtol=0)


def test_tanh_net_derivatives_and_rank():
    """The net's hand-written derivatives are its loss's, and its manifold has dimension 22."""
    net = pb.TanhNet()
    w = net.on_manifold + 0.1 * np.random.default_rng(1).normal(size=30)
    e = 1e-5 * np.eye(30)
    for low, high in ((net.loss, net.grad), (net.grad, net.hessian)):
        slope = np.stack([(low(w + u) - low(w - u)) / 2e-5 for u in e], axis=-1)
        assert np.allclose(slope, high(w), atol=1e-8, rtol=0)
    one = sp.lambdify([net.params, net.X, net.Y], net.expr)
    mean = np.mean([one(w, *d) for d in zip(net.inputs, net.labels, strict=True)])
    assert mean == pytest.approx(net.loss(w), rel=1e-12, abs=0)

    star = net.on_manifold
    lam = np.linalg.eigvalsh(net.hessian(star))
    assert net.loss(star) == 0 and np.sum(lam < 1e-7 * lam[-1]) == net.dim

    def gauss_newton_trace(w):
        return np.sum(net.model_grad(w) ** 2) / len(net.inputs)

    slope = [(gauss_newton_trace(star + u) - gauss_newton_trace(star - u)) / 2e-5 for u in e]
    assert np.allclose(slope, net.grad_trace(star), atol=1e-7, rtol=0)


# The update rules ----------


def test_adam_first_step_is_the_sign():
    """Bias correction makes Adam's first step −η g/(|g| + ε), whatever β1 and β2."""
    g = np.array([3.0, -1e-3])
    theta, _ = twins.adam(np.zeros(2), twins.zero_state("adam", g), g, 1, lr=0.1, eps=1e-4)
    assert np.allclose(theta, -0.1 * g / (np.abs(g) + 1e-4), rtol=1e-13, atol=0)


def test_rmsprop_first_step_has_no_bias_correction():
    """RMSProp's first step is −η g/(√(1−β2) |g| + ε), as in PyTorch."""
    theta, (v,) = twins.rmsprop(np.zeros(1), (np.zeros(1),), np.array([2.0]), 1, lr=0.1, beta2=0.75, eps=0.5)
    assert theta == pytest.approx([-0.1 * 2 / (0.5 * 2 + 0.5)], rel=1e-13, abs=0) and v == pytest.approx([1.0])


@pytest.mark.parametrize(
    "rule, roots",
    [
        ("heavy_ball", lambda q, b: [1, -(1 + b - q), b]),
        ("nesterov", lambda q, b: [1, -(1 + b - q * (1 + b)), b * (1 - q)]),
    ],
)
def test_momentum_rules_have_the_textbook_characteristic_polynomial(rule, roots):
    """On ½ h θ² heavy ball and Nesterov contract at the root radius of their textbook recurrences."""
    q, beta = 0.7, 0.9
    hyper = {"lr": 1.0, "beta": beta}
    _, _, saved = twins.simulate(rule, lambda t: q * t, np.ones((1, 1)), 400, save_every=1, **hyper)
    tail = np.abs(saved[200:, 0, 0])
    rate = np.exp(np.polyfit(np.arange(len(tail)), np.log(tail + 1e-300), 1)[0])
    assert np.isclose(rate, np.max(np.abs(np.roots(roots(q, beta)))), rtol=3e-3, atol=0)


def test_lion_with_equal_betas_is_the_sign_of_the_momentum():
    """With β1 = β2 Lion steps along the sign of its own new momentum."""
    rng = np.random.default_rng(0)
    theta, state = np.zeros(3), (rng.normal(size=3),)
    new, (m,) = twins.lion(theta, state, rng.normal(size=3), 1, lr=0.1, beta1=0.8, beta2=0.8)
    assert np.array_equal(new, -0.1 * np.sign(m))


def test_adamw_decays_then_steps():
    """AdamW with zero gradient multiplies θ by 1 − ηλ."""
    state = twins.zero_state("adamw", np.ones(2))
    theta, _ = twins.adamw(np.ones(2), state, np.zeros(2), 1, lr=0.1, weight_decay=0.5)
    assert np.allclose(theta, 0.95, rtol=1e-13, atol=0)


# The one formula against closed forms ----------


@pytest.mark.parametrize("lr", [0.02, 0.3])
def test_valley_finite_lr(lr):
    """`quasistatic` is the finite-η closed form on ½ h y² with isotropic noise, to 1e-10."""
    h = 1 + x**2 + sp.exp(x) / 3
    p = pb.valley(h, at=0.6)
    q = twins.quasistatic(p.expr, p.params, "gd", p.isotropic_sigma(0.5), p.on_manifold, {"lr": lr})
    drift, variance = pb.valley_sgd(h, 0.6, lr, 0.5)
    assert np.allclose(q.drift_theta / lr, [drift, 0], rtol=1e-10, atol=1e-15)
    assert np.allclose(q.diffusion_theta / lr, np.diag([variance, 0]), rtol=1e-10, atol=1e-15)


def test_valley_leading_order():
    """The leading-order valley drift differs from the finite-η one at relative order 1 in η."""
    p = pb.valley()

    def error(lr):
        q = twins.quasistatic(p.expr, p.params, "gd", p.isotropic_sigma(0.5), p.on_manifold, {"lr": lr})
        leading = pb.valley_sgd(1 + x**2, 1.3, lr, 0.5, finite=False)[0]
        return abs(q.drift_theta[0] / lr / leading - 1)

    assert abs(fitted_order(error, [1e-2, 5e-3, 2.5e-3]) - 1) < 0.05


@pytest.mark.parametrize("lr, beta", [(0.02, 0.5), (0.3, 0.9)])
def test_valley_heavy_ball_finite_lr(lr, beta):
    """`quasistatic` is the AR(2) closed form of heavy ball on ½ h y², to 1e-10."""
    p = pb.valley()
    q = twins.quasistatic(
        p.expr, p.params, "heavy_ball", p.isotropic_sigma(0.5), p.on_manifold, {"lr": lr, "beta": beta}
    )
    drift, variance = pb.valley_heavy_ball(1 + x**2, 1.3, lr, 0.5, beta)
    assert np.allclose(q.drift_theta / lr, [drift, 0], rtol=1e-10, atol=1e-15)
    assert np.allclose(q.diffusion_theta / lr, np.diag([variance, 0]), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    "h, q, at",
    [
        (1 + x**2, y, (1.3, 0.0)),
        (sp.Rational(1, 2), x**2 + y**2 - 1, (np.cos(0.4), np.sin(0.4))),
        (1 + x / 3, x**2 / 4 + y**2 - 1, (2 * np.cos(0.7), np.sin(0.7))),
        (2 + sp.cos(x), y - sp.sin(x), (0.5, np.sin(0.5))),
    ],
    ids=["valley", "circle", "ellipse", "curved_valley"],
)
def test_codimension_one_finite_lr(h, q, at):
    """SGD on ½ h q² with correlated noise: all three terms of the drift meet the closed form, to 1e-10."""
    lr = 0.15
    got = twins.quasistatic(h * q**2 / 2, (x, y), "gd", sp.ImmutableMatrix(C), at, {"lr": lr})
    drift, covariance = pb.codimension_one_sgd(h, q, C, at, lr)
    assert np.allclose(got.drift_theta / lr, drift, rtol=1e-10, atol=1e-13)
    assert np.allclose(got.diffusion_theta / lr, covariance, rtol=1e-10, atol=1e-13)


def test_circle_brownian_motion():
    """Isotropic noise on the circle: the drift only keeps Brownian motion of variance η²σ² per step on it."""
    p, lr, std = pb.circle(), 0.2, 0.3
    q = twins.quasistatic(p.expr, p.params, "gd", p.isotropic_sigma(std), p.on_manifold, {"lr": lr})
    drift, covariance = pb.circle_sgd(p.on_manifold, lr, std)
    assert np.allclose(q.drift_theta, lr * drift, atol=1e-14, rtol=0)
    assert np.allclose(q.diffusion_theta, lr * covariance, atol=1e-14, rtol=0)


momentum = pb.label_noise_heavy_ball
LABEL = {
    "sgd": ("gd", {}, lambda p, w, lr, s: pb.label_noise_sgd(p, w, lr, s**2)),
    "heavy_ball": ("heavy_ball", {"beta": 0.6}, lambda p, w, lr, s: momentum(p, w, lr, s**2, 0.6)),
    # near β = 0.6 Nesterov's own first-order correction vanishes, so another β shows the order
    "nesterov": ("nesterov", {"beta": 0.8}, lambda p, w, lr, s: momentum(p, w, lr, s**2, 0.8)),
    "adam frozen": ("adam", {"eps": 1e-12}, lambda p, w, lr, s: pb.label_noise_adam_frozen(p, w, lr)),
    "rmsprop frozen": ("rmsprop", {"eps": 1e-12}, lambda p, w, lr, s: pb.label_noise_adam_frozen(p, w, lr)),
}


@pytest.mark.parametrize("make", [pb.product, pb.two_products], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", LABEL)
def test_label_noise_leading_order(make, case):
    """As η → 0 label noise meets each rule's closed form; the relative difference is of order 1 in η."""
    rule, hyper, closed = LABEL[case]
    p, std = make(), 0.4

    def error(lr):
        w = p.on_manifold
        q = twins.quasistatic(p.expr, p.params, rule, p.label_sigma(std), w, {"lr": lr, **hyper}, "frozen", met=False)
        expected = closed(p, w, lr, std)
        assert np.linalg.norm(q.diffusion_theta) < 1e-9 * np.linalg.norm(q.Q)
        return np.linalg.norm(q.drift_theta / lr - expected) / np.linalg.norm(expected)

    assert error(1e-4) < 4e-3
    assert abs(fitted_order(error, [2e-3, 1e-3, 5e-4]) - 1) < 0.1


@pytest.mark.parametrize("rule", ["adam", "rmsprop"])
def test_frozen_is_the_limit_of_slow_accumulators(rule):
    """As 1−β2 → 0 at fixed η the full drift meets the frozen one, at order 1 in 1−β2."""
    p = pb.product()

    def drift(beta2, accumulators):
        hyper = {"lr": 0.01, "beta2": beta2}
        sigma = p.label_sigma(0.5)
        q = twins.quasistatic(p.expr, p.params, rule, sigma, p.on_manifold, hyper, accumulators)
        return q.drift_theta

    frozen = drift(0.99, "frozen")

    def error(slow):
        return np.linalg.norm(drift(1 - slow, "full") - frozen) / np.linalg.norm(frozen)

    assert abs(fitted_order(error, [1e-4, 5e-5, 2.5e-5]) - 1) < 0.05


# The one formula against independent roads ----------


@pytest.mark.parametrize("make", pb.PLANAR, ids=lambda f: f.__name__)
def test_reduced_sgd_is_the_one_formula(make):
    """The reduced SGD formula equals the one formula at finite η, with correlated, varying noise as it is on M."""
    p, lr = make(), 0.1
    here = dict(zip((x, y), p.params, strict=True))
    sigma = VARYING.subs(here)
    q = twins.quasistatic(p.expr, p.params, "gd", sigma, p.on_manifold, {"lr": lr}, met=False)
    drift, covariance = twins.reduced_sgd(p.expr, p.params, sigma, p.on_manifold, lr)
    assert np.allclose(q.drift_theta, drift, rtol=1e-10, atol=1e-15)
    assert np.allclose(q.diffusion_theta, covariance, rtol=1e-10, atol=1e-15)


def test_reduced_sgd_is_the_one_formula_in_four_dimensions():
    """The same with a full-rank covariance on a three-dimensional manifold."""
    p, lr = pb.two_products(), 0.1
    R = np.random.default_rng(3).normal(size=(4, 4))
    sigma = sp.ImmutableMatrix(R @ R.T)
    q = twins.quasistatic(p.expr, p.params, "gd", sigma, p.on_manifold, {"lr": lr})
    drift, covariance = twins.reduced_sgd(p.expr, p.params, sigma, p.on_manifold, lr)
    assert np.allclose(q.drift_theta, drift, rtol=1e-10, atol=0)
    assert np.allclose(q.diffusion_theta, covariance, rtol=1e-10, atol=0)


@pytest.mark.parametrize("accumulators", ["full", "frozen"])
@pytest.mark.parametrize("rule", HYPER)
def test_drift_is_half_the_second_derivative_of_the_limit_map(rule, accumulators):
    """b = ½ ∂²Φ̂[Q] with Φ̂ computed by iterating the map: no formula in between, every term counts."""
    p = pb.ellipse()
    args = (p.expr, p.params, rule, VARYING, p.on_manifold, HYPER[rule], accumulators)
    q = twins.quasistatic(*args)
    scale = np.linalg.norm(q.drift_theta)
    for name in ("normal", "coupling", "curvature"):
        assert np.linalg.norm(q.terms[name]) > 0.1 * scale  # else a missing term would pass unseen
    assert np.allclose(q.drift_theta, twins.drift_by_iteration(*args), atol=1e-3 * scale, rtol=0)


@pytest.mark.parametrize("rule", ["gd", "heavy_ball", "nesterov"])
def test_drift_moves_a_noisy_ensemble(rule):
    """40 noisy steps, then noiseless ones to the limit: the mean moves by 40 b, to 4 standard errors + 2 %.

    Antithetic noise removes the first-order spread; 2 % allows for b changing along the way.
    """
    p, noisy, hyper = pb.ellipse(), 40, HYPER[rule]
    sigma = 0.1 * np.linalg.cholesky(C)
    start = np.tile(p.on_manifold, (20_000, 1))
    draw = twins.gaussian_noise(sigma, antithetic=True)
    theta, state, _ = twins.simulate(rule, p.grad, start, noisy, noise=draw, rng=5, **hyper)
    theta, *_ = twins.simulate(rule, p.grad, theta, 150, state=state, **hyper)
    moved = theta.reshape(2, -1, 2).mean(0) - p.on_manifold
    error = moved.std(0) / np.sqrt(len(moved))
    q = twins.quasistatic(p.expr, p.params, rule, sp.ImmutableMatrix(sigma @ sigma.T), p.on_manifold, hyper)
    expected = noisy * q.drift_theta
    assert np.all(np.abs(moved.mean(0) - expected) < 4 * error + 0.02 * np.linalg.norm(expected))
    assert np.all(error < 0.03 * np.linalg.norm(expected))


@pytest.mark.parametrize("beta2, expected", [(0.99, 45.9), (0.9, 13.3)])
def test_lion_noise_on_a_flat_loss_has_the_long_run_covariance(beta2, expected):
    """Lion's signs are correlated in time: on a flat loss θ spreads by η² Σ_l (2/π) arcsin r_l per step."""
    lr, paths, steps, burn = 1.0, 2000, 1500, 1000
    zero, draw = np.zeros((paths, 1)), twins.gaussian_noise(np.eye(1))
    hyper = {"lr": lr, "beta1": 0.9, "beta2": beta2}
    start, state, _ = twins.simulate("lion", np.zeros_like, zero, burn, noise=draw, rng=1, **hyper)
    theta, *_ = twins.simulate("lion", np.zeros_like, start, steps, noise=draw, rng=2, state=state, **hyper)
    # a window of n steps counts lag l only n − l times
    r = twins.lion_correlation(0.9, beta2, steps - 1)
    s = (2 / np.pi) * np.arcsin(r / r[0])
    in_window = s[0] + 2 * np.sum(s[1:] * (1 - np.arange(1, steps) / steps))
    measured = np.var(theta - start) / steps
    assert abs(measured / in_window - 1) < 4 * np.sqrt(2 / paths)
    h = {"beta1": 0.9, "beta2": beta2}
    assert abs(float(twins._noise_covariance("lion", np.eye(1), h)[0, 0]) - expected) < 0.1


# Whole paths ----------


def test_product_label_noise_path():
    """Integrated by Runge–Kutta, the oracle is the closed solution a² − b² ∝ e^{−ηct} as η → 0."""
    p, lr, std, steps = pb.product(), 1e-3, 0.5, 2e6
    w0, sigma = p.on_manifold, p.label_sigma(std)
    end = twins.quasistatic_path(p.expr, p.params, "gd", sigma, w0, {"lr": lr}, steps, rk_steps=8)
    assert np.allclose(end, pb.product_label_noise_path(w0, lr * steps, lr, std**2), atol=1e-3, rtol=0)


def test_two_products_label_noise_decay():
    """With SGD a² − b² and c² − d² shrink by their closed factors as η → 0."""
    p, lr, std, steps = pb.two_products(), 1e-3, 0.5, 1e6
    w0, sigma = np.array(p.on_manifold), p.label_sigma(std)
    end = twins.quasistatic_path(p.expr, p.params, "gd", sigma, w0, {"lr": lr}, steps, rk_steps=8)
    shrink = (end[[0, 2]] ** 2 - end[[1, 3]] ** 2) / (w0[[0, 2]] ** 2 - w0[[1, 3]] ** 2)
    assert np.allclose(shrink, pb.two_products_label_noise_decay(lr * steps, lr, std**2), rtol=5e-3, atol=0)


@pytest.mark.parametrize("accumulators, expected", [("full", -0.0101), ("frozen", -0.0154)])
def test_two_products_adam_displacement(accumulators, expected):
    """Adam, label noise s = 0.5, β2 = 0.99, η = 0.002, 4000 steps: the first coordinate moves as stated."""
    p = pb.two_products()
    hyper = {"lr": 0.002, "beta2": 0.99}
    end = twins.quasistatic_path(
        p.expr, p.params, "adam", p.label_sigma(0.5), p.on_manifold, hyper, 4000, accumulators, rk_steps=2
    )
    assert abs(end[0] - 2 - expected) < 1e-4


def test_two_products_adam_discrete():
    """The discrete Adam of that case moves like "full" (to 4 standard errors + 2 %), not like "frozen"."""
    p, std, lr = pb.two_products(), 0.5, 0.002
    w0 = np.tile(p.on_manifold, (1000, 1))
    stationary = (np.zeros_like(w0), (std * p.model_grad(w0)) ** 2)
    draw = twins.label_noise(p.model_grad, std)
    theta, *_ = twins.simulate(
        "adam", p.grad, w0, 4000, noise=draw, rng=0, state=stationary, first_step=10**7, lr=lr, beta2=0.99
    )
    moved = theta[:, 0] - 2
    error = moved.std() / np.sqrt(len(moved))
    assert abs(moved.mean() + 0.0101) < 4 * error + 0.02 * 0.0101
    assert abs(moved.mean() + 0.0154) > 8 * error
