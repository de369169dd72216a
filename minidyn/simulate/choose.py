"""Which engine carries a system, and by which method."""

import math
from typing import Any

from minidyn.common.arrays import Floats, Words
from minidyn.common.errors import InputError
from minidyn.common.intake import between, number, shown, whole
from minidyn.flows.base import Flow
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import Map
from minidyn.maps.settings import Settings
from minidyn.simulate.engines import CarriedEngine, Engine, MapEngine
from minidyn.simulate.odes import COMPILED, SCIPY, OdeEngine, ScipyEngine
from minidyn.simulate.sdes import SdeEngine
from minidyn.solvers.schemes import SCHEMES, Scheme, fitting

_LONGEST = 32  # steps of the map that a step of a scheme covers by default, at most
_FINEST = 12


def make_engine(system: Map | Flow, start: Floats, steps: int, key: Words | None = None, *, method: str | None = None,
                rtol: float | None = None, atol: float | None = None, substeps: Any = None, threads: int = 1,
                first_step: int = 1, first_path: int = 0, settings: Settings | None = None) -> Engine:  # fmt: skip
    """The engine that carries this system from these starts (paths, size) for so many steps; the first path has the
    random numbers of path `first_path`; `settings` are a map's."""
    key = seed_key(0)[1] if key is None else key
    if method is not None and not isinstance(method, str):
        raise InputError(f"method is the name of a scheme, such as 'auto' or 'heun', not {shown(method)}.")
    if isinstance(system, Map):
        given = {"method": method, "rtol": rtol, "atol": atol, "substeps": substeps}
        if useless := [f"{name}=" for name, value in given.items() if value is not None]:
            raise InputError(f"a map runs exactly as it is: {useless[0]} is for flows.")
        if system.rule.scheduled:
            system.rule.table(first_step, steps)  # a schedule that does not exist everywhere is refused now
        return MapEngine(system, start, key, threads, first_step, first_path, settings)
    system = system.beginning(first_step)
    numbers = system.numbers(start)
    noisy = system.has_noise(start, numbers)
    rtol = (1e-3 if noisy else 1e-9) if rtol is None else between(rtol, "rtol", 0, 1)
    atol = (1e-6 if noisy else 1e-12) if atol is None else between(atol, "atol", 0, 1)
    if noisy:
        way = *_steps_of(system, method, substeps, steps), rtol, atol
        return SdeEngine(system, start, numbers, key, *way, steps, threads, first_path)
    if system.carry is not None:
        if method is not None:
            raise InputError(f"the {system.name} brings its own way to move, from event to event: leave method= out.")
        return CarriedEngine(system, start, numbers, rtol, atol, steps, threads)
    method = method or "auto"
    if method in COMPILED:
        return OdeEngine(system, start, numbers, method, rtol, atol, steps, threads)
    if method.startswith("scipy:") and method[6:] in SCIPY:
        return ScipyEngine(system, start, numbers, method[6:], rtol, atol, steps)
    if method in SCHEMES:
        raise InputError(f"this flow has no noise: {method!r} is for flows with noise; use method='auto'.")
    raise InputError(
        f"the method of a flow without noise is {', '.join(map(repr, COMPILED))} or 'scipy:' with "
        f"{', '.join(SCIPY)}, not {shown(method)}."
    )


def _steps_of(flow: Flow, method: str | None, substeps: Any, steps: int) -> tuple[Scheme, int, int]:
    """The scheme of a flow with noise, and what one step of it covers: see `SdeEngine`."""
    method = method or ("heun" if flow.reading == "stratonovich" else "euler-maruyama")
    if method in COMPILED or method.startswith("scipy:"):
        raise InputError(f"this flow has noise and {method!r} is for flows without: use one of {', '.join(SCHEMES)}.")
    if method not in SCHEMES:
        raise InputError(f"the method of a flow with noise is {', '.join(map(repr, SCHEMES))}, not {shown(method)}.")
    adaptive = isinstance(substeps, str) and substeps == "adaptive"
    scheme = fitting(method, flow.reading, flow.noise_kind, flow.name, flow.size == flow.columns, adaptive)
    if substeps is None:
        return scheme, min(default_span(steps), flow.reach), 0
    return scheme, *((0, 0) if adaptive else _substeps(substeps))


def default_span(steps: int) -> int:
    """The largest power of two up to 32 and up to a hundredth of the run: a hundred steps of the scheme at least."""
    return 2 ** int(math.log2(min(_LONGEST, max(1, steps // 100))))


def _substeps(value: Any) -> tuple[int, int]:
    """(map steps per step of the scheme, level): 2^level steps of the scheme per map step where it is below 1."""
    if isinstance(value, str):
        raise InputError(f"substeps is a number of the map's steps or 'adaptive', not {shown(value)}.")
    size = number(value, "substeps")
    if 0 < size < 1:
        level = -math.log2(size)
        if level != round(level) or level > _FINEST:
            raise InputError(
                f"substeps is {value}; below 1 it must be 1/2, 1/4, ... down to 2**-{_FINEST}: a step of the map is "
                "refined by halves."
            )
        return 1, round(level)
    return whole("substeps", value, 1), 0
