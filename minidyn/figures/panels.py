"""Quantities over the steps: of a run, and of a map and its flows with their differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from minidyn.common.arrays import Floats, Truths
from minidyn.compare.comparison import Comparison
from minidyn.figures.scales import Clock, beyond, is_log, say_gone, set_limits, tidy
from minidyn.figures.style import GREY, HUGE, READINGS, THIN, Look, legend_label, pretty, reading_label
from minidyn.simulate.phases import SEEN, alternates
from minidyn.simulate.run import QUANTILES, Run

Curve = tuple[Floats, Floats, Floats]  # mean, lower and upper edge of the band, each (T,)

_APART, _SPANS = 30.0, 100.0  # typical differences of two flows, and of one: beyond, they are drawn logarithmically
_MEAN = "the mean"  # which a few paths can take out of the picture, where the others stay
_ROUNDING = 1e-13  # of the values: a difference below is none


# -- drawing -------------------------------------------------------------------------------------------


def draw_curve(
    ax: Axes, k: Floats, values: Floats, look: Look, label: str, order: int = 0, width: float = 1.0, least: float = 0.0
) -> None:
    """A line; of values that alternate between even and odd steps, by more than `least`, two lines and the area
    between."""
    style: dict[str, Any] = {"color": look.colour, "ls": look.dash, "zorder": 10 + order}
    seen = np.isfinite(values)
    if not alternates(k, values, least):
        style |= {"label": label} if seen.any() else {}
        if look.dash != "-" and seen.sum() > 1:
            style |= {"marker": look.marker, "ms": 3.6, "markevery": (0.06 + 0.045 * (order % 6), 0.31)}
        ax.plot(k, values, lw=look.width * width, **style)
        return
    sides = [k % 2 == side for side in (0, 1)]
    for side, name in zip(sides, (label, "_"), strict=True):
        ax.plot(k[side], values[side], lw=min(look.width, 1.1) * width, **(style | {"label": name}))
    even, odd = (np.interp(k, k[side & seen], values[side & seen]) for side in sides)
    between: dict[str, Any] = {"color": look.colour, "alpha": 0.13, "lw": 0, "zorder": 2}
    ax.fill_between(k, even, odd, label=f"{label} between even and odd steps" if label[0] != "_" else "_", **between)


def draw_quantity(
    upper: Axes, lower: Axes | None = None, *, result: Comparison, name: str, looks: Mapping[str, Look], clock: Clock
) -> None:
    """Means and bands above, differences below, of the same paths: those that `Comparison.pair` says."""
    k = clock.steps
    sides: list[tuple[Floats, Floats]] = []
    beside: dict[str, Any] = {}
    size = range_of([v for key, v in result.quantities[name].items() if key not in looks or key == result.map_label])
    anchor: list[Floats] = []
    curves: dict[str, Sequence[Floats]] = {}
    means: dict[str, Floats] = {}
    gaps: dict[str, tuple[Floats, Floats]] = {}
    for order, label in enumerate([*result.runs][1:], 1):
        if label not in result.quantities[name]:
            continue
        reading, (a, b) = result.reading(label), result.pair(name, label)
        beside[label] = next((mean for side, mean in sides if np.array_equal(a, side, equal_nan=True)), None)
        if beside[label] is None:  # another reading, or other paths
            first = not sides
            called = reading_label(result.map_label, reading)
            mean, *band = _draw_spread(upper, k, a, READINGS[reading][0], called, 0, first, size)
            anchor += band
            curves[f"{_MEAN} of {called}"] = [mean]
            beside[label] = mean
            sides.append((a, mean))
        means[label], *curves[label] = _draw_spread(
            upper, k, b, looks[label], legend_label(label, result.runs[label]), order, False, size
        )
        curves[f"{_MEAN} of {label}"] = [means[label]]
        gaps[label] = difference_of(a, b, result.paired(label))
    gone = _finish(upper, name, anchor, curves, [*result.quantities[name].values()])
    if lower is not None:
        within = {
            label: _inside(upper, beside[label]) & _inside(upper, means[label]) for label in gaps if label not in gone
        }
        _draw_gaps(lower, k, gaps, looks, within, _so_far(anchor))
    clock.put(upper, *([lower] if lower is not None else []))


def _draw_spread(
    ax: Axes, k: Floats, values: Floats, look: Look, label: str, order: int, filled: bool, size: float
) -> Curve:
    """Mean and band of (paths, T)."""
    mean, low, high = _curve(values)
    if (high > low).any():
        if filled:
            ax.fill_between(k, low, high, color=look.colour, alpha=0.17, lw=0, label="5–95 % of paths")
        for edge in (low, high):
            ax.plot(k, edge, color=look.colour, ls=look.dash, lw=0.8, alpha=0.85, zorder=3 + order)
    draw_curve(ax, k, mean, look, label, order, least=SEEN * size)
    return mean, low, high


def _inside(ax: Axes, mean: Floats) -> Truths:
    """Where a mean is in the picture; what is too small for a logarithmic axis is near its lower end all the same."""
    low, high = ax.get_ylim()
    return np.asarray(((mean >= low) | (ax.get_yscale() == "log")) & (mean <= high))


def _so_far(curves: Sequence[Floats]) -> Floats:
    """The largest size of curves (T,) up to each time."""
    return np.asarray(np.maximum.accumulate(np.nan_to_num(np.abs(curves)).max(axis=0)) if curves else np.zeros(1))


def _draw_gaps(ax: Axes, k: Floats, gaps: Mapping[str, tuple[Floats, Floats]], looks: Mapping[str, Look],
               within: Mapping[str, Truths], size: Floats) -> None:  # fmt: skip
    """Differences with two standard errors to each side; without errors, and over decades, their sizes on a logarithmic
    scale. Limits follow those `within` the picture of the means; what lies below the rounding of values up to `size`
    is none."""
    exact = all(not np.nanmax(error, initial=0) > 0 for _, error in gaps.values())
    sizes = {label: np.where(np.abs(gap) > _ROUNDING * size, np.abs(gap), np.nan) for label, (gap, _) in gaps.items()}
    log = exact and _over_decades(list(sizes.values()))
    for order, (label, (gap, error)) in enumerate(gaps.items(), 1):
        look = looks[label]
        if np.nanmax(error, initial=0) > 0:
            band: dict[str, Any] = {"color": look.colour, "alpha": 0.27, "lw": 0}
            said = "_" if order > 1 else "± 2 standard errors of the difference"
            ax.fill_between(k, gap - 2 * error, gap + 2 * error, label=said, **band)
        draw_curve(ax, k, sizes[label] if log else gap, look, "_", order, 0.75)
    if log:
        set_limits(ax, list(sizes.values()), {}, True)
    else:
        ax.axhline(0.0, color=GREY, lw=0.7)
        near = [
            end
            for label, inside in within.items()
            for gap, error in [gaps[label]]
            for end in ((gap - 2 * error)[inside], (gap + 2 * error)[inside])
        ]
        set_limits(ax, [np.zeros(1), *near], {}, False)
    words = ["|flow − map|" if log else "flow − map", *tidy(ax.yaxis)]
    ax.set_ylabel("\n".join(word.strip() for word in words), fontsize=8)


def _over_decades(sizes: Sequence[Floats]) -> bool:
    """Whether sizes of differences span decades, of several flows or of one."""
    seen = [s[np.isfinite(s)] for s in sizes]
    seen = [s for s in seen if len(s) > 3]
    if len(seen) > 1:
        typical = [float(np.median(s)) for s in seen]
        return max(typical) > _APART * min(typical)
    return len(seen) == 1 and float(np.quantile(seen[0], 0.9)) > _SPANS * float(np.quantile(seen[0], 0.1))


def draw_run(ax: Axes, run: Run, name: str, look: Look, label: str, clock: Clock) -> None:
    """One quantity of one run: a line, or a mean with bands and a few paths."""
    mean, edges, values = spread_of(run, name)
    anchor, others = [edges[0.05], edges[0.95]], {_MEAN: [mean]}
    if (edges[0.95] > edges[0.05]).any():
        for low, high, alpha in ((0.05, 0.95, 0.17), (0.25, 0.75, 0.3)):
            words = f"{100 * low:.0f}–{100 * high:.0f} % of paths"
            ax.fill_between(run.steps, edges[low], edges[high], color=look.colour, alpha=alpha, lw=0, label=words)
        if values is not None:
            few = ax.plot(run.steps, values[:THIN].T, color=look.colour, lw=0.5, alpha=0.55)
            called = f"{len(few)} of the paths" if run.paths > len(few) else "the paths"
            few[0].set_label(called)
            others[called] = [*values[:THIN]]
    draw_curve(ax, clock.steps, mean, look, f"mean, {label}" if (edges[0.95] > edges[0.05]).any() else label)
    _finish(ax, name, anchor, others, [mean] if values is None else [values])
    clock.put(ax)


def spread_of(run: Run, name: str) -> tuple[Floats, dict[float, Floats], Floats | None]:
    """Mean and quantiles of one quantity of a run over its steps, and its paths where they are kept."""
    if name in run.moments:
        stats = run.moments[name]
        return stats["mean"], dict(zip(QUANTILES, stats["quantiles"], strict=True)), None
    values = run.quantity(name)
    edges = {q: _over_paths(values, partial(np.quantile, q=q)) for q in QUANTILES}
    return _over_paths(values, np.mean), edges, values


def _finish(
    ax: Axes,
    name: str,
    anchor: Sequence[Floats],
    curves: Mapping[str, Sequence[Floats]],
    values: Sequence[Floats],
) -> list[str]:
    """The quantity's name and its scale, that of the flows where the map is soon too far away; which flows leave."""
    if not any(np.isfinite(c).sum() > 1 for c in anchor):
        anchor = [*anchor, *(c for curve in curves.values() for c in curve)]
    log = is_log([*anchor, *(c for curve in curves.values() for c in curve)])
    gone = set_limits(ax, anchor, curves, log)
    gone = list(dict.fromkeys(_MEAN if words.startswith(_MEAN) else words for words in gone))
    gone = [*gone, *beyond(values)] if len(gone) < 2 else gone
    ax.set_title("".join([pretty(name), *tidy(ax.yaxis)]), loc="left")
    if gone:
        say_gone(ax, gone)
    return [label for label in curves if any(words.startswith(f"{label} (to ") for words in gone)]


