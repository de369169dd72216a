"""Geometry of the minima: projection along the gradient flow, tangent and normal spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats, NDArray, all_of
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, ManifoldError, said
from minidyn.common.html import formulas
from minidyn.common.intake import between, whole
from minidyn.common.status import Status
from minidyn.kernels import pointer
from minidyn.kernels.linalg import inner, jit, symmetric_eigen
from minidyn.maps.loss import Loss
from minidyn.minima.charts import Chart
from minidyn.solvers.explicit import combined, norm, rescaled
from minidyn.solvers.tableaus import DOPRI5

_FEW = 256  # points that a thread of its own is not worth
_SMALL = 8  # parameters, up to which rotations take less time than the way to LAPACK
_WIDE = 1_000  # parameters, beyond which a Hessian is only multiplied with
_A, _E = DOPRI5.a, DOPRI5.e[0].copy()


def curvatures(loss: Loss, w: ArrayLike) -> Floats:
    """The eigenvalues of the Hessian in ascending order, shape (..., D); NaN where it is not finite."""
    H = loss.hessian(w)
    fine = np.isfinite(H)
    if all_of(fine):
        return np.asarray(np.linalg.eigvalsh(H), np.float64)
    lost = ~fine.all(axis=(-2, -1))
    H[lost] = np.eye(loss.dim)  # LAPACK gives up on all matrices where one is not finite
    values = np.linalg.eigvalsh(H)
    values[lost] = np.nan
    return np.asarray(values)


def steepest(loss: Loss, w: Floats) -> float:
    """The largest `|eigenvalue|` of the Hessian at a point w (D,); of many parameters by Lanczos' method."""
    if loss.dim <= _WIDE:
        return float(np.abs(curvatures(loss, w)).max())
    from scipy.sparse.linalg import LinearOperator, eigsh

    start = loss.hvp(w, np.random.default_rng(0).standard_normal(loss.dim))
    if not np.abs(start).max() > 0 or not np.isfinite(start).all():
        return float(np.abs(start).max())
    operator = LinearOperator((loss.dim, loss.dim), matvec=lambda v: loss.hvp(w, v), dtype=float)
    return float(np.abs(eigsh(operator, 1, which="LM", v0=start, return_eigenvectors=False))[0])


