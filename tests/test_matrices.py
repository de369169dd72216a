"""Losses in matrices: against numpy on the same matrices, whose derivatives are complex steps."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy.matrices.expressions.matexpr import MatrixElement
from sympy.matrices.expressions.slice import MatrixSlice

import minidyn as md
from minidyn.common.errors import ExpressionError, InputError

i, j = sp.symbols("i j", integer=True)
s = sp.Symbol("s")
EYE = 1e-30j


def slopes(f, w):
    """The gradient of f by complex steps: exact up to rounding for what is analytic."""
    return np.array([f(w + EYE * e).imag / 1e-30 for e in np.eye(len(w))])


def taken_apart(w, params):
    """The parameters as numpy arrays."""
    out, at = [], 0
    for p in params:
        shape = tuple(map(int, p.shape)) if p.is_Matrix else ()
        size = int(np.prod(shape))
        out.append(w[at : at + size].reshape(shape))
        at += size
    return out


def near(a, b, tolerance, scale=0.0):
    assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), scale), (a, b)


def check(expr, params, f, w, order=3, **given_):
    """Value and derivatives up to an order of a loss, against numpy's f of the parameters as arrays."""
    loss = md.Loss(expr, params, **given_)
    u, h = np.random.default_rng(5).standard_normal(loss.dim), 1e-6

    def of(w):
        return f(*taken_apart(w, params))

    near(loss.value(w), of(w), 1e-11, 1.0)
    exact = slopes(of, w)
    near(loss.grad(w), exact, 1e-11, 1.0)
    rough = (slopes(of, w + h * u) - slopes(of, w - h * u)) / (2 * h)
    near(loss.hvp(w, u), rough, 1e-5, np.abs(exact).max() + 1.0)
    if order < 3:
        return loss
    third = (loss.hvp(w + h * u, u) - loss.hvp(w - h * u, u)) / (2 * h)
    near(loss.third(w, u, u), third, 1e-5, np.abs(rough).max() + np.abs(exact).max() + 1.0)
    return loss