# -- numbers -------------------------------------------------------------------------------------------


def range_of(arrays: Sequence[Floats]) -> float:
    """The largest minus the smallest value."""
    v = np.concatenate([a.ravel() for a in arrays] or [np.empty(0)])
    v = v[np.abs(v) < HUGE]
    return float(np.ptp(v)) if len(v) else 0.0


def _over_paths(values: Floats, statistic: Callable[..., Any]) -> Floats:
    """A statistic over the paths that are in the picture at each time, (paths, T) -> (T,); NaN where none is."""
    inside = np.abs(values) < HUGE
    whole = inside.all(axis=0) if len(values) else np.zeros(values.shape[1], bool)
    out = np.full(values.shape[1], np.nan)
    out[whole] = statistic(
        np.ascontiguousarray(values.T[whole]), axis=1
    )  # all at once, where nothing is to be left out
    for t in np.flatnonzero(~whole & inside.any(axis=0)):
        out[t] = statistic(values[inside[:, t], t], axis=0)
    return out


def _curve(values: Floats) -> Curve:
    """Mean and 5-95 % band of (paths, T)."""
    if len(values) == 1:
        mean = np.where(np.abs(values[0]) < HUGE, values[0], np.nan)
        return mean, mean, mean
    low, high = (_over_paths(values, partial(np.quantile, q=q)) for q in (0.05, 0.95))
    return _over_paths(values, np.mean), low, high


def mean_of(values: Floats) -> Floats:
    """The mean over the paths at each time."""
    return _over_paths(values, np.mean)


def mean_in(run: Run, name: str) -> Floats:
    """The mean of one quantity of a run over its steps."""
    return run.moments[name]["mean"] if name in run.moments else mean_of(run.quantity(name))


def difference_of(a: Floats, b: Floats, coupled: bool) -> tuple[Floats, Floats]:
    """Difference of means b - a and its standard error at each time, paired where both share their noise."""

    def variance(v: Floats, axis: int) -> Any:
        count = v.shape[axis]
        return v.var(axis=axis, ddof=1) / count if count > 1 else 0.0

    a, b = (np.where(np.abs(v) < HUGE, v, np.nan) for v in (a, b))
    if coupled and a.shape == b.shape:
        return _over_paths(b - a, np.mean), np.sqrt(_over_paths(b - a, variance))
    return (
        _over_paths(b, np.mean) - _over_paths(a, np.mean),
        np.sqrt(_over_paths(a, variance) + _over_paths(b, variance)),
    )
