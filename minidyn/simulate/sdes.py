"""The engine of flows with noise."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidyn.common.arrays import Codes, Floats, Integers, Words
from minidyn.compiler import Known
from minidyn.flows.base import Flow
from minidyn.kernels.random import counted_from, seed_blocks
from minidyn.maps.discrete import pack, unpack
from minidyn.simulate.clock import Clock
from minidyn.simulate.engines import FlowPaths
from minidyn.simulate.sde_adaptive import UNIT, advance_adaptive
from minidyn.simulate.sde_loops import NO_PATH, PLAN, advance_saving, advance_stretches, draw_only
from minidyn.solvers.schemes import Scheme

_NEVER = 1 << 40  # steps: the last stretch has no end that a step could cross
_FEW = 4  # paths: fewer go faster one by one


class SdeEngine(FlowPaths):
    """A flow with noise, driven by the map's own normals where they are Gaussian.

    `span` steps of the map are one step of the scheme, or a step of the map is 2^level of them; `span` 0 is adaptive.
    """

    saves_by_itself = True
    kept = ("blocks", "shown", "streams", "status", "ended", "at", "windows", "places", "sizes", "counts")

    def __init__(self, flow: Flow, start: Floats, numbers: Floats, key: Words, scheme: Scheme, span: int, level: int,
                 rtol: float, atol: float, steps: int, threads: int, first_path: int = 0):  # fmt: skip
        self.blocks = pack(start)
        super().__init__(flow, start, numbers, len(self.blocks), threads, Clock(flow, steps, True, span))
        self.paths, self.scheme, self.span, self.level = len(start), scheme, span, level
        self._alike = span > 0 and len(self.clock.ends) == 1 and bool(self.clock.moves[0])
        self._nothing = np.empty((0, 0, 0))  # where nothing is kept
        self.rtol, self.atol = rtol, atol
        # 1 where the map's first step takes the normal that is kept: see `half_pair`
        self.shift = (flow.first_step - 1) % 2 * (flow.draws[0] % 2)
        self._choose()
        key = key if flow.couples else key ^ np.uint64(0x9E3779B97F4A7C15)
        self.streams = seed_blocks(key, len(self.blocks), first_path=first_path)
        self.key = counted_from(key, first_path)  # with which Brownian paths are asked for path 0, 1, ... of this run
        lanes = len(self.blocks) * 64
        self.status = np.full(lanes, NO_PATH, np.int64)
        self.status[: self.paths] = 0
        self.which = slice(self.paths)
        self.ended = np.zeros(lanes, np.int64)
        self.shown = self.blocks.copy()
        self.at = np.zeros(1, np.int64)  # the step of the main chain
        self.beyond = 0  # steps that are shown beyond it
        self.windows = np.zeros(len(self.blocks), np.int64)
        choosing = 0 if span else lanes  # paths that choose their own steps
        self.places, self.sizes = np.zeros(choosing, np.int64), np.full(choosing, UNIT, np.int64)
        self.counts = np.zeros(choosing, np.int64)
        substeps = span / 2**level if level else span or "adaptive"
        self.meta: dict[str, Any] = {
            "method": scheme.name,
            "substeps": substeps,
            "coupled": flow.couples,
            "noise": flow.noise_kind,
            "threads": self.workers,
            **({} if span else {"rtol": rtol, "atol": atol}),
        }

    def _choose(self) -> None:
        """The loop that carries the paths, and what of the flow and the scheme it is given."""
        flow, scheme = self.flow, self.scheme
        number: Any = int if flow.inlined is None else Known  # what is known while compiling stays in registers
        kind = *(Known(int(v)) for v in (flow.inlined is None, scheme.areas, scheme.coins)), number(2**self.level)
        self.functions = flow.inlined or flow.pointers
        self.normals = (*map(number, flow.draws), number(self.shift))
        self.given = (
            (scheme.step, *kind),
            self.normals,
            (number(flow.size), number(flow.columns)),
            (self.clock.rates, self.clock.rate),
        )
        lanes = flow.inlined is not None and self.paths >= _FEW
        self.loop, self.loops = (f if lanes else f.one_by_one for f in (advance_saving, advance_stretches))

    def slice(self, wanted: int) -> int:
        """Up to the end of a step of the scheme: one in which a slice ends is made again by the next slice."""
        count, span = super().slice(wanted), max(1, self.span)
        return min(wanted, -(-(self.beyond + count) // span) * span - self.beyond)

    def advance_saving(self, done: int, targets: Integers) -> Floats:
        """From save to save without a look at Python, where all steps of the scheme are alike."""
        if not self._alike:
            return super().advance_saving(done, targets)
        out = np.empty((self.paths, len(targets), self.flow.dim))
        self._carry(targets, out, int(targets[-1]) - done)
        return out

    def _carry(self, targets: Integers, out: Floats, count: int) -> None:
        """Carry the paths through `count` steps to one target after the other; `out` keeps what is shown there."""
        system, at = (*self.functions, self.arrays), int(self.at[0])
        paths = self.blocks, self.shown, self.streams, self.key, self.status, self.ended
        way = at, self.span, targets
        self.spread(count, lambda first, last: self.loop(system, *self.given, paths, first, last, way, out))
        target = int(targets[-1])
        self.at[0] += (target - at) // self.span * self.span
        self.beyond = target - int(self.at[0])

    def advance(self, done: int, count: int) -> None:
        """Carry the paths to step `done + count`; a step of the scheme that ends beyond is shown in part, and redone.

        The main chain stays at the last whole one before, so that where a run is saved leaves no trace in it.
        """
        if self._alike:
            self._carry(np.array([done + count]), self._nothing, count)
            return
        target, at = done + count, int(self.at[0])
        paths = self.blocks, self.shown, self.streams, self.key, self.status, self.ended
        plan, hyper = self._plan(at, target) if self.span else (np.zeros((0, PLAN), np.int64), self.clock.hyper)

        def work(first: int, last: int) -> None:
            if self.span:
                self.loops(self.functions, *self.given, paths, first, last, plan, hyper, self.model)
            else:
                self._advance_adaptive(paths, first, last, target)

        self.spread(count, work)
        self.at[0] = plan[-1, 1] if len(plan) else target
        self.beyond = target - int(self.at[0])

    def _advance_adaptive(self, paths: tuple[Any, ...], first: int, last: int, target: int) -> None:
        """Carry the blocks first .. last-1 to step `target` by steps that the paths choose."""
        flow, clock = self.flow, self.clock
        stretches = np.append(clock.ends[:-1], _NEVER), clock.moves.astype(np.int64), clock.hyper
        advance_adaptive(
            (flow.pointers, self.scheme.step, stretches, self.model),
            (*flow.draws, self.shift),
            (flow.size, flow.columns),
            paths,
            (self.windows, self.places, self.sizes, self.counts),
            (first, last, target),
            (self.rtol, self.atol),
        )

    def _plan(self, at: int, target: int) -> tuple[Integers, Floats]:
        """The stretches between the main chain's last step and `target`, in rows for `advance_stretches`, and their
        numbers.

        What a stretch is longer than a multiple of the span is a step of its own; where the target lies inside a step,
        the last row shows it and leaves the chain before.
        """
        rows, span, numbers = [], self.span, self.clock.hyper
        for q, until, end, _ in self.clock.stretches(at, target):
            goal = at + (until - at) // span * span
            if not self.clock.moves[q]:
                rows.append((at, until, until, 0, q))
            elif until < end:
                numbers = np.vstack([numbers, self.clock.mean(numbers[q], at, until)])
                rows.append((at, goal, until, span, len(numbers) - 1))
            else:
                rows += [(at, goal, goal, span, q)] * (at < goal) + [(goal, end, end, end - goal, q)] * (goal < end)
            at = until
        return np.array(rows, np.int64), numbers

    def begin_again(self, done: int, z: Floats) -> None:
        """The main chain goes on from the states z; what the map has drawn up to there is drawn."""
        self.blocks[...] = pack(z)
        if self.span:
            paths = self.blocks, self.shown, self.streams, self.key, self.status, self.ended
            draw_only(self.normals, self.given[2], paths, 0, len(self.blocks), int(self.at[0]), done)
        self.at[0] = done
        self.places[...], self.sizes[...] = done * UNIT, UNIT

    def whole(self) -> Floats:
        """The flow's states (paths, size) as shown."""
        return unpack(self.shown, self.paths)

    def parameters(self) -> Floats:
        """Theta (paths, D) as shown, a copy; NaN where a path has ended."""
        return unpack(self.shown, self.paths, 0, self.flow.dim)

    def states(self) -> Floats:
        """The flow's states as shown where they are the map's, else theta."""
        return unpack(self.shown, self.paths, 0, self.carried)

    def columns(self) -> Iterator[Floats]:
        """Each parameter's values in turn: a million paths are copied one parameter at a time."""
        return (unpack(self.shown, self.paths, i, i + 1)[:, 0] for i in range(self.flow.dim))

    def ending(self, done: int) -> tuple[Codes, Integers]:
        """Status and end (paths,) as the kernels noted them; adaptive: `meta["steps_made"]`, the sum over paths."""
        if not self.span:
            self.meta["steps_made"] = int(self.counts[: self.paths].sum())
        return super().ending(done)
