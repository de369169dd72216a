"""The types of arrays in signatures."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ArrayLike", "Arrays", "Codes", "Floats", "Integers", "NDArray", "Truths", "Words"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Codes = NDArray[np.int8]
Truths = NDArray[np.bool_]
Words = NDArray[np.uint64]
Arrays = dict[str, NDArray[Any]]
