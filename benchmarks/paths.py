"""W1: one path. W2: many paths of noisy maps. Each beside hand-written C++."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

import minidyn as md
from benchmarks import peers, problems, references
from benchmarks.harness import OURS, Row, first_call, interleaved, rows
from benchmarks.references import LIMIT, PLAIN

START, LR, SIGMA = np.array([1.0, 0.8]), 0.01, 0.5
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def one_path(quick: bool) -> Iterator[Row]:
    """W1, W1b: one path of GD and of Adam on L1, final point only."""
    steps = 2_000_000 if quick else 5_000_000
    loss = problems.valley()
    given: dict[str, tuple[md.Rule, tuple[float, ...]]] = {
        "W1 GD, one path": (md.GD(LR), (LR,)),
        "W1b Adam, one path": (md.Adam(0.001), (0.001, BETA1, BETA2, EPS)),
    }
    for (work, (rule, numbers)), name in zip(given.items(), ("gd", "adam"), strict=True):
        system = md.Map(loss, rule)

        def ours(count: int = steps, system: md.Map = system) -> np.ndarray:
            return md.simulate(system, START, count, save_every=count).w[0, -1]

        def theirs(function: str, count: int = steps, numbers: tuple[float, ...] = numbers) -> np.ndarray:
            w = START.copy()
            references.call("path", function, w, count, *numbers)
            return w

        compiled = first_call(ours)
        cases = {OURS: ours}
        if references.variants("path"):
            same(work, ours(1000), theirs(name, 1000), 1e-9)
            cases |= {PLAIN: lambda f=name: theirs(f), "C++ shortest chain": lambda f=name: theirs(f + "_chain")}
        seconds = interleaved(cases, 3 if quick else 7)
        yield from found("path", work, "ns/step", seconds, steps, {PLAIN: 1.0}, compile=compiled)


def many_paths(quick: bool) -> Iterator[Row]:
    """W2: 10^5 paths of 10^3 steps of noisy SGD on L1, on one core and on two."""
    paths, steps = (51_200, 500) if quick else (102_400, 1000)
    yield from _ensemble("W2 SGD", md.SGD(LR), "sgd", paths, steps, 1.25, quick, threads=True)


def rules(quick: bool) -> Iterator[Row]:
    """W2 with heavy ball, Nesterov and Adam."""
    paths, steps = (51_200, 400) if quick else (102_400, 500)
    chosen = {
        "heavy_ball": md.SGD(LR, BETA1),
        "nesterov": md.SGD(LR, BETA1, nesterov=True),
        "adam": md.Adam(LR),
    }
    for name, rule in chosen.items():
        yield from _ensemble(f"W2 {name.replace('_', ' ')}", rule, name, paths, steps, 1.5, quick)


def _ensemble(
    work: str, rule: md.Rule, name: str, paths: int, steps: int, bar: float, quick: bool, threads: bool = False
) -> Iterator[Row]:
    system = md.Map(problems.valley(), rule, md.GaussianNoise(SIGMA))
    numbers = np.array([LR, BETA1, BETA1, BETA2, EPS, SIGMA])

    def ours(workers: int = 1, count: int = steps) -> np.ndarray:
        run = md.simulate(system, START, count, paths=paths, save_every=count, rng=0, threads=workers)
        return run.w[:, -1]

    def theirs(plain: int, workers: int = 1, count: int = steps) -> np.ndarray:
        x, y = np.full(paths // _fewer(plain), START[0]), np.full(paths // _fewer(plain), START[1])
        references.call("ensemble", name, x, y, len(x), count, numbers, 7, ctypes.c_int(workers), ctypes.c_int(plain))
        return np.stack([x, y], axis=1)

    compiled = first_call(lambda: ours(1, 1))
    cases: dict[str, Any] = {OURS: ours}
    for variant in references.variants("ensemble"):
        plain = int(variant == PLAIN)
        agree(work, ours(1, 200), theirs(plain, 1, 200))
        cases[variant] = lambda p=plain: theirs(p)
    per = {n: paths * steps / (_fewer(1) if n == PLAIN else 1) for n in cases}
    seconds = interleaved(cases, 3 if quick else 7, least=0)
    yield from found("ensemble", work + ", one core", "ns/path-step", seconds, per, {LIMIT: bar}, compile=compiled)
    if threads:
        yield _threads(work, ours, theirs, 3 if quick else 7)
        yield from peers.noisy_sgd(work, seconds[OURS] / per[OURS], START, LR, SIGMA, quick)


def _threads(work: str, ours: Any, theirs: Any, repeats: int) -> Row:
    """What a second thread gains, on the clock; beside it what it gains the C++ program at the same moment."""
    cases = {"one": lambda: ours(1), "two": lambda: ours(2)}
    if variants := references.variants("ensemble"):
        plain = int(variants[0] == PLAIN)
        cases |= {"C++ one": lambda: theirs(plain, 1), "C++ two": lambda: theirs(plain, 2)}
    clock = interleaved(cases, repeats, wall=True, least=0)
    spent = interleaved({n: cases[n] for n in ("one", "two")}, 3, least=0)
    note = f"two threads spend {spent['two'] / spent['one']:.2f} times the processor time"
    if variants:
        note += f"; C++ gains {clock['C++ one'] / clock['C++ two']:.2f}"
    return Row(f"{work}, gain of a second thread", "times", clock["one"] / clock["two"], bar=1.8, least=True, note=note)


def _fewer(plain: int) -> int:
    """The plain program gets a tenth of the paths: it takes as long as the others."""
    return 10 if plain else 1


def network_noise(quick: bool) -> Iterator[Row]:
    """W2 on L3: label noise on all samples, and minibatches of four."""
    paths, steps, std = (640, 50, 0.1) if quick else (2560, 100, 0.1)
    loss, w0 = problems.network(), problems.network_start()
    inputs, targets = problems.samples(20)
    noises = {"label_noise": md.LabelNoise(std), "minibatch": md.Minibatch(4)}
    for name, noise in noises.items():
        work = f"W2 SGD on L3, {name.replace('_', ' ')}"
        system = md.Map(loss, md.SGD(0.1), noise)

        def ours(count: int = steps, system: md.Map = system) -> np.ndarray:
            run = md.simulate(system, w0, count, paths=paths, save_every=count, rng=0, threads=1)
            return run.w[:, -1]

        def theirs(plain: int, count: int = steps, name: str = name) -> np.ndarray:
            w = np.tile(w0, (paths // (4 if plain else 1), 1))
            references.call("network", name, w, len(w), count, 0.1, std, 7, ctypes.c_int(1), ctypes.c_int(plain))
            return w

        compiled = first_call(lambda: ours(1))
        cases: dict[str, Any] = {OURS: ours}
        for variant in references.variants("network"):
            references.call("network", "network_data", inputs, targets)
            plain = int(variant == PLAIN)
            agree(work, ours(), theirs(plain))
            cases[variant] = lambda p=plain, f=theirs: f(p)
        per = {n: paths * steps / (4 if n == PLAIN else 1) for n in cases}
        seconds = interleaved(cases, 3 if quick else 7, least=0)
        yield from found("network", work, "ns/path-step", seconds, per, {LIMIT: 1.5}, compile=compiled)


def found(
    program: str, work: str, unit: str, seconds: Any, per: Any, bars: dict[str, float | None], **extra: Any
) -> Iterator[Row]:
    """Rows against every variant that ran; without AVX-512 the bar goes to the plain one, and the row says so."""
    note = references.remark(program)
    if LIMIT in bars and LIMIT not in seconds:
        bars = {PLAIN: bars[LIMIT]}
    if len(seconds) == 1:
        size = per[OURS] if isinstance(per, dict) else per
        yield Row(work, unit, seconds[OURS] / size * 1e9, note=note, extra=extra)
    yield from rows(work, unit, seconds, per, bars, note, **extra)


def same(work: str, a: np.ndarray, b: np.ndarray, tolerance: float) -> None:
    """Both programs compute the same numbers, or there is nothing to compare."""
    if not np.allclose(a, b, rtol=tolerance, atol=tolerance):
        raise AssertionError(f"{work}: minidyn gives {a}, the reference {b}")


def agree(work: str, a: np.ndarray, b: np.ndarray) -> None:
    """Means and variances of the two ensembles (paths, D) agree within six standard errors."""
    for what in (lambda v: v, lambda v: (v - v.mean(axis=0)) ** 2):
        p, q = what(a), what(b)
        error = np.sqrt(p.var(axis=0) / len(p) + q.var(axis=0) / len(q))
        if not (abs(p.mean(axis=0) - q.mean(axis=0)) <= 6 * error).all():
            raise AssertionError(f"{work}: minidyn has {p.mean(axis=0)}, the reference {q.mean(axis=0)} +- {error}")
