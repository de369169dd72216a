"""A loss: an expression, its parameters and its data; owns its compiled derivatives."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.arrays import ArrayLike
from minidyn.common.errors import InputError
from minidyn.common.html import formulas
from minidyn.common.intake import numbers, one_of, row_labels, table
from minidyn.common.locks import cached_property, derived, shared
from minidyn.common.reports import Drawn
from minidyn.graph import Graph, walk
from minidyn.maps.loss.compiled import ONE_SAMPLE, Floats, differentiate, first_sample, mean
from minidyn.maps.loss.fitted import Fitted
from minidyn.maps.loss.outputs import CRITERIA, Outputs, compared, read_model, read_target, read_weights
from minidyn.maps.loss.parameters import Block, as_list, constant, label_of, lay_out, matrix, shape_of, unused, vector

__all__ = ["ONE_SAMPLE", "Block", "Loss", "differentiate", "first_sample", "matrix", "mean", "vector"]


class Loss(Fitted, Drawn):
    """`L(w)`, or the mean over samples `L(w) = (1/n) sum_i l(w; x_i)` where `data` is given.

    Parameters
    ----------
    expr : sympy expression of the loss, or of one sample's loss.
    params : symbols, matrices (flattened in C order) or `md.vector`s; their order is that of `w`.
    constants : `{symbol: number}`, or an array for a vector or matrix; can be changed without compiling again
        (`with_constants`).
    data : `{symbol: array}`, each of shape `(n,)`, or `(n, m)` for an `md.vector` of m entries, `(n, p, q)` for an
        `md.matrix`.

    dim : number of parameters D.  n_samples : number of samples n; None without data.
    model, criterion, target, weight : of a regression, f(x; w), "squared", "logistic" or "softmax", and the symbols of
        the targets and of the weights (over their mean; None without).  n_outputs : of several outputs their number C.
    test : the same loss on held-out samples (`hold_out`).

    All evaluations take float64 arrays of shape `(..., D)` and are batched over the leading axes.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    >>> loss.grad([2.0, 1.0])
    array([2., 5.])
    """

    _offers = (
        "expr params param_names dim constants data n_samples n_outputs model criterion target weight test regression "
        "hold_out with_constants with_data value grad hessian hvp third sample_grads sample_hvps "
        "square_hvp model_values jacobian gauss_newton input_grads plot"
    )
    test: Loss | None = None

    def __init__(self, expr: Any, params: Any, *, constants: Mapping[Any, float] | None = None,
                 data: Mapping[Any, ArrayLike] | None = None):  # fmt: skip
        self.blocks = lay_out(as_list(params))
        self.params = [b.symbol for b in self.blocks]
        self.dim = sum(b.size for b in self.blocks)
        self.expr = walk.expression(expr, "the loss")
        self.constants = {s: constant(s, v) for s, v in table(constants, "constants").items()}
        self._read_data(table(data, "data"))
        self._refuse_clashes()
        self.numbers = self._no_numbers()
        self.mean_node(Graph())  # unknown symbols and unsupported functions are reported now
        self.numbers.closed = True

    def _refuse_clashes(self) -> None:
        """A symbol is a parameter, a constant or data, not two of these."""
        roles = [("parameter", [b.symbol for b in self.blocks]), ("constant", self.constants), ("data", self.data)]
        seen: dict[str, str] = {}
        for role, symbols in roles:
            for symbol in symbols:
                name = str(label_of(symbol))
                if seen.setdefault(name, role) != role:
                    raise InputError(f"{name} is given as {seen[name]} and as {role}; it can only be one of them.")

    def _read_data(self, data: Mapping[Any, ArrayLike]) -> None:
        """Pack the data arrays side by side: one row per sample."""
        self.data: dict[Any, Floats] = {}
        columns: list[Floats] = []
        self._columns: dict[Any, tuple[int, tuple[int, ...]]] = {}
        offset, n = 0, None
        _same_rows(data)
        for symbol, values in data.items():
            shape = shape_of(symbol)
            array = _samples(symbol, shape, values)
            if n is not None and len(array) != n:
                raise InputError(f"the data for {symbol} has {len(array)} samples, the others have {n}.")
            n = len(array)
            self.data[symbol] = array
            self._columns[symbol] = (offset, shape)
            offset += math.prod(shape)
            columns.append(array.reshape(n, -1))
        self.n_samples: int | None = n
        self.rows: Floats = np.ascontiguousarray(np.hstack(columns)) if columns else np.zeros((1, 1))

    @classmethod
    def regression(cls, model: Any, params: Any, inputs: Mapping[Any, ArrayLike], target: ArrayLike,
                   criterion: str = "squared", *, weights: ArrayLike | None = None,
                   constants: Mapping[Any, float] | None = None) -> Loss:  # fmt: skip
        """The mean over samples of what a criterion makes of outputs `f(x; w)` and targets y:

            "squared"    |f - y|^2 / 2
            "logistic"   sum_c log(1 + exp(-y_c f_c)), targets -1 and 1
            "softmax"    log(sum_c exp f_c) - f_y, class labels y = 0 .. C - 1; or probabilities p: ... - sum_c p_c f_c

        model : one expression; C outputs as a list, a row or column matrix, or, for all of them in one expression,
            `(expression, (c, 0, C - 1))` as in a `Sum`, which is compiled as a loop.
        target : (n,), for several outputs (n, C); classes (n,), or their probabilities (n, C).
        weights : (n,), at least 0: the mean is `sum_i v_i l_i / sum_i v_i`, as if sample i were there `v_i` times. What
            noise sees of a sample is then its share of that mean, `v_i l_i` over the mean weight.

        `inputs={}` is allowed: then `f` depends on the parameters alone, and `target` holds one sample or several.
        Knowing the model makes label noise, `model_values`, `jacobian` and `gauss_newton` available.

        >>> import sympy as sp, minidyn as md
        >>> a, b = sp.symbols("a b")
        >>> md.Loss.regression(a * b, [a, b], inputs={}, target=[1.0]).value([2.0, 1.0])
        0.5
        >>> round(md.Loss.regression([a, b], [a, b], {}, [0], "softmax").value([1.0, 1.0]), 12)    # log 2
        0.69314718056
        """
        one_of(criterion, "criterion", CRITERIA)
        inputs, constants = table(inputs, "inputs"), table(constants, "constants")
        taken = [*inputs, *as_list(params), *constants]
        model = read_model(model, taken)
        outputs = model if isinstance(model, Outputs) else None
        plain, count = (outputs.model, outputs.count) if outputs else (model, None)
        values, certain = read_target(criterion, target, count)
        taken += walk.free_symbols(plain)
        y: Any = _unused("y", taken)
        y = y if count is None else vector(y.name, count)
        expr, data = compared(criterion, model, y, certain), {**inputs, y: target}
        weight = None if weights is None else _unused("weight", [*taken, y])
        if weight is not None:
            expr, data = weight * expr, data | {weight: weights}
        _same_rows(data)
        data[y] = values
        if weights is not None:
            data[weight] = read_weights(weights)
        loss = cls(expr, params, constants=constants, data=data)
        loss.outputs, loss.model = outputs, plain
        loss.criterion, loss.target, loss.weight, loss.certain = criterion, y, weight, certain
        loss.model_node(Graph())
        return loss

    def _copy(self, constants: Mapping[Any, float], data: Mapping[Any, ArrayLike]) -> Loss:
        """The same expression with other numbers: nothing of it is read again."""
        new = copy.copy(self)
        new.constants = {s: constant(s, v) for s, v in constants.items()}
        if data is not self.data:
            new._read_data(dict(data))
        if self.test is not None:
            new.test = self.test._copy(constants, self.test.data)
        return new

    def beside(self, expr: Any) -> Loss:
        """Another expression in the same parameters and constants, which is read once."""
        made: Loss = shared((Loss, self.form, expr), lambda: Loss(expr, self.params, constants=self.constants))
        return made if made.constants is self.constants else made._copy(self.constants, made.data)

    def hold_out(self, inputs: Mapping[Any, ArrayLike], target: ArrayLike) -> Loss:
        """The same regression with held-out samples at its side: `.test` is the loss on them.

        The observable `test_error` reads them; nothing is trained on them. Needs all inputs of `Loss.regression`
        and one target for each held-out sample.

        >>> import sympy as sp, minidyn as md
        >>> a, x = sp.symbols("a x")
        >>> loss = md.Loss.regression(a * x, [a], {x: [1.0, 2.0]}, [1.0, 2.0]).hold_out({x: [3.0]}, [4.0])
        >>> loss.test.value([1.0])
        0.5
        """
        if self.model is None:
            raise InputError("held-out samples need a model: build the loss with Loss.regression(...).")
        inputs = table(inputs, "inputs")
        given = {str(label_of(s)) for s in inputs}
        missing = [str(label_of(s)) for s in self.inputs if str(label_of(s)) not in given]
        if missing:
            raise InputError(f"the held-out samples lack the input {missing[0]}.")
        new = self._copy(self.constants, self.data)
        count = len(self.read_targets(target))
        new.test = self.with_data({**inputs, self.target: target} | self.unweighted(count))
        new.test.test = None
        return new

    def with_constants(self, constants: Mapping[Any, float]) -> Loss:
        """The same loss with other numbers for its constants; nothing is compiled again."""
        constants = table(constants, "constants")
        unknown = [s for s in constants if s not in self.constants]
        if unknown:
            raise InputError(f"{unknown[0]} is not a constant of this loss (it has {_names(self.constants)}).")
        return self._copy({**self.constants, **constants}, self.data)

    def with_data(self, data: Mapping[Any, ArrayLike]) -> Loss:
        """The same loss on other samples; nothing is compiled again."""
        data, names = table(data, "data"), {str(label_of(s)): s for s in self.data}
        unknown = [s for s in data if str(label_of(s)) not in names]
        if unknown:
            raise InputError(f"{unknown[0]} is not data of this loss (it has {_names(self.data)}).")
        given = {names[str(label_of(s))]: v for s, v in data.items()}
        _same_rows(given)
        if self.target in given:
            given[self.target] = self.read_targets(given[self.target])
        if self.weight in given:
            given[self.weight] = read_weights(given[self.weight])
        return self._copy(self.constants, {**self.data, **given})

    def refuse_data(self, what: str, exprs: Iterable[Any]) -> None:
        """InputError where expressions that belong to no single sample name the data."""
        names = {str(label_of(s)) for s in self.data}
        for e in exprs:
            found = sorted(names & {str(s) for s in (walk.free_symbols(e) if isinstance(e, sp.Basic) else ())})
            if found:
                raise InputError(
                    f"{what} names the data {found[0]}, which differ from sample to sample; "
                    "it may use the parameters and the constants."
                )

    @cached_property
    def c(self) -> Floats:
        """The numbers of the constants, in order."""
        given = [np.ravel(v) for v in [*self.constants.values(), self.numbers.values]]
        return np.concatenate(given if any(v.size for v in given) else [np.zeros(1)]).astype(float)

    # -- evaluation --
    def check(self, w: ArrayLike, name: str = "w", copy: bool = True) -> Floats:
        """`w` as a float64 array of shape `(..., D)`, or an `InputError`; a fresh one, unless `copy` is false and
        nothing will be changed in it."""
        array = numbers(w, name, lambda: self.param_names, copy)
        if array.ndim == 0 or array.shape[-1] != self.dim:
            raise InputError(
                f"{name} has shape {array.shape}, expected (..., {self.dim}): "
                f"one number for each of {self.param_names}."
            )
        return array

    def point(self, w: ArrayLike, name: str = "w") -> Floats:
        """`w` as one point (D,), a fresh one, or an `InputError`."""
        point = self.check(w, name)
        if point.ndim != 1:
            raise InputError(f"{name} has shape {point.shape}, expected ({self.dim},): one point.")
        return point

    def _batched(self, kernel: Callable[..., None], arrays: Sequence[ArrayLike], tail: tuple[int, ...]) -> Floats:
        checked = [self.check(a, copy=False) for a in arrays]
        shape = checked[0].shape
        if len(checked) > 1 and any(a.shape != shape for a in checked):
            try:
                checked = [np.ascontiguousarray(a) for a in np.broadcast_arrays(*checked)]
            except ValueError as e:
                shapes = " and ".join(str(a.shape) for a in checked)
                raise InputError(f"the points and directions have shapes {shapes}, which do not go together.") from e
            shape = checked[0].shape
        out = np.empty(shape[:-1] + tail)
        count = math.prod(shape[:-1])
        flat = [a.reshape(count, self.dim) for a in checked]
        kernel(*flat, self.c, self.rows, out.reshape(count, *tail))
        return out

    def value(self, w: ArrayLike) -> Any:
        """`L(w)`, shape `(...)`."""
        out = self._batched(self.kernels.values, [w], ())
        return float(out) if out.ndim == 0 else out

    def grad(self, w: ArrayLike) -> Floats:
        """The gradient, shape `(..., D)`."""
        return self._batched(self.kernels.grads, [w], (self.dim,))

    def hessian(self, w: ArrayLike) -> Floats:
        """The Hessian, shape `(..., D, D)`."""
        return self._batched(self.kernels.hessians, [w], (self.dim, self.dim))

    def hvp(self, w: ArrayLike, v: ArrayLike) -> Floats:
        """Hessian times `v`, shape `(..., D)`."""
        return self._batched(self.kernels.hvps, [w, v], (self.dim,))

    def third(self, w: ArrayLike, u: ArrayLike, v: ArrayLike) -> Floats:
        """`T[u, v]_i = sum_jk d_i d_j d_k L u_j v_k`, shape `(..., D)`."""
        return self._batched(self.kernels.thirds, [w, u, v], (self.dim,))

    def sample_grads(self, w: ArrayLike) -> Floats:
        """Gradients of the single samples' losses, shape `(..., n, D)`; needs data."""
        return self._batched(self.kernels.sample_grads, [w], (self._count("sample_grads"), self.dim))

    def sample_hvps(self, w: ArrayLike, us: ArrayLike) -> Floats:
        """Every sample's Hessian times every direction: `us` (r, D) gives (n, r, D) at one point w."""
        n = self._count("sample_hvps")
        point, directions = self.point(w), np.ascontiguousarray(np.atleast_2d(self.check(us, "us")))
        out = np.empty((n, len(directions), self.dim))
        for s in range(n):
            self.sample_kernels.sample_hvps(point, directions, self.c, self.rows, s, out[s])
        return out

    def square_hvp(self, w: ArrayLike, u: ArrayLike) -> Floats:
        """`(1/n) sum_i H_i^2 u` at one point, shape (D,); `H_i` is the Hessian of one sample's loss."""
        self._count("square_hvp")
        out = np.empty(self.dim)
        self.sample_kernels.square_hvp(self.point(w), self.point(u, "u"), self.c, self.rows, out)
        return out

    # -- at the keyboard --
    @property
    def param_names(self) -> list[str]:
        """One name per entry of `w`: `x`, `a[0]`, `W[1,2]`."""
        out = []
        for b in self.blocks:
            if b.shape:
                out += [f"{b.name}[{','.join(map(str, k))}]" for k in np.ndindex(*b.shape)]
            else:
                out.append(b.name)
        return out

    @derived
    def _printed(self) -> str:
        return walk.printed(self.expr, 70)

    def __repr__(self) -> str:
        where = f"; mean over {self.n_samples} samples" if self.per_sample else ""
        return f"Loss({self._printed}; {self._listed(8)}{where})"

    def _listed(self, most: int) -> str:
        """The first parameters, with their shapes."""
        names = [b.name if not b.shape else f"{b.name}{list(b.shape)}" for b in self.blocks[:most]]
        return ", ".join(names) + (", ..." if len(self.blocks) > most else "")

    def _repr_latex_(self) -> str:
        if self.n_samples in (None, 1):
            return rf"$\displaystyle L = {walk.latex(walk.shortened(self.expr))}$"
        taken = {str(s) for s, _ in walk.postorder(self.expr) if isinstance(s, sp.Symbol)}
        i = next(i for i in (*"inms", "sample") if i not in taken)  # a sum of the loss's own may run over i
        names = {str(label_of(s)): walk.indexed(walk.latex(label_of(s)), i) for s in self.data}
        atoms = (s for s, _ in walk.postorder(self.expr) if isinstance(s, (sp.Symbol, sp.MatrixSymbol)))
        body = walk.latex(walk.shortened(self.expr), {s: names[str(s)] for s in atoms if str(s) in names})
        body = rf"\left({body}\right)" if self.expr.is_Add else body
        body = rf"\frac{{1}}{{{self.n_samples}}}\sum_{{{i}}} {body}"
        return rf"$\displaystyle L = {body}$"

    def _in_words(self) -> list[str]:
        """The loss in LaTeX, then its parameters, constants and samples."""
        lines = [self._repr_latex_(), f"parameters: {self._listed(12)} ({self.dim:,} in all)"]
        if self.constants:
            lines.append("constants: " + ", ".join(f"{label_of(s)} = {_short(v)}" for s, v in self.constants.items()))
        if self.n_samples is not None:
            held = f"; {self.test.n_samples:,} more held out" if self.test is not None else ""
            lines.append(f"samples: {self.n_samples:,} of {_names(self.data)}{held}")
        if self.model is not None:
            lines.append(rf"model: $f = {walk.latex(walk.shortened(self.model))}$, {self.criterion} criterion")
        return lines

    def _repr_html_(self) -> str:
        return formulas("Loss", self._in_words(), repr(self))


