"""Company: what is said of a flow does not depend on the flows beside it, and nothing is left out without a word."""

import itertools
import re

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn import figures
from minidyn.common.reports import Table
from minidyn.figures import panels
from minidyn.simulate.engines import MapEngine

x, y, k = sp.symbols("x y k")
LOG_COSH = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
GD = md.Map(LOG_COSH, md.GD(0.1))
SGD = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.3))
ADAM = md.Map(LOG_COSH, md.Adam(0.1, beta2=0.9, eps=0.5))


def edge_family():
    """Flows of iterates and of mid-points, one of them written by hand."""
    drift = [-2 * x * sp.log(sp.cosh(y)), -(1 + x**2) * sp.tanh(y)]
    flows = [md.GradientFlow(GD), md.ModifiedFlow(GD, order=4), md.RodFlow(GD), md.RodFlow(GD, order=2),
             md.CentralFlow(GD), md.SubquadraticFlow(GD), md.SymbolicFlow(GD, drift, reads="midpoints")]  # fmt: skip
    return GD, flows, {"w0": [4.2, 0.3], "steps": 12, "paths": 1, "save_every": 3, "observe": "loss", "rtol": 1e-4}


def slow_family():
    """Flows on the minima and off them, with noise that the map shares and without."""
    hand = md.SymbolicFlow(SGD, [-x / (1 + x**2) / 50, 0], [[0.07], [0]], reads="projected")
    flows = [md.QuasistaticFlow(SGD), md.StochasticModifiedFlow(SGD), md.GradientFlow(SGD), md.ModifiedFlow(SGD), hand]
    return SGD, flows, {"w0": [1.5, 0.0], "steps": 64, "paths": 130, "save_every": 16, "rng": 3, "observe": "loss"}


def adam_family():
    """An adaptive rule without noise, started from its whole state."""
    w0 = ADAM.initial_state([2.0, 0.4]) + 0.01
    return ADAM, [md.ModifiedFlow(ADAM), md.RodFlow(ADAM)], {"w0": w0, "steps": 20, "paths": 1, "save_every": 4}


def about(result, label):
    """All that a comparison holds and says of one flow."""
    rows = [r for r in result.errors if r.flow == label]
    distances = {name: d for (name, flow), d in result.distances().items() if flow == label}
    laws = [law for law in result.laws(50) if law.flow == label]
    pairs = {name: result.pair(name, label) for name, by in result.quantities.items() if label in by}
    return rows, distances, laws, {n: [v.tobytes() for v in p] for n, p in pairs.items()}, said(result, label)


def said(result, label):
    """The cells of a report that are about one flow: its tables, or its row and its columns in those of all flows."""
    tables = [part for part in result._report() if isinstance(part, Table)]
    if result.runs[result.map_label].paths > 1:
        at = next(i for i, table in enumerate(tables) if table.title.startswith(f"{label} against"))
        others = [i for i, table in enumerate(tables) if " against " in table.title and i > at]
        return tables[at : min(others, default=None)]
    row = [row for row in tables[0].rows if row[0] == label]
    heads = (label.removesuffix(" flow"), "step")
    return row, [[r[c] for r in t.rows] for t in tables[1:] for c, head in enumerate(t.rows[0]) if head in heads]


@pytest.mark.parametrize(
    ("family", "coupled"), [(edge_family, True), (slow_family, True), (slow_family, False), (adam_family, True)]
)
def test_every_pair_of_flows_says_what_each_says_alone(family, coupled):
    """In `compare`, for every ordered pair: rows, distances, laws, values and text equal to the bit to those alone."""
    system, flows, given = family()
    alone = {f.label: about(md.compare(system, f, coupled=coupled, **given), f.label) for f in flows}
    assert all(rows and distances and pairs and text for rows, distances, _, pairs, text in alone.values())
    assert any(laws for _, _, laws, *_ in alone.values()) == (given["paths"] > 1)
    for two in itertools.permutations(flows, 2):
        both = md.compare(system, *two, coupled=coupled, **given)
        for flow in two:
            assert about(both, flow.label) == alone[flow.label], [f.label for f in two]


