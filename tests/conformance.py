"""What every map and every flow must satisfy, whatever its rule, its noise or its theory.

`check_map` and `check_flow` are the tests of a new rule, noise or flow: one call each.
"""

from __future__ import annotations

import numpy as np
import pytest

import minidyn as md
from minidyn.kernels import Source, pointer

BITS = np.testing.assert_array_equal


def check_map(system: md.Map, w) -> None:
    """The interface of a map at the parameters `w`, shape (D,)."""
    w = np.asarray(w, float)
    size, states = len(w), len(system.rule.states)
    many = w + 0.1 * np.random.default_rng(0).normal(size=(5, 13, size))  # 65 points: more than one block

    # the state is theta, then one value per coordinate for each auxiliary variable, zero at the start
    assert system.dim == size and system.components == size * (1 + states)
    whole = system.initial_state(many)
    assert whole.shape == (5, 13, system.components)
    BITS(whole[..., :size], many)
    assert not whole[..., size:].any()

    # batched = single; theta alone = whole state; no noise = the rule on the full gradient
    mean = system.step(whole, noise=False)
    assert mean.shape == whole.shape and np.isfinite(mean).all()
    for at in ((0, 0), (2, 3), (4, 12)):
        BITS(system.step(whole[at], noise=False), mean[at])
    BITS(system.step(many, noise=False), mean[..., :size])
    BITS(md.Map(system.loss, system.rule).step(whole), mean)

    # the same seed gives the same bits, another seed other ones exactly where there is noise
    once = system.step(whole, rng=1)
    BITS(system.step(whole, rng=1), once)
    assert np.array_equal(system.step(whole, rng=2), once) == (system.noise is None)
    assert np.isfinite(once).all()

    # `simulate` makes the very steps of `step`
    run = md.simulate(system, many[0], 1, paths=13, rng=3)
    BITS(run.w[:, 1], system.step(many[0], rng=3))

    # only rules that ask for the step number know it
    later = system.step(whole, k=7, noise=False)
    assert np.array_equal(later, mean) != (system.rule.uses_step or system.rule.scheduled)

    # clock, words, errors
    clock = [0, system.lr(1), sum(system.lr(k) for k in (1, 2, 3))]
    np.testing.assert_allclose(system.time([0, 1, 3]), clock, rtol=1e-15)
    assert repr(system.rule) in repr(system) and str(system.noise or "no noise") in repr(system)
    assert system._repr_markdown_().count("$") >= 4
    for wrong in (np.zeros(system.components + 1), 0.0):
        with pytest.raises(md.InputError, match="expected"):
            system.step(wrong)


def check_flow(flow: md.Flow, w, paths: int = 4096) -> None:
    """The interface of a flow at a point `w`, shape (D,), where it lives."""
    given, w = np.asarray(w, float), flow.start(np.asarray(w, float))
    size, dim, lr = len(w), flow.dim, flow.map.lr()  # the state is theta, then whatever moves with it
    drift, diffusion = flow.drift(w), flow.diffusion(w)

    BITS(flow.of(flow.map).drift(w), drift)  # the same theory with the same options

    # shapes, and batched = single
    assert flow.size == size >= flow.dim == len(given)
    assert drift.shape == (size,) and diffusion.shape[:-1] == (size,) and diffusion.ndim == 2
    assert np.isfinite(drift).all() and np.isfinite(diffusion).all()
    many = np.broadcast_to(w, (2, 3, size))
    BITS(flow.drift(many), np.broadcast_to(drift, many.shape))
    BITS(flow.diffusion(many), np.broadcast_to(diffusion, (2, 3, *diffusion.shape)))
    starts = flow.start(np.broadcast_to(given, (2, 3, flow.dim)))
    np.testing.assert_allclose(starts, many, rtol=1e-12, atol=1e-12)
    if size == flow.dim and flow.reads != "midpoints":
        np.testing.assert_allclose(flow.start(many), many, rtol=1e-12, atol=1e-12)  # it stays where it lives

    # drift and diffusion are per unit of t: one step of `simulate` lasts lr; runs save theta
    if flow.stochastic(w[None]):
        run = md.simulate(flow, given, 1, paths=paths, substeps=1, rng=5)
        change = run.w[:, 1] - run.w[:, 0]
        covariance, off = (lr * diffusion @ diffusion.T)[:dim, :dim], change - change.mean(0)
        outer = off[:, :, None] * off[:, None, :]
        # five standard errors, and what a retraction moves: the next order in the size of a step
        slack = 5 / np.sqrt(paths)
        assert np.all(abs(change.mean(0) - lr * drift[:dim]) <= slack * change.std(0) + 1e-2 * np.trace(covariance))
        assert np.all(abs(outer.mean(0) - covariance) <= slack * outer.std(0) + 1e-2 * np.trace(covariance))
    else:
        assert not diffusion.any()
        run = md.simulate(flow, given, 1, save_every=1)
        BITS(run.w[0, 0], w[: flow.dim])
        if size == flow.dim:
            middle = run.w[0].mean(0)  # the midpoint rule is right to third order in lr
            change, slack = run.w[0, 1] - run.w[0, 0], 1e-3 * lr * abs(drift).max()
            np.testing.assert_allclose(change, lr * flow.drift(middle), rtol=1e-2, atol=slack)

    # in words
    text, latex = flow.describe(), flow.describe(latex=True)
    assert repr(flow.map.rule) in text and flow.reference in text and "$" not in text
    assert latex.count("$") >= 2 and latex.count("$") % 2 == 0
    valid = next(line for line in flow.describe(w=w).splitlines() if line.startswith("valid: "))
    assert np.isnan(flow.validity(w)) or valid.endswith(f" it is {flow.validity(w):.3g}")
    assert repr(flow) == f"{type(flow).__name__}({flow.map!r})"
    assert flow._repr_markdown_()

    # errors
    with pytest.raises(md.InputError, match="expected"):
        flow.drift(np.zeros(size + 1))
    with pytest.raises(md.InputError, match="is the flow of a map"):
        type(flow)(flow.map.loss)


def stated_covariance(system: md.Map, w) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a flow is told about the noise at `w`: Σ (D, D), its diagonal (D,), the slopes of that (D, D)."""
    w, loss = np.asarray(w, float), system.loss
    src = Source("covariance")
    names = ["grad", "sample_grad"] + (["model_grad"] if loss.model is not None else [])
    src.line(f"from {loss.kernels.__name__} import {', '.join(names)}")
    system.bound.add_covariance(src)
    module, numbers = src.load(), (loss.c, loss.rows, system.bound.numbers)
    sigma, diagonal, slopes = np.full((len(w), len(w)), np.nan), np.full(len(w), np.nan), []
    pointer(module, "sigma")(w, *numbers, sigma)
    pointer(module, "noise_q")(w, *numbers, diagonal)
    for unit in np.eye(len(w)):
        slopes.append(np.full(len(w), np.nan))
        pointer(module, "noise_dq")(w, unit, *numbers, slopes[-1])
    return sigma, diagonal, np.stack(slopes, axis=1)
