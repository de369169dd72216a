"""Central flow: the time average of gradient descent, or RMSProp, that oscillates at the edge of stability.

With `P` the preconditioner (`1/lr`, or `(sqrt(v) + eps)/lr`), per step,

    dtheta/dk = -P^-1 [grad L + T[S]/2],   dv/dk = (1-beta2)/beta2 [g^2 + diag(H S H) - v]
    S >= 0,   2 P - H >= 0,   <S, 2 P - H> = 0

where `S` is the covariance of the oscillation, on the span of the critical directions `H u = 2 P u`.
Source: Cohen, Damian, Talwalkar, Kolter, Lee, *Understanding optimization in deep learning with central flows* (2025).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, NDArray
from minidyn.common.errors import FlowError, SolverError
from minidyn.common.intake import one_of
from minidyn.common.locks import cached_property
from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.flows.edge import complementarity
from minidyn.flows.edge.twostep import TwoStep
from minidyn.flows.look import GREEN
from minidyn.maps.discrete import Map
from minidyn.maps.recognize import recognized
from minidyn.solvers.piecewise import FieldFailed, carry

_ON = 1e-10  # how close to the threshold a curvature counts as critical, in units of the threshold


@dataclass
class _Edge:
    """What the flow needs at a point: the critical directions and how their curvatures answer to motion."""

    values: Floats  # all curvatures in units of the threshold, those of held directions first, falling
    U: Floats  # (D, r) directions, u^T 2P u = 1
    t: Floats  # (r, r, D) third derivatives T[u_a, u_b]
    groups: Floats  # (r, r, accumulators) sums of u_a u_b over the coordinates of one accumulator
    free: tuple[Floats, Floats]  # dtheta/dk and dv/dk without oscillation
    A: Floats  # (r, r) rate at which 2P - H grows without oscillation
    K: Floats  # (r, r, r, r) what an oscillation adds to it
    pull: Floats  # (D, r, r) what an oscillation adds to dtheta/dk
    push: Floats  # (accumulators, r, r) and to dv/dk


def _holding(A: Floats, K: Floats) -> Floats:
    """The oscillation under which no curvature that grows at the rates -A passes its threshold, or FieldFailed."""
    try:
        return complementarity.solve(A, K)[0]
    except SolverError as error:
        raise FieldFailed(Status.NO_ORBIT, str(error)) from error


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
    python_stepped: ClassVar[bool] = True
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
        self.steps = TwoStep(system)

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """Which accumulator each coordinate uses; empty without accumulators."""
        if "beta2" not in self.hyper:
            return np.zeros(0, np.int64)
        return np.arange(self.dim) if self.accumulators == "each" else np.zeros(self.dim, np.int64)

    @property
    def size(self) -> int:
        """D for theta, then the accumulators."""
        return self.dim + (int(self.owner[-1]) + 1 if len(self.owner) else 0)

    def start(self, w0: ArrayLike) -> Floats:
        """The mid-point of the first two iterates, with the accumulators after the first step (..., size)."""
        array = self.map.state(w0, "w0")
        theta = array[..., : self.dim]
        before = array[..., self.dim :] if array.shape[-1] != self.dim else np.zeros_like(theta)
        g, lr = self.loss.grad(theta), self.hyper["lr"]
        if not len(self.owner):
            return theta - 0.5 * lr * g
        beta = self.hyper["beta2"]
        v = beta * before + (1 - beta) * g**2
        if self.accumulators == "scalar":
            v = beta * before[..., :1] + (1 - beta) * (g**2).sum(-1, keepdims=True)
        step = lr * g / (np.sqrt(v) + self.hyper["eps"])
        return np.concatenate([theta - 0.5 * step, v], axis=-1)

    # -- the field --
    def _scale(self, w: Floats) -> Floats:
        """`P` (D,): half the curvature that is critical along each coordinate."""
        if not len(self.owner):
            return np.full(self.dim, 1.0 / self.hyper["lr"])
        v = w[self.dim :]
        if not (v > 0).all():
            raise FieldFailed(Status.SINGULAR, "an accumulator vanishes")
        return (np.sqrt(v)[self.owner] + self.hyper["eps"]) / self.hyper["lr"]

    def spectrum(self, w: Floats, held: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """`P`, the curvatures over their threshold (falling), and directions (columns) with `u^T 2P u = 1`.

        With `held` (D, r) the r directions that overlap most with it come first, whatever their curvatures.
        """
        P = self._scale(w)
        root = 1.0 / np.sqrt(2.0 * P)
        H = self.loss.hessian(w[: self.dim])
        if not np.isfinite(H).all():
            raise FieldFailed(Status.DIVERGED, "the Hessian is not finite")
        values, vectors = np.linalg.eigh(root[:, None] * H * root)
        values, vectors = values[::-1], root[:, None] * vectors[:, ::-1]
        if held is not None and held.shape[1]:
            overlap = ((held.T @ (2.0 * P[:, None] * vectors)) ** 2).sum(axis=0)
            first = np.sort(np.argsort(-overlap, kind="stable")[: held.shape[1]])
            order = np.concatenate([first, np.setdiff1d(np.arange(self.dim), first)])
            values, vectors = values[order], vectors[:, order]
        return P, values, vectors

    def critical(self, w: Floats) -> int:
        """How many curvatures stand at the threshold."""
        return int((self.spectrum(w)[1] >= 1.0 - _ON).sum())

    def _edge(self, w: Floats, r: int, held: Floats | None = None) -> _Edge:
        theta, (P, values, vectors) = w[: self.dim], self.spectrum(w, held)
        U = vectors[:, :r]
        t = np.empty((r, r, self.dim))
        for a in range(r):
            for b in range(a + 1):
                t[a, b] = t[b, a] = self.loss.third(theta, U[:, a], U[:, b])
        g = self.loss.grad(theta)
        count = self.size - self.dim
        along, grow = -g / P, np.zeros(count)
        A, K = -t @ along, 0.5 * np.einsum("abi,i,cdi->abcd", t, 1.0 / P, t)
        pull = -0.5 * np.moveaxis(t, 2, 0) / P[:, None, None]
        pairs, push = np.zeros((r, r, count)), np.zeros((count, r, r))
        if count:
            rate = (1 - self.hyper["beta2"]) / self.hyper["beta2"]
            members = np.eye(count)[self.owner]
            pairs = np.einsum("ia,ib,ij->abj", U, U, members)
            grow = rate * (members.T @ g**2 - w[self.dim :])
            push = rate * np.einsum("ia,ib,ij->jab", 2 * P[:, None] * U, 2 * P[:, None] * U, members)
            gain = 1.0 / (self.hyper["lr"] * np.sqrt(w[self.dim :]))  # d(2P)/dv
            A = A + pairs @ (gain * grow)
            K = K + np.einsum("abj,j,jcd->abcd", pairs, gain, push)
        return _Edge(values, U, t, pairs, (along, grow), A, K, pull, push)

    def _velocity(self, e: _Edge, X: Floats) -> Floats:
        theta, v = e.free
        return np.concatenate([theta + np.einsum("iab,ab->i", e.pull, X), v + np.einsum("jab,ab->j", e.push, X)])

    def _held(self, w: Floats, held: Floats) -> tuple[_Edge, Floats]:
        """The oscillation that keeps exactly the curvatures of the `held` directions where they are."""
        e = self._edge(w, held.shape[1], held)
        return e, complementarity.balanced(e.A, e.K) if len(e.A) else e.A

    def _balance(self, w: Floats) -> tuple[int, Floats, _Edge]:
        """How many critical curvatures are pressed against the threshold, with the oscillation that holds them."""
        m = self.critical(w)
        e = self._edge(w, m)
        if m == 0:
            return 0, np.zeros((0, 0)), e
        X = _holding(e.A, e.K)
        strength = np.linalg.eigvalsh(X)
        return int((strength > 1e-9 * max(strength[-1], 1e-300)).sum()), X, e

    def oscillation(self, w: ArrayLike) -> Floats:
        """The covariance `S` (D, D) of the oscillation at a state of the flow; zero below the threshold.

        >>> import sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> gd = md.Map(md.Loss((1 + x**2) * y**2 / 2 - x, [x, y]), md.GD(0.5))
        >>> float(md.CentralFlow(gd).oscillation([3**0.5, 0.0]).round(4)[1, 1])  # holds x: x y^2 = 1
        0.5774
        """
        point = self.check(w)
        try:
            _, X, e = self._balance(point)
        except FieldFailed as error:
            raise self._refused(point, error.code) from error
        return e.U @ X @ e.U.T

    def at_point(self, w: Floats, k: float, numbers: Floats, b: Floats, f: Floats) -> int:
        """Fill b with `(dtheta/dk, dv/dk)`, its oscillation solved for at w alone: k, `numbers` and f play no part."""
        try:
            _, X, e = self._balance(w)
        except FieldFailed as error:
            return error.code
        b[:] = self._velocity(e, X)
        return 0

    # -- the path --
    def advance(self, w: Floats, memory: dict[str, Any], k: float, end: float, rtol: float, atol: float) -> int:
        """Carry a state from step k to `end` in place; a status code."""
        step = memory.get("step", 0.5)
        try:
            turns = 0
            if not memory:
                w[:] = self._onto_the_edge(w)
            while k < end:
                r, X, e = self._balance(w)
                held = e.U @ np.linalg.eigh(X)[1][:, len(X) - r :]
                before = k
                w[:], k, step, _ = carry(
                    lambda y, _, h=held: self._velocity(*self._held(y, h)), lambda y, _, h=held: self._event(y, h),  # type: ignore[misc]
                    w, k, end, step, rtol, atol, lambda y, _, h=held: self._put_back(y, h),  # type: ignore[misc]
                )  # fmt: skip
                turns = turns + 1 if k - before < 1e-9 * (1 + k) else 0
                if turns > 50:
                    raise FieldFailed(Status.SOLVER_FAILED, "the set of critical directions does not settle")
        except FieldFailed as error:
            memory["reason"] = error.reason
            return error.code
        memory["step"] = step
        return 0

    def _onto_the_edge(self, w: Floats) -> Floats:
        """A start beyond the edge, moved onto it as the oscillation that forms there would move it."""
        for _ in range(30):
            values = self.spectrum(w)[1]
            if values[0] <= 1.0 + 1e-12:
                return w
            e = self._edge(w, int((values > 0.9).sum()))
            X = _holding(np.diag(1.0 - values[: len(e.A)]), e.K)
            w = w + self._velocity(e, X) - np.concatenate(e.free)
        if self.spectrum(w)[1][0] > 1.0 + _ON:
            raise FieldFailed(Status.NO_ORBIT, "no oscillation brings the start back to the threshold")
        return w

    def _event(self, w: Floats, held: Floats) -> float:
        """Positive once another curvature crosses the threshold, or the oscillation along a held one has died out."""
        r = held.shape[1]
        e, X = self._held(w, held)
        crossing = e.values[r] - 1.0 - 0.5 * _ON if r < self.dim else -1.0
        if r == 0:
            return float(crossing)
        strength = np.linalg.eigvalsh(X)
        return float(max(crossing, -strength[0] / max(strength[-1], 1e-300)))

    def _put_back(self, w: Floats, held: Floats) -> Floats:
        """Newton's method back to where the held curvatures stand at the threshold, along their own normals."""
        r = held.shape[1]
        if r == 0:
            return w
        y = w.copy()
        for _ in range(8):
            gap = 1.0 - self.spectrum(y, held)[1][:r]
            if np.abs(gap).max() < 1e-13:
                break
            e = self._edge(y, r, held)
            X = complementarity.balanced(np.diag(gap), e.K)
            y = y + self._velocity(e, X) - np.concatenate(e.free)
        return y

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
        metric, state = ("sqrt(v) + eps", "(theta, v)") if len(self.owner) else ("1", "theta")
        if latex:
            equations = [
                r"$\dot\theta = -P^{-1}[\nabla L + \frac{1}{2}\nabla\langle H, \hat\Sigma\rangle]"
                + (r",\quad P = \sqrt{v} + \epsilon$" if len(self.owner) else r",\quad P = 1$"),
                r"$\hat\Sigma \succeq 0,\quad H \preceq \frac{2}{\eta} P,\quad"
                r" \langle\hat\Sigma, \frac{2}{\eta} P - H\rangle = 0$",
            ]
            if len(self.owner):
                equations.insert(1, r"$\dot v = \frac{1-\beta_2}{\eta\beta_2}[g^2 + \mathrm{diag}(H\hat\Sigma H) - v]$")
        else:
            equations = [
                f"  dtheta/dt = -[grad L + T[S]/2] / P,  P = {metric}",
                "  S >= 0,  H <= 2 P/lr,  <S, 2 P/lr - H> = 0",
            ]
            if len(self.owner):
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
