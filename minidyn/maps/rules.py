"""Update rules, written once, symbolically; PyTorch's conventions.

A rule is a function on sympy symbols that reads like the paper. From it minidyn compiles the
discrete step, and derives the averaged rule that effective flows are built from.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError
from minidyn.common.intake import finite, flag, shown
from minidyn.common.intake import number as as_number
from minidyn.graph import Converter, Graph, Node
from minidyn.maps import letters
from minidyn.maps.letters import NORMAL, THETA, VARIANCE, G, K

_CLOCK = sp.Dummy("clock")  # the step number of bias corrections, between steps too


@dataclass(frozen=True, eq=False)
class Rule(ByValue):
    """An update rule with numbers for its hyperparameters; make one by calling `SGD(...)`, `Adam(...)`,
    or what `@md.rule` returns.

    hyper : each hyperparameter's number, or sympy expression in `k` (a schedule).
    step : theta' and the new states, in the letters of the arguments (`maps.letters`); fixed when the rule is made.
    structure : arguments that are True, False, None or text: what they chose is in `step`.
    arguments : what the rule's function calls theta and the gradient.

    Rules are equal where name, states, step, structure and numbers are.
    """

    name: str
    states: tuple[str, ...]
    hyper: Mapping[str, Any]
    step: tuple[sp.Expr, ...]
    uses_step: bool
    structure: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, str] = ("theta", "g")
    doc: str = field(default="", compare=False)
    builtin: bool = field(default=False, compare=False)

    @property
    def letters(self) -> list[sp.Symbol]:
        """The symbols of the states."""
        return [letters.state(s) for s in self.states]

    @property
    def called(self) -> list[str]:
        """What the user calls theta and the states."""
        return [self.arguments[0], *self.states]

    @property
    def shown(self) -> dict[sp.Symbol, str]:
        """What each letter of `step` is called."""
        named = {THETA: self.arguments[0], G: self.arguments[1]} | {letters.state(s): s for s in self.states}
        return named | {letters.hyper(h): h for h in self.hyper}

    @property
    def known(self) -> dict[sp.Symbol, sp.Symbol]:
        """The letters of the hyperparameters with the signs of their numbers."""
        return {letters.hyper(h): letters.hyper(h, v) for h, v in self.hyper.items()}

    def public(self, taken: Iterable[Any] = ()) -> dict[sp.Symbol, sp.Symbol]:
        """Letters that know their signs -> the symbols by which formulas show them, `lr_rule` where `lr` is taken."""
        names = {h: f"{h}_rule" if h in map(str, taken) else h for h in self.hyper}
        return {letters.hyper(h, v): letters.public(names[h], v) for h, v in self.hyper.items()}

    def show(self, e: Any) -> sp.Expr:
        """An expression in letters with the names that the user gave."""
        known = {v: k.name[:-1] for k, v in self.known.items()}
        return sp.sympify(e).xreplace({s: sp.Symbol(n) for s, n in {**known, **self.shown}.items()})

    @property
    def divides(self) -> bool:
        """Whether a step divides by something, or takes a root of it, that the gradient or a state may make zero."""
        vary = {G, *self.letters}
        powers = [p for e in self.step for p in e.atoms(sp.Pow) if p.free_symbols & vary]
        return any(not (p.exp.is_integer and p.exp.is_nonnegative) for p in powers)

    def symbolic(self) -> tuple[sp.Expr, list[sp.Expr]]:
        """`theta'` and the new states, in letters."""
        return self.step[0], list(self.step[1:])

    @property
    def hyper_values(self) -> list[float]:
        """The numbers of the hyperparameters, in order; schedules stand as 0 and are compiled."""
        return [0.0 if isinstance(v, sp.Expr) else float(v) for v in self.hyper.values()]

    @property
    def scheduled(self) -> bool:
        """Whether a hyperparameter changes with the step."""
        return any(isinstance(v, sp.Expr) for v in self.hyper.values())

    @property
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
        values = [scheduled_value(self.name, h, v, k, self.builtin) if isinstance(v, sp.Expr) else float(v)
                  for h, v in self.hyper.items()]  # fmt: skip
        return [*values, float(k)]

    def table(self, first: int, steps: int) -> NDArray[np.float64]:
        """`numbers` of the steps `first`, `first + 1`, ...: (steps, H + 1). InputError where a schedule has none."""
        rows = np.empty((steps, len(self.hyper) + 1))
        for i, (name, value) in enumerate(self.hyper.items()):
            moving = isinstance(value, sp.Expr)
            rows[:, i] = _values(self.name, name, value, first, steps, self.builtin) if moving else float(value)
        rows[:, -1] = np.arange(first, first + steps)
        return rows

    @property
    def own_clock(self) -> bool:
        """Whether the step number stands in the rule itself, other than in bias corrections `beta^k`."""
        return self.uses_step and any(settled(self, e).has(K) for e in self.step)

    @property
    def rests(self) -> bool:
        """Whether a step whose learning rate is zero leaves theta where it is."""
        return bool(self.step[0].subs(letters.hyper("lr"), 0) == THETA)

    def converter(self, graph: Graph, theta: Node, g: Node, states: list[Node], k: Node,
                  held: bool = False) -> Converter:  # fmt: skip
        """Letters -> nodes, with hyperparameters read from `hp` and schedules written out.

        With `held` schedules are read from `hp` too, and behind them the number of the step (see `numbers`): a flow
        has the numbers of a whole step, wherever in it the time is.
        """
        symbols: dict[Any, Node] = {THETA: theta, G: g, K: graph.load("hp", len(self.hyper)) if held else k}
        symbols |= dict(zip(self.letters, states, strict=True))
        schedule = Converter(graph, {K: k})
        for i, (name, value) in enumerate(self.hyper.items()):
            node = schedule(value) if isinstance(value, sp.Expr) and not held else graph.load("hp", i)
            symbols[letters.hyper(name)] = symbols[letters.hyper(name, value)] = node
        return Converter(graph, symbols | {_CLOCK: k} if held else symbols)

    def update(self, graph: Graph, theta: Node, g: Node, states: list[Node], k: Node,
               held: bool = False) -> list[Node]:  # fmt: skip
        """Nodes of the new theta and the new states of one coordinate.

        With `held` (see `converter`) bias corrections alone, which are smooth, go on with the clock `k`.
        """
        convert = self.converter(graph, theta, g, states, k, held)
        smooth = {p: p.xreplace({K: _CLOCK}) for e in self.step for p in _corrections(self, e)} if held else {}
        return [convert(e.xreplace(smooth)) for e in self.step]

    def nodes(self, graph: Graph, exprs: list[sp.Expr]) -> list[Node]:
        """Expressions in letters, `VARIANCE` and `NORMAL`, of the loads `x = (theta, g, q, states...)`, `hp`,
        `kk[0] = k` and `node[0]`."""
        x = [graph.load("x", i) for i in range(3 + len(self.states))]
        convert = self.converter(graph, x[0], x[1], x[3:], graph.load("kk", 0), held=True)
        convert.symbols = {**convert.symbols, VARIANCE: x[2], NORMAL: graph.load("node", 0)}
        return [convert(e) for e in exprs]

    def with_hyper(self, **changes: Any) -> Rule:
        """The same rule with some hyperparameters changed."""
        for c in changes:
            if c in self.structure:
                raise InputError(f"{c} decides what {self.name} does: make the rule again, {self.name}(..., {c}=...).")
            if c not in self.hyper:
                raise InputError(f"{self.name} has no hyperparameter {c!r}; it has {', '.join(self.hyper) or 'none'}.")
        checked = {h: _check_hyper(self.name, h, v, self.builtin) for h, v in changes.items()}
        return replace(self, hyper={**self.hyper, **checked})

    def __repr__(self) -> str:
        given = [f"{h}={v}" for h, v in self.hyper.items()] + [f"{h}={v!r}" for h, v in self.structure.items()]
        return f"{self.name}({', '.join(given)})"

    def _repr_latex_(self) -> str:
        rows = [rf"{sp.latex(sp.Symbol(n))}' &= {sp.latex(self.show(e))}"
                for n, e in zip(self.called, self.step, strict=True)]  # fmt: skip
        rows = [*rows[1:], rows[0]]
        return r"$\displaystyle \begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}$"


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
            "run: change it, or run other steps (first_step, steps)."
        )
    return number


@lru_cache(maxsize=16)
def _values(rule_name: str, name: str, value: sp.Expr, first: int, steps: int,
            builtin: bool) -> NDArray[np.float64]:  # fmt: skip
    """The values of a schedule at the steps `first`, `first + 1`, ..."""
    out = np.array([scheduled_value(rule_name, name, value, k, builtin) for k in range(first, first + steps)])
    out.setflags(write=False)
    return out


def _check_hyper(rule_name: str, name: str, value: Any, builtin: bool) -> Any:
    """A number or a schedule in k; ranges are those of `lr` in any rule, and of PyTorch's names in PyTorch's rules."""
    if isinstance(value, sp.Expr) and not value.is_number:
        foreign = value.free_symbols - {K}
        named_k = [s for s in foreign if s.name == "k"]
        if len(foreign) > len(named_k):
            raise InputError(f"{rule_name}: the schedule {name} = {value} may only use the step number k.")
        return value.subs({s: K for s in named_k})
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


def _is_structure(value: Any) -> bool:
    """What reaches the rule's function as it is, instead of as a symbol."""
    return value is None or isinstance(value, (bool, np.bool_, str))


