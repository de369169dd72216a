"""Where generated modules and machine code live on disk.

One readable module per content hash, one object file per compiled function beside it. The folder is
`MINIDYN_CACHE_DIR`, else the platform's cache folder, else a temporary one (read-only homes).
Files are written under a temporary name and moved into place, so that many processes may start at
once; what is damaged or belongs to another version is made again; the oldest go when the folder grows
beyond `MINIDYN_CACHE_MB` (512 if not set).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache as memoize
from pathlib import Path
from types import ModuleType

import platformdirs

_PREFIX = "minidyn_kernel_"
_SELDOM = 64  # one write in so many looks how large the folder has become


@dataclass(frozen=True)
class CacheInfo:
    """What the kernel cache holds."""

    folder: Path
    modules: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.modules} kernel modules, {self.bytes / 2**20:.1f} MiB in {self.folder}"


@memoize
def folder() -> Path:
    """The cache folder, made if it does not exist and can be made."""
    named = os.environ.get("MINIDYN_CACHE_DIR")
    for candidate in (named, platformdirs.user_cache_dir("minidyn")):
        if candidate:
            path = Path(candidate)
            try:
                path.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=path):
                    return path
            except OSError:
                continue
    return Path(tempfile.mkdtemp(prefix="minidyn-"))


@memoize
def code_version() -> str:
    """A hash of everything of minidyn's own that may end up inside compiled kernels."""
    digest = hashlib.sha256(sys.version.encode())
    package = Path(__file__).resolve().parent.parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_loaded: dict[str, ModuleType] = {}
sources: dict[str, str] = {}  # text of loaded modules by file name: the file itself may be gone


def load_module(text: str) -> ModuleType:
    """The module with this source, written once and imported once."""
    key = hashlib.sha256((code_version() + text).encode()).hexdigest()[:24]
    if key not in _loaded:
        name = _PREFIX + key
        path = folder() / f"{name}.py"
        if not path.exists() or path.read_bytes() != text.encode():
            _write_once(path, text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sources[str(path)] = text
        sys.modules[name] = module
        spec.loader.exec_module(module)
        _loaded[key] = module
    return _loaded[key]


def _write_once(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode())
    os.replace(temporary, path)  # if another process was first, its text is the same


# -- machine code ----------------------------------------------------------------------------------------


def read_code(key: str) -> tuple[str, bytes] | None:
    """What `write_code` kept under this key: the result's type and the machine code; None if there is nothing."""
    path = folder() / f"{_PREFIX}{key}.o"
    try:
        data = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # what was not used for longest goes first
    seal, _, rest = data.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != seal:
        return None
    kind, _, code = rest.partition(b"\n")
    return kind.decode(), code


def write_code(key: str, kind: str, code: bytes) -> None:
    """Keep machine code under a key; a folder that takes no more files is no error."""
    rest = kind.encode() + b"\n" + code
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=folder(), prefix=_PREFIX, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
        os.replace(temporary, folder() / f"{_PREFIX}{key}.o")
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    if int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % _SELDOM == 0:  # a look at the whole folder is not free
        _shrink()


def _shrink() -> None:
    """Delete the files that were not used for longest once the folder is larger than it may be."""
    limit = float(os.environ.get("MINIDYN_CACHE_MB", "512")) * 2**20
    found = []
    for path in _files():
        try:
            found.append((path.stat().st_mtime, path.stat().st_size, path))
        except OSError:  # another process was quicker
            continue
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _files() -> list[Path]:
    """Everything in the folder that minidyn put there."""
    return [p for p in folder().rglob("*") if p.is_file() and p.name.startswith(_PREFIX)]


def info() -> CacheInfo:
    """Folder, number of kernel modules and bytes on disk.

    >>> import minidyn as md
    >>> md.cache.info().modules >= 0
    True
    """
    files = _files()
    return CacheInfo(folder(), sum(p.suffix == ".py" for p in files), sum(p.stat().st_size for p in files))


def clear() -> None:
    """Delete all kernels on disk; those loaded in this process go on working."""
    for path in _files():
        path.unlink(missing_ok=True)
