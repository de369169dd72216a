"""The only time loops: maps and flows, many paths, saving, progress, statuses, checkpoints."""

import json
import logging
import time
from functools import partial
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Words, all_of
from minidyn.common.errors import InputError, said
from minidyn.common.intake import number, one_of, table, whole
from minidyn.common.locks import cached_property
from minidyn.common.memory import LITTLE, need
from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.graph.walk import printed
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import Map
from minidyn.maps.settings import Settings, settings_of
from minidyn.simulate import observables
from minidyn.simulate.carrying import carry
from minidyn.simulate.checkpoint import belongs, ends_of, keeper, stored
from minidyn.simulate.choose import make_engine
from minidyn.simulate.ensembles import Ensemble
from minidyn.simulate.events import Conditions, StoppingEngine
from minidyn.simulate.going_on import WAYS, ending_of, left_by
from minidyn.simulate.identity import environment, identity
from minidyn.simulate.phases import Phases
from minidyn.simulate.progress import Bar
from minidyn.simulate.recording import Recorder
from minidyn.simulate.run import Run, provenance
from minidyn.simulate.saves import LOG, count_of, every_of, regular, saves_between, saves_of
from minidyn.simulate.threads import thread_count

__all__ = [
    "check_checkpoint", "every_of", "paths_needed", "saves_of", "seed_key", "simulate", "starts_of",
]  # fmt: skip

_SAVE = 50  # bytes that a save takes beside its values
_DEFAULTS: dict[str, Any] = {  # of what makes a run, beside the system and where it starts
    "paths": 1, "save_every": None, "rng": None, "keep": None, "first_step": 1, "first_path": 0, "hyper": None,
    **dict.fromkeys(WAYS),
}  # fmt: skip
log = logging.getLogger("minidyn")


