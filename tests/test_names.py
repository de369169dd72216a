"""Names and meanings in a user's rule: places tell arguments apart, numbers have no sign, and what is fixed stays."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import minidyn as md
from minidyn.maps.recognize import recognized

x, y, a, c, u = sp.symbols("x y a c u")
LOSS = md.Loss((1 + x**2) * y**2 / 2 + sp.sin(x) / 5, [x, y])
START = [0.7, 0.4]
NAMES = ["theta", "g", "k1", "m", "q", "_q", "_sign", "_new_v", "lambda_", "beta", "lr2", "x", "grad", "w", "t", "K",
         "hp", "E", "I", "pi", "S", "N", "Σ", "self", "r", "sigma"]  # fmt: skip


def run(rule, steps=30, **options):
    return md.simulate(md.Map(LOSS, rule), START, steps, save_every=1, **options).w


def written(text: str, name: str = "rule"):
    """The function that a text defines."""
    space = {"sp": sp}
    exec(text, space)
    return space[name]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.permutations(NAMES))
def test_no_name_is_special(names):
    """Heavy ball and Adam under any names of their arguments make the steps of the built-in rules, to the last bit."""
    w, grad, m, v, beta, other = names[:6]
    text = (
        f"def rule({w}, {grad}, {m}, *, lr, {beta}=0.5):\n    {m} = {beta}*{m} + {grad}\n    return {w} - lr*{m}, {m}"
    )
    ball = md.rule(written(text))
    assert np.array_equal(run(ball(0.1)), run(md.SGD(0.1, 0.5)))
    adam = md.rule(
        written(
            f"def rule({w}, {grad}, {m}, {v}, *, lr, {beta}, {other}=0.99, eps=1e-3, k):\n"
            f"    {m} = {beta}*{m} + (1-{beta})*{grad}\n    {v} = {other}*{v} + (1-{other})*{grad}**2\n"
            f"    return {w} - lr*({m}/(1-{beta}**k))/(sp.sqrt({v}/(1-{other}**k)) + eps), {m}, {v}"
        )
    )
    np.testing.assert_allclose(run(adam(0.02, 0.8)), run(md.Adam(0.02, 0.8, 0.99, 1e-3)), rtol=1e-13, atol=1e-13)


def test_the_issues_heavy_ball_moves():
    """A state called g is the state, although it is not called so before it is assigned."""

    @md.rule
    def hb(w, grad, g, *, lr, beta=0.9):
        g = beta * g + grad
        return w - lr * g, g

    assert np.array_equal(run(hb(0.1)), run(md.SGD(0.1, 0.9))) and np.ptp(run(hb(0.1))) > 0.1
    assert r"g_{k+1} &= \beta \, g_{k} + \nabla L(w_{k})" in hb(0.1)._repr_latex_()


def test_a_global_symbol_is_no_argument():
    """Symbols of the user's own that bear the names of theta, the gradient or a state are refused."""
    for name in ("theta", "g", "m", "lr", "k"):
        foreign = sp.Symbol(name)
        bad = md.rule(lambda w, gradient, m, *, lr, foreign=foreign: (w - lr * gradient * sp.Symbol(foreign), m))
        with pytest.raises(md.InputError, match=rf"uses the symbol {name}, which is not one of its arguments"):
            bad(0.1, name)


SIGNS = {
    "abs": (lambda w, g, *, lr, s: w - lr * sp.Abs(s) * g, lambda s, g: abs(s) * g),
    "root of the square": (lambda w, g, *, lr, s: w - lr * sp.sqrt(s**2) * g, lambda s, g: abs(s) * g),
    "sign": (lambda w, g, *, lr, s: w - lr * sp.sign(s) * g, lambda s, g: np.sign(s) * g),
    "largest": (lambda w, g, *, lr, s: w - lr * sp.Max(s, 0) * g, lambda s, g: max(s, 0) * g),
    "branch": (
        lambda w, g, *, lr, s: w - lr * sp.Piecewise((g, s > 0), (2 * g, True)),
        lambda s, g: g if s > 0 else 2 * g,
    ),
    "power": (lambda w, g, *, lr, s: w - lr * (s**2) ** sp.Rational(3, 2) * g, lambda s, g: abs(s) ** 3 * g),
}


