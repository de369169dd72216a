"""What a map without noise settles to: rest, a drift, the period-two oscillation of the edge, a longer one, or none.

Flows of mid-points describe a period-two oscillation about mid-points that move slowly. Over the last steps of a run

    D_p = rms |theta_{k+2p} - 2 theta_{k+p} + theta_k| / rms |theta_{k+1} - theta_k|

is small where steps repeat after p of them, whatever drifts along steadily: `D_1` in a smooth descent, `D_2` (the
second difference of mid-points, over the oscillation) in a period-two oscillation. Where no `D_p` is small, the rate at
which neighbouring runs part (the largest Lyapunov exponent, from the exact tangent map) tells an erratic map from one
that is merely irregular.
Source: Strogatz, *Nonlinear dynamics and chaos* (1994), chapter 10.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError
from minidyn.common.intake import whole
from minidyn.common.reports import Report, Reported, Table, digits, named
from minidyn.compare.tangent import Tangent
from minidyn.maps.discrete import Map, unpack
from minidyn.simulate.choose import make_engine
from minidyn.simulate.engines import MapEngine
from minidyn.simulate.phases import REST
from minidyn.simulate.threads import thread_count

_TAIL, _LEAST, _LONGEST = 1024, 256, 32  # steps that are looked at, at most and at least, and the longest period
_SMALL = 0.05  # D_p below this is a repetition
_FADED, _PARTS = 0.1, 8  # what shrinks to this over the parts of the tail, without doubling on the way, is a transient
_PARTING = 3.0  # a neighbour that parts by less than e^3 over the tail does so along a drift
_NUMBERS = {2: "two", 3: "three", 4: "four", 6: "six", 8: "eight"}
_TOGETHER = 2**21  # numbers of the last steps that are looked at together


@dataclass(frozen=True, eq=False, repr=False)
class Regime(Reported, ByValue):
    """What `regime` returns: how the last steps of a run repeat.

    period : of the steps; 0 at rest, fading or diverged, 1 for a smooth drift, -1 where there is none up to 32, -2
        where there are too few steps to say so.
    exponent : the largest Lyapunov exponent per step over the last three quarters of the steps looked at, positive
        where neighbouring runs part; where there is no period it tells "erratic" from "irregular" (a slow spiral, two
        frequencies, rare bursts). NaN where the tangent map is none, as in a run that diverged.
    amplitude : half the root-mean-square length of the last steps in theta.  steps : looked at.
    advice : how a remark ends.
    """

    period: int
    exponent: float
    amplitude: float
    steps: int
    advice: str

    @property
    def kind(self) -> str:
        """Its name: "at rest", "diverged", "drifting", "period two", ..., "erratic", "irregular" or "unclear"."""
        if self.period == -1:
            return "erratic" if self.exponent * self.steps > _PARTING else "irregular"
        named = {-2: "unclear", 0: "at rest" if np.isfinite(self.amplitude) else "diverged", 1: "drifting"}
        return named.get(self.period, f"period {_NUMBERS.get(self.period, self.period)}")

    @property
    def remark(self) -> str:
        """A sentence where flows of mid-points do not describe the map, else nothing."""
        if self.period in (-2, 0, 1, 2):
            return ""
        what = {
            "irregular": "the map repeats with no period up to 32 steps",
            "erratic": f"the map is erratic, with no period up to 32 steps and exponent {self.exponent:+.2g} per step",
        }.get(self.kind, f"the map runs on an orbit of {self.kind}")
        return (
            f"{what}, not on a period-two orbit about mid-points that move slowly: flows of mid-points do not describe "
            f"it{self.advice}"
        )

    def _report(self) -> Report:
        parting = f"{digits(self.exponent, 3, sign=True)} per step"
        rows = [
            ("at the end", self.kind),
            ("largest Lyapunov exponent", parting),
            ("half a step's length", digits(self.amplitude, 3)),
            ("steps looked at", str(self.steps)),
        ]
        return [named(rows), *([f"remark: at the end {self.remark}"] if self.remark else [])]


@dataclass(frozen=True, eq=False, repr=False)
class Regimes(Reported, ByValue):
    """What `regime` returns for several starts: arrays (paths,) in the meaning of `Regime`; `regimes[i]` is one path's.

    period, exponent, amplitude : of each path.  steps : looked at.  advice : how a remark ends.
    """

    period: Integers
    exponent: Floats
    amplitude: Floats
    steps: int
    advice: str

    def __len__(self) -> int:
        return len(self.period)

    def __getitem__(self, path: int) -> Regime:
        numbers = int(self.period[path]), float(self.exponent[path]), float(self.amplitude[path])
        return Regime(*numbers, self.steps, self.advice)

    @property
    def kinds(self) -> list[str]:
        """Each path's kind, as `Regime.kind` names it."""
        return [self[path].kind for path in range(len(self))]

    @property
    def counts(self) -> dict[str, int]:
        """How many paths are of each kind, the most frequent first."""
        return dict(Counter(self.kinds).most_common())

    @property
    def remark(self) -> str:
        """A sentence where flows of mid-points do not describe some of the paths, else nothing."""
        odd = Counter(one.kind for one in map(self.__getitem__, range(len(self))) if one.remark)
        if not odd:
            return ""
        if len(self.counts) == 1:
            return self[0].remark
        kinds = " and ".join(f"{count:,} {kind}" for kind, count in odd.most_common())
        return (
            f"{sum(odd.values()):,} of {len(self):,} paths do not run on a period-two orbit about mid-points that move "
            f"slowly ({kinds}): flows of mid-points do not describe them{self.advice}"
        )

    def _report(self) -> Report:
        total = len(self)
        counted = [f"{count:,} of {total:,} paths {kind}" for kind, count in self.counts.items()]
        table = [["at the end", "paths", "largest Lyapunov exponent", "half a step's length"]]
        kinds = np.array(self.kinds)
        for kind, count in self.counts.items():
            parts = self.exponent[kinds == kind], self.amplitude[kinds == kind]
            table.append([kind, f"{count:,}", _range(parts[0], sign=True), _range(parts[1])])
        remark = [f"remark: at the end {self.remark}"] if self.remark else []
        return [f"{', '.join(counted)}; {self.steps:,} steps looked at", Table(table), *remark]


