"""Whether two ensembles follow the same law: distances with their Monte Carlo error, and what could be seen at all.

All three distances are norms of the difference `D = F_a - F_b` of the empirical distribution functions:

    Wasserstein-1 = int |D| dx        KS = sup |D|        energy = (2 int D^2 dx)^(1/2)

If the laws are equal, D is noise. Its size is found by resampling: for independent samples labels are permuted
(Fisher 1935), for coupled ones, path by path, map and flow are exchanged or not; coupled samples differ by less, so
smaller differences are seen. By the triangle inequality a true distance of at least `detectable` (the 95 % plus the
80 % point of the noise) is found at the 5 % level with probability 80 % or more.
"""

import math
from dataclasses import dataclass

import numpy as np

from minidyn.common.arrays import Floats, Integers
from minidyn.common.byvalue import ByValue
from minidyn.common.units import unit_of
from minidyn.compare.report import ROUNDING

DISTANCES = ("Wasserstein-1", "KS", "energy")
_LEVEL = 0.05
_AT_ONCE = 2_000_000  # numbers in one batch of resamples
_CLOSE = 65_536  # numbers that are worked on at once: they stay in the processor's own memory


@dataclass(frozen=True, eq=False)
class LawRow(ByValue):
    """The distance between the laws of one quantity under map and flow at one step.

    quantity, flow, step, time : of which, and when.  distance : "Wasserstein-1", "KS" or "energy".
    value : the distance of the samples, which is positive even for equal laws.  standard_error : its bootstrap error.
    p_value : how often equal laws give so large a distance.  critical : what equal laws exceed in 5 % of cases.
    detectable : a true distance of this size is found with probability 80 % or more.  paths : of each sample.
    """

    quantity: str
    flow: str
    step: int
    time: float
    distance: str
    value: float
    standard_error: float
    p_value: float
    critical: float
    detectable: float
    paths: int

    @property
    def distinguishable(self) -> bool:
        """Whether the laws differ at the 5 % level, by this distance alone."""
        return self.p_value <= _LEVEL

    def __str__(self) -> str:
        verdict = "distinguishable" if self.distinguishable else "indistinguishable"
        seen = f"{self.value:.2g} ± {self.standard_error:.2g} (p = {self.p_value:.2g})"
        return (
            f"{self.quantity} at step {self.step:,}: {verdict} at {self.paths:,} paths, {self.distance} distance "
            f"{seen}; detectable from {self.detectable:.2g}"
        )


def distances(a: Floats, b: Floats, paired: bool, resamples: int, rng: np.random.Generator) -> dict[str, Floats]:
    """For each distance: value, standard error, p-value, critical and detectable distance, (5,).

    a, b : samples (n,), (m,) without NaN; paired ones have equal length and belong together path by path.
    """
    everything = np.concatenate([a, b])
    unit = unit_of(everything)
    everything /= unit
    order = np.argsort(everything, kind="stable")
    inorder = everything[order]
    gaps = np.diff(inorder)
    gaps[gaps <= ROUNDING * np.maximum(np.abs(inorder[1:]), np.abs(inorder[:-1]))] = 0.0  # equal but for rounding
    weights = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
    seen = _norms(weights[None], order, gaps)[0]
    each = max(1, _AT_ONCE // len(weights))
    sizes = [min(each, resamples - first) for first in range(0, resamples, each)]
    noise, again = (
        np.concatenate([_norms(draw(weights, len(a), paired, size, rng), order, gaps) for size in sizes])
        for draw in (_null, _bootstrap)
    )
    p = (1 + (noise >= seen).sum(axis=0)) / (1 + resamples)
    critical, common = np.quantile(noise, [0.95, 0.8], axis=0)
    units = np.array([unit, 1.0, math.sqrt(unit)])
    lengths = [units * v for v in (seen, again.std(axis=0, ddof=1), critical, critical + common)]
    rows = np.stack([*lengths[:2], p, *lengths[2:]], axis=1)
    return dict(zip(DISTANCES, rows, strict=True))


def _norms(weights: Floats, order: Integers, gaps: Floats) -> Floats:
    """The three norms of the step functions with these jumps, taken in this order: (resamples, n) -> (resamples, 3)."""
    norms = np.empty((len(weights), 3))
    tied = np.flatnonzero(gaps == 0)  # between equal values there is no step
    rows = max(1, _CLOSE // len(order))
    for first in range(0, len(weights), rows):
        part = slice(first, first + rows)
        size = np.cumsum(weights[part, order], axis=1)[:, :-1]
        np.abs(size, out=size)
        size[:, tied] = 0.0
        norms[part, 0] = np.einsum("ij,j->i", size, gaps)  # `@` would start threads for products this small
        norms[part, 1] = size.max(axis=1, initial=0.0)
        norms[part, 2] = np.sqrt(2 * np.einsum("ij,j->i", np.square(size, out=size), gaps))
    return norms


def _null(weights: Floats, count: int, paired: bool, size: int, rng: np.random.Generator) -> Floats:
    """Jumps (size, n) as they could have been if the laws were equal."""
    if paired:
        return weights * np.tile(rng.integers(0, 2, (size, count)) * 2.0 - 1.0, 2)
    return rng.permuted(np.tile(weights, (size, 1)), axis=1)


def _bootstrap(weights: Floats, count: int, paired: bool, size: int, rng: np.random.Generator) -> Floats:
    """Jumps (size, n) of samples drawn again: random weights of mean one (Rubin 1981)."""
    parts = [count] if paired else [count, len(weights) - count]
    drawn = [rng.standard_exponential((size, n)) for n in parts]
    scaled = [e / e.mean(axis=1, keepdims=True) for e in drawn]
    return weights * np.concatenate(scaled * 2 if paired else scaled, axis=1)
