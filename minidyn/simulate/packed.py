"""What a task returns, as bytes and back: numbers, texts, None, lists, dictionaries with texts as keys, numpy arrays.

Whoever computes it and wherever it goes, it comes back the same to the last bit. Nothing that is read is run, as the
parts of a pickle are.
"""

import json
import math
from typing import Any

import numpy as np

from minidyn.common.errors import InputError
from minidyn.common.intake import shown

_MAGIC = b"minidyn result\n"
_KINDS = "biufcUS"
_ALIGNED = 64  # bytes: arrays begin at multiples of it


def pack(value: Any) -> bytes:
    """The bytes of a value; InputError where it holds anything else. Tuples come back as lists.

    >>> unpack(pack({"mean": np.arange(3.0), "rows": [(1, 0.5), None]}))
    {'mean': array([0., 1., 2.]), 'rows': [[1, 0.5], None]}
    """
    arrays: list[Any] = []
    tree = _plain(value, arrays)
    head = json.dumps([tree, [[a.dtype.str, list(a.shape)] for a in arrays]]).encode()
    parts = [_padded(_MAGIC + head + b"\n", b" ")]
    parts += [_padded(np.ascontiguousarray(a).tobytes(), b"\0") for a in arrays]
    return b"".join(parts)


def unpack(data: bytes) -> Any:
    """The value of such bytes, whose arrays are read-only; ValueError where they are no such bytes."""
    if not data.startswith(_MAGIC):
        raise ValueError("no packed result")
    end = data.index(b"\n", len(_MAGIC))
    tree, layout = json.loads(data[len(_MAGIC) : end])
    place = _next(end + 1)
    arrays = []
    for dtype, shape in layout:
        kind, count = np.dtype(dtype), math.prod(shape)
        arrays.append(np.frombuffer(data, kind, count, place).reshape(shape) if count else np.empty(shape, kind))
        place = _next(place + count * kind.itemsize)
    return _value(tree, arrays)


def _plain(value: Any, arrays: list[Any]) -> Any:
    """A value as JSON has it; arrays go into a list, and their places there stand for them."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, (list, tuple)):
        return [_plain(v, arrays) for v in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"items": {key: _plain(v, arrays) for key, v in value.items()}}
    raise InputError(
        f"a task returned {shown(value)}; it must return numbers, texts, numpy arrays of these, and lists and "
        "dictionaries of them."
    )


def _value(tree: Any, arrays: list[Any]) -> Any:
    if isinstance(tree, list):
        return [_value(v, arrays) for v in tree]
    if isinstance(tree, dict):
        return arrays[tree["array"]] if "array" in tree else {k: _value(v, arrays) for k, v in tree["items"].items()}
    return tree


def _next(place: int) -> int:
    return -(-place // _ALIGNED) * _ALIGNED


def _padded(data: bytes, end: bytes) -> bytes:
    return data + end * (_next(len(data)) - len(data))
