"""How a flow is drawn, in plain data: the flow says so itself, so that it is the same one in every figure."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """How a system is drawn: apart in colour, in grey and in line style.

    colour : as in HTML.  dash : "-", or where a dashed line begins and how long its parts are.  width : of the line.
    marker : a letter of matplotlib's.
    """

    colour: str
    dash: Any
    width: float
    marker: str


ORANGE = Look("#f08c00", (0, (4, 1.6)), 1.7, "D")
GREEN = Look("#0fae84", (0, (1.2, 1.2)), 1.9, "^")
PINK = Look("#d36ba6", (0, (6, 1.5, 1.2, 1.5)), 1.7, "s")
SKY = Look("#62bdea", (0, (8, 2)), 1.7, "v")
VIOLET = Look("#9d7bea", (0, (3, 1, 1, 1, 1, 1)), 1.7, "P")
OLIVE = Look("#b5a300", (0, (2.5, 1)), 1.7, "X")
GREY = Look("#8a8f98", (0, (10, 3)), 1.7, "<")
PALETTE = (ORANGE, GREEN, PINK, SKY, VIOLET, OLIVE, GREY)  # a flow that says nothing takes the first that is free
