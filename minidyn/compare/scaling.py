"""How the difference between a map and its flows shrinks with the learning rate: measured, with error bars.

E[map] - E[flow] = C lr^p      at fixed t = lr k, or at fixed slow time lr^2 k
"""

import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike
from minidyn.common.errors import InputError, said
from minidyn.common.intake import between, numbers, shown, whole
from minidyn.compare.comparison import Comparison
from minidyn.compare.order import ScalingRow, ScalingStudy, fits_of, is_exact
from minidyn.compare.readings import check_flows, check_options, labels_of
from minidyn.compare.report import ROUNDING, scales_of
from minidyn.compare.side_by_side import compare
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map
from minidyn.simulate import seed_key, starts_of
from minidyn.simulate.checkpoint import folder_of
from minidyn.simulate.identity import identity
from minidyn.simulate.progress import Bar
from minidyn.simulate.run import provenance
from minidyn.simulate.tasks import carry_tasks
from minidyn.simulate.threads import thread_count

log = logging.getLogger("minidyn")
WORK = 3e8  # of a plan, if not said: tens of seconds on two cores for small models and large ones
_FEW = 32  # paths of a pilot at least
Rung = tuple[list[ScalingRow], list[str]]


def scaling_study(system: Map, *flows: Flow | Callable[[Map], Flow], lrs: Sequence[float],
                  w0: ArrayLike | Callable[[Map], ArrayLike], time: float | None = None,
                  slow_time: float | None = None, precision: float = 0.1, paths: int | None = None, pilot: int = 400,
                  max_paths: int = 100_000, work: float = WORK, observe: Any = None, rng: Any = None,
                  threads: int | None = None, progress: bool | None = None, checkpoint: Any = None,
                  executor: Any = None, **flow_options: Any) -> ScalingStudy:  # fmt: skip
    """The order p of `E[map] - E[flow] = C lr^p`, over a ladder of learning rates.

    Parameters
    ----------
    system, flows : a `Map` and flows of it (or functions that make the flow of a map, such as `md.GradientFlow`);
        both are made anew at every learning rate. Each flow is held against the map as it reads it (`Flow.reads`), and
        has the paths that its own differences need: its rows and fits do not depend on the flows beside it.
    lrs : at least two learning rates.  time, slow_time : the end of every run, `t = lr k` or `lr^2 k`; one of them.
    w0 : where map and flows start, an array (see `compare`), or a function of the map, such as
        `lambda m: m.fixed_point(w)`.
    precision : wanted standard error of every difference, relative to it. A pilot of `pilot` paths measures spread
        and size of the differences and plans the paths that this takes, `max_paths` at most.
    work : the plan is no more than this many gradients of one sample by one parameter: paths times steps, times the
        parameters, times the samples that a step looks at. What is beyond is taken from all differences alike.
    paths : as many at every learning rate instead, without a pilot.  A map without noise has one path.
    observe : quantities beside the parameters (see `compare`).
    checkpoint : a folder in which every run of the study keeps its checkpoint, or, with an executor, each learning
        rate its rows; needs a seed in `rng`.
    executor : workers that take one learning rate each (see `simulate`), to the same bits.
    flow_options : passed to `simulate` for flows (`rtol`, `substeps`).

    Returns a `ScalingStudy`. Raises InputError for arguments that do not fit.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> gd = md.Map(md.Loss(x**4 / 4 + x**2 / 2, [x]), md.GD(0.1))
    >>> study = md.scaling_study(gd, md.GradientFlow, lrs=[0.04, 0.02, 0.01], w0=[1.0], time=1.0)
    >>> round(study.fit("gradient flow").order, 1)
    1.0
    """
    rates = _ladder(lrs)
    kind, span = _clock(time, slow_time)
    precision = between(precision, "precision", 0, 1)
    _check(system, flows, flow_options, checkpoint, rng)
    pilot, max_paths = whole("pilot", pilot, 2), whole("max_paths", max_paths, 1)
    work = between(work, "work", 0, np.inf)
    paths = None if paths is None else whole("paths", paths, 1)
    thread_count(threads)
    entropy, _ = seed_key(rng)
    sequence = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(entropy)
    maps = [system.with_lr(rate) for rate in rates]
    lengths = [_steps(span, rate, kind) for rate in rates]
    given = {"observe": observe, "threads": threads, "progress": progress, **flow_options}
    study = _Study(maps, lengths, flows, w0, sequence, folder_of(checkpoint), executor, given)
    paths = 1 if system.noise is None else paths
    if paths is None:
        counts, planned = study.plan(precision, pilot, max_paths, work)
    else:
        counts, planned = study.equal(paths), "no noise, one path" if system.noise is None else "paths as given"
    rows = study.run(counts, "study")
    meta = {
        "remarks": list(dict.fromkeys(study.remarks)),
        "map": repr(system), "clock": "time" if kind == 1 else "slow time", "span": span, "lrs": rates,
        "planned": planned, "seed": str(entropy), "keys": study.keys, **provenance(),
    }  # fmt: skip
    return ScalingStudy(rows, fits_of(rows), meta)


