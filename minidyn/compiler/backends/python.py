"""Kernels as ordinary Python, number by number: for a debugger, or to see what a kernel does.

Results have the bits of compiled code: arithmetic never raises, the functions of `math` are the C library's, a fused
product is rounded once, words of 64 bits wrap around. Some thousand times slower.
"""

import ast
import ctypes
import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from minidyn.compiler import llvm
from minidyn.compiler.backends import explicit
from minidyn.compiler.calls import INTRINSIC, SYNONYMS
from minidyn.compiler.intrinsics import Known
from minidyn.compiler.types import Pointer

side_by_side = False
_WORDS, _LEAST = 1 << 64, -(1 << 63)


# -- what operations mean -----------------------------------------------------------------------------------


@cache
def library(name: str) -> Callable[..., float]:
    """A function of the C library: infinite or NaN where Python's raises."""
    function = getattr(llvm.libm(), name)
    function.restype = ctypes.c_double
    function.argtypes = [ctypes.c_double] * {"fma": 3, "atan2": 2, "pow": 2, "fmod": 2, "hypot": 2, "copysign": 2}.get(
        name, 1
    )
    found: Callable[..., float] = function
    return found


_fma = library("fma")


def _fuses(a: Any, b: Any, c: Any) -> bool:
    """Whether `a*b + c` is a number with a point: whole ones are exact in any case, words wrap around."""
    if not (isinstance(a, float) or isinstance(b, float)):
        return False
    return not any(isinstance(x, (bool, np.bool_, np.uint64)) for x in (a, b, c))


def _muladd(a: Any, b: Any, c: Any) -> Any:
    return _fma(a, b, c) if _fuses(a, b, c) else a * b + c


def _mulsub(a: Any, b: Any, c: Any) -> Any:
    return _fma(a, b, -c) if _fuses(a, b, c) else a * b - c


def _submul(c: Any, a: Any, b: Any) -> Any:
    return _fma(-a, b, c) if _fuses(a, b, c) else c - a * b


def whole(x: Any) -> int:
    """A number as an int64, rounded towards zero; what has no place there is what processors make of it."""
    try:
        value = int(x)
    except (ValueError, OverflowError):
        return _LEAST
    if isinstance(x, float):
        return value if _LEAST <= value < -_LEAST else _LEAST
    return (value - _LEAST) % _WORDS + _LEAST


def word(x: Any) -> Any:
    """A number as 64 bits."""
    return np.uint64(whole(x) % _WORDS)


def _view(x: Any, t: Any) -> Any:
    if t is word:
        return x if isinstance(x, np.uint64) else np.float64(x).view(np.uint64)
    return x.view(np.float64) if isinstance(x, np.uint64) else np.float64(x)


_HELPERS = {
    "muladd_": _muladd, "mulsub_": _mulsub, "submul_": _submul, "view_": _view,
    "divide_": lambda a, b: np.float64(a) / b, "power_": library("pow"), **explicit.PLAIN,
    "int": whole, "round": lambda x: whole(library("rint")(x)),
}  # fmt: skip


# -- what names mean ------------------------------------------------------------------------------------------


class _Module:
    """`math` or `numpy`, as compiled code knows them."""

    def __init__(self, module: ModuleType):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = meaning(getattr(self._module, name))
        setattr(self, name, value)
        return value


@cache
def _known(value: Any) -> Any:
    """A function of math or numpy."""
    special = {np.int64: whole, np.uint64: word, np.minimum: _HELPERS["min_"], np.maximum: _HELPERS["max_"]}
    if value in special:
        return special[value]
    if value in (np.empty, np.zeros):
        dtypes = {whole: np.int64, word: np.uint64}
        return lambda shape, dtype=float: value(shape, dtypes.get(dtype, dtype))
    home, name = getattr(value, "__module__", None), getattr(value, "__name__", "")
    name = SYNONYMS.get(name, name)
    if home == "math" and name in ("floor", "ceil"):
        return lambda x: whole(library(name)(x))
    if (home == "math" or isinstance(value, np.ufunc)) and name in llvm.LIBM | INTRINSIC:
        return library(name)
    return value


def meaning(value: Any) -> Any:
    """What a thing of a module is in plain Python."""
    from minidyn.compiler.functions import Function, FunctionPointer

    if isinstance(value, tuple):
        return tuple(map(meaning, value))
    if isinstance(value, Function):
        return text(value)
    if isinstance(value, FunctionPointer):
        return text(value.function)
    if isinstance(value, Known):
        return value.value
    if value is math or value is np:
        return _Module(value)
    return _known(value) if callable(value) else value


@cache
def text(function: Any) -> Callable[..., Any]:
    """A compiled function as a plain one that means the same."""
    made: Callable[..., Any] = explicit.made(function, _HELPERS, meaning)
    return made


# -- the back end -----------------------------------------------------------------------------------------------


def entry(function: Any, types: tuple[Any, ...]) -> Callable[..., Any]:
    """The plain function, for arguments from outside."""
    plain = text(function)

    def entry(*args: Any) -> Any:
        given = []
        for a in args:
            if isinstance(a, np.ndarray):
                explicit.check(a)
                given.append(a)
            else:
                given.append(meaning(a))
        with np.errstate(all="ignore"):
            out = plain(*given)
        return out.item() if isinstance(out, np.generic) else out

    return entry


def address(function: Any, signature: Pointer) -> None:
    """Nothing: the function itself is handed around."""


def assembly(function: Any, types: tuple[Any, ...]) -> str:
    """The text that runs."""
    return ast.unparse(explicit.tree(function))
