"""One ensemble on many workers: split by paths, each part run as `simulate(first_path=...)`, and put together."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.errors import said
from minidyn.common.memory import need
from minidyn.flows.base import Flow
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import Map
from minidyn.simulate.checkpoint import folder_of
from minidyn.simulate.identity import identity
from minidyn.simulate.joining import Filed, Held, Joining, Moments, Values, part_of
from minidyn.simulate.run import Run
from minidyn.simulate.saves import count_of
from minidyn.simulate.tasks import carry_tasks, job_of

log = logging.getLogger("minidyn")
_LEAST, _MOST = 16, 1024  # parts of an ensemble, if it has as many blocks of 64 paths
_WORK = 1e9  # gradients of one sample by one parameter in a part: beyond there are more parts
_BYTES = 2**22  # of the values that a part brings, likewise


@dataclass(frozen=True)
class _Part:
    """How a worker runs the paths of a piece: `(first path, paths, what these paths have of their own)`.

    run : `simulate`.
    """

    run: Callable[..., Run]
    system: Map | Flow
    steps: int
    options: Mapping[str, Any]

    def __call__(self, piece: tuple[int, int, dict[str, Any]]) -> dict[str, Any]:
        first, count, own = piece
        given = {**self.options, **own}
        return part_of(self.run(self.system, steps=self.steps, paths=count, first_path=first, progress=False, **given))


class _Pieces(Sequence[Any]):
    """The pieces between the bounds of parts, made when they are asked for."""

    def __init__(self, bounds: Sequence[int], first_path: int, own: Mapping[str, Any]):
        self.bounds, self.first_path, self.own = bounds, first_path, own

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, number: Any) -> Any:
        first, last = self.bounds[number], self.bounds[number + 1]
        return self.first_path + first, last - first, {name: _rows(v, first, last) for name, v in self.own.items()}


def _rows(values: Any, first: int, last: int) -> Any:
    """What these paths have of arrays, and of tables of arrays, that begin with an axis of paths."""
    if isinstance(values, dict):
        return {name: _rows(v, first, last) for name, v in values.items()}
    return values[first:last] if np.ndim(values) else values


class Ensemble:
    """An ensemble in parts, whose arguments are all checked.

    run : `simulate`.  plan : what it makes of its arguments, all checked.  start, hyper : what is given of the paths,
    (size,) or (paths, size), and (paths,) by name.  given : the other arguments of `simulate`.
    """

    def __init__(self, run: Callable[..., Run], plan: Any, system: Map | Flow, steps: int, paths: int,
                 start: Floats, hyper: dict[str, Floats], given: dict[str, Any]):  # fmt: skip
        self.began, self.keep, self.folder = time.perf_counter(), given["keep"], folder_of(given["checkpoint"])
        stored = None if given["rng"] is not None else job_of(self.folder)
        entropy, _ = seed_key(given["rng"] if stored is None else json.loads(stored["seed"]))
        given = {**given, "w0": start, "rng": entropy, "threads": 1 if given["threads"] is None else given["threads"]}
        own: dict[str, Any] = {"w0": start} if len(np.atleast_2d(start)) == paths > 1 else {}
        own |= {"hyper": hyper} if hyper else {}
        first, count, few = _Pieces([0, min(paths, 64)], given["first_path"], own)[0]
        planned = plan(system, **{**given, "steps": steps, "paths": count, "first_path": first, **few})
        self.paths = paths if planned.paths == count else 1  # else all are alike
        values = count_of(steps, planned.every) * (system.dim + len(planned.watchers))
        bounds = _bounds(system, paths, steps, values) if self.paths > 1 else [0, paths]
        self.pieces = _Pieces(bounds, first, own)
        self.what = planned.what | {
            "steps": str(steps), "paths": str(paths), "w0": identity(start, "w0"), "hyper": identity(hyper, "hyper"),
            "keep": "paths", "parts": str(len(self.pieces)),
        }  # fmt: skip
        if self.keep == "paths" and self.folder is None:
            _check_room(self.paths, values)
        self.label = f"{system.name if isinstance(system, Flow) else 'Map'}, parts"
        rest = {name: v for name, v in given.items() if name not in own and name not in ("checkpoint", "first_path")}
        self.work = _Part(run, system, steps, {**rest, "keep": "paths"})

    def run(self, executor: Any, progress: bool | None) -> Run:
        """The run of all paths, by the workers of an executor; `carry_tasks` has the folder of a checkpoint."""
        folder, total = self.folder, self.paths
        make = Held if folder is None else partial(Filed, folder)
        kept = Moments(folder) if self.keep == "moments" else Values(total, make)
        with closing(kept):
            run = self._joined(Joining(total, kept), executor, progress)
        run.hyper |= self.pieces.own.get("hyper", {})  # of paths that did not come too
        run.meta["wall_seconds"] = time.perf_counter() - self.began
        return run

    def _joined(self, joining: Joining, executor: Any, progress: bool | None) -> Run:
        """The run of all parts, or of those that there are when Ctrl-C comes."""
        try:
            for part in carry_tasks(self.work, self.pieces, executor, what=self.what, folder=self.folder,
                                    label=self.label, progress=progress):  # fmt: skip
                joining.add(part)
        except KeyboardInterrupt:
            if not joining.parts:
                raise
            log.warning("%s were interrupted after %d of %d", self.label, len(joining.parts), len(self.pieces))
        return joining.run()


def _bounds(system: Map | Flow, paths: int, steps: int, values: int) -> list[int]:
    """Where the parts of an ensemble begin, whole blocks of 64 paths, and its end; each path keeps so many `values`.

    They depend on the ensemble alone: any number of workers goes on with them.
    """
    owner = system if isinstance(system, Map) else system.map
    blocks = -(-paths // 64)
    work = paths * steps * owner.loss.dim * owner.bound.batch / _WORK
    count = min(blocks, max(_LEAST, min(_MOST, math.ceil(work)), math.ceil(8 * paths * values / _BYTES)))
    return [min(64 * (blocks * n // count), paths) for n in range(count + 1)]


def _check_room(paths: int, values: int) -> None:
    """Refuse what there is no memory for, before anything is computed."""
    less = said("keep less (keep='moments', checkpoint=...)")
    need(8 * paths * values, f"a run of {paths:,} paths with {values:,} values of each", f"take fewer paths, or {less}")
