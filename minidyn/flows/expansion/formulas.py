"""Modified flows and stochastic modified equations in formulas, as text and in LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidyn.flows.expansion.modified import ModifiedFlow
    from minidyn.flows.expansion.sme import StochasticModifiedFlow

_SQUARED = " + (f_gg f_gg^T) o Sigma o Sigma / 2"
_SKEWED = ("to M is added E xi^3 f_ggg/6; C = Cov(f_g xi + f_gg xi^2/2), with the third and fourth moments of xi",)
_LEANS = "c = <(H_i - H)(g_i - g)> over the samples"
_LEANS_IN_LATEX = r"c = \langle (H_i - H)(g_i - g) \rangle"


def in_text(flow: ModifiedFlow) -> list[str]:
    """One step, the equation, the modified loss where there is one."""
    names, moved = flow.map.rule.called, map(flow.map.rule.show, flow.moved.moved)
    step = [f"  {n}' - {n} = {e}" for n, e in zip(names, moved, strict=True)]
    if flow.order == 1:
        lines = ["dw/dt = a1 = G(S0, w),  S0 = U(S0, w)"]
    elif flow.order == 2:
        lines = ["dw/dt = a1 + lr (dG/ds S1 - a1' a1 / 2),  a1 = G(S0, w),  S1 = (dU/ds - I)^-1 DS0 a1"]
    else:
        lines = ["dw/dt = -g - lr/2 H g - lr^2 (T[g,g]/12 + H^2 g/3)"]
        if flow.order == 4:
            lines[0] += " - lr^3 ((T[g,Hg] + H T[g,g])/12 + H^3 g/4)"
    if flow.of_epochs:
        lines.append(f"and of reshuffling - {flow.force:.6g} lr c,  {_LEANS}")
    if flow.coefficients is not None and not flow.map.rule.scheduled:
        c0, c1 = flow.coefficients
        lines.append(f"modified loss: {c0:.6g} L" + (f" + {c1:.6g} lr |grad L|^2" if flow.order > 1 else ""))
        if flow.of_epochs:
            lines[-1] += f" + {0.5 * flow.force:.6g} lr tr C,  C = <(g_i - g)(g_i - g)^T>"
    return ["one step:", *step, *lines]


def in_latex(flow: ModifiedFlow) -> list[str]:
    """The same, a formula to a line."""
    step = ["one step:", *flow.moved.in_latex]
    if flow.order == 1:
        lines = [r"$\dot w = a_1 = G(S_0, w),\quad S_0 = U(S_0, w)$"]
    elif flow.order == 2:
        more = rf" - {flow.force:.6g}\,\eta\,c" if flow.of_epochs else ""
        lines = [
            rf"$\dot w = a_1 + \eta\,(\partial_s G\, S_1 - \frac{{1}}{{2}} a_1' a_1){more}$",
            r"$a_1 = G(S_0, w),\quad S_1 = (\partial_s U - I)^{-1} DS_0\, a_1$",
        ]
    else:
        top = r"-\eta^3\left(\frac{1}{12}(T[g,Hg] + H T[g,g]) + \frac{1}{4} H^3 g\right)" if flow.order == 4 else ""
        lines = [
            r"$\dot w = -g - \frac{\eta}{2} H g - \eta^2\left(\frac{1}{12}T[g,g] + \frac{1}{3} H^2 g\right)" + top + "$"
        ]
    if flow.of_epochs:
        lines.append(rf"${_LEANS_IN_LATEX},\quad C = \langle (g_i - g)(g_i - g)^\top \rangle$")
    if flow.coefficients is not None and not flow.map.rule.scheduled:
        c0, c1 = flow.coefficients
        more = rf" + {c1:.6g}\,\eta\,|\nabla L|^2" if flow.order > 1 else ""
        more += rf" + {0.5 * flow.force:.6g}\,\eta\,\mathrm{{tr}}\, C" if flow.of_epochs else ""
        lines.append(rf"$\tilde L = {c0:.6g}\, L{more}$")
    return [*step, *lines]


def equation(flow: StochasticModifiedFlow) -> list[str]:
    """One step and the stochastic equation."""
    force = f" - {flow.mean.force:.6g} lr^2 c" if flow.mean is not None and flow.order > 1 else ""
    drift = "M" if flow.order == 1 else f"(M - M' M/2{force})"
    names, moved = flow.map.rule.called, map(flow.map.rule.show, flow.moved.moved)
    return [
        "one step f, per coordinate:",
        *(f"  {n}' - {n} = {e}" for n, e in zip(names, moved, strict=True)),
        f"dz = {drift} dk + C^1/2 dW,  M = f + q f_gg/2,  q = diag Sigma",
        *([_LEANS] if force else []),
        *(_SKEWED if flow.skewed else ["C = (f_g f_g^T) o Sigma" + _SQUARED * flow.squares]),
    ]


def equation_in_latex(flow: StochasticModifiedFlow) -> list[str]:
    """The same, a formula to a line."""
    force = rf" - {flow.mean.force:.6g}\,\eta^2 c" if flow.mean is not None and flow.order > 1 else ""
    drift = "M" if flow.order == 1 else rf"(M - \frac{{1}}{{2}} M' M{force})"
    step = ["one step, f the change of z in it, per coordinate:", *flow.moved.in_latex]
    if flow.skewed:
        return [
            *step,
            r"$\mathrm{d}z = (M - \frac{1}{2} M' M)\,\mathrm{d}k + C^{1/2}\,\mathrm{d}W,\quad"
            r" M = f + \frac{1}{2} q f_{gg} + \frac{1}{6} \mathrm{E}\xi^3 f_{ggg}$",
            r"$C = \mathrm{Cov}(f_g \xi + \frac{1}{2} f_{gg} \xi^2)$",
        ]
    more = r" + \frac{1}{2} (f_{gg} f_{gg}^\top) \circ \Sigma \circ \Sigma" if flow.squares else ""
    return [
        *step,
        rf"$\mathrm{{d}}z = {drift}\,\mathrm{{d}}k + C^{{1/2}}\,\mathrm{{d}}W,\quad"
        r" M = f + \frac{1}{2} q f_{gg}$",
        *([f"${_LEANS_IN_LATEX}$"] if force else []),
        rf"$C = (f_g f_g^\top) \circ \Sigma{more}$",
    ]
