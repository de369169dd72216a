"""Adaptive explicit Runge-Kutta steps with dense output, for any tableau.

The steps never know where a run is saved: a save is read from the polynomial of the step that covers it, so that
rare and frequent saves are the same numbers. A path's row of numbers `s`, its start `w0` and slopes `K` of the last
step hold all that an integration needs to go on. Source: Hairer, Norsett, Wanner, *Solving ODEs I* (1993), II.4-II.6.
"""

from __future__ import annotations

import math

import numpy as np

from minidyn.compiler import jit
from minidyn.solvers.rows import ATTEMPTS, CRAWL, DENSE, FRESH, LATEST, NOW, PAST, SPAN, STEADY, STIFF, H

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_STIFF_STEPS = 60.0  # in a row, or nearly, before another method is worth its price
_TINY = 1e-14  # of the clock: a step this small has failed
_SMALL, _LONG = 1e-9, 2000  # and so many steps in a row this small: the flow chatters across a kink


@jit
def norm(x, w, v, rtol, atol):
    """Root mean square of x in units of the tolerance at w and v."""
    total = 0.0
    for i in range(x.shape[0]):
        e = x[i] / (atol + rtol * max(abs(w[i]), abs(v[i])))
        total += e * e
    return math.sqrt(total / x.shape[0])


@jit
def first_step(field, fns, w, slope, k, end, power, rtol, atol, trial, other, hp, c, d, nz, fp, f):
    """A first step size from the size of the field and of its change (Hairer, Norsett, Wanner, II.4)."""
    size, speed = norm(w, w, w, rtol, atol), norm(slope, w, w, rtol, atol)
    h = 0.01 * size / speed if (size > 1e-5 and speed > 1e-5) else 1e-6
    h = min(h, end - k)
    for i in range(w.shape[0]):
        trial[i] = w[i] + h * slope[i]
    if field(fns, trial, k + h, hp, c, d, nz, fp, other, f) != 0:
        return h
    for i in range(w.shape[0]):
        other[i] -= slope[i]
    bend = norm(other, w, w, rtol, atol) / h
    largest = max(speed, bend)
    if not largest < np.inf:
        return h
    better = (0.01 / largest) ** power if largest > 1e-15 else max(1e-6, 1e-3 * h)
    return min(min(100.0 * h, better), end - k)


@jit
def put_back(retract, fns, w, v, rtol, atol, hp, c, d, nz, fp):
    """Put w back where the flow lives; (status code, whether it moved so much that its slope is another)."""
    for i in range(w.shape[0]):
        v[i] = w[i]
    code = retract(fns, w, hp, c, d, nz, fp)
    for i in range(w.shape[0]):
        v[i] -= w[i]
    return code, norm(v, w, w, rtol, atol) > 0.01


@jit
def explicit(field, retract, fns, A, C, E, numbers, w, w0, K, s, target, end, attempts, rtol, atol, trial, near, f,
             hp, c, d, nz, fp):  # fmt: skip
    """Step from s[NOW] until it passes `target` or `attempts` are made; never beyond `end`.

    `numbers`: stages, order of the error estimate, stability limit. Returns the status code of the field where it
    fails for good, 4 where the step size vanishes, -1 where the flow has turned stiff; 0 otherwise.
    """
    size = w.shape[0]
    stages = np.int64(numbers[0])
    power = 1.0 / (numbers[1] + 1.0)
    last = stages - 1
    for _ in range(attempts):
        k = s[NOW]
        if k >= target:
            break
        if s[FRESH] != 1.0:
            code = field(fns, w, k, hp, c, d, nz, fp, K[last], f)
            if code != 0:
                return code
            s[FRESH] = 1.0
        if not s[H] > 0.0:
            s[H] = first_step(
                field, fns, w, K[last], k, end, power, rtol, atol, trial, near, hp, c, d, nz, fp, f
            )
        for i in range(size):
            w0[i] = w[i]
            K[0, i] = K[last, i]
        step = s[H]
        ends = k + step * (1.0 + 1e-10) >= end
        if ends:
            step = end - k
        code = 0
        for stage in range(1, stages):
            for i in range(size):
                total = 0.0
                for j in range(stage):
                    total += A[stage, j] * K[j, i]
                trial[i] = w0[i] + step * total
                if stage == last - 1:
                    near[i] = trial[i]
            code = field(fns, trial, k + C[stage] * step, hp, c, d, nz, fp, K[stage], f)
            if code != 0:
                break
        s[ATTEMPTS] += 1.0
        error = np.inf
        if code == 0:
            error = estimate(E, K, stages, step, w0, trial, rtol, atol)
        if code == 0 and error <= 1.0:
            grow = min(5.0, max(0.2, 0.9 * (error + 1e-30) ** (-power)))
            s[H] = step * (min(1.0, grow) if s[STEADY] != 0.0 else grow) if not ends else max(s[H], step)
            s[STEADY] = 0.0
            s[PAST], s[SPAN], s[LATEST], s[DENSE] = k, step, 1.0, 0.0
            s[NOW] = end if ends else k + step
            s[CRAWL] = s[CRAWL] + 1.0 if step < _SMALL * (1.0 + abs(k)) and not ends else 0.0
            if s[CRAWL] > _LONG:
                return 4
            stiff = stiffness(K, stages, step, near, trial) > numbers[2]
            for i in range(size):
                w[i] = trial[i]
            code, moved = put_back(retract, fns, w, near, rtol, atol, hp, c, d, nz, fp)
            if code != 0:
                return code
            if moved:
                s[FRESH] = 0.0
            s[STIFF] = s[STIFF] + 1.0 if stiff else max(0.0, s[STIFF] - 0.25)
            if s[STIFF] >= _STIFF_STEPS:
                return -1
        else:
            s[STEADY] = 1.0
            for i in range(size):
                K[last, i] = K[0, i]
                w[i] = w0[i]
            s[LATEST] = 0.0
            s[H] = step * (max(0.2, 0.9 * error ** (-power)) if error < np.inf else 0.2)
            if not s[H] > _TINY * (1.0 + abs(k)):
                return code if code != 0 else 4
    return 0


@jit
def estimate(E, K, stages, step, w, v, rtol, atol):
    """The error of a step in units of the tolerance; the second estimate keeps the first from being too small."""
    size = w.shape[0]
    five, three = 0.0, 0.0
    for i in range(size):
        a, b = 0.0, 0.0
        for j in range(stages):
            a += E[0, j] * K[j, i]
            b += E[1, j] * K[j, i]
        scale = atol + rtol * max(abs(w[i]), abs(v[i]))
        five += (a / scale) * (a / scale)
        three += (b / scale) * (b / scale)
    both = five + 0.01 * three
    if both == 0.0:
        return 0.0
    error = abs(step) * five / math.sqrt(both * size)
    return error if error < np.inf else np.inf


@jit
def stiffness(K, stages, step, near, v):
    """|step lambda| for the fastest mode, from the last two stages, which stand at the same time."""
    change, apart = 0.0, 0.0
    for i in range(v.shape[0]):
        a = K[stages - 1, i] - K[stages - 2, i]
        b = v[i] - near[i]
        change += a * a
        apart += b * b
    return step * math.sqrt(change / apart) if apart > 0.0 else 0.0


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
