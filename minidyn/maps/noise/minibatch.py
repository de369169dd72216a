"""The mean of a fresh choice of samples per step, without or with replacement."""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, factorial, prod
from typing import Any, ClassVar

import numpy as np

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.intake import flag
from minidyn.maps.noise.base import Option, Part
from minidyn.maps.noise.sampling import Sampling

_FEW = 12  # up to this many samples are picked without a permutation in memory


@dataclass(frozen=True, eq=False, repr=False)
class Minibatch(Sampling):
    """Each step sees the mean over `batch` samples: a fresh subset, or independent draws (`replace=True`).

    >>> import minidyn as md
    >>> md.Minibatch(4)
    Minibatch(4)
    """

    _offers = "batch replace sampling"
    batch: int
    replace: bool = False

    key: ClassVar[str] = "minibatch"
    options: ClassVar[dict[str, Option]] = {"batch": Option("batch"), "replace": Option("flag", False)}

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(self.replace, "replace")

    @property
    def sampling(self) -> str:
        """ "with" or "without" replacement."""
        return "with" if self.replace else "without"

    def lines(self) -> list[str]:
        """Small batches compare their few samples; larger ones shuffle a permutation."""
        size = f"size = {self.batch}"
        if self.replace:
            return [size, "with_replacement(r, index, size, n)"]
        if self.batch <= _FEW:
            return [size, "few_without_replacement(r, index, size, n)"]
        return [size, "without_replacement(r, index, order, size, n)"]

    def weight(self, size: Any, n: int) -> Any:
        """With replacement `1/B`, however many samples there are."""
        return 1 / size if self.replace else super().weight(size, n)

    def size_for(self, kappa: float, n: int) -> float:
        """With replacement `1/kappa`."""
        if not self.replace:
            return super().size_for(kappa, n)
        return 1 / kappa if kappa > 0 else np.inf

    def choices(self, n: int, most: int) -> list[tuple[NDArray[Any], Floats, bool]]:
        """With replacement batches in which samples may be there more than once."""
        size = self.batch
        if not self.replace:
            return super().choices(n, most)
        if comb(n + size - 1, size) > most:
            drawn = np.random.default_rng(0).integers(0, n, (most, size))
            return [(drawn, np.full(most, 1 / most), False)]
        rows = np.array([*combinations_with_replacement(range(n), size)], np.int64)
        orders = [factorial(size) // prod(map(factorial, np.unique(r, return_counts=True)[1].tolist())) for r in rows]
        return [(rows, np.array([ways / n**size for ways in orders]), True)]

    def moments(self, n: int) -> tuple[float, float, float]:
        """With replacement those of B independent samples."""
        size = self.batch
        return (1 / size**2, 1 / size**3, (size - 1) / size**3) if self.replace else super().moments(n)

    def skews(self, n: int) -> bool:
        """With replacement always."""
        return self.replace or super().skews(n)

    def among(self, parts: tuple[Part, ...]) -> str:
        """Nothing beside labels, which are those of the batch, unless samples come back."""
        return "" if not self.replace and any(p.sets == "label_std" for p in parts) else repr(self)

    def __repr__(self) -> str:
        return f"Minibatch({self.batch}{', replace=True' if self.replace else ''})"
