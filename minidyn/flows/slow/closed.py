"""The quasistatic flow in closed form: its equations in the coordinates of a chart, and their integration.

    ds = a(s) dk + l B sigma dW        theta = theta(s)

derived by `reduction` for the map's own rule and noise. The state is theta, then the coordinates s.
Source: as the quasistatic flow; Ito, *On stochastic differential equations on a differentiable manifold* (1950).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray
from sympy.integrals.rationaltools import ratint

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError, InputError
from minidyn.common.intake import numbers
from minidyn.common.locks import cached_property
from minidyn.compiler import compiled
from minidyn.flows.base import WIDEST
from minidyn.flows.slow.chartfield import add_chart_field, bend, can_be_written
from minidyn.flows.slow.oscillation import SLACK
from minidyn.flows.slow.quasistatic import QuasistaticFlow
from minidyn.flows.slow.reduction import ChartForm, Reduction
from minidyn.graph import Converter, Graph, Node
from minidyn.kernels import Emitter, Source, store
from minidyn.kernels.linalg import cholesky_semidefinite, discrete_lyapunov, extreme_eigenvalues, inner, solve
from minidyn.kernels.pointers import SIGNATURES
from minidyn.maps import letters
from minidyn.maps.discrete import Map
from minidyn.minima.charts import Chart, tidy
from minidyn.minima.manifold import Manifold

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

Floats = NDArray[np.float64]
SIGNATURES |= {
    "chart_form": "void(f8[:], f8[:], f8[:], f8[:], f8[:], f8[:])",  # s, kk, hp, c, nz, out
    "chart_place": "void(f8[:], f8[:], f8[:], f8[:])",  # s, c, nz, out
}


def _retract(fns, w, hp, c, d, nz, fp):
    place = fns[1]
    dim = np.int64(fp[0])
    out = np.empty(dim)
    place(w[dim:], c, nz, out)
    for i in range(dim):
        w[i] = out[i]
    return 0


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    """Drift per step and noise factor per square root of a step, of theta and of the coordinates."""
    form, _ = fns
    dim = np.int64(fp[0])
    count = np.int64(fp[1])
    width = np.int64(fp[2])
    core = np.int64(fp[3])
    coupled = fp[4] != 0.0
    pairs = np.int64(fp[5])
    s = w[dim:]
    kk = np.empty(1)
    kk[0] = k
    at_cov = count
    at_noise = at_cov + count * count
    at_core = at_noise + count * width
    at_slope = at_core + core * core
    at_bend = at_slope + dim * count
    at_feedback = at_bend + dim
    heard, cloud = np.int64(fp[6]), np.int64(fp[7])
    out = np.empty(at_feedback + pairs * pairs + cloud + heard)
    if heard == 0:
        form(s, kk, hp, c, nz, out)
    elif not consistent(form, s, kk, hp, c, nz, count, heard, out):
        return 6
    for q in range(out.shape[0]):
        if not abs(out[q]) < np.inf:
            return 6
    gap = np.empty((core, core))
    unit = np.zeros((core, core))
    spread = np.empty((core, core))
    for i in range(core):
        unit[i, i] = 1.0
        for j in range(core):
            gap[i, j] = unit[i, j] - out[at_core + i * core + j]
    if core == 1:
        if not 0.0 < gap[0, 0] < 2.0:
            return 5
    elif not discrete_lyapunov(gap, unit, unit, spread):
        return 5
    if pairs > 0 and not settles(out[at_feedback : at_feedback + pairs * pairs], pairs):
        return 9
    at_cloud = at_feedback + pairs * pairs
    if cloud > 0:
        least, largest = extremes(out[at_cloud : at_cloud + cloud], cloud)
        if not least >= -SLACK * max(0.0, largest):
            return 18
    root = np.zeros((count, f.shape[1]))
    if coupled:
        for a in range(count):
            for r in range(width):
                root[a, r] = out[at_noise + a * width + r]
    else:
        small = np.empty((count, count))
        lower = np.empty((count, count))
        for a in range(count):
            for e in range(count):
                small[a, e] = out[at_cov + a * count + e]
        cholesky_semidefinite(small, lower)
        for a in range(count):
            for e in range(count):
                root[a, e] = lower[a, e]
    for a in range(count):
        b[dim + a] = out[a]
        for r in range(f.shape[1]):
            f[dim + a, r] = root[a, r]
    for i in range(dim):
        total = out[at_bend + i]
        for a in range(count):
            total += out[at_slope + i * count + a] * out[a]
        b[i] = total
        for r in range(f.shape[1]):
            total = 0.0
            for a in range(count):
                total += out[at_slope + i * count + a] * root[a, r]
            f[i, r] = total
    return 0


@inner
def consistent(form, s, kk, hp, c, nz, count, heard, out):
    """`form` at coordinates s and at what the accumulators hear of the oscillation that it describes: the fixed point
    of its last outputs, extrapolated as in `oscillation.heard`; False where it is not found."""
    point = np.zeros(count + heard)
    last = np.zeros(heard)
    for a in range(count):
        point[a] = s[a]
    at = out.shape[0] - heard
    share = 1.0
    for turn in range(200):
        form(point, kk, hp, c, nz, out)
        change, before, both, scale = 0.0, 0.0, 0.0, 1e-300
        for i in range(heard):
            scale = max(scale, abs(out[at + i]))
        for i in range(heard):
            gap = out[at + i] - point[count + i]
            if not abs(gap) < np.inf:
                return False
            weight = 1.0 / (1e-6 * scale + abs(out[at + i]))
            change = max(change, abs(gap) * weight)
            before += ((gap - last[i]) * weight) ** 2
            both += last[i] * (gap - last[i]) * weight**2
        if change <= 1e-14:
            return True
        if turn > 0 and before > 0.0:
            share = min(1.5, max(0.1, -share * both / before))
        for i in range(heard):
            gap = out[at + i] - point[count + i]
            point[count + i] = max(0.0, point[count + i] + share * gap)
            last[i] = gap
    return change <= 1e-11


@inner
def settles(flat, pairs):
    """Whether second moments across the minima die out: `C = I + feedback C` has a positive solution, see `feedback`;
    the lower triangle of C is numbered row by row, and ends up in `flat`."""
    left = np.empty((pairs, pairs))
    x = np.zeros((pairs, 1))
    a, diagonal = 0, 0
    for at in range(pairs):
        if at == diagonal:
            x[at, 0] = 1.0
            a += 1
            diagonal += a + 1
        for p in range(pairs):
            left[at, p] = (1.0 if p == at else 0.0) - flat[at * pairs + p]
    if not solve(left, x):
        return False
    for at in range(pairs):
        flat[at] = x[at, 0]
    least, _ = extremes(flat, pairs)
    return least > 0.5


@inner
def extremes(x, pairs):
    """The least and the largest eigenvalue of a symmetric matrix, its lower triangle row by row in x."""
    size = 0
    while size * (size + 1) // 2 < pairs:
        size += 1
    C = np.empty((size, size))
    at = 0
    for a in range(size):
        for b in range(a + 1):
            C[a, b] = x[at]
            C[b, a] = x[at]
            at += 1
    return extreme_eigenvalues(C)


def _written(fns, w, k, hp, c, d, nz, fp, b, f):
    """`_field` where it is written out."""
    written_field, _ = fns
    return written_field(w, k, hp, c, nz, b, f)


def _put(fns, w, hp, c, d, nz, fp):
    _, written_place = fns
    written_place(w, c, nz)
    return 0


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

    name: ClassVar[str] = "quasistatic flow in closed form"
    needs: ClassVar[tuple[str, ...]] = ("chart_form", "chart_place")
    field: ClassVar[Any] = staticmethod(_field)
    retract: ClassVar[Any] = staticmethod(_retract)

    def __init__(self, system: Map, manifold: Manifold | None = None, accumulators: str = "self-consistent"):
        if isinstance(system, Map) and (manifold is None or manifold.chart is None):
            raise FlowError(
                "a closed form needs a chart of the minima: "
                "give Manifold(loss, chart={parameter: expression, ...}, coordinates=[...])."
            )
        super().__init__(system, manifold, accumulators)
        if self.averaged.rule.sign_gain is not None and system.rule.states:
            raise FlowError(f"no closed form is derived for {system.rule.name}: use the numerical flow.")

    @property
    def chart(self) -> Chart:
        """The chart of the minima whose coordinates the equations are in."""
        assert self.manifold.chart is not None
        return self.manifold.chart

    @cached_property
    def form(self) -> ChartForm:
        """The derivation, per step and in the chart's own symbols."""
        return Reduction(self.map, self.chart, self.accumulators).form()

    # -- formulas -----------------------------------------------------------------------------------
    @property
    def _lr(self) -> sp.Expr:
        hyper = self.map.rule.hyper
        return letters.hyper("lr", hyper["lr"]) if "lr" in hyper else sp.S.One

    @property
    def coordinates(self) -> list[sp.Symbol]:
        """The symbols s."""
        return list(self.chart.names)

    @cached_property
    def drift_formula(self) -> sp.Matrix:
        """`a(s)` with `ds = a dt + ...`, (d, 1), at finite lr."""
        return self._public(self.form.drift / self._lr)

    @cached_property
    def covariance_formula(self) -> sp.Matrix:
        """Covariance of `ds` per unit of t, (d, d)."""
        return self._public(self.form.covariance / self._lr)

    @property
    def letters(self) -> dict[sp.Symbol, sp.Expr]:
        """Definitions that the formulas use, in order."""
        return {s: self._shown(e) for s, e in self.form.letters.items()}

    @property
    def chart_heard(self) -> list[sp.Expr]:
        """What accumulators hear beside the noise at the minima: equations `e_1 = ...` for symbols of the formulas."""
        return [self.chart.public(e) for e in self.form.heard]

    @property
    def values(self) -> dict[sp.Symbol, float]:
        """Numbers of the symbols in the formulas that are no coordinates."""
        shown = zip(self._hyper.values(), self.map.rule.hyper.values(), strict=True)
        numbers = {s: float(v) for s, v in shown if not isinstance(v, sp.Expr)}
        return numbers | {self.chart.public(s): v for s, v in self.form.values.items()}

    @property
    def _hyper(self) -> dict[sp.Symbol, sp.Symbol]:
        """The rule's letters -> the symbols of the formulas."""
        return self.map.rule.public(self.chart.taken)

    def _shown(self, e: sp.Expr) -> sp.Expr:
        """An expression in the user's own symbols."""
        return self.chart.public(e.xreplace(self._hyper))

    def _public(self, m: sp.Matrix) -> sp.Matrix:
        return m.applyfunc(lambda e: self._shown(tidy(e, 300) if not self.form.letters else e))

    @cached_property
    def _leading_form(self) -> ChartForm:
        """The form without what the oscillation adds to accumulators, which is of higher order in lr."""
        return Reduction(self.map, self.chart, "full").form() if self.form.heard else self.form

    @cached_property
    def leading_drift(self) -> sp.Matrix | None:
        """The drift per unit of t to leading order in lr; None where the formula is too long to expand."""
        lr, form = self._lr, self._leading_form
        if form.letters or lr == 1:
            return None
        first = (form.drift / lr**2).applyfunc(lambda e: tidy(tidy(e, 2000).subs(lr, 0), 2000))
        return None if first.has(sp.nan, sp.zoo, sp.oo) else self._shown(lr) * first.applyfunc(self._shown)

    @cached_property
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
        """As of the numerical flow, where the derivation also has a factor on the map's own normals (`form.noise`)."""
        return super().couples and self.form.noise is not None

    @property
    def columns(self) -> int:  # type: ignore[override]
        """Columns of the noise factor."""
        return self.map.bound.gaussian_rows if self.couples else self.chart.dimension

    @cached_property
    def source(self) -> Source:
        """`chart_form(s, ...)`, all that was derived, and `chart_place(s, ...)`, theta; both at coordinates s.

        `written_field` and `written_place` beside them where no matrix has to be factorized.
        """
        src = Source(f"closed form of the quasistatic flow of {self.map.rule.name}")
        form, place, s = self.form, self.chart.place, self.chart.coordinates
        bends = [bend(form, s, e) for e in place]
        noise = list(form.noise) if self.couples and form.noise is not None else []
        slopes = [sp.diff(e, x) for e in place for x in s]
        outputs = [*form.drift, *form.covariance, *noise, *form.core, *slopes, *bends]
        outputs += [*form.feedback, *form.cloud, *form.heard]
        src.add("chart_form", "s, kk, hp, c, nz, out", self._lines(outputs, form.letters))
        src.add("chart_place", "s, c, nz, out", self._lines(place, {}))
        if can_be_written(form, self.chart, self.couples):
            add_chart_field(src, form, self.chart, self.couples, self._conversion)
        return src

    @cached_property
    def inlined(self) -> tuple[Any, Any, tuple[Any, ...]] | None:
        """The field number by number, where no matrix has to be factorized."""
        if not can_be_written(self.form, self.chart, self.couples):
            return None
        return compiled(_written), compiled(_put), (self.kernels.written_field, self.kernels.written_place)

    @property
    def in_lanes(self) -> bool:
        """Up to `WIDEST` numbers in the state."""
        return self.size <= WIDEST

    def _lines(self, outputs: list[Any], letters: dict[sp.Symbol, sp.Expr]) -> list[str]:
        """Stores of expressions of the chart into `out`."""
        g = Graph()
        convert = self._conversion(g, "s", 0, letters)
        return Emitter([store(g, convert(e), "out", i) for i, e in enumerate(outputs)]).lines()

    def _conversion(self, g: Graph, array: str, offset: int,
                    letters: dict[sp.Symbol, sp.Expr] | None = None) -> Converter:  # fmt: skip
        """sympy -> nodes, with the coordinates read from an array; all letters are known unless some are given."""
        letters = self.form.letters if letters is None else letters
        symbols: dict[Any, Node] = {c: g.load(array, offset + i) for i, c in enumerate(self.chart.coordinates)}
        for i in range(len(self.form.heard)):
            symbols[sp.Symbol(f"e_{i + 1}", positive=True)] = g.load(array, offset + self.chart.dimension + i)
        constants = list(self.chart.constants.values())
        for symbol, value in self.form.values.items():
            symbols[symbol] = g.load("c", constants.index(symbol)) if symbol in constants else g.const(value)
        rule = self.map.rule.converter(g, g.const(0.0), g.const(0.0), [g.const(0.0)] * len(self.map.rule.states),
                                       g.load("kk", 0), held=True)  # fmt: skip
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
        self._refuse_skew(np.asarray(w0).reshape(-1, self.size)[:, : self.dim], "is not in closed forms; use the "
                          "numerical flow")  # fmt: skip
        width = self.columns if self.couples else 0
        sizes = [self.dim, self.chart.dimension, width, self.form.core.rows, self.couples, self.form.feedback.rows,
                 len(self.form.heard), len(self.form.cloud)]  # fmt: skip
        return np.array(sizes, dtype=float)

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
        return any(e != 0 for e in self.form.covariance)

    def explain(self, code: int) -> str:
        """A status in words; 6 where a formula is not finite, others as of the numerical flow."""
        if code == 6:
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

    def describe(self, latex: bool = False, w: ArrayLike | None = None) -> str:
        """Equations in the chart, state, clock, assumptions, order, validity (its value at `w` if given), reference."""
        from minidyn.flows.slow.wording import describe_closed_form

        return describe_closed_form(self, latex, self._here(w))


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
        return ratint(e, x)
    u = sp.Dummy("u", real=True)
    for within, outer, sign in ((sp.cos(x), sp.sin(x), -1), (sp.sin(x), sp.cos(x), 1)):
        rest = tidy(e / outer).xreplace({within: u})
        if not rest.has(x) and rest.is_rational_function(u):
            return sign * ratint(rest, u).xreplace({u: within})
    return sp.Integral(e, x)
