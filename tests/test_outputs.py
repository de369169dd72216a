"""Models of several outputs: criteria, class labels, weights, their derivatives and noise, against numpy."""

import itertools

import conformance
import numpy as np
import pandas as pd
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

import minidyn as md

x, y, X = sp.symbols("x y X")
c, i, j, k = sp.symbols("c i j k", integer=True)
POINT = np.array([0.7, -0.4])
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


# -- a net of one hidden layer, and the same in numpy --


class Net:
    """`f = V tanh(W x) + b` with C outputs on n samples, in minidyn and in numpy."""

    def __init__(self, seed, n, count, units=3, width=2):
        rng = np.random.default_rng(seed)
        self.shapes = [(units, width), (count, units), (count,)]
        self.X, self.count, self.rng, self.n = rng.standard_normal((n, width)), count, rng, n
        W, V = (sp.IndexedBase(name, shape=shape) for name, shape in zip("WV", self.shapes, strict=False))
        b, self.input = md.vector("b", count), md.vector("x", width)
        f = sp.Sum(V[c, j] * sp.tanh(sp.Sum(W[j, k] * self.input[k], (k, 0, width - 1))), (j, 0, units - 1)) + b[c]
        self.params, self.ranged = [W, V, b], (f, (c, 0, count - 1))
        self.listed = [f.subs(c, q) for q in range(count)]
        self.w = 0.7 * rng.standard_normal(sum(np.prod(s) for s in self.shapes))

    def target(self, kind):
        rng, shape = self.rng, (self.n, self.count)
        if kind == "classes":
            return rng.integers(0, self.count, self.n)
        if kind == "probabilities":
            return rng.dirichlet(np.ones(self.count), self.n)
        return rng.choice([-1.0, 1.0], shape) if kind == "logistic" else rng.standard_normal(shape)

    def loss(self, model, kind, target, weights=None):
        name = kind if kind in ("squared", "logistic") else "softmax"
        return md.Loss.regression(model, self.params, {self.input: self.X}, target, name, weights=weights)

    def parts(self, w):
        ends = np.cumsum([int(np.prod(s)) for s in self.shapes])[:-1]
        return [p.reshape(s) for p, s in zip(np.split(w, ends), self.shapes, strict=True)]

    def jets(self, w):
        """Outputs (n, C), their Jacobian (n, C, D) and Hessians (n, C, D, D)."""
        W, V, b = self.parts(w)
        h = np.tanh(self.X @ W.T)
        s, t = 1 - h * h, -2 * h * (1 - h * h)
        C, units, width = self.count, *self.shapes[0]
        J, H = np.zeros((self.n, C, len(w))), np.zeros((self.n, C, len(w), len(w)))
        for q, a, m in itertools.product(range(C), range(units), range(width)):
            at, mine = a * width + m, units * width + q * units + a
            J[:, q, at] = V[q, a] * s[:, a] * self.X[:, m]
            J[:, q, mine] = h[:, a]
            H[:, q, at, mine] = H[:, q, mine, at] = s[:, a] * self.X[:, m]
            for other in range(width):
                H[:, q, at, a * width + other] = V[q, a] * t[:, a] * self.X[:, m] * self.X[:, other]
        J[:, np.arange(C), units * width + C * units + np.arange(C)] = 1
        return h @ V.T + b, J, H


def criterion(kind, f, target):
    """Values (n,), slopes (n, C) and curvatures (n, C, C) of a criterion in the outputs."""
    n, count = f.shape
    if kind == "squared":
        return ((f - target) ** 2).sum(1) / 2, f - target, np.broadcast_to(np.eye(count), (n, count, count))
    if kind == "logistic":
        s = 1 / (1 + np.exp(target * f))
        return np.log1p(np.exp(-target * f)).sum(1), -target * s, np.eye(count) * (s * (1 - s))[:, :, None]
    p = np.exp(f - f.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    hot = np.eye(count)[target] if kind == "classes" else target
    return -(hot * np.log(p)).sum(1), p - hot, np.eye(count) * p[:, :, None] - p[:, :, None] * p[:, None, :]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(["squared", "logistic", "classes", "probabilities"]), st.integers(1, 130), st.integers(1, 7),
       st.booleans(), st.booleans(), st.integers(0, 10**6))  # fmt: skip
