"""W3: Euler-Maruyama for the one-dimensional SDE `dx = -x/(1 + x^2) dt + 0.3 dW`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy as sp

import minidyn as md
from benchmarks import references
from benchmarks.harness import OURS, Row, first_call, interleaved
from benchmarks.paths import agree, found
from benchmarks.references import LIMIT, PLAIN

DT, STRENGTH, START = 0.01, 0.3, 1.0


def sde_flows() -> dict[str, Any]:
    """The SDE in every way that minidyn's users can write it; None where this version has no such flow.

    The stochastic modified flow of order 1 of SGD has drift `-grad L` and covariance `lr Sigma` per time: the loss
    `log(1 + x^2)/2` with `GaussianNoise(0.3/sqrt(lr))` is this SDE. The map itself takes the very steps of
    Euler-Maruyama, one of length `lr` each.
    """
    x = sp.Symbol("x")
    system = md.Map(md.Loss(sp.log(1 + x**2) / 2, [x]), md.SGD(DT), md.GaussianNoise(STRENGTH / DT**0.5))
    written, modified = getattr(md, "SymbolicFlow", None), getattr(md, "StochasticModifiedFlow", None)
    return {
        "W3 Euler-Maruyama, drift and diffusion written": written and written(system, [-x / (1 + x**2)], [STRENGTH]),
        "W3 Euler-Maruyama, modified flow of SGD": modified and modified(system, order=1),
        "W3 the same steps as a map": system,
    }


def ensemble(quick: bool) -> Iterator[Row]:
    """W3: 10^5 paths of 500 steps."""
    paths, steps = (51_200, 200) if quick else (102_400, 500)
    for work, system in sde_flows().items():
        if system is None:
            yield Row(work, "ns/path-step", None, note="not expressible yet")
        else:
            yield from _beside(work, system, paths, steps, quick)


def _beside(work: str, system: Any, paths: int, steps: int, quick: bool) -> Iterator[Row]:
    options = {} if isinstance(system, md.Map) else {"substeps": 1}

    def ours(count: int = steps) -> np.ndarray:
        run = md.simulate(system, [START], count, paths=paths, save_every=count, rng=0, threads=1, **options)
        return run.w[:, -1]

    def theirs(plain: int, count: int = steps) -> np.ndarray:
        w = np.full(paths // (10 if plain else 1), START)
        flags = ctypes.c_int(1), ctypes.c_int(plain)
        references.call("ensemble", "diffusion", w, len(w), count, DT, STRENGTH, 7, *flags)
        return w[:, None]

    compiled = first_call(lambda: ours(1))
    cases: dict[str, Any] = {OURS: ours}
    for variant in references.variants("ensemble"):
        plain = int(variant == PLAIN)
        agree(work, ours(200), theirs(plain, 200))
        cases[variant] = lambda p=plain: theirs(p)
    per = {n: paths * steps / (10 if n == PLAIN else 1) for n in cases}
    seconds = interleaved(cases, 3 if quick else 7, least=0)
    yield from found("ensemble", work, "ns/path-step", seconds, per, {LIMIT: 1.25}, compile=compiled)
