"""Derivatives on the graph: exact rules, and kernels accurate to the last digits over the whole range of doubles."""

import functools
import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from interpreter import (
    BOUNDED,
    MP,
    derivative,
    evaluate,
    excess,
    gather,
    interpreted,
    jets,
    kernel_jets,
    literal,
    literal_jets,
)
from mpmath import mp, mpf

import minidyn as md
from minidyn.graph import SAMPLE, Graph
from minidyn.graph.derivatives import forward, reverse

TOLERANCE = 1e-13
t = sp.Symbol("t", real=True)
x, y, z = sp.symbols("x y z", real=True)


# -- every function, over its range ---------------------------------------------------------------


def both(low, high, count=12):
    """Numbers of both signs, from 10**low to 10**high in size."""
    a = np.logspace(low, high, count) * 1.2345678
    return np.concatenate([-a[::-1], a])


def positive(low, high):
    return np.logspace(low, high, 24) * 1.2345678


def near(*points):
    """Numbers that approach each of the points from inside (-1, 1)."""
    return np.concatenate([p * (1 - np.logspace(-15, -1, 12)) for p in points])


def centre(high):
    """Both signs: tiny numbers, and ordinary ones up to `high`."""
    return np.concatenate([both(-140, -1), np.linspace(-high, high, 25) + 0.0123])


FUNCTIONS = {  # expression in t: its range, short of where the result itself over- or underflows
    sp.exp(t): centre(700), sp.log(t): positive(-100, 100), sp.sqrt(t): positive(-100, 100),
    sp.sin(t): np.concatenate([centre(10), both(1, 15)]), sp.cos(t): np.concatenate([centre(10), both(1, 15)]),
    sp.tan(t): np.concatenate([centre(10), both(1, 15)]), sp.asin(t): np.concatenate([centre(0.9), near(-1, 1)]),
    sp.acos(t): np.concatenate([centre(0.9), near(-1, 1)]), sp.atan(t): np.concatenate([centre(10), both(-140, 50)]),
    sp.sinh(t): centre(700), sp.cosh(t): centre(700), sp.tanh(t): centre(300), sp.erf(t): centre(25),
    sp.log(1 + sp.exp(t)): centre(700), 1 / (1 + sp.exp(-t)): centre(700), sp.exp(t) / (1 + sp.exp(t)): centre(700),
    1 / (1 + sp.exp(t)) ** 2: centre(340), sp.log(sp.cosh(t)): centre(300),
    sp.log(1 + t): np.concatenate([both(-140, -1), near(-1), positive(0, 90)]),
    sp.log(1 - t): np.concatenate([both(-140, -1), near(1), -positive(0, 90)]),
    sp.exp(t) - 1: centre(700), 1 - sp.exp(-t): centre(700),
    sp.Abs(t): both(-100, 100), sp.sign(t): both(-100, 100), sp.Heaviside(t): both(-100, 100),
    **{t**n: both(-10, 10) for n in (2, 3, 4, 5, 8, -1, -2, -3, -5, -8)},
    **{t**sp.Rational(p, q): positive(-50, 50) for p, q in ((3, 2), (5, 2), (7, 2), (-1, 2), (-3, 2), (1, 3), (-4, 3))},
    t**sp.pi: positive(-50, 50), t**0.7: positive(-50, 50), 2**t: centre(300), sp.Rational(1, 3) ** t: centre(300),
    t**t: np.concatenate([positive(-100, 0), np.linspace(1, 140, 12)]),
}  # fmt: skip


def separate_jets(grids):
    """(function, order) -> derivatives of that order on the function's grid: one loss `sum_k z_k f_k(x_k)`,
    compiled once, whose slope in z_k is the function itself."""
    xs, zs = (sp.symbols(f"{letter}:{len(grids)}", real=True) for letter in "xz")
    loss = md.Loss(sum(s * f.subs(t, q) for f, q, s in zip(grids, xs, zs, strict=True)), [*xs, *zs])
    n, rows = len(grids), max(map(len, grids.values()))
    w = np.hstack([np.array([np.resize(grid, rows) for grid in grids.values()]).T, np.ones((rows, n))])
    u = np.hstack([np.ones((rows, n)), np.zeros((rows, n))])
    grad = loss.grad(w)
    orders = [grad[:, n:], grad[:, :n], loss.hvp(w, u)[:, :n], loss.third(w, u, u)[:, :n]]
    return {(f, o): orders[o][: len(grids[f]), i] for i, f in enumerate(grids) for o in range(4)}


