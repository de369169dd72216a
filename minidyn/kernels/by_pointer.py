"""Calls of kernels by pointer from Python."""

from __future__ import annotations

from minidyn.compiler import jit

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@jit
def evaluate(field, fns, ws, k, hp, c, d, nz, fp, bs, fs):
    """A flow's field at many points; -1, or 64 i + code for the first point i where it fails."""
    for i in range(ws.shape[0]):
        code = field(fns, ws[i], k, hp, c, d, nz, fp, bs[i], fs[i])
        if code != 0:
            return i * 64 + code
    return -1
