"""Closed forms in words: formulas as text or LaTeX, with what their symbols mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from minidyn.maps.letters import in_latex

if TYPE_CHECKING:
    from minidyn.flows.slow.closed import ClosedFormFlow

_LONG = 160  # operations up to which a formula at finite lr is printed beside its leading order


def equations(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """`ds = a dt + ...`, line by line: the drift of every coordinate, then the covariance."""
    drift, cov, names = flow.drift_formula, flow.covariance_formula, flow.coordinates
    show = in_latex if latex else str
    lines = []
    for a, s in enumerate(names):
        left = rf"\mathrm{{d}}{show(s)}/\mathrm{{d}}t" if latex else f"drift of {s} per t"
        lines.append((left, drift[a]))
    for a, s in enumerate(names):
        for b in range(a + 1):
            if cov[a, b] != 0:
                left = (rf"\mathrm{{d}}\langle {show(s)}, {show(names[b])}\rangle/\mathrm{{d}}t" if latex
                        else f"covariance of {s}, {names[b]} per t")  # fmt: skip
                lines.append((left, cov[a, b]))
    return [_equation(left, right, latex) for left, right in lines]


def _equation(left: str, right: Any, latex: bool) -> str:
    return f"${left} = {in_latex(right)}$" if latex else f"  {left} = {right}"


def leading(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """The drift to leading order in lr, where it is shorter than the one at finite lr."""
    first = flow.leading_drift
    if first is None or sp.count_ops(first) >= sp.count_ops(flow.drift_formula):
        return []
    show = in_latex if latex else str
    left = r"\mathrm{d}%s/\mathrm{d}t" if latex else "drift of %s per t"
    return ["to leading order in lr:"] + [
        _equation(left % show(s), first[a], latex) for a, s in enumerate(flow.coordinates)
    ]


def potential(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """The effective potential, where there is one."""
    known = flow.potential
    if known is None:
        return []
    if known.flat:
        say = "effective potential U, leading drift = -grad U in the coordinates:"
    else:
        metric = in_latex(known.metric) if latex else str(known.metric.tolist())
        say = f"effective potential U, leading drift = -G^-1 grad U with G = {'$' + metric + '$' if latex else metric}:"
    return [say, _equation("U", known.value, latex)]


def definitions(flow: ClosedFormFlow, latex: bool) -> list[str]:
    """What the letters in the formulas stand for."""
    seen = [f"{in_latex(e) if latex else e}" for e in flow.accumulated]
    solved = (
        [f"where {', '.join(f'e_{i + 1}' for i in range(len(seen)))} solve, together,"]
        + [f"${{e_{i + 1}}} = {e}$" if latex else f"  e_{i + 1} = {e}" for i, e in enumerate(seen)]
        if seen
        else []
    )
    if not flow.letters:
        return solved
    lines = [_equation(in_latex(s) if latex else str(s), e, latex) for s, e in flow.letters.items()]
    head = f"where, in this order ({len(lines)} definitions: written out the formula would be too long),"
    return [head, *lines, *solved]


def describe_closed_form(flow: ClosedFormFlow, latex: bool = False, here: str = "") -> str:
    """Everything about a closed form: equations, meanings, assumptions, order, validity (`here` ends it), reference."""
    chart = flow.chart
    place = ", ".join(
        f"{in_latex(p) if latex else p} = {in_latex(chart.public(e)) if latex else chart.public(e)}"
        for p, e in zip(chart.loss.params, chart.place, strict=True)
    )
    numbers = ", ".join(
        f"{'$' + in_latex(s) + '$' if latex else s} = {v:g}" for s, v in flow.values.items() if s in _symbols(flow)
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
        f"valid: {flow.bounds}, small{here}", *flow.weak_force(),
        f"reference: {flow.reference}",
    ])  # fmt: skip


def _symbols(flow: ClosedFormFlow) -> set[Any]:
    parts = [*flow.drift_formula, *flow.covariance_formula, *flow.letters.values()]
    return set().union(*(e.free_symbols for e in parts))
