"""A finished checkpoint takes more steps: the same call with larger `steps` ends as one long run does."""

import importlib
import os
import shutil

import numpy as np
import pytest
import sympy as sp

import minidyn as md

room = importlib.import_module("minidyn.simulate.checkpoint")
x, y = sp.symbols("x y")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SGD = md.Map(VALLEY, md.SGD(0.1, momentum=0.5), md.GaussianNoise(0.3))
GD = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.4))
SYSTEMS = {
    "map": (SGD, {}),
    "moments": (SGD, {"keep": "moments"}),
    "stopping": (SGD, {"stop": x > 2.1}),
    "hyper": (SGD, {"hyper": {"lr": np.linspace(0.05, 0.15, 5)}}),
    "sde": (md.QuasistaticFlow(SGD), {"substeps": 8}),
    "gradient": (md.GradientFlow(GD), {}),
    "stopping gradient": (md.GradientFlow(GD.with_lr(0.02)), {"stop": y < 0.1}),
    "rod": (md.RodFlow(GD), {}),
    "subquadratic": (md.SubquadraticFlow(GD), {}),
}


def run(system, steps, folder=None, **options):
    start = [2.0, 0.0] if isinstance(system, md.QuasistaticFlow) else [2.0, 0.3]
    given = {"paths": 5, "rng": 3, "observe": "loss", "save_every": 7} | options
    return md.simulate(system, start, steps, checkpoint=folder, **given)


@pytest.mark.parametrize("name", SYSTEMS)
def test_more_steps_end_as_one_long_run(name, tmp_path):
    """With the last save among the regular ones or not, once and again; what was returned before stays as it was."""
    system, options = SYSTEMS[name]
    whole = run(system, 150, **options).digest()
    for turn, ends in enumerate(((100, 150), (98, 150), (3, 44, 45, 110, 147, 150))):
        folder, earlier = tmp_path / str(turn), []
        for steps in ends:
            found = run(system, steps, folder, **options)
            assert found.digest() == run(system, steps, **options).digest(), steps
            earlier.append((found, found.digest()))
        assert found.digest() == whole
        assert all(part.digest() == digest for part, digest in earlier)
        assert run(system, 150, folder, **options).digest() == whole


@pytest.mark.parametrize("name", ["map", "rod", "moments"])
def test_killed_while_more_steps_are_made(name, tmp_path, monkeypatch):
    """What is on disk before and after every write, sync and rename is enough to end with the same bits."""
    system, options = SYSTEMS[name]
    monkeypatch.setattr(room, "SECONDS", 0.0)
    monkeypatch.setattr(room, "SPARE", 0.0)
    run(system, 24, tmp_path / "run", **options)
    whole, taken = run(system, 44, **options).digest(), []

    def snap():
        taken.append(tmp_path / f"snap-{len(taken)}")
        shutil.copytree(tmp_path / "run", taken[-1])

    def snapping(function):
        def call(*arguments, **given):
            snap()
            result = function(*arguments, **given)
            snap()
            return result

        return call

    with monkeypatch.context() as patch:
        patch.setattr(room.os, "fsync", snapping(os.fsync))
        patch.setattr(room.os, "replace", snapping(os.replace))
        patch.setattr(room.FileRows, "put", snapping(room.FileRows.put))
        assert run(system, 44, tmp_path / "run", **options).digest() == whole
    for at in taken[:16] + taken[16 :: len(taken) // 8]:
        assert run(system, 44, at, **options).digest() == whole, at.name


def test_what_the_number_of_steps_decides_stays(tmp_path):
    """Without `save_every`, `substeps` and `rng` a longer run has those that the shorter one was begun with; those that
    were given then are asked for again."""
    flow = md.QuasistaticFlow(SGD)
    first = run(flow, 400, tmp_path, save_every=None, rng=None)
    assert first.meta["substeps"] == 4 and first.steps[1] == 2
    more = run(flow, 2000, tmp_path, save_every=None, rng=None)
    assert more.meta["substeps"] == 4 and more.steps[1] == 2
    seed = int(first.meta["seed"])
    assert more.digest() == run(flow, 2000, save_every=2, substeps=4, rng=seed).digest()
    assert run(flow, 2000).meta["substeps"] == 16
    run(flow, 40, tmp_path / "given", substeps=2)
    with pytest.raises(md.InputError, match=r"substeps is 2.0 there and None here"):
        run(flow, 60, tmp_path / "given")
    with pytest.raises(md.InputError, match=r"save_every is 7 there and 1 here"):
        run(flow, 60, tmp_path / "given", substeps=2, save_every=None)


def test_logarithmic_saves_of_the_shorter_run_stay(tmp_path):
    """They are followed by those of the longer one beyond them, with its bits."""
    folder, options = tmp_path / "run", {"save_every": "log"}
    first = run(SGD, 300, folder, **options)
    more = run(SGD, 1000, folder, **options)
    long = run(SGD, 1000, save_every=1)
    alone = run(SGD, 1000, **options)
    assert more.steps.tolist() == [*first.steps, *alone.steps[alone.steps > 300]]
    np.testing.assert_array_equal(more.w, long.w[:, more.steps])
    assert run(SGD, 1000, folder, **options).digest() == more.digest()


def test_interrupted_runs_take_more_steps_and_fewer_are_refused(tmp_path, monkeypatch):
    """A run that is not finished yet may get a later end; an earlier one than it had is refused, in one sentence."""

    def save(self, engine, real=room.Recorder.save):
        if self.count == 3:
            raise KeyboardInterrupt
        real(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(room.Recorder, "save", save)
        run(SGD, 40, tmp_path)
    assert run(SGD, 61, tmp_path).digest() == run(SGD, 61).digest()
    with pytest.raises(md.InputError, match=r"another run: steps is 61 there and 60 here; give another path.*anew\.$"):
        run(SGD, 60, tmp_path)


def test_a_run_that_goes_on_keeps_checkpoints_too(tmp_path):
    """`continue_from` with a folder of its own: returned again by the same call, longer by one with more steps."""
    first = run(SGD, 30)
    given = {"continue_from": first, "checkpoint": tmp_path, "observe": "loss"}
    on = md.simulate(SGD, steps=20, **given)
    assert on.digest() == md.simulate(SGD, steps=20, **given).digest()
    assert on.digest() == md.simulate(SGD, steps=20, continue_from=first, observe="loss").digest()
    more = md.simulate(SGD, steps=41, **given)
    assert more.digest() == md.simulate(SGD, steps=41, continue_from=first, observe="loss").digest()
    np.testing.assert_array_equal(more.w[:, 1:], run(SGD, 71).w[:, -len(more.steps) + 1 :])
    other = md.simulate(SGD.with_lr(0.2), continue_from=first, steps=1)
    with pytest.raises(md.InputError, match="the run it goes on from is"):
        md.simulate(SGD, steps=50, **(given | {"continue_from": other}))
