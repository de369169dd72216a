"""Linear stability: the exact verdict against one-parameter formulas, dense operators, and the discrete maps."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn import cli

x, a, b, c = sp.symbols("x a b c")
j = sp.Symbol("j", integer=True)
WELLS = md.Loss(sp.Min(x**2, c * (x - 1) ** 2), [x], data={c: [0.1, 1.9]})
PARABOLAS = md.Loss(c * x**2 / 2, [x], data={c: [1.0, 2.0]})
VALLEY = md.Loss((1 + a**2) * b**2 / 2, [a, b])
RULES = {
    "SGD": md.SGD(0.3),
    "momentum": md.SGD(0.2, 0.7),
    "nesterov": md.SGD(0.2, 0.6, nesterov=True),
    "Adam": md.Adam(0.02, eps=0.1),
    "RMSProp": md.RMSProp(0.05, eps=0.1),
}


def least_squares(n, size, seed=0):
    """A random interpolating least-squares problem and its minimum."""
    rng = np.random.default_rng(seed)
    w, z = md.vector("w", size), md.vector("z", size)
    points, at = rng.normal(size=(n, size)), rng.normal(size=size)
    model = sp.Sum(w[j] * z[j], (j, 0, size - 1))
    return md.Loss.regression(model, [w], {z: points}, points @ at), at


@pytest.fixture(scope="module")
def problem():
    """Twelve parameters, nine samples: a manifold of dimension 3."""
    return least_squares(9, 12)


@pytest.fixture(scope="module")
def overdetermined():
    """Six parameters, nine samples: one minimum."""
    return least_squares(9, 6, seed=1)


def rule_matrices(rule):
    """(a, b) of the rule's linear response per coordinate, written by hand, accumulators at eps alone."""
    h, P = rule.hyper, 1 / rule.hyper.get("eps", 1.0)
    lr, beta = h["lr"], h.get("momentum", h.get("beta1", 0.0))
    if rule.name == "Adam":
        return np.array([[1, -lr * P * beta], [0, beta]]), np.array([-lr * P * (1 - beta), 1 - beta])
    if rule.name == "Nesterov":
        return np.array([[1, -lr * beta**2], [0, beta]]), np.array([-lr * (1 + beta), 1])
    if rule.states == ("m",):
        return np.array([[1, -lr * beta], [0, beta]]), np.array([-lr, 1])
    return np.array([[1.0]]), np.array([-lr * P])


def dense_radius(loss, at, rule, kappa):
    """The spectral radius of the second-moment operator, written down as the matrix that it is."""
    size, n = loss.dim, loss.n_samples
    unit = np.eye(size)
    hessians = np.stack([loss.sample_hvps(at, unit)[i] for i in range(n)])
    mean = loss.hessian(at)
    small_a, small_b = rule_matrices(rule)
    p = len(small_b)
    into = np.kron(small_b[:, None], unit)
    A = np.kron(small_a, unit) + into @ mean @ np.kron(np.eye(p)[:1], unit)
    theta = np.kron(np.eye(p)[:1], unit)
    noise = sum(np.kron(h, h) for h in hessians) / n - np.kron(mean, mean)
    T = np.kron(A, A) + kappa * np.kron(into, into) @ noise @ np.kron(theta, theta)
    return np.abs(np.linalg.eigvals(T)).max()


def test_one_parameter():
    """For one parameter the growth is (1 - lr a)^2 + lr^2 kappa s^2, and the verdict its comparison with 1."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, lr = int(rng.integers(2, 9)), rng.uniform(0.05, 2)
        curvatures, batch, replace = rng.uniform(0, 2, n), int(rng.integers(1, n + 1)), bool(rng.integers(2))
        system = md.Map(PARABOLAS.with_data({c: curvatures}), md.SGD(lr), md.Minibatch(batch, replace=replace))
        kappa = 1 / batch if replace else (n - batch) / (batch * (n - 1))
        expected = (1 - lr * curvatures.mean()) ** 2 + lr**2 * kappa * curvatures.var()
        s = md.stability(system, [0.0])
        assert s.spectral_radius == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert s.stable == (expected <= 1)
        assert s.nonuniformity == pytest.approx(curvatures.std(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_dense_operator(problem, overdetermined, rule):
    """The growth, with the manifold's 1, is the spectral radius of the operator as a dense matrix, to 1e-8."""
    loss, at = problem if rule in ("SGD", "RMSProp") else overdetermined  # the matrix has (2 D)^4 entries with momentum
    for noise in (md.Minibatch(2), md.Minibatch(3, replace=True)):
        system = md.Map(loss, RULES[rule], noise)
        s = md.stability(system, at)
        radius = dense_radius(loss, at, RULES[rule], system.bound.numbers[2])
        assert s.spectral_radius == pytest.approx(radius, abs=1e-8)
        assert s.growth == pytest.approx(md.stability(system, at, method="dense").growth, abs=1e-10)


