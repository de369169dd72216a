"""Generated kernels: accurate to the last digits, readable, the same text everywhere, safe to share."""

import ast
import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import sympy as sp
from interpreter import BOUNDED, FLOAT, ROUNDINGS, excess, jets, kernel_jets
from test_derivatives import SUMS, X, sum_loss

import minidyn as md
from minidyn.graph import Graph
from minidyn.kernels import Emitter, Source, cache, store

ROOT = Path(__file__).parents[1]
x, y = sp.symbols("x y", real=True)
j = sp.Symbol("j", integer=True)

# -- accuracy -------------------------------------------------------------------------------------

OPERATIONS = {  # operation: the interval of its first argument
    **{op: (-600.0, 600.0) for op in "exp sinh cosh logistic softplus logcosh expm1 logistic_slope tanh".split()},
    "tanh_slope": (-300.0, 300.0),
    **{op: (-30.0, 30.0) for op in "sin cos tan atan erf abs sign heaviside add sub mul div min max".split()},
    **{op: (1e-9, 1e3) for op in "log sqrt pow".split()},
    **{op: (-1.0, 1.0) for op in "asin acos asin_slope".split()},
    "log1p": (-1.0, 30.0),
}
POWERS = (2, 3, 4, 5, 8, -2, -3, -4, -7)
HALF_POWERS = (1.5, 2.5, 3.5, -1.5, -2.5, -3.5)


def build(g, op, p, q):
    return g.binary(op, p, q) if op in ("min", "max") else getattr(g, op)(p, q)


@functools.cache
def single_operations():
    """A compiled module that stores each operation's result, and what each is in the interpreter."""
    g = Graph()
    p, q = g.load("w", 0), g.load("w", 1)
    nodes = {
        op: build(g, op, p, q) if op in "add sub mul div min max pow".split() else g.unary(op, p) for op in OPERATIONS
    }
    nodes |= {f"**{n}": g.powi(p, n) for n in POWERS} | {f"**{n}": g.pow(p, g.const(n)) for n in HALF_POWERS}
    source = Source("one operation at a time")
    stores = [store(g, node, "out", i) for i, node in enumerate(nodes.values())]
    source.add("operations", "w, out", Emitter(stores).lines())
    return nodes, source.load().operations


def arguments(op):
    low, high = OPERATIONS.get(op, (0.01, 20.0))
    rng = np.random.default_rng(0)
    first = np.concatenate([rng.uniform(low, high, 150), rng.uniform(max(low, -1), min(high, 1), 150)])
    if low < 0:
        first = np.concatenate([first, rng.choice([-1, 1], 60) * 10.0 ** rng.uniform(-150, -1, 60)])
    return np.column_stack([first, rng.uniform(-3, 3, len(first))])


@pytest.mark.parametrize("op", [*OPERATIONS, *(f"**{n}" for n in POWERS + HALF_POWERS)])
def test_operation(op):
    """Every operation is within 2 ulp of the exact result; log cosh and a power are made of two."""
    nodes, run = single_operations()
    place, node = list(nodes).index(op), nodes[op]
    out, worst = np.empty(len(nodes)), 0.0
    steps = ROUNDINGS.get("pow" if op.startswith("**") else op, 1)
    for w in arguments(op):
        run(w, out)
        args = (w[0], float(op[2:])) if op.startswith("**") else w[: len(node.args)]
        want = FLOAT.functions["pow" if op.startswith("**") else op](*args)
        worst = max(worst, abs(out[place] - want) / np.spacing(abs(want)))
    assert worst <= 2 * steps


@functools.cache
def compiled(name):
    return sum_loss(SUMS[name])


@pytest.mark.parametrize("name", ["net", "three layers", "one letter twice, another inside", "log-sum-exp", "relu"])
def test_compiled_sums(name):
    """Compiled value, grad, hvp, third are within 2 ulp per operation of the graph read node by node."""
    loss = compiled(name)
    for seed in range(3):
        w, u, v = np.random.default_rng(seed).normal(size=(3, loss.dim))
        assert excess(kernel_jets(loss, w, u, v, loss.kernels), jets(loss, w, u, v, BOUNDED)) <= 1


def test_text_and_machine_code_agree_to_the_bit():
    """The generated text, run as plain Python, gives the very numbers of the compiled module."""
    loss = compiled("net")
    w, u, v = np.random.default_rng(5).normal(size=(3, loss.dim))
    plain, fast = kernel_jets(loss, w, u, v), kernel_jets(loss, w, u, v, loss.kernels)
    for name in plain:
        np.testing.assert_array_equal(plain[name], fast[name])


