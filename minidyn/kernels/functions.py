"""Scalar functions that generated kernels call beside those of the C library.

Each is free of branches and keeps its relative accuracy over the whole range of doubles.
"""

from __future__ import annotations

import math

from minidyn.compiler import jit

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_LOG2 = math.log(2.0)


@jit
def logistic(x):
    """`1 / (1 + exp(-x))` without overflow."""
    e = math.exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


@jit
def logistic_slope(x):
    """`exp(x) / (1 + exp(x))**2`, the derivative of the logistic function."""
    e = math.exp(-abs(x))
    return e / ((1.0 + e) * (1.0 + e))


@jit
def asin_slope(x):
    """`1 / sqrt(1 - x**2)`, accurate near -1 and 1."""
    return 1.0 / math.sqrt((1.0 - x) * (1.0 + x))


@jit
def softplus(x):
    """`log(1 + exp(x))` without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@jit
def logcosh(x):
    """`log(cosh(x))`, accurate near zero and for large arguments."""
    a = abs(x)
    if a < 1.0:
        s = math.sinh(0.5 * a)
        return math.log1p(2.0 * s * s)
    return a - _LOG2 + math.log1p(math.exp(-2.0 * a))


@jit
def sech(x):
    """`1 / cosh(x)` without overflow."""
    e = math.exp(-abs(x))
    return 2.0 * e / (1.0 + e * e)


@jit
def sign(x):
    """-1, 0 or 1; NaN stays NaN."""
    return x if math.isnan(x) else (1.0 if x > 0.0 else (-1.0 if x < 0.0 else 0.0))


@jit
def heaviside(x):
    """0 for x < 0, 1 for x > 0, 1/2 at 0; NaN stays NaN."""
    return x if math.isnan(x) else (1.0 if x > 0.0 else (0.0 if x < 0.0 else 0.5))


@jit
def minimum(a, b):
    """The smaller of two numbers; NaN if either is NaN."""
    return a + b if (math.isnan(a) or math.isnan(b)) else (a if a <= b else b)


@jit
def maximum(a, b):
    """The larger of two numbers; NaN if either is NaN."""
    return a + b if (math.isnan(a) or math.isnan(b)) else (a if a >= b else b)
