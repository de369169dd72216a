"""Results as HDF5 that is also netCDF-4: what `save` wrote, `load` gives back bit for bit, or says why not.

    Run or Comparison  <->  tree of groups, labelled variables, attributes  <->  file

A run fills one group; a comparison has one group per run (`runs/<label>`), `quantities` and `errors`. Every
dimension is a dimension scale, so `xarray.open_dataset(path, engine="h5netcdf", group=...)` labels all of it.
Names that netCDF cannot hold are rewritten and the originals kept as attributes. After the last byte of HDF5
comes a seal, a hash of all before it, which readers of HDF5 ignore and which gives away a damaged or edited file:
the HDF5 library alone returns flipped bits without a word, and never returns from some zeroed blocks.

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
import re
import unicodedata
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from minidyn.errors import ArchiveError, InputError, advice
from minidyn.trajectory import QUANTILES, Run, Status

if TYPE_CHECKING:
    from minidyn.compare import Comparison
    from minidyn.scaling import ScalingStudy

FORMAT = 1
_OWN = "minidyn_"  # a group's attributes with this prefix, and `title`, are the archive's; the rest is `meta`
_NETCDF = {"CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "DIMENSION_LABELS"}  # and any _...
_SEAL = b"\nminidyn seal "  # then 32 hexadecimal digits; every later format ends so too
_LARGE = 16 * 1024  # bytes from which an array is compressed
_STREAMED = 2**28  # bytes from which a result is not held in memory, nor an array when it is loaded
_PIECE = 2**24
# What h5py, numpy and json raise on bytes that are not what they were.
_BROKEN = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


# ---------------------------------------------------------------- the two doors


def save(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write a run, a comparison or a scaling study to `path`, whole or not at all, and return the path written.

    `.h5` is added where `path` has no extension; missing folders are made; an older file is replaced only
    when the new one is complete. Raises `ArchiveError` where the file cannot be written, `InputError` where
    `result` is not a result (a `Run`, a `Comparison` or a `ScalingStudy`).
    """
    target = _target(path)
    if isinstance(result, Run):
        tree = _run_tree(result)
    elif all(hasattr(result, part) for part in ("runs", "quantities", "errors", "steps", "time", "meta")):
        tree = _comparison_tree(result)
    elif all(hasattr(result, part) for part in ("rows", "fits", "meta")):
        tree = _study_tree(result)
    else:
        raise InputError(f"Cannot save {type(result).__name__}: give a Run, a Comparison or a ScalingStudy.")
    if tree.nbytes > _STREAMED:
        _write(lambda file: _stream(tree, file), target)
        return target
    try:
        image = _image(tree)
    except _BROKEN as error:
        raise ArchiveError(f"Cannot save {_shown(target)}: HDF5 cannot hold it ({_shown(error)}).") from error
    _write(lambda file: file.write(image), target)
    return target


def load(path: str | os.PathLike[str]) -> Run | Comparison | ScalingStudy:
    """Read back what `save` wrote, bit for bit.

    Values in `meta` that are neither text nor numbers come back as JSON has them: tuples and arrays as lists,
    other objects as their text. Raises `ArchiveError` for a file that is missing, truncated, damaged, edited,
    not minidyn's, or written by a newer minidyn.
    """
    file = _source(path)
    try:
        with h5py.File(file, "r") as root:
            _check_format(root.attrs.get(_OWN + "format"), file)
            if not _is_sealed(file):
                raise ArchiveError(f"{_shown(file)} was damaged or edited after `save`; copy or compute it again.")
            tree = _read_group(root)
    except _BROKEN as error:
        if getattr(error, "errno", None) == errno.EAGAIN:
            raise ArchiveError(f"{_shown(file)} is open for writing elsewhere; close it there.") from error
        raise ArchiveError(f"{_shown(file)} is truncated or damaged; copy or compute it again.") from error
    kind = tree.attrs.get(_OWN + "kind")
    readers: dict[Any, Callable[[_Group], Any]] = {"run": _run, "comparison": _comparison, "scaling": _study}
    if kind not in readers:
        raise ArchiveError(f"{_shown(file)} holds {_shown(kind)}, not a run or a comparison; upgrade minidyn.")
    try:
        result: Run | Comparison | ScalingStudy = readers[kind](tree)
        return result
    except _BROKEN as error:
        raise ArchiveError(
            f"{_shown(file)} is whole but laid out differently; load it with the minidyn that wrote it."
        ) from error


