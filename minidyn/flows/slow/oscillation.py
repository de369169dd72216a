"""The stationary oscillation of a noisy map across the manifold of its minima, compiled.

`W_SS = A W_SS A^T + Pi_S Q Pi_S^T` and `W_SN = (I - A)_S^-1 Pi_S Q Pi^T`, in the notation of `quasistatic`.
"""

import math

import numpy as np

from minidyn.common.status import Status
from minidyn.flows.slow.feedback import noise_met
from minidyn.kernels.linalg import (
    add_twice_symmetric,
    cholesky_semidefinite,
    copy,
    discrete_lyapunov,
    discrete_lyapunov_of_one,
    extreme_eigenvalues,
    identity_minus,
    inner,
    jit,
    multiply,
    multiply_transposed,
    orthogonal_part,
)
from minidyn.kernels.nullspaces import group_inverse, spectral_projector
from minidyn.maps.averaging import NODES
from minidyn.maps.kicks import add_tilts, noise_covariance
from minidyn.maps.linearization import Fact, analyse, bend, noise_slopes, normal_step, rank, system_of

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

SLACK = 1e-3  # how negative a covariance may be, in its largest eigenvalue: second order knows it no better


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
def oscillation(gap, dim, projected, W):
    """W = W_SS + W_SN + W_SN^T and the inverse of gap = I - A across M; a status code."""
    Q, P, right, left, inverse = projected
    size = gap.shape[0]
    one = size - right.shape[1] == 1  # only one number oscillates
    if not group_inverse(gap, dim, right, left, inverse):
        return Status.UNFORGETTING
    room = np.empty((4, size, size))
    stable, half, noise, cross = room[0], room[1], room[2], room[3]
    identity_minus(P, stable)
    multiply(stable, Q, half)
    multiply_transposed(half, P, noise)
    multiply(inverse, noise, cross)
    multiply_transposed(half, stable, noise)
    multiply(stable, gap, half)  # curvatures of rounding along M would grow when they are doubled
    if not (discrete_lyapunov_of_one(half, noise, W) if one else discrete_lyapunov(half, stable, noise, W)):
        return Status.UNSTABLE
    add_twice_symmetric(cross, W)
    return Status.FINISHED


@inner
def squared(H, W, S, q, total):
    """total <- the mean square `diag(S - Sigma + H W H)` that accumulators see beside the noise."""
    dim = H.shape[0]
    for i in range(dim):
        total[i] = S[i, i] - q[i]
        for j in range(dim):
            for r in range(dim):
                total[i] += H[i, j] * W[j, r] * H[r, i]


