"""Radau IIA of order 5 for stiff flows: three implicit stages, L-stable, error estimate of order 3, dense output.

The stages solve `Z = h (A x I) F(Z)` by Newton's method, transformed to one real and one complex system; the
Jacobian is evaluated at every step. Its dense output is the collocation polynomial.
Source: Hairer, Wanner, *Solving ODEs II* (1996), section IV.8.
"""

import math

import numpy as np

from minidyn.common.status import Status
from minidyn.compiler import jit
from minidyn.kernels.elimination import back_solve, factorize, solve_one
from minidyn.solvers.explicit import TINY, first_step, moved_back, norm, polynomial
from minidyn.solvers.rows import IMPLICIT, At
from minidyn.solvers.system import field_at

_S = math.sqrt(6.0)
_NODES = np.array([(4.0 - _S) / 10.0, (4.0 + _S) / 10.0, 1.0])
_A = np.array(
    [
        [(88 - 7 * _S) / 360, (296 - 169 * _S) / 1800, (-2 + 3 * _S) / 225],
        [(296 + 169 * _S) / 1800, (88 + 7 * _S) / 360, (-2 - 3 * _S) / 225],
        [(16 - _S) / 36, (16 + _S) / 36, 1 / 9],
    ]
)
_ESTIMATE = np.array([(-13.0 - 7.0 * _S) / 3.0, (-13.0 + 7.0 * _S) / 3.0, -1.0 / 3.0])
# weights of the stages Z in the collocation polynomial through 0 and the nodes
DENSE_RADAU = np.ascontiguousarray(np.linalg.inv(np.vander(_NODES, 4, increasing=True)[:, 1:]).T)


def _transform() -> tuple[np.ndarray, np.ndarray, float, complex]:
    """T, T^-1 and the eigenvalues of A^-1: one real, and one of the pair (the columns of T are real and imaginary)."""
    values, vectors = np.linalg.eig(np.linalg.inv(_A))
    real = int(np.argmin(abs(values.imag)))
    pair = int(np.argmin(values.imag))
    u, v = (vectors[:, real] / vectors[2, real]).real, vectors[:, pair] / vectors[2, pair]
    t = np.ascontiguousarray(np.stack([u, v.real, -v.imag], axis=1))
    return t, np.linalg.inv(t), float(values[real].real), complex(values[pair])


_T, _TI, _REAL, _PAIR = _transform()
_REAL_PART, _IMAGINARY = _PAIR.real, _PAIR.imag
_NEWTON = 8
_RATE = 0.05  # slower than this, the frozen Jacobian is given up
_EASY = 20.0  # steps in a row that an explicit method would make as well
NOT_STIFF = -2  # beside statuses: an explicit method would do


@jit
def differences(system, w, k, slope, room, J):
    """The Jacobian of the field by one-sided differences; a status code."""
    trial, other, f = room
    size = w.shape[0]
    for i in range(size):
        trial[i] = w[i]
    for j in range(size):
        step = 1.5e-8 * max(abs(w[j]), 1e-5)
        step = -step if w[j] < 0.0 else step
        trial[j] = w[j] + step
        step = trial[j] - w[j]
        code = field_at(system, trial, k, other, f)
        if code != 0:
            trial[j] = w[j] - step
            step = -step
            code = field_at(system, trial, k, other, f)
            if code != 0:
                return code
        for i in range(size):
            J[i, j] = (other[i] - slope[i]) / step
        trial[j] = w[j]
    return 0


@jit
def systems(J, h, factors):
    """Factors of the real system and of the complex one (as a real one of twice the size)."""
    real, pair, order, orders = factors
    n = J.shape[0]
    for i in range(n):
        for j in range(n):
            real[i, j] = -J[i, j]
            pair[i, j] = -J[i, j]
            pair[n + i, n + j] = -J[i, j]
            pair[i, n + j] = 0.0
            pair[n + i, j] = 0.0
        real[i, i] += _REAL / h
        pair[i, i] += _REAL_PART / h
        pair[n + i, n + i] += _REAL_PART / h
        pair[i, n + i] = -_IMAGINARY / h
        pair[n + i, i] = _IMAGINARY / h
    return factorize(real, order) and factorize(pair, orders)