# -- text -----------------------------------------------------------------------------------------


def test_text_does_not_depend_on_the_number_of_samples():
    """Ten samples or a thousand, a sum of four units or 400: the same lines, only bounds and strides differ."""

    def text(samples, units):
        a, b = md.vector("a", units), md.vector("b", units)
        net = sp.Sum(a[j] * sp.tanh(b[j] * X), (j, 0, units - 1))
        return md.Loss((net - y) ** 2, [a, b], data={X: np.zeros(samples), y: np.ones(samples)}).source.text

    assert text(10, 4) == text(1000, 4)
    assert text(10, 4).count("\n") == text(10, 400).count("\n")


def test_text_is_readable():
    """A generated module is valid Python with a title, docstrings, the user's names, and short lines."""
    rate, mu = sp.symbols("rate mu")
    loss = md.Loss(rate * (x - mu) ** 2, [x, mu], constants={rate: 2.0})
    text = loss.source.text
    tree = ast.parse(text)
    assert "loss rate*(" in ast.get_docstring(tree)
    functions = {f.name: ast.get_docstring(f) for f in tree.body if isinstance(f, ast.FunctionDef)}
    assert functions["grad"] == "gradient" and functions["hvp"] == "Hessian times u"
    assert {"value", "third", "hessian", "sample_grad"} <= functions.keys()
    for name in ("p_x", "p_mu", "c_rate"):
        assert f"{name} = " in text
    assert max(map(len, text.splitlines())) < 140


HOSTILE = [
    "lambda", "in", "x_{1}", "x_1", "x{1", "α", "β", "α_2", "__2", "λ'", "np", "nb", "exp", "math", "w", "u", "v", "c",
    "d", "n", "i", "b", "q", "j0_4", "out", "result", "value", "grad", "range", "float", "pow", "p_x", "t3", "s0", "r1",
    "None", "a b", '"""', "\\", "\\n", "back\\", "quote'", "{x}", "%s", "x", "x.y", "import os", "#", "1", "",
]  # fmt: skip


def test_hostile_names():
    """Parameters, constants and data may have any names: keywords, numpy's, Greek, quotes, two that mangle alike."""
    symbols = [sp.Symbol(name) for name in HOSTILE]
    third = len(symbols) // 3
    constants = {s: 0.5 + 0.1 * i for i, s in enumerate(symbols[:third])}
    data = {s: np.linspace(0.1, 0.9, 4) ** (1 + i) for i, s in enumerate(symbols[third : 2 * third])}
    params = symbols[2 * third :]
    ring = zip(symbols, [*symbols[1:], symbols[0]], strict=True)
    expr = sum(sp.sin((i + 1) * p * q) for i, (p, q) in enumerate(ring))
    loss = md.Loss(expr, params, constants=constants, data=data)
    w, u, v = np.random.default_rng(0).normal(size=(3, loss.dim))
    assert excess(kernel_jets(loss, w, u, v), jets(loss, w, u, v, BOUNDED)) <= 1


@pytest.mark.parametrize("shift", [0, 17, 34])
def test_hostile_parameters(shift):
    """Each of these names also works as a parameter beside all the others, compiled for a few of them."""
    names = HOSTILE[shift:] + HOSTILE[:shift]
    params = [sp.Symbol(name) for name in names]
    loss = md.Loss(sum((i + 1) * p**2 for i, p in enumerate(params)), params)
    w = np.linspace(-1, 1, loss.dim)
    module = loss.kernels if shift == 0 else None
    got = kernel_jets(loss, w, w, w, module, only="grad")["grad"]
    np.testing.assert_allclose(got, 2 * np.arange(1, loss.dim + 1) * w, rtol=1e-15)


@pytest.mark.parametrize("name", ["lambda", "w", "out", "x_{1}", "α"])
def test_hostile_vectors(name):
    """An `md.vector` of parameters, or of data, may have such a name too."""
    a, b = md.vector(name, 3), md.vector(name + "'", 3)
    loss = md.Loss(sp.Sum(a[j] ** 2 * b[j], (j, 0, 2)), [a], data={b: [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]})
    got = kernel_jets(loss, [1.0, 2.0, 3.0], [0.0] * 3, [0.0] * 3, only="grad")["grad"]
    np.testing.assert_array_equal(got, [4.0, 8.0, 12.0])


# -- the cache ------------------------------------------------------------------------------------