def test_all_that_a_loss_says_of_its_outputs(kind, n, count, listed, weighted, seed):
    """Value, gradient, Hessian, third derivative, sample gradients, Jacobian and Gauss-Newton are numpy's."""
    count = max(count, 2) if kind in ("classes", "probabilities") else count
    net = Net(seed, n, count)
    target, weights = net.target(kind), net.rng.uniform(0, 2, n) if weighted else None
    loss, w = net.loss(net.listed if listed else net.ranged, kind, target, weights), net.w
    f, J, Hf = net.jets(w)
    share = np.ones(n) if weights is None else weights / weights.mean()
    value, slope, curve = (a * share.reshape(-1, *[1] * (a.ndim - 1)) for a in criterion(kind, f, target))
    each = np.einsum("nc,ncd->nd", slope, J)
    bare = np.einsum("nca,nce,neb->ab", J, curve, J) / n
    np.testing.assert_allclose(loss.model_values(w), f, **CLOSE)
    np.testing.assert_allclose(loss.jacobian(w), J, **CLOSE)
    np.testing.assert_allclose(loss.value(w), value.mean(), **CLOSE)
    np.testing.assert_allclose(loss.sample_grads(w), each, **CLOSE)
    np.testing.assert_allclose(loss.grad(w), each.mean(0), **CLOSE)
    np.testing.assert_allclose(loss.gauss_newton(w), bare, **CLOSE)
    np.testing.assert_allclose(loss.hessian(w), bare + np.einsum("nc,ncab->ab", slope, Hf) / n, **CLOSE)
    u, v = net.rng.standard_normal((2, len(w)))
    h = 1e-4
    ahead = [loss.hvp(w + s * h * v, u) for s in (-2, -1, 1, 2)]
    steep = (8 * (ahead[2] - ahead[1]) - (ahead[3] - ahead[0])) / (12 * h)
    np.testing.assert_allclose(loss.third(w, u, v), steep, rtol=1e-7, atol=1e-7 * (1 + np.abs(steep).max()))
    assert loss.n_outputs == count and loss.model_values(np.stack([w, w])).shape == (2, n, count)


@pytest.mark.parametrize("kind", ["squared", "logistic"])
def test_one_output_is_the_scalar_form(kind):
    """A list of one output gives the bits of the expression alone, with an axis for the output."""
    net = Net(3, 11, 1)
    target = net.target(kind)
    several, alone = net.loss(net.listed, kind, target), net.loss(net.listed[0], kind, target[:, 0])
    flat = net.loss(net.listed, kind, target[:, 0])
    u, v = net.rng.standard_normal((2, len(net.w)))
    for loss in (several, flat):
        for a, b in [
            (loss.value(net.w), alone.value(net.w)),
            (loss.grad(net.w), alone.grad(net.w)),
            (loss.hessian(net.w), alone.hessian(net.w)),
            (loss.third(net.w, u, v), alone.third(net.w, u, v)),
            (loss.jacobian(net.w)[:, 0], alone.jacobian(net.w)),
            (loss.sample_grads(net.w), alone.sample_grads(net.w)),
            (loss.input_grads(net.w)[:, 0], alone.input_grads(net.w)),
        ]:
            np.testing.assert_array_equal(a, b)
    assert alone.n_outputs is None


