"""W5: from symbols to numbers in a new process, with an empty cache folder and with a full one. Whole command lines."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Row

ROOT = str(Path(__file__).resolve().parent.parent)

# Runs in a new process: `units samples Hessian?`; prints the seconds of every first evaluation as JSON.
_DERIVE = """
import json, sys, time
from benchmarks import problems
import numpy as np
units, samples, evaluate = (int(a) for a in sys.argv[1:])
w = problems.network_start(units)
u, v = np.random.default_rng(3).normal(size=(2, len(w)))
taken = {}
def timed(name, call):
    began = time.perf_counter(), time.process_time()
    call()
    taken[name] = [time.perf_counter() - began[0], time.process_time() - began[1]]
    began = time.process_time()
    if name != "loss":
        call()  # what a call takes once it is compiled
    taken[name].append(time.process_time() - began)
def build():
    global loss
    loss = problems.network(units, samples)
def hessian():
    if evaluate:
        return loss.hessian(w)
    points, rows, out = np.empty((1, len(w))), loss.rows, np.empty((1, 1, 1))  # too large to hold: compile it only
    from minidyn.compiler.functions import type_of
    loss.kernels.hessians.compile(tuple(type_of(a) for a in (points, loss.c, rows, out)))
timed("loss", build)
timed("value", lambda: loss.value(w))
timed("gradient", lambda: loss.grad(w))
timed("hvp", lambda: loss.hvp(w, u))
timed("third", lambda: loss.third(w, u, v))
timed("Hessian", hessian)
print("JSON", json.dumps(taken))
"""

# Runs in a new process: `model`, or nothing for a net that Python writes out term by term; prints seconds as JSON.
_FIRST = """
import json, sys, time
import numpy as np, sympy as sp
import minidyn as md
import minidyn.files.models
given, rng, m = sys.argv[1:], np.random.default_rng(0), 100
began = time.process_time()
if given:
    model = md.load_model(given[0])
    loss, rule = model.loss, model.map
else:
    a, w, b = (sp.symbols(f"{letter}:{m}") for letter in "awb")
    x = sp.Symbol("x")
    net = sp.Add(*(a[j] * sp.tanh(w[j] * x + b[j]) for j in range(m)))
    loss = md.Loss.regression(net, [*a, *w, *b], {x: rng.normal(size=200)}, rng.normal(size=200))
    rule = md.Map(loss, md.SGD(0.01))
at = rng.normal(size=loss.dim) / 10
built = time.process_time()
loss.grad(at)
gradient = time.process_time()
rule.step(at)
print("JSON", json.dumps([built - began, gradient - built, time.process_time() - gradient]))
"""

_WARM = """
import sys
from benchmarks import problems
problems.network(int(sys.argv[1]), int(sys.argv[2])).grad(problems.network_start(int(sys.argv[1])))
"""


def _environment(cache: str) -> dict[str, str]:
    """As a user's, who has minidyn's modules as bytecode from the second time on."""
    path = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "MINIDYN_CACHE_DIR": cache, "PYTHONPATH": path}


@dataclass
class Ran:
    """A whole process: seconds on the clock, seconds of processor time, what it printed."""

    clock: float
    processor: float
    said: str


def _python(cache: str, *arguments: str) -> Ran:
    """Run a new Python process with this cache folder."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments], env=_environment(cache), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:60]} fails: {done.stderr.strip().splitlines()[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(time.perf_counter() - began, spent, done.stdout)


def _derive(units: int, samples: int, evaluate: bool = True) -> dict[str, list[float]]:
    """First evaluations in a new process: name -> seconds on the clock, of processor time, of a second call."""
    with tempfile.TemporaryDirectory() as cache:
        said = _python(cache, "-c", _DERIVE, str(units), str(samples), str(int(evaluate))).said
    return json.loads(said.split("JSON ", 1)[1])