def test_many_modes_without_the_matrix(problem):
    """With more modes than are written out, Krylov's method agrees with the dense feedback for momentum as well."""
    loss, at = problem
    for rule in ("momentum", "nesterov", "Adam"):
        system = md.Map(loss, RULES[rule], md.Minibatch(1))
        fast, slow = md.stability(system, at), md.stability(system, at, method="dense")
        assert fast.growth == pytest.approx(slow.growth, abs=1e-9)
        assert fast.max_lr == pytest.approx(slow.max_lr, rel=1e-8)


def test_operator_applied(problem):
    """The leading second moment is multiplied by the growth: T(W) = growth W, without any matrix."""
    loss, at = problem
    s = md.stability(md.Map(loss, RULES["momentum"], md.Minibatch(1)), at)
    applied, size = s.place.modes.apply(s.moment), np.abs(s.moment).max()
    np.testing.assert_allclose(applied, s.growth * s.moment, rtol=0, atol=1e-8 * size)


@pytest.mark.parametrize("rule", ["SGD", "nesterov"])
def test_limits_are_where_the_verdict_turns(problem, rule):
    """Just below the largest learning rate the minimum is stable, just above it is not; likewise for the batch."""
    loss, at = problem
    system = md.Map(loss, RULES[rule], md.Minibatch(2))
    s = md.stability(system, at)
    assert md.stability(system.with_lr(s.max_lr * (1 - 1e-8)), at).stable
    assert not md.stability(system.with_lr(s.max_lr * (1 + 1e-8)), at).stable
    n, batch = loss.n_samples, s.critical_batch
    for factor, stable in ((1 + 1e-8, True), (1 - 1e-8, False)):
        B = batch * factor
        assert (s.place.modes.with_noise((n - B) / (B * (n - 1)), 0.0).margin <= 1) == stable
    assert s.min_batch == int(np.ceil(batch))


def test_replacement_needs_larger_batches():
    """With replacement kappa = 1/B, so the smallest stable batch of one parameter is lr s^2 / (a (2 - lr a))."""
    curvatures = np.array([0.1, 0.5, 3.0, 2.4])
    system = md.Map(PARABOLAS.with_data({c: curvatures}), md.SGD(1.0), md.Minibatch(1, replace=True))
    mean = curvatures.mean()
    s = md.stability(system, [0.0])
    assert s.critical_batch == pytest.approx(curvatures.var() / (mean * (2 - mean)), rel=1e-10)


