"""What `stability` returns."""

from dataclasses import dataclass, field

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.locks import cached_property
from minidyn.common.reports import Report, Reported, digits, named
from minidyn.maps.recognize import recognized
from minidyn.minima.stability.setup import Minimum


@dataclass(frozen=True, eq=False)
class Condition(ByValue):
    """A published condition, `value <= bound`.

    kind : "sufficient", "necessary", or "of the first", which is necessary for the first, sufficient one.
    quantity : the formula of what is bounded.  value, bound : its two sides.
    if_true, if_false : what follows where it holds, and where it fails: "stable", "unstable" or "undecided".
    """

    kind: str
    quantity: str
    value: float
    bound: float
    if_true: str
    if_false: str

    @property
    def holds(self) -> bool:
        """Whether `value <= bound`, up to rounding (1e-12 of the bound)."""
        return self.value <= self.bound * (1 + 1e-12)

    @property
    def says(self) -> str:
        """ "stable", "unstable" or "undecided"."""
        return self.if_true if self.holds else self.if_false


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Reported, ByValue):
    """The linear stability of a minimum under a map.

    stable : the exact mean-square verdict.
    growth : the factor by which second moments across the minima grow per step (the spectral radius of T there).
    deterministic_radius : the spectral radius of A across the minima, the same for first moments.
    sharpness, nonuniformity : `a = lambda_max(H)`, `s = lambda_max(mean H_i^2 - H^2)^(1/2)`.
    preconditioned_sharpness : `lambda_max(P^(1/2) H P^(1/2))`; P, (D,), is `preconditioner`: 1 for GD and momentum.
    threshold, threshold_from_A : the largest stable (preconditioned) sharpness without noise, in closed form (None
        where none is known) and from the linearized rule.
    max_lr : the largest stable learning rate.
    critical_batch, min_batch : the smallest stable batch as a real number (0: any batch) and as a whole one; None where
        no batch is stable or there are no samples.
    conditions : what is published for SGD without momentum, each with what it says.
    notes : what else holds of this rule, this noise or this minimum, in sentences.
    """

    _offers = (
        "stable growth deterministic_radius sharpness nonuniformity preconditioned_sharpness preconditioner threshold "
        "threshold_from_A max_lr critical_batch min_batch conditions notes manifold_dimension spectral_radius "
        "metric_nonuniformity moment direction summary"
    )

    place: Minimum = field(repr=False)
    stable: bool
    growth: float
    deterministic_radius: float
    sharpness: float
    nonuniformity: float
    preconditioned_sharpness: float
    preconditioner: Floats = field(repr=False)
    threshold: float | None
    threshold_from_A: float
    max_lr: float | None
    critical_batch: float | None
    min_batch: int | None
    conditions: tuple[Condition, ...]
    notes: tuple[str, ...]

    @property
    def manifold_dimension(self) -> int:
        """Dimension of the manifold of minima: directions in which nothing grows or shrinks."""
        return len(self.place.w) - self.place.modes.lam.size + self.place.modes.along

    @property
    def spectral_radius(self) -> float:
        """The spectral radius of T: `growth`, and at least 1 where the minima are a manifold (T leaves a
        displacement along them as it is)."""
        return max(self.growth, 1.0) if self.manifold_dimension else self.growth

    @cached_property
    def metric_nonuniformity(self) -> float:
        """The non-uniformity of the preconditioned Hessians; `nonuniformity` itself without preconditioner."""
        return float(np.sqrt(max(np.linalg.eigvalsh(self.place.curvatures.second())[-1], 0.0)))

    @cached_property
    def moment(self) -> Floats:
        """The second moment of the state's modes that T multiplies by `growth`, (r, p, r, p)."""
        return self.place.modes.leading()

    @cached_property
    def direction(self) -> Floats:
        """The direction in parameter space (D,) in which deviations grow most, a unit vector."""
        W = self.moment[:, 0, :, 0]
        top = np.linalg.eigh((W + W.T) / 2)[1][:, -1]
        v = self.place.scales[:, 0] * (self.place.frame[0] @ top)
        v = v / np.linalg.norm(v)
        return np.asarray(v * np.sign(v[np.argmax(np.abs(v))]))

    def _rows(self) -> list[tuple[str, str]]:
        system, known = self.place.map, recognized(self.place.map.rule)
        metric = "" if (self.preconditioner == 1).all() else ", preconditioned"
        rows = [
            ("verdict", "stable" if self.stable else "unstable"),
            ("growth of second moments", f"{self.growth:.6g} per step (stable: at most 1)"),
            ("sharpness a", f"{self.sharpness:.6g}"),
            ("non-uniformity s", f"{self.nonuniformity:.6g}"),
        ]
        if metric:
            rows.append(("preconditioned sharpness", f"{self.preconditioned_sharpness:.6g}"))
        limit = f"{self.threshold_from_A:.6g} from the linearized rule"
        if self.threshold is not None and known is not None:
            exact = f"{self.threshold:.6g} = {known.threshold_formula}"
            limit = exact if exact.startswith(f"{self.threshold_from_A:.6g} ") else f"{limit}, {exact}"
        rows.append((f"largest a without noise{metric * (metric not in limit)}", limit))
        if self.max_lr is not None:
            rows.append(("largest stable lr", f"{self.max_lr:.6g} (here {system.lr(self.place.k):g})"))
        if self.critical_batch is not None:
            at_least = "none suffices" if self.min_batch is None else f"{self.min_batch}"
            rows.append(("smallest stable batch", f"{at_least} (as a real number {self.critical_batch:.6g})"))
        rows.append(("minima", f"dimension {self.manifold_dimension} of {len(self.place.w)}"))
        return rows

    def _report(self) -> Report:
        rows = self._rows()
        rows += [
            (c.kind, f"{c.quantity} = {digits(c.value)}, bound {digits(c.bound)}: {c.says}")
            for c in self.conditions
            if np.isfinite(c.bound)
        ]
        rows += [("note", note) for note in self.notes]
        system = self.place.map
        return [f"{system.rule} with {system.noise or 'no noise'}", named(rows)]
