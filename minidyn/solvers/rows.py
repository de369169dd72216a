"""Where each number of an integration under way stands in its row: one row per path, all floats."""

from enum import IntEnum

NOTHING, EXPLICIT, IMPLICIT = 0.0, 1.0, 2.0  # what made a step


class At(IntEnum):
    """Places in a row."""

    NOW = 0  # the clock
    H = 1  # the step size to try next; 0 before the first step
    PAST = 2  # where the last step began
    SPAN = 3  # how long it was
    LATEST = 4  # what made it: `NOTHING`, `EXPLICIT` or `IMPLICIT`
    STIFF = 5  # signs of stiffness (explicit), or of its end (implicit)
    DENSE = 6  # whether the extra stages of dense output are there
    STEADY = 7  # whether the last attempt was rejected
    ERROR = 8  # the implicit method's last error, and the step size it belongs to
    ERROR_H = 9
    MODE = 10  # which method goes on: 0 an explicit one, 1 the implicit one
    ATTEMPTS = 11
    JACOBIANS = 12
    CRAWL = 13  # steps in a row that hardly moved the clock
    FRESH = 14  # whether the last slope that is kept belongs to the point: 0 where the point was put back far
    FASTEST = 15  # the rate of the fastest mode that was seen of late (explicit)


SIZE = len(At)
