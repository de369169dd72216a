"""Brownian paths that can be asked for at any resolution.

Over an interval of length h a path is known by its increment `W` and its area `I = int (W_s - W_0) ds`, that is
`h (W/2 + H)` with `H ~ N(0, h/12)` independent of W. A whole step k has the map's own normal as its increment.
Within a step the path is refined by halves: given W and H of an interval, those of its halves need two normals,
which come from a hash of (key, path, step, column, place in the tree). So whatever is asked, in whatever order and by
whatever thread, the same path answers.
Source: Levy (1940), Foster, Lyons, Oberhauser (2020); the hash is that of splitmix64 (Steele, Lea, Flood 2014).
"""

import math

import numpy as np

from minidyn.compiler import jit
from minidyn.kernels.random import mix
from minidyn.kernels.vectormath import cos, log, sin

_U = np.uint64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
COIN = 1 << 40  # places beyond every tree: the coins of weak schemes


@jit
def word(key, path, step, column, place, turn):
    """64 random bits for one place in one column of one path's step."""
    z = mix(key[0] + _GOLDEN * _U(path + 1))
    z = mix((z ^ key[1]) + _GOLDEN * _U(step + 1))
    z = mix(z + _GOLDEN * _U(column + 1))
    return mix(mix(z ^ _U(place)) + _GOLDEN * _U(turn + 1))


@jit
def two_normals(key, path, step, column, place):
    """Two independent standard normals (Box, Muller) for one place."""
    u = ((word(key, path, step, column, place, 0) >> _U(11)) + _U(1)) * 1.1102230246251565e-16
    v = (word(key, path, step, column, place, 1) >> _U(11)) * 1.1102230246251565e-16
    radius = math.sqrt(-2.0 * log(u))
    return radius * cos(6.283185307179586 * v), radius * sin(6.283185307179586 * v)


@jit
def coin(key, path, step, column, place):
    """-1 or 1."""
    return 1.0 if (word(key, path, step, column, COIN + place, 2) >> _U(63)) != _U(0) else -1.0


@jit
def levy_area(key, path, step, column):
    """H of a whole step, whose length is 1."""
    first, _ = two_normals(key, path, step, column, 0)
    return first * 0.28867513459481287  # 1/sqrt(12)


@jit
def halves(key, path, step, column, node, length, w, h):
    """Increments and areas (H) of the two halves of an interval that has w and h: the first's, then the second's."""
    first, second = two_normals(key, path, step, column, node)
    root = math.sqrt(length)
    apart = 3.0 * h + 0.5 * root * first  # difference of the halves' increments
    both = 2.0 * h - 0.5 * apart  # sum of their areas
    gap = 0.28867513459481287 * root * second
    return 0.5 * (w + apart), 0.5 * (both + gap), 0.5 * (w - apart), 0.5 * (both - gap)


@jit
def piece(key, path, step, column, level, place, w, h):
    """(W, I) of piece `place` of 2^level equal ones of a step that has increment w and area h."""
    length = 1.0
    for depth in range(level):
        right = (place >> np.int64(level - 1 - depth)) & np.int64(1)
        node = (np.int64(1) << depth) + (place >> np.int64(level - depth))
        w_left, h_left, w_right, h_right = halves(key, path, step, column, node, length, w, h)
        w = w_right if right != 0 else w_left
        h = h_right if right != 0 else h_left
        length *= 0.5
    return w, length * (0.5 * w + h)


@jit
def pieces(key, path, step, column, level, w, h, W, H):
    """Fill the first 2^level places of W and H with increments and areas of the equal pieces of a step, as `piece`."""
    W[0] = w
    H[0] = h
    length = 1.0
    for depth in range(level):
        for place in range((1 << depth) - 1, -1, -1):
            node, left, right = (1 << depth) + place, 2 * place, 2 * place + 1
            W[left], H[left], W[right], H[right] = halves(key, path, step, column, node, length, W[place], H[place])
        length *= 0.5