@functools.cache
def function_jets():
    return separate_jets(FUNCTIONS)


@functools.cache
def exact(f, points):
    """f and its derivatives up to the fourth at the points, from sympy and mpmath."""
    steps = [f]
    for _ in range(4):
        steps.append(sp.diff(steps[-1], t).subs(sp.DiracDelta(t), 0))
    with mp.workdps(800):  # sympy's derivatives cancel: 50 digits remain after the worst of it
        return [[literal(s, {t: p}) for p in points] for s in steps]


@pytest.mark.parametrize("f", FUNCTIONS, ids=str)
def test_function_and_three_derivatives(f):
    """f, f', f'' and f''' lie within 1e-13 of mpmath, times the condition |x f(k+1)/f(k)| where that exceeds 1."""
    points = FUNCTIONS[f]
    want = exact(f, tuple(points))
    for order in range(4):
        got = function_jets()[f, order]
        for p, g, w, slope in zip(points, got, want[order], want[order + 1], strict=True):
            condition = max(1, abs(mpf(p) * slope / w)) if w else 1
            with mp.workdps(50):
                error = abs(mpf(float(g)) - w)
            assert error <= TOLERANCE * condition * abs(w), f"order {order} at {p!r}: {g!r}, not {mp.nstr(w, 17)}"


@pytest.mark.parametrize("order", range(4))
def test_symbolic_power(order):
    """x**y and its derivatives along (1, -1), positive x, y of both signs, lie within 1e-13 times their condition."""
    loss = md.Loss(x**y, [x, y])
    module = interpreted(loss)
    for point in [(1e-8, 0.3), (0.7, -4.5), (2.5, 80.25), (1e20, -3.5), (1.0000001, 1e5), (3.0, 2.0)]:
        check_conditioned(loss, module, point, [(1.0, -1.0)] * order)


# -- random expressions ---------------------------------------------------------------------------

ONE_ARGUMENT = [
    sp.sin, sp.cos, sp.tanh, sp.atan, sp.erf, sp.Abs, sp.log(sp.cosh(t)), sp.log(1 + sp.exp(t)),
    1 / (1 + sp.exp(t)), sp.exp(sp.sin(t)), sp.exp(sp.sin(t)) - 1, sp.exp(-(t**2)), sp.log(2 + t**2),
    sp.log(1 + sp.sin(t) ** 2), sp.sqrt(1 + t**2), sp.asin(sp.sin(t) / 2), sp.acos(sp.tanh(t) / 2),
    sp.sinh(sp.cos(t)), sp.cosh(sp.sin(t)), sp.tan(sp.sin(t)), t**2, t**3, -t, (3 + sp.sin(t)) ** sp.Rational(5, 2),
    (3 + sp.cos(t)) ** -3, 1 / (2 + sp.cos(t)), sp.Heaviside(t),
]  # fmt: skip
TWO_ARGUMENTS = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / (1 + b**2),
    sp.Max,
    sp.Min,
    lambda a, b: (2 + sp.tanh(a)) ** sp.sin(b),
    lambda a, b: sp.Piecewise((a, b > sp.Rational(1, 7)), (a * b, True)),
]


def apply(f, a):
    return f.subs(t, a) if isinstance(f, sp.Basic) else f(a)


@st.composite
def expressions(draw, depth=3):
    """A random expression in x, y, z: operations nested `depth` deep along at least one way down."""
    if depth == 0:
        number = st.builds(sp.Rational, st.integers(1, 9), st.sampled_from([2, -3, 7]))
        return draw(st.sampled_from([x, y, z, x, y, z]) | number)
    inner = draw(expressions(depth - 1))
    if draw(st.booleans()):
        return apply(draw(st.sampled_from(ONE_ARGUMENT)), inner)
    other = draw(expressions(draw(st.integers(0, depth - 1))))
    return draw(st.sampled_from(TWO_ARGUMENTS))(*draw(st.permutations([inner, other])))


numbers = st.floats(-2, 2).map(lambda r: round(r, 3) + 0.000123)
points = st.tuples(numbers, numbers, numbers)


