"""A map and its flows side by side, on one clock, with error bars on the difference."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidyn import observables
from minidyn.byvalue import ByValue
from minidyn.errors import FlowError, InputError, ManifoldError
from minidyn.flows import QuasistaticFlow
from minidyn.flows.base import Flow
from minidyn.laws import DISTANCES, LawRow, distances
from minidyn.manifold import Manifold
from minidyn.maps import Map
from minidyn.regime import regime
from minidyn.simulate import seed_key, simulate
from minidyn.simulate.checkpoint import stored_seed
from minidyn.simulate.progress import Bar
from minidyn.simulate.threads import thread_count
from minidyn.trajectory import Run, Status

Floats = NDArray[np.float64]
_FEW = 6  # up to this many parameters each is compared; beyond, observables are
_NEAR_ZERO = 1e-14


@dataclass(frozen=True, eq=False)
class ErrorRow(ByValue):
    """One quantity at one step: ensemble mean and spread of map and flow, and their difference.

    `standard_error` is that of `difference` = flow mean - map mean; it is paired where map and flow
    share their noise. `sigmas` is the difference in standard errors. `paths` is how many paths it rests on.
    `variance_ratio` is how much smaller the variance of `difference` is than without that coupling: as many times
    more paths would be needed (NaN where nothing is coupled).
    """

    quantity: str
    flow: str
    step: int
    time: float
    map_mean: float
    map_spread: float
    flow_mean: float
    flow_spread: float
    difference: float
    standard_error: float
    sigmas: float
    paths: int
    variance_ratio: float = float("nan")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """A confidence interval of the difference of means (Student; Welch 1947 where the samples are independent).

        >>> row = ErrorRow("x", "flow", 10, 1.0, 0.0, 1.0, 0.5, 0.0, 0.5, 0.1, 5.0, 101)
        >>> [round(end, 3) for end in row.interval()]
        [0.302, 0.698]
        """
        from scipy.special import stdtrit

        free = self.paths - 1.0
        if np.isnan(self.variance_ratio):
            a, b = self.map_spread**2, self.flow_spread**2
            free = free * (a + b) ** 2 / (a**2 + b**2) if a + b > 0 else free
        half = float(stdtrit(free, 0.5 + level / 2)) * self.standard_error if self.standard_error > 0 else 0.0
        return self.difference - half, self.difference + half


@dataclass(eq=False)
class Comparison(ByValue):
    """What `compare` returns.

    runs : label -> `Run`; the map's comes first.
    quantities : name -> label -> (paths, T) values at `steps`; a flow without noise has one path.
        On a manifold, the map's iterates are compared after the projection Phi.
    errors : rows of the table.  meta : how the comparison was made.  loss : the map's loss (None in a loaded file).
    """

    runs: dict[str, Run]
    quantities: dict[str, dict[str, Floats]]
    steps: NDArray[np.int64]
    time: Floats
    errors: list[ErrorRow]
    meta: dict[str, Any]
    loss: Any = field(default=None, repr=False, compare=False)

    @property
    def map_label(self) -> str:
        """The label of the map's run."""
        return next(iter(self.runs))

    def paired(self, label: str) -> bool:
        """Whether path i of this flow was driven by the noise of the map's path i."""
        values = next(iter(self.quantities.values()), {})
        alike = label in values and values[label].shape == values[self.map_label].shape
        return alike and bool(self.meta.get("paired", {}).get(label, self.meta.get("coupled")))

    def laws(self, resamples: int = 400, seed: int = 0) -> list[LawRow]:
        """Distances between the laws of map and flow (Wasserstein-1, Kolmogorov-Smirnov, energy), for every quantity at
        every step of the table, with what equal laws would give and what could be seen at this number of paths.

        A flow without spread has no law to compare: it has no rows. The same `seed` gives the same rows.

        >>> import minidyn as md
        >>> result = md.load_model("valley").run(steps=200, paths=300)
        >>> print(result.laws()[0])  # doctest: +ELLIPSIS
        x at step 40: indistinguishable at 300 paths, Wasserstein-1 distance ... detectable from ...
        """
        return [law for row in self.errors for law in self._laws_of(row, resamples, seed)]

    def _laws_of(self, row: ErrorRow, resamples: int = 400, seed: int = 0) -> list[LawRow]:
        place = int(np.searchsorted(self.steps, row.step))
        a, b = (self.quantities[row.quantity][label][:, place] for label in (self.map_label, row.flow))
        paired = self.paired(row.flow)
        both = np.isfinite(a) & np.isfinite(b) if paired else np.ones(1, bool)
        a, b = (v[both & np.isfinite(v)] for v in (a, b))
        if len(a) < 2 or len(b) < 2:
            return []
        found = distances(a, b, paired, resamples, np.random.default_rng(seed))
        key = (row.quantity, row.flow, row.step, row.time)
        rows = {name: found[name].tolist() for name in DISTANCES}
        return [LawRow(*key, name, v, error, p, high, sure, len(b)) for name, (v, error, p, high, sure) in rows.items()]

    @cached_property
    def _last_laws(self) -> dict[tuple[str, str], list[LawRow]]:
        """The laws at the last step: (quantity, flow) -> one row per distance."""
        last = {(row.quantity, row.flow): row for row in self.errors}
        few = {key: max(100, min(400, 20_000_000 // max(row.paths, 1))) for key, row in last.items()}
        return {key: rows for key, row in last.items() if (rows := self._laws_of(row, few[key]))}

    def distances(self) -> dict[tuple[str, str], dict[str, float]]:
        """For each (quantity, flow): sup and root-mean-square over the steps of the difference of means,
        over the same paths where map and flow share their noise."""
        out = {}
        for name, values in self.quantities.items():
            centre = values[self.map_label]
            for label in list(self.runs)[1:]:
                other = values[label]
                if self.paired(label):
                    gap = np.abs(_mean(other - centre))
                else:
                    gap = np.abs(_mean(other) - _mean(centre))
                gap = gap[np.isfinite(gap)]
                largest = float(gap.max(initial=0.0)) if len(gap) else float("nan")
                rms = largest * float(np.sqrt(np.mean((gap / largest) ** 2))) if largest > 0 else largest
                out[name, label] = {"sup": largest, "rms": rms}
        return out

    def summary(self) -> str:
        """The comparison as a table: means and spreads at several steps, differences in standard errors."""
        head = ["quantity", "step", self.map_label, "flow", "difference", "std. error", "in s.e.", "coupling"]
        lines = [self._headline()]
        for label in list(self.runs)[1:]:
            rows = [r for r in self.errors if r.flow == label]
            table = [head] + [
                [
                    r.quantity, f"{r.step:,}", _pm(r.map_mean, r.map_spread), _pm(r.flow_mean, r.flow_spread),
                    f"{r.difference:+.2g}", f"{r.standard_error:.2g}", _sigmas(r), _ratio(r),
                ]
                for r in rows
            ]  # fmt: skip
            if all(np.isnan(r.variance_ratio) for r in rows):
                table = [line[:-1] for line in table]
            lines += ["", f"{label} against {self.map_label}", *align(table)]
            if len(table[0]) == len(head):
                lines.append("  coupling: with independent noise the difference has so many times the variance")
            for (name, flow), d in self.distances().items():
                if flow == label:
                    lines.append(f"  {name}: sup distance of means {d['sup']:.2g}, rms {d['rms']:.2g}")
            lines += [_law_line(laws) for (_, flow), laws in self._last_laws.items() if flow == label]
        lines += ["", *(f"{label}: {run.describe_status()}" for label, run in self.runs.items())]
        if self.meta.get("remark"):
            lines.append(f"remark: at the end {self.meta['remark']}")
        lines += [f"left out: {why}" for why in self.meta.get("missing", {}).values()]
        walls = ", ".join(f"{label} {run.meta['wall_seconds']:.2f} s" for label, run in self.runs.items())
        lines.append(f"wall time: {walls}")
        return "\n".join(lines)

    def _headline(self) -> str:
        m = self.meta
        noise = "same noise for both" if m.get("coupled") else "independent noise"
        if str(m.get("map", "")).endswith("no noise)"):
            noise = "no noise"
        elif all(run.meta.get("noise") == "none" for run in list(self.runs.values())[1:]):
            noise = "no noise in the flow"
        where = "compared on the manifold" if m.get("projected") else "compared as they are"
        if m.get("centred"):
            where = "the map's mid-points (theta_k + theta_k+1)/2 compared"
        count = f"{m['paths']:,} path{'s' * (m['paths'] != 1)}, {m['steps']:,} steps"
        return f"{m.get('map', '')}\n{count}; {where}, {noise}; seed {m['seed']}"

    def plot(self, **options: Any) -> Any:
        """The picture: landscape and manifold for two parameters, every quantity over the steps with bands."""
        from minidyn import figures

        return figures.plot_comparison(self, **options)

    def save(self, path: Any) -> None:
        """Write HDF5 that is also netCDF-4; read it back with `md.load`."""
        from minidyn import archive

        archive.save(self, path)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(f.name.replace('_', ' '))}</th>" for f in fields(ErrorRow))
        body = "".join(
            "<tr>" + "".join(f"<td>{f'{v:.4g}' if isinstance(v, float) else escape(str(v))}</td>" for v in astuple(r))
            + "</tr>" for r in self.errors
        )  # fmt: skip
        return f"<p>{escape(self._headline())}</p><table><tr>{head}</tr>{body}</table>"


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
        compared (by default loss, sharpness and trace).
    first_step : the number k of the map's first step (see `simulate`).
    checkpoint : a folder in which every run keeps its own checkpoint (see `simulate`).
    missing : what happens where a flow does not exist: "raise", or "remark", where the other flows are compared and
        the summary says why this one is not (`meta["missing"]`).
    rows : steps shown in the table.  flow_options : passed to `simulate` for flows (`rtol`, `substeps`).

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
    if not isinstance(system, Map):
        raise InputError(f"compare needs a Map first, not {type(system).__name__}.")
    if not flows:
        raise InputError("compare needs at least one flow, for example md.QuasistaticFlow(map).")
    for flow in flows:
        if not isinstance(flow, Flow):
            raise InputError(f"{flow!r} is not a flow.")
    if missing not in ("raise", "remark"):
        raise InputError(f"missing is 'raise' or 'remark', not {missing!r}.")
    first_folder = _place(checkpoint, 0)
    entropy, _ = seed_key(stored_seed(first_folder) if rng is None and first_folder is not None else rng)
    sequence = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(entropy)
    common: dict[str, Any] = {"save_every": save_every, "threads": threads, "progress": progress}
    labels = _labels(system, flows)
    with Bar(len(labels), 0, progress, "compare", "runs") as bar:
        first = simulate(system, w0, steps, paths=paths, rng=sequence, first_step=first_step, checkpoint=first_folder,
                         **common)  # fmt: skip
        runs = {labels[0]: first}
        if (first.status == Status.INTERRUPTED).any():
            raise KeyboardInterrupt
        own = sequence if coupled else np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, 1))
        absent: dict[str, str] = {}
        for number, (label, flow) in enumerate(zip(labels[1:], flows, strict=True), 1):
            bar.update(number)
            options = {"rng": own, "first_step": first_step, "checkpoint": _place(checkpoint, number)}
            try:
                runs[label] = _beside(flow, w0, steps, paths, **options, **common, **flow_options)
            except (FlowError, ManifoldError) as e:
                absent[label] = str(e)
                if missing == "raise" or len(absent) == len(flows):
                    raise
                continue
            if (runs[label].status == Status.INTERRUPTED).any():
                break
    runs, flows = _common(runs, tuple(f for label, f in zip(labels[1:], flows, strict=True) if label not in absent))
    projected = any(isinstance(f, QuasistaticFlow) for f in flows)
    alone = all(run.paths == 1 for run in runs.values())  # then a fine picture costs little
    times = _pick(len(runs[labels[0]].steps), (40 if alone else 4) * rows + 1)
    ahead, remark = None, ""
    if any(f.centred for f in flows):
        ahead = _ahead(system, w0, steps, first_step, common)
        remark = regime(system, np.atleast_2d(w0)[0], steps, first_step=first_step).remark
    quantities = _quantities(system, runs, times, projected, observe, ahead, thread_count(threads))
    paired = {
        label: coupled and (flow.couples and runs[label].paths == paths)
        for label, flow in zip(list(runs)[1:], flows, strict=True)
    }
    first = runs[labels[0]]
    chosen = _pick(len(times), rows + 1)[1:]
    errors = [
        _row(name, label, values[labels[0]][:, t], values[label][:, t], int(first.steps[times[t]]),
             float(first.time[times[t]]), paired[label])
        for label in list(runs)[1:] for name, values in quantities.items() for t in chosen
    ]  # fmt: skip
    meta = {
        "map": repr(system), "flows": [f.name for f in flows], "seed": str(entropy), "paths": paths, "steps": steps,
        "coupled": any(paired.values()), "paired": paired, "projected": projected, "lr": system.lr(),
        "centred": ahead is not None, "remark": remark, "missing": absent,
    }  # fmt: skip
    return Comparison(runs, quantities, first.steps[times], first.time[times], errors, meta, system.loss)


