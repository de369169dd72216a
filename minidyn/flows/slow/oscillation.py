"""The stationary oscillation of a noisy map across the manifold of its minima, compiled."""

import math

import numpy as np

from minidyn.common.status import Status
from minidyn.flows.slow.settle import oscillation, settle
from minidyn.kernels.linalg import (
    cholesky_semidefinite,
    inner,
    jit,
    multiply,
    multiply_transposed,
    orthogonal_part,
)
from minidyn.maps.kicks import add_tilts
from minidyn.maps.linearization import Fact, noise_slopes, normal_step, rank, system_of

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@inner
def across(system, w, values, vectors, H):
    """Newton's method across M, in the normal space of the starting point; a status code and how often it turned.

    H, its eigenvalues and eigenvectors are those of the starting point; without a turn, to rounding, also those of w.
    """
    (grad, _, _), _, _, (_, _, c, d, _), fp = system
    dim = w.shape[0]
    g = np.empty(dim)
    tangent = np.int64(fp[Fact.TANGENT])
    before = np.inf
    for turn in range(60):
        if (turn == 0 or turn == 20) and normal_step(system, w, values, vectors, H) == Status.LEFT_MANIFOLD:
            return Status.LEFT_MANIFOLD, turn
        grad(w, c, d, g)
        largest, size = 0.0, 1e-300
        for i in range(dim):
            size = max(size, abs(w[i]))
        for a in range(tangent, dim):
            along = 0.0
            for i in range(dim):
                along += vectors[i, a] * g[i]
            along /= values[a]
            largest = max(largest, abs(along))
            for i in range(dim):
                w[i] -= along * vectors[i, a]
        if not largest < 1e6 * (1.0 + size):
            return Status.LEFT_MANIFOLD, turn
        if largest <= 4e-16 * size or (largest <= 1e-13 * size and largest >= before):
            return Status.FINISHED, turn
        before = largest
    return (Status.LEFT_MANIFOLD if before > 1e-9 * size else Status.FINISHED), 60


@inner
def fit(rows, covariance):
    """rows <- a factor of the covariance as near to them as triangular matrices allow: they are turned upright by
    Gram and Schmidt, and take the covariance's own triangular root. There are at least as many columns as rows."""
    count, width = rows.shape
    root = np.empty((count, count))
    upright = np.zeros((count, width))
    cholesky_semidefinite(covariance, root)
    for t in range(count):
        size = 0.0
        for r in range(width):
            upright[t, r] = rows[t, r]
            size += rows[t, r] * rows[t, r]
        left = 0.0
        for spare in range(width + 1):
            left = orthogonal_part(upright, t)
            if left > 1e-20 * size and size > 0.0:
                break
            size = 1.0  # no noise of its own is left: any direction that is free
            for r in range(width):
                upright[t, r] = 1.0 if r == spare % width else 0.0
        for r in range(width):
            upright[t, r] /= math.sqrt(left)
    multiply(root, upright, rows)


@inner
def noise_columns(system, w, right, left, gain, Q, f):
    """A factor f f^T of the theta part of Pi Q Pi^T; zero where noise does not reach the tangent space."""
    _, (_, noise_factor, _, _, _, _, _), _, (_, _, c, d, nz), fp = system
    dim = w.shape[0]
    states = gain.shape[1] - 1
    size = Q.shape[0]
    tangent = right.shape[1]
    part = np.empty((tangent, size))
    small = np.empty((tangent, tangent))
    multiply(left, Q, part)
    multiply_transposed(part, left, small)
    reached = False
    for t in range(tangent):
        largest = 0.0
        for j in range(size):
            largest += abs(left[t, j]) * math.sqrt(Q[j, j])
        reached = reached or small[t, t] > 1e-13 * largest * largest
    for i in range(dim):
        for r in range(f.shape[1]):
            f[i, r] = 0.0
    if not reached:
        return
    if fp[Fact.COUPLED] != 0.0:
        width = f.shape[1]
        flat = np.empty(dim * width)
        rows = np.empty((tangent, width))
        noise_factor(w, c, d, nz, flat)
        for t in range(tangent):
            for r in range(width):
                total = 0.0
                for a in range(1 + states):
                    for j in range(dim):
                        total += left[t, a * dim + j] * gain[j, a] * flat[j * width + r]
                rows[t, r] = total
        if fp[Fact.VARIES] != 0.0:
            fit(rows, small)
        for t in range(tangent):
            for r in range(width):
                for i in range(dim):
                    f[i, r] += right[i, t] * rows[t, r]
    else:
        root = np.empty((tangent, tangent))
        cholesky_semidefinite(small, root)
        for i in range(dim):
            for u in range(tangent):
                for t in range(tangent):
                    f[i, u] += right[i, t] * root[t, u]


