"""Objects travel: used ones are pickled, copied and sent to other processes, and are the same there to the last bit."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import minidyn as md

x, y, s, a, b, u, c, k = sp.symbols("x y s a b u c k")
VALLEY = md.Loss(c * (1 + x**2) * y**2 / 2, [x, y], constants={c: 1.5})
MODEL = md.Loss.regression(a * b * u, [a, b], {u: [1.0, 2.0, 0.5]}, [1.0, 2.0, 0.5]).hold_out({u: [1.0]}, [1.0])
FLOOR = md.Manifold(VALLEY, chart={x: s, y: 0}, coordinates=[s])
NOISY = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise([0.3, 0.2]))
STILL = md.Map(VALLEY, md.GD(0.1))
ADAM = md.Map(MODEL, md.Adam(0.01, eps=1e-3), md.LabelNoise(0.1, batch=2))
RMS = md.Map(VALLEY, md.RMSProp(0.01, eps=1e-2))
W, ON, FIT = [1.0, 0.2], [1.0, 0.0], [1.0, 1.0]


@md.rule
def own(theta, g, m, *, lr, beta=0.9, kind="heavy", k):
    """Heavy ball, or its sign."""
    m = beta * m + g / k
    return theta - lr * (m if kind == "heavy" else sp.sign(m)), m


# name: what is made, and the numbers that it gives; both in one table, so that every object is used before it travels
TABLE = {
    "loss": (lambda: VALLEY, lambda t: (t.grad(W), t.hessian(W))),
    "regression": (lambda: MODEL, lambda t: (t.jacobian(FIT), t.sample_hvps(FIT, [[1.0, 0.0]]), t.test.grad(FIT))),
    "map": (lambda: NOISY, lambda t: t.step(W, rng=3)),
    "adam": (lambda: ADAM, lambda t: (t.step(W, rng=3), t.fixed_point(FIT))),
    "own rule": (lambda: md.Map(VALLEY, own(0.1, kind="sign")), lambda t: t.step(W, k=2)),
    "rule": (lambda: md.AdamW(0.1 / k), lambda t: [t.lr(i) for i in (1, 2, 3)]),
    "noise": (lambda: md.GaussianNoise(np.array([[0.1], [0.2]])) + md.Minibatch(2), lambda t: np.array(t.sigma)),
    "noise that varies": (lambda: md.GaussianNoise([x, sp.sqrt(1 + y**2)]),
                          lambda t: md.Map(VALLEY, md.GD(1), t).step(W, rng=2)),
    "manifold": (lambda: FLOOR, lambda t: (t.project(W), t.chart.point([2.0]))),
    "gradient": (lambda: md.GradientFlow(STILL), lambda t: t.drift(W)),
    "modified": (lambda: md.ModifiedFlow(STILL, order=3), lambda t: t.drift(W)),
    "sme": (lambda: md.StochasticModifiedFlow(NOISY), lambda t: (t.drift(W), t.diffusion(W))),
    "quasistatic": (lambda: md.QuasistaticFlow(NOISY, FLOOR), lambda t: t.drift(ON)),
    "quasistatic of adam": (lambda: md.QuasistaticFlow(ADAM), lambda t: t.drift(FIT)),
    "closed form": (lambda: md.QuasistaticFlow(NOISY, FLOOR).closed_form(), lambda t: t.drift(t.start(ON))),
    "rod": (lambda: md.RodFlow(STILL), lambda t: t.drift(t.start(W))),
    "central": (lambda: md.CentralFlow(RMS), lambda t: t.drift(t.start(W))),
    "symbolic": (lambda: md.SymbolicFlow(NOISY, [-x, -y], [sp.sqrt(x**2 + 1), 0.1]), lambda t: t.drift(W)),
    "run": (lambda: md.simulate(NOISY, W, 20, paths=5, rng=0, observe=["loss"]), lambda t: t.w),
    "moments": (lambda: md.simulate(NOISY, W, 20, paths=5, rng=0, keep="moments"), lambda t: t.moments["x"]["mean"]),
    "comparison": (lambda: md.compare(NOISY, md.StochasticModifiedFlow(NOISY), w0=W, steps=20, paths=20, rng=0),
                   lambda t: [r.difference for r in t.errors]),
    "study": (lambda: md.scaling_study(STILL, md.GradientFlow(STILL), lrs=[0.1, 0.05, 0.025], w0=W, time=0.5),
              lambda t: [f.order for f in t.fits]),
    "stability": (lambda: md.stability(ADAM, FIT), lambda t: t.direction),
    "diagram": (lambda: md.stability_diagram(md.Map(MODEL, md.SGD(0.1), md.Minibatch(1)), [FIT]),
                lambda t: t.sharpness),
    "flatness": (lambda: md.flatness(MODEL, FIT), lambda t: t.trace),
    "edge": (lambda: md.edge(STILL, w0=W, steps=20), lambda t: t.sharpness),
    "escape": (lambda: md.escape(md.Map(MODEL, md.SGD(0.1), md.Minibatch(1)), FIT, steps=10, paths=20, rng=0),
               lambda t: t.second_moment),
    "model": (lambda: md.load_model("valley"), lambda t: t.map.step([1.0, 0.1], rng=1)),
}  # fmt: skip


@cache
def used(name: str):
    """The object after it has been used, and its numbers."""
    make, numbers = TABLE[name]
    thing = make()
    return thing, bits(numbers(thing))


def bits(value) -> bytes:
    parts = value if isinstance(value, tuple) else (value,)
    return b"".join(np.asarray(p, dtype=float).tobytes() for p in parts)


@pytest.mark.parametrize("name", TABLE)
def test_a_trip_changes_nothing(name):
    """A used object is equal after pickling (protocols 2 to 5) and copying, hashes alike, and gives the same bits."""
    thing, before = used(name)
    copies = [pickle.loads(pickle.dumps(thing, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for other in (*copies, copy.deepcopy(thing), copy.copy(thing)):
        assert other == thing and (other != thing) is False and hash(other) == hash(thing)
    for other in (copies[0], copy.deepcopy(copies[-1])):
        assert bits(TABLE[name][1](other)) == before and other == thing


def test_different_things_are_different():
    """No two entries of the table are equal, and nothing is equal to what is no object of minidyn's."""
    things = [used(name)[0] for name in TABLE]
    assert all((p == q) is (p is q) for p in things for q in things)
    assert not any(t == other for t in things for other in (None, 1.0, "x", sp.Symbol("x")))


