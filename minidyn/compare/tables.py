"""Comparisons as labelled arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minidyn.simulate.run import clock

if TYPE_CHECKING:
    import xarray as xr

_WORDS = {  # the columns of the table
    "map_mean": "mean of the map's paths", "map_spread": "standard deviation of the map's paths",
    "flow_mean": "mean of the flow's paths", "flow_spread": "standard deviation of the flow's paths",
    "difference": "mean of the flow - mean of the map", "standard_error": "standard error of the difference",
    "sigmas": "difference in standard errors", "paths": "paths that the row rests on",
    "variance_ratio": "variance of the difference without coupling, over that with it",
}  # fmt: skip


def dataset_of(result: Any) -> xr.Dataset:
    """See `Comparison.to_xarray`."""
    import xarray as xr

    by_name = result.quantities
    quantities, steps = list(by_name), list(map(int, result.steps))
    labels = list(dict.fromkeys(label for by_label in by_name.values() for label in by_label))
    flows = [label for label in result.runs if label != result.map_label]
    paths = max((len(v) for by_label in by_name.values() for v in by_label.values()), default=1)
    values = np.full((len(quantities), len(labels), paths, len(steps)), np.nan)
    for q, by_label in enumerate(by_name.values()):
        for label, found in by_label.items():
            values[q, labels.index(label), : len(found)] = found
    shape = len(quantities), len(flows), len(steps)
    table = {name: np.full(shape, np.nan) for name in _WORDS}
    for row in result.errors:
        place = quantities.index(row.quantity), flows.index(row.flow), steps.index(row.step)
        for name, column in table.items():
            column[place] = getattr(row, name)
    said = {name: (("quantity", "flow", "step"), column, {"long_name": _WORDS[name]}) for name, column in table.items()}
    coords = {
        "quantity": quantities, "label": labels, "flow": flows, "path": np.arange(paths),
        **clock(result.steps, result.time),
    }  # fmt: skip
    dims = ("quantity", "label", "path", "step")
    attrs = {key: str(value) for key, value in result.meta.items()}
    return xr.Dataset({"value": (dims, values), **said}, coords, attrs)
