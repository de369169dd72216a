"""Comparisons and models: coupled error bars, tables, the library."""

import re

import numpy as np
import pytest
import scipy.stats
import sympy as sp

import minidyn as md

x, y = sp.symbols("x y")


@pytest.fixture(scope="module")
def valley():
    return md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05), md.GaussianNoise(0.25))


@pytest.fixture(scope="module")
def flow(valley):
    return md.QuasistaticFlow(valley)


@pytest.fixture(scope="module")
def coupled(valley, flow):
    return md.compare(valley, flow, w0=[2, 0], steps=1000, paths=500, rng=4, save_every=100, substeps=10)


def test_coupling_removes_most_of_the_monte_carlo_error(valley, flow, coupled):
    """With the same normals the standard error of the difference is at least five times smaller in variance."""
    apart = md.compare(
        valley, flow, w0=[2, 0], steps=1000, paths=500, rng=4, save_every=100, substeps=10, coupled=False
    )
    assert coupled.meta["coupled"] and not apart.meta["coupled"]
    together, separate = (next(r for r in c.errors[::-1] if r.quantity == "x") for c in (coupled, apart))
    assert (separate.standard_error / together.standard_error) ** 2 > 5


def test_coupling_is_worth_what_the_summary_says(valley, flow, coupled):
    """The variance ratio of a row is the one against a run with independent noise, within 40 %; it is in the table."""
    apart = md.compare(
        valley, flow, w0=[2, 0], steps=1000, paths=500, rng=4, save_every=100, substeps=10, coupled=False
    )
    for row, other in zip(coupled.errors, apart.errors, strict=True):
        # the ratio of two variances of 500 numbers each has a relative error of 9 %
        assert row.variance_ratio == pytest.approx((other.standard_error / row.standard_error) ** 2, rel=0.4)
        assert row.variance_ratio > 5 and np.isnan(other.variance_ratio)
    ratios = [row.variance_ratio for row in coupled.errors]
    said = re.search(r"as sharp as with ([\d.,]+) to ([\d.,]+) times as many", " ".join(coupled.summary().split()))
    assert [float(end.replace(",", "")) for end in said.groups()] == pytest.approx([min(ratios), max(ratios)], rel=0.06)
    assert "as sharp as" not in apart.summary()


def test_intervals_are_students_and_welchs(valley, flow, coupled):
    """Intervals of the difference are scipy's: of one sample for paired paths, of two for independent ones."""
    options = {"w0": [2, 0], "steps": 100, "paths": 40, "save_every": 100, "substeps": 10, "rng": 1, "rows": 1}
    for together in (True, False):
        result = md.compare(valley, flow, coupled=together, **options)
        a, b = (result.quantities["x"][label][:, -1] for label in result.runs)
        test = scipy.stats.ttest_1samp(b - a, 0) if together else scipy.stats.ttest_ind(b, a, equal_var=False)
        np.testing.assert_allclose(result.errors[0].interval(0.9), test.confidence_interval(0.9), rtol=1e-9)


def test_a_flow_that_does_not_exist_is_left_out(tmp_path):
    """Where one flow of several does not exist, the others are compared as without it, and the summary says why."""
    system = md.Map(md.Loss((1 - x**2 * y**2) ** 2 / 4, [x, y]), md.GD(50.0))
    given = {"w0": md.load_model("minimalist_eos").w0, "steps": 30, "save_every": 5, "missing": "remark"}
    flows = [md.SubquadraticFlow(system), md.GradientFlow(system)]
    with pytest.raises(md.FlowError, match="no period-two orbit"):
        md.compare(system, *flows, **given | {"missing": "raise"})
    result = md.compare(system, *flows, **given)
    assert list(result.runs) == ["GD", "gradient flow"]
    assert "no period-two orbit" in result.meta["missing"]["subquadratic flow"]
    assert "\nleft out: subquadratic flow at theta = " in result.summary()
    alone = md.compare(system, flows[1], **given | {"missing": "raise"})
    assert alone.meta["missing"] == {}
    np.testing.assert_array_equal(alone.runs["gradient flow"].w, result.runs["gradient flow"].w)
    result.save(tmp_path / "left.h5")
    assert md.load(tmp_path / "left.h5").meta["missing"] == result.meta["missing"]
    with pytest.raises(md.FlowError, match="no period-two orbit"):  # nothing would be left
        md.compare(system, flows[0], **given)
    with pytest.raises(md.InputError, match="missing is 'raise' or 'remark', not 'skip'"):
        md.compare(system, *flows, **given | {"missing": "skip"})


