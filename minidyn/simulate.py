"""The only time loops: maps and flows, many paths, saving, progress, statuses."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numba as nb
import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidyn import observables
from minidyn.errors import InputError
from minidyn.flows.base import Flow
from minidyn.kernels import pointer
from minidyn.kernels.pointers import loop_types
from minidyn.kernels.random import seed_key, seed_lanes
from minidyn.maps import Map, pack, unpack
from minidyn.solvers.ode import integrate
from minidyn.solvers.sde import em_step
from minidyn.trajectory import QUANTILES, Run, Status, provenance

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

Floats = NDArray[np.float64]
log = logging.getLogger("minidyn")
_SLICE = 0.2  # seconds of work between two looks at Ctrl-C and the progress bar


def simulate(system: Map | Flow, w0: ArrayLike, steps: int, *, paths: int = 1, save_every: int | None = None,
             observe: Any = None, rng: Any = None, method: str | None = None, rtol: float = 1e-9,
             atol: float = 1e-12, substeps: int | None = None, keep: str = "paths", first_step: int = 1,
             threads: int | None = None, progress: bool | None = None) -> Run:  # fmt: skip
    """Run a map or a flow for a number of steps, many paths at once.

    Parameters
    ----------
    system : a `Map`, or a flow of one; a flow's time is `t = lr k`.
    w0 : starting parameters, (D,) for all paths or (paths, D). Flows on a manifold start at the
        gradient-flow limit of `w0`. For a map it may be the whole state `z` (theta, then the rule's states),
        for example `map.fixed_point(w)`; without it the states start at zero.
    steps : number of steps k.  paths : number of independent paths.
    save_every : steps between saves; by default about 200 saves.
    observe : names (`loss`, `sharpness`, `trace`, `distance`, `gradient_norm`, `norm`), sympy
        expressions, functions of w (paths, D), a list of these, or `{name: any of these}`.
    rng : seed, `SeedSequence` or `Generator`; path i depends on the seed and on i alone.
    method : "euler-maruyama" for flows with noise, "dopri5" for flows without; chosen if not given.
    rtol, atol : tolerances of "dopri5" per step, on w.
    substeps : steps k that one Euler-Maruyama step covers; by default at most a hundredth of the run
        and small enough that a step's noise stays small against the distance between saves.
    first_step : the number k of a map's first step; a large one finds bias corrections and warm-ups already over,
        as `w0=map.fixed_point(w)` wants it for Adam.
    keep : "paths" keeps every path, "moments" only mean, variance and quantiles at each save.
    threads : at most this many; by default as many as this process may use.
    progress : show a progress bar; by default on a terminal, for runs longer than a second or two.

    Returns a `Run`. Ctrl-C returns what there is, with the status `interrupted`.
    Raises InputError for arguments that do not fit, FlowError where a flow does not exist.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> run = md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.25)), w0=[1.0], steps=4, save_every=1)
    >>> run.w[0, :, 0]
    array([1.    , 0.5   , 0.25  , 0.125 , 0.0625])
    """
    if not isinstance(system, (Map, Flow)):
        raise InputError(f"simulate runs a Map or a flow, not {type(system).__name__}.")
    steps, paths = _whole("steps", steps, 1), _whole("paths", paths, 1)
    save_every = max(1, steps // 200) if save_every is None else _whole("save_every", save_every, 1)
    if keep not in ("paths", "moments"):
        raise InputError(f"keep must be 'paths' or 'moments', not {keep!r}.")
    first_step = _whole("first_step", first_step, 1)
    start = _starts(system, w0, paths)
    entropy, key = seed_key(rng)
    began = time.perf_counter()
    watchers = observables.resolve(system.loss, observe)
    engine = _engine(system, start, paths, key, method, rtol, atol, substeps, save_every, _threads(threads), first_step)
    recorder = _Recorder(system.loss.param_names, watchers, keep)
    recorder.save(engine.parameters())
    interrupted = False
    bar = _Progress(steps, paths, progress, type(system).__name__)
    done = 0
    saves = [*range(0, steps, save_every), steps]
    try:
        with bar:
            for target in saves[1:]:
                while done < target:
                    count = engine.slice(target - done)
                    engine.advance(done, count)
                    done += count
                    bar.update(done)
                recorder.save(engine.parameters())
    except KeyboardInterrupt:
        interrupted = True
        log.warning("interrupted after step %d", done)
    status, ended = engine.ending(done)
    if interrupted:
        running = status == Status.FINISHED
        status[running], ended[running] = Status.INTERRUPTED, done
    kept = np.array(saves[: recorder.count], dtype=np.int64)
    clock = system if isinstance(system, Map) else system.map
    meta = {
        "system": repr(system), "kind": "map" if isinstance(system, Map) else "flow", "lr": clock.lr(),
        "seed": str(entropy), "paths": paths, "steps": steps, **engine.meta,
        "wall_seconds": time.perf_counter() - began, **provenance(),
    }  # fmt: skip
    return recorder.run(kept, clock.time(kept), status, ended, meta)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, float)) or value % 1 != 0:
        raise InputError(f"{name} must be a whole number, not {value!r}.")
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")
    return int(value)


def _starts(system: Map | Flow, w0: ArrayLike, paths: int) -> Floats:
    """Starting parameters (paths, D), checked."""
    owner = system if isinstance(system, Map) else system.map
    start = np.asarray(w0, dtype=float) if _whole_state(owner, w0) else system.loss.check(w0, "w0")
    if start.ndim > 2 or (start.ndim == 2 and len(start) not in (1, paths)):
        raise InputError(
            f"w0 has shape {start.shape}, expected ({system.dim},) for all paths or ({paths}, {system.dim})."
        )
    if not np.isfinite(start).all():
        raise InputError("w0 contains NaN or Inf; give finite starting parameters.")
    if isinstance(system, Flow):
        start = system.start(start)
    return np.ascontiguousarray(np.broadcast_to(np.atleast_2d(start), (paths, start.shape[-1])))


def _whole_state(system: Map, w0: ArrayLike) -> bool:
    """Whether w0 holds the rule's auxiliary state beside theta."""
    shape = np.shape(w0)
    return bool(shape) and shape[-1] == system.components != system.dim


