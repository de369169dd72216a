"""From a map and a minimum to the modes of its linearization: curvatures, scales, slopes."""

import math
from dataclasses import dataclass

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError, InputError, ManifoldError, said
from minidyn.common.locks import cached_property
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss
from minidyn.maps.noise import LinearResponse
from minidyn.minima.stability.operator import Curvatures, Modes, by_ranks
from minidyn.minima.stability.slopes import Slopes, rule_slopes

_ROOM = 40_000_000  # numbers that the sample Hessians of a loss without interpolation may take
_FITTED = 1e-5  # of the targets' size: samples that are missed by less are fitted, as gradients so small are zero
_LAG = 1_000_000  # numbers that what noise sees of the motion along the minima may take


@dataclass(frozen=True, eq=False)
class Minimum(ByValue):
    """A map at a minimum w (D,), seen in the modes of `P^(1/2) H P^(1/2)`, `P` the rule's preconditioner.

    frame : the modes, from the left and the right.  scales : the root of P.  slopes : the rule, linearized there.
    """

    map: Map
    w: Floats
    k: float
    given: Floats | None
    gap: float
    dense: bool

    @property
    def loss(self) -> Loss:
        """The map's loss."""
        return self.map.loss

    @cached_property
    def interpolates(self) -> bool:
        """Whether every sample's gradient vanishes here."""
        if self.loss.n_samples is None:
            return True
        return bool(np.abs(self.sample_grads).max() <= 1e-7 * self._size)

    @cached_property
    def sample_grads(self) -> Floats:
        """Gradients of the single samples' losses at w, (n, D)."""
        return self.loss.sample_grads(self.w)

    @cached_property
    def _size(self) -> float:
        """What a gradient is small against: curvature times distance."""
        return (1.0 + float(np.abs(self.w).max())) * max(float(self.plain_spectrum[0]), 1e-300)

    @cached_property
    def jacobian(self) -> Floats | None:
        """Gradients h of the model's outputs by the roots of the samples' weights, (n C, D), if they alone make the
        Hessians: `H_i = sum_c h_ic h_ic^T`."""
        if self.loss.criterion != "squared":
            return None
        near = _FITTED * (1.0 + np.abs(self.loss.data[self.loss.target]).max())
        if np.abs(self.loss.residuals(self.w)).max() > near:
            return None
        return self.loss.residual_grads(self.w) * np.sqrt(self._shares)[:, None]

    @property
    def _shares(self) -> Floats:
        """The share that each output's sample has of the loss, (n C,)."""
        return np.repeat(self.loss.shares, self.loss.n_outputs or 1)

    @cached_property
    def hessian(self) -> Floats:
        """The Hessian (D, D); only asked for where the samples do not interpolate."""
        H = self.loss.hessian(self.w)
        if not np.isfinite(H).all():
            raise ManifoldError("w is not a minimum: the Hessian is not finite there.")
        return H

    @cached_property
    def slopes(self) -> Slopes:
        """The rule's slopes at its own learning rate, at step k."""
        return self.slopes_at(None)

    def slopes_at(self, lr: float | None) -> Slopes:
        """The rule's slopes, at another learning rate if one is given."""
        return rule_slopes(self.map, self.w, self._variance, self.given, self.k, lr)

    @cached_property
    def _variance(self) -> Floats:
        """That of the noise at w, by coordinate."""
        return self.map.bound.variance(self.w)

    @cached_property
    def response(self) -> LinearResponse:
        """What a displacement makes of the noise; nothing under signs, which are averaged over it."""
        return LinearResponse(0.0, 0.0, None) if self.slopes.signs else self.map.bound.linear_response(self.w)

    # -- modes --
    @cached_property
    def preconditioner(self) -> Floats:
        """`P` (D,): 1 for rules that treat all coordinates alike; `lr P` is the lasting answer to a gradient."""
        s = self.slopes
        alike = _alike(s.a, 1e-12) and _alike(s.b, 1e-12)
        if alike and len(s.kept) == len(self.map.rule.states):
            return np.ones(len(self.w))
        gain = s.gain / self.map.lr(self.k)
        if not (gain > 0).all():
            raise FlowError(f"{self.map.rule} does not step down the gradient in every coordinate; no metric for it.")
        return gain

    @cached_property
    def plain_spectrum(self) -> Floats:
        """Eigenvalues of the Hessian without preconditioner, largest first; negative ones last."""
        if self.jacobian is not None:
            return self._directions[0]
        return np.asarray(np.linalg.eigvalsh(self.hessian)[::-1])

    @cached_property
    def _directions(self) -> tuple[Floats, Floats]:
        """Eigenvalues and eigenvectors (r, D) of the Hessian that the Jacobian makes, without preconditioner."""
        assert self.jacobian is not None
        _, s, rows = np.linalg.svd(self.jacobian / np.sqrt(len(self.loss.rows)), full_matrices=False)
        return s**2, rows

    @cached_property
    def scales(self) -> Floats:
        """Units (D, p) of theta and of each state in which all coordinates have the same slopes."""
        b, root = self.slopes.b, np.sqrt(self.preconditioner)
        units = np.repeat(root[:, None], b.shape[1], axis=1)
        for i in range(1, b.shape[1]):
            answers = bool((b[:, i] != 0).all())
            units[:, i] = np.abs(b[:, i] / b[0, i]) / root * root[0] ** 2 if answers else 1.0
        return units

    def uniform(self, slopes: Slopes) -> tuple[Floats, Floats]:
        """Slopes (p, p) and (p,) that all coordinates share in these units."""
        t = self.scales
        a = slopes.a * t[:, None, :] / t[:, :, None]
        b = slopes.b / (t * t[:, :1])
        if not (_alike(a, 1e-9, 1e-14) and _alike(b, 1e-9)):
            raise FlowError(
                f"{self.map.rule} answers differently in each coordinate, beyond a preconditioner; "
                "its stability is not worked out."
            )
        return a.mean(axis=0), b.mean(axis=0)

    @cached_property
    def frame(self) -> tuple[Floats, Floats, int]:
        """Modes (D, r), their curvatures (r,), largest first, and how many of the last lie along the minima: none, or
        all that noise may see of (`Modes.along`)."""
        root, J = self.scales[:, 0], self.jacobian
        if J is not None:
            if (root == 1).all():
                values, vectors = self._directions
            else:
                _, s, vectors = np.linalg.svd(J * root / np.sqrt(len(self.loss.rows)), full_matrices=False)
                values = s**2
            basis = vectors.T
        else:
            values, basis = np.linalg.eigh(root[:, None] * self.hessian * root)
            values, basis = values[::-1], basis[:, ::-1]
        top = float(np.abs(values).max(initial=0.0))
        if not 0 < top < np.inf:
            raise ManifoldError("the Hessian is zero or not finite here: there is nothing to be stable against.")
        if values[-1] < -self.gap * top:
            raise ManifoldError(f"the point is a saddle: the Hessian has the eigenvalue {values[-1]:.3g}.")
        rank = int((values > self.gap * top).sum())
        tangent = basis[:, rank:] * root[:, None]
        if J is None and self.map.bound.leaves(self.w, tangent, float(self.plain_spectrum[0])):
            return basis, values, 0
        along = len(self.w) - rank
        if not (along and self._hears_along()):
            return basis[:, :rank], values[:rank], 0
        if J is not None:
            basis = np.linalg.qr(basis[:, :rank], mode="complete")[0]
        return basis, np.concatenate([values[:rank], np.zeros(along)]), along

    def _hears_along(self) -> bool:
        """Whether noise may see how far the optimizer lags behind its end along the minima: a rule with a memory, and
        noise that a displacement there changes."""
        few = (self.loss.n_samples or 1) * len(self.w) ** 2 <= _LAG
        if not (self.slopes.kept and few) or self.slopes.signs:
            return False
        r = self.response
        return r.slopes is not None or r.label > 0 or (r.kappa > 0 and self.jacobian is None)

    def _project(self, left: Floats, right: Floats) -> Floats:
        """`left^T H_i right` of every sample, (n, l, r)."""
        n = self.loss.n_samples or 1
        if n * max(left.shape[1] * right.shape[1], right.size) > _ROOM:
            raise InputError(
                f"the minimum does not fit every sample, and {n} Hessians in {right.shape[1]} directions are too many "
                "numbers; take fewer samples, or train until the samples are fitted."
            )
        return (self.loss.sample_hvps(self.w, np.ascontiguousarray(right.T)) @ left).transpose(0, 2, 1)

    @cached_property
    def curvatures(self) -> Curvatures:
        """What multiplies the noise, in the modes."""
        basis, lam, _ = self.frame
        basis = basis * self.scales[:, :1]
        ranks = samples = models = sigmas = None
        if self.loss.n_samples is not None and self.loss.n_samples > 1:
            if self.jacobian is not None:
                ranks = self._by_sample(self.jacobian @ basis)
            else:
                samples = self._project(basis, basis)
        if self.response.label > 0 and self.fits_label_term(basis.shape[1]):
            models = self._model_hessians(basis)
        if self.response.slopes is not None:
            sigmas = np.einsum("ia,cij,jb->cab", basis, self.response.slopes, basis, optimize=True)
        return Curvatures(lam, ranks, samples, models, sigmas)

    def fits_label_term(self, modes: int) -> bool:
        """Whether the model's Hessians, which label noise multiplies, find room."""
        return len(self._shares) * max(modes**2, modes * len(self.w)) <= _ROOM

    def _by_sample(self, of_outputs: Floats) -> Floats:
        """(n C, ...) as (n, C, ...)."""
        return of_outputs.reshape(len(self.loss.rows), -1, *of_outputs.shape[1:])

    def _model_hessians(self, basis: Floats) -> Floats:
        """Hessians of the outputs f_ic by the samples' weights, (n, C, r, r): with one output's residual 1 and the
        others 0, `H_i = sum_a grad f_ia grad f_ia^T + Hess f_ic`."""
        values = self.loss.model_values(self.w)
        along = self._by_sample(self.loss.residual_grads(self.w) @ basis)
        mine, out = self.loss.shares[:, None, None] * np.einsum("ica,icb->iab", along, along), []
        shifted, target = self.loss.with_data({self.loss.target: values}), self.loss.array(self.loss.target)
        values, column = values.reshape(len(values), -1), slice(target.offset, target.offset + math.prod(target.shape))
        for unit in np.eye(self.loss.n_outputs or 1):
            shifted.rows[:, column] = values - unit
            out.append(shifted.sample_hvps(self.w, np.ascontiguousarray(basis.T)) @ basis - mine)
        return np.stack(out, axis=1)

    @cached_property
    def modes(self) -> Modes:
        """The linearized map."""
        return self.modes_at(None)

    def modes_at(self, lr: float | None) -> Modes:
        """The linearized map at another learning rate."""
        a, b = self.uniform(self.slopes if lr is None else self.slopes_at(lr))
        return Modes(a, b, self.curvatures, self.response.kappa, self.response.label, self.dense, self.frame[2])

    @cached_property
    def nonuniformity(self) -> float:
        """`lambda_max(mean H_i^2 - H^2)^(1/2)`, without preconditioner."""
        n = self.loss.n_samples
        if n is None or n == 1:
            return 0.0
        J = self.jacobian
        if J is not None:
            h = self._by_sample(J @ self._directions[1].T)
            mean = np.einsum("ica,icb->ab", h, h, optimize=True) / n
            spread = by_ranks(h, np.eye(h.shape[-1])) - mean @ mean
        else:
            spread = np.array([self.loss.square_hvp(self.w, e) for e in np.eye(len(self.w))])
            spread = (spread + spread.T) / 2 - self.hessian @ self.hessian
        return float(np.sqrt(max(np.linalg.eigvalsh(spread)[-1], 0.0)))

    def check(self) -> None:
        """Refuse a point that is no minimum."""
        gradient = self.loss.grad(self.w)
        with np.errstate(over="ignore"):
            rest = float(np.linalg.norm(gradient))
        if rest <= 1e-5 * self._size:
            basis, lam, _ = self.frame
            curved = lam > self.gap * lam[0]
            across = np.zeros(len(lam))
            across[curved] = (basis.T @ (gradient * self.scales[:, 0]))[curved] / lam[curved]
            if np.linalg.norm(basis @ across * self.scales[:, 0]) <= 1e-5 * (1 + np.linalg.norm(self.w)):
                return
        raise ManifoldError(
            f"w is not a minimum: the gradient has the norm {rest:.3g}; "
            f"{said('Manifold(loss).project(w)')} leads to the minimum below it."
        )


def _alike(rows: Floats, rtol: float, atol: float = 0.0) -> bool:
    """Whether all coordinates have the first one's numbers, to a tolerance."""
    first = rows[:1]
    return bool((np.abs(rows - first) <= atol + rtol * np.abs(first)).all())
