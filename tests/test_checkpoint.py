"""Runs with a checkpoint: killed at any instant they end with the same bits, or an error says why not."""

import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.common.wholefiles import LOCKS
from minidyn.files import results
from minidyn.kernels.random import seed_key

room = importlib.import_module("minidyn.simulate.checkpoint")
engines = importlib.import_module("minidyn.simulate.engines")
choose = importlib.import_module("minidyn.simulate.choose")
simulating = importlib.import_module("minidyn.simulate")

x, y, a, b, u = sp.symbols("x y a b u")
SGD = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))
DATA = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5))
SYSTEMS = {
    "map": SGD,
    "reshuffle": md.Map(DATA, md.SGD(0.1, momentum=0.5), md.Reshuffle(2)),
    "sde": md.QuasistaticFlow(SGD),
    "ode": md.GradientFlow(SGD),
}
OPTIONS = {  # methods whose state is more than the paths and their streams
    "refined": ("sde", {"substeps": 0.25}),
    "adaptive": ("additive", {"substeps": "adaptive"}),
    "radau": ("ode", {"method": "radau"}),
    "stopping": ("ode", {"stop": y - 1e-4}),
    "rod": ("rod", {}),
    "central": ("central", {}),
    "subquadratic": ("subquadratic", {}),
    "modified": ("modified", {}),
}
GD = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.4))
MORE = {
    "additive": lambda: md.SymbolicFlow(SGD, [-x * y**2, -(1 + x**2) * y], [0.1, 0.2]),
    "modified": lambda: md.ModifiedFlow(GD),
    "rod": lambda: md.RodFlow(GD),
    "central": lambda: md.CentralFlow(GD),
    "subquadratic": lambda: md.SubquadraticFlow(GD),
}
STARTS = np.tile([1.0, 0.02], (70, 1)) + 0.001 * np.arange(70)[:, None]


def run(system=SGD, checkpoint=None, steps=40, **options):
    """A small run of 70 paths with 6 saves."""
    given = {"paths": 70, "save_every": 8, "rng": 3, "observe": "loss"} | options
    return md.simulate(system, STARTS, steps, checkpoint=checkpoint, **given)