def simulate(system: Map | Flow, w0: ArrayLike | None = None, steps: int | None = None, *, paths: int = 1,
             save_every: Any = None, observe: Any = None, rng: Any = None, method: str | None = None,
             rtol: float | None = None, atol: float | None = None, substeps: Any = None, keep: str | None = None,
             first_step: int = 1, first_path: int = 0, threads: int | None = None, progress: bool | None = None,
             checkpoint: Any = None, stop: Any = None, hyper: Any = None, executor: Any = None,
             continue_from: Run | None = None) -> Run:  # fmt: skip
    """Run a map or a flow for a number of steps, many paths at once.

    Parameters
    ----------
    system : a `Map`, or a flow of one; a flow's time is `t = lr k`.
    w0 : starting parameters, (D,) for all paths or (paths, D); flows on a manifold start at its gradient-flow limit.
        For a map it may be the whole state `z` (theta, then the rule's states, which else start at zero), for example
        `map.fixed_point(w)`.
    steps : number of steps k.  paths : number of independent paths; one is run where all would be alike, without noise
        and from one start.
    save_every : steps between saves; by default about 200 saves, an odd number of steps apart for a map without noise,
        so that an oscillation is seen. "log" saves at 25 steps in every factor of ten: what happens early is seen.
    observe : names (`loss`, `sharpness`, ...; a wrong one is answered by all), sympy expressions, functions of
        w (paths, D), a list of these, or `{name: any of these}`.
    rng : seed, `SeedSequence` or `Generator`; path i depends on the seed and on i alone.
    method : without noise "auto" (the default: explicit, implicit where the flow turns stiff), "tsit5", "dop853",
        "dopri5", "radau", or scipy's "scipy:Radau", "scipy:LSODA", ...; with noise "euler-maruyama" (the default),
        "milstein", "diagonal", "heun" (Stratonovich), "sra1", "weak2". `docs/solvers.md` says what each is for.
    rtol, atol : tolerances on w: without noise the global error stays near rtol (default 1e-9 and 1e-12); with
        `substeps="adaptive"` the error of a step (1e-3 and 1e-6).
    substeps : steps k that one step of a scheme with noise covers; below 1, as 1/4, a step k is refined on the same
        Brownian path; "adaptive" chooses for each path. By default the largest power of two up to 32 and up to a
        hundredth of the run. Where the run is saved changes nothing.
    first_step : the number k of the first step, of a map and of the flows beside it: schedules go on from there, and a
        large one finds bias corrections over, as `w0=map.fixed_point(w)` wants it for Adam. A flow has the numbers of
        the step that its time lies in; `Run.time` is 0 before the first and grows by the learning rates.
    first_path : the number of the first path, whose random numbers it has: path i of this run is path `first_path + i`
        of a larger one, bit for bit, so that parts of it run anywhere; `w0` (paths, D) holds the starts of these.
    keep : "paths" (the default) keeps every path, "moments" only mean, variance and quantiles at each save.
    threads : at most this many; by default as many as this process may use.  progress : show a bar; by default on a
        terminal, once a second has passed. The logger `minidyn` gets the same every ten seconds (level INFO).
    checkpoint : a folder for this run alone, where its state is written every few seconds, and its saves as they are
        made: memory does not grow with them (`Run.w` is then mapped from disk, and read-only). The same call goes on
        where a killed one was, to the same bits (`Run.digest`), or returns a finished run; with more `steps` it goes on
        from there as one long run, whose `save_every` and `substeps` are those that it has. To start anew, delete it.
    stop : a condition, or a list of them, that ends a path with the status `stopped` where it is or becomes true: a
        comparison such as `x > 2`, or several, `(x > 2) & (y < 0)`; a function of w that returns True and False. A
        sympy expression or another function of w ends it where it is zero or changes its sign, `{"sharpness": 40.0}`
        where an observable reaches a number from either side, "edge" where the sharpness reaches the rule's limit of
        stability. For a flow without noise the instant is found between saves (`meta["stopped_at"]`, in steps, and
        `meta["located"]`). Maps, flows with noise, scipy's methods and flows that carry themselves are looked at where
        they are saved (`save_every=1`: at every step), and `ended` is the first save at which it holds.
    hyper : numbers of a map that differ from path to path: `{name: (paths,)}` for the rule's hyperparameters, the
        noise's `sigma` (where it is one number) and `label_std`, and the loss's constants. Path i is, to the bit, path
        i of the map with its numbers. `paths` may be left out.
    executor : workers that run parts of the ensemble: any `concurrent.futures.Executor` (threads, processes, dask's
        `Client.get_executor()`), a client of dask, a function that makes an executor, or a number of processes on this
        machine. The run is the same to the last bit; functions of w in `observe` and `stop` see the paths of their
        part, and `threads`, 1 by default, are those of a part. The folder of a checkpoint holds a file for each part
        that is done: whatever was killed, the same call goes on there.
    continue_from : a run of the same system, also one that `md.load` read: its paths make `steps` more steps, with the
        bits of one long run; leave `w0` and `rng` out. Steps and times count on, and the first save is where that run
        ended. `method`, tolerances and `substeps` stay the run's; `save_every`, `keep` and `hyper` too where they are
        not given; `observe` and `stop` are given again. Paths that have ended stay so. With another learning rate,
        noise level or constant of the loss it is a fork: what paths carry and their random streams go on under the new
        numbers.

    Returns a `Run`. Ctrl-C returns what there is, with the status `interrupted`.
    Raises InputError for arguments that do not fit (a checkpoint of another run among them), FlowError where a flow
    does not exist, ArchiveError where a checkpoint cannot be written (the last one stays good) or is damaged.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> run = md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.25)), w0=[1.0], steps=4, save_every=1)
    >>> run.w[0, :, 0]
    array([1.    , 0.5   , 0.25  , 0.125 , 0.0625])
    """
    given = {
        "save_every": save_every, "observe": observe, "rng": rng, "method": method, "rtol": rtol, "atol": atol,
        "substeps": substeps, "keep": keep, "first_step": first_step, "first_path": first_path, "threads": threads,
        "checkpoint": checkpoint, "stop": stop, "hyper": hyper,
    }  # fmt: skip
    if executor is None:
        return _Planned(system, w0, steps, paths=paths, continue_from=continue_from, **given).run(progress)
    if continue_from is not None:
        raise InputError("a run goes on in one piece: give continue_from or executor, not both.")
    given["keep"] = keep or "paths"
    of_paths = _paths_given(system, w0, paths, hyper)
    return Ensemble(simulate, _Planned, system, whole("steps", steps, 1), *of_paths, given).run(executor, progress)


