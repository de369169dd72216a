"""What a value is, as a hash: whatever of it can reach the numbers of a run, alike in every process, or a refusal.

Expressions are what they are built of, arrays their bytes, minidyn's objects their ingredients, functions their code:
bytecode and constants, defaults, what they close over, and the globals and modules that they name, as far as a user
wrote them; packages are their names and versions.
"""

import builtins
import dis
import functools
import importlib
import platform
import random
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.operations import LatticeOp

from minidyn.common.byvalue import ByValue, ingredients
from minidyn.common.errors import InputError
from minidyn.common.intake import has_mask, shown
from minidyn.compiler.cache import code_version
from minidyn.compiler.fingerprint import hash_of
from minidyn.compiler.llvm import instruction_set
from minidyn.graph import walk

_PLAIN = (bool, float, complex, str, bytes)
_CACHED = functools.cached_property
_NEVER = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)  # other numbers every time


class _Unknown(Exception):
    """Holds the text of what cannot be told again."""


def identity(value: Any, name: str) -> str:
    """The hash of a value; InputError, beginning with `name`, where another process could not tell it again.

    >>> identity(lambda w: 2.0 * w, "q") == identity(lambda v: 2.0 * v, "q") != identity(lambda w: 3.0 * w, "q")
    True
    """
    try:
        return _Reader().of(value).hex()[:32]
    except _Unknown as error:
        what = str(error)
    except RecursionError:
        what = "objects in objects without an end"
    raise InputError(
        f"{name} cannot be told again when a checkpoint goes on: it holds {what}; use a name, a sympy expression, or a "
        "function of w whose ingredients are numbers, arrays, expressions and functions."
    )


@cache
def environment() -> Mapping[str, str]:
    """What computes, beside the versions of packages: minidyn's own code, the processor, the C library."""
    return {
        "minidyn's code": code_version(),
        "the processor": instruction_set(),
        "the C library": " ".join(platform.libc_ver()),
    }


