"""Orders of convergence: those of the schemes for noise; `python tests/orders.py` measures all of them longer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

sys.path.append(str(Path(__file__).parents[1]))

from orders import STEPS, ends, flow_of, problems, strong_order, weak_order

import minidyn as md
from minidyn.solvers.schemes import SCHEMES


@pytest.mark.parametrize("name, kind", [
    ("euler-maruyama", "additive"), ("euler-maruyama", "diagonal"), ("euler-maruyama", "general"),
    ("milstein", "commutative"), ("diagonal", "diagonal"), ("heun", "commutative"), ("heun", "general"),
    ("sra1", "additive"), ("weak2", "general"),
])  # fmt: skip
def test_strong_order(name, kind):
    """On nonlinear equations in two dimensions the distance to the fine path has the stated order ± 0.2."""
    assert abs(strong_order(name, kind, paths=1024) - SCHEMES[name].strong[kind]) < 0.2


@pytest.mark.parametrize(
    "name, kind, spans",
    [
        ("euler-maruyama", "general", (4, 2, 1)),
        ("heun", "commutative", (4, 2, 1)),
        ("sra1", "additive", (8, 4, 2)),
        ("weak2", "general", (16, 8, 4)),
    ],
)
def test_weak_order(name, kind, spans):
    """The error of a mean has the stated order ± 0.2 (and 2 standard errors); the limit is right within 4."""
    found = weak_order(name, kind, paths=16384, batches=3, spans=spans)
    assert abs(found.slope - SCHEMES[name].weak[kind]) < 0.2 + 2 * found.slope_error
    assert found.away < 4


def test_weak_scheme_has_the_exact_means():
    """Eight steps of the scheme of weak order 2 have the exact means of an equation with noises that do not commute,
    within 4 standard errors and an error of order h^2."""
    problem = problems()["general"]
    flow = flow_of(problem, "ito")
    w = ends(flow, problem.start, "weak2", 4, 65536, 3)
    for values, exact in zip((w[:, 0], w[:, 1], w[:, 0] ** 2), problem.exact, strict=True):
        assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values)) + 2.0 * (4 / STEPS) ** 2 * 0.05


def test_weak_scheme_needs_its_coins():
    """For `dx = s y dW1, dy = s x dW2`, `E x^2 = cosh(s^2 t)`; without the coins it is missed by s^4 h / 4 = 0.05.

    Allowed: 4 standard errors and the scheme's own error, below 2 (s^2 h)^3 / 6 = 0.011.
    """
    x, y = sp.symbols("x y", real=True)
    clock = md.Map(md.Loss(x**2 + y**2, [x, y]), md.GD(1 / STEPS))
    flow = md.SymbolicFlow(clock, [0, 0], [[0.8 * y, 0], [0, 0.8 * x]])
    squares = ends(flow, [1.0, 0.0], "weak2", 16, 400_000, 7)[:, 0] ** 2
    assert abs(squares.mean() - np.cosh(0.64)) < 4 * squares.std() / np.sqrt(len(squares)) + 0.011


@pytest.mark.parametrize("kind", ["commutative", "general"])
def test_heun_has_the_stratonovich_limit(kind):
    """Heun's scheme on the converted equation has the exact means of the Ito equation within 4 standard errors."""
    problem = problems()[kind]
    w = ends(flow_of(problem, "stratonovich"), problem.start, "heun", 1 / 4, 32768, 5)
    for values, exact in zip((w[:, 0], w[:, 1], w[:, 0] ** 2), problem.exact, strict=True):
        assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values)) + 1e-3
