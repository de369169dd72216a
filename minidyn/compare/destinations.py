"""Where runs end: ends that lie together are one place, and how rough the border between places is.

Ends are put into cells as wide as two of them may lie apart; cells that touch, also at their corners, belong together.
Source of the dimension: Grebogi, McDonald, Ott, Yorke (1983); McDonald, Grebogi, Ott, Yorke (1985).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from minidyn.common.arrays import Floats, Integers, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError

_FINE, _COARSE = 2, 12  # boxes in grid spacings: the smallest that is fitted, and how many of the largest fit a side
_BETWEEN = 1.4  # one size of a box over the one before


@dataclass(frozen=True, eq=False)
class BoxDimension(ByValue):
    """The box-counting dimension of a border: `N(s) ~ s^(-dimension)`.

    dimension, error : the fitted exponent and its error, one standard deviation: that of the fit, and half of what fits
        to the smaller and to the larger boxes differ by.
    sizes, counts : boxes, in grid spacings, and how many of that size hold several labels, mean over where they begin.
    """

    dimension: float
    error: float
    sizes: Integers
    counts: Floats

    def __str__(self) -> str:
        return f"{self.dimension:.3f} ± {self.error:.3f}"


def box_dimension(labels: NDArray[Any]) -> BoxDimension:
    """The dimension of the border between the labels (n, m) of a grid of equally wide spacings.

    A box of size s covers s + 1 points a side, and is counted where these have several labels. The mean over all places
    where boxes may begin is taken, so that counts are smooth.

    Raises InputError where the grid has less than 64 points a side, or there is no border.
    """
    side = min(labels.shape) - 1
    if side < 63:
        raise InputError(f"a grid of {' x '.join(map(str, labels.shape))} starts is too coarse for a dimension; take 64.")
    steps = np.log(side / _COARSE / _FINE) / np.log(_BETWEEN)
    sizes = np.unique(np.round(_FINE * _BETWEEN ** np.arange(int(steps) + 1))).astype(np.int64)
    counts = np.array([_mixed(labels, int(s)) * (labels.size / s**2) for s in sizes])
    if not counts.all():
        raise InputError("all starts have one label: there is no border whose dimension could be measured.")
    x, y = -np.log(sizes), np.log(counts)
    half = len(x) // 2
    slopes = [float(np.polyfit(x[part], y[part], 1)[0]) for part in (slice(None), slice(half + 1), slice(half, None))]
    rest = y - np.polyval(np.polyfit(x, y, 1), x)
    scatter = float(np.sqrt((rest**2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum()))
    return BoxDimension(slopes[0], float(np.hypot(scatter, 0.5 * (slopes[1] - slopes[2]))), sizes, counts)


def _mixed(labels: NDArray[Any], size: int) -> float:
    """The part of the boxes of `size + 1` points a side, wherever they begin, that have several labels."""
    low, high = labels, labels
    for axis in (0, 1):
        low = minimum_filter1d(low, size + 1, axis=axis)
        high = maximum_filter1d(high, size + 1, axis=axis)
    before, after = (size + 1) // 2, size - (size + 1) // 2  # of the point that a window is kept at
    inside = (slice(before, -after or None),) * 2
    return float((low != high)[inside].mean())


def gathered(ends: Floats, apart: float) -> tuple[NDArray[np.intp], int]:
    """Of ends (N, F), the place that each belongs to (N,), and how many places there are."""
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
