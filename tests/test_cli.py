"""The command line: what it prints and writes, its exit codes, and errors of one sentence."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import minidyn as md
from minidyn import cli

FIRST_TIME = "compiling for the first time ...\n"  # on stderr, where the kernel cache is empty
SMALL = ("--steps", "40", "--paths", "64")

STEEP = """
title = "A parabola"
[loss]
kind = "expression"
params = ["x"]
expr = "x**2 / 2"
[rule]
name = "GD"
lr = 0.1
[experiment]
w0 = [1.0]
steps = 2000
paths = 2
flows = ["gradient"]
"""


@pytest.fixture
def minidyn(capsys, tmp_path, monkeypatch):
    """A command run in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.call([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err.removeprefix(FIRST_TIME)

    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder in which `minidyn run valley` wrote its results."""
    folder = tmp_path_factory.mktemp("results")
    assert cli.call(["run", "valley", *SMALL, "--seed", "7", "--out", str(folder)]) == 0
    return folder


def refused(outcome, code=2):
    """The sentence of an error, once its shape is checked: one line on stderr, and the exit code."""
    got, _, err = outcome
    assert got == code, err
    assert re.fullmatch(r"minidyn: [^\n]*[.?]\n", err), err
    return err.removeprefix("minidyn: ").strip()


# -- what works ----------------------------------------------------------------------------------------


def test_run_prints_the_comparison_and_says_what_it_wrote(minidyn, tmp_path):
    """`minidyn run` says what runs, prints the table and wall times, writes figure and data into this folder."""
    code, out, err = minidyn("run", "valley", *SMALL)
    assert (code, err) == (0, "")
    assert "running SGD(lr=0.05) beside its quasistatic flow: 64 paths, 40 steps" in out
    assert "quasistatic flow against SGD" in out and re.search(r"wall time: SGD: [\d.]+ s", out)
    assert out.endswith("wrote valley.h5 and valley.png\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["valley.h5", "valley.png"]


def test_data_opens_in_xarray_with_labels(written):
    """The HDF5 file opens in xarray: a labelled group for each run, whose clock ends at the last step."""
    for group, paths in (("runs/SGD", 64), ("runs/quasistatic_flow", 64)):
        with xr.open_dataset(written / "valley.h5", engine="h5netcdf", group=group) as data:
            assert data.w.dims == ("path", "step", "parameter") and data.sizes["path"] == paths
            assert data.step[-1] == 40 and np.isfinite(data.w).all()


def test_options_reach_the_run(minidyn):
    """Learning rate, seed, steps, paths and saves are those asked for, and `--no-figure` writes no figure."""
    options = "--lr 0.02 --seed 3 --save-every 8 --threads 1 --no-figure --out a/lr0.02".split()
    code, out, _ = minidyn("run", "valley", *SMALL, *options)
    assert code == 0 and out.endswith("wrote a/lr0.02.h5\n")
    result = md.load("a/lr0.02.h5")
    assert result.meta["lr"] == 0.02 and result.meta["seed"] == "3" and result.meta["paths"] == 64
    assert list(result.runs["SGD"].steps) == [0, 8, 16, 24, 32, 40]
    assert result.meta["command"] == "minidyn run valley --steps 40 --paths 64 " + " ".join(options)


def test_same_seed_same_bits(minidyn, written):
    """The same command gives the same iterates, bit for bit."""
    minidyn("run", "valley", *SMALL, "--seed", "7", "--no-figure")
    ours, theirs = md.load("valley.h5"), md.load(written / "valley.h5")
    for label, run in ours.runs.items():
        assert np.array_equal(run.w, theirs.runs[label].w)


def test_show_prints_the_table_that_the_run_printed(minidyn, written):
    """`minidyn show` prints a file's table, the versions and the command that made it."""
    code, out, _ = minidyn("show", written / "valley.h5")
    assert code == 0
    assert md.load(written / "valley.h5").summary() in out
    assert "made with minidyn" in out and "made by minidyn run valley --steps 40" in out


def test_plot_draws_a_comparison_and_a_run(minidyn, written, tmp_path):
    """`minidyn plot` draws either kind of result, beside the file or where `--out` says."""
    md.load(written / "valley.h5").runs["SGD"].save(tmp_path / "run.h5")
    assert minidyn("plot", "run.h5")[:2] == (0, "wrote run.png\n")
    assert minidyn("plot", written / "valley.h5", "--out", "new/valley.pdf")[:2] == (0, "wrote new/valley.pdf\n")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new/valley.pdf").read_bytes().startswith(b"%PDF")


def test_plot_knows_the_loss_by_the_text_of_the_model(written):
    """The loss of a result is that of the model text in its file; without one that can be read there is none."""
    result = md.load(written / "valley.h5")
    assert cli.commands.loss_of(result).param_names == ["x", "y"]
    result.meta |= {"model": "mine", "model_text": result.meta["model_text"].replace("y**2", "y**4")}
    assert cli.commands.loss_of(result).value([0.0, 2.0]) == pytest.approx(8.0)
    result.meta["model_text"] = result.meta["model_text"].replace("[loss]", "[lost]")
    assert cli.commands.loss_of(result) is None
    del result.meta["model_text"]
    assert cli.commands.loss_of(result) is None


def test_models_lists_the_library(minidyn):
    """`minidyn models` has the title of each model, and its parameters, rule and noise below."""
    code, out, _ = minidyn("models")
    assert code == 0
    for name in md.list_models():
        assert re.search(rf"^\s*{name}\b", out, re.MULTILINE)
    assert re.search(
        r"two_products +Two products under Adam.*\n +4 parameters, Adam\(lr=0.002,[^;]*LabelNoise\(1\)", out
    )


def test_derive_prints_the_flow(minidyn):
    """`minidyn derive` prints equations, assumptions, validity at the start and reference, on request in LaTeX."""
    model = md.load_model("valley")
    (flow,) = model.flows()
    for options in ({}, {"latex": True}):
        code, out, _ = minidyn("derive", "valley", *(["--latex"] if options else []))
        assert code == 0 and out.split() == flow.describe(w=model.w0, **options).split()
    code, out, _ = minidyn("derive", "relu_net")
    assert code == 0 and "relu_net has no flows to derive" in out and "quasistatic" in out


def test_cache_can_be_looked_at_and_cleared(minidyn, tmp_path, monkeypatch):
    """`minidyn cache` names folder and size; with `--clear` the kernels are gone."""
    from minidyn.kernels import cache

    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    (tmp_path / "minidyn_kernel_0.py").write_text("x = 1\n")
    assert minidyn("cache")[1] == f"1 kernel modules, 0.0 MiB in {tmp_path}\n"
    assert minidyn("cache", "--clear")[1].startswith("deleted 1 kernel modules")
    assert not list(tmp_path.glob("*.py"))


def test_version_and_help_from_a_shell(tmp_path):
    """`minidyn --version` and `minidyn` alone work as a program; help names every command."""
    program = [sys.executable, "-m", "minidyn"]
    version = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"minidyn {md.__version__}\n"
    usage = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert all(command in usage for command in ("models", "run", "derive", "show", "plot", "cache"))


# -- output comes last ---------------------------------------------------------------------------------

WRITING = {
    "run": (["run", "valley", *SMALL, "--out", "made"], ["made.h5", "made.png"]),
    "map alone": (["run", "alone.toml", "--out", "made"], ["made.h5", "made.png"]),
    "scale": (
        ["scale", "valley", "--lrs", "0.1,0.05", "--slow-time", "0.1", "--paths", "64", "--out", "made"],
        ["made.h5", "made.png"],
    ),
    "sweep": (
        ["sweep", "valley", "--over", "lr=0.05,0.1", "--steps", "20", "--paths", "8", "--out", "made"],
        ["made.h5", "made.png"],
    ),
    "stability": (["stability", "valley", "--starts", "2", "--out", "made"], ["made.png"]),
    "plot": (["plot", "valley.h5", "--out", "made.png"], ["made.png"]),
    "show": (["show", "valley.h5"], []),
    "help": (["--help"], []),
}


def shell(arguments, folder, written, **options):
    """A command in a process of its own, in a folder with a model without flows and a result."""
    (folder / "alone.toml").write_text(STEEP.replace('flows = ["gradient"]', "").replace("steps = 2000", "steps = 20"))
    (folder / "valley.h5").write_bytes((written / "valley.h5").read_bytes())
    program = [sys.executable, "-m", "minidyn", *arguments]
    return subprocess.Popen(program, cwd=folder, stderr=-1, text=True, **options)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and /dev/full are POSIX")
@pytest.mark.parametrize(("arguments", "files"), WRITING.values(), ids=WRITING)
def test_a_closed_pipe_costs_no_file_and_is_no_error(arguments, files, tmp_path, written):
    """`minidyn ... | true`: exit code 0, nothing on stderr, every file written."""
    with shell(arguments, tmp_path, written, stdout=-1) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err.removeprefix(FIRST_TIME)) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} - {"alone.toml", "valley.h5"} == set(files)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["run", "plot", "help"])
