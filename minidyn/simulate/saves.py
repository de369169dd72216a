"""At which steps a run is saved: every so many, or logarithmically, where most happens early."""

from typing import Any

import numpy as np

from minidyn.common.errors import InputError, said
from minidyn.common.intake import shown, whole
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map

LOG = "log"
_DECADE = 25  # saves in each factor of ten
_ALL = 200


def stride(system: Map | Flow, steps: int) -> int:
    """Steps between saves, about 200 of them; an odd number for a map without noise, whose oscillation shows so."""
    every = max(1, steps // _ALL)
    return every | 1 if isinstance(system, Map) and system.noise is None else every


def spacing(value: Any) -> Any:
    """What was given as `save_every`, a number of steps or "log", or an InputError."""
    if isinstance(value, str):
        if value == LOG:
            return LOG
        log = said("'log'")
        raise InputError(f"{said('save_every')} is a number of steps or {log}, not {shown(value)}.")
    return whole("save_every", value, 1)


def every_of(system: Map | Flow, steps: int, given: Any) -> Any:
    """The spacing that was given as `save_every`, or `stride` where there is none."""
    return stride(system, steps) if given is None else spacing(given)


def count_of(steps: int, every: Any) -> int:
    """How many saves there are, at most."""
    return int(_DECADE * np.log10(steps)) + 3 if every == LOG else steps // every + 2


def saves_of(steps: int, every: Any) -> list[int]:
    """The steps at which a run is saved, the first (0) and the last among them.

    >>> saves_of(10, 4), saves_of(12, "log")
    ([0, 4, 8, 10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    """
    if every == LOG:
        return [0, *np.unique(np.geomspace(1, steps, count_of(steps, LOG) - 1).round().astype(np.int64)).tolist()]
    return [*range(0, steps, every), steps]
