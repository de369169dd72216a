"""Displacement along a curved valley after 600 steps, map against quasistatic flow, for every rule."""

from __future__ import annotations

import numpy as np
import sympy as sp

import minidyn as md


def agreement(quick: bool = False) -> None:
    """Print, for each rule, mean and spread of the map and of its flow, and their difference."""
    x, y = sp.symbols("x y")
    loss = md.Loss((y - sp.sin(x)) ** 2 * (2 + sp.cos(x)) / 2, [x, y])
    variances = [sp.Rational(1, 5) + sp.sin(x) ** 2 / 10, sp.Rational(1, 10) + y**2 / 20]
    noise = md.GaussianNoise([sp.sqrt(v) for v in variances])
    rules = {
        "SGD": md.SGD(0.05),
        "heavy ball": md.SGD(0.01, momentum=0.8),
        "Nesterov": md.SGD(0.01, 0.8, nesterov=True),
        "RMSProp": md.RMSProp(0.01, beta2=0.999),
        "Adam": md.Adam(0.01, beta2=0.999),
        "Adam, beta2 = 0.99": md.Adam(0.01, beta2=0.99),
        "sign GD": md.SignGD(0.01),
    }
    start, paths = np.array([0.5, np.sin(0.5)]), 2_000 if quick else 20_000
    print(f"\ncurved valley, {paths:,} paths, 600 steps: displacement of x, spread, difference flow - map")
    for name, rule in rules.items():
        system = md.Map(loss, rule, noise)
        w0 = system.fixed_point(start) if name == "RMSProp" else start
        result = md.compare(
            system, md.QuasistaticFlow(system), w0=w0, steps=600, paths=paths, rng=1, save_every=300, substeps=10
        )
        row = [r for r in result.errors if r.quantity == "x"][-1]
        print(
            f"  {name:18s} map {row.map_mean - 0.5:+.4f} ({row.map_spread:.4f})  flow {row.flow_mean - 0.5:+.4f} "
            f"({row.flow_spread:.4f})  difference {row.difference:+.4f} +- {row.standard_error:.4f}"
        )
