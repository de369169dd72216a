"""Words that compiled code reads in its own way; in plain Python they mean nearly nothing."""

from typing import Any, ClassVar

lanes = side_by_side = range  # in compiled code: several turns at once


def some(condition: Any) -> Any:
    """Whether a condition holds in one of the lanes that run side by side, so that all may branch on it."""
    return condition


def across(s: Any, at: int) -> Any:
    """The sum of eight numbers from s[at], in a fixed order that suits machines with vectors."""
    low = (s[at] + s[at + 4]) + (s[at + 2] + s[at + 6])
    return low + ((s[at + 1] + s[at + 5]) + (s[at + 3] + s[at + 7]))


def horner(x: Any, coefficients: tuple[float, ...]) -> Any:
    """`(((c_0 x + c_1) x + ...) x + c_n`: a macro, for a variable x and numbers that stand in brackets there."""
    out, *rest = coefficients
    for c in rest:
        out = out * x + c
    return out


class Known:
    """A whole number that a function is compiled for, like the types of its other arguments; one object for each."""

    __slots__ = ("value",)
    _made: ClassVar[dict[int, "Known"]] = {}
    value: int

    def __new__(cls, value: int) -> "Known":
        """The object for this number."""
        if value not in cls._made:
            made = super().__new__(cls)
            made.value = value
            return cls._made.setdefault(value, made)
        return cls._made[value]

    def __reduce__(self) -> tuple[type["Known"], tuple[int]]:
        return Known, (self.value,)

    def __repr__(self) -> str:
        return f"Known({self.value})"
