"""Steps of a map about a mid-point whose slow directions are held, as compiled functions.

A map is `system = (kernels, model)`: the kernels `grad, hessian, rule_step, rule_slopes`, and the number of the step,
the numbers of rule and loss, the number of parameters. The rows of R span, orthonormal, what is orthogonal to the slow
directions: the mid-point may move by `a R` while it is held along them (see `orbit`).
"""

import math

import numpy as np

from minidyn.kernels.elimination import solve_one
from minidyn.kernels.linalg import inner


@inner
def length_of(v, count):
    """The length of the first `count` numbers."""
    total = 0.0
    for i in range(count):
        total += v[i] * v[i]
    return math.sqrt(total)


@inner
def step_of(system, z, out):
    """out = F(z)"""
    (grad, _, rule_step, _), (at, hp, c, d, dim) = system
    g = np.empty(dim)
    grad(z[0:dim], c, d, g)
    rule_step(z, g, at, hp, out)


@inner
def jacobian_of(system, z, A):
    """A = dF/dz; False where it is not finite."""
    (grad, hessian, _, rule_slopes), (at, hp, c, d, dim) = system
    size = z.shape[0]
    states = size // dim - 1
    g, H, J = np.empty(dim), np.empty((dim, dim)), np.empty(size * (2 + states))
    grad(z[0:dim], c, d, g)
    hessian(z[0:dim], c, d, H)
    rule_slopes(z, g, at, hp, J)
    total = 0.0
    for i in range(size):
        output, row = i // dim, i % dim
        slopes = (row * (1 + states) + output) * (2 + states)
        for j in range(size):
            A[i, j] = J[slopes + 1] * H[row, j] if j < dim else 0.0
        for p in range(1 + states):
            A[i, p * dim + row] += J[slopes + (p + 1 if p > 0 else 0)]
        for j in range(size):
            total += A[i, j] * 0.0
    return total == 0.0


@inner
def parts_of(system, c, d, even, odd):
    """The even and the odd part of the map, `F_e(c, d)` and `F_o(c, d)`."""
    size = c.shape[0]
    z, plus, minus = np.empty(size), np.empty(size), np.empty(size)
    for i in range(size):
        z[i] = c[i] + d[i]
    step_of(system, z, plus)
    for i in range(size):
        z[i] = c[i] - d[i]
    step_of(system, z, minus)
    for i in range(size):
        even[i] = 0.5 * (plus[i] + minus[i])
        odd[i] = 0.5 * (plus[i] - minus[i])


@inner
def shifted(c, R, a, out):
    """out = c + a R"""
    for i in range(c.shape[0]):
        out[i] = c[i]
        for t in range(a.shape[0]):
            out[i] += a[t] * R[t, i]


@inner
def along(R, v, out):
    """out = R v, along the first rows of R"""
    for t in range(out.shape[0]):
        out[t] = 0.0
        for i in range(v.shape[0]):
            out[t] += R[t, i] * v[i]


@inner
def restricted(R, A, out):
    """out = R A R^T, along the first rows of R"""
    count, size = out.shape[0], A.shape[0]
    for s in range(count):
        for i in range(count):
            out[s, i] = 0.0
        for j in range(size):
            x = 0.0
            for i in range(size):
                x += R[s, i] * A[i, j]
            for t in range(count):
                out[s, t] += x * R[t, j]


@inner
def rest_of(system, R, c, a):
    """a: where the fast part of the mid-point rests without oscillation; zero if that is far off."""
    size, count = c.shape[0], a.shape[0]
    z, after, A = np.empty(size), np.empty(size), np.empty((size, size))
    J, move = np.empty((count, count)), np.empty(count)
    bound = 1.0 + length_of(c, size)
    for t in range(count):
        a[t] = 0.0
    for _ in range(8):
        shifted(c, R, a, z)
        step_of(system, z, after)
        for i in range(size):
            after[i] = z[i] - after[i]
        along(R, after, move)
        found = jacobian_of(system, z, A)
        restricted(R, A, J)
        for t in range(count):
            J[t, t] -= 1.0
        if not found or not solve_one(J, move):
            break
        for t in range(count):
            a[t] += move[t]
        if not length_of(a, count) < 0.3 * bound:
            break
        if length_of(move, count) <= 1e-12 * bound:
            return
    for t in range(count):
        a[t] = 0.0


@inner
def iterate(system, R, c, a, d, turns):
    """The map's own pairs, the slow part of the mid-point held; False where they leave every bound."""
    size, count = c.shape[0], a.shape[0]
    z, even, odd, change = np.empty(size), np.empty(size), np.empty(size), np.empty(count)
    bound = 1.0
    for i in range(size):
        bound = max(bound, 1.0 + abs(c[i]))
    for _ in range(turns):
        shifted(c, R, a, z)
        parts_of(system, z, d, even, odd)
        for i in range(size):
            even[i] -= z[i]
        along(R, even, change)
        for t in range(count):
            a[t] += change[t]
        for i in range(size):
            z[i] = d[i] + odd[i]
        along(R, z, change)  # along slow directions consecutive differences alternate: average
        total, largest = 0.0, 0.0
        for i in range(size):
            fast = 0.0
            for t in range(count):
                fast += R[t, i] * change[t]
            d[i] = 0.5 * (z[i] - fast) - odd[i]
            total += d[i] * 0.0
            largest = max(largest, abs(d[i]))
        for t in range(count):
            total += a[t] * 0.0
        if total != 0.0 or not largest < 1e6 * bound:
            return False
    return True
