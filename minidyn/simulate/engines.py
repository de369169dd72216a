"""Engines: a system, its paths, and how to move them."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, ClassVar, Protocol

import numpy as np

from minidyn.common.arrays import Arrays, Codes, Floats, Integers, NDArray, Truths, Words, all_of
from minidyn.common.status import Status
from minidyn.compiler import Function, FunctionPointer
from minidyn.flows.base import Flow
from minidyn.kernels.random import seed_blocks
from minidyn.maps.discrete import Map, pack, unpack
from minidyn.maps.settings import Settings
from minidyn.simulate.clock import Clock
from minidyn.simulate.map_loops import ADVANCE, carry_saving
from minidyn.solvers.piecewise import carry_all

_SLICE = 0.2  # seconds of work between two looks at Ctrl-C and the progress bar


class Engine(Protocol):
    """What `simulate` asks of a system under way."""

    meta: dict[str, Any]
    saves_by_itself: bool = False  # whether it has `advance_saving`
    kept: ClassVar[tuple[str, ...]] = ()  # the arrays that change as it advances, of fixed shapes

    def slice(self, wanted: int) -> int:
        """How many of the `wanted` steps the next `advance` should make: the progress bar waits for its end."""
        return wanted

    def advance(self, done: int, count: int) -> None:
        """Carry all paths from step `done` of the run to step `done + count`."""

    def look_ahead(self, done: int, count: int) -> None:
        """`advance` to where the run happens to end: nothing of that stays in what goes on from `state`. With a count
        of 0, after `restore`: show the paths at step `done`, to which an engine may have looked ahead."""
        if count:
            self.advance(done, count)

    def begin_again(self, done: int, z: Floats) -> None:
        """After `restore`, as another system of the same kind: go on from the whole states z (paths, size) at step
        `done`, on the same streams. An engine whose state is just that has nothing to do."""
        return

    def release(self) -> None:
        """Give up what only an engine under way needs."""
        return

    def advance_saving(self, done: int, targets: Integers) -> Floats:
        """Carry all paths from step `done` to the last of the `targets`; theta (paths, targets, D) at each of them, as
        `parameters` says it there."""
        out = []
        for target in targets.tolist():
            self.advance(done, target - done)
            out.append(self.parameters())
            done = target
        return np.stack(out, axis=1)

    def parameters(self) -> Floats:
        """Theta (paths, D) where the run stands; NaN where a path has ended."""

    def whole(self) -> Floats:
        """All that the system carries of each path (paths, size): of a map its states, of a flow its own; NaN alike."""
        return self.states()

    def states(self) -> Floats:
        """Whole states of the map (paths, components), of flows that do not carry them theta; NaN alike."""

    def columns(self) -> Iterator[Floats]:
        """The same by parameters: the values (paths,) of each in turn, in memory of their own."""
        return map(np.copy, self.parameters().T)

    def ending(self, done: int) -> tuple[Codes, Integers]:
        """Status and last step (paths,) of each path; `FINISHED` and `done` where it goes on."""

    def state(self) -> Arrays:
        """What changes as the engine advances, by name; beside arrays of fixed shape texts (uint8) of any length."""
        return {name: getattr(self, name) for name in self.kept}

    def restore(self, state: Arrays) -> None:
        """Go on from the state of an engine that was made alike."""
        for name in self.kept:
            getattr(self, name)[...] = state[name]


def distinct(start: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The different rows of the starting points, and which of them each one is."""
    if len(start) == 1 or not start.strides[0]:
        return start[:1].copy(), np.zeros(len(start), np.intp)
    points, which = np.unique(start, axis=0, return_inverse=True)
    return np.ascontiguousarray(points), which.ravel()


class FlowEngine(Engine):
    """A flow and its states `shown` (N, size) where the run stands, `status` and `ended` (N,) of each, and `which` of
    them is that of a path (paths,): equal starting points are carried once."""

    flow: Flow
    which: Any
    shown: Floats
    status: NDArray[Any]
    ended: Integers

    def parameters(self) -> Floats:
        """Theta (paths, D), of each path that of its point; NaN where it has ended."""
        return self.shown[self.which, : self.flow.dim]

    def whole(self) -> Floats:
        """The flow's states."""
        return self.shown[self.which]

    @property
    def carried(self) -> int:
        """How many numbers of the map's state the flow's begins with: all, or theta."""
        return self.flow.size if self.flow.size == self.flow.map.components else self.flow.dim

    def states(self) -> Floats:
        """The flow's states where they are the map's, else theta."""
        return self.shown[self.which, : self.carried]

    def ending(self, done: int) -> tuple[Codes, Integers]:
        """Status and last step (paths,) as noted of each path's point; `done` where it goes on."""
        codes = self.status[self.which]
        if not np.count_nonzero(codes):
            return np.zeros(len(codes), np.int8), np.full(len(codes), done, np.int64)
        status = np.where(codes == Status.SINGULAR, self.flow.meaning(Status.SINGULAR), codes).astype(np.int8)
        return status, np.where(status == 0, done, self.ended[self.which])


