"""A claim: a number with its error beside the range that a theory or a paper gives for it, and what follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, said
from minidyn.common.intake import finite, number, ordered, shown
from minidyn.common.reports import Report, Reported, Table, digits

ERRORS = 3.0  # standard errors to either side of what was measured that have to agree
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


@dataclass(frozen=True, eq=False, repr=False)
class Claim(Reported, ByValue):
    """What a study states: `measured` lies between `low` and `high`.

    name : what is measured, a short phrase.  measured : the number.  error : its standard error, 0 where nothing is
    random.  low, high : the range in which it has to lie, infinite where one end is open.  source : where that is
    from, author, year and equation, or "minidyn".  published : the number that the source has where it is not what is
    claimed, since it does not hold; None otherwise.

    >>> import minidyn as md
    >>> md.study("docs").claim("growth", 1.75, 0.01, (1.7, 1.8), "Wu, Ma, E 2018").verdict
    'holds'
    """

    name: str
    measured: float
    error: float
    low: float
    high: float
    source: str
    published: float | None = None

    @property
    def verdict(self) -> str:
        """`holds` where three standard errors to both sides of what was measured lie inside the range (and away from
        what was published, if that is given), `fails` where they lie outside, else `undecided`: measure longer."""
        if not math.isfinite(self.measured):
            return FAILS
        room = ERRORS * self.error
        below, above = self.measured - room, self.measured + room
        if above < self.low or below > self.high:
            return FAILS
        apart = self.published is None or not below <= self.published <= above
        return HOLDS if self.low <= below and above <= self.high and apart else UNDECIDED

    def expected(self) -> str:
        """The range in words.

        >>> Claim("a", 1.0, 0.0, 0.9, 1.1, "b").expected(), Claim("a", 1.0, 0.0, 0.9, math.inf, "b").expected()
        ('1 ± 0.1', '>= 0.9')
        """
        low, high = self.low, self.high
        if low == -math.inf:
            return f"<= {digits(high, 4)}"
        if high == math.inf:
            return f">= {digits(low, 4)}"
        middle, half = (low + high) / 2, (high - low) / 2
        around, ends = f"{digits(middle, 6)} ± {digits(half, 2)}", f"{digits(low, 4)} to {digits(high, 4)}"
        exact = all(
            abs(float(f"{value:.{count}g}") - value) < 1e-9 * max(abs(low), abs(high))
            for value, count in ((middle, 6), (half, 2))
        )
        return digits(middle, 6) if low == high else around if exact and len(around) <= len(ends) else ends

    def row(self) -> list[str]:
        """Its row in a table: name, measured, expected, source, verdict."""
        seen = digits(self.measured, 5) + (f" ± {digits(self.error, 2)}" if self.error else "")
        source = self.source if self.published is None else f"{self.source}, there {digits(self.published, 4)}"
        return [self.name, source, seen, self.expected(), self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """What stands in a report; open ends are null."""
        ends = {end: value if math.isfinite(value) else None for end, value in (("low", self.low), ("high", self.high))}
        seen = self.measured if math.isfinite(self.measured) else None
        return asdict(self) | ends | {"measured": seen, "verdict": self.verdict}

    def _report(self) -> Report:
        return [table_of([self])]


def claim_of(
    name: str, measured: Any, error: Any, expected: Any, source: str, within: Any = None, published: Any = None
) -> Claim:
    """The claim that a study states, its numbers read: `expected` is a range, or a number with `within`."""
    for value, what in ((name, "name"), (source, "source")):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{said(what)} of a claim is a short text, not {shown(value)}.")
    spread = finite(error, "error")
    if spread < 0:
        raise InputError(f"error is {shown(error)}; a standard error is 0 or more.")
    low, high = _range(expected, within)
    there = None if published is None else finite(published, "published")
    if there is not None and low <= there <= high:
        raise InputError(f"published is {shown(published)}, which is expected; it is given where it does not hold.")
    return Claim(name.strip(), _measured(measured), spread, low, high, source.strip(), there)


def _measured(value: Any) -> float:
    """What was measured; that there is no number is a result, which fails."""
    try:
        return number(value, "measured")
    except InputError:
        if isinstance(value, float) and not math.isfinite(value):
            return value
        raise


def _range(expected: Any, within: Any) -> tuple[float, float]:
    if not isinstance(expected, (tuple, list)):
        if within is None:
            raise InputError(
                "expected is a number and needs within=, how far from it the claim still holds; or give a range, "
                "such as (0.9, 1.1) or (2, None)."
            )
        middle, half = finite(expected, "expected"), finite(within, "within")
        if half < 0:
            raise InputError(f"within is {shown(within)}; it must be 0 or more.")
        return middle - half, middle + half
    if within is not None:
        raise InputError("within= goes with a number as expected, not with a range.")
    ends = ordered(expected, "expected")
    if len(ends) != 2 or ends == [None, None]:
        raise InputError(f"expected is a number or a range (low, high), not {shown(expected)}.")
    low = -math.inf if ends[0] is None else finite(ends[0], "expected")
    high = math.inf if ends[1] is None else finite(ends[1], "expected")
    if low > high:
        raise InputError(f"expected is {shown(expected)}; the low end of a range comes first.")
    return low, high


def claim_in(record: Mapping[str, Any]) -> Claim:
    """The claim that `as_dict` made, for reports that were read."""
    values = {key: record[key] for key in ("name", "error", "source", "published")}
    low, high, seen = (record[key] for key in ("low", "high", "measured"))
    return Claim(
        measured=math.nan if seen is None else seen,
        low=-math.inf if low is None else low,
        high=math.inf if high is None else high,
        **values,
    )


def table_of(claims: list[Claim], sources: bool = True) -> Table:
    """Claims as a table, with or without where they are from."""
    rows = [["claim", "source", "measured", "expected", "verdict"], *(claim.row() for claim in claims)]
    return Table(rows, 2) if sources else Table([[name, *rest] for name, _, *rest in rows])
