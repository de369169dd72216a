"""Where quasistatic flows end under label noise on the diagonal net, against constrained minimization by scipy.

SGD should end at the minimum of tr H on the minima, Adam with frozen accumulators at that of tr diag(H)^(1/2). Both are
sparse: parameters at zero, where Adam's noise vanishes too, so Adam needs eps > 0, and with it the flow descends

    sum_i psi(H_ii),   psi(h) = (2/c) (sqrt(c h) - eps log(1 + sqrt(c h) / eps)),   label noise Sigma = c H,

which tends to (2/sqrt c) tr diag(H)^(1/2) for small eps. With a dense target the minimum is a regular point. The
model's own target is explained by two features, and there the Hessian's rank is 2 instead of 6: the flow approaches
that singular point as exp(-4 c mean(x_j^2) lr^2 k), feature j being the last to die out, and its smallest curvatures
sink below rounding long before. The loss is even in every parameter, so one at zero stays there: those that have died
out are set to zero, and the flow goes on in the plane that is left, where the rank is 3 all the way.
"""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

import minidyn as md

SHIFT = np.array([0.3, -0.2, 0.1, 0.25, -0.3, 0.15])  # added to the model's target: no sparse solution is exact
NOISE = 1e-4  # so small that its own slopes leave the minima stable until their curvatures have sunk to rounding
C = NOISE**2 / 6  # on six samples
GAP = 1e-12  # curvatures are resolved down to this, relative to the largest
DEAD = 1e-4  # a parameter below this has died out
TARGETS = pytest.mark.parametrize("shift", [SHIFT, 0 * SHIFT], ids=["dense", "model"])
EPS = 0.1 * NOISE


class Network:
    """The diagonal network's constraint and the diagonal of its Hessian on the minima, in plain numpy."""

    def __init__(self, shift: np.ndarray):
        model = md.load_model("diagonal_net")
        loss = model.loss
        (inputs,) = (v for k, v in loss.data.items() if k != loss.target)
        self.X, self.y = inputs, loss.data[loss.target] + shift
        self.loss = loss.with_data({loss.target: self.y})
        self.weights = np.tile((self.X**2).mean(0), 2)
        self.start = md.Manifold(self.loss).project(model.spec.experiment.w0)

    def diagonal(self, w: np.ndarray) -> np.ndarray:
        """The diagonal of the Hessian at `w`, on the minima."""
        return 4 * self.weights * w**2

    def coefficients(self, w: np.ndarray) -> np.ndarray:
        """The coefficients of the linear model that `w` stands for."""
        return w[:10] ** 2 - w[10:] ** 2

    def minimum(self, value, slope, start: np.ndarray) -> np.ndarray:
        """Sequential quadratic programming on the interpolating parameters; `slope` is dvalue/dH_ii."""
        constraint = {
            "type": "eq",
            "fun": lambda w: self.X @ self.coefficients(w) - self.y,
            "jac": lambda w: np.hstack([2 * self.X * w[:10], -2 * self.X * w[10:]]),
        }
        return minimize(
            lambda w: value(self.diagonal(w)),
            start,
            jac=lambda w: slope(self.diagonal(w)) * 8 * self.weights * w,
            constraints=constraint,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 5000},
        ).x

    def least_trace(self) -> float:
        """The minimum of tr H, a linear program: 4 sum_j mean(x_j^2) |coefficient_j|."""
        half = self.weights[:10]
        return 4 * linprog(np.tile(half, 2), A_eq=np.hstack([self.X, -self.X]), b_eq=self.y).fun

    def least_psi(self, eps: float, start: np.ndarray) -> np.ndarray:
        """Where `psi` has its minimum near a start."""
        return self.minimum(lambda h: psi(h, eps), lambda h: 1 / (np.sqrt(C * h) + eps), start)


def psi(h: np.ndarray, eps: float) -> float:
    """What Adam with frozen accumulators descends, from the diagonal of H."""
    root = np.sqrt(C * h)
    return float((2 / C * (root - eps * np.log1p(root / eps))).sum())


def flow_of(net: Network, rule: md.Rule, accumulators: str = "full") -> md.QuasistaticFlow:
    """The quasistatic flow under label noise, curvatures resolved to near rounding."""
    noisy = md.Map(net.loss, rule, md.LabelNoise(NOISE))
    return md.QuasistaticFlow(noisy, md.Manifold(net.loss, gap=GAP), accumulators)


def follow(flow: md.QuasistaticFlow, w: np.ndarray, legs: tuple[float, ...]) -> np.ndarray:
    """The flow for so many steps, leg by leg; between two legs parameters that have died out are set to zero."""
    for number, steps in enumerate(legs):
        if number:
            w = flow.manifold.project(np.where(np.abs(w) < DEAD, 0.0, w))
        w = md.simulate(flow, w, int(steps), save_every=int(steps), rtol=1e-6, atol=1e-9).w[0, -1]
    return w


@TARGETS
def test_sgd_ends_at_the_least_trace(shift):
    """On the diagonal net SGD ends where the trace of H is least, by linear programming; on its own, singular, target
    too, once the parameters that have died out are zero."""
    net = Network(shift)
    lr = 0.02
    w = follow(flow_of(net, md.SGD(lr)), net.start, (50 / (lr * NOISE) ** 2, 150 / (lr * NOISE) ** 2))
    assert abs(net.diagonal(w).sum() / net.least_trace() - 1) < 1e-8


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
    w = follow(flow, w, (3e3 / NOISE**2, 7e3 / NOISE**2))
    assert psi(net.diagonal(w), EPS) == pytest.approx(psi(net.diagonal(best), EPS), rel=1e-8)
