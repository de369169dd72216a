"""Tables people use: labelled arrays and data frames hold the numbers of results, where one looks for them."""

import importlib

import numpy as np
import pandas as pd
import pytest
import sympy as sp
import xarray as xr

import minidyn as md
from minidyn.compare.comparison import ErrorRow, row_of

x, y, step = sp.symbols("x y step")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SGD = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.3))


@pytest.fixture(scope="module")
def comparison():
    """A map, read in two ways, beside a flow with noise and one without."""
    flows = md.QuasistaticFlow(SGD), md.GradientFlow(SGD)
    return md.compare(SGD, *flows, w0=[2.0, 0.1], steps=40, paths=30, rng=1, save_every=4, observe=[x * y, "loss"])


def test_a_run_has_a_row_for_each_path_and_save():
    """Values, clock, observables and settings stand in the rows of their path and save."""
    rates = np.linspace(0.01, 0.1, 5)
    run = md.simulate(SGD, [2.0, 0.1], 30, rng=3, save_every=7, observe={"both": x * y}, hyper={"sigma": rates},
                      first_path=3)  # fmt: skip
    table = run.to_dataframe()
    assert list(table.columns) == ["path", "step", "time", "sigma", "x", "y", "both"] and len(table) == 5 * 6
    rng = np.random.default_rng(1)
    for number in rng.integers(0, len(table), 20):
        row = table.iloc[number]
        p, t = int(row.path) - 3, int(np.searchsorted(run.steps, row.step))
        assert (row.x, row.y) == tuple(run.w[p, t]) and row.both == run.observables["both"][p, t]
        assert row.time == run.time[t] and row.sigma == rates[p]
    wide = table.pivot(index="path", columns="step", values="both")
    np.testing.assert_array_equal(wide.to_numpy(), run.observables["both"])


def test_moments_have_a_row_for_each_quantity_and_save():
    """Of observables too, which a run of moments holds, in its labelled arrays and in its file."""
    run = md.simulate(SGD, [2.0, 0.1], 30, paths=50, rng=3, save_every=6, observe=[x * y], keep="moments")
    table = run.to_dataframe().set_index(["quantity", "step"])
    assert len(table) == 3 * 6
    for name, stats in run.moments.items():
        np.testing.assert_array_equal(table.loc[name, "variance"], stats["variance"])
        np.testing.assert_array_equal(table.loc[name, "quantile 0.75"], stats["quantiles"][3])
        np.testing.assert_array_equal(run.to_xarray()[f"{name}_mean"], stats["mean"])
        np.testing.assert_array_equal(table.loc[name, "time"], run.time)


def test_observables_live_in_the_run_and_its_file(tmp_path):
    """What was observed is in the run, in its labelled arrays, its table and its file, by name."""
    names = ["loss", "sharpness", "x*y", "twice"]
    observe = dict(zip(names, ["loss", "sharpness", x * y, lambda w: 2 * w[:, 0]], strict=True))
    run = md.simulate(SGD, [2.0, 0.1], 20, paths=3, rng=3, observe=observe)
    assert list(run.observables) == names
    run.save(tmp_path / "run.h5")
    back = md.load(tmp_path / "run.h5")
    for name in names:
        np.testing.assert_array_equal(back.observables[name], run.observables[name])
        np.testing.assert_array_equal(run.to_xarray()[name], run.observables[name])
        np.testing.assert_array_equal(back.to_dataframe()[name], run.observables[name].ravel())
    assert run.to_xarray()["step"].attrs == {"long_name": "step number k", "units": "steps"}


def test_a_name_that_a_column_has_already_stays_apart():
    """A parameter called step has a column beside that of the steps."""
    run = md.simulate(md.Map(md.Loss(step**2, [step]), md.GD(0.25)), [1.0], 3, save_every=1)
    table = run.to_dataframe()
    assert table["step"].tolist() == [0, 1, 2, 3] and table["parameter step"].tolist() == [1.0, 0.5, 0.25, 0.125]


