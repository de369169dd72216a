"""Numbers of a map that differ from path to path: hyperparameters, noise levels, constants of the loss.

Kernels read them from three arrays, `hp`, `nz` and `c`; what differs lies beside the state of its path instead.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import InputError
from minidyn.common.intake import between, numbers, shown, table
from minidyn.maps.discrete import Map
from minidyn.maps.noise.base import total
from minidyn.maps.rules.rule import check_hyper
from minidyn.maps.timeloop import Spot


@dataclass(frozen=True)
class Settings:
    """What differs: `given` (paths,) by name; the `spots` that kernels read for each path, and their `values`
    (spots, paths). After `period` paths the random numbers come again: those are the paths of one setting."""

    given: Mapping[str, Floats]
    spots: tuple[Spot, ...]
    values: Floats
    period: int = 2**62

    def groups(self, system: Map, arrays: Collection[str]) -> list[tuple[NDArray[np.intp], Map]]:
        """The paths that agree in what kernels read from these arrays, and a map of theirs; nothing where all agree."""
        rows = [row for (array, _), row in zip(self.spots, self.values, strict=True) if array in arrays]
        if not rows:
            return []
        _, first, which = np.unique(np.array(rows), axis=1, return_index=True, return_inverse=True)
        order, ends = np.argsort(which.ravel(), kind="stable"), np.cumsum(np.bincount(which.ravel()))
        parts = np.split(order, ends[:-1])
        return [(part, self.of_path(system, int(path))) for part, path in zip(parts, first, strict=True)]

    def of_path(self, system: Map, path: int) -> Map:
        """The map of one path."""
        return changed(system, {name: float(column[path]) for name, column in self.given.items()})


def settings_of(system: Map, given: Any, paths: int, period: int = 2**62) -> Settings:
    """The settings of so many paths, of which `period` have one setting.

    given : by name the numbers (paths,), or one for all: of the rule's hyperparameters, the noise's `sigma` (one number
        for all coordinates) and `label_std`, the loss's constants (by symbol or name).

    Raises InputError for other names and shapes, and for numbers that one path alone would not be given.
    """
    columns: dict[Spot, Floats] = {}
    found: dict[str, Floats] = {}
    for key, values in table(given, "hyper").items():
        name, spot = _spot(system, key)
        column = _column(name, values, paths)
        _check(system, name, spot, column)
        if name in found:
            raise InputError(f"{name} is given twice.")
        columns[spot] = found[name] = column
    whole = {"nz": system.bound.numbers, "c": system.loss.c}
    for array in {array for array, _ in columns} & {*whole}:  # these two are read by loops: all of them, or none
        for place, value in enumerate(whole[array]):
            columns.setdefault((array, place), np.broadcast_to(value, paths))
    spots = tuple(sorted(columns))
    values = np.array([columns[spot] for spot in spots]).reshape(len(spots), paths)
    return Settings(found, spots, values, period)


def changed(system: Map, values: Mapping[str, Any]) -> Map:
    """The map with other numbers: of what `settings_of` takes by name, and `batch`."""
    hyper, constants, parts = {}, {}, [] if system.noise is None else [*system.noise.parts]
    for name, value in values.items():
        array = "nz" if name == "batch" else _spot(system, name)[1][0]
        if array == "hp":
            hyper[name] = value
        elif array == "c":
            constants[next(s for s in system.loss.constants if str(s) == name)] = value
        else:
            parts = [replace(p, **{name: value}) if name in _fields(p) else p for p in parts]  # type: ignore[type-var]
    loss = system.loss.with_constants(constants) if constants else system.loss
    return Map(loss, system.rule.with_hyper(**hyper) if hyper else system.rule, total(parts))


def _fields(part: Any) -> set[str]:
    return {f.name for f in fields(part)}


def names_of(system: Map) -> list[str]:
    """What of a map may differ from path to path."""
    noise = [name for name in ("sigma", "label_std") if _noise_spot(system, name) is not None]
    scalars = [str(s) for s, value in system.loss.constants.items() if not np.shape(value)]
    return [*system.rule.hyper, *noise, *scalars]


def _spot(system: Map, key: Any) -> tuple[str, Spot]:
    """The name by which a number goes, and where kernels read it."""
    loss, hyper = system.loss, list(system.rule.hyper)
    constants = {str(s): s for s, value in loss.constants.items() if not np.shape(value)}
    if str(key) in hyper and str(key) in constants:
        raise InputError(f"{key} is a hyperparameter and a constant of the loss; give the constant another name.")
    if isinstance(key, str) and key in hyper:
        if isinstance(system.rule.hyper[key], sp.Expr):
            raise InputError(f"{key} is the schedule {system.rule.hyper[key]}, which all paths share.")
        return key, ("hp", hyper.index(key))
    if isinstance(key, str) and (spot := _noise_spot(system, key)) is not None and key not in constants:
        return key, spot
    symbol = constants.get(str(key))
    if symbol is None or not (isinstance(key, str) or key == symbol):
        known = names_of(system)
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f"{shown(key)} is no number of this map that can differ from path to path; {has}.")
    return str(symbol), ("c", loss.place_of(symbol))


def _noise_spot(system: Map, name: str) -> Spot | None:
    """Where kernels read the noise's `sigma`, where it is one number, or `label_std`."""
    bound = system.bound
    if name == "label_std" and len(bound.labels) == 1:
        return "nz", 0
    single = [s for s in bound.additive if s.law.normal and not s.entries.ndim and not s.varies]
    return ("nz", single[0].at) if name == "sigma" and len(single) == 1 else None


def _column(name: str, values: Any, paths: int) -> Floats:
    column = numbers(values, name)
    if column.shape not in ((), (1,), (paths,)) or not column.size:
        raise InputError(
            f"{name} has shape {column.shape}, expected ({paths},): one number for each path, or one for all."
        )
    return np.array(np.broadcast_to(column, paths))


def _check(system: Map, name: str, spot: Spot, column: Floats) -> None:
    """Refuse what one path alone would be refused: hyperparameters at their ends, and what is not finite."""
    if not np.isfinite(column).all():
        raise InputError(f"{name} contains NaN or Inf; give finite numbers.")
    if spot[0] == "hp":
        for value in (column.min(), column.max()):
            check_hyper(system.rule.name, name, float(value), system.rule.builtin)
    elif spot[0] == "nz" and name == "label_std":
        between(float(column.min()), "the standard deviation of label noise", 0, np.inf)
    elif spot[0] == "nz" and column.min() < 0:
        raise InputError("sigma is a standard deviation and must not be negative.")