def _threads(threads: int | None) -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return available if threads is None else _whole("threads", threads, 1)


# -- engines: a system, its paths, and how to move them ----------------------------------------------


class _Engine(Protocol):
    meta: dict[str, Any]

    def slice(self, wanted: int) -> int: ...
    def advance(self, done: int, count: int) -> None: ...
    def parameters(self) -> Floats: ...
    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]: ...


def _engine(system: Map | Flow, start: Floats, paths: int, key: NDArray[np.uint64], method: str | None,
            rtol: float, atol: float, substeps: int | None, save_every: int, threads: int,
            first_step: int) -> _Engine:  # fmt: skip
    if isinstance(system, Map):
        if method is not None:
            raise InputError("a map runs exactly as it is: method= is for flows.")
        return _MapEngine(system, start, key, threads, first_step)
    noisy = system.stochastic(start)
    method = method or ("euler-maruyama" if noisy else "dopri5")
    if method not in ("euler-maruyama", "dopri5"):
        raise InputError(f"the method is 'euler-maruyama' or 'dopri5', not {method!r}.")
    if method == "dopri5" and noisy:
        raise InputError("this flow has noise: use method='euler-maruyama'.")
    if method == "dopri5":
        for name, value in (("rtol", rtol), ("atol", atol)):
            if not 0 < value < 1:
                raise InputError(f"{name} must lie between 0 and 1, not {value!r}.")
        return _OdeEngine(system, start, paths, rtol, atol, threads)
    if substeps is None:
        substeps = max(d for d in range(1, 41) if save_every % d == 0)
    return _SdeEngine(system, start, key, _whole("substeps", substeps, 1), threads)


class _Threaded:
    """Splits items over threads; learns how many steps fit into a slice of time."""

    def __init__(self, threads: int, items: int):
        self.workers = max(1, min(threads, items))
        self.bounds = np.linspace(0, items, self.workers + 1).astype(int)
        self.pool = ThreadPoolExecutor(self.workers) if self.workers > 1 else None
        self._rate = 0.0
        self._first = True

    def slice(self, wanted: int) -> int:
        if self._rate == 0.0:
            return min(wanted, 16)
        return max(1, min(wanted, int(_SLICE * self._rate)))

    def spread(self, count: int, work: Callable[[int, int], None]) -> None:
        began = time.perf_counter()
        if self.pool is None:
            work(0, int(self.bounds[-1]))
        else:
            futures = [
                self.pool.submit(work, int(a), int(b))
                for a, b in zip(self.bounds, self.bounds[1:], strict=False)
            ]
            for f in futures:
                f.result()
        taken = max(time.perf_counter() - began, 1e-9)
        if self._first:  # compilation falls into the first call
            self._first = False
        else:
            self._rate = count / taken


