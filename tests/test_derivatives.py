"""Derivatives on the graph: exact rules, and kernels accurate to the last digits over the whole range of doubles."""

import functools

import hypothesis.strategies as st
import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from interpreter import BOUNDED, MP, derivative, excess, jets, kernel_jets, literal, literal_jets
from mpmath import mp, mpf

import minidyn as md
from minidyn.derivatives import forward, reverse
from minidyn.graph import Graph

TOLERANCE = 1e-13
t = sp.Symbol("t", real=True)
x, y, z = sp.symbols("x y z", real=True)
j, k = sp.symbols("j k", integer=True)


# -- every function, over its range ---------------------------------------------------------------


def both(low, high, count=12):
    """Numbers of both signs, from 10**low to 10**high in size."""
    a = np.logspace(low, high, count) * 1.2345678
    return np.concatenate([-a[::-1], a])


def positive(low, high):
    return np.logspace(low, high, 24) * 1.2345678


def near(*points):
    """Numbers that approach each of the points from inside (-1, 1)."""
    return np.concatenate([p * (1 - np.logspace(-15, -1, 12)) for p in points])


def centre(high):
    """Both signs: tiny numbers, and ordinary ones up to `high`."""
    return np.concatenate([both(-140, -1), np.linspace(-high, high, 25) + 0.0123])


FUNCTIONS = {  # expression in t: its range, short of where the result itself over- or underflows
    sp.exp(t): centre(700), sp.log(t): positive(-100, 100), sp.sqrt(t): positive(-100, 100),
    sp.sin(t): np.concatenate([centre(10), both(1, 15)]), sp.cos(t): np.concatenate([centre(10), both(1, 15)]),
    sp.tan(t): np.concatenate([centre(10), both(1, 15)]), sp.asin(t): np.concatenate([centre(0.9), near(-1, 1)]),
    sp.acos(t): np.concatenate([centre(0.9), near(-1, 1)]), sp.atan(t): np.concatenate([centre(10), both(-140, 50)]),
    sp.sinh(t): centre(700), sp.cosh(t): centre(700), sp.tanh(t): centre(300), sp.erf(t): centre(25),
    sp.log(1 + sp.exp(t)): centre(700), 1 / (1 + sp.exp(-t)): centre(700), sp.exp(t) / (1 + sp.exp(t)): centre(700),
    1 / (1 + sp.exp(t)) ** 2: centre(340), sp.log(sp.cosh(t)): centre(300),
    sp.log(1 + t): np.concatenate([both(-140, -1), near(-1), positive(0, 90)]),
    sp.log(1 - t): np.concatenate([both(-140, -1), near(1), -positive(0, 90)]),
    sp.exp(t) - 1: centre(700), 1 - sp.exp(-t): centre(700),
    sp.Abs(t): both(-100, 100), sp.sign(t): both(-100, 100), sp.Heaviside(t): both(-100, 100),
    **{t**n: both(-10, 10) for n in (2, 3, 4, 5, 8, -1, -2, -3, -5, -8)},
    **{t**sp.Rational(p, q): positive(-50, 50) for p, q in ((3, 2), (5, 2), (7, 2), (-1, 2), (-3, 2), (1, 3), (-4, 3))},
    t**sp.pi: positive(-50, 50), t**0.7: positive(-50, 50), 2**t: centre(300), sp.Rational(1, 3) ** t: centre(300),
    t**t: np.concatenate([positive(-100, 0), np.linspace(1, 140, 12)]),
}  # fmt: skip


@functools.cache
def function_losses():
    """One loss `sum_k z_k f_k(x_k)` for a block of functions; one compilation each."""
    table = list(FUNCTIONS)
    xs = sp.symbols(f"x:{len(table)}", real=True)
    zs = sp.symbols(f"z:{len(table)}", real=True)
    expr = sum(s * f.subs(t, q) for f, q, s in zip(table, xs, zs, strict=True))
    return table, md.Loss(expr, [*xs, *zs])


@functools.cache
def function_jets():
    """(function, derivative order) -> values on its grid; the function itself is the slope in z_k."""
    table, loss = function_losses()
    n, rows = len(table), max(map(len, FUNCTIONS.values()))
    grids = np.array([np.resize(FUNCTIONS[f], rows) for f in table]).T
    w = np.hstack([grids, np.ones((rows, n))])
    ones = np.hstack([np.ones((rows, n)), np.zeros((rows, n))])
    orders = [loss.grad(w)[:, n:], loss.grad(w)[:, :n], loss.hvp(w, ones)[:, :n], loss.third(w, ones, ones)[:, :n]]
    return {(f, o): orders[o][: len(FUNCTIONS[f]), i] for i, f in enumerate(table) for o in range(4)}


@functools.cache
def exact(f, points):
    """f and its derivatives up to the fourth at the points, from sympy and mpmath."""
    steps = [f]
    for _ in range(4):
        steps.append(sp.diff(steps[-1], t).subs(sp.DiracDelta(t), 0).subs(sp.Derivative(sp.sign(t), t), 0))
    with mp.workdps(1500):  # sympy's derivatives cancel: 50 digits remain after the worst of it
        return [[literal(s, {t: p}) for p in points] for s in steps]


@pytest.mark.parametrize("f", FUNCTIONS, ids=str)
def test_function_and_three_derivatives(f):
    """f, f', f'' and f''' lie within 1e-13 of mpmath, times the condition |x f(k+1)/f(k)| where that exceeds 1."""
    points = FUNCTIONS[f]
    want = exact(f, tuple(points))
    for order in range(4):
        got = function_jets()[f, order]
        for p, g, w, slope in zip(points, got, want[order], want[order + 1], strict=True):
            condition = max(1, abs(mpf(p) * slope / w)) if w else 1
            with mp.workdps(50):
                error = abs(mpf(float(g)) - w)
            assert error <= TOLERANCE * condition * abs(w), f"order {order} at {p!r}: {g!r}, not {mp.nstr(w, 17)}"
