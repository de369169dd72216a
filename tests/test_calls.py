"""Nothing foreign comes out: random calls of the public functions, and inputs that once ended in another's error."""

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import xarray as xr

import minidyn as md
from minidyn.compiler import cache

x, y, c = sp.symbols("x y c")
SAMPLES = md.Loss(c * x**2, [x], data={c: [1.0, 2.0]})
BOWL = md.Loss(x**2 / 2 + y**2, [x, y])


@pytest.fixture(scope="module")
def calls():
    """The fuzzer, a script beside the tests."""
    spec = importlib.util.spec_from_file_location("calls", Path(__file__).parent / "fuzz" / "calls.py")
    sys.modules["calls"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_random_calls_end_in_a_result_or_in_one_sentence(calls):
    """300 calls with arguments out of place: no exception but minidyn's own, no warning, no text of several lines."""
    rng = random.Random(20)
    for number in range(300):
        name, given = calls.draw(rng)
        error = calls.foreign(name, given)
        assert error is None, f"call {number}, {name} with {given}: {error!r}"


def test_the_fuzzer_sees_a_foreign_error(calls, monkeypatch):
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
