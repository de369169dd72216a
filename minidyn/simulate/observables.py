"""Named quantities along a run: loss, sharpness, trace, distance to the manifold, ...

An observable is a name from `NAMES`, a sympy expression in the parameters, or a function of the
parameters `w` of shape (paths, D) that returns (paths,). Those that `noisy` has are of a map, with its rule and noise.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import sympy as sp

from minidyn.common.arrays import Floats, NDArray
from minidyn.common.errors import InputError, said
from minidyn.common.intake import numbers, shown
from minidyn.common.locks import shared
from minidyn.graph import walk
from minidyn.maps.discrete import Map
from minidyn.maps.loss import Loss
from minidyn.maps.settings import Settings
from minidyn.minima.manifold import Manifold, curvatures
from minidyn.minima.smoothness import Slopes, first_layer, mean_square
from minidyn.simulate.noisy import OfMap, batch_sharpness, noise_alignment, update_sharpness

_TAKEN = {"w", "status", "ended", "step", "time", "path", "parameter", "quantile"}  # names in Run.to_xarray


def _smooth(part: Callable[[Slopes], Floats]) -> Callable[[Loss], Callable[[Floats], Any]]:
    def of(loss: Loss) -> Callable[[Floats], Any]:
        layer = first_layer(loss)  # found once, not at every save
        return lambda w: part(Slopes(layer, w))

    return of


def _test_error(loss: Loss) -> Callable[[Floats], Any]:
    test = loss.test
    if test is None:
        raise InputError("test_error needs held-out samples: loss.hold_out(inputs, target), or [loss.test] in a model.")
    if loss.criterion == "squared":
        return lambda w: 2 * test.value(w)
    target, lead = test.data[test.target], 1 if loss.outputs is None else 2
    if loss.criterion == "softmax":
        return lambda w: (test.model_values(w).argmax(axis=-1) != target.argmax(axis=-1)).mean(axis=-1)
    return lambda w: (test.model_values(w) * target <= 0).mean(axis=tuple(range(-lead, 0)))


# name -> what it is, and loss -> function of w (N, D), or `OfMap`: the value of each point is that of the point alone
NAMES: dict[str, tuple[str, Callable[[Loss], Callable[[Floats], Any]] | OfMap]] = {
    "loss": ("the loss", lambda loss: loss.value),
    "gradient_norm": ("Euclidean norm of the gradient", lambda loss: lambda w: np.linalg.norm(loss.grad(w), axis=-1)),
    "sharpness": ("largest eigenvalue of the Hessian", lambda loss: lambda w: curvatures(loss, w)[..., -1]),
    "trace": ("trace of the Hessian", lambda loss: lambda w: np.trace(loss.hessian(w), axis1=-2, axis2=-1)),
    "distance": ("distance to the manifold of minima", lambda loss: Manifold(loss).distance),
    "test_error": ("mean squared error, or fraction misclassified, on held-out samples (Loss.hold_out)", _test_error),
    "input_gradient": (
        "mean over samples of the model's squared gradient in the input",
        lambda loss: lambda w: mean_square(loss, loss.input_grads(w)),
    ),
    "input_gradient_bound": ("what flatness allows for input_gradient (smoothness)", _smooth(lambda s: s.mean_bound)),
    "smoothness_ratio": (
        "largest ratio, over the samples, of the gradient in the input to its bound; at most 1",
        _smooth(lambda s: s.ratio.max(axis=-1)),
    ),
    "norm": ("Euclidean norm of the parameters", lambda loss: lambda w: np.linalg.norm(w, axis=-1)),
    "batch_sharpness": (
        "batch sharpness: of a step's batch along its gradient, mean over batches",
        OfMap(batch_sharpness),
    ),
    "batch_sharpness_error": (
        "its standard error, 0 where all batches are taken",
        OfMap(partial(batch_sharpness, error=True)),
    ),
    "update_sharpness": (
        "curvature along the optimizer's next step, mean over its noise",
        OfMap(update_sharpness, True),
    ),
    "update_sharpness_error": (
        "its standard error, 0 where all batches are taken, or none",
        OfMap(partial(update_sharpness, error=True), True),
    ),
    "noise_alignment": ("cosine between the Hessian and the covariance of the noise", OfMap(noise_alignment)),
}


@dataclass(frozen=True)
class Observable:
    """A function of w (paths, D), fed only with finite points: others give NaN.

    pointwise : whether a path's value depends on its parameters alone, so that points of many saves may go together.
    whole : whether it takes states (paths, components) of the map as well, and means another thing by them.
    """

    name: str
    function: Callable[[Floats], Any]
    pointwise: bool
    whole: bool = False

    def __call__(self, w: Floats) -> Floats:
        """The values (paths,) at points; InputError where the function returns anything else."""
        finite = np.isfinite(w).all(axis=-1)
        out = np.full(len(w), np.nan)
        if finite.any():
            with np.errstate(over="ignore", invalid="ignore"):  # paths about to diverge
                values = numbers(self.function(w[finite]), f"the observable {self.name}", copy=False)
            if values.shape != (int(finite.sum()),):
                raise InputError(
                    f"the observable {self.name} returned shape {values.shape} for w of shape {w[finite].shape}; "
                    "it must return one number per path."
                )
            out[finite] = values
        return out


@dataclass(frozen=True)
class OfEach(Observable):
    """An observable of paths whose maps differ: `groups` of paths, each with the observable of its own map."""

    groups: tuple[tuple[NDArray[np.intp], Observable], ...] = ()

    def __call__(self, w: Floats) -> Floats:
        """The values (paths,) at the points of all paths, in their order."""
        out = np.empty(len(w))
        for which, one in self.groups:
            out[which] = one(w[which])
        return out


def resolve(system: Map, observe: Any, settings: Settings | None = None) -> dict[str, Observable]:
    """`{name: function of w (paths, D)}` for what the user asked to observe, of each path by its own `settings`."""
    out = _resolved(system, observe)
    if settings is None:
        return out
    for name, what in asked(system.loss, observe).items():
        of_map = isinstance(what, str) and isinstance(NAMES[what][1], OfMap)
        reads = ("hp", "nz", "c") if of_map else ("c",) if isinstance(what, (str, sp.Expr)) else ()
        if groups := settings.groups(system, reads):
            of = tuple((which, _resolved(m, {name: what})[name]) for which, m in groups)
            out[name] = OfEach(name, out[name].function, False, out[name].whole, of)
    return out


def _resolved(system: Map, observe: Any) -> dict[str, Observable]:
    out = {}
    for name, what in asked(system.loss, observe).items():
        named = NAMES.get(what) if isinstance(what, str) else None
        whole = bool(named and isinstance(named[1], OfMap) and named[1].whole and system.rule.states)
        out[name] = Observable(name, _function(system, what), isinstance(what, (str, sp.Expr)) and not whole, whole)
    return out


def asked(loss: Loss, observe: Any) -> dict[str, Any]:
    """`{name: name of an observable, expression or function}` for what the user asked to observe."""
    if observe is None:
        return {}
    if isinstance(observe, (str, sp.Expr)) or callable(observe) or not isinstance(observe, Iterable):
        observe = [observe]
    if isinstance(observe, Mapping):
        items: list[tuple[str, Any]] = [(str(k), v) for k, v in observe.items()]
    else:
        items = [(o if isinstance(o, str) else _called(o), o) for o in observe]
    names = [name for name, _ in items]
    for name in names:
        if name in loss.param_names:
            raise InputError(f"{name} is a parameter, which a run holds anyway; observe other things, by other names.")
        if name in _TAKEN or names.count(name) > 1:
            raise InputError(
                f"the name {name} is taken in the run; give another one with "
                f"{said('observe={name: expression or function}')}."
            )
    return dict(items)


def _called(what: Any) -> str:
    """What an expression or a function is called; a long one is printed once."""
    if isinstance(what, sp.Basic):
        return str(shared((walk.named, what), lambda: walk.named(what)))
    return walk.named(getattr(what, "__name__", what))


def _function(system: Map, what: Any) -> Callable[[Floats], Any]:
    loss = system.loss
    if isinstance(what, str):
        if what not in NAMES:
            raise InputError(
                f"no observable is called {shown(what)}; use {', '.join(NAMES)}, a sympy expression or a function of w."
            )
        make = NAMES[what][1]
        return make.of(system) if isinstance(make, OfMap) else make(loss)
    if isinstance(what, sp.Expr):
        return loss.beside(what).value
    if callable(what):
        return what
    raise InputError(f"{shown(what)} cannot be observed: use a name, a sympy expression or a function of w.")
