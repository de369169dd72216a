"""A rule, linearized coordinate by coordinate at a minimum: how theta and its states answer to small changes.

    y' = a y + b g,   y = (theta, the rule's states without accumulators),   one pair (a, b) for each coordinate

Accumulators (Adam's v) are held at their value: where the gradient vanishes they enter the step at second order
only, so the linearization does not see them move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats
from minidyn.common.errors import FlowError, InputError, said
from minidyn.maps import rule_symbols
from minidyn.maps.averaging import AveragedRule, averaged, check_noise
from minidyn.maps.recognize import recognized
from minidyn.maps.rule_symbols import THETA, G, K
from minidyn.maps.rule_symbols import VARIANCE as _Q
from minidyn.maps.rules import Rule

if TYPE_CHECKING:
    from minidyn.maps.discrete import Map


@dataclass(frozen=True)
class Slopes:
    """a (D, p, p) and b (D, p) of every coordinate; `states` (S, D) is where the rule's states stand."""

    a: Floats
    b: Floats
    states: Floats
    kept: tuple[int, ...]  # which states move
    signs: bool

    @property
    def gain(self) -> Floats:
        """How far a lasting unit gradient carries each coordinate per step, (D,)."""
        p = self.b.shape[1]
        try:
            rest = np.linalg.solve(np.eye(p - 1) - self.a[:, 1:, 1:], self.b[:, 1:, None])[..., 0]
        except np.linalg.LinAlgError:
            raise FlowError(
                "a state of the rule adds up gradients without end, so a lasting gradient has no lasting answer: "
                f"follow the map itself with {said('md.simulate')}."
            ) from None
        return -(self.b[:, 0] + np.einsum("ds,ds->d", self.a[:, 0, 1:], rest))


def rule_slopes(system: Map, w: Floats, q: Floats, given: Floats | None, k: float, lr: float | None = None) -> Slopes:
    """Slopes of the rule, averaged over noise of variance `q` (D,), at a minimum w (D,).

    `given` (S, D) are states to hold the accumulators at; otherwise they stand where the noise keeps them.
    """
    rule = averaged(system.rule, "frozen")
    if q.any():
        check_noise(rule, system.bound)
    if rule.memory[3] >= 0 and rule.sign_gain is not None:
        raise FlowError(
            f"{system.rule} takes the sign of a state that remembers the noise: its second moments do not close in one "
            f"step; use SignGD, or follow the map itself with {said('md.simulate')}."
        )
    values = [_number(v, k) for v in system.rule.hyper.values()]
    if lr is not None:
        values[list(system.rule.hyper).index("lr")] = lr
    update, jacobian = _functions(rule)
    count = len(rule.accumulators)
    states = np.zeros((count, len(w))) if given is None else given.copy()
    moving = [a for a in range(count) if given is None or not rule.accumulators[a]]
    with np.errstate(all="ignore"):
        _settle(system.rule, update, states, moving, w, q, values, k)
        kept = tuple(a for a in range(count) if not rule.accumulators[a])
        rows = (0, *(1 + a for a in kept))
        full = jacobian(w, np.zeros_like(w), q, states, values, k)
    a = np.stack([[full[i][0]] + [full[i][2 + s] for s in kept] for i in rows]).transpose(2, 0, 1)
    b = np.stack([full[i][1] for i in rows]).T
    a[:, 0, 0] = 1.0  # what is left at g = 0 is a weak force (decoupled weight decay), not part of the rule's answer
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(states).all()):
        raise FlowError(
            f"{system.rule} has no linearization here: it divides by the size of a gradient that vanishes; "
            "give the whole state z of a run (its accumulators are held), noise that keeps them up, or eps > 0."
        )
    return Slopes(np.ascontiguousarray(a), b, states, kept, rule.sign_gain is not None)


def _number(value: Any, k: float) -> float:
    return _at_step(value, k) if isinstance(value, sp.Expr) else float(value)


