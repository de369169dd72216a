"""Random numbers and gradient noise: bits against a literal generator, laws against theory, draws against Σ."""

from __future__ import annotations

import math
from functools import cache
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import sympy as sp
from conformance import stated_covariance

import minidyn as md
from minidyn.kernels import random
from minidyn.kernels.random import seed_key, seed_lanes

MASK = 2**64 - 1
ERRORS = 5  # standard errors that a statistic may be off: by chance 6e-7 of the time, and seeds are fixed


# The generator ----------


def rotl(x: int, by: int) -> int:
    return (x << by | x >> (64 - by)) & MASK


def mixed(z: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


class Stream:
    """xoshiro256++ (Blackman, Vigna 2021) of one path, in Python's whole numbers."""

    def __init__(self, key, path: int):
        first, second = map(int, key)
        words = (first + (4 * path + w) * 0x9E3779B97F4A7C15 for w in (1, 2, 3, 4))
        self.s = [mixed(mixed(z & MASK) ^ second) for z in words]

    def word(self) -> int:
        s = self.s
        out = (rotl(s[0] + s[3] & MASK, 23) + s[0]) & MASK
        t = s[1] << 17 & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)
        return out

    def normals(self) -> tuple[float, float]:
        """Box-Muller: the radius from one word; an eighth turn, its reflection and the signs from the other."""
        u, v = self.word(), self.word()
        radius = math.sqrt(-2 * math.log(1 - u % 2**52 * 2.0**-52))
        angle = (v % 2**52 * 2.0**-52 - 0.5) * math.pi / 2
        pair = [radius * math.sin(angle), radius * math.cos(angle)]
        if v >> 61 & 1:
            pair.reverse()
        return (-pair[0] if v >> 63 & 1 else pair[0]), (-pair[1] if v >> 62 & 1 else pair[1])

    def sign(self) -> float:
        return 1.0 if self.word() >> 63 else -1.0

    def below(self, n: int) -> int:
        return int((self.word() >> 11) * 2.0**-53 * n)


def test_literal_generator_is_the_published_one():
    """The twin gives the authors' first words from the state 1, 2, 3, 4."""
    stream = Stream([0, 0], 0)
    stream.s = [1, 2, 3, 4]
    assert [stream.word() for _ in range(5)] == [
        41943041,
        58720359,
        3588806011781223,
        3591011842654386,
        9228616714210784205,
    ]


def lanes(seed=0, first=0):
    """The seeded generators of 64 paths."""
    r = np.empty(320, np.uint64)
    seed_lanes(seed_key(seed)[1], first, 2**62, r)
    return r


@pytest.mark.parametrize("seed, first", [(0, 0), (12345, 64), (2**100, 6400)])
def test_words_are_the_twins_bit_for_bit(seed, first):
    """Seeds, states and 53-bit words of every lane are the literal generator's."""
    r, index = lanes(seed, first), np.empty(20 * 64, np.int64)
    twins = [Stream(seed_key(seed)[1], first + lane) for lane in range(64)]
    assert [list(map(int, r[:256][lane::64])) for lane in range(64)] == [t.s for t in twins]
    random.with_replacement(r, index, 20, 2**53)  # floor(2^53 u) is the word without its 11 lowest bits
    assert index.reshape(20, 64).T.tolist() == [[t.word() >> 11 for _ in range(20)] for t in twins]
    assert [list(map(int, r[:256][lane::64])) for lane in range(64)] == [t.s for t in twins]


def test_normals_are_the_twins_to_a_few_ulp():
    """Normals are Box-Muller of the twin's words within 6 units in the last place (some of them the twin's)."""
    r, z = lanes(7), np.empty(200 * 64)
    random.normals(r, z, 0, 99)
    random.normals(r, z, 198, 1)  # in pieces or at once
    key = seed_key(7)[1]
    expected = []
    for lane in range(64):
        stream = Stream(key, lane)
        expected.append([value for _ in range(100) for value in stream.normals()])
    got, expected = z.reshape(200, 64).T, np.array(expected)
    assert np.all(abs(got - expected) <= 6 * np.spacing(abs(expected)))


