"""Averages of curves over noise and oscillation: the kernels that make them, and a twin that shares none of them."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermeval
from scipy.integrate import simpson
from scipy.linalg import solve_discrete_lyapunov

import minidyn as md
from minidyn.kernels.linalg import lyapunov_of_few
from minidyn.maps.quadrature import POINTS, WEIGHTS, overlap, powers
from minidyn.maps.rule_symbols import NODES

x, y, z = sp.symbols("x y z")
CURVES = {
    "cubic": lambda g: g + sp.Rational(3, 10) * g**3,
    "seventh": lambda g: g + g**3 / 10 + g**7 / 5000,
    "ninth": lambda g: g + g**9 / 20000,
    "wave": lambda g: g + sp.sin(2 * g) / 3,
    "clip": lambda g: sp.tanh(g / 3),
    "root": lambda g: 6 * g / sp.sqrt(36 + g**2),
}


@md.rule
def curved(theta, g, *, lr, kind):
    return theta - lr * CURVES[kind](g)


def normal_mean(f) -> float:
    """The mean of f over a standard normal, by Simpson's rule on a fine grid."""
    t = np.linspace(-14, 14, 4001)
    return simpson(f(t) * np.exp(-t * t / 2) / np.sqrt(2 * np.pi), x=t)


@pytest.mark.parametrize("kind", CURVES)
def test_odd_curves_see_their_own_oscillation(kind):
    """Across two coupled directions, at a noise of its own in each: the drift and diffusion of a fixed point found by
    Simpson's rule and scipy's Lyapunov equation, to 1e-8."""
    rng = np.random.default_rng(len(kind))
    g = sp.Symbol("g")
    f, slope = (sp.lambdify(g, e) for e in (CURVES[kind](g), sp.diff(CURVES[kind](g), g)))
    for _ in range(2):
        root, tilt = rng.normal(size=(2, 2)) + 1.2 * np.eye(2), rng.normal(size=(2, 2))
        M, bend, sigma, lr = (
            root @ root.T + 0.3 * np.eye(2),
            tilt + tilt.T,
            rng.uniform(0.2, 0.8, 3),
            rng.uniform(0.01, 0.1),
        )
        W = np.zeros((2, 2))
        for _ in range(200):
            q = sigma[1:] ** 2 + np.diag(M @ W @ M)
            a = np.array([normal_mean(lambda t: slope(s * t)) for s in np.sqrt(q)])  # noqa: B023
            square = np.array([normal_mean(lambda t: f(s * t) ** 2) for s in np.sqrt(q)])  # noqa: B023
            kick = square - a**2 * (q - sigma[1:] ** 2)  # what the oscillation is answered with linearly is in A
            before, W = W, solve_discrete_lyapunov(np.eye(2) - lr * a[:, None] * M, lr**2 * np.diag(kick))
            if np.abs(W - before).max() <= 1e-13 * np.abs(W).max():
                break
        v = sp.Matrix([y, z])
        loss = md.Loss((v.T * (sp.Matrix(M) + x * sp.Matrix(bend)) * v)[0] / 2, [x, y, z])
        flow = md.QuasistaticFlow(md.Map(loss, curved(lr, kind=kind), md.GaussianNoise(list(sigma))))
        along = normal_mean(lambda t: slope(sigma[0] * t))  # noqa: B023
        assert flow.drift([0.0, 0.0, 0.0])[0] == pytest.approx(-along * np.sum(bend * W) / 2, rel=1e-8)
        spread = normal_mean(lambda t: f(sigma[0] * t) ** 2)  # noqa: B023
        assert np.sum(flow.diffusion([0.0, 0.0, 0.0])[0] ** 2) == pytest.approx(lr * spread, rel=1e-8)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_powers_are_hermite_coefficients(seed):
    """`powers` gives back the coefficients of a sum of normed Hermite polynomials, odd sums vanish exactly, and
    `overlap` is the product of two ranges."""
    rng = np.random.default_rng(seed)
    known, norm = rng.normal(size=16), np.sqrt([float(sp.factorial(k)) for k in range(16)])
    parts, C = np.zeros(3 * NODES), np.full(3 * NODES, np.nan)
    parts[NODES : 2 * NODES] = hermeval(POINTS, known / norm) * WEIGHTS
    powers(parts, NODES, C, 2 * NODES)
    assert C[2 * NODES] == 0.0 and np.allclose(
        C[2 * NODES + 1 :], [*known[1:], *np.zeros(NODES - 16)], rtol=0, atol=1e-10
    )
    parts[:NODES] = np.sinh(POINTS) * WEIGHTS
    powers(parts, 0, C, 0)
    assert not C[0:NODES:2].any() and C[1] == pytest.approx(np.exp(0.5), rel=1e-13)
    a, b = rng.normal(size=(2, 40))
    assert overlap(a, 3, b, 5, 8, 24) == pytest.approx(a[11:27] @ b[13:29], rel=1e-12, abs=1e-13)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.floats(0.3, 1.7), st.integers(0, 10**6))
def test_covariances_of_few_numbers(n, radius, seed):
    """`lyapunov_of_few` is scipy's solution to 1e-9 where the spectral radius is below 1, and says where it is not."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, n))
    a *= radius / np.abs(np.linalg.eigvals(a)).max()
    half, w = rng.normal(size=(n, n)), np.empty((n, n))
    found = lyapunov_of_few(np.eye(n) - a, half @ half.T, w)
    if abs(radius - 1.0) > 1e-3:
        assert bool(found) == (radius < 1.0)
    if found:
        exact = solve_discrete_lyapunov(a, half @ half.T)
        assert np.abs(w - exact).max() <= 1e-9 * np.abs(exact).max()