@jit
def newton(system, w, k, h, stages, factors, right, limit, tolerance, room):
    """Solve for the stages Z, which hold a first guess; the number of iterations, or 0 where it does not converge."""
    Z, W, F = stages
    real, pair, order, orders = factors
    x, y = right
    trial, _, f = room
    rtol, atol = tolerance
    n = w.shape[0]
    for i in range(n):
        for a in range(3):
            W[a, i] = _TI[a, 0] * Z[0, i] + _TI[a, 1] * Z[1, i] + _TI[a, 2] * Z[2, i]
    before = 0.0
    rate = 1.0
    for turn in range(_NEWTON):
        for a in range(3):
            for i in range(n):
                trial[i] = w[i] + Z[a, i]
            if field_at(system, trial, k + _NODES[a] * h, F[a], f) != 0:
                return 0
        for i in range(n):
            r = _TI[1, 0] * F[0, i] + _TI[1, 1] * F[1, i] + _TI[1, 2] * F[2, i]
            m = _TI[2, 0] * F[0, i] + _TI[2, 1] * F[1, i] + _TI[2, 2] * F[2, i]
            x[i] = _TI[0, 0] * F[0, i] + _TI[0, 1] * F[1, i] + _TI[0, 2] * F[2, i] - _REAL / h * W[0, i]
            y[i] = r - (_REAL_PART * W[1, i] - _IMAGINARY * W[2, i]) / h
            y[n + i] = m - (_REAL_PART * W[2, i] + _IMAGINARY * W[1, i]) / h
        back_solve(real, order, x)
        back_solve(pair, orders, y)
        total = 0.0
        for i in range(n):
            scale = atol + rtol * abs(w[i])
            total += (x[i] * x[i] + y[i] * y[i] + y[n + i] * y[n + i]) / (scale * scale)
        change = math.sqrt(total / (3.0 * n))
        if not change < np.inf:
            return 0
        if turn > 0:
            rate = change / before
            if rate >= _RATE:
                return 0
        for i in range(n):
            W[0, i] += x[i]
            W[1, i] += y[i]
            W[2, i] += y[n + i]
            for a in range(3):
                Z[a, i] = _T[a, 0] * W[0, i] + _T[a, 1] * W[1, i] + _T[a, 2] * W[2, i]
        if change == 0.0 or (turn > 0 and rate / (1.0 - rate) * change < limit):
            return turn + 1
        before = change
    return 0


@jit
def slopes_at(system, jacobian, w, k, slope, room, J):
    """The field and its Jacobian at a point; a status code."""
    function, jfns, compiled = jacobian
    _, _, _, (hp, c, d, nz, fp) = system
    code = field_at(system, w, k, slope, room[2])
    if code != 0:
        return code
    if compiled != 0:
        return function(jfns, w, k, hp, c, d, nz, fp, J)
    return differences(system, w, k, slope, room, J)


@jit
def full_newton(system, jacobian, w, k, h, stages, near, limit, tolerance, room):
    """Newton's method with the Jacobian of every stage: a curved steep valley turns while a step is made.

    There the frozen Jacobian converges only for steps below the cube root of 1/steepness.
    """
    Z, _, F = stages
    rtol, atol = tolerance
    n = w.shape[0]
    J, big, x = np.empty((n, n)), np.empty((3 * n, 3 * n)), np.empty(3 * n)
    before = 0.0
    for turn in range(_NEWTON):
        for a in range(3):
            for i in range(n):
                near[i] = w[i] + Z[a, i]
            if slopes_at(system, jacobian, near, k + _NODES[a] * h, F[a], room, J) != 0:
                return 0
            for e in range(3):
                for i in range(n):
                    for j in range(n):
                        big[e * n + i, a * n + j] = -h * _A[e, a] * J[i, j]
        for a in range(3):
            for i in range(n):
                big[a * n + i, a * n + i] += 1.0
                x[a * n + i] = h * (_A[a, 0] * F[0, i] + _A[a, 1] * F[1, i] + _A[a, 2] * F[2, i]) - Z[a, i]
        if not solve_one(big, x):
            return 0
        total = 0.0
        for a in range(3):
            for i in range(n):
                Z[a, i] += x[a * n + i]
                part = x[a * n + i] / (atol + rtol * abs(w[i]))
                total += part * part
        change = math.sqrt(total / (3.0 * n))
        if not change < np.inf:
            return 0
        if change < limit or (turn > 0 and change > 0.3 * before and change < 0.03):  # no better: rounding in the field
            return turn + 1
        before = change
    return 0


@jit
def guess(path, step, Z):
    """First guess of the stages: the last step's polynomial carried on, or no motion."""
    w, w0, K, row = path
    known = row[At.LATEST] == IMPLICIT and row[At.STEADY] == 0.0
    for a in range(3):
        if known:
            theta = (row[At.NOW] + _NODES[a] * step - row[At.PAST]) / row[At.SPAN]
            polynomial(DENSE_RADAU, 3, w0, K, theta, 1.0, Z[a])
        for i in range(w.shape[0]):
            Z[a, i] = Z[a, i] - w[i] if known else 0.0


@jit
def solved(system, jacobian, path, step, stages, factors, right, near, tolerance, room):
    """Solve for the stages of a step; how many iterations that took, 0 where neither way of Newton's converges."""
    w, _, _, row = path
    rtol, _ = tolerance
    limit = max(1e-14 / rtol, 1e-5)  # what Newton leaves is a force along a steep valley: far below the tolerance
    guess(path, step, stages[0])
    turns = newton(system, w, row[At.NOW], step, stages, factors, right, limit, tolerance, room)
    if turns == 0:
        guess(path, step, stages[0])
        turns = full_newton(system, jacobian, w, row[At.NOW], step, stages, near, limit, tolerance, room)
    return turns


