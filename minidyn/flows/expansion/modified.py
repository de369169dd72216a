"""Modified flows (backward error analysis): the differential equation that a map solves to higher order in lr.

A step is `s' = U(s, theta)`, `theta' = theta + lr G(s, theta)`. After its transient the auxiliary state lies on
the slow manifold `s = S0 + lr S1 + ...`,

    S0 = U(S0, theta)        S1 = (dU/ds - I)^-1 DS0 a1        a1 = G(S0, theta)

and theta follows, to second order, `dtheta/dt = a1 + lr (dG/ds S1 - a1' a1 / 2)`. Gradient descent has no state;
there the logarithm of the step, `f = -grad L`, gives two more orders:

    f - lr f'f/2 + lr^2 (f''(f,f)/12 + f'f'f/3) - lr^3 ((f''(f,f'f) + f'f''(f,f))/12 + f'f'f'f/4)

Source: Hairer, Lubich, Wanner, *Geometric Numerical Integration* (2006), chapter IX; for optimizers Barrett,
Dherin (2021); Kovachki, Stuart (2021); Cattaneo, Klusowski, Shigida (2024).
"""

from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import FlowError, said
from minidyn.common.intake import finite, one_of
from minidyn.common.locks import cached_property, derived
from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.flows.expansion.epochs import FORCE, add_force, epoch, lean, place_of_rate
from minidyn.flows.expansion.formulas import in_latex, in_text
from minidyn.flows.expansion.steps import add_lean, add_steps, all_at_rest, answer
from minidyn.flows.look import OLIVE
from minidyn.kernels import Source
from minidyn.kernels.linalg import inner, jit
from minidyn.maps import rule_symbols
from minidyn.maps.discrete import Map
from minidyn.maps.rules import displacement


class At(IntEnum):
    """Where what stands among the numbers `fp` of the compiled functions."""

    ORDER = 0
    STATES = 1
    EPOCH = 2  # of reshuffled batches the factor of lr^2 c in the drift per step; else 0
    RATE = 3  # the place of lr among the hyperparameters, -1 without


@inner
def _log_step(hvp, third, w, c, d, gain, order, b):
    """Orders 3 and 4 of the logarithm of `w + b`, where `b = gain grad L`, added to b's second order."""
    dim = w.shape[0]
    f = b.copy()
    f1 = np.empty(dim)
    f2 = np.empty(dim)
    bend = np.empty(dim)
    hvp(w, f, c, d, f1)
    for i in range(dim):
        f1[i] *= gain
    hvp(w, f1, c, d, f2)
    third(w, f, f, c, d, bend)
    for i in range(dim):
        f2[i] *= gain
        bend[i] *= gain
        b[i] += -0.5 * f1[i] + bend[i] / 12.0 + f2[i] / 3.0
    if order > 3.0:
        cross = np.empty(dim)
        pushed = np.empty(dim)
        f3 = np.empty(dim)
        third(w, f, f1, c, d, cross)
        hvp(w, bend, c, d, pushed)
        hvp(w, f2, c, d, f3)
        for i in range(dim):
            b[i] -= gain * ((cross[i] + pushed[i]) / 12.0 + 0.25 * f3[i])


@inner
def _slow(fns, w, k, hp, c, d, X, R, J, b):
    """States at rest X[:, 3:], displacements R and slopes J there, and b = R[:, 0]; a status code."""
    grad, _, _, steps, _ = fns
    dim = w.shape[0]
    g = np.empty(dim)
    grad(w, c, d, g)
    code = all_at_rest(steps, w, g, np.zeros(dim), k, hp, X, R, J)
    for i in range(dim):
        b[i] = R[i, 0]
    return code


