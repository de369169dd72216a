"""Kinks of a loss that lie on its minima: there neither side's curvature is the answer, nor the mean of the two."""

from functools import lru_cache

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats
from minidyn.graph import walk
from minidyn.maps.loss import Loss

_KINKED = (sp.Abs, sp.Min, sp.Max, sp.Piecewise, sp.Heaviside, sp.sign, sp.floor, sp.ceiling, sp.Mod)
_NEAR = 1e-5  # how far on both sides of w it is looked, against the size of the parameters
_SEEN = 1e-6  # what a jump must be of the curvature


@lru_cache(maxsize=64)
def _kinked(expr: sp.Expr) -> bool:
    return any(isinstance(part, _KINKED) for part, _ in walk.postorder(expr))


def kink(loss: Loss, w: Floats) -> str | None:
    """What jumps at a minimum w of a loss, in words; None without a kink there.

    Differences of a smooth loss over a tenth of the distance are a tenth; a jump stays. Every kink is met along one of
    the parameters."""
    if not _kinked(loss.expr):
        return None
    distance = _NEAR * (1.0 + float(np.abs(w).max()))
    for u in distance * np.eye(len(w)):
        points = [w + u, w - u, w + u / 10, w - u / 10]
        H, g = np.array([loss.hessian(p) for p in points]), np.array([loss.grad(p) for p in points])
        size = float(np.abs(H).max())
        for name, value, scale in (("slope", g, size * distance / _NEAR), ("curvature", H, size)):
            far, near = np.abs(value[0] - value[1]), np.abs(value[2] - value[3])
            if near.max() > max(_SEEN * scale, 0.5 * far.max()):
                place = np.unravel_index(int(near.argmax()), near.shape)
                return f"its {name} is {value[2][place]:.4g} on one side and {value[3][place]:.4g} on the other"
    return None
