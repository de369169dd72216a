"""The period-two orbit `c - d -> c + d -> c - d`, found where a mid-point stands, and followed: compiled functions.

Maps, mid-points and their shifts `a R` are those of `heldsteps`.
"""

import math
from enum import IntEnum

import numpy as np

from minidyn.common.status import Status
from minidyn.flows.edge.heldsteps import (
    along,
    iterate,
    jacobian_of,
    length_of,
    parts_of,
    rest_of,
    restricted,
    shifted,
)
from minidyn.kernels.eigenvalues import eigenvalues, rows_below
from minidyn.kernels.elimination import back_solve, factorize, solve_one
from minidyn.kernels.linalg import inner, multiply, transpose
from minidyn.solvers.piecewise import carry, nowhere, stays

TINY, SMALL, BARELY = 1e-7, 0.02, 1e-8  # amplitudes, relative to the mid-point; and how far beyond an edge


class At(IntEnum):
    """Where what stands among the numbers `fp` of the flow."""

    DIM = 0
    STEPS_BEFORE = 1  # of the map before the run begins
    SLOW = 2  # relaxation per step below which a direction is held


@inner
def bordered(R, plus, minus, J):
    """J: how the equations of the orbit answer to a and d, from the map's slopes at both ends."""
    size = plus.shape[0]
    count = J.shape[0] - size
    for s in range(count + size):
        for t in range(count + size):
            J[s, t] = 0.0
    for i in range(size):
        for j in range(size):
            even, odd = 0.5 * (plus[i, j] + minus[i, j]), 0.5 * (plus[i, j] - minus[i, j])
            J[count + i, count + j] = even + (1.0 if i == j else 0.0)
            for s in range(count):
                J[s, count + j] += R[s, i] * odd
                J[count + i, s] += odd * R[s, j]
                for t in range(count):
                    J[s, t] += R[s, i] * (even - (1.0 if i == j else 0.0)) * R[t, j]


@inner
def stable(R, plus, minus, count):
    """Whether two steps around the orbit, the slow directions held, have no multiplier beyond the unit circle."""
    there, back, both = np.empty((count, count)), np.empty((count, count)), np.empty((count, count))
    re, im = np.empty(count), np.empty(count)
    restricted(R, plus, there)
    restricted(R, minus, back)
    multiply(there, back, both)
    eigenvalues(both, re, im)
    inside = True
    for t in range(count):
        inside = inside and re[t] * re[t] + im[t] * im[t] <= (1.0 + 1e-6) * (1.0 + 1e-6)
    return inside


@inner
def newton(system, R, c, a, d, plus, minus):
    """The orbit near mid-point and half-difference `a`, `d`, which become its own; False where none is found. `plus`,
    `minus` are the map's slopes at its ends."""
    size, count = c.shape[0], a.shape[0]
    z, end, even, odd = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    J, wrong = np.empty((count + size, count + size)), np.empty(count + size)
    change = np.empty(count)
    before, scale = np.inf, 1.0
    for i in range(size):
        scale = max(scale, 1.0 + abs(c[i]))
    for _ in range(25):
        shifted(c, R, a, z)
        parts_of(system, z, d, even, odd)
        for i in range(size):
            even[i] -= z[i]
            wrong[count + i] = -(odd[i] + d[i])
        along(R, even, change)
        largest = 0.0
        for t in range(count):
            wrong[t] = -change[t]
        for t in range(count + size):
            largest = max(largest, abs(wrong[t])) if wrong[t] * 0.0 == 0.0 else np.inf
        for i in range(size):
            end[i] = z[i] + d[i]
        found = jacobian_of(system, end, plus)
        for i in range(size):
            end[i] = z[i] - d[i]
        if not (jacobian_of(system, end, minus) and found and largest < np.inf):
            return False
        if largest <= 1e-14 * scale or (largest <= 1e-11 * scale and largest >= before):
            return True
        bordered(R, plus, minus, J)
        if not solve_one(J, wrong):
            return False
        for t in range(count):
            a[t] += wrong[t]
        for i in range(size):
            d[i] += wrong[count + i]
        before = largest
    return False


