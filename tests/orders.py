"""Measured orders of the schemes for noise, and the accuracy of the methods without: the tables of docs/solvers.md.

    python tests/orders.py            all three tables
    python tests/orders.py noise      one of them

The three: accuracy, gradient, noise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

import minidyn as md
from minidyn.solvers.schemes import SCHEMES

x, y = sp.symbols("x y", real=True)
STEPS = 32  # of the map, which is only a clock here: T = 1
END = 1.0


# -- problems with noise ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Noisy:
    """An equation in the Ito reading with a kind of noise, a start, and test functions whose means are known or not."""

    name: str
    drift: list[Any]
    factor: list[list[Any]]
    start: tuple[float, float]
    tests: tuple[Any, ...]
    exact: tuple[float, ...] | None = None


A = sp.Matrix([[-1.0, 0.4], [-0.3, -0.7]])
B1, B2 = sp.Matrix([[0.5, 0.2], [-0.4, 0.3]]), sp.Matrix([[0.1, 0.6], [0.4, -0.2]])


def bent(drift: Any, factor: Any) -> tuple[list[Any], list[list[Any]]]:
    """What the Ito formula makes of an equation for (u, v) in the coordinates x = u, y = v + u^2 / 2."""
    u, v = sp.symbols("u v", real=True)
    back = {u: x, v: y - x**2 / 2}
    drift, factor = sp.Matrix(drift).subs({x: u, y: v}), sp.Matrix(factor).subs({x: u, y: v})
    spread = (factor * factor.T)[0, 0]
    new = [drift[0], drift[1] + u * drift[0] + spread / 2]
    rows = [[factor[0, r], factor[1, r] + u * factor[0, r]] for r in range(factor.shape[1])]
    bend = [sp.expand(e.subs(back, simultaneous=True)) for e in new]
    return bend, [[sp.expand(row[i].subs(back, simultaneous=True)) for row in rows] for i in range(2)]


def linear(matrices: Sequence[Any]) -> tuple[Any, Any]:
    """`A z dt + sum_j B_j z dW_j`, as drift and factor."""
    z = sp.Matrix([x, y])
    return A * z, sp.Matrix.hstack(*[m * z for m in matrices])


def second_moments(matrices: Sequence[Any], start: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """E z (2) and E z z^T (2, 2) at the end of the linear equation: both solve linear equations of their own."""
    a, one = np.array(A, float), np.eye(2)
    generator = np.kron(a, one) + np.kron(one, a)
    for m in matrices:
        generator += np.kron(np.array(m, float), np.array(m, float))
    z = np.array(start)
    return expm(a * END) @ z, (expm(generator * END) @ np.kron(z, z)).reshape(2, 2)


def _linear_problem(name: str, matrices: Sequence[Any], start: tuple[float, float]) -> Noisy:
    first, second = second_moments(matrices, start)
    drift, factor = bent(*linear(matrices))
    origin = (start[0], start[1] + start[0] ** 2 / 2)
    return Noisy(name, drift, factor, origin, (x, y, x**2), (first[0], first[1] + second[0, 0] / 2, second[0, 0]))


@cache
def problems() -> dict[str, Noisy]:
    """One nonlinear equation in two dimensions for every kind of noise; two of them with known means."""
    turn, grow = sp.Matrix([[0.0, -0.5], [0.5, 0.0]]), sp.Matrix([[0.4, 0.0], [0.0, 0.4]])
    additive = [[0.7, 0.3], [-0.2, 0.6]]
    diagonal = [[0.8 * sp.sqrt(1 + x**2), 0], [0, 0.3 + 0.7 * sp.sin(y)]]
    start = (0.6, 0.3)
    return {
        "additive": Noisy("additive", [-x + sp.sin(2 * y), -y + sp.cos(2 * x)], additive, start, (x, y, x**2)),
        "diagonal": Noisy("diagonal", [-2 * x + sp.sin(2 * y), -y + sp.cos(x)], diagonal, start, (x, y, x**2)),
        "commutative": _linear_problem("commutative", [turn, grow], start),
        "general": _linear_problem("general", [B1, B2], start),
    }


def stratonovich(drift: Sequence[Any], factor: Sequence[Sequence[Any]]) -> list[Any]:
    """The drift that gives the same process in the Stratonovich reading."""
    z = [x, y]
    g = sp.Matrix(factor)
    return [
        drift[i] - sum(g[k, j] * sp.diff(g[i, j], z[k]) for j in range(g.shape[1]) for k in range(2)) / 2
        for i in range(2)
    ]


def flow_of(problem: Noisy, reading: str) -> md.SymbolicFlow:
    """The equation as a flow in this reading, on a clock of `STEPS` steps."""
    clock = md.Map(md.Loss(x**2 + y**2, [x, y]), md.GD(END / STEPS))
    drift = problem.drift if reading == "ito" else stratonovich(problem.drift, problem.factor)
    return md.SymbolicFlow(clock, drift, problem.factor, reading=reading)


# -- orders ------------------------------------------------------------------------------------------


def ends(flow: md.SymbolicFlow, start: Sequence[float], method: str, substeps: float, paths: int, seed: int) -> Any:
    """The states (paths, 2) at the end."""
    options: dict[str, Any] = {"paths": paths, "save_every": STEPS, "rng": seed}
    run = md.simulate(flow, list(start), STEPS, method=method, substeps=substeps, **options)
    assert run.w is not None and run.finished.all()
    return run.w[:, -1]


def strong_order(name: str, kind: str, paths: int = 2048, seed: int = 1, spans: Sequence[float] = (2, 1, 1 / 2, 1 / 4),
                 fine: float = 1 / 32) -> float:  # fmt: skip
    """The slope of the mean distance to a very fine solution on the same path."""
    problem, scheme = problems()[kind], SCHEMES[name]
    flow = flow_of(problem, scheme.reading)
    reference = ends(flow, problem.start, name, fine, paths, seed)
    errors = []
    for span in spans:
        w = ends(flow, problem.start, name, span, paths, seed)
        errors.append(np.linalg.norm(w - reference, axis=1).mean())
    return float(np.polyfit(np.log(spans), np.log(errors), 1)[0])


@dataclass(frozen=True)
class Weak:
    """The slope of the error of a mean, its standard error, errors and their standard errors, how the limit
    was met (standard errors, and in words)."""

    slope: float
    slope_error: float
    errors: Any
    standard_errors: Any
    away: float
    limit: str


def weak_order(
    name: str, kind: str, paths: int = 16384, batches: int = 8, seed: int = 1, spans: Sequence[float] = (8, 4, 2)
) -> Weak:
    """The slope of the error of means, on the paths of a fine solution so that most of the noise drops out."""
    problem, scheme = problems()[kind], SCHEMES[name]
    flow = flow_of(problem, scheme.reading)
    tests = [sp.lambdify([x, y], e) for e in problem.tests]
    gaps, squares, means, fine = [], [], [], spans[-1] / 4
    for batch in range(batches):
        reference = ends(flow, problem.start, name, fine, paths, seed + batch)
        values = np.array([f(*reference.T) for f in tests])
        means.append((values.mean(1), values.var(1)))
        runs = [ends(flow, problem.start, name, span, paths, seed + batch) for span in spans]
        changes = [np.array([f(*w.T) for f in tests]) - values for w in runs]
        gaps.append([c.mean(1) for c in changes])
        squares.append([c.var(1) for c in changes])
    error, spread = np.mean(gaps, 0), np.sqrt(np.mean(squares, 0) / (paths * batches))
    # the errors of all test functions together: a single one may change its sign on the way
    e = np.sqrt((error**2).sum(1))
    s = np.sqrt(((error * spread) ** 2).sum(1)) / e
    # the fine solution has an error of its own: with order p the difference is c (h^p - fine^p)
    fitted = _fit(np.array(spans), fine, e, e / s)
    p = scheme.weak[kind]
    own = error[-1] * fine**p / (spans[-1] ** p - fine**p)
    return Weak(fitted, _slope_error(np.log(spans), s / e), e, s, *_limit(problem, means, own, paths * batches))


def _fit(spans: Any, fine: float, errors: Any, weights: Any) -> float:
    """The order p whose curve c (h^p - fine^p) passes best through the errors."""

    def miss(p: float) -> float:
        away = np.log(errors) - np.log(spans**p - fine**p)
        mean = (weights**2 * away).sum() / (weights**2).sum()
        return float((weights**2 * (away - mean) ** 2).sum())

    return float(minimize_scalar(miss, bounds=(0.1, 5.0), method="bounded").x)


def _slope_error(logs: Any, sigma: Any) -> float:
    """Standard error of a weighted slope."""
    w = 1 / sigma**2
    mean = (w * logs).sum() / w.sum()
    return float(1 / np.sqrt((w * (logs - mean) ** 2).sum()))


@cache
def _independent(kind: str) -> tuple[Any, Any]:
    """Means of the test functions by Euler-Maruyama with 1024 steps on other paths, and their standard errors."""
    problem = problems()[kind]
    w = ends(flow_of(problem, "ito"), problem.start, "euler-maruyama", 1 / 32, 32768, 999)
    values = np.array([sp.lambdify([x, y], e)(*w.T) for e in problem.tests])
    return values.mean(1), values.std(1) / np.sqrt(values.shape[1])


def _limit(problem: Noisy, means: list[Any], own: Any, paths: int) -> tuple[float, str]:
    """How far the means, extrapolated from the fine step to zero, are from the exact ones, or from Euler-Maruyama's."""
    mean = np.mean([m for m, _ in means], 0) - own
    error = np.sqrt(np.mean([v for _, v in means], 0) / paths)
    if problem.exact is not None:
        away = (mean - np.array(problem.exact)) / error
        return abs(away).max(), f"exact means within {abs(away).max():.1f} standard errors"
    other, spread = _independent(problem.name)
    away = (mean - other) / np.sqrt(error**2 + spread**2)
    return abs(away).max(), f"fine Euler-Maruyama within {abs(away).max():.1f} standard errors"


