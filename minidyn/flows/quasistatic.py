"""Quasistatic flow: the slow motion along the manifold of minima, for any update rule.

Freeze the position on the manifold `M`, let the fast oscillation across it reach its stationary
covariance `W`, average the map over it. Per step, at a fixed point `z*` of the averaged map `F`,

    W_SS = A W_SS A^T + Pi_S Q Pi_S^T         W_SN = (I - A)_S^-1 Pi_S Q Pi^T
    drift      Pi F2[W_SS + W_SN + W_SN^T] / 2 + (I - A)_S^-1 Pi_S F2[Pi Q Pi^T] / 2 + Pi p
    covariance Pi Q Pi^T

with `A = dF/dz`, `Pi` its spectral projector on the eigenvalue 1, `Pi_S = I - Pi`, `Q = B Sigma B^T`,
`p` the weak forces that move the fixed points off `M`.
Source: Ma, Kunin, Ying (2022); Katzenberger (1991); Li, Wang, Arora (2022); Li, Wen, Lyu (2025).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from minidyn.errors import FlowError, InputError, ManifoldError
from minidyn.flows.base import Flow
from minidyn.kernels import Source
from minidyn.linearization import add_averaged_map
from minidyn.manifold import Manifold
from minidyn.maps import Map
from minidyn.rules import averaged

# mypy: disable-error-code="name-defined, no-untyped-def, no-untyped-call"
# ruff: noqa: F821

Floats = NDArray[np.float64]
_FAR = 0.1


class QuasistaticFlow(Flow):
    """The slow SDE (or ODE) along the manifold of minima that a noisy map follows.

    Parameters
    ----------
    system : the map; it needs noise with a covariance.
    manifold : a `Manifold` of the same loss; made from the loss if not given.
    accumulators : "full" (an accumulator such as Adam's `v` answers to the oscillation) or "frozen"
        (it is held at its stationary value; the published slow SDE of Adam).

    The state is `w` on `M`; `drift` and `diffusion` are per unit of `t = lr k`.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.01), md.GaussianNoise(0.3))
    >>> md.QuasistaticFlow(sgd).drift([1.0, 0.0]).round(8)
    array([-0.00022727,  0.        ])
    """

    name: ClassVar[str] = "quasistatic flow"
    reference: ClassVar[str] = (
        "Ma, Kunin, Ying (2022); Katzenberger (1991); Li, Wang, Arora (2022); Li, Wen, Lyu (2025)"
    )

    def __init__(self, system: Map, manifold: Manifold | None = None, accumulators: str = "full"):
        super().__init__(system)
        if accumulators not in ("full", "frozen"):
            raise InputError(f"accumulators must be 'full' or 'frozen', not {accumulators!r}.")
        noise = system.bound.noise
        if noise.sigma is None and noise.batch is None and noise.label_std is None:
            raise FlowError("the quasistatic flow describes motion driven by noise, and this map has none.")
        self.accumulators = accumulators
        self.manifold = manifold or Manifold(system.loss)
        self.source  # noqa: B018 - refuse rules and noises that cannot be averaged right away

    @cached_property
    def source(self) -> Source:
        src = Source(f"quasistatic flow of {self.map.rule.name} on {self.map.loss}")
        add_averaged_map(src, self.map, self.accumulators)
        bound = self.map.bound
        columns = bound.gaussian_rows if self.couples else self.dim
        rows = bound.rows if self.couples else self.dim + self.dim % 2
        src.line("from minidyn.kernels.random import normals")
        src.line(f"COLUMNS = {columns}\nROWS = {rows}\nCOUPLED = {self.couples}")
        lines = bound.draw_lines() if self.couples else [f"normals(r, z, 0, {rows // 2})", "return 1"]
        src.add("draw", "r, z, index, order, k, n", lines)
        src.quote(normal_step, across, analyse, noise_columns, inner=True)
        src.quote(retract, field)
        return src

    @property
    def couples(self) -> bool:
        return self.map.bound.couples and not averaged_signs(self.map)

    # -- starting points ------------------------------------------------------------------------
    def start(self, w0: ArrayLike) -> Floats:
        """The limit of the gradient flow from `w0`; refuses starts that are far from `M`."""
        given = self.loss.check(w0, "w0")
        points = self.manifold.project(given)
        far = np.linalg.norm(points - given, axis=-1) > _FAR * (1 + np.linalg.norm(points, axis=-1))
        if np.any(far):
            first = tuple(np.argwhere(far)[0])
            distance = np.linalg.norm(points - given, axis=-1)[first]
            raise ManifoldError(
                f"w0 lies {distance:.3g} away from the manifold of minima, too far for a flow that lives on it; "
                f"start near it, for example at manifold.project(w0) = {np.round(points[first], 4).tolist()}."
            )
        return points

    def numbers(self, w0: Floats) -> Floats:
        """The dimension of `M` at the starting points, and the scale that decides ranks there."""
        dims = {self.manifold.dimension(w) for w in np.unique(w0.reshape(-1, self.dim), axis=0)[:64]}
        if len(dims) > 1:
            raise ManifoldError(f"the starting points lie on manifolds of different dimensions ({sorted(dims)}).")
        (dimension,) = dims
        if dimension == 0:
            raise ManifoldError(
                "the minimum is isolated (the Hessian has full rank): there is no manifold to move along."
            )
        return np.array([float(dimension), self.manifold.gap])

    def stochastic(self, w0: Floats) -> bool:
        """Whether noise has a component along `M`: label noise on interpolating minima has none."""
        numbers = self.numbers(w0)
        for w in np.unique(w0.reshape(-1, self.dim), axis=0)[:16]:
            b, f = np.empty(self.dim), np.zeros((self.dim, self.kernels.COLUMNS))
            code = self.evaluate(w, 1.0, numbers, b, f)
            if code:
                raise FlowError(f"{self.name} at w = {np.round(w, 6)}: {self.explain(code)}")
            if np.abs(f).max() > 0.0:
                return True
        return False

    def explain(self, code: int) -> str:
        return {
            2: "the point is not on the manifold of minima; start from manifold.project(w).",
            3: "the rank of the Hessian changes here, the manifold is singular; start elsewhere or stop before.",
            5: (
                f"the minimum is unstable for {self.map.rule} (the linearized map has an eigenvalue outside the "
                "unit circle); lower lr or start where the loss is flatter."
            ),
            6: (
                "the noise vanishes in a coordinate where the rule divides by its size; "
                "add noise there (GaussianNoise) or use a rule without accumulators."
            ),
        }.get(code, super().explain(code))

    # -- in words -------------------------------------------------------------------------------
    def describe(self, latex: bool = False) -> str:
        """Equations, state, clock, assumptions, order and reference.

        >>> import sympy as sp, minidyn as md
        >>> a, b = sp.symbols("a b")
        >>> loss = md.Loss.regression(a * b, [a, b], inputs={}, target=[1.0])
        >>> print(md.QuasistaticFlow(md.Map(loss, md.Adam(0.01), md.LabelNoise(0.1))).describe())  # doctest: +ELLIPSIS
        Quasistatic flow of Adam(...
        """
        rule = averaged(self.map.rule, self.accumulators)
        names = ["theta", *self.map.rule.states]
        q = sp.Symbol("_q", positive=True)
        shown = [e.subs(q, sp.Symbol("q", positive=True)) for e in rule.outputs]
        if latex:
            updates = [rf"$\bar{{{n}}}' = {sp.latex(e)}$" for n, e in zip(names, shown, strict=True)]
            equations = [
                r"$W_{SS} = A W_{SS} A^\top + \Pi_S Q \Pi_S^\top,\quad W_{SN} = (I-A)_S^{-1}\Pi_S Q \Pi^\top$",
                r"$\mathrm{d}z = \{\tfrac12 \Pi F_2[W_{SS}+W_{SN}+W_{SN}^\top]"
                r" + \tfrac12 (I-A)_S^{-1}\Pi_S F_2[\Pi Q\Pi^\top]\}\,\mathrm{d}k + (\Pi Q \Pi^\top)^{1/2}\mathrm{d}W$",
            ]
        else:
            updates = [f"  {n}' = {e}" for n, e in zip(names, shown, strict=True)]
            equations = [
                "  W_SS = A W_SS A^T + Pi_S Q Pi_S^T,  W_SN = (I-A)_S^-1 Pi_S Q Pi^T",
                "  drift per step = Pi F2[W_SS + W_SN + W_SN^T]/2 + (I-A)_S^-1 Pi_S F2[Pi Q Pi^T]/2",
                "  covariance per step = Pi Q Pi^T",
            ]
        reading = f", {self.accumulators} accumulators" if any(rule.accumulators) else ""
        return "\n".join([
            f"Quasistatic flow of {self.map.rule} with {self.map.noise}{reading}",
            "averaged rule, per coordinate (q = diag Sigma):", *updates,
            "with A, Pi, Q = B Sigma B^T, F2 of the averaged rule on the manifold:", *equations,
            "state: w on the manifold of minima; clock: t = lr k (Ito)",
            "assumes: noise small enough that the oscillation stays near the manifold, minima stable for the rule",
            "order: leading order in the noise at finite lr",
            f"reference: {self.reference}",
        ])  # fmt: skip


def averaged_signs(system: Map) -> bool:
    """Whether the rule takes the sign of the gradient: then its noise is not Gaussian."""
    return averaged(system.rule).sign_gain is not None


# -- quoted into the flow's module ------------------------------------------------------------------


def normal_step(w, c, d, fp, values, vectors, H):
    """Eigen-decomposition of the Hessian at w; code 3 if its rank is not that of M."""
    hessian(w, c, d, H)
    work = H.copy()
    symmetric_eigen(work, values, vectors)
    largest = 0.0
    for a in range(D):
        largest = max(largest, abs(values[a]))
        if not abs(values[a]) < np.inf:
            return 2
    tangent = np.int64(fp[0])
    # the eigenvalues nearest zero belong to the tangent space: move them to the front
    for a in range(tangent):
        best = a
        for b in range(a + 1, D):
            if abs(values[b]) < abs(values[best]):
                best = b
        if best != a:
            x = values[a]
            values[a] = values[best]
            values[best] = x
            for i in range(D):
                x = vectors[i, a]
                vectors[i, a] = vectors[i, best]
                vectors[i, best] = x
    for a in range(tangent, D):
        if values[a] < -fp[1] * largest:
            return 5
        if values[a] <= fp[1] * largest:
            return 3
    return 0


def retract(w, hp, c, d, nz, fp):
    return across(w, c, d, fp)


def across(w, c, d, fp):
    """Newton's method across M, in the normal space of the starting point; a status code."""
    H = np.empty((D, D))
    values = np.empty(D)
    vectors = np.empty((D, D))
    g = np.empty(D)
    tangent = np.int64(fp[0])
    code = 0
    before = np.inf
    for turn in range(60):
        if turn == 0 or turn == 20:
            code = normal_step(w, c, d, fp, values, vectors, H)
            if code == 2:
                return code
        grad(w, c, d, g)
        largest, size = 0.0, 1e-300
        for i in range(D):
            size = max(size, abs(w[i]))
        for a in range(tangent, D):
            along = 0.0
            for i in range(D):
                along += vectors[i, a] * g[i]
            along /= values[a]
            largest = max(largest, abs(along))
            for i in range(D):
                w[i] -= along * vectors[i, a]
        if not largest < 1e6 * (1.0 + size):
            return 2
        if largest <= 4e-16 * size or (largest <= 1e-13 * size and largest >= before):
            return 0
        before = largest
    return 2 if before > 1e-9 * size else 0


def analyse(w, k, hp, c, d, nz, fp, vectors, H, dq, J, K, weak, gain, A, Q):
    """The averaged map at a point of M: its slopes and curvatures J, K, weak force, A = dF/dz and Q."""
    values = np.empty(D)
    code = normal_step(w, c, d, fp, values, vectors, H)
    if code != 0:
        return code
    width = 3 + STATES
    q = np.empty(D)
    noise_slopes(w, c, d, nz, q, dq)
    X = np.empty((D, width))
    R = np.empty((D, 1 + STATES))
    sign_gain = np.zeros((D, 1 + STATES))
    code = expand(w, k, hp, c, d, nz, q, X, R, J, K, gain, sign_gain)
    if code != 0:
        return code
    for a in range(1 + STATES):
        for i in range(D):
            row = A[a * D + i]
            for j in range((1 + STATES) * D):
                row[j] = 0.0
            for j in range(D):
                row[j] = J[i, a * width + 1] * H[i, j] + J[i, a * width + 2] * dq[i, j]
            row[i] += J[i, a * width]
            for b in range(STATES):
                row[(1 + b) * D + i] += J[i, a * width + 3 + b]
    for i in range(D):
        weak[i] = R[i, 0]
    S = np.empty((D, D))
    sigma(w, c, d, nz, S)
    noise_covariance(S, gain, sign_gain, Q)
    return 0


def noise_columns(w, c, d, nz, right, left, gain, Q, f):
    """A factor f f^T of the theta part of Pi Q Pi^T; zero where noise does not reach the tangent space."""
    size = Q.shape[0]
    tangent = right.shape[1]
    part = np.empty((tangent, size))
    small = np.empty((tangent, tangent))
    multiply(left, Q, part)
    multiply_transposed(part, left, small)
    scale, along = 0.0, 0.0
    for i in range(size):
        scale += Q[i, i]
    for t in range(tangent):
        norm = 0.0
        for j in range(size):
            norm += left[t, j] * left[t, j]
        along = max(along, small[t, t] / norm)
    reached = along > 1e-13 * scale
    for i in range(D):
        for r in range(f.shape[1]):
            f[i, r] = 0.0
    if not reached:
        return
    if COUPLED:
        width = f.shape[1]
        flat = np.empty(D * width)
        noise_factor(w, c, d, nz, flat)
        for t in range(tangent):
            for r in range(width):
                total = 0.0
                for a in range(1 + STATES):
                    for j in range(D):
                        total += left[t, a * D + j] * gain[j, a] * flat[j * width + r]
                for i in range(D):
                    f[i, r] += right[i, t] * total
    else:
        root = np.empty((tangent, tangent))
        cholesky_semidefinite(small, root)
        for i in range(D):
            for u in range(tangent):
                for t in range(tangent):
                    f[i, u] += right[i, t] * root[t, u]


def field(w, k, hp, c, d, nz, fp, b, f):
    """Drift per step and noise factor per square root of a step; a status code."""
    size = (1 + STATES) * D
    width = 3 + STATES
    tangent = np.int64(fp[0])
    point = w.copy()
    code = across(point, c, d, fp)
    if code != 0:
        return code
    vectors = np.empty((D, D))
    H = np.empty((D, D))
    dq = np.empty((D, D))
    J = np.empty((D, (1 + STATES) * width))
    K = np.empty((D, (1 + STATES) * width * width))
    gain = np.zeros((D, 1 + STATES))
    weak = np.zeros(size)
    A = np.empty((size, size))
    Q = np.empty((size, size))
    code = analyse(point, k, hp, c, d, nz, fp, vectors, H, dq, J, K, weak, gain, A, Q)
    if code != 0:
        return code
    frame = np.empty((D, tangent))
    for i in range(D):
        for t in range(tangent):
            frame[i, t] = vectors[i, t]
    P = np.empty((size, size))
    right = np.empty((size, tangent))
    left = np.empty((tangent, size))
    inverse = np.empty((size, size))
    if not (spectral_projector(A, frame, P, right, left) and group_inverse(A, P, inverse)):
        return 3
    stable = np.empty((size, size))
    half = np.empty((size, size))
    noise = np.empty((size, size))
    cross = np.empty((size, size))
    W = np.empty((size, size))
    identity_minus(P, stable)
    multiply(stable, Q, half)
    multiply_transposed(half, P, noise)
    multiply(inverse, noise, cross)
    multiply_transposed(half, stable, noise)
    subtract(A, P, half)
    if not discrete_lyapunov(half, noise, W):
        return 5
    add_twice_symmetric(cross, W)
    bend = np.empty(size)
    second_derivative(point, c, d, nz, H, dq, J, K, W, bend)
    multiply(P, Q, half)
    multiply_transposed(half, P, noise)
    curve = np.empty(size)
    second_derivative(point, c, d, nz, H, dq, J, K, noise, curve)
    multiply(inverse, stable, half)
    for i in range(D):
        b[i] = 0.0
        for j in range(size):
            b[i] += P[i, j] * (0.5 * bend[j] + weak[j]) + 0.5 * half[i, j] * curve[j]
    noise_columns(point, c, d, nz, right, left, gain, Q, f)
    return 0
