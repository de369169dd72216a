"""The clock of a flow: which numbers the rule has at each step of a run, and how long each step is.

Step k of the map takes the time from `t_(k-1)` to `t_k = eta_1 + ... + eta_k`, and a flow has the numbers of that
step (learning rate, momentum, ...) all the while. So a run falls into *stretches* of steps with the same numbers, and
no step of a solver crosses the end of one. Engines count on a clock on which step n of the run, 1, 2, ..., lies from
`n - 1/2` to `n + 1/2`; where a schedule changes nothing but the speed of a flow, a step is as long as the flow is fast
there, and the whole run is one stretch.

What a step is like depends on no later one, and not on where the run ends: a longer run begins with the same numbers.
So a stretch is known to its end beyond the run's, and one that no number ends has none.

Under a rate that changes slowly a stretch may hold many steps with rates of their own. It has their mean rate, the
p-th power of which is the mean of the p-th powers, with p as in `Flow.rate_power`: then the drift of the stretch is
exact to leading order, and so is the noise, where each step's counts as its rate does.
"""

from collections.abc import Iterator

import numpy as np

from minidyn.common.arrays import Floats, Integers
from minidyn.common.errors import InputError
from minidyn.flows.base import Flow
from minidyn.maps.rules import Rule

_NEAR = 1.02  # rates that differ less are joined; what the mean leaves out is then some 1e-5 of the drift
_FORESEEN = 1000  # steps: the end of the last stretch is looked for so far behind the run, and as far as it is long


class Clock:
    """The stretches of a run of `steps` steps of a flow.

    ends : (stretches,) the last step of each one, counted from the start of the run; that of the last lies beyond the
        run's, or is the last step that there is, or nobody knows it: see `end`.
    hyper : (stretches, H + 1) the numbers there, as kernels read them.  moves : (stretches,) False where nothing does.
    With `by_steps` all steps that move are equally long, whatever the flow: noise is drawn step by step.
    rates : those of all steps where stretches were joined, up to `longest` steps together; `rate` is their place in
        `hyper`, -1 where none were.
    """

    def __init__(self, flow: Flow, steps: int, by_steps: bool = False, longest: int = 1):
        rule, first = flow.map.rule, flow.first_step + flow.ahead
        self.rates, self.rate = np.zeros(0), -1
        self._places: Floats | None = None  # where steps 1, 2, ... end on the clock, if not all are equally long
        self.ends, self.moves = np.array([steps]), np.ones(1, bool)
        self.last, self.open = steps, True
        if not rule.scheduled and not flow.own_clock:
            self.hyper = flow.map.hyper_at(first)[None]
            return
        rows = rule.table(first, steps)
        speeds = None if by_steps else flow.speeds(rows)
        if speeds is not None:
            unit = int(np.argmax(speeds > 0.0))  # the first step that moves
            self.hyper = rows[unit : unit + 1]
            self._place(speeds / speeds[unit] if speeds[unit] > 0.0 else np.zeros(steps))
            return
        self.open = False
        most = longest if by_steps or flow.carry is not None else max(steps, _FORESEEN)
        rows = np.concatenate([rows, *_beyond(rule, first + steps, rows[-1], longest, most, flow.own_clock)])
        told = rows if flow.own_clock else rows[:, :-1]
        new = np.flatnonzero((told[1:] != told[:-1]).any(axis=1))
        self.ends = np.append(new + 1, len(rows))
        self.hyper = rows[np.append(new, len(rows) - 1)]
        still = np.zeros(len(rows), bool)
        if "lr" in rule.hyper and flow.rests:
            still = rows[:, list(rule.hyper).index("lr")] == 0.0
        if longest > 1 and flow.rate_power and rule.schedules == ["lr"] and not flow.own_clock:
            self._join(rows, list(rule.hyper).index("lr"), longest, flow.rate_power)
        self.moves = ~still[self.ends - 1]
        if still.any():
            self._place((~still).astype(float))

    def _join(self, rows: Floats, rate: int, longest: int, power: float) -> None:
        """Let stretches that differ in the rate, which alone has a schedule, and little, be one."""
        self.rates, self.rate, self.power = np.ascontiguousarray(rows[:, rate]), rate, power
        ends, begin, low, high = [0], 0, np.inf, 0.0
        for end, x in zip(self.ends.tolist(), self.rates[self.ends - 1].tolist(), strict=True):
            low, high = min(low, x), max(high, x)
            if ends[-1] > begin and (end - begin > longest or high > _NEAR * low):
                begin, low, high = ends[-1], x, x
                ends.append(end)
            elif ends[-1] > begin:
                ends[-1] = end
            else:
                ends.append(end)
        self.ends = np.array(ends[1:])
        starts = np.append(0, self.ends[:-1])
        self.hyper = np.array([self.mean(rows[b], b, e) for b, e in zip(starts, self.ends, strict=True)])

    def mean(self, numbers: Floats, begin: int, end: int) -> Floats:
        """Numbers of a step with the mean rate of the steps begin + 1 .. end in them, where stretches were joined."""
        if self.rate < 0:
            return numbers
        out, rates = numbers.copy(), self.rates[begin:end]
        out[self.rate] = rates[0] if (rates == rates[0]).all() else np.mean(rates**self.power) ** (1.0 / self.power)
        return out

    def _place(self, lengths: Floats) -> None:
        self._places = 0.5 + np.concatenate([[0.0], np.cumsum(lengths)])

    def at(self, step: int) -> float:
        """Where on the clock a step of the run ends."""
        return step + 0.5 if self._places is None else float(self._places[step])

    def places(self, steps: Integers) -> Floats:
        """Where on the clock these steps of the run end."""
        return steps.astype(np.float64) + 0.5 if self._places is None else self._places[steps]

    def end(self, step: int) -> float:
        """Where on the clock the stretch ends whose last step this is; infinity where nothing ends it."""
        return np.inf if self.open else self.at(step)

    def steps(self, clock: float) -> float:
        """How many steps are over at a place on the clock, parts of a step too."""
        if self._places is None:
            return clock - 0.5
        if not clock < self._places[-1]:
            return float(len(self._places) - 1) if clock < np.inf else np.inf
        n = int(np.searchsorted(self._places, clock, side="right"))  # the step that it lies in
        if n == 0:
            return 0.0
        before, after = self._places[n - 1], self._places[n]
        return n - 1 + float((clock - before) / (after - before))

    def stretches(self, done: int, until: int) -> Iterator[tuple[int, int, int, bool]]:
        """The stretches that steps done + 1 .. until fall into: `(number, last of these steps, last step, begins)`,
        where `begins` says that a new one begins here."""
        q = int(np.searchsorted(self.ends, done, side="right"))
        while done < until:
            end = int(self.ends[q])
            yield q, min(end, until), end, q > 0 and done == int(self.ends[q - 1])
            done = min(end, until)
            q += 1


def _beyond(rule: Rule, first: int, last: Floats, least: int, most: int, clock: bool) -> list[Floats]:
    """Rows (1, H + 1) of the steps from `first` on, behind a run whose last step has the numbers `last`: at least so
    many, then on to where the numbers change, at most so many; fewer where there is no further step.

    clock : whether the number of the step is one of those that change."""
    found: list[Floats] = []
    told = len(last) if clock else len(last) - 1
    for k in range(first, first + most):
        try:
            found.append(np.array([rule.numbers(k)]))
        except InputError:  # the schedule ends
            break
        if len(found) >= least and (found[-1][0, :told] != last[:told]).any():
            break
    return found
