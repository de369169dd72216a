"""A map and its flows side by side, on one clock, with error bars on the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidyn.common.errors import FlowError, InputError, ManifoldError
from minidyn.common.intake import flag, one_of, whole
from minidyn.common.status import Status
from minidyn.compare.comparison import Comparison, ErrorRow, read_label, row_of
from minidyn.compare.readings import check_flows, check_folder, check_options, labels_of, one_later, paths_of, read_map
from minidyn.compare.regime import regime
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map
from minidyn.simulate import _starts, observables, seed_key, simulate
from minidyn.simulate.checkpoint import stored_seed
from minidyn.simulate.progress import Bar
from minidyn.simulate.run import Run
from minidyn.simulate.threads import thread_count

Floats = NDArray[np.float64]
_FEW = 6  # up to this many parameters each is compared; beyond, observables are
_ALONE, _MANY = 201, 21  # saves at which one path is compared, and many: a fine picture of one costs little
_ZERO = 1e-12  # a parameter that stays below this on the manifold is zero to rounding
_ROUNDING = 1e-9  # and what is observed, below this part of what it is along the map


def compare(system: Map, *flows: Flow, w0: ArrayLike, steps: int, paths: int = 1000, coupled: bool = True,
            save_every: int | None = None, observe: Any = None, rng: Any = None, rows: int = 5, first_step: int = 1,
            threads: int | None = None, progress: bool | None = None, checkpoint: Any = None, missing: str = "raise",
            **flow_options: Any) -> Comparison:  # fmt: skip
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
    rows : steps shown in the table; quantities are kept at up to 21 saves, 201 for one path, or more where `rows` is
        larger.  flow_options : passed to `simulate` for flows (`rtol`, `substeps`).

    The map is read as each flow says (`Flow.reads`): as it is, at mid-points of successive iterates beside flows of
    centres, projected on the minima beside flows that live there. What is said of a flow depends on it and the map
    alone, not on the flows beside it.

    Beside flows of centres the summary remarks where the map does not end in the period-two oscillation that they
    describe (see `regime`).

    Raises InputError for arguments that do not fit, FlowError or ManifoldError where a flow does not exist.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(lr=0.05), md.GaussianNoise(0.3))
    >>> result = md.compare(sgd, md.QuasistaticFlow(sgd), w0=[2, 0], steps=400, paths=200, rng=0)
    >>> bool(abs(result.errors[-1].sigmas) < 5)
    True
    """
    start, watchers = _checked(system, flows, w0, steps, paths, coupled, save_every, observe, rows, first_step,
                               threads, checkpoint, missing, flow_options)  # fmt: skip
    first_folder = _place(checkpoint, 0)
    entropy, _ = seed_key(stored_seed(first_folder) if rng is None and first_folder is not None else rng)
    sequence = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(entropy)
    common: dict[str, Any] = {"save_every": save_every, "threads": threads, "progress": progress}
    labels = labels_of(system, flows)
    counts, absent = _existing(labels, flows, start, steps, paths, first_step, missing, flow_options)
    beside = dict(zip(labels[1:], flows, strict=True))
    with Bar(len(labels), 0, progress, "compare", "runs") as bar:
        first = simulate(system, w0, steps, paths=paths, rng=sequence, first_step=first_step, checkpoint=first_folder,
                         **common)  # fmt: skip
        runs = {labels[0]: first}
        if (first.status == Status.INTERRUPTED).any():
            raise KeyboardInterrupt
        own = sequence if coupled else np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, 1))
        for number, (label, flow) in enumerate(beside.items(), 1):
            bar.update(number)
            if label in absent:
                continue
            runs[label] = simulate(flow, start, steps, paths=counts[label], rng=own, first_step=first_step,
                                   checkpoint=_place(checkpoint, number), **common, **flow_options)  # fmt: skip
            if (runs[label].status == Status.INTERRUPTED).any():
                break
    beside = {label: flow for label, flow in beside.items() if label in runs}
    times = _pick(len(first.steps), max(_ALONE if paths == 1 else _MANY, rows + 1))
    ahead, remark = None, ""
    if any(flow.reads == "midpoints" for flow in beside.values()):
        ahead = one_later(system, w0, steps, first_step, paths=len(start), **common)
        if (ahead.status == Status.INTERRUPTED).any():
            raise KeyboardInterrupt
        remark = _regime(system, start, steps, first_step)
    quantities, zero = _quantities(system, runs, beside, times, watchers, observe is not None, ahead,
                                   thread_count(threads))  # fmt: skip
    paired = {label: coupled and flow.couples and runs[label].paths == paths for label, flow in beside.items()}
    meta = {
        "map": repr(system), "flows": [f.name for f in beside.values()], "seed": str(entropy), "paths": paths,
        "steps": steps, "coupled": any(paired.values()), "paired": paired, "lr": system.lr(first_step),
        "remark": remark, "reads": {label: flow.reads for label, flow in beside.items()}, "zero": zero,
        "missing": absent,
    }  # fmt: skip
    result = Comparison(runs, quantities, first.steps[times], first.time[times], [], meta, system.loss)
    result.errors += [row for label in beside for row in _rows_of(result, label, rows)]
    return result


