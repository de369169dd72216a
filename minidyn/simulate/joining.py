"""Runs of parts of an ensemble put together, path by path: to the bits of the one run that has all of them.

Values of paths are laid one behind the other. Moments rest on the values of all paths at a save, so they are found from
these, save by save: no sum is split, and the parts leave no trace.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.errors import ArchiveError, InputError, advice
from minidyn.common.intake import ordered, shown
from minidyn.common.status import Status
from minidyn.simulate.checkpoint import ROWS
from minidyn.simulate.recording import moments_by_name, moments_of
from minidyn.simulate.run import Run

_READ = 2**24  # bytes of values that are read at once for moments
_WRITTEN = 2**24  # of missing paths that are written at once
_OF_PARTS = ("wall_seconds", "threads", "paths", "first_path", "method", "steps_made", "stopped_at", "reason", "alike")
_SEEN = 20  # instants of paths that stopped, at most, in `meta["stopped_at"]`


def join(runs: Iterable[Run]) -> Run:
    """The run of all paths, from runs of parts of them (`simulate(first_path=...)`), in any order.

    Raises InputError where they are not parts of one ensemble, where paths are missing, and for moments, which rest on
    all paths.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> sgd = md.Map(md.Loss(x**2, [x]), md.SGD(0.1), md.GaussianNoise(1.0))
    >>> parts = [md.simulate(sgd, [1.0], 9, paths=50, first_path=first, rng=0) for first in (0, 50)]
    >>> md.join(parts).digest() == md.simulate(sgd, [1.0], 9, paths=100, rng=0).digest()
    True
    """
    parts = ordered(runs, "runs")
    if not parts:
        raise InputError("there are no runs to join; give those of parts of an ensemble.")
    for run in parts:
        if not isinstance(run, Run) or run.w is None:
            what = "a run that kept only moments, which rest on all paths" if isinstance(run, Run) else shown(run)
            raise InputError(f"join takes runs that kept their paths, not {what}.")
    parts.sort(key=lambda run: int(run.meta.get("first_path", 0)))
    first = parts[0]
    for before, run in pairwise(parts):
        _check_neighbours(first, before, run)
    paths = sum(run.paths for run in parts)
    joining = Joining(paths, Values(paths, Held))
    for run in parts:
        joining.add(part_of(run))
    whole = joining.run()
    whole.meta["wall_seconds"] = sum(float(run.meta.get("wall_seconds", 0.0)) for run in parts)
    return whole


def _check_neighbours(first: Run, before: Run, run: Run) -> None:
    """Refuse a run that is no part of the ensemble, or does not begin where the one before it ends."""
    ends, begins = int(before.meta.get("first_path", 0)) + before.paths, int(run.meta.get("first_path", 0))
    if begins != ends:
        raise InputError(
            f"after path {ends - 1} comes path {begins}: give parts that follow each other, each path once."
        )
    ours, theirs = (
        {"saves": r.steps.tolist(), "parameters": r.names, "observables": list(r.observables), "hyper": list(r.hyper)}
        | {key: value for key, value in r.meta.items() if key not in _OF_PARTS and key != "between_saves"}
        for r in (first, run)
    )
    for key in {**ours, **theirs}:
        if repr(ours.get(key)) != repr(theirs.get(key)):
            raise InputError(
                f"these are no parts of one ensemble: {key} is {shown(ours.get(key))} of the first paths and "
                f"{shown(theirs.get(key))} from path {begins} on."
            )


def part_of(run: Run) -> dict[str, Any]:
    """What of a run is joined with others, by name."""
    return {
        "steps": run.steps, "time": run.time, "w": run.w, "observables": run.observables, "status": run.status,
        "ended": run.ended, "names": run.names, "meta": dict(run.meta), "hyper": run.hyper,
    }  # fmt: skip


class Held:
    """The values of all paths in memory, as they come."""

    def __init__(self, name: str, paths: int, like: Floats):
        self.array, self.count = np.full((paths, *like.shape[1:]), np.nan), 0

    def add(self, values: Floats) -> None:
        """The values of the next paths."""
        self.array[self.count : self.count + len(values)] = values
        self.count += len(values)

    def whole(self) -> Floats:
        """Those of all paths; NaN of those that did not come."""
        return self.array

    def close(self) -> None:
        """Nothing is open."""


class Filed:
    """The values of all paths in a file of a folder, from which they are mapped."""

    def __init__(self, folder: Path, name: str, paths: int, like: Floats):
        self.path, self.shape, self.count = folder / (name + ROWS), (paths, *like.shape[1:]), 0
        with _written(self.path):
            self.path.unlink(missing_ok=True)  # runs that were returned before go on reading the older file
            self.file = self.path.open("xb")

    def add(self, values: Floats) -> None:
        """The values of the next paths."""
        with _written(self.path):
            self.file.write(np.ascontiguousarray(values, np.float64).data)
        self.count += len(values)

    def whole(self) -> Floats:
        """Those of all paths, read where they are looked at; NaN of those that did not come."""
        step = max(1, _WRITTEN // (8 * max(1, int(np.prod(self.shape[1:])))))
        while self.count < self.shape[0]:
            self.add(np.full((min(step, self.shape[0] - self.count), *self.shape[1:]), np.nan))
        self.close()
        return np.memmap(self.path, np.float64, "r", shape=self.shape)

    def close(self) -> None:
        """Close the file; what was mapped stays."""
        with _written(self.path):
            self.file.close()


class Values:
    """The parameters and observables of all paths, each in a place of its own (`Held`, `Filed`)."""

    def __init__(self, paths: int, make: Callable[[str, int, Floats], Any]):
        self.paths, self.make = paths, make
        self.places: dict[str, Any] = {}

    def add(self, part: Mapping[str, Any]) -> None:
        """Those of the next paths."""
        named = {"w": part["w"]} | {f"observed-{q}": v for q, v in enumerate(part["observables"].values())}
        for name, values in named.items():
            if name not in self.places:
                self.places[name] = self.make(name, self.paths, values)
            self.places[name].add(values)

    def found(self, names: Sequence[str], seen: Sequence[str]) -> tuple[Floats, dict[str, Floats], dict[str, Any]]:
        """Parameters, observables, and no moments."""
        w, *rest = (place.whole() for place in self.places.values())
        return w, dict(zip(seen, rest, strict=True)), {}

    def close(self) -> None:
        """Close all files."""
        for place in self.places.values():
            place.close()


class Moments:
    """Moments of all paths at every save, found at the end from values that wait in a file without a name."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.file: Any = None
        self.parts: list[tuple[int, int]] = []  # where in the file one begins, and its paths
        self.shape = 0, 0  # saves and quantities

    def add(self, part: Mapping[str, Any]) -> None:
        """The values of the next paths: by save, quantity and path."""
        seen = [values.T[:, None] for values in part["observables"].values()]
        block = np.concatenate([part["w"].transpose(1, 2, 0), *seen], axis=1)
        self.shape = block.shape[0], block.shape[1]
        with _written(self.folder):
            self.file = self.file or TemporaryFile(dir=self.folder)  # noqa: SIM115
            self.parts.append((self.file.seek(0, os.SEEK_END), block.shape[2]))
            self.file.write(np.ascontiguousarray(block).data)

    def found(self, names: Sequence[str], seen: Sequence[str]) -> tuple[None, dict[str, Floats], dict[str, Any]]:
        """No parameters, no observables, and the moments of both."""
        table = [[moments_of(values) for values in rows] for rows in self._saves()]
        return None, {}, moments_by_name([*names, *seen], np.array(table).swapaxes(0, 1))

    def close(self) -> None:
        """Give up the file."""
        if self.file is not None:
            self.file.close()

    def _saves(self) -> Iterator[Floats]:
        """Save by save the values (quantities, paths); as many saves are read at once as there is room for."""
        saves, quantities = self.shape
        paths = sum(count for _, count in self.parts)
        together = max(1, _READ // (8 * quantities * paths))
        for first in range(0, saves, together):
            count = min(together, saves - first)
            values, done = np.empty((count, quantities, paths)), 0
            for begins, size in self.parts:
                block = np.empty((count, quantities, size))
                self.file.seek(begins + 8 * first * quantities * size)
                self.file.readinto(block.data)
                values[:, :, done : done + size] = block
                done += size
            yield from values


class Joining:
    """Parts of an ensemble of so many paths, put together as they come, in the order of their paths."""

    def __init__(self, paths: int, kept: Values | Moments):
        self.paths, self.kept = paths, kept
        self.parts: list[dict[str, Any]] = []  # all but their large arrays

    def add(self, part: Mapping[str, Any]) -> None:
        """The next paths."""
        self.kept.add(part)
        small = {name: np.array(part[name]) for name in ("steps", "time", "status", "ended")}  # no views of large ones
        hyper = {name: np.array(values) for name, values in part["hyper"].items()}
        named = {"names": part["names"], "meta": part["meta"], "observables": list(part["observables"])}
        self.parts.append(small | named | {"hyper": hyper})

    def run(self) -> Run:
        """The run of all paths; those that did not come are `interrupted` before the first step."""
        first = self.parts[0]
        names, seen = first["names"], first["observables"]
        missing = self.paths - sum(len(part["status"]) for part in self.parts)
        status, ended = (
            np.concatenate([*(part[name] for part in self.parts), np.full(missing, value, self.parts[0][name].dtype)])
            for name, value in (("status", Status.INTERRUPTED), ("ended", 0))
        )
        w, observables, moments = self.kept.found(names, seen)
        steps, times = np.array(first["steps"]), np.array(first["time"])
        hyper = {
            name: np.concatenate([*(part["hyper"][name] for part in self.parts), np.full(missing, np.nan)])
            for name in first["hyper"]
        }
        return Run(steps, times, w, observables, status, ended, names, self._meta(status), moments, hyper)

    def _meta(self, status: Any) -> dict[str, Any]:
        """What made the run: that of all parts, where they differ as one run says it."""
        metas = [part["meta"] for part in self.parts]
        meta = {**metas[0], "paths": self.paths}
        if "method" in meta:
            meta["method"] = _method([m["method"] for m in metas])
        if "steps_made" in meta:
            meta["steps_made"] = sum(m["steps_made"] for m in metas)
        stopped = [at for m in metas for at in m.get("stopped_at", ())]
        meta.pop("stopped_at", None)
        if stopped and (status == Status.STOPPED).sum() <= _SEEN:
            meta["stopped_at"] = stopped
        failed = [(int(part["ended"].min()), n) for n, part in enumerate(self.parts) if "reason" in part["meta"]]
        return meta | ({"reason": metas[min(failed)[1]]["reason"]} if failed else {})


def _method(found: Sequence[str]) -> str:
    """The method of all paths: with "auto" those that any is at, the implicit one last."""
    known = dict.fromkeys(name for text in found for name in re.findall(r"[\w-]+", text.partition("(")[2]))
    if not known:
        return found[0]
    return f"auto ({', '.join(sorted(known, key=lambda name: name == 'radau'))})"


@contextmanager
def _written(path: Path | None) -> Iterator[None]:
    """Disk errors as one sentence."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(f"Cannot write {path or 'a temporary file'}: {advice(error)}.") from error
