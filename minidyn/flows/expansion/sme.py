"""Stochastic modified equations: the SDE that a noisy map follows weakly, to order 1 or 2.

One step of the map moves its whole state `z = (theta, m, v, ...)` by a small amount with mean `M(z)` and
covariance `C(z)`. Matching the moments of a step to those of an Ito equation over the time of a step gives

    order 1    dz = M dk + C^1/2 dW              order 2    dz = (M - M' M / 2) dk + C^1/2 dW

For SGD these are `dw = -grad L dt + (lr Sigma)^1/2 dW` and the same with `L + lr |grad L|^2 / 4`. With
`f_g`, `f_gg` the step's answers to the noise in the gradient, and `q = diag Sigma`,

    M = f + q f_gg / 2        C = f_g f_g Sigma + f_gg f_gg Sigma o Sigma / 2

which holds for Gaussian noise where a step is at most quadratic in it, to leading order in its smallness
elsewhere: an accumulator `v` of squared gradients feels the noise, and the noise squared.
Source: Li, Tai, E (2017, 2019); for adaptive rules Malladi, Lyu, Panigrahi, Arora (2022).
"""

from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import FlowError, said
from minidyn.common.intake import one_of
from minidyn.common.locks import cached_property, derived
from minidyn.common.status import Status
from minidyn.compiler import compiled
from minidyn.flows.base import Flow, stay
from minidyn.flows.expansion.epochs import FORCE, add_force, place_of_rate
from minidyn.flows.expansion.formulas import equation, equation_in_latex
from minidyn.flows.expansion.modified import ModifiedFlow
from minidyn.flows.expansion.stepnoise import add_gaussian, add_skewed
from minidyn.flows.expansion.steps import add_lean, add_skew, add_steps, all_at_rest
from minidyn.flows.expansion.written import add_written, can_be_written
from minidyn.flows.look import GREY
from minidyn.kernels import Source
from minidyn.kernels.linalg import jit
from minidyn.maps.discrete import Map
from minidyn.maps.rule_symbols import G
from minidyn.maps.rules import displacement


class At(IntEnum):
    """Where what stands among the numbers `fp` of the compiled functions."""

    ORDER = 0
    STATES = 1  # how many the rule has
    COUPLES = 2
    SQUARED_FROM = 3  # the column of the first normal that drives the noise squared
    SQUARES = 4
    NORMALS = 5  # Gaussian ones that the map draws
    SKEWED = 6
    EPOCH = 7  # of reshuffled batches the factor of lr^2 c in the drift per step; else 0
    RATE = 8  # the place of lr among the hyperparameters, -1 without


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    """Drift per step and noise factor per square root of a step; a status code."""
    grad, hvp, sigma, noise_factor, noise_q, noise_dq, steps, noise_moments, steps_skew, epoch_force = fns
    states = np.int64(fp[At.STATES])
    dim = w.shape[0] // (1 + states)
    width = 3 + states
    theta = w[0:dim].copy()
    g, q = np.empty(dim), np.empty(dim)
    x = np.empty(width)
    R = np.empty(1 + states)
    kk = np.empty(1)
    kk[0] = k
    J = np.empty((dim, (1 + states) * width))
    gain = np.empty((dim, 1 + states))
    curve = np.empty((dim, 1 + states))
    moments = np.empty((2, dim, dim))
    skew = np.zeros(1 + states)
    skewed = fp[At.SKEWED] != 0.0
    if skewed:
        noise_moments(theta, c, d, nz, moments[0], moments[1])
    grad(theta, c, d, g)
    noise_q(theta, c, d, nz, q)
    for i in range(dim):
        x[0], x[1], x[2] = theta[i], g[i], q[i]
        for a in range(states):
            x[3 + a] = w[(1 + a) * dim + i]
        steps(x, hp, kk, R, J[i], gain[i], curve[i])
        if skewed:
            steps_skew(x, hp, kk, skew)
        for a in range(1 + states):
            b[a * dim + i] = R[a] + skew[a] * moments[0, i, i] if skewed else R[a]
            if not abs(R[a] + gain[i, a] + curve[i, a]) < np.inf:
                return Status.SINGULAR
    for i in range(f.shape[0]):
        for r in range(f.shape[1]):
            f[i, r] = 0.0
    here = theta, c, d, nz
    squared_from = np.int64(fp[At.SQUARED_FROM])
    if skewed:
        add_skewed(sigma, here, (moments[0], moments[1]), gain, curve, squared_from, f)
    else:
        drawn = fp[At.COUPLES] != 0.0, np.int64(fp[At.NORMALS])
        add_gaussian(sigma, noise_factor, here, drawn, (fp[At.SQUARES] != 0.0, squared_from), gain, curve, f)
    if fp[At.ORDER] > 1.0:
        u = b.copy()
        along = u[0:dim].copy()
        bent = np.empty(dim)
        grown = np.empty(dim)
        hvp(theta, along, c, d, bent)
        noise_dq(theta, along, c, d, nz, grown)
        for i in range(dim):
            for a in range(1 + states):
                turn = J[i, a * width] * u[i] + J[i, a * width + 1] * bent[i] + J[i, a * width + 2] * grown[i]
                for s in range(states):
                    turn += J[i, a * width + 3 + s] * u[(1 + s) * dim + i]
                b[a * dim + i] -= 0.5 * turn
                if not abs(turn) < np.inf:
                    return Status.SINGULAR
        add_lean(epoch_force, theta, hp, c, d, (fp[At.EPOCH], np.int64(fp[At.RATE])), b)
    return 0


