"""Peak memory of a million paths, 10^11 path-steps; with --quick two short runs."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import sympy as sp

import minidyn as md

x, y = sp.symbols("x y")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
START = [1.0, 0.02]


def million(quick: bool = False) -> None:
    """Peak memory of 10^6 paths of a planar map with moments every 1000 steps, as whole processes."""
    lengths = [2_000, 8_000] if quick else [100_000]
    print("\npeak memory of 10^6 paths, moments every 1000 steps (bar: 1 GiB at 10^5 steps)")
    for steps in lengths:
        began = time.perf_counter()
        command = [sys.executable, "-c", "from benchmarks.million import _million; _million()", str(steps)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        taken = time.perf_counter() - began
        print(f"  {steps:7,} steps: {peak / 2**20:.3f} GiB, {taken:.0f} s, {taken / steps * 1e3:.2f} ns per path-step")


def _million() -> None:
    system = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.3))
    run = md.simulate(system, START, int(sys.argv[-1]), paths=10**6, save_every=1000, keep="moments", rng=0)
    assert run.finished.all()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
