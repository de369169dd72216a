"""The compiled time loops of flows with noise.

A path's main chain of steps depends on nothing but its start, its stream and the size of steps. Where a save falls
inside a step, a side step from the last point of the chain, with the very increments up to the save, shows the state
there; the chain does not know of it.

A path is carried by itself from save to save, in lanes where the field allows it: then its state, its stream and the
field stay in registers.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from minidyn.compiler import jit, lanes, some
from minidyn.kernels.random import WORDS, path_beside, path_normals
from minidyn.solvers.brownian import coin, lean, piece, pieces
from minidyn.solvers.sde import worse

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

UNITS = 20  # adaptive steps are at least 2^-20 of a map's step
WINDOW = 32  # and at most this many of them
PLAN = 5  # numbers in a row of a plan: see `advance_stretches`
UNSEEN = 16  # steps between two looks at whether a state is finite
inline = partial(jit, inline=True, fma=True)


@inline
def draw(r, z, plain, start, beside, k):
    """The normals of the map's step k: z[0 .. plain-1], and z[start .. start+beside-1] from a second stream."""
    if beside > 0:
        path_beside(r, z, start, beside)
    path_normals(r, z, 0, plain, k)


@inline
def toss(key, path, k, place, columns, V):
    """The coins of one step: V[r, j] = -V[j, r]."""
    for r in range(columns):
        for j in range(r):
            x = coin(key, path, k, r, place * columns + j)
            V[r, j] = x
            V[j, r] = -x


@inline
def blemish(code, lost, w):
    """`lost` while a step went well, else NaN: its status code is not zero, or a state is not finite."""
    lost = np.nan if code != 0 else lost
    for i in range(w.shape[0]):
        lost += w[i] * 0.0
    return lost


@inline
def kept(field, retract, fns, step, w, k, h, W, I, V, room, hp, c, d, nz, fp):
    """One step of the scheme from the clock k, then the retraction; a status code."""
    code = step(field, fns, w, k, h, W, I, V, room, hp, c, d, nz, fp)
    return worse(code, retract(fns, w, hp, c, d, nz, fp))


@inline
def leap(
    field, retract, fns, step, areas, coins, plain, start, beside, shift, parts, rates, rate, key, path, r, w, k, now,
    z, W, I, V, pW, pI, room, hp, c, d, nz, fp,
):  # fmt: skip
    """Carry one path from step k over `now` steps of the map, in `parts` equal steps of the scheme; a status code.

    Where the steps have `rates` of their own, the noise of each counts as its rate does beside the one in hp[rate]."""
    columns = W.shape[0]
    draw(r, z, plain, start, beside, shift + k + 1)
    share = rates[k] / hp[rate] if rate >= 0 else 1.0
    for q in range(columns):
        W[q] = share * z[q]
    if areas:
        for q in range(columns):
            I[q] = share * (0.5 * z[q] + lean(key, path, k, q))
    for turn in range(1, now):
        draw(r, z, plain, start, beside, shift + k + turn + 1)
        share = rates[k + turn] / hp[rate] if rate >= 0 else 1.0
        for q in range(columns):
            if areas:
                I[q] += W[q] + share * (0.5 * z[q] + lean(key, path, k + turn, q))
            W[q] += share * z[q]
    if parts == 1:
        if coins:
            toss(key, path, k, 0, columns, V)
        h = float(now)
        return kept(field, retract, fns, step, w, k + 0.5, h, W, I, V, room, hp, c, d, nz, fp)
    level = 0
    while (1 << level) < parts:
        level += 1
    for q in range(columns):
        pieces(key, path, k, q, level, W[q], lean(key, path, k, q), pW[q], pI[q])
    h = 1.0 / parts
    code = 0 * path
    for part in range(parts):
        for q in range(columns):
            W[q] = pW[q, part]
            I[q] = (0.5 * pW[q, part] + pI[q, part]) * h
        if coins:
            toss(key, path, k, part, columns, V)
        clock = k + 0.5 + part * h
        code = worse(code, kept(field, retract, fns, step, w, clock, h, W, I, V, room, hp, c, d, nz, fp))
    return code


