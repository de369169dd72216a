"""Any number of samples, paths, parameters: against literal numpy, and alone as in company.

    python tests/sizes.py [first [last]]     every size from 1 to 130, or from `first` to `last`: takes long
    python tests/sizes.py bits               a fingerprint of runs of all kinds, the same at every number of lanes

`test_sizes.py` checks a part of the sizes.
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from itertools import pairwise

import numpy as np
import sympy as sp
import twins
from test_noise import Stream, fisher_yates

import minidyn as md
from minidyn.kernels.random import seed_key
from minidyn.maps import discrete

LARGEST = 130
SPREAD = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 100, 127, 128, 129, 130)
SEED, LR, STD, START = 11, 0.3, 0.4, np.array([0.8, -0.6])
a, b, u = sp.symbols("a b u")
BITS, CLOSE = np.testing.assert_array_equal, np.testing.assert_allclose


def carried(system: md.Map | md.Flow, start, paths: int, steps: int = 3, **options) -> np.ndarray:
    """Where so many paths are after a few steps: (paths, D)."""
    return md.simulate(system, start, steps, paths=paths, save_every=steps, rng=SEED, **options).w[:, -1]


def check_company(system: md.Map | md.Flow, start: np.ndarray, counts, **options) -> None:
    """Any number of paths from the points `start` has the bits that they have among all of them."""
    everybody = carried(system, start, len(start), **options)
    for paths in counts:
        BITS(carried(system, start[:paths], paths, **options), everybody[:paths])


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


def in_turn(stream: Stream, step: int, deck: list[int], n: int, batch: int) -> list[int]:
    """The next samples of a deck that is shuffled whenever it has been seen."""
    turn = step % -(-n // batch)
    if turn == 0:
        deck[:] = fisher_yates(stream, n, n)
    return deck[batch * turn : batch * (turn + 1)]


PICKS = {  # the noise for a batch, and the samples that step number `step` picks of n
    "all": (lambda batch: md.GaussianNoise(0.0), lambda s, step, deck, n, batch: np.arange(n)),
    "subset": (md.Minibatch, lambda s, step, deck, n, batch: fisher_yates(s, n, batch)),
    "again": (
        lambda batch: md.Minibatch(batch, replace=True),
        lambda s, step, deck, n, batch: [s.below(n) for _ in range(batch)],
    ),
    "epoch": (md.Reshuffle, in_turn),
}
LABELS = {
    "none": (None, lambda s, count: np.zeros(count)),
    "normal": ("normal", pairs),
    "signs": ("rademacher", lambda s, count: np.array([s.sign() for _ in range(count)])),
}


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


def check_map_on_data(samples: int, batch: int, paths: int, picks: str, labels: str, steps: int = 3) -> None:
    """Three paths are the literal ones to 1e-12; a few alone, one by one, have the bits that they have side by side."""
    noise = PICKS[picks][0](batch)
    if labels != "none":
        noise = noise + md.LabelNoise(STD, kind=LABELS[labels][0])
    system = md.Map(regression(samples)[0], md.SGD(LR), noise)
    got = carried(system, START, paths, steps)
    for path in {0, paths // 2, paths - 1}:
        CLOSE(got[path], literal_path(path, samples, batch, picks, labels, steps), rtol=1e-12, atol=1e-12)
    few = min(paths, discrete._FEW - 1)
    BITS(got[:few], carried(system, START, few, steps))


# -- derivatives ------------------------------------------------------------------------------------------------


@cache
def waves(units: int) -> md.Loss:
    """The mean of `(sum_j cos((j + 1) x) w_j - y)^2/2 + z sum_j sin(w_j)`, over samples with three columns."""
    w, j = md.vector("w", units), sp.Symbol("j", integer=True)
    x, y, z = sp.symbols("x y z")
    expr = (sp.Sum(sp.cos((j + 1) * x) * w[j], (j, 0, units - 1)) - y) ** 2 / 2
    expr += z * sp.Sum(sp.sin(w[j]), (j, 0, units - 1))
    return md.Loss(expr, [w], data={x: [0.0], y: [0.0], z: [0.0]})


def check_derivatives(units: int, samples: int, lead: tuple[int, ...]) -> None:
    """All derivatives at points of any shape, with sums over samples and units, are numpy's."""
    rng = np.random.default_rng((units, samples))
    x, y, z = rng.normal(size=(3, samples))
    loss = waves(units).with_data({"x": x, "y": y, "z": z})
    w, p, q = rng.normal(size=(3, *lead, units))
    c = np.cos(np.outer(x, np.arange(1, units + 1)))
    miss = np.einsum("ij,...j->...i", c, w) - y
    each = miss[..., None] * c + z[:, None] * np.cos(w)[..., None, :]
    hessian = c.T @ c / samples - z.mean() * np.sin(w)[..., None] * np.eye(units)
    wanted = {
        "value": ((miss**2).mean(-1) / 2 + z.mean() * np.sin(w).sum(-1), (w,)),
        "grad": (each.mean(-2), (w,)),
        "sample_grads": (each, (w,)),
        "hessian": (hessian, (w,)),
        "hvp": (np.einsum("...ij,...j->...i", hessian, p), (w, p)),
        "third": (-z.mean() * np.cos(w) * p * q, (w, p, q)),
    }
    for name, (want, args) in wanted.items():
        CLOSE(getattr(loss, name)(*args), want, rtol=1e-11, atol=1e-11 * units, err_msg=name)


