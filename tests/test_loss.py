"""Losses: shapes, data, constants, models, and a sentence for every wrong argument."""

import functools

import numpy as np
import pytest
import sympy as sp
from interpreter import derivative, literal, literal_loss
from mpmath import mp

import minidyn as md
from minidyn import cache

x, y = sp.symbols("x y")
X, T = sp.symbols("X T")
j, k = sp.symbols("j k", integer=True)
a, b, c = (md.vector(name, 3) for name in "abc")
NET = sp.Sum(a[j] * sp.tanh(b[j] * X + c[j]), (j, 0, 2))
INPUTS = {X: np.linspace(-2, 2, 7)}
TARGET = np.sin(INPUTS[X])
SIGNS = np.where(INPUTS[X] > 0.5, 1.0, -1.0)


@functools.cache
def valley():
    return md.Loss((1 + x**2) * y**2 / 2 + x**4 * y, [x, y])


@functools.cache
def regression(criterion):
    target = TARGET if criterion == "squared" else SIGNS
    return md.Loss.regression(NET, [a, b, c], INPUTS, target, criterion)


def point(loss, *lead, seed=0):
    return np.random.default_rng(seed).normal(size=(*lead, loss.dim))


# -- values and shapes ----------------------------------------------------------------------------


def test_valley_in_closed_form():
    """Value, gradient, Hessian and third derivative of (1 + x**2) y**2 / 2 + x**4 y are those found by hand."""
    loss, (p, q) = valley(), (1.5, -0.5)
    assert loss.value([p, q]) == pytest.approx((1 + p**2) * q**2 / 2 + p**4 * q, rel=1e-15)
    assert isinstance(loss.value([p, q]), float)
    np.testing.assert_allclose(loss.grad([p, q]), [p * q**2 + 4 * p**3 * q, (1 + p**2) * q + p**4], rtol=1e-14)
    hessian = [[q**2 + 12 * p**2 * q, 2 * p * q + 4 * p**3], [2 * p * q + 4 * p**3, 1 + p**2]]
    np.testing.assert_allclose(loss.hessian([p, q]), hessian, rtol=1e-14)
    third = np.zeros((2, 2, 2))
    third[0, 0, 0] = 24 * p * q
    third[0, 0, 1] = third[0, 1, 0] = third[1, 0, 0] = 2 * q + 12 * p**2
    third[0, 1, 1] = third[1, 0, 1] = third[1, 1, 0] = 2 * p
    u, v = np.array([0.3, -1.0]), np.array([2.0, 0.7])
    np.testing.assert_allclose(loss.hvp([p, q], u), hessian @ u, rtol=1e-14)
    np.testing.assert_allclose(loss.third([p, q], u, v), third @ v @ u, rtol=1e-14)


@pytest.mark.parametrize("lead", [(), (1,), (5,), (2, 3), (0,), (2, 0)])
def test_batches(lead):
    """Every evaluation is batched over leading axes, and each entry is what it would be alone."""
    loss = regression("squared")
    w, u, v = (point(loss, *lead, seed=s) for s in range(3))
    n, size = loss.n_samples, loss.dim
    calls = {
        "value": ((w,), ()),
        "grad": ((w,), (size,)),
        "hessian": ((w,), (size, size)),
        "hvp": ((w, u), (size,)),
        "third": ((w, u, v), (size,)),
        "sample_grads": ((w,), (n, size)),
        "model_values": ((w,), (n,)),
        "jacobian": ((w,), (n, size)),
    }
    for name, (arrays, tail) in calls.items():
        out = np.asarray(getattr(loss, name)(*arrays))
        assert out.shape == lead + tail, name
        for at in np.ndindex(*lead):
            np.testing.assert_array_equal(out[at], getattr(loss, name)(*(array[at] for array in arrays)))


def test_broadcasting_and_layouts():
    """One w with many directions, integers, lists, Fortran order and strided views all work; inputs are not changed."""
    loss = valley()
    w, u = np.array([1.0, 2.0]), point(loss, 4)
    rows = np.array([loss.hvp(w, row) for row in u])
    np.testing.assert_array_equal(loss.hvp(w, u), rows)
    np.testing.assert_array_equal(loss.hvp([1, 2], np.asfortranarray(u)), rows)
    np.testing.assert_array_equal(loss.hvp(np.array([1.0, 0.0, 2.0])[::2], np.repeat(u, 2, axis=0)[::2]), rows)
    np.testing.assert_array_equal(w, [1.0, 2.0])


