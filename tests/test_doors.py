"""One sentence, two doors: Python's names in Python, the shell's options in the shell."""

import ast
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer

import minidyn as md
from minidyn import cli
from minidyn.cli.wording import NAMES, names_for
from minidyn.common.errors import speaking
from minidyn.common.intake import between, whole
from minidyn.flows import FLOWS
from minidyn.kernels.random import generator
from minidyn.maps.rules import LIBRARY

PACKAGE = Path(md.__file__).parent
COMMANDS = typer.main.get_command(cli.app).commands


@pytest.fixture
def called(tmp_path, capsys, monkeypatch):
    """What a command says: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.call(list(arguments))
        return code, *capsys.readouterr()

    return run


def test_names_are_said_as_each_door_has_them():
    """One fault, two doors: Python's sentence names the argument, the shell's the option; afterwards Python's again."""
    faults = {
        "save_every": lambda: whole("save_every", 0, 1),
        "precision": lambda: between(2.0, "precision", 0, 1),
        "rng": lambda: generator(True),
        "lrs": lambda: md.load_model("valley").scale([0.1], time=1.0),
        "slow_time=": lambda: md.load_model("valley").scale([0.1, 0.05], time=1.0, slow_time=1.0),
    }
    for name, fault in faults.items():
        option = {"rng": "--seed"}.get(name, "--" + name.rstrip("=").replace("_", "-"))
        for catalogue, expected in ((None, name), (names_for({"seed": "--seed", name.rstrip("="): option}), option)):
            with pytest.raises(md.InputError) as caught, speaking(catalogue) if catalogue else nullcontext():
                fault()
            assert expected in str(caught.value) and (catalogue is None) == (option not in str(caught.value))


ONLY_PYTHON = ("figures/", "compiler/", "maps/loss/", "simulate/events.py", "simulate/choose.py", "simulate/odes.py",
               "simulate/going_on.py", "minima/smoothness.py", "studies/")  # fmt: skip  # what no command has


def said_in(tree):
    """The calls of `said` below a node."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "said"]


def raised(path):
    """(line, text) of what stands in the errors that a module raises, outside of `said`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and str(getattr(node.func, "id", "")).endswith("Error"):
            apart = {id(n) for call in said_in(node) for n in ast.walk(call)}
            texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and id(n) not in apart]
            yield node.lineno, "".join(text for text in texts if isinstance(text, str))


def test_no_error_of_a_command_names_what_only_python_has():
    """Where a command can come, sentences name functions and keywords of Python's through `said` alone."""
    python = re.compile(r"\bmd\.(?!Map\b|SGD|vector|matrix|Gaussian|Manifold)\w|[(, ](?!real=|k=)\w+=(?!=)|\.project\(")
    found = [
        (path.name, line, text)
        for path in PACKAGE.rglob("*.py")
        for line, text in raised(path)
        if not str(path.relative_to(PACKAGE)).startswith(ONLY_PYTHON) and python.search(text)
    ]
    assert not found


def test_the_shell_has_a_word_for_each_name():
    """Every name that sentences say through `said` is an option or in the shell's list, which has no other."""
    calls = [call for path in PACKAGE.rglob("*.py") for call in said_in(ast.parse(path.read_text()))]
    used = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    options = {p.name: p.opts[0] for command in COMMANDS.values() for p in command.params}
    assert len(used) > 20 and used <= set(names_for(options))
    made = {f"md.{thing.__name__}" for thing in FLOWS.values()} | {f"md.{name}" for name in LIBRARY}
    assert set(NAMES) - made <= used


GIVEN = {
    "run": "valley --steps 4 --paths 3",
    "stability": "two_wells --starts 1",
    "scale": "valley --lrs 0.1,0.05 --slow-time 0.1 --paths 8",
    "sweep": "valley --over lr=0.1,0.2 --steps 4 --paths 3",
    "plot": "none.h5",
    "reproduce": "none.ipynb --quick",
}
COUNTS = ["-1", "0.5", "nan", "x", "", "1e400", "9" * 20]
NUMBERS = ["-1", "nan", "inf", "x", ""]
WRONG = {
    "--over": [
        "lr",
        "lr=",
        "lr=x",
        "lr=1:2",
        "lr=0:1:5:log",
        "lr=1:2:3:4",
        "lr=-1,1",
        "q=1",
        "lr=1:2:9999999",
        "=1",
        "",
    ],
    "--reduce": ["median", ""],
    "--lrs": ["x", "-1,0.1", "nan,0.1", "0.1"],
    "--out": ["/dev/null/x"],
    "--checkpoint": ["/dev/null/x"],
    "--seed": COUNTS[:-1],
}
WRONG |= dict.fromkeys(("--lr", "--time", "--slow-time", "--precision", "--spread", "--work"), NUMBERS)
TRIED = [
    (name, p.opts[0], value)
    for name, command in COMMANDS.items()
    for p in command.params
    if p.opts[0].startswith("--") and not p.is_flag
    for value in WRONG.get(p.opts[0], COUNTS)
]


@pytest.mark.parametrize(("name", "option", "value"), TRIED)
def test_every_option_with_a_wrong_value(name, option, value, called):
    """A wrong value of any option of any command: exit code 1 or 2, nothing printed but one sentence, which names the
    option, or the file, and nothing of Python's."""
    code, out, err = called(name, *GIVEN[name].split(), option, value)
    assert code in (1, 2) and out == "" and err.count("\n") == 1
    assert option in err or (value == "/dev/null/x" and value in err), err
    bare = re.sub(r"\blr=[^ ]*", "", err)  # as --over takes it
    assert not re.search(r"\bmd\.|\w=(?!=)|\(\)|\b(save_every|slow_time|max_paths|rng|first_step)\b", bare), err


def test_what_stands_in_a_model_file_is_no_option(called, tmp_path):
    """A batch that a file gives is refused by the key of the file, although `stability` has an option of that name."""
    text = md.load_model("two_wells").text
    assert "batch = 1\n" in text
    (tmp_path / "mine.toml").write_text(text.replace("batch = 1\n", "batch = 9\n"))
    code, _, err = called("stability", "mine.toml")
    assert code == 2 and "batch" in err and "--batch" not in err


@pytest.mark.parametrize(
    "command",
    ["run valley --paths 1000000000000", "run valley --lr 3", "scale valley --time 1 --slow-time 1",
     "scale valley --lrs 0.1", "stability two_wells --batch 9", "stability valley --out a.xyz", "plot none.h5",
     "scale valley --time 1e30", "sweep valley", "sweep valley --over lr=0.1 --over lr=0.2",
     "sweep valley --over lr=0.1 --over x=nan", "sweep valley --over batch=2", "sweep relu_net --over lr=0.1 --against",
     "sweep valley --over lr=0.1 --against --reduce max"],
)  # fmt: skip
def test_faults_beyond_one_option_are_answered_without_python(command, called):
    """Where no value alone is wrong no sentence names a function, an argument or a keyword of Python's either."""
    code, out, err = called(*command.split())
    assert code in (1, 2) and out == "" and err.count("\n") == 1
    bare = re.sub(r"\b[A-Z]\w+\([^()]*\)", "", err)  # a rule or a noise as it is written, SGD(lr=3.0)
    assert not re.search(r"\bmd\.|\w=(?!=)|\(\)|save_every|first_step|slow_time", bare), err
