"""Where a cycle of a map doubles its period, exactly, and how quickly the next doublings follow.

A cycle of n steps is followed over the parameter mu. It doubles where its least real multiplier is -1, which a root
finder solves for; beyond, the cycle of 2n steps begins along that multiplier's eigenvector. The ratios

    delta_n = (mu_n - mu_{n-1}) / (mu_{n+1} - mu_n)

tend to 4.669201609... for maps whose fold is quadratic.
Source: Feigenbaum (1978); Kuznetsov, *Elements of applied bifurcation theory* (2004), section 4.5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, SolverError
from minidyn.common.intake import numbers, shown, whole
from minidyn.common.reports import Report, Reported, Table, digits
from minidyn.compare.cycles import LONGEST, Cycle, attractor, cycle_from
from minidyn.compare.readings import one_start
from minidyn.compare.tangent import LATE, Tangent, autonomous, varied
from minidyn.maps.discrete import Map

DELTA = 4.669201609102990  # Feigenbaum's constant
_STRIDES = 64  # of the interval, the first stride; then the multiplier says how long one is
_SWING = 0.5  # how far the multiplier may move in a stride
_SHORTEST = 1e-13  # stride, relative to the parameter
_BEYOND = 0.1  # how far beyond -1 the multiplier is where the doubled cycle is looked for
_SETTLING = 400  # turns of a doubled cycle


@dataclass(frozen=True, eq=False, repr=False)
class Doublings(Reported, ByValue):
    """What `doublings` returns; arrays (M,), one number per doubling.

    parameter : its name.  periods : of the cycle that loses its stability, n, 2n, 4n, ...
    values : of the parameter, where its multiplier is -1.  stopped : why there are fewer than asked for, if there are.
    """

    parameter: str
    periods: Integers
    values: Floats
    stopped: str = ""

    @property
    def ratios(self) -> Floats:
        """`(mu_n - mu_{n-1}) / (mu_{n+1} - mu_n)` (M - 2,), which tend to 4.6692."""
        steps = np.diff(self.values)
        return steps[:-1] / steps[1:]

    @property
    def limit(self) -> float:
        """Where the cascade ends, if the doublings behind the last one follow at Feigenbaum's ratio; NaN of one."""
        if len(self.values) < 2:
            return float("nan")
        return float(self.values[-1] + (self.values[-1] - self.values[-2]) / (DELTA - 1.0))

    def _report(self) -> Report:
        table = [["period", f"doubles at {self.parameter}", "ratio"]]
        ratios = [float("nan"), *self.ratios, float("nan")]
        for n, value, ratio in zip(self.periods, self.values, ratios, strict=False):
            table.append([f"{n:,}", digits(value, 12), digits(ratio, 5, padded=True)])
        end = [f"the cascade ends near {self.parameter} = {digits(self.limit, 8)}"] if len(self.values) > 2 else []
        return [Table(table, 0), *end, *([self.stopped] if self.stopped else [])]


def doublings(system: Map, over: Any, between: ArrayLike, *, w0: ArrayLike, count: int = 6,
              steps: int = 20_000) -> Doublings:  # fmt: skip
    """The first `count` values of a parameter at which the cycle that a map settles on doubles its period.

    Parameters
    ----------
    system : the map; neither noise nor schedules.  over : the parameter: a hyperparameter by name, or a constant of
        the loss.
    between : two values, in the order in which the parameter goes. At the first, a run of `steps` steps from w0, theta
        (D,) or the map's whole state, settles on the cycle that is followed.

    Returns `Doublings`, each value to rounding. Raises InputError for arguments that do not fit and where the run
    settles on no cycle, SolverError where the cycle does not double between the two values.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((x * y - 1)**2 / 2, [x, y]), md.GD(0.9))
    >>> print(md.doublings(gd, "lr", (0.9, 1.5), w0=[0.9, 0.9], count=4).summary())
      period  doubles at lr   ratio
      ------  -------------  ------
           1              1       -
           2   1.2360679775  4.5429
           4  1.28803175448  4.6412
           8  1.29922793965       -
    the cascade ends near lr = 1.3022793
    """
    return _Following(system, over, between, w0, whole("steps", steps, 100)).cascade(whole("count", count, 1))