# ---------------------------------------------------------------- the tree


@dataclass
class _Variable:
    """Numbers or text with named dimensions; along its own name it is a coordinate."""

    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: dict[str, Any]


@dataclass
class _Group:
    """What one HDF5 group holds."""

    attrs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, _Variable] = field(default_factory=dict)
    groups: dict[str, _Group] = field(default_factory=dict)

    def add(self, name: str, dims: tuple[str, ...], values: Any, **attrs: Any) -> None:
        """Add a variable whose shape must agree with the coordinates that are there already."""
        array = np.asarray(values)
        array = np.asarray(array, array.dtype.newbyteorder("="))
        if not (array.dtype.kind in "biu" or array.dtype in (np.float32, np.float64, object)):
            raise ArchiveError(f"Cannot save {_shown(name)}: netCDF has no {array.dtype}; use float64.")
        sizes = tuple(len(array) if dim == name else len(self.variables[dim].values) for dim in dims)
        if array.shape != sizes:
            wanted = ", ".join(f"{dim}: {size}" for dim, size in zip(dims, sizes, strict=True))
            raise ArchiveError(f"Cannot save {_shown(name)}: its shape is {array.shape}, not ({wanted}).")
        if "step" in dims and name not in ("step", "time"):
            attrs["coordinates"] = "time"
        self.variables[name] = _Variable(dims, array, attrs)

    def add_items(self, name: str, dim: str, values: Sequence[object], **attrs: Any) -> None:
        """Add Python values of one type; values that no netCDF type holds exactly become JSON."""
        items = [_plain(value) for value in values]
        kinds = {type(item) for item in items}
        if kinds == {int, float} and all(float(item) == item for item in items if isinstance(item, int)):
            items, kinds = [float(item) for item in items], {float}
        if not all(_is_native(item) or isinstance(item, bool) for item in items) or len(kinds) > 1:
            items, kinds = [json.dumps(item) for item in items], {str}
            attrs["stored_as"] = "json"
        dtype: Any = {bool: bool, int: np.int64, float: np.float64}.get(next(iter(kinds), str), object)
        self.add(name, (dim,), np.array(items, dtype), **attrs)

    def items(self, name: str) -> list[Any]:
        """The Python values that `add_items` was given."""
        variable = self.variables[name]
        values = variable.values.tolist()
        return [json.loads(value) for value in values] if "stored_as" in variable.attrs else values

    @property
    def nbytes(self) -> int:
        """Bytes of all that the group and those below it hold."""
        own = sum(v.values.nbytes for v in self.variables.values())
        return own + sum(g.nbytes for g in self.groups.values())

    def having(self, role: str) -> dict[str, _Variable]:
        """The variables of one role, in the order in which they were added."""
        return {name: v for name, v in self.variables.items() if v.attrs.get("role") == role}


def _clock(steps: NDArray[Any], time: NDArray[Any]) -> _Group:
    """A group that has the clock that maps and flows share."""
    group = _Group()
    group.add("step", ("step",), steps, long_name="step number k")
    group.add("time", ("step",), time, long_name="flow time t")
    return group


def _run_tree(run: Run) -> _Group:
    group = _clock(run.steps, run.time)
    group.attrs = _attributes("run", _title(run.meta, run.meta.get("system", "run")), run.meta)
    group.add("path", ("path",), np.arange(run.paths))
    group.add_items("parameter", "parameter", run.names)
    codes = np.array([int(s) for s in Status], np.int8)
    words = " ".join(s.label.replace(" ", "_") for s in Status)
    group.add("status", ("path",), run.status, flag_values=codes, flag_meanings=words)
    group.add("ended", ("path",), run.ended, long_name="step at which the path ended")
    if run.w is not None:
        group.add("w", ("path", "step", "parameter"), run.w, long_name="parameters")
    _add_moments(group, run.moments)
    taken = {*group.variables, "w", "quantile", "quantity"}
    for name, values in run.observables.items():
        group.add(_name(name, taken), ("path", "step"), values, role="observable", quantity=name)
    return group


