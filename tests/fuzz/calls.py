"""Random calls of the public functions: whatever is given, the answer is a result or one of minidyn's own errors.

    python tests/fuzz/calls.py --seed 0 --calls 3000

prints every call that ended in another exception, or in a warning, and ends with 1 if there was one. The same seed
makes the same calls. Arguments are sensible ones of which some are exchanged: None, texts, huge and broken numbers,
arrays of other types and shapes, objects that belong elsewhere.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import command
import numpy as np
import sympy as sp

import minidyn as md
from minidyn.common.intake import shown

x, y, a, c, s, k = sp.symbols("x y a c s k")
PLANE = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SAMPLES = md.Loss.regression(a * x, [a], {x: [1.0, 2.0]}, [0.5, 1.0])
FLOOR = md.Manifold(PLANE, chart={x: s, y: 0}, coordinates=[s])
PLAIN = md.Map(PLANE, md.GD(0.125))
NOISY = md.Map(PLANE, md.SGD(0.05), md.GaussianNoise(0.3))
CUBIC = md.Map(md.Loss(-3 * x**2 / 2 + 4 * x**3 / 3, [x]), md.GD(0.5))
PICKED = md.Map(SAMPLES, md.SGD(0.1), md.Minibatch(1))
ADAM = md.Map(PLANE, md.Adam(0.01), md.GaussianNoise(0.3))
FOLDER = Path(tempfile.mkdtemp())


class Odd:
    """An object whose every door is locked."""

    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")


def weird(rng: random.Random) -> Any:
    """Something that nobody expects here."""
    return rng.choice([
        None, True, False, "", "abc", "0.1", b"1", 0, -1, 1, 2.5, -0.5, 10**400, 2**70, -(2**70), 1e308, 5e-324, 1j,
        float("nan"), float("inf"), -float("inf"), Fraction(1, 3), [], [[]], (), {}, set(), {1.0, 2.0}, [1, [2, 3]],
        [None, 1.0], ["1", "2"], [1.0, 2.0], [1.0, 2.0, 3.0], [[1.0, 2.0]] * 3, np.zeros((0, 2)), np.zeros((2, 2, 2)),
        np.array(0.5), np.float16(0.5), np.array([1.0, np.nan]), np.array([np.inf, 1.0]), np.array(["a", "b"]),
        np.array([1, 2], "datetime64[s]"), np.ma.array([1.0, 2.0], mask=[1, 0]), np.array([1 + 1j, 2]),
        np.array([None, 1], object), range(3), iter([1.0, 2.0]), object(), Odd(), print, int, lambda w: w, Path("q"),
        x, x + y, sp.Symbol("zeta"), sp.I, sp.oo, sp.nan, sp.zoo, sp.Matrix([x, y]), sp.Matrix([[1, 2]]), x > 0,
        sp.S.true, sp.Rational(1, 3), sp.IndexedBase("q"), sp.Function("f")(x), sp.Integral(x, x), PLANE, PLAIN, FLOOR,
        md.GD(0.1), md.GaussianNoise(0.1), md.GradientFlow, {x: 1.0}, {"x": 1.0, "y": "b"}, {x: [1.0, 2.0]}, {"a": x},
        {None: None}, np.random.default_rng(0), np.random.SeedSequence(1), bytearray(b"12"), slice(2), NotImplemented,
    ])  # fmt: skip


POINT = [[1.0, 0.5], [0.5, 0.0]]
LRS, LR = [[0.1, 0.05], (0.2, 0.1)], [0.1, 0.01]
FLAG = [True, False]
NOISES = [None, md.GaussianNoise(0.1), md.GaussianNoise([0.1, x]), md.Minibatch(1), md.LabelNoise(0.1), md.Reshuffle(1)]
RULES = [md.GD(0.1), md.SGD(0.1, 0.5), md.Adam(0.01), md.SignGD(0.01), md.RMSProp(0.01), md.Lion(0.01), md.GD(0.1 / k)]
OBSERVE = [None, "loss", ["loss", "norm"], x * y, {"q": x}, lambda w: w[:, 0]]
MAPS = [PLAIN, NOISY, PICKED, ADAM]
FLOWS = [md.GradientFlow(PLAIN), md.QuasistaticFlow(NOISY), md.RodFlow(PLAIN), md.StochasticModifiedFlow(NOISY)]
RUN = md.simulate(NOISY, [1.0, 0.5], 3, paths=2, observe="loss", rng=0)
Call = tuple[Callable[..., Any], dict[str, list[Any]], dict[str, list[Any]]]  # a function, its arguments, its options

CALLS: dict[str, Call] = {
    "Loss": (md.Loss, {"expr": [x * y, a * x, x**2], "params": [[x, y], [x], x, [a]]},
             {"constants": [None, {a: 1.0}], "data": [None, {c: [1.0, 2.0]}, {a: [1.0, 2.0]}]}),
    "regression": (md.Loss.regression, {"model": [a * x], "params": [[a], a], "inputs": [{x: [1.0, 2.0]}],
                                        "target": [[0.5, 1.0], [1, -1]]}, {"criterion": ["squared", "logistic"]}),
    "value": (PLANE.value, {"w": POINT}, {}), "hvp": (PLANE.hvp, {"w": POINT, "v": POINT}, {}),
    "third": (PLANE.third, {"w": POINT, "u": POINT, "v": POINT}, {}),
    "sample_hvps": (SAMPLES.sample_hvps, {"w": [[1.0]], "us": [[1.0], [[1.0]]]}, {}),
    "jacobian": (SAMPLES.jacobian, {"w": [[1.0]]}, {}), "input_grads": (SAMPLES.input_grads, {"w": [[1.0]]}, {}),
    "hold_out": (SAMPLES.hold_out, {"inputs": [{x: [1.0]}], "target": [[1.0]]}, {}),
    "with_data": (SAMPLES.with_data, {"data": [{x: [1.0, 3.0]}]}, {}),
    "with_constants": (PLANE.with_constants, {"constants": [{}]}, {}),
    "vector": (md.vector, {"name": ["q"], "size": [3]}, {}),
    "matrix": (md.matrix, {"name": ["Q"], "rows": [2], "columns": [3]}, {}),
    "GD": (md.GD, {"lr": [*LR, 0.1 / k]}, {}), "SignGD": (md.SignGD, {"lr": LR}, {}),
    "SGD": (md.SGD, {"lr": LR}, {"momentum": [0.5, 0], "nesterov": FLAG}),
    "Adam": (md.Adam, {"lr": LR}, {"beta1": [0.9], "beta2": [0.99], "eps": [1e-8, 0]}),
    "AdamW": (md.AdamW, {"lr": LR}, {"weight_decay": [0.1]}), "Lion": (md.Lion, {"lr": LR}, {"beta1": [0.9]}),
    "RMSProp": (md.RMSProp, {"lr": LR}, {"beta2": [0.9], "eps": [1e-8, 0]}),
    "rule": (md.rule, {"function": [lambda theta, g, *, lr: theta - lr * g]}, {}),
    "GaussianNoise": (md.GaussianNoise, {"sigma": [0.1, [0.1, 0.2], x, [x, 0.1]]}, {}),
    "Minibatch": (md.Minibatch, {"batch": [1, 2]}, {"replace": FLAG}), "Reshuffle": (md.Reshuffle, {"batch": [1]}, {}),
    "LabelNoise": (md.LabelNoise, {"std": [0.1]}, {"batch": [None, 1], "kind": ["normal", "rademacher"]}),
    "Noise": (lambda one, other: md.Noise(one, other), {
        "one": [md.GaussianNoise(0.1)], "other": [md.Minibatch(1)]}, {}),
    "Map": (md.Map, {"loss": [PLANE, SAMPLES], "rule": RULES}, {"noise": NOISES}),
    "step": (PLAIN.step, {"z": POINT}, {"k": [1, 7], "noise": FLAG, "rng": [0, None]}),
    "noisy step": (ADAM.step, {"z": [*POINT, [0.1] * 6]}, {"k": [1, 7], "noise": FLAG, "rng": [0, None]}),
    "time": (PLAIN.time, {"steps": [3, [1, 2]]}, {}), "with_lr": (PLAIN.with_lr, {"lr": LR}, {}),
    "lr": (PLAIN.lr, {"k": [1]}, {}), "initial_state": (ADAM.initial_state, {"w0": POINT}, {}),
    "fixed_point": (ADAM.fixed_point, {"w": POINT}, {}), "linearize": (NOISY.linearize, {"w": POINT}, {}),
    "Manifold": (md.Manifold, {"loss": [PLANE]}, {"chart": [None, {x: s, y: 0}], "coordinates": [None, [s]],
                                                 "gap": [1e-7]}),
    "project": (FLOOR.project, {"w": POINT}, {"rtol": [1e-8], "max_steps": [1000]}),
    "dimension": (FLOOR.dimension, {"w": [[0.5, 0.0]]}, {}), "tangent": (FLOOR.tangent, {"w": [[0.5, 0.0]]}, {}),
    "find": (FLOOR.find, {"w0s": [*POINT, [[1.0, 0.5]]]}, {}), "distance": (FLOOR.distance, {"w": POINT}, {}),
    "sharpness": (FLOOR.sharpness, {"w": POINT}, {}), "point": (FLOOR.chart.point, {"s": [[1.0]]}, {}),
    "locate": (FLOOR.chart.locate, {"w": [[0.5, 0.0]]}, {}),
    "GradientFlow": (md.GradientFlow, {"system": MAPS}, {}), "RodFlow": (md.RodFlow, {"system": [PLAIN]}, {
        "first_step": [1], "order": [1, 2]}), "ModifiedFlow": (md.ModifiedFlow, {"system": [PLAIN]}, {"order": [1, 2]}),
    "StochasticModifiedFlow": (md.StochasticModifiedFlow, {"system": MAPS}, {"order": [1, 2]}),
    "QuasistaticFlow": (md.QuasistaticFlow, {"system": [NOISY, PICKED]}, {
        "manifold": [None, FLOOR], "accumulators": ["full", "frozen"]}),
    "CentralFlow": (md.CentralFlow, {"system": [PLAIN]}, {"accumulators": ["each"]}),
    "SubquadraticFlow": (md.SubquadraticFlow, {"system": [PLAIN]}, {
        "slow": [0.1], "first_step": [1], "manifold": [FLOOR]}),
    "SymbolicFlow": (md.SymbolicFlow, {"system": [PLAIN], "drift": [[-x, -y]]}, {
        "diffusion": [None, [0.1, 0.1]], "reading": ["ito"], "constraint": [()]}),
    **{f"{f.name} {what}": (getattr(f, what), {"w0" if what == "start" else "w": [[0.5, 0.0]]}, {})
       for f in FLOWS for what in ("drift", "diffusion", "start", "validity")},
    "describe": (FLOWS[0].describe, {}, {"w": POINT}), "of": (FLOWS[0].of, {"system": [PLAIN]}, {}),
    "amplitude": (FLOWS[2].amplitude, {"w": [[0.5, 0.0, 0.1, 0.1]]}, {}),
    "simulate": (md.simulate, {"system": [*MAPS, *FLOWS], "w0": POINT, "steps": [1, 3]}, {
        "paths": [1, 2], "save_every": [1], "observe": OBSERVE, "rng": [0], "method": [None, "auto", "heun"],
        "rtol": [1e-6], "atol": [1e-9], "substeps": [1, 0.5, "adaptive"], "keep": ["paths", "moments"], "threads": [1],
        "first_step": [1, 5], "progress": [False], "checkpoint": [None], "stop": [None, x - 1, "edge"]}),
    "compare": (lambda system, flow, **o: md.compare(system, flow, **o), {
        "system": [PLAIN], "flow": [FLOWS[0]], "w0": POINT, "steps": [2]}, {
        "paths": [2], "coupled": FLAG, "save_every": [1], "observe": OBSERVE, "rng": [0], "rows": [1],
        "first_step": [1], "missing": ["raise", "remark"], "rtol": [1e-6]}),
    "scaling_study": (lambda flow, **o: md.scaling_study(PLAIN, flow, **o), {
        "flow": [md.GradientFlow], "lrs": LRS, "w0": POINT, "time": [0.2]}, {
        "precision": [0.1], "paths": [2], "observe": OBSERVE, "rng": [0]}),
    "flatness": (md.flatness, {"loss": [PLANE], "w": POINT}, {
        "preconditioner": [None, [1.0, 2.0]], "probes": [4], "method": [None, "exact", "matrix-free"], "rng": [0]}),
    "smoothness": (md.smoothness, {"loss": [SAMPLES], "w": [[1.0]]}, {"layer": [None, a, "a"]}),
    "stability": (md.stability, {"system": MAPS, "w": [[0.5, 0.0], [0.5]]}, {
        "k": [1], "gap": [1e-7], "method": ["krylov", "dense"]}),
    "stability_diagram": (md.stability_diagram, {"system": [PICKED, NOISY], "minima": [[[0.5]], [0.5, 0.0]]}, {
        "lrs": [None, *LRS], "batches": [None, [1, None]], "gap": [1e-7]}),
    "escape": (md.escape, {"system": [PICKED], "w": [[0.5]]}, {
        "radius": [1e-6], "steps": [9], "paths": [4], "growth_steps": [2], "rng": [0], "k": [1]}),
    "regime": (md.regime, {"system": [PLAIN], "w0": POINT, "steps": [40]}, {"first_step": [1]}),
    "bifurcation": (md.bifurcation, {"system": [PLAIN], "over": ["lr"], "values": LRS, "w0": POINT}, {
        "steps": [40], "keep": [4], "observe": OBSERVE, "threads": [1], "progress": [False]}),
    "doublings": (md.doublings, {"system": [CUBIC], "over": ["lr"], "between": [[0.5, 0.9]], "w0": [[0.3]]}, {
        "count": [1], "steps": [500]}),
    "basin": (md.basin, {"system": [PLAIN], "starts": [[[1.0, 0.2], [0.5, 0.1]], {x: [0.1, 0.2], y: [0.1]}]}, {
        "steps": [9], "at": [None, [0.0, 0.0]], "by": [None, "loss", x], "apart": [None, 0.1], "first_step": [1],
        "threads": [1], "progress": [False]}),
    "edge": (md.edge, {"system": [PLAIN], "w0": POINT, "steps": [4]}, {
        "save_every": [1], "first_step": [1], "rtol": [1e-8], "atol": [1e-11]}),
    "quantity": (RUN.quantity, {"name": ["x", "loss"]}, {}), "save": (RUN.save, {"path": [FOLDER / "run.h5"]}, {}),
    "load": (md.load, {"path": [FOLDER / "run.h5"]}, {}), "load_model": (md.load_model, {"name": ["valley"]}, {}),
    "minima": (md.load_model("valley").minima, {}, {"starts": [2], "spread": [1.0], "seed": [0]}),
    "with_overrides": (md.load_model("valley").with_overrides, {}, {
        "lr": LR, "steps": [9], "paths": [2], "save_every": [1], "seed": [0]}),
}  # fmt: skip


def draw(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """The name of a function, and arguments for it: as a rule one of them, at times more, is out of place."""
    name = rng.choice(sorted(CALLS))
    _, needed, options = CALLS[name]
    chosen = {**needed, **{o: v for o, v in options.items() if rng.random() < 0.3}}
    given = {key: rng.choice(values) for key, values in chosen.items()}
    for key in given:
        if rng.random() < max(0.25, 0.9 / len(given)):
            given[key] = weird(rng)
    return name, given


def foreign(name: str, given: dict[str, Any]) -> BaseException | None:
    """What a call raises that is neither a result nor one of minidyn's errors."""
    with warnings.catch_warnings(), contextlib.chdir(FOLDER):  # some calls write files
        warnings.simplefilter("error")
        try:
            CALLS[name][0](**given)
        except md.MinidynError as error:
            return None if str(error) and "\n" not in str(error) else AssertionError(f"a sentence in lines: {error}")
        except Exception as error:
            return error
    return None


def main() -> int:
    """Make the calls that the command line asks for."""
    parser = command.parser(__doc__, calls=3000)
    parser.add_argument("--only", default="", help="functions whose name begins so")
    wanted = parser.parse_args()
    rng, seen = random.Random(wanted.seed), set()
    for number in range(wanted.calls):
        name, given = draw(rng)
        if not name.startswith(wanted.only) or (error := foreign(name, given)) is None:
            continue
        inside = [f for f in traceback.extract_tb(error.__traceback__) if "/minidyn/" in f.filename][-1:]
        key = (name, type(error), *((f.filename, f.lineno) for f in inside))
        if key not in seen:
            seen.add(key)
            where = ", ".join(f"{Path(f.filename).name}:{f.lineno}" for f in inside)
            told = ", ".join(f"{q}={shown(v)}" for q, v in given.items())
            print(f"{number}: {name}({told})\n    {type(error).__name__}: {str(error)[:200]}  [{where}]", flush=True)
    print(f"{wanted.calls} calls, {len(seen)} kinds of foreign exceptions")
    return int(bool(seen))


if __name__ == "__main__":
    sys.exit(main())