def _range(values: Floats, sign: bool = False) -> str:
    """Least and largest of some numbers."""
    known = values[~np.isnan(values)]
    ends = dict.fromkeys(digits(v, 3, sign=sign) for v in (known.min(), known.max())) if len(known) else ["-"]
    return " to ".join(ends)


def regime(system: Map, w0: ArrayLike, steps: int, *, first_step: int = 1,
           threads: int | None = None) -> Regime | Regimes:  # fmt: skip
    """What a map without noise does at the end of `steps` steps from `w0`: theta (D,) or the map's whole state, or
    several of them (paths, ...).

    A period is looked for in the last 256 steps. Where there is none, the last half of the run (up to 1,024 steps)
    tells an oscillation that fades from one that goes on or returns in bursts.

    Returns a `Regime`, for several starts `Regimes`, with counts. Raises InputError for a map with noise.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> for r in (2.5, 3.2, 3.5, 3.9):  # x' = r x (1 - x)
    ...     logistic = md.Map(md.Loss((1 - r) * x**2 / 2 + r * x**3 / 3, [x]), md.GD(1.0))
    ...     print(r, md.regime(logistic, [0.3], 2000).kind)
    2.5 at rest
    3.2 period two
    3.5 period four
    3.9 erratic
    >>> md.regime(logistic, [[0.3], [0.4], [1.5]], 2000).counts
    {'erratic': 2, 'diverged': 1}
    """
    given = system.whole_state(w0, "w0") if isinstance(system, Map) else np.empty(0)
    found = regimes_of(system, given, steps, first_step=first_step, threads=threads)
    return found[0] if given.ndim == 1 else found


