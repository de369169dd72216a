"""The types of arrays in signatures, by names that `help` can show."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayLike", "Arrays", "Codes", "Floats", "Integers", "NDArray", "Truths", "Words"]

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Codes = NDArray[np.int8]
    Truths = NDArray[np.bool_]
    Words = NDArray[np.uint64]
    Arrays = dict[str, NDArray[Any]]
else:  # numpy's own take six lines of a signature
    for _name in ("ArrayLike", "Floats", "Integers", "Codes", "Truths", "Words", "Arrays"):
        globals()[_name] = type(_name, (), {"__module__": __name__})
