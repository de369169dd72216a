"""The compiler: what it compiles means what it means in Python, in lanes as one by one, and its cache is safe."""

from __future__ import annotations

import math
import os
import resource

import numba as nb
import numpy as np
import pytest

import minidyn as md
from minidyn.compiler import Known, cache, horner, jit, lanes, llvm, side_by_side, signature
from minidyn.compiler.intrinsics import across
from minidyn.compiler.types import F8, Array
from minidyn.compiler.values import Unsupported

BITS = np.testing.assert_array_equal
TABLE = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
HALF = 0.5


def same(function, *args):
    """Calls the compiled function and its Python text on copies of the arguments; all must end equal, bit for bit."""
    compiled = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    plain = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    got, want = function(*compiled), function.py_func(*plain)
    assert got == want or (got is want) or (math.isnan(got) and math.isnan(want))
    for a, b in zip(compiled, plain, strict=True):
        BITS(a, b)
    return got


# -- the subset ---------------------------------------------------------------------------------------------


@jit
def whole_numbers(a, b, out):
    out[0] = a // b
    out[1] = a % b
    out[2] = -a // b
    out[3] = (a + 3) * b - a
    out[4] = min(a, b, 7) + max(a, b) + abs(a)
    out[5] = a << 3 ^ b & 5 | 2
    out[6] = a >> 1
    return a == b or (a > 0 and b < 0)


@pytest.mark.parametrize("a, b", [(7, 2), (-7, 2), (7, -2), (-7, -2), (0, 3), (5, 5), (6, 3), (-6, 3)])
def test_whole_numbers(a, b):
    """Division and remainder round downwards, and bits are what they are in Python."""
    same(whole_numbers, a, b, np.zeros(7, np.int64))


@jit
def numbers(x, y, out):
    out[0] = x / y
    out[1] = -x + y * 2
    out[2] = x**2 + y**3
    out[3] = x if x > y else y
    out[4] = min(x, y) + max(x, 1)
    out[5] = abs(x) + float(int(y))
    out[6] = math.sqrt(abs(x)) + math.floor(y) + TABLE[1, 2] * HALF
    out[7] = 1.0 if not (x < y) else 2.0
    out[8] = (math.inf if 0.0 < x < 1.0 else np.nan) if out[7] - 1.0 else (3.0 if y else x)
    return math.isnan(x) or math.isfinite(y)


@pytest.mark.parametrize("x, y", [(1.5, -2.25), (0.3, 0.3), (-0.0, 4.0), (math.inf, 1.0), (0.1, 7.9)])
def test_numbers(x, y):
    """Arithmetic, comparisons and choices on floats are Python's, infinities and signed zeros included."""
    same(numbers, x, y, np.zeros(9))


@jit
def control(n, out):
    total = 0
    for i in range(n, 0, -1):
        if i % 3 == 0:
            continue
        elif i == 2:
            break
        else:
            total += i
    k = 0
    while True:
        k += 1
        if k * k > n and k > 1:
            break
    for j in range(2, n):
        if j == 4:
            return total + 100 * k
        out[j] += j
    return total - k


@pytest.mark.parametrize("n", [0, 1, 3, 4, 12])
def test_control(n):
    """Loops, jumps out of them, and returns from within are Python's."""
    same(control, n, np.zeros(20))


@jit
def both(a, b):
    return a + b, a * b


@jit
def arrays(a, cube, out):
    rows, columns = a.shape
    work = np.zeros((rows, columns))
    counts = np.empty(3, np.int64)
    for i in range(rows):
        row = a[i]
        for j in range(columns):
            plus, times = both(row[j], 2.0)
            work[i, j] = plus - times
    last = work.copy()
    work[0, 0] = 99.0
    tail = out[1:]
    tail[0] = last[0, 0]
    for i in range(3):
        counts[i] = i * len(out)
    plane = cube[1]
    line = cube[0, 2]
    tail[1] = plane[1, 0] + line[1] + cube[1, 2, 1] + counts[2]
    x, y = tail[0], tail[1]
    x, y = y, x
    out[0] = x - y


