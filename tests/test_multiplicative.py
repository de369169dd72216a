"""Noise that multiplies the oscillation: the quasistatic flow against the literal map's moments, and discrete runs."""

import moments
import numpy as np
import pytest
import sympy as sp

import minidyn as md

a, b, c, x, y, s, t = sp.symbols("a b c x y s t")
STD = 1e-4  # so small that what is left out, of relative order STD^2, is not seen
EPS = 1e-9

# name: parameters, model, inputs, a point where every sample is fitted
MODELS = {
    "product": ([a, b], a * b * x, [0.5, 2.0], [2.0, 0.5]),
    "tanh": ([a, b, c], b * sp.tanh(a * x) + c, [0.3, 1.1], [0.8, 1.5, 0.2]),
    "cubic": ([a, b, c], a * b * x + b * c**2 * x**2, [-1.0, 0.7, 1.3], [1.2, 0.8, 0.5]),
    "wave": ([a, b], sp.sin(a * x) * b**2, [0.9], [0.7, 1.1]),
    "two layers": ([a, b, c, s], a * sp.tanh(b * x) + c * s * x, [0.4, 1.5], [1.0, 0.6, 0.5, 0.8]),
}
RULES = {  # the rule at a share of its largest stable lr, beside its own spelling
    "sgd": (lambda lr: md.SGD(lr), moments.sgd, 0),
    "heavy ball": (lambda lr: md.SGD(lr, momentum=0.6), lambda lr: moments.heavy_ball(lr, 0.6), 1),
    "nesterov": (lambda lr: md.SGD(lr, momentum=0.6, nesterov=True), lambda lr: moments.nesterov(lr, 0.6), 1),
    "rmsprop": (lambda lr: md.RMSProp(lr, beta2=0.9, eps=EPS), lambda lr: moments.rmsprop(lr, 0.9, EPS), 1),
    "adam": (lambda lr: md.Adam(lr, 0.5, 0.9, EPS), lambda lr: moments.adam(lr, 0.5, 0.9, EPS), 2),
}


def regression(name):
    params, f, inputs, w = MODELS[name]
    targets = [float(f.subs({x: v, **dict(zip(params, w, strict=True))})) for v in inputs]
    loss = md.Loss.regression(f, params, {x: inputs}, targets)
    model = moments.Model(params, [f.subs(x, v) - u for v, u in zip(inputs, targets, strict=True)])
    return loss, model, np.array(w)


def stable_rate(loss, rule, noise, w, share):
    """A learning rate at a share of the largest at which the minimum is stable."""
    return share * md.stability(md.Map(loss, rule(1e-3 if "Adam" not in str(rule(1.0)) else 1e-6), noise), w).max_lr


