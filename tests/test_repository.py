"""The repository keeps its word: what the README shows runs, and nothing from one machine leaks into it."""

import ast
import os
import re
import shlex
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FOLDERS = (".ci", "benchmarks", "docs", "minidyn", "notebooks", "results", "tests")
FOREIGN = re.compile(rb"(?<![\w.])/(home|root|tmp|work|Users)/|pypi\.org|pythonhosted\.org|anaconda\.org")


def readme_blocks(*languages):
    """(line number, text) of every fenced block of the README in one of these languages."""
    text = README.read_text(encoding="utf-8")
    for block in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.M | re.S):
        if block[1] in languages:
            yield text.count("\n", 0, block.start(2)), block[2]


def readme_commands():
    """The arguments of every call of `minidyn` in the README's shell blocks."""
    for _, block in readme_blocks("sh", "bash", "shell", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", line.split("#")[0]):
                words = [word for word in shlex.split(part) if word != "$"]
                if words and Path(words[0]).name == "minidyn":
                    yield words[1:]


def repository_files():
    """Every file in the top folder and in the project's own folders."""
    top = (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")  # that of a second work tree
    yield from (path for path in top if path.suffix not in {".h5", ".png"})
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts:
                yield path


def python(code, *arguments, cwd=ROOT):
    """What `python -c code arguments` did, run in `cwd` with this repository's minidyn."""
    call = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True)


def test_readme_is_short():
    """The README stays under 150 lines."""
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_readme_snippets_run(tmp_path, monkeypatch):
    """The README's Python runs, block after block as a reader would, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    blocks = list(readme_blocks("python"))
    assert blocks
    namespace = {"__name__": "__main__"}
    for line, block in blocks:
        exec(compile("\n" * line + block, str(README), "exec"), namespace)  # tracebacks point into the README


def test_readme_commands_run(tmp_path):
    """Every `minidyn` command in the README exits with 0, one after the other, in an empty folder."""
    commands = list(readme_commands())
    assert commands
    for arguments in commands:
        done = python("import sys; from minidyn.cli import main; sys.exit(main())", *arguments, cwd=tmp_path)
        assert done.returncode == 0, f"minidyn {shlex.join(arguments)}\n{done.stdout}{done.stderr}"


def test_nothing_names_a_machine():
    """No file holds a path of someone's machine or the host of a package registry, binary files included."""
    found = [(path, FOREIGN.search(path.read_bytes())) for path in repository_files()]
    assert not [f"{path.relative_to(ROOT)}: {match[0]}" for path, match in found if match]


def private(node):
    """The private names that a piece of a file gives to something: those of protocols, `_repr_html_`, are public."""
    given = getattr(node, "name", None) or (
        isinstance(getattr(node, "ctx", None), ast.Store) and (getattr(node, "attr", None) or getattr(node, "id", None))
    )
    return {given} if isinstance(given, str) and given.startswith("_") and not given.endswith("_") else set()


def test_private_names_stay_in_their_room():
    """What a room calls by a leading underscore, no other room imports or asks for."""
    nodes = {path: [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))] for path in MODULES.values()}
    given = {path: set().union(*map(private, inside)) for path, inside in nodes.items()}
    room = {path: path.relative_to(ROOT).parts[1] for path in nodes}
    taken = []
    for path, inside in nodes.items():
        own = set().union(*(given[other] for other in nodes if room[other] == room[path]))
        others = set().union(*given.values()) - own
        for node in inside:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minidyn":
                taken += [f"{path}:{node.lineno}: {a.name}" for a in node.names if a.name in others]
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls", "super()"):
                taken += [f"{path}:{node.lineno}: {node.attr}"] if node.attr in others else []
    assert not taken


def test_tests_allow_no_more_than_they_say():
    """A comparison that names one tolerance names both: the other's default (1e-7, 1e-5, 1e-8) may be wider."""
    bare = []
    for path in (ROOT / "tests").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                given = {k.arg for k in call.keywords} & {"rtol", "atol"}
                wide = {"assert_allclose": {"atol"}, "allclose": set(), "isclose": set()}.get(call.func.attr)
                if wide is not None and wide <= given < {"rtol", "atol"}:
                    bare.append(f"{path.name}:{call.lineno}")
    assert not bare


def imports_of(path):
    """The files of the package that one of them imports, those inside functions too; hints of types do not count."""

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ImportFrom) and (child.module or "").startswith("minidyn"):
                for name in (f"{child.module}.{alias.name}" for alias in child.names):
                    yield name if name in MODULES else child.module
            if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
                yield from visit(child)

    return set(visit(ast.parse(path.read_text(encoding="utf-8"))))


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "minidyn").rglob("*.py")
}
DOORS = {  # results save and draw themselves
    ("minidyn.common.reports", "minidyn.files.results"),
    ("minidyn.common.reports", "minidyn.figures"),
}


def test_imports_go_in_no_circle():
    """But for the doors of results, no file needs one that needs it."""
    graph = {name: imports_of(path) - {name} for name, path in MODULES.items()}
    assert all(there in graph[here] for here, there in DOORS)
    graph = {name: {other for other in others if (name, other) not in DOORS} for name, others in graph.items()}
    order = [*TopologicalSorter(graph).static_order()]  # CycleError names a circle
    assert {*MODULES} <= {*order}


def test_import_is_light():
    """`import minidyn` leaves alone what only some calls need."""
    heavy = {"matplotlib", "xarray", "pandas", "scipy", "numba", "rich", "h5py", "numpy.ma", "sympy.codegen"}
    done = python("import sys, minidyn; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not heavy & set(done.stdout.split())


def test_numbers_of_kernels_have_names():
    """Kernels of maps and flows read their numbers `fp` at named places, and fail with a member of `Status`."""
    for path in (p for room in ("maps", "flows") for p in (ROOT / "minidyn" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("fp", "fns"):
                assert not isinstance(node.slice, ast.Constant), f"{where}: {ast.unparse(node)}"
            if isinstance(node, ast.FunctionDef) and {"fp", "system"} & {a.arg for a in node.args.args}:
                ends = {ast.unparse(end) for end in ast.walk(node) if isinstance(end, ast.Return)}
                assert not [e for e in ends if re.search(r"\b(return|else) \(?[1-9]\d*( if\b|\b\)?$)", e)], (
                    f"{where}: {ends}"
                )
