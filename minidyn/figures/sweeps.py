"""Pictures of a sweep: curves over one number, heat maps over two, small multiples for what else is swept over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.status import Status
from minidyn.compare.sweep import Sweep
from minidyn.figures.scales import grid, is_log, set_limits, tidy
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import FAINT, GREY, HUGE, PANELS, named, power_of_ten, pretty, text_width
from minidyn.flows.look import PALETTE

_MAPPED = 4  # numbers along a dimension from which on it is an axis of a heat map
_CURVES = len(PALETTE)  # in one panel
_MOST = 12  # panels
_BAR = 0.42  # inches above a heat map
_SHARE = "finished"  # the panel of the paths that are left, as a share
_SETTLED = 0.99  # of a setting's paths that are left, where its values rule the colours
_NEAR = 0.3  # of their range by which the others may widen it
_MIDDLE, _FAR = (0.02, 0.98), 20.0  # quantiles of their values; a range so many times theirs is that of outliers
_BESIDE = 0.3  # of the room between two texts that curves of one panel take
_TITLE, _SMALL = 9.5, 7.0  # points: of a panel's title, and where it is long


@dataclass(frozen=True)
class _Field:
    """Means over the settings, with bands where there are paths: `low` and `high` hold 90 % of them, or two standard
    errors. Fields of one `group` share their colours."""

    name: str
    group: str
    mean: Floats
    low: Floats | None = None
    high: Floats | None = None
    gap: bool = False  # a distance between flow and map


def plot_sweep(sweep: Sweep, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None) -> Figure:
    """What a sweep kept, over what was swept: the mean over paths, with a band that holds 90 % of them.

    Over one number curves, over two a heat map; texts are curves of their own, what else is swept over panels. Of flows
    held against a map the distance from it.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> gd = md.Map(md.Loss(x**2, [x]), md.GD(0.1))
    >>> [ax.get_title(loc="left") for ax in md.sweep(gd, over={"lr": [0.1, 0.2]}, w0=[1.0], steps=9).plot().axes]
    ['$x$']
    """
    fields = {field.name: field for field in _fields(sweep) if np.isfinite(field.mean).any()}
    shades = {group: _shades(sweep, [f for f in fields.values() if f.group == group])
              for group in {f.group for f in fields.values()}}  # fmt: skip
    there = [panel for field in fields.values() for panel in _panels(sweep, field, shades[field.group])]
    only = panels if panels is None else [panels] if isinstance(panels, str) else list(panels)
    if only is not None:  # a quantity stands for all its panels
        only = [p.name for name in only for p in there if name in (p.name, p.name.partition(", ")[0])] or only
    per = max(len(there) // max(len(fields), 1), 1)
    most = min(_MOST, PANELS if per == 1 else max(per, PANELS))
    *first, last = _along(sweep)
    over = "over " + " and ".join(filter(None, [", ".join(first), last]))
    title, *made = named(
        f"|flow − map| {over}" if "flow" in sweep.dims else over,
        str(sweep.meta.get("system", "")),
        sweep.meta.get("model"),
    )
    paths, steps = int(sweep.meta.get("paths", 1)), int(sweep.meta.get("steps", 0))
    many = " × ".join(f"{n:,}" for n in sweep.shape)
    details = [*made, f"{many} setting" + "s" * (many != "1"), f"{paths:,} paths" * (paths > 1),
               f"{steps:,} steps", f"seed {sweep.meta['seed']}" * bool(sweep.meta.get("seed"))]  # fmt: skip
    drawn = len(only) if only is not None else min(most, len(there))
    empty = any(not np.isfinite(field.mean).all() for field in fields.values())
    mapped = any(panel.above for panel in there)
    details += [
        ("grey: the flow does not exist" if "flow" in sweep.dims else "grey: no path is left") * (empty and mapped)
    ]
    details += [f"{drawn} of {len(there)} panels drawn"] * (drawn < len(there))
    return compose(there, title, details, path=path, only=only, size=size, ax=ax, most=most)


# -- what there is to draw --


def _along(sweep: Sweep) -> list[str]:
    return list(sweep.settings) or sweep.over


def _fields(sweep: Sweep) -> Iterator[_Field]:
    """What is drawn: quantities, distances of flows, the share of paths that are left."""
    flows = sweep.dims.get("flow")
    for name in sweep.quantities:
        dims, values = sweep.values[name]
        if flows is not None:
            if name.endswith("_difference"):
                error = sweep.quantity(name.removesuffix("_difference") + "_standard_error")
                for number, flow in enumerate(flows):
                    gap = np.abs(values[..., number])
                    called = f"{name.removesuffix('_difference')}, {flow}"
                    yield _Field(called, name, gap, gap - 2 * error[..., number], gap + 2 * error[..., number], True)
        elif "statistic" in dims:
            low, high = (values[..., list(sweep.dims["statistic"]).index(f"quantile {q}")] for q in ("0.05", "0.95"))
            yield _Field(name, name, sweep.mean(name), low, high)
        elif values.shape[-1] > 1:
            yield _Field(name, name, sweep.mean(name), *_quantiles(values))
        else:
            yield _Field(name, name, sweep.mean(name))
    if "status" in sweep.values:
        left = (sweep.quantity("status") == Status.FINISHED).mean(axis=-1)
        if left.min() < 1:
            yield _Field(_SHARE, _SHARE, left)


def _quantiles(values: Floats) -> tuple[Floats, Floats]:
    good = np.isfinite(values) & (np.abs(values) < HUGE)
    gone = np.asarray(~good.any(axis=-1))
    low, high = np.nanquantile(np.where(good, values, np.where(gone[..., None], 0.0, np.nan)), [0.05, 0.95], axis=-1)
    return np.where(gone, np.nan, low), np.where(gone, np.nan, high)


def _panels(sweep: Sweep, field: _Field, shades: Any) -> list[Panel]:
    """The panels of a field: one, or one for each setting of what has no axis in it."""
    if sweep.settings:
        return [
            Panel(
                field.name, partial(_draw_list, sweep=sweep, field=field, shades=shades), (2.1,), False, _above(sweep)
            )
        ]
    numeric = [name for name in sweep.over if sweep.dims[name].dtype.kind in "fiu"]
    longest = sorted(numeric, key=lambda name: -len(sweep.dims[name]))
    axes = [name for name in numeric if name in longest[:2] and len(sweep.dims[name]) >= _MAPPED]
    mapped = len(axes) == 2
    if not mapped:
        axes = longest[:1] or sweep.over[:1]
    others = [name for name in sweep.over if name not in axes]
    within = [name for name in others if not mapped and len(sweep.dims[name]) <= _CURVES][:1]
    apart = [name for name in others if name not in within]
    draw = _draw_map if mapped else _draw_curves
    out = []
    for place in np.ndindex(*(len(sweep.dims[name]) for name in apart)):
        chosen = dict(zip(apart, place, strict=True))
        said = "".join(f", {name} = {_said(sweep.dims[name][i])}" for name, i in chosen.items())
        given: dict[str, Any] = {"axes": axes, "chosen": chosen, "title": field.name + said}
        given |= {"shades": shades} if mapped else {"within": within}
        out.append(Panel(field.name + said, partial(draw, sweep=sweep, field=field, **given), (2.1,), False,
                         _BAR if mapped else 0.0))  # fmt: skip
    return out


def _said(value: Any) -> str:
    """A value along a dimension."""
    return value if isinstance(value, str) else f"{value:.4g}"


def _above(sweep: Sweep) -> float:
    return _BAR if len(sweep.settings) > 1 else 0.0


def _part(values: NDArray[Any], sweep: Sweep, chosen: Mapping[str, int], order: list[str]) -> NDArray[Any]:
    """The values at what is chosen, their axes in this order."""
    left = [name for name in sweep.over if name not in chosen]
    found = values[tuple(chosen.get(name, slice(None)) for name in sweep.over)]
    return np.asarray(np.transpose(found, [left.index(name) for name in order]))


# -- drawing --


def _draw_curves(ax: Axes, sweep: Sweep, field: _Field, axes: list[str], within: list[str], chosen: dict[str, int],
                 title: str) -> None:  # fmt: skip
    """Curves over one number, or marks over texts, one for each value of what is within the panel."""
    along = sweep.dims[axes[0]]
    joined = along.dtype.kind in "fiu"
    at = np.asarray(along if joined else np.arange(len(along)), float)
    order = np.argsort(at, kind="stable")
    names = [None] if not within else list(sweep.dims[within[0]])
    mean, low, high, settled = (
        None if v is None else _part(v, sweep, chosen, [*axes, *within]).reshape(len(along), -1)[order]
        for v in (field.mean, field.low, field.high, _settled(sweep))
    )
    assert mean is not None and settled is not None
    ruling, others = [mean], [mean]
    for number, name in enumerate(names):
        look = PALETTE[number % _CURVES]
        label = "mean over paths" * (low is not None) if name is None else f"{within[0]} = {_said(name)}"
        style: dict[str, Any] = {"color": look.colour, "ls": look.dash if name is not None else "-", "lw": 1.6}
        style |= {"marker": look.marker, "ms": 3.5} if len(at) <= 40 or not joined else {}
        style |= {} if joined else {"ls": ""}
        place = at[order] if joined else at + _BESIDE * ((number + 0.5) / len(names) - 0.5)
        there = np.abs(mean[:, number]) < HUGE
        ax.plot(place, np.where(there, mean[:, number], np.nan), label=label or "_", **style)
        if low is not None and high is not None:
            what = "± 2 standard errors" if field.gap else "5 to 95 % of paths"
            band = [np.where(there, end[:, number], np.nan) for end in (low, high)]
            ax.fill_between(*_bars(place, band, joined, len(names)), color=look.colour, alpha=0.18, lw=0,
                            label=what if number == 0 else "_")  # fmt: skip
            others += band
            ruling += [end[settled[:, number]] for end in band] if not field.gap else []
    log = field.name != _SHARE and is_log([mean, *([] if low is None or field.gap else [low])])
    set_limits(ax, ruling, {"band": others}, log, decades=12)
    if field.name == _SHARE:
        ax.set_ylim(-0.04, 1.04)
    ax.margins(x=0.025)
    _name_axis(ax, "x", axes[0], along)
    said = tidy(ax.yaxis)
    grid(ax)
    _set_title(ax, "".join([_titled(title), *said]))


def _bars(at: Floats, band: list[Floats], joined: bool, curves: int) -> tuple[Floats, Floats, Floats]:
    """Places, lower and upper ends of a band; of places that nothing joins a bar for each."""
    if joined:
        return at, band[0], band[1]
    half = 0.4 * _BESIDE / curves
    apart = (np.repeat(end[:, None], 3, axis=1) * [1, 1, np.nan] for end in band)
    low, high = (end.ravel() for end in apart)
    return (at[:, None] + [-half, half, half]).ravel(), low, high


def _draw_map(ax: Axes, sweep: Sweep, field: _Field, axes: list[str], chosen: dict[str, int], title: str,
              shades: Any) -> None:  # fmt: skip
    """A heat map over two numbers; grey where no path is left."""
    first, second = (sweep.dims[name] for name in axes)
    rows, columns = np.argsort(second, kind="stable"), np.argsort(first, kind="stable")
    table = _part(field.mean, sweep, chosen, [axes[1], axes[0]])[np.ix_(rows, columns)]
    table = np.where(np.abs(table) < HUGE, table, np.nan)
    ax.set_facecolor(FAINT)
    image = ax.pcolormesh(_edges(first[columns]), _edges(second[rows]), table, rasterized=True, **shades)
    for which, name, values in (("x", axes[0], first), ("y", axes[1], second)):
        _name_axis(ax, which, name, values)
    _add_bar(ax, image, shades, title)


def _draw_list(ax: Axes, sweep: Sweep, field: _Field, shades: Any) -> None:
    """Settings one by one: over one number marks, over two coloured marks."""
    names = list(sweep.settings)
    first = sweep.settings[names[0]]
    mean = np.where(np.abs(field.mean) < HUGE, field.mean, np.nan)
    if len(names) == 1 or sweep.settings[names[1]].dtype.kind not in "fiu" or first.dtype.kind not in "fiu":
        at = first if first.dtype.kind in "fiu" else np.arange(len(first))
        ax.plot(at, mean, ls="", marker="o", ms=4, color=PALETTE[0].colour)
        set_limits(ax, [mean], {}, is_log([mean]), decades=12)
        _name_axis(ax, "x", names[0], first)
        said = tidy(ax.yaxis)
        grid(ax)
        _set_title(ax, "".join([_titled(field.name), *said]))
        return
    second, gone = sweep.settings[names[1]], ~np.isfinite(mean)
    if gone.any():
        ax.scatter(first[gone], second[gone], 16, facecolors="none", edgecolors=GREY, label="no path is left")
    image = ax.scatter(first[~gone], second[~gone], 18, c=mean[~gone], linewidths=0, **shades)
    for which, name in (("x", names[0]), ("y", names[1])):
        _name_axis(ax, which, name, sweep.settings[name])
    _add_bar(ax, image, shades, field.name)


def _settled(sweep: Sweep) -> NDArray[np.bool_]:
    """Settings (over) whose paths are left; all where there is none of them."""
    left = np.ones(sweep.shape, bool)
    if "status" in sweep.values:
        left = (sweep.quantity("status") == Status.FINISHED).mean(axis=-1) >= _SETTLED
    return left if left.any() else np.ones_like(left)


def _shades(sweep: Sweep, fields: list[_Field]) -> dict[str, Any]:
    """Colours that everybody tells apart, dark to light, logarithmic where all is positive and far apart. Settings
    whose paths are left rule them: where most have diverged a mean may be anything."""
    values = np.stack([np.where(np.abs(f.mean) < HUGE, f.mean, np.nan) for f in fields])
    if fields[0].name == _SHARE or not np.isfinite(values).any():
        return {"cmap": "viridis", "norm": Normalize(0, 1)}
    settled = np.isfinite(values)
    left = settled & _settled(sweep)
    settled = left if left.any() else settled
    log = is_log([values[np.isfinite(values)]])
    values = np.log10(values) if log else values
    low, high = values[settled].min(), values[settled].max()
    inner = np.quantile(values[settled], _MIDDLE)
    if high - low > _FAR * (inner[1] - inner[0]) > 0:
        low, high = inner
    room = _NEAR * (high - low)
    near = values[(values >= low - room) & (values <= high + room)]
    low, high = near.min(), near.max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    beyond = np.nanmin(values) < low, np.nanmax(values) > high
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    norm = LogNorm(10.0**low, 10.0**high) if log else Normalize(low, high)
    norm.extend = extend  # type: ignore[attr-defined]
    return {"cmap": "viridis", "norm": norm}


def _add_bar(ax: Axes, image: Any, shades: dict[str, Any], title: str) -> None:
    """The colour bar above the axes, and the title above it."""
    height = max(float(ax.get_window_extent().height / ax.figure.dpi), 0.1)
    place = ax.inset_axes((0.0, 1 + 0.24 / height, 1.0, 0.07 / height))
    bar = ax.figure.colorbar(
        image, cax=place, orientation="horizontal", extend=getattr(shades["norm"], "extend", "neither")
    )
    bar.outline.set_visible(False)
    place.minorticks_off()
    said = tidy(place.xaxis)
    if isinstance(shades["norm"], LogNorm):
        place.xaxis.set_major_formatter(lambda v, _: f"{v:.3g}" if 1e-3 <= v < 1e4 else _power(v))
    place.tick_params(labelsize=7, pad=1.5, length=2)
    _set_title(ax, "".join([_titled(title), *said]), y=1 + 0.38 / height, pad=0)


def _power(value: float) -> str:
    power = int(np.floor(np.log10(value) + 1e-9)) if value > 0 else 0
    first = f"{value / 10.0**power:.2g}"
    return power_of_ten(power) if first == "1" else f"{first}×{power_of_ten(power)}"


def _set_title(ax: Axes, title: str, **place: Any) -> None:
    """A panel's title, smaller where it would reach the next panel, and cut where that does not help."""
    room = 72 * ax.get_window_extent().width / ax.figure.dpi + 8
    letters = re.sub(r"[${}\\]", "", title)
    size = float(np.clip(_TITLE * room / text_width(letters, _TITLE), _SMALL, _TITLE))
    while len(title) > 4 and "$" not in title and text_width(title, size) > room:
        title = title[:-2] + "…"
    ax.set_title(title, loc="left", fontsize=size, **place)


