"""Basins of attraction: which starts of a map without noise end where, all at once.

After the run a start is at rest, on a cycle, on the way, or gone. Cycles are told apart by the mean and the variance of
theta over their steps; ends that lie together, as along a curve of minima, are one place.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError
from minidyn.common.intake import between, flag, numbers, shown, whole
from minidyn.common.reports import Report, Reported, Result, Table, digits, share
from minidyn.compare.cycles import LONGEST
from minidyn.compare.destinations import BoxDimension, box_dimension, gathered
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import Map, unpack
from minidyn.maps.loss.parameters import name_of
from minidyn.simulate import observables
from minidyn.simulate.choose import make_engine
from minidyn.simulate.engines import MapEngine
from minidyn.simulate.progress import Bar
from minidyn.simulate.run import provenance
from minidyn.simulate.threads import thread_count

DIVERGED, MOVING = -1, -2  # labels of starts that end nowhere
_BACK = 1e-6  # what returns so near, relative to theta, is on a cycle
_APART = 0.01  # of the ends' extent: ends within it are one place
_ROWS = 12  # of the table
log = logging.getLogger("minidyn")


@dataclass(frozen=True, eq=False)
class Place(ByValue):
    """Where starts end: at rest (`period` 1) or on a cycle.

    at : theta there (D,), the mean over the cycle, of the end in the middle of all of them.  starts : how many end
        here.
    """

    period: int
    at: Floats
    starts: int

    @property
    def kind(self) -> str:
        """ "at rest", "period 2", ..."""
        return "at rest" if self.period == 1 else f"period {self.period}"


@dataclass(eq=False, repr=False)
class Basins(Reported, Result):
    """What `basin` returns.

    labels : for a grid (n, m), first and second axis as given, for a list (N,): the number of the place in `places`, -1
        where the run diverged, -2 where it is neither at rest nor on a cycle of up to 64 steps.
    places : the most visited first.  axes : of a grid, parameter -> its values; empty for a list.
    ends : theta after the run, (..., D); NaN where it diverged.  steps : of each run.  meta : how they were made.
    again : what runs other starts of the grid's window in the same way; None for a list, and in what was loaded.
    """

    labels: Integers
    places: list[Place]
    axes: dict[str, Floats]
    ends: Floats
    steps: int
    meta: dict[str, Any] = field(compare=False)
    again: "_Again | None" = field(default=None, repr=False, compare=False)

    def dimension(self, *, diverged: bool = False, boxes: int = 50_000, rng: Any = None) -> BoxDimension:
        """The box-counting dimension of the borders between labels, or of the border of what diverges alone: 1 for
        smooth ones.

        New runs start at the corners of `boxes` boxes of each of several sizes, at random in the window of the grid and
        down to a millionth of it. rng : as in `simulate`.

        Raises InputError for a list of starts, for what was loaded from a file, and where there is no border.

        >>> import numpy as np, sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> wells = md.Map(md.Loss((x**2 - 1)**2 / 4 + y**2 / 2, [x, y]), md.GD(0.1))
        >>> seen = md.basin(wells, {x: np.linspace(-2, 2, 50), y: np.linspace(-2, 2, 50)}, 200)
        >>> found = seen.dimension(rng=0)
        >>> bool(abs(found.dimension - 1) < 3 * found.error)
        True
        """
        if self.again is None:
            raise InputError("a dimension needs a grid of starts, and the map, which no file holds; call basin again.")
        again, alone = self.again, flag(diverged, "diverged")
        low, high = (np.array([end(v) for v in self.axes.values()]) for end in (np.min, np.max))
        generator = np.random.default_rng(seed_key(rng)[1])

        def label(points: Floats) -> NDArray[np.int64]:
            labels = again(points)
            return np.where(labels == DIVERGED, 1, 0) if alone else labels

        return box_dimension(label, low, high, whole("boxes", boxes, 100), generator)

    def _report(self) -> Report:
        total = self.labels.size
        where = " x ".join(f"{len(v):,} values of {name}" for name, v in self.axes.items())
        table = [["label", "ends", "starts", "share", "at theta"]]
        for n, place in enumerate(self.places[:_ROWS]):
            at = ", ".join(digits(v, 4) for v in place.at[:6]) + ", ..." * (len(place.at) > 6)
            table.append([str(n), place.kind, f"{place.starts:,}", share(place.starts / total), at])
        for label, kind in ((MOVING, "no period up to 64"), (DIVERGED, "diverged")):
            if count := int((self.labels == label).sum()):
                table.append([str(label), kind, f"{count:,}", share(count / total), "-"])
        left = len(self.places) - _ROWS
        rest = sum(p.starts for p in self.places[_ROWS:])
        return [
            str(self.meta["system"]),
            f"{total:,} starts{f', {where}' if where else ''}; {self.steps:,} steps each",
            *([f"interrupted {self.meta['interrupted']}"] if "interrupted" in self.meta else []),
            Table(table, 2),
            *([f"and {left:,} more places, where {rest:,} starts end"] if left > 0 else []),
        ]


def basin(system: Map, starts: Any, steps: int = 1000, *, at: ArrayLike | None = None, by: Any = None,
          apart: float | None = None, first_step: int = 1, threads: int | None = None,
          progress: bool | None = None) -> Basins:  # fmt: skip
    """Which starts of a map without noise end where.

    Parameters
    ----------
    system : the map.  starts : a grid, `{parameter: values, parameter: values}`, or a list (N, D), or (N, components)
        of the map's whole states.  at : of a grid, theta (D,) or the whole state that the other parameters start from;
        zero by default.
    steps : of each run; up to 64 more tell rest from cycles.  first_step : as in `simulate`.
    by : what tells places apart, beside their period, in place of theta: the name of an observable, an expression in
        the parameters or a function of w (N, D) that returns (N,); its mean over the cycle counts.
    apart : ends, or values of `by`, within this distance of each other belong together, and so do chains of them; by
        default a hundredth of the extent of all ends.

    Returns `Basins`; after Ctrl-C those of the steps that all starts have made, which `steps` says. Raises InputError
    for arguments that do not fit.

    >>> import numpy as np, sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> wells = md.Map(md.Loss((x**2 - 1)**2 / 4 + y**2 / 2, [x, y]), md.GD(0.1))
    >>> seen = md.basin(wells, {x: [-7.0, -2.0, 0.5, 1.0, 3.0], y: [0.0, 1.0]}, 400)
    >>> seen.labels.T
    array([[-1,  1,  0,  0,  0],
           [-1,  1,  0,  0,  0]])
    >>> [place.at.round(3).tolist() for place in seen.places]
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    began = time.perf_counter()
    if not isinstance(system, Map) or system.noise is not None:
        raise InputError("basin looks at a Map without noise; drop the noise.")
    steps, first_step = whole("steps", steps, 1), whole("first_step", first_step, 1)
    z, axes = _starts(system, starts, at)
    watch = None if by is None else next(iter(observables.resolve(system, {"by": by}).values()))
    near = None if apart is None else between(apart, "apart", 0, np.inf)
    workers = thread_count(threads)
    asked = steps
    engine, steps = _carried(_engine(system, z, asked + 1, first_step, workers), asked, progress, True)
    ends, period, seen = _ended(engine, steps, first_step, watch, workers)
    near = _nearness(period, seen[1]) if near is None else near
    labels, places = _labelled(period, seen, near)
    shape = tuple(len(v) for v in axes.values()) if axes else (len(z),)
    meta = {
        "system": repr(system), "paths": len(z), "apart": near, "wall_seconds": time.perf_counter() - began,
        **provenance(),
    }  # fmt: skip
    if steps < asked:
        meta["interrupted"] = f"after {steps:,} of {asked:,} steps"
    again = _Again(system, z[0], tuple(axes), steps, first_step, watch, near, workers) if axes else None
    return Basins(labels.reshape(shape), places, axes, ends.reshape(*shape, -1), steps, meta, again)


