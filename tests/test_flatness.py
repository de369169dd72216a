"""Flatness, input smoothness, held-out samples: against matrices and networks written out by hand."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.files.modelfile import read_model_text
from minidyn.minima.smoothness import first_layer
from minidyn.simulate.observables import resolve

UNITS, WIDTH, SAMPLES = 6, 3, 10
j, k = sp.symbols("j k", integer=True)
A, B, W = md.vector("a", UNITS), md.vector("b", UNITS), sp.IndexedBase("W", shape=(UNITS, WIDTH), real=True)
X = md.vector("x", WIDTH)


def network(activation):
    inner = sp.Sum(W[j, k] * X[k], (k, 0, WIDTH - 1)) + B[j]
    return sp.Sum(A[j] * activation(inner), (j, 0, UNITS - 1))


@pytest.fixture(scope="module")
def net():
    """A tanh network on random inputs that a teacher of the same shape labelled, and the teacher."""
    rng = np.random.default_rng(5)
    inputs, teacher = rng.normal(size=(SAMPLES, WIDTH)), rng.normal(size=UNITS * (WIDTH + 2))
    loss = md.Loss.regression(network(sp.tanh), [W, B, A], {X: inputs}, by_hand(teacher, inputs)[0])
    return loss, teacher


def by_hand(w, inputs):
    """Output, gradient in the input and gradient in W of the tanh network."""
    weights, bias, out = np.split(w, [UNITS * WIDTH, UNITS * (WIDTH + 1)])
    weights = weights.reshape(UNITS, WIDTH)
    hidden = np.tanh(inputs @ weights.T + bias)
    q = out * (1 - hidden**2)
    return hidden @ out, q @ weights, q[:, :, None] * inputs[:, None, :]


def test_exact_values(net):
    """Below the size limit every number is that of the Hessian and of the samples' Hessians."""
    loss, w = net
    w = w + 0.1
    H = loss.hessian(w)
    hessians = loss.sample_hvps(w, np.eye(loss.dim))
    np.testing.assert_allclose(hessians.mean(axis=0), H, atol=1e-12, rtol=0)
    values = np.linalg.eigvalsh(H)
    found = md.flatness(loss, w, preconditioner=np.linspace(1, 2, loss.dim))
    root = np.sqrt(np.linspace(1, 2, loss.dim))
    spread = np.mean([h @ h for h in hessians], axis=0) - H @ H
    assert found.method == "exact" and found.trace_error == 0
    assert found.sharpness == pytest.approx(values[-1]) and found.trace == pytest.approx(values.sum())
    assert found.frobenius == pytest.approx(np.sqrt((values**2).sum()))
    assert found.nonuniformity == pytest.approx(np.sqrt(np.linalg.eigvalsh(spread)[-1]))
    assert found.effective_dimension == pytest.approx(values.sum() / values[-1])
    assert found.preconditioned_sharpness == pytest.approx(np.linalg.eigvalsh(root[:, None] * H * root)[-1])


def test_matrix_free_agrees(net):
    """Lanczos gives the eigenvalues to rounding, the probes trace and norm within 4 of their standard errors."""
    loss, w = net
    P = np.linspace(1, 2, loss.dim)
    exact = md.flatness(loss, w, preconditioner=P)
    free = md.flatness(loss, w, preconditioner=P, method="matrix-free", probes=400, rng=1)
    assert free.method == "matrix-free" and 0 < free.trace_error < 0.05 * exact.trace
    for name in ("sharpness", "nonuniformity", "preconditioned_sharpness"):
        assert getattr(free, name) == pytest.approx(getattr(exact, name), rel=1e-8)
    assert abs(free.trace - exact.trace) < 4 * free.trace_error
    assert abs(free.frobenius - exact.frobenius) < 4 * free.frobenius_error


