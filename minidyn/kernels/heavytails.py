"""Numbers of laws with heavy tails, each made of two words of 64 random bits."""

import math
from functools import partial

import numpy as np

from minidyn.compiler import jit
from minidyn.kernels.vectormath import cos, exp, expm1, log, pow, sin

inline = partial(jit, inline=True, fma=True)
_U = np.uint64
_STEP = 2.0**-53


@inline
def _inside(word):
    """A uniform number in (0, 1), on neither end."""
    return ((word >> _U(11)) + 0.5) * _STEP


@inline
def student(word, more, inverse, square):
    """`sqrt(square (u^(-2/df) - 1)) cos(2 pi v)`, u and v uniform: Student's law if `square` is df (Bailey 1994).

    inverse : 1/df.
    """
    half = -log(_inside(word)) * inverse
    return math.sqrt(square * -expm1(-2.0 * half)) * exp(half) * cos(2.0 * math.pi * _inside(more))


@inline
def stable(word, more, alpha):
    """The symmetric stable law `E exp(i u z) = exp(-|u|^alpha)` (Chambers, Mallows, Stuck 1976), for alpha < 2.

    Its angle is counted from the end where the law has its tail: no digit is lost there.
    """
    angle = math.pi * ((word >> _U(12)) + 0.5) * _STEP
    rest = 0.5 * math.pi - angle
    size = sin(alpha * rest) / pow(sin(angle), 1.0 / alpha)
    size = size * pow(cos((1.0 - alpha) * rest) / -log(_inside(more)), (1.0 - alpha) / alpha)
    return size if (word & _U(1)) != _U(0) else -size
