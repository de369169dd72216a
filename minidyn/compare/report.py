"""A comparison in words: which flow is right, by how much, and whether the difference is more than chance.

One path: the largest difference of every flow as a part of how far the map moves, then all of them side by side.
Many: for each flow the difference of means in standard errors and of laws, then means, spreads and differences.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidyn.common.arrays import Floats, Integers
from minidyn.common.errors import InputError
from minidyn.common.reports import Report, Table, digits, share
from minidyn.simulate.phases import SEEN, alternates

if TYPE_CHECKING:
    from minidyn.compare.comparison import Comparison, ErrorRow
    from minidyn.compare.distributions import LawRow

READ = {"iterates": "{}", "midpoints": "mid-points of {}", "projected": "{} on the minima"}
SHORT = {"iterates": "iterates", "midpoints": "mid-points", "projected": "on the minima"}
_MEANT = {
    "midpoints": "mid-points: (theta_k + theta_{k+1})/2 of two successive iterates",
    "projected": "on the minima: Phi(theta_k), the limit of the gradient flow from theta_k",
}
_OLD = "this file holds one reading of the map for all flows; run it again to compare each flow as it reads the map"
ROUNDING = 1e-12  # what lies below this part of its values is rounding
NOTHING = 1e-10  # a value below this part of the largest so far is zero: solvers promise no more
_LARGEST = float(np.finfo(np.float64).max)
_DOUBT = 0.05  # means and laws differ where equal ones would look so different in this part of all comparisons
_AT_ONCE = 256  # paths
_GAINED = 1.5  # common noise is spoken of where it saves so many times the paths


def report_of(result: Comparison) -> Report:
    """All that is said of a comparison."""
    labels = list(result.runs)[1:]
    report: Report = [_headline(result)]
    alike = _alike(result)
    if alike:
        report += ["", *_one_path(result, labels)]
    else:
        scales = scales_of(result)
        for label in labels:
            report += ["", *_many_paths(result, label, scales)]
    read = {result.reading(label) for label in labels}
    notes = [] if alike else ["±: the spread over the paths, their standard deviation"]
    notes += [text for reading, text in _MEANT.items() if reading in read]
    silent = [label for label in labels if result.runs[label].meta.get("leaves_out")]
    if silent:
        who = " and ".join(filter(None, (", ".join(silent[:-1]), silent[-1])))
        notes.append(f"{who} leave{'s' * (len(silent) == 1)} the noise out")
    for label in labels:
        zero = result.meta.get("zero", {}).get(label)
        notes += [f"not shown beside the {label}: {', '.join(zero)}, zero on the minima"] if zero else []
    return [*report, "", *notes, *_ends(result), *_remarks(result)]


def _alike(result: Comparison) -> bool:
    """Whether every path is the same, up to rounding: there is one, or nothing is left to chance."""
    return all(
        len(v) == 1 or bool((np.ptp(np.nan_to_num(v), axis=0) <= ROUNDING * np.nan_to_num(np.abs(v)).max()).all())
        for name, values in result.quantities.items()
        for v in values.values()
    )


def _headline(result: Comparison) -> str:
    """The map, how long and how often it was run, and what chance there is in it."""
    m, run = result.meta, result.runs[result.map_label]
    paths, steps = m.get("paths", run.paths), m.get("steps", int(result.steps[-1]))
    count = "one path" if paths == 1 else f"{paths:,} {'starts' if _quiet(result) else 'paths'}"
    return f"{m.get('map', '')}\n{steps:,} steps to t = {digits(float(result.time[-1]))}, {count}, {chance_of(result)}"


def _quiet(result: Comparison) -> bool:
    """Whether the map has no noise."""
    return str(result.meta.get("map", "")).endswith("no noise)")


def chance_of(result: Comparison) -> str:
    """What chance there is in a comparison."""
    if _quiet(result):
        return "no noise"
    if all(run.meta.get("noise") == "none" for run in list(result.runs.values())[1:]):
        kind = "no noise in the flow" + "s" * (len(result.runs) > 2)
    else:
        kind = "same noise for both" if result.meta.get("coupled") else "independent noise"
    return f"{kind}, seed {result.meta.get('seed', 'not known')}"


def _ends(result: Comparison) -> list[str]:
    """How paths ended, where not all came to the end."""
    early = [f"{name}: {run.describe_status()}" for name, run in result.runs.items() if not run.finished.all()]
    if not early:
        return ["all paths finished"]
    done = [name for name, run in result.runs.items() if run.finished.all()]
    return [*early, *([f"{', '.join(done)}: all paths finished"] if done else [])]


def _remarks(result: Comparison) -> list[str]:
    """What else there is to say, and how long it took."""
    m, out = result.meta, []
    phases = result.runs[result.map_label].meta.get("between_saves")
    out += [f"between saves: {phases}"] if phases else []
    out += [f"rows: {m['rows']}"] if m.get("rows") else []
    out += [f"remark: at the end {m['remark']}"] if m.get("remark") else []
    if "reads" not in m and len(result.runs) > 2 and (m.get("projected") or m.get("centred")):
        out.append(f"remark: {_OLD}")
    out += [f"left out: {why}" for why in m.get("missing", {}).values()]
    walls = "; ".join(f"{label}: {run.meta.get('wall_seconds', 0.0):.2f} s" for label, run in result.runs.items())
    return [*out, f"wall time: {walls}"]


# -- one path: values side by side -----------------------------------------------------------------------


def _one_path(result: Comparison, labels: list[str]) -> Report:
    """How far every flow strays, then the values of all of them."""
    gaps, scales = result.distances(), scales_of(result)
    rows = [["flow", "against", *result.quantities]]
    for label in labels:
        last = int(result.runs[label].steps[-1]) if len(result.runs[label].steps) else 0
        cells = [_strayed((name, label), gaps, scales) for name in result.quantities]
        until = _last_alive(result, label)
        rows.append(
            [label + ("" if until is None else f" to step {min(until, last):,}"), SHORT[result.reading(label)], *cells]
        )
    title = f"largest difference from {result.map_label} (in brackets: as a part of how far {result.map_label} moves)"
    said: Report = [Table(rows, 2, title), *_closest(result, labels, gaps, scales), *_jumps(result, scales)]
    for name in result.quantities:
        said += ["", _values(result, name, labels, scales)]
    return said


def _jumps(result: Comparison, scales: Scales) -> list[str]:
    """A sentence: by how much the map jumps from step to step, where a table shows one side of it."""
    first, found = result.map_label, {}
    for name, label in [key for key in scales if result.reading(key[1]) == "iterates"]:
        values = result.pair(name, label)[0][0]
        if alternates(result.steps, values, SEEN * scales[name, label].moved):
            found[name] = float(np.nanmax(np.abs(np.diff(values))))
    if not found:
        return []
    sizes = ", ".join(f"{name} by up to {digits(size, 2)}" for name, size in found.items())
    odd = {row.step % 2 for row in result.errors}
    shown = f"; the rows are {'odd' if 1 in odd else 'even'} steps" if len(odd) == 1 else ""
    return [f"{first} jumps between even and odd steps: {sizes}{shown}"]


def _last_alive(result: Comparison, label: str) -> int | None:
    """The last step at which a flow of one path is there; None where it is to the end."""
    run = result.runs[label]
    return None if run.finished.all() else int(run.ended.max())


@dataclass(frozen=True)
class _Scale:
    """How far the map moves in a quantity, and the largest value so far, `sizes` (T,) at each of `steps`, of the paths
    that are still there: what is rounding, or nothing, is so beside these, not beside what has diverged."""

    moved: float
    steps: Integers
    sizes: Floats

    def at(self, step: int) -> float:
        """The largest value up to a step of the paths that have come to it."""
        return float(self.sizes[np.searchsorted(self.steps, step, "right") - 1])


def scales_of(result: Comparison) -> Scales:
    """(quantity, flow) -> scale of the map: of all its saves where it kept the quantity, and as the flow reads it."""
    run, out = result.runs[result.map_label], {}
    for name in result.quantities:
        try:
            kept = run.quantity(name)
        except InputError:  # an observable that was compared only
            kept = np.empty((0, 0))
        saves = np.searchsorted(run.steps[: kept.shape[1]], result.steps, "right")
        ends = _ends_of(kept)
        for label in (label for label in list(result.runs)[1:] if result.holds(name, label)):
            read = result.pair(name, label)[0]
            ended = result.runs[label].ended if result.paired(label) else np.full(run.paths, run.steps[-1])
            peaks = np.append(0.0, _peaks(kept, run.steps[: kept.shape[1]], ended))[saves]
            sizes = np.maximum(peaks, _peaks(read, result.steps, ended))
            low, high = (f(one, other) for f, one, other in zip((min, max), ends, _ends_of(read), strict=True))
            moved = 2 * min(high / 2 - low / 2, _LARGEST / 2) if high >= low else np.nan
            out[name, label] = _Scale(float(moved), result.steps, sizes)
    return out


Scales = dict[tuple[str, str], _Scale]


def _ends_of(values: Floats) -> tuple[float, float]:
    """The least and the largest finite value; infinities where there is none."""
    seen = np.isfinite(values)
    return float(values.min(initial=np.inf, where=seen)), float(values.max(initial=-np.inf, where=seen))


def _peaks(values: Floats, steps: Integers, ended: Integers) -> Floats:
    """The largest size so far, at each of these steps, of the paths (paths, T) that are there, each up to the step
    `ended` (paths,) of its partner."""
    out = np.zeros(values.shape[1])
    for first in range(0, len(values), _AT_ONCE):
        part = np.abs(values[first : first + _AT_ONCE])
        there = np.isfinite(part) & (steps <= ended[first : first + _AT_ONCE, None])
        so_far = np.maximum.accumulate(np.where(there, part, 0.0), axis=1)
        np.maximum(out, np.where(there, so_far, 0.0).max(axis=0), out=out)
    return out


def _strayed(which: tuple[str, str], gaps: dict[tuple[str, str], dict[str, float]], scales: Scales) -> str:
    """The largest difference of one flow in one quantity, and as a part of the map's way."""
    if which not in gaps:
        return "-"
    gap, scale = gaps[which]["sup"], scales[which]
    if gap <= ROUNDING * scale.sizes.max():
        return "exact"
    part = f" ({share(gap / scale.moved)})" if scale.moved > 0 and np.isfinite(gap) else ""
    return digits(gap, 2) + part