@cache
def chain(size: int) -> md.Loss:
    """`sum_i cosh(x_i) + x_i x_(i+1) / 4` in symbols: kernels without loops."""
    xs = sp.symbols(f"x0:{size}")
    return md.Loss(sum(map(sp.cosh, xs)) + sum(s * t for s, t in pairwise(xs)) / 4, list(xs))


def chain_gradient(w: np.ndarray) -> np.ndarray:
    out = np.sinh(w)
    out[..., :-1] += w[..., 1:] / 4
    out[..., 1:] += w[..., :-1] / 4
    return out


def check_symbols(size: int, points: int) -> None:
    """Derivatives of a loss of so many symbols at so many points are numpy's."""
    w, p, q = np.random.default_rng(size).normal(size=(3, points, size))
    loss = chain(size)
    beside = (np.eye(size, k=1) + np.eye(size, k=-1)) / 4
    CLOSE(loss.value(w), np.cosh(w).sum(-1) + (w[:, :-1] * w[:, 1:]).sum(-1) / 4, rtol=1e-12)
    CLOSE(loss.grad(w), chain_gradient(w), rtol=1e-12, atol=1e-13)
    CLOSE(loss.hvp(w, p), np.cosh(w) * p + p @ beside, rtol=1e-12, atol=1e-13)
    CLOSE(loss.third(w, p, q), np.sinh(w) * p * q, rtol=1e-12, atol=1e-13)


# -- rules and Gaussian noise -------------------------------------------------------------------------------------


@cache
def bowl(size: int, symbols: bool) -> md.Loss:
    """`sum_i (1 + i/size) w_i^2/2`, of symbols or of one vector."""
    if symbols:
        xs = sp.symbols(f"x0:{size}")
        return md.Loss(sum((1 + sp.Rational(i, size)) * s**2 / 2 for i, s in enumerate(xs)), list(xs))
    w, j = md.vector("w", size), sp.Symbol("j", integer=True)
    return md.Loss(sp.Sum((1 + j / size) * w[j] ** 2 / 2, (j, 0, size - 1)), [w])


RULES = {
    "gd": md.GD(0.1),
    "heavy_ball": md.SGD(0.1, 0.9),
    "nesterov": md.SGD(0.1, 0.9, nesterov=True),
    "sign_gd": md.SignGD(0.1),
    "lion": md.Lion(0.1),
    "rmsprop": md.RMSProp(0.1),
    "adam": md.Adam(0.1),
    "adamw": md.AdamW(0.1),
}
SIGMAS = ("number", "vector", "matrix", "functions")


def sigma(kind: str, size: int) -> tuple[object, object]:
    """A strength of the noise as minidyn takes it, and as a function of w that gives a matrix (D, r)."""
    level = 0.1 + np.arange(size) / 50
    if kind == "number":
        return 0.3, lambda w: 0.3 * np.eye(size)
    if kind == "vector":
        return level, lambda w: np.diag(level)
    if kind == "matrix":
        given = np.random.default_rng(size).normal(size=(size, 3)) / 4
        return given, lambda w: given
    xs = sp.symbols(f"x0:{size}")
    return [sp.cos(s) / 2 + t for s, t in zip(xs, level, strict=True)], lambda w: np.diag(np.cos(w) / 2 + level)


