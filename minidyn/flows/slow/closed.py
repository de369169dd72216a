"""The quasistatic flow in closed form: its equations in the coordinates of a chart, and their integration.

    ds = a(s) dk + l B sigma dW        theta = theta(s)

derived by `reduction` for the map's own rule and noise. The state is theta, then the coordinates s.
Source: as the quasistatic flow; Ito, *On stochastic differential equations on a differentiable manifold* (1950).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import sympy as sp
from sympy.integrals.rationaltools import ratint

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError, InputError, said
from minidyn.common.intake import numbers
from minidyn.common.locks import Form, cached_property, derived, form, shared
from minidyn.common.status import Status
from minidyn.compiler import compiled
from minidyn.flows.base import WIDEST
from minidyn.flows.slow.chartfield import (
    Size,
    add_chart_field,
    can_be_written,
    chart_field,
    chart_outputs,
    field_as_written,
    place_as_written,
    put_on_minima,
)
from minidyn.flows.slow.descriptions import describe_closed_form
from minidyn.flows.slow.quasistatic import QuasistaticFlow
from minidyn.flows.slow.reduction import ChartForm, Reduction
from minidyn.graph import Converter, Graph, Node
from minidyn.kernels import Emitter, Source, store
from minidyn.kernels.pointers import SIGNATURES
from minidyn.maps import rule_symbols
from minidyn.maps.discrete import Map
from minidyn.minima.charts import Chart, tidy
from minidyn.minima.manifold import Manifold

SIGNATURES |= {
    "chart_form": "void(f8[:], f8[:], f8[:], f8[:], f8[:], f8[:])",  # s, kk, hp, c, nz, out
    "chart_place": "void(f8[:], f8[:], f8[:], f8[:])",  # s, c, nz, out
}


@dataclass(frozen=True, eq=False)
class Potential(ByValue):
    """`drift = -G^-1 grad U` in the chart: `value` is U, `metric` is G (the identity where `flat`)."""

    value: sp.Expr
    metric: sp.Matrix
    flat: bool


class ClosedFormFlow(QuasistaticFlow):
    """The quasistatic flow of a map in the coordinates of a chart, derived in symbols; made by `flow.closed_form()`.

    Parameters
    ----------
    system : the map.  manifold : a `Manifold` with a chart.  accumulators : as in `QuasistaticFlow`.

    drift_formula (d, 1), covariance_formula (d, d) : sympy expressions per unit of `t` at finite lr, Ito, in the
    coordinates, the rule's hyperparameters and the noise's size (`values` holds the numbers of the latter).
    letters : definitions that the formulas use, empty where they could be written out.
    The state is theta (D,), then the coordinates (d,); runs save theta.

    Raises FlowError where the minima have no chart or the rule no closed form; the numerical flow is there for those.

    >>> import sympy as sp, minidyn as md
    >>> x, y, s = sp.symbols("x y s")
    >>> loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    >>> valley = md.Manifold(loss, chart={x: s, y: 0}, coordinates=[s])
    >>> flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.01), md.GaussianNoise(0.3)), valley).closed_form()
    >>> flow.drift_formula[0]
    lr*s*sigma**2/((s**2 + 1)*(lr*s**2 + lr - 2))
    >>> flow.drift(flow.start([1.0, 0.0])).round(8)
    array([-0.00022727,  0.        , -0.00022727])
    """

    _offers = "coordinates chart drift_formula covariance_formula leading_drift potential letters values"
    name: ClassVar[str] = "quasistatic flow in closed form"
    needs: ClassVar[tuple[str, ...]] = ("chart_form", "chart_place")
    field: ClassVar[Any] = staticmethod(chart_field)
    retract: ClassVar[Any] = staticmethod(put_on_minima)

    def __init__(self, system: Map, manifold: Manifold | None = None, accumulators: str = "self-consistent"):
        if isinstance(system, Map) and (manifold is None or manifold.chart is None):
            raise FlowError(
                "a closed form needs a chart of the minima: "
                f"give {said('Manifold(loss, chart={parameter: expression, ...}, coordinates=[...])')}."
            )
        super().__init__(system, manifold, accumulators)
        if self.averaged.rule.sign_gain is not None and system.rule.states:
            raise FlowError(f"no closed form is derived for {system.rule.name}: use the numerical flow.")

    @property
    def chart(self) -> Chart:
        """The chart of the minima whose coordinates the equations are in."""
        assert self.manifold.chart is not None
        return self.manifold.chart

    @property
    def _chosen(self) -> tuple[Any, ...]:
        return self.accumulators, self._basis

    @cached_property
    def _basis(self) -> Form:
        """What the derivation depends on beside the forms of rule and noise: the chart, the signs of hyperparameters,
        and the numbers of the noise, of which some stand in the formulas."""
        letters = tuple(rule_symbols.hyper(h, v) for h, v in self.map.rule.hyper.items())
        return form(self.chart, letters, self.map.bound.numbers.tobytes())

    def _derived(self, accumulators: str) -> ChartForm:
        def derive() -> ChartForm:
            return Reduction(self.map, self.chart, accumulators).form()

        made: ChartForm = shared((Reduction, self.map.form, self._basis, accumulators), derive)
        return made

    @cached_property
    def derivation(self) -> ChartForm:
        """The equations, per step and in the chart's own symbols."""
        return self._derived(self.accumulators)

    # -- formulas -----------------------------------------------------------------------------------
    @property
    def _lr(self) -> sp.Expr:
        hyper = self.map.rule.hyper
        return rule_symbols.hyper("lr", hyper["lr"]) if "lr" in hyper else sp.S.One

    @property
    def coordinates(self) -> list[sp.Symbol]:
        """The symbols s."""
        return list(self.chart.names)

    @derived
    def drift_formula(self) -> sp.Matrix:
        """`a(s)` with `ds = a dt + ...`, (d, 1), at finite lr."""
        return self._public(self.derivation.drift / self._lr)

    @derived
    def covariance_formula(self) -> sp.Matrix:
        """Covariance of `ds` per unit of t, (d, d)."""
        return self._public(self.derivation.covariance / self._lr)

    @property
    def letters(self) -> dict[sp.Symbol, sp.Expr]:
        """Definitions that the formulas use, in order."""
        return {s: self._shown(e) for s, e in self.derivation.letters.items()}

    @property
    def accumulated(self) -> list[sp.Expr]:
        """What accumulators see beside the noise at the minima: equations `e_1 = ...` for symbols of the formulas."""
        return [self.chart.public(e) for e in self.derivation.seen]

    @property
    def values(self) -> dict[sp.Symbol, float]:
        """Numbers of the symbols in the formulas that are no coordinates."""
        shown = zip(self._hyper.values(), self.map.rule.hyper.values(), strict=True)
        numbers = {s: float(v) for s, v in shown if not isinstance(v, sp.Expr)}
        return numbers | {self.chart.public(s): v for s, v in self.derivation.values.items()}

    @property
    def _hyper(self) -> dict[sp.Symbol, sp.Symbol]:
        """The rule's letters -> the symbols of the formulas."""
        return self.map.rule.public(self.chart.taken)

    def _shown(self, e: sp.Expr) -> sp.Expr:
        """An expression in the user's own symbols."""
        return self.chart.public(e.xreplace(self._hyper))

    def _public(self, m: sp.Matrix) -> sp.Matrix:
        return m.applyfunc(lambda e: self._shown(tidy(e, 300) if not self.derivation.letters else e))

    @derived
    def _leading_form(self) -> ChartForm:
        """The form without what the oscillation adds to accumulators, which is of higher order in lr."""
        return self._derived("full") if self.derivation.seen else self.derivation

    @derived
    def leading_drift(self) -> sp.Matrix | None:
        """The drift per unit of t to leading order in lr; None where the formula is too long to expand."""
        lr, form = self._lr, self._leading_form
        if form.letters or lr == 1:
            return None
        first = (form.drift / lr**2).applyfunc(lambda e: tidy(tidy(e, 2000).subs(lr, 0), 2000))
        return None if first.has(sp.nan, sp.zoo, sp.oo) else self._shown(lr) * first.applyfunc(self._shown)

    @derived
    def potential(self) -> Potential | None:
        """U with `leading drift = -G^-1 grad U` in the chart, G flat or the rule's own metric, whichever gives the
        shorter formula; None if there is none."""
        if self.leading_drift is None:
            return None
        s = self.coordinates
        real = dict(zip(s, self.chart.coordinates, strict=True))
        drift = self.leading_drift.xreplace(real | {v: k for k, v in self._hyper.items()})
        # theta'^T E^-1 theta' with E the rule's total step for one gradient, -lr for SGD
        eye, metric = sp.eye(len(s)), self._leading_form.metric.applyfunc(lambda e: tidy(-self._lr * e))
        found: list[Potential] = []
        for flat, G in ((True, eye), (False, metric)):
            slope = (G * drift).applyfunc(tidy)
            x = self.chart.coordinates
            if all(
                tidy(sp.diff(slope[a], x[b]) - sp.diff(slope[b], x[a])) == 0 for a in range(len(x)) for b in range(a)
            ):
                value = integrate_gradient(-slope, x)
                if value is not None:
                    found.append(Potential(self._shown(value), G.applyfunc(self._shown), flat))
        return min(found, key=lambda p: (p.value.has(sp.Integral), sp.count_ops(p.value)), default=None)

    # -- kernels --------------------------------------------------------------------------------------
    @property
    def size(self) -> int:
        """`D + d`: theta, then the coordinates."""
        return self.dim + self.chart.dimension

    @property
    def couples(self) -> bool:
        """As of the numerical flow, where the derivation also has a factor on the map's own normals (its `noise`)."""
        return super().couples and self.derivation.noise is not None

    @property
    def columns(self) -> int:  # type: ignore[override]
        """Columns of the noise factor."""
        return self.map.bound.gaussian_rows if self.couples else self.chart.dimension

    @derived
    def source(self) -> Source:
        """`chart_form(s, ...)`, all that was derived, and `chart_place(s, ...)`, theta; both at coordinates s.

        `written_field` and `written_place` beside them where no matrix has to be factorized.
        """
        src = Source(f"closed form of the quasistatic flow of {self.map.rule.name}")
        made = self.derivation
        noise = list(made.noise) if self.couples and made.noise is not None else []
        outputs = chart_outputs(made, self.chart, noise)
        src.add("chart_form", "s, kk, hp, c, nz, out", self._lines(outputs, made.letters))
        src.add("chart_place", "s, c, nz, out", self._lines(self.chart.place, {}))
        if self._written:
            add_chart_field(src, made, self.chart, self.couples, self._conversion)
        return src

    @derived
    def _written(self) -> bool:
        """Whether no matrix has to be factorized."""
        return can_be_written(self.derivation, self.chart, self.couples)

    @cached_property
    def inlined(self) -> tuple[Any, Any, tuple[Any, ...]] | None:
        """The field number by number, where no matrix has to be factorized."""
        if not self._written:
            return None
        return (
            compiled(field_as_written),
            compiled(place_as_written),
            (self.kernels.written_field, self.kernels.written_place),
        )

    @property
    def in_lanes(self) -> bool:
        """Up to `WIDEST` numbers in the state."""
        return self.size <= WIDEST

    def _lines(self, outputs: list[Any], letters: dict[sp.Symbol, sp.Expr]) -> list[str]:
        """Stores of expressions of the chart into `out`."""
        g = Graph()
        convert = self._conversion(g, "s", 0, letters)
        return Emitter([store(g, convert(e), "out", i) for i, e in enumerate(outputs)]).lines()

    def _conversion(
        self, g: Graph, array: str, offset: int, letters: dict[sp.Symbol, sp.Expr] | None = None
    ) -> Converter:
        """sympy -> nodes, with the coordinates read from an array; all letters are known unless some are given."""
        letters = self.derivation.letters if letters is None else letters
        symbols: dict[Any, Node] = {c: g.load(array, offset + i) for i, c in enumerate(self.chart.coordinates)}
        for i in range(len(self.derivation.seen)):
            symbols[sp.Symbol(f"e_{i + 1}", positive=True)] = g.load(array, offset + self.chart.dimension + i)
        constants = list(self.chart.constants.values())
        for symbol, value in self.derivation.values.items():
            symbols[symbol] = g.load("c", constants.index(symbol)) if symbol in constants else g.const(value)
        rule = self.map.rule.converter(
            g, g.const(0.0), g.const(0.0), [g.const(0.0)] * len(self.map.rule.states), g.load("kk", 0), held=True
        )
        convert = Converter(g, {**rule.symbols, **symbols})
        for letter, e in letters.items():
            convert.symbols[letter] = convert(e)  # type: ignore[index]
        return convert

    # -- starting points --------------------------------------------------------------------------------
    def start(self, w0: ArrayLike) -> Floats:
        """theta at the limit of the gradient flow from `w0`, then its coordinates: shape (..., D + d).

        A state of this flow is taken as it is.
        """
        given = numbers(w0, "w0", lambda: self.loss.param_names)
        if given.ndim and given.shape[-1] == self.size != self.map.components:
            return given
        theta = super().start(given)
        s = self.chart.locate(theta)
        return np.concatenate([self.chart.point(s), s], axis=-1)

    def numbers(self, w0: Floats) -> Floats:
        """Sizes that the kernels read."""
        self.check_points(w0.reshape(-1, self.size)[:, : self.dim])
        self._refuse_skew(
            np.asarray(w0).reshape(-1, self.size)[:, : self.dim], "is not in closed forms; use the numerical flow"
        )
        out, form = np.empty(len(Size)), self.derivation
        out[Size.THETA], out[Size.COORDINATES] = self.dim, self.chart.dimension
        out[Size.NORMALS], out[Size.COUPLED] = self.columns if self.couples else 0, self.couples
        out[Size.CORE], out[Size.PAIRS] = form.core.rows, form.feedback.rows
        out[Size.SEEN], out[Size.CLOUD] = len(form.seen), len(form.cloud)
        return out

    def check(self, w: ArrayLike) -> Floats:
        """A state of the flow (..., D + d); points of the minima (..., D) get their coordinates."""
        array = numbers(w, "w", lambda: self.loss.param_names)
        if array.ndim and array.shape[-1] == self.dim:
            s = self.chart.locate(array)
            return np.concatenate([array, s], axis=-1)
        if array.ndim == 0 or array.shape[-1] != self.size:
            raise InputError(
                f"w has shape {array.shape}, expected (..., {self.size}): theta, then the coordinates "
                f"{', '.join(map(str, self.coordinates))}; flow.start(w0) makes one."
            )
        return array

    def stochastic(self, w0: Floats) -> bool:
        """Whether noise has a component along the minima."""
        return any(e != 0 for e in self.derivation.covariance)

    def has_noise(self, w0: Floats, numbers: Floats) -> bool:
        """The same."""
        return self.stochastic(w0)

    def explain(self, code: int) -> str:
        """A status in words; `SINGULAR` where a formula is not finite, others as of the numerical flow."""
        if code == Status.SINGULAR:
            return (
                "the closed form is not finite here: the chart ends, or the noise vanishes in a coordinate where the "
                "rule divides by its size."
            )
        return super().explain(code)

    # -- in words -----------------------------------------------------------------------------------------
    def validity(self, w: ArrayLike) -> float:
        """As of the numerical flow, at theta or at a state of this one."""
        numerical = QuasistaticFlow(self.map, self.manifold, self.accumulators)
        return numerical.validity(self._point(w)[: self.dim])

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """Equations in the chart, state, clock, assumptions, order, validity (its value at `w` if given), reference."""
        return describe_closed_form(self, latex, self._here(w))