def test_a_full_disk_behind_stdout_costs_no_file(name, tmp_path, written):
    """`minidyn ... > /dev/full`: exit code 1, one sentence on stderr, every file written."""
    arguments, files = WRITING[name]
    with Path("/dev/full").open("w") as full, shell(arguments, tmp_path, written, stdout=full) as process:
        err = process.stderr.read()
    assert process.returncode == 1
    assert re.fullmatch(r"minidyn: cannot (print|read or write): [^\n]*\.\n", err.removeprefix(FIRST_TIME)), err
    assert {p.name for p in tmp_path.iterdir()} - {"alone.toml", "valley.h5"} == set(files)


def test_a_picture_that_fails_does_not_cost_the_data(minidyn, tmp_path, monkeypatch):
    """Where the figure cannot be drawn: exit code 1 and why, with the table printed and the data written."""

    def explode(*_, **__):
        raise md.ArchiveError("no ink is left.")

    monkeypatch.setattr("minidyn.figures.plot_comparison", explode)
    outcome = minidyn("run", "valley", *SMALL)
    assert refused(outcome) == "no ink is left."
    assert "quasistatic flow against SGD" in outcome[1] and outcome[1].endswith("\nwrote valley.h5\n")
    assert md.load(tmp_path / "valley.h5").meta["paths"] == 64