class _Function:
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
        return inspect.Signature(sorted(named, key=lambda p: p.default is not p.empty))

    def step(self, structure: Mapping[str, Any]) -> tuple[sp.Expr, ...]:
        """The expressions, made at the first time that they are asked for."""
        key = tuple((h, type(v), v) for h, v in structure.items())
        if key not in self.known:
            self.known[key] = self._made(structure)
        return self.known[key]

    def _made(self, structure: Mapping[str, Any]) -> tuple[sp.Expr, ...]:
        hyper = {h: letters.hyper(h) for h in self.defaults if h not in structure}
        given = {**hyper, **structure, **({"k": K} if self.uses_step else {})}
        places = [THETA, G, *map(letters.state, self.states)]
        names = dict(zip(places, (*self.arguments, *self.states), strict=True)) | {s: h for h, s in hyper.items()}
        names |= {K: "k"} if self.uses_step else {}
        try:
            with letters.unbranched(self.name, names):
                out = self.call(*places, **given)
            out = tuple(out) if isinstance(out, (tuple, list)) else (out,)
            exprs = tuple(sp.sympify(e, strict=True) for e in out)
            if not all(isinstance(e, sp.Expr) for e in exprs):
                raise TypeError(f"not {next(e for e in exprs if not isinstance(e, sp.Expr))}")
        except (TypeError, AttributeError, sp.SympifyError) as e:
            raise InputError(
                f"the rule {self.name} does not give sympy expressions ({letters.spoken(str(e), names)}): a rule sees "
                "one coordinate and one gradient, without norms, matrices or further gradients; write it "
                "with sympy's functions (sp.sqrt, sp.sign, ...) and return the new values."
            ) from e
        if len(exprs) != 1 + len(self.states):
            raise InputError(
                f"the rule {self.name} has {len(self.states)} states but returns {len(exprs)} values: "
                "return the new theta, then the new state in the order of the arguments."
            )
        foreign = letters.foreign_symbols(exprs, names)
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
        return {h: _check_hyper(self.name, h, v, self.builtin) for h, v in hyper.items()}


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
    return _maker(_Function(function))


