"""Noisy rod flow: a mid-point, a rod and a cloud, across the edge of stability and with noise (docs/theory.md 3b).

Per step, on the whole state of any rule, with F the map averaged over its noise,

    F+- = E F(c +- d + w),  w ~ N(0, W+-),  C+- = Cov F(c +- d + w) + B S_f B^T
    dc = [(F+ + F-)/2 - c] dk + B K xi_s,   dd/dk = -(F+ - F-)/2 - d,   dW+-/dk = C-+ - W+-

The noise is split by directions of theta: its part `xi_s` along the slow ones moves the mid-point, with what the others
have in common with it, `K xi_s`; the rest, of covariance `S_f`, feeds the cloud.
"""

from typing import Any, ClassVar

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import FlowError, InputError, said
from minidyn.common.intake import one_of, whole
from minidyn.common.locks import derived
from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.flows.edge import cloud
from minidyn.flows.edge.cloud import At
from minidyn.flows.look import BROWN
from minidyn.kernels import Source
from minidyn.maps.averaging import averaged, check_noise
from minidyn.maps.discrete import Map
from minidyn.maps.jets import add_jets

_NODES = {"cubature": 3, "hermite": 9}  # along one axis of the cloud
_CLOSE = 1e-3  # how far off the nodes of an average to second order stand, in standard deviations
_GAP = 4.0  # how many times as curved as the slow directions the fast ones are at least, where none is told


