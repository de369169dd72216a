"""Sharpness against non-uniformity of many minima, with the regions in which they are stable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, NDArray
from minidyn.common.errors import InputError
from minidyn.common.intake import numbers, ordered, shown
from minidyn.common.reports import Drawn, Report, Reported, Table, digits
from minidyn.maps.discrete import Map
from minidyn.minima.stability.judge import stability


@dataclass(frozen=True, eq=False, repr=False)
class StabilityDiagram(Reported, Drawn):
    """Minima in the plane of sharpness and non-uniformity.

    map : whose minima they are.  minima : (N, D).  sharpness, nonuniformity : (N,), in the rule's metric.
    settings : the pairs (lr, batch); batch None is the full one.
    growth : (N, settings), factor per step of second moments.  stable : (N, settings).
    kappas : (settings,), weight of minibatch noise.  limits : (settings,), the largest sharpness without noise.
    model : the model's name, where it has one.
    """

    map: Map
    minima: Floats
    sharpness: Floats
    nonuniformity: Floats
    settings: tuple[tuple[float, int | None], ...]
    growth: Floats
    stable: NDArray[np.bool_]
    kappas: Floats
    limits: Floats
    model: str = ""

    def boundary(self, setting: int, points: int = 200) -> tuple[Floats, Floats]:
        """The curve `(1 - lr a)^2 + lr^2 kappa s^2 = 1` of one parameter: sharpness a and non-uniformity s.

        Exact for one parameter under SGD without momentum; otherwise a guide for the eye.
        """
        lr, kappa = self.settings[setting][0], self.kappas[setting]
        a = np.linspace(0.0, 2.0 / lr, points)
        if kappa == 0:
            return a, np.full(points, np.inf)
        return a, np.sqrt(np.maximum(1 - (1 - lr * a) ** 2, 0.0) / kappa) / lr

    def box(self, setting: int) -> tuple[float, float]:
        """The box: the largest sharpness, and the largest non-uniformity `1/(lr sqrt(kappa))`.

        Necessary for stability in one parameter; in several the bound on the non-uniformity is a guide.
        """
        lr, kappa = self.settings[setting][0], self.kappas[setting]
        return float(self.limits[setting]), 1 / (lr * np.sqrt(kappa)) if kappa > 0 else np.inf

    def _report(self) -> Report:
        """The minima, and whether each setting keeps them, with the growth of second moments per step."""
        heads = [f"lr {lr:g}, {'full batch' if b is None else f'batch {b}'}" for lr, b in self.settings]
        table = [["minimum", "sharpness", "non-uniformity", *heads]]
        for i, (a, s) in enumerate(zip(self.sharpness, self.nonuniformity, strict=True)):
            cells = [
                f"{'stable' if ok else 'unstable'}, {digits(g)}"
                for ok, g in zip(self.stable[i], self.growth[i], strict=True)
            ]
            table.append([str(i), digits(a), digits(s), *cells])
        return [Table(table, 1, "verdict, and growth of second moments per step (stable: at most 1)")]


def stability_diagram(
    system: Map,
    minima: ArrayLike,
    *,
    lrs: Sequence[float] | None = None,
    batches: Sequence[int | None] | None = None,
    gap: float = 1e-7,
) -> StabilityDiagram:
    """Sharpness and non-uniformity of many minima (N, D), and which `lrs` and `batches` keep each of them.

    By default the map's own learning rate and batch; a batch of None is the full one. The verdicts are exact
    (`stability`), the regions drawn are those of theory: the box and the boundary of one parameter.

    >>> import sympy as sp, minidyn as md
    >>> x, c = sp.symbols("x c")
    >>> wells = md.Loss(sp.Min(x**2, c * (x - 1)**2), [x], data={c: [0.1, 1.9]})
    >>> d = md.stability_diagram(md.Map(wells, md.SGD(0.7), md.Minibatch(1)), [[0.0], [1.0]], batches=[1, None])
    >>> d.stable.tolist()
    [[True, True], [False, True]]
    """
    if not isinstance(system, Map):
        raise InputError(f"a stability diagram is that of a Map, not of {shown(system)}.")
    points = np.atleast_2d(system.loss.check(minima, "minima"))
    if points.ndim != 2 or not len(points):
        raise InputError(f"minima has shape {points.shape}, expected ({system.dim},) or (N, {system.dim}), N >= 1.")
    rates = [system.lr()] if lrs is None else np.atleast_1d(numbers(lrs, "lrs")).tolist()
    sizes = (
        [system.bound.sampling.batch if system.bound.of_batches else None]
        if batches is None
        else ordered(batches, "batches")
    )
    settings = [(lr, batch) for lr in rates for batch in sizes]
    cells, kappas, limits = [], [], []
    for lr, batch in settings:
        new = Map(system.loss, system.rule.with_hyper(lr=lr), system.bound.with_batch(batch))
        column = [stability(new, w, gap=gap) for w in points]
        cells.append(column)
        kappas.append(new.bound.kappa)
        limits.append(column[0].threshold_from_A)
    first = cells[0]
    return StabilityDiagram(
        system,
        points,
        np.array([s.preconditioned_sharpness for s in first]),
        np.array([s.metric_nonuniformity for s in first]),
        tuple(settings),
        np.array([[s.growth for s in column] for column in cells]).T,
        np.array([[s.stable for s in column] for column in cells]).T,
        np.array(kappas),
        np.array(limits),
    )
