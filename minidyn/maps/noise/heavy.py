"""Noise with heavy tails in the gradient, `g + sigma z`: Student's and the stable laws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from minidyn.common.arrays import NDArray
from minidyn.common.errors import InputError
from minidyn.common.intake import between, shown
from minidyn.maps.noise.additive import Additive
from minidyn.maps.noise.base import Option
from minidyn.maps.noise.draws import NORMAL, Law
from minidyn.maps.noise.gaussian import brief, entries

if TYPE_CHECKING:
    from minidyn.maps.loss import Loss

_LEAST = 0.1  # below it numbers of these laws are no doubles any more


class _Heavy(Additive):
    """A law whose numbers have the standard deviation `width` where they have one, infinite where they do not."""

    sigma: Any

    @property
    def width(self) -> float:
        """The standard deviation of a number, or infinity."""
        raise NotImplementedError

    def entries(self, loss: Loss) -> NDArray[Any]:
        """sigma, by the standard deviation of a number where there is one: those of `law` have variance 1 then."""
        given = super().entries(loss)
        return np.asarray(given * self.width, dtype=object) if math.isfinite(self.width) else given

    @property
    def _without(self) -> str:
        return "" if math.isfinite(self.width) else f"{self!r} has no variance, which is needed here"

    @property
    def no_covariance(self) -> str:  # type: ignore[override]
        """Why flows refuse it, where it has no variance."""
        return self._without and self._without + "; simulate the map, or use a gradient or modified flow."

    @property
    def no_response(self) -> str:  # type: ignore[override]
        """Why there is no linear stability under it."""
        return self._without and self._without + "; the map without it has a linear stability."


@dataclass(frozen=True, eq=False, repr=False)
class StudentNoise(_Heavy):
    """`g + sigma z` with independent `z` of Student's law with `df` degrees of freedom, fresh every step.

    The density of `z` falls as `|z|^-(df + 1)`; its variance is `df/(df - 2)` for `df > 2`, and infinite below, where
    all that needs one refuses it. `df = 1` is Cauchy's law. `sigma`, the scale, is as for `GaussianNoise`.

    df : at least 0.1.  Raises InputError. Numbers are drawn as by Bailey (1994).

    >>> import minidyn as md
    >>> md.StudentNoise(3, 0.1)
    StudentNoise(3, 0.1)
    """

    _offers = "df sigma"
    df: float
    sigma: Any

    key: ClassVar[str] = "student"
    options: ClassVar[dict[str, Option]] = {"df": Option("number"), "sigma": Option("expressions")}

    def __post_init__(self) -> None:
        object.__setattr__(self, "df", _shape(self.df, "the degrees of freedom", math.inf))
        object.__setattr__(self, "sigma", entries(self.sigma))

    @property
    def width(self) -> float:
        """`sqrt(df/(df - 2))`."""
        return math.sqrt(self.df / (self.df - 2.0)) if self.df > 2.0 else math.inf

    @property
    def law(self) -> Law:  # type: ignore[override]
        """Of variance 1 where there is one."""
        square = self.df - 2.0 if self.df > 2.0 else self.df
        excess = 6.0 / (self.df - 4.0) if self.df > 4.0 else math.inf
        return Law(f"student(word, more, {1.0 / self.df!r}, {square!r})", excess, words=2)

    def law_of(self, letter: str) -> str:
        """Student's law of scale 1."""
        return rf"{letter} \sim t_{{{self.df:g}}}"

    def __repr__(self) -> str:
        return f"StudentNoise({self.df:g}, {brief(self.sigma)})"


@dataclass(frozen=True, eq=False, repr=False)
class StableNoise(_Heavy):
    """`g + sigma z` with independent `z` of the stable law `E exp(i u z) = exp(-|u|^alpha)`, fresh every step.

    The density of `z` falls as `|z|^-(alpha + 1)` for `alpha < 2`, where there is no variance, and all that needs one
    refuses it; `alpha = 1` is Cauchy's law, `alpha = 2` the normal one of variance 2. `sigma`, the scale, is as for
    `GaussianNoise`.

    alpha : from 0.1 to 2.  Raises InputError. Numbers are drawn as by Chambers, Mallows and Stuck (1976).

    >>> import minidyn as md
    >>> md.StableNoise(1.5, 0.1)
    StableNoise(1.5, 0.1)
    """

    _offers = "alpha sigma"
    alpha: float
    sigma: Any

    key: ClassVar[str] = "stable"
    options: ClassVar[dict[str, Option]] = {"alpha": Option("number"), "sigma": Option("expressions")}

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _shape(self.alpha, "alpha", 2.0))
        object.__setattr__(self, "sigma", entries(self.sigma))

    @property
    def width(self) -> float:
        """`sqrt(2)` for alpha = 2."""
        return math.sqrt(2.0) if self.alpha == 2.0 else math.inf

    @property
    def law(self) -> Law:  # type: ignore[override]
        """The normal one for alpha = 2."""
        return NORMAL if self.alpha == 2.0 else Law(f"stable(word, more, {self.alpha!r})", math.inf, words=2)

    def law_of(self, letter: str) -> str:
        """The stable law of scale 1."""
        return rf"\mathrm{{E}} \exp(i u {letter}) = \exp(-|u|^{{{self.alpha:g}}})"

    def __repr__(self) -> str:
        return f"StableNoise({self.alpha:g}, {brief(self.sigma)})"


def _shape(value: Any, name: str, most: float) -> float:
    """A number from 0.1 to `most` that is finite, or an InputError."""
    out = between(value, name, 0, math.inf)
    if not _LEAST <= out <= most:
        until = "at least 0.1" if most == math.inf else f"from 0.1 to {most:g}"
        raise InputError(f"{name} must be {until}, not {shown(value)}.")
    return out
