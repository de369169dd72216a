"""The factor `f` of a step's covariance `C = f f^T`: what the noise in the gradient, and its square, move.

Row `a D + i` of f is output a of coordinate i; `gain` and `curve`, (D, outputs), are the step's answers `f_g`, `f_gg`.
"""

import numpy as np

from minidyn.kernels.linalg import cholesky_semidefinite, inner


@inner
def _answer(row, gain, i, dim, first, f):
    """Columns of f from `first` on: how the outputs of coordinate i answer by `gain` to a row of the noise's factor."""
    for a in range(gain.shape[0]):
        for r in range(row.shape[0]):
            f[a * dim + i, first + r] = gain[a] * row[r]


@inner
def add_gaussian(sigma, noise_factor, here, drawn, squared, gain, curve, f):
    """Gaussian noise, its columns those of the map's normals where it is `drawn`; its square where that is felt."""
    theta, c, d, nz = here
    couples, normals = drawn
    squares, squared_from = squared
    dim = theta.shape[0]
    S = np.empty((dim, dim))
    root = np.empty((dim, dim))
    if squares or not couples:
        sigma(theta, c, d, nz, S)
    if couples:
        flat = np.empty(dim * normals)
        noise_factor(theta, c, d, nz, flat)
        for i in range(dim):
            _answer(flat[i * normals : (i + 1) * normals], gain[i], i, dim, 0, f)
    else:
        cholesky_semidefinite(S, root)
        for i in range(dim):
            _answer(root[i], gain[i], i, dim, 0, f)
    if squares:
        for i in range(dim):
            for j in range(dim):
                S[i, j] = 0.5 * S[i, j] * S[i, j]
        cholesky_semidefinite(S, root)
        for i in range(dim):
            _answer(root[i], curve[i], i, dim, squared_from, f)


@inner
def add_skewed(sigma, here, moments, gain, curve, squared_from, f):
    """Noise and its square drawn together, with the third and fourth `moments` of the noise."""
    theta, c, d, nz = here
    third, fourth = moments
    dim = theta.shape[0]
    S = np.empty((dim, dim))
    both = np.empty((2 * dim, 2 * dim))
    root = np.empty((2 * dim, 2 * dim))
    sigma(theta, c, d, nz, S)
    for i in range(dim):
        for j in range(dim):
            both[i, j] = S[i, j]
            both[i, dim + j] = third[i, j]
            both[dim + j, i] = third[i, j]
            both[dim + i, dim + j] = fourth[i, j]
    cholesky_semidefinite(both, root)
    for i in range(dim):
        for a in range(gain.shape[1]):
            for r in range(2 * dim):
                column = r if r < dim else squared_from + r - dim
                f[a * dim + i, column] = gain[i, a] * root[i, r] + 0.5 * curve[i, a] * root[dim + i, r]
