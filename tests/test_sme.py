"""Stochastic modified equations: weak orders without sampling, moments of a step, coupling, where there is none."""

from itertools import combinations, product

import numpy as np
import pytest
import sympy as sp
from expectations import Grid, after

import minidyn as md

x, y, u = sp.symbols("x y u")
POTENTIAL = sp.log(sp.cosh(x)) + x**2 / 4 + x**3 / 20
SIGMA = (1 - x**2 / sp.Rational(121, 25)) * (1 + sp.sin(2 * x) / 3) / 2
slope, spread = sp.lambdify(x, sp.diff(POTENTIAL, x)), sp.lambdify(x, SIGMA)
TESTED = (lambda w: w**2 + w**3, lambda w: np.sin(2 * w) + np.exp(-w))  # a polynomial, and not one

# per rule: the rule at step size h, the box of its states, the grid, noise nodes, one step as the paper writes it
CASES = {
    "SGD": (lambda h: md.SGD(h), lambda h: [(-2.2, 2.2)], [40], 12, [0.05, 0.025]),
    "momentum": (lambda h: md.SGD(h * h, 1 - h), lambda h: [(-1.6, 1.6), (-3.2 / h, 3.2 / h)], [20, 18], 8,
                 [0.025, 0.0125]),
    "RMSProp": (lambda h: md.RMSProp(h, beta2=1 - h, eps=0.1), lambda h: [(-2.2, 2.2), (0.3, 5.0)], [22, 16], 10,
                [0.05, 0.025]),
    "Adam": (lambda h: md.Adam(h, beta1=1 - 2 * h, beta2=1 - h, eps=0.1),
             lambda h: [(0.0, 1.6), (-0.2, 2.4), (0.9, 3.1)], [10, 7, 7], 8, [0.05, 0.025]),
}  # fmt: skip
LASTS = {"SGD": 1.0, "momentum": 1.0, "RMSProp": 1.0, "Adam": 0.5}


def step(name, h, z, xi, amplitude=spread):
    """One step of the rule from the states z (points, axes) with the noise xi, literally."""
    w, *s = z.T
    g = slope(w) + amplitude(w) * xi
    if name == "SGD":
        return np.stack([w - h * g], 1)
    if name == "momentum":
        m = (1 - h) * s[0] + g
        return np.stack([w - h * h * m, m], 1)
    m = g if name == "RMSProp" else (1 - 2 * h) * s[0] + 2 * h * g
    v = (1 - h) * s[-1] + h * g * g
    w = w - h * m / (np.sqrt(v) + 0.1)
    return np.stack([w, v] if name == "RMSProp" else [w, m, v], 1)


def weak_errors(name, h, system=None, draws=None):
    """For orders 1 and 2 and both test functions: sup over the starts in the middle of the box of the weak error.

    draws : what a step may do, and with which probability; Gaussian noise without."""
    rule, box, sizes, nodes, _ = CASES[name]
    grid, steps = Grid(box(h), sizes), round(LASTS[name] / h)
    if draws is None:
        system = md.Map(md.Loss(POTENTIAL, [x]), rule(h), md.GaussianNoise(SIGMA))
        moved = grid.step(lambda z, xi: step(name, h, z, xi), nodes)
    else:
        moved = sum(p * grid.at(move(grid.points)) for move, p in draws)
    values = np.stack([phi(grid.points[:, 0]) for phi in TESTED], 1)
    low, high = grid.box.T
    inner = np.all(abs((grid.points - low) / (high - low) - 0.5) < 0.25, axis=1)
    truth = np.linalg.matrix_power(moved, steps) @ values
    out = []
    for order in (1, 2):
        flow = md.StochasticModifiedFlow(system, order)
        factor = flow.diffusion(grid.points)
        covariance = factor @ np.swapaxes(factor, 1, 2) * system.lr()
        ours = after(grid.generator(flow.drift(grid.points) * system.lr(), covariance), steps, values)
        out.append(abs(ours - truth)[inner].max(0))
    return np.array(out)


