"""The noise that an oscillation meets, and whether it dies out: `S = Sigma + N(L S)`, compiled.

`L S` is theta's part of the stationary covariance that gradient noise of covariance S keeps up, `N` as in
`minidyn.multiplicative`. The first part of `N` alone makes the second-moment operator of `minidyn.stability`: it has a
spectral radius below 1 exactly where `S = I + N(L S)` has a positive solution (then `S >= I`, else `S` has an
eigenvalue of at most 0; Krein, Rutman 1948). So existence is tested on all directions, excited or not.
"""

from __future__ import annotations

import math

import numpy as np

from minidyn.kernels.linalg import (
    discrete_lyapunov,
    discrete_lyapunov_of_one,
    inner,
    multiply,
    multiply_transposed,
    symmetric_eigen,
)
from minidyn.linearization import noise_covariance

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_KRYLOV = 16  # vectors between two restarts


@inner
def stationary_covariance(step, stable, Q, work, W):
    """W <- the covariance that noise Q keeps up, `W = step W step^T + stable Q stable^T`; False where none is stable.

    step : the map's linear part across the minima, of rank one if there is only one direction across.
    """
    multiply(stable, Q, work)
    multiply_transposed(work, stable, Q)
    for i in range(step.shape[0]):
        for j in range(step.shape[0]):
            work[i, j] = step[i, j]
    return discrete_lyapunov(work, Q, W)


@inner
def stationary_covariance_of_one(step, stable, Q, work, W):
    """The same where only one number oscillates."""
    multiply(stable, Q, work)
    multiply_transposed(work, stable, Q)
    return discrete_lyapunov_of_one(step, Q, W)


@inner
def kept_up(fns, w, c, d, nz, step, stable, one, gain, whole, S, out):
    """out <- N(L S), without its second part unless `whole`; False where L does not exist."""
    noise_bend = fns[9]
    dim = w.shape[0]
    size = step.shape[0]
    room = np.empty((3, size, size))
    noise_covariance(S, gain, gain, False, 0.0, room[0])
    if one:
        if not stationary_covariance_of_one(step, stable, room[0], room[1], room[2]):
            return False
    elif not stationary_covariance(step, stable, room[0], room[1], room[2]):
        return False
    parts = np.zeros((4, dim, dim))
    first, second, W, vectors = parts[0], parts[1], parts[2], parts[3]
    for i in range(dim):
        for j in range(dim):
            W[i, j] = 0.5 * (room[2, i, j] + room[2, j, i])
    values = np.empty(dim)
    symmetric_eigen(W, values, vectors)
    largest = 0.0
    for a in range(dim):
        largest = max(largest, abs(values[a]))
    u = np.empty(dim)
    for a in range(dim):
        if abs(values[a]) > 1e-18 * largest:
            for i in range(dim):
                u[i] = vectors[i, a]
            noise_bend(w, u, values[a], c, d, nz, first, second)
    for i in range(dim):
        for j in range(dim):
            out[i, j] = first[i, j] + second[i, j] if whole else first[i, j]
    return True


@inner
def product(a, b):
    """The sum of the products of the entries."""
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += a[i, j] * b[i, j]
    return total


@inner
def add_multiple(x, factor, out):
    """out += factor x"""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] += factor * x[i, j]


@inner
def met(fns, w, c, d, nz, step, stable, one, gain, whole, S):
    """S <- the solution of `X = S + N(L X)`, by GMRES (Saad, Schultz 1986); False where it is not found."""
    dim = w.shape[0]
    basis = np.empty((_KRYLOV + 1, dim, dim))
    x = np.zeros((dim, dim))
    rest = S.copy()
    h = np.zeros((_KRYLOV + 1, _KRYLOV))
    turn = np.empty((2, _KRYLOV))
    goal = np.empty(_KRYLOV + 1)
    scale = math.sqrt(product(S, S))
    for _ in range(40):
        length = math.sqrt(product(rest, rest))
        if not length > 2e-15 * scale:
            break
        for i in range(dim):
            for j in range(dim):
                basis[0, i, j] = rest[i, j] / length
        goal[0] = length
        used = 0
        for m in range(_KRYLOV):
            new = basis[m + 1]
            if not kept_up(fns, w, c, d, nz, step, stable, one, gain, whole, basis[m], new):
                return False
            for i in range(dim):
                for j in range(dim):
                    new[i, j] = basis[m, i, j] - new[i, j]
            for q in range(m + 1):
                h[q, m] = 0.0
            for _ in range(2):  # orthogonal to rounding
                for q in range(m + 1):
                    along = product(basis[q], new)
                    h[q, m] += along
                    add_multiple(basis[q], -along, new)
            height = math.sqrt(product(new, new))
            for q in range(m):
                top = turn[0, q] * h[q, m] + turn[1, q] * h[q + 1, m]
                h[q + 1, m] = turn[0, q] * h[q + 1, m] - turn[1, q] * h[q, m]
                h[q, m] = top
            top = math.sqrt(h[m, m] * h[m, m] + height * height)
            if not (top > 0.0 and top < np.inf):
                return False
            turn[0, m] = h[m, m] / top
            turn[1, m] = height / top
            h[m, m] = top
            goal[m + 1] = -turn[1, m] * goal[m]
            goal[m] *= turn[0, m]
            used = m + 1
            if abs(goal[m + 1]) <= 1e-15 * scale or height <= 1e-15 * top:
                break
            for i in range(dim):
                for j in range(dim):
                    new[i, j] /= height
        for q in range(used - 1, -1, -1):
            total = goal[q]
            for e in range(q + 1, used):
                total -= h[q, e] * goal[e]
            goal[q] = total / h[q, q]
            add_multiple(basis[q], goal[q], x)
        if used < _KRYLOV:
            break
        if not kept_up(fns, w, c, d, nz, step, stable, one, gain, whole, x, rest):
            return False
        for i in range(dim):
            for j in range(dim):
                rest[i, j] += S[i, j] - x[i, j]
    for i in range(dim):
        for j in range(dim):
            S[i, j] = 0.5 * (x[i, j] + x[j, i])
    return True


@inner
def dies_out(fns, w, c, d, nz, step, stable, one, gain):
    """Whether the second moments of a small displacement die out under the noise that it makes itself."""
    dim = w.shape[0]
    room = np.zeros((2, dim, dim))
    S, vectors = room[0], room[1]
    for i in range(dim):
        S[i, i] = 1.0
    if not met(fns, w, c, d, nz, step, stable, one, gain, False, S):
        return False
    values = np.empty(dim)
    symmetric_eigen(S, values, vectors)
    least = values[0]
    for a in range(dim):
        least = min(least, values[a])
    return least > 0.5