def test_all_flows_at_once_and_twice_the_same():
    """Beside all others, and beside itself, a flow's rows are its own; a second one has a label of its own."""
    system, flows, given = edge_family()
    everyone = md.compare(system, *flows, flows[2], **given)
    for flow in flows:
        assert about(everyone, flow.label) == about(md.compare(system, flow, **given), flow.label)
    assert [r.difference for r in everyone.errors if r.flow == "rod flow'"] == [
        r.difference for r in everyone.errors if r.flow == "rod flow"
    ]


def test_each_flow_is_held_against_its_own_reading():
    """A flow of iterates is compared with iterates, one of mid-points with mid-points, one on the minima with Phi."""
    system, flows, given = edge_family()
    w = md.simulate(system, given["w0"], 13, save_every=1).w[0]
    result = md.compare(system, flows[0], flows[2], **given)
    np.testing.assert_allclose(result.pair("x", "gradient flow")[0][0], w[result.steps, 0], rtol=1e-14)
    mid = 0.5 * (w[result.steps, 0] + w[result.steps + 1, 0])
    np.testing.assert_allclose(result.pair("x", "rod flow")[0][0], mid, rtol=1e-14)
    system, flows, given = slow_family()
    result = md.compare(system, flows[1], flows[0], **given)
    raw = result.runs["SGD"].w
    np.testing.assert_array_equal(result.pair("x", flows[1].label)[0], raw[:, :, 0])
    np.testing.assert_allclose(
        result.pair("x", "quasistatic flow")[0], md.Manifold(VALLEY).project(raw)[:, :, 0], atol=1e-8, rtol=0
    )
    assert {"SGD", "SGD on the minima"} == {
        part.title.partition(" against ")[2].partition(",")[0]
        for part in result._report()
        if isinstance(part, Table) and " against " in part.title
    }


def test_edge_says_of_a_flow_what_it_says_alone():
    """In `edge`, for every ordered pair (and a flow beside itself): amplitudes equal to the bit to those alone."""
    flows = [md.RodFlow(GD), md.RodFlow(GD, order=2), md.CentralFlow(GD), md.SubquadraticFlow(GD)]
    given = {"w0": [4.2, 0.3], "steps": 12, "save_every": 4, "rtol": 1e-4}
    alone = {f.label: md.edge(GD, f, **given).amplitude[f.label] for f in flows}
    for two in itertools.permutations(flows, 2):
        seen = md.edge(GD, *two, **given)
        assert all(np.array_equal(seen.amplitude[f.label], alone[f.label]) for f in two)
    assert list(md.edge(GD, flows[0], flows[0], **given).amplitude) == ["GD", "rod flow", "rod flow'"]


def test_a_scaling_study_says_of_a_flow_what_it_says_alone():
    """Rows and fits of a study equal those alone to the bit: without noise, and with paths planned for each flow."""
    stable = md.Map(LOG_COSH, md.GD(0.1))
    louder = lambda m: md.SymbolicFlow(m, [-x - x * y**2, -(1 + x**2) * y], [[0.05, 0], [0, 0.05]])  # noqa: E731
    cases = [
        (stable, [lambda m: md.ModifiedFlow(m, order=2), md.RodFlow, md.GradientFlow], {"time": 1.0, "w0": [0.8, 0.6]}),
        (
            SGD,
            [md.GradientFlow, louder],
            {"time": 0.5, "w0": [1.0, 0.5], "rng": 1, "pilot": 64, "max_paths": 1500, "precision": 0.3},
        ),
    ]
    for system, makes, given in cases:
        lrs = [0.05, 0.025, 0.0125] if system is stable else [0.1, 0.05]
        alone = [md.scaling_study(system, make, lrs=lrs, **given) for make in makes]
        for a, b in itertools.permutations(range(len(makes)), 2):
            both = md.scaling_study(system, makes[a], makes[b], lrs=lrs, **given)
            for one in (alone[a], alone[b]):
                label = one.fits[0].flow
                assert [r for r in both.rows if r.flow == label] == one.rows
                assert [f for f in both.fits if f.flow == label] == one.fits
        planned = [{r.lr: r.paths for r in one.rows} for one in alone]
        assert system is stable or planned[0] != planned[1]  # each has the paths that it needs itself
        if system is stable:  # as theory has it, whatever stands beside it
            assert both.fit("rod flow", "x").order == pytest.approx(1.0, abs=0.2)
            assert alone[0].fits[0].order == pytest.approx(2.0, abs=0.1)


