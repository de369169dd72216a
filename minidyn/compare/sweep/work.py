"""The work of a sweep: pieces of it, each a few settings of one structure, and what is kept of their paths."""

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidyn.common.arrays import Arrays, Floats, NDArray, Words
from minidyn.common.errors import FlowError, ManifoldError
from minidyn.common.status import Status
from minidyn.compare.cycles import LONGEST, periods_of
from minidyn.compare.readings import labels_of
from minidyn.compare.side_by_side import compare
from minidyn.compare.sweep.grid import Grid, parts_of, starts_at, structured, system_at
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map
from minidyn.maps.settings import settings_of
from minidyn.simulate import observables, simulate
from minidyn.simulate.choose import make_engine
from minidyn.simulate.events import Conditions, StoppingEngine
from minidyn.simulate.recording import moments_of
from minidyn.simulate.run import Run
from minidyn.simulate.saves import saves_of

REDUCTIONS = ("last", "end", "min", "max", "period")
_END = 0.25  # of a run, over whose saves "end" is the mean
_MOST, _LEAST, _PARTS = 2**16, 2**10, 64  # lanes of a piece, and how many pieces at least where there are many
log = logging.getLogger("minidyn")
_LOOK = 2 * LONGEST  # steps beyond the end in which a period is looked for, on few lanes at a time