def _paths_given(system: Map | Flow, w0: Any, paths: int, hyper: Any) -> tuple[int, Floats, dict[str, Floats]]:
    """How many paths there are, and what is given of each: starts (size,) or (paths, size), and numbers by name."""
    _check_system(system)
    paths = _paths_of(hyper, whole("paths", paths, 1))
    settings = _settings(system, hyper, paths)
    return paths, _given_starts(system, w0, paths), dict(settings.given) if settings else {}


def check_checkpoint(system: Map | Flow, w0: ArrayLike, steps: int, *, checkpoint: Any, **options: Any) -> None:
    """Raise now what `simulate` with these options would raise of this checkpoint, where other runs come first."""
    belongs(checkpoint, _Planned(system, w0, steps, checkpoint=checkpoint, **options).what)


class _Planned:
    """A run whose arguments are all checked."""

    def __init__(self, system: Map | Flow, w0: Any, steps: Any, *, observe: Any = None, threads: int | None = None,
                 checkpoint: Any = None, stop: Any = None, continue_from: Any = None, **given: Any):  # fmt: skip
        _check_system(system)
        steps = whole("steps", steps, 1)
        self.before = before = None if continue_from is None else ending_of(continue_from)
        kept = stored(checkpoint)
        asked_for = given = _DEFAULTS | given
        given = given if before is None else before.options({"w0": w0} | given)
        given = given | {name: value for name, value in kept.items() if given.get(name, value) is None}
        ways = {name: given[name] for name in WAYS}
        paths = _paths_of(given["hyper"], whole("paths", given["paths"], 1))
        self.every = every_of(system, steps, given["save_every"])
        self.keep = one_of(given["keep"] or "paths", "keep", ("paths", "moments"))
        first_step, self.first_path = (
            whole("first_step", given["first_step"], 1),
            whole("first_path", given["first_path"], 0),
        )
        if isinstance(system, Flow):
            system = system.beginning(first_step)
            first_step = system.first_step
        self.system, self.first_step, self.checkpoint = system, first_step, checkpoint
        self.forks = before is not None and before.forks(system, given["hyper"])
        settings = _settings(system, given["hyper"], paths)
        self.start, self.wanted, self.entropy, key = (
            self._source(w0, paths, settings, given["rng"]) if before is None else before.source()
        )
        self.paths, done = len(self.start), 0 if before is None else before.done
        _check_room(system, steps, self.paths, count_of(steps, self.every), self.keep, checkpoint)
        self.began = time.perf_counter()
        asked = observables.asked(system.loss, observe)
        owner = system if isinstance(system, Map) else system.map
        self.watchers = observables.resolve(owner, asked, settings) if asked else {}
        self.steps = done + steps
        self.ends = ends_of(checkpoint, kept["ends"], self.steps)
        self.saves = saves_between(done, self.ends, self.every)
        self.engine = make_engine(
            system, self.start, self.steps, key, threads=thread_count(threads), first_step=first_step,
            first_path=self.first_path, settings=settings, **ways,
        )  # fmt: skip
        self.stop = stop
        if stop is not None:
            self.engine = StoppingEngine(self.engine, Conditions(system, stop, settings))
        if before is not None:
            self.engine = before.put(self.engine, system, stop, self.forks)
        self.hyper = dict(settings.given) if settings else {}
        if self.hyper and (clash := sorted(self.hyper.keys() & self.watchers.keys())):
            raise InputError(f"the name {clash[0]} is taken by hyper; give the observable another one.")
        self.origin = (0, 0.0) if before is None else before.origin(self.forks)
        self.ways, self.key = ways, key
        self.what, self.chosen = {}, {}
        if checkpoint is not None:
            chosen = {"save_every": self.every, "substeps": self.facts["ways"]["substeps"]}
            self.chosen = {name: value for name, value in chosen.items() if asked_for[name] is None}
            self.what = self._what(asked, {name: asked_for[name] for name in WAYS})

    def run(self, progress: bool | None) -> Run:
        """The engine is carried from save to save."""
        system, engine, saves = self.system, self.engine, self.saves
        with keeper(self.checkpoint, self.what, saves, self.ends, self.chosen) as kept:
            recorder = Recorder(system.loss, self.watchers, self.keep, kept.rows, self.paths)
            phases = Phases(system, 1 if self.every == LOG else self.every, saves)
            recorder.also, recorder.looking = phases.look, bool(phases.periods)
            what_runs = system.name if isinstance(system, Flow) else "Map"
            bar = Bar(self.steps, self.paths, progress, what_runs)
            done, interrupted = carry(engine, recorder, kept, saves, bar, regular(saves, self.every))
            status, ended = engine.ending(done)
            if self.forks and self.before is not None:
                over = self.before.status != Status.FINISHED
                status[over], ended[over] = self.before.status[over], self.before.ended[over]
            if interrupted:
                running = status == Status.FINISHED
                status[running], ended[running] = Status.INTERRUPTED, done
            steps_kept = np.array(saves[: recorder.count], dtype=np.int64)
            clock = system if isinstance(system, Map) else system.map
            meta = {
                "system": repr(system), "kind": "map" if isinstance(system, Map) else "flow",
                "lr": clock.lr(self.first_step), "seed": str(self.entropy), "paths": self.paths, "steps": self.steps,
                **engine.meta, "wall_seconds": kept.seconds + time.perf_counter() - self.began, **provenance(),
            }  # fmt: skip
            meta |= {"flow": system.key, "leaves_out": system.leaves_out} if isinstance(system, Flow) else {}
            meta |= {"went_on_from": saves[0]} if self.before is not None else {}
            if self.first_path:
                meta["first_path"] = self.first_path
            if self.wanted > self.paths:
                meta["alike"] = f"without noise all {self.wanted:,} paths are alike: one was run"
            if sentence := phases.sentence:
                meta["between_saves"] = sentence
            step, at = self.origin
            times = at + clock.time(steps_kept - step, self.first_step + step)
            if "lr" in self.hyper:
                meta["lr"], times = np.nan, np.full(len(times), np.nan)
            run = recorder.run(steps_kept, times, status, ended, meta)
            run.hyper |= self.hyper
            engine.release()
            run._end = None if interrupted else partial(left_by, self, engine, done)
            return run

    def _source(self, w0: Any, paths: int, settings: Settings | None, rng: Any) -> tuple[Floats, int, Any, Words]:
        """Of a run from `w0`: starts (paths, size), how many were asked for, the seed's entropy, the streams' key."""
        if w0 is None:
            raise InputError("simulate begins at w0, or goes on with continue_from: give one of them.")
        start = starts_of(self.system, w0, paths)
        entropy, key = seed_key(rng)
        return start if settings else start[: paths_needed(self.system, start)], paths, entropy, key

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a run that goes on from this one must know of it; its ways as they were given, but for a default that
        the number of steps decides."""
        ways = self.ways
        if ways["substeps"] is None:
            ways = ways | {"substeps": self.engine.meta.get("substeps")}
        return {
            "paths": self.paths, "save_every": self.every, "keep": self.keep, "first_step": self.first_step,
            "first_path": self.first_path, "seed": json.dumps(self.entropy, default=int),
            "stream": self.key.tobytes().hex(), "wanted": self.wanted, "ways": ways, "origin": self.origin,
        }  # fmt: skip

    def _what(self, asked: dict[str, Any], ways: dict[str, Any]) -> dict[str, str]:
        """What the run is, for its checkpoint; `ways` as they were given."""
        facts = {name: value for name, value in self.facts.items() if name not in ("wanted", "ways", "origin")}
        ways = {n: v if v is None or isinstance(v, str) else number(v, n) for n, v in ways.items()}
        before = {} if self.before is None else {"the run it goes on from": self.before.digest()}
        options = {"hyper": identity(self.hyper, "hyper"), **facts, **ways, **before}
        return _identity(self.system, self.start, asked, self.stop, options)


def _check_system(system: Any) -> None:
    if not isinstance(system, (Map, Flow)):
        raise InputError(f"simulate runs a Map or a flow, not {type(system).__name__}.")


def _paths_of(hyper: Any, paths: int) -> int:
    """As many as there are numbers for, where nothing else is said."""
    if hyper is None:
        return paths
    sizes = {np.size(values) for values in table(hyper, "hyper").values()} - {0, 1}
    return sizes.pop() if paths == 1 and len(sizes) == 1 else paths


def _settings(system: Map | Flow, hyper: Any, paths: int) -> Settings | None:
    if not hyper:
        return None
    if isinstance(system, Flow):
        raise InputError("hyper gives the paths of a map numbers of their own; make a flow for each number.")
    return settings_of(system, hyper, paths)


def paths_needed(system: Map | Flow, start: Floats) -> int:
    """How many of these paths differ: one where there is neither noise nor another start."""
    if len(start) == 1:
        return 1
    noisy = system.noise is not None if isinstance(system, Map) else system.stochastic(start[:1])
    return len(start) if noisy or start.strides[0] else 1


def _check_room(system: Map | Flow, steps: int, paths: int, saves: int, keep: str, checkpoint: Any) -> None:
    """Refuse a run whose paths and saves are more than there is memory for, before any of it is taken."""
    size = system.components if isinstance(system, Map) else system.size
    kept = 8 * system.dim * paths * saves if keep == "paths" and checkpoint is None else 0
    taken = 8 * size * paths + _SAVE * saves + kept
    if taken <= LITTLE:
        return
    less = said("keep less (keep='moments', checkpoint=...)")
    need(
        taken,
        f"a run of {paths:,} paths with {saves - 1:,} saves",
        f"take fewer paths, save less often ({said('save_every')}), or {less}",
    )


def _identity(
    system: Map | Flow, start: Floats, asked: dict[str, Any], stop: Any, options: dict[str, Any]
) -> dict[str, str]:
    """Everything that reaches the numbers of a run, as texts: no other run is taken for it."""
    owner = system if isinstance(system, Map) else system.map
    kernels = "".join(sorted({owner.source.text, owner.loss.source.text, system.source.text}))
    watched = {
        f"observable {name}": f"{_called(what)} {identity(what, f'the observable {name}')}"
        for name, what in asked.items()
    }
    return {
        "system": repr(system), **{name: str(value) for name, value in options.items()},
        "observe": ", ".join(asked), **watched,
        "stop": "None" if stop is None else f"{_called(stop)} {identity(stop, 'stop')}",
        "the system's content": identity((system, kernels), "the system"), "w0": identity(start, "w0"),
        **provenance(), **environment(),
    }  # fmt: skip


def _called(what: Any) -> str:
    """What was asked for, in a few words."""
    return printed(getattr(what, "__name__", what), 40)


def starts_of(system: Map | Flow, w0: ArrayLike, paths: int) -> Floats:
    """Starting parameters (paths, D), checked; one start for all paths is not copied."""
    start = _given_starts(system, w0, paths)
    if isinstance(system, Flow):
        start = system.start(start)
    start = start.reshape(-1, start.shape[-1])
    return start if len(start) == paths else np.broadcast_to(start, (paths, start.shape[-1]))


def _given_starts(system: Map | Flow, w0: ArrayLike, paths: int) -> Floats:
    """What was given as `w0`, (size,) for all paths or (paths, size), checked."""
    owner = system if isinstance(system, Map) else system.map
    start = owner.state(w0, "w0")
    if start.ndim > 2 or (start.ndim == 2 and len(start) not in (1, paths)):
        raise InputError(
            f"w0 has shape {start.shape}, expected ({system.dim},) for all paths or ({paths}, {system.dim})."
        )
    if not all_of(np.isfinite(start)):
        raise InputError("w0 contains NaN or Inf; give finite starting parameters.")
    return start
