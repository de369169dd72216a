"""Model files and their expressions: what is read is exact, what is refused is refused in a sentence."""

import math
import os
import string
import sys
import tomllib
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from minidyn.common.errors import ExpressionError, InputError, ModelFileError
from minidyn.files.modelfile import find_model, list_models, parse_expression, read_model, read_model_text

X, Y, K = sp.symbols("x y k")
A = sp.IndexedBase("a", shape=(10,))
W = sp.IndexedBase("W", shape=(10, 3))
J, I = sp.Symbol("j", integer=True), sp.Symbol("i", integer=True)
SYMBOLS = {"x": X, "y": Y, "a": A, "W": W}


def parse(text, **more):
    return parse_expression(text, SYMBOLS | more)


# ----------------------------------------------------------------------------------- what is understood


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 + x**2) * y**2 / 2", (1 + X**2) * Y**2 / 2),
        ("-x**2", -(X**2)),
        ("2**-1 * x", X / 2),
        ("2**3**2 - x", 512 - X),
        ("x - y - 1", X - Y - 1),
        ("x / y / 2", X / Y / 2),
        ("- - +x", X),
        ("x**2.0 + y**0.5", X**2 + sp.sqrt(Y)),
        ("1/3*x", X / 3),
        ("pi * exp(x) * E", sp.pi * sp.exp(X) * sp.E),
        ("log(cosh(y)) * erf(x)", sp.log(sp.cosh(Y)) * sp.erf(X)),
        ("Max(x, y, 2) - Min(x, 1)", sp.Max(X, Y, 2) - sp.Min(X, 1)),
        ("Abs(x) * sign(y) + Heaviside(x)", sp.Abs(X) * sp.sign(Y) + sp.Heaviside(X)),
        ("Piecewise((x, x < 0), (y, x >= 1), (0, True))", sp.Piecewise((X, X < 0), (Y, X >= 1), (0, True))),
        ("gamma(x) * beta(x, y) + factorial(3)", sp.gamma(X) * sp.beta(X, Y) + 6.0),
        ("LambertW(x) + LambertW(x, -1)", sp.LambertW(X) + sp.LambertW(X, -1)),
        ("besselj(2, x) - polygamma(1, y)", sp.besselj(2, X) - sp.polygamma(1, Y)),
        ("Sum(a[j], (j, 0, 9))", sp.Sum(A[J], (J, 0, 9))),
        ("Sum(W[j, 1] * a[9 - j], (j, 0, 9))", sp.Sum(W[J, 1] * A[9 - J], (J, 0, 9))),
        ("Sum(W[j, i], (j, 0, 9), (i, 0, 2))", sp.Sum(W[J, I], (J, 0, 9), (I, 0, 2))),
        ("Sum(j*x**j, (j, 1, 3))", sp.Sum(J * X**J, (J, 1, 3))),
        ("a[\n  3\n]", A[3]),
    ],
)
def test_expressions_mean_what_python_and_sympy_mean(text, expected):
    """Precedence, functions, sums and pieces come out as the same expression written in sympy."""
    assert parse(text) == expected


@pytest.mark.parametrize("name", ["lambda", "in", "None", "x_{1}", r"\theta", "W^{(2)}_{a}", "x'", "σ", "E"])
def test_any_name_can_be_a_parameter(name):
    """A declared name is read as that symbol, even a keyword, LaTeX, or the name of a number."""
    symbol = sp.Symbol(name)
    assert parse(f"2*{name}**2 - x*{name}", **{name: symbol}) == 2 * symbol**2 - X * symbol


def test_a_declared_name_does_not_eat_the_beginning_of_another():
    """With `in`, `x_{1}` and `x_` declared, `inner`, `x_{1}` and `x_` stay three different names."""
    names = {n: sp.Symbol(n) for n in ["in", "inner", "x_{1}", "x_"]}
    inner, x1, x_ = names["inner"], names["x_{1}"], names["x_"]
    assert parse_expression("inner + x_{1}*x_", names) == inner + x1 * x_


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0))
@settings(max_examples=200, deadline=None)
def test_decimals_keep_full_double_precision(value):
    """A float written with repr comes back as exactly that float."""
    if value != int(value) or value > 2**53:
        assert float(parse(repr(value))) == value