@pytest.mark.parametrize("form", ["list", "tuple", "column", "row", "array", "ranged from 1", "letters taken"])
def test_ways_to_write_outputs(form):
    """A list, a tuple, a column, a row, an array of numpy and a letter that starts anywhere mean the same outputs."""
    f = [x * X + y**2, sp.sin(x * y), y * X]
    forms = {
        "list": f,
        "tuple": tuple(f),
        "column": sp.Matrix(f),
        "row": sp.Matrix([f]),
        "array": np.array(f),
        "ranged from 1": (sp.Piecewise((f[0], sp.Eq(c, 1)), (f[1], sp.Eq(c, 2)), (f[2], True)), (c, 1, 3)),
        "letters taken": [e.subs({x: sp.Symbol("c"), y: sp.Symbol("y")}) for e in f],
    }
    params = [x, y] if form != "letters taken" else [sp.Symbol("c"), y]
    data = {X: [0.5, -1.0]}
    for target, name in (([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], "squared"), ([2, 0], "softmax")):
        loss = md.Loss.regression(forms[form], params, data, target, name)
        plain = md.Loss.regression(f, [x, y], data, target, name)
        again = md.Loss.regression(loss.model, params, data, target, name)
        for other in (loss, again):
            np.testing.assert_allclose(other.model_values(POINT), plain.model_values(POINT), rtol=1e-14)
            np.testing.assert_allclose(other.grad(POINT), plain.grad(POINT), rtol=1e-13)


@pytest.mark.parametrize("kind", ["squared", "classes"])
def test_a_net_of_matrices(kind):
    """A column of matrices and elementwise functions, `V tanh(W x) + b`, is the net of indexed sums."""
    net = Net(7, 5, 3)
    W, V, b, inputs = (md.matrix(n, *s) for n, s in (("W", (3, 2)), ("V", (3, 3)), ("b", (3, 1)), ("x", (2, 1))))
    target, name = net.target(kind), "softmax" if kind == "classes" else kind
    f = V * (W * inputs).applyfunc(sp.tanh) + b
    loss = md.Loss.regression(f, [W, V, b], {inputs: net.X[:, :, None]}, target, name)
    plain = net.loss(net.ranged, kind, target)
    np.testing.assert_allclose(loss.model_values(net.w), plain.model_values(net.w), **CLOSE)
    np.testing.assert_allclose(loss.jacobian(net.w), plain.jacobian(net.w), **CLOSE)
    np.testing.assert_allclose(loss.grad(net.w), plain.grad(net.w), **CLOSE)
    np.testing.assert_allclose(loss.hessian(net.w), plain.hessian(net.w), **CLOSE)


def test_a_hundred_outputs_are_a_loop():
    """The kernels of a hundred outputs in one expression are as long as those of three."""
    texts = []
    for count in (3, 100):
        net = Net(0, 4, count)
        loss = net.loss(net.ranged, "classes", net.target("classes"))
        value, _, _ = criterion("classes", net.jets(net.w)[0], loss.data[loss.target].argmax(1))
        assert loss.value(net.w) == pytest.approx(value.mean(), rel=1e-12)
        texts.append(loss.source.text)
    assert len(texts[1].splitlines()) == len(texts[0].splitlines())


# -- numbers that stay right --


@pytest.mark.parametrize("count", [2, 3, 5, 30])
@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
def test_softmax_of_large_logits(count, size):
    """Cross-entropy of logits to +-1000 is right with three derivatives, also where the class is all but sure."""
    rng, f = np.random.default_rng(count), sp.symbols(f"f0:{count}")
    for form in (list(f), (sp.IndexedBase("f", shape=(count,))[c], (c, 0, count - 1))):
        params = list(f) if isinstance(form, list) else [form[0].base]
        for own in (0, count - 1):
            loss = md.Loss.regression(form, params, {}, [own], "softmax")
            w = rng.uniform(-size, size, count)
            w[own] = size
            u, v = rng.standard_normal((2, count))
            with mp.workdps(950):  # what is left of 1 - p is e^-2000
                e = [mp.exp(mp.mpf(a) - mp.mpf(w[own])) for a in w]
                total, others = sum(e), sum(a for q, a in enumerate(e) if q != own)
                p = [a / total for a in e]
                slope = [a if q != own else -others / total for q, a in enumerate(p)]
                mean = [sum(a * mp.mpf(b) for a, b in zip(p, d, strict=True)) for d in (u, v)]
                hvp = [a * (mp.mpf(b) - mean[0]) for a, b in zip(p, u, strict=True)]
                mixed = sum(a * mp.mpf(b) for a, b in zip(hvp, v, strict=True))
                third = [h * (mp.mpf(b) - mean[1]) - a * mixed for h, a, b in zip(hvp, p, v, strict=True)]
                exact = [np.array(part, float) for part in ([mp.log1p(others)], slope, hvp, third)]
            found = [np.array([loss.value(w)]), loss.grad(w), loss.hvp(w, u), loss.third(w, u, v)]
            for a, b in zip(found, exact, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9 if a is not found[0] else 1e-12, atol=1e-14 * abs(b).max())


