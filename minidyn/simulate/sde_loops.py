"""The compiled time loops of flows with noise, in steps of equal length.

A path's main chain of steps depends on nothing but its start, its stream and the size of steps. Where a save falls
inside a step, a side step from the last point of the chain, with the very increments up to the save, shows the state
there; the chain does not know of it.

A path is carried by itself from save to save, in lanes where the field allows it: then its state, its stream and the
field stay in registers. What the loops are given comes in a few tuples:

    scheme  = (step, checks, areas, coins, parts)   one step of it, whether the field may fail, what it draws beside
                                                    the increments, how many of its steps make one of the map
    normals = (plain, start, beside, shift)         see `Flow.draws`; shift 1 for a run that begins at an even step
    shape   = (size, columns)                       of a state and of its noise
    rates   = (rates, rate)                         see `Clock`
    paths   = (blocks, shown, streams, key, status, ended)
"""

import numpy as np

from minidyn.common.status import Status
from minidyn.compiler import jit, lanes, some
from minidyn.kernels.random import WORDS, path_beside, path_normals
from minidyn.solvers.brownian import coin, levy_area, pieces
from minidyn.solvers.system import inline, put_back, worse

PLAN = 5  # numbers in a row of a plan: see `advance_stretches`
NO_PATH = 99  # what stands as the status of a lane that only fills up the last block
_UNCHECKED = 16  # steps between two looks at whether a state is finite


@inline
def draw(r, z, normals, k):
    """The normals of the map's step k: z[0 .. plain-1], and z[start .. start+beside-1] from a second stream."""
    plain, start, beside, shift = normals
    if beside > 0:
        path_beside(r, z, start, beside)
    path_normals(r, z, 0, plain, shift + k)


@inline
def toss(key, path, k, place, columns, V):
    """The coins of one step: V[r, j] = -V[j, r]."""
    for r in range(columns):
        for j in range(r):
            x = coin(key, path, k, r, place * columns + j)
            V[r, j] = x
            V[j, r] = -x


@inline
def lost_now(code, lost, w):
    """`lost` while a step went well, else NaN: its status code is not zero, or a state is not finite."""
    lost = np.nan if code != 0 else lost
    for i in range(w.shape[0]):
        lost += w[i] * 0.0
    return lost


@inline
def step_on(system, step, w, k, h, noise, room):
    """One step of a scheme from the clock k, then back to where the flow lives; a status code."""
    code = step(system, w, k, h, noise, room)
    return worse(code, put_back(system, w))


@inline
def increments(normals, rates, areas, stream, k, span, z, W, I):
    """The Brownian increments W and areas I over `span` steps of the map after step k.

    Where the steps have rates of their own, the noise of each counts as its rate does beside that of all."""
    key, path, r = stream
    each, rate, mean = rates
    for q in range(W.shape[0]):
        W[q] = 0.0
        I[q] = 0.0
    for turn in range(span):
        draw(r, z, normals, k + turn + 1)
        share = each[k + turn] / mean if rate >= 0 else 1.0
        for q in range(W.shape[0]):
            if areas:
                I[q] += W[q] + share * (0.5 * z[q] + levy_area(key, path, k + turn, q))
            W[q] += share * z[q]


@inline
def scheme_step(system, scheme, normals, rates, stream, w, k, span, room):
    """Carry one path from step k over `span` steps of the map by one step of the scheme, or over one by `parts` equal
    steps; a status code."""
    step, _, areas, coins, parts = scheme
    z, noise, (part_W, part_H), space = room
    W, I, V = noise
    key, path, _ = stream
    _, _, _, (hp, _, _, _, _) = system
    each, rate = rates
    columns = W.shape[0]
    mean = hp[rate] if rate >= 0 else 1.0
    increments(normals, (each, rate, mean), areas, stream, k, span, z, W, I)
    if parts == 1:
        if coins:
            toss(key, path, k, 0, columns, V)
        return step_on(system, step, w, k + 0.5, float(span), noise, space)
    level = 0
    while (1 << level) < parts:
        level += 1
    for q in range(columns):
        pieces(key, path, k, q, level, W[q], levy_area(key, path, k, q), part_W[q], part_H[q])
    h = 1.0 / parts
    code = 0 * path
    for part in range(parts):
        for q in range(columns):
            W[q] = part_W[q, part]
            I[q] = (0.5 * part_W[q, part] + part_H[q, part]) * h
        if coins:
            toss(key, path, k, part, columns, V)
        code = worse(code, step_on(system, step, w, k + 0.5 + part * h, h, noise, space))
    return code


