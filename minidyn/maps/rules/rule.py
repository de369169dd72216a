"""An update rule with numbers for its hyperparameters, and what its step becomes on a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, said
from minidyn.common.html import formulas
from minidyn.common.intake import finite, flag, shown
from minidyn.common.intake import number as as_number
from minidyn.common.locks import Form, cached_property, derived, form
from minidyn.graph import SAMPLE, Converter, Graph, Node
from minidyn.maps import rule_symbols
from minidyn.maps.rule_symbols import NORMAL, THETA, VARIANCE, G, K
from minidyn.maps.rules.writing import updates

_CLOCK = sp.Dummy("clock")  # the step number of bias corrections, between steps too


@dataclass(frozen=True, eq=False)
class Rule(ByValue):
    """An update rule with numbers for its hyperparameters; make one by calling `SGD(...)`, `Adam(...)`,
    or what `@md.rule` returns.

    name, states, doc : what it is called, its states beside theta, and what its function says in words.
    hyper : each hyperparameter's number, or sympy expression in `k` (a schedule).
    step : theta' and the new states, in the letters of `maps.rule_symbols`; fixed when the rule is made.
    structure : arguments that are True, False, None or text: what they chose is in `step`.
    arguments : what the rule's function calls theta and the gradient.

    Rules are equal where name, states, step, structure and numbers are.
    """

    _offers = "name states hyper structure arguments doc scheduled lr with_hyper describe"
    name: str
    states: tuple[str, ...]
    hyper: Mapping[str, Any]
    step: tuple[sp.Expr, ...]
    uses_step: bool
    structure: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, str] = ("theta", "g")
    doc: str = field(default="", compare=False)
    builtin: bool = field(default=False, compare=False)

    @cached_property
    def form(self) -> Form:
        """All but the numbers of the hyperparameters; which bias corrections die out is part of it."""
        schedules = tuple((h, v if isinstance(v, sp.Expr) else None) for h, v in self.hyper.items())
        choices = tuple((h, type(v), v) for h, v in self.structure.items())
        return form(self.name, self.states, self.step, self.uses_step, schedules, choices, self.arguments,
                    self.builtin, self.fading)  # fmt: skip

    @cached_property
    def fading(self) -> frozenset[sp.Pow]:
        """The powers `beta**k` of bias corrections, which die out."""
        return frozenset(p for p, letters in _powers_of_k(self.step) if _dies_out(self, p, letters))

    @cached_property
    def letters(self) -> list[sp.Symbol]:
        """The symbols of the states."""
        return [rule_symbols.state(s) for s in self.states]

    @property
    def called(self) -> list[str]:
        """What the user calls theta and the states."""
        return [self.arguments[0], *self.states]

    @cached_property
    def shown(self) -> dict[sp.Symbol, str]:
        """What each letter of `step` is called."""
        named = {THETA: self.arguments[0], G: self.arguments[1]} | {rule_symbols.state(s): s for s in self.states}
        return named | {rule_symbols.hyper(h): h for h in self.hyper}

    @cached_property
    def known(self) -> dict[sp.Symbol, sp.Symbol]:
        """The letters of the hyperparameters with the signs of their numbers."""
        return {rule_symbols.hyper(h): rule_symbols.hyper(h, v) for h, v in self.hyper.items()}

    def public(self, taken: Iterable[Any] = ()) -> dict[sp.Symbol, sp.Symbol]:
        """Letters that know their signs -> the symbols by which formulas show them, `lr_rule` where `lr` is taken."""
        names = {h: f"{h}_rule" if h in map(str, taken) else h for h in self.hyper}
        return {rule_symbols.hyper(h, v): rule_symbols.public(names[h], v) for h, v in self.hyper.items()}

    def show(self, e: Any) -> sp.Expr:
        """An expression in letters with the names that the user gave."""
        known = {v: k.name[:-1] for k, v in self.known.items()}
        return sp.sympify(e).xreplace({s: sp.Symbol(n) for s, n in {**known, **self.shown}.items()})

    @derived
    def divides(self) -> bool:
        """Whether a step divides by something, or takes a root of it, that the gradient or a state may make zero."""
        vary = {G, *self.letters}
        powers = [p for e in self.step for p in e.atoms(sp.Pow) if p.free_symbols & vary]
        return any(not (p.exp.is_integer and p.exp.is_nonnegative) for p in powers)

    @cached_property
    def hyper_values(self) -> list[float]:
        """The numbers of the hyperparameters, in order; schedules stand as 0 and are compiled."""
        return [0.0 if isinstance(v, sp.Expr) else float(v) for v in self.hyper.values()]

    @cached_property
    def scheduled(self) -> bool:
        """Whether a hyperparameter changes with the step."""
        return any(isinstance(v, sp.Expr) for v in self.hyper.values())

    @cached_property
    def schedules(self) -> list[str]:
        """The hyperparameters that change with the step."""
        return [name for name, value in self.hyper.items() if isinstance(value, sp.Expr)]

    @cached_property
    def rate_changes(self) -> bool:
        """Whether the learning rate is a schedule."""
        return isinstance(self.hyper.get("lr"), sp.Expr)

    def lr(self, k: float = 1) -> float:
        """The learning rate at step `k`: the time `t` that one step takes (1 for a rule without `lr`)."""
        value = self.hyper.get("lr", 1.0)
        return scheduled_value(self.name, "lr", value, k, self.builtin) if isinstance(value, sp.Expr) else float(value)

    def numbers(self, k: float) -> list[float]:
        """The numbers of the hyperparameters at step `k`, in order, then `k` itself: what flows read as `hp`.

        A time between two steps belongs to the step that it lies in: step k is under way from `k - 1/2` to `k + 1/2`.
        """
        k = max(math.floor(k + 0.5), 1)
        values = [
            scheduled_value(self.name, h, v, k, self.builtin) if isinstance(v, sp.Expr) else float(v)
            for h, v in self.hyper.items()
        ]
        return [*values, float(k)]

    def table(self, first: int, steps: int) -> NDArray[np.float64]:
        """`numbers` of the steps `first`, `first + 1`, ...: (steps, H + 1). InputError where a schedule has none."""
        rows = np.empty((steps, len(self.hyper) + 1))
        for i, (name, value) in enumerate(self.hyper.items()):
            moving = isinstance(value, sp.Expr)
            rows[:, i] = _values(self.name, name, value, first, steps, self.builtin) if moving else float(value)
        rows[:, -1] = np.arange(first, first + steps)
        return rows

    @derived
    def own_clock(self) -> bool:
        """Whether the step number stands in the rule itself, other than in bias corrections `beta^k`."""
        return self.uses_step and any(settled(self, e).has(K) for e in self.step)

    @derived
    def rests(self) -> bool:
        """Whether a step whose learning rate is zero leaves theta where it is."""
        return bool(self.step[0].subs(rule_symbols.hyper("lr"), 0) == THETA)

    def converter(
        self, graph: Graph, theta: Node, g: Node, states: list[Node], k: Node, held: bool = False
    ) -> Converter:
        """Letters -> nodes, with hyperparameters read from `hp` and schedules written out.

        With `held` schedules are read from `hp` too, and behind them the number of the step (see `numbers`): a flow
        has the numbers of a whole step, wherever in it the time is.
        """
        symbols: dict[Any, Node] = {THETA: theta, G: g, K: graph.load("hp", len(self.hyper)) if held else k}
        symbols |= dict(zip(self.letters, states, strict=True))
        schedule = Converter(graph, {K: k})
        for i, (name, value) in enumerate(self.hyper.items()):
            node = schedule(value) if isinstance(value, sp.Expr) and not held else graph.load("hp", i)
            symbols[rule_symbols.hyper(name)] = symbols[rule_symbols.hyper(name, value)] = node
        return Converter(graph, symbols | {_CLOCK: k} if held else symbols)

    def update(self, graph: Graph, theta: Node, g: Node, states: list[Node], k: Node, held: bool = False) -> list[Node]:
        """Nodes of the new theta and the new states of one coordinate.

        With `held` (see `converter`) bias corrections alone, which are smooth, go on with the clock `k`.
        """
        convert = self.converter(graph, theta, g, states, k, held)
        smooth = {p: p.xreplace({K: _CLOCK}) for p in self.fading} if held else {}
        return [convert(e.xreplace(smooth)) for e in self.step]

    def nodes(self, graph: Graph, exprs: list[sp.Expr]) -> list[Node]:
        """Expressions in letters, `VARIANCE` and `NORMAL`, of the loads `x = (theta, g, q, states...)`, `hp`,
        `kk[0] = k` and `POINTS`, the quadrature's nodes."""
        x = [graph.load("x", i) for i in range(3 + len(self.states))]
        convert = self.converter(graph, x[0], x[1], x[3:], graph.load("kk", 0), held=True)
        convert.symbols = {**convert.symbols, VARIANCE: x[2], NORMAL: graph.load("POINTS", per=SAMPLE)}
        return [convert(e) for e in exprs]

    def with_hyper(self, **changes: Any) -> Rule:
        """The same rule with other hyperparameters.

        changes : numbers or schedules by name, such as `lr=0.05`.
        """
        for c in changes:
            if c in self.structure:
                raise InputError(f"{c} decides what {self.name} does: make the rule again, {self.name}(..., {c}=...).")
            if c not in self.hyper:
                raise InputError(f"{self.name} has no hyperparameter {c!r}; it has {', '.join(self.hyper) or 'none'}.")
        checked = {h: check_hyper(self.name, h, v, self.builtin) for h, v in changes.items()}
        return replace(self, hyper={**self.hyper, **checked})

    def __repr__(self) -> str:
        given = [f"{h}={_said(v) if isinstance(v, sp.Expr) else v}" for h, v in self.hyper.items()]
        given += [f"{h}={v!r}" for h, v in self.structure.items()]
        return f"{self.name}({', '.join(given)})"

    def describe(self, latex: bool = False) -> str:
        """The equations of one step, from k to k + 1, with the numbers and schedules of the hyperparameters; as text or
        as lines of LaTeX in the letters of papers.

        >>> import minidyn as md
        >>> print(md.SGD(0.1, momentum=0.9).describe())
        SGD(lr=0.1, momentum=0.9)
          m' = momentum*m + g
          theta' = theta - lr*m'
        """
        latex = flag(latex, "describe: latex")
        rows = [f"${a} = {b}$" if latex else f"  {a} = {b}" for a, b in updates(self, latex)]
        return "\n".join([repr(self), *rows])

    def _repr_latex_(self) -> str:
        rows = [f"{a} &= {b}" for a, b in updates(self, latex=True)]
        return r"$\displaystyle \begin{aligned} " + r" \\[0.3em] ".join(rows) + r" \end{aligned}$"

    def _repr_html_(self) -> str:
        return formulas(repr(self), [self._repr_latex_()], self.describe())