class Manifold(ByValue):
    """The minima of a `loss` near a point: `grad L = 0`, the Hessian positive semidefinite of constant rank.

    `gap` decides rank: eigenvalues of the Hessian below `gap` times the largest belong to the tangent
    space, provided that there is a clear gap; otherwise `ManifoldError`.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> circle = md.Manifold(md.Loss((x**2 + y**2 - 1)**2 / 4, [x, y]))
    >>> circle.project([2.0, 0.0]), circle.dimension([1.0, 0.0])
    (array([1., 0.]), 1)

    With `chart={parameter: expression, ...}` and `coordinates=[symbols]`, closed-form coordinates of the minima,
    `.chart` is a `Chart` and flows are derived in these coordinates as well. That the chart lies in the minima
    is proved by sympy or checked numerically; `ManifoldError` says where it does not.
    """

    _offers = "loss chart dimension gap find project tangent normal sharpness distance limits"

    def __init__(
        self,
        loss: Loss,
        *,
        chart: Mapping[Any, Any] | None = None,
        coordinates: Sequence[Any] | None = None,
        gap: float = 1e-7,
    ):
        if not isinstance(loss, Loss):
            raise InputError(f"a Manifold needs a Loss, not {type(loss).__name__}.")
        self.loss, self.gap = loss, between(gap, "gap", 0, 1)
        if (chart is None) != (coordinates is None):
            raise InputError(
                f"a chart needs both {said('chart={parameter: expression, ...} and coordinates=[symbols]')}."
            )
        self.chart = None if chart is None or coordinates is None else Chart(loss, chart, coordinates, self.gap)

    def project(self, w: ArrayLike, *, rtol: float = 1e-10, max_steps: int = 200_000) -> Floats:
        """The limit of the gradient flow from `w` (theory's Phi), shape (..., D).

        Raises ManifoldError where the flow does not reach a minimum: it escapes to infinity, or takes
        more than `max_steps` steps.
        """
        points, codes = self.limits(w, rtol, max_steps)
        if np.count_nonzero(codes):
            bad = np.argwhere(codes)
            start = self.loss.check(w)[tuple(bad[0])]
            if not np.isfinite(start).all():
                raise InputError("w contains NaN or Inf; give finite points.")
            raise ManifoldError(
                f"the gradient flow from w = {np.round(start, 6).tolist()} does not reach a minimum "
                f"({'it leaves every bound' if codes[tuple(bad[0])] == Status.DIVERGED else 'too slow or too flat'}); "
                "start closer to the minima."
            )
        return points

    def limits(self, w: ArrayLike, rtol: float, max_steps: int, threads: int = 1) -> tuple[Floats, NDArray[np.int64]]:
        """Where gradient flow ends (..., D), NaN where at no minimum, and codes (...): 0, or why at none."""
        given, rtol = self.loss.check(w), between(rtol, "rtol", 0, 1)
        max_steps = whole("max_steps", max_steps, 1)
        points = given.reshape(-1, self.loss.dim).copy()
        codes = np.zeros(len(points), np.int64)
        numbers = np.isfinite(points)
        lost = None if all_of(numbers) else ~numbers.all(axis=1)
        reached, inner = (points, codes) if lost is None else (points[~lost], codes[~lost])
        grad, hessian = pointer(self.loss.kernels, "grad"), pointer(self.loss.kernels, "hessian")

        def work(part: slice) -> None:
            c, rows = self.loss.c, self.loss.rows
            project_all(grad, hessian, reached[part], c, rows, rtol, max_steps, self.gap, inner[part])

        workers = min(threads, len(reached) // _FEW)
        if workers > 1:
            bounds = np.linspace(0, len(reached), workers + 1).astype(int)
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(work, map(slice, bounds, bounds[1:])))
        else:
            work(slice(None))
        if lost is not None:
            points[~lost], codes[~lost], codes[lost] = reached, inner, Status.DIVERGED
        if np.count_nonzero(codes):
            points[codes != 0] = np.nan
        return points.reshape(given.shape), codes.reshape(given.shape[:-1])

    def _spectrum(self, w: ArrayLike) -> tuple[Floats, Floats, int]:
        point = self.loss.point(w)
        H = self.loss.hessian(point)
        if not np.isfinite(H).all() or not H.any():
            raise ManifoldError(f"the Hessian at {np.round(point, 6).tolist()} is zero or not finite: no normal space.")
        values, vectors = np.linalg.eigh(H)
        order = np.argsort(np.abs(values))
        values, vectors = values[order], vectors[:, order]
        top = np.abs(values[-1])
        relative = np.abs(values) / top
        tangent = int((relative <= self.gap).sum())
        inside = relative[:tangent].max(initial=0.0)
        if tangent and tangent < len(values) and relative[tangent] < 10 * max(inside, self.gap):
            self.check_critical(point)
            raise ManifoldError(
                f"the rank of the Hessian at {np.round(point, 6).tolist()} is not clear: relative eigenvalues "
                f"{relative[tangent - 1]:.1e} and {relative[tangent]:.1e} leave no gap; "
                "the manifold may be singular here."
            )
        if (values[tangent:] < 0).any():
            self.check_critical(point)
            raise ManifoldError(
                f"the point {np.round(point, 6).tolist()} is a saddle "
                f"(Hessian eigenvalue {values[tangent:].min():.3g})."
            )
        return values, vectors, tangent

    def check_critical(self, w: Floats) -> None:
        """ManifoldError where the gradient does not vanish, to the accuracy with which points are typed in."""
        size = float(np.linalg.norm(self.loss.grad(w)))
        if not size <= 1e-5 * (1.0 + float(np.linalg.norm(w))) * float(np.linalg.norm(self.loss.hessian(w), 2)):
            raise ManifoldError(
                f"the point {np.round(w, 6).tolist()} is no minimum: the gradient has the norm {size:.3g} there; "
                f"{said('manifold.project(w)')} leads to the minimum below it."
            )

    def dimension(self, w: ArrayLike) -> int:
        """Dimension of the manifold at a point of it; 0 for an isolated minimum."""
        return self._spectrum(w)[2]

    def dimensions(self, ws: ArrayLike) -> set[int]:
        """The dimensions of the manifold at many points (N, D) of it, as a set; errors are those of `dimension`."""
        points = np.atleast_2d(self.loss.check(ws))
        found = np.empty(len(points), np.int64)
        if self.loss.dim <= _SMALL:
            loss = self.loss
            flat_directions(pointer(loss.kernels, "hessian"), points, loss.c, loss.rows, self.gap, found)
        else:
            count_flat(curvatures(self.loss, points), self.gap, found)
        dims = set(found.tolist())
        return {self.dimension(w) for w in points} if -1 in dims else dims

    def tangent(self, w: ArrayLike) -> Floats:
        """Orthonormal basis of the tangent space at a point of the manifold, shape (D, d)."""
        _, vectors, d = self._spectrum(w)
        return vectors[:, :d]

    def normal(self, w: ArrayLike) -> Floats:
        """Orthonormal basis of the normal space at a point of the manifold, shape (D, D - d)."""
        _, vectors, d = self._spectrum(w)
        return vectors[:, d:]

    def sharpness(self, w: ArrayLike) -> Any:
        """Largest eigenvalue of the Hessian, shape (...); NaN where the Hessian is not finite."""
        out = curvatures(self.loss, w)[..., -1]
        return float(out) if out.ndim == 0 else out

    def find(self, w0s: ArrayLike, *, rtol: float = 1e-10, max_steps: int = 200_000) -> Floats:
        """Minima reached from many starting points (N, D): shape (M, D), without those that reach none."""
        points, codes = self.limits(np.atleast_2d(self.loss.check(w0s, "w0s")), rtol, max_steps)
        return points[codes == 0]

    def distance(self, w: ArrayLike) -> Any:
        """Distance to the manifold, shape (...).

        For squared regression losses: how far damped Gauss-Newton steps of minimum norm lead to interpolation,
        which is the distance up to terms of second order in it and an upper bound beyond. Otherwise the
        distance to the nearest point of the manifold, found by walking on it from the gradient-flow limit.
        NaN where the steps do not reach a minimum.
        """
        points = self.loss.check(w)
        flat = points.reshape(-1, self.loss.dim)
        across = self._to_interpolation if self.loss.criterion == "squared" else self._to_nearest
        out = np.array([across(p) if np.isfinite(p).all() else np.nan for p in flat]).reshape(points.shape[:-1])
        return float(out) if out.ndim == 0 else out

    def _to_interpolation(self, start: Floats) -> float:
        w, value = start.copy(), float(self.loss.value(start))
        for _ in range(200):
            jacobian = self.loss.residual_grads(w)
            move = np.asarray(-np.linalg.lstsq(jacobian, self.loss.residuals(w), rcond=1e-10)[0])
            if np.linalg.norm(move) <= 1e-9 * (1e-3 + np.linalg.norm(w - start)):
                return float(np.linalg.norm(w + move - start))
            scale, trial = 1.0, float(self.loss.value(w + move))
            while not (trial < value or trial <= 1e-25):
                scale /= 2
                if scale < 1e-6:
                    return float("nan")
                trial = float(self.loss.value(w + scale * move))
            w, value = w + scale * move, trial
        return float("nan")

    def _to_nearest(self, start: Floats) -> float:
        point, code = self.limits(start, 1e-10, 200_000)
        if code:
            return float("nan")
        for _ in range(200):
            gap = start - point
            tangent = self.tangent(point)
            along = tangent @ (tangent.T @ gap)
            length = float(np.linalg.norm(gap))
            if np.linalg.norm(along) <= 1e-7 * length or length < 1e-12:
                break
            scale = 1.0
            while scale > 1e-4:
                trial, code = self.limits(point + scale * along, 1e-10, 200_000)
                if not code and np.linalg.norm(start - trial) < length:
                    break
                scale /= 2
            else:
                break
            point = trial
        return float(np.linalg.norm(start - point))

    def __repr__(self) -> str:
        return f"Manifold of the minima of {self.loss}{f', {self.chart}' if self.chart else ''}"

    def _repr_html_(self) -> str:
        lines = [self.loss._repr_latex_(), *([self.chart._repr_latex_()] if self.chart else [])]
        return formulas("Manifold of the minima", lines, repr(self))


