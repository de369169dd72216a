"""Axes that can be read: a clock that follows the change, limits that follow the map, numbers of a few digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from minidyn.common.arrays import Floats
from minidyn.common.reports import digits
from minidyn.figures.style import FAINT, GREY, HUGE, power_of_ten, text_width

_EARLY = 0.05  # part of the steps: where most of the change falls into it, steps are logarithmic
_MOST = 0.8  # of the change
_NEAR, _FAR = 10.0, 2.0  # times the range of what is in the picture: a curve farther out leaves it
_DECADES = 8  # of a logarithmic axis below the largest value of the map
ABOVE = 0.38  # inches that an axis of time above takes
_DIGITS = 4  # that tick labels have in common: more are said once


@dataclass(frozen=True)
class Clock:
    """The axis of steps k up to `end`, logarithmic where most of the change falls into the first few percent of it."""

    steps: Floats
    time: Floats
    end: float
    log: bool = False

    @classmethod
    def of(cls, steps: Any, time: Any, curves: Sequence[Floats], end: float = np.inf) -> Clock:
        """The clock for these curves, each (T,), of which nothing is left beyond `end`."""
        k, t = np.asarray(steps, dtype=float), np.asarray(time, dtype=float)
        seen = k <= end
        early = [e for curve in curves if (e := _settled_at(k[seen], curve[seen])) is not None]
        spaced = len(k) > 20 and k[-1] - k[-2] > 10 * (k[2] - k[1])  # logarithmically, as somebody asked for
        log = spaced or (seen.sum() > 20 and len(early) > 0 and max(early) < _EARLY)
        return cls(k, t, min(end, k[-1]) if end > k[0] else k[-1], log)

    @property
    def bent(self) -> bool:
        """Whether t is no multiple of k, so that it has an axis of its own, above."""
        lr = self.time[-1] / self.steps[-1] if self.steps[-1] else np.nan
        return not np.allclose(self.time, lr * self.steps) and bool((np.diff(self.time) > 0).all())

    def put(self, *axes: Axes) -> None:
        """Steps below the lowest axes, time beside them, or above where it is not a multiple of steps."""
        k, t, end, lowest = self.steps, self.time, self.end, axes[-1]
        for ax in axes:
            grid(ax)
            if self.log:
                ax.set_xscale("symlog", linthresh=k[1], linscale=0.4)
            if end > k[0]:
                ax.set_xlim(k[0], end)
            if self.log:
                ax.xaxis.set_major_locator(FixedLocator([0, *_powers(k[1], end)]))
            else:
                ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            ax.tick_params(labelbottom=ax is lowest)
        how = ", logarithmic" if self.log else ""
        rate = f"{t[-1] / k[-1]:.6g}\\,".removeprefix("1\\,") if k[-1] else ""
        lr = f"   ($t = {rate}k$)" if k[-1] and np.allclose(t, t[-1] / k[-1] * k) else ""
        lowest.set_xlabel(f"step $k${how}{lr}")
        if self.bent:
            both = (lambda x: np.interp(x, k, t), lambda x: np.interp(x, t, k))
            axes[0].secondary_xaxis("top", functions=both).set_xlabel("time $t$")
            axes[0].set_title(axes[0].get_title(loc="left"), loc="left", pad=6 + 72 * ABOVE)


def _settled_at(k: Floats, curve: Floats) -> float | None:
    """The part of the steps after which most of a curve's change is behind it; None where it does not change.

    Averages of two successive values: what alternates is no change."""
    good = np.isfinite(curve) & (np.abs(curve) < HUGE)
    if good.sum() < 4 or not k[-1] > 0:
        return None
    calm, at = (curve[good][1:] + curve[good][:-1]) / 2, k[good][1:]
    moved = np.concatenate([[abs(calm[0] - curve[good][0])], np.abs(np.diff(calm))]).cumsum()
    if not moved[-1] > 1e-9 * (np.abs(calm).max() + 1e-300):
        return None
    return float(at[np.searchsorted(moved, _MOST * moved[-1])] / k[-1])


def grid(ax: Axes) -> None:
    """Faint lines behind everything."""
    ax.grid(True, color=FAINT, lw=0.4, alpha=0.7)
    ax.set_axisbelow(True)


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten in a range, five at most."""
    powers = range(int(np.ceil(np.log10(low) - 1e-9)), int(np.floor(np.log10(high) + 1e-9)) + 1)
    return [10.0**p for p in powers][:: max(1, -(-len(powers) // 5))]


# -- limits --------------------------------------------------------------------------------------------


def is_log(curves: Sequence[Floats]) -> bool:
    """Whether all is positive and spans a factor above thirty."""
    values = np.concatenate([c[np.isfinite(c)] for c in curves] or [np.empty(0)])
    return bool(len(values)) and values.min() > 0 and values.max() > 30 * values.min()


def spread(anchor: Floats, others: Mapping[str, Floats]) -> tuple[Floats, list[str]]:
    """Lower and upper ends (2, axes) of what is in the picture, and which of the others leave it: those that go far
    beyond the map (`anchor`) and the others that stay near it."""
    box, left, gone = anchor.copy(), dict(others), []
    while left:
        size = np.maximum(box[1] - box[0], 1e-300)
        beyond = {
            label: float((np.maximum(np.maximum(box[0] - b[0], b[1] - box[1]), 0) / size).max())
            for label, b in left.items()
        }
        label = min(beyond, key=beyond.__getitem__)
        nearest = left.pop(label)
        if (box[1] > box[0]).any() and beyond[label] > (_NEAR if len(left) == len(others) - 1 else _FAR):
            gone.append(label)
        else:
            box = np.array([np.minimum(box[0], nearest[0]), np.maximum(box[1], nearest[1])])
    return box, gone


def set_limits(
    ax: Axes, anchor: Sequence[Floats], others: Mapping[str, Sequence[Floats]], log: bool, decades: float = _DECADES
) -> list[str]:
    """Limits that follow the map (`anchor`) and the flows that stay near it; what leaves the picture, in words."""

    def reach(curves: Sequence[Floats], floor: float = -np.inf) -> Floats | None:
        v = np.concatenate([c.ravel() for c in curves] or [np.empty(0)])
        v = v[np.isfinite(v) & (np.abs(v) < HUGE)]
        v = np.maximum(np.log10(v[v > 0]), floor) if log else v
        return np.array([[v.min()], [v.max()]]) if len(v) else None

    whole = reach(anchor)
    floor = -np.inf if whole is None else whole[1, 0] - decades
    ranges = {label: r for label, curves in others.items() if (r := reach(curves, floor)) is not None}
    start = reach(anchor, floor)
    if start is None and ranges:
        start = next(iter(ranges.values()))
    if start is None:
        return []
    box, gone = spread(start, ranges)
    low, high = float(box[0, 0]), float(box[1, 0])
    flat = high - low <= (1e-9 if log else 1e-15 * abs(high))
    margin = (0.3 if log else 0.05 * abs(high) or 0.05) if flat else 0.05 * (high - low)
    if log:
        ax.set_yscale("log")
    ax.set_ylim(*((10 ** (low - margin), 10 ** (high + margin)) if log else (low - margin, high + margin)))
    words = [
        f"{label} (to {digits(10**end if log else end, 3)})" for label in gone for end in [_farther(ranges[label], box)]
    ]
    deep = log and (lowest := reach([*anchor, *(c for label in others for c in others[label])])) is not None
    return words or (["what is smaller"] if deep and lowest is not None and lowest[0, 0] < floor else [])


def beyond(values: Sequence[Floats]) -> list[str]:
    """That some of it is too far away for any picture, in words."""
    return ["what diverges"] if any((np.abs(v) >= HUGE).any() for v in values) else []


def _farther(ends: Floats, box: Floats) -> float:
    """The end of a range that lies farther out of the box."""
    return float(ends[1, 0] if ends[1, 0] - box[1, 0] > box[0, 0] - ends[0, 0] else ends[0, 0])


def say_gone(ax: Axes, gone: Sequence[str]) -> None:
    """Say beside the title what leaves the picture, in so many words as find room."""
    many = f"{len(gone)} curves" if len(gone) > 2 else " and ".join(gone)
    verb, title = "leave" if len(gone) > 1 else "leaves", ax.get_title(loc="left")
    room = 72 * ax.get_window_extent().width / ax.figure.dpi - 8
    for text in (f"{many} {verb} the picture", f"{many} {verb}", f"{many.partition(' (')[0]} {verb}"):
        if text_width(title, 9.5) + text_width(text, 7.5) <= room:
            break
    while len(title) > 4 and text_width(title, 9.5) + text_width(text, 7.5) > room and "$" not in title:
        title = title[:-2] + "…"
    ax.set_title(title, loc="left")
    ax.set_title(text, loc="right", fontsize=7.5, color=GREY)


# -- numbers -------------------------------------------------------------------------------------------


def tidy(axis: Axis) -> list[str]:
    """Tick labels of a few digits without TeX, which takes half a second for a figure; an offset and a power of ten
    that all share, where there are any, in words to be said once."""
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log":
        _tidy_log(axis, low, high)
        return []
    said: list[str] = []
    axis.set_major_locator(MaxNLocator(5, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
    ticks = [t for t in axis.get_major_locator().tick_values(low, high) if low <= t <= high]
    step, top = (ticks[1] - ticks[0] if len(ticks) > 1 else 1.0), max(abs(low), abs(high)) or 1.0
    offset = 0.0
    if step < 10.0**-_DIGITS * top:
        digits = int(np.floor(np.log10(step))) + 2
        offset = float(np.round((low + high) / 2, -digits))
        said.append(f" − {offset:.{max(0, -digits)}f}" if offset >= 0 else f" + {-offset:.{max(0, -digits)}f}")
        top = max(abs(low - offset), abs(high - offset))
    power = int(np.floor(np.log10(top)))
    power = power if not -3 < power < 5 else 0
    if power:
        said.append(f"   (×{power_of_ten(power)})")
    shown = [(t - offset) / 10.0**power for t in ticks]
    digits = next((d for d in range(12) if all(abs(round(v, d) - v) < 1e-6 * step / 10.0**power for v in shown)), 6)
    axis.set_major_formatter(
        FuncFormatter(lambda v, _: f"{(v - offset) / 10.0**power + 0.0:,.{digits}f}".replace("-", "−"))
    )
    return said


def _tidy_log(axis: Axis, low: float, high: float) -> None:
    """Powers of ten; where less than two are in sight as many multiples of them as make three ticks."""
    ticks = _powers(low, high) if np.log10(high / low) >= 1.9 else []
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    for multiples in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        if len(ticks) < 2:
            ticks = [t for t in np.outer(powers, multiples).ravel().tolist() if low <= t <= high]
            ticks = ticks if len(ticks) > 2 else []
    for steps in ([1, 2, 5, 10], [1, 2, 2.5, 5, 10]):  # of few digits, where that makes two
        if len(ticks) < 2:
            ticks = [t for t in MaxNLocator(4, steps=steps).tick_values(low, high) if low <= t <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_in_powers))


def _in_powers(value: float, _: Any = None) -> str:
    """A number on a logarithmic axis."""
    power = int(np.floor(np.log10(value) + 1e-9)) if value > 0 else 0
    if -3 < power < 4:
        return f"{value:,.6g}"
    first = f"{value / 10.0**power:.4g}"
    return power_of_ten(power) if first == "1" else f"{first}×{power_of_ten(power)}"
