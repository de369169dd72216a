"""One step of a rule as a small displacement: what modified flows and modified equations are built from.

Output `a` of coordinate `i` depends on the inputs `x = (theta_i, g_i, q_i, states_i)`, with `g` the gradient
and `q` the variance of its noise. The kernel `steps` gives, for one coordinate, the mean displacement
`R_a = f_a + q f_a,gg / 2`, its slopes `J_ap`, and the step's answers to the noise, `f_a,g` and `f_a,gg`.
"""

import numpy as np

from minidyn.common.status import Status
from minidyn.graph import Graph, Node
from minidyn.graph.derivatives import slopes_by_place
from minidyn.kernels import Emitter, Source, store
from minidyn.kernels.elimination import solve
from minidyn.kernels.linalg import inner
from minidyn.maps.rules import Displacement


def add_steps(src: Source, moved: Displacement) -> None:
    """Add `steps(x, hp, kk, R, J, gain, curve)` to a module."""
    g = Graph()
    width = 3 + len(moved.rule.states)
    q, zero = g.load("x", 2), g.const(0.0)
    stores = []

    def slope(node: Node, place: int) -> Node:
        return slopes_by_place(node, "x").get(place, zero)

    for a, node in enumerate(moved.nodes(g)):
        gain = slope(node, 1)
        curve = slope(gain, 1)
        mean = node + 0.5 * (q * curve)
        stores += [store(g, mean, "R", a), store(g, gain, "gain", a), store(g, curve, "curve", a)]
        stores += [store(g, slope(mean, p), "J", a * width + p) for p in range(width)]
    lines = Emitter(stores).lines()
    src.add("steps", "x, hp, kk, R, J, gain, curve", lines, "one coordinate's displacement")


def add_skew(src: Source, moved: Displacement) -> None:
    """Add `steps_skew(x, hp, kk, out)`, `f_a,ggg / 6`: what the third moment of the noise moves."""
    g = Graph()
    stores = []
    for a, node in enumerate(moved.nodes(g)):
        for _ in range(3):
            node = slopes_by_place(node, "x").get(1, g.const(0.0))
        stores.append(store(g, node / 6.0, "out", a))
    src.add("steps_skew", "x, hp, kk, out", Emitter(stores).lines(), "a displacement's third derivative in g")


@inner
def answer(J, states, width, into, rhs, out):
    """out = -(dU/ds - I)^-1 rhs for one coordinate; `into` is room for the matrix. False if it is singular."""
    for a in range(states):
        out[a, 0] = -rhs[a]
        for b in range(states):
            into[a, b] = J[(1 + a) * width + 3 + b]
    return solve(into, out)


@inner
def _rest(steps, states, x, hp, kk, R, J, gain, curve, block, change):
    """Newton's method for the states that a step leaves in place at fixed theta and g; False if it fails."""
    width = 3 + states
    largest = 0.0
    for _ in range(50):
        steps(x, hp, kk, R, J, gain, curve)
        largest = 0.0
        if not answer(J, states, width, block, R[1 : 1 + states], change):
            return False
        for a in range(states):
            x[3 + a] += change[a, 0]
            if not abs(x[3 + a]) < np.inf:
                return False
            largest = max(largest, abs(change[a, 0]) / (1e-300 + abs(x[3 + a])))
        if largest < 1e-15:
            break
    steps(x, hp, kk, R, J, gain, curve)
    return largest < 1e-10


@inner
def all_at_rest(steps, w, g, q, k, hp, X, R, J):
    """The inputs X (D, 3 + states) at w with gradient g and noise q, the states at rest; displacements R and slopes J
    there; a status code."""
    states = R.shape[1] - 1
    kk = np.empty(1)
    kk[0] = k
    gain = np.empty(1 + states)
    curve = np.empty(1 + states)
    block = np.empty((states, states))
    change = np.empty((states, 1))
    for i in range(w.shape[0]):
        X[i, 0] = w[i]
        X[i, 1] = g[i]
        X[i, 2] = q[i]
        for a in range(states):
            X[i, 3 + a] = 0.0
        if not _rest(steps, states, X[i], hp, kk, R[i], J[i], gain, curve, block, change):
            return Status.SINGULAR
    return 0


@inner
def add_lean(epoch_force, w, hp, c, d, how, b):
    """b += factor lr^2 c, the mean effect of reshuffled batches (see `epochs`); how = (factor, place of lr in hp)."""
    factor, place = how
    if factor != 0.0:
        rate = hp[place] if place >= 0 else 1.0
        lean = np.empty(w.shape[0])
        epoch_force(w, c, d, lean)
        for i in range(w.shape[0]):
            b[i] += factor * rate * rate * lean[i]
