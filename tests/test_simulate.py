"""Runs: the bits of a path, what is saved, how paths end, what is observed, interruptions, seeds, errors."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal

import numpy as np
import pytest
import sympy as sp
from conformance import BITS

import minidyn as md
from minidyn.simulate.run import QUANTILES

engine_room = importlib.import_module("minidyn.simulate.engines")  # `md.simulate` is the function

x, y, a, b, u, k = sp.symbols("x y a b u k")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SGD = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.3))
GD = md.Map(VALLEY, md.GD(0.1))
QUARTIC = md.Map(md.Loss(x**4 / 4, [x]), md.GD(1.0))
DATA = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5))

# The bits of a path ----------

SYSTEMS = {
    "gaussian": SGD,
    "adam": md.Map(VALLEY, md.Adam(0.01), md.GaussianNoise([0.3, 0.1])),
    "minibatch": md.Map(DATA, md.SGD(0.1), md.Minibatch(2)),
    "reshuffle": md.Map(DATA, md.SGD(0.1), md.Reshuffle(2)),
    "labels": md.Map(DATA, md.SGD(0.1), md.LabelNoise(0.3) + md.Minibatch(2, replace=True)),
    "flow": md.QuasistaticFlow(SGD),
}
START = [1.0, 0.02]


@pytest.fixture(scope="module", params=SYSTEMS)
def reference(request):
    """A system and 1000 paths of it, saved at every one of 100 steps, on one thread."""
    system = SYSTEMS[request.param]
    fixed = {"substeps": 8} if isinstance(system, md.Flow) else {}
    return system, fixed, md.simulate(system, START, 100, paths=1000, save_every=1, rng=6, threads=1, **fixed).w


def test_path_does_not_depend_on_threads(reference, sixteen_cores):
    """Eight threads give the bits of one."""
    system, fixed, w = reference
    BITS(md.simulate(system, START, 100, paths=1000, save_every=1, rng=6, threads=8, **fixed).w, w)


@pytest.mark.parametrize("paths", [1, 10, 65])
def test_path_does_not_depend_on_the_number_of_paths(reference, paths):
    """The first paths of many are the paths of few, bit for bit."""
    system, fixed, w = reference
    BITS(md.simulate(system, START, 100, paths=paths, save_every=1, rng=6, **fixed).w, w[:paths])


@pytest.mark.parametrize("every", [7, 100])
def test_path_does_not_depend_on_saving(reference, every):
    """Rarer saves are a selection of the frequent ones, bit for bit; the last step is always saved."""
    system, fixed, w = reference
    run = md.simulate(system, START, 100, paths=1000, save_every=every, rng=6, **fixed)
    BITS(run.steps, [*range(0, 100, every), 100])
    BITS(run.w, w[:, run.steps])


@pytest.mark.parametrize("length", [1, 7])
def test_path_does_not_depend_on_slices(reference, length, monkeypatch):
    """Looking at Ctrl-C after every step, or every seven, leaves the bits as they are."""
    system, fixed, w = reference
    monkeypatch.setattr(engine_room._Threaded, "slice", lambda self, wanted: min(wanted, length))
    BITS(md.simulate(system, START, 100, paths=70, save_every=100, rng=6, **fixed).w[:, 1], w[:70, 100])


def test_path_does_not_depend_on_the_other_starts(reference):
    """A path started with others from elsewhere is the one started with its equals."""
    system, fixed, w = reference
    starts = np.tile(START, (70, 1))
    starts[1::2] += 0.01
    BITS(md.simulate(system, starts, 100, paths=70, save_every=1, rng=6, **fixed).w[::2], w[:70:2])


def test_digest_is_that_of_the_bits(reference, sixteen_cores):
    """Equal bits have equal digests whatever the threads; one other bit in any part has another one."""
    system, fixed, _ = reference
    runs = [
        md.simulate(system, START, 100, paths=1000, save_every=50, rng=6, threads=n, observe="loss", **fixed)
        for n in (1, 2, 8)
    ]
    digest = runs[0].digest()
    assert {run.digest() for run in runs} == {digest}
    for part in ("w", "status", "ended", "time", "steps"):
        array = getattr(runs[1], part)
        array.view(np.uint8).flat[-1] ^= 1
        assert runs[1].digest() != digest
        array.view(np.uint8).flat[-1] ^= 1
    runs[1].observables["loss"][0, 0] += 1
    assert runs[1].digest() != digest == runs[2].digest()


def test_paths_and_seeds_differ(reference):
    """No two of 1000 paths are alike, and another seed changes them all."""
    system, fixed, w = reference
    assert len(np.unique(w[:, -1], axis=0)) == 1000
    other = md.simulate(system, START, 100, paths=1000, save_every=100, rng=7, **fixed).w[:, 1]
    assert (other != w[:, -1]).any(axis=1).all()


# Seeds ----------


def test_every_form_of_rng():
    """A seed, its SeedSequence and an equal list are the same run; a Generator is consumed; none is fresh."""

    def end(rng):
        return md.simulate(SGD, START, 5, paths=3, rng=rng).w

    BITS(end(np.random.SeedSequence(5)), end(5))
    BITS(end([5]), end(5))
    BITS(end(np.random.default_rng(5)), end(np.random.default_rng(5)))
    generator = np.random.default_rng(5)
    assert not np.array_equal(end(generator), end(generator))
    assert not np.array_equal(end(None), end(None))


@pytest.mark.parametrize("rng", [
    3, None, 2**90, [1, 2, 3], np.random.SeedSequence(5), np.random.default_rng(5),
    np.random.SeedSequence(2**40).spawn(3)[2], np.random.SeedSequence([1, 2]).spawn(1)[0].spawn(2)[1],
], ids=["int", "none", "long", "list", "sequence", "generator", "spawned", "spawned twice"])  # fmt: skip
def test_stored_seed_repeats_the_run(rng):
    """The seed in a run's record gives the run again, whatever it was made from."""
    run = md.simulate(SGD, START, 5, paths=3, rng=rng)
    BITS(md.simulate(SGD, START, 5, paths=3, rng=json.loads(run.meta["seed"])).w, run.w)