@lru_cache(maxsize=1024)
def _said(value: sp.Expr) -> str:
    """The text of a schedule."""
    return str(value)


@cache
def _schedule(value: sp.Expr) -> Callable[[float], Any]:
    """A schedule as a function of the step number."""
    return sp.lambdify(K, value, modules=["math", "sympy"])


def scheduled_value(rule_name: str, name: str, value: sp.Expr, k: float, builtin: bool) -> float:
    """The number that a schedule gives to a hyperparameter at step `k`; InputError where it cannot have it."""
    try:
        number = float(_schedule(value)(float(k)))
    except (ArithmeticError, ValueError, TypeError):  # a pole, a logarithm of zero, a root of what is negative
        number = math.nan
    wrong = "" if name == "lr" and number == 0.0 else _wrong(name, number, builtin)
    if wrong:
        wrong += " or zero" * wrong.endswith("positive")
        raise InputError(
            f"{rule_name}: the schedule {name} = {value} is {number:g} at step {k:g}; {wrong} at every step that is "
            f"run: change it, or run other steps ({said('first_step, steps')})."
        )
    return number


@lru_cache(maxsize=16)
def _values(rule_name: str, name: str, value: sp.Expr, first: int, steps: int, builtin: bool) -> NDArray[np.float64]:
    """The values of a schedule at the steps `first`, `first + 1`, ..."""
    out = np.array([scheduled_value(rule_name, name, value, k, builtin) for k in range(first, first + steps)])
    out.setflags(write=False)
    return out