def test_paths_that_a_flow_loses_stay_in_the_rows_of_another():
    """A quasistatic flow that loses paths at its edge takes none from the rows of the flow beside it; its own rows,
    both panels of its picture and the words rest on the paths that it still has."""
    hot = md.Map(VALLEY, md.SGD(0.3), md.GaussianNoise(0.3))
    given = {"w0": [2.0, 0.0], "steps": 100, "paths": 200, "save_every": 20, "rng": 0}
    slow, sme = md.QuasistaticFlow(hot), md.SymbolicFlow(hot, [-x * y**2, -(1 + x**2) * y], [[0.1, 0], [0, 0.1]])
    both, alone = md.compare(hot, slow, sme, **given), md.compare(hot, sme, **given)
    kept = int(both.runs["quasistatic flow"].finished.sum())
    assert 0 < kept < 200 and [r for r in both.errors if r.flow == "symbolic flow"] == alone.errors
    row = [r for r in both.errors if r.flow == "quasistatic flow"][-1]
    assert row.paths == kept and "paths: those that a row rests on" in both.summary()
    fig = md.compare(hot, slow, **given).plot()
    place = next(i for i, ax in enumerate(fig.axes) if ax.get_title(loc="left") == "$x$")
    upper, lower = (fig.axes[place + i].lines for i in (0, 1))
    ends = np.array([line.get_ydata()[-1] for line in upper])
    assert all(np.isclose(ends, mean, rtol=1e-12, atol=0).sum() == 1 for mean in (row.map_mean, row.flow_mean))
    assert any(np.isclose(line.get_ydata()[-1], row.difference, rtol=0, atol=1e-12) for line in lower)
    assert "both still have" in " ".join(t.get_text() for t in fig.texts)


# -- refused before anything runs ------------------------------------------------------------------------


def test_flows_of_another_map_are_refused():
    """Another learning rate, loss or noise; the minima of another loss: one sentence that says what differs."""
    others = [(GD.with_lr(0.2), "the rule differs, GD"), (md.Map(VALLEY, md.GD(0.1)), "the loss differs")]
    for other, words in others:
        flow = md.RodFlow(other)
        for refuse in (
            lambda f=flow: md.compare(GD, f, w0=[1, 0.1], steps=5, paths=1),
            lambda f=flow: md.edge(GD, f, w0=[1, 0.1], steps=5),
            lambda f=flow: md.scaling_study(GD, f, lrs=[0.1, 0.05], w0=[1, 0.1], time=1.0),
            lambda f=flow: md.scaling_study(GD, lambda m: f, lrs=[0.3, 0.05], w0=[1, 0.1], time=1.0),
        ):
            with pytest.raises(md.InputError, match="is the flow of another map: the"):
                refuse()
        with pytest.raises(md.InputError, match=words):
            md.compare(GD, flow, w0=[1, 0.1], steps=5, paths=1)
    louder = md.QuasistaticFlow(md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.4)))
    with pytest.raises(md.InputError, match="the noise differs"):
        md.compare(SGD, louder, w0=[1, 0], steps=5, paths=2)
    again = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05), md.GaussianNoise(0.3))
    md.compare(SGD, md.QuasistaticFlow(again), w0=[1, 0], steps=5, paths=2)  # the same map, made twice
    minima = md.Manifold(md.Loss((2 + x**2) * y**2 / 2, [x, y]))
    for make in (md.QuasistaticFlow, md.SubquadraticFlow):
        with pytest.raises(md.InputError, match="the manifold is that of another loss"):
            make(SGD, manifold=minima)


