"""Whether an optimizer stays at a minimum: the verdict on its second moments."""

import numpy as np

from minidyn.common.arrays import ArrayLike
from minidyn.common.errors import InputError
from minidyn.common.intake import between, one_of, shown, whole
from minidyn.maps.discrete import Map
from minidyn.minima.stability.operator import Modes, radii
from minidyn.minima.stability.report import Condition, Stability
from minidyn.minima.stability.setup import Minimum
from minidyn.minima.stability.slopes import closed_form_threshold, states_of

_BESIDE = 1e-9  # of a learning rate: to either side of where its limit is expected


def stability(system: Map, w: ArrayLike, *, k: float = 1, gap: float = 1e-7, method: str = "krylov") -> Stability:
    """Whether the optimizer stays at a minimum: the spectral radius of `T(W) = A W A^T + B N(W) B^T` is at most 1.

    `W` is the second moment of a small deviation, `A`, `B` the linearized rule, `N(W)` the covariance of the gradient
    noise that the deviation causes: for batches of B samples `kappa [(1/n) sum_i H_i W H_i - H W H]`; for label noise
    also `(s^2/B) (1/n) sum_i F_i W F_i` with `F_i` the Hessian of the model's output; for Gaussian noise whatever its
    sigma varies. Noise that is there at the minimum itself only sets the size of the oscillation, not its stability.

    Parameters
    ----------
    w : a minimum, (D,), or the map's whole state z there: then the rule's accumulators (Adam's v) are held at their
        values in z. Without them they stand where the noise keeps them, or at zero.
    k : the step at which schedules are read.
    gap : eigenvalues of the Hessian below `gap` times the largest belong to the manifold of minima.
    method : "krylov" never writes T down; "dense" does, for a check.

    Raises ManifoldError where w is no minimum, FlowError for rules without linearization and for `Reshuffle`, whose
    steps depend on each other.

    Source: Wu, Ma, E, *How SGD selects the global minima in over-parameterized learning* (2018).

    >>> import sympy as sp, minidyn as md
    >>> x, c = sp.symbols("x c")
    >>> loss = md.Loss(c * x**2 / 2, [x], data={c: [1.0, 3.0]})
    >>> s = md.stability(md.Map(loss, md.SGD(lr=0.9), md.Minibatch(1)), [0.0])
    >>> s.stable, round(s.spectral_radius, 12), round(s.max_lr, 12)    # (1 - 0.9*2)^2 + 0.9^2 * 1^2;  2*2/(2^2 + 1^2)
    (False, 1.45, 0.8)
    """
    if not isinstance(system, Map):
        raise InputError(f"stability is a property of a Map at a minimum, not of {shown(system)}.")
    method, gap, k = one_of(method, "the method", ("krylov", "dense")), between(gap, "gap", 0, 1), whole("k", k, 1)
    system.bound.refuse("no_response")
    point, given = states_of(system, w)
    place = Minimum(system, point, k, given, gap, method == "dense")
    place.check()
    modes = place.modes
    threshold = _sharpness_limit(modes)
    lr, batch = _largest_lr(place, threshold), _critical_batch(place)
    n = system.loss.n_samples
    conditions = _conditions(place) if len(modes.b) == 1 and not place.slopes.signs else ()
    return Stability(
        place=place,
        stable=modes.margin <= 1 + 1e-12,
        growth=modes.growth,
        deterministic_radius=modes.deterministic,
        sharpness=float(place.plain_spectrum[0]),
        nonuniformity=place.nonuniformity,
        preconditioned_sharpness=float(modes.lam[0]),
        preconditioner=place.preconditioner,
        threshold=closed_form_threshold(system.rule, k),
        threshold_from_A=threshold,
        max_lr=lr,
        critical_batch=batch,
        min_batch=None if batch is None or n is None or batch > n * (1 + 1e-12) else max(1, int(np.ceil(batch - 1e-8))),
        conditions=conditions,
        notes=_notes(place),
    )


def _sharpness_limit(modes: Modes) -> float:
    """The sharpness at which `A` itself loses stability, found from its blocks."""

    from scipy.optimize import brentq

    if modes.a.size == 1:  # |1 + lam b| <= 1
        return 2.0 / -float(modes.b[0]) if modes.b[0] < 0 else 0.0

    def radius(lam: float) -> float:
        block = modes.a.copy()
        block[:, 0] += lam * modes.b
        return float(radii(block[None])[0])

    low, high = 0.0, 1e-3 / abs(modes.b[0])
    if radius(high) > 1:
        return 0.0
    while radius(high) <= 1:
        low, high = high, 1.2 * high
        if high > 1e12 / abs(modes.b[0]):
            return np.inf
    return float(brentq(lambda lam: radius(lam) - (1 + 1e-15), low, high, xtol=1e-15 * high, rtol=1e-14))


