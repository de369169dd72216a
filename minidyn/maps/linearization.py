"""The averaged map near its fixed points, compiled: A, B, the noise it feels, and its second derivatives.

The state is ordered `z = (theta, first aux, second aux, ...)`. Output `a` of coordinate `i` depends on
the inputs `x = (theta_i, g_i, q_i, states_i)`, with `g` the gradient and `q` the diagonal of the noise
covariance, both functions of theta. So everything about the map's linearization follows from a few
numbers per coordinate: values `R`, slopes `J`, second derivatives `K` of the averaged rule. Values
and slopes are those of the displacement `z' - z`, and `gap = I - A` is put together of them: at a small learning rate
a difference `1 - (1 - lr h)` would have no digits left.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from minidyn.common.status import Status
from minidyn.kernels.elimination import solve
from minidyn.kernels.linalg import inner, jit, multiply, symmetric_eigen
from minidyn.maps.kicks import add_bends, add_remembered, lagging, noise_covariance

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_SILENT, _INFINITE = 1e-200, 1e60  # a variance that stands for none, and slopes that only such a variance makes
NEEDS = ("grad", "hessian", "third_trace", "sigma", "noise_factor", "noise_q", "noise_dq", "noise_ddq", "noise_bend",
         "noise_moments", "jets", "curvatures", "bends", "tilts")  # fmt: skip


class Fact(IntEnum):
    """What compiled functions read as `fp`: numbers about the map, its rule and the manifold."""

    TANGENT = 0  # dimension of M
    GAP = 1  # the scale that decides ranks
    STATES = 2
    VARIES = 3  # whether the noise varies along w
    SIGNS = 4  # whether the rule takes signs
    ACCUMULATES = 5
    COUPLED = 6  # whether the flow shares the map's normals
    FRESH = 7  # `AveragedRule.memory`: what a sign or a curve remembers of the noise
    FIRST = 8
    POLE = 9
    PLACE = 10
    ANSWERS = 11  # whether averages see the oscillation too, 2 where odd curves do
    POWERS = 12  # how many powers of the noise a rule that bends over its width answers to, 0 where none does
    SKEWED = 13  # whether accumulators feel the skewness of the noise
    RECALLS = 14  # whether what is averaged over is remembered
    MISSED = 15  # what share of all that they see accumulators miss
    EACH = 16  # behind these, for each state: whether it is frozen, then whether it accumulates


@inner
def system_of(fns, k, hp, c, d, nz, fp):
    """What every function here takes as `system`: the kernels of `NEEDS` for the loss, its noise and the rule; the
    step, hyperparameters, constants, data and the noise's numbers; the numbers of `Fact`."""
    grad, hessian, third, sigma, factor, q, dq, ddq, bend, moments, jets, curvatures, bends, tilts = fns
    noise = (sigma, factor, q, dq, ddq, bend, moments)
    return (grad, hessian, third), noise, (jets, curvatures, bends, tilts), (k, hp, c, d, nz), fp


@inner
def noise_slopes(system, w, q, dq):
    """q = diag Sigma and its derivative dq[i, j] = d q_i / d theta_j."""
    _, (_, _, noise_q, noise_dq, _, _, _), _, (_, _, c, d, nz), fp = system
    dim = w.shape[0]
    noise_q(w, c, d, nz, q)
    if fp[Fact.VARIES] != 0.0:
        unit = np.zeros(dim)
        column = np.empty(dim)
        for j in range(dim):
            unit[j] = 1.0
            noise_dq(w, unit, c, d, nz, column)
            unit[j] = 0.0
            for i in range(dim):
                dq[i, j] = column[i]
    else:
        for i in range(dim):
            for j in range(dim):
                dq[i, j] = 0.0


