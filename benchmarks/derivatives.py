"""Gradients of L3 and L4 beside C++; Hessian and third derivatives of L4 in gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import peers, problems, references
from benchmarks.harness import OURS, Row, first_call, interleaved, rows
from benchmarks.paths import same

LIBMVEC = "C++ libmvec"


def gradients(quick: bool) -> Iterator[Row]:
    """`loss.grad` at many points in one call, per point."""
    for name, units, count, bar in (("L3", 10, 20, 1.2), ("L4", 100, 200, 1.0)):
        loss = problems.network(units, count)
        points = np.stack([problems.network_start(units, seed) for seed in range(1000 if units == 10 else 40)])
        compiled = first_call(lambda: loss.grad(points[:1]))  # noqa: B023
        cases: dict[str, Any] = {OURS: lambda f=loss, p=points: f.grad(p)}
        if references.variants("flow"):
            references.call("flow", f"{name.lower()}_data", *problems.samples(count))

            def theirs(name: str = name, points: np.ndarray = points) -> np.ndarray:
                out = np.empty_like(points)
                references.call("flow", f"{name.lower()}_gradients", points, out, len(points))
                return out

            same(f"gradient of {name}", loss.grad(points), theirs(), 1e-10)
            cases[LIBMVEC] = theirs
        cases |= peers.gradients(units, count, points)
        seconds = interleaved(cases, 3 if quick else 9)
        if len(seconds) == 1:
            yield Row(f"gradient of {name}", "us", seconds[OURS] / len(points) * 1e6, note=references.remark("flow"))
        yield from rows(f"gradient of {name}", "us", seconds, len(points), {LIBMVEC: bar}, compile=compiled)


def higher(quick: bool) -> Iterator[Row]:
    """Value, hvp, third and Hessian of L4, in gradients measured in the same run."""
    loss, w = problems.network(100, 200), problems.network_start(100)
    points = np.stack([problems.network_start(100, seed) for seed in range(10)])
    u, v = np.random.default_rng(3).normal(size=(2, 10, loss.dim))
    cases = {
        "gradient": lambda: loss.grad(points),
        "value": lambda: loss.value(points),
        "hvp": lambda: loss.hvp(points, u),
        "third": lambda: loss.third(points, u, v),
    }
    one = interleaved({**cases, "Hessian": lambda: loss.hessian(w)}, 3 if quick else 7)
    bars = {"value": None, "hvp": None, "third": 12.0, "Hessian": 3.0 * loss.dim}
    for name, bar in bars.items():
        taken = one[name] / (1 if name == "Hessian" else 10)
        gradient = one["gradient"] / 10
        yield Row(
            f"{name} of L4, in gradients",
            "gradients",
            taken / gradient,
            bar=bar,
            note=f"{taken * 1e6:.0f} us; D = {loss.dim}",
        )
