"""Maps: steps on data against literal numpy, the two roads to a kernel, the clock, randomness of a step, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sympy as sp
import twins
from conformance import BITS
from test_noise import COUNTED, COUNTER, Stream, fisher_yates

import minidyn as md
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import pack, unpack

a, b, u, k = sp.symbols("a b u k")
INPUTS, TARGET = np.linspace(-1, 2, 5), np.array([0.3, 0.0, 0.4, 0.5, 1.2])
LOSS = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: INPUTS}, TARGET)
SEED, STEPS = 4, 60


def gradient(w, samples, shift):
    """Mean over the given samples of ∇ ½ (f − y − shift)²."""
    t = np.tanh(w[1] * INPUTS[samples])
    model = np.stack([t, w[0] * INPUTS[samples] * (1 - t**2)], axis=1)
    return ((w[0] * t - TARGET[samples] - shift)[:, None] * model).mean(0)


def pairs(stream: Stream, count: int) -> np.ndarray:
    """`count` normals; an odd one out is thrown away."""
    return np.array([z for _ in range((count + 1) // 2) for z in stream.normals()][:count])


def everything(stream, step, deck):
    return np.arange(5), 0.4 * pairs(stream, 5)


def fresh_subset(stream, step, deck):
    return fisher_yates(stream, 5, 2), 0.4 * np.array([stream.sign() for _ in range(2)])


def independent(stream, step, deck):
    return [stream.below(5) for _ in range(3)], np.zeros(3)


def epoch(stream, step, deck):
    if step % 3 == 0:
        deck[:] = fisher_yates(stream, 5, 5)
    samples = deck[2 * (step % 3) : 2 * (step % 3) + 2]
    return samples, 0.4 * pairs(stream, len(samples))


LITERAL = {
    "labels": (md.LabelNoise(0.4), everything),
    "subsets, labels ±1": (md.LabelNoise(0.4, batch=2, kind="rademacher"), fresh_subset),
    "replacement": (md.Minibatch(3, replace=True), independent),
    "reshuffling, labels": (md.Reshuffle(2) + md.LabelNoise(0.4), epoch),
}


@pytest.mark.parametrize("path", [0, 70])
@pytest.mark.parametrize("name", LITERAL)
def test_steps_on_data_are_the_literal_ones(name, path):
    """Adam on samples picked and labels shifted by the literal generator: 60 steps to 1e-12, after a Gaussian part
    that draws first."""
    noise, pick = LITERAL[name]
    system = md.Map(LOSS, md.Adam(0.05), noise + md.GaussianNoise([0.2, 0.1]))
    got = md.simulate(system, [0.8, -0.6], STEPS, paths=path + 1, save_every=1, rng=SEED).w[path]
    stream, deck = Stream(seed_key(SEED)[1], path), list(range(5))
    theta, state, saved = np.array([0.8, -0.6]), twins.zero_state("adam", np.zeros(2)), [[0.8, -0.6]]
    for step in range(STEPS):
        xi = np.array([0.2, 0.1]) * pairs(stream, 2)
        samples, shift = pick(stream, step, deck)
        theta, state = twins.adam(theta, state, gradient(theta, samples, shift) + xi, step + 1, lr=0.05)
        saved.append(theta)
    np.testing.assert_allclose(got, saved, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", [md.SGD(0.05, 0.9, nesterov=True), md.Adam(0.02), md.Lion(1 / (k + 50))], ids=str)
def test_both_roads_make_the_same_steps(rule):
    """A loss of symbols (one straight-line kernel) and the same loss of a vector (loops) step alike to 1e-12."""
    v, j = md.vector("v", 3), sp.Symbol("j", integer=True)
    x = sp.symbols("x0:3")
    straight = md.Loss(sum((i + 1) * sp.cosh(s) for i, s in enumerate(x)) + x[0] * x[2], list(x))
    looped = md.Loss(sp.Sum((j + 1) * sp.cosh(v[j]), (j, 0, 2)) + v[0] * v[2], [v])
    sigma = [[0.1, 0.2], [0.0, 0.3], [0.2, -0.1]]
    roads = ["noisy_grad" in md.Map(loss, rule).source.text for loss in (straight, looped)]
    assert roads == [False, True]
    first, second = (
        md.simulate(md.Map(loss, rule, md.GaussianNoise(sigma)), [0.5, -0.4, 0.3], 200, paths=3, save_every=1, rng=2).w
        for loss in (straight, looped)
    )
    assert np.ptp(first, axis=1).min() > 0.05
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-12)


def test_a_wide_state_takes_the_loop():
    """Sixteen symbols with Adam, more than one straight line holds, step like sixteen maps of one symbol."""
    xs = sp.symbols("x0:16")
    wide = md.Map(md.Loss(sum(sp.cosh(s) for s in xs), list(xs)), md.Adam(0.02))
    narrow = md.Map(md.Loss(sp.cosh(xs[0]), [xs[0]]), md.Adam(0.02))
    w0 = np.linspace(-1, 1, 16)
    got = md.simulate(wide, w0, 50, save_every=1).w[0]
    one_by_one = md.simulate(narrow, w0[:, None], 50, paths=16, save_every=1).w[:, :, 0].T
    np.testing.assert_allclose(got, one_by_one, rtol=1e-13)


def test_new_numbers_need_no_new_kernel():
    """Another learning rate, noise level, constant or data set runs on the same kernel, with its own numbers."""
    h = sp.Symbol("h")
    loss = md.Loss(h * a**2 / 2, [a], constants={h: 2.0})
    first = md.Map(loss, md.GD(0.1), md.GaussianNoise(1e-9))
    other = md.Map(loss.with_constants({h: 3.0}), md.GD(0.2), md.GaussianNoise(0.0))
    assert first.kernels is other.kernels
    assert first.step([1.0], rng=0)[0] == pytest.approx(0.8, abs=1e-8) and other.step([1.0])[0] == pytest.approx(0.4)
    again = first.with_lr(0.2)
    assert again.kernels is first.kernels and again.step([1.0], noise=False)[0] == pytest.approx(0.6)
    again = LOSS.with_data({"u": INPUTS[::-1].copy()})
    moved = md.Map(again, md.GD(1.0)).step([0.8, -0.6])
    w, t = np.array([0.8, -0.6]), np.tanh(-0.6 * INPUTS[::-1])
    model = np.stack([t, 0.8 * INPUTS[::-1] * (1 - t**2)], axis=1)
    np.testing.assert_allclose(moved, w - ((0.8 * t - TARGET)[:, None] * model).mean(0), rtol=1e-13)


# The clock ----------


def test_time_is_the_sum_of_learning_rates():
    """`time` is lr k, or the cumulative sum of a schedule's rates, for any order of steps."""
    plain = md.Map(LOSS, md.SGD(0.1, momentum=1 - 1 / (k + 1)))
    assert np.allclose(plain.time([0, 10, 3]), [0, 1.0, 0.3], rtol=1e-14, atol=0)
    decay = md.Map(LOSS, md.GD(sp.Piecewise((0.1 / k, k <= 4), (0.01, True))))
    assert np.allclose(decay.time([6, 0, 1, 4]), [0.1 * 25 / 12 + 0.02, 0, 0.1, 0.1 * 25 / 12], rtol=1e-14, atol=0)


