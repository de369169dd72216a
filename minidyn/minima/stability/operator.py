"""The second-moment operator of a linearized map, without its matrix.

In the eigenbasis of the (preconditioned) Hessian, mode a moves by `y_a' = A_a y_a + b xi_a`, `A_a` a small block, and
the noise `xi` has the covariance `N(W)`, linear in the second moment `W` of theta's part. So

    T(W) = A W A^T + b N(W_theta) b^T.

`A . A^T` and `N` both map covariances to covariances, hence the spectral radius of `T` is the `rate` at which

    C -> N(K(rate) o C),   K_ab(rate) = theta-part of (rate - A_a . A_b^T)^-1 b b^T,

has the radius 1 (it falls with `rate`; positive operators, Krein-Rutman): one number per pair of modes and a matrix
of the size of the Hessian take the place of an operator of its squared size. `T` is unstable exactly if the radius at
`rate = 1` is above 1 or a block `A_a` is unstable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import SolverError, said
from minidyn.common.locks import cached_property

_DENSE = 4  # up to so many modes the operator is written out
_BASIS = 24  # vectors of a Krylov space
_RESTARTS = 40
_PAIRS = 100_000  # solved at a time


@dataclass(frozen=True, eq=False)
class Curvatures(ByValue):
    """What multiplies the noise, in the modes: sample Hessians, model Hessians, slopes of a Gaussian sigma.

    ranks : (n, C, r), `H_i = sum_c h_ic h_ic^T` where every sample fits; otherwise `samples` (n, r, r).
    models : (n, C, r, r), Hessians of the model's outputs, which label noise multiplies.
    sigmas : (c, r, r), derivative of column c of sigma.
    """

    lam: Floats
    ranks: Floats | None = None
    samples: Floats | None = None
    models: Floats | None = None
    sigmas: Floats | None = None

    def batch(self, W: Floats) -> Floats:
        """`(1/n) sum_i H_i W H_i - H W H`."""
        mean = self.lam[:, None] * W * self.lam
        if self.ranks is not None:
            return by_ranks(self.ranks, W) - mean
        assert self.samples is not None
        return _sandwich(self.samples, W) / len(self.samples) - mean

    def second(self) -> Floats:
        """`(1/n) sum_i H_i^2 - H^2`."""
        if self.ranks is None and self.samples is None:
            return np.zeros((len(self.lam),) * 2)
        return self.batch(np.eye(len(self.lam)))


def radii(blocks: Floats) -> Floats:
    """The spectral radii (r,) of matrices (r, p, p)."""
    eigenvalues = blocks[:, 0] if blocks.shape[1] == 1 else np.linalg.eigvals(blocks)
    return np.asarray(np.abs(eigenvalues).max(axis=1))


def by_ranks(h: Floats, W: Floats) -> Floats:
    """`(1/n) sum_i H_i W H_i` with `H_i = sum_c h_ic h_ic^T`, h (n, C, r)."""
    along = np.einsum("ica,iea->ice", h @ W, h)
    size = h.shape[-1]
    return np.asarray((along.transpose(0, 2, 1) @ h).reshape(-1, size).T @ h.reshape(-1, size) / len(h))


def _sandwich(matrices: Floats, W: Floats) -> Floats:
    return np.einsum("iab,icb->ac", matrices @ W, matrices, optimize=True)


@dataclass(frozen=True, eq=False)
class Modes(ByValue):
    """A linearized map in the modes of its Hessian: blocks (p, p), answers b (p,) and the noise that drives it.

    kappa : weight of minibatch noise.  label : variance of a label over the batch.
    along : so many last modes lie along the minima. Of a displacement there only what comes to rest counts, the lag
        behind its end: their blocks lack the eigenvalue 1.
    """

    a: Floats
    b: Floats
    curvatures: Curvatures
    kappa: float = 0.0
    label: float = 0.0
    dense: bool = False
    along: int = 0
    _seed: list[Floats] = field(default_factory=list, compare=False)  # where the next search starts

    @property
    def lam(self) -> Floats:
        """Curvatures of the modes (r,); 0 for those along the minima."""
        return self.curvatures.lam

    def with_noise(self, kappa: float, label: float) -> Modes:
        """The same map under other amounts of noise."""
        return replace(self, kappa=kappa, label=label)

    @cached_property
    def blocks(self) -> Floats:
        """`A_a` of every mode, (r, p, p)."""
        blocks = np.repeat(self.a[None], len(self.lam), axis=0)
        blocks[:, :, 0] += self.lam[:, None] * self.b
        if self.along:
            blocks[-self.along :] = self.a - self._neutral
        return blocks

    @cached_property
    def drives(self) -> Floats:
        """How every mode answers to the noise, (r, p)."""
        drives = np.repeat(self.b[None], len(self.lam), axis=0)
        if self.along:
            drives[-self.along :] -= self._neutral @ self.b
        return drives

    @cached_property
    def _neutral(self) -> Floats:
        """The spectral projector of `a` on the eigenvalue 1."""
        left, _, right = np.linalg.svd(self.a - np.eye(len(self.b)))
        return np.outer(right[-1], left[:, -1]) / (right[-1] @ left[:, -1])

    @cached_property
    def _radii(self) -> Floats:
        return radii(self.blocks)

    @cached_property
    def deterministic(self) -> float:
        """Spectral radius of `A` across the minima."""
        return float(self._radii[: len(self.lam) - self.along].max(initial=0.0))

    @property
    def noisy(self) -> bool:
        """Whether a deviation changes the noise, so that `N` has a term; noise that is there anyway does not count."""
        c = self.curvatures
        return bool(len(self.lam)) and (
            (self.kappa > 0 and (c.ranks is not None or c.samples is not None))
            or (self.label > 0 and c.models is not None)
            or c.sigmas is not None
        )

    def noise(self, W: Floats) -> Floats:
        """Covariance `N(W)` of the gradient noise at theta's second moment W, both (r, r)."""
        c, out = self.curvatures, np.zeros_like(W)
        if self.kappa > 0 and (c.ranks is not None or c.samples is not None):
            out += self.kappa * c.batch(W)
        if self.label > 0 and c.models is not None:
            out += self.label / len(c.models) * _sandwich(c.models.reshape(-1, *W.shape), W)
        if c.sigmas is not None:
            out += _sandwich(c.sigmas, W)
        return out

    def apply(self, W: Floats) -> Floats:
        """`T(W)` for a second moment W of the whole state, (r, p, r, p)."""
        out = np.einsum("aij,ajbk,blk->aibl", self.blocks, W, self.blocks, optimize=True)
        return out + np.einsum("ai,ab,bl->aibl", self.drives, self.noise(W[:, 0, :, 0]), self.drives)

    # -- the radius --
    def responses(self, rate: float) -> Floats:
        """`(rate - A_a . A_b^T)^-1 b b^T` for all pairs of modes, (r, p, r, p)."""
        r, p = len(self.lam), len(self.b)
        if p == 1:
            along = self.blocks[:, 0, 0]
            with np.errstate(divide="ignore"):
                return (self.b[0] ** 2 / (rate - np.outer(along, along)))[:, None, :, None]
        out = np.empty((r, p, r, p))
        first, second = np.triu_indices(r)
        for start in range(0, len(first), _PAIRS):
            i, j = first[start : start + _PAIRS], second[start : start + _PAIRS]
            both = np.einsum("xab,xcd->xacbd", self.blocks[i], self.blocks[j]).reshape(-1, p * p, p * p)
            drive = np.einsum("xa,xb->xab", self.drives[i], self.drives[j]).reshape(-1, p * p, 1)
            try:
                found = np.linalg.solve(rate * np.eye(p * p) - both, drive)[..., 0]
            except np.linalg.LinAlgError:
                found = np.full((len(i), p * p), np.inf)
            block = found.reshape(-1, p, p)
            out[i, :, j, :] = block
            out[j, :, i, :] = block.transpose(0, 2, 1)
        return out

    def feedback(self, rate: float) -> tuple[float, Floats]:
        """Radius of `C -> N(K(rate) o C)` and its leading covariance C (r, r)."""
        K = self.responses(rate)[:, 0, :, 0]
        r = len(K)
        if not np.isfinite(K).all():
            return np.inf, np.eye(r)
        symmetric = self.curvatures.sigmas is None and bool((K > 0).all())
        root = np.sqrt(K) if symmetric else np.ones_like(K)
        inner, outer = (root, root) if symmetric else (K, root)

        def once(x: Floats) -> Floats:
            C = x.reshape(r, r)
            out = outer * self.noise(inner * (C + C.T) / 2)
            return np.asarray(((out + out.T) / 2).ravel())

        start = self._seed[-1] * outer if self._seed else once(np.diag(self.lam).ravel())
        value, vector = _leading(once, start.ravel(), r, symmetric, self.dense)
        C = vector.reshape(r, r) / outer
        C *= np.sign(np.trace(C)) or 1.0
        self._seed[:] = [C]
        return value, C

    @cached_property
    def growth(self) -> float:
        """The factor by which second moments grow per step across the minima: the radius of T there."""
        from scipy.optimize import brentq

        if not self.noisy:
            return self.deterministic**2
        lower = float(self._radii.max(initial=0.0)) ** 2

        def gap(rate: float) -> float:
            radius = self.feedback(rate)[0]
            return 1.0 / radius - 1.0 if radius > 0 else np.inf

        low, step = lower + 1e-12 * max(lower, 1e-3), 1e-4
        if gap(low) >= 0:
            return lower
        while gap(low + step) < 0:
            low, step = low + step, step * 4
        return float(brentq(gap, low, low + step, xtol=1e-13, rtol=1e-13))

    def leading(self) -> Floats:
        """The second moment of the state that T multiplies by `growth`, (r, p, r, p), of trace 1 in theta."""
        if self.noisy and self.growth > float(self._radii.max(initial=0.0)) ** 2:
            W = self.responses(self.growth) * self.feedback(self.growth)[1][:, None, :, None]
        else:
            values, vectors = np.linalg.eig(self.blocks)
            mode, which = np.unravel_index(np.argmax(np.abs(values)), values.shape)
            v = vectors[mode, :, which]
            W = np.zeros((len(self.lam), len(self.b)) * 2)
            W[mode, :, mode, :] = (v[:, None] * v.conj()).real
        return W / np.trace(W[:, 0, :, 0])

    # -- the verdict --
    @property
    def margin(self) -> float:
        """Above 1 exactly if unstable: the feedback of the noise at rate 1, infinite where A itself is unstable."""
        if self.deterministic > 1 + 1e-12:
            return np.inf
        if not self.noisy:
            return self.deterministic
        return self.feedback(1.0)[0] if self.deterministic < 1 else np.inf