@inner
def eigenvector(A, value, dim, v):
    """v: a real eigenvector by inverse iteration, of length one in the first `dim` numbers, the largest positive."""
    size = v.shape[0]
    order, work = np.empty(size, np.int64), A.copy()
    for i in range(size):
        v[i] = 1.0 / (1.0 + i)
        work[i, i] -= value * (1.0 + 1e-12)
    found = factorize(work, order)
    for _ in range(3 if found else 0):
        back_solve(work, order, v)
        length = length_of(v, size)
        for i in range(size):
            v[i] /= length
    best, length = 0, length_of(v, dim)
    for i in range(dim):
        best = i if abs(v[i]) > abs(v[best]) else best
    length = math.copysign(length, v[best])
    for i in range(size):
        v[i] /= length


@inner
def cubic(system, R, z, A, v, left, length, count):
    """`a` in `s' = value s + a s^3` along the eigenvector v: how much the map's answer to `length v` differs from its
    slope, the mid-point's own answer included."""
    size = z.shape[0]
    d, even, odd, middle = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    J, a = np.empty((count, count)), np.empty(count)
    for i in range(size):
        d[i] = length * v[i]
    parts_of(system, z, d, even, odd)
    for i in range(size):
        even[i] -= z[i]
    along(R, even, a)
    restricted(R, A, J)
    for s in range(count):
        for t in range(count):
            J[s, t] = (1.0 if s == t else 0.0) - J[s, t]
    if not solve_one(J, a):
        return 0.0
    shifted(z, R, a, middle)
    parts_of(system, middle, d, even, odd)
    answer, slope, share = 0.0, 0.0, 0.0
    for i in range(size):
        answer += left[i] * odd[i]
        share += left[i] * d[i]
        for j in range(size):
            slope += left[i] * A[i, j] * d[j]
    return (answer - slope) / (share * length * length)


@inner
def seed(system, R, z, A, flips, d, count):
    """d: a small oscillation along every unstable direction at z, of the size that the normal form predicts."""
    size = z.shape[0]
    _, (_, _, _, _, dim) = system
    v, left, turned = np.empty(size), np.empty(size), np.empty((size, size))
    lowest, many = 0.0, 0.0
    for i in range(size):
        d[i] = 0.0
    for j in range(size):
        if flips[j] < 0.0:
            eigenvector(A, flips[j], dim, v)
            many += 1.0
            for i in range(size):
                d[i] += v[i] / many
            lowest = min(lowest, flips[j])
    scale = 1.0 + length_of(z, dim)
    length = 1e-3 * scale
    eigenvector(A, lowest, dim, v)
    transpose(A, turned)
    eigenvector(turned, lowest, size, left)
    coefficient = cubic(system, R, z, A, v, left, length, count)
    if coefficient > 0.0:
        length = min(math.sqrt(max(-1.0 - lowest, 0.0) / coefficient), 0.1 * scale)
    for i in range(size):
        d[i] *= length


@inner
def judged(A, slow, flips):
    """`flips`: the real eigenvalues below -1, zeros elsewhere; how many, or -1 where another one is unstable."""
    size = A.shape[0]
    work, re, im = A.copy(), np.empty(size), np.empty(size)
    eigenvalues(work, re, im)
    found = 0
    for j in range(size):
        flip = abs(im[j]) < 1e-9 and re[j] < -1.0 - BARELY
        flips[j] = re[j] if flip else 0.0
        found += 1 if flip else 0
        inside = math.sqrt(re[j] * re[j] + im[j] * im[j]) <= 1.0 + BARELY
        if not (inside or flip or re[j] > 1.0 - slow):
            return -1
    return found


@inner
def followed(system, R, c, start, turns, a, d):
    """Whether a stable orbit lies near the shift and half-difference `start`, after so many turns of the map; a, d."""
    size, count = c.shape[0], a.shape[0]
    _, (_, _, _, _, dim) = system
    plus, minus = np.empty((size, size)), np.empty((size, size))
    a0, d0 = start
    for t in range(count):
        a[t] = a0[t]
    for i in range(size):
        d[i] = d0[i]
    if not iterate(system, R, c, a, d, turns):
        return False
    before = d.copy()
    if not newton(system, R, c, a, d, plus, minus) or not stable(R, plus, minus, count):
        return False
    scale, grown, size_before = 1.0 + length_of(c, dim), length_of(d, dim), length_of(before, size)
    same, turned = 0.0, 0.0
    for i in range(size):
        same += (d[i] - before[i]) * (d[i] - before[i])
        turned += (d[i] + before[i]) * (d[i] + before[i])
    moved = math.sqrt(min(same, turned))
    return grown >= TINY * scale and (moved <= 0.3 * size_before or grown < SMALL * scale)