@inner
def _lags(hvp, w, c, d, J, b, bent, ahead, lag):
    """`bent` = H b, and of each coordinate `ahead` = DS0 a1 and `lag` = S1, per step; a status code."""
    states = lag.shape[1]
    width = 3 + states
    rhs = np.empty(states)
    block = np.empty((states, states))
    part = np.empty((states, 1))
    hvp(w, b, c, d, bent)
    for i in range(w.shape[0]):
        for a in range(states):
            rhs[a] = J[i, (1 + a) * width] * b[i] + J[i, (1 + a) * width + 1] * bent[i]
        if not answer(J[i], states, width, block, rhs, part):
            return Status.SINGULAR
        for a in range(states):
            ahead[i, a] = part[a, 0]
            rhs[a] = -part[a, 0]
        if not answer(J[i], states, width, block, rhs, part):
            return Status.SINGULAR
        for a in range(states):
            lag[i, a] = part[a, 0]
    return 0


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    """The modified velocity per step; a status code."""
    _, hvp, third, _, epoch_force = fns
    dim = w.shape[0]
    order = fp[At.ORDER]
    states = np.int64(fp[At.STATES])
    X = np.empty((dim, 3 + states))
    R = np.empty((dim, 1 + states))
    J = np.empty((dim, (1 + states) * (3 + states)))
    code = _slow(fns, w, k, hp, c, d, X, R, J, b)
    if code != 0:
        return code
    if order > 2.0:
        _log_step(hvp, third, w, c, d, J[0, 1], order, b)
    elif order > 1.0:
        bent = np.empty(dim)
        ahead = np.empty((dim, states))
        lag = np.empty((dim, states))
        code = _lags(hvp, w, c, d, J, b, bent, ahead, lag)
        if code != 0:
            return code
        for i in range(dim):
            speed = J[i, 0] * b[i] + J[i, 1] * bent[i]
            total = 0.0
            for a in range(states):
                speed += J[i, 3 + a] * ahead[i, a]
                total += J[i, 3 + a] * lag[i, a]
            b[i] += total - 0.5 * speed
        add_lean(epoch_force, w, hp, c, d, (fp[At.EPOCH], np.int64(fp[At.RATE])), b)
    for i in range(dim):
        if not abs(b[i]) < np.inf:
            return Status.SINGULAR
    return 0


@jit
def _slow_state(fns, w, k, hp, c, d, fp, z):
    """z = (w, S0 + lr S1) at w; a status code."""
    _, hvp, _, _, _ = fns
    dim = w.shape[0]
    states = np.int64(fp[At.STATES])
    X = np.empty((dim, 3 + states))
    R = np.empty((dim, 1 + states))
    J = np.empty((dim, (1 + states) * (3 + states)))
    b = np.empty(dim)
    bent = np.empty(dim)
    ahead = np.empty((dim, states))
    lag = np.empty((dim, states))
    code = _slow(fns, w, k, hp, c, d, X, R, J, b)
    if code == 0:
        code = _lags(hvp, w, c, d, J, b, bent, ahead, lag)
    if code != 0:
        return code
    for i in range(dim):
        z[i] = w[i]
        for a in range(states):
            z[(1 + a) * dim + i] = X[i, 3 + a] + (lag[i, a] if fp[At.ORDER] > 1.0 else 0.0)
    return 0


