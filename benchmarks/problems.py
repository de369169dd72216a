"""The losses that are timed: L1, L2 in two parameters, L3 and L4 tanh nets."""

from __future__ import annotations

import numpy as np
import sympy as sp

import minidyn as md

X, Y = sp.symbols("x y")


def valley() -> md.Loss:
    """L1: `(1 + x^2) y^2 / 2`."""
    return md.Loss((1 + X**2) * Y**2 / 2, [X, Y])


def hyperbola() -> md.Loss:
    """L2: `(1 - x^2 y^2)^2 / 4`."""
    return md.Loss((1 - X**2 * Y**2) ** 2 / 4, [X, Y])


def samples(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of the nets."""
    t = np.linspace(-2, 2, count)
    return t, np.sin(2 * t) + 0.3 * t


def network(units: int = 10, count: int = 20) -> md.Loss:
    """L3 (and L4 with 100 units, 200 samples): half the mean squared error of `sum_j a_j tanh(w_j t + b_j)`."""
    a, w, b = (md.vector(name, units) for name in "awb")
    t, j = sp.Symbol("t"), sp.Symbol("j", integer=True)
    inputs, targets = samples(count)
    model = sp.Sum(a[j] * sp.tanh(w[j] * t + b[j]), (j, 0, units - 1))
    return md.Loss.regression(model, [a, w, b], {t: inputs}, targets)


def network_start(units: int = 10, seed: int = 0) -> np.ndarray:
    """Parameters (a, w, b) of a net at its start."""
    rng = np.random.default_rng(seed)
    a, w, b = (rng.normal(size=units) for _ in range(3))
    return np.concatenate([a / np.sqrt(units), 1.5 * w, b])


def ten_parameters() -> md.Loss:
    """Five valleys side by side, each as wide as its neighbours say: D = 10, minima of dimension 5."""
    x, y = sp.symbols("x:5"), sp.symbols("y:5")
    terms = [(1 + x[i] ** 2 + x[(i + 1) % 5] ** 2 / 2) * y[i] ** 2 for i in range(5)]
    return md.Loss(sum(terms) / 2, [*x, *y])
