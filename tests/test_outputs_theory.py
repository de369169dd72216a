"""What theory says of several outputs: slow motion under label noise, linear stability, smoothness in the input."""

import moments
import numpy as np
import pytest
import sympy as sp
from test_outputs import Net

import minidyn as md

a, b, c, d, e, x = sp.symbols("a b c d e x")
q = sp.Symbol("q", integer=True)
STD = 1e-4  # so small that what is left out, of relative order STD^2, is not seen
EPS = 1e-9

# name: parameters, model, its outputs, inputs, weights, a point where every sample is fitted
MODELS = {
    "products": ([a, b, c], [a * b * x, a * c + b * x], [a * b * x, a * c + b * x], [0.8], None, [1.2, 0.7, 0.5]),
    "two samples": ([a, b, c, d, e], [a * b * x + c, d * x + a * e], [a * b * x + c, d * x + a * e], [-1.0, 0.8],
                    [1.0, 3.0], [1.0, 0.6, 0.5, 0.8, 1.1]),
    "ranged": ([a, b, c], (a**q * b * x + c * q, (q, 0, 1)), [b * x, a * b * x + c], [0.9], [2.0], [1.3, 0.8, 0.4]),
}  # fmt: skip
RULES = {
    "sgd": (lambda lr: md.SGD(lr), moments.sgd, 0),
    "heavy ball": (lambda lr: md.SGD(lr, momentum=0.6), lambda lr: moments.heavy_ball(lr, 0.6), 1),
    "rmsprop": (lambda lr: md.RMSProp(lr, beta2=0.9, eps=EPS), lambda lr: moments.rmsprop(lr, 0.9, EPS), 1),
}


