"""Pictures of the edge of stability: sharpness and oscillation over the steps; how paths leave a minimum."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minidyn.common.arrays import Floats
from minidyn.compare.edge_of_stability import EdgeRun
from minidyn.compare.escape import Escape
from minidyn.figures.panels import draw_curve
from minidyn.figures.scales import Clock, grid, is_log, say_gone, set_limits, tidy
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import MAP, MINIMA, PANELS, Look, looks_by_name, named


def plot_edge(result: EdgeRun, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None) -> Figure:
    """Sharpness beside its threshold `2/lr`, and the oscillation of the map beside what flows predict, over the steps.

    Panels are "sharpness" and "amplitude".

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1))
    >>> seen = md.edge(gd, md.RodFlow(gd), w0=[4.5, 0.1], steps=40)
    >>> [ax.get_title(loc="left") for ax in seen.plot().axes]
    ['sharpness at mid-points', 'oscillation amplitude']
    """
    first, *flows = result.amplitude
    looks = {first: MAP} | looks_by_name(flows)
    clock = _clock(result.steps, [result.sharpness, *result.amplitude.values()])
    sharpness = partial(_draw_edge, clock=clock, title="sharpness at mid-points", curves={first: result.sharpness},
                        looks=looks, threshold=result.threshold)  # fmt: skip
    amplitude = partial(
        _draw_edge, clock=clock, title="oscillation amplitude", curves=result.amplitude, looks=looks, threshold=None
    )
    there = [Panel("sharpness", sharpness), Panel("amplitude", amplitude)]
    details = [f"threshold 2/lr = {result.threshold:.6g}", *(f"{label}: {how}" for label, how in result.ends.items())]
    title, *made = named(f"{first} at the edge of stability", repr(result.map) if result.map else "")
    return compose(there, title, [*made, *details], path=path, only=panels, size=size, ax=ax)


def _clock(steps: Any, curves: list[Floats]) -> Clock:
    """The axis of steps of a result that keeps no times."""
    k = steps.astype(float)
    seen = k[np.isfinite(curves).any(axis=0)] if curves else k
    return Clock.of(k, np.full(len(k), np.nan), curves, seen.max(initial=0))


def _draw_edge(
    ax: Axes, clock: Clock, title: str, curves: Mapping[str, Floats], looks: Mapping[str, Look], threshold: float | None
) -> None:
    for order, (label, values) in enumerate(curves.items()):
        draw_curve(ax, clock.steps, values, looks[label], label, order)
    if threshold is not None:
        ax.axhline(threshold, color=MINIMA, lw=1.2, ls="--", label="threshold 2/lr")
    first, *others = curves
    anchor = [curves[first], *([np.array([threshold])] if threshold is not None else [])]
    log = is_log(anchor) and threshold is None
    gone = set_limits(ax, anchor, {label: [curves[label]] for label in others}, log)
    ax.set_title("".join([title, *tidy(ax.yaxis)]), loc="left")
    clock.put(ax)
    if gone:
        say_gone(ax, gone)


def plot_escape(result: Escape, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None) -> Figure:
    """The mean squared distance from the minimum over the steps beside its predicted growth, and where the paths went.

    Panels are "distance" and "destinations".

    >>> import sympy as sp, minidyn as md
    >>> x, c = sp.symbols("x c")
    >>> wells = md.Loss(sp.Min(x**2, c * (x - 1)**2), [x], data={c: [0.1, 1.9]})
    >>> out = md.escape(md.Map(wells, md.SGD(0.7), md.Minibatch(1)), [1.0], paths=200, steps=100, rng=0)
    >>> [ax.get_title(loc="left") for ax in out.plot().axes]
    ['mean squared distance from the minimum', 'minima where the paths ended']
    """
    rule = result.report.place.map.rule.name
    said = [
        f"growth of second moments per step: {result.measured:.5g} measured, {result.predicted:.5g} predicted",
        f"{100 * result.left:.3g} % of {len(result.ends):,} paths left",
    ]
    there = [
        Panel("distance", partial(_draw_distance, result=result)),
        Panel("destinations", partial(_draw_destinations, result=result)),
    ]
    what = f"{rule} leaves a minimum" if result.left else f"{rule} stays in a minimum"
    title, *made = named(what, repr(result.report.place.map))
    return compose(there, title, [*made, *said], path=path, only=panels, size=size, ax=ax)


def _draw_distance(ax: Axes, result: Escape) -> None:
    k, moment = result.steps.astype(float), result.second_moment
    draw_curve(ax, k, moment, MAP, "mean of the paths")
    with np.errstate(over="ignore", under="ignore"):
        predicted = moment[0] * result.predicted**k
    near = predicted <= 3 * np.nanmax(moment)
    ax.plot(k[near], predicted[near], color=MINIMA, ls="--", lw=1.4, label="predicted growth", zorder=20)
    set_limits(ax, [moment], {}, is_log([moment]), decades=40)
    ax.set_title("".join(["mean squared distance from the minimum", *tidy(ax.yaxis)]), loc="left")
    _clock(result.steps, []).put(ax)


def _draw_destinations(ax: Axes, result: Escape) -> None:
    shown = list(zip(result.destinations, result.fractions, strict=True))[:PANELS]
    rows = [(_place(w), fraction) for w, fraction in shown]
    rows += [("others", rest)] if (rest := float(result.fractions[PANELS:].sum())) > 0 else []
    rows += [("none", result.lost)] if result.lost else []
    ax.barh(range(len(rows)), [100 * f for _, f in rows], color=MAP.colour, height=0.6)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set(xlim=(0, 105), ylim=(max(len(rows), 3) - 0.4, -0.6), xlabel="% of the paths")
    ax.set_title("minima where the paths ended", loc="left")
    grid(ax)


def _place(w: Floats) -> str:
    """A minimum in so many letters as stand beside an axis."""
    return ", ".join(f"{v + 0.0:.3g}" for v in np.round(w, 9)) if len(w) <= 2 else f"|w| = {np.linalg.norm(w):.4g}"
