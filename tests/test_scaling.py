"""Scaling studies: orders with intervals, planned paths, files, figures, the command line."""

import re
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.cli import call
from minidyn.compare.order import fit_order
from minidyn.compare.scaling import WORK, work_of
from minidyn.files import models
from minidyn.files.modelfile import list_models
from minidyn.files.models import model_of_text

x, y = sp.symbols("x y")
LOSS = md.Loss(x**2 / 2, [x])
NOISY = md.Map(LOSS, md.SGD(0.1), md.GaussianNoise(0.3))
LADDER = [0.1, 0.05, 0.025]


@pytest.fixture(scope="module")
def study():
    return md.scaling_study(
        NOISY, md.GradientFlow(NOISY), lrs=LADDER, w0=[1.0], time=1.0, precision=0.1, observe="loss", rng=1
    )


def test_gradient_flow_has_order_one():
    """Gradient descent on a quartic leaves gradient flow by O(lr): order 1 within 0.1, from paths without noise."""
    gd = md.Map(md.Loss(x**4 / 4 + x**2 / 2, [x]), md.GD(0.1))
    study = md.scaling_study(gd, md.GradientFlow, lrs=[0.02, 0.01, 0.005], w0=[1.0], time=1.0)
    fit = study.fit("gradient flow")
    assert abs(fit.order - 1) < 0.1 and fit.low < fit.order < fit.high and fit.high - fit.low < 0.3
    assert [r.steps for r in study.rows] == [50, 100, 200] and {r.paths for r in study.rows} == {1}
    assert "no noise" in study.meta["planned"]


def test_difference_is_the_exact_one(study):
    """With noise, differences are those of the closed form on x^2/2, within four standard errors."""
    for r in study.rows:
        mean, flow = (1 - r.lr) ** r.steps, np.exp(-r.lr * r.steps)
        variance = r.lr**2 * 0.09 * (1 - (1 - r.lr) ** (2 * r.steps)) / (1 - (1 - r.lr) ** 2)
        truth = {"x": flow - mean, "loss": (flow**2 - mean**2 - variance) / 2}[r.quantity]
        assert abs(r.difference - truth) < 4 * r.standard_error


def test_planned_paths_reach_the_precision(study):
    """The pilot plans so many paths that every relative error is about the wanted tenth, and not many more."""
    relative = np.array([r.standard_error / abs(r.difference) for r in study.rows])
    assert relative.max() < 0.15
    for lr in LADDER:
        assert max(r.standard_error / abs(r.difference) for r in study.rows if r.lr == lr) > 0.06
    for fit in study.fits:
        assert fit.low < 1 < fit.high and fit.high - fit.low < 1


def test_paths_are_limited_and_the_study_says_so():
    """Where precision asks for more than max_paths the study takes these and says so; given paths are as given."""
    options = {"lrs": LADDER[:2], "w0": [1.0], "time": 1.0, "rng": 1, "pilot": 100}
    few = md.scaling_study(NOISY, md.GradientFlow, precision=0.001, max_paths=200, **options)
    assert {r.paths for r in few.rows} == {200} and "limited to 200" in few.meta["planned"]
    given = md.scaling_study(NOISY, md.GradientFlow, paths=150, **options)
    assert {r.paths for r in given.rows} == {150}


def test_slow_time_and_starts_of_the_map():
    """At fixed slow time the steps grow as lr^-2; w0 may be made from each map."""
    adam = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.Adam(0.1, beta2=0.9), md.GaussianNoise(0.3))
    seen = []

    def start(m):
        seen.append(m.lr())
        return m.fixed_point([1.0, 0.0])

    study = md.scaling_study(adam, md.QuasistaticFlow(adam, accumulators="frozen"), lrs=[0.02, 0.01], w0=start,
                             slow_time=0.004, paths=65, rng=0, substeps=5)  # fmt: skip
    assert [r.steps for r in study.rows] == [10, 40] and seen == [0.02, 0.01]
    assert study.fits[0].flow == "quasistatic flow (frozen)"


def test_flow_of_another_map_keeps_its_options():
    """`flow.of(map)` is the same theory with the same options at the other learning rate."""
    flow = md.QuasistaticFlow(NOISY_VALLEY, accumulators="frozen").of(NOISY_VALLEY.with_lr(0.02))
    assert flow.accumulators == "frozen" and flow.map.lr() == 0.02


NOISY_VALLEY = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))


