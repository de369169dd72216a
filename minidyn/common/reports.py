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

    def plot(self, path: Any = None, **options: Any) -> Any:
        """The picture, a matplotlib figure; written to `path` where one is given (the extension names the format).

        Of a run: parameters (up to six) and observables over the steps, or those in `quantities`. Of a comparison:
        every quantity over the steps with bands, and for two parameters the landscape and the minima (of `loss`). Of a
        scaling study: differences over lr on logarithmic axes, with error bars and fits. Of a stability diagram: a
        panel for each setting.
        """
        from minidyn import figures

        return figures.plot(self, path=path, **options)


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
