"""Nothing foreign comes out: random calls of the public functions, and inputs that once ended in another's error."""

import random
from pathlib import Path

import calls
import numpy as np
import pytest
import sympy as sp
import xarray as xr

import minidyn as md
from minidyn.compiler import cache

x, y, c = sp.symbols("x y c")
SAMPLES = md.Loss(c * x**2, [x], data={c: [1.0, 2.0]})
BOWL = md.Loss(x**2 / 2 + y**2, [x, y])


def test_random_calls_end_in_a_result_or_in_one_sentence():
    """300 calls with arguments out of place: no exception but minidyn's own, no warning, no text of several lines."""
    rng = random.Random(20)
    for number in range(300):
        name, given = calls.draw(rng)
        error = calls.foreign(name, given)
        assert error is None, f"call {number}, {name} with {given}: {error!r}"


def test_the_fuzzer_sees_a_foreign_error(monkeypatch):
    """A function that fails otherwise is told from one that refuses."""
    monkeypatch.setitem(calls.CALLS, "foreign", (lambda: 1 / 0, {}, {}))
    monkeypatch.setitem(calls.CALLS, "own", (lambda: md.GD("a"), {}, {}))
    assert isinstance(calls.foreign("foreign", {}), ZeroDivisionError) and calls.foreign("own", {}) is None


@pytest.mark.parametrize("size", [2, 300, 301, 400])
def test_a_zero_hessian_is_flat(size):
    """Sharpness, trace and norms of a Hessian that is zero are 0 at every size; it has no effective dimension."""
    q, j = md.vector("q", size), sp.Symbol("j", integer=True)
    flat = md.Loss(sp.Sum(q[j] ** 4, (j, 0, size - 1)), [q])
    for given in ({}, {"preconditioner": 2 * np.ones(size)}, {"method": "matrix-free"}):
        found = md.flatness(flat, np.zeros(size), **given)
        assert (found.sharpness, found.trace, found.frobenius, found.preconditioned_sharpness) == (0, 0, 0, 0)
        assert np.isnan(found.effective_dimension)


@pytest.mark.parametrize("rank", [1, 2, 7, 8, 9])
def test_a_hessian_of_low_rank_is_no_hindrance(rank):
    """Lanczos' method finds the largest curvature of 301 parameters where few directions are curved at all."""
    M = np.random.default_rng(rank).normal(size=(rank, 301))
    q, v, j = md.vector("q", 301), md.vector("v", 301), sp.Symbol("j", integer=True)
    loss = md.Loss(sp.Sum(v[j] * q[j], (j, 0, 300)) ** 2 / 2, [q], data={v: M})
    top = np.linalg.eigvalsh(M @ M.T / rank)[-1]
    assert md.flatness(loss, np.zeros(301)).sharpness == pytest.approx(top, rel=1e-12)


def test_samples_that_cancel_are_not_flat():
    """Where the mean Hessian is zero and the samples' are +-1, the non-uniformity is 1."""
    q, j = md.vector("q", 301), sp.Symbol("j", integer=True)
    loss = md.Loss(c * sp.Sum(q[j] ** 2, (j, 0, 300)) / 2, [q], data={c: [1.0, -1.0]})
    found = md.flatness(loss, np.zeros(301))
    assert found.sharpness == 0 and found.nonuniformity == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: md.Map(SAMPLES, md.GD(0.1), md.GaussianNoise(c)), "sigma names the data c, which differ from sample "
     "to sample; it may use the parameters and the constants."),
    (lambda: md.SymbolicFlow(md.Map(SAMPLES, md.GD(0.1)), [-x * c]), "a symbolic flow names the data c, which differ "
     "from sample to sample; it may use the parameters and the constants."),
    (lambda: md.GaussianNoise("0.1"), "sigma must be real numbers, not '0.1'."),
])  # fmt: skip
def test_data_are_not_for_a_whole_step(make, sentence):
    """Noise and flows that name a symbol of the data, and a number in quotes: refused where they are given."""
    with pytest.raises(md.InputError) as error:
        make()
    assert str(error.value) == sentence


@md.rule
def adagrad(w, g, v, *, lr, eps=1e-8):
    v = v + g**2
    return w - lr * g / (sp.sqrt(v) + eps), v


def test_stability_of_a_rule_that_never_forgets():
    """Adagrad with its accumulators held is GD with a preconditioner; where noise lets them grow there is no rest."""
    for noise in (None, md.GaussianNoise(0.1)):
        held = md.stability(md.Map(BOWL, adagrad(0.1), noise), [0.0, 0.0, 0.25, 0.25])
        assert held.stable and held.max_lr == pytest.approx(2 * (0.5 + 1e-8) / 2, rel=1e-9)
    with pytest.raises(md.FlowError, match="has no stationary state at the minimum: a state of it grows without end"):
        md.stability(md.Map(BOWL, adagrad(0.1), md.GaussianNoise(0.1)), [0.0, 0.0])


