"""Gaussian noise with the covariance of another noise: all of it, its diagonal, its trace spread evenly."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
import sympy as sp
from conformance import stated_covariance, symbolic_covariance
from hypothesis import given, settings
from hypothesis import strategies as hs

import minidyn as md

x, y, u = sp.symbols("x y u")
SHAPES = ("full", "diagonal", "isotropic")
NET = md.Loss.regression(x * sp.tanh(y * u), [x, y], {u: [-1.0, -0.2, 0.5, 1.1, 2.0]}, [0.3, 0.0, 0.4, 0.5, 1.2])
AT = np.array([0.5, 0.8])
PATHS = 20_000


def kept(sigma: np.ndarray, shape: str) -> np.ndarray:
    """What a shape keeps of a covariance."""
    if shape == "full":
        return sigma
    return np.diag(np.diag(sigma)) if shape == "diagonal" else np.trace(sigma) / len(sigma) * np.eye(len(sigma))


def covariance(loss: md.Loss, w: np.ndarray, batch: int, replace: bool) -> np.ndarray:
    """That of a mean over a batch, from the single samples' gradients."""
    n = loss.n_samples
    kappa = 1 / batch if replace else (n - batch) / (batch * max(n - 1, 1))
    return kappa * np.atleast_2d(np.cov(loss.sample_grads(w).T, bias=True))


def drawn(loss: md.Loss, noise: md.Noise, w: np.ndarray, paths: int = PATHS) -> np.ndarray:
    """What steps add to the gradient at w, (paths, D)."""
    return -(md.Map(loss, md.GD(1.0), noise).step(np.tile(w, (paths, 1)), rng=1) - (w - loss.grad(w)))


def check_draws(loss: md.Loss, w: np.ndarray, batch: int, replace: bool, shape: str, paths: int) -> None:
    """The moments of what is drawn, within five standard errors, and what flows are told, to rounding."""
    noise = md.GaussianNoise.like(md.Minibatch(batch, replace=replace), shape)
    sigma = kept(covariance(loss, w, batch, replace), shape)
    told, diagonal, _ = stated_covariance(md.Map(loss, md.GD(1.0), noise), w)
    np.testing.assert_allclose(told, sigma, rtol=1e-9, atol=1e-12 * max(np.trace(sigma), 1e-300))
    np.testing.assert_allclose(diagonal, np.diag(sigma), rtol=1e-9, atol=1e-12 * max(np.trace(sigma), 1e-300))
    xi = drawn(loss, noise, w, paths)
    outer = xi[:, :, None] * xi[:, None]
    assert (abs(xi.mean(0)) <= 5 * np.sqrt(np.diag(sigma) / paths) + 1e-12).all()
    size = np.sqrt((np.outer(np.diag(sigma), np.diag(sigma)) + sigma**2) / paths)  # that of a Gaussian's products
    assert (abs(outer.mean(0) - sigma) <= 5 * size + 1e-12).all()


@settings(max_examples=5, deadline=None, derandomize=True)
@given(hs.integers(1, 130), hs.integers(1, 12), hs.booleans(), hs.sampled_from(SHAPES), hs.data())
def test_draws_have_the_covariance_of_batches(n, units, replace, shape, data):
    """On nets of any width with any number of samples, weights and batch, as a loop over units and samples."""
    rng = np.random.default_rng(n * 100 + units)
    a, b, j = md.vector("a", units), md.vector("b", units), sp.Symbol("j", integer=True)
    model = sp.Sum(a[j] * sp.tanh(b[j] * u), (j, 0, units - 1))
    weights = rng.uniform(0.5, 2.0, n) if n % 2 else None
    loss = md.Loss.regression(model, [a, b], {u: rng.normal(size=n)}, rng.normal(size=n), weights=weights)
    batch = data.draw(hs.integers(1, n))
    check_draws(loss, rng.normal(size=2 * units), batch, replace, shape, 3000)


@pytest.mark.parametrize("shape", SHAPES)
def test_several_outputs(shape):
    """Classes and lists of outputs have gradients of samples too."""
    loss = md.Loss.regression([x * u, y, x * y], [x, y], {u: [-1.0, 0.3, 0.5, 2.0]}, [0, 1, 2, 1], "softmax")
    check_draws(loss, AT, 2, False, shape, PATHS)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_normal(shape):
    """Each coordinate, and a direction across them, is normal; batches of one sample are not."""
    sigma = kept(covariance(NET, AT, 1, False), shape)
    for v in ([1.0, 0.0], [0.0, 1.0], [0.3, -1.0]):
        law = st.norm(scale=np.sqrt(v @ sigma @ v)).cdf
        assert st.kstest(drawn(NET, md.GaussianNoise.like(md.Minibatch(1), shape), AT) @ v, law).pvalue > 1e-3
        if shape == "full":
            assert st.kstest(drawn(NET, md.Minibatch(1), AT) @ v, law).pvalue < 1e-9


