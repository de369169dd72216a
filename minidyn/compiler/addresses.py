"""Compiled functions by their address."""

import sys
from typing import Any

from minidyn.compiler.types import Pointer, Static


class FunctionPointer:
    """A compiled function by its address: code that takes it is compiled once, whatever the function."""

    __slots__ = ("address", "function", "key", "type")

    def __init__(self, function: Any, address: int | None, type_: Pointer):
        self.function, self.address = function, address
        # without addresses, code that takes it is compiled for the function itself
        self.type: Any = type_ if address is not None else Static(function)
        self.key: Any = sys.intern(type_.name) if address is not None else function

    def __call__(self, *args: Any) -> Any:
        """Call the function that the address stands for."""
        return self.function(*args)

    def __repr__(self) -> str:
        return f"pointer to {self.function!r}"
