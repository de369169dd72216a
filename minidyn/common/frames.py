"""Tables of pandas, where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minidyn.common.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """A table with these columns, or an InputError where pandas is missing."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise InputError(
            "a table for pandas needs pandas, which is not installed: install it, or take to_xarray(), which has the "
            "same numbers."
        ) from error
    table: pd.DataFrame = pandas.DataFrame(dict(columns))
    return table


def apart(name: str, taken: Mapping[str, Any], kind: str) -> str:
    """The name of a column, with what it is where a column is called so already."""
    return f"{kind} {name}" if name in taken else name
