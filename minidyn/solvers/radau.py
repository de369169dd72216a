"""Radau IIA of order 5 for stiff flows: three implicit stages, L-stable, error estimate of order 3, dense output.

The stages solve `Z = h (A x I) F(Z)` by Newton's method, transformed to one real and one complex system; the
Jacobian is evaluated at every step. Its dense output is the collocation polynomial.
Source: Hairer, Wanner, *Solving ODEs II* (1996), section IV.8.
"""

from __future__ import annotations

import math

import numpy as np

from minidyn.compiler import jit
from minidyn.solvers.explicit import first_step, norm, polynomial, put_back
from minidyn.solvers.rows import ATTEMPTS, DENSE, ERROR, ERROR_H, JACOBIANS, LATEST, NOW, PAST, SPAN, STEADY, STIFF, H

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_S = math.sqrt(6.0)
_NODES = np.array([(4.0 - _S) / 10.0, (4.0 + _S) / 10.0, 1.0])
_A = np.array([
    [(88 - 7 * _S) / 360, (296 - 169 * _S) / 1800, (-2 + 3 * _S) / 225],
    [(296 + 169 * _S) / 1800, (88 + 7 * _S) / 360, (-2 - 3 * _S) / 225],
    [(16 - _S) / 36, (16 + _S) / 36, 1 / 9],
])  # fmt: skip
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


@jit
def factorize(a, order):
    """a = L U in place with row exchanges `order`; False if it is singular."""
    n = a.shape[0]
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[pivot, k]):
                pivot = i
        order[k] = pivot
        if not abs(a[pivot, k]) > 0.0:
            return False
        if pivot != k:
            for j in range(n):
                x = a[k, j]
                a[k, j] = a[pivot, j]
                a[pivot, j] = x
        for i in range(k + 1, n):
            factor = a[i, k] / a[k, k]
            a[i, k] = factor
            if factor != 0.0:
                for j in range(k + 1, n):
                    a[i, j] -= factor * a[k, j]
    return True


@jit
def back_solve(a, order, b):
    """b = (L U)^-1 b"""
    n = a.shape[0]
    for k in range(n):
        pivot = order[k]
        if pivot != k:
            x = b[k]
            b[k] = b[pivot]
            b[pivot] = x
    for i in range(n):
        total = b[i]
        for j in range(i):
            total -= a[i, j] * b[j]
        b[i] = total
    for i in range(n - 1, -1, -1):
        total = b[i]
        for j in range(i + 1, n):
            total -= a[i, j] * b[j]
        b[i] = total / a[i, i]


@jit
def differences(field, fns, w, k, slope, trial, other, J, hp, c, d, nz, fp, f):
    """The Jacobian of the field by one-sided differences; a status code."""
    size = w.shape[0]
    for i in range(size):
        trial[i] = w[i]
    for j in range(size):
        step = 1.5e-8 * max(abs(w[j]), 1e-5)
        step = -step if w[j] < 0.0 else step
        trial[j] = w[j] + step
        step = trial[j] - w[j]
        code = field(fns, trial, k, hp, c, d, nz, fp, other, f)
        if code != 0:
            trial[j] = w[j] - step
            step = -step
            code = field(fns, trial, k, hp, c, d, nz, fp, other, f)
            if code != 0:
                return code
        for i in range(size):
            J[i, j] = (other[i] - slope[i]) / step
        trial[j] = w[j]
    return 0


@jit
def systems(J, h, real, pair, order, orders):
    """Factors of the real system and of the complex one (as a real one of twice the size)."""
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
    if not factorize(real, order):
        return False
    return factorize(pair, orders)


