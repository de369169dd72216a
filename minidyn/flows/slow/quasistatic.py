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
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from minidyn.common.errors import FlowError, InputError, ManifoldError
from minidyn.common.intake import one_of
from minidyn.common.locks import cached_property
from minidyn.flows.base import Flow
from minidyn.flows.look import ORANGE
from minidyn.flows.slow.kinks import kink
from minidyn.flows.slow.oscillation import across, noise_columns, spread, stationary
from minidyn.kernels import Source
from minidyn.kernels.linalg import identity_minus, multiply, multiply_transposed
from minidyn.maps import letters
from minidyn.maps.averaging import NODES
from minidyn.maps.discrete import Map
from minidyn.maps.letters import THETA, G
from minidyn.maps.linearization import NEEDS, AveragedMap, flags, second_derivative
from minidyn.minima.manifold import Manifold

if TYPE_CHECKING:
    from minidyn.flows.slow.closed import ClosedFormFlow

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

Floats = NDArray[np.float64]
_FAR = 0.1
BENT = "the oscillation's change of the Hessian, against its smallest curvature across the manifold"
FORGOTTEN = "the share of an accumulator that one step replaces, as the oscillation answers to it"
TOSS = "the factor by which the noise of one step multiplies a displacement along the manifold"
SHIFT = "how far that force shifts the minima, against the oscillation"


def _some(points: Floats, count: int) -> Floats:
    """At most so many different ones of these points, spread evenly over them."""
    chosen = np.linspace(0, len(points) - 1, min(count, len(points))).astype(int)
    return np.unique(points[chosen], axis=0)


