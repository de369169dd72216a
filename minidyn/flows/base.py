"""What every flow has: the map it belongs to, a field per step, a drift and a diffusion per time."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from sympy import Expr

from minidyn.common.arrays import ArrayLike, Floats, NDArray
from minidyn.common.byvalue import Remembering
from minidyn.common.errors import FlowError, InputError
from minidyn.common.html import formulas
from minidyn.common.intake import finite, flag, numbers, shown
from minidyn.common.locks import Form, cached_property, derived, form
from minidyn.common.reports import folded
from minidyn.common.status import Status
from minidyn.flows.look import Look
from minidyn.kernels import Source, pointer
from minidyn.kernels.by_pointer import evaluate
from minidyn.kernels.pointers import flow_pointer
from minidyn.maps.discrete import Map
from minidyn.minima.manifold import Manifold

_WARMING = 100_000  # steps among which the first one with a learning rate is looked for
WIDEST = 24  # numbers in a state that goes into lanes: beyond, its slopes do not stay near the processor


def stay(fns, w, hp, c, d, nz, fp):
    """A flow that may be anywhere needs no putting back."""
    return 0


def _no_jacobian(fns, w, k, hp, c, d, nz, fp, J):
    return Status.SOLVER_FAILED


FLOWS: dict[str, type[Flow]] = {}  # flows by the key that model files name them by


class Flow(Remembering):
    """The continuous dynamics that a theory predicts for a map: `dw = drift dt + diffusion dW`; docs/limits.md says for
    which maps a theory predicts none.

    map : the map.  name, label : what it is called, and what tables and figures call it.  reference : where it is from.
    reads : how the map is read beside it: "iterates", "midpoints" (of two successive ones) or "projected" (on the
        minima, along the gradient flow).  first_step : the number of the map's first step in a run.

    A subclass names the kernels that it needs (`needs`) and gives two compiled functions of them:
    `field(fns, w, k, hp, c, d, nz, fp, b, f)` fills the change per step `b` (size,) and its noise factor per
    square root of a step `f` (size, columns) and returns a status code; `retract(fns, w, ...)` puts a point
    back where the flow lives. A flow without noise whose equations change at events carries itself from one to the
    next by a third, `carry`. They are compiled once per machine; only `fns` belong to one model. The state is
    theta (D,), followed by further numbers where `size` is larger than D (an amplitude, a momentum).
    For stiff solvers a flow may give `jacobian(fns, w, k, hp, c, d, nz, fp, J)`, a compiled function of the kernels
    named in `jacobian_needs`; otherwise differences of the field are taken. `noise_kind` ("additive", "diagonal",
    "commutative" or "general") and `reading` ("ito" or "stratonovich") decide which schemes fit.
    """

    _offers = (
        "map loss dim size name label reference reads reading noise_kind first_step start drift "
        "diffusion validity describe stochastic of beginning leaves_out"
    )
    key: ClassVar[str] = ""  # what model files call it, by which it stands in FLOWS; none for one that they cannot name
    orders: ClassVar[tuple[int, ...]] = ()  # which `order=` may stand behind the key
    slow: ClassVar[bool] = False  # its own time is lr^2 k
    look: ClassVar[Look | None] = None  # how figures draw it; None takes a look that is free in the figure
    driven: ClassVar[bool] = False  # by the map's noise: a map without noise has no such flow
    noisy: ClassVar[bool] = False  # not driven by it, but has it in its equations where there is any
    charted: ClassVar[bool] = False  # takes `manifold=`, and has equations in the coordinates of a chart
    needs: ClassVar[tuple[str, ...]] = ()
    field: ClassVar[Any]
    retract: ClassVar[Any] = staticmethod(stay)
    jacobian: ClassVar[Any] = None
    jacobian_needs: ClassVar[tuple[str, ...]] = ()
    noise_kind: str = "general"
    reading: str = "ito"
    symmetric: ClassVar[bool] = False  # the drift's Jacobian is: nothing oscillates, and near a minimum errors die out
    columns: int = 0
    rows: int = 0
    reads: str = "iterates"
    carry: ClassVar[Any] = None  # its own way to move: advance(fns, w, kept, k, end, rtol, atol, hp, c, d, nz, fp)
    remembers: int = 1  # numbers `kept` from call to call of it, of which the first is the place that was reached
    first_step: int = 1
    reasons: ClassVar[Mapping[int, str]] = {}  # why this flow has no field at a point, with what to try: `explain`
    ahead: ClassVar[int] = 0  # 1 where the state is a pair of iterates, which goes on by the step behind them
    reach: ClassVar[int] = 40  # steps of the map that one step of a scheme for noisy flows covers at most by default
    name: ClassVar[str] = "flow"
    reference: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if vars(cls).get("key"):
            FLOWS[cls.key] = cls

    def of(self, system: Map) -> Flow:
        """The same flow of another map, such as this one at another learning rate."""
        args, options = self._made_with
        return type(self)(system, *args, **options)

    def beginning(self, first_step: int) -> Flow:
        """This flow for a run that begins with the map's step `first_step`; one made for another step refuses."""
        if first_step in (1, self.first_step):
            return self
        if self.first_step != 1:
            made = f"the {self.name} was made for first_step = {self.first_step}"
            raise InputError(f"{made} and the run begins at {first_step}: give it to the run alone.")
        flow = copy.copy(self)
        flow.first_step = first_step
        return flow

    def __init__(self, system: Map):
        if not isinstance(system, Map):
            raise InputError(f"{type(self).__name__} is the flow of a map: give it a Map, not {shown(system)}.")
        self.map = system

    def _check_minima(self, manifold: Any) -> None:
        """Refuse the minima of another loss."""
        if manifold is not None and not isinstance(manifold, Manifold):
            raise InputError(f"manifold must be a Manifold of the map's loss, not {manifold!r}.")
        if manifold is not None and manifold.loss != self.map.loss:
            other = f"the manifold is that of another loss, {manifold.loss}; the map's is {self.map.loss}"
            raise InputError(f"{other}: give md.Manifold(map.loss).")

    @property
    def leaves_out(self) -> str:
        """What of the map its equations do not have: "noise", or nothing."""
        return "" if self.driven or self.noisy or self.map.bound.silent else "noise"

    @property
    def label(self) -> str:
        """What tables and figures call it beside others of its kind."""
        return self.name

    @property
    def loss(self) -> Any:
        """The map's loss."""
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
    def form(self) -> Form:
        """All that the texts of its kernels depend on: what it is, its map but for the numbers, what was chosen."""
        return form(type(self), self.map.form, self._chosen)

    @property
    def _chosen(self) -> tuple[Any, ...]:
        """Those of its arguments that reach the texts of its kernels."""
        return ()

    @derived
    def source(self) -> Source:
        """The generated text of the flow's kernels."""
        raise NotImplementedError

    @cached_property
    def kernels(self) -> ModuleType:
        """The compiled module."""
        return self.source.load()

    # -- the clock --
    @property
    def own_clock(self) -> bool:
        """Whether the number of the step stands in the equations, other than in schedules and bias corrections."""
        return self.map.rule.own_clock

    def speeds(self, numbers: Floats) -> Floats | None:
        """How fast the flow runs at the numbers (N, H + 1) of a rule's steps, where schedules change that alone.

        Then it is integrated on a clock of its own, whatever the rate of a step is; None where a schedule changes the
        equations.
        """
        return None

    @property
    def first_moving(self) -> int:
        """The first step, from `first_step` on, at which the learning rate is not zero."""
        rule = self.map.rule
        warming = isinstance(rule.hyper.get("lr"), Expr) and rule.lr(self.first_step) == 0.0
        steps = range(self.first_step + 1, self.first_step + _WARMING) if warming else ()
        return next((k for k in steps if rule.lr(k) > 0.0), self.first_step)

    @cached_property
    def rests(self) -> bool:
        """Whether nothing moves at a learning rate of zero: theta is all the state, and lr a factor of its step."""
        return self.size == self.dim and self.map.rule.rests

    @property
    def rate_power(self) -> float | None:
        """The power of the learning rate that the drift per step goes with, for small rates, where the noise goes with
        the rate itself; None where not all of a step does. Steps of nearly the same rate are then made together."""
        return 1.0 if self.rests else None

    @property
    def draws(self) -> tuple[int, int, int]:
        """Normals that a step draws: how many from the path's stream; from row `start` on, how many from a second one.

        `(plain, start, beside)`; where the flow `couples`, the first ones are those that the map draws.
        """
        return self.columns, 0, 0

    @cached_property
    def inlined(self) -> tuple[Any, Any, tuple[Any, ...]] | None:
        """`field`, `retract` and their kernels as functions in the time loop; None if too long or put back."""
        return None

    @property
    def in_lanes(self) -> bool:
        """Whether the functions of `inlined` run for many paths side by side: they do not branch or loop by path."""
        return True

    def _needed(self, names: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(pointer(self.kernels if hasattr(self.kernels, n) else self.map.loss.kernels, n) for n in names)

    @cached_property
    def pointers(self) -> tuple[Any, Any, tuple[Any, ...]]:
        """`field`, `retract` and the kernels that they take, as function pointers."""
        cls, needs = type(self), self.needs
        return flow_pointer(cls.field, "field", needs), flow_pointer(cls.retract, "retract", needs), self._needed(needs)

    @cached_property
    def jacobian_pointers(self) -> tuple[Any, tuple[Any, ...], int]:
        """`jacobian`, the kernels that it takes, and 1; a function that is never called and 0 where there is none."""
        function = type(self).jacobian
        made = flow_pointer(function if function is not None else _no_jacobian, "jacobian", self.jacobian_needs)
        return made, self._needed(self.jacobian_needs), int(function is not None)

    def stochastic(self, w0: Floats) -> bool:
        """Whether the flow has noise (at these starting points)."""
        return False

    def numbers(self, w0: Floats) -> Floats:
        """Numbers that the kernels read as `fp`, found from the starting points."""
        return np.zeros(1)

    def has_noise(self, w0: Floats, numbers: Floats) -> bool:
        """`stochastic`, where the `numbers` of these starting points are known."""
        return self.stochastic(w0)

    def start(self, w0: ArrayLike) -> Floats:
        """The flow's state (..., size) for a map that starts at `w0`: theta (..., D), or the map's whole state."""
        return self.theta(w0)

    def theta(self, w0: ArrayLike) -> Floats:
        """The parameters (..., D) of a start that is given as theta or as the map's whole state."""
        return self.map.state(w0, "w0")[..., : self.dim]

    @property
    def couples(self) -> bool:
        """Whether the flow is driven by the very normals that the map draws."""
        return False

    def evaluate(self, points: Floats, k: float, numbers: Floats) -> tuple[Floats, Floats]:
        """Change per step (N, size) and noise factor (N, size, columns) at points (N, size), or a FlowError."""
        points = np.ascontiguousarray(points)
        b, f = np.empty_like(points), np.zeros((len(points), self.size, self.columns))
        codes = self.fill(points, float(k), numbers, b, f)
        if np.count_nonzero(codes):
            row = int(np.argmax(codes != 0))
            raise self._refused(points[row], int(codes[row]))
        return b, f

    def _refused(self, point: Floats, code: int) -> FlowError:
        """What to raise where a status says that there is no field at a point."""
        return FlowError(f"{self.name} at w = {np.round(point, 6)}: {self.explain(code)}")

    @cached_property
    def carrier(self) -> Any:
        """`carry` as a function pointer."""
        return flow_pointer(type(self).carry, "advance", self.needs)

    def why(self, w: Floats, kept: Floats, code: int) -> tuple[int, str]:
        """Where `carry` stopped, at the state w: the status, looked at more closely, and a sentence."""
        return code, self.explain(code)

    def check(self, w: ArrayLike) -> Floats:
        """A state of the flow as an array of shape (..., size), or an InputError."""
        if self.size == self.dim:
            return self.loss.check(w)
        array = numbers(w, "w")
        if array.ndim == 0 or array.shape[-1] != self.size:
            raise InputError(
                f"w has shape {array.shape}, expected (..., {self.size}): the state of the {self.name}, which starts "
                "with theta; flow.start(w0) makes one."
            )
        return array

    def fill(self, points: Floats, k: float, numbers: Floats, b: Floats, f: Floats) -> NDArray[np.int64]:
        """Fill b and f at all points; the status code of each."""
        codes = np.zeros(len(points), np.int64)
        m = self.map
        field, _, fns = self.pointers
        hyper = m.hyper_at(k + self.ahead * self.first_step)  # a pair counts from the run's first one
        model = hyper, m.loss.c, m.loss.rows, m.bound.numbers, numbers
        evaluate(field, fns, points, k, model, b, f, codes)
        return codes

    def _evaluate(self, w: ArrayLike, k: float) -> tuple[Floats, Floats, float, tuple[int, ...]]:
        """Change per step (N, size) and noise factor (N, size, columns) at the points that w is, the learning rate, and
        the shape in which they lie (...)."""
        points, k = self.check(w), finite(k, "k")
        lead = points.shape[:-1]
        flat = points.reshape(math.prod(lead), self.size)
        none = np.empty((0, self.size)), np.empty((0, self.size, self.columns))
        drift, factor = self.evaluate(flat, k, self.numbers(flat)) if len(flat) else none
        lr = self.map.lr(max(k, 1))
        if lr == 0.0:
            raise InputError(
                f"the learning rate is zero at step {k:g}: no time passes there, and per unit of time the {self.name} "
                f"is not defined; ask at another step, as k={self.first_moving}."
            )
        return drift, factor, lr, lead

    def drift(self, w: ArrayLike, k: float = 1) -> Floats:
        """Drift per unit of flow time `t`, shape (..., size); `k` matters only for schedules.

        Raises FlowError where the flow does not exist, InputError for a wrong shape.
        """
        drift, _, lr, lead = self._evaluate(w, k)
        return drift.reshape(*lead, self.size) / lr

    def diffusion(self, w: ArrayLike, k: float = 1) -> Floats:
        """A matrix `S` with `dw = drift dt + S dW`, shape (..., size, r): `S S^T` is the covariance per time."""
        _, factor, lr, lead = self._evaluate(w, k)
        return factor.reshape(*lead, self.size, self.columns) / np.sqrt(lr)

    def meaning(self, code: int) -> int:
        """What a status code of the field says: nothing is singular where the rule divides by nothing, so that what is
        not finite there has overflowed."""
        overflowed = code == Status.SINGULAR and not self.slow and not self.map.rule.divides
        return Status.DIVERGED if overflowed else code

    def explain(self, code: int) -> str:
        """A status code in words, with what to try."""
        large = "the loss, or a derivative of it, is too large for double precision here; start elsewhere."
        unknown = f"the field could not be evaluated (status {code})."
        return {Status.DIVERGED: large, **self.reasons}.get(self.meaning(code), unknown)

    def validity(self, w: ArrayLike) -> float:
        """The number that must be small for the theory to hold at `w`; `describe` says which it is.

        `w` is a state of the flow (size,), or theta (D,): then it is the state that the flow starts from there. NaN
        where no such number is known. Raises InputError for anything but one point.
        """
        self._point(w)
        return float("nan")

    def _point(self, w: ArrayLike) -> Floats:
        """One point: theta (D,), a state of the flow (size,) or a whole state of the map, or an InputError."""
        lengths = {self.dim, self.size, self.map.components}
        array = numbers(w, "w", lambda: self.loss.param_names)
        if array.ndim != 1 or len(array) not in lengths or not np.isfinite(array).all():
            expected = " or ".join(map(str, sorted(lengths)))
            raise InputError(f"w must be one point of the {self.name}, {expected} finite numbers, not {shown(w)}.")
        return array

    def _started(self, w: ArrayLike) -> Floats:
        """A state (size,): `w` itself, or where the flow starts if `w` is theta or a state of the map."""
        array = self._point(w)
        return array if len(array) == self.size else self.start(array)

    def _here(self, w: ArrayLike | None) -> str:
        """How the line on validity ends in a description at `w`."""
        if w is None:
            return ""
        return f"; at theta = {self._place(self._point(w))} it is {self.validity(w):.3g}"

    def _place(self, w: Floats) -> str:
        return f"[{', '.join(f'{v:.4g}' for v in w[: min(self.dim, 6)])}{', ...' if self.dim > 6 else ''}]"

    def describe(self, latex: bool = False, w: ArrayLike | None = None) -> str:
        """Equations, state, clock, assumptions, order, validity (its value at `w` if given) and reference, as text in
        lines of 80 columns or as LaTeX, a formula to a line; what a subclass says in `_describe`."""
        text = self._describe(flag(latex, "describe: latex"), w)
        return text if latex else folded(text)

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.map!r})"

    def _repr_html_(self) -> str | None:
        try:
            return formulas(repr(self), self._describe(True).splitlines(), self.describe())
        except NotImplementedError:  # a flow of one's own, without words
            return None