BAD = [
    ({"seed": 0}, r"compare has no option seed=: did you mean rng=\?"), ({"sub_steps": 4}, "did you mean substeps="),
    ({"keep": "moments"}, "no option keep="), ({"rows": 0}, "rows is 0"), ({"coupled": "no"}, "coupled is True or"),
    ({"method": "rk4"}, "'rk4'"), ({"rtol": 2.0, "method": None}, "rtol"), ({"substeps": "many"}, "substeps"),
    ({"observe": ["loss", "lss"]}, "lss"), ({"observe": lambda w: 1.0}, "one number per path"),
    ({"threads": 0}, "threads"), ({"save_every": 2.5}, "save_every"), ({"first_step": 0}, "first_step"),
    ({"checkpoint": 3}, "must be the path"), ({"paths": 1.5}, "paths"), ({"w0": [1.0, np.inf]}, "NaN or Inf"),
    ({"rng": -1}, "rng"), ({"missing": "skip"}, "missing is"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD)
def test_arguments_are_checked_before_the_map_runs(change, message, monkeypatch):
    """A typo or a bad value is one sentence, and no step has been taken."""

    def never(*_, **__):
        raise AssertionError("the map ran")

    monkeypatch.setattr(MapEngine, "advance", never)
    given = {"w0": [1.0, 0.0], "steps": 10, "paths": 4} | change
    with pytest.raises(md.InputError, match=message) as error:
        md.compare(SGD, md.StochasticModifiedFlow(SGD), md.QuasistaticFlow(SGD), **given)
    assert "\n" not in str(error.value)
    if set(change) <= {"method", "seed", "observe", "threads", "checkpoint", "w0"}:
        study = {"w0": [1.0, 0.0], "lrs": [0.1, 0.05], "time": 1.0, "paths": 4, "rng": 0} | change
        with pytest.raises(md.InputError, match=message.replace("compare", "scaling_study")):
            md.scaling_study(SGD, md.StochasticModifiedFlow, **study)


@pytest.mark.parametrize("noise", [None, md.GaussianNoise(0.3), md.GaussianNoise([0.1, 0.2, 0.3][:2])], ids=str)
@pytest.mark.parametrize("first_step", [1, 4])
def test_mid_points_are_those_of_the_map_s_own_run(noise, first_step):
    """What a flow of mid-points is held against is the mean of two successive iterates of the run beside it, with its
    noise, whatever the saves."""
    system = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05, 0.5), noise)
    given = {"w0": [1.0, 0.5], "paths": 3, "rng": 5, "first_step": first_step}
    result = md.compare(system, md.RodFlow(system), md.GradientFlow(system), steps=40, save_every=7, **given)
    whole = md.simulate(system, steps=41, save_every=1, **given).w[:, :, 0]
    label = next(name for name in result.quantities["x"] if "midpoints" in name)
    shown = np.asarray(result.quantities["x"][label])
    steps = np.asarray(result.steps)
    np.testing.assert_array_equal(shown, 0.5 * (whole[:, steps] + whole[:, steps + 1])[: len(shown)])


# -- nothing is left out without a word -------------------------------------------------------------------


@pytest.fixture(scope="module")
def valley():
    return md.compare(SGD, md.QuasistaticFlow(SGD), w0=[1, 0], steps=80, paths=64, save_every=2, rng=0, observe="loss")


def test_rows_thin_the_table_alone(valley):
    """`rows` changes how many rows there are, and neither the values nor the picture."""
    short = md.compare(
        SGD, md.QuasistaticFlow(SGD), w0=[1, 0], steps=80, paths=64, save_every=2, rng=0, observe="loss", rows=1
    )
    assert len(short.errors) < len(valley.errors) and set(map(repr, short.errors)) < set(map(repr, valley.errors))
    for name, by in valley.quantities.items():
        for label, values in by.items():
            np.testing.assert_array_equal(short.quantities[name][label], values)
    lines = [[line.get_ydata() for ax in r.plot().axes for line in ax.lines] for r in (valley, short)]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*lines, strict=True))
    many = md.compare(SGD, md.QuasistaticFlow(SGD), w0=[1, 0], steps=80, paths=4, save_every=2, rng=0, rows=40)
    assert len([r for r in many.errors if r.quantity == "x"]) == 40


