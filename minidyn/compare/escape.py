"""Escape experiments: paths that start beside a minimum, how fast they leave it and where they go."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, Integers
from minidyn.common.errors import InputError
from minidyn.common.intake import between, whole
from minidyn.common.reports import Drawn, Report, Reported, digits
from minidyn.kernels.random import seed_key
from minidyn.maps.discrete import Map
from minidyn.minima.manifold import Manifold
from minidyn.minima.stability import Stability, stability
from minidyn.simulate import simulate

_GROUPS = 50  # of paths, for standard errors
_FOLLOWED = 2000  # paths whose end is followed to a minimum


@dataclass(frozen=True, eq=False, repr=False)
class Escape(Reported, Drawn):
    """What `escape` returns.

    predicted : growth of second moments per step, the spectral radius of the second-moment operator.
    measured, standard_error : the same from the paths, while deviations are small.
    steps, second_moment : (T,), mean of `|theta - w|^2` over the paths at those steps.
    destinations : minima in which paths ended, (M, D), the most visited first, with `fractions` (M,) of the paths.
        Of very many paths the first 2,000 are followed.
    left : fraction of paths that ended away from the starting minimum.  lost : fraction that diverged or whose
        gradient flow reached no minimum.  ends : (paths, D), where the paths are after the last step.
    report : the `Stability` of the starting minimum.
    """

    predicted: float
    measured: float
    standard_error: float
    steps: Integers
    second_moment: Floats
    destinations: Floats
    fractions: Floats
    left: float
    lost: float
    report: Stability = field(repr=False)
    ends: Floats = field(repr=False)

    @property
    def z(self) -> float:
        """Measured minus predicted growth, in standard errors."""
        return (self.measured - self.predicted) / self.standard_error if self.standard_error > 0 else 0.0

    def _report(self) -> Report:
        """Growth, measured and predicted; how many paths left; where they went."""
        about = f" ± {digits(self.standard_error, 2)}" if self.standard_error > 0 else ""
        apart = f" ({self.z:+.1f} standard errors)" if self.standard_error > 0 else ""
        report: Report = [
            f"growth of second moments per step: measured {digits(self.measured)}{about}, "
            f"predicted {digits(self.predicted)}{apart}",
            f"after {int(self.steps[-1]):,} steps {100 * self.left:.1f} % of the paths have left the minimum"
            + (f", {100 * self.lost:.1f} % of all are lost" if self.lost else ""),
        ]
        for w, fraction in list(zip(self.destinations, self.fractions, strict=True))[:6]:
            shown = np.round(w, 6).tolist() if len(w) <= 6 else f"|w| = {np.linalg.norm(w):.6g}"
            report.append(f"  {100 * fraction:5.1f} % at {shown}")
        if len(self.destinations) > 6:
            rest = 100 * float(self.fractions[6:].sum())
            report.append(f"  {rest:5.1f} % at {len(self.destinations) - 6:,} more places")
        return report


def escape(system: Map, w: ArrayLike, *, radius: float = 1e-6, steps: int = 1000, paths: int = 1000,
           growth_steps: int = 8, rng: Any = None, threads: int | None = None, k: int = 1,
           report: Stability | None = None) -> Escape:  # fmt: skip
    """Start many paths at distance `radius` of a minimum w; measure their growth against the predicted one.

    Deviations are drawn from the normal distribution whose covariance the second-moment operator multiplies by its
    spectral radius: so `E |theta_k - w|^2` grows by that factor from the first step on, and the first `growth_steps`
    measure it. (Later the mean rests on ever fewer paths.) Then the paths run on to `steps`, and their gradient flow
    says to which minimum each belongs: to w itself, if it ends within 1e-3 (1 + |w|) of it; paths on other minima are
    gathered likewise.

    Noise that is there at the minimum itself (label noise, Gaussian noise, samples that are not fitted) moves paths
    whatever their distance: it is absent in the prediction, so take a `radius` far above its oscillation, or expect
    the measured growth to be larger.

    w : (D,), or the map's whole state z.  k : number of the first step (bias corrections, schedules).

    Raises what `stability` raises.

    >>> import sympy as sp, minidyn as md
    >>> x, c = sp.symbols("x c")
    >>> wells = md.Loss(sp.Min(x**2, c * (x - 1)**2), [x], data={c: [0.1, 1.9]})
    >>> out = md.escape(md.Map(wells, md.SGD(0.7), md.Minibatch(1)), [1.0], paths=2000, steps=200, rng=0)
    >>> round(out.predicted, 10), bool(abs(out.z) < 3), out.left
    (1.7476, True, 1.0)
    """
    radius, steps, paths = between(radius, "the radius", 0, np.inf), whole("steps", steps, 1), whole("paths", paths, 1)
    growth_steps = whole("growth_steps", growth_steps, 1)
    if growth_steps > steps:
        raise InputError(f"growth_steps must lie between 1 and steps = {steps}, not {growth_steps}.")
    report = stability(system, w, k=k) if report is None else report
    if len(report.place.w) != system.dim:
        raise InputError(f"the report is that of another map, of {len(report.place.w)} parameters; leave it out.")
    seed, run_seed = np.random.SeedSequence(seed_key(rng)[1].tolist()).spawn(2)
    with np.errstate(over="ignore", invalid="ignore"):
        start = _beside(report, radius, paths, np.random.default_rng(seed))
        if not np.isfinite(((start[:, : system.dim] - report.place.w) ** 2).sum()):
            raise InputError(f"the radius is {radius:g}; the squares of such distances overflow, take a smaller one.")
    options: dict[str, Any] = {"paths": paths, "rng": run_seed, "first_step": k, "threads": threads}
    early = simulate(system, start, growth_steps, save_every=1, **options)
    assert early.w is not None
    with np.errstate(over="ignore"):
        size = ((early.w - report.place.w) ** 2).sum(axis=-1)
    measured, error = _growth(size[:, 0], size[:, -1], growth_steps)
    late = simulate(system, start, steps, save_every=max(1, steps // 100), **options)
    assert late.w is not None
    with np.errstate(invalid="ignore", over="ignore"):
        moments = np.nanmean(((late.w - report.place.w) ** 2).sum(axis=-1), axis=0) if late.finished.any() else None
    ends = late.w[:, -1]
    destinations, fractions, left, lost = _where(system, report.place.w, ends[:_FOLLOWED])
    kept = late.steps if moments is not None else early.steps
    return Escape(
        report.growth, measured, error, kept, size.mean(axis=0) if moments is None else moments, destinations,
        fractions, left, lost, report, ends,
    )  # fmt: skip


def _beside(report: Stability, radius: float, paths: int, rng: np.random.Generator) -> Floats:
    """Whole states z (paths, components) whose deviations have the leading covariance of T."""
    place, W = report.place, report.moment
    r, p = W.shape[:2]
    flat = W.reshape(r * p, r * p)
    values, vectors = np.linalg.eigh((flat + flat.T) / 2)
    kept = values > 1e-14 * values[-1]
    draws = rng.standard_normal((paths, int(kept.sum()))) * np.sqrt(values[kept])
    modes = (draws @ vectors[:, kept].T).reshape(paths, r, p)
    deviations = np.einsum("nap,ia->npi", modes, place.frame[0]) * place.scales.T
    slopes = place.slopes
    z = np.concatenate([place.w[None], slopes.states]).repeat(paths, axis=0).reshape(-1, paths, len(place.w))
    z = z.transpose(1, 0, 2).copy()
    z[:, [0, *(1 + s for s in slopes.kept)]] += radius * deviations
    return np.ascontiguousarray(z.reshape(paths, -1))


def _growth(first: Floats, last: Floats, steps: int) -> tuple[float, float]:
    """`(mean last / mean first)^(1/steps)` and its standard error by the jackknife over groups of paths."""
    good = np.isfinite(last)
    if not good.all() or first.mean() == 0:
        return np.inf, np.inf
    whole = float((last.mean() / first.mean()) ** (1 / steps))
    groups = min(_GROUPS, len(first))
    if groups < 2:
        return whole, 0.0
    parts = np.array_split(np.arange(len(first)), groups)
    sums = np.array([[first[p].sum(), last[p].sum()] for p in parts])
    total = sums.sum(axis=0)
    left_out = ((total - sums)[:, 1] / (total - sums)[:, 0]) ** (1 / steps)
    return whole, float(np.sqrt((groups - 1) / groups * ((left_out - left_out.mean()) ** 2).sum()))


def _where(system: Map, home: Floats, ends: Floats) -> tuple[Floats, Floats, float, float]:
    """Minima below the paths' ends with the fraction of paths in each; how many left home, how many are lost."""
    finite = np.isfinite(ends).all(axis=1)
    found = Manifold(system.loss).find(ends[finite]) if finite.any() else np.empty((0, len(home)))
    near = 1e-3 * (1 + np.linalg.norm(home))
    places: list[Floats] = []
    counts: list[int] = []
    for w in found:
        distance = [float(np.linalg.norm(w - p)) for p in places]
        if distance and min(distance) <= near:
            counts[int(np.argmin(distance))] += 1
        elif len(places) < 1000:
            places.append(home if np.linalg.norm(w - home) <= near else w)
            counts.append(1)
    order = np.argsort(counts)[::-1] if counts else np.array([], int)
    stayed = int((np.linalg.norm(found - home, axis=1) <= near).sum()) if len(found) else 0
    lost = 1 - len(found) / len(ends)
    where = np.array(places).reshape(-1, len(home))[order]
    return where, np.array(counts, float)[order] / len(ends), 1 - stayed / len(ends), lost
