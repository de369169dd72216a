"""Bessel functions of whole order: J by three ways for small, middle and large arguments, I by two.

In the middle, Miller's backward recurrence from an order where the function is negligible, scaled by what the sum over
all orders is; far away Hankel's expansions, for J of the orders 0 and 1 and from there upwards.
"""

import math

from minidyn.compiler import horner, some
from minidyn.kernels.vectormath.circle import cos, sin
from minidyn.kernels.vectormath.exponential import apart, exp, inline

_NEAR = 2.0  # up to here the power series of J
_BIG, _SMALLER = 1e200, 1e-200
_CERTAIN = 1500.0  # I of any order up to 100 is infinite from there on


@inline
def power_over_factorial(h, m):
    """`h^m/m!`"""
    out = 1.0
    for j in range(m):
        out *= h / (j + 1.0)
    return out


@inline
def from_series(x, m):
    """J_m(x) for 0 <= x <= 2."""
    h = 0.5 * x
    s = 1.0
    for i in range(14):
        k = 14.0 - i
        s = 1.0 - s * (h * h) / (k * (k + m))
    return s * power_over_factorial(h, m)


@inline
def from_above(x, m, top):
    """J_m(x) by the recurrence from order 2 top downwards, for x >= 2; `J_0 + 2 J_2 + 2 J_4 + ... = 1`."""
    after, now, total, found = 0.0, 1.0, 0.0, 0.0
    for i in range(2 * top):
        k = 2 * top - i
        found = now if k == m else found
        total += now if k % 2 == 0 else 0.0
        after, now = now, (2.0 * k / x) * now - after
        s = _SMALLER if abs(now) > _BIG else 1.0
        after, now, total, found = after * s, now * s, total * s, found * s
    return (now if m == 0 else found) / (now + 2.0 * total)


@inline
def from_far(x, m):
    """J_m(x) for x >= 25 and x >= m."""
    v = 1.0 / x
    z = v * v
    s = sin(x)
    c = cos(x)
    p = horner(z, (
        6252951.493434797, -118838.42625678325, 3038.090510922384, -110.01714026924674, 6.074042001273483,
        -0.5725014209747314, 0.112152099609375, -0.0703125, 1.0))  # fmt: skip
    q = horner(z, (
        -50069589.531988926, 832859.3040162893, -18257.755474293175, 551.3358961220206, -24.380529699556064,
        1.7277275025844574, -0.22710800170898438, 0.0732421875, -0.125))  # fmt: skip
    now = p * (s + c) - q * v * (s - c)
    p = horner(z, (
        -6656367.718817688, 127641.2726461746, -3302.2722944808525, 121.59789187653587, -6.883914268109947,
        0.6765925884246826, -0.144195556640625, 0.1171875, 1.0))  # fmt: skip
    q = horner(z, (
        53104110.10968523, -890297.8767070678, 19718.37591223663, -603.8440767050702, 27.248827311268542,
        -1.993531733751297, 0.2775764465332031, -0.1025390625, 0.375))  # fmt: skip
    after = p * (s - c) + q * v * (s + c)
    for k in range(m):
        now, after = after, (2.0 * (k + 1.0) / x) * after - now
    return now / math.sqrt(math.pi * x)


@apart
def besselj(x, m):
    """J_m(x), a whole m >= 0; 0 at infinity."""
    a = abs(x)
    limit = max(25, m)
    out = x
    if some(a < _NEAR):
        out = from_series(min(a, _NEAR), m)
    if some((a >= _NEAR) & (a < limit)):
        middle = from_above(min(max(a, _NEAR), float(limit)), m, (6 * limit) // 10 + 20)
        out = middle if a >= _NEAR else out
    if some(a >= limit):
        far = from_far(max(a, float(limit)), m)
        out = far if a >= limit else out
        out = 0.0 if a == math.inf else out
    return -out if (m % 2 == 1) & (x < 0.0) else out


@inline
def by_ratios(x, m, top):
    """I_m(x) from `I_k/I_(k - 1) = x/(2 k + x I_(k + 1)/I_k)` for orders up to `top`; `I_0 + 2 I_1 + ... = exp(x)`."""
    r, s, p = 0.0, 0.0, 1.0
    for i in range(top):
        k = top - i
        r = x / (2.0 * k + x * r)
        s = r + r * s
        p *= r if k <= m else 1.0
    half = exp(0.5 * x)
    return half * (p / (1.0 + 2.0 * s)) * half


@inline
def i_from_far(x, m):
    """I_m(x) for x >= 30 + m^2/2."""
    v = 0.125 / x
    s = 1.0
    for i in range(26):
        k = 26.0 - i
        s = 1.0 - s * v * ((2.0 * m - 2.0 * k + 1.0) * (2.0 * m + 2.0 * k - 1.0) / k)
    half = exp(0.5 * x)
    return half * (s / math.sqrt(2.0 * math.pi * x)) * half


@apart
def besseli(x, m):
    """I_m(x), a whole m >= 0."""
    a = abs(x)
    limit = min(30 + (m * m) // 2, 760)
    out = x
    if some(a < limit):
        out = by_ratios(min(a, float(limit)), m, m + int(math.sqrt(80.0 * limit)) + 16)
    if some(a >= limit):
        far = i_from_far(min(max(a, float(limit)), _CERTAIN), m)
        out = far if a >= limit else out
    return -out if (m % 2 == 1) & (x < 0.0) else out
