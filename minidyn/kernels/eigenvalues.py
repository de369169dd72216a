"""Eigenvalues of general matrices, and the part of the space where they lie on one side of a line."""

import math

import numpy as np

from minidyn.kernels.elimination import solve
from minidyn.kernels.linalg import copy, inner, orthogonal_part, remove_along, squares

_ROUNDING = 2.0**-52


@inner
def balance(a):
    """Rows and columns of a scaled against each other by powers of two, a stays similar (Parlett, Reinsch 1969)."""
    n = a.shape[0]
    for _ in range(100):
        done = True
        for i in range(n):
            row, column = 0.0, 0.0
            for j in range(n):
                row += abs(a[i, j]) if j != i else 0.0
                column += abs(a[j, i]) if j != i else 0.0
            if row == 0.0 or column == 0.0 or not row + column < np.inf:
                continue
            total, factor = row + column, 1.0
            while column * factor * factor * 2.0 < row:
                factor *= 2.0
            while column * factor * factor > 2.0 * row:
                factor *= 0.5
            if column * factor + row / factor < 0.95 * total:
                done = False
                for j in range(n):
                    a[i, j] /= factor
                for j in range(n):
                    a[j, i] *= factor
        if done:
            break


@inner
def hessenberg(a):
    """a becomes similar and Hessenberg, by elimination with exchanges; what lies below holds zeros."""
    n = a.shape[0]
    for m in range(1, n - 1):
        pivot = m
        for i in range(m + 1, n):
            pivot = i if abs(a[i, m - 1]) > abs(a[pivot, m - 1]) else pivot
        if a[pivot, m - 1] == 0.0:
            continue
        for j in range(n):
            x = a[pivot, j]
            a[pivot, j] = a[m, j]
            a[m, j] = x
        for j in range(n):
            x = a[j, pivot]
            a[j, pivot] = a[j, m]
            a[j, m] = x
        for i in range(m + 1, n):
            factor = a[i, m - 1] / a[m, m - 1]
            a[i, m - 1] = 0.0
            for j in range(m, n):
                a[i, j] -= factor * a[m, j]
            for j in range(n):
                a[j, m] += factor * a[j, i]


@inner
def _double_step(a, low, high, trace, det):
    """One implicit double step (Francis 1961) on the rows and columns low .. high, with shifts of this sum, product."""
    x, y = a[low, low], a[low + 1, low]
    p = x * x + a[low, low + 1] * y - trace * x + det
    q = y * (x + a[low + 1, low + 1] - trace)
    r = y * a[low + 2, low + 1]
    for m in range(low, high):
        three = m + 2 <= high
        third = m + 2 if three else m
        if m > low:
            p, q = a[m, m - 1], a[m + 1, m - 1]
            r = a[third, m - 1] if three else 0.0
        size = abs(p) + abs(q) + abs(r)
        if size == 0.0:
            continue
        p, q, r = p / size, q / size, r / size
        length = math.copysign(math.sqrt(p * p + q * q + r * r), p)
        if m > low:
            a[m, m - 1], a[m + 1, m - 1] = -length * size, 0.0
            if three:
                a[third, m - 1] = 0.0
        weight, u, v = (p + length) / length, q / (p + length), r / (p + length)
        for j in range(m, high + 1):
            along = weight * (a[m, j] + u * a[m + 1, j] + (v * a[third, j] if three else 0.0))
            a[m, j] -= along
            a[m + 1, j] -= u * along
            if three:
                a[third, j] -= v * along
        for i in range(low, min(high, m + 3) + 1):
            along = weight * (a[i, m] + u * a[i, m + 1] + (v * a[i, third] if three else 0.0))
            a[i, m] -= along
            a[i, m + 1] -= u * along
            if three:
                a[i, third] -= v * along


