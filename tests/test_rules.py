"""Update rules: step by step against literal twins and against PyTorch, schedules, a user's own rule, errors."""

from __future__ import annotations

from functools import cache

import numpy as np
import problems as pb
import pytest
import sympy as sp
import twins

import minidyn as md
from minidyn.kernels.random import normals, seed_key, seed_lanes

k = sp.Symbol("k")
STEPS, SIGMA, SEED = 1000, 0.3, 11
START = np.array([[1.0, 0.2], [-0.4, 0.9], [2.1, -0.6]])
PROBLEM = pb.curved_valley()
LOSS = md.Loss(PROBLEM.expr, PROBLEM.params)

# name: the rule, its twin, the twin's hyperparameters
CASES = {
    "GD": (md.GD(0.1), "gd", {"lr": 0.1}),
    "SGD": (md.SGD(0.1), "gd", {"lr": 0.1}),
    "momentum": (md.SGD(0.05, 0.9), "heavy_ball", {"lr": 0.05, "beta": 0.9}),
    "Nesterov": (md.SGD(0.05, momentum=0.9, nesterov=True), "nesterov", {"lr": 0.05, "beta": 0.9}),
    "SignGD": (md.SignGD(0.013), "sign_gd", {"lr": 0.013}),
    "Lion": (md.Lion(0.013, beta1=0.8, beta2=0.95), "lion", {"lr": 0.013, "beta1": 0.8, "beta2": 0.95}),
    "RMSProp": (md.RMSProp(0.02, beta2=0.97, eps=1e-3), "rmsprop", {"lr": 0.02, "beta2": 0.97, "eps": 1e-3}),
    "Adam": (md.Adam(0.02, beta1=0.8), "adam", {"lr": 0.02, "beta1": 0.8}),
    "AdamW": (md.AdamW(0.02, weight_decay=0.3), "adamw", {"lr": 0.02, "weight_decay": 0.3}),
}


@cache
def path(name: str, noisy: bool) -> np.ndarray:
    """minidyn's paths (3, STEPS + 1, 2)."""
    noise = md.GaussianNoise(SIGMA) if noisy else None
    return md.simulate(md.Map(LOSS, CASES[name][0], noise), START, STEPS, paths=3, save_every=1, rng=SEED).w


@cache
def recorded() -> np.ndarray:
    """The normals that paths 0, 1, 2 of a run with this seed draw, shape (STEPS, 3, 2)."""
    r, z, out = np.empty(320, np.uint64), np.empty(128), []
    seed_lanes(seed_key(SEED)[1], 0, 2**62, r)
    for _ in range(STEPS):
        normals(r, z, 0, 1)
        out.append(z.reshape(2, 64)[:, :3].T.copy())
    return np.array(out)


def literal(rule: str, hyper, noisy: bool) -> np.ndarray:
    """The twin's paths; a hyperparameter may be a function of the step number."""
    theta, state, saved = START, twins.zero_state(rule, START), [START]
    for step in range(1, STEPS + 1):
        g = PROBLEM.grad(theta) + (SIGMA * recorded()[step - 1] if noisy else 0.0)
        now = {h: v(step) if callable(v) else v for h, v in hyper.items()}
        theta, state = twins.RULES[rule](theta, state, g, step, **now)
        saved.append(theta)
    return np.stack(saved, axis=1)


