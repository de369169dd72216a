"""Third and fourth moments of gradient noise, `E xi_i xi_j^2`, `Cov(xi_i^2, xi_j^2)`: what squares of gradients hear.

With c the samples' gradients about their mean, `f` those of the model's outputs, `v = s^2/B`, and weights `w` of the
way in which batches are drawn (`kappa` is the second moments')

    E xi_i xi_j^2          = w0 <c_i c_j^2> + kappa v <c_i f_j^2 + 2 c_j f_i f_j>
    Cov(xi_i^2, xi_j^2)    = 2 Sigma_ij^2 + w1 <c_i^2 c_j^2> + (w2 - kappa^2) (<c_i^2><c_j^2> + 2 <c_i c_j>^2)
                             + what the variance of the labels in a batch has in common with the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidyn.kernels import Source

if TYPE_CHECKING:
    from minidyn.maps.noise import BoundNoise


def weights(bound: BoundNoise) -> tuple[float, float, float]:
    """How third and fourth moments of a mean over a batch follow from those of the samples, c centred:
    `E xi^3 = w0 <c^3>`, `E xi^4 = w1 <c^4> + 3 w2 <c^2>^2`."""
    n, size = bound.loss.n_samples or 1, bound.batch
    if bound.noise.batch is None or (bound.noise.sampling == "without" and size == n):
        return 0.0, 0.0, 0.0
    if bound.noise.sampling == "with":
        return 1 / size**2, 1 / size**3, (size - 1) / size**3
    held, share = [], 1.0  # the probability that a subset holds one, two, three, four given samples
    for taken in range(4):
        share *= max(size - taken, 0) / (n - taken) if n > taken else 0.0
        held.append(share)
    one, two, three, four = held
    w1 = n * (one - 7 * two + 12 * three - 6 * four) / size**4
    return n * (one - 3 * two + 2 * three) / size**3, w1, n**2 * (two - 2 * three + four) / size**4


def add_noise_moments(src: Source, bound: BoundNoise) -> None:
    """Add `noise_moments(w, c, d, nz, third, fourth)`, (D, D) each."""
    size, noise = bound.loss.dim, bound.noise
    body = [
        f"whole = np.empty(({size}, {size}))", "sigma(w, c, d, nz, whole)",
        f"for i in range({size}):", f"    for j in range({size}):", "        third[i, j] = 0.0",
        "        fourth[i, j] = 2.0 * whole[i, j] * whole[i, j]",
    ]  # fmt: skip
    if noise.batch is not None or noise.label_std is not None:
        body += _samples(bound)
    src.add("noise_moments", "w, c, d, nz, third, fourth", body, "third and fourth moments of the noise")


def _samples(bound: BoundNoise) -> list[str]:
    """What drawn samples and their labels add to Gaussian moments; nz[1] is v, nz[2] kappa."""
    size, (w0, w1, w2) = bound.loss.dim, weights(bound)
    labels = bound.noise.label_std is not None
    coin = 2.0 / bound.batch if bound.noise.label_kind == "rademacher" else 0.0
    turn = [
        "for s in range(n):", "    sample_grad(w, c, d, s, p)", *(["    model_grad(w, c, d, s, f)"] if labels else []),
        f"    for i in range({size}):", f"        for j in range({size}):",
    ]  # fmt: skip
    return [
        "n = d.shape[0]", f"p = np.empty({size})", f"f = np.zeros({size})", f"mid = np.zeros({size})",
        "grad(w, c, d, mid)", f"second = np.zeros((2, {size}, {size}))", *turn,
        "            second[0, i, j] += (p[i] - mid[i]) * (p[j] - mid[j]) / n",
        "            second[1, i, j] += f[i] * f[j] / n", *turn,
        "            a = p[i] - mid[i]", "            b = p[j] - mid[j]",
        "            x = f[i]", "            y = f[j]",
        f"            third[i, j] += {w0!r} * a * b * b / n",
        "            third[i, j] += nz[1] * nz[2] * (a * y * y + 2.0 * b * x * y) / n",
        f"            fourth[i, j] += {w1!r} * a * a * b * b / n",
        "            shared = a * a * (y * y - second[1, j, j]) + b * b * (x * x - second[1, i, i])",
        "            shared += 4.0 * a * b * (x * y - second[1, i, j])",
        f"            fourth[i, j] += nz[1] * {w0!r} * shared / n",
        f"            fourth[i, j] += nz[1] * nz[1] * (3.0 * nz[2] - {coin!r}) * x * x * y * y / n",
        f"for i in range({size}):", f"    for j in range({size}):",
        "        pairs = second[0, i, i] * second[0, j, j] + 2.0 * second[0, i, j] * second[0, i, j]",
        f"        fourth[i, j] += ({w2!r} - nz[2] * nz[2]) * pairs",
        "        pairs = second[1, i, i] * second[1, j, j] + 2.0 * second[1, i, j] * second[1, i, j]",
        "        fourth[i, j] -= nz[1] * nz[1] * nz[2] * pairs",
    ]  # fmt: skip
