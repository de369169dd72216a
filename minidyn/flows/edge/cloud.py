"""The field of the noisy rod: two steps of the averaged map from the ends of the rod, each averaged over its own cloud.

A cloud is a star: along each axis `l_j` of a factor `W = sum l_j l_j^T` stand the nodes of a quadrature, so that

    E f = f(p) + sum_j sum_m w_m [f(p + x_m l_j) + f(p - x_m l_j) - 2 f(p)]

which three nodes make exact for cubics, and more of them for whatever bends along one axis only. The axes are those of
the Hessian at the mid-point, the most curved one first, then those of the states. Nodes where the rule is not defined
(a mean square below zero) come nearer, with weights `w_m / s^2` at `s x_m`: still exact to second order.
"""

import math
from enum import IntEnum

import numpy as np

from minidyn.common.status import Status
from minidyn.kernels.elimination import solve
from minidyn.kernels.linalg import (
    add_multiple,
    cholesky_semidefinite,
    inner,
    multiply,
    multiply_transposed,
    symmetric_eigen,
    trace,
    transpose,
)

_NEARER = 8  # times that the nodes of an axis go half as far out, until the rule is defined there
_SMALL = 1e-3  # noise along the slow directions, as a part of all of it, that moves the path by itself alone


class At(IntEnum):
    """Where what stands among the numbers `fp` of the compiled field."""

    STATES = 0  # how many the rule has
    STEPS_BEFORE = 1  # of the map before the run begins
    SLOW = 2  # directions of theta whose noise moves the mid-point
    VARIES = 3  # whether the noise depends on theta
    COUPLES = 4
    WIDTH = 5  # numbers that the map draws
    NODES = 6  # on one side of an axis, from here on: their places, then their weights


@inner
def _axes(hessian, theta, c, d, V):
    """V, the eigenvectors (columns) of the Hessian, the largest eigenvalue first; False if it is not finite."""
    dim = theta.shape[0]
    H = np.empty((dim, dim))
    values = np.empty(dim)
    vectors = np.empty((dim, dim))
    hessian(theta, c, d, H)
    total = 0.0
    for i in range(dim):
        for j in range(dim):
            total += H[i, j] * 0.0
    if total != 0.0:
        return False
    symmetric_eigen(H, values, vectors)
    for place in range(dim):
        best = 0
        for j in range(1, dim):
            best = j if values[j] > values[best] else best
        for i in range(dim):
            V[i, place] = vectors[i, best]
        values[best] = -np.inf
    return True


@inner
def _factor(W, V, L):
    """The columns `l_j` of L: `W = L L^T`, lower triangular in the basis V of theta and of every state."""
    dim, size = V.shape[0], W.shape[0]
    basis, turn = np.zeros((size, size)), np.empty((size, size))
    turned, half = np.empty((size, size)), np.empty((size, size))
    for i in range(size):
        for j in range(dim):
            basis[i, i - i % dim + j] = V[i % dim, j]
    transpose(basis, turn)
    multiply(turn, W, half)
    multiply_transposed(half, turn, turned)
    cholesky_semidefinite(turned, half)
    multiply(basis, half, L)


@inner
def _step(kernels, model, z, varies, out, gain, S, room):
    """The averaged map `F(z)`, its answers to the noise (D, 1 + states), and the noise's covariance if it varies."""
    grad, sigma, noise_q, jets = kernels
    kk, hp, c, d, nz = model
    g, q, x, R, J, signs = room
    dim = g.shape[0]
    theta = z[0:dim]
    grad(theta, c, d, g)
    if varies:
        noise_q(theta, c, d, nz, q)
        sigma(theta, c, d, nz, S)
    for i in range(dim):
        x[0], x[1], x[2] = z[i], g[i], q[i]
        for a in range(x.shape[0] - 3):
            x[3 + a] = z[(1 + a) * dim + i]
        jets(x, hp, kk, R, J, gain[i], signs)
        for a in range(R.shape[0]):
            out[a * dim + i] = z[a * dim + i] + R[a]


