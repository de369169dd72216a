"""Linear systems by Gaussian elimination with row exchanges."""

import numpy as np

from minidyn.compiler import jit


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
def solve_one(a, b):
    """`solve` for one right side b (n,)."""
    order = np.empty(b.shape[0], np.int64)
    if not factorize(a, order):
        return False
    back_solve(a, order, b)
    return True


@jit
def solve(a, b):
    """Overwrite b (n, m) by a^-1 b, and a by its factors; False if a is singular."""
    n, m = b.shape
    order = np.empty(n, np.int64)
    if not factorize(a, order):
        return False
    column = np.empty(n)
    for j in range(m):
        for i in range(n):
            column[i] = b[i, j]
        back_solve(a, order, column)
        for i in range(n):
            b[i, j] = column[i]
    return True
