"""Matrices in model files: what a file says is what Python builds, numpy computes and sizes allow."""

import re

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import minidyn as md
from minidyn.common.errors import ExpressionError, ModelFileError
from minidyn.files.modelfile import parse_expression
from minidyn.files.models import model_of_text

SHAPES = {"A": (3, 4), "B": (4, 3), "C": (3, 3), "x": (4,), "W^{(2)}": (3, 3)}
NAMES = {n: sp.IndexedBase(n, shape=shape) for n, shape in SHAPES.items()} | {"t": sp.Symbol("t")}
A, B, C = (sp.MatrixSymbol(n, *SHAPES[n]) for n in "ABC")
x, t, j = sp.MatrixSymbol("x", 4, 1), sp.Symbol("t"), sp.Symbol("j", integer=True)
SQUARES = sp.Trace(A.T * A)

SAID = {
    "Trace(A @ B)": sp.Trace(A * B),
    "Trace(A * B - t*C.T)": sp.Trace(A * B - t * C.T),
    "Norm(A)**2 / 2": SQUARES / 2,
    "Norm(A)": sp.sqrt(SQUARES),
    "Determinant(C) + log(Determinant(C * C.T))": sp.Determinant(C) + sp.log(sp.Determinant(C * C.T)),
    "Trace(Inverse(C) + C**-1 + Transpose(C)**2)": sp.Trace(2 * C.I + C.T**2),
    "Trace(HadamardProduct(A, B.T) * B)": sp.Trace(sp.HadamardProduct(A, B.T) * B),
    "Trace(HadamardPower(C, 3))": sp.Trace(sp.HadamardPower(C, 3)),
    "Trace(C - 2*Identity(3) / t)": sp.Trace(C - 2 * sp.Identity(3) / t),
    "(A * B)[0, 1] + x[3]": (A * B)[0, 1] + NAMES["x"][3],
    "Sum(C[j, j] * t, (j, 0, 2))": sp.Sum(NAMES["C"][j, j] * t, (j, 0, 2)),
    "Trace(C[:2, 1:])": sp.Trace(C[:2, 1:]),
    "Matrix((1, t), (t, 2))[0, 1]": t,
    "Trace(Matrix((C, A), (B, B * A)))": sp.Trace(sp.BlockMatrix([[C, A], [B, B * A]])),
    "Norm(W^{(2)})**2": sp.Trace(sp.MatrixSymbol("W^{(2)}", 3, 3).T * sp.MatrixSymbol("W^{(2)}", 3, 3)),
}


@pytest.mark.parametrize("text", SAID)
def test_a_file_says_what_python_builds(text):
    """Every form comes out as the same expression written in sympy."""
    assert sp.simplify(parse_expression(text, NAMES).doit() - sp.sympify(SAID[text]).doit()) == 0


