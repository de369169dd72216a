"""Kernels as function pointers, so that one compiled time loop serves every map and flow.

A loop that takes `field` as an argument of one of these types is compiled once per machine, not once
per model, and the generated kernel is compiled once, not again inside every loop.
"""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from minidyn.compiler import FunctionPointer, compiled, signature
from minidyn.compiler.types import Pointer, Tuple, parse

SIGNATURES = {  # kernels of losses, rules and noises; a flow adds those that it generates, where it does
    "grad": "void(f8[:], f8[:], f8[:,:], f8[:])",  # w, c, d, out
    "hvp": "void(f8[:], f8[:], f8[:], f8[:,:], f8[:])",  # w, u, c, d, out
    "third": "void(f8[:], f8[:], f8[:], f8[:], f8[:,:], f8[:])",  # w, u, v, c, d, out
    "hessian": "void(f8[:], f8[:], f8[:,:], f8[:,:])",  # w, c, d, out
    "third_trace": "void(f8[:], f8[:,:], f8[:], f8[:,:], f8[:])",  # w, cov, c, d, out
    "sigma": "void(f8[:], f8[:], f8[:,:], f8[:], f8[:,:])",  # w, c, d, nz, out
    "noise_factor": "void(f8[:], f8[:], f8[:,:], f8[:], f8[:])",  # w, c, d, nz, out
    "noise_q": "void(f8[:], f8[:], f8[:,:], f8[:], f8[:])",  # w, c, d, nz, out
    "noise_moments": "void(f8[:], f8[:], f8[:,:], f8[:], f8[:,:], f8[:,:])",  # w, c, d, nz, third, fourth
    "steps_skew": "void(f8[:], f8[:], f8[:], f8[:])",  # x, hp, kk, out
    "noise_dq": "void(f8[:], f8[:], f8[:], f8[:,:], f8[:], f8[:])",  # w, u, c, d, nz, out
    "noise_ddq": "void(f8[:], f8[:], f8[:], f8[:], f8[:,:], f8[:], f8[:])",  # w, u, v, c, d, nz, out
    # w, u, share, c, d, nz, first, second, labels
    "noise_bend": "void(f8[:], f8[:], f8, f8[:], f8[:,:], f8[:], f8[:,:], f8[:,:], f8[:,:])",
    "jets": "void(f8[:], f8[:], f8[:], f8[:], f8[:], f8[:], f8[:])",  # x, hp, kk, R, J, gain, sign_gain
    "curvatures": "void(f8[:], f8[:], f8[:], f8[:])",  # x, hp, kk, K
    "bends": "void(f8[:], f8[:], f8[:], f8[:])",  # x, hp, kk, C
    "tilts": "void(f8[:], f8[:], f8[:], f8[:])",  # x, hp, kk, T
    "steps": "void(f8[:], f8[:], f8[:], f8[:], f8[:], f8[:], f8[:])",  # x, hp, kk, R, J, gain, curve
}


def functions(*names: str) -> Tuple:
    """The type of a tuple of kernels with these names."""
    return Tuple(tuple(signature(SIGNATURES[n]) for n in names))


def flow_signatures(names: tuple[str, ...]) -> dict[str, Pointer]:
    """Types of `field(fns, w, k, hp, c, d, nz, fp, b, f)`, `retract(fns, w, hp, c, d, nz, fp)`,
    `jacobian(fns, w, k, hp, c, d, nz, fp, J)` and `advance(fns, w, kept, k, end, rtol, atol, hp, c, d, nz, fp)`."""
    fns, (i8, f8, f1, f2) = functions(*names), map(parse, ("i8", "f8", "f8[:]", "f8[:,:]"))
    return {
        "field": Pointer(i8, (fns, f1, f8, f1, f1, f2, f1, f1, f1, f2)),
        "retract": Pointer(i8, (fns, f1, f1, f1, f2, f1, f1)),
        "jacobian": Pointer(i8, (fns, f1, f8, f1, f1, f2, f1, f1, f2)),
        "advance": Pointer(i8, (fns, f1, f1, f8, f8, f8, f8, f1, f1, f2, f1, f1)),
    }


@cache
def flow_pointer(function: Callable[..., Any], what: str, needs: tuple[str, ...]) -> FunctionPointer:
    """A flow's "field", "retract", ... by its address, compiled once for the kernels that it needs."""
    return compiled(function).pointer(flow_signatures(needs)[what])


def pointer(module: ModuleType, name: str) -> FunctionPointer:
    """The kernel `name` of a generated module, compiled for its signature; made once per module."""
    made = module.__dict__.setdefault("_pointers", {})
    if name not in made:
        made[name] = getattr(module, name).pointer(signature(SIGNATURES[name]))
    return made[name]
