"""Loops quoted into every loss module: they call its generated functions."""

import numpy as np

# mypy: disable-error-code="name-defined, no-untyped-def, no-untyped-call"
# ruff: noqa: F821


def hessian(w, c, d, out):
    """The Hessian from its products with unit vectors, made exactly symmetric."""
    size = w.shape[0]
    unit = np.zeros(size)
    for j in range(size):
        unit[j] = 1.0
        hvp(w, unit, c, d, out[j])
        unit[j] = 0.0
    for i in range(size):
        for j in range(i):
            mid = 0.5 * (out[i, j] + out[j, i])
            out[i, j] = mid
            out[j, i] = mid


def third_trace(w, cov, c, d, out):
    """T[cov] for a symmetric matrix cov."""
    size = w.shape[0]
    unit = np.zeros(size)
    part = np.empty(size)
    for i in range(size):
        out[i] = 0.0
    for j in range(size):
        unit[j] = 1.0
        third(w, unit, cov[j], c, d, part)
        unit[j] = 0.0
        for i in range(size):
            out[i] += part[i]


def sample_hvps(w, us, c, d, sample, out):
    """One sample's Hessian times many directions."""
    for b in range(us.shape[0]):
        sample_hvp(w, us[b], c, d, sample, out[b])


def square_hvp(w, u, c, d, out):
    """The mean over samples of their squared Hessians, times u."""
    size = w.shape[0]
    n = d.shape[0]
    once = np.empty(size)
    twice = np.empty(size)
    for i in range(size):
        out[i] = 0.0
    for s in range(n):
        sample_hvp(w, u, c, d, s, once)
        sample_hvp(w, once, c, d, s, twice)
        for i in range(size):
            out[i] += twice[i] / n
