"""A step that looks at some of the samples, `g_B`, the mean of a batch: `Cov = kappa <(g_i - g)(g_i - g)^T>`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import FlowError, InputError, said
from minidyn.common.intake import whole
from minidyn.graph import SAMPLE, Graph, Node, derivatives
from minidyn.kernels import Source, apart, store
from minidyn.maps.loss import ONE_SAMPLE, differentiate, first_sample, mean
from minidyn.maps.noise.base import Option, Part

if TYPE_CHECKING:
    from minidyn.maps.noise.bound import BoundNoise, Column


class OfSamples(Part):
    """A covariance `scale (1/n) sum p_i p_i^T`: of the samples' gradients about their mean, or of the model's."""

    scale: ClassVar[str]  # a number of `BoundNoise.reads`
    kernel: ClassVar[str]  # "sample_grad" or "model_grad"

    @property
    def _centred(self) -> bool:
        return self.kernel == "sample_grad"

    def covariance(self, src: Source, bound: BoundNoise) -> list[str]:
        """Lines that add it to `out`."""
        size = bound.loss.dim
        return [
            "n = d.shape[0]",
            f"p = np.empty({size})",
            f"mid = np.zeros({size})",
            *(["grad(w, c, d, mid)"] if self._centred else []),
            f"for s in range({'n' if self._centred else bound.loss.turns}):",
            f"    {self.kernel}(w, c, d, s, p)",
            f"    for i in range({size}):",
            f"        a = (p[i] - mid[i]) * {self.amount(bound)} / n",
            f"        for j in range({size}):",
            "            out[i, j] += a * (p[j] - mid[j])",
        ]

    def diagonal(self, g: Graph, bound: BoundNoise) -> Iterator[Node]:
        """Stores that add its diagonal to `out`."""
        for element, variance in self.variances(g, bound):
            yield store(g, variance, "out", element.data[1], element.data[2], add=True)

    def variances(self, g: Graph, bound: BoundNoise) -> Iterator[tuple[Node, Node]]:
        """Its diagonal as pairs (element of `w`, variance there), a pair for each entry."""
        for loops in (True, False):  # terms that share a parameter are apart where they are written out
            node = self._node(g, bound, loops)
            pairs = derivatives.reverse(node, "w", fixed=node.indices | {SAMPLE})
            if apart(pairs):
                break
        else:
            raise FlowError(
                "the model reads the same parameters through differently shaped sums; "
                "write them with sums over the same index range, or as separate symbols."
            )
        scale = bound.load(g, self.scale)
        for element, slope in pairs:
            square = slope * slope
            for index in sorted(node.indices - {SAMPLE} - element.indices):  # over the outputs
                square = g.sum(square, index)
            second = mean(square if self._centred else square * bound.loss.share_node(g) ** 2)
            if self._centred:
                second = second - mean(slope) ** 2
            yield element, scale * second

    def amount(self, bound: BoundNoise) -> str:
        """What a kernel multiplies a turn's part of the mean by."""
        return bound.reads(self.scale)

    def _node(self, g: Graph, bound: BoundNoise, loops: bool = True) -> Node:
        return bound.loss.sample_node(g, loops=loops) if self._centred else bound.loss.model_node(g, loops)

    def add_slopes(self, src: Source, bound: BoundNoise, *kinds: str) -> None:
        """`sample_slope(w, u, c, d, sample, out)`, the derivative of a sample's gradient along u, or `model_slope`, and
        the second one."""
        slopes = differentiate(derivatives.reverse(first_sample(self._node(Graph(), bound)), "w"), "u")
        for kind in kinds:
            pairs = slopes if kind == "slope" else differentiate(slopes, "u")
            name = self.kernel.replace("grad", kind)
            turn = ONE_SAMPLE if self._centred else bound.loss.one_output
            bound.loss.add_vector(src.add, name, "w, u, c, d, sample, out", pairs, f"{kind} along u", **turn)


