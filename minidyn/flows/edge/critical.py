"""The field of the central flow and its path from event to event, as compiled functions.

A flow is `system = (kernels, model)`: the kernels `grad, hessian, third`, and the numbers of the loss and of `At`. With
`P` the preconditioner, directions u (rows, `u^T 2P u = 1`) are critical where the curvature along them is that of `2P`.
An oscillation X on r of them is a vector of r (r + 1)/2 numbers (see `complementarity`); the gaps `2P - H` grow at the
rates `a + k x`.
"""

from enum import IntEnum

import numpy as np

from minidyn.common.status import Status
from minidyn.flows.edge.complementarity import balanced, holds, matrix_of, pressed, vector_of
from minidyn.kernels.linalg import extreme_eigenvalues, inner, symmetric_eigen
from minidyn.solvers.piecewise import carry

ON = 1e-10  # how close to the threshold a curvature counts as critical, in units of the threshold
_STRONG = 1e-9  # an oscillation, relative to the strongest, that presses a curvature against the threshold
_TURNS = 50  # events in a row without a step between them


class At(IntEnum):
    """Where what stands among the numbers `fp` of the flow."""

    DIM = 0
    LR = 1
    EPS = 2
    RATE = 3  # of the accumulators, per step


@inner
def owner(i, count):
    """The accumulator of coordinate i: its own, or the one that all have."""
    return i if count > 1 else 0


@inner
def spectrum(system, w, held, r, P, values, U):
    """`P`, the curvatures over their threshold, falling, and directions (rows); a status. The r directions that overlap
    most with the first rows of `held` come first, whatever their curvatures."""
    (_, hessian, _), (c, d, fp) = system
    dim = P.shape[0]
    count = w.shape[0] - dim
    H, V, raw, root = np.empty((dim, dim)), np.empty((dim, dim)), np.empty(dim), np.empty(dim)
    overlap, place = np.zeros(dim), np.empty(dim, np.int64)
    for i in range(dim):
        P[i] = 1.0 / fp[At.LR]
        if count > 0:
            v = w[dim + owner(i, count)]
            if not v > 0.0:
                return Status.SINGULAR
            P[i] = (np.sqrt(v) + fp[At.EPS]) / fp[At.LR]
        root[i] = 1.0 / np.sqrt(2.0 * P[i])
    hessian(w[0:dim], c, d, H)
    total = 0.0
    for i in range(dim):
        for j in range(dim):
            total += H[i, j] * 0.0
            H[i, j] *= root[i] * root[j]
    if total != 0.0:
        return Status.DIVERGED
    symmetric_eigen(H, raw, V)
    ordered(raw, place)
    for n in range(dim):
        values[n] = raw[place[n]]
        for i in range(dim):
            U[n, i] = root[i] * V[i, place[n]]
    if r == 0:
        return 0
    for n in range(dim):
        for q in range(r):
            along = 0.0
            for i in range(dim):
                along += held[q, i] * 2.0 * P[i] * U[n, i]
            overlap[n] += along * along
    ordered(overlap, place)
    for n in range(dim):
        raw[n] = 0.0
        for q in range(r):
            raw[n] = 1.0 if place[q] == n else raw[n]
    ordered(raw, place)
    for n in range(dim):
        overlap[n] = values[place[n]]
        for i in range(dim):
            V[n, i] = U[place[n], i]
    for n in range(dim):
        values[n] = overlap[n]
        for i in range(dim):
            U[n, i] = V[n, i]
    return 0


@inner
def ordered(values, place):
    """place: where the values stand, the largest first, equal ones as they came."""
    for n in range(values.shape[0]):
        at = n
        while at > 0 and values[place[at - 1]] < values[n]:
            place[at] = place[at - 1]
            at -= 1
        place[at] = n