def regimes_of(system: Map, w0: ArrayLike, steps: int, *, first_step: int = 1, threads: int | None = None) -> Regimes:
    """`regime` of one start or several."""
    if not isinstance(system, Map) or system.noise is not None:
        raise InputError("regime looks at a Map without noise; drop the noise.")
    steps, first_step = whole("steps", steps, 2), whole("first_step", first_step, 1)
    z = np.atleast_2d(system.whole_state(w0, "w0"))
    if z.ndim > 2 or not len(z):
        raise InputError(f"w0 has shape {z.shape}, expected ({system.dim},) or (paths, {system.dim}).")
    if not np.isfinite(z).all():
        raise InputError("w0 contains NaN or Inf; give finite starting parameters.")
    tail = min(steps, _TAIL, max(steps // 2, _LEAST))
    workers = thread_count(threads)
    if steps > tail:
        engine = make_engine(system, z, steps, first_step=first_step, threads=workers)
        assert isinstance(engine, MapEngine)
        engine.advance(0, steps - tail)
        z = unpack(engine.blocks, len(z), 0, system.components)
    first, tangent = first_step + steps - tail, Tangent(system)
    table = system.rule.table(first, tail) if system.rule.scheduled else None
    parts = []
    for part in np.array_split(z.copy(), -(-z.size * tail // _TOGETHER)):
        theta, exponent = tangent.follow(part, tail, tail, tangent.numbers(len(part)), first, table, workers)
        with np.errstate(over="ignore", invalid="ignore"):  # runs that leave every bound
            parts.append((_periods(theta), exponent, 0.5 * _rms(np.diff(theta[:, -_LEAST - 1 :], axis=1))))
    period, exponents, amplitude = map(np.concatenate, zip(*parts, strict=True))
    advice = "; a larger eps, or a loss floor, keeps accumulators from vanishing" if "eps" in system.rule.hyper else ""
    return Regimes(period, exponents, amplitude, tail, advice + ".")


def _rms(rows: Floats) -> Floats:
    """Of the lengths of vectors (paths, T, D), by path."""
    return np.sqrt((rows**2).sum(axis=2).mean(axis=1)) if rows.shape[1] else np.zeros(len(rows))


def _periods(theta: Floats) -> NDArray[np.int64]:
    """The periods of the last iterates (paths, T + 1, D), in the meaning of `Regime`."""
    moves = np.diff(theta, axis=1)
    floor, count = REST * (1.0 + _rms(theta)), moves.shape[1]
    out = np.full(len(theta), -1 if count >= 2 * _LONGEST else -2)
    sizes = np.array([_rms(part) for part in np.array_split(moves, _PARTS, axis=1)])
    fades = (sizes[-1] < _FADED * sizes[0]) & (sizes[1:] < 2 * sizes[:-1]).all(axis=0)
    quiet = _rms(moves[:, -_LEAST:]) <= floor
    repeats = np.where(quiet, 0, _repeats(theta[:, -_LEAST - 1 :]))
    out = np.where(repeats > 0, repeats, np.where(fades, 0, out))
    return np.where(~np.isfinite(theta).all(axis=(1, 2)) | (_rms(moves) <= floor), 0, out)


def _repeats(theta: Floats) -> NDArray[np.int64]:
    """The least p with a small `D_p` of each path, or 0."""
    length, out = _rms(np.diff(theta, axis=1)), np.zeros(len(theta), np.int64)
    for p in range(min(_LONGEST, (theta.shape[1] - 1) // 3), 0, -1):
        again = _rms(theta[:, 2 * p :] - 2 * theta[:, p:-p] + theta[:, : -2 * p])
        out[again < _SMALL * length] = p
    return out
