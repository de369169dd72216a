"""Targets that change from step to step: `y_i + s e_i`; the gradient's noise is `-s <e_i grad f_i>` over the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats
from minidyn.common.errors import InputError
from minidyn.common.intake import between, one_of
from minidyn.graph import SAMPLE, Array, Graph, Node
from minidyn.kernels import Source
from minidyn.maps.loss import Loss
from minidyn.maps.noise.base import Noise, Option, Part
from minidyn.maps.noise.draws import LAWS, Law
from minidyn.maps.noise.minibatch import Minibatch
from minidyn.maps.noise.sampling import OfSamples
from minidyn.maps.rule_symbols import number_in_latex

if TYPE_CHECKING:
    from minidyn.maps.noise.bound import BoundNoise, Column


@dataclass(frozen=True, eq=False, repr=False)
class Labels(OfSamples):
    """Fresh numbers of a law times `label_std` on the targets of every sample that a step looks at."""

    _offers = "label_std label_kind"
    label_std: float
    label_kind: str = "normal"

    key: ClassVar[str] = "label"
    sets: ClassVar[str] = "label_std"
    rank: ClassVar[int] = 1
    needs: ClassVar[str] = "regression"
    scale: ClassVar[str] = "label"
    kernel: ClassVar[str] = "model_grad"
    options: ClassVar[dict[str, Option]] = {
        "std": Option("number"),
        "batch": Option("batch", None),
        "distribution": Option("choice", "normal", tuple(LAWS)),
    }

    def __post_init__(self) -> None:
        std = between(self.label_std, "the standard deviation of label noise", 0, np.inf)
        object.__setattr__(self, "label_std", std)
        one_of(self.label_kind, "the kind of label noise", tuple(LAWS))

    @classmethod
    def from_options(cls, **options: Any) -> Noise:
        """A batch that the model file gives is a `Minibatch` beside it."""
        return LabelNoise(*options.values())

    def form(self, loss: Loss) -> Any:
        """All but the size of the numbers."""
        return type(self), self.label_kind, self.label_std > 0.0

    @property
    def law(self) -> Law:
        """Of the numbers that change the targets."""
        return LAWS[self.label_kind]

    def __repr__(self) -> str:
        return self.among(())

    def among(self, parts: tuple[Part, ...]) -> str:
        """With the batch, where it is a plain one."""
        batch = [f", batch={p.batch}" for p in parts if isinstance(p, Minibatch) and not p.replace]
        kind = f", kind={self.label_kind!r}" if self.label_kind != "normal" else ""
        return f"LabelNoise({self.label_std:g}{''.join(batch)}{kind})"

    def formula(self, seen: str) -> tuple[str, str]:
        """The gradient at other targets."""
        other = rf"(\theta_{{k}}; y + {number_in_latex(self.label_std)} \, e_{{k}})"
        return seen.replace(r"(\theta_{k})", other), f"targets $y$, ${self.law.formula('e_{k}')}$, fresh every step"

    def check(self, bound: BoundNoise) -> None:
        """Refuse a loss without targets that could be noisy."""
        if bound.loss.criterion == "softmax":
            raise InputError(
                "label noise adds numbers to targets, and class labels are none; take minibatches, or change the "
                "labels themselves."
            )
        if bound.loss.criterion != "squared":
            raise InputError("label noise needs Loss.regression with the squared criterion.")

    def target(self, g: Graph, bound: BoundNoise) -> Node | Array:
        """The target that a step sees; the load `label` is one per turn of the sample loop, and output."""
        loss, per = bound.loss, SAMPLE if bound.loss.per_sample else None
        if loss.outputs is None:
            return loss.converter(g)(loss.target) + bound.load(g, "std") * g.load("label", 0, per=per)
        home = loss.array(loss.target)

        def noisy(target: Node) -> Node:
            _, place, strides = target.data
            return target + bound.load(g, "std") * g.load("label", place - home.offset, strides, per)

        return replace(home, of=noisy)

    def columns(self, chart: Any, bound: BoundNoise) -> Iterator[Column]:
        """Flows of leading order know of no bend of theirs."""
        std, loss = chart.symbol("std", self.label_std), bound.loss
        outputs = [loss.model] if loss.outputs is None else [loss.outputs.at(k) for k in range(loss.outputs.count)]
        shares = chart.on_samples(sp.S.One if loss.weight is None else loss.weight)
        for output in outputs:
            for share, f in zip(shares, chart.on_samples(output), strict=True):
                yield share**2 * std**2 / ((loss.n_samples or 1) * bound.batch), chart.slopes(f), False

    def variance(self, bound: BoundNoise, w: Floats) -> Floats | float:
        """The mean over the samples of the squared slopes of the model, by the variance of a label."""
        squares = bound.loss.jacobian(w) ** 2
        if bound.loss.outputs:
            squares = squares.sum(axis=1)
        return bound.label_variance * (bound.loss.shares[:, None] ** 2 * squares).mean(axis=0)

    def amount(self, bound: BoundNoise) -> str:
        """The variance of the batch's mean label, by the square of the sample's share of the loss."""
        share = bound.loss.share_of(f"s // {bound.per_sample}" if bound.per_sample > 1 else "s")
        return bound.reads("label") + (f" * {share} * {share}" if share else "")

    def bend(self, src: Source, bound: BoundNoise) -> list[str]:
        """Second moments of the slopes of the model's gradient, apart from the others'."""
        size = bound.loss.dim
        self.add_slopes(src, bound, "slope")
        return [
            "n = d.shape[0]",
            f"p1 = np.empty({size})",
            f"for s in range({bound.loss.turns}):",
            "    model_slope(w, u, c, d, s, p1)",
            f"    for i in range({size}):",
            f"        a = p1[i] * share * {self.amount(bound)} / n",
            f"        for j in range({size}):",
            "            labels[i, j] += a * p1[j]",
        ]


def LabelNoise(std: float, batch: int | None = None, kind: str = "normal") -> Noise:
    """Each step sees the targets `y_i + std e_i`, `e_i` standard normal or +-1, fresh every step.

    For `Loss.regression` with the squared criterion, each of several outputs with numbers of its own; `batch` samples
    per step (None: all of them).

    >>> import minidyn as md
    >>> md.LabelNoise(0.1)
    LabelNoise(0.1)
    """
    if std is None:
        raise InputError("the standard deviation of label noise must be positive, not None.")
    labels = Labels(std, kind)
    return labels if batch is None else labels + Minibatch(batch)