class _MapEngine(_Threaded):
    """A map on blocks of 64 paths side by side."""

    def __init__(self, system: Map, start: Floats, key: NDArray[np.uint64], threads: int, first: int):
        self.system, self.paths, self.before = system, len(start), first - 1
        whole = start.shape[-1] == system.components
        self.blocks = pack(start if whole else system.initial_state(start))
        super().__init__(threads, len(self.blocks))
        self.draw, self.step = pointer(system.kernels, "draw"), pointer(system.kernels, "step")
        self.streams = np.empty((len(self.blocks), 256), np.uint64)
        for number, r in enumerate(self.streams):
            seed_lanes(key, 64 * number, r)
        self.alive = np.zeros((len(self.blocks), 64))
        n = system.loss.n_samples or 1
        self.shuffles = system.bound.shuffles
        size = (len(self.blocks), n * 64) if self.shuffles else (1, 1)
        self.orders = np.zeros(size, np.int64)
        self.meta: dict[str, Any] = {"threads": self.workers}

    def advance(self, done: int, count: int) -> None:
        m, bound = self.system, self.system.bound
        arrays = (m.hyper, m.loss.c, m.loss.rows, bound.numbers)

        def work(first: int, last: int) -> None:
            advance_map(
                self.draw, self.step, self.blocks, self.streams, self.alive, self.orders,
                first, last, self.before + done, count,
                bound.rows, bound.batch, bound.picks, self.shuffles, *arrays,
            )  # fmt: skip

        self.spread(count, work)

    def parameters(self) -> Floats:
        w = unpack(self.blocks, self.paths)[:, : self.system.dim].copy()
        w[~np.isfinite(w).all(axis=1)] = np.nan
        return w

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        alive = self.alive.ravel()[: self.paths].astype(np.int64)
        diverged = alive < done
        status = np.where(diverged, Status.DIVERGED, Status.FINISHED).astype(np.int8)
        return status, np.where(diverged, alive + 1, done)


class _FlowPaths(_Threaded):
    """What both kinds of flow keep: paths (N, D) in blocks, statuses, kernels."""

    def __init__(self, flow: Flow, start: Floats, blocks: int, threads: int):
        super().__init__(threads, blocks)
        self.flow, self.start = flow, start
        self.status = np.zeros(len(start), np.int64)
        self.ended = np.zeros(len(start), np.int64)
        m = flow.map
        self.arrays = (m.hyper, m.loss.c, m.loss.rows, m.bound.numbers, flow.numbers(start))

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        status = self.status.astype(np.int8)
        return status, np.where(status == 0, done, self.ended)


class _OdeEngine(_FlowPaths):
    """A flow without noise; equal starting points are integrated once."""

    def __init__(self, flow: Flow, start: Floats, paths: int, rtol: float, atol: float, threads: int):
        self.points, self.which = np.unique(start, axis=0, return_inverse=True)
        self.which = self.which.ravel()
        super().__init__(flow, self.points, len(self.points), threads)
        self.field, self.retract, self.fns = flow.pointers
        self.rtol, self.atol = rtol, atol
        self.h = np.zeros((len(self.points), 1))
        self.meta: dict[str, Any] = {"method": "dopri5", "rtol": rtol, "atol": atol}

    def slice(self, wanted: int) -> int:
        return wanted

    def advance(self, done: int, count: int) -> None:
        def work(first: int, last: int) -> None:
            advance_ode(
                self.field, self.retract, self.fns, self.flow.columns, self.points, self.h, self.status, self.ended,
                first, last, done, count, self.rtol, self.atol, *self.arrays,
            )  # fmt: skip

        self.spread(count, work)

    def parameters(self) -> Floats:
        return self.points[self.which, : self.flow.dim]

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        status, ended = super().ending(done)
        return status[self.which], ended[self.which]