def _beside(flow: Flow, w0: ArrayLike, steps: int, paths: int, **options: Any) -> Run:
    """The run of a flow: of one path where it has neither noise nor several starts."""
    start = np.atleast_2d(np.asarray(w0, dtype=float))
    noisy = flow.stochastic(np.atleast_2d(flow.start(start)))
    return simulate(flow, start, steps, paths=paths if noisy or len(start) > 1 else 1, **options)


def _place(checkpoint: Any, number: int) -> Path | None:
    """The folder of one run's checkpoint."""
    return None if checkpoint is None else Path(checkpoint) / str(number)


def _common(runs: dict[str, Run], flows: tuple[Flow, ...]) -> tuple[dict[str, Run], tuple[Flow, ...]]:
    """The runs cut to the saves that all of them have: an interrupted comparison is a shorter one."""
    count = min(len(run.steps) for run in runs.values())
    cut = {
        label: replace(run, steps=run.steps[:count], time=run.time[:count], w=run.w[:, :count])
        for label, run in runs.items()
        if run.w is not None
    }
    return cut, flows[: len(runs) - 1]


def _labels(system: Map, flows: tuple[Flow, ...]) -> list[str]:
    labels = [system.rule.name]
    for flow in flows:
        name = flow.name
        if isinstance(flow, QuasistaticFlow) and flow.accumulators != "full":
            name += f" ({flow.accumulators})"
        while name in labels:
            name += "'"
        labels.append(name)
    return labels


