"""What a noise declares, the table of all of them, and their sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from minidyn.common.arrays import Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError
from minidyn.common.html import formulas
from minidyn.common.intake import shown

if TYPE_CHECKING:
    from minidyn.maps.loss import Loss
    from minidyn.maps.noise.bound import BoundNoise

NOISES: dict[str, type[Part]] = {}  # noises by the name that model files have for them
REQUIRED: Any = object()
# what `noise.batch` and its like are where no part says otherwise
_ABSENT = {"sigma": None, "batch": None, "sampling": "without", "label_std": None, "label_kind": "normal"}


class Noise(ByValue):
    """A model of gradient noise, the sum of its `parts`: `GaussianNoise`, `Minibatch`, `Reshuffle`, `LabelNoise`, `+`.

    noises : what is added; sums are taken apart.
    sigma, batch, sampling, label_std, label_kind : what its parts were given; see there.
    """

    _offers = "parts"
    parts: tuple[Part, ...] = ()

    def __init__(self, *noises: Noise):
        found: list[Part] = []
        for k, noise in enumerate(noises):
            if not isinstance(noise, Noise):
                raise InputError(f"a noise is a sum of noises such as md.GaussianNoise(0.1), not of {shown(noise)}.")
            for part in noise.parts:
                if any(part.sets == other.sets for other in found):
                    raise InputError(f"cannot add {Noise(*noises[:k])} and {noise}: both set {part.sets}.")
            found += noise.parts
        self.parts = tuple(sorted(found, key=lambda part: (part.rank, part.sets)))

    def __add__(self, other: Noise) -> Noise:
        return Noise(self, other) if isinstance(other, Noise) else NotImplemented

    def __repr__(self) -> str:
        return " + ".join(text for part in self.parts if (text := part.among(self.parts))) or "no noise"

    def in_formulas(self) -> list[str]:
        """The gradient that a step sees, and what is random in it: lines with LaTeX between dollars."""
        seen, said = r"\nabla L(\theta_{k})", []
        for part in reversed(self.parts):
            seen, words = part.formula(seen)
            said.append(words)
        return [rf"$g_{{k}} = {seen}$", *filter(None, said)]

    def _repr_latex_(self) -> str:
        return self.in_formulas()[0]

    def _repr_html_(self) -> str:
        said = [f"  {(type(part).__doc__ or '').strip().splitlines()[0]}" for part in self.parts]
        return formulas(repr(self), self.in_formulas(), "\n".join([repr(self), *said]))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in _ABSENT:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            found = [p for p in self.parts if name in vars(p) or hasattr(type(p), name)]
            return getattr(found[0], name) if found else _ABSENT[name]


def total(noises: Iterable[Noise]) -> Noise | None:
    """The sum of noises, None of none; one alone is itself."""
    several = list(noises)
    return Noise(*several) if len(several) > 1 else several[0] if several else None


@dataclass(frozen=True)
class LinearResponse:
    """What a small displacement with the second moment W makes of the noise's covariance:

        kappa [(1/n) sum H_i W H_i - H W H] + label (1/n) sum F_i W F_i + sum_c S_c W S_c^T

    with `F_i` the Hessian of the model's output, `S_c` (c, D, D) the slopes of sigma's columns, if they are not zero.
    """

    kappa: float
    label: float
    slopes: Floats | None


@dataclass(frozen=True)
class Option:
    """What a model file may say of a noise under one key, and what holds where it says nothing.

    kind : "expressions" (a number, an expression in the parameters, D of them or D rows of them), "batch" (at most all
        samples), "number" (0 or more), "flag" (true or false), "choice" (one of `choices`).
    """

    kind: str
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()


class Part(Noise):
    """One noise of a sum. A new one is a frozen dataclass of one of three families, in a file of its own:

    `Additive`, numbers z of a law times a matrix in the parameters; `Sampling`, a choice of samples; `Labels`, targets
    that change. The family knows all that follows: draws, covariance, moments, what a displacement does to it. A
    `key` puts it into the table `NOISES`, by which model files and the tests of all noises find it.
    """

    key: ClassVar[str] = ""
    options: ClassVar[dict[str, Option]] = {}  # the keys of a model file: arguments of `from_options`
    needs: ClassVar[str] = ""  # of the loss: "samples", "regression" or nothing
    sets: ClassVar[str] = ""  # what a sum has only one of; its own key if not said
    rank: ClassVar[int] = 0  # its place in a sum
    no_covariance: ClassVar[str] = ""  # why flows refuse it, a sentence
    no_response: ClassVar[str] = ""  # why there is no linear stability under it, a sentence

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if vars(cls).get("key"):
            NOISES[cls.key] = cls
            cls.sets = cls.sets or cls.key

    @property
    def parts(self) -> tuple[Part, ...]:  # type: ignore[override]
        """Itself."""
        return (self,)

    @classmethod
    def from_options(cls, **options: Any) -> Noise:
        """The noise that a model file asks for."""
        return cls(**options)

    def form(self, loss: Loss) -> Any:
        """What of it reaches the texts of kernels on a loss; the numbers that kernels read (`BoundNoise.numbers`) need
        not be in it."""
        return self

    def among(self, parts: tuple[Part, ...]) -> str:
        """How it is written in a sum of these parts; nothing where another one's text says it."""
        return repr(self)

    def formula(self, seen: str) -> tuple[str, str]:
        """What becomes of the gradient `seen`, in LaTeX, and a line on what is random in it."""
        return seen, f"noise: {self!r}"

    def check(self, bound: BoundNoise) -> None:
        """Refuse a loss that it is not for."""
