"""The tree: a result as groups, labelled variables and attributes, and back.

A run fills one group; a comparison has one group per run (`runs/<label>`), `quantities` and `errors`. Every
dimension has a coordinate of its name. Names that netCDF cannot hold are rewritten and the originals kept as
attributes.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidyn.common.errors import ArchiveError, clipped, printable
from minidyn.common.status import Status
from minidyn.compare.comparison import Comparison, ErrorRow
from minidyn.compare.order import OrderFit, ScalingRow, ScalingStudy
from minidyn.compare.sweep import Sweep
from minidyn.files.results.checks import check_comparison, check_run, check_study, check_sweep
from minidyn.simulate.going_on import Ending
from minidyn.simulate.run import QUANTILES, Run

FORMAT = 2
OWN = "minidyn_"  # a group's attributes with this prefix, and `title`, are the archive's; the rest is `meta`
NETCDF = {"CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "DIMENSION_LABELS"}  # and any _...


@dataclass
class Variable:
    """Numbers or text with named dimensions; along its own name it is a coordinate."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: dict[str, Any]


@dataclass
class Group:
    """What one HDF5 group holds."""

    attrs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    groups: dict[str, "Group"] = field(default_factory=dict)

    def add(self, name: str, dims: tuple[str, ...], values: Any, **attrs: Any) -> None:
        """Add a variable whose shape must agree with the coordinates that are there already."""
        array = np.asarray(values)
        array = np.asarray(array, array.dtype.newbyteorder("="))
        if not (array.dtype.kind in "biu" or array.dtype in (np.float32, np.float64, object)):
            raise ArchiveError(f"Cannot save {shown(name)}: netCDF has no {array.dtype}; use float64.")
        sizes = tuple(len(array) if dim == name else len(self.variables[dim].values) for dim in dims)
        if array.shape != sizes:
            wanted = ", ".join(f"{dim}: {size}" for dim, size in zip(dims, sizes, strict=True))
            raise ArchiveError(f"Cannot save {shown(name)}: its shape is {array.shape}, not ({wanted}).")
        if "step" in dims and name not in ("step", "time"):
            attrs["coordinates"] = "time"
        self.variables[name] = Variable(dims, array, attrs)

    def add_items(self, name: str, dim: str, values: Sequence[object], **attrs: Any) -> None:
        """Add Python values of one type; values that no netCDF type holds exactly become JSON."""
        items = [_plain(value) for value in values]
        kinds = {type(item) for item in items}
        if kinds == {int, float} and all(float(item) == item for item in items if isinstance(item, int)):
            items, kinds = [float(item) for item in items], {float}
        if not all(is_native(item) or isinstance(item, bool) for item in items) or len(kinds) > 1:
            items, kinds = [json.dumps(item) for item in items], {str}
            attrs["stored_as"] = "json"
        dtype: Any = {bool: bool, int: np.int64, float: np.float64}.get(next(iter(kinds), str), object)
        self.add(name, (dim,), np.array(items, dtype), **attrs)

    def items(self, name: str) -> list[Any]:
        """The Python values that `add_items` was given."""
        variable = self.variables[name]
        values = variable.values.tolist()
        return [json.loads(value) for value in values] if "stored_as" in variable.attrs else values

    @property
    def nbytes(self) -> int:
        """Bytes of all that the group and those below it hold."""
        own = sum(v.values.nbytes for v in self.variables.values())
        return own + sum(g.nbytes for g in self.groups.values())

    def having(self, role: str) -> dict[str, Variable]:
        """The variables of one role, in the order in which they were added."""
        return {name: v for name, v in self.variables.items() if v.attrs.get("role") == role}


# ---------------------------------------------------------------- results


def _clock(steps: NDArray[Any], time: NDArray[Any]) -> Group:
    """A group that has the clock that maps and flows share."""
    group = Group()
    group.add("step", ("step",), steps, long_name="step number k")
    group.add("time", ("step",), time, long_name="flow time t")
    return group


