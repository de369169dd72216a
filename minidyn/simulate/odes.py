"""Engines of flows without noise: compiled methods with dense output, and scipy's."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minidyn.common.arrays import Arrays, Codes, Floats, Integers, NDArray, Truths
from minidyn.common.errors import InputError
from minidyn.common.status import Status
from minidyn.compiler import Known, compiled
from minidyn.flows.base import Flow, stay
from minidyn.kernels.by_pointer import evaluate
from minidyn.simulate.clock import Clock
from minidyn.simulate.engines import Engine, FlowPaths, distinct
from minidyn.simulate.ode_loops import BESIDE, advance_implicit, advance_saving, pass_stretches, show
from minidyn.solvers.rows import SIZE, At
from minidyn.solvers.tableaus import TABLEAUS
from minidyn.solvers.unrolled import unrolled

COMPILED = ("auto", *TABLEAUS, "radau")
SCIPY = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")
_FEW = 2  # points from which on they run side by side
_LOOSE = 1e-6  # from here on a method of order 5 needs fewer evaluations than one of order 8
# what a local error may be of rtol, so that the sum of all stays near it; and where errors die out by themselves
_SAFETY = {"tsit5": 0.05, "dopri5": 0.05, "dop853": 0.1, "radau": 0.3}
_SAFETY_SYMMETRIC = {"tsit5": 0.1, "dopri5": 0.1, "dop853": 0.3, "radau": 0.3}
_HOLD = 0.8  # of the method's limit of stability: nearer to it a symmetric flow at rest would be kept from resting
_PATIENCE = 60.0  # steps in a row, or nearly, that stability holds back, before another method is worth its price
_SMALL = 100  # numbers in a state: beyond, linear systems of three times the size cost more than small explicit steps
_ATTEMPTS = {"explicit": 20_000, "implicit": 500}  # between two looks at Ctrl-C


Watch = Callable[["OdeEngine", Truths], Truths]


class OdeEngine(FlowPaths):
    """A flow without noise; equal starting points are integrated once."""

    kept = ("points", "starts", "slopes", "rows", "shown", "status")

    def __init__(self, flow: Flow, start: Floats, numbers: Floats, method: str, rtol: float, atol: float,
                 steps: int, threads: int):  # fmt: skip
        self.points, self.which = distinct(start)
        super().__init__(flow, self.points, numbers, len(self.points), threads, Clock(flow, steps))
        self.method, self.rtol, self.atol = method, rtol, atol
        explicit = method if method in TABLEAUS else ("tsit5" if rtol >= _LOOSE else "dop853")
        self.tableau = t = TABLEAUS[explicit]
        self.may_turn_stiff = method == "radau" or (method == "auto" and flow.size <= _SMALL)
        self._choose(_PATIENCE if self.may_turn_stiff else np.inf)
        n, size = self.points.shape
        self.starts, self.shown = self.points.copy(), self.points.copy()
        self.slopes = np.zeros((n, max(len(t.a), 3), size))
        self.rows = np.zeros((n, SIZE))
        self._nothing = np.empty((n, 0, size))  # where nothing is kept
        self._start(0)
        self.meta: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "noise": "none"}

    def _start(self, step: int) -> None:
        """Nothing is known yet but the points, at this step."""
        self.rows[...] = 0.0
        self.rows[:, At.NOW] = self.clock.at(step)
        self.rows[:, At.MODE] = float(self.method == "radau")

    def begin_again(self, done: int, z: Floats) -> None:
        """As from a start at the states z."""
        self.points[self.which] = self.starts[self.which] = self.shown[self.which] = z
        self._start(done)

    def _choose(self, patience: float) -> None:
        """The loop of explicit steps, and what of the flow and the method it is given."""
        flow, t = self.flow, self.tableau
        rtol, atol = self._tolerance(t.name)
        hold = _HOLD * t.limit if flow.symmetric else np.inf
        self.control = 1.0 / (t.estimate + 1.0), t.limit, hold, patience, (rtol, atol)
        self.functions = flow.inlined or flow.pointers
        lanes = flow.inlined is not None and flow.in_lanes and len(self.points) >= _FEW
        self.loop, self.through = (f if lanes else f.one_by_one for f in (advance_saving, pass_stretches))
        shape: tuple[Any, ...] = (Known(1), flow.size, flow.size, flow.columns)
        if flow.inlined is not None:
            wide = flow.size if flow.in_lanes else 8 * -(-flow.size // 8)
            moves = int(flow.inlined[1] is not compiled(stay))
            shape = tuple(map(Known, (moves, flow.size, wide, flow.columns)))
        self.given = (*unrolled(t.name), Known(t.stages)), shape

    slice = Engine.slice  # an `advance` comes back to Python now and then by itself

    def advance(self, done: int, count: int) -> None:
        """Carry every point at least to step `done + count`; `shown` holds its state at that step."""
        self._carry(done, np.array([done + count]), self._nothing)

    saves_by_itself = True

    def advance_saving(self, done: int, targets: Integers) -> Floats:
        """From save to save without a look at Python, as far as explicit steps with the same numbers go."""
        out = np.empty((len(self.points), len(targets), self.flow.size))
        self._carry(done, targets, out)
        return out[self.which, :, : self.flow.dim]

    def _carry(self, done: int, targets: Integers, out: Floats) -> None:
        """Carry every point past one target after the other; `out` (N, targets, size) keeps its state at each."""
        clock, places = self.clock, self.clock.places(targets)
        turns = dict.fromkeys(self.bounds[:-1], 0)  # the target that the points of each thread are on the way to
        one = len(clock.ends) == 1
        end = clock.end(int(clock.ends[0])) if one else np.inf
        attempts = max(1, _ATTEMPTS["explicit"] // len(places)) if one else 0

        def work(first: int, last: int) -> None:
            goal = places, end, attempts
            turns[first] = turn = self._step(first, last, turns[first], goal, 1, out)
            if one and turn < len(places):
                self._step_implicitly(first, last, (places[turn], end, _ATTEMPTS["implicit"]))

        while (turn := min(turns.values())) < len(places):
            if not one:
                self._reach(int(targets[turn - 1]) if turn else done, int(targets[turn]))
            self.spread(1, work)

    def _step(self, first: int, last: int, turn: int, goal: tuple[Floats, float, int], looks: int, out: Floats) -> int:
        """`advance_saving` of `ode_loops`, with the points first .. last-1."""
        t, flow = self.tableau, self.flow
        arrays = self.arrays
        seen = looks, (*flow.pointers, arrays), (t.a, t.c, t.p, t.stages), self.shown, out
        system = *self.functions, arrays
        passed: int = self.loop(system, *self.given, self.paths, (first, last, turn), goal, self.control, seen)
        return passed

    def _step_implicitly(self, first: int, last: int, goal: tuple[float, float, int]) -> None:
        """`advance_implicit`, with those of the points first .. last-1 that are stiff."""
        if self.may_turn_stiff and np.count_nonzero(self.rows[first:last, At.MODE]):
            flow, back = self.flow, int(self.method == "auto")
            system = *flow.pointers, self.arrays
            advance_implicit(
                system, flow.jacobian_pointers, flow.columns, self.paths, first, last, goal, back,
                self._tolerance("radau"),
            )  # fmt: skip

    def _reach(self, done: int, until: int) -> None:
        """Carry every point at least to step `until`, through stretches that have their own numbers."""
        passed = self._pass(done, until - done)
        for target, end in self._stretches(passed, until - passed):
            while not self._attempt(target, end, _ATTEMPTS["explicit"], _ATTEMPTS["implicit"]):
                pass

    def advance_watched(self, done: int, count: int, watch: Watch) -> None:
        """Carry on step by step; `watch` sees which points have moved and says which may go on."""
        go = watch(self, np.zeros(len(self.points), bool))
        for target, end in self._stretches(done, count):
            while (go & (self.status == 0) & (self.rows[:, At.NOW] < target)).any():
                before = self.rows[:, At.NOW].copy()
                with self._without(~go):
                    self._attempt(target, end, 1, 1)
                go = watch(self, self.rows[:, At.NOW] > before)
        end = self.clock.at(done + count)
        with self._without(~go & (self.rows[:, At.NOW] < end)):  # others have been here before they stopped
            self._show(end)

    @contextmanager
    def _without(self, which: Truths) -> Iterator[None]:
        """Some points stay where they are, and are shown as NaN."""
        held = np.flatnonzero(which & (self.status == 0))
        self.status[held] = Status.STOPPED
        try:
            yield
        finally:
            self.status[held] = 0

    def _stretches(self, done: int, count: int) -> Iterator[tuple[float, float]]:
        """Where to go and where to end at the latest, on the clock, in the stretches of the next `count` steps."""
        for stretch, until, end, begins in self.clock.stretches(done, done + count):
            self.stretch = stretch
            if begins:
                self._begin()
            yield self.clock.at(until), self.clock.end(end)

    def _begin(self) -> None:
        """Where the stretch under way begins the field becomes another one: the last slope is not that of the point."""
        start = self.clock.at(int(self.clock.ends[self.stretch - 1]))
        self.rows[self.rows[:, At.NOW] == start, At.FRESH] = 0.0

    def last_step(self, path: int) -> tuple[float, float]:
        """Where on the clock the last step of a point began and ended."""
        return float(self.rows[path, At.PAST]), float(self.rows[path, At.NOW])

    def state_at(self, path: int, k: float) -> Floats:
        """The state of a point at a place on the clock inside its last step."""
        kept = self.shown[path].copy()
        self._show(k, path)
        found, self.shown[path] = self.shown[path].copy(), kept
        return found

    def _pass(self, done: int, count: int) -> int:
        """Carry the points in one call through the stretches of the next `count` steps that all of them cross without
        trouble; the steps that are behind all of them then. What is left is for `_attempt`."""
        stretches = list(self.clock.stretches(done, done + count))
        if len(stretches) < 2 or self.rows[:, At.MODE].any():
            return done
        self.stretch, *_, begins = stretches[0]
        if begins:
            self._begin()
        targets = np.array([self.clock.at(until) for _, until, _, _ in stretches])
        ends = np.array([self.clock.end(end) for _, _, end, _ in stretches])
        stretch_of = targets, ends, self.clock.hyper[[q for q, *_ in stretches]]
        crossed = [len(stretches)]

        def work(first: int, last: int) -> None:
            todo = first + np.flatnonzero(self.status[first:last] == 0)
            if len(todo):
                crossed.append(self.through(
                    self.functions, *self.given, todo, np.zeros(len(todo) + BESIDE, np.int64), self.paths, stretch_of,
                    _ATTEMPTS["explicit"], self.control, self.model,
                ))  # fmt: skip

        self.spread(1, work)
        behind = min(crossed)
        self.stretch = stretches[max(behind - 1, 0)][0]
        return stretches[behind - 1][1] if behind else done

    def _attempt(self, target: float, end: float, explicit: int, implicit: int) -> bool:
        """Make up to so many steps towards the clock `target`, never beyond `end`, with every point; whether all were
        there before the implicit ones."""
        there: list[int] = []

        def work(first: int, last: int) -> None:
            there.append(self._step(first, last, 0, (np.array([target]), end, explicit), 0, self._nothing))
            if not there[-1]:
                self._step_implicitly(first, last, (target, end, implicit))

        self.spread(1, work)
        return all(there)

    @property
    def paths(self) -> tuple[NDArray[Any], ...]:
        """Where all points stand, as the loops want it."""
        return self.points, self.starts, self.slopes, self.rows, self.status

    def _tolerance(self, method: str) -> tuple[float, float]:
        """The tolerances that a method's local errors are held to."""
        part = (_SAFETY_SYMMETRIC if self.flow.symmetric else _SAFETY)[method]
        return part * self.rtol, part * self.atol

    def _show(self, target: float, only: int | None = None) -> None:
        t = self.tableau
        if only is None and not self.status.any() and (self.rows[:, At.NOW] == target).all():
            self.shown[...] = self.points  # nothing lies inside a step
            return

        def work(first: int, last: int) -> None:
            show(
                (*self.flow.pointers, self.arrays),
                (t.a, t.c, t.p, t.stages),
                self.flow.columns,
                self.paths,
                self.shown,
                first,
                last,
                target,
            )

        if only is None:
            self.spread(1, work)
        else:
            work(only, only + 1)

    def ending(self, done: int) -> tuple[Codes, Integers]:
        """Status and last step (paths,) of each path; a point fails in the step of the map that its clock is in.

        With "auto", `meta["method"]` says which methods the points are at.
        """
        if self.method == "auto":
            stiff, name = np.count_nonzero(self.rows[:, At.MODE]), self.tableau.name
            name = name if not stiff else "radau" if stiff == len(self.rows) else f"{name}, radau"
            self.meta["method"] = f"auto ({name})"
        if np.count_nonzero(self.status):
            lost = self.status != 0
            self.ended[lost] = [min(math.floor(self.clock.steps(k)) + 1, done) for k in self.rows[lost, At.NOW]]
        return super().ending(done)


