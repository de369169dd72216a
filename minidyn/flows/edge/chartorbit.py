"""The period-two orbit across a chart of the minima, in symbols: the subquadratic flow's equations.

For a map without noise, `z' = F(z)`, with even and odd parts about the mid-point `c` of the oscillation `c +- delta`,

    even   F_e(c, d) = [F(c + d) + F(c - d)] / 2       mid-point   dc/dk = F_e(c, d) - c
    odd    F_o(c, d) = [F(c + d) - F(c - d)] / 2       amplitude   -F_o(c, d) = d

On a chart `c = theta(s)`, with `d` normal to it, this closes where the even part has no normal component (a valley
that is symmetric about its floor) and the odd part no tangential one. Gradient descent, heavy ball and Nesterov are
linear in gradient and momentum, so their momenta can be eliminated (exactly for the amplitude, to leading order in the
mid-point's speed for the drift): with the rule's gains at the frequencies -1 and 1,

    g_o(theta(s), d) = 2 d / lr_odd        ds/dt = -(theta'^T theta')^-1 theta'^T g_e(theta(s), d) lr_even / lr

GD: lr_odd = lr_even = lr.  Heavy ball: lr_odd = lr / (1 + beta), lr_even = lr / (1 - beta). Rules with accumulators are
not linear; where every parameter lies either across the minima or along them, each has its own equations (`parity`),
with the accumulators as further variables: RMSProp across, `lr g / (sqrt(beta2 v + (1 - beta2) g^2) + eps) = 2 d`.
Source: Ma, Kunin, Wu, Ying, *Beyond the quadratic approximation* (2022), section 4.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError, said
from minidyn.common.intake import flag
from minidyn.common.reports import folded
from minidyn.flows.edge.parity import parity
from minidyn.graph.walk import printed
from minidyn.maps import rule_symbols
from minidyn.maps.discrete import Map
from minidyn.maps.rule_symbols import THETA, G, in_latex
from minidyn.maps.rules import Rule, displacement
from minidyn.minima.charts import Chart, repeatable, tidy
from minidyn.minima.manifold import Manifold


@dataclass(frozen=True, eq=False)
class OrbitForm(ByValue):
    """The equations of a period-two orbit on a chart; symbols are the chart's coordinates, `amplitudes` and `lr`, ...

    amplitudes : one symbol for each direction across the chart.  directions : (D, r), `delta = directions amplitudes`.
    coordinates : the chart's, then the accumulators of every parameter that the rule has.
    odd : (r) expressions that vanish on the orbit, `n . g_o - 2 |n|^2 a / lr_odd` for each direction n; with
        accumulators the steps `-f_o - 2 a` themselves.
    drift : (d) the drift of the coordinates per unit of t as a function of coordinates and amplitudes.
    threshold : (r, r) slopes of `odd` in the amplitudes, `H - 2 / lr_odd` in the directions: the orbit is born where an
        eigenvalue passes zero.
    solved : amplitudes as expressions in the coordinates where sympy could solve for them (positive branch), else None.
    """

    coordinates: list[sp.Symbol]
    amplitudes: list[sp.Symbol]
    directions: sp.Matrix
    odd: list[sp.Expr]
    drift: list[sp.Expr]
    threshold: sp.Matrix
    solved: list[sp.Expr] | None
    values: dict[sp.Symbol, float]

    def residual(self, s: Any, a: Any) -> np.ndarray:
        """The odd equations at numbers (d,), (r,): zero on the orbit, shape (r,)."""
        return self._numbers(self.odd, s, a)

    def motion(self, s: Any, a: Any) -> np.ndarray:
        """The mid-point's drift per unit of t at numbers (d,), (r,): shape (d,)."""
        return self._numbers(self.drift, s, a)

    def _numbers(self, exprs: list[sp.Expr], s: Any, a: Any) -> np.ndarray:
        known = self.__dict__.setdefault("_compiled", {})
        key = id(exprs)
        if key not in known:
            fixed = [e.xreplace(self.values) for e in exprs]
            known[key] = sp.lambdify([self.coordinates, self.amplitudes], fixed, ["scipy", "numpy"])
        return np.array(known[key](list(np.atleast_1d(s)), list(np.atleast_1d(a))), dtype=float)

    def describe(self, latex: bool = False) -> str:
        """The equations as text in lines of 80 columns or as LaTeX, the amplitude solved for or implicit."""
        names = [str(s) for s in (*self.coordinates, *self.amplitudes)]
        show = partial(in_latex, beside=names) if flag(latex, "describe: latex") else str
        wrap = (lambda t: f"${t}$") if latex else (lambda t: "  " + t)
        if self.solved is None:
            lines = ["the amplitude is given implicitly by", *(wrap(f"{show(_shorter(e))} = 0") for e in self.odd)]
        else:
            lines = [
                "the amplitude is",
                *(wrap(f"{show(a)} = {show(e)}") for a, e in zip(self.amplitudes, self.solved, strict=True)),
            ]
        left = r"\mathrm{d}%s/\mathrm{d}t" if latex else "d%s/dt"
        rows = [wrap(f"{left % show(c)} = {show(e)}") for c, e in zip(self.coordinates, self.drift, strict=True)]
        text = "\n".join([*lines, "where that is real and positive, else 0; then", *rows])
        return text if latex else folded(text)


