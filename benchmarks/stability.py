"""Stability and flatness of a large network: a tanh net of 2 000 parameters on 500 samples, at a point that fits them.

    python -m benchmarks.stability

Seconds of wall clock and of processor time, compilation apart; what is to be met: flatness 5 s, stability 60 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import sympy as sp

import minidyn as md


def teacher(units: int, width: int, samples: int) -> tuple[md.Loss, np.ndarray]:
    """A tanh net on the outputs of a net of its own shape, and that net's parameters."""
    a, b, x = md.vector("a", units), md.vector("b", units), md.vector("x", width)
    W = sp.IndexedBase("W", shape=(units, width))
    j, k = sp.symbols("j k", integer=True)
    model = sp.Sum(a[j] * sp.tanh(sp.Sum(W[j, k] * x[k], (k, 0, width - 1)) + b[j]), (j, 0, units - 1))
    rng = np.random.default_rng(0)
    inputs, w = rng.normal(size=(samples, width)), rng.normal(size=units * (width + 2))
    w[units * (width + 1) :] /= np.sqrt(units)
    weights, bias, out = np.split(w, [units * width, units * (width + 1)])
    labels = np.tanh(inputs @ weights.reshape(units, width).T + bias) @ out
    return md.Loss.regression(model, [W, b, a], {x: inputs}, labels), w


def timed(name: str, call: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    print(f"{name}: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of processor time")
    print(result, flush=True)


def main() -> None:
    """Both verdicts on a network of 2 000 parameters and 500 samples."""
    loss, w = teacher(400, 3, 500)
    loss.grad(w), loss.hvp(w, w), loss.jacobian(w), loss.sample_grads(w), loss.square_hvp(w, w)
    print(f"{loss.dim:,} parameters, {loss.n_samples} samples")
    timed("flatness", lambda: md.flatness(loss, w).summary())
    for rule, noise in (
        (md.SGD(0.02), md.Minibatch(10)),
        (md.SGD(0.01, 0.8), md.Minibatch(10)),
        (md.Adam(0.001, eps=0.01), md.Minibatch(10)),
        (md.SGD(0.02), md.LabelNoise(0.1, batch=10)),
    ):
        system = md.Map(loss, rule, noise)
        timed("stability", lambda m=system: md.stability(m, w).summary())


if __name__ == "__main__":
    main()
