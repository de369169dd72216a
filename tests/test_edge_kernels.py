"""What the flows at the edge are compiled from: against LAPACK, scipy, literal steps of the map."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import schur
from scipy.optimize import brentq, root

import minidyn as md
from minidyn.flows.edge.orbit import FieldFailed, Orbits
from minidyn.kernels import eigenvalues
from minidyn.simulate.choose import make_engine

x, y = sp.symbols("x y")
EDGE = md.Loss((1 + x**2) * sp.log(sp.cosh(y)) + (x - 5) ** 2 / 10 * (1 + y / 3), [x, y])


def matrix(rng, size):
    """Symmetric, with pairs of equal eigenvalues, badly scaled, or none of these."""
    A = rng.normal(size=(size, size)) / np.sqrt(size)
    kind = rng.integers(4)
    if kind == 1:
        A = A + A.T
    if kind == 2 and size % 2 == 0:
        A = np.kron(np.eye(2), A[: size // 2, : size // 2])
    if kind == 3:
        units = 10.0 ** rng.integers(-5, 6, size)
        A = A * units[:, None] / units
    return A, kind


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 20) | st.sampled_from([64, 130]), st.integers(0, 10**6))
def test_eigenvalues_are_those_of_lapack(size, seed):
    """Eigenvalues and the left invariant subspace below a line agree with LAPACK's to rounding, at any size."""
    A, kind = matrix(np.random.default_rng(seed), size)
    re, im, rows = np.empty(size), np.empty(size), np.empty((size, size))
    eigenvalues.eigenvalues(A.copy(), re, im)
    expected, found = np.linalg.eigvals(A), re + 1j * im
    for some, others in ((expected, found), (found, expected)):
        assert max(np.abs(others - v).min() for v in some) <= 1e-12 * np.abs(expected).max() * size
    line = 0.3
    if np.abs(expected.real - line).min() < 1e-3 or kind == 3:
        return
    count = eigenvalues.rows_below(A.copy(), line, rows)
    _, Z, slow = schur(A, sort=lambda re, im: re > line)
    assert count == size - slow
    R, N = rows[:count], Z[:, slow:]
    np.testing.assert_allclose(R.T @ R, N @ N.T, rtol=0, atol=1e-9)


def rule_of(rng):
    """One of the rules, with numbers of its own."""
    lr = float(rng.uniform(0.05, 0.3))
    return [
        md.GD(lr), md.SGD(lr, float(rng.uniform(0, 0.8))), md.SGD(lr, 0.5, nesterov=True), md.RMSProp(lr, eps=0.3),
        md.Adam(lr, beta1=0.5, eps=0.3),
    ][rng.integers(5)]  # fmt: skip


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_an_orbit_is_one_of_the_map(fast, seed):
    """What is found solves `-F_o(c*, d) = d` and the rest of the mid-point by literal steps of the map, moves across
    slow directions alone and is stable; scipy, from there, stays there. Without an orbit the valley is stable, or no
    orbit is claimed."""
    rng = np.random.default_rng(seed)
    ys = sp.symbols(f"y:{fast}")
    bend = [float(v) for v in rng.uniform(0.7, 1.3, fast)]
    tilt = float(rng.uniform(-0.3, 0.3))
    expr = sum((1 + x**2) * b * (sp.log(sp.cosh(v)) + tilt * (v - sp.tanh(v))) for b, v in zip(bend, ys, strict=True))
    system = md.Map(md.Loss(expr, [x, *ys]), rule_of(rng))
    n, orbits = system.components, Orbits(system)
    c = np.zeros(n)
    c[0] = rng.uniform(1.0, 6.0)
    if "v" in system.rule.states:
        c[-system.dim :] = rng.uniform(0.5, 3.0)
    k = 10**6
    F = lambda z: system.step(z, k=k)  # noqa: E731
    values = np.linalg.eigvals(orbits.jacobian(c, float(k)))
    try:
        orbit = orbits.find(c, np.zeros(n), float(k))
    except FieldFailed:
        assert np.abs(values).max() > 1
        return
    m, d = orbit.midpoint, orbit.amplitude
    flips = ((np.abs(values.imag) < 1e-9) & (values.real < -1 - 1e-6)).any()
    assert bool(d.any()) == flips
    if not flips:
        return
    even, odd = (F(m + d) + F(m - d)) / 2, (F(m + d) - F(m - d)) / 2
    np.testing.assert_allclose(-odd, d, rtol=0, atol=1e-10)
    _, R = orbits.split(c, float(k))
    np.testing.assert_allclose(R @ (even - m), 0, rtol=0, atol=1e-10)
    np.testing.assert_allclose(m - c, R.T @ (R @ (m - c)), rtol=0, atol=1e-10)
    assert orbit.stable

    def wrong(p):
        m, d = c + p[: len(R)] @ R, p[len(R) :]
        return np.concatenate([R @ ((F(m + d) + F(m - d)) / 2 - m), (F(m + d) - F(m - d)) / 2 + d])

    twin = root(wrong, np.concatenate([R @ (m - c), d]), tol=1e-13)
    np.testing.assert_allclose(twin.x[len(R) :], d, rtol=0, atol=1e-8)


