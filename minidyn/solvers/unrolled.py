"""Runge-Kutta steps written out: the stages and the error of one tableau, without what is multiplied by zero."""

from functools import cache
from typing import Any

from minidyn.kernels import Source
from minidyn.solvers.tableaus import TABLEAUS

_ATTEMPT = "field, fns, size, w0, K, trial, near, f, k, step, hp, c, d, nz, fp"
_ERROR = "K, size, step, w, v, rtol, atol"


@cache
def unrolled(name: str) -> tuple[Any, Any]:
    """`attempt` and `error_of` of the method with this name.

    Arrays may be longer than the `size` numbers of a state, with zeros after them.
    attempt(...) : the stages of a step of length `step` from w0 at the clock k, whose slope is K[0]; `trial` becomes
        the new point, K[-1] its slope, `near` the point of the stage before; returns a status code.
    error_of(...) : the error of that step from w to v in units of the tolerance; where a method has two estimates,
        the second keeps the first from being too small.
    """
    t = TABLEAUS[name]
    src = Source(f"{name}: {t.source}")
    src.line("from minidyn.solvers.system import worse")
    lines = []
    for stage in range(1, t.stages):
        lines += ["for i in range(w0.shape[0]):", f"    trial[i] = w0[i] + step * ({_sum(t.a[stage, :stage])})"]
        if stage == t.stages - 2:
            lines.append("    near[i] = trial[i]")
        clock = f"k + {float(t.c[stage])!r} * step"
        found = f"field(fns, trial[0:size], {clock}, hp, c, d, nz, fp, K[{stage}][0:size], f)"
        lines.append(f"code = {found if stage == 1 else f'worse(code, {found})'}")
    src.add("attempt", _ATTEMPT, [*lines, "return code"], "the stages of one step", fma=True)
    first, second = _sum(t.e[0]), _sum(t.e[1])
    lines = [
        "first, second = 0.0, 0.0",
        "for i in range(w.shape[0]):",
        "    scale = 1.0 / (atol + rtol * max(abs(w[i]), abs(v[i])))",
        f"    a = ({first}) * scale",
        *([f"    b = ({second}) * scale"] if second else []),
        "    first += a * a",
        *(["    second += b * b"] if second else []),
        "both = first + 0.01 * second",
        "return abs(step) * first / sqrt(both * size) if both > 0.0 else both",
    ]
    src.add("error_of", _ERROR, lines, "the error of a step in units of the tolerance", fma=True)
    module = src.load()
    return module.attempt, module.error_of


def _sum(weights: Any) -> str:
    return " + ".join(f"{float(a)!r} * K[{j}, i]" for j, a in enumerate(weights) if a != 0.0)