QuasistaticFlow.in_chart = ClosedFormFlow


def integrate_gradient(slope: sp.Matrix, x: list[sp.Symbol]) -> sp.Expr | None:
    """U with `grad U = slope`; in one coordinate an integral stands where it is not rational, else None."""
    value = sp.S.Zero
    for a, symbol in enumerate(x):
        rest = tidy(slope[a] - sp.diff(value, symbol))
        if rest == 0:
            continue
        piece = _antiderivative(rest, symbol)
        if piece.has(sp.RootSum) or (len(x) > 1 and piece.has(sp.Integral)):
            return None
        value += piece
    return sp.factor_terms(value)


def _antiderivative(e: sp.Expr, x: sp.Symbol) -> sp.Expr:
    """Of a rational function of x, or of cos x (times sin x) or sin x (times cos x); else an integral sign."""
    if e.is_rational_function(x):
        return _real(ratint(e, x), x, [-3.0, -1.1, -0.4, 0.3, 0.9, 1.7, 4.0])
    u = sp.Dummy("u", real=True)
    for within, outer, sign in ((sp.cos(x), sp.sin(x), -1), (sp.sin(x), sp.cos(x), 1)):
        rest = tidy(e / outer).xreplace({within: u})
        if not rest.has(x) and rest.is_rational_function(u):
            return sign * _real(ratint(rest, u), u, [-0.9, -0.5, 0.1, 0.4, 0.8]).xreplace({u: within})
    return sp.Integral(e, x)


def _real(e: sp.Expr, x: sp.Symbol, places: list[float]) -> sp.Expr:
    """With `log(-p)` for `log(p)` where p is a polynomial in x alone that is negative at all these places."""
    logs = [f for f in e.atoms(sp.log) if f.args[0].free_symbols == {x}]
    below = [f for f in logs if all(f.args[0].subs(x, at) < 0 for at in places)]
    return e.xreplace({f: sp.log(sp.expand(-f.args[0])) for f in below})