def test_hessian_is_symmetric_to_the_bit_and_made_of_hvps():
    """H equals its transpose exactly, and H u is hvp."""
    loss = regression("logistic")
    w, u = point(loss), point(loss, seed=1)
    H = loss.hessian(w)
    np.testing.assert_array_equal(H, H.T)
    np.testing.assert_allclose(H @ u, loss.hvp(w, u), rtol=1e-12, atol=1e-15)


# -- parameters -----------------------------------------------------------------------------------


def test_layout_of_w():
    """w holds the parameters in the order given: matrices and vectors flattened in C order."""
    M, S = sp.MatrixSymbol("M", 2, 3), sp.Matrix(2, 2, sp.symbols("s:4"))
    loss = md.Loss(x**2, [x, M, S, a])
    assert loss.dim == 1 + 6 + 4 + 3
    assert loss.param_names == ["x", "M[0,0]", "M[0,1]", "M[0,2]", "M[1,0]", "M[1,1]", "M[1,2]",
                                "s0", "s1", "s2", "s3", "a[0]", "a[1]", "a[2]"]  # fmt: skip


def test_matrices_of_parameters():
    """A MatrixSymbol, a Matrix of symbols, an indexed base of two indices and single symbols give the same loss."""
    w = np.arange(1.0, 7.0) / 7
    M, S, W = sp.MatrixSymbol("M", 2, 3), sp.Matrix(2, 3, sp.symbols("s:6")), sp.IndexedBase("W", shape=(2, 3))
    want = 0.0
    for r in range(2):
        want += np.tanh(w.reshape(2, 3)[r] @ [1.0, 2.0, 3.0]) * (r + 1)
    looped = [sp.Sum((j + 1) * sp.tanh(sp.Sum(E[j, k] * (k + 1), (k, 0, 2))), (j, 0, 1)) for E in (M, W)]
    explicit = [sum((r + 1) * sp.tanh(sum(E[r, s] * (s + 1) for s in range(3))) for r in range(2)) for E in (M, S, W)]
    for expr, params in zip([*looped, *explicit], [M, W, M, S, W], strict=True):
        loss = md.Loss(expr, params if params is S else [params])
        assert float(literal_loss(loss, list(w))) == pytest.approx(want, rel=1e-15)
        assert loss.value(w) == pytest.approx(want, rel=1e-15)


def test_sympy_matrix_products():
    """A loss written with sympy matrix products of an explicit matrix of entries is differentiated entry by entry."""
    M = sp.MatrixSymbol("M", 2, 2)
    residual = M.as_explicit() * sp.Matrix([1, 2]) - sp.Matrix([3, 4])
    loss = md.Loss((residual.T * residual)[0] / 2, [M])
    w = np.array([1.0, -1.0, 0.5, 2.0])
    r = w.reshape(2, 2) @ [1, 2] - [3, 4]
    np.testing.assert_allclose(loss.grad(w), np.outer(r, [1, 2]).ravel(), rtol=1e-15)


def test_looped_and_written_out():
    """A loss with sums and the same loss written out term by term agree in every derivative."""
    looped, flat = regression("squared"), md.Loss((NET.doit() - T) ** 2 / 2, [a, b, c], data=INPUTS | {T: TARGET})
    w, u, v = (point(looped, seed=s) for s in range(3))
    for name, arrays in {"value": (w,), "grad": (w,), "hessian": (w,), "third": (w, u, v)}.items():
        np.testing.assert_allclose(getattr(looped, name)(*arrays), getattr(flat, name)(*arrays), rtol=1e-12, atol=1e-15)


# -- data and constants ---------------------------------------------------------------------------


def test_data_is_a_mean_over_samples():
    """With data the loss is the mean of the samples' losses, and so are its gradient and Hessian."""
    loss = regression("squared")
    w = point(loss)
    single = [md.Loss.regression(NET, [a, b, c], {X: [p]}, [t]) for p, t in zip(INPUTS[X][:3], TARGET, strict=False)]
    few = loss.with_data({X: INPUTS[X][:3], loss.target: TARGET[:3]})
    assert few.value(w) == pytest.approx(np.mean([s.value(w) for s in single]), rel=1e-14)
    np.testing.assert_allclose(few.grad(w), np.mean([s.grad(w) for s in single], axis=0), rtol=1e-13)
    np.testing.assert_allclose(few.hessian(w), np.mean([s.hessian(w) for s in single], axis=0), rtol=1e-12, atol=1e-15)


