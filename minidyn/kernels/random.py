"""Random numbers for blocks of 64 paths side by side.

Every path has its own xoshiro256++ generator (Blackman, Vigna 2021), seeded from the run's key and
the path's number alone, so that a path's numbers depend on nothing else. The four words of lane `j`
are `r[j], r[64+j], r[128+j], r[192+j]`. Normals come from the Box-Muller transform with polynomials
for the logarithm and the sine, without branches, so that LLVM works on many lanes at once.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from minidyn.errors import InputError

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

LANES = 64
_U = np.uint64
_HALF_PI = math.pi / 2
jit = nb.njit(cache=True, nogil=True, error_model="numpy", fastmath={"nsz","contract"})
inline = nb.njit(inline="always", error_model="numpy")


def seed_key(rng: Any) -> tuple[Any, NDArray[np.uint64]]:
    """(entropy that reproduces the run, key of its random streams) from a seed, SeedSequence or Generator."""
    if isinstance(rng, np.random.Generator):
        rng = [int(x) for x in rng.integers(0, 2**32, 4, dtype=np.uint64)]
    if isinstance(rng, np.random.SeedSequence):
        sequence = rng
    else:
        try:
            sequence = np.random.SeedSequence(rng)
        except (TypeError, ValueError) as e:
            raise InputError(
                f"rng must be a non-negative whole number, a SeedSequence or a Generator, not {rng!r}."
            ) from e
    entropy: Any = sequence.entropy
    if sequence.spawn_key:  # the flat list of words that a spawned sequence mixes: what it spawned from comes first
        words = _words(entropy)
        entropy = [*words, *[0] * (sequence.pool_size - len(words)), *_words(sequence.spawn_key)]
    return entropy, np.asarray(sequence.generate_state(2, np.uint64), dtype=np.uint64)


def _words(value: Any) -> list[int]:
    """Whole numbers in words of 32 bits, the lowest first."""
    if not isinstance(value, (int, np.integer)):
        return [word for v in value for word in _words(v)]
    words = [int(value) & 0xFFFFFFFF]
    while value := int(value) >> 32:
        words.append(value & 0xFFFFFFFF)
    return words


@inline
def _rotl(x, k):
    return (x << _U(k)) | (x >> _U(64 - k))


@inline
def _mix(z):
    z = (z ^ (z >> _U(30))) * _U(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> _U(27))) * _U(0x94D049BB133111EB)
    return z ^ (z >> _U(31))


@inline
def _log(u):
    """log(u) for u in (0, 1]: mantissa in [sqrt(1/2), sqrt(2)), then an odd series."""
    bits = np.float64(u).view(np.uint64)
    e = np.int64(bits - _U(0x3FE6A09E667F3BCD)) >> np.int64(52)
    m = _U(bits - (_U(e) << _U(52))).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 2.0 / 19
    p = p * z + 2.0 / 17
    p = p * z + 2.0 / 15
    p = p * z + 2.0 / 13
    p = p * z + 2.0 / 11
    p = p * z + 2.0 / 9
    p = p * z + 2.0 / 7
    p = p * z + 2.0 / 5
    p = p * z + 2.0 / 3
    return e * 0.6931471805599453 + (2.0 * s + s * z * p)


@inline
def _sin(t):
    """sin(t pi/2) for |t| <= 1/2."""
    z = t * t * (_HALF_PI * _HALF_PI)
    p = -1.0 / 1307674368000
    p = p * z + 1.0 / 6227020800
    p = p * z - 1.0 / 39916800
    p = p * z + 1.0 / 362880
    p = p * z - 1.0 / 5040
    p = p * z + 1.0 / 120
    p = p * z - 1.0 / 6
    return t * _HALF_PI * (1.0 + z * p)


@inline
def _cos(t):
    """cos(t pi/2) for |t| <= 1/2."""
    z = t * t * (_HALF_PI * _HALF_PI)
    p = 1.0 / 20922789888000
    p = p * z - 1.0 / 87178291200
    p = p * z + 1.0 / 479001600
    p = p * z - 1.0 / 3628800
    p = p * z + 1.0 / 40320
    p = p * z - 1.0 / 720
    p = p * z + 1.0 / 24
    p = p * z - 0.5
    return 1.0 + z * p


@jit
def seed_lanes(key, first, r):
    """Seed the 64 lanes of a block for the paths first, first+1, ... of the run with this key."""
    for j in range(LANES):
        path = _U(first + j)
        for word in range(4):
            z = key[0] + (_U(4) * path + _U(word + 1)) * _U(0x9E3779B97F4A7C15)
            r[word * LANES + j] = _mix(_mix(z) ^ key[1])


@jit
def normals(r, z, start, pairs):
    """Fill 2*pairs rows of z, from row `start`, with standard normals."""
    for pair in range(pairs):
        row = z[(start + 2 * pair) * LANES : (start + 2 * pair + 2) * LANES]
        for j in range(LANES):
            s0 = r[j]
            s1 = r[LANES + j]
            s2 = r[2 * LANES + j]
            s3 = r[3 * LANES + j]
            u = _rotl(s0 + s3, 23) + s0
            t = s1 << _U(17)
            s2 ^= s0
            s3 ^= s1
            s1 ^= s2
            s0 ^= s3
            s2 ^= t
            s3 = _rotl(s3, 45)
            v = _rotl(s0 + s3, 23) + s0
            t = s1 << _U(17)
            s2 ^= s0
            s3 ^= s1
            s1 ^= s2
            s0 ^= s3
            s2 ^= t
            s3 = _rotl(s3, 45)
            r[j] = s0
            r[LANES + j] = s1
            r[2 * LANES + j] = s2
            r[3 * LANES + j] = s3
            uniform = 2.0 - _U((u >> _U(12)) | _U(0x3FF0000000000000)).view(np.float64)
            turn = _U((v >> _U(12)) | _U(0x3FF0000000000000)).view(np.float64) - 1.5
            q = -2.0 * _log(uniform)
            radius = math.sqrt(q if q > 0.0 else 0.0)
            sine = _sin(turn)
            cosine = _cos(turn)
            swap = (v & _U(1)) != _U(0)
            p = (cosine if swap else sine) * radius
            w = (sine if swap else cosine) * radius
            p = -p if (v & _U(2)) != _U(0) else p
            w = -w if (v & _U(4)) != _U(0) else w
            row[j] = p
            row[LANES + j] = w


@inline
def _next(r, j):
    """One 64-bit word of lane j."""
    s0 = r[j]
    s1 = r[LANES + j]
    s2 = r[2 * LANES + j]
    s3 = r[3 * LANES + j]
    word = _rotl(s0 + s3, 23) + s0
    t = s1 << _U(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    r[j] = s0
    r[LANES + j] = s1
    r[2 * LANES + j] = s2
    r[3 * LANES + j] = _rotl(s3, 45)
    return word


@jit
def signs(r, z, start, count):
    """Fill rows of z with -1 or 1, each with probability 1/2."""
    for row in range(start, start + count):
        for j in range(LANES):
            z[row * LANES + j] = 1.0 if (_next(r, j) >> _U(63)) != _U(0) else -1.0


@inline
def _below(r, j, n):
    """A whole number in [0, n): floor(n u) with u of 53 bits."""
    return np.int64((_next(r, j) >> _U(11)) * 1.1102230246251565e-16 * n)


@jit
def with_replacement(r, index, batch, n):
    """`batch` independent samples for every lane: index[b*64 + j]."""
    for b in range(batch):
        for j in range(LANES):
            index[b * LANES + j] = _below(r, j, n)


@jit
def shuffle(r, order, n, first):
    """The first `first` places of a uniform permutation (Fisher-Yates); order[i*64 + j] is permuted."""
    for b in range(first):
        for j in range(LANES):
            other = b + _below(r, j, n - b)
            here = order[b * LANES + j]
            order[b * LANES + j] = order[other * LANES + j]
            order[other * LANES + j] = here


@jit
def without_replacement(r, index, order, batch, n):
    """A uniform subset of size `batch` for every lane; `order` comes back as the identity."""
    for j in range(LANES):
        for b in range(batch):
            other = b + _below(r, j, n - b)
            index[b * LANES + j] = order[other * LANES + j]
            order[other * LANES + j] = order[b * LANES + j]
            order[b * LANES + j] = index[b * LANES + j]
        # put back what was moved, so that a step depends on the generator's state alone
        for b in range(batch):
            order[index[b * LANES + j] * LANES + j] = index[b * LANES + j]
            order[b * LANES + j] = b


@jit
def branch(r):
    """Turn a copy of a block's generators into those of a second stream: every word is mixed anew."""
    for q in range(r.shape[0]):
        r[q] = _mix(r[q] + _U(0x9E3779B97F4A7C15))