class _Threaded(Engine):
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

    def release(self) -> None:
        """The threads."""
        if self.pool is not None:
            self.pool.shutdown(wait=False)
            self.pool = None

    def spread(self, count: int, work: Callable[[int, int], None]) -> None:
        began = time.perf_counter()
        if self.pool is None:
            work(0, self.bounds[-1])
        else:
            list(self.pool.map(work, self.bounds[:-1], self.bounds[1:]))
        taken = max(time.perf_counter() - began, 1e-9)
        if self._first:  # compilation falls into the first call
            self._first = False
        else:
            self._rate = count / taken


@lru_cache(maxsize=256)
def _by_address(loop: Function) -> FunctionPointer:
    """A map's time loop for compiled code that does not know it."""
    return loop.pointer(ADVANCE)


class MapEngine(_Threaded):
    """A map on blocks of 64 paths side by side: states, and behind them what `settings` give each path, random streams,
    how many steps of each lane were finite, and orders of samples."""

    kept = ("blocks", "streams", "alive", "orders")

    def __init__(self, system: Map, start: Floats, key: Words, threads: int, first: int, first_path: int = 0,
                 settings: Settings | None = None):  # fmt: skip
        self.system, self.paths, self.before = system, len(start), first - 1
        self.spots = settings.spots if settings else ()
        self.blocks = pack(start, system.components + len(self.spots))
        if settings:
            own = self.blocks.reshape(len(self.blocks), -1, 64)[:, system.components :]
            own[...] = pack(settings.values.T).reshape(own.shape)
        super().__init__(threads, len(self.blocks))
        self.loop = system.advance(len(start), self.spots)
        odd = system.bound.gaussian_rows % 2 == 1
        period = settings.period if settings else 2**62
        self.streams = seed_blocks(key, len(self.blocks), odd, first_path, period)
        self.alive = np.zeros((len(self.blocks), 64))
        self.orders = system.orders(len(self.blocks))
        self.meta: dict[str, Any] = {"threads": self.workers}
        self.by_address = _by_address(self.loop)
        self.saves_by_itself = self.by_address.address is not None  # else it would be compiled for each map

    def advance_saving(self, done: int, targets: Integers) -> Floats:
        """From save to save without a look at Python, as `advance` goes."""
        m, out = self.system, np.empty((self.paths, len(targets), self.system.dim))
        numbers = m.hyper, m.loss.c, m.loss.rows, m.bound.numbers

        def work(first: int, last: int) -> None:
            span = first, last, self.paths, self.before + done
            carry_saving(self.by_address, (*self.state().values(),), span, targets - done, numbers, out)

        self.spread(int(targets[-1]) - done, work)
        return out

    def advance(self, done: int, count: int) -> None:
        """Carry the blocks through `count` steps, on all threads; step n of the run is the map's `first + n - 1`."""
        m = self.system

        def work(first: int, last: int) -> None:
            self.loop(
                *self.state().values(),
                first,
                last,
                self.paths,
                self.before + done,
                count,
                m.hyper,
                m.loss.c,
                m.loss.rows,
                m.bound.numbers,
            )

        self.spread(count, work)

    def with_states(self, blocks: Floats) -> Floats:
        """The states of other blocks, with what this engine gives each path."""
        size = 64 * self.system.components
        return np.concatenate([blocks[:, :size], self.blocks[:, size:]], axis=1)

    def parameters(self) -> Floats:
        """Theta (paths, D), a copy; all of it NaN where any of it is not finite."""
        return self._parts(self.system.dim)

    def states(self) -> Floats:
        """Theta and the rule's states (paths, components), likewise."""
        return self._parts(self.system.components)

    def _parts(self, count: int) -> Floats:
        w = unpack(self.blocks, self.paths, 0, count)
        fine = np.isfinite(w[:, : self.system.dim])
        if not all_of(fine):
            w[~fine.all(axis=1)] = np.nan
        return w

    def columns(self) -> Iterator[Floats]:
        """Each parameter's values in turn: a million paths are copied one parameter at a time."""
        gone = self._gone()
        for i in range(self.system.dim):
            values = unpack(self.blocks, self.paths, i, i + 1)[:, 0]
            values[gone] = np.nan
            yield values

    def _gone(self) -> Truths:
        """Which paths (paths,) are no longer finite."""
        theta = self.blocks.reshape(len(self.blocks), -1, 64)[:, : self.system.dim]
        return ~np.isfinite(theta).all(axis=1).ravel()[: self.paths]

    def ending(self, done: int) -> tuple[Codes, Integers]:
        """Status and end (paths,): `DIVERGED` at the first step that was not finite, else `FINISHED` at `done`."""
        alive = self.alive.ravel()[: self.paths]
        if not np.count_nonzero(alive < done):
            return np.zeros(self.paths, np.int8), np.full(self.paths, done, np.int64)
        status = np.where(alive < done, Status.DIVERGED, Status.FINISHED).astype(np.int8)
        return status, np.where(alive < done, alive + 1, done).astype(np.int64)