@jit(fma=True, thorough=True)
def watched(
    field, retract, fns, step, halts, areas, coins, plain, start, beside, shift, size, columns, parts, rates, rate,
    key, path, r, w, k, goal, span, code, lost, live, hp, c, d, nz, fp,
):  # fmt: skip
    """Carry one path from step k to `goal` and look at it after every step: `(code, lost, live)`, where `lost` stays
    zero and `live` counts steps as long as all is well."""
    z = np.zeros(plain + start + beside + 1)
    W = np.empty(columns)
    I = np.zeros(columns)
    V = np.zeros((columns, columns))
    pW = np.empty((columns, parts))
    pI = np.empty((columns, parts))
    room = (
        np.empty(size), np.empty(size), np.empty(size), np.empty(size),
        np.zeros((size, columns)), np.zeros((size, columns)), np.zeros((size, columns)),
    )  # fmt: skip
    while k < goal:
        fails = leap(
            field, retract, fns, step, areas, coins, plain, start, beside, shift, parts, rates, rate, key, path, r, w,
            k, span, z, W, I, V, pW, pI, room, hp, c, d, nz, fp,
        )  # fmt: skip
        k += span
        code = worse(code, fails) if lost == 0.0 else code
        lost = blemish(fails, lost, w)
        live = live + 1.0 if lost == 0.0 else live
        if halts and not some(lost == 0.0):
            break
    return worse(code, 0 if lost == 0.0 else 1), lost, live


