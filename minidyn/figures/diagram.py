"""Pictures of stability: minima in the plane of sharpness and non-uniformity."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from minidyn.common.errors import InputError
from minidyn.figures.canvas import new_figure, write_picture
from minidyn.figures.style import FAINT, GREY, MAP, MINIMA, STYLE, draw_head, draw_legend
from minidyn.maps.recognize import recognized
from minidyn.minima.stability import StabilityDiagram

PANELS = 12
_INSIDE = "#dbe9e4"


def plot_stability(diagram: StabilityDiagram, *, path: Any = None) -> Figure:
    """One panel for each learning rate and batch: where a minimum is stable, and where the minima are.

    Shaded: stable if the loss had one parameter. Dashed: the necessary box. The verdicts on the minima are exact.

    >>> import sympy as sp, minidyn as md
    >>> x, c = sp.symbols("x c")
    >>> wells = md.Loss(sp.Min(x**2, c * (x - 1)**2), [x], data={c: [0.1, 1.9]})
    >>> d = md.stability_diagram(md.Map(wells, md.SGD(0.7), md.Minibatch(1)), [[0.0], [1.0]])
    >>> [ax.get_title(loc="left") for ax in d.plot().axes]
    ['lr 0.7, batch 1']
    """
    count = len(diagram.settings)
    if count > PANELS:
        raise InputError(f"{count} pairs of learning rate and batch are too many panels; take at most {PANELS}.")
    columns = min(count, 3 if count != 4 else 2)
    rows = -(-count // columns)
    with rc_context(STYLE):
        fig = new_figure(max(3.7 * columns, 6.4), 3.0 * rows + 1.2)
        grid = fig.add_gridspec(rows, columns)
        right, top = _window(diagram)
        for number in range(count):
            _draw(fig.add_subplot(grid[divmod(number, columns)]), diagram, number, right, top)
        known = recognized(diagram.map.rule)
        adaptive = "" if known is not None and known.plain else "in the metric of the preconditioner"
        details = [str(diagram.map.rule), f"{len(diagram.minima)} minima", adaptive]
        draw_head(fig, "Which minima the optimizer can stay in", [part for part in details if part])
        draw_legend(fig, [
            *([Patch(color=_INSIDE, lw=0, label="stable (one parameter)")] if _has_region(diagram) else []),
            Line2D([], [], color=GREY, ls="--", lw=1, label="necessary box"),
            Line2D([], [], color=MAP.colour, marker="o", ls="", ms=6, label="stable minimum"),
            Line2D([], [], color=MINIMA, marker="X", ls="", ms=7, label="unstable minimum"),
        ])  # fmt: skip
        write_picture(fig, path)
    return fig


def _has_region(diagram: StabilityDiagram) -> bool:
    """Whether one parameter's region is known: for rules without momentum."""
    known = recognized(diagram.map.rule)
    return not diagram.map.rule.states or (known is not None and not known.has_momentum)


def _window(diagram: StabilityDiagram) -> tuple[float, float]:
    """How far to draw: all minima, and all of the regions unless those are out of reach."""
    a, s = float(diagram.sharpness.max()), float(diagram.nonuniformity.max())
    boxes = [diagram.box(i) for i in range(len(diagram.settings))]
    right = max([b for b, _ in boxes if b < 6 * a] + [a])
    top = max([h for _, h in boxes if h < 6 * max(s, 0.1 * a)] + [s, 0.1 * right])
    return 1.12 * right, 1.12 * top


def _draw(ax: Axes, diagram: StabilityDiagram, number: int, right: float, top: float) -> None:
    lr, batch = diagram.settings[number]
    wide, high = diagram.box(number)
    if _has_region(diagram):
        a, s = diagram.boundary(number)
        ax.fill_between(a, 0, np.minimum(s, 10 * top), color=_INSIDE, lw=0, zorder=0)
    high = min(high, 10 * top)
    ax.plot([wide, wide, 0], [0, high, high], color=GREY, ls="--", lw=1, zorder=1)
    stable = diagram.stable[:, number]
    for chosen, colour, marker, size in ((stable, MAP.colour, "o", 34), (~stable, MINIMA, "X", 48)):
        x, y = diagram.sharpness[chosen], diagram.nonuniformity[chosen]
        ax.scatter(x, y, size, color=colour, marker=marker, edgecolors="white", linewidths=0.5, zorder=5, clip_on=False)
    ax.set(xlim=(0, right), ylim=(0, top), xlabel="sharpness $a$", ylabel="non-uniformity $s$")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(True, color=FAINT, lw=0.4, alpha=0.7)
    ax.set_axisbelow(True)
    ax.set_title(f"lr {lr:g}, {'full batch' if batch is None else f'batch {batch}'}", loc="left")
