"""The covariance Q that one step of noise gives the state of a map, compiled: `B Sigma B^T`, and what signs, curves and
accumulators make of the noise beside it.

`gain[i, a]` is the answer of output a of coordinate i to the noise in its gradient; Q is ordered like the state.
"""

import math

import numpy as np

from minidyn.kernels.elimination import solve
from minidyn.kernels.linalg import inner, multiply, subtract
from minidyn.maps.quadrature import overlap
from minidyn.maps.rule_symbols import NODES


@inner
def correlation(S, i, j):
    """The correlation of two components of the noise."""
    return min(1.0, max(-1.0, S[i, j] / np.sqrt(S[i, i] * S[j, j])))


@inner
def noise_covariance(S, gain, sign_gain, signs, fresh, Q):
    """Q = B Sigma B^T, one number per pair of state components, and what signs add to it.

    A sign of Gaussian noise answers to the noise linearly, which goes into the gains, and by a rest that is
    uncorrelated with it, of covariance (2/pi) (arcsin rho - rho) (Bussgang 1952).
    """
    dim = S.shape[0]
    states = gain.shape[1] - 1
    if signs:
        for a in range(1 + states):
            for i in range(dim):
                gain[i, a] += sign_gain[i, a] * math.sqrt(2.0 / math.pi / S[i, i]) * fresh
    for a in range(1 + states):
        for b in range(1 + states):
            for i in range(dim):
                for j in range(dim):
                    total = gain[i, a] * gain[j, b] * S[i, j]
                    if signs:
                        rho = correlation(S, i, j)
                        total += sign_gain[i, a] * sign_gain[j, b] * 2.0 / math.pi * (math.asin(rho) - rho)
                    Q[a * dim + i, b * dim + j] = total


@inner
def resolvent(gap, factor, out):
    """out <- (I - factor (I - gap))^-1 out"""
    size = gap.shape[0]
    work = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            work[i, j] = (1.0 - factor if i == j else 0.0) + factor * gap[i, j]
    return solve(work, out)


