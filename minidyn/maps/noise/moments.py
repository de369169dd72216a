"""Third and fourth moments of gradient noise, `E xi_i xi_j^2`, `Cov(xi_i^2, xi_j^2)`: what squares of gradients see.

With c the samples' gradients about their mean, `f` those of the model's outputs by the samples' weights (products of
two f are summed over several outputs), `v = s^2/B`, and weights `w` of the way in which batches are drawn (`kappa` is
the second moments')

    E xi_i xi_j^2          = w0 <c_i c_j^2> + kappa v <c_i f_j^2 + 2 c_j f_i f_j>
    Cov(xi_i^2, xi_j^2)    = 2 Sigma_ij^2 + w1 <c_i^2 c_j^2> + (w2 - kappa^2) (<c_i^2><c_j^2> + 2 <c_i c_j>^2)
                             + what the variance of the labels in a batch has in common with the batch
                             + (E z^4 - 3) sum_r sigma_ir^2 sigma_jr^2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidyn.kernels import Source
from minidyn.maps.noise.additive import fourth_moments

if TYPE_CHECKING:
    from minidyn.maps.noise.bound import BoundNoise


def add_noise_moments(src: Source, bound: BoundNoise) -> None:
    """Add `noise_moments(w, c, d, nz, third, fourth)`, (D, D) each."""
    size = bound.loss.dim
    body = [
        f"whole = np.empty(({size}, {size}))",
        "sigma(w, c, d, nz, whole)",
        f"for i in range({size}):",
        f"    for j in range({size}):",
        "        third[i, j] = 0.0",
        "        fourth[i, j] = 2.0 * whole[i, j] * whole[i, j]",
        *fourth_moments(bound),
    ]
    if bound.picks or bound.labels:
        body += _samples(bound)
    src.add("noise_moments", "w, c, d, nz, third, fourth", body, "third and fourth moments of the noise")


def _samples(bound: BoundNoise) -> list[str]:
    """What drawn samples and their labels add to Gaussian moments."""
    size, n = bound.loss.dim, bound.loss.n_samples or 1
    w0, w1, w2 = bound.sampling.moments(n) if bound.picks else (0.0, 0.0, 0.0)
    v, kappa = bound.reads("label"), "0.0" if bound.alike else bound.reads("kappa")
    lack = 0.0 - sum(part.law.excess for part in bound.labels) / bound.batch
    several = bool(bound.labels) and not (bound.loss.outputs is None and bound.loss.weight is None)
    xx, yy, xy, f = ("xx", "yy", "xy", "xy") if several else ("x * x", "y * y", "x * y", "f[i] * f[j]")
    each = _each_output(bound) if several else ["    model_grad(w, c, d, s, f)"] if bound.labels else []
    turn = [
        "for s in range(n):",
        "    sample_grad(w, c, d, s, p)",
        *each,
        f"    for i in range({size}):",
        f"        for j in range({size}):",
        *(_PRODUCTS if several else []),
    ]
    mixed = f"(3.0 * {kappa} - {lack!r}) * x * x * y * y"
    if several:
        mixed = f"({kappa} * (xx * yy + 2.0 * xy * xy) - {lack!r} * four)"
    return [
        "n = d.shape[0]", f"p = np.empty({size})", f"f = np.zeros({(bound.per_sample, size) if several else size})",
        f"mid = np.zeros({size})", "grad(w, c, d, mid)", f"second = np.zeros((2, {size}, {size}))", *turn,
        "            second[0, i, j] += (p[i] - mid[i]) * (p[j] - mid[j]) / n",
        f"            second[1, i, j] += {f} / n", *turn,
        "            a = p[i] - mid[i]", "            b = p[j] - mid[j]",
        *([] if several else ["            x = f[i]", "            y = f[j]"]),
        f"            third[i, j] += {w0!r} * a * b * b / n",
        f"            third[i, j] += {v} * {kappa} * (a * {yy} + 2.0 * b * {xy}) / n",
        f"            fourth[i, j] += {w1!r} * a * a * b * b / n",
        f"            shared = a * a * ({yy} - second[1, j, j]) + b * b * ({xx} - second[1, i, i])",
        f"            shared += 4.0 * a * b * ({xy} - second[1, i, j])",
        f"            fourth[i, j] += {v} * {w0!r} * shared / n",
        f"            fourth[i, j] += {v} * {v} * {mixed} / n",
        f"for i in range({size}):", f"    for j in range({size}):",
        "        pairs = second[0, i, i] * second[0, j, j] + 2.0 * second[0, i, j] * second[0, i, j]",
        f"        fourth[i, j] += ({w2!r} - {kappa} * {kappa}) * pairs",
        "        pairs = second[1, i, i] * second[1, j, j] + 2.0 * second[1, i, j] * second[1, i, j]",
        f"        fourth[i, j] -= {v} * {v} * {kappa} * pairs",
    ]  # fmt: skip


_PRODUCTS = ["            " + line for line in (
    "xx = 0.0", "yy = 0.0", "xy = 0.0", "four = 0.0", "for q in range(f.shape[0]):",
    "    xx += f[q, i] * f[q, i]", "    yy += f[q, j] * f[q, j]", "    xy += f[q, i] * f[q, j]",
    "    four += f[q, i] * f[q, i] * f[q, j] * f[q, j]",
)]  # fmt: skip


def _each_output(bound: BoundNoise) -> list[str]:
    """Lines that set `f` to the gradients of sample s's outputs, by its weight."""
    share = bound.loss.share_of("s")
    weigh = [f"        for i in range({bound.loss.dim}):", f"            f[q, i] *= {share}"] if share else []
    count = bound.per_sample
    return [f"    for q in range({count}):", f"        model_grad(w, c, d, s * {count} + q, f[q])", *weigh]
