"""A sum that is written out, over units, samples or entries, is the loop that `Sum` would be."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import sympy as sp
from conformance import stated_covariance
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import MP, evaluate, gather, kernel_jets, literal_jets
from mpmath import mp, mpf

import minidyn as md
from minidyn.common.errors import ExpressionError
from minidyn.graph import Graph, derivatives, reachable
from minidyn.maps.loss import mean

x, y, s = sp.symbols("x y s")
j, k = sp.symbols("j k", integer=True)
UNARY = {"tanh": sp.tanh, "exp": lambda u: sp.exp(-(u**2)), "sin": sp.sin, "relu": lambda u: sp.Max(0, u),
         "softplus": lambda u: sp.log(1 + sp.exp(u)), "root": lambda u: sp.sqrt(1 + u**2), "square": lambda u: u**2,
         "branch": lambda u: sp.Piecewise((u**2, u > 0.3), (0, True))}  # fmt: skip


def loops(loss: md.Loss) -> int:
    """How many loops over terms there are in the loss."""
    return len(
        {n.data for n in reachable([loss.mean_node(Graph())]) if n.op == "sum" and n.data.kind in ("sum", "row")}
    )


def jets(loss: md.Loss, rolled: bool, w, u) -> list:
    """Value, gradient and Hessian times u in 30 digits, from the graph with loops or from the one written out."""
    g = Graph()
    node = mean(loss.sample_node(g, loops=rolled))
    pairs = derivatives.reverse(node, "w")
    along = derivatives.forward([d for _, d in pairs], "w", "u")
    with mp.workdps(30):
        arrays = {"w": [mpf(v) for v in w], "u": [mpf(v) for v in u], "c": loss.c, "d": loss.rows}
        grad = gather(pairs, loss.dim, arrays, MP)
        hvp = gather([(e, t) for (e, _), t in zip(pairs, along, strict=True)], loss.dim, arrays, MP)
        return [float(v) for v in (evaluate(node, arrays, MP), *grad, *hvp)]


def check(loss: md.Loss, seed: int = 0) -> None:
    """With loops as without, up to the rounding of numbers that are multiplied while the graph is made."""
    w, u = np.random.default_rng(seed).normal(size=(2, loss.dim))
    got, want = jets(loss, True, w, u), jets(loss, False, w, u)
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13 * max(1.0, *np.abs(want)))


def net(size: int, a, w, b, at=x):
    return sum(a[i] * sp.tanh(w[i] * at + b[i]) for i in range(size))


def symbols(name: str, size: int) -> tuple[sp.Symbol, ...]:
    return sp.symbols(f"{name}:{size}")


# -- the law --------------------------------------------------------------------------------------------------

TREES = st.recursive(
    st.sampled_from(["a", "b", "next", "number", "other", "half", "s", "x"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from([*UNARY]), inner), st.tuples(st.sampled_from(["+", "*"]), inner, inner)
    ),
    max_leaves=6,
)


def grown(tree, leaf) -> sp.Expr:
    if isinstance(tree, str):
        return leaf(tree)
    head, *args = tree
    of = [grown(a, leaf) for a in args]
    return UNARY[head](*of) if head in UNARY else of[0] + of[1] if head == "+" else of[0] * of[1]


@settings(max_examples=30)
@given(tree=TREES, size=st.sampled_from([1, 7, 8, 9, 13, 25, 40, 130]), order=st.randoms(use_true_random=False),
       layout=st.sampled_from(["blocks", "mixed", "sorted", "any"]), beside=st.booleans(), outer=st.booleans(),
       data=st.booleans())  # fmt: skip
def test_any_sum_is_what_it_was(tree, size, order, layout, beside, outer, data):
    """Sums of 1 to 130 random terms of one shape, with neighbours, numbers and company, with parameters declared in
    any order: value, gradient and Hessian are those of the sum written out."""
    a, b = symbols("a", size + 1), symbols("b", size + 1)
    rng = np.random.default_rng(size)
    numbers = np.round(rng.normal(size=(2, size)), 3)  # zeros and ones among them
    numbers[0, :: max(1, size // 4)] = 1.0

    def term(i: int) -> sp.Expr:
        leaf = {"a": a[i], "b": b[i], "next": a[i + 1], "number": numbers[0, i], "other": numbers[1, i],
                "half": 0.5 * numbers[0, i], "s": s, "x": x if data else s}  # fmt: skip
        return grown(tree, leaf.__getitem__)

    terms = [sp.sympify(term(i)) for i in range(size)]
    order.shuffle(terms)
    total = sum(terms, sp.S.Zero) + (s * a[0] + 2 if beside else 0)
    params = [*a, *b] if layout == "blocks" else [p for pair in zip(a, b, strict=True) for p in pair]
    if layout == "sorted":
        params.sort(key=str)
    elif layout == "any":
        order.shuffle(params)
    check(md.Loss((total - s) ** 2 / size if outer else total, [*params, s], data={x: [0.3, -0.8]} if data else None))


@settings(max_examples=12)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    swapped=st.booleans(),
    hole=st.booleans(),
    layout=st.sampled_from(["blocks", "mixed"]),
)
def test_any_double_sum_is_what_it_was(rows, columns, swapped, hole, layout):
    """Sums over pairs, `(u_i v_j - A_ij)^2`, whole or with an entry left out: those written out, in a nest of loops."""
    u, v = symbols("u", rows), symbols("v", columns)
    given = np.random.default_rng(rows).normal(size=(rows, columns))
    pairs = [(i, q) for i in range(rows) for q in range(columns)][int(hole) :] or [(0, 0)]
    total = sum((u[i] * v[q] - given[i, q]) ** 2 for i, q in pairs)
    params = [*v, *u] if swapped else [*u, *v]
    loss = md.Loss(total, params if layout == "blocks" else sorted(params, key=lambda p: (str(p)[1:], str(p))))
    check(loss)
    if min(rows, columns) >= 8 and not hole and layout == "blocks":
        assert loops(loss) == 2


# -- the nodes of the indexed form ----------------------------------------------------------------------------


def alike(written: md.Loss, indexed: md.Loss) -> None:
    """The same operations on the same places, in the loss and in two derivatives of it."""

    def operations(loss: md.Loss) -> Counter:
        node = loss.mean_node(Graph())
        slopes = [d for _, d in derivatives.reverse(node, "w")]
        nodes = reachable([node, *slopes, *derivatives.forward(slopes, "w", "u")])
        return Counter((n.op, None if n.op == "count" else n.data, n.indices) for n in nodes)

    assert operations(written) == operations(indexed)


@pytest.mark.parametrize("size", [8, 31, 130])
def test_a_net_is_the_indexed_one(size):
    """Units as symbols, entries of vectors or of a matrix: node by node the net of a `Sum`, on data."""
    a, w, b = (md.vector(n, size) for n in "awb")
    data = {x: [0.1, -0.4, 1.2], y: [1.0, 0.5, 0.2]}
    indexed = md.Loss((sp.Sum(a[j] * sp.tanh(w[j] * x + b[j]), (j, 0, size - 1)) - y) ** 2 / 2, [a, w, b], data=data)
    alike(md.Loss((net(size, a, w, b) - y) ** 2 / 2, [a, w, b], data=data), indexed)
    flat = [symbols(n, size) for n in "awb"]
    alike(md.Loss((net(size, *flat) - y) ** 2 / 2, [p for f in flat for p in f], data=data), indexed)
    table = sp.Matrix(3, size, lambda r, i: sp.Symbol(f"m{r}_{i}"))
    alike(md.Loss((net(size, *(table.row(r) for r in range(3))) - y) ** 2 / 2, [table], data=data), indexed)
    matrix = sp.MatrixSymbol("M", 3, size)
    rows = [[matrix[r, i] for i in range(size)] for r in range(3)]
    nested = sp.Sum(matrix[0, j] * sp.tanh(matrix[1, j] * x + matrix[2, j]), (j, 0, size - 1))
    alike(md.Loss((net(size, *rows) - y) ** 2, [matrix], data=data), md.Loss((nested - y) ** 2, [matrix], data=data))


@pytest.mark.parametrize(("outer", "inner"), [(8, 8), (16, 9), (9, 30)])
def test_two_layers_are_the_indexed_ones(outer, inner):
    """Units within units, `W[i, j]`, all written out, or one of the two sums: node by node the nest of sums."""
    weights, a, u = sp.MatrixSymbol("W", outer, inner), md.vector("a", outer), md.vector("u", inner)
    hidden = [sp.sin(u[q] * x) for q in range(inner)]
    within = sp.Sum(weights[k, j] * sp.sin(u[j] * x), (j, 0, inner - 1))
    indexed = sp.Sum(a[k] * sp.tanh(within), (k, 0, outer - 1))
    written = sum(a[i] * sp.tanh(sum(weights[i, q] * hidden[q] for q in range(inner))) for i in range(outer))
    mixed = sum(a[i] * sp.tanh(within.subs(k, i)) for i in range(outer))
    losses = [
        md.Loss((f - y) ** 2, [a, u, weights], data={x: [0.1, 0.7], y: [1.0, 2.0]}) for f in (indexed, written, mixed)
    ]
    alike(losses[1], losses[0])
    alike(losses[2], losses[0])


def test_kernels_do_not_grow():
    """Kernels of 100 and of 130 units, of 100 and of 200 samples written out, differ in digits alone."""

    def text(loss: md.Loss) -> str:
        return re.sub(r"\d+", "#", loss.source.text)

    units = [[symbols(n, size) for n in "awb"] for size in (100, 130)]
    nets = [
        md.Loss((net(len(p[0]), *p) - y) ** 2, [q for f in p for q in f], data={x: [0.1, 2.0], y: [1.0, 2.0]})
        for p in units
    ]
    assert text(nets[0]) == text(nets[1]) and len(text(nets[0])) < 15_000
    found = []
    for size in (100, 200):
        given, target = np.random.default_rng(0).normal(size=(2, size))
        found.append(
            md.Loss(sum((s * sp.exp(-x * t) + y - v) ** 2 for t, v in zip(given, target, strict=True)), [s, x, y])
        )
        assert loops(found[-1]) == 1
    assert text(found[0]) == text(found[1])


def test_five_thousand_terms():
    """A sum of 5000 terms is a few nodes, also where all share something of 60 layers."""
    deep = sp.sin(s)
    for _ in range(60):
        deep = sp.sin(deep) + sp.cos(deep)
    p = symbols("p", 5001)
    loss = md.Loss(sp.Add(*(p[i] * sp.tanh(p[i + 1] * deep) for i in range(5000))), [*p, s])
    assert len(reachable([loss.mean_node(Graph())])) < 250


# -- samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 33, 100])
def test_samples_written_out_are_data(size):
    """Samples of a net of 9 units as numbers in a sum: value to third derivative of the loss with `data=`."""
    given, target = np.random.default_rng(size).normal(size=(2, size))
    flat = [symbols(n, 9) for n in "awb"]
    params = [p for f in flat for p in f]
    written = sum((net(9, *flat, at=t) - v) ** 2 for t, v in zip(given, target, strict=True)) / size
    loss, data = md.Loss(written, params), md.Loss((net(9, *flat) - y) ** 2, params, data={x: given, y: target})
    assert loops(loss) == 2
    w, u, v = np.random.default_rng(0).normal(size=(3, 27))
    for name, args in (("value", (w,)), ("grad", (w,)), ("hessian", (w,)), ("hvp", (w, u)), ("third", (w, u, v))):
        got, want = getattr(loss, name)(*args), getattr(data, name)(*args)
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11 * np.abs(want).max(), err_msg=name)


def test_simulations_of_samples_written_out():
    """Maps and flows on 40 samples written out are those on data, with constants beside the numbers."""
    given, target = np.random.default_rng(0).normal(size=(2, 40))
    rate = sp.Symbol("rate")
    written = sum((s * sp.exp(-rate * x * t) - v) ** 2 for t, v in zip(given, target, strict=True)) / 40
    loss = md.Loss(written, [s, x], constants={rate: 0.5})
    data = md.Loss((s * sp.exp(-rate * x * y) - k) ** 2, [s, x], constants={rate: 0.5}, data={y: given, k: target})
    for of in (
        lambda f: md.Map(f, md.Adam(0.05), md.GaussianNoise(0.1)),
        lambda f: md.GradientFlow(md.Map(f, md.GD(0.1))),
    ):
        runs = [md.simulate(of(f), [0.5, 0.2], 20, paths=9, rng=0).w for f in (loss, data)]
        np.testing.assert_allclose(*runs, rtol=1e-7)
    other = [f.with_constants({rate: 0.7}).grad([0.5, 0.2]) for f in (loss, data)]
    np.testing.assert_allclose(*other, rtol=1e-12)


def test_a_parameter_in_two_terms_under_minibatches():
    """`sum_j tanh(w_j w_(j+1) x)`, whose loops read a parameter twice: the noise's diagonal is that of the sample
    gradients."""
    p = symbols("p", 11)
    f = sum(sp.tanh(p[i] * p[i + 1] * x) for i in range(10))
    loss = md.Loss.regression(f, p, {x: [0.4, -1.0, 0.9]}, [1.0, 0.2, 0.5])
    w = np.linspace(0.5, 1.0, 11)
    system = md.Map(loss, md.RMSProp(0.01), md.Minibatch(1))
    assert loops(loss) == 1
    diagonal = stated_covariance(system, w)[1]
    np.testing.assert_allclose(diagonal, loss.sample_grads(w).var(axis=0), rtol=1e-10)


# -- what stays -----------------------------------------------------------------------------------------------


def test_what_stays_written_out():
    """Up to 7 equal terms, up to 24 in as few parameters without data, and up to 12 exponentials have no loop."""
    p = symbols("p", 25)
    assert loops(md.Loss(net(7, *[p[:7]] * 3), p, data={x: [1.0, 2.0]})) == 0
    assert loops(md.Loss(sum(sp.sin(q) for q in p[:24]), p[:24])) == 0
    assert loops(md.Loss(sp.log(sum(sp.exp(q) for q in p[:12])), p, data={x: [1.0, 2.0]})) == 0
    assert loops(md.Loss(net(8, *[p[:8]] * 3), p, data={x: [1.0, 2.0]})) == 1
    assert loops(md.Loss(sum(sp.sin(q) for q in p), p)) == 1


def literally(loss: md.Loss, w) -> dict:
    u, v, t = np.random.default_rng(1).normal(size=(3, loss.dim))
    want = {n: float(f) for n, f in literal_jets(loss, w, u, v, t).items()}
    got = kernel_jets(loss, w, u, v, module=loss.kernels)
    return {n: (float(np.dot(t, got[n])) if n != "value" else float(got[n]), want[n]) for n in want}


@pytest.mark.parametrize("size", [3, 8, 12, 13, 30])
@pytest.mark.parametrize("scale", [1.0, 30.0, 700.0])
def test_logarithms_of_sums_do_not_overflow(size, scale):
    """log-sum-exp of 3 to 30 written exponentials, and a share of it, have 9 digits up to exponents of 700."""
    p = symbols("p", size)
    total = sum(sp.exp(q) for q in p)
    w = scale * np.linspace(-1.0, 1.0, size)
    for f in (sp.log(total), sp.log(total) - p[1], -sp.log(sp.exp(p[-1]) / total)):
        loss = md.Loss(f, p)
        value, grad = loss.value(w), loss.grad(w)
        with mp.workdps(60):
            terms = [mp.exp(mpf(q)) for q in w]
            below = {1: mpf(w[1]), 2: mpf(w[-1])}.get(1 if f.is_Add else 2 if f.args[0] == -1 else 0, mpf(0))
            want = [float(t / sum(terms)) for t in terms]
            np.testing.assert_allclose(value, float(mp.log(sum(terms)) - below), rtol=1e-9, atol=1e-14)
        want[1] -= float(f.is_Add)
        want[-1] -= float(not f.is_Add and f.args[0] == -1)
        np.testing.assert_allclose(grad, want, rtol=1e-9, atol=1e-13)


CANCEL = {
    "expm1": lambda u: sp.exp(u) - 1,
    "versine": lambda u: 1 - sp.cos(u),
    "tanh": lambda u: 1 - sp.tanh(30 * u),
    "sinc": lambda u: sp.sin(u) / u,
    "softplus": lambda u: sp.log(1 + sp.exp(30 * u)),
    "erfc": lambda u: 1 - sp.erf(9 * u),
}


@pytest.mark.parametrize("f", CANCEL.values(), ids=CANCEL)
@pytest.mark.parametrize("at", [1e-9, 1.0])
def test_what_cancels_is_still_recognized(f, at):
    """Functions that are recognized term by term keep their digits in the loop, although sympy multiplies the numbers
    into them: squares on 30 samples against mpmath, to third order."""
    given, weights = np.random.default_rng(0).uniform(0.5, 1.5, size=(2, 30))
    loss = md.Loss(sum((v * f(x * t)) ** 2 for t, v in zip(given, weights, strict=True)), [x])
    assert loops(loss) == 1
    for name, (got, want) in literally(loss, [at]).items():
        assert abs(got - want) <= 1e-9 * abs(want) + 1e-300, name


def test_refusals_name_the_term():
    """What cannot be read is said of the term as the user wrote it, as for a short sum."""
    p, f = symbols("p", 30), sp.Function("f")
    texts = []
    for terms in ([f(q) for q in p], [sp.Piecewise((q, q > 1)) for q in p], [sp.sin(q) * sp.I for q in p]):
        for total in (sp.Add(*terms), terms[0] + 1):
            with pytest.raises(ExpressionError) as caught:
                md.Loss(total, p)
            texts.append(re.sub(r"p\d+", "p", str(caught.value)))
    assert texts[0] == texts[1] and texts[2] == texts[3] and "_" not in "".join(texts)
