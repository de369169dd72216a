"""Inverse functions of the hyperbolic and the reciprocal ones, and the cube root; slopes that keep their digits.

Near 1, where `1/x` has lost the digits that these functions turn on, they go by `x^2 - 1`, taken in one rounding.
"""

import math

from minidyn.kernels.vectormath.circle import acos, asin, atan
from minidyn.kernels.vectormath.exponential import exp, inline
from minidyn.kernels.vectormath.logarithm import combine, log, split

_INF, _NAN = math.inf, math.nan
_LOG2 = 0.6931471805599453
_PI, _HALF_PI = math.pi, 0.5 * math.pi
_HUGE, _SMALL = 1e150, 1e-150  # squares beyond are no doubles
_THIRD = 1 / 3
_LEAST, _UP, _DOWN = 1e-200, 2.0**162, 2.0**-54


@inline
def log1p_sum(x, low):
    """log(1 + x + low) for finite x > -1 and a low beyond the last digit of x."""
    u = 1.0 + x
    lost = 1.0 - (u - x) if x > 1.0 else x - (u - 1.0)
    e, m = split(u)
    return combine(e, m - 1.0, (lost + low) / u)


@inline
def asinh(x):
    """The inverse hyperbolic sine, `log(1 + a + a^2/(1 + sqrt(1 + a^2)))`, a = |x|."""
    a = abs(x)
    inner = min(a, _HUGE)
    more = inner * inner / (1.0 + math.sqrt(inner * inner + 1.0))
    t = inner + more
    big = t - (inner if inner > more else more)
    y = log1p_sum(t, (more if inner > more else inner) - big)
    y = y if a < _HUGE else log(a) + _LOG2
    return x if (a < 1e-9) | (x != x) else math.copysign(y, x)


@inline
def asinh_slope(x):
    """`1 / sqrt(1 + x**2)`"""
    a = abs(x)
    return 1.0 / (math.sqrt(x * x + 1.0) if a < _HUGE else a)


@inline
def acosh(x):
    """The inverse hyperbolic cosine, `log(x + sqrt(x^2 - 1))`; NaN below 1."""
    inner = min(max(x, 1.0), _HUGE)
    root = math.sqrt(inner * inner - 1.0)
    less = inner - 1.0
    t = less + root
    y = log1p_sum(t, less - (t - root))
    y = y if x < _HUGE else log(x) + _LOG2
    return y if x >= 1.0 else _NAN


@inline
def acosh_slope(x):
    """`1 / sqrt(x**2 - 1)`; NaN below 1."""
    y = 1.0 / (math.sqrt(x * x - 1.0) if x < _HUGE else x)
    return y if x >= 1.0 else _NAN


@inline
def atanh(x):
    """The inverse hyperbolic tangent, `log(1 + 2 a/(1 - a))/2`, a = |x|; NaN outside [-1, 1]."""
    a = abs(x)
    inner = a if a < 1.0 else 0.0
    below = 1.0 - inner
    q = (inner + inner) / below
    rest = ((inner + inner) - q * below) - q * ((1.0 - below) - inner)
    y = 0.5 * log1p_sum(q, rest / below)
    y = _INF if a == 1.0 else y
    y = y if a <= 1.0 else _NAN
    return x if (a < 1e-9) | (x != x) else math.copysign(y, x)


@inline
def atanh_slope(x):
    """`1 / (1 - x**2)`; NaN outside [-1, 1]."""
    y = 1.0 / ((1.0 - x) * (1.0 + x))
    return y if abs(x) <= 1.0 else _NAN


@inline
def acoth(x):
    """The inverse hyperbolic cotangent, `log(1 + 2/(a - 1))/2`, a = |x|; NaN inside (-1, 1)."""
    a = abs(x)
    inner = a if a > 1.0 else 2.0
    below = inner - 1.0
    q = 2.0 / below
    rest = (2.0 - q * below) - q * ((inner - below) - 1.0)
    y = 0.5 * log1p_sum(q, rest / below)
    y = _INF if a == 1.0 else y
    y = y if a >= 1.0 else _NAN
    return math.copysign(1.0 / a if a > 1e9 else y, x)


@inline
def acoth_slope(x):
    """`1 / (1 - x**2)`; NaN inside (-1, 1)."""
    y = (1.0 / (1.0 - x)) / (1.0 + x)
    return y if abs(x) >= 1.0 else _NAN


@inline
def asech(x):
    """The inverse of 1/cosh, `log(1 + (1 - x + sqrt(1 - x^2))/x)`; NaN outside [0, 1]."""
    inner = min(max(x, 1e-9), 1.0)
    root = math.sqrt(1.0 - inner * inner)
    less = 1.0 - inner
    t = less + root
    low = less - (t - root) if root > less else root - (t - less)
    low = low + ((1.0 - less) - inner)
    q = t / inner
    y = log1p_sum(q, ((t - q * inner) + low) / inner)
    y = y if x > 1e-9 else _LOG2 - log(x)
    return y if x <= 1.0 else _NAN


@inline
def acsch(x):
    """The inverse of 1/sinh."""
    a = abs(x)
    near = _LOG2 - log(a)
    far = asinh(1.0 / max(a, _SMALL))
    return math.copysign(far if a > _SMALL else near, x) if x == x else x


@inline
def acot(x):
    """The inverse cotangent `atan(1/x)`, pi/2 at 0."""
    return atan(1.0 / (x + 0.0))


@inline
def _tangent(a):
    """`sqrt(a^2 - 1)` for a from 1 to 2."""
    inner = min(max(a, 1.0), 2.0)
    return math.sqrt(inner * inner - 1.0)


@inline
def asec(x):
    """The inverse of 1/cos; NaN inside (-1, 1)."""
    a = abs(x)
    near = atan(_tangent(a))
    near = _PI - near if x < 0.0 else near
    y = near if a < 2.0 else acos(1.0 / x)
    return y if a >= 1.0 else _NAN


@inline
def acsc(x):
    """The inverse of 1/sin; NaN inside (-1, 1)."""
    a = abs(x)
    near = math.copysign(atan(1.0 / _tangent(a)), x)
    y = near if a < 2.0 else asin(1.0 / x)
    return y if a >= 1.0 else _NAN


@inline
def atan2(y, x):
    """The angle of the point (x, y), as C has it for zeros, infinities and NaN."""
    a = abs(x)
    b = abs(y)
    t = 1.0 if (a == b) & (a == _INF) else b / a
    t = 0.0 if (b == 0.0) & (a == 0.0) else t
    steep = _HALF_PI if (a == 0.0) & (b > 0.0) else atan(t)
    left = math.copysign(1.0, x) < 0.0
    return math.copysign(_PI - (steep - 1.2246467991473532e-16) if left else steep, y) if (y == y) & (x == x) else x + y


@inline
def cbrt(x):
    """The cube root, of negative numbers too: `exp(log(a)/3)`, corrected by what its cube lacks."""
    a = abs(x)
    tiny = a < _LEAST
    a = a * _UP if tiny else a
    y = exp(log(a) * _THIRD)
    square = y * y
    low = y * y - square
    y = y - ((square * y - a) + low * y) / (3.0 * square)
    y = y * _DOWN if tiny else y
    return math.copysign(y, x) if (abs(x) > 0.0) & (abs(x) < _INF) else x
