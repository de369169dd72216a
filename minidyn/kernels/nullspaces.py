"""Null spaces: frames of them, projectors onto them, and inverses beside them; as `linalg`."""

import numpy as np

from minidyn.kernels.elimination import solve
from minidyn.kernels.linalg import inner, multiply, transpose


@inner
def null_space(a, border, work, rhs, out):
    """out (n, d): the null space of a, from a frame that it projects onto, d columns of `border` (m, ...), m <= n.

    Solves [[a, B], [B^T, 0]] [x; y] = [0; I] with B the frame padded by zeros (Govaerts 2000, chapter 3), in
    `work` (n + d, n + d) and `rhs` (n + d, d).
    """
    n, d = out.shape
    for i in range(n + d):
        for j in range(n + d):
            work[i, j] = a[i, j] if (i < n and j < n) else 0.0
        for t in range(d):
            rhs[i, t] = 0.0
    for t in range(d):
        rhs[n + t, t] = 1.0
        for i in range(border.shape[0]):
            work[i, n + t] = border[i, t]
            work[n + t, i] = border[i, t]
    if not solve(work, rhs):
        return False
    for i in range(n):
        for t in range(d):
            out[i, t] = rhs[i, t]
    return True


@inner
def scales(a, dim, rows, columns):
    """Numbers to multiply rows, then columns, of a by that make the largest entry 1 in each block of `dim` rows or
    columns; 1 for those that are zero. Within a block nothing is turned: what is nearly zero there stays so."""
    for block in range(a.shape[0] // dim):
        largest = 0.0
        for i in range(block * dim, (block + 1) * dim):
            for j in range(a.shape[1]):
                largest = max(largest, abs(a[i, j]))
        for i in range(block * dim, (block + 1) * dim):
            rows[i] = 1.0 / largest if largest > 0.0 else 1.0
    for block in range(a.shape[1] // dim):
        largest = 0.0
        for j in range(block * dim, (block + 1) * dim):
            for i in range(a.shape[0]):
                largest = max(largest, rows[i] * abs(a[i, j]))
        for j in range(block * dim, (block + 1) * dim):
            columns[j] = 1.0 / largest if largest > 0.0 else 1.0


@inner
def spectral_projector(gap, border, p, right, left):
    """p = right left: the projector on the null space of `gap` along its range.

    `right` (n, d) and `left` (d, n) are its null vectors with left right = I; False if it is defective. The first d
    columns of `border` span about the same space. Rows and columns of a state, as many as border has rows, are scaled
    together, so that a small learning rate, which makes some of them small, costs no digits.
    """
    n, d = right.shape
    room = np.empty((2, n, n))
    scaled, turned = room[0], room[1]
    sizes = np.empty((2, n))
    rows, columns = sizes[0], sizes[1]
    work = np.empty((n + d, n + d))
    rhs = np.empty((n + d, d))
    back = np.empty((n, d))
    gram = np.empty((d, d))
    scales(gap, border.shape[0], rows, columns)
    for i in range(n):
        for j in range(n):
            scaled[i, j] = rows[i] * gap[i, j] * columns[j]
    transpose(scaled, turned)
    if not (null_space(scaled, border, work, rhs, right) and null_space(turned, border, work, rhs, back)):
        return False
    for i in range(n):
        for t in range(d):
            right[i, t] *= columns[i]
            left[t, i] = back[i, t] * rows[i]
    multiply(left, right, gram)
    if not solve(gram, left):
        return False
    multiply(right, left, p)
    return True


@inner
def group_inverse(gap, dim, right, left, out):
    """out: the inverse of `gap` on its range, zero on its null space; `right`, `left` as in `spectral_projector`,
    states in blocks of `dim`.

    `(gap + right s left)^-1 - right s^-1 left`, with s of gap's own size."""
    n, d = right.shape
    work = np.empty((n, n))
    sizes = np.empty((2, n))
    rows, columns = sizes[0], sizes[1]
    scales(gap, dim, rows, columns)
    size = np.empty(d)
    for t in range(d):
        tall, wide = 0.0, 0.0
        for i in range(n):
            tall = max(tall, rows[i] * abs(right[i, t]))
            wide = max(wide, columns[i] * abs(left[t, i]))
        size[t] = 1.0 / (tall * wide)
    for i in range(n):
        for j in range(n):
            total = gap[i, j]
            for t in range(d):
                total += right[i, t] * size[t] * left[t, j]
            work[i, j] = rows[i] * total * columns[j]
            out[i, j] = rows[i] if i == j else 0.0
    if not solve(work, out):
        return False
    for i in range(n):
        for j in range(n):
            total = columns[i] * out[i, j]
            for t in range(d):
                total -= right[i, t] * left[t, j] / size[t]
            out[i, j] = total
    return True