# -- compiled loops --


@jit
def count_flat(values, gap, out):
    """How many of the eigenvalues (N, D) of each Hessian belong to the tangent space, into `out` (N,); -1 where that is
    not clear: others are negative, or near the gap, or none is a number."""
    for b in range(values.shape[0]):
        top = 0.0
        for i in range(values.shape[1]):
            top = max(top, abs(values[b, i]))
        count = 0
        clear = top > 0.0 and top < np.inf
        for i in range(values.shape[1]):
            relative = values[b, i] / top
            flat = abs(relative) <= gap
            clear = clear and (flat or relative >= 100 * gap)
            count += 1 if flat else 0
        out[b] = count if clear else -1


@jit
def flat_directions(hessian, ws, c, d, gap, out):
    """`count_flat` of the Hessians at the points ws (N, D)."""
    size = ws.shape[1]
    H, vectors, values = np.empty((size, size)), np.empty((size, size)), np.empty((1, size))
    for b in range(ws.shape[0]):
        hessian(ws[b], c, d, H)
        lost = 0.0
        for i in range(size):
            for j in range(size):
                lost += H[i, j] * 0.0
        symmetric_eigen(H, values[0], vectors)
        for i in range(size):
            values[0, i] += lost
        count_flat(values, gap, out[b : b + 1])