@inner
def _over_the_cloud(kernels, model, p, L, fp, mean, cov, gains, S, room):
    """The mean of `F(p + w)`, its covariance, and the means of its answers to the noise and of the noise's covariance,
    all but the first added to what there is."""
    size, dim = p.shape[0], gains.shape[0]
    varies = fp[At.VARIES] != 0.0
    nodes = np.int64(fp[At.NODES])
    z, middle, plus, minus, bent = np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    gain, gain_minus, gain_here = np.empty(gains.shape), np.empty(gains.shape), np.empty(gains.shape)
    noise, noise_minus, noise_here = np.zeros((dim, dim)), np.zeros((dim, dim)), np.zeros((dim, dim))
    share = 1.0
    _step(kernels, model, p, varies, middle, gain_here, noise_here, room)
    for i in range(size):
        mean[i] = middle[i]
    for j in range(size):
        length = 0.0
        for i in range(size):
            length += L[i, j] * L[i, j]
            bent[i] = 0.0
        if length == 0.0:
            continue
        for m in range(nodes):
            x, weight = fp[At.NODES + 1 + m], fp[At.NODES + 1 + nodes + m]
            slopes_alone = weight > 1.0  # a mean to second order: its covariance is that of the slopes
            for nearer in range(_NEARER):
                total = 0.0
                for side in range(2):
                    for i in range(size):
                        z[i] = p[i] + (1.0 - 2.0 * side) * x * L[i, j]
                    _step(kernels, model, z, varies, plus if side == 0 else minus, gain if side == 0 else gain_minus,
                          noise if side == 0 else noise_minus, room)  # fmt: skip
                for i in range(size):
                    total += 0.0 * (plus[i] + minus[i])
                if total == 0.0 or nearer == _NEARER - 1:
                    break
                x, weight = 0.5 * x, 4.0 * weight
            add_multiple(gain, weight, gains)
            add_multiple(gain_minus, weight, gains)
            if varies:
                add_multiple(noise, weight, S)
                add_multiple(noise_minus, weight, S)
            share -= 2.0 * weight
            for i in range(size):
                z[i] = 0.5 * (plus[i] + minus[i]) - middle[i]
                mean[i] += 2.0 * weight * z[i]
                z[i] = 0.0 if slopes_alone else z[i]
                bent[i] += 2.0 * weight * z[i]
                plus[i] = 0.5 * (plus[i] - minus[i])
            for i in range(size):
                for r in range(size):
                    cov[i, r] += 2.0 * weight * (plus[i] * plus[r] + z[i] * z[r])
        for i in range(size):
            for r in range(size):
                cov[i, r] -= bent[i] * bent[r]
    add_multiple(gain_here, share, gains)
    if varies:
        add_multiple(noise_here, share, S)


@inner
def _split(S, turn, T, apart):
    """The noise as `T z` along the slow directions, T (D, slow), with what the fast ones have in common with it, and
    `apart` (D, D), which takes from a noise what they have not. The rows of `turn` are the directions, slow ones first.

    `K = S_FS (S_SS + small)^-1`: noise across the valley stays in the cloud where there is hardly any along it,
    whatever the two have in common."""
    dim, slow = T.shape[0], T.shape[1]
    turned, half, kept = np.empty((dim, dim)), np.empty((dim, dim)), np.zeros((dim, dim))
    common, block, factor = np.zeros((slow, dim)), np.empty((slow, slow)), np.empty((slow, slow))
    multiply(turn, S, half)
    multiply_transposed(half, turn, turned)
    total = trace(turned)
    for i in range(slow):
        for j in range(slow):
            factor[i, j] = turned[i, j]
            block[i, j] = turned[i, j]
        block[i, i] += _SMALL * total
        for j in range(slow, dim):
            common[i, j] = turned[i, j]
    if total > 0.0 and slow > 0 and slow < dim:
        solve(block, common)
    for i in range(slow, dim):  # what is left of a fast part: itself without K times the slow one
        kept[i, i] = 1.0
        for r in range(slow):
            kept[i, r] = -common[r, i]
    for i in range(slow):
        common[i, i] = 1.0
    cholesky_semidefinite(factor, block)
    lead = np.empty((slow, dim))
    multiply(common, turn, lead)
    for i in range(dim):
        for j in range(slow):
            T[i, j] = 0.0
            for q in range(slow):
                T[i, j] += lead[q, i] * block[q, j]
    multiply(kept, turn, half)  # turn^T kept turn is the same in the parameters
    transpose(turn, turned)
    multiply(turned, half, apart)


