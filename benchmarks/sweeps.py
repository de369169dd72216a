"""What many settings at once cost beside as many paths at one: the same steps, each path with its own numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import minidyn as md
from benchmarks import problems
from benchmarks.harness import OURS, Row, interleaved, rows


def many_settings(quick: bool) -> Iterator[Row]:
    """Learning rates as lanes of GD in the valley; a grid of learning rates and noises."""
    loss = problems.valley()
    gd, sgd = md.Map(loss, md.GD(0.1)), md.Map(loss, md.SGD(0.1), md.GaussianNoise(0.3))
    count, steps = 10_000, 1000 if quick else 10_000
    start = np.tile([1.0, 0.8], (count, 1))  # as many paths as there are rates, though all are alike
    start[:, 1] += np.linspace(0, 1e-3, count)
    given = {"steps": steps, "paths": count, "save_every": steps, "threads": 1}
    rates = np.linspace(0.01, 0.5, count)
    seconds = interleaved(
        {
            OURS: lambda: md.simulate(gd, start, hyper={"lr": rates}, **given),
            "one learning rate": lambda: md.simulate(gd, start, **given),
        },
        3 if quick else 7,
    )
    yield from rows(f"{count:,} learning rates of GD", "ns/step", seconds, count * steps, {"one learning rate": 1.3})

    side, paths, steps = (30, 100, 200) if quick else (100, 100, 1000)
    over = {"lr": np.linspace(0.01, 0.3, side), "sigma": np.linspace(0, 1, side)}
    options = {"w0": [2.0, 0.0], "steps": steps, "rng": 0, "threads": 1}
    many = side * side * paths
    seconds = interleaved(
        {
            OURS: lambda: md.sweep(sgd, over=over, paths=paths, **options),
            "simulate": lambda: md.simulate(sgd, paths=many, save_every=steps, **options),
        },
        3 if quick else 5,
    )
    yield from rows(f"sweep of {side} x {side}, {paths} paths", "ns/step", seconds, many * steps, {"simulate": 1.15})
