"""What every map, every noise and every flow must satisfy, whatever its rule, its noise or its theory.

`check_map`, `check_noise` and `check_flow` are the tests of a new rule, noise or flow: a call each. `check_known_rule`
and its siblings find what is declared by its name: a new one is looked at as soon as its file is there. `noises` makes
examples of a noise, of the options that it declares.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from inspect import signature
from itertools import product
from typing import Any

import numpy as np
import problems as pb
import pytest
import sympy as sp

import minidyn as md
from minidyn.files.models import model_of_text
from minidyn.flows import FLOWS
from minidyn.kernels import Source, pointer
from minidyn.maps.noise import NOISES, REQUIRED
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
    for system in (md.Map(PLAIN, md.GD(0.01)), md.Map(TESTED, md.GD(0.01), md.Minibatch(2))):
        try:
            watch = observables.resolve(system, name)[name]
            values = watch(w)
        except md.InputError:  # one that needs samples
            if system.noise is not None:
                raise
            continue
        assert values.shape == (65,) and np.isfinite(values).all() and observables.NAMES[name][0]
        np.testing.assert_allclose(
            [watch(w[i : i + 1])[0] for i in (0, 31, 64)], values[[0, 31, 64]], rtol=1e-12, atol=0
        )
        assert np.isnan(watch(np.array([[np.nan, 0.0], [0.3, 0.4]]))).tolist() == [True, False]
        run = md.simulate(system, w[0], 3, save_every=1, observe=name)
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
    assert system._repr_html_().count("$") >= 4
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
    text, latex = flow._describe(False), flow.describe(latex=True)
    folded = flow.describe()
    assert "".join(folded.split()) == "".join(text.split()) and max(map(len, folded.split("\n"))) <= 80
    assert repr(flow.map.rule) in text and flow.reference in text and "$" not in text
    assert latex.count("$") >= 2 and latex.count("$") % 2 == 0
    valid = next(line for line in flow._describe(False, w).splitlines() if line.startswith("valid: "))
    assert np.isnan(flow.validity(w)) or valid.endswith(f" it is {flow.validity(w):.3g}")
    assert repr(flow) == f"{type(flow).__name__}({flow.map!r})"
    assert flow._repr_html_()

    # errors
    with pytest.raises(md.InputError, match="expected"):
        flow.drift(np.zeros(size + 1))
    with pytest.raises(md.InputError, match="is the flow of a map"):
        type(flow)(flow.map.loss)


def noises(key: str) -> Iterator[tuple[str, md.Noise, dict[str, Any]]]:
    """Examples of a noise in two parameters, in a few words, made of the options that it declares, with those."""
    x, y = PARAMS
    values = {
        "expressions": [0.3, [0.3, 0.1], [[0.3, 0.0, 0.1], [0.1, 0.2, 0.0]], [0.2 + x**2 / 9, x * y]],
        "batch": [2],
        "number": [0.4],
        "flag": [False, True],
    }
    options = NOISES[key].options
    several = [
        [*([] if o.default is REQUIRED else [o.default]), *(o.choices or values[o.kind])] for o in options.values()
    ]
    for chosen in product(*(dict(zip(map(str, v), v, strict=True)).values() for v in several)):
        given = dict(zip(options, chosen, strict=True))
        yield f"{key}, {', '.join(map(str, chosen))}", NOISES[key].from_options(**given), given


PARAMS = sp.symbols("x y")
POINT = np.array([0.5, 0.8])
PATHS = 40_000


def losses() -> dict[str, md.Loss]:
    """Losses in two parameters by what a noise may need of them; none of the samples is fitted at `POINT`."""
    (x, y), u = PARAMS, sp.Symbol("u")
    inputs, target = [-1.0, -0.2, 0.5, 1.1, 2.0], [0.3, 0.0, 0.4, 0.5, 1.2]
    squares = md.Loss.regression(x * sp.tanh(y * u), [x, y], {u: inputs}, target)
    return {"": md.Loss((1 + x**2) * (y - sp.cos(x)) ** 2 / 2, [x, y]), "samples": squares, "regression": squares}


def check_noise(noise: md.Noise, loss: md.Loss) -> None:
    """The interface of a noise, on a loss in two parameters; what it draws is what it states."""
    w, system = POINT, md.Map(loss, md.GD(0.1), noise)
    (part, *rest), bound = noise.parts, system.bound

    # a value: it travels, compares, prints, and adds to noises of other kinds only
    for same in (pickle.loads(pickle.dumps(noise)), copy.deepcopy(noise)):
        assert same == noise and hash(same) == hash(noise) and repr(same) == repr(noise)
    assert repr(noise) and " object at " not in repr(noise)
    with pytest.raises(md.InputError, match=f"both set {part.sets}"):
        noise + part
    other = md.Minibatch(2) if part.sets == "sigma" else md.GaussianNoise(0.1)
    assert noise + other == other + noise != noise and len((noise + other).parts) == 2 + len(rest)

    # a map with it is a map, and many paths are few paths
    check_map(system, w)

    # without a covariance or a linear response it says so; else they are those of what it draws
    reasons = [
        next((getattr(p, what) for p in noise.parts if getattr(p, what)), "")
        for what in ("no_covariance", "no_response")
    ]
    for reason, ask in zip(
        reasons, (lambda: md.QuasistaticFlow(system), lambda: bound.linear_response(w)), strict=True
    ):
        if reason:
            with pytest.raises(md.FlowError) as error:
                ask()
            assert str(error.value) == reason
    if not reasons[0]:
        _check_covariance(system, w)
    if not any(reasons):
        _check_response(system, w)


def _check_covariance(system: md.Map, w) -> None:
    """Mean, second, third and fourth moments of draws, in five standard errors; the slopes; the symbolic form."""
    loss, bound = system.loss, system.bound
    sigma, diagonal, slopes = stated_covariance(system, w)
    np.testing.assert_allclose(diagonal, np.diag(sigma), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(bound.variance(w), diagonal, rtol=1e-12, atol=1e-16)
    away = [
        (stated_covariance(system, w + h)[1] - stated_covariance(system, w - h)[1]) / 2e-5 for h in 1e-5 * np.eye(2)
    ]
    np.testing.assert_allclose(slopes, np.stack(away, axis=1), atol=1e-8, rtol=0)
    np.testing.assert_allclose(symbolic_covariance(system, w), sigma, rtol=1e-9, atol=1e-12)

    xi = (w - 0.1 * loss.grad(w) - system.step(np.tile(w, (PATHS, 1)), rng=21)) / 0.1
    third, fourth = moments(system, w)
    square = xi**2 - np.diag(sigma)
    for found, stated in (
        (xi, np.zeros(2)),
        (xi[:, :, None] * xi[:, None], sigma),
        (xi[:, :, None] * xi[:, None] ** 2, third),
        (square[:, :, None] * square[:, None], fourth),
    ):
        error = found.std(0) / np.sqrt(PATHS)
        assert (abs(found.mean(0) - stated) <= 5 * error + 1e-12).all()
    assert bound.gaussian <= (abs(fourth - 2 * sigma**2).max() <= 1e-12)

    flow = md.StochasticModifiedFlow(system)
    spread = flow.diffusion(w)
    np.testing.assert_allclose(spread @ spread.T, 0.1 * sigma, rtol=1e-9, atol=1e-14)


def _check_response(system: md.Map, w) -> None:
    """What a displacement u makes of the covariance: the kernel's two parts, those that stability is told of."""
    loss, bound, u, size = system.loss, system.bound, np.array([0.3, -0.7]), 2
    first, second, labels = _with_covariance(system, "noise_bend", w, u, 1.0, np.zeros((3, size, size)))
    told = bound.linear_response(w)
    expected = np.zeros((size, size))
    if told.slopes is not None:
        expected += sum(np.outer(s @ u, s @ u) for s in told.slopes)
    if told.kappa > 0:
        bent = loss.sample_hvps(w, u[None])[:, 0]
        expected += told.kappa * np.cov(bent.T, bias=True)
    np.testing.assert_allclose(first, expected, rtol=1e-9, atol=1e-12)
    if told.label > 0:
        bent = (loss.jacobian(w + 1e-5 * u) - loss.jacobian(w - 1e-5 * u)) / 2e-5
        bent = (bent.T * loss.shares).reshape(size, -1)
        np.testing.assert_allclose(labels, told.label * bent @ bent.T / len(loss.shares), rtol=1e-5, atol=1e-12)
    else:
        here, *beside = (stated_covariance(system, w + h * u)[0] for h in (0.0, 1e-3, -1e-3))
        np.testing.assert_allclose(first + second, (sum(beside) - 2 * here) / 2e-6, rtol=1e-4, atol=1e-6)


