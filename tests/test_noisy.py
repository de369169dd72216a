"""The edge with noise, observed: sharpness of batches and of updates, and how noise lies to the curvature."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as hs

import minidyn as md
from minidyn.files.models import model_of_text
from minidyn.simulate.observables import resolve

x, y, u = sp.symbols("x y u")
NET = md.Loss.regression(x * sp.tanh(y * u), [x, y], {u: [-1.0, -0.2, 0.5, 1.1, 2.0]}, [0.3, 0.0, 0.4, 0.5, 1.2])
AT = np.array([0.5, 0.8])


def of_batches(loss: md.Loss, w: np.ndarray, batches: list) -> float:
    """The mean over batches, equally likely ones, of g H g/|g|^2, from single samples' gradients and Hessians."""
    G, H, out = loss.sample_grads(w), loss.sample_hvps(w, np.eye(loss.dim)), []
    for chosen in batches:
        g, curvature = G[list(chosen)].mean(axis=0), H[list(chosen)].mean(axis=0)
        out.append(g @ curvature @ g / (g @ g))
    return float(np.mean(out))


def observed(system: md.Map, name: str, w: np.ndarray) -> float:
    return float(resolve(system, name)[name](np.atleast_2d(w))[0])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(hs.integers(1, 6), hs.data())
def test_few_batches_are_all_taken(n, data):
    """Subsets, draws with replacement and the steps of reshuffled epochs, weighted samples too: to rounding, without a
    standard error."""
    size, rng = data.draw(hs.integers(1, n)), np.random.default_rng(n)
    weights = rng.uniform(0.5, 2.0, n) if n % 2 else None
    loss = md.Loss.regression(x * sp.tanh(y * u), [x, y], {u: rng.normal(size=n)}, rng.normal(size=n), weights=weights)
    epochs = [order[k : k + size] for order in permutations(range(n)) for k in range(0, n, size)]
    for noise, batches in (
        (md.Minibatch(size), [*combinations(range(n), size)]),
        (md.Reshuffle(size), epochs),
        (md.Minibatch(min(size, 3), replace=True), [*product(range(n), repeat=min(size, 3))]),
    ):
        system = md.Map(loss, md.SGD(0.1), noise)
        assert observed(system, "batch_sharpness", AT) == pytest.approx(of_batches(loss, AT, batches), rel=1e-10)
        assert observed(system, "batch_sharpness_error", AT) == 0.0


@pytest.mark.parametrize("noise", [md.Minibatch(7), md.Minibatch(7, replace=True), md.Reshuffle(70)])
def test_of_many_batches_a_sample_is_taken(noise):
    """Of 130 samples: within five standard errors of a hundred times as many batches, drawn otherwise; the standard
    error is that of 512; the same value for whatever points stand beside it."""
    rng, n = np.random.default_rng(1), 130
    loss = md.Loss.regression(x * sp.tanh(y * u), [x, y], {u: rng.normal(size=n)}, rng.normal(size=n))
    system = md.Map(loss, md.SGD(0.1), noise)
    value, error = (observed(system, name, AT) for name in ("batch_sharpness", "batch_sharpness_error"))
    G, H, out = loss.sample_grads(AT), loss.sample_hvps(AT, np.eye(2)), []
    for _ in range(20_000):
        if isinstance(noise, md.Reshuffle):
            order = rng.permutation(n)
            parts = [order[:70], order[70:]]
        else:
            parts = [rng.choice(n, 7, replace=noise.replace)]
        for chosen in parts:
            g, curvature = G[chosen].mean(axis=0), H[chosen].mean(axis=0)
            out.append(g @ curvature @ g / (g @ g))
    spread = np.std(np.reshape(out, (-1, 2)), axis=0) if isinstance(noise, md.Reshuffle) else np.std(out)
    expected = np.sqrt((spread**2 / 512).sum()) / (2 if isinstance(noise, md.Reshuffle) else 1)
    assert error == pytest.approx(expected, rel=0.4) and error > 0.0
    assert abs(value - np.mean(out)) <= 5 * np.hypot(expected, np.std(out) / np.sqrt(len(out)))


