"""Ctrl-C in a sweep, a bifurcation diagram, basins: what is finished is returned, and said to be a part."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.compare import bifurcation
from minidyn.compare.tangent import Tangent
from minidyn.simulate.engines import MapEngine

x, y = sp.symbols("x y")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
NOISY = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.3))
SAME = np.testing.assert_array_equal


class Counted:
    """The first parameter; Ctrl-C comes when it is looked at for the n-th time."""

    __name__ = "seen"

    def __init__(self, at=0):
        self.at, self.calls = at, 0

    def __call__(self, w):
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return w[:, 0]


def checked_sweep(call, at, count, wanted):
    """The sweep that Ctrl-C cut short is the whole one where it is finished, and NaN elsewhere."""
    whole, part = call(Counted()), call(Counted(at))
    done = np.arange(count) < wanted
    for name in whole.quantities:
        SAME(part.quantity(name)[done], whole.quantity(name)[done])
        assert np.isnan(part.quantity(name)[~done]).all()
    assert f"interrupted after {wanted:,} of {count:,} settings" in repr(part) and "interrupted" not in repr(whole)
    return part, done


@pytest.mark.parametrize("keep", ["paths", "moments"])
def test_a_sweep_of_a_map_keeps_whole_pieces(keep):
    """Settings side by side in one kernel are finished together; the others have the status `interrupted`."""
    over = {"lr": np.linspace(0.01, 0.1, 3000)}
    part, done = checked_sweep(
        lambda seen: md.sweep(NOISY, over=over, w0=[1.0, 0.1], steps=5, observe={"seen": seen}, rng=1, keep=keep),
        3, 3000, 1000,
    )  # fmt: skip
    status = part.quantity("status")
    assert (status[done] == md.Status.FINISHED).all() and (status[~done] == md.Status.INTERRUPTED).all()


def test_a_sweep_of_a_flow_keeps_whole_settings():
    """A run that Ctrl-C ended in the middle is not taken for the end of its setting, nor the next one begun."""
    flow = md.GradientFlow(NOISY)
    part, done = checked_sweep(
        lambda seen: md.sweep(flow, over={"lr": np.linspace(0.01, 0.1, 12)}, w0=[1.0, 0.1], steps=5,
                              observe={"seen": seen}, rng=1),
        8, 12, 3,
    )  # fmt: skip
    assert (part.quantity("status")[~done] == md.Status.INTERRUPTED).all()


def test_flows_held_against_the_map_keep_whole_settings():
    """Differences of settings that are not finished are NaN."""
    checked_sweep(
        lambda seen: md.sweep(NOISY, md.GradientFlow, over={"lr": np.linspace(0.01, 0.1, 6)}, w0=[1.0, 0.1], steps=5,
                              paths=8, observe={"seen": seen}, rng=1),
        14, 6, 2,
    )  # fmt: skip


def test_without_a_finished_setting_it_passes_on():
    """KeyboardInterrupt where there is nothing to return."""
    with pytest.raises(KeyboardInterrupt):
        md.sweep(NOISY, over={"lr": [0.1, 0.2]}, w0=[1.0, 0.1], steps=5, observe={"seen": Counted(1)}, rng=1)


def test_an_interrupted_sweep_goes_on_in_its_folder(tmp_path):
    """What Ctrl-C left undone the same call does, to the bits of a sweep that nobody interrupted."""
    call = dict(over={"lr": np.linspace(0.01, 0.1, 3000)}, w0=[1.0, 0.1], steps=5, rng=1)
    real, calls = MapEngine.advance, []

    def advance(self, *args):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MapEngine, "advance", advance)
        part = md.sweep(NOISY, checkpoint=tmp_path / "folder", **call)
    assert np.isnan(part.quantity("x")).any() and np.isfinite(part.quantity("x")).any()
    on, whole = md.sweep(NOISY, checkpoint=tmp_path / "folder", **call), md.sweep(NOISY, **call)
    SAME(on.quantity("x"), whole.quantity("x"))
    assert "interrupted" not in on.meta


def test_a_bifurcation_diagram_ends_at_the_last_finished_value(monkeypatch):
    """Its first values, bit for bit; KeyboardInterrupt where none is finished."""
    gd = md.Map(md.Loss((x * y - 1) ** 2 / 2, [x, y]), md.GD(0.9))
    values = np.linspace(0.9, 1.29, 200)

    def diagram():
        return md.bifurcation(gd, "lr", values, w0=[0.9, 0.9], steps=200, observe="loss", threads=1)

    whole, real, left = diagram(), Tangent.follow, [2]

    def follow(self, *args, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *args, **options)

    monkeypatch.setattr(Tangent, "follow", follow)
    part, count = diagram(), bifurcation._TOGETHER
    SAME(part.values, values[:count])
    for name in ("x", "y", "loss"):
        SAME(part.points[name], whole.points[name][:count])
    SAME(part.period, whole.period[:count])
    SAME(part.exponent, whole.exponent[:count])
    assert f"interrupted after {count} of 200 values" in repr(part) and "interrupted" not in repr(whole)
    left[0] = 1
    with pytest.raises(KeyboardInterrupt):
        diagram()


@pytest.mark.parametrize("before", [False, True], ids=["after the steps", "before them"])
def test_basins_are_those_of_the_steps_that_all_have_made(before, monkeypatch):
    """Ctrl-C in the middle of a slice: the basins are those of a call with the steps before it."""
    wells = md.Map(md.Loss((x**2 - 1) ** 2 / 4 + y**2 / 2, [x, y]), md.GD(0.1))
    grid = {x: np.linspace(-8, 3, 30), y: np.linspace(-1, 1, 5)}
    real, came = MapEngine.advance, []

    def advance(self, done, count):
        now = done == 60 and not came
        if now and before:
            came.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        real(self, done, count)
        if now:
            came.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MapEngine, "slice", lambda self, wanted: min(wanted, 20))
        patch.setattr(MapEngine, "advance", advance)
        part = md.basin(wells, grid, 500)
    assert part.steps == 60
    whole = md.basin(wells, grid, 60)
    SAME(part.labels, whole.labels)
    SAME(part.ends, whole.ends)
    assert "interrupted after 60 of 500 steps" in repr(part) and "interrupted" not in repr(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_another_process_is_interrupted_from_outside():
    """A real Ctrl-C at some instant of a long sweep: a part of it is there, and the program goes on."""
    program = textwrap.dedent("""
        import signal, sys, numpy as np, sympy as sp, minidyn as md
        signal.signal(signal.SIGINT, signal.default_int_handler)
        x, y = sp.symbols("x y")
        flow = md.GradientFlow(md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05)))
        def seen(w):
            global calls
            calls += 1
            if calls == 40:
                print("begun", flush=True)
            return w[:, 0]
        calls = 0
        found = md.sweep(flow, over={"lr": np.linspace(0.01, 0.02, 200_000)}, w0=[1.0, 0.5], steps=20, observe=seen)
        left = np.isfinite(found.quantity("x"))
        print(int(left.sum()), left.all(), bool((found.quantity("status")[~left] == md.Status.INTERRUPTED).all()))
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    count, everything, said = out.split()
    assert int(count) > 0 and (everything, said) == ("False", "True")
