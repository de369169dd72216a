"""How time grows with paths, steps and samples; what memory a run takes beyond what it saves."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

import minidyn as md
from benchmarks import problems
from benchmarks.harness import Row, interleaved
from benchmarks.startup import _environment


def exponents(quick: bool) -> Iterator[Row]:
    """Slopes of log time against log size over a factor of 16: 1 where time is proportional."""
    noisy = md.Map(problems.valley(), md.SGD(0.01), md.GaussianNoise(0.5))
    w0 = np.array([1.0, 0.8])
    losses = {n: problems.network(10, n) for n in (8_000, 32_000, 128_000)}
    points = np.stack([problems.network_start(10, seed) for seed in range(4)])

    def run(paths: int, steps: int) -> Callable[[], object]:
        return lambda: md.simulate(noisy, w0, steps, paths=paths, save_every=steps, rng=0, threads=1)

    few = 2 if quick else 1
    given = {
        "paths": {n: run(n, 400) for n in (51_200 // few, 204_800 // few, 819_200 // few)},
        "steps": {n: run(12_800, n) for n in (1_000 // few, 4_000 // few, 16_000 // few)},
        "samples": {n: (lambda f=f: f.grad(points)) for n, f in losses.items()},
    }
    for what, sizes in given.items():
        seconds = interleaved({str(n): call for n, call in sizes.items()}, 3 if quick else 7, least=0)
        values = [seconds[str(n)] for n in sizes]
        slope = float(np.polyfit(np.log(list(sizes)), np.log(values), 1)[0])
        shown = ", ".join(f"{n}: {v * 1e3:.3g} ms" for n, v in zip(sizes, values, strict=True))
        yield Row(f"growth of time in {what}", "exponent", slope, bar=0.05, around=1.0, note=shown,
                  extra={"seconds": dict(zip(map(str, sizes), values, strict=True))})  # fmt: skip


# Runs in a new process: `paths steps saves keep`; prints the bytes that were saved and the peak of memory.
_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import minidyn as md
from benchmarks import problems
paths, steps, saves, keep = (int(a) if a.isdigit() else a for a in sys.argv[1:])
system = md.Map(problems.valley(), md.SGD(0.01), md.GaussianNoise(0.5))
run = md.simulate(system, [1.0, 0.8], steps, paths=paths, save_every=steps // saves, rng=0, keep=keep)
saved = 0 if run.w is None else run.w.nbytes
scale = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.platform == "linux":  # there ru_maxrss knows the process that started this one, too
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
print("MEMORY", saved, peak * scale)
"""


def memory(quick: bool) -> Iterator[Row]:
    """Peak memory of a whole process less what the run keeps; 10^5 paths of 100 saves and the like."""
    given = {
        "100 saves": (100_000, 200, 100, "paths"),
        "1000 saves": (10_000, 1000, 1000, "paths"),
        "moments of 10^6 paths": (1_000_000, 20, 2, "moments"),
    }
    with tempfile.TemporaryDirectory() as cache:
        for what, numbers in list(given.items())[: 1 if quick else None]:
            code = [sys.executable, "-c", _MEMORY, *map(str, numbers)]
            done = subprocess.run(code, env=_environment(cache), capture_output=True, text=True, check=True)
            saved, peak = (float(x) / 2**20 for x in done.stdout.split("MEMORY", 1)[1].split())
            note = f"peak {peak:.0f} MiB, saved {saved:.0f} MiB"
            yield Row(f"memory beyond the saves, {what}", "MiB", peak - saved, bar=200.0, note=note)
