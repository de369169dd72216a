"""Who wins where: every effective flow against the discrete run, over the models at the edge of stability.

`minidyn who-wins` prints and writes the report. Distances are Euclidean, in all parameters, between the flow and the
map at the same step as the flow reads it (`Flow.reads`): flows of the iterates themselves beside `theta_k`, flows of
mid-points beside `(theta_k + theta_{k+1})/2`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidyn.cli.noisy_valleys import noisy_table
from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import MinidynError
from minidyn.compare.regime import regimes_of
from minidyn.files.models import load_model
from minidyn.flows import FLOWS, RodFlow, SubquadraticFlow
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss
from minidyn.maps.recognize import recognized
from minidyn.maps.rules import GD, SGD, Adam, RMSProp, Rule
from minidyn.simulate import simulate

MODELS = (
    "logcosh_valley", "minimalist_eos", "quartic", "scalar_deep", "matrix_factorization", "double_valley", "tanh_net",
)  # fmt: skip
_TANH_LR, _TANH_STEPS = 0.5, 150  # the library's network is run below its edge; here it is run at it


@dataclass(frozen=True)
class Entry:
    """One flow on one model: sup, root-mean-square and last distance over the steps it lasted."""

    model: str
    flow: str
    steps: int
    drift: float
    sup: float
    rms: float
    last: float
    lasted: int
    note: str
    seconds: float


def readings(system: Map, w0: ArrayLike, steps: int) -> dict[str, Floats]:
    """The map for k = 0 .. steps as flows read it, each (steps + 1, D): `theta_k` and `(theta_k + theta_{k+1})/2`."""
    w = simulate(system, w0, steps + 1, save_every=1, progress=False).w
    assert w is not None
    return {"iterates": np.asarray(w[0, :-1]), "midpoints": np.asarray(0.5 * (w[0, 1:] + w[0, :-1]))}


def midpoints(system: Map, w0: ArrayLike, steps: int) -> Floats:
    """`(theta_k + theta_{k+1})/2` for k = 0 .. steps, shape (steps + 1, D)."""
    return readings(system, w0, steps)["midpoints"]


def path_of(flow: Flow, w0: ArrayLike, steps: int, rtol: float) -> tuple[Floats, str]:
    """The flow's theta, or its mid-point, for k = 0 .. steps, NaN after an end, and a sentence about the end."""
    run = simulate(flow, w0, steps, save_every=1, rtol=rtol, atol=1e-3 * rtol, progress=False)
    assert run.w is not None
    return run.w[0], "" if run.finished.all() else run.meta.get("reason") or run.describe_status()


def theories() -> dict[str, Callable[[Map], Flow]]:
    """How to make every flow that needs no noise, those of iterates first; those of mid-points at each order."""
    found: dict[str, Callable[[Map], Flow]] = {}
    flow: Any
    for key, flow in sorted(FLOWS.items(), key=lambda item: item[1].reads):
        if not flow.driven and flow.noisy is not True:  # with noise in it, another one's equal without
            found[key] = flow
            higher = flow.orders[1:] if flow.reads == "midpoints" else ()
            found |= {f"{key}, order {order}": partial(flow, order=order) for order in higher}
    return found


def entries_of(name: str, rtol: float = 1e-6, steps: int | None = None) -> list[Entry]:
    """All flows that need no noise on one model of the library, for as many steps as its file says or `steps`."""
    model = load_model(name)
    network = name == "tanh_net"
    system = Map(model.loss, GD(_TANH_LR)) if network else model.map
    steps = steps or (_TANH_STEPS if network else model.steps)
    read = readings(system, model.w0, steps)
    mid = read["midpoints"]
    drift = float(np.linalg.norm(mid - mid[0], axis=1).max())
    remark = regimes_of(system, model.w0, steps).remark
    out = []
    for called, make in theories().items():
        began, reads = time.perf_counter(), "iterates"
        try:
            flow = make(system)
            reads = flow.reads
            path, note = path_of(flow, model.w0, steps, rtol)
        except MinidynError as error:
            path, note = np.full_like(mid, np.nan), str(error)
        if remark and reads == "midpoints":
            note = "; ".join(filter(None, [note, f"at the end {remark}"]))
        gap = np.linalg.norm(path - read[reads], axis=1)
        alive = np.isfinite(gap)
        kept = gap[alive] if alive.any() else np.array([np.nan])
        out.append(Entry(
            name, called, steps, drift, float(kept.max()), float(np.sqrt(np.mean(kept**2))), float(kept[-1]),
            int(alive.sum()) - 1, note, time.perf_counter() - began,
        ))  # fmt: skip
    return out