def tame(expr, values):
    """Whether no subexpression is huge here, and no branch point close: the differences see a smooth function."""
    fine = [True]

    def look(e, v):
        if isinstance(e, (sp.Abs, sp.Heaviside)):
            fine.append(abs(literal(e.args[0], values)) > 1e-9)
        elif isinstance(e, (sp.Max, sp.Min)) or e.is_Relational:
            sides = sorted(literal(a, values) for a in e.args)
            fine.extend(high - low > 1e-9 for low, high in itertools.pairwise(sides))
        elif not isinstance(v, bool):
            fine.append(abs(v) < 1e6)
            if isinstance(e, (sp.exp, sp.cosh)):
                fine.append(abs(literal(e.args[0], values)) < 60)
        return v

    literal(expr, values, look)
    return all(fine)


def conditioned(expr, params, w, directions):
    """A mixed derivative along the directions, and the sum of its sizes times condition: how much it
    moves, per relative change, when any one subexpression is off by a small factor."""

    def along(nudge):
        return derivative(lambda p: literal(expr, dict(zip(params, p, strict=True)), nudge), w, directions)

    with mp.workdps(200):
        delta, nodes = mpf(10) ** -20, [e for e in set(sp.preorder_traversal(expr)) if not e.is_Number]
        exact = along(lambda e, v: v)
        moved = [along(lambda e, v, n=n: v * (1 + delta) if e == n and not isinstance(v, bool) else v) for n in nodes]
        return exact, abs(exact) + sum(abs(m - exact) for m in moved) / delta


def check_conditioned(loss, module, w, directions):
    """One contraction of the derivative of order len(directions), in the generated text run as plain Python."""
    exact, size = conditioned(loss.expr, loss.params, w, directions)
    name = ("value", "grad", "hvp", "third")[len(directions)]
    pad = [*directions[:-1], (0.0,) * loss.dim, (0.0,) * loss.dim]
    got = kernel_jets(loss, w, pad[0], pad[1], module, only=name)[name]
    if directions:
        got = sum(mpf(float(g)) * mpf(d) for g, d in zip(got, directions[-1], strict=True))
    told = f"{name}: {mp.nstr(mpf(got), 17)}, not {mp.nstr(exact, 17)}"
    assert abs(got - exact) <= TOLERANCE * size + mpf(10) ** -60, told


@settings(max_examples=60)
@given(expressions(), points, points, points, st.integers(0, 2), st.integers(0, 2))
def test_random_expression(expr, w, u, v, row, column):
    """Value, grad, hvp, Hessian, third of a random expression lie within 1e-13 of mpmath, times the condition."""
    assume(expr.free_symbols)
    with mp.workdps(60):
        assume(tame(expr, dict(zip((x, y, z), w, strict=True))))
    loss = md.Loss(expr, [x, y, z])
    module = interpreted(loss)
    unit = np.eye(3).tolist()
    for directions in ([], [unit[row]], [u, unit[row]], [unit[column], unit[row]], [u, v, unit[row]]):
        check_conditioned(loss, module, w, directions)


# -- branches -------------------------------------------------------------------------------------


GUARDED = {  # the branch for t > 0, the branch elsewhere, both in one expression
    (t * sp.log(t), sp.S.Zero): lambda f, g: sp.Piecewise((f, t > 0), (g, True)),
    (sp.sqrt(t) + 3 * sp.sqrt(t) ** 3, sp.S.Zero): lambda f, g: sp.Piecewise((g, t <= 0), (f, True)),
    (t * sp.exp(-1 / t), t**3): lambda f, g: t * sp.Piecewise((f / t, t > 0), (g / t, True)),
}


@functools.cache
def guarded_jets():
    return separate_jets({both(*branches): [0.0, -1.0, 2.0] for branches, both in GUARDED.items()})


@pytest.mark.parametrize("branches", GUARDED, ids=str)
def test_branch_not_taken(branches):
    """Where one branch is infinite or undefined, the other's value and three derivatives are untouched by it."""
    f = GUARDED[branches](*branches)
    for order in range(4):
        want = [sp.diff(branches[p <= 0], t, order).subs(t, p) for p in (0, -1, 2)]
        np.testing.assert_allclose(guarded_jets()[f, order], np.array(want, dtype=float), rtol=1e-13)


