"""The compiled loop of a map from save to save."""

import numpy as np

from minidyn.compiler import jit, signature

# blocks, streams, alive, orders, first, last, paths, k0, steps, hp, c, d, nz: see `maps.timeloop`
ADVANCE = signature("void(f8[:,:], u8[:,:], f8[:,:], i8[:,:], i8, i8, i8, i8, i8, f8[:], f8[:], f8[:,:], f8[:])")


@jit
def carry_saving(advance, state, span, targets, numbers, out):
    """Carry the blocks first .. last-1 from step k0 to k0 + targets[q], one after the other; theta (paths, q, D) of
    their paths there, NaN where any of it is not finite."""
    blocks, streams, alive, orders = state
    first, last, paths, k0 = span
    hp, c, d, nz = numbers
    done = 0
    for q in range(targets.shape[0]):
        advance(blocks, streams, alive, orders, first, last, paths, k0 + done, targets[q] - done, hp, c, d, nz)
        done = targets[q]
        for path in range(64 * first, min(64 * last, paths)):
            lost = 0.0
            for i in range(out.shape[2]):
                out[path, q, i] = blocks[path // 64, i * 64 + path % 64]
                lost += out[path, q, i] * 0.0
            if lost != 0.0:
                for i in range(out.shape[2]):
                    out[path, q, i] = np.nan