def _unused(name: str, symbols: Sequence[Any]) -> sp.Symbol:
    """A symbol of this name, lengthened until no other one bears it, whatever is assumed of that one."""
    taken = {str(label_of(s)) for p in symbols for s in ([p] if not isinstance(p, sp.MatrixBase) else p)}
    return sp.Symbol(unused(name, taken))


def _names(symbols: Mapping[Any, Any]) -> str:
    return ", ".join(str(label_of(s)) for s in symbols) or "none"


def _same_rows(data: Mapping[Any, ArrayLike]) -> None:
    """InputError where the samples of two inputs are labelled in different orders."""
    rows = None
    for symbol, values in data.items():
        labels = row_labels(values)
        if labels is not None and rows not in (None, labels):
            raise InputError(
                f"the samples of {symbol} are labelled in another order than the others; align them, or give the "
                "bare values (.values)."
            )
        rows = rows if labels is None else labels


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{list(value.shape)}"


def _samples(symbol: Any, shape: tuple[int, ...], values: ArrayLike) -> Floats:
    """The samples (n, *shape) of one input."""
    names = [f"{label_of(symbol)}[{j}]" for j in range(shape[-1])] if shape else None
    array = numbers(values, f"the data for {label_of(symbol)}", None if names is None else lambda: names)
    wanted = "(n,)" if not shape else f"(n, {', '.join(map(str, shape))})"
    if 1 in shape and array.ndim == 2 and array.shape[1] == math.prod(shape):  # rows or columns, one per sample
        array = array.reshape(-1, *shape)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape or not array.size:
        raise InputError(f"the data for {symbol} has shape {array.shape}, expected {wanted} with n >= 1.")
    if not np.isfinite(array).all():
        raise InputError(f"the data for {symbol} contains NaN or Inf; drop or fill those samples first.")
    return array
