"""Models of several outputs, `f(x; w)` in R^C, and the criteria that compare outputs with targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from sympy.matrices.expressions.matexpr import MatrixElement

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import InputError
from minidyn.common.intake import numbers, ordered, shown
from minidyn.graph import Index, walk
from minidyn.maps.loss.parameters import unused

CRITERIA = ("squared", "logistic", "softmax")
_NEVER = sp.Float(1e300)  # taken off the logit of a sample's own class, it leaves the sum over the other classes
_SUM = 1e-6  # how far probabilities may be from the sum 1


@dataclass(frozen=True)
class Outputs:
    """The outputs `f_0 .. f_(C-1)`: an expression for each, or a single one in a letter that runs from `low` on."""

    exprs: tuple[sp.Expr, ...]
    count: int
    letter: sp.Symbol
    low: int = 0

    @property
    def listed(self) -> bool:
        """Whether there is an expression for each output."""
        return len(self.exprs) == self.count

    @property
    def model(self) -> sp.Tuple:
        """As `Loss.regression` takes them."""
        high = self.low + self.count - 1
        return sp.Tuple(*self.exprs) if self.listed else sp.Tuple(*self.exprs, sp.Tuple(self.letter, self.low, high))

    @property
    def index(self) -> Index:
        """The loop over the outputs, outside of all sums of the model."""
        return Index(0, "output", self.count)

    @property
    def each(self) -> sp.Expr:
        """One expression in the letter for all outputs."""
        *first, last = self.exprs
        cases = [(f, sp.Eq(self.letter, k)) for k, f in enumerate(first)]
        return sp.Piecewise(*cases, (last, True), evaluate=False) if cases else last

    def at(self, k: int) -> sp.Expr:
        """Output k."""
        return self.exprs[k] if self.listed else self.exprs[0].doit().subs(self.letter, self.low + k)

    def loop(self, of: Callable[[sp.Expr, sp.Expr], sp.Expr]) -> sp.Expr:
        """The sum over the outputs of `of(f_k, k)`, as a loop."""
        letter, low = self.letter, self.low
        return sp.Sum(of(self.each, letter - low), (letter, low, low + self.count - 1))

    def total(self, of: Callable[[sp.Expr, sp.Expr], sp.Expr]) -> sp.Expr:
        """The sum over the outputs of `of(f_k, k)`, written out where the outputs are."""
        return sp.Add(*(of(f, sp.Integer(k)) for k, f in enumerate(self.exprs))) if self.listed else self.loop(of)


def read_model(model: Any, taken: Sequence[Any]) -> sp.Expr | Outputs:
    """A model as it is given: an expression, or the outputs of a list, of a row or column, or of `(f, (c, 0, C - 1))`.

    taken : symbols whose names the letter of listed outputs must not have.
    """
    if isinstance(model, sp.MatrixExpr):
        model = _of_matrix(model, taken)
    elif isinstance(model, (sp.MatrixBase, sp.NDimArray, np.ndarray)):
        shape = tuple(n for n in model.shape if n != 1)
        if len(shape) > 1:
            raise InputError(f"a model's outputs are a list, a row or a column, not of the shape {model.shape}.")
        model = list(np.array(model, dtype=object).flat)
    if isinstance(model, (sp.Expr, str, dict)) or not hasattr(model, "__iter__"):
        return walk.expression(model, "the model")
    parts = ordered(model, "the model")
    if len(parts) == 2 and isinstance(parts[1], (tuple, list, sp.Tuple)):
        return _ranged(*parts)
    if not parts:
        raise InputError("the model has no outputs: its list is empty.")
    exprs = tuple(walk.expression(f, f"output {k} of the model") for k, f in enumerate(parts))
    names = {str(s) for s in taken} | {str(s) for f in exprs for s in walk.free_symbols(f)}
    return Outputs(exprs, len(exprs), _letter(names))


def _letter(names: set[str]) -> sp.Symbol:
    return sp.Symbol(unused("c", names), integer=True)


def _of_matrix(model: sp.MatrixExpr, taken: Sequence[Any]) -> Any:
    rows, columns = model.shape
    if 1 not in (rows, columns) or not (rows * columns).is_Integer:
        raise InputError(f"a model's outputs are a row or a column, not a matrix of the shape {model.shape}.")
    if rows == columns:
        return sp.Trace(model)
    letter = _letter({str(s) for s in taken} | {str(s) for s in model.free_symbols})
    entry = MatrixElement(model, letter, 0) if columns == 1 else MatrixElement(model, 0, letter)
    return entry, (letter, 0, rows * columns - 1)


def _ranged(f: Any, limits: Any) -> Outputs:
    letter, low, high = (*limits, None, None, None)[:3]
    whole = len(limits) == 3 and isinstance(letter, sp.Symbol) and all(sp.sympify(v).is_Integer for v in (low, high))
    if not whole or int(high) < int(low):
        raise InputError(
            f"outputs in a letter are given as (expression, (c, 0, 9)), with limits as in Sum, not {shown(limits)}."
        )
    f, count = walk.expression(f, "the model"), int(high) - int(low) + 1
    return Outputs((f.xreplace({letter: sp.Integer(low)}) if count == 1 else f,), count, letter, int(low))


# -- targets --


def read_target(criterion: str, target: ArrayLike, count: int | None) -> tuple[Floats, bool]:
    """Targets (n,) of a model of one number, (n, C) of C outputs; and whether classes are certain, one 1 in each row.

    Class labels 0 .. C-1 become rows of zeros with a 1. Raises InputError for what the criterion cannot compare with.
    """
    if criterion == "softmax":
        return _classes(target, count)
    array = numbers(target, "target")
    if count is None and (array.ndim != 1 or not array.size):
        raise InputError(f"target must be a non-empty list of numbers, one per sample; it has shape {array.shape}.")
    if count == 1 and array.ndim == 1:
        array = array[:, None]
    if count is not None and (array.ndim != 2 or array.shape[1] != count or not array.size):
        raise InputError(
            f"target has shape {array.shape}, expected (n, {count}) with n >= 1: a number for each output of a sample."
        )
    if criterion == "logistic" and not np.isin(array, (-1.0, 1.0)).all():
        raise InputError("the logistic criterion expects targets -1 and 1.")
    return array, False


def _classes(target: ArrayLike, count: int | None) -> tuple[Floats, bool]:
    if count is None or count < 2:
        raise InputError(
            "the softmax criterion compares classes: it needs a model of two or more outputs, such as [f0, f1, f2]."
        )
    if np.asarray(getattr(target, "values", target)).dtype.kind == "b":
        raise InputError(
            f"the softmax criterion expects class labels 0 to {count - 1}, not True and False; make them integers."
        )
    array = numbers(target, "target")
    if array.ndim == 2 and array.shape[1] == count and array.size:
        sums = array.sum(axis=1, keepdims=True)
        if not ((array >= 0).all() and (np.abs(sums - 1) <= _SUM).all()):
            raise InputError("the rows of target must be probabilities: none negative, with the sum 1.")
        return array / sums, bool(np.isin(array, (0.0, 1.0)).all())
    if array.ndim != 1 or not array.size:
        raise InputError(
            f"target has shape {array.shape}, expected (n,): classes 0 to {count - 1}, or (n, {count}): probabilities."
        )
    wrong = ~((array % 1 == 0) & (array >= 0) & (array < count))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise InputError(
            f"target holds {array[k]:g} (sample {k}), which is no class: these are whole numbers from 0 to {count - 1}."
        )
    return np.eye(count)[array.astype(int)], True


def read_weights(weights: ArrayLike) -> Floats:
    """Weights of the samples (n,), divided by their mean."""
    array = numbers(weights, "weights")
    if array.ndim != 1 or not array.size:
        raise InputError(f"weights must be a list of numbers, one per sample; it has shape {array.shape}.")
    if not (np.isfinite(array).all() and (array >= 0).all() and 0 < array.sum() < math.inf):
        raise InputError("weights must be finite, none negative, and not all zero.")
    return array / array.mean()


# -- criteria --


def compared(criterion: str, model: sp.Expr | Outputs, y: Any, certain: bool) -> sp.Expr:
    """One sample's loss: `(f - y)^2 / 2`, `log(1 + e^(-y f))`, summed over outputs, or `log sum e^f_c - sum y_c f_c`.

    Where the class is certain, the last is `log(1 + sum of the others' e^(f_c - f_y))`, to which no digit is lost where
    the class is all but found.
    """
    if criterion != "softmax":
        of = _squared if criterion == "squared" else _logistic
        return of(model, y) if not isinstance(model, Outputs) else model.total(lambda f, k: of(f, y[k]))
    assert isinstance(model, Outputs)
    own = model.loop(lambda f, k: y[k] * f)
    if not certain:
        return sp.log(model.loop(lambda f, k: sp.exp(f))) - own
    return sp.log(1 + model.loop(lambda f, k: sp.exp(f - _NEVER * y[k])) * sp.exp(-own))


def _squared(f: sp.Expr, y: sp.Expr) -> sp.Expr:
    return (f - y) ** 2 / 2


def _logistic(f: sp.Expr, y: sp.Expr) -> sp.Expr:
    return sp.log(1 + sp.exp(-y * f))


def curved(criterion: str, f: Floats, along: Floats) -> Floats:
    """The criterion's Hessian in the outputs f (..., C), times directions (..., C, D)."""
    if criterion == "squared":
        return along
    if criterion == "logistic":
        return along * (0.25 / np.cosh(np.clip(f / 2, -350.0, 350.0)) ** 2)[..., None]
    p = np.exp(f - f.max(axis=-1, keepdims=True))
    p = (p / p.sum(axis=-1, keepdims=True))[..., None]
    return np.asarray(p * (along - (p * along).sum(axis=-2, keepdims=True)))
