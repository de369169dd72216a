"""Bifurcation diagrams: periods and exponents against literal loops, known windows and log 2, for every rule."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.compare.bifurcation import _periods
from minidyn.compare.tangent import Tangent, varied

x, y, r = sp.symbols("x y r")
LOGISTIC = md.Map(md.Loss((1 - r) * x**2 / 2 + r * x**3 / 3, [x], constants={r: 2.5}), md.GD(1.0))
WELLS = md.Loss((x**2 - 1) ** 2 / 4 + x * y / 5 + (1 + x**2) * y**2 / 2, [x, y])
RULES = [
    md.GD(0.5), md.SGD(0.5, momentum=0.3), md.SGD(0.5, momentum=0.3, nesterov=True), md.SignGD(0.11), md.Lion(0.11),
    md.RMSProp(0.35, eps=0.4), md.Adam(0.6, beta1=0.2, beta2=0.9, eps=0.3),
    md.AdamW(0.6, beta1=0.2, beta2=0.9, eps=0.3),
]  # fmt: skip


def literal(mu, steps, start=0.3):
    """The logistic map, step by step: points and the mean logarithm of its slope."""
    points, logs = np.empty(steps), np.empty(steps)
    z = start
    for k in range(steps):
        logs[k] = np.log(abs(mu * (1 - 2 * z)))
        z = mu * z * (1 - z)
        points[k] = z
    return points, logs


def test_the_logistic_map_is_followed_literally():
    """Where it is regular, points and exponents of a hand-written loop over the same steps to 1e-9."""
    values = np.array([2.8, 3.2, 3.5, 3.55, 3.74, 3.83, 3.9])
    seen = md.bifurcation(LOGISTIC, r, values, w0=[0.3], steps=600, keep=100)
    for i, mu in enumerate(values):
        points, logs = literal(mu, 600)
        if mu != 3.9:  # where rounding decides
            np.testing.assert_allclose(seen.points["x"][i], points[-100:], rtol=0, atol=1e-9)
            assert seen.exponent[i] == pytest.approx(logs[375:].mean(), abs=1e-9)
    assert seen.period.tolist() == [1, 2, 4, 8, 5, 3, 0]
    assert seen.kinds == ["at rest", "period 2", "period 4", "period 8", "period 5", "period 3", "erratic"]


def test_the_exponent_at_the_fully_chaotic_end_is_log_two():
    """At r = 4 the logistic map is conjugate to doubling an angle: log 2, over 30,000 steps."""
    seen = md.bifurcation(LOGISTIC, r, [4.0 - 1e-12], w0=[0.3], steps=80_000, keep=16)
    assert seen.exponent[0] == pytest.approx(np.log(2), abs=0.01) and seen.kinds == ["erratic"]


@pytest.mark.parametrize(("mu", "before", "after"), [
    (3.0, 1, 2), (1 + 6**0.5, 2, 4), (3.54409035955192, 4, 8), (3.5687594195438265, 16, 32), (1 + 8**0.5, 0, 3),
])  # fmt: skip
def test_periods_beside_bifurcations(mu, before, after):
    """A few millionths on either side of a bifurcation, where no run has settled, the period is that of theory."""
    away = 3e-6 if after < 32 else 3e-7
    seen = md.bifurcation(LOGISTIC, r, [mu - away, mu + away], w0=[0.3], steps=4000)
    assert seen.period.tolist() == [before, after]
    late = literal(mu + away, 4000)[0]
    if before:
        assert abs(late[-1] - late[-1 - after]) > 1e-9  # it has not


def test_long_periods_are_found():
    """Period 64 of the cascade, at its superstable value, and none beyond."""
    grid = np.linspace(3.569692, 3.569891, 7)[1:-1]
    assert set(md.bifurcation(LOGISTIC, r, grid, w0=[0.3], steps=40_000).period.tolist()) == {64}
    longer = md.bifurcation(LOGISTIC, r, [3.5699120], w0=[0.3], steps=40_000)
    assert longer.period[0] == 0 and longer.kinds == ["irregular"]


def test_the_orbit_of_a_scalar_product():
    """Of `(x y - 1)^2 / 2` from a balanced start, beyond lr = 1: `u1 u2 = 1/lr`, `(u1 + u2)^2 = 1 + 3/lr`, to 1e-12."""
    values = np.linspace(1.05, 1.2, 7)
    seen = md.bifurcation(md.Map(md.Loss((x * y - 1) ** 2 / 2, [x, y]), md.GD(1.0)), "lr", values, w0=[0.9, 0.9])
    u, v = seen.points["x"][:, -1], seen.points["x"][:, -2]
    np.testing.assert_allclose(u * v, 1 / values, rtol=1e-12)
    np.testing.assert_allclose((u + v) ** 2, 1 + 3 / values, rtol=1e-12)
    np.testing.assert_allclose(seen.points["y"], seen.points["x"], rtol=1e-12)


def test_a_quiet_phase_is_no_rest():
    """Adam where its accumulators vanish rests beside a minimum that does not attract until it bursts again: a run that
    is quiet for its last 256 steps is called erratic, and one that has settled after an erratic transient is not."""
    quiet = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)) - x / 3 + x**4 / 50, [x, y]), md.Adam(0.1, eps=0.1))
    seen = md.bifurcation(quiet, "lr", [1.6], w0=[1.0, 0.3], steps=4000)
    assert np.ptp(seen.points["y"]) < 1e-6 and seen.exponent[0] > 0.03 and seen.kinds == ["erratic"]
    tangent, z = Tangent(LOGISTIC), np.full((1, 1), 0.3)
    own = tangent.numbers(1, varied(LOGISTIC, r, np.array([3.835])))
    theta, _ = tangent.follow(z, 900, 200, own)
    assert _periods(tangent, z, theta, np.array([5.0]), own).tolist() == [3]


def monodromy(system, z, n):
    """The Jacobian of n steps by central differences of `Map.step` at a late step."""
    out = np.empty((len(z), len(z)))
    for j in range(len(z)):
        ends = []
        for sign in (1, -1):
            w = z.copy()
            w[j] += sign * 1e-6
            for _ in range(n):
                w = system.step(w, k=10**6, noise=False)
            ends.append(w)
        out[:, j] = (ends[0] - ends[1]) / 2e-6
    return out


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}{len(rule.states)}")
def test_every_rule(rule):
    """Periods are the first return of a loop of single steps, points its points, exponents those of central
    differences."""
    system, lrs = md.Map(WELLS, rule), np.linspace(0.5, 1.3, 5) * rule.hyper["lr"]
    seen = md.bifurcation(system, "lr", lrs, w0=[0.7, 0.3], steps=3000, keep=130)
    checked = 0
    for i, lr in enumerate(lrs):
        one, z = system.with_lr(lr), system.initial_state([0.7, 0.3])
        orbit = [z]
        for k in range(1, 3001):
            orbit.append(one.step(orbit[-1], k=k, noise=False))
        theta = np.array(orbit)[:, :2]
        away = [np.abs(theta[-p:] - theta[-2 * p : -p]).max() for p in range(1, 65)]
        if not np.isfinite(theta).all() or min(away) > 1e-9:
            continue
        period = 1 + int(np.argmax(np.array(away) <= 1e-9))
        assert seen.period[i] == period
        np.testing.assert_allclose(seen.points["x"][i], theta[-130:, 0], rtol=0, atol=1e-7)
        smooth = rule.name not in ("SignGD", "Lion") and ("eps" not in rule.hyper or np.abs(orbit[-1]).min() > 1e-5)
        if smooth:
            largest = np.abs(np.linalg.eigvals(monodromy(one, orbit[-1], period))).max()
            assert seen.exponent[i] == pytest.approx(np.log(largest) / period, abs=0.02)
        checked += 1
    assert checked >= 2


def test_each_value_is_as_alone():
    """Values do not know of each other, nor of threads: the same bits in any company."""
    values = np.linspace(3.4, 3.9, 150)
    many = md.bifurcation(LOGISTIC, r, values, w0=[0.3], steps=400, keep=40, threads=2)
    assert many == md.bifurcation(LOGISTIC, r, values, w0=[0.3], steps=400, keep=40, threads=1)
    few = md.bifurcation(LOGISTIC, r, values[70:80], w0=[0.3], steps=400, keep=40)
    np.testing.assert_array_equal(few.points["x"], many.points["x"][70:80])
    np.testing.assert_array_equal(few.exponent, many.exponent[70:80])
    own = np.linspace(0.2, 0.6, 150)[:, None]
    starts = md.bifurcation(LOGISTIC, r, values, w0=own, steps=400, keep=40)
    one = md.bifurcation(LOGISTIC, r, values[9:10], w0=own[9], steps=400, keep=40)
    np.testing.assert_array_equal(starts.points["x"][9], one.points["x"][0])


def test_observables_belong_to_their_value():
    """The loss, an expression and a function, where a constant of the loss varies: those of each value's own loss."""
    values = np.array([2.7, 3.2, 3.9])
    watched = {"height": "loss", "scaled": r * x, "square": lambda w: w[:, 0] ** 2}
    seen = md.bifurcation(LOGISTIC, r, values, w0=[0.3], steps=200, keep=20, observe=watched)
    w = seen.points["x"]
    for i, mu in enumerate(values):
        np.testing.assert_allclose(seen.points["height"][i], (1 - mu) * w[i] ** 2 / 2 + mu * w[i] ** 3 / 3, rtol=1e-13)
        np.testing.assert_allclose(seen.points["scaled"][i], mu * w[i], rtol=1e-14)
    np.testing.assert_array_equal(seen.points["square"], w**2)


