"""Flat minima are smooth in the input: `|grad_x f(x)| <= |W|_2 |grad_W f| / |x|` (docs/theory.md, section 6).

Of several outputs `f = F(W x)`, with `Q = F'(W x)` (C, m): `grad_x f = Q W` and `grad_W f_c = Q_c x^T`, so that
`|grad_x f| <= |Q| |W|_2` and `|grad_W f| = |Q| |x|`, in the Frobenius norm as in the operator norm: it holds in both.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, said
from minidyn.common.intake import shown
from minidyn.common.locks import cached_property
from minidyn.common.reports import Report, Reported, digits, named
from minidyn.maps.loss import Block, Loss

_ROWS = 8  # samples that a candidate is tried on


@dataclass(frozen=True, eq=False)
class FirstLayer(ByValue):
    """Where the input x (d,) meets the parameters: through `W x`, W (m, d), and nowhere else."""

    loss: Loss
    block: Block
    input: Any  # the input's symbol
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """Name of W."""
        return self.block.name

    @property
    def part(self) -> slice:
        """The entries of w that are W, row by row."""
        return slice(self.block.offset, self.block.offset + self.block.size)

    def inputs(self) -> Floats:
        """The inputs x_i, (n, d)."""
        return self.loss.data[self.input].reshape(-1, self.shape[1])


@dataclass(frozen=True, eq=False, repr=False)
class Smoothness(Reported, ByValue):
    """Both sides of the bound at points w (...,): per sample (..., n) and on average (...,).

    input_gradient : `|grad_x f(x_i)|`, of several outputs the Frobenius norm.  bound : `|W|_2 |grad_W f(x_i)| / |x_i|`.
    operator, operator_bound : the same in operator norms, how far outputs move at most with the input.
    mean_square : `(1/n) sum_i |grad_x f(x_i)|^2`, where samples have weights the weighted mean.
    mean_bound : `|W|_2^2 / min |x_i|^2` times `(1/n) sum_i |grad_w f(x_i)|^2`, which is tr H where every sample fits.
    layer : name of W.
    """

    input_gradient: Floats
    bound: Floats
    operator: Floats
    operator_bound: Floats
    mean_square: Any
    mean_bound: Any
    layer: str = field(default="")

    @property
    def ratio(self) -> Floats:
        """`input_gradient / bound`, (..., n): at most 1, and 0 where the model is flat in both."""
        return _ratio(self.input_gradient, self.bound)

    @property
    def holds(self) -> bool:
        """Whether no bound is violated beyond rounding."""
        sides = [
            (self.input_gradient, self.bound),
            (self.operator, self.operator_bound),
            (self.mean_square, self.mean_bound),
        ]
        return all(bool((np.asarray(a) <= np.asarray(b) * (1 + 1e-10) + 1e-300).all()) for a, b in sides)

    def _report(self) -> Report:
        return [named([
            (f"|grad_x f| <= |{self.layer}| |grad_{self.layer} f| / |x|", "holds" if self.holds else "is violated"),
            ("largest ratio of both sides", digits(float(np.max(self.ratio, initial=0.0)))),
            ("mean of |grad_x f|^2, at most", digits(float(np.max(self.mean_square, initial=0.0)))),
            ("its bound, at most", digits(float(np.max(self.mean_bound, initial=0.0)))),
        ])]  # fmt: skip


def first_layer(loss: Loss, name: Any = None) -> FirstLayer:
    """The parameters W through which a regression's input enters, as `W x` and not otherwise.

    Found by trying: at random parameters, `grad_W f = q x^T` and `grad_x f = W^T q` must hold for some q to rounding.
    So it does not matter how the expression is written. `name` (or its symbol) tries one parameter alone.

    Raises InputError where no parameter, or not the named one, is a first layer.

    >>> import sympy as sp, minidyn as md
    >>> from minidyn.minima.smoothness import first_layer
    >>> a, w, x = sp.symbols("a w x")
    >>> first_layer(md.Loss.regression(a * sp.tanh(w * x), [a, w], {x: [1.0, 2.0]}, [0.0, 1.0])).name
    'w'
    """
    if loss.model is None:
        raise InputError("input smoothness needs a model: build the loss with Loss.regression(...).")
    inputs = loss.inputs
    if len(inputs) != 1:
        raise InputError(
            f"input smoothness needs one input, and this loss has {len(inputs)}; gather several in one "
            f"{said('md.vector')}."
        )
    width = int(np.prod(loss.data[inputs[0]].shape[1:], dtype=int))
    wanted = None if name is None else str(getattr(name, "label", name))
    blocks = [b for b in loss.blocks if wanted in (None, b.name)]
    if not blocks:
        raise InputError(f"no parameter is called {wanted}; there are {', '.join(b.name for b in loss.blocks)}.")
    for block in blocks:
        rows, rest = divmod(block.size, width)
        fits = rest == 0 and (width == 1 or (len(block.shape) >= 1 and block.shape[-1] == width))
        layer = FirstLayer(loss, block, inputs[0], (rows, width))
        if fits and _is_first_layer(layer):
            return layer
    what = "no parameter" if wanted is None else wanted
    raise InputError(f"the input {inputs[0]} does not enter as W x alone: {what} fits as W; a bias is no obstacle.")


def _is_first_layer(layer: FirstLayer) -> bool:
    loss = layer.loss
    few = loss.with_data(
        {s: v[:_ROWS] for s, v in loss.data.items() if s != loss.weight} | loss.unweighted(min(_ROWS, len(loss.rows)))
    )
    few.test = None
    x = few.data[layer.input].reshape(-1, layer.shape[1])
    rng = np.random.default_rng(0)
    for _ in range(3):
        w = rng.standard_normal(loss.dim)
        W = w[layer.part].reshape(layer.shape)
        by_weight = few.jacobian(w)[..., layer.part].reshape(-1, *layer.shape)
        by_input = few.input_grads(w).reshape(len(by_weight), -1)
        for row, g, along in zip(np.repeat(x, len(by_input) // len(x), axis=0), by_weight, by_input, strict=True):
            length = float(row @ row)
            if length == 0:
                continue
            q = g @ row / length
            size = 1e-9 * (np.abs(g).max() + np.abs(along).max() + 1e-300)
            if np.abs(g - np.outer(q, row)).max() > size or np.abs(along - q @ W).max() > size * (1 + np.abs(W).max()):
                return False
    return True


def smoothness(loss: Loss, w: ArrayLike, layer: Any = None) -> Smoothness:
    """Both sides of `|grad_x f(x_i)| <= |W|_2 |grad_W f(x_i)| / |x_i|` at points w (..., D), and of its mean

        (1/n) sum_i |grad_x f(x_i)|^2 <= |W|_2^2 / min_i |x_i|^2  *  (1/n) sum_i |grad_w f(x_i)|^2,

    whose last factor is tr H at a minimum of the mean squared loss that fits every sample: flatter is smoother.
    A sample with x_i = 0 has an infinite bound.

    layer : name or symbol of W, or what `first_layer` returned; found from the model if not given.

    Source: Ma, Ying, *On linear stability of SGD and input-smoothness of neural networks* (2021).

    >>> import sympy as sp, minidyn as md
    >>> a, v, x = sp.symbols("a v x")
    >>> s = md.smoothness(md.Loss.regression(a * sp.tanh(v * x), [a, v], {x: [1.0, 2.0]}, [0.5, 1.0]), [1.0, 0.5])
    >>> bool((s.input_gradient <= s.bound).all()), s.layer
    (True, 'v')
    """
    if not isinstance(loss, Loss):
        raise InputError(f"smoothness is a property of a Loss at points, not of {shown(loss)}.")
    found = layer if isinstance(layer, FirstLayer) else first_layer(loss, layer)
    points = loss.check(w)
    if not np.isfinite(points).all():
        raise InputError("w contains NaN or Inf; give finite parameters.")
    lead, slopes = points.shape[:-1], Slopes(found, points.reshape(-1, loss.dim))
    left, right = slopes.sides(None)
    operator, operator_bound = slopes.sides(2) if loss.outputs is not None else (left, right)
    shape, mean = (*lead, left.shape[-1]), (left**2 * loss.shares).mean(axis=-1)
    return Smoothness(
        left.reshape(shape),
        right.reshape(shape),
        operator.reshape(shape),
        operator_bound.reshape(shape),
        mean.reshape(lead)[()],
        slopes.mean_bound.reshape(lead)[()],
        found.name,
    )


@dataclass(frozen=True, eq=False)
class Slopes:
    """What the bound compares, at points w (N, D); each part is computed when it is read."""

    layer: FirstLayer
    w: Floats

    @cached_property
    def by_input(self) -> Floats:
        """`grad_x f(x_i)`, (N, n, d), of several outputs (N, n, C, d)."""
        return self.layer.loss.input_grads(self.w)

    @cached_property
    def by_parameters(self) -> Floats:
        """`grad_w f(x_i)`, (N, n, D), of several outputs (N, n, C, D)."""
        return self.layer.loss.jacobian(self.w)

    @cached_property
    def size(self) -> Floats:
        """`|W|_2`, (N,)."""
        return np.linalg.norm(self.w[:, self.layer.part].reshape(-1, *self.layer.shape), ord=2, axis=(1, 2))

    @cached_property
    def length(self) -> Floats:
        """`|x_i|`, (n,)."""
        return np.linalg.norm(self.layer.inputs(), axis=1)

    def sides(self, order: int | None) -> tuple[Floats, Floats]:
        """`|grad_x f(x_i)|` and its bound, (N, n): Frobenius norms, or of `order` 2 operator norms."""
        across, axes = self.by_parameters[..., self.layer.part], -1 if self.layer.loss.outputs is None else (-2, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = self.size[:, None] * np.linalg.norm(across, ord=order, axis=axes) / self.length
        bound[:, self.length == 0] = np.inf
        return np.linalg.norm(self.by_input, ord=order, axis=axes), bound

    @property
    def ratio(self) -> Floats:
        """`|grad_x f(x_i)|` over its bound, (N, n)."""
        return _ratio(*self.sides(None))

    @property
    def mean_bound(self) -> Floats:
        """What flatness allows for the mean of `|grad_x f(x_i)|^2`, (N,)."""
        if not self.length.all():
            return np.full(len(self.w), np.inf)
        return self.size**2 / self.length.min() ** 2 * mean_square(self.layer.loss, self.by_parameters)


def _ratio(side: Floats, bound: Floats) -> Floats:
    return side / np.where(bound == 0, 1.0, bound)


def mean_square(loss: Loss, slopes: Floats) -> Floats:
    """The mean over samples, by their weights, of the squared slopes of the model, of all its outputs together."""
    squares = (slopes**2).sum(axis=-1)
    if loss.outputs is not None:
        squares = squares.sum(axis=-1)
    return np.asarray((squares * loss.shares).mean(axis=-1))
