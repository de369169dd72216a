"""The period-two orbit `c - d -> c + d -> c - d` of a map beyond its edge: found, classified, named.

Directions of the state that answer within a few steps take part in the orbit; the others, along which the map
drifts, are held. Write `F_e`, `F_o` for the even and odd parts of the map. The orbit at `c` has

    -F_o(c*, d) = d        fast part of [F_e(c*, d) - c*] = 0        c* - c in the fast directions

so the mid-point may move across the valley (an asymmetric valley pushes it) while it is held along it.
Source: Ma, Kunin, Wu, Ying (2022); flip bifurcations: Kuznetsov, *Elements of applied bifurcation theory* (1998), 5.4.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import said
from minidyn.common.status import Status
from minidyn.flows.edge.twostep import TwoStep
from minidyn.maps.discrete import Map
from minidyn.solvers.piecewise import FieldFailed

_TINY, _SMALL, _BARELY = 1e-7, 0.02, 1e-8


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


@dataclass
class _Split:
    """The linearized map `A`, and columns `N` orthogonal to its slow directions: what may move in the orbit.

    The slow directions are invariant, so `N^T A N` has exactly the fast eigenvalues.
    """

    A: Floats
    N: Floats
    rows: Floats


class Orbits(TwoStep):
    """Period-two orbits of a map, with directions slower than `slow` per step held."""

    def __init__(self, system: Map, slow: float = 0.1):
        super().__init__(system)
        self.slow = slow

    def split(self, z: Floats, k: float = 1.0) -> _Split:
        """Fast and slow directions of the linearized map at a point."""
        from scipy.linalg import schur

        A = self.jacobian(z, k)
        if not np.isfinite(A).all():
            why = " (an accumulator vanishes)" if self.map.rule.divides else ": they overflow"
            raise FieldFailed(Status.SINGULAR, f"the rule's slopes are not finite here{why}")
        slow = lambda re, im: bool(re > 1.0 - self.slow)  # noqa: E731 - motion downhill, along a ridge too, is held
        _, Z, count = schur(A, sort=slow)  # its first columns span the slow directions
        N = np.ascontiguousarray(Z[:, count:])
        return _Split(A, N, N.T)

    def growth(self, z: Floats, k: float = 1.0) -> Growth:
        """Eigenvalue and normal-form coefficient of the oscillation at a point of the valley."""
        s = self.split(z, k)
        values, right = np.linalg.eig(s.A)
        real = np.where(np.abs(values.imag) < 1e-9, values.real, np.inf)
        place = int(np.argmin(real))
        if not real[place] < 0.0:
            raise FieldFailed(Status.NO_ORBIT, "no direction flips sign from step to step here")
        q = right[:, place].real
        q = q / np.linalg.norm(q[: self.dim])
        back, left = np.linalg.eig(s.A.T)
        p = left[:, int(np.argmin(np.abs(back - values[place])))].real
        p = p / (p @ q)
        size = 1.0 + float(np.linalg.norm(z[: self.dim]))
        bend = self._bend(z, q, q, k, 1e-4 * size)
        middle = s.rows @ bend
        shift = s.N @ np.linalg.solve(np.eye(len(middle)) - s.rows @ s.A @ s.N, 0.5 * middle) if len(middle) else 0 * q
        h = 1e-3 * size
        cubic = (self.jacobian(z + h * q, k) @ q - 2 * (s.A @ q) + self.jacobian(z - h * q, k) @ q) / h**2
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
    def find(self, c: Floats, amplitude: Floats, k: float = 1.0, shift: Floats | None = None) -> Orbit:
        """The orbit at `c` that continues `amplitude`; of amplitude zero where the valley is stable.

        From amplitude zero it branches off where an eigenvalue lies below -1. Raises FieldFailed where there is no
        stable orbit; `instead` finds out what the map does there.
        """
        s = self.split(c, k)
        rest = self._rest(s, c, k)
        bottom = c + s.N @ rest
        values, vectors = np.linalg.eig(self.jacobian(bottom, k))
        flips = (np.abs(values.imag) < 1e-9) & (values.real < -1.0 - _BARELY)
        other = (np.abs(values) > 1.0 + _BARELY) & ~flips & (values.real <= 1.0 - self.slow)
        if other.any():
            raise FieldFailed(
                Status.UNSTABLE,
                f"the valley is unstable in another way than by a flip (eigenvalue {values[other][0]:.3g})",
            )
        size, length = 1.0 + np.linalg.norm(c[: self.dim]), np.linalg.norm(amplitude[: self.dim])
        still = Orbit(c, np.zeros(self.size), np.zeros(0, complex))
        if not flips.any() and length < _SMALL * size:
            return still
        known = [] if length < _TINY * size else [(rest if shift is None else s.N.T @ shift, amplitude)]
        seed = cache(lambda: self._seed(bottom, vectors[:, flips].real, k))  # costly, and seldom needed
        for turns in (0, 60, 400):
            for start in [*known, None][: len(known) + int(flips.any())]:
                a, d, alive = self._iterate(s, c, *(start or (rest, seed())), k, turns)
                orbit = self._newton(s, c, a, d, k) if alive else None
                if orbit is None or not orbit.stable:
                    continue
                grown = np.linalg.norm(orbit.amplitude[: self.dim])
                moved = min(np.linalg.norm(orbit.amplitude - d), np.linalg.norm(orbit.amplitude + d))
                if grown >= _TINY * size and (moved <= 0.3 * np.linalg.norm(d) or grown < _SMALL * size):
                    return orbit
            if not flips.any():
                return still
        raise FieldFailed(Status.NO_ORBIT, "there is no stable period-two orbit here")

    def _rest(self, s: _Split, c: Floats, k: float) -> Floats:
        """Where the fast part of the mid-point rests without oscillation, a shift along N; zero if that is far off."""
        a = np.zeros(s.N.shape[1])
        for _ in range(8):
            z = c + s.N @ a
            wrong = s.rows @ (self.step(z, k) - z)
            try:
                move = np.linalg.solve(s.rows @ self.jacobian(z, k) @ s.N - np.eye(len(a)), -wrong)
            except np.linalg.LinAlgError:
                break
            a = a + move
            if not np.linalg.norm(a) < 0.3 * (1.0 + np.linalg.norm(c)):
                break
            if np.linalg.norm(move) <= 1e-12 * (1.0 + np.linalg.norm(c)):
                return a
        return np.zeros_like(a)

    def _seed(self, z: Floats, directions: Floats, k: float) -> Floats:
        """A small oscillation along every unstable direction (columns), of the size that the normal form predicts."""
        directions = directions / np.linalg.norm(directions[: self.dim], axis=0)
        size = 1.0 + float(np.linalg.norm(z[: self.dim]))
        length = 1e-3 * size
        try:
            growth = self.growth(z, k)
            if growth.coefficient > 0:
                length = min(np.sqrt(max(-1.0 - growth.eigenvalue, 0.0) / growth.coefficient), 0.1 * size)
        except FieldFailed:
            pass
        weights = 1.0 / (1.0 + np.arange(directions.shape[1]))
        return np.asarray(length * (directions @ weights))

    def _iterate(
        self, s: _Split, c: Floats, a: Floats, d: Floats, k: float, turns: int, trace: list[Floats] | None = None
    ) -> tuple[Floats, Floats, bool]:
        """The map's own pairs, the slow part of the mid-point held; False where they leave every bound."""
        slow = np.eye(self.size) - s.N @ s.rows
        bound = 1e6 * (1.0 + np.abs(c).max())
        for _ in range(turns):
            midpoint = c + s.N @ a
            even, odd = self.parts(midpoint, d, k)
            a = a + s.rows @ (even - midpoint)
            d = -odd + 0.5 * slow @ (d + odd)  # along slow directions consecutive differences alternate: average
            if not (np.isfinite(d).all() and np.isfinite(a).all() and np.abs(d).max() < bound):
                return a, d, False
            if trace is not None:
                trace.append(np.concatenate([a, d]))
        return a, d, True

    def _newton(self, s: _Split, c: Floats, a: Floats, d: Floats, k: float) -> Orbit | None:
        count = len(a)
        before = np.inf
        for _ in range(25):
            midpoint = c + s.N @ a
            even, odd = self.parts(midpoint, d, k)
            wrong = np.concatenate([s.rows @ (even - midpoint), odd + d])
            plus, minus = self.jacobian(midpoint + d, k), self.jacobian(midpoint - d, k)
            if not (np.isfinite(wrong).all() and np.isfinite(plus).all() and np.isfinite(minus).all()):
                return None
            Ae, Ao = 0.5 * (plus + minus), 0.5 * (plus - minus)
            size = float(np.abs(wrong).max())
            if size <= 1e-14 * (1.0 + np.abs(c).max()) or (size <= 1e-11 * (1.0 + np.abs(c).max()) and size >= before):
                multipliers = np.linalg.eigvals((s.rows @ plus @ s.N) @ (s.rows @ minus @ s.N))
                return Orbit(midpoint, d, multipliers.astype(np.complex128))
            J = np.block([[s.rows @ (Ae - np.eye(self.size)) @ s.N, s.rows @ Ao], [Ao @ s.N, Ae + np.eye(self.size)]])
            try:
                step = np.linalg.solve(J, -wrong)
            except np.linalg.LinAlgError:
                return None
            a, d, before = a + step[:count], d + step[count:], size
        return None

    # -- what the map does where there is no stable orbit --
    def instead(self, c: Floats, amplitude: Floats, k: float, failed: FieldFailed) -> FieldFailed:
        """Where `find` failed: the map iterated with its slow directions held, and what it settles to."""
        if failed.code != Status.NO_ORBIT:
            return failed
        s = self.split(c, k)
        values, vectors = np.linalg.eig(s.A)
        flips = (np.abs(values.imag) < 1e-9) & (values.real < -1.0)
        if np.linalg.norm(amplitude) < _TINY * (1.0 + np.linalg.norm(c)) and flips.any():
            amplitude = self._seed(c, vectors[:, flips].real, k)
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
        trace: list[Floats] = []
        a, d, alive = self._iterate(s, c, np.zeros(s.N.shape[1]), amplitude, k, 4000)
        if alive:
            a, d, alive = self._iterate(s, c, a, d, k, 512, trace)
        if not alive:
            return FieldFailed(
                Status.NO_ORBIT, f"no period-two orbit: the oscillation leaves the valley (its growth across is {kind})"
            )
        period = period_of(np.array(trace))
        if period == 1:
            orbit = self._newton(s, c, a, d, k)
            if orbit is not None and orbit.multipliers.real.min(initial=0.0) < -0.9:
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
