"""Quasistatic flow: the slow motion along the manifold of minima, for any update rule.

Freeze the position on the manifold `M`, let the fast oscillation across it reach its stationary
covariance `W`, average the map over it. Per step, at a fixed point `z*` of the averaged map `F`,

    Q = B [Sigma + N(W_SS)] B^T               N(W) = D^2 Sigma[W] / 2, what the oscillation itself meets
    W_SS = A W_SS A^T + Pi_S Q Pi_S^T         W_SN = (I - A)_S^-1 Pi_S Q Pi^T
    drift      Pi F2[W_SS + W_SN + W_SN^T] / 2 + (I - A)_S^-1 Pi_S F2[Pi Q Pi^T] / 2 + Pi p
    covariance Pi Q Pi^T

with `A = dF/dz`, `Pi` its spectral projector on the eigenvalue 1, `Pi_S = I - Pi`, `p` the weak forces that move the
fixed points off `M`.
It exists where the spectral radii of A and of the second-moment operator (`minima.stability`) are below 1 across M.
Source: Ma, Kunin, Ying (2022); Katzenberger (1991); Li, Wang, Arora (2022); Li, Wen, Lyu (2025).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import FlowError, InputError, ManifoldError, said
from minidyn.common.intake import one_of
from minidyn.common.locks import cached_property, derived
from minidyn.common.status import Status
from minidyn.compiler import jit
from minidyn.flows.base import Flow
from minidyn.flows.look import ORANGE
from minidyn.flows.slow.descriptions import describe_quasistatic, no_motion
from minidyn.flows.slow.kinks import kink
from minidyn.flows.slow.oscillation import across, noise_columns, stationary
from minidyn.flows.slow.validity import validity
from minidyn.kernels import Source
from minidyn.kernels.linalg import identity_minus, multiply, multiply_transposed
from minidyn.maps.averagedmap import AveragedMap, facts
from minidyn.maps.discrete import Map
from minidyn.maps.linearization import NEEDS, Fact, bent, second_derivative, system_of
from minidyn.minima.manifold import Manifold

if TYPE_CHECKING:
    from minidyn.flows.slow.closed import ClosedFormFlow

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_FAR = 0.1


def _some(points: Floats, count: int) -> Floats:
    """At most so many different ones of these points, spread evenly over them."""
    if len(points) < 2:
        return points
    chosen = np.linspace(0, len(points) - 1, min(count, len(points))).astype(int)
    return np.unique(points[chosen], axis=0)


@jit
def too_far(points, given):
    """The first of the points (N, D) of `M` that lies far from where it was started from; -1 where none does."""
    for n in range(points.shape[0]):
        apart, size = 0.0, 0.0
        for i in range(points.shape[1]):
            apart += (points[n, i] - given[n, i]) ** 2
            size += points[n, i] ** 2
        if math.sqrt(apart) > _FAR * (1.0 + math.sqrt(size)):
            return n
    return -1


def _retract(fns, w, hp, c, d, nz, fp):
    dim = w.shape[0]
    room = np.empty((2, dim, dim))
    code, _ = across(system_of(fns, 1.0, hp, c, d, nz, fp), w, np.empty(dim), room[0], room[1])
    return code


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    """Drift per step and noise factor per square root of a step; a status code."""
    system = system_of(fns, k, hp, c, d, nz, fp)
    dim = w.shape[0]
    states, tangent = np.int64(fp[Fact.STATES]), np.int64(fp[Fact.TANGENT])
    size, width = (1 + states) * dim, 3 + states
    point = w.copy()
    room, wide = np.empty((2, dim, dim)), np.empty((6, size, size))
    X, J = np.empty((dim, width)), np.empty((dim, (1 + states) * width))
    K = np.empty((dim, (1 + states) * width * width))
    weak, gain = np.zeros(size), np.zeros((dim, 1 + states))
    right, left = np.empty((size, tangent)), np.empty((tangent, size))
    jets, Q, P, inverse, W, half, noise = (room[0], room[1], J, K), wide[0], wide[1], wide[2], wide[3], wide[4], wide[5]
    code = stationary(system, point, X, (room[0], room[1], J, weak, gain), (Q, P, right, left, inverse), W)
    if code != Status.FINISHED:
        return code
    bent(system, X, K)
    bend, curve = np.empty(size), np.empty(size)
    second_derivative(system, point, jets, W, bend)
    multiply(P, Q, half)
    multiply_transposed(half, P, noise)
    second_derivative(system, point, jets, noise, curve)
    identity_minus(P, noise)
    multiply(inverse, noise, half)
    for i in range(dim):
        b[i] = 0.0
        for j in range(size):
            b[i] += P[i, j] * (0.5 * bend[j] + weak[j]) + 0.5 * half[i, j] * curve[j]
    noise_columns(system, point, right, left, gain, Q, f)
    return code


class QuasistaticFlow(Flow):
    """The slow SDE (or ODE) along the manifold of minima that a noisy map follows.

    Parameters
    ----------
    system : the map; it needs noise with a covariance.
    manifold : a `Manifold` of the same loss; made from the loss if not given.
    accumulators : "self-consistent" (an accumulator such as Adam's `v` answers to the oscillation, around the mean that
        the oscillation itself adds to: `v* = diag(Sigma + N + H W H)`, right at finite lr), "full" (the same around
        `diag Sigma`, off by the order of lr times the preconditioned curvature), or "frozen" (held at `diag Sigma`; the
        published slow SDE of Adam).

    The state is `w` on `M`; `drift` and `diffusion` are per unit of `t = lr k`.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.01), md.GaussianNoise(0.3))
    >>> md.QuasistaticFlow(sgd).drift([1.0, 0.0]).round(8)
    array([-0.00022727,  0.        ])
    """

    _offers = "manifold accumulators closed_form"
    key, driven = "quasistatic", True
    look = ORANGE
    slow = True
    charted = True
    name: ClassVar[str] = "quasistatic flow"
    reference: ClassVar[str] = (
        "Ma, Kunin, Ying (2022); Katzenberger (1991); Li, Wang, Arora (2022); Li, Wen, Lyu (2025)"
    )

    reads = "projected"
    needs: ClassVar[tuple[str, ...]] = NEEDS
    field: ClassVar[Any] = staticmethod(_field)
    retract: ClassVar[Any] = staticmethod(_retract)
    in_chart: ClassVar[type[ClosedFormFlow]]  # the class of its closed forms, which `closed` sets

    def __init__(self, system: Map, manifold: Manifold | None = None, accumulators: str = "self-consistent"):
        super().__init__(system)
        accumulators = one_of(accumulators, "accumulators", ("full", "frozen", "self-consistent"))
        if system.bound.silent:
            raise FlowError(
                f"the quasistatic flow is driven by noise, and this map has none; use {said('md.ModifiedFlow')}."
            )
        self._check_minima(manifold)
        self.accumulators = accumulators
        self.averaged = AveragedMap(system, accumulators)
        self.manifold = manifold or Manifold(system.loss)
        self.source  # noqa: B018 - refuse rules and noises that cannot be averaged right away

    @property
    def label(self) -> str:
        """Its name, and its accumulators where they are not the self-consistent ones."""
        return self.name + (f" ({self.accumulators})" if self.accumulators != "self-consistent" else "")

    @property
    def _chosen(self) -> tuple[Any, ...]:
        return (self.accumulators,)

    @derived
    def source(self) -> Source:
        """The kernels of the averaged map; FlowError where the noise has no covariance per step."""
        src = Source(f"quasistatic flow of {self.map.rule.name} on {self.map.loss}")
        self.averaged.add_kernels(src)
        return src

    @cached_property
    def columns(self) -> int:  # type: ignore[override]
        """Columns of the noise factor."""
        return self.map.bound.gaussian_rows if self.couples else self.dim

    @cached_property
    def couples(self) -> bool:
        """Whether the map's own normals drive the flow: as many of them, at least, as noise may have directions along M
        once the oscillation adds its part."""
        bound = self.map.bound
        enough = not bound.varies or bound.gaussian_rows >= self.dim
        return bound.couples and enough and self.averaged.rule.sign_gain is None and not self.averaged.rule.wide

    @property
    def rate_power(self) -> float | None:
        """Two: the drift comes from the square of the noise."""
        return 2.0 if self.map.rule.rests else None

    # -- starting points ------------------------------------------------------------------------
    def start(self, w0: ArrayLike) -> Floats:
        """The limit of the gradient flow from `w0`; refuses starts that are far from `M`."""
        given = self.theta(w0)
        points = self.manifold.project(given)
        flat, before = points.reshape(-1, self.dim), given.reshape(-1, self.dim)
        first = too_far(flat, np.ascontiguousarray(before))
        if first >= 0:
            distance = np.linalg.norm(flat[first] - before[first])
            raise ManifoldError(
                f"w0 lies {distance:.3g} away from the manifold of minima, too far for a flow that lives on it; "
                f"start near it, for example at {said('manifold.project(w0)')} = {np.round(flat[first], 4).tolist()}."
            )
        return points

    def numbers(self, w0: Floats) -> Floats:
        """The dimension of `M` at the starting points, and the scale that decides ranks there."""
        points = w0.reshape(-1, self.dim)
        self.check_points(points)
        if self.averaged.rule.remembers:
            self._refuse_skew(
                w0,
                "is not known where squares of what is remembered are accumulated; use a batch of "
                f"half the samples, or follow the map itself with {said('md.simulate')}",
            )
        dims = self.manifold.dimensions(_some(points, 64))
        if len(dims) > 1:
            raise ManifoldError(f"the starting points lie on manifolds of different dimensions ({sorted(dims)}).")
        (dimension,) = dims
        if dimension == 0:
            self.manifold.check_critical(points[0])
            raise ManifoldError(
                "the minimum is isolated (the Hessian has full rank): there is no manifold to move along; "
                f"{said('md.StochasticModifiedFlow')} describes the noise around it."
            )
        out = self._facts.copy()
        out[Fact.TANGENT] = dimension
        return out

    @cached_property
    def _facts(self) -> Floats:
        """`numbers` but for the dimension of `M`."""
        return facts(self.map, self.accumulators, self.couples, 0, self.manifold.gap)

    def check_points(self, points: Floats) -> None:
        """Refuse minima (N, D) in a kink of the loss, and a first one that batches leave alone but drive away from."""
        for w in _some(points, 16):
            jump = kink(self.loss, w)
            if jump is not None:
                raise FlowError(
                    f"the minima lie in a kink of the loss at w = {np.round(w, 6)}: {jump}. The oscillation is that of "
                    "neither side nor of their mean, so there is no quasistatic flow: follow the map itself with "
                    f"{said('md.simulate')}, or smooth the kink."
                )
        if self.map.bound.kappa > 0 and self.loss.criterion != "squared":
            w = points[0]
            curvature = float(np.linalg.norm(self.loss.hessian(w), 2))
            if self.map.bound.leaves(w, self.manifold.tangent(w), curvature):
                raise FlowError(
                    f"w = {np.round(w, 6)} is unstable along the minima for {self.map.rule} with {self.map.noise}: "
                    "every sample rests there, but not beside it, so batches make any displacement along the minima "
                    "grow; start beside it."
                )

    def _refuse_skew(self, w0: Floats, what: str) -> None:
        """FlowError where skewed noise makes a force that is not in the flow."""
        if self.averaged.feels_skew and any(self.map.bound.skewed(w) for w in _some(w0.reshape(-1, self.dim), 16)):
            raise FlowError(
                f"the noise of {self.map.noise} is skewed here, and {self.map.rule.name} turns that into a "
                f"force along the manifold that {what}."
            )

    def stochastic(self, w0: Floats) -> bool:
        """Whether noise has a component along `M`, here or beside: label noise on interpolating minima has none."""
        return self.has_noise(w0, self.numbers(w0))

    def has_noise(self, w0: Floats, numbers: Floats) -> bool:
        """`stochastic`, by these `numbers`."""
        starts = _some(w0.reshape(-1, self.dim), 16)
        if any(self._drives(w, numbers) for w in starts):
            return True
        bound = self.map.bound  # noise of labels and batches is zero along M as a whole, or nowhere
        return bool(bound.varies and bound.additive) and any(
            self._drives(w, numbers) for s in starts for w in self._beside(s)
        )

    def _drives(self, w: Floats, numbers: Floats) -> bool:
        return bool(np.count_nonzero(np.abs(self.evaluate(w[None], self.first_moving, numbers)[1]) > 0.0))

    def _beside(self, w: Floats) -> Iterator[Floats]:
        """Points of `M` near w, on both sides in every direction where M goes on: noise may vanish at w alone."""
        size = 1e-3 * (1.0 + np.linalg.norm(w))
        for t in self.manifold.tangent(w).T:
            for far in (size, -size):
                with contextlib.suppress(FlowError, ManifoldError):  # no flow there, and no noise of one
                    point = self.manifold.project(w + far * t)
                    if self.manifold.dimensions(point[None]) == self.manifold.dimensions(w[None]):
                        self.evaluate(point[None], self.first_moving, self.numbers(point))
                        yield point

    def explain(self, code: int) -> str:
        """A status in words: why there is no slow motion along the minima at a point, and what to try."""
        return no_motion(self, code) or super().explain(code)

    # -- in the coordinates of a chart ---------------------------------------------------------------
    def closed_form(self) -> ClosedFormFlow:
        """This flow in the coordinates of the manifold's chart, derived in symbols: a flow of its own.

        Raises FlowError where the manifold has no chart or the rule no closed form.
        """
        return self.in_chart(self.map, self.manifold, self.accumulators)

    def _in_the_chart(self, latex: bool) -> list[str]:
        """The closed form's description, or why there is none, where the manifold has a chart."""
        if self.manifold.chart is None:
            return []
        try:
            return ["", self.closed_form()._describe(latex)]
        except (FlowError, InputError) as error:
            return ["", f"no closed form in the chart: {error}"]

    # -- in words -------------------------------------------------------------------------------
    def validity(self, w: ArrayLike) -> float:
        """How far the oscillation bends the Hessian at a point w of M, against the smallest curvature across it.

        `(sum_r |T[s_r]|^2)^(1/2) / lambda_min`, spectral norms, with the oscillation's covariance across M in columns,
        `P_N W P_N = sum_r s_r s_r^T`. It grows with the noise, and where a curvature across M becomes small: there the
        oscillation settles no faster than the flow moves on. Where weight decay p, skewed noise or another weak force
        acts, the larger of that and `|(I - A)_S^-1 p| / (tr P_N W P_N)^(1/2)`, the shift off M against the oscillation,
        which alone is averaged over. With accumulators it is at least the share of them that one step replaces,
        1 - beta2, times the steps over which what they square stays alike: so much is the relative variance of v, and
        by so much averages err. It is multiplied by A^2 where A > 1: where the oscillation, which self-consistent ones
        see, answers A times as much as 1/sqrt(v) to what they miss. Nor is it less than the factor (root mean square,
        in the metric of the rule's step) by which the noise of one step multiplies a displacement along M.
        Raises as `start` does, and where there is no flow.

        >>> import sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.01), md.GaussianNoise(0.3))
        >>> round(md.QuasistaticFlow(sgd).validity([1.0, 0.0]), 6)  # |h'| sqrt(W) / h,  W = lr sigma^2 / (h (2 - lr h))
        0.015076
        """
        return validity(self, np.ascontiguousarray(self.start(self._point(w))))

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """Equations, state, clock, assumptions, order, validity (its value at `w` if given) and reference.

        >>> import sympy as sp, minidyn as md
        >>> a, b = sp.symbols("a b")
        >>> loss = md.Loss.regression(a * b, [a, b], inputs={}, target=[1.0])
        >>> print(md.QuasistaticFlow(md.Map(loss, md.Adam(0.01), md.LabelNoise(0.1))).describe())  # doctest: +ELLIPSIS
        Quasistatic flow of Adam(...
        """
        return describe_quasistatic(self, latex, self._here(w))
