"""Distances between laws: their values, their noise, and what could be seen."""

import re

import numpy as np
import pytest
import scipy.stats
import sympy as sp

import minidyn as md
from minidyn.compare.comparison import row_of
from minidyn.compare.distributions import DISTANCES, LawRow, distances

RNG = np.random.default_rng


def test_values_are_scipys():
    """Wasserstein-1, KS and energy distance are those of scipy, with ties and unequal sizes too."""
    for seed in range(5):
        rng = RNG(seed)
        a, b = rng.normal(size=40), rng.gamma(2, size=55)
        if seed > 2:
            a, b = a.round(), b.round()
        found = distances(a, b, False, 3, rng)
        expected = (
            scipy.stats.wasserstein_distance(a, b),
            scipy.stats.ks_2samp(a, b).statistic,
            scipy.stats.energy_distance(a, b),
        )
        np.testing.assert_allclose([found[name][0] for name in DISTANCES], expected, rtol=1e-12)


def samples(rng, paired, shift=0.0, n=60):
    """Two samples of one law, apart from a shift: independent, or path by path close together."""
    a = rng.normal(size=n)
    b = a * 0.8 + 0.6 * rng.normal(size=n) if paired else rng.normal(size=n)
    return a, b + shift


@pytest.mark.parametrize("paired", [False, True])
def test_equal_laws_are_found_different_in_five_percent(paired):
    """Of 400 pairs of samples of one law 5 % are called different by each distance, within 3.5 standard errors."""
    count = 400
    p = np.array(
        [
            [found[name][2] for name in DISTANCES]
            for found in (distances(*samples(RNG([9, i]), paired), paired, 99, RNG(i)) for i in range(count))
        ]
    )
    rates = (p <= 0.05).mean(axis=0)
    assert (np.abs(rates - 0.05) < 3.5 * np.sqrt(0.05 * 0.95 / count)).all(), rates


@pytest.mark.parametrize("paired", [False, True])
def test_detectable_differences_are_detected(paired):
    """Laws whose true Wasserstein distance is `detectable` are told apart in at least 80 % of 100 cases."""
    shift = float(
        np.mean([distances(*samples(RNG([8, i]), paired), paired, 99, RNG(i))["Wasserstein-1"][4] for i in range(20)])
    )
    hits = [
        distances(*samples(RNG([7, i]), paired, shift), paired, 99, RNG(i))["Wasserstein-1"][2] <= 0.05
        for i in range(100)
    ]
    assert np.mean(hits) >= 0.8


def test_common_noise_lets_smaller_differences_be_seen():
    """For nearly equal pairs the noise is that of the pairs, not that of the samples."""
    a = RNG(0).normal(size=500)
    b = a + 0.01 * RNG(1).normal(size=500)
    together, apart = (distances(a, b, paired, 99, RNG(2))["Wasserstein-1"] for paired in (True, False))
    assert 20 * together[4] < apart[4]


def test_error_is_that_of_repeated_samples():
    """The bootstrap error of the Wasserstein distance is the spread over repeated samples, within 30 %."""
    values, errors = np.array(
        [distances(*samples(RNG([6, i]), False, 1.0), False, 99, RNG(i))["Wasserstein-1"][:2] for i in range(200)]
    ).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.3)


@pytest.fixture(scope="module")
def compared():
    sgd = md.load_model("valley").map
    x, lr = sgd.loss.params[0], sgd.lr()
    drift = -lr * x / 4 / ((1 + x**2) * (2 - lr * (1 + x**2)))
    louder = md.SymbolicFlow(sgd, [drift, 0], [[lr**0.5 / 2], [0]], reads="projected")
    flows = [md.QuasistaticFlow(sgd), louder, md.GradientFlow(sgd)]  # the second with twice the noise: another law
    return md.compare(sgd, *flows, w0=[2, 0], steps=200, paths=300, rng=0, save_every=100, substeps=10)


def test_comparison_tells_the_right_law_from_a_wrong_one(compared):
    """The right flow is indistinguishable, one with twice the noise is not; a flow without spread has no law."""
    last = {(law.flow, law.distance): law for law in compared.laws() if law.step == 200 and law.quantity == "x"}
    right, wrong = list(compared.runs)[1:3]
    assert {flow for flow, _ in last} == {right, wrong}
    for name in DISTANCES:
        assert not last[right, name].distinguishable and last[wrong, name].distinguishable
        assert last[right, name].value < last[right, name].detectable < last[wrong, name].value


