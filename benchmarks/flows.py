"""W4: gradient flow of L2 and L3 to T = 100 at rtol 1e-8. The quasistatic drift, one evaluation.

The C++ program holds the error of each step to rtol, as solvers do; minidyn's rtol is a promise on the result, for
which it holds the steps of a gradient flow to three tenths of it. "same steps" asks minidyn for rtol / 0.3, so that
both take the same steps; the rows without it ask both for the same number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy as sp

import minidyn as md
from benchmarks import peers, problems, references
from benchmarks.harness import OURS, Row, first_call, interleaved, rows
from benchmarks.references import LIMIT

T, RTOL, ATOL = 100.0, 1e-8, 1e-10
METHODS = ("dop853", None)  # the first that this version knows


def flow_method(flow: Any, w0: np.ndarray) -> str | None:
    """The name of minidyn's method of order 8; None, its default, where it has none."""
    for method in METHODS:
        try:
            md.simulate(flow, w0, 1, method=method, rtol=RTOL, atol=ATOL)
        except md.InputError:
            continue
        return method
    return None


def solves(quick: bool) -> Iterator[Row]:
    """W4: one solve of L2 and of L3, and a thousand starts of L2."""
    repeats = 3 if quick else 9
    starts = np.random.default_rng(1).uniform(0.5, 2.0, (1000, 2))
    l2, l3 = (md.GradientFlow(md.Map(loss, md.GD(1.0))) for loss in (problems.hyperbola(), problems.network()))
    method = flow_method(l2, np.array([1.5, 0.3]))
    if references.variants("flow"):
        references.call("flow", "l3_data", *problems.samples(20))

    def ours(flow: Any, w: np.ndarray, rtol: float = RTOL, atol: float = ATOL) -> np.ndarray:
        run = md.simulate(
            flow, w, int(T), paths=len(w), save_every=int(T), rtol=rtol, atol=atol, threads=1, method=method
        )
        return run.w[:, -1]

    def theirs(name: str, w: np.ndarray, rtol: float = RTOL, atol: float = ATOL) -> np.ndarray:
        y = w.copy()
        references.call("flow", name, y, len(y), T, rtol, atol)
        return y

    alike = RTOL / 0.3, ATOL / 0.3
    given: dict[str, Any] = {
        "W4 L2, one solve": (l2, np.array([[1.5, 0.3]]), "l2", "us", 1.1, (RTOL, ATOL)),
        "W4 L2, 1000 starts": (l2, starts, "l2", "ms", None, (RTOL, ATOL)),
        "W4 L3, one solve": (l3, problems.network_start()[None], "l3", "ms", 1.3, (RTOL, ATOL)),
        "W4 L3, one solve, same steps": (l3, problems.network_start()[None], "l3", "ms", 1.3, alike),
    }
    for work, (flow, w, name, unit, bar, tolerance) in given.items():
        compiled = first_call(lambda: ours(flow, w))  # noqa: B023
        cases: dict[str, Any] = {OURS: lambda flow=flow, w=w, t=tolerance: ours(flow, w, *t)}
        if references.variants("flow"):
            cases["C++ DOP853"] = lambda n=name, w=w: theirs(f"{n}_flow", w)
            if len(w) > 1 and LIMIT in references.variants("flow"):
                cases["C++ DOP853, 8 lanes"] = lambda w=w: theirs("l2_lanes", w)
        if len(w) > 1:
            cases |= peers.flow_starts(w, T, RTOL)
        exact = ours(flow, w, 1e-12, 1e-14)
        errors = {n: float(abs(run() - exact).max()) for n, run in cases.items()}
        seconds = interleaved(cases, repeats)
        bars = {"C++ DOP853": bar, "C++ DOP853, 8 lanes": None, "heyoka batch": 1.0}
        for row in rows(work, unit, seconds, 1, bars, compile=compiled, errors=errors):
            row.note = f"{method or 'dopri5'}: error {errors[OURS]:.0e}, theirs {errors[row.against]:.0e}"
            yield row
        if not references.variants("flow"):
            yield Row(work, unit, seconds[OURS] * {"us": 1e6, "ms": 1e3}[unit], note=references.remark("flow"))
    yield from _marginal(ours, l2, repeats)


def _marginal(ours: Any, flow: Any, repeats: int) -> Iterator[Row]:
    """What a solve of L2 takes inside a call: the rest of a call with one solve is `simulate`'s own."""
    near = np.array([1.5, 0.3]) + 1e-9 * np.arange(1000)[:, None]
    cases: dict[str, Any] = {OURS: lambda: ours(flow, near)}
    if references.variants("flow"):

        def theirs() -> None:
            y = near.copy()
            references.call("flow", "l2_flow", y, len(y), T, RTOL, ATOL)

        cases["C++ DOP853"] = theirs
    seconds = interleaved(cases, repeats)
    note = "that start, a thousand times in one call"
    yield from rows("W4 L2, one solve inside a call", "us", seconds, 1000, {"C++ DOP853": 1.1}, note)


@md.rule
def softsign(theta: Any, g: Any, *, lr: Any) -> Any:
    """A step that bends at gradients of 1."""
    return theta - lr * g / sp.sqrt(1 + g**2)


def quasistatic(quick: bool) -> Iterator[Row]:
    """The quasistatic drift at one point: SGD and a curve of the gradient with D = 2, SGD and Adam with D = 10."""
    rng = np.random.default_rng(2)
    valley, ten = problems.valley(), problems.ten_parameters()
    points = {
        dim: np.concatenate([rng.uniform(0.5, 2, (1000, dim // 2)), np.zeros((1000, dim // 2))], axis=1)
        for dim in (2, 10)
    }
    given = {
        "quasistatic drift, SGD, D = 2": (valley, md.SGD(0.05), 2.0),
        "quasistatic drift, softsign, D = 2": (valley, softsign(0.05), 4.5),
        "quasistatic drift, SGD, D = 10": (ten, md.SGD(0.05), 20.0),
        "quasistatic drift, Adam, D = 10": (ten, md.Adam(0.01), 300.0),
    }
    for work, (loss, rule, bar) in given.items():
        flow = md.QuasistaticFlow(md.Map(loss, rule, md.GaussianNoise(0.25)))
        w = points[loss.dim]
        compiled = first_call(lambda: flow.drift(w[:1]))  # noqa: B023
        seconds = interleaved({OURS: lambda flow=flow, w=w: flow.drift(w)}, 3 if quick else 7)
        yield Row(work, "us", seconds[OURS] / len(w) * 1e6, bar=bar, note=f"{len(w)} points in one call",
                  extra={"compile": compiled})  # fmt: skip
