"""Arrays from elsewhere: every public door reads them as what they mean, or refuses them in one sentence."""

import array
import warnings
from collections import deque
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
import xarray as xr

import minidyn as md
from minidyn.common.intake import number, numbers, whole

x, y, a, c, s = sp.symbols("x y a c s")
PLANE = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SAMPLES = md.Loss.regression(a * x, [a], {x: [1.0, 2.0]}, [0.5, 1.0])
GD = md.Map(PLANE, md.GD(0.125))
FLOOR = md.Manifold(PLANE, chart={x: s, y: 0}, coordinates=[s])
FLOW = md.GradientFlow(GD)


class Series:
    """What pandas calls a Series, as far as it matters here."""

    def __init__(self, values, index):
        self.values, self.index = np.asarray(values), index

    def to_numpy(self):
        return self.values


class Metres(np.ndarray):
    """An array with a unit."""


# A door: a function of one array that returns numbers, and the array, whose entries are 1 and 2 wherever they can be.
DOORS = {
    "value": (PLANE.value, [1.0, 2.0]),
    "hessian": (PLANE.hessian, [1.0, 2.0]),
    "hvp along": (lambda v: PLANE.hvp([0.5, 1.0], v), [1.0, 2.0]),
    "third along": (lambda v: PLANE.third([0.5, 1.0], v, [1.0, 0.0]), [1.0, 2.0]),
    "sample_hvps along": (lambda v: SAMPLES.sample_hvps([0.5], v), [2.0]),
    "data": (lambda v: md.Loss(a * x, [a], data={x: v}).rows, [1.0, 2.0]),
    "inputs": (lambda v: md.Loss.regression(a * x, [a], {x: v}, [1.0, 2.0]).rows, [1.0, 2.0]),
    "target": (lambda v: md.Loss.regression(a * x, [a], {x: [1.0, 2.0]}, v).rows, [1.0, 2.0]),
    "with_data": (lambda v: SAMPLES.with_data({x: v}).rows, [1.0, 2.0]),
    "hold_out": (lambda v: SAMPLES.hold_out({x: v}, [1.0, 2.0]).test.rows, [1.0, 2.0]),
    "sigma": (lambda v: md.Map(PLANE, md.GD(0.1), md.GaussianNoise(v)).bound.numbers, [1.0, 2.0]),
    "initial_state": (GD.initial_state, [1.0, 2.0]),
    "time": (GD.time, [1.0, 2.0]),
    "step": (lambda v: GD.step(v, noise=False), [1.0, 2.0]),
    "simulate": (lambda v: md.simulate(GD, v, 2).w, [1.0, 2.0]),
    "simulate a flow": (lambda v: md.simulate(FLOW, v, 2).w, [1.0, 2.0]),
    "drift": (FLOW.drift, [1.0, 2.0]),
    "start": (FLOW.start, [1.0, 2.0]),
    "validity": (FLOW.validity, [1.0, 2.0]),
    "project": (FLOOR.project, [1.0, 2.0]),
    "find": (FLOOR.find, [1.0, 2.0]),
    "chart": (FLOOR.chart.point, [2.0]),
    "flatness": (lambda v: md.flatness(PLANE, v).trace, [1.0, 2.0]),
    "preconditioner": (lambda v: md.flatness(PLANE, [1.0, 2.0], preconditioner=v).preconditioned_sharpness, [1.0, 2.0]),
    "lrs": (lambda v: md.stability_diagram(GD, [[1.0, 0.0]], lrs=v).limits, [1.0, 2.0]),
    "minima": (lambda v: md.stability_diagram(md.Map(SAMPLES, md.GD(0.1)), v).sharpness, [0.5]),
}


def strided(values):
    wide = np.zeros(2 * len(values))
    wide[::2] = values
    return wide[::2]


def frozen(values):
    out = np.array(values)
    out.flags.writeable = False
    return out


