"""How far a slow flow may be trusted at a point: what its derivation takes for small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats
from minidyn.common.errors import FlowError
from minidyn.flows.slow.oscillation import spread
from minidyn.maps import rule_symbols
from minidyn.maps.linearization import Fact
from minidyn.maps.rule_symbols import THETA, G

if TYPE_CHECKING:
    from minidyn.flows.slow.quasistatic import QuasistaticFlow

_BENT = "the oscillation's change of the Hessian, against its smallest curvature across the manifold"
_FORGOTTEN = "the share of an accumulator that one step replaces, as the oscillation answers to it"
_TOSS = "the factor by which the noise of one step multiplies a displacement along the manifold"
_SHIFT = "how far that force shifts the minima, against the oscillation"


def validity(flow: QuasistaticFlow, point: Floats) -> float:
    """`QuasistaticFlow.validity` at a point of M."""
    code, W, shift, toss = _spread(flow, point, flow.numbers(point[None]))
    if code:
        raise FlowError(f"{flow.name} at w = {np.round(point, 6)}: {flow.explain(code)}")
    N = flow.manifold.normal(point)
    size, S = np.linalg.eigh(N.T @ W[: flow.dim, : flow.dim] @ N)
    columns = (N @ S * np.sqrt(np.maximum(size, 0.0))).T
    bent = sum(np.linalg.norm(_bend(flow, point, s), 2) ** 2 for s in columns)
    least = float(np.linalg.eigvalsh(N.T @ flow.loss.hessian(point) @ N)[0])
    bends = max(_forgotten(flow), _upset(flow, point, W, N), float(np.sqrt(bent)) / least, toss)
    off = float(np.linalg.norm(shift[: flow.dim]))
    # roundings of a rule without such a force are no shift
    if off <= 1e-12 * (1.0 + float(np.abs(point).max())):
        return bends
    return max(bends, off / float(np.sqrt(max(size.sum(), 0.0)))) if size.sum() > 0 else np.inf


def _spread(flow: QuasistaticFlow, point: Floats, numbers: Floats) -> tuple[int, Floats, Floats, float]:
    """What `spread` finds at a point of M, which it moves there: a status code, W, the shift, the factor."""
    m = flow.map
    W, shift, toss = np.empty((m.components, m.components)), np.zeros(m.components), np.zeros(1)
    code = spread(flow.pointers[2], point, 1.0, m.hyper_at(flow.first_moving), m.loss.c, m.loss.rows,
                  m.bound.numbers, numbers, W, shift, toss)  # fmt: skip
    return code, W, shift, float(toss[0])


def weak_force(flow: QuasistaticFlow) -> list[str]:
    """What else must be small where the rule moves without a gradient, in words."""
    rule = flow.averaged.rule
    still = dict.fromkeys([G, *rule.rule.letters], sp.S.Zero)
    force = sp.simplify((rule.outputs[0] if rule.curved[0] is None else rule.curved[0]).xreplace(still) - THETA)
    acts = [f"a weak force acts ({flow.map.rule.show(force)} per step): {_SHIFT}, small too"] if force != 0 else []
    skewed = f"skewed noise under accumulators is a weak force: {_SHIFT}, small too"
    return acts + [skewed] * flow.averaged.feels_skew


def bounds(flow: QuasistaticFlow) -> str:
    """What `validity` compares."""
    return _BENT + f"; {_FORGOTTEN}" * any(flow.averaged.rule.accumulators) + f"; {_TOSS}" * flow.map.bound.varies


def _forgotten(flow: QuasistaticFlow) -> float:
    """How much of an accumulator one step replaces, at most: the share by which averages of 1/sqrt(v) are off."""
    rule, numbers = (
        flow.averaged.rule,
        dict(zip(map(rule_symbols.hyper, flow.map.rule.hyper), flow.map.hyper_at(flow.first_moving), strict=False)),
    )
    kept = [
        sp.diff(e, s).subs(numbers)
        for e, s, a in zip(rule.outputs[1:], flow.map.rule.letters, rule.accumulators, strict=True)
        if a
    ]
    return rule.alike * max((1.0 - float(e) for e in kept if e.is_number), default=0.0)


def _upset(flow: QuasistaticFlow, point: Floats, W: Floats, N: Floats) -> float:
    """`share A^2`, A = 2 dlog tr W / dlog v: how the oscillation W across M, of normals N, answers if accumulators
    miss a share of what they see; W itself changes what they see."""
    if flow.accumulators != "self-consistent" or _forgotten(flow) == 0.0:
        return 0.0
    numbers = flow.numbers(point[None])
    numbers[Fact.MISSED] = 1e-4
    code, other, _, _ = _spread(flow, point, numbers)
    before, after = (np.trace(N.T @ X[: flow.dim, : flow.dim] @ N) for X in (W, other))
    answer = 2.0 * abs(after - before) / (before * numbers[Fact.MISSED]) if before > 0 else 0.0
    return np.inf if code else float(_forgotten(flow) * answer**2)


def _bend(flow: QuasistaticFlow, w: Floats, s: Floats) -> Floats:
    """`T[s]` (D, D), the derivative of the Hessian along s."""
    unit = np.eye(flow.dim)
    return flow.loss.third(np.broadcast_to(w, unit.shape), np.broadcast_to(s, unit.shape), unit)
