"""What a cluster costs and gains: a task's overhead, two workers beside one, the client's memory. Time on the clock."""

from __future__ import annotations

import multiprocessing as mp
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import minidyn as md
from benchmarks import problems
from benchmarks.harness import Row, interleaved
from benchmarks.startup import _environment
from minidyn.simulate import ensembles

W0 = [1.0, 0.8]
_TASKS, _PATHS = 128, 2048


def _noisy() -> md.Map:
    return md.Map(problems.valley(), md.SGD(0.01), md.GaussianNoise(0.5))


def _run(executor: Any, steps: int, parts: int, **options: Any) -> md.Run:
    """An ensemble in so many parts, by the workers of an executor or, without one, in one piece on one thread."""
    given = {"paths": _PATHS, "save_every": steps, "rng": 0, "threads": 1, "progress": False, **options}
    bounds = [given["paths"] * n // parts for n in range(parts + 1)]
    with patch.object(ensembles, "_bounds", lambda *_: bounds):
        return md.simulate(_noisy(), W0, steps, executor=executor, **given)


def _half(steps: int, first: int, count: int) -> str:
    """What a process by hand does: half of the paths, named by where they begin."""
    return _run(None, steps, 1, first_path=first, paths=count).digest()


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    given = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**given) as cluster, Client(cluster) as client:
        yield client


def gains(quick: bool) -> Iterator[Row]:
    """Overhead of a task for a pool and a cluster; two workers of a cluster beside one, and beside two processes that
    are sent a half each."""
    repeats, long = (3, 200_000) if quick else (5, 800_000)
    with _cluster(1) as one, _cluster(2) as two, ProcessPoolExecutor(2, mp.get_context("spawn")) as pool:
        yield from _overheads({"a pool of processes": pool, "a local cluster": one}, repeats)

        def by_hand(processes: int) -> None:
            size = _PATHS // processes
            list(pool.map(_half, [long] * processes, range(0, _PATHS, size), [size] * processes))

        cases: dict[str, Callable[[], object]] = {
            "one": lambda: _run(one, long, 16),
            "two": lambda: _run(two, long, 16),
            "one by hand": lambda: by_hand(1),
            "two by hand": lambda: by_hand(2),
        }
        assert _run(two, long, 16).digest() == _run(None, long, 1).digest()
        taken = interleaved(cases, repeats, wall=True, least=0)
    gain, hand = taken["one"] / taken["two"], taken["one by hand"] / taken["two by hand"]
    note = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in taken.items())
    yield Row("two workers of a cluster over one", "times", gain, "two processes", hand, 0.9, note, least=True)


def _overheads(executors: dict[str, Any], repeats: int) -> Iterator[Row]:
    """Seconds that a task takes beyond those of its part where it runs here, with one worker at a time."""
    for name, executor in executors.items():
        workers = 2 if isinstance(executor, ProcessPoolExecutor) else 1
        cases: dict[str, Callable[[], object]] = {
            "there": lambda executor=executor: _run(executor, 10, _TASKS),
            "here": lambda: [_run(None, 10, 1, first_path=16 * n, paths=16) for n in range(_TASKS)],
        }
        taken = interleaved(cases, repeats, wall=True, least=0)
        spent = (taken["there"] * workers - taken["here"]) / _TASKS
        note = f"{_TASKS} parts of {taken['here'] / _TASKS * 1e3:.2g} ms, {workers} processes"
        yield Row(f"overhead of a task, {name}", "ms", spent * 1e3, bar=20.0, note=note)


# Runs in a new process: bytes that the run returns, that the process has before it, and at its peak.
_MEMORY = """
from pathlib import Path
import minidyn as md
from benchmarks import cluster
if __name__ == "__main__":
    import sys
    paths, saves, keep = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    def said(what):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))
    with cluster._cluster(2) as client:
        cluster._run(client, 10, 16)  # everything is loaded
        before = said("VmRSS")
        run = md.simulate(cluster._noisy(), cluster.W0, 2 * saves, paths=paths, save_every=2, rng=0, keep=keep,
                          executor=client)
        kept = 0 if run.w is None else run.w.nbytes
        print("MEMORY", kept, before, said("VmHWM"))
"""


def memory(quick: bool) -> Iterator[Row]:
    """Peak memory of a cluster's client beyond what it returns and what minidyn and dask have before the run, of 10^8
    values of each parameter."""
    given = {"moments of 10^6 paths, 100 saves": ("moments", 1_000_000), "10^6 paths, 100 saves": ("paths", 1_000_000)}
    with tempfile.TemporaryDirectory() as cache:
        script = f"{cache}/client.py"
        with open(script, "w", encoding="utf-8") as file:
            file.write(_MEMORY)
        for what, (keep, paths) in list(given.items())[: 1 if quick else None]:
            command = [sys.executable, script, str(paths), "100", keep]
            began = time.perf_counter()
            done = subprocess.run(command, env=_environment(cache), capture_output=True, text=True, check=True)
            kept, before, peak = (float(x) / 2**20 for x in done.stdout.split("MEMORY", 1)[1].split())
            taken = time.perf_counter() - began
            note = f"peak {peak:.0f} MiB, returned {kept:.0f} MiB, loaded {before:.0f} MiB, {taken:.0f} s"
            yield Row(f"client's memory, {what}", "MiB", peak - kept - before, bar=200.0, note=note)
