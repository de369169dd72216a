"""minidyn's own compiler behind a call: arguments are taken apart and handed to machine code."""

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minidyn.common.locks import fork_safe_lock
from minidyn.compiler import cache as disk
from minidyn.compiler import llvm
from minidyn.compiler.codegen import Writer
from minidyn.compiler.module import Module
from minidyn.compiler.types import F8, Array, Fixed, Pointer, Tuple, parse
from minidyn.compiler.unpacking import MISSED, Quick, quick
from minidyn.compiler.violations import checked, raising

side_by_side = True  # `lanes` are several turns at once
C_TYPES: Any = {"double": ctypes.c_double, "i64": ctypes.c_int64, "i1": ctypes.c_bool, "ptr": ctypes.c_void_p}
_SELDOM = 3  # calls with arguments of the same types, of which the last one makes them quick
_compiling = fork_safe_lock()


def compile(function: Any, types: tuple[Any, ...]) -> tuple[int, Any]:
    """Address and result type of a function for arguments of these types; compiled once per machine."""
    with _compiling:  # threads that want the same code wait for it
        if types not in function.addresses:
            key = function.hash(types)
            symbol = f"{function.name}_{key[:16]}"
            kind, code = disk.code_of(key, partial(_made, function, types, symbol))
            function.addresses[types] = llvm.load(code, symbol), Tuple(()) if "(" in kind else parse(kind)
        address, result = function.addresses[types]
        return address, result


def _made(function: Any, types: tuple[Any, ...], symbol: str) -> tuple[str, bytes]:
    """Result type and machine code."""
    module = Module(Writer, function.side_by_side)
    _, result = module.function(function, types, name=symbol)
    return result.name if result is not None else "void", llvm.optimize(module.assembly(), function.thorough)


class Entry:
    """A Python callable that takes arguments of these types apart and calls the machine code.

    From the third call on `quick` is what does the same in machine code (see `unpacking`); None where it cannot.
    """

    quick: Quick | None = None

    def __init__(self, function: Any, types: tuple[Any, ...]):
        self.address, self.result = compile(function, types)
        restype = None if self.result is None else C_TYPES[self.result.llvm]
        self.call = ctypes.CFUNCTYPE(restype, *(C_TYPES[p] for t in types for p in t.parts))(self.address)
        self.takers = [_taker(t) for t in types]
        self.types, self.turns = types, 0

    def __call__(self, *args: Any) -> Any:
        """Call the machine code with arguments of these types."""
        if self.quick is not None:
            unpack, table, returns = self.quick
            result = unpack(args, table)
            if result != MISSED:
                return result if returns else None
        self.turns += 1
        if self.turns == _SELDOM:
            self.quick = quick(self.types, self.address, self.result)
        given: list[Any] = []
        for take, a in zip(self.takers, args, strict=True):
            take(given, a)
        return self.call(*given)


def entry(function: Any, types: tuple[Any, ...]) -> Callable[..., Any]:
    """What Python calls for arguments of these types."""
    _, result = compile(function, types)
    if isinstance(result, Tuple):  # for compiled code only; from Python the text itself runs
        text: Callable[..., Any] = function.py_func
        return text
    made = Entry(function, types)
    return raising(made) if checked() else made


def address(function: Any, signature: Pointer) -> int:
    """Where the machine code for this signature is."""
    place, result = compile(function, signature.args)
    if result != signature.result:
        raise TypeError(f"{function.identity} returns {result}, not {signature.result}.")
    return place


def assembly(function: Any, types: tuple[Any, ...]) -> str:
    """The processor's assembly."""
    module = Module(Writer, function.side_by_side)
    module.function(function, types, name=function.name)
    return llvm.explain(module.assembly(), function.thorough)


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
    if isinstance(type_, Fixed):
        return lambda out, a: None
    if isinstance(type_, Pointer):
        return lambda out, a: out.append(a.address)
    if type_ is F8:
        return lambda out, a: out.append(float(a))
    return lambda out, a: out.append(int(a))