@inner
def _drawn(noise_factor, theta, model, turn, U):
    """U (slow, width): the numbers that drive the slow directions, as what the map draws makes them there."""
    _, _, c, d, nz = model
    dim, slow, width = theta.shape[0], U.shape[0], U.shape[1]
    made, along = np.empty(dim * width), np.zeros((slow, width))
    square, factor = np.empty((slow, slow)), np.empty((slow, slow))
    noise_factor(theta, c, d, nz, made)
    for i in range(slow):
        for q in range(width):
            for r in range(dim):
                along[i, q] += turn[i, r] * made[r * width + q]
    multiply_transposed(along, along, square)
    cholesky_semidefinite(square, factor)
    for i in range(slow):
        for q in range(width):
            U[i, q] = along[i, q]
            for j in range(i):
                U[i, q] -= factor[i, j] * U[j, q]
            U[i, q] = U[i, q] / factor[i, i] if factor[i, i] > 0.0 else 0.0


def field(fns, w, k, hp, c, d, nz, fp, b, f):
    """The change per step of mid-point, half-difference and clouds, and the mid-point's noise; a status code."""
    grad, hessian, sigma, noise_factor, noise_q, jets = fns
    states, slow, width = np.int64(fp[At.STATES]), np.int64(fp[At.SLOW]), np.int64(fp[At.WIDTH])
    size = (np.int64(math.sqrt(1.0 + 2.0 * b.shape[0]) + 0.5) - 1) // 2  # of 2 n + 2 n^2 numbers
    dim = size // (1 + states)
    W, V, L = np.empty((size, size)), np.empty((dim, dim)), np.empty((size, size))
    ends, p, kk = np.empty((2, size)), np.empty(size), np.empty(1)
    made, made_minus = np.zeros((size, size)), np.zeros((size, size))
    gains, gains_minus = np.zeros((dim, 1 + states)), np.zeros((dim, 1 + states))
    S, S_minus, middle = np.zeros((dim, dim)), np.zeros((dim, dim)), np.zeros((dim, dim))
    T, apart, turn = np.empty((dim, slow)), np.empty((dim, dim)), np.empty((dim, dim))
    kk[0] = k + 1.0 + fp[At.STEPS_BEFORE]
    room = (np.empty(dim), np.empty(dim), np.empty(3 + states), np.empty(1 + states),
            np.empty((1 + states) * (3 + states)), np.empty(1 + states))  # fmt: skip
    model, kernels = (kk, hp, c, d, nz), (grad, sigma, noise_q, jets)
    if not _axes(hessian, w[0:dim], c, d, V):
        return Status.DIVERGED
    noise_q(w[0:dim], c, d, nz, room[1])
    if fp[At.VARIES] == 0.0:
        sigma(w[0:dim], c, d, nz, S)
        add_multiple(S, 1.0, S_minus)
    for side in range(2):
        sign = 1.0 - 2.0 * side
        for i in range(size):
            p[i] = w[i] + sign * w[size + i]
            for j in range(size):
                at, across = (2 + i) * size + j, (2 + j) * size + i
                W[i, j] = 0.5 * (w[at] + w[across] + sign * (w[size * size + at] + w[size * size + across]))
        _factor(W, V, L)
        _over_the_cloud(kernels, model, p, L, fp, ends[side], made if side == 0 else made_minus,
                        gains if side == 0 else gains_minus, S if side == 0 else S_minus, room)  # fmt: skip
    for i in range(dim):
        for r in range(dim):
            turn[i, r] = V[r, dim - 1 - i]
            middle[i, r] = 0.5 * (S[i, r] + S_minus[i, r])
    _split(middle, turn, T, apart)
    _feed(made, gains, S, apart)
    _feed(made_minus, gains_minus, S_minus, apart)
    _bind(made, V, slow)
    _bind(made_minus, V, slow)
    total = _fill(w, ends, made, made_minus, b)
    for i in range(f.shape[0]):
        for q in range(f.shape[1]):
            f[i, q] = 0.0
    for i in range(dim):
        for a in range(1 + states):
            gains[i, a] = 0.5 * (gains[i, a] + gains_minus[i, a])
    _drive(noise_factor, w[0:dim], model, turn, (width, fp[At.COUPLES] != 0.0), gains, T, f)
    return 0 if total < np.inf else Status.SINGULAR


