"""Conditions that end a path: a comparison becomes true, an expression crosses zero, a quantity reaches a level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from sympy import And, Equality, Expr, GreaterThan, LessThan, Not, Or, StrictLessThan, Unequality
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean, BooleanAtom

from minidyn.common.arrays import Arrays, Codes, Floats, Integers, Truths
from minidyn.common.errors import InputError
from minidyn.common.intake import number, shown
from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.graph import walk
from minidyn.maps.discrete import Map
from minidyn.maps.recognize import recognized
from minidyn.maps.settings import Settings
from minidyn.simulate import observables
from minidyn.simulate.engines import Engine
from minidyn.simulate.odes import OdeEngine

_LOOKS = np.array([0.02, 0.25, 0.5, 0.75, 0.98])  # at a step of a solver, beside its ends
_BORDER = 5e-324
_KINDS = (
    "use 'edge' (of stability), {'sharpness': 40.0}, a sympy expression, a comparison or several with & and |, or a "
    "function of w"
)


@dataclass(frozen=True)
class Condition:
    """A function of w (paths, D) that ends a path where it is or becomes positive; with `crosses`, where it is zero or
    changes its sign."""

    name: str
    value: Callable[[Floats], Floats]
    crosses: bool = False

    def met(self, before: Any, after: Any) -> Truths:
        """Whether it is met at values `after`, the last ones seen having been `before` (NaN: none)."""
        if self.crosses:
            return np.asarray((before * after < 0.0) | (after == 0.0))
        return np.asarray(after > 0.0)


class Conditions:
    """All conditions of a run; where `settings` give paths maps of their own, those of each one's."""

    def __init__(self, system: Map | Flow, stop: Any, settings: Settings | None = None):
        owner = system if isinstance(system, Map) else system.map
        groups = settings.groups(owner, ("hp", "nz", "c")) if settings else []
        self.groups = [(which, Conditions(m, stop)) for which, m in groups]
        listed = stop if isinstance(stop, Sequence) and not isinstance(stop, str) else [stop]
        self.all = [c for one in listed for c in _conditions(owner, one)]
        if not self.all:
            raise InputError(f"stop={stop!r} holds no condition; {_KINDS}.")

    @classmethod
    def none(cls, system: Map | Flow) -> Conditions:
        """None at all, for paths that other conditions have ended."""
        found = cls(system, lambda w: w[:, 0])
        found.all = []
        return found

    def __call__(self, w: Floats) -> Floats:
        """Values (paths, conditions)."""
        if self.groups:
            out = np.empty((len(w), len(self.all)))
            for which, of in self.groups:
                out[which] = of(w[which])
            return out
        return np.stack([c.value(w) for c in self.all], axis=1)

    def met(self, before: Floats, after: Floats) -> Truths:
        """Which conditions are met (paths, conditions)."""
        return np.stack([c.met(before[:, i], after[:, i]) for i, c in enumerate(self.all)], axis=1)


