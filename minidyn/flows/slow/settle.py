"""The fixed point of a map averaged over what it sees: noise, and its own oscillation across the minima, compiled.

`W_SS = A W_SS A^T + Pi_S Q Pi_S^T` and `W_SN = (I - A)_S^-1 Pi_S Q Pi^T`, in the notation of `quasistatic`.
"""

import numpy as np

from minidyn.common.status import Status
from minidyn.flows.slow.feedback import leading, noise_met
from minidyn.kernels.linalg import (
    add_twice_symmetric,
    copy,
    discrete_lyapunov,
    discrete_lyapunov_of_one,
    extreme_eigenvalues,
    identity_minus,
    inner,
    lyapunov_of_few,
    multiply,
    multiply_transposed,
    subtract,
)
from minidyn.kernels.nullspaces import group_inverse, spectral_projector
from minidyn.maps.kicks import noise_covariance
from minidyn.maps.linearization import Fact, analyse, bend

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

SLACK = 1e-3  # how negative a covariance may be, in its largest eigenvalue: second order knows it no better


@inner
def oscillation(gap, dim, projected, few, W):
    """W = W_SS + W_SN + W_SN^T and the inverse of gap = I - A across M; a status code. `few`: by linear equations."""
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
    if one:
        found = discrete_lyapunov_of_one(half, noise, W)
    elif few and size <= 4:
        for i in range(size):
            for j in range(size):
                half[i, j] += P[i, j]
        found = lyapunov_of_few(half, noise, W)
    else:
        found = discrete_lyapunov(half, stable, noise, W)
    if not found:
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
    _, _, (_, _, _, tilts), (k, hp, _, _, _), _ = system
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
def kept_up(vectors, tangent, average, linear, W):
    """W <- what noise keeps up across M, of theta and the states that move it: `oscillation` without what is along M,
    in the coordinates of the vectors across M, in which A has no null space where curves are odd; a status code."""
    gap, Q = linear
    dim, size = vectors.shape[0], gap.shape[0]
    places = np.empty(size, np.int64)
    count = leading(average[2], size, dim, places) - tangent
    frame, half, small = np.zeros((count, size)), np.empty((size, count)), np.empty((4, count, count))
    part, noise, stable, own = small[0], small[1], small[2], small[3]
    for a in range(count):
        frame[a, places[a + tangent]] = 1.0
        for i in range(dim if a < dim - tangent else 0):
            frame[a, i] = vectors[i, tangent + a]
    multiply_transposed(gap, frame, half)
    multiply(frame, half, part)
    multiply_transposed(Q, frame, half)
    multiply(frame, half, noise)
    if count == 1:
        found = discrete_lyapunov_of_one(part, noise, own)
    elif count <= 4:
        found = lyapunov_of_few(part, noise, own)
    else:
        subtract(part, part, stable)
        identity_minus(stable, stable)
        found = discrete_lyapunov(part, stable, noise, own)
    for p in range(size):
        for q in range(size):
            W[p, q] = 0.0
            for a in range(count):
                for b in range(count):
                    W[p, q] += frame[a, p] * own[a, b] * frame[b, q]
    return Status.FINISHED if found else Status.UNSTABLE


@inner
def settle(system, w, noise, vectors, X, average, linear, projected, extra, W):
    """The averaged map at w on M and what its averages see: of `noise = (q, Sigma, S)`, S is what it meets;
    X the inputs of the rule, `average`, `linear`, `projected` and `extra` those of `analyse` there; a status code.

    With self-consistent averages it is repeated until the oscillation that they see is their own."""
    _, _, _, _, fp = system
    q, Sigma, S = noise
    H, gap = average[0], linear[0]
    _, P, right, left, _ = projected
    dim, tangent = w.shape[0], right.shape[1]
    answers, wide, signs = fp[Fact.ANSWERS] != 0.0, fp[Fact.POWERS] != 0.0, fp[Fact.SIGNS] != 0.0
    multiplies, recalls = fp[Fact.VARIES] != 0.0 and not signs, fp[Fact.RECALLS] != 0.0
    whole = answers and (wide or recalls or signs)  # what is seen is more than theta's linear answer to the noise
    apart = fp[Fact.ANSWERS] == 2.0 and not multiplies
    least = -1.0 if recalls else -fp[Fact.MISSED]
    line = np.zeros((3, dim))
    more, seen, total = line[0], line[1], line[2]
    last, top = np.zeros(dim + 1), np.empty((dim, dim))
    last[dim] = 1.0
    C = np.empty((dim, gap.shape[0] // dim * np.int64(fp[Fact.POWERS]) + 1))
    enough = 1e-10 if wide else 1e-14  # a quadrature costs more than the last digits are worth
    before, near = 0.0, False
    for turn in range(100):
        for i in range(dim):
            seen[i] = q[i] + more[i]
        copy(Sigma, S)
        code = analyse(system, w, seen, S, turn > 0, X, average, linear, extra)
        if code == Status.FINISHED and not apart and not spectral_projector(gap, vectors, P, right, left):
            code = Status.UNFORGETTING
        if code == Status.FINISHED and (multiplies or (answers and not whole)):
            code = noise_met(system, w, multiplies, tangent, turn == 0, average, gap, P, S, top)
        if code == Status.FINISHED and whole and not signs:
            code = answered(system, S, multiplies, X, turn > 0, C, average, linear)
        if code == Status.FINISHED and near:
            break
        if code == Status.FINISHED and apart:
            code = kept_up(vectors, tangent, average, linear, W)
        elif code == Status.FINISHED and whole:
            code = oscillation(gap, dim, projected, False, W)
        if code != Status.FINISHED or not answers:
            break
        if recalls:
            squared_memories(system, X, H, W, S, q, total)
        else:
            squared(H, W if whole else top, S, q, total)
        for i in range(dim):
            total[i] -= fp[Fact.MISSED] * (q[i] + total[i])
        change = next_seen(total, q, least, more, turn, last)
        if not change > enough:
            break
        near = apart and change * change <= enough * before  # the next change, if it falls as the last one did
        before = change
    rests = code != Status.SINGULAR and code != Status.RESTLESS
    if apart and rests and not spectral_projector(gap, vectors, P, right, left):
        code = Status.UNFORGETTING
    if code == Status.FINISHED and multiplies and not is_covariance(top, vectors, tangent):
        code = Status.LAWLESS
    if code == Status.FINISHED and not whole and (multiplies or wide):
        code = met_alone(system, S, multiplies, X, C, average, linear)
    return code


@inner
def met_alone(system, S, met, X, C, average, linear):
    """`answered` for averages over noise alone, whose jets are those of other variances than S has by now."""
    before = X.copy()
    for i in range(X.shape[0]):
        X[i, 2] = S[i, i]
    code = answered(system, S, met, X, False, C, average, linear)
    copy(before, X)
    return code


@inner
def answered(system, S, met, X, again, C, average, linear):
    """Q <- what the rule makes of noise of covariance S, which it `met` if it is not that at the point of M, C its
    powers of `bent_powers`; a status code."""
    _, _, _, _, fp = system
    _, _, _, _, gain = average
    gap, Q = linear
    if met:
        noise_covariance(S, gain, gain, False, 0.0, Q)
    if fp[Fact.POWERS] != 0.0 and not bend(system, S, X, again, C, gap, Q):
        return Status.UNRESOLVED
    return Status.FINISHED
