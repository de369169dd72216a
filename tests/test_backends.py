"""The same text by minidyn's compiler, by numba and as plain Python: the same bits."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import warnings
from pathlib import Path

import backends
import numpy as np
import pytest

from minidyn.compiler import llvm

ROOT = Path(__file__).parents[1]

# CI runs `tests/backends.py`, which leaves nothing out and takes minutes
QUICK = ["the_language", "random_streams", "losses"]
SPECIAL = ["special_functions", "tables"]  # numba takes a minute for each


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """What minidyn's compiler makes of them."""
    return backends.made_by("own", tmp_path_factory.mktemp("own"), [*QUICK, *SPECIAL])


def test_plain_python_gives_the_same_bits(own, tmp_path):
    """The language, random streams, losses to third derivatives, special functions, matrices, tables: all bits
    agree."""
    found = backends.made_by("python", tmp_path, [*QUICK, *SPECIAL])
    assert len(found) > 20 and backends.differences(own, found) == []


def test_numba_gives_the_same_bits(own, tmp_path, monkeypatch):
    """The same, all bits agree; a second process compiles nothing."""
    monkeypatch.setenv("MINIDYN_CACHE_DIR", str(tmp_path / "cache"))
    found = backends.made_by("numba", tmp_path, QUICK)
    assert backends.differences({k: a for k, a in own.items() if k.split("/")[0] not in SPECIAL}, found) == []
    kept = {p: p.stat().st_ino for p in (tmp_path / "cache").rglob("*.o")}
    assert len(kept) > 20
    again = backends.made_by("numba", tmp_path, QUICK[:1])
    assert backends.differences({k: a for k, a in found.items() if k.startswith(QUICK[0])}, again) == []
    assert {p: p.stat().st_ino for p in (tmp_path / "cache").rglob("*.o")} == kept


def test_a_difference_is_seen():
    """One bit, one sign of zero, one shape, one type: each counts."""
    a = {"x": np.array([0.0, 1.0, np.nan])}
    assert backends.differences(a, {"x": np.array([0.0, 1.0, -np.nan])}) == []
    for other in ([-0.0, 1.0, np.nan], [0.0, np.nextafter(1.0, 2.0), np.nan], [0.0, 1.0, 2.0], [0.0, 1.0]):
        assert backends.differences(a, {"x": np.array(other)}) == ["x"]
    assert backends.differences({"n": np.array([1])}, {"n": np.array([1.0])}) == ["n"]


def run(compiler: str, *arguments: str) -> subprocess.CompletedProcess:
    """What `python arguments` does with a back end."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, "MINIDYN_COMPILER": compiler},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_back_end_that_does_not_exist():
    """A wrong name is told in one sentence, with those that are right."""
    done = run("cython", "-m", "minidyn", "run", "valley", "--steps", "4")
    assert done.returncode == 2
    assert "MINIDYN_COMPILER is 'cython'; it must be own, numba or python" in done.stderr
    assert "Traceback" not in done.stderr


CALLED = """
import numba, numpy as np, sympy as sp, minidyn as md
x, y = sp.symbols("x y")
loss = md.Loss((1 + x**2) * y**2 / 2, [x, y])
grad = loss.kernels.grad

@numba.njit
def twice(w, c, d, out):
    grad(w, c, d, out)
    grad(w, c, d, out)
    return out[0] + out[1]

print(twice(np.array([1.0, 2.0]), loss.c, loss.rows, np.zeros(2)))
print(len(grad.assembly(np.zeros(2), loss.c, loss.rows, np.zeros(2))) > 100)
try:
    grad(np.zeros((2, 4))[:, 0], loss.c, loss.rows, np.zeros(2))
except TypeError as error:
    print(error)
"""


@pytest.mark.parametrize("compiler", ["own", "numba", "python"])
def test_in_the_users_own_numba_code(compiler):
    """Kernels are called from numba code, show what they become, and refuse strided arrays, whatever compiles them."""
    done = run(compiler, "-c", CALLED)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["8.0", "True", "compiled code takes C-contiguous arrays."]


def test_results_say_what_compiled_them():
    """The back end is among what made a result."""
    code = "from minidyn.simulate.run import provenance; print(provenance()['compiler'])"
    assert [run(c, "-c", code).stdout.strip() for c in ("own", "numba", "python")] == ["own", "numba", "python"]


DEBUGGED = """
import traceback
import numpy as np
from minidyn.kernels.elimination import factorize
try:
    factorize(np.ones((3, 2)), np.zeros(3, np.int64))
except IndexError as error:
    print(traceback.extract_tb(error.__traceback__)[-1].line)
"""


def test_plain_python_shows_its_lines():
    """An index beyond an array is an IndexError, and it names the line of the kernel."""
    assert run("python", "-c", DEBUGGED).stdout.strip() == "a[i, j] -= factor * a[k, j]"


# -- versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version, right", [("0.44.0", True), ("0.50.1", True), ("0.51.0", False), ("1.0.0rc1", False), ("0.43.9", False)]
)
def test_llvmlite_outside_the_tested_range_is_warned_of(version, right, monkeypatch):
    """A version of llvmlite that minidyn's requirement leaves out is named with the range, in one sentence."""
    monkeypatch.setattr(llvm, "requires", lambda name: ["numpy>=1.26", "llvmlite<0.51,>=0.44"])
    monkeypatch.setattr(llvm.llvmlite, "__version__", version)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        llvm._look_at_version()
    texts = [str(w.message) for w in seen]
    told = f"minidyn was tested with llvmlite<0.51,>=0.44, not with llvmlite {version}: install one of those"
    assert texts == [] if right else len(texts) == 1 and texts[0].startswith(told)


def test_the_lowest_versions_are_those_of_setup_cfg():
    """CI installs the lower bound of every dependency, and every dependency has one."""
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "lowest")], capture_output=True, text=True, check=True)
    found = dict(line.split("==") for line in done.stdout.split())
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = [*setup["options"]["install_requires"].split(), *setup["options.extras_require"]["test"].split()]
    assert len(found) == len(wanted) > 15
    for line in wanted:
        name, bounds = line.split(">=")
        assert bounds.split(",")[0] == found[name]