@pytest.mark.parametrize(
    "rule", [md.SGD(0.1), md.SGD(0.1, 0.6), md.SGD(0.1, 0.6, True), md.Adam(0.01), md.RMSProp(0.01)]
)
def test_the_update_is_the_optimizers_own(rule):
    """At whole states: the mean over all batches of u H u/|u|^2, u the step of a map whose data the batch is."""
    system, rng = md.Map(NET, rule, md.Minibatch(2)), np.random.default_rng(0)
    z = np.concatenate([AT, rng.uniform(0.5, 1.0, system.components - 2)])
    H, out = NET.hessian(AT), []
    for chosen in combinations(range(5), 2):
        rows = {s: v[list(chosen)] for s, v in NET.data.items()}
        step = md.Map(NET.with_data(rows), rule).step(z, k=10**6)[:2] - AT  # bias corrections are over
        out.append(step @ H @ step / (step @ step))
    assert observed(system, "update_sharpness", z) == pytest.approx(np.mean(out), rel=1e-9)
    assert observed(system, "update_sharpness_error", z) == 0.0
    run = md.simulate(system, z, 1, save_every=1, observe="update_sharpness")
    assert run.observables["update_sharpness"][0, 0] == pytest.approx(np.mean(out), rel=1e-9)
    flow = md.StochasticModifiedFlow(system)
    run = md.simulate(flow, z, 1, save_every=1, observe="update_sharpness", rng=0)
    assert run.observables["update_sharpness"][0, 0] == pytest.approx(np.mean(out), rel=1e-9)


def test_along_a_run_it_reads_the_momentum_of_each_step():
    """Heavy ball without noise: the sharpness along the next step, which a loop of numpy makes, at every save."""
    loss = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
    run = md.simulate(md.Map(loss, md.SGD(0.3, 0.8)), [2.0, 0.4], 12, save_every=1, observe="update_sharpness")
    w, m = np.array([2.0, 0.4]), np.zeros(2)
    for seen in run.observables["update_sharpness"][0]:
        H, m = loss.hessian(w), 0.8 * m + loss.grad(w)
        assert seen == pytest.approx(m @ H @ m / (m @ m), rel=1e-10)
        w = w - 0.3 * m
    kept = md.simulate(md.Map(loss, md.SGD(0.3, 0.8)), [2.0, 0.4], 12, save_every=1, observe="update_sharpness",
                       keep="moments")  # fmt: skip
    np.testing.assert_array_equal(kept.moments["update_sharpness"]["mean"], run.observables["update_sharpness"][0])


def test_at_parameters_alone_the_states_are_at_rest():
    """Momentum then points along the gradient, Adam along its sign; any noise has its mean, with a standard error."""
    g, H = NET.grad(AT), NET.hessian(AT)
    ball, adam = (md.Map(NET, rule) for rule in (md.SGD(0.1, 0.9), md.Adam(0.01, eps=0)))
    assert observed(ball, "update_sharpness", AT) == pytest.approx(g @ H @ g / (g @ g), rel=1e-9)
    s = np.sign(g)
    assert observed(adam, "update_sharpness", AT) == pytest.approx(s @ H @ s / 2, rel=1e-9)
    noisy = md.Map(NET, md.SGD(0.1), md.GaussianNoise(0.2))
    seen = g + 0.2 * np.random.default_rng(5).normal(size=(200_000, 2))
    ratios = np.einsum("ri,ij,rj->r", seen, H, seen) / (seen**2).sum(axis=1)
    value, error = (observed(noisy, f"update_sharpness{end}", AT) for end in ("", "_error"))
    assert error == pytest.approx(ratios.std() / np.sqrt(512), rel=0.2)
    assert abs(value - ratios.mean()) <= 5 * error


