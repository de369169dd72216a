"""What a loss knows of its model: outputs, targets, weights of samples, and the model's derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import InputError
from minidyn.maps.loss.compiled import Compiled
from minidyn.maps.loss.outputs import Outputs, curved, read_target


class Fitted(Compiled):
    """The part of a `Loss` that compares a model with targets, where it was built with `Loss.regression`."""

    model: Any = None
    criterion: str | None = None
    outputs: Outputs | None = None  # of a model of several
    target: Any = None  # the symbol that stands for the targets among the data
    weight: Any = None  # and the one for the samples' weights over their mean
    certain: bool = False  # whether targets are classes, and no probabilities
    data: dict[Any, Floats]
    _batched: Any

    @property
    def inputs(self) -> list[Any]:
        """The symbols of the data that are neither targets nor weights."""
        return [s for s in self.data if s not in (self.target, self.weight)]

    @property
    def n_outputs(self) -> int | None:
        """How many outputs the model has; None for one number, without an axis of its own."""
        return self.outputs.count if self.outputs else None

    @property
    def shares(self) -> Floats:
        """The samples' weights over their mean, (n,); 1 where they have none."""
        return self.data[self.weight] if self.weight is not None else np.ones(len(self.rows))

    def unweighted(self, count: int) -> dict[Any, Floats]:
        """Data for `with_data` by which so many samples weigh alike."""
        return {} if self.weight is None else {self.weight: np.ones(count)}

    def read_targets(self, target: ArrayLike) -> Floats:
        """Other targets, read as those that the loss was made with."""
        assert self.criterion is not None
        values, certain = read_target(self.criterion, target, self.n_outputs)
        if self.certain and not certain:
            raise InputError("this loss compares with certain classes; build a new one for probabilities.")
        return values

    def model_values(self, w: ArrayLike) -> Floats:
        """The model's outputs on the samples, shape `(..., n)`, of several `(..., n, C)`; needs `Loss.regression`."""
        return self._of_model("model_values", w, ())

    def jacobian(self, w: ArrayLike) -> Floats:
        """Gradients of the model's outputs, `(..., n, D)`, of several `(..., n, C, D)`; needs `Loss.regression`."""
        return self._of_model("jacobian", w, (self.dim,))

    def gauss_newton(self, w: ArrayLike) -> Floats:
        """`(1/n) sum_i J_i^T H_l J_i`, shape `(..., D, D)`: J a sample's `jacobian`, `H_l` the Hessian of its loss in
        the outputs (1 for "squared"); the Hessian without the model's curvature. Needs `Loss.regression`.

        >>> import sympy as sp, minidyn as md
        >>> a, b = sp.symbols("a b")
        >>> md.Loss.regression([a * b, a], [a, b], {}, [[1.0, 0.0]]).gauss_newton([2.0, 3.0])
        array([[10.,  6.],
               [ 6.,  4.]])
        """
        f, J = self.model_values(w), self.jacobian(w)
        if self.outputs is None:
            f, J = f[..., None], J[..., None, :]
        there = curved(self.criterion or "", f, J) * self.shares[:, None, None]
        return np.einsum("...icd,...ice->...de", J, there, optimize=True) / len(self.rows)

    def residuals(self, w: ArrayLike) -> Floats:
        """Outputs minus targets at one point, output by output, (n,) or (n C,)."""
        return np.asarray((self.model_values(w) - self.data[self.target]).ravel())

    def residual_grads(self, w: ArrayLike) -> Floats:
        """Gradients of the residuals at one point, in their order, (n, D) or (n C, D)."""
        return self.jacobian(w).reshape(-1, self.dim)

    def input_grads(self, w: ArrayLike) -> Floats:
        """Gradients of the model's outputs in the inputs, shape `(..., n, q)`, of several `(..., n, C, q)`: all inputs
        side by side, in their order; needs `Loss.regression`.

        >>> import sympy as sp, minidyn as md
        >>> a, x = sp.symbols("a x")
        >>> md.Loss.regression(sp.tanh(a * x), [a], {x: [0.0, 1.0]}, [0.0, 1.0]).input_grads([2.0])[0]
        array([2.])
        """
        columns = [c for s in self.inputs for o, shape in [self._columns[s]] for c in range(o, o + math.prod(shape))]
        return self._of_model("input_grads", w, (self.rows.shape[1],))[..., columns]

    def _of_model(self, what: str, w: ArrayLike, tail: tuple[int, ...]) -> Floats:
        """What a kernel says of every output at every sample."""
        self.need_model()
        kernel = {
            "model_values": lambda: self.kernels.model_values,
            "jacobian": lambda: self.kernels.model_grads,
            "input_grads": lambda: self.sample_kernels.input_grads,
        }[what]()
        n, several = self._count(what), () if self.outputs is None else (self.outputs.count,)
        out = self._batched(kernel, [w], (n * math.prod(several), *tail))
        return out.reshape(*out.shape[: out.ndim - 1 - len(tail)], n, *several, *tail)

    def _count(self, what: str) -> int:
        if self.n_samples is None:
            raise InputError(f"{what} needs samples: this loss has no data.")
        return self.n_samples
