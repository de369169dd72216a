"""What the closed form of a quasistatic flow is made of, as sympy expressions on a chart.

The loss's second and third derivatives, the covariance of the noise with its diagonal's derivatives, and the
averaged rule's slopes and curvatures at its fixed state: the symbolic twin of `linearization`.
"""

from dataclasses import dataclass

import sympy as sp

from minidyn.common.errors import FlowError, said
from minidyn.maps.averaging import AveragedRule, averaged
from minidyn.maps.discrete import Map
from minidyn.maps.rule_symbols import THETA, G
from minidyn.maps.rule_symbols import VARIANCE as _Q
from minidyn.minima.charts import Chart, exact, slope, tidy

Q_ROOT = sp.Symbol("r\x02", positive=True)  # sqrt(q) of one coordinate: with it the rules are rational


@dataclass(frozen=True)
class Ingredients:
    """Everything on the chart `theta(s)`.

    hessian, sigma : (D, D).  third[i] : (D, D), the derivative of the Hessian along parameter i.
    q, dq, ddq : diagonal of sigma, its first derivatives (D, D), its second ones, one matrix per entry.
    factor : (D, r) with `sigma = factor factor^T` where all noise is Gaussian, else None.
    bends[i][j] : (D, D), contracted with W it is `D^2 sigma_ij[W] / 2`, without labels; None where that vanishes.
    slopes[i][j] : the same of the noise's slopes alone, without its curves; None where there are no curves.
    values : numbers of the symbols that are neither coordinates nor hyperparameters.
    """

    hessian: sp.Matrix
    third: list[sp.Matrix]
    sigma: sp.Matrix
    factor: sp.Matrix | None
    bends: list[list[sp.Matrix]] | None
    slopes: list[list[sp.Matrix]] | None
    q: list[sp.Expr]
    dq: sp.Matrix
    ddq: list[sp.Matrix]
    values: dict[sp.Symbol, float]


def ingredients(system: Map, chart: Chart) -> Ingredients:
    """Derivatives of the loss and of the noise's covariance on a chart."""
    params = chart.params

    def on(e: sp.Expr) -> sp.Expr:
        return tidy(chart.restrict(e))

    hessian = [[slope(g, p) for p in params] for g in chart.gradient]
    third = [sp.Matrix([[on(slope(h, p)) for h in row] for row in hessian]) for p in params]
    symbols, size = _Symbols(system, chart), len(params)
    columns, factor = system.bound.symbolic_covariance(symbols)
    sigma = sp.zeros(size, size)
    for weight, column, _ in columns:
        sigma += weight * column * column.T
    q = [sigma[i, i] for i in range(size)]
    bends = _bends([(weight, column) for weight, column, bent in columns if bent], chart)
    return Ingredients(
        sp.Matrix(hessian).applyfunc(on),
        third,
        sigma.applyfunc(on),
        None if factor is None else factor.applyfunc(on),
        *bends,
        [on(e) for e in q],
        sp.Matrix(size, size, lambda i, j: on(slope(q[i], params[j]))),
        [sp.Matrix(size, size, lambda i, j, e=e: on(slope(slope(e, params[i]), params[j]))) for e in q],
        symbols.values,
    )


Column = tuple[sp.Expr, sp.Matrix]


Bends = list[list[sp.Matrix]] | None


def _bends(columns: list[Column], chart: Chart) -> tuple[Bends, Bends]:
    """`D^2 (sum weight c c^T) / 2` over the columns on a chart, entry by entry, and that of their slopes alone."""
    params, size = chart.params, len(chart.params)
    parts = []
    for weight, column in columns:
        slopes = [[slope(e, p) for p in params] for e in column]
        if all(e == 0 for row in slopes for e in row):
            continue
        value = [tidy(chart.restrict(e)) for e in column]
        curves = [
            [[chart.restrict(slope(e, p)) if v != 0 or any(value) else sp.S.Zero for p in params] for e in row]
            for row, v in zip(slopes, value, strict=True)
        ]
        parts.append((weight, value, [[chart.restrict(e) for e in row] for row in slopes], curves))

    def entry(whole: bool, i: int, j: int, k: int, m: int) -> sp.Expr:
        return tidy(sp.Add(*(
            weight * (s[i][k] * s[j][m] + s[i][m] * s[j][k] + int(whole) * (c[i][k][m] * v[j] + v[i] * c[j][k][m])) / 2
            for weight, v, s, c in parts
        )))  # fmt: skip

    def bends(whole: bool) -> list[list[sp.Matrix]]:
        table = [
            [
                sp.Matrix(size, size, lambda k, m, i=i, j=j: entry(whole, i, j, min(k, m), max(k, m)))
                for j in range(i + 1)
            ]
            for i in range(size)
        ]
        return [[table[max(i, j)][min(i, j)] for j in range(size)] for i in range(size)]

    both = bends(True)
    slopes = bends(False) if any(any(v) for _, v, _, _ in parts) else both
    none = all(m.is_zero_matrix for row in both + slopes for m in row)
    return (None, None) if none else (both, None if slopes == both else slopes)


