"""Machine code is kept under what the text does: how it is spelled changes no key, what it computes does."""

import ast
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minidyn
from minidyn.compiler import jit
from minidyn.compiler.cache import load_module
from minidyn.compiler.functions import type_of
from minidyn.compiler.types import F8, I8, signature

HOME = Path(minidyn.__file__).parent
NUMBER = itertools.count()

TEXT = '''
import math
import enum
import numpy as np
from minidyn.compiler import Known, jit, lanes

class Way(enum.IntEnum):
    LEFT = 1
    RIGHT = 2

SCALE, UNUSED, SHIFT = 2.0, 7.0, (1, 3.0)
WEIGHTS = np.array([0.5, 0.25])
WORDS = np.array([1, 2])

@jit
def other(v):
    return v - 3.0

@jit
def inner(v, n):
    """What is added."""
    return math.exp(v) * SCALE + n * WEIGHTS[1] + SHIFT[1] - other(v)

@jit(fma=True)
def outer(v):
    """The sum."""
    total = -0.0
    for k in range(4):
        if k != Way.RIGHT:
            total += inner(v, k) * (1.0 / 3.0)
    return total
'''


def key(text, name="outer", types=(F8,)):
    """The key of a function of a text, which stands in a module of its own."""
    return getattr(load_module(f"# {next(NUMBER)}\n{text}"), name).hash(types)


@pytest.mark.parametrize(("was", "now"), [
    ("total", "x_y"), ("What is added.", "Another sentence."),
    ('    """The sum."""\n', ""), ("    total = -0.0\n", "    total = -0.0  # begin\n\n\n"),
    ("inner(v, k) * (", "(inner(v, k)) * ("), ("UNUSED, SHIFT = 2.0, 7.0", "UNUSED, SHIFT = 2.0, 8.0"),
    ("LEFT = 1", "LEFT = 0"), ("1.0 / 3.0", "1.0/3"), ("import math", "import math\nimport sys"),
    ("0.5, 0.25", "1/2, 1/4"), ("WORDS = np.array([1, 2])", "WORDS = 3"),
])  # fmt: skip
def test_spelling_keeps_the_key(was, now):
    """Names of locals, docstrings, comments, layout, and what the function does not read are not in its key."""
    assert was in TEXT and key(TEXT.replace(was, now)) == key(TEXT)


@pytest.mark.parametrize(("was", "now"), [
    ("range(4)", "range(5)"), ("range(4)", "lanes(4)"), ("total += inner", "total -= inner"), ("-0.0\n", "0\n"),
    ("-0.0\n", "0.0\n"), ("1.0 / 3.0", "1.0 / 3.0000000000000004"), ("SHIFT = 2.0", "SHIFT = 2"),
    ("(1, 3.0)", "(1, 4.0)"), ("0.5, 0.25", "0.5, 0.125"), ("0.5, 0.25", "0.5, 0.25, 0"),
    ("RIGHT = 2", "RIGHT = 3"), ("Way.RIGHT", "Way.LEFT"), ("math.exp", "math.expm1"), ("v - 3.0", "v - 2.0"),
    ("@jit(fma=True)", "@jit"), ("@jit\ndef inner", "@jit(inline=True)\ndef inner"), ("math.exp(v)", "float(v)"),
    ("n * WEIGHTS[1] + SHIFT[1]", "n * WEIGHTS[1] - SHIFT[1]"), ("k != Way", "k == Way"), ("(v, k)", "(k, v)"),
    ("    return total", "    return total + v"),
    ("WEIGHTS = np.array([0.5, 0.25])", "WEIGHTS = np.array([[0.5, 0.25]])"),
])  # fmt: skip
def test_what_is_computed_changes_the_key(was, now):
    """Constants with their types, operators, options, module numbers, arrays, members, callees at any depth."""
    assert was in TEXT and key(TEXT.replace(was, now)) != key(TEXT)


def test_functions_given_as_arguments():
    """A function that is known while compiling is in the key by what it does; one behind an address by its type."""
    text = TEXT + "\n@jit\ndef applied(f, v):\n    return f(v, v)\n"
    made = [
        load_module(f"# {next(NUMBER)}\n{t}")
        for t in (text, text.replace("added", "summed"), text.replace("v - 3.0", "v - 2.0"))
    ]
    keys = [m.applied.hash((type_of(m.inner), F8)) for m in made]
    assert keys[0] == keys[1] != keys[2]
    assert len({m.applied.hash((signature("f8(f8,f8)"), F8)) for m in made}) == 1


