"""Calls of kernels by pointer from Python."""

from __future__ import annotations

from minidyn.compiler import jit

# mypy: disable-error-code="no-untyped-def"


@jit
def evaluate(field, fns, ws, k, model, bs, fs, codes):
    """A flow's field at many points, and the status code of each."""
    hp, c, d, nz, fp = model
    for i in range(ws.shape[0]):
        codes[i] = field(fns, ws[i], k, hp, c, d, nz, fp, bs[i], fs[i])