def cold(quick: bool) -> Iterator[Row]:
    """W5: derive and compile value, gradient, hvp, Hessian and third of L3, of L4, of a net of 10 000 units."""
    given = {
        "W5 cold, L3: all five": (10, 20, True, 1.5),
        "W5 cold, L4: all five": (100, 200, True, 1.5),
        "W5 cold, 10 000 units: all five": (10_000, 20, False, 2.0),
        "W5 cold, 20 000 samples: all five": (10, 20_000, True, None),
    }
    compiling = {}
    for work, (units, samples, evaluate, bar) in given.items():
        runs = [_derive(units, samples, evaluate) for _ in range(1 if quick else 3)]
        parts = {n: statistics.median(r[n][1] for r in runs) for n in runs[0]}
        compiling[work] = statistics.median(sum(t[1] - t[2] for t in r.values()) for r in runs)
        clock = statistics.median(sum(t[0] for t in r.values()) for r in runs)
        each = ", ".join(f"{n} {s:.2f}" for n, s in parts.items())
        note = f"{each}; on the clock {clock:.2f}{'' if evaluate else '; Hessian compiled only'}"
        yield Row(work, "s", sum(parts.values()), bar=bar, note=note, extra={"parts": parts, "clock": clock})
    base = compiling["W5 cold, L3: all five"]
    for work in ("W5 cold, 10 000 units: all five", "W5 cold, 20 000 samples: all five"):
        what = work.removeprefix("W5 cold, ").removesuffix(": all five")
        note = f"compilation alone, {compiling[work]:.2f} s against {base:.2f} s: 1 if independent of the size"
        yield Row(f"W5 cold, {what} over L3", "times", compiling[work] / base, note=note)


def first(quick: bool) -> Iterator[Row]:
    """To the first gradient with an empty cache: nets of matrices, of several outputs, and of terms written out."""
    for name, given in (("deep_linear_net", True), ("softmax_net", True), ("a net written out", False)):
        runs = []
        for _ in range(1 if quick else 3):
            with tempfile.TemporaryDirectory() as cache:
                said = _python(cache, "-c", _FIRST, *[name] * given).said
            runs.append(json.loads(said.split("JSON ", 1)[1]))
        built, gradient, step = (statistics.median(part) for part in zip(*runs, strict=True))
        note = f"the loss {built:.2f}, its gradient {gradient:.2f}; the map's first step then {step:.2f}"
        yield Row(f"first gradient, {name}", "s", built + gradient, bar=1.0, note=note, extra={"runs": runs})


def processes(quick: bool) -> Iterator[Row]:
    """Whole processes: the first gradient with a full cache, `minidyn run valley` twice, `import minidyn`."""
    repeats = 3 if quick else 7
    with tempfile.TemporaryDirectory() as cache:
        for name, units, samples, bar in (("L3", 10, 20, 1.0), ("L4", 100, 200, 1.0)):
            code = ("-c", _WARM, str(units), str(samples))
            _python(cache, *code)
            taken = [_python(cache, *code) for _ in range(repeats)]
            yield _whole(f"W5 warm, new process to first gradient, {name}", taken, bar)
        taken = [_python(cache, "-c", "import minidyn") for _ in range(repeats)]
        bare = statistics.median(_python(cache, "-c", "pass").clock for _ in range(repeats))
        yield _whole("import minidyn", taken, None, f"the bare interpreter takes {bare:.2f}")
    with tempfile.TemporaryDirectory() as cache:
        command = ("-m", "minidyn", "run", "valley", "--out", os.path.join(cache, "valley"))
        yield _whole("minidyn run valley, first time", [_python(cache, *command)], None, "everything is compiled")
        yield _whole("minidyn run valley, second time", [_python(cache, *command) for _ in range(repeats)], 2.0)


def _whole(work: str, runs: list[Ran], bar: float | None, note: str = "") -> Row:
    processor = statistics.median(r.processor for r in runs)
    note = "; ".join(filter(None, [f"of processor time {processor:.2f}", note]))
    taken = [r.clock for r in runs]
    return Row(work, "s", statistics.median(taken), bar=bar, note=note, extra={"clock": taken, "processor": processor})