@inner
def answers(system, w, P, U, r, free, effects, a, k):
    """How w moves without oscillation, `free`, what each number of an oscillation on the first r directions adds to
    that, the rows of `effects`, and the rates `a + k x` of the gaps."""
    (grad, _, third), (c, d, fp) = system
    dim, size = P.shape[0], w.shape[0]
    count, entries = size - dim, a.shape[0]
    g, t, normal = np.empty(dim), np.empty(dim), np.empty((entries, size))
    grad(w[0:dim], c, d, g)
    for j in range(count):
        free[dim + j] = -fp[At.RATE] * w[dim + j]
    for i in range(dim):
        free[i] = -g[i] / P[i]
        if count > 0:
            free[dim + owner(i, count)] += fp[At.RATE] * g[i] * g[i]
    at = 0
    for s in range(r):
        for q in range(s + 1):
            weight = 1.0 if s == q else np.sqrt(2.0)
            third(w[0:dim], U[s], U[q], c, d, t)
            for j in range(count):
                normal[at, dim + j], effects[at, dim + j] = 0.0, 0.0
            for i in range(dim):
                normal[at, i] = -weight * t[i]
                effects[at, i] = -0.5 * weight * t[i] / P[i]
                if count > 0:
                    j = dim + owner(i, count)
                    both = weight * U[s, i] * U[q, i]
                    normal[at, j] += both / (fp[At.LR] * np.sqrt(w[j]))  # what 2P gains by v
                    effects[at, j] += fp[At.RATE] * 4.0 * P[i] * P[i] * both
            at += 1
    for s in range(entries):
        a[s] = 0.0
        for i in range(size):
            a[s] += normal[s, i] * free[i]
        for q in range(entries):
            k[s, q] = 0.0
            for i in range(size):
                k[s, q] += normal[s, i] * effects[q, i]


@inner
def moved(effects, x, b):
    """b += what the oscillation x does"""
    for s in range(x.shape[0]):
        for i in range(b.shape[0]):
            b[i] += effects[s, i] * x[s]


@inner
def axes_of(x, r, sizes, axes, place):
    """The strengths of an oscillation on r directions along its axes (columns), and `place`: the strongest first."""
    X = np.empty((r, r))
    matrix_of(x, X)
    symmetric_eigen(X, sizes, axes)
    ordered(sizes, place)


@inner
def pressing(system, w, held, b, S, wrong):
    """The change per step b, and the covariance S of the oscillation, at w alone; `held`: the critical directions that
    are pressed against the threshold, as rows; a status, and how many these are. `wrong[0]` says what is left of the
    conditions."""
    dim = held.shape[0]
    P, values, U = np.empty(dim), np.empty(dim), np.empty((dim, dim))
    for i in range(dim):
        for j in range(dim):
            S[i, j] = 0.0
    code = spectrum(system, w, held, 0, P, values, U)
    if code != 0:
        return code, 0
    m = 0
    while m < dim and values[m] >= 1.0 - ON:
        m += 1
    entries = m * (m + 1) // 2
    effects, a, k = np.empty((entries, w.shape[0])), np.empty(entries), np.empty((entries, entries))
    x, rest = np.empty(entries), np.empty(entries)
    answers(system, w, P, U, m, b, effects, a, k)
    if m == 0:
        return 0, 0
    wrong[0] = pressed(a, k, x, rest)
    if not holds(wrong[0]):
        return Status.NO_ORBIT, 0
    moved(effects, x, b)
    sizes, axes, place = np.empty(m), np.empty((m, m)), np.empty(m, np.int64)
    axes_of(x, m, sizes, axes, place)
    r = 0
    for n in range(m):
        size = sizes[place[n]]
        for i in range(dim):
            held[n, i] = 0.0
            for s in range(m):
                held[n, i] += U[s, i] * axes[s, place[n]]
        for i in range(dim):
            for j in range(dim):
                S[i, j] += size * held[n, i] * held[n, j]
        r += 1 if size > _STRONG * max(sizes[place[0]], 1e-300) else 0
    return 0, r


@inner
def _holding(given, w, b, x, values):
    """b = the change per step under the oscillation x that keeps exactly the curvatures along the held directions where
    they are; a status."""
    system, held, r = given
    dim, entries = held.shape[0], x.shape[0]
    P, U, effects = np.empty(dim), np.empty((dim, dim)), np.empty((entries, w.shape[0]))
    a, k = np.empty(entries), np.empty((entries, entries))
    code = spectrum(system, w, held, r, P, values, U)
    if code == 0:
        answers(system, w, P, U, r, b, effects, a, k)
        balanced(a, k, x)
        moved(effects, x, b)
    return code


