"""Reports: lines and tables, as text of 80 columns and as HTML, so that whatever one shows the other shows."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import printable

WIDTH = 80  # columns of a line of text, at most
_EASY = {"+ ": 0.0, "- ": 0.0, "= ": 0.75}  # how ill it is to break a line before a sign
_LEAST, _INDENT = 12, 2  # columns of a cell that is wrapped, at least; a table and what goes on are set in by so many
_ROOM = WIDTH - _INDENT
_NEAR = 0.5  # a line is broken behind this part of it


@dataclass(frozen=True)
class Table:
    """Rows of cells; `left` columns stand to the left, the others to the right.

    The first row is the head; without one (`head=False`) a row's first cell names the others.  title : a line above.
    """

    rows: list[list[str]]
    left: int = 1
    title: str = ""
    head: bool = True


def named(rows: Iterable[tuple[str, str]]) -> Table:
    """Names with their values, row by row."""
    return Table([list(row) for row in rows], 2, head=False)


Report = list[str | Table]


class Drawn(ByValue):
    """What has a picture. The rooms that draw and keep results stand above: they are opened here, when asked for."""

    def plot(self, path: Any = None, *, panels: Any = None, size: Any = None, ax: Any = None, **options: Any) -> Any:
        """The picture, a matplotlib figure: `plot().show()` opens a window, Jupyter shows it, `path` writes it.

        path : a file to write; its extension names the format (png, pdf, svg; png where there is none).
        panels : what to draw, a name or several, instead of the first six. Of a run: parameters and observables. Of a
            comparison: those, and "landscape". Of a scaling study: quantities. Of a stability diagram: settings, such
            as "lr 0.1, batch 4". Of `edge`: "sharpness", "amplitude". Of `escape`: "distance", "destinations". Of a
            bifurcation diagram: quantities and "exponent". Of `basin`: "basins", "shares". Of a loss: the parameter
            or the two parameters that vary.
        size : width and height in inches, such as (8, 5).
        ax : matplotlib axes into which one panel is drawn, with its legend, instead of a figure of its own.
        options : of a comparison `loss`, whose level sets and minima are drawn (its own by default); of a loss `at`,
            the point through which a slice goes, and `window`, how far the picture goes to each side of it.

        Of a run: parameters and observables over the steps. Of a comparison: every quantity over the steps with bands,
        the differences below, and for two parameters the landscape and the minima. Of a scaling study: differences over
        lr on logarithmic axes, with error bars and fits. Of a stability diagram: a panel for each setting. Of `edge`:
        sharpness and oscillation over the steps. Of `escape`: the distance from the minimum, and where paths went. Of a
        bifurcation diagram: long-run values and the exponent over the parameter. Of `basin`: the starts in the colours
        of the places where they end. Of a loss: a curve, or level sets and minima.
        """
        from minidyn import figures

        return figures.plot(self, path=path, panels=panels, size=size, ax=ax, **options)


class Moving(Drawn):
    """What moves over the steps, and can be shown as a film."""

    def animate(self: Any, path: Any, *, seconds: float = 8.0, size: Any = None, loss: Any = None) -> Any:
        """Write a film, `.gif` or (where ffmpeg is installed) `.mp4`, of so many seconds; returns the file.

        Two parameters: paths move on the landscape, of `loss` or of the loss that a comparison carries. Otherwise the
        quantities, means over the paths, grow over the steps. `size` is width and height in inches.
        """
        from minidyn import figures

        return figures.animate(self, path, seconds=seconds, size=size, loss=loss)


class Result(Drawn):
    """What was computed: it is drawn, and kept in a file."""

    def save(self, path: Any) -> None:
        """Write HDF5 that is also netCDF-4; read it back with `md.load`, a run also with xarray (engine h5netcdf)."""
        from minidyn.files import results

        results.save(self, path)


class Reported:
    """What is shown as its report: as text, and as HTML in a notebook."""

    def _report(self) -> Report:
        raise NotImplementedError

    def summary(self) -> str:
        """What was found, as lines and tables."""
        return as_text(self._report())

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from minidyn.common.html import as_html

        return as_html(self._report())


def digits(value: float, count: int = 5, sign: bool = False, padded: bool = False) -> str:
    """A number in a table: so many digits, zeros at the end where it is `padded`, a short exponent.

    >>> digits(1.3e-05, 2), digits(3.0, sign=True), digits(7.25, padded=True), digits(float("nan"))
    ('1.3e-5', '+3', '7.2500', '-')
    """
    if value != value:
        return "-"
    text = f"{value:{'+' if sign and value else ''}{'#' if padded else ''}.{count}g}".removesuffix(".")
    return re.sub(r"e([+-])0+(?=\d)", r"e\1", text).replace("e+", "e")


def share(part: float) -> str:
    """A part of one in per cent, with two digits.

    >>> share(0.00123), share(1.5), share(0.0)
    ('0.12 %', '150 %', '0 %')
    """
    size = 100 * abs(part)
    if size > 1000 or 0 < size < 1e-4:
        return "> 1,000 %" if size > 1 else "< 0.0001 %"
    return f"{size:.0f} %" if size >= 9.95 else f"{digits(size, 2)} %"


def fold(line: str, width: int = WIDTH, indent: str | None = None) -> list[str]:
    """A line as lines of at most `width` columns; what goes on is set in.

    It breaks outside of as many brackets as it can, at a space before it does at a product, before a sign and not
    behind it.

    >>> fold("  drift = -lr*s/(2*(s**2 + 1)) + lr**2*s", 32)
    ['  drift = -lr*s/(2*(s**2 + 1))', '    + lr**2*s']
    """
    if indent is None:
        indent = " " * (len(line) - len(line.lstrip()) + _INDENT)
    indent = indent if len(indent) < width / 2 else ""
    out = []
    while len(line) > width:
        end = _place(line, width, len(line) - len(line.lstrip()))
        out.append(line[:end].rstrip())
        line = indent + line[end:].lstrip()
    return [*out, line]


def folded(text: str) -> str:
    """A text whose lines have at most 80 columns."""
    return "\n".join(part for line in text.split("\n") for part in fold(line))


def _place(line: str, width: int, start: int) -> int:
    """Where a line that is too long is broken."""
    depth, best, at = 0, (1e9, 0), width
    for i, c in enumerate(line[: width + 1]):
        depth += (c in "([{") - (c in ")]}")
        if i <= start:
            continue
        if i <= _NEAR * width:  # only where there is nothing later
            at = i if c == " " else at
            continue
        if c == " ":
            late = line[i - 1] in "+-=*/<>" and line[i - 2 : i - 1] == " "
            cost = depth + (0.75 if late else _EASY.get(line[i + 1 : i + 3], 0.1 if line[i - 1] in ",;" else 0.25))
        elif c in "*/" and "*" not in (line[i - 1], line[i + 1 : i + 2]):
            cost = depth + 0.5
        else:
            continue
        if (cost, -i) < best:
            best, at = (cost, -i), i
    return at


def align(table: list[list[str]], left: int = 1, head: bool = True) -> list[str]:
    """A table as lines of at most 80 columns: `left` columns to the left, the others to the right, a rule below the
    head. Long texts are wrapped; columns that have no room beside the others follow below, beside the left ones, or
    the first one."""
    widths = _widths(table, left, head)
    first = left or int(len(widths) > 1 and widths[0] + 2 + max(widths[1:]) <= _ROOM)
    beside = sum(w + 2 for w in widths[:first])
    blocks: list[list[int]] = [[]]
    for c in range(first, len(widths)):
        if blocks[-1] and beside + sum(widths[b] + 2 for b in blocks[-1]) + widths[c] > _ROOM:
            blocks.append([])
        blocks[-1].append(c)
    lines: list[str] = []
    for block in blocks:
        columns = [*range(first), *block]
        sizes = [widths[c] for c in columns]
        rows = [_row([r[c] for c in columns], sizes, left) for r in table]
        rule = ["  " + "  ".join("-" * w for w in sizes)] if head else []
        lines += [*([""] if lines else []), *rows[0], *rule, *(line for row in rows[1:] for line in row)]
    return lines


def _widths(table: list[list[str]], left: int, head: bool) -> list[int]:
    """The widths of columns: those of numbers as they are, those of texts as there is room beside them."""
    widths = [max((len(r[c]) for r in table), default=0) for c in range(len(table[0]))]
    words = [
        [len(word) for r in table[: 1 if c >= left else None] for word in r[c].split()] for c in range(len(widths))
    ]
    if head and sum(w + 2 for w in widths) - 2 > _ROOM:  # heads of numbers are wrapped where numbers are short
        for c in range(left, len(widths)):
            body = max((len(r[c]) for r in table[1:]), default=0)
            widths[c] = max(body, *map(len, fold(table[0][c], max(_LEAST, body, *words[c], 0), "")))
    numbers = sum(w + 2 for w in widths[left:])
    least = [max(1, min(max(_LEAST, *words[c], 0), _ROOM // (left + 1) - 2)) for c in range(left)]
    _narrow(widths, least, _ROOM + 2 - (numbers if numbers <= _ROOM - sum(least) - 2 * left else _ROOM // 2))
    beside = sum(w + 2 for w in widths[:left])
    return [w if c < left else min(w, max(_ROOM - beside, 1)) for c, w in enumerate(widths)]


def _narrow(widths: list[int], least: list[int], room: int) -> None:
    """Take columns from the widest of the first ones, each down to its least width, until they fit."""
    while sum(w + 2 for w in widths[: len(least)]) > room:
        wide = [c for c, w in enumerate(least) if widths[c] > w]
        if not wide:
            return
        widths[max(wide, key=widths.__getitem__)] -= 1


def _row(cells: list[str], widths: list[int], left: int) -> list[str]:
    """A row as lines."""
    folded = [fold(cell, w, "") for cell, w in zip(cells, widths, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(w) if c < left else cell.rjust(w) for c, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in zip_longest(*folded, fillvalue="")
    ]


def as_text(report: Report) -> str:
    """The report as lines of at most 80 columns."""
    return "\n".join(line for part in report for line in _lines(part))


def _lines(part: str | Table) -> list[str]:
    if isinstance(part, Table):
        rows = [[printable(cell) for cell in row] for row in part.rows]
        title = fold(printable(part.title)) if part.title else []
        return [*title, *(align(rows, part.left, part.head) if rows else [])]
    return folded(printable(part, keep="\n")).split("\n")
