"""The hand-written C++ programs in `reference/`: compiled when first needed, called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from minidyn.compiler import cache as kernel_cache

FOLDER = Path(__file__).parent / "reference"
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-Wno-ignored-attributes"]
WIDE = "-mprefer-vector-width=512"
OWN = {
    "path": ["-fno-tree-slp-vectorize"],  # x and y packed into one register only lengthen the chain
    "flow": ["-ffast-math", "-lmvec", "-lm"],  # for libmvec's tanh
}
LIMIT, PLAIN = "C++ AVX-512", "C++ plain"


class Missing(Exception):
    """A reference that this machine cannot run, and why."""


@cache
def avx512() -> bool:
    """Whether this processor has the instructions of the eight-lane references."""
    try:
        return "avx512dq" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@cache
def library(name: str) -> ctypes.CDLL:
    """The compiled `reference/NAME.cpp`; Missing without a compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise Missing("no g++")
    flags = [*FLAGS, *([WIDE] if avx512() else []), *OWN.get(name, [])]
    sources = [*sorted(FOLDER.glob("*.h")), FOLDER / f"{name}.cpp"]
    digest = hashlib.sha256(" ".join(["two steps", *flags, _cpu_flags()]).encode())
    for path in sources:
        digest.update(path.read_bytes())
    folder = kernel_cache.folder() / "benchmarks"
    folder.mkdir(exist_ok=True)
    target = folder / f"minidyn_kernel_{name}_{digest.hexdigest()[:16]}.so"  # `minidyn cache clear` finds it
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            half, made = Path(scratch) / "half.o", Path(scratch) / target.name
            compiling = [f for f in flags if f != "-shared" and not f.startswith("-l")]
            # linked apart: -ffast-math makes the linker add code that flushes small numbers of the process to zero
            linking = [f for f in flags if f in ("-shared", "-pthread") or f.startswith("-l")]
            for call in ([*compiling, "-c", str(sources[-1]), "-o", str(half)], [str(half), "-o", str(made), *linking]):
                done = subprocess.run([compiler, *call], capture_output=True, text=True, check=False)
                if done.returncode:
                    raise Missing(f"{compiler} fails: {done.stderr.strip().splitlines()[-1][:80]}")
            os.replace(made, target)
    return ctypes.CDLL(str(target))


def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


def address(array: np.ndarray) -> ctypes.c_void_p:
    """A C-contiguous float64 array as a pointer."""
    assert array.flags.c_contiguous and array.dtype == np.float64
    return array.ctypes.data_as(ctypes.c_void_p)


def call(name: str, function: str, *args: Any) -> int:
    """Call with arrays, whole numbers (int64) and floats (double); small flags come as `ctypes.c_int`."""
    kinds = {int: ctypes.c_int64, float: ctypes.c_double}
    given = [address(a) if isinstance(a, np.ndarray) else kinds[type(a)](a) if type(a) in kinds else a for a in args]
    return int(getattr(library(name), function)(*given) or 0)


def variants(name: str) -> list[str]:
    """The variants of this program that run here, the fastest first; none without a compiler."""
    if missing(name):
        return []
    return [LIMIT, PLAIN] if avx512() else [PLAIN]


def missing(name: str) -> str:
    """Why this program does not run here; empty if it does."""
    try:
        library(name)
    except Missing as e:
        return f"no C++ reference: {e}"
    return ""


def remark(name: str) -> str:
    """What a row says where this program, or its fastest variant, did not run."""
    return missing(name) or ("" if avx512() else "no AVX-512: the bar is on plain C++")