def check_hyper(rule_name: str, name: str, value: Any, builtin: bool) -> Any:
    """A number or a schedule in k; ranges are those of `lr` in any rule, and of PyTorch's names in PyTorch's rules."""
    if isinstance(value, sp.Expr) and not value.is_number:
        schedule = _in_k(value)
        if schedule is None:
            raise InputError(f"{rule_name}: the schedule {name} = {value} may only use the step number k.")
        return schedule
    try:
        number = as_number(value, name)
    except InputError as e:
        what = f"{rule_name}: {name} must be a number or a sympy expression in k"
        raise InputError(f"{what}, not {shown(value)}.") from e
    finite(number, f"{rule_name}: {name}")
    if wrong := _wrong(name, number, builtin):
        what = "the learning rate lr" if name == "lr" else name
        raise InputError(f"{rule_name}: {what} is {number:g}; {wrong}.")
    return number


@lru_cache(maxsize=1024)
def _in_k(value: sp.Expr) -> sp.Expr | None:
    """A schedule in the step number, which any symbol called k is; None where it uses another one."""
    foreign = value.free_symbols - {K}
    return value.subs({s: K for s in foreign}) if all(s.name == "k" for s in foreign) else None


def _wrong(name: str, number: float, builtin: bool) -> str:
    """What a hyperparameter must be that this number is not; empty where all is well."""
    if not math.isfinite(number):
        return "it must be finite"
    if name == "lr" and number <= 0:
        return "it must be positive"
    if builtin and name.startswith(("beta", "momentum")) and not 0 <= number < 1:
        return "it must lie in [0, 1)"
    if builtin and name in ("eps", "weight_decay") and number < 0:
        return "it must not be negative"
    return ""


