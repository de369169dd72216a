"""The exponential function and its hyperbolic relatives.

`exp(x) = 2^k (1 + p)` with `k` the whole number nearest to `x/log 2` and `p = expm1(x - k log 2)`, a polynomial.
The power of two is applied as two factors `s t`, so that results may be subnormal and the largest do not
overflow too early. tanh and its slope share nearly all: where a kernel needs both, LLVM computes it once.
"""

import math
from functools import partial

import numpy as np

from minidyn.compiler import horner, jit

inline = partial(jit, inline=True, fma=True)
apart = partial(jit, fma=True)  # for what is long: compiled once, and called
_U = np.uint64
WHOLE = 6755399441055744.0  # 1.5*2^52: added, it rounds to whole numbers that stand in the lowest bits
ONE = _U(0x3FF0000000000000)  # the bits of 1.0
TWO_ONES = _U(0x7FE0000000000000)  # twice as many: minus the bits of 2^n, those of 2^-n
PER_LOG2 = 1.4426950408889634
LOG2_HIGH = 0.693147180559663  # 42 bits, so that its product with k is exact
LOG2_LOW = 2.8235290563031577e-13
_LIMIT = 800.0  # beyond, exp is 0 or inf in any case
_CAP, _GONE = 708.0, 354.0  # up to there exp is finite


@inline
def expm1_series(r, low):
    """exp(r + low) - 1 for |r| <= log(2)/2; odd and even powers apart, so that they do not wait for each other."""
    z = r * r
    even = horner(z, (2.0911367871348534e-09, 2.7557282693108636e-07, 2.4801587317322748e-05, 0.0013888888888886517,
                      0.041666666666666664, 0.5))  # fmt: skip
    odd = horner(z, (2.5100569275813683e-08, 2.75572680728901e-06, 0.00019841269863303223, 0.008333333333330011,
                     0.16666666666666669))  # fmt: skip
    return r + (z * (odd * r + even) + (low * r + low))


@inline
def power_of_two(x):
    """(k, s, t): the whole number k nearest to x/log(2), and `2^k = s t`."""
    shifted = x * PER_LOG2 + WHOLE
    k = shifted - WHOLE
    half = k * 0.5 + WHOLE
    h = np.float64(half).view(_U)
    s = _U((h << _U(52)) + ONE).view(np.float64)
    return k, s, _U(((np.float64(shifted).view(_U) - h) << _U(52)) + ONE).view(np.float64)


@inline
def exp_parts(x):
    """(p, s, t) with `exp(x) = (1 + p) s t`; s and t are powers of two."""
    x = _LIMIT if x > _LIMIT else x
    x = -_LIMIT if x < -_LIMIT else x
    k, s, t = power_of_two(x)
    return expm1_series((x - k * LOG2_HIGH) - k * LOG2_LOW, 0.0), s, t


@inline
def exp(x):
    """The exponential function."""
    p, s, t = exp_parts(x)
    return ((1.0 + p) * t) * s


@inline
def expm1(x):
    """`exp(x) - 1`; what r lost by rounding is added to first order."""
    a = _LIMIT if x > _LIMIT else x
    a = -_LIMIT if a < -_LIMIT else a
    k, s, t = power_of_two(a)
    high = a - k * LOG2_HIGH
    r = high - k * LOG2_LOW
    lost = (high - r) - k * LOG2_LOW
    m = expm1_series(r, lost) * t + (t - _U(TWO_ONES - np.float64(s).view(_U)).view(np.float64))
    return math.copysign(m * s, x)


@inline
def cosh(x):
    """The hyperbolic cosine, `e + 1/(4 e)` with `e = exp|x|/2`."""
    p, s, t = exp_parts(abs(x))
    e = ((1.0 + p) * t) * (0.5 * s)
    return e + 0.25 / e


@inline
def rise_series(r):
    """(p, p_low): exp(r) - 1 for -log(2)/4 <= r <= 3/4 log(2), and what p lost by its last rounding."""
    z = r * r
    even = horner(z, (2.486228889024917e-08, 2.755737539112921e-06, 0.00019841269849170436, 0.00833333333333104,
                      0.16666666666666666))  # fmt: skip
    odd = horner(z, (2.390752391041752e-09, 2.7561183936960253e-07, 2.4801584476347785e-05, 0.0013888888889410829,
                     0.0416666666666664))  # fmt: skip
    tail = even * r + (odd * z + 0.5)
    p = z * tail + r
    return p, z * tail - (p - r)


@inline
def tanh_parts(x):
    """(m, d, 1/d): `m = exp(2|x|) - 1`, `d = m + 2`, both finite. k starts late, so that small m keep their digits."""
    v = 2.0 * abs(x)
    v = _CAP if v > _CAP else v
    shifted = (v * PER_LOG2 - 0.25) + WHOLE
    k = shifted - WHOLE
    s = _U((np.float64(shifted).view(_U) << _U(52)) + ONE).view(np.float64)
    p, _ = rise_series((v - k * LOG2_HIGH) - k * LOG2_LOW)
    d = p * s + (s + 1.0)
    return p * s + (s - 1.0), d, 1.0 / d


@inline
def tanh(x):
    """The hyperbolic tangent, `m/(m + 2)`; the quotient is corrected by its remainder, and by what d lost."""
    m, d, inverse = tanh_parts(x)
    y = m * inverse
    return math.copysign(y + ((m - y * d) - y * (m - (d - 2.0))) * inverse, x)


@inline
def tanh_slope(x):
    """`1 - tanh(x)^2 = 1/cosh(x)^2 = 4 i (1 - i)` with `i = 1/(exp(2|x|) + 1)`, to the last digits for all x.

    Zero from |x| = 354 on, where it is below 1e-306.
    """
    _, _, inverse = tanh_parts(x)
    four = 4.0 * inverse
    return 0.0 if abs(x) > _GONE else four - four * inverse


@inline
def sinh(x):
    """The hyperbolic sine, `((1 + p)^2 - (s t)^2)/(2 s t (1 + p))` with `exp|x| = (1 + p)/(s t)`, s, t powers of two.

    k starts late, so that p keeps its digits up to |x| = 1/2; the quotient is corrected by its remainder.
    """
    a = abs(x)
    a = _LIMIT if a > _LIMIT else a
    shifted = (a * PER_LOG2 - 0.25) + WHOLE
    k = shifted - WHOLE
    h = np.float64(k * 0.5 + WHOLE).view(_U)
    s = _U(ONE - (h << _U(52))).view(np.float64)
    t = _U(ONE - ((np.float64(shifted).view(_U) - h) << _U(52))).view(np.float64)
    p, low = rise_series((a - k * LOG2_HIGH) - k * LOG2_LOW)
    g = s * t
    top = (p + p) + (p * p + (low + low)) + (1.0 - g * g)
    d = p + 1.0
    inverse = 1.0 / d
    y = top * inverse
    y = ((top - y * d) - y * (p - (d - 1.0))) * inverse + y
    s = _U(TWO_ONES - np.float64(s).view(_U)).view(np.float64)
    t = _U(TWO_ONES - np.float64(t).view(_U)).view(np.float64)
    return math.copysign((y * t) * (0.5 * s), x)
