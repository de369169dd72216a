"""The tangent map along a map without noise, compiled, for many paths with numbers of their own.

    z' = F(z)        v' = (dF/dz) v

`dF/dz` is exact, from the graphs of rule and loss: the slopes of the rule, coordinate by coordinate, and the Hessian
times the part of v in theta. Along a run the mean of `log(|v'| / |v|)` is the largest Lyapunov exponent; over the n
steps of a cycle the eigenvalues of the product are its multipliers.
Source: Benettin, Galgani, Giorgilli, Strelcyn (1980).
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.errors import InputError
from minidyn.common.intake import shown
from minidyn.compiler import jit
from minidyn.flows.edge.twostep import TwoStep, along_slopes
from minidyn.kernels import pointer
from minidyn.maps.discrete import Map
from minidyn.maps.settings import Settings, settings_of

LATE = 1e15  # the number of a step at which bias corrections are over
_ALIGNING = 4  # over a quarter of the steps v turns into the direction that grows most


@jit
def advance_with(fns, model, k, z, vs, room):
    """z <- F(z) at step k, and every row of vs <- (dF/dz) v."""
    grad, hvp, rule_step, rule_slopes = fns
    hp, c, d = model
    g, bent, after, slopes = room
    dim = g.shape[0]
    grad(z[0:dim], c, d, g)
    rule_slopes(z, g, k, hp, slopes)
    for a in range(vs.shape[0]):
        v = vs[a]
        hvp(z[0:dim], v[0:dim], c, d, bent)
        along_slopes(v, bent, slopes, after)
        for i in range(after.shape[0]):
            v[i] = after[i]
    rule_step(z, g, k, hp, after)
    for i in range(after.shape[0]):
        z[i] = after[i]


@jit
def normalized(v, fresh):
    """v over its largest entry, which is returned; where that is zero, infinite or none, v begins again as `fresh`."""
    largest = 0.0
    for i in range(v.shape[0]):
        largest = largest if abs(v[i]) <= largest else abs(v[i])  # NaN stays
    good = 0.0 < largest < np.inf
    for i in range(v.shape[0]):
        v[i] = v[i] / largest if good else fresh[i]
    return largest


@jit
def follow(fns, z, fresh, k, span, hp, table, c, d, points, exponents):
    """Carry every row of z through `span[0]` steps from step k on, with a tangent vector that begins as `fresh`.

    hp (paths, H + 1), c (paths, C) : each path's numbers; the rows of `table` (steps, H + 1), where it has any, stand
        for those of hp.
    points (paths, T + 1, D) <- theta at the last T + 1 points.  exponents (paths,) <- the mean of the logarithms of
        growth behind the first `span[1]` steps; NaN where no growth is a number.
    """
    steps, aligning = span
    dim, size, saved, last = points.shape[2], z.shape[1], points.shape[1] - 1, hp.shape[1] - 1
    room = (np.empty(dim), np.empty(dim), np.empty(size), np.empty(size * (1 + size // dim)))
    vs, now = np.empty((1, size)), np.empty(last + 1)
    for p in range(z.shape[0]):
        for i in range(last):
            now[i] = hp[p, i]
        for i in range(size):
            vs[0, i] = fresh[i]
        total, counted = 0.0, 0
        for t in range(steps + 1):
            if t >= steps - saved:
                for i in range(dim):
                    points[p, t - steps + saved, i] = z[p, i]
            if t == steps:
                break
            if table.shape[0] > 0:
                for i in range(last):
                    now[i] = table[t, i]
            now[last] = k + t
            advance_with(fns, (now, c[p], d), k + t, z[p], vs, room)
            growth = normalized(vs[0], fresh)
            if t >= aligning and growth < np.inf:
                counted += 1
                total += math.log(growth) if growth > 0.0 else -np.inf
        exponents[p] = total / counted if counted > 0 else np.nan


@jit
def multiply_along(fns, z, vs, k, hp, c, d, points, dim):
    """z <- F^n(z), and the rows of vs through the tangent maps on the way, all at step k; points (n, size) <- the whole
    states that z passes, the first one among them."""
    size = z.shape[0]
    room = (np.empty(dim), np.empty(dim), np.empty(size), np.empty(size * (1 + size // dim)))
    for t in range(points.shape[0]):
        for i in range(size):
            points[t, i] = z[i]
        advance_with(fns, (hp, c, d), k, z, vs, room)


class Tangent:
    """A map without its noise, and its tangent map, at numbers that differ from path to path."""

    def __init__(self, system: Map):
        self.map, self.two = system, TwoStep(system)
        loss, rule = system.loss.kernels, self.two.kernels
        self.kernels = tuple(
            pointer(home, name)
            for home, names in ((loss, ("grad", "hvp")), (rule, ("rule_step", "rule_slopes")))
            for name in names
        )

    def numbers(self, paths: int, settings: Settings | None = None) -> tuple[Floats, Floats]:
        """Each path's hyperparameters (paths, H + 1), the step number behind them, and constants of the loss
        (paths, C): the map's own, but for what differs from path to path."""
        hp, c = np.tile([*self.map.rule.hyper_values, LATE], (paths, 1)), np.tile(self.map.loss.c, (paths, 1))
        if settings is not None:
            for (array, place), column in zip(settings.spots, settings.values, strict=True):
                {"hp": hp, "c": c}[array][:, place] = column
        return hp, c

    def follow(self, z: Floats, steps: int, saved: int, numbers: tuple[Floats, Floats], first_step: float = 1,
               table: Floats | None = None, threads: int = 1) -> tuple[Floats, Floats]:  # fmt: skip
        """Carry the states z (paths, components), in place, through `steps` steps: theta (paths, saved + 1, D) at the
        last points, and the largest Lyapunov exponent per step (paths,) over the last three quarters, NaN of a path
        that diverged."""
        (hp, c), paths = numbers, len(z)
        points, exponents = np.empty((paths, saved + 1, self.map.dim)), np.empty(paths)
        fresh = np.random.default_rng(0).normal(size=z.shape[1])
        rows = np.empty((0, hp.shape[1])) if table is None else table
        span = (steps, steps // _ALIGNING)

        def work(low: int, high: int) -> None:
            part = slice(low, high)
            follow(self.kernels, z[part], fresh, float(first_step), span, hp[part], rows, c[part], self.map.loss.rows,
                   points[part], exponents[part])  # fmt: skip

        bounds = [paths * n // threads for n in range(threads + 1)]
        if threads == 1:
            work(0, paths)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, bounds, bounds[1:]))
        exponents[~np.isfinite(points[:, -1]).all(axis=1)] = np.nan
        return points, exponents

    def around(self, z: Floats, period: int, hp: Floats, c: Floats) -> tuple[Floats, Floats, Floats]:
        """`F^n(z)`, its Jacobian (components, components), and the states (n, components) that z passes, after bias
        corrections."""
        after, columns = z.copy(), np.eye(len(z))
        points = np.empty((period, len(z)))
        multiply_along(self.kernels, after, columns, LATE, hp, c, self.map.loss.rows, points, self.map.dim)
        return after, columns.T, points


def autonomous(system: Any, what: str) -> None:
    """Refuse, for a function that is called so, what is no map, and a map with noise or one that changes with time."""
    if not isinstance(system, Map) or system.noise is not None:
        raise InputError(f"{what} looks at a Map without noise; drop the noise.")
    if system.rule.scheduled or system.rule.own_clock:
        raise InputError(f"{what} looks at what a map settles to; {system.rule} changes from step to step.")


def varied(system: Map, over: Any, values: Floats) -> Settings:
    """The settings of paths that differ in the number called `over`, a name or a symbol."""
    if not isinstance(over, str) and not getattr(over, "is_Symbol", False):
        raise InputError(f"over names a number of the map, such as 'lr', or is a constant's symbol, not {shown(over)}.")
    return settings_of(system, {over: values}, len(values))