@functools.cache
def zero_jets():
    return separate_jets({f: [0.0] for f in AT_ZERO})


AT_ZERO = [t ** sp.Rational(3, 2), t**2.5, t**4, sp.Max(sp.sqrt(t), 1) * 2, t ** sp.Rational(7, 2)]


@pytest.mark.parametrize("f", AT_ZERO, ids=str)
def test_slope_at_zero(f):
    """At t = 0 the slope of t**(3/2), t**4, max(sqrt t, 1) is 0, not NaN."""
    assert zero_jets()[f, 1] == [0.0]


KINKS = {  # value and slope left of 1, at 1, right of 1
    sp.Abs(t - 1): ((0.5, -1), (0, 0), (0.5, 1)),
    sp.sign(t - 1): ((-1, 0), (0, 0), (1, 0)),
    sp.Heaviside(t - 1): ((0, 0), (0.5, 0), (1, 0)),
    sp.Heaviside(t - 1, 0): ((0, 0), (0, 0), (1, 0)),
    sp.Heaviside(t - 1, 1): ((0, 0), (1, 0), (1, 0)),
    sp.Piecewise((t**2, t < 1), (5, t <= 1), (7 * t, True)): ((0.25, 1), (5, 0), (10.5, 7)),
    sp.Piecewise((t, sp.And(t > 0, t < 1)), (2 * t, sp.Eq(t, 1)), (3 * t, True)): ((0.5, 1), (2, 2), (4.5, 3)),
    sp.Piecewise((t, sp.Or(t > 1, t < 0)), (2 * t, sp.Ne(t, 1)), (3 * t, True)): ((1, 2), (3, 3), (1.5, 1)),
    sp.Piecewise((t, sp.Piecewise((2 * t, t < 1), (t / 2, True)) > 0.6), (5 * t, True)): ((0.5, 1), (5, 5), (1.5, 1)),
    sp.Piecewise((t, sp.ITE(t > 1.2, True, t < 0.7)), (5 * t, True)): ((0.5, 1), (5, 5), (1.5, 1)),
    sp.Min(t, 1): ((0.5, 1), (1, {0, 1}), (1, 0)),
    sp.Max(t, 1): ((1, 0), (1, {0, 1}), (1.5, 1)),
    sp.Max(t, 2 * t - 1, 3 * t - 2): ((0.5, 1), (1, {1, 2, 3}), (2.5, 3)),
}


@pytest.mark.parametrize("f", KINKS, ids=str)
def test_kink(f):
    """Left of, at and right of a kink the value and the slope are those of the branch taken (on a tie, any)."""
    loss = md.Loss(f, [t])
    module = interpreted(loss)
    for at, (value, slope) in zip((0.5, 1.0, 1.5), KINKS[f], strict=True):
        got = kernel_jets(loss, [at], [1.0], [1.0], module)
        assert got["value"] == value
        assert got["grad"][0] in (slope if isinstance(slope, set) else {slope})
        assert got["hvp"][0] == (2.0 if f.has(t**2) and at < 1 else 0.0)


@pytest.mark.parametrize("f", [sp.Max(x, y), sp.Min(x, y), sp.sign(x) + y, sp.Heaviside(x) + y, sp.Abs(x) + y], ids=str)
def test_nan_stays_nan(f):
    """NaN in a parameter gives NaN, whatever is chosen or compared: divergence cannot hide."""
    assert np.isnan(kernel_jets(md.Loss(f, [x, y]), [np.nan, 1.0], [1.0] * 2, [1.0] * 2, only="value")["value"])


# -- sums -----------------------------------------------------------------------------------------

a, b, c = (md.vector(name, 4) for name in "abc")
W, M = sp.IndexedBase("W", shape=(4, 4)), sp.MatrixSymbol("M", 4, 4)
V, X = md.vector("V", 4), sp.Symbol("X")
j, k, m = sp.symbols("j k m", integer=True)
DATA = {X: [0.3, -1.1, 0.8], V: np.linspace(-1, 1.3, 12).reshape(3, 4)}


def over(body, *loops):
    return sp.Sum(body, *(loop if isinstance(loop, tuple) else (loop, 0, 3) for loop in loops))


