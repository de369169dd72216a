"""Checked mode: what kernels must not do is noted with function, line and numbers, and harms nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from minidyn.compiler import jit, lanes, llvm
from minidyn.compiler.intrinsics import across
from minidyn.compiler.settings import setting
from minidyn.compiler.values import Unsupported
from minidyn.compiler.violations import Violation, checked


@pytest.fixture
def checking(monkeypatch):
    """Kernels that are compiled in a test look before they touch memory, whatever the mode of this process."""
    monkeypatch.setenv("MINIDYN_CHECKED", "1")
    for cached in (setting, checked, llvm.machine):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (setting, checked, llvm.machine):
        cached.cache_clear()


def fresh(function):
    """A function as one that has no code yet."""
    return jit(function.py_func, fma=function.fma)


@jit
def item(a, i):
    return a[i]


@jit
def cell(a, i, j):
    a[i, j] = 1.0


@jit
def row(a, i):
    b = a[i]
    return b[0] + b.shape[0]


@jit
def piece(a, low, high):
    b = a[low:high]
    s = 0.0
    for i in range(b.shape[0]):
        s += b[i]
    return s


@jit
def eight(a, at):
    return across(a, at)


@jit
def neighbours(a, n):
    for lane in lanes(n):
        a[lane] = 1.0


@jit
def scattered(a, place):
    for lane in lanes(16):
        a[place[lane]] += 1.0


@jit
def own_eight(a, n):
    for lane in lanes(16):
        own = np.zeros(n)
        a[lane] += across(own, 0)


@jit
def unwritten(n, k):
    a = np.empty(n)
    for i in range(k):
        a[i] = 1.0
    s = 0.0
    for i in range(n):
        s += a[i]
    return s


@jit
def unwritten_lanes(n, out):
    for lane in lanes(16):
        a = np.empty(n, np.int64)
        for i in range(n - 1):
            a[i] = i
        out[lane] = a[n - 1]


@jit
def made(n):
    a = np.zeros(n)
    return a.shape[0]


@jit
def divided(a, b):
    return a // b


@jit
def remainder(a, out):
    for lane in lanes(16):
        out[lane] = 7 % a[lane]


@jit
def larger(a, b):
    return a * b + a


@jit
def larger_lanes(a, out):
    for lane in lanes(16):
        out[lane] = a[lane] * a[lane]


@jit
def shifted(a, b):
    return a << b


BIG = 2**40
PLACES = np.arange(16)
BAD = {
    "beyond": (item, (np.zeros(3), 3), r"item, line \d+: the index 3 is outside of axis 0, which has 3 .* .`a\[i\]`"),
    "negative": (item, (np.zeros(3), -1), "the index -1 is outside of axis 0"),
    "empty": (item, (np.zeros(0), 0), "the index 0 is outside of axis 0, which has 0 entries"),
    "column": (cell, (np.zeros((4, 5)), 1, 5), r"cell, line \d+: the index 5 is outside of axis 1, which has 5 ent"),
    "row": (row, (np.zeros((4, 5)), 4), r"row, line \d+: the index 4 is outside of axis 0, which has 4 entries"),
    "slice": (piece, (np.zeros(4), 2, 5), r"the slice ends at 5, and its axis at 4 \(`a\[low:high\]`\)"),
    "slice from below": (piece, (np.zeros(4), -1, 2), "the slice ends at 2, and begins at -1"),
    "slice backwards": (piece, (np.zeros(4), 3, 1), "the slice ends at 1, and begins at 3"),
    "across": (eight, (np.zeros(15), 8), "the index 15 is outside of axis 0, which has 15 entries"),
    "lanes that do not divide": (neighbours, (np.zeros(17), 17), "which has 17 entries"),
    "scattered": (scattered, (np.zeros(15), PLACES), "the index 15 is outside of axis 0, which has 15 entries"),
    "scattered below": (scattered, (np.zeros(15), PLACES - 1), "the index -1 is outside of axis 0"),
    "lanes' own": (own_eight, (np.zeros(16), 7), "the index 7 is outside of axis 0, which has 7 entries"),
    "never written": (unwritten, (5, 4), r"unwritten, line \d+: a number is read that was never written \(`a\[i\]`\)"),
    "never written in lanes": (unwritten_lanes, (5, np.zeros(16, np.int64)), "that was never written"),
    "size": (made, (-2,), "an array of size -2 cannot be made"),
    "division": (divided, (3, 0), r"divided, line \d+: 3 is divided by 0 \(`a // b`\)"),
    "least number": (divided, (-(2**63), -1), "is divided by -1"),
    "division in lanes": (remainder, (PLACES, np.zeros(16, np.int64)), r"remainder, line \d+"),
    "product": (larger, (BIG, BIG), r"a whole number does not fit into 64 bits \(`a \* b`\)"),
    "sum": (larger, (2**62 - 1, 2), "a whole number does not fit"),
    "product in lanes": (larger_lanes, (PLACES * BIG, np.zeros(16, np.int64)), "does not fit into 64 bits"),
    "shift": (shifted, (1, 64), "a word of 64 bits is shifted by 64"),
}


@pytest.mark.parametrize("name", BAD)
def test_violation(name, checking):
    """What goes wrong is raised with its place and its numbers, once, and memory beside the arrays is left alone."""
    function, args, sentence = BAD[name]
    function = fresh(function)
    guarded = []
    for a in args:
        if isinstance(a, np.ndarray):
            room = np.full(a.size + 64, 77, a.dtype)
            room[32 : 32 + a.size] = a.ravel()
            guarded.append((room, room[32 : 32 + a.size].reshape(a.shape)))
    arrays = iter(guarded)
    given = [next(arrays)[1] if isinstance(a, np.ndarray) else a for a in args]
    with pytest.raises(Violation, match=sentence):
        function(*given)
    for room, a in guarded:
        assert (room[:32] == 77).all() and (room[32 + a.size :] == 77).all()


GOOD = {
    "last": (item, (np.zeros(3), 2)), "corner": (cell, (np.zeros((4, 5)), 3, 4)),
    "last row": (row, (np.zeros((4, 5)), 3)),
    "whole": (piece, (np.zeros(4), 0, 4)), "nothing": (piece, (np.zeros(4), 4, 4)),
    "last eight": (eight, (np.zeros(16), 8)),
    "lanes": (neighbours, (np.zeros(32), 32)), "scattered": (scattered, (np.zeros(16), PLACES)),
    "written": (unwritten, (5, 5)), "made": (made, (0,)), "divided": (divided, (-7, 2)),
    "lanes' own": (own_eight, (np.zeros(16), 8)), "product": (larger, (2**31, 2**31)), "shift": (shifted, (1, 62)),
    "remainder": (remainder, (PLACES + 1, np.zeros(16, np.int64))),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_is_left_alone(name, checking):
    """The last of everything is inside, and gives what it gives unchecked."""
    function, args = GOOD[name]
    checked_args, plain = ([a.copy() if isinstance(a, np.ndarray) else a for a in args] for _ in range(2))
    assert fresh(function)(*checked_args) == function.py_func(*plain)
    for a, b in zip(checked_args, plain, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_note_belongs_to_its_thread(checking):
    """A violation in one thread is raised there, and in no other."""
    function, found = fresh(item), []
    function(np.zeros(3), 0)

    def work(i):
        try:
            found.append((i, function(np.zeros(3), i)))
        except Violation:
            found.append((i, "raised"))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1, 5, 2)]
    for t in threads:
        t.start()
        t.join()
    assert found == [(0, 0.0), (1, 0.0), (5, "raised"), (2, 0.0)]
    assert function(np.zeros(3), 1) == 0.0


# -- what is refused while compiling, in every mode -----------------------------------------------------------------


@jit
def from_the_end(a):
    return a[-1]


@jit
def without_the_last(a):
    return a[:-1]


@jit
def huge(n):
    return n + 9223372036854775808


@jit
def folded(n):
    return n + 4611686018427387904 * 4


@jit
def negative_word(w):
    return w + -1


@jit
def high_power(n):
    return n**7


TABLE = np.arange(3.0)


SQUARE = np.eye(3)


@jit
def into_the_module(x):
    TABLE[1] = x


@jit
def into_its_row(x):
    row = SQUARE[1]
    row[0] += x


@jit
def first_of(a, x):
    a[0] = x


@jit
def handed_on(x):
    first_of(SQUARE[1][1:], x)


@pytest.mark.parametrize("function, args, sentence", [
    (from_the_end, (np.zeros(3),), r"from_the_end, line \d+: an index counts from the beginning, and is not negative"),
    (without_the_last, (np.zeros(3),), "a slice counts from the beginning"),
    (huge, (1,), "9223372036854775808 does not fit into 64 bits"),
    (folded, (1,), "18446744073709551616 does not fit into 64 bits"),
    (negative_word, (np.uint64(1),), "-1 is no unsigned number"),
    (high_power, (2,), "a whole number has powers from 0 to 4 here"),
    (into_the_module, (2.0,), "an array of the module is read only"),
    (into_its_row, (2.0,), "into_its_row, .* an array of the module is read only"),
    (handed_on, (2.0,), "first_of, .* an array of the module is read only"),
])  # fmt: skip
def test_refused_in_every_mode(function, args, sentence):
    """Negative indices, constants beyond 64 bits, writes into the module's constants."""
    with pytest.raises(Unsupported, match=sentence):
        function(*args)
