"""Where generated modules and machine code live on disk.

One readable module per content hash, one object file per compiled function beside it. The folder is
`MINIDYN_CACHE_DIR`, else the platform's cache folder; where neither can be used, and where anybody else may write
(`MINIDYN_CACHE_SHARED=1` allows that), there is no cache, which is no error. What is in it is code that will run.

Modules run from the text in memory: their files are for people. Files are replaced whole, so that many processes may
start at once: one compiles, and the others wait for it. What is damaged, cut, unreadable, somebody else's or of another
version is made again; the oldest go when the folder grows beyond `MINIDYN_CACHE_MB` (512 if not set).
"""

import hashlib
import linecache
import math
import os
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache as memoize
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import platformdirs

from minidyn.common.errors import ArchiveError, InputError, advice
from minidyn.common.wholefiles import PREFIX, SUFFIX, lock, sweep, write_whole
from minidyn.compiler.settings import setting

_PREFIX = "minidyn_kernel_"
_SELDOM = 64  # one write in so many looks how large the folder has become
_PATIENCE, _LOOK = 60.0, 0.01  # seconds that one process waits for another's code, and between two looks
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class CacheInfo:
    """What the kernel cache holds: so many `modules`, so many `bytes`; without a `folder` nothing is kept."""

    folder: Path | None
    modules: int
    bytes: int

    def __str__(self) -> str:
        if self.folder is None:
            return "no kernels are kept: there is no folder that only you may write to"
        return f"{self.modules} kernel modules, {self.bytes / 2**20:.1f} MiB in {self.folder}"


def __dir__() -> list[str]:
    """What `md.cache.` offers at the keyboard."""
    return ["clear", "folder", "info"]


@memoize
def folder() -> Path | None:
    """The cache folder, made if it does not exist; None where there is none that can be used."""
    _limit()
    for candidate in (os.environ.get("MINIDYN_CACHE_DIR"), platformdirs.user_cache_dir("minidyn")):
        if candidate:
            path = Path(candidate)
            with suppress(OSError, ValueError):
                _make(path)
                if not _trusted(path.stat()):
                    warnings.warn(
                        f"{path} belongs to somebody else or others may write there, so no kernels are kept in it: "
                        f"they are code that runs. `chmod 700` your own folder; if you trust all who may write there, "
                        "set MINIDYN_CACHE_SHARED=1.",
                        stacklevel=2,
                    )
                    return None
                with tempfile.TemporaryFile(dir=path):
                    return path
    return None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(0o777 if _shared() else 0o700, exist_ok=True)


def _shared() -> bool:
    """Whether the user trusts whoever may write into the folder."""
    return bool(setting("MINIDYN_CACHE_SHARED", ("1",), "trust all who may write into MINIDYN_CACHE_DIR"))


def _trusted(found: os.stat_result) -> bool:
    """Whether a file or folder is this user's, and nobody else may write to it."""
    if _shared() or not hasattr(os, "getuid"):
        return True
    return found.st_uid == os.getuid() and not found.st_mode & _OTHERS_WRITE


@memoize
def code_version(package: str = "minidyn") -> str:
    """A hash of the text of a package, and of the Python that runs it."""
    digest = hashlib.sha256(sys.version.encode())
    for text in _texts(resources.files(package)):
        digest.update(text)
    return digest.hexdigest()[:12]


def _texts(folder: Traversable) -> Iterator[bytes]:
    """The Python files below a folder, which may lie in an archive, in the order of their names."""
    for found in sorted(folder.iterdir(), key=lambda f: f.name):
        if found.name.endswith(".py"):
            yield found.read_bytes()
        elif found.is_dir():
            yield from _texts(found)


_loaded: dict[str, ModuleType] = {}
sources: dict[str, str] = {}  # text of loaded modules by file name: the file itself may be gone


def load_module(text: str) -> ModuleType:
    """The module with this source, run once, from memory."""
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    if key not in _loaded:
        name = _PREFIX + key
        path = (folder() or Path("minidyn")) / f"{name}.py"
        if _read(path) != text.encode():
            _write(path, text.encode())
        module = ModuleType(name)
        module.__file__ = str(path)
        sources[str(path)] = text
        linecache.cache[str(path)] = len(text), None, text.splitlines(keepends=True), str(path)  # for tracebacks
        exec(compile(text, str(path), "exec"), vars(module))
        sys.modules[name] = _loaded.setdefault(key, module)
    return _loaded[key]