FLAT = md.Loss(a * x**2 / 2, [x], constants={a: 1.0})
THRESHOLDS = {
    "GD": (md.GD(0.1), 2 / 0.1),
    "heavy ball": (md.SGD(0.1, 0.9), 2 * 1.9 / 0.1),
    "Nesterov": (md.SGD(0.1, 0.9, nesterov=True), 2 * 1.9 / (2.8 * 0.1)),
    "Adam": (md.Adam(0.1, beta1=0.9, eps=1.0), 2 * 1.9 / (0.1 * 0.1)),
    "RMSProp": (md.RMSProp(0.1, eps=1.0), 2 / 0.1),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_thresholds(name):
    """The closed-form limit of the sharpness, the one from A, and bisection on the discrete map agree to 1e-6."""
    rule, expected = THRESHOLDS[name]
    s = md.stability(md.Map(FLAT, rule), [0.0])
    assert s.threshold == pytest.approx(expected, rel=1e-12)
    assert s.threshold_from_A == pytest.approx(expected, rel=1e-10)
    assert s.max_lr == pytest.approx(expected * rule.hyper["lr"], rel=1e-10)  # the sharpness is 1

    def grows(curvature):
        system = md.Map(FLAT.with_constants({a: curvature}), rule)
        # so small that v never matters, so late that Adam's bias is over
        run = md.simulate(system, [1e-120], 800, save_every=1, first_step=10**6, threads=1)
        late = np.abs(run.w[0, -40:, 0]).reshape(2, 20).max(axis=1)  # the other modes have died out
        return late[1] > late[0]

    low, high = 0.98 * expected, 1.02 * expected
    while high - low > 1e-7 * expected:
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    assert low == pytest.approx(expected, rel=1e-6)


def test_slopes_are_those_of_linearize(problem):
    """A has the eigenvalues of `Map.linearize`, with momentum and under Adam with noise that keeps v up."""
    loss, at = problem
    noisy = md.Map(VALLEY, md.Adam(0.1), md.GaussianNoise(0.5))
    for system, w in ((md.Map(loss, RULES["nesterov"]), at), (noisy, np.array([2.0, 0.0]))):
        A, _ = system.linearize(w)
        values = np.linalg.eigvals(A)
        for value in np.linalg.eigvals(md.stability(system, w).place.modes.blocks).ravel():
            assert np.abs(values - value).min() < 1e-9


def test_preconditioner_of_a_run():
    """Given a whole state z, accumulators are held at its v: the threshold is that of P = 1/(sqrt(v) + eps)."""
    system = md.Map(VALLEY, md.Adam(0.1, eps=0.0))
    z = np.array([2.0, 0.0, 0.0, 0.0, 4.0, 0.25])
    s = md.stability(system, z)
    assert s.preconditioner == pytest.approx([0.5, 2.0])
    assert s.preconditioned_sharpness == pytest.approx(10.0)
    assert s.max_lr == pytest.approx(2 * 1.9 / 0.1 / 10)
    with pytest.raises(md.FlowError, match="accumulators"):
        md.stability(system, [2.0, 0.0])


def test_label_noise():
    """a b = 1 under label noise: growth (1 - lr L)^2 + lr^2 s^2 (n^T F n)^2 with F the Hessian of the model."""
    loss = md.Loss.regression(a * b, [a, b], inputs={}, target=[1.0])
    s = md.stability(md.Map(loss, md.SGD(0.3), md.LabelNoise(0.5)), [2.0, 0.5])
    assert s.growth == pytest.approx((1 - 0.3 * 4.25) ** 2 + 0.09 * 0.25 * (2 / 4.25) ** 2, rel=1e-12)
    assert s.stable and s.manifold_dimension == 1 and s.spectral_radius == 1


def test_gaussian_noise():
    """sigma = 3 b on the valley: growth (1 - lr h)^2 + 9 lr^2; a constant sigma changes nothing."""
    s = md.stability(md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(3 * b)), [1.0, 0.0])
    assert s.growth == pytest.approx((1 - 0.2) ** 2 + 9 * 0.01, rel=1e-12)
    assert s.max_lr == pytest.approx(2 * 2 / (4 + 9), rel=1e-9)
    s = md.stability(md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(3)), [1.0, 0.0])
    assert s.growth == pytest.approx(0.64, rel=1e-12)


def test_minimum_that_fits_no_sample():
    """Where samples disagree (logistic regression), the whole sample Hessians enter: the dense radius again."""
    rng = np.random.default_rng(1)
    w, z = md.vector("w", 3), md.vector("z", 3)
    points = rng.normal(size=(24, 3))
    labels = np.resize([1.0, -1.0, -1.0], 24)  # no plane separates these
    loss = md.Loss.regression(sp.Sum(w[j] * z[j], (j, 0, 2)), [w], {z: points}, labels, "logistic")
    at = md.Manifold(loss).project(np.zeros(3))
    system = md.Map(loss, md.SGD(3.0), md.Minibatch(1))
    s = md.stability(system, at)
    assert not s.place.interpolates and "do not share" in s.summary()
    assert s.growth == pytest.approx(dense_radius(loss, at, md.SGD(3.0), 1.0), abs=1e-9)


def test_noise_along_a_flat_direction():
    """Samples +y^2/2 and -y^2/2 leave y without mean curvature, and their noise makes it grow by 1 + lr^2 kappa."""
    loss = md.Loss(x**2 / 2 + c * b**2 / 2, [x, b], data={c: [1.0, -1.0]})
    s = md.stability(md.Map(loss, md.SGD(0.5), md.Minibatch(1)), [0.0, 0.0])
    assert not s.stable and s.growth == pytest.approx(1.25, rel=1e-10) and s.max_lr is None
    assert md.stability(md.Map(loss, md.SGD(0.5)), [0.0, 0.0]).stable


def test_rules_of_the_user():
    """A mirror step is gradient descent in the metric P = theta: growth by hand, and measured."""

    @md.rule
    def mirror(theta, g, *, lr):
        return theta * sp.exp(-lr * g)

    loss = md.Loss.regression(a * x, [a], {x: [1.0, 2.0]}, [2.0, 4.0])
    system = md.Map(loss, mirror(lr=0.2), md.Minibatch(1))
    s = md.stability(system, [2.0])
    assert s.growth == pytest.approx((1 - 0.2 * 2 * 2.5) ** 2 + (0.2 * 2 * 1.5) ** 2, rel=1e-12)
    assert abs(md.escape(system, [2.0], paths=4000, steps=8, rng=0).z) < 3


