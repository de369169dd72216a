"""Studies: claims are judged by their errors, reports say what was claimed, notebooks run and are judged."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import minidyn as md
from minidyn.cli import call
from minidyn.studies.claims import claim_in, claim_of
from minidyn.studies.notebooks import claims_of

numbers = st.floats(-1e3, 1e3)
ends = st.none() | numbers


# -- claims --------------------------------------------------------------------------------------------


@given(measured=numbers, error=st.floats(0, 10), low=ends, high=ends, published=ends)
def test_a_claim_holds_where_three_errors_to_both_sides_do(measured, error, low, high, published):
    """All of measured - 3 errors ... measured + 3 errors in the range: holds; none: fails; else undecided, as it is if
    those hold what was published and is denied."""
    if (low is None and high is None) or (None not in (low, high) and low > high):
        return
    inside = (low is None or published is None or low <= published) and (
        high is None or published is None or published <= high
    )
    published = None if inside else published
    claim = claim_of("a", measured, error, (low, high), "b", published=published)
    some = np.linspace(measured - 3 * error, measured + 3 * error, 301)
    held = [(low is None or low <= value) and (high is None or value <= high) for value in (some[0], some[-1])]
    crossed = low is not None and high is not None and some[0] <= high and some[-1] >= low
    if all(held):
        near = published is not None and some[0] <= published <= some[-1]
        assert claim.verdict == ("undecided" if near else "holds")
    elif any(held) or crossed:
        assert claim.verdict == "undecided"
    else:
        assert claim.verdict == "fails"
    assert claim_in(json.loads(json.dumps(claim.as_dict(), allow_nan=False))) == claim


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_no_number_fails(value):
    """What is no number fails, and is null in a report."""
    claim = claim_of("a", value, 0, (0, None), "b")
    assert claim.verdict == "fails" and claim.as_dict()["measured"] is None


@pytest.mark.parametrize(
    "expected, within, words",
    [
        (1, 0.1, "1 ± 0.1"), (0, 1e-12, "0 ± 1e-12"), (1.7476, 5e-5, "1.7476 ± 5e-5"), ((0.9, 1.1), None, "1 ± 0.1"),
        ((0.9, 1.15), None, "0.9 to 1.15"), ((None, 2), None, "<= 2"), ((0.5, None), None, ">= 0.5"),
        ((2, 2), None, "2"),
        (3, 0, "3"), ((-1.5, 2), None, "-1.5 to 2"), ((1 / 3, 0.5), None, "0.3333 to 0.5"),
    ],
)  # fmt: skip
def test_ranges_in_words(expected, within, words):
    """A range is said as it was given, in few digits."""
    assert claim_of("a", 1, 0, expected, "b", within=within).expected() == words


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"name": ""}, "name of a claim is a short text, not ''"),
        ({"source": None}, "source of a claim is a short text, not None"),
        ({"measured": "x"}, "measured"),
        ({"measured": [1, 2]}, "measured"),
        ({"error": -1}, "a standard error is 0 or more"),
        ({"error": math.nan}, "error"),
        ({"expected": 1}, "needs within="),
        ({"expected": 1, "within": -1}, "within is -1"),
        ({"within": 0.1}, "goes with a number"),
        ({"expected": (None, None)}, "a number or a range"),
        ({"expected": (1, 2, 3)}, "a number or a range"),
        ({"expected": (2, 1)}, "the low end of a range comes first"),
        ({"expected": "one", "within": 1}, "expected"),
        ({"published": 1.0}, "it is given where it does not hold"),
    ],
)
def test_claims_that_say_nothing_are_refused(wrong, says, tmp_path):
    """One sentence says what is wrong with a claim, and the study goes on without it."""
    study = md.study("refusals", folder=tmp_path)
    good = {"name": "a", "measured": 1, "error": 0, "expected": (0.5, 1.5), "source": "b"}
    with pytest.raises(md.InputError, match=says):
        study.claim(**(good | wrong))
    assert not study.claims
    study.claim(**good)
    with pytest.raises(md.InputError, match="already"):
        study.claim(**good)


# -- studies -------------------------------------------------------------------------------------------


def made(folder, quick=False):
    """A study with a claim, two figures and data of each kind."""
    study = md.study("of-all-kinds", folder=folder, quick=quick)
    run = md.load_model("valley").run(steps=20, paths=4)
    study.claim("steps", run.errors[-1].step, 0, (1, 20), "minidyn")
    study.figure(run.plot(), "two-lines", "Two lines.")
    figure, ax = plt.subplots()
    ax.plot([1, 3, 2])
    study.figure(figure, "three", "Three points.")
    assert not plt.fignum_exists(figure.number)
    study.keep(run=run.runs["SGD"], both=run, table=[[1, 2, 3]], one=2.5, labelled=xr.DataArray([1.0], dims="k"))
    return study.close()


def test_a_study_writes_what_it_found(tmp_path):
    """Report, figures and data lie in the study's folder, can be read back, and are the same bytes when made again, but
    for the seconds."""
    study = made(tmp_path / "a")
    folder = tmp_path / "a" / "of-all-kinds"
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == "holds" and report["figures"] == {"two-lines": "Two lines.", "three": "Three points."}
    assert claims_of(folder / "report.json") == study.claims and not report["quick"]
    assert {path.name for path in folder.iterdir()} == {
        "report.json", "data.h5", "two-lines.png", "two-lines.svg", "three.png", "three.svg",
    }  # fmt: skip
    for group, name, shape in (("table", "table", (1, 3)), ("one", "one", ()), ("run", "w", (4, 2, 2))):
        with xr.open_dataset(folder / "data.h5", engine="h5netcdf", group=group) as data:
            assert data[name].shape == shape
    made(tmp_path / "b")
    for name in ("two-lines.svg", "two-lines.png", "three.svg"):
        assert (folder / name).read_bytes() == (tmp_path / "b" / "of-all-kinds" / name).read_bytes()


def test_a_closed_study_takes_nothing(tmp_path):
    """What comes after `close`, and closing without a claim, is refused."""
    study = made(tmp_path, quick=True)
    assert study.quick and "quick sizes" in study.summary()
    for late in (study.close, lambda: study.keep(a=1), lambda: study.claim("a", 1, 0, 1, "b", within=0)):
        with pytest.raises(md.InputError, match="is closed"):
            late()
    with pytest.raises(md.InputError, match="no claim"):
        md.study("empty", folder=tmp_path).close()
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", ["", "Two words", "a/b", "../up", "under_score", 3, None, "-a"])
def test_names_that_are_no_folders_are_refused(name, tmp_path):
    """Names of studies and figures are words joined by hyphens."""
    with pytest.raises(md.InputError, match="joined by hyphens"):
        md.study(name, folder=tmp_path)
    with pytest.raises(md.InputError, match="joined by hyphens"):
        md.study("a", folder=tmp_path).figure(plt.figure(), name, "A figure.")
    plt.close("all")


def test_what_cannot_be_kept_is_refused(tmp_path):
    """Figures without a caption, twice the same name, things that hold no numbers."""
    study = md.study("a", folder=tmp_path)
    for call_, says in (
        (lambda: study.figure("fig.png", "a", "A."), "a matplotlib figure"),
        (lambda: study.figure(plt.figure(), "a", " "), "caption"),
        (lambda: study.keep(a="text"), "takes numbers"),
        (lambda: study.keep(a=[1, "b"]), "takes numbers"),
        (lambda: [study.keep(b=1), study.keep(b=2)], "already"),
    ):
        with pytest.raises(md.InputError, match=says):
            call_()
    plt.close("all")
    (tmp_path / "file").write_text("")
    blocked = md.study("a", folder=tmp_path / "file")
    blocked.claim("a", 1, 0, 1, "b", within=0)
    with pytest.raises(md.ArchiveError, match="cannot write"):
        blocked.close()


# -- notebooks -----------------------------------------------------------------------------------------

OPENED = 'import minidyn as md\nstudy = md.study("tried")'
CLAIMED = 'study.claim("a", {}, 0.1 if study.quick else 0.01, 1, "minidyn", within=0.2)'


def notebook(path, *cells):
    """A notebook file with these cells."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path.write_text(nbformat.writes(made))
    return str(path)


