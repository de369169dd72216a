"""Numbers of sympy as doubles."""

import math

import sympy as sp

from minidyn.common.errors import ExpressionError
from minidyn.graph.walk import printed


def double(e: sp.Basic) -> float:
    """The double next to a number."""
    try:
        number = float(e)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (number == 0.0 and e != 0):
        what = "too small a number for" if number == 0.0 else "not a finite number of"
        raise ExpressionError(f"the expression contains {printed(e)}, which is {what} double precision.")
    return number