def same(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    """Equal at every step to a part of the largest parameter, and neither at rest nor diverging."""
    assert np.isfinite(expected).all() and np.ptp(expected[:, :20], axis=1).max() > 1e-2
    np.testing.assert_array_less(abs(got - expected).max() / abs(expected).max(), tolerance)


@pytest.mark.parametrize("noisy", [False, True], ids=["deterministic", "recorded noise"])
@pytest.mark.parametrize("name", CASES)
def test_rule_is_its_literal_twin(name, noisy):
    """Every rule makes the literal twin's 1000 steps to 1e-12, without noise and with the recorded noise."""
    _, twin, hyper = CASES[name]
    same(path(name, noisy), literal(twin, hyper, noisy))


def pytorch(name: str):
    """PyTorch's optimizer of the same rule, on one parameter vector."""
    import torch

    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    make = {
        "SGD": lambda: torch.optim.SGD([w], lr=0.1),
        "momentum": lambda: torch.optim.SGD([w], lr=0.05, momentum=0.9),
        "Nesterov": lambda: torch.optim.SGD([w], lr=0.05, momentum=0.9, nesterov=True),
        "RMSProp": lambda: torch.optim.RMSprop([w], lr=0.02, alpha=0.97, eps=1e-3),
        "Adam": lambda: torch.optim.Adam([w], lr=0.02, betas=(0.8, 0.999)),
        "AdamW": lambda: torch.optim.AdamW([w], lr=0.02, weight_decay=0.3),
    }[name]
    return w, make()


@pytest.mark.parametrize("name", ["SGD", "momentum", "Nesterov", "RMSProp", "Adam", "AdamW"])
@pytest.mark.parametrize("noisy", [False, True], ids=["deterministic", "recorded noise"])
def test_rule_is_pytorchs(name, noisy):
    """A rule makes the 1000 steps of PyTorch's optimizer to 1e-12."""
    torch = pytest.importorskip("torch")
    w, optimizer = pytorch(name)
    w.data = torch.from_numpy(START[0].copy())
    saved = [START[0]]
    for step in range(STEPS):
        g = PROBLEM.grad(w.detach().numpy()) + (SIGMA * recorded()[step, 0] if noisy else 0.0)
        w.grad = torch.from_numpy(g)
        optimizer.step()
        saved.append(w.detach().numpy().copy())
    same(path(name, noisy)[:1], np.array([saved]))


# Schedules ----------

COSINE = 0.1 * (1 + sp.cos(sp.pi * k / 1000))
WARM_UP = sp.Piecewise((k / 100, k < 10), (sp.Rational(1, 10), True))
SCHEDULES = {
    "decay": (md.GD(0.5 / sp.sqrt(k + 4)), "gd", {"lr": lambda k: 0.5 / np.sqrt(k + 4)}),
    "warm-up": (md.Adam(WARM_UP / 5), "adam", {"lr": lambda k: (k / 100 if k < 10 else 0.1) / 5}),
    "momentum": (md.SGD(0.02, momentum=1 - 3 / (k + 5)), "heavy_ball", {"lr": 0.02, "beta": lambda k: 1 - 3 / (k + 5)}),
    "cosine": (md.SGD(COSINE), "gd", {"lr": lambda k: 0.1 * (1 + np.cos(np.pi * k / 1000))}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_an_expression_in_k(name):
    """A hyperparameter given as an expression in k is read at every step, from k = 1 on."""
    rule, twin, hyper = SCHEDULES[name]
    got = md.simulate(md.Map(LOSS, rule), START, STEPS, paths=3, save_every=1).w
    same(got, literal(twin, hyper, False))


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rate_at_a_step(name):
    """`lr(k)` is the schedule's value at step k."""
    rule, _, hyper = SCHEDULES[name]
    value = hyper["lr"] if callable(hyper["lr"]) else lambda k: hyper["lr"]
    assert np.allclose([rule.lr(i) for i in range(1, 40)], [value(i) for i in range(1, 40)], rtol=1e-15, atol=0)


def test_schedule_takes_any_symbol_called_k():
    """A symbol k with assumptions of the user's is the step number too."""
    assert md.GD(1 / sp.Symbol("k", integer=True, positive=True)).lr(4) == 0.25


# A user's own rule ----------


@md.rule
def damped(theta, g, m, s, *, lr, beta=0.9, power, k):
    """Momentum divided by one plus the root of the summed squares, forgetting more slowly as k grows."""
    m = beta * m + g / sp.sqrt(k)
    s = s + sp.Abs(m) ** power
    return theta - lr * m / (1 + sp.sqrt(s)), m, s


def test_own_rule_with_two_states_and_k():
    """A rule of the user's with two states, a default, and the step number is stepped as it is written."""
    system = md.Map(LOSS, damped(0.3, power=1.5), md.GaussianNoise(SIGMA))
    got = md.simulate(system, START, STEPS, paths=3, save_every=1, rng=SEED).w
    theta, m, s, saved = START, 0.0, 0.0, [START]
    for step in range(1, STEPS + 1):
        g = PROBLEM.grad(theta) + SIGMA * recorded()[step - 1]
        m = 0.9 * m + g / np.sqrt(step)
        s = s + abs(m) ** 1.5
        theta = theta - 0.3 * m / (1 + np.sqrt(s))
        saved.append(theta)
    same(got, np.stack(saved, axis=1))


def test_own_rule_is_a_rule():
    """What `@md.rule` returns has a name, a docstring, states, hyperparameters by position or name, and a repr."""
    rule = damped(0.3, 0.5, power=2)
    assert damped.__name__ == "damped" and "Momentum divided" in rule.doc and rule.doc in damped.__doc__
    assert rule.states == ("m", "s") and rule.uses_step and not rule.scheduled
    assert dict(rule.hyper) == {"lr": 0.3, "beta": 0.5, "power": 2.0}
    assert repr(rule) == "damped(lr=0.3, beta=0.5, power=2.0)"
    assert rule.with_hyper(lr=0.1).hyper["lr"] == 0.1 and rule.hyper["lr"] == 0.3


def test_rule_without_learning_rate_takes_one_unit_of_time():
    """A rule that has no `lr` advances the flow time by 1 per step."""

    @md.rule
    def newton_like(theta, g):
        return theta - g / 4

    assert newton_like().lr(3) == 1.0 and repr(newton_like()) == "newton_like()"
    step = md.Map(LOSS, newton_like()).step([1.0, 0.2])
    np.testing.assert_allclose(step, [1.0, 0.2] - PROBLEM.grad([1.0, 0.2]) / 4, rtol=1e-13)


def test_rules_in_latex():
    """A rule shows its updates in LaTeX as its paper does: gradient, states, their corrections, then theta."""
    text = md.Adam(0.1)._repr_latex_()
    assert text.startswith("$") and text.endswith("$")
    rows = [
        text.index(f"{s} &=")
        for s in ("g_{k}", "m_{k+1}", "v_{k+1}", r"\hat{m}_{k+1}", r"\hat{v}_{k+1}", r"\theta_{k+1}", r"\eta")
    ]
    assert rows == sorted(rows)
    assert r"\theta_{k+1} = \theta_{k} - \eta \, \nabla L(\theta_{k})" in md.GD(0.1).describe(latex=True)


# Errors ----------


@md.rule
def forgetful(theta, g, m, *, lr):
    """Two values are due, one comes."""
    return theta - lr * g


@md.rule
def numeric(theta, g, *, lr):
    """numpy does not know symbols."""
    return theta - lr * np.sqrt(g)


@md.rule
def silent(theta, g, *, lr):
    """Returns nothing."""


@md.rule
def foreign(theta, g, *, lr):
    """Uses a symbol that nobody gives a number."""
    return theta - lr * g * sp.Symbol("rate")


@pytest.mark.parametrize("make, sentence", [
    (lambda: md.GD(-0.1), "GD: the learning rate lr is -0.1; it must be positive."),
    (lambda: md.SGD(0), "SGD: the learning rate lr is 0; it must be positive."),
    (lambda: md.Adam(float("nan")), "Adam: lr is nan; it must be finite."),
    (lambda: md.Adam("fast"), "Adam: lr must be a number or a sympy expression in k, not 'fast'."),
    (lambda: md.Adam(0.1, beta1=1), "Adam: beta1 is 1; it must lie in [0, 1)."),
    (lambda: md.RMSProp(0.1, beta2=-0.1), "RMSProp: beta2 is -0.1; it must lie in [0, 1)."),
    (lambda: md.SGD(0.1, momentum=1.0), "SGD: momentum is 1; it must lie in [0, 1)."),
    (lambda: md.SGD(0.1, nesterov=True), "SGD with nesterov needs momentum > 0."),
    (lambda: md.SGD(0.1, 1.5, nesterov=True), "Nesterov: momentum is 1.5; it must lie in [0, 1)."),
    (lambda: md.Adam(0.1, eps=-1e-8), "Adam: eps is -1e-08; it must not be negative."),
    (lambda: md.AdamW(0.1, weight_decay=-1), "AdamW: weight_decay is -1; it must not be negative."),
    (lambda: md.GD(sp.Symbol("t")), "GD: the schedule lr = t may only use the step number k."),
    (lambda: md.Adam(), "Adam needs lr."),
    (lambda: damped(), "damped needs lr, power."),
    (lambda: md.Adam(0.1, decay=1), "Adam has hyperparameters lr, beta1, beta2, eps; 'decay' does not fit."),
    (lambda: md.SignGD(0.1, lr=0.1), "SignGD has hyperparameters lr; 'lr' does not fit."),
    (lambda: md.SignGD(0.1, 0.2), "SignGD takes 1 hyperparameters (lr), got 2."),
    (lambda: md.Adam(0.1).with_hyper(momentum=0.5), "Adam has no hyperparameter 'momentum'; it has lr, beta1, "
                                                     "beta2, eps."),
    (lambda: md.Adam(0.1).with_hyper(lr=-1), "Adam: the learning rate lr is -1; it must be positive."),
    (lambda: forgetful(0.1), "the rule forgetful has 1 states but returns 1 values: return the new theta, then the new "
                             "state in the order of the arguments."),
    (lambda: foreign(0.1), "the rule foreign uses the symbol rate, which is not one of its arguments: make it a "
                           "keyword-only hyperparameter."),
    (lambda: md.rule(lambda theta: theta), "the rule <lambda> must be a function of (theta, g, *one argument per "
                                           "state*, *, lr, ...)."),
])  # fmt: skip
def test_error_is_a_sentence(make, sentence):
    """A wrong hyperparameter or rule is one sentence that says what was given and what is expected."""
    with pytest.raises(md.InputError) as error:
        make()
    assert str(error.value) == sentence


@pytest.mark.parametrize("make", [numeric, silent])
def test_rule_that_is_not_symbolic(make):
    """A rule that calls numpy, or returns nothing, is told to use sympy's functions."""
    sentence = rf"the rule {make.__name__} does not give sympy expressions .* write it with sympy's functions"
    with pytest.raises(md.InputError, match=sentence):
        make(0.1)
