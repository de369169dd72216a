"""Scalar functions that generated kernels call beside those of the C library.

Each is free of branches and keeps its relative accuracy over the whole range of doubles.
"""

import math
from functools import partial

from minidyn.compiler import jit
from minidyn.kernels.vectormath import exp, expm1, log, log1p, pow

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
def bose(x):
    """`1 / (exp(x) - 1)` without overflow."""
    e = exp(-abs(x))
    return (e if x > 0.0 else -1.0) / -expm1(-abs(x))


@inline
def csch(x):
    """`1 / sinh(x)` without overflow."""
    return math.copysign(2.0 * exp(-abs(x)) / -expm1(-2.0 * abs(x)), x)


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
def signed_pow(x, y):
    """`sign(x) |x|**y`"""
    return math.copysign(pow(abs(x), y), x)


@inline
def undefined(x):
    """NaN, whatever x."""
    return math.nan


@inline
def minimum(a, b):
    """The smaller of two numbers; NaN if either is NaN."""
    return a + b if (math.isnan(a) or math.isnan(b)) else (a if a <= b else b)


@inline
def maximum(a, b):
    """The larger of two numbers; NaN if either is NaN."""
    return a + b if (math.isnan(a) or math.isnan(b)) else (a if a >= b else b)


@inline
def _by_log(q, x):
    """`q log(x)`, 0 where q is 0."""
    return 0.0 if q == 0.0 else q * log(x)


@inline
def pow_slope(x, y, m, k):
    """`d^m/dx^m d^k/dy^k x**y`, k up to 4; at x = 0 its limit from above.

    It is `x**(y - m) q`, `q = sum_j k!/(k - j)! f_j log(x)^(k - j)` with the Taylor coefficients f
    of y(y - 1)...(y - m + 1).
    """
    f0, f1, f2, f3, f4 = 1.0, 0.0, 0.0, 0.0, 0.0
    for i in range(m):
        z = y - i
        f4, f3, f2, f1, f0 = f4 * z + f3, f3 * z + f2, f2 * z + f1, f1 * z + f0, f0 * z
    q = f0
    q = _by_log(q, x) + k * f1 if k > 0 else q
    q = _by_log(q, x) + k * (k - 1) * f2 if k > 1 else q
    q = _by_log(q, x) + k * (k - 1) * (k - 2) * f3 if k > 2 else q
    q = _by_log(q, x) + k * (k - 1) * (k - 2) * (k - 3) * f4 if k > 3 else q
    p = pow(x, y - m)
    return 0.0 if x == 0.0 and (p == 0.0 or q == 0.0) else p * q