NET = over(a[j] * sp.tanh(b[j] * X + c[j]), j)
SUMS = {
    "net": (NET - x) ** 2 / 2,
    "used twice": NET * sp.exp(NET / 4) + sp.sin(NET) * over(a[j] ** 3, j),
    "two layers": over(a[j] * sp.tanh(over(W[j, k] * V[k], k)), j) ** 2,
    "three layers": over(sp.tanh(over(W[j, k] * sp.tanh(over(M[k, m] * V[m], m)), k)) * a[j], j) ** 2,
    "equal ranges": over(a[j] * over(b[k] * a[k] * sp.sin(c[j] * a[k]), k), j),
    "inner sum free of the outer index": over(a[j] ** 2 * over(sp.cos(b[k] * a[k]), k) ** 2, j),
    "one letter twice": over(a[j] * over(b[j] ** 3, j) * sp.sin(c[j]), j),
    "one letter twice, another inside": over(a[j] * over(b[j] ** 2 * over(sp.sin(c[k] * b[j]), k), j) ** 2, j),
    "equal length, different start": over(a[j] ** 3, (j, 0, 2)) * over(a[j] ** 3 * b[j], (j, 1, 3)),
    "offsets": over((a[j + 1] - a[j]) ** 4 * b[3 - j], (j, 0, 2)) + over(a[2 * j + 1] ** 3, (j, 0, 1)),
    "two indices": over(W[j, k] ** 3 * sp.sin(b[k] * x), j, k),
    "triangle by branches": over(sp.Piecewise((W[j, k] ** 3, j < k), (sp.sin(M[k, j]), True)), j, k),
    "diagonal and transpose": over(W[j, j] ** 3, j) + over(W[j, k] * W[k, j] * M[j, k], j, k),
    "the index as a number": over(j * a[j] ** 3 / (1 + j) + sp.cos(a[j] * j), j) + over(j**2 * a[j] ** 2, (j, 2, 3)),
    "log-sum-exp": sp.log(over(sp.exp(a[j] * X + b[j]), j)),
    "body free of the index": over(x**3 * y, j) + over(a[j] * y**3, j, k),
    "empty": over(a[j], (j, 0, -1)) + x**3,
    "relu": over(a[j] * sp.Max(0, b[j] * X + c[j]) ** 2, j) + over(sp.Abs(W[j, k] ** 3), j, k),
    "elements outside of loops": a[0] ** 3 * W[1, 2] * NET + M[3, 0] ** 3,
    "a parameter called like the index": over(a[j] ** 2 * j, j) + sp.Symbol("j") ** 3,
    "sum in a denominator": over(a[j] / (1 + over(W[j, k] ** 2, k)), j) / (2 + over(b[j] ** 2, j)),
}


def sum_loss(expr):
    params = [p for p in (a, b, c, W, M, x, y, sp.Symbol("j")) if expr.has(p)]
    return md.Loss(expr, params, data={s: values for s, values in DATA.items() if expr.has(s)})


def check_sums(loss, seed):
    """The graph's derivatives are those of the literal sums, and the generated text computes them."""
    w, u, v, along = np.random.default_rng(seed).normal(size=(4, loss.dim))
    with mp.workdps(60):
        exact = jets(loss, w, u, v, MP)
        for name, want in literal_jets(loss, w, u, v, along).items():
            got = exact[name]
            if name != "value":
                got = sum(g * mpf(d) for g, d in zip(got, along, strict=True))
            assert abs(got - want) <= mpf(10) ** -30 * (1 + abs(want)), name
    assert excess(kernel_jets(loss, w, u, v), jets(loss, w, u, v, BOUNDED)) <= 1


@pytest.mark.parametrize("name", SUMS)
def test_sum(name):
    """Looped sums, however nested, have the value, grad, hvp and third of the same sums written out."""
    check_sums(sum_loss(SUMS[name]), 1)


