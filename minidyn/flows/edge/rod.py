"""Rod flow: the mid-point and the half-length of two successive iterates, as an ordinary differential equation.

Per step, on the whole state of any rule, with the even and odd parts `F_e`, `F_o` of its map,

    dc/dk = F_e(c, d) - c        dd/dk = -F_o(c, d) - d

A pair goes to the next one by a step `G = (F_e - c, -F_o - d)`; to second order its equation is `G - (dG) G / 2`
(backward error analysis), which holds further from the threshold.

Source: theory of the period-two orbit, Ma, Kunin, Wu, Ying (2022); the flow, Regis, Chewi (2026).
"""

from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.intake import one_of, whole
from minidyn.common.status import Status
from minidyn.flows.edge.twostep import PairFlow, TwoStep, along_slopes
from minidyn.flows.look import SKY
from minidyn.maps.discrete import Map


class At(IntEnum):
    """Where what stands among the numbers `fp` of the compiled field."""

    DIM = 0
    STEPS_BEFORE = 1  # of the map before the run begins
    ORDER = 2


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    """The change per step; at order 2 the second-order term `- (dG) G / 2` of a step `z + G(z)` too."""
    grad, hvp, rule_step, rule_slopes = fns
    size = w.shape[0] // 2
    dim = np.int64(fp[At.DIM])
    second = fp[At.ORDER] > 1.0
    at = k + 1.0 + fp[At.STEPS_BEFORE] - (0.5 if second else 0.0)
    ends = np.empty((2, size))
    slopes = np.empty((2, size * (1 + size // dim) if second else 1))
    theta = np.empty(dim)
    g = np.empty(dim)
    z = np.empty(size)
    for side in range(2):
        sign = 1.0 - 2.0 * side
        for i in range(size):
            z[i] = w[i] + sign * w[size + i]
        grad(z[0:dim], c, d, g)
        rule_step(z, g, at, hp, ends[side])
        if second:
            rule_slopes(z, g, at, hp, slopes[side])
    for i in range(size):
        b[i] = 0.5 * (ends[0, i] + ends[1, i]) - w[i]
        b[size + i] = 0.5 * (ends[1, i] - ends[0, i]) - w[size + i]
    if second:
        for side in range(2):
            sign = 1.0 - 2.0 * side
            for i in range(dim):
                theta[i] = w[i] + sign * w[size + i]
            for i in range(size):
                z[i] = b[i] + sign * b[size + i]
            hvp(theta, z[0:dim], c, d, g)
            along_slopes(z, g, slopes[side], ends[side])
        for i in range(size):
            plus, minus = ends[0, i], ends[1, i]
            b[i] = 1.5 * b[i] - 0.25 * (plus + minus)
            b[size + i] = 1.5 * b[size + i] - 0.25 * (minus - plus)
    total = 0.0
    for i in range(2 * size):
        total += abs(b[i])
    return 0 if total < np.inf else Status.SINGULAR


class RodFlow(PairFlow):
    """Mid-point `c` and half-difference `d` of two successive iterates: `dc/dk = F_e - c`, `dd/dk = -F_o - d`.

    The state is `(c, d)`, each as long as the map's state `z`; it starts from the first pair of iterates, and
    `compare` holds the mid-point against the map's mid-points `(theta_k + theta_{k+1}) / 2`. It needs neither a
    manifold nor a stable minimum: where the rule is stable `d` dies out, beyond its threshold `d` grows until the
    loss's curvature over the length of the rod is the threshold's.

    Parameters
    ----------
    system : the map of any rule; its noise is left out.
    first_step : the number of the map's first step (see `simulate`).
    order : 1 for the published flow, 2 for its second-order form `G - (dG) G / 2`.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1))
    >>> flow = md.RodFlow(gd)
    >>> flow.drift([5.0, 0.0, 0.0, 0.5]).round(4)  # the rod grows: the curvature along it exceeds 2 / lr
    array([-1.2011,  0.    ,  0.    ,  2.015 ])
    """

    _offers = "order amplitude"
    key = "rod"
    look = SKY
    orders = (1, 2)
    reference: ClassVar[str] = "Ma, Kunin, Wu, Ying (2022); Regis, Chewi (2026)"
    needs: ClassVar[tuple[str, ...]] = ("grad", "hvp", "rule_step", "rule_slopes")
    field: ClassVar[Any] = staticmethod(_field)
    reasons: ClassVar[dict[int, str]] = {
        Status.SINGULAR: (
            "the rule cannot be evaluated at an end of the rod (an accumulator falls below zero); use eps > 0."
        )
    }

    def __init__(self, system: Map, first_step: int = 1, order: int = 1):
        super().__init__(system)
        self.first_step = whole("first_step", first_step, 1)
        self.order = one_of(order, "the order of a rod flow", self.orders)
        self.steps = TwoStep(system)

    @property
    def name(self) -> str:  # type: ignore[override]
        """What tables and figures call it."""
        return "rod flow" if self.order == 1 else "rod flow, order 2"

    def numbers(self, w0: Floats) -> Floats:
        """Those of `At`, whatever the starting points."""
        known = {At.DIM: self.dim, At.STEPS_BEFORE: self.first_step - 1, At.ORDER: self.order}
        return np.array([float(known[at]) for at in At])

    def start(self, w0: ArrayLike) -> Floats:
        """Mid-point and half-difference (..., size) of the first two iterates from theta or the map's whole state."""
        self.theta(w0)
        return np.concatenate(self.steps.first_pair(w0, self.first_step), axis=-1)

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """See `Flow.describe`.

        >>> import sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> flow = md.RodFlow(md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1)))
        >>> print(flow.describe(w=[4.0, 0.0, 0.0, 0.1]).splitlines()[-2].strip())
        at theta = [4, 0] it is 0.3
        """
        rule, second = self.map.rule, self.order == 2
        c, d = ("$c$", r"$\delta$") if latex else ("c", "d")
        if latex:
            equations = [
                r"$\dot c = \frac{1}{\eta}[F_e(c,\delta) - c],\quad"
                r" \dot\delta = \frac{1}{\eta}[-F_o(c,\delta) - \delta]$",
                r"$F_{e,o}(c,\delta) = \frac{1}{2}[F(c+\delta) \pm F(c-\delta)]$",
                *(
                    [r"of which, as $\frac{1}{\eta} G$, the flow is $\frac{1}{\eta}(G - \frac{1}{2} G' G)$"]
                    if second
                    else []
                ),
            ]
        else:
            equations = [
                "  dc/dk = F_e(c, d) - c,  dd/dk = -F_o(c, d) - d",
                "  F_e, F_o = [F(c + d) +- F(c - d)] / 2",
                *(["  of which, as G, the flow is G - (dG) G / 2"] if second else []),
            ]
        title = "Rod flow of order 2" if second else "Rod flow"
        return "\n".join(
            [
                f"{title} of {rule}, F its step on z = ({', '.join(('theta', *rule.states))})",
                *equations,
                f"state: mid-point {c} and half-difference {d} of two successive iterates; clock: t = lr k; "
                "noise: left out",
                "assumes: iterates that alternate, on pairs that change little from step to step; nothing about the "
                "loss",
                "order: "
                + ("" if second else "one step of length one is the map's own pair exactly; ")
                + f"O({'lr^2' if second else 'lr'}) at fixed t while pairs change slowly",
                f"valid: |1 + mu| small, mu the eigenvalue of dF/dz nearest to a flip{self._here(w)}",
                f"reference: {self.reference}",
            ]
        )

    def validity(self, w: ArrayLike) -> float:
        """`|1 + mu|` with mu the least real part of the eigenvalues of dF/dz at the mid-point of a state.

        NaN where the rule has no slopes, as at an accumulator of zero.
        """
        midpoint = self._started(w)[: self.map.components]
        with np.errstate(all="ignore"):
            jacobian = self.steps.jacobian(midpoint, float(self.first_step))
        if not np.isfinite(jacobian).all():
            return float("nan")
        return float(abs(1.0 + np.linalg.eigvals(jacobian).real.min()))