def test_error_bars_cover(net):
    """Over 60 seeds the probes' errors are as large as their error bars: mean square 1 within 4 standard errors."""
    loss, w = net
    truth = md.flatness(loss, w).trace
    found = [md.flatness(loss, w, method="matrix-free", probes=100, rng=seed) for seed in range(60)]
    z = np.array([(f.trace - truth) / f.trace_error for f in found])
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / 60) and abs(z.mean()) < 4 / np.sqrt(60)


def test_smoothness_by_hand(net):
    """Both sides of the bound, per sample and on average, are those of the network written out."""
    loss, w = net
    points = w + 0.3 * np.random.default_rng(0).normal(size=(4, loss.dim))
    s = md.smoothness(loss, points)
    inputs = loss.data[X]
    length = np.linalg.norm(inputs, axis=1)
    for i, point in enumerate(points):
        _, by_input, by_weight = by_hand(point, inputs)
        norm = np.linalg.norm(point[: UNITS * WIDTH].reshape(UNITS, WIDTH), 2)
        np.testing.assert_allclose(s.input_gradient[i], np.linalg.norm(by_input, axis=1), rtol=1e-10)
        np.testing.assert_allclose(s.bound[i], norm * np.linalg.norm(by_weight, axis=(1, 2)) / length, rtol=1e-10)
        assert s.mean_square[i] == pytest.approx((by_input**2).sum() / SAMPLES)
    trace = np.trace(loss.hessian(w))
    norm = np.linalg.norm(w[: UNITS * WIDTH].reshape(UNITS, WIDTH), 2)
    assert md.smoothness(loss, w).mean_bound == pytest.approx(norm**2 / length.min() ** 2 * trace)


def test_bound_is_never_violated(net):
    """At 1000 points of every size around the fitted network the bound holds for every sample and on average."""
    loss, w = net
    rng = np.random.default_rng(2)
    points = w + 10.0 ** rng.uniform(-3, 1, (1000, 1)) * rng.normal(size=(1000, loss.dim))
    found = md.smoothness(loss, points)
    assert found.holds and found.layer == "W"
    assert (found.input_gradient / found.bound).max() > 0.8  # and it is not far from sharp


def test_first_layer_is_found_however_it_is_written():
    """The first layer is W in a ReLU net, w in one of scalar symbols; a skip from the input rules it out."""
    a, w, v, x = sp.symbols("a w v x")
    data = {X: np.eye(3)[[0, 1, 2, 0]] + 0.5}
    relu = md.Loss.regression(network(lambda z: sp.Max(0, z)), [A, B, W], data, np.zeros(4))
    assert first_layer(relu).name == "W" and first_layer(relu, W).shape == (UNITS, WIDTH)
    plain = md.Loss.regression(a * sp.sin(w * x + v), [a, v, w], {x: [1.0, 2.0]}, [0.0, 1.0])
    assert first_layer(plain).name == "w"
    with pytest.raises(md.InputError, match="v fits as W"):
        first_layer(plain, "v")
    skip = md.Loss.regression(a * sp.sin(w * x) + x, [a, w], {x: [1.0, 2.0]}, [0.0, 1.0])
    with pytest.raises(md.InputError, match="does not enter as W x alone"):
        md.smoothness(skip, [1.0, 1.0])


def test_observables_along_a_run_and_a_flow(net):
    """Test error, input gradient and its bound are observed along maps and flows, and equal the functions."""
    loss, w = net
    rng = np.random.default_rng(3)
    held = rng.normal(size=(7, WIDTH))
    loss = loss.hold_out({X: held}, np.arange(7.0))
    names = ["test_error", "input_gradient", "input_gradient_bound", "smoothness_ratio"]
    system = md.Map(loss, md.SGD(0.01), md.Minibatch(2))
    for moving in (system, md.GradientFlow(system)):
        run = md.simulate(moving, w + 0.2, 4, save_every=2, observe=names, rng=0)
        last = run.w[0, -1]
        assert run.observables["test_error"][0, -1] == pytest.approx(
            np.mean((by_hand(last, held)[0] - np.arange(7.0)) ** 2)
        )
        s = md.smoothness(loss, last)
        assert run.observables["input_gradient"][0, -1] == pytest.approx(s.mean_square)
        assert run.observables["input_gradient_bound"][0, -1] == pytest.approx(s.mean_bound)
        assert run.observables["smoothness_ratio"][0, -1] == pytest.approx((s.input_gradient / s.bound).max())
    assert loss.with_data({X: loss.data[X]}).test.n_samples == 7


