"""Flatter is smoother is better: the ReLU network of the library under label noise.

    python -m benchmarks.smoothness            # writes results/relu_net_label_noise.png and .h5

From a network that gradient descent fitted, SGD with label noise descends the trace of the Hessian; the input gradient
and the error on held-out samples fall with it. Then the bound between them is tried at 10 000 points: networks from
along the run, each with random changes of every size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import minidyn as md

WATCHED = ["trace", "input_gradient", "input_gradient_bound", "test_error"]


def fitted(model: md.Model, steps: int = 40_000) -> np.ndarray:
    """What gradient descent without noise makes of the model's starting point."""
    run = md.simulate(md.Map(model.loss, md.GD(model.map.lr())), model.w0, steps, save_every=steps, observe="loss")
    print(f"gradient descent: loss {run.observables['loss'][0, -1]:.2g} after {steps:,} steps")
    return run.w[0, -1]


def fall(model: md.Model, start: np.ndarray, folder: Path) -> md.Run:
    """The run along which all three fall, saved and drawn."""
    run = md.simulate(
        model.map, start, model.steps, paths=model.paths, save_every=model.save_every, rng=model.seed, observe=WATCHED
    )
    for name in WATCHED:
        first, last = run.observables[name][:, 0].mean(), run.observables[name][:, -1]
        print(f"  {name:21s} {first:8.4f} -> {last.mean():8.4f} +- {last.std() / np.sqrt(run.paths):.4f}")
    folder.mkdir(exist_ok=True)
    run.plot(quantities=WATCHED, path=folder / f"{model.name}_label_noise.png")
    moments = md.simulate(model.map, start, model.steps, paths=model.paths, save_every=model.save_every, rng=model.seed,
                          observe=WATCHED, keep="moments")  # fmt: skip
    moments.meta["command"] = "python -m benchmarks.smoothness"
    moments.meta["model_text"] = model.text
    moments.moments = {name: moments.moments[name] for name in WATCHED}
    moments.save(folder / f"{model.name}_label_noise.h5")
    return run


def bound(model: md.Model, networks: np.ndarray, points: int = 10_000) -> None:
    """How close the bound comes to failing at random changes of trained networks."""
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.uniform(-3, 1, size=(points, 1))
    w = networks[rng.integers(len(networks), size=points)] + size * rng.standard_normal((points, model.loss.dim))
    found = md.smoothness(model.loss, w)
    each, mean = found.ratio, found.mean_square / found.mean_bound
    print(
        f"{model.name}: bound at {points:,} points, {each.size:,} samples: largest ratio {each.max():.6f} per "
        f"sample, {mean.max():.6f} on average; holds: {found.holds}"
    )


def main(folder: str = "results") -> None:
    """The figure of `relu_net` along label noise, and the bound at random points of both networks."""
    relu = md.load_model("relu_net")
    run = fall(relu, fitted(relu), Path(folder))
    bound(relu, run.w[:, ::20].reshape(-1, relu.loss.dim))
    tanh = md.load_model("tanh_net")
    w = md.simulate(tanh.map, tanh.w0, 10_000, paths=64, save_every=1000, rng=0).w
    bound(tanh, w.reshape(-1, tanh.loss.dim))


if __name__ == "__main__":
    main(*sys.argv[1:])