def _check(system: Any, flows: tuple[Any, ...], flow_options: dict[str, Any], checkpoint: Any, rng: Any) -> None:
    """Refuse what has no order in the learning rate, and options that no run has."""
    if not isinstance(system, Map):
        raise InputError(f"{said('scaling_study')} needs a Map first, not {type(system).__name__}.")
    if not flows:
        raise InputError(f"{said('scaling_study')} needs at least one flow, for example {said('md.QuasistaticFlow')}.")
    if system.rule.scheduled:
        raise InputError(f"{system.rule} has a schedule: a scaling study needs one learning rate at a time.")
    check_options(flow_options, "scaling_study")
    check_flows(system, [flow for flow in flows if isinstance(flow, Flow)])
    if folder_of(checkpoint) is not None and rng is None:
        raise InputError(f"a study with a checkpoint needs a seed: give {said('rng=0')} or another number.")


@dataclass
class _Study:
    """One comparison per learning rate, as often as it is asked for."""

    maps: list[Map]
    lengths: list[int]
    flows: tuple[Any, ...]
    w0: Any
    sequence: np.random.SeedSequence
    folder: Path | None
    executor: Any
    given: dict[str, Any]  # to every comparison
    remarks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """The flows and starts of all learning rates, made and checked before anything runs."""
        self.rungs = [[_flow_of(flow, m) for flow in self.flows] for m in self.maps]
        for m, flows in zip(self.maps, self.rungs, strict=True):
            check_flows(m, flows)
        self.keys = {name: f.key for name, f in zip(labels_of(m, flows)[1:], flows, strict=True)}
        self.starts = [self.w0(m) if callable(self.w0) else self.w0 for m in self.maps]
        for m, start in zip(self.maps, self.starts, strict=True):
            points = np.atleast_2d(m.state(start, "w0"))
            starts_of(m, points, len(points))

    def equal(self, paths: int) -> list[list[int]]:
        """As many paths at every learning rate for every flow."""
        return [[paths] * len(self.flows) for _ in self.maps]

    def plan(self, precision: float, pilot: int, most: int, work: float) -> tuple[list[list[int]], str]:
        """The paths that a pilot says are needed, by rate and flow: each flow has those that it needs itself.

        Beyond `most` and `work` there are fewer; the pilot is a quarter of the work at most, down to a few paths.
        """
        costs = [work_of(m) * steps for m, steps in zip(self.maps, self.lengths, strict=True)]
        pilot = int(min(pilot, max(_FEW, work / 4 / sum(costs))))
        first = self.run(self.equal(pilot), "pilot")
        needed = [_plan([r for r in first if r.flow == name], precision) for name in self.keys]
        counts = [[min(max(n, pilot), most) for n in rung] for rung in zip(*needed, strict=True)]
        short = f", limited to {most:,}" * (max(map(max, counts)) == most)
        wanted = sum(sum(set(rung)) * cost for rung, cost in zip(counts, costs, strict=True))
        if wanted > work:
            counts = [[max(int(n * work / wanted), pilot) for n in rung] for rung in counts]
            short = f", limited by {said('work')} {work:,.0f}"
        log.info("scaling study: %s paths of %s at lr %s", counts, [*self.keys], [m.lr() for m in self.maps])
        return counts, f"paths planned for a relative error of {precision:g} from a pilot of {pilot:,}{short}"

    def run(self, counts: list[list[int]], stage: str) -> list[ScalingRow]:
        """The rows of all learning rates, each with its own randomness; `counts` are paths by rate and flow."""
        label = "scaling study" + ", pilot" * (stage == "pilot")
        found = (self._here if self.executor is None else self._spread)(counts, stage, label)
        self.remarks[:] = [remark for _, remarks in found for remark in remarks]
        rows = [row for rung, _ in found for row in rung]
        order = {(r.flow, r.quantity): i for i, r in reversed(list(enumerate(rows)))}
        return sorted(rows, key=lambda r: order[r.flow, r.quantity])

    def _here(self, counts: list[list[int]], stage: str, label: str) -> list[Rung]:
        """One learning rate after the other."""
        total = float(sum(sum(set(n)) * k for n, k in zip(counts, self.lengths, strict=True)))
        done, found = 0.0, []
        with Bar(total, 0, self.given["progress"], label, "path-steps") as bar:
            for place, (m, steps, paths) in enumerate(zip(self.maps, self.lengths, counts, strict=True)):
                bar.update(done, note=f"lr {m.lr():.4g}, {place + 1} of {len(self.maps)}")
                found.append(self.rung(place, paths, stage))
                done += sum(set(paths)) * steps
            bar.update(total)
        return found

    def _spread(self, counts: list[list[int]], stage: str, label: str) -> list[Rung]:
        """Each learning rate on a worker, those that take longest first."""
        longest = [-sum(set(n)) * k for n, k in zip(counts, self.lengths, strict=True)]
        places = sorted(range(len(counts)), key=longest.__getitem__)
        threads = self.given["threads"] or 1
        work = copy(self)  # what a worker needs: flows and starts are made
        work.folder, work.executor, work.flows, work.w0 = None, None, (), None
        work.given = self.given | {"progress": False, "threads": threads}
        folder, what = None, {}
        if self.folder is not None:
            own = {name: value for name, value in self.given.items() if name not in ("progress", "threads")}
            made_of = self.maps, self.rungs, self.starts, self.sequence.entropy, self.sequence.spawn_key, own
            folder = self.folder / stage
            what = {"map": repr(self.maps[0]), "steps": str(self.lengths), "paths": str(counts),
                    "the study's content": identity(made_of, "the study")}  # fmt: skip
        pieces = [(place, counts[place], stage) for place in places]
        results = carry_tasks(work.task, pieces, self.executor, what=what, folder=folder, label=label,
                              progress=self.given["progress"])  # fmt: skip
        by_place = dict(zip(places, results, strict=True))
        return [([ScalingRow(*row) for row in rows], said) for _, (rows, said) in sorted(by_place.items())]

    def task(self, piece: tuple[int, list[int], str]) -> tuple[list[Any], list[str]]:
        """`rung` for a worker: rows as tuples."""
        rows, remarks = self.rung(*piece)
        return [astuple(row) for row in rows], remarks

    def rung(self, place: int, counts: list[int], stage: str) -> Rung:
        """A learning rate's rows, and what is remarked of its comparisons.

        The flows with as many paths are compared together: path i of the map is the same in every group.
        """
        m, flows, steps = self.maps[place], self.rungs[place], self.lengths[place]
        key = (*self.sequence.spawn_key, 2 * place + (stage == "study"))
        names = labels_of(m, flows)[1:]
        rows: list[ScalingRow] = []
        remarks: list[str] = []
        for paths in dict.fromkeys(counts):
            group = [i for i, n in enumerate(counts) if n == paths]
            folder = self.folder and self.folder / f"{stage}-{place}-{group[0]}"
            result: Comparison = compare(
                m,
                *(flows[i] for i in group),
                w0=self.starts[place],
                steps=steps,
                save_every=steps,
                paths=paths,
                rng=np.random.SeedSequence(self.sequence.entropy, spawn_key=key),
                rows=1,
                checkpoint=folder,
                **self.given,
            )
            called, scales = dict(zip(list(result.runs)[1:], (names[i] for i in group), strict=True)), scales_of(result)
            for r in result.errors:
                least = ROUNDING * scales[r.quantity, r.flow].at(r.step)
                exact = max(abs(r.difference), r.standard_error) <= least  # beside what the quantity has been
                seen = (0.0, 0.0) if exact else (r.difference, r.standard_error)
                rows.append(ScalingRow(r.quantity, called[r.flow], m.lr(), r.step, r.time, r.paths, r.map_mean,
                                       r.flow_mean, *seen, r.variance_ratio))  # fmt: skip
            remarks += _remarks(m.lr(), result, called)
        return sorted(rows, key=lambda r: names.index(r.flow)), remarks


