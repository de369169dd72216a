"""Many settings side by side: a map or a flow over a grid of numbers, and flows against the map at every setting."""

from collections.abc import Iterable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike
from minidyn.common.errors import InputError, said
from minidyn.common.intake import one_of, ordered, whole
from minidyn.compare.readings import check_flows, check_options, labels_of
from minidyn.compare.sweep.grid import grid_of, parts_of, sample, starts_at
from minidyn.compare.sweep.result import Sweep, labelled
from minidyn.compare.sweep.work import REDUCTIONS, Plan, carry, merged
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map
from minidyn.simulate import every_of, observables, seed_key
from minidyn.simulate.checkpoint import folder_of
from minidyn.simulate.identity import identity
from minidyn.simulate.run import QUANTILES, provenance
from minidyn.simulate.tasks import carry_tasks
from minidyn.simulate.threads import thread_count

__all__ = ["Sweep", "sample", "sweep"]

_FEW = 6  # parameters that are kept each; beyond, what is observed
_GIVEN = {"grid": "over", "every": "save_every", "asked": "observe", "entropy": "rng"}  # parts of a plan, as arguments


def sweep(system: Map | Flow, *flows: Flow | type[Flow], over: Any, w0: ArrayLike | Any = None, steps: int,
          paths: int = 1, observe: Any = None, reduce: Any = "last", save_every: Any = None, rng: Any = None,
          first_step: int = 1, stop: Any = None, keep: str = "paths", executor: Any = None, checkpoint: Any = None,
          threads: int | None = None, progress: bool | None = None, **flow_options: Any) -> Sweep:  # fmt: skip
    """Run a map or a flow at many settings, or hold flows against the map at each of them.

    Parameters
    ----------
    system : a `Map`, all of whose settings run side by side in one kernel, or a flow, made anew at each setting.
    flows : flows of the map (or classes, such as `md.RodFlow`) to be held against it by `compare` at every setting; a
        flow that does not exist there is NaN. `x` is the mean of the map as it is, `x_difference` that of a flow from
        the map as the flow reads it: iterates, mid-points or projected (`meta["reads"]`).
    over : `{name: values}`, a grid of all combinations, or a list of settings `[{name: value}, ...]` (`md.sample` makes
        one). Names are the rule's hyperparameters, the noise's `sigma` and `label_std`, constants of the loss, `batch`,
        a parameter (its starting value), `w0` (starts, (n, D)), or `loss`, `rule`, `noise` with objects.
    w0 : starting parameters (D,) or (paths, D) where `over` does not give them all; a function of the map, such as
        `lambda m: m.fixed_point(w)`.
    paths : at each setting. Path i has the same random numbers at every setting: each is, to the bit, the run of
        `simulate` with its map and the same seed, and differences between settings have little noise.
    observe : see `simulate`; with more than six parameters these alone are kept, by default the loss.
    reduce : what is kept of each path, one or several of: "last", its values at the end; "end", their mean over the
        saves of the last quarter; "min", "max" over all saves. Values are called `x`, `x_end`, `x_min`, `x_max`.
        "period", of maps without noise: after how many steps they repeat, 1 at rest, 0 where no period up to 64 is seen
        in the 128 steps beyond the end, -1 where the path has ended.
    stop : ends a path (see `simulate`); `ended` then has the step at which it did.
    keep : "paths" keeps the values of every path, "moments" only mean, variance, count and quantiles at each setting.
    executor : who does the work: a `concurrent.futures.Executor`, a client of dask, a number of processes; by default
        this process.  threads : of it, or of each worker (1).
    checkpoint : a folder for this sweep alone; the same call goes on there to the same bits. Needs a seed in `rng`.
    steps, save_every, rng, first_step, progress, flow_options : see `simulate`.

    Returns a `Sweep`; after Ctrl-C that of the settings that are finished, with NaN and the status `interrupted` at the
    others (KeyboardInterrupt where none is). Raises InputError for arguments that do not fit, before anything runs.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> noisy = md.Map(md.Loss(x**2 / 2, [x]), md.GD(0.1), md.GaussianNoise(1.0))
    >>> found = md.sweep(noisy, over={"lr": [0.1, 0.2], "sigma": [0.5, 1.0]}, w0=[1.0], steps=50, paths=100, rng=0)
    >>> found.mean("x").shape
    (2, 2)
    """
    thread_count(threads)
    plan = _plan(system, flows, over, w0, steps, paths, observe, reduce, save_every, rng, first_step, stop, keep,
                 checkpoint, flow_options)  # fmt: skip
    pieces = plan.pieces()
    kept = folder_of(checkpoint) is not None
    what = {_GIVEN.get(f.name, f.name): _told(f.name, getattr(plan, f.name)) for f in fields(plan)} if kept else {}
    count = thread_count(threads) if threads is not None or executor is None else 1
    done = carry_tasks(partial(carry, plan, count), pieces, executor, what=what, folder=checkpoint, label="sweep",
                       progress=progress)  # fmt: skip
    found, finished = merged(plan, done, pieces)
    grid = plan.grid
    last, along = "path", np.arange(plan.paths)
    if plan.flows:
        last, along = "flow", np.array(labels_of(plan.base, plan.flows)[1:])
    elif keep == "moments":
        last = "statistic"
    taken = {*found, "path", "flow", "statistic"}
    called = _free(grid.labels, taken)
    dims = {called[name]: values for name, values in grid.labels.items()}
    dims |= {"path": np.arange(plan.paths)} if not plan.flows else {}
    dims |= {last: along} if last != "statistic" else {last: np.array(["mean", "variance", "count", *_shares()])}
    meta = {
        "system": repr(system), "flows": [f.name for f in plan.flows], "steps": plan.steps, "paths": plan.paths,
        "reduce": list(plan.reduce), "seed": str(plan.entropy) if not plan.base.bound.silent else "", **provenance(),
    }  # fmt: skip
    if plan.flows:
        meta["reads"] = {label: flow.reads for label, flow in zip(along.tolist(), plan.flows, strict=True)}
    if finished < grid.count:
        meta["interrupted"] = f"after {finished:,} of {grid.count:,} settings"
    called = _free(grid.beside, taken | {*dims})
    beside = {called[name]: values for name, values in grid.beside.items()}
    return Sweep(dims, labelled(tuple(dims)[: len(grid.dims)], grid.shape, found, last), beside, meta)