@pytest.mark.parametrize("value", [-2.0, 0.0, 1.5])
@pytest.mark.parametrize("name", SIGNS)
def test_hyperparameters_have_no_sign(name, value):
    """What depends on the sign of a hyperparameter is read from its number, whatever it was called or was before."""
    function, twin = SIGNS[name]
    made = md.rule(function)(0.1, 1.0).with_hyper(s=value)
    want = np.array(START) - 0.1 * twin(value, LOSS.grad(START))
    np.testing.assert_allclose(md.Map(LOSS, made).step(START), want, rtol=1e-14)


def test_a_users_ranges_are_his_own():
    """beta, momentum, eps and weight_decay of a user's rule may be any number; those of the built-in rules may not."""

    @md.rule
    def free(w, g, *, lr, beta, momentum_decay, eps, weight_decay):
        return w * (1 - lr * weight_decay) - lr * g * beta + eps * momentum_decay

    step = md.Map(LOSS, free(0.1, 1.5, 2.0, -0.01, -0.3)).step(START)
    w, g = np.array(START), LOSS.grad(START)
    np.testing.assert_allclose(step, w * 1.03 - 0.15 * g - 0.02, rtol=1e-14)
    with pytest.raises(md.InputError, match=r"beta1 is 1\.5; it must lie in"):
        md.Adam(0.1, beta1=1.5)


@md.rule
def chosen(w, g, m, *, lr, beta=0.9, nesterov=False, decay=None, kind="plain"):
    """Structure in every form."""
    m = beta * m + g
    step = g + beta * m if nesterov else m
    if decay is not None:
        step = step + decay * w
    return w - lr * (sp.sign(step) if kind == "sign" else step), m


def test_flags_text_and_none_reach_the_function():
    """True, False, None and text choose what a rule does, as defaults and when given; None gives way to a number."""
    assert np.array_equal(run(chosen(0.1)), run(md.SGD(0.1, 0.9)))
    assert np.array_equal(run(chosen(0.1, nesterov=True)), run(md.SGD(0.1, 0.9, nesterov=True)))
    assert np.array_equal(run(chosen(0.1, 0.5, np.False_)), run(md.SGD(0.1, 0.5)))
    assert np.abs(np.diff(run(chosen(0.01, kind="sign")), axis=1)).max() <= 0.01 + 1e-15
    decayed, g = md.Map(LOSS, chosen(0.1, decay=0.3)), LOSS.grad(START)
    np.testing.assert_allclose(decayed.step(START), np.array(START) * (1 - 0.03) - 0.1 * g, rtol=1e-14)
    assert repr(chosen(0.1)) == "chosen(lr=0.1, beta=0.9, nesterov=False, decay=None, kind='plain')"
    assert chosen(0.1) != chosen(0.1, nesterov=True) and chosen(0.1) == chosen(0.1, nesterov=False)
    with pytest.raises(md.InputError, match=r"nesterov decides what chosen does: make the rule again, chosen\("):
        chosen(0.1).with_hyper(nesterov=True)
    for lr in (True, "fast", None):
        with pytest.raises(md.InputError, match="lr must be a number or a sympy expression in k, not"):
            chosen(lr)