def _run(group: _Group) -> Run:
    variables = group.variables
    moments: dict[str, dict[str, Any]] = {}
    for variable in group.having("moment").values():
        for name, values in zip(group.items(variable.dims[0]), variable.values, strict=True):
            moments.setdefault(name, {})[variable.attrs["statistic"]] = values
    return Run(
        steps=variables["step"].values,
        time=variables["time"].values,
        w=variables["w"].values if "w" in variables else None,
        observables={v.attrs["quantity"]: v.values for v in group.having("observable").values()},
        status=variables["status"].values,
        ended=variables["ended"].values,
        names=group.items("parameter"),
        meta=_meta(group.attrs),
        moments=moments,
    )


def _add_moments(group: _Group, moments: Mapping[str, Mapping[str, Any]]) -> None:
    """Stack the moments of all names, `mean (quantity, step)`: a thousand parameters are four variables."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name, stats in moments.items():
        kind = tuple((stat, np.shape(v), np.asarray(v).dtype.str) for stat, v in stats.items())
        alike.setdefault(kind, []).append(name)
    if moments:
        group.add("quantile", ("quantile",), QUANTILES)
    taken = {*group.variables, "w"}
    for kind, names in alike.items():
        dim = _name("quantity", taken)
        group.add_items(dim, dim, names)
        for stat, shape, _ in kind:
            dims = (dim, "quantile", "step") if len(shape) == 2 else (dim, "step")
            stacked = np.stack([moments[name][stat] for name in names])
            group.add(_name(stat, taken), dims, stacked, role="moment", statistic=stat)


def _comparison_tree(comparison: Comparison) -> _Group:
    runs = _Group()
    taken: set[str] = set()
    for label, run in comparison.runs.items():
        tree = runs.groups[_name(label, taken)] = _run_tree(run)
        tree.attrs[_OWN + "label"] = label

    quantities = _clock(comparison.steps, comparison.time)
    table = [(q, label, v) for q, by_label in comparison.quantities.items() for label, v in by_label.items()]
    dims: dict[int, str] = {}
    for _, _, values in table:  # labels may differ in their number of paths: a noiseless flow has one
        if len(values) not in dims:
            dim = dims[len(values)] = f"path_{len(values)}" if dims else "path"
            quantities.add(dim, (dim,), np.arange(len(values)))
    taken = set(quantities.variables)
    for quantity, label, values in table:
        attrs = {"role": "quantity", "quantity": quantity, "label": label}
        quantities.add(_name(f"{quantity}_{label}", taken), (dims[len(values)], "step"), values, **attrs)

    errors = _records(comparison.errors)
    attrs = _attributes("comparison", _title(comparison.meta, " and ".join(comparison.runs)), comparison.meta)
    return _Group(attrs, groups={"runs": runs, "quantities": quantities, "errors": errors})


def _comparison(group: _Group) -> Comparison:
    from minidyn.compare import Comparison, ErrorRow

    table = group.groups["quantities"]
    quantities: dict[str, dict[str, Any]] = {}
    for variable in table.having("quantity").values():
        quantities.setdefault(variable.attrs["quantity"], {})[variable.attrs["label"]] = variable.values
    return Comparison(
        runs={run.attrs[_OWN + "label"]: _run(run) for run in group.groups["runs"].groups.values()},
        quantities=quantities,
        steps=table.variables["step"].values,
        time=table.variables["time"].values,
        errors=[ErrorRow(**row) for row in _rows(group.groups["errors"])],
        meta=_meta(group.attrs),
    )


def _study_tree(study: ScalingStudy) -> _Group:
    attrs = _attributes("scaling", _title(study.meta, "scaling study"), study.meta)
    return _Group(attrs, groups={"rows": _records(study.rows), "fits": _records(study.fits)})


def _study(group: _Group) -> ScalingStudy:
    from minidyn.scaling import OrderFit, ScalingRow, ScalingStudy

    rows, fits = (_rows(group.groups[part]) for part in ("rows", "fits"))
    return ScalingStudy([ScalingRow(**r) for r in rows], [OrderFit(**f) for f in fits], _meta(group.attrs))


def _records(items: Sequence[Any]) -> _Group:
    """Rows of a table, each a record of the same fields, as one variable per field."""
    group = _Group()
    if items:
        group.add("row", ("row",), np.arange(len(items)))
        taken = {"row"}
        for column in (f.name for f in fields(items[0])):
            values = [getattr(item, column) for item in items]
            group.add_items(_name(column, taken), "row", values, role="column", column=column)
    return group


def _rows(group: _Group) -> list[dict[str, Any]]:
    """The fields that `_records` was given, row by row."""
    columns = {v.attrs["column"]: group.items(name) for name, v in group.having("column").items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# ---------------------------------------------------------------- names and attributes


def _name(text: str, taken: set[str]) -> str:
    """A name that netCDF and HDF5 can hold and that is not taken yet; takes it."""
    plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text))[:80].strip("_.-") or "unnamed"
    name, count = plain, 1
    while name in taken:
        count += 1
        name = f"{plain}_{count}"
    taken.add(name)
    return name


def _title(meta: Mapping[str, Any], otherwise: object) -> str:
    text = str(meta.get("title", otherwise))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _attributes(kind: str, title: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a result: the archive's own, then `meta` under names that netCDF can hold."""
    attrs: dict[str, Any] = {"title": title, _OWN + "format": FORMAT, _OWN + "kind": kind}
    taken = {"title", "coordinates", *_NETCDF}
    renamed = {}
    for key, value in _plain(meta).items():
        name = _name(f"meta_{key}" if _name(key, set()).startswith(_OWN) else key, taken)
        attrs[name] = value
        if name != key:
            renamed[name] = key
    return attrs | ({_OWN + "renamed": renamed} if renamed else {})


