"""Every notebook under notebooks/ runs from top to bottom and is stored as it ran; studies hold what they claim."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from minidyn.common.reports import as_text
from minidyn.studies.claims import table_of
from minidyn.studies.notebooks import claims_of, list_studies, run_notebook, to_the_end
from minidyn.studies.page import page_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
STUDIES = sorted((ROOT / "notebooks").glob("*.ipynb"))
TUTORIALS = sorted((ROOT / "notebooks" / "tutorials").glob("*.ipynb"))
PATHS = re.compile(r"(?<![\w.:/])/(home|root|tmp|work|usr|opt|var|mnt|Users)/|[A-Z]:\\\\|file://")


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def outputs(notebook):
    """(cell number, output) of every code cell."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            yield number, output


def unwanted(notebook):
    """Errors and what was written to stderr, warnings among it."""
    return [
        (number, output.get("ename", output.get("text")))
        for number, output in outputs(notebook)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def test_there_are_notebooks():
    """The tests below have something to run; what is installed is what is here."""
    assert TUTORIALS and [path.stem for path in STUDIES] == list_studies()


@each(TUTORIALS)
def test_tutorial_runs(path, tmp_path, monkeypatch):
    """A fresh kernel runs all cells without an error or a warning, and leaves no file behind."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert not unwanted(notebook)
    assert not list(tmp_path.iterdir())


@each(STUDIES)
def test_study_runs_quickly(path, tmp_path):
    """At quick sizes a study runs to its end without a warning, and no claim fails."""
    outcome = to_the_end(run_notebook(path, quick=True, results=tmp_path))
    notebook = nbformat.read(tmp_path / path.stem / path.name, as_version=4)
    assert not outcome.broken and not unwanted(notebook)
    assert outcome.name == path.stem
    assert not [as_text([table_of([claim])]) for claim in outcome.claims if claim.verdict == "fails"]


@each(STUDIES)
def test_stored_study_holds(path):
    """The report in results/ is one of full size, all claims hold, the stored notebook shows just them, and the folder
    has the files that it names and no other."""
    folder = RESULTS / path.stem
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    claims = claims_of(folder / "report.json")
    assert not report["quick"] and not [as_text([table_of([c])]) for c in claims if c.verdict != "holds"]
    *_, (_, last) = outputs(nbformat.read(path, as_version=4))
    assert as_text([table_of(claims)]) in last["data"]["text/plain"]
    named = {f"{figure}{end}" for figure in report["figures"] for end in (".png", ".svg")}
    there = {file.name for file in folder.iterdir() if file.suffix != ".ipynb"}
    assert there == named | {"report.json"} | {report["data"]} - {None}
    assert len(report["figures"]) >= 1
    assert all(file.stat().st_size < 500_000 for file in folder.iterdir() if file.suffix != ".ipynb")


def test_the_page_says_what_the_reports_say():
    """results/README.md is what the reports make of it."""
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == page_of(RESULTS)


@each([*STUDIES, *TUTORIALS])
def test_notebook_is_stored_as_it_ran(path):
    """The stored notebook is valid, was executed once from top to bottom, by the kernel `python3`."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.metadata.kernelspec.name == "python3"
    assert not unwanted(notebook)


@each([*STUDIES, *TUTORIALS])
def test_notebook_is_small_and_names_no_place(path):
    """The stored notebook stays under 600 kB, names no place on anyone's machine, and has a page or two of code."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 600_000
    assert not PATHS.search(text)
    code = [cell.source for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
    assert sum(len(source.splitlines()) for source in code) <= 150
