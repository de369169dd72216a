"""Kernels through numba: the reference, and what the field knows.

What runs is an *entry*, a module that calls the function with everything in place that is known while compiling; its
machine code is kept in minidyn's cache. All that it calls is compiled into it.
"""

import hashlib
import math
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import numba as nb
from numba.core import types as nbt
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.imputils import lower_constant
from numba.core.serialize import dumps
from numba.extending import intrinsic, models, overload, register_model, typeof_impl

from minidyn.compiler import cache as disk
from minidyn.compiler import intrinsics
from minidyn.compiler.backends import explicit
from minidyn.compiler.functions import Function
from minidyn.compiler.types import B1, F8, I8, U8, Array, Constant, Fixed, Pointer, Tuple

side_by_side = False
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}


# -- what operations mean -----------------------------------------------------------------------------------


def _one_rounding(context, a, b, c):
    def code(target, builder, signature, args):
        return builder.fma(*args)

    return nbt.float64(nbt.float64, nbt.float64, nbt.float64), code


_fma: Any = intrinsic(_one_rounding)


def _cast(have, want):
    @intrinsic
    def cast(context, x):
        def code(target, builder, signature, args):
            return builder.bitcast(args[0], target.get_value_type(want))

        return want(have), code

    return cast


_CASTS = {pair: _cast(*pair) for pair in ((nbt.float64, nbt.uint64), (nbt.uint64, nbt.float64))}


def _muladd(a, b, c):
    return a * b + c


def _mulsub(a, b, c):
    return a * b - c


def _submul(c, a, b):
    return c - a * b


def _view(x, t):
    """The bits of x as a number of type t."""


def _fuses(a, b, c):
    """Whether `a*b + c` is a number with a point."""
    kinds: list[Any] = [nbt.unliteral(t) for t in (a, b, c)]
    signed = all(k == nbt.float64 or getattr(k, "signed", False) for k in kinds)
    return signed and nbt.float64 in kinds[:2]


@overload(_muladd)
def _(a, b, c):
    return (lambda a, b, c: _fma(float(a), float(b), float(c))) if _fuses(a, b, c) else _muladd


@overload(_mulsub)
def _(a, b, c):
    return (lambda a, b, c: _fma(float(a), float(b), -float(c))) if _fuses(a, b, c) else _mulsub


@overload(_submul)
def _(c, a, b):
    return (lambda c, a, b: _fma(-float(a), float(b), float(c))) if _fuses(a, b, c) else _submul


@overload(_view)
def _(x, t):
    if not isinstance(t, nbt.NumberClass):
        return None
    want, have = t.instance_type, nbt.unliteral(x)
    cast = _CASTS.get((have, want))
    if want == have:
        return lambda x, t: x
    return (lambda x, t: cast(x)) if cast else None


@overload(intrinsics.some)
def _(condition):
    return lambda condition: bool(condition)


# what numba does not know of `math`
_fmod: Any = nbt.ExternalFunction("fmod", nbt.float64(nbt.float64, nbt.float64))
_cbrt: Any = nbt.ExternalFunction("cbrt", nbt.float64(nbt.float64))


@overload(math.fmod)
def _(a, b):
    return lambda a, b: _fmod(float(a), float(b))


@overload(math.cbrt)
def _(a):
    return lambda a: _cbrt(float(a))


_plain = nb.njit(**_OPTIONS)
_HELPERS = {
    "muladd_": _muladd,
    "mulsub_": _mulsub,
    "submul_": _submul,
    "view_": _view,
    "divide_": _plain(lambda a, b: a / b),
    "power_": _plain(lambda a, b: math.pow(a, b)),
    **{name: _plain(meaning) for name, meaning in explicit.PLAIN.items()},
}
_across = _plain(intrinsics.across)


# -- functions --------------------------------------------------------------------------------------------------


class FunctionType(nbt.Callable, nbt.Dummy):
    """The type of one function, known while compiling. numba's own type for that is an address: it refuses to keep
    code that was given one."""

    def __init__(self, function):
        self.like = nbt.Dispatcher(dispatcher(function))
        super().__init__(f"minidyn({self.like.dispatcher.py_func.__qualname__}, {id(function)})")

    def get_call_type(self, context, args, kws):
        """The signature of a call with these argument types, for which the function is compiled if it is not yet."""
        return self.like.get_call_type(context, args, kws)

    def get_call_signatures(self):
        """The signatures compiled so far, and True: others may follow."""
        return self.like.get_call_signatures()

    def get_impl_key(self, sig):
        """The key under which numba finds the code for a signature: the dispatcher's own."""
        return self.like.get_impl_key(sig)


