"""How a flow is drawn, in plain data: the flow says so itself, so that it is the same one in every figure."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """How a system is drawn: apart in colour (for the colour-blind too), in grey, in line style and marker; 3:1 or more
    against white.

    colour : as in HTML.  dash : "-", or where a dashed line begins and how long its parts are.  width : of the line.
    marker : a letter of matplotlib's.
    """

    colour: str
    dash: Any
    width: float
    marker: str


ORANGE = Look("#f25c05", (0, (4, 1.6)), 1.7, "D")
GREEN = Look("#16a757", (0, (1.2, 1.2)), 1.9, "^")
PINK = Look("#c24aa2", (0, (6, 1.5, 1.2, 1.5)), 1.7, "s")
SKY = Look("#3b94d9", (0, (8, 2)), 1.7, "v")
VIOLET = Look("#8155ff", (0, (3, 1, 1, 1, 1, 1)), 1.7, "P")
OLIVE = Look("#7c9a12", (0, (2.5, 1)), 1.7, "X")
GREY = Look("#757985", (0, (10, 3)), 1.7, "<")
BROWN = Look("#8a6c5a", (0, (5, 1.2, 2.4, 1.2)), 1.9, "p")
PALETTE = (
    ORANGE,
    GREEN,
    PINK,
    SKY,
    VIOLET,
    OLIVE,
    GREY,
    BROWN,
)  # a flow that says nothing takes the first that is free
