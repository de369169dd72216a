"""The quasistatic flow exists exactly where the minimum is stable, whether or not noise excites what is unstable."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md

a, b, c, k, x, y, z = sp.symbols("a b c k x y z")


def verdicts(system, w, lawless=False):
    """Whether `stability` calls the minimum stable, and whether the flow has a drift there; `lawless`: or would but for
    curves of the noise that leave the oscillation no stationary law."""
    try:
        stable = md.stability(system, w).stable
    except md.FlowError:  # Adam at a minimum without noise: it divides by what vanishes there
        stable = False
    try:
        exists = bool(np.isfinite(md.QuasistaticFlow(system).drift(w)).all())
    except md.FlowError as error:
        exists = lawless and "no stationary law here, although small displacements die out" in str(error)
        assert exists or "unstable" in str(error) or "noise vanishes" in str(error)
    return stable, exists


MODELS = {
    "product": ([a, b], a * b * x),
    "layers": ([a, b, c], a * sp.tanh(b * x) + c * x**2),
    "square": ([a, b, c], (a * b + c**2) * x),
}
RULES = {
    "sgd": lambda lr: md.SGD(lr),
    "heavy ball": lambda lr: md.SGD(lr, momentum=0.5),
    "nesterov": lambda lr: md.SGD(lr, momentum=0.7, nesterov=True),
    "rmsprop": lambda lr: md.RMSProp(lr, beta2=0.9, eps=1e-3),
    "adam": lambda lr: md.Adam(lr, 0.6, 0.9, 1e-3),
}
NOISES = {
    "batch": lambda n, std: md.Minibatch(n),
    "replaced": lambda n, std: md.Minibatch(n, replace=True),
    "labels": lambda n, std: md.LabelNoise(std, batch=n),
    "mixed": lambda n, std: md.GaussianNoise(std) + md.Minibatch(n),
}
CASES = [(m, r, n) for i, m in enumerate(MODELS) for j, r in enumerate(RULES) for n in list(NOISES)[(i + j) % 2 :: 2]]


@pytest.mark.parametrize("model, rule, noise", CASES)
def test_the_flow_exists_where_stability_says_stable(model, rule, noise):
    """At random minima, learning rates around the largest stable one and batches of 1 or 2 of 3 samples, both agree."""
    rng = np.random.default_rng(CASES.index((model, rule, noise)))
    params, f = MODELS[model]
    loss = md.Loss.regression(f, params, {x: [1.0, 2.0]}, [0.0, 0.0])
    seen = set()
    for _ in range(7):
        w = rng.normal(0.0, 1.0, len(params)) + 0.3
        inputs = rng.normal(0.0, 1.0, 2)
        here = loss.with_data({x: inputs, loss.target: np.zeros(2)})
        here = here.with_data({loss.target: here.model_values(w)})
        made = NOISES[noise](1, 0.02)
        limit = md.stability(md.Map(here, RULES[rule](1e-3), made), w).max_lr
        if limit is None or not np.isfinite(limit):
            limit = 1e-3
        share = 0.4 * 6 ** rng.random()
        verdict = verdicts(md.Map(here, RULES[rule](share * limit), made), w)
        assert verdict[0] == verdict[1], (w, inputs, share, verdict)
        seen.add(verdict[0])
    assert len(seen) == 2


HEARD = [  # noise that hears of motion along the minima, which a rule with a memory lags behind
    md.LabelNoise(0.5, batch=1),
    md.Minibatch(1),
    md.GaussianNoise(sp.Matrix([[0.1 + a, 0], [a * b + 1, 0.3 * b]])),
]


@pytest.mark.parametrize("rule", list(RULES))
def test_both_hear_of_motion_along_the_minima(rule):
    """Within 3 % of the largest stable learning rate both agree under strong labels, samples that do not share the
    minimum, and slopes of sigma along it, where the noise's curves leave a stationary law."""
    rng = np.random.default_rng(list(RULES).index(rule))
    loss = md.Loss.regression(a * b * x, [a, b], {x: [1.0, 2.0, 3.0]}, [0.0, 0.0, 0.0])
    seen = []
    for noise in HEARD:
        for share in (0.5, 0.97, 1.03):
            w, inputs, off = rng.normal(0.3, 1.0, 2), rng.normal(size=3), rng.normal(size=3)
            off -= inputs * (off @ inputs) / (inputs @ inputs)
            here = loss.with_data({x: inputs, loss.target: w[0] * w[1] * inputs + off})
            limit = md.stability(md.Map(here, RULES[rule](1e-3), noise), w).max_lr
            verdict = verdicts(md.Map(here, RULES[rule](share * limit), noise), w, lawless=True)
            assert verdict[0] == verdict[1] == (share < 1), (noise, w, inputs, off, share, verdict)
            seen.append(verdict[0])
    assert len(set(seen)) == 2