# scheme, kind of noise, batches of paths and sizes of steps for the weak order: as many as its noise asks for
CASES: tuple[tuple[str, str, int, tuple[float, ...]], ...] = (
    ("euler-maruyama", "additive", 2, (4, 2, 1)), ("euler-maruyama", "diagonal", 4, (4, 2, 1)),
    ("euler-maruyama", "commutative", 2, (4, 2, 1)), ("euler-maruyama", "general", 4, (4, 2, 1)),
    ("milstein", "additive", 2, (4, 2, 1)), ("milstein", "diagonal", 2, (4, 2, 1)),
    ("milstein", "commutative", 2, (4, 2, 1)), ("diagonal", "diagonal", 2, (4, 2, 1)),
    ("heun", "diagonal", 4, (2, 1, 1 / 2)), ("heun", "commutative", 4, (4, 2, 1)), ("heun", "general", 4, (4, 2, 1)),
    ("sra1", "additive", 2, (8, 4, 2)), ("weak2", "additive", 4, (8, 4, 2)), ("weak2", "diagonal", 8, (16, 8, 4)),
    ("weak2", "commutative", 16, (8, 4, 2)), ("weak2", "general", 48, (8, 4, 2)),
)  # fmt: skip


def noise() -> None:
    """The table of the schemes for flows with noise."""
    print("| scheme | reading | noise | strong order: stated, measured | weak order: stated, measured | limit | s |")
    print("|---|---|---|---|---|---|---|")
    for name, kind, batches, spans in CASES:
        began, s = time.perf_counter(), SCHEMES[name]
        strong, weak = strong_order(name, kind), weak_order(name, kind, batches=batches, spans=spans)
        print(
            f"| `{name}` | {s.reading} | {kind} | {s.strong[kind]:g}, {strong:.2f} | {s.weak[kind]:g}, "
            f"{weak.slope:.2f} ± {weak.slope_error:.2f} | {weak.limit} | {time.perf_counter() - began:.0f} |",
            flush=True,
        )


