"""One step of a rule as a displacement of theta and of its states (docs/theory.md, section 4)."""

from dataclasses import dataclass

import sympy as sp

from minidyn.common.locks import Form, derived, shared
from minidyn.graph import Graph, Node
from minidyn.maps.rule_symbols import THETA, G
from minidyn.maps.rules.rule import Rule, settled
from minidyn.maps.rules.writing import updates


@dataclass(frozen=True)
class Displacement:
    """One coordinate of a noiseless step, `moved = (theta' - theta, s' - s)`, in `theta, g` and the states.

    Powers such as `beta^k` have gone to their limit 0; `k` remains only in schedules.
    """

    rule: Rule
    moved: list[sp.Expr]

    def nodes(self, graph: Graph) -> list[Node]:
        """The displacements as functions of the loads `x = (theta, g, q, states...)`, `hp` and `kk[0] = k`."""
        return self.rule.nodes(graph, self.moved)

    @property
    def in_latex(self) -> list[str]:
        """The step as equations in LaTeX, line by line."""
        rows = updates(self.rule, True, [settled(self.rule, e) for e in self.rule.step])
        return [f"${left} = {right}$" for left, right in rows]

    @property
    def form(self) -> Form:
        """The rule's."""
        return self.rule.form

    @derived
    def smooth(self) -> bool:
        """Whether the step has derivatives in the gradient and the states everywhere (no `sign`, `Abs`, ...)."""
        return not any(e.has(sp.sign, sp.Abs, sp.Min, sp.Max, sp.Piecewise, sp.Heaviside) for e in self.moved)

    @derived
    def linear(self) -> bool:
        """Whether the step is linear in the gradient and the states alone, with constant coefficients."""
        moving = {THETA, G, *self.rule.letters}
        slopes = [sp.diff(e, s) for e in self.moved for s in moving] if self.smooth else [G]
        return not any(s.free_symbols & moving for s in slopes) and not any(sp.diff(e, THETA) for e in self.moved)


def displacement(rule: Rule) -> Displacement:
    """The step of a rule as a displacement of theta and of its states."""
    places = (THETA, *rule.letters)
    made = shared((Displacement, rule.form), lambda: [
        displaced(settled(rule, e), s) for e, s in zip(rule.step, places, strict=True)
    ])  # fmt: skip
    return Displacement(rule, made)


def displaced(new: sp.Expr, old: sp.Symbol) -> sp.Expr:
    """new - old. `new` may hold `old` times 1 - lr weight_decay: what is small is found before rounding can hide it."""
    slope = sp.diff(new, old)
    return new - old if slope.has(old) else (slope - 1) * old + new.xreplace({old: sp.S.Zero})
