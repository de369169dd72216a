"""A permutation of the samples each epoch, batch after batch."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minidyn.common.arrays import Floats, NDArray
from minidyn.maps.noise.sampling import Sampling, few, subsets


@dataclass(frozen=True, eq=False, repr=False)
class Reshuffle(Sampling):
    """Each epoch visits a fresh permutation of the samples, `batch` at a time (the last may be smaller).

    >>> import minidyn as md
    >>> md.Reshuffle(4)
    Reshuffle(4)
    """

    _offers = "batch sampling"
    batch: int

    key: ClassVar[str] = "reshuffle"
    sampling: ClassVar[Any] = "reshuffle"
    shuffles: ClassVar[bool] = True
    no_covariance: ClassVar[str] = (
        "random reshuffling has no covariance per step: its steps depend on each other; "
        "use minibatches for the flow (sampling without replacement within a step)."
    )
    no_response: ClassVar[str] = (
        "with random reshuffling steps depend on each other, so there is no second-moment operator per step; "
        "use minibatches, sampled without replacement within a step."
    )

    def weight(self, size: Any, n: int) -> Any:
        """That of an epoch's mean, per step: its batches add up to all samples, but where the last one is smaller."""
        last = n % size
        return (1 / last - 1 / size) ** 2 * last * (n - last) / ((n - 1) * (n // size + 1)) if last else 0 * size

    def choices(self, n: int, most: int) -> list[tuple[NDArray[Any], Floats, bool]]:
        """Any step of an epoch: the last one may see fewer samples."""
        full, last = divmod(n, self.batch)
        sizes = [(self.batch, full)] * bool(full) + [(last, 1)] * bool(last)
        return [subsets(n, size, most, times / (full + bool(last))) for size, times in sizes]

    @property
    def words(self) -> str:
        """The next ones in the epoch's order."""
        return f"the next {few(self.batch)} of the samples, in an order that is fresh every epoch"

    def lines(self) -> list[str]:
        """A permutation at the first step of an epoch, of which every step takes the next part."""
        batch = self.batch
        return [
            f"epoch = (n + {batch - 1}) // {batch}",
            "turn = (k - 1) % epoch",
            "if turn == 0:",
            "    for q in range(n * 64):",
            "        order[q] = q // 64",
            "    shuffle(r, order, n, n)",
            f"size = min({batch}, n - turn * {batch})",
            "for q in range(size * 64):",
            f"    index[q] = order[turn * {batch} * 64 + q]",
        ]

    def __repr__(self) -> str:
        return f"Reshuffle({self.batch})"
