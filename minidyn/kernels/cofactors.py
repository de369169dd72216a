"""Cofactors of a matrix, and their derivatives along other matrices, as generated kernels call them.

    cofactors(A, E1, ..., Ek)[i, j] = derivative of det(A) along E1, ..., Ek and the unit matrix of the place (i, j)

They are polynomials in the entries, so they are there where A is singular. Complete pivoting gives P A Q = L D U, with
triangles L and U of unit diagonal; M -> L^-1 P M Q U^-1 changes no determinant but in sign, and for the diagonal matrix
D of the pivots d

    derivative along E1, ..., Ek = sum over distinct s1, ..., sk of  det(E_i[s_i, s_j]) prod(d_i, i not one of them)

where nothing is divided by a small pivot. It costs n^3 + n^(k + 1). As in `dense`, exchanges are choices, not branches.

Source: Golub, Van Loan, *Matrix Computations* (4th ed., 2013), section 3.4.8, for complete pivoting.
"""

import numpy as np

from minidyn.kernels.dense import dense, triangle


@dense
def placed(a, a0, a_down, a_right, out, at, n):
    """Copy a matrix to where the `at`-th of several (n, n) lies, row by row."""
    for i in range(n):
        for j in range(n):
            out[(at * n + i) * n + j] = a[a0 + i * a_down + j * a_right]


@dense
def cofactors(w, k, out, out0, out_down, out_right, n):
    """The derivatives of a determinant along k matrices and each entry; w (1 + k, n, n) holds A, E1, ..., Ek and is
    overwritten."""
    rows = np.empty(n)
    columns = np.empty(n)
    c = np.empty(n * n)
    sign = _factorize(w, rows, columns, n)
    for m in range(1, k + 1):
        for i in range(n):
            _exchange(w, m * n * n, i, rows[i], columns[i], n)
        _transform(w, m * n * n, n)
    _of_pivots(w, k, c, n)
    for i in range(n - 1, -1, -1):
        for q in range(i + 1, n):
            for j in range(n):
                c[i * n + j] -= w[q * n + i] * c[q * n + j]
        for q in range(i + 1, n):
            for j in range(n):
                c[j * n + i] -= w[i * n + q] * c[j * n + q]
    for i in range(n - 1, -1, -1):
        _exchange(c, 0, i, rows[i], columns[i], n)
    for i in range(n):
        for j in range(n):
            out[out0 + i * out_down + j * out_right] = sign * c[i * n + j]


@dense
def _factorize(w, rows, columns, n):
    """The first of the matrices becomes L below the diagonal, D on it, U above it; the sign of the exchanges, which
    `rows` and `columns` tell."""
    sign = 1.0
    for k in range(n):
        best = abs(w[k * n + k])
        row = float(k)
        column = float(k)
        for i in range(k, n):
            for j in range(k, n):
                size = abs(w[i * n + j])
                larger = size > best
                best = size if larger else best
                row = float(i) if larger else row
                column = float(j) if larger else column
        rows[k] = row
        columns[k] = column
        sign = -sign if row > float(k) else sign
        sign = -sign if column > float(k) else sign
        _exchange(w, 0, k, row, column, n)
        pivot = w[k * n + k]
        for i in range(k + 1, n):
            factor = w[i * n + k] / pivot
            factor = 0.0 if pivot == 0.0 else factor
            w[i * n + k] = factor
            for j in range(k + 1, n):
                w[i * n + j] -= factor * w[k * n + j]
        for j in range(k + 1, n):
            factor = w[k * n + j] / pivot
            w[k * n + j] = 0.0 if pivot == 0.0 else factor
    return sign


@dense
def _exchange(x, at, k, row, column, n):
    """The k-th row of a matrix for another one, and the k-th column for another one."""
    for i in range(k + 1, n):
        hit = row == float(i)
        for j in range(n):
            upper = x[at + k * n + j]
            lower = x[at + i * n + j]
            x[at + k * n + j] = lower if hit else upper
            x[at + i * n + j] = upper if hit else lower
    for j in range(k + 1, n):
        hit = column == float(j)
        for i in range(n):
            left = x[at + i * n + k]
            right = x[at + i * n + j]
            x[at + i * n + k] = right if hit else left
            x[at + i * n + j] = left if hit else right


@dense
def _transform(w, at, n):
    """L^-1 M U^-1 in place of the matrix M that lies from `at` on."""
    for k in range(n):
        for i in range(k + 1, n):
            for j in range(n):
                w[at + i * n + j] -= w[i * n + k] * w[at + k * n + j]
        for j in range(k + 1, n):
            for i in range(n):
                w[at + i * n + j] -= w[k * n + j] * w[at + i * n + k]


@dense
def _of_pivots(w, k, c, n):
    """The derivatives c (n, n) for the diagonal matrix of the pivots."""
    weight = np.empty(n)
    minor = np.empty(k * k + 1)
    for q in range(n * n):
        c[q] = 0.0
    turns = 1
    for _ in range(k):
        turns = turns * n
    for t in range(turns):
        if _distinct(t, k, n):
            _weigh(w, t, k, weight, n)
            whole = _minor(w, t, k, minor, k, 0, n)
            for a in range(n):
                if not _among(t, k, a, n):
                    c[a * n + a] += weight[a] * whole
                    for m in range(k):
                        c[a * n + _digit(t, m, n)] -= weight[a] * _minor(w, t, k, minor, m, a, n)


@dense
def _weigh(w, t, k, weight, n):
    """For each place the product of the pivots of all other places but s."""
    left = 1.0
    for a in range(n):
        weight[a] = left
        left = left * (1.0 if _among(t, k, a, n) else w[a * n + a])
    right = 1.0
    for a in range(n - 1, -1, -1):
        weight[a] = weight[a] * right
        right = right * (1.0 if _among(t, k, a, n) else w[a * n + a])


@dense
def _minor(w, t, k, minor, m, a, n):
    """det(E_i[s_i, s_j]), with a in place of the m-th column (none of them if m = k)."""
    for i in range(k):
        row = ((1 + i) * n + _digit(t, i, n)) * n
        for j in range(k):
            minor[i * k + j] = w[row + (a if j == m else _digit(t, j, n))]
    out = 1.0
    if k == 1:
        out = minor[0]
    elif k == 2:
        out = minor[0] * minor[3] - minor[1] * minor[2]
    elif k > 2:
        out = triangle(minor, k, k)
        for i in range(k):
            out = out * abs(minor[i * k + i])
    return out


@dense
def _digit(t, m, n):
    """s_m, the m-th digit of t in base n."""
    rest = t
    for _ in range(m):
        rest = rest // n
    return rest % n


@dense
def _among(t, k, a, n):
    """Whether a is one of s."""
    found = False
    for m in range(k):
        found = found or _digit(t, m, n) == a
    return found


@dense
def _distinct(t, k, n):
    """Whether no two of s are equal."""
    apart = True
    for m in range(k):
        apart = apart and not _among(t, m, _digit(t, m, n), n)
    return apart
