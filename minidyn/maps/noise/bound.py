"""A noise on a loss: what a map draws at every step, and the covariance that a flow sees.

    noise        the map sees                             covariance of the noise
    additive     g + sigma z                              sigma sigma^T
    sampling     mean of B sample gradients               kappa C,  C = (1/n) sum (g_i - g)(g_i - g)^T
    labels       targets y_i + s e_i                      (s^2/B) (1/n) sum grad f_i grad f_i^T
    alike        g + Sigma^1/2 z                          that of a sampling, or a part of it

with kappa = 1/B (with replacement) or (n-B)/(B(n-1)) (without), and B = n for full batches.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError
from minidyn.common.locks import Form, cached_property, form
from minidyn.graph import Graph, Index, Node, derivatives
from minidyn.kernels import Source, coordinate
from minidyn.maps.loss import Loss, mean
from minidyn.maps.noise import additive
from minidyn.maps.noise.additive import Additive, Sigma
from minidyn.maps.noise.alike import LikeBatches
from minidyn.maps.noise.base import LinearResponse, Noise, total
from minidyn.maps.noise.draws import NORMAL, Law
from minidyn.maps.noise.labels import Labels
from minidyn.maps.noise.minibatch import Minibatch
from minidyn.maps.noise.moments import add_noise_moments
from minidyn.maps.noise.sampling import Sampling

Column = tuple[sp.Expr, sp.Matrix, bool]
_FEW = 8  # coordinates that are written out one by one
_NUMBERS = ("std", "label", "kappa")  # of labels and batches, in every `nz`; sigma's numbers come after


class BoundNoise(ByValue):
    """A noise model on a loss: the numbers it draws, the gradient the map sees, the covariance.

    Row `r` of the draws `z` belongs to column `r` of sigma, normal ones first, then to the labels of the batch.
    """

    def __init__(self, loss: Loss, noise: Noise | None):
        self.loss, self.noise = loss, noise or Noise()
        for part in sorted(self.noise.parts, key=lambda part: isinstance(part, Labels)):
            part.check(self)

    @cached_property
    def form(self) -> Form:
        """All that the texts of kernels depend on: the loss, the number of its samples, what each part says."""
        return form(self.loss.form, self.loss.n_samples, tuple(part.form(self.loss) for part in self.noise.parts))

    # -- its parts --
    @cached_property
    def additive(self) -> tuple[Sigma, ...]:
        """What is added to the gradient, matrix by matrix, side by side; normal ones first."""
        found = [part for part in self.noise.parts if isinstance(part, Additive)]
        out, row, at = list[Sigma](), 0, len(_NUMBERS)
        for part in sorted(found, key=lambda part: not part.law.normal):
            out.append(Sigma(self.loss, part.law, part.entries(self.loss), row, at))
            row, at = row + out[-1].width, at + out[-1].entries.size
        return tuple(out)

    @cached_property
    def labels(self) -> tuple[Labels, ...]:
        """What changes the targets: one part or none."""
        return tuple(part for part in self.noise.parts if isinstance(part, Labels))

    @cached_property
    def _chosen(self) -> tuple[Sampling, ...]:
        return tuple(part for part in self.noise.parts if isinstance(part, Sampling))

    @cached_property
    def alike(self) -> tuple[LikeBatches, ...]:
        """What has the covariance of batches without choosing any: one part or none."""
        return tuple(part for part in self.noise.parts if isinstance(part, LikeBatches))

    @property
    def _of_samples(self) -> tuple[Labels | Sampling | LikeBatches, ...]:
        return *self.labels, *self._chosen, *self.alike

    @cached_property
    def sampling(self) -> Sampling:
        """How samples are chosen, or would be for this covariance; all of them where the noise does not say."""
        found = (*self._chosen, *(part.of for part in self.alike))
        return next(iter(found), Minibatch(self.loss.n_samples or 1))

    @cached_property
    def silent(self) -> bool:
        """Whether there is no noise."""
        return not self.noise.parts

    @cached_property
    def batch(self) -> int:
        """Samples that a step looks at (1 where there is no data)."""
        return self.loss.n_samples or 1 if self.alike else self.sampling.batch

    def with_batch(self, batch: int | None) -> Noise | None:
        """The noise with batches of another size; None for all samples."""
        parts: list[Noise] = [part for part in self.noise.parts if part not in (*self._chosen, *self.alike)]
        if batch is not None:
            chosen = replace(self.sampling, batch=batch)  # type: ignore[type-var]
            parts += [replace(part, of=chosen) for part in self.alike] or [chosen]
        return total(parts)

    # -- what is drawn --
    @cached_property
    def width(self) -> int:
        """Columns of sigma, and numbers that it is multiplied with per step."""
        return sum(sigma.width for sigma in self.additive)

    @cached_property
    def gaussian_rows(self) -> int:
        """How many of them are normal."""
        return sum(sigma.width for sigma in self.additive if sigma.law.normal)

    @cached_property
    def label_rows(self) -> int:
        """Number of label perturbations drawn per step."""
        return self.batch * self.per_sample if self.labels else 0

    @property
    def per_sample(self) -> int:
        """Label perturbations of a sample: one for each output."""
        return self.loss.n_outputs or 1

    @cached_property
    def rows(self) -> int:
        """Rows of the array of draws; each group of normals starts at an even row."""
        return self.first_alike + sum(_even(part.count(self.loss)) for part in self.alike)

    @cached_property
    def first_label(self) -> int:
        """The row of the first label perturbation."""
        return _even(self.width)

    @cached_property
    def first_alike(self) -> int:
        """The row of the first normal that stands for a choice of samples."""
        return self.first_label + _even(self.label_rows)

    @property
    def picks(self) -> bool:
        """Whether a step chooses samples."""
        return bool(self._chosen)

    @cached_property
    def of_batches(self) -> bool:
        """Whether the covariance has that of a choice of samples in it."""
        return bool(self._chosen or self.alike)

    @cached_property
    def chances(self) -> bool:
        """Whether the choice of samples is noise: not of all of them, nor where normals stand for a choice."""
        return self.picks and self.kappa > 0.0

    @cached_property
    def shuffles(self) -> bool:
        """Whether samples are visited in permutations, epoch by epoch."""
        return self.sampling.shuffles

    @property
    def draws(self) -> list[tuple[Law, int, int, bool]]:
        """The numbers of a step in the order in which they are drawn: their law, their first row, how many, and whether
        that is per step; else it is per sample of the batch. A choice of samples comes before these."""
        out: list[tuple[Law, int, int, bool]] = []
        if self.gaussian_rows:
            out.append((NORMAL, 0, self.gaussian_rows, True))
        out += [(sigma.law, sigma.row, sigma.width, True) for sigma in self.additive if not sigma.law.normal]
        return out + [(part.law, self.first_label, self.per_sample, False) for part in self.labels]

    def draw_lines(self) -> list[str]:
        """The body of `draw(r, z, index, order, k, n)`, which returns the size of the batch."""
        size = self.sampling.lines() if self.picks else [f"size = {'n' if self.loss.per_sample else '1'}"]
        lines = [line for law, row, count, step in self.draws if step for line in law.lines(row, count)]
        each = self.per_sample
        many = "size" if each == 1 else f"size * {each}"
        lines += [*size, *(line for part in self.labels for line in part.law.lines(self.first_label, many))]
        lines += [line for part in self.alike for line in part.lines(self.first_alike, self.loss)]
        if self.labels and self.batch > 1 and not self.loss.per_sample:  # one sample, drawn again and again
            for c in range(each):  # its mean label
                first = f"z[{(self.first_label + c) * 64} + lane]"
                turn = "q" if each == 1 else f"{each} * q + {c}" if c else f"{each} * q"
                lines += [
                    "for lane in lanes(64):",
                    "    for q in range(1, size):",
                    f"        {first} = {first} + z[({self.first_label} + {turn}) * 64 + lane]",
                    f"    {first} = {first} / size",
                ]
        return [*lines, "return size"]

    # -- the gradient that the map sees --
    def gradient(self, graph: Graph) -> list[tuple[Node, Node]]:
        """(element, derivative) pairs of the loss as the step sees it, without what is added to its gradient."""
        swap = dict([(self.loss.target, part.target(graph, self)) for part in self.labels])
        sample = self.loss.sample_node(graph, swap)
        for part in self.alike:
            sample = part.pulled(graph, self, sample)
        return derivatives.reverse(mean(sample), "w")

    def sigma_terms(self, graph: Graph, position: int | Index) -> list[tuple[Node, Node]]:
        """Pairs (sigma_pr, z_r) whose products add up to the additive noise of coordinate `position`."""
        return [term for sigma in self.additive for term in sigma.terms(graph, position)]

    @property
    def positions(self) -> list[int | Index]:
        """Coordinates one by one where sigma is symbolic or short, else one loop over all of them."""
        written = any(sigma.entries.ndim and sigma.varies for sigma in self.additive)
        return [*range(self.loss.dim)] if written or self.loss.dim <= _FEW else [coordinate(self.loss.dim)]

    # -- its numbers --
    @cached_property
    def kappa(self) -> float:
        """The weight of batches: the covariance of a mean over one, per that of a sample."""
        sampling = self.sampling
        return float(sampling.weight(sampling.batch, self.loss.n_samples or 1)) if self.of_batches else 0.0

    @cached_property
    def label_variance(self) -> float:
        """The variance of the mean label of a batch."""
        return self.amounts(self.batch)[1]

    def amounts(self, batch: float) -> tuple[float, float]:
        """kappa and the variance of the mean label at another batch size, which may be no whole number."""
        label = sum(part.label_std**2 for part in self.labels) / (self.batch if self.alike else batch)
        return max(self.sampling.weight(batch, self.loss.n_samples or 1), 0.0), label

    @cached_property
    def numbers(self) -> Floats:
        """The numbers that kernels read as `nz`: of labels and batches (`reads`), then of sigma."""
        std = sum(part.label_std for part in self.labels)
        sigma = [number for part in self.additive for number in part.numbers]
        return np.array([std, self.label_variance, self.kappa, *sigma])

    @staticmethod
    def reads(name: str) -> str:
        """How a kernel reads "std" (of a label), "label" (the variance of a batch's mean label) or "kappa"."""
        return f"nz[{_NUMBERS.index(name)}]"

    @staticmethod
    def load(graph: Graph, name: str) -> Node:
        """The same on a graph."""
        return graph.load("nz", _NUMBERS.index(name))

    # -- what it is like --
    @cached_property
    def couples(self) -> bool:
        """Whether a flow can be driven by the same normals: all noise is Gaussian."""
        return len(self.additive) == len(self.noise.parts) > 0 and self.width == self.gaussian_rows

    @cached_property
    def gaussian(self) -> bool:
        """Whether the noise in the gradient is normal: nothing of it comes from a choice of samples or from +-1."""
        laws = [part.law for part in self.additive] + [part.law for part in self.labels]
        return not self.chances and all(law.normal for law in laws)

    @property
    def independent(self) -> bool:
        """Whether no two coordinates share a number of sigma's."""
        return all(sigma.entries.ndim < 2 for sigma in self.additive)

    @cached_property
    def varies(self) -> bool:
        """Whether the covariance of the noise depends on the parameters."""
        return bool(self._of_samples) or any(sigma.varies for sigma in self.additive)

    def skewed(self, w: Floats) -> bool:
        """Whether the choice of samples gives the gradient's noise a third moment at w, in any coordinate."""
        if not self.chances or not (self.labels or self.sampling.skews(self.loss.n_samples or 1)):
            return False
        apart = self.loss.sample_grads(w)
        apart = apart - apart.mean(axis=0)
        width = np.sqrt((apart**2).mean(axis=0))
        floor = 1e-10 * np.abs(self.loss.hessian(w)).max() * (1.0 + np.abs(w).max())
        if self.labels and np.any(width > floor):
            return True  # labels on batches whose samples disagree
        return bool(np.any((np.abs((apart**3).mean(axis=0)) > 1e-9 * width**3) & (width > floor)))

    def leaves(self, w: Floats, tangent: Floats, curvature: float) -> bool:
        """Whether every sample rests at w, but not beside it along the minima, `tangent` (D, t): what batches make of a
        displacement along them then drives it further. `curvature` is the largest at w."""
        if not tangent.size or self.kappa == 0.0 or self.loss.n_samples in (None, 1):
            return False
        unit = 1.0 + np.abs(w).max()
        left = np.abs(self.loss.sample_grads(w)).max() / unit
        if left > 1e-7 * curvature:
            return False
        bent = self.loss.sample_hvps(w, np.ascontiguousarray(tangent.T)) @ tangent
        return bool(np.abs(bent).max() > max(1e-7 * curvature, 1e3 * left))  # else it is of a fit that is not finished

    # -- what linear stability is told --
    def linear_response(self, w: Floats) -> LinearResponse:
        """How the covariance answers to a displacement from w; FlowError where steps depend on each other."""
        self.refuse("no_response")
        found = [sigma.at_point(w)[1] for sigma in self.additive]
        slopes = [s for s in found if s is not None]
        return LinearResponse(self.kappa, self.label_variance, np.concatenate(slopes) if slopes else None)

    def variance(self, w: Floats) -> Floats:
        """The diagonal of the covariance at w, (D,)."""
        out = np.zeros(len(w))
        for sigma in self.additive:
            out += (sigma.at_point(w)[0] ** 2).sum(axis=1)
        for part in reversed(self._of_samples):
            out += part.variance(self, w)
        return out

    # -- the covariance that a flow sees --
    def add_covariance(self, src: Source, of_epochs: bool = False) -> None:
        """Add `sigma(w, c, d, nz, out)` (D, D), its diagonal `noise_q`, that diagonal's first and second directional
        derivatives `noise_dq(w, u, ...)`, `noise_ddq(w, u, v, ...)`, and `noise_bend` to a module. `of_epochs`: of
        shuffled samples that of an epoch's mean, per step."""
        self.refuse("no_covariance", of_epochs)
        size = self.loss.dim
        names = "grad, sample_grad" + ", model_grad" * (self.loss.model is not None)
        src.line(f"from {self.loss.kernels.__name__} import {names}")
        body = [f"for i in range({size}):", f"    for j in range({size}):", "        out[i, j] = 0.0"]
        body += additive.add_factor(src, self)
        for part in self._of_samples:
            body += part.covariance(src, self)
        src.add("sigma", "w, c, d, nz, out", body)
        g = Graph()
        stores = list(additive.diagonal(g, self))
        self.load(g, "label"), self.load(g, "kappa")
        for part in self._of_samples:
            stores += part.diagonal(g, self)
        tangents = additive.along(stores, "u")
        for name, args, nodes in (
            ("noise_q", "w, c, d, nz, out", stores),
            ("noise_dq", "w, u, c, d, nz, out", tangents),
            ("noise_ddq", "w, u, v, c, d, nz, out", additive.along(tangents, "v")),
        ):
            zero = [f"for q in range({size}):", "    out[q] = 0.0"]
            lines = self.loss.emitter(nodes).lines() if nodes else []
            src.add(name, args, [*(["n = d.shape[0]"] if self.loss.per_sample else []), *zero, *lines])
        self._add_bend(src)

    def _add_bend(self, src: Source) -> None:
        """Add `noise_bend(w, u, share, c, d, nz, first, second, labels)`: what a displacement adds to the covariance,

            N(W) = D^2 Sigma[W] / 2 = E (D xi)(D xi)^T + Sym E xi (D^2 xi)[W]^T

        Both parts of `N(share u u^T)` without the labels', and the first part of theirs, are added to (D, D). The first
        is that of the second-moment operator (theory, section 5): it is there also where the noise vanishes at the
        minimum itself. For batches `D xi = (H_i - H) u`, for labels the Hessian of the model's output times u, for
        additive noise the slope of sigma. What labels multiply is of higher order in their noise than what stays of
        them at the minimum: it decides on stability, and the flow, of leading order, leaves it out.
        """
        body = additive.bend(src, self) if self.additive and self.varies else []
        for part in self._of_samples:
            body += part.bend(src, self)
        src.add(
            "noise_bend",
            "w, u, share, c, d, nz, first, second, labels",
            body or ["pass"],
            "what a displacement adds to Sigma",
        )

    def add_moments(self, src: Source, wanted: bool = True) -> None:
        """Add `noise_moments(w, c, d, nz, third, fourth)`: `E xi_i xi_j^2` and `Cov(xi_i^2, xi_j^2)`, (D, D) each;
        where nobody wants them, a kernel that leaves these alone. FlowError where there is no fourth moment."""
        if wanted:
            for part in self.noise.parts:
                if isinstance(part, Additive) and part.law.excess == np.inf:
                    raise FlowError(f"{part!r} has no fourth moment, which is needed here: the rule squares the noise.")
            return add_noise_moments(src, self)
        src.add("noise_moments", "w, c, d, nz, third, fourth", ["pass"])

    def symbolic_covariance(self, chart: Any) -> tuple[list[Column], sp.Matrix | None]:
        """The covariance as weighted columns, `sum weight c c^T`, each with whether it bends (labels, of leading order,
        do not); and the matrix of sigma, where that is all and normal. `chart` has the symbols, as `flows.slow` gives
        them: `loss`, `gradient`, `slopes(e)` in the parameters, `on_samples(e)`, the user's expressions `renamed(e)`,
        numbers `exact(value)` or `symbol(name, value)`."""
        self.refuse("no_covariance")
        sigma = [s.symbolic(chart) for s in self.additive]
        columns: list[Column] = [(sp.S.One, s[:, r], True) for s in sigma for r in range(s.cols)]
        for part in self._of_samples:
            columns += part.columns(chart, self)
        return columns, sp.Matrix.hstack(*sigma) if self.couples else None

    def refuse(self, what: str, of_epochs: bool = False) -> None:
        """FlowError where a part has no covariance per step, "no_covariance", or no linear response, "no_response";
        `of_epochs` where that of a whole epoch will do."""
        for part in self.noise.parts:
            if getattr(part, what) and not (of_epochs and part in self._chosen):
                raise FlowError(getattr(part, what))


def _even(count: int) -> int:
    return count + count % 2
