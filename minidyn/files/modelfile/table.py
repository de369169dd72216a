"""A TOML table that knows where it stands, so that every complaint names the file and the key."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import sympy as sp

from minidyn.common.errors import ExpressionError, ModelFileError
from minidyn.files.modelfile.expressions import parse_expression
from minidyn.files.modelfile.wording import did_you_mean, nearest, shorten

_REQUIRED: Any = object()
_TYPES = {bool: "true or false", int: "an integer", float: "a number"}
_TYPES |= {str: "text", list: "a list", dict: "a table"}


class Table:
    """One table of a model file. `known` are its keys, if they are known: any other is refused at once."""

    def __init__(self, source: str, path: str, content: object, known: Sequence[str] | None = None) -> None:
        self.source, self.path = source, path
        if not isinstance(content, dict):
            raise ModelFileError(f"{source}: `{path}` is {describe(content)}, expected a table.")
        self.content: Mapping[str, Any] = content
        allowed = content.keys() if known is None else known
        for key in content:
            if key not in allowed:
                raise ModelFileError(f"{source}: unknown key {shorten(self.dotted(key))}{did_you_mean(key, allowed)}")

    def dotted(self, key: str) -> str:
        """The key as a person would write it, `loss.expr`."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, expected: str, found: object = None) -> NoReturn:
        """Raise: this key is missing, or holds what it should not (`found`, if it is a part of the value)."""
        found = self.content.get(key) if found is None else found
        self.refuse(key, f"is {'missing' if found is None else describe(found)}, expected {expected}")

    def refuse(self, key: str, verdict: str) -> NoReturn:
        """Raise: the file, the key and the verdict on it, as one sentence."""
        end = "" if verdict.endswith("?") else "."
        raise ModelFileError(f"{self.source}: {shorten(self.dotted(key))} {verdict}{end}")

    def __contains__(self, key: str) -> bool:
        """Whether the file says anything about `key`."""
        return key in self.content

    def value(self, key: str, expected: str) -> Any:
        """The value of `key`, of whatever type."""
        return self.content[key] if key in self.content else self.fail(key, expected)

    def get(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """The value of `key`, of type `kind`; an integer will do where a number is expected."""
        if key not in self.content:
            if default is _REQUIRED:
                self.fail(key, _TYPES[kind])
            return default
        value = self.content[key]
        if kind is float:
            return self.number(key, value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(key, _TYPES[kind])
        return value

    def table(self, key: str, known: Sequence[str] | None = None, default: Any = _REQUIRED) -> "Table":
        """The sub-table `key`."""
        return Table(self.source, self.dotted(key), self.get(key, dict, default), known)

    def number(self, key: str, value: object) -> float:
        """`value` as a finite float."""
        if not is_number(value):
            self.fail(key, "a finite number", value)
        return float(value)  # type: ignore[arg-type]

    def count(self, key: str, default: Any = _REQUIRED, least: int = 1, most: int | None = None) -> Any:
        """An integer of at least `least`, at most `most`."""
        value = self.get(key, int, default)
        if value is not default and not (least <= value <= (most if most is not None else math.inf)):
            bound = f"at least {least}" if most is None else f"from {least} to {most}"
            self.fail(key, f"an integer {bound}")
        return value

    def choice(self, key: str, options: Sequence[str], default: Any = _REQUIRED) -> str:
        """One of `options`."""
        value = self.get(key, str, default)
        if value not in options:
            self.fail(key, f"one of {', '.join(options)}{nearest(value, options)}")
        return value

    def array(self, key: str, value: object) -> np.ndarray:
        """`value`, a list of numbers or of rows of equal length, as a float64 array."""
        expected = "a list of finite numbers, or of rows of equal length"
        rows = value if isinstance(value, list) and value else self.fail(key, expected, value)
        nested = all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows)
        flat = [number for row in rows for number in row] if nested else rows
        if not flat or not all(is_number(number) for number in flat):
            self.fail(key, expected, value)
        return np.array(rows, dtype=np.float64)

    def expression(
        self,
        key: str,
        value: object,
        symbols: Mapping[str, Any],
        sizes: Mapping[str, int] | None = None,
        whole: bool = False,
    ) -> sp.Expr:
        """`value`, text or a number, as a sympy expression in `symbols`, and in letters that have so many values; a
        matrix where it may be a `whole` one."""
        if is_number(value):
            return sp.Float(float(value)) if isinstance(value, float) else sp.Integer(value)
        if not isinstance(value, str):
            self.fail(key, "an expression in quotes", value)
        try:
            return parse_expression(value, symbols, sizes, whole)
        except ExpressionError as error:
            raise ModelFileError(f"{self.source}: {shorten(self.dotted(key))}: {error}") from None


def is_number(value: object) -> bool:
    """Whether TOML gave a finite number that float64 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def describe(value: object) -> str:
    """What was found, for an error sentence."""
    if isinstance(value, str):
        return f"the text {shorten(value)}"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    return shorten(value)
