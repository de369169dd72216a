"""Loops quoted into every loss module: they call its generated functions."""

from __future__ import annotations

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


def values(ws, c, d, out):
    """The loss at many points."""
    for b in range(ws.shape[0]):
        out[b] = value(ws[b], c, d)


def grads(ws, c, d, out):
    """The gradient at many points."""
    for b in range(ws.shape[0]):
        grad(ws[b], c, d, out[b])


def hessians(ws, c, d, out):
    """The Hessian at many points."""
    for b in range(ws.shape[0]):
        hessian(ws[b], c, d, out[b])


def hvps(ws, us, c, d, out):
    """The Hessian times u at many points."""
    for b in range(ws.shape[0]):
        hvp(ws[b], us[b], c, d, out[b])


def thirds(ws, us, vs, c, d, out):
    """T[u, v] at many points."""
    for b in range(ws.shape[0]):
        third(ws[b], us[b], vs[b], c, d, out[b])


def sample_grads(ws, c, d, out):
    """The gradients of all samples' losses at many points."""
    for b in range(ws.shape[0]):
        for s in range(out.shape[1]):
            sample_grad(ws[b], c, d, s, out[b, s])


def model_values(ws, c, d, out):
    """The model's outputs on all samples at many points."""
    for b in range(ws.shape[0]):
        for s in range(out.shape[1]):
            out[b, s] = model_value(ws[b], c, d, s)


def model_grads(ws, c, d, out):
    """The gradients of the model's outputs on all samples at many points."""
    for b in range(ws.shape[0]):
        for s in range(out.shape[1]):
            model_grad(ws[b], c, d, s, out[b, s])


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


def input_grads(ws, c, d, out):
    """The gradients of the model's outputs in the data, on all samples at many points."""
    for b in range(ws.shape[0]):
        for s in range(out.shape[1]):
            input_grad(ws[b], c, d, s, out[b, s])
