"""Panels: quantities over the steps, with bands and differences; differences over the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from minidyn.compare.comparison import Comparison
from minidyn.compare.order import ScalingRow, ScalingStudy
from minidyn.figures.style import FAINT, GREY, HUGE, PANELS, THIN, Look, Numbers, map_looks, pretty
from minidyn.simulate.run import QUANTILES, Run

Floats = NDArray[np.float64]
Curve = tuple[Floats, Floats, Floats]  # mean, lower and upper edge of the band, each (T,)

_LOWEST = 1e-18  # part of the largest value at which a logarithmic scale ends


# -- drawing -------------------------------------------------------------------------------------------


def draw_quantity(upper: Axes, lower: Axes, result: Comparison, name: str, looks: dict[str, Look]) -> None:
    """Means and bands above, differences below, of the same paths: those that `Comparison.pair` says."""
    k, maps, shown = result.steps, map_looks(result), [*result.runs][1:]
    curves: list[Curve] = []
    sides: list[Floats] = []
    lower.axhline(0.0, color=GREY, lw=0.7)

    def curve(values: Floats, look: Look, order: int, filled: bool) -> None:
        mean, low, high = _curve(values)
        curves.append((mean, low, high))
        if filled:
            upper.fill_between(k, low, high, color=look.colour, alpha=0.17, lw=0)
        for edge in (low, high) if len(values) > 1 else ():
            upper.plot(k, edge, color=look.colour, ls=look.dash, lw=0.8, alpha=0.85, zorder=3 + order)
        upper.plot(k, mean, color=look.colour, ls=look.dash, lw=look.width, zorder=10 + order)

    for order, label in enumerate(shown, 1):
        if label not in result.quantities[name]:
            continue
        look, (a, b) = looks[label], result.pair(name, label)
        if not any(np.array_equal(a, side, equal_nan=True) for side in sides):  # another reading, or other paths
            sides.append(a)
            curve(a, maps[result.reading(label)], 0, len(sides) == 1)
        gap, error = difference_of(a, b, result.paired(label))
        lower.fill_between(k, gap - 2 * error, gap + 2 * error, color=look.colour, alpha=0.27, lw=0)
        lower.plot(k, gap, color=look.colour, ls=look.dash if len(shown) > 1 else "-", lw=1.3)
        curve(b, look, order, False)
    _name_and_scale(upper, name, curves)
    lower.set_ylabel("flow − map", fontsize=8)
    lower.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))
    lower.yaxis.set_major_formatter(Numbers())


def draw_spread(ax: Axes, run: Run, name: str, look: Look) -> None:
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
            ax.plot(run.steps, values[:THIN].T, color=look.colour, lw=0.5, alpha=0.55)
    ax.plot(run.steps, mean, color=look.colour, lw=1.9)
    _name_and_scale(ax, name, [(mean, edges[0.05], edges[0.95])])


def draw_order(ax: Axes, study: ScalingStudy, rows: list[ScalingRow], look: Look) -> None:
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


def _name_and_scale(ax: Axes, name: str, curves: list[Curve]) -> None:
    """The quantity's name; a logarithmic scale where all is positive and the means span a factor above thirty."""
    ax.set_title(pretty(name), loc="left")
    ax.yaxis.set_major_formatter(Numbers())
    everything = np.concatenate([np.concatenate(c) for c in curves])
    means = np.concatenate([c[0] for c in curves])
    everything, means = everything[np.isfinite(everything)], means[np.isfinite(means)]
    if means.size and everything.min() > 0 and means.max() > 30 * means.min():
        ax.set_yscale("log")
        if everything.min() < _LOWEST * everything.max():
            ax.set_ylim(_LOWEST * everything.max(), 3 * everything.max())


def share_clock(upper: Axes, lower: Axes, steps: NDArray[Any], time: Floats, top: bool, bottom: bool) -> None:
    """Steps k below the lowest panels; the time t beside them, or above where it is not a multiple of k."""
    k, t = np.asarray(steps, dtype=float), np.asarray(time, dtype=float)
    for ax in (upper, lower):
        ax.grid(True, color=FAINT, lw=0.4, alpha=0.7)
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


# -- numbers -------------------------------------------------------------------------------------------


def _over_paths(values: Floats, statistic: Callable[[Floats], Any]) -> Floats:
    """A statistic over the paths that are in the picture at each time, (paths, T) -> (T,); NaN where none is."""
    columns = (v[np.abs(v) < HUGE] for v in values.T)
    return np.array([float(statistic(v)) if len(v) else np.nan for v in columns])


def _curve(values: Floats) -> Curve:
    """Mean and 5-95 % band of (paths, T)."""
    low, high = (_over_paths(values, partial(np.quantile, q=q)) for q in (0.05, 0.95))
    return _over_paths(values, np.mean), low, high


def difference_of(a: Floats, b: Floats, coupled: bool) -> tuple[Floats, Floats]:
    """Difference of means b - a and its standard error at each time, paired where both share their noise."""

    def variance(v: Floats) -> Any:
        return v.var(ddof=1) / len(v) if len(v) > 1 else 0.0

    a, b = (np.where(np.abs(v) < HUGE, v, np.nan) for v in (a, b))
    if coupled and a.shape == b.shape:
        return _over_paths(b - a, np.mean), np.sqrt(_over_paths(b - a, variance))
    return (
        _over_paths(b, np.mean) - _over_paths(a, np.mean),
        np.sqrt(_over_paths(a, variance) + _over_paths(b, variance)),
    )


def names_shown(result: Comparison) -> list[str]:
    """The first six quantities."""
    return list(result.quantities)[:PANELS]


def names_in(run: Run) -> list[str]:
    """What a run shows: its observables, and before them as many parameters as find room."""
    named = set(run.names)
    observables = [n for n in (run.moments or run.observables) if n not in named]
    parameters = run.names if run.w is not None or not named.isdisjoint(run.moments) else []
    return [*parameters[: max(PANELS - len(observables), 0)], *observables][:PANELS]
