"""Sine, cosine, tangent and their inverses.

An argument is `x = k pi/2 + r` with `|r| <= pi/4` and r a sum of two doubles that is right to its last digit for every
double x: `2 x/pi` is taken with as many binary digits of 2/pi as the exponent of x asks for, whole turns left out
(Payne and Hanek 1983). The digits are looked up, so that the largest arguments take the same way as the others.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidyn.compiler import horner
from minidyn.kernels.vectormath.exponential import WHOLE, inline

_U: Any = np.uint64
_I: Any = np.int64
_Q1, _Q2 = 1.5707963267948966, 6.123233995736766e-17  # pi/2
_TURN = _U(62)
_EXPONENT = _U(0x7FF)
_FIRST = 1046  # exponents (as in a double's bits) from 1054 on have rows of their own, eight to a row
_LARGE = 1566  # the exponent of 2^543: from here on, rows are for x/2^512, since their digits would underflow
_SMALLER, _TINY = 2.0**-512, 1e-8


def _digits() -> NDArray[np.float64]:
    """Row 0: 2/pi as four doubles. Row q > 0, for x = m 2^e with whole m: `2^e 2/pi` modulo 4, divided by 2^e."""
    unit = 1 << 1400

    def arctan_of_inverse(n: int) -> int:
        total, term, k = 0, unit // n, 0
        while term:
            total += (-term if k % 2 else term) // (2 * k + 1)
            term, k = term // (n * n), k + 1
        return total

    pi = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    digits = 2 * unit * unit // pi
    table = np.empty((126, 4))
    for row in range(126):
        e = 8 * row - 29 if row else 0
        rest = (digits << e if e > 0 else digits >> -e) % (4 * unit)
        for place in range(4):
            part = rest / unit
            mantissa, exponent = math.frexp(part)
            rest -= int(math.ldexp(mantissa, 53)) << (1400 + exponent - 53)
            table[row, place] = math.ldexp(part, (512 if row > 64 else 0) - e)
    return table


_TABLE = _digits()


@inline
def reduce(x):
    """(k, r, r_low): `x - k pi/2 = r + r_low`, k modulo 4 in the lowest bits."""
    exponent = _I((np.float64(x).view(_U) >> _U(52)) & _EXPONENT)
    row = (max(exponent, _FIRST) - _FIRST) >> 3
    x = x * _SMALLER if exponent >= _LARGE else x
    # h + a + g + b + ... = 2 x/pi, modulo 4
    h = x * _TABLE[row, 0]
    a = x * _TABLE[row, 0] - h
    g = x * _TABLE[row, 1]
    b = x * _TABLE[row, 1] - g
    q = x * _TABLE[row, 2]
    rest = (x * _TABLE[row, 2] - q) + x * _TABLE[row, 3]
    h = h - 4.0 * np.floor(0.25 * h + 0.5)
    h, a = two_sum(h, a)
    h, g = two_sum(h, g)
    shifted = h + WHOLE
    k = shifted - WHOLE
    a, g = two_sum(a, g)
    b, q = two_sum(b, q)
    a, b = two_sum(a, b)
    h, a = two_sum(h - k, a)
    rest = a + (rest + (g + q + b))
    y = h + rest
    y_low = (h - y) + rest
    r = y * _Q1
    return np.float64(shifted).view(_U), r, (y * _Q1 - r) + (y * _Q2 + y_low * _Q1)


@inline
def two_sum(a, b):
    """(s, e): `a + b = s + e`, s rounded."""
    s = a + b
    c = s - a
    return s, (a - (s - c)) + (b - c)


@inline
def sin_tail(r, z, low):
    """sin(r + low) - r, `z = r^2`."""
    p = horner(z, (-7.586455940017973e-13, 1.605852751943773e-10, -2.5052106206531682e-08, 2.755731921926441e-06,
                   -0.00019841269841264968, 0.008333333333333331, -0.16666666666666666))  # fmt: skip
    return (r * z) * p + low * (1.0 - 0.5 * z)


@inline
def cos_parts(r, z, low):
    """(w, tail): cos(r + low) = w + tail, `z = r^2`."""
    p = horner(z, (-1.1382280957702634e-11, 2.0876141380294955e-09, -2.7557317248229367e-07, 2.480158729872029e-05,
                   -0.0013888888888887367, 0.041666666666666664))  # fmt: skip
    half = 0.5 * z
    w = 1.0 - half
    return w, ((1.0 - w) - half) + ((z * z) * p - r * low)


@inline
def sin_cos(x, turns):
    """sin(x + turns pi/2)"""
    k, r, low = reduce(x)
    k = k + turns
    z = r * r
    s = r + sin_tail(r, z, low)
    w, tail = cos_parts(r, z, low)
    c = w + tail
    y = c if (k & _U(1)) != _U(0) else s
    return _U(np.float64(y).view(_U) ^ ((k & _U(2)) << _TURN)).view(np.float64)


@inline
def sin(x):
    """The sine."""
    y = sin_cos(x, _U(0))
    return x if abs(x) < _TINY else y


@inline
def cos(x):
    """The cosine."""
    return sin_cos(x, _U(1))


@inline
def tan(x):
    """The tangent: sine and cosine keep what their roundings lost, and the quotient is corrected by its remainder."""
    k, r, low = reduce(x)
    z = r * r
    tail = sin_tail(r, z, low)
    s = r + tail
    s_low = (r - s) + tail
    w, tail = cos_parts(r, z, low)
    c = w + tail
    c_low = (w - c) + tail
    odd = (k & _U(1)) != _U(0)
    top = c if odd else s
    top_low = c_low if odd else s_low
    bottom = -s if odd else c
    bottom_low = -s_low if odd else c_low
    inverse = 1.0 / bottom
    y = top * inverse
    y = y + ((top - y * bottom) + (top_low - y * bottom_low)) * inverse
    return x if abs(x) < _TINY else y


@inline
def atan(x):
    """The inverse tangent, `pi/4 + atan((a - 1)/(a + 1))` and `pi/2 - atan(1/a)` for middle and large a = |x|."""
    a = abs(x)
    small = a < 0.5
    large = a > 2.0
    top = a if small else a - 1.0
    bottom = 1.0 if small else a + 1.0
    top = -1.0 if large else top
    bottom = a if large else bottom
    base = 0.0 if small else 0.7853981633974483
    low = 0.0 if small else 3.061616997868383e-17
    base = _Q1 if large else base
    low = _Q2 if large else low
    t = top / bottom
    z = t * t
    p = horner(z, (0.007613918359757009, -0.021615749366764993, 0.033940271917102555, -0.0418148266227214,
                   0.047294724525530595, -0.05258634791542414, 0.058819032619705565, -0.06666635265281469,
                   0.07692306195645549, -0.09090909044503676, 0.1111111111024639, -0.14285714285705856,
                   0.19999999999999968, -0.3333333333333333))  # fmt: skip
    return math.copysign(base + (t + ((t * z) * p + low)), x)


@inline
def asin_parts(a):
    """(s, q): `asin(s) = s + q` with s = a below 1/2 and sqrt((1 - a)/2) above, where q also holds the root's error."""
    inside = a < 0.5
    square = a * a
    above = 0.5 - 0.5 * a
    z = square if inside else above
    root = math.sqrt(above if above > 0.0 else 0.0)
    s = a if inside else root
    lost = (above - root * root) / (2.0 * root + 1e-300)
    lost = 0.0 if inside else lost
    p = horner(z, (0.02963502626354855, -0.019277545928584557, 0.019579201619744684, 0.0030350071727267623,
                   0.009322101501082774, 0.00962140274734483, 0.011566511821890942, 0.013963775787848137,
                   0.017352816768546473, 0.022372157435623815, 0.030381944475693704, 0.04464285714255019,
                   0.07500000000000119, 0.16666666666666666))  # fmt: skip
    return s, (s * z) * p + lost


@inline
def asin(x):
    """The inverse sine, `pi/2 - 2 asin(sqrt((1 - |x|)/2))` beyond 1/2; NaN outside [-1, 1]."""
    a = abs(x)
    s, q = asin_parts(a)
    inner = s + q
    high = _Q1 - 2.0 * s
    low = (_Q1 - high) - 2.0 * s
    outer = high + (low + (_Q2 - 2.0 * q))
    y = inner if a < 0.5 else outer
    y = y if a <= 1.0 else np.nan
    return math.copysign(y, x)


@inline
def acos(x):
    """The inverse cosine; NaN outside [-1, 1]."""
    a = abs(x)
    s, q = asin_parts(a)
    left = x < 0.0
    middle_s = -s if left else s
    middle_q = -q if left else q
    middle = _Q1 - (middle_s - (_Q2 - middle_q))
    right = 2.0 * (s + q)
    outer = 2.0 * (_Q1 - (s - (_Q2 - q)))
    y = outer if left else right
    y = middle if a < 0.5 else y
    return y if a <= 1.0 else np.nan