# What is saved ----------


def test_save_grid():
    """Steps 0, save_every, ... and the last are saved, about 200 by default."""

    def steps(count, every=None):
        return md.simulate(GD, START, count, save_every=every).steps.tolist()

    assert steps(7, 3) == [0, 3, 6, 7] and steps(6, 3) == [0, 3, 6] and steps(5, 99) == [0, 5]
    assert steps(5) == [0, 1, 2, 3, 4, 5] and len(steps(1000)) == 201


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 130, 1000, 54321])
def test_logarithmic_saves(steps):
    """`save_every="log"` saves at 0, at every step in the beginning, 25 times or so in each factor of ten, and at the
    end; a run has there the bits of one that saves every step; no other word is taken."""
    every, log = ({"save_every": e} for e in (1, "log"))
    noisy = md.Map(md.Loss(x**2, [x]), md.SGD(0.01), md.GaussianNoise(1.0))
    run = md.simulate(noisy, [1.0], steps, paths=2, rng=0, **log)
    k = run.steps
    assert k[0] == 0 and k[-1] == steps and (np.diff(k) > 0).all() and set(range(min(steps, 8))) <= set(k.tolist())
    later = k[k > 30]
    assert len(later) < 2 or (later[1:] / later[:-1]).max() < 1.13
    assert (np.histogram(k, [1, 10, 100, 1000, 10_000])[0] <= 26).all()
    if steps <= 1000:
        whole = md.simulate(noisy, [1.0], steps, paths=2, rng=0, **every)
        np.testing.assert_array_equal(run.w, whole.w[:, k])
        flow = md.GradientFlow(noisy)
        both = md.compare(noisy, flow, w0=[1.0], steps=steps, paths=2, rng=0, progress=False, **log)
        assert set(both.steps) <= set(k) and both.errors[-1].step == steps
    with pytest.raises(md.InputError, match="save_every is a number of steps or 'log', not 'often'"):
        md.simulate(noisy, [1.0], steps, save_every="often")


