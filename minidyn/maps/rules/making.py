"""From a function on symbols, written for one coordinate, to a rule."""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.errors import InputError
from minidyn.common.intake import shown
from minidyn.maps import rule_symbols
from minidyn.maps.rule_symbols import THETA, G, K
from minidyn.maps.rules.rule import Rule, check_hyper
from minidyn.maps.rules.writing import updates


def _is_structure(value: Any) -> bool:
    """What reaches the rule's function as it is, instead of as a symbol."""
    return value is None or isinstance(value, (bool, np.bool_, str))


class RuleFunction:
    """A rule's function with its signature: the expressions that it makes, once for each structure."""

    def __init__(self, function: Callable[..., Any], builtin: bool = False):
        self.call, self.builtin = function, builtin
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            what = "a rule is made of a function of (theta, g, *one argument per state*, *, lr, ...)"
            raise InputError(f"{what}, not of {shown(function)}.") from None
        positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.name: str = getattr(function, "__name__", "rule")
        if len(positional) < 2 or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            raise InputError(
                f"the rule {self.name} must be a function of (theta, g, *one argument per state*, *, lr, ...)."
            )
        self.arguments, self.states = (positional[0], positional[1]), tuple(positional[2:])
        self.defaults = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY and p.name != "k"}
        self.uses_step = any(p.name == "k" for p in parameters if p.kind == p.KEYWORD_ONLY)
        self.known: dict[Any, tuple[sp.Expr, ...]] = {}

    @property
    def signature(self) -> inspect.Signature:
        """How the rule is made: one argument for each hyperparameter."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        named = [inspect.Parameter(h, kind, default=v) for h, v in self.defaults.items()]
        order = sorted(named, key=lambda p: p.default is not p.empty)
        return inspect.Signature(order, return_annotation=Rule)

    @property
    def doc(self) -> str:
        """What `help` shows: the function's own words, the update of a rule that is not minidyn's, the arguments."""
        own = inspect.getdoc(self.call) or ""
        chosen = {h: v for h, v in self.defaults.items() if _is_structure(v)}
        rows = []
        if not self.builtin:
            with contextlib.suppress(Exception):  # what is wrong with it is said when it is called
                numbers = dict.fromkeys((h for h in self.defaults if h not in chosen), 1.0)
                rule = Rule(self.name, self.states, numbers, self.step(chosen), self.uses_step, chosen, self.arguments)
                rows = [f"    {a} = {b}" for a, b in updates(rule, latex=False)]
        update = "\n".join(["One step, for each coordinate:", "", *rows]) if rows else ""
        arguments = (
            "Each argument is a number, or a sympy expression in the step number k = 1, 2, ... (a schedule);\n"
            "InputError where it is neither, or out of its range."
        )
        return "\n\n".join(part for part in (own, update, arguments * bool(self.defaults)) if part)

    def step(self, structure: Mapping[str, Any]) -> tuple[sp.Expr, ...]:
        """The expressions, made at the first time that they are asked for."""
        key = tuple((h, type(v), v) for h, v in structure.items())
        if key not in self.known:
            self.known[key] = self._made(structure)
        return self.known[key]

    def _made(self, structure: Mapping[str, Any]) -> tuple[sp.Expr, ...]:
        hyper = {h: rule_symbols.hyper(h) for h in self.defaults if h not in structure}
        given = {**hyper, **structure, **({"k": K} if self.uses_step else {})}
        places = [THETA, G, *map(rule_symbols.state, self.states)]
        names = dict(zip(places, (*self.arguments, *self.states), strict=True)) | {s: h for h, s in hyper.items()}
        names |= {K: "k"} if self.uses_step else {}
        try:
            with contextlib.nullcontext() if self.builtin else rule_symbols.unbranched(self.name, names):
                out = self.call(*places, **given)
            out = tuple(out) if isinstance(out, (tuple, list)) else (out,)
            exprs = tuple(sp.sympify(e, strict=True) for e in out)
            if not all(isinstance(e, sp.Expr) for e in exprs):
                raise TypeError(f"not {next(e for e in exprs if not isinstance(e, sp.Expr))}")
        except (TypeError, AttributeError, sp.SympifyError) as e:
            raise InputError(
                f"the rule {self.name} does not give sympy expressions ({rule_symbols.spoken(str(e), names)}): a rule "
                "sees one coordinate and one gradient, without norms, matrices or further gradients; write it "
                "with sympy's functions (sp.sqrt, sp.sign, ...) and return the new values."
            ) from e
        if len(exprs) != 1 + len(self.states):
            raise InputError(
                f"the rule {self.name} has {len(self.states)} states but returns {len(exprs)} values: "
                "return the new theta, then the new state in the order of the arguments."
            )
        foreign = rule_symbols.foreign_symbols(exprs, names)
        if foreign:
            raise InputError(
                f"the rule {self.name} uses the symbol {foreign[0]}, which is not one of its arguments: "
                "make it a keyword-only hyperparameter."
            )
        return exprs

    def values(self, args: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, Any]:
        """One value for each hyperparameter, from the arguments of a call."""
        name, names = self.name, list(self.defaults)
        if len(args) > len(names):
            raise InputError(f"{name} takes {len(names)} hyperparameters ({', '.join(names)}), got {len(args)}.")
        values = dict(zip(names, args, strict=False))
        for h, v in given.items():
            if h not in self.defaults or h in values:
                raise InputError(f"{name} has hyperparameters {', '.join(names) or 'none'}; {h!r} does not fit.")
            values[h] = v
        missing = [h for h, v in self.defaults.items() if h not in values and v is inspect.Parameter.empty]
        if missing:
            raise InputError(f"{name} needs {', '.join(missing)}.")
        return {h: values.get(h, default) for h, default in self.defaults.items()}

    def checked(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers and schedules, in their ranges."""
        return {h: check_hyper(self.name, h, v, self.builtin) for h, v in hyper.items()}


