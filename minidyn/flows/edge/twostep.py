"""The map without its noise as a function `F(z)` of the whole state, and what two of its steps do.

`F_e(c, d) = [F(c + d) + F(c - d)] / 2` and `F_o(c, d) = [F(c + d) - F(c - d)] / 2` are its even and odd parts:
if `z_k = c - d` and `z_{k+1} = c + d`, the next pair has the mid-point `F_e` and, the flip of every step taken out,
the amplitude `-F_o`. Everything here comes from the symbolic rule, one coordinate at a time, and the loss's
gradient and Hessian, so it holds for any rule.
"""

from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError
from minidyn.common.locks import Form, cached_property, derived
from minidyn.flows.base import Flow
from minidyn.graph import Graph, Index, Node
from minidyn.graph.derivatives import reverse
from minidyn.kernels import Emitter, Source, coordinate, store
from minidyn.kernels.linalg import inner
from minidyn.kernels.pointers import SIGNATURES
from minidyn.maps.discrete import Map

SIGNATURES |= {
    "rule_step": "void(f8[:], f8[:], f8, f8[:], f8[:])",  # z, g, k, hp, out
    "rule_slopes": "void(f8[:], f8[:], f8, f8[:], f8[:])",  # z, g, k, hp, J
}


def add_rule_kernels(src: Source, system: Map) -> None:
    """Add `rule_step(z, g, k, hp, out)`, the rule on all coordinates, and its slopes `rule_slopes(z, g, k, hp, J)`.

    `J` holds, for coordinate i, output a and input p of (theta, g, states), the slope at
    `J[(i (1 + states) + a) (2 + states) + p]`.
    """
    rule, size = system.rule, system.dim
    states = len(rule.states)
    i = coordinate(size)
    graph = Graph()
    theta, g = graph.load("z", 0, [(i, 1)]), graph.load("g", 0, [(i, 1)])
    aux = [graph.load("z", (1 + a) * size, [(i, 1)]) for a in range(states)]
    outputs = rule.update(graph, theta, g, aux, graph.load("k"), held=True)
    width = 2 + states
    steps = [store(graph, node, "out", a * size, [(i, 1)]) for a, node in enumerate(outputs)]
    slopes = []
    for a, node in enumerate(outputs):
        found = _slopes(node, size, frozenset({i}))
        for p in range(width):
            slope = found.get(p, graph.const(0.0))
            slopes.append(store(graph, slope, "J", a * width + p, [(i, (1 + states) * width)]))
    src.add("rule_step", "z, g, k, hp, out", Emitter(steps, places={"k": "k"}).lines(), "the rule, all coordinates")
    src.add("rule_slopes", "z, g, k, hp, J", Emitter(slopes, places={"k": "k"}).lines(), "slopes of the rule")


@inner
def along_slopes(v, bent, J, out):
    """out = dF/dz v, from the slopes J of the rule and `bent = H v_theta`."""
    dim = bent.shape[0]
    states = v.shape[0] // dim - 1
    width = 2 + states
    for i in range(dim):
        for a in range(1 + states):
            at = (i * (1 + states) + a) * width
            total = J[at] * v[i] + J[at + 1] * bent[i]
            for s in range(states):
                total += J[at + 2 + s] * v[(1 + s) * dim + i]
            out[a * dim + i] = total