@inner
def _of_two(a, high, re, im):
    """The eigenvalues of the last two rows and columns up to `high`."""
    x, y = a[high, high], a[high - 1, high - 1]
    half, product = 0.5 * (y - x), a[high, high - 1] * a[high - 1, high]
    square = half * half + product
    root = math.sqrt(abs(square))
    re[high - 1] = re[high] = x + half
    im[high - 1] = im[high] = 0.0
    if square < 0.0:
        im[high - 1], im[high] = root, -root
    else:
        far = half + math.copysign(root, half)
        re[high - 1] = x + far
        re[high] = x - product / far if far != 0.0 else x


@inner
def eigenvalues(a, re, im):
    """Real and imaginary parts of the eigenvalues of a, which is overwritten; NaN where they do not settle."""
    balance(a)
    hessenberg(a)
    n = a.shape[0]
    size = 0.0
    for i in range(n):
        re[i], im[i] = np.nan, np.nan
        for j in range(n):
            size += abs(a[i, j])
    high, turns = n - 1, 0
    while high >= 0 and turns < 60 and size < np.inf:
        low = high
        while low > 0:
            near = abs(a[low, low]) + abs(a[low - 1, low - 1])
            if abs(a[low, low - 1]) <= _ROUNDING * (near if near > 0.0 else size):
                a[low, low - 1] = 0.0
                break
            low -= 1
        if low == high:
            re[high], im[high] = a[high, high], 0.0
            high, turns = high - 1, 0
        elif low == high - 1:
            _of_two(a, high, re, im)
            high, turns = high - 2, 0
        else:
            x, y = a[high, high], a[high - 1, high - 1]
            trace, det = x + y, x * y - a[high, high - 1] * a[high - 1, high]
            turns += 1
            if turns % 10 == 0:  # a shift of no meaning, where the step goes round in circles
                off = abs(a[high, high - 1]) + abs(a[high - 1, high - 2])
                trace, det = 1.5 * off, off * off
            _double_step(a, low, high, trace, det)


@inner
def sign_of(a, work, other):
    """a becomes its matrix sign, by Newton's iteration, scaled (Higham 2008, chapter 5); False if one eigenvalue stands
    on the imaginary axis."""
    n = a.shape[0]
    scaling = True
    for _ in range(100):
        copy(a, work)
        for i in range(n):
            for j in range(n):
                other[i, j] = 1.0 if i == j else 0.0
        if not solve(work, other):
            return False
        scale = math.sqrt(math.sqrt(squares(other) / squares(a))) if scaling else 1.0
        change, total = 0.0, 0.0
        for i in range(n):
            for j in range(n):
                x = 0.5 * (scale * a[i, j] + other[i, j] / scale)
                change += (x - a[i, j]) * (x - a[i, j])
                total += x * x
                a[i, j] = x
        if not total < np.inf:
            return False
        if change <= 1e-28 * total or (not scaling and change <= 1e-18 * total):  # it converges quadratically
            return True
        scaling = scaling and change > 1e-2 * total
    return False


@inner
def rows_below(a, line, rows):
    """Orthonormal `rows` that span what a, from the left, leaves invariant with eigenvalues of real part below `line`;
    how many. `a` is overwritten."""
    n = a.shape[0]
    room = np.empty((2, n, n))
    share = 0.0
    for i in range(n):
        a[i, i] -= line
    found = sign_of(a, room[0], room[1])
    for i in range(n):
        for j in range(n):
            a[i, j] = 0.5 * ((1.0 if i == j else 0.0) - a[i, j])
        share += a[i, i]
    count = np.int64(share + 0.5) if found and share < n + 0.5 and share > -0.5 else 0
    for t in range(count):
        best, most = 0, -1.0
        for i in range(n):
            length = 0.0
            for j in range(n):
                length += a[i, j] * a[i, j]
            if length > most:
                best, most = i, length
        for j in range(n):
            rows[t, j] = a[best, j] / math.sqrt(most)
        left = math.sqrt(orthogonal_part(rows, t))
        for j in range(n):
            rows[t, j] /= left
        for i in range(n):
            remove_along(rows[t], a[i])
    return count