def _maker(made: _Function) -> Callable[..., Rule]:
    function = made.call
    with contextlib.suppress(Exception):  # what is wrong with it is said when it is called
        made.step({h: v for h, v in made.defaults.items() if _is_structure(v)})

    def make(*args: Any, **given: Any) -> Rule:
        values = made.values(args, given)
        numbers_only = {h for h, v in made.defaults.items() if h == "lr" or (made.builtin and not _is_structure(v))}
        structure = {h: v for h, v in values.items() if _is_structure(v) and h not in numbers_only}
        hyper = made.checked({h: v for h, v in values.items() if h not in structure})
        return Rule(made.name, made.states, hyper, made.step(structure), made.uses_step, structure, made.arguments,
                    inspect.getdoc(function) or "", made.builtin)  # fmt: skip

    make.__name__, make.__doc__ = made.name, function.__doc__
    make.__qualname__ = getattr(function, "__qualname__", made.name)
    make.__module__ = getattr(function, "__module__", __name__)
    make.__signature__ = made.signature  # type: ignore[attr-defined]
    return make


# -- the rules of docs/theory.md, section 1 ------------------------------------------------------------


BUILTIN: list[_Function] = []


def _builtin(function: Callable[..., Any]) -> Callable[..., Rule]:
    BUILTIN.append(_Function(function, builtin=True))
    return _maker(BUILTIN[-1])


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Rule]:
    function.__name__ = name
    return _builtin(function)


