"""Calls of kernels by pointer from Python."""

from minidyn.compiler import jit


@jit
def evaluate(field, fns, ws, k, model, bs, fs, codes):
    """A flow's field at many points, and the status code of each."""
    hp, c, d, nz, fp = model
    for i in range(ws.shape[0]):
        codes[i] = field(fns, ws[i], k, hp, c, d, nz, fp, bs[i], fs[i])
