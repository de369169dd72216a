"""The inverses of the error function and of its complement, and their slopes.

A polynomial gives the middle. The tails come from a first guess and one step of Halley's method for
`y^2 - log(exp(y^2) erfc(y)) = -log(c)`, which neither underflows nor loses digits.
"""

import math

from minidyn.compiler import horner
from minidyn.kernels.vectormath.exponential import apart, exp, inline
from minidyn.kernels.vectormath.gauss import erfcx
from minidyn.kernels.vectormath.logarithm import log

_HALF_ROOT_PI = 0.886226925452758


@inline
def erfinv_middle(x):
    """`erfinv(x)` for |x| <= 1/2."""
    z = x * x
    return x * horner(z, (
        0.128044025909355, -0.11950957710237295, 0.1052110444868995, -0.013639519101338591, 0.03190777553388706,
        0.023225078131945263, 0.028232530425433375, 0.03166328869014091, 0.036467828640840666, 0.042836620982097964,
        0.051731285585278994, 0.0649596176602574, 0.08655212924276148, 0.12755617530558888, 0.23201366653465452,
        0.886226925452758))  # fmt: skip


@inline
def erfcinv_tail(c):
    """(y, erfcx(y)) with `erfc(y) = c` for 0 < c <= 1/2, from `y^2 - log(erfcx(y)) = -log(c)`."""
    l = log(min(c, 0.5))
    s = math.sqrt(-l)
    t = (s - 4.0) / (s + 4.0)
    y = s * horner(t, (
        -0.07663272456033966, 0.1476490193650598, -0.07562654269943324, -0.013859208452916934, 0.04017142776641616,
        -0.08139988518468144, 0.14946291703303657, -0.21049771283657032, 0.24929901366924273, -0.2564890312674193,
        0.18802325101613424, 0.9378396458958853))  # fmt: skip
    e = erfcx(y)
    d = 1.0 / (_HALF_ROOT_PI * e)  # the slope of the equation; its own slope is d (d - 2 y)
    step = (y * y - log(e) + l) / d
    y = y - step / (1.0 - step * (0.5 * d - y))
    return y, erfcx(y)


@inline
def rise(c, y, e):
    """`exp(y^2)` in the middle; `erfcx/erfc = e/c` in the tails, where nothing is squared."""
    tail = e / c if c > 0.0 else math.inf
    out = exp(y * y) if c >= 0.5 else tail
    return out if c >= 0.0 else math.nan


@apart
def erfinv(x):
    """y with `erf(y) = x`; infinite at -1 and 1, NaN beyond."""
    a = abs(x)
    y, _ = erfcinv_tail(1.0 - a)
    y = erfinv_middle(a) if a <= 0.5 else y
    y = y if a < 1.0 else math.inf
    return math.copysign(y, x) if a <= 1.0 else math.nan


@apart
def erfinv_slope(x):
    """`sqrt(pi)/2 exp(erfinv(x)^2)`, the derivative of erfinv: `sqrt(pi)/2 erfcx(y)/erfc(y)`."""
    c = 1.0 - abs(x)
    _, e = erfcinv_tail(c)
    y = erfinv_middle(x)
    return _HALF_ROOT_PI * rise(c, y, e)


@apart
def erfcinv(x):
    """y with `erfc(y) = x`; infinite at 0 and 2, NaN outside."""
    c = min(x, 2.0 - x)
    y, _ = erfcinv_tail(c)
    y = y if c > 0.0 else math.inf
    y = -y if x > 1.0 else y
    y = erfinv_middle(1.0 - x) if c >= 0.5 else y
    return y if c >= 0.0 else math.nan


@apart
def erfcinv_slope(x):
    """`-sqrt(pi)/2 exp(erfcinv(x)^2)`, the derivative of erfcinv."""
    c = min(x, 2.0 - x)
    _, e = erfcinv_tail(c)
    y = erfinv_middle(1.0 - x)
    return -_HALF_ROOT_PI * rise(c, y, e)
