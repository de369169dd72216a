"""The compiled time loops of flows with noise.

A path's main chain of steps depends on nothing but its start, its stream and the size of steps. Where a save falls
inside a step, a side step from the last point of the chain, with the very increments up to the save, shows the state
there; the chain does not know of it.
"""

from __future__ import annotations

import math

import numpy as np

from minidyn.compiler import jit
from minidyn.solvers.brownian import coin, lean, piece, pieces
from minidyn.solvers.sde import WEAK, step

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

UNITS = 20  # adaptive steps are at least 2^-20 of a map's step
WINDOW = 32  # and at most this many of them


@jit
def toss(key, path, k, place, columns, V):
    """The coins of one step: V[r, j] = -V[j, r]."""
    for r in range(columns):
        for j in range(r):
            x = coin(key, path, k, r, place * columns + j)
            V[r, j] = x
            V[j, r] = -x


@jit
def settle_lane(code, w, k, path, lane, s, status, ended):
    """Put a lane's state back; NaN and a status where it has ended."""
    size = w.shape[0]
    for i in range(size):
        if code == 0 and not abs(w[i]) < np.inf:
            code = 1
    if code != 0:
        status[path] = code
        ended[path] = k
    for i in range(size):
        s[i * 64 + lane] = w[i] if code == 0 else np.nan


@jit
def advance_sde(
    draw, field, retract, fns, scheme, areas, rows, columns, blocks, shown, streams, key, status, ended,
    first, last, k0, goal, target, span, level, hp, c, d, nz, fp,
):  # fmt: skip
    """Carry the blocks first .. last-1 from step k0 to `goal` by steps of `span` steps of the map, or of 2^-level of
    one; then show the states at `target`, less than one step further."""
    size = blocks.shape[1] // 64
    n = d.shape[0]
    parts = 1 << level
    z = np.zeros((rows + 1) * 64)
    total = np.zeros((rows + 1) * 64)
    area = np.zeros((rows + 1) * 64)
    r = np.empty(256, np.uint64)
    index = np.zeros(64, np.int64)
    w = np.empty(size)
    x = np.empty(size)
    y = np.empty(size)
    b = np.empty(size)
    b1 = np.empty(size)
    f = np.zeros((size, columns))
    f1 = np.zeros((size, columns))
    g = np.zeros((size, columns))
    W = np.zeros(columns)
    I = np.zeros(columns)
    V = np.zeros((columns, columns))
    parts_W = np.zeros((columns, parts))
    parts_H = np.zeros((columns, parts))
    for block in range(first, last):
        s = blocks[block]
        out = shown[block]
        for q in range(256):
            r[q] = streams[block, q]
        k = k0
        side = False
        while True:
            if k >= goal and not side:
                for q in range(256):
                    streams[block, q] = r[q]
                for q in range(size * 64):
                    out[q] = s[q]
                side = True
            if k >= target:
                break
            now = min(span, target - k)
            for q in range(total.shape[0]):
                total[q] = 0.0
                area[q] = 0.0
            for turn in range(now):
                draw(r, z, index, index, k + turn + 1, n)
                if areas:
                    for q in range(columns):
                        for lane in range(64):
                            at = q * 64 + lane
                            area[at] += total[at] + 0.5 * z[at] + lean(key, block * 64 + lane, k + turn, q)
                for q in range(total.shape[0]):
                    total[q] += z[q]
            for lane in range(64):
                path = block * 64 + lane
                if status[path] != 0:
                    continue
                for i in range(size):
                    w[i] = out[i * 64 + lane] if side else s[i * 64 + lane]
                code = 0
                if level > 0:
                    for q in range(columns):
                        first_lean = lean(key, path, k, q)
                        pieces(key, path, k, q, level, total[q * 64 + lane], first_lean, parts_W[q], parts_H[q])
                for part in range(parts):
                    for q in range(columns):
                        if level > 0:
                            W[q] = parts_W[q, part]
                            I[q] = (0.5 * parts_W[q, part] + parts_H[q, part]) / parts
                        else:
                            W[q] = total[q * 64 + lane]
                            I[q] = area[q * 64 + lane]
                    if scheme == WEAK:
                        toss(key, path, k, part, columns, V)
                    h = float(now) / parts
                    code = step(
                        scheme, field, retract, fns, w, k + 0.5 + part * h, h, W, I, V, x, y, b, b1, f, f1, g,
                        hp, c, d, nz, fp,
                    )  # fmt: skip
                    if code != 0:
                        break
                if side:
                    for i in range(size):
                        out[i * 64 + lane] = w[i] if code == 0 else np.nan
                else:
                    settle_lane(code, w, k + now, path, lane, s, status, ended)
            k += now


