"""A map and its flows side by side, on one clock, with error bars on the difference."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers
from minidyn.common.errors import FlowError, InputError, ManifoldError, said
from minidyn.common.intake import flag, one_of, whole
from minidyn.common.status import Status
from minidyn.compare.comparison import Comparison, ErrorRow, read_label, row_of
from minidyn.compare.readings import check_flows, check_options, labels_of, one_later, paths_of, read_map
from minidyn.compare.regime import regimes_of
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map
from minidyn.simulate import check_checkpoint, every_of, observables, paths_needed, seed_key, simulate, starts_of
from minidyn.simulate.checkpoint import folder_of, stored_seed
from minidyn.simulate.progress import Bar
from minidyn.simulate.run import Run
from minidyn.simulate.saves import LOG, round_saves
from minidyn.simulate.tasks import job_of
from minidyn.simulate.threads import thread_count

_FEW = 6  # up to this many parameters each is compared; beyond, observables are
_ALONE, _MANY = 601, 21  # saves at which one path is compared, and many: a fine picture of one costs little
_ZERO = 1e-12  # a parameter that stays below this on the manifold is zero to rounding
_ROUNDING = 1e-9  # and what is observed, below this part of what it is along the map


def compare(system: Map, *flows: Flow, w0: ArrayLike, steps: int, paths: int = 1000, coupled: bool = True,
            save_every: Any = None, observe: Any = None, rng: Any = None, rows: int = 5, first_step: int = 1,
            threads: int | None = None, progress: bool | None = None, checkpoint: Any = None, missing: str = "raise",
            executor: Any = None, **flow_options: Any) -> Comparison:  # fmt: skip
    """Run a map and its flows in lock-step on one clock, and say how well they agree.

    Parameters
    ----------
    system, flows : a `Map` and flows of it.
    w0 : starting parameters, (D,) or (paths, D); flows on the manifold start at its projection. The map may
        be given its whole state, such as `map.fixed_point(w)`, to start without a transient.
    coupled : drive map and flow with the same normals where all noise is Gaussian; error bars are those of the paired
        difference, and `ErrorRow.variance_ratio` says how much variance that removed.
    observe : further quantities (see `simulate`); with more than six parameters these are what is
        compared (by default loss, sharpness and trace). Parameters that are zero on the manifold are left out, and the
        summary says so; what is asked for stays.
    first_step : the number k of the map's first step (see `simulate`).
    checkpoint : a folder in which every run keeps its own checkpoint (see `simulate`).
    missing : what happens where a flow does not exist: "raise", or "remark", where the other flows are compared and
        the summary says why this one is not (`meta["missing"]`).
    executor : workers that run the paths of the map and of each flow in parts, to the same bits (see `simulate`); what
        is said of them is found here.
    rows : steps shown in the table; quantities are kept at up to 21 saves, at up to 601 for one path or logarithmic
        saves, or more where `rows` is larger.  flow_options : passed to `simulate` for flows (`rtol`, `substeps`).

    The map is read as each flow says (`Flow.reads`): as it is, at mid-points of successive iterates beside flows of
    mid-points, projected on the minima beside flows that live there. What is said of a flow depends on it and the map
    alone, not on the flows beside it.

    Beside flows of mid-points the summary remarks where the map does not end in the period-two oscillation that they
    describe (see `regime`).

    Raises InputError for arguments that do not fit, FlowError or ManifoldError where a flow does not exist.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(lr=0.05), md.GaussianNoise(0.3))
    >>> result = md.compare(sgd, md.QuasistaticFlow(sgd), w0=[2, 0], steps=400, paths=200, rng=0)
    >>> bool(abs(result.errors[-1].sigmas) < 5)
    True
    """
    return _Experiment(
        system, flows, w0, steps, paths, coupled, save_every, observe, rng, rows, first_step, threads, progress,
        checkpoint, missing, executor, flow_options,
    ).result()  # fmt: skip


@dataclass
class _Experiment:
    """The arguments of `compare`, and the way from them to the result."""

    system: Map
    flows: tuple[Flow, ...]
    w0: Any
    steps: int
    paths: int
    coupled: bool
    save_every: Any
    observe: Any
    rng: Any
    rows: int
    first_step: int
    threads: int | None
    progress: bool | None
    checkpoint: Any
    missing: str
    executor: Any
    flow_options: dict[str, Any]

    def result(self) -> Comparison:
        """Everything is checked before anything runs; then the map, its flows, and what is said of them."""
        self.check()
        entropy, _ = seed_key(self._stored_seed() if self.rng is None else self.rng)
        given = isinstance(self.rng, np.random.SeedSequence)
        sequence = self.rng if given else np.random.SeedSequence(entropy)
        counts, absent = self.existing()
        runs = self.runs(sequence, counts)
        beside = {label: flow for label, flow in self.asked.items() if label in runs}
        first = runs[self.name]
        fine = self.paths == 1 or self.save_every == LOG
        times = _pick(len(first.steps), max(_ALONE if fine else _MANY, self.rows + 1), self.system.noise is None)
        later, remark = self.later(beside, first.steps[times], sequence)
        quantities, zero = _quantities(
            self.system, runs, beside, times, self.watchers, later, thread_count(self.threads)
        )
        paired = {
            label: self.coupled and flow.couples and runs[label].paths == self.paths for label, flow in beside.items()
        }
        meta = {
            "map": repr(self.system), "flows": [f.name for f in beside.values()], "seed": str(entropy),
            "paths": self.paths, "steps": self.steps, "coupled": any(paired.values()), "paired": paired,
            "lr": self.system.lr(self.first_step), "remark": remark,
            "reads": {label: flow.reads for label, flow in beside.items()}, "zero": zero, "missing": absent,
        }  # fmt: skip
        result = Comparison(runs, quantities, first.steps[times], first.time[times], [], meta, self.system.loss)
        log = self.save_every == LOG
        meta |= {"rows": "of the logarithmic saves those nearest to round numbers"} if log else {}
        result.errors += [row for label in beside for row in _rows_of(result, label, self.rows, log)]
        return result

    def check(self) -> None:
        """Everything that can be wrong with the arguments; the labels, the starts, and what is observed."""
        if not isinstance(self.system, Map):
            raise InputError(f"compare needs a Map first, not {type(self.system).__name__}.")
        if not self.flows:
            raise InputError(f"compare needs at least one flow, for example {said('md.QuasistaticFlow')}(map).")
        check_options(self.flow_options, "compare")
        check_flows(self.system, self.flows)
        self.folder(0)  # refuses what is none
        one_of(self.missing, "missing", ("raise", "remark"))
        flag(self.coupled, "coupled")
        for name in ("steps", "rows", "first_step"):
            whole(name, getattr(self, name), 1)
        self.save_every = every_of(self.system, self.steps, self.save_every)
        thread_count(self.threads)
        start = starts_of(self.system, self.w0, whole("paths", self.paths, 1))
        self.paths = paths_needed(self.system, start)
        self.starts = start[: self.paths]
        self.name, *labels = labels_of(self.system, self.flows)
        self.asked = dict(zip(labels, self.flows, strict=True))
        self.start = np.atleast_2d(self.system.state(self.w0, "w0"))
        many = self.observe is None and self.system.dim > _FEW
        self.watchers = observables.resolve(self.system, ["loss", "sharpness", "trace"] if many else self.observe)
        for watch in self.watchers.values():  # a function that does not fit is found at the first point
            watch(self.start[:1, : self.system.dim])

    def existing(self) -> tuple[dict[str, int], dict[str, str]]:
        """How many paths each flow has, and which ones do not exist, and why."""
        counts, absent = {}, {}
        for label, flow in self.asked.items():
            try:
                counts[label] = paths_of(flow, self.start, self.steps, self.paths, self.first_step, self.flow_options)
            except (FlowError, ManifoldError) as e:
                absent[label] = str(e)
                if self.missing == "raise" or len(absent) == len(self.flows):
                    raise
        return counts, absent

    def runs(self, sequence: np.random.SeedSequence, counts: dict[str, int]) -> dict[str, Run]:
        """The map and the flows that exist, on one clock, up to where somebody interrupts a flow."""
        own = sequence
        if not self.coupled:
            own = np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, 1))
        todo: dict[str, tuple[Map | Flow, Any, dict[str, Any]]] = {}
        todo[self.name] = self.system, self.w0, self.options(self.paths, sequence, 0)
        todo |= {
            label: (flow, self.start, self.options(counts[label], own, number) | self.flow_options)
            for number, (label, flow) in enumerate(self.asked.items(), 1)
            if label in counts
        }
        for system, w0, options in todo.values() if self.checkpoint is not None else ():
            check_checkpoint(system, w0, self.steps, **options)
        runs: dict[str, Run] = {}
        with Bar(len(todo), 0, self.progress, "compare", "runs") as bar:
            for label, (system, w0, options) in todo.items():
                bar.update(len(runs))
                runs[label] = simulate(
                    system, w0, self.steps, progress=self.progress, executor=self.executor, **options
                )
                if label == self.name:
                    _stop_if_interrupted(runs[label])
                elif (runs[label].status == Status.INTERRUPTED).any():
                    break
            else:
                bar.update(len(todo))
        return runs

    def options(self, paths: int, rng: np.random.SeedSequence, number: int) -> dict[str, Any]:
        """What one run is given, with a checkpoint's folder of its own."""
        own = {"paths": paths, "rng": rng, "first_step": self.first_step, "checkpoint": self.folder(number)}
        return own | self.common | self.seen

    @property
    def common(self) -> dict[str, Any]:
        """What all runs are given."""
        return {"save_every": self.save_every, "threads": self.threads}

    def _stored_seed(self) -> Any:
        """That of the map's run in the folder, in parts or in one piece; None where there is none."""
        job = job_of(self.folder(0))
        return stored_seed(self.folder(0)) if job is None else json.loads(job["seed"])

    @property
    def seen(self) -> dict[str, Any]:
        """What is observed along the runs: what was asked for."""
        return {} if self.observe is None else {"observe": self.observe}

    def folder(self, number: int) -> Path | None:
        """The folder of one run's checkpoint."""
        folder = folder_of(self.checkpoint)
        return None if folder is None else folder / str(number)

    def later(
        self,
        beside: dict[str, Flow],
        steps: Integers,
        sequence: np.random.SeedSequence,
    ) -> tuple[Floats | None, str]:
        """Beside flows of mid-points, the map one step later, and what such flows do not describe about its end, if
        anything is known of it."""
        if all(flow.reads != "midpoints" for flow in beside.values()):
            return None, ""
        key, threads = seed_key(sequence)[1], thread_count(self.threads)
        later = one_later(self.system, self.starts, steps, self.first_step, key, threads, self.progress)
        if self.steps == 1 or self.system.noise is not None:
            return later, ""
        found = regimes_of(self.system, self.start, self.steps, first_step=self.first_step, threads=threads)
        return later, found.remark


