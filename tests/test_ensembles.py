"""One ensemble on many workers: the run of all paths, to the last bit, however it is split and whatever is killed."""

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.simulate import ensembles, joining, tasks

x, y, a, b, u = sp.symbols("x y a b u")
SGD = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))
DATA = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5))
GD = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.4))
WILD = md.Map(md.Loss(x**4 - x**2, [x]), md.SGD(0.1), md.GaussianNoise(3.0))
ADDITIVE = md.SymbolicFlow(SGD, [-x * y**2, -(1 + x**2) * y], [0.1, 0.2])
COUNT = 330
STARTS = np.tile([1.0, 0.02], (COUNT, 1)) + 0.001 * np.arange(COUNT)[:, None]
NEAR, FAR = STARTS * [1.0, 0.1], STARTS + np.array([1.0, 0.3])
RATES = np.linspace(0.05, 0.15, COUNT)

CASES = {
    "map": (SGD, [1.0, 0.02], {"observe": "loss"}),
    "momentum": (md.Map(DATA, md.SGD(0.1, momentum=0.5), md.Reshuffle(2)), STARTS,
                 {"observe": "update_sharpness", "save_every": 40}),
    "diverging": (WILD, [0.5], {"observe": "loss"}),
    "settings": (SGD, [1.0, 0.02], {"hyper": {"lr": RATES, "sigma": 0.1}, "observe": "loss"}),
    "stopping": (SGD, STARTS, {"stop": x - 1.2, "save_every": 1}),
    "logarithmic": (SGD, STARTS, {"save_every": "log", "first_step": 3, "first_path": 100}),
    "quasistatic": (md.QuasistaticFlow(SGD), NEAR, {"observe": "trace"}),
    "adaptive": (ADDITIVE, STARTS, {"substeps": "adaptive"}),
    "flow": (md.GradientFlow(SGD), STARTS, {"stop": y - 0.01, "observe": {"twice": 2 * x}}),
    "rod": (md.RodFlow(GD), FAR, {}),
    "alike": (md.GradientFlow(SGD), [1.0, 0.02], {}),
    "still": (GD, FAR, {"save_every": 2}),
}  # fmt: skip


def run(name="map", steps=40, **more):
    """A run of a few blocks of paths."""
    system, w0, options = CASES[name]
    return md.simulate(system, w0, steps, **{"paths": COUNT, "rng": 3, "progress": False, **options, **more})


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp.get_context("spawn")) as made:
        yield made


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(3) as made:
        yield made


@pytest.fixture
def cut(monkeypatch):
    """Any bounds of parts."""

    def at(*bounds):
        monkeypatch.setattr(ensembles, "_bounds", lambda *_: list(bounds))

    return at


@pytest.mark.parametrize("keep", ["paths", "moments"])
@pytest.mark.parametrize("name", CASES)
def test_any_parts_are_the_whole(name, keep, threads, cut):
    """However the paths are split, everything that a run holds is that of the run in one piece, its meta too."""
    whole = run(name, keep=keep)
    rng = np.random.default_rng(len(name))
    inner = sorted(rng.choice(np.arange(64, COUNT), 4, replace=False).tolist())
    for bounds in ([0, COUNT], [0, 64, 128, 192, 256, COUNT], [0, *inner, COUNT]):
        cut(*bounds)
        split = run(name, keep=keep, executor=threads)
        assert split.digest() == whole.digest()
        assert split == whole, {k: (whole.meta.get(k), v) for k, v in split.meta.items() if whole.meta.get(k) != v}


@pytest.mark.parametrize("name", ["map", "settings", "quasistatic"])
def test_processes_have_the_same_bits(name, pool):
    """Processes that were spawned, and this one, run the same paths."""
    assert run(name, executor=pool) == run(name)
    assert run(name, executor=pool, keep="moments") == run(name, keep="moments")


@pytest.mark.parametrize("system, flows", [
    (SGD, (md.QuasistaticFlow, md.StochasticModifiedFlow)), (GD, (md.RodFlow, md.GradientFlow)),
], ids=["noisy", "still"])  # fmt: skip
def test_comparisons_on_workers_are_those_of_this_process(system, flows, tmp_path, threads, pool):
    """The map and each flow in parts: the same table, quantities and runs, also where it goes on without its seed."""
    call = dict(w0=NEAR, steps=40, paths=COUNT, observe="loss", progress=False)
    made = [flow(system) for flow in flows]
    here = md.compare(system, *made, rng=3, **call)
    for executor in (threads, pool):
        there = md.compare(system, *made, rng=3, executor=executor, checkpoint=tmp_path / "folder", **call)
        again = md.compare(system, *made, executor=threads, checkpoint=tmp_path / "folder", **call)
        for found in (there, again):
            assert found.errors == here.errors and len(here.errors) > 0
            assert {name: run.digest() for name, run in found.runs.items()} == {
                name: run.digest() for name, run in here.runs.items()
            }
            for name, by in here.quantities.items():
                for label, values in by.items():
                    np.testing.assert_array_equal(found.quantities[name][label], values)