def test_what_is_observed_stays_and_what_is_dropped_is_said(valley):
    """The loss on the minima is zero and shown as that; y, a parameter that is zero there, is left out in words."""
    rows = [r for r in valley.errors if r.quantity == "loss"]
    assert rows and all((r.map_mean, r.flow_mean, r.difference) == (0.0, 0.0, 0.0) for r in rows)
    assert (
        "y" not in valley.quantities
        and "not shown beside the quasistatic flow: y, zero on the minima" in valley.summary()
    )
    fig = valley.plot()
    assert "loss" in [ax.get_title(loc="left") for ax in fig.axes]
    assert "not drawn: y" in " ".join(t.get_text() for t in fig.texts)
    tiny = md.Map(md.Loss(1e-14 * (1 + x**2) * y**2 / 2, [x, y]), md.SGD(5e12), md.GaussianNoise(3e-15))
    seen = md.compare(tiny, md.QuasistaticFlow(tiny), w0=[1, 0], steps=20, paths=4, rng=0, observe="trace").errors[-1]
    assert seen.quantity == "trace" and seen.map_mean == pytest.approx(2e-14, rel=0.2)  # small, and not zero
    study = md.scaling_study(SGD, md.GradientFlow, lrs=[0.1, 0.05], w0=[1, 0.5], time=0.5, paths=4, observe="loss")
    assert "loss" in {r.quantity for r in study.rows}


def test_html_says_what_the_summary_says(valley):
    """Every word of the summary of a comparison and of a study is in the HTML, statuses, remarks and laws included."""
    missing = md.Map(md.Loss((1 - x**2 * y**2) ** 2 / 4, [x, y]), md.GD(50.0))
    left = md.compare(missing, md.SubquadraticFlow(missing), md.GradientFlow(missing),
                      w0=md.load_model("minimalist_eos").w0, steps=30, paths=1, missing="remark")  # fmt: skip
    study = md.scaling_study(GD, md.GradientFlow, lrs=[0.1, 0.05], w0=[1, 0.5], time=1.0)
    for result in (valley, left, study):
        html = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", result._repr_html_()))
        for word in result.summary().replace("-" * 3, " ").split():
            assert word.strip("-") in html.replace("&gt;", ">").replace("&lt;", "<").replace("&#x27;", "'")
    assert "left out: subquadratic flow" in left._repr_html_() and "distance of the laws" in valley._repr_html_()


@pytest.mark.parametrize(
    ("r", "every", "said"), [(3.2, 4, 2), (3.2, 2, 2), (3.2, 3, 0), (3.2, 1, 0), (2.5, 4, 0), (1.5, 4, 0)]
)
def test_a_run_that_alternates_between_saves_says_so(r, every, said):
    """The logistic map on its orbit of period two, saved at every second or fourth step: the run and its pictures say
    that a phase is hidden, and nothing where both are saved or where it comes to rest."""
    system = md.Map(md.Loss((1 - r) * x**2 / 2 + r * x**3 / 3, [x]), md.GD(1.0))
    run = md.simulate(system, [0.3], 200, save_every=every)
    found = re.search(r"alternates with period (\d), by up to ±([\d.]+)", run.meta.get("between_saves", ""))
    assert (int(found[1]) if found else 0) == said
    result = md.compare(system, md.GradientFlow(system), w0=[0.3], steps=200, save_every=every, paths=1)
    texts = [
        repr(run),
        result.summary(),
        result._repr_html_(),
        *(" ".join(t.get_text() for t in fig.texts) for fig in (run.plot(), result.plot())),
    ]
    assert all(("alternates" in text) == bool(said) for text in texts)
    if said:  # the two points of the orbit are (r + 1 -+ sqrt((r - 3) (r + 1))) / 2 r
        assert float(found[2]) == pytest.approx(np.sqrt((r - 3) * (r + 1)) / (2 * r), rel=0.02)


def test_pictures_count_what_they_do_not_draw():
    """Nine quantities in six panels, more parameters than are listed, points beyond 400: each is counted in words."""
    named = {f"q{i}": x + i for i in range(7)}
    result = md.compare(GD, md.GradientFlow(GD), w0=[1, 0.1], steps=6, paths=1, observe=named)
    assert "6 of 9 quantities drawn" in " ".join(t.get_text() for t in result.plot().texts)
    run = md.simulate(GD, [1, 0.1], 6, observe=named)
    assert "6 of 9 quantities drawn" in " ".join(t.get_text() for t in run.plot().texts)
    a = md.vector("a", 9)
    wide = md.simulate(md.Map(md.Loss(sp.Sum(a[k] ** 2, (k, 0, 8)), [a]), md.GD(0.1)), np.ones(9), 3)
    assert re.search(r"not shown +3 more parameters", repr(wide))
    many = md.compare(SGD, md.GradientFlow(SGD), w0=[1, 0], steps=4, paths=500, rng=0)
    assert "400 of 500 points" in many.plot().axes[0].get_title(loc="left")


