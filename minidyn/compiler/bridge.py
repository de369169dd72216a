"""Compiled functions inside a user's own numba code: `loss.kernels.grad` under `@numba.njit`.

numba calls `init` by itself (the entry point `numba_extensions` of the package), so that nothing here is
imported where numba is not used. The call goes to the machine code's address; numba cannot keep such a caller
in its cache on disk.
"""

import ctypes
from typing import Any

import numba as nb
from numba import types
from numba.extending import overload, typeof_impl

from minidyn.compiler import backends
from minidyn.compiler.backends.own import C_TYPES
from minidyn.compiler.functions import Function
from minidyn.compiler.types import B1, F8, I8, U8, Array

_NUMBERS = {types.float64: F8, types.int64: I8, types.uint64: U8, types.boolean: B1, types.intp: I8}
_made: dict[int, Any] = {}


def init() -> None:
    """Teach numba the type of compiled functions."""
    typeof_impl.register(Function)(_type_of)


def _type_of(function: Function, context: Any) -> Any:
    if backends.name() == "own":
        return typeof_impl(dispatcher(function), context)
    from minidyn.compiler.backends.numba import type_of

    return type_of(function)


def dispatcher(function: Function) -> Any:
    """A numba function that calls this compiled one, for arguments of any types that it takes."""
    if id(function) not in _made:
        names = [a.arg for a in function.tree.args.args]

        def stub(*args: Any) -> Any:
            """Stands for the compiled function while numba types a call."""

        args = ", ".join(names)
        text = f"def choose({args}):\n    return implement(({args},))\ndef call({args}):\n    return stub({args})\n"
        space: dict[str, Any] = {"stub": stub, "implement": lambda given: _implement(function, names, given)}
        exec(text, space)
        overload(stub, strict=False)(space["choose"])
        _made[id(function)] = nb.njit(space["call"])
    return _made[id(function)]


def _implement(function: Function, names: list[str], given: tuple[Any, ...]) -> Any:
    kinds = tuple(_type(t) for t in given)
    address, result = function.compile(kinds)
    parts = [C_TYPES[p] for k in kinds for p in k.parts]
    call = ctypes.CFUNCTYPE(None if result is None else C_TYPES[result.llvm], *parts)(address)
    passed = []
    for name, kind in zip(names, kinds, strict=True):
        if isinstance(kind, Array):
            passed += [f"{name}.ctypes", *(f"{name}.shape[{axis}]" for axis in range(kind.ndim))]
        else:
            passed.append(name)
    space: dict[str, Any] = {"machine_code": call}
    exec(f"def compiled({', '.join(names)}):\n    return machine_code({', '.join(passed)})\n", space)
    return space["compiled"]


def _type(t: Any) -> Any:
    t = types.unliteral(t)
    if isinstance(t, types.Array) and t.layout == "C" and t.dtype in _NUMBERS:
        return Array(_NUMBERS[t.dtype], t.ndim)
    if t in _NUMBERS:
        return _NUMBERS[t]
    raise nb.TypingError(f"a kernel of minidyn takes numbers and C-contiguous arrays of float64 or int64, not {t}.")