class FlowPaths(FlowEngine, _Threaded):
    """What all kinds of flow keep: starts (N, size), statuses, a clock, `numbers` and others for the kernels."""

    def __init__(self, flow: Flow, start: Floats, numbers: Floats, blocks: int, threads: int, clock: Clock):
        super().__init__(threads, blocks)
        self.flow, self.clock = flow, clock
        self.status = np.zeros(len(start), np.int64)
        self.ended = np.zeros(len(start), np.int64)
        m = flow.map
        self.model = m.loss.c, m.loss.rows, m.bound.numbers, numbers
        self.stretch = 0  # the one under way

    @property
    def arrays(self) -> tuple[Floats, ...]:
        """What kernels read: the numbers of the stretch under way, and those of the model."""
        return self.clock.hyper[self.stretch], *self.model


class CarriedEngine(FlowPaths):
    """A flow without noise that carries itself from event to event; equal starting points are carried once."""

    kept = ("shown", "rows", "status", "ended", "at")
    _LONGEST = 16  # steps between two ends of a call

    def __init__(self, flow: Flow, start: Floats, numbers: Floats, rtol: float, atol: float, steps: int, threads: int):
        self.shown, self.which = distinct(start)
        super().__init__(flow, self.shown, numbers, len(self.shown), threads, Clock(flow, steps))
        self.rows = np.zeros((len(self.shown), flow.remembers))
        self.at = np.zeros(1, np.int64)  # the step where all of this stands
        self.left: Arrays = {}  # what stood before a look ahead, which goes on from there
        self.tolerance = rtol, atol
        self.meta: dict[str, Any] = {"method": "dopri5", "rtol": rtol, "atol": atol}

    def slice(self, wanted: int) -> int:
        """At most 16 steps, however quick: where a call ends a step ends, and no bit may depend on the time."""
        ahead = int(self.at[0] - self.left["at"][0]) if self.left else 0
        return min(wanted, self._LONGEST - ahead)

    def look_ahead(self, done: int, count: int) -> None:
        """Where a call ends a step ends: this one is made again, and longer, when the run goes on."""
        self._return()
        if 0 < done + count - self.at[0] < self._LONGEST:
            self.left = {name: array.copy() for name, array in self.state().items()}
        self._carry(int(self.at[0]), done + count)

    def _return(self) -> None:
        """Go back to where a look ahead began."""
        if self.left:
            self.restore(self.left)

    def begin_again(self, done: int, z: Floats) -> None:
        """As from a start at the states z."""
        self.shown[self.which] = z
        self.rows[...], self.at[0], self.left = 0.0, done, {}

    def advance(self, done: int, count: int) -> None:
        """Carry each start to step `done + count`, from where a look ahead has left it, or from `done`."""
        self._return()
        self._carry(int(self.at[0]), done + count)

    def _carry(self, done: int, target: int) -> None:
        """Carry each start from step to step. One that fails, or is no longer finite, is NaN from then on; it fails in
        the step of the map that its clock is in."""
        for stretch, until, _, _ in self.clock.stretches(done, target):
            self.stretch = stretch
            self.spread(until - done, partial(self._work, (self.clock.at(done), self.clock.at(until))))
            done = until
        self.at[0] = target
        for path in np.flatnonzero((self.status != 0) & (self.ended == 0)):
            kept = self.rows[path]
            self.ended[path] = min(math.floor(self.clock.steps(kept[0])) + 1, done)
            self.status[path], reason = self.flow.why(self.shown[path], kept, int(self.status[path]))
            self.meta.setdefault("reason", reason)
            self.shown[path] = np.nan

    def _work(self, span: tuple[float, float], first: int, last: int) -> None:
        flow = self.flow
        carry_all(
            flow.carrier,
            flow.pointers[2],
            self.shown,
            self.rows,
            self.status,
            (first, last),
            span,
            self.tolerance,
            self.arrays,
        )

    def state(self) -> Arrays:
        """The arrays, and what the first failure was, as bytes; those before a look ahead."""
        reason = np.frombuffer(self.meta.get("reason", "").encode(), np.uint8)
        return self.left or super().state() | {"reason": reason}

    def restore(self, state: Arrays) -> None:
        """Go on from such a state."""
        super().restore(state)
        self.left = {}
        self.meta.pop("reason", None)
        if len(state["reason"]):
            self.meta["reason"] = state["reason"].tobytes().decode()
