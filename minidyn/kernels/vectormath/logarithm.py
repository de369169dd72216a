"""Logarithms and powers.

`x = 2^e m` with `m` in [sqrt(1/2), sqrt(2)), and `log(m) = 2 atanh(s)` with `s = (m - 1)/(m + 1)`, an odd
polynomial. A power needs the logarithm to 66 bits: its first two terms are sums of two doubles.
"""

import math

import numpy as np

from minidyn.compiler import horner
from minidyn.kernels.vectormath.exponential import LOG2_HIGH, LOG2_LOW, expm1_series, inline, power_of_two

_U = np.uint64
_INF, _NAN = math.inf, math.nan
_SMALLEST = 2.2250738585072014e-308  # of the normal numbers
_TWO54 = 18014398509481984.0
_MANTISSA = _U(0x000FFFFFFFFFFFFF)
_ROOT_HALF = _U(0x3FE6A09E667F3BCD)  # the bits of sqrt(1/2)
_LIFT = _U(0x4000000000000000 - 0x3FE6A09E667F3BCD)  # makes the exponent of every number positive
_TWO52_BITS, _TWO52 = _U(0x4330000000000000), 4503599627370496.0
_THIRD, _THIRD_LOW = 0.3333333333333333, 1.850371707708594e-17


@inline
def split(x):
    """(e, m) with `x = 2^e m` for x > 0."""
    tiny = x < _SMALLEST
    x = x * _TWO54 if tiny else x
    offset = 1078.0 if tiny else 1024.0
    bits = np.float64(x).view(_U) + _LIFT
    e = _U((bits >> _U(52)) | _TWO52_BITS).view(np.float64) - _TWO52
    return e - offset, _U((bits & _MANTISSA) + _ROOT_HALF).view(np.float64)


@inline
def combine(e, f, low):
    """`log(2^e (1 + f)) + low`, low beyond the last digit of f."""
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = horner(w, (0.13268638369266825, 0.18181795547521137, 0.28571428570799784, 0.6666666666666666))
    odd = horner(w, (0.13088034850927555, 0.15386244737621665, 0.22222222392581045, 0.40000000000000885))
    series = z * (odd * z + even)
    half = 0.5 * f * f
    return e * LOG2_HIGH + (f - (half - (s * (half + series) + (e * LOG2_LOW + low))))


@inline
def log(x):
    """The natural logarithm."""
    e, m = split(x)
    y = combine(e, m - 1.0, 0.0)
    y = y if x < _INF else x
    y = _NAN if x < 0.0 else y
    return -_INF if x == 0.0 else y


@inline
def log1p(x):
    """`log(1 + x)`: what `1 + x` loses by rounding is added to first order."""
    u = 1.0 + x
    lost = 1.0 - (u - x) if x > 1.0 else x - (u - 1.0)
    e, m = split(u)
    y = combine(e, m - 1.0, lost / u)
    y = y if x < _INF else x
    y = _NAN if x < -1.0 else y
    y = -_INF if x == -1.0 else y
    return x if x == 0.0 else y


@inline
def pow(x, y):
    """`x**y`, as C has it for zeros, infinities, negative x and NaN."""
    a = abs(x)
    e, m = split(a)
    f = m - 1.0
    # s + s_low = f/(2 + f)
    d = 2.0 + f
    d_low = f - (d - 2.0)
    inverse = 1.0 / d
    s = f * inverse
    s_low = ((f - s * d) - s * d_low) * inverse
    # z + z_low = s^2, and q + q_low = z/3 + 2/5 z^2...
    z = s * s
    z_low = (s * s - z) + 2.0 * s * s_low
    w = z * z
    even = horner(w, (0.11706126464563398, 0.1538459488700718, 0.22222222221652765, 0.4))
    odd = horner(w, (0.11724327060846747, 0.1333480879881234, 0.18181818336099848, 0.2857142857142937))
    rest = (0.5 * w) * (odd * z + even)
    third = z * _THIRD
    third_low = (z * _THIRD - third) + (z * _THIRD_LOW + z_low * _THIRD)
    q = third + rest
    q_low = (rest - (q - third)) + third_low
    # v + v_low = s q, the part of atanh(s) beyond s
    v = s * q
    v_low = (s * q - v) + (s * q_low + s_low * q)
    # l + l_low = e log 2 + 2 s + 2 v
    big = e * LOG2_HIGH
    two = 2.0 * s
    l1 = big + two
    back = l1 - big
    l1_low = (big - (l1 - back)) + (two - back)
    more = 2.0 * v
    l = l1 + more
    back = l - l1
    l_low = (l1 - (l - back)) + (more - back)
    l_low = l_low + (l1_low + (e * LOG2_LOW + 2.0 * (s_low + v_low)))
    big = l + l_low
    l_low = (l - big) + l_low
    # exp(y l)
    g = y * big
    g_low = (y * big - g) + y * l_low
    top = g > 1000.0
    bottom = g < -1000.0
    g_low = 0.0 if top else g_low
    g_low = 0.0 if bottom else g_low
    g = 1000.0 if top else g
    g = -1000.0 if bottom else g
    k, t1, t2 = power_of_two(g)
    high = g - k * LOG2_HIGH
    r = high - k * LOG2_LOW
    r_low = ((high - r) - k * LOG2_LOW) + g_low
    p = expm1_series(r, 0.0)
    out = ((1.0 + (p + (r_low * p + r_low))) * t2) * t1
    return _settle(x, y, a, out)


@inline
def _settle(x, y, a, out):
    """The sign of a power, and what it is at zeros, infinities and NaN."""
    size = abs(y)
    up = _INF if y > 0.0 else 0.0
    down = 0.0 if y > 0.0 else _INF
    out = up if a == _INF else out
    out = down if a == 0.0 else out
    out = 1.0 if (a == 1.0) & (size == _INF) else out
    whole = np.floor(size) == size
    half = 0.5 * size
    odd = whole & (np.floor(half) != half)
    signed = math.copysign(out, x)
    out = signed if odd else out
    out = out if whole | (x >= 0.0) | (a == _INF) | (a == 0.0) else _NAN
    out = out if x == x else x
    out = out if y == y else y
    return 1.0 if (x == 1.0) | (y == 0.0) else out
