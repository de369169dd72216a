"""The landscape of two parameters: level sets, minima, and where the ensembles are on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from minidyn.common.errors import ManifoldError
from minidyn.compare.comparison import Comparison
from minidyn.figures.style import HUGE, MINIMA, THIN, Look, Numbers, power_of_ten, pretty
from minidyn.maps.loss import Loss
from minidyn.minima.manifold import Manifold

Floats = NDArray[np.float64]

_POINTS = 400  # of an ensemble drawn on the landscape
_LAND = LinearSegmentedColormap.from_list("land", ["#ffffff", "#eef2f5", "#d5dee6", "#b4c3d0", "#93a8ba"])


def draw_landscape(ax: Axes, result: Comparison, loss: Loss | None, looks: dict[str, Look]) -> None:
    """Level sets, minima, the ensembles at the last step, a few paths."""
    low, high = _window([run.w for run in result.runs.values() if run.w is not None])
    first = next(iter(result.runs.values()))
    if loss is not None and loss.dim == 2:
        _draw_levels(ax, loss, low, high)
        for curve in minima_of(loss, low, high):
            ax.plot(*curve.T, color=MINIMA, lw=1.3, zorder=3, marker="*" if len(curve) == 1 else "")
    for order, (label, look) in enumerate(looks.items()):
        w = result.runs[label].w
        assert w is not None
        for path in w[:THIN]:
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
        axis.set_major_formatter(Numbers())
    ax.set_xlabel(pretty(first.names[0]))
    ax.set_ylabel(pretty(first.names[1]))
    thin = f"{min(THIN, first.paths)} path{'s' * (first.paths > 1)}"
    some = f", {_POINTS:,} of {first.paths:,} points" if first.paths > _POINTS else ""
    ax.set_title(f"ensembles at step {int(first.steps[-1]):,}{some}; thin: {thin}", loc="left")


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
    powers = FuncFormatter(lambda v, _: power_of_ten(round(np.log10(v))))
    bar = ax.figure.colorbar(filled, ax=ax, shrink=0.7, aspect=30, pad=0.01, ticks=LogLocator(10), format=powers)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.ax.text(0.5, 1.06, "loss − min" if shifted else "loss", transform=bar.ax.transAxes, ha="center")


def _window(clouds: Iterable[Floats]) -> tuple[Floats, Floats]:
    """Corners of the part of the plane that almost all points visit."""
    points = np.concatenate([w.reshape(-1, 2) for w in clouds])
    points = points[(np.abs(points) < HUGE).all(axis=1)]
    if not len(points):
        return np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    low, high = np.quantile(points, [0.001, 0.999], axis=0)
    low, high = np.minimum(low, points[0]), np.maximum(high, points[0])
    size = np.maximum(high - low, [1e-9, 1e-9])
    if size.min() > 0.3 * size.max():  # comparable: a square, so that the picture is true to scale
        size = np.full(2, size.max())
    middle = (low + high) / 2
    return middle - 0.6 * size, middle + 0.6 * size


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