@pytest.mark.parametrize(
    ("name", "rule", "share"),
    [(name, rule, (0.7, 0.25)[(i + j) % 2]) for i, name in enumerate(MODELS) for j, rule in enumerate(RULES)],
)
def test_label_noise_of_every_batch_equals_the_moments(name, rule, share):
    """With label noise on batches of 1, 2 and all samples the drift is that of the literal map's moments to 1e-6."""
    loss, model, w = regression(name)
    ours, literal, states = RULES[rule]
    for batch in {1, min(2, loss.n_samples), loss.n_samples}:
        noise = md.LabelNoise(STD, batch=batch)
        lr = stable_rate(loss, ours, noise, w, share)
        flow = md.QuasistaticFlow(md.Map(loss, ours(lr), noise), accumulators="self-consistent")
        expected, _ = moments.Moments(model, literal, lr, states, w, batch=batch, label=STD).run()
        np.testing.assert_allclose(flow.drift(w) * lr, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("batch", [1, 2])
def test_labels_own_slopes_are_of_the_next_order(batch):
    """The moments hear what labels multiply, `(s^2/B) mean F_i W F_i`, and the flow does not: relative to the drift
    that is -c s^2 with the same c at s and 2 s, about 0.01 here."""
    loss, model, w = regression("tanh")
    parts = []
    for std in (4e-3, 8e-3):
        drift = md.QuasistaticFlow(md.Map(loss, md.SGD(0.07), md.LabelNoise(std, batch=batch))).drift(w) * 0.07
        moved, _ = moments.Moments(model, moments.sgd, 0.07, 0, w, batch=batch, label=std).run()
        parts.append((drift @ moved / (drift @ drift) - 1) / std**2)
    assert -0.02 < parts[0] < -0.003
    assert parts[1] == pytest.approx(parts[0], rel=0.04)


def moments_of(losses, params, w, rule, lr, **noise):
    """Drift (D,) and growth of theta's covariance (D, D), per step, of the literal map."""
    _, literal, states = RULES[rule]
    system = moments.Moments(moments.Model(params, losses=losses), literal, lr, states, w, **noise)
    drift, later = system.run()
    _, before = system.run(system.steps - 1)
    D = len(params)
    return drift, (later - before)[:D, :D]


@pytest.mark.parametrize("rule", list(RULES))
def test_gaussian_and_minibatch_noise_equal_the_moments(rule):
    """On a valley whose samples differ, with normal noise and batches of 2 of 3, drift and covariance are theirs."""
    w, weights = np.array([0.7, 0.0]), [0.4, 1.0, 1.6]
    loss = md.Loss(c * (1 + x**2) * y**2 / 2, [x, y], data={c: weights})
    noise = md.GaussianNoise(STD) + md.Minibatch(2)
    lr = stable_rate(loss, RULES[rule][0], noise, w, 0.5)
    flow = md.QuasistaticFlow(md.Map(loss, RULES[rule][0](lr), noise), accumulators="self-consistent")
    losses = [v * (1 + x**2) * y**2 / 2 for v in weights]
    drift, spread = moments_of(losses, [x, y], w, rule, lr, batch=2, sigma=STD * sp.eye(2))
    np.testing.assert_allclose(flow.drift(w) * lr, drift, rtol=0, atol=1e-6 * np.abs(drift).max())
    S = flow.diffusion(w)
    np.testing.assert_allclose(S @ S.T * lr, spread, rtol=0, atol=1e-6 * np.abs(spread).max())


SLOPES = {
    "across": sp.Matrix([[STD, 0, 0], [0, STD, 3 * y]]),
    "along": sp.Matrix([[STD, 2 * y, 0], [STD / 2, 0, y]]),
    "along alone": sp.Matrix([[0, 2 * y], [STD, 0]]),
}


@pytest.mark.parametrize("rule", ["sgd", "heavy ball", "nesterov"])
@pytest.mark.parametrize("name", list(SLOPES))
def test_slopes_of_sigma_equal_the_moments(name, rule):
    """With a sigma that varies across the valley, in noise along it too, drift and covariance are the moments', and
    where the map's own normals drive the flow they still do."""
    w, sigma = np.array([0.7, 0.0]), SLOPES[name]
    loss, lr = md.Loss((1 + x**2) * y**2 / 2, [x, y]), {"sgd": 0.2, "heavy ball": 0.1, "nesterov": 0.1}[rule]
    flow = md.QuasistaticFlow(md.Map(loss, RULES[rule][0](lr), md.GaussianNoise(sigma)))
    drift, spread = moments_of([(1 + x**2) * y**2 / 2], [x, y], w, rule, lr, sigma=sigma)
    np.testing.assert_allclose(flow.drift(w) * lr, drift, rtol=0, atol=1e-6 * np.abs(drift).max())
    S = flow.diffusion(w)
    np.testing.assert_allclose(S @ S.T * lr, spread, rtol=0, atol=1e-6 * np.abs(spread).max())
    assert flow.couples and S.shape == (2, sigma.cols)


@pytest.mark.parametrize("case", ["labels", "slopes"])
def test_discrete_runs_move_as_the_flow_says(case):
    """1e5 paths move in 300 steps as the flow within 3 standard errors, less than a third of the way that they go."""
    if case == "labels":
        loss, _, w = regression("product")
        system = md.Map(loss, md.SGD(0.3 / 4.25), md.LabelNoise(0.02, batch=1))
    else:
        loss, w = md.Loss((1 + x**2) * y**2 / 2, [x, y]), np.array([1.0, 0.0])
        system = md.Map(loss, md.SGD(0.2), md.GaussianNoise([[0.0, 0.0], [0.05, 2 * y]]))
    flow = md.QuasistaticFlow(system)
    run = md.simulate(system, w, 400, paths=100_000, save_every=100, rng=4)
    ours = md.simulate(flow, w, 400, save_every=100)
    moved = run.w[:, -1, 0] - run.w[:, 1, 0]
    expected = ours.w[0, -1, 0] - ours.w[0, 1, 0]
    error = moved.std() / np.sqrt(len(moved))
    assert abs(moved.mean() - expected) < 3 * error, (moved.mean(), expected, error)
    assert abs(expected) > 10 * error


@pytest.mark.parametrize("rule", ["rmsprop", "adam"])
def test_adaptive_runs_move_as_the_flow_says(rule):
    """RMSProp and Adam under label noise on batches of one, eps as large as the noise: once v has settled, 8000 paths
    move within 3 standard errors of the flow and what averages over v leave out, far more narrowly than N adds."""
    loss, _, w = regression("product")
    std, beta2, settle, steps = 0.005, 0.999, 6000, 4000
    lr, build = {
        "rmsprop": (1.134e-3, lambda lr: md.RMSProp(lr, beta2=beta2, eps=std)),
        "adam": (2.427e-3, lambda lr: md.Adam(lr, 0.9, beta2, std)),
    }[rule]
    system = md.Map(loss, build(lr), md.LabelNoise(std, batch=1))
    quiet = md.Map(loss, build(lr), md.LabelNoise(std * np.sqrt(2)))  # the same at the minimum, and no batches
    run = md.simulate(
        system, system.fixed_point(w), settle + steps, paths=8000, save_every=2000, rng=4, first_step=10**6
    )
    apart = run.w[:, -1, 0] - run.w[:, settle // 2000, 0]
    start = md.Manifold(loss).project(run.w[:, settle // 2000].mean(axis=0))

    def moved(flow):
        w = md.simulate(flow, start, steps, save_every=steps, first_step=10**6).w
        return w[0, -1, 0] - w[0, 0, 0]

    ours = moved(md.QuasistaticFlow(system))
    error = 3 * apart.std() / np.sqrt(len(apart))
    error += 4 * (1 - beta2) * abs(moved(md.QuasistaticFlow(system, accumulators="frozen")))
    assert abs(ours - apart.mean()) < error, (ours, apart.mean(), error)
    assert abs(ours - moved(md.QuasistaticFlow(quiet))) > 2.5 * error