@pytest.mark.parametrize(
    "cells, code, says",
    [
        ([OPENED, CLAIMED.format(1), "study.close()"], 0, "1 of 1 claims hold"),
        ([OPENED, CLAIMED.format(3), "study.close()"], 1, "not all is as claimed: tried (fails)"),
        ([OPENED, CLAIMED.format(1), "1 / 0", "study.close()"], 1, "tried broke: ZeroDivisionError: division by zero"),
        ([OPENED, CLAIMED.format(1)], 1, "tried broke: it ended without study.close()"),
        ([OPENED, "import os; os.kill(os.getpid(), 9)"], 1, "tried broke: its kernel died"),
        (["1 + 1"], 2, "opens 0 studies"),
        ([OPENED, OPENED], 2, "opens 2 studies"),
    ],
)
def test_a_notebook_is_run_and_judged(cells, code, says, tmp_path, monkeypatch, capsys):
    """`minidyn reproduce FILE` says what holds and why a notebook broke; the file stays as it was."""
    monkeypatch.chdir(tmp_path)
    path = notebook(tmp_path / "a.ipynb", *cells)
    before = (tmp_path / "a.ipynb").read_text()
    assert call(["reproduce", path]) == code
    assert says in " ".join("".join(capsys.readouterr()).split())
    assert (tmp_path / "a.ipynb").read_text() == before
    if code < 2:
        shown = nbformat.read(tmp_path / "results" / "tried" / "tried.ipynb", 4)
        assert shown.cells[0].execution_count == 1


