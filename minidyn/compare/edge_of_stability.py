"""What happens at the edge of stability: sharpness in the rule's own metric, its threshold, the oscillation."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers
from minidyn.common.errors import InputError
from minidyn.common.intake import shown, whole
from minidyn.common.reports import Drawn, Report, Reported, Table, as_text, digits
from minidyn.common.status import Status
from minidyn.compare.readings import check_flows, labels_of, one_start
from minidyn.compare.regime import Regime, regimes_of
from minidyn.compare.report import NOTHING
from minidyn.flows import FLOWS
from minidyn.flows.base import Flow
from minidyn.flows.edge.twostep import TwoStep
from minidyn.maps.discrete import Map
from minidyn.simulate.choose import make_engine
from minidyn.simulate.saves import every_of, saves_of


@dataclass(frozen=True, eq=False, repr=False)
class EdgeRun(Reported, Drawn):
    """What `edge` returns; arrays of shape (T,), one number per save, NaN after an end.

    steps : step numbers.
    sharpness : largest curvature in the rule's own metric, in which its threshold is always `2/lr`: of
        `P^(1/2) H P^(1/2)` with `P = 1` for gradient descent, `1/(1 + beta)` for heavy ball,
        `(1 - beta1)/(1 + beta1)/(sqrt(v) + eps)` for Adam; taken at the mid-point of successive iterates.
    threshold : `2/lr`.  distance : `sharpness - threshold`, positive beyond the edge.
    amplitude : label -> half the distance of successive iterates of the map, `|d|` of rod and subquadratic flow,
        `sqrt(tr S)` of the central flow.
    regime : what the map does at the end; its remark, if there is one, ends the summary.
    ends : label -> how a flow ended before the last step, if it did.  map : the map.
    """

    steps: Integers
    sharpness: Floats
    threshold: float
    amplitude: dict[str, Floats]
    regime: Regime | None = None
    ends: dict[str, str] = field(default_factory=dict)
    map: Map | None = None

    @property
    def distance(self) -> Floats:
        """How far the sharpness lies beyond the threshold."""
        return self.sharpness - self.threshold

    def summary(self, rows: int = 8) -> str:
        """A table over so many of the steps."""
        return as_text(self._report(rows))

    def _report(self, rows: int = 8) -> Report:
        chosen = np.unique(np.linspace(0, len(self.steps) - 1, min(rows, len(self.steps))).round().astype(int))
        largest = max((float(np.nanmax(np.abs(v), initial=0.0)) for v in self.amplitude.values()), default=0.0)
        table = [["step", "sharpness", "- 2/lr", *(f"amplitude, {label}" for label in self.amplitude)]] + [
            [
                f"{self.steps[i]:,}",
                digits(self.sharpness[i], 4),
                digits(self.distance[i], 3, sign=True),
                *("0" if abs(v[i]) <= NOTHING * largest else digits(v[i], 3) for v in self.amplitude.values()),
            ]
            for i in chosen
        ]
        remark = self.regime.remark if self.regime else ""
        ends = [f"{label}: {how}" for label, how in self.ends.items()]
        return [Table(table, 0), *ends, *([f"remark: at the end {remark}"] if remark else [])]


def edge(system: Map, *flows: Flow, w0: ArrayLike, steps: int, save_every: Any = None, first_step: int = 1,
         rtol: float = 1e-8, atol: float = 1e-11) -> EdgeRun:  # fmt: skip
    """Sharpness over its threshold along a map without noise, and its oscillation beside what flows predict.

    Parameters
    ----------
    system : the map; noise is refused.  flows : `RodFlow`, `SubquadraticFlow`, `CentralFlow` of it.
    w0 : theta (D,) or the map's whole state.  steps, save_every, first_step : as in `simulate`.

    Raises InputError for arguments that do not fit, FlowError where the rule has no threshold (a vanishing
    accumulator with `eps = 0`).

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> gd = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.1))
    >>> seen = md.edge(gd, md.RodFlow(gd), w0=[4.5, 0.1], steps=40, save_every=20)
    >>> print(seen.summary())
      step  sharpness  - 2/lr  amplitude, GD  amplitude, rod flow
      ----  ---------  ------  -------------  -------------------
         0      21.23   +1.23          0.106                0.106
        20      19.08  -0.918          0.109                 0.11
        40      18.87   -1.13         0.0106               0.0154
    """
    if not isinstance(system, Map) or system.noise is not None:
        raise InputError("edge looks at a Map without noise; drop the noise.")
    for flow in flows:
        if not isinstance(flow, Flow) or not hasattr(flow, "amplitude"):
            able = [known.__name__ for known in FLOWS.values() if hasattr(known, "amplitude")]
            raise InputError(f"{shown(flow)} predicts no oscillation: use {', '.join(able[:-1])} or {able[-1]}.")
    check_flows(system, flows)
    steps, first_step = whole("steps", steps, 1), whole("first_step", first_step, 1)
    saves = np.array(saves_of(steps, every_of(system, steps, save_every)))
    two = TwoStep(system)
    z = one_start(system, w0)
    labels = labels_of(system, flows)
    engines: list[Any] = [
        make_engine(f, np.atleast_2d(f.start(w0)), steps, rtol=rtol, atol=atol, first_step=f.first_step)
        for f in (flow.beginning(first_step) for flow in flows)
    ]
    found = np.full((2, len(saves)), np.nan)
    place, at = 0, 0
    while place < len(saves) and np.isfinite(z).all():
        after = two.step(z, first_step + at)
        if at == saves[place]:
            found[:, place] = _look(two, z, after, first_step + at)
            place += 1
        z, at = after, at + 1
    threshold = 2.0 / system.lr(first_step)
    amplitude, ends = {labels[0]: found[1]}, {}
    for label, flow, engine in zip(labels[1:], flows, engines, strict=True):
        amplitude[label] = _predicted(flow, engine, saves)
        status, ended = (int(v[0]) for v in engine.ending(steps))
        if status != Status.FINISHED:
            reason = engine.meta.get("reason")
            ends[label] = f"{Status(status).label} at step {ended:,}" + (f": {reason}" if reason else "")
    end = regimes_of(system, w0, steps, first_step=first_step)[0] if steps > 1 else None
    return EdgeRun(saves, found[0] * threshold, threshold, amplitude, end, ends, system)


def _look(two: TwoStep, z: Floats, after: Floats, k: int) -> tuple[float, float]:
    """Sharpness over its threshold at the mid-point of a pair, and half the pair's length in theta."""
    if not np.isfinite(after).all():
        return np.nan, np.nan
    relative, _ = two.relative_hessian(0.5 * (z + after), k + 1.0)
    return float(np.linalg.eigvalsh(relative)[-1]), float(0.5 * np.linalg.norm((after - z)[: two.dim]))


def _predicted(flow: Any, engine: Any, saves: Integers) -> Floats:
    out, done = np.full(len(saves), np.nan), 0
    for i, save in enumerate(saves):
        if save > done:
            engine.advance(done, int(save) - done)
            done = int(save)
        state = engine.shown[0]
        if np.isfinite(state).all():
            out[i] = flow.amplitude(state)
    return out
