"""A branch that is not taken leaves no trace: not in a value, nor in any derivative, whatever is singular in it."""

import hypothesis.strategies as st
import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from interpreter import interpreted, literal
from mpmath import isfinite, mp

import minidyn as md

x, y, c = sp.symbols("x y c", real=True)
i = sp.Symbol("i", integer=True)
A = md.vector("A", 3)
LEVELS = [-1.3, 0.4, 2.1]

# -- the branch taken, by itself ------------------------------------------------------------------


def taken(e, at):
    """The expression with every choice made as it falls at a point: what is left has no branch."""
    if not e.args:
        return e
    if isinstance(e, sp.Piecewise):
        return taken(next(f for f, condition in e.args if condition == True or literal(condition, at)), at)  # noqa: E712
    args = [taken(a, at) for a in e.args]
    if isinstance(e, (sp.Max, sp.Min)):
        return sorted(args, key=lambda a: literal(a, at), reverse=isinstance(e, sp.Max))[0]
    if isinstance(e, (sp.Abs, sp.sign, sp.Heaviside)):
        return args[0] * literal(sp.sign(args[0]), at) if isinstance(e, sp.Abs) else sp.sympify(literal(e, at))
    if isinstance(e, sp.Mul) and any(a == 0 for a in args):
        return sp.S.Zero  # of a branch: whatever the other factors are
    return e.func(*args)


def true_jets(expr, samples, w, u, v):
    """Value, gradient, Hessian times u and third derivative of the mean over samples, branch by branch, by sympy."""
    out = np.zeros((4, 2))
    for level in samples:
        at = {x: w[0], y: w[1], c: level, **{A[k]: a for k, a in enumerate(LEVELS)}}
        smooth = taken(expr, at)

        def along(e, d):
            return d[0] * sp.diff(e, x) + d[1] * sp.diff(e, y)

        for order, e in enumerate((smooth, smooth, along(smooth, u), along(along(smooth, u), v))):
            parts = (e, sp.S.Zero) if not order else (sp.diff(e, x), sp.diff(e, y))
            for place, part in enumerate(parts):
                number = literal(part, at)
                assume(not isinstance(number, type(mp.mpc(0))) and isfinite(number))
                out[order, place] += float(number) / len(samples)
    return out


def kernel_jets(loss, w, u, v):
    """The same from the text of the kernels as plain Python, where poles and NaN are numpy's."""
    module = interpreted(loss, sqrt="numpy")
    args, c_d = [np.array(a, dtype=float) for a in (w, u, v)], (loss.c, loss.rows)
    out = np.zeros((4, loss.dim))
    with np.errstate(all="ignore"):
        out[0, 0] = module.value(args[0], *c_d)
        for order, name in enumerate(("grad", "hvp", "third"), 1):
            getattr(module, name)(*args[:order], *c_d, out[order])
        each = [np.empty(loss.dim) for _ in range(loss.n_samples or 1)]
        for s, one in enumerate(each):
            module.sample_grad(args[0], *c_d, s, one)
    np.testing.assert_allclose(np.mean(each, axis=0), out[1], rtol=1e-12, atol=1e-12)
    return out


# -- random branches ------------------------------------------------------------------------------

SINGULAR = [
    sp.sqrt, sp.log, lambda a: 1 / a, lambda a: a ** sp.Rational(-3, 2), lambda a: a ** sp.Rational(5, 2), sp.asin,
    lambda a: sp.log(sp.log(a)), lambda a: sp.sqrt(a) * sp.log(a), lambda a: sp.exp(-1 / a), lambda a: a**-3,
]  # fmt: skip
SMOOTH = [lambda a: a, sp.sin, sp.tanh, lambda a: a**2, lambda a: 3 - 2 * a]
inner = st.sampled_from([x, y, x, y, x - c, y + c, x * y, x + y, -x, x**2 + y**2, 1 - x**2])
conditions = st.builds(
    lambda relation, a, level: relation(a, level),
    st.sampled_from([sp.Gt, sp.Ge, sp.Lt]),
    inner,
    st.sampled_from([0, 0, 1, c]),
)


@st.composite
def branches(draw, pool, depth=2):
    """A random expression with choices between branches, built from a few shared singular subexpressions."""
    kind = draw(st.sampled_from(["leaf", "choice", "choice", "two", "two", "bottom", "step"] if depth else ["leaf"]))
    if kind == "leaf":
        return draw(st.sampled_from(SMOOTH))(draw(st.sampled_from(pool)))
    one, two = draw(branches(pool, depth - 1)), draw(branches(pool, depth - 1))
    if kind == "choice":
        condition = draw(conditions)
        return sp.Piecewise((one, condition), (two, True)) if condition not in (sp.true, sp.false) else one
    if kind == "bottom":
        return draw(st.sampled_from([sp.Max, sp.Min]))(one, draw(st.sampled_from([0, two]))) ** 2
    if kind == "step":
        return sp.Heaviside(draw(inner)) * one
    return draw(st.sampled_from([lambda a, b: a + b, lambda a, b: a * b, lambda a, b: sp.tanh(a) + (a - b) ** 2]))(
        one, two
    )


