"""Adaptive explicit Runge-Kutta steps with dense output, for any tableau.

The steps never know where a run is saved: a save is read from the polynomial of the step that covers it, so that
rare and frequent saves are the same numbers. A path's row of numbers, its start `w0` and slopes `K` of the last
step hold all that an integration needs to go on. Paths run in lanes where their field can, each with its own step size;
what a lane does not depends on its neighbours. Source: Hairer, Norsett, Wanner, *Solving ODEs I* (1993), II.4-II.6.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from minidyn.compiler import jit, lanes, some
from minidyn.kernels.vectormath import exp, log
from minidyn.solvers.rows import ATTEMPTS, CRAWL, DENSE, FASTEST, FRESH, LATEST, MODE, NOW, PAST, SPAN, STEADY, STIFF, H
from minidyn.solvers.sde import worse

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_TINY = 1e-14  # of the clock: a step this small has failed
_SMALL, _LONG = 1e-9, 2000.0  # and so many steps in a row this small: the flow chatters across a kink
_SAME = 1e-26  # of the square of a point: what is nearer than this differs by rounding
_FORGET = 0.95  # of the fastest rate, per step: what has come to rest is not seen, and must not be forgotten at once
_FAR = 1e300  # an error that is not finite
inline = partial(jit, inline=True, fma=True)


@inline
def norm(x, w, v, rtol, atol):
    """Root mean square of x in units of the tolerance at w and v."""
    total = 0.0
    for i in range(x.shape[0]):
        e = x[i] / (atol + rtol * max(abs(w[i]), abs(v[i])))
        total += e * e
    return math.sqrt(total / x.shape[0])


@inline
def first_step(field, fns, w, slope, k, end, power, rtol, atol, trial, other, hp, c, d, nz, fp, f):
    """A first step size from the size of the field and of its change (Hairer, Norsett, Wanner, II.4)."""
    size, speed = norm(w, w, w, rtol, atol), norm(slope, w, w, rtol, atol)
    h = 0.01 * size / speed if min(size, speed) > 1e-5 else 1e-6
    h = min(h, end - k)
    for i in range(w.shape[0]):
        trial[i] = w[i] + h * slope[i]
    code = field(fns, trial, k + h, hp, c, d, nz, fp, other, f)
    for i in range(w.shape[0]):
        other[i] -= slope[i]
    bend = norm(other, w, w, rtol, atol) / h
    largest = max(speed, bend)
    better = exp(power * log(0.01 / largest)) if largest > 1e-15 else max(1e-6, 1e-3 * h)
    better = min(min(100.0 * h, better), end - k)
    return better if largest < np.inf and code == 0 else h


@inline
def put_back(retract, fns, w, v, rtol, atol, hp, c, d, nz, fp):
    """Put w back where the flow lives; (status code, whether it moved so much that its slope is another)."""
    for i in range(w.shape[0]):
        v[i] = w[i]
    code = retract(fns, w, hp, c, d, nz, fp)
    for i in range(w.shape[0]):
        v[i] -= w[i]
    return code, norm(v, w, w, rtol, atol) > 0.01


@inline
def quickest(last, before, near, v):
    """|lambda| of the fastest mode, from the slopes of the last two stages, which stand at the same time.

    Twice: the second is 0 where the two points differ by rounding alone, which is no direction.
    """
    change, apart, size = 0.0, 0.0, 0.0
    for i in range(v.shape[0]):
        a = last[i] - before[i]
        b = v[i] - near[i]
        change += a * a
        apart += b * b
        size += v[i] * v[i]
    rate = math.sqrt(change / apart) if apart > 0.0 else 0.0
    return rate, rate if apart > _SAME * size else 0.0


@inline
def factor(error, power):
    """How much longer or shorter the next step is to be: 0.9 error^-power."""
    return 0.9 * exp(-power * log(error + 1e-30))


@jit(fma=True, thorough=True)
def carry(
    field, retract, fns, attempt, error_of, stages, moves, size, wide, columns, todo, many, points, starts, slopes,
    rows, status, target, end, attempts, power, limit, hold, patience, rtol, atol, hp, c, d, nz, fp,
):  # fmt: skip
    """Make up to so many attempts at a step with the paths todo[:many], each until it passes `target`.

    A path's status becomes that of the field where it fails for good, 4 where the step size vanishes; MODE becomes 1
    where stability has held `patience` steps back: |step lambda| was above `limit`, or kept from passing `hold`.
    The list is read a little beyond its end, a whole set of lanes. `attempt` and `error_of` belong to one tableau
    (see `unrolled`); with `moves` a point is put back after every step.
    """
    for lane in lanes(many):
        path = todo[lane]
        w = np.zeros(wide)
        w0 = np.zeros(wide)
        trial = np.zeros(wide)
        near = np.zeros(wide)
        f = np.zeros((size, columns))
        K = np.zeros((stages, wide))
        done = np.zeros((stages, size))
        done0 = np.empty(size)
        for i in range(size):
            w[i] = points[path, i]
            w0[i] = w[i]
            done0[i] = w[i]
        here, slope = w[0:size], K[stages - 1][0:size]
        now = rows[path, NOW]
        h = rows[path, H]
        past, length, latest = rows[path, PAST], rows[path, SPAN], rows[path, LATEST]
        steady, stiff, crawl, count = rows[path, STEADY], rows[path, STIFF], rows[path, CRAWL], rows[path, ATTEMPTS]
        fastest = rows[path, FASTEST]
        mode = 0.0 * now
        arrived = 0.0 * now
        stale = 1.0 - rows[path, FRESH]  # else the slope is the last stage's, as if the steps had not been interrupted
        code = 0 * path
        if some(stale > 0.0):
            code += field(fns, here, now, hp, c, d, nz, fp, near[0:size], f)
        for i in range(size):
            slope[i] = near[i] if stale > 0.0 else slopes[path, stages - 1, i]
        code = code if stale > 0.0 else 0
        if some(not h > 0.0):
            fresh = first_step(
                field, fns, here, slope, now, end, power, rtol, atol, trial[0:size], near[0:size], hp, c, d, nz, fp, f,
            )  # fmt: skip
            h = h if h > 0.0 else fresh
        stale = 0.0 * now
        turn = 0
        while turn < attempts and some(now < target and code == 0 and mode == 0.0):
            turn += 1
            going = 1.0 if now < target and code == 0 and mode == 0.0 else 0.0
            if moves and some(stale * going > 0.0):
                again = field(fns, here, now, hp, c, d, nz, fp, near[0:size], f)
                code = worse(code, again if stale * going > 0.0 else 0)
                for i in range(size):
                    slope[i] = near[i] if stale * going > 0.0 else slope[i]
                going = going if code == 0 else 0.0
            for i in range(wide):
                w0[i] = w[i]
                K[0, i] = K[stages - 1, i]
            ends = now + h * (1.0 + 1e-10) >= end
            step = end - now if ends else h
            fails = attempt(field, fns, size, w0, K, trial, near, f, now, step, hp, c, d, nz, fp) + 0 * path
            if columns > 0:  # noise, where there was none
                for i in range(size):
                    fails = worse(fails, 4 if abs(f[i, 0]) > 0.0 else 0)
            error = error_of(K, size, step, w0, trial, rtol, atol)
            error = error if error < _FAR and fails == 0 else _FAR
            good = 1.0 if going > 0.0 and error <= 1.0 else 0.0
            bad = going - good
            count += going
            rate, seen = quickest(K[stages - 1], K[stages - 2], near, trial)
            fastest = max(seen, _FORGET * fastest) if good > 0.0 else fastest
            grow = factor(error, power)
            longer = step * (min(1.0, grow) if steady > 0.0 else min(5.0, max(0.2, grow)))
            held = longer * fastest > hold
            longer = hold / fastest if held else longer
            longer = max(h, step) if ends else longer
            shorter = step * max(0.2, grow)
            small = step < _SMALL * (1.0 + abs(now)) and not ends
            crawl = crawl if good == 0.0 else (crawl + 1.0 if small else 0.0)
            signs = stiff + 1.0 if held or step * rate > limit else max(0.0, stiff - 0.25)
            stiff = signs if good > 0.0 else stiff
            past = now if good > 0.0 else past
            length = step if good > 0.0 else length
            latest = 1.0 if good > 0.0 else (0.0 if bad > 0.0 else latest)
            steady = 0.0 if good > 0.0 else (1.0 if bad > 0.0 else steady)
            h = longer if good > 0.0 else (shorter if bad > 0.0 else h)
            lost = bad > 0.0 and not h > _TINY * (1.0 + abs(now))
            code = worse(code, worse(fails, 4) if lost else 0)
            code = worse(code, 4 if crawl > _LONG else 0)
            mode = 1.0 if stiff >= patience else mode
            later = now + step
            later = end if ends else later
            now = later if good > 0.0 else now
            for i in range(wide):
                w[i] = trial[i] if good > 0.0 else w[i]
                K[stages - 1, i] = K[0, i] if bad > 0.0 else K[stages - 1, i]
            there = 1.0 if good > 0.0 and now >= target else 0.0
            if some(there > 0.0):
                for i in range(size):
                    done0[i] = w0[i] if there > 0.0 else done0[i]
                    for j in range(stages):
                        done[j, i] = K[j, i] if there > 0.0 else done[j, i]
                arrived = max(arrived, there)
            if moves:
                back, moved = put_back(retract, fns, here, near[0:size], rtol, atol, hp, c, d, nz, fp)
                code = worse(code, back if good > 0.0 else 0)
                stale = (1.0 if moved else 0.0) if good > 0.0 else (0.0 if bad > 0.0 else stale)
        status[path] = code
        rows[path, MODE] = mode
        rows[path, NOW] = now
        rows[path, H] = h
        rows[path, PAST] = past
        rows[path, SPAN] = length
        rows[path, LATEST] = latest
        rows[path, DENSE] = 0.0
        rows[path, FRESH] = 1.0 if stale == 0.0 and mode == 0.0 else 0.0
        rows[path, STEADY] = steady
        rows[path, STIFF] = 0.0 if mode > 0.0 else stiff
        rows[path, CRAWL] = crawl
        rows[path, FASTEST] = fastest
        rows[path, ATTEMPTS] = count
        for i in range(size):
            points[path, i] = w[i]
            starts[path, i] = done0[i] if arrived > 0.0 else w0[i]
            for j in range(stages):
                slopes[path, j, i] = done[j, i] if arrived > 0.0 else K[j, i]


@jit
def read(field, retract, fns, A, C, P, stages, w, w0, K, s, target, trial, out, f, rtol, atol, hp, c, d, nz, fp):
    """The state at `target`, inside the last step, from its polynomial; extra stages are made when first needed."""
    size = w.shape[0]
    if s[NOW] == target or s[LATEST] == 0.0:
        for i in range(size):
            out[i] = w[i]
        return 0
    rows = P.shape[0]
    if s[DENSE] == 0.0:
        for stage in range(stages, rows):
            for i in range(size):
                total = 0.0
                for j in range(stage):
                    total += A[stage, j] * K[j, i]
                trial[i] = w0[i] + s[SPAN] * total
            code = field(fns, trial, s[PAST] + C[stage] * s[SPAN], hp, c, d, nz, fp, K[stage], f)
            if code != 0:
                return code
        s[DENSE] = 1.0
    polynomial(P, rows, w0, K, (target - s[PAST]) / s[SPAN], s[SPAN], out)
    return retract(fns, out, hp, c, d, nz, fp)


@jit
def polynomial(P, rows, w0, K, theta, scale, out):
    """out = w0 + scale sum_i K_i p_i(theta)"""
    size = w0.shape[0]
    for i in range(size):
        out[i] = 0.0
    for j in range(rows):
        weight = 0.0
        for q in range(P.shape[1] - 1, -1, -1):
            weight = (weight + P[j, q]) * theta
        for i in range(size):
            out[i] += weight * K[j, i]
    for i in range(size):
        out[i] = w0[i] + scale * out[i]
