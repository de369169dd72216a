"""Which published rule a rule is, by the step that it makes: what it and its arguments are called says nothing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import sympy as sp

from minidyn.common.errors import InputError
from minidyn.common.locks import shared
from minidyn.maps import rule_symbols
from minidyn.maps.rules import BUILTIN, Rule
from minidyn.maps.rules.making import RuleFunction


@dataclass(frozen=True)
class Recognized:
    """A rule of theory.md, section 1, that makes the same step: its name, and what its hyperparameters are called."""

    name: str
    called: Mapping[str, str]  # "momentum" -> the rule's own name for it
    rule: Rule

    def get(self, hyper: str, default: Any = None) -> Any:
        """The number or schedule of a hyperparameter of the published rule."""
        return self.rule.hyper[self.called[hyper]] if hyper in self.called else default

    @property
    def plain(self) -> bool:
        """Whether it goes along the gradient, with or without momentum: in the metric of theta itself."""
        return self.name in ("GD", "SGD", "Nesterov")

    @property
    def has_momentum(self) -> bool:
        """Whether a step remembers the gradients of earlier ones."""
        return not {"momentum", "beta1"}.isdisjoint(self.called)

    @property
    def threshold_formula(self) -> str | None:
        """The published limit of the sharpness in words, None where there is none."""
        return _EDGES[self.name][0] if self.name in _EDGES else None

    def threshold(self, number: Callable[[Any], float] = float) -> float | None:
        """The edge of stability: the largest sharpness, in the rule's own metric, that is stable without noise.

        None where no formula is known: `TwoStep.thresholds` finds it for any rule. `number` evaluates schedules.
        """
        if self.name not in _EDGES:
            return None
        top, bottom = _EDGES[self.name][1](number(self.get("momentum", self.get("beta1", 0.0))))
        return 2 * top / (bottom * number(self.get("lr")))


_ADAM = "2 (1 + beta1)/((1 - beta1) lr), preconditioned", lambda beta: (1 + beta, 1 - beta)
_EDGES: dict[str, tuple[str, Callable[[float], tuple[float, float]]]] = {  # theory.md, section 5
    "GD": ("2/lr", lambda _: (1, 1)),
    "SGD": ("2 (1 + momentum)/lr", lambda beta: (1 + beta, 1)),
    "Nesterov": ("2 (1 + momentum)/((1 + 2 momentum) lr)", lambda beta: (1 + beta, 1 + 2 * beta)),
    "RMSProp": ("2/lr, preconditioned", lambda _: (1, 1)),
    "Adam": _ADAM,
    "AdamW": _ADAM,
}


def recognized(rule: Rule) -> Recognized | None:
    """The published rule with the same step, numbers in its range included; None where there is none.

    >>> import minidyn as md
    >>> @md.rule
    ... def mine(w, gradient, speed, *, beta, lr):
    ...     speed = beta * speed + gradient
    ...     return w - lr * speed, speed
    >>> recognized(mine(0.5, 0.1)).name, recognized(mine(0.5, 0.1)).called
    ('SGD', {'lr': 'lr', 'momentum': 'beta'})
    """
    if rule.builtin:
        return Recognized(rule.name, {h: h for h in rule.hyper}, rule)
    for made, called in shared((recognized, rule.form), lambda: _candidates(rule)):
        try:
            made.checked({h: rule.hyper[own] for h, own in called.items()})
        except InputError:
            continue
        return Recognized(made.name, called, rule)
    return None


def _candidates(rule: Rule) -> list[tuple[RuleFunction, dict[str, str]]]:
    """The published rules that make this step, whatever the numbers, and what their hyperparameters are called."""
    return [
        (made, called)
        for made in BUILTIN
        for called in _readings(rule, made.states, list(made.defaults), made.step({}))
    ]


def _readings(
    rule: Rule,
    states: tuple[str, ...],
    hyper: list[str],
    step: tuple[sp.Expr, ...],
) -> Iterator[dict[str, str]]:
    """The ways in which a rule's hyperparameters can be read as those of a known step."""
    if len(rule.states) != len(states) or len(rule.hyper) != len(hyper):
        return
    for order in permutations(range(len(states))):
        place = {s: rule_symbols.state(states[a]) for s, a in zip(rule.letters, order, strict=True)}
        wanted = [step[0], *(step[1 + a] for a in order)]
        for own in permutations(rule.hyper):
            names = place | {rule_symbols.hyper(o): rule_symbols.hyper(h) for o, h in zip(own, hyper, strict=True)}
            if all(_alike(mine.xreplace(names), e) for mine, e in zip(rule.step, wanted, strict=True)):
                yield dict(zip(hyper, own, strict=True))


def _alike(a: sp.Expr, b: sp.Expr) -> bool:
    return bool(a == b or (a.free_symbols == b.free_symbols and sp.expand(a - b) == 0))
