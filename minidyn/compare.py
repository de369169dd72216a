"""A map and its flows side by side, on one clock, with error bars on the difference."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidyn import observables
from minidyn.errors import InputError
from minidyn.flows import QuasistaticFlow
from minidyn.flows.base import Flow
from minidyn.manifold import Manifold
from minidyn.maps import Map
from minidyn.simulate import seed_key, simulate
from minidyn.trajectory import Run, Status

Floats = NDArray[np.float64]
_FEW = 6  # up to this many parameters each is compared; beyond, observables are
_NEAR_ZERO = 1e-14


@dataclass(frozen=True)
class ErrorRow:
    """One quantity at one step: ensemble mean and spread of map and flow, and their difference.

    `standard_error` is that of `difference` = flow mean - map mean; it is paired where map and flow
    share their noise. `sigmas` is the difference in standard errors. `paths` is how many paths it rests on.
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


@dataclass
class Comparison:
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

    def distances(self) -> dict[tuple[str, str], dict[str, float]]:
        """For each (quantity, flow): sup and root-mean-square over the steps of the difference of means,
        over the same paths where map and flow share their noise."""
        out = {}
        for name, values in self.quantities.items():
            centre = values[self.map_label]
            for label in list(self.runs)[1:]:
                other = values[label]
                if self.meta.get("coupled") and other.shape == centre.shape:
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
        head = ["quantity", "step", self.map_label, "flow", "difference", "std. error", "in s.e."]
        lines = [self._headline()]
        for label in list(self.runs)[1:]:
            rows = [r for r in self.errors if r.flow == label]
            table = [head] + [
                [
                    r.quantity, f"{r.step:,}", _pm(r.map_mean, r.map_spread), _pm(r.flow_mean, r.flow_spread),
                    f"{r.difference:+.2g}", f"{r.standard_error:.2g}", _sigmas(r),
                ]
                for r in rows
            ]  # fmt: skip
            lines += ["", f"{label} against {self.map_label}", *_align(table)]
            for (name, flow), d in self.distances().items():
                if flow == label:
                    lines.append(f"  {name}: sup distance of means {d['sup']:.2g}, rms {d['rms']:.2g}")
        lines += ["", *(f"{label}: {run.describe_status()}" for label, run in self.runs.items())]
        walls = ", ".join(f"{label} {run.meta['wall_seconds']:.2f} s" for label, run in self.runs.items())
        lines.append(f"wall time: {walls}")
        return "\n".join(lines)

    def _headline(self) -> str:
        m = self.meta
        noise = "same noise for both" if m.get("coupled") else "independent noise"
        if all(run.meta.get("method") == "dopri5" for run in list(self.runs.values())[1:]):
            noise = "no noise in the flow"
        where = "compared on the manifold" if m.get("projected") else "compared as they are"
        return f"{m.get('map', '')}\n{m['paths']:,} paths, {m['steps']:,} steps; {where}, {noise}; seed {m['seed']}"

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
            threads: int | None = None, progress: bool | None = None, **flow_options: Any) -> Comparison:  # fmt: skip
    """Run a map and its flows in lock-step on one clock, and say how well they agree.

    Parameters
    ----------
    system, flows : a `Map` and flows of it.
    w0 : starting parameters, (D,) or (paths, D); flows on the manifold start at its projection. The map may
        be given its whole state, such as `map.fixed_point(w)`, to start without a transient.
    coupled : drive map and flow with the same normals where all noise is Gaussian; error bars are paired.
    observe : further quantities (see `simulate`); with more than six parameters these are what is
        compared (by default loss, sharpness and trace).
    first_step : the number k of the map's first step (see `simulate`).
    rows : steps shown in the table.  flow_options : passed to `simulate` for flows (`rtol`, `substeps`).

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
    entropy, _ = seed_key(rng)
    sequence = rng if isinstance(rng, np.random.SeedSequence) else np.random.SeedSequence(entropy)
    common: dict[str, Any] = {"save_every": save_every, "threads": threads, "progress": progress}
    labels = _labels(system, flows)
    runs = {labels[0]: simulate(system, w0, steps, paths=paths, rng=sequence, first_step=first_step, **common)}
    if (runs[labels[0]].status == Status.INTERRUPTED).any():
        raise KeyboardInterrupt
    for label, flow in zip(labels[1:], flows, strict=True):
        start = np.atleast_2d(np.asarray(w0, dtype=float))
        noisy = flow.stochastic(np.atleast_2d(flow.start(start)))
        own = sequence if coupled else np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, 1))
        count = paths if noisy or len(start) > 1 else 1
        runs[label] = simulate(flow, start, steps, paths=count, rng=own, observe=None, **common, **flow_options)
        if (runs[label].status == Status.INTERRUPTED).any():
            break
    runs, flows = _common(runs, flows)
    projected = any(isinstance(f, QuasistaticFlow) for f in flows)
    times = _pick(len(runs[labels[0]].steps), 4 * rows + 1)
    quantities = _quantities(system, runs, times, projected, observe)
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
        "coupled": any(paired.values()), "projected": projected, "lr": system.lr(),
    }  # fmt: skip
    return Comparison(runs, quantities, first.steps[times], first.time[times], errors, meta, system.loss)


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


def _pick(count: int, wanted: int) -> NDArray[np.int64]:
    """Up to `wanted` places in 0 .. count-1, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64))


def _quantities(system: Map, runs: dict[str, Run], times: NDArray[np.int64], projected: bool,
                observe: Any) -> dict[str, dict[str, Floats]]:  # fmt: skip
    loss = system.loss
    few = loss.dim <= _FEW
    watchers = observables.resolve(loss, observe if (observe is not None or few) else ["loss", "sharpness", "trace"])
    manifold = Manifold(loss)
    out: dict[str, dict[str, Floats]] = {}
    for number, (label, run) in enumerate(runs.items()):
        assert run.w is not None
        w = run.w[:, times]
        if projected and number == 0:
            w, _ = manifold._project(w, 1e-9, 20_000)
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
    else:
        a, b = a[good_a], b[good_b]
        count = len(a)
        difference = b.mean() - a.mean() if len(a) and len(b) else np.nan
        error = np.sqrt(sum(v.var(ddof=1) / len(v) for v in (a, b) if len(v) > 1))
    size = max(abs(a).max(initial=0.0), abs(b).max(initial=0.0))
    exact = error <= _NEAR_ZERO * size
    sigmas = np.nan if exact else difference / error
    return ErrorRow(
        name, label, step, time, *_stats(a), *_stats(b), float(difference), float(error), float(sigmas), count
    )


def _stats(v: Floats) -> tuple[float, float]:
    return (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) if len(v) else (np.nan, np.nan)


def _pm(mean: float, spread: float) -> str:
    return f"{mean:.5g}" + (f" ± {spread:.3g}" if spread > 0 else "")


def _sigmas(row: ErrorRow) -> str:
    return f"{row.sigmas:+.1f}" if np.isfinite(row.sigmas) else "exact" if row.difference == 0 else "-"


def _align(table: list[list[str]]) -> list[str]:
    widths = [max(len(r[c]) for r in table) for c in range(len(table[0]))]
    lines = []
    for r in table:
        cells = [r[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(r[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join(cells))
    return [lines[0], "  " + "  ".join("-" * w for w in widths), *lines[1:]]