def _remarks(lr: float, result: Comparison, called: dict[str, str]) -> list[str]:
    """What a comparison says beside its table: paths that ended, what flows of mid-points do not describe."""
    ended = [
        f"at lr {lr:.6g} {called.get(label, label)}: {run.describe_status()}"
        for label, run in result.runs.items()
        if not run.finished.all()
    ]
    remark = result.meta["remark"]
    return [*ended, *([f"at the end of lr {lr:.6g} {remark}"] if remark else [])]


def work_of(system: Map) -> int:
    """The gradients of one sample by one parameter in a step of one path."""
    return system.loss.dim * system.bound.batch


def _flow_of(flow: Any, system: Map) -> Flow:
    makes = issubclass(flow, Flow) if isinstance(flow, type) else callable(flow)
    made = flow.of(system) if isinstance(flow, Flow) else flow(system) if makes else None
    if not isinstance(made, Flow):
        raise InputError(f"{shown(flow)} is not a flow, nor a function that makes one of a map.")
    return made


def _ladder(lrs: Sequence[float]) -> list[float]:
    rates = sorted(set(np.ravel(numbers(lrs, "lrs")).tolist()), reverse=True)
    if len(rates) < 2 or not all(0 < rate < np.inf for rate in rates):
        raise InputError(f"{said('lrs')} must be at least two different positive learning rates, not {shown(lrs)}.")
    return rates


