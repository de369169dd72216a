"""Small dense linear algebra for compiled flows: deterministic, no threads, no allocation surprises."""

import math

import numpy as np

from minidyn.compiler import jit
from minidyn.kernels.elimination import solve

inner = jit  # for functions that only other compiled functions call


@inner
def multiply(a, b, out):
    """out = a b"""
    n, m, p = a.shape[0], a.shape[1], b.shape[1]
    for i in range(n):
        row = out[i]
        for j in range(p):
            row[j] = 0.0
        for k in range(m):
            x = a[i, k]
            if x != 0.0:
                col = b[k]
                for j in range(p):
                    row[j] += x * col[j]


@inner
def multiply_transposed(a, b, out):
    """out = a b^T"""
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            total = 0.0
            for k in range(a.shape[1]):
                total += a[i, k] * b[j, k]
            out[i, j] = total


@inner
def symmetric_eigen(a, values, vectors):
    """Eigenvalues and eigenvectors (columns) of a symmetric matrix, in no particular order.

    Cyclic Jacobi rotations (Golub, Van Loan 2013, section 8.5): accurate for small eigenvalues,
    deterministic, and quick to compile. `a` is overwritten.
    """
    n = a.shape[0]
    for i in range(n):
        for j in range(n):
            vectors[i, j] = 0.0
        vectors[i, i] = 1.0
    for _ in range(60):
        off = 0.0
        total = 0.0
        for i in range(n):
            total += a[i, i] * a[i, i]
            for j in range(i):
                off += a[i, j] * a[i, j]
        if not off > 1e-34 * total:
            break
        for p in range(n - 1):
            for q in range(p + 1, n):
                pivot = a[p, q]
                if pivot == 0.0:
                    continue
                theta = (a[q, q] - a[p, p]) / (2.0 * pivot)
                t = 1.0 / (abs(theta) + math.sqrt(theta * theta + 1.0))
                t = t if theta >= 0.0 else -t
                c = 1.0 / math.sqrt(t * t + 1.0)
                s = t * c
                a[p, p] -= t * pivot
                a[q, q] += t * pivot
                a[p, q] = 0.0
                a[q, p] = 0.0
                for k in range(n):
                    if k != p and k != q:
                        x = a[p, k]
                        y = a[q, k]
                        a[p, k] = c * x - s * y
                        a[q, k] = s * x + c * y
                        a[k, p] = a[p, k]
                        a[k, q] = a[q, k]
                    x = vectors[k, p]
                    y = vectors[k, q]
                    vectors[k, p] = c * x - s * y
                    vectors[k, q] = s * x + c * y
    for i in range(n):
        values[i] = a[i, i]


@inner
def extreme_eigenvalues(a):
    """The least and the largest eigenvalue of a symmetric matrix, which is overwritten."""
    n = a.shape[0]
    values = np.empty(n)
    symmetric_eigen(a, values, np.empty((n, n)))
    least, largest = values[0], values[0]
    for i in range(n):
        least = min(least, values[i])
        largest = max(largest, values[i])
    return least, largest


@inner
def remove_along(direction, v):
    """Take from v its part along a direction of length one."""
    along = 0.0
    for r in range(v.shape[0]):
        along += v[r] * direction[r]
    for r in range(v.shape[0]):
        v[r] -= along * direction[r]


@inner
def orthogonal_part(rows, t):
    """Take from row t its parts along the orthonormal rows before it, twice for accuracy (Gram, Schmidt); the square
    of what is left."""
    width = rows.shape[1]
    for _ in range(2):
        for e in range(t):
            remove_along(rows[e], rows[t])
    left = 0.0
    for r in range(width):
        left += rows[t, r] * rows[t, r]
    return left


@inner
def double(gap, stable, square):
    """gap <- stable (2 gap - gap^2), which is stable (I - a^2) for gap = I - a: no digit of a small gap is lost, and
    what rounding leaves beside the range of `stable` does not grow."""
    multiply(gap, gap, square)
    for i in range(gap.shape[0]):
        for j in range(gap.shape[0]):
            square[i, j] = 2.0 * gap[i, j] - square[i, j]
    multiply(stable, square, gap)


@inner
def squares(a):
    """The sum of the squares of the entries."""
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += a[i, j] * a[i, j]
    return total