class _Reader:
    """Reads a value once, whatever refers to it, and itself."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[Any, bytes]] = {}  # keeps what it has read, so that no other gets its id
        self.under_way: dict[int, int] = {}

    def of(self, value: Any) -> bytes:
        """The hash of a value."""
        key = id(value)
        if key in self.done:
            return self.done[key][1]
        if key in self.under_way:
            return hash_of("again", self.under_way[key])
        self.under_way[key] = len(self.under_way)
        out = self._read(value)
        del self.under_way[key]
        self.done[key] = value, out
        return out

    def _read(self, value: Any) -> bytes:
        kind = type(value)
        if value is None or kind in _PLAIN:
            return hash_of(kind.__name__, repr(value))
        if kind is int:
            return hash_of("int", format(value, "x"))
        if kind in (list, tuple):
            return hash_of(kind.__name__, *map(self.of, value))
        if kind in (set, frozenset):
            return hash_of(kind.__name__, *sorted(map(self.of, value)))
        if isinstance(value, (np.ndarray, np.generic)) and not has_mask(value):
            return self._array(np.asarray(value))
        if isinstance(value, (sp.Basic, sp.MatrixBase)) and not isinstance(value, type):
            return _expression(value if isinstance(value, sp.Basic) else sp.ImmutableDenseMatrix(value))
        if isinstance(value, Mapping):
            return hash_of("mapping", *(self.of(part) for item in value.items() for part in item))
        if isinstance(value, ByValue):
            return hash_of("made of", self.of(kind), self.of(ingredients(value)))
        return self._code(value) if callable(value) or isinstance(value, ModuleType | property) else self._object(value)

    def _array(self, array: np.ndarray) -> bytes:
        if array.dtype == object:
            return hash_of("objects", array.shape, *map(self.of, array.ravel()))
        return hash_of("array", np.dtype(array.dtype).descr, array.shape, array.tobytes())

    def _object(self, value: Any) -> bytes:
        """An object by its class, and by what it would be copied from."""
        if hasattr(value, "__next__") or isinstance(value, _NEVER):
            raise _Unknown(shown(value))
        if isinstance(value, CodeType):
            return hash_of("code", *map(repr, _layout(value)), *map(self.of, value.co_consts))
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # files, locks, generators
            raise _Unknown(shown(value)) from None
        if isinstance(parts, str):
            known = _installed(str(getattr(value, "__module__", None) or "builtins"), parts)
            if known is None:
                raise _Unknown(shown(value))
            return known
        state, *rest = [*parts[2:3], *(None if part is None else list(part) for part in parts[3:5])] or [None]
        if isinstance(state, dict):  # without what was computed since
            state = {n: v for n, v in state.items() if not isinstance(getattr(type(value), n, None), _CACHED)}
        return hash_of("object", *map(self.of, (*parts[:2], state)), *map(self.of, rest))

    # -- code -------------------------------------------------------------------------------------
    def _code(self, value: Any) -> bytes:
        """Functions, methods, classes, modules, and objects that are called."""
        if isinstance(value, ModuleType):
            return self._module(value, ())
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return hash_of("method", self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, BuiltinMethodType) and not isinstance(value.__self__, ModuleType | None):
            return hash_of("method", value.__name__, self.of(value.__self__))
        if isinstance(value, property):
            return hash_of("property", self.of(value.fget), self.of(value.fset))
        if isinstance(value, type):
            return self._class(value)
        inner = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)
        if inner is not None:  # compiled or remembered, staticmethod, classmethod
            return hash_of("around", type(value).__qualname__, self.of(inner))
        return self._object(value)

    def _function(self, f: FunctionType) -> bytes:
        code = f.__code__
        if known := _installed(str(f.__globals__.get("__name__", "")), code.co_qualname):
            return known
        cells = [self._cell(cell, code) for cell in f.__closure__ or ()]
        return hash_of(
            "function",
            self.of(code),
            self.of(f.__defaults__),
            self.of(f.__kwdefaults__),
            *cells,
            self.of({k: v for k, v in vars(f).items() if k != "__wrapped__"}),
            *self._globals(f),
        )

    def _cell(self, cell: Any, code: CodeType) -> bytes:
        try:
            return self._seen(cell.cell_contents, code)
        except ValueError:
            return b"empty"

    def _globals(self, f: FunctionType) -> list[bytes]:
        """What the names that a function takes from outside stand for."""
        out = []
        for code in _all_code(f.__code__):
            for step in dis.get_instructions(code):
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                    value = f.__globals__.get(step.argval, getattr(builtins, step.argval, NotImplemented))
                    out.append(self._seen(value, code))
                elif step.opname == "IMPORT_NAME":
                    try:
                        out.append(self._seen(importlib.import_module(step.argval), code))
                    except Exception:  # a relative one, or one that fails
                        raise _Unknown(f"the import of {step.argval or '.'}") from None
        return out

    def _seen(self, value: Any, code: CodeType) -> bytes:
        """A value as some code sees it: of a module, what the code names."""
        names = tuple(name for one in _all_code(code) for name in one.co_names)
        return self._module(value, names) if isinstance(value, ModuleType) else self.of(value)

    def _module(self, module: ModuleType, names: tuple[str, ...]) -> bytes:
        package = _package(module.__name__)
        if package is not None:
            return hash_of("module", package, module.__name__)
        found = {n: vars(module)[n] for n in sorted(set(names)) if n in vars(module)}
        # names shrink from module to module, so that modules that know each other come to an end
        rest = tuple(n for n in names if n not in found)
        parts = [self._module(v, rest) if isinstance(v, ModuleType) else self.of(v) for v in found.values()]
        return hash_of("module", module.__name__, *found, *parts)

    def _class(self, cls: type) -> bytes:
        if known := _installed(cls.__module__, cls.__qualname__):
            return known
        own = {n: v for n, v in vars(cls).items() if callable(v) or not (n.startswith("__") or n == "_abc_impl")}
        own = {n: getattr(v, "func", v) if hasattr(v, "attrname") else v for n, v in own.items()}  # cached properties
        slots = {n: None if type(v).__name__ == "member_descriptor" else v for n, v in own.items()}
        return hash_of("class", cls.__qualname__, *map(self.of, cls.__bases__), self.of(slots))


def _expression(e: sp.Basic) -> bytes:
    """An expression by its distinct parts; symbols that are no other process's (Dummy) by their turn."""
    found: dict[int, bytes] = {}
    turns: dict[Any, str] = {}
    for part, args in walk.postorder(e):
        inner = [found[id(a)] for a in args]
        if isinstance(part, sp.Dummy):
            name = f"{turns.setdefault(part, str(len(turns)))} {part.name} {sorted(part.assumptions0.items())}"
        else:
            name = sp.srepr(part) if not part.args else getattr(part.func, "__qualname__", "") + part.func.__name__
        inner = sorted(inner) if isinstance(part, LatticeOp) else inner  # Max, Min, And, Or: their order is chance
        found[id(part)] = hash_of("expression", name, *inner)
    return found[id(e)]


def _layout(code: CodeType) -> tuple[Any, ...]:
    """What a piece of bytecode is, without where it was written and what its variables are called."""
    return (
        code.co_code,
        code.co_exceptiontable,
        code.co_names,
        code.co_nlocals,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
    )


def _all_code(code: CodeType) -> list[CodeType]:
    """A piece of bytecode and those inside it."""
    return [code, *(one for c in code.co_consts if isinstance(c, CodeType) for one in _all_code(c))]


def _installed(module: str, name: str) -> bytes | None:
    """The hash of what an installed package has under a name; None for what a user wrote, or what has no name there."""
    package = _package(module)
    return None if package is None or "<" in name else hash_of("named", package, module, name)


@cache
def _package(module: str) -> str | None:
    """The installed package that a module belongs to, with its version; None for what a user wrote."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "minidyn" or top.startswith("minidyn_kernel_"):
        return None if top == "__main__" else top  # whose versions are Python's and minidyn's own
    found = sys.modules.get(top)
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", [])]
    if any({"site-packages", "dist-packages"} & set(Path(p).parts) for p in places if p):
        return f"{top} {getattr(found, '__version__', '')}"
    return None
