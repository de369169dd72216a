"""Calls of kernels by pointer from Python."""

from __future__ import annotations

from minidyn.compiler import jit

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@jit
def evaluate(field, fns, w, k, hp, c, d, nz, fp, b, f):
    """One evaluation of a flow's field."""
    return field(fns, w, k, hp, c, d, nz, fp, b, f)
