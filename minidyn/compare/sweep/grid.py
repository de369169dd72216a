"""The settings of a sweep: a grid, a list, a sample; and the system that each one makes of the base system."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import InputError, said
from minidyn.common.intake import number, numbers, one_of, shown, whole
from minidyn.common.memory import need
from minidyn.graph import walk
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss
from minidyn.maps.loss.parameters import name_of
from minidyn.maps.noise import Noise
from minidyn.maps.rules import Rule
from minidyn.maps.settings import changed, names_of, settings_of

_KINDS: dict[str, Any] = {"loss": Loss, "rule": Rule, "noise": Noise}  # what may be swept whole
_STRUCTURE = (*_KINDS, "batch")  # what makes another kernel
_STARTS = "w0"
SETTING = "setting"  # the dimension of a list of settings


@dataclass(frozen=True)
class Grid:
    """Settings in order: `columns` (S,) by name, objects or numbers; `shape` and `dims` as a sweep has them.

    labels : by dimension what stands along it, numbers or texts.  beside : of a list, the columns along it.
    """

    columns: Mapping[str, NDArray[Any]]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    labels: Mapping[str, NDArray[Any]]
    beside: Mapping[str, NDArray[Any]]

    @cached_property
    def count(self) -> int:
        """How many settings there are."""
        return int(np.prod(self.shape))

    def numbers(self, system: Map) -> list[str]:
        """The columns that are numbers of a map: neither parts of it nor starts."""
        others = {*_STRUCTURE, _STARTS, *system.loss.param_names}
        return [name for name in self.columns if name not in others]

    def at(self, setting: int) -> dict[str, Any]:
        """What one setting gives, by name."""
        return {name: column[setting] for name, column in self.columns.items()}


def grid_of(system: Map, over: Any) -> Grid:
    """What `over` says of a map, or an InputError."""
    if isinstance(over, Mapping):
        return _product(system, over)
    if isinstance(over, Sequence) and not isinstance(over, str) and over and all(isinstance(s, Mapping) for s in over):
        return _list(system, over)
    raise InputError(
        f"{said('over')} is {{name: values}} for a grid, or a list of settings, [{{'lr': 0.1}}, {{'lr': 0.2}}], not "
        f"{shown(over)}."
    )


def sample(ranges: Mapping[Any, Any], count: int, kind: str = "sobol", rng: Any = None) -> list[dict[Any, float]]:
    """Settings for `sweep`, spread over ranges of their numbers.

    ranges : `{name: (low, high)}`, or `(low, high, "log")` where the logarithm is spread evenly.
    count : how many.  kind : "sobol" (scrambled Sobol points, best for powers of two), "halton", "latin" (a Latin
    hypercube) or "random".  rng : seed.

    Raises InputError for ranges that are none.

    >>> import minidyn as md
    >>> len(md.sample({"lr": (0.01, 1, "log"), "sigma": (0, 1)}, 8, rng=0))
    8
    """
    from scipy.stats import qmc

    count = whole("count", count, 1)
    one_of(kind, "kind", ("sobol", "halton", "latin", "random"))
    if not isinstance(ranges, Mapping) or not ranges:
        raise InputError(f"ranges is a dictionary such as {{'lr': (0.01, 1, 'log')}}, not {shown(ranges)}.")
    found = [_range(name, ends) for name, ends in ranges.items()]
    generator = np.random.default_rng(seed_key(rng)[0])
    size = len(found)
    need(16.0 * 2.0 * count * size, f"{count:,} settings", "ask for fewer")
    if kind == "random":
        points = generator.random((count, size))
    elif kind == "sobol":
        engine = qmc.Sobol(size, seed=generator)
        points = engine.random_base2(max(count - 1, 0).bit_length())[:count]
    else:
        points = (qmc.Halton if kind == "halton" else qmc.LatinHypercube)(size, seed=generator).random(count)
    columns = [low * (high / low) ** p if log else low + (high - low) * p
               for (low, high, log), p in zip(found, points.T, strict=True)]  # fmt: skip
    return [dict(zip(ranges, map(float, row), strict=True)) for row in zip(*columns, strict=True)]


def _range(name: Any, ends: Any) -> tuple[float, float, bool]:
    log = isinstance(ends, (tuple, list)) and len(ends) == 3 and ends[2] == "log"
    if not isinstance(ends, (tuple, list)) or len(ends) != 2 + log:
        raise InputError(f"the range of {name} is (low, high) or (low, high, 'log'), not {shown(ends)}.")
    low, high = (number(e, f"the range of {name}") for e in ends[:2])
    if not (np.isfinite([low, high]).all() and low < high and (low > 0 or not log)):
        raise InputError(
            f"the range of {name} must go upwards, from above zero where it is logarithmic: {shown(ends)}."
        )
    return low, high, log


# -- what is given --


def _product(system: Map, over: Mapping[Any, Any]) -> Grid:
    """All combinations."""
    if not over:
        raise InputError(f"{said('over')} names nothing to sweep over; {_may(system)}.")
    axes: dict[str, NDArray[Any]] = {}
    for key, values in over.items():
        name, column = _column(system, key, values)
        if name in axes:
            raise InputError(f"{name} is given twice.")
        axes[name] = column
    shape = tuple(map(len, axes.values()))
    need(32.0 * len(shape) * math.prod(shape), f"a grid of {math.prod(shape):,} settings", "give fewer values")
    places = np.indices(shape).reshape(len(shape), -1)
    columns = {name: values[place] for (name, values), place in zip(axes.items(), places, strict=True)}
    labels = {name: _labels(values) for name, values in axes.items()}
    return Grid(columns, tuple(axes), shape, labels, {})


def _list(system: Map, over: Sequence[Mapping[Any, Any]]) -> Grid:
    """One setting after the other, all of the same names."""
    names = list(over[0])
    if not names:
        raise InputError(f"the settings name nothing; {_may(system)}.")
    for number_, setting in enumerate(over):
        if list(setting) != names and set(setting) != set(names):
            raise InputError(f"setting {number_} names {shown(list(setting))}, the first one {shown(names)}.")
    columns = dict(_column(system, key, [setting[key] for setting in over]) for key in names)
    beside = {name: _labels(column) for name, column in columns.items()}
    return Grid(columns, (SETTING,), (len(over),), {SETTING: np.arange(len(over))}, beside)


def _column(system: Map, key: Any, values: Any) -> tuple[str, NDArray[Any]]:
    """The name of something to sweep over, and its values, checked: (n,) numbers or objects, (n, D) starts."""
    name = name_of(key)
    if name in _KINDS:
        return name, _objects(name, values)
    if name == _STARTS:
        starts = np.atleast_2d(system.state(values, _STARTS))
        return name, starts
    if name == "batch":
        sizes = [whole("batch", value, 1) for value in np.atleast_1d(np.asarray(values, dtype=object))]
        column = np.array(sizes)
        if not system.bound.picks:
            raise InputError("batch is swept where samples are chosen: give the map a Minibatch noise.")
        return name, column
    column = np.atleast_1d(numbers(values, name))  # which numbers may be is a question to each rule and noise
    if column.ndim > 1 or not column.size:
        raise InputError(f"the values of {name} have shape {column.shape}, expected (n,): some numbers.")
    if name in system.loss.param_names:
        if not np.isfinite(column).all():
            raise InputError(f"{name} contains NaN or Inf; give finite starting parameters.")
        return name, column
    return name, column


def _objects(name: str, values: Any) -> NDArray[Any]:
    given = list(values) if isinstance(values, (list, tuple)) else [values]
    kind = _KINDS[name]
    for value in given:
        if not isinstance(value, kind) and not (name == "noise" and value is None):
            raise InputError(f"{name} is swept over a list of {kind.__name__} objects, not {shown(value)}.")
    out = np.empty(len(given), dtype=object)
    out[:] = given
    return out


def _may(system: Map) -> str:
    batch = ["batch"] * system.bound.picks
    names = [*names_of(system), *batch, *system.loss.param_names[:6], _STARTS, *_KINDS]
    return f"this map has {', '.join(names)}"


def _labels(values: NDArray[Any]) -> NDArray[Any]:
    """What stands along a dimension: numbers, the texts of objects, the numbers of starts."""
    if values.ndim > 1:
        return np.arange(len(values))
    if values.dtype == object:
        listed = values.tolist()
        called = [getattr(v, "name", "") for v in listed]  # of rules, where that tells them apart
        if len(set(called)) < len(called):
            called = [walk.named(v) if v is not None else "no noise" for v in listed]
        return np.array(called)
    return values


# -- the systems --


def structured(system: Map, given: Mapping[str, Any]) -> Map:
    """The map with other parts: its loss, rule, noise, batch. What else is given are numbers and starts."""
    made = system
    if any(name in given for name in _KINDS):
        made = Map(*(given.get(name, getattr(system, name)) for name in _KINDS))
    return changed(made, {"batch": int(given["batch"])}) if "batch" in given else made


def parts_of(system: Map, grid: Grid) -> list[tuple[NDArray[np.intp], Map]]:
    """The places in the grid of settings of one structure, and the map that they share; each number checked."""
    structure = [name for name in grid.columns if name in _STRUCTURE]
    found: dict[tuple[Any, ...], list[int]] = {}
    for place in range(grid.count) if structure else ():
        values = (grid.columns[name][place] for name in structure)
        found.setdefault(tuple(int(v) if isinstance(v, np.integer) else id(v) for v in values), []).append(place)
    out = []
    for places in [np.array(g) for g in found.values()] or [np.arange(grid.count)]:
        made = structured(system, grid.at(int(places[0])))
        names = grid.numbers(made)
        if unknown := [name for name in names if name not in names_of(made)]:
            raise InputError(f"{said('over')} names {unknown[0]}, which cannot be swept over; {_may(made)}.")
        settings_of(made, {name: grid.columns[name][places] for name in names}, len(places))
        out.append((places, made))
    return out


def starts_at(system: Map, grid: Grid, places: NDArray[np.intp], w0: Any, paths: int) -> Floats:
    """The starts (settings, paths or 1, D or components) of the settings at these places of the grid."""
    named = [name for name in system.loss.param_names if name in grid.columns]
    if _STARTS in grid.columns:
        base = grid.columns[_STARTS][places][:, None]
    elif callable(w0):
        maps = [system_at(system, grid, int(place)) for place in places]
        base = np.stack([np.atleast_2d(m.state(w0(m), "w0")) for m in maps])
    elif w0 is None:
        if len(named) < system.dim:
            raise InputError("w0 is missing: give starting parameters, or sweep over all of them.")
        base = np.zeros((1, 1, system.dim))
    else:
        base = np.atleast_2d(system.state(w0, "w0"))[None]
    if base.shape[1] not in (1, paths):
        raise InputError(f"w0 holds {base.shape[1]} starts, expected one, or {paths}: one for each path.")
    out = np.array(np.broadcast_to(base, (len(places), *base.shape[1:])))
    for name in named:
        out[..., system.loss.param_names.index(name)] = grid.columns[name][places][:, None]
    return out


def system_at(system: Map, grid: Grid, place: int) -> Map:
    """The map of one setting."""
    given = grid.at(place)
    made = structured(system, given)
    return changed(made, {name: float(given[name]) for name in names_of(made) if name in given})
