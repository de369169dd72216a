"""Noise that multiplies a displacement, `Cov(w + u) = Sigma(w) + slope u + ... `: what the oscillation itself adds.

    N(W) = D^2 Sigma[W] / 2 = E (D xi)(D xi)^T + Sym E xi (D^2 xi)[W]^T

The first part is that of the second-moment operator (theory, section 5): it is there also where the noise vanishes at
the minimum itself. For batches `D xi = (H_i - H) u`, for labels the Hessian of the model's output times u, for Gaussian
noise the slope of sigma.

What labels multiply is of higher order in their noise than what stays of them at the minimum: it decides on stability,
and the flow, of leading order, leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minidyn.graph import Graph, Node, derivatives
from minidyn.kernels import Source, store
from minidyn.maps.loss import ONE_SAMPLE, differentiate, first_sample

if TYPE_CHECKING:
    from minidyn.maps.noise import BoundNoise


def add_noise_bend(src: Source, bound: BoundNoise) -> None:
    """Add `noise_bend(w, u, share, c, d, nz, first, second, labels)`: both parts of `N(share u u^T)` without the
    labels', and the first part of theirs, are added to (D, D)."""
    loss, noise, body = bound.loss, bound.noise, list[str]()
    size = loss.dim
    if noise.sigma is not None and bound.varies:
        body += _gaussian(src, bound)
    if noise.label_std is not None:
        _add_slopes(src, bound, "model", first_sample(loss.model_node(Graph())), ("slope",))
        body += _labels(size)
    if noise.batch is not None:
        src.line(f"from {loss.kernels.__name__} import hvp, third")
        _add_slopes(src, bound, "sample", first_sample(loss.sample_node(Graph())), ("slope", "curve"))
        body += _samples(size)
    src.add("noise_bend", "w, u, share, c, d, nz, first, second, labels", body or ["pass"],
            "what a displacement adds to Sigma")  # fmt: skip


def _add_slopes(src: Source, bound: BoundNoise, name: str, node: Node, kinds: tuple[str, ...]) -> None:
    """`sample_slope(w, u, c, d, sample, out)`, the derivative of a sample's gradient along u, and the second one."""
    slopes = differentiate(derivatives.reverse(node, "w"), "u")
    for kind in kinds:
        pairs = slopes if kind == "slope" else differentiate(slopes, "u")
        bound.loss.add_vector(src.add, f"{name}_{kind}", "w, u, c, d, sample, out", pairs, f"{kind} along u",
                              headers=ONE_SAMPLE, sample_count="1")  # fmt: skip


def _samples(size: int) -> list[str]:
    """Second moments of the samples' gradients, their slopes and curves, about the loss's own."""
    return [
        "n = d.shape[0]", f"p = np.empty((3, {size}))", f"mid = np.empty((3, {size}))",
        "grad(w, c, d, mid[0])", "hvp(w, u, c, d, mid[1])", "third(w, u, u, c, d, mid[2])",
        "for s in range(n):", "    sample_grad(w, c, d, s, p[0])", "    sample_slope(w, u, c, d, s, p[1])",
        "    sample_curve(w, u, c, d, s, p[2])",
        f"    for i in range({size}):", "        a = (p[1, i] - mid[1, i]) * share * nz[2] / n",
        "        b = (p[0, i] - mid[0, i]) * share * nz[2] / (2 * n)",
        f"        for j in range({size}):", "            first[i, j] += a * (p[1, j] - mid[1, j])",
        "            bent = b * (p[2, j] - mid[2, j])", "            second[i, j] += bent",
        "            second[j, i] += bent",
    ]  # fmt: skip


def _labels(size: int) -> list[str]:
    """Second moments of the slopes of the model's gradient."""
    return [
        "n = d.shape[0]", f"p1 = np.empty({size})", "for s in range(n):", "    model_slope(w, u, c, d, s, p1)",
        f"    for i in range({size}):", "        a = p1[i] * share * nz[1] / n",
        f"        for j in range({size}):", "            labels[i, j] += a * p1[j]",
    ]  # fmt: skip


def _gaussian(src: Source, bound: BoundNoise) -> list[str]:
    """The same for sigma, column by column."""
    size, width = bound.loss.dim, bound.gaussian_rows
    factor = bound.factor_stores()
    slopes = along(factor, "u")
    for name, stores in (("factor_slope", slopes), ("factor_curve", along(slopes, "u"))):
        zero = [f"for q in range({size * width}):", "    f[q] = 0.0"]
        src.add(name, "w, u, c, d, nz, f", [*zero, *(bound.loss.emitter(stores).lines() if stores else [])])
    return [
        f"f = np.empty((3, {size * width}))", "noise_factor(w, c, d, nz, f[0])",
        "factor_slope(w, u, c, d, nz, f[1])", "factor_curve(w, u, c, d, nz, f[2])",
        f"for i in range({size}):", f"    for r in range({width}):",
        f"        a = f[1, i*{width} + r] * share", f"        b = 0.5 * f[0, i*{width} + r] * share",
        f"        for j in range({size}):", f"            first[i, j] += a * f[1, j*{width} + r]",
        f"            bent = b * f[2, j*{width} + r]", "            second[i, j] += bent",
        "            second[j, i] += bent",
    ]  # fmt: skip


def leaves(bound: BoundNoise, w: NDArray[np.float64], tangent: NDArray[np.float64], curvature: float) -> bool:
    """Whether every sample rests at w, but not beside it along the minima, `tangent` (D, t): what batches make of a
    displacement along them then drives it further. `curvature` is the largest at w."""
    loss = bound.loss
    if not tangent.size or bound.numbers[2] == 0.0 or loss.n_samples in (None, 1):
        return False
    if np.abs(loss.sample_grads(w)).max() > 1e-7 * curvature * (1.0 + np.abs(w).max()):
        return False
    bent = loss.sample_hvps(w, np.ascontiguousarray(tangent.T)) @ tangent
    return bool(np.abs(bent).max() > 1e-7 * curvature)


def along(stores: list[Node], direction: str) -> list[Node]:
    """The stores' derivatives along a direction, added to what is there; without those that vanish."""
    tangents = derivatives.forward([s.args[0] for s in stores], "w", direction)
    return [
        store(t.graph, t, s.data[0], s.data[1], s.data[2], add=True)
        for s, t in zip(stores, tangents, strict=True)
        if not (t.is_const and t.data == 0.0)
    ]