class _Symbols:
    """A loss on a chart as its noise asks for it: derivatives, samples, and symbols for its numbers (`values`)."""

    def __init__(self, system: Map, chart: Chart):
        self.chart, self.loss, self.on_samples = chart, chart.loss, chart.on_samples
        self.gradient = sp.Matrix(chart.gradient)
        self.values: dict[sp.Symbol, float] = dict(chart.values)
        self._taken = set(map(str, chart.taken)) | {str(s) for s in system.rule.public(chart.taken).values()}
        self._rename = dict(zip(chart.loss.params, chart.params, strict=True)) | chart.constants

    def slopes(self, e: sp.Expr) -> sp.Matrix:
        """The derivatives of an expression in the parameters, (D, 1)."""
        return sp.Matrix([slope(e, p) for p in self.chart.params])

    def renamed(self, e: sp.Expr) -> sp.Expr:
        """An expression of the user's in the chart's symbols."""
        return e.xreplace(self._rename)

    def exact(self, value: float) -> sp.Expr:
        """A number without roundings."""
        return exact(value)

    def symbol(self, name: str, value: float) -> sp.Symbol:
        """A fresh symbol that stands for a number."""
        while name in self._taken:
            name += "_noise"
        symbol = sp.Symbol(name, positive=True)
        self.values[symbol] = float(value)
        return symbol


@dataclass(frozen=True)
class Jets:
    """The averaged rule at its fixed state, for one coordinate with `q = r^2`; symbols `theta`, `r`, `k` and hyper.

    slopes[a][p], curves[a][p][u] : derivatives of output `a` (theta, then the states) in the inputs
    `(theta, g, q, states...)`.  gain, sign_gain : answer to the noise and to its sign.  weak : the force of theory
    2.2c.  fixed : the states.  names : of the states.
    """

    slopes: list[list[sp.Expr]]
    curves: list[list[list[sp.Expr]]]
    gain: list[sp.Expr]
    sign_gain: list[sp.Expr] | None
    weak: sp.Expr
    fixed: list[sp.Expr]
    names: tuple[str, ...]
    accumulators: tuple[bool, ...] = ()


def jets(system: Map, accumulators: str) -> Jets:
    """Slopes and curvatures of the averaged rule; frozen accumulators neither move nor answer."""
    rule: AveragedRule = averaged(system.rule, accumulators).known()
    if rule.wide:
        raise FlowError(f"{rule.rule.name} is averaged over the noise by quadrature: use the numerical flow.")
    if rule.remembers and accumulators == "self-consistent":
        instead = said(", or accumulators='full'")
        raise FlowError(
            f"{rule.rule.name} accumulates squares of what it remembers, and what it sees of the oscillation has no "
            f"closed form: use the numerical flow{instead}."
        )
    states = rule.rule.letters
    fixed = _fixed_states(rule, states)
    at = {**dict(zip(states, fixed, strict=True)), G: sp.S.Zero, _Q: Q_ROOT**2}
    inputs = [THETA, G, _Q, *states]

    def here(e: sp.Expr) -> sp.Expr:
        return tidy(sp.simplify(sp.sympify(e).subs(at, simultaneous=True)))

    frozen = [accumulators == "frozen" and a for a in rule.accumulators]
    dead = [False, False, False, *frozen]
    slopes: list[list[sp.Expr]] = []
    curves: list[list[list[sp.Expr]]] = []
    for a, e in enumerate(rule.outputs):
        silent = a > 0 and frozen[a - 1]
        row, bend = [], []
        for p, x in enumerate(inputs):
            first = sp.diff(e, x)
            off = silent or dead[p]
            row.append(sp.S.Zero if off else here(first))
            bend.append([sp.S.Zero if off or dead[u] else here(sp.diff(first, y)) for u, y in enumerate(inputs)])
        slopes.append(row)
        curves.append(bend)
    slopes[0][0] = sp.S.One
    curves[0][0][0] = sp.S.Zero
    gain = [sp.S.Zero if a and frozen[a - 1] else here(e) for a, e in enumerate(rule.gain)]
    sign_gain = [here(e) for e in rule.sign_gain] if rule.sign_gain else None
    return Jets(
        slopes, curves, gain, sign_gain, here(rule.outputs[0] - THETA), fixed, rule.rule.states, rule.accumulators
    )


def _fixed_states(rule: AveragedRule, states: list[sp.Symbol]) -> list[sp.Expr]:
    """The states that the averaged rule leaves in place where the gradient vanishes, in `theta` and `r`."""
    if not states:
        return []
    rests = [(e.subs(G, 0) - s).subs(_Q, Q_ROOT**2) for e, s in zip(rule.outputs[1:], states, strict=True)]
    try:
        found = sp.solve(rests, states, dict=True)
    except NotImplementedError:
        found = []
    if len(found) != 1 or set(found[0]) != set(states):
        raise FlowError(f"the fixed state of {rule.rule.name} could not be solved for: use the numerical flow.")
    return [tidy(found[0][s]) for s in states]