@inner
def newton_across(hessian, grad, w, c, d, gap, H, values, vectors, g, step):
    """The Newton step in the directions whose curvature is not negligible; its length.

    Infinite where a direction curves downwards."""
    hessian(w, c, d, H)
    grad(w, c, d, g)
    symmetric_eigen(H, values, vectors)
    size = w.shape[0]
    top = 0.0
    for i in range(size):
        top = max(top, abs(values[i]))
        step[i] = 0.0
    if not (top > 0.0 and top < np.inf):
        return np.inf
    length = 0.0
    for a in range(size):
        if abs(values[a]) <= gap * top:
            continue
        if values[a] < 0.0 and values[a] < -1e-3 * top:
            return np.inf
        along = 0.0
        for i in range(size):
            along += vectors[i, a] * g[i]
        along /= abs(values[a])
        length += along * along
        for i in range(size):
            step[i] -= along * vectors[i, a]
    return np.sqrt(length)


@inner
def descend(grad, hessian, w, c, d, rtol, max_steps, gap):
    """Gradient flow by Dormand-Prince 5(4) until Newton's method takes over; 0, or a status: escaped, or too slow."""
    size = w.shape[0]
    H = np.empty((size, size))
    values = np.empty(size)
    vectors = np.empty((size, size))
    g = np.empty(size)
    step = np.empty(size)
    slopes = np.empty((7, size))
    y = np.empty(size)
    wrong = np.empty(size)
    zero = np.zeros(size)
    h = 0.0
    grad(w, c, d, slopes[0])
    for turn in range(max_steps):
        scale, slope = 0.0, 0.0
        for i in range(size):
            scale = max(scale, abs(w[i]))
            slope = max(slope, abs(slopes[0, i]))
        if not scale < 1e12:
            return Status.DIVERGED
        if turn % 8 == 0:
            length = newton_across(hessian, grad, w, c, d, 1e-5, H, values, vectors, g, step)
            if length <= 1e-6 * (1.0 + scale):
                for again in range(12):
                    for i in range(size):
                        w[i] += step[i]
                    before = length
                    length = newton_across(hessian, grad, w, c, d, gap, H, values, vectors, g, step)
                    if length <= 1e-15 * (1e-300 + scale) or (again > 2 and length >= before):
                        break
                return 0 if length <= 1e-9 * (1.0 + scale) else Status.SOLVER_FAILED
        if slope == 0.0:  # nothing moves: a minimum, unless some direction curves downwards
            length = newton_across(hessian, grad, w, c, d, gap, H, values, vectors, g, step)
            return 0 if length < np.inf else Status.SOLVER_FAILED
        if h == 0.0:
            h = 1e-3 * (1e-3 + scale) / slope
        for _ in range(60):
            for stage in range(1, 7):
                combined(_A[stage], stage, slopes, w, -h, y)
                grad(y, c, d, slopes[stage])
            combined(_E, 7, slopes, zero, h, wrong)
            error = norm(wrong, w, y, (rtol, rtol))
            if error <= 1.0:
                break
            h *= rescaled(error, 0.2)
        for i in range(size):
            w[i] = y[i]
            slopes[0, i] = slopes[6, i]
        h *= rescaled(error, 0.2)
    return Status.SOLVER_FAILED


@jit
def project_all(grad, hessian, ws, c, d, rtol, max_steps, gap, codes):
    """`descend` from every row of ws, in place."""
    for b in range(ws.shape[0]):
        codes[b] = descend(grad, hessian, ws[b], c, d, rtol, max_steps, gap)
