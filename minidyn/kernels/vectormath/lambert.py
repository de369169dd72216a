"""The inverse of `w exp(w)`, Lambert's function, on its two real branches, and its slope.

Near the branch point a polynomial in `sqrt(2 (e x + 1))`; elsewhere a first guess and steps of Halley's method.
"""

import math

from minidyn.compiler import horner
from minidyn.kernels.vectormath.exponential import apart, exp, inline
from minidyn.kernels.vectormath.logarithm import log, log1p

_INVERSE_E, _INVERSE_E_LOW = 0.36787944117144233, -1.2428753672788363e-17
_AWAY = -0.22  # beyond this x, the upper branch is found by Halley's method
_HUGE = 1.7976931348623157e308


@inline
def from_branch_point(x):
    """`sqrt(2 (e x + 1))`, whose series in it both branches are at -1/e; zero at the double next to -1/e."""
    q = (x + _INVERSE_E) + _INVERSE_E_LOW
    return math.sqrt(2.0 * math.e * (0.0 if x == -_INVERSE_E else q))


@inline
def upper(x):
    """(w, w + 1) on the branch from the branch point to the right, w > -1."""
    p = from_branch_point(min(x, 0.0))
    near = p * horner(p, (
        -1.2145962588098145e-06, 1.2236272756844006e-05, -5.9364133899034895e-05, 0.00018753232839627943,
        -0.00044334730864230385, 0.0008615110988949677, -0.0014829101746088149, 0.0023988090280857434,
        -0.0037966999203071427, 0.006010669254770154, -0.009616120633861315, 0.015635520305405017,
        -0.0259847033859554, 0.044502314031959554, -0.07962962959701111, 0.15277777777705792, -0.333333333333327,
        1.0))  # fmt: skip
    l = log1p(min(max(x, _AWAY), _HUGE))
    w = l * (1.0 - log1p(l) / (2.0 + l))
    for _ in range(2):
        t = 1.0 + w
        step = w * (1.0 - x * exp(-w) / w) / t
        w = w - step / (1.0 - step * (w + 2.0) / (2.0 * t))
    w = x if (abs(x) < 1e-17) | (x == math.inf) else w
    inside = x < _AWAY
    return near - 1.0 if inside else w, near if inside else 1.0 + w


@inline
def lower(x):
    """(w, w + 1) on the branch from the branch point to 0 from below, w < -1; far away from `w + log(-w) = log(-x)`."""
    p = -from_branch_point(x)
    near = p * horner(p, (
        -0.03394082838415671, -0.23036902050517624, -0.7394378419319311, -1.4784114756321824, -2.055957551438793,
        -2.1040555634252525, -1.639051863888514, -0.9900895899850648, -0.4707039935706031, -0.17501945088488527,
        -0.05364424859417804, -0.009671206115578588, -0.006008703198200973, 0.005707789909683076,
        -0.0096492036222842, 0.01563313433538003, -0.025984851216908304, 0.044502309851680306, -0.07962962974012304,
        0.15277777777647664, -0.3333333333333394, 1.0))  # fmt: skip
    l = log(-x)
    u = math.sqrt(max(-2.0 - 2.0 * l, 0.0))
    t = (u - 5.0) / (u + 5.0)
    f = horner(t, (-0.0009023215971053227, 0.003937887041907212, -0.005240235818003043, 0.017063210292735366,
                   -0.04220398804840616, 0.10485345544210686, 0.048290856473765055, 0.8737470149449275))  # fmt: skip
    w = -1.0 - f * (u + 0.5 * u * u)
    step = (w + log(-w) - l) * w / (1.0 + w)
    w = w - step / (1.0 + 0.5 * step / (w * (1.0 + w)))
    w = -math.inf if x == 0.0 else w
    inside = not p <= -0.75  # where x is too small, p and what follows from it are NaN
    return near - 1.0 if inside else w, near if inside else 1.0 + w


@inline
def branch(x, k):
    """(w, w + 1) on branch k = 0 or -1."""
    if k == 0:
        w, t = upper(x)
    else:
        w, t = lower(x)
    return w, t


@apart
def lambertw(x, k):
    """w with `w exp(w) = x`, at least -1 for k = 0, at most -1 for k = -1; NaN where there is none."""
    w, _ = branch(x, k)
    return w


@apart
def lambertw_plus(x, k):
    """`1 + lambertw(x, k)`, with all digits near the branch point."""
    _, t = branch(x, k)
    return t


@apart
def lambertw_slope(x, k):
    """`exp(-w)/(1 + w)`, the derivative of `w = lambertw(x, k)`; `exp(-w) = w/x` where w is large."""
    w, t = branch(x, k)
    e = w / x if abs(w) > 1.0 else exp(-w)
    s = e / t
    end = 0.0 if k == 0 else math.nan
    s = end if x == math.inf else s
    return -math.inf if (x == 0.0) & (k != 0) else s