def test_what_a_memory_lags_behind_is_heard():
    """On `p q + r^2` at r = 0 Adam with a small eps drives r off exactly where both say unstable: a displacement of
    1e-14 grows in a thousand steps, or it shrinks."""
    loss = md.Loss.regression((a * b + c**2) * x, [a, b, c], {x: [1.0, 2.0]}, [1.0, 2.0])
    for lr, stays in ((1e-7, True), (3e-7, False)):
        system = md.Map(loss, md.Adam(lr, 0.6, 0.9, 1e-8), md.LabelNoise(0.02, batch=1))
        assert verdicts(system, [2.0, 0.5, 0.0]) == (stays, stays)
        run = md.simulate(system, [2.0, 0.5, 1e-14], 1000, paths=64, save_every=1000, rng=1, first_step=10**6)
        assert (np.median(abs(run.w[:, -1, 2])) < 1e-14) == stays


@pytest.mark.parametrize("lr, stays", [(1e-7, True), (3e-7, False)])
def test_validity_counts_what_noise_multiplies_along_the_minima(lr, stays):
    """The same under RMSProp, whose steps along r are lr/eps: with labels of deviation s on one of the inputs 1, 2 a
    step multiplies r by 1 - 2 lr/eps times a noise of s sqrt(5/2), and where that is about 2 r is driven off; no moment
    of leading order says so, the validity is that number."""
    loss = md.Loss.regression((a * b + c**2) * x, [a, b, c], {x: [1.0, 2.0]}, [1.0, 2.0])
    system = md.Map(loss, md.RMSProp(lr, beta2=0.9, eps=1e-8), md.LabelNoise(0.02, batch=1))
    factor = 2 * lr / 1e-8 * 0.02 * np.sqrt(2.5)
    assert md.QuasistaticFlow(system).validity([2.0, 0.5, 0.0]) == pytest.approx(factor, rel=1e-3)
    run = md.simulate(system, [2.0, 0.5, 1e-14], 1000, paths=64, save_every=1000, rng=1, first_step=10**6)
    assert (np.median(abs(run.w[:, -1, 2])) < 1e-14) == stays == (factor < 1.5)


def test_points_that_batches_drive_away_from_along_the_minima():
    """Samples +y^2/2 and -y^2/2 rest at y = 0 alone: unstable for both there, stable and a flow beside it."""
    loss = md.Loss(x**2 / 2 + c * y**2 / 2, [x, y], data={c: [1.0, -1.0]})
    system = md.Map(loss, md.SGD(0.5), md.Minibatch(1))
    refused(system, [0.0, 0.0], "rests there, but not beside it")
    assert verdicts(system, [0.0, 1.0]) == (True, True)
    S = md.QuasistaticFlow(system).diffusion([0.0, 1.0])
    np.testing.assert_allclose(S @ S.T * 0.5, [[0, 0], [0, 0.25]], atol=1e-12, rtol=0)


def refused(system, w, match):
    with pytest.raises(md.FlowError, match=match):
        md.QuasistaticFlow(system).drift(w)
    assert not md.stability(system, w).stable


def test_quiet_instability_is_refused():
    """Heavy ball beyond its edge on batches, a quiet unstable direction beside a stable one, and second moments that
    grow although the mean would come to rest, are refused with a sentence each."""
    steep = md.Loss(c * (1 + x**2) * y**2 / 2, [x, y], data={c: [4.0, 5.0]})
    refused(md.Map(steep, md.SGD(1.0, momentum=0.5), md.Minibatch(1)), [1.0, 0.0], "outside the unit circle")
    two = md.Loss((1 + x**2) * y**2 / 2 + 9 * z**2 / 2, [x, y, z])
    system = md.Map(two, md.SGD(0.3), md.GaussianNoise([0.1, 0.1, 0.0]))
    refused(system, [0.5, 0.0, 0.0], "outside the unit circle")
    uneven = md.Loss(c * (1 + x**2) * y**2 / 2, [x, y], data={c: [0.1, 1.9]})
    refused(md.Map(uneven, md.SGD(0.8), md.Minibatch(1)), [1.0, 0.0], "second moments")
    drifting = md.Map(uneven, md.SGD(0.3), md.Minibatch(1))
    np.testing.assert_array_equal(md.QuasistaticFlow(drifting).drift([1.0, 0.0]), 0.0)


@pytest.mark.parametrize("rule", ["rmsprop", "adam"])
def test_adaptive_rules_on_minima_that_fit_every_sample_are_refused(rule):
    """Where batches have no noise at the minimum itself the preconditioner is 1/eps, and the step unstable."""
    loss = md.Loss.regression(a * b * x, [a, b], {x: [0.5, 2.0]}, [0.5, 2.0])
    refused(md.Map(loss, RULES[rule](0.1), md.Minibatch(1)), [2.0, 0.5], "unstable")


@pytest.mark.parametrize("slope", [1.0, 3.0, 5.0])
def test_slopes_of_sigma_decide_as_well(slope):
    """On y^2 h/2 with noise slope*y across, second moments die out exactly while (1 - lr h)^2 + (lr slope)^2 < 1."""
    loss, lr = md.Loss((1 + x**2) * y**2 / 2, [x, y]), 0.2
    system = md.Map(loss, md.SGD(lr), md.GaussianNoise([[0.1, 0], [0, slope * y]]))
    stable, exists = verdicts(system, [1.0, 0.0])
    assert stable == exists == ((1 - 2 * lr) ** 2 + (lr * slope) ** 2 < 1)


