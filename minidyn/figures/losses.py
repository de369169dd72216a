"""Pictures of a loss: a curve, level sets and minima, or a slice of many parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minidyn.common.arrays import Floats
from minidyn.common.errors import InputError
from minidyn.common.intake import numbers, shown
from minidyn.figures.landscape import draw_ground
from minidyn.figures.scales import grid, set_limits, tidy
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import MAP, MINIMA, parts_of, pretty
from minidyn.maps.loss import Loss
from minidyn.minima.manifold import Manifold


def plot_loss(loss: Loss, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None, at: Any = None,
              window: Any = None) -> Figure:  # fmt: skip
    """A loss of one parameter as a curve, of two as level sets and minima; of more a slice through the two parameters
    that `panels` names.

    at : the point through which a slice goes, and the middle of the picture; zeros by default.
    window : how far the picture goes to each side of it, a number or one for each of the drawn parameters; by default
        3, or so far that it holds a minimum near it.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> fig = md.Loss((1 + x**2) * y**2 / 2, [x, y]).plot(window=(3, 1))
    >>> [float(end) for end in fig.axes[0].get_xlim()]
    [-3.0, 3.0]
    """
    names = loss.param_names
    chosen = _sliced(names, panels)
    place = [names.index(name) for name in chosen]
    middle = np.zeros(loss.dim) if at is None else loss.check(at, "at")
    if middle.ndim != 1:
        raise InputError(f"at= is one point of {loss.dim} parameters, not an array of shape {middle.shape}.")
    reach = numbers(3.0 if window is None else window, "window")
    if reach.shape not in ((), (len(place),)) or not (np.isfinite(reach).all() and (reach > 0).all()):
        raise InputError(
            "window= is how far the picture goes to each side, a positive number, or one for each parameter that is "
            f"drawn, not {shown(window)}."
        )
    view = _View(loss, middle, place, chosen, middle[place] - reach, middle[place] + reach)
    one = len(chosen) == 1
    panel = Panel(" ".join(chosen), partial(_draw_curve if one else _draw_levels, view=view), plane=not one)
    text, _, samples, _ = parts_of(f"Map({loss!r}, )")
    fixed = [f"{n} = {v:.4g}" for n, v in zip(names, middle, strict=True) if n not in chosen]
    through = f"through {', '.join(fixed)}" if len(fixed) <= 8 else f"through a point of {loss.dim} parameters"
    return compose(
        [panel], f"loss {text}" if text else str(loss), [samples, through * bool(fixed)], path=path, size=size, ax=ax
    )


def _sliced(names: list[str], panels: Any) -> list[str]:
    """The one or two parameters that are drawn."""
    if isinstance(panels, str):
        chosen = [panels] if panels in names else panels.split()
    else:
        chosen = names if panels is None else list(panels)
    if len(chosen) > 2 and panels is None:
        few = f"panels=({names[0]!r}, {names[1]!r})"
        raise InputError(
            f"a loss of {len(names)} parameters is drawn as a slice: name two of them, such as {few}, "
            "and in at= the point through which it goes."
        )
    for name in chosen:
        if name not in names:
            raise InputError(f"the loss has no parameter {shown(name)}; it has {', '.join(names[:20])}.")
    if not 1 <= len(set(chosen)) == len(chosen) <= 2:
        raise InputError(f"panels= names one or two different parameters, not {shown(panels)}.")
    return chosen


@dataclass(frozen=True)
class _View:
    """A part of the line or plane through `middle` on which the parameters at `place` vary."""

    loss: Loss
    middle: Floats
    place: list[int]
    names: list[str]
    low: Floats
    high: Floats

    def value(self, points: Floats) -> Floats:
        """The loss at points (..., 1 or 2) of it."""
        w = np.empty((*points.shape[:-1], self.loss.dim))
        w[...] = self.middle
        w[..., self.place] = points
        with np.errstate(all="ignore"):
            return np.asarray(self.loss.value(w))


def _draw_curve(ax: Axes, view: _View) -> None:
    x = np.linspace(view.low[0], view.high[0], 801)
    values = view.value(x[:, None])
    ax.plot(x, values, color=MAP.colour, lw=MAP.width, label="loss" if np.isfinite(values).any() else "_")
    if view.loss.dim == 1:
        found = Manifold(view.loss).find(x[::40, None], max_steps=2000)
        inside = np.unique(np.round(found[(found >= view.low) & (found <= view.high)], 9))
        if len(inside):
            ax.plot(
                inside, view.value(inside[:, None]), color=MINIMA, ls="", marker="*", ms=9, label="minima", zorder=5
            )
    finite = values[np.isfinite(values)]
    set_limits(ax, [np.minimum(finite, np.quantile(finite, 0.98))] if len(finite) else [], {}, False)
    ax.set_title("".join(["loss", *tidy(ax.yaxis)]), loc="left")
    ax.set(xlim=(view.low[0], view.high[0]), xlabel=pretty(view.names[0]))
    grid(ax)


def _draw_levels(ax: Axes, view: _View) -> None:
    draw_ground(ax, view.value, view.loss if view.loss.dim == 2 else None, view.low, view.high, view.names)
    ax.set_title("level sets", loc="left")