class _SdeEngine(_FlowPaths):
    """A flow with noise, driven by the map's own normals where they are Gaussian."""

    def __init__(self, flow: Flow, start: Floats, key: NDArray[np.uint64], substeps: int, threads: int):
        self.blocks = pack(start)
        super().__init__(flow, start, len(self.blocks), threads)
        self.paths = len(start)
        self.draw = pointer(flow.kernels, "draw")
        self.field, self.retract, self.fns = flow.pointers
        self.substeps = substeps
        self.streams = np.empty((len(self.blocks), 256), np.uint64)
        own = key if flow.couples else key ^ np.uint64(0x9E3779B97F4A7C15)
        for number, r in enumerate(self.streams):
            seed_lanes(own, 64 * number, r)
        # lanes that only fill up the last block do not run
        self.status = np.full(len(self.blocks) * 64, 99, np.int64)
        self.status[: self.paths] = 0
        self.ended = np.zeros(len(self.blocks) * 64, np.int64)
        self.meta: dict[str, Any] = {
            "method": "euler-maruyama", "substeps": substeps, "coupled": flow.couples, "threads": self.workers,
        }  # fmt: skip

    def slice(self, wanted: int) -> int:
        count = super().slice(wanted)
        whole = max(1, count // self.substeps) * self.substeps
        return min(wanted, whole)

    def advance(self, done: int, count: int) -> None:
        def work(first: int, last: int) -> None:
            advance_sde(
                self.draw, self.field, self.retract, self.fns, self.flow.rows, self.flow.columns, self.blocks,
                self.streams, self.status, self.ended, first, last, done, count, self.substeps, *self.arrays,
            )  # fmt: skip

        self.spread(count, work)

    def parameters(self) -> Floats:
        return unpack(self.blocks, self.paths)[:, : self.flow.dim].copy()

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        status = self.status[: self.paths].astype(np.int8)
        return status, np.where(status == 0, done, self.ended[: self.paths])


# -- the compiled loops --------------------------------------------------------------------------------


def _jit(function):
    return nb.njit(cache=True, nogil=True, error_model="numpy")(function)


@_jit
def advance_map(
    draw, step, blocks, streams, alive, orders, first, last, k0, steps, rows, batch, picks, shuffles, hp, c, d, nz
):
    """Carry the blocks first .. last-1 of a map through `steps` steps after k0."""
    n = d.shape[0]
    z = np.zeros((rows + 1) * 64)
    index = np.zeros(batch * 64, np.int64)
    own = np.zeros(n * 64 if picks else 1, np.int64)
    for q in range(own.shape[0]):
        own[q] = q // 64
    for block in range(first, last):
        s = blocks[block]
        r = streams[block]
        ok = alive[block]
        order = orders[block] if shuffles else own
        for k in range(k0 + 1, k0 + steps + 1):
            size = draw(r, z, index, order, k, n)
            step(s, z, index, size, k, hp, c, d, nz, ok)


@_jit
def advance_ode(
    field, retract, fns, columns, points, h, status, ended, first, last, k0, steps, rtol, atol, hp, c, d, nz, fp
):
    """Carry the points first .. last-1 of a flow without noise through `steps` steps after k0."""
    size = points.shape[1]
    slopes = np.empty((7, size))
    trial = np.empty(size)
    f = np.zeros((size, columns))
    for path in range(first, last):
        if status[path] != 0:
            continue
        w = points[path]
        # step k of the map covers the times from k - 1 to k: in its middle a schedule stands at k
        code = integrate(
            field, retract, fns, w, h[path], k0 + 0.5, k0 + steps + 0.5, rtol, atol, slopes, trial, hp, c, d, nz, fp, f
        )
        for i in range(size):
            if not abs(w[i]) < np.inf:
                code = 1
            if columns > 0 and abs(f[i, 0]) > 0.0:
                code = 4
        if code != 0:
            status[path] = code
            ended[path] = k0 + steps
            for i in range(size):
                w[i] = np.nan


@_jit
def advance_sde(
    draw, field, retract, fns, rows, columns, blocks, streams, status, ended, first, last, k0, steps, substeps,
    hp, c, d, nz, fp,
):  # fmt: skip
    """Carry the blocks first .. last-1 of a flow with noise through `steps` steps after k0."""
    size = blocks.shape[1] // 64
    n = d.shape[0]
    z = np.zeros((rows + 1) * 64)
    total = np.zeros((rows + 1) * 64)
    index = np.zeros(64, np.int64)
    w = np.empty(size)
    b = np.empty(size)
    f = np.zeros((size, columns))
    xi = np.empty(columns)
    for block in range(first, last):
        s = blocks[block]
        r = streams[block]
        k = k0
        while k < k0 + steps:
            span = min(substeps, k0 + steps - k)
            for q in range(total.shape[0]):
                total[q] = 0.0
            for turn in range(span):
                draw(r, z, index, index, k + turn + 1, n)
                for q in range(total.shape[0]):
                    total[q] += z[q]
            for lane in range(64):
                path = block * 64 + lane
                if status[path] != 0:
                    continue
                for i in range(size):
                    w[i] = s[i * 64 + lane]
                for q in range(columns):
                    xi[q] = total[q * 64 + lane]
                code = em_step(field, retract, fns, w, k + 0.5 * (span + 1), float(span), xi, b, f, hp, c, d, nz, fp)
                for i in range(size):
                    if code == 0 and not abs(w[i]) < np.inf:
                        code = 1
                if code != 0:
                    status[path] = code
                    ended[path] = k + span
                for i in range(size):
                    s[i * 64 + lane] = w[i] if code == 0 else np.nan
            k += span


def compile_loop(flow: Flow) -> None:
    """Compile the loop for noisy flows of this kind; it depends on the flow's kind alone."""
    draw, (field, retract, fns) = loop_types(flow.needs)
    i, f1, f2, i1, u2 = nb.int64, nb.float64[::1], nb.float64[:, ::1], nb.int64[::1], nb.uint64[:, ::1]
    advance_sde.compile((draw, field, retract, fns, i, i, f2, u2, i1, i1, i, i, i, i, i, f1, f1, f2, f1, f1))


# -- recording and progress ---------------------------------------------------------------------------


class _Recorder:
    """Keeps what is asked for at every save."""

    def __init__(self, names: list[str], watchers: dict[str, observables.Observable], keep: str):
        self.names, self.watchers, self.keep = names, watchers, keep
        self.count = 0
        self.w: list[Floats] = []
        self.values: dict[str, list[Floats]] = {name: [] for name in watchers}
        self.stats: dict[str, list[tuple[float, float, Floats, int]]] = {}

    def save(self, w: Floats) -> None:
        values = {name: watch(w) for name, watch in self.watchers.items()}
        if self.keep == "paths":
            self.w.append(w)
            for name, v in values.items():
                self.values[name].append(v)
        else:
            rows = {name: _moments(v) for name, v in [*zip(self.names, w.T, strict=True), *values.items()]}
            for name, row in rows.items():
                self.stats.setdefault(name, []).append(row)
        self.count += 1

    def run(self, steps: NDArray[np.int64], times: Floats, status: Any, ended: Any, meta: dict[str, Any]) -> Run:
        moments = {
            name: {
                "mean": np.array([r[0] for r in rows]), "variance": np.array([r[1] for r in rows]),
                "quantiles": np.array([r[2] for r in rows]).T, "count": np.array([float(r[3]) for r in rows]),
            }
            for name, rows in self.stats.items()
        }  # fmt: skip
        w = np.stack(self.w, axis=1) if self.keep == "paths" else None
        seen = {n: np.stack(v, axis=1) for n, v in self.values.items()} if self.keep == "paths" else {}
        return Run(steps, times, w, seen, status, ended, list(self.names), meta, moments)


def _moments(v: Floats) -> tuple[float, float, Floats, int]:
    good = v[np.isfinite(v)]
    if not len(good):
        return math.nan, math.nan, np.full(len(QUANTILES), np.nan), 0
    with np.errstate(over="ignore"):  # a path about to diverge
        variance = float(good.var(ddof=1)) if len(good) > 1 else 0.0
    return float(good.mean()), variance, np.quantile(good, QUANTILES), len(good)


class _Progress:
    """A bar on stderr once a run has taken a second; steps/s and the time left."""

    def __init__(self, steps: int, paths: int, wanted: bool | None, label: str):
        self.steps, self.paths, self.label = steps, paths, label
        self.on = sys.stderr.isatty() if wanted is None else wanted
        self.began = time.perf_counter()
        self.bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def update(self, done: int) -> None:
        taken = time.perf_counter() - self.began
        if self.on and self.bar is None and taken > 1.0 and done < self.steps:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task(self.label, total=self.steps, speed="")
            self.bar.start()
        if self.bar is not None:
            speed = f"{done * self.paths / max(taken, 1e-9):.2e} path-steps/s"
            self.bar.update(self.task, completed=done, speed=speed)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

