"""What is observed along a run: at many saves together, with the bits of each save alone."""

import os
import signal

import numpy as np
import pytest
import sympy as sp
from conformance import TESTED

import minidyn as md
from minidyn.simulate import observables, recording

a, b, u = sp.symbols("a b u")
SLOW = ("distance", "update_sharpness", "update_sharpness_error")  # which go point by point
NAMES = [name for name in observables.NAMES if name not in SLOW]


class Watch:
    """A function of one's own that needs all paths of a save, and remembers what it was given."""

    def __init__(self):
        self.shapes = []

    def __call__(self, w):
        self.shapes.append(w.shape)
        return w[:, 0] - w[:, 0].mean()


@pytest.mark.parametrize("seed", range(5))
def test_observing_saves_together_changes_no_bit(seed, tmp_path, monkeypatch):
    """Every observable, of runs of any size some of whose paths are lost, is what it is at each save alone, in memory
    and in a checkpoint; a function of one's own is given one save at a time, with the paths that are left."""
    rng = np.random.default_rng(seed)
    paths, steps, every = (int(n) for n in (rng.integers(1, 130), rng.integers(9, 40), seed % 3 + 1))
    noisy = md.Map(TESTED, md.SGD(0.1), md.GaussianNoise(1.0) + md.Minibatch(2))
    monkeypatch.setattr(recording, "_SOON", rng.choice([0.0, 10.0]))
    own = Watch()
    observe = {**{name: name for name in NAMES}, "product": a * b, "own": own}
    given = {"paths": paths, "save_every": every, "rng": seed, "observe": observe, "stop": a > 1.5, "progress": False}
    start = 0.3 + rng.standard_normal((paths, 2))
    run = md.simulate(noisy, start, steps, **given)
    left = [int(np.isfinite(w).all(axis=1).sum()) for w in run.w.swapaxes(0, 1)]
    assert own.shapes == [(n, 2) for n in left if n]
    for name, alone in observables.resolve(noisy, observe).items():
        each = [alone(np.ascontiguousarray(w)) for w in run.w.swapaxes(0, 1)]
        np.testing.assert_array_equal(run.observables[name], np.transpose(each), name)
    assert md.simulate(noisy, start, steps, checkpoint=tmp_path / "kept", **given).digest() == run.digest()


@pytest.mark.parametrize("at", [1, 2, 7, 30])
def test_an_interrupted_run_has_observed_all_it_holds(at):
    """After Ctrl-C at any save the saves that are kept have all their observables."""
    system, w0 = md.Map(TESTED, md.SGD(0.1), md.GaussianNoise(0.3)), [0.5, 0.5]
    given = {"paths": 5, "save_every": 1, "rng": 2, "progress": False}
    whole = md.simulate(system, w0, 30, observe=["loss", "sharpness"], **given)
    saves = []

    def stop(w):
        saves.append(1)
        if len(saves) == at + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return w[:, 0]

    cut = md.simulate(system, w0, 30, observe={"loss": "loss", "sharpness": "sharpness", "stop": stop}, **given)
    assert len(cut.steps) == at
    for name in ("loss", "sharpness"):
        np.testing.assert_array_equal(cut.observables[name], whole.observables[name][:, :at])


@pytest.mark.parametrize(("paths", "samples"), [(1, 1), (3, 100), (50, 10_000), (3000, 1)])
def test_few_calls_and_little_at_once(paths, samples, monkeypatch):
    """500 saves are observed in few calls where these are quick, and one by one where they are not; a call's points,
    unless they are one save, take at most 2^20 numbers with their Hessians and samples."""
    loss = md.Loss.regression(a * u + b, [a, b], {u: np.linspace(0, 1, samples)}, np.zeros(samples))
    for soon in (10.0, 0.0):
        monkeypatch.setattr(recording, "_SOON", soon)
        sizes = []
        watch = observables.Observable("q", lambda w, sizes=sizes: sizes.append(len(w)) or w[:, 0], True)
        recorder = recording.Recorder(loss, {"q": watch}, "paths", recording.Rows(500), paths)
        engine = type("Engine", (), {"parameters": lambda self, now=recorder: np.full((paths, 2), float(now.count))})()
        for _ in range(500):
            recorder.save(engine)
        run = recorder.run(np.arange(500), np.arange(500.0), None, None, {})
        np.testing.assert_array_equal(run.observables["q"], np.tile(np.arange(500.0), (paths, 1)))
        most = max(paths, 2**20 // (4 + 2 * samples))
        assert max(sizes) <= (most if soon else paths) and sum(sizes) == 500 * paths
        assert len(sizes) == 500 if not soon else len(sizes) <= 9 + 500 * paths / max(1, most - paths + 1)
