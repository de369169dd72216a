"""Adaptive explicit Runge-Kutta steps with dense output, for any tableau.

The steps never know where a run is saved: a save is read from the polynomial of the step that covers it, so that
rare and frequent saves are the same numbers. A path's row of numbers, its start `w0` and slopes `K` of the last
step hold all that an integration needs to go on. Paths run in lanes where their field can, each with its own step size;
what a lane does not depends on its neighbours. Source: Hairer, Norsett, Wanner, *Solving ODEs I* (1993), II.4-II.6.
"""

import math

import numpy as np

from minidyn.common.status import Status
from minidyn.compiler import jit, lanes, some
from minidyn.kernels.vectormath import exp, log
from minidyn.solvers.rows import EXPLICIT, NOTHING, SIZE, At
from minidyn.solvers.system import field_at, inline, put_back, worse

TINY = 1e-14  # of the clock: a step this small has failed
_SMALL, _LONG = 1e-9, 2000.0  # and so many steps in a row this small: the flow chatters across a kink
_SAME = 1e-26  # of the square of a point: what is nearer than this differs by rounding
_FORGET = 0.95  # of the fastest rate, per step: what has come to rest is not seen, and must not be forgotten at once
_FAR = 1e300  # an error that is not finite


@inline
def norm(x, w, v, tolerance):
    """Root mean square of x in units of the tolerance at w and v."""
    rtol, atol = tolerance
    total = 0.0
    for i in range(x.shape[0]):
        e = x[i] / (atol + rtol * max(abs(w[i]), abs(v[i])))
        total += e * e
    return math.sqrt(total / x.shape[0])


@inline
def first_step(system, w, slope, k, end, power, tolerance, room):
    """A first step size from the size of the field and of its change (Hairer, Norsett, Wanner, II.4)."""
    trial, other, f = room
    size, speed = norm(w, w, w, tolerance), norm(slope, w, w, tolerance)
    h = 0.01 * size / speed if min(size, speed) > 1e-5 else 1e-6
    h = min(h, end - k)
    for i in range(w.shape[0]):
        trial[i] = w[i] + h * slope[i]
    code = field_at(system, trial, k + h, other, f)
    for i in range(w.shape[0]):
        other[i] -= slope[i]
    bend = norm(other, w, w, tolerance) / h
    largest = max(speed, bend)
    better = exp(power * log(0.01 / largest)) if largest > 1e-15 else max(1e-6, 1e-3 * h)
    better = min(min(100.0 * h, better), end - k)
    return better if largest < np.inf and code == 0 else h


@inline
def moved_back(system, w, v, tolerance):
    """Put w back where the flow lives; (status code, whether it moved so much that its slope is another)."""
    for i in range(w.shape[0]):
        v[i] = w[i]
    code = put_back(system, w)
    for i in range(w.shape[0]):
        v[i] -= w[i]
    return code, norm(v, w, w, tolerance) > 0.01


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
def rescaled(error, power):
    """How much longer or shorter the next step is to be: 0.9 error^-power, from a fifth to five times."""
    return min(5.0, max(0.2, 0.9 * exp(-power * log(error + 1e-30))))


@inline
def resume(system, row, code, here, slope, end, control, room):
    """Make ready to go on: the slope at the point, where none is kept, and a first step size; a status code."""
    power, _, _, _, tolerance = control
    _, near, f = room
    stale = row[At.FRESH] == 0.0  # else the slope is the last stage's, as if the steps had not been interrupted
    if some(stale):
        code += field_at(system, here, row[At.NOW], near, f)
    for i in range(here.shape[0]):
        slope[i] = near[i] if stale else slope[i]
    code = code if stale else 0
    if some(not row[At.H] > 0.0):
        fresh = first_step(system, here, slope, row[At.NOW], end, power, tolerance, room)
        row[At.H] = row[At.H] if row[At.H] > 0.0 else fresh
    row[At.FRESH] = 1.0
    return code