def _closest(
    result: Comparison, labels: list[str], gaps: dict[tuple[str, str], dict[str, float]], scales: Scales
) -> list[str]:
    """A sentence: the flow that strays least, by its worst quantity."""
    worst: dict[str, tuple[float, str]] = {}
    for label in labels:
        parts = [
            (gaps[name, label]["sup"] / scale.moved, name)
            for (name, flow), scale in scales.items()
            if flow == label and scale.moved > ROUNDING * scale.sizes.max()
        ]
        if parts and _last_alive(result, label) is None and np.isfinite([part for part, _ in parts]).all():
            worst[label] = max(parts)
    if not worst:
        return []
    best = min(worst, key=lambda label: worst[label][0])
    part, name = worst[best]
    where = f"at worst {share(part)} of how far {result.map_label} moves" + f" ({name})" * (len(result.quantities) > 1)
    return [f"closest: {best}, off by {where}" if len(labels) > 1 else f"{best}: off by {where}"]


def _values(result: Comparison, name: str, labels: list[str], scales: Scales) -> Table:
    """The values of one quantity: a column for every reading of the map, the flows that are so read beside it."""
    mine = [label for label in labels if result.holds(name, label)]
    steps = sorted({row.step for row in result.errors if row.quantity == name})
    places = np.searchsorted(result.steps, steps)
    columns = [["step", *(f"{step:,}" for step in steps)]]
    for reading in dict.fromkeys(result.reading(label) for label in mine):
        flows = [label for label in mine if result.reading(label) == reading]
        of_map, sizes = result.pair(name, flows[0])[0][0], scales[name, flows[0]].sizes
        columns.append([READ[reading].format(result.map_label), *(_value(of_map[t], sizes[t]) for t in places)])
        for label in flows:
            values = result.quantities[name][label][0]
            columns.append([label.removesuffix(" flow"), *(_value(values[t], sizes[t]) for t in places)])
    return Table([list(row) for row in zip(*columns, strict=True)], 0, name)


