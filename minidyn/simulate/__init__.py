"""The only time loops: maps and flows, many paths, saving, progress, statuses, checkpoints."""

import json
import logging
import time
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import InputError, said
from minidyn.common.intake import number, one_of, table, whole
from minidyn.common.memory import need
from minidyn.common.status import Status
from minidyn.flows.base import Flow
from minidyn.graph.walk import printed
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import Map
from minidyn.maps.settings import Settings, settings_of
from minidyn.simulate import observables
from minidyn.simulate.checkpoint import Keeper, belongs, keeper, stored_seed
from minidyn.simulate.choose import make_engine
from minidyn.simulate.engines import Engine
from minidyn.simulate.ensembles import Ensemble
from minidyn.simulate.events import Conditions, StoppingEngine
from minidyn.simulate.identity import environment, identity
from minidyn.simulate.phases import Phases
from minidyn.simulate.progress import Bar
from minidyn.simulate.recording import Recorder
from minidyn.simulate.run import Run, provenance
from minidyn.simulate.saves import LOG, count_of, every_of, saves_of
from minidyn.simulate.threads import thread_count

__all__ = [
    "check_checkpoint", "every_of", "paths_needed", "saves_of", "seed_key", "simulate", "starts_of",
]  # fmt: skip

_SAVE = 50  # bytes that a save takes beside its values
log = logging.getLogger("minidyn")


def simulate(system: Map | Flow, w0: ArrayLike, steps: int, *, paths: int = 1, save_every: Any = None,
             observe: Any = None, rng: Any = None, method: str | None = None, rtol: float | None = None,
             atol: float | None = None, substeps: Any = None, keep: str = "paths", first_step: int = 1,
             first_path: int = 0, threads: int | None = None, progress: bool | None = None, checkpoint: Any = None,
             stop: Any = None, hyper: Any = None, executor: Any = None) -> Run:  # fmt: skip
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
    keep : "paths" keeps every path, "moments" only mean, variance and quantiles at each save.
    threads : at most this many; by default as many as this process may use.  progress : show a bar; by default on a
        terminal, once a second has passed. The logger `minidyn` gets the same every ten seconds (level INFO).
    checkpoint : a folder for this run alone, where its state is written every few seconds, and its saves as they are
        made: memory does not grow with them (`Run.w` is then mapped from disk, and read-only). The same call goes on
        where a killed one was, to the same bits (`Run.digest`), or returns a finished run; to start anew, delete it.
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
        return _Planned(system, w0, steps, paths=paths, **given).run(progress)
    of_paths = _paths_given(system, w0, paths, hyper)
    return Ensemble(simulate, _Planned, system, steps, *of_paths, given).run(executor, progress)


def _paths_given(system: Map | Flow, w0: ArrayLike, paths: int, hyper: Any) -> tuple[int, Floats, dict[str, Floats]]:
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

    def __init__(self, system: Map | Flow, w0: Any, steps: int, *, paths: int, save_every: Any, rng: Any,
                 first_step: int, checkpoint: Any, observe: Any = None, method: Any = None, rtol: Any = None,
                 atol: Any = None, substeps: Any = None, keep: str = "paths", first_path: int = 0,
                 threads: int | None = None, stop: Any = None, hyper: Any = None):  # fmt: skip
        _check_system(system)
        steps, paths = whole("steps", steps, 1), whole("paths", paths, 1)
        paths = _paths_of(hyper, paths)
        every = every_of(system, steps, save_every)
        keep = one_of(keep, "keep", ("paths", "moments"))
        first_step, first_path = whole("first_step", first_step, 1), whole("first_path", first_path, 0)
        if isinstance(system, Flow):
            system = system.beginning(first_step)
            first_step = system.first_step
        start = starts_of(system, w0, paths)
        settings = _settings(system, hyper, paths)
        self.wanted, start = paths, start if settings else start[: paths_needed(system, start)]
        paths = len(start)
        _check_room(system, steps, paths, count_of(steps, every), keep, checkpoint)
        self.entropy, key = seed_key(stored_seed(checkpoint) if rng is None else rng)
        self.began = time.perf_counter()
        asked = observables.asked(system.loss, observe)
        self.watchers = observables.resolve(system if isinstance(system, Map) else system.map, asked, settings)
        ways = {"method": method, "rtol": rtol, "atol": atol, "substeps": substeps}
        self.engine = make_engine(
            system, start, steps, key, threads=thread_count(threads), first_step=first_step, first_path=first_path,
            settings=settings, **ways,
        )  # fmt: skip
        if stop is not None:
            self.engine = StoppingEngine(self.engine, Conditions(system, stop, settings))
        self.system, self.steps, self.paths, self.keep, self.first_step = system, steps, paths, keep, first_step
        self.first_path = first_path
        self.hyper = dict(settings.given) if settings else {}
        if clash := sorted(self.hyper.keys() & self.watchers.keys()):
            raise InputError(f"the name {clash[0]} is taken by hyper; give the observable another one.")
        self.every, self.saves, self.checkpoint = every, saves_of(steps, every), checkpoint
        self.what = {} if checkpoint is None else _identity(system, start, asked, stop, {
            "hyper": identity(self.hyper, "hyper"),
            "steps": steps, "paths": paths, "save_every": every, "keep": keep, "first_step": first_step,
            "first_path": first_path, "seed": json.dumps(self.entropy, default=int), "stream": key.tobytes().hex(),
            **{name: v if v is None or isinstance(v, str) else number(v, name) for name, v in ways.items()},
        })  # fmt: skip

    def run(self, progress: bool | None) -> Run:
        """The engine is carried from save to save."""
        system, engine, saves = self.system, self.engine, self.saves
        with keeper(self.checkpoint, self.what, saves) as kept:
            recorder = Recorder(system.loss, self.watchers, self.keep, kept.rows, self.paths)
            phases = Phases(system, 1 if self.every == LOG else self.every, saves)
            recorder.also = phases.look
            what_runs = system.name if isinstance(system, Flow) else "Map"
            bar = Bar(self.steps, self.paths, progress, what_runs)
            done, interrupted = _carry(engine, recorder, kept, saves, bar)
            status, ended = engine.ending(done)
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
            alike = f"without noise all {self.wanted:,} paths are alike: one was run"
            meta |= {"first_path": self.first_path} if self.first_path else {}
            meta |= {"alike": alike} if self.wanted > self.paths else {}
            meta |= {"between_saves": phases.sentence} if phases.sentence else {}
            times = clock.time(steps_kept, self.first_step)
            if "lr" in self.hyper:
                meta["lr"], times = np.nan, np.full(len(times), np.nan)
            run = recorder.run(steps_kept, times, status, ended, meta)
            run.hyper |= self.hyper
            return run


