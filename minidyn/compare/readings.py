"""What stands beside a map: that flows are its own, what they are called, and the map as each of them reads it.

A flow of iterates predicts `theta_k`, a flow of mid-points `(theta_k + theta_{k+1}) / 2`, a flow on the minima
`Phi(theta_k)`, the limit of the gradient flow. Each says so in `Flow.reads`, and is held against that alone.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers
from minidyn.common.errors import InputError, clipped
from minidyn.common.intake import shown
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map, apart
from minidyn.minima.manifold import Manifold
from minidyn.simulate.choose import make_engine
from minidyn.simulate.progress import Bar
from minidyn.simulate.run import Run

OPTIONS = ("method", "rtol", "atol", "substeps")  # what a flow may be given on its way to `simulate`


def check_flows(system: Map, flows: Sequence[Any]) -> None:
    """Refuse what is no flow, and a flow of another map."""
    for flow in flows:
        if not isinstance(flow, Flow):
            raise InputError(f"{shown(flow)} is not a flow.")
        if what := apart(flow.map, system):
            raise InputError(
                f"the {flow.name} is the flow of another map: {what} differs, {_shown(flow.map, what)} instead of "
                f"{_shown(system, what)}; flow.of(map) makes the same flow of this map."
            )


def _shown(system: Map, what: str) -> str:
    part = {"the loss": system.loss, "the rule": system.rule}.get(what, system.noise or "no noise")
    return clipped(part, 100)


def check_options(given: Iterable[str], who: str) -> None:
    """Refuse options that no flow has."""
    for name in given:
        if name not in OPTIONS:
            meant = {"seed": "rng", "n": "paths", "dt": "substeps", "solver": "method"}.get(name)
            known = [*OPTIONS, "rng", "observe", "threads", "paths"]
            near = [meant] if meant else difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}=?" if near else f"flows take {', '.join(OPTIONS)}."
            raise InputError(f"{who} has no option {name}=: {hint}")


def labels_of(system: Map, flows: Sequence[Flow]) -> list[str]:
    """What the map and its flows are called; a second one of the same name gets a dash."""
    labels = [system.rule.name]
    for flow in flows:
        name = flow.label
        while name in labels:
            name += "'"
        labels.append(name)
    return labels


def one_start(system: Map, w0: ArrayLike) -> Floats:
    """The whole state z (components,) that a map starts from at `w0`; InputError for several points, or no numbers."""
    z = system.whole_state(w0, "w0")
    if z.ndim != 1:
        raise InputError(f"w0 has shape {z.shape}, expected one starting point ({system.dim},).")
    if not np.isfinite(z).all():
        raise InputError("w0 contains NaN or Inf; give finite starting parameters.")
    return z


def paths_of(flow: Flow, w0: Floats, steps: int, paths: int, first_step: int, options: Mapping[str, Any]) -> int:
    """How many paths a flow has: one where it has neither noise nor several starts; raises what running it would."""
    flow = flow.beginning(first_step)
    states = np.atleast_2d(flow.start(w0))
    noisy = flow.stochastic(states)
    make_engine(flow, states[:1], steps, first_step=first_step, **options)
    return paths if noisy or len(w0) > 1 else 1


def read_map(system: Map, reading: str, run: Run, later: Floats | None, times: Integers, threads: int) -> Floats:
    """The map's values (paths, T, D) at some of its saves, as a flow of this reading wants them.

    later : those one step later."""
    assert run.w is not None
    w = np.ascontiguousarray(run.w[:, times])
    if reading == "midpoints":
        assert later is not None
        return np.asarray(0.5 * (w + later))
    if reading == "projected":
        return Manifold(system.loss).limits(w, 1e-9, 20_000, threads)[0]
    return w


def one_later(
    system: Map, start: Floats, steps: Integers, first_step: int, key: Any, threads: int, progress: bool | None
) -> Floats:
    """The map's values (paths, T, D) one step after each of these `steps`, on the noise of its run, for the mid-points
    that flows of mid-points predict."""
    engine = make_engine(system, start, int(steps[-1]) + 1, key, threads=threads, first_step=first_step)
    out, done = np.empty((len(start), len(steps), system.dim)), 0
    with Bar(int(steps[-1]) + 1, len(start), progress, "mid-points") as bar:
        for place, k in enumerate(map(int, steps)):
            while done <= k:
                count = engine.slice(k + 1 - done)
                engine.advance(done, count)
                done += count
                bar.update(done)
            out[:, place] = engine.parameters()
    return out
