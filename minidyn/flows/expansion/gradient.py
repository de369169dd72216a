"""Gradient flow `dw/dt = -grad L(w)`: every rule's limit for small learning rates."""

from typing import Any, ClassVar

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import FlowError, said
from minidyn.common.locks import cached_property, derived
from minidyn.compiler import compiled
from minidyn.flows.base import WIDEST, Flow, stay
from minidyn.flows.look import VIOLET
from minidyn.graph import Graph
from minidyn.kernels import Emitter, Source, store
from minidyn.kernels.pointers import SIGNATURES
from minidyn.maps.discrete import Map
from minidyn.maps.recognize import recognized
from minidyn.maps.rule_symbols import in_papers
from minidyn.minima.manifold import steepest

SIGNATURES["speed"] = "f8(f8[:])"  # hp


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    grad, speed = fns
    grad(w, c, d, b)
    rate = speed(hp)
    for i in range(w.shape[0]):
        b[i] = -rate * b[i]
    return 0


def _jacobian(fns, w, k, hp, c, d, nz, fp, J):
    hessian, speed = fns
    hessian(w, c, d, J)
    rate = speed(hp)
    for i in range(w.shape[0]):
        for j in range(w.shape[0]):
            J[i, j] = -rate * J[i, j]
    return 0


class GradientFlow(Flow):
    """`dw/dt = -grad L(w)`, on the clock `t = lr k`.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> md.GradientFlow(md.Map(md.Loss(x**2, [x]), md.GD(0.1))).drift([1.0])
    array([-2.])
    """

    key = "gradient"
    look = VIOLET
    name: ClassVar[str] = "gradient flow"
    reference: ClassVar[str] = "Cauchy (1847)"
    needs: ClassVar[tuple[str, ...]] = ("grad", "speed")
    field: ClassVar[Any] = staticmethod(_field)
    jacobian: ClassVar[Any] = staticmethod(_jacobian)
    jacobian_needs: ClassVar[tuple[str, ...]] = ("hessian", "speed")
    symmetric: ClassVar[bool] = True

    def __init__(self, system: Map):
        super().__init__(system)
        known = recognized(system.rule)
        if known is None or not known.plain:
            raise FlowError(
                f"gradient flow is the small-lr limit of gradient descent with or without momentum, "
                f"not of {system.rule.name}: {said('md.ModifiedFlow(map, order=1)')} is that of any rule."
            )
        self.known = known

    @derived
    def source(self) -> Source:
        """`speed(hp)`, which is `lr / (1 - momentum)`; gradient and Hessian are the loss's own kernels."""
        src = Source(f"gradient flow of {self.map.loss}")
        src.add("speed", "hp", self._speed_lines())
        return src

    @cached_property
    def inlined(self) -> tuple[Any, Any, tuple[Any, ...]] | None:
        """The gradient itself."""
        return compiled(_field), compiled(stay), (self.loss.kernels.grad, self.kernels.speed)

    @property
    def in_lanes(self) -> bool:
        """Where the gradient has no loops: those over samples are wide already."""
        return self.loss.straight and self.dim <= WIDEST

    def _speed_lines(self) -> list[str]:
        """`lr / (1 - momentum)`: how far a step carries along the gradient."""
        g, names, called = Graph(), list(self.map.rule.hyper), self.known.called
        speed = g.load("hp", names.index(called["lr"]))
        if "momentum" in called:
            speed = speed / (1.0 - g.load("hp", names.index(called["momentum"])))
        emitter = Emitter([store(g, speed, "result")], places={"result": "result"})
        return [*emitter.lines(), "return result"]

    def speeds(self, numbers: Floats) -> Floats:
        """`lr / (1 - momentum)` at each step, (N,): schedules of the two change nothing else, so it is never None."""
        names, called = list(self.map.rule.hyper), self.known.called
        rest = 1.0 - numbers[:, names.index(called["momentum"])] if "momentum" in called else 1.0
        return np.asarray(numbers[:, names.index(called["lr"])] / rest)

    def validity(self, w: ArrayLike) -> float:
        """`lr/(1 - momentum)` times the largest curvature at a point w (D,), over 2: one at the threshold of GD.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> md.GradientFlow(md.Map(md.Loss(x**2, [x]), md.GD(0.1))).validity([1.0])
        0.1
        """
        point = self._point(w)[: self.dim]
        sharpness = steepest(self.loss, point)
        (speed,) = self.speeds(self.map.hyper_at(self.first_moving)[None])
        return float(0.5 * speed * sharpness)

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """See `Flow.describe`."""
        small = "lr times the sharpness over 2"
        equation = r"$\dot w = -\nabla L(w)$" if latex else "dw/dt = -grad L(w)"
        if self.map.rule.states:
            momentum = self.known.called["momentum"]
            small = f"lr/(1 - {momentum}) times the sharpness over 2"
            beta = in_papers(self.map.rule.hyper)[momentum]
            equation = rf"$\dot w = -\nabla L(w)/(1-{beta})$" if latex else f"dw/dt = -grad L(w) / (1 - {momentum})"
        return "\n".join(
            [
                f"Gradient flow of {self.map.rule}",
                equation,
                "state: w; clock: t = lr k; noise: left out",
                "assumes: a smooth loss",
                "order: error against the map O(lr) at fixed t",
                f"valid: {small}, small{self._here(w)}",
                f"reference: {self.reference}",
            ]
        )