@inner
def discrete_lyapunov(gap, stable, q, w):
    """w = a w a^T + q on the range of the projector `stable`, for a = stable - gap, by doubling (Smith 1968); False if
    a has an eigenvalue on or outside the unit circle, whether q excites it or not: a power of a must have a norm
    below 1.

    `gap` is overwritten.
    """
    n = gap.shape[0]
    room = np.empty((3, n, n))
    power, square, left = room[0], room[1], room[2]
    copy(q, w)
    for _ in range(64):
        subtract(stable, gap, power)
        multiply(power, w, left)
        multiply_transposed(left, power, square)
        for i in range(n):
            for j in range(n):
                w[i, j] += square[i, j]
        change, size, norm = squares(square), squares(w), squares(power)
        if not size < 1e200:
            return False
        if change <= 1e-34 * size and norm < 1.0:
            return True
        if not norm < 1e200:
            return False
        double(gap, stable, square)
    return False


@inner
def discrete_lyapunov_of_one(gap, q, w):
    """The same for `gap` of rank 1 and q in its range: w = q / (t (2 - t)), t the trace; False outside 0 < t < 2."""
    t = trace(gap)
    if not 0.0 < t < 2.0:
        return False
    for i in range(gap.shape[0]):
        for j in range(gap.shape[0]):
            w[i, j] = q[i, j] / (t * (2.0 - t))
    return True


@inner
def lyapunov_of_few(gap, q, w):
    """w = a w a^T + q for a = I - gap, as equations for the entries of w; False if a has an eigenvalue on or outside
    the unit circle: the solution for q = I is then not positive."""
    n = gap.shape[0]
    count = n * (n + 1) // 2
    equations, right, positive = np.zeros((count, count)), np.zeros((count, 2)), np.empty((2, n, n))
    for i in range(n):
        for j in range(i + 1):
            row = i * (i + 1) // 2 + j
            right[row, 0] = q[i, j]
            right[row, 1] = 1.0 if i == j else 0.0
            for k in range(n):
                for m in range(n):
                    each = (gap[i, k] if j == m else 0.0) + (gap[j, m] if i == k else 0.0) - gap[i, k] * gap[j, m]
                    equations[row, k * (k + 1) // 2 + m if k > m else m * (m + 1) // 2 + k] += each
    if not solve(equations, right):
        return False
    for i in range(n):
        for j in range(i + 1):
            w[i, j] = w[j, i] = right[i * (i + 1) // 2 + j, 0]
            positive[0, i, j] = positive[0, j, i] = right[i * (i + 1) // 2 + j, 1]
    cholesky_semidefinite(positive[0], positive[1])
    found = True
    for i in range(n):
        found = found and positive[1, i, i] > 0.0
    return found


@inner
def cholesky_semidefinite(a, out):
    """out out^T = a, lower triangular, for a positive semidefinite a."""
    n = a.shape[0]
    largest = 0.0
    for i in range(n):
        largest = max(largest, a[i, i])
        for j in range(n):
            out[i, j] = 0.0
    for j in range(n):
        pivot = a[j, j]
        for k in range(j):
            pivot -= out[j, k] * out[j, k]
        if not pivot > 1e-15 * largest:
            continue
        out[j, j] = math.sqrt(pivot)
        for i in range(j + 1, n):
            total = a[i, j]
            for k in range(j):
                total -= out[i, k] * out[j, k]
            out[i, j] = total / out[j, j]


@inner
def copy(a, out):
    """out = a"""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = a[i, j]


@inner
def add_multiple(x, factor, out):
    """out += factor x"""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] += factor * x[i, j]


@inner
def subtract(a, b, out):
    """out = a - b"""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = a[i, j] - b[i, j]


@inner
def identity_minus(a, out):
    """out = I - a"""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = -a[i, j]
        out[i, i] += 1.0


@inner
def trace(a):
    """The sum of the entries on the diagonal."""
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i, i]
    return total


@inner
def transpose(a, out):
    """out = a^T"""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[j, i] = a[i, j]


@inner
def add_twice_symmetric(a, out):
    """out += a + a^T, made exactly symmetric"""
    for i in range(out.shape[0]):
        for j in range(i + 1):
            x = 0.5 * (out[i, j] + out[j, i]) + a[i, j] + a[j, i]
            out[i, j] = x
            out[j, i] = x