def test_vector_data():
    """Data of shape (n, m) for a vector of m entries is read sample by sample."""
    V = md.vector("V", 3)
    rows = np.arange(12.0).reshape(4, 3) / 7
    loss = md.Loss((sp.Sum(a[j] * V[j], (j, 0, 2)) - T) ** 2 / 2, [a], data={V: rows, T: np.ones(4)})
    w = np.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(loss.grad(w), rows.T @ (rows @ w - 1) / 4, rtol=1e-14)
    np.testing.assert_allclose(loss.hessian(w), rows.T @ rows / 4, rtol=1e-14)
    np.testing.assert_allclose(loss.with_data({V: rows[::-1]}).value(w), loss.value(w), rtol=1e-14)


def test_new_data_and_constants_compile_nothing(empty_cache):
    """with_data and with_constants give other numbers from the very same compiled module."""
    rate = sp.Symbol("rate")
    loss = md.Loss(rate * (x - T) ** 2, [x], constants={rate: 2.0}, data={T: [1.0, 2.0, 6.0]})
    assert loss.value([0.0]) == pytest.approx(2 * (1 + 4 + 36) / 3)
    more = loss.with_data({T: np.arange(1000.0)})
    other = loss.with_constants({rate: 5.0})
    assert more.kernels is loss.kernels and other.kernels is loss.kernels
    before = cache.info().modules
    assert more.value([0.0]) == pytest.approx(2 * np.mean(np.arange(1000.0) ** 2))
    assert other.value([0.0]) == pytest.approx(5 * (1 + 4 + 36) / 3)
    assert cache.info().modules == before > 0
    assert loss.value([0.0]) == pytest.approx(2 * (1 + 4 + 36) / 3)  # the first is unchanged
    assert len(loss.kernels.values.addresses) == 1


def test_data_is_copied():
    """Changing the caller's array afterwards does not change the loss."""
    values = np.array([1.0, 2.0, 6.0])
    loss = md.Loss((x - T) ** 2, [x], data={T: values})
    values[:] = 0.0
    assert loss.rows.sum() == 9.0


def test_kernels_from_your_own_compiled_code():
    """`loss.kernels` can be called from another compiled function with `loss.c` and `loss.rows`."""
    import numba as nb

    loss = valley()
    gradient = loss.kernels.grad

    @nb.njit
    def descend(w, c, d, steps):
        g = np.empty_like(w)
        for _ in range(steps):
            gradient(w, c, d, g)
            w = w - 0.1 * g
        return w

    w = np.array([0.3, 1.0])
    want = w - 0.1 * loss.grad(w)
    np.testing.assert_array_equal(descend(w, loss.c, loss.rows, 1), want)