def test_the_slaved_path_is_scipys():
    """On the log-cosh valley the subquadratic flow is `dx/dk = -2 lr x log cosh d(x)`, d from the odd equation by
    bisection, to its tolerance, until the orbit dies out."""
    lr, x0 = 0.1, 6.0
    system = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(lr))
    flow = md.SubquadraticFlow(system)

    def drift(_, s):
        odd = lambda d: (1 + s[0] ** 2) * np.tanh(d) - 2 * d / lr  # noqa: E731
        d = brentq(odd, 1e-9, 60, xtol=1e-15) if 1 + s[0] ** 2 > 2 / lr else 0.0
        return [-2 * lr * s[0] * np.log(np.cosh(d))]

    run = md.simulate(flow, [x0, 0.0], 60, save_every=5)
    # the mid-point of the first two iterates on the floor is the floor: no oscillation yet at x0, it branches off
    other = solve_ivp(drift, (0, 60), [run.w[0, 0, 0]], "DOP853", run.steps, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(run.w[0, :, 0], other.y[0], rtol=0, atol=1e-7)
    assert np.abs(run.w[0, :, 1]).max() < 1e-9 and abs(np.ptp(run.w[0, :, 0])) > 1


def twin_of_the_field(system, scalar, w, r):
    """The central flow's field at w with its r critical directions, for r at most 1, by numpy alone."""
    dim, rule = system.dim, system.rule.hyper
    theta, v = w[:dim], w[dim:]
    lr, beta = rule["lr"], rule.get("beta2", 1.0)
    P = (np.sqrt(v) + rule["eps"]) / lr * np.ones(dim) if len(v) else np.full(dim, 1 / lr)
    g, H = system.loss.grad(theta), system.loss.hessian(theta)
    gather = (lambda a: a.sum(keepdims=True)) if scalar else (lambda a: a)
    free = np.concatenate([-g / P, (1 - beta) / beta * (gather(g**2) - v) if len(v) else []])
    if r == 0:
        return free
    root = 1 / np.sqrt(2 * P)
    u = root * np.linalg.eigh(root[:, None] * H * root)[1][:, -1]
    T = system.loss.third(theta, u, u)
    pull = [-T / P / 2, (1 - beta) / beta * gather((H @ u) ** 2) if len(v) else []]
    normal = [-T, gather(u**2) / np.sqrt(v) / lr if len(v) else []]
    pull, normal = np.concatenate(pull), np.concatenate(normal)
    return free - pull * min(normal @ free, 0.0) / (normal @ pull)


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize("rule", [md.GD, md.RMSProp], ids=["GD", "RMSProp"])
def test_the_central_field_is_the_projected_one(rule, scalar):
    """Along a path, below the threshold and on it, the field is the free one, projected so that the critical curvature
    does not pass its threshold, accumulators included; and the oscillation is of rank one."""
    system = md.Map(EDGE, rule(0.2) if rule is md.GD else md.RMSProp(0.05, beta2=0.95, eps=0.05))
    flow = md.CentralFlow(system, "scalar" if scalar else "each")
    engine = make_engine(flow, flow.start([[1.0, 0.3]]), 160)
    met = set()
    for k in range(0, 160, 8):
        engine.advance(k, 8)
        w = engine.shown[0]
        r = flow.critical(w)
        met.add(r)
        expected = twin_of_the_field(system, scalar, w, r)
        np.testing.assert_allclose(flow.drift(w) * system.lr(), expected, rtol=1e-7, atol=1e-9)
        assert np.linalg.matrix_rank(flow.oscillation(w), tol=1e-9) <= r
    assert met == {0, 1}


@pytest.mark.parametrize("make", [md.SubquadraticFlow, md.CentralFlow])
def test_paths_at_the_edge_do_not_know_their_company(make):
    """Alone, among 400 others, on one thread or three: a path has the same bits, and ends in the same step."""
    flow = make(md.Map(EDGE, md.GD(0.2)))
    starts = np.random.default_rng(0).uniform([1.0, -0.5], [3.0, 0.5], (400, 2))
    together = [md.simulate(flow, starts, 40, paths=400, save_every=20, threads=n) for n in (1, 3)]
    np.testing.assert_array_equal(together[0].w, together[1].w)
    for i in (0, 17, 399):
        alone = md.simulate(flow, starts[i], 40, save_every=20)
        np.testing.assert_array_equal(alone.w[0], together[0].w[i])
        assert alone.status[0] == together[0].status[i] and alone.ended[0] == together[0].ended[i]


def test_a_path_ends_in_the_step_where_its_orbit_does():
    """`ended` is the step in which the orbit doubles, not the end of a slice of steps, whatever is saved."""
    k = sp.Symbol("k")
    system = md.Map(md.Loss(y**2 / 2 - y**3 / 3, [y]), md.GD(2.3 + k / 100))
    flow = md.SubquadraticFlow(system)
    for every in (1, 40):
        run = md.simulate(flow, [0.01], 40, save_every=every, rtol=1e-5)
        assert run.status[0] == md.Status.PERIOD_FOUR
        assert abs(run.ended[0] - 14) <= 1  # lr = sqrt(6) at k = 14.9
