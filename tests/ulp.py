"""Largest errors of minidyn's elementary functions, in units in the last place, against fifty digits.

    python tests/ulp.py            # a million points for each function, about a minute each
    python tests/ulp.py 10000 exp  # fewer points, one function

Points are uniform where a function turns, and spread over all exponents.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf

from minidyn.graph import FUNCTIONS
from minidyn.kernels.vectormath import elementwise

INTERVALS = {  # where the function is neither 0, infinite nor constant
    "exp": (-745.0, 709.7), "expm1": (-40.0, 709.7), "log": (1e-3, 100.0), "log1p": (-0.999, 30.0), "sin": (-1e6, 1e6),
    "cos": (-1e6, 1e6), "tan": (-1e4, 1e4), "sinh": (-710.0, 710.0), "cosh": (-710.0, 710.0), "tanh": (-20.0, 20.0),
    "tanh_slope": (-354.0, 354.0), "asin": (-1.0, 1.0), "acos": (-1.0, 1.0), "atan": (-30.0, 30.0), "erf": (-6.5, 6.5),
    "erfc": (-6.5, 26.5), "pow": (-745.0, 709.7), "asinh": (-30.0, 30.0), "acosh": (1.0, 30.0), "atanh": (-1.0, 1.0),
    "asech": (0.0, 1.0), "acsch": (-30.0, 30.0), "acoth": (-30.0, 30.0), "asec": (-30.0, 30.0), "acsc": (-30.0, 30.0),
    "acot": (-30.0, 30.0), "cbrt": (-30.0, 30.0), "asinh_slope": (-30.0, 30.0), "acosh_slope": (1.0, 30.0),
    "atanh_slope": (-1.0, 1.0), "acoth_slope": (-30.0, 30.0), "atan2": (-30.0, 30.0), "erf_slope": (-26.5, 26.5),
}  # fmt: skip
TOP = {
    "exp": 3,
    "expm1": 3,
    "sinh": 3,
    "cosh": 3,
    "tanh_slope": 2.5,
    "asin": 0,
    "acos": 0,
    "atanh": 0,
    "asech": 0,
    "atanh_slope": 0,
}  # fmt: skip  (largest power of ten)
BEYOND_ONE = ("acoth", "acoth_slope", "asec", "acsc")  # real outside of (-1, 1)


def points(name: str, count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Arguments for a function: a third in its interval, a third near zero, a third over all exponents."""
    rng = np.random.default_rng(seed)
    low, high = INTERVALS[name]
    part = -(-count // 3)
    if name == "pow":  # x**y with y log(x) in the interval
        near = 1.0 + rng.choice([-1.0, 1.0], part) * 10.0 ** rng.uniform(-15, -0.5, part)
        x = np.concatenate([10.0 ** rng.uniform(-320, 308, part), rng.uniform(0.5, 2.0, part), near])
        return x, rng.uniform(low, high, len(x)) / np.log(x)
    wide = rng.choice([-1.0, 1.0], part) * 10.0 ** rng.uniform(-323, TOP.get(name, 308), part)
    x = np.concatenate([rng.uniform(low, high, part), rng.uniform(max(low, -1.5), min(high, 1.5), part), wide])
    least = FUNCTIONS[name].domain[0]
    if least > -np.inf and high > 1.0:  # to the right of the singularity
        x = np.where(x > least, x, 2.0 * least - x)
    if name in BEYOND_ONE:
        x = np.where(np.abs(x) < 1.0, x + np.copysign(1.0, x), x)
        x = x[np.abs(x) > 1.0]
    return (np.abs(x),) if name == "asech" else (x, rng.permutation(x)) if name == "atan2" else (x,)


def function(name: str) -> Any:
    """The function for mpmath's numbers."""
    own = {
        "pow": mpmath.power,
        "tanh_slope": lambda x: mp.sech(x) ** 2,
        "asinh_slope": lambda x: 1 / mp.sqrt(1 + x**2),
        "acosh_slope": lambda x: 1 / mp.sqrt(x**2 - 1),
        "atanh_slope": lambda x: 1 / (1 - x**2),
        "acoth_slope": lambda x: 1 / (1 - x**2),
        "erf_slope": lambda x: 2 * mp.exp(-(x**2)) / mp.sqrt(mp.pi),
        "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
        "erfc": lambda x: mp.erfc(max(mpf(-1000), min(mpf(1000), x))),
    }  # fmt: skip  (mpmath squares x as a double)
    return own.get(name) or getattr(mp, name)


def errors(name: str, args: tuple[np.ndarray, ...]) -> np.ndarray:
    """How far the compiled function is from the exact value at each point, in ulp of the exact value."""
    out = np.empty(len(args[0]))
    elementwise(name)(*args, out)
    exact = function(name)
    with mp.workdps(50):
        return np.array([_ulp(got, exact(*map(mpf, each))) for got, *each in zip(out, *args, strict=True)])


def _ulp(got: float, want: Any) -> float:
    nearest = float(want)
    if np.isinf(nearest) or np.isinf(got):
        return 0.0 if nearest == got else np.inf
    return float(abs(mpf(float(got)) - want) / mpf(float(np.spacing(abs(nearest)))))


def main(count: int = 1_000_000, *names: str) -> None:
    """Print the largest error of each function and the time per element in a loop."""
    for name in names or INTERVALS:
        args = points(name, count)
        found = errors(name, args)
        worst = int(np.argmax(np.where(np.isnan(found), np.inf, found)))
        at = ", ".join(repr(float(a[worst])) for a in args)
        print(
            f"{name:10s} {len(found):8d} points, at most {found[worst]:.3f} ulp, at {at}; {speed(name):.2f} ns",
            flush=True,
        )


def speed(name: str) -> float:
    """Nanoseconds per element of a loop over 4096 numbers."""
    args = tuple(a[:4096].copy() for a in points(name, 3 * 4096))
    out, run, best = np.empty(len(args[0])), elementwise(name), np.inf
    for _ in range(200):
        began = time.perf_counter()
        run(*args, out)
        best = min(best, time.perf_counter() - began)
    return best / len(out) * 1e9


if __name__ == "__main__":
    main(*(int(a) if a.isdigit() else a for a in sys.argv[1:]))  # type: ignore[arg-type]
