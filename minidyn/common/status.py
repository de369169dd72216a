"""How a path ended, as a number and in words."""

from __future__ import annotations

from enum import EnumMeta, IntEnum


class _Members(EnumMeta):
    """What a whole number can do besides is nothing that an ending has to offer at the keyboard."""

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name not in dir(int) or name.startswith("_")]


class Status(IntEnum, metaclass=_Members):
    """How a path ended: a number, its `value`, with a `name`; `label` says it in words."""

    label: str

    def __new__(cls, value: int, label: str = "") -> Status:
        """A member from its number and its words."""
        status = int.__new__(cls, value)
        status._value_, status.label = value, label
        return status

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name.startswith("_")] + ["label", "name", "value"]

    FINISHED = 0, "finished"
    DIVERGED = 1, "diverged"
    LEFT_MANIFOLD = 2, "left the manifold"
    RANK_CHANGE = 3, "rank change"
    SOLVER_FAILED = 4, "solver failed"
    UNSTABLE = 5, "left the stable minima"
    SINGULAR = 6, "rule is singular"
    INTERRUPTED = 7, "interrupted"
    DRIVEN = 9, "left the minima that noise leaves stable"
    RESTLESS = 10, "rule comes to no rest"
    UNFORGETTING = 11, "rule rests at more than the minima"
    LAWLESS = 18, "oscillation without a stationary law"
    UNRESOLVED = 19, "noise too wide for the average"
    NO_ORBIT = 20, "no period-two orbit"
    PERIOD_FOUR = 21, "orbit of period four or longer"
    CHAOTIC = 22, "chaotic"
    STOPPED = 8, "stopped by its condition"
