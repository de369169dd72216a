"""Central flow: against gradient flow projected on the edge, an independent conic solution, discrete runs."""

import numpy as np
import pytest
import sympy as sp
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares, minimize

import minidyn as md
from minidyn.flows.edge import complementarity
from minidyn.simulate.choose import make_engine

x, y, a, z = sp.symbols("x y a z")
PUSHED = md.Loss((1 + x**2) * sp.log(sp.cosh(y)) + (x - 5) ** 2 / 10 * (1 + y / 3), [x, y])


def projected(loss):
    """-grad L, without what would raise the sharpness."""

    def rhs(_, w):
        _, vectors = np.linalg.eigh(loss.hessian(w))
        normal, v = loss.third(w, vectors[:, -1], vectors[:, -1]), -loss.grad(w)
        return v - normal * max(v @ normal, 0.0) / (normal @ normal)

    return rhs


def test_one_critical_direction_is_projected_gradient_flow():
    """From where the path reaches 2/lr, it is scipy's solution of gradient flow projected on the edge, to 1e-8."""
    flow = md.CentralFlow(md.Map(PUSHED, md.GD(0.2)))
    run = md.simulate(flow, [1.0, 0.3], 120, save_every=10)
    sharp = np.linalg.eigvalsh(PUSHED.hessian(run.w[0]))[:, -1] / 10
    assert sharp.max() < 1 + 1e-9 and sharp[0] < 0.5
    on = int(np.argmax(sharp > 1 - 1e-9))
    assert 0 < on < 8
    times = 2.0 * np.arange(len(sharp) - on)
    other = solve_ivp(projected(PUSHED), (0, times[-1]), run.w[0, on], "DOP853", times, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(run.w[0, on:], other.y.T, rtol=0, atol=1e-8)
    for w in run.w[0, on::4]:
        np.testing.assert_allclose(flow.drift(w), projected(PUSHED)(0, w), rtol=0, atol=1e-8)


def burer_monteiro(g, t):
    """min |g + t[X]/2|^2 over X = L L^T, by scipy: the velocity, the X."""
    m = len(t)
    rows = np.tril_indices(m)

    def matrix(p):
        low = np.zeros((m, m))
        low[rows] = p
        return low @ low.T

    def force(p):
        return g + 0.5 * np.einsum("abi,ab->i", t, matrix(p))

    found = []
    for seed in range(4):
        start = np.random.default_rng(seed).normal(size=len(rows[0]))
        near = minimize(lambda p: 0.5 * force(p) @ force(p), start, method="BFGS", options={"gtol": 1e-10})
        found.append(least_squares(force, near.x, xtol=1e-15, ftol=1e-15, gtol=1e-15))
    best = min(found, key=lambda s: s.cost)
    return -force(best.x), matrix(best.x)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_two_critical_directions_agree_with_an_independent_solution(seed):
    """Random cubic losses with a double eigenvalue at 2/lr: the velocity is that of scipy over X = L L^T, to 1e-6."""
    rng = np.random.default_rng(seed)
    T, g, w = rng.normal(size=(5, 5, 5)).round(2), rng.normal(size=5).round(2), sp.symbols("w0:5")
    h = [20, 20, 5, 3, 1]
    expr = sum(h[i] * w[i] ** 2 / 2 + g[i] * w[i] for i in range(5))
    expr += sum(T[i, j, k] * w[i] * w[j] * w[k] / 6 for i, j, k in np.ndindex(5, 5, 5))
    loss = md.Loss(sp.expand(expr), w)
    flow = md.CentralFlow(md.Map(loss, md.GD(0.1)))
    origin, eye = np.zeros(5), np.eye(5)
    t = np.array([[loss.third(origin, eye[i], eye[j]) for j in range(2)] for i in range(2)])
    velocity, X = burer_monteiro(loss.grad(origin), t)
    np.testing.assert_allclose(flow.drift(origin), velocity, rtol=0, atol=1e-6)
    np.testing.assert_allclose(flow.oscillation(origin)[:2, :2], X, rtol=0, atol=1e-5)


def test_two_curvatures_are_held_together():
    """Two directions that reach the edge one after the other stay there, and gradient descent follows."""
    expr = sum((1 + p**2) * sp.log(sp.cosh(q)) + (p - 5) ** 2 / s for p, q, s in ((x, y, 10), (a, z, 8)))
    system = md.Map(md.Loss(expr, [x, y, a, z]), md.GD(0.1))
    w0, steps = [4.3, 0.2, 4.2, 0.2], 150
    run = md.simulate(md.CentralFlow(system), w0, steps, save_every=1)
    sharp = np.linalg.eigvalsh(system.loss.hessian(run.w[0]))[:, -2:] / 20
    assert sharp.max() < 1 + 1e-9
    np.testing.assert_allclose(sharp[-1], 1, atol=1e-9, rtol=0)
    first, second = (sharp > 1 - 1e-9).argmax(axis=0)[::-1]
    assert 0 < first < second < steps / 2  # one after the other
    w = md.simulate(system, w0, steps + 1, save_every=1).w[0]
    gap = np.abs(run.w[0] - (w[1:] + w[:-1]) / 2)[-20:]
    assert gap.max() < 0.05 < 0.1 < np.abs(np.diff(w[-20:, [1, 3]], axis=0)).min() / 2  # beside the oscillation


def solve(A, K):
    """`pressed` for matrices (m, m) and K (m, m, m, m)."""
    m = len(A)
    E = np.empty((m * (m + 1) // 2, m, m))
    for unit, e in zip(np.eye(len(E)), E, strict=True):
        complementarity.matrix_of(unit, e)
    a, k = np.einsum("pab,ab->p", E, A), np.einsum("pab,abcd,qcd->pq", E, K, E)
    x, y = np.empty_like(a), np.empty_like(a)
    if not complementarity.holds(wrong := complementarity.pressed(a, np.ascontiguousarray(k), x, y)):
        raise complementarity.refusal(wrong)
    return np.einsum("p,pab->ab", x, E), np.einsum("p,pab->ab", y, E)


@pytest.mark.parametrize("m", [1, 2, 3, 6])
def test_complementarity_to_one_part_in_1e10(m):
    """Primal, dual and complementarity residuals of random problems lie below 1e-10 of the solution's size."""
    rng = np.random.default_rng(m)
    for dim in (m, m + 1, 4 * m):
        t = rng.normal(size=(m, m, dim))
        t = (t + t.transpose(1, 0, 2)) / 2
        A, K = t @ (rng.normal(size=dim) * 10 ** rng.uniform(-3, 3)), 0.5 * np.einsum("abi,cdi->abcd", t, t)
        X, Y = solve(A, K)
        size_y, size_x = np.abs(A).max(), np.abs(X).max() + np.abs(A).max() / np.abs(K).max()
        assert np.abs(Y - A - np.einsum("abcd,cd->ab", K, X)).max() <= 1e-10 * size_y
        assert np.abs(X @ Y).max() <= 1e-10 * size_x * size_y
        assert np.linalg.eigvalsh(X)[0] >= -1e-10 * size_x and np.linalg.eigvalsh(Y)[0] >= -1e-10 * size_y


def test_complementarity_that_cannot_hold_is_refused():
    """Where nothing pushes a curvature back there is no oscillation that holds it."""
    with pytest.raises(md.SolverError, match="holds a critical curvature"):
        solve(-np.eye(2), np.zeros((2, 2, 2, 2)))


def test_rmsprop_follows_its_accumulators_along_the_edge():
    """RMSProp's preconditioned sharpness is held at 2/lr, and the discrete run stays near the central flow."""
    system = md.Map(PUSHED, md.RMSProp(0.05, beta2=0.95, eps=0.05))
    flow = md.CentralFlow(system)
    run = md.simulate(flow, [1.0, 0.3], 400, save_every=1, rtol=1e-7)
    w = md.simulate(system, [1.0, 0.3], 401, save_every=1).w[0]
    assert run.finished.all()
    engine = make_engine(flow, flow.start([[1.0, 0.3]]), 400, rtol=1e-7)
    top = []
    for k in range(0, 400, 10):
        engine.advance(k, 10)
        top.append(flow.spectrum(engine.shown[0])[1][0])  # over its threshold, accumulators included
    assert top[0] < 0.5 and np.abs(np.array(top[3:]) - 1).max() < 1e-9
    assert np.abs(run.w[0] - (w[1:] + w[:-1]) / 2)[:, 0].max() < 0.05 < 1 < np.ptp(w[:, 0])


def test_scalar_and_single_accumulators_agree_in_one_dimension():
    """With one parameter, one accumulator per coordinate and one for all are the same flow."""
    system = md.Map(md.Loss(sp.log(sp.cosh(y)) + y**2 / 8, [y]), md.RMSProp(0.2, beta2=0.9, eps=0.1))
    each, scalar = (md.CentralFlow(system, accumulators) for accumulators in ("each", "scalar"))
    w = each.start([1.5])
    np.testing.assert_array_equal(w, scalar.start([1.5]))
    np.testing.assert_allclose(each.drift(w), scalar.drift(w), rtol=1e-13)
    assert each.spectrum(w)[1] < 1


def test_central_flow_says_what_it_cannot():
    """Other rules, schedules and unknown options are refused in a sentence."""
    k = sp.Symbol("k")
    for rule, words in (
        (md.Adam(0.1), "the rod flow takes any rule"),
        (md.GD(0.1 / k), "constant"),
        (md.SGD(0.1, 0.5), "GD and RMSProp"),
    ):
        with pytest.raises(md.FlowError, match=words):
            md.CentralFlow(md.Map(PUSHED, rule))
    with pytest.raises(md.InputError, match="'each' or 'scalar'"):
        md.CentralFlow(md.Map(PUSHED, md.RMSProp(0.1)), "both")
