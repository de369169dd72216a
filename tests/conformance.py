"""What every map and every flow must satisfy, whatever its rule, its noise or its theory.

`check_map` and `check_flow` are the tests of a new rule, noise or flow: one call each. `check_known_flow` and its
siblings find what is declared by its name: a new one is looked at as soon as its file is there.
"""

from __future__ import annotations

from inspect import signature

import numpy as np
import problems as pb
import pytest
import sympy as sp

import minidyn as md
from minidyn.flows import FLOWS
from minidyn.kernels import Source, pointer
from minidyn.maps.rules import LIBRARY
from minidyn.simulate import observables

BITS = np.testing.assert_array_equal
PLAIN = md.Loss(pb.curved_valley().expr, pb.curved_valley().params)
VALLEY = md.Loss(pb.valley().expr, pb.valley().params)
a, b, u = sp.symbols("a b u")
# five samples and no fit: the sample gradients differ, at the minimum too
DATA = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5) ** 2)
TESTED = DATA.hold_out({u: [0.3, 1.1]}, [0.2, 0.9])
PLACES = [  # maps, and points where some flow of each exists
    (md.Map(PLAIN, md.GD(0.01)), [1.0, 0.3]),
    (md.Map(PLAIN, md.SGD(0.01), md.GaussianNoise(0.1)), [1.0, 0.3]),
    (md.Map(VALLEY, md.SGD(0.02), md.GaussianNoise(0.3)), [1.3, 0.01]),
]


def check_known_flow(key: str) -> None:
    """The flow that model files call `key`, on the first of a few maps that it is a flow of."""
    for system, w in PLACES:
        try:
            flow = FLOWS[key](system)
            flow.drift(flow.start(np.asarray(w)))
        except (md.FlowError, md.ManifoldError):
            continue
        assert flow.driven <= (system.noise is not None)
        return check_flow(flow, w)
    raise AssertionError(f"{key} exists on none of {PLACES}")


def known_rule(name: str) -> md.Rule:
    """The rule that model files call `name`, with a small learning rate and 0.5 for what has no default."""
    needed = [n for n, p in signature(LIBRARY[name]).parameters.items() if p.default is p.empty]
    return LIBRARY[name](**dict.fromkeys(needed, 0.5) | {"lr": 0.02})


def check_known_rule(name: str) -> None:
    """The rule that model files call `name`, without noise and with."""
    for noise in (None, md.GaussianNoise(0.2), md.Minibatch(2)):
        check_map(md.Map(DATA, known_rule(name), noise), [0.5, 0.8])


def check_known_observable(name: str) -> None:
    """The observable called `name`: one number per point, whatever points stand beside it, and in a run."""
    w = 0.3 + 0.2 * np.random.default_rng(0).normal(size=(65, 2))
    for loss in (PLAIN, TESTED):
        try:
            watch = observables.resolve(loss, name)[name]
            values = watch(w)
        except md.InputError:  # one that needs samples
            if loss is TESTED:
                raise
            continue
        assert values.shape == (65,) and np.isfinite(values).all() and observables.NAMES[name][0]
        np.testing.assert_allclose(
            [watch(w[i : i + 1])[0] for i in (0, 31, 64)], values[[0, 31, 64]], rtol=1e-12, atol=0
        )
        assert np.isnan(watch(np.array([[np.nan, 0.0], [0.3, 0.4]]))).tolist() == [True, False]
        run = md.simulate(md.Map(loss, md.GD(0.01)), w[0], 3, save_every=1, observe=name)
        np.testing.assert_allclose(run.observables[name][0], watch(run.w[0]), rtol=1e-12, atol=0)
        return


def check_known_model(name: str) -> None:
    """The model `name`, or of a path: it says what it is, starts at finite parameters, and its map and flows run."""
    model = md.load_model(name)
    assert model.title and model.text and repr(model) and np.isfinite(model.w0).all()
    assert np.isfinite(md.simulate(model.map, model.w0, 2, paths=2, rng=0).w).all()
    assert len(model.flows()) == len(model.spec.experiment.flows)
    for flow in model.flows(charted=False):
        start = flow.start(model.w0)
        assert start.shape == (flow.size,) and np.isfinite(start).all()


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