class ScipyEngine(FlowPaths):
    """A flow without noise by one of scipy's solvers, step by step with its own dense output."""

    def __init__(self, flow: Flow, start: Floats, numbers: Floats, method: str, rtol: float, atol: float, steps: int):
        from scipy import integrate  # slow to import, and few runs need it

        points, self.which = distinct(start)
        super().__init__(flow, points, numbers, len(points), 1, Clock(flow, steps))
        self.shown = points
        self.retract, self.fns = flow.pointers[1:]
        options: dict[str, Any] = {"rtol": max(rtol, 100 * np.finfo(float).eps), "atol": atol}
        if method in ("Radau", "BDF", "LSODA") and flow.jacobian is not None:
            options["jac"] = self._jacobian
        self.codes = np.zeros(len(points), np.int64)
        self.make, self.options = getattr(integrate, method), options
        self.solvers: list[Any] = []
        self.meta: dict[str, Any] = {"method": f"scipy:{method}", "rtol": rtol, "atol": atol, "noise": "none"}

    def _field(self, path: int, k: float, w: Floats) -> Floats:
        flow, code = self.flow, self.codes[path : path + 1]
        b, f = np.empty((1, flow.size)), np.zeros((1, flow.size, flow.columns))
        field, _, fns = flow.pointers
        evaluate(field, fns, np.ascontiguousarray(w)[None], float(k), self.arrays, b, f, code)
        return b[0] if not code[0] else np.full(flow.size, np.nan)

    def _jacobian(self, k: float, w: Floats) -> Floats:
        jacobian, jfns, _ = self.flow.jacobian_pointers
        out = np.empty((self.flow.size, self.flow.size))
        jacobian(jfns, np.ascontiguousarray(w), float(k), *self.arrays, out)
        return out

    slice = Engine.slice  # scipy's solvers step in Python, where Ctrl-C is noticed

    def advance(self, done: int, count: int) -> None:
        """Carry every point at least to step `done + count`; `shown` holds its state at that step.

        Each stretch that moves begins with new solvers.
        """
        for stretch, until, end, begins in self.clock.stretches(done, done + count):
            self.stretch = stretch
            target = self.clock.at(until)
            if (begins or not self.solvers) and self.clock.moves[self.stretch]:
                self._begin(self.clock.at(min(end, self.clock.last)))
            for path, solver in enumerate(self.solvers):
                self._carry(path, solver, target)
        for path, solver in enumerate(self.solvers):
            if self.status[path] != 0:
                self.shown[path] = np.nan
                continue
            w = solver.y if solver.t == target or solver.t_old is None else solver.dense_output()(target)
            self.shown[path] = w
            self.retract(self.fns, self.shown[path], *self.arrays)

    def _begin(self, end: float) -> None:
        """A new solver for each point, from where it is to the end of the stretch: what scipy remembers of the field
        is no longer true."""
        befores = self.solvers or [None] * len(self.shown)
        self.solvers = []
        for path, before in enumerate(befores):
            w, now = (self.shown[path].copy(), self.clock.at(0)) if before is None else (before.y, before.t)
            field, options = partial(self._field, path), self.options
            if self.status[path] == 0 and not np.isfinite(field(now, w)).all():
                # scipy's first step would be NaN, and it would try for ever
                self._fail(path, now)
            if before is not None and before.step_size:
                options = {**options, "first_step": min(before.step_size, end - now)}
            self.solvers.append(self.make(field, now, w, end, **options))

    def _carry(self, path: int, solver: Any, target: float) -> None:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            while self.status[path] == 0 and solver.t < target:
                try:
                    solver.step()
                except (ValueError, np.linalg.LinAlgError):  # NaN in a matrix
                    solver.status = "failed"
                if solver.status == "failed" or not np.isfinite(solver.y).all():
                    self._fail(path, solver.t)

    def _fail(self, path: int, k: float) -> None:
        self.status[path] = self.codes[path] or Status.SOLVER_FAILED
        self.ended[path] = math.floor(self.clock.steps(k)) + 1

    def state(self) -> Arrays:
        """Scipy's solvers keep their state to themselves."""
        raise InputError("scipy's solvers cannot be stopped and resumed: use method='auto' with a checkpoint.")