@lru_cache(maxsize=1024)
def _at_step(schedule: sp.Expr, k: float) -> float:
    return float(schedule.subs(K, k))


def _settle(
    rule: Rule,
    update: Callable[..., Any],
    states: Floats,
    moving: list[int],
    w: Floats,
    q: Floats,
    values: list[float],
    k: float,
) -> None:
    """Newton's method for the states that stand still where the gradient vanishes."""
    if not moving:
        return
    for _ in range(50):
        new, slopes = update(w, np.zeros_like(w), q, states, values, k)
        gap = np.stack([new[a] - states[a] for a in moving], axis=-1)
        block = np.eye(len(moving)) - np.stack([[slopes[a][s] for s in moving] for a in moving]).transpose(2, 0, 1)
        if not gap.any():
            return
        try:
            step = np.linalg.solve(block, gap[..., None])[..., 0]
        except np.linalg.LinAlgError:
            raise FlowError(
                f"{rule} has no stationary state at the minimum: a state of it grows without end there; give the whole "
                "state z of a run (its accumulators are held), or use a rule that forgets, such as "
                f"{said('md.RMSProp')}."
            ) from None
        states[moving] += step.T
        if np.abs(step).max(initial=0.0) <= 1e-15 * (1e-300 + np.abs(states[moving]).max(initial=0.0)):
            return
    if not np.abs(step).max() <= 1e-9 * (1.0 + np.abs(states[moving]).max()):
        raise FlowError("the states of the rule come to no rest at the minimum.")


_known: dict[Any, Any] = {}


def _functions(rule: AveragedRule) -> Any:
    """numpy functions of (theta, g, q, states, hyperparameters, k): updates with slopes, and all first slopes."""
    key = (tuple(rule.outputs), rule.rule.states, tuple(rule.rule.hyper))
    if key not in _known:
        names = rule.rule.letters
        args = [THETA, G, _Q, names, [rule_symbols.hyper(h) for h in rule.rule.hyper], K]
        smooth = rule.outputs
        symbols = {THETA, G, _Q, K, *names, *args[4]}
        foreign = set().union(*(e.free_symbols for e in smooth)) - symbols
        if foreign:
            raise FlowError(f"the averaged {rule.rule.name} needs more than the noise of one step; no linearization.")
        inner = [smooth[1:], [[sp.diff(e, s) for s in names] for e in smooth[1:]]]
        slopes = [[sp.diff(e, s) for s in (THETA, G, *names)] for e in smooth]
        made = (sp.lambdify(args, e, modules=["scipy", "numpy"]) for e in (inner, slopes))
        _known[key] = tuple(_vectorized(f) for f in made)
    return _known[key]


def _vectorized(function: Callable[..., Any]) -> Callable[..., Any]:
    def spread(value: Any, like: Floats) -> Any:
        return [spread(v, like) for v in value] if isinstance(value, (list, tuple)) else value + np.zeros_like(like)

    return lambda w, g, q, states, values, k: spread(function(w, g, q, list(states), values, k), w)


def closed_form_threshold(rule: Rule, k: float) -> float | None:
    """The largest stable sharpness of a deterministic rule in closed form (theory.md, section 5); None if unknown."""
    known = recognized(rule)
    return None if known is None else known.threshold(lambda value: _number(value, k))


def states_of(system: Map, w: Any) -> tuple[Floats, Floats | None]:
    """Parameters (D,) and, where the whole state z of the map is given, the states (S, D)."""
    array = system.state(w)
    if array.ndim != 1:
        raise InputError(f"one point of shape ({system.dim},) is expected here, not {array.shape}.")
    if not np.isfinite(array).all():
        raise InputError("w contains NaN or Inf; give a finite minimum.")
    whole = len(array) > system.dim
    return array[: system.dim], array[system.dim :].reshape(-1, system.dim) if whole else None
