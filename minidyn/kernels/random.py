"""Random numbers for blocks of 64 paths side by side.

Every path has its own xoshiro256++ generator (Blackman, Vigna 2021), seeded from the run's key and
the path's number alone, so that a path's numbers depend on nothing else. The four words of lane `j`
are `r[j], r[64+j], r[128+j], r[192+j]`; `r[256+j]` keeps a normal. Normals come in pairs: a step that wants an
odd number takes the first of its last pair where the step's number is odd, and keeps the second for the next step.
They come from the Box-Muller transform with polynomials for the logarithm and the sine, without branches, so that
LLVM works on many lanes at once.
"""

import math
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minidyn.common.errors import InputError, said
from minidyn.common.intake import shown
from minidyn.compiler import horner, jit, lanes

LANES = 64
WORDS = 5  # a path's stream: the generator's four words and a normal that is kept
_U = np.uint64
_ONE = _U(0x3FF0000000000000)  # the bits of 1.0
_MANTISSA, _EXPONENT, _SIGN, _THIRD = _U((1 << 52) - 1), _U(0xFFF << 52), _U(1 << 63), _U(1 << 61)
inline = partial(jit, inline=True, fma=True)


def seed_key(rng: Any) -> tuple[Any, NDArray[np.uint64]]:
    """(entropy that reproduces the run, key of its random streams) from a seed, SeedSequence or Generator."""
    if type(rng) is int and rng >= 0:
        return rng, _key_of(rng).copy()
    if isinstance(rng, np.random.Generator):
        rng = [int(x) for x in rng.integers(0, 2**32, 4, dtype=np.uint64)]
    if isinstance(rng, np.random.SeedSequence):
        sequence = rng
    else:
        try:
            if isinstance(rng, (bool, str, bytes, set, frozenset)):
                raise TypeError
            sequence = np.random.SeedSequence(rng)
        except Exception as e:
            raise InputError(
                f"{said('rng')} must be a non-negative whole number, a SeedSequence or a Generator, not {shown(rng)}."
            ) from e
    entropy: Any = sequence.entropy
    if sequence.spawn_key:  # the flat list of words that a spawned sequence mixes: what it spawned from comes first
        words = _words(entropy)
        entropy = [*words, *[0] * (sequence.pool_size - len(words)), *_words(sequence.spawn_key)]
    return entropy, np.asarray(sequence.generate_state(2, np.uint64), dtype=np.uint64)


@lru_cache(maxsize=256)
def _key_of(seed: int) -> NDArray[np.uint64]:
    """The key of a whole number."""
    return np.asarray(np.random.SeedSequence(seed).generate_state(2, np.uint64), dtype=np.uint64)


def generator(rng: Any) -> np.random.Generator:
    """numpy's generator for a seed, SeedSequence or Generator."""
    return rng if isinstance(rng, np.random.Generator) else np.random.default_rng(seed_key(rng)[0])


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
def mix(z):
    """A bijection of 64 bits that scatters them (splitmix64: Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> _U(30))) * _U(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> _U(27))) * _U(0x94D049BB133111EB)
    return z ^ (z >> _U(31))


@inline
def _beside(word):
    """A word of a second stream, which branches off where the first one stands."""
    return mix(word + _U(0x9E3779B97F4A7C15))


@inline
def _minus_two_log(u):
    """-2 log(u) for u in (0, 1]: mantissa in [sqrt(1/2), sqrt(2)), then an odd polynomial (error 1e-17)."""
    bits = u.view(np.uint64)
    e = np.int64(bits - _U(0x3FE6A09E667F3BCD)) >> np.int64(52)
    m = (bits - ((bits - _U(0x3FE6A09E667F3BCD)) & _EXPONENT)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = horner(z, (-0.29232899370086812, -0.30663443201112084, -0.36365778250523446, -0.4444442226958956,
                   -0.57142857251950772, -0.7999999999979901, -1.333333333333334, -4.0))  # fmt: skip
    return e * -1.3862943611198906 + s * p


@inline
def next_word(s0, s1, s2, s3):
    """One word of 64 bits and the generator's next state (xoshiro256++)."""
    word = _rotl(s0 + s3, 23) + s0
    t = s1 << _U(17)
    s2 = s2 ^ s0
    s3 = s3 ^ s1
    s1 = s1 ^ s2
    s0 = s0 ^ s3
    s2 = s2 ^ t
    return word, s0, s1, s2, _rotl(s3, 45)


