"""Gaussian noise with the covariance of another noise: all of it, its diagonal, or its trace spread evenly.

    full        g + sqrt(kappa/n) sum_i (g_i - g) z_i          Sigma = kappa C
    diagonal    g_p + sqrt(kappa C_pp) z_p                     diag(Sigma)
    isotropic   g + sqrt(kappa tr C / D) z                     (tr Sigma / D) I

with `C = (1/n) sum (g_i - g)(g_i - g)^T` and normal z: no matrix is factorized. Beside the noise itself they tell what
in a run is due to its law, to its shape and to its size (Zhu, Wu, Yu, Wu, Ma 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import InputError, said
from minidyn.common.intake import one_of, shown
from minidyn.graph import SAMPLE, Graph, Node
from minidyn.kernels import Source, coordinate, store
from minidyn.maps.noise.additive import Additive
from minidyn.maps.noise.base import Noise, Option, Part, total
from minidyn.maps.noise.draws import NORMAL
from minidyn.maps.noise.minibatch import Minibatch
from minidyn.maps.noise.sampling import Sampling

if TYPE_CHECKING:
    from minidyn.maps.loss import Loss
    from minidyn.maps.noise.bound import BoundNoise, Column

SHAPES = ("full", "diagonal", "isotropic")
_WORDS = {
    "full": r"\mathrm{Cov}",
    "diagonal": r"\mathrm{diag}\,\mathrm{Cov}",
    "isotropic": r"\frac{1}{D} \mathrm{tr}\,\mathrm{Cov}",
}


def like(noise: Noise, shape: str) -> Noise:
    """What `GaussianNoise.like` returns: the sum of what its parts become."""
    one_of(shape, "the shape of the covariance", SHAPES)
    if not isinstance(noise, Noise) or not noise.parts:
        raise InputError(f"GaussianNoise.like takes a noise such as Minibatch(4), not {shown(noise)}.")
    return total([_alike(part, shape) for part in noise.parts])  # type: ignore[return-value]


def _alike(part: Part, shape: str) -> Part:
    if part.no_covariance:
        raise InputError(f"{part!r} has no covariance that normal numbers could have: {part.no_covariance}")
    if isinstance(part, Sampling):
        return LikeBatches(part, shape)
    if isinstance(part, Additive):
        return LikeAdded(part, shape)
    raise InputError(
        f"{part!r} changes targets, with numbers of its own; give GaussianNoise.like the batches alone, and add label "
        "noise to it."
    )


class _Like(Part):
    """Normal numbers with the covariance of the noise `of`."""

    of: Part
    shape: str

    def __repr__(self) -> str:
        return f"GaussianNoise.like({self.of!r}{f', {self.shape!r}' if self.shape != 'full' else ''})"

    def formula(self, seen: str) -> tuple[str, str]:
        """Sigma by the noise that has it."""
        prime = "'" * seen.count("z")  # of another one in the sum
        words = rf"$\Sigma{prime} = {_WORDS[self.shape]}$ of {self.of!r}; "
        words += f"${NORMAL.formula(f'z{prime}_{{k}}')}$, fresh every step"
        return rf"{seen} + \Sigma{prime}(\theta_{{k}})^{{1/2}} \, z{prime}_{{k}}", words


@dataclass(frozen=True, eq=False, repr=False)
class LikeAdded(_Like, Additive):
    """Normal numbers in place of those of another law.

    of : the noise.  shape : "full", "diagonal" or "isotropic", what of its covariance is taken.
    """

    _offers = "of shape"
    of: Additive
    shape: str = "full"

    sets: ClassVar[str] = "sigma"

    def entries(self, loss: Loss) -> NDArray[Any]:
        """Its sigma where all of the covariance is wanted, else the roots of the diagonal, or of their mean."""
        given = self.of.entries(loss)
        if self.shape == "full" or given.ndim < (2 if self.shape == "diagonal" else 1):
            return given
        squares = [sum(v * v for v in np.atleast_1d(row)) for row in given]
        squares = squares if self.shape == "diagonal" else [sum(squares) / len(squares)]
        roots = [sp.sqrt(v) if isinstance(v, sp.Basic) else float(v) ** 0.5 for v in squares]
        return np.array(roots if self.shape == "diagonal" else roots[0], dtype=object)

    def check(self, bound: BoundNoise) -> None:
        """Refuse what the other law would be refused for."""
        self.of.check(bound)


@dataclass(frozen=True, eq=False, repr=False)
class LikeBatches(_Like):
    """Normal numbers with the covariance of a mean over a batch, taken from the loss that they are on.

    of : the batches.  shape : "full", "diagonal" or "isotropic", what of their covariance is taken.
    """

    _offers = "of shape"
    of: Sampling
    shape: str = "full"

    key: ClassVar[str] = "gaussian-like"
    needs: ClassVar[str] = "samples"
    sets: ClassVar[str] = "batch"
    options: ClassVar[dict[str, Option]] = {
        "batch": Option("batch"),
        "replace": Option("flag", False),
        "shape": Option("choice", "full", SHAPES),
    }

    @classmethod
    def from_options(cls, **options: Any) -> Noise:
        """Batches as a model file gives them."""
        return cls(Minibatch(options["batch"], options["replace"]), options["shape"])

    @property
    def no_response(self) -> str:  # type: ignore[override]
        """A part of a covariance is not followed through the modes of the Hessian."""
        if self.shape == "full":
            return ""
        return (
            f"linear stability is worked out for the whole covariance of a noise, not for {self!r}; "
            f"use GaussianNoise.like({self.of!r})."
        )

    def check(self, bound: BoundNoise) -> None:
        """Refuse a loss without samples, and batches of more than there are."""
        if bound.loss.n_samples is None:
            raise InputError(
                f"{self!r} takes its covariance from samples, but the loss has no data: give {said('data=')} or a "
                "sigma of your own, md.GaussianNoise(sigma)."
            )
        self.of.check(bound)

    # -- what is drawn --
    def count(self, loss: Loss) -> int:
        """Normal numbers per step."""
        return loss.n_samples or 1 if self.shape == "full" else loss.dim

    def lines(self, row: int, loss: Loss) -> list[str]:
        """Draw them from a row on; those of samples about their mean, as the samples' gradients are."""
        count = str(self.count(loss))
        lines = NORMAL.lines(row, count)
        if self.shape != "full":
            return lines
        return [
            *lines,
            "for lane in lanes(64):",
            "    mid = 0.0",
            f"    for q in range({count}):",
            f"        mid = mid + z[({row} + q) * 64 + lane]",
            f"    mid = mid / {float(count)}",
            f"    for q in range({count}):",
            f"        z[({row} + q) * 64 + lane] = z[({row} + q) * 64 + lane] - mid",
        ]

    def pulled(self, g: Graph, bound: BoundNoise, sample: Node) -> Node:
        """A sample's loss as a step sees it, weighed by its number: the slopes' mean is then `g + xi`."""
        if self.shape != "full":
            return sample
        loss = bound.loss
        count = g.count(SAMPLE) if loss.per_sample else g.const(1.0)
        pull = g.load("pull", 0, per=SAMPLE if loss.per_sample else None)
        return sample + g.unary("sqrt", bound.load(g, "kappa") * count) * pull * loss.sample_node(g)

    def added(self, g: Graph, bound: BoundNoise, row: int) -> Iterator[Node]:
        """Stores that add the noise to the gradient `out`, where it is one number per coordinate."""
        if self.shape == "full":
            return
        for variance, offset, strides in self._variances(g, bound):
            root = g.unary("sqrt", g.binary("max", variance, g.const(0.0)))
            yield store(g, root * g.load("z", row + offset, strides), "out", offset, strides, add=True)

    # -- its covariance --
    def _variances(self, g: Graph, bound: BoundNoise) -> Iterator[tuple[Node, int, Any]]:
        """The diagonal: variances, each with the place of its coordinate."""
        of, size = list(self.of.variances(g, bound)), bound.loss.dim
        if self.shape != "isotropic":
            for element, variance in of:
                yield variance, *element.data[1:]
            return
        whole = g.const(0.0)
        for element, variance in of:
            for index in sorted(element.indices):
                variance = g.sum(variance, index)
            whole = whole + variance
        yield whole / float(size), 0, [(coordinate(size), 1)]

    def diagonal(self, g: Graph, bound: BoundNoise) -> Iterator[Node]:
        """Stores that add its diagonal to `out`."""
        for variance, offset, strides in self._variances(g, bound):
            yield store(g, variance, "out", offset, strides, add=True)

    def covariance(self, src: Source, bound: BoundNoise) -> list[str]:
        """Lines that add it to `out`."""
        lines, size = self.of.covariance(src, bound), bound.loss.dim
        if self.shape == "full":
            return lines
        src.add("batch_sigma", "w, c, d, nz, out", lines, "covariance of a mean over a batch")
        call = [f"whole = np.zeros(({size}, {size}))", "batch_sigma(w, c, d, nz, whole)"]
        return call + self._kept(size, ("out", "whole"))

    def bend(self, src: Source, bound: BoundNoise) -> list[str]:
        """What a displacement adds to the covariance, of which as much is kept."""
        lines, size = self.of.bend(src, bound), bound.loss.dim
        if self.shape == "full":
            return lines
        src.add("batch_bend", "w, u, share, c, d, nz, first, second", lines, "what a displacement adds to it")
        call = [f"whole = np.zeros((2, {size}, {size}))", "batch_bend(w, u, share, c, d, nz, whole[0], whole[1])"]
        return call + self._kept(size, ("first", "whole[0]"), ("second", "whole[1]"))

    def _kept(self, size: int, *pairs: tuple[str, str]) -> list[str]:
        """Lines that add to a matrix what is kept of another one."""
        every, share = (f"range({size})", f" / {size}") if self.shape == "isotropic" else ("range(i, i + 1)", "")
        head = [f"for i in range({size}):", f"    for j in {every}:"]
        return head + [f"        {out}[j, j] += {whole}[i, i]{share}" for out, whole in pairs]

    def columns(self, chart: Any, bound: BoundNoise) -> Iterator[Column]:
        """Those of the batches; of a diagonal each entry of theirs alone, of a trace that in every coordinate."""
        for weight, column, bends in self.of.columns(chart, bound):
            if self.shape == "full":
                yield weight, column, bends
                continue
            size = len(column)
            share = weight / size if self.shape == "isotropic" else weight
            for i, entry in enumerate(column):
                for j in range(size) if self.shape == "isotropic" else (i,):
                    yield share, sp.Matrix(size, 1, lambda r, _, j=j, e=entry: e if r == j else 0), bends

    def variance(self, bound: BoundNoise, w: Floats) -> Floats | float:
        """The diagonal at w."""
        of = self.of.variance(bound, w)
        return np.full(len(w), np.mean(of)) if self.shape == "isotropic" else of
