"""Where each number of an integration under way stands in its row: one row per path, all floats."""

from __future__ import annotations

NOW = 0  # the clock
H = 1  # the step size to try next; 0 before the first step
PAST = 2  # where the last step began
SPAN = 3  # how long it was
LATEST = 4  # what made it: 0 none, 1 an explicit method, 2 the implicit one
FRESH = 5  # whether the last slope is that of the current point
STIFF = 6  # signs of stiffness (explicit), or of its end (implicit)
DENSE = 7  # whether the extra stages of dense output are there
STEADY = 8  # whether the last attempt was rejected
ERROR = 9  # the implicit method's last error, and the step size it belongs to
ERROR_H = 10
MODE = 11  # 0 explicit, 1 implicit
ATTEMPTS = 12
JACOBIANS = 13
CRAWL = 14  # steps in a row that hardly moved the clock
SIZE = 15