def test_windows_and_words(tmp_path):
    """Windows tile the values; the summary, the HTML, a file and the picture say what is there, divergence too."""
    values = np.linspace(2.9, 4.1, 121)
    seen = md.bifurcation(LOGISTIC, r, values, w0=[0.3], steps=400)
    windows = seen.windows
    assert sum(w.count for w in windows) == 121 and windows[-1].kind == "diverged"
    assert (windows[0].kind, windows[1].kind, round(windows[1].first, 2)) == ("at rest", "period 2", 3.01)
    assert np.isnan(seen.points["x"][-1]).all() and np.isnan(seen.exponent[-1]) and seen.period[-1] == -1
    for word in ("period 2", "erratic", "diverged", "121 values of r"):
        assert word in seen.summary() and word in seen._repr_html_()
    assert max(map(len, seen.summary().split("\n"))) <= 80
    seen.save(tmp_path / "diagram.h5")
    again = md.load(tmp_path / "diagram.h5")
    assert again == seen and again.summary() == seen.summary()
    labels = [text.get_text() for text in again.plot().legends[0].get_texts()]
    assert {"erratic", "diverged", "at rest, or with a period"} <= set(labels)
    assert len(seen.plot(panels="exponent").axes) == 1


def test_a_range_of_learning_rates_is_named():
    """Title and summary name the range of the parameter, not the number that the map was made with."""
    seen = md.bifurcation(md.Map(WELLS, md.GD(0.123)), "lr", np.geomspace(0.01, 1.0, 60), w0=[0.7, 0.3], steps=100)
    assert "GD(lr=0.01 to 1)" in seen.summary() and "0.123" not in seen.summary()
    fig = seen.plot()
    assert {ax.get_xscale() for ax in fig.axes} == {"log"} and fig.axes[0].get_xlabel().startswith("lr")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"values": [1.0, 1.0]}, "increasing list"),
        ({"values": []}, "increasing list"),
        ({"values": [1.0, np.nan]}, "increasing list"),
        ({"values": "a"}, "must be real numbers"),
        ({"over": "beta"}, "is no number of this map"),
        ({"over": ["lr"]}, "over names a number of the map"),
        ({"over": "lr", "values": [-1.0, 1.0]}, "must be positive"),
        ({"keep": 300}, "at most half of the 400 steps"),
        ({"w0": [0.1, 0.2]}, "w0 has shape"),
        ({"w0": [[0.1], [0.2], [0.3]]}, "expected \\(1,\\) for all values or \\(2, 1\\)"),
        ({"w0": [np.inf]}, "NaN or Inf"),
        ({"observe": "sharpest"}, "no observable is called"),
        ({"system": md.Map(LOGISTIC.loss, md.SGD(1.0), md.GaussianNoise(0.1))}, "without noise"),
        ({"system": md.Map(LOGISTIC.loss, md.GD(1 / sp.Symbol("k")))}, "changes from step to step"),
    ],
)
def test_bifurcation_refuses(options, words):
    """What does not fit: one sentence."""
    given = {"system": LOGISTIC, "over": r, "values": [2.0, 3.0], "w0": [0.3], "steps": 400, **options}
    with pytest.raises(md.InputError, match=words):
        md.bifurcation(**given)