BRANCHES = {
    "eps == 0": lambda w, g, m, *, lr, eps, k: (w - (lr if eps == 0 else eps) * g, m),
    "eps != 0": lambda w, g, m, *, lr, eps, k: (w - (lr if eps != 0 else eps) * g, m),
    "0 == eps": lambda w, g, m, *, lr, eps, k: (w - (lr if 0 == eps else eps) * g, m),  # noqa: SIM300
    "eps in": lambda w, g, m, *, lr, eps, k: (w - (lr if eps in (0, 1) else eps) * g, m),
    "1 - eps": lambda w, g, m, *, lr, eps, k: (w - (lr if 1 - eps == 1 else eps) * g, m),
    "truth": lambda w, g, m, *, lr, eps, k: (w - (lr if eps else 1) * g, m),
    "not": lambda w, g, m, *, lr, eps, k: (w - (lr if not 2 * eps else 1) * g, m),
    "and": lambda w, g, m, *, lr, eps, k: (w - (lr and eps) * g, m),
    "lr > 0": lambda w, g, m, *, lr, eps, k: (w - (lr if lr > 0 else eps) * g, m),
    "chain": lambda w, g, m, *, lr, eps, k: (w - (lr if 0 < eps < 1 else eps) * g, m),
    "min": lambda w, g, m, *, lr, eps, k: (w - min(lr, eps) * g, m),
    "sorted": lambda w, g, m, *, lr, eps, k: (w - sorted([lr, eps])[0] * g, m),
    "step": lambda w, g, m, *, lr, eps, k: (w - (lr if k == 1 else eps) * g, m),
    "tenth step": lambda w, g, m, *, lr, eps, k: (w - (lr if k % 10 == 0 else eps) * g, m),
    "gradient": lambda w, g, m, *, lr, eps, k: (w - (lr if g > 0 else eps) * g, m),
    "state": lambda w, g, m, *, lr, eps, k: (w - lr * g, g if m == 0 else m),
    "theta": lambda w, g, m, *, lr, eps, k: (w - lr * g if w else w, m),
    "helper": lambda w, g, m, *, lr, eps, k: (w - helper(eps) * g, m),
}


def helper(value):
    return 1 if value == 0 else value


@pytest.mark.parametrize("name", BRANCHES)
def test_symbols_refuse_to_be_asked(name):
    """Whatever asks a number, state, gradient or step for its value is refused with a sentence; nothing is assumed."""
    made = md.rule(BRANCHES[name])
    with pytest.raises(md.InputError, match=r"asks whether .* are symbols when a rule is made: write sp.Piecewise"):
        made(0.1, 0.2)


def test_sympy_compares_as_ever_after_a_rule_was_refused():
    """The guard is gone when the function has returned or failed, and never was there for other threads' symbols."""
    for function in BRANCHES.values():
        with pytest.raises(md.InputError):
            md.rule(function)(0.1, 0.2)
    assert (x == 0) is False and bool(x) and (x != 1) and x == sp.Symbol("x")
    assert "__bool__" not in vars(sp.Expr)


def test_piecewise_is_how_a_rule_branches():
    """The way that the refusal names works: conditions on hyperparameters, step, state and gradient."""

    @md.rule
    def branchy(w, g, m, *, lr, eps, k):
        rate = sp.Piecewise((lr, sp.Eq(eps, 0) | (k < 3)), (eps, True))
        return w - rate * sp.Piecewise((g, g > m), (2 * g, True)), sp.Max(g, m)

    w, m = np.array(START), np.zeros(2)
    for step in range(1, 8):
        g = LOSS.grad(w)
        w, m = w - (0.1 if step < 3 else 0.05) * np.where(g > m, g, 2 * g), np.maximum(g, m)
    np.testing.assert_allclose(run(branchy(0.1, 0.05), 7)[0, -1], w, rtol=1e-13)


scale = 2.0


def test_expressions_are_fixed_when_the_rule_is_made():
    """Rules from a loop keep what they captured, a changed global changes nothing, and the function is called once."""
    made, calls = [], []
    for factor in (1, 2, 3):

        @md.rule
        def looped(w, g, *, lr):
            calls.append(factor)  # noqa: B023 - that is what is tested
            return w - factor * lr * g  # noqa: B023

        made.append(looped)
    assert calls == [1, 2, 3]
    for factor, maker in zip((1, 2, 3), made, strict=True):
        np.testing.assert_array_equal(run(maker(0.01)), run(md.GD(0.01 * factor)))
    assert len(calls) == 3

    global scale

    @md.rule
    def scaled(w, g, m, *, lr):
        return w - lr * scale * g, scale * g

    rule = scaled(0.01)
    before = (run(rule), md.ModifiedFlow(md.Map(LOSS, rule), order=1).drift(START), rule._repr_latex_())
    scale = 7.0
    try:
        system = md.Map(LOSS, rule)
        after = (run(rule), md.ModifiedFlow(system, order=1).drift(START), rule._repr_latex_())
        assert all(map(np.array_equal, before, after)) and scaled(0.01) == rule
        np.testing.assert_allclose(after[1], -2 * LOSS.grad(START), rtol=1e-12)
    finally:
        scale = 2.0