# The fit ----------


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
def test_interval_holds_the_order(order):
    """95 % intervals of the fitted order hold the true one in 95 % of 400 cases, within 3.5 standard errors."""
    rng, lr, count, hits = np.random.default_rng(5), np.array([0.2, 0.1, 0.05, 0.025]), 400, 0
    truth = 3 * lr**order
    errors = np.array([0.1, 0.1, 0.15, 0.2]) * truth
    for _ in range(count):
        found = fit_order(lr, truth + errors * rng.normal(size=4), errors)
        hits += found[1] <= order <= found[2]
    assert abs(hits / count - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / count)


def test_fit_is_the_minimum_of_chi_squared():
    """Order and constant are those of scipy's weighted least squares."""
    from scipy.optimize import curve_fit

    lr, d, s = np.array([0.2, 0.1, 0.05]), np.array([-0.41, -0.23, -0.09]), np.array([0.02, 0.02, 0.01])
    best, _ = curve_fit(lambda v, c, p: c * v**p, lr, d, p0=(-2, 1), sigma=s, xtol=1e-14, ftol=1e-14)
    order, low, high, constant, chi2, resolved = fit_order(lr, d, s)
    np.testing.assert_allclose([constant, order], [-best[0], best[1]], rtol=1e-5)
    rest = (d - best[0] * lr ** best[1]) / s
    assert resolved and low < order < high and chi2 == pytest.approx(rest @ rest, rel=1e-6)


def test_an_order_of_unknown_sign_is_none():
    """Without noise, differences that scatter by powers of ten have no order; near 0, but known, it is one."""
    lr = [0.1, 0.05, 0.025]
    assert not fit_order(lr, [1e-2, 1e-5, 1e-3], [0.0] * 3)[-1]
    assert fit_order(lr, [1e-2, 2.6e-3, 6e-4], [0.0] * 3)[-1]
    assert fit_order(lr, [1.0e-2, 1.02e-2, 1.01e-2], [0.0] * 3)[-1]


def unseen():
    """A study whose two differences are smaller than their errors."""
    return md.scaling_study(NOISY, md.GradientFlow, lrs=LADDER[:2], w0=[0.0], time=1.0, paths=64, rng=3)


def test_noise_has_no_order():
    """Differences within their errors are not resolved; the summary says that no difference was seen."""
    assert not fit_order([0.2, 0.1, 0.05], [1e-3, -2e-3, 1e-3], [1e-3] * 3)[-1]
    assert not fit_order([0.2, 0.1], [0.0, 0.0], [0.0, 0.0])[-1]
    study = unseen()
    (fit,) = study.fits
    assert not fit.resolved and np.isnan(fit.order)
    assert len(re.findall(r"gradient flow .*no difference seen", study.summary())) == 1


def test_misfit_widens_the_interval():
    """Where the points are no power law, the interval is wider than the error bars alone would make it."""
    lr, errors = np.array([0.4, 0.2, 0.1, 0.05]), np.full(4, 1e-3)
    bent, straight = (fit_order(lr, lr + c * lr**3, errors) for c in (3.0, 0.0))
    assert bent[4] > 10 and bent[2] - bent[1] > 5 * (straight[2] - straight[1])
    assert fit_order(lr[:2], lr[:2], [0.0, 0.0])[1:3] == (-np.inf, np.inf)  # two exact points fit every line


# Files, words, errors ----------


def test_study_in_words_and_files(study, tmp_path):
    """The table names orders, intervals and paths; a file gives the same study back, and xarray reads its rows."""
    import xarray as xr

    text = " ".join(study.summary().split())
    for piece in ("95 % interval", "gradient flow", "fixed t = lr k = 1", "from a pilot of 400", "0.025"):
        assert piece in text
    assert max(map(len, study.summary().splitlines())) <= 80 and "<table" in study._repr_html_()
    study.save(tmp_path / "s.h5")
    back = md.load(tmp_path / "s.h5")
    assert repr(back.rows) == repr(study.rows) and repr(back.fits) == repr(study.fits) and back.meta == study.meta
    with xr.open_dataset(tmp_path / "s.h5", engine="h5netcdf", group="rows") as rows:
        assert rows["lr"].values.tolist() == [r.lr for r in study.rows]
    with pytest.raises(md.InputError, match="it has gradient flow / loss, gradient flow / x"):
        study.fit("rod flow")


def test_figure_shows_orders_and_limits(study, tmp_path):
    """One panel per quantity, with the orders in its legend; what is not seen is a triangle."""
    figure = study.plot(path=tmp_path / "s.png")
    panels = figure.axes
    assert [ax.get_title(loc="left") for ax in panels] == ["$x$", "loss"]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert f"{study.fits[0].order:.2f}" in panels[0].get_legend().get_texts()[0].get_text()
    assert panels[0].get_xscale() == panels[0].get_yscale() == "log"
    none = unseen()
    limits = [line.get_xydata() for line in none.plot().axes[0].lines if line.get_marker() == "v"]
    np.testing.assert_allclose(limits[0], [(r.lr, abs(r.difference) + 2 * r.standard_error) for r in none.rows])
    assert not [line for ax in panels for line in ax.lines if line.get_marker() == "v" and len(line.get_xydata())]


