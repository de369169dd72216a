"""The stationary oscillation of a noisy map across the manifold of its minima, compiled.

`W_SS = A W_SS A^T + Pi_S Q Pi_S^T` and `W_SN = (I - A)_S^-1 Pi_S Q Pi^T`, in the notation of `quasistatic`.
"""

from __future__ import annotations

import math

import numpy as np

from minidyn.flows.slow.feedback import noise_met
from minidyn.kernels.linalg import (
    add_twice_symmetric,
    cholesky_semidefinite,
    copy,
    discrete_lyapunov,
    discrete_lyapunov_of_one,
    extreme_eigenvalues,
    group_inverse,
    identity_minus,
    inner,
    jit,
    multiply,
    multiply_transposed,
    orthogonal_part,
    spectral_projector,
)
from minidyn.maps.kicks import add_bends, add_tilts, noise_covariance
from minidyn.maps.linearization import analyse, noise_slopes, normal_step, rank

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

SLACK = 1e-3  # how negative a covariance may be, in its largest eigenvalue: second order knows it no better


@inner
def across(fns, w, c, d, fp, values, vectors, H):
    """Newton's method across M, in the normal space of the starting point; a status code and how often it turned.

    H, its eigenvalues and eigenvectors are those of the starting point; without a turn, to rounding, also those of w.
    """
    grad, hessian = fns[0], fns[1]
    dim = w.shape[0]
    g = np.empty(dim)
    tangent = np.int64(fp[0])
    code = 0
    before = np.inf
    for turn in range(60):
        if turn == 0 or turn == 20:
            code = normal_step(hessian, w, c, d, fp, values, vectors, H)
            if code == 2:
                return code, turn
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
            return 2, turn
        if largest <= 4e-16 * size or (largest <= 1e-13 * size and largest >= before):
            return 0, turn
        before = largest
    return (2 if before > 1e-9 * size else 0), 60


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
def noise_columns(noise_factor, coupled, multiplies, w, c, d, nz, right, left, gain, Q, f):
    """A factor f f^T of the theta part of Pi Q Pi^T; zero where noise does not reach the tangent space."""
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
    if coupled:
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
        if multiplies:
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
def oscillation(gap, dim, Q, P, right, left, inverse, one, W):
    """W = W_SS + W_SN + W_SN^T and the inverse of gap = I - A across M; a status code. `one`: only one number
    oscillates."""
    size = gap.shape[0]
    if not group_inverse(gap, dim, right, left, inverse):
        return 11
    room = np.empty((4, size, size))
    stable, half, noise, cross = room[0], room[1], room[2], room[3]
    identity_minus(P, stable)
    multiply(stable, Q, half)
    multiply_transposed(half, P, noise)
    multiply(inverse, noise, cross)
    multiply_transposed(half, stable, noise)
    multiply(stable, gap, half)  # curvatures of rounding along M would grow when they are doubled
    if not (discrete_lyapunov_of_one(half, noise, W) if one else discrete_lyapunov(half, stable, noise, W)):
        return 5
    add_twice_symmetric(cross, W)
    return 0


@inner
def squared(H, W, S, q, total):
    """total <- the mean square `diag(S - Sigma + H W H)` that accumulators hear beside the noise."""
    dim = H.shape[0]
    for i in range(dim):
        total[i] = S[i, i] - q[i]
        for j in range(dim):
            for r in range(dim):
                total[i] += H[i, j] * W[j, r] * H[r, i]


@inner
def squared_memories(fns, X, hp, k, H, W, S, q, total):
    """total <- the same for accumulators of what is remembered (`AveragedRule.hears`), in units of the noise: W is the
    covariance of the whole state."""
    tilts = fns[11]
    dim = H.shape[0]
    states = W.shape[0] // dim - 1
    first = 2 * (1 + states)
    T = np.empty(first + (1 + states) * (1 + states))
    kk = np.empty(1)
    kk[0] = k
    squared(H, W, S, q, total)
    for i in range(dim):
        tilts(X[i], hp, kk, T)
        total[i] = T[first] * (q[i] + total[i]) - q[i]
        for a in range(states):
            for j in range(dim):
                total[i] += T[first + 1 + a] * H[i, j] * W[j, (1 + a) * dim + i]
            for b in range(states):
                total[i] += T[first + 1 + states + a * states + b] * W[(1 + a) * dim + i, (1 + b) * dim + i]


@inner
def heard(total, q, least, more, turn, last):
    """more <- what accumulators hear beside the noise, in time, at least `least` of it; the change.

    Successive values are extrapolated (Irons, Tuck 1969); `last` keeps the last change and how far it was followed."""
    dim = q.shape[0]
    change, before, both = 0.0, 0.0, 0.0
    room = np.empty((2, dim))
    gap, weight = room[0], room[1]
    for i in range(dim):
        total[i] = max(least * q[i], total[i])
        gap[i] = total[i] - more[i]
        weight[i] = 1.0 / max(1e-300, abs(q[i] + more[i]), abs(q[i] + total[i]))
        change = max(change, abs(gap[i]) * weight[i])
        turned = (gap[i] - last[i]) * weight[i]
        before += turned * turned
        both += last[i] * weight[i] * turned
    if turn > 0 and before > 0.0:
        last[dim] = min(1.5, max(0.1, -last[dim] * both / before))
    for i in range(dim):
        more[i] = max(least * q[i], more[i] + last[dim] * gap[i])
        last[i] = gap[i]
    return change


