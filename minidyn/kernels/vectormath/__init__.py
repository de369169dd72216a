"""Elementary functions without branches, within 2 ulp (slope of tanh: 2.5, erfc: 3.5) over the whole range of doubles.

They are plain arithmetic on numbers and on their bits, so LLVM works on 8 (or 4, or 2) arguments at once in
any loop, and every function has the same bits wherever it runs: alone, in a loop, inlined or not. `a*b + c`
is one rounding as the text says it (`fma=True`).
"""

from functools import cache
from typing import Any

from minidyn.compiler.cache import load_module
from minidyn.kernels.vectormath.circle import acos, asin, atan, cos, sin, tan
from minidyn.kernels.vectormath.exponential import cosh, exp, expm1, sinh, tanh, tanh_slope
from minidyn.kernels.vectormath.gauss import erf, erf_slope, erfc
from minidyn.kernels.vectormath.inverse import (
    acosh,
    acosh_slope,
    acot,
    acoth,
    acoth_slope,
    acsc,
    acsch,
    asec,
    asech,
    asinh,
    asinh_slope,
    atan2,
    atanh,
    atanh_slope,
    cbrt,
)
from minidyn.kernels.vectormath.logarithm import log, log1p, pow

__all__ = [
    "acos", "acosh", "acosh_slope", "acot", "acoth", "acoth_slope", "acsc", "acsch", "asec", "asech", "asin", "asinh",
    "asinh_slope", "atan", "atan2", "atanh", "atanh_slope", "cbrt", "cos", "cosh", "elementwise", "erf", "erf_slope",
    "erfc", "exp", "expm1", "log", "log1p", "pow", "sin", "sinh", "tan", "tanh", "tanh_slope",
]  # fmt: skip


@cache
def elementwise(name: str) -> Any:
    """`f(x, out)`, for pow and atan2 `f(x, y, out)`, that applies one of these functions to every element.

    >>> import numpy as np
    >>> out = np.empty(3)
    >>> elementwise("exp")(np.array([0.0, 1.0, -np.inf]), out)
    >>> out
    array([1.        , 2.71828183, 0.        ])
    """
    args = "x, y" if name in ("pow", "atan2") else "x"
    given = ", ".join(f"{a}[i]" for a in args.split(", "))
    return load_module(f'''"""{name} of every element of an array."""

from minidyn.compiler import jit
from minidyn.kernels.vectormath import {name}


@jit(noalias=True, thorough=True)
def apply({args}, out):
    for i in range(out.shape[0]):
        out[i] = {name}({given})
''').apply
