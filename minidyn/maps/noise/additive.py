"""Noise that is a matrix in the parameters times independent numbers: `xi = sigma(theta) z`, `Cov xi = sigma sigma^T`.

Several such noises stand side by side, as one wider matrix (D, width).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import FlowError, InputError
from minidyn.common.locks import cached_property, shared
from minidyn.graph import Graph, Index, Node, derivatives, walk
from minidyn.kernels import Source, store
from minidyn.maps.loss import Loss
from minidyn.maps.noise.base import Part
from minidyn.maps.noise.draws import NORMAL, Law
from minidyn.maps.rule_symbols import number_in_latex

if TYPE_CHECKING:
    from minidyn.maps.noise.bound import BoundNoise

Term = tuple[Node, Node]
_WRITTEN = 16  # entries of a sigma that is written out
_MOST = 200  # parameters whose slopes of a symbolic sigma are worked out


class Additive(Part):
    """A noise `sigma(theta) z`, z of the law `law`. A subclass says what sigma is: `entries`."""

    law: ClassVar[Law] = NORMAL
    sigma: Any

    def entries(self, loss: Loss) -> NDArray[Any]:
        """sigma on a loss: floats and expressions in its parameters, of shape (), (D,) or (D, r)."""
        return np.asarray(self.sigma, dtype=object)

    def law_of(self, letter: str) -> str:
        """The law of the numbers in LaTeX."""
        return self.law.formula(letter)

    def formula(self, seen: str) -> tuple[str, str]:
        """Sigma is written where it is one number, and below where it is small."""
        sigma: Any = getattr(self, "sigma", None)
        prime = "'" * seen.count("z")  # of another one in the sum
        letter, name = f"z{prime}_{{k}}", rf"\sigma{prime}"
        said = f"${self.law_of(letter)}$, fresh every step"
        if isinstance(sigma, float):
            return rf"{seen} + {number_in_latex(sigma)} \, {letter}", said
        shape = np.shape(sigma)
        if sigma is not None and np.prod(shape) <= _WRITTEN:
            said = f"${name} = {walk.latex(sp.ImmutableMatrix(sigma) if shape else walk.shortened(sigma))}$; {said}"
        times = r"\odot" if len(shape) == 1 else r"\,"
        return rf"{seen} + {name}(\theta_{{k}}) {times} {letter}", said

    def check(self, bound: BoundNoise) -> None:
        """Refuse a sigma with other rows than there are parameters, or with symbols that the loss does not have."""
        sigma = self.entries(bound.loss)
        if sigma.shape and sigma.shape[0] != bound.loss.dim:
            raise InputError(f"sigma has {sigma.shape[0]} rows, expected {bound.loss.dim}: one for each parameter.")
        if any(map(varies, sigma.flat)):
            shared((Additive, bound.loss.form, self.form(bound.loss)), lambda: self._read(bound, sigma))

    def _read(self, bound: BoundNoise, sigma: NDArray[Any]) -> bool:
        """True; unknown symbols are reported."""
        bound.loss.refuse_data("sigma", sigma.flat)
        for position in bound.positions:
            bound.sigma_terms(Graph(), position)
        return True

    def form(self, loss: Loss) -> Any:
        """Its expressions and where they stand, its law and its shape."""
        sigma = self.entries(loss)
        written = tuple((place, v) for place, v in enumerate(sigma.flat) if varies(v))
        return type(self), self.law, sigma.shape, written


@dataclass(frozen=True, eq=False)
class Sigma:
    """The matrix of an additive noise on a loss: its draws start at a row of `z`, its numbers at a place of `nz`."""

    loss: Loss
    law: Law
    entries: NDArray[Any]
    row: int
    at: int

    @property
    def width(self) -> int:
        """How many numbers it draws per step."""
        return self.entries.shape[1] if self.entries.ndim == 2 else self.loss.dim

    @cached_property
    def varies(self) -> bool:
        """Whether it depends on the parameters."""
        return any(map(varies, self.entries.flat))

    @cached_property
    def numbers(self) -> list[float]:
        """What kernels read of it: its numbers, 0 where it has expressions."""
        return [0.0 if varies(v) else float(v) for v in self.entries.flat]

    def terms(self, graph: Graph, position: int | Index) -> list[Term]:
        """Pairs (sigma_pr, z_r) whose products add up to coordinate p."""
        sigma, (offset, strides) = self.entries, place(position)
        convert = self.loss.converter(graph)

        def entry(value: Any, here: int, steps: list[tuple[Index, int]]) -> Node:
            return convert(value) if varies(value) else graph.load("nz", self.at + here, steps)

        if sigma.ndim < 2:
            value = sigma.item() if sigma.ndim == 0 else sigma[position] if isinstance(position, int) else None
            known = (0, []) if sigma.ndim == 0 else (offset, strides)
            return [(entry(value, *known), graph.load("z", self.row + offset, strides))]
        width, terms = sigma.shape[1], []
        for r in range(width):
            value = sigma[position, r] if isinstance(position, int) else None
            steps = [(i, s * width) for i, s in strides]
            terms.append((entry(value, offset * width + r, steps), graph.load("z", self.row + r)))
        return terms

    @cached_property
    def matrix(self) -> NDArray[Any]:
        """As a matrix (D, r), whatever the shape of its entries."""
        sigma = self.entries
        return sigma if sigma.ndim == 2 else np.diag(np.broadcast_to(sigma, self.loss.dim))

    def symbolic(self, chart: Any) -> sp.Matrix:
        """The matrix (D, r) in the symbols of a chart; plain numbers of one size become the symbol `sigma`."""
        table = self.matrix
        sizes = {float(v) for v in table.flat if not varies(v)} - {0.0}
        symbol = chart.symbol("sigma", *sizes) if len(sizes) == 1 and min(sizes) > 0 else None

        def entry(v: Any) -> sp.Expr:
            if varies(v):
                return chart.renamed(v)
            return sp.S.Zero if float(v) == 0 else symbol if symbol is not None else chart.exact(v)

        return sp.Matrix(*table.shape, lambda i, j: entry(table[i, j]))

    def at_point(self, w: Floats) -> tuple[Floats, Floats | None]:
        """The matrix (D, r) at w, and its derivatives (r, D, D) where it depends on the parameters."""
        loss, size, entries = self.loss, self.loss.dim, self.matrix
        value, slopes = np.zeros(entries.shape), np.zeros((entries.shape[1], size, size))
        if size > _MOST and any(map(varies, entries.flat)):
            raise FlowError(f"stability under a symbolic sigma is worked out for at most {_MOST} parameters.")
        known: dict[object, tuple[float, Floats]] = {}
        for (i, c), entry in np.ndenumerate(entries):
            if not varies(entry):
                value[i, c] = float(entry)
                continue
            if entry not in known:
                part = loss.beside(entry)
                known[entry] = part.value(w), part.grad(w)
            value[i, c], slopes[c, i] = known[entry]
        return value, slopes if known else None


def varies(entry: object) -> bool:
    """Whether an entry of sigma is an expression and no number."""
    return isinstance(entry, sp.Expr) and not entry.is_number


def place(position: int | Index) -> tuple[int, list[tuple[Index, int]]]:
    """Offset and strides of a coordinate, or of the loop over all of them."""
    return (position, []) if isinstance(position, int) else (0, [(position, 1)])


def columns(bound: BoundNoise) -> list[Node]:
    """Stores of sigma (D, width) into `f`, row by row."""
    g, width = Graph(), bound.width
    return [
        store(g, value, "f", position * width + z.data[1])
        for position in range(bound.loss.dim)
        for value, z in bound.sigma_terms(g, position)
    ]


def add_factor(src: Source, bound: BoundNoise) -> list[str]:
    """Add `noise_factor(w, c, d, nz, f)`; the lines that add `sigma sigma^T` to `out`."""
    size, width = bound.loss.dim, bound.width
    if not bound.additive:
        src.add("noise_factor", "w, c, d, nz, f", ["pass"])
        return []
    _add_columns(src, bound, "noise_factor", "w", columns(bound))
    return [
        f"f = np.empty({size * width})",
        "noise_factor(w, c, d, nz, f)",
        f"for i in range({size}):",
        f"    for j in range({size}):",
        f"        for r in range({width}):",
        f"            out[i, j] += f[i*{width} + r] * f[j*{width} + r]",
    ]


def _add_columns(src: Source, bound: BoundNoise, name: str, inputs: str, stores: list[Node]) -> None:
    zero = [f"for q in range({bound.loss.dim * bound.width}):", "    f[q] = 0.0"]
    src.add(name, f"{inputs}, c, d, nz, f", [*zero, *(bound.loss.emitter(stores).lines() if stores else [])])


def diagonal(g: Graph, bound: BoundNoise) -> Iterator[Node]:
    """Stores that add the diagonal of `sigma sigma^T` to `out`."""
    for position in bound.positions:
        for value, _ in bound.sigma_terms(g, position):
            yield store(g, value * value, "out", *place(position), add=True)


def bend(src: Source, bound: BoundNoise) -> list[str]:
    """What a displacement makes of sigma's columns s: `D s[u] D s[u]^T` and `Sym s D^2 s[u, u]^T`."""
    size, width = bound.loss.dim, bound.width
    slopes = along(columns(bound), "u")
    _add_columns(src, bound, "factor_slope", "w, u", slopes)
    _add_columns(src, bound, "factor_curve", "w, u", along(slopes, "u"))
    return [
        f"f = np.empty((3, {size * width}))", "noise_factor(w, c, d, nz, f[0])",
        "factor_slope(w, u, c, d, nz, f[1])", "factor_curve(w, u, c, d, nz, f[2])",
        f"for i in range({size}):", f"    for r in range({width}):",
        f"        a = f[1, i*{width} + r] * share", f"        b = 0.5 * f[0, i*{width} + r] * share",
        f"        for j in range({size}):", f"            first[i, j] += a * f[1, j*{width} + r]",
        f"            bent = b * f[2, j*{width} + r]", "            second[i, j] += bent",
        "            second[j, i] += bent",
    ]  # fmt: skip


def fourth_moments(bound: BoundNoise) -> list[str]:
    """What numbers of a law that is not normal add to `Cov(xi_i^2, xi_j^2)`: `(E z^4 - 3) sum_r F_ir^2 F_jr^2`."""
    size, width = bound.loss.dim, bound.width
    odd = [part for part in bound.additive if part.law.excess]
    lines = [f"made = np.empty({size * width})", "noise_factor(w, c, d, nz, made)"] if odd else []
    for part in odd:
        lines += [
            f"for i in range({size}):",
            f"    for j in range({size}):",
            f"        for r in range({part.row}, {part.row + part.width}):",
            f"            both = made[i*{width} + r] * made[j*{width} + r]",
            f"            fourth[i, j] += {part.law.excess!r} * both * both",
        ]
    return lines


def along(stores: list[Node], direction: str) -> list[Node]:
    """The stores' derivatives along a direction, added to what is there; without those that vanish."""
    tangents = derivatives.forward([s.args[0] for s in stores], "w", direction)
    return [
        store(t.graph, t, s.data[0], s.data[1], s.data[2], add=True)
        for s, t in zip(stores, tangents, strict=True)
        if not (t.is_const and t.data == 0.0)
    ]