class StoppingEngine(Engine):
    """An engine whose paths end where a condition is or becomes true.

    For the compiled methods without noise the instant is found on the dense output; otherwise the condition is looked
    at where the run is saved.
    """

    kept = ("stop_at", "stop_when", "stop_before")

    def __init__(self, inner: Engine, conditions: Conditions):
        self.inner, self.conditions = inner, conditions
        self.watched = inner if isinstance(inner, OdeEngine) and conditions.all else None
        self.which = inner.which if isinstance(inner, OdeEngine) else slice(None)
        first = inner.points[:, : inner.flow.dim] if isinstance(inner, OdeEngine) else inner.parameters()
        self.stop_at = np.zeros(1, np.int64)
        self.stop_when = np.full(len(first), np.inf)  # how many steps are over when a path ends
        self.stop_before = np.full((len(first), len(conditions.all)), np.nan)
        self.left: Arrays = {}  # what was known before a look ahead
        self._look(first, 0.0)
        name = ", ".join(c.name for c in conditions.all)
        self.meta: dict[str, Any] = {**inner.meta, "stop": name, "located": self.watched is not None}

    def _look(self, w: Floats, step: float) -> None:
        """Look at all paths where they are, w (N, D); those that meet a condition end after `step` steps."""
        if not self.conditions.all:
            return
        value = self.conditions(w)
        hit = self.conditions.met(self.stop_before, value).any(axis=1) & ~np.isfinite(self.stop_when)
        self.stop_when[hit] = step
        self.stop_before[...] = np.where(np.isfinite(value), value, self.stop_before)

    def slice(self, wanted: int) -> int:
        """As of the inner engine."""
        return self.inner.slice(wanted)

    def advance(self, done: int, count: int) -> None:
        """Carry the inner engine on; an `OdeEngine` step by step, each searched for the instant that meets a condition.

        Others are looked at in `parameters`, where the run is saved.
        """
        self._return()
        self.stop_at[0] = done + count
        if self.watched is None:
            self.inner.advance(done, count)
        else:
            self.watched.advance_watched(done, count, self._watch)

    def look_ahead(self, done: int, count: int) -> None:
        """Where an engine is looked at where it is saved, this look is one that a longer run does not have."""
        if self.watched is not None:
            super().look_ahead(done, count)
            return
        self._return()
        self.left = {name: array.copy() for name, array in super().state().items()}
        self.stop_at[0] = done + count
        self.inner.look_ahead(done, count)

    def _return(self) -> None:
        if self.left:
            super().restore(self.left)
            self.left = {}

    def go_on(self, done: int, kept: Arrays, alike: bool, w: Floats) -> None:
        """Paths that have stopped in a run of `done` steps, whose arrays are `kept`, stay so; where conditions are not
        alike those that meet one there, at w (paths, D), stop."""
        self.stop_at[0] = done
        self.stop_when[...] = kept.get("stop_when", np.inf)
        self.stop_before[...] = kept["stop_before"] if alike else np.nan
        if not alike and not isinstance(self.inner, OdeEngine):
            self._look(w, float(done))

    def begin_again(self, done: int, z: Floats) -> None:
        """The inner engine; conditions are looked at where it begins."""
        self.inner.begin_again(done, z)
        if self.watched is not None:
            self.stop_before[...] = np.nan
            self._look(self.watched.points[:, : self.watched.flow.dim], float(done))

    def release(self) -> None:
        """As the inner engine."""
        self.inner.release()

    def _watch(self, engine: OdeEngine, moved: Truths) -> Truths:
        """Look at the points that have made a step; True where a point may go on."""
        for path in map(int, np.flatnonzero(moved & ~np.isfinite(self.stop_when) & (engine.status == 0))):
            first, last = engine.last_step(path)
            places = first + (last - first) * _LOOKS
            inside = np.array([engine.state_at(path, k) for k in places])
            w = np.concatenate([inside, engine.points[path][None]])[:, : engine.flow.dim]
            values = np.concatenate([self.stop_before[path][None], self.conditions(w)])
            places = np.concatenate([[first], places, [last]])
            met = [self._first(engine, path, c, places, values[:, i]) for i, c in enumerate(self.conditions.all)]
            self.stop_when[path] = engine.clock.steps(min(met))
            self.stop_before[path] = values[-1]
        return ~np.isfinite(self.stop_when)

    def _first(self, engine: OdeEngine, path: int, c: Condition, places: Floats, values: Floats) -> float:
        """Where on the clock, within the last step of a point, a condition is first met; infinity where it is not.

        places, values : the looks at it, in order.
        """
        from scipy.optimize import brentq, minimize_scalar

        def value(k: float) -> float:
            return float(c.value(engine.state_at(path, k)[None, : engine.flow.dim])[0])

        def found(a: float, at_a: float, b: float, at_b: float) -> float:
            if at_a == 0.0 or at_b == 0.0:
                return b if at_b == 0.0 else a
            near = 1e-13 * (1.0 + abs(b))
            if np.isfinite(at_a):
                with suppress(ValueError):  # it is undefined in between
                    return float(brentq(value, a, b, xtol=near, rtol=1e-14))
            while b - a > near:  # where it becomes what it is at the end
                mid = (a + b) / 2
                a, b = (a, mid) if np.sign(value(mid)) == np.sign(at_b) else (mid, b)
            return b

        for n in range(1, len(places)):
            a, b = places[n - 1], places[n]
            if c.met(values[n - 1], values[n]):
                return found(a, values[n - 1], b, values[n])
            nearer = -np.abs(values) if c.crosses else values
            if n + 1 < len(places) and nearer[n] >= max(nearer[n - 1], nearer[n + 1]):
                # between the looks it may be met and left again
                side = -np.sign(values[n]) if c.crosses else 1.0
                top = minimize_scalar(lambda k, s=side: -s * value(k), bounds=(a, places[n + 1]), method="bounded")
                if np.isfinite(top.fun) and c.met(values[n - 1], value(top.x)):
                    return found(a, values[n - 1], float(top.x), value(top.x))
        return np.inf

    def parameters(self) -> Floats:
        """Theta (paths, D) of the inner engine, NaN where a path has stopped; the start is always shown.

        Engines that are not watched step by step are looked at here.
        """
        w = self.inner.parameters()
        if self.watched is None:
            self._look(w, float(self.stop_at[0]))
        return self._ended(w)

    def states(self) -> Floats:
        """The inner engine's, NaN likewise; `parameters` has looked at them."""
        return self._ended(self.inner.states())

    def whole(self) -> Floats:
        """Likewise."""
        return self._ended(self.inner.whole())

    def _ended(self, w: Floats) -> Floats:
        if self.stop_at[0]:  # a path that stops where it starts shows its start
            w[(self.stop_when <= self.stop_at[0])[self.which]] = np.nan
        return w

    def ending(self, done: int) -> tuple[Codes, Integers]:
        """The inner engine's, and `STOPPED` with the step in which it did where a path has.

        `meta["stopped_at"]` has the instants, in steps, where no more than 20 paths have.
        """
        status, ended = self.inner.ending(done)
        self.meta |= self.inner.meta
        over = (self.stop_when <= done)[self.which]  # what the inner engine did later is not seen
        status[over] = Status.STOPPED
        ended[over] = np.ceil(self.stop_when[self.which][over]).astype(np.int64)
        if over.any() and over.sum() <= 20:  # where exactly, in steps k
            self.meta["stopped_at"] = [float(k) for k in self.stop_when[self.which][over].round(12)]
        return status, ended

    def state(self) -> Arrays:
        """The inner engine's state, and which paths have ended; before a look ahead."""
        return self.inner.state() | (self.left or super().state())

    def restore(self, state: Arrays) -> None:
        """Go on from the state of an engine that was made alike."""
        self.inner.restore(state)
        super().restore(state)
        self.left = {}


