"""Timings of minidyn's public calls, each beside what it is measured against.

    python -m benchmarks            # all of it, some minutes
    python -m benchmarks gradient   # one part: agreement, gradient, paths, start, orders

Machines are noisy: figures are medians of interleaved repeats, compilation apart.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import sympy as sp

import minidyn as md
from benchmarks.orders import orders


def interleaved(cases: dict[str, Callable[[], object]], repeats: int = 9) -> dict[str, float]:
    """Median seconds of each case, run in turn."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            began = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def tanh_net(units: int, samples: int) -> tuple[md.Loss, np.ndarray]:
    """A two-layer tanh net on a scalar input, written with sums."""
    a, w, b = (md.vector(name, units) for name in "awb")
    x, j = sp.Symbol("X"), sp.Symbol("j", integer=True)
    inputs = np.linspace(-2, 2, samples)
    model = sp.Sum(a[j] * sp.tanh(w[j] * x + b[j]), (j, 0, units - 1))
    loss = md.Loss.regression(model, [a, w, b], {x: inputs}, np.sin(2 * inputs) + 0.3 * inputs)
    return loss, np.random.default_rng(0).normal(size=(200, 3 * units))


def gradient() -> None:
    """The compiled gradient against the compiled loss."""
    print("\ncost of the compiled gradient in losses (bar: 5)")
    for units, samples in ((10, 20), (100, 200)):
        loss, points = tanh_net(units, samples)
        cases = {"loss": lambda f=loss, p=points: f.value(p), "gradient": lambda f=loss, p=points: f.grad(p)}
        interleaved(cases, 2)
        t = interleaved(cases)
        each = {name: seconds / len(points) * 1e6 for name, seconds in t.items()}
        print(f"  tanh net, {3 * units:3d} parameters: loss {each['loss']:.2f} us, gradient {each['gradient']:.2f} us, "
              f"ratio {t['gradient'] / t['loss']:.2f}")  # fmt: skip


def numpy_sgd(paths: int, steps: int, lr: float, sigma: float) -> np.ndarray:
    """The same ensemble as anyone would write it in numpy."""
    rng = np.random.Generator(np.random.SFC64(1))
    x, y = np.full(paths, 1.0), np.full(paths, 0.8)
    for _ in range(steps):
        gx, gy = x * y * y, (1 + x * x) * y
        x = x - lr * (gx + sigma * rng.standard_normal(paths))
        y = y - lr * (gy + sigma * rng.standard_normal(paths))
    return np.stack([x, y])


def paths() -> None:
    """Noisy SGD on the valley, 102 400 paths of 1000 steps, against numpy (a tenth of the paths)."""
    x, y = sp.symbols("x y")
    system = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.01), md.GaussianNoise(0.5))
    many, few, steps = 102_400, 10_240, 1000
    run = lambda threads: md.simulate(  # noqa: E731
        system, [1.0, 0.8], steps, paths=many, save_every=steps, rng=0, threads=threads, keep="moments"
    )
    run(1)
    t = interleaved({
        "minidyn, one thread": lambda: run(1), "minidyn, two threads": lambda: run(2),
        "numpy": lambda: numpy_sgd(few, steps, 0.01, 0.5),
    }, 5)  # fmt: skip
    print("\nnoisy SGD on the valley, ns per path-step (bar: 8 on one core)")
    for name, seconds in t.items():
        print(f"  {name:22s} {seconds / ((few if name == 'numpy' else many) * steps) * 1e9:6.2f}")


def start() -> None:
    """Import, and `minidyn run valley` as whole processes: with an empty kernel cache, then with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "MINIDYN_CACHE_DIR": folder, "NUMBA_CACHE_DIR": os.path.join(folder, "numba")}
        command = [sys.executable, "-m", "minidyn", "run", "valley", "--out", folder]

        def timed(arguments: list[str]) -> float:
            began = time.perf_counter()
            subprocess.run(arguments, env=env, check=True, capture_output=True)
            return time.perf_counter() - began

        first = timed(command)
        second = statistics.median(timed(command) for _ in range(3))
        load = statistics.median(timed([sys.executable, "-c", "import minidyn"]) for _ in range(5))
        bare = statistics.median(timed([sys.executable, "-c", "pass"]) for _ in range(5))
    print("\nwhole processes, seconds")
    print(f"  minidyn run valley, first time  {first:5.2f}  (bar: 10)")
    print(f"  minidyn run valley, second time {second:5.2f}  (bar: 3)")
    print(f"  import minidyn                  {load - bare:5.2f}  (bar: 1; the interpreter's own {bare:.2f} taken off)")


def agreement() -> None:
    """Displacement along a curved valley after 600 steps, map against quasistatic flow, for every rule."""
    x, y = sp.symbols("x y")
    loss = md.Loss((y - sp.sin(x)) ** 2 * (2 + sp.cos(x)) / 2, [x, y])
    variances = [sp.Rational(1, 5) + sp.sin(x) ** 2 / 10, sp.Rational(1, 10) + y**2 / 20]
    noise = md.GaussianNoise([sp.sqrt(v) for v in variances])
    rules = {
        "SGD": md.SGD(0.05), "heavy ball": md.SGD(0.01, momentum=0.8), "Nesterov": md.SGD(0.01, 0.8, nesterov=True),
        "RMSProp": md.RMSProp(0.01, beta2=0.999), "Adam": md.Adam(0.01, beta2=0.999),
        "Adam, beta2 = 0.99": md.Adam(0.01, beta2=0.99), "sign GD": md.SignGD(0.01),
    }  # fmt: skip
    start, paths = np.array([0.5, np.sin(0.5)]), 20_000
    print(f"\ncurved valley, {paths:,} paths, 600 steps: displacement of x, spread, difference flow - map")
    for name, rule in rules.items():
        system = md.Map(loss, rule, noise)
        w0 = system.fixed_point(start) if name == "RMSProp" else start
        result = md.compare(system, md.QuasistaticFlow(system), w0=w0, steps=600, paths=paths, rng=1, save_every=300,
                            substeps=10)  # fmt: skip
        row = [r for r in result.errors if r.quantity == "x"][-1]
        print(f"  {name:18s} map {row.map_mean - 0.5:+.4f} ({row.map_spread:.4f})  flow {row.flow_mean - 0.5:+.4f} "
              f"({row.flow_spread:.4f})  difference {row.difference:+.4f} +- {row.standard_error:.4f}")  # fmt: skip


PARTS = {"agreement": agreement, "gradient": gradient, "paths": paths, "start": start, "orders": orders}

if __name__ == "__main__":
    wanted = sys.argv[1:] or list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    print(f"minidyn {md.__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    for name in wanted:
        PARTS[name]()
