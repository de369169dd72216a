"""Where a run ends, and how another one goes on from there, as if it had never stopped.

    simulate(system, w0, 100 + 50)  =  simulate(system, w0, 100), then simulate(system, continue_from=run, steps=50)

What is kept is the state of the run's engine, the same that a checkpoint holds: paths, random streams, orders of
samples, steps of a solver under way; and what an engine is made with: starts, key, options. The engine that goes on is
that of the long run, put where the short one left it. A system of other numbers takes over what the paths carry.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidyn.common.arrays import Arrays, Codes, Floats, Integers, Words
from minidyn.common.byvalue import ingredients
from minidyn.common.errors import InputError, clipped
from minidyn.common.intake import shown, whole
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map
from minidyn.simulate.engines import Engine, MapEngine
from minidyn.simulate.events import Conditions, StoppingEngine
from minidyn.simulate.identity import identity
from minidyn.simulate.odes import OdeEngine, ScipyEngine
from minidyn.simulate.run import Run
from minidyn.simulate.sde_adaptive import UNIT, WINDOW

LAYOUT = 1  # of what is kept; another number means other things by the same names
WAYS = ("method", "rtol", "atol", "substeps")
_COMPUTED = ("numbers", "constants")  # of a loss: what may differ, and what is made of it


@dataclass(eq=False)
class Ending:
    """A run's end.

    done : how many steps are made.  arrays : the engine's state; None where it keeps that to itself.
    z : (paths, size) the whole states: of a map theta and the rule's states, of a flow its own; NaN where a path ended.
    start : (paths, size), or (1, size) for all, what the engine was made with.  status, ended : of the run's paths.
    hyper : the numbers (paths,) that each path had.  facts : what else it was made with, as JSON knows it.
    told : the system in texts and hashes; see `told_of`.
    """

    done: int
    arrays: Arrays | None
    z: Floats
    start: Floats
    status: Codes
    ended: Integers
    hyper: dict[str, Floats]
    facts: dict[str, Any]
    told: dict[str, Any] = field(default_factory=dict)
    system: Any = None  # while it is in this process
    stop: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"told": self.known(), "system": None, "stop": None}

    def known(self) -> dict[str, Any]:
        """`told`, which takes a while to find."""
        if not self.told:
            self.told = told_of(self.system) | {"stop": _told_stop(self.stop)}
        return self.told

    def source(self) -> tuple[Floats, int, Any, Words]:
        """Starts (paths, size), how many were asked for, the seed's entropy, and the key of the random streams."""
        key = np.frombuffer(bytes.fromhex(self.facts["stream"]), np.uint64)
        start = np.broadcast_to(self.start, (len(self.status), self.start.shape[1]))
        return start, self.facts["wanted"], json.loads(self.facts["seed"]), key

    def origin(self, forks: bool) -> tuple[int, float]:
        """The step and the time from which on the clock is that of the system: the start, or a fork."""
        step, at = (self.done, self.facts["time"]) if forks else self.facts["origin"]
        return step, at

    def digest(self) -> str:
        """A hash of all that reaches what comes."""
        total = hashlib.blake2b(json.dumps([self.done, self.facts, self.known()], default=str).encode(), digest_size=16)
        for name, values in {"start": self.start, **self.hyper, **(self.arrays or {})}.items():
            total.update(f"\n{name} {values.dtype.str} {values.shape}\n".encode())
            total.update(np.ascontiguousarray(values).data)
        return total.hexdigest()

    # -- what may be asked for --
    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `simulate` for what comes, `given` ones held against those of the run."""
        facts, paths = self.facts, len(self.status)
        for name, what in (("w0", "from where it ended"), ("rng", "with its own random streams")):
            if given[name] is not None:
                raise InputError(
                    f"{name} is given, and a run goes on {what}: leave it out, or start anew with w0=run.state."
                )
        if whole("paths", given["paths"], 1) not in {1, paths, facts["wanted"]}:
            raise _given("paths", given["paths"], paths)
        for name, default in (("first_step", 1), ("first_path", 0)):
            if whole(name, given[name], default) not in (default, facts[name]):
                raise _given(name, given[name], facts[name])
        kept = {"save_every": facts["save_every"], "keep": facts["keep"], "hyper": self.hyper or None}
        kept = {name: value if given[name] is None else given[name] for name, value in kept.items()}
        own = {"paths": paths, "first_step": facts["first_step"], "first_path": facts["first_path"]}
        return given | own | kept | {name: self._way(name, given[name]) for name in WAYS}

    def _way(self, name: str, given: Any) -> Any:
        own, found = self.facts["ways"][name], self.facts["found"].get(name)
        if given is None or given == own:
            return own
        if own is None and given == found:
            return None
        raise _given(name, given, found if own is None else own)

    # -- the system --
    def forks(self, system: Map | Flow, hyper: Any) -> bool:
        """Whether the system, or `hyper`, has other numbers than the run's; InputError where it has no place for what
        paths carry, or nobody knows what that is."""
        if self.arrays is None:
            raise InputError(
                "scipy's solvers keep their state to themselves, and a run of theirs cannot go on; use method='auto', "
                "or start anew with w0=run.state."
            )
        known = self.system is not None
        other = system != self.system if known else identity(system, "the system") != self._own("system")
        if other:
            self._check(told_of(system))
        return other or hyper is not (self.hyper or None)

    # -- the engine --
    def put(self, engine: Engine, system: Map | Flow, stop: Any, other: bool) -> Engine:
        """The engine, made anew as that of the long run, where this run left it; `other`: as a fork."""
        assert self.arrays is not None
        inner = getattr(engine, "inner", engine)
        arrays = self.arrays
        if isinstance(inner, MapEngine):  # what each path is given lies behind its states
            arrays = arrays | {"blocks": inner.with_states(arrays["blocks"])}
        _fit(inner.state(), arrays, self.done)
        inner.restore(arrays)
        kept = {name: array for name, array in arrays.items() if name.startswith("stop_")}
        alike = stop is not None and bool(kept) and self._same_stop(stop)
        if stop is None and kept and np.isfinite(kept["stop_when"]).any():
            engine = StoppingEngine(engine, Conditions.none(system))  # what had stopped stays
        if isinstance(engine, StoppingEngine):
            own = {"stop_when": engine.stop_when, "stop_before": engine.stop_before}
            _fit(
                {name: array for name, array in own.items() if alike or (kept and name == "stop_when")}, kept, self.done
            )
            engine.go_on(self.done, kept, alike, self.z[:, : system.dim])
        anew = other or (stop is not None and not alike and isinstance(inner, OdeEngine))
        if anew:
            engine.begin_again(self.done, self.z)
        return engine

    def _own(self, name: str) -> Any:
        told = self.known()
        if "untold" in told:
            raise InputError(told["untold"])
        return told[name]

    def _same_stop(self, stop: Any) -> bool:
        if stop is self.stop:
            return True
        told = _told_stop(stop)
        return bool(told) and told == self.known()["stop"]

    def _check(self, ours: dict[str, Any]) -> None:
        """Refuse a system that has no place for what the paths carry."""
        if "untold" in ours:
            raise InputError(ours["untold"])
        for name in ("the system", "the loss", "the states", "the noise"):
            (there, first), (here, second) = self._own(name), ours[name]
            if first != second:
                raise InputError(
                    f"the run is of another system ({name}: {clipped(there, 80)} there, {clipped(here, 80)} here), and "
                    "only numbers (hyperparameters, noise levels, constants of the loss) may change where it goes on; "
                    "start anew with w0=run.state."
                )


def told_of(system: Map | Flow) -> dict[str, Any]:
    """A system in words and hashes: "system" as a whole, and as pairs of both what a fork may not change."""
    owner = system if isinstance(system, Map) else system.map
    loss, rule, bound = owner.loss, owner.rule, owner.bound
    try:
        parts = {name: value for name, value in ingredients(loss).items() if name not in _COMPUTED}
        told: dict[str, Any] = {"system": identity(system, "the system")}
        told["the loss"] = str(loss), identity((parts, [str(c) for c in loss.constants]), "the loss")
    except InputError as error:
        return {"untold": str(error)}
    states = ", ".join(rule.states) or "theta alone"
    noise = " + ".join(type(part).__name__ for part in bound.noise.parts) or "no noise"
    drawn: list[Any] = [noise, bound.gaussian_rows, bound.batch if bound.shuffles else 0]
    told["the system"] = (kind := "Map" if isinstance(system, Map) else type(system).__name__), kind
    if isinstance(system, Flow):
        states += f" ({system.size} numbers of the flow)"
        drawn += [*system.draws, system.columns, system.couples]
    told["the states"] = states, states
    told["the noise"] = repr(bound.noise), json.dumps(drawn)
    return told


def _told_stop(stop: Any) -> str:
    """Conditions as a hash; empty where they cannot be told again."""
    try:
        return identity(stop, "stop")
    except InputError:
        return ""


def _fit(own: Arrays, kept: Arrays, done: int) -> None:
    """Refuse arrays that are not those of an engine: a file may hold anything, and kernels look for nothing."""
    most = {"at": done, "windows": done, "places": (done + WINDOW) * UNIT, "sizes": WINDOW * UNIT}
    for name, array in own.items():
        there = kept.get(name, np.zeros(0, bool))
        fits = there.dtype == array.dtype and (there.shape == array.shape or name == "reason")
        if fits and array.size and name in ("orders", *most):
            low, high = (2, most[name]) if name == "sizes" else (0, most.get(name, array.max()))
            fits = bool(low <= there.min() and there.max() <= high)
        if not fits:
            raise InputError(
                f"what the run keeps of its paths does not fit this system ({name}); start anew with w0=run.state."
            )


def _given(name: str, here: Any, there: Any) -> InputError:
    """An argument that the run that goes on has otherwise."""
    return InputError(
        f"{name} is {shown(here)} and the run that goes on has {shown(there)}: leave it out, or start anew with "
        "w0=run.state."
    )


def ending_of(run: Any) -> Ending:
    """Where a run that was given as `continue_from` ended, or an InputError."""
    if not isinstance(run, Run):
        raise InputError(f"continue_from is a run that simulate returned or load read, not {shown(run)}.")
    if run.ending is None:
        raise InputError(
            "the run does not know where its paths stand: it was interrupted, put together from parts, or is from a "
            "file of an earlier minidyn; the same call with checkpoint=... goes on after an interruption."
        )
    if run.ending.facts["layout"] != LAYOUT:
        raise InputError(
            f"the run keeps its state in layout {shown(run.ending.facts['layout'])} and this minidyn reads {LAYOUT}; "
            "go on with the minidyn that made it."
        )
    return run.ending


def left_by(plan: Any, engine: Engine, done: int, run: Run) -> Ending:
    """Where a run ends that was planned so, and whose engine has made `done` steps."""
    inner = getattr(engine, "inner", engine)
    found = {name: getattr(inner, name, engine.meta.get(name)) for name in WAYS}
    return Ending(
        done=done,
        arrays=None if isinstance(inner, ScipyEngine) else engine.state(),
        z=engine.whole(),
        start=plan.start if plan.start.strides[0] else plan.start[:1],
        status=run.status,
        ended=run.ended,
        hyper=run.hyper,
        facts=plan.facts | {"layout": LAYOUT, "found": found, "time": float(run.time[-1])},
        system=plan.system,
        stop=plan.stop,
    )
