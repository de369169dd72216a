"""Reshuffling in the mean over orders: batches of one epoch share no sample, so their gradients lean on each other.

Two steps of an epoch see different samples, however many each: `E H_j g_i = H g - c/(n-1)` with the mean over samples
`c = <(H_s - H)(g_s - g)> = grad tr C / 2`. A gradient that is seen once has carried w, d steps later, by `-lr R_d` of
itself: `R_d = 1` for gradient descent, `(1 - beta^d)/(1 - beta)` with momentum. On average over the m steps of an epoch

    dw/dt = -a (g + lr kappa c) + ...        kappa = sum_{d<m} (m - d) R_d / (m (n-1)),   a = R_infinity

beside what the map does without noise. For gradient descent kappa is `(m-1)/(2 (n-1))`, and the modified loss
`L + lr/4 (|grad L|^2 + (m-1)/(n-1) tr C)`, of equal batches the mean of `L + lr/4 |grad L_b|^2`. With replacement steps
are independent, and there is no such term. What is left of the noise after an epoch is of higher order, but for a last
batch that is smaller than the others. Source: Smith, Dherin, Barrett, De (2021): gradient descent, equal batches.
"""

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.kernels import Source
from minidyn.kernels.pointers import SIGNATURES
from minidyn.maps.discrete import Map
from minidyn.maps.rules import Rule

FORCE = "epoch_force"
SIGNATURES[FORCE] = SIGNATURES["grad"]  # w, c, d, out


def epoch(system: Map) -> int:
    """Steps of an epoch."""
    return -(-(system.loss.n_samples or 1) // system.bound.batch)


def place_of_rate(rule: Rule) -> int:
    """Where lr stands among the hyperparameters, -1 without."""
    return list(rule.hyper).index("lr") if "lr" in rule.hyper else -1


def lean(system: Map, slopes: Floats, lr: float) -> float:
    """kappa, of a rule whose step has these slopes at a learning rate: rows theta and states, columns as in `steps`."""
    n, m = system.loss.n_samples or 1, epoch(system)
    if m == 1:
        return 0.0
    step = np.eye(len(slopes) - 1) + slopes[1:, 3:]
    carried, state, total = 0.0, np.zeros(len(step)), 0.0
    for d in range(1, m):
        carried += float(slopes[0, 3:] @ state) + (slopes[0, 1] if d == 1 else 0.0)
        state = step @ state + (slopes[1:, 1] if d == 1 else 0.0)
        total -= (m - d) * carried
    return total / (lr * m * (n - 1))


def add_force(src: Source, system: Map) -> None:
    """Add `epoch_force(w, c, d, out)`, the vector c."""
    bound, size = system.bound, system.dim
    src.line(f"from {system.loss.kernels.__name__} import grad, hvp, sample_grad")
    bound.sampling.add_slopes(src, bound, "slope")
    src.add(FORCE, "w, c, d, out", [
        "n = d.shape[0]", f"p = np.empty({size})", f"q = np.empty({size})", "grad(w, c, d, p)", "hvp(w, p, c, d, q)",
        f"for i in range({size}):", "    out[i] = -q[i]",
        "for s in range(n):", "    sample_grad(w, c, d, s, p)", "    sample_slope(w, p, c, d, s, q)",
        f"    for i in range({size}):", "        out[i] += q[i] / n",
    ], "<(H_s - H)(g_s - g)>")  # fmt: skip