@jit(fma=True, thorough=True)
def advance_sde(
    field, retract, fns, step, halts, areas, coins, plain, start, beside, shift, size, columns, parts, rates, rate,
    blocks, shown, streams, key, status, ended, first, last, k0, goal, target, span, hp, c, d, nz, fp,
):  # fmt: skip
    """Carry the blocks first .. last-1 from step k0 to `goal` by steps of `span` steps of the map, or of 1/parts of
    one; then show the states at `target`, less than one step further.

    With `halts` every step is looked at, as a field wants that may fail. Else a state that is not finite stays so: a
    few steps are made without a look, and made again with one where they end badly or one of them failed: a scheme may
    fail at a point beside its way, and end well.
    """
    for block in range(first, last):
        s = blocks[block]
        out = shown[block]
        words = streams[block]
        for lane in lanes(64):
            path = 64 * block + lane
            before = status[path]
            if some(before == 0):
                r = np.empty(WORDS, np.uint64)
                w = np.empty(size)
                old = np.empty(WORDS, np.uint64)
                last_w = np.empty(size)
                for q in range(WORDS):
                    old[q] = words[q * 64 + lane]
                for i in range(size):
                    last_w[i] = s[i * 64 + lane]
                code = status[path]
                lost = 0.0 if before == 0 else np.nan
                live = 0.0
                k = k0
                if halts:
                    code, lost, live = watched(
                        field, retract, fns, step, halts, areas, coins, plain, start, beside, shift, size, columns,
                        parts, rates, rate, key, path, old, last_w, k, goal, span, code, lost, live, hp, c, d, nz, fp,
                    )  # fmt: skip
                else:
                    z = np.zeros(plain + start + beside + 1)
                    W = np.empty(columns)
                    I = np.zeros(columns)
                    V = np.zeros((columns, columns))
                    pW = np.empty((columns, parts))
                    pI = np.empty((columns, parts))
                    room = (
                        np.empty(size), np.empty(size), np.empty(size), np.empty(size),
                        np.zeros((size, columns)), np.zeros((size, columns)), np.zeros((size, columns)),
                    )  # fmt: skip
                    for q in range(WORDS):
                        r[q] = old[q]
                    for i in range(size):
                        w[i] = last_w[i]
                    while k < goal:
                        stop = min(k + UNSEEN * span, goal)
                        at = k
                        fails = 0 * path
                        while at < stop:
                            now = leap(
                                field, retract, fns, step, areas, coins, plain, start, beside, shift, parts, rates,
                                rate, key, path, r, w, at, span, z, W, I, V, pW, pI, room, hp, c, d, nz, fp,
                            )  # fmt: skip
                            fails = worse(fails, now)
                            at += span
                        if some(blemish(fails, lost, w) != 0.0 and lost == 0.0):
                            code, lost, live = watched(
                                field, retract, fns, step, halts, areas, coins, plain, start, beside, shift, size,
                                columns, parts, rates, rate, key, path, old, last_w, k, stop, span, code, lost, live,
                                hp, c, d, nz, fp,
                            )  # fmt: skip
                            for q in range(WORDS):
                                r[q] = old[q]
                            for i in range(size):
                                w[i] = last_w[i]
                        else:
                            live = live + float((stop - k) // span) if lost == 0.0 else live
                        for q in range(WORDS):
                            old[q] = r[q]
                        for i in range(size):
                            last_w[i] = w[i]
                        k = stop
                status[path] = code
                ended[path] = k0 + span * (np.int64(live) + 1) if before == 0 and code != 0 else ended[path]
                for q in range(WORDS):
                    words[q * 64 + lane] = old[q]
                for i in range(size):
                    here = last_w[i] if code == 0 else np.nan
                    s[i * 64 + lane] = here if before == 0 else s[i * 64 + lane]
                if goal < target and some(code == 0):
                    code, lost, live = watched(
                        field, retract, fns, step, halts, areas, coins, plain, start, beside, shift, size, columns,
                        parts, rates, rate, key, path, old, last_w, goal, target, target - goal, code, lost, live, hp,
                        c, d, nz, fp,
                    )  # fmt: skip
                for i in range(size):
                    out[i * 64 + lane] = last_w[i] if code == 0 else np.nan


@jit(fma=True, thorough=True)
def wait(plain, start, beside, shift, size, blocks, shown, streams, first, last, k0, goal):
    """Nothing moves in the steps k0 .. goal, but the map draws: so do the streams."""
    for block in range(first, last):
        s = blocks[block]
        out = shown[block]
        words = streams[block]
        for lane in lanes(64):
            r = np.empty(WORDS, np.uint64)
            z = np.zeros(plain + start + beside + 1)
            for q in range(WORDS):
                r[q] = words[q * 64 + lane]
            for k in range(k0, goal):
                draw(r, z, plain, start, beside, shift + k + 1)
            for q in range(WORDS):
                words[q * 64 + lane] = r[q]
            for i in range(size):
                out[i * 64 + lane] = s[i * 64 + lane]


@jit(fma=True, thorough=True)
def advance_stretches(
    field, retract, fns, step, halts, areas, coins, plain, start, beside, shift, size, columns, parts, rates, rate,
    blocks, shown, streams, key, status, ended, first, last, plan, hypers, c, d, nz, fp,
):  # fmt: skip
    """`advance_sde` through stretches of steps that have their own numbers: rows `(k0, goal, target, span, stretch)` of
    the plan; with a span of 0 nothing moves."""
    for j in range(plan.shape[0]):
        k0, goal, target, span = plan[j, 0], plan[j, 1], plan[j, 2], plan[j, 3]
        if span == 0:
            wait(plain, start, beside, shift, size, blocks, shown, streams, first, last, k0, goal)
        else:
            advance_sde(
                field, retract, fns, step, halts, areas, coins, plain, start, beside, shift, size, columns, parts,
                rates, rate, blocks, shown, streams, key, status, ended, first, last, k0, goal, target, span,
                hypers[plan[j, 4]], c, d, nz, fp,
            )  # fmt: skip


@jit
def stretch_of(ends, k):
    """Which stretch the step after k belongs to: the first that ends beyond k."""
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if ends[middle] > k:
            high = middle
        else:
            low = middle + 1
    return low


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
    field, retract, fns, step, plain, beside_from, beside, shift, columns, blocks, shown, streams, windows, places,
    sizes, counts, key, status, ended, first, last, target, rtol, atol, ends, moves, hypers, c, d, nz, fp,
):  # fmt: skip
    """Carry the blocks first .. last-1 to step `target` by steps whose halves agree to the tolerance.

    No step crosses the end of a stretch, whose numbers are a row of `hypers`; where one does not move, nothing does.

    A step is tried as a whole and as two halves, on the same path; the halves are kept where both agree. Steps have
    lengths 2^i and begin at multiples of them, so that the path is asked at dyadic times alone, and a rejected step
    changes how finely it is read but not the path.
    """
    size = blocks.shape[1] // 64
    unit = 1 << UNITS
    z = np.zeros(plain + beside_from + beside + 1)
    buffer = np.zeros((WINDOW, columns * 64))
    leans = np.zeros((WINDOW, columns * 64))
    words = np.empty(WORDS * 64, np.uint64)
    r = np.empty(WORDS, np.uint64)
    w = np.empty(size)
    whole = np.empty(size)
    half = np.empty(size)
    W = np.zeros(columns)
    I = np.zeros(columns)
    W1 = np.zeros(columns)
    I1 = np.zeros(columns)
    V = np.zeros((columns, columns))
    room = (
        np.empty(size), np.empty(size), np.empty(size), np.empty(size),
        np.zeros((size, columns)), np.zeros((size, columns)), np.zeros((size, columns)),
    )  # fmt: skip
    for block in range(first, last):
        s = blocks[block]
        out = shown[block]
        while True:
            start = windows[block]
            stop = min(target, start + WINDOW) * unit
            for lane in range(64):
                for q in range(WORDS):
                    r[q] = streams[block, q * 64 + lane]
                for turn in range(WINDOW):
                    draw(r, z, plain, beside_from, beside, shift + start + turn + 1)
                    for q in range(columns):
                        buffer[turn, q * 64 + lane] = z[q]
                        leans[turn, q * 64 + lane] = lean(key, block * 64 + lane, start + turn, q)
                for q in range(WORDS):
                    words[q * 64 + lane] = r[q]
            for lane in range(64):
                path = block * 64 + lane
                if status[path] != 0:
                    continue
                for i in range(size):
                    w[i] = s[i * 64 + lane]
                at = places[path]
                h = sizes[path]
                code = 0
                here = stretch_of(ends, at // unit)
                edge = ends[here] * unit
                while at < stop:
                    if at >= edge:
                        here = stretch_of(ends, at // unit)
                        edge = ends[here] * unit
                    while moves[here] != 0 and at + h > edge:
                        h //= 2
                    there = at + h if moves[here] != 0 else min(edge, (start + WINDOW) * unit)
                    if there > stop:
                        break
                    if moves[here] == 0:
                        at = there
                        while at == edge and at % h != 0:
                            h //= 2
                        continue
                    hp = hypers[here]
                    # halves, then the whole, of the step [at, at + h)
                    for i in range(size):
                        half[i] = w[i]
                        whole[i] = w[i]
                    clock = at / float(unit) + 0.5
                    for q in range(columns):
                        a, e = between(buffer, leans, key, path, lane, q, start, at, h // 2, unit)
                        W[q] = a
                        I[q] = e
                    code = kept(field, retract, fns, step, half, clock, 0.5 * h / unit, W, I, V, room, hp, c, d, nz, fp)
                    for q in range(columns):
                        a, e = between(buffer, leans, key, path, lane, q, start, at + h // 2, h // 2, unit)
                        W1[q] = a
                        I1[q] = e
                    if code == 0:
                        code = kept(field, retract, fns, step, half, clock + 0.5 * h / unit, 0.5 * h / unit, W1, I1, V,
                                    room, hp, c, d, nz, fp)  # fmt: skip
                    for q in range(columns):
                        I[q] += 0.5 * h / unit * W[q] + I1[q]
                        W[q] += W1[q]
                    if code == 0:
                        code = kept(field, retract, fns, step, whole, clock, h / float(unit), W, I, V, room, hp, c, d,
                                    nz, fp)  # fmt: skip
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
                code = worse(code, 0 if blemish(code, 0.0, w) == 0.0 else 1)
                if code != 0:
                    status[path] = code
                    ended[path] = (at + h) // unit + 1
                for i in range(size):
                    s[i * 64 + lane] = w[i] if code == 0 else np.nan
            if start + WINDOW > target:
                break
            # every path has reached the end of the window
            windows[block] = start + WINDOW
            for q in range(WORDS * 64):
                streams[block, q] = words[q]
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
                here = stretch_of(ends, at // unit)
                if moves[here] == 0:
                    at = min(ends[here], target) * unit
                    continue
                h = sizes[path]
                hp = hypers[here]
                while at + h > ends[here] * unit or at + h > target * unit or at % h != 0:
                    h //= 2
                for q in range(columns):
                    a, e = between(buffer, leans, key, path, lane, q, start, at, h, unit)
                    W[q] = a
                    I[q] = e
                code = kept(field, retract, fns, step, w, at / float(unit) + 0.5, h / float(unit), W, I, V, room, hp,
                            c, d, nz, fp)  # fmt: skip
                at += h
            for i in range(size):
                out[i * 64 + lane] = w[i] if code == 0 else np.nan
