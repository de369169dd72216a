"""The index of a file: what its tree is and where its numbers lie, as JSON behind the last byte of HDF5.

    HDF5 | index | its length | seal

Readers of HDF5 ignore it; minidyn reads nothing else. The HDF5 library returns flipped bits without a word, follows
links to other files or in circles, never returns from some zeroed blocks and crashes on others: it reads no file that
is loaded. A seal says that a file is whole, not who made it: sizes are checked before anything is taken.
"""

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from minidyn.common.errors import ArchiveError
from minidyn.common.memory import need
from minidyn.files.results.layout import Group, Variable, shown

MAPPED = 2**28  # bytes from which an array is mapped from the file, and is not packed
PACKED_FROM = 16 * 1024  # bytes from which an array is packed
_DENSEST = 1100  # times smaller gzip makes an array at best
_LENGTH = b"\nminidyn index "  # then 16 hexadecimal digits
_NUMBERS = re.compile(r"[<>|=]?[biuf][1248]")


def index_of(node: h5py.Group, group: Group) -> dict[str, Any]:
    """The index of a tree that is written and flushed."""
    return {
        "attrs": {n: v for n, v in group.attrs.items() if not isinstance(v, np.ndarray)},
        "variables": {name: _entry(node[name], v) for name, v in group.variables.items()},
        "groups": {name: index_of(node[name], child) for name, child in group.groups.items()},
    }


def _entry(dataset: h5py.Dataset, variable: Variable) -> dict[str, Any]:
    attrs = {n: v for n, v in variable.attrs.items() if not isinstance(v, np.ndarray)}
    entry: dict[str, Any] = {"dims": list(variable.dims), "attrs": attrs}
    if variable.values.dtype == object:
        return entry | {"texts": variable.values.tolist()}
    entry |= {"type": variable.values.dtype.str, "shape": list(variable.values.shape)}
    if dataset.chunks is None:
        return entry | {"at": dataset.id.get_offset() or 0, "packed": 0}
    chunk = dataset.id.get_chunk_info(0)  # there is one
    return entry | {"at": chunk.byte_offset, "packed": chunk.size}


def append(index: dict[str, Any], file: BinaryIO) -> None:
    """Write the index where the file ends."""
    text = json.dumps(index).encode()
    file.write(text + _LENGTH + f"{len(text):016x}".encode())


class Reader:
    """Reads a tree by the index of a file whose bytes end, but for the seal, at `end`."""

    def __init__(self, path: Path, file: BinaryIO, end: int):
        self.path, self.file, self.taken = path, file, 0
        file.seek(end - 16 - len(_LENGTH))
        if file.read(len(_LENGTH)) != _LENGTH:
            raise ArchiveError(f"{shown(path)} has another layout; load it with the minidyn that wrote it.")
        length = int(file.read(16), 16)
        self.end = end - 16 - len(_LENGTH) - length  # of HDF5
        if self.end < 0:
            raise ValueError("an index longer than the file")
        file.seek(self.end)
        self.index = json.loads(file.read(length))

    def tree(self) -> Group:
        """All that the file holds."""
        return self._group(self.index)

    def _group(self, entry: dict[str, Any]) -> Group:
        variables = {name: self._variable(v) for name, v in entry["variables"].items()}
        return Group(dict(entry["attrs"]), variables, {name: self._group(g) for name, g in entry["groups"].items()})

    def _variable(self, entry: dict[str, Any]) -> Variable:
        dims = tuple(entry["dims"])
        values: NDArray[Any]
        if "texts" in entry:
            values = np.array(entry["texts"], object)
            if values.ndim != 1 or not all(isinstance(text, str) for text in values):
                raise ValueError("texts that are none")
        else:
            values = self._numbers(entry["type"], entry["shape"], entry["at"], entry["packed"])
        if len(dims) != values.ndim or not all(isinstance(dim, str) for dim in dims):
            raise ValueError("dimensions without names")
        return Variable(dims, values, dict(entry["attrs"]))

    def _numbers(self, kind: str, shape: list[int], at: int, packed: int) -> NDArray[Any]:
        whole = all(type(n) is int and n >= 0 for n in [*shape, at, packed])
        if not _NUMBERS.fullmatch(kind) or len(shape) > 8 or not whole:
            raise ValueError("numbers that are none")
        dtype = np.dtype(kind)
        size = math.prod(shape) * dtype.itemsize
        if at + (packed or size) > self.end:
            raise ValueError("numbers outside the file")
        if packed and (size > MAPPED or size > _DENSEST * packed + PACKED_FROM):
            raise ValueError("more numbers than can be packed so")
        if size > MAPPED:
            return np.memmap(self.path, dtype, "r", at, tuple(shape))
        self.taken += size
        if self.taken > MAPPED:
            need(self.taken, shown(self.path), "load it on a larger machine")
        self.file.seek(at)
        data = self.file.read(packed or size)
        data = _unpacked(data, size, dtype.itemsize) if packed else data
        return np.frombuffer(data, dtype).reshape(shape).copy()


def _unpacked(data: bytes, size: int, item: int) -> bytes:
    """What gzip and HDF5's shuffle filter, which puts first bytes first, were given."""
    unzip = zlib.decompressobj()
    plain = unzip.decompress(data, size)
    if len(plain) != size or not (unzip.eof or unzip.decompress(unzip.unconsumed_tail, 1) == b""):
        raise ValueError("packed otherwise")
    return np.frombuffer(plain, np.uint8).reshape(item, -1).T.tobytes() if item > 1 else plain