def _leading(
    once: Callable[[Floats], Floats], start: Floats, r: int, symmetric: bool, dense: bool
) -> tuple[float, Floats]:
    """The eigenvalue of largest real part, and its vector."""
    size = r * r
    if dense or r <= _DENSE:
        matrix = np.column_stack([once(e) for e in np.eye(size)])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2) if symmetric else np.linalg.eig(matrix)
        best = int(np.argmax(values.real))
        return float(values[best].real), np.asarray(vectors[:, best].real)
    if not np.abs(start).max() > 0:
        return 0.0, np.ones(size)
    # the error of the eigenvalue is that of the vector, squared where the operator is symmetric
    tolerance = 1e-8 if symmetric else 1e-12
    for _ in range(_RESTARTS):
        value, start, residual = _arnoldi(once, start, tolerance)
        if residual <= tolerance * abs(value):
            return value, start
    raise SolverError(f"the leading second moment did not converge; {said('try a larger gap=')}.")


def _arnoldi(once: Callable[[Floats], Floats], start: Floats, tolerance: float) -> tuple[float, Floats, float]:
    """Ritz value of largest real part, its vector and residual, as soon as the residual is small.

    scipy's ARPACK always spends a whole basis; near a known vector a few products are enough.
    """
    V = np.empty((_BASIS + 1, len(start)))
    H = np.zeros((_BASIS + 1, _BASIS))
    V[0] = start / np.linalg.norm(start)
    for m in range(1, _BASIS + 1):
        x = once(V[m - 1])
        for _ in range(2):  # orthogonal to rounding
            along = V[:m] @ x
            x = x - along @ V[:m]
            H[:m, m - 1] += along
        H[m, m - 1] = np.linalg.norm(x)
        values, vectors = np.linalg.eig(H[:m, :m])
        best = int(np.argmax(values.real))
        y = vectors[:, best].real
        y = y / np.linalg.norm(y)
        residual = float(H[m, m - 1] * abs(y[-1]))
        if residual <= tolerance * abs(values[best].real) or H[m, m - 1] == 0:
            break
        V[m] = x / H[m, m - 1]
    return float(values[best].real), np.asarray(y @ V[:m]), residual