class ModifiedFlow(Flow):
    """`dw/dt = a1 + lr (dG/ds S1 - a1' a1 / 2)`: the flow that a map without noise follows to order 2 in lr.

    Parameters
    ----------
    system : the map, with any rule; its noise is not looked at (`StochasticModifiedFlow` has it), but for reshuffled
        batches: order 2 is the mean over the orders of an epoch, at whole epochs, for rules linear in the gradient.
    order : 1 (`dw/dt = G(S0, w)`, the small-lr limit of any rule), 2, or for gradient descent 3 and 4.

    The error against the map at a fixed time is `O(lr^order)`, if the map's auxiliary state starts where it
    settles, on the slow manifold: `w0=flow.slow_state(w)` in `simulate` and `compare`, with a large `first_step`
    for rules with bias corrections. `drift` is per unit of `t = lr k`.

    Raises FlowError for orders that are not known and for schedules of anything but `lr`.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> gd = md.Map(md.Loss(x**2 / 2, [x]), md.GD(0.1))
    >>> [round(float(md.ModifiedFlow(gd, order).drift([1.0])[0]), 6) for order in (1, 2, 3, 4)]
    [-1.0, -1.05, -1.053333, -1.053583]
    """

    _offers = "order slow_state modified_loss"
    key = "modified"
    look = OLIVE
    orders = (1, 2, 3, 4)
    reference: ClassVar[str] = (
        "Hairer, Lubich, Wanner (2006), chapter IX; Barrett, Dherin (2021); Kovachki, Stuart (2021); "
        "Cattaneo, Klusowski, Shigida (2024)"
    )
    field: ClassVar[Any] = staticmethod(_field)

    def __init__(self, system: Map, order: int = 2):
        super().__init__(system)
        self.order = one_of(order, "the order of a modified flow", self.orders)
        self.moved = displacement(system.rule)
        moving = [h for h, v in system.rule.hyper.items() if isinstance(v, sp.Expr) and h != "lr"]
        if moving:
            raise FlowError(
                f"a schedule of {moving[0]} moves the slow manifold of {system.rule.name} with the step; "
                "modified flows know schedules of lr alone."
            )
        if self.order > 2 and not (self.moved.linear and not system.rule.states):
            raise FlowError(
                f"orders 3 and 4 are known for gradient descent, not for {system.rule.name}: use "
                f"{said('order=2, or md.GD(lr)')}."
            )
        if self.of_epochs and not (self.moved.linear and self.order == 2):
            raise FlowError(
                "reshuffled batches have a modified flow of order 2 for rules that are linear in the gradient, none of "
                f"order {self.order} for {system.rule.name}; {said('md.ModifiedFlow(map, order=1)')} leaves them out."
            )

    @property
    def of_epochs(self) -> bool:
        """Whether it has the mean effect of reshuffling."""
        return self.order > 1 and self.map.bound.shuffles

    @property
    def noisy(self) -> bool:  # type: ignore[override]
        """Where the order of the samples is all that is random, its mean over orders is in the equations."""
        return self.of_epochs and len(self.map.bound.noise.parts) == 1

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The last one is called for reshuffled batches only."""
        return "grad", "hvp", "third", "steps", FORCE if self.of_epochs else "grad"

    @property
    def name(self) -> str:  # type: ignore[override]
        """What tables and figures call it."""
        return f"modified flow, order {self.order}"

    @property
    def _chosen(self) -> tuple[Any, ...]:
        return (self.order,)

    @derived
    def source(self) -> Source:
        """`steps`, the displacement of one coordinate with its slopes (see `add_steps`)."""
        src = Source(f"steps of {self.map.rule.name}")
        add_steps(src, self.moved)
        if self.of_epochs:
            add_force(src, self.map)
        return src

    def numbers(self, w0: Floats) -> Floats:
        """Those of `At`, whatever the starting points."""
        rule = self.map.rule
        known = {At.ORDER: self.order, At.STATES: len(rule.states), At.EPOCH: -self.force, At.RATE: place_of_rate(rule)}
        return np.array([float(known[at]) for at in At])

    def speeds(self, numbers: Floats) -> Floats | None:
        """The learning rates (N,) at order 1, where lr alone has a schedule and changes the speed alone; else None.

        That is so where theta's displacement is proportional to lr, and those of the states are free of it.
        """
        own = [h for h, v in self.map.rule.hyper.items() if isinstance(v, sp.Expr)] == ["lr"] and not self.own_clock
        if self.order > 1 or not (own and self._scales):
            return None
        return numbers[:, list(self.map.rule.hyper).index("lr")]

    @derived
    def _scales(self) -> bool:
        """Whether theta moves in proportion to lr, and the states whatever it is."""
        theta, *states = self.moved.moved
        lr = rule_symbols.hyper("lr")
        return not any(e.has(lr) for e in states) and sp.expand(theta - lr * sp.diff(theta, lr)) == 0

    def explain(self, code: int) -> str:
        """A status in words; `SINGULAR` where the rule has no derivatives, or its states no rest."""
        if self.meaning(code) == Status.SINGULAR:
            return (
                f"{self.map.rule.name} has no derivatives here: an auxiliary state has no rest, or a coordinate of the "
                "gradient vanishes where the rule divides by its size; start elsewhere, or give the rule an eps."
            )
        return super().explain(code)

    def slow_state(self, w: ArrayLike, k: float = 1) -> Floats:
        """The map's whole state `(w, S0 + lr S1)` on its slow manifold, shape (..., components).

        There the transient of the auxiliary state is over (to the order of this flow): start the map here to see
        the flow's order. For rules with bias corrections start at a large `first_step` too.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> flow = md.ModifiedFlow(md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.01, momentum=0.5)))
        >>> flow.slow_state([1.0])
        array([1.  , 2.08])
        """
        points, k = self.loss.check(w), finite(k, "k")
        flat = points.reshape(-1, self.dim)
        out = np.empty((len(flat), self.map.components))
        fns, numbers, m = self.pointers[2], self.numbers(flat), self.map
        for point, z in zip(flat, out, strict=True):
            code = _slow_state(fns, point, k, m.hyper_at(k), m.loss.c, m.loss.rows, numbers, z)
            if code:
                raise self._refused(point, code)
        return out.reshape(*points.shape[:-1], self.map.components)

    # -- the modified loss --
    @cached_property
    def coefficients(self) -> tuple[float, float] | None:
        """`(c0, c1)` of `c0 L + lr c1 |grad L|^2`, for rules that are linear in the gradient; None for others."""
        if not self.moved.linear or self.order > 2:
            return None
        states, slopes, lr = len(self.map.rule.states), self._slopes, self.map.lr(self.first_moving)
        answer = -np.linalg.solve(slopes[1:, 3:], slopes[1:, 1]) if states else np.zeros(0)
        later = np.linalg.solve(slopes[1:, 3:], answer) if states else np.zeros(0)
        first = (slopes[0, 1] + slopes[0, 3:] @ answer) / lr  # a1 = first g
        second = (slopes[0, 3:] @ later) / lr * first - 0.5 * first**2  # of lr H g
        return -first, -0.5 * second

    @cached_property
    def _slopes(self) -> Floats:
        """Those of a step that is linear in the gradient: displacements by rows, inputs by columns as in `steps`."""
        outputs = 1 + len(self.map.rule.states)
        R, J, *room = (np.zeros(size) for size in (outputs, outputs * (2 + outputs), outputs, outputs))
        hyper = self.map.hyper_at(self.first_moving)
        self.kernels.steps(np.zeros(2 + outputs), hyper, np.ones(1), R, J, *room)
        return J.reshape(outputs, 2 + outputs)

    @cached_property
    def force(self) -> float:
        """`a kappa` of reshuffled batches: the drift has `-lr a kappa c` more; else 0."""
        if not self.of_epochs or self.coefficients is None:
            return 0.0
        return self.coefficients[0] * lean(self.map, self._slopes, self.map.lr(self.first_moving))

    def modified_loss(self, w: ArrayLike) -> Any:
        """The loss whose gradient flow this is, `c0 L + lr c1 |grad L|^2`, at points of shape (..., D).

        GD: `L + lr |grad L|^2 / 4`; heavy ball `(L + lr (1+b)/(4 (1-b)^2) |grad L|^2) / (1-b)`. Rules that are not
        linear in the gradient, and orders above 2, have none in general (the field has a curl): FlowError. Reshuffled
        batches add to GD's `lr (m-1)/(n-1) tr C/4`, with C the covariance of the samples' gradients, m steps an epoch.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> md.ModifiedFlow(md.Map(md.Loss(x**2 / 2, [x]), md.GD(0.1))).modified_loss([2.0])
        2.1
        """
        if isinstance(self.map.rule.hyper.get("lr"), sp.Expr):
            raise FlowError("with a schedule of lr the modified loss changes with the step; give a constant lr.")
        if self.coefficients is None:
            what = f"order {self.order}" if self.moved.linear else self.map.rule.name
            raise FlowError(
                f"there is no modified loss for {what}: the modified flow is not a gradient flow in general; "
                "it exists up to order 2 for rules that are linear in the gradient."
            )
        c0, c1 = self.coefficients
        g = self.loss.grad(w)
        c1 = c1 * self.map.lr() if self.order > 1 else 0.0
        values = c0 * self.loss.value(w) + c1 * np.sum(g * g, axis=-1)
        if self.of_epochs:
            spread = self.loss.sample_grads(w).var(axis=-2).sum(axis=-1)
            values = values + 0.5 * self.force * self.map.lr() * spread
        return float(values) if np.ndim(values) == 0 else values

    # -- in words --
    def validity(self, w: ArrayLike) -> float:
        """What must be small at a point w (D,): the norm of the last correction over that of the whole velocity."""
        point, k = self._point(w)[: self.dim], self.first_moving
        here, other = self.drift(point, k), ModifiedFlow(self.map, self.order - 1 or 2).drift(point, k)
        size = float(np.linalg.norm(here))
        return float(np.linalg.norm(here - other)) / size if size > 0.0 else 0.0

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """See `Flow.describe`."""
        small = f"lr = {self.map.rule.hyper.get('lr', 1)} against 1/sharpness"
        if self.map.rule.states:
            small += " times the memory of the auxiliary state"
        assumed = ["a smooth loss"]
        if self.map.rule.states:
            assumed.append("the map's auxiliary state on its slow manifold (flow.slow_state(w))")
        if self.of_epochs:
            small += f", and {epoch(self.map)} lr, an epoch's, against 1/sharpness"
            assumed.append("whole epochs, in the mean over the orders of the samples")
        if not self.moved.smooth:
            assumed.append("no sign changes on the way (signs are differentiated as constants)")
        return "\n".join(
            [
                f"Modified flow of order {self.order} of {self.map.rule}",
                *(in_latex(self) if latex else in_text(self)),
                f"state: w; clock: t = lr k; noise: {'its mean' if self.noisy else 'left out'}; bias corrections: over",
                f"assumes: {', '.join(assumed)}",
                f"order: error against the map O(lr^{self.order}) at fixed t",
                f"valid: small {small}: the last correction against the velocity, small{self._here(w)}",
                f"reference: {self.reference}",
            ]
        )