def rule(function: Callable[..., Any]) -> Callable[..., Rule]:
    """Make an update rule of a function on symbols, written for one coordinate.

    Arguments after `theta` and `g` are the state (zero at the start), keyword-only ones the
    hyperparameters; a keyword `k` receives the step number 1, 2, ... Return the new theta, then
    the new state in the same order. Arguments are told apart by place, whatever they are called.

    Numbers are symbols for the function, of no known sign, and cannot be asked in an `if`; True, False,
    None and text (given, or as defaults) reach it as they are. The function is called once, here; if it needs what
    is not there yet, when it is first called. What the names in it mean later changes nothing.
    What rules cannot do: docs/limits.md.

    >>> import minidyn as md
    >>> @md.rule
    ... def heavy_ball(theta, g, m, *, lr, beta=0.9, nesterov=False):
    ...     m = beta * m + g
    ...     return theta - lr * (g + beta * m if nesterov else m), m
    >>> heavy_ball(lr=0.1)
    heavy_ball(lr=0.1, beta=0.9, nesterov=False)
    """
    return maker(RuleFunction(function))


def maker(made: RuleFunction) -> Callable[..., Rule]:
    """What makes a rule of numbers for its hyperparameters."""
    function = made.call
    if not made.builtin:  # minidyn's own are made when they are used: names in them mean the same later
        with contextlib.suppress(Exception):  # what is wrong with it is said when it is called
            made.step({h: v for h, v in made.defaults.items() if _is_structure(v)})

    def make(*args: Any, **given: Any) -> Rule:
        values = made.values(args, given)
        numbers_only = {h for h, v in made.defaults.items() if h == "lr" or (made.builtin and not _is_structure(v))}
        structure = {h: v for h, v in values.items() if _is_structure(v) and h not in numbers_only}
        hyper = made.checked({h: v for h, v in values.items() if h not in structure})
        return Rule(made.name, made.states, hyper, made.step(structure), made.uses_step, structure, made.arguments,
                    inspect.getdoc(function) or "", made.builtin)  # fmt: skip

    make.__name__, make.__doc__ = made.name, made.doc
    make.__qualname__ = getattr(function, "__qualname__", made.name)
    make.__module__ = getattr(function, "__module__", __name__)
    make.__signature__ = made.signature  # type: ignore[attr-defined]
    return make
