"""How flat a minimum is: sharpness, trace, norms and non-uniformity of the Hessian."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, SolverError
from minidyn.common.intake import one_of, shown, whole
from minidyn.common.reports import Report, Reported, digits, named
from minidyn.kernels.random import generator
from minidyn.maps.loss import Loss

_DEFLATED = 8  # leading eigenvectors taken out of the probes
_EXACT = 300  # up to so many parameters the Hessian is written out


@dataclass(frozen=True, eq=False, repr=False)
class Flatness(Reported, ByValue):
    """What `flatness` returns; a standard error is 0 where the value is exact.

    sharpness : largest eigenvalue of the Hessian H.
    trace, frobenius : `tr H`, `|H|_F`.  trace_error, frobenius_error : their standard errors.
    nonuniformity : `lambda_max(mean H_i^2 - H^2)^(1/2)`, 0 without samples.
    effective_dimension : `tr H / lambda_max`, how many directions are as sharp as the sharpest.
    preconditioned_sharpness : `lambda_max(P^(1/2) H P^(1/2))`; the sharpness itself without preconditioner.
    method : "exact", or "matrix-free" (Lanczos for eigenvalues, Hutchinson's probes for trace and norm).
    """

    sharpness: float
    trace: float
    trace_error: float
    frobenius: float
    frobenius_error: float
    nonuniformity: float
    effective_dimension: float
    preconditioned_sharpness: float
    method: str

    def _report(self) -> Report:
        def about(value: float, error: float) -> str:
            return f"{value:.6g}" + (f" ± {digits(error, 2)}" if error else "")

        rows = [
            ("sharpness", f"{self.sharpness:.6g}"),
            ("trace", about(self.trace, self.trace_error)),
            ("Frobenius norm", about(self.frobenius, self.frobenius_error)),
            ("non-uniformity", f"{self.nonuniformity:.6g}"),
            ("effective dimension", f"{self.effective_dimension:.6g}"),
            ("preconditioned sharpness", f"{self.preconditioned_sharpness:.6g}"),
            ("method", self.method),
        ]
        return [named(rows)]


def flatness(
    loss: Loss,
    w: ArrayLike,
    *,
    preconditioner: ArrayLike | None = None,
    probes: int = 100,
    method: str | None = None,
    rng: Any = 0,
) -> Flatness:
    """Sharpness, trace, Frobenius norm, non-uniformity and effective dimension of the Hessian at w (D,).

    preconditioner : the diagonal P (D,) of an adaptive rule, `1/(sqrt(v) + eps)`; all positive.
    method : "exact" from the whole Hessian, "matrix-free" from products with it; by default exact up to 300
        parameters. `probes` random directions (seeded by `rng`) then estimate trace and norm, with standard errors.

    Sources: Lanczos (1950) in ARPACK; Hutchinson (1990), without the leading eigenvectors as in Meyer, Musco, Musco,
    Woodruff, *Hutch++* (2021). Non-uniformity: Wu, Ma, E (2018).

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> f = md.flatness(md.Loss((3 * x**2 + y**2) / 2, [x, y]), [0.0, 0.0])
    >>> f.sharpness, f.trace, round(f.effective_dimension, 6), f.method
    (3.0, 4.0, 1.333333, 'exact')
    """
    if not isinstance(loss, Loss):
        raise InputError(f"flatness is a property of a Loss at a point, not of {shown(loss)}.")
    point = loss.point(w)
    if not np.isfinite(point).all():
        raise InputError("w contains NaN or Inf; give finite parameters.")
    P = np.ones(loss.dim) if preconditioner is None else loss.check(preconditioner, "preconditioner")
    if P.ndim != 1 or not ((P > 0) & np.isfinite(P)).all():
        raise InputError("the preconditioner must be one positive number per parameter.")
    method = ("exact" if loss.dim <= _EXACT else "matrix-free") if method is None else method
    probes = whole("probes, for error bars,", probes, 2)
    if one_of(method, "the method", ("exact", "matrix-free")) == "exact":
        return _exact(loss, point, P)
    return _matrix_free(loss, point, P, probes, generator(rng))


def _exact(loss: Loss, w: Floats, P: Floats) -> Flatness:
    H, root = loss.hessian(w), np.sqrt(P)
    _refuse_infinite(H)
    values = np.linalg.eigvalsh(H)
    top, trace = float(values[-1]), float(np.trace(H))
    spread = 0.0
    if (loss.n_samples or 1) > 1:
        square = np.array([loss.square_hvp(w, e) for e in np.eye(loss.dim)])
        spread = float(np.sqrt(max(np.linalg.eigvalsh((square + square.T) / 2 - H @ H)[-1], 0.0)))
    sharp = float(np.linalg.eigvalsh(root[:, None] * H * root)[-1])
    return Flatness(top, trace, 0.0, float(np.linalg.norm(H)), 0.0, spread, _share(trace, top), sharp, "exact")


def _matrix_free(loss: Loss, w: Floats, P: Floats, probes: int, rng: np.random.Generator) -> Flatness:
    product = partial(loss.hvp, w)
    start = product(rng.standard_normal(loss.dim))
    _refuse_infinite(start)
    values, vectors = _largest(product, start, _DEFLATED)  # exact where most of the trace is, probes for the rest
    probe = rng.choice([-1.0, 1.0], size=(probes, loss.dim))
    probe -= probe @ vectors @ vectors.T
    products = np.array([product(v) for v in probe])
    products -= products @ vectors @ vectors.T
    traces = values.sum() + (probe * products).sum(axis=1)
    squares = (values**2).sum() + (products**2).sum(axis=1)
    top = float(values[-1])
    root = np.sqrt(P)
    sharp = top if (P == 1).all() else float(_largest(lambda v: root * product(root * v), start)[0][-1])
    spread = 0.0
    if (loss.n_samples or 1) > 1:
        spread = float(_largest(lambda v: loss.square_hvp(w, v) - product(product(v)), start)[0][-1])
    norm = float(np.sqrt(squares.mean()))
    trace, deviation = float(traces.mean()), np.sqrt(probes)
    return Flatness(
        top,
        trace,
        float(traces.std(ddof=1) / deviation),
        norm,
        float(squares.std(ddof=1) / deviation / (2 * norm)) if norm else 0.0,
        float(np.sqrt(max(spread, 0.0))),
        _share(trace, top),
        sharp,
        "matrix-free",
    )


def _refuse_infinite(curvature: Floats) -> None:
    if not np.isfinite(curvature).all():
        raise InputError("the Hessian at w is not finite: the loss is too large there, or has no second derivative.")


def _share(trace: float, top: float) -> float:
    return trace / top if top > 0 else float("nan")


def _largest(product: Callable[[Floats], Floats], start: Floats, count: int = 1) -> tuple[Floats, Floats]:
    """The largest eigenvalues of a symmetric operator, ascending, and their vectors, by Lanczos' method."""
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    size = len(start)
    if size <= 2 * count + 2:
        values, vectors = np.linalg.eigh(np.array([product(e) for e in np.eye(size)]))
        return values[-count:], vectors[:, -count:]
    if not np.abs(start).max() > 0:  # zero along a random direction: nothing at all, or another operator's start
        start = product(np.random.default_rng(0).standard_normal(size))
    if not np.abs(start).max() > 0:
        return np.zeros(count), np.eye(size, count)
    operator = LinearOperator((size, size), matvec=product, dtype=float)
    try:
        values, vectors = eigsh(operator, count, which="LA", v0=start, tol=1e-10)
    except ArpackError as error:
        raise SolverError("Lanczos' method found no largest eigenvalue; the Hessian may not be finite here.") from error
    order = np.argsort(values)
    return values[order], vectors[:, order]
