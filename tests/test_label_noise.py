"""Where quasistatic flows end under label noise, against constrained minimization by scipy (see the study)."""

import numpy as np
import pytest

import minidyn as md
from benchmarks.label_noise import NOISE, SHIFT, Network, excess, flow_of, follow, psi

TARGETS = pytest.mark.parametrize("shift", [SHIFT, 0 * SHIFT], ids=["dense", "model"])
EPS = 0.1 * NOISE


@TARGETS
def test_sgd_ends_at_the_least_trace(shift):
    """On the diagonal net SGD ends where the trace of H is least, by linear programming; on its own, singular, target
    too, once the parameters that have died out are zero."""
    net = Network(shift)
    lr = 0.02
    w = follow(flow_of(net, md.SGD(lr)), net.start, (50 / (lr * NOISE) ** 2, 150 / (lr * NOISE) ** 2), str)
    assert abs(excess(net, w, net.least_trace())) < 1e-8


@TARGETS
def test_frozen_adam_ends_at_the_least_root_of_the_trace(shift):
    """Adam with frozen accumulators goes back to the minimum of its potential, tr diag(H)^(1/2) softened by eps, that
    sequential quadratic programming finds, from a point of M near it."""
    net = Network(shift)
    flow = flow_of(net, md.Adam(1e-2 * NOISE, eps=EPS), "frozen")
    away = np.abs(np.random.default_rng(3).normal(size=20))
    best = net.least_psi(EPS, net.least_psi(EPS, net.start) + 0.05 * away)
    w = flow.manifold.project(np.abs(best) + 0.05 * away)
    assert psi(net.diagonal(w), EPS) > 1.003 * psi(net.diagonal(best), EPS)
    w = follow(flow, w, (3e3 / NOISE**2, 7e3 / NOISE**2), str)
    assert psi(net.diagonal(w), EPS) == pytest.approx(psi(net.diagonal(best), EPS), rel=1e-8)
