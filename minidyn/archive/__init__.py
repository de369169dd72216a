"""Results as HDF5 that is also netCDF-4: what `save` wrote, `load` gives back bit for bit, or says why not.

    Run or Comparison  <->  tree of groups, labelled variables, attributes  <->  file

`tree` does the first step, `file` the second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidyn.archive.file import _BROKEN, _image, _is_large, _read, _source, _stream, _target, _write
from minidyn.archive.tree import (
    _OWN,
    _comparison,
    _comparison_tree,
    _Group,
    _run,
    _run_tree,
    _shown,
    _study,
    _study_tree,
)
from minidyn.errors import ArchiveError, InputError
from minidyn.trajectory import Run

if TYPE_CHECKING:
    from minidyn.compare import Comparison
    from minidyn.scaling import ScalingStudy

__all__ = ["load", "save"]


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
    if _is_large(tree):
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
    tree = _read(file)
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
