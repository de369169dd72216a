"""What a map settles to is named, and a comparison with flows of mid-points says where it is not their oscillation."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.compare import side_by_side
from minidyn.compare.regime import _periods

x, y = sp.symbols("x y")
VALLEY = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
PUSHED = md.Loss(VALLEY.expr - x / 2, [x, y])
QUADRATIC = md.Loss(x**2 / 2 + y**2, [x, y])


def one_line(text: str) -> str:
    """A report without its line breaks."""
    return " ".join(text.split())


def logistic(r: float) -> md.Map:
    """`x' = r x (1 - x)` as gradient descent."""
    return md.Map(md.Loss((1 - r) * x**2 / 2 + r * x**3 / 3, [x]), md.GD(1.0))


@pytest.mark.parametrize(
    ("r", "kind"),
    [
        (2.5, "at rest"),
        (3.2, "period two"),
        (3.5, "period four"),
        (3.55, "period eight"),
        (3.83, "period three"),
        (3.7, "erratic"),
        (4.0, "erratic"),
    ],
)
def test_the_logistic_map(r, kind):
    """The windows of the logistic map (May 1976), with a remark from the period after two on."""
    seen = md.regime(logistic(r), [0.3], 3000)
    assert seen.kind == kind
    assert bool(seen.remark) == (kind not in ("at rest", "period two"))
    assert kind.replace("erratic", "the map is erratic") in seen.remark or not seen.remark


def test_the_exponent_is_lyapunov_s():
    """At r = 4 neighbours part at log 2 per step; at r = 3.2 at half the log of the multiplier of the cycle."""
    long = md.regime(logistic(4.0), [0.3], 4000)
    assert long.exponent == pytest.approx(np.log(2), abs=0.05)  # over 1,024 steps
    cycle = md.regime(logistic(3.2), [0.3], 4000)
    assert cycle.exponent == pytest.approx(np.log(abs(4 + 2 * 3.2 - 3.2**2)) / 2, abs=1e-3)
    high, low = ((4.2 + s * np.sqrt(4.2 * 0.2)) / 6.4 for s in (1, -1))
    assert cycle.amplitude == pytest.approx((high - low) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("system", "w0", "steps", "kind"),
    [
        (md.Map(VALLEY, md.GD(0.1)), [5.0, 0.1], 2000, "at rest"),
        (md.Map(VALLEY, md.GD(0.1)), [5.0, 0.1], 60, "at rest"),  # the oscillation is fading
        (md.Map(QUADRATIC, md.SGD(0.3, momentum=0.9)), [1.0, 1.0], 400, "at rest"),  # a spiral, fading
        (md.Map(QUADRATIC, md.SGD(0.3, momentum=0.999)), [1.0, 1.0], 400, "irregular"),  # a spiral, not yet
        (md.Map(md.Loss(x - y, [x, y]), md.GD(0.1)), [0.0, 0.0], 100, "drifting"),
        (md.Map(QUADRATIC, md.GD(3.0)), [1.0, 1.0], 3000, "diverged"),
        (md.Map(PUSHED, md.RMSProp(0.05, eps=1.0)), [2.0, 0.3], 2000, "period two"),
        (md.Map(QUADRATIC, md.SignGD(0.1)), [1.03, 0.52], 300, "period two"),
        (md.Map(QUADRATIC, md.SGD(0.3, momentum=0.999)), [1.0, 1.0], 40, "unclear"),
    ],
)
def test_regimes_of_rules(system, w0, steps, kind):
    """Rest, drift, fading and lasting spirals, and the oscillation of the edge while its mid-point drifts."""
    seen = md.regime(system, w0, steps)
    assert seen.kind == kind and bool(seen.remark) == (kind == "irregular")


@pytest.mark.parametrize("name", ["minimalist_eos", "quartic", "scalar_deep", "logcosh_valley"])
def test_models_at_the_edge_have_no_remark(name):
    """The library's models at the edge run on period two, or come to rest."""
    model = md.load_model(name)
    seen = md.regime(model.map, model.w0, model.steps)
    assert seen.kind in ("period two", "at rest") and not seen.remark


def test_vanishing_accumulators_make_the_map_irregular():
    """Adam with a small eps where the loss falls to zero bursts now and then: `compare` and `edge` say so and what
    helps; with a large eps they say nothing."""
    words = "remark: at the end the map repeats with no period up to 32 steps"
    for eps, bursts in ((1e-2, True), (1.0, False)):
        system = md.Map(VALLEY, md.Adam(0.05, beta1=0.5, beta2=0.99, eps=eps))
        result = md.compare(system, md.RodFlow(system), w0=[2.0, 0.3], steps=1500, rtol=1e-4, progress=False)
        assert (words in one_line(result.summary())) == bursts
        assert ("a larger eps, or a loss floor" in one_line(result.summary())) == bursts
        assert (words in one_line(md.edge(system, w0=[2.0, 0.3], steps=1500).summary())) == bursts


def test_bursts_are_not_taken_for_rest():
    """An oscillation that has faded is at rest; one that came back before it faded again is not, nor is a quiet end."""
    k = np.arange(1025)
    fading = (-0.9) ** k
    bursts = fading + np.where(k > 300, (-0.9) ** (k - 300.0), 0.0)
    assert _periods(np.stack([[t, 0 * t] for t in (fading, bursts)]).transpose(0, 2, 1)).tolist() == [0, -1]