def test_a_report_of_before_is_not_taken_for_this_one(tmp_path, monkeypatch, capsys):
    """A notebook that ends without `study.close()` is told of where an earlier run has left its report, which stays."""
    monkeypatch.chdir(tmp_path)
    assert call(["reproduce", notebook(tmp_path / "a.ipynb", OPENED, CLAIMED.format(1), "study.close()")]) == 0
    kept = (tmp_path / "results" / "tried" / "report.json").read_bytes()
    assert call(["reproduce", notebook(tmp_path / "a.ipynb", OPENED, CLAIMED.format(1))]) == 1
    assert "it ended without study.close()" in capsys.readouterr().out
    assert (tmp_path / "results" / "tried" / "report.json").read_bytes() == kept


def test_quick_sizes_may_leave_claims_open(tmp_path, monkeypatch, capsys):
    """With --quick a claim may be undecided, and results go elsewhere; --store keeps the notebook as it ran."""
    monkeypatch.chdir(tmp_path)
    path = notebook(tmp_path / "a.ipynb", OPENED, CLAIMED.format(1), "study.close()")
    assert call(["reproduce", path, "--quick", "--store"]) == 0
    assert "0 of 1 claims hold" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    (claim,) = claims_of(tmp_path / "results-quick" / "tried" / "report.json")
    assert claim.verdict == "undecided"
    assert [cell.execution_count for cell in nbformat.read(path, 4).cells] == [1, 2, 3]


def test_several_notebooks_side_by_side(tmp_path, capsys):
    """Two at a time, a row each, and below what does not hold."""
    paths = [
        notebook(tmp_path / f"{n}.ipynb", OPENED.replace("tried", n), CLAIMED.format(value), "study.close()")
        for n, value in (("one", 1), ("two", 2))
    ]
    assert call(["reproduce", *paths, "--jobs", "2", "--out", str(tmp_path / "made")]) == 1
    out, err = capsys.readouterr()
    assert (
        "1 of 2 claims hold; wrote" in " ".join(out.split())
        and "fails" in out
        and "two (fails)" in err
        and "2 of 2" in err
    )
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"one", "two", "README.md"}
    page = (tmp_path / "made" / "README.md").read_text()
    assert "1 of 2 claims hold" in page and "## one" in page and "| a | minidyn | 2 ± 0.01 | 1 ± 0.2 | fails |" in page


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["unknown"], "there is no study called 'unknown'"),
        (["--all", "x"], "not both"),
        (["a.txt"], "there is no study called 'a.txt'"),
        (["bad.ipynb"], "is no notebook"),
        (["folder.ipynb"], "there is no study called"),
    ],
)
def test_what_is_no_study_is_refused(arguments, says, tmp_path, monkeypatch, capsys):
    """One sentence, exit code 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.ipynb").write_text("{")
    (tmp_path / "folder.ipynb").mkdir()
    assert call(["reproduce", *arguments]) == 2
    out, err = capsys.readouterr()
    assert says in err and not out and err.count("\n") == 1 and not (tmp_path / "results").exists()


def test_without_a_name_studies_are_listed(capsys):
    """`minidyn reproduce` says which studies there are."""
    assert call(["reproduce"]) == 0
    assert "minidyn reproduce STUDY" in capsys.readouterr().out


def test_ctrl_c_ends_kernels_too(tmp_path):
    """An interrupted `minidyn reproduce` says so, ends with 130 within seconds, and leaves no kernel behind."""
    marker = tmp_path / "kernel"
    waits = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    path = notebook(tmp_path / "a.ipynb", OPENED, waits)
    code = "import sys; from minidyn.cli import main; sys.argv[1:] = ['reproduce', sys.argv[1]]; main()"
    environment = os.environ | {"PYTHONPATH": str(Path(md.__file__).parents[1])}
    child = subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not (marker.exists() and marker.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "interrupted" in err and "Traceback" not in err
    kernel = int(marker.read_text())
    while time.monotonic() < until:
        try:
            os.kill(kernel, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the kernel is left")
