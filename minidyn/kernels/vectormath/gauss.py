"""The error function, its complement and its slope."""

import math

from minidyn.compiler import horner
from minidyn.kernels.vectormath.exponential import exp, inline


@inline
def erf(x):
    """The error function: an odd polynomial below 1, `1 - exp(-a^2) q(a)` above, q in powers of (a - 3)/(a + 3)."""
    a = abs(x)
    a = 6.0 if a > 6.0 else a
    z = a * a
    p = horner(z, (-7.795898827002142e-10, 1.3720064546777686e-08, -1.6208483801871705e-07, 1.6447424703317362e-06,
                   -1.492473690741966e-05, 0.00012055294904839707, -0.0008548325975389692, 0.0052239776071164225,
                   -0.02686617064323777, 0.11283791670945006, -0.37612638903183543, 0.12837916709551256))  # fmt: skip
    inner = a * p + a
    t = (a - 3.0) / (a + 3.0)
    q = horner(t, (1.2788558712579627e-06, 2.022548566774174e-06, -8.007606751362244e-06, -1.2848453970975886e-05,
                   6.406177754203172e-05, 4.525465364626433e-05, -0.000597062350142508, 0.0007077464503100413,
                   0.004269136347500596, -0.02439249931851318, 0.07166583719774912, -0.1501159365007832,
                   0.24560380171233193, -0.3262335600430372, 0.17900115118138996))  # fmt: skip
    outer = 1.0 - exp(-z) * q
    return math.copysign(inner if a < 1.0 else outer, x)


@inline
def erfcx(a):
    """`exp(a^2) erfc(a) = q(a)/(1 + a)` for 0.46 <= a <= 28, q in powers of (a - 3)/(a + 3)."""
    t = (a - 3.0) / (a + 3.0)
    q = horner(t, (1.1667963536788335e-09, -2.6806113315612912e-09, -9.077336942511615e-09, 1.5892585064838032e-08,
                   5.392656764696079e-08, -4.766525473844148e-08, -2.959618270014859e-07, 6.181243703854497e-08,
                   1.5901496984594168e-06, 2.5998502128277584e-07, -8.990576584992767e-06, -1.5141278067308746e-06,
                   5.611949458589288e-05, -2.055166676225008e-05, -0.00036728849711401256, 0.000645814211253494,
                   0.0016185691285239088, -0.009750689293332556, 0.021957764012593087, -0.023803913108650397,
                   -0.010235388899006603, 0.09902075367943988, -0.23092733308380922, 0.7160046047255598))  # fmt: skip
    return q / (1.0 + a)


@inline
def erfc(x):
    """`1 - erf(x)` with all digits: `exp(-x^2) erfcx(x)` beyond 1/2."""
    a = min(max(x, 0.46), 28.0)
    z = a * a
    rest = a * a - z  # in one rounding
    e = exp(-z)
    outer = (e - e * rest) * erfcx(a)
    inner = 1.0 - erf(x)
    return inner if x < 0.5 else (outer if x >= 0.5 else x)


@inline
def erf_slope(x):
    """`2 exp(-x^2)/sqrt(pi)`, its exponent with the digits that a product loses."""
    z = x * x
    rest = x * x - z  # in one rounding
    e = exp(-z)
    return 0.0 if z > 800.0 else 1.1283791670955126 * (e - e * rest)
