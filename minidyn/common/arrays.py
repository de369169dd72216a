"""The types of arrays in signatures."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ArrayLike", "Floats", "NDArray"]

Floats = NDArray[np.float64]