def test_scale_on_the_command_line(tmp_path, monkeypatch, capsys):
    """`minidyn scale` prints the table and writes the file and the figure; `show` and `plot` read it."""
    monkeypatch.chdir(tmp_path)
    command = ["scale", "valley", "--lrs", "0.1,0.05", "--slow-time", "0.05", "--paths", "64", "--checkpoint", "c"]
    assert call(command) == 0
    out = capsys.readouterr().out
    assert "fixed slow time lr^2 k = 0.05" in out and "wrote valley-scaling.h5 and valley-scaling.png" in out
    study = md.load("valley-scaling.h5")
    assert study.meta["model"] == "valley" and study.meta["command"] == " ".join(["minidyn", *command])
    assert call(["show", "valley-scaling.h5"]) == 0 and "95 % interval" in capsys.readouterr().out
    assert call(["plot", "valley-scaling.h5", "--out", "again.png"]) == 0
    assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")
    assert call(["scale", "valley", "--lrs", "a,b"]) == 2
    assert "--lrs takes learning rates such as 0.1,0.05,0.025, not 'a,b'." in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"lrs": [0.1]}, "lrs must be at least two different positive learning rates, not [0.1]."),
        ({"lrs": [0.1, -1]}, "lrs must be at least two different positive learning rates, not [0.1, -1]."),
        ({"lrs": "fast"}, "lrs must be real numbers, not 'fast'."),
        ({"time": None}, "give the end of the runs as time= (t = lr k) or as slow_time= (lr^2 k), one of the two."),
        ({"slow_time": 1.0}, "give the end of the runs as time= (t = lr k) or as slow_time= (lr^2 k), one of the two."),
        ({"time": -1.0}, "time must be a positive number, not -1.0."),
        ({"precision": 2}, "precision must lie between 0 and 1, not 2."),
        ({"checkpoint": "c"}, "a study with a checkpoint needs a seed: give rng=0 or another number."),
        ({"flow": None}, "scaling_study needs at least one flow, for example md.QuasistaticFlow."),
        ({"system": LOSS}, "scaling_study needs a Map first, not Loss."),
        ({"flow": 3}, "3 is not a flow, nor a function that makes one of a map."),
        (
            {"system": md.Map(LOSS, md.SGD(0.1 / sp.Symbol("k")))},
            "SGD(lr=0.1/k) has a schedule: a scaling study needs one learning rate at a time.",
        ),
    ],
)
def test_error_is_a_sentence(change, sentence):
    """A study that cannot be is one sentence that says what was given and what is expected."""
    given = {"system": NOISY, "flow": md.GradientFlow, "lrs": LADDER, "w0": [1.0], "time": 1.0} | change
    with pytest.raises(md.InputError) as error:
        md.scaling_study(given.pop("system"), *[f for f in [given.pop("flow")] if f], **given)
    assert str(error.value) == sentence


def test_what_is_rounding_has_no_order():
    """A quantity that dies out, map and flow alike, is zero at its end beside what it has been: no size below rounding
    is in a study's table, none enters a fit, and an error of zero is a dash."""
    x, y = sp.symbols("x y")
    gd = md.Map(md.Loss(x**2 / 2 + 5 * y**2, [x, y]), md.GD(0.05))
    study = md.scaling_study(gd, md.GradientFlow, lrs=[0.05, 0.025], w0=[1.0, 1.0], time=4.0, progress=False)
    assert all(row.difference == 0.0 for row in study.rows if row.quantity == "y")
    assert abs(study.fit("gradient flow", "x").order - 1) < 0.1 and not study.fit("gradient flow", "y").resolved
    assert not re.search(r"e-(?:1[2-9]|[2-9]\d)|inf|std. error", study.summary())


# What a study costs, and where it starts ----------


def work(system, rows):
    """Paths times steps times the gradients of a step, of one flow and quantity."""
    quantity = rows[0].quantity
    return sum(r.paths * r.steps for r in rows if r.quantity == quantity) * work_of(system)


@pytest.mark.parametrize("most", [2e3, 3e4, 4e5])
def test_plan_keeps_to_its_work(most):
    """What precision asks for beyond `work` is left away and the study says so; the pilot is a quarter of it."""
    study = md.scaling_study(NOISY, md.GradientFlow, lrs=LADDER, w0=[1.0], time=1.0, precision=1e-4, work=most, rng=1)
    least = 32 * sum(r.steps for r in study.rows)  # a pilot of a few paths is always there
    assert 0.9 * min(most, least) <= work(NOISY, study.rows) <= max(most, least)
    assert f"limited by work {most:,.0f}" in study.meta["planned"]