def test_run_starts_at_w0():
    """The first save is w0, one for all paths or one each; whole numbers are numbers."""
    assert md.simulate(GD, [2, 1], 3).w[0, 0].tolist() == [2.0, 1.0]
    starts = np.arange(6.0).reshape(3, 2)
    BITS(md.simulate(GD, starts, 3, paths=3).w[:, 0], starts)
    BITS(md.simulate(SGD, [[2.0, 1.0]], 3, paths=3).w[:, 0], [[2.0, 1.0]] * 3)


def test_where_all_paths_would_be_alike_one_is_run():
    """A map or a flow without noise, from one start: one path, which the run says; from several starts all of them."""
    for system in (GD, md.GradientFlow(GD), md.GradientFlow(SGD)):
        run = md.simulate(system, [2.0, 1.0], 3, paths=1000)
        assert run.paths == 1 and "all 1,000 paths are alike: one was run" in " ".join(repr(run).split())
        assert run.digest() == md.simulate(system, [2.0, 1.0], 3).digest()
        assert md.simulate(system, [[2.0, 1.0], [1.0, 2.0]], 3, paths=2).paths == 2
    assert md.simulate(SGD, [2.0, 1.0], 3, paths=5).paths == 5


def test_run_of_a_whole_state_goes_on():
    """Started from a whole state, a rule with momentum goes on where it was; a run shows the parameters alone."""
    system = md.Map(VALLEY, md.SGD(0.1, momentum=0.9))
    z = system.step(system.step(system.initial_state(START)))
    run = md.simulate(system, z, 8, save_every=1)
    BITS(run.w, md.simulate(system, START, 10, save_every=1).w[:, 2:])


def test_clock_of_a_schedule():
    """With a schedule the time is the sum of the learning rates, and the ODE of a flow keeps that clock."""
    system = md.Map(md.Loss(x**2 / 2, [x]), md.GD(0.02 / sp.sqrt(k)))
    run = md.simulate(system, [1.0], 400, save_every=100)
    clock = np.array([np.sum(0.02 / np.sqrt(np.arange(1, n + 1))) for n in run.steps])
    np.testing.assert_allclose(run.time, clock, rtol=1e-13)
    flow = md.simulate(md.GradientFlow(system), [1.0], 400, save_every=100)
    BITS(flow.time, run.time)
    np.testing.assert_allclose(flow.w[0, :, 0], np.exp(-clock), rtol=1e-8)


def test_flow_with_noise_reads_its_schedule_at_the_maps_steps():
    """Euler-Maruyama step k of a flow has the learning rate of the map's step k: on a flat direction they coincide."""
    system = md.Map(VALLEY, md.SGD(0.1 / k), md.GaussianNoise(0.3))
    kept = {"steps": 30, "paths": 5, "save_every": 1, "rng": 1}
    level = md.Map(md.Loss(y**2 / 2, [x, y]), md.SGD(0.1 / k), md.GaussianNoise(0.3))
    flow = md.simulate(md.QuasistaticFlow(level), [1.0, 0.0], substeps=1, **kept)
    np.testing.assert_allclose(flow.w[:, :, 0], md.simulate(level, [1.0, 0.0], **kept).w[:, :, 0], rtol=1e-13)
    assert md.simulate(md.QuasistaticFlow(system), [1.0, 0.0], **kept).finished.all()


