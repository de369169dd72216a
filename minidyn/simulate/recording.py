"""What is kept at every save, in memory or in the files of a checkpoint."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats, Integers
from minidyn.maps.loss import Loss
from minidyn.simulate import observables
from minidyn.simulate.engines import Engine
from minidyn.simulate.run import QUANTILES, Run

_STATS = ("mean", "variance", "count")  # of each quantity, before its quantiles
_PIECE = 2**16
_TOGETHER, _SOON = 2**20, 0.05  # numbers, and seconds, that observing several saves at once may take


class Rows:
    """A place for arrays of which each save brings one more row: memory, laid out as a run wants it."""

    def __init__(self, saves: int):
        self.saves = saves
        self.arrays: dict[str, Floats] = {}

    def put(self, name: str, turn: int, row: Floats) -> None:
        """Keep `row` as number `turn` (0, 1, ...) of the array `name`; the first one makes room for all saves."""
        if name not in self.arrays:
            self.arrays[name] = np.empty((len(row), self.saves, *row.shape[1:]))
        self.arrays[name][:, turn] = row

    def column(self, name: str, count: int) -> Floats:
        """The first `count` rows of an array, counted along its second axis: (N, count, ...) of rows (N, ...)."""
        return self.arrays[name][:, :count]


class Recorder:
    """Keeps what is asked for at every save: every path, or moments over the paths."""

    def __init__(self, loss: Loss, watchers: dict[str, observables.Observable], keep: str, rows: Rows, paths: int):
        self.names, self.watchers, self.keep, self.rows, self.paths = loss.param_names, watchers, keep, rows, paths
        self.count = 0
        self.most = _TOGETHER // (paths * (loss.dim**2 + loss.rows.size))  # saves: a point takes a Hessian, or samples
        self.waiting: dict[int, Floats] = {}  # saves (paths, D) at which what is pointwise is not observed yet
        self.together = 1  # as many of them are observed at once
        self.also: Callable[[Engine, int], None] = lambda engine, turn: None  # what else is looked at,
        self.looking = False  # if anything is

    def layout(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the rows that every save brings."""
        if self.keep != "paths":
            return {"moments": (len(self.names) + len(self.watchers), len(_STATS) + len(QUANTILES))}
        seen = {f"observed-{q}": (self.paths,) for q in range(len(self.watchers))}
        return {"w": (self.paths, len(self.names)), **seen}

    def save(self, engine: Engine) -> None:
        """Add one save of the engine where it stands, every path or moments; then `also` looks at it."""
        if self.keep == "paths":
            w = engine.parameters()
            self.rows.put("w", self.count, w)
            if self.watchers:
                self._observe({self.count: w}, engine)
                self.waiting |= {self.count: w} if any(watch.pointwise for watch in self.watchers.values()) else {}
        else:
            table = [*map(moments_of, engine.columns())]  # one after the other: a million paths are 8 MB each
            if self.watchers:
                w = engine.parameters()
                seen = (watch(engine.states() if watch.whole else w) for watch in self.watchers.values())
                table += [moments_of(np.array(values)) for values in seen]
            self.rows.put("moments", self.count, np.array(table))
        self.also(engine, self.count)
        self.count += 1
        if len(self.waiting) >= self.together:
            self.observe()

    @property
    def plain(self) -> bool:
        """Whether saves need but the parameters: several may be added at once."""
        return self.keep == "paths" and not self.looking and all(w.pointwise for w in self.watchers.values())

    def add(self, w: Floats) -> None:
        """Add several saves, theta (paths, saves, D) at them, where they are `plain`."""
        begin, self.count = self.count, self.count + w.shape[1]
        self.rows.arrays["w"][:, begin : self.count] = w
        if self.watchers:
            self.waiting |= {begin + turn: w[:, turn] for turn in range(w.shape[1])}
        if len(self.waiting) >= self.together:
            self.observe()

    def observe(self) -> None:
        """Observe what waits for it: more at once the next time where that is soon done, fewer where it is not."""
        if not self.waiting:
            return
        began = time.perf_counter()
        self._observe(self.waiting)
        quick = time.perf_counter() - began < _SOON
        self.together = max(1, min(self.most, 2 * self.together) if quick else self.together // 2)
        self.waiting = {}

    def _observe(self, saves: dict[int, Floats], engine: Engine | None = None) -> None:
        """Keep the values at these saves of what is pointwise, or, where the engine stands at one, of the rest."""
        for number, watch in enumerate(self.watchers.values()):
            if watch.pointwise == (engine is None):
                w = engine.states() if engine is not None and watch.whole else np.concatenate([*saves.values()])
                values = watch(w).reshape(len(saves), -1)
                for turn, row in zip(saves, values, strict=True):
                    self.rows.put(f"observed-{number}", turn, row)

    def run(self, steps: Integers, times: Floats, status: Any, ended: Any, meta: dict[str, Any]) -> Run:
        """The saves as a `Run`: `steps` and `times` (T,) are theirs, `status` and `ended` (paths,) those of paths."""
        self.observe()
        w, seen, moments = None, {}, {}
        if self.keep == "paths":
            w = self.rows.column("w", self.count)
            seen = {name: self.rows.column(f"observed-{q}", self.count) for q, name in enumerate(self.watchers)}
        else:
            moments = moments_by_name([*self.names, *self.watchers], np.array(self.rows.column("moments", self.count)))
        return Run(steps, times, w, seen, status, ended, list(self.names), meta, moments)


def moments_by_name(names: list[str], table: Floats) -> dict[str, dict[str, Floats]]:
    """What `moments_of` found of each quantity at each save (quantities, T, statistics), as a `Run` has it."""
    out = {}
    for name, rows in zip(names, table, strict=True):
        out[name] = {stat: rows[:, q].copy() for q, stat in enumerate(_STATS)}
        out[name]["quantiles"] = rows[:, len(_STATS) :].T.copy()
    return out


def moments_of(values: Floats) -> list[float]:
    """Mean, variance, count and quantiles of the values that are finite; their order is lost."""
    finite = np.isfinite(values)
    good = values if finite.all() else values[finite]
    if not len(good):
        return [math.nan, math.nan, 0.0, *[math.nan] * len(QUANTILES)]
    mean, count = float(good.mean()), len(good)
    with np.errstate(over="ignore"):  # a path about to diverge
        variance = float(_sum_of_squares(good, mean) / (count - 1)) if count > 1 else 0.0
    return [mean, variance, float(count), *np.quantile(good, QUANTILES, overwrite_input=True)]


def _sum_of_squares(values: Floats, mean: float) -> np.float64:
    """The sum of (values - mean)^2 without a copy of all values; halves are added as numpy does, to the same bits."""
    count = len(values)
    if count <= _PIECE:
        gaps = values - mean
        return np.add.reduce(np.multiply(gaps, gaps, out=gaps))
    half = count // 2 - count // 2 % 8
    return _sum_of_squares(values[:half], mean) + _sum_of_squares(values[half:], mean)
