"""`X >= 0`, `Y = A + K[X] >= 0`, `<X, Y> = 0` for symmetric matrices: which curvatures push back, and how hard.

For the central flow `Y` is the rate at which the critical curvatures fall, `X` the oscillation that makes them
fall. With `K` positive semidefinite this is the optimality condition of a convex quadratic program over
positive semidefinite matrices. A few rows are all that occurs, so an interior-point method that forms its
Newton system densely is quickest. Compiled functions take a symmetric matrix as the vector of its entries in an
orthonormal basis: those on the diagonal, and sqrt(2) times those below it.
Source: Alizadeh, Haeberly, Overton, *Primal-dual interior-point methods for semidefinite programming* (1998).
"""

import math

import numpy as np

from minidyn.common.errors import SolverError
from minidyn.kernels.elimination import back_solve, factorize, solve
from minidyn.kernels.linalg import cholesky_semidefinite, extreme_eigenvalues, inner, multiply

_ROOT = math.sqrt(2.0)
_CLOSE = 1e-10  # what may be left of the conditions
_ENOUGH = 1e-12  # what is left of them where Newton's method ends
NOTHING = -1.0  # instead of what is left: nothing holds anything


@inner
def side(entries):
    """How many rows a symmetric matrix of so many entries has."""
    return np.int64(math.sqrt(2.0 * entries + 0.25))


@inner
def vector_of(M, x):
    """x = a symmetric matrix as a vector."""
    at = 0
    for s in range(M.shape[0]):
        for t in range(s + 1):
            x[at] = M[s, t] if s == t else (M[s, t] + M[t, s]) / _ROOT
            at += 1


@inner
def matrix_of(x, M):
    """M = the symmetric matrix of a vector."""
    at = 0
    for s in range(M.shape[0]):
        for t in range(s + 1):
            M[s, t] = x[at] if s == t else x[at] / _ROOT
            M[t, s] = M[s, t]
            at += 1


@inner
def balanced(a, k, x):
    """The shortest x of any sign with `a + k x = 0`, or nearly, by one-sided rotations (Hestenes 1958)."""
    n = a.shape[0]
    left, right = np.empty((n, n)), np.zeros((n, n))  # rows: columns of k, turned; and what has turned them
    for i in range(n):
        x[i] = 0.0
        right[i, i] = 1.0
        for j in range(n):
            left[i, j] = k[j, i]
    for _ in range(60):
        turned = False
        for p in range(n - 1):
            for q in range(p + 1, n):
                one, other, both = 0.0, 0.0, 0.0
                for j in range(n):
                    one += left[p, j] * left[p, j]
                    other += left[q, j] * left[q, j]
                    both += left[p, j] * left[q, j]
                if not abs(both) > 1e-16 * math.sqrt(one * other):
                    continue
                turned = True
                ratio = (other - one) / (2.0 * both)
                tangent = math.copysign(1.0, ratio) / (abs(ratio) + math.sqrt(1.0 + ratio * ratio))
                cosine = 1.0 / math.sqrt(1.0 + tangent * tangent)
                sine = cosine * tangent
                for j in range(n):
                    y, z = left[p, j], left[q, j]
                    left[p, j], left[q, j] = cosine * y - sine * z, sine * y + cosine * z
                    y, z = right[p, j], right[q, j]
                    right[p, j], right[q, j] = cosine * y - sine * z, sine * y + cosine * z
        if not turned:
            break
    largest = 0.0
    for i in range(n):
        for j in range(n):
            largest = max(largest, abs(left[i, j]))
    for i in range(n):
        size, along = 0.0, 0.0
        for j in range(n):
            size += left[i, j] * left[i, j]
            along -= left[i, j] * a[j]
        if size > 1e-26 * largest * largest:
            for j in range(n):
                x[j] += right[i, j] * along / size


@inner
def _room(M, dM):
    """The longest step along dM that keeps M positive semidefinite; 0 where M is not definite."""
    m = M.shape[0]
    low, half, inner_part = np.empty((m, m)), dM.copy(), np.empty((m, m))
    cholesky_semidefinite(M, low)
    for i in range(m):
        if not low[i, i] > 0.0:
            return 0.0
    work = low.copy()
    solve(work, half)
    for i in range(m):
        for j in range(m):
            inner_part[i, j] = half[j, i]
    solve(low, inner_part)
    for i in range(m):
        for j in range(i):
            inner_part[i, j] = inner_part[j, i] = 0.5 * (inner_part[i, j] + inner_part[j, i])
    least, _ = extreme_eigenvalues(inner_part)
    return -1.0 / least if least < 0.0 else np.inf


@inner
def _products(M, out):
    """out: the columns `M E + E M` for the matrices E of the basis."""
    n, m = out.shape[0], M.shape[0]
    unit, column, E, left = np.zeros(n), np.empty(n), np.empty((m, m)), np.empty((m, m))
    for p in range(n):
        unit[p] = 1.0
        matrix_of(unit, E)
        unit[p] = 0.0
        multiply(M, E, left)
        vector_of(left, column)  # of M E as of its transpose
        for q in range(n):
            out[q, p] = 2.0 * column[q]


@inner
def _inside(a, k, x, y):
    """What is left of the conditions at x, y, in units of their sizes; the residual of the first one is y's error."""
    n = a.shape[0]
    gap, largest, most_x, most_y = 0.0, 0.0, 0.0, 0.0
    for p in range(n):
        residual = a[p] - y[p]
        for q in range(n):
            residual += k[p, q] * x[q]
        gap += x[p] * y[p]
        largest = max(largest, abs(residual))
        most_x, most_y = max(most_x, abs(x[p])), max(most_y, abs(y[p]))
    return gap / side(n), max(100.0 * gap / side(n) / (1.0 + most_x), largest) / (1.0 + most_y)