def settled(rule: Rule, e: sp.Expr) -> sp.Expr:
    """Bias corrections have died out: `beta**k -> 0` where |beta| < 1 (schedules are taken to stay there)."""
    return e.xreplace(dict.fromkeys(rule.fading, sp.S.Zero)) if rule.fading else e


@lru_cache(maxsize=256)
def _powers_of_k(step: tuple[sp.Expr, ...]) -> tuple[tuple[sp.Pow, frozenset[sp.Symbol]], ...]:
    """The powers in a step whose exponent alone counts steps, and the letters in each."""
    powers = {p: None for e in step for p in e.atoms(sp.Pow) if p.exp.has(K) and not p.base.has(K)}
    return tuple((p, frozenset(p.free_symbols)) for p in powers)


def _dies_out(rule: Rule, power: sp.Pow, letters: frozenset[sp.Symbol]) -> bool:
    numbers = {h: v for h, v in rule.hyper.items() if not isinstance(v, sp.Expr)}
    given = tuple((h, v) for h, v in numbers.items() if rule_symbols.hyper(h) in letters)
    return _vanishes_late(power, given, frozenset({THETA, G, *rule.letters}))


@lru_cache(maxsize=1024)
def _vanishes_late(power: sp.Pow, given: tuple[tuple[str, float], ...], moving: frozenset[sp.Symbol]) -> bool:
    """Whether a power is zero after very many steps, for these hyperparameters."""
    numbers = {rule_symbols.hyper(h): sp.Float(v) for h, v in given}
    base, exponent = power.base.xreplace(numbers), power.exp.xreplace(numbers).subs(K, 10**12)
    if not (base.is_number and exponent.is_number):
        return not power.free_symbols & moving
    return bool(base == 0 or exponent * sp.log(sp.Abs(base)) < -100)
