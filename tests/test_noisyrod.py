"""The noisy rod: a literal twin of its field, its three limits, and the map itself from the fall to the diffusion."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import minidyn as md

x, y, z, a, b, u = sp.symbols("x y z a b u")
LOGCOSH = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
CORRELATED = md.GaussianNoise([[0.3, 0.0], [0.12, 0.2]])
DATA = md.Loss.regression(a * sp.tanh(b * u) + x, [a, b, x], {u: [-1.0, -0.3, 0.4, 1.2]}, [0.1, 0.5, -0.2, 0.9])


@md.rule
def averaged_momentum(theta, g, m, *, lr, beta=0.6):
    m = beta * m + (1 - beta) * g
    return theta - lr * (m + 0.1 * g), m


def heavy(lr, beta):
    """Steps of one coordinate, averaged over noise of variance q: outputs, and their answers to the noise."""
    return lambda t, g, q, m: ([t - lr * (beta * m + g), beta * m + g], [-lr, 1.0])


def own(t, g, q, m):
    m = 0.6 * m + 0.4 * g
    return [t - 0.2 * (m + 0.1 * g), m], [-0.2 * 0.5, 0.4]


def rms(lr, beta, eps):
    def step(t, g, q, v):
        v, slope = beta * v + (1 - beta) * (g**2 + q), 2 * (1 - beta) * g
        return [t - lr * g / (np.sqrt(v) + eps), v], [-lr / (np.sqrt(v) + eps), slope]

    return step


def adam(t, g, q, m, v):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (g**2 + q)
    return [t - 0.02 * m / (np.sqrt(v) + 0.1), m, v], [-0.002 / (np.sqrt(v) + 0.1), 0.1, 0.002 * g]


PLAIN = md.Loss(sp.log(sp.cosh(x)) * 3, [x])
CASES = {
    "gd": (LOGCOSH, md.GD(0.1), CORRELATED, 1, lambda t, g, q: ([t - 0.1 * g], [-0.1])),
    "heavy ball": (LOGCOSH, md.SGD(0.05, 0.7), md.GaussianNoise([0.2, 0.4]), 1, heavy(0.05, 0.7)),
    "own rule": (LOGCOSH, averaged_momentum(lr=0.2), md.GaussianNoise([0.2 + x**2 / 9, x * y]), 1, own),
    "adam": (LOGCOSH, md.Adam(0.02, eps=0.1), CORRELATED, 1, adam),
    "batches": (DATA, md.SGD(0.1, 0.5), md.Minibatch(2), 1, heavy(0.1, 0.5)),
    "labels": (DATA, md.RMSProp(0.02, 0.8, eps=0.1), md.LabelNoise(0.3, batch=2), 2, rms(0.02, 0.8, 0.1)),
    "one": (PLAIN, md.GD(0.9), md.GaussianNoise(0.2), 0, lambda t, g, q: ([t - 0.9 * g], [-0.9])),
    "all slow": (LOGCOSH, md.GD(0.1), CORRELATED, 2, lambda t, g, q: ([t - 0.1 * g], [-0.1])),
}


def covariance(system: md.Map, theta: np.ndarray) -> np.ndarray:
    """Sigma at theta from draws' own formula: sigma sigma^T, or the samples' gradients."""
    loss, noise = system.loss, system.noise
    if isinstance(noise, md.GaussianNoise):
        entries = np.array(noise.sigma, dtype=object)
        at = dict(zip(loss.params, theta, strict=True))
        S = np.array([float(sp.sympify(v).subs(at)) for v in entries.flat]).reshape(entries.shape)
        S = S if S.ndim == 2 else np.diag(np.broadcast_to(S, loss.dim))
        return S @ S.T
    n = loss.n_samples
    if noise.label_std:
        J = loss.jacobian(theta)
        out = noise.label_std**2 / noise.batch * J.T @ J / n
    else:
        out = np.zeros((loss.dim, loss.dim))
    return out + (n - noise.batch) / (noise.batch * (n - 1)) * np.cov(loss.sample_grads(theta).T, bias=True)


def defined(f, p, axis, nodes, weights):
    """Nodes along an axis and their weights; pairs where f is not defined come nearer by halves."""
    nodes, weights = nodes.copy(), weights.copy()
    half = len(nodes) // 2
    for m in range(half):
        with np.errstate(invalid="ignore"):
            while not np.isfinite([f(p + nodes[m] * axis), f(p - nodes[m] * axis)]).all():
                nodes[[m, -1 - m]] /= 2
                weights[[m, -1 - m]] *= 4
    weights[half] = 1 - np.delete(weights, half).sum()
    return nodes, weights


def bound(C, along):
    """C without what its spread along the columns of `along`, in theta, has in common with nothing else in it."""
    slow = np.zeros((len(C), along.shape[1]))
    slow[: len(along)] = along
    rest = np.linalg.svd(slow)[0][:, along.shape[1] :]
    common = np.linalg.pinv(rest.T @ C @ rest, hermitian=True) @ rest.T @ C @ slow
    alone = slow.T @ C @ slow - common.T @ (rest.T @ C @ rest) @ common
    return C - slow @ alone @ slow.T


def twin(flow: md.NoisyRodFlow, w: np.ndarray, slow: int, step, count: int):
    """Change per step and the covariance of the mid-point's noise, written as in theory 3b, one point at a time."""
    D, n = flow.dim, flow.map.components

    def at(p):
        S, g = covariance(flow.map, p[:D]), flow.loss.grad(p[:D])
        made = [step(p[i], g[i], S[i, i], *p[D + i :: D]) for i in range(D)]
        F, B = np.array([m[0] for m in made]).T.ravel(), np.array([m[1] for m in made]).T
        return F, np.vstack([np.diag(row) for row in B]), S

    _, V = np.linalg.eigh(flow.loss.hessian(w[:D]))
    V = V[:, ::-1]
    c, d, (W, alternating) = w[:n], w[n : 2 * n], w[2 * n :].reshape(2, n, n)
    turn = np.kron(np.eye(n // D), V)
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    weights = weights / weights.sum()
    means, covs, gains, noises = [], [], [], []
    for sign in (1, -1):
        L = turn @ np.linalg.cholesky(turn.T @ (W + sign * alternating) @ turn)
        F0, B0, S0 = at(c + sign * d)
        mean, cov, B, S = F0.copy(), np.zeros((n, n)), B0.copy(), S0.copy()
        for j in range(n):
            far, weight = defined(lambda p: at(p)[0], c + sign * d, L[:, j], nodes, weights)
            made = [at(c + sign * d + t * L[:, j]) for t in far]
            Fs = np.array([m[0] for m in made])
            middle = weight @ Fs
            mean += middle - F0
            cov += (weight[:, None] * (Fs - middle)).T @ (Fs - middle)
            B = B + sum(t * (m[1] - B0) for t, m in zip(weight, made, strict=True))
            S = S + sum(t * (m[2] - S0) for t, m in zip(weight, made, strict=True))
        for found, value in ((means, mean), (covs, cov), (gains, B), (noises, S)):
            found.append(value)
    B, S = sum(gains) / 2, sum(noises) / 2
    fast, along = V[:, : D - slow], V[:, D - slow :]
    SS, FS = along.T @ S @ along, fast.T @ S @ along
    common = FS @ np.linalg.inv(SS + 1e-3 * np.trace(S) * np.eye(slow))
    K = along + fast @ common
    apart = fast @ fast.T - fast @ common @ along.T
    fed = (C + g @ apart @ s @ apart.T @ g.T for C, g, s in zip(covs, gains, noises, strict=True))
    plus, minus = (bound(C, along) for C in fed)
    drift = [sum(means) / 2 - c, (means[1] - means[0]) / 2 - d]
    clouds = [(plus + minus) / 2 - W, (minus - plus) / 2 - alternating]
    return np.concatenate([*drift, *(change.ravel() for change in clouds)]), B @ K @ SS @ K.T @ B.T


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("average", ["cubature", "hermite"])
def test_the_field_is_its_literal_twin(name, average):
    """Change and noise per step at random states with a rod and a cloud are those of theory 3b, step by step."""
    loss, rule, noise, slow, step = CASES[name]
    flow = md.NoisyRodFlow(md.Map(loss, rule, noise), slow=slow, average=average)
    rng, n = np.random.default_rng(len(name)), flow.map.components
    c = np.abs(rng.normal(1.0, 0.1, n)) + 0.3  # accumulators stay positive
    roots = 0.05 * rng.normal(size=(2, n, n))
    plus, minus = roots @ roots.swapaxes(1, 2) + 1e-4 * np.eye(n)
    w = np.concatenate([c, 0.05 * rng.normal(size=n), (plus + minus).ravel() / 2, (plus - minus).ravel() / 2])
    change, factor = flow.evaluate(w[None], 0.0, flow.numbers(w[None]))
    expected, square = twin(flow, w, slow, step, {"cubature": 3, "hermite": 9}[average])
    np.testing.assert_allclose(change[0], expected, rtol=1e-9, atol=1e-12)
    rows = factor[0][:n]
    np.testing.assert_allclose(rows @ rows.T, square, rtol=1e-8, atol=1e-13)
    assert not factor[0][n:].any()


@pytest.mark.parametrize("average", ["cubature", "hermite"])
def test_nodes_without_a_step_come_nearer(average):
    """Where the cloud reaches below zero with a mean square, its nodes stand where the rule is defined."""
    loss, rule, noise, slow, step = CASES["labels"]
    flow = md.NoisyRodFlow(md.Map(loss, rule, noise), slow=slow, average=average)
    W = np.diag([1e-3, 2e-3, 1e-3, 0.01, 0.2, 3.0])
    W[0, 3] = W[3, 0] = 1e-3
    w = np.concatenate(
        [[0.7, 0.4, 0.2, 0.11, 0.1, 0.12], [0.02, -0.01, 0.03, 0.0, 0.01, 0.0], W.ravel(), W.ravel() / 7]
    )
    change = flow.evaluate(w[None], 0.0, flow.numbers(w[None]))[0][0]
    np.testing.assert_allclose(
        change, twin(flow, w, slow, step, {"cubature": 3, "hermite": 9}[average])[0], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("rule", [md.GD(0.1), md.SGD(0.05, 0.8), md.RMSProp(0.1, eps=0.1)], ids=str)
def test_without_noise_it_is_the_rod_flow(rule):
    """The same path of mid-point and half-difference as the rod flow's, and no cloud."""
    system = md.Map(LOGCOSH, rule)
    noisy, rod = md.NoisyRodFlow(system), md.RodFlow(system)
    runs = [md.simulate(flow, [5.0, 0.3], 60, save_every=20, rtol=1e-11, atol=1e-14) for flow in (noisy, rod)]
    np.testing.assert_allclose(runs[0].w, runs[1].w, rtol=1e-6, atol=1e-12)
    w = noisy.start([5.0, 0.3])
    np.testing.assert_allclose(noisy.drift(w)[: rod.size], rod.drift(rod.start([5.0, 0.3])), rtol=1e-9)
    assert not noisy.stochastic(w[None]) and not noisy.drift(w)[rod.size :].any()


CURVED = md.Loss((1 + x**2) * (y - sp.sin(x)) ** 2 / 2 + (y - sp.sin(x)) ** 3 / 5, [x, y])


@pytest.mark.parametrize(
    "rule, tolerance", [(md.GD(0.1), 2e-3), (md.SGD(0.05, 0.7), 2e-3), (md.Adam(2e-6, 0.8, 0.99), 0.01)], ids=str
)
@pytest.mark.parametrize("noise", [[1.0, 1.0], [[1.0, 0.0], [0.6, 0.8]]], ids=["isotropic", "correlated"])
def test_on_a_stable_valley_it_is_the_quasistatic_flow(rule, tolerance, noise):
    """Started on the minima of a curved, lopsided valley, the mean moves with the quasistatic drift once rod and cloud
    have settled, and the variance along the valley grows with its diffusion; for Adam up to O(1 - beta2)."""
    size, at = 1e-3, np.array([0.7, np.sin(0.7)])
    system = md.Map(CURVED, rule, md.GaussianNoise((size * np.array(noise)).tolist()))
    slow, noisy = md.QuasistaticFlow(system), md.NoisyRodFlow(system, spread="cloud")
    tangent = np.array([1.0, np.cos(0.7)]) / np.hypot(1.0, np.cos(0.7))
    w0 = at if not system.rule.uses_step else md.StochasticModifiedFlow(system).start(at)
    w, n = noisy.start(w0), system.components
    steps = 1500 if system.rule.uses_step else 150  # accumulators settle in some hundreds of steps
    numbers = noisy.numbers(w[None])
    for _ in range(steps):  # the recursion, one step at a time
        w = w + noisy.evaluate(w[None], 0.0, numbers)[0][0]
    change = noisy.evaluate(w[None], 0.0, numbers)[0][0]
    lr = system.lr(1)
    drift, factor = slow.drift(at) * lr, slow.diffusion(at) * np.sqrt(lr)
    assert abs(tangent @ change[:2] / (tangent @ drift) - 1) < tolerance
    grown = tangent @ change[2 * n : 2 * n + n * n].reshape(n, n)[:2, :2] @ tangent
    assert abs(grown / (tangent @ factor @ factor.T @ tangent) - 1) < tolerance


def gap(lr, bend, sigma, push):
    """How far below 2/lr the sharpness of -push x + (s + bend x) y^2/2 settles, noise in y alone."""
    loss = md.Loss(-push * x + (10 + bend * x) * y**2 / 2, [x, y])
    flow = md.NoisyRodFlow(md.Map(loss, md.GD(lr), md.GaussianNoise([0.0, sigma])), slow=1)
    start = (2 / lr - 10) / bend
    run = md.simulate(flow, [start, 0.3], 80_000, save_every=80_000)
    return 2 / lr - (10 + bend * run.w[0, -1, 0])


def test_noise_holds_the_sharpness_below_the_threshold():
    """The published gap of stochastic self-stabilization, lr bend sigma^2 / (4 push): its size and every power."""
    known = {"lr": 0.02, "bend": 1.0, "sigma": 0.5, "push": 0.05}
    here = gap(**known)
    assert here == pytest.approx(known["lr"] * known["bend"] * known["sigma"] ** 2 / (4 * known["push"]), rel=0.01)
    for name, power in (("lr", 1), ("bend", 1), ("sigma", 2), ("push", -1)):
        more = gap(**known | {name: 1.3 * known[name]})
        assert abs(np.log(more / here) / np.log(1.3) / power - 1) < 0.02


TABLE = [
    ("gd", md.GD(0.1), 0.5, 0.0, 1.5, 300),
    ("loud", md.GD(0.1), 1.0, 0.0, 1.5, 200),
    ("correlated", md.GD(0.1), 0.5, 0.6, 1.3, 400),
    ("heavy ball", md.SGD(0.05, 0.5), 0.5, 0.6, 1.4, 400),
    ("heavier", md.SGD(0.05, 0.8), 0.3, 0.0, 1.2, 400),
]


@pytest.mark.parametrize("name, rule, sigma, rho, beyond, steps", TABLE, ids=[row[0] for row in TABLE])
def test_it_follows_the_map_across_the_edge(name, rule, sigma, rho, beyond, steps):
    """From beyond the edge on to the diffusion along the valley: means within 1 % of the distance travelled, spreads
    within 2 %, by the same noise for both; the rod flow without noise is far off."""
    lr, beta = system_numbers(rule)
    edge = 2 * (1 + beta) / lr
    noise = md.GaussianNoise((sigma * np.linalg.cholesky(np.array([[1, rho], [rho, 1]]))).tolist())
    system, w0 = md.Map(LOGCOSH, rule, noise), [np.sqrt(beyond * edge - 1), 0.5]
    flow, paths = md.NoisyRodFlow(system), 1000
    run = md.simulate(flow, w0, steps, paths=paths, rng=1).w[:, -1, 0]
    ends = [md.simulate(system, w0, k, paths=paths, rng=1).w[:, -1, 0] for k in (steps, steps + 1)]
    seen = (ends[0] + ends[1]) / 2
    travelled, error = abs(seen.mean() - w0[0]), (run - seen).std() / np.sqrt(paths)
    assert abs(run.mean() - seen.mean()) <= 0.01 * travelled + 3 * error
    assert abs(run.std() / seen.std() - 1) <= 0.02 + 3 * error / seen.std()
    without = md.simulate(md.RodFlow(md.Map(LOGCOSH, rule)), w0, steps).w[0, -1, 0]
    assert abs(without - seen.mean()) > 5 * abs(run.mean() - seen.mean())


def system_numbers(rule: md.Rule) -> tuple[float, float]:
    """lr and momentum of a rule."""
    return float(rule.hyper["lr"]), float(rule.hyper.get("momentum", 0.0))


def test_averages_to_second_order_are_that():
    """`F + F2[W]/2` and `A W A^T`, by differences of the map's own step and Jacobian."""
    flow = md.NoisyRodFlow(md.Map(LOGCOSH, md.GD(0.1), CORRELATED), average="second order", slow=1)
    w = np.array([3.0, 0.2, 0.01, 0.4, 0.02, 0.01, 0.01, 0.05, 0.003, -0.002, -0.002, 0.01])
    change = flow.evaluate(w[None], 0.0, flow.numbers(w[None]))[0][0]
    c, d, W, alternating = flow.parts(w)
    _, V = np.linalg.eigh(LOGCOSH.hessian(c))
    S = V.T @ covariance(flow.map, c) @ V
    common = S[0, 1] / (S[0, 0] + 1e-3 * np.trace(S))
    fed = 0.01 * (S[1, 1] - 2 * common * S[0, 1] + common**2 * S[0, 0]) * np.outer(V[:, 1], V[:, 1])
    means, covs = [], []
    for end, C in ((c + d, W + alternating), (c - d, W - alternating)):
        bent = sum(C[i, j] * LOGCOSH.third(end, np.eye(2)[i], np.eye(2)[j]) for i in range(2) for j in range(2))
        means.append(end - 0.1 * (LOGCOSH.grad(end) + 0.5 * bent))
        A = np.eye(2) - 0.1 * LOGCOSH.hessian(end)
        covs.append(bound(A @ C @ A.T + fed, V[:, :1]))
    np.testing.assert_allclose(change[:2], (means[0] + means[1]) / 2 - c, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(change[4:8].reshape(2, 2), (covs[0] + covs[1]) / 2 - W, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(change[8:].reshape(2, 2), (covs[1] - covs[0]) / 2 - alternating, rtol=1e-5, atol=1e-8)


def test_each_end_has_its_own_cloud():
    """Where the oscillation holds itself by the sharpness alone, paths that swing far turn flat: what the two have in
    common changes its sign from step to step, keeps the clouds small, and a cloud common to both ends would burst."""
    names = sp.symbols("a b c d")
    loss, w0 = md.Loss((sp.prod(names) - 1) ** 2 / 2, names), [3.0, 0.803, 0.6, 0.71]
    system = md.Map(loss, md.GD(0.33), md.GaussianNoise(0.002))
    paths, steps = 400, 200
    seen = md.simulate(system, w0, steps + 1, paths=paths, rng=1, save_every=1).w
    middle, half = (seen[:, 1:] + seen[:, :-1]) / 2, (seen[:, 1:] - seen[:, :-1]) / 2
    flow = md.NoisyRodFlow(system)
    run = md.simulate(flow, w0, steps, paths=paths, rng=1, save_every=1)
    assert run.finished.all()
    for k in (20, 60, 200):
        gap = run.w[:, k] - middle[:, k]
        travelled = np.linalg.norm(middle[:, k].mean(0) - middle[:, 0].mean(0))
        error = np.linalg.norm(gap.std(0)) / np.sqrt(paths)
        assert np.linalg.norm(gap.mean(0)) < 0.005 * travelled + 3 * error
    w, numbers = flow.start(w0), flow.numbers(flow.start(w0)[None])
    for k in range(61):
        if k in (2, 20, 60):
            c, _, W, V = flow.parts(w)
            across = np.linalg.eigh(loss.hessian(c))[1][:, -1]
            ends = np.array([across @ (W + s * V) @ across for s in (1, -1)])
            pairs = np.sort([np.var((middle[:, k] + s * half[:, k]) @ across) for s in (1, -1)])
            np.testing.assert_allclose(np.sort(ends), pairs, rtol=0.25)  # 400 paths: 7 % each, and the noise along
        w = w + flow.evaluate(w[None], 0.0, numbers)[0][0]


def test_what_it_cannot_describe_it_refuses():
    """Signs, noise without a covariance, curvatures without a gap, more slow directions than there are."""
    with pytest.raises(md.FlowError, match="SignGD takes signs of the gradient"):
        md.NoisyRodFlow(md.Map(LOGCOSH, md.SignGD(0.1), CORRELATED))
    with pytest.raises(md.FlowError, match="no covariance per step"):
        md.NoisyRodFlow(md.Map(DATA, md.GD(0.1), md.Reshuffle(2)))
    with pytest.raises(md.FlowError, match="has no variance"):
        md.NoisyRodFlow(md.Map(LOGCOSH, md.GD(0.1), md.StableNoise(1.5, 0.1)))
    bowl = md.Map(md.Loss(x**2 + 2 * y**2, [x, y]), md.GD(0.1), CORRELATED)
    with pytest.raises(md.FlowError, match=r"curvatures 4, 2 have no gap.*give their number in slow=, 0 at an"):
        md.simulate(md.NoisyRodFlow(bowl), [1.0, 1.0], 5, rng=0)
    assert np.isfinite(md.simulate(md.NoisyRodFlow(bowl, slow=0), [1.0, 1.0], 5, rng=0).w).all()
    with pytest.raises(md.InputError, match="slow is 3; there are 2 directions"):
        md.NoisyRodFlow(bowl, slow=3)


def test_compare_reads_it_beside_the_map():
    """In a comparison the map's mid-points stand beside it, on the same noise; its error is a small part of a rod's."""
    system = md.Map(LOGCOSH, md.GD(0.1), md.GaussianNoise(0.5))
    result = md.compare(system, md.NoisyRodFlow(system), md.RodFlow(system), w0=[5.4, 0.5], steps=200, paths=200, rng=3)
    text = result.summary()
    assert "noisy rod flow" in text and "mid-points" in text
    run = result.runs["noisy rod flow"]
    assert run.meta["coupled"] and run.meta["method"] == "euler-maruyama" and run.meta["substeps"] == 1


def test_it_wins_at_the_edge_with_noise():
    """Across the edge its mean is within 1 % of the way that the map's goes, others are five times as far off."""
    a, b, c, d = names = sp.symbols("a b c d")
    system = md.Map(md.Loss((a * b * c * d - 1) ** 2 / 2, names), md.GD(0.33), md.GaussianNoise(0.002))
    far = {}
    for flow, steps in ((md.NoisyRodFlow, 1), (md.RodFlow, 1), (md.CentralFlow, 1), (md.StochasticModifiedFlow, 1 / 4)):
        options = {"substeps": steps} if steps < 1 else {}  # at whole steps a modified flow of noise would be the map
        result = md.compare(system, flow(system), w0=[3.0, 0.803, 0.6, 0.71], steps=80, paths=100, rng=1, **options)
        pairs = [result.pair(name, list(result.runs)[1]) for name in result.quantities]
        seen, mean = (np.stack([pair[which].mean(0) for pair in pairs], axis=1) for which in (0, 1))
        far[flow] = np.linalg.norm(mean - seen, axis=1).max() / np.linalg.norm(seen - seen[0], axis=1).max()
    mine = far.pop(md.NoisyRodFlow)
    assert mine < 0.01 and all(distance > 5 * mine for distance in far.values())
