"""A hash of what code does: its instructions and all that they load.

Neither docstrings and comments reach it, nor what local variables are called, nor where the text stands: machine code
is compiled again where it could become another one, and only there. Arithmetic on numbers of the text is Python's own
(`values.arithmetic`), as it is in bytecode, where only its result remains.
"""

import dis
import hashlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from minidyn.compiler import cache as disk
from minidyn.compiler.violations import checked

_CONSTANTS = frozenset(dis.hasconst)
_EXTENDED = dis.opmap["EXTENDED_ARG"]
_STORE = dis.opmap["STORE_NAME"]


@cache
def of_compiler() -> str:
    """A hash of the modules of the compiler, and of the Python that runs them.

    They are read as bytecode once for each text of theirs, and what was found is kept.
    """
    name = "minidyn.compiler"
    text = disk.code_version(name)
    kept = disk.read_code(text, ".key")
    if kept is not None:
        return kept[0]
    digest = hashlib.sha256(sys.version.encode())
    for code in _modules(name, sys.modules[name].__path__):
        digest.update(of_code(code))
    made = digest.hexdigest()
    disk.write_code(text, made, b"", ".key")
    return made


def _modules(name: str, path: Iterable[str]) -> Iterator[CodeType]:
    """The bytecode of the modules of a package, in the order of their names; nothing is imported."""
    for found in sorted(pkgutil.iter_modules(path), key=lambda m: m.name):
        spec: Any = PathFinder.find_spec(f"{name}.{found.name}", list(path))
        yield spec.loader.get_code(spec.name)
        if found.ispkg:
            yield from _modules(spec.name, spec.submodule_search_locations)


@cache
def of_code(code: CodeType) -> bytes:
    """The hash of a piece of bytecode and of those inside it."""
    steps: list[str] = []
    extended = 0
    for op, arg in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        arg |= extended
        extended = arg << 8 if op == _EXTENDED else 0
        if op == _STORE and code.co_names[arg] == "__doc__":
            steps.pop()
        steps.append(f"{op} {_constant(code.co_consts[arg]) if op in _CONSTANTS else arg}")
    kinds = code.co_argcount, code.co_kwonlyargcount, code.co_nlocals, code.co_flags & 0xFF
    return hash_of(kinds, code.co_names, code.co_exceptiontable, " ".join(steps))


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return of_code(value).hex()
    if isinstance(value, (tuple, frozenset)):
        parts = [_constant(v) for v in value]
        return f"{type(value).__name__} {parts if isinstance(value, tuple) else sorted(parts)}"
    return repr(value)


def of_function(function: Any, inside: tuple[Any, ...] = ()) -> bytes:
    """The hash of a compiled function with its options, and of all functions, numbers and arrays that it names.

    inside : the functions that are being hashed; one that calls itself is refused elsewhere.
    """
    if function in inside:
        return b"itself"
    if function.meaning is None:
        code, found = function.py_func.__code__, function.py_func.__globals__
        named = [_thing(found[n], code.co_names, (*inside, function)) for n in code.co_names if n in found]
        place = (function.identity, code.co_firstlineno, _text(code.co_filename)) if checked() else ()  # in its notes
        function.meaning = hash_of(of_code(code), function.options, *named, *place)
    made: bytes = function.meaning
    return made


def _thing(value: Any, names: tuple[str, ...], inside: tuple[Any, ...]) -> Any:
    """What a name of the surrounding module stands for; `names` are those that may be asked of it."""
    if hasattr(value, "py_func") and hasattr(value, "identity"):
        return of_function(value, inside)
    if isinstance(value, (bool, int, float)):
        return repr(bool(value) if isinstance(value, bool) else int(value) if isinstance(value, int) else float(value))
    if isinstance(value, (np.ndarray, np.generic)):
        return hash_of(value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, tuple):
        return hash_of(*(_thing(v, names, inside) for v in value))
    if isinstance(value, (ModuleType, type)):
        asked = [n for n in names if n in vars(value)]
        rest = tuple(n for n in names if n not in asked)  # fewer each time: modules may know each other
        return hash_of(value.__name__, *(_thing(getattr(value, n), rest, inside) for n in asked))
    if hasattr(value, "function"):  # by its address
        return _thing(value.function, names, inside)
    return f"{type(value).__qualname__} {getattr(value, '__module__', '')} {getattr(value, '__name__', '')}"


@cache
def _text(filename: str) -> bytes:
    known = disk.sources.get(filename)
    return known.encode() if known else Path(filename).read_bytes()


def hash_of(*parts: Any) -> bytes:
    """The hash of hashes and texts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    return digest.digest()
