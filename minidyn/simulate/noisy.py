"""The edge with noise, observed: the curvature along what a map's steps do, and how its noise lies to the curvature.

    batch_sharpness     E g_B^T H_B g_B / |g_B|^2     over the batches B of a step (Andreyev, Beneventano 2024)
    update_sharpness    E u^T H u / |u|^2             u = theta' - theta of the next step, over its noise (Pan, Li 2022)
    noise_alignment     tr(H Sigma) / (|H| |Sigma|)   in Frobenius norms: 1 where the noise is as the curvature is

g_B, H_B are gradient and Hessian of a batch, H that of the loss. A batch without a gradient, or a step of length zero,
has no direction and does not count; where none has, the value is NaN. The update starts from the optimizer's own state
(momentum, accumulators) along a run of the map and along flows that carry it; at parameters alone the states are where
they come to rest there without noise. Where batches are few all of them are taken, else a sample, always the same one,
and the observable `..._error` is its standard error. Alignment: Wu, Wang, Su (2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.errors import FlowError, InputError
from minidyn.flows.base import Flow
from minidyn.flows.expansion.modified import ModifiedFlow
from minidyn.graph import Graph
from minidyn.kernels import Emitter, Source, pointer, store
from minidyn.maps.discrete import Map
from minidyn.maps.noise import Sampling
from minidyn.maps.rules import GD, displacement

MOST = 512  # batches, or draws of other noise, that are looked at


@dataclass(frozen=True)
class OfMap:
    """An observable of a map: `of(map)` is a function of its states (N, components), or of parameters (N, D)."""

    of: Callable[[Map], Callable[[Floats], Any]]
    whole: bool = False  # whether it reads the optimizer's state beside the parameters


def pointwise(one: Callable[[Floats], float]) -> Callable[[Floats], Floats]:
    """A function of one point as a function of many."""
    return lambda w: np.array([one(np.ascontiguousarray(p)) for p in w])


def batch_sharpness(system: Map, error: bool = False) -> Callable[[Floats], Floats]:
    """See above; with `error` the standard error of a sample of batches, 0 of all of them."""
    loss, bound = system.loss, system.bound
    if not bound.picks:
        raise InputError(
            f"batch_sharpness needs the batches of a step, and this map chooses none ({system.noise or 'no noise'}): "
            "give it minibatches, or reshuffled ones."
        )
    src = Source(f"batches on {loss}")
    src.line(f"from {loss.kernels.__name__} import grad, hvp")
    src.quote(batch_curvatures)
    groups = bound.sampling.choices(loss.n_samples or 1, MOST)

    def one(w: Floats) -> float:
        found = []
        for picks, share, exact in groups:
            out = np.empty(len(picks))
            src.load().batch_curvatures(w, loss.c, loss.rows, picks, out)
            found.append((out, share, exact))
        return _average(found, error)

    return pointwise(one)


def update_sharpness(system: Map, error: bool = False) -> Callable[[Floats], Floats]:
    """See above; with `error` the standard error of a sample of steps, 0 of all of them."""
    loss, rule, dim = system.loss, system.rule, system.dim
    src, graph = Source(f"moves of {rule.name}"), Graph()
    move = displacement(rule).nodes(graph)[0]
    src.add("move", "x, hp, kk, out", Emitter([store(graph, move, "out", 0)]).lines(), "a coordinate's displacement")
    src.quote(moves)
    k = Flow(system).first_moving
    hyper, clock = system.hyper_at(k), np.array([float(k)])
    draw, rest = _gradients(system), _at_rest(system)

    def one(z: Floats) -> float:
        w = z[:dim]
        states = z[dim:] if len(z) == system.components else rest(w)
        found, H = [], loss.hessian(w)
        for gradients, share, exact in draw(w):
            u = np.empty_like(gradients)
            src.load().moves(w, states.reshape(-1, dim), gradients, hyper, clock, u)
            with np.errstate(all="ignore"):
                found.append((np.einsum("ri,ij,rj->r", u, H, u) / (u * u).sum(axis=1), share, exact))
        return _average(found, error)

    return pointwise(one)


def noise_alignment(system: Map) -> Callable[[Floats], Floats]:
    """See above, of the covariance that flows are told of."""
    loss, bound = system.loss, system.bound
    if bound.silent:
        raise InputError("noise_alignment is that of the noise with the curvature, and the map has no noise.")
    src = Source(f"covariance of noise on {loss}")
    bound.add_covariance(src)
    sigma = pointer(src.load(), "sigma")

    def one(w: Floats) -> float:
        S, H = np.empty((loss.dim, loss.dim)), loss.hessian(w)
        sigma(w, loss.c, loss.rows, bound.numbers, S)
        size = float(np.linalg.norm(H) * np.linalg.norm(S))
        return float(np.sum(H * S)) / size if size > 0.0 else np.nan

    return pointwise(one)


Group = tuple[Floats, Floats, bool]  # values, or vectors, with their probabilities, and whether these are all


def _average(found: list[Group], error: bool) -> float:
    """The mean over those that are numbers, or its standard error."""
    total, weight, spread = 0.0, 0.0, 0.0
    for values, share, exact in found:
        good = np.isfinite(values)
        if good.any():
            mass = share[good].sum()
            mean = float(share[good] @ values[good] / mass)
            total, weight = total + mass * mean, weight + mass
            spread += 0.0 if exact else mass**2 * float(values[good].var()) / max(good.sum() - 1, 1)
    if weight == 0.0:
        return np.nan
    return float(np.sqrt(spread) / weight if error else total / weight)


def _gradients(system: Map) -> Callable[[Floats], list[Group]]:
    """The gradients that a step may see at w, (R, D) each: all of them where they are few, else draws of the map's."""
    loss, bound = system.loss, system.bound
    if bound.silent:
        return lambda w: [(loss.grad(w)[None], np.ones(1), True)]
    if len(bound.noise.parts) == 1 and isinstance(bound.noise.parts[0], Sampling):
        groups = bound.sampling.choices(loss.n_samples or 1, MOST)
        if all(exact for *_, exact in groups):

            def every(w: Floats) -> list[Group]:
                each = loss.sample_grads(w)
                return [(each[picks].mean(axis=1), share, True) for picks, share, _ in groups]

            return every
    seen = Map(loss, GD(1.0), system.noise)
    share = np.full(MOST, 1.0 / MOST)
    return lambda w: [(w - seen.step(np.tile(w, (MOST, 1)), rng=0), share, False)]


