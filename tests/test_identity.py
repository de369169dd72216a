"""What a run is: whatever reaches its numbers is told apart, in every process, and what cannot be told is refused."""

import functools
import inspect
import os
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.simulate.identity import identity

x, y, z, a, b, u = sp.symbols("x y z a b u")
BOWL = md.Loss(x**2 + y**2, [x, y])
PLANE = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SGD = md.Map(PLANE, md.SGD(0.1), md.GaussianNoise(0.3))
FIT = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5))
HELD = FIT.hold_out({u: [0.5, 1.5]}, [0.2, 0.4])
SCALE = 2.0


def same(change, base):
    """Whether two values have one identity."""
    return identity(change, "q") == identity(base, "q")


# -- every argument ------------------------------------------------------------------------------------------

DRIFT = [-x * y**2, -(1 + x**2) * y]
BASE = {"system": SGD, "w0": [1.0, 0.1], "steps": 12, "paths": 3, "save_every": 4, "observe": {"q": x**2}, "rng": 1,
        "method": None, "rtol": None, "atol": None, "substeps": None, "keep": "paths", "first_step": 1, "threads": 1,
        "progress": False, "stop": None, "hyper": None, "first_path": 0, "continue_from": None}  # fmt: skip
NOISY = BASE | {"system": md.SymbolicFlow(SGD, DRIFT, [x, y])}
CHANGED = {
    "system": [md.Map(PLANE, md.SGD(0.1), md.GaussianNoise(0.31)), md.Map(PLANE, md.SGD(0.1, 0.5), SGD.noise),
               md.Map(PLANE, md.SGD(0.1)), md.Map(md.Loss(x**2 + y**2, [x, y]), SGD.rule, SGD.noise)],
    "w0": [[1.0, 0.2], [[1.0, 0.1]] * 3, [-1.0, 0.1]], "steps": [13, 8, 24], "paths": [1, 4], "save_every": [3, 12],
    "observe": [{"q": y}, {"r": x**2}, None, {"q": lambda w: w[:, 0]}, ["loss"], {"q": x**2, "r": y}],
    "rng": [2, np.random.SeedSequence(1, pool_size=8), np.random.SeedSequence(1), [1, 0]], "method": [], "rtol": [1e-3],
    "atol": [1e-3], "substeps": [1, 0.5, "adaptive"], "keep": ["moments"], "first_step": [2, 10], "threads": [2],
    "progress": [True], "stop": [x > 1.0, x - 1.0, lambda w: w[:, 0] > 1.0],
    "hyper": [{"lr": [0.1, 0.2, 0.3]}, {"sigma": [0.3, 0.2, 0.1]}], "first_path": [1, 64], "continue_from": [],
}  # fmt: skip
FLOWS = {
    "system": [md.SymbolicFlow(SGD, DRIFT, [x, y], reading="stratonovich"), md.SymbolicFlow(SGD, DRIFT, [x, 2 * y])],
    "method": ["milstein", "weak2"],
    "substeps": [1, 0.5],
    "rtol": [1e-4],
    "first_step": [3],
}


def outcome(call):
    """What a call gives, or that it is refused, in one sentence."""
    try:
        return call()
    except md.MinidynError as error:
        assert "\n" not in str(error) and str(error).endswith(".")
        return None


def run(given, folder=None):
    return md.simulate(**given, checkpoint=folder).digest()