@dataclass(frozen=True, eq=False)
class _Again(ByValue):
    """Runs starts that differ in two parameters as `basin` did."""

    system: Map
    start: Floats
    names: tuple[str, ...]
    steps: int
    first_step: int
    watch: Any
    near: float
    threads: int

    def __call__(self, points: Floats) -> NDArray[np.int64]:
        """The labels of starts (N, 2), places numbered by how many of these end there."""
        z = np.tile(self.start, (len(points), 1))
        z[:, [self.system.loss.param_names.index(name) for name in self.names]] = points
        engine = _engine(self.system, z, self.steps + 1, self.first_step, self.threads)
        engine, _ = _carried(engine, self.steps, False, False)
        _, period, seen = _ended(engine, self.steps, self.first_step, self.watch, self.threads)
        return _labelled(period, seen, self.near)[0]


def _starts(system: Map, starts: Any, at: ArrayLike | None) -> tuple[Floats, dict[str, Floats]]:
    """Whole states (N, components) to start from, and the axes of a grid."""
    if not isinstance(starts, Mapping):
        if at is not None:
            raise InputError("at goes with a grid; a list of starts holds all parameters.")
        z = system.whole_state(starts, "starts")
        if z.ndim != 2 or not len(z):
            raise InputError(f"starts has shape {z.shape}, expected (N, {system.dim}), or values of two parameters.")
        axes = {}
    else:
        names = system.loss.param_names
        axes = {name_of(key): numbers(values, name_of(key)) for key, values in starts.items()}
        if len(axes) != 2 or not set(axes) <= {*names}:
            raise InputError(
                f"a grid of starts has two of the parameters {', '.join(names[:20])}, not {shown(starts)}."
            )
        for name, values in axes.items():
            if values.ndim != 1 or not len(values) or (np.diff(values) <= 0).any():
                raise InputError(f"the values of {name} are an increasing list of numbers, one or more.")
        middle = system.whole_state(np.zeros(system.dim) if at is None else at, "at")
        if middle.ndim != 1:
            raise InputError(f"at has shape {middle.shape}, expected one point ({system.dim},).")
        z = np.tile(middle, (int(np.prod([len(v) for v in axes.values()])), 1))
        for name, grid in zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True):
            z[:, names.index(name)] = grid.ravel()
    if not np.isfinite(z).all():
        raise InputError("starts contain NaN or Inf; give finite parameters.")
    return z, axes


