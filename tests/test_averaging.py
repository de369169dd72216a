"""Averages over the noise in the gradient: curves by quadrature, squares of what is remembered, what is refused."""

import numpy as np
import pytest
import sympy as sp
from numpy.polynomial.hermite_e import hermegauss

import minidyn as md
from minidyn.flows.slow.oscillation import spread

x, y = sp.symbols("x y")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
FLAT = md.Loss(y**2 + 0 * x, [x, y])
FEW = md.Loss.regression(
    x * y * sp.Symbol("u"), [x, y], inputs={sp.Symbol("u"): np.array([0.5, 1.0, 2.0])}, target=np.array([0.5, 1.0, 2.0])
)


@md.rule
def smooth_clip(theta, g, *, lr, scale):
    return theta - lr * scale * sp.tanh(g / scale)


@md.rule
def clipped_momentum(theta, g, m, *, lr, scale, beta=0.9):
    m = beta * m + g / sp.sqrt(1 + (g / scale) ** 2)
    return theta - lr * m, m


@md.rule
def belief(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=0.0):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g - m) ** 2
    return theta - lr * m / (sp.sqrt(v) + eps), m, v


@md.rule
def squared_memory(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * m**2
    return theta - lr * g / sp.sqrt(v), m, v


@md.rule
def old_memory(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999):
    return theta - lr * g / sp.sqrt(v), beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * (g + m) ** 2


@md.rule
def twice(theta, g, m, n, v, *, lr, beta1=0.9, beta2=0.999):
    m = beta1 * m + (1 - beta1) * g
    n = 0.8 * n + 0.2 * m
    v = beta2 * v + (1 - beta2) * n**2
    return theta - lr * g / sp.sqrt(v), m, n, v


CLIPS = {
    "smooth_clip": (smooth_clip, lambda g, c: c * np.tanh(g / c), lambda g, c: np.cosh(g / c) ** -2.0),
    "clipped_momentum": (
        clipped_momentum,
        lambda g, c: g / np.sqrt(1 + (g / c) ** 2),
        lambda g, c: (1 + (g / c) ** 2) ** -1.5,
    ),
}


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("name", CLIPS)
def test_curves_are_averaged_over_the_noise(name, noise):
    """On `h y^2 / 2` the drift is -h' E f' W / 2 with the rule's own mean slope and variance, by 100 nodes; across the
    minima the curve sees noise and oscillation."""
    rule, f, slope = CLIPS[name]
    t, w = hermegauss(100)
    w = w / w.sum()
    lr, h, beta = 0.002, 2.0, 0.9 if name == "clipped_momentum" else 0.0
    W = 0.0
    for _ in range(20):
        seen = np.sqrt(noise**2 + h**2 * W)
        across, kick = w @ slope(seen * t, 1.0), w @ f(seen * t, 1.0) ** 2
        A = np.array([[1 - lr * across * h, -lr * beta], [across * h, beta]])
        b = np.array([-lr, 1.0])
        kick -= across**2 * h**2 * W  # what the oscillation itself is answered with is in A
        W = np.linalg.solve(np.eye(4) - np.kron(A, A), np.outer(b, b).ravel() * kick)[0]
    a, kick = w @ slope(noise * t, 1.0), w @ f(noise * t, 1.0) ** 2
    flow = md.QuasistaticFlow(md.Map(VALLEY, rule(lr, 1.0), md.GaussianNoise(noise)))
    whole = lr / (1 - beta)
    assert flow.drift([1.0, 0.0])[0] * lr == pytest.approx(-whole * 2.0 * a * W / 2, rel=1e-5, abs=0)
    assert flow.diffusion([1.0, 0.0])[0, 0] ** 2 * lr == pytest.approx(whole**2 * kick, rel=1e-5, abs=0)


@pytest.mark.parametrize("name, lr", [("smooth_clip", 0.01), ("clipped_momentum", 0.001)])
def test_curves_move_as_discrete_runs(name, lr):
    """At a noise of 0.7 of the scale 4000 paths of a valley, less those of a plain one under that noise, move as the
    flow, within 3 standard errors; SGD's flow is far off."""
    loss, w = md.Loss((1.98 + x / 50) * y**2 / 2, [x, y]), [1.0, 0.0]
    plain, noise, rule = md.Loss(y**2 + 0 * x, [x, y]), md.GaussianNoise(0.7), CLIPS[name][0](lr, 1.0)
    runs = [md.simulate(md.Map(e, rule, noise), w, 2000, paths=4000, save_every=1000, rng=3).w for e in (loss, plain)]
    at = runs[0][..., 0] - runs[1][..., 0]
    moved = at[:, 2] - at[:, 1]
    error = moved.std() / np.sqrt(len(moved))
    assert error < 0.01 * abs(moved.mean())
    flow, other = (md.QuasistaticFlow(md.Map(loss, r, noise)).drift(w)[0] * lr * 1000 for r in (rule, md.SGD(lr)))
    assert abs(flow - moved.mean()) < 3 * error
    assert abs(other - moved.mean()) > 0.5 * abs(flow)


def test_curves_of_correlated_noise_covary_as_they_do():
    """The covariance of two clipped gradients under correlated noise is the double integral's."""
    C = np.array([[0.5, 0.0], [0.4, 0.3]])
    lr = 0.01
    flat = md.Loss(sp.Symbol("z") ** 2 / 2 + 0 * x * y, [x, y, sp.Symbol("z")])
    factor = np.zeros((3, 3))
    factor[:2, :2], factor[2, 2] = C, 0.5
    flow = md.QuasistaticFlow(md.Map(flat, smooth_clip(lr, 1.0), md.GaussianNoise(factor)))
    t, w = hermegauss(80)
    w = np.outer(w, w) / w.sum() ** 2
    u, v = np.meshgrid(t, t, indexing="ij")
    first, second = np.tanh(0.5 * u), np.tanh(0.4 * u + 0.3 * v)
    s = flow.diffusion([0.0, 0.0, 0.0])[:2] / np.sqrt(lr)
    expected = [[(w * p * q).sum() for q in (first, second)] for p in (first, second)]
    np.testing.assert_allclose(s @ s.T, expected, rtol=1e-7)


@pytest.mark.parametrize("rule", [belief, squared_memory, old_memory, twice])
def test_accumulators_of_memories_rest_where_a_long_run_has_them(rule):
    """`v*` is the mean of v over a literal run of the averages alone, for unit noise, within 4 standard errors."""
    rng, paths = np.random.default_rng(5), 4000
    b1, m, n, total, steps = 0.9, np.zeros(paths), np.zeros(paths), np.zeros(paths), 600
    for k in range(steps):
        g, old = rng.normal(size=paths), m
        m = b1 * m + (1 - b1) * g
        n = 0.8 * n + 0.2 * m
        seen = {"belief": g - m, "squared_memory": m, "old_memory": g + old, "twice": n}[rule(0.1).name]
        total += seen**2 if k >= 100 else 0.0
    system = md.Map(VALLEY, rule(1e-4), md.GaussianNoise(0.3))
    v = total / (steps - 100) * 0.09
    assert abs(system.fixed_point([1.0, 0.0])[-1] - v.mean()) < 4 * v.std() / np.sqrt(paths)


def literal_memories(name, lr, paths=800, steps=5000, beta1=0.9, beta2=0.999):
    """What the pull h' y^2 / 2 moves x by per step, at x = 1 of the valley, in literal runs with and without it on the
    same noise: mean and standard error."""
    rng = np.random.default_rng(7)
    at, moved = np.zeros(paths), np.zeros(paths)
    m, n = np.zeros((3, paths)), np.zeros((3, paths))
    v = np.full((3, paths), md.Map(VALLEY, RULES[name](lr), md.GaussianNoise(0.3)).fixed_point([1.0, 0.0])[-1])
    for k in range(steps):
        across, along = 0.3 * rng.normal(size=(2, paths))
        g, old = np.stack([2 * at + across, along + at**2, along]), m
        m = beta1 * m + (1 - beta1) * g
        n = 0.8 * n + 0.2 * m
        heard = {"belief": g - m, "squared_memory": m, "old_memory": g + old, "twice": n}[name]
        v = beta2 * v + (1 - beta2) * heard**2
        step = -lr * (m if name == "belief" else g) / np.sqrt(v)
        moved += (step[1] - step[2]) / (steps / 2) if 2 * k >= steps else 0.0
        at = at + step[0]
    return moved.mean(), moved.std() / np.sqrt(paths)


RULES = {r(0.1).name: r for r in (belief, squared_memory, old_memory, twice)}


@pytest.mark.parametrize(
    "name, lr", [("belief", 2e-3), ("squared_memory", 2e-3), ("old_memory", 2e-3), ("twice", 3e-4)]
)
def test_accumulators_of_memories_drift_as_literal_runs(name, lr):
    """At beta2 = 0.999 the drift is the literal runs' within 3 standard errors, each below 1 %: what the accumulators
    hear of the oscillation through their memories is in it."""
    system = md.Map(VALLEY, RULES[name](lr), md.GaussianNoise(0.3))
    mean, error = literal_memories(name, lr)
    assert error < 0.01 * abs(mean)
    assert abs(md.QuasistaticFlow(system).drift([1.0, 0.0])[0] * lr - mean) < 3 * error
    if name in ("squared_memory", "twice"):  # without that, far off
        assert abs(md.QuasistaticFlow(system, accumulators="full").drift([1.0, 0.0])[0] * lr / mean - 1) > 0.06


def test_squares_of_memories_stay_alike():
    """`sum_l r_l^2` over all lags of what is squared: `(1 + beta1^2)/(1 - beta1^2)` for a running mean, 1 for the
    gradient, and the literal sum over weights of `g + m`."""
    alike = [
        md.QuasistaticFlow(md.Map(VALLEY, r(1e-4), md.GaussianNoise(0.3))).averaged.rule.alike
        for r in (squared_memory, md.RMSProp, old_memory)
    ]
    weights = np.append(1.0, 0.1 * 0.9 ** np.arange(500))
    lags = np.correlate(weights, weights, "full") / (weights @ weights)
    np.testing.assert_allclose(alike, [1.81 / 0.19, 1.0, (lags**2).sum()], rtol=1e-4)


def oscillation(name, lr, paths):
    """The flow of a rule on a plain valley, the variance across it that the flow is made with, and 8000 steps of paths
    from which v has settled, (paths, saves, 2)."""
    system, w = md.Map(FLAT, RULES[name](lr), md.GaussianNoise(0.3)), np.array([1.0, 0.0])
    flow, W = md.QuasistaticFlow(system), np.empty((system.components, system.components))
    spread(flow.pointers[2], w.copy(), 1.0, system.hyper_at(), system.loss.c, system.loss.rows, system.bound.numbers,
           flow.numbers(w[None]), W, np.empty(system.components), np.empty(1))  # fmt: skip
    run = md.simulate(system, system.fixed_point(w), 8000, paths=paths, save_every=200, rng=3, first_step=10**6)
    return flow, W[1, 1], run.w[:, 30:]


@pytest.mark.parametrize(
    "name, lr", [("belief", 2e-2), ("squared_memory", 5e-3), ("old_memory", 2e-2), ("twice", 3e-4)]
)
def test_accumulators_of_memories_oscillate_as_discrete_runs(name, lr):
    """The variance across the valley, and that of 2000 steps along it, are those of 3000 paths within 2 % and 3
    standard errors."""
    flow, W, run = oscillation(name, lr, 3000)
    across, root = (run[..., 1] ** 2).mean(axis=1), np.sqrt(len(run))
    assert abs(W - across.mean()) < 0.02 * W + 3 * across.std() / root
    assert across.std() < 0.02 * root * W
    S = flow.diffusion([1.0, 0.0])
    along = (run[:, -1, 0] - run[:, 0, 0]).var()
    assert (S @ S.T)[0, 0] * lr * 2000 == pytest.approx(along, rel=0.02 + 3 * np.sqrt(2) / root)


def test_validity_grows_where_fluctuations_of_v_feed_themselves():
    """Two memories hear so little of a quick oscillation that v falls, and what v misses comes back amplified: at lr
    4e-3 the variance is 1.5 times the runs' or more and the validity above 1/2, at 3e-4 below 0.03, like others."""
    flow, W, run = oscillation("twice", 4e-3, 500)
    assert 1.5 * (run[..., 1] ** 2).mean() < W
    assert flow.validity([1.0, 0.0]) > 0.5
    for rule, most in ((twice(3e-4), 0.03), (belief(0.02), 0.002), (old_memory(0.02), 0.002)):
        assert md.QuasistaticFlow(md.Map(FLAT, rule, md.GaussianNoise(0.3))).validity([1.0, 0.0]) < most


def test_adabelief_and_squared_memory_have_the_closed_forms():
    """`v* = 2 beta1^2/(1+beta1) Sigma` and `(1-beta1)/(1+beta1) Sigma`."""
    for rule, share in ((belief, 2 * 0.81 / 1.9), (squared_memory, 0.1 / 1.9)):
        state = md.Map(VALLEY, rule(1e-4), md.GaussianNoise(0.3)).fixed_point([1.0, 0.0])
        np.testing.assert_allclose(state[-2:], share * 0.09, rtol=1e-12)


@pytest.mark.parametrize("noise", [
    md.Minibatch(1), md.Minibatch(2, replace=True), md.LabelNoise(0.1, batch=1), md.LabelNoise(0.1, kind="rademacher"),
    md.GaussianNoise(0.1) + md.Minibatch(1),
], ids=str)  # fmt: skip
@pytest.mark.parametrize(
    "rule", [md.SignGD(0.01), md.Lion(0.01), smooth_clip(0.01, 1.0), clipped_momentum(0.01, 1.0)], ids=lambda r: r.name
)
def test_signs_and_curves_are_refused_where_noise_is_not_gaussian(rule, noise):
    """The reason and what works are named."""
    with pytest.raises(md.FlowError, match=r"is not Gaussian: .* use md.GaussianNoise"):
        md.QuasistaticFlow(md.Map(FEW, rule, noise))


@pytest.mark.parametrize("noise", [md.LabelNoise(0.1), md.LabelNoise(0.1, batch=3)], ids=str)
def test_normal_labels_of_full_batches_are_gaussian(noise):
    """A sum of normals is one: signs are averaged as under normal noise of that covariance, and `describe` says what is
    assumed."""
    size = 0.1 * np.sqrt(7 / 12)  # std^2 / n times the mean of u^2, which is 7/4
    normal = md.GaussianNoise([[size * y, 0.05, 0], [size * x, 0, 0.05]])
    noise = noise + md.GaussianNoise(0.05)
    flow, plain = (md.QuasistaticFlow(md.Map(FEW, md.SignGD(0.001), n)) for n in (noise, normal))
    np.testing.assert_allclose(flow.drift([2.0, 0.5]), plain.drift([2.0, 0.5]), rtol=1e-9)
    assert abs(flow.drift([2.0, 0.5])).min() > 1e-6
    assert "of the noise: it is Gaussian in every coordinate" in flow._describe(False)


def test_a_noise_too_wide_for_the_quadrature_is_refused():
    """A clip at a hundredth of the noise is nearly a sign, and nodes do not resolve it."""
    flow = md.QuasistaticFlow(md.Map(VALLEY, smooth_clip(0.001, 0.003), md.GaussianNoise(0.3)))
    with pytest.raises(md.FlowError, match="so much wider than the scale"):
        flow.drift([1.0, 0.0])


@md.rule
def late_clip(theta, g, m, *, lr, beta=0.8, scale=0.3):
    m = beta * m + (1 - beta) * g
    return theta - lr * scale * sp.tanh(m / scale), m


def test_curves_of_a_running_mean_are_averaged_over_all_that_it_remembers():
    """A clip of the momentum, noise as wide as its scale: the drift is -h' E f' E y^2 / 2 of 6000 literal runs,
    within 4 standard errors."""
    lr, beta, paths, h = 0.05, 0.8, 6000, 2.0
    flow = md.QuasistaticFlow(md.Map(VALLEY, late_clip(lr), md.GaussianNoise(0.3)))
    rng, at, m, square = np.random.default_rng(1), np.zeros(paths), np.zeros(paths), np.zeros(paths)
    for k in range(400):
        m = beta * m + (1 - beta) * (h * at + 0.3 * rng.normal(size=paths))
        square += at**2 / 200 if k >= 200 else 0.0
        at = at - lr * 0.3 * np.tanh(m / 0.3)
    t, w = hermegauss(60)
    slope = w @ np.cosh(np.sqrt((1 - beta) / (1 + beta)) * t) ** -2 / w.sum()  # along x, where only noise is heard
    error = 4 * square.std() / np.sqrt(paths) / square.mean()
    assert flow.drift([1.0, 0.0])[0] * lr == pytest.approx(-lr * slope * 2.0 * square.mean() / 2, rel=error)


def test_curves_of_several_memories_are_refused():
    """Two clips that hear different means, and one of a mean that is no mean of the gradient."""

    @md.rule
    def both(theta, g, m, *, lr, beta=0.9):
        m = beta * m + g
        return theta - lr * (sp.tanh(m) + sp.tanh(g)), m

    @md.rule
    def stale(theta, g, m, *, lr, beta=0.9):
        return theta - lr * sp.tanh(m), beta * m + g

    for rule in (both, stale):
        with pytest.raises(md.FlowError, match="bends in what it remembers"):
            md.QuasistaticFlow(md.Map(VALLEY, rule(0.01), md.GaussianNoise(0.3)))


def _cubic(g):
    return g + 3 * g**3 / 10


@md.rule
def cubic(theta, g, *, lr):
    return theta - lr * _cubic(g)


@md.rule
def tame(theta, g, *, lr):
    return theta - lr * sp.tanh(g)


@md.rule
def cubic_of_both(theta, g, m, *, lr, beta=0.8):
    m = beta * m + (1 - beta) * g
    return theta - lr * _cubic((g + m) / 2), m


@pytest.mark.parametrize(
    "rule, curve", [(cubic, _cubic), (tame, np.tanh), (cubic_of_both, _cubic)], ids=lambda v: getattr(v, "name", "")
)
def test_curves_are_averaged_over_the_oscillation_too(rule, curve):
    """The drift is -lr E f' h' E y^2 / 2 of literal runs at lr h = 0.1 and a noise of 0.7 of the scale, within 3.5
    standard errors; averaged over noise alone it is up to 12 of them off."""
    lr, h, width, paths, held = 0.05, 2.0, 0.7, 40_000, 0.8
    flow = md.QuasistaticFlow(md.Map(VALLEY, rule(lr), md.GaussianNoise(width)))
    rng, at, m, square = np.random.default_rng(3), np.zeros(paths), np.zeros(paths), np.zeros(paths)
    for k in range(300):
        seen = h * at + width * rng.normal(size=paths)
        m = held * m + (1 - held) * seen
        square += at**2 / 200 if k >= 100 else 0.0
        at = at - lr * curve((seen + m) / 2 if rule is cubic_of_both else seen)
    t, w = hermegauss(60)
    share = (1 + (1 - held)) / 2, held / 2 * np.sqrt((1 - held) / (1 + held))
    noise = width * (np.hypot(*share) if rule is cubic_of_both else 1.0)
    slope = w @ (t * curve(noise * t)) / noise / w.sum()  # along x, where only noise is seen
    assert flow.drift([1.0, 0.0])[0] * lr == pytest.approx(
        -lr * slope * 2.0 * square.mean() / 2, rel=3.5 * square.std() / np.sqrt(paths) / square.mean()
    )
