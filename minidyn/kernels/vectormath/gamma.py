"""The gamma function, its logarithm and the derivatives of that.

Up to 12, `x = k + u` with k the nearest whole number, and `log(gamma(2 + u))/u` is a polynomial: gamma of a whole
number is exact. Beyond, Stirling's series. Poles are factors or terms of their own, so that digits are kept near them.
"""

import math

import numpy as np

from minidyn.compiler import horner, some
from minidyn.kernels.vectormath.circle import sin
from minidyn.kernels.vectormath.exponential import apart, exp, expm1_series, inline
from minidyn.kernels.vectormath.logarithm import log, log1p, pow

_FAR = 12.0  # from here on, Stirling's series with seven terms
_OVERFLOWS = 200.0  # gamma is infinite there, and 1/gamma below all doubles
_ROOT_TWO_PI = 2.5066282746310002
_HALF_LOG_TWO_PI, _LOG_PI = 0.9189385332046728, 1.1447298858494002
SHIFT = 10  # and one more for each derivative: where the series of polygamma are good to 1e-16
BERNOULLI = np.array([1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798])


@inline
def near_two(u):
    """`log(gamma(2 + u))` for |u| <= 1/2."""
    return u * horner(u, (
        -1.3219945666117874e-07, 2.78740805211359e-07, -4.3252393445604814e-07, 9.200527894968101e-07,
        -2.0439048107029907e-06, 4.38470440459836e-06, -9.438715099211532e-06, 2.0505590755833454e-05,
        -4.49263133791557e-05, 9.945767355819498e-05, -0.00022315475400520507, 0.0005096695154115458,
        -0.0011927539118428156, 0.002890510331034267, -0.0073855510286719986, 0.02058080842778038,
        -0.0673523010531981, 0.32246703342411326, 0.42278433509846713))  # fmt: skip


@inline
def stirling(x):
    """`log(gamma(x)) - (x - 1/2) log(x) + x - log(2 pi)/2` for x >= 12."""
    inverse = 1.0 / x
    z = inverse * inverse
    return inverse * horner(z, (0.00641025641025641, -0.0019175269175269176, 0.0008417508417508417,
                                -0.0005952380952380953, 0.0007936507936507937, -0.002777777777777778,
                                0.08333333333333333))  # fmt: skip


@inline
def factors(u, k):
    """(p, d): `gamma(k + u) = gamma(2 + u) p/d`, |k| <= 12."""
    p, d = 1.0, 1.0
    for j in range(2, 12):
        p *= j + u if j < k else 1.0
    for j in range(1, 13):
        d *= u - j if -j >= k else 1.0
    d *= 1.0 + u if k < 2.0 else 1.0
    return p, d * (u + 0.0 if k <= 0.0 else 1.0)  # from above at -0.0 too


@inline
def sin_turned(u, k):
    """`sin(pi (k + u))`, a whole k."""
    half = 0.5 * k
    s = sin(math.pi * u)
    return s if half == np.floor(half) else -s


@apart
def gamma(x):
    """The gamma function; NaN at negative whole numbers, infinite at zero."""
    a = abs(x)
    k = np.floor(x + 0.5)
    u = x - k
    out = x
    if some(a < _FAR):
        p, d = factors(u, k)
        out = exp(near_two(u)) * p / d
    if some(a >= _FAR):
        y = _OVERFLOWS if a > _OVERFLOWS else a
        root = pow(y, 0.5 * y - 0.25)
        rest = expm1_series(stirling(y), 0.0)
        e = exp(-y) * _ROOT_TWO_PI
        e = e + e * rest
        s = sin_turned(u, k) * a
        up = root * e * root
        down = math.pi / s / root / e / root
        far = up if x > 0.0 else down
        out = far if a >= _FAR else out
    return math.nan if (x < 0.0) & (x == k) else out


@apart
def _log_gamma(x):
    """`log(gamma(x))` for x > 0."""
    k = np.floor(x + 0.5)
    u = x - k
    out = x
    if some(x < _FAR):
        p, d = factors(u, k)
        above = log(p if k > 1.0 else d)
        below = log1p(u)
        step = below if k == 1.0 else above
        base = near_two(u)
        out = base + step if k > 1.0 else base - step
    if some(x >= _FAR):
        y = max(x, _FAR)
        far = (y - 0.5) * (log(y) - 1.0) + (stirling(y) + (_HALF_LOG_TWO_PI - 0.5))
        far = far if y < math.inf else y
        out = far if x >= _FAR else out
    return out


@apart
def loggamma(x):
    """`log(gamma(x))`; NaN for negative x, where it is complex."""
    y = _log_gamma(abs(x))
    return math.nan if x < 0.0 else y


@apart
def log_of_gamma(x):
    """`log(gamma(x))` wherever gamma is positive, between negative whole numbers too; NaN where it is not."""
    a = abs(x)
    y = _log_gamma(a)
    if some(x < 0.0):
        k = np.floor(x + 0.5)
        u = x - k
        half = 0.5 * np.floor(x)
        s = abs(sin(math.pi * u)) * a
        turned = _LOG_PI - log(s) - y
        turned = turned if (half == np.floor(half)) & (u != 0.0) else math.nan
        y = turned if x < 0.0 else y
    return y


@inline
def factorial(n):
    """`1 2 ... n`, a whole n."""
    out = 1.0
    for j in range(n):
        out *= j + 1.0
    return out


@apart
def tail_sum(x, n):
    """`sum_(j >= 0) n!/(x + j)^(n + 1)` for x > 0; for n = 0, where that is infinite, `-digamma(x)`.

    The first terms one by one, the rest by Euler and Maclaurin.
    """
    far = SHIFT + n
    y = x + far if x < far else x
    s = 0.0
    if some(x < far):
        for j in range(far):
            one = 1.0 / (x + j)
            term = one
            for _ in range(n):
                term *= one
            s += term
        s = s * factorial(n) if x < far else 0.0
    v = 1.0 / y
    z = v * v
    r = 0.0
    for i in range(9):
        k = 9 - i
        r = BERNOULLI[k - 1] + r * z * ((n + 2 * k) * (n + 2 * k + 1) / ((2.0 * k + 1.0) * (2.0 * k + 2.0)))
    r = 0.5 * v + 0.5 * (n + 1) * z * r
    if n == 0:
        r = r - log(y)
    else:
        r = r + 1.0 / n
        for j in range(n):
            r *= v * (j + 1.0)
    return s + r


@apart
def polygamma(x, n):
    """The n-th derivative of `digamma = gamma'/gamma`, a whole n >= 0.

    Between negative whole numbers, `x = r - m`, its terms on both sides of zero are summed; NaN at poles of two signs.
    """
    y = tail_sum(1.0 - x if x < 0.0 else x, n)
    odd = n % 2 == 1
    if some(x < 0.0):
        r = x - np.floor(x + 0.5)
        one = 1.0 / r
        pole = one
        for j in range(n):
            pole *= one * (j + 1.0)
        back = tail_sum(1.0 - r, n) - y
        turned = pole + tail_sum(1.0 + r, n) + (back if odd else -back)
        turned = math.nan if (r == 0.0) & (n % 2 == 0) else turned
        y = turned if x < 0.0 else y
    return y if odd else -y
