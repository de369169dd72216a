"""The noise that an oscillation meets, and whether it dies out: `S = Sigma + N(L S)`, compiled.

`L S` is theta's part of the stationary covariance that gradient noise of covariance S keeps up, `N` as in
`maps.noise.bound`. The first part of `N` alone makes the second-moment operator of `minima.stability`: it has a
spectral radius below 1 exactly where `S = I + N(L S)` has a positive solution (then `S >= I`, else `S` has an
eigenvalue of at most 0; Krein, Rutman 1948). So existence is tested on all directions, excited or not.
"""

from __future__ import annotations

import math

import numpy as np

from minidyn.kernels.linalg import (
    double,
    extreme_eigenvalues,
    inner,
    multiply,
    multiply_transposed,
    subtract,
    symmetric_eigen,
    trace,
)
from minidyn.maps.linearization import noise_covariance

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_KRYLOV = 16  # vectors between two restarts


@inner
def doublings(gap, stable, powers):
    """powers <- a, a^2, a^4, ... of a = stable - gap, up to one that is negligible; how many, 0 where a is not stable.

    `gap` is overwritten."""
    size = gap.shape[0]
    room = np.empty((size, size))
    for k in range(powers.shape[0]):
        subtract(stable, gap, powers[k])
        norm = 0.0
        for i in range(size):
            for j in range(size):
                norm += powers[k, i, j] * powers[k, i, j]
        if norm <= 1e-17:
            return max(k, 1)
        if not norm < 1e200:
            return 0
        double(gap, stable, room)
    return 0


@inner
def answer(powers, count, share, stable, gain, S, top):
    """top <- L S, theta's part of `sum_k step^k stable B S B^T stable^T (step^k)^T`, by doubling (Smith 1968); `share`
    times the first term where only one number oscillates."""
    size, dim = stable.shape[0], S.shape[0]
    room = np.empty((3, size, size))
    noise, half, W = room[0], room[1], room[2]
    noise_covariance(S, gain, gain, False, 0.0, noise)
    multiply(stable, noise, half)
    multiply_transposed(half, stable, W)
    for k in range(count):
        multiply(powers[k], W, half)
        multiply_transposed(half, powers[k], noise)
        for i in range(size):
            for j in range(size):
                W[i, j] += noise[i, j]
    for i in range(dim):
        for j in range(dim):
            top[i, j] = 0.5 * share * (W[i, j] + W[j, i])


@inner
def kept_up(fns, w, c, d, nz, powers, count, share, stable, gain, whole, S, out):
    """out <- N(L S), direction by direction: `whole` as the flow's leading order has it, otherwise the first parts
    alone, those of labels too, which decide on stability."""
    noise_bend = fns[9]
    dim = w.shape[0]
    parts = np.zeros((5, dim, dim))
    first, second, labels, top, vectors = parts[0], parts[1], parts[2], parts[3], parts[4]
    answer(powers, count, share, stable, gain, S, top)
    values = np.empty(dim)
    symmetric_eigen(top, values, vectors)
    largest = 0.0
    for a in range(dim):
        largest = max(largest, abs(values[a]))
    u = np.empty(dim)
    for a in range(dim):
        if abs(values[a]) > 1e-17 * largest:
            for i in range(dim):
                u[i] = vectors[i, a]
            noise_bend(w, u, values[a], c, d, nz, first, second, labels)
    for i in range(dim):
        for j in range(dim):
            out[i, j] = first[i, j] + (second[i, j] if whole else labels[i, j])


@inner
def product(a, b):
    """The sum of the products of the entries."""
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += a[i, j] * b[i, j]
    return total


@inner
def add_multiple(x, factor, out):
    """out += factor x"""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] += factor * x[i, j]


