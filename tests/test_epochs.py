"""Reshuffled batches: the mean over the orders of an epoch, exactly where all orders can be made, and in runs."""

from __future__ import annotations

from itertools import combinations, permutations, product
from math import comb

import numpy as np
import pytest
import sympy as sp
from conformance import check_flow

import minidyn as md

x, y, u, v = sp.symbols("x y u v")
h, b = sp.symbols("h0:3"), sp.symbols("b0:2")
AT = np.array([0.4, -0.3])


@md.rule
def twice_remembered(theta, g, m, q, *, lr, beta=0.5, gamma=0.3):
    """A running mean of a running mean, by which theta steps, and by the gradient itself."""
    m = beta * m + (1 - beta) * g
    q = gamma * q + (1 - gamma) * m
    return theta - lr * (q + g / 2), m, q


def bent(n: int, seed: int = 0, scale: float = 1.0) -> md.Loss:
    """A loss that is no polynomial, with samples that differ."""
    rng = np.random.default_rng(seed)
    expr = sp.cosh(u * x - v * y) + (x - u) ** 2 * y * v / 3 + sp.sin(x * y + u) / 2
    return md.Loss(expr, [x, y], data={s: scale * rng.normal(size=n) for s in (u, v)})


def batches(order, size: int) -> list[list[int]]:
    """An epoch's batches: the last may be smaller."""
    return [list(order[k : k + size]) for k in range(0, len(order), size)]


def ends(loss: md.Loss, lr: float, size: int) -> np.ndarray:
    """Where one epoch of gradient descent ends, from `AT`, for each order of the samples."""
    out = []
    for order in permutations(range(loss.n_samples)):
        w = AT.copy()
        for chosen in batches(order, size):
            w = w - lr * loss.sample_grads(w)[chosen].mean(axis=0)
        out.append(w)
    return np.array(out)


def after(flow: md.Flow, w: np.ndarray, steps: int) -> np.ndarray:
    return md.simulate(flow, w, steps, save_every=steps).w[0, -1]


