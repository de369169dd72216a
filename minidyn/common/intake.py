"""Numbers that come from elsewhere, taken in at one door: read as what they mean, or refused in one sentence.

What enters is a fresh array of float64, contiguous, in the machine's own byte order: what happens to the caller's
array later is seen. Masks, imaginary parts, texts, dates, units and sets are refused: numpy would make other numbers of
each of them silently. Labels are read: those of pandas, xarray and dictionaries put entries in order where they name
them.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import InputError, clipped, said

Labels = Callable[[], Sequence[str]]
_PLAIN = (float, int, bool, np.float64, np.int64, np.bool_)
_DOUBLE, _WHOLE = np.dtype(np.float64), np.dtype(np.int64)
_LARGEST = 2**53  # whole numbers beyond are not exact in the clocks of kernels
_OWN = (np.ndarray, np.matrix, np.memmap)
_REFUSED = dict.fromkeys("UST", "text, and numbers are expected; convert it first") | {
    "c": "complex numbers, and real ones are expected; give .real if that is meant",
    "M": "dates, and numbers are expected; give the time since one of them, in a unit of your choice",
    "m": "spans of time, and numbers are expected; divide by a unit such as np.timedelta64(1, 's')",
    "V": "records, and numbers are expected; give one of their fields",
}


def numbers(value: Any, name: str, labels: Labels | None = None, copy: bool = True) -> Floats:
    """`value` as a fresh array of float64, or an InputError that begins with `name`.

    labels : the names of the entries along the last axis; what carries such names is put in this order. Labels that
        count 0, 1, 2, ... say nothing, all others are refused.
    copy : if False, an array that already is as wanted is given back itself, for a look that changes nothing.
    """
    if type(value) is np.ndarray and value.dtype is _DOUBLE:
        return value if not copy and value.flags.carray else np.array(value, order="C")
    if type(value) is np.ndarray and value.dtype is _WHOLE:
        return value.astype(np.float64, order="C")
    if isinstance(value, (bool, np.bool_)):
        raise InputError(f"{said(name)} must be a number, not {value!r}.")
    if isinstance(value, Mapping) and labels is not None:
        bare: Any = _stacked(value, name)
        axes: list[list[str] | None] | None = [None, _texts(value)]
    else:
        bare, axes = _unlabelled(value)
    if isinstance(bare, (list, tuple)):
        try:
            bare = [v if type(v) in _PLAIN else numbers(v, name, labels, False) for v in bare]
        except RecursionError:
            raise InputError(f"{said(name)} must be real numbers; lists in lists without an end are none.") from None
    array = _as_array(bare, name)
    if axes is not None:
        array = _in_order(array, axes, name, labels)
    if array.dtype is _DOUBLE:
        return np.array(array, order="C", subok=False)
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.array(array, dtype=np.float64, order="C", subok=False)
    if array.dtype.itemsize > 8 and array.dtype.kind == "f" and (np.isinf(out) & np.isfinite(array)).any():
        raise InputError(f"{said(name)} holds numbers beyond the range of double precision; scale them.")
    return out


def number(value: Any, name: str) -> float:
    """`value` as one finite or infinite float, or an InputError that begins with `name`.

    >>> number(np.float32(0.5), "lr")
    0.5
    """
    if type(value) is float:
        return value
    if type(value) is int and abs(value) <= _LARGEST:
        return float(value)
    if value is None or isinstance(value, (str, bytes)):
        raise InputError(f"{said(name)} must be a number, not {shown(value)}.")
    out = numbers(value, name, copy=False)
    if out.ndim:
        raise InputError(f"{said(name)} must be one number, not an array of shape {out.shape}.")
    return float(out)


def finite(value: Any, name: str) -> float:
    """`number`, refused where it is NaN or infinite."""
    out = number(value, name)
    if not math.isfinite(out):
        raise InputError(f"{said(name)} is {out}; it must be finite.")
    return out


def between(value: Any, name: str, low: float, high: float) -> float:
    """`number` with `low < value < high`, or an InputError that says so."""
    out = number(value, name)
    if not low < out < high:
        where = "be a positive number" if (low, high) == (0, math.inf) else f"lie between {low:g} and {high:g}"
        raise InputError(f"{said(name)} must {where}, not {shown(value)}.")
    return out


def whole(name: str, value: Any, least: int) -> int:
    """A whole number that is at least `least`, or an InputError."""
    try:
        out = number(value, name)
    except InputError:
        out = math.nan
    if out % 1 != 0:
        raise InputError(f"{said(name)} must be a whole number, not {shown(value)}.")
    if out < least:
        raise InputError(f"{said(name)} is {shown(value)}; it must be at least {least}.")
    if out > _LARGEST:
        raise InputError(f"{said(name)} is {shown(value)}; it must be at most 2^53.")
    return int(out)


def one_of(value: Any, name: str, choices: Sequence[Any]) -> Any:
    """The one of these texts or numbers that is meant, or an InputError that lists them."""
    plain = isinstance(value, (str, int, float, np.integer, np.floating)) and not isinstance(value, bool)
    for choice in choices if plain else ():
        if value == choice:
            return choice
    listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    raise InputError(f"{said(name)} is {listed}, not {shown(value)}.")


def table(value: Any, name: str) -> dict[Any, Any]:
    """A mapping as a dictionary of its own, or an InputError; None is an empty one."""
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    raise InputError(f"{said(name)} must be a dictionary such as {{symbol: value}}, not {shown(value)}.")


def flag(value: Any, name: str) -> bool:
    """True or False, or an InputError."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise InputError(f"{said(name)} is True or False, not {shown(value)}.")


