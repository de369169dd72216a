"""Any number of samples, paths, parameters: against literal numpy, and alone as in company."""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy as sp
from test_noise import Stream, fisher_yates

import minidyn as md
from minidyn import maps
from minidyn.kernels.random import seed_key

LARGEST = 130
SPREAD = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 100, 127, 128, 129, 130)
a, b, u = sp.symbols("a b u")
SEED, LR, STD, START = 11, 0.3, 0.4, np.array([0.8, -0.6])
BITS = np.testing.assert_array_equal


# -- maps on data -----------------------------------------------------------------------------------------------


@cache
def regression(samples: int) -> tuple[md.Loss, np.ndarray, np.ndarray]:
    """The loss `(a tanh(b u) - y)^2/2`, its inputs and targets."""
    inputs = np.random.default_rng(samples).normal(size=samples)
    target = np.sin(2 * inputs) + 0.3
    return md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: inputs}, target), inputs, target


def pairs(stream: Stream, count: int) -> np.ndarray:
    """`count` normals; an odd one out is thrown away."""
    return np.array([z for _ in range((count + 1) // 2) for z in stream.normals()][:count])


PICKS = {  # what a step sees: the noise for a batch of n samples, and which samples its step number `step` picks
    "all": (lambda batch: md.GaussianNoise(0.0), lambda s, step, deck, n, batch: np.arange(n)),
    "subset": (md.Minibatch, lambda s, step, deck, n, batch: fisher_yates(s, n, batch)),
    "again": (lambda batch: md.Minibatch(batch, replace=True),
              lambda s, step, deck, n, batch: [s.below(n) for _ in range(batch)]),
    "epoch": (md.Reshuffle, lambda s, step, deck, n, batch: in_turn(s, step, deck, n, batch)),
}  # fmt: skip
LABELS = {
    "none": (None, lambda s, count: np.zeros(count)), "normal": ("normal", pairs),
    "signs": ("rademacher", lambda s, count: np.array([s.sign() for _ in range(count)])),
}  # fmt: skip


def in_turn(stream: Stream, step: int, deck: list[int], n: int, batch: int) -> list[int]:
    """The next samples of a deck that is shuffled whenever it has been seen."""
    turn = step % -(-n // batch)
    if turn == 0:
        deck[:] = fisher_yates(stream, n, n)
    return deck[batch * turn : batch * (turn + 1)]


def literal_path(path: int, samples: int, batch: int, picks: str, labels: str, steps: int) -> np.ndarray:
    """Gradient descent on what the literal generator picks."""
    _, inputs, target = regression(samples)
    stream, deck, w = Stream(seed_key(SEED)[1], path), list(range(samples)), START
    for step in range(steps):
        if picks == "all":
            pairs(stream, 2)  # of the Gaussian noise, which has the strength zero
        seen = PICKS[picks][1](stream, step, deck, samples, batch)
        shift = STD * LABELS[labels][1](stream, len(seen))
        t = np.tanh(w[1] * inputs[seen])
        slope = np.stack([t, w[0] * inputs[seen] * (1 - t**2)], axis=1)
        w = w - LR * ((w[0] * t - target[seen] - shift)[:, None] * slope).mean(0)
    return w


def check_map_on_data(samples: int, batch: int, paths: int, picks: str, labels: str = "none", steps: int = 3) -> None:
    """Three paths are the literal ones to 1e-12; one by one and side by side, all paths have the same bits."""
    loss = regression(samples)[0]
    noise = PICKS[picks][0](batch)
    if labels != "none":
        noise = noise + md.LabelNoise(STD, kind=LABELS[labels][0])
    system = md.Map(loss, md.SGD(LR), noise)
    got = carried(system, paths, steps)
    for path in {0, paths // 2, paths - 1}:
        want = literal_path(path, samples, batch, picks, labels, steps)
        np.testing.assert_allclose(got[path], want, rtol=1e-12, atol=1e-12)
    few = min(paths, maps._FEW - 1)
    BITS(got[:few], carried(system, few, steps))


def carried(system: md.Map, paths: int, steps: int) -> np.ndarray:
    return md.simulate(system, START, steps, paths=paths, save_every=steps, rng=SEED).w[:, -1]
