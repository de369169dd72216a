"""Slow flows in words: formulas as text or LaTeX, what their symbols mean, why there is no flow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import sympy as sp

from minidyn.common.errors import said
from minidyn.common.status import Status
from minidyn.flows.slow.validity import bounds, weak_force
from minidyn.maps.rule_symbols import NODES, in_latex, number_in_latex
from minidyn.maps.rules.writing import Notation, folded

if TYPE_CHECKING:
    from minidyn.flows.slow.closed import ClosedFormFlow
    from minidyn.flows.slow.quasistatic import QuasistaticFlow

_LONG = 160  # operations up to which a formula at finite lr is printed beside its leading order


def equations(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """`ds = a dt + ...`, line by line: the drift of every coordinate, then the covariance."""
    drift, cov, names = flow.drift_formula, flow.covariance_formula, flow.coordinates
    show = _shown(flow, latex)
    lines = []
    for a, s in enumerate(names):
        left = rf"\mathrm{{d}}{show(s)}/\mathrm{{d}}t" if latex else f"drift of {s} per t"
        lines.append((left, drift[a]))
    for a, s in enumerate(names):
        for b in range(a + 1):
            if cov[a, b] != 0:
                left = (
                    rf"\mathrm{{d}}\langle {show(s)}, {show(names[b])}\rangle/\mathrm{{d}}t"
                    if latex
                    else f"covariance of {s}, {names[b]} per t"
                )
                lines.append((left, cov[a, b]))
    return [_equation(left, right, show) for left, right in lines]


def _shown(flow: ClosedFormFlow, latex: bool) -> Callable[[Any], str]:
    """How an expression is written; no hyperparameter by a letter that the loss or the chart have."""
    loss = flow.map.loss
    return (
        partial(in_latex, beside=[str(s) for s in (*flow.coordinates, *loss.params, *loss.constants)]) if latex else str
    )


def _equation(left: str, right: Any, show: Callable[[Any], str]) -> str:
    return f"  {left} = {right}" if show is str else f"${left} = {show(right)}$"


def leading(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """The drift to leading order in lr, where it is shorter than the one at finite lr."""
    first = flow.leading_drift
    if first is None or sp.count_ops(first) >= sp.count_ops(flow.drift_formula):
        return []
    show = _shown(flow, latex)
    left = r"\mathrm{d}%s/\mathrm{d}t" if latex else "drift of %s per t"
    return ["to leading order in lr:"] + [
        _equation(left % show(s), first[a], show) for a, s in enumerate(flow.coordinates)
    ]


def potential(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """The effective potential, where there is one."""
    known = flow.potential
    if known is None:
        return []
    show = _shown(flow, latex)
    if known.flat:
        say = "effective potential U, leading drift = -grad U in the coordinates:"
    else:
        metric = show(known.metric) if latex else str(known.metric.tolist())
        say = f"effective potential U, leading drift = -G^-1 grad U with G = {'$' + metric + '$' if latex else metric}:"
    return [say, _equation("U", known.value, show)]


def definitions(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """What the letters in the formulas stand for."""
    show = _shown(flow, latex)
    seen = [show(e) for e in flow.accumulated]
    solved = (
        [f"where {', '.join(f'e_{i + 1}' for i in range(len(seen)))} solve, together,"]
        + [f"$e_{{{i + 1}}} = {e}$" if latex else f"  e_{i + 1} = {e}" for i, e in enumerate(seen)]
        if seen
        else []
    )
    if not flow.letters:
        return solved
    lines = [_equation(show(s), e, show) for s, e in flow.letters.items()]
    head = f"where, in this order ({len(lines)} definitions: written out the formula would be too long),"
    return [head, *lines, *solved]


def describe_closed_form(flow: ClosedFormFlow, latex: bool = False, here: str = "") -> str:
    """Everything about a closed form: equations, meanings, assumptions, order, validity (`here` ends it), reference."""
    chart, show = flow.chart, _shown(flow, latex)
    place = ", ".join(
        f"{show(p)} = {show(chart.public(e))}" for p, e in zip(chart.loss.params, chart.place, strict=True)
    )
    numbers = ", ".join(
        f"${show(s)} = {number_in_latex(v)}$" if latex else f"{s} = {v:g}"
        for s, v in flow.values.items()
        if s in _symbols(flow)
    )
    reading = f", {flow.accumulators} accumulators" if any(flow.averaged.rule.accumulators) else ""
    return "\n".join([
        f"Closed form of the quasistatic flow of {flow.map.rule} with {flow.map.noise}{reading}",
        f"chart: {'$' + place + '$' if latex else place}; it {chart.evidence}",
        "at finite lr (Ito), exact in lr to leading order in the noise:", *equations(flow, latex),
        *definitions(flow, latex), *leading(flow, latex), *potential(flow, latex),
        f"with {numbers}",
        f"state: theta, then the coordinates {', '.join(map(str, flow.coordinates))}; clock: t = lr k",
        "assumes: noise small enough that the oscillation stays near the manifold, minima stable for the rule",
        "order: leading order in the noise at finite lr",
        f"valid: {bounds(flow)}, small{here}", *weak_force(flow),
        f"reference: {flow.reference}",
    ])  # fmt: skip


def _symbols(flow: ClosedFormFlow) -> set[Any]:
    parts = [*flow.drift_formula, *flow.covariance_formula, *flow.letters.values()]
    return set().union(*(e.free_symbols for e in parts))


def describe_quasistatic(flow: QuasistaticFlow, latex: bool, here: str) -> str:
    """Everything about the numerical flow: equations, assumptions, order, validity (`here` ends it), reference."""
    rule = flow.averaged.rule
    if latex:
        show = Notation(flow.map.rule, latex, bar=r"\bar{%s}")
        updates = [f"${show(n)} = {show(e)}$" for n, e in folded(flow.map.rule, rule.in_letters())]
        equations = [
            r"$Q = B\,[\Sigma + \frac{1}{2} D^2\Sigma[W_{SS}]]\,B^\top$",
            r"$W_{SS} = A W_{SS} A^\top + \Pi_S Q \Pi_S^\top,\quad W_{SN} = (I-A)_S^{-1}\Pi_S Q \Pi^\top$",
            r"$\mathrm{d}z = \{\frac{1}{2} \Pi F_2[W_{SS}+W_{SN}+W_{SN}^\top]"
            r" + \frac{1}{2} (I-A)_S^{-1}\Pi_S F_2[\Pi Q\Pi^\top]\}\,\mathrm{d}k + (\Pi Q \Pi^\top)^{1/2}\mathrm{d}W$",
        ]
    else:
        updates = [f"  {n}' = {e}" for n, e in zip(flow.map.rule.called, rule.shown(), strict=True)]
        equations = [
            "  Q = B [Sigma + D^2 Sigma[W_SS]/2] B^T",
            "  W_SS = A W_SS A^T + Pi_S Q Pi_S^T,  W_SN = (I-A)_S^-1 Pi_S Q Pi^T",
            "  drift per step = Pi F2[W_SS + W_SN + W_SN^T]/2 + (I-A)_S^-1 Pi_S F2[Pi Q Pi^T]/2",
            "  covariance per step = Pi Q Pi^T",
        ]
    reading = f", {flow.accumulators} accumulators" if any(rule.accumulators) else ""
    notes = []
    if rule.sign_gain is not None:
        first, later = rule.memory[1], rule.memory[2]
        lags = f", r_l = {first:.4g} * {later:.4g}^(l-1)" if first else ""
        notes.append(f"signs: rest of covariance (2/pi) (arcsin(rho r_l) - rho r_l) at every lag l, r_0 = 1{lags}")
    if flow.averaged.feels_skew:
        notes.append("skewness: E xi_i xi_j^2 of the batches is in Q, between xi and v, and in a weak force")
    if rule.wide:
        notes.append("E(...): mean over a standard normal x")
    if any(rule.accumulators):
        notes.append("where the noise has no component, eps alone divides: the gradient there stays well below eps")
    return "\n".join([
        f"Quasistatic flow of {flow.map.rule} with {flow.map.noise}{reading}",
        f"averaged rule, per coordinate (q = {_seen(flow)}):", *updates,
        "with A, B, Pi, F2 of the averaged rule on the manifold:", *equations,
        "state: w on the manifold of minima; clock: t = lr k (Ito)",
        "assumes: noise small enough that the oscillation stays near the manifold, minima stable for the rule",
        f"of the noise: {rule.assumed()}", *notes,
        "order: leading order in the noise at finite lr",
        f"valid: {bounds(flow)}, small{here}", *weak_force(flow),
        f"reference: {flow.reference}", *flow._in_the_chart(latex),
    ])  # fmt: skip


def _seen(flow: QuasistaticFlow) -> str:
    """What `q` stands for."""
    rule = flow.averaged.rule
    if not rule.answers or flow.accumulators != "self-consistent":
        return "diag Sigma"
    what = "accumulators see" if any(rule.accumulators) else "the curve sees"
    if rule.shares:
        return f"what {what} in all, in units of the noise: E of its square over all of W"
    return f"what {what} in all, diag(Sigma + D^2 Sigma[W]/2 + H W H)"


def no_motion(flow: QuasistaticFlow, code: int) -> str:
    """A status in words: why there is no slow motion along the minima at a point, and what to try; else nothing."""
    words: dict[int, str] = {
        Status.LEFT_MANIFOLD: f"the point is not on the manifold of minima; start from {said('manifold.project(w)')}.",
        Status.RANK_CHANGE: (
            "the rank of the Hessian changes here, the manifold is singular; start elsewhere or stop before"
            f"{said(', or resolve smaller curvatures with Manifold(loss, gap=...)')}."
        ),
        Status.UNSTABLE: (
            f"the minimum is unstable for {flow.map.rule} (the linearized map has an eigenvalue outside the "
            "unit circle); lower lr or start where the loss is flatter."
        ),
        Status.DRIVEN: (
            f"the minimum is unstable for {flow.map.rule} with {flow.map.noise}: the noise that a small "
            "displacement makes drives its second moments up, although its mean would come to rest; lower lr, take "
            f"larger batches or start where the loss is flatter ({said('md.stability')} says how far)."
        ),
        Status.RESTLESS: (
            f"{flow.map.rule} comes to no rest here, although there is noise: where the gradient vanishes its "
            "states have no resting values of their own with finite slopes; follow the map itself "
            f"with {said('md.simulate')}."
        ),
        Status.UNFORGETTING: (
            f"{flow.map.rule} rests at more than the minima here: its linear part leaves more in place than the "
            "directions along them (a state that never forgets, or a step of zero); follow the map itself with "
            f"{said('md.simulate')}."
        ),
        Status.SINGULAR: _silent(flow),
        Status.LAWLESS: (
            f"the oscillation of {flow.map.rule} with {flow.map.noise} has no stationary law here, although small "
            "displacements die out: how the noise curves with the displacement adds so much to it that its "
            "covariance, to second order, is not positive semidefinite; lower lr, make the noise smaller, or "
            f"follow the map itself with {said('md.simulate')}."
        ),
        Status.UNRESOLVED: (
            f"the noise is so much wider than the scale on which {flow.map.rule.name} bends that {NODES} nodes do "
            "not average over it; make the noise smaller or that scale larger, or follow the map itself with "
            f"{said('md.simulate')}."
        ),
    }
    return words.get(code, "")


def _silent(flow: QuasistaticFlow) -> str:
    """What `SINGULAR` means for this rule."""
    if flow.averaged.rule.sign_gain is not None:
        return (
            "the noise vanishes in a coordinate here, and there nothing smooths the sign that "
            f"{flow.map.rule.name} takes; add Gaussian noise, or start where every coordinate has some."
        )
    eps = "give the rule an eps" if not flow.map.rule.hyper.get("eps") else "take a larger eps"
    return (
        "the noise vanishes in a coordinate where the rule divides by its size; add Gaussian noise there, "
        f"start where there is some, {eps}, or use a rule without accumulators."
    )