type_of = cache(FunctionType)
register_model(FunctionType)(models.OpaqueModel)


@lower_constant(FunctionType)
def _(context, builder, type_, value):
    return context.get_dummy_value()


@cache
def dispatcher(function: Any) -> Any:
    """A compiled function as one of numba's."""
    return nb.njit(explicit.made(function, _HELPERS, lambda v: _across if v is intrinsics.across else v), **_OPTIONS)


typeof_impl.register(Function)(lambda function, context: type_of(function))


# -- the back end -----------------------------------------------------------------------------------------------


def entry(function: Any, types: tuple[Any, ...]) -> Callable[..., Any]:
    """A callable for arguments of these types."""
    made = nb.njit(_entry_text(function, types), **_OPTIONS)
    made._cache = _Kept(function.hash(types))
    arrays = [i for i, t in enumerate(types) if isinstance(t, Array)]
    kept = [(i, take) for i, take in enumerate(map(_taker, types)) if take is not None]

    def entry(*args: Any) -> Any:
        for i in arrays:
            explicit.check(args[i])
        return made(*(take(args[i]) for i, take in kept))

    return entry


def _taker(type_: Any) -> Callable[[Any], Any] | None:
    """What is passed of an argument; None where nothing is."""
    if isinstance(type_, Tuple):
        takers = [_taker(t) for t in type_.items]
        kept = [(i, take) for i, take in enumerate(takers) if take is not None]
        return (lambda a: tuple(take(a[i]) for i, take in kept)) if kept else None
    return None if isinstance(type_, Fixed) else lambda a: a


class _Kept(NullCache):
    """numba's compiled functions among minidyn's own: its own cache runs what it finds, damaged or not."""

    def __init__(self, key: str):
        self.key = key

    def load_overload(self, sig, target_context):
        found = disk.read_code(self._name(sig))
        if found is not None:
            target_context.refresh()
            return CompileResult._rebuild(target_context, *pickle.loads(found[1]))

    def save_overload(self, sig, cres):
        if not cres.library.has_dynamic_globals:
            disk.write_code(self._name(sig), "numba", dumps(cres._reduce()))

    def _name(self, sig):
        return hashlib.sha256(f"{self.key} {nb.__version__} {sig}".encode()).hexdigest()[:40]


def _entry_text(function: Any, types: tuple[Any, ...]) -> Any:
    """A plain function that calls this one; what is known while compiling stands in its text, or in its module."""
    space: dict[str, Any] = {"call": function}

    def written(type_: Any, name: str) -> str:
        if isinstance(type_, Constant):
            return str(type_.value)
        if _taker(type_) is None:  # a function, or several
            key = f"function{len(space)}"
            space[key] = _known(type_)
            return key
        if isinstance(type_, Tuple):
            at = 0
            parts = []
            for t in type_.items:
                parts.append(written(t, f"{name}[{at}]") + ", ")
                at += _taker(t) is not None
            return f"({''.join(parts)})"
        return name

    passed = ", ".join(written(t, f"a{i}") for i, t in enumerate(types))
    given = ", ".join(f"a{i}" for i, t in enumerate(types) if _taker(t) is not None)
    kinds = ", ".join(t.name for t in types)
    module = disk.load_module(f'''"""{function.identity} for ({kinds}): compiled and kept by numba.

{function.hash(types)}
"""


def entry({given}):
    return call({passed})
''')
    module.__dict__.update(space)
    return module.entry


def _known(type_: Any) -> Any:
    """What stands for an argument that is known while compiling."""
    if isinstance(type_, Tuple):
        return tuple(map(_known, type_.items))
    return type_.value


def address(function: Any, signature: Pointer) -> None:
    """Nothing: code is compiled for the function itself."""


def assembly(function: Any, types: tuple[Any, ...]) -> str:
    """The processor's assembly."""
    made = nb.njit(_entry_text(function, types), **_OPTIONS)  # numba shows nothing of what its cache keeps
    made.compile(tuple(kind(t) for t in types if _taker(t) is not None))
    (text,) = made.inspect_asm().values()
    return str(text)


_KINDS = {F8: nbt.float64, I8: nbt.int64, U8: nbt.uint64, B1: nbt.boolean}


def kind(type_: Any) -> Any:
    """A type of minidyn's compiler, as numba calls it."""
    if isinstance(type_, Array):
        return nbt.Array(_KINDS[type_.item], type_.ndim, "C")
    if isinstance(type_, Tuple):
        return nbt.BaseTuple.from_types([kind(t) for t in type_.items if _taker(t) is not None])
    return _KINDS[type_]
