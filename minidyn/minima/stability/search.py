"""Minima to judge: near given points, where every sample is fitted or where the gradient flow ends."""

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.maps.loss import Loss
from minidyn.minima.manifold import Manifold

_ROUNDS = 300


def find_minima(loss: Loss, starts: ArrayLike) -> Floats:
    """Different minima (M, D) near the starts (N, D), in their order; starts that lead to none are left out.

    For squared regressions with no more samples than parameters damped Gauss-Newton steps of minimum norm, which
    need no smooth path; otherwise, or where they fail, the gradient flow.
    """
    manifold, found = Manifold(loss), list[Floats]()
    for start in np.atleast_2d(loss.check(starts, "starts")):
        w = _fit(loss, start)
        candidates = manifold.find(start) if w is None and loss.dim <= 64 else [] if w is None else [w]
        for c in candidates:
            if all(np.linalg.norm(c - known) > 1e-6 * (1 + np.linalg.norm(c)) for known in found):
                found.append(c)
    return np.array(found).reshape(-1, loss.dim)


def _fit(loss: Loss, start: Floats) -> Floats | None:
    """A point near the start that fits every sample to rounding (Levenberg 1944, Marquardt 1963), or None."""
    if loss.criterion != "squared" or loss.data[loss.target].size > loss.dim:
        return None
    w, damping = start.copy(), 1e-3
    enough = 1e-13 * (1 + np.abs(loss.data[loss.target]).max())
    residual = loss.residuals(w)
    for _ in range(_ROUNDS):
        if np.abs(residual).max() <= enough:
            break
        J = loss.residual_grads(w)
        gram = J @ J.T
        for _ in range(30):
            size = damping * np.trace(gram) / len(gram)
            move = -J.T @ np.linalg.lstsq(gram + size * np.eye(len(gram)), residual, rcond=1e-14)[0]
            trial = loss.residuals(w + move)
            if trial @ trial < residual @ residual:
                break
            damping = max(10 * damping, 1e-12)
        else:
            break
        w, residual, damping = w + move, trial, 0.1 * damping if damping > 1e-14 else 0.0
    return w if np.abs(residual).max() <= 1e3 * enough else None