@inner
def met(fns, w, c, d, nz, powers, count, share, stable, gain, whole, tolerance, S):
    """S <- the solution of `X = S + N(L X)`, by GMRES (Saad, Schultz 1986); False where it is not found."""
    dim = w.shape[0]
    basis = np.empty((_KRYLOV + 1, dim, dim))
    x = np.zeros((dim, dim))
    rest = S.copy()
    h = np.zeros((_KRYLOV + 1, _KRYLOV))
    turn = np.empty((2, _KRYLOV))
    goal = np.empty(_KRYLOV + 1)
    scale = math.sqrt(product(S, S))
    for _ in range(40):
        length = math.sqrt(product(rest, rest))
        if not length > 2.0 * tolerance * scale:
            break
        for i in range(dim):
            for j in range(dim):
                basis[0, i, j] = rest[i, j] / length
        goal[0] = length
        used = 0
        for m in range(_KRYLOV):
            new = basis[m + 1]
            kept_up(fns, w, c, d, nz, powers, count, share, stable, gain, whole, basis[m], new)
            for i in range(dim):
                for j in range(dim):
                    new[i, j] = basis[m, i, j] - new[i, j]
            for q in range(m + 1):
                h[q, m] = 0.0
            for _ in range(2):  # orthogonal to rounding
                for q in range(m + 1):
                    along = product(basis[q], new)
                    h[q, m] += along
                    add_multiple(basis[q], -along, new)
            height = math.sqrt(product(new, new))
            for q in range(m):
                top = turn[0, q] * h[q, m] + turn[1, q] * h[q + 1, m]
                h[q + 1, m] = turn[0, q] * h[q + 1, m] - turn[1, q] * h[q, m]
                h[q, m] = top
            top = math.sqrt(h[m, m] * h[m, m] + height * height)
            if not (top > 0.0 and top < np.inf):
                return False
            turn[0, m] = h[m, m] / top
            turn[1, m] = height / top
            h[m, m] = top
            goal[m + 1] = -turn[1, m] * goal[m]
            goal[m] *= turn[0, m]
            used = m + 1
            if abs(goal[m + 1]) <= tolerance * scale or height <= 1e-14 * top:
                break
            for i in range(dim):
                for j in range(dim):
                    new[i, j] /= height
        for q in range(used - 1, -1, -1):
            total = goal[q]
            for e in range(q + 1, used):
                total -= h[q, e] * goal[e]
            goal[q] = total / h[q, q]
            add_multiple(basis[q], goal[q], x)
        if used < _KRYLOV:
            break
        kept_up(fns, w, c, d, nz, powers, count, share, stable, gain, whole, x, rest)
        for i in range(dim):
            for j in range(dim):
                rest[i, j] += S[i, j] - x[i, j]
    for i in range(dim):
        for j in range(dim):
            S[i, j] = 0.5 * (x[i, j] + x[j, i])
    return True


@inner
def dies_out(fns, w, c, d, nz, powers, count, share, stable, gain):
    """Whether the second moments of a small displacement die out under the noise that it makes itself."""
    dim = w.shape[0]
    room = np.zeros((3, dim, dim))
    S, once, vectors = room[0], room[1], room[2]
    values = np.empty(dim)
    for i in range(dim):
        S[i, i] = 1.0
    kept_up(fns, w, c, d, nz, powers, count, share, stable, gain, False, S, once)
    symmetric_eigen(once, values, vectors)
    largest = 0.0
    for a in range(dim):
        largest = max(largest, values[a])
    if largest < 1.0:  # the norm of a positive map is that of the image of I (Russo, Dye 1966)
        return True
    if not met(fns, w, c, d, nz, powers, count, share, stable, gain, False, 1e-10, S):
        return False
    least, _ = extreme_eigenvalues(S)
    return least > 0.5


@inner
def leading(J, size, dim, places):
    """places <- rows of the state, theta's first, that theta listens to, directly or not; how many."""
    states = size // dim - 1
    width = 3 + states
    count = 0
    for a in range(1 + states):
        heard = a == 0
        for out in range(1 + states):
            for i in range(dim):
                heard = heard or (out != a and J[i, out * width + 2 + a] != 0.0)
        if heard:
            for i in range(dim):
                places[count] = a * dim + i
                count += 1
    return count


@inner
def noise_met(fns, w, c, d, nz, fp, multiplies, tangent, new, J, gap, P, gain, S, top):
    """S <- the noise that the oscillation meets, from that at the point of M; top <- L S; a status code.

    5 where the linear map is unstable, 9 where its noise drives second moments up; only asked where the place is `new`.
    18 where its curves leave them no place to rest. States that only listen, such as Adam's v, are left out."""
    dim = w.shape[0]
    size = gap.shape[0]
    places = np.empty(size, np.int64)
    few = leading(J, size, dim, places)
    room = np.empty((3, few, few))
    part, stable, rest = room[0], room[1], room[2]
    own = np.empty((dim, few // dim))
    for p in range(few):
        own[p % dim, p // dim] = gain[p % dim, places[p] // dim]
        for q in range(few):
            part[p, q] = gap[places[p], places[q]]
            stable[p, q] = (1.0 if p == q else 0.0) - P[places[p], places[q]]
    multiply(stable, part, rest)
    powers = np.empty((64, few, few))
    count, share = 0, 1.0
    if few - tangent == 1:
        t = trace(rest)
        if not 0.0 < t < 2.0:
            return 5
        share = 1.0 / (t * (2.0 - t))
    else:
        count = doublings(rest, stable, powers)
        if count == 0:
            return 5
    if multiplies:
        if new and not dies_out(fns, w, c, d, nz, powers, count, share, stable, own):
            return 9
        if not met(fns, w, c, d, nz, powers, count, share, stable, own, True, 1e-14, S):
            return 18
    answer(powers, count, share, stable, own, S, top)
    return 0