def test_arrays():
    """Rows, planes, slices, copies, new arrays and tuples are Python's."""
    same(arrays, np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(2, 3, 2), np.zeros(4))


@jit
def bits(x, word):
    y = ((x.view(np.uint64) ^ word) << np.uint64(1) >> np.uint64(1)).view(np.float64)
    return y if np.uint64(3) & word == np.uint64(1) else -y


def test_bits():
    """A float's bits can be taken and put back."""
    assert bits(np.float64(1.5), np.uint64(5)) == bits.py_func(np.float64(1.5), np.uint64(5))


@jit
def apply(f, x):
    return f(x) + f(2.0 * x)


@jit
def cube(x):
    return x * x * x


def test_functions_as_arguments():
    """A function is an argument by name (compiled in) or by address (one code for all of its type)."""
    by_address = cube.pointer(signature("f8(f8)"))
    assert apply(cube, 1.5) == apply(by_address, 1.5) == cube(1.5) + cube(3.0)
    assert by_address(2.0) == 8.0


@jit
def with_a_known_number(parts):
    f, n, (x, _) = parts
    if n == 2:
        return f(x) * n
    return np.sum(x)  # outside the subset: nobody compiles it


def test_known_numbers_in_tuples():
    """A number known while compiling is known in a tuple too: what it rules out is not compiled."""
    assert with_a_known_number((cube, Known(2), (1.5, 0))) == 2 * cube(1.5)
    with pytest.raises(Unsupported, match="only compiled functions can be called"):
        with_a_known_number((cube, Known(3), (1.5, 0)))


@jit
def grows(n, repeats):
    total = 0.0
    for _ in range(repeats):
        a = np.zeros(n)
        a[n - 1] = 1.0
        total += a[n - 1]
    return total


def test_arrays_made_in_a_loop_do_not_pile_up():
    """Two thousand arrays of a megabyte, one after the other, fit into 64 megabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert grows(131072, 2000) == 2000.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@jit
def namesake(x):
    return x + 1.0


FIRST = namesake


@jit
def namesake(x):
    return 0.5 * FIRST(x)


SECOND = namesake


@jit
def namesake(x):
    return SECOND(x) - 3.0 * FIRST(x)


def test_functions_of_one_name_are_three():
    """A function may call others that have its own name, and the same arguments."""
    assert namesake(2.0) == 0.5 * 3.0 - 9.0


def chains(x, out):
    for lane in lanes(64):
        a = x[lane]
        step = 0.1
        step = step * a - 0.7
        step = step * a + 3
        step = step * a + 1 / 3
        out[0, lane] = step - horner(a, (0.1, -0.7, 3, 1 / 3))
        out[1, lane] = horner(a, (2.5,)) * a - horner(a, (0.1, -0.7, 3, 1 / 3)) * step


@pytest.mark.parametrize("fma", [False, True])
def test_a_polynomial_is_the_chain_of_its_steps(fma):
    """`horner` rounds like the steps written out, with products fused or not, and in lanes as one by one."""
    made, x = jit(chains, fma=fma), np.random.default_rng(3).normal(size=64)
    found = [np.ones((2, 64)), np.ones((2, 64))]
    made(x, found[0])
    made.one_by_one(x, found[1])
    BITS(found[0][0], 0.0)
    BITS(*found)


# -- lanes -------------------------------------------------------------------------------------------------


@jit(fma=True)
def walk(s, order, table, steps, n):
    for lane in lanes(n):
        x, y = s[lane], s[64 + lane]
        local = np.zeros(3)
        rate = 0.01 * float(steps)
        for k in range(steps):
            j = order[lane]
            pull = table[j, k % 3]
            local[k % 3] += pull * x - rate
            x = 0.9 * x - rate * (x * y) / (1.0 + y * y) + 0.1 * pull
            y = y / (1.0 + abs(y)) if x > 0.0 and not y > 2.0 else math.sqrt(abs(y)) - x
            order[lane] = (j + 1) % 2
        s[lane] = x + local[0] + local[1] * local[2]
        s[64 + lane] = max(y, -1.0) + float(lane)


@pytest.mark.parametrize("n", [1, 16, 64])
def test_lanes_are_one_by_one(n):
    """Lanes side by side, lanes one by one and a plain loop in Python give the same bits (fused products apart)."""
    rng = np.random.default_rng(0)
    state, order = rng.normal(size=128), rng.integers(0, 2, 64)
    found = []
    for run in (walk, walk.one_by_one):
        s, o = state.copy(), order.copy()
        run(s, o, TABLE, 50, n)
        found.append((s, o))
    for lane in range(n):
        BITS(found[0][0][[lane, 64 + lane]], found[1][0][[lane, 64 + lane]])
    s, o = state.copy(), order.copy()
    walk.py_func(s, o, TABLE, 50, n)
    np.testing.assert_allclose(found[1][0], s, rtol=1e-11)
    BITS(found[1][1], o)


@jit
def scatter(place, values, out):
    for lane in lanes(64):
        out[place[lane]] = values[lane] if place[lane] != 5 else -1.0


def test_scattered_stores():
    """Each lane stores at its own place."""
    place = np.random.default_rng(1).permutation(64)
    same(scatter, place, np.arange(64.0), np.zeros(64))


@jit
def in_eights(values, out):
    for lane in lanes(64):
        own = np.empty(24)
        for k in range(24):
            own[k] = values[k * 64 + lane]
        for k in range(3):
            out[lane] += across(own, k * 8)


def test_eight_numbers_are_added_alike_everywhere():
    """`across` adds a lane's own eight numbers in the order in which it adds those of a plain array, and as Python."""
    values = np.random.default_rng(0).normal(size=24 * 64)
    alone = np.zeros(64)
    in_eights.one_by_one(values, alone)
    same(in_eights, values, out := np.zeros(64))
    in_eights(values, out)
    BITS(out, alone)