@inline
def attempted(system, method, shape, row, code, step, state, tolerance):
    """One attempt at a step: a status code for it, and its error in units of the tolerance."""
    field, _, fns, (hp, c, d, nz, fp) = system
    attempt, error_of, _ = method
    _, size, _, columns = shape
    _, w0, K, trial, near, f = state
    rtol, atol = tolerance
    fails = attempt(field, fns, size, w0, K, trial, near, f, row[At.NOW], step, hp, c, d, nz, fp) + 0 * code
    if columns > 0:  # noise, where there was none
        for i in range(size):
            fails = worse(fails, Status.SOLVER_FAILED if abs(f[i, 0]) > 0.0 else 0)
    error = error_of(K, size, step, w0, trial, rtol, atol)
    return fails, error if error < _FAR and fails == 0 else _FAR


@inline
def judge(row, good, bad, step, end, error, rates, control):
    """Take note of an attempt that was good or bad: where the path stands, its next step, signs of stiffness; a status
    code other than zero where there is no going on."""
    power, limit, hold, patience, _ = control
    rate, seen = rates
    now, h = row[At.NOW], row[At.H]
    ends = now + h * (1.0 + 1e-10) >= end
    row[At.ATTEMPTS] += good + bad
    row[At.FASTEST] = max(seen, _FORGET * row[At.FASTEST]) if good > 0.0 else row[At.FASTEST]
    grow = rescaled(error, power)
    longer = step * (min(1.0, grow) if row[At.STEADY] > 0.0 else grow)
    held = longer * row[At.FASTEST] > hold
    longer = hold / row[At.FASTEST] if held else longer
    longer = max(h, step) if ends else longer
    shorter = step * grow
    small = step < _SMALL * (1.0 + abs(now)) and not ends
    row[At.CRAWL] = row[At.CRAWL] if good == 0.0 else (row[At.CRAWL] + 1.0 if small else 0.0)
    signs = row[At.STIFF] + 1.0 if held or step * rate > limit else max(0.0, row[At.STIFF] - 0.25)
    row[At.STIFF] = signs if good > 0.0 else row[At.STIFF]
    row[At.PAST] = now if good > 0.0 else row[At.PAST]
    row[At.SPAN] = step if good > 0.0 else row[At.SPAN]
    row[At.LATEST] = EXPLICIT if good > 0.0 else (NOTHING if bad > 0.0 else row[At.LATEST])
    row[At.STEADY] = 0.0 if good > 0.0 else (1.0 if bad > 0.0 else row[At.STEADY])
    row[At.H] = longer if good > 0.0 else (shorter if bad > 0.0 else h)
    row[At.MODE] = 1.0 if row[At.STIFF] >= patience else row[At.MODE]
    row[At.NOW] = (end if ends else now + step) if good > 0.0 else now
    lost = (bad > 0.0 and not row[At.H] > TINY * (1.0 + abs(now))) or row[At.CRAWL] > _LONG
    return Status.SOLVER_FAILED if lost else 0


@inline
def one_step(system, method, shape, row, code, goal, control, state):
    """One attempt at a step, in the lanes that go on: `(status code, 1 where a step was made)`."""
    _, _, stages = method
    moves, size, wide, _ = shape
    target, end, _ = goal
    _, _, _, _, tolerance = control
    w, w0, K, trial, near, f = state
    here, slope = w[0:size], K[stages - 1][0:size]
    going = 1.0 if row[At.NOW] < target and code == 0 and row[At.MODE] == 0.0 else 0.0
    if moves and some(row[At.FRESH] == 0.0 and going > 0.0):
        stale = row[At.FRESH] == 0.0 and going > 0.0
        again = field_at(system, here, row[At.NOW], near[0:size], f)
        code = worse(code, again if stale else 0)
        for i in range(size):
            slope[i] = near[i] if stale else slope[i]
        going = going if code == 0 else 0.0
    for i in range(wide):
        w0[i] = w[i]
        K[0, i] = K[stages - 1, i]
    step = end - row[At.NOW] if row[At.NOW] + row[At.H] * (1.0 + 1e-10) >= end else row[At.H]
    fails, error = attempted(system, method, shape, row, code, step, state, tolerance)
    good = 1.0 if going > 0.0 and error <= 1.0 else 0.0
    bad = going - good
    rates = quickest(K[stages - 1], K[stages - 2], near, trial)
    over = judge(row, good, bad, step, end, error, rates, control)
    code = worse(code, worse(fails, over) if over != 0 and bad > 0.0 else over)
    for i in range(wide):
        w[i] = trial[i] if good > 0.0 else w[i]
        K[stages - 1, i] = K[0, i] if bad > 0.0 else K[stages - 1, i]
    if moves:
        back, moved = moved_back(system, here, near[0:size], tolerance)
        code = worse(code, back if good > 0.0 else 0)
        row[At.FRESH] = (0.0 if moved else 1.0) if good > 0.0 else (1.0 if bad > 0.0 else row[At.FRESH])
    return code, good


