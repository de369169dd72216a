"""The file: a tree written as HDF5 that is also netCDF-4, sealed, whole or not at all, and read back.

Every dimension is a dimension scale, so `xarray.open_dataset(path, engine="h5netcdf", group=...)` labels all of
it. After the last byte of HDF5 comes a seal, a hash of all before it, which readers of HDF5 ignore and which gives
away a damaged or edited file: the HDF5 library alone returns flipped bits without a word, and never returns from
some zeroed blocks.

The file is made in memory, because the HDF5 library crashes when a disk fills up under it; the bytes then go
to a temporary name in the target's folder and are renamed, so an older result stays until then. A result that is
larger than `_STREAMED` is written piece by piece into room that was reserved on the disk before, and its large
arrays are mapped from the file when it is loaded, so neither way needs memory for them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from minidyn.archive.tree import NETCDF, OWN, Group, Variable, check_format, is_native, shown
from minidyn.errors import ArchiveError, advice
from minidyn.memory import need
from minidyn.wholefiles import write_whole

_SEAL = b"\nminidyn seal "  # then 32 hexadecimal digits; every later format ends so too
_LARGE = 16 * 1024  # bytes from which an array is compressed
_STREAMED = 2**28  # bytes from which a result is not held in memory, nor an array when it is loaded
_PIECE = 2**24
_PACKED = 1100  # times smaller gzip makes an array at best
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
_DEEPEST = 8  # groups in groups
_OURS = (OWN + "format").encode()
_LOST = "truncated or damaged, or was edited after `save`; copy or compute it again"
# What h5py, numpy and json raise on bytes that are not what they were.
BROKEN = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


# ---------------------------------------------------------------- writing HDF5


def is_large(tree: Group) -> bool:
    """Whether a tree is written piece by piece, not held in memory as a file."""
    return tree.nbytes > _STREAMED


def image_of(tree: Group) -> bytes:
    """The bytes of the HDF5 file that holds a tree.

    Its oldest format of a superblock: a newer one has a checksum that HDF5 before 2.0 gets wrong in an image.
    """
    options: dict[str, Any] = {"driver": "core", "backing_store": False, "block_size": 2**20}
    with h5py.File("image", "w", track_order=True, libver=("earliest", "v110"), **options) as root:
        _write_group(root, tree, 0)
        root.flush()
        image: bytes = root.id.get_file_image()
        return image


def _write_group(node: h5py.Group, group: Group, dimid: int) -> int:
    """Write a group and those below it; dimensions count on from `dimid`, returns the next one."""
    _write_attributes(node, group.attrs)
    scales: dict[str, h5py.Dataset] = {}
    for name, variable in group.variables.items():
        dataset = _write_variable(node, name, variable)
        if variable.dims == (name,):
            dataset.make_scale(name)
            dataset.attrs["_Netcdf4Dimid"] = np.int32(dimid)
            scales[name] = dataset
            dimid += 1
    for name, variable in group.variables.items():
        if name not in scales:
            for axis, dim in enumerate(variable.dims):
                node[name].dims[axis].attach_scale(scales[dim])
    for name, child in group.groups.items():
        dimid = _write_group(node.create_group(name, track_order=True), child, dimid)
    return dimid


def _write_variable(node: h5py.Group, name: str, variable: Variable) -> h5py.Dataset:
    values, attrs = variable.values, variable.attrs
    options: dict[str, Any] = {"track_order": True}
    if values.nbytes > _STREAMED:
        dataset = node.create_dataset(name, values.shape, values.dtype, **options)
        step = max(1, _PIECE * len(values) // values.nbytes)
        for first in range(0, len(values), step):
            dataset[first : first + step] = values[first : first + step]
        _write_attributes(dataset, attrs)
        return dataset
    if values.dtype == object:
        options["dtype"] = h5py.string_dtype()
    elif values.dtype == bool:  # netCDF has no bool; xarray turns this one back
        values, attrs = values.astype(np.int8), attrs | {"dtype": "bool"}
    elif values.nbytes >= _LARGE:
        options |= {"chunks": True, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    dataset = node.create_dataset(name, data=values, **options)
    _write_attributes(dataset, attrs)
    return dataset


def _write_attributes(node: h5py.Group | h5py.Dataset, attrs: Mapping[str, Any]) -> None:
    encoded = [n for n, value in attrs.items() if not (is_native(value) or isinstance(value, np.ndarray))]
    for name, value in attrs.items():
        node.attrs[name] = json.dumps(value) if name in encoded else value
    if encoded:
        node.attrs[OWN + "json"] = json.dumps(encoded)


class _Reserved:
    """A file whose room on the disk is reserved before anything is written: the HDF5 library never sees a full disk."""

    def __init__(self, file: BinaryIO, room: int):
        self.file, self.size = file, 0
        try:
            getattr(os, "posix_fallocate", lambda *_: None)(file.fileno(), 0, room)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems reserve nothing
                raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(self.size + offset if whence == 2 else offset, 1 if whence == 1 else 0)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        return self.file.readinto(buffer)  # type: ignore[attr-defined]

    def read(self, count: int = -1) -> bytes:
        return self.file.read(count)

    def write(self, data: Any) -> int:
        written = self.file.write(data)
        self.size = max(self.size, self.file.tell())
        return written

    def truncate(self, size: int | None = None) -> int:
        self.size = self.tell() if size is None else size
        return self.size

    def flush(self) -> None:
        self.file.flush()


def stream(tree: Group, file: BinaryIO) -> None:
    """Write the HDF5 file that holds a large tree piece by piece."""
    place = _Reserved(file, tree.nbytes + tree.nbytes // 50 + 2**22)
    with h5py.File(place, "w", track_order=True, libver=("earliest", "v110")) as root:
        _write_group(root, tree, 0)
    file.truncate(place.size)


# ---------------------------------------------------------------- reading HDF5


def read_tree(file: Path) -> Group:
    """The tree that a file holds, if it is byte for byte what `save` wrote."""
    _check_seal(file)  # before the HDF5 library sees a byte
    try:
        with h5py.File(file, "r") as root:
            check_format(root.attrs.get(OWN + "format"), file)
            return _Reader(file).group(root)
    except BROKEN as error:
        if getattr(error, "errno", None) == errno.EAGAIN:
            raise ArchiveError(f"{shown(file)} is open for writing elsewhere; close it there.") from error
        raise ArchiveError(f"{shown(file)} is {_LOST}.") from error


class _Reader:
    """Reads what `save` writes and nothing else that HDF5 can hold: other files, links, filters, objects, bombs.

    A seal says that a file is whole, not who made it.
    """

    def __init__(self, file: Path):
        self.file, self.size = file, file.stat().st_size
        self.seen: set[int] = set()
        self.letters = self.bytes = 0

    def group(self, node: h5py.Group, depth: int = 0) -> Group:
        """A group and those below it, each of them once."""
        self._once(node)
        if depth > _DEEPEST:
            raise ValueError("groups in groups")
        group = Group(self.attributes(node))
        for name in node:
            if not isinstance(node.get(name, getlink=True), h5py.HardLink):
                raise ValueError("a link to somewhere else")
            item = node[name]
            if isinstance(item, h5py.Group):
                group.groups[name] = self.group(item, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self._once(item)
                group.variables[name] = self.variable(name, item)
            else:
                raise ValueError("neither a group nor a variable")
        return group

    def _once(self, node: h5py.Group | h5py.Dataset) -> None:
        """Links to one object from two places would make a result without an end."""
        place = h5py.h5o.get_info(node.id).addr
        if place in self.seen:
            raise ValueError("two links to one object")
        self.seen.add(place)

    def variable(self, name: str, dataset: h5py.Dataset) -> Variable:
        """Numbers, or text, with the names of their dimensions."""
        text = self._known(dataset.dtype)
        made = dataset.id.get_create_plist()
        filters = {made.get_filter(n)[0] for n in range(made.get_nfilters())}
        if dataset.is_virtual or dataset.external or not filters <= _FILTERS:
            raise ValueError("numbers of another file, or packed in another way")
        attrs = self.attributes(dataset)
        dims = (name,) if dataset.is_scale else tuple(axis[0].name.rpartition("/")[2] for axis in dataset.dims)
        offset = dataset.id.get_offset()
        if dataset.nbytes > _STREAMED and offset is not None:
            values: NDArray[Any] = np.memmap(self.file, dataset.dtype, "r", offset, dataset.shape)
        else:
            self._check_size(dataset)
            values = self._texts(dataset) if text else dataset[...]
        if attrs.get("dtype") == "bool":
            del attrs["dtype"]
            values = values.astype(bool)
        return Variable(dims, values, attrs)

    def _known(self, dtype: np.dtype[Any]) -> bool:
        """Whether a type is text; numbers are the only other thing."""
        info = h5py.check_string_dtype(dtype)
        if info is None and dtype.kind not in "biuf":
            raise ValueError("neither numbers nor text")
        return info is not None

    def _check_size(self, dataset: h5py.Dataset) -> None:
        """What is packed is no larger than it can be, and fits into memory."""
        self.bytes += dataset.nbytes
        if dataset.nbytes > _STREAMED or dataset.nbytes > _PACKED * dataset.id.get_storage_size() + _LARGE:
            raise ValueError("more numbers than the file can hold")
        if self.bytes > _STREAMED:
            need(self.bytes, f"{shown(self.file)}", "load it on a larger machine")

    def _texts(self, dataset: h5py.Dataset) -> NDArray[Any]:
        """Texts (n,), which together are no longer than the file."""
        out = np.empty(dataset.shape, object)
        if out.ndim != 1:
            raise ValueError("texts in a table")
        for i in range(len(out)):
            out[i] = dataset.asstr()[i]
            self._count(out[i])
        return out

    def _count(self, text: str) -> None:
        self.letters += len(text)
        if self.letters > self.size:
            raise ValueError("one text in many places")

    def attributes(self, node: h5py.Group | h5py.Dataset) -> dict[str, Any]:
        """The attributes of a node that are not netCDF's: single values, and short lists of numbers."""
        attrs: dict[str, Any] = {}
        for name in node.attrs:
            if name in NETCDF or name.startswith("_"):
                continue
            kept = node.attrs.get_id(name)
            text = self._known(kept.dtype)
            if kept.shape is None or np.prod(kept.shape, dtype=float) > (1 if text else _LARGE):
                raise ValueError("an attribute that is no single value")
            value = node.attrs[name]
            attrs[name] = value.item() if isinstance(value, np.generic) else value
            if text:
                self._count(value)
        for name in json.loads(attrs.pop(OWN + "json", "[]")):
            attrs[name] = json.loads(attrs[name])
        return attrs