def test_lanes_become_vectors():
    """Code for lanes side by side holds vector instructions, and code for one by one holds none in its loop."""
    rng = np.random.default_rng(0)
    args = rng.normal(size=128), rng.integers(0, 2, 64), TABLE, 50, 64
    wide, narrow = walk.assembly(*args), walk.one_by_one.assembly(*args)
    assert wide.count("pd\t") > 3 * narrow.count("pd\t")


@jit
def squares(n, out):
    for t in side_by_side(n):
        out[t] = float(t) * float(t)


def test_side_by_side_always_is():
    """`side_by_side` fills whole groups of lanes in either form."""
    for run in (squares, squares.one_by_one):
        out = np.zeros(64)
        run(64, out)
        BITS(out, np.arange(64.0) ** 2)


@jit
def given_on_every_way(n, out):
    if n > 3:
        a = 1.0
    elif n > 1:
        a = 2.0
    else:
        return 0.0
    for i in range(4):
        b = a + i
        if i == n:
            continue
        out[i] = b
    while True:
        n -= 1
        c = b * n
        if c < 0.0:
            break
        if n % 7 == 0:
            c = 0.5
            break
    if c > 0.0:
        return c + b
    else:
        return c - b


@pytest.mark.parametrize("n", [0, 2, 3, 5])
def test_a_variable_given_on_every_way_has_a_value(n):
    """Branches that leave, loops that surely turn, and loops without an end but for `break` give values for good."""
    same(given_on_every_way, n, np.zeros(4))


# -- refusals ------------------------------------------------------------------------------------------------


@jit
def changes_type(n):
    x = 0
    for _ in range(n):
        x = x + 0.5
    return x


@jit
def branches(a):
    for lane in lanes(64):
        if a[lane] > 0.0:
            a[lane] = 0.0


@jit
def powers_of_a_sum(x):
    return horner(x + 1.0, (1.0, 2.0))


@jit
def recursive(n):
    return recursive(n - 1)