# What a rule is called ----------


def same_step(name):
    """The built-in rules as a user would write them, under other names."""
    texts = {
        "GD": "def Muon(w, d, *, lr): return w - lr*d",
        "SGD": "def SAM(w, d, p, *, mu=0.5, lr): p = mu*p + d; return w - lr*p, p",
        "Nesterov": "def GD(w, d, p, *, mu=0.5, lr): p = mu*p + d; return w - lr*(d + mu*p), p",
        "RMSProp": "def Adam(w, d, s, *, tiny=1e-2, keep=0.9, lr):\n    s = keep*s + (1 - keep)*d**2\n"
        "    return w - lr*d/(sp.sqrt(s) + tiny), s",
    }
    text = texts[name]
    return md.rule(written(text, text.split("(")[0].split()[1]))


PAIRS = {
    "GD": md.GD(0.1),
    "SGD": md.SGD(0.1, 0.5),
    "Nesterov": md.SGD(0.1, 0.5, nesterov=True),
    "RMSProp": md.RMSProp(0.1, 0.9, 1e-2),
}
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])


@pytest.mark.parametrize("name", PAIRS)
def test_a_rule_is_what_it_does(name):
    """A user's rule that makes a built-in rule's step gets its thresholds and flows to the last bit, under any name."""
    mine, theirs = same_step(name)(lr=0.1), PAIRS[name]
    assert recognized(mine).name == name and recognized(theirs).name == theirs.name
    noise = md.GaussianNoise(0.1)
    one, other = md.Map(VALLEY, mine, noise), md.Map(VALLEY, theirs, noise)
    a, b = (md.stability(system, [1.0, 0.0]) for system in (one, other))
    for number in ("growth", "threshold", "threshold_from_A", "max_lr"):
        assert getattr(a, number) == getattr(b, number)
    flows = [md.ModifiedFlow, md.QuasistaticFlow] + [md.GradientFlow] * (name != "RMSProp")
    flows += [md.CentralFlow] * (name in ("GD", "RMSProp"))
    for flow in flows:
        f, h = flow(one), flow(other)
        start = (
            h.start(
                [1.0, 0.3],
            )
            if flow is not md.QuasistaticFlow
            else [1.0, 0.0]
        )
        np.testing.assert_array_equal(f.drift(start), h.drift(start), err_msg=flow.__name__)


@pytest.mark.parametrize("name", ["GD", "SGD", "Nesterov", "RMSProp", "Adam"])
def test_a_borrowed_name_borrows_nothing(name):
    """A rule that is only called like a built-in one has none of its thresholds and flows."""
    system = md.Map(VALLEY, md.rule(written(f"def {name}(w, g, *, lr): return w - lr*g/(1 + g**2)", name))(0.1))
    for flow in (md.GradientFlow, md.CentralFlow):
        with pytest.raises(md.FlowError, match=f"not (of|for) {name}"):
            flow(system)
    assert md.stability(system, [1.0, 0.0]).threshold is None
    with pytest.raises(md.InputError, match="is not one number"):
        md.simulate(system, START, 5, stop="edge")


def test_bias_corrections_die_out_only_where_they_do():
    """`beta^k` is gone late in a run for beta below one, and is not for a user's beta above."""

    def corrected(w, g, *, lr, beta, k):
        return w - lr * g * (1 - beta**k)

    late = md.ModifiedFlow(md.Map(LOSS, md.rule(corrected)(0.1, -0.9)), order=1).drift(START)
    np.testing.assert_allclose(late, -LOSS.grad(START), rtol=1e-12)
    growing = md.ModifiedFlow(md.Map(LOSS, md.rule(corrected)(0.1, 1.5)), order=1)
    assert np.abs(growing.drift(START) + LOSS.grad(START)).min() > 1e-3


# Symbols with meanings elsewhere ----------