def test_moments_do_not_need_all_values_at_once(threads, monkeypatch):
    """Values are read back a few saves at a time, whatever fits, to the same moments."""
    whole = run(keep="moments")
    for room in (1, 50_000):
        monkeypatch.setattr(joining, "_READ", room)
        assert run(keep="moments", executor=threads) == whole


def test_a_folder_goes_on_with_other_workers(tmp_path, threads, monkeypatch):
    """A job stopped after a few parts goes on in its folder; finished, no part runs, whether paths or moments are kept;
    parameters are mapped from disk, and a run that was returned before stays as it was."""
    carried = []
    real = ensembles._Part.__call__

    def counted(self, piece):
        carried.append(piece[0])
        if len(carried) >= 4:  # also what the pool had taken before it heard
            raise ZeroDivisionError
        return real(self, piece)

    monkeypatch.setattr(ensembles._Part, "__call__", counted)
    with ThreadPoolExecutor(1) as one, pytest.raises(ZeroDivisionError):
        run(checkpoint=tmp_path, executor=one)
    kept = len(list(tmp_path.glob("task-*")))
    assert kept == 3 and set(carried[:4]) == {0, 64, 128, 192}
    del carried[:]
    first = run(checkpoint=tmp_path, executor=threads)
    assert sorted(carried) == [192, 256, 320] and isinstance(first.w, np.memmap)
    assert first == run() and not first.w.flags.writeable
    monkeypatch.setattr(ensembles._Part, "__call__", None)
    assert run(checkpoint=tmp_path, executor=threads) == first == run()
    assert run(checkpoint=tmp_path, executor=threads, keep="moments") == run(keep="moments")


def test_a_run_without_a_seed_goes_on_with_its_own(tmp_path, threads):
    """With rng=None the seed of the folder is taken."""
    first = run(checkpoint=tmp_path, executor=threads, rng=None)
    assert run(checkpoint=tmp_path, executor=threads, rng=None).digest() == first.digest() != run().digest()


