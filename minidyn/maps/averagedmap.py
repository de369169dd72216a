"""A map averaged over its noise: its kernels, its numbers, and its fixed points on the minima."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.locks import Form, derived, form
from minidyn.kernels import Source, pointer
from minidyn.maps.averaging import averaged, check_noise
from minidyn.maps.jets import add_bends, add_jets, add_tilts
from minidyn.maps.linearization import NEEDS, Fact, linear_part

if TYPE_CHECKING:
    from minidyn.maps.discrete import Map


class AveragedMap(ByValue):
    """A map averaged over its noise, near the fixed points that it has on the minima manifold."""

    def __init__(self, system: Map, accumulators: str = "full"):
        self.map, self.accumulators = system, accumulators
        self.rule = averaged(system.rule, accumulators)
        check_noise(self.rule, system.bound)

    @property
    def form(self) -> Form:
        """The map's, and what becomes of accumulators."""
        return form(type(self), self.map.form, self.accumulators)

    @derived
    def source(self) -> Source:
        """The text of the kernels that `linearize` needs."""
        src = Source(f"linearization of {self.map.rule.name} on {self.map.loss}")
        self.add_kernels(src)
        return src

    @property
    def feels_skew(self) -> bool:
        """Whether skewed noise makes a force: a choice of samples under accumulators that move."""
        return feels_skew(self.map, self.accumulators)

    def add_kernels(self, src: Source) -> None:
        """Add the kernels that `expand` and `analyse` need to a module: `jets` and the noise covariance."""
        self.map.bound.add_covariance(src)
        self.map.bound.add_moments(src, self.feels_skew)
        add_jets(src, self.rule)
        add_bends(src, self.rule)
        add_tilts(src, self.rule)

    def pointers(self, module: ModuleType) -> tuple[Any, ...]:
        """The kernels of `NEEDS` from the averaged map's module and the loss's, as function pointers."""
        loss = self.map.loss.kernels
        return tuple(pointer(module if n in vars(module) and n != "grad" else loss, n) for n in NEEDS)

    def linearize(self, w: Floats) -> tuple[int, Floats, Floats, Floats]:
        """Status code, fixed point z*, A = dF/dz and B = dF/dg at a point w of the manifold."""
        fns = self.pointers(self.source.load())
        m, dim, states = self.map, self.map.dim, len(self.map.rule.states)
        size, width = dim * (1 + states), 3 + states
        gap, gain, X = np.empty((size, size)), np.zeros((dim, 1 + states)), np.empty((dim, width))
        fp = facts(m, self.accumulators, False, 0, 1e-7)
        code = linear_part(fns, w, 1.0, m.hyper_at(), m.loss.c, m.loss.rows, m.bound.numbers, fp, X, gain, gap)
        B = np.concatenate([np.diag(gain[:, a]) for a in range(1 + states)])
        return code, np.concatenate([w, X[:, 3:].T.ravel()]), np.eye(size) - gap, B


def feels_skew(system: Map, accumulators: str) -> bool:
    """Whether skewed noise makes a force: a choice of samples under accumulators that move."""
    moved = any(averaged(system.rule, accumulators).accumulators) and accumulators != "frozen"
    return moved and system.bound.chances


def facts(system: Map, accumulators: str, coupled: bool, tangent: int, gap: float) -> Floats:
    """The numbers of `Fact`."""
    rule = averaged(system.rule, accumulators)
    states = len(rule.accumulators)
    out = np.zeros(Fact.EACH + 2 * states)
    out[Fact.TANGENT], out[Fact.GAP], out[Fact.STATES], out[Fact.COUPLED] = tangent, gap, states, coupled
    out[Fact.VARIES], out[Fact.SIGNS] = system.bound.varies, rule.sign_gain is not None
    out[Fact.ACCUMULATES], out[Fact.POWERS], out[Fact.RECALLS] = any(rule.accumulators), rule.powers, bool(rule.shares)
    out[Fact.FRESH : Fact.PLACE + 1] = rule.memory
    out[Fact.ANSWERS] = accumulators == "self-consistent" and (2 if rule.odd else rule.answers)
    out[Fact.SKEWED] = feels_skew(system, accumulators)
    out[Fact.EACH :] = [accumulators == "frozen" and a for a in rule.accumulators] + list(rule.accumulators)
    return out
