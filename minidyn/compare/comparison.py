"""What a comparison is: runs, the quantities compared, a row per quantity, flow and step, and its words."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.frames import frame
from minidyn.common.locks import cached_property
from minidyn.common.reports import Moving, Report, Reported, Result
from minidyn.common.units import unit_of
from minidyn.compare.distributions import DISTANCES, LawRow, distances
from minidyn.compare.report import report_of
from minidyn.compare.tables import dataset_of
from minidyn.simulate.run import Run

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_NEAR_ZERO = 1e-14


@dataclass(frozen=True, eq=False)
class ErrorRow(ByValue):
    """One quantity at one step: ensemble mean and spread of map and flow, and their difference.

    quantity, flow, step, time : of which, and when.
    map_mean, map_spread, flow_mean, flow_spread : means and standard deviations over the paths.
    `standard_error` is that of `difference` = flow mean - map mean; it is paired where map and flow
    share their noise. `sigmas` is the difference in standard errors. `paths` is how many paths it rests on.
    `variance_ratio` is how much smaller the variance of `difference` is than without that coupling: as many times
    more paths would be needed (NaN where nothing is coupled).
    """

    quantity: str
    flow: str
    step: int
    time: float
    map_mean: float
    map_spread: float
    flow_mean: float
    flow_spread: float
    difference: float
    standard_error: float
    sigmas: float
    paths: int
    variance_ratio: float = float("nan")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """A confidence interval of the difference of means (Student; Welch 1947 where the samples are independent).

        >>> row = ErrorRow("x", "flow", 10, 1.0, 0.0, 1.0, 0.5, 0.0, 0.5, 0.1, 5.0, 101)
        >>> [round(end, 3) for end in row.interval()]
        [0.302, 0.698]
        """
        from scipy.special import stdtrit

        free = self.paths - 1.0
        if np.isnan(self.variance_ratio):
            largest = max(self.map_spread, self.flow_spread)
            a, b = ((spread / largest) ** 2 if largest > 0 else 1.0 for spread in (self.map_spread, self.flow_spread))
            free = free * (a + b) ** 2 / (a**2 + b**2)
        half = float(stdtrit(free, 0.5 + level / 2)) * self.standard_error if self.standard_error > 0 else 0.0
        return self.difference - half, self.difference + half


@dataclass(eq=False, repr=False)
class Comparison(Reported, Result, Moving):
    """What `compare` returns.

    runs : label -> `Run`; the map's comes first.
    quantities : name -> label -> (paths, T) values at `steps`; a flow without noise has one path. The map is read
        as each flow says (`Flow.reads`): its values stand under its own label, or, where flows read it in several
        ways, under "LABEL, iterates", "LABEL, midpoints", "LABEL, projected". `pair` finds those of one flow.
    steps, time : (T,), the saves at which values are kept: step numbers k and times t = lr k.
    errors : rows of the table.  meta : how the comparison was made; `meta["reads"]` is label -> reading.
    loss : the map's loss (None in a loaded file).
    """

    runs: dict[str, Run]
    quantities: dict[str, dict[str, Floats]]
    steps: NDArray[np.int64]
    time: Floats
    errors: list[ErrorRow]
    meta: dict[str, Any] = field(compare=False)
    loss: Any = field(default=None, repr=False, compare=False)

    @property
    def map_label(self) -> str:
        """The label of the map's run."""
        return next(iter(self.runs))

    def reading(self, label: str) -> str:
        """How this flow reads the map: "iterates", "midpoints" or "projected"."""
        kept = self.meta.get("reads")
        if kept is None:  # a file of an earlier minidyn: one reading for all flows
            one = "projected" if self.meta.get("projected") else "iterates"
            return "midpoints" if self.meta.get("centred") else one
        return str(kept.get(label, "iterates"))

    def paired(self, label: str) -> bool:
        """Whether path i of this flow was driven by the noise of the map's path i."""
        alike = label in self.runs and self.runs[label].paths == self.runs[self.map_label].paths
        return alike and bool(self.meta.get("paired", {}).get(label, self.meta.get("coupled")))

    def holds(self, name: str, label: str) -> bool:
        """Whether the values of one quantity, the map's and the flow's, are there."""
        held = self.quantities.get(name, {})
        return label in held and (self.map_label in held or read_label(self.map_label, self.reading(label)) in held)

    def pair(self, name: str, label: str) -> tuple[Floats, Floats]:
        """The values (paths, T) of one quantity that are compared: the map's, as this flow reads it, and the flow's.

        Where both share their noise, a path counts as long as map and flow both have it; NaN afterwards.
        """
        values = self.quantities[name]
        key = read_label(self.map_label, self.reading(label))
        a, b = values[key if key in values else self.map_label], values[label]
        if self.paired(label):
            both = np.isfinite(a) & np.isfinite(b)
            a, b = (v if both.all() else np.where(both, v, np.nan) for v in (a, b))
        return a, b

    def laws(self, resamples: int = 400, seed: int = 0) -> list[LawRow]:
        """Distances between the laws of map and flow (Wasserstein-1, Kolmogorov-Smirnov, energy), for every quantity at
        every step of the table, with what equal laws would give and what could be seen at this number of paths.

        A flow without spread has no law to compare: it has no rows. The same `seed` gives the same rows.

        >>> import minidyn as md
        >>> result = md.load_model("valley").run(steps=200, paths=300)
        >>> print(result.laws()[0])  # doctest: +ELLIPSIS
        x at step 40: indistinguishable at 300 paths, Wasserstein-1 distance ... detectable from ...
        """
        return [law for row in self.errors for law in self._laws_of(row, resamples, seed)]

    def _laws_of(self, row: ErrorRow, resamples: int = 400, seed: int = 0) -> list[LawRow]:
        if not self.holds(row.quantity, row.flow) or row.step not in self.steps:
            return []
        place = int(np.searchsorted(self.steps, row.step))
        a, b = (v[:, place] for v in self.pair(row.quantity, row.flow))
        a, b = (v[np.isfinite(v)] for v in (a, b))
        if len(a) < 2 or len(b) < 2:
            return []
        if self.paired(row.flow) and np.abs(b - a).max() <= _NEAR_ZERO * np.abs(a).max():
            b = a  # apart by rounding alone, which is no difference of laws
        found = distances(a, b, self.paired(row.flow), resamples, np.random.default_rng(seed))
        key = (row.quantity, row.flow, row.step, row.time)
        rows = {name: found[name].tolist() for name in DISTANCES}
        return [LawRow(*key, name, v, error, p, high, sure, len(b)) for name, (v, error, p, high, sure) in rows.items()]

    @cached_property
    def _last_laws(self) -> dict[tuple[str, str], list[LawRow]]:
        """The laws at the last step: (quantity, flow) -> one row per distance."""
        last = {(row.quantity, row.flow): row for row in self.errors}
        few = {key: max(100, min(400, 20_000_000 // max(row.paths, 1))) for key, row in last.items()}
        return {key: rows for key, row in last.items() if (rows := self._laws_of(row, few[key]))}

    def distances(self) -> dict[tuple[str, str], dict[str, float]]:
        """For each (quantity, flow): sup and root-mean-square over the steps of the difference of means,
        over the same paths where map and flow share their noise."""
        out = {}
        for name in self.quantities:
            for label in list(self.runs)[1:]:
                if not self.holds(name, label):
                    continue
                a, b = self.pair(name, label)
                gap = np.abs(_mean(b - a) if self.paired(label) else _mean(b) - _mean(a))
                gap = gap[np.isfinite(gap)]
                largest = float(gap.max(initial=0.0)) if len(gap) else float("nan")
                rms = largest * float(np.sqrt(np.mean((gap / largest) ** 2))) if largest > 0 else largest
                out[name, label] = {"sup": largest, "rms": rms}
        return out

    def to_xarray(self) -> xr.Dataset:
        """The comparison as an `xarray.Dataset`.

        value (quantity, label, path, step): what is compared, of the map and of each flow, NaN where there is no such
        path or it has ended; labels are those of `quantities`.  map_mean, ..., difference, standard_error, sigmas,
        paths, variance_ratio (quantity, flow, step): the rows of the table, NaN at other steps.

        >>> import minidyn as md
        >>> data = md.load_model("valley").run(steps=200, paths=30).to_xarray()
        >>> data["difference"].dims, data["value"].dims
        (('quantity', 'flow', 'step'), ('quantity', 'label', 'path', 'step'))
        """
        return dataset_of(self)

    def to_dataframe(self) -> pd.DataFrame:
        """The rows of the table (`errors`) as a table of pandas, with the ends `low` and `high` of 95 % confidence
        intervals of the difference. InputError where pandas is not installed.
        """
        columns = {f.name: [getattr(row, f.name) for row in self.errors] for f in fields(ErrorRow)}
        ends = [row.interval() for row in self.errors]
        return frame(columns | {"low": [low for low, _ in ends], "high": [high for _, high in ends]})

    def _report(self) -> Report:
        """Which flow is right, by how much, and whether that is more than chance; the values; how it was run."""
        return report_of(self)


def read_label(label: str, reading: str) -> str:
    """What the map's values are called where flows read it in several ways."""
    return f"{label}, {reading}"


def row_of(name: str, label: str, a: Floats, b: Floats, step: int, time: float, paired: bool) -> ErrorRow:
    """The row of the samples a (map) and b (flow), NaN where a path has ended; paired ones belong together."""
    good_a, good_b = np.isfinite(a), np.isfinite(b)
    if paired:
        good_a = good_b = good_a & good_b
    a, b = a[good_a], b[good_b]
    unit, count = max(unit_of(a), unit_of(b)), len(a)
    if unit > 1:  # squares and sums would pass what numbers hold
        a, b = a / unit, b / unit
    if paired:
        gap = b - a
        difference = gap.mean() if count else np.nan
        error = gap.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        apart = a.var(ddof=1) + b.var(ddof=1) if count > 1 else np.nan
    else:
        difference = b.mean() - a.mean() if len(a) and len(b) else np.nan
        error = np.sqrt(sum(v.var(ddof=1) / len(v) for v in (a, b) if len(v) > 1))
    size = max(abs(a).max(initial=0.0), abs(b).max(initial=0.0))
    exact = error <= _NEAR_ZERO * size
    sigmas = np.nan if exact else difference / error
    ratio = np.nan if not paired or not apart > 0 else np.inf if exact else apart / (count * error**2)
    return ErrorRow(
        name, label, step, time, *_stats(a, unit), *_stats(b, unit), float(unit * difference), float(unit * error),
        float(sigmas), count, float(ratio),
    )  # fmt: skip


def _mean(values: Floats) -> Floats:
    """The mean of the paths that are there at each time, (paths, T) -> (T,)."""
    there = (v[np.isfinite(v)] for v in values.T)
    return np.array([unit * (v / unit).mean() if len(v) else np.nan for v in there for unit in (unit_of(v),)])


def _stats(v: Floats, unit: float) -> tuple[float, float]:
    """Mean and spread of values in this unit."""
    return (float(unit * v.mean()), float(unit * v.std(ddof=1)) if len(v) > 1 else 0.0) if len(v) else (np.nan, np.nan)