def _slopes(node: Node, size: int, here: frozenset[Index]) -> dict[int, Node]:
    """Derivatives of one output by (theta, g, states) of its own coordinate."""
    found = {1 + e.data[1] // size if e.data[1] else 0: d for e, d in reverse(node, "z", here)}
    for _, slope in reverse(node, "g", here):
        found[1] = slope
    return found


class PairFlow(Flow):
    """A flow whose state is the mid-point c and the half-difference d of two successive iterates of the map."""

    reads = "midpoints"
    ahead = 1
    steps: "TwoStep"

    @cached_property
    def source(self) -> Source:
        """`rule_step` and `rule_slopes` of the map's rule; the others are the loss's own."""
        return self.steps.source

    @property
    def size(self) -> int:
        """Twice the length of the map's state: mid-point and half-difference."""
        return 2 * self.map.components

    def amplitude(self, w: ArrayLike) -> Any:
        """Half the distance between successive iterates of theta, `|d|`, at states of the flow (..., size)."""
        half = self.map.components
        return np.linalg.norm(self.check(w)[..., half : half + self.dim], axis=-1)


class TwoStep(ByValue):
    """A map without its noise: `F(z)`, its Jacobian, its even and odd parts, its edge of stability.

    Points are whole states `z` (components,); `k` is the number of the step.
    """

    def __init__(self, system: Map):
        self.map, self.dim, self.size = system, system.dim, system.components
        self.states = len(system.rule.states)

    @property
    def form(self) -> Form:
        """The map's."""
        return self.map.form

    @derived
    def source(self) -> Source:
        """The text of `rule_step` and `rule_slopes` (see `add_rule_kernels`)."""
        src = Source(f"steps of {self.map.rule.name} on {self.map.loss}")
        add_rule_kernels(src, self.map)
        return src

    @cached_property
    def kernels(self) -> Any:
        """Both, compiled."""
        return self.source.load()

    def step(self, z: Floats, k: float = 1.0) -> Floats:
        """`F(z)`."""
        z, out = np.ascontiguousarray(z, float), np.empty(self.size)
        self.kernels.rule_step(z, self._gradient(z), float(k), self._numbers(k), out)
        return out

    def _gradient(self, z: Floats) -> Floats:
        """The loss's kernel itself: the points are this class's own, and need no look."""
        out, loss = np.empty(self.dim), self.map.loss
        loss.kernels.grad(z[: self.dim], loss.c, loss.rows, out)
        return out

    def _numbers(self, k: float) -> Floats:
        if not (self.map.rule.scheduled or self.map.rule.uses_step):
            return self._constant
        return self.map.hyper_at(k)

    @cached_property
    def _constant(self) -> Floats:
        return self.map.hyper_at(1)

    def slopes(self, z: Floats, k: float = 1.0) -> Floats:
        """Slopes of the rule, (coordinate, output, input) with inputs (theta, g, states)."""
        z, J = np.ascontiguousarray(z, float), np.empty(self.dim * (1 + self.states) * (2 + self.states))
        self.kernels.rule_slopes(z, self._gradient(z), float(k), self._numbers(k), J)
        return J.reshape(self.dim, 1 + self.states, 2 + self.states)

    def jacobian(self, z: Floats, k: float = 1.0) -> Floats:
        """`A = dF/dz` (components, components)."""
        z, loss, H = np.ascontiguousarray(z, float), self.map.loss, np.empty((self.dim, self.dim))
        loss.kernels.hessian(z[: self.dim], loss.c, loss.rows, H)
        J = self.slopes(z, k)
        n, A = self.dim, np.zeros((self.size, self.size))
        place = np.arange(n)
        for a in range(1 + self.states):
            rows = slice(a * n, (a + 1) * n)
            A[rows, :n] = J[:, a, 1, None] * H
            for p in (0, *range(2, 2 + self.states)):
                A[a * n + place, max(p - 1, 0) * n + place] += J[:, a, p]
        return A

    def parts(self, c: Floats, d: Floats, k: float = 1.0) -> tuple[Floats, Floats]:
        """The even and the odd part, `F_e(c, d)` and `F_o(c, d)`."""
        plus, minus = self.step(c + d, k), self.step(c - d, k)
        return 0.5 * (plus + minus), 0.5 * (plus - minus)

    def first_pair(self, w0: ArrayLike, k: int = 1) -> tuple[Floats, Floats]:
        """Mid-point and amplitude (..., components) of the map's first two iterates from theta or a whole state."""
        whole = self.map.whole_state(w0, "w0")
        flat = whole.reshape(-1, self.size)
        after = np.array([self.step(z, k) for z in flat]).reshape(whole.shape)
        return 0.5 * (whole + after), 0.5 * (after - whole)

    # -- the edge --
    def thresholds(self, z: Floats, k: float = 1.0) -> Floats:
        """`D_i` (dim,): what the curvature along coordinate i must exceed for the rule to flip sign and grow.

        An oscillation `theta -> -theta` carries the states along (`s -> -s`); solving each coordinate's linear
        rule for them leaves `H theta = D theta`. GD: `2/lr`; heavy ball: `2 (1 + beta)/lr`; Adam with its
        accumulators as they stand: `2 (1 + beta1)/(1 - beta1) (sqrt(v) + eps)/lr`.
        """
        J = self.slopes(z, k)
        fixed, driven = 1.0 + J[:, 0, 0], J[:, 0, 1]
        if self.states:
            block = -np.eye(self.states) - J[:, 1:, 2:]
            fixed = fixed + np.einsum("is,is->i", J[:, 0, 2:], np.linalg.solve(block, J[:, 1:, 0, None])[..., 0])
            driven = driven + np.einsum("is,is->i", J[:, 0, 2:], np.linalg.solve(block, J[:, 1:, 1, None])[..., 0])
        with np.errstate(divide="ignore", invalid="ignore"):
            found = -fixed / driven
        if not (np.isfinite(found) & (found > 0)).all():
            place = np.round(z[: min(self.dim, 6)], 4).tolist()
            raise FlowError(
                f"{self.map.rule.name} has no edge of stability at theta = {place}: an "
                "accumulator vanishes there, or the step does not answer to the gradient; use eps > 0 or a loss floor."
            )
        return np.asarray(found)

    def relative_hessian(self, z: Floats, k: float = 1.0) -> tuple[Floats, Floats]:
        """`D^(-1/2) H D^(-1/2)` and `D`: the Hessian in units of the rule's own threshold, which it meets at 1."""
        D = self.thresholds(z, k)
        root = 1.0 / np.sqrt(D)
        return root[:, None] * self.map.loss.hessian(z[: self.dim]) * root, D