Z = sp.Symbol("x", real=True)
NEAR = md.Loss.regression(a * b * u, [a, b], {u: [1.0, 2.0, 0.5]}, [1.0, 2.0, 0.5])
CHANGED = {
    "text": (VALLEY, md.Loss(c * (1 + x**2) * y**2 / 3, [x, y], constants={c: 1.5})),
    "order": (VALLEY, md.Loss(c * (1 + x**2) * y**2 / 2, [y, x], constants={c: 1.5})),
    "assumption": (md.Loss(x**2, [x]), md.Loss(Z**2, [Z])),
    "constant": (VALLEY, VALLEY.with_constants({c: np.nextafter(1.5, 2)})),
    "constant's name": (md.Loss(x**2 * c, [x], constants={c: 1}), md.Loss(x**2 * a, [x], constants={a: 1})),
    "sample": (NEAR, NEAR.with_data({u: [1.0, 2.0, np.nextafter(0.5, 1)]})),
    "target": (NEAR, NEAR.with_data({NEAR.target: [1.0, 2.0, 0.4]})),
    "held out": (NEAR, MODEL),
    "criterion": (md.Loss.regression(a, [a], {}, [1.0]), md.Loss.regression(a, [a], {}, [1.0], criterion="logistic")),
    "loss of a map": (STILL, md.Map(VALLEY.with_constants({c: 2.0}), STILL.rule)),
    "rate": (STILL, STILL.with_lr(np.nextafter(0.1, 1))),
    "schedule": (md.GD(1 / k), md.GD(1 / (k + 1))),
    "rule": (md.Map(VALLEY, md.GD(0.1)), md.Map(VALLEY, md.SGD(0.1))),
    "structure": (own(0.1), own(0.1, kind="sign")),
    "no noise": (NOISY, md.Map(VALLEY, NOISY.rule)),
    "size of noise": (NOISY, md.Map(VALLEY, NOISY.rule, md.GaussianNoise([0.3, 0.21]))),
    "shape of noise": (md.GaussianNoise([0.3]), md.GaussianNoise([[0.3]])),
    "batch": (md.Minibatch(2), md.Minibatch(3)),
    "replacement": (md.Minibatch(2), md.Minibatch(2, replace=True)),
    "labels": (md.LabelNoise(0.1), md.LabelNoise(0.1, kind="rademacher")),
    "map of a flow": (md.GradientFlow(STILL), md.GradientFlow(STILL.with_lr(0.2))),
    "order of a flow": (md.ModifiedFlow(STILL), md.ModifiedFlow(STILL, order=3)),
    "kind of flow": (md.GradientFlow(STILL), md.RodFlow(STILL)),
    "accumulators": (md.QuasistaticFlow(ADAM), md.QuasistaticFlow(ADAM, accumulators="frozen")),
    "equations": (md.SymbolicFlow(NOISY, [-x, -y]), md.SymbolicFlow(NOISY, [-x, -2 * y])),
    "reading": (
        md.SymbolicFlow(NOISY, [-x, -y], [x, y]),
        md.SymbolicFlow(NOISY, [-x, -y], [x, y], reading="stratonovich"),
    ),
    "gap": (md.Manifold(VALLEY), md.Manifold(VALLEY, gap=1e-6)),
    "chart": (md.Manifold(VALLEY), FLOOR),
}


