"""Pictures: a run over its steps; a map and its flows side by side, on the landscape of two parameters.

Figures are made without pyplot: no global state, nothing to close, no display needed, and Jupyter shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minidyn.common.errors import InputError
from minidyn.compare.comparison import Comparison
from minidyn.compare.order import ScalingStudy
from minidyn.figures.canvas import Picture, new_figure, write_picture
from minidyn.figures.diagram import plot_stability
from minidyn.figures.landscape import draw_landscape
from minidyn.figures.panels import draw_order, draw_quantity, draw_spread, names_in, names_shown, share_clock
from minidyn.figures.style import (
    FAINT,
    GREY,
    MAP,
    PANELS,
    STYLE,
    details_of,
    draw_head,
    draw_legend,
    headline_of,
    legend_handles,
    looks_in,
    looks_of,
    map_looks,
    pretty,
)
from minidyn.maps.loss import Loss
from minidyn.simulate.run import Run

__all__ = ["Picture", "plot", "plot_comparison", "plot_run", "plot_scaling", "plot_stability"]


def plot(result: Any, **options: Any) -> Figure:
    """The picture of any result: see `Result.plot`."""
    kinds: dict[type, Any] = {Run: plot_run, Comparison: plot_comparison, ScalingStudy: plot_scaling}
    draw = next((draw for kind, draw in kinds.items() if isinstance(result, kind)), plot_stability)
    return draw(result, **options)


def plot_comparison(result: Comparison, *, loss: Loss | None = None, path: Any = None) -> Figure:
    """The picture of a comparison; saved to `path` where one is given (the extension names the format).

    Every quantity over the steps: means and 5-95 % bands of the map and of its flows, and below them the
    difference of means with two standard errors to each side. For two parameters also the landscape: level
    sets and minima (of `loss`, or of the loss that the comparison carries), the ensembles at the last step, and
    a few paths.

    Raises ArchiveError where the file cannot be written, InputError for an unknown format.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(lr=0.05), md.GaussianNoise(0.3))
    >>> result = md.compare(sgd, md.QuasistaticFlow(sgd), w0=[2, 0], steps=200, paths=64, observe="sharpness")
    >>> [ax.get_title(loc="left") for ax in result.plot().axes[1:] if ax.get_title(loc="left")]
    ['$x$', 'sharpness']
    """
    loss = loss if loss is not None else getattr(result, "loss", None)
    looks = looks_in(result)
    names = names_shown(result)
    plane = all(run.w is not None and run.w.shape[-1] == 2 for run in result.runs.values())
    rows, columns, wide = _layout(len(names), plane)
    with rc_context(STYLE):
        fig = new_figure(max(3.8 * columns + 1.6 * wide, 6.4), 1.3 + max(2.65 * rows, 3.3))
        widths, heights = [1 + 0.42 * wide] + [1] * (columns - 1), [1.8, 1] * rows
        grid = fig.add_gridspec(2 * rows, columns, width_ratios=widths, height_ratios=heights)
        places = [divmod(i, columns) for i in range(rows * columns)]
        if plane:
            places = [(r, c) for r, c in places if c > 0 or (r > 0 and not wide)]
            draw_landscape(fig.add_subplot(grid[:, 0] if wide else grid[:2, 0]), result, loss, looks)
        for name, (row, column) in zip(names, places, strict=False):
            upper = fig.add_subplot(grid[2 * row, column])
            lower = fig.add_subplot(grid[2 * row + 1, column], sharex=upper)
            draw_quantity(upper, lower, result, name, looks)
            share_clock(upper, lower, result.steps, result.time, row == 0, row == rows - 1)
        draw_head(fig, headline_of(result), details_of(result))
        draw_legend(fig, legend_handles(looks, map_looks(result), result.runs[result.map_label].paths, plane, loss))
        write_picture(fig, path)
    return fig


def plot_run(run: Run, *, quantities: Sequence[str] | None = None, path: Any = None) -> Figure:
    """The parameters and observables of a run over its steps, six panels at most; saved to `path` if given.

    One path is drawn as it is; of many the mean, the 5-95 % and 25-75 % bands and three of the paths.
    `quantities` chooses what is drawn. Raises InputError for unknown ones, ArchiveError where `path` cannot be
    written.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> run = md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.1)), w0=[1.0], steps=30, observe="loss")
    >>> [ax.get_title(loc="left") for ax in run.plot().axes]
    ['$x$', 'loss']
    """
    names = list(quantities) if quantities is not None else names_in(run)
    if not names:
        raise InputError("there is nothing to draw: name at least one parameter or observable.")
    columns = min(len(names), 2 if len(names) == 4 else 3)
    rows = -(-len(names) // columns)
    look = looks_of({"": run.meta.get("flow", "")})[""] if run.meta.get("kind") == "flow" else MAP
    with rc_context(STYLE):
        fig = new_figure(max(3.7 * columns, 5.2), 2.35 * rows + 1.1)
        grid = fig.add_gridspec(rows, columns)
        for number, name in enumerate(names):
            ax = fig.add_subplot(grid[divmod(number, columns)])
            draw_spread(ax, run, name, look)
            share_clock(ax, ax, run.steps, run.time, number < columns, number + columns >= len(names))
        many = f"{run.paths:,} paths: mean, 5–95 % and 25–75 % bands" if run.paths > 1 else "one path"
        ended = [] if run.finished.all() else [run.describe_status()]
        every = len(run.moments) or len(run.names) + len(run.observables)
        if quantities is None and every > len(names):
            ended.append(f"{len(names)} of {every:,} quantities drawn")
        ended += [run.meta["between_saves"]] if run.meta.get("between_saves") else []
        system = str(run.meta.get("system", "Run"))
        draw_head(fig, system.partition("(")[0], [system, many, f"{int(run.steps[-1]):,} steps", *ended])
        write_picture(fig, path)
    return fig


def plot_scaling(study: ScalingStudy, *, path: Any = None) -> Figure:
    """The differences of a scaling study over the learning rate, on logarithmic axes, one panel per quantity.

    Points carry two standard errors to each side; a difference that is not seen is an arrow down from what could
    have been. Lines are the fitted powers; the legend of a panel names the orders. Saved to `path` if given.
    Raises ArchiveError where `path` cannot be written.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> gd = md.Map(md.Loss(x**4 / 4, [x]), md.GD(0.1))
    >>> study = md.scaling_study(gd, md.GradientFlow, lrs=[0.04, 0.02], w0=[1.0], time=1.0)
    >>> [ax.get_title(loc="left") for ax in study.plot().axes]
    ['$x$']
    """
    names = list(dict.fromkeys(r.quantity for r in study.rows))[:PANELS]
    keys = study.meta.get("keys", {})
    looks = looks_of({r.flow: keys.get(r.flow, "") for r in study.rows})
    columns = min(len(names), 2 if len(names) == 4 else 3)
    rows = -(-len(names) // columns)
    with rc_context(STYLE):
        fig = new_figure(max(3.7 * columns, 5.2), 2.9 * rows + 1.1)
        grid = fig.add_gridspec(rows, columns)
        for number, name in enumerate(names):
            ax = fig.add_subplot(grid[divmod(number, columns)])
            for flow, look in looks.items():
                draw_order(ax, study, [r for r in study.rows if (r.flow, r.quantity) == (flow, name)], look)
            ax.set(xscale="log", yscale="log")
            ax.set_title(pretty(name), loc="left")
            ax.set_ylabel("|flow − map|")
            ax.grid(True, which="both", color=FAINT, lw=0.4, alpha=0.6)
            if number + columns >= len(names):
                ax.set_xlabel("learning rate")
            rates = sorted({r.lr for r in study.rows})
            ax.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
            ax.set_xticks([], minor=True)
            ax.legend(frameon=False, handlelength=1.7, loc="best")
        meta = study.meta
        clock = f"fixed {meta.get('clock', 'time')} {meta.get('span', np.nan):.6g}"
        every = len({r.quantity for r in study.rows})
        notes = [f"{len(names)} of {every} quantities drawn"] if every > len(names) else []
        notes += [f"{name}: not drawn: {', '.join(gone)}" for name, gone in _undrawn(study, names)]
        notes += meta.get("remarks", [])
        made = [str(meta.get("map", "")), clock, str(meta.get("planned", ""))]
        draw_head(fig, "Order in the learning rate", [*made, *notes])
        style: dict[str, Any] = {"color": GREY, "ls": ""}
        draw_legend(fig, [
            *(Line2D([], [], color=v.colour, ls=v.dash, lw=v.width, marker=v.marker, ms=4, label=flow)
              for flow, v in looks.items()),
            Line2D([], [], marker="o", ms=4, label="±2 s.e.", **style),
            Line2D([], [], marker="v", ms=5.5, mfc="white", label="not seen: limit", **style),
        ])  # fmt: skip
        write_picture(fig, path)
    return fig


def _undrawn(study: ScalingStudy, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Points that logarithmic axes cannot show: exact agreement, and rates at which no path is left."""
    out = []
    for name in names:
        mine = [r for r in study.rows if r.quantity == name]
        exact = [r for r in mine if r.difference == 0 and not r.standard_error > 0]
        gone = [f"{r.flow} at lr {r.lr:.3g} (exact)" for r in exact]
        gone += [f"{r.flow} at lr {r.lr:.3g} (no path left)" for r in mine if not np.isfinite(r.difference)]
        out += [(name, gone)] if gone else []
    return out


def _layout(panels: int, plane: bool) -> tuple[int, int, bool]:
    """Rows and columns for so many panels and a landscape, and whether the landscape is as tall as all rows."""
    if not plane:
        columns = panels if panels <= 3 else 2 if panels == 4 else 3
        return max(-(-panels // max(columns, 1)), 1), max(columns, 1), False
    rows = {1: 1, 6: 3}.get(panels, 2)
    wide = panels % 2 == 0
    return rows, -(-panels // rows) + 1 if wide else (panels + 1) // rows, wide