def test_a_comparison_is_labelled(comparison):
    """Every value and every row of the table is found by its quantity, label, path and step; elsewhere is NaN."""
    data = comparison.to_xarray()
    assert isinstance(data, xr.Dataset) and data["value"].dims == ("quantity", "label", "path", "step")
    total = 0
    for name, by_label in comparison.quantities.items():
        for label, values in by_label.items():
            here = data["value"].sel(quantity=name, label=label).to_numpy()
            np.testing.assert_array_equal(here[: len(values)], values)
            assert np.isnan(here[len(values) :]).all()
            total += np.isfinite(values).sum()
    assert np.isfinite(data["value"]).sum() == total
    assert len({len(v) for by in comparison.quantities.values() for v in by.values()}) == 2  # one path, and thirty
    for row in comparison.errors:
        here = data.sel(quantity=row.quantity, flow=row.flow, step=row.step)
        for column in ("map_mean", "map_spread", "flow_mean", "flow_spread", "difference", "standard_error", "paths"):
            np.testing.assert_array_equal(here[column], getattr(row, column))
        assert float(here["time"]) == row.time
    assert np.isfinite(data["difference"]).sum() == len(comparison.errors)
    assert data["time"].attrs["units"] == "learning rate x steps" and data.attrs["map"] == repr(SGD)


def test_its_rows_follow_from_its_values(comparison):
    """The means of the labelled values are those of the table, computed anew."""
    data = comparison.to_xarray()
    for row in comparison.errors:
        pair = [v[:, list(comparison.steps).index(row.step)] for v in comparison.pair(row.quantity, row.flow)]
        again = row_of(row.quantity, row.flow, *pair, row.step, row.time, comparison.paired(row.flow))
        here = data.sel(quantity=row.quantity, flow=row.flow, step=row.step)
        np.testing.assert_allclose(here["difference"], again.difference, rtol=1e-12)


def test_a_comparison_is_a_table_of_its_rows(comparison, tmp_path):
    """The columns are those of the rows, with their intervals; from a file too."""
    comparison.save(tmp_path / "c.h5")
    for result in (comparison, md.load(tmp_path / "c.h5")):
        table = result.to_dataframe()
        assert isinstance(table, pd.DataFrame) and len(table) == len(comparison.errors) > 10
        rows = [
            ErrorRow(**{k: v for k, v in row.items() if k not in ("low", "high")}) for row in table.to_dict("records")
        ]
        assert rows == comparison.errors
        ends = np.array([row.interval() for row in comparison.errors])
        np.testing.assert_array_equal(table[["low", "high"]], ends)
        assert result.to_xarray().equals(comparison.to_xarray())


def test_a_sweep_is_a_table():
    """A row for each setting and path, with the values that its labelled arrays have there."""
    found = md.sweep(SGD, over={"lr": [0.05, 0.1, 0.2], "sigma": [0.1, 0.3]}, w0=[1.0, 0.1], steps=20, paths=4, rng=0)
    table, data = found.to_dataframe(), found.to_xarray()
    assert len(table) == 3 * 2 * 4
    for _, row in table.iterrows():
        here = data.sel(lr=row.lr, sigma=row.sigma, path=row.path)
        for name in found.quantities:
            assert float(here[name]) == row[name]


@pytest.mark.parametrize("what", ["run", "comparison", "sweep"])
def test_without_pandas_one_sentence_says_so(what, comparison, monkeypatch):
    """No traceback of an import: what is missing, and where the same numbers are."""
    real = importlib.import_module

    def missing(name, package=None):
        if name == "pandas":
            raise ImportError("No module named 'pandas'")
        return real(name, package)

    sweep = md.sweep(md.Map(VALLEY, md.GD(0.1)), over={"lr": [0.1, 0.2]}, w0=[1.0, 0.1], steps=2)
    result = {"run": md.simulate(SGD, [1.0, 0.1], 3), "comparison": comparison, "sweep": sweep}[what]
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        md.InputError, match=r"^a table for pandas needs pandas, which is not installed: .*to_xarray.*\.$"
    ):
        result.to_dataframe()
