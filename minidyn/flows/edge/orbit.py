"""The period-two orbit `c - d -> c + d -> c - d` of a map beyond its edge: found, classified, named.

Directions of the state that answer within a few steps take part in the orbit; the others, along which the map
drifts, are held. Write `F_e`, `F_o` for the even and odd parts of the map. The orbit at `c` has

    -F_o(c*, d) = d        fast part of [F_e(c*, d) - c*] = 0        c* - c in the fast directions

so the mid-point may move across the valley (an asymmetric valley pushes it) while it is held along it.
Source: Ma, Kunin, Wu, Ying (2022); flip bifurcations: Kuznetsov, *Elements of applied bifurcation theory* (1998), 5.4.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import said
from minidyn.common.status import Status
from minidyn.flows.edge import heldsteps, pairs
from minidyn.flows.edge.twostep import TwoStep
from minidyn.kernels.eigenvalues import rows_below
from minidyn.kernels.pointers import pointer
from minidyn.maps.discrete import Map


class FieldFailed(Exception):
    """A field does not exist at a point; `code` is a status."""

    def __init__(self, code: int, reason: str = ""):
        super().__init__(reason or f"status {code}")
        self.code, self.reason = code, reason


@dataclass(frozen=True, eq=False)
class Growth(ByValue):
    """How the loss grows across the valley at the edge, as the oscillation feels it.

    eigenvalue : the most negative eigenvalue of `dF/dz`; below -1 the oscillation grows.
    coefficient : `a` in `s' = eigenvalue s + a s^3`, the slaved answer of all fast directions included.
    alone : the same along the unstable direction alone; gradient descent: `lr^2 f'''^2/4 - lr f''''/6`, whose sign
        is that of `3 f'''^2 - f'' f''''`.
    kind : "subquadratic" (a stable small orbit exists beyond the edge), "superquadratic" (there is none), or
        "quadratic" (only motion along the valley, which is held here, can stop the oscillation).
    direction : the unstable eigenvector, of length one in theta.
    """

    eigenvalue: float
    coefficient: float
    alone: float
    direction: Floats

    @property
    def kind(self) -> str:
        """The sign of `coefficient` in words, as in the class; below `1e-6 (1 + |alone|)` it counts as zero."""
        if abs(self.coefficient) <= 1e-6 * (1.0 + abs(self.alone)):
            return "quadratic"
        return "subquadratic" if self.coefficient > 0 else "superquadratic"


@dataclass(frozen=True, eq=False)
class Orbit(ByValue):
    """A period-two orbit: its mid-point `c*`, half-difference `d`, and the multipliers of two steps around it.

    They are those of the fast directions, the slow ones held; the orbit is stable while all lie inside the unit circle.
    """

    midpoint: Floats
    amplitude: Floats
    multipliers: NDArray[np.complex128]

    @property
    def stable(self) -> bool:
        """Whether the map returns to the orbit when pushed off it across the valley."""
        return bool((np.abs(self.multipliers) <= 1.0 + 1e-6).all())


class Orbits(TwoStep):
    """Period-two orbits of a map, with directions slower than `slow` per step held."""

    def __init__(self, system: Map, slow: float = 0.1):
        super().__init__(system)
        self.slow = slow

    def _system(self, k: float) -> tuple[Any, ...]:
        """The map at step k, as compiled functions take it (see `pairs`)."""
        names = "grad", "hessian", "rule_step", "rule_slopes"
        kernels = tuple(pointer(self.kernels if "rule" in n else self.map.loss.kernels, n) for n in names)
        loss = self.map.loss
        return kernels, (float(k), self._numbers(k), loss.c, loss.rows, self.dim)

    def split(self, z: Floats, k: float = 1.0) -> tuple[Floats, Floats]:
        """The linearized map `A` at a point, and orthonormal rows orthogonal to its slow directions.

        Motion downhill, along a ridge too, is slow. Slow directions are invariant, so `R A R^T` has the fast
        eigenvalues exactly.
        """
        A = self.jacobian(z, k)
        if not np.isfinite(A).all():
            raise self.failed(Status.SINGULAR, z, k)
        R = np.empty_like(A)
        return A, R[: rows_below(A.copy(), 1.0 - self.slow, R)]

    def failed(self, code: int, z: Floats, k: float) -> FieldFailed:
        """What to raise where there is no orbit at z."""
        if code == Status.SINGULAR:
            why = " (an accumulator vanishes)" if self.map.rule.divides else ": they overflow"
            return FieldFailed(code, f"the rule's slopes are not finite here{why}")
        if code != Status.UNSTABLE:
            return FieldFailed(code, "there is no stable period-two orbit here")
        values = np.linalg.eigvals(self.jacobian(z, k))
        fast = values[values.real <= 1.0 - self.slow]
        value = max(fast, key=lambda v: (abs(v.imag) > 1e-9, abs(v)))
        return FieldFailed(code, f"the valley is unstable in another way than by a flip (eigenvalue {value:.3g})")

    def growth(self, z: Floats, k: float = 1.0) -> Growth:
        """Eigenvalue and normal-form coefficient of the oscillation at a point of the valley."""
        A, R = self.split(z, k)
        values, right = np.linalg.eig(A)
        real = np.where(np.abs(values.imag) < 1e-9, values.real, np.inf)
        place = int(np.argmin(real))
        if not real[place] < 0.0:
            raise FieldFailed(Status.NO_ORBIT, "no direction flips sign from step to step here")
        q = right[:, place].real
        q = q / np.linalg.norm(q[: self.dim])
        back, left = np.linalg.eig(A.T)
        p = left[:, int(np.argmin(np.abs(back - values[place])))].real
        p = p / (p @ q)
        size = 1.0 + float(np.linalg.norm(z[: self.dim]))
        bend = self._bend(z, q, q, k, 1e-4 * size)
        middle = R @ bend
        shift = R.T @ np.linalg.solve(np.eye(len(middle)) - R @ A @ R.T, 0.5 * middle) if len(middle) else 0 * q
        h = 1e-3 * size
        cubic = (self.jacobian(z + h * q, k) @ q - 2 * (A @ q) + self.jacobian(z - h * q, k) @ q) / h**2
        cross = self._bend(z, q, shift, k, 1e-4 * size)
        straight = float(p @ bend) / (2 * (1.0 - real[place]))
        alone = float(p @ cubic) / 6 + straight * float(p @ bend)
        return Growth(float(real[place]), float(p @ cubic) / 6 + float(p @ cross), alone, q)

    def _bend(self, z: Floats, q: Floats, r: Floats, k: float, h: float) -> Floats:
        """`F2[q, r]`, by differences of the exact Jacobian, extrapolated."""

        def once(h: float) -> Floats:
            return np.asarray((self.jacobian(z + h * q, k) - self.jacobian(z - h * q, k)) @ r / (2 * h))

        return (4 * once(h) - once(2 * h)) / 3

    # -- the orbit --
    def find(self, c: Floats, amplitude: Floats, k: float = 1.0) -> Orbit:
        """The orbit at `c` that continues `amplitude`; of amplitude zero where the valley is stable.

        From amplitude zero it branches off where an eigenvalue lies below -1. Raises FieldFailed where there is no
        stable orbit; `instead` finds out what the map does there.
        """
        c, middle, d = np.ascontiguousarray(c, float), np.empty(self.size), np.empty(self.size)
        given = np.ascontiguousarray(amplitude, float)
        code = pairs.find(self._system(k), self.slow, c, given, np.zeros(self.size), 0.0, middle, d)
        if code:
            raise self.failed(code, c, k)
        return Orbit(middle, d, self._multipliers(c, middle, d, k) if d.any() else np.zeros(0, complex))

    def _multipliers(self, c: Floats, middle: Floats, d: Floats, k: float) -> NDArray[np.complex128]:
        R = self.split(c, k)[1]
        plus, minus = self.jacobian(middle + d, k), self.jacobian(middle - d, k)
        return np.linalg.eigvals((R @ plus @ R.T) @ (R @ minus @ R.T)).astype(np.complex128)

    # -- what the map does where there is no stable orbit --
    def instead(self, c: Floats, amplitude: Floats, k: float, failed: FieldFailed) -> FieldFailed:
        """Where `find` failed: the map iterated with its slow directions held, and what it settles to."""
        if failed.code != Status.NO_ORBIT:
            return failed
        A, R = self.split(c, k)
        values = np.linalg.eigvals(A)
        flips = np.where((np.abs(values.imag) < 1e-9) & (values.real < -1.0), values.real, 0.0)
        system, d, a = self._system(k), np.array(amplitude, float), np.zeros(len(R))
        if np.linalg.norm(amplitude) < pairs.TINY * (1.0 + np.linalg.norm(c)) and flips.any():
            pairs.seed(system, R, c, A, flips, d, len(R))
        try:
            kind = self.growth(c, k).kind
        except FieldFailed:
            kind = "not of a kind that a normal form tells"
        if kind == "quadratic":
            return FieldFailed(
                Status.NO_ORBIT,
                "no period-two orbit: the loss is quadratic across the valley, so only motion along it can stop the "
                f"oscillation, and it is held still here; try rod or central flow{said(', or a smaller slow=')}",
            )
        alive, trace = heldsteps.iterate(system, R, c, a, d, 4000), []
        for _ in range(512 if alive else 0):
            alive = alive and heldsteps.iterate(system, R, c, a, d, 1)
            trace.append(np.concatenate([a, d]))
        if not alive:
            return FieldFailed(
                Status.NO_ORBIT, f"no period-two orbit: the oscillation leaves the valley (its growth across is {kind})"
            )
        period = period_of(np.array(trace))
        if period == 1:
            found = pairs.newton(system, R, c, a, d, np.empty_like(A), np.empty_like(A))
            if found and self._multipliers(c, c + a @ R, d, k).real.min(initial=0.0) < -0.9:
                return FieldFailed(
                    Status.PERIOD_FOUR, "the period-two orbit doubles into a period-four one just beyond here"
                )
            return FieldFailed(
                Status.NO_ORBIT, "the period-two orbit ends; the map settles on another one, not continued to"
            )
        if period:
            length = f"a period-{'four' if period == 4 else period} orbit"
            return FieldFailed(Status.PERIOD_FOUR, f"the period-two orbit is unstable: the map runs on {length}")
        return FieldFailed(Status.CHAOTIC, "the period-two orbit is unstable: the map is chaotic (no period up to 64)")


def period_of(trace: Floats, longest: int = 64) -> int:
    """The period of a sequence (steps, numbers) that has settled; 0 if it has none up to `longest`.

    >>> period_of(np.array([[0.0], [1.0]] * 40))
    2
    """
    tail = trace[-2 * longest :]
    size = np.abs(tail).max() + 1e-300
    spread = np.abs(tail - tail.mean(axis=0)).max()
    if spread <= 1e-7 * size:
        return 1
    for period in range(1, longest + 1):
        if np.abs(tail[period:] - tail[:-period]).max() <= 1e-5 * spread:
            return period
    return 0
