"""The compiled time loops of maps and of flows without noise."""

from __future__ import annotations

import math

import numpy as np

from minidyn.compiler import jit
from minidyn.solvers.explicit import carry, polynomial, read
from minidyn.solvers.radau import DENSE_RADAU, implicit
from minidyn.solvers.rows import FRESH, LATEST, MODE, NOW, PAST, SPAN, STIFF

BESIDE = 16  # lanes that run side by side, at most
ROUND = 16  # attempts

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@jit
def settle(code, f, path, row, status, ended):
    """Note how a path ended, if it did."""
    for i in range(f.shape[0]):
        if code == 0 and f.shape[1] > 0 and abs(f[i, 0]) > 0.0:
            code = 4
    if code > 0:
        status[path] = code
        ended[path] = np.int64(math.floor(row[NOW] - 0.5)) + 1


@jit
def still_going(todo, count, rows, status, ended, target):
    """Note the ends of the paths todo[:count]; keep those that go on explicitly towards `target`, and how many."""
    kept = 0
    for j in range(count):
        path = todo[j]
        if status[path] != 0:
            ended[path] = np.int64(math.floor(rows[path, NOW] - 0.5)) + 1
        elif rows[path, NOW] < target and rows[path, MODE] == 0.0:
            todo[kept] = path
            kept += 1
    for j in range(kept, min(kept + BESIDE, todo.shape[0])):
        todo[j] = todo[max(kept - 1, 0)]
    return kept


@jit(fma=True, thorough=True)
def advance_explicit(
    field, retract, fns, attempt, error_of, stages, moves, size, wide, columns, todo, count, points, starts, slopes,
    rows, status, ended, target, end, attempts, power, limit, hold, patience, rtol, atol, hp, c, d, nz, fp,
):  # fmt: skip
    """Carry the paths todo[:count] past the clock `target` by at most so many attempts each; how many of them go on.

    The list has room for `BESIDE` more. After every few attempts it closes ranks, so that no lane waits for long.
    """
    spent = 0
    while count > 0 and spent < attempts:
        now = min(ROUND, attempts - spent)
        carry(
            field, retract, fns, attempt, error_of, stages, moves, size, wide, columns, todo, count, points, starts,
            slopes, rows, status, target, end, now, power, limit, hold, patience, rtol, atol, hp, c, d, nz, fp,
        )  # fmt: skip
        count = still_going(todo, count, rows, status, ended, target)
        spent += now
    return count


@jit(fma=True, thorough=True)
def pass_stretches(
    field, retract, fns, attempt, error_of, stages, moves, size, wide, columns, own, todo, points, starts, slopes,
    rows, status, ended, targets, ends, hypers, attempts, power, limit, hold, patience, rtol, atol, c, d, nz, fp,
):  # fmt: skip
    """Carry the paths `own` through stretches with their own numbers, rows of `hypers`: past `targets`, never beyond
    `ends`; how many stretches they have all passed before one ends, turns stiff or needs more attempts."""
    for q in range(targets.shape[0]):
        count = 0
        for j in range(own.shape[0]):
            path = own[j]
            if rows[path, NOW] < targets[q]:
                if q > 0 and rows[path, NOW] == ends[q - 1]:
                    rows[path, FRESH] = 0.0
                todo[count] = path
                count += 1
        for j in range(count, min(count + BESIDE, todo.shape[0])):
            todo[j] = todo[max(count - 1, 0)]
        if count > 0:
            count = advance_explicit(
                field, retract, fns, attempt, error_of, stages, moves, size, wide, columns, todo, count, points, starts,
                slopes, rows, status, ended, targets[q], ends[q], attempts, power, limit, hold, patience, rtol, atol,
                hypers[q], c, d, nz, fp,
            )  # fmt: skip
        for j in range(own.shape[0]):
            path = own[j]
            if status[path] != 0 or rows[path, NOW] < targets[q]:
                return q
    return targets.shape[0]


@jit
def advance_implicit(
    field, jacobian, retract, fns, jfns, compiled, columns, points, starts, slopes, rows, status, ended,
    first, last, target, end, attempts, rtol, atol, back, hp, c, d, nz, fp,
):  # fmt: skip
    """Carry the stiff points among first .. last-1 past the clock `target`; how many are not there yet."""
    size = points.shape[1]
    trial = np.empty(size)
    near = np.empty(size)
    f = np.zeros((size, columns))
    J = np.empty((size, size))
    real = np.empty((size, size))
    pair = np.empty((2 * size, 2 * size))
    waiting = 0
    for path in range(first, last):
        row = rows[path]
        if status[path] != 0 or row[NOW] >= target or row[MODE] == 0.0:
            continue
        code = implicit(
            field, jacobian, retract, fns, jfns, compiled, points[path], starts[path], slopes[path], row, target, end,
            attempts, rtol, atol, back, trial, near, f, J, real, pair, hp, c, d, nz, fp,
        )  # fmt: skip
        if code == -2:
            row[MODE] = 0.0
            row[STIFF] = 0.0
            code = 0
        settle(code, f, path, row, status, ended)
        if status[path] == 0 and row[NOW] < target:
            waiting += 1
    return waiting


@jit
def show(
    field, retract, fns, columns, A, C, P, stages, points, starts, slopes, rows, shown, status, ended,
    first, last, target, rtol, atol, hp, c, d, nz, fp,
):  # fmt: skip
    """The states of the points first .. last-1 at the clock `target`, from the steps that cover it; NaN once ended."""
    size = points.shape[1]
    trial = np.empty(size)
    f = np.zeros((size, columns))
    for path in range(first, last):
        row = rows[path]
        out = shown[path]
        code = 0
        if status[path] == 0:
            if row[LATEST] == 2.0 and row[NOW] != target:
                polynomial(DENSE_RADAU, 3, starts[path], slopes[path], (target - row[PAST]) / row[SPAN], 1.0, out)
                code = retract(fns, out, hp, c, d, nz, fp)
            else:
                code = read(
                    field, retract, fns, A, C, P, stages, points[path], starts[path], slopes[path], row, target,
                    trial, out, f, rtol, atol, hp, c, d, nz, fp,
                )  # fmt: skip
            if code != 0:
                settle(code, f, path, row, status, ended)
        if status[path] != 0:
            for i in range(size):
                out[i] = np.nan