def check_named(key: str, options: dict[str, Any], noise: md.Noise) -> None:
    """A model file that names a noise and its options means this noise."""
    kind = "regression" if NOISES[key].needs else "expression"
    inputs = {
        "regression": 'model = "x*u + y"\ninputs = {u = [1, 2, 3]}\ntarget = [1, 2, 4]',
        "expression": 'expr = "(1 + x**2)*y**2"',
    }[kind]
    lines = "\n".join(f"{name} = {_toml(v)}" for name, v in options.items() if v is not None)
    text = (
        f'[loss]\nkind = "{kind}"\nparams = ["x", "y"]\n{inputs}\n[rule]\nname = "GD"\nlr = 0.1\n'
        f'[[noise]]\nkind = "{key}"\n{lines}\n[experiment]\nw0 = [1, 0]\nsteps = 1\n'
    )
    named = model_of_text(text, "mine").map.noise
    assert repr(named) == repr(noise) and type(named) is type(noise)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (str, sp.Basic)):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _with_covariance(system: md.Map, kernel: str, *args: Any) -> np.ndarray:
    """A kernel of the covariance's module, called: `args` are its inputs, its outputs last."""
    loss, src = system.loss, Source("covariance")
    system.bound.add_covariance(src)
    system.bound.add_moments(src)
    *inputs, out = args
    outputs = [out] if kernel in ("sigma", "noise_q", "noise_dq") else out
    pointer(src.load(), kernel)(*inputs, loss.c, loss.rows, system.bound.numbers, *outputs)
    return out


