"""Compiled functions: called from Python with arrays and numbers, from compiled code directly.

    @jit
    def total(a):
        s = 0.0
        for i in range(a.shape[0]):
            s += a[i]
        return s

A function is compiled at its first call with arguments of some types, together with all that it calls,
and its machine code is kept on disk: a later process loads it without looking at the source.
"""

from __future__ import annotations

import ast
import ctypes
import hashlib
import inspect
import textwrap
import threading
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minidyn.compiler import cache as disk
from minidyn.compiler import llvm
from minidyn.compiler.types import B1, F8, I8, U8, Array, Constant, Pointer, Static, Tuple
from minidyn.compiler.unit import Unit
from minidyn.compiler.words import Known

C_TYPES: dict[str, Any] = {
    "double": ctypes.c_double, "i64": ctypes.c_int64, "i1": ctypes.c_bool, "ptr": ctypes.c_void_p,
}  # fmt: skip


_compiling = threading.RLock()


class Function:
    """A Python function of the subset (see `writer`), and its compiled forms.

    inline : a copy goes wherever it is called.  noalias : its arrays never overlap.
    fma : `a*b + c` is rounded once, where the text says so.  thorough : LLVM unrolls and vectorizes its loops,
    which takes two to four times as long and pays where a loop is long and its body short.
    """

    def __init__(self, py_func: Callable[..., Any], *, inline: bool = False, noalias: bool = False, fma: bool = False,
                 thorough: bool = False, side_by_side: bool = True):  # fmt: skip
        self.py_func, self.inline, self.noalias = py_func, inline, noalias
        self.fma, self.thorough, self.side_by_side = fma and llvm.has_fma(), thorough, side_by_side
        self.name = py_func.__name__
        self.__name__, self.__doc__, self.__module__ = py_func.__name__, py_func.__doc__, py_func.__module__
        self.__wrapped__ = py_func
        self.entries: dict[Any, Callable[..., Any]] = {}
        self.addresses: dict[tuple[Any, ...], tuple[int, Any]] = {}

    @cached_property
    def one_by_one(self) -> Function:
        """The same function with `lanes` taken one after the other; it gives the same bits."""
        return Function(
            self.py_func, inline=self.inline, noalias=self.noalias, fma=self.fma, thorough=self.thorough,
            side_by_side=False,
        )  # fmt: skip

    @property
    def identity(self) -> str:
        """Where the function was defined, and its name."""
        return f"{self.py_func.__module__}.{self.py_func.__qualname__}"

    @property
    def tree(self) -> ast.FunctionDef:
        """The syntax tree of the definition."""
        code = self.py_func.__code__
        found = _definitions(code.co_filename).get((self.name, code.co_firstlineno))
        return found or _tree_of(self.py_func)

    def __call__(self, *args: Any) -> Any:
        key = tuple(map(_key, args))
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = self._entry(tuple(type_of(a) for a in args))
        return entry(*args)

    def _entry(self, types: tuple[Any, ...]) -> Callable[..., Any]:
        """A Python callable that takes arguments of these types apart and calls the machine code."""
        address, result = self.compile(types)
        flat = [p for t in types for p in t.parts]
        if isinstance(result, Tuple):  # for compiled code only; from Python the text itself runs
            return self.py_func
        restype = None if result is None else C_TYPES[result.llvm]
        call = ctypes.CFUNCTYPE(restype, *(C_TYPES[p] for p in flat))(address)
        takers = [_taker(t) for t in types]
        plain = all(t in (F8, I8, B1) for t in types)

        def entry(*args: Any) -> Any:
            if plain:
                return call(*args)
            given: list[Any] = []
            for take, a in zip(takers, args, strict=True):
                take(given, a)
            return call(*given)

        return entry

    def compile(self, types: tuple[Any, ...]) -> tuple[int, Any]:
        """Address and result type of the function for arguments of these types; compiled once per machine."""
        with _compiling:  # threads that want the same code wait for it
            if types not in self.addresses:
                key = self._hash(types)
                symbol = f"{self.name}_{key[:16]}"
                found = disk.read_code(key)
                if found is None:
                    unit = Unit(self.side_by_side)
                    _, result = unit.function(self, types, name=symbol)
                    found = result.name if result is not None else "void", llvm.optimize(unit.module(), self.thorough)
                    disk.write_code(key, *found)
                kind, code = found
                self.addresses[types] = llvm.load(code, symbol), _result(kind)
            return self.addresses[types]

    def pointer(self, signature: Pointer) -> FunctionPointer:
        """The function as an address, for compiled code that does not know it."""
        address, result = self.compile(signature.args)
        if result != signature.result:
            raise TypeError(f"{self.identity} returns {result}, not {signature.result}.")
        return FunctionPointer(self, address, signature)

    def assembly(self, *args: Any) -> str:
        """The processor's assembly for arguments like these."""
        unit = Unit(self.side_by_side)
        unit.function(self, tuple(type_of(a) for a in args), name=self.name)
        return llvm.explain(unit.module(), self.thorough)

    def _hash(self, types: tuple[Any, ...]) -> str:
        digest = hashlib.sha256(f"{llvm.machine()} {disk.code_version()} {self.identity}".encode())
        digest.update(" ".join(t.name for t in types).encode())
        flags = self.inline, self.noalias, self.fma, self.thorough, self.side_by_side
        digest.update(repr(flags).encode())
        for function in [self, *(t.function for t in _all_static(types))]:
            digest.update(_source_hash(function.py_func.__code__.co_filename))
            if "<locals>" in function.identity:
                digest.update(ast.dump(function.tree).encode())
        return digest.hexdigest()[:40]

    def __repr__(self) -> str:
        return f"compiled function {self.identity}"


