"""What a terminal of 80 columns shows: no line is longer, a pipe has no colours, files are what they are named."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn import cli
from minidyn.common.reports import Table, as_text, fold
from minidyn.compare.distributions import distances
from minidyn.compare.report import scales_of
from minidyn.simulate.saves import round_saves, saves_of

x, y = sp.symbols("x y")
MODELS = md.list_models()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all commands."""
    return tmp_path_factory.mktemp("terminal")


@pytest.fixture
def said(folder, capsys, monkeypatch):
    """What a command prints, with its exit code."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        code = cli.call([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def fits(text):
    """Whether it can stand in a terminal: lines of at most 80 columns, none with a colour or ending in spaces."""
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_any_report_fits():
    """Random texts and tables, of up to 12 columns and cells of up to 150 letters: no line is longer than 80, and
    every letter of a text is there, in order."""
    draw = random.Random(0)

    def cell():
        length = draw.choice([0, 1, 3, 5, 8, 13, 30, 60, 150])
        return "".join(draw.choice("ab  *+-(x)/,=") for _ in range(length)).strip()

    for _ in range(1500):
        columns = draw.randint(1, 12)
        rows = [[cell() for _ in range(columns)] for _ in range(draw.randint(1, 5))]
        text = cell()
        fits(as_text([text, Table(rows, draw.randint(0, columns), cell(), draw.random() < 0.7)]))
        assert "".join("".join(fold(text)).split()) == "".join(text.split())


def test_a_difference_that_is_rounding_is_said_as_such():
    """A coordinate in which nothing moves is exact and no number below rounding is shown; a comparison without noise
    has no standard errors, no seed, and one path."""
    gd = md.Map(md.Loss(x**2 / 2 + 20 * y**2 / 2, [x, y]), md.GD(0.05))
    text = md.compare(gd, md.ModifiedFlow(gd), w0=[1.0, 0.0], steps=2000, paths=1000).summary()
    assert "2,000 steps to t = 100, one path, no noise" in text and "std. error" not in text and "seed" not in text
    assert not re.search(r"e-(?:1[2-9]|[2-9]\d|\d{3})", text)
    assert re.search(r"modified flow, order 2 +iterates +[\d.e-]+ \([\d.]+ %\) +exact\n", text)


def test_no_table_shows_what_is_below_rounding():
    """An oscillation that a flow lets die is 0 and not 4e-42; laws that differ by rounding have no distance; where no
    path is left a run says so in place of its numbers."""
    gd = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1))
    seen = md.edge(gd, md.CentralFlow(gd), md.RodFlow(gd), w0=[4.5, 0.1], steps=60)
    assert np.nanmin(seen.amplitude["central flow"]) < 1e-30
    assert not re.search(r"e-(?:1[1-9]|[2-9]\d|\d{3})", seen.summary()) and "             0  " in seen.summary()
    draw = np.random.default_rng(0).standard_normal(90)
    for scale, shift in ((1.0, 0.0), (1e-8, 0.0), (1e9, 3e9), (1e-3, 1.0)):
        a = shift + scale * draw
        b = a * (1 + 1e-15 * np.sign(draw))
        assert not np.array_equal(a, b)
        for found in distances(a, b, True, 20, np.random.default_rng(1)).values():
            assert found[0] == 0 and found[4] == 0 and found[2] == 1
        apart = distances(a, a * (1 + 1e-9), True, 20, np.random.default_rng(1))
        assert all(found[0] > 0 for found in apart.values())
    noisy = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), md.GaussianNoise(0.1))
    run = md.simulate(noisy, [1.0], 50, paths=3, rng=0, stop=lambda w: w[:, 0] < 0.5, observe="loss")
    assert "3 stopped by its condition" in run.summary() and run.summary().count("no path is left") == 2
    assert "- ±" not in run.summary() and "no path is left" in run._repr_html_()


@pytest.mark.parametrize("seed", range(3))
def test_what_diverged_makes_nothing_exact(seed):
    """Where some paths diverge, rounding is judged beside the largest value so far of the paths that are left, map and
    flow alike: what differs by more is a number and not `exact`; the table, the notes and the figure say how many
    diverged, and what is exact in truth is not said to have saved paths."""
    noisy = md.Map(md.Loss((x * y - 1) ** 2 / 2 + x**4 / 40, [x, y]), md.SGD(0.5), md.GaussianNoise(0.6))
    flows = md.GradientFlow(noisy), md.StochasticModifiedFlow(noisy)
    result = md.compare(noisy, *flows, w0=[2.0, 1.2], steps=80, paths=64, rng=seed, observe="loss", progress=False)
    run = result.runs["SGD"]
    assert 0 < (run.status == md.Status.DIVERGED).sum() < 40
    exact = {label: set() for label in result.runs}
    for row in result.errors:
        a, b = result.pair(row.quantity, row.flow)
        t = list(result.steps).index(row.step)
        left = np.isfinite(a[:, t]) & np.isfinite(b[:, t] if result.paired(row.flow) else a[:, t])
        size = np.abs(run.quantity(row.quantity)[left, : row.step + 1]).max()
        assert scales_of(result)[row.quantity, row.flow].at(row.step) == size
        exact[row.flow].add(abs(row.difference) <= 1e-12 * size)
    assert exact["gradient flow"] == {False} and exact["stochastic modified equation, order 1"] == {True}
    text = result.summary()
    first, second = text.split("stochastic modified equation, order 1 against SGD")
    assert "exact" not in first and "exact" in second and "times as many" not in text
    said = f"{(run.status == md.Status.DIVERGED).sum()} diverged (first at step "
    assert said in text and said in result._repr_html_() and said in run.summary()
    fig = result.plot()
    assert any(f"SGD: {(run.status == 0).sum()} finished, {said}" in t.get_text() for t in fig.texts)
    for ax, name in zip(fig.axes[1:5:2], "xy", strict=True):  # paths on their way out do not rule what is seen
        assert np.ptp(ax.get_ylim()) < 12 * np.ptp(
            np.nanquantile(result.pair(name, "gradient flow")[0], [0.05, 0.95], axis=0)
        )
        assert "leave" in ax.get_title(loc="right")


def test_the_overview_says_which_flow_is_closest():
    """The sentence below the overview names the flow whose worst quantity strays least, beside numbers recomputed
    here from the runs."""
    gd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.GD(0.1))
    result = md.compare(gd, md.GradientFlow(gd), md.ModifiedFlow(gd), w0=[1.0, 0.5], steps=60, observe="loss")
    text = result.summary()
    worst = {}
    for label in ("gradient flow", "modified flow, order 2"):
        parts = []
        for name in result.quantities:
            a, b = result.pair(name, label)
            parts.append(abs(b - a).max() / (lambda v: v.max() - v.min())(result.runs["GD"].quantity(name)))
        worst[label] = max(parts)
    best = min(worst, key=worst.get)
    found = re.search(r"closest: (.*), off by at worst ([\d.]+) % of how far GD moves", " ".join(text.split()))
    assert found[1] == best and float(found[2]) == pytest.approx(100 * worst[best], rel=0.06)


def test_what_is_observed_is_in_the_runs_too():
    """`observe` of a comparison is in every run, map and flows, and in the table."""
    noisy = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.2))
    result = md.compare(noisy, md.QuasistaticFlow(noisy), w0=[1, 0], steps=8, paths=5, rng=0, observe=["trace", x * y])
    for run in result.runs.values():
        assert list(run.observables) == ["trace", "x*y"] and run.observables["trace"].shape == (5, 9)
    assert {"trace", "x*y"} < set(result.quantities)


@pytest.mark.parametrize("name", [n for n in MODELS if n != "two_products"])  # whose closed form takes a minute
def test_every_model_derives_within_80_columns(name, said):
    """`derive`, and for small models the LaTeX too; a model without flows says in a sentence what to do."""
    code, out, _ = said("derive", name)
    assert code == 0 and (out.count("reference: ") or "has no flows to derive" in out)
    fits(out)


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("two_products", "scalar_deep")])
def test_every_model_runs_within_80_columns(name, said):
    """`run` of ten steps and `show` of its file."""
    code, out, err = said("run", name, "--steps", 10, "--paths", 3, "--no-figure", "--out", "runs/")
    assert code == 0, err
    fits(out)
    fits(said("show", f"runs/{name}.h5")[1])


def test_other_commands_fit_too(said):
    """`models`, `scale`, `stability` of several settings, `cache`, and every page of help."""
    for command in (
        ["models"], ["stability", "two_wells", "--starts", 3, "--no-figure", *"--lr 0.1 --lr 0.7 --batch 1".split(),
                     "--batch", 0, "--lr", 0.3],
        ["scale", "valley", "--lrs", "0.1,0.05", "--slow-time", 0.1, "--paths", 64, "--no-figure"],
        ["sweep", "valley", "--over", "lr=0.01:1:9:log", "--over", "sigma=0,1", "--over", "x=1,2", "--steps", 50,
         "--paths", 9, "--no-figure"],
        ["sweep", "valley", "--over", "lr=0.05,0.1", "--steps", 50, "--paths", 9, "--against", "--no-figure"],
    ):  # fmt: skip
        code, out, err = said(*command)
        assert code == 0, err
        fits(out)
    for command in ("", "run", "scale", "sweep", "derive", "stability", "show", "plot", "cache", "models"):
        fits(said(*[command] * bool(command), "--help")[1])


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("a.pdf", ["a.h5", "a.pdf"]),
        ("b.svg", ["b.h5", "b.svg"]),
        ("c.png", ["c.h5", "c.png"]),
        ("d.h5", ["d.h5", "d.png"]),
        ("lr0.05", ["lr0.05.h5", "lr0.05.png"]),
    ],
)
def test_out_names_the_format_of_the_picture(out, names, said, folder):
    """`run --out NAME.pdf` writes a PDF and the data beside it, and says so; so do pictures alone, and folders."""
    begins = {".pdf": b"%PDF", ".svg": b"<?xml", ".png": b"\x89PNG", ".h5": b"\x89HDF"}
    code, text, err = said("run", "valley", "--steps", 10, "--paths", 3, "--out", out)
    assert code == 0 and text.endswith(f"wrote {' and '.join(names)}\n"), err
    for name in names:
        assert (folder / name).read_bytes().startswith(begins[Path(name).suffix])
    if Path(out).suffix in (".pdf", ".svg", ".png"):
        picture = f"alone{Path(out).suffix}"
        diagram = ["stability", "two_wells", "--starts", 2, "--out", picture]
        for command in (["plot", names[0], "--out", picture], *[diagram] * (out == "a.pdf")):
            code, text, err = said(*command)
            assert code == 0 and text.endswith(f"wrote {picture}\n"), err
            assert (folder / picture).read_bytes().startswith(begins[Path(out).suffix])
    if out == "a.pdf":
        (folder / "pictures").mkdir()
        assert said("plot", names[0], "--out", "pictures")[1] == "wrote pictures/a.png\n"


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("s.pdf", ["s.h5", "s.pdf"]),
        ("s.svg", ["s.h5", "s.svg"]),
        ("s.PNG", ["s.h5", "s.PNG"]),
        ("t.h5", ["t.h5", "t.png"]),
        ("u", ["u.h5", "u.png"]),
        ("new/", ["new/valley-scaling.h5", "new/valley-scaling.png"]),
        ("lr0.05", ["lr0.05.h5", "lr0.05.png"]),
    ],
)
def test_scale_writes_what_its_out_names(out, names, said, folder):
    """`scale --out` writes the picture in the format that is named, and the study beside it, which can be read back;
    it says so; with --no-figure the study alone."""
    begins = {".pdf": b"%PDF", ".svg": b"<?xml", ".png": b"\x89PNG", ".h5": b"\x89HDF"}
    command = ["scale", "valley", "--lrs", "0.1,0.05", "--slow-time", 0.05, "--paths", 8, "--out", out]
    code, text, err = said(*command)
    assert code == 0 and text.endswith(f"wrote {' and '.join(names)}\n"), err
    for name in names:
        assert (folder / name).read_bytes().startswith(begins[Path(name).suffix.lower()])
    assert len(md.load(folder / names[0]).rows) == 4
    (folder / names[1]).unlink()
    code, text, err = said(*command, "--no-figure")
    assert code == 0 and text.endswith(f"wrote {names[0]}\n") and not (folder / names[1]).exists(), err


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("run valley --steps 3 --paths 2", "a.xyz"),
        ("scale valley --lrs 0.1,0.05 --paths 2 --slow-time 0.01", "a.docx"),
        ("stability two_wells --starts 2", "a.xyz"),
        ("plot a.h5", "a.doc"),
    ],
)
def test_an_unknown_ending_is_no_format(command, out, said, folder):
    """An ending that no picture has is refused in one sentence before anything runs, everywhere, and nothing is
    written: a file that its name does not describe is found by nobody."""
    before = sorted(folder.rglob("*"))
    code, text, err = said(*command.split(), "--out", out)
    assert code == 2 and text == "" and sorted(folder.rglob("*")) == before
    assert re.search(rf"a figure cannot be written as {re.escape(Path(out).suffix)}; use one of png, pdf, svg", err)


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_a_terminal_shows_what_a_pipe_gets():
    """`models` in a pseudo-terminal of 80 columns and in a pipe: the same lines, no wider, no colours in the pipe."""
    import pty

    program = [sys.executable, "-m", "minidyn", "models"]
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color"}
    piped = subprocess.run(program, capture_output=True, text=True, check=True, env=environment).stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(program, stdout=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
        assert process.wait() == 0
    os.close(ours)
    fits(piped)
    assert seen.decode().replace("\r\n", "\n") == piped


def test_a_models_keys_are_not_taken_for_options(said, folder):
    """What is wrong with a model file is said in the words of the file, with what there is: keys, columns, spacings."""
    good = md.load_model("tanh_net").text
    for old, new, told in (
        ("steps = 100_000", "step = 100_000", "unknown key `experiment.step`; did you mean `steps`?"),
        ("paths = 10", "path = 10", "unknown key `experiment.path`; did you mean `paths`?"),
        ('target = "body_mass_g"', 'target = "mass"', "expected a column of penguins.csv (species, island, bill_len"),
        ('save_every = "log"', 'save_every = "often"', 'expected a number of steps or "log".'),
        ('save_every = "log"', "save_every = 0", "`experiment.save_every` is `0`, expected an integer at least 1"),
    ):
        assert old in good
        (folder / "mine.toml").write_text(good.replace(old, new))
        code, out, err = said("run", "mine.toml")
        assert code == 2 and out == "" and told in err, err


@pytest.mark.parametrize("seed", range(6))
def test_rows_of_logarithmic_saves_are_near_round_numbers(seed):
    """A table of logarithmic saves has as many rows as wanted where there are so many saves that far apart, the last
    among them, and the others within a spacing of the saves of numbers with one digit that is not zero; the saves stay
    what they are."""
    rng = np.random.default_rng(seed)
    steps, rows = int(10 ** rng.uniform(0.5, 6)), int(rng.integers(1, 12))
    saves = np.array(saves_of(steps, "log"))
    chosen = saves[round_saves(saves, rows)].tolist()
    assert chosen[-1] == steps and len(chosen) <= rows and chosen == sorted(set(chosen)) and chosen[0] > 0
    for step in chosen[:-1]:
        power = 10 ** (len(str(step)) - 1)
        assert min(abs(np.log(step / (d * power))) for d in (1, 2, 3, 5, 10)) < 0.06, step
    assert len(chosen) == rows or steps < 10 ** (rows / 3 + 1)
    assert [*round_saves(saves[:1], rows)] == []


def test_a_table_of_logarithmic_saves_says_its_rows():
    """`save_every="log"` shows the saves nearest to 10, 100 and so on, and says so; its runs hold the same saves."""
    gd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.GD(0.1))
    result = md.compare(gd, md.GradientFlow(gd), w0=[1.0, 0.5], steps=5000, save_every="log", progress=False)
    assert sorted({row.step for row in result.errors}) == [1, 10, 97, 962, 5000]
    assert result.runs["GD"].steps.tolist() == saves_of(5000, "log")
    assert "rows: of the logarithmic saves those nearest to round numbers" in result.summary()


LONG = {"x": "width_of_the_valley_of_minima_x", "y": "distance_from_the_valley_of_min"}  # letters of 31 characters
NAME = "a_model_whose_name_is_as_long_as_sixty_characters_can_be_her"


def test_every_command_fits_with_long_names(said, folder, monkeypatch):
    """With a name of sixty characters and parameters of thirty no command prints a line of more than 80 columns, in a
    pipe; what goes wrong is one line there, and in a terminal lines of 80 columns."""
    text = re.sub(r"(?m)^(params|chart|expr|observe).*$", lambda m: re.sub(r"\b[xy]\b", lambda w: LONG[w[0]], m[0]),
                  md.load_model("valley").text)  # fmt: skip
    (folder / f"{NAME}.toml").write_text(text)
    for command in (
        "run {}.toml --steps 20 --paths 4 --out l/", "derive {}.toml", "derive {}.toml --latex", "show l/{}.h5",
        "scale {}.toml --lrs 0.1,0.05 --slow-time 0.05 --paths 8 --no-figure", "plot l/{}.h5 --out l/p.png",
        "stability {}.toml --starts 2 --no-figure", "stability {}.toml --starts 2 --lr 0.1 --lr 0.2 --out l/",
    ):  # fmt: skip
        code, out, err = said(*command.format(NAME).split())
        assert code == 0 and err == "", err
        if "--latex" not in command:  # which is for TeX
            fits("\n".join(line for line in out.splitlines() if not line.startswith("  l/")))  # the name of a file
    code, _, err = said("run", NAME[:-1] + ".toml")
    assert code == 2 and err.count("\n") == 1 and len(err) > 80
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, _, folded = said("run", NAME[:-1] + ".toml")
    fits(folded)
    assert code == 2 and folded.split() == err.split()
