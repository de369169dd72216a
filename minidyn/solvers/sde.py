"""Euler-Maruyama for flows with noise: Ito, strong order 1/2 (1 for additive noise), weak order 1.

Source: Maruyama (1955); Kloeden, Platen, *Numerical Solution of SDEs* (1992), section 10.2. On a
manifold every step is followed by the flow's retraction.
"""

from __future__ import annotations

from minidyn.compiler import jit

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@jit
def em_step(field, retract, fns, w, k, span, xi, b, f, hp, c, d, nz, fp):
    """w += b span + f xi, with xi the sum of the `span` steps' normals; a status code."""
    code = field(fns, w, k, hp, c, d, nz, fp, b, f)
    if code != 0:
        return code
    for i in range(w.shape[0]):
        total = b[i] * span
        for r in range(f.shape[1]):
            total += f[i, r] * xi[r]
        w[i] += total
    return retract(fns, w, hp, c, d, nz, fp)
