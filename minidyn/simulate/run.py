"""A run: times, states, observables, how each path ended, and what made it."""

import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from minidyn.common.arrays import Codes, Floats, Integers, Truths
from minidyn.common.errors import InputError
from minidyn.common.frames import apart, frame
from minidyn.common.intake import shown
from minidyn.common.reports import Moving, Report, Reported, Result, digits, named
from minidyn.common.status import Status
from minidyn.common.units import unit_of
from minidyn.compiler import backends

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from minidyn.simulate.going_on import Ending

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(eq=False, repr=False)
class Run(Reported, Result, Moving):
    """What `simulate` returns.

    steps : (T,) step numbers k at which the run was saved; the common clock of maps and flows.
    time : (T,) flow time t (`lr k`, or the sum of a schedule's learning rates); NaN where `hyper` gives each path a
        learning rate of its own.
    w : (paths, T, D) parameters, NaN after a path has ended; None with `keep="moments"`. With a checkpoint, and from
        large files, it is mapped from disk and read-only.
    observables : name -> (paths, T).
    moments : name -> {"mean", "variance", "quantiles", "count"} over the paths at each time, for every
        parameter and observable, with `keep="moments"`.
    status, ended : (paths,) `Status` of each path and the step at which it ended.
    hyper : name -> (paths,), what `hyper` gave each path.
    names : the D parameter names.  meta : what made the run (system, seed, versions, wall time).
    state : (paths, components) where the paths stand at the end: of a map theta and the rule's states, of a flow its
        own state; NaN where a path has ended. With all else that `simulate(system, continue_from=run, steps=...)` needs
        it is kept, in files too; None where it is not known.
    """

    steps: Integers
    time: Floats
    w: Floats | None
    observables: dict[str, Floats]
    status: Codes
    ended: Integers
    names: list[str]
    meta: dict[str, Any] = field(compare=False)
    moments: dict[str, dict[str, Floats]] = field(default_factory=dict)
    hyper: dict[str, Floats] = field(default_factory=dict)
    _end: "Ending | Callable[[Run], Ending] | None" = field(default=None, compare=False)

    @property
    def ending(self) -> "Ending | None":
        """What `simulate` needs to go on from here; None where it is not known."""
        if callable(self._end):
            self._end = self._end(self)
        return self._end

    @property
    def state(self) -> Floats | None:
        """Where the paths stand at the end."""
        return None if self.ending is None else self.ending.z.copy()

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_end": self.ending}

    def _ingredients(self) -> dict[str, Any]:
        """How long a run took, and on how many threads, makes no other run of it."""
        meta = {key: value for key, value in self.meta.items() if key not in ("wall_seconds", "threads")}
        return super()._ingredients() | {"meta": meta}

    @property
    def paths(self) -> int:
        """Number of paths."""
        return len(self.status)

    @property
    def finished(self) -> Truths:
        """Which paths reached the last step; statistics rest on these."""
        return self.status == Status.FINISHED

    def quantity(self, name: str) -> Floats:
        """(paths, T) values of a parameter or observable."""
        if isinstance(name, str) and name in self.observables:
            return self.observables[name]
        if isinstance(name, str) and name in self.names and self.w is not None:
            return self.w[:, :, self.names.index(name)]
        raise InputError(f"the run holds no {shown(name)}; it has {', '.join([*self.names[:20], *self.observables])}.")

    def digest(self) -> str:
        """A hash of all that the run holds but `meta` and `state`: runs of equal bits have equal ones, whatever the
        threads, the wall time or the interruptions.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> noisy = md.Map(md.Loss(x**2, [x]), md.GD(0.1), md.GaussianNoise(1.0))
        >>> one, two = (md.simulate(noisy, w0=[1.0], steps=9, paths=99, rng=0, threads=n).digest() for n in (1, 2))
        >>> one == two
        True
        """
        total = hashlib.blake2b(json.dumps(self.names).encode(), digest_size=16)
        fixed: dict[str, Any] = {"steps": self.steps, "time": self.time, "status": self.status, "ended": self.ended}
        fixed |= {} if self.w is None else {"w": self.w}
        fixed |= {f"setting {name}": v for name, v in self.hyper.items()}
        fixed |= {f"observable {name}": v for name, v in self.observables.items()}
        fixed |= {f"{stat} of {name}": v for name, stats in self.moments.items() for stat, v in sorted(stats.items())}
        for name, values in fixed.items():
            total.update(f"\n{name} {values.dtype.str} {values.shape}\n".encode())
            size = max(1, values.nbytes // max(len(values), 1))
            for first in range(0, len(values), max(1, 2**24 // size)):  # what lies on disk is never all in memory
                total.update(values[first : first + max(1, 2**24 // size)].tobytes())
        return total.hexdigest()

    @property
    def seed(self) -> str:
        """The seed, where another one would give another run; empty elsewhere."""
        quiet = str(self.meta.get("system", "")).rstrip(")").endswith("no noise") or self.meta.get("noise") == "none"
        return "" if quiet else str(self.meta.get("seed", ""))

    def describe_status(self) -> str:
        """One line: how many paths ended how."""
        counts = Counter(int(s) for s in self.status)
        parts = []
        for code, count in sorted(counts.items()):
            where = ""
            if code not in (Status.FINISHED, Status.INTERRUPTED):
                where = f" (first at step {int(self.ended[self.status == code].min())})"
            parts.append(f"{count} {Status(code).label}{where}")
        return ", ".join(parts)

    def to_xarray(self) -> "xr.Dataset":
        """The run as an `xarray.Dataset` with dimensions `path`, `step`, `parameter`.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> run = md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.1)), w0=[1.0], steps=3)
        >>> dict(run.to_xarray().sizes)
        {'path': 1, 'step': 4, 'parameter': 1}
        """
        import xarray as xr

        values: dict[str, Any] = {}
        if self.w is not None:
            values["w"] = (("path", "step", "parameter"), self.w)
        values |= {name: (("path", "step"), v) for name, v in self.observables.items()}
        for name, stats in self.moments.items():
            for stat, v in stats.items():
                dims = ("quantile", "step") if stat == "quantiles" else ("step",)
                values[f"{name}_{stat}"] = (dims, v)
        values |= {"status": ("path", self.status), "ended": ("path", self.ended)}
        coords: dict[str, Any] = {
            **clock(self.steps, self.time),
            "parameter": self.names,
            "path": self.meta.get("first_path", 0) + np.arange(self.paths),
        }
        coords |= {name: ("path", v) for name, v in self.hyper.items()}
        coords |= {"quantile": list(QUANTILES)} if self.moments else {}
        return xr.Dataset(values, coords, attrs={k: str(v) for k, v in self.meta.items()})

    def to_dataframe(self) -> "pd.DataFrame":
        """The run as a table of pandas: a row for each path and save, with what `hyper` gave the path, parameters and
        observables; of moments a row for each quantity and save. InputError where pandas is not installed.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> run = md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.25)), w0=[1.0], steps=2, observe="loss")
        >>> print(run.to_dataframe())
           path  step  time     x    loss
        0     0     0  0.00  1.00  1.0000
        1     0     1  0.25  0.50  0.2500
        2     0     2  0.50  0.25  0.0625
        """
        saves = len(self.steps)
        if self.w is None:
            stats = [*self.moments.values()]
            table: dict[str, Any] = {"quantity": np.repeat([*self.moments], saves)}
            table |= {"step": np.tile(self.steps, len(stats)), "time": np.tile(self.time, len(stats))}
            for name in ("mean", "variance", "count"):
                table[name] = np.concatenate([s[name] for s in stats])
            for place, q in enumerate(QUANTILES):
                table[f"quantile {q}"] = np.concatenate([s["quantiles"][place] for s in stats])
            return frame(table)
        table = {"path": np.repeat(self.meta.get("first_path", 0) + np.arange(self.paths), saves)}
        table |= {"step": np.tile(self.steps, self.paths), "time": np.tile(self.time, self.paths)}
        for name, values in self.hyper.items():
            table[apart(name, table, "given")] = np.repeat(values, saves)
        for place, name in enumerate(self.names):
            table[apart(name, table, "parameter")] = self.w[:, :, place].ravel()
        for name, values in self.observables.items():
            table[apart(name, table, "observed")] = values.ravel()
        return frame(table)

    def _rows(self) -> list[tuple[str, str]]:
        rows = [
            ("system", str(self.meta.get("system", ""))),
            ("steps", f"{self.steps[-1]:,} in {len(self.steps)} saves"),
        ]
        if self.meta.get("went_on_from"):
            rows.append(("goes on", f"from step {self.meta['went_on_from']:,} of an earlier run"))
        running = self.finished | (self.status == Status.INTERRUPTED)
        alike = f" ({self.meta['alike']})" if self.meta.get("alike") else ""
        rows.append(("paths", f"{self.paths:,}: {self.describe_status()}{alike}"))
        rows += [("seed", self.seed)] if self.seed else []
        rows += [(name, f"{digits(v.min())} to {digits(v.max())}, by path") for name, v in self.hyper.items()]
        shown = [*self.names[:6], *self.observables]
        for name in shown:
            if {"mean", "variance"} <= self.moments.get(name, {}).keys():
                mean, spread = self.moments[name]["mean"][-1], self.moments[name]["variance"][-1] ** 0.5
            elif self.w is not None or name in self.observables:
                last = self.quantity(name)[running, -1]
                unit = unit_of(last)
                with np.errstate(invalid="ignore"):  # an infinite loss has no spread
                    mean, spread = unit * np.array(
                        [(last / unit).mean(), (last / unit).std()] if len(last) else [np.nan] * 2
                    )
            else:
                continue
            about = f" ± {digits(spread, 3)}" if self.paths > 1 else ""
            rows.append((f"final {name}", digits(mean, 6) + about if running.any() else "no path is left"))
        if len(self.names) > 6 and (self.w is not None or self.names[6] in self.moments):
            rows.append(("not shown", f"{len(self.names) - 6:,} more parameters"))
        if self.meta.get("between_saves"):
            rows.append(("between saves", self.meta["between_saves"]))
        if "wall_seconds" in self.meta:
            rows.append(("wall time", f"{self.meta['wall_seconds']:.2f} s"))
        return rows

    def _report(self) -> Report:
        return ["Run", named(self._rows())]


def clock(steps: Integers, time: Floats) -> dict[str, Any]:
    """The clock that maps and flows share, as coordinates along `step`."""
    return {
        "step": ("step", steps, {"long_name": "step number k", "units": "steps"}),
        "time": ("step", time, {"long_name": "flow time t", "units": "learning rate x steps"}),
    }


@cache
def provenance() -> Mapping[str, str]:
    """Versions of what computes: stored with every result."""
    found = {"python": sys.version.split()[0], "machine": platform.machine(), "compiler": backends.name()}
    for package in ("minidyn", "numpy", "llvmlite", "numba", "scipy", "sympy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