@contextmanager
def interrupted(monkeypatch, turn=3):
    """Ctrl-C at a save."""

    def save(self, engine, real=room.Recorder.save):
        if self.count == turn:
            raise KeyboardInterrupt
        real(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(room.Recorder, "save", save)
        yield


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """States are written at every look, and a look comes every three steps."""
    monkeypatch.setattr(room, "SECONDS", 0.0)
    monkeypatch.setattr(room, "SPARE", 0.0)
    monkeypatch.setattr(engines._Threaded, "slice", lambda self, wanted: min(wanted, 3))


# The same bits ----------


@pytest.mark.parametrize("name, keep", [("map", "moments"), *((name, "paths") for name in SYSTEMS)])
def test_stopped_at_every_instant_and_resumed(name, keep, tmp_path, monkeypatch):
    """What is on disk before and after every write, sync and rename is enough to end with the same bits."""
    system, folder, taken = SYSTEMS[name], tmp_path / "run", []

    def snapping(function):
        def call(*arguments, **options):
            snap()
            result = function(*arguments, **options)
            snap()
            return result

        return call

    def snap():
        taken.append(tmp_path / f"snap-{len(taken)}")
        shutil.copytree(folder, taken[-1])

    whole = run(system, keep=keep).digest()
    with monkeypatch.context() as patch:
        patch.setattr(room.os, "fsync", snapping(os.fsync))
        patch.setattr(room.os, "replace", snapping(os.replace))
        patch.setattr(room.FileRows, "put", snapping(room.FileRows.put))
        assert run(system, folder, keep=keep).digest() == whole
    assert len(taken) > 40
    for at in taken[:12:2] + taken[12 :: len(taken) // 8] + taken[-2:]:
        assert run(system, at, keep=keep).digest() == whole, at.name


@pytest.mark.parametrize("name", OPTIONS)
def test_every_method_goes_on_where_it_was_stopped(name, tmp_path, monkeypatch):
    """Whatever a method carries along (steps under way, dense output, conditions, orbits) is in its state."""
    kind, options = OPTIONS[name]
    system = SYSTEMS[kind] if kind in SYSTEMS else MORE[kind]()
    at = [1.0, 0.02] if system.map is SGD else [2.0, 0.3]
    given = {"paths": 3, "save_every": 8, "rng": 3, **options}

    whole = md.simulate(system, at, 40, observe="loss", **given)
    with interrupted(monkeypatch):
        part = md.simulate(system, at, 40, observe="loss", checkpoint=tmp_path, **given)
    assert len(part.steps) == 3
    again = md.simulate(system, at, 40, observe="loss", checkpoint=tmp_path, **given)
    assert again.digest() == whole.digest()


_CHILD = """
import importlib, sys, time, sympy as sp, minidyn as md
room = importlib.import_module("minidyn.simulate.checkpoint")
room.SECONDS, save = 0.0, room.Recorder.save
room.Recorder.save = lambda self, engine: (time.sleep(0.005), save(self, engine))  # long enough to be killed
x, y = sp.symbols("x y")
sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))
md.simulate(sgd, [1.0, 0.0], 20_000, paths=640, save_every=50, rng=3, checkpoint=sys.argv[1]).save(sys.argv[2])
"""


def done(state):
    """How many steps a state has behind it."""
    if not state.exists():
        return 0
    with state.open("rb") as source:
        return room._header(source)["done"]


def test_killed_processes_end_with_the_same_file(tmp_path):
    """Processes killed with SIGKILL while running leave a folder from which the next one goes on, to the same data."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    steps = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, tmp_path / "run", tmp_path / "end.h5"], env=environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.poll() is None:
            if len(steps) < 2 and done(tmp_path / "run" / "state") > max([0, *steps]):
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        child.wait()
        steps.append(done(tmp_path / "run" / "state"))
    assert 0 < steps[0] < steps[1] < steps[2] == 20_000 and child.returncode == 0
    whole = md.simulate(SGD, [1.0, 0.0], 20_000, paths=640, save_every=50, rng=3)
    assert md.load(tmp_path / "end.h5").digest() == whole.digest()


@pytest.mark.parametrize("name", SYSTEMS)
def test_state_of_an_engine_is_complete(name):
    """An engine made anew and restored goes on with the bits of the one whose state it was."""
    system = SYSTEMS[name]
    start = simulating.starts_of(system, STARTS, 70)
    one, other = (choose.make_engine(system, start, 40, seed_key(seed)[1]) for seed in (3, 4))
    one.advance(0, 20)
    other.restore({name: array.copy() for name, array in one.state().items()})
    for engine in (one, other):
        engine.advance(20, 20)
    np.testing.assert_array_equal(other.parameters(), one.parameters())
    np.testing.assert_array_equal(other.ending(40), one.ending(40))


def test_finished_run_is_returned_at_once(tmp_path, monkeypatch):
    """The same call on a finished checkpoint takes no step, and remembers the wall time."""
    first = run(checkpoint=tmp_path)
    monkeypatch.setattr(engines.MapEngine, "advance", None)
    again = run(checkpoint=tmp_path)
    assert again.digest() == first.digest() and again.meta["wall_seconds"] >= 0.5 * first.meta["wall_seconds"]


def test_saves_are_on_disk_and_mapped(tmp_path):
    """With a checkpoint the parameters are a read-only map of a file that holds exactly the saves."""
    kept = run(checkpoint=tmp_path)
    assert isinstance(kept.w, np.memmap) and not kept.w.flags.writeable
    np.testing.assert_array_equal(kept.w, run().w)
    assert (tmp_path / "w.rows").stat().st_size == kept.w.size * 8
    kept.to_xarray()
    kept.plot()


def test_ctrl_c_leaves_a_checkpoint(tmp_path, monkeypatch):
    """After Ctrl-C the same call goes on, and the interrupted run stays as it was."""
    with interrupted(monkeypatch):
        part = run(checkpoint=tmp_path)
    before = part.digest()
    assert (part.status == md.Status.INTERRUPTED).all() and len(part.steps) == 3
    assert run(checkpoint=tmp_path).digest() == run().digest()
    assert part.digest() == before


def test_a_run_without_a_seed_goes_on_with_its_own(tmp_path):
    """With rng=None the seed of the checkpoint is taken."""
    first = run(checkpoint=tmp_path, rng=None)
    assert run(checkpoint=tmp_path, rng=None).digest() == first.digest()
    assert run(rng=json.loads(first.meta["seed"])).digest() == first.digest()


def test_comparisons_and_studies_keep_checkpoints(tmp_path, monkeypatch):
    """Comparisons and scaling studies that were finished before are the same again, without a step."""
    flow = md.QuasistaticFlow(SGD)

    def both(at=lambda name: None):
        comparison = md.compare(SGD, flow, w0=[1, 0], steps=16, paths=30, rng=0, checkpoint=at("c"))
        study = md.scaling_study(SGD, flow, lrs=[0.1, 0.05], w0=[1, 0], time=1.0, paths=30, rng=0, checkpoint=at("s"))
        return [run.digest() for run in comparison.runs.values()], repr(study)

    plain, kept = both(), both(lambda name: tmp_path / name)
    monkeypatch.setattr(engines.MapEngine, "advance", None)
    assert plain == kept == both(lambda name: tmp_path / name)


def test_a_flows_foreign_checkpoint_is_found_before_anything_runs(tmp_path, monkeypatch):
    """A comparison whose second or third part belongs to another run says so before its map takes a step, and changes
    nothing in the folder; with the folder of its own it goes on."""
    flows = [md.StochasticModifiedFlow(SGD, order) for order in (1, 2)]
    given = {"w0": [1, 0], "steps": 16, "paths": 30, "rng": 0, "progress": False}
    whole = md.compare(SGD, *flows, **given, checkpoint=tmp_path)
    for part in ("1", "2"):
        for other in ({"substeps": 0.5}, {"rng": 1}):
            shutil.rmtree(tmp_path)
            md.compare(SGD, *flows, **(given | other), checkpoint=tmp_path)
            for name in {"0", "1", "2"} - {part}:
                shutil.rmtree(tmp_path / name)
            before = sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*"))
            with monkeypatch.context() as m:
                m.setattr(md.simulate.__globals__["_Planned"], "run", None)
                with pytest.raises(md.InputError, match=rf"{part} belongs to another run: (substeps|seed) is"):
                    md.compare(SGD, *flows, **given, checkpoint=tmp_path)
            assert sorted(p.stat().st_mtime_ns for p in tmp_path.rglob("*")) == before
    shutil.rmtree(tmp_path)
    for _ in range(2):
        again = md.compare(SGD, *flows, **given, checkpoint=tmp_path)
        assert [run.digest() for run in again.runs.values()] == [run.digest() for run in whole.runs.values()]


@pytest.mark.parametrize("how", ["streamed", "moments"])
def test_memory_does_not_grow_with_saves(how, tmp_path):
    """Ten times as many saves of 20,000 paths take no more memory, streamed to disk or reduced to moments."""
    peaks = []
    for saves in (4, 40):
        options = {"checkpoint": tmp_path / str(saves)} if how == "streamed" else {"keep": "moments"}
        tracemalloc.start()
        md.simulate(SGD, [1.0, 0.0], 3 * saves, paths=20_000, save_every=3, rng=0, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0] < 20e6


# Refusals ----------


def refused(error=md.InputError, **changes):
    with pytest.raises(error) as caught:
        run(**changes)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and ". " not in re.sub(r"\.{3,}", "", text)
    return text


def test_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch):
    """Other steps, seeds, starts, rules, noises or versions are named, with what the checkpoint has."""
    run(checkpoint=tmp_path)
    assert "steps is 40 there and 32 here; give another path" in refused(checkpoint=tmp_path, steps=32)
    assert "seed is 3 there and 4 here" in refused(checkpoint=tmp_path, rng=4)
    assert "keep is paths there and moments here" in refused(checkpoint=tmp_path, keep="moments")
    assert "system is " in refused(checkpoint=tmp_path, system=SYSTEMS["ode"])
    louder = md.Map(SGD.loss, SGD.rule, md.GaussianNoise(0.3 + 1e-15))
    assert "belongs to another run" in refused(checkpoint=tmp_path, system=louder)
    made = simulating.provenance
    monkeypatch.setattr(simulating, "provenance", lambda: made() | {"minidyn": "9.9"})
    assert "minidyn is" in refused(checkpoint=tmp_path) and "9.9 here" in refused(checkpoint=tmp_path)


def test_folders_that_hold_something_else_are_refused(tmp_path):
    """A folder with foreign files, a file, and what is no path are refused, and left as they are."""
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "w.rows").symlink_to(tmp_path / "thesis.tex")
    assert "holds other things (w.rows)" in refused(checkpoint=tmp_path / "linked")
    shutil.rmtree(tmp_path / "linked")
    assert "holds other things (thesis.tex)" in refused(checkpoint=tmp_path)
    assert "a file, not a folder" in refused(md.ArchiveError, checkpoint=tmp_path / "thesis.tex")
    assert "must be the path of a folder, not 7" in refused(checkpoint=7)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_is_noticed(tmp_path):
    """A state or a file of saves with one other byte, cut short, or lost is refused."""
    run(checkpoint=tmp_path)
    for name in ("state", "w.rows"):
        file = tmp_path / name
        good = file.read_bytes()
        for bad in (good[:-9], good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], b""):
            file.write_bytes(bad)
            assert "missing or damaged" in refused(md.ArchiveError, checkpoint=tmp_path)
        file.write_bytes(good)
    (tmp_path / "w.rows").unlink()
    assert "missing or damaged" in refused(md.ArchiveError, checkpoint=tmp_path)


@pytest.mark.skipif(not LOCKS, reason="this system has no file locks")
def test_two_runs_do_not_share_a_checkpoint(tmp_path, monkeypatch):
    """A checkpoint that another run is writing is refused."""

    def save(self, engine, real=room.Recorder.save):
        if not seen:
            seen.append("")
            seen.append(refused(checkpoint=tmp_path))
        real(self, engine)

    seen = []
    monkeypatch.setattr(room.Recorder, "save", save)
    run(checkpoint=tmp_path)
    assert "another run is writing" in seen[1]


# Disks that fail ----------


def limited(size):
    """Files may grow to so many bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_full_disk_leaves_a_usable_checkpoint(tmp_path):
    """Where no more can be written the run ends with an error, and goes on from its last state when there is room."""
    try:
        limited(4 * 70 * 2 * 8 + 100)  # four saves of w and a bit, less than a state with its streams
        state_fails = refused(md.ArchiveError, checkpoint=tmp_path / "a")
    finally:
        limited(resource.RLIM_INFINITY)
    run(checkpoint=tmp_path / "b", steps=40)
    size = (tmp_path / "b" / "state").stat().st_size
    try:
        limited(size + 10)
        rows_fail = refused(md.ArchiveError, checkpoint=tmp_path / "c", steps=200, save_every=1)
    finally:
        limited(resource.RLIM_INFINITY)
    assert "would be too large" in state_fails and "would be too large" in rows_fail
    assert "it is good up to step" in rows_fail and not list((tmp_path / "c").glob("*.tmp"))
    with (tmp_path / "c" / "state").open("rb") as source:
        assert room._header(source)["done"] > 0
    whole = run(steps=200, save_every=1).digest()
    assert run(checkpoint=tmp_path / "c", steps=200, save_every=1).digest() == whole
    assert run(checkpoint=tmp_path / "a").digest() == run().digest()


def meanwhile(monkeypatch, what):
    """Something happens once, when a state is on the disk."""

    def save(self, engine, real=room.Recorder.save):
        if not calls and (self.rows.folder / "state").exists():
            calls.append(what(self.rows.folder))
        real(self, engine)

    calls = []
    monkeypatch.setattr(room.Recorder, "save", save)


def test_lost_folder_is_said(tmp_path, monkeypatch):
    """A folder that is moved away under a run ends it with an error; where it went, the run goes on."""
    with monkeypatch.context() as patch:
        meanwhile(patch, lambda folder: shutil.move(folder, tmp_path / "moved"))
        text = refused(md.ArchiveError, checkpoint=tmp_path / "run")
    assert "its folder is gone" in text and "good up to step" in text
    assert run(checkpoint=tmp_path / "moved").digest() == run().digest()


@pytest.mark.parametrize("how", [Path.unlink, lambda path: os.truncate(path, 8), lambda path: path.write_bytes(b"")])
def test_rows_lost_under_a_run_are_found_at_once(how, tmp_path, monkeypatch):
    """A file of saves that is deleted, cut or replaced ends the run at its next save or state, not at its end."""
    meanwhile(monkeypatch, lambda folder: how(folder / "w.rows"))
    advanced = []
    real = engines.MapEngine.advance
    monkeypatch.setattr(
        engines.MapEngine, "advance", lambda self, done, count: (advanced.append(done), real(self, done, count))
    )
    assert "w.rows was deleted or cut while its run was going on" in refused(md.ArchiveError, checkpoint=tmp_path)
    assert max(advanced) < 24


def test_large_results_are_saved_and_loaded_piece_by_piece(tmp_path, monkeypatch):
    """A result beyond the limit is written in pieces, bit for bit, mapped when loaded, and labelled for xarray."""
    import xarray as xr

    kept = run(checkpoint=tmp_path / "run")
    kept.save(tmp_path / "small.h5")
    monkeypatch.setattr(results.index, "MAPPED", 5000)
    monkeypatch.setattr(results.file, "_PIECE", 1000)
    kept.save(tmp_path / "large.h5")
    back = md.load(tmp_path / "large.h5")
    assert isinstance(back.w, np.memmap) and back.digest() == kept.digest() == md.load(tmp_path / "small.h5").digest()
    with xr.open_dataset(tmp_path / "large.h5", engine="h5netcdf") as data:
        np.testing.assert_array_equal(data["w"], kept.w)
    try:
        limited(6000)
        with pytest.raises(md.ArchiveError, match="too large there"):
            kept.save(tmp_path / "large.h5")
    finally:
        limited(resource.RLIM_INFINITY)
    assert md.load(tmp_path / "large.h5").digest() == kept.digest()
    assert not list(tmp_path.glob(".minidyn*"))