@inner
def is_covariance(W, vectors, tangent):
    """Whether W (D, D) is positive semidefinite across M, up to `SLACK`. The first `tangent` of the vectors lie along
    M."""
    dim = W.shape[0]
    codim = dim - tangent
    part = np.zeros((codim, codim))
    for a in range(codim):
        for b in range(codim):
            for i in range(dim):
                for j in range(dim):
                    part[a, b] += vectors[i, tangent + a] * W[i, j] * vectors[j, tangent + b]
    least, largest = extreme_eigenvalues(part)
    return least >= -SLACK * max(0.0, largest)


@inner
def stationary(fns, w, k, hp, c, d, nz, fp, H, dq, J, K, weak, gain, Q, P, right, left, inverse, W):
    """The averaged map at w, moved onto M, and the oscillation about it: `analyse`, `noise_met`, `oscillation`.

    With self-consistent accumulators the first two are repeated until the oscillation that they see is their own."""
    hessian, sigma = fns[1], fns[3]
    dim = w.shape[0]
    states = np.int64(fp[2])
    size = (1 + states) * dim
    values = np.empty(dim)
    room = np.empty((5, dim, dim))
    vectors, extra, Sigma, S, top = room[0], room[1], room[2], room[3], room[4]
    gap = np.empty((size, size))
    X = np.empty((dim, 3 + states))
    line = np.zeros((4, dim))
    q, more, seen, total = line[0], line[1], line[2], line[3]
    last = np.zeros(dim + 1)
    last[dim] = 1.0
    code, turned = across(fns, w, c, d, fp, values, vectors, H)
    if code == 0:
        code = rank(values, fp) if turned == 0 else normal_step(hessian, w, c, d, fp, values, vectors, H)
    if code != 0:
        return code
    noise_slopes(fns, w, c, d, nz, fp, q, dq)
    sigma(w, c, d, nz, Sigma)
    multiplies, answers = fp[3] != 0.0 and fp[4] == 0.0, fp[11 + states] != 0.0
    tangent, remembers = right.shape[1], fp[14 + 2 * states] != 0.0
    wide = fp[12 + 2 * states] != 0.0
    for turn in range(100):
        for i in range(dim):
            seen[i] = q[i] + more[i]
        copy(Sigma, S)
        code = analyse(fns, w, k, hp, c, d, nz, fp, seen, S, H, dq, J, K, weak, gain, gap, Q, X, extra)
        if code == 0 and not spectral_projector(gap, vectors, P, right, left):
            code = 11
        if code == 0 and answers and fp[4] != 0.0:
            code = oscillation(gap, dim, Q, P, right, left, inverse, size - tangent == 1, W)
            for i in range(dim):
                for j in range(dim):
                    top[i, j] = W[i, j]
        elif code == 0 and (multiplies or answers):
            code = noise_met(fns, w, c, d, nz, fp, multiplies, tangent, turn == 0, J, gap, P, gain, S, top)
        if code == 0 and answers and (remembers or wide):
            noise_covariance(S, gain, gain, False, 0.0, Q)
            if wide and not add_bends(fns, S, X, hp, k, fp[8 + states], fp[9 + states], gap, Q):
                return 19
            code = oscillation(gap, dim, Q, P, right, left, inverse, size - tangent == 1, W)
            if remembers:
                squared_memories(fns, X, hp, k, H, W, S, q, total)
            else:
                squared(H, W, S, q, total)
        elif answers:
            squared(H, top, S, q, total)
        for i in range(dim):
            total[i] -= fp[15 + 2 * states] * (q[i] + total[i])
        if code != 0:
            return code
        if not answers or not heard(total, q, -1.0 if remembers else -fp[15 + 2 * states], more, turn, last) > 1e-14:
            break
    if multiplies:
        if not is_covariance(top, vectors, tangent):
            return 18
        noise_covariance(S, gain, gain, False, 0.0, Q)
        if wide:
            for i in range(dim if not answers else 0):
                X[i, 2] = S[i, i]
            add_bends(fns, S, X, hp, k, fp[8 + states], fp[9 + states], gap, Q)
    if fp[13 + 2 * states] != 0.0:
        add_tilts(fns, w, hp, k, c, d, nz, X, gain, weak, Q)
    code = oscillation(gap, dim, Q, P, right, left, inverse, size - tangent == 1, W)
    if code != 0:
        return code
    if fp[10 + states] >= 0.0:
        place = (1 + np.int64(fp[10 + states])) * dim
        for i in range(dim):
            for j in range(dim):
                W[j, place + i] += extra[j, i]
                W[place + i, j] += extra[j, i]
    return 0


@inner
def tossed(fns, w, c, d, nz, gain, right):
    """By what factor a step's noise multiplies a displacement along M, root mean square, in the metric of the rule's
    step: `sum_t E |G^1/2 (D xi) G^1/2 v_t|^2` over an orthonormal basis of `G^-1/2 T`."""
    noise_bend = fns[9]
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
    dim = w.shape[0]
    states = np.int64(fp[2])
    size = (1 + states) * dim
    width = 3 + states
    tangent = np.int64(fp[0])
    H = np.empty((dim, dim))
    dq = np.empty((dim, dim))
    J = np.empty((dim, (1 + states) * width))
    K = np.empty((dim, (1 + states) * width * width))
    gain = np.zeros((dim, 1 + states))
    weak = np.zeros(size)
    Q = np.empty((size, size))
    P = np.empty((size, size))
    right = np.empty((size, tangent))
    left = np.empty((tangent, size))
    inverse = np.empty((size, size))
    code = stationary(fns, w, k, hp, c, d, nz, fp, H, dq, J, K, weak, gain, Q, P, right, left, inverse, W)
    for i in range(size if code == 0 else 0):
        shift[i] = 0.0
        for j in range(size):
            shift[i] += inverse[i, j] * weak[j]
    if code == 0:
        toss[0] = tossed(fns, w, c, d, nz, gain, right)
    return code
