"""Who wins at the edge with noise: flows on valleys of many shapes, by the mean over paths, beside the noisy rod."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.errors import MinidynError
from minidyn.common.reports import digits
from minidyn.compare.comparison import Comparison, ErrorRow
from minidyn.compare.side_by_side import compare
from minidyn.flows import FLOWS
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss
from minidyn.maps.noise import GaussianNoise, Minibatch, Noise
from minidyn.maps.rules import GD, SGD, Adam, RMSProp, Rule

KEYS: dict[str, dict[str, Any]] = {  # flows, and how they run; whole steps of a stochastic equation would be the map
    "noisy-rod": {},
    "rod": {},
    "central": {},
    "quasistatic": {},
    "sme": {"substeps": 1 / 4},
}
_SETTLED = 10**6  # the number of a step at which averages that started long ago have settled


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
    system, moved = valley.map, np.nan
    out: dict[str, Gap] = {}
    first = _SETTLED if system.rule.states else 1
    w0 = system.fixed_point(valley.w0) if system.rule.states else np.array(valley.w0)
    for key, options in KEYS.items():
        try:
            result = compare(system, FLOWS[key](system), w0=w0, steps=valley.steps, paths=paths, rng=seed, rows=40,
                             first_step=first, progress=False, **options)  # fmt: skip
        except MinidynError as error:
            out[key] = Gap(np.nan, np.nan, str(error))
            continue
        label, run = list(result.runs.items())[1]
        out[key] = _gap(result, "" if run.finished.all() else run.describe_status())
        if key == "noisy-rod":
            mean = np.stack([result.pair(name, label)[0].mean(0) for name in result.quantities], axis=1)
            moved = float(np.linalg.norm(mean - mean[0], axis=1).max())
    return moved, out


def _gap(result: Comparison, note: str) -> Gap:
    """The largest distance of means."""
    steps: dict[int, list[ErrorRow]] = {}
    for row in result.errors:
        steps.setdefault(row.step, []).append(row)
    sizes = {k: np.linalg.norm([r.difference for r in rows]) for k, rows in steps.items()}
    worst = max(sizes, key=lambda k: np.nan_to_num(sizes[k]))
    error = np.linalg.norm([r.standard_error for r in steps[worst]])
    return Gap(float(sizes[worst]), float(error), note)


def noisy_table(say: Callable[[str], None] = lambda line: None, paths: int = 500) -> list[str]:
    """A row per valley: the largest distance of means, as a part of how far the map's mean moves."""
    lines = [
        f"Largest distance between the means of flow and map over {paths:,} paths, as a part of how far the map's mean",
        "moves (in brackets: two standard errors). The last column: how many times as far off the best other flow is.",
        "Adaptive rules start with settled averages; the quasistatic flow is held against the map projected on the",
        "minima, `sme` is the stochastic modified equation. Adam's minimum on the curved valley is stable: there the",
        "quasistatic flow is as near. The noise of batches dies out at the network's minima and is multiplied by the",
        "oscillation, so that a cloud is as large as its rod and far from normal: there the noisy rod is a rough",
        "theory, if the best.",
        "",
        "| valley | steps | moves by | " + " | ".join(KEYS) + " | others / noisy rod |",
        "|---|---|---|" + "---|" * (len(KEYS) + 1),
    ]
    notes = []
    for name, valley in valleys().items():
        moved, found = gaps(valley, paths)
        others = [g.sup for flow, g in found.items() if flow != "noisy-rod" and np.isfinite(g.sup)]
        factor = min(others, default=np.nan) / found["noisy-rod"].sup
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