def _gradient_step(theta, g, *, lr):  # type: ignore[no-untyped-def]
    """`theta' = theta - lr g`"""
    return theta - lr * g


def _heavy_ball(theta, g, m, *, lr, momentum):  # type: ignore[no-untyped-def]
    """`m' = momentum m + g`, `theta' = theta - lr m'`"""
    m = momentum * m + g
    return theta - lr * m, m


def _nesterov(theta, g, m, *, lr, momentum):  # type: ignore[no-untyped-def]
    """`m' = momentum m + g`, `theta' = theta - lr (g + momentum m')`"""
    m = momentum * m + g
    return theta - lr * (g + momentum * m), m


_GD, _SGD = _named("GD", _gradient_step), _named("SGD", _gradient_step)
_HEAVY_BALL, _NESTEROV = _named("SGD", _heavy_ball), _named("Nesterov", _nesterov)


def GD(lr: Any) -> Rule:
    """Gradient descent, `theta' = theta - lr g`.

    >>> import minidyn as md
    >>> md.GD(0.1)
    GD(lr=0.1)
    """
    return _GD(lr)


def SGD(lr: Any, momentum: Any = 0, nesterov: bool = False) -> Rule:
    """`m' = momentum m + g`, `theta' = theta - lr m'`; Nesterov: `theta' = theta - lr (g + momentum m')`.

    Without momentum it is the gradient step. PyTorch's `SGD` (dampening 0).

    >>> import minidyn as md
    >>> md.SGD(lr=0.1, momentum=0.9, nesterov=True)
    Nesterov(lr=0.1, momentum=0.9)
    """
    nesterov = flag(nesterov, "SGD: nesterov")
    if not isinstance(momentum, sp.Expr) and finite(momentum, "SGD: momentum") == 0:
        if nesterov:
            raise InputError("SGD(nesterov=True) needs momentum > 0.")
        return _SGD(lr)
    if nesterov:
        return _NESTEROV(lr, momentum)
    return _HEAVY_BALL(lr, momentum)


@_builtin
def SignGD(theta, g, *, lr):  # type: ignore[no-untyped-def]
    """`theta' = theta - lr sign(g)`

    >>> import minidyn as md
    >>> md.SignGD(0.01)
    SignGD(lr=0.01)
    """
    return theta - lr * sp.sign(g)


@_builtin
def Lion(theta, g, m, *, lr, beta1=0.9, beta2=0.99):  # type: ignore[no-untyped-def]
    """`theta' = theta - lr sign(beta1 m + (1-beta1) g)`, `m' = beta2 m + (1-beta2) g` (Chen et al. 2023)

    >>> import minidyn as md
    >>> md.Lion(0.01).states
    ('m',)
    """
    return theta - lr * sp.sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g


@_builtin
def RMSProp(theta, g, v, *, lr, beta2=0.99, eps=1e-8):  # type: ignore[no-untyped-def]
    """`v' = beta2 v + (1-beta2) g^2`, `theta' = theta - lr g/(sqrt(v') + eps)`

    >>> import minidyn as md
    >>> md.RMSProp(0.01).hyper["beta2"]
    0.99
    """
    v = beta2 * v + (1 - beta2) * g**2
    return theta - lr * g / (sp.sqrt(v) + eps), v