def _value(value: float, size: float) -> str:
    """A value; what is nothing beside the largest value of its quantity is zero."""
    return "0" if abs(value) <= NOTHING * size else digits(float(value), padded=True)


# -- many paths: means, spreads, standard errors ---------------------------------------------------------


def _many_paths(result: Comparison, label: str, scales: Scales) -> Report:
    """The verdict on one flow, then the means behind it."""
    rows = [row for row in result.errors if row.flow == label and (row.quantity, label) in scales]
    names = list(dict.fromkeys(row.quantity for row in rows))
    said: Report = [_verdict(result, label, rows, scales)]
    for name in names:
        said += ["", _means(result, [row for row in rows if row.quantity == name], scales[name, label])]
    laws = [found for (_, flow), found in result._last_laws.items() if flow == label]
    said += ["", _laws(laws)] if laws else []
    said += shared(row.variance_ratio for row in rows if not _exact(row, scales[row.quantity, label].at(row.step)))
    started = result.runs[result.map_label].paths
    if any(row.paths < started for row in rows):
        said.append("paths: those that a row rests on; the others have ended, or passed what numbers hold")
    return said


def _verdict(result: Comparison, label: str, rows: list[ErrorRow], scales: Scales) -> Table:
    """Where the means differ most, and whether that is more than chance."""
    table = [["quantity", "step", "largest difference", "in std. errors", "of the spread", "means", "laws"]]
    for name in dict.fromkeys(row.quantity for row in rows):
        mine, scale = [row for row in rows if row.quantity == name], scales[name, label]
        top = max(mine, key=lambda row: (abs(row.sigmas) if np.isfinite(row.sigmas) else -1.0, abs(row.difference)))
        differ, size = [_differ(row, scale.at(row.step), len(rows)) for row in mine], scale.at(top.step)
        means = "differ" if True in differ else "-" if None in differ else "agree"
        spread = share(top.difference / top.map_spread) if top.map_spread > ROUNDING * size else "-"
        laws = result._last_laws.get((name, label))
        table.append([name, f"{top.step:,}", _difference(top, size), _sigmas(top, size), spread, means, _told(laws)])
    if all(row[-1] == "-" for row in table[1:]):
        table = [row[:-1] for row in table]
    against = READ[result.reading(label)].format(result.map_label)
    return Table(table, 1, f"{label} against {against}, where the means differ most")