def test_one_sample_and_whole_batches_make_no_noise():
    """Where batches differ in nothing the gradient is the full one, to rounding."""
    one = md.Loss.regression(x * y, [x, y], {}, [1.0])
    for shape in SHAPES:
        for loss, batch in ((one, md.Minibatch(3, replace=True)), (NET, md.Minibatch(5))):
            assert abs(drawn(loss, md.GaussianNoise.like(batch, shape), AT, 65)).max() < 1e-15


def test_beside_labels_and_additive_noise():
    """Covariances add; labels are then those of all samples, whatever the batch that the normals stand for."""
    for shape in SHAPES:
        both = md.GaussianNoise.like(md.Minibatch(2), shape) + md.LabelNoise(0.4) + md.GaussianNoise(0.1)
        J = NET.jacobian(AT)
        sigma = kept(covariance(NET, AT, 2, False), shape) + 0.16 / 25 * J.T @ J + 0.01 * np.eye(2)
        np.testing.assert_allclose(stated_covariance(md.Map(NET, md.GD(1.0), both), AT)[0], sigma, rtol=1e-12)
        xi = drawn(NET, both, AT)
        outer = xi[:, :, None] * xi[:, None]
        assert (abs(outer.mean(0) - sigma) <= 5 * outer.std(0) / np.sqrt(PATHS)).all()
        assert md.Map(NET, md.GD(1.0), both).bound.gaussian
        flow = md.StochasticModifiedFlow(md.Map(NET, md.RMSProp(0.01), both), order=2)
        assert not flow.skewed and np.isfinite(flow.drift([*AT, 1.0, 1.0])).all()


def test_other_laws_and_directions():
    """Student's numbers become normal ones of their variance; a matrix keeps its rows' lengths, or their mean."""
    student, matrix = md.StudentNoise(4, [0.3, 0.1]), md.GaussianNoise([[0.3, 0.0, 0.1 * x], [0.1, y, 0.0]])
    bowl = md.Loss((x**2 + y**2) / 2, [x, y])
    for shape in SHAPES:
        for noise in (student, matrix, md.GaussianNoise(0.3)):
            alike = md.GaussianNoise.like(noise, shape)
            sigma = kept(symbolic_covariance(md.Map(bowl, md.GD(1.0), noise), AT), shape)
            system = md.Map(bowl, md.GD(1.0), alike)
            np.testing.assert_allclose(stated_covariance(system, AT)[0], sigma, rtol=1e-12, atol=1e-16)
            assert system.bound.couples and system.bound.gaussian