@jit
def newton(field, fns, w, k, h, Z, W, F, trial, real, pair, order, orders, x, y, limit, rtol, atol,
           hp, c, d, nz, fp, f):  # fmt: skip
    """Solve for the stages Z, which hold a first guess; the number of iterations, or 0 where it does not converge."""
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
            if field(fns, trial, k + _NODES[a] * h, hp, c, d, nz, fp, F[a], f) != 0:
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
def slopes_at(field, jacobian, fns, jfns, compiled, w, k, slope, trial, other, J, hp, c, d, nz, fp, f):
    """The field and its Jacobian at a point; a status code."""
    code = field(fns, w, k, hp, c, d, nz, fp, slope, f)
    if code != 0:
        return code
    if compiled != 0:
        return jacobian(jfns, w, k, hp, c, d, nz, fp, J)
    return differences(field, fns, w, k, slope, trial, other, J, hp, c, d, nz, fp, f)


@jit
def full_newton(field, jacobian, fns, jfns, compiled, w, k, h, Z, F, trial, near, other, J, big, order, x, limit,
                rtol, atol, hp, c, d, nz, fp, f):  # fmt: skip
    """Newton's method with the Jacobian of every stage: a curved steep valley turns while a step is made.

    There the frozen Jacobian converges only for steps below the cube root of 1/steepness.
    """
    n = w.shape[0]
    before = 0.0
    for turn in range(_NEWTON):
        for a in range(3):
            for i in range(n):
                near[i] = w[i] + Z[a, i]
            if slopes_at(field, jacobian, fns, jfns, compiled, near, k + _NODES[a] * h, F[a], trial, other, J,
                         hp, c, d, nz, fp, f) != 0:  # fmt: skip
                return 0
            for e in range(3):
                for i in range(n):
                    for j in range(n):
                        big[e * n + i, a * n + j] = -h * _A[e, a] * J[i, j]
        for a in range(3):
            for i in range(n):
                big[a * n + i, a * n + i] += 1.0
                x[a * n + i] = h * (_A[a, 0] * F[0, i] + _A[a, 1] * F[1, i] + _A[a, 2] * F[2, i]) - Z[a, i]
        if not factorize(big, order):
            return 0
        back_solve(big, order, x)
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
def guess(w, w0, K, s, k, step, Z):
    """First guess of the stages: the last step's polynomial carried on, or no motion."""
    for a in range(3):
        if s[LATEST] == 2.0 and s[STEADY] == 0.0:
            polynomial(DENSE_RADAU, 3, w0, K, (k + _NODES[a] * step - s[PAST]) / s[SPAN], 1.0, Z[a])
        for i in range(w.shape[0]):
            Z[a, i] = Z[a, i] - w[i] if (s[LATEST] == 2.0 and s[STEADY] == 0.0) else 0.0


