"""At which steps a run is saved: every so many, or logarithmically, where most happens early."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidyn.common.arrays import Integers
from minidyn.common.errors import InputError, said
from minidyn.common.intake import shown, whole
from minidyn.flows.base import Flow
from minidyn.maps.discrete import Map

LOG = "log"
_DECADE = 25  # saves in each factor of ten
_ALL = 200
_ROUND = (
    (1,),
    (1, 3),
    (1, 2, 5),
)  # first digits of the steps that a reader expects in a short table, or in a longer one


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


def saves_between(first: int, ends: Sequence[int], every: Any) -> list[int]:
    """Those of them from step `first` on, where a run goes on and is saved too, for one that was to end at these steps
    one after the other. Logarithmic saves of a shorter run, which a longer one would not have, stay.

    >>> saves_between(10, [20], 4), saves_between(0, [10, 20], 4)
    ([10, 12, 16, 20], [0, 4, 8, 12, 16, 20])
    """
    out = [first]
    for end in ends if every == LOG else ends[-1:]:
        saves = saves_of(end, every)
        out += saves[bisect_right(saves, out[-1]) :]
    return out


def regular(saves: Sequence[int], every: Any) -> bool:
    """Whether the last save is not only there because the run ends."""
    return every == LOG or saves[-1] % every == 0


def round_saves(saves: Integers, most: int) -> Integers:
    """Places of up to `most` saves that a table of logarithmic ones shows: the last, and those nearest to powers of
    ten, or to so many round numbers as there are rows for.

    >>> import numpy as np
    >>> saves = np.array(saves_of(100_000, "log"))
    >>> saves[round_saves(saves, 5)].tolist()
    [10, 96, 1037, 10184, 100000]
    """
    last = int(saves[-1])
    for digits in _ROUND:
        targets = [d * 10**power for power in range(len(str(last))) for d in digits if 1.5 * d * 10**power <= last]
        if len(targets) >= most - 1:
            break
    targets = targets[max(len(targets) - most + 1, 0) :]
    places = [int(np.abs(np.log(saves[1:] / target)).argmin()) + 1 for target in targets]
    return np.unique([place for place in (*places, len(saves) - 1) if place > 0]).astype(np.int64)
