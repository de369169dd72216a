"""Bifurcation diagrams and basins as trees, and back (see `layout`)."""

from typing import Any

import numpy as np

from minidyn.compare.basins import Basins, Place
from minidyn.compare.bifurcation import Bifurcation
from minidyn.files.results.checks import check_basins, check_bifurcation
from minidyn.files.results.layout import OWN, Group, _attributes, _meta, _name, _title


def bifurcation_tree(diagram: Bifurcation) -> Group:
    """A bifurcation diagram as a group: its arrays on the axes value, of the parameter, and point."""
    attrs = _attributes("bifurcation", _title(diagram.meta, f"the long run against {diagram.parameter}"), diagram.meta)
    group = Group(attrs | {OWN + "parameter": diagram.parameter, OWN + "steps": diagram.steps})
    group.add("value", ("value",), diagram.values, long_name=diagram.parameter)
    group.add("point", ("point",), np.arange(next(iter(diagram.points.values())).shape[1]))
    group.add("period", ("value",), diagram.period, long_name="0: none, -1: diverged")
    group.add("exponent", ("value",), diagram.exponent, long_name="largest Lyapunov exponent per step")
    taken = set(group.variables)
    for name, points in diagram.points.items():
        group.add(_name(name, taken), ("value", "point"), points, role="points", quantity=name)
    return group


def bifurcation_of(group: Group) -> Bifurcation:
    """The bifurcation diagram that a group holds."""
    values, period, exponent = (group.variables[name].values for name in ("value", "period", "exponent"))
    points = {v.attrs["quantity"]: v.values for v in group.having("points").values()}
    parameter, steps = group.attrs[OWN + "parameter"], group.attrs[OWN + "steps"]
    return check_bifurcation(Bifurcation(parameter, values, points, period, exponent, steps, _meta(group.attrs)))


def basins_tree(basins: Basins) -> Group:
    """Basins as a group: labels and ends on the axes of their grid, or of the starts; a row for each place."""
    attrs = _attributes("basins", _title(basins.meta, "basins"), basins.meta)
    group = Group(attrs | {OWN + "axes": list(basins.axes), OWN + "steps": basins.steps})
    dims = ("first", "second") if basins.axes else ("start",)
    axes = zip(basins.axes, basins.axes.values(), strict=True) if basins.axes else [("", np.arange(len(basins.labels)))]
    for dim, (name, values) in zip(dims, axes, strict=True):
        group.add(dim, (dim,), values, **({"long_name": name} if name else {}))
    group.add("parameter", ("parameter",), np.arange(basins.ends.shape[-1]))
    group.add("labels", dims, basins.labels, long_name="place; -1: diverged, -2: no period up to 64")
    group.add("ends", (*dims, "parameter"), basins.ends)
    group.add("place", ("place",), np.arange(len(basins.places)))
    for name in ("period", "starts"):
        group.add(name, ("place",), np.array([getattr(p, name) for p in basins.places], np.int64))
    at = np.array([p.at for p in basins.places]).reshape(len(basins.places), basins.ends.shape[-1])
    group.add("at", ("place", "parameter"), at)
    return group


def basins_of(group: Group) -> Basins:
    """The basins that a group holds."""
    arrays = {name: variable.values for name, variable in group.variables.items()}
    columns = (arrays["period"].tolist(), arrays["at"], arrays["starts"].tolist())
    places = [Place(*row) for row in zip(*columns, strict=True)]
    names = group.attrs[OWN + "axes"]
    axes = {name: arrays[dim] for name, dim in zip(names, ("first", "second"), strict=True)} if names else {}
    steps, meta = group.attrs[OWN + "steps"], _meta(group.attrs)
    return check_basins(Basins(arrays["labels"], places, axes, arrays["ends"], steps, meta))


KINDS: dict[str, Any] = {
    "bifurcation": (Bifurcation, bifurcation_tree, bifurcation_of),
    "basins": (Basins, basins_tree, basins_of),
}