REFUSED = {
    "A + B": "`A` is 3 x 4 and `B` is 4 x 3: only matrices of one size add.",
    "Norm(A + 1)": "`A` is 3 x 4 and `1` is a number: they do not add; for it in every entry write 1*OneMatrix(3, 4).",
    "A * A": "`A` is 3 x 4 and `A` is 3 x 4: they do not fit in a product.",
    "t @ A": "`t` is a number, and `@` multiplies matrices; a product with a number is written *.",
    "A * B": "`A*B` is 3 x 3 where a number is expected; its Norm or Trace, or an entry, as in `(A*B)[0, 0]`.",
    "x": "`x` is 4 x 1 where a number is expected; it is indexed: write an entry, as in `x[0]`.",
    "exp(C)": "3 x 3 where a number is expected",
    "Trace(A)": "`A` is 3 x 4: only square matrices have a trace.",
    "Determinant(A)": "only square matrices have a determinant",
    "Inverse(A)": "only square matrices have an inverse",
    "A**2": "only square matrices have powers",
    "C**t": "the exponent must be a whole number",
    "C**101": "above 100",
    "t / C": "nothing is divided by it; a product with Inverse(...) is",
    "trace(C)": "did you mean `Trace`?",
    "Norm(t)": "`Norm` is of a matrix, and `t` is a number.",
    "Norm(A, B)": "`Norm` takes one argument, not 2.",
    "HadamardProduct(A, B)": "only matrices of one size have a product entry by entry",
    "Norm(Max(A, B))": "acts on the entries of one matrix",
    "DiagMatrix(A)": "made of a column or a row",
    "Identity(t)": "whole numbers from 1 to 10000",
    "Norm(Matrix((1, 2), (3, 4, 5)))": "of one length",
    "Norm(Matrix((C, A), (C, C)))": "`A` is 3 x 4 and `C` is 3 x 3: they do not stand below each other.",
    "Matrix(1)": "written by rows",
    "(A * B)[3, 0]": "has entries 0 to 2 there",
    "(A * B)[0]": "takes 2 indices",
    "A[4:, 0]": "The range `4:` chooses none of the 3 rows or columns of `A`.",
    "A[::-1, 0]": "upwards",
    "A[0:1:1:1, 0]": "start:stop:step",
    "t.T": "has no `.T`",
    "A.real": "no attributes but .T",
    "Piecewise((A, t < 0), (1, True))": "where a number is expected",
    "Norm(A)[0]": "is a scalar",
    "A" + ".T" * 300: "nested",
    "(A)" + "[0, 0]" * 300: "nested",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_fit_is_refused_with_its_sizes(text):
    """One sentence: the part, its size, what was expected."""
    with pytest.raises(ExpressionError, match=re.escape(REFUSED[text])) as caught:
        parse_expression(text, NAMES)
    assert "\n" not in str(caught.value)


PIECES = st.sampled_from([*"ABCxt12", ".T", "[", "]", "(", ")", ",", ":", "@", "*", "+", "-", "**", "Norm(", "Trace(",
                          "Inverse(", "Matrix((", "tanh(", "HadamardProduct(", "Sum(", "0", "(j, 0, 2)"])  # fmt: skip


@given(st.lists(PIECES, max_size=14))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_random_text_is_a_number_or_an_expression_error(pieces):
    """Nothing else comes out of the parser, whatever stands beside a matrix."""
    try:
        assert not parse_expression("".join(pieces), NAMES).is_Matrix
    except ExpressionError as error:
        assert "\n" not in str(error)


MODEL = """
[loss]
kind = "expression"
params = [{{ V = [{m}, {n}] }}, {{ W = [{k}, {m}] }}, {{ b = {m} }}, "c"]
expr = "Norm(W @ tanh(V*X + b*OneMatrix(1, {p})) - c*Y)**2 / 2 + Norm(b - a)"
[loss.constants]
a = {a}
X = {X}
Y = {Y}
[rule]
name = "GD"
lr = 0.01
[experiment]
w0 = {{ kind = "normal", scale = 1 }}
steps = 3
observe = ["Norm(W * V)", "c"]
"""


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 3, 1, 4), (7, 1, 2, 5)])
def test_a_net_of_matrices_is_that_of_numpy(sizes):
    """Value, gradient and observables of a net in a model file, of any sizes, with matrices as constants."""
    m, n, k, p = sizes
    rng = np.random.default_rng(sum(sizes))
    a, X, Y = rng.normal(size=m), rng.normal(size=(n, p)), rng.normal(size=(k, p))
    text = MODEL.format(m=m, n=n, k=k, p=p, a=a.tolist(), X=X.tolist(), Y=Y.tolist()).replace('"c"]\nsteps', '"c"]')
    model = model_of_text(text.replace(', "c"]\n[rule', "]\n[rule").replace('V)", "c"]', 'V)"]'), "net")
    w, u = rng.normal(size=(2, model.loss.dim))

    def by_hand(w):
        V, W, b, c = np.split(w, np.cumsum([m * n, k * m, m]))
        out = W.reshape(k, m) @ np.tanh(V.reshape(m, n) @ X + b[:, None]) - c * Y
        return (out**2).sum() / 2 + np.linalg.norm(b - a)

    assert model.loss.value(w) == pytest.approx(by_hand(w), rel=1e-12)
    slope = (by_hand(w + 1e-6 * u) - by_hand(w - 1e-6 * u)) / 2e-6
    assert model.loss.grad(w) @ u == pytest.approx(slope, rel=1e-6)
    run = md.simulate(model.map, w, 1, observe=model.observe)
    V, W = w[: m * n].reshape(m, n), w[m * n : m * (n + k)].reshape(k, m)
    assert run.observables["Norm(W * V)"][0, 0] == pytest.approx(np.linalg.norm(W @ V), rel=1e-12)