def _meta(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The `meta` that `_attributes` was given."""
    renamed = attrs.get(_OWN + "renamed", {})
    kept = {name: value for name, value in attrs.items() if name != "title" and not name.startswith(_OWN)}
    return {renamed.get(name, name): value for name, value in kept.items()}


def _plain(value: Any) -> Any:
    """`value` as JSON knows it; what JSON does not know becomes its text."""
    if isinstance(value, np.generic):
        item = value.item()
        return str(value) if isinstance(item, np.generic) else _plain(item)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def _is_native(value: object) -> bool:
    """Whether a netCDF attribute or variable holds this value exactly: text, int64, float64."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    )


# ---------------------------------------------------------------- the file


def _image(tree: _Group) -> bytes:
    """The bytes of the HDF5 file that holds a tree."""
    options: dict[str, Any] = {"driver": "core", "backing_store": False, "block_size": 2**20}
    with h5py.File("image", "w", track_order=True, libver=("v108", "v110"), **options) as root:
        _write_group(root, tree, 0)
        root.flush()
        image: bytes = root.id.get_file_image()
        return image


def _write_group(node: h5py.Group, group: _Group, dimid: int) -> int:
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


def _write_variable(node: h5py.Group, name: str, variable: _Variable) -> h5py.Dataset:
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
    encoded = [n for n, value in attrs.items() if not (_is_native(value) or isinstance(value, np.ndarray))]
    for name, value in attrs.items():
        node.attrs[name] = json.dumps(value) if name in encoded else value
    if encoded:
        node.attrs[_OWN + "json"] = json.dumps(encoded)


def _read_attributes(node: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    read = {n: v for n, v in node.attrs.items() if n not in _NETCDF and not n.startswith("_")}
    attrs = {name: value.item() if isinstance(value, np.generic) else value for name, value in read.items()}
    for name in json.loads(attrs.pop(_OWN + "json", "[]")):
        attrs[name] = json.loads(attrs[name])
    return attrs


def _read_group(node: h5py.Group) -> _Group:
    group = _Group(_read_attributes(node))
    for name, item in node.items():
        if isinstance(item, h5py.Group):
            group.groups[name] = _read_group(item)
        else:
            group.variables[name] = _read_variable(name, item)
    return group


def _read_variable(name: str, dataset: h5py.Dataset) -> _Variable:
    attrs = _read_attributes(dataset)
    dims = (name,) if dataset.is_scale else tuple(axis[0].name.rpartition("/")[2] for axis in dataset.dims)
    offset = dataset.id.get_offset()
    if dataset.nbytes > _STREAMED and offset is not None:
        values: NDArray[Any] = np.memmap(dataset.file.filename, dataset.dtype, "r", offset, dataset.shape)
    else:
        values = dataset.asstr()[...] if h5py.check_string_dtype(dataset.dtype) else dataset[...]
    if attrs.get("dtype") == "bool":
        del attrs["dtype"]
        values = values.astype(bool)
    return _Variable(dims, values, attrs)


def _check_format(version: object, file: Path) -> None:
    """Refuse what this minidyn cannot read, before the HDF5 library reads anything but a number."""
    if not isinstance(version, np.integer) or version < 1:
        raise ArchiveError(f"{_shown(file)} is HDF5 but not a minidyn result; give a file that `save` wrote.")
    if version > FORMAT:
        raise ArchiveError(
            f"{_shown(file)} was written by a newer minidyn (format {version}, this one reads {FORMAT}); "
            "upgrade minidyn."
        )


def _seal(digest: hashlib.blake2b) -> bytes:
    return _SEAL + digest.hexdigest().encode()


def _is_sealed(file: Path) -> bool:
    """Whether a file is byte for byte what `save` wrote."""
    digest = _hash()
    left = file.stat().st_size - len(_seal(digest))
    with file.open("rb") as bytes_of:
        while left > 0 and (block := bytes_of.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
        return bytes_of.read() == _seal(digest)


def _hash(start: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(start, digest_size=16)


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


def _stream(tree: _Group, file: BinaryIO) -> None:
    """Write the HDF5 file that holds a large tree piece by piece."""
    place = _Reserved(file, tree.nbytes + tree.nbytes // 50 + 2**22)
    with h5py.File(place, "w", track_order=True, libver=("v108", "v110")) as root:
        _write_group(root, tree, 0)
    file.truncate(place.size)


def _write(fill: Callable[[BinaryIO], Any], target: Path) -> None:
    """Fill a file, seal it and put it at `target` in one move: whoever looks sees the older file or the new one."""
    temporary = target.with_name(f".minidyn-{uuid.uuid4().hex[:12]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("x+b") as file:
            fill(file)
            file.seek(0)
            digest = _hash()
            while block := file.read(_PIECE):
                digest.update(block)
            file.write(_seal(digest))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise ArchiveError(f"Cannot save {_shown(target)}: {advice(error)}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _target(path: str | os.PathLike[str]) -> Path:
    """Where `save` writes: with an extension, through symbolic links, never onto a folder."""
    given = _path(path)
    target = Path(os.path.realpath(_named(given)))
    for folder in (given, target):
        if os.path.isdir(folder):
            raise ArchiveError(f"Cannot save {_shown(folder)}: it is a folder; add a name such as `run.h5`.")
    return target


def _source(path: str | os.PathLike[str]) -> Path:
    """The file that `load` reads, known to start as HDF5 does."""
    given = _path(path)
    file = _named(given) if os.path.isfile(_named(given)) else given
    if os.path.isdir(file):
        raise ArchiveError(f"{_shown(file)} is a folder; give a file in it.")
    if not os.path.isfile(file):
        raise ArchiveError(f"There is no file {_shown(file)}; check the name and the folder.")
    try:
        with file.open("rb") as start:
            signature = start.read(8)
    except OSError as error:
        raise ArchiveError(f"Cannot read {_shown(file)}: {error.strerror}; check its permissions.") from error
    if signature != b"\x89HDF\r\n\x1a\n":
        raise ArchiveError(f"{_shown(file)} is not HDF5, or was cut short; give a file that `save` wrote.")
    return file


def _path(path: str | os.PathLike[str]) -> Path:
    try:
        os.fsencode(path).index(0)
    except ValueError:  # no zero byte, as it must be
        return Path(os.fsdecode(path)).expanduser()
    except TypeError:
        pass
    raise ArchiveError(f"{_shown(path)} is not a path; give one such as `results/run.h5`.")


def _named(path: Path) -> Path:
    """`path` with `.h5` where it has no extension; `lr0.05` has none."""
    return path if path.suffix[1:2].isalpha() or not path.name else path.with_name(path.name + ".h5")


def _shown(value: object) -> str:
    """`value` on one line, cut to what a person reads in an error."""
    line = " ".join(str(value).split())
    return f"`{line}`" if len(line) <= 200 else f"`{line[:97]}...{line[-97:]}`"
