"""What a rule does with a gradient that alternates in sign and with one that stays, state by state, in symbols.

States that are odd in the gradient (momenta) alternate with it, even ones (accumulators of squares) do not. With
`theta' = theta + f(g, m, v)`, `m' = U_m(g, m, v)` odd and `v' = U_v(g, m, v)` even under `(g, m) -> -(g, m)`,

    alternating gradient    -U_m(g, m, v) = m     f(g, m, v) = -2 delta     dv/dk = U_v(g, m, v) - v
    steady gradient          U_m(g, m, v) = m     dtheta/dk = f(g, m, v)    dv/dk = U_v(g, m, v) - v

so momenta can be solved for, and accumulators, which average over many steps, stay variables of their own.
Source: even and odd parts of the map, Ma, Kunin, Wu, Ying (2022); bias corrections are over.
"""

from dataclasses import dataclass
from itertools import product

import sympy as sp

from minidyn.common.errors import FlowError
from minidyn.maps import rule_symbols
from minidyn.maps.rule_symbols import THETA, G
from minidyn.maps.rules import Displacement, Rule, displacement


@dataclass(frozen=True)
class Parity:
    """One coordinate of a rule: `odd` states solved for, `even` ones kept.

    alternating, steady : the step f of theta, in `g` and the even states.
    feeds : for each even state its change in a step, under an alternating and under a steady gradient.
    """

    even: tuple[str, ...]
    alternating: sp.Expr
    steady: sp.Expr
    feeds: dict[str, tuple[sp.Expr, ...]]


def parity(rule: Rule) -> Parity:
    """The parities of a rule's states, and its steps for the two kinds of gradient.

    Raises FlowError for a rule that is not odd in the gradient, that has kinks, decay or a schedule.

    >>> import minidyn as md
    >>> rule = md.Adam(0.1)
    >>> parity(rule).even, rule.show(parity(rule).steady)
    (('v',), -g*lr/(eps + sqrt(beta2*v - g**2*(beta2 - 1))))
    """
    moved = displacement(rule)
    if not moved.smooth or rule.scheduled or any(e.has(THETA) for e in moved.moved):
        raise FlowError(
            f"{rule.name} is not odd and smooth in the gradient alone (signs, decay, a schedule): its orbit has no "
            "equations on a chart; use the numerical flow."
        )
    odd = _odd_states(rule, moved)
    step, *changes = (e.xreplace(rule.known) for e in moved.moved)
    even = tuple(s for s in rule.states if s not in odd)
    flips, rests = (_solve(rule, odd, changes, weight) for weight in (2, 0))
    feeds = {
        s: tuple(sp.collect(sp.expand(e.xreplace(at)), G) for at in (flips, rests))
        for s, e in zip(rule.states, changes, strict=True)
        if s in even
    }
    return Parity(even, sp.simplify(step.xreplace(flips)), sp.simplify(step.xreplace(rests)), feeds)


def _odd_states(rule: Rule, moved: Displacement) -> tuple[str, ...]:
    """The states that change sign with the gradient."""
    for signs in product((1, -1), repeat=len(rule.states)):
        mirror = {G: -G} | {s: sign * s for s, sign in zip(rule.letters, signs, strict=True)}
        mirrored = [e.subs(mirror, simultaneous=True) for e in moved.moved]
        if all(sp.simplify(m - sign * e) == 0 for m, e, sign in zip(mirrored, moved.moved, (-1, *signs), strict=True)):
            return tuple(s for s, sign in zip(rule.states, signs, strict=True) if sign < 0)
    raise FlowError(
        f"{rule.name} does not step back when gradient and momenta change sign: its orbit has no equations on a chart; "
        "use the numerical flow."
    )


def _solve(rule: Rule, odd: tuple[str, ...], changes: list[sp.Expr], weight: int) -> dict[sp.Symbol, sp.Expr]:
    """The odd states whose change in a step is `-weight` times themselves."""
    symbols = [rule_symbols.state(s) for s in odd]
    equations = [e + weight * rule_symbols.state(s) for s, e in zip(rule.states, changes, strict=True) if s in odd]
    found = sp.solve(equations, symbols, dict=True) if symbols else [{}]
    if len(found) != 1 or set(found[0]) != set(symbols):
        raise FlowError(f"the momenta of {rule.name} on its orbit could not be solved for: use the numerical flow.")
    return dict(found[0])
