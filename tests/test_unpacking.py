"""Calls whose arguments machine code takes apart: the same results as by Python, for whatever is given."""

import gc
from itertools import pairwise

import numpy as np
import pytest

from minidyn.compiler import Known, backends, compiled, jit, signature
from minidyn.compiler.unpacking import MISSED

pytestmark = pytest.mark.skipif(backends.name() != "own", reason="the other back ends call functions of Python")


@jit
def gathered(numbers, nested, times, other, seed, on, out):
    """Every kind of argument leaves its mark."""
    matrix, (scale, count), whole = nested
    total = 0.0
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            total += matrix[i, j] * scale * (i + 1) + whole[j] * (j + 2)
    for i in range(numbers.shape[0]):
        out[i] = numbers[i] * count + total + times * 1e-3 + other(numbers[i]) + np.float64(seed % np.uint64(1000))
        if on:
            out[i] = -out[i]
    return count + out.shape[0]


@jit
def doubled(x):
    """Called by `gathered`."""
    return 2.0 * x


@jit
def filled(out, value):
    """Returns nothing."""
    for i in range(out.shape[0]):
        out[i] = value


def arguments(rng):
    """One call's arguments for `gathered`, of random sizes and numbers."""
    n, m, p = (int(v) for v in rng.integers(0, 4, 3))
    count = int(rng.choice([0, 1, -1, 2**29, -(2**30), 2**31, -(2**45), 2**59, 2**62, -(2**62)]))
    nested = rng.normal(size=(n, m)), (float(rng.normal()), count), rng.integers(-9, 9, m)
    seed = np.uint64(rng.integers(0, 2**63, dtype=np.uint64) * np.uint64(2) + np.uint64(1))
    return rng.normal(size=p), nested, float(rng.normal()), doubled, seed, bool(rng.integers(2)), np.zeros(p)


def test_calls_give_what_plain_python_gives():
    """Arrays, numbers of every size and sign, nested tuples and functions arrive as they were given."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        args = arguments(rng)
        out = args[-1].copy()
        result, wanted = gathered(*args), gathered.py_func(*args[:-1], out)
        assert result == wanted
        np.testing.assert_allclose(args[-1], out, rtol=1e-12)
    assert gathered.quick is not None


def test_machine_code_takes_the_arguments_apart():
    """A call often made does not go through the table of types again."""
    out = np.zeros(3)
    for turn in range(5):
        assert filled(out, float(turn)) is None and (out == turn).all()
    unpack, table, returns = filled.quick
    assert unpack((out, 7.0), table) == 0 and (out == 7.0).all() and not returns


@pytest.mark.parametrize(
    "other",
    [
        lambda out: (out.astype(np.float32), 1.0),
        lambda out: (out[::2], 1.0),
        lambda out: (out.astype(out.dtype.newbyteorder()), 1.0),
        lambda out: (out.reshape(2, 2), 1.0),
        lambda out: (out.tolist(), 1.0),
        lambda out: (out, "1"),
        lambda out: (out, None),
        lambda out: (out,),
        lambda out: (out, 1.0, 2.0),
    ],
)
def test_what_does_not_fit_is_left_to_python(other):
    """Arguments of other types, orders, lengths and numbers are not touched by the quick way."""
    out = np.zeros(4)
    for _ in range(4):
        filled(out, 0.5)
    unpack, table, _ = filled.quick
    args = other(out)
    before = [np.array(a) for a in args]
    assert unpack(args, table) == MISSED
    assert all(np.array_equal(a, np.array(b)) for a, b in zip(before, args, strict=True))


def test_functions_and_known_numbers_are_told_apart():
    """The quick way of one function or number among the arguments is not taken for another one."""

    @jit
    def turned(f, times, x):
        for _ in range(times):
            x = f(x)
        return np.int64(x)

    @jit
    def tripled(x):
        return 3.0 * x

    for f, times, wanted in [(doubled, 1, 2), (doubled, 2, 4), (tripled, 2, 9), (tripled, 1, 3)] * 5:
        assert turned(f, Known(times), 1.0) == wanted
    assert Known(2) is Known(2) and Known(2) is not Known(3)


def test_pointers_are_told_by_their_signature():
    """Functions by their address share the quick way where their signature is the same, and only there."""

    @jit
    def applied(f, x):
        return np.int64(f(x))

    one, two = signature("f8(f8)"), signature("i8(f8)")

    @jit
    def rounded(x):
        return np.int64(x) * 100

    for _ in range(5):
        assert applied(doubled.pointer(one), 1.5) == 3
        assert applied(rounded.pointer(two), 1.5) == 100
        assert applied(compiled(doubled).pointer(one), 2.5) == 5


def test_arrays_may_go_and_come():
    """Nothing is remembered of the arrays of an earlier call: new ones, at new places, are read."""
    found = []
    for size in range(1, 60):
        out = np.zeros(size)
        filled(out, float(size))
        found.append((size, out.sum()))
        del out
        gc.collect(0)
    assert all(total == size * size for size, total in found)
    assert all(b > a for (_, a), (_, b) in pairwise(found))