@inline
def next_pair(s0, s1, s2, s3):
    """Two independent standard normals and the generator's next state (Box, Muller 1958)."""
    u, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
    v, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
    uniform = 2.0 - ((u & _MANTISSA) | _ONE).view(np.float64)
    turn = ((v & _MANTISSA) | _ONE).view(np.float64) - 1.5
    radius = math.sqrt(_minus_two_log(uniform))
    square = turn * turn
    # sine and cosine of turn pi/2 for |turn| <= 1/2 (errors 5e-18, 5e-17)
    sine = horner(square, (5.633933781537854e-08, -3.59864335298231e-06, 0.0001604411507421909, -0.004681754132340976,
                           0.07969262624604301, -0.6459640975062443, 1.5707963267948966))  # fmt: skip
    sine = turn * sine * radius
    cosine = horner(square, (4.6552961874867623e-07, -2.520013526428479e-05, 0.000919259950041661, -0.02086348073494657,
                             0.25366950789986475, -1.2337005501361513, 1.0))  # fmt: skip
    cosine = cosine * radius
    swap = (v & _THIRD) != _U(0)  # the quarter of the turn: three bits above the mantissa
    p = ((v & _SIGN) ^ (cosine if swap else sine).view(np.uint64)).view(np.float64)
    w = (((v << _U(1)) & _SIGN) ^ (sine if swap else cosine).view(np.uint64)).view(np.float64)
    return p, w, s0, s1, s2, s3


@jit
def seed_lanes(key, first, period, r):
    """Seed the 64 lanes of a block for the paths first, first+1, ... of the run with this key; after `period` paths
    path 0 comes again."""
    for j in lanes(LANES):
        path = _U((first + j) % period)
        for word in range(4):
            z = key[0] + (_U(4) * path + _U(word + 1)) * _U(0x9E3779B97F4A7C15)
            r[word * LANES + j] = mix(mix(z) ^ key[1])
        if r.shape[0] > 4 * LANES:  # for a run whose first step has an even number
            kept, _, _, _, _, _ = next_pair(
                _beside(r[j]), _beside(r[LANES + j]), _beside(r[2 * LANES + j]), _beside(r[3 * LANES + j])
            )
            r[4 * LANES + j] = kept.view(np.uint64)


@jit
def _seed_all(key, period, streams):
    """`seed_lanes` for block after block."""
    for block in range(streams.shape[0]):
        seed_lanes(key, LANES * block, period, streams[block])


def counted_from(key: NDArray[np.uint64], places: int) -> NDArray[np.uint64]:
    """The key with which a hash that counts on from key[0] has at 0, 1, ... what it had so many places later."""
    if not places:
        return key
    return np.array([(int(key[0]) + places * 0x9E3779B97F4A7C15) % 2**64, int(key[1])], np.uint64)


def seed_blocks(
    key: NDArray[np.uint64], count: int, odd: bool = True, first_path: int = 0, period: int = 2**62
) -> NDArray[np.uint64]:
    """The streams (count, 320) of `count` blocks of 64 paths, the first of which has this number, and comes again after
    `period` paths; (count, 256) where steps never draw an odd number of normals."""
    streams = np.empty((count, (WORDS if odd else WORDS - 1) * LANES), np.uint64)
    if count:
        _seed_all(counted_from(key, 4 * first_path), period, streams)
    return streams


@jit
def normals(r, z, start, pairs):
    """Fill 2*pairs rows of z, from row `start`, with standard normals."""
    for j in lanes(LANES):
        s0, s1, s2, s3 = r[j], r[LANES + j], r[2 * LANES + j], r[3 * LANES + j]
        for pair in range(pairs):
            p, w, s0, s1, s2, s3 = next_pair(s0, s1, s2, s3)
            z[(start + 2 * pair) * LANES + j] = p
            z[(start + 2 * pair + 1) * LANES + j] = w
        r[j] = s0
        r[LANES + j] = s1
        r[2 * LANES + j] = s2
        r[3 * LANES + j] = s3