@given(st.integers(0, 2**53))
@settings(max_examples=100, deadline=None)
def test_integers_are_exact(value):
    """An integer up to 2**53 comes back as exactly that integer."""
    assert parse(str(value)) == sp.Integer(value)


def test_integers_beyond_float64_become_floats():
    """No integer above 2**53 is left for a kernel to stumble on."""
    expr = parse("10**15 * 10**15 * x")
    assert float(expr.subs(X, 1)) == 1e30
    assert all(abs(n) <= 2**53 for n in expr.atoms(sp.Integer))


# -------------------------------------------------------------------------------------- what is refused

REFUSED = {
    "__import__('os').system('true')": "has no meaning",
    "__import__(os)": "not a function",
    "eval(x)": "not a function",
    "().__class__": "no attributes",
    "x.real": "no attributes",
    "lambda: 1": "no meaning",
    "lambda x, y": "found `x`",
    "[x for x in y]": "expected, not `[`",
    "x if y else 1": "operator",
    "x and y": "operator",
    "f'{x}'": "no meaning",
    "x := 3": "no meaning",
    "x; y": "no meaning",
    "x = 3": "comparison is written ==",
    "x^2": "power is written **",
    "2x": "as in 2*x",
    "1_000": "as in 2*x",
    "0x10": "as in 2*x",
    "1j": "as in 2*x",
    "x y": "operator",
    "x(2)": "a product is written *",
    "": "is empty",
    "  \n": "is empty",
    "x +": "the end",
    "()": "number, a name or (",
    "(x": "`)`",
    "x)": "operator",
    "x < y": "condition of Piecewise",
    "Max(x < y, 1)": "condition of Piecewise",
    "Max((x, y), 1)": "tuple",
    "Piecewise((x, x < 0))": "must be True",
    "Piecewise((x, y), (1, True))": "one comparison",
    "Piecewise(x, y)": "Piecewise((",
    "Piecewise((x, 0 < x < 1), (1, True))": "found `<`",
    "exp": "needs arguments",
    "exp()": "one argument",
    "exp(x, y)": "one argument",
    "Max()": "at least one",
    "zeta(x)": "not a function",
    "snh(x)": "did you mean `sinh`?",
    "z": "not declared",
    "True": "not declared",
    "a": "indexed",
    "a[10]": "entries 0 to 9",
    "a[-1]": "entries 0 to 9",
    "a[x]": "Sum index",
    "a[1, 2]": "1 index",
    "a[]": "1 index",
    "W[1]": "2 index",
    "x[0]": "scalar",
    "b[0]": "not declared",
    "a[1/2]": "Sum index",
    "Sum(a[j], (j, 0, 10))": "runs from 0 to 10",
    "Sum(a[2*j], (j, 0, 9))": "runs from 0 to 18",
    "Sum(a[j**2], (j, 0, 2))": "Sum index",
    "Sum(x, (j, 0, 10**9))": "at most",
    "Sum(x, (j, 9, 0))": "in order",
    "Sum(x, (j, 0, y))": "two integers",
    "Sum(x, (x, 0, 3))": "already the name",
    "Sum(x)": "is written Sum",
    "Sum(a[j], (j, 0, 9)) + j": "`j` is not declared",
    "9**9**9": "exponent",
    "2**1000": "exponent",
    "2**-101": "exponent",
    "(9**99)**99": "overflows",
    "((2*x)**100)**100": "overflows",
    "(x*2**51 + 1)**100": "too large",
    "exp(10**15*log(2))**2": "overflows",
    "exp(10**15*log(2*x))*exp(x)": "overflows",
    "exp(1e9)": "overflows",
    "1e400": "double precision",
    "1e308 * 10": "double precision",
    "9" * 40: "2**53",
    "exp(10**15)": "overflows",
    "x**(2 + exp(10**15))": "overflows",
    "exp(exp(exp(9)))": "overflows",
    "1/0": "divides by zero",
    "0**(-x)*y": "constant 0",
    "Max(x, log(-pi))": "not real",
    "Piecewise((x, x < acos(E)), (1, True))": "not real",
    "Piecewise((x, x < Piecewise((y, y < 1), (1, True))), (1, True))": "another `Piecewise`",
    "Sum(j, (j, 0, 9))": "is a constant",
    f"Sum({'*'.join(f'Piecewise((a[j], x < {i}), (1, True))' for i in range(20))}, (j, 0, 9))": "cases",
    "x/(1 - 1)": "divides by zero",
    "log(0)": "divides by zero",
    "sqrt(-1)": "not real",
    "(-8)**(1/3)": "not real",
    "acos(2)": "not real",
    "\x00": "no meaning",
    "x" * 20_001: "20000 is the most",
    "+".join(["x"] * 5_001): "5000",
}