def _steps(span: float, rate: float, kind: int) -> int:
    """How many steps a rate takes, or an InputError where nobody could count them."""
    length = span / rate**kind if rate**kind else np.inf
    if not length <= 2**53:
        raise InputError(f"the study takes {length:.3g} steps at lr {rate:g}; make its time shorter or lr larger.")
    return max(1, round(length))


def _clock(time: float | None, slow_time: float | None) -> tuple[int, float]:
    """Power of lr in the clock, and where it stops."""
    if (time is None) == (slow_time is None):
        raise InputError(
            f"give the end of the runs as {said('time=')} (t = lr k) or as {said('slow_time=')} (lr^2 k), "
            "one of the two."
        )
    if time is not None:
        return 1, between(time, "time", 0, np.inf)
    return 2, between(slow_time, "slow_time", 0, np.inf)


def _plan(rows: list[ScalingRow], precision: float) -> list[int]:
    """Paths per learning rate that give every difference seen in the pilot the wanted relative error."""
    rates = sorted({r.lr for r in rows}, reverse=True)
    needed = dict.fromkeys(rates, 0.0)
    seen = {(f.flow, f.quantity): f for f in fits_of(rows) if f.resolved}
    if not seen:
        return [0 if all(map(is_exact, rows)) else 2**62] * len(rates)
    for r in rows:
        fit = seen.get((r.flow, r.quantity))
        if fit is not None and r.standard_error > 0:
            clear = abs(r.difference) > 4 * r.standard_error
            size = abs(r.difference) if clear else abs(fit.constant) * r.lr**fit.order
            needed[r.lr] = max(needed[r.lr], r.paths * (r.standard_error / (precision * max(size, 1e-300))) ** 2)
    return [int(min(np.ceil(needed[rate]), 2**62)) for rate in rates]
