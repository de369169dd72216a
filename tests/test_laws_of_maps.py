"""Laws that any correct tool obeys, over random losses, rules, noises and sizes: what must change with a change of
coordinates, of units, of spelling or of company does so, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import minidyn as md

BITS = np.testing.assert_array_equal
SEEDS = st.integers(0, 2**32 - 1)
some = settings(max_examples=8, deadline=None, derandomize=True)
few = settings(max_examples=5, deadline=None, derandomize=True)
SHAPES = (
    lambda t: t**2 / 2,
    lambda t: sp.log(sp.cosh(t)),
    lambda t: 1 - sp.cos(t),
    lambda t: sp.sqrt(1 + t**2),
    lambda t: t**4 / 12 + t**2 / 4,
    lambda t: sp.log(1 + t**2),
    lambda t: 1 - sp.exp(-(t**2) / 2),
    lambda t: sp.atan(t) ** 2,
)


def letters(size: int) -> list[sp.Symbol]:
    return list(sp.symbols(f"p:{size}"))


def number(rng: np.random.Generator) -> sp.Rational:
    """A number of few digits, so that every spelling of it is exact."""
    return sp.Rational(int(rng.integers(1, 33)), 16) * int(rng.choice([-1, 1]))


def expression(rng: np.random.Generator, w: list[sp.Symbol]) -> sp.Expr:
    """A smooth loss in which every parameter meets some others."""
    total = sp.S.Zero
    for i, own in enumerate(w):
        other = w[int(rng.integers(len(w)))]
        inner = number(rng) * own + number(rng) * other * (own if i % 2 else 1) + number(rng)
        total += SHAPES[int(rng.integers(len(SHAPES)))](inner) / (1 + i % 3)
    return total


def rule(rng: np.random.Generator, lr: float = 2.0**-5) -> md.Rule:
    """One of the built-in rules, whose numbers are not special."""
    return (
        md.GD(lr),
        md.SGD(lr, momentum=0.6),
        md.SGD(lr, momentum=0.7, nesterov=True),
        md.RMSProp(lr, beta2=0.9, eps=0.1),
        md.Adam(lr, beta1=0.8, beta2=0.9, eps=0.1),
        md.AdamW(lr, beta1=0.7, beta2=0.95, eps=0.1, weight_decay=0.1),
        md.Lion(lr),
        md.SignGD(lr),
    )[int(rng.integers(8))]


def case(seed: int, low: int = 1, high: int = 9):
    """A generator, parameters, a loss and a starting point."""
    rng = np.random.default_rng(seed)
    w = letters(int(rng.integers(low, high)))
    return rng, w, expression(rng, w), rng.normal(size=len(w))


def smooth(made: md.Rule) -> bool:
    return made.name not in ("Lion", "SignGD")


def gradients(seed: int):
    """A regression with random data, its loss and a starting point."""
    rng = np.random.default_rng(seed)
    w, u, v = letters(int(rng.integers(2, 6))), *sp.symbols("u v")
    model = sum(w[i] * sp.tanh(w[(i + 1) % len(w)] * u + (i % 2) * v) for i in range(len(w)))
    count = int(rng.integers(1, 131))
    data = {u: rng.normal(size=count), v: rng.normal(size=count)}
    return rng, w, model, data, rng.normal(size=count), rng.normal(size=len(w))


# -- coordinates -----------------------------------------------------------------------------------------


@some
@given(SEEDS)
def test_permuted_parameters_give_the_permuted_path(seed):
    """Every rule with correlated noise: the loss with its parameters in another order gives the path in that order."""
    rng, w, expr, w0 = case(seed)
    order, made = rng.permutation(len(w)), rule(rng)
    factor = 0.1 * rng.normal(size=(len(w), 3))
    run = md.simulate(md.Map(md.Loss(expr, w), made, md.GaussianNoise(factor)), w0, 30, paths=3, rng=1).w
    turned = md.Map(md.Loss(expr, [w[i] for i in order]), made, md.GaussianNoise(factor[order]))
    other = md.simulate(turned, w0[order], 30, paths=3, rng=1).w
    same = np.isclose(other, run[..., order], rtol=1e-9, atol=1e-9)
    assert same.all() if smooth(made) else same.mean() > 0.9  # a sign may fall either way at zero


@some
@given(SEEDS)
def test_renamed_parameters_change_nothing(seed):
    """Other names, words of Python and of the kernels among them: the same path to rounding."""
    rng, w, expr, w0 = case(seed)
    words = ["lambda", "k", "g", "in", "x_{1}", "theta", "out", "n", "w", "lr", "v", "hp", "d", "m"]
    names = dict(zip(w, map(sp.Symbol, rng.permutation(words)), strict=False))
    made = rule(rng)
    noise = md.GaussianNoise(0.1)
    run = md.simulate(md.Map(md.Loss(expr, w), made, noise), w0, 30, paths=3, rng=1).w
    renamed = md.Loss(expr.xreplace(names), [names[s] for s in w])
    other = md.simulate(md.Map(renamed, made, noise), w0, 30, paths=3, rng=1).w
    np.testing.assert_allclose(other, run, rtol=1e-9, atol=1e-9)  # sympy sorts terms by their names


@some
@given(SEEDS)
def test_rotated_parameters_rotate_sgd(seed):
    """SGD with and without momentum in turned coordinates is SGD, turned; so is its noise."""
    rng, w, expr, w0 = case(seed, 2, 5)
    turn = np.linalg.qr(rng.normal(size=(len(w), len(w))))[0]
    made = (md.SGD(0.03), md.SGD(0.03, momentum=0.6), md.SGD(0.03, momentum=0.6, nesterov=True))[seed % 3]
    factor = 0.1 * rng.normal(size=(len(w), 2))
    run = md.simulate(md.Map(md.Loss(expr, w), made, md.GaussianNoise(factor)), w0, 30, paths=3, rng=1).w
    turned = expr.xreplace({s: sum(turn[i, j] * w[j] for j in range(len(w))) for i, s in enumerate(w)})
    system = md.Map(md.Loss(turned, w), made, md.GaussianNoise(turn.T @ factor))
    other = md.simulate(system, turn.T @ w0, 30, paths=3, rng=1).w
    np.testing.assert_allclose(other @ turn.T, run, rtol=1e-9, atol=1e-9)


@some
@given(SEEDS)
def test_shifted_parameters_shift_the_path(seed):
    """Every smooth rule without decay: the loss seen from another origin gives the path seen from there."""
    rng, w, expr, w0 = case(seed)
    made, shift = rule(rng), [number(rng) for _ in w]
    made = md.GD(0.03) if made.name == "AdamW" or not smooth(made) else made
    away = md.Loss(expr.xreplace({s: s - v for s, v in zip(w, shift, strict=True)}), w)
    run = md.simulate(md.Map(md.Loss(expr, w), made), w0, 30).w
    moved = np.array(shift, float)
    np.testing.assert_allclose(md.simulate(md.Map(away, made), w0 + moved, 30).w, run + moved, rtol=1e-9, atol=1e-9)


# -- units -----------------------------------------------------------------------------------------------


@some
@given(SEEDS)
def test_a_larger_loss_with_a_smaller_rate_is_the_same_descent(seed):
    """Four times the loss at a quarter of the rate: GD with and without momentum makes the same path."""
    _, w, expr, w0 = case(seed)
    momentum = (0.0, 0.5)[seed % 2]
    run = md.simulate(md.Map(md.Loss(expr, w), md.SGD(2.0**-4, momentum)), w0, 30).w
    other = md.simulate(md.Map(md.Loss(4 * expr, w), md.SGD(2.0**-6, momentum)), w0, 30).w
    np.testing.assert_allclose(other, run, rtol=1e-9, atol=1e-9)


@some
@given(SEEDS)
def test_signs_and_normalized_rules_do_not_see_the_loss_s_unit(seed):
    """Adam and RMSProp without eps, and sign GD, on eight times the loss: the same path to rounding."""
    _, w, expr, w0 = case(seed)
    made = (md.Adam(0.02, eps=0.0), md.RMSProp(0.02, eps=0.0), md.SignGD(0.02))[seed % 3]
    run = md.simulate(md.Map(md.Loss(expr, w), made), w0, 20).w
    other = md.simulate(md.Map(md.Loss(8 * expr, w), made), w0, 20).w
    same = np.isclose(other, run, rtol=1e-11, atol=1e-11)
    assert same.all() if smooth(made) else same.mean() > 0.9


# -- spelling --------------------------------------------------------------------------------------------


@some
@given(SEEDS)
def test_a_loss_written_differently_has_the_same_derivatives(seed):
    """Multiplied out, with its parts shared or not, with numbers as fractions, decimals or constants: value, gradient,
    Hessian and third derivatives agree to rounding."""
    rng, w, expr, w0 = case(seed, 1, 5)
    numbers = sorted({e for e in expr.atoms(sp.Rational) if e.q == 16}, key=str)
    names = dict(zip(numbers, sp.symbols(f"q:{len(numbers)}"), strict=True))
    decimals = expr.replace(lambda e: e in names, lambda e: sp.Float(float(e)))
    held = md.Loss(expr.subs(names), w, constants={s: float(n) for n, s in names.items()})
    plain = md.Loss(expr, w)
    u, v = rng.normal(size=(2, len(w)))
    for other in (md.Loss(sp.expand(expr), w), md.Loss(decimals, w), held):
        for ours, theirs in (
            (plain.value(w0), other.value(w0)),
            (plain.grad(w0), other.grad(w0)),
            (plain.hessian(w0), other.hessian(w0)),
            (plain.hvp(w0, v), other.hvp(w0, v)),
            (plain.third(w0, u, v), other.third(w0, u, v)),
        ):
            np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-9)


@some
@given(SEEDS)
def test_samples_in_another_order_or_twice_are_the_same_loss(seed):
    """1 to 130 samples: shuffled, or each of them twice, the loss and its derivatives are the same to rounding."""
    rng, w, model, data, target, w0 = gradients(seed)
    order = rng.permutation(len(target))
    plain = md.Loss.regression(model, w, data, target)
    shuffled = md.Loss.regression(model, w, {s: v[order] for s, v in data.items()}, target[order])
    twice = md.Loss.regression(model, w, {s: np.repeat(v, 2) for s, v in data.items()}, np.repeat(target, 2))
    for other in (shuffled, twice):
        for name in ("value", "grad", "hessian"):
            np.testing.assert_allclose(getattr(other, name)(w0), getattr(plain, name)(w0), rtol=1e-10, atol=1e-10)
    BITS(shuffled.sample_grads(w0), plain.sample_grads(w0)[order])


# -- company ---------------------------------------------------------------------------------------------


@some
@given(SEEDS, st.integers(1, 130), st.sampled_from(["gaussian", "minibatch", "replacement", "label", "reshuffle"]))
def test_a_path_does_not_know_its_company(seed, paths, kind):
    """Of 1 to 130 paths each has the bits that it has in a larger company, whatever is saved or observed beside it."""
    rng, w, model, data, target, w0 = gradients(seed)
    count = len(target)
    batch = int(rng.integers(1, count + 1))
    noise = {
        "gaussian": md.GaussianNoise(0.1),
        "minibatch": md.Minibatch(batch),
        "replacement": md.Minibatch(batch, replace=True),
        "label": md.LabelNoise(0.1, batch),
        "reshuffle": md.Reshuffle(batch),
    }[kind]
    system = md.Map(md.Loss.regression(model, w, data, target), rule(rng), noise)
    run = md.simulate(system, w0, 12, paths=130, rng=seed, save_every=3)
    less = md.simulate(system, w0, 12, paths=paths, rng=seed, save_every=12, observe=["loss", w[0] ** 2])
    BITS(less.w, run.w[:paths, [0, -1]])
    BITS(less.observables[str(w[0] ** 2)], less.w[..., 0] ** 2)


@few
@given(SEEDS, st.integers(1, 29))
def test_n_steps_then_m_steps_are_n_plus_m(seed, n):
    """Every rule: n steps one by one, then the rest from that state and clock, end where all of them do."""
    rng, w, expr, w0 = case(seed)
    system = md.Map(md.Loss(expr, w), rule(rng))
    state = system.initial_state(w0)
    for k in range(1, n + 1):
        state = system.step(state, k=k)
    rest = md.simulate(system, state, 30 - n, first_step=n + 1, save_every=30 - n).w[0, -1]
    BITS(rest, md.simulate(system, w0, 30, save_every=30).w[0, -1])


@few
@given(SEEDS)
def test_flows_turn_and_scale_with_their_map(seed):
    """Gradient and modified flow of GD in turned coordinates are turned; with four times the loss at a quarter of the
    rate the drift per step is the same."""
    rng, w, expr, w0 = case(seed, 2, 4)
    turn = np.linalg.qr(rng.normal(size=(len(w), len(w))))[0]
    turned = expr.xreplace({s: sum(turn[i, j] * w[j] for j in range(len(w))) for i, s in enumerate(w)})
    for theory in (md.GradientFlow, md.ModifiedFlow, md.RodFlow):
        plain = theory(md.Map(md.Loss(expr, w), md.GD(0.1)))
        other = theory(md.Map(md.Loss(turned, w), md.GD(0.1)))
        steep = theory(md.Map(md.Loss(4 * expr, w), md.GD(0.025)))
        if theory is md.RodFlow:  # mid-point and rod
            state, wide = np.concatenate([w0, 0.1 * w0]), np.kron(np.eye(2), turn)
        else:
            state, wide = w0, turn
        drift = plain.drift(state)
        np.testing.assert_allclose(wide @ other.drift(wide.T @ state), drift, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(steep.drift(state) * 0.025, drift * 0.1, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_quasistatic_flow_turns_with_its_map(seed):
    """SGD in a curved valley in three dimensions: the slow flow in turned coordinates is the slow flow, turned."""
    rng = np.random.default_rng(seed)
    x, y, z = sp.symbols("x y z")
    expr = (2 + sp.cos(x)) * (y - sp.sin(x)) ** 2 / 2 + (1 + x**2 / 3) * (z - x**2 / 4) ** 2
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = expr.xreplace({s: sum(turn[i, j] * t for j, t in enumerate((x, y, z))) for i, s in enumerate((x, y, z))})
    factor, at = 0.2 * rng.normal(size=(3, 2)), np.array([0.4, np.sin(0.4), 0.04])
    made = (md.SGD(0.05), md.SGD(0.02, momentum=0.7))[seed % 2]
    plain = md.QuasistaticFlow(md.Map(md.Loss(expr, [x, y, z]), made, md.GaussianNoise(factor)))
    other = md.QuasistaticFlow(md.Map(md.Loss(turned, [x, y, z]), made, md.GaussianNoise(turn.T @ factor)))
    np.testing.assert_allclose(turn @ other.drift(turn.T @ at), plain.drift(at), rtol=1e-7, atol=1e-10)
    a, b = plain.diffusion(at), turn @ other.diffusion(turn.T @ at)
    np.testing.assert_allclose(b @ b.T, a @ a.T, rtol=1e-7, atol=1e-12)
