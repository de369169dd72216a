"""Central flow: the time average of gradient descent, or RMSProp, that oscillates at the edge of stability.

With `P` the preconditioner (`1/lr`, or `(sqrt(v) + eps)/lr`), per step,

    dtheta/dk = -P^-1 [grad L + T[S]/2],   dv/dk = (1-beta2)/beta2 [g^2 + diag(H S H) - v]
    S >= 0,   2 P - H >= 0,   <S, 2 P - H> = 0

where `S` is the covariance of the oscillation, on the span of the critical directions `H u = 2 P u`.
Source: Cohen, Damian, Talwalkar, Kolter, Lee, *Understanding optimization in deep learning with central flows* (2025).
"""

from typing import Any, ClassVar

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import FlowError
from minidyn.common.intake import one_of
from minidyn.common.locks import cached_property
from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.flows.edge import complementarity, critical
from minidyn.flows.look import GREEN
from minidyn.kernels import Source
from minidyn.maps.discrete import Map
from minidyn.maps.recognize import recognized


class CentralFlow(Flow):
    """The time-averaged path of gradient descent or RMSProp, through the edge of stability and along it.

    Below the threshold it is the gradient flow (of RMSProp: with its accumulators). Where a curvature reaches it,
    the oscillation `S` that holds all critical curvatures at or below the threshold is found from a semidefinite
    complementarity problem. With one critical direction that is gradient flow projected on `sharpness = 2/lr`.

    Parameters
    ----------
    system : the map of `GD`, `SGD` without momentum, or `RMSProp`; its noise is left out.
    accumulators : for RMSProp, "each" coordinate has one, or one "scalar" `v` follows the squared norm of the
        gradient (the rule of that name in the paper; it equals RMSProp where D = 1).

    The state is `(theta, v)`, `v` after the step's own update. It starts from the mid-point of the first two iterates;
    a start beyond the edge, where the theory is silent, is moved onto it first.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((1 + x**2) * y**2 / 2 - x, [x, y]), md.GD(0.5))
    >>> flow = md.CentralFlow(gd)
    >>> (flow.drift([[1.0, 0.0], [3**0.5, 0.0]]).round(3) + 0.0).tolist()  # below the edge and on it
    [[1.0, 0.0], [0.0, 0.0]]
    """

    _offers = "accumulators amplitude oscillation critical"
    key = "central"
    look = GREEN
    name: ClassVar[str] = "central flow"
    reference: ClassVar[str] = "Cohen, Damian, Talwalkar, Kolter, Lee (2025)"
    reads = "midpoints"
    needs: ClassVar[tuple[str, ...]] = ("grad", "hessian", "third")
    field: ClassVar[Any] = staticmethod(critical.field)
    carry: ClassVar[Any] = staticmethod(critical.advance)
    remembers = 4
    reasons: ClassVar[dict[int, str]] = {
        Status.SOLVER_FAILED: "the set of critical directions does not settle; take a smaller rtol.",
        Status.SINGULAR: "an accumulator vanishes; use eps > 0 or start with v > 0.",
        Status.NO_ORBIT: "no oscillation holds the critical curvatures at the threshold.",
    }

    def __init__(self, system: Map, accumulators: str = "each"):
        super().__init__(system)
        rule = system.rule
        known = recognized(rule)
        if known is None or known.name not in ("GD", "SGD", "RMSProp") or (known.name == "SGD" and rule.states):
            raise FlowError(
                f"the central flow is known for GD and RMSProp, not for {rule.name}; the rod flow takes any rule."
            )
        if rule.scheduled:
            raise FlowError("the central flow needs constant hyperparameters; the rod flow takes schedules.")
        self.accumulators = one_of(accumulators, "accumulators", ("each", "scalar"))
        self.hyper = {name: float(rule.hyper[own]) for name, own in known.called.items()}
        if known.name == "RMSProp" and self.hyper["beta2"] == 0:
            raise FlowError("the central flow of RMSProp needs beta2 > 0: without memory the step is a sign.")

    @property
    def size(self) -> int:
        """D for theta, then the accumulators."""
        if "beta2" not in self.hyper:
            return self.dim
        return self.dim + (self.dim if self.accumulators == "each" else 1)

    def start(self, w0: ArrayLike) -> Floats:
        """The mid-point of the first two iterates, with the accumulators after the first step (..., size)."""
        array = self.map.state(w0, "w0")
        theta = array[..., : self.dim]
        before = array[..., self.dim :] if array.shape[-1] != self.dim else np.zeros_like(theta)
        g, lr = self.loss.grad(theta), self.hyper["lr"]
        if self.size == self.dim:
            return theta - 0.5 * lr * g
        beta = self.hyper["beta2"]
        v = beta * before + (1 - beta) * g**2
        if self.accumulators == "scalar":
            v = beta * before[..., :1] + (1 - beta) * (g**2).sum(-1, keepdims=True)
        step = lr * g / (np.sqrt(v) + self.hyper["eps"])
        return np.concatenate([theta - 0.5 * step, v], axis=-1)

    # -- the field --
    @cached_property
    def source(self) -> Source:
        """The loss's own kernels are all that it needs."""
        return self.loss.source

    def numbers(self, w0: Floats) -> Floats:
        """Those of `critical.At`, whatever the starting points."""
        beta = self.hyper.get("beta2", 1.0)
        return np.array([self.dim, self.hyper["lr"], self.hyper.get("eps", 0.0), (1 - beta) / beta])

    def spectrum(self, w: Floats) -> tuple[Floats, Floats, Floats]:
        """`P`, the curvatures over their threshold (falling), and directions (rows) with `u^T 2P u = 1`."""
        point, dim = np.ascontiguousarray(self.check(w)), self.dim
        P, values, U = np.empty(dim), np.empty(dim), np.empty((dim, dim))
        if code := critical.spectrum(self._system, point, U, 0, P, values, U):
            raise self._refused(point, code)
        return P, values, U

    @property
    def _system(self) -> tuple[Any, ...]:
        """The flow as compiled functions take it."""
        return self.pointers[2], (self.loss.c, self.loss.rows, self.numbers(np.empty(0)))

    def critical(self, w: Floats) -> int:
        """How many curvatures stand at the threshold."""
        return int((self.spectrum(w)[1] >= 1.0 - critical.ON).sum())

    def oscillation(self, w: ArrayLike) -> Floats:
        """The covariance `S` (D, D) of the oscillation at a state of the flow; zero below the threshold.

        >>> import sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> gd = md.Map(md.Loss((1 + x**2) * y**2 / 2 - x, [x, y]), md.GD(0.5))
        >>> float(md.CentralFlow(gd).oscillation([3**0.5, 0.0]).round(4)[1, 1])  # holds x: x y^2 = 1
        0.5774
        """
        point, S = np.ascontiguousarray(self.check(w)), np.empty((self.dim, self.dim))
        code = critical.pressing(self._system, point, np.empty_like(S), np.empty(self.size), S, np.empty(1))[0]
        if code:
            raise self._refused(point, code)
        return S

    def why(self, w: Floats, kept: Floats, code: int) -> tuple[int, str]:
        """Which of the conditions cannot be met, where the path ended."""
        if code != Status.NO_ORBIT:
            return super().why(w, kept, code)
        if complementarity.holds(kept[3]):
            return code, "no oscillation brings the start back to the threshold"
        return code, str(complementarity.refusal(kept[3]))

    def amplitude(self, w: ArrayLike) -> Any:
        """`sqrt(tr S)`, the root-mean-square length of the oscillation, at states of the flow (..., size)."""
        points = self.check(w)
        flat = points.reshape(-1, self.size)
        out = np.sqrt([max(float(np.trace(self.oscillation(p))), 0.0) for p in flat]).reshape(points.shape[:-1])
        return float(out) if out.ndim == 0 else out

    # -- in words --
    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """See `Flow.describe`.

        >>> import sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> flow = md.CentralFlow(md.Map(md.Loss((1 + x**2) * y**2 / 2 - x, [x, y]), md.GD(0.5)))
        >>> round(flow.validity([3**0.5, 0.0]), 12)  # quadratic across: exact
        0.0
        """
        metric, state = ("sqrt(v) + eps", "(theta, v)") if self.size > self.dim else ("1", "theta")
        if latex:
            equations = [
                r"$\dot\theta = -P^{-1}[\nabla L + \frac{1}{2}\nabla\langle H, \hat\Sigma\rangle]"
                + (r",\quad P = \sqrt{v} + \epsilon$" if self.size > self.dim else r",\quad P = 1$"),
                r"$\hat\Sigma \succeq 0,\quad H \preceq \frac{2}{\eta} P,\quad"
                r" \langle\hat\Sigma, \frac{2}{\eta} P - H\rangle = 0$",
            ]
            if self.size > self.dim:
                equations.insert(1, r"$\dot v = \frac{1-\beta_2}{\eta\beta_2}[g^2 + \mathrm{diag}(H\hat\Sigma H) - v]$")
        else:
            equations = [
                f"  dtheta/dt = -[grad L + T[S]/2] / P,  P = {metric}",
                "  S >= 0,  H <= 2 P/lr,  <S, 2 P/lr - H> = 0",
            ]
            if self.size > self.dim:
                equations.insert(1, "  dv/dk = (1 - beta2)/beta2 [g^2 + diag(H S H) - v]")
                if self.accumulators == "scalar":
                    equations[1] = "  dv/dk = (1 - beta2)/beta2 [|g|^2 + tr(H S H) - v], one v for all coordinates"
        return "\n".join(
            [
                f"Central flow of {self.map.rule}",
                *equations,
                f"state: {state}, averaged over the oscillation; clock: t = lr k; noise: left out",
                "assumes: the oscillation averages out; third derivatives tell how it moves the sharpness",
                "order: leading order in the oscillation; fourth derivatives along it are neglected",
                "valid: the relative change of the critical curvature over the oscillation's length, small"
                + self._here(w),
                f"reference: {self.reference}",
            ]
        )

    def validity(self, w: ArrayLike) -> float:
        """How much the secant curvature over the oscillation's length `sqrt(S)` differs from the curvature, relatively.

        Zero where there is no oscillation.
        """
        state = self._started(w)
        values, vectors = np.linalg.eigh(self.oscillation(state))
        if not values[-1] > 0.0:
            return 0.0
        u, size, theta = vectors[:, -1], np.sqrt(values[-1]), state[: self.dim]
        secant = u @ (self.loss.grad(theta + size * u) - self.loss.grad(theta - size * u)) / (2 * size)
        return float(abs(secant / (u @ self.loss.hvp(theta, u)) - 1.0))