def _told(name: str, value: Any) -> str:
    """A part of a plan, as a text or a hash."""
    return str(value) if isinstance(value, (int, str)) else identity(value, name)


def _shares() -> list[str]:
    return [f"quantile {q:g}" for q in QUANTILES]


def _free(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Names that are free: a taken one gets `_0`, as that of a starting value beside its parameter."""
    names, taken = list(names), set(taken)
    out = {name: name for name in names if name not in taken}
    for name in names:
        other = name
        while other in taken or (name not in out and other in out.values()):
            other += "_0"
        out.setdefault(name, other)
    return out


def _plan(
    system: Any, flows: Any, over: Any, w0: Any, steps: Any, paths: Any, observe: Any, reduce: Any, save_every: Any,
    rng: Any, first_step: Any, stop: Any, keep: Any, checkpoint: Any, options: Any,
) -> Plan:  # fmt: skip
    """The arguments, all checked."""
    if not isinstance(system, (Map, Flow)):
        raise InputError(f"sweep runs a Map or a flow, not {type(system).__name__}.")
    base = system if isinstance(system, Map) else system.map
    made = tuple(flow(base) if isinstance(flow, type) and issubclass(flow, Flow) else flow for flow in flows)
    if made and not isinstance(system, Map):
        raise InputError("flows are held against a map: give the map first.")
    check_flows(base, made)
    check_options(options, "sweep")
    if options and isinstance(system, Map) and not made:
        raise InputError(f"a map runs exactly as it is: {next(iter(options))}= is for flows.")
    steps, paths, first_step = whole("steps", steps, 1), whole("paths", paths, 1), whole("first_step", first_step, 1)
    listed = (reduce,) if isinstance(reduce, str) else tuple(ordered(reduce, "reduce"))
    for how in listed or ("",):
        one_of(how, "reduce", REDUCTIONS)
    one_of(keep, "keep", ("paths", "moments"))
    if made and (listed != ("last",) or stop is not None or keep != "paths"):
        raise InputError(f"flows are held against the map at the end: leave {said('reduce')}, a stop and moments out.")
    if folder_of(checkpoint) is not None and rng is None and base.noise is not None:
        raise InputError(f"a sweep with a checkpoint needs a seed: give {said('rng=0')} or another number.")
    grid = grid_of(base, over)
    parts = parts_of(base, grid)
    start = starts_at(base, grid, np.arange(grid.count), w0, paths)
    if not np.isfinite(start).all():
        raise InputError("w0 contains NaN or Inf; give finite starting parameters.")
    quiet = all(m.noise is None for _, m in parts)
    if "period" in listed and not (quiet and isinstance(system, Map)):
        raise InputError("a period is that of a map without noise.")
    asked = observables.asked(base.loss, "loss" if observe is None and base.dim > _FEW else observe)
    observables.resolve(base, asked)
    taken = [name for name in asked if name in grid.columns or name in ("flow", "statistic", "setting")]
    if taken:
        raise InputError(
            f"the name {taken[0]} is taken in the sweep; give another one with "
            f"{said('observe={name: expression or function}')}."
        )
    entropy, key = seed_key(rng)
    return Plan(
        system, made, grid, w0, steps, 1 if quiet and start.shape[1] == 1 else paths,
        every_of(system, steps, save_every), tuple(base.loss.param_names) if base.dim <= _FEW else (), asked, listed,
        entropy, key, first_step, stop, keep, options,
    )  # fmt: skip