def test_an_odd_number_of_normals_shares_a_pair_with_the_next_step():
    """Three normals a step: a pair, then the first of another at an odd step, whose second is the even step's."""
    r, z, key = lanes(7), np.empty(4 * 64), seed_key(7)[1]
    own, got = np.ascontiguousarray(r.reshape(5, 64)[:, 9]), np.empty(3)
    stream, kept = Stream(key, 9), 0.0
    for k in range(1, 8):
        random.normals(r, z, 0, 1)
        random.half_pair(r, z, 2, k)
        random.path_normals(own, got, 0, 3, k)
        expected = [*stream.normals()]
        if k % 2:
            first, kept = stream.normals()
            expected.append(first)
        else:
            expected.append(kept)
        assert np.array_equal(got, z.reshape(4, 64)[:3, 9])
        assert np.allclose(got, expected, rtol=1e-14, atol=0)
    assert np.array_equal(own, r.reshape(5, 64)[:, 9])


def test_a_run_that_starts_at_an_even_step_has_normals_of_its_own():
    """The normal that is kept before the first step is another one in every lane, and none that is drawn later."""
    r, z = lanes(7), np.empty(64 * 64)
    kept = r[256:].view(np.float64).copy()
    random.normals(r, z, 0, 32)
    assert len(np.unique(kept)) == 64 and abs(kept).max() < 5 and not np.isin(kept, z).any()


def test_signs_and_picks_are_the_twins():
    """Signs, subsets and permutations are those that the literal algorithms draw from the twin's words."""
    r, z, n = lanes(3), np.empty(10 * 64), 7
    index, order = np.empty(n * 64, np.int64), np.repeat(np.arange(n), 64)
    streams = [Stream(seed_key(3)[1], lane) for lane in range(64)]
    random.signs(r, z, 2, 5)
    assert z.reshape(10, 64)[2:7].T.tolist() == [[s.sign() for _ in range(5)] for s in streams]
    random.without_replacement(r, index, order, 4, n)
    assert index.reshape(n, 64)[:4].T.tolist() == [fisher_yates(s, n, 4) for s in streams]
    assert np.array_equal(order, np.repeat(np.arange(n), 64))  # ready for the next step
    random.shuffle(r, order, n, n)
    assert order.reshape(n, 64).T.tolist() == [fisher_yates(s, n, n) for s in streams]


def fisher_yates(stream: Stream, n: int, count: int) -> list[int]:
    """The first `count` places of a shuffled deck."""
    deck = list(range(n))
    for b in range(count):
        other = b + stream.below(n - b)
        deck[b], deck[other] = deck[other], deck[b]
    return deck[:count]


# The laws ----------

PATHS, DRAWS = 256, 4000