def _conditions(owner: Map, one: Any) -> list[Condition]:
    """What one entry of `stop` asks for."""
    if isinstance(one, (bool, np.bool_, BooleanAtom)):
        raise InputError(f"stop={one!r} is {one} everywhere, not a condition on w; {_KINDS}.")
    if isinstance(one, str):
        if one != "edge":
            raise InputError(f"stop={shown(one)} is not known; {_KINDS}.")
        return [_level(owner, "sharpness", edge(owner), "edge of stability")]
    if isinstance(one, Mapping):
        return [_level(owner, name, level, f"{name} = {level}") for name, level in one.items()]
    if isinstance(one, Equality):
        return [Condition(walk.named(one), _value(owner, one.lhs - one.rhs), crosses=True)]
    if isinstance(one, Boolean) and not isinstance(one, Expr):  # to sympy a symbol is both
        return [Condition(walk.named(one), _margin(owner, one))]
    name = walk.named(getattr(one, "__name__", one))
    if callable(one) and not isinstance(one, Expr):
        with np.errstate(all="ignore"):
            says = np.asarray(one(np.zeros((1, owner.dim)))).dtype == bool
        if says:  # what is true or false is met where it is true
            return [Condition(name, _value(owner, lambda w: np.where(one(w), 1.0, -1.0), name))]
    return [Condition(f"{name} = 0", _value(owner, one, f"{name} = 0"), crosses=True)]


def _value(owner: Map, what: Any, name: str = "") -> Callable[[Floats], Floats]:
    """A function of w (paths, D) from an expression or a function, NaN where w is not finite."""
    ((_, function),) = observables.resolve(owner, {name or f"stop {walk.named(what)}": what}).items()
    return function


def _margin(owner: Map, b: Any) -> Callable[[Floats], Floats]:
    """How far a comparison, or a combination of them, is from being false: positive where it is true, else negative.

    On the border itself, where both sides are equal, it is as small as can be.
    """
    if isinstance(b, (And, Or)):
        parts = [_margin(owner, a) for a in b.args]
        join = np.minimum if isinstance(b, And) else np.maximum
        return lambda w: join.reduce([f(w) for f in parts])
    if isinstance(b, Not):
        inner = _margin(owner, b.args[0])
        return lambda w: -inner(w)
    if not isinstance(b, Relational):
        raise InputError(f"stop={walk.printed(b)} holds {type(b).__name__}; {_KINDS}.")
    gap = _value(owner, b.lhs - b.rhs)
    equal = isinstance(b, (Equality, Unequality))
    sign = -1.0 if isinstance(b, (Equality, LessThan, StrictLessThan)) else 1.0
    border = _BORDER if isinstance(b, (Equality, LessThan, GreaterThan)) else -_BORDER

    def margin(w: Floats) -> Floats:
        value = gap(w)
        return np.where(value == 0.0, border, sign * (np.abs(value) if equal else value))

    return margin


def _level(owner: Map, name: Any, level: Any, label: str) -> Condition:
    goal = number(level, f"stop={{{name!r}: ...}}, the number to reach,")
    function = _value(owner, name, label)
    return Condition(label, lambda w: function(w) - goal, crosses=True)


def edge(system: Map) -> float:
    """The sharpness at which a deterministic rule becomes unstable: 2/lr for gradient descent.

    With momentum b: 2 (1 + b)/lr, and 2 (1 + b)/((1 + 2 b) lr) for Nesterov's.
    """
    rule, known = system.rule, recognized(system.rule)
    threshold = known.threshold() if known is not None and known.plain and not rule.scheduled else None
    if threshold is None:
        raise InputError(
            f"the edge of stability of {rule} is not one number: stop at a sharpness of your own, "
            "stop={'sharpness': 40.0}."
        )
    return threshold
