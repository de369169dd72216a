"""What environment variables say about how kernels are compiled; read once, when first asked for."""

import os
from functools import cache

from minidyn.common.errors import InputError


@cache
def setting(name: str, allowed: tuple[str, ...], meaning: str) -> str:
    """The value of a variable, one of the allowed ones; empty where it is not set."""
    value = os.environ.get(name, "")
    if value and value not in allowed:
        *most, last = allowed
        listed = f"{', '.join(most)} or {last}" if most else last
        raise InputError(f"{name} is {value!r}; it must be {listed} ({meaning}), or not be set.")
    return value