@cache
def sample(seed=0) -> np.ndarray:
    """A million normals: (PATHS, DRAWS), in the order in which a path draws them."""
    out = []
    for first in range(0, PATHS, 64):
        r, z = lanes(seed, first), np.empty(DRAWS * 64)
        random.normals(r, z, 0, DRAWS // 2)
        out.append(z.reshape(DRAWS, 64).T)
    return np.concatenate(out)


@pytest.mark.parametrize("power, expected", [(1, 0), (2, 1), (3, 0), (4, 3), (6, 15), (8, 105)])
def test_moments(power, expected):
    """A million normals have the moments of N(0, 1) within 5 standard errors."""
    z = sample()
    variance = scipy.stats.norm.moment(2 * power) - expected**2
    assert abs((z**power).mean() - expected) < ERRORS * math.sqrt(variance / z.size)


@pytest.mark.parametrize("at", [0.0, 1.0, 2.0, 3.0, 4.0, 4.8])
def test_tails(at):
    """The shares of draws beyond ±1, ... ±4.8 are normal within 5 standard errors (0.8 are expected beyond 4.8)."""
    z, p = sample(), scipy.stats.norm.sf(at)
    for share in ((z > at).mean(), (z < -at).mean()):
        assert abs(share - p) < ERRORS * math.sqrt(p * (1 - p) / z.size)


def test_distribution():
    """The Kolmogorov-Smirnov distance of a million draws to N(0, 1) is no larger than one run in 1000 has it."""
    assert scipy.stats.kstest(sample().ravel(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("function", [np.asarray, np.square, np.sign], ids=["values", "sizes", "signs"])
def test_paths_are_independent(function):
    """No two of 256 paths are correlated, in values, sizes or signs: each within 5.8 standard errors (32 640
    pairs; by chance once in 4600 runs), and their mean square is as expected."""
    z = function(sample())
    z = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
    pairs = (z @ z.T / math.sqrt(DRAWS))[np.triu_indices(PATHS, 1)]  # N(0, 1) each
    assert abs(pairs).max() < 5.8
    assert abs((pairs**2).mean() - 1) < ERRORS * math.sqrt(2 / pairs.size)


@pytest.mark.parametrize("function", [np.asarray, np.square, np.sign], ids=["values", "sizes", "signs"])
def test_draws_along_a_path_are_independent(function):
    """Draws 1 to 40 places apart on a path (a pair of one Box-Muller among them) are uncorrelated."""
    z = function(sample())
    z = (z - z.mean()) / z.std()
    for lag in range(1, 41):
        products = z[:, :-lag] * z[:, lag:]
        assert abs(products.mean()) < ERRORS / math.sqrt(products.size)


def test_seeds_are_independent():
    """The same path of runs with neighbouring seeds is uncorrelated."""
    products = sample(0) * sample(1)
    assert abs(products.mean()) < ERRORS / math.sqrt(products.size)


def uniform(outcomes, kinds: int) -> bool:
    """Whether all of `kinds` outcomes are equally frequent: chi squared within its 99.99 % range."""
    _, counts = np.unique(outcomes, axis=0, return_counts=True)
    return len(counts) == kinds and scipy.stats.chisquare(counts).pvalue > 1e-4


def test_subsets_are_uniform():
    """Every ordered subset of 3 out of 5 is equally likely, and so is every one of 125 triples with replacement."""
    r, order, without, triples = lanes(5), np.repeat(np.arange(5), 64), [], []
    index = np.empty(3 * 64, np.int64)
    for _ in range(1500):
        random.without_replacement(r, index, order, 3, 5)
        without.append(index.reshape(3, 64).T.copy())
        random.with_replacement(r, index, 3, 5)
        triples.append(index.reshape(3, 64).T.copy())
    assert uniform(np.concatenate(without), 60)
    assert uniform(np.concatenate(triples), 125)


def test_permutations_are_uniform():
    """Every order of 4 samples is equally likely at the start of an epoch."""
    r, orders = lanes(6), []
    for _ in range(400):
        order = np.repeat(np.arange(4), 64)
        random.shuffle(r, order, 4, 4)
        orders.append(order.reshape(4, 64).T)
    assert uniform(np.concatenate(orders), len(list(permutations(range(4)))))


# What a map draws ----------

COUNTED = 7
w_, e_, j = md.vector("w", COUNTED), md.vector("e", COUNTED), sp.Symbol("j", integer=True)
# sample i's gradient is the unit vector e_i: a step of gradient descent shows which samples were seen
COUNTER = md.Loss(sp.Sum(w_[j] * e_[j], (j, 0, COUNTED - 1)), [w_], data={e_: np.eye(COUNTED)})


def seen(noise: md.Noise, steps: int, paths: int = 130) -> np.ndarray:
    """How often each step saw each sample, times 1/batch: shape (paths, steps, n)."""
    run = md.simulate(md.Map(COUNTER, md.GD(1.0), noise), np.zeros(COUNTED), steps, paths=paths, save_every=1, rng=8)
    return -np.diff(run.w, axis=1)


def test_reshuffling_visits_every_sample_once_an_epoch():
    """Each epoch of batches of 3, 3 and 1 visits each of 7 samples exactly once, in a fresh order."""
    batches = seen(md.Reshuffle(3), 3 * 40)
    counts = batches * np.tile([3, 3, 1], 40)[:, None]
    np.testing.assert_allclose(counts, counts.round(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(counts.sum(2), np.tile([3, 3, 1], (130, 40)), rtol=1e-12)
    epochs = counts.round().reshape(130, 40, 3, COUNTED)
    assert (epochs.sum(2) == 1).all()
    last = epochs[:, :, 2].argmax(-1)  # the sample that is left for the last batch
    assert uniform(last.reshape(-1, 1), COUNTED)
    assert abs((last[:, 1:] == last[:, :-1]).mean() - 1 / 7) < ERRORS * math.sqrt(6 / 49 / (130 * 39))


def test_whole_batches_are_the_full_gradient():
    """A batch of all samples, drawn without replacement or reshuffled, is the full gradient."""
    for noise in (md.Minibatch(COUNTED), md.Reshuffle(COUNTED)):
        assert np.allclose(seen(noise, 5), 1 / COUNTED, rtol=1e-12, atol=0)


def test_batches_with_replacement_may_be_larger_than_the_data():
    """Twenty independent draws from seven samples: every sample is seen 20/7 times on average."""
    counts = 20 * seen(md.Minibatch(20, replace=True), 30)
    np.testing.assert_allclose(counts, counts.round(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(counts.sum(2), 20, rtol=1e-10)
    error = math.sqrt(20 * 6 / 49 / (130 * 30))
    assert abs(counts.mean((0, 1)) - 20 / 7).max() < ERRORS * error


# Drawn covariance = stated covariance ----------

a, b, u = sp.symbols("a b u")
INPUTS, TARGET = np.array([-1.0, -0.2, 0.5, 1.1, 2.0]), np.array([0.3, 0.0, 0.4, 0.5, 1.2])
LOSS = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: INPUTS}, TARGET)
W = np.array([0.8, -0.6])
N = len(INPUTS)
MATRIX = np.array([[0.3, 0.0, -0.2], [0.1, 0.4, 0.2]])


def sample_gradients(w):
    """∇ of the model and of each sample's loss, (n, 2) each."""
    t = np.tanh(w[1] * INPUTS)
    model = np.stack([t, w[0] * INPUTS * (1 - t**2)], axis=1)
    return model, (w[0] * t - TARGET)[:, None] * model


def spread(w, share: float) -> np.ndarray:
    """`share` times C = (1/n) Σ (g_i − g)(g_i − g)ᵀ."""
    g = sample_gradients(w)[1]
    return share * np.cov(g.T, bias=True)


def labels(w, share: float) -> np.ndarray:
    """`share` times (1/n) Σ ∇f_i ∇f_iᵀ."""
    model, _ = sample_gradients(w)
    return share * model.T @ model / N


def symbolic(w) -> np.ndarray:
    return np.array([[0.1 + w[0] ** 2, 0.2], [w[0] * w[1], np.exp(w[1])]])


GAUSSIAN = [[a**2 + 0.1, 0.2], [a * b, sp.exp(b)]]
# noise and its covariance as theory.md section 1 has it
STATED = {
    "scalar": (md.GaussianNoise(0.4), lambda w: 0.16 * np.eye(2)),
    "vector": (md.GaussianNoise([0.4, 0.1]), lambda w: np.diag([0.16, 0.01])),
    "matrix": (md.GaussianNoise(MATRIX), lambda w: MATRIX @ MATRIX.T),
    "symbolic number": (md.GaussianNoise(a * b), lambda w: (w[0] * w[1]) ** 2 * np.eye(2)),
    "symbolic vector": (md.GaussianNoise([a, 0.3]), lambda w: np.diag([w[0] ** 2, 0.09])),
    "symbolic matrix": (md.GaussianNoise(sp.Matrix(GAUSSIAN)), lambda w: symbolic(w) @ symbolic(w).T),
    "without replacement": (md.Minibatch(2), lambda w: spread(w, 3 / (2 * 4))),
    "one sample": (md.Minibatch(1), lambda w: spread(w, 1)),
    "with replacement": (md.Minibatch(2, replace=True), lambda w: spread(w, 1 / 2)),
    "labels": (md.LabelNoise(0.5), lambda w: labels(w, 0.25 / N)),
    "labels ±1": (md.LabelNoise(0.5, kind="rademacher"), lambda w: labels(w, 0.25 / N)),
    "labels of a batch": (md.LabelNoise(0.5, batch=3), lambda w: labels(w, 0.25 / 3) + spread(w, 2 / (3 * 4))),
    "labels ±1 of a batch": (
        md.LabelNoise(0.5, batch=3, kind="rademacher"), lambda w: labels(w, 0.25 / 3) + spread(w, 2 / (3 * 4))),
    "labels + replacement": (
        md.LabelNoise(0.5) + md.Minibatch(2, replace=True), lambda w: labels(w, 0.25 / 2) + spread(w, 1 / 2)),
    "gaussian + minibatch": (
        md.GaussianNoise(MATRIX) + md.Minibatch(2), lambda w: MATRIX @ MATRIX.T + spread(w, 3 / (2 * 4))),
    "all three": (
        md.Minibatch(2) + md.LabelNoise(0.5, kind="rademacher") + md.GaussianNoise([a, 0.3]),
        lambda w: np.diag([w[0] ** 2, 0.09]) + labels(w, 0.25 / 2) + spread(w, 3 / (2 * 4))),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_stated_covariance_is_theorys(name):
    """Σ, its diagonal and that diagonal's slopes, which flows read, are the formulas' of theory.md section 1."""
    noise, formula = STATED[name]
    sigma, diagonal, slopes = stated_covariance(md.Map(LOSS, md.GD(1.0), noise), W)
    np.testing.assert_allclose(sigma, formula(W), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(diagonal, np.diag(formula(W)), rtol=1e-12, atol=1e-16)
    differences = [np.diag(formula(W + h) - formula(W - h)) / 2e-5 for h in 1e-5 * np.eye(2)]
    np.testing.assert_allclose(slopes, np.stack(differences, axis=1), atol=1e-8, rtol=0)


DRAWN = 40_000


@pytest.mark.parametrize("name", STATED)
def test_drawn_covariance_is_the_stated_one(name):
    """40 000 draws have mean 0 and the stated covariance within 5 standard errors, each about 1 % of Σ or less."""
    noise, formula = STATED[name]
    system = md.Map(LOSS, md.GD(1.0), noise)
    xi = W - sample_gradients(W)[1].mean(0) - system.step(np.tile(W, (DRAWN, 1)), rng=21)
    outer, sigma = xi[:, :, None] * xi[:, None, :], formula(W)
    errors = outer.std(0) / math.sqrt(DRAWN)
    assert (np.diag(errors) < 0.011 * np.diag(sigma)).all()  # the test would see a few per cent
    assert (abs(outer.mean(0) - sigma) <= ERRORS * errors + 1e-15).all()
    assert (abs(xi.mean(0)) <= ERRORS * np.sqrt(np.diag(sigma) / DRAWN)).all()


def test_rademacher_labels_are_plus_or_minus():
    """One datum with ±1 labels: the gradient noise takes the two values ∓ s ∇f, each half of the time."""
    loss = md.Loss.regression(a * b, [a, b], inputs={}, target=[1.0])
    new = md.Map(loss, md.GD(1.0), md.LabelNoise(0.5, kind="rademacher")).step(np.tile([2.0, 3.0], (6400, 1)), rng=0)
    xi = [2.0, 3.0] - 5.0 * np.array([3.0, 2.0]) - new
    signs = xi[:, 0] / 1.5
    np.testing.assert_allclose(abs(signs), 1, rtol=1e-12)
    np.testing.assert_allclose(xi, signs[:, None] * [1.5, 1.0], rtol=1e-12)
    assert abs(signs.mean()) < ERRORS / 80


def test_gaussian_noise_is_fresh_every_step():
    """The noise of a step is independent of that of the step before, and of the other coordinate's."""
    flat = md.Loss(sp.Integer(0) * a, [a, b])
    run = md.simulate(md.Map(flat, md.GD(1.0), md.GaussianNoise(1.0)), [0.0, 0.0], 200, paths=256, save_every=1, rng=1)
    xi = np.diff(run.w, axis=1)
    for products in (xi[:, 1:] * xi[:, :-1], xi[:, 1:] * xi[:, :-1, ::-1], xi[:, :, 0] * xi[:, :, 1]):
        assert abs(products.mean()) < ERRORS / math.sqrt(products.size)


# Words and errors ----------


def test_noise_in_words():
    """A noise prints as it was written, and sums as sums."""
    assert repr(md.GaussianNoise(0.3)) == "GaussianNoise(0.3)"
    assert repr(md.Minibatch(4, replace=True)) == "Minibatch(4, replace=True)"
    assert repr(md.LabelNoise(0.1, batch=3, kind="rademacher")) == "LabelNoise(0.1, batch=3, kind='rademacher')"
    everything = md.Reshuffle(2) + md.GaussianNoise(0.3) + md.LabelNoise(1)
    assert repr(everything) == "GaussianNoise(0.3) + LabelNoise(1) + Reshuffle(2)"
    assert len(repr(md.GaussianNoise(np.ones((10, 10))))) < 60


def test_sums_of_noises_commute():
    """The order of a sum of noises does not matter."""
    parts = md.GaussianNoise(0.3), md.LabelNoise(0.1), md.Minibatch(2, replace=True)
    assert len({parts[i] + parts[j] + parts[k] for i, j, k in permutations(range(3))}) == 1


PLAIN = md.Loss(a**2 * b**2, [a, b])


def on(loss, noise):
    return lambda: md.Map(loss, md.GD(0.1), noise)


@pytest.mark.parametrize("make, sentence", [
    (lambda: md.GaussianNoise(-0.1), "sigma is a standard deviation and must not be negative."),
    (lambda: md.GaussianNoise(sp.Rational(-1, 2)), "sigma is a standard deviation and must not be negative."),
    (lambda: md.GaussianNoise("large"), "sigma must be real numbers, not 'large'."),
    (lambda: md.GaussianNoise([0.1, np.nan]), "sigma contains NaN or Inf; it must be finite."),
    (lambda: md.GaussianNoise([]), "sigma must be a number, a vector (D,) or a matrix (D, r); it has shape (0,)."),
    (on(PLAIN, md.GaussianNoise([1, 2, 3])), "sigma has 3 rows, expected 2: one for each parameter."),
    (on(PLAIN, md.GaussianNoise(sp.Symbol("s"))), "the symbol s is neither a parameter, a constant nor data (known: a, "
                                                 "b); declare it or give its number in constants=."),
    (lambda: md.Minibatch(0), "batch is 0; it must be at least 1."),
    (lambda: md.Minibatch(2.5), "batch must be a whole number, not 2.5."),
    (lambda: md.Reshuffle(None), "batch must be a whole number, not None."),
    (lambda: md.Reshuffle(float("inf")), "batch must be a whole number, not inf."),
    (on(PLAIN, md.Minibatch(2)), "Minibatch(2) draws samples, but the loss has no data: give data= or use "
                                 "Gaussian noise."),
    (on(LOSS, md.Minibatch(6)), "the batch of 6 is larger than the 5 samples; choose at most 5."),
    (on(LOSS, md.Reshuffle(6)), "the batch of 6 is larger than the 5 samples; choose at most 5."),
    (lambda: md.LabelNoise(0), "the standard deviation of label noise must be a positive number, not 0."),
    (lambda: md.LabelNoise("a"), "the standard deviation of label noise must be a number, not 'a'."),
    (lambda: md.LabelNoise(0.1, kind="uniform"), "the kind of label noise is 'normal' or 'rademacher', not 'uniform'."),
    (on(PLAIN, md.LabelNoise(0.1)), "label noise needs Loss.regression with the squared criterion."),
    (lambda: md.Minibatch(2) + md.Reshuffle(2), "cannot add Minibatch(2) and Reshuffle(2): both set batch."),
    (lambda: md.LabelNoise(0.1, batch=2) + md.Minibatch(2), "cannot add LabelNoise(0.1, batch=2) and Minibatch(2): "
                                                            "both set batch."),
])  # fmt: skip
def test_error_is_a_sentence(make, sentence):
    """A noise that cannot be is one sentence that says what was given and what is expected."""
    with pytest.raises(md.InputError) as error:
        make()
    assert str(error.value) == sentence


def test_only_noises_add_to_noises():
    """A number is no noise: adding one is Python's TypeError."""
    with pytest.raises(TypeError, match="unsupported operand"):
        md.Minibatch(2) + 0.1


def test_reshuffling_has_no_covariance():
    """Steps of an epoch depend on each other: a flow that asks for Σ is told to use minibatches."""
    with pytest.raises(md.FlowError, match=r"random reshuffling has no covariance per step.* use minibatches"):
        stated_covariance(md.Map(LOSS, md.GD(0.1), md.Reshuffle(2)), W)


@pytest.mark.parametrize("batch, n", [(1, 1), (1, 5), (4, 7), (7, 7), (12, 300)])
def test_few_picks_are_the_twins(batch, n):
    """A few samples picked without a permutation in memory are those of the literal algorithm."""
    r, index = lanes(5), np.empty(batch * 64, np.int64)
    streams = [Stream(seed_key(5)[1], lane) for lane in range(64)]
    for _ in range(3):
        random.few_without_replacement(r, index, batch, n)
        assert index.reshape(batch, 64).T.tolist() == [fisher_yates(s, n, batch) for s in streams]