@inner
def fixed_state(jets, states, x, hp, kk, out):
    """Newton's method for the states that the averaged rule leaves in place; False if it fails."""
    R, J, gain, sign_gain = out
    if states == 0:
        jets(x, hp, kk, R, J, gain, sign_gain)
        return True
    width = 3 + states
    block = np.empty((states, states))
    step = np.empty((states, 1))
    for _ in range(50):
        jets(x, hp, kk, R, J, gain, sign_gain)
        largest = 0.0
        for a in range(states):
            step[a, 0] = R[1 + a]
            for b in range(states):
                block[a, b] = -J[(1 + a) * width + 3 + b]
        if not solve(block, step):
            return False
        for a in range(states):
            if not abs(step[a, 0]) < np.inf:
                return False
            largest = max(largest, abs(step[a, 0]) / (1e-300 + abs(x[3 + a]) + abs(step[a, 0])))
            x[3 + a] += step[a, 0]
        if largest == 0.0:
            return True
        if largest < 1e-15:
            jets(x, hp, kk, R, J, gain, sign_gain)
            return True
    jets(x, hp, kk, R, J, gain, sign_gain)
    return largest < 1e-10


@inner
def expand(system, w, q, known, X, R, J, gain, sign_gain):
    """Fixed state X[:, 3:] and slopes of every coordinate at a point of M; a status code. Where they are `known` for
    the variances X[:, 2], only coordinates of another q are looked at.

    R[:, 0] is then the weak force `p = theta' - theta` where the gradient is zero (theory 2.2c), its slopes taken out.
    Where a coordinate has no noise its accumulators stay at zero, and the rule must divide by something else (eps).
    """
    _, _, (jets, _, _, _), (k, hp, _, _, _), fp = system
    dim = w.shape[0]
    states = np.int64(fp[Fact.STATES])
    width = 3 + states
    kk = np.empty(1)
    kk[0] = k
    for i in range(dim):
        if known and X[i, 2] == q[i]:
            continue
        silent = (fp[Fact.ACCUMULATES] != 0.0 or fp[Fact.SIGNS] != 0.0) and not q[i] > 0.0
        lost = Status.SINGULAR if silent else Status.RESTLESS
        for b in range(width):
            X[i, b] = 0.0
        X[i, 0] = w[i]
        X[i, 2] = _SILENT if silent else q[i]
        if not fixed_state(jets, states, X[i], hp, kk, (R[i], J[i], gain[i], sign_gain[i])):
            return lost
        J[i, 0] = 0.0
        for a in range(states):
            if held(fp, X[i], a):  # it neither moves nor is listened to
                for b in range(width):
                    J[i, (1 + a) * width + b] = 0.0
                for out in range(1 + states):
                    J[i, out * width + 3 + a] = 0.0
                J[i, (1 + a) * width + 3 + a] = -1.0
        for b in range((1 + states) * width):
            if not abs(J[i, b]) < _INFINITE:
                return lost
    return Status.FINISHED


@inner
def held(fp, x, a):
    """Whether state a of a coordinate stays where it is: frozen, or an accumulator without noise."""
    states = np.int64(fp[Fact.STATES])
    return fp[Fact.EACH + a] != 0.0 or (x[2] == _SILENT and fp[Fact.EACH + states + a] != 0.0)


@inner
def bent(system, X, K):
    """K <- second derivatives of every coordinate at its inputs X, those of `expand`."""
    _, _, (_, curvatures, _, _), (k, hp, _, _, _), fp = system
    states = np.int64(fp[Fact.STATES])
    width = 3 + states
    kk = np.empty(1)
    kk[0] = k
    for i in range(X.shape[0]):
        curvatures(X[i], hp, kk, K[i])
        K[i, 0] = 0.0
        for a in range(states):
            if held(fp, X[i], a):
                for p in range((1 + states) * width):
                    K[i, p * width + 3 + a] = 0.0
                for r in range(width):
                    for b in range(width):
                        K[i, ((1 + a) * width + b) * width + r] = 0.0
                    for out in range(1 + states):
                        K[i, (out * width + 3 + a) * width + r] = 0.0


