"""The compiled time loops."""

from __future__ import annotations

import numpy as np

from minidyn.compiler import jit
from minidyn.solvers.ode import integrate
from minidyn.solvers.sde import em_step

# mypy: disable-error-code="no-untyped-def, no-untyped-call"



@jit
def advance_ode(
    field, retract, fns, columns, points, h, status, ended, first, last, k0, steps, rtol, atol, hp, c, d, nz, fp
):
    """Carry the points first .. last-1 of a flow without noise through `steps` steps after k0."""
    size = points.shape[1]
    slopes = np.empty((7, size))
    trial = np.empty(size)
    f = np.zeros((size, columns))
    for path in range(first, last):
        if status[path] != 0:
            continue
        w = points[path]
        # step k of the map covers the times from k - 1 to k: in its middle a schedule stands at k
        code = integrate(
            field, retract, fns, w, h[path], k0 + 0.5, k0 + steps + 0.5, rtol, atol, slopes, trial, hp, c, d, nz, fp, f
        )
        for i in range(size):
            if not abs(w[i]) < np.inf:
                code = 1
            if columns > 0 and abs(f[i, 0]) > 0.0:
                code = 4
        if code != 0:
            status[path] = code
            ended[path] = k0 + steps
            for i in range(size):
                w[i] = np.nan


@jit
def advance_sde(
    draw, field, retract, fns, rows, columns, blocks, streams, status, ended, first, last, k0, steps, substeps,
    hp, c, d, nz, fp,
):  # fmt: skip
    """Carry the blocks first .. last-1 of a flow with noise through `steps` steps after k0."""
    size = blocks.shape[1] // 64
    n = d.shape[0]
    z = np.zeros((rows + 1) * 64)
    total = np.zeros((rows + 1) * 64)
    index = np.zeros(64, np.int64)
    w = np.empty(size)
    b = np.empty(size)
    f = np.zeros((size, columns))
    xi = np.empty(columns)
    for block in range(first, last):
        s = blocks[block]
        r = streams[block]
        k = k0
        while k < k0 + steps:
            span = min(substeps, k0 + steps - k)
            for q in range(total.shape[0]):
                total[q] = 0.0
            for turn in range(span):
                draw(r, z, index, index, k + turn + 1, n)
                for q in range(total.shape[0]):
                    total[q] += z[q]
            for lane in range(64):
                path = block * 64 + lane
                if status[path] != 0:
                    continue
                for i in range(size):
                    w[i] = s[i * 64 + lane]
                for q in range(columns):
                    xi[q] = total[q * 64 + lane]
                code = em_step(field, retract, fns, w, k + 0.5 * (span + 1), float(span), xi, b, f, hp, c, d, nz, fp)
                for i in range(size):
                    if code == 0 and not abs(w[i]) < np.inf:
                        code = 1
                if code != 0:
                    status[path] = code
                    ended[path] = k + span
                for i in range(size):
                    s[i * 64 + lane] = w[i] if code == 0 else np.nan
            k += span