def _largest_lr(place: Minimum, threshold: float) -> float | None:
    """The learning rate below which the minimum is stable, the rest of the map unchanged.

    threshold : the largest stable sharpness at the map's own rate; where that is a number over the rate, the limit is
    known and looked at first."""
    from scipy.optimize import brentq

    if "lr" not in place.map.rule.hyper:
        return None
    cached: dict[float, Modes] = {}

    def at(log_lr: float) -> Modes:
        if log_lr not in cached:
            cached[log_lr] = place.modes_at(float(np.exp(log_lr)))
        return cached[log_lr]

    def plain(log_lr: float) -> float:
        return at(log_lr).deterministic - (1 + 1e-15)

    high = low = np.log(place.map.lr(place.k))
    known = low + np.log(threshold / place.modes.lam[0]) if 0 < threshold < np.inf else low
    if plain(known - _BESIDE) <= 0 < plain(known + _BESIDE):
        low, high = known - _BESIDE, known + _BESIDE
    while plain(high) <= 0:
        low, high = high, high + 0.7
        if high > 600:
            return np.inf
    while plain(low) > 0:
        low, high = low - 0.7, low
        if low < -600:
            return None
    limit = brentq(plain, low, high, xtol=1e-14, rtol=1e-14)
    if not at(limit).noisy:
        return float(np.exp(limit))

    def feedback(log_lr: float) -> float:
        radius = at(log_lr).margin
        return 1.0 - 1.0 / radius if radius > 0 else -np.inf

    high, low = limit, limit - 0.1
    while feedback(low) > 0:
        low, high = low - (limit - low), low
        if low < limit - 600:
            return None
    if feedback(high) < 0:
        return float(np.exp(limit))
    return float(np.exp(brentq(feedback, low, high, xtol=1e-11, rtol=1e-12)))


def _critical_batch(place: Minimum) -> float | None:
    """The batch size, as a real number, from which on the minimum is stable; 0 if every batch will do."""
    from scipy.optimize import brentq

    n, modes, bound = place.loss.n_samples, place.modes, place.map.bound
    if n is None or place.slopes.signs or modes.deterministic > 1 + 1e-12:
        return None
    if n == 1:
        return 0.0

    def margin(batch: float) -> float:
        return modes.with_noise(*bound.amounts(batch)).margin - 1.0

    if modes.curvatures.models is None and modes.curvatures.sigmas is None:  # batches alone
        radius = modes.with_noise(1.0, 0.0).margin if modes.deterministic < 1 else np.inf
        if radius <= 0 or not modes.with_noise(1.0, 0.0).noisy:
            return 0.0
        return bound.sampling.size_for(1 / radius, n)
    most = min(float(bound.sampling.size_for(0.0, n)), 1e9)  # no batch is less noisy
    if margin(most) > 0:
        return None
    least = most
    while margin(least) <= 0:
        least /= 2
        if least < 1e-6:
            return 0.0
    return float(brentq(margin, least, min(2 * least, most), xtol=1e-12, rtol=1e-12))


def _conditions(place: Minimum) -> tuple[Condition, ...]:
    """The published conditions for SGD without momentum, in the rule's own metric.

    The bound on s follows from the sufficient condition. It is necessary for stability in one direction alone: in
    several, noise can turn what it makes larger into directions that contract.
    """
    modes = place.modes
    step = -modes.b[0]  # lr, or the average rule's share of it
    kappa, a = modes.kappa, float(modes.lam[0])
    spread = modes.curvatures.second()
    s = float(np.sqrt(max(np.linalg.eigvalsh(spread)[-1], 0.0)))
    within = np.diag((1 - step * modes.lam) ** 2) + step**2 * kappa * spread
    bound = 1 / (step * np.sqrt(kappa)) if kappa > 0 else np.inf
    alone = len(modes.lam) == 1
    return (
        Condition(
            "sufficient",
            "lambda_max((I - lr H)^2 + lr^2 kappa (mean H_i^2 - H^2))",
            float(np.linalg.eigvalsh(within)[-1]),
            1.0,
            "stable",
            "undecided",
        ),
        Condition("necessary", "sharpness a", a, 2 / step, "undecided", "unstable"),
        Condition(
            "necessary" if alone else "of the first",
            "non-uniformity s",
            s,
            bound,
            "undecided",
            "unstable" if alone else "undecided",
        ),
    )


def _notes(place: Minimum) -> tuple[str, ...]:
    notes = []
    if place.slopes.signs:
        notes.append("the rule takes signs: the verdict is that of the map averaged over its noise")
    if not place.interpolates:
        notes.append("the samples do not share this minimum: noise keeps the optimizer at a distance from it")
    if place.map.bound.label_variance > 0 and not place.fits_label_term(len(place.modes.lam)):
        notes.append("too large for the part of label noise that the model's second derivatives multiply: left out")
    if len(place.slopes.kept) < len(place.map.rule.states):
        notes.append("accumulators are held at their values: they move at second order only")
    return tuple(notes)