@inner
def second_derivative(system, w, jets, W, out):
    """F2[W] for a symmetric W on the full state, from `jets = (H, dq, J, K)`."""
    (_, _, third_trace), (_, _, _, _, noise_ddq, _, _), _, (_, _, c, d, nz), fp = system
    H, dq, J, K = jets
    dim = w.shape[0]
    states = np.int64(fp[Fact.STATES])
    width = 3 + states
    top = W
    if states > 0:
        top = np.empty((dim, dim))
        for i in range(dim):
            for j in range(dim):
                top[i, j] = W[i, j]
    room = np.zeros((2, dim))
    bend, curve = room[0], room[1]
    third_trace(w, top, c, d, bend)
    if fp[Fact.VARIES] != 0.0:
        unit = np.zeros(dim)
        part = np.empty(dim)
        for j in range(dim):
            unit[j] = 1.0
            noise_ddq(w, unit, top[j], c, d, nz, part)
            unit[j] = 0.0
            for i in range(dim):
                curve[i] += part[i]
    for i in range(dim):
        curved = False
        for a in range(1 + states):
            out[a * dim + i] = J[i, a * width + 1] * bend[i] + J[i, a * width + 2] * curve[i]
            for p in range(width * width):
                curved = curved or K[i, a * width * width + p] != 0.0
        if curved:
            add_curvature(i, H, dq, K, W, out)


@inner
def add_curvature(i, H, dq, K, W, out):
    """Add to out what the second derivatives K of coordinate i make of the covariance of its inputs under W."""
    dim = H.shape[0]
    size = W.shape[0]
    states = size // dim - 1
    width = 3 + states
    inputs = np.zeros((width, size))
    half = np.empty((width, size))
    inputs[0, i] = 1.0
    for j in range(dim):
        inputs[1, j] = H[i, j]
        inputs[2, j] = dq[i, j]
    for b in range(states):
        inputs[3 + b, (1 + b) * dim + i] = 1.0
    multiply(inputs, W, half)
    for p in range(width):
        for r in range(width):
            used = False
            for a in range(1 + states):
                used = used or K[i, (a * width + p) * width + r] != 0.0
            if used:
                covariance = 0.0
                for j in range(size):
                    covariance += half[p, j] * inputs[r, j]
                for a in range(1 + states):
                    out[a * dim + i] += K[i, (a * width + p) * width + r] * covariance


@inner
def normal_step(system, w, values, vectors, H):
    """Eigen-decomposition of the Hessian at w; `RANK_CHANGE` if its rank is not that of M."""
    (_, hessian, _), _, _, (_, _, c, d, _), fp = system
    dim = w.shape[0]
    hessian(w, c, d, H)
    work = H.copy()
    symmetric_eigen(work, values, vectors)
    for a in range(dim):
        if not abs(values[a]) < np.inf:
            return Status.LEFT_MANIFOLD
    tangent = np.int64(fp[Fact.TANGENT])
    # the eigenvalues nearest zero belong to the tangent space: move them to the front
    for a in range(tangent):
        best = a
        for b in range(a + 1, dim):
            if abs(values[b]) < abs(values[best]):
                best = b
        if best != a:
            x = values[a]
            values[a] = values[best]
            values[best] = x
            for i in range(dim):
                x = vectors[i, a]
                vectors[i, a] = vectors[i, best]
                vectors[i, best] = x
    return rank(values, fp)


@inner
def rank(values, fp):
    """Whether eigenvalues of a Hessian, the tangent ones first, have the rank that M has; a status code."""
    largest = 0.0
    for a in range(values.shape[0]):
        largest = max(largest, abs(values[a]))
    for a in range(np.int64(fp[Fact.TANGENT]), values.shape[0]):
        if values[a] < -fp[Fact.GAP] * largest:
            return Status.UNSTABLE
        if values[a] <= fp[Fact.GAP] * largest:
            return Status.RANK_CHANGE
    return Status.FINISHED