@st.composite
def sums(draw, loops=(), depth=4):
    """A random expression in arrays, scalars and data under the sums that are open, and new ones."""
    kind = draw(st.sampled_from(["add", "mul", "one", "sum", "sum"] if depth else ["leaf"]))
    if kind == "sum":
        letter = draw(st.sampled_from([j, k, m]))
        low, high = draw(st.sampled_from([(0, 3), (0, 2), (1, 3), (2, 2)]))
        inside = (*(loop for loop in loops if loop[0] != letter), (letter, low, high))
        return sp.Sum(draw(sums(inside, depth - 1)), (letter, low, high))
    if kind == "one":
        f = draw(st.sampled_from([sp.sin, sp.tanh, sp.log(2 + t**2), t**2, sp.exp(sp.sin(t)), t**3]))
        return apply(f, draw(sums(loops, depth - 1)))
    if kind in ("add", "mul"):
        left, right = draw(sums(loops, depth - 1)), draw(sums(loops, draw(st.integers(0, depth - 1))))
        return left + right if kind == "add" else left * right
    positions = [sp.Integer(2)]
    for letter, _, high in loops:
        positions += [letter, 3 - letter] + ([letter + 1] if high < 3 else [])
    position = st.sampled_from(positions)
    arrays = [a[draw(position)], b[draw(position)], V[draw(position)]]
    return draw(st.sampled_from([*arrays, W[draw(position), draw(position)], x, X, *(loop[0] for loop in loops)]))


@settings(max_examples=60)
@given(sums(), st.integers(0, 1000))
def test_random_sums(expr, seed):
    """The same for random nests of sums, with equal letters, equal lengths and shifted indices."""
    assume(expr.has(a, b, W, x))
    check_sums(sum_loss(expr), seed)


def test_one_sample_stays_open():
    """With the sample loop fixed, reverse mode gives each sample's own gradient."""
    loss = sum_loss(SUMS["net"])
    g = Graph()
    pairs = reverse(loss.sample_node(g), "w", fixed=frozenset([SAMPLE]))
    w = np.random.default_rng(2).normal(size=loss.dim)
    arrays = {"w": w, "d": loss.rows, "c": loss.c}
    closed = np.array(gather(reverse(loss.mean_node(Graph()), "w"), loss.dim, arrays))
    memo = {}
    total = np.zeros(loss.dim)
    for n, slope in pairs:
        for i in range(3):
            for turn in range(4 if n.data[2] else 1):
                at = {SAMPLE: i} | {index: turn for index in n.indices}
                total[n.data[1] + turn * bool(n.data[2])] += evaluate(slope, arrays, turn=at, memo=memo) / 3
    np.testing.assert_allclose(total, closed, rtol=1e-13)


def test_forward_of_nothing():
    """A constant has derivative 0, and no outputs have no derivatives."""
    g = Graph()
    assert forward([], "w", "u") == []
    assert forward([g.const(3.0), g.load("d", 0)], "w", "u") == [g.const(0.0)] * 2
    assert reverse(g.const(3.0), "w") == []


def test_powers_at_zero():
    """x**y and its derivatives at x = 0 are the limits from above, y a parameter or data."""
    loss = md.Loss(x**y, [x, y])
    for power, slope in ((1, 1.0), (2, 0.0), (3, 0.0), (2.5, 0.0), (3.5, 0.0)):
        w = np.array([0.0, power])
        assert loss.value(w) == 0.0
        np.testing.assert_array_equal(loss.grad(w), [slope, 0.0])
        if power >= 2:
            np.testing.assert_array_equal(loss.hessian(w), [[2.0 if power == 2 else 0.0, 0.0], [0.0, 0.0]])
    for u in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
        np.testing.assert_array_equal(loss.third([0.0, 3.0], u, u), [6.0 * u[0], 0.0])
    assert loss.value([0.0, 0.0]) == 1.0
    np.testing.assert_array_equal(loss.grad([0.0, 0.0]), [0.0, -np.inf])
    assert loss.hessian([0.0, 1.0])[0, 1] == -np.inf
    c = sp.Symbol("c")
    whole = md.Loss(x**c, [x], data={c: [0.0, 1.0, 2.0, 3.0]})  # (1 + x + x^2 + x^3)/4, also left of 0
    for at in (0.0, -2.0):
        got = [whole.value([at]), whole.grad([at])[0], whole.hessian([at])[0, 0], whole.third([at], [1.0], [1.0])[0]]
        want = [1 + at + at**2 + at**3, 1 + 2 * at + 3 * at**2, 2 + 6 * at, 6]
        np.testing.assert_allclose(got, np.array(want) / 4, rtol=1e-14)
    assert np.isnan(loss.grad([-2.0, 2.5])).all()