def test_conditions_say_what_they_know():
    """Whenever a published condition decides, it decides as the exact verdict does; all three answers occur."""
    rng = np.random.default_rng(3)
    base, _ = least_squares(9, 12)
    said = set()
    for _ in range(25):
        points, at = rng.normal(size=(4, 12)) / 2, rng.normal(size=12)
        z, y = base.data
        loss = base.with_data({z: points, y: points @ at})
        s = md.stability(md.Map(loss, md.SGD(rng.uniform(0.05, 1.2)), md.Minibatch(int(rng.integers(1, 4)))), at)
        for condition in s.conditions:
            said.add(condition.says)
            assert condition.says in ("undecided", "stable" if s.stable else "unstable")
    assert said == {"undecided", "stable", "unstable"}


def test_non_uniformity_alone_forbids_nothing_in_several_directions():
    """A minimum beyond the bound on s that the second-moment operator, as a matrix, keeps: no condition forbids it."""
    points = np.array([[1.6, 0.4], [-0.4, -1.0], [1.0, -1.2]])
    base, _ = least_squares(3, 2)
    z, y = base.data
    loss = base.with_data({z: points, y: np.zeros(3)})
    s = md.stability(md.Map(loss, md.SGD(0.83), md.Minibatch(1)), [0.0, 0.0])
    assert dense_radius(loss, np.zeros(2), md.SGD(0.83), 1.0) == pytest.approx(s.growth, rel=1e-9) and s.growth < 1
    assert 0.83 * s.nonuniformity > 1.05 and {c.says for c in s.conditions} == {"undecided"}