def test_an_order_after_the_name_of_a_flow_reaches_it(tmp_path):
    """`flows = ["rod 2", "modified 3"]` in a model file are those flows of that order."""
    path = tmp_path / "edge.toml"
    path.write_text(md.load_model("logcosh_valley").text.replace('"rod"]', '"rod", "rod 2", "modified 3"]'))
    model = md.load_model(path)
    assert [f.name for f in model.flows()][3:] == ["rod flow", "rod flow, order 2", "modified flow, order 3"]
    assert [f.order for f in model.flows(charted=False)[3:]] == [1, 2, 3]


def test_rows_say_what_the_runs_hold(coupled):
    """A row's means, spreads and paired error are those of the paths, recomputed from the quantities."""
    row = coupled.errors[-1]
    place = list(coupled.steps).index(row.step)
    a, b = (coupled.quantities[row.quantity][label][:, place] for label in coupled.runs)
    assert row.map_mean == a.mean() and row.flow_mean == b.mean()
    assert row.standard_error == pytest.approx((b - a).std(ddof=1) / np.sqrt(len(a)), rel=1e-12)
    assert row.sigmas == pytest.approx((b - a).mean() / row.standard_error, rel=1e-12)


def test_map_is_compared_after_projection(coupled):
    """On the manifold the map's iterates are projected along the gradient flow: y drops out, x moves little."""
    assert "y" not in coupled.quantities
    raw = coupled.runs["SGD"].w[:, -1, 0]
    assert 0 < np.abs(coupled.quantities["x"]["SGD"][:, -1] - raw).max() < 0.1


def test_summary_and_reprs_are_readable(coupled):
    """The table names the quantities, the steps and the status of every run, in plain lines."""
    text = coupled.summary()
    for piece in ("quantity", "in std. errors", "all paths finished", "quasistatic flow", "1,000"):
        assert piece in text
    assert "<table>" in coupled._repr_html_()
    assert max(map(len, text.splitlines())) <= 80


def test_a_wrong_theory_is_found_out(valley):
    """A theory with four times the drift (that of twice the noise) differs by many standard errors."""
    drift = -4 * sp.Rational(1, 16) * sp.Rational(1, 20) / 2 * 2 * x / ((1 + x**2) * (2 - (1 + x**2) / 20))
    other = md.SymbolicFlow(valley, [drift, 0], [[sp.sqrt(0.05) / 4], [0]], reads="projected")
    result = md.compare(valley, other, w0=[2, 0], steps=4000, paths=500, rng=4, save_every=400)
    assert abs(result.errors[-1].sigmas) > 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": 0}, "paths is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"w0": [1.0, np.nan]}, "NaN"),
        ({"w0": [1.0]}, "expected"),
        ({"observe": "sharpnes"}, "sharpnes"),
        ({"rng": "seed"}, "rng must be"),
    ],
)
def test_bad_arguments_are_one_sentence(valley, flow, change, message):
    """Arguments that do not fit raise InputError with one sentence that says what was expected."""
    given = {"w0": [2, 0], "steps": 10, "paths": 10} | change
    with pytest.raises(md.InputError, match=message) as error:
        md.compare(valley, flow, **given)
    assert "\n" not in str(error.value)


def test_flows_are_asked_for(valley):
    """compare without a flow, or with something else, says so."""
    with pytest.raises(md.InputError, match="at least one flow"):
        md.compare(valley, w0=[1, 0], steps=10)
    with pytest.raises(md.InputError, match="not a flow"):
        md.compare(valley, md.Adam, w0=[1, 0], steps=10)


@pytest.mark.parametrize("name", md.list_models())
def test_every_model_runs_small(name):
    """Every shipped model loads, runs and is compared; all its paths end well."""
    model = md.load_model(name)
    assert model.name == name and model.title and model.reference
    if not model.flows():
        assert md.simulate(model.map, model.w0, 60, paths=4, save_every=20, observe=model.observe).finished.all()
        return
    result = model.run(steps=60, paths=4, save_every=20)
    for run in result.runs.values():
        assert run.finished.all()
    assert result.meta["model_text"] == model.text


def test_observables_along_a_real_run():
    """On the real data set, loss, sharpness, trace and distance to the manifold are followed along minibatch SGD
    and label-noise SGD."""
    model = md.load_model("tanh_net")
    label = md.Map(model.loss, md.SGD(0.05), md.LabelNoise(0.1))
    for system in (model.map, label):
        watched = ["loss", "sharpness", "trace", "distance"]
        run = md.simulate(system, model.w0, 300, observe=watched, save_every=100, rng=0)
        values = {name: v[0] for name, v in run.observables.items()}
        assert values["loss"][-1] < values["loss"][0]
        assert (values["trace"] >= values["sharpness"]).all()
        assert np.isfinite(values["distance"]).all() and values["distance"][-1] < values["distance"][0]
