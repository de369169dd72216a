"""Averages over a standard normal by Gauss and Hermite, for compiled functions: nodes side by side in lanes."""

import numpy as np

from minidyn.compiler import across, jit, lanes
from minidyn.maps.rule_symbols import NODES

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_HALF = NODES // 2


def nodes() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes and weights for a standard normal, exactly symmetric."""
    x, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()
    return (x - x[::-1]) / 2, (w + w[::-1]) / 2


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights, opposite nodes four apart as `across` adds them, so that odd sums vanish. Then the normed
    Hermite polynomials at the positive nodes, those of even degree before those of odd."""
    x, w = (v[_HALF:] for v in nodes())
    h = [np.ones(_HALF), x]
    for k in range(1, NODES - 1):
        h.append((x * h[k] - np.sqrt(k) * h[k - 1]) / np.sqrt(k + 1.0))
    points, weights = (np.stack([s * v.reshape(-1, 4), v.reshape(-1, 4)], 1).ravel() for v, s in ((x, -1.0), (w, 1.0)))
    return points, weights, np.ascontiguousarray(np.concatenate([h[0::2], h[1::2]]).T)


POINTS, WEIGHTS, HERMITE = _tables()


@jit(fma=True)
def powers(parts, at, C, to):
    """C[to + k] <- the sum of what the nodes contribute times the k-th Hermite polynomial, 0 < k < NODES."""
    folded = np.empty(NODES)
    for four in range(0, _HALF, 4):
        for q in range(4):
            folded[four + q] = parts[at + 2 * four + q + 4] + parts[at + 2 * four + q]
            folded[_HALF + four + q] = parts[at + 2 * four + q + 4] - parts[at + 2 * four + q]
    for lane in lanes(_HALF):
        even, odd = 0.0, 0.0
        for n in range(_HALF):
            even = even + folded[n] * HERMITE[n, lane]
            odd = odd + folded[_HALF + n] * HERMITE[n, _HALF + lane]
        C[to + 2 * lane] = even
        C[to + 2 * lane + 1] = odd
    C[to] = 0.0


@jit(fma=True)
def overlap(a, at, b, to, first, last):
    """The sum of a[at + k] b[to + k] over first <= k < last, whole eights."""
    sums = np.zeros(8)
    for block in range(first // 8, last // 8):
        for q in range(8):
            sums[q] += a[at + 8 * block + q] * b[to + 8 * block + q]
    return across(sums, 0)