def check_gaussian(size: int, kind: str, rule: str, symbols: bool, paths: int, steps: int = 3) -> None:
    """Three paths of a rule with Gaussian noise are the twin's on the literal generator's normals, to 1e-10; a few
    alone, one by one, have the bits that they have side by side."""
    given, factor = sigma(kind, size)
    system = md.Map(bowl(size, symbols), RULES[rule], md.GaussianNoise(given))
    start = np.linspace(1, 2, size)
    got = carried(system, start, paths, steps)
    bends, hyper = 1 + np.arange(size) / size, {"beta": 0.9} if rule in ("heavy_ball", "nesterov") else {}
    for path in {0, paths // 2, paths - 1}:
        stream, w, state, kept = Stream(seed_key(SEED)[1], path), start, twins.zero_state(rule, start), 0.0
        for step in range(1, steps + 1):
            s = factor(w)
            z = list(pairs(stream, s.shape[1] // 2 * 2))
            if s.shape[1] % 2 and step % 2:
                first, kept = stream.normals()
                z.append(first)
            elif s.shape[1] % 2:
                z.append(kept)
            w, state = twins.RULES[rule](w, state, bends * w + s @ np.array(z), step, lr=0.1, **hyper)
        CLOSE(got[path], w, rtol=1e-10, atol=1e-11)
    few = min(paths, discrete._FEW - 1)
    BITS(got[:few], carried(system, start, few, steps))


# -- flows ------------------------------------------------------------------------------------------------------


def check_gradient_flow(size: int, symbols: bool, counts) -> None:
    """Points that flow down a bowl are `exp(-lambda t)` of their starts to 1e-7, with the same bits in any company."""
    flow = md.GradientFlow(md.Map(bowl(size, symbols), md.GD(0.1)))
    start = np.random.default_rng(size).normal(size=(max(counts), size))
    rates = 1 + np.arange(size) / size
    CLOSE(carried(flow, start, len(start), 5), start * np.exp(-0.5 * rates), rtol=1e-7, atol=1e-9)
    check_company(flow, start, counts, steps=5)


def check_stochastic_flow(size: int, kind: str, symbols: bool, counts) -> None:
    """The stochastic modified equation of order 1 at whole steps is SGD itself, to 1e-11 for any number of paths, each
    with the bits that it has among others."""
    system = md.Map(bowl(size, symbols), md.SGD(0.1), md.GaussianNoise(sigma(kind, size)[0]))
    flow = md.StochasticModifiedFlow(system, 1)
    start = np.random.default_rng(size).normal(size=(max(counts), size))
    made = carried(system, start, len(start), 5)
    CLOSE(carried(flow, start, len(start), 5, substeps=1), made, rtol=1e-11, atol=1e-12)
    check_company(flow, start, counts, steps=5, substeps=1)


# -- as a program -------------------------------------------------------------------------------------------------


def fingerprint() -> str:
    """A hash of runs of all kinds."""
    start = np.random.default_rng(0).normal(size=(70, 3))
    data = regression(130)[0]
    found = [
        *(
            carried(md.Map(data, md.SGD(LR), noise), START, 70)
            for noise in (md.Minibatch(32), md.Minibatch(33), md.Reshuffle(100), md.LabelNoise(STD, batch=8))
        ),
        *(
            carried(md.Map(chain(3), rule, md.GaussianNoise([0.1, 0.2, 0.3])), start, 70)
            for rule in (md.Adam(0.1), md.Lion(0.1))
        ),
        carried(md.Map(waves(5), md.RMSProp(0.01), md.GaussianNoise(0.1)), np.ones(5), 70),
        carried(md.GradientFlow(md.Map(chain(3), md.GD(0.1))), start, 70),
        carried(md.StochasticModifiedFlow(md.Map(chain(3), md.SGD(0.1), md.GaussianNoise(0.1))), start, 70),
        data.hessian(start[:, :2]),
        waves(17).third(*np.random.default_rng(0).normal(size=(3, 9, 17))),
    ]
    assert all(np.isfinite(f).all() for f in found)
    return hashlib.sha256(b"".join(f.tobytes() for f in found)).hexdigest()


def every(size: int) -> None:
    """All checks where one number is `size`, and the others what they may be."""
    rng = np.random.default_rng(size)
    paths = rng.permutation(np.arange(1, LARGEST + 1))
    for k, picks in enumerate(PICKS):
        for j, labels in enumerate(LABELS):
            samples = {"all": size, "again": int(paths[20 + k])}.get(picks, int(rng.integers(size, LARGEST + 1)))
            check_map_on_data(samples, size, int(paths[3 * k + j]), picks, labels)
    check_derivatives(size, int(paths[30]), (3,))
    check_derivatives(3, size, (2, int(paths[31])))
    check_symbols(size, int(paths[32]))
    for k in range(2):
        check_gaussian(size, SIGMAS[(size + k) % 3], [*RULES][(size + 4 * k) % 8], False, int(paths[33 + k]))
        few = 1 + (7 * size + k) % 24  # numbers that fit into registers
        check_gaussian(few, SIGMAS[(size + k) % 4], [*RULES][(size + 3 * k) % 8], True, int(paths[41 + k]))
    check_gradient_flow(size, False, (1, 2, 5))
    few = 1 + size % 9
    check_gradient_flow(few, True, (1, 2, size, LARGEST))
    check_stochastic_flow(few, SIGMAS[size % 4], True, (1, 2, 4, size, LARGEST))


if __name__ == "__main__":
    if sys.argv[1:] == ["bits"]:
        print(fingerprint())
    else:
        first, last = [*map(int, sys.argv[1:]), *(1, LARGEST)[len(sys.argv) - 1 :]]
        for size in range(first, last + 1):
            every(size)
            print(size, "holds", flush=True)
