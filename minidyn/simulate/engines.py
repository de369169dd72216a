"""Engines: a system, its paths, and how to move them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.kernels.random import seed_blocks
from minidyn.maps.discrete import Map, pack, unpack
from minidyn.simulate.clock import Clock

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

Floats = NDArray[np.float64]
_SLICE = 0.2  # seconds of work between two looks at Ctrl-C and the progress bar


class Engine(Protocol):
    """What `simulate` asks of a system under way."""

    meta: dict[str, Any]

    def slice(self, wanted: int) -> int:
        """How many of the `wanted` steps the next `advance` should make: the progress bar waits for its end."""

    def advance(self, done: int, count: int) -> None:
        """Carry all paths from step `done` of the run to step `done + count`."""

    def parameters(self) -> Floats:
        """Theta (paths, D) where the run stands; NaN where a path has ended."""

    def columns(self) -> Iterator[Floats]:
        """The same by parameters: the values (paths,) of each in turn, in memory of their own."""

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Status and last step (paths,) of each path; `FINISHED` and `done` where it goes on."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What changes as the engine advances, by name: what a checkpoint keeps."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the state of an engine that was made alike."""


class ByColumn:
    """What engines without a better way do where parameters are wanted one after the other."""

    def parameters(self) -> Floats:
        """The parameters (paths, D) where the run stands; NaN where a path has ended."""
        raise NotImplementedError

    def columns(self) -> Iterator[Floats]:
        """Each parameter's values (paths,) in turn, in memory of their own."""
        return map(np.copy, self.parameters().T)


class _Threaded(ByColumn):
    """Splits items over threads; learns how many steps fit into a slice of time."""

    def __init__(self, threads: int, items: int):
        self.workers = max(1, min(threads, items))
        self.bounds = [items * n // self.workers for n in range(self.workers + 1)]
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
            work(0, self.bounds[-1])
        else:
            futures = [self.pool.submit(work, a, b) for a, b in zip(self.bounds, self.bounds[1:], strict=False)]
            for f in futures:
                f.result()
        taken = max(time.perf_counter() - began, 1e-9)
        if self._first:  # compilation falls into the first call
            self._first = False
        else:
            self._rate = count / taken

    def state(self) -> dict[str, NDArray[Any]]:
        """The very arrays that change as the engine advances: what a checkpoint keeps."""
        raise NotImplementedError

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the state of an engine that was made alike."""
        for name, array in self.state().items():
            array[...] = state[name]


class MapEngine(_Threaded):
    """A map on blocks of 64 paths side by side."""

    def __init__(self, system: Map, start: Floats, key: NDArray[np.uint64], threads: int, first: int):
        self.system, self.paths, self.before = system, len(start), first - 1
        self.blocks = pack(start, system.components)
        super().__init__(threads, len(self.blocks))
        self.loop = system.advance(len(start))
        self.streams = seed_blocks(key, len(self.blocks), odd=system.bound.gaussian_rows % 2 == 1)
        self.alive = np.zeros((len(self.blocks), 64))
        self.orders = system.orders(len(self.blocks))
        self.meta: dict[str, Any] = {"threads": self.workers}

    def advance(self, done: int, count: int) -> None:
        """Carry the blocks through `count` steps, on all threads; step n of the run is the map's `first + n - 1`."""
        m = self.system
        arrays = (m.hyper, m.loss.c, m.loss.rows, m.bound.numbers)

        def work(first: int, last: int) -> None:
            self.loop(
                self.blocks, self.streams, self.alive, self.orders, first, last, self.paths,
                self.before + done, count, *arrays,
            )  # fmt: skip

        self.spread(count, work)

    def state(self) -> dict[str, NDArray[Any]]:
        """States, random streams, how many steps of each lane were finite, and orders of samples; block by block."""
        return {"blocks": self.blocks, "streams": self.streams, "alive": self.alive, "orders": self.orders}

    def parameters(self) -> Floats:
        """Theta (paths, D), a copy; all of it NaN where any of it is not finite."""
        gone = self._gone()
        w = unpack(self.blocks, self.paths, 0, self.system.dim)
        w[gone] = np.nan
        return w

    def columns(self) -> Iterator[Floats]:
        """Each parameter's values in turn: a million paths are copied one parameter at a time."""
        gone = self._gone()

        def column(i: int) -> Floats:
            values = unpack(self.blocks, self.paths, i, i + 1)[:, 0]
            values[gone] = np.nan
            return values

        return map(column, range(self.system.dim))

    def _gone(self) -> NDArray[np.bool_]:
        """Which paths (paths,) are no longer finite."""
        theta = self.blocks.reshape(len(self.blocks), -1, 64)[:, : self.system.dim]
        return ~np.isfinite(theta).all(axis=1).ravel()[: self.paths]

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Status and end (paths,): `DIVERGED` at the first step that was not finite, else `FINISHED` at `done`."""
        alive = self.alive.ravel()[: self.paths]
        diverged = alive < done
        status, ended = np.full(self.paths, Status.FINISHED, np.int8), np.full(self.paths, done, np.int64)
        status[diverged], ended[diverged] = Status.DIVERGED, alive[diverged] + 1
        return status, ended


def meant(flow: Flow, codes: NDArray[Any]) -> NDArray[np.int8]:
    """What a flow's field noted of each path, as a status."""
    return np.where(codes == Status.SINGULAR, flow.meaning(Status.SINGULAR), codes).astype(np.int8)


class FlowPaths(_Threaded):
    """What all kinds of flow keep: starts (N, size), statuses, a clock, numbers for the kernels."""

    def __init__(self, flow: Flow, start: Floats, blocks: int, threads: int, clock: Clock):
        super().__init__(threads, blocks)
        self.flow, self.clock = flow, clock
        self.status = np.zeros(len(start), np.int64)
        self.ended = np.zeros(len(start), np.int64)
        m = flow.map
        self.model = m.loss.c, m.loss.rows, m.bound.numbers, flow.numbers(start)
        self.stretch = 0  # the one under way

    @property
    def arrays(self) -> tuple[Floats, ...]:
        """What kernels read: the numbers of the stretch under way, and those of the model."""
        return self.clock.hyper[self.stretch], *self.model

    def ending(self, done: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        """Status and end as the kernels noted them, of each start; `done` where it goes on."""
        return meant(self.flow, self.status), np.where(self.status == 0, done, self.ended)
