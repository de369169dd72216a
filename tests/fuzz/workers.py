"""Ensembles whose workers are killed at any instant: others run what they were at, to the same bits.

    python tests/fuzz/workers.py --seed 0 --kills 20                 # a pool of forked processes
    python tests/fuzz/workers.py --kills 20 --kind spawn             # processes that start anew
    python tests/fuzz/workers.py --kills 20 --kind dask --workers 4  # a local cluster

An ensemble is run again and again while SIGKILL ends one worker after the other. Prints every run with other bits, or
that ends with an error; ends with 1 if there is any.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import command
import sympy as sp

import minidyn as md

KINDS = ("fork", "spawn", "dask")
x, y = sp.symbols("x y")
SGD = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05), md.GaussianNoise(0.3))


def ensemble(executor: Any = None) -> str:
    """The digest of a run of 16 parts of some 20 ms each."""

    def slow(w: Any) -> Any:
        time.sleep(0.002)
        return w[:, 0]

    made = md.simulate(
        SGD, [1.0, 0.1], 400, paths=1024, save_every=40, rng=1, executor=executor, observe={"q": slow}, progress=False
    )
    return made.digest()


@contextmanager
def crew(kind: str, workers: int) -> Iterator[tuple[Any, Callable[[], list[int]]]]:
    """What is given as `executor`, and the numbers of the processes behind it."""
    if kind == "dask":
        import dask
        from distributed import Client, LocalCluster

        given = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        # 15 s after a worker was lost the cluster gives up its nanny, if it is away then: it may be, for another kill
        lasting = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"})

        def running() -> list[int]:
            nannies = list(cluster.workers.values())
            return [n.pid for n in nannies if n.pid and n.process and n.process.status.name == "running"]

        with lasting, LocalCluster(**given) as cluster, Client(cluster) as client:
            yield client, running
        return
    context = mp.get_context("forkserver" if kind == "fork" else kind)
    if kind == "fork":
        context.set_forkserver_preload(["minidyn"])
    made: list[ProcessPoolExecutor] = []

    def make() -> ProcessPoolExecutor:
        made.append(ProcessPoolExecutor(workers, context))
        return made[-1]

    yield make, lambda: list((made[-1]._processes or {}) if made else {})


def failures(seed: int, kills: int, kind: str = "fork", workers: int = 2, pause: float = 0.5) -> int:
    """How many runs go wrong until so many workers were killed; each is printed."""
    rng, bad, runs, done = random.Random(seed), 0, 0, 0
    expected = ensemble()
    with crew(kind, workers) as (executor, numbers):
        over = threading.Event()

        def kill() -> None:
            nonlocal done
            while done < kills and not over.wait(rng.uniform(0, 2 * pause)):
                if pids := numbers():
                    with suppress(ProcessLookupError):
                        os.kill(rng.choice(pids), signal.SIGKILL)
                        done += 1

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            while done < kills:
                runs += 1
                try:
                    found = ensemble(executor)
                except md.MinidynError as error:
                    found = str(error)
                if found != expected:
                    bad += 1
                    print(f"{kind}, run {runs}: {found}", flush=True)
        finally:
            over.set()
            killer.join()
    print(f"{done} kills in {runs} runs, {bad} failures")
    return bad


def main() -> int:
    """Make the kills that the command line asks for."""
    parser = command.parser(__doc__, kills=20, workers=2)
    parser.add_argument("--kind", choices=KINDS, default="fork", help="how workers are made")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two kills, on average")
    wanted = parser.parse_args()
    return int(bool(failures(wanted.seed, wanted.kills, wanted.kind, wanted.workers, wanted.pause)))


if __name__ == "__main__":
    sys.exit(main())