@inner
def _feed(made, gains, S, apart):
    """Add to the covariance of where an end goes the noise that does not move the mid-point."""
    dim = gains.shape[0]
    half, rest = np.empty((dim, dim)), np.empty((dim, dim))
    multiply(apart, S, half)
    multiply_transposed(half, apart, rest)
    for i in range(made.shape[0]):
        for j in range(made.shape[0]):
            made[i, j] += gains[i % dim, i // dim] * rest[i % dim, j % dim] * gains[j % dim, j // dim]


@inner
def _bind(made, V, slow):
    """Take from a cloud what of theta's spread along the slow directions goes with nothing else in it: that would be
    where a path is, and the mid-point stands for it."""
    size, dim = made.shape[0], V.shape[0]
    turn, half, turned = np.zeros((size, size)), np.empty((size, size)), np.empty((size, size))
    for j in range(size):  # rows: fast directions, those of the states, slow ones at last
        block = (j - dim + slow) // dim + 1 if j >= dim - slow else 0
        at = j - block * dim + (slow if block > 0 else 0)
        if j >= size - slow:
            block, at = 0, dim - size + j
        for i in range(dim):
            turn[j, block * dim + i] = V[i, at]
    multiply(turn, made, half)
    multiply_transposed(half, turn, turned)
    cholesky_semidefinite(turned, half)
    for q in range(slow):
        for r in range(slow):
            alone = 0.0
            for i in range(size - slow, size):
                alone += half[size - slow + q, i] * half[size - slow + r, i]
            for i in range(dim):
                for j in range(dim):
                    made[i, j] -= alone * V[i, dim - slow + q] * V[j, dim - slow + r]


@inner
def _fill(w, ends, made, made_minus, b):
    """The change per step; the sum of its absolute values. Each end goes to the other one."""
    size = ends.shape[1]
    for i in range(size):
        b[i] = 0.5 * (ends[0, i] + ends[1, i]) - w[i]
        b[size + i] = 0.5 * (ends[1, i] - ends[0, i]) - w[size + i]
        for j in range(size):
            at = (2 + i) * size + j
            b[at] = 0.5 * (made[i, j] + made_minus[i, j]) - w[at]
            b[size * size + at] = 0.5 * (made_minus[i, j] - made[i, j]) - w[size * size + at]
    total = 0.0
    for i in range(b.shape[0]):
        total += abs(b[i])
    return total


@inner
def _drive(noise_factor, theta, model, turn, counts, gains, T, f):
    """What moves the mid-point at random."""
    width, couples = counts
    dim, slow = T.shape[0], T.shape[1]
    moved, U = T.copy(), np.empty((slow, width))
    if couples:
        _drawn(noise_factor, theta, model, turn, U)
        moved = np.empty((dim, width))
        multiply(T, U, moved)
    for i in range(dim * gains.shape[1]):
        for q in range(moved.shape[1]):
            f[i, q] = gains[i % dim, i // dim] * moved[i % dim, q]
