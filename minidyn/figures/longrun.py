"""Pictures of where a map goes in the long run: bifurcation diagrams and basins of attraction."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.reports import digits
from minidyn.compare.basins import DIVERGED, MOVING, Basins, Place
from minidyn.compare.bifurcation import Bifurcation
from minidyn.figures.scales import grid, is_log, tidy
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import GREY, HUGE, MAP, PANELS, named, pretty
from minidyn.flows.look import PALETTE

_ERRATIC, _REST = PALETTE[0].colour, "#aab1bb"
_GONE, _ON_THE_WAY, _OTHERS = "#e9ecf0", "#aab1bb", "#4a5560"
_PLACES = [MAP.colour, *(PALETTE[i].colour for i in (0, 3, 1, 2, 4, 7))]
_INK = 0.25  # how dark a picture is where erratic points are everywhere
_DEEPEST = 3.0  # times the largest exponent: how far below zero exponents are drawn


def plot_bifurcation(
    result: Bifurcation, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None
) -> Figure:
    """What each quantity takes in the long run, against the parameter, and the largest Lyapunov exponent.

    Panels are the quantities and "exponent".

    >>> import numpy as np, sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((x * y - 1)**2 / 2, [x, y]), md.GD(0.9))
    >>> seen = md.bifurcation(gd, "lr", np.linspace(0.9, 1.5, 30), w0=[0.9, 0.8], steps=600)
    >>> [ax.get_title(loc="left") for ax in seen.plot().axes]
    ['$x$', '$y$', 'largest Lyapunov exponent per step']
    """
    kinds = np.array(result.kinds)
    there = [Panel(name, partial(_draw_points, result=result, name=name, kinds=kinds)) for name in result.points]
    there = [*there[: PANELS - 1], Panel("exponent", partial(_draw_exponent, result=result, kinds=kinds)), *there[5:]]
    count = next(iter(result.points.values())).shape[1]
    title, *made = named(f"the long run, against {result.parameter}", str(result.meta.get("system", "")))
    drawn, every = min(len(result.points), PANELS - 1), len(result.points)
    details = [*made, f"{len(result.values):,} values, {result.steps:,} steps each, the last {count:,} drawn"]
    details += [f"{drawn} of {every:,} quantities drawn"] if drawn < every and panels is None else []
    return compose(there, title, details, path=path, only=panels, size=size, ax=ax)


def _draw_points(ax: Axes, result: Bifurcation, name: str, kinds: NDArray[Any]) -> None:
    points = np.where(np.abs(result.points[name]) < HUGE, result.points[name], np.nan)
    settled = result.period > 0
    for chosen, colour, label in (
        (kinds == "irregular", _REST, "no period, not erratic"),
        (kinds == "erratic", _ERRATIC, "erratic"),
        (settled, MAP.colour, "at rest, or with a period"),
    ):
        if not chosen.any():
            continue
        last = int(result.period[chosen].max()) if label.startswith("at rest") else points.shape[1]
        y = points[chosen, -last:]
        x = np.repeat(result.values[chosen], y.shape[1])
        box = ax.get_window_extent()
        thin = min(1.0, max(0.04, _INK * float(box.width * box.height) / result.values.size / last))
        dot: dict[str, Any] = (
            {"ms": 1.6} if label.startswith("at rest") else {"ms": 0.9, "alpha": thin}
        )  # so that density is seen
        ax.plot(x, y.ravel(), ls="", marker="o", mew=0, color=colour, rasterized=True, label=label, **dot)
    _shade(ax, result)
    low, high = _ends(points)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set_title("".join([pretty(name), *tidy(ax.yaxis)]), loc="left")
    _put_parameter(ax, result)


def _shade(ax: Axes, result: Bifurcation) -> None:
    """Where runs diverge."""
    for n, window in enumerate(w for w in result.windows if w.kind == "diverged"):
        ends, label = [window.first, window.last], "_" if n else "diverged"
        ax.fill_between(ends, 0.0, 1.0, color=_GONE, lw=0, zorder=0, transform=ax.get_xaxis_transform(), label=label)


def _ends(points: Floats) -> tuple[float, float]:
    """Lower and upper end of what is drawn, with room where that is one number."""
    known = points[np.isfinite(points)]
    if not known.size:
        return -1.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = 1e-6 * max(abs(low), abs(high), 1e-300)
    return (low, high) if high - low > room else (low - 0.5 * abs(low) - room, high + 0.5 * abs(high) + room)


def _draw_exponent(ax: Axes, result: Bifurcation, kinds: NDArray[Any]) -> None:
    exponent = np.where(np.isfinite(result.exponent), result.exponent, np.nan)
    ax.axhline(0.0, color=GREY, lw=0.8)
    ax.plot(result.values, exponent, color=MAP.colour, lw=0.8)
    above = np.where(kinds == "erratic", exponent, np.nan)
    if np.isfinite(above).any():
        ax.plot(result.values, above, color=_ERRATIC, lw=0.8, marker="o", ms=1.2, mew=0)
    _shade(ax, result)
    known = exponent[np.isfinite(exponent)]
    high = max(float(known.max(initial=0.0)), 1e-3 * float(np.abs(known).max(initial=1.0)))
    low = max(
        float(known.min(initial=0.0)), -_DEEPEST * max(high, float(np.quantile(-known, 0.8)) if known.size else 0.1)
    )
    ax.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low))
    ax.set_title("".join(["largest Lyapunov exponent per step", *tidy(ax.yaxis)]), loc="left")
    _put_parameter(ax, result)


def _put_parameter(ax: Axes, result: Bifurcation) -> None:
    """The axis of the parameter, logarithmic where its values are spaced so."""
    values = result.values
    if len(values) > 2 and is_log([values]) and np.ptp(np.diff(np.log(values))) < 1e-3 * np.ptp(np.log(values)):
        ax.set_xscale("log")
    if len(values) > 1:
        ax.set_xlim(values[0], values[-1])
    grid(ax)
    ax.set_xlabel("".join([pretty(result.parameter), *tidy(ax.xaxis)]))


def plot_basins(result: Basins, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None) -> Figure:
    """Which starts end where: the grid in the colours of the places, and how many starts end in each.

    Panels are "basins", of a grid, and "shares".

    >>> import numpy as np, sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> wells = md.Map(md.Loss((x**2 - 1)**2 / 4 + y**2 / 2, [x, y]), md.GD(0.1))
    >>> seen = md.basin(wells, {x: np.linspace(-2, 2, 50), y: np.linspace(-2, 2, 50)}, 200)
    >>> [ax.get_title(loc="left") for ax in seen.plot().axes]
    ['where starts end', '% of the starts']
    """
    rows = _rows(result)
    there = [Panel("shares", partial(_draw_shares, result=result, rows=rows), (2.6,))]
    if result.axes:
        there = [Panel("basins", partial(_draw_grid, result=result, rows=rows), plane=True), *there]
    title, *made = named("which starts end where", str(result.meta.get("system", "")))
    details = [*made, f"{result.labels.size:,} starts, {result.steps:,} steps each"]
    return compose(there, title, details, path=path, only=panels, size=size, ax=ax)


def _rows(result: Basins) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """What is told apart: its name, its colour, and which starts it is."""
    labels, shown = result.labels, len(_PLACES)
    rows = [(_place(p), _PLACES[n], labels == n) for n, p in enumerate(result.places[:shown])]
    rows.append((f"{len(result.places) - shown:,} other places", _OTHERS, labels >= shown))
    rows += [("no period up to 64", _ON_THE_WAY, labels == MOVING), ("diverged", _GONE, labels == DIVERGED)]
    return [row for row in rows if row[2].any()]


def _place(place: Place) -> str:
    """A place in so many letters as stand in a legend."""
    at = ", ".join(digits(v + 0.0, 2).replace("-", "−") for v in np.round(place.at, 6))
    where = f"({at})" if len(place.at) <= 3 else f"|w| = {np.linalg.norm(place.at):.4g}"
    return where if place.period == 1 else f"period {place.period}, {where}"


def _draw_grid(ax: Axes, result: Basins, rows: list[tuple[str, str, NDArray[np.bool_]]]) -> None:
    image = np.zeros(result.labels.shape)
    for n, (label, colour, chosen) in enumerate(rows):
        image[chosen] = n
        one = [int(places[0]) for places in np.nonzero(chosen)]
        at = [[values[i]] for values, i in zip(result.axes.values(), one, strict=True)]
        ax.plot(*at, ls="", marker="s", ms=0.5, mew=0, color=colour, label=label)
    edges = [_edges(values) for values in result.axes.values()]
    colours = ListedColormap([colour for _, colour, _ in rows])
    ax.pcolorfast(*edges, image.T, cmap=colours, vmin=-0.5, vmax=len(rows) - 0.5, zorder=0)
    ax.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    for spine in ax.spines.values():
        spine.set_visible(True)
    first, second = result.axes
    ax.set_xlabel("".join([pretty(first), *tidy(ax.xaxis)]))
    ax.set_ylabel("".join([pretty(second), *tidy(ax.yaxis)]))
    ax.set_title("where starts end", loc="left")


def _edges(values: Floats) -> Floats:
    """The ends of cells about values."""
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middle = 0.5 * (values[1:] + values[:-1])
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def _draw_shares(ax: Axes, result: Basins, rows: list[tuple[str, str, NDArray[np.bool_]]]) -> None:
    shares = [100.0 * float(chosen.mean()) for _, _, chosen in rows]
    colours = [colour for _, colour, _ in rows]
    ax.barh(range(len(rows)), shares, color=colours, height=0.65, edgecolor=GREY, lw=0.4)
    for n, ((label, _, _), part) in enumerate(zip(rows, shares, strict=True)):
        ax.text(part + 1.5, n, f"{digits(part, 2)} %" + ("" if result.axes else f"   {label}"), va="center", fontsize=8)
    ax.set_yticks([])
    ax.set(xlim=(0, max(shares) * (1.25 if result.axes else 1.8)), ylim=(max(len(rows), 4) - 0.4, -0.6))
    ax.set_title("% of the starts", loc="left")
    tidy(ax.xaxis)
    grid(ax)