@jit
def outside(a):
    return sum(a)


@jit
def two_kinds(x):
    if x > 0.0:
        return x
    return both(x, x)


@jit
def on_one_branch(x):
    if x > 0.0:
        y = x
    return y


@jit
def in_a_loop(n):
    for i in range(n):
        last = i
    return last


@jit
def before_a_jump(n):
    while n > 0:
        n -= 3
        if n == 1:
            continue
        if n == 0:
            break
        rest = n
    return rest


@jit
def own_name(x):
    y = HALF_AGAIN + x  # noqa: F823
    HALF_AGAIN = y
    return HALF_AGAIN


@jit
def two_meanings(x):
    f = math.sin
    if x > 0.0:
        f = math.cos
    return f(x)


@jit
def known_changed(n, x):
    n = n + 1
    return x * n


@jit
def with_else(n):
    for _ in range(n):
        pass
    else:
        n = 1
    return n


@jit
def three_for_two(x):
    a, b = x, 2.0, 3.0
    return a * b


HALF_AGAIN = 0.5


@jit
def handed_back(a):
    return a


@pytest.mark.parametrize(
    "function, args, sentence",
    [
        (on_one_branch, (1.0,), r"on_one_branch, line \d+: y has no value here on some way to this line \(`y`\)"),
        (in_a_loop, (3,), "last has no value here"),
        (before_a_jump, (3,), "rest has no value here"),
        (own_name, (1.0,), "HALF_AGAIN has no value here"),
        (two_meanings, (1.0,), "f is known while compiling, and stands for one thing only"),
        (known_changed, (Known(3), 1.0), "n is known while compiling"),
        (three_for_two, (1.0,), r"three_for_two, line \d+: these values cannot be unpacked"),
        (with_else, (3,), "a for loop has one variable, and no else"),
        (changes_type, (3,), r"changes_type, line \d+: a f8 does not fit where a i8 is kept in x \(`x = x \+ 0.5`\)"),
        (branches, (np.zeros(64),), "a branch must go the same way in all lanes"),
        (recursive, (3,), "recursive calls itself"),
        (powers_of_a_sum, (3.0,), r"line \d+: a polynomial is of a variable, its coefficients in brackets"),
        (outside, (np.zeros(3),), r"sum is not known here \(`sum\(a\)`\)"),
        (handed_back, (np.zeros(3),), r"line \d+: a function returns numbers, no array: .*\(`return a`\)"),
        (two_kinds, (1.0,), "does not fit"),
    ],
)
def test_refusals_name_the_line(function, args, sentence):
    """What is outside the subset is refused with the function, the line and the reason."""
    with pytest.raises(Unsupported, match=sentence):
        function(*args)


@pytest.mark.parametrize(
    "bad, sentence",
    [
        (np.zeros((4, 4)).T, "C-contiguous"),
        (np.zeros(3, np.float32), "arrays of float64"),
        ("text", "cannot take 'text'"),
    ],
)
def test_refused_arguments(bad, sentence):
    """Arrays of other kinds and other objects are refused before they reach machine code."""
    with pytest.raises(TypeError, match=sentence):
        arrays(bad, np.zeros((2, 3, 2)), np.zeros(4))


@pytest.mark.parametrize("bad", ["5", "many"])
def test_a_number_of_lanes_that_is_none(bad, monkeypatch):
    """MINIDYN_LANES is 4, 8 or 16."""
    monkeypatch.setenv("MINIDYN_LANES", bad)
    monkeypatch.setattr(llvm, "setting", llvm.setting.__wrapped__)
    sentence = rf"MINIDYN_LANES is '{bad}'; it must be 4, 8 or 16 \(how many lanes run side by side\), or not be set\."
    with pytest.raises(md.InputError, match=sentence):
        llvm.lane_count.__wrapped__()


# -- the cache -----------------------------------------------------------------------------------------------


@jit
def shifted(x):
    return x + 1.25


def forget():
    shifted.entries.clear()
    shifted.addresses.clear()


