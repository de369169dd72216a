"""Closed forms against the numerical flow: every model with a chart, every rule, every noise that fits.

    python -m benchmarks.closed_forms            # all, some minutes
    python -m benchmarks.closed_forms valley     # one model

Prints the largest relative difference of drift and of covariance over random points of the chart.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import sympy as sp

import minidyn as md

RULES = {
    "SGD": md.SGD(0.02),
    "heavy ball": md.SGD(0.01, momentum=0.8),
    "Nesterov": md.SGD(0.01, momentum=0.6, nesterov=True),
    "RMSProp": md.RMSProp(0.005, beta2=0.95),
    "Adam": md.Adam(0.005, beta1=0.8, beta2=0.95),
    "sign GD": md.SignGD(0.004),
    "AdamW": md.AdamW(0.005, beta2=0.98, weight_decay=0.1),
}
MODELS = ["valley", "ellipse", "product", "two_products", "logcosh_valley"]


def place(name: str) -> tuple[md.Loss, md.Manifold]:
    """A loss and its charted minima."""
    if name in md.list_models():
        model = md.load_model(name)
        return model.loss, model.manifold
    x, y, s = sp.symbols("x y s")
    loss = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
    return loss, md.Manifold(loss, chart={x: s, y: 0}, coordinates=[s])


def difference(flow: md.QuasistaticFlow) -> tuple[float, float, int, float]:
    """Largest relative differences of drift and covariance, number of letters, seconds of the derivation."""
    began = time.perf_counter()
    closed = flow.closed_form()
    letters, took = len(closed.letters), time.perf_counter() - began
    chart = flow.manifold.chart
    at = chart.sample(6, np.random.default_rng(11))
    at = np.sign(at) * (0.6 + 0.3 * np.abs(at))
    w = chart.point(at)
    state, size = np.concatenate([w, at], axis=1), flow.dim
    drift, wanted = closed.drift(state)[:, :size], flow.drift(w)
    f, g = closed.diffusion(state)[:, :size], flow.diffusion(w)
    f, g = f @ f.transpose(0, 2, 1), g @ g.transpose(0, 2, 1)
    top = np.abs(g).max()
    return (
        float(np.abs(drift - wanted).max() / np.abs(wanted).max()),
        float(np.abs(f - g).max() / (top or 1.0)),
        letters,
        took,
    )


def main(*names: str) -> None:
    """The table."""
    for name in names or MODELS:
        loss, manifold = place(name)
        noises = {"Gaussian": md.GaussianNoise(0.3)} | ({"label": md.LabelNoise(0.5)} if loss.model is not None else {})
        for kind, noise in noises.items():
            for label, rule in RULES.items():
                if kind == "label" and label == "sign GD":
                    continue  # its signs are all of one random number: no stationary average of independent ones
                for accumulators in ("full", "frozen") if "v" in rule.states else ("full",):
                    flow = md.QuasistaticFlow(md.Map(loss, rule, noise), manifold, accumulators)
                    drift, covariance, letters, took = difference(flow)
                    print(
                        f"{name:15s} {kind:9s} {label:11s} {accumulators:7s} drift {drift:.1e}  "
                        f"covariance {covariance:.1e}  {letters:3d} letters  {took:5.1f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main(*sys.argv[1:])