@inner
def add_remembered(S, sign_gain, memory, gap, Q):
    """Add to Q what the rest of a sign carries from step to step: `sum_l A^l R_l` and its transpose.

    The rest at lag l has the covariance `R_l = (2/pi) sum_p a_p (rho r_l)^p` over p = 3, 5, ... with the
    coefficients of arcsin and `r_l = first pole^(l-1)`; every power is a geometric series in l.
    """
    _, first, pole = memory
    dim = S.shape[0]
    size = gap.shape[0]
    X = np.empty((size, size))
    AX = np.empty((size, size))
    weight = 1.0
    for half in range(1, 4000):
        p = 2 * half + 1
        weight *= (p - 2.0) * (p - 2.0) / ((p - 1.0) * p)
        scale = 2.0 / math.pi * weight * first**p
        if abs(scale) < 1e-15:
            break
        for r in range(size):
            for s in range(size):
                i, j = r % dim, s % dim
                X[r, s] = scale * correlation(S, i, j) ** p * sign_gain[i, r // dim] * sign_gain[j, s // dim]
        if not resolvent(gap, pole**p, X):
            return
        multiply(gap, X, AX)
        subtract(X, AX, AX)
        for r in range(size):
            for s in range(size):
                Q[r, s] += AX[r, s] + AX[s, r]


@inner
def bent_powers(bent, outputs, C):
    """C[i, a, r] <- the answers of coordinate i to the Hermite polynomials of its noise (see `bends`); how many of them
    matter, 0 where the noise is too wide for the quadrature. C keeps behind them the variance that they are for."""
    bends, X, hp, k, powers, again = bent
    kk = np.empty(1)
    kk[0] = k
    count = 2
    for i in range(X.shape[0]):
        if not again or C[i, outputs * powers] != X[i, 2]:
            bends(X[i], hp, kk, C[i])
            C[i, outputs * powers] = X[i, 2]
        for a in range(outputs):
            at, tail = a * powers, 0.0
            whole = overlap(C[i], at, C[i], at, 0, powers)
            if powers == NODES and overlap(C[i], at, C[i], at, 3 * NODES // 4, NODES) > 2e-5 * whole:
                return 0
            for r in range(powers - 1, count - 1, -1):
                tail += C[i, at + r] * C[i, at + r]
                if tail > 1e-18 * whole:
                    count = r + 1
                    break
    return count


@inner
def add_bends(bent, S, first, pole, C, gap, Q):
    """Add to Q what outputs that are no straight lines in the noise have in common beside `B Sigma B^T`; False where
    the noise is too wide for the quadrature."""
    dim = S.shape[0]
    outputs, powers = Q.shape[0] // dim, bent[4]
    count = bent_powers(bent, outputs, C)
    if count == 0:
        return False
    for i in range(dim):
        for j in range(dim):
            if S[i, j] != 0.0:
                rho = 1.0 if i == j else correlation(S, i, j)
                for a in range(outputs):
                    for b in range(outputs):
                        at, to, total = a * powers, b * powers, 0.0
                        if i == j:
                            total = overlap(C[i], at, C[j], to, 0, powers) - C[i, at + 1] * C[j, to + 1]
                        else:
                            for r in range(count - 1, 1, -1):
                                total = (total + C[i, at + r] * C[j, to + r]) * rho
                        Q[a * dim + i, b * dim + j] += total * rho
    return first == 0.0 or add_recalled(S, first, pole, C, powers, count, gap, Q)


@inner
def add_recalled(S, first, pole, C, powers, count, gap, Q):
    """Add to Q what bent outputs remember: what they are taken of has the correlation `r_l = first pole^(l-1)` with
    itself l steps later; every power of it is a geometric series, as in `add_remembered`."""
    dim, size = S.shape[0], Q.shape[0]
    bends, width, enough = np.empty(size // dim, np.int64), 0, 0.0
    for a in range(size // dim):
        whole = 0.0
        for i in range(dim):
            whole += overlap(C[i], a * powers, C[i], a * powers, 0, powers)
            enough = max(enough, 1e-15 * abs(Q[a * dim + i, a * dim + i]))
        if whole > 0.0:
            bends[width] = a
            width += 1
    part, later = np.empty((size, width * dim)), np.empty((size, width * dim))
    share, decay = first, pole
    for r in range(2, count):
        share *= first
        decay *= pole
        largest = 0.0
        for i in range(dim):
            for j in range(dim):
                rho = share if i == j else 0.0 if S[i, j] == 0.0 else share * correlation(S, i, j) ** r
                for b in range(width):
                    other = C[j, bends[b] * powers + r] * rho
                    for a in range(size // dim):
                        part[a * dim + i, b * dim + j] = C[i, a * powers + r] * other
                        largest = max(largest, abs(part[a * dim + i, b * dim + j]))
        if largest > enough:
            if not resolvent(gap, decay, part):
                return False
            multiply(gap, part, later)
            for b in range(width):
                for j in range(dim):
                    q, place = b * dim + j, bends[b] * dim + j
                    for p in range(size):
                        Q[p, place] += part[p, q] - later[p, q]
                        Q[place, p] += part[p, q] - later[p, q]
    return True


@inner
def add_tilts(system, w, X, gain, weak, Q):
    """What accumulators make of skewed noise: they share `E xi_i xi_j^2` with everything that answers to the noise,
    which is added to Q, and with the step itself, whose mean is a weak force."""
    _, (_, _, _, _, _, _, noise_moments), (_, _, _, tilts), (k, hp, c, d, nz), _ = system
    dim, outputs = gain.shape
    moments = np.empty((2, dim, dim))
    third = moments[0]
    noise_moments(w, c, d, nz, third, moments[1])
    T = np.zeros((dim, 2 * outputs + outputs * outputs))
    kk = np.empty(1)
    kk[0] = k
    for i in range(dim):
        if third[i, i] != 0.0:
            tilts(X[i], hp, kk, T[i])
            for a in range(outputs):
                weak[a * dim + i] += T[i, a] * third[i, i]
    for j in range(dim):
        for b in range(outputs):
            if T[j, outputs + b] != 0.0:
                for i in range(dim):
                    for a in range(outputs):
                        both = gain[i, a] * T[j, outputs + b] * third[i, j]
                        Q[a * dim + i, b * dim + j] += both
                        Q[b * dim + j, a * dim + i] += both


@inner
def lagging(S, gain, memory, place, signs, gap, extra):
    """How much less, or more, a state that remembers the noise follows where the noise has become larger.

    The averaged rule has the noise's size at the present point; what the state remembers had the size of past
    points. extra[j, i] corrects `E theta_j m_i` for this in the products of m_i with changes of q_i; for curves that
    are no signs, by the part of theta_j that is linear in the noise.
    """
    dim = S.shape[0]
    size = gap.shape[0]
    fresh, first, pole = memory
    X = np.empty((size, dim))
    for row in range(size):
        for j in range(dim):
            X[row, j] = gain[row % dim, row // dim] * S[row % dim, j] * gain[j, 1 + place]
    resolvent(gap, pole, X)
    for i in range(dim):
        for j in range(dim):
            rho = correlation(S, i, j)
            lag = first
            old = 1.0
            seen = 0.0
            plain = 0.0
            for _ in range(20000):
                known = fresh * fresh + (1.0 - fresh * fresh) * (1.0 - old)
                seen += known * lag / (math.sqrt(max(1e-30, 1.0 - rho * rho * lag * lag)) if signs else 1.0)
                plain += lag
                lag *= pole
                old *= pole * pole
                if abs(lag) < 1e-12:
                    break
            extra[j, i] = (seen / plain - 1.0) * X[j, i]