@jit
def implicit(field, jacobian, retract, fns, jfns, compiled, w, w0, K, s, target, end, attempts, rtol, atol, back,
             trial, near, f, J, real, pair, hp, c, d, nz, fp):  # fmt: skip
    """Step from s[NOW] until it passes `target` or `attempts` are made; never beyond `end`.

    K[0:3] hold the stages of the last step. `back`: return -2 where an explicit method would do. Other status
    codes as in `explicit`.
    """
    n = w.shape[0]
    slope = np.empty(n)
    x = np.empty(n)
    y = np.empty(2 * n)
    W = np.empty((3, n))
    F = np.empty((3, n))
    Z = np.empty((3, n))
    last = np.empty(n)
    v = np.empty(3 * n)
    stage_J = np.empty((n, n))
    big = np.empty((3 * n, 3 * n))
    long = np.empty(3 * n, np.int64)
    order = np.empty(n, np.int64)
    orders = np.empty(2 * n, np.int64)
    limit = max(1e-14 / rtol, 1e-5)  # what Newton leaves is a force along a steep valley: far below the tolerance
    known = False
    size = 0.0
    for _ in range(attempts):
        k = s[NOW]
        if k >= target:
            break
        if not known:
            code = slopes_at(
                field, jacobian, fns, jfns, compiled, w, k, slope, trial, near, J, hp, c, d, nz, fp, f
            )  # fmt: skip
            if code != 0:
                return code
            s[JACOBIANS] += 1.0
            known = True
            size = 0.0
            for i in range(n):
                total = 0.0
                for j in range(n):
                    total += abs(J[i, j])
                size = max(size, total)
        if not s[H] > 0.0:
            s[H] = first_step(field, fns, w, slope, k, end, 0.25, rtol, atol, trial, near, hp, c, d, nz, fp, f)
        step = s[H]
        ends = k + step * (1.0 + 1e-10) >= end
        if ends:
            step = end - k
        s[ATTEMPTS] += 1.0
        if not systems(J, step, real, pair, order, orders):
            s[H] = 0.5 * step
            s[STEADY] = 1.0
            if not s[H] > 1e-14 * (1.0 + abs(k)):
                return 4
            continue
        guess(w, w0, K, s, k, step, Z)
        turns = newton(
            field, fns, w, k, step, Z, W, F, trial, real, pair, order, orders, x, y, limit, rtol, atol,
            hp, c, d, nz, fp, f,
        )  # fmt: skip
        if turns == 0:
            guess(w, w0, K, s, k, step, Z)
            turns = full_newton(
                field, jacobian, fns, jfns, compiled, w, k, step, Z, F, trial, near, last, stage_J, big, long, v,
                limit, rtol, atol, hp, c, d, nz, fp, f,
            )  # fmt: skip
        if turns == 0:
            s[H] = 0.5 * step
            s[STEADY] = 1.0
            if not s[H] > 1e-14 * (1.0 + abs(k)):
                return 4
            continue
        for i in range(n):
            trial[i] = w[i] + Z[2, i]
            near[i] = (_ESTIMATE[0] * Z[0, i] + _ESTIMATE[1] * Z[1, i] + _ESTIMATE[2] * Z[2, i]) / step
            x[i] = slope[i] + near[i]
        back_solve(real, order, x)
        error = norm(x, w, trial, rtol, atol)
        if error > 1.0 and s[STEADY] != 0.0:  # the filtered estimate is right for stiff components
            for i in range(n):
                y[i] = w[i] + x[i]
            if field(fns, y[0:n], k, hp, c, d, nz, fp, x, f) == 0:
                for i in range(n):
                    x[i] += near[i]
                back_solve(real, order, x)
                error = norm(x, w, trial, rtol, atol)
        if not error < np.inf:
            error = 1e10
        error = max(error, 1e-10)
        factor = error**-0.25
        if s[ERROR] > 0.0:
            factor = min(1.0, step / s[ERROR_H] * (s[ERROR] / error) ** 0.25) * factor
        safety = 0.9 * (2.0 * _NEWTON + 1.0) / (2.0 * _NEWTON + turns)
        if error <= 1.0:
            grow = min(10.0, max(0.2, safety * factor))
            for i in range(n):
                w0[i] = w[i]
                w[i] = trial[i]
                for a in range(3):
                    K[a, i] = Z[a, i]
            s[ERROR], s[ERROR_H] = error, step
            s[PAST], s[SPAN], s[LATEST], s[DENSE] = k, step, 2.0, 1.0
            s[NOW] = end if ends else k + step
            s[H] = step * (min(1.0, grow) if s[STEADY] != 0.0 else grow) if not ends else max(s[H], step)
            s[STEADY] = 0.0
            known = False
            code, _ = put_back(retract, fns, w, near, rtol, atol, hp, c, d, nz, fp)
            if code != 0:
                return code
            s[STIFF] = s[STIFF] + 1.0 if s[H] * size < 1.0 else 0.0
            if back != 0 and s[STIFF] >= 20.0:
                return -2
        else:
            s[STEADY] = 1.0
            s[H] = step * min(1.0, max(0.2, safety * factor))
            if not s[H] > 1e-14 * (1.0 + abs(k)):
                return 4
    return 0