def run_tree(run: Run) -> Group:
    """A run as a group: its arrays on the axes path, step and parameter, its `meta` as attributes."""
    group = _clock(run.steps, run.time)
    group.attrs = _attributes("run", _title(run.meta, run.meta.get("system", "run")), run.meta)
    group.add("path", ("path",), np.arange(run.paths))
    group.add_items("parameter", "parameter", run.names)
    codes = np.array([int(s) for s in Status], np.int8)
    words = " ".join(s.label.replace(" ", "_") for s in Status)
    group.add("status", ("path",), run.status, flag_values=codes, flag_meanings=words)
    group.add("ended", ("path",), run.ended, long_name="step at which the path ended")
    if run.w is not None:
        group.add("w", ("path", "step", "parameter"), run.w, long_name="parameters")
    _add_moments(group, run.moments)
    taken = {*group.variables, "w", "quantile", "quantity"}
    for name, values in run.hyper.items():
        group.add(_name(name, taken), ("path",), values, role="setting", quantity=name)
    for name, values in run.observables.items():
        group.add(_name(name, taken), ("path", "step"), values, role="observable", quantity=name)
    if run.ending is not None:
        group.groups["state"] = ending_tree(run.ending)
    return group


def run_of(group: Group) -> Run:
    """The run that a group holds."""
    arrays = {name: variable.values for name, variable in group.variables.items()}
    moments: dict[str, dict[str, Any]] = {}
    for variable in group.having("moment").values():
        for name, values in zip(group.items(variable.dims[0]), variable.values, strict=True):
            moments.setdefault(name, {})[variable.attrs["statistic"]] = values
    seen, hyper = (
        {v.attrs["quantity"]: v.values for v in group.having(role).values()} for role in ("observable", "setting")
    )
    return check_run(Run(
        steps=arrays["step"], time=arrays["time"], w=arrays.get("w"), observables=seen, status=arrays["status"],
        ended=arrays["ended"], names=group.items("parameter"), meta=_meta(group.attrs), moments=moments, hyper=hyper,
        _end=ending_of(group.groups["state"], arrays, hyper) if "state" in group.groups else None,
    ))  # fmt: skip


def ending_tree(end: Ending) -> Group:
    """Where a run ended as a group: what paths and engine hold there; axes of one length share a coordinate."""
    own = {"facts": end.facts, "told": end.known(), "done": end.done, "engine": list(end.arrays or ())}
    group = Group({OWN + name: value for name, value in own.items()})
    empty = {}
    for name, values in {"z": end.z, "start": end.start, **(end.arrays or {})}.items():
        if not values.size:
            empty[name] = values.dtype.str, list(values.shape)
            continue
        axes = tuple(f"axis_{place}_{size}" for place, size in enumerate(values.shape))
        for axis, size in zip(axes, values.shape, strict=True):
            if axis not in group.variables:
                group.add(axis, (axis,), np.arange(size))
        group.add(name, axes, values)
    group.attrs[OWN + "empty"] = empty
    return group


def ending_of(group: Group, run: Mapping[str, NDArray[Any]], hyper: dict[str, NDArray[Any]]) -> Ending:
    """Where a run ended, whose own arrays and settings are those."""
    own = {name.removeprefix(OWN): value for name, value in group.attrs.items()}
    arrays = {name: variable.values for name, variable in group.variables.items()}
    arrays |= {name: np.empty(shape, dtype) for name, (dtype, shape) in own["empty"].items()}
    engine = {name: arrays[name] for name in own["engine"]} or None
    ended = run["status"], run["ended"]
    return Ending(own["done"], engine, arrays["z"], arrays["start"], *ended, hyper, own["facts"], own["told"])


