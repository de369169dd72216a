"""What another back end costs: compiling, one path, many paths, by MINIDYN_COMPILER; each in a new process, in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.harness import Row
from benchmarks.startup import _environment

# Runs in a new process: `units samples steps paths`; prints processor seconds as JSON.
_WORK = """
import json, sys, time
import minidyn as md
from benchmarks import problems
units, samples, steps, paths = (int(a) for a in sys.argv[1:])
taken = {}
def timed(name, call, per):
    began = time.process_time()
    call()
    first = time.process_time()
    call()
    again = time.process_time() - first
    taken[name] = [max(first - began - again, 0.0), again / per]
w = problems.network_start(units)
loss = problems.network(units, samples)
valley = problems.valley()
def run(rule, paths):
    system = md.Map(valley, rule, md.GaussianNoise(0.5))
    return lambda: md.simulate(system, [1.0, 0.8], steps, paths=paths, save_every=steps, rng=0, threads=1)
calls = 100 if steps > 1000 else 2
timed("gradient of a net", lambda: [loss.grad(w) for _ in range(calls)], calls)
for name, rule in (("SGD", md.SGD(0.01)), ("Adam", md.Adam(0.01))):
    timed(f"{name}, one path", run(rule, 1), steps)
    timed(f"{name}, {paths} paths", run(rule, paths), steps * paths)
print("JSON", json.dumps(taken))
"""


def _measure(compiler: str, *sizes: int) -> dict[str, list[float]]:
    """Of each piece of work: seconds of compiling, seconds of a unit of work."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", _WORK, *map(str, sizes)],
            env={**_environment(cache), "MINIDYN_COMPILER": compiler},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.split("JSON ", 1)[1])


def costs(quick: bool) -> Iterator[Row]:
    """numba and plain Python beside minidyn's compiler: what is compiled at first, and a step of a path."""
    compiled, slow = (10, 200, 20_000, 512), (10, 200, 20, 8)  # units, samples, steps, paths
    sizes = {"own": compiled, "numba": compiled, "python": slow}
    found = {c: [_measure(c, *sizes[c]) for _ in range(1 if quick else 3)] for c in sizes}
    own = found.pop("own")
    for compiler, runs in found.items():
        if compiler != "python":
            a, b = (statistics.median(sum(first for first, _ in r.values()) for r in rs) for rs in (own, runs))
            yield Row("compiling all of these", "s", a, compiler, b, note=f"{b / a:.3g} times minidyn's")
        for ours, theirs in zip(own[0], runs[0], strict=True):
            a, b = (statistics.median(r[n][1] for r in rs) * 1e6 for rs, n in ((own, ours), (runs, theirs)))
            yield Row(ours, "us", a, compiler, b, note=f"{b / a:.3g} times minidyn's")
