"""One picture: a head, panels in rows and columns, and one legend of what was drawn. Every kind of picture is made so.

Sizes are inches; axes stand where these say, so that all are equally large and nothing has to be found by trial.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minidyn.common.errors import InputError
from minidyn.common.intake import shown
from minidyn.figures.canvas import new_figure, write_picture
from minidyn.figures.style import GREY, MINIMA, PANELS, READINGS, STYLE, draw_legend, text_width

LEFT, RIGHT, TOP, BOTTOM, BETWEEN, BAR = 0.86, 0.24, 0.30, 0.46, 0.10, 0.58  # around axes; BAR beside a landscape
WIDTH = 3.0  # of axes
_EDGE, _LINE = 0.1, 0.165  # of the figure; lines of its head
_LEAST, _SQUARE = 0.4, 3.6  # of axes: at least; a landscape that stands alone
_DOT = 6.0  # points: a dot in a legend is no smaller
_THIN = 2.5  # points: an area that is no taller than a line on it is not seen
_MAP = [look.colour for look, _ in READINGS.values()]


@dataclass(frozen=True)
class Panel:
    """What `panels=` chooses by `name`: axes of these heights, one above the other, into which `draw(*axes)` draws."""

    name: str
    draw: Callable[..., None]
    parts: tuple[float, ...] = (1.9,)
    plane: bool = False  # a landscape, which has a colour bar and may be as tall as two rows
    above: float = 0.0  # further room over the axes


def compose(panels: Sequence[Panel], title: str, details: Sequence[str], *, path: Any = None, only: Any = None,
            size: Any = None, ax: Any = None, most: int = PANELS) -> Figure:  # fmt: skip
    """The picture of the panels that `only` names, or of the first `most` (and a landscape), of this `size`; or one
    panel in the given axes."""
    chosen = _chosen(panels, only, most)
    if ax is not None:
        return _into(ax, chosen, panels, path)
    with rc_context(STYLE):
        sheet = _Sheet(chosen, title, details, size)
        groups = sheet.add_axes()
        for panel, group in zip(chosen, groups, strict=True):
            panel.draw(*group)
        sheet.finish(
            legend_of(
                [ax for flat in sorted(zip(chosen, groups, strict=True), key=lambda p: p[0].plane) for ax in flat[1]]
            )
        )
        write_picture(sheet.fig, path)
    return sheet.fig


def _chosen(panels: Sequence[Panel], only: Any, most: int) -> list[Panel]:
    if not panels or (only is not None and not len(only)):
        raise InputError("there is nothing to draw: name at least one parameter or observable.")
    if only is None:
        first = [p for p in panels if not p.plane][:most]
        return [p for p in panels if p.plane or p in first]
    names = [only] if isinstance(only, str) else list(only)
    there = {p.name: p for p in panels}
    for name in names:
        if name not in there:
            raise InputError(f"there is no panel {shown(name)}; panels= takes names of {', '.join(list(there)[:30])}.")
    return [there[name] for name in dict.fromkeys(names)]


def _into(ax: Any, chosen: list[Panel], panels: Sequence[Panel], path: Any) -> Figure:
    """One panel in somebody's axes, with room for its legend above what is drawn."""
    if not isinstance(ax, Axes):
        raise InputError(f"ax= takes matplotlib axes, such as those of plt.subplots(), not {shown(ax)}.")
    if len(chosen) != 1:
        names = ", ".join(p.name for p in panels)
        raise InputError(f"ax= holds one panel: name it in panels=, one of {names}.")
    chosen[0].draw(ax)
    handles, own = legend_of([ax]), ax.get_legend()
    if handles:
        legend = ax.legend(handles=handles, loc="upper left", ncols=1 + (len(handles) > 3), frameon=False, fontsize=8)
        legend.set_zorder(50)
        if own is not None:  # what a panel has said above itself stays
            ax.add_artist(own)
        height = (0.19 * -(-len(handles) // (1 + (len(handles) > 3))) + 0.15) / max(_inches(ax)[1], 0.5)
        _make_room(ax, min(height, 0.6))
    write_picture(ax.figure, path)  # type: ignore[arg-type]
    return ax.figure  # type: ignore[return-value]


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of axes."""
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def _make_room(ax: Axes, part: float) -> None:
    """Leave the upper part of axes free."""
    scale = ax.yaxis.get_transform()
    low, high = scale.transform(np.array(ax.get_ylim()))
    ax.set_ylim(*scale.inverted().transform(np.array([low, high + (high - low) * part / (1 - part)])))


def layout(panels: int, plane: bool) -> tuple[int, int, bool]:
    """Rows and columns for so many panels and a landscape, and whether the landscape is as tall as two rows."""
    if not plane or not panels:
        columns = panels if panels <= 3 else 2 if panels == 4 else 3
        return max(-(-panels // max(columns, 1)), 1), max(columns, 1), False
    rows, tall = {1: 1}.get(panels, 2), panels % 2 == 0
    return rows, panels // rows + 1 if tall else (panels + 1) // rows, tall


class _Sheet:
    """Where everything stands, from the top left corner."""

    def __init__(self, panels: Sequence[Panel], title: str, details: Sequence[str], size: Any):
        self.panels, self.title, self.details = panels, title, [part for part in details if part]
        flat = [p for p in panels if not p.plane]
        rows, columns, tall = layout(len(flat), len(flat) < len(panels))
        self.rows, self.columns, self.tall = rows, columns, tall and rows > 1
        parts = flat[0].parts if flat else (_SQUARE,)
        self.parts, self.above = parts, max(p.above for p in panels)
        first = 1.5 if self.tall else 1.0 if flat else (_SQUARE + BAR) / WIDTH
        self.wide = np.array([first, *[1.0] * (columns - 1)])
        self.size = _size(size)
        width = (
            self.size[0]
            if self.size
            else max(columns * (LEFT + RIGHT) + WIDTH * float(self.wide.sum()), 6.6 if flat else 5.0)
        )
        self.unit = (width - columns * (LEFT + RIGHT)) / float(self.wide.sum())
        self.width, self.legend = width, 0.0
        self.head = self._wrap_head()
        self.fig = new_figure(width, self.height)

    @property
    def height(self) -> float:
        """Of the figure."""
        inside = sum(self.parts) + BETWEEN * (len(self.parts) - 1)
        return self.size[1] if self.size else self.head[1] + self.rows * (inside + self._around) + self.legend + _EDGE

    @property
    def _around(self) -> float:
        return TOP + BOTTOM + self.above

    def _wrap_head(self) -> tuple[tuple[list[str], list[str]], float]:
        """The lines of title and details, and how tall they are."""
        room = 0.96 * 72 * (self.width - 2 * _EDGE)  # pixels make letters a little wider
        title = wrapped(self.title.split(" "), " ", room, 12, "bold")
        details = wrapped(list(self.details), "  ·  ", room, 8.5)
        return (title, details), _EDGE + 0.21 * len(title) + _LINE * len(details) + 0.07

    def add_axes(self) -> list[list[Axes]]:
        """The axes of each panel."""
        self.groups = []
        for panel in self.panels:
            group = [self.fig.add_subplot() for _ in (panel.parts if not panel.plane else (1.0,))]
            for ax in group[1:]:
                ax.sharex(group[0])
            self.groups.append(group)
        self.place()
        return self.groups

    def place(self) -> None:
        """Set all axes where they belong in the figure as tall as it is now."""
        self.fig.set_size_inches(self.width, self.height)
        free = self.height - self.head[1] - self.legend - _EDGE - self.rows * self._around
        row = free / self.rows
        parts = np.array(self.parts) / sum(self.parts) * (row - BETWEEN * (len(self.parts) - 1))
        if min(self.unit, *parts) < _LEAST:
            raise InputError(
                f"a picture of {self.width:g} by {self.height:g} inches is too small for these panels; "
                "give a larger size= or fewer panels=."
            )
        plane = any(p.plane for p in self.panels)
        places = [divmod(i, self.columns) for i in range(self.rows * self.columns)]
        places = [(r, c) for r, c in places if not plane or c > 0 or (r > 0 and not self.tall)]
        flat = iter(places)
        for panel, group in zip(self.panels, self.groups, strict=True):
            r, c = (0, 0) if panel.plane else next(flat)
            left = c * (LEFT + RIGHT) + LEFT + self.unit * float(self.wide[:c].sum())
            top = self.head[1] + r * (row + self._around) + TOP + self.above
            width = self.unit * self.wide[c] - (BAR if panel.plane else 0)
            tall = row + (row + self._around if panel.plane and self.tall else 0)
            for ax, part in zip(group, [tall] if panel.plane else parts, strict=True):
                box = (left / self.width, 1 - (top + part) / self.height, width / self.width, part / self.height)
                ax.set_position(box)
                top += part + BETWEEN

    def finish(self, handles: list[Any]) -> None:
        """The legend below everything, as wide as the figure allows, and the head above."""
        self.fig.canvas.get_renderer()  # type: ignore[attr-defined]
        self.legend = draw_legend(self.fig, handles)
        self.place()
        (title, details), _ = self.head
        at, down = _EDGE / self.width, _EDGE / self.height
        self.fig.text(at, 1 - down, "\n".join(title), va="top", fontsize=12, fontweight="bold", parse_math=False)
        style: dict[str, Any] = {"fontsize": 8.5, "color": GREY, "linespacing": 1.35, "parse_math": False}
        down += (0.21 * len(title) + 0.04) / self.height
        self.fig.text(at, 1 - down, "\n".join(details), va="top", **style)


def _size(size: Any) -> tuple[float, float] | None:
    if size is None:
        return None
    try:
        width, height = (float(v) for v in size)
    except (TypeError, ValueError):
        width = height = np.nan
    if not (0 < width < 200 and 0 < height < 200):
        raise InputError(f"size= takes width and height in inches, such as (8, 6), not {shown(size)}.")
    return width, height


# -- words that fit ------------------------------------------------------------------------------------


def wrapped(parts: Sequence[str], between: str, room: float, size: float, weight: str = "normal") -> list[str]:
    """Parts in lines of `room` points; a part that is longer than a line is broken at its spaces, or where it must."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}{between}{part}" if lines[-1] else part
        if text_width(longer, size, weight) <= room:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for word in part.split(" "):
            longer = f"{lines[-1]} {word}" if lines[-1] else word
            if lines[-1] and text_width(longer, size, weight) > room:
                lines.append(longer := word)
            while len(longer) > 1 and text_width(longer, size, weight) > room:
                keep = max(1, int(len(longer) * room / text_width(longer, size, weight)) - 1)
                lines[-1], longer = longer[:keep], longer[keep:]
                lines.append(longer)
            lines[-1] = longer
    return [line for line in lines if line]


# -- legends -------------------------------------------------------------------------------------------


def legend_of(axes: Sequence[Axes]) -> list[Any]:
    """An entry for each label of what was drawn: the map, flows, other lines, areas, single marks; markers of points on
    the landscape sit on the line of the same label."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            known = found.get(label)
            if not _in_sight(ax, handle):
                continue
            if known is None:
                found[label] = _seen(handle) if isinstance(handle, Line2D) else handle
            elif isinstance(known, Line2D) and isinstance(handle, PathCollection):
                known.set_marker(handle.get_paths()[0])
                known.set_markersize(5)
    return sorted(found.values(), key=_rank)


def _seen(handle: Line2D) -> Line2D:
    """A line as it stands in a legend: dots large enough to show their colour."""
    line = copy.copy(handle)
    if line.get_linestyle() in ("None", "") and float(line.get_markersize()) < _DOT:
        line.set(markersize=_DOT, alpha=1.0)
    return line


def _in_sight(ax: Axes, handle: Any) -> bool:
    """Whether any of the points of a line or a cloud lies within its axes, and whether an area is wider than a line;
    bars are."""
    if isinstance(handle, PolyCollection):
        return any(_height(ax, handle.get_transform().transform(p.vertices)) > _THIN for p in handle.get_paths())
    if isinstance(handle, PathCollection):
        points = handle.get_offset_transform().transform(np.ma.getdata(handle.get_offsets()))
    elif isinstance(handle, Line2D):
        points = handle.get_transform().transform(np.array(handle.get_data(), dtype=float).T)
    else:
        return True
    box = ax.get_window_extent()
    return bool(((points >= box.p0 - 1) & (points <= box.p1 + 1)).all(axis=1).any())


def _height(ax: Axes, points: Any) -> float:
    """How tall an area between two curves is on average, inside its axes, in points; (N, 2) in pixels, along one and
    back along the other."""
    box, half = ax.get_window_extent(), len(points) // 2
    there, back = (
        np.clip(np.nan_to_num(side[:, 1], neginf=-1e9), box.y0, box.y1)
        for side in (points[1:half], points[half + 1 : 2 * half][::-1])
    )
    return float(np.abs(there - back).mean()) * 72 / ax.figure.dpi if len(there) else 0.0


def _rank(handle: Any) -> int:
    if not isinstance(handle, Line2D) or handle.get_linestyle() in ("None", ""):
        return 4 if isinstance(handle, (Line2D, PathCollection)) else 3
    return 0 if handle.get_color() in _MAP else 2 if handle.get_color() == MINIMA else 1