def _check_system(system: Any) -> None:
    if not isinstance(system, (Map, Flow)):
        raise InputError(f"simulate runs a Map or a flow, not {type(system).__name__}.")


def _paths_of(hyper: Any, paths: int) -> int:
    """As many as there are numbers for, where nothing else is said."""
    sizes = {np.size(values) for values in table(hyper, said("hyper")).values()} - {1}
    return sizes.pop() if paths == 1 and len(sizes) == 1 else paths


def _settings(system: Map | Flow, hyper: Any, paths: int) -> Settings | None:
    if not hyper:
        return None
    if isinstance(system, Flow):
        raise InputError(f"{said('hyper')} gives the paths of a map numbers of their own; make a flow for each number.")
    return settings_of(system, hyper, paths)


def paths_needed(system: Map | Flow, start: Floats) -> int:
    """How many of these paths differ: one where there is neither noise nor another start."""
    noisy = system.noise is not None if isinstance(system, Map) else system.stochastic(start[:1])
    return len(start) if noisy or start.strides[0] else 1


def _check_room(system: Map | Flow, steps: int, paths: int, saves: int, keep: str, checkpoint: Any) -> None:
    """Refuse a run whose paths and saves are more than there is memory for, before any of it is taken."""
    size = system.components if isinstance(system, Map) else system.size
    kept = 8 * system.dim * paths * saves if keep == "paths" and checkpoint is None else 0
    less = said("keep less (keep='moments', checkpoint=...)")
    need(
        8 * size * paths + _SAVE * saves + kept,
        f"a run of {paths:,} paths with {saves - 1:,} saves",
        f"take fewer paths, save less often ({said('save_every')}), or {less}",
    )


def _carry(engine: Engine, recorder: Recorder, kept: Keeper, saves: list[int], bar: Bar) -> tuple[int, bool]:
    """Carry the engine from save to save; the steps done, and whether Ctrl-C ended it."""
    done = kept.resume(engine, recorder)
    if done:
        log.info("%s goes on after step %d of %d", bar.label, done, saves[-1])

    def alive() -> int:
        return int((engine.ending(done)[0] == Status.FINISHED).sum())

    try:
        with bar:
            bar.start(done)
            if not recorder.count:
                recorder.save(engine)
            for target in saves[recorder.count :]:
                while done < target:
                    kept.note(done, engine, recorder)
                    count = engine.slice(target - done)
                    engine.advance(done, count)
                    done += count
                    bar.update(done, alive)
                recorder.save(engine)
            recorder.observe()
            kept.note(done, engine, recorder, last=True)
    except KeyboardInterrupt:
        if not recorder.count:
            raise
        log.warning("%s was interrupted after step %d", bar.label, done)
        return done, True
    taken = max(time.perf_counter() - bar.began, 1e-9)
    speed = (done - bar.first) / taken
    log.info("%s: %d steps of %d paths in %.3g s, %.3g steps/s", bar.label, done, bar.paths, taken, speed)
    return done, False


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
    if not np.isfinite(start).all():
        raise InputError("w0 contains NaN or Inf; give finite starting parameters.")
    return start
