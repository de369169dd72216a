"""Files that are whole: written under another name, then moved into place; whoever looks sees the older one or the new.

A process that dies leaves its unfinished file, `.minidyn-*.tmp`; who writes into the same folder next removes it. That
one is unfinished is told by its lock, which the system lifts when a process ends.
"""

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows: what dead processes leave stays there, and nobody is kept out
    fcntl = None  # type: ignore[assignment]
LOCKS = fcntl is not None

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
PREFIX, SUFFIX = ".minidyn-", ".tmp"
_SEAL = b"\nminidyn seal "  # then 32 hexadecimal digits
SEAL_SIZE = len(_SEAL) + 32  # bytes
_PIECE = 2**24


def write_whole(
    target: Path, fill: Callable[[BinaryIO], Any], *, sync: bool = True, tidy: bool = True, mode: int = 0o666
) -> None:
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
            if not LOCKS:
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


def write_sealed(target: Path, fill: Callable[[BinaryIO], Any], *, sync: bool = True, tidy: bool = True) -> None:
    """`write_whole`, and behind what `fill` writes a hash of it, by which damage and edits are seen."""

    def filled(file: BinaryIO) -> None:
        fill(file)
        file.write(seal_of(file, file.seek(0, os.SEEK_END)))

    write_whole(target, filled, sync=sync, tidy=tidy)


def seal_of(file: BinaryIO, end: int) -> bytes:
    """The seal of what stands before `end`, where it is to stand itself."""
    digest = hashlib.blake2b(digest_size=16)
    file.seek(0)
    while end > 0 and (block := file.read(min(end, _PIECE))):
        digest.update(block)
        end -= len(block)
    return _SEAL + digest.hexdigest().encode()


def sealed_end(file: BinaryIO) -> int:
    """Where the seal of a file begins; ValueError where it is not that of all before it."""
    end = os.fstat(file.fileno()).st_size - SEAL_SIZE
    if seal_of(file, end) != file.read():
        raise ValueError("damaged")
    return end


def sweep(folder: Path) -> None:
    """Remove what processes that died were writing into a folder."""
    if not LOCKS:
        return
    with suppress(OSError):
        for left in folder.glob(f"{PREFIX}*{SUFFIX}"):
            with suppress(OSError), left.open("r+b") as file:
                lock(file)
                left.unlink()


def lock(file: BinaryIO) -> None:
    """Lock a file until it is closed, or OSError where another process has."""
    if LOCKS:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unfinished(target: Path, mode: int) -> tuple[Path, BinaryIO]:
    """A new file beside the target that is locked, so that nobody sweeps it away."""
    while True:
        temporary = target.with_name(f"{PREFIX}{uuid.uuid4().hex[:12]}{SUFFIX}")
        file: Any = os.fdopen(os.open(temporary, _NEW, mode), "w+b")
        with suppress(OSError):  # some file systems have no locks, and nothing is swept there
            if LOCKS:
                fcntl.flock(file, fcntl.LOCK_EX)
        if not LOCKS or os.fstat(file.fileno()).st_nlink:  # else it was swept before it was locked
            return temporary, file
        file.close()