@jit(fma=True, thorough=True)
def explicit_steps(system, method, shape, todo, many, paths, goal, control):
    """Make up to so many attempts at a step with the paths todo[:many], each until it passes `target`.

    A path's status becomes that of the field where it fails for good, SOLVER_FAILED where the step size vanishes; MODE
    becomes 1 where stability has held `patience` steps back: |step lambda| was above `limit`, or kept from passing
    `hold`. The list is read a little beyond its end, a whole set of lanes. method : see `unrolled`; the number of its
    stages.  shape : whether a point is put back after every step, the numbers of a state, with zeros after them, and
    the columns of its noise.  goal : (target, end, attempts).  control : (power, limit, hold, patience, tolerance).
    """
    _, _, stages = method
    _, size, wide, columns = shape
    points, starts, slopes, rows, status = paths
    target, end, attempts = goal
    for lane in lanes(many):
        path = todo[lane]
        row = np.empty(SIZE)
        w, w0, trial, near = np.zeros(wide), np.zeros(wide), np.zeros(wide), np.zeros(wide)
        f, K = np.zeros((size, columns)), np.zeros((stages, wide))
        done, done0 = np.zeros((stages, size)), np.empty(size)
        slope = K[stages - 1][0:size]
        for q in range(SIZE):
            row[q] = rows[path, q]
        for i in range(size):
            w[i] = points[path, i]
            w0[i], done0[i], slope[i] = w[i], w[i], slopes[path, stages - 1, i]
        code = resume(system, row, 0 * path, w[0:size], slope, end, control, (trial[0:size], near[0:size], f))
        arrived = 0.0 * row[At.NOW]
        row[At.MODE] = 0.0
        turn = 0
        while turn < attempts and some(row[At.NOW] < target and code == 0 and row[At.MODE] == 0.0):
            turn += 1
            code, good = one_step(system, method, shape, row, code, goal, control, (w, w0, K, trial, near, f))
            there = 1.0 if good > 0.0 and row[At.NOW] >= target else 0.0
            if some(there > 0.0):
                for i in range(size):
                    done0[i] = w0[i] if there > 0.0 else done0[i]
                    for j in range(stages):
                        done[j, i] = K[j, i] if there > 0.0 else done[j, i]
                arrived = max(arrived, there)
        row[At.DENSE] = 0.0
        row[At.FRESH] = row[At.FRESH] if row[At.MODE] == 0.0 else 0.0
        row[At.STIFF] = 0.0 if row[At.MODE] > 0.0 else row[At.STIFF]
        status[path] = code
        for q in range(SIZE):
            rows[path, q] = row[q]
        for i in range(size):
            points[path, i] = w[i]
            starts[path, i] = done0[i] if arrived > 0.0 else w0[i]
            for j in range(stages):
                slopes[path, j, i] = done[j, i] if arrived > 0.0 else K[j, i]


@jit(inline=True)
def combined(weights, count, K, w, step, out):
    """out = w + step sum_j weights_j K_j over the first `count` slopes"""
    for i in range(w.shape[0]):
        total = 0.0
        for j in range(count):
            total += weights[j] * K[j, i]
        out[i] = w[i] + step * total


@jit
def state_inside(system, tableau, path, target, out, trial, f):
    """The state at `target`, inside the last step, from its polynomial; extra stages are made when first needed."""
    A, C, P, stages = tableau
    w, w0, K, row = path
    size = w.shape[0]
    if row[At.NOW] == target or row[At.LATEST] == NOTHING:
        for i in range(size):
            out[i] = w[i]
        return 0
    if row[At.DENSE] == 0.0:
        for stage in range(stages, P.shape[0]):
            combined(A[stage], stage, K, w0, row[At.SPAN], trial)
            code = field_at(system, trial, row[At.PAST] + C[stage] * row[At.SPAN], K[stage], f)
            if code != 0:
                return code
        row[At.DENSE] = 1.0
    polynomial(P, P.shape[0], w0, K, (target - row[At.PAST]) / row[At.SPAN], row[At.SPAN], out)
    return put_back(system, out)


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
