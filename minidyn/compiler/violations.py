"""Checked mode: with `MINIDYN_CHECKED=1` kernels note what they must not do, and the call from Python raises it."""

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from minidyn.compiler.settings import setting


class Violation(RuntimeError):
    """A kernel did what it must not: a mistake in minidyn, not in what a user gave."""


@cache
def checked() -> bool:
    """Whether kernels are compiled with checks: MINIDYN_CHECKED."""
    return setting("MINIDYN_CHECKED", ("0", "1"), "whether kernels look before they touch memory") == "1"


_noted = threading.local()


@ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
def _note(text: bytes, a: int, b: int) -> None:
    """Keep a thread's first note; machine code calls this."""
    if getattr(_noted, "first", None) is None:
        _noted.first = text.decode().replace("#a", str(a)).replace("#b", str(b))


NOTE = ctypes.cast(_note, ctypes.c_void_p).value


def raising(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call of machine code that raises what is noted meanwhile."""

    def checked_call(*args: Any) -> Any:
        result = call(*args)
        first = getattr(_noted, "first", None)
        if first is not None:
            _noted.first = None
            raise Violation(first)
        return result

    return checked_call
