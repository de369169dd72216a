"""What a map without noise settles to: rest, a drift, the period-two oscillation of the edge, a longer one, or none.

Flows of mid-points describe a period-two oscillation about mid-points that move slowly. Over the last steps of a run

    D_p = rms |theta_{k+2p} - 2 theta_{k+p} + theta_k| / rms |theta_{k+1} - theta_k|

is small where steps repeat after p of them, whatever drifts along steadily: `D_1` in a smooth descent, `D_2` (the
second difference of mid-points, over the oscillation) in a period-two oscillation. Where no `D_p` is small, the rate at
which a neighbouring run parts from this one (the largest Lyapunov exponent) tells an erratic map from one that is
merely irregular.
Source: Strogatz, *Nonlinear dynamics and chaos* (1994), chapter 10.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError
from minidyn.common.intake import whole
from minidyn.common.reports import Report, Reported, digits, named
from minidyn.compare.readings import one_start
from minidyn.flows.edge.twostep import TwoStep
from minidyn.maps.discrete import Map, unpack
from minidyn.simulate.choose import make_engine
from minidyn.simulate.engines import MapEngine
from minidyn.simulate.phases import REST

_TAIL, _LEAST, _LONGEST = 1024, 256, 32  # steps that are looked at, at most and at least, and the longest period
_SMALL = 0.05  # D_p below this is a repetition
_FADED, _PARTS = 0.1, 8  # what shrinks to this over the parts of the tail, without doubling on the way, is a transient
_NEAR = 1e-8  # how near the neighbouring run is kept
_PARTING = 3.0  # a neighbour that parts by less than e^3 over the tail does so along a drift
_NUMBERS = {2: "two", 3: "three", 4: "four", 6: "six", 8: "eight"}


@dataclass(frozen=True, eq=False, repr=False)
class Regime(Reported, ByValue):
    """What `regime` returns: how the last steps of a run repeat.

    period : of the steps; 0 at rest, fading or diverged, 1 for a smooth drift, -1 where there is none up to 32, -2
        where there are too few steps to say so.
    exponent : the largest Lyapunov exponent per step over the steps looked at, positive where neighbouring runs part;
        where there is no period it tells "erratic" from "irregular" (a slow spiral, two frequencies, rare bursts).
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


def regime(system: Map, w0: ArrayLike, steps: int, *, first_step: int = 1) -> Regime:
    """What a map without noise does at the end of `steps` steps from `w0`, theta (D,) or the map's whole state.

    A period is looked for in the last 256 steps. Where there is none, the last half of the run (up to 1,024 steps)
    tells an oscillation that fades from one that goes on or returns in bursts.

    Raises InputError for a map with noise and for several starts.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> for r in (2.5, 3.2, 3.5, 3.9):  # x' = r x (1 - x)
    ...     logistic = md.Map(md.Loss((1 - r) * x**2 / 2 + r * x**3 / 3, [x]), md.GD(1.0))
    ...     print(r, md.regime(logistic, [0.3], 2000).kind)
    2.5 at rest
    3.2 period two
    3.5 period four
    3.9 erratic
    """
    if not isinstance(system, Map) or system.noise is not None:
        raise InputError("regime looks at a Map without noise; drop the noise.")
    steps, first_step = whole("steps", steps, 2), whole("first_step", first_step, 1)
    two = TwoStep(system)
    z = one_start(system, w0)
    tail = min(steps, _TAIL, max(steps // 2, _LEAST))
    if steps > tail:
        engine = make_engine(system, z[None], steps, first_step=first_step)
        assert isinstance(engine, MapEngine)
        engine.advance(0, steps - tail)
        z = unpack(engine.blocks, 1)[0].copy()
    theta, exponent = _follow(two, z, first_step + steps - tail, tail)
    advice = "; a larger eps, or a loss floor, keeps accumulators from vanishing" if "eps" in system.rule.hyper else ""
    with np.errstate(over="ignore", invalid="ignore"):  # a run that leaves every bound
        size = 0.5 * _rms(np.diff(theta[-_LEAST - 1 :], axis=0))
        return Regime(_period(theta), exponent, size, tail, advice + ".")


def _follow(two: TwoStep, z: Floats, k: int, steps: int) -> tuple[Floats, float]:
    """The last iterates of theta (steps + 1, D) and the exponent, from a neighbour that is pulled back every step."""
    rng, theta, parting = np.random.default_rng(0), [z[: two.dim]], [0.0]
    away = rng.normal(size=two.size)
    with np.errstate(all="ignore"):
        for step in range(k, k + steps):
            blocks = np.abs(z).reshape(-1, two.dim).max(axis=1)
            scale = np.repeat(np.where(blocks > 0.0, blocks, 1.0), two.dim)  # theta and every state in its own units
            size = float(np.linalg.norm(away / scale))
            if not 0.0 < size < np.inf:  # the neighbour has met this run, or left every bound
                away, size = rng.normal(size=two.size), 1.0
            away *= _NEAR / size
            after = two.step(z, step)
            away = two.step(z + away, step) - after
            parting.append(np.log(np.linalg.norm(away / scale) / _NEAR))
            z = after
            theta.append(z[: two.dim])
    known = np.array(parting)[np.isfinite(parting)]
    return np.array(theta), float(known.sum() / max(len(known) - 1, 1))


def _rms(rows: Floats) -> float:
    return float(np.sqrt((rows**2).sum(axis=1).mean())) if len(rows) else 0.0


def _period(theta: Floats) -> int:
    """The period of the last iterates (T + 1, D), in the meaning of `Regime`."""
    last = theta[-_LEAST - 1 :]
    moves = np.diff(theta, axis=0)
    floor = REST * (1.0 + _rms(theta))
    if not np.isfinite(theta).all() or _rms(moves) <= floor:
        return 0
    repeats = _repeats(last) if _rms(moves[-_LEAST:]) > floor else 0
    if repeats:
        return repeats
    sizes = [_rms(part) for part in np.array_split(moves, _PARTS)]
    if sizes[-1] < _FADED * sizes[0] and all(b < 2 * a for a, b in pairwise(sizes)):
        return 0
    return -1 if len(moves) >= 2 * _LONGEST else -2


def _repeats(theta: Floats) -> int:
    """The least p with a small `D_p`, or 0."""
    length = _rms(np.diff(theta, axis=0))
    for p in range(1, min(_LONGEST, (len(theta) - 1) // 3) + 1):
        if _rms(theta[2 * p :] - 2 * theta[p:-p] + theta[: -2 * p]) < _SMALL * length:
            return p
    return 0
