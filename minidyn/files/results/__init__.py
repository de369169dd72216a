"""Results as HDF5 that is also netCDF-4: what `save` wrote, `load` gives back bit for bit, or says why not.

    Run or Comparison  <->  tree of groups, labelled variables, attributes  <->  file

`tree` does the first step, `file` the second.
"""

import os
from pathlib import Path
from typing import Any

from minidyn.common.errors import ArchiveError, InputError, advice
from minidyn.common.wholefiles import write_sealed
from minidyn.files.results import index
from minidyn.files.results.file import BROKEN, image_of, read_tree, source_of, stream, target_of
from minidyn.files.results.layout import KINDS as PLAIN
from minidyn.files.results.layout import OWN, shown
from minidyn.files.results.longrun import KINDS as LONG_RUN

__all__ = ["load", "save"]

KINDS = PLAIN | LONG_RUN


def save(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write a result (one of `KINDS`) to `path`, whole or not at all, and return the path written.

    `.h5` is added where `path` has no extension; missing folders are made; an older file is replaced only
    when the new one is complete. Raises `ArchiveError` where the file cannot be written, `InputError` where
    `result` is no such result.
    """
    target = target_of(path)
    tree_of = next((tree for kind, tree, _ in KINDS.values() if isinstance(result, kind)), None)
    if tree_of is None:
        raise InputError(f"Cannot save {type(result).__name__}: give a Run or another result that has a `save`.")
    tree = tree_of(result)
    try:
        image = b"" if tree.nbytes > index.MAPPED else image_of(tree)
    except BROKEN as error:
        raise ArchiveError(f"Cannot save {shown(target)}: HDF5 cannot hold it ({shown(error)}).") from error
    try:
        write_sealed(target, lambda file: file.write(image) if image else stream(tree, file))
    except OSError as error:
        raise ArchiveError(f"Cannot save {shown(target)}: {advice(error)}.") from error
    return target


def load(path: str | os.PathLike[str]) -> Any:
    """Read back what `save` wrote, bit for bit.

    Values in `meta` that are neither text nor numbers come back as JSON has them: tuples and arrays as lists,
    other objects as their text. Raises `ArchiveError` for a file that is missing, truncated, damaged, edited,
    not minidyn's, or written by a newer minidyn.
    """
    file = source_of(path)
    tree = read_tree(file)
    kind = tree.attrs.get(OWN + "kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ArchiveError(f"{shown(file)} holds {shown(kind)}, not a result that this minidyn knows; upgrade minidyn.")
    try:
        return KINDS[kind][2](tree)
    except BROKEN as error:
        raise ArchiveError(
            f"{shown(file)} is whole but laid out differently; load it with the minidyn that wrote it."
        ) from error