@inner
def stationary(system, w, X, average, projected, W):
    """The averaged map at w, moved onto M, and the oscillation about it: `settle`, `oscillation`; a status code."""
    _, (sigma, _, _, _, _, _, _), _, (_, _, c, d, nz), fp = system
    H, dq, _, weak, gain = average
    Q, _, _, _, _ = projected
    dim = w.shape[0]
    states = np.int64(fp[Fact.STATES])
    size = (1 + states) * dim
    room = np.empty((4, dim, dim))
    vectors, extra, Sigma, S = room[0], room[1], room[2], room[3]
    gap = np.empty((size, size))
    values = np.empty(dim)
    q = np.empty(dim)
    code, turned = across(system, w, values, vectors, H)
    if code == Status.FINISHED:
        code = rank(values, fp) if turned == 0 else normal_step(system, w, values, vectors, H)
    if code != Status.FINISHED:
        return code
    noise_slopes(system, w, q, dq)
    sigma(w, c, d, nz, Sigma)
    code = settle(system, w, (q, Sigma, S), vectors, X, average, (gap, Q), projected, extra, W)
    if code != Status.FINISHED:
        return code
    if fp[Fact.SKEWED] != 0.0:
        add_tilts(system, w, X, gain, weak, Q)
    code = oscillation(gap, dim, projected, fp[Fact.ANSWERS] == 2.0, W)
    if code == Status.FINISHED and fp[Fact.PLACE] >= 0.0:
        place = (1 + np.int64(fp[Fact.PLACE])) * dim
        for i in range(dim):
            for j in range(dim):
                W[j, place + i] += extra[j, i]
                W[place + i, j] += extra[j, i]
    return code


@inner
def tossed(system, w, gain, right):
    """By what factor a step's noise multiplies a displacement along M, root mean square, in the metric of the rule's
    step: `sum_t E |G^1/2 (D xi) G^1/2 v_t|^2` over an orthonormal basis of `G^-1/2 T`."""
    _, (_, _, _, _, _, noise_bend, _), _, (_, _, c, d, nz), _ = system
    dim, tangent = w.shape[0], right.shape[1]
    room = np.zeros((3, dim, dim))
    first, second, labels = room[0], room[1], room[2]
    basis = np.empty((tangent, dim))
    u = np.empty(dim)
    for i in range(dim):
        if gain[i, 0] == 0.0:
            return 0.0
    for t in range(tangent):
        for i in range(dim):
            basis[t, i] = right[i, t] / math.sqrt(abs(gain[i, 0]))
        left = orthogonal_part(basis, t)
        for i in range(dim):
            basis[t, i] /= math.sqrt(left)
            u[i] = basis[t, i] * math.sqrt(abs(gain[i, 0]))
        noise_bend(w, u, 1.0, c, d, nz, first, second, labels)
    total = 0.0
    for i in range(dim):
        total += abs(gain[i, 0]) * (first[i, i] + labels[i, i])
    return math.sqrt(max(0.0, total))


@jit
def spread(fns, w, k, hp, c, d, nz, fp, W, shift, toss):
    """W <- the stationary covariance of the map's state at w, which is moved onto M; shift <- how far weak forces move
    that state off M, `(I - A)_S^-1 p`; toss[0] <- `tossed`; a status code."""
    system = system_of(fns, k, hp, c, d, nz, fp)
    dim = w.shape[0]
    states, tangent = np.int64(fp[Fact.STATES]), np.int64(fp[Fact.TANGENT])
    size, width = (1 + states) * dim, 3 + states
    room, wide = np.empty((2, dim, dim)), np.empty((3, size, size))
    X, J = np.empty((dim, width)), np.empty((dim, (1 + states) * width))
    weak, gain = np.zeros(size), np.zeros((dim, 1 + states))
    right, left = np.empty((size, tangent)), np.empty((tangent, size))
    average = (room[0], room[1], J, weak, gain)
    code = stationary(system, w, X, average, (wide[0], wide[1], right, left, wide[2]), W)
    if code != Status.FINISHED:
        return code
    inverse = wide[2]
    for i in range(size):
        shift[i] = 0.0
        for j in range(size):
            shift[i] += inverse[i, j] * weak[j]
    toss[0] = tossed(system, w, gain, right)
    return code
