"""The noise that an oscillation meets, and whether it dies out: `S = Sigma + N(L S)`, compiled.

`L S` is theta's part of the stationary covariance that gradient noise of covariance S keeps up, `N` as in
`maps.noise.bound`. The first part of `N` alone makes the second-moment operator of `minima.stability`: it has a
spectral radius below 1 exactly where `S = I + N(L S)` has a positive solution (then `S >= I`, else `S` has an
eigenvalue of at most 0; Krein, Rutman 1948). So existence is tested on all directions, excited or not.
"""

import math

import numpy as np

from minidyn.common.status import Status
from minidyn.kernels.linalg import (
    add_multiple,
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
def answer(linear, S, top):
    """top <- L S, theta's part of `sum_k step^k stable B S B^T stable^T (step^k)^T`, by doubling (Smith 1968); `share`
    times the first term where only one number oscillates.

    `linear` is (powers of the step, how many, share, stable, gains B)."""
    powers, count, share, stable, gain = linear
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
def multiplied(system, w, linear, whole, S, out):
    """out <- N(L S), direction by direction: `whole` as the flow's leading order has it, otherwise the first parts
    alone, those of labels too, which decide on stability."""
    _, (_, _, _, _, _, noise_bend, _), _, (_, _, c, d, nz), _ = system
    dim = w.shape[0]
    parts = np.zeros((5, dim, dim))
    first, second, labels, top, vectors = parts[0], parts[1], parts[2], parts[3], parts[4]
    answer(linear, S, top)
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
def set_multiple(x, divisor, out):
    """out <- x / divisor"""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] / divisor


@inner
def solve_met(system, w, linear, whole, tolerance, S):
    """S <- the solution of `X = S + N(L X)`, by GMRES (Saad, Schultz 1986); False where it is not found."""
    dim = w.shape[0]
    basis = np.empty((_KRYLOV + 1, dim, dim))
    x = np.zeros((dim, dim))
    rest = S.copy()
    h = np.zeros((_KRYLOV + 1, _KRYLOV))
    goal = np.empty(_KRYLOV + 1)
    scale = math.sqrt(product(S, S))
    for _ in range(40):
        goal[0] = math.sqrt(product(rest, rest))
        if not goal[0] > 2.0 * tolerance * scale:
            break
        set_multiple(rest, goal[0], basis[0])
        used = span(system, w, linear, whole, tolerance * scale, basis, h, goal)
        if used == 0:
            return False
        for q in range(used - 1, -1, -1):
            total = goal[q]
            for e in range(q + 1, used):
                total -= h[q, e] * goal[e]
            goal[q] = total / h[q, q]
            add_multiple(basis[q], goal[q], x)
        if used < _KRYLOV:
            break
        multiplied(system, w, linear, whole, x, rest)
        for i in range(dim):
            for j in range(dim):
                rest[i, j] += S[i, j] - x[i, j]
    for i in range(dim):
        for j in range(dim):
            S[i, j] = 0.5 * (x[i, j] + x[j, i])
    return True


@inner
def span(system, w, linear, whole, enough, basis, h, goal):
    """Arnoldi's vectors of `X - N(L X)` from basis[0] on, their triangle h and the turned right-hand side `goal`, until
    what is left is at most `enough`; how many, 0 where one is not finite."""
    dim = w.shape[0]
    turn = np.empty((2, _KRYLOV))
    for m in range(_KRYLOV):
        new = basis[m + 1]
        multiplied(system, w, linear, whole, basis[m], new)
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
            return 0
        turn[0, m] = h[m, m] / top
        turn[1, m] = height / top
        h[m, m] = top
        goal[m + 1] = -turn[1, m] * goal[m]
        goal[m] *= turn[0, m]
        if abs(goal[m + 1]) <= enough or height <= 1e-14 * top:
            return m + 1
        set_multiple(new, height, new)
    return _KRYLOV


@inner
def dies_out(system, w, linear):
    """Whether the second moments of a small displacement die out under the noise that it makes itself."""
    dim = w.shape[0]
    room = np.zeros((3, dim, dim))
    S, once, vectors = room[0], room[1], room[2]
    values = np.empty(dim)
    for i in range(dim):
        S[i, i] = 1.0
    multiplied(system, w, linear, False, S, once)
    symmetric_eigen(once, values, vectors)
    largest = 0.0
    for a in range(dim):
        largest = max(largest, values[a])
    if largest < 1.0:  # the norm of a positive map is that of the image of I (Russo, Dye 1966)
        return True
    if not solve_met(system, w, linear, False, 1e-10, S):
        return False
    least, _ = extreme_eigenvalues(S)
    return least > 0.5


@inner
def leading(J, size, dim, places):
    """places <- rows of the state, theta's first, that move theta, directly or not; how many."""
    states = size // dim - 1
    width = 3 + states
    count = 0
    for a in range(1 + states):
        moves = a == 0
        for out in range(1 + states):
            for i in range(dim):
                moves = moves or (out != a and J[i, out * width + 2 + a] != 0.0)
        if moves:
            for i in range(dim):
                places[count] = a * dim + i
                count += 1
    return count


@inner
def noise_met(system, w, multiplies, tangent, new, average, gap, P, S, top):
    """S <- the noise that the oscillation meets, from that at the point of M; top <- L S; a status code.

    `UNSTABLE` where the linear map is, `DRIVEN` where its noise drives second moments up (only asked where the place is
    `new`), `LAWLESS` where its curves leave them no place to rest. States that move nothing else, such as Adam's v, are
    left out."""
    _, _, J, _, gain = average
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
            return Status.UNSTABLE
        share = 1.0 / (t * (2.0 - t))
    else:
        count = doublings(rest, stable, powers)
        if count == 0:
            return Status.UNSTABLE
    linear = (powers, count, share, stable, own)
    if multiplies:
        if new and not dies_out(system, w, linear):
            return Status.DRIVEN
        if not solve_met(system, w, linear, True, 1e-14, S):
            return Status.LAWLESS
    answer(linear, S, top)
    return Status.FINISHED
