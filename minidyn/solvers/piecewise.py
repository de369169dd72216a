"""Dormand-Prince 5(4) for fields that are smooth between events.

A flow at the edge of stability changes its equations where an eigenvalue reaches the threshold or an
oscillation dies out. A step that crosses such an event is repeated with the length that ends on it.
Source: Dormand, Prince (1980); Hairer, Norsett, Wanner, *Solving ODEs I*, sections II.5 and II.6.

What is carried are three functions and whatever they share, `flow = (field, event, settle, given)`, which return a
status code (of `event` the second of two numbers is its value):

    field(given, w, k, b)      b = the change per step at w
    event(given, w, k)         positive beyond the event
    settle(given, w, k)        an accepted point is put back where the flow lives
"""

import numpy as np

from minidyn.common.status import Status
from minidyn.compiler import jit
from minidyn.solvers.explicit import norm, rescaled
from minidyn.solvers.tableaus import DOPRI5

_A, _C, _E, _STAGES = DOPRI5.a, DOPRI5.c, DOPRI5.e, DOPRI5.stages
_SHORTEST = 1e-10  # of the clock: a step this small has failed


@jit
def nowhere(given, w, k):
    """A flow without events."""
    return 0, -1.0


@jit
def stays(given, w, k):
    """A flow that may be anywhere."""
    return 0


@jit
def trial(flow, w, k, step, slopes, y):
    """One step of order 5 from w, whose slope is the first of `slopes`: y, and the other slopes; a status code."""
    field, _, _, given = flow
    for stage in range(1, _STAGES):
        for i in range(w.shape[0]):
            total = 0.0
            for j in range(stage):
                total += _A[stage, j] * slopes[j, i]
            y[i] = w[i] + step * total
        code = field(given, y, k + _C[stage] * step, slopes[stage])
        if code != 0:
            return code
    return 0


@jit
def attempt(flow, w, k, step, slopes, y, tolerance):
    """Such a step, put back: its error in units of the tolerance, infinite where it fails; a status code."""
    _, _, settle, given = flow
    code = trial(flow, w, k, step, slopes, y)
    if code != 0:
        return code, np.inf
    wrong = np.zeros(w.shape[0])
    for i in range(w.shape[0]):
        for stage in range(_STAGES):
            wrong[i] += step * _E[0, stage] * slopes[stage, i]
    error = norm(wrong, w, y, tolerance)
    if not error <= 1.0:
        return 0, error if error < np.inf else np.inf
    code = settle(given, y, k + step)
    return code, np.inf if code != 0 else error


@jit
def carry(flow, w, k, end, step, tolerance):
    """Carry w from k towards `end`, in place, until an event: `(code, k, next step, 1 where an event stopped it)`.

    The code is the field's own where no step is short enough, SOLVER_FAILED where the error stays too large.
    """
    field, event, _, given = flow
    slopes, y = np.empty((_STAGES, w.shape[0])), np.empty(w.shape[0])
    while k < end:
        code = field(given, w, k, slopes[0])
        if code != 0:
            return code, k, step, 0
        length, error = min(step, end - k), np.inf
        while not error <= 1.0:
            code, error = attempt(flow, w, k, length, slopes, y, tolerance)
            if not error <= 1.0:
                length *= rescaled(error, 0.2) if error < np.inf else 0.2
                if not length > _SHORTEST * (1.0 + abs(k)):
                    return code if code != 0 else Status.SOLVER_FAILED, k, step, 0
        grown = length * rescaled(error, 0.2)
        code, beyond = event(given, y, k + length)
        if code == 0 and beyond > 0.0:
            code, length = _onto(flow, w, k, length, beyond, slopes, y)
        if code != 0:
            return code, k, step, 0
        for i in range(w.shape[0]):
            w[i] = y[i]
        if beyond > 0.0:
            return 0, k + length, max(length, 0.1 * step), 1
        last = length == end - k
        step = max(step, grown) if length < step and last else grown
        k = end if last else k + length
    return 0, end, step, 0


@jit
def _onto(flow, w, k, length, beyond, slopes, y):
    """y at the end of the shortest step known to lie beyond the event: bisection and secants (Illinois) on its length;
    a status code, and the length. `beyond` is the value of the event at y."""
    _, event, settle, given = flow
    low, high, f_high, best = 0.0, length, beyond, y.copy()
    code, f_low = event(given, w, k)
    for _ in range(80):
        if code != 0 or high - low <= 1e-13 * (abs(k) + high) or abs(f_high) <= 1e-13:
            break
        guess = high - f_high * (high - low) / (f_high - f_low) if f_low < 0.0 else 0.5 * (low + high)
        guess = min(max(guess, low + 1e-3 * (high - low)), high - 1e-3 * (high - low))
        code = trial(flow, w, k, guess, slopes, y)
        code = settle(given, y, k + guess) if code == 0 else code
        if code != 0:
            break
        code, value = event(given, y, k + guess)
        if value > 0.0:
            high, f_high, f_low = guess, value, f_low / 2.0
            for i in range(y.shape[0]):
                best[i] = y[i]
        else:
            low, f_low, f_high = guess, value, f_high / 2.0
    for i in range(y.shape[0]):
        y[i] = best[i]
    return code, high


@jit
def carry_all(advance, fns, points, rows, status, paths, span, tolerance, model):
    """Carry the points first .. last-1 that are under way from one place on the clock to another, each with its row of
    numbers by `advance`; note their statuses."""
    first, last = paths
    k, end = span
    rtol, atol = tolerance
    hp, c, d, nz, fp = model
    for path in range(first, last):
        if status[path] == 0:
            w = points[path]
            code = advance(fns, w, rows[path], k, end, rtol, atol, hp, c, d, nz, fp)
            total = 0.0
            for i in range(w.shape[0]):
                total += w[i] * 0.0
            status[path] = code if code != 0 or total == 0.0 else Status.DIVERGED
