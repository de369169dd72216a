"""Successive saves that are made in one call have the bits of saves made one by one."""

import gc
import weakref

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.simulate import carrying
from minidyn.simulate.engines import MapEngine
from minidyn.simulate.odes import OdeEngine
from minidyn.simulate.sdes import SdeEngine

x, y, k = sp.symbols("x y k")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
STIFF = md.Loss(x**2 / 2 + 500 * y**2, [x, y])
STEEP = md.Loss(-(x**4) / 4 + y**2, [x, y])
NOISE = md.GaussianNoise(0.2)

SYSTEMS = {
    "map": lambda: md.Map(VALLEY, md.SGD(0.1, 0.5), NOISE),
    "map that diverges": lambda: md.Map(STEEP, md.SGD(0.3), NOISE),
    "still map": lambda: md.Map(VALLEY, md.Adam(0.01 / k)),
    "gradient": lambda: md.GradientFlow(md.Map(VALLEY, md.SGD(0.1))),
    "gradient that diverges": lambda: md.GradientFlow(md.Map(STEEP, md.GD(0.02))),
    "stiff": lambda: md.GradientFlow(md.Map(STIFF, md.GD(0.1))),
    "schedule": lambda: md.ModifiedFlow(md.Map(VALLEY, md.GD(0.1 + 0.05 * sp.cos(k)))),
    "rod": lambda: md.RodFlow(md.Map(VALLEY, md.GD(0.3))),
    "modified with noise": lambda: md.StochasticModifiedFlow(md.Map(VALLEY, md.SGD(0.05), NOISE)),
    "adaptive": lambda: md.SymbolicFlow(md.Map(VALLEY, md.SGD(0.05)), [-sp.sin(x), -y], [0.3, 0.2]),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_saves_made_together_are_those_made_one_by_one(name, monkeypatch):
    """Of one path and of many, at any distance, on any number of threads, with what is observed."""
    rng = np.random.default_rng(len(name))
    for paths in (1, 3, 130):
        starts = np.array([1.2, 0.4]) + 0.3 * rng.random((paths, 2))
        given = {"paths": paths, "save_every": int(rng.integers(1, 8)), "observe": ["loss", x * y], "rng": 3}
        given |= {"substeps": "adaptive"} if name == "adaptive" else {}
        monkeypatch.setattr(carrying, "_FEW", int(rng.integers(5, 40)))
        together = md.simulate(SYSTEMS[name](), starts, 61, threads=2, **given)
        monkeypatch.setattr(carrying, "_FEW", 0)
        alone = md.simulate(SYSTEMS[name](), starts, 61, threads=1, **given)
        assert together.digest() == alone.digest()
        assert np.isfinite(together.w).any()


def test_several_saves_are_one_call(monkeypatch):
    """A short run of a map goes to its engine once for all of its saves."""
    calls = []
    real = MapEngine.advance_saving
    monkeypatch.setattr(MapEngine, "advance_saving", lambda self, *args: calls.append(args) or real(self, *args))
    md.simulate(SYSTEMS["map"](), [1.0, 0.2], 10, rng=0)
    assert len(calls) == 1 and list(calls[0][1]) == list(range(1, 11))


@pytest.mark.parametrize("name, engine, inner", [
    ("gradient", OdeEngine, "_step"), ("modified with noise", SdeEngine, "_carry"),
])  # fmt: skip
def test_a_flow_goes_to_its_kernel_once(name, engine, inner, monkeypatch):
    """All saves of a short run of a flow are made and shown by one call of compiled code."""
    calls = []
    real = getattr(engine, inner)
    monkeypatch.setattr(engine, inner, lambda self, *args: calls.append(args) or real(self, *args))
    run = md.simulate(SYSTEMS[name](), [1.0, 0.2], 10, rng=0)
    assert len(calls) == 1 and len(run.steps) == 11 and np.isfinite(run.w).all()


@pytest.mark.parametrize("name", ["map", "gradient", "modified with noise", "rod"])
def test_a_run_is_gone_where_nobody_holds_it(name):
    """A loop over settings leaves no cycles behind: a run goes at once, with its engine."""
    gc.disable()
    try:
        run = md.simulate(SYSTEMS[name](), [1.0, 0.2], 10, rng=0)
        gone = weakref.ref(run)
        del run
        assert gone() is None
    finally:
        gc.enable()
