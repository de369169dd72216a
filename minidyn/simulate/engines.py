"""Engines: a system, its paths, and how to move them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minidyn.errors import InputError
from minidyn.flows.base import Flow
from minidyn.kernels import pointer
from minidyn.kernels.random import seed_lanes
from minidyn.maps import Map, pack, unpack
from minidyn.simulate.loops import advance_map, advance_ode, advance_sde
from minidyn.trajectory import Status

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

Floats = NDArray[np.float64]
_SLICE = 0.2  # seconds of work between two looks at Ctrl-C and the progress bar



class Engine(Protocol):
    """What `simulate` asks of a system under way."""

    meta: dict[str, Any]

    def slice(self, wanted: int) -> int: ...
    def advance(self, done: int, count: int) -> None: ...
    def parameters(self) -> Floats: ...
    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]: ...


def make_engine(system: Map | Flow, start: Floats, paths: int, key: NDArray[np.uint64], method: str | None,
                rtol: float, atol: float, substeps: int | None, save_every: int, threads: int,
                first_step: int) -> Engine:  # fmt: skip
    """The engine that carries this system from these starts (paths, size)."""
    if isinstance(system, Map):
        if method is not None:
            raise InputError("a map runs exactly as it is: method= is for flows.")
        return MapEngine(system, start, key, threads, first_step)
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
        return OdeEngine(system, start, paths, rtol, atol, threads)
    if substeps is None:
        substeps = max(d for d in range(1, system.reach + 1) if save_every % d == 0)
    return SdeEngine(system, start, key, whole("substeps", substeps, 1), threads)


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


class MapEngine(_Threaded):
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


class OdeEngine(_FlowPaths):
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


class SdeEngine(_FlowPaths):
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




def thread_count(threads: int | None) -> int:
    """How many threads to use: at most `threads`, by default as many as this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return available if threads is None else whole("threads", threads, 1)




def whole(name: str, value: Any, least: int) -> int:
    """A whole number that is at least `least`, or an InputError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, float)) or value % 1 != 0:
        raise InputError(f"{name} must be a whole number, not {value!r}.")
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")
    return int(value)


