"""Gradient noise: what a map draws at every step, and the covariance that a flow sees.

    noise        the map sees                             covariance of the noise
    Gaussian     g + sigma z,  z ~ N(0, I)                sigma sigma^T
    minibatch    mean of B sample gradients               kappa C,  C = (1/n) sum (g_i - g)(g_i - g)^T
    label        targets y_i + s e_i                      (s^2/B) (1/n) sum grad f_i grad f_i^T

with kappa = 1/B (with replacement) or (n-B)/(B(n-1)) (without), and B = n for full batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError, InputError
from minidyn.common.intake import between, flag, number, numbers, one_of, whole
from minidyn.graph import SAMPLE, Graph, Index, Node, derivatives, walk
from minidyn.kernels import Source, apart, coordinate, store
from minidyn.maps.loss import Loss, mean
from minidyn.maps.multiplicative import add_noise_bend, along
from minidyn.maps.skewness import add_noise_moments

_FEW = 12  # up to this many samples are picked without a permutation in memory


@dataclass(frozen=True, eq=False)
class Noise(ByValue):
    """A model of gradient noise; made by `GaussianNoise`, `Minibatch`, `Reshuffle`, `LabelNoise` and `+`.

    sigma : number, vector (D,), matrix (D, r), or sympy expressions in the parameters; None without.
    batch : samples per step; None for full batches.
    sampling : "without" or "with" replacement, or "reshuffle" (a permutation each epoch).
    label_std, label_kind : standard deviation of the label noise and "normal" or "rademacher".
    """

    sigma: Any = None
    batch: int | None = None
    sampling: str = "without"
    label_std: float | None = None
    label_kind: str = "normal"

    def __post_init__(self) -> None:
        """What the caller gave, checked and copied: an array of floats and expressions, or one of them."""
        taken: dict[str, Any] = {"sigma": None if self.sigma is None else _entries(self.sigma)}
        taken["batch"] = None if self.batch is None else whole("the batch size", self.batch, 1)
        if self.label_std is not None:
            taken["label_std"] = between(self.label_std, "the standard deviation of label noise", 0, np.inf)
        one_of(self.label_kind, "the kind of label noise", ("normal", "rademacher"))
        one_of(self.sampling, "the sampling", ("without", "with", "reshuffle"))
        for name, value in taken.items():
            object.__setattr__(self, name, value)

    def __add__(self, other: Noise) -> Noise:
        if not isinstance(other, Noise):
            return NotImplemented
        out = self
        for field in ("sigma", "label_std", "batch"):
            theirs = getattr(other, field)
            if theirs is None:
                continue
            if getattr(out, field) is not None:
                raise InputError(f"cannot add {self} and {other}: both set {field}.")
            changes = {field: theirs}
            if field == "batch":
                changes["sampling"] = other.sampling
            if field == "label_std":
                changes["label_kind"] = other.label_kind
            out = replace(out, **changes)
        return out

    def __repr__(self) -> str:
        parts = []
        if self.sigma is not None:
            parts.append(f"GaussianNoise({_brief(self.sigma)})")
        if self.label_std is not None:
            batch = f", batch={self.batch}" if self.batch is not None and self.sampling == "without" else ""
            kind = f", kind={self.label_kind!r}" if self.label_kind != "normal" else ""
            parts.append(f"LabelNoise({self.label_std:g}{batch}{kind})")
        if self.batch is not None and (self.label_std is None or self.sampling != "without"):
            name = "Reshuffle" if self.sampling == "reshuffle" else "Minibatch"
            parts.append(f"{name}({self.batch}{', replace=True' if self.sampling == 'with' else ''})")
        return " + ".join(parts) or "no noise"


def _brief(sigma: Any) -> str:
    text = walk.named(sigma if isinstance(sigma, sp.Basic) else np.asarray(sigma, dtype=object).tolist())
    return text if len(text) < 40 else text[:37] + "..."


def GaussianNoise(sigma: Any) -> Noise:
    """`g + sigma z` with `z ~ N(0, I)` fresh every step.

    `sigma`: a number, a vector (D,), a matrix (D, r), or sympy expressions in the parameters.

    >>> import minidyn as md
    >>> md.GaussianNoise(0.3)
    GaussianNoise(0.3)
    """
    if sigma is None:
        raise InputError("sigma must hold numbers or sympy expressions, not None.")
    return Noise(sigma=sigma)


def _entries(sigma: Any) -> Any:
    """One float or expression, or an array of them that nobody changes any more."""
    if isinstance(sigma, sp.MatrixBase):
        sigma = sigma.tolist()
    if _symbolic(sigma):
        try:
            given = np.array(sigma, dtype=object)
        except ValueError as error:
            raise InputError("sigma must hold numbers or expressions in rows of one length.") from error
        entries = [v if _symbolic(v) else number(v, "an entry of sigma") for v in given.flat]
        values = np.array(entries, dtype=object).reshape(given.shape)
    else:
        values = numbers(sigma, "sigma").astype(object)
    if values.ndim > 2 or not values.size:
        raise InputError(f"sigma must be a number, a vector (D,) or a matrix (D, r); it has shape {values.shape}.")
    known = [v for v in values.flat if isinstance(v, float)]
    if not np.isfinite(known).all():
        raise InputError("sigma contains NaN or Inf; it must be finite.")
    if values.ndim < 2 and any(v < 0 for v in known):
        raise InputError("sigma is a standard deviation and must not be negative.")
    values.flags.writeable = False
    return values if values.ndim else values.item()


def _symbolic(sigma: Any) -> bool:
    """Whether an expression is no number, or is among the entries."""
    if isinstance(sigma, np.ndarray) and sigma.dtype == object:
        return any(map(_symbolic, sigma.flat))
    if isinstance(sigma, (list, tuple)):
        return any(map(_symbolic, sigma))
    return isinstance(sigma, sp.Expr) and not sigma.is_number


def Minibatch(batch: int, replace: bool = False) -> Noise:
    """Each step sees the mean over `batch` samples: a fresh subset, or independent draws (`replace=True`).

    >>> import minidyn as md
    >>> md.Minibatch(4)
    Minibatch(4)
    """
    return Noise(batch=whole("the batch size", batch, 1), sampling="with" if flag(replace, "replace") else "without")


def Reshuffle(batch: int) -> Noise:
    """Each epoch visits a fresh permutation of the samples, `batch` at a time (the last may be smaller).

    >>> import minidyn as md
    >>> md.Reshuffle(4)
    Reshuffle(4)
    """
    return Noise(batch=whole("the batch size", batch, 1), sampling="reshuffle")


def LabelNoise(std: float, batch: int | None = None, kind: str = "normal") -> Noise:
    """Each step sees the targets `y_i + std e_i`, `e_i` standard normal or +-1, fresh every step.

    For `Loss.regression` with the squared criterion; `batch` samples per step (None: all of them).

    >>> import minidyn as md
    >>> md.LabelNoise(0.1)
    LabelNoise(0.1)
    """
    if std is None:
        raise InputError("the standard deviation of label noise must be positive, not None.")
    return Noise(batch=batch, label_std=std, label_kind=kind)


class BoundNoise(ByValue):
    """A noise model on a loss: the numbers it draws, the gradient the map sees, the covariance.

    Row `r` of the draws `z` belongs to Gaussian component `r`, then to the labels of the batch.
    """

    def __init__(self, loss: Loss, noise: Noise | None):
        self.loss, self.noise = loss, noise or Noise()
        self._check()

    def _check(self) -> None:
        noise, loss, n = self.noise, self.loss, self.loss.n_samples
        if noise.sigma is not None:
            shape = np.shape(np.asarray(noise.sigma, dtype=object))
            if shape and shape[0] != loss.dim:
                raise InputError(f"sigma has {shape[0]} rows, expected {loss.dim}: one for each parameter.")
            loss.refuse_data("sigma", np.asarray(noise.sigma, dtype=object).flat)
            for position in self.positions:  # unknown symbols are reported now
                self.sigma_terms(Graph(), position)
        if noise.batch is not None:
            if n is None:
                raise InputError(f"{noise} draws samples, but the loss has no data: give data= or use GaussianNoise.")
            if noise.batch > n and noise.sampling != "with":
                raise InputError(f"the batch of {noise.batch} is larger than the {n} samples; choose at most {n}.")
        if noise.label_std is not None and loss.criterion != "squared":
            raise InputError("label noise needs Loss.regression with the squared criterion.")

    # -- what is drawn --------------------------------------------------------------------------
    @property
    def gaussian_rows(self) -> int:
        """Number of normals that Gaussian noise draws per step."""
        if self.noise.sigma is None:
            return 0
        shape = np.shape(np.asarray(self.noise.sigma, dtype=object))
        return shape[1] if len(shape) == 2 else self.loss.dim

    @property
    def batch(self) -> int:
        """Samples that a step looks at (1 where there is no data)."""
        return self.noise.batch or self.loss.n_samples or 1

    @property
    def label_rows(self) -> int:
        """Number of label perturbations drawn per step."""
        return self.batch if self.noise.label_std is not None else 0

    @property
    def rows(self) -> int:
        """Rows of the array of draws; each group starts at an even row."""
        return self.first_label + _even(self.label_rows)

    @property
    def first_label(self) -> int:
        """The row of the first label perturbation."""
        return _even(self.gaussian_rows)

    @property
    def picks(self) -> bool:
        """Whether a step chooses samples."""
        return self.noise.batch is not None

    @property
    def shuffles(self) -> bool:
        """Whether samples are visited in permutations, epoch by epoch."""
        return self.picks and self.noise.sampling == "reshuffle"

    @property
    def couples(self) -> bool:
        """Whether a flow can be driven by the same normals: all noise is Gaussian."""
        return self.noise.sigma is not None and self.noise.batch is None and self.noise.label_std is None

    @property
    def gaussian(self) -> bool:
        """Whether the noise in the gradient is normal: nothing of it comes from a choice of samples or from +-1."""
        return self.numbers[2] == 0.0 and (self.noise.label_std is None or self.noise.label_kind == "normal")

    def skewed(self, w: NDArray[np.float64]) -> bool:
        """Whether the choice of samples gives the gradient's noise a third moment at w, in any coordinate."""
        n, batch = self.loss.n_samples or 1, self.batch
        halves = self.noise.sampling != "with" and n == 2 * batch and self.noise.label_std is None
        if self.numbers[2] == 0.0 or halves:
            return False
        apart = self.loss.sample_grads(w)
        apart = apart - apart.mean(axis=0)
        width = np.sqrt((apart**2).mean(axis=0))
        floor = 1e-10 * np.abs(self.loss.hessian(w)).max() * (1.0 + np.abs(w).max())
        if self.noise.label_std is not None and np.any(width > floor):
            return True  # labels on batches whose samples disagree
        return bool(np.any((np.abs((apart**3).mean(axis=0)) > 1e-9 * width**3) & (width > floor)))

    @property
    def varies(self) -> bool:
        """Whether the covariance of the noise depends on the parameters."""
        if self.noise.batch is not None or self.noise.label_std is not None:
            return True
        entries = np.asarray(self.noise.sigma, dtype=object).flat
        return any(isinstance(v, sp.Expr) and not v.is_number for v in entries)

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The numbers that kernels read as `nz`: label variance and scale, then numeric sigmas."""
        n, batch = self.loss.n_samples or 1, self.batch
        if self.noise.batch is None:
            kappa = 0.0
        elif self.noise.sampling == "with":
            kappa = 1.0 / batch
        else:
            kappa = (n - batch) / (batch * (n - 1)) if n > 1 else 0.0
        std = self.noise.label_std or 0.0
        sigma = np.asarray(self.noise.sigma if self.noise.sigma is not None else 0.0, dtype=object)
        numeric = [0.0 if isinstance(v, sp.Expr) and not v.is_number else float(v) for v in sigma.flat]
        return np.array([std, std**2 / batch, kappa, *numeric])

    def draw_lines(self) -> list[str]:
        """The body of `draw(r, z, index, order, k, n)`, which returns the size of the batch."""
        lines, batch = [], self.noise.batch
        if self.gaussian_rows:
            lines.append(f"normals(r, z, 0, {self.gaussian_rows // 2})")
        if self.gaussian_rows % 2:
            lines.append(f"half_pair(r, z, {self.gaussian_rows - 1}, k)")
        if batch is None:
            lines.append(f"size = {'n' if self.loss.per_sample else '1'}")
        elif self.noise.sampling == "with":
            lines += [f"size = {batch}", "with_replacement(r, index, size, n)"]
        elif self.noise.sampling == "without":
            few = "few_without_replacement(r, index, size, n)"
            lines += [f"size = {batch}", few if batch <= _FEW else "without_replacement(r, index, order, size, n)"]
        else:
            lines += [
                f"epoch = (n + {batch - 1}) // {batch}", "turn = (k - 1) % epoch",
                "if turn == 0:", "    for q in range(n * 64):", "        order[q] = q // 64",
                "    shuffle(r, order, n, n)", f"size = min({batch}, n - turn * {batch})",
                "for q in range(size * 64):", f"    index[q] = order[turn * {batch} * 64 + q]",
            ]  # fmt: skip
        if self.label_rows:
            start = self.first_label
            if self.noise.label_kind == "normal":
                lines.append(f"normals(r, z, {start}, (size + 1) // 2)")
            else:
                lines.append(f"signs(r, z, {start}, size)")
            if self.label_rows > 1 and not self.loss.per_sample:  # one sample, drawn again and again: its mean label
                first = f"z[{start * 64} + lane]"
                lines += [
                    "for lane in lanes(64):", "    for q in range(1, size):",
                    f"        {first} = {first} + z[({start} + q) * 64 + lane]", f"    {first} = {first} / size",
                ]  # fmt: skip
        return [*lines, "return size"]

    # -- the gradient that the map sees -----------------------------------------------------------
    def gradient(self, graph: Graph) -> list[tuple[Node, Node]]:
        """(element, derivative) pairs of the loss as the step sees it, without Gaussian noise.

        Label noise enters through the loads `label` (one per turn of the sample loop).
        """
        swap = {}
        if self.noise.label_std is not None:
            target = self.loss.converter(graph)(self.loss.target)
            per = SAMPLE if self.loss.per_sample else None
            swap[self.loss.target] = target + graph.load("nz", 0) * graph.load("label", 0, per=per)
        return derivatives.reverse(self.loss.mean_node(graph, swap), "w")

    def sigma_terms(self, graph: Graph, position: int | Index) -> list[tuple[Node, Node]]:
        """Pairs (sigma_pr, z_r) whose products add up to the Gaussian noise of coordinate `position`."""
        if self.noise.sigma is None:
            return []
        sigma = np.asarray(self.noise.sigma, dtype=object)
        offset, strides = (position, []) if isinstance(position, int) else (0, [(position, 1)])
        convert = self.loss.converter(graph)

        def entry(value: Any, at: int, steps: list[tuple[Index, int]]) -> Node:
            if isinstance(value, sp.Expr) and not value.is_number:
                return convert(value)
            return graph.load("nz", 3 + at, steps)

        if sigma.ndim == 0:
            return [(entry(sigma.item(), 0, []), graph.load("z", offset, strides))]
        if sigma.ndim == 1:
            value = sigma[position] if isinstance(position, int) else None
            return [(entry(value, offset, strides), graph.load("z", offset, strides))]
        width = sigma.shape[1]
        terms = []
        for r in range(width):
            value = sigma[position, r] if isinstance(position, int) else None
            terms.append((entry(value, offset * width + r, [(i, s * width) for i, s in strides]), graph.load("z", r)))
        return terms

    @property
    def positions(self) -> list[int | Index]:
        """Coordinates one by one where sigma is symbolic or short, else one loop over all of them."""
        sigma = np.asarray(self.noise.sigma, dtype=object)
        symbolic = any(isinstance(v, sp.Expr) and not v.is_number for v in sigma.flat)
        if self.loss.dim <= 8 or (symbolic and sigma.ndim > 0):
            return list(range(self.loss.dim))
        return [coordinate(self.loss.dim)]

    # -- the covariance that a flow sees ----------------------------------------------------------
    def add_covariance(self, src: Source) -> None:
        """Add `sigma(w, c, d, nz, out)` (D, D), its diagonal `noise_q` and that diagonal's first and
        second directional derivatives `noise_dq(w, u, ...)`, `noise_ddq(w, u, v, ...)` to a module."""
        if self.noise.sampling == "reshuffle":
            raise FlowError(
                "random reshuffling has no covariance per step: its steps depend on each other; "
                "use Minibatch(batch) for the flow (sampling without replacement within a step)."
            )
        for name, args, lines in self._sigma_functions():
            src.add(name, args, lines)
        g = Graph()
        stores = self._diagonal(g)
        tangents = along(stores, "u")
        for name, args, nodes in (
            ("noise_q", "w, c, d, nz, out", stores),
            ("noise_dq", "w, u, c, d, nz, out", tangents),
            ("noise_ddq", "w, u, v, c, d, nz, out", along(tangents, "v")),
        ):
            zero = [f"for q in range({self.loss.dim}):", "    out[q] = 0.0"]
            body = self.loss.emitter(nodes).lines() if nodes else []
            count = ["n = d.shape[0]"] if self.loss.per_sample else []
            src.add(name, args, [*count, *zero, *body])
        add_noise_bend(src, self)

    def add_moments(self, src: Source) -> None:
        """Add `noise_moments(w, c, d, nz, third, fourth)`: `E xi_i xi_j^2` and `Cov(xi_i^2, xi_j^2)`, (D, D) each."""
        add_noise_moments(src, self)

    def _sigma_functions(self) -> list[tuple[str, str, list[str]]]:
        """`sigma`, and the sample gradients whose second moments it adds up."""
        size, noise = self.loss.dim, self.noise
        functions = []
        if noise.sigma is None:
            functions.append(("noise_factor", "w, c, d, nz, f", ["pass"]))
        body = [f"for i in range({size}):", f"    for j in range({size}):", "        out[i, j] = 0.0"]
        if noise.sigma is not None:
            width, factor = self.gaussian_rows, self.factor_stores()
            zero = [f"for q in range({size * width}):", "    f[q] = 0.0"]
            functions.append(("noise_factor", "w, c, d, nz, f", [*zero, *self.loss.emitter(factor).lines()]))
            body += [
                f"f = np.empty({size * width})", "noise_factor(w, c, d, nz, f)",
                f"for i in range({size}):", f"    for j in range({size}):", f"        for r in range({width}):",
                f"            out[i, j] += f[i*{width} + r] * f[j*{width} + r]",
            ]  # fmt: skip
        for wanted, kernel, scale in (
            (noise.label_std is not None, "model_grad", "nz[1]"), (noise.batch is not None, "sample_grad", "nz[2]"),
        ):  # fmt: skip
            if wanted:
                centre = kernel == "sample_grad"
                body += [
                    "n = d.shape[0]", f"p = np.empty({size})", f"mid = np.zeros({size})",
                    *(["grad(w, c, d, mid)"] if centre else []),
                    "for s in range(n):", f"    {kernel}(w, c, d, s, p)", f"    for i in range({size}):",
                    f"        a = (p[i] - mid[i]) * {scale} / n", f"        for j in range({size}):",
                    "            out[i, j] += a * (p[j] - mid[j])",
                ]  # fmt: skip
        functions.append(("sigma", "w, c, d, nz, out", body))
        return functions

    def factor_stores(self) -> list[Node]:
        """Stores of sigma (D, r) into `f`, row by row."""
        g, width = Graph(), self.gaussian_rows
        return [
            store(g, value, "f", position * width + z.data[1])
            for position in range(self.loss.dim) for value, z in self.sigma_terms(g, position)
        ]  # fmt: skip

    def _diagonal(self, g: Graph) -> list[Node]:
        """Stores of the diagonal of the covariance."""
        noise, stores = self.noise, []
        if noise.sigma is not None:
            for position in self.positions:
                offset, strides = (position, []) if isinstance(position, int) else (0, [(position, 1)])
                for value, _ in self.sigma_terms(g, position):
                    stores.append(store(g, value * value, "out", offset, strides, add=True))
        for wanted, node, scale in (
            (noise.label_std is not None, self.loss.model_node, g.load("nz", 1)),
            (noise.batch is not None, self.loss.sample_node, g.load("nz", 2)),
        ):
            if not wanted:
                continue
            pairs = derivatives.reverse(node(g), "w", fixed=frozenset([SAMPLE]))
            _refuse_overlap(pairs)
            for element, slope in pairs:
                second = mean(slope * slope)
                if scale.data[1] == 2:
                    second = second - mean(slope) ** 2
                stores.append(store(g, scale * second, "out", element.data[1], element.data[2], add=True))
        return stores


def _refuse_overlap(pairs: list[tuple[Node, Node]]) -> None:
    if not apart(pairs):
        raise FlowError(
            "the model reads the same parameters through differently shaped sums; "
            "write them with sums over the same index range, or as separate symbols."
        )


def _even(count: int) -> int:
    return count + count % 2


__all__ = ["BoundNoise", "GaussianNoise", "LabelNoise", "Minibatch", "Noise", "Reshuffle"]
