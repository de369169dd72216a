"""Subquadratic flow: the mid-point of the period-two orbit drifts, the orbit itself follows at once.

Per step, with the even part `F_e` of the map and the orbit's half-difference `d(c)`,

    dc/dk = F_e(c, d(c)) - c        -F_o(c, d) = d

`d = 0` where the valley is stable. Source: Ma, Kunin, Wu, Ying, *Beyond the quadratic approximation* (2022).
"""

from typing import Any, ClassVar

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import FlowError
from minidyn.common.intake import between, whole
from minidyn.common.status import Status
from minidyn.flows.edge import pairs
from minidyn.flows.edge.chartorbit import OrbitForm, orbit_form
from minidyn.flows.edge.orbit import FieldFailed, Growth, Orbit, Orbits
from minidyn.flows.edge.pairs import At
from minidyn.flows.edge.twostep import PairFlow
from minidyn.flows.look import PINK
from minidyn.maps.discrete import Map
from minidyn.minima.manifold import Manifold


class SubquadraticFlow(PairFlow):
    """The map's period-two orbit at the edge of stability, slaved: `dc/dk = F_e(c, d(c)) - c`, `-F_o(c, d) = d`.

    While the rule is stable it is the map's own drift; where the sharpness passes the threshold a period-two orbit
    branches off, is continued along the path with its stability, and dies out where the sharpness falls back. It
    ends, with a status and a sentence, where there is no orbit (a superquadratic valley) or where the orbit is
    itself unstable: the map then runs on a longer orbit, or chaotically, and this theory does not describe it.

    Parameters
    ----------
    system : the map of any rule; its noise is left out.
    slow : directions of the state whose relaxation per step is slower are held while the orbit forms: motion along
        the valley, long averages such as Adam's `v`.
    first_step : the number of the map's first step (see `simulate`).
    manifold : a `Manifold` with a chart; `closed_form` and `describe` then give the equations in its coordinates.

    The state is `(c, d)`, each as long as the map's state `z`; it starts from the mid-point of the first two iterates,
    with the orbit that their difference leads to. `compare` holds the mid-point against the map's mid-points.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1))
    >>> flow = md.SubquadraticFlow(gd)
    >>> orbit = flow.orbit([5.0, 0.0])  # (1 + x^2) tanh(d) = 2 d / lr
    >>> orbit.amplitude.round(4), orbit.stable, flow.growth([5.0, 0.0]).kind
    (array([0.    , 0.9777]), True, 'subquadratic')
    """

    _offers = "manifold amplitude orbit growth closed_form"
    key = "subquadratic"
    steps: Orbits
    look = PINK
    charted = True
    name: ClassVar[str] = "subquadratic flow"
    reference: ClassVar[str] = "Ma, Kunin, Wu, Ying (2022)"
    needs: ClassVar[tuple[str, ...]] = ("grad", "hessian", "rule_step", "rule_slopes")
    field: ClassVar[Any] = staticmethod(pairs.field)
    carry: ClassVar[Any] = staticmethod(pairs.advance)
    reasons: ClassVar[dict[int, str]] = {
        Status.UNSTABLE: "the valley is unstable in another way than by a flip of sign; lower lr.",
        Status.SINGULAR: "an accumulator vanishes; use eps > 0 or a loss floor.",
        Status.NO_ORBIT: "there is no period-two orbit here: the loss grows too fast across the valley; lower lr.",
        Status.PERIOD_FOUR: "the period-two orbit is unstable: the map runs on a longer one here; lower lr.",
        Status.CHAOTIC: "the period-two orbit is unstable: the map is chaotic here; lower lr.",
    }

    def __init__(self, system: Map, slow: float = 0.1, first_step: int = 1, manifold: Manifold | None = None):
        super().__init__(system)
        slow = between(slow, "slow, a rate per step,", 0, 1)
        self._check_minima(manifold)
        self.first_step, self.manifold = whole("first_step", first_step, 1), manifold
        self.steps = Orbits(system, slow)

    def start(self, w0: ArrayLike) -> Floats:
        """The mid-point of the first two iterates and the orbit there (..., size), from theta or a whole state.

        Raises FlowError where the map has no stable period-two orbit.
        """
        self.theta(w0)
        pair = np.concatenate(self.steps.first_pair(w0, self.first_step), axis=-1)
        flat = pair.reshape(-1, self.size)
        change, none = np.empty_like(flat), np.empty((len(flat), self.size, 0))
        for w in flat[self.fill(flat, 0.0, self.numbers(flat), change, none) != 0]:
            self._orbit(*np.split(w, 2))  # says what is there instead
        flat[:, self.steps.size :] += change[:, self.steps.size :]
        return pair

    def _orbit(self, c: Floats, d: Floats) -> Orbit:
        try:
            return self.steps.find(c, d, float(self.first_step))
        except FieldFailed as error:
            reason = self.steps.instead(c, d, float(self.first_step), error).reason
            raise FlowError(f"{self.name} at theta = {self._place(c)}: {reason}.") from error

    def orbit(self, z: ArrayLike) -> Orbit:
        """The stable period-two orbit at a mid-point: theta (D,) or the map's whole state.

        Raises FlowError where there is none; it says what the map does instead.
        """
        point = self._map_state(z)
        return self._orbit(point, np.zeros(self.steps.size))

    def growth(self, z: ArrayLike) -> Growth:
        """Whether the loss grows sub- or superquadratically across the valley at a point of it."""
        try:
            return self.steps.growth(self._map_state(z), float(self.first_step))
        except FieldFailed as error:
            raise FlowError(f"{self.name}: {error.reason}.") from error

    def _map_state(self, z: ArrayLike) -> Floats:
        """The map's whole state at theta, at such a state, or at the mid-point of a state of the flow."""
        point = self._point(z)
        return self.map.initial_state(point) if len(point) == self.dim else point[: self.steps.size]

    def numbers(self, w0: Floats) -> Floats:
        """Those of `pairs.At`, whatever the starting points."""
        known = {At.DIM: self.dim, At.STEPS_BEFORE: self.first_step - 1, At.SLOW: self.steps.slow}
        return np.array([float(known[at]) for at in At])

    @property
    def remembers(self) -> int:  # type: ignore[override]
        """The place on the clock, the next step, and the shift of the orbit's mid-point behind whether it is known."""
        return 3 + self.map.components

    def why(self, w: Floats, kept: Floats, code: int) -> tuple[int, str]:
        """What the map does where the orbit could not be continued, near which theta."""
        if code not in (Status.NO_ORBIT, Status.SINGULAR, Status.UNSTABLE):
            return super().why(w, kept, code)
        c, d = w[: self.steps.size], w[self.steps.size :]
        step = kept[0] + self.first_step
        try:
            failed = self.steps.instead(c, d, step, self.steps.failed(code, c, step))
        except FieldFailed as error:
            failed = error
        return failed.code, f"near theta = {self._place(c)}: {failed.reason}"

    def closed_form(self) -> OrbitForm:
        """The amplitude's equation and the mid-point's drift in the coordinates of the manifold's chart.

        Accumulators, as of RMSProp and Adam, come with equations of their own. Raises FlowError without a chart, for
        rules that are not odd and smooth in gradient and momenta, and for valleys that lean to a side of the chart.

        >>> import sympy as sp, minidyn as md
        >>> x, y, s = sp.symbols("x y s")
        >>> loss = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
        >>> floor = md.Manifold(loss, chart={x: s, y: 0}, coordinates=[s])
        >>> md.SubquadraticFlow(md.Map(loss, md.GD(0.1)), manifold=floor).closed_form().drift
        [-2*s*log(cosh(delta))]
        """
        return orbit_form(self.map, self.manifold or Manifold(self.loss))

    def _in_the_chart(self, latex: bool) -> list[str]:
        """The closed form in words, or why there is none, where the manifold has a chart."""
        if self.manifold is None or self.manifold.chart is None:
            return []
        try:
            return ["", "on the chart:", self.closed_form().describe(latex)]
        except FlowError as error:
            return ["", f"no closed form on the chart: {error}"]

    # -- in words --
    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """See `Flow.describe`.

        >>> import sympy as sp, minidyn as md
        >>> x, y = sp.symbols("x y")
        >>> flow = md.SubquadraticFlow(md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1)))
        >>> print(flow.describe(w=flow.start([5.0, 0.1])).splitlines()[-2].strip())
        at theta = [4.998, -0.02957] it is 0.423
        """
        rule = self.map.rule
        c, d = ("$c$", r"$\delta$") if latex else ("c", "d")
        if latex:
            equations = [
                r"$\dot c = \frac{1}{\eta}[F_e(c,\delta(c)) - c],\quad -F_o(c,\delta) = \delta$",
                r"$F_{e,o}(c,\delta) = \frac{1}{2}[F(c+\delta) \pm F(c-\delta)]$",
            ]
        else:
            equations = [
                "  dc/dk = F_e(c, d(c)) - c,  -F_o(c, d) = d",
                "  F_e, F_o = [F(c + d) +- F(c - d)] / 2",
            ]
        return "\n".join(
            [
                f"Subquadratic flow of {rule}, F its step on z = ({', '.join(('theta', *rule.states))})",
                *equations,
                f"state: mid-point {c} of the period-two orbit and its half-difference {d}; clock: t = lr k; "
                "noise: left out",
                "assumes: a stable period-two orbit beyond the threshold (subquadratic growth across the valley), and "
                "a mid-point that drifts slowly",
                "order: leading order in the drift over the relaxation of d, which is slow near the threshold",
                "valid: the orbit's relative change per step over the relaxation of d, small" + self._here(w),
                f"reference: {self.reference}",
                *self._in_the_chart(latex),
            ]
        )

    def validity(self, w: ArrayLike) -> float:
        """The orbit's relative change per step over the relaxation rate of its amplitude.

        Zero where there is no oscillation.
        """
        state, half, k = self._started(w), self.map.components, float(self.first_step)
        orbit = self._orbit(state[:half], state[half:])
        if not orbit.amplitude.any():
            return 0.0
        drift = self.steps.parts(state[:half], orbit.amplitude, k)[0] - state[:half]
        later = self._orbit(state[:half] + 1e-3 * drift, orbit.amplitude).amplitude
        change = 1e3 * np.linalg.norm(later - orbit.amplitude) / np.linalg.norm(orbit.amplitude)
        relaxation = 1.0 - np.sqrt(np.abs(orbit.multipliers).max(initial=0.0))
        return float(change / max(relaxation, 1e-300))