@jit
def between(buffer, leans, key, path, lane, q, start, at, length, unit):
    """(W, I) over [at, at + length) in units of 1/unit of a step; dyadic, or whole steps, after step `start`."""
    if length >= unit:
        w, area = 0.0, 0.0
        for turn in range(at // unit, (at + length) // unit):
            z = buffer[turn - start, q * 64 + lane]
            area += w + 0.5 * z + leans[turn - start, q * 64 + lane]
            w += z
        return w, area
    k = at // unit
    level = 0
    while (unit >> level) > length:
        level += 1
    place = (at - k * unit) // length
    row = k - start
    return piece(key, path, k, q, level, place, buffer[row, q * 64 + lane], leans[row, q * 64 + lane])


@jit
def distance(a, b, w, rtol, atol):
    """Root mean square of a - b in units of the tolerance."""
    total = 0.0
    for i in range(w.shape[0]):
        e = (a[i] - b[i]) / (atol + rtol * max(abs(w[i]), abs(b[i])))
        total += e * e
    total = math.sqrt(total / w.shape[0])
    return total if total < np.inf else np.inf


@jit
def advance_adaptive(
    draw, field, retract, fns, scheme, rows, columns, blocks, shown, streams, windows, places, sizes, counts, key,
    status, ended, first, last, target, rtol, atol, hp, c, d, nz, fp,
):  # fmt: skip
    """Carry the blocks first .. last-1 to step `target` by steps whose halves agree to the tolerance.

    A step is tried as a whole and as two halves, on the same path; the halves are kept where both agree. Steps have
    lengths 2^i and begin at multiples of them, so that the path is asked at dyadic times alone, and a rejected step
    changes how finely it is read but not the path.
    """
    size = blocks.shape[1] // 64
    n = d.shape[0]
    unit = 1 << UNITS
    z = np.zeros((rows + 1) * 64)
    buffer = np.zeros((WINDOW, (rows + 1) * 64))
    leans = np.zeros((WINDOW, (rows + 1) * 64))
    r = np.empty(256, np.uint64)
    index = np.zeros(64, np.int64)
    w = np.empty(size)
    whole = np.empty(size)
    half = np.empty(size)
    x = np.empty(size)
    y = np.empty(size)
    b = np.empty(size)
    b1 = np.empty(size)
    f = np.zeros((size, columns))
    f1 = np.zeros((size, columns))
    g = np.zeros((size, columns))
    W = np.zeros(columns)
    I = np.zeros(columns)
    W1 = np.zeros(columns)
    I1 = np.zeros(columns)
    V = np.zeros((columns, columns))
    for block in range(first, last):
        s = blocks[block]
        out = shown[block]
        while True:
            start = windows[block]
            stop = min(target, start + WINDOW) * unit
            for q in range(256):
                r[q] = streams[block, q]
            for turn in range(WINDOW):
                draw(r, z, index, index, start + turn + 1, n)
                for q in range(columns):
                    for lane in range(64):
                        buffer[turn, q * 64 + lane] = z[q * 64 + lane]
                        leans[turn, q * 64 + lane] = lean(key, block * 64 + lane, start + turn, q)
            for lane in range(64):
                path = block * 64 + lane
                if status[path] != 0:
                    continue
                for i in range(size):
                    w[i] = s[i * 64 + lane]
                at = places[path]
                h = sizes[path]
                code = 0
                while at + h <= stop:
                    # halves, then the whole, of the step [at, at + h)
                    for i in range(size):
                        half[i] = w[i]
                        whole[i] = w[i]
                    clock = at / float(unit) + 0.5
                    for q in range(columns):
                        a, e = between(buffer, leans, key, path, lane, q, start, at, h // 2, unit)
                        W[q] = a
                        I[q] = e
                    code = step(scheme, field, retract, fns, half, clock, 0.5 * h / unit, W, I, V, x, y, b, b1, f, f1,
                                g, hp, c, d, nz, fp)  # fmt: skip
                    for q in range(columns):
                        a, e = between(buffer, leans, key, path, lane, q, start, at + h // 2, h // 2, unit)
                        W1[q] = a
                        I1[q] = e
                    if code == 0:
                        code = step(scheme, field, retract, fns, half, clock + 0.5 * h / unit, 0.5 * h / unit, W1, I1,
                                    V, x, y, b, b1, f, f1, g, hp, c, d, nz, fp)  # fmt: skip
                    for q in range(columns):
                        I[q] += 0.5 * h / unit * W[q] + I1[q]
                        W[q] += W1[q]
                    if code == 0:
                        code = step(scheme, field, retract, fns, whole, clock, h / float(unit), W, I, V, x, y, b, b1,
                                    f, f1, g, hp, c, d, nz, fp)  # fmt: skip
                    error = distance(whole, half, w, rtol, atol) if code == 0 else np.inf
                    if error <= 1.0 or (h == 2 and error < np.inf):
                        at += h
                        counts[path] += 1
                        for i in range(size):
                            w[i] = half[i]
                        if error < 0.125 and at % (2 * h) == 0 and 2 * h <= WINDOW * unit:
                            h *= 2
                        while at % h != 0:
                            h //= 2
                    elif h > 2:
                        h //= 2
                        code = 0
                    else:
                        code = 1 if code == 0 else code
                        break
                places[path] = at
                sizes[path] = h
                settle_lane(code, w, (at + h) // unit + 1, path, lane, s, status, ended)
            if start + WINDOW > target:
                break
            # every path has reached the end of the window
            windows[block] = start + WINDOW
            for q in range(256):
                streams[block, q] = r[q]
            if start + WINDOW == target:
                break
        start = windows[block]
        for lane in range(64):
            path = block * 64 + lane
            for i in range(size):
                w[i] = s[i * 64 + lane]
            at = places[path]
            code = status[path]
            while code == 0 and at < target * unit:
                h = sizes[path]
                while at + h > target * unit or at % h != 0:
                    h //= 2
                for q in range(columns):
                    a, e = between(buffer, leans, key, path, lane, q, start, at, h, unit)
                    W[q] = a
                    I[q] = e
                code = step(scheme, field, retract, fns, w, at / float(unit) + 0.5, h / float(unit), W, I, V, x, y, b,
                            b1, f, f1, g, hp, c, d, nz, fp)  # fmt: skip
                at += h
            for i in range(size):
                out[i * 64 + lane] = w[i] if code == 0 else np.nan
