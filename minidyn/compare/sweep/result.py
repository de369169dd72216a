"""What a sweep found: values by setting, labelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import InputError
from minidyn.common.frames import apart, frame
from minidyn.common.intake import shown
from minidyn.common.reports import Report, Reported, Result, Table, digits, named
from minidyn.common.status import Status
from minidyn.compare.report import SHORT

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_ROWS = 8  # settings in the table of a summary, about
_COLUMNS = 4  # quantities in it


Values = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


@dataclass(eq=False, repr=False)
class Sweep(Reported, Result):
    """What `sweep` returns.

    dims : name -> what stands along this dimension of the values, numbers or texts: first those that were swept over,
        then "path", or "statistic" (with `keep="moments"`), or "flow" (where flows were held against the map).
    values : name -> (dimensions, array): quantities, `status` and `ended` of paths.
    settings : of a list of settings, name -> (settings,).
    meta : what made it.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> found = md.sweep(md.Map(md.Loss(x**2 / 2, [x]), md.GD(0.1)), over={"lr": [0.5, 1.0, 2.5]}, w0=[1.0], steps=2)
    >>> found.mean("x")
    array([0.25, 0.  , 2.25])
    """

    dims: dict[str, NDArray[Any]]
    values: Values
    settings: dict[str, NDArray[Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def over(self) -> list[str]:
        """The dimensions that were swept over."""
        return [name for name in self.dims if name not in ("path", "statistic", "flow")]

    @property
    def shape(self) -> tuple[int, ...]:
        """Settings along each of them."""
        return tuple(len(self.dims[name]) for name in self.over)

    @property
    def quantities(self) -> list[str]:
        """What was kept beside how paths ended."""
        return [name for name in self.values if name not in ("status", "ended")]

    def quantity(self, name: str) -> NDArray[Any]:
        """The values of a quantity: the settings' dimensions, then the paths, statistics or flows."""
        if not isinstance(name, str) or name not in self.values:
            raise InputError(f"the sweep holds no {shown(name)}; it has {', '.join(self.values)}.")
        return self.values[name][1]

    def mean(self, name: str) -> Floats:
        """The mean over the paths that are left at each setting; of flows the values themselves."""
        dims, values = self.values[name] if name in self.values else ((), self.quantity(name))
        if "statistic" in dims:
            return np.asarray(values[..., 0])
        if "path" not in dims:
            return np.asarray(values, float)
        good = np.isfinite(values)
        count = good.sum(axis=-1)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(np.where(good, values, 0.0).sum(axis=-1) / np.where(count, count, np.nan))

    def to_xarray(self) -> xr.Dataset:
        """The sweep as an `xarray.Dataset` whose dimensions carry the names that were swept over.

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> gd = md.Map(md.Loss(x**2, [x]), md.GD(0.1))
        >>> data = md.sweep(gd, over={"lr": [0.1, 0.2], "x": [1.0, 2.0, 3.0]}, steps=10).to_xarray()
        >>> dict(data.sizes)
        {'lr': 2, 'x_0': 3, 'path': 1}
        """
        import xarray as xr

        beside = {name: (self.over[0], values) for name, values in self.settings.items() if name not in self.values}
        return xr.Dataset(dict(self.values), {**self.dims, **beside}, attrs={k: str(v) for k, v in self.meta.items()})

    def to_dataframe(self) -> pd.DataFrame:
        """The sweep as a table of pandas, a row for each setting and path, statistic or flow. InputError where pandas
        is not installed."""
        names = [*self.dims]
        size = [len(values) for values in self.dims.values()]
        table: dict[str, Any] = dict(zip(names, np.meshgrid(*self.dims.values(), indexing="ij"), strict=True))
        along = {name: ((self.over[0],), values) for name, values in self.settings.items()}
        for name, (dims, values) in {**along, **self.values}.items():
            places = tuple(slice(None) if d in dims else None for d in names)
            table[apart(name, table, "quantity")] = np.broadcast_to(values[places], size)
        return frame({name: column.ravel() for name, column in table.items()})

    def _report(self) -> Report:
        m = self.meta
        over = [
            (name, _span(values)) for name, values in (self.settings or {n: self.dims[n] for n in self.over}).items()
        ]
        many = " x ".join(f"{n:,}" for n in self.shape)
        rows = [("system", str(m.get("system", ""))), ("settings", many), *over]
        rows += [("steps", f"{m.get('steps', 0):,}"), ("paths", f"{m.get('paths', 1):,} at each setting")]
        rows += [("seed", str(m["seed"]))] if m.get("seed") else []
        report: Report = ["Sweep", named(rows), "", self._gaps() if "flow" in self.dims else self._table()]
        if reads := self.meta.get("reads"):
            report.append(f"how the map is read: {', '.join(f'{SHORT[how]} ({flow})' for flow, how in reads.items())}")
        return [*report, *self._ends()]

    def _places(self) -> tuple[NDArray[np.intp], dict[str, NDArray[Any]]]:
        """Some settings, evenly chosen, and by name what every setting has."""
        count = int(np.prod(self.shape))
        along = self.settings
        if not along:
            places = np.indices(self.shape).reshape(len(self.shape), -1)
            along = {name: self.dims[name][place] for name, place in zip(self.over, places, strict=True)}
        return np.unique(np.linspace(0, count - 1, min(count, _ROWS)).round().astype(int)), along

    def _table(self) -> Table:
        """The means of the first quantities, at some settings."""
        places, along = self._places()
        names, count = self.quantities[:_COLUMNS], int(np.prod(self.shape))
        columns = [self.mean(name).ravel() for name in names]
        rows = [[*(_cell(v[p]) for v in along.values()), *(digits(c[p], 4) for c in columns)] for p in places]
        several = "means over paths" if int(self.meta.get("paths", 1)) > 1 else ""
        some = f"{len(places)} of {count:,} settings" if len(places) < count else ""
        return Table([[*along, *names], *rows], 0, ", ".join(filter(None, [several, some])))

    def _gaps(self) -> Table:
        """The differences of flows from the map, at some settings."""
        places, along = self._places()
        places, count = places[:: max(1, len(places) // 4)], int(np.prod(self.shape))
        rows = []
        for p in places:
            for name in [n.removesuffix("_difference") for n in self.quantities if n.endswith("_difference")]:
                mean, gap, error = (
                    self.quantity(n).reshape(count, -1)[p]
                    for n in (name, f"{name}_difference", f"{name}_standard_error")
                )
                for f, flow in enumerate(self.dims["flow"]):
                    if np.isfinite(gap[f]):
                        cells = digits(mean[0], 4), digits(gap[f], 3), digits(error[f], 2)
                        rows.append([*(_cell(v[p]) for v in along.values()), str(flow), name, *cells])
        head = [*along, "flow", "quantity", "map", "flow - map", "std. error"]
        some = f", {len(places)} of {count:,} settings" if len(places) < count else ""
        return Table([head, *rows], 0, f"flows against the map{some}")

    def _ends(self) -> list[str]:
        """What became of settings and paths that did not reach the end."""
        if "interrupted" in self.meta:
            return ["", f"interrupted {self.meta['interrupted']}; the others are NaN", *self._lost()]
        return ["", *lost] if (lost := self._lost()) else []

    def _lost(self) -> list[str]:
        if "status" not in self.values:
            return []
        codes, counts = np.unique(self.values["status"][1], return_counts=True)
        if codes.tolist() == [Status.FINISHED]:
            return []
        total = counts.sum()
        said = [f"{n:,} {Status(c).label}" for c, n in zip(codes.tolist(), counts.tolist(), strict=True)]
        return [f"of {total:,} paths {', '.join(said)}"]


def _span(values: NDArray[Any]) -> str:
    """What stands along a dimension, in a few words."""
    if values.dtype.kind in "fiu" and len(values) > 3:
        return f"{digits(values.min())} to {digits(values.max())}, {len(np.unique(values)):,} values"
    return ", ".join(map(_cell, values[:6].tolist())) + (", ..." if len(values) > 6 else "")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else digits(float(value), 4)


def labelled(over: tuple[str, ...], shape: tuple[int, ...], found: Mapping[str, NDArray[Any]], last: str) -> Values:
    """Arrays (settings, ...) as values of a sweep; `last` is the dimension after the settings' own."""
    out = {}
    for name, array in found.items():
        tail = array.shape[1:]
        which = () if not tail else ("path",) if name in ("status", "ended") else (last,)
        out[name] = ((*over, *which), array.reshape(*shape, *tail))
    return out