@_builtin
def Adam(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, k):  # type: ignore[no-untyped-def]
    """`m' = beta1 m + (1-beta1) g`, `v' = beta2 v + (1-beta2) g^2`,
    `theta' = theta - lr m^/(sqrt(v^) + eps)` with `m^ = m'/(1-beta1^k)`, `v^ = v'/(1-beta2^k)`
    (Kingma, Ba 2015)

    >>> import minidyn as md
    >>> md.Adam(lr=0.001).states
    ('m', 'v')
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return theta - lr * (m / (1 - beta1**k)) / (sp.sqrt(v / (1 - beta2**k)) + eps), m, v


@_builtin
def AdamW(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, k):  # type: ignore[no-untyped-def]
    """Adam after `theta` was multiplied by `1 - lr weight_decay` (Loshchilov, Hutter 2019)

    >>> import minidyn as md
    >>> md.AdamW(lr=0.001, weight_decay=0.1).hyper["weight_decay"]
    0.1
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    step = lr * (m / (1 - beta1**k)) / (sp.sqrt(v / (1 - beta2**k)) + eps)
    return theta * (1 - lr * weight_decay) - step, m, v


LIBRARY: dict[str, Callable[..., Rule]] = {f.__name__: f for f in (GD, SGD, SignGD, Lion, RMSProp, Adam, AdamW)}


def _corrections(rule: Rule, e: sp.Expr) -> list[sp.Pow]:
    """The powers `beta**k` of bias corrections, which die out."""
    powers = [p for p in e.atoms(sp.Pow) if p.exp.has(K) and not p.base.has(K)]
    return [p for p in powers if _dies_out(rule, p)]


def settled(rule: Rule, e: sp.Expr) -> sp.Expr:
    """Bias corrections have died out: `beta**k -> 0` where |beta| < 1 (schedules are taken to stay there)."""
    return e.xreplace({p: sp.S.Zero for p in _corrections(rule, e)})


def _dies_out(rule: Rule, power: sp.Pow) -> bool:
    numbers = {letters.hyper(h): sp.Float(v) for h, v in rule.hyper.items() if not isinstance(v, sp.Expr)}
    base, exponent = power.base.xreplace(numbers), power.exp.xreplace(numbers).subs(K, 10**12)
    if not (base.is_number and exponent.is_number):
        return not power.free_symbols & {THETA, G, *rule.letters}
    return bool(base == 0 or exponent * sp.log(sp.Abs(base)) < -100)


# -- one step as a displacement (theory.md, section 4) ----------------------------------------------


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
    def smooth(self) -> bool:
        """Whether the step has derivatives in the gradient and the states everywhere (no `sign`, `Abs`, ...)."""
        return not any(e.has(sp.sign, sp.Abs, sp.Min, sp.Max, sp.Piecewise, sp.Heaviside) for e in self.moved)

    @property
    def linear(self) -> bool:
        """Whether the step is linear in the gradient and the states alone, with constant coefficients."""
        moving = {THETA, G, *self.rule.letters}
        slopes = [sp.diff(e, s) for e in self.moved for s in moving] if self.smooth else [G]
        return not any(s.free_symbols & moving for s in slopes) and not any(sp.diff(e, THETA) for e in self.moved)


def displacement(rule: Rule) -> Displacement:
    """The step of a rule as a displacement of theta and of its states."""
    places = (THETA, *rule.letters)
    return Displacement(rule, [displaced(settled(rule, e), s) for e, s in zip(rule.step, places, strict=True)])


def displaced(new: sp.Expr, old: sp.Symbol) -> sp.Expr:
    """new - old. `new` may hold `old` times 1 - lr weight_decay: what is small is found before rounding can hide it."""
    slope = sp.diff(new, old)
    return new - old if slope.has(old) else (slope - 1) * old + new.xreplace({old: sp.S.Zero})
