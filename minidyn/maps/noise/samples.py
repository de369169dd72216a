"""Noise that comes from the samples: second moments of a gradient that each of them has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from minidyn.common.errors import FlowError
from minidyn.graph import SAMPLE, Graph, Node, derivatives
from minidyn.kernels import Source, apart, store
from minidyn.maps.loss import ONE_SAMPLE, differentiate, first_sample, mean
from minidyn.maps.noise.base import Part

if TYPE_CHECKING:
    from minidyn.maps.noise.bound import BoundNoise, Chartlike, Column


class OfSamples(Part):
    """A covariance `scale (1/n) sum p_i p_i^T`: of the samples' gradients about their mean, or of the model's."""

    scale: ClassVar[str]  # a number of `BoundNoise.reads`
    kernel: ClassVar[str]  # "sample_grad" or "model_grad"

    @property
    def _centred(self) -> bool:
        return self.kernel == "sample_grad"

    def covariance(self, bound: BoundNoise) -> list[str]:
        """Lines that add it to `out`."""
        size = bound.loss.dim
        return [
            "n = d.shape[0]", f"p = np.empty({size})", f"mid = np.zeros({size})",
            *(["grad(w, c, d, mid)"] if self._centred else []),
            "for s in range(n):", f"    {self.kernel}(w, c, d, s, p)", f"    for i in range({size}):",
            f"        a = (p[i] - mid[i]) * {bound.reads(self.scale)} / n", f"        for j in range({size}):",
            "            out[i, j] += a * (p[j] - mid[j])",
        ]  # fmt: skip

    def diagonal(self, g: Graph, bound: BoundNoise) -> Iterator[Node]:
        """Stores that add its diagonal to `out`."""
        pairs = derivatives.reverse(self._node(g, bound), "w", fixed=frozenset([SAMPLE]))
        if not apart(pairs):
            raise FlowError(
                "the model reads the same parameters through differently shaped sums; "
                "write them with sums over the same index range, or as separate symbols."
            )
        scale = bound.load(g, self.scale)
        for element, slope in pairs:
            second = mean(slope * slope)
            if self._centred:
                second = second - mean(slope) ** 2
            yield store(g, scale * second, "out", element.data[1], element.data[2], add=True)

    def _node(self, g: Graph, bound: BoundNoise) -> Node:
        return bound.loss.sample_node(g) if self._centred else bound.loss.model_node(g)

    def add_slopes(self, src: Source, bound: BoundNoise, *kinds: str) -> None:
        """`sample_slope(w, u, c, d, sample, out)`, the derivative of a sample's gradient along u, or `model_slope`, and
        the second one."""
        slopes = differentiate(derivatives.reverse(first_sample(self._node(Graph(), bound)), "w"), "u")
        for kind in kinds:
            pairs = slopes if kind == "slope" else differentiate(slopes, "u")
            name = self.kernel.replace("grad", kind)
            bound.loss.add_vector(src.add, name, "w, u, c, d, sample, out", pairs, f"{kind} along u",
                                  headers=ONE_SAMPLE, sample_count="1")  # fmt: skip

    def bend(self, src: Source, bound: BoundNoise) -> list[str]:
        """What a displacement does to it, as `BoundNoise.add_covariance` has it."""
        raise NotImplementedError

    def columns(self, chart: Chartlike, bound: BoundNoise) -> Iterator[Column]:
        """Weights and vectors that make it up in the symbols of a chart, and whether they bend."""
        raise NotImplementedError

    def variance(self, bound: BoundNoise, w: NDArray[np.float64]) -> NDArray[np.float64] | float:
        """Its diagonal at w, (D,)."""
        raise NotImplementedError
