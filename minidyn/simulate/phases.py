"""What saves hide: a map that alternates from step to step looks smooth where every second step is saved.

At every save of a map without noise a few steps `s_j = theta_{k+j+1} - theta_{k+j}` are taken ahead, on a copy. It
alternates with period two where successive ones are opposed, and with period p > 2 where p of them lead back:

    s_j . s_{j+1} < -0.8 |s_j| |s_{j+1}|      |s_0 + ... + s_{p-1}| < max_{j<p} |s_0 + ... + s_{j-1}| / 2

Where the steps between saves are a multiple of p, all saves show the same phase.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats, Truths
from minidyn.maps.discrete import Map
from minidyn.simulate.engines import MapEngine

_PERIODS = (2, 3, 4)
SEEN, _SAVES = 0.01, 2  # of what the run moves by, at so many saves: less is not seen in a picture
REST = 1e-9  # steps below this, relative to theta, are rounding


class Phases:
    """Looks ahead at every save, over up to 64 paths, and keeps the largest oscillation that saves hide."""

    def __init__(self, system: Any, save_every: int, saves: Sequence[int]):
        still = isinstance(system, Map) and system.noise is None
        self.periods = [p for p in _PERIODS if save_every % p == 0] if still else []
        self.saves, self.save_every = saves, save_every
        self.found: list[tuple[float, int, int]] = []  # size, period, step
        if self.periods:  # where the paths were
            self.low, self.high = np.full(system.dim, np.inf), np.full(system.dim, -np.inf)

    def look(self, engine: Any, turn: int) -> None:
        """Look ahead of save number `turn`, where the engine stands."""
        engine = getattr(engine, "inner", engine)
        if not self.periods or not isinstance(engine, MapEngine):
            return
        path = self._ahead(engine, self.saves[turn])
        here = path[0][np.isfinite(path).all(axis=(0, 2))]
        self.low = np.minimum(self.low, here.min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, here.max(axis=0, initial=-np.inf))
        away = np.linalg.norm(path - path[0], axis=2)  # (steps, paths)
        for p in self.periods:
            out = away[1:p].max(axis=0)
            back = _opposed(np.diff(path, axis=0)[:3]) if p == 2 else away[p] < 0.5 * out
            size = 0.5 * np.where(back & (out > REST * (1 + np.linalg.norm(path[0], axis=1))), out, 0)
            if size.max() > 0:  # the shortest period that explains it
                self.found.append((float(size.max()), p, int(self.saves[turn])))
                return

    def _ahead(self, engine: MapEngine, done: int) -> Floats:
        """theta at this save and after each of a few steps, (steps + 1, paths, D), of the first block."""
        m, count = engine.system, min(engine.paths, 64)
        first, loop = [getattr(engine, name)[:1].copy() for name in engine.kept], m.advance(count, engine.spots)
        blocks = first[0]
        out = [blocks.reshape(-1, 64)[: m.dim, :count].T.copy()]
        for j in range(max(3, *self.periods)):
            loop(*first, 0, 1, count, engine.before + done + j, 1, m.hyper, m.loss.c, m.loss.rows, m.bound.numbers)
            out.append(blocks.reshape(-1, 64)[: m.dim, :count].T.copy())
        with np.errstate(invalid="ignore", over="ignore"):
            return np.where(np.abs(out) < 1e150, out, np.nan)

    @property
    def sentence(self) -> str:
        """What the saves hide, or nothing."""
        if not self.found:
            return ""
        least = SEEN * float(np.linalg.norm(self.high - self.low))
        seen = [found for found in self.found if found[0] > least]
        if len(seen) < _SAVES:
            return ""
        size, period, step = max(seen)
        return (
            f"the map alternates with period {period}, by up to ±{size:.3g} (at step {step:,}), and saves every "
            f"{self.save_every:,} steps show one phase"
        )


def _opposed(s: Floats) -> Truths:
    """Whether successive steps (J, paths, D) are opposed, all of them, (paths,)."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.linalg.norm(s, axis=2)
        inner = np.einsum("jpd,jpd->jp", s[1:], s[:-1])
        opposed: Truths = (inner < -0.8 * size[1:] * size[:-1]).all(axis=0)
        return opposed


def alternates(k: Any, values: Floats, least: float = 0.0) -> bool:
    """Whether values (T,) at steps `k` jump between even and odd steps, on average by more than `least`.

    Along each kind of step they vary by less than half of what they do along all.
    """
    good = np.isfinite(values)
    even, odd = (values[good & (k % 2 == side)] for side in (0, 1))
    if min(len(even), len(odd)) < 4:
        return False
    jumps = np.abs(np.diff(values[good]))
    along = float(np.abs(np.diff(even)).sum() + np.abs(np.diff(odd)).sum())
    return along < 0.5 * float(jumps.sum()) and float(jumps.mean()) > least