def test_edge_and_compare_name_a_longer_period(tmp_path):
    """A quartic valley beyond its period doubling: period four, in the summary, in a file, and beside the edge."""
    system = md.Map(md.Loss((1 - 3.5) * x**2 / 2 + 3.5 * x**3 / 3 + y**2 / 2, [x, y]), md.GD(1.0))
    result = md.compare(system, md.RodFlow(system), w0=[0.3, 0.0], steps=300, progress=False)
    sentence = (
        "remark: at the end the map runs on an orbit of period four, not on a period-two orbit about mid-points that"
    )
    assert sentence in one_line(result.summary())
    result.save(tmp_path / "four.h5")
    assert sentence in one_line(md.load(tmp_path / "four.h5").summary())
    assert sentence in one_line(md.edge(system, w0=[0.3, 0.0], steps=300).summary())
    plain = md.compare(system, md.GradientFlow(system), w0=[0.3, 0.0], steps=300, progress=False)
    assert "remark" not in plain.summary()


@pytest.mark.parametrize(
    ("flow", "remarked"),
    [
        (md.GradientFlow, False),
        (md.ModifiedFlow, False),
        (md.CentralFlow, True),
        (md.SubquadraticFlow, True),
        (md.RodFlow, True),
        (lambda system: md.RodFlow(system, order=2), True),
    ],
    ids=["gradient", "modified", "central", "subquadratic", "rod", "rod, order 2"],
)
def test_flows_of_midpoints_carry_the_remark(flow, remarked, monkeypatch):
    """That a map ends on a longer period is said beside flows of mid-points, not beside those of iterates."""
    monkeypatch.setattr(side_by_side, "regimes_of", lambda *_, **__: md.Regime(4, 0.0, 1.0, 256, "."))
    model = md.load_model("quartic")
    result = md.compare(model.map, flow(model.map), w0=model.w0, steps=20, progress=False)
    assert ("orbit of period four" in result.summary()) == remarked


@pytest.mark.parametrize("w0", ["a", [np.nan, 1.0], [[[1.0, 2.0]]], np.empty((0, 2)), None])
def test_regime_refuses_what_is_no_start(w0):
    """Text, NaN, an array of three axes, no points and nothing: an InputError."""
    with pytest.raises(md.InputError):
        md.regime(md.Map(QUADRATIC, md.GD(0.1)), w0, 10)


def test_regime_refuses_what_it_cannot_look_at():
    """A map with noise, no step to compare with another."""
    noisy = md.Map(QUADRATIC, md.SGD(0.1), md.GaussianNoise(0.1))
    for system, w0, steps, words in (
        (noisy, [1.0, 1.0], 100, "without noise"),
        (md.Map(QUADRATIC, md.GD(0.1)), [1.0, 1.0], 0, "at least 2"),
    ):
        with pytest.raises(md.InputError, match=words):
            md.regime(system, w0, steps)


def neighbour(rule, w0, steps, looked):
    """The exponent over the last three quarters of the last `looked` steps, from Jacobians by central differences in
    extended precision of hand-written steps."""
    z, v, logs = np.array([*w0, 0, 0], np.longdouble), np.random.default_rng(0).normal(size=4), []
    for k in range(steps):
        if k >= steps - looked:
            e = np.longdouble(1e-7)
            v = (rule(z + e * v) - rule(z - e * v)) / (2 * e)
            logs.append(np.log(np.abs(v).max()))
            v = v / np.abs(v).max()
        z = rule(z)
    return float(np.mean(logs[looked // 4 :]))


def test_the_exponent_is_that_of_literal_steps():
    """Heavy ball on a tilted double well, erratic: the exponent is that of differences of hand-written steps."""
    loss = md.Loss((x**2 - 1) ** 2 / 4 + x * y / 3 + y**2 / 2, [x, y])

    def rule(z):
        g = np.array([z[0] ** 3 - z[0] + z[1] / 3, z[0] / 3 + z[1]])
        m = np.longdouble(0.1) * z[2:] + g
        return np.concatenate([z[:2] - np.longdouble(1.2) * m, m])

    seen = md.regime(md.Map(loss, md.SGD(1.2, momentum=0.1)), [0.3, 0.2], 60)
    assert seen.exponent == pytest.approx(neighbour(rule, [0.3, 0.2], 60, 60), abs=1e-5)


def test_all_starts_are_looked_at():
    """Three starts of one map: their kinds are those of each alone, counted, and in the remark of a comparison."""
    system = md.Map(md.Loss(x**2 * (x - 1) ** 2 * (0.3 + x) ** 2 * 4, [x]), md.GD(0.2))
    starts = np.linspace(-0.5, 1.3, 37)[:, None]
    seen = md.regime(system, starts, 700)
    alone = [md.regime(system, w, 700) for w in starts]
    assert seen.kinds == [one.kind for one in alone] and len(set(seen.kinds)) > 2
    np.testing.assert_array_equal(seen.exponent, [one.exponent for one in alone])
    assert sum(seen.counts.values()) == 37 and [seen[i] == one for i, one in enumerate(alone)] == [True] * 37
    for kind, count in seen.counts.items():
        assert f"{count} of 37 paths {kind}" in one_line(seen.summary())
    odd = sum(bool(one.remark) for one in alone)
    assert 0 < odd < 37 and seen.remark.startswith(f"{odd} of 37 paths do not run on a period-two orbit")
    beside = md.compare(system, md.RodFlow(system), w0=starts, paths=37, steps=700, missing="remark", progress=False)
    assert seen.remark in one_line(beside.summary())