def copied(folder, number):
    """A folder like this one: a checkpoint that takes more steps is no longer that of fewer."""
    return shutil.copytree(folder, f"{folder}-{number}", dirs_exist_ok=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Checkpoints of the two runs that everything is changed of."""
    folders = {}
    for name, base in {"map": BASE, "flow": NOISY}.items():
        folders[name] = tmp_path_factory.mktemp(name)
        run(base, folders[name])
    return folders


@pytest.mark.parametrize(("kind", "name"), [*(("map", n) for n in CHANGED), *(("flow", n) for n in FLOWS)])
def test_a_changed_argument_is_refused_or_gives_the_fresh_run(kind, name, kept):
    """simulate: resuming with any other argument is refused or the bits of a run without a checkpoint."""
    base, changes = (BASE, CHANGED) if kind == "map" else (NOISY, FLOWS)
    for turn, value in enumerate(changes[name]):
        given, folder = base | {name: value}, copied(kept[kind], f"{name}-{turn}")
        again = outcome(lambda given=given, folder=folder: run(given, folder))
        assert again is None or again == run(given), f"{name}={value!r}"
    assert run(base, kept[kind]) == run(base)


def test_all_arguments_of_simulate_are_changed():
    """The list above is complete."""
    told = {"checkpoint", "executor"}
    assert {*CHANGED} | told == {*inspect.signature(md.simulate).parameters} == {*BASE} | told


PAIR = (SGD, md.QuasistaticFlow(SGD))
BESIDE = {
    "w0": [1.0, 0.1], "steps": 12, "paths": 4, "coupled": True, "save_every": 4, "observe": ["loss"], "rng": 1,
    "rows": 2, "first_step": 1, "threads": 1, "progress": False, "missing": "raise",
}  # fmt: skip
OTHERS = {
    "w0": [[1.0, 0.2]], "steps": [16], "paths": [5], "coupled": [False], "save_every": [6], "observe": [{"q": x * y}],
    "rng": [2], "rows": [3], "first_step": [2], "threads": [2], "progress": [True], "missing": ["remark"],
    "system": [md.Map(PLANE, md.SGD(0.2), SGD.noise)], "flows": [[md.GradientFlow], [md.StochasticModifiedFlow]],
    "flow_options": [{"substeps": 1}],
}  # fmt: skip


def comparison(given, folder=None):
    given = dict(given)
    system, flows = given.pop("system", SGD), given.pop("flows", [md.QuasistaticFlow])
    given |= given.pop("flow_options", {})
    found = md.compare(system, *(flow(system) for flow in flows), **given, checkpoint=folder)
    return [r.digest() for r in found.runs.values()], repr(found.errors)


def check_every_argument(of, run, usual, others, folder):
    """With each other value of each argument a checkpoint of the usual ones is refused, or ends as without it."""
    assert {*others, "checkpoint"} == {*inspect.signature(of).parameters} - {"executor"}
    base = run(usual, folder)
    for name, values in others.items():
        for value in values:
            given = usual | {name: value}
            own = copied(folder, name)
            again = outcome(lambda given=given, own=own: run(given, own))
            assert again is None or again == run(given), f"{name}={value!r}"
    assert run(usual, folder) == base == run(usual)


def test_every_argument_of_compare(tmp_path):
    """compare: the same, for each of its arguments."""
    check_every_argument(md.compare, comparison, BESIDE, OTHERS, tmp_path)


LADDER = {
    "lrs": [0.1, 0.05], "w0": [1.0, 0.1], "time": 0.4, "precision": 0.5, "paths": None, "pilot": 4, "max_paths": 8,
    "observe": None, "rng": 1, "threads": 1, "progress": False,
}  # fmt: skip
RUNGS = {
    "lrs": [[0.1, 0.025]], "w0": [[1.0, 0.2], lambda m: [1.0, 0.1]], "time": [0.8], "slow_time": [0.04],
    "precision": [0.1], "paths": [4], "pilot": [5], "max_paths": [6], "work": [40.0], "observe": [["loss"]], "rng": [2],
    "threads": [2], "progress": [True], "system": [md.Map(PLANE, SGD.rule, md.GaussianNoise(0.1))],
    "flows": [[md.GradientFlow]], "flow_options": [{"substeps": 1}],
}  # fmt: skip


def study(given, folder=None):
    given = dict(given)
    system, flows = given.pop("system", SGD), given.pop("flows", [md.QuasistaticFlow])
    given |= given.pop("flow_options", {})
    given |= {"time": None} if given.get("slow_time") else {}
    return repr(md.scaling_study(system, *flows, **given, checkpoint=folder).rows)


def test_every_argument_of_scaling_study(tmp_path):
    """scaling_study: the same, for each of its arguments."""
    check_every_argument(md.scaling_study, study, LADDER, RUNGS, tmp_path)


def test_held_out_samples_are_part_of_a_run(tmp_path):
    """A run that observes the error on held-out samples is not resumed with others."""

    def go(loss, folder=None):
        return md.simulate(md.Map(loss, md.GD(0.1)), [1.0, 0.5], 8, observe="test_error", checkpoint=folder).digest()

    other = FIT.hold_out({u: [0.5, 1.5]}, [0.2, 0.5])
    kept = go(HELD, tmp_path)
    assert outcome(lambda: go(other, tmp_path)) is None and go(other) != kept == go(HELD, tmp_path)


# -- functions -----------------------------------------------------------------------------------------------


def scaled(factor, power=1.0, *, shift=0.0):
    """A function that closes over its numbers."""

    def f(w, power=power, *, shift=shift):
        return factor * w[:, 0] ** power + shift

    return f


class Model:
    """An object with numbers, that is called."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, w):
        return self.weight * w[:, 0]

    def predict(self, w):
        return self(w) + 1.0


def helper(code, name="helper", **values):
    """A function of a module that a user wrote."""
    module = types.ModuleType(name)
    vars(module).update(values)
    exec(code, vars(module))
    return module


def calling(module):
    return lambda w: module.f(w)


DIFFER = {
    "constant": (lambda w: 2.0 * w[:, 0], lambda w: 3.0 * w[:, 0]),
    "sign of zero": (lambda w: 0.0 * w[:, 0], lambda w: -0.0 * w[:, 0]),
    "operation": (lambda w: w[:, 0] + w[:, 1], lambda w: w[:, 0] - w[:, 1]),
    "name": (lambda w: w.sum(1), lambda w: w.min(1)),
    "module's name": (lambda w: np.sin(w[:, 0]), lambda w: np.cos(w[:, 0])),
    "inner function": (lambda w: [v**2 for v in w[:, 0]], lambda w: [v**3 for v in w[:, 0]]),
    "closure": (scaled(2.0), scaled(2.5)), "default": (scaled(2.0, 1.0), scaled(2.0, 2.0)),
    "keyword": (scaled(2.0, shift=0.0), scaled(2.0, shift=1.0)),
    "closed array": (scaled(np.array([1.0, 2.0])), scaled(np.array([1.0, 3.0]))),
    "closed loss": (lambda w, loss=PLANE: loss.value(w), lambda w, loss=BOWL: loss.value(w)),
    "object": (Model(1.0), Model(2.0)), "method": (Model(1.0).predict, Model(2.0).predict),
    "partial": (functools.partial(scaled, 1.0), functools.partial(scaled, 2.0)),
    "vectorized": (np.vectorize(lambda v: v + 1.0), np.vectorize(lambda v: v + 2.0)),
    "remembered": (functools.lru_cache(scaled(1.0)), functools.lru_cache(scaled(2.0))),
    "module's function": tuple(calling(helper(f"def f(w):\n    return w[:, {i}]\n")) for i in (0, 1)),
    "module's number": tuple(calling(helper("def f(w):\n    return c * w[:, 0]\n", c=c)) for c in (1.0, 2.0)),
    "expression": (x**2, y), "assumption": (x, sp.Symbol("x", positive=True)), "number": (sp.Integer(1), sp.Float(1)),
    "order": ([x, y], [y, x]), "array's type": (np.array([1, 2]), np.array([1.0, 2.0])), "kind": ("1", 1),
    "shape": (np.zeros((2, 3)), np.zeros((3, 2))), "True": (True, 1), "nesting": ([[1], 2], [[1, 2]]),
    "noise": (md.GaussianNoise(0.1), md.GaussianNoise(np.nextafter(0.1, 1))), "reading": (
        md.SymbolicFlow(SGD, DRIFT, [x, y]), md.SymbolicFlow(SGD, DRIFT, [x, y], reading="stratonovich")),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFER)
def test_what_gives_other_numbers_is_something_else(what):
    """Functions, expressions and objects that differ in one place differ, and are what they are each time."""
    one, other = DIFFER[what]
    assert not same(one, other) and same(one, one) and same(other, other)


def test_what_is_written_twice_is_the_same():
    """Places, names of arguments and order of what has none make no difference; a global that changes does."""
    assert same(lambda w: 2.0 * w[:, 0], lambda v: 2.0 * v[:, 0]) and same(scaled(2.0), scaled(2.0))
    assert same(sp.Max(x, y, z), sp.Max(z, x, y)) and same({1.0, 2.0, 3.0}, {3.0, 1.0, 2.0})
    assert same(sp.Dummy("q") ** 2, sp.Dummy("q") ** 2)

    def f(w):
        return SCALE * w

    before = identity(f, "q")
    globals()["SCALE"] = 3.0
    try:
        assert identity(f, "q") != before
    finally:
        globals()["SCALE"] = 2.0
    assert identity(f, "q") == before


class Half:
    """An object that computes something once."""

    def __init__(self, number):
        self.number = number

    @functools.cached_property
    def half(self):
        return self.number / 2


def test_what_was_computed_since_is_no_part_of_an_object():
    """An object is the same before and after a property of it was computed; with another number it is another one."""
    one, other = Half(3.0), Half(3.0)
    assert one.half == 1.5 and same(one, other) and not same(one, Half(4.0))
    flows = [md.QuasistaticFlow(md.Map(PLANE, md.SGD(10 / (sp.Symbol("k") + 100)), SGD.noise)) for _ in range(2)]
    md.simulate(flows[0], [1.0, 0.0], 4)
    assert same(*flows)


def test_things_that_refer_to_themselves_come_to_an_end():
    """Functions that call themselves or each other, and lists in themselves."""

    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n > 0 and even(n - 1)

    round_ = [1.0]
    round_.append(round_)
    assert not same(even, odd) and same(even, even) and same(round_, round_)


@pytest.mark.parametrize("what", [
    (i for i in range(3)), iter([1.0]), np.random.default_rng(0), threading.Lock(), sys.stdin,
], ids=["generator", "iterator", "random numbers", "lock", "file"])  # fmt: skip
def test_what_cannot_be_told_again_is_refused(what, tmp_path):
    """A function that closes over a stream, a lock or a source of random numbers cannot have a checkpoint."""
    with pytest.raises(md.InputError) as error:
        md.simulate(SGD, [1.0, 0.0], 2, observe={"q": lambda w: w[:, 0] if what else w}, checkpoint=tmp_path / "c")
    assert str(error.value).startswith("the observable q cannot be told again when a checkpoint goes on: it holds ")
    assert not (tmp_path / "c").exists()


_SCRIPT = """
import sys, numpy as np, sympy as sp, minidyn as md
from minidyn.simulate.identity import identity
x, y, s = sp.symbols("x y s"); q = md.vector("q", 5); j = sp.Symbol("j", integer=True)
rule = md.rule(lambda theta, g, m, *, lr, beta=0.9: (theta - lr * (m * beta + g), beta * m + g))
loss = md.Loss(sp.Max(x, y, x * y) + x**2 + sp.Piecewise((x, (x > 0) & (y < 1)), (y, True)) + y**2, [x, y])
maps = [md.Map(loss, r, n) for r in (md.Adam(0.1), md.GD(0.1 / sp.Symbol("k")), rule(0.1)) for n in
        (None, md.GaussianNoise([0.1, x]))]
data = md.Loss.regression(x * sp.tanh(y * sp.Symbol("u")), [x, y], {sp.Symbol("u"): [1.0, 2.0]}, [0.5, 1.0])
things = [*maps, md.Map(data, md.SGD(0.1), md.LabelNoise(0.1, batch=1)), md.GradientFlow(maps[2]),
          md.SymbolicFlow(maps[1], [-x, -y], [x, 1]), md.Loss(sp.Sum(q[j]**2, (j, 0, 4)), [q]),
          md.Manifold(md.Loss((1 + x**2) * y**2, [x, y]), chart={x: s, y: 0}, coordinates=[s]),
          lambda w: np.linalg.norm(w, axis=1) + sum({1.0, 2.0}), {"stop": [x > 1, lambda w: w[:, 0]]}]
for thing in things:
    print(identity(thing, "q"))
sys.stdout.flush()
md.simulate(maps[1], [1.0, 0.5], 40, save_every=2, paths=3, rng=0, observe={"q": lambda w: w[:, 0]},
            stop=lambda w: w[:, 1] > 3.0, checkpoint=sys.argv[1])
"""


def test_identities_are_those_of_another_process(tmp_path):
    """Processes with other hashes name the same things alike, and resume a run with functions."""

    def script(seed):
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", _SCRIPT, tmp_path], env=environment, text=True, capture_output=True, check=True
        ).stdout.split()

    one = script("1")
    assert one == script("2") and len(set(one)) == len(one) == 13