@pytest.mark.parametrize("other", [{"steps": 41}, {"rng": 4}, {"first_path": 1}, {"paths": 329}, {"observe": "trace"}])
def test_another_ensembles_folder_is_refused(other, tmp_path, threads):
    """A folder says of which ensemble it is, and a checkpoint of a run in one piece is no such folder."""
    run(checkpoint=tmp_path / "parts", executor=threads)
    with pytest.raises(md.InputError, match="belongs to another run"):
        run(checkpoint=tmp_path / "parts", executor=threads, **other)
    run(checkpoint=tmp_path / "whole")
    with pytest.raises(md.InputError, match=r"holds other things \(state\)"):
        run(checkpoint=tmp_path / "whole", executor=threads)
    with pytest.raises(md.InputError, match=r"holds other things \(job\)"):
        run(checkpoint=tmp_path / "parts")


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"observe": "nothing"}, "no observable is called 'nothing'"),
        ({"w0": np.ones((7, 2))}, r"w0 has shape \(7, 2\)"),
        ({"w0": [np.nan, 1.0]}, "w0 contains NaN"),
        ({"keep": "all"}, "keep is"),
        ({"executor": 0}, "executor is 0"),
        ({"executor": "dask"}, "executor must be a whole number"),
        ({"hyper": {"lr": np.ones(7)}}, "lr"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_arguments_are_checked_before_anything_runs(wrong, says, threads, monkeypatch):
    """What a run in one piece refuses is refused here, in the same words."""
    monkeypatch.setattr(ensembles._Part, "__call__", None)
    given = {"w0": [1.0, 0.0], "paths": COUNT, "executor": threads} | wrong
    with pytest.raises(md.InputError, match=says):
        md.simulate(SGD, given.pop("w0"), 40, **given)


def test_ctrl_c_returns_the_parts_that_there_are(threads, monkeypatch):
    """Paths of parts that are not done are `interrupted` before the first step; the others are what they are."""

    def stopped(self, turn, real=tasks._Job._awaited):
        if turn == 3:
            raise KeyboardInterrupt
        return real(self, turn)

    monkeypatch.setattr(tasks._Job, "_awaited", stopped)
    whole = run()
    for keep in ("paths", "moments"):
        part = run(executor=threads, keep=keep)
        assert (part.status[:192] == md.Status.FINISHED).all() and (part.status[192:] == md.Status.INTERRUPTED).all()
        assert (part.ended == np.where(part.finished, 40, 0)).all()
        if keep == "paths":
            np.testing.assert_array_equal(part.w[:192], whole.w[:192])
            assert np.isnan(part.w[192:]).all()
        else:
            np.testing.assert_array_equal(part.moments["x"]["count"], 192)
            assert part.moments["x"]["mean"][-1] == whole.w[:192, -1, 0].mean()


_CHILD = """
import sys, sympy as sp, minidyn as md
if __name__ == "__main__":
    x, y = sp.symbols("x y")
    sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))
    run = md.simulate(sgd, [1.0, 0.0], 300_000, paths=1024, save_every=10_000, rng=3,
                      executor=1, checkpoint=sys.argv[1])
    run.save(sys.argv[2])
"""


def test_killed_clients_leave_no_workers_and_go_on(tmp_path):
    """A client that is killed takes its workers along; the next one ends with the same run."""
    script = tmp_path / "script.py"
    script.write_text(_CHILD)
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    seen = []
    for turn in range(2):
        child = subprocess.Popen([sys.executable, script, tmp_path / "job", tmp_path / "end.h5"], env=here)
        while turn == 0 and child.poll() is None:
            if len(list((tmp_path / "job").glob("task-*"))) >= 2:
                workers = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/stat") if _parent(p) == child.pid]
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        child.wait()
        seen.append(len(list((tmp_path / "job").glob("task-*"))))
    assert 2 <= seen[0] < 16 == seen[1] and child.returncode == 0
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    whole = md.simulate(SGD, [1.0, 0.0], 300_000, paths=1024, save_every=10_000, rng=3)
    assert md.load(tmp_path / "end.h5").digest() == whole.digest()


def _parent(stat):
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


# Runs of parts ----------


@pytest.mark.parametrize("name", ["map", "diverging", "settings", "logarithmic", "flow", "still"])
def test_saved_parts_join_to_the_whole(name, tmp_path):
    """Runs of parts that were saved, in any order, are the run in one piece."""
    whole, base = run(name), CASES[name][2].get("first_path", 0)
    starts = np.broadcast_to(np.atleast_2d(CASES[name][1]), (COUNT, whole.w.shape[2]))
    parts = []
    for first, last in ((200, COUNT), (0, 70), (70, 200)):
        own = {"hyper": {"lr": RATES[first:last], "sigma": 0.1}} if name == "settings" else {}
        given = {"rng": 3, **CASES[name][2], **own, "first_path": base + first}
        md.simulate(CASES[name][0], starts[first:last], 40, paths=last - first, **given).save(tmp_path / f"{first}")
        parts.append(md.load(tmp_path / f"{first}"))
    assert md.join(parts) == whole and [p.meta["paths"] for p in parts] == [COUNT - 200, 70, 130]


def test_what_is_no_part_is_refused():
    """Gaps, overlaps, other ensembles, moments and what is no run are refused with what is wrong."""
    zero, one, two = (md.simulate(SGD, [1, 1], 9, paths=50, first_path=50 * n, rng=0) for n in range(3))
    with pytest.raises(md.InputError, match="after path 49 comes path 100"):
        md.join([zero, two])
    with pytest.raises(md.InputError, match="after path 99 comes path 50"):
        md.join([zero, one, one])
    with pytest.raises(md.InputError, match=r"no parts of one ensemble: seed is '0' of the first paths and '1'"):
        md.join([zero, md.simulate(SGD, [1, 1], 9, paths=50, first_path=50, rng=1)])
    with pytest.raises(md.InputError, match="no parts of one ensemble: saves"):
        md.join([zero, md.simulate(SGD, [1, 1], 9, paths=50, first_path=50, rng=0, save_every=3)])
    with pytest.raises(md.InputError, match="moments, which rest on all paths"):
        md.join([md.simulate(SGD, [1, 1], 9, paths=50, rng=0, keep="moments")])
    with pytest.raises(md.InputError, match="not 3"):
        md.join([3])
    with pytest.raises(md.InputError, match="no runs to join"):
        md.join([])
