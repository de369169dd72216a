"""Every rule with every noise is a map, and every flow is a flow, as `conformance.py` says."""

from __future__ import annotations

import numpy as np
import problems as pb
import pytest
import sympy as sp
from conformance import (
    DATA,
    PLAIN,
    VALLEY,
    check_flow,
    check_known_flow,
    check_known_model,
    check_known_observable,
    check_known_rule,
    check_map,
    check_named,
    check_noise,
    losses,
    noises,
)

import minidyn as md
from minidyn import flows
from minidyn.files.models import model_of_text
from minidyn.maps.noise import NOISES as KINDS
from minidyn.maps.rules import LIBRARY
from minidyn.simulate import observables

k, a, b, u = sp.symbols("k a b u")
RULES = {
    "GD": md.GD(0.1),
    "momentum": md.SGD(0.05, momentum=0.8),
    "nesterov": md.SGD(0.05, momentum=0.8, nesterov=True),
    "SignGD": md.SignGD(0.02),
    "Lion": md.Lion(0.02),
    "RMSProp": md.RMSProp(0.02),
    "Adam": md.Adam(0.02),
    "AdamW": md.AdamW(0.02, weight_decay=0.1),
    "schedule": md.GD(1 / (k + 9)),
}
NOISES = {
    "none": (PLAIN, None),
    "gaussian": (PLAIN, md.GaussianNoise([[0.3, 0.0, 0.1], [0.1, 0.2, 0.0]])),
    "minibatch": (DATA, md.Minibatch(2)),
    "replacement": (DATA, md.Minibatch(2, replace=True)),
    "reshuffle": (DATA, md.Reshuffle(2)),
    "label": (DATA, md.LabelNoise(0.1)),
    "sum": (DATA, md.LabelNoise(0.1, batch=2, kind="rademacher") + md.GaussianNoise(0.1)),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rule", RULES)
def test_map(rule, noise):
    """A rule with a noise satisfies all that a map must."""
    loss, model = NOISES[noise]
    check_map(md.Map(loss, RULES[rule], model), [0.5, 0.8])


@pytest.mark.parametrize("name, key", [(name, key) for key in KINDS for name, _, _ in noises(key)])
def test_noise(name, key):
    """Every noise that there is satisfies, with every kind of its options, all that a noise must."""
    noise, options = next((noise, options) for n, noise, options in noises(key) if n == name)
    check_noise(noise, losses()[KINDS[key].needs])
    check_named(key, options, noise)


def test_map_of_many_parameters():
    """A loss with vector parameters and sums over units satisfies all that a map must."""
    v, w, j = md.vector("v", 9), md.vector("w", 9), sp.Symbol("j", integer=True)
    model = sp.Sum(v[j] * sp.tanh(w[j] * u), (j, 0, 8))
    loss = md.Loss.regression(model, [v, w], {u: np.linspace(-1, 1, 4)}, [0.0, 1.0, 0.5, 0.2])
    noise = md.Minibatch(3) + md.GaussianNoise(np.linspace(0, 1, 18))
    check_map(md.Map(loss, md.Adam(0.01), noise), np.linspace(-1, 1, 18))


PRODUCT = md.Loss.regression(a * b, [a, b], inputs={}, target=[1.0])
X, Y = pb.valley().params


class Bent(md.SymbolicFlow):
    """A symbolic flow without noise."""

    def __init__(self, system):
        super().__init__(system, [-X + sp.sin(Y), -X * Y])


class Shaken(md.SymbolicFlow):
    """A symbolic flow with general noise."""

    def __init__(self, system):
        super().__init__(system, [-X / 20, -X * Y / 20], [[Y / 4, 0.1], [0.2, X / 5]])


HEAVY_BALL = md.Map(PLAIN, md.SGD(0.01, momentum=0.5), md.GaussianNoise(0.1))
FLOWS = {
    "gradient": (md.GradientFlow, md.Map(PLAIN, md.GD(0.01)), [1.0, 0.3]),
    "gradient, momentum": (md.GradientFlow, HEAVY_BALL, [1.0, 0.3]),
    "modified": (md.ModifiedFlow, md.Map(PLAIN, md.Adam(0.002, beta1=0.5, beta2=0.8, eps=0.1)), [1.0, 0.3]),
    "modified equation": (md.StochasticModifiedFlow, md.Map(PLAIN, md.SGD(0.01), md.GaussianNoise(0.1)), [1.0, 0.3]),
    "modified equation, states": (md.StochasticModifiedFlow, md.Map(DATA, md.Adam(0.02), md.Minibatch(2)), [0.5, 0.8]),
    "quasistatic, SDE": (md.QuasistaticFlow, md.Map(VALLEY, md.SGD(0.02), md.GaussianNoise(0.3)), [1.3, 0.01]),
    "quasistatic, ODE": (md.QuasistaticFlow, md.Map(PRODUCT, md.Adam(0.01), md.LabelNoise(0.3)), [2.0, 0.5]),
    "quasistatic, Lion": (md.QuasistaticFlow, md.Map(VALLEY, md.Lion(0.001), md.GaussianNoise(0.3)), [1.3, 0.0]),
    "rod": (md.RodFlow, md.Map(PLAIN, md.Adam(0.01)), [1.0, 0.3]),
    "noisy rod": (
        lambda m: md.NoisyRodFlow(m, slow=1),
        md.Map(PLAIN, md.SGD(0.05, momentum=0.5), md.GaussianNoise(0.1)),
        [1.0, 0.3],
    ),
    "noisy rod, batches": (
        lambda m: md.NoisyRodFlow(m, slow=1),
        md.Map(DATA, md.GD(0.05), md.Minibatch(2)),
        [0.5, 0.8],
    ),
    "subquadratic": (md.SubquadraticFlow, md.Map(PLAIN, md.SGD(0.05, momentum=0.5)), [1.0, 0.3]),
    "central": (md.CentralFlow, md.Map(PLAIN, md.GD(0.05)), [1.0, 0.3]),
    "central, RMSProp": (md.CentralFlow, md.Map(PLAIN, md.RMSProp(0.01)), [1.0, 0.3]),
    "symbolic, ODE": (Bent, md.Map(VALLEY, md.GD(0.02)), [1.3, 0.4]),
    "symbolic, SDE": (Shaken, md.Map(VALLEY, md.GD(0.02)), [1.3, 0.4]),
    "quasistatic, signs": (md.QuasistaticFlow, md.Map(VALLEY, md.SignGD(0.01), md.GaussianNoise(0.3)), [1.3, 0.0]),
}


@pytest.mark.parametrize("name", FLOWS)
def test_flow(name):
    """A flow of a map satisfies all that a flow must."""
    flow, system, w = FLOWS[name]
    check_flow(flow(system), w)


@pytest.mark.parametrize(
    "check, name",
    [
        *((check_known_flow, key) for key in flows.FLOWS),
        *((check_known_rule, name) for name in LIBRARY),
        *((check_known_observable, name) for name in observables.NAMES),
        *((check_known_model, name) for name in md.list_models()),
    ],
)
def test_whatever_is_declared(check, name):
    """What a registry holds, or the folder of models, satisfies all that its kind must, whoever put it there."""
    check(name)


def test_a_new_flow_is_known_where_it_is_written():
    """A subclass with a key, its orders and no other line anywhere can be named in a model file and is what runs."""
    text = md.load_model("valley").text

    def naming(*names):
        return model_of_text(text.replace('["quasistatic"]', str([*names]).replace("'", '"')), "mine").flows()

    class Leaning(md.SymbolicFlow):
        key, orders = "leaning", (1, 2)

        def __init__(self, system, order=1):
            self.order = order
            super().__init__(system, [-p for p in system.loss.params])

    try:
        assert [(type(f), f.order) for f in naming("leaning", "leaning 2")] == [(Leaning, 1), (Leaning, 2)]
        with pytest.raises(md.ModelFileError, match=r"names among .*, leaning, .*, leaning 1, leaning 2\."):
            naming("leaning 3")
    finally:
        del flows.FLOWS["leaning"]
    with pytest.raises(md.ModelFileError, match="names among"):
        naming("leaning")


def test_gradient_flow_reads_scheduled_momentum():
    """With lr and momentum given as schedules, the flow's speed per step is lr(k) / (1 - momentum(k))."""
    loss = md.Loss(2 * a**2, [a])
    flow = md.GradientFlow(md.Map(loss, md.SGD(0.1 / k, momentum=1 - 0.5 / k)))
    assert flow.drift([2.0], k=4)[0] == pytest.approx(-8.0 / 0.125, rel=1e-12)
