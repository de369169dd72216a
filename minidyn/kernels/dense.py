"""Products, inverses and determinants of matrices as generated kernels call them.

A matrix lies in memory as `a[start + i*down + j*right]`, so that a transpose is one too. Sums go in the order of their
terms, each with one rounding, whatever the machine's vectors: in lanes, where every path has its own matrices,
and for one path alone the results are the same bits.
"""

import math
from functools import partial

import numpy as np

from minidyn.compiler import jit, side_by_side
from minidyn.kernels.vectormath import log

_WIDE, _HIGH = 16, 4  # columns and rows of a tile, which stays in registers
dense = partial(jit, fma=True, thorough=True)


@dense
def _tile(left, at, right, out, n):
    """Four rows times sixteen columns: `out[r, c] = sum_k left[k, r] right[k, c]`."""
    for lane in side_by_side(_WIDE):
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for k in range(n):
            x = right[k * _WIDE + lane]
            s0 += left[at + k * _HIGH] * x
            s1 += left[at + k * _HIGH + 1] * x
            s2 += left[at + k * _HIGH + 2] * x
            s3 += left[at + k * _HIGH + 3] * x
        out[lane] = s0
        out[_WIDE + lane] = s1
        out[2 * _WIDE + lane] = s2
        out[3 * _WIDE + lane] = s3


@dense
def product(a, a0, a_down, a_right, b, b0, b_down, b_right, out, m, p, n):
    """`out (m, p) = a (m, n) b (n, p)`, tile by tile, from copies in the order in which they are read."""
    blocks = (m + _HIGH - 1) // _HIGH
    left = np.empty(blocks * _HIGH * n)
    right = np.empty(_WIDE * n)
    part = np.empty(_HIGH * _WIDE)
    for r in range(blocks):
        for e in range(_HIGH):
            row = a0 + min(r * _HIGH + e, m - 1) * a_down
            for k in range(n):
                left[(r * n + k) * _HIGH + e] = a[row + k * a_right]
    for c in range((p + _WIDE - 1) // _WIDE):
        first = c * _WIDE
        width = min(_WIDE, p - first)
        for k in range(n):
            start = b0 + k * b_down + first * b_right
            for e in range(width):
                right[k * _WIDE + e] = b[start + e * b_right]
            for e in range(width, _WIDE):
                right[k * _WIDE + e] = 0.0
        for r in range(blocks):
            _tile(left, r * _HIGH * n, right, part, n)
            for e in range(min(_HIGH, m - r * _HIGH)):
                for j in range(width):
                    out[(r * _HIGH + e) * p + first + j] = part[e * _WIDE + j]


@dense
def triangle(w, n, width):
    """Elimination of rows of `width` numbers, of which the first n make a square; the sign of its determinant, or 0.

    The largest pivot comes up by exchanges that are choices, not branches, so that lanes can take them side by side.
    """
    sign = 1.0
    for k in range(n):
        top = k * width
        for i in range(k + 1, n):
            row = i * width
            larger = abs(w[row + k]) > abs(w[top + k])
            for j in range(k, width):
                x = w[top + j]
                y = w[row + j]
                w[top + j] = y if larger else x
                w[row + j] = x if larger else y
            sign = -sign if larger else sign
        pivot = w[top + k]
        sign = sign if pivot > 0.0 else (-sign if pivot < 0.0 else pivot)
        for i in range(k + 1, n):
            row = i * width
            factor = w[row + k] / pivot
            factor = 0.0 if pivot == 0.0 else factor
            for j in range(k, width):
                w[row + j] -= factor * w[top + j]
    return sign


@dense
def invert(a, a0, a_down, a_right, out, out0, out_down, out_right, n):
    """`out = a^-1`; NaN or infinite where a is singular."""
    width = 2 * n
    w = np.empty(n * width)
    for i in range(n):
        for j in range(n):
            w[i * width + j] = a[a0 + i * a_down + j * a_right]
            w[i * width + n + j] = 1.0 if i == j else 0.0
    triangle(w, n, width)
    for k in range(n - 1, -1, -1):
        top = k * width
        pivot = w[top + k]
        for j in range(n, width):
            w[top + j] = w[top + j] / pivot
        for i in range(k):
            row = i * width
            factor = w[row + k]
            for j in range(n, width):
                w[row + j] -= factor * w[top + j]
    for i in range(n):
        for j in range(n):
            out[out0 + i * out_down + j * out_right] = w[i * width + n + j]


@dense
def _reduced(a, a0, a_down, a_right, w, n):
    """A copy of a matrix, eliminated; the sign of its determinant."""
    for i in range(n):
        for j in range(n):
            w[i * n + j] = a[a0 + i * a_down + j * a_right]
    return triangle(w, n, n)


@dense
def determinant(a, a0, a_down, a_right, n):
    """`det(a)`"""
    w = np.empty(n * n)
    out = _reduced(a, a0, a_down, a_right, w, n)
    for k in range(n):
        out = out * abs(w[k * n + k])
    return out


@dense
def log_determinant(a, a0, a_down, a_right, n):
    """`log(det(a))`, however large or small; NaN where the determinant is negative."""
    w = np.empty(n * n)
    sign = _reduced(a, a0, a_down, a_right, w, n)
    out = 0.0
    for k in range(n):
        out += log(abs(w[k * n + k]))
    return math.nan if sign < 0.0 else out
