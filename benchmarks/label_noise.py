"""Where label noise ends on the diagonal linear network: quasistatic flows against constrained minimization by scipy.

    python -m benchmarks.label_noise     # a few minutes

SGD should end at the minimum of tr H on the minima, Adam with frozen accumulators at that of tr diag(H)^(1/2). Both are
sparse: parameters at zero, where Adam's noise vanishes too, so Adam needs eps > 0, and with it the flow descends

    sum_i psi(H_ii),   psi(h) = (2/c) (sqrt(c h) - eps log(1 + sqrt(c h) / eps)),   label noise Sigma = c H,

which tends to (2/sqrt c) tr diag(H)^(1/2) for small eps. The model's own target makes two features explain six
samples, where the manifold is singular: the flow creeps there. A second, dense target has a regular minimum.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog, minimize

import minidyn as md

SHIFT = np.array([0.3, -0.2, 0.1, 0.25, -0.3, 0.15])  # added to the model's target: no sparse solution is exact
C = 1.0 / 6  # label noise of deviation 1 on six samples


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
        return 4 * self.weights * w**2

    def coefficients(self, w: np.ndarray) -> np.ndarray:
        return w[:10] ** 2 - w[10:] ** 2

    def minimum(self, value, slope, start: np.ndarray) -> np.ndarray:
        """Sequential quadratic programming on the interpolating parameters; `slope` is dvalue/dH_ii."""
        constraint = {
            "type": "eq", "fun": lambda w: self.X @ self.coefficients(w) - self.y,
            "jac": lambda w: np.hstack([2 * self.X * w[:10], -2 * self.X * w[10:]]),
        }  # fmt: skip
        return minimize(
            lambda w: value(self.diagonal(w)), start, jac=lambda w: slope(self.diagonal(w)) * 8 * self.weights * w,
            constraints=constraint, method="SLSQP", options={"ftol": 1e-15, "maxiter": 5000},
        ).x  # fmt: skip

    def least_trace(self) -> float:
        """The minimum of tr H, a linear program: 4 sum_j mean(x_j^2) |coefficient_j|."""
        half = self.weights[:10]
        return 4 * linprog(np.tile(half, 2), A_eq=np.hstack([self.X, -self.X]), b_eq=self.y).fun


def sgd(lr: float = 1e-4) -> None:
    """SGD against the linear program and against SLSQP, on both targets."""
    for name, shift, horizons in (
        ("dense target", SHIFT, (1e9, 1e10, 1e11)),
        ("the model's target", 0 * SHIFT, (1e9, 1e10)),
    ):
        net = Network(shift)
        least = net.least_trace()
        found = net.diagonal(net.minimum(np.sum, np.ones_like, net.start)).sum()
        print(f"SGD, {name}: min tr H by linear programming {least:.10f}, by SLSQP {found:.10f}")
        flow = md.QuasistaticFlow(md.Map(net.loss, md.SGD(lr), md.LabelNoise(1.0)))
        for steps in horizons:
            run = md.simulate(flow, net.start, int(steps), save_every=int(steps))
            w = run.w[0, -1]
            print(f"  flow after lr^2 k = {lr**2 * steps:5.0f}: tr H - minimum {net.diagonal(w).sum() - least:+.2e}, "
                  f"{run.describe_status()}", flush=True)  # fmt: skip


def adam(lr: float = 1e-4, eps: float = 0.1) -> None:
    """Adam with frozen accumulators against SLSQP from near its end."""
    net = Network(SHIFT)

    def psi(h: np.ndarray) -> float:
        root = np.sqrt(C * h)
        return float((2 / C * (root - eps * np.log1p(root / eps))).sum())

    def slope(h: np.ndarray) -> np.ndarray:
        return 1 / (np.sqrt(C * h) + eps)

    flow = md.QuasistaticFlow(md.Map(net.loss, md.Adam(lr, eps=eps), md.LabelNoise(1.0)), accumulators="frozen")
    w = net.start
    for steps in (1e8, 1e8):
        run = md.simulate(flow, w, int(steps), save_every=int(steps), rtol=1e-7, atol=1e-10)
        w = run.w[0, -1]
        print(f"Adam, frozen, eps {eps}: after {steps:.0e} more steps psi {psi(net.diagonal(w)):.8f}, "
              f"tr diag(H)^(1/2) {np.sqrt(net.diagonal(w)).sum():.8f}, "
              f"{run.describe_status()}", flush=True)  # fmt: skip
    noise = 1 + 0.05 * np.random.default_rng(0).normal(size=20)
    best = net.minimum(psi, slope, w * noise)
    print(f"  SLSQP from the end, disturbed by 5 %: psi {psi(net.diagonal(best)):.8f}, "
          f"tr diag(H)^(1/2) {np.sqrt(net.diagonal(best)).sum():.8f}, "
          f"largest difference of |parameters| {np.abs(np.abs(best) - np.abs(w)).max():.1e}")  # fmt: skip


def main() -> None:
    """Both."""
    sgd()
    adam()


if __name__ == "__main__":
    main()