@pytest.mark.parametrize("substeps", [1, 4])
def test_flow_is_driven_by_the_maps_normals(substeps):
    """Along a flat direction a coupled flow is where the map is, whether a solver step covers one step or four."""
    level = md.Map(md.Loss(y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise([[0.3, 0.1], [0.0, 0.2]]))
    kept = {"steps": 30, "paths": 70, "save_every": 10, "rng": 1}
    flow = md.simulate(md.QuasistaticFlow(level), [1.0, 0.0], substeps=substeps, **kept)
    assert flow.meta["coupled"] and flow.meta["substeps"] == substeps
    np.testing.assert_allclose(flow.w[:, :, 0], md.simulate(level, [1.0, 0.0], **kept).w[:, :, 0], rtol=1e-12)


# How paths end ----------


def steps_to_overflow(w: float) -> tuple[int, list[float]]:
    """Gradient descent on x⁴/4 at lr 1 in numpy: the first step that is not finite, and the path before it."""
    path = [np.float64(w)]
    with np.errstate(over="ignore", invalid="ignore"):
        while np.isfinite(path[-1]) and len(path) <= 41:
            path.append(path[-1] - path[-1] ** 3)
    return len(path) - 1, path[:-1]


@pytest.mark.parametrize("every", [1, 4])
def test_divergence_is_reported_at_its_step(every):
    """A diverging path is `diverged` at numpy's very step and NaN from there on; its neighbours finish."""
    starts = np.array([2.0, 0.5, -1.7, 1.45, 1e100])
    run = md.simulate(QUARTIC, starts[:, None], 40, paths=5, save_every=every)
    for path, w in enumerate(starts):
        step, values = steps_to_overflow(w)
        if step > 40:
            assert run.status[path] == md.Status.FINISHED and run.ended[path] == 40
            assert np.isfinite(run.w[path]).all()
            continue
        assert run.status[path] == md.Status.DIVERGED and run.ended[path] == step
        late = run.steps >= step
        assert np.isnan(run.w[path, late]).all()
        np.testing.assert_allclose(run.w[path, ~late, 0], np.array(values)[run.steps[~late]], rtol=1e-10)
    assert run.finished.tolist() == [False, True, False, False, False]
    assert run.describe_status() == f"1 finished, 4 diverged (first at step {run.ended[4]})"
    assert "4 diverged" in repr(run)


def test_divergence_is_quiet_and_kept_out_of_statistics():
    """Observables of a diverging path end in NaN without a warning; moments count the paths that they rest on."""
    named = ["loss", "gradient_norm", "sharpness", "trace", "norm"]
    run = md.simulate(QUARTIC, [[2.0], [0.5]], 12, paths=2, save_every=1, observe=named)
    for name in named:
        assert np.isnan(run.observables[name][0, -1]) and np.isfinite(run.observables[name][1]).all()
    moments = md.simulate(QUARTIC, [[2.0], [0.5]], 12, paths=2, save_every=1, keep="moments").moments["x"]
    assert moments["count"].tolist() == [2.0] * run.ended[0] + [1.0] * (13 - run.ended[0])
    assert moments["mean"][-1] == run.w[1, -1, 0] and moments["variance"][-1] == 0


def test_all_paths_lost():
    """A run whose paths all diverge still prints, and says that no path is left."""
    run = md.simulate(QUARTIC, [2.0], 30, keep="moments")
    assert "1 diverged" in repr(run) and re.search(r"final x +no path is left", repr(run))
    assert run.moments["x"]["count"][-1] == 0 and np.isnan(run.moments["x"]["mean"][-1])


def test_flow_that_blows_up():
    """A gradient flow that reaches infinity in finite time ends with a status and NaN, not with a number."""
    flow = md.GradientFlow(md.Map(md.Loss(-(x**4) / 4, [x]), md.GD(0.1)))
    run = md.simulate(flow, [1 / np.sqrt(0.9)], 20, save_every=1)  # x = 1/sqrt(0.9 - 2 t): infinite within step 5
    assert run.status[0] in (md.Status.DIVERGED, md.Status.SOLVER_FAILED) and run.ended[0] == 5
    assert np.isnan(run.w[0, 5:]).all()
    np.testing.assert_allclose(run.w[0, :5, 0], 1 / np.sqrt(0.9 - 2 * run.time[:5]), rtol=1e-7)


# What is observed ----------


def distance_to_axis(w):
    return abs(w[:, 1])


def test_observables_by_name_expression_function_and_dict():
    """Names, expressions, functions, lists and dicts of them are the numbers that they say."""
    run = md.simulate(
        SGD,
        START,
        20,
        paths=4,
        save_every=5,
        rng=0,
        observe=["loss", "sharpness", "trace", "gradient_norm", "norm", x * y, distance_to_axis],
    )
    w = run.w
    X, Y = w[..., 0], w[..., 1]
    hessian = np.stack([np.stack([Y**2, 2 * X * Y], -1), np.stack([2 * X * Y, 1 + X**2], -1)], -2)
    expected = {
        "loss": (1 + X**2) * Y**2 / 2,
        "sharpness": np.linalg.eigvalsh(hessian)[..., -1],
        "trace": 1 + X**2 + Y**2,
        "gradient_norm": np.hypot(X * Y**2, (1 + X**2) * Y),
        "norm": np.hypot(X, Y),
        "x*y": X * Y,
        "distance_to_axis": abs(Y),
    }
    assert list(run.observables) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(run.observables[name], values, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(run.quantity(name), values, rtol=1e-12, err_msg=name)
    BITS(run.quantity("y"), Y)
    named = md.simulate(GD, START, 5, observe={"energy": "loss", "half": x / 2})
    assert list(named.observables) == ["energy", "half"]
    for one in ("loss", x * y, distance_to_axis):
        assert len(md.simulate(GD, START, 5, observe=one).observables) == 1


def test_observed_distance():
    """The distance to the manifold of a valley is the distance to its axis."""
    run = md.simulate(SGD, START, 20, paths=4, save_every=5, rng=0, observe="distance")
    np.testing.assert_allclose(run.observables["distance"], abs(run.w[..., 1]), rtol=1e-2)


def test_observed_expression_knows_the_constants():
    """An expression may use the constants of the loss."""
    h = sp.Symbol("h")
    loss = md.Loss(h * x**2 / 2, [x], constants={h: 3.0})
    run = md.simulate(md.Map(loss, md.GD(0.1)), [1.0], 3, observe={"force": h * x})
    np.testing.assert_allclose(run.observables["force"], 3 * run.w[..., 0], rtol=1e-14)


@pytest.mark.parametrize("paths", [1, 37, 150_000])
def test_moments_are_those_of_the_paths(paths):
    """`keep="moments"` holds mean, variance, quantiles and count of what `keep="paths"` holds."""
    kept = {"paths": paths, "save_every": 5, "rng": 3, "observe": ["loss", x * y]}
    full, run = md.simulate(SGD, START, 20, **kept), md.simulate(SGD, START, 20, keep="moments", **kept)
    assert run.w is None and run.observables == {} and list(run.moments) == ["x", "y", "loss", "x*y"]
    for name, stats in run.moments.items():
        values = np.ascontiguousarray(full.quantity(name).T)
        np.testing.assert_allclose(stats["mean"], values.mean(1), rtol=1e-13)
        variance = values.var(1, ddof=1) if paths > 1 else np.zeros(5)
        np.testing.assert_allclose(stats["variance"], variance, rtol=1e-12, atol=1e-30)
        np.testing.assert_allclose(stats["quantiles"], np.quantile(values, QUANTILES, axis=1), rtol=1e-13)
        assert stats["count"].tolist() == [paths] * 5


# Ctrl-C and progress ----------


@pytest.mark.parametrize("keep", ["paths", "moments"])
def test_ctrl_c_returns_what_there_is(keep):
    """A SIGINT while running gives the saves made so far, with the status `interrupted` at the last step made."""
    calls = []

    def watch(w):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return w[:, 0]

    run = md.simulate(SGD, START, 50, paths=3, save_every=10, rng=1, observe=watch, keep=keep)
    assert run.steps.tolist() == [0, 10, 20] and run.time.tolist() == [0.0, 1.0, 2.0]
    assert (run.status == md.Status.INTERRUPTED).all() and (run.ended == 30).all() and not run.finished.any()
    whole = md.simulate(SGD, START, 50, paths=3, save_every=10, rng=1)
    if keep == "paths":
        BITS(run.w, whole.w[:, :3])
        BITS(run.observables["watch"], whole.w[:, :3, 0])
    else:
        np.testing.assert_allclose(run.moments["x"]["mean"], whole.w[:, :3, 0].mean(0), rtol=1e-13)
    assert "3 interrupted" in repr(run) and "nan" not in repr(run)
    assert run.to_xarray().sizes["step"] == 3


def test_ctrl_c_between_saves(monkeypatch):
    """An interruption in the middle of the steps between two saves keeps the last save; lost paths stay lost."""
    advance = engine_room.MapEngine.advance

    def interrupted(self, done, count):
        if done >= 8:
            raise KeyboardInterrupt
        advance(self, done, count)

    monkeypatch.setattr(engine_room.MapEngine, "advance", interrupted)
    monkeypatch.setattr(engine_room._Threaded, "slice", lambda self, wanted: min(wanted, 4))
    run = md.simulate(QUARTIC, [[2.0], [0.5]], 100, paths=2, save_every=6)
    assert run.steps.tolist() == [0, 6]
    assert run.status.tolist() == [md.Status.DIVERGED, md.Status.INTERRUPTED]
    assert run.ended.tolist() == [steps_to_overflow(2.0)[0], 10]


def test_progress_without_a_terminal(monkeypatch, capfd):
    """`progress=True` on something that is no terminal neither fails nor changes the run; by default it is off."""
    clock = iter(range(10**6))
    monkeypatch.setattr(engine_room.time, "perf_counter", lambda: 0.7 * next(clock))
    shown = md.simulate(SGD, START, 40, paths=3, save_every=5, rng=1, progress=True)
    capfd.readouterr()
    quiet = md.simulate(SGD, START, 40, paths=3, save_every=5, rng=1)
    assert capfd.readouterr() == ("", "")
    BITS(shown.w, quiet.w)


def test_progress_shows_speed_and_time_left(monkeypatch, capfd):
    """On a terminal a run longer than a second shows its steps, its speed and the time left."""
    clock = iter(range(10**6))
    monkeypatch.setattr(engine_room.time, "perf_counter", lambda: 0.7 * next(clock))
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    md.simulate(SGD, START, 40, paths=3, save_every=5, progress=True)
    shown = capfd.readouterr().err
    assert "Map" in shown and "/40" in shown and "path-steps/s" in shown


# A run at the keyboard ----------


def test_run_in_words():
    """A run prints its system, steps, statuses and final values, as text and as an HTML table without raw `<`."""
    run = md.simulate(SGD, START, 20, paths=4, rng=0, observe={"a<b": "loss"})
    text, html = repr(run), run._repr_html_()
    assert text.startswith("Run\n") and "4: 4 finished" in text and "20 in 21 saves" in text
    assert f"{run.w[:, -1, 0].mean():.6g} ± {run.w[:, -1, 0].std():.3g}" in text
    rows = sum(line[2:3] != " " for line in text.splitlines()[1:])
    assert "final a&lt;b" in html and html.count("<tr>") == html.count("</tr>") == rows
    moments = md.simulate(SGD, START, 20, paths=4, rng=0, keep="moments")
    assert f"{run.w[:, -1, 0].mean():.6g} ±" in repr(moments)


def test_run_as_xarray():
    """`to_xarray` labels paths, steps, times and parameters, and holds moments with their quantiles."""
    run = md.simulate(SGD, START, 20, paths=4, save_every=5, rng=0, observe="loss")
    data = run.to_xarray()
    assert dict(data.sizes) == {"path": 4, "step": 5, "parameter": 2}
    BITS(data["w"].sel(parameter="y", step=10), run.w[:, 2, 1])
    BITS(data["loss"], run.observables["loss"])
    BITS(data["time"], run.time)
    assert data["status"].dims == ("path",) and data.attrs["seed"] == "0" and "SGD" in data.attrs["system"]
    moments = md.simulate(SGD, START, 20, paths=4, save_every=5, rng=0, keep="moments").to_xarray()
    assert moments["x_quantiles"].dims == ("quantile", "step") and moments["x_mean"].dims == ("step",)
    assert moments["quantile"].values.tolist() == list(QUANTILES)


def test_run_says_what_made_it():
    """The record of a run names the system, its learning rate, seed, sizes, versions and wall time."""
    meta = md.simulate(SGD, START, 20, paths=4, rng=9).meta
    assert meta["system"] == repr(SGD) and meta["kind"] == "map" and meta["lr"] == 0.1
    assert meta["seed"] == "9" and meta["paths"] == 4 and meta["steps"] == 20 and meta["wall_seconds"] > 0
    assert {"python", "numpy", "numba", "scipy", "sympy", "minidyn", "machine"} <= set(meta)


def test_unknown_quantity():
    """Asking a run for what it does not hold says what it holds."""
    run = md.simulate(GD, START, 3, observe="loss")
    with pytest.raises(md.InputError, match=r"the run holds no 'trace'; it has x, y, loss\."):
        run.quantity("trace")


# Errors ----------


def running(w0=START, steps=5, system=GD, **options):
    return lambda: md.simulate(system, w0, steps, **options)


def two(w):
    return w


@pytest.mark.parametrize("make, sentence", [
    (running(system=VALLEY), "simulate runs a Map or a flow, not Loss."),
    (running(steps=0), "steps is 0; it must be at least 1."),
    (running(steps=-3), "steps is -3; it must be at least 1."),
    (running(steps=2.5), "steps must be a whole number, not 2.5."),
    (running(steps=float("nan")), "steps must be a whole number, not nan."),
    (running(steps=float("inf")), "steps must be a whole number, not inf."),
    (running(steps="many"), "steps must be a whole number, not 'many'."),
    (running(paths=0), "paths is 0; it must be at least 1."),
    (running(paths=True), "paths must be a whole number, not True."),
    (running(save_every=0), "save_every is 0; it must be at least 1."),
    (running(threads=0), "threads is 0; it must be at least 1."),
    (running(keep="all"), "keep is 'paths' or 'moments', not 'all'."),
    (running(method="euler"), "a map runs exactly as it is: method= is for flows."),
    (running(substeps=4), "a map runs exactly as it is: substeps= is for flows."),
    (running(rtol=1e-6), "a map runs exactly as it is: rtol= is for flows."),
    (running(system=SYSTEMS["flow"], method="euler"),
     "the method of a flow with noise is 'euler-maruyama', 'milstein', 'diagonal', 'heun', 'sra1', 'weak2', not "
     "'euler'."),
    (running(system=SYSTEMS["flow"], method="dopri5"), "this flow has noise and 'dopri5' is for flows without: use one "
                                                       "of euler-maruyama, milstein, diagonal, heun, sra1, weak2."),
    (running(system=md.GradientFlow(GD), rtol=0), "rtol must lie between 0 and 1, not 0."),
    (running(rng=-1), "rng must be a non-negative whole number, a SeedSequence or a Generator, not -1."),
    (running(rng="dice"), "rng must be a non-negative whole number, a SeedSequence or a Generator, not 'dice'."),
    (running([1.0]), "w0 has shape (1,), expected (..., 2): one number for each of ['x', 'y']."),
    (running(np.ones((3, 2)), paths=2), "w0 has shape (3, 2), expected (2,) for all paths or (2, 2)."),
    (running(np.ones((1, 1, 2))), "w0 has shape (1, 1, 2), expected (2,) for all paths or (1, 2)."),
    (running([1.0, np.nan]), "w0 contains NaN or Inf; give finite starting parameters."),
    (running("here"), "w0 must be real numbers, not 'here'."),
    (running(observe="los"), "no observable is called 'los'; use loss, gradient_norm, sharpness, trace, distance, "
                             "test_error, input_gradient, input_gradient_bound, smoothness_ratio, norm, "
                             "batch_sharpness, batch_sharpness_error, update_sharpness, update_sharpness_error, "
                             "noise_alignment, a sympy "
                             "expression or a function of w."),
    (running(observe=5), "5 cannot be observed: use a name, a sympy expression or a function of w."),
    (running(observe=[5]), "5 cannot be observed: use a name, a sympy expression or a function of w."),
    (running(observe=two), "the observable two returned shape (1, 2) for w of shape (1, 2); it must return one number "
                           "per path."),
    (running(observe=x * k), "the symbol k is neither a parameter, a constant nor data (known: x, y); declare it or "
                             "give its number in constants=."),
    (running(observe=[x]), "x is a parameter, which a run holds anyway; observe other things, by other names."),
    (running(observe=["loss", "loss"]), "the name loss is taken in the run; give another one with observe={name: "
                                        "expression or function}."),
    (running(observe={"time": x * y}), "the name time is taken in the run; give another one with observe={name: "
                                       "expression or function}."),
])  # fmt: skip
def test_error_is_a_sentence(make, sentence):
    """A run that cannot be is one sentence that says what was given and what is expected."""
    with pytest.raises(md.InputError) as error:
        make()
    assert str(error.value) == sentence