# The randomness of one step ----------


def test_step_takes_every_form_of_rng():
    """A seed, a numpy integer, a SeedSequence or a Generator make a step repeatable; nothing makes it fresh."""
    step = md.Map(LOSS, md.GD(0.1), md.GaussianNoise(1.0)).step
    seeded = step([0.8, -0.6], rng=3)
    BITS(step([0.8, -0.6], rng=np.int64(3)), seeded)
    BITS(step([0.8, -0.6], rng=np.random.SeedSequence(3)), seeded)
    BITS(step([0.8, -0.6], rng=np.random.default_rng(3)), step([0.8, -0.6], rng=np.random.default_rng(3)))
    generator = np.random.default_rng(3)
    assert not np.array_equal(step([0.8, -0.6], rng=generator), step([0.8, -0.6], rng=generator))
    assert not np.array_equal(step([0.8, -0.6]), step([0.8, -0.6]))


@pytest.mark.parametrize("k, size", [(1, 3), (2, 3), (3, 1)])
def test_a_reshuffled_step_alone_sees_any_samples(k, size):
    """A single step anywhere in an epoch sees a uniform subset, smaller at the end of the epoch."""
    new = md.Map(COUNTER, md.GD(1.0), md.Reshuffle(3)).step(np.zeros((7000, COUNTED)), k=k, rng=0)
    counts = -new * size
    np.testing.assert_allclose(counts, counts.round(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(counts.sum(1), size, rtol=1e-12)
    assert scipy.stats.chisquare(counts.sum(0)).pvalue > 1e-4


# Shapes and errors ----------


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_blocks_hold_every_path(count):
    """Packing paths into blocks of 64 and back changes nothing; empty places repeat the last path."""
    states = np.random.default_rng(0).normal(size=(count, 3))
    blocks = pack(states)
    assert blocks.shape == (-(-count // 64), 192)
    BITS(unpack(blocks, count), states)
    BITS(unpack(blocks, 64 * len(blocks))[count:], np.repeat(states[-1:], 64 * len(blocks) - count, axis=0))
    BITS(unpack(blocks, count, 1, 2), states[:, 1:2])


def test_blocks_have_zeros_where_paths_have_no_numbers():
    """Components that a start does not give are zero, and what is unpacked is a copy even of a single component."""
    states = np.random.default_rng(0).normal(size=(70, 1))
    BITS(unpack(pack(states, 3), 70), np.concatenate([states, np.zeros((70, 2))], axis=1))
    blocks = pack(states)
    unpack(blocks, 70)[:] = 0.0
    BITS(unpack(blocks, 70), states)


def test_no_points_give_no_points():
    """A batch of zero points has zero results."""
    assert md.Map(LOSS, md.Adam(0.1)).step(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("make, sentence", [
    (lambda: md.Map(a**2, md.GD(0.1)), "a Map needs a Loss first, not Pow."),
    (lambda: md.Map(LOSS, "sgd"), "a Map needs an update rule such as md.SGD(0.1), not 'sgd'."),
    (lambda: md.Map(LOSS, md.GD(0.1), 0.3), "noise must be a noise model such as md.GaussianNoise(0.1), not 0.3."),
    (lambda: md.Map(LOSS, md.GD(0.1)).with_lr(0), "lr must be a positive number, not 0."),
    (lambda: md.Map(LOSS, md.Adam(0.1)).step([1.0, 2.0, 3.0]),
     "z has shape (3,), expected (..., 2) for theta or (..., 6) for the whole state."),
    (lambda: md.Map(LOSS, md.GD(0.1)).step([0.0, 0.0], rng=-1),
     "rng must be a non-negative whole number, a SeedSequence or a Generator, not -1."),
])  # fmt: skip
def test_error_is_a_sentence(make, sentence):
    """A map that cannot be is one sentence that says what was given and what is expected."""
    with pytest.raises(md.InputError) as error:
        make()
    assert str(error.value) == sentence


def test_a_rule_that_was_not_called():
    """`md.Adam` without its learning rate is not a rule yet."""
    with pytest.raises(md.InputError, match=r"needs an update rule such as md.SGD\(0.1\)"):
        md.Map(LOSS, md.Adam)