def _ahead(system: Map, w0: ArrayLike, steps: int, first_step: int, common: dict[str, Any]) -> Run:
    """The map one step later, for the mid-points that flows of centres predict."""
    if system.noise is not None:
        raise InputError("a flow of the centres of iterates is compared with a map without noise; drop the noise.")
    state = np.asarray(w0, dtype=float)
    if state.shape[-1] != system.components:
        state = system.initial_state(state)
    return simulate(system, system.step(state, k=first_step), steps, first_step=first_step + 1, **common)


def _pick(count: int, wanted: int) -> NDArray[np.int64]:
    """Up to `wanted` places in 0 .. count-1, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def _quantities(system: Map, runs: dict[str, Run], times: NDArray[np.int64], projected: bool,
                observe: Any, ahead: Run | None, threads: int) -> dict[str, dict[str, Floats]]:  # fmt: skip
    loss = system.loss
    few = loss.dim <= _FEW
    watchers = observables.resolve(loss, observe if (observe is not None or few) else ["loss", "sharpness", "trace"])
    manifold = Manifold(loss)
    out: dict[str, dict[str, Floats]] = {}
    for number, (label, run) in enumerate(runs.items()):
        assert run.w is not None
        w = np.ascontiguousarray(run.w[:, times])
        if ahead is not None and number == 0:
            assert ahead.w is not None
            w = 0.5 * (w + ahead.w[:, times])
        if projected and number == 0:
            w, _ = manifold._project(w, 1e-9, 20_000, threads)
        if few:
            for p, name in enumerate(loss.param_names):
                out.setdefault(name, {})[label] = w[:, :, p]
        flat = w.reshape(-1, loss.dim)
        for name, watch in watchers.items():
            out.setdefault(name, {})[label] = watch(flat).reshape(w.shape[:2])
    moving = {n: v for n, v in out.items() if not projected or any(np.nanmax(np.abs(x)) > 1e-12 for x in v.values())}
    return moving or out  # what vanishes on the manifold, as the loss does, says nothing there


def _mean(values: Floats) -> Floats:
    return np.array([v[np.isfinite(v)].mean() if np.isfinite(v).any() else np.nan for v in values.T])


def _row(name: str, label: str, a: Floats, b: Floats, step: int, time: float, paired: bool) -> ErrorRow:
    good_a, good_b = np.isfinite(a), np.isfinite(b)
    if paired:
        both = good_a & good_b
        a, b = a[both], b[both]
        count = len(a)
        gap = b - a
        difference = gap.mean() if count else np.nan
        error = gap.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        apart = a.var(ddof=1) + b.var(ddof=1) if count > 1 else np.nan
    else:
        a, b = a[good_a], b[good_b]
        count = len(a)
        difference = b.mean() - a.mean() if len(a) and len(b) else np.nan
        error = np.sqrt(sum(v.var(ddof=1) / len(v) for v in (a, b) if len(v) > 1))
    size = max(abs(a).max(initial=0.0), abs(b).max(initial=0.0))
    exact = error <= _NEAR_ZERO * size
    sigmas = np.nan if exact else difference / error
    ratio = np.nan if not paired or not apart > 0 else np.inf if exact else apart / (count * error**2)
    return ErrorRow(
        name, label, step, time, *_stats(a), *_stats(b), float(difference), float(error), float(sigmas), count,
        float(ratio),
    )  # fmt: skip


def _stats(v: Floats) -> tuple[float, float]:
    return (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) if len(v) else (np.nan, np.nan)


def _pm(mean: float, spread: float) -> str:
    return f"{mean:.5g}" + (f" ± {spread:.3g}" if spread > 0 else "")


def _sigmas(row: ErrorRow) -> str:
    return f"{row.sigmas:+.1f}" if np.isfinite(row.sigmas) else "exact" if row.difference == 0 else "-"


def _ratio(row: ErrorRow) -> str:
    ratio = row.variance_ratio
    return "-" if np.isnan(ratio) else "exact" if np.isinf(ratio) else f"{ratio:.3g}x"


def _law_line(laws: list[LawRow]) -> str:
    """Whether the laws of one quantity can be told apart at the last step, by three tests at once."""
    differ = min(law.p_value for law in laws) * len(laws) <= 0.05  # Bonferroni
    verdict = "distinguishable" if differ else "indistinguishable"
    first, short = laws[0], {"Wasserstein-1": "W1"}
    parts = [f"{short.get(law.distance, law.distance)} {law.value:.2g} ({law.detectable:.2g})" for law in laws]
    return (
        f"  law of {first.quantity} at step {first.step:,}: {verdict} at {first.paths:,} paths; "
        f"distance (detectable from): {', '.join(parts)}"
    )


def align(table: list[list[str]], left: int = 1) -> list[str]:
    """A table as lines: `left` columns to the left, the others to the right, a rule below the head."""
    widths = [max(len(r[c]) for r in table) for c in range(len(table[0]))]
    lines = []
    for r in table:
        sized = list(zip(r, widths, strict=True))
        cells = [cell.ljust(w) for cell, w in sized[:left]] + [cell.rjust(w) for cell, w in sized[left:]]
        lines.append("  " + "  ".join(cells).rstrip())
    return [lines[0], "  " + "  ".join("-" * w for w in widths), *lines[1:]]
