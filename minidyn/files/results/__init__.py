"""Results as HDF5 that is also netCDF-4: what `save` wrote, `load` gives back bit for bit, or says why not.

    Run or Comparison  <->  tree of groups, labelled variables, attributes  <->  file

`tree` does the first step, `file` the second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidyn.common.errors import ArchiveError, InputError
from minidyn.compare.comparison import Comparison
from minidyn.compare.order import ScalingStudy
from minidyn.files.results.file import BROKEN, image_of, is_large, read_tree, source_of, stream, target_of, write_sealed
from minidyn.files.results.layout import (
    OWN,
    Group,
    comparison_of,
    comparison_tree,
    run_of,
    run_tree,
    shown,
    study_of,
    study_tree,
)
from minidyn.simulate.run import Run

__all__ = ["load", "save"]

_KINDS: dict[str, tuple[type, Callable[[Any], Group], Callable[[Group], Any]]] = {  # what a file says it is
    "run": (Run, run_tree, run_of),
    "comparison": (Comparison, comparison_tree, comparison_of),
    "scaling": (ScalingStudy, study_tree, study_of),
}


def save(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write a run, a comparison or a scaling study to `path`, whole or not at all, and return the path written.

    `.h5` is added where `path` has no extension; missing folders are made; an older file is replaced only
    when the new one is complete. Raises `ArchiveError` where the file cannot be written, `InputError` where
    `result` is not a result (a `Run`, a `Comparison` or a `ScalingStudy`).
    """
    target = target_of(path)
    tree_of = next((tree for kind, tree, _ in _KINDS.values() if isinstance(result, kind)), None)
    if tree_of is None:
        raise InputError(f"Cannot save {type(result).__name__}: give a Run, a Comparison or a ScalingStudy.")
    tree = tree_of(result)
    if is_large(tree):
        write_sealed(lambda file: stream(tree, file), target)
        return target
    try:
        image = image_of(tree)
    except BROKEN as error:
        raise ArchiveError(f"Cannot save {shown(target)}: HDF5 cannot hold it ({shown(error)}).") from error
    write_sealed(lambda file: file.write(image), target)
    return target


def load(path: str | os.PathLike[str]) -> Run | Comparison | ScalingStudy:
    """Read back what `save` wrote, bit for bit.

    Values in `meta` that are neither text nor numbers come back as JSON has them: tuples and arrays as lists,
    other objects as their text. Raises `ArchiveError` for a file that is missing, truncated, damaged, edited,
    not minidyn's, or written by a newer minidyn.
    """
    file = source_of(path)
    tree = read_tree(file)
    kind = tree.attrs.get(OWN + "kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ArchiveError(f"{shown(file)} holds {shown(kind)}, not a run or a comparison; upgrade minidyn.")
    try:
        result: Run | Comparison | ScalingStudy = _KINDS[kind][2](tree)
        return result
    except BROKEN as error:
        raise ArchiveError(
            f"{shown(file)} is whole but laid out differently; load it with the minidyn that wrote it."
        ) from error