@jit
def error_of(system, path, step, slope, Z, factors, right, tolerance, room):
    """The error of the step from w to `trial`, whose stages are Z, in units of the tolerance."""
    w, _, _, row = path
    real, _, order, _ = factors
    x, y = right
    trial, near, f = room
    n = w.shape[0]
    for i in range(n):
        near[i] = (_ESTIMATE[0] * Z[0, i] + _ESTIMATE[1] * Z[1, i] + _ESTIMATE[2] * Z[2, i]) / step
        x[i] = slope[i] + near[i]
    back_solve(real, order, x)
    error = norm(x, w, trial, tolerance)
    if error > 1.0 and row[At.STEADY] != 0.0:  # the filtered estimate is right for stiff components
        for i in range(n):
            y[i] = w[i] + x[i]
        if field_at(system, y[0:n], row[At.NOW], x, f) == 0:
            for i in range(n):
                x[i] += near[i]
            back_solve(real, order, x)
            error = norm(x, w, trial, tolerance)
    return max(error if error < np.inf else 1e10, 1e-10)


@jit
def accept(path, Z, trial, step, error, factor, ends, end):
    """Make the step: note where the path stands and what the next step is to be."""
    w, w0, K, row = path
    grow = min(10.0, max(0.2, factor))
    for i in range(w.shape[0]):
        w0[i] = w[i]
        w[i] = trial[i]
        for a in range(3):
            K[a, i] = Z[a, i]
    row[At.ERROR], row[At.ERROR_H] = error, step
    row[At.PAST], row[At.SPAN], row[At.LATEST], row[At.DENSE] = row[At.NOW], step, IMPLICIT, 1.0
    row[At.NOW] = end if ends else row[At.NOW] + step
    row[At.H] = step * (min(1.0, grow) if row[At.STEADY] != 0.0 else grow) if not ends else max(row[At.H], step)
    row[At.STEADY] = 0.0


@jit
def largest_row(J):
    """The largest sum of |J_ij| over a row."""
    size = 0.0
    for i in range(J.shape[0]):
        total = 0.0
        for j in range(J.shape[0]):
            total += abs(J[i, j])
        size = max(size, total)
    return size


@jit
def shorten(row, h):
    """Try again with a step of length h; a status code."""
    row[At.STEADY] = 1.0
    row[At.H] = h
    return 0 if h > TINY * (1.0 + abs(row[At.NOW])) else Status.SOLVER_FAILED


@jit
def implicit_steps(system, jacobian, path, goal, back, tolerance, room):
    """Step from row[At.NOW] until it passes `target` or `attempts` are made; never beyond `end`.

    path : (w, w0, K, row); K[0:3] hold the stages of the last step.  goal : (target, end, attempts).
    jacobian : (function, its kernels, 0 where there is none).  `back`: return NOT_STIFF where an explicit method would
    do. Status codes as in `explicit`.
    """
    w, _, _, row = path
    target, end, attempts = goal
    trial, near, f, J, real, pair = room
    n = w.shape[0]
    slope, last = np.empty(n), np.empty(n)
    right = (np.empty(n), np.empty(2 * n))
    stages = (np.empty((3, n)), np.empty((3, n)), np.empty((3, n)))
    factors = (real, pair, np.empty(n, np.int64), np.empty(2 * n, np.int64))
    beside = (trial, near, f)
    known, code = False, 0
    for _ in range(attempts):
        if row[At.NOW] >= target or code != 0:
            break
        if not known:
            code = slopes_at(system, jacobian, w, row[At.NOW], slope, beside, J)
            if code != 0:
                break
            row[At.JACOBIANS] += 1.0
            known = True
        if not row[At.H] > 0.0:
            row[At.H] = first_step(system, w, slope, row[At.NOW], end, 0.25, tolerance, beside)
        ends = row[At.NOW] + row[At.H] * (1.0 + 1e-10) >= end
        step = end - row[At.NOW] if ends else row[At.H]
        row[At.ATTEMPTS] += 1.0
        turns = 0
        if systems(J, step, factors):
            turns = solved(system, jacobian, path, step, stages, factors, right, last, tolerance, beside)
        if turns == 0:
            code = shorten(row, 0.5 * step)
            continue
        for i in range(n):
            trial[i] = w[i] + stages[0][2, i]
        error = error_of(system, path, step, slope, stages[0], factors, right, tolerance, beside)
        factor = error**-0.25
        if row[At.ERROR] > 0.0:
            factor = min(1.0, step / row[At.ERROR_H] * (row[At.ERROR] / error) ** 0.25) * factor
        factor *= 0.9 * (2.0 * _NEWTON + 1.0) / (2.0 * _NEWTON + turns)
        if error > 1.0:
            code = shorten(row, step * min(1.0, max(0.2, factor)))
            continue
        accept(path, stages[0], trial, step, error, factor, ends, end)
        known = False
        code, _ = moved_back(system, w, near, tolerance)
        row[At.STIFF] = row[At.STIFF] + 1.0 if row[At.H] * largest_row(J) < 1.0 else 0.0
        if code == 0 and back != 0 and row[At.STIFF] >= _EASY:
            code = NOT_STIFF
    return code