def _written(fns, w, k, hp, c, d, nz, fp, b, f):
    """`_field` where the equation is written out."""
    (written_field,) = fns
    return written_field(w, k, hp, c, d, nz, b, f)


@jit
def _at_rest(fns, w, hp, c, d, nz, fp, z):
    """z = (w, the states whose mean displacement vanishes at w); a status code."""
    grad, _, _, _, noise_q, _, steps, _, _, _ = fns
    dim = w.shape[0]
    states = np.int64(fp[At.STATES])
    g = np.empty(dim)
    q = np.empty(dim)
    X = np.empty((dim, 3 + states))
    R = np.empty((dim, 1 + states))
    J = np.empty((dim, (1 + states) * (3 + states)))
    grad(w, c, d, g)
    noise_q(w, c, d, nz, q)
    code = all_at_rest(steps, w, g, q, 1.0, hp, X, R, J)
    for i in range(dim):
        z[i] = w[i]
        for a in range(states):
            z[(1 + a) * dim + i] = X[i, 3 + a]
    return code


class StochasticModifiedFlow(Flow):
    """`dz = M dt + C^1/2 dW` (order 1), with `M - M' M / 2` in place of `M` (order 2), for the map's whole state.

    Parameters
    ----------
    system : the map, with a rule that is smooth in the gradient and any noise that has a covariance; reshuffled
        batches with gradient descent, at whole epochs: their noise adds up to nothing, or to what a smaller last batch
        leaves of it, and order 2 has its mean effect, as `ModifiedFlow` has.
    order : 1 or 2: at a fixed time `|E phi(theta_k) - E phi(flow)| = O(h^order)` for smooth `phi`, where `h` is
        the size of a step: `lr` for SGD; with a memory, `lr` and `1 - beta` together (`lr` of order `(1 - beta)^2`
        for momentum in PyTorch's convention, of order `1 - beta` for RMSProp and Adam).

    The state is `z = (theta, m, v, ...)`, of `size` numbers; `drift` and `diffusion` are per unit of `t = lr k`
    (Ito). A start that is theta alone has its states where the map has them: zero, or where they rest on average
    for rules with bias corrections, which are over. Gaussian noise is the map's own (`couples`).

    `simulate` takes one Euler-Maruyama step per step of the map by default, which is of weak order 1 in lr itself: the
    equation of order 2 shows its order with a scheme of weak order 2, or with smaller steps.

    Raises FlowError for maps without noise, without a covariance, or with a `sign` or another kink in the rule.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> sgd = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), md.GaussianNoise(2 + x))
    >>> flow = md.StochasticModifiedFlow(sgd, order=2)
    >>> flow.drift([1.0]), (flow.diffusion([1.0]) ** 2).round(6)
    (array([-1.05]), array([[0.9]]))
    """

    _offers = "order"
    key, driven = "sme", True
    look = GREY
    orders = (1, 2)
    reference: ClassVar[str] = "Li, Tai, E (2017, 2019); Malladi, Lyu, Panigrahi, Arora (2022)"
    field: ClassVar[Any] = staticmethod(_field)
    reach: ClassVar[int] = 1  # it holds the fast motion of the map, which a longer step would not resolve
    reasons: ClassVar[dict[int, str]] = {
        Status.SINGULAR: (
            "the step is not smooth here: an accumulator is zero, or has become negative, where the rule divides "
            "by its size; start with a positive one, take a smaller step, or give the rule an eps."
        )
    }

    def __init__(self, system: Map, order: int = 1):
        super().__init__(system)
        if system.bound.silent:
            raise FlowError(
                f"a stochastic modified equation needs noise, and this map has none: use {said('md.ModifiedFlow')}."
            )
        self.order = one_of(order, "the order of a stochastic modified equation", self.orders)
        self.moved = displacement(system.rule)
        if not self.moved.smooth:
            raise FlowError(
                f"{system.rule.name} is not smooth in the gradient: its step has no expansion in the noise; "
                f"near the minima {said('md.QuasistaticFlow')} averages signs over the noise."
            )
        self.mean = ModifiedFlow(system) if system.bound.shuffles else None
        if self.mean is not None:
            self._check_epochs()
        self.source  # noqa: B018 - refuse noises without a covariance right away

    def _check_epochs(self) -> None:
        """Refuse what an epoch of reshuffled batches does not add up to a step's noise for."""
        system = self.map
        if system.rule.states:
            raise FlowError(
                f"{system.rule.name} remembers within an epoch of reshuffled batches what cancels at its end, so its "
                f"state has no equation with noise; {said('md.ModifiedFlow')} is the mean."
            )
        if system.bound.labels and (system.loss.n_samples or 1) % system.bound.batch:
            raise FlowError(
                f"{system.noise} has a last batch of its own size, and label noise depends on it; choose batches of a "
                f"size that divides the {system.loss.n_samples} samples."
            )

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The last one is called for reshuffled batches only."""
        noise = "sigma", "noise_factor", "noise_q", "noise_dq", "steps", "noise_moments", "steps_skew"
        return "grad", "hvp", *noise, FORCE if self.mean is not None else "grad"

    @property
    def name(self) -> str:  # type: ignore[override]
        """What tables and figures call it."""
        return f"stochastic modified equation, order {self.order}"

    @property
    def size(self) -> int:
        """The length of the map's whole state, `D (1 + number of auxiliary states)`."""
        return self.map.components

    @derived
    def squares(self) -> bool:
        """Whether a step feels the square of the noise, as an accumulator does."""
        return any(sp.diff(e, G, 2) != 0 for e in self.moved.moved)

    @property
    def skewed(self) -> bool:
        """Whether the third and fourth moments of the noise enter, which are not those of Gaussian noise."""
        return self.order == 2 and self.squares and not self.map.bound.gaussian

    @property
    def couples(self) -> bool:
        """Whether all noise is Gaussian: then the map's own normals drive the flow."""
        return self.map.bound.couples

    @property
    def _chosen(self) -> tuple[Any, ...]:
        return (self.order,)

    @derived
    def source(self) -> Source:
        """The covariance of the noise, `steps`, and where the flow is `skewed` what third and fourth moments do.

        `written_field` beside them where the equation can be written out. FlowError for noise without a covariance.
        """
        src = Source(f"stochastic modified equation of {self.map.rule.name} on {self.map.loss}")
        bound = self.map.bound
        bound.add_covariance(src, of_epochs=True)
        if self.mean is not None:
            add_force(src, self.map)
        add_steps(src, self.moved)
        bound.add_moments(src, self.skewed)
        if self.skewed:
            add_skew(src, self.moved)
        else:
            src.add("steps_skew", "x, hp, kk, out", ["pass"])
        if can_be_written(self.map, self.squares):
            add_written(src, self.map, self.moved, self.order, self._first if self.squares else None)
        return src

    @cached_property
    def inlined(self) -> tuple[Any, Any, tuple[Any, ...]] | None:
        """The equation written out, where that is short."""
        if not can_be_written(self.map, self.squares):
            return None
        return compiled(_written), compiled(stay), (self.kernels.written_field,)

    @property
    def _first(self) -> int:
        """The row of the first normal that drives the noise squared."""
        return self.map.bound.rows if self.couples else self.dim + self.dim % 2

    @property
    def columns(self) -> int:  # type: ignore[override]
        """Columns of the noise factor."""
        return self._first + self.dim if self.squares else self.draws[0]

    @property
    def draws(self) -> tuple[int, int, int]:
        """The noise squared has a stream beside the map's, so that the map's own normals stay the same."""
        plain = self.map.bound.gaussian_rows if self.couples else self.dim
        return plain, self._first, self.dim if self.squares else 0

    def stochastic(self, w0: Floats) -> bool:
        """Always, though the noise may vanish at some points, but where reshuffled batches alone cancel in an epoch."""
        bound = self.map.bound
        return not bound.shuffles or bound.kappa > 0.0 or len(bound.noise.parts) > 1

    def numbers(self, w0: Floats) -> Floats:
        """Those of `At`, whatever the starting points."""
        known = {
            At.ORDER: self.order,
            At.STATES: len(self.map.rule.states),
            At.COUPLES: self.couples,
            At.SQUARED_FROM: self._first,
            At.SQUARES: self.squares,
            At.NORMALS: self.map.bound.gaussian_rows,
            At.SKEWED: self.skewed,
            At.EPOCH: 0.0 if self.mean is None else -self.mean.force,
            At.RATE: place_of_rate(self.map.rule),
        }
        return np.array([float(known[at]) for at in At])

    def start(self, w0: ArrayLike) -> Floats:
        """The whole state (..., size): `w0` itself where it is one; else theta with the states of a map's start."""
        points = self.map.state(w0, "w0")
        if points.shape[-1] == self.size != self.dim:
            return points
        points = points[..., : self.dim]
        if not self.map.rule.uses_step:
            return self.map.initial_state(points)
        flat = np.ascontiguousarray(points.reshape(-1, self.dim))
        out, m = np.empty((len(flat), self.size)), self.map
        fns, numbers = self.pointers[2], self.numbers(flat)
        for point, z in zip(flat, out, strict=True):
            code = _at_rest(fns, point, m.hyper_at(self.first_step), m.loss.c, m.loss.rows, m.bound.numbers, numbers, z)
            if code:
                raise self._refused(point, code)
        return out.reshape(*points.shape[:-1], self.size)

    # -- in words --
    def validity(self, w: ArrayLike) -> float:
        """What must be small at a state (or point) w: the norm of `M' M / 2` over that of `M`, both per step."""
        z = self._started(w)
        numbers = np.array([self.numbers(z[None])] * 2)
        numbers[:, At.ORDER] = 1.0, 2.0
        first, second = (self.evaluate(z[None], float(self.first_moving), own)[0] for own in numbers)
        size = float(np.linalg.norm(first))
        return float(np.linalg.norm(second - first)) / size if size > 0.0 else 0.0

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """See `Flow.describe`.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> rms = md.Map(md.Loss(x**2 / 2, [x]), md.RMSProp(0.1), md.GaussianNoise(1.0))
        >>> print(md.StochasticModifiedFlow(rms).describe().splitlines()[0])
        Stochastic modified equation of order 1 of
        """
        hyper = self.map.rule.hyper
        small = [f"lr = {hyper.get('lr', 1)}"]
        small += [f"1 - {h} = {sp.sympify(1 - v).evalf(3)}" for h, v in hyper.items() if h.startswith(("beta", "mom"))]
        names = self.map.rule.called
        assumed = ["smooth loss and noise"] + ["bias corrections over"] * self.map.rule.uses_step
        if self.mean is not None:
            assumed.append("whole epochs, Sigma what is left of the noise after one, per step")
        if self.squares and not self.skewed:
            assumed.append("third and fourth moments of the noise as those of a Gaussian")
        return "\n".join(
            [
                f"Stochastic modified equation of order {self.order} of {self.map.rule} with {self.map.noise}",
                *(equation_in_latex(self) if latex else equation(self)),
                f"state: ({', '.join(names)}); clock: t = lr k (Ito)",
                f"assumes: {', '.join(assumed)}",
                f"order: weak error against the map O(h^{self.order}) at fixed t, h the size of a step",
                f"valid: small {', '.join(small)}: the term of second order against the drift, small{self._here(w)}",
                f"reference: {self.reference}",
            ]
        )
