"""Who wins at the edge with noise: flows on valleys of many shapes, by the mean over paths, beside the noisy rod."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.arrays import NDArray
from minidyn.common.errors import InputError, MinidynError
from minidyn.common.reports import digits
from minidyn.flows import CentralFlow, NoisyRodFlow, QuasistaticFlow, RodFlow, StochasticModifiedFlow
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss
from minidyn.maps.noise import GaussianNoise, Minibatch, Noise
from minidyn.maps.rules import GD, SGD, Adam, RMSProp, Rule
from minidyn.minima.manifold import Manifold
from minidyn.simulate import simulate

Floats = NDArray[np.float64]
FLOWS: Mapping[str, Any] = {
    "noisy rod": NoisyRodFlow,
    "rod": RodFlow,
    "central": CentralFlow,
    "quasistatic": QuasistaticFlow,
    "stochastic modified": StochasticModifiedFlow,
}
_SETTLED = 10**6  # the number of a step at which averages that started long ago have settled
_FINER = 1 / 4  # of a step of the map: a stochastic modified equation by whole steps would be the map again


@dataclass(frozen=True)
class Valley:
    """A map at the edge of stability: its start, its steps; rules with accumulators start with settled ones."""

    loss: Loss
    rule: Rule
    noise: Noise
    w0: tuple[float, ...]
    steps: int

    @property
    def map(self) -> Map:
        """The discrete system."""
        return Map(self.loss, self.rule, self.noise)


@dataclass(frozen=True)
class Gap:
    """How far the mean of a flow is from the map's, at worst, with its standard error; a note where there is none."""

    sup: float
    error: float
    note: str = ""


def valleys() -> dict[str, Valley]:
    """Straight, curved, lopsided, two directions at once, a quartic, a product, a network with batches, four rules."""
    x, y, z, a, b, c, d, u = sp.symbols("x y z a b c d u")

    def bent(r: sp.Expr, lean: float) -> sp.Expr:
        return sp.log(sp.cosh(r)) + lean * (r - sp.tanh(r))

    plain = Loss((1 + x**2) * bent(y, 0), [x, y])
    curved, lopsided = (Loss((2 + sp.cos(x)) * bent(y - sp.sin(x), lean), [x, y]) for lean in (0, 0.2))
    double = Loss((1 + x**2) * (bent(y, 0) + sp.Rational(9, 10) * bent(z, 0)), [x, y, z])
    quartic = Loss((1 + x**2) * y**2 / 2 - y**4, [x, y])
    product = Loss((a * b * c * d - 1) ** 2 / 2, [a, b, c, d])
    data = np.array([-2.0, -1.2, -0.5, 0.3, 0.9, 1.6])
    target = (1.5 * np.tanh(1.3 * data)).tolist()
    net = Loss.regression(a * sp.tanh(c * u) + b * sp.tanh(d * u), [a, b, c, d], {u: data.tolist()}, target)
    far = float(np.sqrt(29.0))  # 1 + x^2 = 3/lr at lr 0.1
    return {
        "straight, SGD": Valley(plain, GD(0.1), GaussianNoise(0.5), (far, 0.5), 1000),
        "straight, heavy ball": Valley(plain, SGD(0.05, 0.8), GaussianNoise(0.3), (9.24, 0.5), 800),
        "straight, Adam": Valley(plain, Adam(0.04, 0.9, 0.99, 0.1), GaussianNoise(0.3), (3.0, 0.3), 1000),
        "straight, RMSProp": Valley(plain, RMSProp(0.05, 0.99, 0.3), GaussianNoise(0.3), (5.0, 0.4), 1000),
        "curved, SGD": Valley(curved, GD(0.5), GaussianNoise(0.2), (0.3, 0.9), 1000),
        "curved, Adam": Valley(curved, Adam(0.15, 0.5, 0.99, 0.3), GaussianNoise(0.2), (0.3, 0.5), 1000),
        "curved, RMSProp": Valley(curved, RMSProp(0.3, 0.99, 0.3), GaussianNoise(0.2), (0.3, 0.5), 1000),
        "lopsided, SGD": Valley(lopsided, GD(0.5), GaussianNoise(0.2), (0.3, 0.9), 1000),
        "two directions, SGD": Valley(double, GD(0.1), GaussianNoise(0.5), (far, 0.5, 0.4), 1000),
        "quartic, SGD": Valley(quartic, GD(0.1), GaussianNoise(0.2), (float(np.sqrt(21.0)), 0.2), 1000),
        "product of four, SGD": Valley(product, GD(0.33), GaussianNoise(0.002), (3.0, 0.803, 0.6, 0.71), 600),
        "tanh net, batches of 5 of 6": Valley(net, GD(1.6), Minibatch(5), (1.0, 0.55, 1.43, 1.06), 600),
    }


