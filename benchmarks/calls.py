"""What one call costs that a loop over settings repeats: processor time, in units of one `np.add` of two pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

import minidyn as md
from benchmarks import problems
from benchmarks.harness import Case, Row, interleaved

_ADD = "np.add of two pairs"
_UNIT = 1.6  # microseconds that it takes on the machine for which the bars are stated
_POINT, _OTHER = [1.0, 0.8], [0.5, 0.25]


def small(quick: bool) -> Iterator[Row]:
    """Small calls on the valley; bars are processor time where one `np.add` of two pairs takes 1.6 us."""
    cases: dict[str, tuple[Case, float | None]] = {
        "loss.grad": (_gradient(), 15),
        "quasistatic drift, D = 2": (_drift(), 40),
        "map.step(noise=False)": (_step(), 40),
        "simulate, 10 steps of a map": (_simulate(lambda m: m), 120),
        "simulate, 10 steps of a gradient flow": (_simulate(md.GradientFlow), 200),
        "simulate, 10 steps of a quasistatic flow": (_simulate(md.QuasistaticFlow), 400),
        "with_lr and a first step": (_another(lambda m: m.step(_POINT)), 400),
        "with_lr, a gradient flow and its drift": (_another(lambda m: md.GradientFlow(m).drift(_POINT)), None),
        "with_lr, a quasistatic flow and its drift": (_another(_slow_drift), None),
        "compare, 100 steps and 10 paths": (_compare(), 6000),
        "stability": (_stability(), 2000),
    }
    timed: dict[str, Case] = {_ADD: lambda: np.add(_POINT, _OTHER)}
    seconds = interleaved(timed | {name: run for name, (run, _) in cases.items()}, 3 if quick else 15)
    for name, (_, bar) in cases.items():
        yield Row(name, "us", seconds[name] * 1e6, _ADD, seconds[_ADD] * 1e6, None if bar is None else bar / _UNIT)


def _noisy() -> md.Map:
    """SGD in the valley with noise."""
    return md.Map(problems.valley(), md.SGD(0.05), md.GaussianNoise(0.3))


def _gradient() -> Case:
    loss, w = problems.valley(), np.array(_POINT)
    return lambda: loss.grad(w)


def _drift() -> Case:
    flow, w = md.QuasistaticFlow(_noisy()), np.array([1.0, 0.0])
    return lambda: flow.drift(w)


def _slow_drift(system: md.Map) -> np.ndarray:
    return md.QuasistaticFlow(system).drift([1.0, 0.0])


def _step() -> Case:
    system, w = _noisy(), np.array(_POINT)
    return lambda: system.step(w, noise=False)


def _simulate(of: Callable[[md.Map], md.Map | md.Flow]) -> Case:
    system, w0 = of(_noisy()), np.array([1.0, 0.05])
    return lambda: md.simulate(system, w0, steps=10, rng=0)


def _another(use: Callable[[md.Map], object]) -> Case:
    """A map at a learning rate that it never had."""
    system, turns = _noisy(), count(1)
    return lambda: use(system.with_lr(0.05 / (1.0 + 1e-6 * next(turns))))


def _compare() -> Case:
    system, w0 = _noisy(), np.array(_POINT)
    flow = md.GradientFlow(system)
    return lambda: md.compare(system, flow, w0=w0, steps=100, paths=10, rng=0)


def _stability() -> Case:
    system, w = _noisy(), np.array([1.0, 0.0])
    return lambda: md.stability(system, w)