@pytest.mark.parametrize("what", CHANGED)
def test_any_change_makes_a_difference(what):
    """Objects that differ in one ingredient are not equal, each is equal to its copy, and neither comparison raises."""
    one, other = CHANGED[what]
    assert one != other and (one == other) is False
    assert one == copy.deepcopy(one) and other == copy.deepcopy(other)


def test_runs_are_equal_to_the_last_bit_and_no_further():
    """Runs compare by all that they hold, NaN like NaN; one changed number is a difference."""
    run = used("run")[0]
    lost = replace(run, w=np.where(np.arange(run.w.shape[1])[:, None] > 3, np.nan, run.w))
    assert lost == copy.deepcopy(lost) and lost != run
    other = copy.deepcopy(run)
    other.w[2, 3, 1] = np.nextafter(other.w[2, 3, 1], 9)
    assert other != run
    again = [md.simulate(NOISY, W, 20, paths=70, rng=0, threads=threads) for threads in (1, 2)]
    assert again[0] == again[1] and again[0] != md.simulate(NOISY, W, 20, paths=70, rng=1)


SCRIPT = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import sympy as sp
import minidyn as md

x, y = sp.symbols("x y")
LOSS = md.Loss((1 + x**2) * y**2 / 2, [x, y])


@md.rule
def mine(w, grad, g, *, lr, beta=0.5, nesterov=False):
    g = beta * g + grad
    return w - lr * (grad + beta * g if nesterov else g), g


def closed(scale):
    def inner(w, g, *, lr):
        return w - scale * lr * g
    return md.rule(inner)


RULES = {"decorator": mine(0.1, nesterov=True), "closure": closed(2)(0.1), "built-in": md.Lion(0.01),
         "lambda": md.rule(lambda w, g, *, lr: w - lr * g)(0.1)}


def numbers(system):
    if isinstance(system, md.Flow):
        return system, system.drift([1.0, 0.2]).tobytes()
    return system, md.simulate(system, [1.0, 0.2], 20, paths=70, rng=1).digest()


if __name__ == "__main__":
    maps = [md.Map(LOSS, rule, md.GaussianNoise([0.1, sp.sqrt(1 + x**2)])) for rule in RULES.values()]
    systems = [*maps, md.ModifiedFlow(maps[0]), md.GradientFlow(maps[0])]
    here = [numbers(system) for system in systems]
    for method in sys.argv[1:]:
        with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
            there = list(pool.map(numbers, systems))
        assert [n for _, n in there] == [n for _, n in here], method
        assert [m for m, _ in there] == systems, method
        print(method, "ok")
"""


def test_processes_of_every_kind_give_the_same_bits(tmp_path):
    """Maps and flows of rules from a script (decorator, closure, lambda) give the same bits in processes that were
    spawned, forked, or forked from a server, and come back equal."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(md.__file__).resolve().parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    kinds = ["fork", "spawn", "forkserver"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script), *kinds],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["fork", "ok", "spawn", "ok", "forkserver", "ok"], done.stderr


def test_threads_that_meet_an_unused_object_agree():
    """Many threads that use a fresh map, loss and flow at once get what one thread gets."""
    fresh = md.Loss((2 + sp.cos(x)) * y**2 / 2 + x**4 / 4, [x, y])
    system = md.Map(fresh, md.SGD(0.1, 0.3))
    flow = md.ModifiedFlow(system)
    wait, found = threading.Barrier(8), []

    def work():
        wait.wait()
        found.append(bits((fresh.hessian(W), system.step(W), flow.drift(W))))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    one = copy.deepcopy(system)
    assert found == 8 * [bits((one.loss.hessian(W), one.step(W), md.ModifiedFlow(one).drift(W)))]


ERRORS = [e for e in vars(md).values() if isinstance(e, type) and issubclass(e, md.MinidynError)]


@pytest.mark.parametrize("error", ERRORS)
def test_errors_come_back_from_other_processes(error):
    """Every error survives pickling with its sentence."""
    back = pickle.loads(pickle.dumps(error("a sentence.")))
    assert type(back) is error and str(back) == "a sentence."