def _checked(system: Map, flows: tuple[Flow, ...], w0: ArrayLike, steps: int, paths: int, coupled: bool,
             save_every: int | None, observe: Any, rows: int, first_step: int, threads: int | None, checkpoint: Any,
             missing: str, flow_options: dict[str, Any],
             ) -> tuple[Floats, dict[str, observables.Observable]]:  # fmt: skip
    """Everything that can be wrong with the arguments, before anything runs; the starts, and what is observed."""
    if not isinstance(system, Map):
        raise InputError(f"compare needs a Map first, not {type(system).__name__}.")
    if not flows:
        raise InputError("compare needs at least one flow, for example md.QuasistaticFlow(map).")
    check_options(flow_options, "compare")
    check_flows(system, flows)
    check_folder(checkpoint)
    one_of(missing, "missing", ("raise", "remark"))
    flag(coupled, "coupled")
    whole("steps", steps, 1)
    whole("rows", rows, 1)
    whole("first_step", first_step, 1)
    if save_every is not None:
        whole("save_every", save_every, 1)
    thread_count(threads)
    _starts(system, w0, whole("paths", paths, 1))
    start = np.atleast_2d(system.state(w0, "w0"))
    named = observe if observe is not None or system.dim <= _FEW else ["loss", "sharpness", "trace"]
    watchers = observables.resolve(system.loss, named)
    for watch in watchers.values():  # a function that does not fit is found at the first point
        watch(start[:1, : system.dim])
    return start, watchers


def _existing(labels: list[str], flows: tuple[Flow, ...], start: Floats, steps: int, paths: int, first_step: int,
              missing: str, options: dict[str, Any]) -> tuple[dict[str, int], dict[str, str]]:  # fmt: skip
    """How many paths each flow has, and which ones do not exist, and why."""
    counts, absent = {}, {}
    for label, flow in zip(labels[1:], flows, strict=True):
        try:
            counts[label] = paths_of(flow, start, steps, paths, first_step, options)
        except (FlowError, ManifoldError) as e:
            absent[label] = str(e)
            if missing == "raise" or len(absent) == len(flows):
                raise
    return counts, absent


def _place(checkpoint: Any, number: int) -> Path | None:
    """The folder of one run's checkpoint."""
    return None if checkpoint is None else Path(checkpoint) / str(number)


def _regime(system: Map, start: Floats, steps: int, first_step: int) -> str:
    """What flows of centres do not describe about the end of the map, if anything."""
    remark = regime(system, start[0], steps, first_step=first_step).remark if steps > 1 else ""
    return f"(of the first of {len(start):,} starts) {remark}" if remark and len(start) > 1 else remark


def _pick(count: int, wanted: int) -> NDArray[np.int64]:
    """Up to `wanted` places in 0 .. count-1, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def _quantities(system: Map, runs: dict[str, Run], beside: dict[str, Flow], times: NDArray[np.int64],
                watchers: dict[str, observables.Observable], asked: bool, ahead: Run | None, threads: int,
                ) -> tuple[dict[str, dict[str, Floats]], dict[str, list[str]]]:  # fmt: skip
    """name -> label -> values (paths, T); and label -> parameters that are zero on the manifold, which say nothing.

    Each flow is treated as if it stood alone: what is read, kept and left out depends on it and the map only.
    """
    map_label, first = next(iter(runs.items()))
    readings = list(dict.fromkeys(flow.reads for flow in beside.values()))
    keys = {r: map_label if len(readings) == 1 else read_label(map_label, r) for r in readings}
    read = {r: _values(system, read_map(system, r, first, ahead, times, threads), watchers) for r in readings}
    raw = _sizes(system, first, times, watchers if asked and "projected" in readings else {})
    if "projected" in read:
        read["projected"] = _settled(read["projected"], raw)
    out: dict[str, dict[str, Floats]] = {name: {} for name in next(iter(read.values()), {})}
    zero: dict[str, list[str]] = {}
    for label, flow in beside.items():
        w = runs[label].w
        assert w is not None
        late = times[times < w.shape[1]]
        mine = _values(system, np.ascontiguousarray(w[:, late]), watchers)
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


def _values(system: Map, w: Floats, watchers: dict[str, observables.Observable]) -> dict[str, Floats]:
    """name -> (paths, T) of points (paths, T, D)."""
    few = system.dim <= _FEW
    out = {name: w[:, :, p] for p, name in enumerate(system.loss.param_names)} if few else {}
    flat = w.reshape(-1, system.dim)
    return out | {name: watch(flat).reshape(w.shape[:2]) for name, watch in watchers.items()}


def _sizes(system: Map, run: Run, times: NDArray[np.int64], watchers: dict[str, observables.Observable],
           ) -> dict[str, float]:  # fmt: skip
    """The largest value along the map of all that was asked for: what its projections are small against."""
    assert run.w is not None
    return {name: _top(watch(run.w[:, times].reshape(-1, system.dim))) for name, watch in watchers.items()}


def _settled(values: dict[str, Floats], raw: dict[str, float]) -> dict[str, Floats]:
    """Values on the manifold, those that were asked for and are zero to rounding there, as the loss is, as zeros."""
    zero = {name for name, size in raw.items() if _top(values[name]) <= min(_ZERO, _ROUNDING * size)}
    return {name: np.where(np.isfinite(v), 0.0, np.nan) if name in zero else v for name, v in values.items()}


def _top(values: Floats) -> float:
    """The largest absolute value that is finite; infinity where none is."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if len(finite) else np.inf


def _rows_of(result: Comparison, label: str, rows: int) -> list[ErrorRow]:
    """The table of one flow: every quantity at up to `rows` steps that its run reached."""
    held = int((result.steps <= result.runs[label].steps[-1]).sum())
    paired = result.paired(label)
    out = []
    for name in (name for name, values in result.quantities.items() if label in values):
        a, b = result.pair(name, label)
        out += [
            row_of(name, label, a[:, t], b[:, t], int(result.steps[t]), float(result.time[t]), paired)
            for t in _pick(held, rows + 1)[1:]
        ]
    return out