class FunctionPointer:
    """A compiled function by its address: code that takes it is compiled once, whatever the function."""

    __slots__ = ("address", "function", "key", "type")

    def __init__(self, function: Function, address: int, type_: Pointer):
        self.function, self.address, self.type = function, address, type_
        self.key = type_.name

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __repr__(self) -> str:
        return f"pointer to {self.function!r}"


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
    if type(a) is Function:
        return id(a)
    if type(a) is Known:
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


def _address_in(a: Any) -> int:
    """Where an array's numbers are, as its object says it in its third word."""
    return _WORD(id(a) + 16).value


_WORD = ctypes.c_int64.from_address
_probe = np.zeros(1)
# a tenth of the time of `ctypes.data`; where objects look different (another Python), that
_address = _address_in if _address_in(_probe) == _probe.ctypes.data else lambda a: a.ctypes.data


def _taker(type_: Any) -> Callable[[list[Any], Any], None]:
    """What appends the components of one argument to the list of what is passed."""
    if isinstance(type_, Array):

        def take_array(out: list[Any], a: Any) -> None:
            if not a.flags.c_contiguous:
                raise TypeError("compiled code takes C-contiguous arrays.")
            out.append(_address(a))
            out.extend(a.shape)

        return take_array
    if isinstance(type_, Tuple):
        takers = [_taker(t) for t in type_.items]

        def take_tuple(out: list[Any], a: Any) -> None:
            for take, x in zip(takers, a, strict=True):
                take(out, x)

        return take_tuple
    if isinstance(type_, (Static, Constant)):
        return lambda out, a: None
    if isinstance(type_, Pointer):
        return lambda out, a: out.append(a.address)
    if type_ is F8:
        return lambda out, a: out.append(float(a))
    return lambda out, a: out.append(int(a))


def _result(kind: str) -> Any:
    return {"f8": F8, "i8": I8, "u8": U8, "b1": B1, "void": None}.get(kind, Tuple(()))


def _all_static(types: tuple[Any, ...]) -> list[Static]:
    out = []
    for t in types:
        if isinstance(t, Static):
            out.append(t)
        elif isinstance(t, Tuple):
            out += _all_static(t.items)
    return out


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


def _tree_of(function: Callable[..., Any]) -> ast.FunctionDef:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    return tree


@cache
def _source_hash(filename: str) -> bytes:
    try:
        known = disk.sources.get(filename)
        return hashlib.sha256(known.encode() if known else Path(filename).read_bytes()).digest()
    except OSError:
        return filename.encode()
