"""The stationary oscillation of a noisy map across the manifold of its minima, compiled.

`W_SS = A W_SS A^T + Pi_S Q Pi_S^T` and `W_SN = (I - A)_S^-1 Pi_S Q Pi^T`, in the notation of `quasistatic`.
"""

from __future__ import annotations

import numpy as np

from minidyn.flows.feedback import dies_out, met
from minidyn.kernels.linalg import (
    add_twice_symmetric,
    cholesky_semidefinite,
    copy,
    discrete_lyapunov,
    discrete_lyapunov_of_one,
    group_inverse,
    identity_minus,
    inner,
    jit,
    multiply,
    multiply_transposed,
    spectral_projector,
    subtract,
)
from minidyn.linearization import analyse, noise_covariance, noise_slopes, normal_step, rank

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


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
def noise_columns(noise_factor, coupled, w, c, d, nz, right, left, gain, Q, f):
    """A factor f f^T of the theta part of Pi Q Pi^T; zero where noise does not reach the tangent space."""
    dim = w.shape[0]
    states = gain.shape[1] - 1
    size = Q.shape[0]
    tangent = right.shape[1]
    part = np.empty((tangent, size))
    small = np.empty((tangent, tangent))
    multiply(left, Q, part)
    multiply_transposed(part, left, small)
    scale, along = 0.0, 0.0
    for i in range(size):
        scale += Q[i, i]
    for t in range(tangent):
        norm = 0.0
        for j in range(size):
            norm += left[t, j] * left[t, j]
        along = max(along, small[t, t] / norm)
    reached = along > 1e-13 * scale
    for i in range(dim):
        for r in range(f.shape[1]):
            f[i, r] = 0.0
    if not reached:
        return
    if coupled:
        width = f.shape[1]
        flat = np.empty(dim * width)
        noise_factor(w, c, d, nz, flat)
        for t in range(tangent):
            for r in range(width):
                total = 0.0
                for a in range(1 + states):
                    for j in range(dim):
                        total += left[t, a * dim + j] * gain[j, a] * flat[j * width + r]
                for i in range(dim):
                    f[i, r] += right[i, t] * total
    else:
        root = np.empty((tangent, tangent))
        cholesky_semidefinite(small, root)
        for i in range(dim):
            for u in range(tangent):
                for t in range(tangent):
                    f[i, u] += right[i, t] * root[t, u]


@inner
def oscillation(fns, w, c, d, nz, multiplies, new, A, gain, S, Q, vectors, P, right, left, inverse, W):
    """W = W_SS + W_SN + W_SN^T, the projector P = right left and the inverse of I - A across M; a status code.

    Noise that `multiplies` is met by the oscillation itself: S and Q get their part of it, and where the place is `new`
    it must let second moments die out."""
    size = A.shape[0]
    if not (spectral_projector(A, vectors, P, right, left) and group_inverse(A, P, inverse)):
        return 3
    room = np.empty((5, size, size))
    stable, half, noise, cross, step = room[0], room[1], room[2], room[3], room[4]
    identity_minus(P, stable)
    subtract(A, P, step)
    one = size - right.shape[1] == 1
    if multiplies:
        if new and not dies_out(fns, w, c, d, nz, step, stable, one, gain):
            copy(step, half)
            return 9 if discrete_lyapunov(half, Q, noise) else 5
        if not met(fns, w, c, d, nz, step, stable, one, gain, True, S):
            return 9
        noise_covariance(S, gain, gain, False, 0.0, Q)
    multiply(stable, Q, half)
    multiply_transposed(half, P, noise)
    multiply(inverse, noise, cross)
    multiply_transposed(half, stable, noise)
    copy(step, half)
    if not (discrete_lyapunov_of_one(half, noise, W) if one else discrete_lyapunov(half, noise, W)):
        return 5
    add_twice_symmetric(cross, W)
    return 0


@inner
def heard(H, W, S, q, more, turn, last):
    """more <- the mean square `diag(S - Sigma + H W H)` that accumulators hear beside the noise, in time; the change.

    Successive values are extrapolated (Irons, Tuck 1969); `last` keeps the last change and how far it was followed."""
    dim = H.shape[0]
    change, before, both = 0.0, 0.0, 0.0
    room = np.empty((2, dim))
    gap, weight = room[0], room[1]
    for i in range(dim):
        total = S[i, i] - q[i]
        for j in range(dim):
            for r in range(dim):
                total += H[i, j] * W[j, r] * H[r, i]
        gap[i] = total - more[i]
        weight[i] = 1.0 / max(1e-300, abs(q[i] + more[i]), abs(q[i] + total))
        change = max(change, abs(gap[i]) * weight[i])
        turned = (gap[i] - last[i]) * weight[i]
        before += turned * turned
        both += last[i] * weight[i] * turned
    if turn > 0 and before > 0.0:
        last[dim] = min(1.5, max(0.1, -last[dim] * both / before))
    for i in range(dim):
        more[i] = max(0.0, more[i] + last[dim] * gap[i])
        last[i] = gap[i]
    return change


@inner
def stationary(fns, w, k, hp, c, d, nz, fp, H, dq, J, K, weak, gain, Q, P, right, left, inverse, W):
    """The averaged map at w, which is moved onto M, and the oscillation about it: `analyse`, then `oscillation`.

    With self-consistent accumulators both are repeated until the oscillation that they see is their own."""
    hessian, sigma = fns[1], fns[3]
    dim = w.shape[0]
    states = np.int64(fp[2])
    size = (1 + states) * dim
    values = np.empty(dim)
    room = np.empty((4, dim, dim))
    vectors, extra, Sigma, S = room[0], room[1], room[2], room[3]
    A = np.empty((size, size))
    line = np.zeros((3, dim))
    q, more, seen = line[0], line[1], line[2]
    last = np.zeros(dim + 1)
    last[dim] = 1.0
    code, turned = across(fns, w, c, d, fp, values, vectors, H)
    if code == 0:
        code = rank(values, fp) if turned == 0 else normal_step(hessian, w, c, d, fp, values, vectors, H)
    if code != 0:
        return code
    noise_slopes(fns, w, c, d, nz, fp, q, dq)
    sigma(w, c, d, nz, Sigma)
    multiplies = fp[3] != 0.0 and fp[4] == 0.0
    for turn in range(100):
        for i in range(dim):
            seen[i] = q[i] + more[i]
        copy(Sigma, S)
        code = analyse(fns, w, k, hp, c, d, nz, fp, seen, S, H, dq, J, K, weak, gain, A, Q, extra)
        if code == 0:
            code = oscillation(fns, w, c, d, nz, multiplies, turn == 0, A, gain, S, Q, vectors, P, right, left, inverse,
                               W)  # fmt: skip
        if code != 0:
            return code
        if fp[11 + states] == 0.0 or not heard(H, W, S, q, more, turn, last) > 1e-14:
            break
    if fp[10 + states] >= 0.0:
        place = (1 + np.int64(fp[10 + states])) * dim
        for i in range(dim):
            for j in range(dim):
                W[j, place + i] += extra[j, i]
                W[place + i, j] += extra[j, i]
    return 0


@jit
def spread(fns, w, k, hp, c, d, nz, fp, W):
    """W <- the stationary covariance of the map's state at w, which is moved onto M; a status code."""
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
    return stationary(fns, w, k, hp, c, d, nz, fp, H, dq, J, K, weak, gain, Q, P, right, left, inverse, W)
