"""Cycles of a map without noise: the one that a run settles on, its multipliers, and where it doubles its period.

A cycle of n steps is a solution of `F^n(z) = z`, found by Newton's method on the exact tangent map; it is minimal where
no fewer steps lead back. Its multipliers are the eigenvalues of `dF^n/dz`: it attracts where all lie inside the unit
circle, and doubles its period where one leaves through -1.
Source: Kuznetsov, *Elements of applied bifurcation theory* (2004), chapters 4 and 10.
"""

from dataclasses import dataclass

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.compare.tangent import Tangent

LONGEST = 64  # the longest period that is looked for
SETTLED = 1e-9  # what returns so near, relative to theta, has settled
_APART = 1e-5  # points of one cycle are farther apart than this, or Newton's method has to say what it is
_NEAR = 0.1  # a return within this part of the orbit's extent may be a cycle
_SLOW, _CLOSE = 100.0, 0.05  # the end of a slow approach lies within so many extents, and this part of theta
_TURNS = 40  # of Newton's method
_NEUTRAL = 1e-9  # an eigenvalue is no farther outside the unit circle than rounding, where it is not near 1
_ALONG = 1e-5  # nor near 1, as along a manifold of minima
_SMALL = 1e-11  # singular values of dF^n/dz - I below this part of the largest lie along a manifold of cycles


@dataclass(frozen=True)
class Cycle:
    """Whole states (period, components) of a cycle, and its multipliers (components,), the largest first."""

    points: Floats
    multipliers: NDArray[np.complex128]
    jacobian: Floats

    @property
    def period(self) -> int:
        """How many steps lead back."""
        return len(self.points)

    @property
    def attracts(self) -> bool:
        """Whether no multiplier lies outside the unit circle."""
        near_one = np.abs(self.multipliers - 1.0) < 0.1
        return bool((np.abs(self.multipliers) < 1.0 + np.where(near_one, _ALONG, _NEUTRAL)).all())

    @property
    def flip(self) -> float:
        """The least real multiplier, 1 where there is none: the period doubles where it passes -1."""
        real = self.multipliers.real[np.abs(self.multipliers.imag) <= 1e-9 * (1.0 + np.abs(self.multipliers))]
        return float(real.min(initial=1.0))

    @property
    def lowest(self) -> float:
        """The least real part of all multipliers, which moves without jumps."""
        return float(self.multipliers.real.min())


def cycle_from(tangent: Tangent, z: Floats, period: int, hp: Floats, c: Floats) -> Cycle | None:
    """The cycle of at most `period` steps near z (components,); None where Newton's method finds none.

    Where cycles form a manifold, as minima do, it is one near z: steps have the least norm.
    """
    best = np.inf
    for _ in range(_TURNS):
        after, jacobian, points = tangent.around(z, period, hp, c)
        if not (np.isfinite(after).all() and np.isfinite(jacobian).all()):
            return None
        step = np.linalg.lstsq(jacobian - np.eye(len(z)), z - after, rcond=_SMALL)[0]
        length, size = float(np.abs(step).max()), float(np.abs(points).max()) + 1e-300
        if length <= 1e-11 * size and length >= 0.5 * best:  # rounding is all that is left
            return _minimal(tangent, points, jacobian, hp, c)
        best = min(best, length)
        z = z + step
    return _minimal(tangent, points, jacobian, hp, c) if length <= SETTLED * size else None


def _minimal(tangent: Tangent, points: Floats, jacobian: Floats, hp: Floats, c: Floats) -> Cycle:
    """The cycle that these points run through, perhaps several times."""
    period, size = len(points), np.abs(points).max() + 1e-300
    for n in range(1, period):
        if period % n == 0 and np.abs(points[n:] - points[:-n]).max() <= 1e-7 * size:
            _, jacobian, points = tangent.around(points[0], n, hp, c)
            break
    values = np.linalg.eigvals(jacobian).astype(complex)
    return Cycle(points, values[np.argsort(-np.abs(values), kind="stable")], jacobian)


def periods_of(theta: Floats, longest: int = LONGEST) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """By path, of the last points theta (paths, T + 1, D): the least p after which they return, 0 where none up to
    `longest` does, and whether that is certain: they return to rounding and are far apart in between."""
    paths, count = theta.shape[:2]
    size = 1.0 + np.abs(theta).max(axis=(1, 2))
    period, nearest = np.zeros(paths, np.int64), np.full(paths, np.inf)
    certain = np.zeros(paths, bool)
    for p in range(1, min(longest, count // 2) + 1):
        away = np.abs(theta[:, -p:] - theta[:, -2 * p : -p]).max(axis=(1, 2)) / size
        new = (period == 0) & (away <= SETTLED)
        period[new], certain[new] = p, nearest[new] > _APART
        nearest = np.minimum(nearest, away)
    return period, certain


def attractor(
    tangent: Tangent, z: Floats, theta: Floats, hp: Floats, c: Floats, longest: int = LONGEST
) -> Cycle | None:
    """The attracting cycle on which a run that has not settled is ending, or None.

    z : the last state.  theta (T + 1, D) : the last points.  Beside a doubling a run settles slowly, on the old cycle
        or on the new one: Newton's method goes to its end, and the multipliers say which.
    """
    extent, size = float(np.ptp(theta, axis=0).max()), 1.0 + float(np.abs(theta).max())
    for p in range(1, min(longest, len(theta) // 2) + 1):
        if np.abs(theta[-p:] - theta[-2 * p : -p]).max() > _NEAR * extent + SETTLED * size:
            continue
        tries = [(z, p)]
        if p % 2 == 0:  # what alternates ever less lies about a cycle of half the period
            tries = [(0.5 * (z + tangent.around(z, p // 2, hp, c)[0]), p // 2), *tries]
        for start, period in tries:
            found = cycle_from(tangent, start, period, hp, c)
            if found is None or not found.attracts:
                continue
            away = float(np.abs(found.points[0] - z)[: theta.shape[1]].max())
            if away <= max(extent, SETTLED * size, min(_SLOW * extent, _CLOSE * size)):
                return found
    return None
