"""Kernels as function pointers, so that one compiled time loop serves every map and flow.

A loop that takes `field` as an argument of one of these types is compiled once per machine, not once
per model, and the generated kernel is compiled once, not again inside every loop.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numba as nb
from numba import types
from numba.core.errors import NumbaExperimentalFeatureWarning

warnings.filterwarnings("ignore", category=NumbaExperimentalFeatureWarning)

_F1 = types.Array(types.float64, 1, "C")
_F2 = types.Array(types.float64, 2, "C")
_I1 = types.Array(types.int64, 1, "C")
_U1 = types.Array(types.uint64, 1, "C")
_F, _I = types.float64, types.int64

SIGNATURES = {
    "draw": _I(_U1, _F1, _I1, _I1, _I, _I),  # r, z, index, order, k, n
    "step": _I(_F1, _F1, _I1, _I, _I, _F1, _F1, _F2, _F1, _F1),  # s, z, index, size, k, hp, c, d, nz, ok
    "grad": types.void(_F1, _F1, _F2, _F1),  # w, c, d, out
    "hessian": types.void(_F1, _F1, _F2, _F2),  # w, c, d, out
    "third_trace": types.void(_F1, _F2, _F1, _F2, _F1),  # w, cov, c, d, out
    "sigma": types.void(_F1, _F1, _F2, _F1, _F2),  # w, c, d, nz, out
    "noise_factor": types.void(_F1, _F1, _F2, _F1, _F1),  # w, c, d, nz, out
    "noise_q": types.void(_F1, _F1, _F2, _F1, _F1),  # w, c, d, nz, out
    "noise_dq": types.void(_F1, _F1, _F1, _F2, _F1, _F1),  # w, u, c, d, nz, out
    "noise_ddq": types.void(_F1, _F1, _F1, _F1, _F2, _F1, _F1),  # w, u, v, c, d, nz, out
    "jets": types.void(_F1, _F1, _F1, _F1, _F1, _F1, _F1, _F1),  # x, hp, kk, R, J, K, gain, sign_gain
    "chart_form": types.void(_F1, _F1, _F1, _F1, _F1, _F1),  # s, kk, hp, c, nz, out
    "chart_place": types.void(_F1, _F1, _F1, _F1),  # s, c, nz, out
    "speed": _F(_F, _F1),  # k, hp
}


def functions(*names: str) -> Any:
    """The type of a tuple of kernels with these names."""
    return types.Tuple(tuple(types.FunctionType(SIGNATURES[n]) for n in names))


def flow_signatures(names: tuple[str, ...]) -> dict[str, Any]:
    """Types of `field(fns, w, k, hp, c, d, nz, fp, b, f)` and `retract(fns, w, hp, c, d, nz, fp)`."""
    fns = functions(*names)
    return {
        "field": _I(fns, _F1, _F, _F1, _F1, _F2, _F1, _F1, _F1, _F2),
        "retract": _I(fns, _F1, _F1, _F1, _F2, _F1, _F1),
    }


_OPTIONS: dict[str, Any] = {"cache": True, "nopython": True, "error_model": "numpy"}
def loop_types(names: tuple[str, ...]) -> tuple[Any, tuple[Any, Any, Any]]:
    """The types that a time loop sees: of `draw`, and of a flow's `(field, retract, fns)`."""
    made = flow_signatures(names)
    flow = types.FunctionType(made["field"]), types.FunctionType(made["retract"]), functions(*names)
    return types.FunctionType(SIGNATURES["draw"]), flow


_compiled: dict[Any, Any] = {}


def compiled(function: Any, signature: Any) -> Any:
    """A function of the package as a pointer of this type; compiled once per machine."""
    key = (function, signature)
    if key not in _compiled:
        _compiled[key] = nb.cfunc(signature, **_OPTIONS)(function)
    return _compiled[key]


def pointer(module: ModuleType, name: str) -> Any:
    """The kernel `name` of a generated module, compiled for its signature; made once per module."""
    made = module.__dict__.setdefault("_pointers", {})
    if name not in made:
        function = getattr(module, name)
        made[name] = compiled(getattr(function, "py_func", function), SIGNATURES[name])
    return made[name]