@jit(fma=True, thorough=True)
def steps_of_path(system, scheme, normals, shape, rates, stream, w, span_of, found):
    """Carry one path from step k to `goal` by steps of `span`; `(code, lost, live)`, where `lost` stays zero and `live`
    counts steps as long as all is well.

    A field that may fail wants a look at every step. Else a state that is not finite stays so: a few steps are made
    without a look, and made again with one where they end badly or one of them failed: a scheme may fail at a point
    beside its way, and end well.
    """
    key, path, r = stream
    k, goal, span = span_of
    code, lost, live = found
    size, columns = shape
    _, checks, _, _, parts = scheme
    plain, start, beside, _ = normals
    room = (
        np.zeros(plain + start + beside + 1),
        (np.empty(columns), np.zeros(columns), np.zeros((columns, columns))),
        (np.empty((columns, parts)), np.empty((columns, parts))),
        (
            np.empty(size),
            np.empty(size),
            np.empty(size),
            np.empty(size),
            np.zeros((size, columns)),
            np.zeros((size, columns)),
            np.zeros((size, columns)),
        ),
    )
    here, words = np.empty(size), np.empty(WORDS, np.uint64)
    exchange(w, here, r, words)
    look = checks
    while k < goal:
        stop, at = min(k + _UNCHECKED * span, goal), k
        fails = 0 * path
        while at < stop:
            now = scheme_step(system, scheme, normals, rates, (key, path, words), here, at, span, room)
            fails = worse(fails, now)
            at += span
            if look:
                code = worse(code, now) if lost == 0.0 else code
                lost = lost_now(now, lost, here)
                live = live + 1.0 if lost == 0.0 else live
        if look or not some(lost_now(fails, lost, here) != 0.0 and lost == 0.0):
            if not look:
                live = live + float((stop - k) // span) if lost == 0.0 else live
            exchange(here, w, words, r)
            k, look = stop, checks
            if checks and not some(lost == 0.0):
                break
        else:
            exchange(w, here, r, words)
            look = 1
    return worse(code, Status.FINISHED if lost == 0.0 else Status.DIVERGED), lost, live


@inline
def exchange(w, out, r, words):
    """Copy a state and a stream."""
    for i in range(w.shape[0]):
        out[i] = w[i]
    for q in range(WORDS):
        words[q] = r[q]


@jit(fma=True, thorough=True)
def advance_sde(system, scheme, normals, shape, rates, paths, first, last, span_of):
    """Carry the blocks first .. last-1 from step k0 to `goal` by steps of `span` steps of the map, or of 1/parts of
    one; then show the states at `target`, less than one step further."""
    blocks, shown, streams, key, status, ended = paths
    k0, goal, target, span = span_of
    size, _ = shape
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
                for q in range(WORDS):
                    r[q] = words[q * 64 + lane]
                for i in range(size):
                    w[i] = s[i * 64 + lane]
                found = (before, 0.0 if before == 0 else np.nan, 0.0 * before)
                stream = (key, path, r)
                code, lost, live = steps_of_path(
                    system, scheme, normals, shape, rates, stream, w, (k0, goal, span), found
                )
                status[path] = code
                ended[path] = k0 + span * (np.int64(live) + 1) if before == 0 and code != 0 else ended[path]
                for q in range(WORDS):
                    words[q * 64 + lane] = r[q]
                for i in range(size):
                    here = w[i] if code == 0 else np.nan
                    s[i * 64 + lane] = here if before == 0 else s[i * 64 + lane]
                if goal < target and some(code == 0):
                    code, lost, live = steps_of_path(
                        system,
                        scheme,
                        normals,
                        shape,
                        rates,
                        stream,
                        w,
                        (goal, target, target - goal),
                        (code, lost, live),
                    )
                for i in range(size):
                    out[i * 64 + lane] = w[i] if code == 0 else np.nan


@jit(fma=True, thorough=True)
def advance_saving(system, scheme, normals, shape, rates, paths, first, last, way, out):
    """`advance_sde` from step `at` of the main chain to one target after the other, by steps of `span`; the states
    that are shown at each into `out` (paths, targets, numbers), if that has room. way : (at, span, targets)."""
    _, shown, _, _, _, _ = paths
    at, span, targets = way
    for q in range(targets.shape[0]):
        goal = at + (targets[q] - at) // span * span
        advance_sde(system, scheme, normals, shape, rates, paths, first, last, (at, goal, targets[q], span))
        at = goal
        if q < out.shape[1]:
            for path in range(64 * first, min(64 * last, out.shape[0])):
                for i in range(out.shape[2]):
                    out[path, q, i] = shown[path // 64, i * 64 + path % 64]


@jit(fma=True, thorough=True)
def draw_only(normals, shape, paths, first, last, k0, goal):
    """Nothing moves in the steps k0 .. goal, but the map draws: so do the streams."""
    blocks, shown, streams, _, _, _ = paths
    plain, start, beside, _ = normals
    size, _ = shape
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
                draw(r, z, normals, k + 1)
            for q in range(WORDS):
                words[q * 64 + lane] = r[q]
            for i in range(size):
                out[i * 64 + lane] = s[i * 64 + lane]


@jit(fma=True, thorough=True)
def advance_stretches(flow, scheme, normals, shape, rates, paths, first, last, plan, hypers, rest):
    """`advance_sde` through stretches of steps that have their own numbers: rows `(k0, goal, target, span, stretch)` of
    the plan; with a span of 0 nothing moves."""
    field, retract, fns = flow
    c, d, nz, fp = rest
    for j in range(plan.shape[0]):
        k0, goal, target, span = plan[j, 0], plan[j, 1], plan[j, 2], plan[j, 3]
        if span == 0:
            draw_only(normals, shape, paths, first, last, k0, goal)
        else:
            advance_sde(
                (field, retract, fns, (hypers[plan[j, 4]], c, d, nz, fp)),
                scheme,
                normals,
                shape,
                rates,
                paths,
                first,
                last,
                (k0, goal, target, span),
            )
