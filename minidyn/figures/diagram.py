"""Pictures of stability: minima in the plane of sharpness and non-uniformity."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minidyn.common.errors import InputError
from minidyn.figures.scales import grid, is_log, tidy
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import GREY, MAP, MINIMA, named
from minidyn.maps.recognize import recognized
from minidyn.minima.stability import StabilityDiagram

MOST = 12
_INSIDE = "#dbe9e4"


def plot_stability(diagram: StabilityDiagram, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None,
                   ) -> Figure:  # fmt: skip
    """One panel for each learning rate and batch: where a minimum is stable, and where the minima are.

    Shaded: stable if the loss had one parameter. Dashed: the box of theory. The verdicts on the minima are exact.

    >>> import sympy as sp, minidyn as md
    >>> x, c = sp.symbols("x c")
    >>> wells = md.Loss(sp.Min(x**2, c * (x - 1)**2), [x], data={c: [0.1, 1.9]})
    >>> d = md.stability_diagram(md.Map(wells, md.SGD(0.7), md.Minibatch(1)), [[0.0], [1.0]])
    >>> [ax.get_title(loc="left") for ax in d.plot().axes]
    ['lr 0.7, batch 1']
    """
    names = [f"lr {lr:g}, {'full batch' if batch is None else f'batch {batch}'}" for lr, batch in diagram.settings]
    if panels is None and len(names) > MOST:
        raise InputError(
            f"{len(names)} pairs of learning rate and batch are too many panels; name some in panels=, {MOST} at most."
        )
    right, top = _window(diagram)
    top = top if diagram.kappas.any() or diagram.nonuniformity.max() > 1e-9 * right else 0.0
    left = _left_out(diagram)
    given: dict[str, Any] = {"diagram": diagram, "right": right, "top": top, "more": bool(left)}
    there = [
        Panel(name, partial(_draw, number=number, title=name, **given), (2.4 if top else 0.7,))
        for number, name in enumerate(names)
    ]
    known = recognized(diagram.map.rule)
    metric = "" if known is not None and known.plain else "sharpness in the metric of the preconditioner"
    count = len(diagram.minima)
    title, *made = named(f"which minima {diagram.map.rule.name} can stay in", repr(diagram.map), diagram.model)
    flat = "" if diagram.kappas.any() or top or left else "no minibatch noise: sharpness alone decides"
    left = f"the shaded region leaves {left} out" if left and _has_region(diagram) else ""
    details = [*made, f"{count} {'minimum' if count == 1 else 'minima'}", metric, flat, left]
    return compose(there, title, details, path=path, only=panels, size=size, ax=ax, most=MOST)


def _has_region(diagram: StabilityDiagram) -> bool:
    """Whether one parameter's region is known: for rules without momentum."""
    known = recognized(diagram.map.rule)
    return not diagram.map.rule.states or (known is not None and not known.has_momentum)


def _left_out(diagram: StabilityDiagram) -> str:
    """The noise that makes second moments grow and is in no region, only in the verdicts."""
    response = diagram.map.bound.linear_response(diagram.minima[0])
    parts = ["label noise"] * (response.label > 0) + ["noise that depends on the place"] * (response.slopes is not None)
    return " and ".join(parts)


def _window(diagram: StabilityDiagram) -> tuple[float, float]:
    """How far to draw: all minima, and all of the regions unless those are out of reach."""
    a, s = float(diagram.sharpness.max()), float(diagram.nonuniformity.max())
    boxes = [diagram.box(i) for i in range(len(diagram.settings))]
    right = max([b for b, _ in boxes if b < 6 * a] + [a])
    top = max([h for _, h in boxes if h < 6 * max(s, 0.1 * a)] + [s, 0.1 * right])
    return 1.12 * right, 1.12 * top


def _draw(ax: Axes, diagram: StabilityDiagram, number: int, title: str, right: float, top: float, more: bool) -> None:
    wide, high = diagram.box(number)
    flat, left = not top, 0.0
    if flat and is_log([diagram.sharpness]):
        left, right = diagram.sharpness.min() / 1.5, 1.3 * max(diagram.sharpness.max(), wide)
        ax.set_xscale("log")
    top = top or 1.0
    if _has_region(diagram):
        a, s = diagram.boundary(number)
        label = f"stable{' where the loss has one parameter' * (not flat)}{', without that noise' * more}"
        ax.fill_between(a, -top * flat, np.minimum(s, 10 * top), color=_INSIDE, lw=0, zorder=0, label=label)
    high = min(high, 10 * top)
    if wide < right or high < top:
        label = "largest stable sharpness" if flat else "beyond: unstable"
        ax.plot([wide, wide, 0], [-top * flat, high, high], color=GREY, ls="--", lw=1, zorder=1, label=label)
    stable = diagram.stable[:, number]
    for chosen, label, colour, marker, size in (
        (stable, "stable minimum", MAP.colour, "o", 34),
        (~stable, "unstable minimum", MINIMA, "X", 48),
    ):
        x, y = diagram.sharpness[chosen], diagram.nonuniformity[chosen]
        ax.scatter(x, y, size, color=colour, marker=marker, edgecolors="white", linewidths=0.5, zorder=5, clip_on=False,
                   label=label if chosen.any() else "_")  # fmt: skip
    ax.set(xlim=(left, right), ylim=(-top * flat, top))
    for axis, put, name in (
        (ax.xaxis, ax.set_xlabel, "sharpness $a$"),
        (ax.yaxis, ax.set_ylabel, "non-uniformity $s$"),
    ):
        put("".join([name, *tidy(axis)]))
    grid(ax)
    if flat:
        ax.set_yticks([])
        ax.set_ylabel("")
    ax.set_title(title, loc="left")