# -- weights --


@pytest.mark.parametrize("kind", ["squared", "logistic", "classes"])
def test_weights_are_multiplicities(kind):
    """Whole weights give the loss in which a sample stands so many times; weights alike change nothing."""
    net = Net(5, 9, 3)
    target, times = net.target(kind), np.array([1, 0, 3, 2, 1, 1, 0, 4, 1])
    weighted, plain = net.loss(net.ranged, kind, target, times), net.loss(net.ranged, kind, target)
    alike = net.loss(net.ranged, kind, target, np.full(9, 0.5))
    net.X = np.repeat(net.X, times, axis=0)
    repeated = net.loss(net.ranged, kind, np.repeat(target, times, axis=0))
    np.testing.assert_allclose(weighted.value(net.w), repeated.value(net.w), **CLOSE)
    np.testing.assert_allclose(weighted.grad(net.w), repeated.grad(net.w), **CLOSE)
    np.testing.assert_allclose(weighted.hessian(net.w), repeated.hessian(net.w), **CLOSE)
    np.testing.assert_allclose(weighted.gauss_newton(net.w), repeated.gauss_newton(net.w), **CLOSE)
    np.testing.assert_allclose(alike.grad(net.w), plain.grad(net.w), rtol=1e-14, atol=1e-15)


# -- noise --

MODELS = {
    "listed": [x * X + y**2, sp.tanh(x * y * X)],
    "ranged": (x * X * (c + 1) + y**2 * c + sp.sin(x * y * (c + 1)), (c, 0, 1)),
    "alone": x * X + sp.sin(x * y),
}
NOISES = [md.LabelNoise(0.3, 2, "rademacher"), md.LabelNoise(0.3) + md.GaussianNoise(0.1)]


def noisy(name, weighted, n=5, seed=1):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((n, 2) if name != "alone" else n)
    weights = rng.uniform(0.2, 2, n) if weighted else None
    return md.Loss.regression(MODELS[name], [x, y], {X: rng.standard_normal(n)}, target, weights=weights)


@pytest.mark.parametrize(("name", "weighted"), [("listed", False), ("ranged", True), ("alone", True)])
def test_covariance_of_noise(name, weighted):
    """Labels, independent for each output, and batches of weighted samples have the covariance of their draws, as the
    map draws them, as kernels and as closed forms state it; with its slopes, and what a displacement makes of it."""
    loss = noisy(name, weighted)
    J, share = loss.jacobian(POINT).reshape(5, -1, 2), loss.shares
    labels = np.einsum("n,nca,ncb->ab", share**2, J, J) / 5
    for noise in NOISES:
        system = md.Map(loss, md.SGD(0.1), noise)
        conformance._check_covariance(system, POINT)
        conformance._check_response(system, POINT)
        expected = system.bound.kappa * np.cov(loss.sample_grads(POINT).T, bias=True)
        expected += system.bound.label_variance * labels + (0.01 * np.eye(2) if noise.sigma is not None else 0)
        np.testing.assert_allclose(conformance.stated_covariance(system, POINT)[0], expected, rtol=1e-12)
        np.testing.assert_allclose(system.bound.variance(POINT), np.diag(expected), rtol=1e-12)


