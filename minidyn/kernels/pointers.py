"""Kernels as function pointers, so that one compiled time loop serves every map and flow.

A loop that takes `field` as an argument of one of these types is compiled once per machine, not once
per model, and the generated kernel is compiled once, not again inside every loop.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numba as nb
from numba import types

_F1 = types.Array(types.float64, 1, "C")
_F2 = types.Array(types.float64, 2, "C")
_I1 = types.Array(types.int64, 1, "C")
_U1 = types.Array(types.uint64, 1, "C")
_F, _I = types.float64, types.int64

SIGNATURES = {
    "draw": _I(_U1, _F1, _I1, _I1, _I, _I),  # r, z, index, order, k, n
    "step": _I(_F1, _F1, _I1, _I, _I, _F1, _F1, _F2, _F1, _F1),  # s, z, index, size, k, hp, c, d, nz, ok
    "field": _I(_F1, _F, _F1, _F1, _F2, _F1, _F1, _F1, _F2),  # w, k, hp, c, d, nz, fp, b, f
    "retract": _I(_F1, _F1, _F1, _F2, _F1, _F1),  # w, hp, c, d, nz, fp
}


def pointer(module: ModuleType, name: str) -> Any:
    """The kernel `name` of a generated module, compiled for its signature; made once per module."""
    made = module.__dict__.setdefault("_pointers", {})
    if name not in made:
        function = getattr(module, name)
        options = {"nopython": True, "error_model": "numpy"}
        made[name] = nb.cfunc(SIGNATURES[name], cache=True, **options)(getattr(function, "py_func", function))
    return made[name]