def report(names: Iterable[str] = (), rtol: float = 1e-6, say: Callable[[str], None] = lambda line: None) -> str:
    """The report in Markdown: flows over models and, unless models are named, the rod flow over rules and the
    distances on the log-cosh valley."""
    chosen = tuple(names)
    for name in chosen:
        load_model(name)  # a name that is none is said before anything runs
    lines = [
        "# Who wins where",
        "",
        "Made by `minidyn who-wins`. Distance between each flow and the map as that flow reads it, in all parameters:",
        "gradient and modified flow beside the iterates `theta_k`, the others beside the mid-points",
        "`(theta_k + theta_{k+1})/2`. The largest over the run, with the one at its last step in brackets. `to k`: the",
        "flow ends there; the distances are those up to its end, and the notes say why.",
        "",
    ]
    entries: list[Entry] = []
    for name in chosen or MODELS:
        entries += entries_of(name, rtol)
        say(f"{name}: " + ", ".join(f"{e.flow} {_cell(e)}" for e in entries if e.model == name))
    lines += [*flows_table(entries), ""]
    if chosen:
        return "\n".join(lines)
    lines += ["## The rod flow of other rules", "", *rules_table(say), ""]
    lines += ["## With noise, at the edge", "", *noisy_table(say), ""]
    lines += ["## The log-cosh valley over the learning rate", "", *valley_table(), ""]
    return "\n".join(lines)


def _cell(e: Entry, best: float = np.nan) -> str:
    if not np.isfinite(e.sup):
        return "-"
    if e.lasted < e.steps:
        return f"{e.sup:.2g} ({e.last:.2g}) to {e.lasted}"
    return "**" * (e.sup == best) + f"{e.sup:.2g} ({e.last:.2g})" + "**" * (e.sup == best)


def flows_table(entries: list[Entry]) -> list[str]:
    """A row per model, a column per flow, the smallest distance of those that lasted in bold; then the notes."""
    flows = list(dict.fromkeys(e.flow for e in entries))
    lines = ["| model | steps | moves by | " + " | ".join(flows) + " |", "|---|---|---|" + "---|" * len(flows)]
    for name in dict.fromkeys(e.model for e in entries):
        row = {e.flow: e for e in entries if e.model == name}
        lasted = [e.sup for e in row.values() if e.lasted >= e.steps and np.isfinite(e.sup)]
        best = min(lasted, default=np.nan)
        cells = [_cell(row[f], best) for f in flows]
        first = next(iter(row.values()))
        lines.append(f"| {name} | {first.steps:,} | {first.drift:.2g} | " + " | ".join(cells) + " |")
    notes = [f"- {e.model}, {e.flow}: {e.note}" for e in entries if e.note]
    return [*lines, "", *notes] if notes else lines


# -- the rod flow of other rules -------------------------------------------------------------------------


def ladders() -> dict[str, tuple[Callable[[float], tuple[Map, list[float]]], tuple[float, ...], float]]:
    """name -> (lr -> map and start, four learning rates, time t): drifts of order one through or along the edge."""
    free = load_model("logcosh_valley").loss
    pushed = Loss(free.expr - free.params[0] / 2, free.params)

    def beyond(
        rule: Callable[[float], Rule],
        ratio: float,
        factor: float,
        loss: Loss,
        y0: float,
    ) -> Callable[[float], tuple[Map, list[float]]]:
        """Start where the curvature `1 + x^2` is `ratio` times the threshold `factor / lr`."""
        return lambda lr: (Map(loss, rule(lr)), [float(np.sqrt(ratio * factor / lr - 1)), y0])

    return {
        "heavy ball": (beyond(lambda lr: SGD(lr, 0.5), 1.4, 3.0, free, 0.5), (0.4, 0.2, 0.1, 0.05), 20.0),
        "Nesterov": (
            beyond(lambda lr: SGD(lr, 0.5, nesterov=True), 1.4, 1.5, free, 0.5),
            (0.2, 0.1, 0.05, 0.025),
            20.0,
        ),
        "RMSProp, eps = 1": (
            beyond(lambda lr: RMSProp(lr, eps=1.0), 0.9, 2.0, pushed, 0.2),
            (0.2, 0.1, 0.05, 0.025),
            20.0,
        ),
        "Adam, beta1 = 0.5, eps = 1": (
            beyond(lambda lr: Adam(lr, beta1=0.5, beta2=0.99, eps=1.0), 0.9, 6.0, pushed, 0.2),
            (0.2, 0.1, 0.05, 0.025),
            20.0,
        ),
    }


def rod_errors(name: str) -> list[tuple[float, float, float]]:
    """(lr, sup distance of the rod flow's mid-point in x, drift in x) on every rung of a ladder."""
    make, lrs, end = ladders()[name]
    out = []
    for lr in lrs:
        system, w0 = make(lr)
        steps = round(end / lr)
        mid, (path, _) = midpoints(system, w0, steps)[:, 0], path_of(RodFlow(system), w0, steps, 1e-9)
        out.append((lr, float(np.abs(path[:, 0] - mid).max()), float(np.abs(mid - mid[0]).max())))
    return out


