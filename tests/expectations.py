"""Expectations without sampling: of a map by quadrature over its noise, of an SDE by Kolmogorov's equation.

`u_k(z) = E phi(state after k steps from z)` is a smooth function on a box, held by its values on a Chebyshev grid.
A step of the map is `u <- E u(F(z, xi))`, a matrix (Gauss-Hermite over xi, polynomial interpolation); an SDE is
`du/dk = b . grad u + A : grad grad u / 2`, a matrix too. Both are right to about ten digits where the motion keeps
inside the box, so that weak errors are seen without Monte Carlo. Literal and slow; one noise variable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.polynomial import chebyshev
from scipy.sparse.linalg import expm_multiply


class Grid:
    """Functions on a box, by their values at tensor Chebyshev points."""

    def __init__(self, box: Sequence[tuple[float, float]], sizes: Sequence[int]):
        self.box, self.sizes = np.array(box, float), list(sizes)
        axes = [self._axis(a) for a in range(len(sizes))]
        self.points = np.stack([m.ravel() for m in np.meshgrid(*axes, indexing="ij")], axis=-1)

    def _axis(self, a: int) -> np.ndarray:
        lo, hi = self.box[a]
        return lo + (hi - lo) * (1 + chebyshev.chebpts1(self.sizes[a])) / 2

    def _rows(self, a: int, x: np.ndarray) -> np.ndarray:
        """Rows that interpolate along axis a at the places x."""
        n, (lo, hi) = self.sizes[a], self.box[a]
        basis = chebyshev.chebvander(chebyshev.chebpts1(n), n - 1)
        return chebyshev.chebvander(2 * (x - lo) / (hi - lo) - 1, n - 1) @ np.linalg.inv(basis)

    def _slope(self, a: int) -> np.ndarray:
        """The derivative along axis a, at its own points."""
        n, (lo, hi) = self.sizes[a], self.box[a]
        nodes = chebyshev.chebpts1(n)
        moved = chebyshev.chebvander(nodes, n - 2) @ chebyshev.chebder(np.eye(n), axis=0)
        return moved @ np.linalg.inv(chebyshev.chebvander(nodes, n - 1)) * 2 / (hi - lo)

    def _derivative(self, *along: int) -> np.ndarray:
        """The derivative along these axes, one after the other, at all points."""
        out = np.eye(1)
        for axis, size in enumerate(self.sizes):
            out = np.kron(out, np.linalg.matrix_power(self._slope(axis), along.count(axis)) @ np.eye(size))
        return out

    def at(self, z: np.ndarray) -> np.ndarray:
        """Rows (M, points) that interpolate at the places z (M, axes)."""
        out = np.ones((len(z), 1))
        for a in range(len(self.sizes)):
            out = (out[:, :, None] * self._rows(a, z[:, a])[:, None, :]).reshape(len(z), -1)
        return out

    def step(self, move: Callable[[np.ndarray, float], np.ndarray], nodes: int) -> np.ndarray:
        """The matrix of `u <- E u(move(z, xi))`, xi ~ N(0, 1)."""
        xi, weight = np.polynomial.hermite_e.hermegauss(nodes)
        return sum(w / np.sqrt(2 * np.pi) * self.at(move(self.points, x)) for x, w in zip(xi, weight, strict=True))

    def generator(self, drift: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """The matrix of `b . grad + A : grad grad / 2`, from values (points, axes) and (points, axes, axes)."""
        out = np.zeros((len(self.points),) * 2)
        for a in range(len(self.sizes)):
            out += drift[:, a, None] * self._derivative(a)
            for b in range(len(self.sizes)):
                if np.any(covariance[:, a, b]):
                    out += 0.5 * covariance[:, a, b, None] * self._derivative(a, b)
        return out


def after(generator: np.ndarray, steps: float, values: np.ndarray) -> np.ndarray:
    """`exp(steps generator) values`."""
    return expm_multiply(steps * generator, values)