def test_rounding_is_no_difference_of_laws():
    """A flow that is the map itself, path by path but for rounding, has its law; one shifted by 0.1 has another."""
    sgd = md.load_model("valley").map
    flow = md.StochasticModifiedFlow(sgd)
    same = md.compare(sgd, flow, w0=[2, 0.1], steps=40, paths=50, rng=0, substeps=1, observe="loss")
    assert any(r.difference != 0 for r in same.errors) and len(same.laws(99)) == 3 * len(same.errors) > 0
    assert all(law.value == 0 and not law.distinguishable for law in same.laws(99))
    same.quantities["x"][flow.label] += 0.1
    assert all(law.distinguishable for law in same.laws(99) if law.quantity == "x" and law.distance == "Wasserstein-1")


def test_verdict_in_words(compared):
    """The summary says at how many paths laws cannot be told apart, and from where they could; so does a row."""
    verdicts = re.findall(r"^  x .* (agree|differ) +(agree|differ|-)$", compared.summary(), re.MULTILINE)
    assert [laws for _, laws in verdicts] == ["agree", "differ"]
    assert "distance of the laws at step 200 (in brackets: what 300 paths would show)" in compared.summary()
    assert max(map(len, compared.summary().splitlines())) <= 80
    row = LawRow("x", "flow", 40, 2.0, "KS", 0.03, 0.01, 0.4, 0.05, 0.08, 1000)
    assert str(row) == (
        "x at step 40: indistinguishable at 1,000 paths, KS distance 0.03 ± 0.01 (p = 0.4); detectable from 0.08"
    )


def test_same_seed_same_rows_after_loading_too(compared, tmp_path):
    """Laws are a function of the comparison: the same from the file."""
    compared.save(tmp_path / "c.h5")
    assert md.load(tmp_path / "c.h5").laws(seed=1) == compared.laws(seed=1)
    assert compared.laws(seed=2) != compared.laws(seed=1)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_large_numbers_are_compared_as_small_ones(seed, paired):
    """The row and the laws of values near the largest numbers are those of the same values times a power of two."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 130))
    a = rng.standard_normal(n) * np.exp(rng.standard_normal(n))
    b = a + 0.1 * rng.standard_normal(n) if paired else rng.standard_normal(n + seed)
    power = float(rng.integers(600, 1018))
    scale = 2.0**power
    row, large = (row_of("x", "flow", u * a, u * b, 1, 1.0, paired) for u in (1.0, scale))
    for name in ("map_mean", "map_spread", "flow_mean", "flow_spread", "difference", "standard_error"):
        assert getattr(large, name) == scale * getattr(row, name)
    assert large.sigmas == row.sigmas
    np.testing.assert_array_equal(large.variance_ratio, row.variance_ratio)
    laws, larger = (distances(u * a, u * b, paired, 99, np.random.default_rng(seed)) for u in (1.0, scale))
    for (name, law), unit in zip(laws.items(), (scale, 1.0, np.sqrt(scale)), strict=True):
        np.testing.assert_allclose(larger[name], law * [unit, unit, 1, unit, unit], rtol=1e-12)


def test_paths_that_pass_every_bound_are_told_in_numbers():
    """Where paths grow to 1e300 and their loss is no number any more, tables have no infinite spread or error, a value
    that was large at its time is no zero, and the figure says that something diverges."""
    x = sp.Symbol("x")
    unstable = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(4.0), md.GaussianNoise(0.1))
    flows = md.StochasticModifiedFlow(unstable), md.GradientFlow(unstable)
    result = md.compare(unstable, *flows, w0=[1.0], steps=640, paths=40, rng=0, observe="loss", coupled=False)
    text = result.summary()
    assert "inf" not in text and "nan" not in text
    assert re.search(r"^   129 +-\d\.\d+e61 ± \d\.\de60 ", text, re.MULTILINE)
    assert re.search(r"^  x +\d+ .* differ", text, re.MULTILINE) and "passed what numbers hold" in text
    fig = result.plot()
    assert "what diverges leaves the picture" in [ax.get_title(loc="right") for ax in fig.axes]
    fig.canvas.draw()
