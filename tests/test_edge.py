"""Rod and subquadratic flows: against literal steps, known figures, closed forms, discrete runs."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.cli import who_wins
from minidyn.flows.edge.orbit import Orbits, period_of
from minidyn.flows.edge.twostep import TwoStep
from minidyn.maps.recognize import recognized

x, y, z, u = sp.symbols("x y z u")
VALLEY = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
NET = md.Loss.regression(x * sp.tanh(y * u), [x, y], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5) ** 2)


@md.rule
def own(theta, g, m, *, lr, beta=0.7):
    """A rule of our own: a bounded step along an average."""
    m = beta * m + (1 - beta) * g
    return theta - lr * m / sp.sqrt(1 + m**2), m


RULES = {
    "GD": md.GD(0.1),
    "heavy ball": md.SGD(0.1, momentum=0.5),
    "Nesterov": md.SGD(0.1, 0.5, nesterov=True),
    "RMSProp": md.RMSProp(0.1, eps=0.1),
    "Adam": md.Adam(0.1, eps=0.1),
    "own": own(lr=0.1),
}


def point(size, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=size)) + 0.1


@pytest.mark.parametrize("loss", [VALLEY, NET], ids=["expression", "data"])
@pytest.mark.parametrize("name", RULES)
def test_rod_field_is_two_steps_of_the_map(name, loss):
    """The rod's field is made of the map's own steps from its two ends, and their Jacobian is its derivative."""
    system = md.Map(loss, RULES[name])
    n = system.components
    c, d = point(n), 0.05 * point(n, 1)
    plus, minus = system.step(c + d, k=3), system.step(c - d, k=3)
    drift = md.RodFlow(system).drift(np.concatenate([c, d]), k=2) * system.lr()
    np.testing.assert_allclose(drift[:n], (plus + minus) / 2 - c, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(drift[n:], (minus - plus) / 2 - d, rtol=1e-12, atol=1e-14)
    slopes = [(system.step(c + h, k=3) - system.step(c - h, k=3)) / 2e-6 for h in 1e-6 * np.eye(n)]
    np.testing.assert_allclose(TwoStep(system).jacobian(c, 3.0), np.transpose(slopes), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("lr", "sup", "rest"),
    [
        (0.2, 0.4701, (0.75151, 0.56082)),
        (0.1, 0.2827, (0.85227, 0.78887)),
        (0.05, 0.1587, (0.92188, 0.91183)),
        (0.025, 0.08876, (0.96152, 0.95989)),
    ],
)
def test_rod_flow_keeps_its_distance_on_the_valley(lr, sup, rest):
    """Sup distance of the rod flow to GD's mid-points on the log-cosh valley, and where the sharpness of flow and
    GD ends (times lr / 2), to four digits: 1.1 % apart at lr 0.05, 0.2 % at 0.025."""
    system, steps = md.Map(VALLEY, md.GD(lr)), round(40 / lr)
    w0 = [np.sqrt(3 / lr - 1), 1.0]
    mid = who_wins.midpoints(system, w0, steps)
    path, _ = who_wins.path_of(md.RodFlow(system), w0, steps, 1e-9)
    assert np.abs(path - mid)[:, 0].max() == pytest.approx(sup, rel=5e-4)
    ends = [lr * (1 + w[-1, 0] ** 2) / 2 for w in (path, mid)]
    assert ends == pytest.approx(list(rest), abs=2e-4)


@pytest.mark.parametrize("loss", [VALLEY, NET], ids=["expression", "data"])
@pytest.mark.parametrize("name", RULES)
def test_rod_field_of_order_two_is_the_first_turned_along_itself(name, loss):
    """`G - (dG) G / 2` with the derivative of the published field by differences, half a step earlier on the clock."""
    system, k = md.Map(loss, RULES[name]), 6
    n = system.components
    state = np.concatenate([point(n), 0.05 * point(n, 1)])

    def G(z):
        return md.RodFlow(system).drift(z, k - 0.5) * system.lr()

    step = G(state)
    turned = (G(state + 1e-5 * step) - G(state - 1e-5 * step)) / 2e-5
    drift = md.RodFlow(system, order=2).drift(state, k) * system.lr()
    assert np.abs(turned).max() > 1e-3
    np.testing.assert_allclose(drift, step - turned / 2, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "rule",
    [md.GD, lambda lr: md.SGD(lr, 0.5), lambda lr: md.SGD(lr, 0.5, nesterov=True)],
    ids=["GD", "heavy ball", "Nesterov"],
)
def test_rod_flow_has_its_order_below_the_edge(rule, order):
    """At fixed t, after the transient of the momentum, the distance to the map's mid-points falls as lr^order."""
    loss, errors = md.Loss(x**4 / 4 + x * y / 3 + sp.cos(y) + y**2, [x, y]), []
    for lr in (0.0125, 0.00625):
        system, steps = md.Map(loss, rule(lr)), round(2 / lr)
        mid = who_wins.midpoints(system, [1.2, 0.7], steps)
        path, _ = who_wins.path_of(md.RodFlow(system, order=order), [1.2, 0.7], steps, 1e-10)
        errors.append(np.abs(path - mid)[steps // 2 :].max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(("lr", "sup"), [(0.2, 0.3076), (0.1, 0.1349), (0.05, 0.0437), (0.025, 0.0210)])
def test_rod_flow_of_order_two_ends_where_gradient_descent_does(lr, sup):
    """On the log-cosh valley its sup distance is smaller than that of order one, more so for small lr; the sharpness
    ends within 1 % of GD's at lr 0.05 and below."""
    system, steps = md.Map(VALLEY, md.GD(lr)), round(40 / lr)
    w0 = [np.sqrt(3 / lr - 1), 1.0]
    mid = who_wins.midpoints(system, w0, steps)
    path, _ = who_wins.path_of(md.RodFlow(system, order=2), w0, steps, 1e-9)
    assert np.abs(path - mid)[:, 0].max() == pytest.approx(sup, rel=5e-3)
    ends = [lr * (1 + w[-1, 0] ** 2) / 2 for w in (path, mid)]
    assert lr > 0.05 or ends[0] == pytest.approx(ends[1], rel=0.01)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("heavy ball", (1.99, 2.70, 1.87, 0.831)),
        ("Nesterov", (0.674, 0.445, 0.275, 0.158)),
        ("RMSProp, eps = 1", None),
        ("Adam, beta1 = 0.5, eps = 1", None),
    ],
)
def test_rod_flow_of_every_rule_closes_in_as_lr_falls(name, expected):
    """At a drift of order one the sup distance falls with each of the last three rungs of lr."""
    rungs = who_wins.rod_errors(name)
    sups = [sup for _, sup, _ in rungs]
    assert all(drift > 1 for *_, drift in rungs)
    assert sups[1] > sups[2] > sups[3]
    if expected:
        np.testing.assert_allclose(sups, expected, rtol=5e-3)
    else:
        assert sups[3] < 1e-3 * rungs[3][2]