@pytest.mark.parametrize("n, size", [(4, 1), (4, 2), (5, 2), (3, 2), (6, 4), (2, 1), (5, 5)])
def test_the_mean_over_all_orders_of_an_epoch(n, size):
    """The flow is off it by O(lr^3) an epoch, the flow that leaves the order out by O(lr^2), equal batches or not."""
    loss, errors, rates = bent(n), [], (0.02, 0.01, 0.005)
    for lr in rates:
        mean, steps = ends(loss, lr, size).mean(axis=0), -(-n // size)
        flow = md.ModifiedFlow(md.Map(loss, md.GD(lr), md.Reshuffle(size)))
        without = md.ModifiedFlow(md.Map(loss, md.GD(lr), md.Minibatch(size)))
        errors.append([np.abs(after(f, AT, steps) - mean).max() for f in (flow, without)])
    fitted = np.polyfit(np.log(rates), np.log(errors), 1)[0]
    np.testing.assert_allclose(fitted, [3.0, 3.0 if size == n else 2.0], rtol=0, atol=0.15)


def affine(rule: md.Rule, H: np.ndarray, g0: np.ndarray) -> np.ndarray:
    """A step of a linear rule on `w H w/2 + g0 w` as a matrix on (z, 1), found by making it."""
    loss = md.Loss(h[0] * x**2 / 2 + h[1] * x * y + h[2] * y**2 / 2 + b[0] * x + b[1] * y, [x, y],
                   constants=dict(zip((*h, *b), (H[0, 0], H[0, 1], H[1, 1], *g0), strict=True)))  # fmt: skip
    step, size = md.Map(loss, rule).step, 2 * (1 + len(rule.states))
    zero = step(np.zeros(size)) if size > 2 else step(np.zeros(2))
    T = np.eye(size + 1)
    T[:size, :size] = (step(np.eye(size)) - zero).T
    T[:size, size] = zero
    return T


@pytest.mark.parametrize("n, size", [(4, 1), (5, 2)])
@pytest.mark.parametrize(
    "make", [md.GD, lambda lr: md.SGD(lr, 0.5), lambda lr: md.SGD(lr, 0.4, True), lambda lr: twice_remembered(lr=lr)]
)
def test_means_of_any_rule_that_is_linear_in_the_gradient(make, n, size):
    """On parabolas the mean over orders is a linear map of epoch after epoch: at a fixed time the flow is off it by
    O(lr^2), the one that leaves the order out by O(lr)."""
    rng = np.random.default_rng(n)
    A, g0 = rng.normal(size=(n, 2, 2)), rng.normal(size=(n, 2))
    H = A @ A.transpose(0, 2, 1) / 2 + 0.3 * np.eye(2)
    data = dict(zip((*h, *b), (H[:, 0, 0], H[:, 0, 1], H[:, 1, 1], *g0.T), strict=True))
    loss = md.Loss(h[0] * x**2 / 2 + h[1] * x * y + h[2] * y**2 / 2 + b[0] * x + b[1] * y, [x, y], data=data)
    errors, rates, steps = [], (0.005, 0.0025), -(-n // size)
    for lr in rates:
        rule, epochs = make(lr), round(0.6 / lr / steps)
        single, total = {}, 0.0
        for order in permutations(range(n)):
            epoch = np.eye(2 * (1 + len(rule.states)) + 1)
            for chosen in batches(order, size):
                key = tuple(sorted(chosen))
                if key not in single:
                    single[key] = affine(rule, H[chosen].mean(axis=0), g0[chosen].mean(axis=0))
                epoch = single[key] @ epoch
            total = total + epoch / len(list(permutations(range(n))))
        flow, without = (md.ModifiedFlow(md.Map(loss, rule, noise)) for noise in (md.Reshuffle(size), None))
        z = without.slow_state(AT)
        mean = (np.linalg.matrix_power(total, epochs) @ np.append(z, 1.0))[:2]
        errors.append([np.abs(after(f, AT, epochs * steps) - mean).max() for f in (flow, without)])
    order = np.log2(np.divide(*errors))
    np.testing.assert_allclose(order, [2.0, 1.0], rtol=0, atol=0.2)
    assert errors[-1][0] < 0.15 * errors[-1][1]


def test_equal_batches_have_the_published_loss():
    """`L + lr/4 <|grad L_b|^2>` over all batches of one size; the drift is the slope of it, also with momentum."""
    loss, lr = bent(6), 0.05
    for size in (1, 2, 3):
        flow = md.ModifiedFlow(md.Map(loss, md.GD(lr), md.Reshuffle(size)))
        chosen = {tuple(c) for order in permutations(range(6)) for c in map(sorted, batches(order, size))}
        assert len(chosen) == comb(6, size)
        squares = [(loss.sample_grads(AT)[list(c)].mean(axis=0) ** 2).sum() for c in chosen]
        assert flow.modified_loss(AT) == pytest.approx(loss.value(AT) + lr / 4 * np.mean(squares), rel=1e-12)
    for rule, size in ((md.GD(lr), 4), (md.SGD(lr, 0.7), 2), (md.SGD(lr, 0.6, True), 5)):
        flow = md.ModifiedFlow(md.Map(loss, rule, md.Reshuffle(size)))
        away = 1e-5 * np.eye(2)
        slope = (flow.modified_loss(AT + away) - flow.modified_loss(AT - away)) / 2e-5
        np.testing.assert_allclose(flow.drift(AT), -slope, rtol=1e-7)


@pytest.mark.parametrize("n, size", [(4, 1), (6, 3), (5, 2), (6, 4)])
def test_what_is_left_of_the_noise_after_an_epoch(n, size):
    """The stochastic equation has the covariance of an epoch's end, per step: nothing where all batches are alike."""
    loss, lr, steps = bent(n), 1e-4, -(-n // size)
    flow = md.StochasticModifiedFlow(md.Map(loss, md.GD(lr), md.Reshuffle(size)), order=2)
    left = np.cov(ends(loss, lr, size).T, bias=True) / (steps * lr**2)
    D = flow.diffusion(AT)
    np.testing.assert_allclose(D @ D.T / lr, left, atol=2e-3 * np.trace(np.cov(loss.sample_grads(AT).T)), rtol=2e-3)
    assert (np.abs(D).max() == 0.0) == (n % size == 0)
    np.testing.assert_allclose(flow.drift(AT), md.ModifiedFlow(flow.map).drift(AT), rtol=1e-12)
    check_flow(flow, AT)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_runs_show_the_implicit_term(beta):
    """Discrete runs over whole epochs: what lr adds to the mean beside the flow without noise, extrapolated from two
    rates to lr = 0, is the flow's within 3 standard errors, which are a thirtieth of it."""
    loss, gaps, errors, terms = bent(8, seed=3, scale=0.5), [], [], []
    for lr, epochs in ((0.02, 20), (0.01, 40)):
        plain = md.ModifiedFlow(md.Map(loss, md.SGD(lr, beta)))
        system = md.Map(loss, md.SGD(lr, beta), md.Reshuffle(2))
        steps, start = 4 * epochs, plain.slow_state(AT) if beta else AT
        last = md.simulate(system, start, steps, paths=8_000, save_every=steps, rng=1).w[:, -1]
        beside = after(plain, AT, steps)
        terms.append((after(md.ModifiedFlow(system), AT, steps) - beside) / lr)
        gaps.append((last.mean(axis=0) - beside) / lr - terms[-1])
        errors.append(last.std(axis=0) / np.sqrt(len(last)) / lr)
    gap, error = 2 * gaps[1] - gaps[0], np.hypot(2 * errors[1], errors[0])
    assert (abs(gap) <= 3 * error).all() and (abs(terms[1]) > 30 * error).any()


@pytest.mark.parametrize("n, size", [(4, 1), (4, 2), (3, 1)])
def test_steps_that_are_independent_have_no_such_term(n, size):
    """The control: over all sequences of fresh batches the mean is that of the flow without noise to O(lr^3), and
    O(lr^2) from the one of reshuffled batches."""
    loss, errors, rates, steps = bent(n), [], (0.02, 0.01, 0.005), n // size
    for lr in rates:
        mean = np.zeros(2)
        sequences = [*product(combinations(range(n), size), repeat=steps)]
        for sequence in sequences:
            w = AT.copy()
            for chosen in sequence:
                w = w - lr * loss.sample_grads(w)[list(chosen)].mean(axis=0)
            mean += w / len(sequences)
        flows = (md.ModifiedFlow(md.Map(loss, md.GD(lr), noise)) for noise in (md.Reshuffle(size), md.Minibatch(size)))
        errors.append([np.abs(after(f, AT, steps) - mean).max() for f in flows])
    fitted = np.polyfit(np.log(rates), np.log(errors), 1)[0]
    np.testing.assert_allclose(fitted, [2.0, 3.0], rtol=0, atol=0.15)


def test_words_and_what_is_left_out():
    """Description, figures and tables know whether the order of the samples is in the equations."""
    system = md.Map(bent(4), md.SGD(0.05, 0.5), md.Reshuffle(1))
    flow = md.ModifiedFlow(system)
    assert "of reshuffling - " in flow._describe(False) and r"\mathrm{tr}" in flow.describe(latex=True)
    assert (
        flow.leaves_out == "" and md.ModifiedFlow(system, 1).leaves_out == md.GradientFlow(system).leaves_out == "noise"
    )
    both = md.ModifiedFlow(md.Map(bent(4), md.GD(0.05), md.Reshuffle(1) + md.GaussianNoise(0.1)))
    assert both.leaves_out == "noise" and both.force == pytest.approx(0.5)
    check_flow(flow, AT)
    summary = md.compare(system, flow, w0=AT, steps=8, paths=8, rng=0).summary()
    assert "leaves" not in summary


@pytest.mark.parametrize(
    "make, sentence",
    [
        (
            lambda: md.ModifiedFlow(md.Map(bent(4), md.Adam(0.01), md.Reshuffle(2))),
            "reshuffled batches have a modified flow of order 2 for rules that are linear in the gradient, none of "
            "order 2 for Adam; md.ModifiedFlow(map, order=1) leaves them out.",
        ),
        (
            lambda: md.ModifiedFlow(md.Map(bent(4), md.GD(0.01), md.Reshuffle(2)), 4),
            "reshuffled batches have a modified flow of order 2 for rules that are linear in the gradient, none of "
            "order 4 for GD; md.ModifiedFlow(map, order=1) leaves them out.",
        ),
        (
            lambda: md.StochasticModifiedFlow(md.Map(bent(4), md.SGD(0.01, 0.5), md.Reshuffle(2))),
            "SGD remembers within an epoch of reshuffled batches what cancels at its end, so its state has no equation "
            "with noise; md.ModifiedFlow is the mean.",
        ),
    ],
)
def test_error_is_a_sentence(make, sentence):
    """What is not known of reshuffling is one sentence."""
    with pytest.raises(md.FlowError) as error:
        make()
    assert str(error.value) == sentence