def _carried(engine: MapEngine, steps: int, progress: bool | None, partly: bool) -> tuple[MapEngine, int]:
    """The engine after so many steps; `partly` they may be fewer, after Ctrl-C, as many as all starts have made."""
    done, kept, system = 0, engine.blocks, engine.system
    try:
        with Bar(steps, engine.paths, progress, "basins") as bar:
            while done < steps:
                count = engine.slice(steps - done)
                engine.advance(done, count)
                done += count
                kept = engine.blocks.copy()
                bar.update(done)
    except KeyboardInterrupt:
        if not (partly and done):
            raise
        log.warning("basin was interrupted after %d of %d steps", done, steps)
        z = unpack(kept, engine.paths, 0, system.components)
        engine = _engine(system, z, done + 1, engine.before + 1, engine.workers)
    return engine, done


def _ended(
    engine: MapEngine, steps: int, first_step: int, watch: Any, threads: int
) -> tuple[Floats, NDArray[np.int64], tuple[Floats, Floats]]:
    """Theta after so many steps, periods, and of each cycle the mean of theta and what tells it apart."""
    system = engine.system
    ends, state = engine.parameters(), engine.states()
    engine.advance(steps, 1)
    period = np.where(np.isfinite(ends).all(axis=1), MOVING, DIVERGED).astype(np.int64)
    period[_returned(engine.parameters(), ends)] = 1
    mean = ends.copy()
    feature = np.hstack([ends, np.zeros_like(ends)]) if watch is None else watch(ends)[:, None]
    rest = np.flatnonzero(period == MOVING)
    if len(rest):
        engine = _engine(system, state[rest], LONGEST, first_step + steps, threads)
        period[rest] = _follow(engine, rest, ends[rest], watch, mean, feature)
    return ends, period, (mean, feature)


def _engine(system: Map, z: Floats, steps: int, first_step: int, threads: int) -> MapEngine:
    engine = make_engine(system, z, steps, seed_key(0)[1], threads=threads, first_step=first_step)
    assert isinstance(engine, MapEngine)
    return engine


def _returned(now: Floats, before: Floats) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(now - before).max(axis=1) <= _BACK * (1.0 + np.abs(before).max(axis=1)))


def _follow(
    engine: MapEngine, rest: NDArray[np.intp], start: Floats, watch: Any, mean: Floats, feature: Floats
) -> NDArray[np.int64]:
    """The periods of paths that are not at rest; means and what tells cycles apart are written where they are known."""
    period = np.full(len(rest), MOVING, np.int64)
    total, squares = np.zeros_like(start), np.zeros_like(start)
    seen, now = np.zeros(len(rest)), start
    for p in range(1, LONGEST + 1):
        with np.errstate(over="ignore"):
            total, squares = total + now, squares + (now - start) ** 2
        seen = seen + (0.0 if watch is None else watch(now))
        engine.advance(p - 1, 1)
        now = engine.parameters()
        new = (period == MOVING) & _returned(now, start)
        period[new] = p
        middle = total[new] / p
        mean[rest[new]] = middle
        spread = squares[new] / p - (middle - start[new]) ** 2
        feature[rest[new]] = (
            np.hstack([middle, np.sqrt(np.maximum(spread, 0.0))]) if watch is None else seen[new, None] / p
        )
    period[(period == MOVING) & ~np.isfinite(now).all(axis=1)] = DIVERGED
    return period


def _nearness(period: NDArray[np.int64], feature: Floats) -> float:
    """How far apart ends may lie that are one place, where nobody has said so."""
    there = (period > 0) & np.isfinite(feature).all(axis=1)
    if not there.any():
        return 1.0
    low, high = np.quantile(feature[there], [0.01, 0.99], axis=0)
    return max(_APART * float((high - low).max()), 1e-4 * (1e-3 + float(np.abs(feature[there]).max())))


def _labelled(
    period: NDArray[np.int64], seen: tuple[Floats, Floats], near: float
) -> tuple[NDArray[np.int64], list[Place]]:
    """The label of each start, and the places in the order of their labels."""
    mean, feature = seen
    labels = period.copy()
    found: list[tuple[Place, NDArray[np.intp]]] = []
    there = (period > 0) & np.isfinite(feature).all(axis=1)
    labels[(period > 0) & ~there] = MOVING
    for p in np.unique(period[there]):
        paths = np.flatnonzero(there & (period == p))
        place, count = gathered(feature[paths], near)
        order = np.argsort(place, kind="stable")
        for part in np.split(order, np.cumsum(np.bincount(place, minlength=count))[:-1]):
            ends = mean[paths[part]]
            middle = ends[np.abs(ends - np.median(ends, axis=0)).sum(axis=1).argmin()]
            found.append((Place(int(p), middle.copy(), len(part)), paths[part]))
    found.sort(key=lambda item: -item[0].starts)
    for n, (_, paths) in enumerate(found):
        labels[paths] = n
    return labels, [place for place, _ in found]
