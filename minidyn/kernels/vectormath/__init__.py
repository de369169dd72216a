"""Elementary functions without branches, within 2 ulp over the whole range of doubles.

They are plain arithmetic on numbers and on their bits, so LLVM works on 8 (or 4, or 2) arguments at once in
any loop, and every function has the same bits wherever it runs: alone, in a loop, inlined or not. `a*b + c`
is one rounding as the text says it (`fma=True`).
"""

from minidyn.kernels.vectormath.circle import acos, asin, atan, cos, sin, tan
from minidyn.kernels.vectormath.exponential import cosh, exp, expm1, sech, sinh, tanh
from minidyn.kernels.vectormath.gauss import erf
from minidyn.kernels.vectormath.logarithm import log, log1p, pow

__all__ = [
    "acos", "asin", "atan", "cos", "cosh", "erf", "exp", "expm1", "log", "log1p", "pow", "sech", "sin", "sinh", "tan",
    "tanh",
]  # fmt: skip
