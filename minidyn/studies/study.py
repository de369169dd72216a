"""A study: claims, figures and data of one notebook, and the report that they become."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidyn.common.errors import ArchiveError, InputError, advice
from minidyn.common.intake import flag, shown
from minidyn.common.reports import Report, Reported
from minidyn.common.wholefiles import write_whole
from minidyn.compiler.llvm import instruction_set
from minidyn.simulate.progress import in_notebook
from minidyn.simulate.run import provenance
from minidyn.studies.claims import FAILS, HOLDS, UNDECIDED, Claim, claim_of, table_of

if TYPE_CHECKING:
    import xarray as xr

QUICK, RESULTS = "MINIDYN_QUICK", "MINIDYN_RESULTS"  # what `minidyn reproduce` tells a notebook
REPORT, DATA = "report.json", "data.h5"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PACKAGES = ("minidyn", "numpy", "scipy", "sympy", "llvmlite")
_DPI = 130


class Study(Reported):
    """What a notebook states, measures and records; `md.study` makes it.

    name : that of the notebook and of the folder of its results.  quick : whether sizes are to be small, so that all
    is done in half a minute.  folder : where results go.  claims : those stated so far.  figures : captions of
    figures by their names.
    """

    def __init__(self, name: str, quick: bool, folder: Path):
        self.name, self.quick, self.folder = name, quick, folder
        self.claims: list[Claim] = []
        self.figures: dict[str, str] = {}
        self._data: dict[str, xr.Dataset] = {}
        self._began: float | None = time.perf_counter()

    def claim(
        self,
        name: str,
        measured: Any,
        error: Any,
        expected: Any,
        source: str,
        *,
        within: Any = None,
        published: Any = None,
    ) -> Claim:
        """State that what was measured lies in a range, check it, and keep it for the report.

        name : what is measured, a short phrase that no other claim of the study has.  measured, error : a number and
        its standard error, 0 where nothing is random.  expected : a range (low, high), one end None where it is open,
        or a number with `within`, how far from it the claim still holds.  source : author, year, equation, or
        "minidyn".  published : what the source states, if that is outside of the range: the claim then says that it
        does not hold.  A claim holds where three standard errors to both sides of what was measured lie in the range,
        so the error must be small beside it.
        """
        self._open()
        made = claim_of(name, measured, error, expected, source, within, published)
        if any(made.name == other.name for other in self.claims):
            raise InputError(f"the study has a claim called {shown(made.name)} already.")
        self.claims.append(made)
        return made

    def figure(self, figure: Any, name: str, caption: str) -> None:
        """Keep a matplotlib figure as `name.png` and `name.svg`, and show it where this is a notebook.

        caption : what is to be seen on it, a sentence.
        """
        self._open()
        if not hasattr(figure, "savefig"):
            raise InputError(f"figure is a matplotlib figure, such as result.plot() returns, not {shown(figure)}.")
        if not isinstance(caption, str) or not caption.strip():
            raise InputError("caption says in a sentence what is to be seen on the figure.")
        name = _name(name, "figure")
        if name in self.figures:
            raise InputError(f"the study has a figure called {shown(name)} already.")
        self._write(f"{name}.png", lambda file: figure.savefig(file, format="png", dpi=_DPI))
        with import_module("matplotlib").rc_context({"svg.hashsalt": self.name}):  # the same picture, the same file
            drawn = {"format": "svg", "metadata": {"Date": None}, "dpi": _DPI}
            self._write(f"{name}.svg", lambda file: figure.savefig(file, **drawn))
        self.figures[name] = caption.strip()
        _show(figure)

    def keep(self, **results: Any) -> None:
        """Keep numbers in the study's HDF5 file.

        results : name=what, a group of the file each: an array, a run, comparison or sweep, or an xarray dataset. What
        has many paths is thinned or averaged before: the file is small, and goes with the report.
        """
        self._open()
        for name, given in results.items():
            if name in self._data:
                raise InputError(f"the study keeps something called {shown(name)} already.")
            self._data[name] = _dataset(name, given)

    def close(self) -> Study:
        """Write the data and the report; returns the study, which is shown as the table of its claims."""
        self._open()
        if not self.claims:
            raise InputError("the study has stated no claim; use study.claim(...) before study.close().")
        if self._data:
            self._write(DATA, self._fill)
        text = json.dumps(self.report(), indent=1, allow_nan=False) + "\n"
        self._write(REPORT, lambda file: file.write(text.encode()))
        self._began = None
        return self

    def report(self) -> dict[str, Any]:
        """What the report says: claims with their verdicts, figures, versions, and on what it was measured."""
        versions = provenance()
        took = 0.0 if self._began is None else time.perf_counter() - self._began
        return {
            "study": self.name,
            "quick": self.quick,
            "verdict": verdict_of(self.claims),
            "claims": [claim.as_dict() for claim in self.claims],
            "figures": self.figures,
            "data": DATA if self._data else None,
            "seconds": round(took, 1),
            "machine": {"processor": instruction_set(), "cores": os.cpu_count()},
            "versions": {name: versions[name] for name in _PACKAGES},
        }

    def _open(self) -> None:
        if self._began is None:
            raise InputError(f"the study {self.name} is closed; open it anew with md.study({self.name!r}).")

    def _fill(self, file: Any) -> None:
        """All data as one file."""
        memory = BytesIO()
        for place, (name, data) in enumerate(self._data.items()):
            data.to_netcdf(memory, engine="h5netcdf", group=name, mode="a" if place else "w")
        file.write(memory.getbuffer())

    def _write(self, name: str, fill: Callable[[Any], Any]) -> None:
        write_result(self.folder / name, fill)

    def _report(self) -> Report:
        sizes = ", quick sizes" if self.quick else ""
        return [f"{self.name}{sizes}: {summary_of(self.claims)}", table_of(self.claims)]


def study(name: str, *, quick: bool | None = None, folder: Any = None) -> Study:
    """Open a study: what a notebook states, measures and records under this name.

    name : lower-case words joined by hyphens.  quick : whether sizes are to be small; folder : where the folder of the
    study's results goes. By default both are what `minidyn reproduce` says, else full size and `results`.

    >>> import tempfile, sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> descent = md.Map(md.Loss(3 * x**2 / 2, [x]), md.GD(0.1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = md.study("contraction", folder=folder)
    ...     factor = descent.step([1.0], noise=False)[0]
    ...     _ = study.claim("factor of a step", factor, 0, 0.7, "1 - lr a, a = 3", within=1e-12)
    ...     study.close().claims[0].verdict
    'holds'
    """
    given = os.environ.get(QUICK, "0") == "1" if quick is None else flag(quick, "quick")
    name = _name(name, "study")
    place = Path(os.environ.get(RESULTS, "results") if folder is None else folder)
    return Study(name, given, place / name)


def write_result(target: Path, fill: Callable[[Any], Any]) -> None:
    """Write a file of the results, whole or not at all; ArchiveError where that cannot be."""
    try:
        write_whole(target, fill, sync=False)
    except OSError as error:
        raise ArchiveError(f"cannot write {target}: {advice(error)}.") from error


def verdict_of(claims: list[Claim]) -> str:
    """`holds` if all do, `fails` if one does, else `undecided`."""
    found = {claim.verdict for claim in claims}
    return FAILS if FAILS in found else HOLDS if found == {HOLDS} else UNDECIDED


def summary_of(claims: list[Claim]) -> str:
    """How many claims hold.

    >>> summary_of([])
    '0 of 0 claims hold'
    """
    held = sum(claim.verdict == HOLDS for claim in claims)
    return f"{held} of {len(claims)} claims hold"


def _name(given: Any, what: str) -> str:
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise InputError(f"the name of a {what} is lower-case words joined by hyphens, not {shown(given)}.")
    return given


def _dataset(name: str, given: Any) -> xr.Dataset:
    """Numbers with labels."""
    xarray = import_module("xarray")
    if isinstance(given, xarray.DataArray):
        given = given.to_dataset(name=given.name or name)
    made = given.to_xarray() if hasattr(given, "to_xarray") and not isinstance(given, xarray.Dataset) else given
    if isinstance(made, xarray.Dataset):
        return made
    try:
        values = np.asarray(made, float)
    except (TypeError, ValueError):
        raise InputError(
            f"study.keep takes numbers, results of minidyn or xarray datasets, not {shown(given)}."
        ) from None
    return xarray.Dataset({name: ([f"dim_{axis}" for axis in range(values.ndim)], values)})


def _show(figure: Any) -> None:
    """Show a figure in a notebook, once; elsewhere nothing is shown. One of pyplot's is closed."""
    if in_notebook():
        import_module("IPython.display").display(figure)
    import_module("matplotlib.pyplot").close(figure)