def _retract(fns, w, hp, c, d, nz, fp):
    dim = w.shape[0]
    room = np.empty((2, dim, dim))
    code, _ = across(fns, w, c, d, fp, np.empty(dim), room[0], room[1])
    return code


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    """Drift per step and noise factor per square root of a step; a status code."""
    noise_factor = fns[4]
    dim = w.shape[0]
    states = np.int64(fp[2])
    size = (1 + states) * dim
    width = 3 + states
    tangent = np.int64(fp[0])
    point = w.copy()
    H = np.empty((dim, dim))
    dq = np.empty((dim, dim))
    J = np.empty((dim, (1 + states) * width))
    K = np.empty((dim, (1 + states) * width * width))
    gain = np.zeros((dim, 1 + states))
    weak = np.zeros(size)
    Q = np.empty((size, size))
    P = np.empty((size, size))
    right = np.empty((size, tangent))
    left = np.empty((tangent, size))
    inverse = np.empty((size, size))
    W = np.empty((size, size))
    code = stationary(fns, point, k, hp, c, d, nz, fp, H, dq, J, K, weak, gain, Q, P, right, left, inverse, W)
    if code != 0:
        return code
    half = np.empty((size, size))
    noise = np.empty((size, size))
    bend = np.empty(size)
    curve = np.empty(size)
    second_derivative(fns, point, c, d, nz, fp, H, dq, J, K, W, bend)
    multiply(P, Q, half)
    multiply_transposed(half, P, noise)
    second_derivative(fns, point, c, d, nz, fp, H, dq, J, K, noise, curve)
    identity_minus(P, noise)
    multiply(inverse, noise, half)
    for i in range(dim):
        b[i] = 0.0
        for j in range(size):
            b[i] += P[i, j] * (0.5 * bend[j] + weak[j]) + 0.5 * half[i, j] * curve[j]
    noise_columns(noise_factor, fp[6] != 0.0, fp[3] != 0.0, point, c, d, nz, right, left, gain, Q, f)
    return 0


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

    def __init__(self, system: Map, manifold: Manifold | None = None, accumulators: str = "self-consistent"):
        super().__init__(system)
        accumulators = one_of(accumulators, "accumulators", ("full", "frozen", "self-consistent"))
        if system.bound.silent:
            raise FlowError("the quasistatic flow is driven by noise, and this map has none; use md.ModifiedFlow.")
        self._check_minima(manifold)
        self.accumulators = accumulators
        self.averaged = AveragedMap(system, accumulators)
        self.manifold = manifold or Manifold(system.loss)
        self.source  # noqa: B018 - refuse rules and noises that cannot be averaged right away

    @property
    def label(self) -> str:
        """Its name, and its accumulators where they are not the self-consistent ones."""
        return self.name + (f" ({self.accumulators})" if self.accumulators != "self-consistent" else "")

    @cached_property
    def source(self) -> Source:
        """The kernels of the averaged map; FlowError where the noise has no covariance per step."""
        src = Source(f"quasistatic flow of {self.map.rule.name} on {self.map.loss}")
        self.averaged.add_kernels(src)
        return src

    @property
    def columns(self) -> int:  # type: ignore[override]
        """Columns of the noise factor."""
        return self.map.bound.gaussian_rows if self.couples else self.dim

    @property
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
        far = np.linalg.norm(points - given, axis=-1) > _FAR * (1 + np.linalg.norm(points, axis=-1))
        if np.any(far):
            first = tuple(np.argwhere(far)[0])
            distance = np.linalg.norm(points - given, axis=-1)[first]
            raise ManifoldError(
                f"w0 lies {distance:.3g} away from the manifold of minima, too far for a flow that lives on it; "
                f"start near it, for example at manifold.project(w0) = {np.round(points[first], 4).tolist()}."
            )
        return points

    def numbers(self, w0: Floats) -> Floats:
        """The dimension of `M` at the starting points, and the scale that decides ranks there."""
        self.check_points(w0.reshape(-1, self.dim))
        if self.averaged.rule.remembers:
            self._refuse_skew(w0, "is not known where squares of what is remembered are accumulated; use a batch of "
                              "half the samples, or follow the map itself with md.simulate")  # fmt: skip
        dims = self.manifold.dimensions(_some(w0.reshape(-1, self.dim), 64))
        if len(dims) > 1:
            raise ManifoldError(f"the starting points lie on manifolds of different dimensions ({sorted(dims)}).")
        (dimension,) = dims
        if dimension == 0:
            self.manifold.check_critical(w0.reshape(-1, self.dim)[0])
            raise ManifoldError(
                "the minimum is isolated (the Hessian has full rank): there is no manifold to move along; "
                "md.StochasticModifiedFlow describes the noise around it."
            )
        return np.array([float(dimension), self.manifold.gap, *flags(self.map, self.accumulators, self.couples)])

    def check_points(self, points: Floats) -> None:
        """Refuse minima (N, D) in a kink of the loss, and a first one that batches leave alone but drive away from."""
        for w in _some(points, 16):
            jump = kink(self.loss, w)
            if jump is not None:
                raise FlowError(
                    f"the minima lie in a kink of the loss at w = {np.round(w, 6)}: {jump}. The oscillation is that of "
                    "neither side nor of their mean, so there is no quasistatic flow: follow the map itself with "
                    "md.simulate, or smooth the kink."
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
            raise FlowError(f"the noise of {self.map.noise} is skewed here, and {self.map.rule.name} turns that into a "
                            f"force along the manifold that {what}.")  # fmt: skip

    def stochastic(self, w0: Floats) -> bool:
        """Whether noise has a component along `M`, here or beside: label noise on interpolating minima has none."""
        numbers, starts = self.numbers(w0), _some(w0.reshape(-1, self.dim), 16)
        if any(self._drives(w, numbers) for w in starts):
            return True
        bound = self.map.bound  # noise of labels and batches is zero along M as a whole, or nowhere
        return bool(bound.varies and bound.additive) and any(
            self._drives(w, numbers) for s in starts for w in self._beside(s)
        )

    def _drives(self, w: Floats, numbers: Floats) -> bool:
        return bool(np.abs(self.evaluate(w[None], self.first_moving, numbers)[1]).max() > 0.0)

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
        return {
            2: "the point is not on the manifold of minima; start from manifold.project(w).",
            3: (
                "the rank of the Hessian changes here, the manifold is singular; start elsewhere or stop before, or "
                "resolve smaller curvatures with Manifold(loss, gap=...)."
            ),
            5: (
                f"the minimum is unstable for {self.map.rule} (the linearized map has an eigenvalue outside the "
                "unit circle); lower lr or start where the loss is flatter."
            ),
            9: (
                f"the minimum is unstable for {self.map.rule} with {self.map.noise}: the noise that a small "
                "displacement makes drives its second moments up, although its mean would come to rest; lower lr, take "
                "larger batches or start where the loss is flatter (md.stability says how far)."
            ),
            10: (
                f"{self.map.rule} comes to no rest here, although there is noise: where the gradient vanishes its "
                "states have no resting values of their own with finite slopes; follow the map itself with md.simulate."
            ),
            11: (
                f"{self.map.rule} rests at more than the minima here: its linear part leaves more in place than the "
                "directions along them (a state that never forgets, or a step of zero); follow the map itself with "
                "md.simulate."
            ),
            6: self._silent(),
            18: (
                f"the oscillation of {self.map.rule} with {self.map.noise} has no stationary law here, although small "
                "displacements die out: how the noise curves with the displacement adds so much to it that its "
                "covariance, to second order, is not positive semidefinite; lower lr, make the noise smaller, or "
                "follow the map itself with md.simulate."
            ),
            19: (
                f"the noise is so much wider than the scale on which {self.map.rule.name} bends that {NODES} nodes do "
                "not average over it; make the noise smaller or that scale larger, or follow the map itself with "
                "md.simulate."
            ),
        }.get(code, super().explain(code))

    def _silent(self) -> str:
        """What code 6 means for this rule."""
        if self.averaged.rule.sign_gain is not None:
            return (
                "the noise vanishes in a coordinate here, and there nothing smooths the sign that "
                f"{self.map.rule.name} takes; add noise (GaussianNoise), or start where every coordinate has some."
            )
        eps = "give the rule an eps" if not self.map.rule.hyper.get("eps") else "take a larger eps"
        return (
            "the noise vanishes in a coordinate where the rule divides by its size; add noise there (GaussianNoise), "
            f"start where there is some, {eps}, or use a rule without accumulators."
        )

    # -- in the coordinates of a chart ---------------------------------------------------------------
    def closed_form(self) -> ClosedFormFlow:
        """This flow in the coordinates of the manifold's chart, derived in symbols: a flow of its own.

        Raises FlowError where the manifold has no chart or the rule no closed form.
        """
        from minidyn.flows.slow.closed import ClosedFormFlow

        return ClosedFormFlow(self.map, self.manifold, self.accumulators)

    def _in_the_chart(self, latex: bool) -> list[str]:
        """The closed form's description, or why there is none, where the manifold has a chart."""
        if self.manifold.chart is None:
            return []
        try:
            return ["", self.closed_form().describe(latex)]
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
        hear, answers A times as much as 1/sqrt(v) to what they miss. Nor is it less than the factor (root mean square,
        in the metric of the rule's step) by which the noise of one step multiplies a displacement along M.
        Raises as `start` does, and where there is no flow.

        >>> import sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.01), md.GaussianNoise(0.3))
        >>> round(md.QuasistaticFlow(sgd).validity([1.0, 0.0]), 6)  # |h'| sqrt(W) / h,  W = lr sigma^2 / (h (2 - lr h))
        0.015076
        """
        point, m = np.ascontiguousarray(self.start(self._point(w))), self.map
        code, W, shift, toss = self._spread(point, self.numbers(point[None]))
        if code:
            raise FlowError(f"{self.name} at w = {np.round(point, 6)}: {self.explain(code)}")
        N = self.manifold.normal(point)
        size, S = np.linalg.eigh(N.T @ W[: self.dim, : self.dim] @ N)
        columns = (N @ S * np.sqrt(np.maximum(size, 0.0))).T
        bent = sum(np.linalg.norm(self._bend(point, s), 2) ** 2 for s in columns)
        least = float(np.linalg.eigvalsh(N.T @ m.loss.hessian(point) @ N)[0])
        bends = max(self._forgotten, self._upset(point, W, N), float(np.sqrt(bent)) / least, toss)
        off = float(np.linalg.norm(shift[: self.dim]))
        # roundings of a rule without such a force are no shift
        if off <= 1e-12 * (1.0 + float(np.abs(point).max())):
            return bends
        return max(bends, off / float(np.sqrt(max(size.sum(), 0.0)))) if size.sum() > 0 else np.inf

    def _spread(self, point: Floats, numbers: Floats) -> tuple[int, Floats, Floats, float]:
        """What `spread` finds at a point of M, which it moves there: a status code, W, the shift, the factor."""
        m = self.map
        W, shift, toss = np.empty((m.components, m.components)), np.zeros(m.components), np.zeros(1)
        code = spread(self.pointers[2], point, 1.0, m.hyper_at(self.first_moving), m.loss.c, m.loss.rows,
                      m.bound.numbers, numbers, W, shift, toss)  # fmt: skip
        return code, W, shift, float(toss[0])

    def weak_force(self) -> list[str]:
        """What else must be small where the rule moves without a gradient, in words."""
        rule = self.averaged.rule
        still = dict.fromkeys([G, *rule.rule.letters], sp.S.Zero)
        force = sp.simplify((rule.outputs[0] if rule.curved[0] is None else rule.curved[0]).xreplace(still) - THETA)
        acts = [f"a weak force acts ({self.map.rule.show(force)} per step): {SHIFT}, small too"] if force != 0 else []
        skewed = f"skewed noise under accumulators is a weak force: {SHIFT}, small too"
        return acts + [skewed] * self.averaged.feels_skew

    @property
    def bounds(self) -> str:
        """What `validity` compares."""
        return BENT + f"; {FORGOTTEN}" * any(self.averaged.rule.accumulators) + f"; {TOSS}" * self.map.bound.varies

    @property
    def _forgotten(self) -> float:
        """How much of an accumulator one step replaces, at most: the share by which averages of 1/sqrt(v) are off."""
        rule, numbers = self.averaged.rule, dict(zip(map(letters.hyper, self.map.rule.hyper), self.map.hyper_at(
            self.first_moving), strict=False))  # fmt: skip
        kept = [sp.diff(e, s).subs(numbers) for e, s, a in
                zip(rule.outputs[1:], self.map.rule.letters, rule.accumulators, strict=True) if a]  # fmt: skip
        return rule.alike * max((1.0 - float(e) for e in kept if e.is_number), default=0.0)

    def _upset(self, point: Floats, W: Floats, N: Floats) -> float:
        """`share A^2`, A = 2 dlog tr W / dlog v: how the oscillation W across M, of normals N, answers if accumulators
        miss a share of what they hear; W itself changes what they hear."""
        if self.accumulators != "self-consistent" or self._forgotten == 0.0:
            return 0.0
        numbers = self.numbers(point[None])
        numbers[-1] = 1e-4
        code, other, _, _ = self._spread(point, numbers)
        before, after = (np.trace(N.T @ X[: self.dim, : self.dim] @ N) for X in (W, other))
        answer = 2.0 * abs(after - before) / (before * numbers[-1]) if before > 0 else 0.0
        return np.inf if code else float(self._forgotten * answer**2)

    @property
    def _heard(self) -> str:
        """What `q` stands for."""
        rule = self.averaged.rule
        if not rule.answers or self.accumulators != "self-consistent":
            return "diag Sigma"
        what = "accumulators see" if any(rule.accumulators) else "the curve sees"
        if rule.hears:
            return f"what {what} in all, in units of the noise: E of its square over all of W"
        return f"what {what} in all, diag(Sigma + D^2 Sigma[W]/2 + H W H)"

    def _bend(self, w: Floats, s: Floats) -> Floats:
        """`T[s]` (D, D), the derivative of the Hessian along s."""
        unit = np.eye(self.dim)
        return self.loss.third(np.broadcast_to(w, unit.shape), np.broadcast_to(s, unit.shape), unit)

    def describe(self, latex: bool = False, w: ArrayLike | None = None) -> str:
        """Equations, state, clock, assumptions, order, validity (its value at `w` if given) and reference.

        >>> import sympy as sp, minidyn as md
        >>> a, b = sp.symbols("a b")
        >>> loss = md.Loss.regression(a * b, [a, b], inputs={}, target=[1.0])
        >>> print(md.QuasistaticFlow(md.Map(loss, md.Adam(0.01), md.LabelNoise(0.1))).describe())  # doctest: +ELLIPSIS
        Quasistatic flow of Adam(...
        """
        rule = self.averaged.rule
        names = self.map.rule.called
        shown = rule.shown()
        if latex:
            bars = [rf"\bar{{{sp.latex(sp.Symbol(n))}}}'" for n in names]
            updates = [rf"${bar} = {sp.latex(e)}$" for bar, e in zip(bars, shown, strict=True)]
            equations = [
                r"$Q = B\,[\Sigma + \tfrac12 D^2\Sigma[W_{SS}]]\,B^\top$",
                r"$W_{SS} = A W_{SS} A^\top + \Pi_S Q \Pi_S^\top,\quad W_{SN} = (I-A)_S^{-1}\Pi_S Q \Pi^\top$",
                r"$\mathrm{d}z = \{\tfrac12 \Pi F_2[W_{SS}+W_{SN}+W_{SN}^\top]"
                r" + \tfrac12 (I-A)_S^{-1}\Pi_S F_2[\Pi Q\Pi^\top]\}\,\mathrm{d}k + (\Pi Q \Pi^\top)^{1/2}\mathrm{d}W$",
            ]
        else:
            updates = [f"  {n}' = {e}" for n, e in zip(names, shown, strict=True)]
            equations = [
                "  Q = B [Sigma + D^2 Sigma[W_SS]/2] B^T",
                "  W_SS = A W_SS A^T + Pi_S Q Pi_S^T,  W_SN = (I-A)_S^-1 Pi_S Q Pi^T",
                "  drift per step = Pi F2[W_SS + W_SN + W_SN^T]/2 + (I-A)_S^-1 Pi_S F2[Pi Q Pi^T]/2",
                "  covariance per step = Pi Q Pi^T",
            ]
        reading = f", {self.accumulators} accumulators" if any(rule.accumulators) else ""
        notes = []
        if rule.sign_gain is not None:
            first, later = rule.memory[1], rule.memory[2]
            lags = f", r_l = {first:.4g} * {later:.4g}^(l-1)" if first else ""
            notes.append(f"signs: rest of covariance (2/pi) (arcsin(rho r_l) - rho r_l) at every lag l, r_0 = 1{lags}")
        if self.averaged.feels_skew:
            notes.append("skewness: E xi_i xi_j^2 of the batches is in Q, between xi and v, and in a weak force")
        if rule.wide:
            notes.append("E(...): mean over a standard normal x")
        if any(rule.accumulators):
            notes.append("where the noise has no component, eps alone divides: the gradient there stays well below eps")
        return "\n".join([
            f"Quasistatic flow of {self.map.rule} with {self.map.noise}{reading}",
            f"averaged rule, per coordinate (q = {self._heard}):", *updates,
            "with A, B, Pi, F2 of the averaged rule on the manifold:", *equations,
            "state: w on the manifold of minima; clock: t = lr k (Ito)",
            "assumes: noise small enough that the oscillation stays near the manifold, minima stable for the rule",
            f"of the noise: {rule.assumed()}", *notes,
            "order: leading order in the noise at finite lr",
            f"valid: {self.bounds}, small{self._here(w)}", *self.weak_force(),
            f"reference: {self.reference}", *self._in_the_chart(latex),
        ])  # fmt: skip
