"""The samples of a model: columns of a CSV file, or numbers in the model file itself."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from minidyn.common.intake import shown
from minidyn.common.memory import need
from minidyn.common.shipped import shipped
from minidyn.files.modelfile.place import first_file
from minidyn.files.modelfile.table import Table, describe
from minidyn.files.modelfile.wording import nearest

STANDARDIZED = ("inputs", "target")
_TEXT = 30  # bytes of memory for a byte of a CSV file, at most: every field is a text of its own


class Samples:
    """The `[loss.data]` table: selected rows of a CSV file, and which columns to standardize."""

    def __init__(self, loss: Table, folder: Path | None) -> None:
        self.columns: Mapping[str, list[str]] = {}
        self.moments: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # mean and deviation of what was standardized
        self.standardize: tuple[str, ...] = ()
        self.name = "no file"
        if "data" not in loss:
            return
        table = loss.table("data", ("file", "rows", "standardize"))
        self.standardize = _standardize(table)
        if "file" in table:
            self.name = table.get("file", str)
            self.header, self.rows = _read_csv(table, folder)
            self.choose(_select(table, len(self.rows)))
        elif "rows" in table:
            table.fail("rows", "no rows without a file")

    def choose(self, rows: list[int]) -> None:
        """Read columns in these rows from now on."""
        self.chosen = rows
        self.columns = {name: [self.rows[k][i] for k in rows] for i, name in enumerate(self.header)}

    def numbers(self, loss: Table, key: str, value: object) -> np.ndarray:
        """The samples that `value` names: `(n,)` for a column or a list, `(n, d)` for columns or rows."""
        if isinstance(value, str):
            return self.column(loss, key, value)
        if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
            return np.stack([self.column(loss, key, name) for name in value], axis=-1)
        return loss.array(key, value)

    def standardized(self, loss: Table, key: str, role: str, values: np.ndarray) -> np.ndarray:
        """`values` with mean 0 and standard deviation 1 over the samples, where the file asks for it."""
        if role in self.standardize:
            self.moments[key] = values.mean(axis=0), values.std(axis=0)
            if not np.all(self.moments[key][1] > 0):
                loss.fail(key, "samples that are not all equal, for `standardize`")
        return self.standardized_alike(key, values)

    def hold_out(self, test: Table) -> None:
        """Read on in the rows that `test` asks for: a selection as in `loss.data`, or "rest", all others."""
        if not self.columns:
            test.refuse("rows", "needs a file in `loss.data`")
        if test.content["rows"] == "rest":
            chosen = sorted(set(range(len(self.rows))) - set(self.chosen))
            if not chosen:
                test.refuse("rows", "finds no row that `loss.data` leaves out")
        else:
            chosen = _select(test, len(self.rows))
        both = sorted(set(chosen) & set(self.chosen))
        if both:
            test.refuse("rows", f"holds out row {both[0]}, which `loss.data` trains on")
        self.choose(chosen)

    def standardized_alike(self, key: str, values: np.ndarray) -> np.ndarray:
        """Held-out `values` in the units of the samples that are trained on."""
        mean, spread = self.moments.get(key, (0.0, 1.0))
        return (values - mean) / spread

    def classes(self, loss: Table, key: str, value: object) -> np.ndarray:
        """Class labels: numbers, or the places of a column's words among all different ones of the file, in order."""
        words = self.columns.get(value, []) if isinstance(value, str) else []
        if not isinstance(value, str) or not words or _numeric(words[0]):
            return self.numbers(loss, key, value)
        if not all(words):
            loss.fail(key, f"a column with a word in every selected row ({words.index('')} has none)", value)
        place = self.header.index(value)
        known = sorted({row[place] for row in self.rows} - {""})
        return np.array([float(known.index(word)) for word in words])

    def column(self, loss: Table, key: str, name: str) -> np.ndarray:
        """One column as numbers."""
        if name not in self.columns:
            there = ", ".join([*self.columns][:12])
            loss.fail(key, f"a column of {self.name} ({there}){nearest(name, self.columns)}", name)
        values = []
        for row, text in enumerate(self.columns[name]):
            try:
                values.append(float(text))
            except ValueError:
                values.append(math.nan)
            if not math.isfinite(values[-1]):
                loss.fail(key, f"a column of numbers (its selected row {row} holds {describe(text)})", name)
        return np.array(values)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _standardize(table: Table) -> tuple[str, ...]:
    value = table.content.get("standardize", False)
    if isinstance(value, bool):
        return STANDARDIZED if value else ()
    if not isinstance(value, list) or not all(v in STANDARDIZED for v in value):
        table.fail("standardize", 'true, false, or a list of "inputs" and "target"')
    return tuple(value)


def _read_csv(table: Table, folder: Path | None) -> tuple[list[str], list[list[str]]]:
    """Header and rows; the file stands beside the model file or in the package."""
    name = table.get("file", str)
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in name.replace("\\", "/").split("/"):
        table.fail("file", "the path of a CSV file below the model file's folder")
    path = first_file([*([] if folder is None else [folder]), shipped("models")], name)
    if path is None:
        table.fail("file", "a CSV file beside the model file or among minidyn's own")
    size = path.stat().st_size if isinstance(path, Path) else 0
    need(_TEXT * size, f"{table.source}: the CSV file {shown(name)}", "keep the columns and rows in use")
    try:
        header, *rows = [row for row in csv.reader(path.read_text(encoding="utf-8").splitlines()) if row]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError):
        table.fail("file", "a readable CSV file in UTF-8 with a header")
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        table.fail("file", f"a CSV file whose columns have different names ({shown(twice)} is there twice)")
    if any(len(row) != len(header) for row in rows):
        table.fail("file", "a CSV file with as many fields in every row as in its header")
    return header, rows


def _select(table: Table, count: int) -> list[int]:
    """The numbers that `rows` asks for: a list of row numbers from 0, or start, stop and step."""
    if "rows" not in table:
        chosen = list(range(count))
    elif isinstance(table.content["rows"], list):
        chosen = table.content["rows"]
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < count for i in chosen):
            table.fail("rows", f"a list of row numbers from 0 to {count - 1}")
    else:
        part = table.table("rows", ("start", "stop", "step"))
        start, step = part.count("start", 0, least=0), part.count("step", 1)
        chosen = list(range(count))[start : part.count("stop", count) : step]
    if not chosen:
        table.refuse("rows", f"selects no row of {count}")
    return chosen