def moments(system: md.Map, w) -> np.ndarray:
    """`E xi_i xi_j^2` and `Cov(xi_i^2, xi_j^2)` as flows are told them, (2, D, D)."""
    return _with_covariance(system, "noise_moments", np.asarray(w, float), np.full((2, len(w), len(w)), np.nan))


class Symbols:
    """A loss in its own symbols, as a closed form would ask its noise for a covariance."""

    def __init__(self, loss: md.Loss):
        self.loss, self.values = loss, dict(loss.constants)
        self.gradient = sp.Add(*(self.slopes(e) for e in self.on_samples(loss.expr))) / (loss.n_samples or 1)

    def on_samples(self, e):
        rows = range(self.loss.n_samples or 1)
        entries = [
            (s, v) if v.ndim == 1 else (s[k], v[:, k]) for s, v in self.loss.data.items() for k in range(v[0].size)
        ]
        return [sp.sympify(e).doit().subs({s: sp.Float(v[i]) for s, v in entries}) for i in rows]

    def slopes(self, e):
        return sp.Matrix([sp.diff(e, p) for p in self.loss.params])

    def renamed(self, e):
        return e

    def exact(self, value):
        return sp.Float(value)

    def symbol(self, name, value):
        made = sp.Dummy(name)
        self.values[made] = value
        return made


def symbolic_covariance(system: md.Map, w) -> np.ndarray:
    """The weighted columns that closed forms are told of, at w, (D, D)."""
    symbols = Symbols(system.loss)
    columns, factor = system.bound.symbolic_covariance(symbols)
    at = symbols.values | dict(zip(system.loss.params, w, strict=True))
    whole = sum((weight * c * c.T for weight, c, _ in columns), sp.zeros(len(w), len(w)))
    assert (factor is not None) == system.bound.couples
    assert factor is None or sp.simplify(factor * factor.T - whole).is_zero_matrix
    return np.array(whole.subs(at), float)


def stated_covariance(system: md.Map, w) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a flow is told about the noise at `w`: Σ (D, D), its diagonal (D,), the slopes of that (D, D)."""
    w = np.asarray(w, float)
    empty, units = np.full(len(w), np.nan), np.eye(len(w))
    slopes = [_with_covariance(system, "noise_dq", w, unit, empty.copy()) for unit in units]
    sigma = _with_covariance(system, "sigma", w, np.full((len(w), len(w)), np.nan))
    return sigma, _with_covariance(system, "noise_q", w, empty), np.stack(slopes, axis=1)
