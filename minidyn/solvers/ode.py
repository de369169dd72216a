"""Dormand-Prince 5(4) for flows without noise.

Order 5, with an embedded error estimate of order 4 and local extrapolation.
Source: Dormand, Prince (1980); Hairer, Norsett, Wanner, *Solving ODEs I*, section II.5.
"""

from __future__ import annotations

import math

import numpy as np

from minidyn.compiler import jit
from minidyn.kernels.tableau import NODES, TABLEAU

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@jit
def integrate(field, retract, fns, w, h, k0, k1, rtol, atol, slopes, trial, hp, c, d, nz, fp, f):
    """Carry w from step k0 to k1 in place; h[0] is the step size that is tried first, and next.

    Returns the status code of the field where it fails for good, 4 where the step size vanishes.
    """
    size = w.shape[0]
    k = k0
    code = 0
    code = field(fns, w, k, hp, c, d, nz, fp, slopes[0], f)
    if code != 0:
        return code
    if not h[0] > 0.0:
        h[0] = min(1.0, k1 - k0)
    while k < k1:
        last = h[0] >= (k1 - k) * (1.0 - 1e-12)
        step = k1 - k if last else h[0]
        code = 0
        for stage in range(1, 7):
            for i in range(size):
                total = 0.0
                for s in range(stage):
                    total += TABLEAU[stage, s] * slopes[s, i]
                trial[i] = w[i] + step * total
            code = field(fns, trial, k + NODES[stage] * step, hp, c, d, nz, fp, slopes[stage], f)
            if code != 0:
                break
        error = 0.0
        if code == 0:
            for i in range(size):
                total = 0.0
                for s in range(7):
                    total += TABLEAU[7, s] * slopes[s, i]
                e = step * total / (atol + rtol * max(abs(w[i]), abs(trial[i])))
                error += e * e
            error = math.sqrt(error / size)
        if code == 0 and error <= 1.0:
            k = k1 if last else k + step
            for i in range(size):
                w[i] = trial[i]
                slopes[0, i] = slopes[6, i]
            if not last or error > 0.1:
                h[0] = step * min(5.0, max(0.2, 0.9 * (error + 1e-30) ** -0.2))
            code = retract(fns, w, hp, c, d, nz, fp)
            if code != 0:
                return code
        else:
            h[0] = step * (max(0.2, 0.9 * error**-0.2) if (code == 0 and error < np.inf) else 0.2)
            if not h[0] > 1e-10 * (1.0 + abs(k)):
                return code if code != 0 else 4
    return 0