@inner
def held_drift(given, w, k, b):
    """The field between two events."""
    _, held, r = given
    return _holding(given, w, b, np.empty(r * (r + 1) // 2), np.empty(held.shape[0]))


@inner
def event(given, w, k):
    """Positive once another curvature crosses the threshold, or the oscillation along a held one has died out."""
    _, held, r = given
    dim = held.shape[0]
    b, x, values = np.empty(w.shape[0]), np.empty(r * (r + 1) // 2), np.empty(dim)
    code = _holding(given, w, b, x, values)
    if code != 0:
        return code, 0.0
    crossing = values[r] - 1.0 - 0.5 * ON if r < dim else -1.0
    if r > 0:
        X = np.empty((r, r))
        matrix_of(x, X)
        least, largest = extreme_eigenvalues(X)
        crossing = max(crossing, -least / max(largest, 1e-300))
    return 0, crossing


@inner
def _lacking(system, w, P, values, U, r, effects, a, k):
    """`effects` and k of `answers`, and a: what the first r curvatures lack of the threshold."""
    gaps = np.zeros((r, r))
    answers(system, w, P, U, r, np.empty(w.shape[0]), effects, a, k)
    for s in range(r):
        gaps[s, s] = 1.0 - values[s]
    vector_of(gaps, a)


@inner
def _pushed(system, w, P, values, U, r):
    """w, moved by the oscillation of any sign that would bring the first r curvatures to the threshold."""
    entries = r * (r + 1) // 2
    effects, a = np.empty((entries, w.shape[0])), np.empty(entries)
    k, x = np.empty((entries, entries)), np.empty(entries)
    _lacking(system, w, P, values, U, r, effects, a, k)
    balanced(a, k, x)
    moved(effects, x, w)


@inner
def put_back(given, w, k):
    """Newton's method back to where the held curvatures stand at the threshold, along their own normals; a status."""
    system, held, r = given
    dim = held.shape[0]
    P, values, U = np.empty(dim), np.empty(dim), np.empty((dim, dim))
    for _ in range(8 if r > 0 else 0):
        code = spectrum(system, w, held, r, P, values, U)
        if code != 0:
            return code
        gap = 0.0
        for s in range(r):
            gap = max(gap, abs(1.0 - values[s]))
        if gap < 1e-13:
            break
        _pushed(system, w, P, values, U, r)
    return 0


@inner
def onto_the_edge(system, w, dim, wrong):
    """A start beyond the edge, moved onto it as the oscillation that forms there would move it; a status."""
    P, values, U = np.empty(dim), np.empty(dim), np.empty((dim, dim))
    for turn in range(31):
        code = spectrum(system, w, U, 0, P, values, U)
        if code != 0 or values[0] <= 1.0 + 1e-12:
            return code
        if turn == 30:
            break
        m = 0
        while m < dim and values[m] > 0.9:
            m += 1
        entries = m * (m + 1) // 2
        effects, a, k = np.empty((entries, w.shape[0])), np.empty(entries), np.empty((entries, entries))
        x, rest = np.empty(entries), np.empty(entries)
        _lacking(system, w, P, values, U, m, effects, a, k)
        wrong[0] = pressed(a, k, x, rest)
        if not holds(wrong[0]):
            return Status.NO_ORBIT
        moved(effects, x, w)
    return 0 if values[0] <= 1.0 + ON else Status.NO_ORBIT


def field(fns, w, k, hp, c, d, nz, fp, b, f):
    """b = `(dtheta/dk, dv/dk)`, the oscillation solved for at w alone."""
    dim = np.int64(fp[At.DIM])
    code, _ = pressing((fns, (c, d, fp)), w, np.empty((dim, dim)), b, np.empty((dim, dim)), np.empty(1))
    return code


def advance(fns, w, kept, k, end, rtol, atol, hp, c, d, nz, fp):
    """Carry a state from step k to `end` in place; a status.

    kept : how far the path has come, the next step, whether it has begun, what is left of the conditions.
    """
    dim = np.int64(fp[At.DIM])
    system, held, wrong = (fns, (c, d, fp)), np.empty((dim, dim)), kept[3:4]
    b, S, turns, step = np.empty(w.shape[0]), np.empty((dim, dim)), 0, kept[1]
    kept[0] = k
    if kept[2] == 0.0:
        code = onto_the_edge(system, w, dim, wrong)
        if code != 0:
            return code
        kept[2], step = 1.0, 0.5
    while k < end:
        code, r = pressing(system, w, held, b, S, wrong)
        if code != 0:
            return code
        before = k
        code, k, step, _ = carry((held_drift, event, put_back, (system, held, r)), w, k, end, step, (rtol, atol))
        kept[0] = k
        turns = turns + 1 if k - before < 1e-9 * (1.0 + k) else 0
        if code != 0 or turns > _TURNS:
            return code if code != 0 else Status.SOLVER_FAILED
    kept[1] = step
    return 0
