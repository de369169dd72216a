"""The compiled time loops of flows without noise.

What the loops are given comes in a few tuples, those of the steps in `solvers.explicit` and `solvers.radau`:

    paths = (points, starts, slopes, rows, status)   where all paths stand: their points, the last steps' starts and
                                                     slopes, their rows of numbers
    goal  = (target, end, attempts)                  where to on the clock, what not to pass, how many attempts
    seen  = (looks, system, tableau, shown, out)     whether points are shown; `show` is given the next three; where
                                                     they are kept (N, saves, size), if that has room
"""

import numpy as np

from minidyn.common.status import Status
from minidyn.compiler import jit
from minidyn.solvers.explicit import explicit_steps, polynomial, state_inside
from minidyn.solvers.radau import DENSE_RADAU, NOT_STIFF, implicit_steps
from minidyn.solvers.rows import IMPLICIT, At
from minidyn.solvers.system import put_back

BESIDE = 16  # lanes that run side by side, at most
ROUND = 16  # attempts


@jit
def settle(code, f, path, status):
    """Note how a path ended, if it did."""
    for i in range(f.shape[0]):
        if code == 0 and f.shape[1] > 0 and abs(f[i, 0]) > 0.0:
            code = Status.SOLVER_FAILED
    if code > 0:
        status[path] = code


@jit
def still_going(todo, count, rows, status, target):
    """Keep those of the paths todo[:count] that go on explicitly towards `target`; how many."""
    left = 0
    for j in range(count):
        path = todo[j]
        if status[path] == 0 and rows[path, At.NOW] < target and rows[path, At.MODE] == 0.0:
            todo[left] = path
            left += 1
    fill_lanes(todo, left)
    return left


@jit
def fill_lanes(todo, count):
    """The last of todo[:count] stands in the places behind it, of which lanes read some."""
    for j in range(count, min(count + BESIDE, todo.shape[0])):
        todo[j] = todo[max(count - 1, 0)]


@jit(fma=True, thorough=True)
def advance_explicit(system, method, shape, todo, count, paths, goal, control):
    """Carry the paths todo[:count] past the clock `target` by at most so many attempts each; how many of them go on.

    The list has room for `BESIDE` more. After every few attempts it closes ranks, so that no lane waits for long.
    """
    _, _, _, rows, status = paths
    target, end, attempts = goal
    spent = 0
    while count > 0 and spent < attempts:
        now = min(ROUND, attempts - spent)
        explicit_steps(system, method, shape, todo, count, paths, (target, end, now), control)
        count = still_going(todo, count, rows, status, target)
        spent += now
    return count


@jit(fma=True, thorough=True)
def advance_saving(system, method, shape, paths, own, goal, control, seen):
    """Carry the points first .. last-1 of `own` past one place on the clock after the other, from number `turn` on, by
    at most so many attempts each, and show them there; the number of the first place that one of them has not passed
    yet: it needs more attempts, or steps of another kind.

    goal : (places, end, attempts)."""
    points, _, _, rows, status = paths
    first, last, turn = own
    places, end, attempts = goal
    looks, of, tableau, shown, out = seen
    _, _, _, columns = shape
    todo = np.empty(last - first + BESIDE, np.int64)
    for q in range(turn, places.shape[0]):
        for j in range(last - first):
            todo[j] = first + j
        count = still_going(todo, last - first, rows, status, places[q])
        if count > 0:
            advance_explicit(system, method, shape, todo, count, paths, (places[q], end, attempts), control)
        for path in range(first, last):
            if status[path] == 0 and rows[path, At.NOW] < places[q]:
                return q
        if looks:
            show(of, tableau, columns, paths, shown, first, last, places[q])
        if q < out.shape[1]:
            for path in range(first, last):
                for i in range(points.shape[1]):
                    out[path, q, i] = shown[path, i]
    return places.shape[0]


@jit(fma=True, thorough=True)
def pass_stretches(flow, method, shape, own, todo, paths, stretches, attempts, control, rest):
    """Carry the paths `own` through stretches with their own numbers, rows of `hypers`: past `targets`, never beyond
    `ends`; how many stretches they have all passed before one ends, turns stiff or needs more attempts."""
    field, retract, fns = flow
    targets, ends, hypers = stretches
    c, d, nz, fp = rest
    _, _, _, rows, status = paths
    for q in range(targets.shape[0]):
        count = 0
        for j in range(own.shape[0]):
            path = own[j]
            if rows[path, At.NOW] < targets[q]:
                if q > 0 and rows[path, At.NOW] == ends[q - 1]:
                    rows[path, At.FRESH] = 0.0
                todo[count] = path
                count += 1
        fill_lanes(todo, count)
        if count > 0:
            count = advance_explicit(
                (field, retract, fns, (hypers[q], c, d, nz, fp)),
                method,
                shape,
                todo,
                count,
                paths,
                (targets[q], ends[q], attempts),
                control,
            )
        for j in range(own.shape[0]):
            path = own[j]
            if status[path] != 0 or rows[path, At.NOW] < targets[q]:
                return q
    return targets.shape[0]


@jit
def advance_implicit(system, jacobian, columns, paths, first, last, goal, back, tolerance):
    """Carry the stiff points among first .. last-1 past the clock `target`; how many are not there yet."""
    points, starts, slopes, rows, status = paths
    target, _, _ = goal
    size = points.shape[1]
    f = np.zeros((size, columns))
    room = (
        np.empty(size),
        np.empty(size),
        f,
        np.empty((size, size)),
        np.empty((size, size)),
        np.empty((2 * size, 2 * size)),
    )
    waiting = 0
    for path in range(first, last):
        row = rows[path]
        if status[path] != 0 or row[At.NOW] >= target or row[At.MODE] == 0.0:
            continue
        code = implicit_steps(
            system, jacobian, (points[path], starts[path], slopes[path], row), goal, back, tolerance, room
        )
        if code == NOT_STIFF:
            row[At.MODE] = 0.0
            row[At.STIFF] = 0.0
            code = 0
        settle(code, f, path, status)
        if status[path] == 0 and row[At.NOW] < target:
            waiting += 1
    return waiting


@jit
def show(system, tableau, columns, paths, shown, first, last, target):
    """The states of the points first .. last-1 at the clock `target`, from the steps that cover it; NaN once ended."""
    points, starts, slopes, rows, status = paths
    size = points.shape[1]
    trial = np.empty(size)
    f = np.zeros((size, columns))
    for path in range(first, last):
        row = rows[path]
        out = shown[path]
        code = 0
        if status[path] == 0:
            if row[At.LATEST] == IMPLICIT and row[At.NOW] != target:
                polynomial(DENSE_RADAU, 3, starts[path], slopes[path], (target - row[At.PAST]) / row[At.SPAN], 1.0, out)
                code = put_back(system, out)
            else:
                code = state_inside(
                    system, tableau, (points[path], starts[path], slopes[path], row), target, out, trial, f
                )
            if code != 0:
                settle(code, f, path, status)
        if status[path] != 0:
            for i in range(size):
                out[i] = np.nan
