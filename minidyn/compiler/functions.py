"""Compiled functions: called from Python with arrays and numbers, from compiled code directly.

A function is compiled at its first call with arguments of some types, together with all that it calls,
and its machine code is kept on disk: a later process loads it without looking at the source.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from minidyn.common.locks import cached_property
from minidyn.compiler import backends, fingerprint, llvm
from minidyn.compiler import cache as disk
from minidyn.compiler.addresses import FunctionPointer
from minidyn.compiler.backends import own
from minidyn.compiler.intrinsics import Known
from minidyn.compiler.types import B1, F8, I8, U8, Array, Constant, Pointer, Static, Tuple
from minidyn.compiler.unpacking import MISSED, Quick


class Function:
    """A Python function of the subset (see LANGUAGE.md), and its compiled forms.

    inline : a copy goes wherever it is called.  noalias : its arrays never overlap.
    fma : `a*b + c` is rounded once, where the text says so.  thorough : LLVM unrolls and vectorizes its loops,
    which takes two to four times as long and pays where a loop is long and its body short.
    """

    def __init__(
        self,
        py_func: Callable[..., Any],
        *,
        inline: bool = False,
        noalias: bool = False,
        fma: bool = False,
        thorough: bool = False,
        side_by_side: bool = True,
    ):
        self.py_func, self.inline, self.noalias = py_func, inline, noalias
        self.fma, self.thorough, self.side_by_side = fma and llvm.has_fma(), thorough, side_by_side
        self.name = py_func.__name__
        self.__name__, self.__doc__, self.__module__ = py_func.__name__, py_func.__doc__, py_func.__module__
        self.__wrapped__ = py_func
        self.entries: dict[Any, Callable[..., Any]] = {}
        self.addresses: dict[tuple[Any, ...], tuple[int, Any]] = {}
        self.quick: Quick | None = None  # for the types that were last seen often
        self.meaning: bytes | None = None  # what it does, as a hash, once that is asked for

    @cached_property
    def one_by_one(self) -> Function:
        """The same function with `lanes` taken one after the other; it gives the same bits."""
        if not backends.chosen().side_by_side:
            return self
        given = {option: getattr(self, option) for option in ("inline", "noalias", "fma", "thorough")}
        return Function(self.py_func, side_by_side=False, **given)

    @property
    def options(self) -> tuple[bool, ...]:
        """How it is compiled, as the class says."""
        return self.inline, self.noalias, self.fma, self.thorough, self.side_by_side

    @property
    def identity(self) -> str:
        """Where the function was defined, and its name."""
        return f"{self.py_func.__module__}.{self.py_func.__qualname__}"

    @property
    def tree(self) -> Any:
        """The syntax tree of the definition."""
        code = self.py_func.__code__
        found = _definitions(code.co_filename).get((self.name, code.co_firstlineno))
        return found or ast.parse(textwrap.dedent(inspect.getsource(self.py_func))).body[0]

    def __call__(self, *args: Any) -> Any:
        """Run the function; its code for arguments of these types is made, or loaded, at the first call with them.

        Takes C-contiguous arrays of float64, int64 or uint64, numbers, compiled functions, and tuples of these; raises
        TypeError for anything else.
        """
        quick = self.quick
        if quick is not None:
            unpack, table, returns = quick
            result = unpack(args, table)
            if result != MISSED:
                return result if returns else None
        key = tuple(map(_key, args))
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = backends.chosen().entry(self, tuple(type_of(a) for a in args))
        self.quick = getattr(entry, "quick", None)
        return entry(*args)

    def compile(self, types: tuple[Any, ...]) -> tuple[int, Any]:
        """Address and result type of the machine code for arguments of these types; compiled once per machine."""
        return own.compile(self, types)

    def pointer(self, signature: Pointer) -> FunctionPointer:
        """The function as an address, for compiled code that does not know it."""
        return FunctionPointer(self, backends.chosen().address(self, signature), signature)

    def assembly(self, *args: Any) -> str:
        """What the function becomes for arguments like these: the processor's assembly (plain Python: its text)."""
        return backends.chosen().assembly(self, tuple(type_of(a) for a in args))

    def hash(self, types: tuple[Any, ...]) -> str:
        """A name for the function compiled for these types: for what it does and calls, the compiler, the processor."""
        made_by = f"{backends.name()} {llvm.machine()} {fingerprint.of_compiler()}"
        digest = hashlib.sha256(f"{made_by} {self.name} {' '.join(map(_told, types))}".encode())
        digest.update(fingerprint.of_function(self))
        return digest.hexdigest()[:40]

    def __repr__(self) -> str:
        return f"compiled function {self.identity}"


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function of the subset when it is first called; see `Function`."""
    if function is None:
        return lambda f: Function(f, **options)
    return Function(function, **options)


@cache
def compiled(function: Callable[..., Any]) -> Function:
    """A plain function of the subset as a compiled one; the same for the same function."""
    return function if isinstance(function, Function) else Function(function)


# -- from Python's values to types and back -----------------------------------------------------------


def _key(a: Any) -> Any:
    if type(a) is np.ndarray:
        return a.dtype.char, a.ndim
    if type(a) is tuple:
        return tuple(map(_key, a))
    if type(a) is FunctionPointer:
        return a.key
    if type(a) in (Function, Known):
        return a
    return (a.dtype.char, a.ndim) if isinstance(a, np.ndarray) else type(a)


def type_of(a: Any) -> Any:
    """The type of an argument as compiled code sees it."""
    if isinstance(a, np.ndarray):
        item = {"d": F8, "l": I8, "q": I8, "L": U8, "Q": U8}.get(a.dtype.char)
        if item is None or a.ndim == 0:
            raise TypeError(f"compiled code takes arrays of float64, int64 or uint64, not {a.dtype}{a.shape}.")
        return Array(item, a.ndim)
    if isinstance(a, (bool, np.bool_)):
        return B1
    if isinstance(a, np.uint64):
        return U8
    if isinstance(a, (int, np.integer)):
        return I8
    if isinstance(a, (float, np.floating)):
        return F8
    if isinstance(a, tuple):
        return Tuple(tuple(type_of(x) for x in a))
    if isinstance(a, FunctionPointer):
        return a.type
    if isinstance(a, Function):
        return Static(a)
    if isinstance(a, Known):
        return Constant(a.value)
    raise TypeError(f"compiled code cannot take {a!r}.")


def _told(type_: Any) -> str:
    """The name of a type, of functions what they do."""
    if isinstance(type_, Tuple):
        return f"({' '.join(map(_told, type_.items))})"
    return fingerprint.of_function(type_.value).hex() if isinstance(type_, Static) else str(type_.name)


# -- sources ---------------------------------------------------------------------------------------------


@cache
def _definitions(filename: str) -> dict[tuple[str, int], ast.FunctionDef]:
    """The functions at the top of a file, by name and first line (decorators included)."""
    try:
        tree = ast.parse(disk.sources.get(filename) or Path(filename).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return {}
    out = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            out[node.name, first] = node
    return out
