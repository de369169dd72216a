"""Every notebook under notebooks/ runs from top to bottom and is stored clean."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
PATHS = re.compile(r"(?<![\w.:/])/(home|root|tmp|work|usr|opt|var|mnt|Users)/|[A-Z]:\\\\|file://")


def each(test):
    return pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)(test)


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
    """The tests below have something to run."""
    assert NOTEBOOKS


@each
def test_notebook_runs(path, tmp_path, monkeypatch):
    """A fresh kernel runs all cells without an error or a warning, and leaves no file behind."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert not unwanted(notebook)
    assert not list(tmp_path.iterdir())


@each
def test_notebook_is_stored_as_it_ran(path):
    """The stored notebook is valid, was executed once from top to bottom, by the kernel `python3`."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.metadata.kernelspec.name == "python3"
    assert not unwanted(notebook)


@each
def test_notebook_is_small_and_names_no_place(path):
    """The stored notebook stays under 600 kB and holds no path of anyone's machine."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 600_000
    assert not PATHS.search(text)
