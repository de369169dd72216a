"""Calls that a loop over settings repeats: nothing symbolic is done again at other rates, noises and constants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import conformance as law
import numpy as np
import pytest
import sympy as sp
from sympy.core.basic import Basic

import minidyn as md
from minidyn.common import locks
from minidyn.flows import FLOWS
from minidyn.graph import Converter, Graph
from minidyn.kernels import Source
from minidyn.maps.noise import NOISES
from minidyn.maps.rules import LIBRARY

x, y, s, c, k = sp.symbols("x y s c k")
VALLEY = md.Loss(c * (1 + x**2) * y**2 / 2, [x, y], constants={c: 1.5})
LEANING = md.Loss(c * (1 + x**2) * sp.log(sp.cosh(y)), [x, y], constants={c: 1.5})
FLOOR = md.Manifold(VALLEY, chart={x: s, y: 0}, coordinates=[s])
RATE = 0.02 / sp.sqrt(k)
NOISY, NONE = "noisy", "none"
ABSENT = md.FlowError, md.ManifoldError, md.InputError


@md.rule
def own(theta, g, m, v, *, lr, beta=0.8, kind="heavy", k):
    """A rule of one's own: a mean, a sum of squares, a correction, a choice."""
    m = beta * m + (1 - beta) * g
    v = v + (g**2 - v) / 10
    return theta - lr * (m / (1 - beta**k) if kind == "heavy" else g) / sp.sqrt(v + sp.Rational(1, 10)), m, v


RULES = {
    **{name: lambda lr, name=name: law.known_rule(name).with_hyper(lr=lr) for name in LIBRARY},
    "heavy ball": lambda lr: md.SGD(lr, 0.5),
    "own": lambda lr: own(lr),
    "own, a choice": lambda lr: own(lr, kind="plain"),
    "scheduled": lambda lr: md.SGD(RATE, 10 * lr),
}


SIGNS = ("SignGD", "Lion")