@pytest.mark.parametrize(("lr", "sup"), [(0.2, 0.88), (0.1, 0.59)])
def test_subquadratic_flow_keeps_its_distance_on_the_valley(lr, sup):
    """Slaved flow from the valley's bottom: its known distance within 5 %; from the first pair, closer."""
    row = who_wins.valley_row(lr, 1e-6)
    assert row["slaved"] == pytest.approx(sup, rel=0.05)
    assert row["rod"] < row["slaved, first pair"] < row["slaved"]


def test_thresholds_are_those_of_linear_stability():
    """GD 2/lr, heavy ball 2(1+b)/lr, Nesterov 2(1+b)/((1+2b)lr), Adam 2(1+b1)/((1-b1)lr) in its metric, at any b."""
    rng = np.random.default_rng(5)
    for lr, b in zip(rng.uniform(0.01, 0.5, 3), rng.uniform(0.05, 0.95, 3), strict=True):
        momentum, second = (2 * (1 + b) / lr, 2 * (1 + b) / ((1 - b) * lr)), 0.999
        for rule, known in (
            (md.GD(lr), 2 / lr),
            (md.SGD(lr, b), momentum[0]),
            (md.Adam(lr, b, second, eps=1.0), momentum[1]),
            (md.SGD(lr, b, nesterov=True), momentum[0] / (1 + 2 * b)),
            (md.RMSProp(lr, second, eps=1.0), 2 / lr),
        ):
            steps = TwoStep(md.Map(VALLEY, rule))
            w = np.zeros(steps.size)
            adaptive = rule.name in ("Adam", "RMSProp")
            w[-2:] = 0.25 if adaptive else 0.0
            root = np.sqrt(second * 0.25) + 1.0 if adaptive else 1.0  # sqrt(v') + eps at g = 0
            np.testing.assert_allclose(steps.thresholds(w, 1e6), known * root, rtol=1e-10)
            found = recognized(rule)
            assert found is not None and found.threshold() == pytest.approx(known, rel=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_growth_in_one_dimension_is_the_normal_form(seed):
    """Alone, the coefficient is lr^2 f'''^2/4 - lr f''''/6, and the sign of 3 f'''^2 - f'' f'''' decides."""
    a, b = np.random.default_rng(seed).normal(size=2) * (1.0, 4.0)
    flow = md.SubquadraticFlow(md.Map(md.Loss(y**2 / 2 + a * y**3 / 6 + b * y**4 / 24, [y]), md.GD(2.0)))
    growth = flow.growth([0.0])
    assert growth.coefficient == pytest.approx(a**2 - b / 3, rel=1e-5)
    assert growth.alone == pytest.approx(growth.coefficient, rel=1e-6)
    assert growth.kind == ("subquadratic" if 3 * a**2 > b else "superquadratic")


@pytest.mark.parametrize(("coupling", "kind"), [(1.0, "superquadratic"), (4.0, "subquadratic")])
def test_growth_counts_the_answer_of_other_directions(coupling, kind):
    """Superquadratic alone; the shift of a second direction decides, and the discrete map agrees."""
    loss = md.Loss(10 * y**2 + y**4 / 2 + coupling * y**2 * z + 3 * z**2 / 2, [y, z])
    system = md.Map(loss, md.GD(0.1002))
    growth = md.SubquadraticFlow(system).growth([0.0, 0.0])
    assert growth.kind == kind and growth.alone < 0
    run = md.simulate(system, [0.003, 0.0], 60_000, save_every=60_000)
    bounded = bool(run.finished.all()) and abs(run.w[0, -1, 0]) < 0.5
    assert bounded == (kind == "subquadratic")


def test_orbit_in_two_unstable_directions():
    """On (1 + x^2)(log cosh y + 0.9 log cosh z) both amplitudes solve their own h tanh d = 2 d / lr."""
    loss = md.Loss((1 + x**2) * (sp.log(sp.cosh(y)) + sp.Rational(9, 10) * sp.log(sp.cosh(z))), [x, y, z])
    orbit = md.SubquadraticFlow(md.Map(loss, md.GD(0.05))).orbit([np.sqrt(49.0), 0.0, 0.0])
    _, dy, dz = np.abs(orbit.amplitude)
    assert dy > 0.3 and dz > 0.2 and orbit.stable
    assert 50 * np.tanh(dy) == pytest.approx(40 * dy, rel=1e-10)
    assert 45 * np.tanh(dz) == pytest.approx(40 * dz, rel=1e-10)


def test_orbit_of_a_lopsided_valley_is_that_of_the_map():
    """On (1 - x^2 y^2)^2 / 4, superquadratic along the valley's normal alone, the orbit found is the map's own."""
    system = md.Map(md.Loss((1 - x**2 * y**2) ** 2 / 4, [x, y]), md.GD(0.001))
    c = [np.sqrt(1030.0), 1 / np.sqrt(1030.0)]
    orbit = md.SubquadraticFlow(system).orbit(c)
    w = orbit.midpoint - orbit.amplitude
    there = system.step(w)
    np.testing.assert_allclose(there[1], (orbit.midpoint + orbit.amplitude)[1], rtol=1e-6)
    np.testing.assert_allclose(system.step(there)[1], w[1], rtol=1e-4)
    assert abs(orbit.amplitude[1]) > 1e-3


def test_orbit_branches_off_and_dies_out():
    """Pushed along the valley past the threshold the amplitude grows out of zero, to the root of (h - 2/lr)/4; free, it
    dies."""
    rising = md.load_model("quartic").map
    flow, given = md.SubquadraticFlow(rising), {"w0": [9.8, 0.0], "steps": 60, "save_every": 10, "rtol": 1e-6}
    up = md.edge(rising, flow, **given).amplitude["subquadratic flow"]
    h = 1 + md.simulate(flow, **given).w[0, -3:, 0] ** 2
    assert up[0] == 0 and up[-1] > 0.1
    np.testing.assert_allclose(up[-3:] ** 2, (h - 2 / 0.02) / 4, rtol=1e-4)
    free = md.Map(VALLEY, md.GD(0.2))
    down = md.edge(free, md.SubquadraticFlow(free), w0=[3.2, 0.0], steps=80, save_every=20, rtol=1e-6)
    down = down.amplitude["subquadratic flow"]
    assert down[0] > 0.1 and down[-1] == 0


@pytest.mark.parametrize(
    ("expr", "at", "lr", "status", "words"),
    [
        (y**2 / 2 + y**4 / 4, [0.0], 2.1, md.Status.NO_ORBIT, "superquadratic"),
        (y**2 / 2 - y**3 / 3, [0.0], 2.47, md.Status.PERIOD_FOUR, "period-four"),
        (y**2 / 2 - y**3 / 3, [0.0], 2.7, md.Status.CHAOTIC, "chaotic"),
    ],
)
def test_what_the_map_does_without_a_stable_orbit_is_named(expr, at, lr, status, words):
    """Escape, period four and chaos (the logistic map in disguise) end the flow with their own status and words."""
    orbits = Orbits(md.Map(md.Loss(expr, [y]), md.GD(lr)))
    with pytest.raises(Exception, match="no stable period-two orbit") as failure:
        orbits.find(np.array(at), np.zeros(1))
    named = orbits.instead(np.array(at), np.zeros(1), 1.0, failure.value)
    assert named.code == status and words in named.reason
    with pytest.raises(md.FlowError, match=words):
        md.SubquadraticFlow(orbits.map).orbit(at)


def test_a_flow_stops_where_its_orbit_doubles():
    """As lr grows the path ends with the status of the longer orbit, NaN after it."""
    k = sp.Symbol("k")
    system = md.Map(md.Loss(y**2 / 2 - y**3 / 3, [y]), md.GD(2.3 + k / 100))
    run = md.simulate(md.SubquadraticFlow(system), [0.01], 30, save_every=1, rtol=1e-5)
    assert run.status[0] == md.Status.PERIOD_FOUR
    assert abs(run.ended[0] - 14) <= 1  # the logistic map doubles again at lr = sqrt(6) = 2.449, k = 14.9
    assert np.isnan(run.w[0, -1]).all() and "near theta" in run.meta["reason"]


def test_periods_of_sequences():
    """`period_of` knows rest, short periods and none."""
    k = np.arange(200.0)[:, None]
    assert [period_of(v) for v in (0 * k + 3, np.cos(np.pi * k / 2), np.cos(k))] == [1, 4, 0]


def test_compare_takes_midpoints():
    """Beside a flow of mid-points the map is compared at (theta_k + theta_{k+1}) / 2."""
    system = md.Map(VALLEY, md.GD(0.1))
    result = md.compare(system, md.RodFlow(system), w0=[5.0, 1.0], steps=40, paths=1, save_every=10)
    mid = who_wins.midpoints(system, [5.0, 1.0], 40)
    np.testing.assert_allclose(result.quantities["x"]["GD"][0], mid[result.steps, 0], rtol=1e-14)
    assert "mid-points" in result.summary()


def test_edge_measures_in_the_rules_own_metric():
    """Sharpness of RMSProp is that of P^(1/2) H P^(1/2), against 2/lr; the amplitude is half a step."""
    system = md.Map(VALLEY, md.RMSProp(0.1, beta2=0.9, eps=0.5))
    seen = md.edge(system, md.RodFlow(system), w0=[2.0, 0.3], steps=20, save_every=10)
    state = system.initial_state([2.0, 0.3])
    for k in range(1, 11):
        state = system.step(state, k=k)
    after = system.step(state, k=11)
    c = (state + after) / 2
    g = VALLEY.grad(c[:2])
    v = np.sqrt(0.9 * c[2:] + 0.1 * g**2)
    direct = (v + 0.5 - 0.1 * g**2 / v) / (v + 0.5) ** 2  # of g / (sqrt(v') + eps), by g
    through = -0.45 * g / v / (v + 0.5) ** 2 * 0.2 * g / -1.9  # by v, which flips along: -v = 0.9 v + 0.2 g g
    root = np.sqrt(direct + through)
    expected = np.linalg.eigvalsh(root[:, None] * VALLEY.hessian(c[:2]) * root)[-1]
    assert seen.sharpness[1] == pytest.approx(expected, rel=1e-10)
    assert seen.threshold == 20.0
    assert seen.amplitude["RMSProp"][1] == pytest.approx(np.linalg.norm((after - state)[:2]) / 2, rel=1e-12)
    with pytest.raises(md.InputError, match="predicts no oscillation"):
        md.edge(system, md.QuasistaticFlow(md.Map(VALLEY, md.GD(0.1), md.GaussianNoise(0.1))), w0=[2.0, 0.3], steps=2)


def test_who_wins_table():
    """On the minimalist model the rod flow wins, gradient flow comes last, and the table says so."""
    entries = who_wins.entries_of("minimalist_eos", steps=80)
    sup = {e.flow: e.sup for e in entries}
    assert 2 * sup["rod"] < min(sup["subquadratic"], sup["central"]) < max(sup["subquadratic"], sup["central"])
    assert max(sup.values()) == sup["gradient"]
    head, _, row = (line.split(" | ") for line in who_wins.flows_table(entries))
    assert row[:2] == ["| minimalist_eos", "80"]
    assert [h for h, cell in zip(head, row, strict=False) if cell.startswith("**")] == ["rod, order 2"]


@pytest.mark.parametrize("make", [
    md.RodFlow, lambda m: md.RodFlow(m, order=2), md.ModifiedFlow, md.CentralFlow, md.SubquadraticFlow,
])  # fmt: skip
def test_what_overflows_is_not_called_singular(make):
    """GD divides by nothing: where the slopes of `exp(x^2)` overflow its flows diverge, or say that, without a warning;
    RMSProp without eps is singular where its accumulator vanishes."""
    x = sp.Symbol("x")
    try:
        flow = make(md.Map(md.Loss(sp.exp(x**2), [x]), md.GD(0.1)))
        run = md.simulate(flow, [9.0], 20)
        told = f"{run.meta.get('reason')} {flow.explain(6)}"
        assert run.status == md.Status.DIVERGED
    except md.FlowError as error:
        told = str(error)
    assert "accumulator" not in told and "eps" not in told and ("overflow" in told or "too large" in told)
    assert "eps" in md.RodFlow(md.Map(md.Loss(x**2 / 2, [x]), md.RMSProp(0.1, eps=0))).explain(6)