def rules_table(say: Callable[[str], None] = lambda line: None) -> list[str]:
    """The ladders of the four rules, and their rod flow on three models."""
    lines = [
        "On `(1 + x^2) log cosh y`, momentum 0.5, from 1.4 thresholds; adaptive rules on the same loss `- x/2`, which",
        "pushes them through the edge from 0.9 thresholds. Sup distance in x over the drift in x:",
        "",
        "| rule | " + " | ".join(["lr, sup / drift"] * 4) + " |",
        "|---|" + "---|" * 4,
    ]
    for name in ladders():
        rungs = rod_errors(name)
        lines.append(f"| {name} | " + " | ".join(f"{lr:g}: {sup:.3g} / {drift:.3g}" for lr, sup, drift in rungs) + " |")
        say(lines[-1])
    lines += ["", "Models of the library at a learning rate that starts 3 % beyond the rule's own threshold:", ""]
    lines += ["| model | rule | moves by | gradient flow | rod flow |", "|---|---|---|---|---|"]
    for name in ("minimalist_eos", "scalar_deep", "matrix_factorization"):
        for label, rule in _OTHERS.items():
            lines.append(f"| {name} | {label} | " + " | ".join(_one_rule(name, rule)) + " |")
        say(lines[-1])
    return lines


_OTHERS: dict[str, Callable[[float], Rule]] = {
    "heavy ball 0.5": lambda lr: SGD(lr, 0.5),
    "Nesterov 0.5": lambda lr: SGD(lr, 0.5, nesterov=True),
    "RMSProp, eps = 1": lambda lr: RMSProp(lr, beta2=0.99, eps=1.0),
    "Adam, beta1 = 0.5, eps = 1": lambda lr: Adam(lr, beta1=0.5, beta2=0.99, eps=1.0),
}


def _one_rule(name: str, rule: Callable[[float], Rule], steps: int = 400) -> list[str]:
    """Drift, and sup distances of gradient flow (where it is one of this rule) and rod flow."""
    model = load_model(name)
    top = float(np.linalg.eigvalsh(model.loss.hessian(model.w0))[-1])
    known = recognized(rule(1.0))
    assert known is not None
    system = Map(model.loss, rule(float(f"{1.03 * (known.threshold() or 0.0) / top:.4g}")))
    read = readings(system, model.w0, steps)
    mid = read["midpoints"]
    cells = [f"{np.linalg.norm(mid - mid[0], axis=1).max():.2g}"]
    for flow in ("gradient", "rod"):
        try:
            made_flow = FLOWS[flow](system)
            path, note = path_of(made_flow, model.w0, steps, 1e-8)
            gap = np.linalg.norm(path - read[made_flow.reads], axis=1)
            cells.append(f"{np.nanmax(gap):.2g}" + (f" ({note})" if note else ""))
        except MinidynError:
            cells.append("-")
    return cells


# -- the figures of the log-cosh valley -------------------------------------------------------------------


def valley_row(lr: float, rtol: float = 1e-8) -> dict[str, float]:
    """Sup distances in x to t = 40 from `1 + x0^2 = 3/lr`, `y0 = 1`, and the final sharpness times lr/2."""
    system = load_model("logcosh_valley").map.with_lr(lr)
    x0, steps = float(np.sqrt(3 / lr - 1)), round(40 / lr)
    mid = midpoints(system, [x0, 1.0], steps)[:, 0]
    rod, second = (path_of(RodFlow(system, order=o), [x0, 1.0], steps, rtol)[0][:, 0] for o in (1, 2))
    bottom = path_of(SubquadraticFlow(system), [x0, 0.0], steps, rtol)[0][:, 0]
    paired = path_of(SubquadraticFlow(system), [x0, 1.0], steps, rtol)[0][:, 0]
    return {
        "rod": float(np.abs(rod - mid).max()),
        "rod, order 2": float(np.abs(second - mid).max()),
        "slaved": float(np.abs(bottom - mid).max()),
        "slaved, first pair": float(np.abs(paired - mid).max()),
        "GD's end": lr * (1 + mid[-1] ** 2) / 2,
        "rod's end": lr * (1 + rod[-1] ** 2) / 2,
        "end at order 2": lr * (1 + second[-1] ** 2) / 2,
    }


def valley_table(lrs: tuple[float, ...] = (0.2, 0.1, 0.05, 0.025)) -> list[str]:
    """`valley_row` over a ladder of learning rates."""
    rows = [valley_row(lr) for lr in lrs]
    lines = [
        "`(1 + x^2) log cosh y`, GD from `1 + x0^2 = 3/lr`, `y0 = 1`, to `t = 40`: sup distances in x, and where the",
        "sharpness ends, times lr/2. The slaved flow starts at the valley's bottom, or at the mid-point of the first",
        "pair.",
        "",
        "| lr | " + " | ".join(rows[0]) + " |",
        "|---|" + "---|" * len(rows[0]),
    ]
    for lr, row in zip(lrs, rows, strict=True):
        lines.append(f"| {lr:g} | " + " | ".join(f"{v:.4f}" for v in row.values()) + " |")
    return lines