def ordered(value: Any, name: str) -> list[Any]:
    """The items of a sequence; a set is refused, for it has no order."""
    if isinstance(value, (set, frozenset)) or getattr(value, "is_FiniteSet", False):
        raise InputError(f"{said(name)} is a set, which has no order; give a list.")
    if isinstance(value, (str, bytes)):
        raise InputError(f"{said(name)} must be a list, not {shown(value)}.")
    try:
        return list(value)
    except Exception:  # whatever a foreign `__iter__` raises
        raise InputError(f"{said(name)} must be a list, not {shown(value)}.") from None


def row_labels(value: Any) -> list[str] | None:
    """The labels along the first axis of pandas' and xarray's arrays; None without."""
    axes = _unlabelled(value)[1]
    return axes[0] if axes else None


def shown(value: Any) -> str:
    """What was given, short enough for a sentence."""
    try:
        return clipped(repr(value))
    except Exception:  # a repr that fails, or a number with more digits than Python prints
        return clipped(f"a {type(value).__name__}")


def _unlabelled(value: Any) -> tuple[Any, list[list[str] | None] | None]:
    """The bare values, and for each axis its labels, where there are any."""
    if hasattr(value, "dims") and hasattr(value, "coords") and not isinstance(value, Mapping):  # xarray
        return value.values, [_texts(value.coords[d].values) if d in value.coords else None for d in value.dims]
    if hasattr(value, "to_numpy") and (hasattr(value, "index") or hasattr(value, "columns")):  # pandas
        axes = [getattr(value, "index", None), *([value.columns] if hasattr(value, "columns") else [])]
        return value.to_numpy(), [None if a is None else _texts(a) for a in axes]
    return value, None


def _stacked(given: Mapping[Any, Any], name: str) -> NDArray[Any]:
    """A dictionary's values side by side along the last axis."""
    try:
        return np.stack([numbers(v, name) for v in given.values()], axis=-1)
    except ValueError as error:  # none at all, or of different shapes; an InputError too, which says more
        if isinstance(error, InputError):
            raise
        raise InputError(f"{said(name)} must hold one number, or arrays of one shape, for each of its keys.") from error


def _texts(labels: Any) -> list[str]:
    return [str(label) for label in labels]


def _in_order(array: NDArray[Any], axes: list[list[str] | None], name: str, labels: Labels | None) -> NDArray[Any]:
    """The entries along the axis whose labels are the wanted ones, which becomes the last."""
    names = None if labels is None else list(labels())
    axes = axes[-array.ndim :] if array.ndim else []
    if names is not None:
        for axis, given in reversed(list(enumerate(axes))):
            if given is not None and len(given) == len(set(given)) and set(given) == set(names):
                return np.moveaxis(np.take(array, [given.index(n) for n in names], axis), axis, -1)
    last = axes[-1] if axes else None
    if last is None or last == _texts(range(len(last))) or (names is None and array.ndim == 1):
        return array
    few = ", ".join(last[:4]) + (", ..." if len(last) > 4 else "")
    wanted = ", ".join(names[:4]) + ", ..." * (len(names) > 4) if names else "0, 1, 2, ..."
    raise InputError(
        f"{said(name)} is labelled {few}, expected {wanted}; name them so, or give the bare values (.values)."
    )


def has_mask(value: Any) -> bool:
    """Whether an array may have masked entries: none may before somebody has loaded numpy's module for them."""
    return "numpy.ma" in sys.modules and isinstance(value, np.ma.MaskedArray)


def _as_array(value: Any, name: str) -> NDArray[Any]:
    """A numpy array of real numbers, of any type."""
    if isinstance(value, (set, frozenset)):
        raise InputError(f"{said(name)} is a set, which has no order; give a list.")
    if isinstance(value, (str, bytes, bytearray)):
        raise InputError(f"{said(name)} must be real numbers, not {shown(value)}.")
    if has_mask(value):
        if np.ma.getmaskarray(value).any():
            raise InputError(f"{said(name)} has masked entries; fill or drop them first.")
        value = value.data
    units = isinstance(value, np.ndarray) and type(value) not in _OWN
    if units or hasattr(value, "magnitude"):
        raise InputError(f"{said(name)} is a {type(value).__name__}, which is more than numbers; give its bare values.")
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except Exception as error:  # whatever a foreign `__array__` raises, and ragged lists
        raise InputError(f"{said(name)} must be real numbers in rows of one length, not {shown(value)}.") from error
    kind = array.dtype.kind
    if kind == "O":
        return np.array([_real(v, name) for v in array.flat], dtype=np.float64).reshape(array.shape)
    if kind in _REFUSED:
        raise InputError(f"{said(name)} holds {_REFUSED[kind]}.")
    return array


def _real(value: Any, name: str) -> float:
    """One entry of an array of Python objects."""
    if isinstance(value, (set, frozenset)):
        raise InputError(f"{said(name)} is a set, which has no order; give a list.")
    kind = np.asarray(value).dtype.kind if isinstance(value, (np.generic, complex, str, bytes)) else ""
    if kind in _REFUSED:
        raise InputError(f"{said(name)} holds {_REFUSED[kind]}.")
    try:
        if (has_mask(value) and np.ma.is_masked(value)) or np.ndim(value) != 0:
            raise TypeError
        return float(value)
    except OverflowError:
        raise InputError(f"{said(name)} holds numbers beyond the range of double precision; scale them.") from None
    except Exception:  # symbols, None, generators, what a foreign `__float__` raises
        raise InputError(f"{said(name)} must be real numbers, not {shown(value)}.") from None
