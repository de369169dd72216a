"""Where runs end: ends that lie together are one place, and how rough the border between places is.

Ends are put into cells as wide as two of them may lie apart; cells that touch, also at their corners, belong together.
Source of the dimension: Grebogi, McDonald, Ott, Yorke (1983); McDonald, Grebogi, Ott, Yorke (1985).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats, Integers, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError

_SIZES = 10.0 ** -np.arange(2.0, 6.1, 0.5)  # of boxes, as parts of the window
_FEW = 20  # mixed boxes, below which a size says too little
_CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


@dataclass(frozen=True, eq=False)
class BoxDimension(ByValue):
    """The box-counting dimension of a border in the plane: it runs through `N(s) ~ s^-dimension` boxes of side s.

    dimension, error : the exponent, fitted to the smaller two thirds of the sizes, and its standard error; it grows
        where the points are no straight line.
    sizes : of boxes, as parts of the window.  mixed : the part of the boxes of each size whose corners have several
        labels, `N(s) s^2`.  boxes : how many of each size were looked at.
    """

    dimension: float
    error: float
    sizes: Floats
    mixed: Floats
    boxes: int

    def __str__(self) -> str:
        return f"{self.dimension:.3f} ± {self.error:.3f}"


def box_dimension(
    label: Callable[[Floats], NDArray[Any]], low: Floats, high: Floats, boxes: int, rng: np.random.Generator
) -> BoxDimension:
    """The dimension of the border between the labels (N,) of points (N, 2) in the window from `low` to `high`.

    Boxes of each size lie anywhere in the window, so their part that is mixed is that of all of them, with the error of
    a binomial count. Sizes go down from a hundredth of the window to a millionth, or to where the border is rarely met:
    so far down a picture, whose points are as far apart as the threads that it should show, does not reach.

    Raises InputError where the border is met at less than three sizes.
    """
    seen: list[float] = []
    for size in _SIZES:
        corners = rng.uniform(0.0, 1.0 - size, (boxes, 1, 2)) + size * _CORNERS
        labels = label((low + (high - low) * corners).reshape(-1, 2)).reshape(boxes, 4)
        count = int((labels != labels[:, :1]).any(axis=1).sum())
        if count < _FEW:
            break
        seen.append(count / boxes)
    if len(seen) < 3:
        raise InputError(
            f"the border is met by less than {_FEW} of {boxes:,} boxes of {_SIZES[len(seen)]:.2g} of the window: it is "
            "short or there is none; take a smaller window, or more boxes."
        )
    sizes, mixed = _SIZES[: len(seen)].copy(), np.array(seen)
    finest = slice(min(len(seen) // 3, len(seen) - 3), None)
    x, y, part = np.log(sizes[finest]), np.log(mixed[finest]), mixed[finest]
    weights = np.sqrt(boxes * part / np.maximum(1.0 - part, 1.0 / boxes))  # one over the errors of y
    design = weights[:, None] * np.stack([np.ones_like(x), x], axis=1)
    found, *_ = np.linalg.lstsq(design, weights * y)
    misfit = ((design @ found - weights * y) ** 2).sum() / (len(x) - 2)
    error = np.sqrt(np.linalg.inv(design.T @ design)[1, 1] * max(1.0, misfit))
    return BoxDimension(float(2.0 - found[1]), float(error), sizes, mixed, boxes)


def gathered(ends: Floats, apart: float) -> tuple[NDArray[np.intp], int]:
    """Of ends (N, F), the place that each belongs to (N,), and how many places there are."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    cells, which = _cells(np.floor(ends / apart).astype(np.int64))
    pairs = cKDTree(cells).query_pairs(1.5, p=np.inf, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(cells), len(cells)))
    count, place = connected_components(links, directed=False)
    return place[which], int(count)


def _cells(cells: Integers) -> tuple[Integers, NDArray[np.intp]]:
    """The different rows (M, F), and which of them each of (N, F) is."""
    shifted = cells - cells.min(axis=0)
    spans = [int(s) + 1 for s in shifted.max(axis=0)]
    if np.prod([float(s) for s in spans]) < 2.0**62:  # rows as one number each, which is sorted far quicker
        keys, which = np.unique(np.ravel_multi_index(tuple(shifted.T), spans), return_inverse=True)
        return np.stack(np.unravel_index(keys, spans), axis=1), which.ravel()
    rows, which = np.unique(shifted, axis=0, return_inverse=True)
    return rows, which.ravel()
