"""Progress: nested bars on a terminal, lines in the log, silence by default."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import rich.progress
import sympy as sp
from nbclient import NotebookClient

import minidyn as md
from minidyn.simulate import progress

x = sp.Symbol("x")
NOISY = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), md.GaussianNoise(0.3))
QUARTIC = md.Map(md.Loss(x**4 / 4, [x]), md.GD(1.0))


@pytest.fixture
def slow(monkeypatch):
    """Every look at the clock finds two seconds gone."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            self.now += 2.0
            return self.now

    monkeypatch.setattr(progress, "time", Clock())


@pytest.fixture
def terminal(monkeypatch):
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)


def test_a_run_shows_speed_paths_and_time_left(slow, terminal, capfd):
    """The bar has steps per second, how many paths are alive and the time left."""
    md.simulate(QUARTIC, [[0.5], [2.0], [0.4]], 40, paths=3, save_every=4, progress=True)
    shown = capfd.readouterr().err
    assert "steps/s" in shown and "path-steps/s" in shown and "2 of 3 paths" in shown and "/40" in shown


def test_a_study_shows_its_runs_below(slow, terminal, monkeypatch, capfd):
    """A study's bar says which learning rate is under way, and the runs have their bars below it."""
    update, texts = rich.progress.Progress.update, []

    def noting(self, task, **fields):
        texts.append(f"{len(self.tasks)}: {self.tasks[-1].description}: {fields['text']}")
        update(self, task, **fields)

    monkeypatch.setattr(rich.progress.Progress, "update", noting)
    md.scaling_study(NOISY, md.GradientFlow, lrs=[0.1, 0.05], w0=[1.0], time=4.0, paths=65, rng=0, progress=True)
    shown = capfd.readouterr().err
    assert "scaling study" in shown and not progress._open.bars
    assert any("lr 0.05, 2 of 2" in text for text in texts)
    assert any(text.startswith("3: Map: ") and "65 of 65 paths" in text for text in texts)
    assert not progress._open.bars


def test_bars_fit_a_terminal_of_80_columns(slow, terminal, monkeypatch, capfd):
    """Of a run within a study, with many paths and steps, nothing is cut, and each bar is one line of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    update = rich.progress.Progress.update
    monkeypatch.setattr(
        rich.progress.Progress, "update", lambda self, task, **fields: [update(self, task, **fields), self.refresh()]
    )
    md.scaling_study(
        NOISY, md.StochasticModifiedFlow, lrs=[0.1, 0.05], w0=[1.0], time=100.0, paths=1025, rng=0, progress=True
    )
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().err))
    assert not [line for line in lines if line.strip() and (len(line) > 80 or "…" in line or "━" not in line)]
    assert any("1,025 of 1,025 paths" in line for line in lines) and any("lr 0.05, 2 of 2" in line for line in lines)


class Listening(NotebookClient):
    """Keeps what the kernel displays while it runs."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] in ("display_data", "update_display_data", "stream"):
            self.heard = [*getattr(self, "heard", []), msg]
        return super().process_message(msg, cell, cell_index)


def test_a_notebook_shows_one_line(monkeypatch):
    """In a notebook bars are drawn anew in their place, without widgets or warnings; at the end one line says what was
    done, also of a study and of a run that somebody ends; `progress=False` and what is short show nothing."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    cells = [
        """import sys, sympy as sp, minidyn as md
from minidyn.simulate import progress
sys.modules["ipywidgets"] = None
progress._PATIENCE = progress._REDRAWN = 0.0
x = sp.Symbol("x")
noisy = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), md.GaussianNoise(0.3))
md.simulate(noisy, [1.0], 40, paths=3, save_every=4, rng=0);""",
        "md.compare(noisy, md.GradientFlow(noisy), w0=[1.0], steps=40, paths=3, rng=0);",
        """def stop(w):
    stop.calls += 1
    if stop.calls == 4:
        raise KeyboardInterrupt
    return w[:, 0]
stop.calls = 0
md.simulate(noisy, [1.0], 40, save_every=4, observe=stop, rng=0);""",
        "md.simulate(noisy, [1.0], 40, rng=0, progress=False); progress._PATIENCE = 60; md.simulate(noisy, [1.0], 9);",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = Listening(notebook, timeout=120, kernel_name="python3")
    client.execute()
    assert [len(cell.outputs) for cell in notebook.cells] == [1, 1, 1, 0]
    shown = [cell.outputs[0].data["text/plain"] for cell in notebook.cells[:3]]
    done = ["Map: 40 steps in", "compare: 2 runs in", "Map: 12 of 40 steps in"]
    for line, start in zip(shown, done, strict=True):
        assert re.fullmatch(rf"{start} [\d.e-]+ s", line), line
    heard = [msg["content"]["data"] for msg in client.heard]
    assert len(heard) > 10 and any("<progress" in data.get("text/html", "") for data in heard)
    assert any("3 of 3 paths" in data["text/plain"] for data in heard)


def test_a_pipe_shows_nothing(slow, capfd):
    """Where stderr is no terminal nothing is written, however long it takes."""
    md.simulate(NOISY, [1.0], 40, paths=3, save_every=4, rng=0)
    assert capfd.readouterr() == ("", "")


def test_log_has_the_same_on_demand(slow, monkeypatch, caplog):
    """At level INFO the logger `minidyn` gets speed, paths and time left, and one line at the end."""
    monkeypatch.setattr(progress, "_LOGGED", 1.0)
    with caplog.at_level(logging.INFO, "minidyn"):
        md.simulate(NOISY, [1.0], 40, paths=3, save_every=4, rng=0)
    lines = [record.getMessage() for record in caplog.records]
    assert any("of 40 steps" in line and "3 of 3 paths" in line and "s left" in line for line in lines)
    assert lines[-1].startswith("Map: 40 steps of 3 paths in")


def test_python_is_quiet(capfd):
    """Without a logging set-up nothing is printed, not even for an interrupted run."""
    code = """
import sympy as sp, minidyn as md
x = sp.Symbol("x")
def stop(w):
    stop.calls += 1
    if stop.calls == 3:
        raise KeyboardInterrupt
    return w[:, 0]
stop.calls = 0
md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.1)), [1.0], 40, observe=stop)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
