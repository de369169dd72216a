"""Whether what a file holds is a result: its parts have the types and shapes that the words and pictures of one need.

A sealed file may have been written by another program, or changed and sealed again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from minidyn.common.status import Status
from minidyn.compare.basins import MOVING, Basins
from minidyn.compare.bifurcation import DIVERGED, Bifurcation
from minidyn.compare.comparison import Comparison
from minidyn.compare.order import ScalingStudy
from minidyn.compare.report import READ
from minidyn.compare.sweep import Sweep
from minidyn.simulate.going_on import Ending
from minidyn.simulate.run import Run

_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
_META: dict[str, str] = {  # what is said of a result, where it is said; the items of a list or dictionary after it
    "paths": "int", "steps": "int", "wall_seconds": "float", "remark": "str", "between_saves": "str", "map": "str",
    "reads": "dict str", "paired": "dict bool", "zero": "dict list", "missing": "dict str", "remarks": "list str",
    "lrs": "list float", "span": "float", "clock": "str", "planned": "str", "flows": "list str", "model": "str",
    "model_text": "str", "command": "str", "system": "str", "noise": "str", "flow": "str", "leaves_out": "str",
    "keys": "dict str",
}  # fmt: skip


def check_run(run: Run) -> Run:
    """The run, if its arrays have the shapes and kinds of one."""
    paths, saves, size = len(run.status), len(run.steps), len(run.names)
    _require(run.steps.ndim == run.status.ndim == 1 and paths > 0 and saves > 0)
    _array(run.steps, "iu", (saves,))
    _array(run.status, "i", (paths,))
    _array(run.ended, "iu", (paths,))
    _array(run.time, "fiu", (saves,))
    _require(np.isin(run.status, [int(s) for s in Status]).all())
    _texts([*run.names, *run.observables, *run.moments, *run.hyper])
    if run.w is not None:
        _array(run.w, "fiu", (paths, saves, size))
    for values in run.hyper.values():
        _array(values, "fiu", (paths,))
    for values in run.observables.values():
        _array(values, "fiub", (paths, saves))
    for stats in run.moments.values():
        _texts(stats)
        for stat, values in stats.items():
            _array(values, "fiub", (*values.shape[:1], saves) if stat == "quantiles" else (saves,))
    _check_meta(run.meta)
    if run.ending is not None:
        _check_ending(run.ending, paths)
    return run


def _check_ending(end: Ending, paths: int) -> None:
    """What going on reads before it has an engine, which holds the arrays against its own."""
    facts, told = end.facts, end.told
    _require(type(end.done) is int and end.done > 0 and isinstance(facts, dict) and isinstance(told, dict))
    _array(end.z, "f", (paths, end.z.shape[-1]))
    _array(end.start, "f", (len(end.start), end.start.shape[-1]))
    _require(len(end.start) in (1, paths))
    for name, least in (("first_step", 1), ("wanted", 1), ("first_path", 0)):
        _require(type(facts[name]) is int and facts[name] >= least)
    _require(facts["keep"] in ("paths", "moments") and len(bytes.fromhex(facts["stream"])) == 16)
    step, time = facts["origin"]
    _require(type(step) is int and 0 <= step <= end.done and all(type(t) is float for t in (time, facts["time"])))
    _require("save_every" in facts and "layout" in facts and isinstance(facts["seed"], str))
    _require(all(isinstance(facts[name], dict) for name in ("ways", "found")))
    _require("untold" in told or all(isinstance(told[name], str) for name in ("system", "stop")))


def check_comparison(result: Comparison) -> Comparison:
    """The comparison, if its table speaks of its runs and its steps."""
    _require(len(result.runs) > 0 and len(result.steps) > 0)
    _array(result.steps, "iu", result.steps.shape[:1])
    _array(result.time, "fiu", result.steps.shape)
    _texts([*result.runs, *result.quantities, *(label for by in result.quantities.values() for label in by)])
    for name, by_label in result.quantities.items():
        for label, values in by_label.items():
            _array(values, "fiu", (max(len(values), 1), len(result.steps)))
            if result.holds(name, label):
                result.pair(name, label)  # which must go together
    for row in result.errors:
        _check_row(row)
    _check_meta(result.meta)
    _require(all(reading in READ for reading in result.meta.get("reads", {}).values()))
    _texts(name for names in result.meta.get("zero", {}).values() for name in names)
    return result


def check_study(study: ScalingStudy) -> ScalingStudy:
    """The scaling study, if its rows are rows of one."""
    for row in (*study.rows, *study.fits):
        _check_row(row)
    _require({(f.quantity, f.flow) for f in study.fits} <= {(r.quantity, r.flow) for r in study.rows})
    _check_meta(study.meta)
    return study


def check_sweep(sweep: Sweep) -> Sweep:
    """The sweep, if its values lie along its dimensions."""
    _require(len(sweep.dims) > 0 and len(sweep.values) > 0 and len(sweep.over) > 0)
    _texts([*sweep.dims, *sweep.values, *sweep.settings])
    for values in sweep.dims.values():
        _require(values.ndim == 1 and len(values) > 0 and values.dtype.kind in "fiuU")
    for values in sweep.settings.values():
        _require(values.shape == sweep.shape and values.dtype.kind in "fiuU")
    for dims, values in sweep.values.values():
        _require(list(dims[: len(sweep.over)]) == sweep.over and set(dims) <= set(sweep.dims))
        _array(values, "fiu", tuple(len(sweep.dims[name]) for name in dims))
    ends = {"status", "ended"} & {*sweep.values}
    _require(sweep.quantities and len(ends) == (0 if "flow" in sweep.dims else 2))
    gaps = [name.removesuffix("_difference") for name in sweep.values if name.endswith("_difference")]
    for name in gaps if "flow" in sweep.dims else ():
        shapes = [np.shape(sweep.quantity(n)) for n in (name, f"{name}_difference", f"{name}_standard_error")]
        _require(shapes == [sweep.shape, *[(*sweep.shape, len(sweep.dims["flow"]))] * 2])
    if "status" in sweep.values:
        _require(np.isin(sweep.quantity("status"), [int(s) for s in Status]).all())
    _check_meta(sweep.meta)
    return sweep


def check_bifurcation(diagram: Bifurcation) -> Bifurcation:
    """The bifurcation diagram, if its arrays have the shapes and kinds of one."""
    count = len(diagram.values)
    _require(count > 0 and len(diagram.points) > 0 and type(diagram.steps) is int and "system" in diagram.meta)
    _texts([diagram.parameter, *diagram.points])
    for values, kinds in ((diagram.values, "f"), (diagram.exponent, "f"), (diagram.period, "i")):
        _array(values, kinds, (count,))
    _require((diagram.period >= DIVERGED).all())
    _require(len({points.shape for points in diagram.points.values()}) == 1)
    for points in diagram.points.values():
        _array(points, "f", (count, points.shape[-1]))
    _check_meta(diagram.meta)
    return diagram


def check_basins(basins: Basins) -> Basins:
    """The basins, if their labels are those of their places."""
    shape = tuple(len(v) for v in basins.axes.values()) or basins.labels.shape[:1]
    _require(len(basins.axes) in (0, 2) and basins.labels.size > 0 and "system" in basins.meta)
    _require(type(basins.steps) is int)
    _texts(basins.axes)
    _array(basins.labels, "i", shape)
    _require(((basins.labels >= MOVING) & (basins.labels < len(basins.places))).all())
    _array(basins.ends, "f", (*shape, basins.ends.shape[-1]))
    for values in basins.axes.values():
        _array(values, "f", values.shape[:1])
    for place in basins.places:
        _array(place.at, "f", basins.ends.shape[-1:])
        _require(isinstance(place.period, int) and isinstance(place.starts, int))
    _check_meta(basins.meta)
    return basins


def _require(holds: Any) -> None:
    if not holds:
        raise ValueError("a part that no result has")


def _texts(names: Iterable[Any]) -> None:
    _require(all(isinstance(name, str) for name in names))


def _array(values: Any, kinds: str, shape: tuple[int, ...]) -> None:
    _require(isinstance(values, np.ndarray) and values.dtype.kind in kinds and values.shape == shape)


def _check_row(row: Any) -> None:
    for part in fields(row):
        value, wanted = getattr(row, part.name), str(part.type)
        _require(isinstance(value, _TYPES[wanted]) and (wanted == "bool" or not isinstance(value, bool)))


def _check_meta(meta: Mapping[str, Any]) -> None:
    for name, wanted in _META.items():
        kind, _, inner = wanted.partition(" ")
        if name not in meta or (meta[name] is None and kind not in ("int", "float")):
            continue
        if kind in _TYPES:
            _require(isinstance(meta[name], _TYPES[kind]))
            continue
        _require(isinstance(meta[name], dict if kind == "dict" else list))
        items = list(meta[name].values()) if kind == "dict" else meta[name]
        _require(all(isinstance(v, _TYPES.get(inner, (list,))) for v in items))
