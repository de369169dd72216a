"""Where generated kernels live on disk.

One readable module per content hash; numba keeps its machine code beside it. The folder is
`MINIDYN_CACHE_DIR`, else the platform's cache folder, else a temporary one (read-only homes).
Modules are written under a temporary name and linked into place, so that many processes may
start at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cache as memoize
from pathlib import Path
from types import ModuleType

import platformdirs

_PREFIX = "minidyn_kernel_"


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
    """A hash of everything of minidyn's own that ends up inside compiled kernels."""
    digest = hashlib.sha256(sys.version.encode())
    package = Path(__file__).resolve().parent.parent
    for path in sorted([*package.glob("kernels/*.py"), *package.glob("solvers/*.py"), package / "noise.py",
                        *package.glob("simulate/*.py"), *package.glob("flows/*.py"),
                        package / "linearization.py", package / "manifold.py"]):  # fmt: skip
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_loaded: dict[str, ModuleType] = {}


def load_module(text: str) -> ModuleType:
    """The module with this source, written once and imported once."""
    key = hashlib.sha256((code_version() + text).encode()).hexdigest()[:24]
    if key not in _loaded:
        name = _PREFIX + key
        path = folder() / f"{name}.py"
        if not path.exists():
            _write_once(path, text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        _loaded[key] = module
    return _loaded[key]


def _write_once(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    try:
        os.link(temporary, path)  # fails if another process was first: its text is the same
    except FileExistsError:
        pass
    except OSError:
        os.replace(temporary, path)
        return
    os.unlink(temporary)


def mark(name: str) -> None:
    """Remember across processes that something was compiled."""
    (folder() / (_PREFIX + name)).touch()


def marked(name: str) -> bool:
    """Whether `mark` was called with this name since the cache was cleared."""
    return (folder() / (_PREFIX + name)).exists()


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
    shutil.rmtree(folder() / "__pycache__", ignore_errors=True)