def language(m, n):
    """The parameters, and (expression, numpy's function of them) for everything that the language has."""
    A, B, S, x = md.matrix("A", m, n), md.matrix("B", n, m), md.matrix("S", m, m), md.matrix("x", m, 1)
    one, eye, inv, tr = sp.OneMatrix, sp.Identity, np.linalg.inv, np.trace
    numbers = np.arange(m * m).reshape(m, m) % 5 - 2
    K = sp.ImmutableMatrix(numbers)
    two = sp.ImmutableMatrix([[s, 1, 0]])
    residual, block = A @ B - S, sp.BlockMatrix([[A, S], [eye(n), B]])
    return [A, B, S, x, s], {
        "trace of a product": (sp.Trace(A @ B @ S), lambda A, B, S, x, s: tr(A @ B @ S)),
        "squared residual": (sp.Trace(residual @ residual.T) / 2, lambda A, B, S, x, s: ((A @ B - S) ** 2).sum() / 2),
        "quadratic form": (x.T @ A @ B @ x, lambda A, B, S, x, s: (x.T @ A @ B @ x)[0, 0]),
        "power": (sp.Trace(S**5), lambda A, B, S, x, s: tr(np.linalg.matrix_power(S, 5))),
        "transposes": (sp.Trace(S @ S.T @ S.T @ S), lambda A, B, S, x, s: tr(S @ S.T @ S.T @ S)),
        "inverse": (sp.Trace(S.T.inv() @ A @ B), lambda A, B, S, x, s: tr(inv(S).T @ A @ B)),
        "negative power": (sp.Trace(S**-2), lambda A, B, S, x, s: tr(inv(S) @ inv(S))),
        "determinant": (sp.Determinant(S), lambda A, B, S, x, s: np.linalg.det(S)),
        "its logarithm": (sp.log(sp.Determinant(S @ S.T)), lambda A, B, S, x, s: np.log(np.linalg.det(S @ S.T))),
        "Hadamard product": (sp.Trace(sp.HadamardProduct(A, B.T) @ B), lambda A, B, S, x, s: tr((A * B.T) @ B)),
        "Hadamard power": (sp.Trace(sp.HadamardPower(A, 3) @ B), lambda A, B, S, x, s: tr(A**3 @ B)),
        "applied function": (
            sp.Trace((s * A @ B + 2 * S).applyfunc(lambda t: s * sp.tanh(t) ** 2) @ one(m, m)),
            lambda A, B, S, x, s: (s * np.tanh(s * A @ B + 2 * S) ** 2).sum(),
        ),
        "diagonal": (
            sp.Trace(sp.DiagMatrix(x) @ A @ B @ sp.DiagMatrix(x)),
            lambda A, B, S, x, s: tr(x * (A @ B) * x.T),
        ),
        "trace of a sum": (sp.Trace(3 * S + eye(m) - S.T / 2), lambda A, B, S, x, s: 2.5 * tr(S) + m),
        "norm": (sp.sqrt(sp.Trace(A @ A.T)), lambda A, B, S, x, s: np.sqrt((A * A).sum())),
        "scalars between": (
            sp.exp(sp.Trace(S) / m) * sp.Trace(sp.Trace(S) * A @ B) ** 2,
            lambda A, B, S, x, s: np.exp(tr(S) / m) * (tr(S) * tr(A @ B)) ** 2,
        ),
        "row of a product": (sp.Trace((A @ B)[0, :] @ x) ** 2, lambda A, B, S, x, s: (A[:1] @ B @ x)[0, 0] ** 2),
        "slice of a sum": (
            sp.Trace(MatrixSlice(S + S.T @ S, (m // 2, m, 1), (m // 2, m, 1))),
            lambda A, B, S, x, s: tr((S + S.T @ S)[m // 2 :, m // 2 :]),
        ),
        "blocks": (
            sp.Trace(block @ block.T),
            lambda A, B, S, x, s: (np.block([[A, S], [np.eye(n), B]]) ** 2).sum(),
        ),
        "numbers": (sp.Trace((K + S) @ S @ K.T), lambda A, B, S, x, s: tr((numbers + S) @ S @ numbers.T)),
        "written out": (two @ two.T, lambda A, B, S, x, s: s * s + 1),
        "written out beside": (
            sp.Trace(sp.ImmutableMatrix(m, 1, [s**k for k in range(m)]) @ x.T @ S),
            lambda A, B, S, x, s: (x.T @ S @ np.array([[s**k] for k in range(m)]))[0, 0],
        ),
        "diagonal entries": (
            sp.Sum(MatrixElement(sp.Inverse(S), i, i) ** 2, (i, 0, m - 1)),
            lambda A, B, S, x, s: (np.diag(inv(S)) ** 2).sum(),
        ),
        "entries": (
            sp.Sum(MatrixElement(S @ S.T, i, j) ** 3 * x[j, 0], (i, 0, m - 1), (j, 0, m - 1)),
            lambda A, B, S, x, s: ((S @ S.T) ** 3 @ x).sum(),
        ),
        "one entry": (MatrixElement(sp.Inverse(S), m - 1, 0), lambda A, B, S, x, s: inv(S)[m - 1, 0]),
        "Gram": (sp.Trace((S @ S.T).applyfunc(sp.tanh)), lambda A, B, S, x, s: np.tanh(np.diag(S @ S.T)).sum()),
    }


def start(m, n, seed=1):
    """Parameters at which S is far from singular."""
    w = np.random.default_rng(seed).standard_normal(2 * m * n + m * m + m + 1) / 2
    w[2 * m * n : 2 * m * n + m * m] += np.diag(1.5 + np.arange(m)).ravel()
    return w


@pytest.mark.parametrize(
    "m, n, names, order",
    [
        (4, 3, slice(0, 8), 2),
        (4, 3, slice(8, 16), 2),
        (4, 3, slice(16, 30), 2),
        (1, 3, slice(30), 3),
        (7, 9, slice(4), 3),
    ],
)
def test_language(m, n, names, order):
    """Each expression of the language is numpy's, and so are its derivatives, whatever the shapes."""
    params, cases = language(m, n)
    chosen = [(1 + k / 8, *case) for k, case in enumerate(list(cases.values())[names])]
    total = sum(factor * (sp.Trace(expr) if expr.is_Matrix else expr) for factor, expr, _ in chosen)
    check(total, params, lambda *v: sum(factor * f(*v) for factor, _, f in chosen), start(m, n), order)


SIZES = st.integers(1, 6)


@st.composite
def matrices(draw, m, n, depth):
    """(expression of shape m x n, numpy's function of the dictionary of its symbols, the symbols)."""
    kinds = ["leaf"] if not depth else ["sum", "product", "turned", "hadamard", "applied", "scaled", "power", "leaf"]
    kind = draw(st.sampled_from(kinds))
    if kind == "leaf":
        A = md.matrix(draw(st.sampled_from("PQ")) + f"{m}_{n}", m, n)
        return A, (lambda v: v[A.name]), {A}
    if kind == "product":
        k = draw(SIZES)
        (a, f, p), (b, g, q) = draw(matrices(m, k, depth - 1)), draw(matrices(k, n, depth - 1))
        return a @ b, (lambda v: f(v) @ g(v)), p | q
    if kind == "turned":
        a, f, p = draw(matrices(n, m, depth - 1))
        return a.T, (lambda v: f(v).T), p
    a, f, p = draw(matrices(m, n, depth - 1))
    if kind == "applied":
        return a.applyfunc(sp.sin), (lambda v: np.sin(f(v))), p
    if kind == "scaled":
        return a / 2, (lambda v: f(v) / 2), p
    if kind == "power":
        return sp.HadamardPower(a, 2), (lambda v: f(v) ** 2), p
    b, g, q = draw(matrices(m, n, depth - 1))
    if kind == "sum":
        return a - 2 * b, (lambda v: f(v) - 2 * g(v)), p | q
    return sp.HadamardProduct(a, b), (lambda v: f(v) * g(v)), p | q


@given(st.data())
@settings(max_examples=6, deadline=None, derandomize=True)
def test_any_expression(data):
    """A random tree of matrices of random shapes is numpy's, with its derivatives."""
    m, n = data.draw(SIZES), data.draw(SIZES)
    expr, f, symbols = data.draw(matrices(m, n, 3))
    params = sorted(symbols, key=str)
    loss = sp.Trace(expr @ sp.OneMatrix(n, m)) / 2
    w = np.random.default_rng(2).standard_normal(sum(int(sp.prod(p.shape)) for p in params)) / 2
    check(loss, params, lambda *v: f({p.name: a for p, a in zip(params, v, strict=True)}).sum() / 2, w)


@pytest.mark.parametrize("m, n, k", [(130, 1, 17), (1, 33, 130), (65, 64, 5), (16, 15, 1)])
def test_products_of_any_size(m, n, k):
    """Products are right at the edges of tiles of 4 x 16, at any size."""
    A, B, C = md.matrix("A", m, n), md.matrix("B", n, k), md.matrix("C", k, m)
    loss = md.Loss(sp.Trace(A @ B @ C) ** 2 / 2, [A, B, C])
    a, b, c = (np.random.default_rng(0).standard_normal(shape) for shape in ((m, n), (n, k), (k, m)))
    w = np.concatenate([a.ravel(), b.ravel(), c.ravel()])
    trace = np.trace(a @ b @ c)
    near(loss.value(w), trace**2 / 2, 1e-12, 1.0)
    expected = trace * np.concatenate([(b @ c).T.ravel(), (c @ a).T.ravel(), (a @ b).T.ravel()])
    near(loss.grad(w), expected, 1e-12)


def test_text_does_not_grow_with_the_matrices():
    """The generated text of a deep linear net is the same at 2 x 2 and at 100 x 100, up to its numbers."""
    texts = []
    for n in (2, 100):
        A, B, C, M = (md.matrix(name, n, n) for name in "ABCM")
        E = A @ B @ C - M
        loss = md.Loss(sp.Trace(E @ E.T) / 2, [A, B, C], constants={M: np.eye(n)})
        texts.append("".join("#" if c.isdigit() else c for c in loss.source.text))
    assert len(texts[0].replace("#", "")) == len(texts[1].replace("#", ""))


def test_cost_of_a_chain():
    """`x.T A B x` is never multiplied out as A B, and a product read twice, once transposed, is made once."""
    A, B, S, x = (md.matrix(name, 30, k) for name, k in (("A", 30), ("B", 30), ("S", 30), ("x", 1)))
    assert "product(" not in md.Loss(x.T @ A @ B @ x, [A, B, x]).source.text
    residual = A @ B - S
    value = md.Loss(sp.Trace(residual @ residual.T), [A, B, S]).source.text.split("def grad")[0]
    assert value.count("    product(") == 1


def test_matrices_in_every_sample():
    """Samples may be vectors or matrices; what stands in the loss is one of them."""
    rng = np.random.default_rng(0)
    P, Q, Z = (md.matrix(name, 4, 4) for name in "PQZ")
    zs, eye = rng.standard_normal((11, 4, 4)), np.eye(4)
    inside = P @ P.T + sp.Identity(4) + Z @ Z.T
    expr = sp.Trace((P @ Q @ Z - Z.T) @ Q) + sp.Trace(inside.inv() @ Q) + sp.log(sp.Determinant(inside))

    def f(p, q):
        each = [(np.linalg.inv(p @ p.T + eye + z @ z.T), z) for z in zs]
        return np.mean([np.trace((p @ q @ z - z.T) @ q) + np.trace(v @ q) - np.log(np.linalg.det(v)) for v, z in each])

    loss = check(expr, [P, Q], f, rng.standard_normal(32) / 2, 2, data={Z: zs})
    w = rng.standard_normal(32)
    near(loss.sample_grads(w).mean(axis=0), loss.grad(w), 1e-12)


def test_network_in_matrices():
    """A net of matrices is the same loss as one in sums; columns of data may be given as (n, m) or as (n, m, 1)."""
    rng = np.random.default_rng(0)
    W1, b1, W2, x = md.matrix("W1", 7, 3), md.matrix("b1", 7, 1), md.matrix("W2", 1, 7), md.matrix("x", 3, 1)
    a, v = md.vector("a", 7), md.vector("v", 3)
    xs, ys, w = rng.standard_normal((19, 3)), rng.standard_normal(19), rng.standard_normal(35)
    matrix = md.Loss.regression(W2 @ (W1 @ x + b1).applyfunc(sp.tanh), [W1, b1, W2], {x: xs}, ys)
    model = sp.Sum(a[i] * sp.tanh(b1[i, 0] + sp.Sum(W1[i, j] * v[j], (j, 0, 2))), (i, 0, 6))
    sums = md.Loss.regression(model, [W1, b1, a], {v: xs}, ys)
    for name in ("value", "grad", "sample_grads", "jacobian", "model_values"):
        near(getattr(matrix, name)(w), getattr(sums, name)(w), 1e-12)
    columns = md.Loss.regression(W2 @ (W1 @ x + b1).applyfunc(sp.tanh), [W1, b1, W2], {x: xs[:, :, None]}, ys)
    assert np.array_equal(columns.grad(w), matrix.grad(w))


def test_matrix_constants():
    """Constants may be matrices and vectors, and change without compiling again."""
    M, A, c, t = md.matrix("M", 3, 2), md.matrix("A", 2, 3), md.vector("c", 2), sp.Symbol("t")
    expr = t * sp.Trace(A @ M) + sp.Sum(c[i] * A[i, 0], (i, 0, 1))
    numbers = np.arange(6.0).reshape(3, 2)
    loss = md.Loss(expr, [A], constants={t: 2.0, M: numbers, c: [5.0, 7.0]})
    expected = 2.0 * numbers.T + np.array([[5.0, 0, 0], [7.0, 0, 0]])
    assert np.array_equal(loss.grad(np.zeros(6)), expected.ravel())
    other = loss.with_constants({M: -numbers})
    assert np.array_equal(other.grad(np.zeros(6)), (expected - 4.0 * numbers.T).ravel())
    assert other.source.text == loss.source.text and loss != other


@pytest.mark.parametrize("noise", [None, md.GaussianNoise(0.01), md.Minibatch(3)])
def test_paths_alone_and_in_company(noise):
    """A map on matrices takes the same path, to the last bit, alone and among others; without noise it is numpy's."""
    A, B, Z = (md.matrix(name, 5, 5) for name in "ABZ")
    rng = np.random.default_rng(0)
    E = A @ B.applyfunc(sp.tanh) @ A - Z
    zs, w = rng.standard_normal((6, 5, 5)), rng.standard_normal(50) / 3
    loss = md.Loss(sp.Trace(E @ E.T) / 2 + sp.log(sp.Determinant(A @ A.T + sp.Identity(5))), [A, B], data={Z: zs})
    system = md.Map(loss, md.SGD(0.01, momentum=0.5), noise=noise)
    alone, many = md.simulate(system, w, 8, paths=1, rng=3), md.simulate(system, w, 8, paths=70, rng=3)
    assert np.array_equal(alone.w[0], many.w[0])
    if noise is None:
        velocity = np.zeros(50)
        for _ in range(8):
            velocity = 0.5 * velocity + loss.grad(w)
            w = w - 0.01 * velocity
        near(alone.w[0, -1], w, 1e-13)


def test_determinants():
    """`log(Determinant)` survives where the determinant overflows, and is NaN where it is negative."""
    S = md.matrix("S", 40, 40)
    loss = md.Loss(sp.log(sp.Determinant(S)), [S])
    a = 1e10 * (np.eye(40) + np.random.default_rng(0).standard_normal((40, 40)) / 20)
    near(loss.value(a.ravel()), np.linalg.slogdet(a)[1], 1e-13)
    near(loss.grad(a.ravel()), np.linalg.inv(a).T.ravel(), 1e-12)
    a[0] = -a[0]
    assert np.isnan(loss.value(a.ravel()))
    small = md.matrix("S", 3, 3)
    assert np.array_equal(md.Loss(sp.Determinant(small), [small]).grad([1.0, 0, 0, 0, 1.0, 0, 0, 0, 0]), [0] * 8 + [1])


def test_refusals():
    """What cannot be read is refused in a sentence that names the subexpression."""
    A, M = md.matrix("A", 2, 3), md.matrix("M", 3, 3)
    n = sp.Symbol("n", integer=True)
    refused = {
        sp.tanh(M): "M is a 3 x 3 matrix where a number is expected.*applyfunc",
        sp.Trace(sp.MatrixSymbol("Q", 3, 3)): "the matrix Q is neither a parameter, a constant nor data",
        sp.Trace(M ** sp.Rational(1, 2)): "the power of a matrix must be a whole number",
        sp.Trace(sp.MatrixSymbol("Q", n, n)): r"the matrix Q has the shape \(n, n\): both sizes must be positive whole",
        sp.Trace(sp.MatrixSymbol("M", 2, 2)): r"M is used as a 2 x 2 matrix, but declared with the shape \(3, 3\)",
        sp.Trace(sp.Inverse(A @ A.T) @ sp.KroneckerProduct(A[:, 0], A[0, :2])): "uses KroneckerProduct",
        sp.Determinant(A @ A.T) * sp.Trace(M[::2, ::2]): "sympy takes this slice for a 1 x 1",
    }
    for expr, message in refused.items():
        with pytest.raises(ExpressionError, match=message):
            md.Loss(expr, [A, M])
    with pytest.raises(InputError, match="one sympy expression, not"):
        md.Loss(A @ M, [A, M])
    with pytest.raises(InputError, match="number of rows of a matrix"):
        md.matrix("A", 0, 2)
    with pytest.raises(InputError, match="the name of a matrix is a text"):
        md.matrix(3, 2, 2)
    with pytest.raises(InputError, match=r"the constant M must be an array of finite numbers of shape \(3, 3\)"):
        md.Loss(sp.Trace(M), [A], constants={M: np.eye(2)})