@inner
def find(system, slow, c, amplitude, shift, known, middle, d):
    """`middle`, `d`: the orbit at c that continues `amplitude` and, if `known` is 1, the shift of its mid-point; of
    amplitude zero where the valley is stable. A status where there is no stable orbit."""
    size = c.shape[0]
    _, (_, _, _, _, dim) = system
    A, R, flips = np.empty((size, size)), np.empty((size, size)), np.empty(size)
    for i in range(size):
        middle[i], d[i] = c[i], 0.0
    if not jacobian_of(system, c, A):
        return Status.SINGULAR
    count = rows_below(A, 1.0 - slow, R)
    rest, a, a0, sown = np.empty(count), np.empty(count), np.empty(count), np.zeros(size)
    bottom = np.empty(size)
    rest_of(system, R, c, rest)
    shifted(c, R, rest, bottom)
    jacobian_of(system, bottom, A)
    many = judged(A, slow, flips)
    if many < 0:
        return Status.UNSTABLE
    scale, length = 1.0 + length_of(c, dim), length_of(amplitude, dim)
    if many == 0 and length < SMALL * scale:
        return 0
    if known > 0.0:
        along(R, shift, a0)
    else:
        for t in range(count):
            a0[t] = rest[t]
    fresh = True
    for turn in range(3):
        turns = 0 if turn == 0 else (60 if turn == 1 else 400)  # of the map itself, before Newton's method tries
        found = length >= TINY * scale and followed(system, R, c, (a0, amplitude), turns, a, d)
        if not found and many > 0:
            if fresh:
                seed(system, R, bottom, A, flips, sown, count)
            fresh = False
            found = followed(system, R, c, (rest, sown), turns, a, d)
        if found:
            shifted(c, R, a, middle)
            return 0
        if many == 0:
            break
    for i in range(size):
        d[i] = 0.0
    return 0 if many == 0 else Status.NO_ORBIT


@inner
def drift(given, y, k, b):
    """b = F_e(c, d(c)) - c, for `given` = the map, what is slow, and the orbit that is continued and that of now."""
    (kernels, (first, hp, c, d, dim)), slow, (amplitude, shift, known, middle, now) = given
    odd = np.empty(y.shape[0])
    system = kernels, (k + first, hp, c, d, dim)
    code = find(system, slow, y, amplitude, shift, known[0], middle, now)
    if code == 0:
        parts_of(system, y, now, b, odd)
        for i in range(y.shape[0]):
            b[i] -= y[i]
    return code


@inner
def of_the_map(fns, hp, c, d, fp):
    """The map and what is slow, as `drift` takes them; of the two steps of a pair, the mean."""
    return (fns, (1.0 + fp[At.STEPS_BEFORE], hp, c, d, np.int64(fp[At.DIM]))), fp[At.SLOW]


def field(fns, w, k, hp, c, d, nz, fp, b, f):
    """b = `(F_e(c, d(c)) - c, d(c) - d)`, d(c) the orbit that continues d; a status where there is none."""
    size = w.shape[0] // 2
    middle, now, known = np.empty(size), np.empty(size), np.zeros(1)
    system, slow = of_the_map(fns, hp, c, d, fp)
    code = drift((system, slow, (w[size : 2 * size], middle, known, middle, now)), w[0:size], k, b[0:size])
    for i in range(size):
        b[size + i] = now[i] - w[size + i]  # zero on the orbit
    return code


def advance(fns, w, kept, k, end, rtol, atol, hp, c, d, nz, fp):
    """Carry `(c, d)` from step k to `end` in place; a status. After each step at most the orbit is continued.

    kept : how far the path has come, the next step, whether the shift of the orbit's mid-point is known, the shift.
    """
    size = w.shape[0] // 2
    middle, now, y = np.empty(size), np.empty(size), np.empty(size)
    system, slow = of_the_map(fns, hp, c, d, fp)
    orbit = w[size : 2 * size], kept[3 : 3 + size], kept[2:3], middle, now
    given = system, slow, orbit
    step = kept[1] if kept[1] > 0.0 else 0.5
    while k < end:
        kept[0] = k
        for i in range(size):
            y[i] = w[i]
        code, k, step, _ = carry((drift, nowhere, stays, given), y, k, min(end, k + 1.0), step, (rtol, atol))
        if code != 0:  # else the last stage stood at y: `middle` and `now` are the orbit there
            return code
        kept[2] = 1.0
        for i in range(size):
            w[i], w[size + i], kept[3 + i] = y[i], now[i], middle[i] - y[i]
    kept[0], kept[1] = k, step
    return 0