@contextmanager
def nothing_symbolic() -> Iterator[None]:
    """Whoever builds, differentiates, replaces or prints an expression, a graph or a text of kernels is refused."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something symbolic is done again")

    places = [
        (Basic, n) for n in ("__new__", "xreplace", "subs", "diff", "atoms", "__str__", "__repr__", "free_symbols")
    ]
    places += [(sp, "diff"), (sp, "lambdify"), (sp, "simplify"), (sp, "solve"), (sp, "Matrix")]
    places += [(Converter, "__call__"), (Graph, "__init__"), (Source, "__init__"), (Source, "add"), (Source, "text")]
    before = [(owner, name, vars(owner)[name]) for owner, name in places if name in vars(owner)]
    try:
        for owner, name, _ in before:
            setattr(owner, name, property(refuse) if name in ("free_symbols", "text") else refuse)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def repeated(call: Any) -> None:
    """The call at a third setting does nothing symbolic: `call(t)` has numbers of its own for t = 0, 1, 2."""
    call(0), call(1)
    with nothing_symbolic():
        call(2)


def valley(t: int, loss: md.Loss = VALLEY) -> md.Loss:
    """The loss with a constant of its own."""
    return loss.with_constants({c: 1.5 + 0.1 * t})


def system(t: int, rule: str = "SGD", noise: Any = NOISY, loss: md.Loss = VALLEY) -> md.Map:
    """A map with numbers of its own."""
    sized = md.GaussianNoise(0.3 + 0.01 * t) if noise is NOISY else noise
    return md.Map(valley(t, loss), RULES[rule](0.02 + 0.001 * t), None if sized is NONE else sized)


# -- losses and maps --


def test_evaluations_of_a_loss_do_nothing_symbolic():
    """Values and all derivatives, of one point and of many, with and without samples."""
    calls = {"value": 1, "grad": 1, "hessian": 1, "hvp": 2, "third": 3}
    samples = {"sample_grads": 1, "model_values": 1, "jacobian": 1, "gauss_newton": 1}
    w = np.array([[0.5, 0.2], [0.1, 0.3]])

    def call(t: int) -> None:
        for loss, names in ((valley(t), calls), (law.DATA.with_data({law.u: np.arange(5.0) + t}), calls | samples)):
            for name, points in names.items():
                for at in (w[0] + t, w + t, (w[0] + t).tolist()):
                    getattr(loss, name)(*[at] * points)
        md.flatness(valley(t), [1.0, 0.0])
        md.flatness(law.DATA, [0.5, 0.2 + t])

    repeated(call)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("noise", [NOISY, NONE])
def test_steps_and_runs_of_a_map_do_nothing_symbolic(rule, noise):
    """`step`, with noise and without, and `simulate` with observables at another learning rate, noise and constant."""

    def call(t: int) -> None:
        m = system(t, rule, noise)
        m.step([1.0, 0.5], rng=t)
        m.step([1.0, 0.5], noise=False)
        changed = m if m.rule.scheduled else m.with_lr(0.03 + 0.001 * t)
        changed.step([[1.0, 0.5]] * 5, k=3)
        run = md.simulate(changed, [1.0, 0.5], 6, paths=3, rng=t, observe=["sharpness", x**2 + c])
        assert run.w.shape[-1] == 2

    repeated(call)


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_is_redone_in_numbers_alone(name):
    """A step with each noise, made anew for every setting."""
    loss, examples = law.losses()[NOISES[name].needs], list(law.noises(name))
    assert examples
    for _, noise, _ in examples:
        repeated(lambda t, noise=noise: md.Map(loss, md.SGD(0.02 + 0.001 * t), noise).step([0.5, 0.8], rng=t))


# -- flows --


@pytest.mark.parametrize("key", FLOWS)
def test_flows_at_other_settings_do_nothing_symbolic(key):
    """Built anew at another learning rate, noise and constant: `start`, `drift`, `diffusion`, a run; of every rule."""
    found = 0
    for rule in RULES:
        for noise, loss, w in ((NOISY, VALLEY, [1.2, 0.01]), (NONE, LEANING, [1.2, 0.1]), (NOISY, LEANING, [1.2, 0.1])):

            def call(t: int, rule: str = rule, noise: Any = noise, loss: md.Loss = loss, w: Any = w) -> None:
                flow = FLOWS[key](system(t, rule, noise, loss))
                at = flow.start(w)
                flow.drift(at)
                flow.diffusion(at)
                flow.of(system(t + 1, rule, noise, loss)).drift(at)
                if rule not in SIGNS:  # flows of signs turn at every step
                    md.simulate(flow, w, 3, rng=t)

            try:
                repeated(call)
            except ABSENT:
                continue
            found += 1
    assert found


@pytest.mark.parametrize("rule", ["SGD", "heavy ball", "RMSProp"])
def test_closed_forms_at_other_rates_do_nothing_symbolic(rule):
    """The derivation in the coordinates of a chart, which takes longest, is made once for all learning rates."""

    def call(t: int) -> None:
        m = md.Map(VALLEY, RULES[rule](0.02 + 0.001 * t), md.GaussianNoise(0.3))
        flow = md.QuasistaticFlow(m, FLOOR).closed_form()
        flow.drift(flow.start([1.2, 0.0]))

    repeated(call)


def test_a_flow_of_ones_own_is_read_once():
    """`of`, and evaluations, of a symbolic flow."""
    flow = md.SymbolicFlow(system(0), [-x, -y], [sp.sqrt(x**2 + 1), 0.1])

    def call(t: int) -> None:
        other = flow.of(system(t))
        other.drift([1.0, 0.2 + t])
        md.simulate(other, [1.0, 0.2], 3, rng=t)

    repeated(call)


@pytest.mark.parametrize("rule", RULES)
def test_theory_of_minima_at_other_settings_does_nothing_symbolic(rule):
    """`fixed_point`, `linearize` and `stability` of every rule for which they exist."""

    asked = {
        "fixed_point": lambda m: m.fixed_point([1.0, 0.0]),
        "linearize": lambda m: m.linearize([1.0, 0.0]),
        "stability": lambda m: md.stability(m, [1.0, 0.0]),
    }
    for ask in asked.values():
        try:
            ask(system(0, rule))
        except ABSENT:  # what does not exist for a rule is refused anew
            continue
        repeated(lambda t, ask=ask: ask(system(t, rule)))


def test_comparisons_do_nothing_symbolic():
    """`compare` of a map with flows, at another learning rate, noise and constant."""

    def call(t: int) -> None:
        m = system(t)
        md.compare(m, md.GradientFlow(m), md.QuasistaticFlow(m), w0=[1.0, 0.0], steps=10, paths=3, rng=t)

    repeated(call)


# -- what is shared is right --


def texts(t: int, key: str, rule: str, noise: Any, loss: md.Loss) -> list[str]:
    """The texts of all kernels of a flow, its map and its loss."""
    flow = FLOWS[key](system(t, rule, noise, loss))
    return [flow.source.text, flow.map.source.text, flow.loss.source.text]


@pytest.mark.parametrize("key", FLOWS)
def test_shared_texts_are_those_that_each_setting_has_alone(key, monkeypatch):
    """No number of a setting stands in a text: derived alone it is the same as that of another setting."""
    found = 0
    for rule in RULES:
        for noise, loss in ((NOISY, VALLEY), (NONE, LEANING)):
            try:
                first = texts(0, key, rule, noise, loss)
            except ABSENT:
                continue
            shared = texts(3, key, rule, noise, loss)
            monkeypatch.setattr(locks, "_shared", {})
            alone = texts(3, key, rule, noise, loss)
            assert first == shared == alone
            found += 1
    assert found


@pytest.mark.parametrize("name", NOISES)
def test_noises_of_one_form_have_one_text(name, monkeypatch):
    """Noises whose forms are equal have the same kernels when each is derived alone, whatever their numbers."""
    by_form: dict[Any, set[str]] = {}
    loss = law.losses()[NOISES[name].needs]
    for _, noise, _ in law.noises(name):
        monkeypatch.setattr(locks, "_shared", {})
        m = md.Map(loss, md.SGD(0.1), noise)
        by_form.setdefault(m.form, set()).add(m.source.text)
    assert by_form and all(len(found) == 1 for found in by_form.values())


def test_what_differs_in_more_than_numbers_is_not_shared():
    """Other expressions, shapes, rules, schedules, structures, batches and laws have forms of their own."""
    base = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.1))
    other = [
        md.Map(md.Loss(VALLEY.expr + x, [x, y], constants={c: 1.0}), md.SGD(0.1), md.GaussianNoise(0.1)),
        md.Map(md.Loss(VALLEY.expr, [y, x], constants={c: 1.0}), md.SGD(0.1), md.GaussianNoise(0.1)),
        md.Map(VALLEY, md.SGD(0.1, 0.5), md.GaussianNoise(0.1)),
        md.Map(VALLEY, md.SGD(0.1 / k), md.GaussianNoise(0.1)),
        md.Map(VALLEY, md.SGD(0.2 / k), md.GaussianNoise(0.1)),
        md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise([0.1, 0.1])),
        md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise([0.1, x])),
        md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise([x, 0.1])),
        md.Map(VALLEY, md.SGD(0.1), md.StudentNoise(5.0, 0.1)),
        md.Map(VALLEY, md.SGD(0.1), md.StudentNoise(6.0, 0.1)),
        md.Map(VALLEY, md.SGD(0.1)),
        md.Map(VALLEY, own(0.1), md.GaussianNoise(0.1)),
        md.Map(VALLEY, own(0.1, kind="plain"), md.GaussianNoise(0.1)),
        md.Map(law.DATA, md.SGD(0.1), md.Minibatch(2)),
        md.Map(law.DATA, md.SGD(0.1), md.Minibatch(3)),
    ]
    forms = [m.form for m in (base, *other)]
    assert len(set(forms)) == len(forms)
    assert md.Map(valley(2), md.SGD(0.3), md.GaussianNoise(0.7)).form == base.form


def test_corrections_that_do_not_die_out_have_a_form_of_their_own():
    """Whether a power of k dies out depends on a number, and the averaged rule on that."""

    @md.rule
    def growing(theta, g, *, lr, rate=0.5, k):
        return theta - lr * g * (1 + rate**k)

    forms = [growing(0.1, rate=rate).form for rate in (0.5, 0.7, 1.5)]
    assert forms[0] == forms[1] != forms[2]