@pytest.mark.parametrize("rule", [md.SGD(0.2), md.SGD(0.1, 0.5), md.Adam(0.02)])
def test_flows_are_those_of_a_sigma_that_is_written_out(rule):
    """The roots of the variances in sympy, as GaussianNoise, have the same slow drift and diffusion, and the same
    modified equation; all of the covariance the same slow flow as the batches themselves for SGD."""
    loss = valley(u * (x / 2 + x * y / 3 + y / 4))
    on = [loss.expr.subs(u, v) for v in (-1, 0, 1)]  # kappa of one of three samples is 1
    variances = [sum(sp.diff(e, p) ** 2 for e in on) / 3 - (sum(sp.diff(e, p) for e in on) / 3) ** 2 for p in (x, y)]
    sigmas = {
        "diagonal": [sp.sqrt(v) for v in variances],
        "isotropic": sp.sqrt((variances[0] + variances[1]) / 2),
    }
    w = [0.7, float(np.sin(0.7))]
    for shape, sigma in sigmas.items():
        alike, written = (
            md.Map(loss, rule, noise)
            for noise in (md.GaussianNoise.like(md.Minibatch(1), shape), md.GaussianNoise(sigma))
        )
        for make in (md.QuasistaticFlow, lambda m: md.StochasticModifiedFlow(m, 2)):
            one, other = make(alike), make(written)
            at = w if make is md.QuasistaticFlow else np.full(one.size, 0.7)
            np.testing.assert_allclose(one.drift(at), other.drift(at), rtol=1e-8, atol=1e-12)
            D, E = one.diffusion(at), other.diffusion(at)
            np.testing.assert_allclose(D @ D.T, E @ E.T, rtol=1e-8, atol=1e-13)
    full, batches = (
        md.QuasistaticFlow(md.Map(loss, rule, noise))
        for noise in (md.GaussianNoise.like(md.Minibatch(2)), md.Minibatch(2))
    )
    if not rule.name.startswith("Adam"):
        np.testing.assert_allclose(full.drift(w), batches.drift(w), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(full.diffusion(w), batches.diffusion(w), rtol=1e-12, atol=1e-15)


def valley(beside: sp.Expr) -> md.Loss:
    """The valley y = sin x, to which each of three samples adds something that is zero on average."""
    return md.Loss((2 + sp.cos(x)) * (y - sp.sin(x)) ** 2 / 2 + beside, [x, y], data={u: [-1.0, 0.0, 1.0]})


def test_a_closed_form_knows_it():
    """On a chart the equations are those of the flow without one."""
    loss = valley(u * (x / 2 + x * y / 3 + y / 4))
    for shape in SHAPES:
        system = md.Map(loss, md.SGD(0.1), md.GaussianNoise.like(md.Minibatch(1), shape))
        s, w = sp.Symbol("s"), [0.7, float(np.sin(0.7))]
        plain = md.QuasistaticFlow(system)
        form = md.QuasistaticFlow(
            system, manifold=md.Manifold(loss, chart={x: s, y: sp.sin(s)}, coordinates=[s])
        ).closed_form()
        np.testing.assert_allclose(form.drift(w)[:2], plain.drift(w), rtol=1e-9, atol=1e-14)


def test_stability_is_that_of_the_batches():
    """The whole covariance answers to a displacement as that of the batches: verdict, rates and critical batch."""
    loss = md.Loss(u * x**2 / 2, [x], data={u: [1.0, 3.0]})
    alike, batches = (
        md.stability(md.Map(loss, md.SGD(0.7), noise), [0.0])
        for noise in (md.GaussianNoise.like(md.Minibatch(1)), md.Minibatch(1))
    )
    for name in ("stable", "growth", "max_lr", "critical_batch", "min_batch"):
        assert getattr(alike, name) == getattr(batches, name)
    square = md.Map(loss, md.SGD(0.7), md.GaussianNoise.like(md.Minibatch(1))).step(np.ones((PATHS, 1)), rng=2) ** 2
    assert abs(square.mean() - alike.growth) <= 5 * square.std() / np.sqrt(PATHS)
    system = md.Map(loss, md.SGD(0.7), md.GaussianNoise.like(md.Minibatch(2)) + md.GaussianNoise(0.1))
    assert repr(system.bound.with_batch(1)) == "GaussianNoise.like(Minibatch(1)) + GaussianNoise(0.1)"


@pytest.mark.parametrize(
    "make, sentence",
    [
        (
            lambda: md.GaussianNoise.like(md.Reshuffle(2)),
            "Reshuffle(2) has no covariance that normal numbers could have: random reshuffling has no covariance per "
            "step: its steps depend on each other; use minibatches for the flow (sampling without replacement within "
            "a step).",
        ),
        (
            lambda: md.GaussianNoise.like(md.LabelNoise(0.1, batch=2)),
            "LabelNoise(0.1) changes targets, with numbers of its own; give GaussianNoise.like the batches alone, and "
            "add label noise to it.",
        ),
        (
            lambda: md.GaussianNoise.like(0.3),
            "GaussianNoise.like takes a noise such as Minibatch(4), not 0.3.",
        ),
        (
            lambda: md.GaussianNoise.like(md.Minibatch(2), "trace"),
            "the shape of the covariance is 'full', 'diagonal' or 'isotropic', not 'trace'.",
        ),
        (
            lambda: md.Map(md.Loss(x**2, [x]), md.GD(0.1), md.GaussianNoise.like(md.Minibatch(2))),
            "GaussianNoise.like(Minibatch(2)) takes its covariance from samples, but the loss has no data: give data= "
            "or a sigma of your own, md.GaussianNoise(sigma).",
        ),
        (
            lambda: md.Map(NET, md.GD(0.1), md.GaussianNoise.like(md.Minibatch(6))),
            "the batch of 6 is larger than the 5 samples; choose at most 5.",
        ),
        (
            lambda: md.GaussianNoise.like(md.Minibatch(2)) + md.Minibatch(3),
            "cannot add GaussianNoise.like(Minibatch(2)) and Minibatch(3): both set batch.",
        ),
    ],
)
def test_error_is_a_sentence(make, sentence):
    """What has no covariance, or no samples, is one sentence."""
    with pytest.raises(md.InputError) as error:
        make()
    assert str(error.value) == sentence