@pytest.mark.parametrize("name", CASES)
def test_weak_error_has_the_stated_order(name):
    """Orders 1 and 2 are measured within 0.2 with multiplicative noise, for a polynomial and another function.

    No sampling: both expectations are known to at least three digits of their difference.
    """
    errors = [weak_errors(name, h) for h in CASES[name][-1]]
    orders = np.log2(errors[0] / errors[1])
    np.testing.assert_allclose(orders, [[1, 1], [2, 2]], atol=0.2, rtol=0)


LOSS = md.Loss((1 + x**2) * y**2 / 2 + sp.sin(x + y) + x**2 / 2, [x, y])
TENTH = sp.Rational(1, 10)
FACTOR = sp.Matrix([[3 * TENTH + x**2 / 10, TENTH], [TENTH, 2 * TENTH + y**2 / 4]])
WHERE = np.array([1.2, 0.5])
RULES = {
    "SGD": (lambda h: md.SGD(h), lambda h: []),
    "Nesterov": (lambda h: md.SGD(h * h, 1 - h, nesterov=True), lambda h: [0.6 / h, 0.9 / h]),
    "RMSProp": (lambda h: md.RMSProp(h, beta2=1 - h), lambda h: [1.0, 2.0]),
    "AdamW": (lambda h: md.AdamW(h, beta1=1 - 2 * h, beta2=1 - h, weight_decay=0.5), lambda h: [0.7, -0.4, 1.0, 2.0]),
}


def moments_of_a_step(system, z):
    """Mean displacement and covariance of one step under the two normals of the noise, by quadrature."""
    xi, weight = np.polynomial.hermite_e.hermegauss(8)
    factor = sp.lambdify([x, y], FACTOR)(*z[:2])
    new, weights = [], []
    for a, p in zip(xi, weight, strict=True):
        for b, q in zip(xi, weight, strict=True):
            shift = factor @ [a, b]  # a step on a loss that is tilted by the noise
            tilted = md.Loss(
                LOSS.expr + x * sp.Symbol("s") + y * sp.Symbol("t"),
                [x, y],
                constants={sp.Symbol("s"): shift[0], sp.Symbol("t"): shift[1]},
            )
            new.append(md.Map(tilted, system.rule).step(z, k=10**6) - z)
            weights.append(p * q / (2 * np.pi))
    new, weights = np.array(new), np.array(weights)
    mean = weights @ new
    return mean, (new - mean).T @ ((new - mean) * weights[:, None])


@pytest.mark.parametrize("name", RULES)
def test_moments_are_those_of_a_step_with_correlated_noise(name):
    """Mean and covariance per step are the quadrature's exactly, or differ by O(h^3) (AdamW's covariance: O(h^4)), in
    units where every state moves by O(h)."""
    rule, rest = RULES[name]
    gaps = []
    for h in (0.01, 0.005):
        system = md.Map(LOSS, rule(h), md.GaussianNoise(FACTOR))
        z = np.concatenate([WHERE, rest(h)])
        unit = np.ones(len(z))
        unit[2:] = h if name == "Nesterov" else 1.0
        flow, lr = md.StochasticModifiedFlow(system), system.lr()
        mean, covariance = moments_of_a_step(system, z)
        factor = flow.diffusion(z)
        off = (factor @ factor.T * lr - covariance) * np.outer(unit, unit)
        gaps.append([abs((flow.drift(z) * lr - mean) * unit).max(), abs(off).max()])
    first, second = np.array(gaps)
    if name in ("SGD", "Nesterov"):
        assert np.max(gaps) < 1e-15
    else:
        assert np.log2(first / second) == pytest.approx([3, {"RMSProp": 3, "AdamW": 4}[name]], abs=0.2)


def test_order_two_is_the_gradient_flow_of_the_modified_loss():
    """For SGD the drift is -grad(L + lr |grad L|^2 / 4) and the diffusion (lr Sigma)^(1/2)."""
    system = md.Map(LOSS, md.SGD(0.05), md.GaussianNoise(FACTOR))
    flow = md.StochasticModifiedFlow(system, order=2)
    g = LOSS.grad(WHERE)
    np.testing.assert_allclose(flow.drift(WHERE), -g - 0.025 * LOSS.hvp(WHERE, g), rtol=1e-12)
    factor = np.array(sp.lambdify([x, y], FACTOR)(*WHERE))
    np.testing.assert_allclose(flow.diffusion(WHERE), -np.sqrt(0.05) * factor, rtol=1e-12)