@pytest.mark.parametrize("damage", [b"\xff\xfe broken", b"", "é".encode("latin-1"), b"def value(): pass\n"])
def test_a_kernel_on_disk_that_is_no_text_is_written_again(damage, tmp_path, monkeypatch):
    """Whatever stands in a cached kernel's file, the kernel is the one that was asked for."""
    monkeypatch.setenv("MINIDYN_CACHE_DIR", str(tmp_path))
    text = "def value():\n    return 'é'\n"
    monkeypatch.setattr(cache, "_loaded", {})
    path = Path(cache.load_module(text).__file__)
    path.write_bytes(damage)
    monkeypatch.setattr(cache, "_loaded", {})
    assert cache.load_module(text).value() == "é" and path.read_bytes() == text.encode()


@pytest.mark.parametrize("name", ["a/b", "/", "..", "./c", "d.", "e\0f", " ", "x y", "é", "a/b/c" * 30])
def test_any_name_of_an_observable_survives_a_file(name, tmp_path):
    """Observables with a slash, dots, a null byte or a long name come back by that name; xarray opens the file."""
    run = md.simulate(md.Map(BOWL, md.GD(0.1)), [1.0, 2.0], 3, observe={name: x / y})
    run.save(tmp_path / "run.h5")
    again = md.load(tmp_path / "run.h5")
    assert list(again.observables) == [name] and again.digest() == run.digest()
    xr.open_dataset(tmp_path / "run.h5", engine="h5netcdf").close()


NOISY = md.Map(BOWL, md.SGD(0.1), md.GaussianNoise(0.1))
BALL = md.Map(md.Loss(x**2 / 2, [x]), md.GD(3.0))


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: md.Minibatch(1, replace=np.array([1, 0])), "replace is True or False, not array"),
    (lambda: md.simulate(NOISY, [1.0, 0.0], 3, progress=np.array([1, 0])), "progress is True or False, not array"),
    (lambda: md.Loss(sp.Matrix([[1, 2]]), [x]), "the loss must be one sympy expression, not Matrix"),
    (lambda: md.Loss.regression(sp.Matrix([[x, 1], [1, x]]), [x], {}, [1.0]), "a list, a row or a column"),
    (lambda: md.Loss.regression({x: 1}, [x], {}, [1.0]), "the model must be one sympy expression, not"),
    (lambda: md.Loss.regression(x, [x], {}, [1.0], np.array([1.0, 2.0])),
     "criterion is 'squared', 'logistic' or 'softmax', not"),
    (lambda: md.Manifold(BOWL, chart=-np.inf, coordinates=[c]), "the chart must be a dictionary"),
    (lambda: md.scaling_study(NOISY, int, lrs=[0.1, 0.2], w0=[1.0, 0.0], time=1.0), "is not a flow, nor a function"),
    (lambda: md.scaling_study(NOISY, md.GradientFlow, lrs=[0.1, 0.2], w0=[1.0, 0.0], time=1e308),
     r"takes 5e\+308 steps at lr 0.2|takes inf steps"),
    (lambda: md.scaling_study(NOISY, md.GradientFlow, lrs=[1e-200, 1e-201], w0=[1.0, 0.0], slow_time=1.0),
     "the study takes inf steps at lr 1e-200"),
    (lambda: md.escape(BALL, [0.0], radius=1e200), "the radius is 1e[+]200; the squares of such distances overflow"),
])  # fmt: skip
def test_what_does_not_fit_is_said_in_a_sentence(call, sentence):
    """Switches that are arrays, matrices, times and distances beyond counting: refused where they are given."""
    with pytest.raises(md.InputError, match=sentence):
        call()


@pytest.mark.parametrize("flow", [
    md.GradientFlow, md.ModifiedFlow, md.StochasticModifiedFlow, md.QuasistaticFlow, md.RodFlow, md.SubquadraticFlow,
    md.CentralFlow,
])  # fmt: skip
def test_no_points_have_no_drift(flow):
    """Of no points a flow makes arrays of no drifts and diffusions, of the shapes that they have at one."""
    valley = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    noise = md.GaussianNoise(0.1) if flow in (md.StochasticModifiedFlow, md.QuasistaticFlow) else None
    made = flow(md.Map(valley, md.SGD(0.1), noise))
    at = made.start([0.5, 0.0])
    for lead in ((0,), (3, 0)):
        nothing = np.zeros((*lead, made.size))
        assert made.drift(nothing).shape == nothing.shape
        assert made.diffusion(nothing).shape == (*lead, *made.diffusion(at).shape[-2:])
