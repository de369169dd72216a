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


def sde_flow() -> Any:
    """The SDE as minidyn's users can write it, or None where no public call expresses it yet.

    The stochastic modified flow of order 1 of SGD has drift `-grad L` and covariance `lr Sigma` per time: the loss
    `log(1 + x^2)/2` with `GaussianNoise(0.3/sqrt(lr))` is this SDE, stepped by `lr`.
    """
    if not hasattr(md, "StochasticModifiedFlow"):
        return None
    x = sp.Symbol("x")
    loss = md.Loss(sp.log(1 + x**2) / 2, [x])
    return md.StochasticModifiedFlow(md.Map(loss, md.SGD(DT), md.GaussianNoise(STRENGTH / DT**0.5)), order=1)


def ensemble(quick: bool) -> Iterator[Row]:
    """W3, and the map whose steps are the same numbers (SGD on the same loss)."""
    paths, steps = (25_600, 200) if quick else (102_400, 500)
    x = sp.Symbol("x")
    loss = md.Loss(sp.log(1 + x**2) / 2, [x])
    systems = {"W3 Euler-Maruyama, as a flow": sde_flow()}
    systems["W3 the same steps, as a map"] = md.Map(loss, md.SGD(DT), md.GaussianNoise(STRENGTH / DT**0.5))
    for work, system in systems.items():
        if system is None:
            yield Row(work, "ns/path-step", None, note="not expressible yet")
            continue
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
