"""Conditions that end a path: an expression crosses zero, a quantity reaches a level, the edge of stability is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidyn import observables
from minidyn.errors import InputError
from minidyn.flows.base import Flow
from minidyn.intake import number, shown
from minidyn.maps import Map
from minidyn.recognize import recognized
from minidyn.simulate.engines import ByColumn, Engine
from minidyn.simulate.odes import OdeEngine
from minidyn.trajectory import Status

Floats = NDArray[np.float64]


class Conditions:
    """Functions of w (paths, D) whose change of sign ends a path, by name."""

    def __init__(self, system: Map | Flow, stop: Any):
        owner = system if isinstance(system, Map) else system.map
        listed = stop if isinstance(stop, Sequence) and not isinstance(stop, str) else [stop]
        found: dict[str, Callable[[Floats], Floats]] = {}
        for one in listed:
            found |= _condition(owner, one)
        self.names, self.functions = list(found), list(found.values())

    def __call__(self, w: Floats) -> Floats:
        """Values (paths, conditions)."""
        return np.stack([f(w) for f in self.functions], axis=1)


def crossed(before: Floats, after: Floats) -> NDArray[np.bool_]:
    """Where a value changed its sign, or became zero."""
    return (before * after < 0.0) | ((after == 0.0) & (before != 0.0) & np.isfinite(before))


class StoppingEngine(ByColumn):
    """An engine whose paths end where a condition is met.

    For the compiled methods without noise the instant is found on the dense output; otherwise the condition is looked
    at where the run is saved.
    """

    def __init__(self, inner: Engine, conditions: Conditions, paths: int):
        self.inner, self.conditions = inner, conditions
        self.at = np.zeros(1, np.int64)
        exact = isinstance(inner, OdeEngine)
        self.which = inner.which if isinstance(inner, OdeEngine) else np.arange(paths)
        count = len(inner.points) if isinstance(inner, OdeEngine) else paths
        self.when = np.full(count, np.inf)  # the clock at which a path ends, k + 1/2
        self.why = np.full(count, -1, np.int64)
        first = inner.points[:, : inner.flow.dim] if isinstance(inner, OdeEngine) else inner.parameters()
        self.before = conditions(first)
        self.meta: dict[str, Any] = {**inner.meta, "stop": ", ".join(conditions.names), "located": exact}

    def slice(self, wanted: int) -> int:
        return self.inner.slice(wanted)

    def advance(self, done: int, count: int) -> None:
        self.at[0] = done + count
        if isinstance(self.inner, OdeEngine):
            self.inner.advance_watched(done + count + 0.5, self._watch)
        else:
            self.inner.advance(done, count)

    def _watch(self, engine: OdeEngine, moved: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Look at the points that have made a step; True where a point may go on."""
        open_ = ~np.isfinite(self.when)
        look = np.flatnonzero(moved & open_ & (engine.status == 0))
        if len(look):
            after = self.conditions(engine.points[look, : engine.flow.dim])
            for path, value, hit in zip(look, after, crossed(self.before[look], after), strict=True):
                for number in np.flatnonzero(hit):
                    k = self._locate(engine, int(path), int(number), value[number])
                    if k < self.when[path]:
                        self.when[path], self.why[path] = k, number
                self.before[path] = value
        return ~np.isfinite(self.when)

    def _locate(self, engine: OdeEngine, path: int, number: int, after: float) -> float:
        from scipy.optimize import brentq

        first, last = engine.last_step(path)
        function = self.conditions.functions[number]

        def value(k: float) -> float:
            return float(function(engine.state_at(path, k)[None, : engine.flow.dim])[0])

        if after == 0.0 or not value(first) * value(last) < 0.0:
            return last
        return float(brentq(value, first, last, xtol=1e-13 * (1.0 + abs(last)), rtol=1e-14))

    def parameters(self) -> Floats:
        w = self.inner.parameters()
        if not isinstance(self.inner, OdeEngine):
            value = self.conditions(w)
            hit = crossed(self.before, value)
            new = hit.any(axis=1) & ~np.isfinite(self.when)
            self.when[new], self.why[new] = self.at[0] + 0.5, hit[new].argmax(axis=1)
            self.before = np.where(np.isfinite(value), value, self.before)
        w[(self.when <= self.at[0] + 0.5)[self.which]] = np.nan
        return w

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        status, ended = self.inner.ending(done)
        self.meta |= self.inner.meta
        over = ((self.when <= done + 0.5) & np.isfinite(self.when))[self.which] & (status == Status.FINISHED)
        status[over] = Status.STOPPED
        ended[over] = np.ceil(self.when[self.which][over] - 0.5).astype(np.int64)
        if over.any() and over.sum() <= 20:  # where exactly, in steps k
            self.meta["stopped_at"] = [float(k) for k in (self.when[self.which][over] - 0.5).round(12)]
        return status, ended

    def state(self) -> dict[str, NDArray[Any]]:
        """The inner engine's state, and which paths have ended."""
        own = {"stop_at": self.at, "stop_when": self.when, "stop_why": self.why, "stop_before": self.before}
        return {**self.inner.state(), **own}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the state of an engine that was made alike."""
        self.inner.restore(state)
        own = {"stop_at": self.at, "stop_when": self.when, "stop_why": self.why, "stop_before": self.before}
        for name, array in own.items():
            array[...] = state[name]


def _condition(owner: Map, one: Any) -> dict[str, Callable[[Floats], Floats]]:
    """Name and function of one condition."""
    if isinstance(one, str):
        if one != "edge":
            raise InputError(
                f"stop={shown(one)} is not known: use 'edge' (of stability), {{'sharpness': 40.0}}, a sympy expression "
                "or comparison, or a function of w."
            )
        return _level(owner, "sharpness", edge(owner), "edge of stability")
    if isinstance(one, Mapping):
        out: dict[str, Callable[[Floats], Floats]] = {}
        for name, level in one.items():
            out |= _level(owner, name, level, f"{name} = {level}")
        return out
    if hasattr(one, "lhs") and hasattr(one, "rhs"):  # a comparison in sympy
        return observables.resolve(owner.loss, {str(one): one.lhs - one.rhs})
    return observables.resolve(owner.loss, {f"{getattr(one, '__name__', one)} = 0": one})


def _level(owner: Map, name: Any, level: Any, label: str) -> dict[str, Callable[[Floats], Floats]]:
    goal = number(level, f"stop={{{name!r}: ...}}, the number to reach,")
    ((_, function),) = observables.resolve(owner.loss, {label: name}).items()
    return {label: lambda w: function(w) - goal}


def edge(system: Map) -> float:
    """The sharpness at which a deterministic rule becomes unstable: 2/lr for gradient descent.

    With momentum b: 2 (1 + b)/lr, and 2 (1 + b)/((1 + 2 b) lr) for Nesterov's.
    """
    rule, known = system.rule, recognized(system.rule)
    if known is None or known.name not in ("GD", "SGD", "Nesterov") or rule.scheduled:
        raise InputError(
            f"the edge of stability of {rule} is not one number: stop at a sharpness of your own, "
            "stop={'sharpness': 40.0}."
        )
    beta = float(known.get("momentum", 0.0))
    return 2.0 * (1.0 + beta) / ((1.0 + 2.0 * beta if known.name == "Nesterov" else 1.0) * float(known.get("lr")))
