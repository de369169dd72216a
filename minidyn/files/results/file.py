"""The file: a tree written as HDF5 that is also netCDF-4, sealed, whole or not at all, and read back.

Every dimension is a dimension scale, so `xarray.open_dataset(path, engine="h5netcdf", group=...)` labels all of it.
After the last byte of HDF5 come the index and a seal, a hash of all before it, which gives away a damaged or edited
file; readers of HDF5 ignore both.

The file is made in memory, because the HDF5 library crashes when a disk fills up under it, and then moved into place.
A result larger than `index.MAPPED` is written piece by piece into room that was reserved on the disk before, and its
large arrays are mapped from the file when it is loaded: neither way needs memory for them.
"""

import errno
import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from minidyn.common.errors import ArchiveError, MinidynError
from minidyn.common.wholefiles import sealed_end
from minidyn.files.results import index
from minidyn.files.results.index import Reader, append, index_of
from minidyn.files.results.layout import OWN, Group, Variable, check_format, is_native, shown

_PIECE = 2**24
_LOST = "truncated or damaged, was edited after `save`, or is not a minidyn result; copy or compute it again"
# What h5py, numpy, zlib and json raise on bytes that are not what they were.
BROKEN = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, zlib.error)


# ---------------------------------------------------------------- writing HDF5


def image_of(tree: Group) -> bytes:
    """The bytes of the HDF5 file that holds a tree, and its index.

    Its oldest format of a superblock: a newer one has a checksum that HDF5 before 2.0 gets wrong in an image.
    """
    options: dict[str, Any] = {"driver": "core", "backing_store": False, "block_size": 2**20}
    with h5py.File("image", "w", track_order=True, libver=("earliest", "v110"), **options) as root:
        _write_group(root, tree, 0)
        root.flush()
        image = BytesIO()
        image.write(root.id.get_file_image())
        append(index_of(root, tree), image)
        return image.getvalue()


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
    if values.nbytes > index.MAPPED:
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
    elif values.nbytes >= index.PACKED_FROM:
        options |= {"chunks": values.shape, "compression": "gzip", "compression_opts": 1, "shuffle": True}
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

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(self.size + offset if whence == 2 else offset, 1 if whence == 1 else 0)

    def write(self, data: Any) -> int:
        written = self.file.write(data)
        self.size = max(self.size, self.file.tell())
        return written

    def truncate(self, size: int | None = None) -> int:
        self.size = self.tell() if size is None else size
        return self.size


def stream(tree: Group, file: BinaryIO) -> None:
    """Write the HDF5 file that holds a large tree piece by piece."""
    place = _Reserved(file, tree.nbytes + tree.nbytes // 50 + 2**22)
    with h5py.File(place, "w", track_order=True, libver=("earliest", "v110")) as root:
        _write_group(root, tree, 0)
        root.flush()
        found = index_of(root, tree)
    file.truncate(place.size)
    file.seek(place.size)
    append(found, file)


# ---------------------------------------------------------------- reading


def read_tree(path: Path) -> Group:
    """The tree that a file holds, if it is byte for byte what `save` wrote."""
    try:
        with path.open("rb") as file:
            tree = Reader(path, file, sealed_end(file)).tree()
        check_format(tree.attrs.get(OWN + "format"), path)
        return tree
    except BROKEN as error:
        if isinstance(error, MinidynError):
            raise
        raise ArchiveError(f"{shown(path)} is {_LOST}.") from error


# ---------------------------------------------------------------- paths


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
    with suppress(TypeError):
        if "\0" not in (name := os.fsdecode(path)):
            return Path(name).expanduser()
    raise ArchiveError(f"{shown(path)} is not a path; give one such as `results/run.h5`.")


def _named(path: Path) -> Path:
    """`path` with `.h5` where it has no extension; `lr0.05` has none."""
    return path if path.suffix[1:2].isalpha() or not path.name else path.with_name(path.name + ".h5")
