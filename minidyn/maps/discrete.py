"""loss + rule + noise = one discrete step.

The state of a path is `z = (theta, aux...)`, one value per coordinate and component. Kernels work on
blocks of 64 paths side by side: component `q` of lane `j` is `s[q*64 + j]`.
"""

from __future__ import annotations

import copy
import math
from types import ModuleType

import numpy as np
from sympy import Expr

from minidyn.common.arrays import ArrayLike, Floats, NDArray
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import FlowError, InputError
from minidyn.common.html import formulas
from minidyn.common.intake import between, flag, numbers, shown, whole
from minidyn.common.locks import Form, cached_property, derived, form
from minidyn.compiler import Function
from minidyn.kernels import Source
from minidyn.kernels.random import seed_blocks, seed_key
from minidyn.maps import rules
from minidyn.maps.loss import Loss
from minidyn.maps.noise import BoundNoise, Noise
from minidyn.maps.timeloop import Spot, add_advance

_NO_KEY = np.zeros(2, np.uint64)  # of random streams that nothing is drawn from
_FEW = 4  # fewer paths run one by one: lanes side by side would wait for each other's divisions


class Map(ByValue):
    """The discrete system `z' = F(z; g + noise)`: an update `rule` on a `loss`, with gradient `noise`.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(lr=0.05), md.GaussianNoise(0.3))
    >>> sgd.step([2.0, 1.0], noise=False)
    array([1.9 , 0.75])
    """

    _offers = "loss rule noise dim components lr time with_lr initial_state whole_state step fixed_point linearize"

    def __init__(self, loss: Loss, rule: rules.Rule, noise: Noise | None = None):
        if not isinstance(loss, Loss):
            raise InputError(f"a Map needs a Loss first, not {type(loss).__name__}.")
        if not isinstance(rule, rules.Rule):
            raise InputError(f"a Map needs an update rule such as md.SGD(0.1), not {shown(rule)}.")
        if noise is not None and not isinstance(noise, Noise):
            raise InputError(f"noise must be a noise model such as md.GaussianNoise(0.1), not {shown(noise)}.")
        self.loss, self.rule, self.noise = loss, rule, noise
        self.bound = BoundNoise(loss, noise)

    @cached_property
    def dim(self) -> int:
        """Number of parameters D."""
        return self.loss.dim

    @cached_property
    def components(self) -> int:
        """Length of the state `z`: D for theta and D for each auxiliary variable of the rule."""
        return self.dim * (1 + len(self.rule.states))

    def lr(self, k: float = 1) -> float:
        """The learning rate at step k: the time `t` that the step takes."""
        return self.rule.lr(k)

    def time(self, steps: ArrayLike, first_step: int = 1) -> Floats:
        """Flow time `t` after the given numbers of steps from `first_step` on: `lr k`, or the sum of their rates."""
        k = numbers(steps, "steps", copy=False)
        if not self.rule.rate_changes or not k.size:
            return self.lr() * k
        rates = self.rule.table(first_step, int(k.max()))[:, list(self.rule.hyper).index("lr")]
        return np.concatenate([[0.0], np.cumsum(rates)])[k.astype(int)]

    def with_lr(self, lr: float) -> Map:
        """The same map at another learning rate, a number or a schedule."""
        rate = lr if isinstance(lr, Expr) and not lr.is_number else between(lr, "lr", 0, np.inf)
        new = copy.copy(self)
        new.rule = self.rule.with_hyper(lr=rate)
        return new

    # -- kernels --
    @cached_property
    def form(self) -> Form:
        """All that the texts of its kernels and of its flows' depend on; numbers are not."""
        return form(self.rule.form, self.bound.form)

    @derived
    def source(self) -> Source:
        """The generated text of `advance` (see `timeloop`)."""
        src = Source(f"map {self.rule.name} on {self.loss}")
        add_advance(src, self.loss, self.rule, self.bound)
        return src

    @cached_property
    def kernels(self) -> ModuleType:
        """The compiled module."""
        return self.source.load()

    def advance(self, paths: int, spots: tuple[Spot, ...] = ()) -> Function:
        """The compiled time loop: lanes side by side for many paths, one by one for a few. What kernels read at `spots`
        lies behind the state of each path."""
        kernels = self.kernels if not spots else self._differing(spots)
        loop: Function = kernels.advance
        return loop if paths >= _FEW else loop.one_by_one

    def _differing(self, spots: tuple[Spot, ...]) -> ModuleType:
        src = Source(f"map {self.rule.name} on {self.loss}, with numbers that differ from path to path")
        add_advance(src, self.loss, self.rule, self.bound, spots)
        return src.load()

    # -- in Python --
    @cached_property
    def hyper(self) -> Floats:
        """The hyperparameters' numbers as kernels read them."""
        return np.array(self.rule.hyper_values or [0.0])

    def hyper_at(self, k: float = 1) -> Floats:
        """The numbers that a flow's kernels read as `hp` at step k: the hyperparameters', schedules too, and k."""
        return np.array(self.rule.numbers(k))

    def initial_state(self, w0: ArrayLike) -> Floats:
        """`z0 = (w0, 0...)`, shape (..., components)."""
        return self._at_rest(self.loss.check(w0, "w0"))

    def _at_rest(self, w: Floats) -> Floats:
        return np.concatenate([w, np.zeros((*w.shape[:-1], self.components - self.dim))], axis=-1)

    def state(self, w: ArrayLike, name: str = "w") -> Floats:
        """theta (..., D) or a whole state z (..., components), whichever `w` is, as fresh numbers, or an InputError."""
        array = numbers(w, name, lambda: self.loss.param_names)
        if array.ndim and array.shape[-1] in (self.dim, self.components):
            return array
        if self.components == self.dim:
            return self.loss.check(array, name)
        raise InputError(
            f"{name} has shape {array.shape}, expected (..., {self.dim}) for theta or (..., {self.components}) "
            "for the whole state."
        )

    def whole_state(self, w: ArrayLike, name: str = "w") -> Floats:
        """`state`, where theta alone is completed by states that are zero."""
        array = self.state(w, name)
        return array if array.shape[-1] == self.components else self._at_rest(array)

    def orders(self, blocks: int) -> NDArray[np.int64]:
        """The order in which each path visits the samples, as `advance` keeps it where they are shuffled."""
        n = self.loss.n_samples or 1
        return np.tile(np.repeat(np.arange(n), 64), (blocks, 1)) if self.bound.shuffles else np.zeros((1, 1), np.int64)

    def step(self, z: ArrayLike, k: int = 1, noise: bool = True, rng: object = None) -> Floats:
        """One step of the map from `z`; `z` may be theta alone, then the auxiliary state starts at zero.

        Returns what was given: the new theta, or the whole new state. Shapes `(..., D)` or
        `(..., components)`. With `noise=False` the full gradient is used. `rng` is a seed,
        `SeedSequence` or `Generator`.

        Raises InputError if the last axis of `z` has neither length.
        """
        array, k = self.state(z, "z"), whole("k", k, 1)
        if self.rule.scheduled:
            self.rule.table(k, 1)  # refuses a rate that is none at this step
        system = self if flag(noise, "noise") else self._quiet
        bound = system.bound
        key = _NO_KEY if rng is None and bound.silent else seed_key(rng)[1]
        width = array.shape[-1]  # of theta, or of the whole state
        flat = array.reshape(math.prod(array.shape[:-1]), width)
        blocks, orders = pack(flat, self.components), system.orders(-(-len(flat) // 64))
        streams = seed_blocks(key, len(blocks))
        if bound.shuffles:  # in the middle of an epoch its order is any order
            shuffler = np.random.default_rng(key)
            for row in orders:
                row[:] = shuffler.permuted(row.reshape(-1, 64), axis=0).ravel()
        numbers = (self.hyper, self.loss.c, self.loss.rows, bound.numbers)
        advance, alive = system.advance(len(flat)), np.zeros((len(blocks), 64))
        advance(blocks, streams, alive, orders, 0, len(blocks), len(flat), k - 1, 1, *numbers)
        return unpack(blocks, len(flat), 0, width).reshape(array.shape)

    @cached_property
    def _quiet(self) -> Map:
        """The same map without noise."""
        return Map(self.loss, self.rule)

    def fixed_point(self, w: ArrayLike) -> Floats:
        """The state z* = (w, aux*) that the noise-averaged map leaves in place at a point w of the minima.

        Raises FlowError where there is none (noise that vanishes where the rule divides by its size).
        """
        return self._linearization(w)[0]

    def linearize(self, w: ArrayLike) -> tuple[Floats, Floats]:
        """`A = dF/dz` (components, components) and `B = dF/dg` (components, D) of the noise-averaged map
        at the fixed point above a point w of the minima; z is ordered (theta, first state, ...).

        >>> import sympy as sp, minidyn as md
        >>> x = sp.Symbol("x")
        >>> md.Map(md.Loss(x**2, [x]), md.SGD(0.1, momentum=0.5)).linearize([0.0])[0]
        array([[ 0.8 , -0.05],
               [ 2.  ,  0.5 ]])
        """
        return self._linearization(w)[1:]

    def _linearization(self, w: ArrayLike) -> tuple[Floats, Floats, Floats]:
        from minidyn.maps.averagedmap import AveragedMap

        point = self.loss.point(w)
        code, z, a, b = AveragedMap(self).linearize(point)
        if code:
            raise FlowError(
                f"{self.rule} has no fixed point at {np.round(point, 6).tolist()}: the noise vanishes in a coordinate "
                "where the rule divides by its size."
            )
        return z, a, b

    def __repr__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        return f"Map({self.loss}, {self.rule}, {self.noise or 'no noise'})"

    def _repr_html_(self) -> str:
        lines = [*self.loss._in_words(), self.rule._repr_latex_()]
        noise = [f"noise in the gradient: {self.noise}", *self.noise.in_formulas()] if self.noise else ["no noise"]
        return formulas(f"Map of {self.rule}", [*lines, *noise], f"{self!r}\n{self.rule.describe()}")


def apart(a: Map, b: Map) -> str:
    """What tells two maps apart: "the loss", "the rule" or "the noise"; nothing if they are the same."""
    if a.loss != b.loss:
        return "the loss"
    return "the rule" if a.rule != b.rule else "the noise" if a.noise != b.noise else ""


def pack(states: Floats, components: int | None = None) -> Floats:
    """Paths `(N, Q)` -> blocks `(ceil(N/64), components*64)`; the last block is padded with its last path.

    Components beyond Q are zero. Nothing is copied twice: a million paths are 8 MB per component.
    """
    count, q = states.shape
    full = count // 64
    blocks = np.zeros((-(-count // 64), components or q, 64))
    if full:
        blocks[:full, :q] = states[: full * 64].reshape(full, 64, q).transpose(0, 2, 1)
    if full < len(blocks):
        blocks[full, :q] = states[-1][:, None]
        blocks[full, :q, : count - full * 64] = states[full * 64 :].T
    return blocks.reshape(len(blocks), blocks.shape[1] * 64)


def unpack(blocks: Floats, count: int, first: int = 0, last: int | None = None) -> Floats:
    """Blocks -> components `first` up to `last` of the paths, `(count, last - first)`: a copy."""
    parts = blocks.reshape(len(blocks), blocks.shape[1] // 64, 64)[:, first:last]
    out = np.empty((len(blocks), 64, parts.shape[1]))
    out[...] = parts.transpose(0, 2, 1)
    return out.reshape(len(blocks) * 64, parts.shape[1])[:count]
