"""Pictures: a run over its steps; a map and its flows side by side, on the landscape of two parameters.

Figures are made without pyplot: no global state, nothing to close, no display needed, and Jupyter shows them.
"""

from __future__ import annotations

import os
import re
import textwrap
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from minidyn.compare import Comparison
from minidyn.errors import ArchiveError, InputError, ManifoldError
from minidyn.loss import Loss
from minidyn.manifold import Manifold
from minidyn.scaling import ScalingRow, ScalingStudy
from minidyn.trajectory import QUANTILES, Run

Floats = NDArray[np.float64]
Curve = tuple[Floats, Floats, Floats]  # mean, lower and upper edge of the band, each (T,)

_PANELS = 6
_POINTS = 400  # of an ensemble drawn on the landscape
_THIN = 3  # paths drawn as thin lines
_HUGE = 1e15  # beyond this a path has left every picture
_LOWEST = 1e-18  # part of the largest value at which a logarithmic scale ends
_ZERO = 1e-12  # a quantity that stays below this on the manifold is zero to rounding
_GREY, _FAINT, _MINIMA = "#5f6670", "#c9ced6", "#8c1d40"
_GREEK = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi
omega""".split()
_LAND = LinearSegmentedColormap.from_list("land", ["#ffffff", "#eef2f5", "#d5dee6", "#b4c3d0", "#93a8ba"])
_STYLE: Any = {
    "font.size": 9.0, "axes.titlesize": 9.5, "axes.labelsize": 9.0, "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0, "legend.fontsize": 8.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.7, "axes.edgecolor": _GREY, "xtick.color": _GREY, "ytick.color": _GREY,
    "xtick.labelcolor": "black", "ytick.labelcolor": "black", "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "axes.formatter.limits": (-2, 4), "mathtext.fontset": "dejavusans",
}  # fmt: skip


@dataclass(frozen=True)
class _Look:
    """How a system is drawn: apart in colour, in grey and in line style."""

    colour: str
    dash: Any
    width: float
    marker: str


_MAP = _Look("#12385c", "-", 2.2, "o")
_FLOWS = (
    _Look("#f08c00", (0, (4, 1.6)), 1.7, "D"),
    _Look("#0fae84", (0, (1.2, 1.2)), 1.9, "^"),
    _Look("#d36ba6", (0, (6, 1.5, 1.2, 1.5)), 1.7, "s"),
    _Look("#62bdea", (0, (8, 2)), 1.7, "v"),
    _Look("#9d7bea", (0, (3, 1, 1, 1, 1, 1)), 1.7, "P"),
    _Look("#b5a300", (0, (2.5, 1)), 1.7, "X"),
    _Look("#8a8f98", (0, (10, 3)), 1.7, "<"),
)


class Picture(Figure):
    """A matplotlib figure that Jupyter shows whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        return _rendered(self, "png", 110)


class _Numbers(ScalarFormatter):
    """Tick labels without TeX, which takes half a second for a figure; a common power of ten as `×10⁻⁴`."""

    def __init__(self) -> None:
        super().__init__(useOffset=False, useMathText=False)
        self.set_powerlimits((-4, 5))

    def get_offset(self) -> str:
        found = re.fullmatch(r"1e(.\d+|\d+)", super().get_offset())
        return f"×{_ten(int(found[1].replace('−', '-')))}" if found else super().get_offset()