@repeatable()
def orbit_form(system: Map, manifold: Manifold) -> OrbitForm:
    """The subquadratic flow's equations on a chart of the minima.

    Raises FlowError without a chart, for rules that are not odd and smooth in gradient and momenta, where the
    oscillation's mid-point leaves the chart, and for accumulators of parameters neither across nor along the minima.

    >>> import sympy as sp, minidyn as md
    >>> x, y, s = sp.symbols("x y s")
    >>> loss = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
    >>> form = orbit_form(md.Map(loss, md.GD(0.1)), md.Manifold(loss, chart={x: s, y: 0}, coordinates=[s]))
    >>> form.drift
    [-2*s*log(cosh(delta))]
    """
    chart = manifold.chart
    if chart is None:
        raise FlowError(
            f"the orbit's equations need a chart: give {said('Manifold(loss, chart={...}, coordinates=[...])')}."
        )
    linear = displacement(system.rule).linear and not system.rule.scheduled
    slope, n = _tangents_and_normals(chart)
    count = n.cols
    names = ["delta"] if count == 1 else [f"delta_{i + 1}" for i in range(count)]
    amplitudes = [sp.Symbol(name, real=True) for name in names]
    delta = n * sp.Matrix(amplitudes)
    even, odd = _parts(chart, delta)
    for name, part in (
        ("mid-point leaves the chart", n.T * even),
        ("oscillation turns along the chart", slope.T * odd),
    ):
        left = [e for e in (_parity(tidy(e)) for e in part) if e != 0]
        if left:
            raise FlowError(
                f"the {name} (by {printed(chart.public(left[0]), 80)}): the valley is not symmetric about it, and the "
                "orbit has no closed equations in its coordinates; use the numerical flow."
            )
    lr = rule_symbols.hyper("lr", system.rule.hyper["lr"]) if "lr" in system.rule.hyper else sp.S.One
    gram = (n.T * n).applyfunc(tidy)
    metric = (slope.T * slope).applyfunc(tidy)
    held: list[sp.Symbol] = []
    if linear:
        odd_rate, even_rate = _rates(system)
        equations = [tidy(e) for e in n.T * odd - 2 / odd_rate * gram * sp.Matrix(amplitudes)]
        drift = list(-(metric.inv() * slope.T * even) * even_rate / lr)
    else:
        step, held, fed = _stepped(system, n, slope, odd, even)
        equations = [-(n[:, a].T * step)[0] - 2 * gram[a, a] * amplitudes[a] for a in range(count)]
        drift = [e / lr for e in [*(metric.inv() * slope.T * step), *fed]]
    still = {a: sp.S.Zero for a in amplitudes}
    threshold = sp.Matrix(count, count, lambda i, j: tidy(sp.diff(equations[i], amplitudes[j]).subs(still)))
    public = partial(_public, chart, system.rule)
    values = {public(k): v for k, v in chart.values.items()}
    shown = system.rule.public(chart.taken)
    values |= {shown[rule_symbols.hyper(h, v)]: float(v) for h, v in system.rule.hyper.items()}
    solved = _solve(equations, amplitudes)
    return OrbitForm(
        [*chart.names, *held], amplitudes, n.applyfunc(public), [public(e) for e in equations],
        [public(tidy(e) if linear else e) for e in drift], threshold.applyfunc(public),
        None if solved is None else [public(e) for e in solved], values,
    )  # fmt: skip


def _public(chart: Chart, rule: Rule, e: sp.Expr) -> sp.Expr:
    """An expression in the user's own symbols."""
    return chart.public(e.xreplace(rule.public(chart.taken)))


