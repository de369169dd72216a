"""What every flow has: the map it belongs to, a field per step, a drift and a diffusion per time."""

from __future__ import annotations

from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minidyn.errors import FlowError, InputError
from minidyn.kernels import Source, pointer
from minidyn.kernels.loops import evaluate
from minidyn.kernels.pointers import compiled, flow_signatures
from minidyn.maps import Map

Floats = NDArray[np.float64]


class Flow:
    """The continuous dynamics that a theory predicts for a map: `dw = drift dt + diffusion dW`.

    A subclass names the kernels that it needs (`needs`) and gives two compiled functions of them:
    `field(fns, w, k, hp, c, d, nz, fp, b, f)` fills the change per step `b` (size,) and its noise factor per
    square root of a step `f` (size, columns) and returns a status code; `retract(fns, w, ...)` puts a point
    back where the flow lives. Both are compiled once per machine; only `fns` belong to one model. The state is
    theta (D,), followed by further numbers where `size` is larger than D (an amplitude, a momentum).
    """

    needs: ClassVar[tuple[str, ...]] = ()
    field: ClassVar[Any]
    retract: ClassVar[Any]
    columns: int = 0
    rows: int = 0
    reach: ClassVar[int] = 40  # steps of the map that one step of a scheme for noisy flows covers at most by default

    name: ClassVar[str] = "flow"
    reference: ClassVar[str] = ""

    def __init__(self, system: Map):
        if not isinstance(system, Map):
            raise InputError(f"{type(self).__name__} is the flow of a map: give it a Map, not {system!r}.")
        self.map = system

    @property
    def loss(self) -> Any:
        return self.map.loss

    @property
    def dim(self) -> int:
        """Number of parameters D."""
        return self.map.dim

    @property
    def size(self) -> int:
        """Length of the flow's state: D for theta, then whatever else the theory moves along with it."""
        return self.dim

    @cached_property
    def source(self) -> Source:
        """The generated text of the flow's kernels."""
        raise NotImplementedError

    @cached_property
    def kernels(self) -> ModuleType:
        """The compiled module."""
        return self.source.load()

    @cached_property
    def pointers(self) -> tuple[Any, Any, tuple[Any, ...]]:
        """`field`, `retract` and the kernels that they take, as function pointers."""
        types = flow_signatures(self.needs)
        fns = tuple(
            pointer(self.kernels if hasattr(self.kernels, n) else self.map.loss.kernels, n) for n in self.needs
        )
        cls = type(self)
        return compiled(cls.field, types["field"]), compiled(cls.retract, types["retract"]), fns

    def stochastic(self, w0: Floats) -> bool:
        """Whether the flow has noise (at these starting points)."""
        return False

    def numbers(self, w0: Floats) -> Floats:
        """Numbers that the kernels read as `fp`, found from the starting points."""
        return np.zeros(1)

    def start(self, w0: ArrayLike) -> Floats:
        """The flow's state (..., size) for a map that starts at `w0`: theta (..., D), or the map's whole state."""
        return self.theta(w0)

    def theta(self, w0: ArrayLike) -> Floats:
        """The parameters (..., D) of a start that is given as theta or as the map's whole state."""
        shape = np.shape(w0)
        whole = bool(shape) and shape[-1] == self.map.components != self.dim
        return self.loss.check(np.asarray(w0, dtype=float)[..., : self.dim] if whole else w0, "w0")

    @property
    def couples(self) -> bool:
        """Whether the flow is driven by the very normals that the map draws."""
        return False

    def evaluate(self, w: Floats, k: float, numbers: Floats, b: Floats, f: Floats) -> int:
        """Fill `b` and `f` at one point; the field's status code."""
        m = self.map
        field, _, fns = self.pointers
        return int(evaluate(field, fns, w, k, m.hyper, m.loss.c, m.loss.rows, m.bound.numbers, numbers, b, f))

    def check(self, w: ArrayLike) -> Floats:
        """A state of the flow as an array of shape (..., size), or an InputError."""
        if self.size == self.dim:
            return self.loss.check(w)
        array = np.asarray(w, dtype=float)
        if array.ndim == 0 or array.shape[-1] != self.size:
            raise InputError(
                f"w has shape {array.shape}, expected (..., {self.size}): the state of the {self.name}, which starts "
                "with theta; flow.start(w0) makes one."
            )
        return array

    def _evaluate(self, w: ArrayLike, k: float) -> tuple[Floats, Floats]:
        points = self.check(w)
        flat = np.ascontiguousarray(points.reshape(-1, self.size))
        drift, factor = np.empty_like(flat), np.zeros((len(flat), self.size, self.columns))
        numbers = self.numbers(flat)
        for row, (b, f) in enumerate(zip(drift, factor, strict=True)):
            code = self.evaluate(flat[row], float(k), numbers, b, f)
            if code:
                raise FlowError(f"{self.name} at w = {np.round(flat[row], 6)}: {self.explain(code)}")
        lr = self.map.lr(max(k, 1))
        lead = points.shape[:-1]
        return (
            drift.reshape(*lead, self.size) / lr,
            factor.reshape(*lead, self.size, self.columns) / np.sqrt(lr),
        )

    def drift(self, w: ArrayLike, k: float = 1) -> Floats:
        """Drift per unit of flow time `t`, shape (..., size); `k` matters only for schedules.

        Raises FlowError where the flow does not exist, InputError for a wrong shape.
        """
        return self._evaluate(w, k)[0]

    def diffusion(self, w: ArrayLike, k: float = 1) -> Floats:
        """A matrix `S` with `dw = drift dt + S dW`, shape (..., size, r): `S S^T` is the covariance per time."""
        return self._evaluate(w, k)[1]

    def explain(self, code: int) -> str:
        """A status code in words, with what to try."""
        return f"the field could not be evaluated (status {code})."

    def describe(self, latex: bool = False) -> str:
        """Equations, state, clock, assumptions, order and reference, as text or LaTeX."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.map!r})"

    def _repr_markdown_(self) -> str:
        return self.describe(latex=True).replace("\n", "\n\n")
