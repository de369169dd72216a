"""Files that are whole: written under another name, then moved into place; whoever looks sees the older one or the new.

A process that dies leaves its unfinished file, `.minidyn-*.tmp`; who writes into the same folder next removes it. That
one is unfinished is told by its lock, which the system lifts when a process ends.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows: what dead processes leave stays there
    fcntl = None  # type: ignore[assignment]
_LOCKS = fcntl is not None

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
PREFIX, SUFFIX = ".minidyn-", ".tmp"


def write_whole(target: Path, fill: Callable[[BinaryIO], Any], *, sync: bool = True, tidy: bool = True,
                mode: int = 0o666) -> None:  # fmt: skip
    """Replace `target` by a file that `fill` writes, whole or not at all; its folder is made where it is missing.

    sync : whether the file is on the disk, whatever becomes of the machine, when this returns.  tidy : remove what
    others left there.  mode : who may read and write it.  Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if tidy:
        sweep(target.parent)
    temporary, file = _unfinished(target, mode)
    try:
        with file:
            fill(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if not _LOCKS:
                file.close()
            os.replace(temporary, target)  # while it is locked
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    if sync:
        with suppress(OSError):  # a folder cannot be synced everywhere
            handle = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what processes that died were writing into a folder."""
    if not _LOCKS:
        return
    with suppress(OSError):
        for left in folder.glob(f"{PREFIX}*{SUFFIX}"):
            with suppress(OSError), left.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def _unfinished(target: Path, mode: int) -> tuple[Path, BinaryIO]:
    """A new file beside the target that is locked, so that nobody sweeps it away."""
    while True:
        temporary = target.with_name(f"{PREFIX}{uuid.uuid4().hex[:12]}{SUFFIX}")
        file: Any = os.fdopen(os.open(temporary, _NEW, mode), "w+b")
        with suppress(OSError):  # some file systems have no locks, and nothing is swept there
            if _LOCKS:
                fcntl.flock(file, fcntl.LOCK_EX)
        if not _LOCKS or os.fstat(file.fileno()).st_nlink:  # else it was swept before it was locked
            return temporary, file
        file.close()
