"""Sweeps: every setting is the run of its own map, however the settings are cut and whoever carries them."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.compare.sweep import work

x, y, a, X = sp.symbols("x y a X")
rng = np.random.default_rng(3)
VALLEY = md.Loss((1 + a * x**2) * y**2 / 2, [x, y], constants={a: 1.0})
DATA = md.Loss.regression(x * sp.tanh(y * X), [x, y], {X: rng.normal(size=12)}, rng.normal(size=12))
SGD = md.Map(VALLEY, md.SGD(0.1, momentum=0.5), md.GaussianNoise(0.3))
BATCHES = md.Map(DATA, md.Adam(0.05), md.LabelNoise(0.1, batch=4))


def alone(system, setting, w0, steps, **options):
    """The run of one setting, its map written out by hand."""
    loss, rule, noise = system.loss, system.rule, system.noise
    loss = setting.get("loss", loss)
    rule = setting.get("rule", rule)
    noise = setting.get("noise", noise)
    if "a" in setting:
        loss = loss.with_constants({a: float(setting["a"])})
    rule = rule.with_hyper(**{n: float(v) for n, v in setting.items() if n in rule.hyper})
    if "sigma" in setting:
        noise = md.GaussianNoise(float(setting["sigma"]))
    if "label_std" in setting or "batch" in setting:
        noise = md.LabelNoise(float(setting.get("label_std", 0.1)), batch=int(setting.get("batch", 4)))
    start = np.array(w0, float)
    for i, name in enumerate(loss.param_names):
        start[i] = setting.get(name, start[i])
    return md.simulate(md.Map(loss, rule, noise), start, steps, **options)


CASES = [
    (SGD, {"lr": [0.01, 0.1, 0.3], "sigma": [0.0, 0.5]}),
    (SGD, {"a": [0.5, 2.0], "x": [-1.0, 0.5, 2.0], "momentum": [0.0, 0.9]}),
    (SGD, {"rule": [md.GD(0.1), md.Adam(0.1)], "lr": [0.02, 0.2], "noise": [None, md.GaussianNoise(0.1)]}),
    (BATCHES, {"batch": [1, 4, 12], "lr": [0.01, 0.1], "label_std": [0.05, 0.5]}),
    (SGD, md.sample({"lr": (0.01, 0.5, "log"), "y": (-1, 1)}, 5, rng=2)),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_every_setting_is_the_run_of_its_map(case):
    """Values, reductions and endings of each setting are those that simulate gives, to the bit."""
    system, over = CASES[case]
    options = {"paths": 5, "rng": 7, "observe": "loss"}
    found = md.sweep(system, over=over, w0=[1.5, 0.2], steps=60, reduce=["last", "end", "min", "max"], save_every=7,
                     **options)  # fmt: skip
    listed = isinstance(over, list)
    for place in np.ndindex(found.shape):
        names = list(over[0]) if listed else list(over)
        setting = over[place[0]] if listed else {n: over[n][i] for n, i in zip(names, place, strict=True)}
        run = alone(system, setting, [1.5, 0.2], 60, save_every=7, **options)
        for name in ("x", "y", "loss"):
            values = np.broadcast_to(run.quantity(name), (5, len(run.steps)))
            late = values[:, run.steps >= 45]
            assert found.quantity(name)[place].tobytes() == values[:, -1].tobytes()
            np.testing.assert_allclose(found.quantity(f"{name}_end")[place], late.mean(axis=1), rtol=1e-13, atol=0)
            assert found.quantity(f"{name}_min")[place].tobytes() == values.min(axis=1).tobytes()
            assert found.quantity(f"{name}_max")[place].tobytes() == values.max(axis=1).tobytes()
        assert (found.quantity("status")[place] == run.status).all()
        assert (found.quantity("ended")[place] == run.ended).all()


def digest(found):
    return [(name, dims, values.tobytes()) for name, (dims, values) in found.values.items()]


@pytest.mark.parametrize("lanes", [1, 7, 64, 1000])
def test_how_it_is_cut_changes_nothing(lanes, monkeypatch, tmp_path):
    """Any number of lanes in a piece, threads, an executor, a folder: the same bits."""
    over = {"lr": np.geomspace(0.01, 1.0, 9), "batch": [2, 5]}
    given = {"over": over, "w0": [1.0, 0.5], "steps": 30, "paths": 11, "rng": 1, "observe": ["loss", x * y]}
    whole = digest(md.sweep(BATCHES, **given))
    monkeypatch.setattr(work, "_LEAST", lanes)
    monkeypatch.setattr(work, "_MOST", lanes)
    assert digest(md.sweep(BATCHES, **given, threads=2)) == whole
    with ThreadPoolExecutor(2) as pool:
        assert digest(md.sweep(BATCHES, **given, executor=pool, checkpoint=tmp_path / "kept")) == whole
    monkeypatch.setattr(work, "carry", None)
    assert digest(md.sweep(BATCHES, **given, checkpoint=tmp_path / "kept")) == whole
    with pytest.raises(md.InputError, match="another"):
        md.sweep(BATCHES, **{**given, "steps": 31}, checkpoint=tmp_path / "kept")


def test_flows_are_swept_and_held_against_the_map():
    """A flow at each setting is its simulate; differences are those of compare, NaN where a flow does not exist."""
    lrs, sigmas = [0.05, 0.2], [0.1, 0.3]
    flow = md.QuasistaticFlow(SGD)
    found = md.sweep(flow, over={"lr": lrs, "sigma": sigmas}, w0=[1.5, 0.0], steps=50, paths=6, rng=2)
    held = md.sweep(SGD, md.QuasistaticFlow, md.NoisyRodFlow, over={"lr": lrs, "sigma": sigmas}, w0=[1.5, 0.0],
                    steps=50, paths=20, rng=2)  # fmt: skip
    assert held.dims["flow"].tolist() == ["quasistatic flow", "noisy rod flow"]
    for i, j in np.ndindex(2, 2):
        system = md.Map(VALLEY, SGD.rule.with_hyper(lr=lrs[i]), md.GaussianNoise(sigmas[j]))
        run = md.simulate(flow.of(system), [1.5, 0.0], 50, paths=6, rng=2, save_every=50)
        assert found.quantity("x")[i, j].tobytes() == run.quantity("x")[:, -1].tobytes()
        flows = md.QuasistaticFlow(system), md.NoisyRodFlow(system)
        rows = md.compare(system, *flows, w0=[1.5, 0.0], steps=50, paths=20, rng=2, rows=1, save_every=50).errors
        for k, name in enumerate(held.dims["flow"]):
            (row,) = [r for r in rows if r.quantity == "x" and r.flow == name]
            assert held.quantity("x_difference")[i, j, k] == row.difference
            assert held.quantity("x_standard_error")[i, j, k] == row.standard_error
    beyond = md.sweep(SGD, md.QuasistaticFlow, over={"lr": [0.05, 5.0]}, w0=[2.0, 0.0], steps=5, paths=3, rng=0)
    assert np.isfinite(beyond.quantity("x_difference")[0]).all() and np.isnan(beyond.quantity("x_difference")[1]).all()


def test_the_maps_mean_is_its_own_whatever_stands_beside_it():
    """Not that of a flow's reading, of which `reads` tells; the same at the edge, where mid-points are far from it."""
    system, options = md.Map(VALLEY, md.GD(0.9)), {"over": {"x": [0.2, 1.3]}, "w0": [0.0, 0.3], "steps": 4}
    bare = md.sweep(system, **options)
    flows = {md.GradientFlow: "iterates", md.RodFlow: "midpoints"}
    for order in (list(flows), list(flows)[::-1]):
        held = md.sweep(system, *order, **options)
        assert [*held.meta["reads"].values()] == [flows[flow] for flow in order]
        for name in ("x", "y"):
            np.testing.assert_array_equal(held.quantity(name), bare.mean(name))
        assert "mid-points" in held.summary() and "iterates" in held.summary()
    rows = md.compare(system, md.RodFlow(system), w0=[1.3, 0.3], steps=4, rows=1, save_every=4).errors
    (row,) = [r for r in rows if r.quantity == "y"]
    assert abs(row.map_mean - held.quantity("y")[1]) > 0.01  # mid-points are another mean