SAME = {
    "tuple": tuple, "deque": deque, "array.array": lambda v: array.array("d", v),
    "ints": lambda v: [int(e) if e % 1 == 0 else e for e in v],
    "half": np.float16, "single": np.float32, "longdouble": np.longdouble, "big-endian": lambda v: np.array(v, ">f8"),
    "little-endian half": lambda v: np.array(v, "<f2"), "objects": lambda v: np.array(v, object), "strided": strided,
    "reversed": lambda v: np.array(v[::-1])[::-1], "read-only": frozen,
    "zero-dimensional entries": lambda v: [np.array(e) for e in v],
    "fractions": lambda v: [Fraction(e) for e in v], "sympy": lambda v: [sp.Rational(e) for e in v],
    "no mask": lambda v: np.ma.array(v, mask=False), "memory": lambda v: memoryview(np.array(v)),
    "counted labels": lambda v: Series(v, range(len(v))), "no labels": lambda v: xr.DataArray(v, dims="anything"),
}  # fmt: skip
REFUSED = {
    "masked": lambda v: np.ma.array(v, mask=[True, *[False] * (len(v) - 1)]),
    "a masked entry": lambda v: [np.ma.masked, *v[1:]], "complex": lambda v: np.array(v) + 1j,
    "complex but real": lambda v: np.array(v, complex), "a complex entry": lambda v: [complex(v[0], 1), *v[1:]],
    "text": lambda v: np.array(v).astype(str), "texts": lambda v: [str(e) for e in v],
    "bytes": lambda v: np.array(v).astype("S8"), "texts as objects": lambda v: np.array([str(e) for e in v], object),
    "dates": lambda v: np.array(v).astype("datetime64[s]"), "spans": lambda v: np.array(v).astype("timedelta64[s]"),
    "set": set, "generator": iter, "none": lambda v: [None, *v[1:]], "symbols": lambda v: [sp.Symbol("zeta"), *v[1:]],
    "ragged": lambda v: [v, [v]], "unit": lambda v: np.array(v).view(Metres), "huge": lambda v: [10**400, *v[1:]],
    "beyond double": lambda v: np.array(v, np.longdouble) * np.longdouble("1e4000"),
    "records": lambda v: np.array([(e,) for e in v], [("f", float)]),
}  # fmt: skip
# Doors that take more than numbers, and kinds that mean something there.
MORE = {("sigma", "symbols")}


@pytest.mark.parametrize("door", DOORS)
def test_same_numbers_in_other_clothes_are_the_same_numbers(door):
    """Every type, order and layout of the same numbers gives the same bits as a plain list."""
    take, plain = DOORS[door]
    expected = np.asarray(take(plain))
    for kind, dress in SAME.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.asarray(take(dress(plain))).tobytes() == expected.tobytes(), kind


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_plain_number_is_refused(door):
    """Masks, imaginary parts, texts, dates, units, sets and the like are an InputError of one line, nothing else."""
    take, plain = DOORS[door]
    for kind, dress in REFUSED.items():
        if (door, kind) in MORE:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(md.InputError) as error:
                take(dress(plain))
                pytest.fail(f"{kind} was taken")
        assert "\n" not in str(error.value), kind


@pytest.mark.parametrize(("labels", "expected"), [
    (["x", "y"], [1.0, 2.0]), (["y", "x"], [2.0, 1.0]), ([y, x], [2.0, 1.0]), ([0, 1], [1.0, 2.0]),
])  # fmt: skip
def test_labels_put_entries_in_order(labels, expected):
    """A Series, a DataArray or a dictionary whose labels name the parameters is read by label, not by position."""
    coords = {"parameter": [str(e) for e in labels]}
    across = xr.DataArray([[1.0], [2.0]], coords, ["parameter", "path"])
    by_name = [across, dict(zip(labels, [1.0, 2.0], strict=True))] if labels != [0, 1] else []
    for given in (Series([1.0, 2.0], labels), xr.DataArray([1.0, 2.0], coords, ["parameter"]), *by_name):
        assert (PLANE.grad(given).ravel() == PLANE.grad(expected)).all()
        assert (md.simulate(GD, given, 1).w[0, 0] == expected).all()


@pytest.mark.parametrize("labels", [["x", "z"], ["x", "x"], [1, 0], ["y", "x", "z"]])
def test_labels_that_do_not_fit_are_refused(labels):
    """Labels that neither name the parameters nor count are not read by position."""
    values = np.arange(1.0, 1.0 + len(labels))
    for take in (PLANE.grad, GD.step, FLOW.drift, lambda v: md.simulate(GD, v, 1)):
        with pytest.raises(md.InputError, match=r"is labelled .*, expected x, y; name them so"):
            take(Series(values, labels))


