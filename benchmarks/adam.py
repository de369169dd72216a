"""Adam with label noise: full against frozen accumulators, with discrete runs.

    python -m benchmarks.adam            # table and results/adam_accumulators.png, a quarter of an hour on one core

The loss is (ab + 2cd - 1)^2 / 2, label noise of deviation 0.5, started on the minima at (2, 0.3, 0.8, 0.25) with the
accumulators at their fixed point. The figure sweeps how fast the accumulator is against the oscillation that it
sees, (1 - beta2) / (lr lambda), lambda the largest eigenvalue of the Hessian in Adam's metric: lr = 0.002 while
1 - beta2 grows to 0.02, then lr falls.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import sympy as sp

import minidyn as md

START = np.array([2.0, 0.3, 0.8, 0.25])
STD = 0.5
LATE = 10**7  # a step number at which bias corrections are over
TABLE = [(0.002, 0.99, 4000, 40_000), (0.002, 0.999, 4000, 40_000), (0.001, 0.9999, 16_000, 20_000)]
RATIOS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


def adam(lr: float, beta2: float) -> md.Map:
    """The map that is studied."""
    a, b, c, d = sp.symbols("a b c d")
    loss = md.Loss.regression(a * b + 2 * c * d, [a, b, c, d], inputs={}, target=[1.0])
    return md.Map(loss, md.Adam(lr, beta2=beta2), md.LabelNoise(STD))


def sharpness() -> float:
    """The largest eigenvalue of the Hessian in Adam's metric P = 1 / (std |grad f|) at the start."""
    a, b, c, d = START
    return float(np.abs([b, a, 2 * d, 2 * c]).sum() / STD)


def table() -> list[str]:
    """The displacement of the first coordinate after many steps from the start: discrete, full, frozen."""
    lines = ["   lr      beta2    steps   discrete              full      frozen   full - discrete"]
    for lr, beta2, steps, paths in TABLE:
        system = adam(lr, beta2)
        run = md.simulate(
            system, system.fixed_point(START), steps, paths=paths, save_every=steps, rng=1, first_step=LATE
        )
        moved = run.w[:, -1, 0] - START[0]
        error = moved.std() / np.sqrt(paths)
        full, frozen = (
            md.simulate(md.QuasistaticFlow(system, accumulators=a), START, steps, save_every=steps).w[0, -1, 0]
            - START[0]
            for a in ("full", "frozen")
        )
        gap = full - moved.mean()
        lines.append(
            f"  {lr:.3f}  {beta2:7.4f}  {steps:6d}   {moved.mean():+.5f} +- {error:.5f}   {full:+.5f}   {frozen:+.5f}"
            f"   {gap / error:+.1f} standard errors, {100 * abs(gap / moved.mean()):.1f} %"
        )
        print(lines[-1], flush=True)
    return lines


def setting(ratio: float) -> tuple[float, float, int, int]:
    """lr, beta2, steps and paths for one ratio; 1 - beta2 stays small, since errors of that order remain."""
    scale = sharpness()
    gap = min(0.002 * ratio * scale, 0.02)
    lr = gap / (ratio * scale)
    steps = int((0.016 if lr > 5e-4 else 0.004) / lr**2)
    return lr, 1 - gap, steps, int(np.clip(2.5e9 / steps / 64, 16, 320)) * 64


def flow_speed(ratio: float, accumulators: str) -> float:
    """Drift of the first coordinate at the start, per lr and unit of time."""
    lr, beta2, _, _ = setting(ratio)
    return float(md.QuasistaticFlow(adam(lr, beta2), accumulators=accumulators).drift(START)[0] / lr)


def discrete(ratio: float) -> tuple[float, float]:
    """The map's displacement over the frozen flow's, after a fifth of the run has passed, and its standard error."""
    lr, beta2, steps, paths = setting(ratio)
    system, fifth = adam(lr, beta2), steps // 5
    run = md.simulate(
        system, system.fixed_point(START), 5 * fifth, paths=paths, save_every=fifth, rng=2, first_step=LATE
    )
    moved = run.w[:, -1, 0] - run.w[:, 1, 0]
    flow = md.simulate(md.QuasistaticFlow(system, accumulators="frozen"), START, 5 * fifth, save_every=fifth)
    scale = flow.w[0, -1, 0] - flow.w[0, 1, 0]
    return float(moved.mean() / scale), float(moved.std() / np.sqrt(paths) / abs(scale))


def sweep() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fine ratios with the full flow's speed over the frozen one's, and discrete points (ratio, value, error)."""
    fine = np.geomspace(0.01, 100, 41)
    curve = np.array([flow_speed(r, "full") / flow_speed(r, "frozen") for r in fine])
    points = []
    for r in RATIOS:
        points.append((r, *discrete(r)))
        lr, beta2, steps, paths = setting(r)
        print(
            f"  ratio {r:6.2f}: lr {lr:.2e}, beta2 {beta2:.5f}, {steps:,} steps, {paths:,} paths: "
            f"discrete/frozen {points[-1][1]:.4f} +- {points[-1][2]:.4f}, "
            f"full/frozen {np.interp(np.log(r), np.log(fine), curve):.4f}",
            flush=True,
        )
    return fine, curve, np.array(points)


def draw(fine: np.ndarray, curve: np.ndarray, points: np.ndarray, path: Path) -> None:
    """The figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.axhline(1, color="0.55", ls="--", lw=1.2, label="frozen accumulators")
    axes.semilogx(fine, curve, color="C0", lw=1.8, label="full accumulators")
    axes.errorbar(points[:, 0], points[:, 1], 2 * points[:, 2], fmt="o", ms=4.5, color="k", capsize=2.5,
                  label="Adam, discrete (± 2 standard errors)")  # fmt: skip
    axes.set(
        xlabel=r"$(1-\beta_2)\,/\,(\eta\lambda)$",
        ylabel="drift along the minima / frozen theory",
        title=r"Adam, label noise, $f = ab + 2cd$",
        ylim=(0, 1.15),
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(folder: str = "results") -> None:
    """Table and figure."""
    print("displacement of a from 2")
    lines = table()
    print(f"sweep; lambda = {sharpness():.3g}")
    fine, curve, points = sweep()
    target = Path(folder) / "adam_accumulators.png"
    draw(fine, curve, points, target)
    rows = [
        "# (1-beta2)/(lr lambda), discrete/frozen, standard error",
        *(",".join(f"{v:.6g}" for v in p) for p in points),
    ]
    target.with_suffix(".csv").write_text("\n".join(rows + ["# " + line for line in lines]) + "\n")
    print(f"wrote {target} and {target.with_suffix('.csv')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