def test_what_does_not_exist_takes_nothing_else_away():
    """A flow that a rule or a loss does not have is NaN there; the map and the other flows are as without it."""
    lam = sp.Symbol("lam")
    tilted = md.Loss((1 + x**2) * y**2 / 2 + lam * x**2, [x, y], constants={lam: 0.0})
    system = md.Map(tilted, md.GD(0.1), md.GaussianNoise(0.1))
    options = {"w0": [1.5, 0.1], "steps": 30, "paths": 5, "rng": 4}
    for over, gone in (
        ({"rule": [md.GD(0.1), md.Adam(0.1)]}, md.GradientFlow),
        ({"lam": [0.0, 0.1]}, md.QuasistaticFlow),
    ):
        both = md.sweep(system, gone, md.ModifiedFlow, over=over, **options)
        one = md.sweep(system, md.ModifiedFlow, over=over, **options)
        left = both.quantity("x_difference")
        assert np.isnan(left[1, 0]) and np.isfinite(left[0]).all()
        assert (left[:, 1] == one.quantity("x_difference")[:, 0]).all() and (both.mean("x") == one.mean("x")).all()
        alone_ = md.sweep(system, gone, over=over, **options)
        bare = md.sweep(system, over=over, **options)
        assert alone_.mean("x")[1] == pytest.approx(bare.mean("x")[1], rel=1e-13)