@inner
def squared_memories(system, X, H, W, S, q, total):
    """total <- the same for accumulators of what is remembered (`AveragedRule.shares`), in units of the noise: W is the
    covariance of the whole state."""
    _, _, (_, _, tilts), (k, hp, _, _, _), _ = system
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
def next_seen(total, q, least, more, turn, last):
    """more <- what accumulators see beside the noise, in the end, at least `least` of it; the change.

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
def settle(system, w, noise, vectors, X, average, linear, projected, extra, W):
    """The averaged map at w on M and what its averages see: of `noise = (q, Sigma, S)`, S is what it meets;
    X the inputs of the rule, `average`, `linear`, `projected` and `extra` those of `analyse` there; a status code.

    With self-consistent averages it is repeated until the oscillation that they see is their own."""
    _, _, _, _, fp = system
    q, Sigma, S = noise
    H, _, _, _, _, _ = average
    gap, _ = linear
    _, P, right, left, _ = projected
    dim, tangent = w.shape[0], right.shape[1]
    multiplies, answers = fp[Fact.VARIES] != 0.0 and fp[Fact.SIGNS] == 0.0, fp[Fact.ANSWERS] != 0.0
    recalls, wide = fp[Fact.RECALLS] != 0.0, fp[Fact.WIDE] != 0.0
    least = -1.0 if recalls else -fp[Fact.MISSED]
    line = np.zeros((3, dim))
    more, seen, total = line[0], line[1], line[2]
    last, top = np.zeros(dim + 1), np.empty((dim, dim))
    last[dim] = 1.0
    C = np.empty((dim, gap.shape[0] // dim * NODES + 1 if wide else 0))
    enough = 1e-11 if wide else 1e-14  # a quadrature costs more than the last digits are worth
    for turn in range(100):
        for i in range(dim):
            seen[i] = q[i] + more[i]
        copy(Sigma, S)
        code = analyse(system, w, seen, S, turn > 0, X, average, linear, extra)
        if code == Status.FINISHED and not spectral_projector(gap, vectors, P, right, left):
            code = Status.UNFORGETTING
        if code == Status.FINISHED and answers and fp[Fact.SIGNS] != 0.0:
            code = oscillation(gap, dim, projected, W)
            for i in range(dim):
                for j in range(dim):
                    top[i, j] = W[i, j]
        elif code == Status.FINISHED and (multiplies or answers):
            code = noise_met(system, w, multiplies, tangent, turn == 0, average, gap, P, S, top)
        if code == Status.FINISHED and (wide or (answers and recalls)):
            code = answered(system, S, X, turn > 0, C, average, linear)
        if code == Status.FINISHED and answers and (wide or recalls):
            code = oscillation(gap, dim, projected, W)
        if code != Status.FINISHED:
            return code
        if answers and recalls:
            squared_memories(system, X, H, W, S, q, total)
        elif answers:
            squared(H, W if wide else top, S, q, total)
        for i in range(dim):
            total[i] -= fp[Fact.MISSED] * (q[i] + total[i])
        if not answers or not next_seen(total, q, least, more, turn, last) > enough:
            break
    if multiplies:
        if not is_covariance(top, vectors, tangent):
            return Status.LAWLESS
        for i in range(dim if not answers else 0):
            X[i, 2] = S[i, i]
        return answered(system, S, X, True, C, average, linear)
    return Status.FINISHED


@inner
def answered(system, S, X, again, C, average, linear):
    """Q <- what the rule makes of noise of covariance S, C its powers of `bent_powers`; a status code."""
    _, _, _, _, fp = system
    _, _, _, _, _, gain = average
    gap, Q = linear
    noise_covariance(S, gain, gain, False, 0.0, Q)
    if fp[Fact.WIDE] != 0.0 and not bend(system, S, X, again, C, gap, Q):
        return Status.UNRESOLVED
    return Status.FINISHED


@inner
def stationary(system, w, average, projected, W):
    """The averaged map at w, moved onto M, and the oscillation about it: `settle`, `oscillation`; a status code."""
    _, (sigma, _, _, _, _, _, _), _, (_, _, c, d, nz), fp = system
    H, dq, _, _, weak, gain = average
    Q, _, _, _, _ = projected
    dim = w.shape[0]
    states = np.int64(fp[Fact.STATES])
    size = (1 + states) * dim
    room = np.empty((4, dim, dim))
    vectors, extra, Sigma, S = room[0], room[1], room[2], room[3]
    gap = np.empty((size, size))
    X = np.empty((dim, 3 + states))
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
    code = oscillation(gap, dim, projected, W)
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
    J, K = np.empty((dim, (1 + states) * width)), np.empty((dim, (1 + states) * width * width))
    weak, gain = np.zeros(size), np.zeros((dim, 1 + states))
    right, left = np.empty((size, tangent)), np.empty((tangent, size))
    average = (room[0], room[1], J, K, weak, gain)
    code = stationary(system, w, average, (wide[0], wide[1], right, left, wide[2]), W)
    if code != Status.FINISHED:
        return code
    inverse = wide[2]
    for i in range(size):
        shift[i] = 0.0
        for j in range(size):
            shift[i] += inverse[i, j] * weak[j]
    toss[0] = tossed(system, w, gain, right)
    return code