class _Following:
    """A cycle that is followed over a parameter."""

    def __init__(self, system: Map, over: Any, between: ArrayLike, w0: ArrayLike, steps: int):
        autonomous(system, "doublings")
        ends = numbers(between, "between")
        if ends.shape != (2,) or not np.isfinite(ends).all() or ends[0] == ends[1]:
            raise InputError(f"between is two different values of the parameter, not {shown(between)}.")
        z = one_start(system, w0)
        self.settings = varied(system, over, ends)
        (self.name,) = self.settings.given
        self.tangent, self.system, (self.first, self.last) = Tangent(system), system, map(float, ends)
        self.hp, self.c = self.tangent.numbers(2, self.settings)
        self.start = self._settled(z, steps)

    def _settled(self, z: Floats, steps: int) -> Cycle:
        """The cycle that the run from z settles on at the first value."""
        hp, c = self.hp[:1], self.c[:1]
        theta, _ = self.tangent.follow(z[None], steps, 4 * LONGEST, (hp, c))
        found = attractor(self.tangent, z, theta[0], hp[0], c[0]) if np.isfinite(theta).all() else None
        if found is None:
            raise InputError(
                f"at {self.name} = {self.first:g} the run from w0 settles on no cycle of up to {LONGEST} steps within "
                f"{steps:,} steps; begin between where it does, or run more steps."
            )
        return found

    def at(self, value: float, z: Floats, period: int) -> Cycle | None:
        """The cycle near z at a value of the parameter."""
        own = [np.where(ends[0] == ends[1], ends[0], value) for ends in (self.hp, self.c)]
        return cycle_from(self.tangent, z, period, *own)

    def cascade(self, count: int) -> Doublings:
        """Doubling after doubling, each from the cycle that the last one made."""
        from scipy.optimize import brentq

        value, cycle, stride = self.first, self.start, (self.last - self.first) / _STRIDES
        found: list[tuple[int, float]] = []
        stopped = ""
        while len(found) < count:
            flipped = self._bracket(value, cycle, stride)
            if isinstance(flipped, str):
                stopped = flipped
                break
            low, high, cycle = flipped
            place = float(brentq(self._over(cycle), low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps))
            found.append((cycle.period, place))
            doubled = self._doubled(place, cycle, high - low)
            if doubled is None:
                stopped = (
                    f"at {self.name} = {digits(place, 10)} no attracting cycle of {2 * cycle.period:,} steps begins: "
                    "the cascade ends here."
                )
                break
            (value, cycle), stride = doubled, doubled[0] - place
        if not found:
            raise SolverError(stopped)
        return Doublings(self.name, np.array([n for n, _ in found]), np.array([v for _, v in found]), stopped)

    def _over(self, cycle: Cycle) -> Any:
        """The least multiplier of this cycle, less -1, as a function of the parameter."""

        def function(value: float) -> float:
            found = self.at(value, cycle.points[0], cycle.period)
            if found is None or found.period != cycle.period:
                raise SolverError(f"the cycle of {cycle.period:,} steps is lost at {self.name} = {value:.10g}.")
            return found.flip + 1.0

        return function

    def _bracket(self, value: float, cycle: Cycle, stride: float) -> tuple[float, float, Cycle] | str:
        """Two values between which the multiplier passes -1, and the cycle at the second; or why there are none."""
        while (self.last - value) * stride > 0:
            ahead = min(value + stride, self.last) if stride > 0 else max(value + stride, self.last)
            found = self.at(ahead, cycle.points[0], cycle.period)
            if found is None or found.period != cycle.period or abs(found.lowest - cycle.lowest) > _SWING:
                stride /= 2
                if abs(stride) < _SHORTEST * abs(value):
                    return f"the cycle of {cycle.period:,} steps ends at {self.name} = {value:.10g} without doubling."
                continue
            if found.flip < -1.0:
                return value, ahead, found
            value, cycle, stride = ahead, found, 1.5 * stride
        return (
            f"up to {self.name} = {self.last:g} the cycle of {cycle.period:,} steps does not double its period: its "
            f"least multiplier is {cycle.flip:.4g} there."
        )

    def _doubled(self, place: float, cycle: Cycle, width: float) -> tuple[float, Cycle] | None:
        """A value beyond a doubling and the cycle of twice the period there."""
        at = self.at(place, cycle.points[0], cycle.period)
        assert at is not None
        values, vectors = np.linalg.eig(at.jacobian)
        along = np.real(vectors[:, int(np.abs(values + 1.0).argmin())])
        slope = (self._over(cycle)(place + width) - self._over(cycle)(place)) / width
        for beyond in (_BEYOND, 0.3 * _BEYOND, 0.1 * _BEYOND):
            value = place + beyond / abs(slope) * np.sign(width)
            z = at.points[0] + 1e-2 * (1e-3 + np.abs(at.points[0]).max()) * beyond * along
            hp, c = (np.where(ends[0] == ends[1], ends[0], value)[None] for ends in (self.hp, self.c))
            z = z[None].copy()
            self.tangent.follow(z, 2 * cycle.period * _SETTLING, 0, (hp, c), LATE)
            found = self.at(value, z[0], 2 * cycle.period) if np.isfinite(z).all() else None
            if found is not None and found.period == 2 * cycle.period and found.attracts:
                return value, found
        return None