@pytest.mark.parametrize(("name", "weighted"), [("listed", False), ("ranged", True), ("alone", True)])
def test_third_and_fourth_moments(name, weighted):
    """Moments of batches of two with labels of +-1 are those over all batches and all signs."""
    loss = noisy(name, weighted)
    system = md.Map(loss, md.SGD(0.1), md.LabelNoise(0.3, 2, "rademacher"))
    J, each = loss.jacobian(POINT).reshape(5, -1, 2), loss.sample_grads(POINT)
    J = J * loss.shares[:, None, None]
    signs = [np.reshape(e, (2, -1)) for e in itertools.product((-1, 1), repeat=2 * J.shape[1])]
    draws = [
        sum(each[s] - 0.3 * e[b] @ J[s] for b, s in enumerate(batch)) / 2 - each.mean(0)
        for batch in itertools.combinations(range(5), 2)
        for e in signs
    ]
    xi = np.array(draws)
    third, fourth = conformance.moments(system, POINT)
    np.testing.assert_allclose(third, np.einsum("si,sj->ij", xi, xi**2) / len(xi), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(fourth, np.cov((xi**2).T, bias=True), rtol=1e-10, atol=1e-13)


# -- what is refused --

TWO, THREE = [x * X, y * X], [x * X, y * X, x + y]
DATA = {X: [0.5, -1.0]}


def build(model=TWO, target=None, criterion="squared", **options):
    target = [[1.0, 2.0], [0.0, 1.0]] if target is None else target
    return md.Loss.regression(model, [x, y], DATA, target, criterion, **options)


REFUSED = {
    "no outputs": (lambda: build([]), "the model has no outputs: its list is empty"),
    "an output is text": (lambda: build(["x", y]), "output 0 of the model must be a sympy expression, not 'x'"),
    "a matrix": (lambda: build(sp.Matrix([[x, y], [y, x]])), r"a row or a column, not of the shape \(2, 2\)"),
    "limits": (lambda: build((x * X * c, (c, 0, sp.Symbol("n")))), r"given as \(expression, \(c, 0, 9\)\)"),
    "limits in order": (lambda: build((x * X * c, (c, 3, 0))), "with limits as in Sum"),
    "limits of two": (lambda: build((x * X * c, (c, 3))), "with limits as in Sum"),
    "one number a sample": (lambda: build(target=[1.0, 2.0]), r"target has shape \(2,\), expected \(n, 2\) with"),
    "other outputs": (lambda: build(target=[[1.0, 2.0, 3.0]] * 2), r"target has shape \(2, 3\), expected \(n, 2\)"),
    "a scalar model": (lambda: build(x * X, [[1.0, 2.0]] * 2), r"one per sample; it has shape \(2, 2\)"),
    "other samples": (lambda: build(target=[[1.0, 2.0]] * 3), "the data for y_ has 3 samples, the others have 2"),
    "no samples": (lambda: build(target=np.zeros((0, 2))), "with n >= 1"),
    "not finite": (lambda: build(target=[[1.0, np.nan], [0.0, 1.0]]), "contains NaN or Inf"),
    "signs": (lambda: build(criterion="logistic"), "the logistic criterion expects targets -1 and 1"),
    "no class": (lambda: build(THREE, [0, 3], "softmax"),
                 r"target holds 3 \(sample 1\), which is no class: these are whole numbers from 0 to 2"),
    "negative": (lambda: build(THREE, [-1, 0], "softmax"), r"target holds -1 \(sample 0\), which is no class"),
    "broken": (lambda: build(THREE, [0, 0.5], "softmax"), r"target holds 0.5 \(sample 1\), which is no class"),
    "class is NaN": (lambda: build(THREE, [0, np.nan], "softmax"), r"target holds nan \(sample 1\), which is no class"),
    "true and false": (lambda: build(TWO, [True, False], "softmax"), "class labels 0 to 1, not True and False"),
    "words": (lambda: build(TWO, ["a", "b"], "softmax"), "target must be real numbers, not 'a'"),
    "classes of one": (lambda: build(x * X, [0, 0], "softmax"), "needs a model of two or more outputs"),
    "softmax of one": (lambda: build([x * X], [0, 0], "softmax"), "needs a model of two or more outputs"),
    "no probabilities": (lambda: build(TWO, [[0.5, 0.4], [1, 0]], "softmax"), "none negative, with the sum 1"),
    "shape of classes": (lambda: build(THREE, [[0.5, 0.5]] * 2, "softmax"), r"\(n,\): classes 0 to 2, or \(n, 3\)"),
    "weight below 0": (lambda: build(weights=[1.0, -1.0]), "weights must be finite, none negative"),
    "weights all 0": (lambda: build(weights=[0.0, 0.0]), "not all zero"),
    "weights in a table": (lambda: build(weights=[[1.0], [2.0]]), r"one per sample; it has shape \(2, 1\)"),
    "weights of others": (lambda: build(weights=[1.0, 2.0, 3.0]), "the data for weight has 3 samples"),
    "weights of NaN": (lambda: build(weights=[1.0, np.nan]), "weights must be finite"),
    "labels of classes": (lambda: md.Map(build(TWO, [0, 1], "softmax"), md.GD(0.1), md.LabelNoise(0.1)),
                          "label noise adds numbers to targets, and class labels are none; take minibatches"),
    "labels of signs": (lambda: md.Map(build(TWO, np.ones((2, 2)), "logistic"), md.GD(0.1), md.LabelNoise(0.1)),
                        "label noise needs Loss.regression with the squared criterion"),
    "probabilities later": (lambda: (lambda loss: loss.with_data({loss.target: [[0.5, 0.5]] * 2}))(
                            build(TWO, [0, 1], "softmax")), "compares with certain classes; build a new one"),
    "rows in another order": (lambda: build(TWO, pd.DataFrame([[1, 2], [3, 4]], index=["b", "a"]),
                              weights=pd.Series([1, 2], index=["a", "b"])), "labelled in another order"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    """What makes no sense as a model, as targets, weights or noise is refused in one sentence."""
    call, sentence = REFUSED[what]
    with pytest.raises(md.InputError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value) and str(caught.value)[-1] == "."


def test_ways_to_give_targets():
    """Classes as labels, rows with a 1, series and frames of pandas, of small integers too, mean the same; so do
    probabilities that are certain; one sample is enough, and other targets go in by `with_data` and `hold_out`."""
    plain = build(THREE, [2, 0], "softmax")
    for target in (
        np.array([2, 0], np.uint8),
        [2.0, 0.0],
        [[0, 0, 1], [1, 0, 0]],
        pd.Series([2, 0]),
        pd.Series([2, 0], index=[7, 3]),
        pd.DataFrame(np.eye(3)[[2, 0]]),
    ):
        assert build(THREE, target, "softmax").value(POINT) == plain.value(POINT)
    assert build(TWO, pd.DataFrame([[1.0, 2.0], [0.0, 1.0]])).value(POINT) == build().value(POINT)
    alone = md.Loss.regression(THREE, [x, y], {X: [0.5]}, [1], "softmax")
    assert alone.value(POINT) == pytest.approx(alone.with_data({X: [0.5], "y_": [1]}).value(POINT), rel=0)
    swapped = plain.with_data({plain.target: [0, 2]})
    assert swapped.value(POINT) == build(THREE, [0, 2], "softmax").value(POINT)
    weighted = build(THREE, [2, 0], "softmax", weights=[1.0, 3.0])
    other = weighted.with_data({weighted.weight: [3.0, 1.0]}).hold_out({X: [1.0, 2.0, 3.0]}, [0, 1, 2])
    assert other.value(POINT) == build(THREE, [2, 0], "softmax", weights=[6.0, 2.0]).value(POINT)
    assert other.test.n_samples == 3 and (other.test.shares == 1).all()
