"""Where runs end: ends that lie together are one place, and how rough the border between places is.

Ends are put into cells as wide as two of them may lie apart; cells that touch, also at their corners, belong together.
Source of the dimension: Grebogi, McDonald, Ott, Yorke (1983); McDonald, Grebogi, Ott, Yorke (1985).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats, Integers, NDArray, Truths
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError

_SIZES = 10.0 ** -np.arange(2.0, 6.1, 0.5)  # of boxes, as parts of the window
_FEW = 20  # mixed boxes, below which a size says too little
_COARSE = 64  # cells along a side of the window, in which the border is looked for first
_WIDER = 4  # times the cells in which it is found are those in which it is looked for
_NEAR = 0.8  # of the boxes are laid near the border
_NEIGHBOURS = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)
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

    Boxes of each size lie anywhere in the window, most of them in cells near the border; weighted by how rare they are
    there, their part that is mixed is that of all boxes, whatever the cells (importance sampling), with the error of a
    mean. Sizes go down from a hundredth of the window to a millionth, or to where the border is rarely met: so far down
    a picture, whose points are as far apart as the threads that it should show, does not reach.

    Raises InputError where the border is met at less than three sizes.
    """

    def mixed(corners: Floats) -> Truths:
        labels = label((low + (high - low) * corners).reshape(-1, 2)).reshape(-1, 4)
        return np.asarray((labels != labels[:, :1]).any(axis=1))

    cells, side = _near_border(mixed, boxes)
    share = _NEAR if len(cells) else 0.0
    seen: list[tuple[float, float]] = []
    for size in _SIZES:
        points, weights = _spread(cells, side, share, boxes, rng)
        met = mixed((1.0 - size) * points[:, None] + size * _CORNERS)
        if met.sum() < _FEW:
            break
        values = np.where(met, weights, 0.0)
        part = float(values.mean())
        seen.append((part, max(float(values.var()) / boxes / part**2, 1.0 / (boxes**2 * part))))
    if len(seen) < 3:
        raise InputError(
            f"the border is met by less than {_FEW} of {boxes:,} boxes of {_SIZES[len(seen)]:.2g} of the window: it is "
            "short or there is none; take a smaller window, or more boxes."
        )
    sizes, (parts, squares) = _SIZES[: len(seen)].copy(), np.array(seen).T
    finest = slice(min(len(seen) // 3, len(seen) - 3), None)
    x, y = np.log(sizes[finest]), np.log(parts[finest])
    weights = 1.0 / np.sqrt(squares[finest])  # one over the errors of y
    design = weights[:, None] * np.stack([np.ones_like(x), x], axis=1)
    found, *_ = np.linalg.lstsq(design, weights * y)
    misfit = ((design @ found - weights * y) ** 2).sum() / (len(x) - 2)
    error = np.sqrt(np.linalg.inv(design.T @ design)[1, 1] * max(1.0, misfit))
    return BoxDimension(float(2.0 - found[1]), float(error), sizes, parts.copy(), boxes)


def _near_border(mixed: Callable[[Floats], Truths], boxes: int) -> tuple[Integers, int]:
    """Cells (M, 2) of the window near its border, by their places, and how many lie along a side.

    Those with several labels at their corners and their neighbours are halved as long as that takes no more than
    `boxes` cells; cells some times as wide hold what corners miss beside them, as of a rough graph."""
    side = _COARSE
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    while True:
        found = cells[mixed((cells[:, None] + _CORNERS) / side)]
        around = (found[:, None] + _NEIGHBOURS).reshape(-1, 2)
        near = np.unique(around[((around >= 0) & (around < side)).all(axis=1)], axis=0)
        if not 0 < 4 * len(near) <= boxes:
            return np.unique(near // _WIDER, axis=0), side // _WIDER
        side *= 2
        cells = (2 * near[:, None] + _CORNERS.astype(np.int64)).reshape(-1, 2)


def _spread(cells: Integers, side: int, share: float, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Points (count, 2) of the unit square, about so large a share of them in these cells, the others anywhere; and by
    what each counts, so that means over them are means over the square."""
    points = rng.uniform(0.0, 1.0, (count, 2))
    if not len(cells):
        return points, np.ones(count)
    moved = rng.uniform(0.0, 1.0, count) < share
    points[moved] = (cells[rng.integers(0, len(cells), int(moved.sum()))] + points[moved]) / side
    inside = np.isin(np.floor(points * side).astype(np.int64) @ [side, 1], cells @ [side, 1])
    return points, 1.0 / (1.0 - share + np.where(inside, share * side**2 / len(cells), 0.0))


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