def _differ(row: ErrorRow, size: float, among: int) -> bool | None:
    """Whether means differ, as one of so many comparisons (Bonferroni); None where nothing can be said."""
    if not np.isfinite(row.difference) or not np.isfinite(row.standard_error):
        return None
    from statistics import NormalDist

    within = NormalDist().inv_cdf(1 - _DOUBT / among / 2) * row.standard_error  # Student's quantile is no smaller
    if _exact(row, size) or abs(row.difference) <= within:
        return False  # without scipy, which takes as long to import as all else
    low, high = row.interval(1 - _DOUBT / among)
    return not low <= 0 <= high


def _exact(row: ErrorRow, size: float) -> bool:
    """Whether a difference is rounding, beside values of this size."""
    return bool(abs(row.difference) <= ROUNDING * size)


def _told(laws: list[LawRow] | None) -> str:
    """Whether the laws differ, by three tests at once."""
    if not laws:
        return "-"
    return "differ" if min(law.p_value for law in laws) * len(laws) <= _DOUBT else "agree"


def _means(result: Comparison, rows: list[ErrorRow], scale: _Scale) -> Table:
    """Means and spreads of one quantity, and their differences."""
    columns = {
        "step": [f"{r.step:,}" for r in rows],
        result.map_label: [_pm(r.map_mean, r.map_spread, scale.at(r.step)) for r in rows],
        "flow": [_pm(r.flow_mean, r.flow_spread, scale.at(r.step)) for r in rows],
        "difference": [_difference(r, scale.at(r.step)) for r in rows],
        "std. error": [_error(r, scale.at(r.step)) for r in rows],
        "in std. errors": [_sigmas(r, scale.at(r.step)) for r in rows],
    }
    if any(r.paths < result.runs[result.map_label].paths for r in rows):
        columns["paths"] = [f"{r.paths:,}" for r in rows]
    return Table([list(columns), *map(list, zip(*columns.values(), strict=True))], 0, rows[0].quantity)


def _pm(mean: float, spread: float, size: float) -> str:
    """A mean with its spread, where there is one."""
    return _value(mean, size) + (f" ± {digits(spread, 2)}" if spread > ROUNDING * size else "")


def _difference(row: ErrorRow, size: float) -> str:
    return "0" if _exact(row, size) else digits(row.difference, 2, sign=True)


def _error(row: ErrorRow, size: float) -> str:
    return digits(row.standard_error, 2) if row.standard_error > ROUNDING * size else "-"


def _sigmas(row: ErrorRow, size: float) -> str:
    """A difference in standard errors."""
    if _exact(row, size):
        return "exact"
    if not np.isfinite(row.sigmas) or _error(row, size) == "-":
        return "-"
    if abs(row.sigmas) < 0.05:
        return "0.0"
    return f"{row.sigmas:+.1f}" if abs(row.sigmas) < 1000 else "> 1,000" if row.sigmas > 0 else "< -1,000"


def _laws(found: list[list[LawRow]]) -> Table:
    """The distances between the laws at the last step, and from where on each would be seen."""
    rows = [["quantity", *(law.distance for law in found[0])]]
    rows += [
        [laws[0].quantity, *(f"{digits(law.value, 2)} ({digits(law.detectable, 2)})" for law in laws)] for laws in found
    ]
    first = found[0][0]
    seen = f"in brackets: what {first.paths:,} paths would show"
    return Table(rows, 1, f"distance of the laws at step {first.step:,} ({seen})")


def shared(ratios: Iterable[float]) -> list[str]:
    """What the same noise for map and flow was worth."""
    known = [ratio for ratio in ratios if np.isfinite(ratio)]
    if not known or max(known) < _GAINED:
        return []
    low, high = (
        f"{float(f'{end:.3g}'):,.4g}" if end < 1000 else f"{float(f'{end:.2g}'):,.0f}" if end < 1e7 else digits(end, 2)
        for end in (min(known), max(known))
    )
    times = low if low == high else f"{low} to {high}"
    return [
        f"same noise for both: the difference is as sharp as with {times} times as many paths and independent noise"
    ]