@inner
def _direction(system, order, known, target, k, residual, dx, dy, matrices):
    """Newton's direction towards `target`, as vectors and as matrices."""
    n = dx.shape[0]
    dX, dY = matrices
    for p in range(n):
        dx[p] = target[p] - known[p]
    back_solve(system, order, dx)
    for p in range(n):
        dy[p] = residual[p]
        for q in range(n):
            dy[p] += k[p, q] * dx[q]
    matrix_of(dx, dX)
    matrix_of(dy, dY)


@inner
def _newton(a, k, x, y, gap):
    """One step, predicted and corrected, on `X Y + Y X = 2 mu I`, `y = a + k x`; False where rounding ends it."""
    n = a.shape[0]
    m = side(n)
    room = np.empty((6, m, m))
    X, Y, dX, dY, product, square = room[0], room[1], room[2], room[3], room[4], room[5]
    left, right, system = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    residual, known, target, dx, dy = np.empty(n), np.zeros(n), np.empty(n), np.empty(n), np.empty(n)
    order = np.empty(n, np.int64)
    matrix_of(x, X)
    matrix_of(y, Y)
    _products(Y, left)
    _products(X, right)
    multiply(right, k, system)
    for p in range(n):
        residual[p] = a[p] - y[p]
        for q in range(n):
            residual[p] += k[p, q] * x[q]
            system[p, q] += left[p, q]
    for p in range(n):
        for q in range(n):
            known[p] += right[p, q] * residual[q]
    multiply(X, Y, product)
    vector_of(product, target)
    for p in range(n):
        target[p] *= -2.0
    if not factorize(system, order):
        return False
    _direction(system, order, known, target, k, residual, dx, dy, (dX, dY))
    along, hoped = min(min(_room(X, dX), _room(Y, dY)), 1.0), 0.0
    for p in range(n):
        hoped += (x[p] + along * dx[p]) * (y[p] + along * dy[p]) / m
    share = min(1.0, max(hoped / gap, 0.0))
    mu = gap * share * share * share
    multiply(dX, dY, square)
    for i in range(m):
        for j in range(m):
            product[i, j] = -2.0 * (product[i, j] + square[i, j])
        product[i, i] += 2.0 * mu
    vector_of(product, target)
    _direction(system, order, known, target, k, residual, dx, dy, (dX, dY))
    along = min(0.9 * min(_room(X, dX), _room(Y, dY)), 1.0)
    for p in range(n):
        x[p] += along * dx[p]
        y[p] += along * dy[p]
    return along > 0.0


@inner
def _interior(a, k, x, y):
    """The best x, y that Newton's method finds, with the gap driven to zero; and what is left."""
    n = a.shape[0]
    u, v = np.zeros(n), np.zeros(n)
    for s in range(side(n)):
        diagonal = s * (s + 3) // 2
        u[diagonal], v[diagonal] = 10.0, 10.0
    best = np.inf
    for _ in range(100):
        gap, wrong = _inside(a, k, u, v)
        if not wrong < np.inf:
            break
        if wrong < best:
            best = wrong
            for p in range(n):
                x[p], y[p] = u[p], v[p]
        if wrong <= _ENOUGH or not _newton(a, k, u, v, gap):
            break
    return best


@inner
def pressed(a, k, x, y):
    """`x`, `y` with X >= 0, Y >= 0, y = a + k x, <x, y> = 0; what is left of that, or NOTHING where k does nothing."""
    n = a.shape[0]
    m = side(n)
    A, scaled, units = np.empty((m, m)), np.empty((n, n)), np.empty(n)
    size_y, size_k = 0.0, 0.0
    for p in range(n):
        x[p], y[p] = 0.0, a[p]
        size_y = max(size_y, abs(a[p]))
        for q in range(n):
            size_k = max(size_k, abs(k[p, q]))
    matrix_of(a, A)
    least, _ = extreme_eigenvalues(A)
    if size_y == 0.0 or least >= 0.0:
        return 0.0
    if size_k == 0.0:
        return NOTHING
    wrong = np.inf
    for turn in range(4):  # too few directions for so many curvatures: no interior without a lift
        lift = 0.0 if turn == 0 else (1e-13 if turn == 1 else (1e-12 if turn == 2 else 1e-11))
        for p in range(n):
            units[p] = a[p] / size_y
            for q in range(n):
                scaled[p, q] = 0.5 * (k[p, q] + k[q, p]) / size_k + (lift if p == q else 0.0)
        wrong = _interior(units, scaled, x, y)
        if wrong <= _CLOSE:
            break
    for p in range(n):
        x[p] *= size_y / size_k
        y[p] *= size_y
    return wrong


@inner
def holds(wrong):
    """Whether what `pressed` says is a solution."""
    return wrong >= 0.0 and wrong <= _CLOSE


def refusal(wrong: float) -> SolverError:
    """Why there is no solution, from what is left of the conditions."""
    if wrong == NOTHING:
        return SolverError("nothing holds a critical curvature back: the third derivatives across it vanish.")
    return SolverError(
        f"the curvatures at the threshold cannot all be held there (the oscillation grows without bound; {wrong:.0e})."
    )
