"""The compiled time loop of flows with noise, in steps that each path chooses for itself.

A step is tried as a whole and as two halves, on the same path; the halves are kept where both agree. Steps have
lengths 2^i, in units of 2^-20 steps of the map, and begin at multiples of them, so that the path is asked at dyadic
times alone, and a rejected step changes how finely it is read but not the path.

The normals of a window of steps are drawn ahead for the paths of a block, which reach its end one after the other. The
tuples `normals` and `paths` are those of `sde_loops`; beside them

    chosen    = (windows, places, sizes, counts)     where the window of a block begins; a path's place, the length of
                                                     its next step, and how many it made
    equations = (flow, step, stretches, rest)        what moves them: the flow's functions, a scheme's step, stretches
                                                     `(ends, moves, hypers)` of which no step crosses the end (see
                                                     `Clock`), and the rest `(c, d, nz, fp)` of the model
    brownian  = (increments, areas, key, path, lane, start)   a path in the window that begins after step `start`
"""

import math

import numpy as np

from minidyn.common.status import Status
from minidyn.compiler import jit
from minidyn.kernels.random import WORDS
from minidyn.simulate.sde_loops import draw, lost_now, step_on
from minidyn.solvers.brownian import levy_area, piece
from minidyn.solvers.system import worse

LEVELS = 20  # steps are at least 2^-20 of a map's step
UNIT = 1 << LEVELS
WINDOW = 32  # and at most this many of them
_LEAST = 2  # units: the shortest step, which still has two halves
_GROWS = 0.125  # errors below this double the step


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
def between(brownian, q, at, length):
    """(W, I) over [at, at + length) in units; dyadic, or whole steps of the window."""
    increments, areas, key, path, lane, start = brownian
    if length >= UNIT:
        w, area = 0.0, 0.0
        for turn in range(at // UNIT, (at + length) // UNIT):
            z = increments[turn - start, q * 64 + lane]
            area += w + 0.5 * z + areas[turn - start, q * 64 + lane]
            w += z
        return w, area
    k = at // UNIT
    level = 0
    while (UNIT >> level) > length:
        level += 1
    place = (at - k * UNIT) // length
    row = k - start
    return piece(key, path, k, q, level, place, increments[row, q * 64 + lane], areas[row, q * 64 + lane])


@jit
def read_path(brownian, at, length, W, I):
    """`between` for all columns."""
    for q in range(W.shape[0]):
        W[q], I[q] = between(brownian, q, at, length)


@jit
def distance(a, b, w, tolerance):
    """Root mean square of a - b in units of the tolerance."""
    rtol, atol = tolerance
    total = 0.0
    for i in range(w.shape[0]):
        e = (a[i] - b[i]) / (atol + rtol * max(abs(w[i]), abs(b[i])))
        total += e * e
    total = math.sqrt(total / w.shape[0])
    return total if total < np.inf else np.inf


@jit
def try_step(system, step, brownian, w, at, h, room):
    """Two halves, then the whole, of the step [at, at + h): `whole` and `half` become the points; a status code."""
    whole, half, first, second, space = room
    W, I, _ = first
    W1, I1, _ = second
    for i in range(w.shape[0]):
        half[i] = w[i]
        whole[i] = w[i]
    clock = at / float(UNIT) + 0.5
    read_path(brownian, at, h // 2, W, I)
    code = step_on(system, step, half, clock, 0.5 * h / UNIT, first, space)
    read_path(brownian, at + h // 2, h // 2, W1, I1)
    if code == 0:
        code = step_on(system, step, half, clock + 0.5 * h / UNIT, 0.5 * h / UNIT, second, space)
    for q in range(W.shape[0]):
        I[q] += 0.5 * h / UNIT * W[q] + I1[q]
        W[q] += W1[q]
    if code == 0:
        code = step_on(system, step, whole, clock, h / float(UNIT), first, space)
    return code


@jit
def to_end_of_window(equations, brownian, w, ahead, tolerance, room):
    """Carry one path from its place `at` towards `stop`: its code, place, length of the next step, and steps made."""
    at, h, stop = ahead
    (field, retract, fns), step, (ends, moves, hypers), (c, d, nz, fp) = equations
    whole, half, _, _, _ = room
    _, _, _, _, _, start = brownian
    made, code = 0, 0
    here = stretch_of(ends, at // UNIT)
    edge = ends[here] * UNIT
    while at < stop:
        if at >= edge:
            here = stretch_of(ends, at // UNIT)
            edge = ends[here] * UNIT
        while moves[here] != 0 and at + h > edge:
            h //= 2
        there = at + h if moves[here] != 0 else min(edge, (start + WINDOW) * UNIT)
        if there > stop:
            break
        if moves[here] == 0:
            at = there
            while at == edge and at % h != 0:
                h //= 2
            continue
        code = try_step((field, retract, fns, (hypers[here], c, d, nz, fp)), step, brownian, w, at, h, room)
        error = distance(whole, half, w, tolerance) if code == 0 else np.inf
        if error <= 1.0 or (h == _LEAST and error < np.inf):
            at += h
            made += 1
            for i in range(w.shape[0]):
                w[i] = half[i]
            if error < _GROWS and at % (2 * h) == 0 and 2 * h <= WINDOW * UNIT:
                h *= 2
            while at % h != 0:
                h //= 2
        elif h > _LEAST:
            h //= 2
            code = 0
        else:
            code = Status.DIVERGED if code == 0 else code
            break
    return code, at, h, made


@jit
def read_window(normals, key, block, start, words, r, z, increments, areas):
    """Draw the normals of a window for the paths of a block: increments and areas (WINDOW, columns * 64)."""
    columns = increments.shape[1] // 64
    for lane in range(64):
        for q in range(WORDS):
            r[q] = words[q * 64 + lane]
        for turn in range(WINDOW):
            draw(r, z, normals, start + turn + 1)
            for q in range(columns):
                increments[turn, q * 64 + lane] = z[q]
                areas[turn, q * 64 + lane] = levy_area(key, block * 64 + lane, start + turn, q)
        for q in range(WORDS):
            words[q * 64 + lane] = r[q]


@jit
def side_step(equations, brownian, w, at, h, target, room):
    """Carry a copy of a path to `target`, which lies inside its next step, by steps that fit; a status code."""
    (field, retract, fns), step, (ends, moves, hypers), (c, d, nz, fp) = equations
    _, _, noise, _, space = room
    W, I, _ = noise
    most, code = h, 0
    while code == 0 and at < target * UNIT:
        here = stretch_of(ends, at // UNIT)
        if moves[here] == 0:
            at = min(ends[here], target) * UNIT
            continue
        h = most
        while at + h > ends[here] * UNIT or at + h > target * UNIT or at % h != 0:
            h //= 2
        read_path(brownian, at, h, W, I)
        system = (field, retract, fns, (hypers[here], c, d, nz, fp))
        code = step_on(system, step, w, at / float(UNIT) + 0.5, h / float(UNIT), noise, space)
        at += h
    return code


@jit
def block_to_end_of_window(equations, brownian, paths, chosen, block, w, stop, tolerance, room):
    """Carry the paths of a block that go on, to the end of its window or where a step would end beyond `stop`."""
    blocks, _, _, _, status, ended = paths
    _, places, sizes, counts = chosen
    increments, areas, key, start = brownian
    s = blocks[block]
    for lane in range(64):
        path = block * 64 + lane
        if status[path] != 0:
            continue
        for i in range(w.shape[0]):
            w[i] = s[i * 64 + lane]
        one = (increments, areas, key, path, lane, start)
        code, at, h, made = to_end_of_window(equations, one, w, (places[path], sizes[path], stop), tolerance, room)
        places[path], sizes[path] = at, h
        counts[path] += made
        code = worse(code, Status.FINISHED if lost_now(code, 0.0, w) == 0.0 else Status.DIVERGED)
        if code != 0:
            status[path] = code
            ended[path] = (at + h) // UNIT + 1
        for i in range(w.shape[0]):
            s[i * 64 + lane] = w[i] if code == 0 else np.nan


@jit
def show_block(equations, brownian, paths, chosen, block, w, target, room):
    """The states of the paths of a block at step `target`; NaN where one has ended."""
    blocks, shown, _, _, status, _ = paths
    _, places, sizes, _ = chosen
    increments, areas, key, start = brownian
    s, out = blocks[block], shown[block]
    for lane in range(64):
        path = block * 64 + lane
        code = status[path]
        for i in range(w.shape[0]):
            w[i] = s[i * 64 + lane]
        if code == 0:
            one = (increments, areas, key, path, lane, start)
            code = side_step(equations, one, w, places[path], sizes[path], target, room)
        for i in range(w.shape[0]):
            out[i * 64 + lane] = w[i] if code == 0 else np.nan


@jit
def advance_adaptive(equations, normals, shape, paths, chosen, bounds, tolerance):
    """Carry the blocks first .. last-1 to step `target` by steps whose halves agree to the tolerance, and show the
    states there."""
    first, last, target = bounds
    _, _, streams, key, _, _ = paths
    windows, _, _, _ = chosen
    plain, beside_from, beside, _ = normals
    size, columns = shape
    z = np.zeros(plain + beside_from + beside + 1)
    r, words = np.empty(WORDS, np.uint64), np.empty(WORDS * 64, np.uint64)
    increments, areas = np.zeros((WINDOW, columns * 64)), np.zeros((WINDOW, columns * 64))
    w, V = np.empty(size), np.zeros((columns, columns))
    room = (
        np.empty(size), np.empty(size),
        (np.zeros(columns), np.zeros(columns), V), (np.zeros(columns), np.zeros(columns), V),
        (
            np.empty(size), np.empty(size), np.empty(size), np.empty(size),
            np.zeros((size, columns)), np.zeros((size, columns)), np.zeros((size, columns)),
        ),
    )  # fmt: skip
    for block in range(first, last):
        going = True
        while going:
            start = windows[block]
            for q in range(WORDS * 64):
                words[q] = streams[block, q]
            read_window(normals, key, block, start, words, r, z, increments, areas)
            block_to_end_of_window(
                equations,
                (increments, areas, key, start),
                paths,
                chosen,
                block,
                w,
                min(target, start + WINDOW) * UNIT,
                tolerance,
                room,
            )
            if start + WINDOW <= target:  # every path has reached the end of the window
                windows[block] = start + WINDOW
                for q in range(WORDS * 64):
                    streams[block, q] = words[q]
            going = start + WINDOW < target
        show_block(equations, (increments, areas, key, windows[block]), paths, chosen, block, w, target, room)