def test_direction():
    """The unstable direction of separate parabolas is the coordinate whose samples disagree most."""
    u, v, p, q = sp.symbols("u v p q")
    loss = md.Loss((p * u**2 + q * v**2) / 2, [u, v], data={p: [1.0, 1.0], q: [0.1, 1.9]})
    s = md.stability(md.Map(loss, md.SGD(1.5), md.Minibatch(1)), [0.0, 0.0])
    np.testing.assert_allclose(s.direction, [0.0, 1.0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("rule", ["momentum", "RMSProp"])
def test_measured_growth(overdetermined, rule):
    """The second moment of 10^5 paths grows by the predicted factor, within 3 standard errors."""
    loss, at = overdetermined
    system = md.Map(loss, RULES[rule], md.Minibatch(2))
    out = md.escape(system, at, paths=100_000, steps=6, growth_steps=6, rng=3, k=10**5)
    assert abs(out.z) < 3 and out.standard_error < 0.01 * out.predicted


def test_two_wells():
    """At lr 0.7 GD started near 1 stays there and SGD with batch 1 leaves for 0, as both predictions say."""
    sgd = md.escape(md.Map(WELLS, md.SGD(0.7), md.Minibatch(1)), [1.0], paths=2000, steps=300, rng=0)
    assert sgd.predicted == pytest.approx(1.7476) and abs(sgd.z) < 3
    assert sgd.left == 1 and sgd.destinations[0] == pytest.approx([0.0], abs=1e-12)
    gd = md.escape(md.Map(WELLS, md.GD(0.7)), [1.0], radius=1e-2, paths=2000, steps=100, rng=0)
    assert gd.predicted == pytest.approx(0.16) and gd.left == 0
    assert "100.0 % at [0.0]" in sgd.summary()


def test_diagram_separates_the_wells(tmp_path):
    """Equal sharpness, different non-uniformity: batch 1 keeps one of the wells, the full batch both."""
    d = md.stability_diagram(md.Map(WELLS, md.SGD(0.7), md.Minibatch(1)), [[1.0], [0.0]], batches=[1, None])
    np.testing.assert_allclose(d.sharpness, [2, 2])
    np.testing.assert_allclose(d.nonuniformity, [1.8, 0], atol=1e-12, rtol=0)
    assert d.stable.tolist() == [[False, True], [True, True]]
    edge, height = d.boundary(0)
    assert np.interp(2.0, edge, height) < 1.8 and d.box(0) == pytest.approx((2 / 0.7, 1 / 0.7))
    fig = d.plot(tmp_path / "wells.png")
    assert (tmp_path / "wells.png").read_bytes().startswith(b"\x89PNG")
    for number, ax in enumerate(fig.axes):  # the markers of stable minima, then those of the others, are where they lie
        for marks, chosen in zip(ax.collections[-2:], (d.stable[:, number], ~d.stable[:, number]), strict=True):
            np.testing.assert_array_equal(marks.get_offsets(), np.stack([d.sharpness, d.nonuniformity], axis=1)[chosen])
    heavy = md.stability_diagram(md.Map(WELLS, md.SGD(0.7, 0.5), md.Minibatch(1)), [[1.0], [0.0]]).plot()
    said = [[t.get_text() for t in f.legends[0].get_texts()] for f in (fig, heavy)]
    assert ["stable where the loss has one parameter" in words for words in said] == [True, False]  # without momentum


@pytest.mark.parametrize("std", [None, 0.5, 5.0])
def test_a_diagram_does_not_say_that_sharpness_decides_where_other_noise_does(std):
    """Label noise, which the verdicts hold and the regions do not, is said; without it sharpness alone decides."""
    a, b = sp.symbols("a b")
    loss = md.Loss.regression(a * b, [a, b], {}, [1.0])
    noise = None if std is None else md.LabelNoise(std)
    d = md.stability_diagram(md.Map(loss, md.SGD(0.3), noise), [[2.0, 0.5], [1.0, 1.0]])
    fig = d.plot()
    below, words = " ".join(fig.texts[1].get_text().split()), [t.get_text() for t in fig.legends[0].get_texts()]
    alone = bool((d.stable[:, 0] == (d.sharpness < d.box(0)[0])).all())
    assert alone == (std != 5.0)  # at (1, 1), where sharpness is 2, label noise of 5 makes second moments grow
    assert ("sharpness alone decides" in below and "stable" in words) == (std is None)
    assert ("leaves label noise out" in below and "stable, without that noise" in words) == (std is not None)


def test_command(capsys, tmp_path):
    """`minidyn stability two_wells` prints the report and the table, and writes the diagram."""
    assert cli.call(["stability", "two_wells", "--batch", "1", "--batch", "0", "--out", f"{tmp_path}/"]) == 0
    out = capsys.readouterr().out
    assert "verdict" in out and "unstable, 1.7476" in out and "lr 0.7, full batch" in out
    assert (tmp_path / "two_wells_stability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "system, w, error, says",
    [
        (md.Map(VALLEY, md.SGD(0.1)), [1.0, 0.5], md.ManifoldError, "not a minimum"),
        (md.Map(md.Loss(x**2 - b**2, [x, b]), md.SGD(0.1)), [0.0, 0.0], md.ManifoldError, "saddle"),
        (md.Map(PARABOLAS, md.SGD(0.1), md.Reshuffle(1)), [0.0], md.FlowError, "reshuffling"),
        (md.Map(VALLEY, md.Lion(0.1), md.GaussianNoise(0.1)), [1.0, 0.0], md.FlowError, "sign of a state"),
        (md.Map(VALLEY, md.SignGD(0.1)), [1.0, 0.0], md.FlowError, "no linearization"),
        (md.Map(VALLEY, md.SGD(0.1)), [1.0], md.InputError, "shape"),
    ],
)
def test_refusals(system, w, error, says):
    """What has no linear stability says why, in one sentence."""
    with pytest.raises(error, match=says):
        md.stability(system, w)


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_that_is_not_quite_finished_has_the_verdict_of_the_minimum(seed):
    """Beside a minimum that fits every sample, by 1e-12 to 3e-7 across the minima, stability says what it says at the
    minimum: samples fitted to six digits are fitted."""
    rng = np.random.default_rng(seed)
    u, j = sp.Symbol("u"), sp.Symbol("j", integer=True)
    units, samples = int(rng.integers(4, 9)), int(rng.integers(20, 101))
    a, v, b = (md.vector(name, units) for name in "avb")
    inputs, taught = rng.uniform(-2, 2, samples), rng.normal(0, 1, 3 * units)
    model = sp.Sum(a[j] * sp.tanh(v[j] * u + b[j]), (j, 0, units - 1))
    blank = md.Loss.regression(model, [a, v, b], {u: inputs}, np.zeros(samples))
    loss = blank.with_data({blank.target: blank.model_values(taught)})
    system = md.Map(loss, md.SGD(0.05), md.Minibatch(int(rng.integers(1, 11))))
    exact = md.stability(system, taught)
    across = loss.jacobian(taught).T @ rng.normal(0, 1, samples)
    for off in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 3e-7):
        beside = md.stability(system, taught + off * across / np.abs(across).max())
        assert beside.stable == exact.stable
        assert beside.growth == pytest.approx(exact.growth, rel=1e-4, abs=0)
