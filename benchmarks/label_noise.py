"""Where label noise ends on the diagonal linear network: quasistatic flows against constrained minimization by scipy.

    python -m benchmarks.label_noise     # half a minute

SGD should end at the minimum of tr H on the minima, Adam with frozen accumulators at that of tr diag(H)^(1/2). Both are
sparse: parameters at zero, where Adam's noise vanishes too, so Adam needs eps > 0, and with it the flow descends

    sum_i psi(H_ii),   psi(h) = (2/c) (sqrt(c h) - eps log(1 + sqrt(c h) / eps)),   label noise Sigma = c H,

which tends to (2/sqrt c) tr diag(H)^(1/2) for small eps. With a dense target the minimum is a regular point. The
model's own target is explained by two features, and there the Hessian's rank is 2 instead of 6: the flow approaches
that singular point as exp(-4 c mean(x_j^2) lr^2 k), feature j being the last to die out, and its smallest curvatures
sink below rounding long before. The loss is even in every parameter, so one at zero stays there: those that have died
out are set to zero, and the flow goes on in the plane that is left, where the rank is 3 all the way.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog, minimize

import minidyn as md

SHIFT = np.array([0.3, -0.2, 0.1, 0.25, -0.3, 0.15])  # added to the model's target: no sparse solution is exact
NOISE = 1e-4  # so small that its own slopes leave the minima stable until their curvatures have sunk to rounding
C = NOISE**2 / 6  # on six samples
GAP = 1e-12  # curvatures are resolved down to this, relative to the largest
DEAD = 1e-4  # a parameter below this has died out


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


def follow(flow: md.QuasistaticFlow, w: np.ndarray, legs: tuple[float, ...], show) -> np.ndarray:
    """The flow for so many steps, leg by leg; between two legs parameters that have died out are set to zero."""
    for number, steps in enumerate(legs):
        if number:
            dead = np.abs(w) < DEAD
            print(f"  {dead.sum()} parameters of at most {np.abs(w[dead]).max(initial=0.0):.1e} are set to zero")
            w = flow.manifold.project(np.where(dead, 0.0, w))
        run = md.simulate(flow, w, int(steps), save_every=int(steps), rtol=1e-6, atol=1e-9)
        w = run.w[0, -1]
        curvatures = np.linalg.eigvalsh(flow.loss.hessian(w))
        rank = int((curvatures > flow.manifold.gap * curvatures[-1]).sum())
        print(
            f"  after {steps:.1e} {'more ' if number else ''}steps: {show(w)}, rank {rank}, {run.describe_status()}",
            flush=True,
        )
    return w


def sgd(net: Network, name: str, lr: float = 0.02) -> None:
    """SGD against the linear program and against SLSQP."""
    least = net.least_trace()
    found = net.diagonal(net.minimum(np.sum, np.ones_like, net.start)).sum()
    print(f"SGD, {name}: min tr H by linear programming {least:.10f}, by SLSQP {found:.10f}")
    flow = flow_of(net, md.SGD(lr))
    legs = (50 / (lr * NOISE) ** 2, 150 / (lr * NOISE) ** 2)
    follow(flow, net.start, legs, lambda w: f"tr H / minimum - 1 = {excess(net, w, least):+.1e}")


def excess(net: Network, w: np.ndarray, least: float) -> float:
    """How far the trace lies above its minimum, relatively."""
    return float(net.diagonal(w).sum() / least - 1)


def adam(net: Network, name: str, lr: float = 1e-3 * NOISE, eps: float = 0.1 * NOISE) -> None:
    """Adam with frozen accumulators against SLSQP from near its end."""
    flow = flow_of(net, md.Adam(lr, eps=eps), "frozen")
    print(f"Adam, frozen, eps {eps}, {name}:")

    def show(w: np.ndarray) -> str:
        return f"psi {psi(net.diagonal(w), eps):.10f}, tr diag(H)^(1/2) {np.sqrt(net.diagonal(w)).sum():.6f}"

    w = follow(flow, net.start, (1.3 / lr**2, 1.3 / lr**2), show)
    best = net.least_psi(eps, np.abs(w) + 0.05 * np.abs(np.random.default_rng(0).normal(size=20)))
    least = psi(net.diagonal(best), eps)
    print(
        f"  SLSQP from the end, disturbed by 0.05: psi {least:.10f}; "
        f"psi / minimum - 1 = {psi(net.diagonal(w), eps) / least - 1:+.1e}, "
        f"largest difference of |parameters| {np.abs(np.abs(best) - np.abs(w)).max():.1e}"
    )


def main() -> None:
    """Both rules on both targets."""
    for name, shift in (("dense target", SHIFT), ("the model's target", 0 * SHIFT)):
        net = Network(shift)
        sgd(net, name)
        adam(net, name)


if __name__ == "__main__":
    main()