def _at_rest(system: Map) -> Callable[[Floats], Floats]:
    """The rule's states at rest at a point, NaN where there is no rest."""
    flow = cache(lambda: ModifiedFlow(Map(system.loss, system.rule), order=1))  # made once, and only where it is asked

    def states(w: Floats) -> Floats:
        try:
            return flow().slow_state(w)[system.dim :]
        except FlowError:
            return np.full(system.components - system.dim, np.nan)

    return states


# mypy: disable-error-code="name-defined, no-untyped-def, no-untyped-call"
# ruff: noqa: F821


def batch_curvatures(w, c, d, picks, out):
    """g^T H g / |g|^2 of the batches whose samples are the rows of `picks`; NaN where the gradient vanishes."""
    size = w.shape[0]
    g, h = np.empty(size), np.empty(size)
    rows = np.empty((picks.shape[1], d.shape[1]))
    for r in range(picks.shape[0]):
        for b in range(picks.shape[1]):
            for q in range(d.shape[1]):
                rows[b, q] = d[picks[r, b], q]
        grad(w, c, rows, g)
        hvp(w, g, c, rows, h)
        over, under = 0.0, 0.0
        for i in range(size):
            over += g[i] * h[i]
            under += g[i] * g[i]
        out[r] = over / under if under > 0.0 else np.nan


def moves(w, states, gradients, hp, kk, out):
    """What a step adds to w for each of the gradients."""
    x, made = np.empty(3 + states.shape[0]), np.empty(1)
    for r in range(gradients.shape[0]):
        for i in range(w.shape[0]):
            x[0], x[1], x[2] = w[i], gradients[r, i], 0.0
            for a in range(states.shape[0]):
                x[3 + a] = states[a, i]
            move(x, hp, kk, made)
            out[r, i] = made[0]
