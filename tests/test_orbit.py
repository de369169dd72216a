"""The period-two orbit on a chart, in symbols: against literal iterations of the map and the published formulas."""

import re

import numpy as np
import pytest
import sympy as sp
from scipy.optimize import brentq

import minidyn as md
from minidyn.flows.edge.chartorbit import orbit_form, rates

x, y, s = sp.symbols("x y s")
lr, momentum = sp.Symbol("lr", positive=True), sp.Symbol("momentum", positive=True)
LOGCOSH = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
CHART = md.Manifold(LOGCOSH, chart={x: s, y: 0}, coordinates=[s])


@md.rule
def bounded(theta, g, m, *, lr, beta=0.6):
    """A rule of our own without accumulators: a bounded step along an average."""
    m = beta * m + (1 - beta) * g
    return theta - lr * m / sp.sqrt(1 + m**2), m


@md.rule
def squared(theta, g, m, v, *, lr, beta=0.3, decay=0.99, eps=0.1):
    """A rule of our own whose accumulator follows the momentum, which alternates, instead of the gradient."""
    m = beta * m + (1 - beta) * g
    v = decay * v + (1 - decay) * m**2
    return theta - lr * m / (sp.sqrt(v) + eps), m, v


RULES = {
    "GD": md.GD(1.5),
    "heavy ball": md.SGD(1.2, momentum=0.4),
    "Nesterov": md.SGD(0.9, momentum=0.4, nesterov=True),
}


def gradient(w):
    """Of (1 + x^2) log cosh y, by hand."""
    return np.array([2 * w[0] * np.log(np.cosh(w[1])), (1 + w[0] ** 2) * np.tanh(w[1])])


def literal_step(name, rule, w, m):
    """One step of the rule, written out."""
    h = rule.hyper
    g = gradient(w)
    if name == "GD":
        return w - h["lr"] * g, m
    m = h["momentum"] * m + g
    return w - h["lr"] * (m if name == "heavy ball" else g + h["momentum"] * m), m


def amplitude(form, at):
    """The positive root of the odd equation, by bisection."""
    return brentq(lambda a: form.residual([at], [a])[0], 1e-3, 50)


@pytest.mark.parametrize("name", RULES)
def test_amplitude_is_that_of_the_map(name):
    """With x held, the map settles on the amplitude that the odd equation gives, to 1e-9."""
    rule, at = RULES[name], 1.6
    form = orbit_form(md.Map(LOGCOSH, rule), CHART)
    w, m = np.array([at, 0.7]), np.zeros(2)
    for _ in range(4000):
        w, m = literal_step(name, rule, w, m)
        w[0], m[0] = at, 0.0
    assert abs(w[1]) > 0.1
    assert abs(w[1]) == pytest.approx(amplitude(form, at), rel=1e-9)


def test_gradient_descent_has_the_published_form():
    """GD on (1 + x^2) log cosh y: (1 + x^2) tanh d = 2 d / lr and dx/dt = -2 x log cosh d."""
    form = orbit_form(md.Map(LOGCOSH, md.GD(0.1)), CHART)
    (d,) = form.amplitudes
    assert sp.simplify(form.odd[0] - ((1 + s**2) * sp.tanh(d) - 2 * d / lr)) == 0
    assert sp.simplify(form.drift[0] + 2 * s * sp.log(sp.cosh(d))) == 0
    assert sp.simplify(form.threshold[0] - (1 + s**2 - 2 / lr)) == 0 and form.solved is None
    assert "implicitly" in form.describe() and form.describe(latex=True).count("$") % 2 == 0


def test_even_and_odd_parts_are_literal():
    """Odd residual and drift equal the even and odd parts of the map, evaluated as they are defined, to 1e-12."""
    form = orbit_form(md.Map(LOGCOSH, md.GD(0.3)), CHART)
    for at, a in ((1.2, 0.4), (-2.0, 1.7)):
        c, d = np.array([at, 0.0]), np.array([0.0, a])
        F = lambda w: w - 0.3 * gradient(w)  # noqa: E731
        even, odd = (F(c + d) + F(c - d)) / 2, (F(c + d) - F(c - d)) / 2
        assert form.motion([at], [a])[0] == pytest.approx((even - c)[0] / 0.3, rel=1e-12)
        assert form.residual([at], [a])[0] == pytest.approx((-odd - d)[1] / 0.3, rel=1e-12)


def test_a_quartic_valley_is_solved_for():
    """On h(x) y^2 / 2 - y^4 / 4 the amplitude is sqrt(h - 2 / lr), in closed form."""
    loss = md.Loss((1 + x**2) * y**2 / 2 - y**4 / 4, [x, y])
    manifold = md.Manifold(loss, chart={x: s, y: 0}, coordinates=[s])
    form = orbit_form(md.Map(loss, md.GD(0.1)), manifold)
    assert form.solved is not None
    assert sp.simplify(form.solved[0] ** 2 - (1 + s**2 - 2 / lr)) == 0
    assert "amplitude is" in form.describe()


