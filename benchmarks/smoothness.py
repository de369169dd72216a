"""The bound of the input gradient by the trace of the Hessian at 10 000 points.

    python -m benchmarks.smoothness

Networks from along a run of SGD with label noise (see the study `label-noise`), each with random changes of every size.
"""

from __future__ import annotations

import numpy as np

import minidyn as md


def fitted(model: md.Model, steps: int = 40_000) -> np.ndarray:
    """What gradient descent without noise makes of the model's starting point."""
    run = md.simulate(md.Map(model.loss, md.GD(model.map.lr())), model.w0, steps, save_every=steps, observe="loss")
    print(f"gradient descent: loss {run.observables['loss'][0, -1]:.2g} after {steps:,} steps")
    return run.w[0, -1]


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


def main() -> None:
    """The bound at random points of both networks."""
    relu = md.load_model("relu_net")
    run = md.simulate(relu.map, fitted(relu), relu.steps, paths=relu.paths, save_every=relu.save_every, rng=relu.seed)
    bound(relu, run.w[:, ::20].reshape(-1, relu.loss.dim))
    tanh = md.load_model("tanh_net")
    w = md.simulate(tanh.map, tanh.w0, 10_000, paths=64, save_every=1000, rng=0).w
    bound(tanh, w.reshape(-1, tanh.loss.dim))


if __name__ == "__main__":
    main()