SOFTMAX = """
[loss]
kind = "regression"
params = [{ A = [5, 4] }, { a = 5 }, { C = [3, 5] }, { c = 3 }]
model = "C * tanh(A*x + a) + c"
criterion = "softmax"
target = "species"
[loss.inputs]
x = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
[loss.data]
file = "penguins.csv"
standardize = ["inputs"]
[rule]
name = "GD"
lr = 0.1
[experiment]
w0 = { kind = "normal", scale = 0.3 }
steps = 3
"""


def test_a_column_is_a_model_of_several_outputs():
    """`C * tanh(A*x + a) + c` with x a vector of columns is the net that is written out in sums; the letter in LaTeX
    says of which sample x is."""
    net = model_of_text(SOFTMAX, "net").loss
    summed = SOFTMAX.replace('model = "C * tanh(A*x + a) + c"', (
        'model = "c[s] + Sum(C[s, k] * tanh(a[k] + Sum(A[k, i] * x[i], (i, 0, 3))), (k, 0, 4))"\noutputs = { s = 3 }'
    ))  # fmt: skip
    written = model_of_text(summed, "sums").loss
    w = np.random.default_rng(0).normal(size=net.dim)
    assert net.n_outputs == 3
    np.testing.assert_allclose(net.grad(w), written.grad(w), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(net.model_values(w), written.model_values(w), rtol=1e-12)
    assert r"A x_{i} + a" in net._repr_latex_()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("A*x + a", "A*x + c", "`loss.model`: `A*x` is 5 x 1 and `c` is 3 x 1: only matrices of one size add."),
        ("C * tanh(A*x + a) + c", "C * C.T", "`loss.model` is a 3 x 3 matrix; its outputs are a column or a row."),
        ("C * tanh", "D * tanh", "`loss.model`: The name `D` is not declared"),
        ('"softmax"', '"squared"', "expected a column of numbers"),
    ],
)
def test_a_broken_net_is_refused_with_its_key(old, new, sentence):
    """The file, the key, and what does not fit."""
    with pytest.raises(ModelFileError, match=re.escape(sentence)):
        model_of_text(SOFTMAX.replace(old, new), "net")


def test_the_deep_linear_net_learns_large_singular_values_first():
    """At a quarter of the learning rate at the edge they are learned in their order, to the numbers of the file; beyond
    the edge 2 / (3 * 5**(4/3)) the first one alternates; the flow conserves what the text says."""
    model = md.load_model("deep_linear_net")
    first, *_, balance = [q for q in model.observe if "W" in q]
    modes = [q for q in model.observe if "[" in q]
    edge = 2 / (3 * 5 ** (4 / 3))
    assert 1 < model.spec.rule.hyperparameters["lr"] / edge < 1.05
    slow = md.simulate(model.map.with_lr(edge / 4), model.w0, 700, save_every=1, observe=model.observe)
    halfway = [np.argmax(slow.observables[q][0] > value / 2) for q, value in zip(modes, (5, 4, 3, 1), strict=True)]
    assert halfway == sorted(halfway) and halfway[0] > 0
    assert [slow.observables[q][0, -1] for q in modes] == pytest.approx([5, 4, 3, 1], abs=0.01)
    beyond = md.simulate(model.map, model.w0, 200, save_every=1, observe={first: model.observe[first]}).observables[
        first
    ][0]
    assert beyond[-1] == pytest.approx(beyond[-3], abs=1e-3) and abs(beyond[-1] - beyond[-2]) > 1
    kept = {balance: model.observe[balance]}
    flow = md.simulate(md.GradientFlow(model.map), model.w0, 40, save_every=20, observe=kept).observables[balance][0]
    assert flow == pytest.approx(flow[0], rel=1e-6)