def test_types_are_in_the_key():
    """The same text for other types is other code."""
    assert len({key(TEXT, types=types) for types in ((F8,), (I8,))}) == 2


def test_equal_bytecode_is_equal_code():
    """What Python computes while it reads a text is computed in every back end as well: no product there is fused."""

    @jit(fma=True)
    def product(a):
        return a + 0.1 * 0.2

    @jit(fma=True)
    def number(a):
        return a + 0.020000000000000004

    @jit
    def whole(a):
        return a + 2**10 + -7 // 2 + -9223372036854775808

    assert product.py_func.__code__.co_code == number.py_func.__code__.co_code
    for k in range(200):
        assert product(0.37 * k) == number(0.37 * k) == 0.37 * k + 0.1 * 0.2
    assert whole(5) == 5 + 1024 - 4 - 2**63 and whole(0.5) == 0.5 + 1024 - 4 - 2.0**63


# -- the whole package ---------------------------------------------------------------------------------------

KEYS = """
import json, sys
import minidyn, minidyn.kernels.linalg, minidyn.kernels.vectormath, minidyn.solvers
from minidyn.compiler import Function, fingerprint
found = [f for m in list(sys.modules.values()) if m.__name__.startswith("minidyn.") for f in vars(m).values()]
keys = {f.identity: fingerprint.of_function(f).hex() for f in found if isinstance(f, Function)}
print(json.dumps(keys | {"compiler": fingerprint.of_compiler()}))
"""


class Spelled(ast.NodeTransformer):
    """The same program with other docstrings, and other names inside the compiled functions."""

    def __init__(self, compiled):
        self.compiled, self.locals = compiled, set()

    def visit(self, node):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body[0].value.value += " Another sentence."
        return super().visit(node)

    def visit_FunctionDef(self, node):
        outside, self.locals = self.locals, set()
        if node.name in self.compiled:
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            self.locals = names | {a.arg for a in node.args.args}
        self.generic_visit(node)
        self.locals = outside
        return node

    def visit_Name(self, node):
        node.id += "_q" * (node.id in self.locals)
        return node

    def visit_arg(self, node):
        node.arg += "_q" * (node.arg in self.locals)
        return node


def keys_of(folder):
    """The keys of all compiled functions of a copy of the package, and of the compiler."""
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", KEYS], env=env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_kernel_of_the_package(tmp_path):
    """A copy with every docstring, comment, line and name inside kernels changed has the keys of the package; after
    other numbers in three places the functions that reach them have others, and those alone."""
    shutil.copytree(HOME, tmp_path / "minidyn", ignore=shutil.ignore_patterns("__pycache__"))
    before = keys_of(HOME.parent)
    assert len(before) > 100
    for path in (tmp_path / "minidyn").rglob("*.py"):
        module = ".".join(path.relative_to(tmp_path).with_suffix("").parts).removesuffix(".__init__")
        compiled = {k.removeprefix(module + ".") for k in before if k.startswith(module + ".")}
        path.write_text(ast.unparse(Spelled(compiled).visit(ast.parse(path.read_text()))))
    assert keys_of(tmp_path) == before

    edits = {
        "solvers/tableaus.py": ("44 / 45", "44 / 46"),
        "kernels/linalg.py": ("0.0", "1e-300"),
        "compiler/values.py": ("operator.add", "operator.sub"),
    }
    for name, (was, now) in edits.items():
        path = tmp_path / "minidyn" / name
        text = path.read_text()
        assert was in text
        path.write_text(text.replace(was, now, 1))
    after = keys_of(tmp_path)
    changed = {k for k in before if before[k] != after[k]}
    assert "compiler" in changed and len(changed) < len(before) / 2
    assert all(any(k.startswith(place) for k in changed) for place in ("minidyn.kernels.linalg.", "minidyn.minima."))
    assert not any(k.startswith(("minidyn.kernels.vectormath.", "minidyn.kernels.random.")) for k in changed)
