"""How a figure is taken: cases in turn, medians, one row per reference; the table and its JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

UNITS = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}
OURS = "minidyn"
Case = Callable[[], object]


@dataclass
class Row:
    """One line of the table: a figure, the reference that was measured beside it, and the bar.

    With a reference the bar is on the ratio figure / reference, without one on the figure itself: at most `bar`, at
    least `bar` where `least` is set, or within `bar` of `around`.
    """

    work: str
    unit: str
    figure: float | None  # None where minidyn cannot do it yet
    against: str = ""
    reference: float | None = None
    bar: float | None = None
    note: str = ""
    least: bool = False
    around: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Figure / reference."""
        return None if self.reference is None or self.figure is None else self.figure / self.reference

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        value = self.figure if self.ratio is None else self.ratio
        if self.bar is None or value is None:
            return None
        if self.around is not None:
            return abs(value - self.around) <= self.bar
        return value >= self.bar if self.least else value <= self.bar

    @property
    def bar_text(self) -> str:
        """The bar as the table shows it."""
        if self.bar is None:
            return ""
        if self.around is not None:
            return f"{self.around:g}+-{self.bar:g}"
        return f"{'>=' if self.least else '<='}{self.bar:g}"

    def line(self) -> str:
        """The row as text."""
        other = "" if self.reference is None else f"{_short(self.reference):>8s}"
        ratio = "" if self.ratio is None else f"{_short(self.ratio):>7s}"
        verdict = {None: "", True: "yes", False: "NO"}[self.met]
        text = (
            f"{self.work:48s} {_short(self.figure):>8s} {self.unit:12s} {other:>8s} {self.against:20s} {ratio:>7s} "
            f"{self.bar_text:>8s} {verdict:3s} {self.note}"
        )
        return text.rstrip()


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


HEAD = f"{'work':48s} {'minidyn':>8s} {'unit':12s} {'other':>8s} {'against':20s} {'ratio':>7s} {'bar':>8s} met"


def interleaved(
    cases: Mapping[str, Case], repeats: int = 7, wall: bool = False, least: float = 0.02
) -> dict[str, float]:
    """Median seconds of one call of each case, the cases run in turn.

    Seconds are processor time of this process, which other people's load on the machine does not lengthen; with
    `wall` they are time on the clock. Calls much shorter than `least` seconds are repeated.
    """
    clock = time.perf_counter if wall else time.process_time
    counts = {}
    for name, run in cases.items():
        run()  # compiled and in cache
        began = time.perf_counter()
        run()
        counts[name] = max(1, math.ceil(least / max(time.perf_counter() - began, 1e-9))) if least else 1
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            began = clock()
            for _ in range(counts[name]):
                run()
            taken[name].append((clock() - began) / counts[name])
    return {name: statistics.median(values) for name, values in taken.items()}


def rows(work: str, unit: str, seconds: Mapping[str, float], per: float | Mapping[str, float],
         bars: Mapping[str, float | None], note: str = "", **extra: Any) -> Iterator[Row]:  # fmt: skip
    """One row for each case beside minidyn's; `per` is the number of units of work in a call (of each case).

    `bars` names the bar on the ratio to a reference; other cases are shown without one.
    """
    scale = UNITS[unit.split("/")[0]]
    values = {n: s / (per[n] if isinstance(per, Mapping) else per) * scale for n, s in seconds.items()}
    for name, value in values.items():
        if name != OURS:
            yield Row(work, unit, values[OURS], name, value, bars.get(name), note, extra=dict(extra))


def first_call(run: Case) -> float:
    """Seconds of the first call: compilation, or finding what is compiled."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


# -- what was measured on what ---------------------------------------------------------------------------------------

PEERS = ("jax", "diffrax", "heyoka", "torch", "numbalsoda")


def installed(name: str) -> bool:
    """Whether a peer can be imported."""
    return util.find_spec(name) is not None


def machine() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the versions of everything measured."""
    versions = {"python": platform.python_version()}
    for name in ("minidyn", "numpy", "scipy", "sympy", "llvmlite", "numba", *PEERS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "system": platform.platform(),
        "cores": cores,
        "load": load,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write_json(path: str | Path, found: list[Row], about: dict[str, Any]) -> None:
    """Everything that was printed, and the machine."""
    table = [{**asdict(r), "ratio": r.ratio, "met": r.met} for r in found]
    text = json.dumps({"machine": about, "rows": table}, indent=1, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