@pytest.mark.parametrize(("name", "rule"), [
    ("products", "sgd"), ("products", "rmsprop"), ("two samples", "heavy ball"), ("two samples", "rmsprop"),
    ("ranged", "sgd"),
])  # fmt: skip
def test_slow_motion_equals_the_moments(name, rule):
    """With label noise of its own in each output, on batches of weighted samples, the quasistatic flow's drift is that
    of the literal map's moments to 1e-6."""
    params, model, outputs, inputs, weights, w = MODELS[name]
    here = dict(zip(params, w, strict=True))
    targets = [[float(f.subs({x: v, **here})) for f in outputs] for v in inputs]
    loss = md.Loss.regression(model, params, {x: inputs}, targets, weights=weights)
    residuals = [
        [f.subs(x, v) - u for f, u in zip(outputs, us, strict=True)] for v, us in zip(inputs, targets, strict=True)
    ]
    twin = moments.Model(params, residuals, shares=list(loss.shares))
    ours, literal, states = RULES[rule]
    for batch in {1, loss.n_samples}:
        noise = md.LabelNoise(STD, batch=batch)
        lr = 0.5 * md.stability(md.Map(loss, ours(1e-3), noise), w).max_lr
        flow = md.QuasistaticFlow(md.Map(loss, ours(lr), noise), accumulators="self-consistent")
        expected, _ = moments.Moments(twin, literal, lr, states, w, batch=batch, label=STD).run()
        np.testing.assert_allclose(flow.drift(w) * lr, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_discrete_runs_with_two_noisy_outputs():
    """After 1000 steps the mean of 2000 runs, labels noisy in both outputs, is the quasistatic flow's within 4 standard
    errors and a hundredth of the way, which is 20 errors and more; the flow in closed form is the same."""
    loss = md.Loss.regression([a * b, 2 * c * d], [a, b, c, d], {}, [[1.0, 1.0]])
    system, w0 = md.Map(loss, md.SGD(0.02), md.LabelNoise(0.5)), [2.0, 0.5, 1.0, 0.5]
    run = md.simulate(system, w0, 1000, paths=2000, rng=1)
    flow = md.QuasistaticFlow(system)
    end = md.simulate(flow, w0, 1000).w[0, -1]
    mean, error = run.w[:, -1].mean(axis=0), run.w[:, -1].std(axis=0) / np.sqrt(2000)
    way = np.abs(end - w0)
    assert (np.abs(mean - end) < 4 * error + 0.01 * way).all() and (way > 20 * error).all()
    s, t = sp.symbols("s t", positive=True)
    chart = md.Manifold(loss, chart={a: s, b: 1 / s, c: t, d: 1 / (2 * t)}, coordinates=[s, t])
    closed = md.QuasistaticFlow(system, manifold=chart).closed_form()
    found = md.simulate(closed, w0, 1000).w[0, -1]
    np.testing.assert_allclose(found, end, rtol=2e-3)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_linear_stability(weighted):
    """Growth of second moments, under batches and noisy labels of two outputs, and the non-uniformity are those of the
    operator written out from the sample's Hessians `s_i J_i^T J_i`."""
    net = Net(2, 3, 2)
    weights = np.array([0.5, 2.0, 1.0]) if weighted else None
    f, J, F = net.jets(net.w)
    loss = net.loss(net.ranged, "squared", f, weights)
    share = loss.shares
    H = np.einsum("n,nca,ncb->nab", share, J, J)
    mean = H.mean(0)
    values, vectors = np.linalg.eigh(mean)
    Q = vectors[:, values > 1e-7 * values[-1]]
    lr, std = 1.3 / values[-1], 0.8
    A = np.eye(Q.shape[1]) - lr * Q.T @ mean @ Q
    T = np.kron(A, A)
    noise = md.LabelNoise(std, 1)
    kappa = md.Map(loss, md.SGD(lr), noise).bound.kappa
    B = [Q.T @ h @ Q for h in H]
    T += lr**2 * kappa * (np.mean([np.kron(h, h) for h in B], axis=0) - np.kron(Q.T @ mean @ Q, Q.T @ mean @ Q))
    G = share[:, None, None, None] * (Q.T @ F @ Q)
    T += lr**2 * std**2 * sum(np.kron(g, g) for gs in G for g in gs) / 3
    found = md.stability(md.Map(loss, md.SGD(lr), noise), net.w)
    assert found.growth == pytest.approx(np.abs(np.linalg.eigvals(T)).max(), rel=1e-8)
    spread = np.linalg.eigvalsh(np.einsum("nab,nbc->ac", H, H) / 3 - mean @ mean)[-1]
    assert found.nonuniformity == pytest.approx(np.sqrt(spread), rel=1e-9)
    assert md.flatness(loss, net.w).nonuniformity == pytest.approx(np.sqrt(spread), rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_smoothness_in_the_input(weighted):
    """Frobenius and operator norms of the Jacobian in the input are numpy's, their bounds hold, and the mean's
    bound is `|W|^2 / min |x|^2` times the trace of the Hessian."""
    for seed in range(3):
        net = Net(seed, 6, 3)
        f, _, _ = net.jets(net.w)
        loss = net.loss(net.listed, "squared", f, net.rng.uniform(0, 2, 6) if weighted else None)
        W, V, _ = net.parts(net.w)
        slopes = np.einsum("ca,na,ad->ncd", V, 1 - np.tanh(net.X @ W.T) ** 2, W)
        np.testing.assert_allclose(loss.input_grads(net.w), slopes, rtol=1e-12)
        found = md.smoothness(loss, net.w)
        np.testing.assert_allclose(found.input_gradient, np.linalg.norm(slopes, axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(found.operator, np.linalg.norm(slopes, ord=2, axis=(1, 2)), rtol=1e-12)
        mean = (loss.shares * found.input_gradient**2).mean()
        assert found.holds and found.layer == "W" and found.mean_square == pytest.approx(mean, rel=1e-13)
        steep = np.linalg.norm(W, 2) ** 2 / (net.X**2).sum(1).min()
        assert found.mean_bound == pytest.approx(steep * np.trace(loss.hessian(net.w)), rel=1e-10)
    v, p = sp.IndexedBase("v", shape=(2,)), md.vector("p", 2)
    line = md.Loss.regression((v[q] * (a * p[0] + b * p[1]), (q, 0, 1)), [a, b, v], {p: [[1.0, 2.0]]}, [[0.0, 1.0]])
    with pytest.raises(md.InputError, match="does not enter as W x alone"):
        md.smoothness(line, [1.0, 2.0, 0.5, 0.3])


def test_observables_of_several_outputs():
    """`test_error` counts classes, or sums squares over outputs; distance and input gradient read all outputs."""
    net = Net(4, 4, 3)
    f, J, _ = net.jets(net.w)
    classes = net.loss(net.ranged, "classes", [0, 1, 2, 1]).hold_out({net.input: net.X}, f.argmax(1) // 2)
    run = md.simulate(md.Map(classes, md.GD(1e-9)), net.w, 1, observe=["test_error", "input_gradient"])
    assert run.observables["test_error"][0, 0] == np.mean(f.argmax(1) != f.argmax(1) // 2)
    assert run.observables["input_gradient"][0, 0] == pytest.approx((classes.input_grads(net.w) ** 2).sum() / 4)
    squared = net.loss(net.ranged, "squared", f + 1e-5).hold_out({net.input: net.X}, f + 1.0)
    run = md.simulate(md.Map(squared, md.GD(1e-9)), net.w, 1, observe=["test_error", "distance"])
    assert run.observables["test_error"][0, 0] == pytest.approx(3.0)
    nearest = np.linalg.lstsq(J.reshape(12, -1), np.full(12, 1e-5), rcond=None)[0]
    assert run.observables["distance"][0, 0] == pytest.approx(np.linalg.norm(nearest), rel=1e-3)