def _stepped(system: Map, n: sp.Matrix, slope: sp.Matrix, odd: sp.Matrix, even: sp.Matrix,
             ) -> tuple[sp.Matrix, list[sp.Symbol], list[sp.Expr]]:  # fmt: skip
    """Steps of theta (D, 1) on the orbit, accumulators of every parameter, and what these change by in a step."""
    known = parity(system.rule)
    across = [any(e != 0 for e in n.row(i)) for i in range(n.rows)]
    alone = all(sum(e != 0 for e in n.col(a)) == 1 for a in range(n.cols)) and sum(across) == n.cols
    if not alone or any(a and any(e != 0 for e in slope.row(i)) for i, a in enumerate(across)):
        raise FlowError(
            f"{system.rule.name} has accumulators, and a parameter lies neither across the minima nor along them: its "
            "orbit has no closed equations on this chart; use the numerical flow."
        )
    steps: list[sp.Expr] = []
    held: list[sp.Symbol] = []
    fed: list[sp.Expr] = []
    for i, name in enumerate(system.loss.param_names):
        own = {rule_symbols.state(s): sp.Symbol(f"{s}_{name}", positive=True) for s in known.even}
        at = own | {G: _parity(odd[i] if across[i] else even[i])}
        steps.append((known.alternating if across[i] else known.steady).xreplace(at))
        held += own.values()
        fed += [known.feeds[s][not across[i]].xreplace(at) for s in known.even]
    return sp.Matrix(steps), held, fed


def rates(system: Map) -> tuple[sp.Expr, sp.Expr]:
    """How far theta moves for a gradient that alternates in sign, and for one that stays: `lr_odd`, `lr_even`."""
    odd, even = (e.xreplace(system.rule.public()) for e in _rates(system))
    return odd, even


def _rates(system: Map) -> tuple[sp.Expr, sp.Expr]:
    """The same in the letters of the rule."""
    known, m = system.rule.known, system.rule.letters
    new, *states = (e.xreplace(known) for e in system.rule.step)
    inputs = [G, *m]
    jacobian = sp.Matrix([[sp.diff(e, x) for x in inputs] for e in (new - THETA, *states)])
    linear = not jacobian.has(THETA, *inputs) and not any(e.has(sp.sign, sp.Abs) for e in (new, *states))
    zero = {x: sp.S.Zero for x in inputs}
    if not linear or system.rule.scheduled or any(e.subs(zero) != 0 for e in (new - THETA, *states)):
        raise FlowError(
            f"{system.rule.name} is not linear in gradient and momentum (or has a schedule): its orbit has no closed "
            "equations on a chart; use GD or SGD, or the numerical flow."
        )
    step, inner = jacobian[0, :], jacobian[1:, 1:]

    def rate(z: int) -> sp.Expr:
        # theta moves by step . (g, m) with m' = inner m + feed g, and m' = z m on the orbit
        held = (z * sp.eye(len(m)) - inner).inv() * jacobian[1:, 0] if m else sp.zeros(0, 1)
        return tidy(-step[0] - sum(x * y for x, y in zip(step[1:], held, strict=True)))

    return rate(-1), rate(1)


def _tangents_and_normals(chart: Chart) -> tuple[sp.Matrix, sp.Matrix]:
    """Slopes of theta in the coordinates (D, d), and what spans their complement (D, D - d)."""
    slope = sp.Matrix([[sp.diff(e, s) for s in chart.coordinates] for e in chart.place])
    null = slope.T.nullspace(simplify=tidy)
    return slope, sp.Matrix.hstack(*[v.applyfunc(tidy) for v in null])


def _parts(chart: Chart, delta: sp.Matrix) -> tuple[sp.Matrix, sp.Matrix]:
    """Even and odd part of the gradient about the chart."""
    sides = []
    for sign in (1, -1):
        at = {p: c + sign * d for p, c, d in zip(chart.params, chart.place, delta, strict=True)}
        sides.append(sp.Matrix([g.xreplace(at) for g in chart.gradient]))
    half = sp.Rational(1, 2)
    return ((sides[0] + sides[1]) * half).applyfunc(tidy), ((sides[0] - sides[1]) * half).applyfunc(tidy)


def _parity(e: sp.Expr) -> sp.Expr:
    return e if e == 0 or sp.count_ops(e) > 300 else sp.simplify(e)


def _shorter(e: sp.Expr) -> sp.Expr:
    return min(e, _parity(e), key=sp.count_ops)


def _solve(equations: list[sp.Expr], amplitudes: list[sp.Symbol]) -> list[sp.Expr] | None:
    """The positive amplitude of one polynomial equation in its square; None for anything harder."""
    if len(amplitudes) != 1:
        return None
    (a,), (e,) = amplitudes, equations
    top = sp.fraction(sp.together(e))[0]
    if not top.is_polynomial(a):
        return None
    square = sp.Dummy("q")
    quotient = sp.cancel(sp.Poly(top, a).as_expr() / a)
    poly = sp.Poly(sp.expand(quotient), a)
    if any(power % 2 for (power,) in poly.monoms()) or poly.degree() != 2:
        return None
    (root,) = sp.solve(sp.expand(quotient).subs(a**2, square), square)
    return [sp.sqrt(sp.factor(root))]