def _ten(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# -- the two doors -------------------------------------------------------------------------------------


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
    looks = dict(zip(result.runs, [_MAP, *_FLOWS * len(result.runs)], strict=False))
    names = _shown(result)
    plane = all(run.w is not None and run.w.shape[-1] == 2 for run in result.runs.values())
    rows, columns, wide = _layout(len(names), plane)
    with rc_context(_STYLE):
        fig = _figure(max(3.8 * columns + 1.6 * wide, 6.4), 1.3 + max(2.65 * rows, 3.3))
        widths, heights = [1 + 0.42 * wide] + [1] * (columns - 1), [1.8, 1] * rows
        grid = fig.add_gridspec(2 * rows, columns, width_ratios=widths, height_ratios=heights)
        places = [divmod(i, columns) for i in range(rows * columns)]
        if plane:
            places = [(r, c) for r, c in places if c > 0 or (r > 0 and not wide)]
            _draw_landscape(fig.add_subplot(grid[:, 0] if wide else grid[:2, 0]), result, loss, looks)
        for name, (row, column) in zip(names, places, strict=False):
            upper = fig.add_subplot(grid[2 * row, column])
            lower = fig.add_subplot(grid[2 * row + 1, column], sharex=upper)
            _draw_quantity(upper, lower, result, name, looks)
            _share_clock(upper, lower, result.steps, result.time, row == 0, row == rows - 1)
        _head(fig, _headline(result), _details(result))
        _explain(fig, _handles(looks, result.runs[result.map_label].paths, plane, loss))
        _save(fig, path)
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
    names = list(quantities) if quantities is not None else _run_names(run)
    if not names:
        raise InputError("there is nothing to draw: name at least one parameter or observable.")
    columns = min(len(names), 2 if len(names) == 4 else 3)
    rows = -(-len(names) // columns)
    look = _FLOWS[0] if run.meta.get("kind") == "flow" else _MAP
    with rc_context(_STYLE):
        fig = _figure(max(3.7 * columns, 5.2), 2.35 * rows + 1.1)
        grid = fig.add_gridspec(rows, columns)
        for number, name in enumerate(names):
            ax = fig.add_subplot(grid[divmod(number, columns)])
            _draw_spread(ax, run, name, look)
            _share_clock(ax, ax, run.steps, run.time, number < columns, number + columns >= len(names))
        many = f"{run.paths:,} paths: mean, 5–95 % and 25–75 % bands" if run.paths > 1 else "one path"
        ended = [] if run.finished.all() else [run.describe_status()]
        system = str(run.meta.get("system", "Run"))
        _head(fig, system.partition("(")[0], [system, many, f"{int(run.steps[-1]):,} steps", *ended])
        _save(fig, path)
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
    names = list(dict.fromkeys(r.quantity for r in study.rows))[:_PANELS]
    looks = dict(zip(dict.fromkeys(r.flow for r in study.rows), _FLOWS * len(study.rows), strict=False))
    columns = min(len(names), 2 if len(names) == 4 else 3)
    rows = -(-len(names) // columns)
    with rc_context(_STYLE):
        fig = _figure(max(3.7 * columns, 5.2), 2.9 * rows + 1.1)
        grid = fig.add_gridspec(rows, columns)
        for number, name in enumerate(names):
            ax = fig.add_subplot(grid[divmod(number, columns)])
            for flow, look in looks.items():
                _draw_order(ax, study, [r for r in study.rows if (r.flow, r.quantity) == (flow, name)], look)
            ax.set(xscale="log", yscale="log")
            ax.set_title(_pretty(name), loc="left")
            ax.set_ylabel("|flow − map|")
            ax.grid(True, which="both", color=_FAINT, lw=0.4, alpha=0.6)
            if number + columns >= len(names):
                ax.set_xlabel("learning rate")
            rates = sorted({r.lr for r in study.rows})
            ax.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
            ax.set_xticks([], minor=True)
            ax.legend(frameon=False, handlelength=1.7, loc="lower right")
        meta = study.meta
        clock = f"fixed {meta.get('clock', 'time')} {meta.get('span', np.nan):.6g}"
        _head(fig, "order in the learning rate", [str(meta.get("map", "")), clock, str(meta.get("planned", ""))])
        style: dict[str, Any] = {"color": _GREY, "ls": ""}
        _explain(fig, [
            *(Line2D([], [], color=v.colour, ls=v.dash, lw=v.width, marker=v.marker, ms=4, label=flow)
              for flow, v in looks.items()),
            Line2D([], [], marker="o", ms=4, label="±2 s.e.", **style),
            Line2D([], [], marker="v", ms=5.5, mfc="white", label="not seen: limit", **style),
        ])  # fmt: skip
        _save(fig, path)
    return fig


def _draw_order(ax: Axes, study: ScalingStudy, rows: list[ScalingRow], look: _Look) -> None:
    """The differences of one flow in one quantity, and the power that fits them."""
    if not rows:
        return
    lr, gap, error = (np.array([getattr(r, n) for r in rows]) for n in ("lr", "difference", "standard_error"))
    gap, error = np.abs(gap), np.nan_to_num(error)
    seen = gap > 2 * error
    fit = study.fit(rows[0].flow, rows[0].quantity)
    label = "no order seen"
    if fit.resolved:
        label = f"order {fit.order:.2f} ({fit.low:.2f} to {fit.high:.2f})"
        line = np.geomspace(lr.min(), lr.max(), 50)
        ax.plot(line, fit.constant * line**fit.order, color=look.colour, ls=look.dash, lw=look.width, label=label)
    below = np.minimum(2 * error, 0.999 * gap)[seen]
    bars: dict[str, Any] = {"color": look.colour, "ls": "", "marker": look.marker, "ms": 4.5, "capsize": 2, "lw": 1.0}
    ax.errorbar(lr[seen], gap[seen], [below, 2 * error[seen]], **bars, label=None if fit.resolved else label)
    limits = (gap + 2 * error)[~seen & (error > 0)]
    ax.plot(lr[~seen & (error > 0)], limits, color=look.colour, ls="", marker="v", mfc="white", ms=5.5)


def _layout(panels: int, plane: bool) -> tuple[int, int, bool]:
    """Rows and columns for so many panels and a landscape, and whether the landscape is as tall as all rows."""
    if not plane:
        columns = panels if panels <= 3 else 2 if panels == 4 else 3
        return max(-(-panels // max(columns, 1)), 1), max(columns, 1), False
    rows = {1: 1, 6: 3}.get(panels, 2)
    wide = panels % 2 == 0
    return rows, -(-panels // rows) + 1 if wide else (panels + 1) // rows, wide


# -- panels over the steps -----------------------------------------------------------------------------


def _draw_quantity(upper: Axes, lower: Axes, result: Comparison, name: str, looks: dict[str, _Look]) -> None:
    """Means and bands above, differences below."""
    k, values, first = result.steps, result.quantities[name], result.map_label
    curves = {label: _curve(v) for label, v in values.items()}
    lower.axhline(0.0, color=_GREY, lw=0.7)
    for order, (label, look) in enumerate(looks.items()):
        mean, low, high = curves[label]
        if label == first:
            upper.fill_between(k, low, high, color=look.colour, alpha=0.17, lw=0)
        else:
            gap, error = _difference(values[first], values[label], bool(result.meta.get("coupled")))
            lower.fill_between(k, gap - 2 * error, gap + 2 * error, color=look.colour, alpha=0.27, lw=0)
            lower.plot(k, gap, color=look.colour, ls=look.dash if len(looks) > 2 else "-", lw=1.3)
        for edge in (low, high) if len(values[label]) > 1 else ():
            upper.plot(k, edge, color=look.colour, ls=look.dash, lw=0.8, alpha=0.85, zorder=3 + order)
        upper.plot(k, mean, color=look.colour, ls=look.dash, lw=look.width, zorder=10 + order)
    _name_and_scale(upper, name, list(curves.values()))
    lower.set_ylabel("flow − map", fontsize=8)
    lower.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))
    lower.yaxis.set_major_formatter(_Numbers())


def _draw_spread(ax: Axes, run: Run, name: str, look: _Look) -> None:
    """One quantity of one run: a line, or a mean with bands and a few paths."""
    if name in run.moments:
        stats = run.moments[name]
        edges = dict(zip(QUANTILES, stats["quantiles"], strict=True))
        mean, values = stats["mean"], None
    else:
        values = run.quantity(name)
        edges = {q: _over_paths(values, partial(np.quantile, q=q)) for q in QUANTILES}
        mean = _over_paths(values, np.mean)
    if run.paths > 1:
        for low, high in ((0.05, 0.95), (0.25, 0.75)):
            ax.fill_between(run.steps, edges[low], edges[high], color=look.colour, alpha=0.17, lw=0)
        if values is not None:
            ax.plot(run.steps, values[:_THIN].T, color=look.colour, lw=0.5, alpha=0.55)
    ax.plot(run.steps, mean, color=look.colour, lw=1.9)
    _name_and_scale(ax, name, [(mean, edges[0.05], edges[0.95])])


def _name_and_scale(ax: Axes, name: str, curves: list[Curve]) -> None:
    """The quantity's name; a logarithmic scale where all is positive and the means span a factor above thirty."""
    ax.set_title(_pretty(name), loc="left")
    ax.yaxis.set_major_formatter(_Numbers())
    everything = np.concatenate([np.concatenate(c) for c in curves])
    means = np.concatenate([c[0] for c in curves])
    everything, means = everything[np.isfinite(everything)], means[np.isfinite(means)]
    if means.size and everything.min() > 0 and means.max() > 30 * means.min():
        ax.set_yscale("log")
        if everything.min() < _LOWEST * everything.max():
            ax.set_ylim(_LOWEST * everything.max(), 3 * everything.max())


def _share_clock(upper: Axes, lower: Axes, steps: NDArray[Any], time: Floats, top: bool, bottom: bool) -> None:
    """Steps k below the lowest panels; the time t beside them, or above where it is not a multiple of k."""
    k, t = np.asarray(steps, dtype=float), np.asarray(time, dtype=float)
    for ax in (upper, lower):
        ax.grid(True, color=_FAINT, lw=0.4, alpha=0.7)
        ax.set_axisbelow(True)
    if k[-1] > k[0]:
        lower.set_xlim(k[0], k[-1])
    lower.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    if upper is not lower:
        upper.tick_params(labelbottom=False)
    lr = t[-1] / k[-1] if k[-1] else np.nan
    uniform = np.allclose(t, lr * k)
    if bottom:
        lower.set_xlabel(f"step $k$   ($t = {lr:.6g}\\,k$)" if uniform else "step $k$")
    if top and not uniform and (np.diff(t) > 0).all():
        both = (lambda x: np.interp(x, k, t), lambda x: np.interp(x, t, k))
        above = upper.secondary_xaxis("top", functions=both)
        above.set_xlabel("time $t$")


# -- the landscape -------------------------------------------------------------------------------------


def _draw_landscape(ax: Axes, result: Comparison, loss: Loss | None, looks: dict[str, _Look]) -> None:
    """Level sets, minima, the ensembles at the last step, a few paths."""
    low, high = _window([run.w for run in result.runs.values() if run.w is not None])
    first = next(iter(result.runs.values()))
    if loss is not None and loss.dim == 2:
        _draw_levels(ax, loss, low, high)
        for curve in _minima(loss, low, high):
            ax.plot(*curve.T, color=_MINIMA, lw=1.3, zorder=3, marker="*" if len(curve) == 1 else "")
    for order, (label, look) in enumerate(looks.items()):
        w = result.runs[label].w
        assert w is not None
        for path in w[:_THIN]:
            ax.plot(*path.T, color=look.colour, ls=look.dash, lw=0.4, alpha=0.4, zorder=4 + order)
        size = (8 if order else 14) if len(w) > 1 else 40
        x, y = w[:_POINTS, -1].T
        style: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.3, "alpha": 0.6 if len(w) > 1 else 1.0}
        ax.scatter(x, y, size, color=look.colour, marker=look.marker, zorder=10 + order, **style)
    start = first.w[:, 0] if first.w is not None else np.empty((0, 2))
    ax.plot(*np.unique(start, axis=0)[:_POINTS].T, ls="", marker="X", ms=6.5, mfc="white", mec="black", zorder=30)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if np.isclose(*(high - low)):
        ax.set_aspect("equal", adjustable="box")
    for spine in ax.spines.values():
        spine.set_visible(True)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(_Numbers())
    ax.set_xlabel(_pretty(first.names[0]))
    ax.set_ylabel(_pretty(first.names[1]))
    thin = f"{min(_THIN, first.paths)} path{'s' * (first.paths > 1)}"
    ax.set_title(f"ensembles at step {int(first.steps[-1]):,}; thin: {thin}", loc="left")


def _draw_levels(ax: Axes, loss: Loss, low: Floats, high: Floats) -> None:
    """Filled level sets of the loss, or of what it is above its minimum, log-spaced over four decades."""
    x, y = (np.linspace(a, b, 161) for a, b in zip(low, high, strict=True))
    with np.errstate(all="ignore"):
        z = np.asarray(loss.value(np.stack(np.meshgrid(x, y), axis=-1)))
    finite = z[np.isfinite(z)]
    if not finite.size or not np.ptp(finite) > 0:
        return
    high_up, bottom = np.quantile(finite - finite.min(), 0.97) or np.ptp(finite), finite.min()
    top = np.ceil(np.log10(high_up))
    levels = np.logspace(top - 4, top, 13)
    shifted = not 0 <= bottom < levels[0]
    z = z - bottom if shifted else z
    shades: dict[str, Any] = {"cmap": _LAND, "norm": LogNorm(levels[0], levels[-1]), "extend": "both"}
    filled = ax.contourf(x, y, np.maximum(z, levels[0] / 10), levels, zorder=0, **shades)
    ax.contour(x, y, z, levels, colors="white", linewidths=0.5, alpha=0.8, zorder=1)
    bar = ax.figure.colorbar(
        filled, ax=ax, shrink=0.7, aspect=30, pad=0.01, ticks=LogLocator(10),
        format=FuncFormatter(lambda v, _: _ten(round(np.log10(v)))),
    )
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.text(0.5, 1.06, "loss − min" if shifted else "loss", transform=bar.ax.transAxes, ha="center")


def _window(clouds: Iterable[Floats]) -> tuple[Floats, Floats]:
    """Corners of the part of the plane that almost all points visit."""
    points = np.concatenate([w.reshape(-1, 2) for w in clouds])
    points = points[(np.abs(points) < _HUGE).all(axis=1)]
    if not len(points):
        return np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    low, high = np.quantile(points, [0.001, 0.999], axis=0)
    low, high = np.minimum(low, points[0]), np.maximum(high, points[0])
    size = np.maximum(high - low, [1e-9, 1e-9])
    if size.min() > 0.3 * size.max():  # comparable: a square, so that the picture is true to scale
        size = np.full(2, size.max())
    middle = (low + high) / 2
    return middle - 0.6 * size, middle + 0.6 * size


def _minima(loss: Loss, low: Floats, high: Floats) -> list[Floats]:
    """Curves of minima in a window, each (N, 2), found from a grid of points; an isolated one is one point."""
    manifold = Manifold(loss)
    x, y = (np.linspace(a, b, 9) for a, b in zip(low, high, strict=True))
    curves: list[Floats] = []
    for seed in manifold.find(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), max_steps=2000):
        inside = ((seed >= low) & (seed <= high)).all()
        known = any(np.linalg.norm((c - seed) / (high - low), axis=1).min() < 0.02 for c in curves)
        if inside and not known and len(curves) < 12 and _is_minimum(manifold, seed):
            halves = [_walk(manifold, seed, low, high, sign) for sign in (1.0, -1.0)]
            curves.append(np.array([*halves[1][::-1], seed, *halves[0]]))
    return curves


def _is_minimum(manifold: Manifold, w: Floats) -> bool:
    """Whether the Hessian has a clear rank and no direction downwards: a grid can hit a maximum exactly."""
    try:
        return manifold.dimension(w) >= 0
    except ManifoldError:
        return False


def _walk(manifold: Manifold, seed: Floats, low: Floats, high: Floats, sign: float) -> list[Floats]:
    """Points along the minima from a seed on, one hundredth of the window apart, until they leave it or close."""
    size, points, heading = high - low, [seed], None
    for _ in range(400):
        try:
            tangent = manifold.tangent(points[-1])
            if tangent.shape[1] != 1:
                break
            ahead = tangent[:, 0] * (sign if heading is None else np.sign(tangent[:, 0] @ heading))
            new = manifold.project(points[-1] + 0.01 * ahead / np.linalg.norm(ahead / size), max_steps=2000)
        except ManifoldError:
            break
        heading = new - points[-1]
        moved = np.linalg.norm(heading / size)
        if not 0.002 < moved < 0.05:
            break
        points.append(new)
        outside = ((new < low) | (new > high)).any()
        if outside or (len(points) > 5 and np.linalg.norm((new - seed) / size) < 0.009):
            break
    return points[1:]


# -- numbers -------------------------------------------------------------------------------------------


def _over_paths(values: Floats, statistic: Callable[[Floats], Any]) -> Floats:
    """A statistic over the paths that are in the picture at each time, (paths, T) -> (T,); NaN where none is."""
    columns = (v[np.abs(v) < _HUGE] for v in values.T)
    return np.array([float(statistic(v)) if len(v) else np.nan for v in columns])


def _curve(values: Floats) -> Curve:
    """Mean and 5-95 % band of (paths, T)."""
    low, high = (_over_paths(values, partial(np.quantile, q=q)) for q in (0.05, 0.95))
    return _over_paths(values, np.mean), low, high


def _difference(a: Floats, b: Floats, coupled: bool) -> tuple[Floats, Floats]:
    """Difference of means b - a and its standard error at each time, paired where both share their noise."""

    def variance(v: Floats) -> Any:
        return v.var(ddof=1) / len(v) if len(v) > 1 else 0.0

    a, b = (np.where(np.abs(v) < _HUGE, v, np.nan) for v in (a, b))
    if coupled and a.shape == b.shape:
        return _over_paths(b - a, np.mean), np.sqrt(_over_paths(b - a, variance))
    return (
        _over_paths(b, np.mean) - _over_paths(a, np.mean),
        np.sqrt(_over_paths(a, variance) + _over_paths(b, variance)),
    )


def _shown(result: Comparison) -> list[str]:
    """Up to six quantities, without those that are zero to rounding on the manifold."""
    if not result.meta.get("projected"):
        return list(result.quantities)[:_PANELS]

    def moves(name: str) -> bool:
        return any((np.abs(v[np.isfinite(v)]) > _ZERO).any() for v in result.quantities[name].values())

    return ([name for name in result.quantities if moves(name)] or list(result.quantities))[:_PANELS]


def _run_names(run: Run) -> list[str]:
    """What a run shows: its observables, and before them as many parameters as find room."""
    named = set(run.names)
    observables = [n for n in (run.moments or run.observables) if n not in named]
    parameters = run.names if run.w is not None or not named.isdisjoint(run.moments) else []
    return [*parameters[: max(_PANELS - len(observables), 0)], *observables][:_PANELS]


# -- words ---------------------------------------------------------------------------------------------


def _pretty(name: str) -> str:
    """A name as a mathematician sets it, where that is easy; otherwise as it is, in lines of moderate length."""
    if re.fullmatch(r"[A-Za-z](\s*[+-]\s*[A-Za-z])*", name):
        return f"${name}$"
    if match := re.fullmatch(r"([A-Za-z])[\[_]\{?(\d+(?:,\d+)*)[\]}]?", name):
        return f"${match[1]}_{{{match[2]}}}$"
    if name in _GREEK:
        return rf"$\{name}$"
    plain = re.sub(r"Abs\(([^()]*)\)", r"|\1|", name)
    for raw, set_ in (("**2", "²"), ("**3", "³"), ("**", "^"), ("*", "·"), ("$", r"\$")):
        plain = plain.replace(raw, set_)
    return textwrap.fill(_short(plain, 88), 44)


def _short(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _headline(result: Comparison) -> str:
    """The model, the map and its flows, of which many are named by what tells them apart, or counted."""
    first, *flows = result.runs
    model = result.meta.get("model")
    named = " and ".join(flows)
    if len(flows) > 2 and all(f.endswith(" flow") for f in flows):
        *most, last = (f.removesuffix(" flow") for f in flows)
        named = f"{', '.join(most)} and {last} flows"
    named = named if len(named) < 70 else f"{len(flows)} flows"
    return f"{model}: " * bool(model) + f"{first} and its {named}"


def _details(result: Comparison) -> list[str]:
    meta = result.meta
    system = str(meta.get("map", ""))
    system = system[4:-1] if system.startswith("Map(") and system.endswith(")") else system
    paths = int(meta.get("paths", 0))
    clock = f"{paths:,} path{'s' * (paths != 1)}, {meta.get('steps', 0):,} steps"
    noise = "same noise for both" if meta.get("coupled") else "independent noise"
    noise = "" if system.endswith("no noise") else noise
    where = "panels: after projection on the minima" if meta.get("projected") else ""
    runs = result.runs.items()
    ended = [f"{label}: {run.describe_status()}" for label, run in runs if not run.finished.all()]
    return [part for part in (system, clock, noise, where, *ended) if part]


def _head(fig: Figure, title: str, details: list[str]) -> None:
    """A title and what was run, left aligned above everything else."""
    width, height = fig.get_size_inches()
    lines = [""]
    for part in details:
        longer = f"{lines[-1]}  ·  {part}" if lines[-1] else part
        if len(longer) <= width * 14.5:
            lines[-1] = longer
        else:
            lines += textwrap.wrap(part, int(width * 14.5))
    text = "\n".join(line for line in lines if line)
    fig.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontsize=12, fontweight="bold", parse_math=False)
    style: dict[str, Any] = {"fontsize": 8.5, "color": _GREY, "linespacing": 1.35, "parse_math": False}
    fig.text(0.1 / width, 1 - 0.36 / height, text, va="top", **style)
    engine = fig.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(h_pad=0.03, hspace=0.0, rect=(0, 0, 1, 1 - (0.45 + 0.165 * (text.count("\n") + 1)) / height))


def _explain(fig: Figure, handles: list[Any]) -> None:
    """A legend below everything, as wide as the figure allows."""
    columns = min(len(handles), int(fig.get_figwidth() / 1.25))
    close: dict[str, Any] = {"columnspacing": 1.4, "handlelength": 1.7, "handletextpad": 0.6, "frameon": False}
    fig.legend(handles=handles, loc="outside lower center", ncols=columns, **close)


def _handles(looks: dict[str, _Look], paths: int, plane: bool, loss: Loss | None) -> list[Any]:
    """What the legend explains."""
    handles: list[Any] = []
    for label, look in looks.items():
        style = {"color": look.colour, "ls": look.dash, "lw": look.width, "marker": look.marker if plane else ""}
        handles.append(Line2D([], [], ms=4, label=label, **style))
    if paths > 1:
        handles.append(Patch(color=_MAP.colour, alpha=0.17, lw=0, label="5–95 % of paths"))
        handles.append(Patch(color=_FLOWS[0].colour, alpha=0.27, lw=0, label="±2 s.e. of the difference"))
    if plane:
        if loss is not None:
            handles.append(Line2D([], [], color=_MINIMA, lw=1.3, label="minima"))
        handles.append(Line2D([], [], ls="", marker="X", ms=6.5, mfc="white", mec="black", label="start"))
    return handles


# -- making and writing --------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Picture:
    fig = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def _rendered(fig: Figure, kind: str, dpi: float | None = None) -> bytes:
    image, engine = BytesIO(), fig.get_layout_engine()
    if engine is not None:  # the layout is found once; left in place, the engine would find it again for every draw
        engine.execute(fig)
        fig.set_layout_engine("none")
    if kind == "png" and isinstance(fig.canvas, FigureCanvasAgg):
        before = fig.dpi
        fig.set_dpi(dpi or before)
        fig.canvas.print_png(image, pil_kwargs={"compress_level": 3})  # `savefig` would draw it twice
        fig.set_dpi(before)
    else:
        fig.savefig(image, format=kind, dpi=dpi or "figure")
    fig.set_layout_engine(engine)
    return image.getvalue()


def _save(fig: Figure, path: Any) -> None:
    """Write the figure whole or not at all."""
    if path is None:
        return
    target = Path(path).expanduser()
    target = target if target.suffix[1:2].isalpha() else target.with_name(target.name + ".png")
    kind, known = target.suffix[1:].lower(), FigureCanvasAgg.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"a figure cannot be written as .{kind}; use one of {', '.join(sorted(known))}.")
    image = _rendered(fig, kind, 160)
    temporary = target.with_name(f".minidyn-{uuid.uuid4().hex[:12]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(image)
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArchiveError(f"Cannot save `{path}`: {reason}; choose another path.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