def gaps(valley: Valley, paths: int = 500, seed: int = 1) -> tuple[float, dict[str, Gap]]:
    """How far the mean of the map's mid-points moves, and each flow's gap, at forty steps of the run."""
    system = valley.map
    every, first = max(1, valley.steps // 40), _SETTLED if system.rule.states else 1
    w0 = system.fixed_point(valley.w0) if system.rule.states else np.array(valley.w0)
    options: dict[str, Any] = {"paths": paths, "rng": seed, "first_step": first, "progress": False}
    run = simulate(system, w0, valley.steps + 1, save_every=1, **options)
    assert run.w is not None
    if not run.finished.all():
        raise InputError(f"the map of a valley: {run.describe_status()}; start nearer to its minima.")
    at = np.arange(0, valley.steps + 1, every)
    read = {"iterates": run.w[:, at], "midpoints": 0.5 * (run.w[:, at] + run.w[:, at + 1])}
    mean = read["midpoints"].mean(0)
    moved = float(np.linalg.norm(mean - mean[0], axis=1).max())
    out = {}
    for name, make in FLOWS.items():
        finer: dict[str, Any] = {"substeps": _FINER} if make is StochasticModifiedFlow else {}
        try:
            flow = make(system)
            start = Manifold(valley.loss).project(valley.w0) if flow.reads == "projected" else w0
            got = simulate(flow, start, valley.steps, save_every=every, **options, **finer)
        except MinidynError as error:
            out[name] = Gap(np.nan, np.nan, str(error))
            continue
        out[name] = _gap(got, read["iterates" if flow.reads == "projected" else flow.reads])
    return moved, out


def _gap(run: Any, read: Floats) -> Gap:
    """The largest distance of means, over the paths that last."""
    left = run.finished
    if not left.any():
        return Gap(np.nan, np.nan, run.describe_status())
    gap = run.w[left] - read[left] if len(left) == len(read) else run.w[left] - read.mean(0)
    sizes = np.linalg.norm(gap.mean(0), axis=1)
    worst = int(np.argmax(sizes))
    spread = read[:, worst].std(0) if len(left) < len(read) else gap[:, worst].std(0)
    return Gap(float(sizes[worst]), float(np.linalg.norm(spread) / np.sqrt(len(read))),
               "" if left.all() else run.describe_status())  # fmt: skip


def noisy_table(say: Callable[[str], None] = lambda line: None, paths: int = 500) -> list[str]:
    """A row per valley: the largest distance of means, as a part of how far the map's mean moves."""
    lines = [
        f"Largest distance between the means of flow and map over {paths:,} paths, as a part of how far the map's mean",
        "moves (in brackets: two standard errors). The last column: how many times as far off the best other flow is.",
        "Adaptive rules start with settled averages; the quasistatic flow starts where the gradient flow ends, so that",
        "its distance is at least that at the start. The noise of batches dies out at the network's minima and is",
        "multiplied by the oscillation, so that a cloud is as large as its rod and far from normal: there the noisy",
        "rod is a rough theory, if the best.",
        "",
        "| valley | steps | moves by | " + " | ".join(FLOWS) + " | others / noisy rod |",
        "|---|---|---|" + "---|" * (len(FLOWS) + 1),
    ]
    notes = []
    for name, valley in valleys().items():
        moved, found = gaps(valley, paths)
        others = [g.sup for flow, g in found.items() if flow != "noisy rod" and np.isfinite(g.sup)]
        factor = min(others, default=np.nan) / found["noisy rod"].sup
        cells = [
            f"{digits(100 * g.sup / moved, 3)} % ({digits(np.round(200 * g.error / moved, 9), 2)})"
            if np.isfinite(g.sup)
            else "-"
            for g in found.values()
        ]
        lines.append(f"| {name} | {valley.steps:,} | {moved:.3g} | " + " | ".join(cells) + f" | {digits(factor, 3)} |")
        say(lines[-1])
        notes += [f"- {name}, {flow}: {g.note}" for flow, g in found.items() if g.note]
    return [*lines, "", *notes]