# -- accuracy without noise -------------------------------------------------------------------------


def accuracy() -> None:
    """The table of the methods without noise: global error over rtol at 41 saves."""
    import problems as library

    print("| problem | " + " | ".join(f"{m} {r:g}" for m in ("tsit5", "dop853", "radau", "auto") for r in RTOLS) + " |")
    print("|---" * (1 + 4 * len(RTOLS)) + "|")
    for stiff, listed in ((False, library.non_stiff()), (True, library.stiff())):
        for problem in listed:
            reference = reference_of(problem, stiff)
            cells = []
            for method in ("tsit5", "dop853", "radau", "auto"):
                for rtol in RTOLS:
                    slow = stiff and method in ("tsit5", "dop853")
                    cells.append("" if slow else f"{error_of(problem, method, rtol, reference) / rtol:.2g}")
            print(f"| {problem.name} | {' | '.join(cells)} |", flush=True)


def gradient() -> None:
    """The same for gradient flows, which come to rest: the worst of twenty starts, at 41 saves up to t = 100."""
    rows = tuple((method, rtol) for method in ("tsit5", "dop853", "auto") for rtol in RTOLS)
    print("| model | " + " | ".join(f"{method} {rtol:g}" for method, rtol in rows) + " |")
    print("|---" * (1 + len(rows)) + "|")
    for name in RESTING:
        loss = md.load_model(name).loss
        starts = np.random.default_rng(0).normal(size=(20, loss.dim))
        flow = md.GradientFlow(md.Map(loss, md.GD(100.0 / SAVES)))
        reference = np.stack([_rest(loss, w) for w in starts])
        size = abs(reference).max(1, keepdims=True)
        cells = []
        for method, rtol in rows:
            run = md.simulate(flow, starts, SAVES, paths=20, save_every=1, method=method, rtol=rtol,
                              atol=1e-3 * rtol * float(size.min()))  # fmt: skip
            assert run.w is not None
            cells.append(f"{float((abs(run.w - reference) / size).max()) / rtol:.2g}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _rest(loss: md.Loss, w: Any) -> Any:
    """The gradient flow from w at the same times by scipy's DOP853."""
    times = np.linspace(0, 100.0, SAVES + 1)
    return solve_ivp(lambda t, w: -loss.grad(w), (0, 100.0), w, "DOP853", times, rtol=1e-13, atol=1e-15).y.T


RESTING = ("diagonal_net", "ellipse", "logcosh_valley", "matrix_factorization", "minimalist_eos", "product",
           "scalar_deep", "two_products", "valley")  # fmt: skip
RTOLS = (1e-4, 1e-7, 1e-10)
SAVES = 40


def reference_of(problem: Any, stiff: bool) -> Any:
    """The solution at 41 times by scipy: DOP853 at 1e-13, LSODA at 1e-13 for stiff problems; independent of minidyn."""
    field = sp.lambdify([problem.unknowns], problem.field, cse=True)
    matrix = sp.lambdify([problem.unknowns], sp.Matrix(problem.field).jacobian(problem.unknowns), cse=True)
    options: dict[str, Any] = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-15}
    if stiff:
        options = {"method": "LSODA", "rtol": 1e-13, "atol": 1e-17, "jac": lambda t, w: matrix(w)}
    times = np.linspace(0, problem.end, SAVES + 1)
    start = [float(v) for v in problem.start]
    return solve_ivp(lambda t, w: field(w), (0, problem.end), start, t_eval=times, **options).y.T


def error_of(problem: Any, method: str, rtol: float, reference: Any) -> float:
    """The largest error over the saves, each unknown in units of its largest value."""
    loss = md.Loss(sum(s**2 for s in problem.unknowns), problem.unknowns)
    flow = md.SymbolicFlow(md.Map(loss, md.GD(problem.end / SAVES)), problem.field)
    start = [float(v) for v in problem.start]
    size = abs(reference).max(0)
    run = md.simulate(flow, start, SAVES, save_every=1, method=method, rtol=rtol, atol=1e-3 * rtol * float(size.min()))
    assert run.w is not None
    return float((abs(run.w[0] - reference) / size).max())


def orders(*parts: str) -> None:
    """All tables, or those named."""
    tables = {"accuracy": accuracy, "gradient": gradient, "noise": noise}
    for part in parts or tables:
        tables[part]()
        print()


if __name__ == "__main__":
    orders(*sys.argv[1:])