def _titled(title: str) -> str:
    """A panel's name, set as names are."""
    name, comma, rest = title.partition(", ")
    return "share of paths that finished" + comma + rest if name == _SHARE else pretty(name) + comma + rest


def _edges(values: Floats) -> Floats:
    """Where the cells of a heat map end, half way between their middles, on the scale that is drawn."""
    log = _is_spaced(values)
    at = np.log(values) if log else np.asarray(values, float)
    gaps = np.diff(at)
    ends = np.concatenate([[at[0] - gaps[0] / 2], at[:-1] + gaps / 2, [at[-1] + gaps[-1] / 2]])
    return np.asarray(np.exp(ends) if log else ends)


def _is_spaced(values: NDArray[Any]) -> bool:
    """Whether numbers stand apart logarithmically."""
    return bool(len(values) > 2 and values.min() > 0 and values.max() > 8 * values.min()
                and np.median(values) < 0.4 * values.max())  # fmt: skip


def _name_axis(ax: Axes, which: str, name: str, values: NDArray[Any]) -> None:
    """Limits, ticks and name of an axis along which something was swept."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    put = ax.set_xlabel if which == "x" else ax.set_ylabel
    said: list[str] = []
    if values.dtype.kind in "fiu":
        if _is_spaced(values):
            (ax.set_xscale if which == "x" else ax.set_yscale)("log")
        said = tidy(axis)
    else:
        axis.set_ticks(range(len(values)), [v if len(v) < 14 else v[:12] + "…" for v in values.tolist()])
    put("".join([pretty("learning rate" if name == "lr" else name), *said]))
