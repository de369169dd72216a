"""The order of a difference in the learning rate, `|difference| = C lr^p`: its rows, its fit, its words.

The order p is fitted to the paired differences of means with their standard errors; its interval comes from the
profile of chi^2 over p. Where a power law fits significantly worse than the error bars explain (higher powers of lr
are seen), the interval is widened by what is left (Birge 1932).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError
from minidyn.common.reports import Report, Reported, Result, Table, digits
from minidyn.compare.report import shared

_RESOLVED = 9.0  # chi^2 by which a power law must beat "no difference" before paths are planned for it
_ORDERS = (-4.0, 12.0)
_ROUNDING = 1e-14  # a difference below this part of the means is none
Fit = tuple[float, float, float, float, float, bool]
_UNSEEN: Fit = (np.nan, np.nan, np.nan, np.nan, np.nan, False)
ORDER = "order p of |flow - map| = C lr^p"
_EXACT = 1e-12  # a standard error below this part of the difference is none


@dataclass(frozen=True, eq=False)
class ScalingRow(ByValue):
    """The difference of means flow - map of one quantity at one learning rate, at the end of the run.

    quantity, flow : of which.  lr, steps, time, paths : learning rate and run.  map_mean, flow_mean : means over the
    paths.  difference, standard_error, variance_ratio : flow minus map, as in `ErrorRow`.
    """

    quantity: str
    flow: str
    lr: float
    steps: int
    time: float
    paths: int
    map_mean: float
    flow_mean: float
    difference: float
    standard_error: float
    variance_ratio: float


@dataclass(frozen=True, eq=False)
class OrderFit(ByValue):
    """The order p of `|difference| = constant lr^p`.

    quantity, flow : of which.  order, constant : p and the factor.  low, high : ends of p's confidence interval (95 %).
    chi2 : per degree of freedom; well above 1 where the differences are no pure power of lr (NaN without noise).
    resolved : whether an order was seen at all; if not, p is NaN.
    """

    quantity: str
    flow: str
    order: float
    low: float
    high: float
    constant: float
    chi2: float
    resolved: bool


@dataclass(eq=False, repr=False)
class ScalingStudy(Reported, Result):
    """What `scaling_study` returns.

    rows : one per quantity, flow and learning rate.  fits : one per quantity and flow.  meta : how it was made.
    """

    rows: list[ScalingRow]
    fits: list[OrderFit]
    meta: dict[str, Any] = field(default_factory=dict, compare=False)

    def fit(self, flow: str, quantity: str | None = None) -> OrderFit:
        """The fit for a flow (by its name) and a quantity; the first one if none is named."""
        for found in self.fits:
            if found.flow == flow and quantity in (None, found.quantity):
                return found
        names = ", ".join(sorted({f"{f.flow} / {f.quantity}" for f in self.fits}))
        raise InputError(f"the study has no fit for {flow!r} and {quantity!r}; it has {names}.")

    def _of(self, fit: OrderFit) -> list[ScalingRow]:
        """The rows behind a fit."""
        return [r for r in self.rows if (r.flow, r.quantity) == (fit.flow, fit.quantity)]

    def unseen(self, fit: OrderFit) -> str:
        """Why a fit has no order, in words."""
        mine = self._of(fit)
        left = [r for r in mine if np.isfinite(r.difference)]
        if left and all(map(is_exact, left)):
            return "exact"
        seen = any(abs(r.difference) > 2 * np.nan_to_num(r.standard_error) for r in mine)
        return "no order seen" if seen else "no difference seen"

    def _report(self) -> Report:
        """Orders with their intervals, then the differences behind them."""
        m = self.meta
        clock = f"fixed {'t = lr k' if m.get('clock') == 'time' else 'slow time lr^2 k'} = {m.get('span', np.nan):.6g}"
        quiet = not any(r.standard_error > 0 for r in self.rows)
        seed = "" if quiet else f"; seed {m.get('seed', 'not known')}"
        start = f"; {m['start']}" if m.get("start") else ""
        head = ["flow", "quantity", "order", "95 % interval", "chi^2 per freedom"]
        fits = [head, *([f.flow, f.quantity, *_words(f, self.unseen(f))] for f in self.fits)]
        report: Report = [
            f"{m.get('map', '')}\n{clock}{start}; {m.get('planned', '')}{seed}",
            "",
            Table(fits, 2, ORDER),
        ]
        for f in self.fits:
            rows = self._of(f)
            report += ["", _differences(rows, quiet), *shared(r.variance_ratio for r in rows)]
        lost = [
            f"left out of the fit of {r.quantity}, {r.flow}: lr {r.lr:.6g}, where no path is left"
            for r in self.rows
            if not np.isfinite(r.difference)
        ]
        remarks = [*lost, *(f"remark: {text}" for text in m.get("remarks", []))]
        return [*report, *([""] if remarks else []), *remarks]


def _differences(rows: list[ScalingRow], quiet: bool) -> Table:
    """The differences of one flow in one quantity, by learning rate."""
    columns = {
        "lr": [digits(r.lr, 6) for r in rows],
        "steps": [f"{r.steps:,}" for r in rows],
        "difference": ["0" if is_exact(r) else digits(r.difference, 3, sign=True) for r in rows],
    }
    if not quiet:
        columns["std. error"] = [digits(r.standard_error, 2) if r.standard_error > 0 else "-" for r in rows]
        columns["paths"] = [f"{r.paths:,}" for r in rows]
    table = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    return Table(table, 0, f"{rows[0].flow}, {rows[0].quantity}")


def _words(f: OrderFit, unseen: str) -> list[str]:
    if not f.resolved:
        return ["-", unseen, "-"]
    chi2 = "-" if np.isnan(f.chi2) else f"{f.chi2:.2g}"
    return [f"{f.order:.2f}", f"{f.low:.2f} to {f.high:.2f}" if np.isfinite(f.high - f.low) else "-", chi2]


def is_exact(r: ScalingRow) -> bool:
    """Whether map and flow agree to rounding: such a difference has no order and needs no paths."""
    size = max(abs(r.map_mean), abs(r.flow_mean))
    return max(abs(r.difference), r.standard_error) <= _ROUNDING * size


def fits_of(rows: list[ScalingRow]) -> list[OrderFit]:
    """One fit per flow and quantity."""
    groups: dict[tuple[str, str], list[ScalingRow]] = {}
    for r in rows:
        groups.setdefault((r.quantity, r.flow), []).append(r)
    fits = []
    for (quantity, flow), g in groups.items():
        differences = [0.0 if is_exact(r) else r.difference for r in g]
        fitted = fit_order([r.lr for r in g], differences, [r.standard_error for r in g])
        fits.append(OrderFit(quantity, flow, *fitted))
    return fits


def fit_order(lrs: ArrayLike, differences: ArrayLike, errors: ArrayLike, level: float = 0.95) -> Fit:
    """Fit `difference = C lr^p` with standard errors; order, low, high, |C|, chi^2 per degree of freedom, resolved.

    >>> [round(v, 6) for v in fit_order([0.1, 0.05, 0.025], [3e-2, 7.5e-3, 1.875e-3], [0, 0, 0])[:4]]
    [2.0, 2.0, 2.0, 3.0]
    """
    lr, d, s = (np.asarray(v, float) for v in (lrs, differences, errors))
    good = np.isfinite(lr) & np.isfinite(d) & (np.isfinite(s) | (s != s))
    lr, d, s = lr[good], d[good], np.nan_to_num(s[good])
    if len(d) < 2 or not np.abs(d).max() > 0:
        return _UNSEEN
    if (s <= _EXACT * np.abs(d)).all():
        return _fit_exact(lr, np.abs(d), level)
    return _fit_noisy(lr, d, np.maximum(s, _EXACT * np.abs(d).max()), level)


def _fit_exact(lr: Floats, d: Floats, level: float) -> Fit:
    """A line through logarithms; its scatter gives the interval (none for two points). None where all is open."""
    from scipy import special

    lr, d = lr[d > 0], d[d > 0]
    free = len(d) - 2
    if free < 0:
        return _UNSEEN
    u = np.log(lr) - np.log(lr).mean()
    order = float(u @ np.log(d) / (u @ u))
    rest = np.log(d) - np.log(d).mean() - order * u
    half = float(special.stdtrit(free, 0.5 + level / 2) * np.sqrt(rest @ rest / free / (u @ u))) if free else np.inf
    if free and half > max(abs(order), 1.0):  # not even its sign is known
        return _UNSEEN
    constant = float(np.exp(np.log(d).mean() - order * np.log(lr).mean()))
    return order, order - half, order + half, constant, np.nan, True


def _fit_noisy(lr: Floats, d: Floats, s: Floats, level: float) -> Fit:
    """The minimum of chi^2 over p, and where its profile has risen by as much as the level allows."""
    from scipy import optimize, special

    middle = float(np.exp(np.log(lr).mean()))

    def model(p: ArrayLike) -> tuple[Floats, Floats]:
        """chi^2 and the constant that makes it least, at every p."""
        power = (lr / middle) ** np.asarray(p)[..., None] / s
        best = power @ (d / s) / (power**2).sum(axis=-1)
        return ((d / s - best[..., None] * power) ** 2).sum(axis=-1), best

    grid = np.linspace(*_ORDERS, 321)
    start = int(np.argmin(model(grid)[0]))
    around = (grid[max(start - 1, 0)], grid[min(start + 1, len(grid) - 1)])
    order = float(
        optimize.minimize_scalar(
            lambda p: float(model(p)[0]), bounds=around, method="bounded", options={"xatol": 1e-10}
        ).x
    )
    least, best = map(float, model(order))
    if float((d / s) @ (d / s)) - least < _RESOLVED or not _ORDERS[0] + 1e-6 < order < _ORDERS[1] - 1e-6:
        return _UNSEEN
    free = len(d) - 2
    misfit = free > 0 and special.chdtrc(free, least) < 1 - level  # more than the error bars explain
    scale = least / free if misfit else 1.0
    quantile = special.stdtrit(free, 0.5 + level / 2) if misfit else special.ndtri(0.5 + level / 2)
    reach = float(quantile) ** 2 * scale

    def risen(p: float) -> float:
        return float(model(p)[0]) - least - reach

    ends = []
    for side, limit in ((-1.0, _ORDERS[0]), (1.0, _ORDERS[1])):
        steps = order + side * np.geomspace(1e-9, abs(limit - order) + 1e-9, 200)
        beyond = steps[model(steps)[0] > least + reach]
        ends.append(float(optimize.brentq(risen, order, beyond[0])) if len(beyond) else side * np.inf)
    constant = abs(best) * middle**-order
    return order, ends[0], ends[1], constant, least / free if free else np.nan, True