@pytest.mark.parametrize("rule", [md.SGD(0.1), md.SGD(0.05, momentum=0.5)], ids=["SGD", "momentum"])
def test_the_flow_is_driven_by_the_normals_of_the_map(rule):
    """With one Euler step per step, order 1 is the map itself, path by path, because the normals are the same."""
    system = md.Map(LOSS, rule, md.GaussianNoise(FACTOR))
    flow = md.StochasticModifiedFlow(system)
    assert flow.couples
    theirs, ours = (md.simulate(s, WHERE, 30, paths=70, rng=4, **o) for s, o in ((system, {}), (flow, {"substeps": 1})))
    np.testing.assert_allclose(ours.w, theirs.w, rtol=1e-11)


def test_the_square_of_the_noise_has_its_own_normals_beside_those_of_the_map():
    """RMSProp's coupled paths stay close to the map's: they share the normals, though v has others for the square."""
    system = md.Map(LOSS, md.RMSProp(0.02, beta2=0.95), md.GaussianNoise(FACTOR))
    flow = md.StochasticModifiedFlow(system)
    start = np.array([*WHERE, 2.0, 2.0])
    result = md.compare(system, flow, w0=start, steps=50, paths=1000, rng=3, substeps=1)
    row = result.errors[-1]
    assert row.standard_error < 0.3 * row.map_spread / np.sqrt(1000)
    assert flow.columns == 4 and flow.diffusion(start).shape == (4, 4)


DATA = md.Loss.regression(x * sp.tanh(y * u), [x, y], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5) ** 2)


NOISES = [md.Minibatch(2), md.Minibatch(2, replace=True), md.LabelNoise(0.2, batch=3)]


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_every_covariance_is_followed(noise):
    """Minibatch and label noise, 40 steps of Adam: the mean within 4 standard errors and 5 % of the spread, the spread
    within 5 %."""
    system = md.Map(DATA, md.Adam(0.02, beta1=0.8, beta2=0.98, eps=0.05), noise)
    flow = md.StochasticModifiedFlow(system, order=1)
    start = flow.start([0.5, 0.8])
    result = md.compare(system, flow, w0=start, steps=40, paths=4000, rng=2, substeps=1, first_step=10**6)
    last = [row for row in result.errors if row.step == 40]
    assert len(last) == 2
    for row in last:
        assert abs(row.difference) < 4 * row.standard_error + 0.05 * row.map_spread, row
        assert row.flow_spread == pytest.approx(row.map_spread, rel=0.05), row


def draws_of(noise, w):
    """Every gradient (draws, D) that a step on DATA may see at w, and its probability; normal labels by three nodes,
    exact to the fifth power."""
    n, size = DATA.n_samples, noise.batch or DATA.n_samples
    some = product(range(n), repeat=size) if noise.sampling == "with" else combinations(range(n), size)
    nodes = [(-1.0, 0.5), (1.0, 0.5)]
    if noise.label_kind == "normal":
        nodes = [(-np.sqrt(3), 1 / 6), (0.0, 2 / 3), (np.sqrt(3), 1 / 6)]
    own, models = DATA.sample_grads(w), DATA.jacobian(w)
    out, weights = [], []
    for batch in (list(b) for b in some):
        for labels in product(nodes, repeat=size) if noise.label_std else [[(0.0, 1.0)] * size]:
            shift = (noise.label_std or 0.0) * np.array([e for e, _ in labels])
            out.append((own[batch] - shift[:, None] * models[batch]).mean(axis=0))
            weights.append(np.prod([p for _, p in labels]))
    return np.array(out), np.array(weights) / sum(weights)


SKEWED = [
    md.Minibatch(1),
    md.Minibatch(3),
    md.Minibatch(2, replace=True),
    md.LabelNoise(0.4, batch=2),
    md.LabelNoise(0.4, batch=3, kind="rademacher"),
    md.LabelNoise(0.4, kind="rademacher"),
    md.LabelNoise(0.4) + md.Minibatch(2, replace=True),
]


