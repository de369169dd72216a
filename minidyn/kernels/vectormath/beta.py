"""Euler's beta function, binomials, and differences of polygamma functions without cancellation: their derivatives."""

import math

import numpy as np

from minidyn.compiler import some
from minidyn.kernels.vectormath.exponential import apart, exp, inline
from minidyn.kernels.vectormath.gamma import BERNOULLI, SHIFT, factorial, gamma, polygamma, sin_turned, stirling
from minidyn.kernels.vectormath.logarithm import log, log1p, pow

_FAR = 12.0


@inline
def _large(p, q):
    """`beta(p, q)/gamma(q)` for q <= 12 <= p, and `beta(p, q)` for 12 <= q <= p."""
    t = p + q
    shrink = (p - 0.5) * log1p(q / p)
    step = stirling(p) - stirling(t)
    one = pow(t, -q) * exp((q - shrink) + step)
    both = exp((q * log(q / t) - shrink) + (step + stirling(max(q, _FAR)))) * math.sqrt(2.0 * math.pi / q)
    return one, both


@apart
def _positive(a, b):
    """`beta(a, b)` for positive numbers."""
    p = max(a, b)
    q = min(a, b)
    top = gamma(q)
    out = gamma(p) * top / gamma(a + b)
    far = p >= _FAR
    if some(far):
        one, both = _large(max(p, _FAR), q)
        out = (both if q >= _FAR else one * top) if far else out
    return out


@inline
def sin_pi(x):
    """`sin(pi x)`"""
    k = np.floor(x + 0.5)
    return sin_turned(x - k, k)


@apart
def beta(a, b):
    """`gamma(a) gamma(b)/gamma(a + b)`, also where these are infinite; NaN where one of the two above is at a pole.

    A negative number x is reflected, `gamma(x) gamma(1 - x) = pi/sin(pi x)`, and so is the sum.
    """
    p = max(a, b)
    q = min(a, b)
    t = a + b
    first = 1.0 - t if (p > 0.0) & (t <= 0.0) else 1.0 - q
    first = first if q < 0.0 else q
    second = p if (t <= 0.0) | (q >= 0.0) else t
    second = second if (p > 0.0) | (q >= 0.0) else 1.0 - p
    out = _positive(first, second)
    if some(q < 0.0):
        rise = sin_pi(t)
        pole = sin_pi(q)
        below = math.pi / (pole * p * out)
        across = out * rise / pole
        both = math.pi * rise / (sin_pi(p) * pole * (1.0 - t) * out)
        turned = both if p < 0.0 else (across if t <= 0.0 else below)
        turned = math.inf if p == 0.0 else turned
        turned = math.nan if (q == np.floor(q)) | ((p < 0.0) & (p == np.floor(p))) else turned
        out = turned if q < 0.0 else out
    return out


@apart
def binomial(n, k):
    """`gamma(n + 1)/(gamma(k + 1) gamma(n - k + 1))`: 0 where k or n - k is a negative whole number, NaN where n is."""
    rest = n - k
    out = 1.0 / ((n + 1.0) * beta(rest + 1.0, k + 1.0))
    nothing = ((k < 0.0) & (k == np.floor(k))) | ((rest < 0.0) & (rest == np.floor(rest)))
    out = (n - n) + (k - k) if nothing else out
    return math.nan if (n < 0.0) & (n == np.floor(n)) else out


@inline
def _tail_gap(y, b, n):
    """`tail_sum(y, n) - tail_sum(y + b, n)` for y >= 10 + n: a divided difference of Euler's and Maclaurin's series."""
    u = 1.0 / y
    v = 1.0 / (y + b)
    f, d = 0.0, 0.0  # of the series so far: its value at u, and its slope from v to u
    for i in range(9):
        k = 9 - i
        ratio = (n + 2 * k) * (n + 2 * k + 1) / ((2.0 * k + 1.0) * (2.0 * k + 2.0))
        d = (d * (v * v) + f * (u + v)) * ratio
        f = BERNOULLI[k - 1] + f * (u * u) * ratio
    half = 0.5 * (n + 1)
    d = half * (d * (v * v) + f * (u + v)) + 0.5
    f = half * f * (u * u) + 0.5 * u
    width = (b * v) * u
    if n == 0:
        out = d * width + log1p(b * u)
    else:
        f = f + 1.0 / n
        for j in range(n):
            d = (d * v + f) * (j + 1.0)
            f = f * u * (j + 1.0)
        out = d * width
    return out


@inline
def _gap(a, b, n):
    """`tail_sum(a, n) - tail_sum(a + b, n)` for a > 0, b >= 0."""
    far = SHIFT + n
    near = a < far
    s = 0.0
    if some(near):
        for j in range(far):
            u = 1.0 / (a + j)
            v = 1.0 / (a + b + j)
            f, d = u, 1.0
            for _ in range(n):
                d = d * v + f
                f *= u
            s += d * ((b * v) * u)
        s = s * factorial(n) if near else 0.0
    return s + _tail_gap(a + far if near else a, b, n)


@apart
def polygamma_gap(a, b, n):
    """`polygamma(n, a + b) - polygamma(n, a)`; where both arguments are positive, with all digits for small b too."""
    t = a + b
    low = min(a, t)
    out = _gap(low, abs(b), n)
    out = -out if (b < 0.0) != (n % 2 == 1) else out
    if some(not low > 0.0):
        plain = polygamma(t, n) - polygamma(a, n)
        out = out if low > 0.0 else plain
    return out
