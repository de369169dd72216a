"""The types of arrays in signatures, by names that `help` can show; a question that is often asked of little ones."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayLike", "Arrays", "Codes", "Floats", "Integers", "NDArray", "Truths", "Words", "all_of"]

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


def all_of(truths: Truths) -> bool:
    """`truths.all()`, without numpy's detour through Python, which takes longer than a little array."""
    return bool(np.count_nonzero(truths) == truths.size)