def test_a_run_starts_where_another_ended():
    """The last states of a run, as xarray has them, are starts again: paths and parameters by their names."""
    run = md.simulate(GD, [[1.0, 2.0], [0.5, 1.0]], 3, paths=2)
    last = run.to_xarray().w.isel(step=-1)
    for given in (last, last.transpose("parameter", "path"), last.isel(parameter=[1, 0])):
        assert (md.simulate(GD, given, 1, paths=2).w[:, 0] == run.w[:, -1]).all()


def test_samples_are_not_paired_by_position_across_their_labels():
    """Two columns of one table of which one was sorted do not belong together row by row: refused."""
    first, second = Series([1.0, 2.0], ["ann", "bob"]), Series([2.0, 1.0], ["bob", "ann"])
    with pytest.raises(md.InputError, match="the samples of c are labelled in another order than the others; align"):
        md.Loss(a * x * c, [a], data={x: first, c: second})
    assert md.Loss(a * x * c, [a], data={x: first, c: first}).value([1.0]) == 2.5


@pytest.mark.parametrize(
    "made",
    [
        lambda v: md.Loss(a * x, [a], data={x: v}),
        lambda v: md.Loss.regression(a * x, [a], {x: v}, v),
    ],
    ids=["data", "regression"],
)
def test_a_loss_keeps_its_own_numbers(made):
    """Changing the caller's array afterwards changes nothing."""
    given = np.array([1.0, 2.0])
    loss = made(given)
    before = loss.value([2.0])
    given[:] = 99.0
    assert loss.value([2.0]) == before


def test_noise_keeps_its_own_numbers():
    """`GaussianNoise(array)` is not tied to the array, nor can its own be written to."""
    for given in (np.array([0.1, 0.2]), np.array([sp.Float(0.1), x], dtype=object), [0.1, 0.2]):
        noise = md.GaussianNoise(given)
        before = repr(noise)
        given[0] = 99.0
        assert repr(noise) == before
        with pytest.raises(ValueError, match="read-only"):
            noise.sigma[0] = 1.0


def test_starts_are_copied():
    """A start that changes while a run exists leaves the run as it was."""
    start = np.array([[1.0, 2.0]])
    run, state = md.simulate(GD, start, 2), GD.initial_state(start)
    start[:] = 0.0
    assert (run.w[0, 0] == [1.0, 2.0]).all() and (state == [1.0, 2.0]).all()


@pytest.mark.parametrize(
    "take",
    [
        lambda: md.Loss(x * y, {x, y}),
        lambda: md.Loss(x * y, frozenset([x, y])),
        lambda: md.Loss(x * y, sp.FiniteSet(x, y)),
        lambda: md.Manifold(PLANE, chart={x: s, y: 0}, coordinates={s}),
        lambda: md.SymbolicFlow(GD, {-x, -y}),
        lambda: md.Loss(x * y, (x * y).free_symbols),
    ],
)
def test_a_set_has_no_order(take):
    """Parameters, coordinates and drifts in a set are refused: their order would be that of their hashes."""
    with pytest.raises(md.InputError, match="is a set, which has no order; give a list"):
        take()


def test_the_door_itself():
    """Numbers come in fresh, or as they are for a look; one number and whole numbers say what they expect."""
    given = np.array([1.0, 2.0])
    assert numbers(given, "w", copy=False) is given and numbers(given, "w") is not given
    assert numbers(frozen(given), "w", copy=False).flags.writeable
    assert number(np.float32(0.5), "q") == number(sp.Rational(1, 2), "q") == number(np.array(0.5), "q") == 0.5
    for wrong in ("0.5", [0.5], True, None, 1j, np.ma.masked):
        with pytest.raises(md.InputError, match=r"^q "):
            number(wrong, "q")
    assert whole("n", 3.0, 1) == whole("n", np.int8(3), 1) == 3
    for wrong in ("3", 2.5, np.nan, np.inf, True, None, [3], 10**400, 2**60):
        with pytest.raises(md.InputError, match=r"^n "):
            whole("n", wrong, 1)