coordinates = st.sampled_from([-1.37, -0.61, 0.0, 0.23, 0.83, 1.9])
directions = st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.7, -1.1)])


@settings(max_examples=50)
@given(st.data(), st.tuples(coordinates, coordinates), directions, directions, st.booleans())
def test_random_branches(data, w, u, v, summed):
    """Value to third derivative are those of the branches taken, with other branches in other samples and terms."""
    singular = st.builds(lambda f, a: f(a), st.sampled_from(SINGULAR), inner)
    pool = [x, y, *(data.draw(singular) for _ in range(2))]
    expr = data.draw(branches(pool)) + data.draw(branches(pool)) * data.draw(branches(pool, 1))
    assume(expr.has(sp.Piecewise, sp.Max, sp.Min, sp.Heaviside) and not expr.has(sp.zoo, sp.nan, sp.I))
    assume(expr.free_symbols & {x, y})
    samples = [-0.7, 0.4, 1.6] if expr.has(c) else [0.0]
    try:
        with mp.workdps(30):
            want = true_jets(expr, samples, w, u, v)
            nudged = true_jets(expr, samples, (w[0] + 1e-13, w[1] - 1e-13), u, v)
    except (ZeroDivisionError, TypeError, ValueError):  # what is chosen, or compared, is no real number
        assume(False)
    assume(np.allclose(want, nudged, rtol=1e-6, atol=1e-6) and abs(want).max() < 1e8)  # no kink, no pole
    if summed and expr.has(c):  # the samples as terms of a sum instead
        terms = sp.Sum(expr.subs(c, A[i]), (i, 0, 2)) / 3
        loss, samples = md.Loss(terms, [x, y], constants=None, data={A: [LEVELS, LEVELS]}), LEVELS
        with mp.workdps(30):
            want = true_jets(expr, samples, w, u, v)
    else:
        loss = md.Loss(expr, [x, y], data={c: samples} if expr.has(c) else None)
    got = kernel_jets(loss, w, u, v)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * (1 + abs(want).max()))


# -- compiled: what people write -------------------------------------------------------------------

r = sp.sqrt(x**2 + y**2)
root = sp.sqrt(x)
WRITTEN = {  # loss: (point, gradient, Hessian)
    sp.Piecewise(((c - root) ** 2, x > 0), (c**2, True)): ((-1, 2), (0, 0), ((0, 0), (0, 0))),
    sp.Piecewise(((c - root) ** 2, x > c), (x**2 / 2, True)): ((-1, 2), (-1, 0), ((1, 0), (0, 0))),
    sp.Piecewise((root, x > 0), (0, True)) * y + sp.Piecewise((y / root, x > 1), (x**2, True)): (
        (-1, 2), (-2, 0), ((2, 0), (0, 0))),
    sp.Max(sp.log(x), 0) * sp.Max(sp.log(x), -1) + y: ((0, 2), (0, 1), ((0, 0), (0, 0))),
    sp.Heaviside(r - 1) * (r - 1) ** 2 + sp.Max(0, r - 3 - c) ** 2: ((0, 0), (0, 0), ((0, 0), (0, 0))),
    y * sp.sqrt(sp.Max(x, 0) + sp.Max(x - 1, 0)): ((-1, 2), (0, 0), ((0, 0), (0, 0))),
    sp.Sum(sp.Piecewise(((c - A[i] * sp.log(x)) ** 2, x > A[i]), (y**2, True)), (i, 0, 2)) ** 2: (
        (-1, 1), (0, 36), ((0, 0), (0, 108))),
}  # fmt: skip


@pytest.mark.parametrize("expr", WRITTEN, ids=str)
def test_written_branches(expr):
    """Gradients and Hessians of compiled kernels through branches that meet in one node, or in a sum, are exact."""
    (w, grad, hessian) = WRITTEN[expr]
    given_data = {c: [1.0, 2.0]} if expr.has(c) else {}
    loss = md.Loss(expr, [x, y], data=given_data | ({A: np.full((2, 3), 5.0)} if expr.has(A) else {}) or None)
    np.testing.assert_array_equal(loss.grad(w), grad)
    np.testing.assert_array_equal(loss.hessian(w), hessian)
    np.testing.assert_array_equal(loss.third(w, [1.0, 0.5], [1.0, 0.0]), [0.0, 0.0])


def test_nan_is_no_branch():
    """NaN in a parameter is not hidden by a branch that would be zero: divergence stays visible."""
    loss = md.Loss(sp.Max(sp.log(x), 0) * sp.Max(sp.log(x), -1) + sp.Heaviside(x) * sp.exp(x), [x])
    assert np.isnan(loss.value([np.nan])) and np.isnan(loss.grad([np.nan])).all()