WITH_FLOWS = [name for name in list_models() if md.load_model(name).spec.experiment.flows]


@pytest.mark.parametrize("name", WITH_FLOWS)
def test_every_model_has_a_study_that_takes_seconds(name, monkeypatch):
    """Without learning rates and times every model of the library has a ladder with room for many paths in its work,
    and starts that exist."""
    made = {}
    monkeypatch.setattr(
        models, "scaling_study", lambda system, *flows, **given: made.update(given) or types.SimpleNamespace(meta={})
    )
    model = md.load_model(name)
    model.scale()
    power = 2 if made.get("slow_time") else 1
    span, rates = made.get("slow_time") or made["time"], made["lrs"]
    steps = [span / rate**power for rate in rates]
    assert len(set(rates)) >= 3 and max(steps) < 1e6
    assert model.map.noise is None or 128 * sum(steps) * work_of(model.map) <= 1.001 * WORK
    for rate in rates:
        assert np.isfinite(made["w0"](model.map.with_lr(rate))).all()


def test_a_file_says_where_a_study_starts():
    """`[scaling]` gives rates, an end, and a start in terms of lr, which the summary repeats; arguments override, and a
    start that is no number is said."""
    text = md.load_model("logcosh_valley").text
    model = model_of_text(text, "mine")
    study = model.scale(time=0.3, progress=False, rtol=1e-3, observe=None)
    assert [r.lr for r in study.rows if r.flow == "rod flow" and r.quantity == "x"] == [0.2, 0.1, 0.05, 0.025]
    assert "from x = sqrt(-1 + 3/lr), y = 1" in " ".join(study.summary().split())
    for rate in (0.2, 0.025):
        assert model._start_at(model.map.with_lr(rate)) == pytest.approx([np.sqrt(3 / rate - 1), 1.0])
    with pytest.raises(md.ModelFileError, match=r"`scaling\.w0` is no number at lr 4"):
        model.scale([4.0, 2.0], progress=False)
    with pytest.raises(md.InputError, match="lrs must be real numbers"):
        model_of_text(text.partition("[scaling]")[0], "mine").scale("fast")


def test_an_order_at_the_end_of_its_range_is_none():
    """Where one point stands alone no power of lr fits it best: no order is named, in the table and in the figure."""
    assert not fit_order([0.4, 0.2, 0.1], [1.0, 0.0, 0.0], [1e-3, 1e-3, 1e-3])[-1]


def test_a_model_without_flows_says_so_to_scale(capsys):
    """`minidyn scale` of a model without flows names the model and what its file lacks."""
    assert call(["scale", "relu_net"]) == 2
    assert "relu_net has no flows whose order could be measured: its file names none." in capsys.readouterr().err


@pytest.mark.parametrize("paths", [None, 200])
def test_workers_make_the_same_study(paths, tmp_path):
    """Each learning rate on a worker, in threads and in another process, planned or not: the same study; in its folder
    it goes on, where the folder of another study is refused, and finished it runs nothing."""
    valley = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    sgd = md.Map(valley, md.SGD(0.1), md.GaussianNoise(0.3))
    given = {"lrs": [0.1, 0.05, 0.025], "w0": [1.0, 0.0], "time": 1.0, "rng": 3, "pilot": 100, "paths": paths}
    given |= {"max_paths": 500, "observe": ["loss"]}
    flows = md.QuasistaticFlow(sgd), md.StochasticModifiedFlow(sgd)
    alone = md.scaling_study(sgd, *flows, **given)
    with ThreadPoolExecutor(2) as threads:
        assert md.scaling_study(sgd, *flows, **given, executor=threads) == alone
        assert repr(alone.rows) == repr(md.scaling_study(sgd, *flows, **given, executor=threads).rows)
    kept = given | {"checkpoint": tmp_path}
    assert md.scaling_study(sgd, *flows, **kept, executor=1) == alone
    with ThreadPoolExecutor(1) as threads:
        done = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("task-*")}
        assert len(done) == 3 * (1 + (paths is None))
        next(iter(done)).unlink()
        assert md.scaling_study(sgd, *flows, **kept, executor=threads) == alone
        assert sum(p.stat().st_mtime_ns != done[p] for p in tmp_path.rglob("task-*")) == 1
        with pytest.raises(md.InputError, match="belongs to another run"):
            md.scaling_study(sgd, *flows, **(kept | {"observe": ["trace"]}), executor=threads)