# ---------------------------------------------------------------- the seal


def _seal(digest: hashlib.blake2b) -> bytes:
    return _SEAL + digest.hexdigest().encode()


def _check_seal(file: Path) -> None:
    """Refuse a file that is not byte for byte what `save` wrote."""
    digest, ours, tail = _hash(), False, b""
    left = file.stat().st_size - len(_seal(digest))
    with file.open("rb") as bytes_of:
        while left > 0 and (block := bytes_of.read(min(left, 2**20))):
            digest.update(block)
            ours = ours or _OURS in tail + block
            left, tail = left - len(block), block[-len(_OURS) :]
        if bytes_of.read() == _seal(digest):
            return
    if not ours:
        raise ArchiveError(f"{shown(file)} is HDF5 but not a minidyn result; give a file that `save` wrote.")
    raise ArchiveError(f"{shown(file)} is {_LOST}.")


def _hash(start: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(start, digest_size=16)


# ---------------------------------------------------------------- bytes and paths


def write_sealed(fill: Callable[[BinaryIO], Any], target: Path) -> None:
    """Fill a file, seal it and put it at `target` in one move: whoever looks sees the older file or the new one."""

    def filled(file: BinaryIO) -> None:
        fill(file)
        file.seek(0)
        digest = _hash()
        while block := file.read(_PIECE):
            digest.update(block)
        file.write(_seal(digest))

    try:
        write_whole(target, filled)
    except OSError as error:
        raise ArchiveError(f"Cannot save {shown(target)}: {advice(error)}.") from error


def target_of(path: str | os.PathLike[str]) -> Path:
    """Where `save` writes: with an extension, through symbolic links, never onto a folder."""
    given = _path(path)
    target = Path(os.path.realpath(_named(given)))
    for folder in (given, target):
        if os.path.isdir(folder):
            raise ArchiveError(f"Cannot save {shown(folder)}: it is a folder; add a name such as `run.h5`.")
    return target


def source_of(path: str | os.PathLike[str]) -> Path:
    """The file that `load` reads, known to start as HDF5 does."""
    given = _path(path)
    file = _named(given) if os.path.isfile(_named(given)) else given
    if os.path.isdir(file):
        raise ArchiveError(f"{shown(file)} is a folder; give a file in it.")
    if not os.path.isfile(file):
        raise ArchiveError(f"There is no file {shown(file)}; check the name and the folder.")
    try:
        with file.open("rb") as start:
            signature = start.read(8)
    except OSError as error:
        raise ArchiveError(f"Cannot read {shown(file)}: {error.strerror}; check its permissions.") from error
    if signature != b"\x89HDF\r\n\x1a\n":
        raise ArchiveError(f"{shown(file)} is not HDF5, or was cut short; give a file that `save` wrote.")
    return file


def _path(path: str | os.PathLike[str]) -> Path:
    try:
        os.fsencode(path).index(0)
    except ValueError:  # no zero byte, as it must be
        return Path(os.fsdecode(path)).expanduser()
    except TypeError:
        pass
    raise ArchiveError(f"{shown(path)} is not a path; give one such as `results/run.h5`.")


def _named(path: Path) -> Path:
    """`path` with `.h5` where it has no extension; `lr0.05` has none."""
    return path if path.suffix[1:2].isalpha() or not path.name else path.with_name(path.name + ".h5")
