"""How a path ended, as a number and in words."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """How a path ended."""

    FINISHED = 0
    DIVERGED = 1
    LEFT_MANIFOLD = 2
    RANK_CHANGE = 3
    SOLVER_FAILED = 4
    UNSTABLE = 5
    SINGULAR = 6
    INTERRUPTED = 7
    DRIVEN = 9
    RESTLESS = 10
    UNFORGETTING = 11
    LAWLESS = 18
    UNRESOLVED = 19
    NO_ORBIT = 20
    PERIOD_FOUR = 21
    CHAOTIC = 22
    STOPPED = 8

    @property
    def label(self) -> str:
        """The status in words."""
        return _LABELS[self]


_LABELS = {
    Status.FINISHED: "finished",
    Status.DIVERGED: "diverged",
    Status.LEFT_MANIFOLD: "left the manifold",
    Status.RANK_CHANGE: "rank change",
    Status.SOLVER_FAILED: "solver failed",
    Status.UNSTABLE: "left the stable minima",
    Status.SINGULAR: "rule is singular",
    Status.INTERRUPTED: "interrupted",
    Status.DRIVEN: "left the minima that noise leaves stable",
    Status.RESTLESS: "rule comes to no rest",
    Status.UNFORGETTING: "rule rests at more than the minima",
    Status.LAWLESS: "oscillation without a stationary law",
    Status.UNRESOLVED: "noise too wide for the average",
    Status.NO_ORBIT: "no period-two orbit",
    Status.PERIOD_FOUR: "orbit of period four or longer",
    Status.CHAOTIC: "chaotic",
    Status.STOPPED: "stopped by its condition",
}