def test_entries_of_matrices_are_named_by_themselves():
    """An entry of a matrix may be given as sympy has it; its dimension is called as the loss calls it."""
    W = sp.MatrixSymbol("W", 2, 2)
    gd = md.Map(md.Loss(sp.Trace(W * W.T) / 2, [W]), md.GD(0.1))
    found = md.sweep(gd, over={W[0, 1]: [1.0, 2.0]}, w0=np.ones(4), steps=1)
    assert found.over == ["W[0,1]_0"] and found.mean("W[0,1]").tolist() == [0.9, 1.8]
    assert md.basin(gd, {W[0, 1]: [1.0, 2.0], W[1, 0]: [1.0]}, 400).places[0].starts == 2


def test_another_sweep_in_the_same_folder_is_told_of(tmp_path):
    """A checkpoint of another sweep is refused in the words of its arguments, without hashes, and stays."""
    given = {"over": {"lr": [0.1, 0.2]}, "w0": [1.0, 1.0], "steps": 5, "rng": 0, "checkpoint": tmp_path}
    found = md.sweep(SGD, **given)
    for name, value in {"over": {"lr": [0.1, 0.3]}, "w0": [1.0, 2.0], "steps": 6, "rng": 1, "observe": "loss"}.items():
        with pytest.raises(md.InputError, match=rf"another run: {name} is ") as caught:
            md.sweep(SGD, **given | {name: value})
        assert not re.search("[0-9a-f]{16}", str(caught.value).replace(str(tmp_path), ""))
    assert md.sweep(SGD, **given) == found


