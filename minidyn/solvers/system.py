"""What a solver is given of a flow: `system = (field, retract, fns, model)` with `model = (hp, c, d, nz, fp)`.

`fns` are the kernels that the flow's functions take; `hp` are the numbers of the rule, `c` and `d` those of the loss,
`nz` those of the noise and `fp` the flow's own.
"""

from functools import partial

from minidyn.compiler import jit

inline = partial(jit, inline=True, fma=True)


@inline
def field_at(system, w, k, b, f):
    """b, f = the flow's field at the point w and the clock k; a status code."""
    field, _, fns, model = system
    hp, c, d, nz, fp = model
    return field(fns, w, k, hp, c, d, nz, fp, b, f)


@inline
def put_back(system, w):
    """Put w back where the flow lives; a status code."""
    _, retract, fns, model = system
    hp, c, d, nz, fp = model
    return retract(fns, w, hp, c, d, nz, fp)


@inline
def worse(a, b):
    """The first of two status codes that is not zero."""
    return a if a != 0 else b