class Sampling(OfSamples):
    """A way to choose `batch` samples per step: subsets, all equally likely, where a subclass says nothing else."""

    batch: int
    sampling: ClassVar[Any] = "without"  # in words: "without", "with" (replacement), "reshuffle"
    shuffles: ClassVar[bool] = False  # whether the order of the samples is kept from step to step
    needs: ClassVar[str] = "samples"
    sets: ClassVar[str] = "batch"
    rank: ClassVar[int] = 2
    scale: ClassVar[str] = "kappa"
    kernel: ClassVar[str] = "sample_grad"
    options: ClassVar[dict[str, Option]] = {"batch": Option("batch")}

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch", whole("batch", self.batch, 1))

    def check(self, bound: BoundNoise) -> None:
        """Refuse a loss without samples, and a batch of more than there are."""
        n = bound.loss.n_samples
        if n is None:
            raise InputError(
                f"{bound.noise} draws samples, but the loss has no data: give {said('data=')} or use Gaussian noise."
            )
        if self.batch > n and self.size_for(0.0, n) <= n:
            raise InputError(f"the batch of {self.batch} is larger than the {n} samples; choose at most {n}.")

    def formula(self, seen: str) -> tuple[str, str]:
        """The mean over a batch."""
        mean = rf"\frac{{1}}{{{self.batch}}} \sum_{{i \in B_{{k}}}} \nabla \ell_{{i}}(\theta_{{k}})"
        if self.batch == 1:
            return r"\nabla \ell_{i_{k}}(\theta_{k})", rf"$\ell_{{i}}$: loss of sample $i$; $i_{{k}}$: {self.words}"
        return mean, rf"$\ell_{{i}}$: loss of sample $i$; $B_{{k}}$: {self.words}"

    # -- what a family member says of itself --
    @property
    def words(self) -> str:
        """How a batch comes about."""
        return f"{few(self.batch)} of the samples, fresh every step, {self.sampling} replacement"

    def lines(self) -> list[str]:
        """What sets `size` and `index[b*64 + lane]` at step k, with `n` samples and a permutation `order`."""
        raise NotImplementedError

    def weight(self, size: Any, n: int) -> Any:
        """kappa at a batch size: an int, a real number or, for an exact answer, a sympy number."""
        return (n - size) / (size * max(n - 1, 1))

    def size_for(self, kappa: float, n: int) -> float:
        """The batch size, as a real number, whose weight is kappa: the inverse of `weight`, infinite without an end."""
        return n / (1 + kappa * (n - 1))

    def choices(self, n: int, most: int) -> list[tuple[NDArray[Any], Floats, bool]]:
        """The batches of a step, in groups of one size: samples (R, B), probabilities (R,), and whether these are all;
        of more than `most` so many are drawn, always the same ones."""
        return [subsets(n, min(self.batch, n), most)]

    def moments(self, n: int) -> tuple[float, float, float]:
        """How third and fourth moments of a mean over a batch follow from those of the samples, c centred:
        `E xi^3 = w0 <c^3>`, `E xi^4 = w1 <c^4> + 3 w2 <c^2>^2`."""
        size = self.batch
        if size == n:
            return 0.0, 0.0, 0.0
        held, share = [], 1.0  # the probability that a subset holds one, two, three, four given samples
        for taken in range(4):
            share *= max(size - taken, 0) / (n - taken) if n > taken else 0.0
            held.append(share)
        one, two, three, four = held
        w1 = n * (one - 7 * two + 12 * three - 6 * four) / size**4
        return n * (one - 3 * two + 2 * three) / size**3, w1, n**2 * (two - 2 * three + four) / size**4

    def skews(self, n: int) -> bool:
        """Whether a mean over a batch has a third moment where the samples have one: not if the rest is as large."""
        return n != 2 * self.batch

    # -- what follows --
    def columns(self, chart: Any, bound: BoundNoise) -> Iterator[Column]:
        """Every sample's gradient about the mean."""
        n = bound.loss.n_samples or 1
        kappa, mean = self.weight(sp.Integer(self.batch), n), chart.gradient
        for e in chart.on_samples(bound.loss.expr):
            yield kappa / n, chart.slopes(e) - mean, True

    def variance(self, bound: BoundNoise, w: Floats) -> Floats | float:
        """`kappa` times the variance of the samples' gradients."""
        return bound.kappa * bound.loss.sample_grads(w).var(axis=0) if bound.kappa > 0 else 0.0

    def bend(self, src: Source, bound: BoundNoise) -> list[str]:
        """Second moments of the samples' gradients, their slopes and curves, about the loss's own."""
        size, kappa = bound.loss.dim, bound.reads("kappa")
        src.line(f"from {bound.loss.kernels.__name__} import hvp, third")
        self.add_slopes(src, bound, "slope", "curve")
        return [
            "n = d.shape[0]", f"p = np.empty((3, {size}))", f"mid = np.empty((3, {size}))",
            "grad(w, c, d, mid[0])", "hvp(w, u, c, d, mid[1])", "third(w, u, u, c, d, mid[2])",
            "for s in range(n):", "    sample_grad(w, c, d, s, p[0])", "    sample_slope(w, u, c, d, s, p[1])",
            "    sample_curve(w, u, c, d, s, p[2])",
            f"    for i in range({size}):", f"        a = (p[1, i] - mid[1, i]) * share * {kappa} / n",
            f"        b = (p[0, i] - mid[0, i]) * share * {kappa} / (2 * n)",
            f"        for j in range({size}):", "            first[i, j] += a * (p[1, j] - mid[1, j])",
            "            bent = b * (p[2, j] - mid[2, j])", "            second[i, j] += bent",
            "            second[j, i] += bent",
        ]  # fmt: skip


def subsets(n: int, size: int, most: int, share: float = 1.0) -> tuple[NDArray[Any], Floats, bool]:
    """All subsets of `size` of n samples, or `most` of them, with probabilities that add up to `share`."""
    exact = comb(n, size) <= most
    rng = np.random.default_rng(0)
    rows = [*combinations(range(n), size)] if exact else [rng.choice(n, size, replace=False) for _ in range(most)]
    return np.array(rows, np.int64), np.full(len(rows), share / len(rows)), exact


def few(size: int) -> str:
    """A number of samples in words."""
    return "one" if size == 1 else f"{size:,}"