def test_alignment():
    """The cosine between the Hessian and the covariance: from samples' gradients; 1 for labels on fitted samples, where
    the noise is as the curvature; 1/sqrt(rank) for isotropic noise."""
    for noise in (md.Minibatch(2), md.GaussianNoise.like(md.Minibatch(2))):
        C, H = np.cov(NET.sample_grads(AT).T, bias=True), NET.hessian(AT)
        expected = (H * C).sum() / np.sqrt((H**2).sum() * (C**2).sum())
        assert observed(md.Map(NET, md.SGD(0.1), noise), "noise_alignment", AT) == pytest.approx(expected, rel=1e-10)
    fitted = md.Loss.regression(x * y * u, [x, y], {u: [0.5, 1.0, 2.0]}, [0.5, 1.0, 2.0])
    assert observed(md.Map(fitted, md.SGD(0.1), md.LabelNoise(0.3)), "noise_alignment", [2.0, 0.5]) == pytest.approx(
        1.0
    )
    isotropic = md.Map(fitted, md.SGD(0.1), md.GaussianNoise(0.3))
    assert observed(isotropic, "noise_alignment", [2.0, 0.5]) == pytest.approx(np.sqrt(0.5))


def test_where_there_is_no_direction_there_is_no_value():
    """At a point that every sample rests at: NaN; a sample at rest among others does not count."""
    fitted = md.Loss.regression(x * y * u, [x, y], {u: [1.0, 2.0]}, [1.0, 2.0])
    system = md.Map(fitted, md.SGD(0.1), md.Minibatch(1))
    assert np.isnan([observed(system, f"{n}_sharpness", np.ones(2)) for n in ("batch", "update")]).all()
    half = md.Map(md.Loss(u * x**2 / 2, [x], data={u: [0.0, 3.0]}), md.SGD(0.1), md.Minibatch(1))
    assert observed(half, "batch_sharpness", [1.0]) == 3.0


def test_comparisons_model_files_and_stops_know_them():
    """Along a map and its flows, from a model file, in tables, figures and as a condition."""
    text = md.load_model("two_wells").text
    start = text.index("observe")
    line = text[start : text.index("\n", start)]
    model = model_of_text(
        text.replace(line, 'observe = ["batch_sharpness", "update_sharpness", "noise_alignment"]'), "m"
    )
    result = model.run(steps=4, paths=3)
    assert {"batch_sharpness", "update_sharpness", "noise_alignment"} <= set(result.quantities)
    for run in result.runs.values():
        assert np.isfinite(run.observables["batch_sharpness"]).all()
    assert "batch_sharpness" in result.summary() and result.plot(panels=["batch_sharpness"])
    system = md.Map(NET, md.SGD(0.1), md.Minibatch(2))
    stopped = md.simulate(system, AT, 200, save_every=1, stop={"batch_sharpness": 0.5}, rng=0)
    values = resolve(system, "batch_sharpness")["batch_sharpness"](stopped.w[0, : int(stopped.ended[0])])
    assert (values < 0.5).all() or (values > 0.5).all()


@pytest.mark.parametrize(
    "name, noise, error, sentence",
    [
        (
            "batch_sharpness",
            md.GaussianNoise(0.1),
            md.InputError,
            "batch_sharpness needs the batches of a step, and this map chooses none (GaussianNoise(0.1)): give it "
            "minibatches, or reshuffled ones.",
        ),
        (
            "batch_sharpness_error",
            None,
            md.InputError,
            "batch_sharpness needs the batches of a step, and this map chooses none (no noise): give it minibatches, "
            "or reshuffled ones.",
        ),
        (
            "noise_alignment",
            None,
            md.InputError,
            "noise_alignment is that of the noise with the curvature, and the map has no noise.",
        ),
        (
            "noise_alignment",
            md.Reshuffle(2),
            md.FlowError,
            "random reshuffling has no covariance per step: its steps depend on each other; use minibatches for the "
            "flow (sampling without replacement within a step).",
        ),
    ],
)
def test_error_is_a_sentence(name, noise, error, sentence):
    """A map that has no such quantity says so, before it runs."""
    with pytest.raises(error) as caught:
        md.simulate(md.Map(NET, md.SGD(0.1), noise), AT, 2, observe=name)
    assert str(caught.value) == sentence


def test_an_update_that_never_moves_has_no_direction():
    """With a learning rate that is zero at every step the sharpness along the update is NaN, and is found at once."""
    k, v = sp.symbols("k v")
    still = md.Map(md.Loss(v**2, [v]), md.GD(sp.Max(0, (1 - k) / 10)))
    run = md.simulate(still, [1.0], 3, observe="update_sharpness")
    assert np.isnan(run.observables["update_sharpness"]).all()