class NoisyRodFlow(Flow):
    """Mid-point `c`, half-difference `d`, clouds `W+-` of the fast motion about `c +- d`: across the edge, with noise.

    The state is `(c, d, W, V)` in the map's whole state z, `2 n + 2 n^2` numbers, with the covariances `W+- = W +- V`
    about the two ends; it starts from the first pair of iterates, and `compare` holds the mid-point against the map's
    mid-points. It needs neither a manifold nor a stable minimum. Without noise it is the rod flow; on a stable valley,
    where `d` dies out and `W` follows `c`, the quasistatic flow; at the edge noise holds the sharpness below the
    threshold.

    Parameters
    ----------
    system : the map of a rule that is smooth in the gradient, with any noise that has a covariance.
    slow : how many directions of theta are slow, `dim M`: the least curved ones at the mid-point, along which the path
        itself spreads. None: as many as lie below the widest gap among the curvatures at the start, a factor of 4 at
        least; FlowError where there is none.
    spread : "paths", as said; "cloud" puts the spread along slow directions into W too (one path without noise): right
        while it is small against the scale on which the valley turns.
    average : over the cloud: "cubature" (exact for cubics), "hermite" (nine nodes along each axis), or "second order"
        (leading order in W). None: "hermite" where one direction is fast, else "cubature".
    first_step : the number of the map's first step (see `simulate`).

    `slow_directions` is what was given as `slow`. One step of Euler and Maruyama per step of the map, which `simulate`
    takes by default, is the recursion for pairs of iterates: more exact where the map is far from the identity.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1), md.GaussianNoise(0.5))
    >>> flow = md.NoisyRodFlow(sgd)
    >>> w = flow.start([5.0, 0.5])
    >>> flow.drift(w)[:2].round(4), flow.parts(w)[2].round(5).tolist()
    (array([-1.7174,  1.4896]), [[6e-05, 0.00026], [0.00026, 0.00119]])
    """

    _offers = "slow_directions spread average parts amplitude"
    key = "noisy-rod"
    look, noisy = BROWN, True
    reads = "midpoints"
    ahead = 1
    name: ClassVar[str] = "noisy rod flow"
    reference: ClassVar[str] = "minidyn, docs/theory.md 3b; without noise Regis, Chewi (2026)"
    needs: ClassVar[tuple[str, ...]] = ("grad", "hessian", "sigma", "noise_factor", "noise_q", "jets")
    field: ClassVar[Any] = staticmethod(cloud.field)
    reach: ClassVar[int] = 1  # it holds the fast motion of the map, which a longer step would not resolve
    reasons: ClassVar[dict[int, str]] = {
        Status.SINGULAR: (
            "the rule cannot be evaluated at an end of the rod (a mean square that has hardly begun falls below zero: "
            "start with settled averages), or the cloud has grown out of every bound."
        )
    }

    def __init__(self, system: Map, slow: int | None = None, spread: str = "paths", average: str | None = None,
                 first_step: int = 1):  # fmt: skip
        super().__init__(system)
        self.rule = averaged(system.rule)
        check_noise(self.rule, system.bound)
        if self.rule.sign_gain is not None:
            raise FlowError(
                f"{system.rule.name} takes signs of the gradient: the cloud of a noisy rod knows no noise but what is "
                f"multiplied by slopes; follow the map itself, or near the minima {said('md.QuasistaticFlow')}."
            )
        self.slow_directions = None if slow is None else whole("slow", slow, 0)
        if (self.slow_directions or 0) > self.dim:
            raise InputError(f"slow is {slow}; there are {self.dim} directions.")
        self.spread = one_of(spread, "spread", ("paths", "cloud"))
        self.average = None if average is None else one_of(average, "average", (*_NODES, "second order"))
        self.first_step = whole("first_step", first_step, 1)
        self.source  # noqa: B018 - refuse noises without a covariance right away

    @property
    def size(self) -> int:
        """`2 n + 2 n^2` for the `n` numbers of the map's state."""
        return 2 * self.map.components * (1 + self.map.components)

    @derived
    def source(self) -> Source:
        """The averaged rule, `jets`, and the covariance of the noise."""
        src = Source(f"noisy rod flow of {self.map.rule.name} on {self.map.loss}")
        self.map.bound.add_covariance(src)
        add_jets(src, self.rule)
        return src

    # -- the noise --
    @property
    def couples(self) -> bool:
        """Whether the mid-point is driven by the map's own normals: all noise is Gaussian."""
        return self.map.bound.couples

    @property
    def columns(self) -> int:  # type: ignore[override]
        """As many as the map draws normals, or as there are parameters."""
        return self.map.bound.gaussian_rows if self.couples else self.dim

    def stochastic(self, w0: Floats) -> bool:
        """Whether the map has noise and paths carry any of it."""
        return not self.map.bound.silent and self._slow(w0) > 0

    # -- what is slow --
    def _slow(self, w: Floats) -> int:
        """How many directions carry the spread of paths, at states of the flow; the same at all of them."""
        if self.spread == "cloud":
            return 0
        if self.slow_directions is not None:
            return self.slow_directions
        found = {self.gap(z)[0] for z in np.unique((w if w.strides[0] else w[:1])[:, : self.dim], axis=0)}
        if len(found) > 1:
            raise FlowError(
                f"the {self.name}: {' or '.join(map(str, sorted(found)))} directions are slow, depending on the start; "
                f"{said('give their number in slow=, or compare')} starts that agree in this."
            )
        return found.pop() if found else 0

    def gap(self, theta: ArrayLike) -> tuple[int, float]:
        """How many directions lie below the widest gap among the curvatures at theta, and their ratio across it.

        Raises FlowError where no gap is a factor of 4: then nothing tells slow from fast.
        """
        values = np.linalg.eigvalsh(self.loss.hessian(theta))
        if self.dim == 1:
            return 0, np.inf
        ratios = values[1:] / np.maximum(np.abs(values[:-1]), 1e-12 * np.abs(values).max())
        place = int(np.argmax(ratios))
        if not (ratios[place] >= _GAP and values[place + 1] > 0):
            shown = ", ".join(f"{v:.3g}" for v in values[::-1][:6]) + (", ..." if self.dim > 6 else "")
            raise FlowError(
                f"the {self.name} at theta = {self._place(np.asarray(theta))}: the curvatures {shown} have no gap, so "
                "nothing tells slow directions from fast ones; "
                f"{said('give their number in slow=, 0 at an isolated minimum')}."
            )
        return place + 1, float(ratios[place])

    def numbers(self, w0: Floats) -> Floats:
        """Those of `At`; how many directions are slow is found from the starting points."""
        slow = self._slow(w0)
        average = self.average or ("hermite" if self.dim - slow == 1 else "cubature")
        known = {
            At.STATES: len(self.map.rule.states),
            At.STEPS_BEFORE: self.first_step - 1,
            At.SLOW: slow,
            At.VARIES: self.map.bound.varies,
            At.COUPLES: self.couples,
            At.WIDTH: self.map.bound.width,
        }
        if average == "second order":
            places, weights = np.array([_CLOSE]), np.array([0.5 / _CLOSE**2])
        else:
            x, w = np.polynomial.hermite_e.hermegauss(_NODES[average])
            places, weights = x[x > 1e-9], w[x > 1e-9] / w.sum()
        return np.concatenate([[float(known.get(at, len(places))) for at in At], places, weights])

    # -- states --
    def start(self, w0: ArrayLike) -> Floats:
        """Mid-point and half-difference of the first two iterates, and the cloud of the second one (..., size), from
        theta or the map's whole state; the second one is where the map averaged over its noise goes."""
        self.theta(w0)
        whole_state = self.map.whole_state(w0, "w0")
        n = self.map.components
        flat = np.zeros((whole_state.size // n, self.size))
        flat[:, :n] = whole_state.reshape(-1, n)
        half = 0.5 * self.evaluate(flat, 0.0, self.numbers(flat))[0] if len(flat) else flat.copy()
        flat[:, : 2 * n] += np.tile(half[:, :n], 2)
        flat[:, 2 * n :] = np.tile(half[:, 2 * n : 2 * n + n * n], 2)
        return flat.reshape(*whole_state.shape[:-1], self.size)

    def parts(self, w: ArrayLike) -> tuple[Floats, Floats, Floats, Floats]:
        """Of states of the flow (..., size): mid-point and half-difference (..., n); mean and half-difference of the
        covariances about the two ends `c + d` and `c - d` (..., n, n)."""
        state, n = self.check(w), self.map.components
        W, V = np.moveaxis(state[..., 2 * n :].reshape(*state.shape[:-1], 2, n, n), -3, 0)
        return state[..., :n], state[..., n : 2 * n], W, V

    def amplitude(self, w: ArrayLike) -> Any:
        """`sqrt(|d|^2 + tr W)` in theta: the root-mean-square distance of iterates from the mid-point (...)."""
        _, d, W, _ = self.parts(w)
        spread = np.trace(W[..., : self.dim, : self.dim], axis1=-2, axis2=-1)
        return np.sqrt((d[..., : self.dim] ** 2).sum(-1) + np.maximum(spread, 0.0))

    def validity(self, w: ArrayLike) -> float:
        """The spectral gap's inverse at the mid-point: slow over fast curvature; NaN where there is no gap."""
        try:
            return 1.0 / self.gap(self._started(w)[: self.dim])[1]
        except FlowError:
            return float("nan")

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """See `Flow.describe`."""
        if latex:
            equations = [
                r"$F_\pm = \mathrm{E} F(c \pm \delta + w),\quad w \sim N(0, W_\pm)$",
                r"$\mathrm{d}c = [\frac{1}{2}(F_+ + F_-) - c]\,\mathrm{d}k + B K \xi_s,\quad"
                r" \frac{\mathrm{d}\delta}{\mathrm{d}k} = -\frac{1}{2}(F_+ - F_-) - \delta$",
                r"$\frac{\mathrm{d}W_\pm}{\mathrm{d}k} = \mathrm{Cov} F(c \mp \delta + w)"
                r" + B \Sigma_f B^\top - W_\pm$",
            ]
        else:
            equations = [
                "  F+- = E F(c +- d + w),  w ~ N(0, W+-)",
                "  dc = [(F+ + F-)/2 - c] dk + B K xi_s,  dd/dk = -(F+ - F-)/2 - d",
                "  dW+-/dk = Cov F(c -+ d + w) + B S_f B^T - W+-",
            ]
        slow = "those below the widest gap in curvature"
        if self.slow_directions is not None:
            slow = f"the {self.slow_directions} least curved ones"
        return "\n".join(
            [
                f"Noisy rod flow of {self.map.rule}, F its step on z = ({', '.join(('theta', *self.map.rule.states))})",
                *equations,
                "state: mid-point c, half-difference d, covariances W+- about the ends c +- d; clock: t = lr k (Ito)",
                f"slow directions: {slow}; their noise moves c, the rest of it feeds W+-",
                "limits: without noise the rod flow; where d dies out and W+- follow c the quasistatic flow; at the "
                "edge noise holds the sharpness below the threshold",
                "assumes: a gap between slow and fast curvatures; a cloud smaller than the scale on which the valley "
                "turns",
                "order: O(lr) at fixed t; a step of length one is the recursion for pairs of iterates",
                f"valid: slow over fast curvature, small{self._here(w)}",
                f"reference: {self.reference}",
            ]
        )