def test_an_undeclared_y_is_not_the_target():
    """A model that uses y without declaring it is refused; declared as anything, y keeps its meaning."""
    data = {u: [1.0, 2.0]}
    for foreign in (y, sp.Symbol("y", real=True)):
        with pytest.raises(md.ExpressionError, match="the symbol y is neither a parameter, a constant nor data"):
            md.Loss.regression(a * u + foreign, [a], data, [1.0, 2.0])
    want = np.mean([(1.0 * 1 + 3 - 1) ** 2 / 2, (1.0 * 2 + 3 - 2) ** 2 / 2])
    assert md.Loss.regression(a * u + y, [a], data, [1.0, 2.0], constants={y: 3.0}).value([1.0]) == want
    assert md.Loss.regression(a * u + y, [a, y], data, [1.0, 2.0]).value([1.0, 3.0]) == want
    assert md.Loss.regression(a * u + y, [a], {**data, y: [3.0, 3.0]}, [1.0, 2.0]).value([1.0]) == want


def test_the_step_number_in_a_flow_is_any_symbol_called_k():
    """k of any assumptions is the step number in a flow of one's own, unless it is a parameter: then it is that."""
    for free in (sp.Symbol("k"), sp.Symbol("k", integer=True, positive=True)):
        flow = md.SymbolicFlow(md.Map(md.Loss(x**2, [x]), md.GD(0.1)), [-free * x])
        assert flow.expressions == [-sp.Symbol("k") * x]
    mine = sp.Symbol("k", real=True)
    system = md.Map(md.Loss(mine**2, [mine]), md.GD(0.1))
    assert md.SymbolicFlow(system, [-mine]).drift([5.0]) == [-5.0]
    with pytest.raises(md.InputError, match="another symbol k than the one declared"):
        md.SymbolicFlow(system, [-sp.Symbol("k")])


def test_data_are_no_numbers_for_noise_and_flows():
    """Noise and flows that name the data are refused: there is one number for each sample, and they belong to none."""
    fit = md.Loss.regression(a * u, [a], {u: [1.0, 2.0]}, [1.0, 2.0])
    system = md.Map(fit, md.GD(0.1))
    for symbol in (u, fit.target):
        with pytest.raises(md.InputError, match=f"sigma names the data {symbol}, which differ from sample to sample"):
            md.Map(fit, md.GD(0.1), md.GaussianNoise(symbol))
        with pytest.raises(md.InputError, match=f"a symbolic flow names the data {symbol}"):
            md.SymbolicFlow(system, [-symbol * a])


@pytest.mark.parametrize("name, assumed", [
    ("lr", {"positive": True}), ("momentum", {"real": True}), ("sigma", {"positive": True}), ("r", {}), ("g", {}),
    ("k", {}),
])  # fmt: skip
def test_closed_forms_keep_names_apart(name, assumed):
    """A parameter that bears the name of a hyperparameter, of noise or of an internal letter is itself."""
    z = sp.Symbol(name, **assumed)
    valley = md.Loss((1 + z**2) * y**2 / 2, [z, y])
    floor = md.Manifold(valley, chart={z: z, y: 0}, coordinates=[z])
    flow = md.QuasistaticFlow(md.Map(valley, md.SGD(0.1, 0.5), md.GaussianNoise(0.3)), floor).closed_form()
    slope, top = flow.drift(flow.start([1.0, 0.0]))[0], flow.drift_formula[0]
    number = float(top.subs({**flow.values, z: 1.0}))
    assert len({str(s) for s in top.free_symbols}) == len(top.free_symbols) == 4
    np.testing.assert_allclose([slope, number], expected(), rtol=1e-9)


@cache
def expected():
    valley = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    return md.QuasistaticFlow(md.Map(valley, md.SGD(0.1, 0.5), md.GaussianNoise(0.3))).drift([1.0, 0.0])[0]


@pytest.mark.parametrize("name", ["h_1", "p_1"])
def test_coordinates_are_no_letters_of_a_derivation(name):
    """A coordinate that is called like a letter of the closed form's derivation gives the numerical flow's drift."""
    s = sp.Symbol(name)
    system = md.Map(VALLEY, md.RMSProp(0.1, eps=1e-2), md.GaussianNoise([0.3, x**2 / 9 + 0.2]))
    flow = md.QuasistaticFlow(system, md.Manifold(VALLEY, chart={x: s, y: 0}, coordinates=[s]))
    form = flow.closed_form()
    np.testing.assert_allclose(form.drift(form.start([1.0, 0.0]))[0], flow.drift([1.0, 0.0])[0], rtol=1e-9)
