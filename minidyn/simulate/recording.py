"""What is kept at every save."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidyn import observables
from minidyn.trajectory import QUANTILES, Run

Floats = NDArray[np.float64]


class Recorder:
    """Keeps what is asked for at every save."""

    def __init__(self, names: list[str], watchers: dict[str, observables.Observable], keep: str):
        self.names, self.watchers, self.keep = names, watchers, keep
        self.count = 0
        self.w: list[Floats] = []
        self.values: dict[str, list[Floats]] = {name: [] for name in watchers}
        self.stats: dict[str, list[tuple[float, float, Floats, int]]] = {}

    def save(self, w: Floats) -> None:
        values = {name: watch(w) for name, watch in self.watchers.items()}
        if self.keep == "paths":
            self.w.append(w)
            for name, v in values.items():
                self.values[name].append(v)
        else:
            rows = {name: _moments(v) for name, v in [*zip(self.names, w.T, strict=True), *values.items()]}
            for name, row in rows.items():
                self.stats.setdefault(name, []).append(row)
        self.count += 1

    def run(self, steps: NDArray[np.int64], times: Floats, status: Any, ended: Any, meta: dict[str, Any]) -> Run:
        moments = {
            name: {
                "mean": np.array([r[0] for r in rows]), "variance": np.array([r[1] for r in rows]),
                "quantiles": np.array([r[2] for r in rows]).T, "count": np.array([float(r[3]) for r in rows]),
            }
            for name, rows in self.stats.items()
        }  # fmt: skip
        w = np.stack(self.w, axis=1) if self.keep == "paths" else None
        seen = {n: np.stack(v, axis=1) for n, v in self.values.items()} if self.keep == "paths" else {}
        return Run(steps, times, w, seen, status, ended, list(self.names), meta, moments)


def _moments(v: Floats) -> tuple[float, float, Floats, int]:
    good = v[np.isfinite(v)]
    if not len(good):
        return math.nan, math.nan, np.full(len(QUANTILES), np.nan), 0
    with np.errstate(over="ignore"):  # a path about to diverge
        variance = float(good.var(ddof=1)) if len(good) > 1 else 0.0
    return float(good.mean()), variance, np.quantile(good, QUANTILES), len(good)


