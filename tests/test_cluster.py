"""A cluster of dask's as the workers of an ensemble: the same bits with 1, 2 and 4 workers, killed or not."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import sympy as sp
from distributed import Client, LocalCluster

import minidyn as md

x, y = sp.symbols("x y")
SGD = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))
FLOW = md.QuasistaticFlow(SGD)


@pytest.fixture(scope="module")
def cluster():
    given = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    lasting = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"})  # see docs/cluster.md
    with lasting, LocalCluster(**given, silence_logs="CRITICAL") as made, Client(made) as client:
        yield made, client


def run(executor=None, system=SGD, **options):
    """A run of some blocks of paths, observed by a function of this module and a name."""
    given = {"paths": 1000, "save_every": 8, "rng": 3, "observe": ["loss", square], "progress": False} | options
    return md.simulate(system, [1.0, 0.0], 80, executor=executor, **given)


def square(w):
    return w[:, 0] ** 2


def slow(w):
    time.sleep(0.005)
    return w[:, 0]


def test_one_two_and_four_workers_have_the_same_bits(cluster, tmp_path):
    """Paths, moments and flows are those of one process, by the client and by its executor, in memory and in a folder;
    a folder that four workers began is finished by another executor."""
    made, client = cluster
    whole, moments, flow = run(), run(keep="moments"), run(system=FLOW, observe="trace")
    for count in (1, 2, 4):
        made.scale(count)
        client.wait_for_workers(count, timeout=60)
        assert run(client) == whole
    assert run(client.get_executor(), keep="moments") == moments
    assert run(client, FLOW, observe="trace") == flow
    assert run(client, checkpoint=tmp_path) == whole
    for part in list(tmp_path.glob("task-*"))[::2]:
        part.unlink()
    with ThreadPoolExecutor(2) as threads:
        assert run(threads, checkpoint=tmp_path) == whole


def test_killed_workers_leave_no_trace(cluster):
    """Workers that are killed at random instants while parts are under way change nothing."""
    made, client = cluster
    rng, whole, killed, over = np.random.default_rng(0), run(observe=slow), [], threading.Event()

    def kill():
        while len(killed) < 3 and not over.wait(rng.uniform(0.1, 0.6)):
            if pids := [nanny.pid for nanny in list(made.workers.values()) if nanny.pid]:
                killed.append(int(rng.choice(pids)))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while len(killed) < 3:
            assert run(client, observe=slow) == whole
    finally:
        over.set()
        killer.join()


def swept(executor=None, **options):
    """A sweep over numbers and structure, with a function of this module observed."""
    over = {"lr": np.geomspace(0.01, 0.5, 12), "noise": [None, SGD.noise], "x": [0.5, 1.0]}
    given = {"steps": 60, "paths": 40, "rng": 5, "observe": ["loss", square], "progress": False} | options
    return md.sweep(SGD, over=over, w0=[0.0, 0.2], executor=executor, **given)


def test_a_sweep_has_the_same_bits_on_a_cluster(cluster, tmp_path):
    """Settings on a cluster, some of whose workers are killed, on spawned processes, in a folder: one process's."""
    made, client = cluster
    made.scale(2)
    whole = swept()
    assert swept(client) == whole and swept(client, checkpoint=tmp_path) == whole
    flows = {"over": {"lr": [0.05, 0.1]}, "w0": [1.0, 0.0], "steps": 20, "paths": 30, "rng": 1}
    assert md.sweep(SGD, md.QuasistaticFlow, executor=client, **flows) == md.sweep(SGD, md.QuasistaticFlow, **flows)
    assert md.sweep(FLOW, executor=2, **flows) == md.sweep(FLOW, **flows)
    for part in list(tmp_path.glob("task-*"))[::2]:
        part.unlink()
    assert swept(checkpoint=tmp_path) == whole
