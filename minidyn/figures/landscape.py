"""The landscape of two parameters: level sets, minima, and where the ensembles are on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator

from minidyn.common.arrays import Floats
from minidyn.common.errors import ManifoldError
from minidyn.common.status import Status
from minidyn.figures.scales import beyond, say_gone, spread, tidy
from minidyn.figures.style import HUGE, MAP, MINIMA, THIN, Look, legend_label, power_of_ten, pretty
from minidyn.maps.loss import Loss
from minidyn.minima.manifold import Manifold
from minidyn.simulate.phases import alternates
from minidyn.simulate.run import Run

_LONG = 100  # saves of a path whose zigzag would fill the picture
_POINTS = 400  # of an ensemble drawn on the landscape
_LONG_STRIDE, _SHORT = 0.03, 0.01  # of a walk along minima, as parts of the window
_LAND = LinearSegmentedColormap.from_list("land", ["#ffffff", "#eef2f5", "#d5dee6", "#b4c3d0", "#93a8ba"])


def draw_landscape(ax: Axes, runs: Mapping[str, Run], loss: Loss | None, looks: Mapping[str, Look]) -> None:
    """Level sets, minima, the ensembles at the last step, a few paths."""
    first = next(iter(runs.values()))
    gone = draw_floor(ax, runs, loss)
    for order, (label, run) in enumerate(runs.items()):
        look, w = looks[label], run.w
        assert w is not None
        few = _apart(first.steps, w[0]) if len(w) == 1 else w[:THIN]
        for path in few:
            solid = {"ls": look.dash, "lw": 0.5, "alpha": 0.45} if len(w) > 1 or look == MAP else {"ls": "-", "lw": 1.1}
            ax.plot(*np.where(np.abs(path) < HUGE, path, np.nan).T, color=look.colour, zorder=4 + order, **solid)
        size = (8 if order else 14) if len(w) > 1 else 40
        style: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.3, "alpha": 0.6 if len(w) > 1 else 1.0}
        if np.isfinite(w[:_POINTS, -1]).any():
            style["label"] = legend_label(label, run)
        ends = np.array([path[-1] for path in few]) if len(w) == 1 else w[:_POINTS, -1]
        ax.scatter(ends[:, 0], ends[:, 1], size, color=look.colour, marker=look.marker, zorder=10 + order, **style)
    start = first.w[:, 0] if first.w is not None else np.empty((0, 2))
    ax.plot(*np.unique(start, axis=0)[:_POINTS].T, ls="", marker="X", ms=6.5, mfc="white", mec="black", zorder=30,
            label="start" if np.isfinite(start).any() else "_")  # fmt: skip
    some = f"{_POINTS:,} of {first.paths:,} points at step" if first.paths > _POINTS else "points at step"
    some = "step" if gone else "paths to step" if first.paths == 1 else some  # beside what leaves there is less room
    ax.set_title(f"{some} {int(first.steps[-1]):,}", loc="left")
    if gone:
        say_gone(ax, gone)


def draw_floor(ax: Axes, runs: Mapping[str, Run], loss: Loss | None) -> list[str]:
    """The ground below these runs, of the loss if it has two parameters; what is said of runs that leave it."""
    low, high, gone = window({label: _staying(run) for label, run in runs.items()}, ratio_of(ax))
    gone = gone or ["what diverges"] * any((run.status == Status.DIVERGED).any() for run in runs.values())
    plane = loss if loss is not None and loss.dim == 2 else None
    draw_ground(ax, plane.value if plane else None, plane, low, high, next(iter(runs.values())).names)
    return gone


def _staying(run: Run) -> Floats | None:
    """The paths that do not diverge, or all of them where none stays."""
    stays = run.status != Status.DIVERGED
    return run.w[stays] if run.w is not None and stays.any() and not stays.all() else run.w


def draw_ground(
    ax: Axes, value: Callable[[Floats], Any] | None, loss: Loss | None, low: Floats, high: Floats, names: list[str]
) -> None:
    """Level sets of `value`, minima of a loss of two parameters in a window, and its axes."""
    if value is not None:
        _draw_levels(ax, value, low, high)
    if loss is not None:
        curves = [c for c in minima_of(loss, low, high) if ((c >= low) & (c <= high)).all(axis=1).any()]
        for number, curve in enumerate(curves):
            style: dict[str, Any] = {"marker": "*", "ls": "", "ms": 8, "zorder": 3}
            if len(curve) > 1:  # over what lies on it, which is seen between the dashes
                style = {"ls": (0, (2, 2.5)), "lw": 1.3, "zorder": 25}
            ax.plot(*curve.T, color=MINIMA, label="_" if number else "minima", **style)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    for spine in ax.spines.values():
        spine.set_visible(True)
    for axis, name, put in ((ax.xaxis, names[0], ax.set_xlabel), (ax.yaxis, names[1], ax.set_ylabel)):
        put("".join([pretty(name), *tidy(axis)]))


def _draw_levels(ax: Axes, value: Callable[[Floats], Any], low: Floats, high: Floats) -> None:
    """Filled level sets of the loss, or of what it is above its minimum, log-spaced over four decades."""
    x, y = (np.linspace(a, b, 161) for a, b in zip(low, high, strict=True))
    with np.errstate(all="ignore"):
        z = np.asarray(value(np.stack(np.meshgrid(x, y), axis=-1)))
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
    powers = FuncFormatter(lambda v, _: power_of_ten(round(np.log10(v))))
    place = ax.inset_axes((1.03, 0.12, 0.03, 0.7))
    bar = ax.figure.colorbar(filled, cax=place, ticks=LogLocator(10), format=powers)
    place.minorticks_off()
    bar.outline.set_visible(False)
    place.text(0.0, 1.05, "loss − min" if shifted else "loss", transform=place.transAxes, fontsize=8)


def _apart(steps: Any, path: Floats) -> list[Floats]:
    """A path; a long one that alternates as two, through its even and its odd steps."""
    if len(path) > _LONG and any(alternates(steps[: len(path)], values) for values in path.T):
        return [path[steps[: len(path)] % 2 == side] for side in (0, 1)]
    return [path]


def ratio_of(ax: Axes) -> float:
    """Height over width of axes."""
    box = ax.get_window_extent()
    return float(box.height / box.width)


def window(clouds: Mapping[str, Floats | None], ratio: float) -> tuple[Floats, Floats, list[str]]:
    """Corners of the part of the plane that almost all points of the first cloud visit, and others that stay near it;
    true to scale in axes of this height over width, where both sides are comparable; and the clouds that leave it."""
    boxes = {}
    for label, w in clouds.items():
        points = np.empty((0, 2)) if w is None else w.reshape(-1, 2)
        points = points[(np.abs(points) < HUGE).all(axis=1)]
        if len(points):
            low, high = np.quantile(points, [0.001, 0.999], axis=0)
            boxes[label] = np.array([np.minimum(low, points[0]), np.maximum(high, points[0])])
    if not boxes:
        return np.array([-1.0, -1.0]), np.array([1.0, 1.0]), []
    first = next(iter(boxes))
    (low, high), gone = spread(boxes.pop(first), boxes)
    size = np.maximum(high - low, [1e-9, 1e-9])
    if size.min() > 0.3 * size.max():
        wide = max(size[0], size[1] / ratio)
        size = np.array([wide, ratio * wide])
    middle = (low + high) / 2
    return middle - 0.6 * size, middle + 0.6 * size, gone or beyond([w for w in clouds.values() if w is not None])


def minima_of(loss: Loss, low: Floats, high: Floats) -> list[Floats]:
    """Curves of minima in a window, each (N, 2), found from a grid of points; an isolated one is one point."""
    manifold = Manifold(loss)
    x, y = (np.linspace(a, b, 9) for a, b in zip(low, high, strict=True))
    curves: list[Floats] = []
    for seed in manifold.find(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), max_steps=2000):
        inside = ((seed >= low) & (seed <= high)).all()
        known = any(np.linalg.norm((c - seed) / (high - low), axis=1).min() < 0.02 for c in curves)
        if inside and not known and len(curves) < 12 and _is_minimum(manifold, seed):
            halves = [_walk(manifold, seed, low, high, sign) for sign in (1.0, -1.0)]
            curves.append(_finer(manifold, np.array([*halves[1][::-1], seed, *halves[0]]), high - low))
    return curves


def _finer(manifold: Manifold, curve: Floats, size: Floats) -> Floats:
    """A curve of minima with points a short stride apart, all of them sent to the minima at once."""
    way = np.concatenate([[0.0], np.linalg.norm(np.diff(curve, axis=0) / size, axis=1).cumsum()])
    at = np.linspace(0, way[-1], 1 + round(way[-1] / _SHORT))
    return manifold.find(np.stack([np.interp(at, way, v) for v in curve.T], axis=1), max_steps=2000)


def _is_minimum(manifold: Manifold, w: Floats) -> bool:
    """Whether the Hessian has a clear rank and no direction downwards: a grid can hit a maximum exactly."""
    try:
        return manifold.dimension(w) >= 0
    except ManifoldError:
        return False


def _walk(manifold: Manifold, seed: Floats, low: Floats, high: Floats, sign: float) -> list[Floats]:
    """Points along the minima from a seed on, up to a stride of the window apart, until they leave it or close."""
    size, points, heading = high - low, [seed], None
    for _ in range(400):
        try:
            tangent = manifold.tangent(points[-1])
            if tangent.shape[1] != 1:
                break
            ahead = tangent[:, 0] * (sign if heading is None else np.sign(tangent[:, 0] @ heading))
            new, moved = _stride(manifold, points[-1], ahead / np.linalg.norm(ahead / size), size)
        except ManifoldError:
            break
        if not 0.2 * _SHORT < moved < 5 * _SHORT:
            break
        heading = new - points[-1]
        points.append(new)
        outside = ((new < low) | (new > high)).any()
        if outside or (len(points) > 5 and np.linalg.norm((new - seed) / size) < 0.9 * moved):
            break
    return points[1:]


def _stride(manifold: Manifold, point: Floats, ahead: Floats, size: Floats) -> tuple[Floats, float]:
    """The next point of the minima and how far it is in parts of the window: a long stride, or a short one where the
    minima bend."""
    for stride in (_LONG_STRIDE, _SHORT):
        new, code = manifold.limits(point + stride * ahead, 1e-10, 2000)
        moved = float(np.linalg.norm((new - point) / size))
        if not code and abs(moved - stride) < 0.03 * stride:
            break
    return new, moved