def test_what_ends_a_path_and_what_is_kept():
    """A condition's first step stands in `ended`; moments are those of the paths; a quiet map has one."""
    given = {"over": {"lr": [0.01, 0.1]}, "w0": [1.5, 0.5], "steps": 80, "save_every": 1}
    found = md.sweep(SGD, **given, paths=30, rng=4, stop=y < 0.1)
    for i, lr in enumerate([0.01, 0.1]):
        run = md.simulate(SGD.with_lr(lr), [1.5, 0.5], 80, paths=30, rng=4, save_every=1, stop=y < 0.1)
        assert (found.quantity("ended")[i] == run.ended).all() and (found.quantity("status")[i] == run.status).all()
    paths = md.sweep(SGD, **given, paths=30, rng=4)
    table = md.sweep(SGD, **given, paths=30, rng=4, keep="moments").to_xarray()["x"]
    np.testing.assert_allclose(table.sel(statistic="mean"), paths.quantity("x").mean(axis=1), rtol=1e-13)
    np.testing.assert_allclose(table.sel(statistic="variance"), paths.quantity("x").var(axis=1, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(table.sel(statistic="quantile 0.95"), np.quantile(paths.quantity("x"), 0.95, axis=1))
    assert md.sweep(md.Map(VALLEY, md.GD(0.1)), **given, paths=30).meta["paths"] == 1
    starts = rng.normal(size=(4, 2))
    by_start = md.sweep(md.Map(VALLEY, md.GD(0.1)), over={"w0": starts, "lr": [0.1, 0.2]}, steps=9)
    assert by_start.quantity("y")[2, 1, 0] == md.simulate(md.Map(VALLEY, md.GD(0.2)), starts[2], 9).w[0, -1, 1]


def test_periods_are_those_of_the_logistic_map():
    """GD on a cubic is the logistic map: rest, two, four, eight, chaos, the window of three, escape, where they are
    known to be."""
    logistic = md.Map(md.Loss(a * (x**3 / 3 - x**2 / 2) + x**2 / 2, [x], constants={a: 3.0}), md.GD(1.0))
    rates = [2.8, 3.2, 3.5, 3.55, 3.9, 3.835, 4.2]
    found = md.sweep(logistic, over={"a": rates, "x": [0.3, 0.41]}, steps=20_000, reduce=["last", "period"])
    assert found.quantity("period")[..., 0].T.tolist() == [[1, 2, 4, 8, 0, 3, -1]] * 2
    w = 0.3
    for _ in range(20_000):
        w = 3.2 * w * (1 - w)
    assert min(abs(found.quantity("x")[1, 0, 0] - v) for v in (w, 3.2 * w * (1 - w))) < 1e-12
    with pytest.raises(md.InputError, match="without noise"):
        md.sweep(SGD, over={"lr": [0.1]}, w0=[1, 1], steps=5, reduce="period")


@pytest.mark.parametrize("kind", ["sobol", "halton", "latin", "random"])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_a_sample_fills_its_ranges(kind, count):
    """As many settings as were asked for, within their ranges, the logarithm evenly; the same for the same seed."""
    found = md.sample({"lr": (1e-3, 1, "log"), "sigma": (0, 2)}, count, kind, rng=1)
    lr, sigma = np.array([s["lr"] for s in found]), np.array([s["sigma"] for s in found])
    assert len(found) == count and (lr >= 1e-3).all() and (lr <= 1).all() and (sigma <= 2).all() and (sigma >= 0).all()
    assert found == md.sample({"lr": (1e-3, 1, "log"), "sigma": (0, 2)}, count, kind, rng=1)
    if count == 64:
        least = {"sobol": 8, "halton": 6, "latin": 8, "random": 1}[kind]
        for part in (np.log10(lr) / 3 + 1, sigma / 2):
            assert np.histogram(part, 8, (0, 1))[0].min() >= least


@pytest.mark.parametrize(("options", "words"), [
    ({"over": {}}, "nothing to sweep over"), ({"over": 3}, "for a grid, or a list"), ({"over": {"lrr": [1]}}, "lrr"),
    ({"over": {"lr": []}}, "some numbers"), ({"over": {"lr": [0.1, -1]}}, "positive"),
    ({"over": {"batch": [2]}}, "Minibatch"), ({"over": [{"lr": 1}, {"sigma": 1}]}, "setting 1"),
    ({"over": {"rule": ["adam"]}}, "Rule"), ({"over": {"x": [np.nan]}}, "NaN"), ({"over": {"lr": [[0.1]]}}, "shape"),
    ({"over": {"lr": [0.1]}, "w0": None}, "w0"), ({"over": {"lr": [0.1]}, "reduce": "median"}, "reduce"),
    ({"over": {"lr": [0.1]}, "w0": [[1, 1]] * 3}, "3 starts"), ({"over": {"lr": [0.1]}, "rtol": 1e-3}, "flows"),
    ({"over": {"lr": [0.1]}, "observe": {"lr": "loss"}}, "taken in the sweep"),
    ({"over": {"lr": [0.1]}, "checkpoint": "here", "rng": None}, "seed"), ({"over": {"noise": [3]}}, "Noise"),
    ({"over": {"w0": [[1, 2, 3, 4, 5]]}}, "w0"), ({"over": {"lr": [0.1]}, "steps": 0}, "steps"),
    ({"over": {"lr": [0.1]}, "reduce": None}, "reduce must be a list"),
    ({"over": {"lr": [0.1]}, "reduce": 3}, "reduce must be a list"),
    ({"over": {name: np.linspace(0.1, 1, 10_000) for name in ("lr", "sigma", "a", "x")}}, "would take"),
])  # fmt: skip
def test_what_is_no_sweep_is_refused(options, words):
    """One sentence, before anything runs."""
    given = {"w0": [1.0, 1.0], "steps": 5, "paths": 2, "rng": 0} | options
    with pytest.raises(md.InputError, match=words) as caught:
        md.sweep(SGD, **given)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_numbers_that_are_none_are_refused():
    """An empty list of numbers, a sample larger than memory and a constant that is no symbol are one sentence each."""
    with pytest.raises(md.InputError, match=r"lr has shape \(0,\), expected \(1,\)"):
        md.simulate(SGD, [1.0, 1.0], 5, rng=0, hyper={"lr": []})
    with pytest.raises(md.InputError, match="settings would take"):
        md.sample({"lr": (0.1, 1.0)}, 10**15)
    with pytest.raises(md.InputError, match="'a' cannot be a constant"):
        md.Loss(a * x**2, [x], constants={"a": 1.0})


@pytest.mark.parametrize(
    "names", [("x", "x_0"), ("path", "flow"), ("setting", "x"), ("statistic", "status"), ("y", "x")]
)
@pytest.mark.parametrize("listed", [False, True])
def test_dimensions_have_names_of_their_own(names, listed, tmp_path):
    """Whatever constants are called, and whatever starts are swept, no two dimensions share a name."""
    constants = {sp.Symbol(n): 0.5 for n in names if n not in ("x", "y")}
    loss = md.Loss((1 + x**2) * y**2 + sum(constants) * x**2, [x, y], constants=constants)
    over = [{n: v for n in names} for v in (0.1, 0.2, 0.3)] if listed else {n: [0.1, 0.2, 0.3] for n in names}
    found = md.sweep(md.Map(loss, md.GD(0.1), md.GaussianNoise(0.1)), over=over, w0=[1, 1], steps=4, paths=2, rng=0)
    assert len(found.shape) == 2 - listed and len({*found.dims, *found.settings}) == len(names) + 1 + listed
    assert found.to_xarray()["x"].shape == (*found.shape, 2) and found.summary() and found.plot()
    found.save(tmp_path / "a.h5")
    assert md.load(tmp_path / "a.h5") == found


@pytest.mark.parametrize("which", range(3))
def test_a_file_keeps_a_sweep(which, tmp_path):
    """What was saved comes back: dimensions, values, settings, to the bit; xarray opens it with the same labels."""
    over = [{"lr": [0.01, 0.1], "sigma": [0.1, 0.2, 0.3]}, md.sample({"lr": (0.01, 0.2), "x": (0, 1)}, 5, rng=0),
            {"rule": [md.GD(0.1), md.Adam(0.1)], "noise": [None, md.GaussianNoise(0.3)]}][which]  # fmt: skip
    options = {"w0": [1.0, 0.5], "steps": 20, "paths": 3, "rng": 0}
    found = md.sweep(SGD, *([md.GradientFlow] * (which == 0)), over=over, **options)
    found.save(tmp_path / "sweep.h5")
    back = md.load(tmp_path / "sweep.h5")
    assert digest(back) == digest(found) and back.summary() == found.summary()
    for kept, there in ((back.dims, found.dims), (back.settings, found.settings)):
        assert list(kept) == list(there) and all((kept[n] == there[n]).all() for n in kept)
    import xarray as xr

    with xr.open_dataset(tmp_path / "sweep.h5", engine="h5netcdf") as data:
        assert dict(data.sizes) == {name: len(values) for name, values in found.dims.items()}
        assert (data["x"].values == found.quantity("x")).all()


def test_a_flow_that_a_setting_has_not_leaves_the_others():
    """Where a flow cannot even be made the others are compared, and the map has its mean; the missing one is NaN."""
    quiet = {"noise": [None, md.GaussianNoise(0.2)]}
    found = md.sweep(SGD, md.QuasistaticFlow, md.GradientFlow, over=quiet, w0=[1, 0.1], steps=9, paths=4, rng=0)
    assert np.isfinite(found.quantity("x")).all()
    gaps = found.quantity("x_difference")
    assert np.isfinite(gaps[:, 1]).all() and np.isfinite(gaps[1]).all()