def test_files_keep_every_reading_and_old_ones_load(tmp_path):
    """A comparison of mixed readings comes back equal; one of the earlier layout loads, and says what it holds."""
    system, flows, given = edge_family()
    result = md.compare(system, flows[0], flows[2], **given)
    result.save(tmp_path / "mixed.h5")
    again = md.load(tmp_path / "mixed.h5")
    assert again == result and again.summary() == result.summary() and again.distances() == result.distances()
    old = md.compare(system, flows[2], flows[4], **given)
    for key in ("reads", "zero"):
        del old.meta[key]
    old.meta |= {"projected": False, "centred": True}
    old.save(tmp_path / "old.h5")
    loaded = md.load(tmp_path / "old.h5")
    assert loaded.reading("rod flow") == "midpoints" and loaded.distances() == old.distances()
    assert "one reading of the map for all flows" in loaded.summary() and "mid-points" in loaded.summary()


def test_results_compare_to_one_truth_value():
    """`==` of runs, comparisons, studies and edge runs is True or False, also with NaN, whatever the wall time."""
    makes = [
        lambda: md.simulate(GD, [4.0, 0.3], 8, rng=0),
        lambda: md.simulate(md.Map(md.Loss(-(x**4), [x]), md.GD(1.0)), [2.0], 30, rng=0),  # diverges: NaN
        lambda: md.compare(GD, md.GradientFlow(GD), w0=[1, 0.1], steps=8, paths=1, rng=0),
        lambda: md.scaling_study(GD, md.GradientFlow, lrs=[0.1, 0.05], w0=[1, 0.1], time=1.0, rng=0),
        lambda: md.edge(GD, md.RodFlow(GD), w0=[4.6, 0.3], steps=8),
    ]
    results = [make() for make in makes]
    for one, make in zip(results, makes, strict=True):
        assert (one == make()) is True and (one != make()) is False
        assert all((one == other) is False for other in [*results, 3] if other is not one)


def test_difference_panels_are_over_the_paths_of_the_table():
    """`difference_of` on `Comparison.pair` is the row, for a flow that shares the noise and for one that does not."""
    system, flows, given = slow_family()
    result = md.compare(system, *flows, **given)
    for row in result.errors:
        gap, error = panels.difference_of(*result.pair(row.quantity, row.flow), result.paired(row.flow))
        place = list(result.steps).index(row.step)
        assert gap[place] == pytest.approx(row.difference, abs=1e-15)
        assert error[place] == pytest.approx(row.standard_error, abs=1e-15)
    assert figures.plot_comparison(result).legends


# -- what a flow does with the noise ----------------------------------------------------------------------


@pytest.mark.parametrize("noise", [None, md.GaussianNoise(0.1)], ids=str)
def test_a_flow_says_that_it_leaves_the_noise_out(noise, tmp_path):
    """Table, legend, HTML and file of a comparison say which flows leave a map's noise out, if it has any."""
    system = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05), noise)
    flows = [md.GradientFlow(system), md.ModifiedFlow(system), md.RodFlow(system), md.NoisyRodFlow(system)]
    flows += [md.QuasistaticFlow(system), md.StochasticModifiedFlow(system)] if noise else []
    silent = ["gradient flow", "modified flow", "rod flow"] if noise else []
    result = md.compare(system, *flows, w0=[1.0, 0.0], steps=10, paths=4)
    result.save(tmp_path / "one.h5")
    for shown in (result, md.load(tmp_path / "one.h5")):
        said = [label for label in shown.runs if shown.runs[label].meta.get("leaves_out")]
        assert [label.partition(",")[0] for label in said] == silent
        words = " ".join(shown.summary().split())
        assert ("leave the noise out" in words) == bool(noise)
        assert ("leave the noise out" in " ".join(shown._repr_html_().split())) == bool(noise)
        legend = [text.get_text() for text in shown.plot().legends[0].get_texts()]
        for label in list(shown.runs)[1:]:
            assert (f"{label} (leaves the noise out)" if label in said else label) in legend