@pytest.fixture(autouse=True)
def forgetful():
    """A function that has forgotten its code, which may lie in another test's folder."""
    forget()


@jit
def last(a):
    return a[a.shape[0] - 1]


@jit
def corner(a):
    return a[a.shape[0] - 1, a.shape[1] - 1]


def test_arrays_of_every_kind_are_taken(tmp_path):
    """Arrays on disk, read-only ones and empty ones are taken like any other, by their own type and shape."""
    numbers = np.arange(12.0)
    np.save(tmp_path / "numbers.npy", numbers)
    disk = np.load(tmp_path / "numbers.npy", mmap_mode="r")
    whole = np.memmap(tmp_path / "whole", dtype=np.int64, shape=(5,), mode="w+")
    whole[:] = 7
    assert last(disk) == 11.0 and last(whole) == 7 and last(disk[:5]) == 4.0
    assert corner(disk.reshape(3, 4)) == 11.0 and corner(numbers.reshape(3, 4)[:2]) == 7.0
    with pytest.raises(TypeError, match="C-contiguous"):
        last(numbers[::2])
    assert grows(3, 0) == 0.0


def test_damaged_code_is_made_again(empty_cache):
    """A truncated, altered or empty file in the cache is not executed: the function is compiled afresh."""
    assert shifted(1.0) == 2.25
    (path,) = empty_cache.glob("*.o")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + b"x", b""):
        path.write_bytes(damaged)
        forget()
        assert shifted(1.0) == 2.25
        assert path.read_bytes() == whole


def test_code_is_found_again(empty_cache, monkeypatch):
    """A second process finds the code; nothing is compiled."""
    shifted(1.0)
    forget()
    monkeypatch.setattr("minidyn.compiler.llvm.optimize", None)
    assert shifted(2.0) == 3.25


def test_code_of_another_version_is_not_found(empty_cache, monkeypatch):
    """Another version of the compiler, or another processor, compiles its own."""
    shifted(1.0)
    for name, module in (("of_compiler", "fingerprint"), ("machine", "llvm")):
        forget()
        monkeypatch.setattr(f"minidyn.compiler.{module}.{name}", lambda: "another")
        shifted(1.0)
    assert len(list(empty_cache.glob("*.o"))) == 3


def test_cache_is_bounded(empty_cache, monkeypatch):
    """Beyond its limit the folder loses the files that were not used for longest."""
    monkeypatch.setenv("MINIDYN_CACHE_MB", "0.01")
    monkeypatch.setattr(cache, "_SELDOM", 4)
    files = [empty_cache / f"minidyn_kernel_{number:040d}.o" for number in range(40)]
    for number, file in enumerate(files):
        cache.write_code(file.stem[-40:], "f8", bytes(1000))
        os.utime(file, (number, number))
    kept = [file for file in files if file.exists()]
    assert kept == files[-len(kept) :] and 5 <= len(kept) <= 20


# -- in a user's numba code ------------------------------------------------------------------------------------


@jit
def axpy(a, x, y):
    total = 0.0
    for i in range(x.shape[0]):
        y[i] += a * x[i]
        total += y[i]
    return total


def test_in_numba():
    """A compiled function is called from numba code like one of numba's own."""

    @nb.njit
    def twice(a, x, y):
        axpy(a, x, y)
        return axpy(a, x, y)

    x, y = np.arange(3.0), np.ones(3)
    assert twice(0.5, x, y) == 6.0
    BITS(y, [1.0, 2.0, 3.0])


def test_refused_in_numba():
    """numba code that passes an array of another layout is told so."""

    @nb.njit
    def call(x, y):
        return axpy(1.0, x, y)

    with pytest.raises(nb.TypingError, match="C-contiguous arrays"):
        call(np.zeros((4, 2)).T[0], np.zeros(4))


def test_signatures():
    """A signature's text names arguments and result."""
    assert signature("f8(f8, f8[:,:])").args == (F8, Array(F8, 2))
    assert signature("void(i8[:])").name == "void(i8[:])"