@jit
def half_pair(r, z, row, k):
    """Fill a row of z for step k with the first normal of a pair, whose second is kept, or with the one kept."""
    for j in lanes(LANES):
        if k % 2 == 1:
            p, w, s0, s1, s2, s3 = next_pair(r[j], r[LANES + j], r[2 * LANES + j], r[3 * LANES + j])
            z[row * LANES + j] = p
            r[j] = s0
            r[LANES + j] = s1
            r[2 * LANES + j] = s2
            r[3 * LANES + j] = s3
            r[4 * LANES + j] = w.view(np.uint64)
        else:
            z[row * LANES + j] = r[4 * LANES + j].view(np.float64)


@inline
def path_normals(r, z, start, count, k):
    """`normals` and `half_pair` for one path whose stream is r (5,): z[start], ... for step k."""
    s0, s1, s2, s3 = r[0], r[1], r[2], r[3]
    for pair in range(count // 2):
        p, w, s0, s1, s2, s3 = next_pair(s0, s1, s2, s3)
        z[start + 2 * pair] = p
        z[start + 2 * pair + 1] = w
    if count % 2 == 1:
        if k % 2 == 1:
            p, w, s0, s1, s2, s3 = next_pair(s0, s1, s2, s3)
            z[start + count - 1] = p
            r[4] = w.view(np.uint64)
        else:
            z[start + count - 1] = r[4].view(np.float64)
    r[0] = s0
    r[1] = s1
    r[2] = s2
    r[3] = s3


@inline
def path_beside(r, z, start, count):
    """Fill z[start], ... with normals of a second stream of a path, which stands where its own stands."""
    s0, s1, s2, s3 = _beside(r[0]), _beside(r[1]), _beside(r[2]), _beside(r[3])
    for pair in range((count + 1) // 2):
        p, w, s0, s1, s2, s3 = next_pair(s0, s1, s2, s3)
        z[start + 2 * pair] = p
        if 2 * pair + 1 < count:
            z[start + 2 * pair + 1] = w


@inline
def _next(r, j):
    """One 64-bit word of lane j."""
    word, s0, s1, s2, s3 = next_word(r[j], r[LANES + j], r[2 * LANES + j], r[3 * LANES + j])
    r[j] = s0
    r[LANES + j] = s1
    r[2 * LANES + j] = s2
    r[3 * LANES + j] = s3
    return word


@jit
def signs(r, z, start, count):
    """Fill rows of z with -1 or 1, each with probability 1/2."""
    for j in lanes(LANES):
        for row in range(start, start + count):
            z[row * LANES + j] = 1.0 if (_next(r, j) >> _U(63)) != _U(0) else -1.0


@inline
def _below(r, j, n):
    """A whole number in [0, n): floor(n u) with u of 53 bits."""
    return np.int64((_next(r, j) >> _U(11)) * 1.1102230246251565e-16 * n)


@jit
def with_replacement(r, index, batch, n):
    """`batch` independent samples for every lane: index[b*64 + j]."""
    for j in lanes(LANES):
        for b in range(batch):
            index[b * LANES + j] = _below(r, j, n)


@jit
def shuffle(r, order, n, first):
    """The first `first` places of a uniform permutation (Fisher-Yates); order[i*64 + j] is permuted."""
    for j in lanes(LANES):
        for b in range(first):
            other = b + _below(r, j, n - b)
            here = order[b * LANES + j]
            order[b * LANES + j] = order[other * LANES + j]
            order[other * LANES + j] = here


@jit
def few_without_replacement(r, index, batch, n):
    """As `without_replacement`, for a few: the moved places are kept in a list instead of a permutation."""
    for j in lanes(LANES):
        places = np.empty(batch, np.int64)
        moved = np.empty(batch, np.int64)
        for b in range(batch):
            other = b + _below(r, j, n - b)
            picked = other
            here = other - other + b
            for a in range(b):
                picked = moved[a] if places[a] == other else picked
                here = moved[a] if places[a] == b else here
            places[b] = other
            moved[b] = here
            index[b * LANES + j] = picked


@jit
def without_replacement(r, index, order, batch, n):
    """A uniform subset of size `batch` for every lane; `order` comes back as the identity."""
    for j in lanes(LANES):
        for b in range(batch):
            other = b + _below(r, j, n - b)
            index[b * LANES + j] = order[other * LANES + j]
            order[other * LANES + j] = order[b * LANES + j]
            order[b * LANES + j] = index[b * LANES + j]
        # put back what was moved, so that a step depends on the generator's state alone
        for b in range(batch):
            order[index[b * LANES + j] * LANES + j] = index[b * LANES + j]
            order[b * LANES + j] = b
