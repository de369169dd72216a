"""Bifurcation diagrams: what a map without noise settles to, against one of its numbers.

All values at once, each a path of one kernel. The first half of a run is left to the transient; along the second the
exact tangent map gives the largest Lyapunov exponent; the last points are kept, and their period is found.
Source: Strogatz, *Nonlinear dynamics and chaos* (1994), chapter 10.
"""

import logging
import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError
from minidyn.common.intake import numbers, whole
from minidyn.common.reports import Report, Reported, Result, Table, digits
from minidyn.compare.cycles import LONGEST, attractor, periods_of
from minidyn.compare.tangent import Tangent, autonomous, varied
from minidyn.maps.discrete import Map, unpack
from minidyn.maps.settings import Settings
from minidyn.simulate import observables
from minidyn.simulate.choose import make_engine
from minidyn.simulate.engines import MapEngine
from minidyn.simulate.progress import Bar
from minidyn.simulate.run import provenance
from minidyn.simulate.threads import thread_count

NONE, DIVERGED = 0, -1  # periods that are none
_PARTING = 3.0  # neighbours that part by less than e^3 over the steps looked at do so along a drift
_SHARE = 0.75  # of the second half of a run, over which the exponent is a mean
log = logging.getLogger("minidyn")
_TOGETHER = 64  # values between two looks at Ctrl-C
_ROWS = 20  # of the table
_KEEP = 256  # points of a value


@dataclass(frozen=True, eq=False)
class Window(ByValue):
    """Neighbouring values at which a map does the same.

    kind : "at rest", "period 2", "period 3", ..., "erratic" or "irregular" (no period up to 64, with and without a
        positive exponent), "diverged".  first, last : of the values.  count : how many there are.
    exponent : the largest Lyapunov exponents among them, least and largest.
    """

    kind: str
    first: float
    last: float
    count: int
    exponent: tuple[float, float]