def test_rates_give_the_known_thresholds():
    """2 / lr_odd is the stability limit: 2 (1 + b) / lr for heavy ball, 2 (1 + b) / ((1 + 2 b) lr) for Nesterov."""
    ball = rates(md.Map(LOGCOSH, md.SGD(0.1, momentum=0.5)))
    nesterov = rates(md.Map(LOGCOSH, md.SGD(0.1, momentum=0.5, nesterov=True)))
    assert sp.simplify(ball[0] - lr / (1 + momentum)) == 0 and sp.simplify(ball[1] - lr / (1 - momentum)) == 0
    assert sp.simplify(nesterov[0] - lr * (1 + 2 * momentum) / (1 + momentum)) == 0


ADAPTIVE = {
    "RMSProp": md.RMSProp(0.5, beta2=0.99, eps=0.1),
    "Adam": md.Adam(1.5, beta1=0.5, beta2=0.995, eps=0.1),
    "bounded": bounded(lr=1.5),
    "squared momenta": squared(lr=1.0),
}
LATE = 10**7  # bias corrections are over


@pytest.mark.parametrize("name", ADAPTIVE)
def test_orbits_of_rules_with_accumulators(name):
    """Amplitude, and drift of the mid-point and of the accumulators, are the numerical subquadratic flow's to 1e-10, on
    random points of the chart with random accumulators, beyond the edge and below it."""
    rule = ADAPTIVE[name]
    flow = md.SubquadraticFlow(md.Map(LOGCOSH, rule), manifold=CHART, first_step=LATE)
    form, rng, moving = flow.closed_form(), np.random.default_rng(0), 0
    adds = len(form.coordinates) - 1
    for _ in range(10):
        at = np.concatenate([rng.uniform(0.5, 3, 1), rng.uniform(0.2, 2, adds)])
        here = dict(zip(form.coordinates, at, strict=True))
        beyond = bool(form.threshold[0].subs(here).subs(form.values) > 0)
        a = brentq(lambda a, at=at: form.residual(at, [a])[0], 1e-4, 50, xtol=1e-14) if beyond else 0.0
        momentum = [] if name == "RMSProp" else [2 * at[0] * np.log(np.cosh(a)), 0.0]
        z = np.concatenate([[at[0], 0.0], momentum, at[1:]])
        orbit = flow.orbit(z)
        assert abs(orbit.amplitude[1]) == pytest.approx(a, abs=1e-10)
        drift = flow.drift(np.concatenate([z, orbit.amplitude]), k=LATE)
        found = np.concatenate([drift[:1], drift[len(z) - adds : len(z)]])
        np.testing.assert_allclose(form.motion(at, [a]), found, rtol=0, atol=1e-10)
        moving += beyond
    assert 3 <= moving < 10


def test_orbits_that_do_not_close_are_refused():
    """A valley that leans to one side, a rule that is not linear, minima without a chart: a clear error each."""
    leaning = md.Loss((1 + x**2) * (y**2 / 2 + y**3 / 5), [x, y])
    with pytest.raises(md.FlowError, match="not symmetric"):
        orbit_form(md.Map(leaning, md.GD(0.1)), md.Manifold(leaning, chart={x: s, y: 0}, coordinates=[s]))
    for rule in (md.Lion(0.1), md.AdamW(0.1), md.SGD(lr=0.1 / sp.Symbol("k"))):
        with pytest.raises(md.FlowError, match="not odd and smooth"):
            orbit_form(md.Map(LOGCOSH, rule), CHART)
    turned = md.Loss((1 + (x + y) ** 2) * sp.log(sp.cosh(x - y)), [x, y])
    with pytest.raises(md.FlowError, match="neither across the minima nor along them"):
        orbit_form(md.Map(turned, md.RMSProp(0.1)), md.Manifold(turned, chart={x: s, y: s}, coordinates=[s]))
    with pytest.raises(md.FlowError, match="need a chart"):
        orbit_form(md.Map(LOGCOSH, md.GD(0.1)), md.Manifold(LOGCOSH))


def test_the_flow_says_its_equations_on_a_chart():
    """`describe` and `closed_form` of a subquadratic flow give the orbit's equations where there is a chart."""
    model = md.load_model("logcosh_valley")
    flow = md.SubquadraticFlow(model.map, manifold=model.manifold)
    text = flow._describe(False)
    assert "on the chart:" in text and "tanh(delta)" in text
    assert "ds/dt = -2*s*log(cosh(delta))" in text
    assert "on the chart:" not in md.SubquadraticFlow(model.map).describe()
    assert flow.describe(latex=True).count("$") % 2 == 0


def test_a_model_with_an_adaptive_rule_says_them_too(tmp_path):
    """`minidyn derive` of the valley under RMSProp gives the amplitude implicitly, and the accumulators' equations."""
    text = md.load_model("logcosh_valley").text
    rule = '[rule]\nname = "RMSProp"\nlr = 0.05\neps = 0.1\n'
    (tmp_path / "own.toml").write_text(re.sub(r"\[rule\]\n(.+=.+\n)+", rule, text).replace('"gradient", ', ""))
    flow = next(f for f in md.load_model(tmp_path / "own.toml").flows() if isinstance(f, md.SubquadraticFlow))
    told = "".join(flow.describe().split())  # wherever its lines are folded
    assert "givenimplicitlyby-2*delta+lr*(s**2+1)*tanh(delta)/(eps+sqrt(" in told
    assert "dv_y/dt = " in flow._describe(False)
    assert r"\mathrm{d}v_{y}/\mathrm{d}t" in flow.describe(latex=True)