def _read(path: Path) -> bytes | None:
    """What a file of the cache holds; None where it is missing, unreadable, or not this user's."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            found = os.fstat(file.fileno())
            return file.read() if stat.S_ISREG(found.st_mode) and _trusted(found) else None
    except (OSError, MemoryError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Keep a file; a folder that takes no more files is no error, nor one that was cleared meanwhile."""
    if folder() is None:
        return
    with suppress(OSError):
        _make(path.parent)
        mode = 0o666 if _shared() else 0o600
        write_whole(path, lambda file: file.write(data), sync=False, tidy=False, mode=mode)


# -- machine code ----------------------------------------------------------------------------------------


def read_code(key: str, suffix: str = ".o") -> tuple[str, bytes] | None:
    """What `write_code` kept under this key: the result's type and the machine code; None if there is nothing."""
    place = folder()
    if place is None:
        return None
    path = place / f"{_PREFIX}{key}{suffix}"
    data = _read(path)
    if data is None:
        return None
    with suppress(OSError):
        os.utime(path)  # what was not used for longest goes first
    seal, _, rest = data.partition(b"\n")
    if seal != _seal(key, rest):
        return None
    kind, _, code = rest.partition(b"\n")
    return kind.decode(), code


def write_code(key: str, kind: str, code: bytes, suffix: str = ".o") -> None:
    """Keep machine code under a key, if it can be kept."""
    place = folder()
    if place is None:
        return
    rest = kind.encode() + b"\n" + code
    _write(place / f"{_PREFIX}{key}{suffix}", _seal(key, rest) + b"\n" + rest)
    if int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % _SELDOM == 0:  # a look at the whole folder is not free
        _shrink()


def code_of(key: str, make: Callable[[], tuple[str, bytes]]) -> tuple[str, bytes]:
    """What is kept under a key, or what `make` returns, which then is: other processes that want it wait for it."""
    if found := read_code(key):
        return found
    with _alone(key):
        if found := read_code(key):
            return found
        made = make()
        write_code(key, *made)
        return made


@contextmanager
def _alone(key: str) -> Iterator[None]:
    """Here the code for a key is made, while other processes wait.

    The lock is lifted when its process ends, however it does; after `_PATIENCE` seconds nobody waits any longer.
    """
    place, file = folder(), None
    path = None if place is None else place / f"{_PREFIX}{key}.lock"
    if path is not None:
        with suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(path, flags, 0o666 if _shared() else 0o600), "r+b", buffering=0)
            deadline = time.monotonic() + _PATIENCE
            while not _locked(file) and time.monotonic() < deadline:
                time.sleep(_LOOK)
    try:
        yield
    finally:
        if path is not None and file is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            file.close()


def _locked(file: BinaryIO) -> bool:
    """Whether a file is locked now, or no file can be."""
    try:
        lock(file)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _seal(key: str, rest: bytes) -> bytes:
    """A hash of what is kept and of its name: code under another's name is damage too."""
    return hashlib.sha256(key.encode() + b"\n" + rest).hexdigest().encode()


def _limit() -> float:
    """How many bytes the folder may hold."""
    given = os.environ.get("MINIDYN_CACHE_MB", "512")
    try:
        limit = float(given) * 2**20
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise InputError(f"MINIDYN_CACHE_MB is {given!r}; it must be a number of megabytes such as 512, or not be set.")
    return limit


def _shrink() -> None:
    """Delete the files that were not used for longest once the folder is larger than it may be."""
    sweep(folder() or Path())
    limit, found = _limit(), sorted((s.st_mtime, s.st_size, path) for path, s in _files())
    total = sum(size for _, size, _ in found)
    for _, size, path in found:
        if total <= limit:
            return
        with suppress(OSError):
            path.unlink(missing_ok=True)
        total -= size


def _files() -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in the folder that minidyn put there."""
    for place, _, names in os.walk(folder() or ""):
        for name in names:
            if name.startswith(_PREFIX) or (name.startswith(PREFIX) and name.endswith(SUFFIX)):
                with suppress(OSError):  # another process was quicker
                    yield Path(place, name), os.stat(Path(place, name))


def info() -> CacheInfo:
    """Folder, number of kernel modules and bytes on disk.

    >>> import minidyn as md
    >>> md.cache.info().modules >= 0
    True
    """
    files = list(_files())
    return CacheInfo(folder(), sum(p.suffix == ".py" for p, _ in files), sum(s.st_size for _, s in files))


def clear() -> None:
    """Delete all kernels on disk; those loaded in this process go on working.

    Raises ArchiveError where they cannot be deleted.
    """
    for path, _ in _files():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ArchiveError(f"Cannot delete {path}: {advice(error)}.") from error
