"""Lion's quasistatic flow: a sign that hears noise from many steps, against literal sums and discrete runs."""

import numpy as np
import problems as pb
import pytest
import sympy as sp
import twins
from scipy.interpolate import CubicSpline

import minidyn as md

x, y = pb.x, pb.y
ELLIPSE = pb.ellipse(0.7)
VALLEY = pb.valley(at=1.0)
FACTOR = np.array([[0.3, 0.1], [-0.05, 0.2]])


def flow_of(problem, rule, sigma):
    return md.QuasistaticFlow(md.Map(md.Loss(problem.expr, list(problem.params)), rule, md.GaussianNoise(sigma)))


@pytest.mark.parametrize(("beta2", "expected"), [(0.99, 45.927), (0.9, 13.279)])
def test_tangential_variance_is_summed_over_all_lags(beta2, expected):
    """Along the valley the variance per step is lr^2 sum_l (2/pi) arcsin r_l over all lags l, a literal sum."""
    flow = flow_of(VALLEY, md.Lion(1e-5, beta1=0.9, beta2=beta2), 0.3)
    r = twins.lion_correlation(0.9, beta2, 5000)
    long_run = 2 / np.pi * (np.arcsin(1) + 2 * np.arcsin(r[1:] / r[0]).sum())
    assert flow.diffusion([1.0, 0.0])[0, 0] ** 2 / 1e-5 == pytest.approx(long_run, rel=1e-10)
    assert long_run == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("beta2", [0.99, 0.9])
def test_small_steps_give_the_oracle(beta2):
    """Correlated noise on an ellipse: drift and covariance tend to the oracle's, and halve their distance with lr."""
    gaps = []
    for lr in (2e-6, 1e-6):
        w, hyper = np.array(ELLIPSE.on_manifold), {"lr": lr, "beta1": 0.9, "beta2": beta2}
        flow = flow_of(ELLIPSE, md.Lion(**hyper), FACTOR)
        twin = twins.quasistatic(ELLIPSE.expr, ELLIPSE.params, "lion", sp.Matrix(FACTOR @ FACTOR.T), w, hyper)
        s = flow.diffusion(w)
        np.testing.assert_allclose(s @ s.T * lr, twin.diffusion_theta, rtol=1e-3, atol=1e-5 * lr**2)
        gaps.append(np.linalg.norm(flow.drift(w) * lr - twin.drift_theta) / np.linalg.norm(twin.drift_theta))
    assert gaps[1] < 2e-3 and gaps[0] / gaps[1] == pytest.approx(2.0, abs=0.2)


def test_the_oscillation_at_finite_lr_is_the_literal_sum_over_lags():
    """Where the valley's walls are as quick as the memory: the drift is -lr sqrt(2/pi) h' W / (2 s), and W, the
    variance across, is a sum over the responses to every past step's noise and to the rest of every past sign."""
    lr, b1, b2, std = 0.002, 0.9, 0.95, 0.3
    flow = flow_of(VALLEY, md.Lion(lr, beta1=b1, beta2=b2), std)
    r = twins.lion_correlation(b1, b2, 1500)
    s = std * np.sqrt(r[0])
    slope, h = lr * np.sqrt(2 / np.pi) / s, 2.0
    A = np.array([[1 - slope * (1 - b1) * h, -slope * b1], [(1 - b2) * h, b2]])  # of (y, m)
    noise, rest = np.array([-slope * (1 - b1), 1 - b2]) * std, np.array([-lr, 0.0])
    heard, moved = [], []
    for _ in range(1500):
        heard.append(noise[0])
        moved.append(rest[0])
        noise, rest = A @ noise, A @ rest
    left = 2 / np.pi * (np.arcsin(r / r[0]) - r / r[0])
    lags = abs(np.subtract.outer(np.arange(1500), np.arange(1500)))
    W = np.sum(np.square(heard)) + np.array(moved) @ left[lags] @ np.array(moved)
    assert flow.drift([1.0, 0.0])[0] * lr == pytest.approx(-slope * 2.0 * W / 2, rel=1e-9, abs=0)


def test_the_flow_follows_discrete_runs():
    """Valley, 24 000 runs, steps 400 to 1600: the mean moves as the flow's within 3 standard errors, and so does the
    gain of variance (the first steps of a window know less of the noise's memory than the flow, which has none)."""
    rule, paths, lr = md.Lion(0.001), 24_000, 0.001
    flow = flow_of(VALLEY, rule, 0.3)
    memory = 0.3 * np.sqrt(0.01 / 1.99) * np.random.default_rng(0).normal(size=(paths, 2))
    start = np.hstack([np.tile([1.0, 0.0], (paths, 1)), memory])
    run = md.simulate(flow.map, start, 1600, paths=paths, save_every=400, rng=1)
    before, after = run.w[:, 1, 0], run.w[:, -1, 0]

    places = np.linspace(-0.5, 2.5, 41)
    points = np.stack([places, 0 * places], axis=1)
    drift = CubicSpline(places, flow.drift(points)[:, 0])
    spread = CubicSpline(places, np.linalg.norm(flow.diffusion(points)[:, 0], axis=-1))
    z, ours, saves = np.random.default_rng(2).normal(size=(40, 50_000)), np.full(100_000, 1.0), []
    for normals in np.concatenate([z, -z], axis=1):
        ours = ours + drift(ours) * 40 * lr + spread(ours) * np.sqrt(40 * lr) * normals
        saves.append(ours)
    expected = saves[-1].mean() - saves[9].mean()
    moved = after - before
    assert expected < -6 * moved.std() / np.sqrt(paths)
    assert abs(moved.mean() - expected) < 3 * moved.std() / np.sqrt(paths)
    gain, grown = after.var() - before.var(), saves[-1].var() - saves[9].var()
    assert abs(gain - grown) < 3 * after.var() * np.sqrt(2 / paths)


@pytest.mark.parametrize("beta2", [0.99, 0.9])
def test_noise_that_grows_along_the_valley_drives_it_back(beta2):
    """Where the noise grows along a flat direction Lion drifts down by a literal sum over what each step remembers:
    -lr^2 (2/pi) (sigma'/sigma) sum_j w_j^2 sum_(l>j) r_l / sqrt(1 - r_l^2), w_j the weight of the noise j steps old."""
    lr, b1 = 1e-3, 0.9
    problem = pb.Problem("flat", y**2 / 2, (x, y), (0.0, 0.0), 1)
    flow = flow_of(problem, md.Lion(lr, beta1=b1, beta2=beta2), [sp.Rational(3, 10) + sp.tanh(x) / 5, 0.2])
    r = twins.lion_correlation(b1, beta2, 4000)
    weight = np.array([1 - b1, *(b1 * (1 - beta2) * beta2**j for j in range(3999))]) ** 2 / r[0]
    r = r[1:] / r[0]
    later = np.cumsum((r / np.sqrt(1 - r**2))[::-1])[::-1]
    expected = -(lr**2) * 2 / np.pi * (0.2 / 0.3) * (weight @ later)
    np.testing.assert_allclose(flow.drift([0.0, 0.0]) * lr, [expected, 0.0], rtol=1e-6, atol=1e-15)