@contextmanager
def calls_counted():
    """A counter that goes up with every function called inside: work measured without a clock."""
    calls = count()
    sys.setprofile(lambda frame, event, argument: next(calls) if event in ("call", "c_call") else None)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(("text", "part"), REFUSED.items(), ids=range(len(REFUSED)))
def test_everything_else_is_refused_in_one_sentence(text, part):
    """Code, wrong grammar and dangerous sizes raise ExpressionError, whose one line says what is wrong."""
    with calls_counted() as calls, pytest.raises(ExpressionError) as caught:
        parse(text)
    sentence = str(caught.value)
    assert part in sentence
    assert "\n" not in sentence and len(sentence) < 400 and sentence[-1] in ".?"
    assert next(calls) < 1_000_000


@pytest.mark.parametrize("piece", ["(", "-", "sin(", "x**", "a[", "Max(x,(", "Sum(", "2**-"])
def test_deep_nesting_is_refused_before_it_can_hurt(piece):
    """Thousands of nested pieces of any kind end in a sentence, after little work, not in a crash."""
    with calls_counted() as calls, pytest.raises(ExpressionError, match="nested"):
        parse(piece * (19_000 // len(piece)) + "x")
    assert next(calls) < 1_000_000


def test_nesting_within_the_limit_is_understood():
    """Forty functions inside one another, and forty parentheses around x, are read."""
    assert parse("(" * 40 + "x" + ")" * 40) == X
    assert str(parse("sin(" * 40 + "x" + ")" * 40)).count("sin") == 40


def test_nothing_is_evaluated(tmp_path):
    """A file that an evaluated expression would create does not appear."""
    target = tmp_path / "made"
    for text in [f"open('{target}', 'w')", f"__import__('pathlib').Path('{target}').touch()", "exec(x)"]:
        with pytest.raises(ExpressionError):
            parse(text)
    assert not target.exists()


CHARACTERS = string.printable + "\0\x1béσ∞٣²𝟙\ud800\u2028"
PIECES = [*"xya0123456789+-*/()[],.<>=j '", "**", "exp(", "Sum(", "(j, 0, 9)", "log(", "1e9", "a[j]", "sqrt("]
PIECES += ["Piecewise((", ", True)", "W[", "9**99", "E**", "pi", "Abs(", "acos(", "0.1", "Max("]


@given(st.one_of(st.text(CHARACTERS, max_size=60), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
@settings(max_examples=400, deadline=10_000)
def test_random_text_is_an_expression_or_an_expression_error(text):
    """Whatever the text, the answer comes soon, and is a sympy expression or an ExpressionError."""
    try:
        assert isinstance(parse(text), sp.Expr)
    except ExpressionError as error:
        assert "\n" not in str(error)


LEAVES = ["x", "y", "2", "99", "0.3", "1e15", "10**15", "0", "1/3", "pi", "E", "a[j]"]
UNARY = [
    "exp({})",
    "log({})",
    "sqrt({})",
    "acos({})",
    "Abs({})",
    "tanh({})",
    "-{}",
    "Sum({}, (j, 0, 9))",
    "gamma({})",
    "digamma({})",
]
BINARY = [
    "({})+({})",
    "({})*({})",
    "({})**({})",
    "({})/({})",
    "Max({}, {})",
    "binomial({}, {})",
    "besselj({}, {})",
    "Piecewise(({0}, x < {1}), (1, True))",
]


def well_formed(program):
    """The text that a program for a stack machine writes: leaves are pushed, the rest wraps what is there."""
    stack = ["x"]
    for step in program:
        if step in LEAVES:
            stack.append(step)
        elif step in UNARY:
            stack.append(step.format(stack.pop()))
        elif len(stack) > 1:
            stack.append(step.format(stack.pop(), stack.pop()))
    return stack[-1]


@given(st.lists(st.sampled_from(LEAVES + UNARY + BINARY), max_size=60).map(well_formed))
@settings(max_examples=300, deadline=10_000)
def test_well_formed_text_stays_cheap(text):
    """Any nest of allowed operations is read soon, and every number in the result fits in float64."""
    try:
        expr = parse(text)
    except ExpressionError:
        return
    assert all(math.isfinite(float(number)) for number in expr.atoms(sp.Number))


# ------------------------------------------------------------------------------------------ model files

VALLEY = """
title = "a valley"

[loss]
kind = "expression"
params = ["x", "lambda"]
expr = "(c + x**2) * lambda**2 / 2"
constants = { c = 1.5 }

[rule]
name = "SGD"
lr = "0.1 / (1 + k)"
momentum = 0.5

[[noise]]
kind = "gaussian"
sigma = 0.3

[experiment]
w0 = [2, 0.5]
steps = 100
observe = ["loss", "x**2"]
flows = ["quasistatic"]
"""

NET = """
[loss]
kind = "regression"
params = [{ W = [2, 3] }, "b", { a = 2 }]
model = "Sum(a[j]*tanh(Sum(W[j, i]*x[i], (i, 0, 2)) + b*t), (j, 0, 1))"
target = "body_mass_g"
inputs = { x = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm"], t = "year" }
data = { file = "penguins.csv", rows = { start = 1, stop = 30, step = 4 }, standardize = ["target"] }

[rule]
name = "Adam"
lr = 0.01

[[noise]]
kind = "label"
std = 0.1
batch = 3

[experiment]
w0 = { kind = "normal", scale = 0.5, seed = 7 }
start = "manifold"
steps = 10
"""


def test_a_model_file_is_read_as_written():
    """Names, numbers, expressions and defaults of a small file arrive typed and in order."""
    spec = read_model_text(VALLEY, "mine")
    x, lam, c, k = sp.symbols("x lambda c k")
    assert (spec.name, spec.title, spec.text, spec.path) == ("mine", "a valley", VALLEY, None)
    assert [(p.name, p.shape, p.symbol) for p in spec.loss.params] == [("x", (), x), ("lambda", (), lam)]
    assert spec.loss.expr == (c + x**2) * lam**2 / 2
    assert spec.loss.constants == {"c": 1.5} and spec.loss.dimension == 2 and spec.loss.samples is None
    assert spec.rule.name == "SGD" and spec.rule.hyperparameters["momentum"] == 0.5
    assert spec.rule.hyperparameters["lr"] == sp.Float(0.1) / (1 + k)
    assert [(n.kind, n.options) for n in spec.noise] == [("gaussian", {"sigma": 0.3})]
    assert spec.experiment.w0.tolist() == [2.0, 0.5] and spec.experiment.steps == 100
    assert (spec.experiment.paths, spec.experiment.save_every, spec.experiment.rng) == (1, None, 0)
    assert spec.experiment.observe == {"loss": None, "x**2": x**2}
    assert spec.experiment.flows == ("quasistatic",) and spec.experiment.start == "here"


def test_a_regression_reads_the_rows_and_columns_it_names():
    """Columns, row selection and standardization give the numbers that the CSV file holds."""
    loss = read_model_text(NET).loss
    lines = Path(find_model("valley")).with_name("penguins.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]][1:30:4]
    mass = np.array([float(row[5]) for row in rows])
    assert loss.inputs["x"].tolist() == [[float(v) for v in row[2:5]] for row in rows]
    assert loss.inputs["t"].tolist() == [float(row[7]) for row in rows]
    np.testing.assert_allclose(loss.target, (mass - mass.mean()) / mass.std(), rtol=1e-14)
    assert loss.symbols["x"].shape == (3,) and loss.symbols["W"].shape == (2, 3)
    assert (loss.dimension, loss.samples, loss.criterion) == (9, 8, "squared")


def test_a_random_start_depends_on_its_seed_alone():
    """`w0 = {kind = "normal", ...}` is numpy's stream of that seed, times the scale."""
    experiment = read_model_text(NET).experiment
    assert experiment.w0.tolist() == (0.5 * np.random.default_rng(7).standard_normal(9)).tolist()
    assert experiment.start == "manifold"


def test_sigma_may_be_a_matrix_with_expressions():
    """Each entry of `sigma` is a number or an expression in the parameters."""
    spec = read_model_text(VALLEY.replace("sigma = 0.3", 'sigma = [[0.1, "x*c"], [0, 1]]'))
    x, c = sp.symbols("x c")
    assert spec.noise[0].options["sigma"] == [[0.1, x * c], [0.0, 1.0]]


def test_noises_add_up_in_order():
    """Several `[[noise]]` tables are all kept, each with its options."""
    more = '[[noise]]\nkind = "minibatch"\nbatch = 2\nreplace = true\n[experiment]'
    first, second = read_model_text(NET.replace("[experiment]", more)).noise
    assert (first.kind, first.options) == ("label", {"std": 0.1, "batch": 3, "distribution": "normal"})
    assert (second.kind, second.options) == ("minibatch", {"batch": 2, "replace": True})


WRONG = [
    ("[loss]", "[los]", "unknown key `los`; did you mean `loss`?"),
    ("steps = 100", "stepz = 100", "unknown key `experiment.stepz`; did you mean `steps`?"),
    ("momentum = 0.5", "beta1 = 0.5", "unknown key `rule.beta1`"),
    ("sigma = 0.3", "sigmas = 0.3", "unknown key `noise[0].sigmas`; did you mean `sigma`?"),
    ("sigma = 0.3", "", "`noise[0].sigma` is missing"),
    ("steps = 100", "", "`experiment.steps` is missing, expected an integer"),
    ("steps = 100", "steps = 1.5", "`experiment.steps` is `1.5`, expected an integer"),
    ("steps = 100", "steps = true", "`experiment.steps` is true, expected an integer"),
    ("steps = 100", "steps = 0", "an integer at least 1"),
    ("steps = 100", "steps = 100\npaths = -1", "`experiment.paths` is `-1`"),
    ("w0 = [2, 0.5]", "w0 = [2]", "expected a list of 2 numbers"),
    ("w0 = [2, 0.5]", "w0 = [2, nan]", "expected a list of 2 numbers"),
    ("w0 = [2, 0.5]", "", "`experiment.w0` is missing"),
    ("w0 = [2, 0.5]", 'w0 = { kind = "cauchy", scale = 1 }', "`experiment.w0.kind` is the text `cauchy`"),
    ('name = "SGD"', 'name = "SDG"', "expected one of GD, SGD"),
    ('name = "SGD"', 'name = "SDG"', "did you mean `SGD`?"),
    ('lr = "0.1 / (1 + k)"', "", "`rule.lr` is missing"),
    ('lr = "0.1 / (1 + k)"', "lr = -0.1", "`rule.lr` is `-0.1`, expected a positive number"),
    ('lr = "0.1 / (1 + k)"', "lr = inf", "finite number"),
    ('lr = "0.1 / (1 + k)"', 'lr = "0.1*x"', "`rule.lr`: The name `x` is not declared"),
    ("momentum = 0.5", "nesterov = 1", "`rule.nesterov` is `1`, expected true or false"),
    ('kind = "gaussian"\nsigma = 0.3', 'kind = "label"\nstd = 1', "needs a regression loss"),
    ('kind = "gaussian"\nsigma = 0.3', 'kind = "minibatch"\nbatch = 1', "needs a loss with samples"),
    ("sigma = 0.3", "sigma = [1]", "a list of 2 of them"),
    ("sigma = 0.3", 'sigma = "x*"', "`noise[0].sigma`: A number"),
    ('kind = "expression"', 'kind = "regresion"', "did you mean `regression`?"),
    ('kind = "expression"', "", "`loss.kind` is missing"),
    ('expr = "(c + x**2) * lambda**2 / 2"', "", "`loss.expr` is missing"),
    ('expr = "(c + x**2) * lambda**2 / 2"', "expr = 3", "`loss.expr` is `3`, expected text"),
    ('expr = "(c + x**2) * lambda**2 / 2"', 'expr = "c"', "at least one of the parameters"),
    ("lambda**2", "lamda**2", "`loss.expr`: The name `lamda` is not declared; did you mean `lambda`?"),
    ("lambda**2", "__import__('os')", "`loss.expr`: Character"),
    ('"lambda"]', '"x"]', "`x`, which is declared already"),
    ('"lambda"]', '"x + y"]', "expected a name"),
    ('"lambda"]', "3]", "`loss.params` is `3`"),
    ('"lambda"]', '"lambda", {a = 0}]', "`loss.params.a` is `0`"),
    ('"lambda"]', '"lambda", {a = [9999, 9999]}]', "at most 1000000 numbers"),
    ('["x", "lambda"]', "[]", "at least one parameter"),
    ("c = 1.5", 'c = "1"', "`loss.constants.c` is the text `1`, expected a finite number"),
    ('title = "a valley"', "title = 3", "`title` is `3`, expected text"),
    ('flows = ["quasistatic"]', 'flows = ["quasi"]', "`experiment.flows` is the text `quasi`"),
    ('flows = ["quasistatic"]', 'flows = "rod"', "expected a list"),
    ('flows = ["quasistatic"]', 'flows = ["rod 3"]', "rod 1, rod 2, modified 1, modified 2"),
    ('flows = ["quasistatic"]', 'flows = ["gradient 2"]', "`experiment.flows` is the text `gradient 2`"),
    ('observe = ["loss", "x**2"]', 'observe = ["los"]', "`experiment.observe`: The name `los`"),
    ('observe = ["loss", "x**2"]', 'observe = ["x"]', "that a run does not hold anyway"),
    ("[experiment]", "[experiment", "not TOML"),
    ("[[noise]]", "[noise]", "`noise` is a table, expected a list"),
    (
        "[experiment]",
        "[scaling]\nlrs = [0.1, 0.1]\n[experiment]",
        "`scaling.lrs` is `[0.1, 0.1]`, expected at least two",
    ),
    ("[experiment]", "[scaling]\nlrs = [0.1, [2]]\n[experiment]", "different positive numbers"),
    ("[experiment]", "[scaling]\ntime = 0\n[experiment]", "`scaling.time` is `0`, expected a positive number"),
    ("[experiment]", "[scaling]\ntime = 1\nslow_time = 1\n[experiment]", "does not go together with `time`"),
    ("[experiment]", "[scaling]\nw0 = [1]\n[experiment]", "a list of 2 numbers or expressions in `lr`"),
    ("[experiment]", '[scaling]\nw0 = ["1/rate", 1]\n[experiment]', "The name `rate` is not declared"),
]


@pytest.mark.parametrize(("old", "new", "part"), WRONG)
def test_a_bad_file_is_refused_with_file_key_and_cure(old, new, part):
    """Each mistake in a good file gives one sentence that begins with the file and names the key."""
    assert old in VALLEY
    with pytest.raises(ModelFileError) as caught:
        read_model_text(VALLEY.replace(old, new, 1), "my.toml")
    sentence = str(caught.value)
    assert sentence.startswith("my.toml: ") and part in sentence
    assert "\n" not in sentence and sentence[-1] in ".?" and not sentence.endswith("?.")


WRONG_DATA = [
    ('"penguins.csv"', '"pinguins.csv"', "`loss.data.file` is the text `pinguins.csv`"),
    ('t = "year"', 't = "yeer"', "did you mean `year`?"),
    ('t = "year"', 't = "sex"', "column of numbers"),
    ('t = "year"', "t = [1.0, 2.0]", "differ in their number of samples"),
    ('t = "year"', "t = [[1.0], [2.0, 3.0]]", "rows of equal length"),
    ('target = "body_mass_g"', "", "`loss.target` is missing"),
    ('target = "body_mass_g"', "target = [[1.0]]", "one number per sample"),
    ("start = 1, stop = 30", "start = 900", "selects no row of 333"),
    ("{ start = 1, stop = 30, step = 4 }", "[0, 333]", "row numbers from 0 to 332"),
    ('["target"]', '["targets"]', "`loss.data.standardize`"),
    ("batch = 3", "batch = 9", "`noise[0].batch` is `9`, expected an integer from 1 to 8"),
    ("std = 0.1", "std = -1", "`noise[0].std`"),
    ("model =", "expr = 'b'\nmodel =", "`loss.expr` does not belong to a loss of kind regression"),
    ('data = { file = "penguins.csv"', 'data = { fil = "penguins.csv"', "unknown key `loss.data.fil`"),
]


@pytest.mark.parametrize(("old", "new", "part"), WRONG_DATA)
def test_bad_data_is_refused_with_file_key_and_cure(old, new, part):
    """Missing files, columns and rows, and samples that do not match, are named."""
    assert old in NET
    with pytest.raises(ModelFileError) as caught:
        read_model_text(NET.replace(old, new, 1), "my.toml")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "`loss` is missing"),
        (bytes(range(256)), "not text in UTF-8"),
        (b"\x00\x01", "not TOML"),
        (b"a = " + b"[" * 50_000, "not TOML"),
        (b"x" * 1_000_001, "above 1000000 bytes"),
        (b"a = 1" + b"0" * 5_000, "not TOML"),
    ],
    ids=["empty", "binary", "null", "nested", "huge", "long integer"],
)
def test_files_that_are_no_model_are_refused(tmp_path, content, part):
    """Empty, binary, hostile and huge files raise ModelFileError that names the file."""
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert part in str(caught.value) and "odd.toml" in str(caught.value)


@pytest.mark.parametrize("size", [10, 61, 500, 4000])
@pytest.mark.parametrize(
    "text", ["{0}", "{0}(c)", "{0}[0]", "sin({0}) + c", "log[0] + {0}(1, 2)", "Sum({0}[j], (j, 0, 1))"]
)
def test_sentences_do_not_grow_with_the_names_in_them(text, size, tmp_path):
    """A name of any length, and known ones of any length beside it, leave a sentence that a person reads."""
    long = ["n" * size + str(i) for i in range(3)]
    for place in ("expr", "observe", "params"):
        known = ", ".join(f'"{n}"' for n in long) if place == "params" else '"c"'
        expr, observe = (text.format("m" * size) if place in (p, "params") else "c**2" for p in ("expr", "observe"))
        path = tmp_path / "mine.toml"
        path.write_text(
            f'[loss]\nkind = "expression"\nparams = [{known}]\nexpr = "{expr}"\n[rule]\nname = "GD"\nlr = 0.1\n'
            f'[experiment]\nsteps = 9\nw0 = [1]\nobserve = ["{observe}"]\n'
        )
        with pytest.raises(ModelFileError) as caught:
            read_model(path)
        assert len(str(caught.value)) < 800 + len(str(path))


def test_an_unknown_name_lists_the_library():
    """A misspelt model gets the nearest name and the list; a missing path says that it is one."""
    with pytest.raises(ModelFileError, match=r"'valey'; did you mean `valley`\? The library has .*tanh_net"):
        read_model("valey")
    with pytest.raises(ModelFileError, match=r"no model called 'qqq'; known: .*diagonal_net, .*valley"):
        read_model("qqq")
    with pytest.raises(ModelFileError, match=r"no model file 'no/such\.toml'"):
        read_model("no/such.toml")
    with pytest.raises(ModelFileError):
        read_model("a\0b")
    assert issubclass(ModelFileError, InputError)


SMALL = """
rule = { name = "GD", lr = 1 }
experiment = { w0 = [0], steps = 1 }
[loss]
kind = "regression"
params = ["a"]
model = "a*u"
target = "v"
inputs = { u = "u" }
data = { file = "penguins.csv" }
"""


@pytest.mark.parametrize("name", ["mine.toml", "mine.conf", "mine", "a.b.toml"])
def test_a_model_is_called_as_its_file_without_the_last_suffix(name, tmp_path):
    """Whatever the suffix is, results of a model are not named by it."""
    path = tmp_path / name
    path.write_text(VALLEY)
    assert read_model(path).name == path.stem


def test_a_file_is_found_by_path_and_its_data_beside_it(tmp_path):
    """A CSV file in the model file's folder is taken before one of the package."""
    (tmp_path / "penguins.csv").write_text("u,v\n1,2\n3,5\n")
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    spec = read_model(os.fspath(path))
    assert (spec.name, spec.path) == ("mine", path)
    assert spec.loss.inputs["u"].tolist() == [1.0, 3.0] and spec.loss.target.tolist() == [2.0, 5.0]


@given(st.text(CHARACTERS, max_size=200))
@settings(max_examples=100, deadline=10_000)
def test_random_files_raise_nothing_but_model_file_errors(text):
    """Whatever the text of a file, it is refused as a ModelFileError."""
    with pytest.raises(ModelFileError):
        read_model_text(text)


ODD = ["1", "-1", "1e308", "nan", "true", '""', '"x"', '[["x"]]', "[]", "[[]]", "[1, [2]]", "{}", "[{}]"]
ODD += ["1979-05-27", '{ "" = 1 }', '{ x = "x" }']


@given(st.data())
@settings(max_examples=150, deadline=10_000)
def test_a_wrong_type_anywhere_raises_nothing_but_a_model_file_error(data):
    """Any value of the good file replaced by any other TOML value is read or refused, never a crash."""
    lines = data.draw(st.sampled_from([VALLEY, NET])).splitlines()
    where = [i for i, line in enumerate(lines) if " = " in line]
    at = data.draw(st.sampled_from(where))
    lines[at] = f"{lines[at].split(' = ')[0]} = {data.draw(st.sampled_from(ODD))}"
    try:
        read_model_text("\n".join(lines))
    except ModelFileError as error:
        assert "\n" not in str(error)


# ---------------------------------------------------------------------------------------------- library


@pytest.mark.parametrize("name", list_models())
def test_every_model_of_the_library_is_complete(name):
    """Each shipped model has a title, a description, a reference, a start of the right length and a rule."""
    spec = read_model(name)
    assert spec.title and spec.description and spec.reference and spec.path == find_model(name)
    assert spec.rule.name and spec.rule.hyperparameters["lr"] > 0
    assert spec.experiment.w0.shape == (spec.loss.dimension,)
    assert spec.text == spec.path.read_text(encoding="utf-8") and tomllib.loads(spec.text)


def test_the_library_has_its_six_models():
    """The names that the documentation uses exist."""
    assert set(list_models()) >= {"valley", "ellipse", "product", "two_products", "diagonal_net", "tanh_net"}


@pytest.mark.parametrize("name", [n for n in list_models() if read_model(n).manifold is not None])
def test_charts_of_the_library_are_minima(name):
    """Put into the loss (or into model minus target), a chart gives zero wherever it is tried."""
    spec = read_model(name)
    loss, chart = spec.loss, spec.manifold
    residual = loss.expr - (loss.target[0] if loss.kind == "regression" else 0)
    for seed in range(5):
        values = np.random.default_rng(seed).uniform(0.5, 2, len(chart.coordinates))
        place = dict(zip(chart.coordinates, values, strict=True))
        point = {symbol: expr.subs(place) for symbol, expr in chart.chart.items()}
        assert abs(float(residual.subs(point))) < 1e-12


@pytest.mark.parametrize("name", ["valley", "ellipse", "product", "two_products"])
def test_toy_models_start_on_their_minima(name):
    """The default start of the toy models has loss zero: the flows on the manifold start there too."""
    spec = read_model(name)
    point = dict(zip([p.symbol for p in spec.loss.params], spec.experiment.w0, strict=True))
    target = spec.loss.target[0] if spec.loss.kind == "regression" else 0
    assert abs(float(spec.loss.expr.subs(point)) - target) < 1e-15


def test_the_sparse_target_fits_the_diagonal_net():
    """The coefficients (1, 0, 0, -1/2, 0, ...) that its description promises reproduce every target."""
    loss = read_model("diagonal_net").loss
    sparse = np.zeros(10)
    sparse[[0, 3]] = 1.0, -0.5
    np.testing.assert_allclose(loss.inputs["x"] @ sparse, loss.target, atol=1e-12, rtol=0)


def test_the_penguins_are_ten_of_each_species():
    """The thirty rows of tanh_net are ten birds of each species, standardized over those thirty."""
    spec = read_model("tanh_net")
    content = tomllib.loads(spec.text)["loss"]["data"]
    lines = (spec.path.with_name(content["file"])).read_text().splitlines()[1:]
    species = [lines[i].split(",")[0] for i in content["rows"]]
    assert {s: species.count(s) for s in species} == {"Adelie": 10, "Gentoo": 10, "Chinstrap": 10}
    for values in (spec.loss.inputs["x"], spec.loss.target):
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-12, rtol=0)
        np.testing.assert_allclose(values.std(axis=0), 1, rtol=1e-12)
