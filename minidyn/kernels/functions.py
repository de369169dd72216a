"""Scalar functions that generated kernels call beside those of the C library.

Each is free of branches and keeps its relative accuracy over the whole range of doubles.
"""

from __future__ import annotations

import math
from functools import partial

from minidyn.compiler import jit
from minidyn.kernels.vectormath import exp, expm1, log1p

__all__ = [
    "asin_slope", "heaviside", "logaddexp", "logcosh", "logistic", "logistic_slope", "maximum", "minimum", "sign",
    "softplus",
]  # fmt: skip

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

inline = partial(jit, inline=True)
_LOG2 = math.log(2.0)


@inline
def logistic(x):
    """`1 / (1 + exp(-x))` without overflow."""
    e = exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


@inline
def logistic_slope(x):
    """`exp(x) / (1 + exp(x))**2`, the derivative of the logistic function."""
    e = exp(-abs(x))
    return e / ((1.0 + e) * (1.0 + e))


@inline
def asin_slope(x):
    """`1 / sqrt(1 - x**2)`, accurate near -1 and 1."""
    return 1.0 / math.sqrt((1.0 - x) * (1.0 + x))


@inline
def softplus(x):
    """`log(1 + exp(x))` without overflow."""
    return max(x, 0.0) + log1p(exp(-abs(x)))


@inline
def logaddexp(a, b):
    """`log(exp(a) + exp(b))` without overflow."""
    return max(a, b) + log1p(exp(-abs(a - b)))


@inline
def logcosh(x):
    """`log(cosh(x))`, accurate near zero and for large arguments: `cosh(x) - 1 = m^2/(2 + 2 m)`, m = exp(-|x|) - 1."""
    a = abs(x)
    m = expm1(-a)
    e = 1.0 + m
    inside = a < 1.0
    square = m * m
    beyond = e * e
    shift = a - _LOG2
    y = log1p(square / (2.0 * e) if inside else beyond)
    return (0.0 if inside else shift) + y


@inline
def sign(x):
    """-1, 0 or 1; NaN stays NaN."""
    return x if math.isnan(x) else (1.0 if x > 0.0 else (-1.0 if x < 0.0 else 0.0))


@inline
def heaviside(x):
    """0 for x < 0, 1 for x > 0, 1/2 at 0; NaN stays NaN."""
    return x if math.isnan(x) else (1.0 if x > 0.0 else (0.0 if x < 0.0 else 0.5))


@inline
def minimum(a, b):
    """The smaller of two numbers; NaN if either is NaN."""
    return a + b if (math.isnan(a) or math.isnan(b)) else (a if a <= b else b)


@inline
def maximum(a, b):
    """The larger of two numbers; NaN if either is NaN."""
    return a + b if (math.isnan(a) or math.isnan(b)) else (a if a >= b else b)