def _stop_if_interrupted(run: Run) -> None:
    """A comparison without its map is none."""
    if (run.status == Status.INTERRUPTED).any():
        raise KeyboardInterrupt


def _pick(count: int, wanted: int, odd: bool = False) -> Integers:
    """Up to `wanted` places in 0 .. count-1, first and last included; an odd number apart so that both phases of an
    oscillation of period two are seen."""
    if odd:
        return np.unique([*range(0, count - 1, -(-(count - 1) // max(wanted - 1, 1)) | 1), count - 1]).astype(np.int64)
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def _quantities(
    system: Map,
    runs: dict[str, Run],
    beside: dict[str, Flow],
    times: Integers,
    watchers: dict[str, observables.Observable],
    later: Floats | None,
    threads: int,
) -> tuple[dict[str, dict[str, Floats]], dict[str, list[str]]]:
    """name -> label -> values (paths, T); and label -> parameters that are zero on the manifold, which say nothing.

    Each flow is treated as if it stood alone: what is read, kept and left out depends on it and the map only.
    """
    map_label, first = next(iter(runs.items()))
    readings = list(dict.fromkeys(flow.reads for flow in beside.values()))
    keys = {r: map_label if len(readings) == 1 else read_label(map_label, r) for r in readings}
    seen = _seen(first, times)
    read = {
        r: _values(system, read_map(system, r, first, later, times, threads), watchers, seen if r == "iterates" else {})
        for r in readings
    }
    raw: dict[str, float] = {}  # the largest value along the map of what was asked for: its projections are small to it
    if "projected" in read:
        raw = {name: _top(values) for name, values in seen.items()}
        read["projected"] = _settled(read["projected"], raw)
    out: dict[str, dict[str, Floats]] = {name: {} for name in next(iter(read.values()), {})}
    zero: dict[str, list[str]] = {}
    for label, flow in beside.items():
        w = runs[label].w
        assert w is not None
        late = times[times < w.shape[1]]
        mine = _values(system, np.ascontiguousarray(w[:, late]), watchers, _seen(runs[label], late))
        maps, dropped = read[flow.reads], set()
        if flow.reads == "projected":
            mine = _settled(mine, raw)
            vanish = {name for name in mine if _top(maps[name]) <= _ZERO and _top(mine[name]) <= _ZERO}
            dropped = {name for name in vanish if name not in raw}
            dropped = dropped if len(dropped) < len(mine) else set()
        for name, values in mine.items():
            if name in dropped:
                zero.setdefault(label, []).append(name)
                continue
            out[name].setdefault(keys[flow.reads], maps[name])
            out[name][label] = np.pad(values, ((0, 0), (0, len(times) - len(late))), constant_values=np.nan)
    ordered = {name: {key: by[key] for key in (*keys.values(), *beside) if key in by} for name, by in out.items() if by}
    return ordered, zero


def _seen(run: Run, times: Integers) -> dict[str, Floats]:
    """name -> (paths, T) of what was observed along a run, which is what was asked for."""
    return {name: values[:, times] for name, values in run.observables.items()}


def _values(
    system: Map,
    w: Floats,
    watchers: dict[str, observables.Observable],
    seen: dict[str, Floats],
) -> dict[str, Floats]:
    """name -> (paths, T) of points (paths, T, D), at which some are `seen` already."""
    few = system.dim <= _FEW
    out = {name: w[:, :, p] for p, name in enumerate(system.loss.param_names)} if few else {}
    flat = w.reshape(-1, system.dim)
    return out | {
        name: seen[name] if name in seen else watch(flat).reshape(w.shape[:2]) for name, watch in watchers.items()
    }


def _settled(values: dict[str, Floats], raw: dict[str, float]) -> dict[str, Floats]:
    """Values on the manifold, those that were asked for and are zero to rounding there, as the loss is, as zeros."""
    zero = {name for name, size in raw.items() if _top(values[name]) <= min(_ZERO, _ROUNDING * size)}
    return {name: np.where(np.isfinite(v), 0.0, np.nan) if name in zero else v for name, v in values.items()}


def _top(values: Floats) -> float:
    """The largest absolute value that is finite; infinity where none is."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if len(finite) else np.inf


def _rows_of(result: Comparison, label: str, rows: int, log: bool) -> list[ErrorRow]:
    """The table of one flow: every quantity at up to `rows` steps that its run reached."""
    held = int((result.steps <= result.runs[label].steps[-1]).sum())
    places = round_saves(result.steps[:held], rows) if log else _pick(held, rows + 1)[1:]
    paired = result.paired(label)
    out = []
    for name in (name for name, values in result.quantities.items() if label in values):
        a, b = result.pair(name, label)
        out += [
            row_of(name, label, a[:, t], b[:, t], int(result.steps[t]), float(result.time[t]), paired) for t in places
        ]
    return out
