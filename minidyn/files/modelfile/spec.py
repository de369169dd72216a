"""What a model file says, typed and checked: plain data, before any loss, rule or map is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp

STARTS = ("here", "manifold")
LR = sp.Symbol("lr")


@dataclass(frozen=True)
class ParameterSpec:
    """One declared parameter: a scalar (`shape == ()`), a vector `(m,)` or a matrix `(m, p)`."""

    name: str
    shape: tuple[int, ...]
    symbol: Any  # sp.Symbol, or sp.IndexedBase with that shape

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class TestSpec:
    """Held-out samples of a regression: `inputs[name]` and `target`, as in `LossSpec`."""

    inputs: Mapping[str, np.ndarray]
    target: np.ndarray


@dataclass(frozen=True)
class LossSpec:
    """A loss: `expr` itself (kind "expression"), or a criterion on the model `expr` (kind "regression").

    With `inputs`, `expr` speaks of one sample; `inputs[name]` holds all `n` of them, shape `(n,)` where
    `name` is a scalar symbol and `(n, d)` where it is an `IndexedBase` of shape `(d,)`.
    """

    kind: str  # "expression" | "regression"
    params: tuple[ParameterSpec, ...]
    expr: sp.Expr  # a sp.Tuple or a column for a model of several outputs, as `Loss.regression` takes it
    constants: Mapping[str, Any]  # a number, or an array of the shape that its symbol has
    inputs: Mapping[str, np.ndarray]
    target: np.ndarray | None  # (n,), or (n, C) for C outputs; None for kind "expression"
    criterion: str | None  # one of `maps.loss`'s CRITERIA; None for kind "expression"
    symbols: Mapping[str, Any]  # every declared name, in order: parameters, constants, inputs
    test: TestSpec | None = None
    weights: np.ndarray | None = None  # (n,), of a regression

    @property
    def dimension(self) -> int:
        """`D`, the length of the flat parameter vector."""
        return sum(parameter.size for parameter in self.params)

    @property
    def samples(self) -> int | None:
        """`n`, or None where there is neither input nor target."""
        arrays = [*self.inputs.values(), *([] if self.target is None else [self.target])]
        return len(arrays[0]) if arrays else None


@dataclass(frozen=True)
class RuleSpec:
    """An update rule by name; a hyperparameter is a number, a bool, or an expression in the step `k`."""

    name: str
    hyperparameters: Mapping[str, float | bool | sp.Expr]


@dataclass(frozen=True)
class NoiseSpec:
    """One gradient noise: its `kind`, a key of `maps.noise.NOISES`, and the options that this noise declares."""

    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ChartSpec:
    """Closed-form coordinates of the manifold: each scalar parameter as an expression in `coordinates`."""

    coordinates: tuple[sp.Symbol, ...]
    chart: Mapping[sp.Symbol, sp.Expr]


@dataclass(frozen=True)
class ExperimentSpec:
    """The run that a model is known for."""

    w0: np.ndarray  # (D,)
    start: str  # "here", or "manifold": project w0 on the minima first
    steps: int
    paths: int
    save_every: int | str | None  # a number of steps, or "log"
    observe: Mapping[str, sp.Expr | None]  # text -> expression in the parameters, None for a built-in name
    flows: tuple[str, ...]
    rng: int


@dataclass(frozen=True)
class ScalingSpec:
    """Where the orders of the flows in the learning rate are measured; None where the file does not say."""

    lrs: tuple[float, ...] | None
    time: float | None
    slow_time: float | None
    w0: tuple[sp.Expr, ...] | None  # the start, in terms of LR


@dataclass(frozen=True)
class ModelSpec:
    """One model file, whole: the loss, the rule, the noises, the default experiment and the text itself."""

    name: str
    title: str
    description: str
    reference: str
    text: str
    path: Path | None
    loss: LossSpec
    rule: RuleSpec
    noise: tuple[NoiseSpec, ...]
    manifold: ChartSpec | None
    experiment: ExperimentSpec
    scaling: ScalingSpec
