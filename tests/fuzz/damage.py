"""What happens to files: cut, lost and other bytes, zeroed blocks, parts of other files, and nothing at all left."""

from __future__ import annotations

import random
from collections.abc import Sequence


def damaged(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """The bytes of a file after one to three accidents."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _accident(bytearray(data), rng, others)
    return data


def _accident(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytes:
    kind = rng.randrange(9)
    at = rng.randrange(len(data) + 1)
    size = min(len(data) - at, int(2 ** rng.uniform(0, 12)))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1 and data:
        data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[at : at + size] = rng.randbytes(size)
    elif kind == 3:
        data[at : at + size] = bytes(size)
    elif kind == 4:
        del data[at : at + size]
    elif kind == 5:
        data[at:at] = data[at : at + size]
    elif kind == 6:
        data[at:at] = rng.randbytes(rng.randrange(1, 64))
    elif kind == 7 and others:
        other = rng.choice(others)
        data = bytearray(other) if rng.random() < 0.5 else data[:at] + other[at:]
    else:
        data = bytearray(rng.choice((b"", b"\0" * len(data), rng.randbytes(len(data)), b"\n", b"{}")))
    return bytes(data)
