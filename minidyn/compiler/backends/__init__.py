"""Back ends: what turns the functions of the package and of generated modules into something that runs.

`MINIDYN_COMPILER` names one of them, for the whole process:

    own     minidyn's compiler on LLVM (if nothing is said): compiles in a fraction of a second, lanes side by side
    numba   the same text through numba: the reference, and what the field knows
    python  the same text as ordinary Python: for a debugger, or to see what a kernel does, number by number

A back end is a module with

    side_by_side                 whether `lanes` are several turns at once
    entry(function, types)       a callable for arguments of these types
    address(function, signature) where machine code is that other code may call; None: it takes the function itself
    assembly(function, types)    what the function becomes, to read
"""

import importlib
from functools import cache
from typing import Any

from minidyn.compiler.settings import setting

NAMES = ("own", "numba", "python")


def name() -> str:
    """The name of the back end of this process."""
    return setting("MINIDYN_COMPILER", NAMES, "what compiles the kernels") or NAMES[0]


@cache
def chosen() -> Any:
    """The back end of this process."""
    return importlib.import_module(f"minidyn.compiler.backends.{name()}")