# -- wrong usage: exit code 2 --------------------------------------------------------------------------


def test_unknown_model_suggests_names(minidyn):
    """A name that is not in the library: the nearest one, or all."""
    assert "There is no model called 'vally'; did you mean `valley`?" in refused(minidyn("run", "vally"))
    sentence = refused(minidyn("derive", "zzz"))
    assert all(name in sentence for name in md.list_models())
    assert "missing.toml" in refused(minidyn("run", "missing.toml"))


def test_broken_model_file_is_named(minidyn, tmp_path):
    """A file that is not TOML, lacks a key or starts at NaN: the file and what is wrong with it."""
    (tmp_path / "broken.toml").write_text('title = "x')
    assert refused(minidyn("run", "broken.toml")).startswith("broken.toml: this is not TOML:")
    (tmp_path / "short.toml").write_text('[loss]\nkind = "expression"\nparams = ["x"]\n')
    assert re.match(r"short\.toml: .*expr", refused(minidyn("run", "short.toml")))
    (tmp_path / "nan.toml").write_text(STEEP.replace("[1.0]", "[nan]"))
    assert re.match(r"nan\.toml: .*w0", refused(minidyn("run", "nan.toml")))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--lr", "-0.1"), "--lr must be a positive number, not -0.1."),
        (("--lr", "nan"), "--lr must be a positive number, not nan."),
        (("--lr", "fast"), "--lr"),
        (("--paths", "0"), "--paths"),
        (("--steps", "0"), "--steps"),
        (("--steps", "2.5"), "--steps"),
        (("--seed", "-1"), "--seed"),
        (("--threads", "0"), "--threads"),
        (("--save-every", "0"), "--save-every"),
        (("--frob",), "--frob"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(minidyn, tmp_path, options, sentence):
    """A wrong option: one sentence that names it, nothing printed, nothing written."""
    outcome = minidyn("run", "valley", *options)
    assert sentence in refused(outcome)
    assert outcome[1] == "" and not list(tmp_path.iterdir())


def test_usage_errors_point_to_the_help(minidyn):
    """An unknown command or a missing argument names the help to read."""
    assert re.search(r"'frob'.*; see `minidyn --help`\.$", refused(minidyn("frob")))
    assert refused(minidyn("run")).endswith("'MODEL'; see `minidyn run --help`.")


@pytest.mark.parametrize("out", ["file/x", "file/deep/x", "folder.h5/"])
def test_unwritable_output_is_found_before_the_run(minidyn, tmp_path, out):
    """Where results cannot be written, nothing runs and nothing is made."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.h5" / "valley.h5").mkdir(parents=True)
    outcome = minidyn("run", "valley", "--out", out)
    assert re.match(r"cannot write .*valley\.h5|cannot write file/.*x\.h5", refused(outcome))
    assert outcome[1] == ""
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.h5", "valley.h5"]


@pytest.mark.parametrize("command", ["show", "plot"])
def test_files_that_are_not_whole_results_are_refused(minidyn, written, tmp_path, command):
    """Missing, foreign and truncated files: a sentence that names the file, exit code 2."""
    assert "none.h5" in refused(minidyn(command, "none.h5"))
    (tmp_path / "foreign.h5").write_text("not HDF5")
    assert "`foreign.h5` is not HDF5" in refused(minidyn(command, "foreign.h5"))
    whole = (written / "valley.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    assert "`cut.h5` is truncated or damaged" in refused(minidyn(command, "cut.h5"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.h5", "foreign.h5"]


def test_unknown_picture_format_is_refused(minidyn, written):
    """`plot --out` with an extension that is no picture says which there are."""
    sentence = refused(minidyn("plot", written / "valley.h5", "--out", "valley.xyz"))
    assert sentence.startswith("a figure cannot be written as .xyz; use one of ") and "png" in sentence


# -- failed runs: exit code 1 --------------------------------------------------------------------------


def test_a_flow_that_does_not_exist_is_a_failed_run(minidyn, tmp_path):
    """A learning rate at which the minima are unstable: exit code 1, the reason, nothing written."""
    sentence = refused(minidyn("run", "valley", *SMALL, "--lr", "3"), code=1)
    assert "the minimum is unstable for SGD(lr=3" in sentence
    assert not list(tmp_path.iterdir())


def test_a_run_without_one_of_its_flows_fails_but_is_kept(minidyn, tmp_path):
    """Where one of several flows does not exist, the others are shown and written; exit code 1 and why."""
    outcome = minidyn("run", "minimalist_eos", "--lr", "50", "--steps", "30", "--no-figure")
    assert "the subquadratic flow does not exist here" in refused(outcome, code=1)
    assert "gradient flow" in outcome[1] and "\nleft out: subquadratic flow at theta" in outcome[1]
    assert list(md.load(tmp_path / "minimalist_eos.h5").meta["missing"]) == ["subquadratic flow"]


def test_a_run_of_which_nothing_is_left_fails_but_is_kept(minidyn, tmp_path):
    """Where every path diverges: exit code 1 and the step, with the results written for a look."""
    (tmp_path / "steep.toml").write_text(STEEP)
    sentence = refused(minidyn("run", "steep.toml", "--lr", "5", "--save-every", "1000"), code=1)
    assert re.fullmatch(r"no path of the GD finished: 1 diverged \(first at step \d+\); try a .*", sentence)
    assert {"steep.h5", "steep.png"} <= {p.name for p in tmp_path.iterdir()}


def test_debug_adds_the_traceback(minidyn):
    """With `--debug` the traceback precedes the sentence; without it there is none."""
    code, _, err = minidyn("run", "vally", "--debug")
    assert code == 2 and err.startswith("Traceback") and err.splitlines()[-1].startswith("minidyn: ")


def test_surprises_are_one_sentence_too(minidyn, monkeypatch):
    """An error that nobody foresaw is still one line, with what to do to see more."""

    def explode(*_):
        raise ZeroDivisionError("a surprise")

    monkeypatch.setattr("minidyn.cli.commands.load_model", explode)
    sentence = refused(minidyn("derive", "valley"), code=1)
    assert sentence == "this should not happen (ZeroDivisionError: a surprise); --debug shows where."


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_interrupt_is_one_line_and_130(tmp_path, tmp_path_factory, written):
    """Ctrl-C in the middle of a long run: exit code 130, one line, nothing written."""
    state = tmp_path_factory.mktemp("state") / "run"
    program = [sys.executable, "-m", "minidyn", "run", "valley", "--steps", "50_000_000", "--checkpoint", state]
    with subprocess.Popen(program, cwd=tmp_path, stdout=-1, stderr=-1, text=True) as process:
        while not state.exists():  # until it has begun
            time.sleep(0.1)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.removeprefix(FIRST_TIME) == "minidyn: interrupted; nothing more was written.\n"
    assert not list(tmp_path.iterdir())