@pytest.mark.parametrize("noise", SKEWED, ids=str)
def test_accumulators_have_the_covariance_of_squared_draws(noise):
    """To order 2 the covariance of an accumulator's step is that of the squares of all draws, written out, and its
    covariance with theta's step has their third moments."""
    w, beta = np.array([0.7, -0.4]), 0.9
    flow = md.StochasticModifiedFlow(md.Map(DATA, md.RMSProp(1e-6, beta2=beta), noise), order=2)
    g, p = draws_of(noise, w)
    squares = (g**2 - p @ g**2) * (1 - beta)
    states = np.array([*w, 0.8, 1.7])
    factor = flow.diffusion(states)
    ours = factor @ factor.T * 1e-6
    np.testing.assert_allclose(ours[2:, 2:], (squares.T * p) @ squares, rtol=1e-9, atol=1e-12)
    G, V = sp.symbols("G V")
    moved = -G / (sp.sqrt(beta * V + (1 - beta) * G**2) + 1e-8)
    at = list(zip(p @ g, states[2:], strict=True))
    gain, curve = (np.array([float(sp.diff(moved, G, k).subs({G: a, V: v})) for a, v in at]) for k in (1, 2))
    steps = (g - p @ g) * gain + curve / 2 * ((g - p @ g) ** 2 - p @ (g - p @ g) ** 2)
    np.testing.assert_allclose(ours[:2, 2:], 1e-6 * (steps.T * p) @ squares, rtol=1e-9, atol=1e-17)


@pytest.mark.parametrize("skew", [-1.0, 1.0])
@pytest.mark.parametrize("name", ["RMSProp", "Adam"])
def test_order_two_holds_under_skewed_samples(name, skew):
    """With samples drawn one at a time, of skewed gradients, orders 1 and 2 are measured within 0.2, where an equation
    without their third moments is of order 1."""
    amplitude = x / 2 + sp.sin(2 * x) / 10
    parts, slope_of = skew * np.array([-0.8, -0.8, 1.6]), sp.lambdify(x, sp.diff(amplitude, x))
    loss, errors = md.Loss(POTENTIAL + u * amplitude, [x], data={u: parts}), []
    for h in CASES[name][-1]:
        moved = [(lambda z, c=c, h=h: step(name, h, z, c, slope_of), 1 / 3) for c in parts]
        errors.append(weak_errors(name, h, md.Map(loss, CASES[name][0](h), md.Minibatch(1)), moved))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), [[1, 1], [2, 2]], atol=0.2, rtol=0)


def test_what_has_no_modified_equation_is_refused():
    """No noise, no covariance, a sign in the rule, a third order: one sentence each."""
    noise = md.GaussianNoise(0.1)
    for system, message in (
        (md.Map(LOSS, md.SGD(0.1)), "has none: use md.ModifiedFlow"),
        (md.Map(DATA, md.SGD(0.1, 0.5), md.Reshuffle(2)), "remembers within an epoch"),
        (md.Map(DATA, md.SGD(0.1), md.Reshuffle(2) + md.LabelNoise(0.1)), "a last batch of its own size"),
        (md.Map(LOSS, md.SignGD(0.1), noise), "not smooth"),
    ):
        with pytest.raises(md.FlowError, match=message):
            md.StochasticModifiedFlow(system)
    with pytest.raises(md.InputError, match="1 or 2"):
        md.StochasticModifiedFlow(md.Map(LOSS, md.SGD(0.1), noise), 3)
    with pytest.raises(md.FlowError, match="accumulator is zero"):
        md.StochasticModifiedFlow(md.Map(LOSS, md.RMSProp(0.1, eps=0.0), noise)).drift([1.0, 1.0, -1e3, -1e3])


def test_a_long_run_resolves_the_fast_motion():
    """With nothing said about substeps, 8000 steps across a steep valley keep all paths, near the map's."""
    steep = md.Map(md.Loss(5 * (1 + x**2) * y**2, [x, y]), md.SGD(0.02), md.GaussianNoise(0.2))
    result = md.compare(steep, md.StochasticModifiedFlow(steep), w0=[0.5, 0.1], steps=8000, paths=64, rng=0)
    assert all(run.finished.all() for run in result.runs.values())
    assert result.distances()["y", "stochastic modified equation, order 1"]["sup"] < 0.01
