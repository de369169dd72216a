"""Reports: lines and tables, as text and as HTML, so that whatever one shows the other shows."""

from dataclasses import dataclass
from typing import Any

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import printable


@dataclass(frozen=True)
class Table:
    """Rows of cells; `left` columns stand to the left, the others to the right.

    The first row is the head; without one (`head=False`) a row's first cell names the others.  title : a line above.
    """

    rows: list[list[str]]
    left: int = 1
    title: str = ""
    head: bool = True


Report = list[str | Table]


class Drawn(ByValue):
    """What has a picture. The rooms that draw and keep results stand above: they are opened here, when asked for."""

    def plot(self, path: Any = None, *, panels: Any = None, size: Any = None, ax: Any = None, **options: Any) -> Any:
        """The picture, a matplotlib figure: `plot().show()` opens a window, Jupyter shows it, `path` writes it.

        path : a file to write; its extension names the format (png, pdf, svg; png where there is none).
        panels : what to draw, a name or several, instead of the first six. Of a run: parameters and observables. Of a
            comparison: those, and "landscape". Of a scaling study: quantities. Of a stability diagram: settings, such
            as "lr 0.1, batch 4". Of `edge`: "sharpness", "amplitude". Of `escape`: "distance", "destinations". Of a
            loss: the parameter or the two parameters that vary.
        size : width and height in inches, such as (8, 5).
        ax : matplotlib axes into which one panel is drawn, with its legend, instead of a figure of its own.
        options : of a comparison `loss`, whose level sets and minima are drawn (its own by default); of a loss `at`,
            the point through which a slice goes, and `window`, how far the picture goes to each side of it.

        Of a run: parameters and observables over the steps. Of a comparison: every quantity over the steps with bands,
        the differences below, and for two parameters the landscape and the minima. Of a scaling study: differences over
        lr on logarithmic axes, with error bars and fits. Of a stability diagram: a panel for each setting. Of `edge`:
        sharpness and oscillation over the steps. Of `escape`: the distance from the minimum, and where paths went. Of a
        loss: a curve, or level sets and minima.
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


class Reported(Result):
    """A result that is shown as its report."""

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


def align(table: list[list[str]], left: int = 1) -> list[str]:
    """A table as lines: `left` columns to the left, the others to the right, a rule below the head."""
    widths = [max(len(r[c]) for r in table) for c in range(len(table[0]))]
    lines = []
    for r in table:
        sized = list(zip(r, widths, strict=True))
        cells = [cell.ljust(w) for cell, w in sized[:left]] + [cell.rjust(w) for cell, w in sized[left:]]
        lines.append("  " + "  ".join(cells).rstrip())
    return [lines[0], "  " + "  ".join("-" * w for w in widths), *lines[1:]]


def as_text(report: Report) -> str:
    """The report as lines."""
    parts = [align(part.rows, part.left) if isinstance(part, Table) else [part] for part in report]
    return printable("\n".join(line for lines in parts for line in lines), keep="\n")