@jit
def linear_part(fns, w, k, hp, c, d, nz, fp, X, gain, gap):
    """States X[:, 3:] that the averaged rule leaves in place, gains and gap = I - dF/dz at w; a status code."""
    system = system_of(fns, k, hp, c, d, nz, fp)
    (_, hessian, _), _, _, _, _ = system
    dim = w.shape[0]
    width = X.shape[1]
    room = np.empty((2, dim, dim))
    H, dq = room[0], room[1]
    q = np.empty(dim)
    J = np.empty((dim, (width - 2) * width))
    R = np.empty((dim, width - 2))
    sign_gain = np.zeros((dim, width - 2))
    hessian(w, c, d, H)
    noise_slopes(system, w, q, dq)
    code = expand(system, w, q, False, X, R, J, gain, sign_gain)
    if code == Status.FINISHED:
        assemble(H, dq, J, gap)
    return code


@inner
def assemble(H, dq, J, gap):
    """gap = I - dF/dz from the slopes J of the rule's displacement and the derivatives H, dq of its inputs g, q."""
    dim = H.shape[0]
    size = gap.shape[0]
    states = size // dim - 1
    width = 3 + states
    for a in range(1 + states):
        for i in range(dim):
            row = gap[a * dim + i]
            for j in range(size):
                row[j] = 0.0
            for j in range(dim):
                row[j] = -(J[i, a * width + 1] * H[i, j] + J[i, a * width + 2] * dq[i, j])
            row[i] -= J[i, a * width]
            for b in range(states):
                row[(1 + b) * dim + i] -= J[i, a * width + 3 + b]


@inner
def analyse(system, w, q, S, again, X, average, linear, extra):
    """The averaged map at a point of M: `average = (H, dq, J, weak, gain)`, its slopes J, weak force and gains from
    the Hessian H and the noise's slopes dq, and `linear = (gap, Q)`, I - dF/dz and the covariance of its noise; a
    status code.

    q is what averages see by coordinate, S the covariance of the noise; X the inputs of the rule by coordinate, with
    the states that it leaves in place; `again`: all this is known for other q; extra is that of `lagging`."""
    _, _, _, _, fp = system
    H, dq, J, weak, gain = average
    gap, Q = linear
    dim = w.shape[0]
    states = np.int64(fp[Fact.STATES])
    R = np.empty((dim, 1 + states))
    sign_gain = np.zeros((dim, 1 + states))
    signs, memory = fp[Fact.SIGNS] != 0.0, (fp[Fact.FRESH], fp[Fact.FIRST], fp[Fact.POLE])
    for i in range(dim):
        R[i, 0] = weak[i]
    code = expand(system, w, q, again and not signs, X, R, J, gain, sign_gain)
    if code != Status.FINISHED:
        return code
    assemble(H, dq, J, gap)
    for i in range(dim):
        weak[i] = R[i, 0]
    noise_covariance(S, gain, sign_gain, signs, fp[Fact.FRESH], Q)
    for i in range(dim):
        for j in range(dim):
            extra[i, j] = 0.0
    place = np.int64(fp[Fact.PLACE])
    if place >= 0:
        if signs:
            add_remembered(S, sign_gain, memory, gap, Q)
        if fp[Fact.VARIES] != 0.0:
            lagging(S, gain, memory, place, signs, gap, extra)
    return Status.FINISHED


@inner
def bend(system, S, X, again, C, gap, Q):
    """Add to Q what curves make of the noise; False where it is too wide for the quadrature."""
    _, _, (_, _, bends, _), (k, hp, _, _, _), fp = system
    return add_bends((bends, X, hp, k, np.int64(fp[Fact.POWERS]), again), S, fp[Fact.FIRST], fp[Fact.POLE], C, gap, Q)