def test_an_oscillation_without_a_stationary_law_is_refused():
    """Samples `h y^2/2 + c (y + y^3/6)`, c = 1 and -1, one at a time: `W (4 lr - 5 lr^2) = lr^2` has no positive
    solution beyond lr = 0.8, though displacements die out up to 1; all that ask for it are told."""
    loss = md.Loss((1 + x**2) * y**2 / 2 + c * (y + y**3 / 6), [x, y], data={c: [1.0, -1.0]})
    w, chart = [1.0, 0.0], md.Manifold(loss, chart={x: a, y: 0}, coordinates=[a])
    below = md.Map(loss, md.SGD(0.7), md.Minibatch(1))
    W = 0.49 / (2.8 - 5 * 0.49)
    for flow in (md.QuasistaticFlow(below), md.QuasistaticFlow(below, chart).closed_form()):
        np.testing.assert_allclose(flow.drift(w)[0], -W, rtol=1e-12)
    for lr in (0.83, 0.97):
        system = md.Map(loss, md.SGD(lr), md.Minibatch(1))
        assert md.stability(system, w).stable
        flow = md.QuasistaticFlow(system, chart)
        for each in (flow, flow.closed_form()):
            for ask in (each.drift, each.validity, lambda at, e=each: e.describe(w=at)):
                with pytest.raises(md.FlowError, match="no stationary law here, although small displacements die out"):
                    ask(w)


def test_every_code_of_the_field_is_a_status():
    """Whatever the quasistatic flow explains, a run can end with and say."""
    flow = md.QuasistaticFlow(md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.1)))
    known = [code for code in range(64) if "could not be evaluated" not in flow.explain(code)]
    assert {5, 6, 9, 18, 19} <= set(known)
    assert all(md.Status(code).label for code in known)


def test_a_run_ends_where_its_oscillation_loses_its_law():
    """Where the valley becomes flat `lr h (2 - lr h)` falls to lr^2, and W grows without bound: the run's status says
    it, numerically and in closed form."""
    loss = md.Loss(y**2 / (1 + x**2) / 2 + c * (y + y**3 / 6), [x, y], data={c: [1.0, -1.0]})
    chart = md.Manifold(loss, chart={x: a, y: 0}, coordinates=[a])
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.2), md.Minibatch(1)), chart)
    for each in (flow, flow.closed_form()):
        run = md.simulate(each, [1.0, 0.0], 4000, save_every=100)
        assert "oscillation without a stationary law" in run.describe_status()
        assert 2.5 < np.nanmax(run.w[0, :, 0]) < np.sqrt(0.4 / 0.04 - 1)


@md.rule
def adagrad(theta, g, v, *, lr, eps=1e-8):
    v = v + g**2
    return theta - lr * g / (sp.sqrt(v) + eps), v


def test_what_is_wrong_is_said():
    """A rule whose states never rest is told so although there is noise and an eps, and a point that is not critical is
    called neither a saddle nor an isolated minimum."""
    loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    with pytest.raises(md.FlowError, match="comes to no rest here, although there is noise"):
        md.QuasistaticFlow(md.Map(loss, adagrad(0.1), md.GaussianNoise(0.1))).drift([1.0, 0.0])
    for w in ([1.0, 2.0], [0.5, 0.9]):
        with pytest.raises(md.ManifoldError, match="is no minimum: the gradient has the norm"):
            md.QuasistaticFlow(md.Map(loss, md.SGD(0.1), md.GaussianNoise(0.1))).drift(w)


@pytest.mark.parametrize("size", [2, 5, 8, 9])
def test_dimensions_are_those_of_exact_spectra(size):
    """At minima with known eigenvalues, flat, clear or negative, of any size; NaN has no dimension."""
    rng = np.random.default_rng(size)
    w = sp.symbols(f"w:{size}")
    turn = np.linalg.qr(rng.normal(size=(size, size)))[0]
    for flat in range(size):
        values = np.where(np.arange(size) < flat, 1e-12 * rng.random(size), 10.0 ** rng.uniform(-3, 2, size))
        H = sp.Matrix((turn * values) @ turn.T)
        minima = md.Manifold(md.Loss((sp.Matrix([w]) * H * sp.Matrix(w))[0] / 2, w))
        assert minima.dimensions(rng.normal(size=(3, size))) == {flat}
    with pytest.raises(md.ManifoldError, match="not finite"):
        twisted = sum(v**2 for v in w) + (w[0] * w[1] * w[2] if size > 2 else w[0] ** 4)
        md.Manifold(md.Loss(twisted, w)).dimensions([np.where(np.arange(size) == (2 if size > 2 else 0), np.nan, 0.0)])
    steep = md.Manifold(md.Loss((sum(v**2 for v in w[1:]) - w[0] ** 2) / 2, w))
    with pytest.raises(md.ManifoldError, match=r"saddle|no minimum"):
        steep.dimensions(np.zeros((1, size)))