def test_observables_compute_what_they_say_alone(net, monkeypatch):
    """No observable takes the slopes, or the norms, that only the other side of the bound needs."""
    loss, w = net
    called = []
    for part in ("input_grads", "jacobian"):
        whole = getattr(md.Loss, part)
        monkeypatch.setattr(md.Loss, part, lambda self, w, part=part, of=whole: called.append(part) or of(self, w))
    asked = {"input_gradient": ["input_grads"], "input_gradient_bound": ["jacobian"],
             "smoothness_ratio": ["input_grads", "jacobian"]}  # fmt: skip
    for name, parts in asked.items():
        observed = resolve(md.Map(loss, md.GD(0.1)), name)[name]
        called.clear()
        observed(w[None])
        assert sorted(called) == parts


def test_test_error_of_a_classifier():
    """With the logistic criterion the test error is the fraction of held-out samples on the wrong side."""
    a, x = sp.symbols("a x")
    loss = md.Loss.regression(a * x, [a], {x: [1.0, -1.0]}, [1.0, -1.0], "logistic")
    loss = loss.hold_out({x: [1.0, 2.0, -1.0, -3.0]}, [1.0, 1.0, 1.0, -1.0])
    run = md.simulate(md.Map(loss, md.GD(0.1)), [0.5], 1, observe="test_error")
    assert run.observables["test_error"].tolist() == [[0.25, 0.25]]


def test_models_hold_out():
    """`[loss.test]` holds out the other rows, in the units of those trained on; an overlap is refused."""
    tanh, relu = md.load_model("tanh_net"), md.load_model("relu_net")
    assert (tanh.loss.n_samples, tanh.loss.test.n_samples) == (30, 303)
    assert (relu.loss.n_samples, relu.loss.test.n_samples) == (20, 200)
    both = np.concatenate([tanh.loss.data[tanh.loss.target], tanh.loss.test.data[tanh.loss.test.target]])
    assert abs(tanh.loss.data[tanh.loss.target].mean()) < 1e-12 and abs(both.mean()) > 1e-3
    clash = relu.text.replace('rows = "rest"', "rows = [3, 30]")
    with pytest.raises(md.ModelFileError, match="holds out row 3"):
        read_model_text(clash)
    inline = relu.text.replace('rows = "rest"', "target = [1.0]\n[loss.test.inputs]\nx = [[1.0, 2.0, 3.0, 4.0, 5.0]]")
    assert read_model_text(inline).loss.test.inputs["x"].shape == (1, 5)
    with pytest.raises(md.ModelFileError, match="held-out samples of this input"):
        read_model_text(relu.text.replace('rows = "rest"', "target = [1.0]"))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda loss, w: md.flatness(loss, w, preconditioner=-w), "positive number per parameter"),
        (lambda loss, w: md.flatness(loss, w, method="guess"), "'exact' or 'matrix-free'"),
        (lambda loss, w: md.flatness(loss, np.stack([w, w])), "one point."),
        (lambda loss, w: md.smoothness(loss, w, "q"), "no parameter is called q"),
        (lambda loss, w: loss.hold_out({}, [1.0]), "lack the input x"),
        (lambda loss, w: md.simulate(md.Map(loss, md.GD(0.1)), w, 1, observe="test_error"), "needs held-out samples"),
        (lambda loss, w: md.smoothness(md.Loss(A[0] ** 2, [A]), w[:UNITS]), "needs a model"),
    ],
)
def test_refusals(net, call, says):
    """What does not fit is refused in a sentence that says what would."""
    with pytest.raises(md.InputError, match=says):
        call(*net)