def _add_moments(group: Group, moments: Mapping[str, Mapping[str, Any]]) -> None:
    """Stack the moments of all names, `mean (quantity, step)`: a thousand parameters are four variables."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name, stats in moments.items():
        kind = tuple((stat, np.shape(v), np.asarray(v).dtype.str) for stat, v in stats.items())
        alike.setdefault(kind, []).append(name)
    if moments:
        group.add("quantile", ("quantile",), QUANTILES)
    taken = {*group.variables, "w"}
    for kind, names in alike.items():
        dim = _name("quantity", taken)
        group.add_items(dim, dim, names)
        for stat, shape, _ in kind:
            dims = (dim, "quantile", "step") if len(shape) == 2 else (dim, "step")
            stacked = np.stack([moments[name][stat] for name in names])
            group.add(_name(stat, taken), dims, stacked, role="moment", statistic=stat)


def comparison_tree(comparison: Comparison) -> Group:
    """A comparison as a group: a group for each run, one for what is compared, one for the table."""
    runs = Group()
    taken: set[str] = set()
    for label, run in comparison.runs.items():
        tree = runs.groups[_name(label, taken)] = run_tree(run)
        tree.attrs[OWN + "label"] = label

    quantities = _clock(comparison.steps, comparison.time)
    table = [(q, label, v) for q, by_label in comparison.quantities.items() for label, v in by_label.items()]
    dims: dict[int, str] = {}
    for _, _, values in table:  # labels may differ in their number of paths: a noiseless flow has one
        if len(values) not in dims:
            dim = dims[len(values)] = f"path_{len(values)}" if dims else "path"
            quantities.add(dim, (dim,), np.arange(len(values)))
    taken = set(quantities.variables)
    for quantity, label, values in table:
        attrs = {"role": "quantity", "quantity": quantity, "label": label}
        quantities.add(_name(f"{quantity}_{label}", taken), (dims[len(values)], "step"), values, **attrs)

    errors = _records(comparison.errors)
    attrs = _attributes("comparison", _title(comparison.meta, " and ".join(comparison.runs)), comparison.meta)
    return Group(attrs, groups={"runs": runs, "quantities": quantities, "errors": errors})


def comparison_of(group: Group) -> Comparison:
    """The comparison that a group holds."""
    table = group.groups["quantities"]
    quantities: dict[str, dict[str, Any]] = {}
    for variable in table.having("quantity").values():
        quantities.setdefault(variable.attrs["quantity"], {})[variable.attrs["label"]] = variable.values
    runs = {run.attrs[OWN + "label"]: run_of(run) for run in group.groups["runs"].groups.values()}
    errors = [ErrorRow(**row) for row in _rows(group.groups["errors"])]
    clock = table.variables["step"].values, table.variables["time"].values
    return check_comparison(Comparison(runs, quantities, *clock, errors, _meta(group.attrs)))


def study_tree(study: ScalingStudy) -> Group:
    """A scaling study as a group: its rows and its fits as tables."""
    attrs = _attributes("scaling", _title(study.meta, "scaling study"), study.meta)
    return Group(attrs, groups={"rows": _records(study.rows), "fits": _records(study.fits)})


def study_of(group: Group) -> ScalingStudy:
    """The scaling study that a group holds."""
    rows, fits = (_rows(group.groups[part]) for part in ("rows", "fits"))
    study = ScalingStudy([ScalingRow(**r) for r in rows], [OrderFit(**f) for f in fits], _meta(group.attrs))
    return check_study(study)


def sweep_tree(sweep: Sweep) -> Group:
    """A sweep as a group: its dimensions as coordinates, its values along them."""
    group = Group(_attributes("sweep", f"sweep of {_title(sweep.meta, sweep.meta.get('system', ''))}", sweep.meta))
    taken = {*NETCDF}
    dims = {name: _name(name, taken) for name in sweep.dims}
    for role, table in (("dimension", sweep.dims), ("setting", sweep.settings)):
        for name, values in table.items():
            along = dims[name] if role == "dimension" else dims[sweep.over[0]]
            named = along if role == "dimension" else _name(name, taken)
            group.add_items(named, along, values.tolist(), role=role, quantity=name, dtype=values.dtype.str)
    for name, (over, values) in sweep.values.items():
        group.add(_name(name, taken), tuple(dims[d] for d in over), values, role="value", quantity=name)
    return group


def sweep_of(group: Group) -> Sweep:
    """The sweep that a group holds."""
    dims, settings = (
        {v.attrs["quantity"]: np.array(group.items(n), v.attrs["dtype"]) for n, v in group.having(role).items()}
        for role in ("dimension", "setting")
    )
    called = {name: variable.attrs["quantity"] for name, variable in group.having("dimension").items()}
    values = {v.attrs["quantity"]: (tuple(called[d] for d in v.dims), v.values) for v in group.having("value").values()}
    return check_sweep(Sweep(dims, values, settings, _meta(group.attrs)))


KINDS: dict[str, tuple[type, Callable[[Any], Group], Callable[[Group], Any]]] = {  # what a file says it is
    "run": (Run, run_tree, run_of),
    "comparison": (Comparison, comparison_tree, comparison_of),
    "scaling": (ScalingStudy, study_tree, study_of),
    "sweep": (Sweep, sweep_tree, sweep_of),
}


def _records(items: Sequence[Any]) -> Group:
    """Rows of a table, each a record of the same fields, as one variable per field."""
    group = Group()
    if items:
        group.add("row", ("row",), np.arange(len(items)))
        taken = {"row"}
        for column in (f.name for f in fields(items[0])):
            values = [getattr(item, column) for item in items]
            group.add_items(_name(column, taken), "row", values, role="column", column=column)
    return group


def _rows(group: Group) -> list[dict[str, Any]]:
    """The fields that `_records` was given, row by row."""
    columns = {v.attrs["column"]: group.items(name) for name, v in group.having("column").items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# ---------------------------------------------------------------- names and attributes


def _name(text: str, taken: set[str]) -> str:
    """A name that netCDF and HDF5 can hold and that is not taken yet; takes it."""
    plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text))[:80].strip("_.-") or "unnamed"
    name, count = plain, 1
    while name in taken:
        count += 1
        name = f"{plain}_{count}"
    taken.add(name)
    return name


def _title(meta: Mapping[str, Any], otherwise: object) -> str:
    text = str(meta.get("title", otherwise))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _attributes(kind: str, title: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a result: the archive's own, then `meta` under names that netCDF can hold."""
    attrs: dict[str, Any] = {"title": title, OWN + "format": FORMAT, OWN + "kind": kind}
    taken = {"title", "coordinates", *NETCDF}
    renamed = {}
    for key, value in _plain(meta).items():
        name = _name(f"meta_{key}" if _name(key, set()).startswith(OWN) else key, taken)
        attrs[name] = value
        if name != key:
            renamed[name] = key
    return attrs | ({OWN + "renamed": renamed} if renamed else {})


def _meta(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The `meta` that `_attributes` was given."""
    renamed = attrs.get(OWN + "renamed", {})
    kept = {name: value for name, value in attrs.items() if name != "title" and not name.startswith(OWN)}
    return {renamed.get(name, name): value for name, value in kept.items()}


def check_format(version: object, file: Path) -> None:
    """Refuse what this minidyn cannot read."""
    if not isinstance(version, int) or version < 1:
        raise ArchiveError(f"{shown(file)} is HDF5 but not a minidyn result; give a file that `save` wrote.")
    if version > FORMAT:
        raise ArchiveError(
            f"{shown(file)} was written by a newer minidyn (format {version}, this one reads {FORMAT}); "
            "upgrade minidyn."
        )


def _plain(value: Any) -> Any:
    """`value` as JSON knows it; what JSON does not know becomes its text."""
    if isinstance(value, np.generic):
        item = value.item()
        return str(value) if isinstance(item, np.generic) else _plain(item)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def is_native(value: object) -> bool:
    """Whether a netCDF attribute or variable holds this value exactly: text, int64, float64."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    )


def shown(value: object) -> str:
    """`value` on one line, cut to what a person reads in an error."""
    return f"`{printable(clipped(value, 200, end=97))}`"