@dataclass(frozen=True)
class Plan:
    """What a sweep does, as it travels to workers. The quantities are those `names` of the parameters, then what is
    `asked` for; `flows` are held against the map, if there are any."""

    system: Map | Flow
    flows: tuple[Flow, ...]
    grid: Grid
    w0: Any
    steps: int
    paths: int
    every: Any
    names: tuple[str, ...]
    asked: Mapping[str, Any]
    reduce: tuple[str, ...]
    entropy: Any
    key: Words
    first_step: int
    stop: Any
    keep: str
    options: Mapping[str, Any]

    @property
    def base(self) -> Map:
        """The map that settings change."""
        return self.system if isinstance(self.system, Map) else self.system.map

    @property
    def saves(self) -> list[int]:
        """Where the paths are looked at; the end alone where nothing else is asked for."""
        early = self.stop is not None or not {"last", "period"} >= set(self.reduce)
        return saves_of(self.steps, self.every if early else self.steps)

    def pieces(self) -> list[NDArray[np.intp]]:
        """Places in the grid, some of one structure in each."""
        lanes = self.grid.count * self.paths
        together = isinstance(self.system, Map) and not self.flows
        most = max(1, int(np.clip(lanes / _PARTS, _LEAST, _MOST)) // self.paths) if together else 1
        most = max(1, most // 8) if "period" in self.reduce else most
        out: list[NDArray[np.intp]] = []
        for places, _ in parts_of(self.base, self.grid):
            out += np.array_split(places, -(-len(places) // most))
        return out


def carry(plan: Plan, threads: int, places: NDArray[np.intp]) -> dict[str, Any]:
    """What is kept of the settings at these places: arrays (settings, ...) by name."""
    if plan.flows:
        return _compared(plan, threads, places)
    if isinstance(plan.system, Map):
        return _lanes(plan, threads, places)
    return _stacked([_flow(plan, threads, plan.system, int(place)) for place in places])


def _lanes(plan: Plan, threads: int, places: NDArray[np.intp]) -> dict[str, Any]:
    """The map at all these settings at once, side by side."""
    grid, paths, count = plan.grid, plan.paths, len(places) * plan.paths
    system = structured(plan.base, grid.at(int(places[0])))
    given = {name: np.repeat(grid.columns[name][places], paths) for name in grid.numbers(system)}
    settings = settings_of(system, given, count, paths)
    start = starts_at(plan.base, grid, places, plan.w0, paths)
    start = np.broadcast_to(start, (len(places), paths, start.shape[-1])).reshape(count, -1)
    engine: Any = make_engine(system, start, plan.steps, plan.key, threads=threads, first_step=plan.first_step,
                              settings=settings)  # fmt: skip
    if plan.stop is not None:
        engine = StoppingEngine(engine, Conditions(system, plan.stop, settings))
    watchers = observables.resolve(system, plan.asked, settings)
    kept, done = _Kept(plan), 0
    for save in plan.saves:
        while done < save:
            step = engine.slice(save - done)
            engine.advance(done, step)
            done += step
        w = engine.parameters()
        seen = (watch(engine.states() if watch.whole else w) for watch in watchers.values())
        kept.see(save, [*(w[:, system.loss.param_names.index(name)] for name in plan.names), *seen])
    status, ended = engine.ending(done)
    rows = kept.rows(len(places), status, ended)
    return rows | {"period": _periods(engine, done).reshape(len(places), -1)} if "period" in plan.reduce else rows


def _periods(engine: Any, done: int) -> Floats:
    """By path, after how many steps the map repeats: 1 at rest, 0 where there is no period up to 64, -1 where the path
    has ended."""
    ahead = [engine.parameters()]
    for step in range(done, done + _LOOK):
        engine.advance(step, 1)
        ahead.append(engine.parameters())
    theta = np.stack(ahead, axis=1)
    there = np.isfinite(theta).all(axis=(1, 2))
    return np.where(there, periods_of(np.where(there[:, None, None], theta, 0.0))[0], -1).astype(float)


def _flow(plan: Plan, threads: int, flow: Flow, place: int) -> dict[str, Any]:
    """A flow at one setting."""
    grid, kept = plan.grid, _Kept(plan)
    start = starts_at(plan.base, grid, np.array([place]), plan.w0, plan.paths)[0]
    count = plan.steps if plan.saves == [0, plan.steps] else plan.every
    try:
        made = flow.of(system_at(plan.base, grid, place))
        run = simulate(made, start, plan.steps, paths=plan.paths, save_every=count, observe=plan.asked,
                       rng=plan.entropy, first_step=plan.first_step, stop=plan.stop, threads=threads,
                       progress=False, **plan.options)  # fmt: skip
    except (FlowError, ManifoldError):
        missing = np.full(plan.paths, np.nan)
        kept.see(plan.steps, [missing] * (len(plan.names) + len(plan.asked)))
        return kept.rows(1, np.full(plan.paths, Status.SOLVER_FAILED), np.zeros(plan.paths, np.int64))
    for turn, step in enumerate(run.steps):
        columns = (run.quantity(name)[:, turn] for name in (*plan.names, *plan.asked))
        kept.see(int(step), [np.broadcast_to(column, plan.paths) for column in columns])
    return kept.rows(1, np.broadcast_to(run.status, plan.paths), np.broadcast_to(run.ended, plan.paths))


def _compared(plan: Plan, threads: int, places: NDArray[np.intp]) -> dict[str, Any]:
    """The map and its flows side by side at each of these settings: the map's means at the end, as it is, and
    differences (flow), each from the map as the flow reads it."""
    shape, names = (len(places), len(plan.flows)), (*plan.names, *plan.asked)
    out: dict[str, Any] = {name: np.full(len(places), np.nan) for name in names}
    out |= {f"{name}_{what}": np.full(shape, np.nan) for name in names for what in ("difference", "standard_error")}
    for row, place in enumerate(places):
        system = system_at(plan.base, plan.grid, int(place))
        start = starts_at(plan.base, plan.grid, places[row : row + 1], plan.w0, plan.paths)[0]
        flows = dict(_existing(plan, system))
        labels = labels_of(system, list(flows.values()))[1:]
        try:
            if not flows:
                raise FlowError("none of the flows exists here.")
            result = compare(system, *flows.values(), w0=start, steps=plan.steps, paths=plan.paths,
                             save_every=plan.steps, observe=plan.asked or None,
                             rng=np.random.SeedSequence(plan.entropy), rows=1, first_step=plan.first_step,
                             threads=threads, progress=False, missing="remark", **plan.options)  # fmt: skip
        except (FlowError, ManifoldError):  # of no flow, but of the map
            run = simulate(system, start, plan.steps, paths=plan.paths, save_every=plan.steps, observe=plan.asked,
                           rng=plan.entropy, first_step=plan.first_step, threads=threads, progress=False)  # fmt: skip
            _note_means(out, row, names, run)
            continue
        _note_means(out, row, names, next(iter(result.runs.values())))
        numbers = list(flows)
        for r in result.errors:
            if r.quantity in names and r.flow in labels:
                place_of = row, numbers[labels.index(r.flow)]
                out[f"{r.quantity}_difference"][place_of] = r.difference
                out[f"{r.quantity}_standard_error"][place_of] = r.standard_error
    return out


def _note_means(out: dict[str, Any], row: int, names: tuple[str, ...], run: Run) -> None:
    """The means over the paths of the map that are left."""
    for name in names:
        last = run.quantity(name)[:, -1]
        out[name][row] = last[np.isfinite(last)].mean() if np.isfinite(last).any() else np.nan


def _existing(plan: Plan, system: Map) -> Iterator[tuple[int, Flow]]:
    """The flows that there are of a map, with their numbers."""
    for number, flow in enumerate(plan.flows):
        with suppress(FlowError, ManifoldError):
            yield number, flow.of(system)


class _Kept:
    """What is kept of the paths of a piece, while they are carried: reductions over the saves, path by path."""

    def __init__(self, plan: Plan):
        self.plan, self.turns = plan, 0
        self.kept: dict[str, Floats] = {}
        self._reductions = [how for how in plan.reduce if how != "period"]

    def see(self, step: int, columns: Iterable[Floats]) -> None:
        """Take the values (paths,) of all quantities at a save."""
        plan = self.plan
        late = step >= (1 - _END) * plan.steps
        for name, values in zip((*plan.names, *plan.asked), columns, strict=True):
            for how in self._reductions:
                key = _key(name, how)
                before = self.kept.get(key)
                if how == "last":
                    self.kept[key] = values
                elif how == "end":
                    if late:
                        self.kept[key] = values if before is None else before + values
                elif before is None:
                    self.kept[key] = values
                else:
                    self.kept[key] = (np.minimum if how == "min" else np.maximum)(before, values)
        self.turns += late

    def rows(self, settings: int, status: Any, ended: Any) -> dict[str, Any]:
        """All that is kept, (settings, paths) or (settings, statistics) by name, and how paths ended."""
        out: dict[str, Any] = {}
        for how in self._reductions:
            for name in (*self.plan.names, *self.plan.asked):
                values = self.kept[key := _key(name, how)]
                table = np.array(values / self.turns if how == "end" else values).reshape(settings, -1)
                out[key] = table if self.plan.keep == "paths" else np.array([moments_of(row) for row in table])
        out["status"] = np.array(status, np.int8).reshape(settings, -1)
        out["ended"] = np.array(ended, np.int64).reshape(settings, -1)
        return out


def _key(name: str, how: str) -> str:
    """What a quantity is called under a reduction."""
    return name if how == "last" else f"{name}_{how}"


def _stacked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def merged(plan: Plan, results: Generator[Mapping[str, Any]], pieces: list[NDArray[np.intp]]) -> tuple[Arrays, int]:
    """The results of all pieces in the order of the grid, arrays (settings, ...) by name, and of how many settings.

    After Ctrl-C the others are NaN, with the status `interrupted`; without any setting it passes on."""
    out: Arrays = {}
    done = 0
    try:
        with closing(results):
            for places, result in zip(pieces, results, strict=True):
                for name, values in result.items():
                    if name not in out:
                        out[name] = np.empty((plan.grid.count, *np.shape(values)[1:]), np.asarray(values).dtype)
                    out[name][places] = values
                done += len(places)
    except KeyboardInterrupt:
        if not done:
            raise
        log.warning("the sweep was interrupted after %d of %d settings", done, plan.grid.count)
        left = np.concatenate(pieces)[done:]
        for name, values in out.items():
            values[left] = np.nan if values.dtype.kind == "f" else Status.INTERRUPTED if name == "status" else 0
    return out, done
