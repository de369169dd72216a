"""Numbers so large that their squares and sums are none."""

import math

import numpy as np

from minidyn.common.arrays import Floats

_LARGE = 1e150  # the square of what is smaller is a number


def unit_of(v: Floats) -> float:
    """A power of two, 1 for most, beside which finite values have squares and sums that numbers hold; to the same bits.

    >>> import numpy as np
    >>> v = np.array([1e300, -1e300])
    >>> unit = unit_of(v)
    >>> unit_of(v * 1e-200), float(unit * (v / unit).std())
    (1.0, 1e+300)
    """
    size = float(np.abs(v).max(initial=0.0))
    return 1.0 if size < _LARGE else 2.0 ** (math.frexp(size)[1] - 1)