@dataclass(eq=False, repr=False)
class Bifurcation(Reported, Result):
    """What `bifurcation` returns, for N values of the parameter.

    parameter, values : its name, and the values (N,).
    points : quantity -> (N, K), the values that it takes in the last K steps; NaN where a run diverged.
    period : (N,) after how many steps a run repeats, 1 at rest; 0 where there is no period up to 64, -1 where the run
        diverged.
    exponent : (N,) largest Lyapunov exponent per step: positive where neighbouring runs part.
    steps : how many steps each run took.  meta : how the diagram was made.
    """

    parameter: str
    values: Floats
    points: dict[str, Floats]
    period: Integers
    exponent: Floats
    steps: int
    meta: dict[str, Any] = field(compare=False)

    @property
    def kinds(self) -> list[str]:
        """What the map does at each value, in the words of `Window`."""
        parted = (self.exponent * (_SHARE * (self.steps - self.steps // 2)) > _PARTING).tolist()
        named = {DIVERGED: "diverged", 1: "at rest"}
        return [
            ("erratic" if parts else "irregular") if p == NONE else named.get(p, f"period {p}")
            for p, parts in zip(self.period.tolist(), parted, strict=True)
        ]

    @property
    def windows(self) -> list[Window]:
        """Runs of neighbouring values at which the map does the same."""
        out, at = [], 0
        for kind, group in groupby(self.kinds):
            count = len(list(group))
            known = self.exponent[at : at + count][~np.isnan(self.exponent[at : at + count])]
            ends = (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)
            out.append(Window(kind, float(self.values[at]), float(self.values[at + count - 1]), count, ends))
            at += count
        return out

    def _report(self) -> Report:
        by_kind: dict[str, list[Window]] = {}
        for window in self.windows:
            by_kind.setdefault(window.kind, []).append(window)
        table = [["at the end", "values", "windows", f"widest, in {self.parameter}", "largest Lyapunov exponent"]]
        for kind, windows in list(by_kind.items())[:_ROWS]:
            widest = max(windows, key=lambda w: w.count)
            ends = dict.fromkeys(digits(v, 6) for v in (widest.first, widest.last))
            known = [w.exponent for w in windows if w.exponent[0] == w.exponent[0]] or [(np.nan, np.nan)]
            low, high = min(e[0] for e in known), max(e[1] for e in known)
            about = dict.fromkeys(digits(v, 3, sign=True) for v in (low, high))
            count = sum(w.count for w in windows)
            table.append([kind, f"{count:,}", f"{len(windows):,}", " to ".join(ends), " to ".join(about)])
        left = list(by_kind)[_ROWS:]
        kept = next(iter(self.points.values())).shape[1]
        return [
            str(self.meta["system"]),
            f"{len(self.values):,} values of {self.parameter}, {self.steps:,} steps each; the last {kept:,} are kept",
            *([f"interrupted {self.meta['interrupted']}"] if "interrupted" in self.meta else []),
            Table(table),
            *([f"and {', '.join(left)}"] if left else []),
        ]


def bifurcation(system: Map, over: Any, values: ArrayLike, *, w0: ArrayLike, steps: int = 4000, keep: int | None = None,
                observe: Any = None, threads: int | None = None,
                progress: bool | None = None) -> Bifurcation:  # fmt: skip
    """What a map without noise settles to at each of many values of one of its numbers.

    Parameters
    ----------
    system : the map; neither noise nor schedules.  over : what varies: a hyperparameter by name, such as "lr", or a
        constant of the loss.  values : (N,), increasing.
    w0 : start of all runs, theta (D,) or the map's whole state, or of each (N, ...).
    steps : of each run: the second half gives the exponent.  keep : so many last points are kept, by default 256
        or half of the steps; periods up to 64, and up to half of them, are found.
    observe : quantities beside the parameters, as in `simulate`; without them the parameters alone.

    A run that has not settled when it ends, as beside a period doubling, is followed to its end by Newton's method: the
    period is that of the attracting cycle, exact however slowly the run nears it.

    Returns a `Bifurcation`; after Ctrl-C that of the first values, which are finished (KeyboardInterrupt where none
    is). Raises InputError for arguments that do not fit.

    >>> import numpy as np, sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((x * y - 1)**2 / 2, [x, y]), md.GD(0.9))
    >>> seen = md.bifurcation(gd, "lr", np.linspace(0.9, 1.29, 40), w0=[0.9, 0.9])
    >>> [(w.kind, round(w.first, 2), round(w.last, 2)) for w in seen.windows]
    [('at rest', 0.9, 1.0), ('period 2', 1.01, 1.23), ('period 4', 1.24, 1.28), ('period 8', 1.29, 1.29)]
    """
    began = time.perf_counter()
    autonomous(system, "bifurcation")
    given, steps = numbers(values, "values"), whole("steps", steps, 16)
    keep = min(_KEEP, steps // 2) if keep is None else whole("keep", keep, 2)
    if given.ndim != 1 or not len(given) or not np.isfinite(given).all() or (np.diff(given) <= 0).any():
        raise InputError("values is an increasing list of finite numbers, one or more.")
    if keep > steps // 2:
        raise InputError(f"keep is {keep}; it must be at most half of the {steps:,} steps.")
    settings = varied(system, over, given)
    (name,) = settings.given
    repeated = varied(system, over, np.repeat(given, keep))
    watched = observables.resolve(system, observe, repeated)  # refused now, not after the run
    z = _starts(system, w0, len(given))
    theta, period, exponent = _carried(system, settings, z, steps, keep, thread_count(threads), progress)
    asked, given = len(given), given[: len(period)]
    if len(given) < asked:
        watched = observables.resolve(system, observe, varied(system, over, np.repeat(given, keep)))
    points = {n: np.ascontiguousarray(theta[:, :, i]) for i, n in enumerate(system.loss.param_names)}
    flat = theta.reshape(-1, system.dim)
    points |= {n: watch(flat).reshape(theta.shape[:2]) for n, watch in watched.items()}
    took = time.perf_counter() - began
    meta = {"system": _over(system, name, given), "paths": len(given), "wall_seconds": took, **provenance()}
    if len(given) < asked:
        meta["interrupted"] = f"after {len(given):,} of {asked:,} values"
    return Bifurcation(name, given, points, period, exponent, steps, meta)


def _over(system: Map, name: str, values: Floats) -> str:
    """The map in words, with the range of a hyperparameter that varies."""
    about = f"{name}={digits(values[0], 6)} to {digits(values[-1], 6)}"
    return (
        repr(system).replace(f"{name}={system.rule.hyper[name]}", about) if name in system.rule.hyper else repr(system)
    )


def _starts(system: Map, w0: ArrayLike, count: int) -> Floats:
    """Whole states (count, components) that the runs start from."""
    z = system.whole_state(w0, "w0")
    if z.ndim > 2 or (z.ndim == 2 and len(z) not in (1, count)):
        raise InputError(f"w0 has shape {z.shape}, expected ({system.dim},) for all values or ({count}, {system.dim}).")
    if not np.isfinite(z).all():
        raise InputError("w0 contains NaN or Inf; give finite starting parameters.")
    return np.array(np.broadcast_to(z, (count, system.components)))


def _carried(
    system: Map, settings: Settings, z: Floats, steps: int, keep: int, threads: int, progress: bool | None
) -> tuple[Floats, Integers, Floats]:
    """The last points (N, keep, D), periods and exponents; of the first values that are finished, after Ctrl-C."""
    count, half = len(z), steps // 2
    engine = make_engine(system, z, half, threads=threads, settings=settings)
    assert isinstance(engine, MapEngine)
    tangent = Tangent(system)
    hp, c = tangent.numbers(count, settings)
    theta, exponent = np.empty((count, keep + 1, system.dim)), np.empty(count)
    period, done, finished = np.zeros(count, np.int64), 0, 0
    try:
        with Bar(steps, count, progress, "bifurcation") as bar:
            while done < half:
                size = engine.slice(half - done)
                engine.advance(done, size)
                done += size
                bar.update(done)
            z = unpack(engine.blocks, count, 0, system.components)
            for low in range(0, count, _TOGETHER * threads):
                part = slice(low, low + _TOGETHER * threads)
                own, rest = (hp[part], c[part]), steps - half
                theta[part], exponent[part] = tangent.follow(z[part], rest, keep, own, half + 1, threads=threads)
                period[part] = _periods(tangent, z[part], theta[part], exponent[part] * _SHARE * rest, own)
                finished = min(part.stop, count)
                bar.update(half + rest * finished / count)
    except KeyboardInterrupt:
        if not finished:
            log.warning("bifurcation was interrupted at step %d of %d, where no value is finished", done, steps)
            raise
        log.warning("bifurcation was interrupted after %d of %d values", finished, count)
    theta[period == DIVERGED] = np.nan
    return theta[:finished, 1:], period[:finished], exponent[:finished]


def _periods(tangent: Tangent, z: Floats, theta: Floats, parted: Floats, own: tuple[Floats, Floats]) -> Integers:
    """The period of each run, from its last points (N, T + 1, D) or, where they have not settled, its cycle.

    parted : the logarithm of how far neighbours have parted. Where they have, points that return are looked at again: a
    run may be quiet for long beside a point that does not attract; where they have not, those that do not return yet.
    """
    finite = np.asarray(np.isfinite(theta).all(axis=(1, 2)))
    period, certain = periods_of(np.where(finite[:, None, None], theta, 0.0))
    apart = parted > _PARTING
    for i in np.flatnonzero(finite & np.where(apart, period != NONE, ~certain)):
        found = attractor(tangent, z[i], theta[i], own[0][i], own[1][i], LONGEST)
        period[i] = found.period if found is not None else NONE if apart[i] else period[i]
    return np.where(finite, period, DIVERGED)