SCRIPT = """
import sys, numpy as np, sympy as sp, minidyn as md
x, y, t = sp.symbols("x y t")
a, j = md.vector("a", 5), sp.Symbol("j", integer=True)
guard = sp.Piecewise((x, sp.And(x > 0, y > 0, y < 7)), (y, sp.Or(y > 1, x > 3)), (0, True))
loss = md.Loss(sp.Max(x, y, x * y) + guard + sp.Sum(sp.sin(a[j] * t + x), (j, 0, 4)), [x, y, a],
               data={t: np.arange(6.0)}, constants={sp.Symbol("k"): 1.0, sp.Symbol("m"): 2.0})
w = np.linspace(0.5, 2.0, 7)
print(loss.value(w).hex(), loss.grad(w).tobytes().hex())
sys.stdout.write(loss.source.text)
"""


def test_processes_share_the_cache(tmp_path):
    """Four processes that compile one loss at once, with other hash seeds, end with one module and the same bits."""
    environment = os.environ | {"MINIDYN_CACHE_DIR": str(tmp_path / "new"), "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=environment | {"PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    answers = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1
    modules = list((tmp_path / "new").glob("*.py"))
    assert len(modules) == 1 and modules[0].read_text(encoding="utf-8") == answers[0][0].split("\n", 1)[1]
    assert not list((tmp_path / "new").glob("*.tmp"))
    again = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert (again.stdout, again.returncode) == (answers[0][0], 0)


def module_text(number):
    source = Source("a number")
    source.add("answer", "", [f"return {number}"])
    return source


def test_cache_info_and_clear(empty_cache):
    """info() counts modules and bytes, clear() deletes them and nothing else; what is loaded goes on working."""
    assert md.cache.info() == cache.CacheInfo(empty_cache, 0, 0)
    modules = [module_text(n).load() for n in (41, 42)]
    assert modules[0].answer() == 41
    (empty_cache / "mine.txt").write_text("kept")
    info = md.cache.info()
    assert info.modules == 2 and info.bytes > sum(len(module_text(n).text) for n in (41, 42))
    assert "2 kernel modules" in str(info) and str(empty_cache) in str(info)
    md.cache.clear()
    assert md.cache.info().modules == md.cache.info().bytes == 0
    assert [p.name for p in empty_cache.iterdir()] == ["mine.txt"]
    assert modules[1].answer() == 42


def test_equal_text_is_one_module(empty_cache):
    """The same text is loaded once; another text is another module."""
    first = module_text(1).load()
    assert module_text(1).load() is first
    assert module_text(2).load() is not first
    assert len(list(empty_cache.glob("*.py"))) == 2


def test_unusable_cache_folder(tmp_path, monkeypatch):
    """A cache folder that cannot be made or written falls back to the user's."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("MINIDYN_CACHE_DIR", str(blocked / "cache"))
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "home"))
    assert cache.folder.__wrapped__() == tmp_path / "home"


def test_read_only_cache_folder(tmp_path, monkeypatch):
    """A cache folder that exists but refuses files is passed over, and kernels still load."""

    def refuse(dir=None, **options):
        if Path(dir).name == "locked":
            raise PermissionError(13, "read-only", str(dir))
        return real(dir=dir, **options)

    real = cache.tempfile.TemporaryFile
    monkeypatch.setattr(cache.tempfile, "TemporaryFile", refuse)
    monkeypatch.setenv("MINIDYN_CACHE_DIR", str(tmp_path / "locked"))
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "home"))
    monkeypatch.setattr(cache, "folder", cache.folder.__wrapped__)
    assert cache.folder() == tmp_path / "home"
    monkeypatch.setattr(cache, "_loaded", {})
    assert module_text(43).load().answer() == 43 and len(list((tmp_path / "home").glob("*.py"))) == 1
    assert not list((tmp_path / "locked").iterdir())


def test_functions_of_not_a_number():
    """sign, Heaviside, Min and Max of NaN are NaN, and logistic, softplus, log cosh have their limits at ±inf."""
    from minidyn.kernels import functions as f

    assert all(
        math.isnan(r)
        for r in (f.sign(math.nan), f.heaviside(math.nan), f.minimum(math.nan, 1.0), f.maximum(1.0, math.nan))
    )
    assert (f.logistic(-math.inf), f.logistic(math.inf)) == (0.0, 1.0)
    assert (f.softplus(-math.inf), f.softplus(math.inf), f.logcosh(-math.inf)) == (0.0, math.inf, math.inf)
    assert f.logistic_slope(-math.inf) == 0.0
