"""Dormand-Prince 5(4) in Python, for fields that are smooth between events.

A flow at the edge of stability changes its equations where an eigenvalue reaches the threshold or an
oscillation dies out. A step that crosses such an event is repeated with the length that ends on it.
Source: Dormand, Prince (1980); Hairer, Norsett, Wanner, *Solving ODEs I*, sections II.5 and II.6.
"""

from collections.abc import Callable

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.solvers.explicit import norm, rescaled
from minidyn.solvers.tableaus import DOPRI5

Field = Callable[[Floats, float], Floats]
Event = Callable[[Floats, float], float]


class FieldFailed(Exception):
    """A field does not exist at a point; `code` is a status."""

    def __init__(self, code: int, reason: str = ""):
        super().__init__(reason or f"status {code}")
        self.code, self.reason = code, reason


def trial(field: Field, w: Floats, first: Floats, k: float, step: float) -> tuple[Floats, Floats]:
    """One step of order 5 from w, whose slope is `first`: the new point, and the error estimate of order 4."""
    slopes = np.empty((DOPRI5.stages, len(w)))
    slopes[0] = first
    y = w
    for stage in range(1, DOPRI5.stages):
        y = w + step * (DOPRI5.a[stage, :stage] @ slopes[:stage])
        slopes[stage] = field(y, k + DOPRI5.c[stage] * step)
    return y, step * (DOPRI5.e[0] @ slopes)


def carry(field: Field, event: Event, w: Floats, k: float, end: float, step: float, rtol: float, atol: float,
          settle: Callable[[Floats, float], Floats]) -> tuple[Floats, float, float, bool]:  # fmt: skip
    """Carry w from k towards `end`, until an event: the point, its k, the next step, whether an event stopped it.

    `event(w, k)` is positive beyond the event; `settle` puts an accepted point back where the flow lives.
    Raises FieldFailed with the field's own code where no step is short enough, 4 where the error stays too large.
    """
    while k < end:
        first = field(w, k)
        length = min(step, end - k)
        while True:
            try:
                y, wrong = trial(field, w, first, k, length)
                error = norm(wrong, w, y, (rtol, atol))
                y = settle(y, k + length) if error <= 1.0 else y
                failed = None
            except FieldFailed as e:
                error, failed = np.inf, e
            if error <= 1.0:
                break
            length *= rescaled(error, 0.2)
            if not length > 1e-10 * (1.0 + abs(k)):
                raise failed or FieldFailed(4, "the step size vanishes")
        grown = length * rescaled(error, 0.2)
        if event(y, k + length) > 0.0:
            y, length = _onto(field, event, w, first, k, length, settle)
            return y, k + length, max(length, 0.1 * step), True
        step = max(step, grown) if length < step and length == end - k else grown
        k = end if length == end - k else k + length
        w = y
    return w, end, step, False


def _onto(
    field: Field,
    event: Event,
    w: Floats,
    first: Floats,
    k: float,
    length: float,
    settle: Callable[[Floats, float], Floats],
) -> tuple[Floats, float]:
    """The shortest step known to lie beyond the event: bisection and secants (Illinois) on its length."""
    low, high = 0.0, length
    y_high = settle(trial(field, w, first, k, length)[0], k + length)
    f_low, f_high = event(w, k), event(y_high, k + length)
    for _ in range(80):
        if high - low <= 1e-13 * (abs(k) + high) or abs(f_high) <= 1e-13:
            break
        guess = high - f_high * (high - low) / (f_high - f_low) if f_low < 0.0 else 0.5 * (low + high)
        guess = min(max(guess, low + 1e-3 * (high - low)), high - 1e-3 * (high - low))
        y = settle(trial(field, w, first, k, guess)[0], k + guess)
        value = event(y, k + guess)
        if value > 0.0:
            high, y_high, f_high, f_low = guess, y, value, f_low / 2
        else:
            low, f_low, f_high = guess, value, f_high / 2
    return y_high, high