# -- regression -----------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["squared", "logistic"])
def test_regression(criterion):
    """The loss is the mean of (f - y)**2 / 2, or of log(1 + exp(-y f)), of the model's outputs f."""
    loss = regression(criterion)
    w = point(loss)
    f = np.array([sum(w[i] * np.tanh(w[3 + i] * p + w[6 + i]) for i in range(3)) for p in INPUTS[X]])
    np.testing.assert_allclose(loss.model_values(w), f, rtol=1e-14)
    want = (f - TARGET) ** 2 / 2 if criterion == "squared" else np.log1p(np.exp(-SIGNS * f))
    assert loss.value(w) == pytest.approx(want.mean(), rel=1e-14)
    slope = f - TARGET if criterion == "squared" else -SIGNS / (1 + np.exp(SIGNS * f))
    np.testing.assert_allclose(loss.sample_grads(w), slope[:, None] * loss.jacobian(w), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("criterion", ["squared", "logistic"])
def test_sample_grads_average_to_the_gradient(criterion):
    """The mean of sample_grads over the samples is grad."""
    loss = regression(criterion)
    w = point(loss, 4)
    np.testing.assert_allclose(loss.sample_grads(w).mean(axis=1), loss.grad(w), rtol=1e-12, atol=1e-15)


def test_jacobian():
    """Row i of the jacobian is the gradient of the model's output on sample i."""
    loss, n = regression("squared"), 3
    w = point(loss)
    with mp.workdps(120):

        def output(p, sample):
            values = {name: np.array(p[3 * i : 3 * i + 3], dtype=object) for i, name in enumerate("abc")}
            return literal(NET, values | {X: INPUTS[X][sample]})

        want = [[float(derivative(lambda p, i=i: output(p, i), w, [e])) for e in np.eye(9)] for i in range(n)]
    np.testing.assert_allclose(loss.jacobian(w)[:n], want, rtol=1e-13, atol=1e-16)


def test_regression_of_one_number():
    """Without inputs the model is a function of the parameters alone; target may hold one number or several."""
    one = md.Loss.regression(x * y, [x, y], inputs={}, target=[2.0])
    assert one.value([1.0, 1.0]) == 0.5
    np.testing.assert_array_equal(one.jacobian([3.0, 4.0]), [[4.0, 3.0]])
    two = md.Loss.regression(x * y, [x, y], inputs={}, target=[2.0, 4.0])
    assert two.value([1.0, 1.0]) == (0.5 + 4.5) / 2
    np.testing.assert_array_equal(two.grad([1.0, 1.0]), [-2.0, -2.0])
    np.testing.assert_array_equal(two.sample_grads([1.0, 1.0]), [[-1.0, -1.0], [-3.0, -3.0]])
    np.testing.assert_array_equal(two.model_values([2.0, 3.0]), [6.0, 6.0])


def test_a_parameter_called_y():
    """The target of a regression does not collide with a parameter or an input called y."""
    loss = md.Loss.regression(x * sp.Symbol("y"), [x, sp.Symbol("y")], inputs={}, target=[1.0, 3.0])
    assert float(literal_loss(loss, [1.0, 2.0])) == 0.5
    inputs = md.Loss.regression(x * sp.Symbol("y"), [x], {sp.Symbol("y"): [1.0, 2.0]}, [1.0, 4.0])
    assert float(literal_loss(inputs, [1.0])) == 1.0


def test_large_logits():
    """The logistic loss is exact where exp overflows: at margins of ±2000 it is 0 or 2000, with finite derivatives."""
    loss = md.Loss.regression(x * X, [x], {X: [1.0, 1.0]}, [1.0, -1.0], "logistic")
    assert loss.value([2000.0]) == 1000.0 and loss.value([-2000.0]) == 1000.0
    assert loss.grad([2000.0]) == [0.5] and loss.hessian([2000.0]) == [[0.0]]
    assert np.isfinite(loss.third([2000.0], [1.0], [1.0])).all()


# -- wrong arguments ------------------------------------------------------------------------------

DATA = {X: [1.0, 2.0], T: [1.0, 2.0]}
WRONG = {
    "w too short": (lambda: valley().value([1.0]), r"w has shape \(1,\), expected \(\.\.\., 2\): one number for each"),
    "w a number": (lambda: valley().value(1.0), r"w has shape \(\), expected"),
    "w transposed": (lambda: valley().grad(np.zeros((2, 3))), r"shape \(2, 3\), expected \(\.\.\., 2\)"),
    "w text": (lambda: valley().value("abc"), r"w must be real numbers, not 'abc'"),
    "w complex": (lambda: valley().value([1j, 0]), r"w holds complex numbers, and real ones are expected"),
    "direction too long": (lambda: valley().hvp([1.0, 2.0], [1.0, 2.0, 3.0]), r"shape \(3,\), expected"),
    "no parameters": (lambda: md.Loss(x, []), r"at least one parameter"),
    "twice": (lambda: md.Loss(x, [x, y, x]), r"parameter x is listed more than once"),
    "not a parameter": (lambda: md.Loss(x, [x + y]), r"x \+ y cannot be a parameter: use"),
    "base without shape": (lambda: md.Loss(x, [sp.IndexedBase("q")]), r"q needs a shape of whole numbers"),
    "matrix loss": (lambda: md.Loss(sp.Matrix([x, y]), [x, y]), r"Matrix"),
    "relation": (lambda: md.Loss(x > 0, [x]), r"one sympy expression, not x > 0"),
    "not an expression": (lambda: md.Loss(object(), [x]), r"must be"),
    "vector size": (lambda: md.vector("q", 0), r"the size of a vector is 0; it must be at least 1"),
    "vector fraction": (lambda: md.vector("q", 2.5), r"not 2\.5"),
    "constant text": (lambda: md.Loss(x * y, [x], constants={y: "a"}), r"constant y must be a number, not 'a'"),
    "constant nan": (lambda: md.Loss(x * y, [x], constants={y: np.nan}), r"constant y is nan; it must be finite"),
    "unknown constant": (lambda: valley().with_constants({T: 1.0}), r"T is not a constant of this loss \(it has none"),
    "data shape": (lambda: md.Loss(x * X, [x], data={X: [[1.0]]}), r"data for X has shape \(1, 1\), expected \(n,\)"),
    "vector data shape": (lambda: md.Loss(x * a[0], [x], data={a: [1.0]}), r"shape \(1,\), expected \(n, 3\)"),
    "no samples": (lambda: md.Loss(x * X, [x], data={X: []}), r"expected \(n,\) with n >= 1"),
    "data nan": (lambda: md.Loss(x * X, [x], data={X: [1.0, np.nan]}), r"data for X contains NaN or Inf"),
    "data lengths": (lambda: md.Loss(x * X * T, [x], data=DATA | {T: [1.0]}), r"T has 1 samples, the others have 2"),
    "unknown data": (lambda: valley().with_data({T: [1.0]}), r"T is not data of this loss \(it has none\)"),
    "target shape": (lambda: md.Loss.regression(x, [x], {}, 3.0), r"target must be a non-empty list"),
    "target empty": (lambda: md.Loss.regression(x, [x], {}, []), r"target must be a non-empty list"),
    "target signs": (lambda: md.Loss.regression(x, [x], {}, [0.0, 1.0], "logistic"), r"expects targets -1 and 1"),
    "criterion": (lambda: md.Loss.regression(x, [x], {}, [1.0], "huber"), r"'logistic' or 'softmax', not 'huber'"),
    "no samples to differentiate": (lambda: valley().sample_grads([1.0, 2.0]), r"this loss has no data"),
    "no model": (lambda: valley().jacobian([1.0, 2.0]), r"no model: build it with Loss\.regression"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_argument(name):
    """A wrong argument is an InputError, also a ValueError: one sentence with what was given and what is expected."""
    call, sentence = WRONG[name]
    with pytest.raises(md.InputError, match=sentence) as caught:
        call()
    text = str(caught.value)
    assert isinstance(caught.value, ValueError) and "\n" not in text and text.endswith(".")


# -- at the keyboard ------------------------------------------------------------------------------


def test_repr():
    """A loss prints as its expression, parameters and samples, shortened where long, and as LaTeX in a notebook."""
    assert repr(md.Loss(x**2 + y, [x, y])) == "Loss(x**2 + y; x, y)"
    assert repr(regression("squared")).endswith("a[3], b[3], c[3]; mean over 7 samples)")
    many = md.Loss(sum(sp.symbols("q:50")), sp.symbols("q:50"))
    assert len(repr(many)) < 150 and "..." in repr(many)
    assert valley()._repr_latex_().startswith(r"$\displaystyle L = ")
    assert r"\frac{1}{7}\sum_{i}" in regression("squared")._repr_latex_()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, y: md.Loss(x * y, [x], data={y: ["a", "b"]}), "the data for y must be real numbers, not 'a'"),
        (lambda x, y: md.Loss.regression(x, [x], {}, [1j]), "holds complex numbers, and real ones"),
        (lambda x, y: md.Loss(x * y, [x, y], constants={y: 1.0}), "given as parameter and as constant"),
        (lambda x, y: md.Loss(x * y, [x, y], data={y: [1.0, 2.0]}), "given as parameter and as data"),
        (lambda x, y: md.Loss("x**2", [x]), "must be a sympy expression, not 'x"),
        (lambda x, y: md.vector("a", "b"), "the size of a vector must be a whole number, not 'b'"),
        (lambda x, y: md.Loss(x * y, [x, y]).hvp(np.ones((2, 2)), np.ones((3, 2))), "do not go together"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make, message):
    """Data that are no numbers, symbols with two roles, text for an expression, shapes that do not broadcast."""
    with pytest.raises(md.InputError, match=message) as error:
        make(*sp.symbols("x y"))
    assert "\n" not in str(error.value)


def test_data_are_copied():
    """Changing the caller's array afterwards changes neither the loss nor copies made of it."""
    x, y = sp.symbols("x y")
    values = np.array([1.0, 2.0])
    loss = md.Loss(x * y, [x], data={y: values})
    values[:] = 100.0
    assert loss.with_constants({}).value([1.0]) == loss.value([1.0]) == 1.5
