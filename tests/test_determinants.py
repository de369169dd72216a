"""Determinants beyond 3 x 3, whose derivatives are polynomials: against exact sums over rows, in fractions."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import sympy as sp
from sympy import QQ
from sympy.polys.matrices import DomainMatrix

import minidyn as md
from minidyn.kernels.cofactors import cofactors

RANKS = [0, 1, 2, 3]  # missing to full rank


def determinant(a):
    """det(a), exactly."""
    entries = [[QQ(*float(x).as_integer_ratio()) for x in row] for row in a]
    found = DomainMatrix(entries, a.shape, QQ).det()
    return Fraction(int(found.numerator), int(found.denominator))


def exact(a, along, i, j):
    """The derivative of det(a) along some matrices and its entry (i, j): as det is linear in each row, the sum over all
    ways to put a row of each of them in its place in `a`."""
    total = Fraction(0)
    for rows in permutations([r for r in range(len(a)) if r != i], len(along)):
        x = a.copy()
        x[i] = np.eye(len(a))[j]
        for r, e in zip(rows, along, strict=True):
            x[r] = e[r]
        total += determinant(x)
    return total


def reach(a, along):
    """How much a change of `a` by one rounding of its largest singular value can make of such a derivative: one of the
    next order, a sum of products of n - 2 - k singular values."""
    s, left = np.linalg.svd(a, compute_uv=False), len(a) - 2 - len(along)
    others = s[0] * np.prod(s[:left]) if left >= 0 else 1.0 if left == -1 else 0.0
    return np.finfo(float).eps * np.prod([np.linalg.norm(e) for e in along]) * others


def a_matrix(n, kind, rng):
    """A matrix of a kind; of whole numbers where it lacks exactly so many ranks."""
    if kind == "nearly singular":
        a = rng.standard_normal((n, n))
        a[0] = a[1:].sum(axis=0) * (1 + 1e-13 * rng.standard_normal())
        return a
    if kind == "of many sizes":
        return rng.standard_normal((n, n)) * 10.0 ** rng.uniform(-6, 0, (n, 1)) * 10.0 ** rng.uniform(-6, 0, n)
    r = max(n - kind, 0)
    return (rng.integers(-8, 9, (n, r)) @ rng.integers(-8, 9, (r, n)) if kind else rng.standard_normal((n, n))) * 1.0


@pytest.mark.parametrize("kind", [*RANKS, "nearly singular", "of many sizes"])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8])
def test_three_derivatives(n, kind):
    """Gradient, hvp and third of a determinant are right up to a rounding of the matrix, singular or not."""
    A, rng = md.matrix("A", n, n), np.random.default_rng([n, len(str(kind))])
    loss = md.Loss(sp.Determinant(A), [A])
    a, u, v = a_matrix(n, kind, rng), *rng.standard_normal((2, n, n))
    w = a.ravel()
    found = [
        (loss.grad(w), []),
        (loss.hvp(w, u.ravel()), [u]),
        (loss.third(w, u.ravel(), v.ravel()), [u, v]),
    ]
    near = 2.0 * np.finfo(float).eps * np.prod(np.linalg.svd(a, compute_uv=False)[: n - 1]) * np.linalg.norm(a)
    assert abs(Fraction(float(loss.value(w))) - determinant(a)) <= n * near
    for got, along in found:
        for i, j in rng.integers(0, n, (2, 2)):
            error = abs(Fraction(float(got.reshape(n, n)[i, j])) - exact(a, along, i, j))
            assert error <= 2.0 * reach(a, along)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_any_order(order):
    """The kernel knows derivatives of any order, at a matrix that lacks two ranks too."""
    rng, n = np.random.default_rng(order), 5
    for a in (a_matrix(n, 0, rng), a_matrix(n, 2, rng)):
        along, out = rng.standard_normal((order, n, n)), np.empty((n, n))
        cofactors(np.concatenate([[a], along]).ravel(), order, out.ravel(), 0, n, 1, n)
        for i, j in rng.integers(0, n, (2, 2)):
            assert abs(Fraction(float(out[i, j])) - exact(a, along, i, j)) <= 4.0 * reach(a, along)


def test_at_zero():
    """At the zero matrix the determinant and its derivatives up to the third are zero, the fourth of 4 x 4 is not."""
    A, rng = md.matrix("A", 4, 4), np.random.default_rng(0)
    loss = md.Loss(sp.Determinant(A), [A])
    u, v = rng.standard_normal((2, 16))
    assert not any(np.any(x) for x in (loss.grad(0 * u), loss.hvp(0 * u, u), loss.third(0 * u, u, v)))
    out, e = np.empty(16), rng.standard_normal((3, 4, 4))
    cofactors(np.concatenate([np.zeros((1, 4, 4)), e]).ravel(), 3, out, 0, 4, 1, 4)
    assert abs(Fraction(float(out[6])) - exact(np.zeros((4, 4)), e, 1, 2)) < 1e-14


def test_chain_rule():
    """Samples, products, equal rows inside determinants of singular matrices: central differences of exact values."""
    A, x, Z = md.matrix("A", 4, 4), md.matrix("x", 4, 1), md.matrix("Z", 4, 4)
    rng = np.random.default_rng(3)
    zs = rng.integers(-3, 4, (3, 4, 4)) * 1.0
    zs[:, 0] = zs[:, 1]
    loss = md.Loss(sp.Determinant(Z @ (A + x @ sp.OneMatrix(1, 4))) ** 2 + sp.Determinant(Z + A), [A, x], data={Z: zs})
    w, u = np.zeros(20), rng.integers(-4, 5, 20) / 4

    def f(w):
        a, b = w[:16].reshape(4, 4), w[16:, None]
        return sum(determinant(z @ (a + b)) ** 2 + determinant(z + a) for z in zs) / 3

    h = 2.0**-12  # of small whole numbers, so that sums are exact: only the difference is an error, of h^2
    slopes = [float((f(w + h * e) - f(w - h * e)) / Fraction(2 * h)) for e in np.eye(20)]
    assert np.abs(loss.grad(w) - slopes).max() < 1e-4
    rough = (loss.grad(w + h * u) - loss.grad(w - h * u)) / (2 * h)
    assert np.abs(rough).max() > 1 and np.abs(loss.hvp(w, u) - rough).max() < 1e-4
    rough = (loss.hvp(w + h * u, u) - loss.hvp(w - h * u, u)) / (2 * h)
    assert np.abs(rough).max() > 1 and np.abs(loss.third(w, u, u) - rough).max() < 1e-4


def test_a_matrix_of_equal_rows():
    """Rows or columns that are all one expression make a matrix as any other: its determinant is 0."""
    x, s = md.matrix("x", 4, 1), sp.Symbol("s")
    for matrix in (x @ sp.OneMatrix(1, 4), s * sp.OneMatrix(4, 4)):
        loss = md.Loss(sp.Determinant(matrix), [x, s])
        w = np.array([1.0, -2.0, 0.5, 3.0, 1.5])
        assert loss.value(w) == 0 and not loss.grad(w).any() and not loss.hvp(w, w).any()
    inverse = md.Loss(sp.Trace((x @ sp.OneMatrix(1, 4) + s * sp.OneMatrix(4, 4)).inv()), [x, s])
    assert not abs(inverse.value(w)) < 1e10


def test_through_a_singular_matrix():
    """Descent starts at a singular matrix, and takes the same path alone, to the last bit, as among seventy."""
    A = md.matrix("A", 4, 4)
    loss = md.Loss((sp.Determinant(A) - 1) ** 2 / 2, [A])
    system = md.Map(loss, md.GD(0.05))
    start = np.diag([1.0, 2.0, 1.0, 0.0]).ravel()
    alone, many = md.simulate(system, start, 60, paths=1), md.simulate(system, np.tile(start, (70, 1)), 60, paths=70)
    assert all(np.array_equal(alone.w[0], path) for path in many.w)
    assert np.linalg.det(alone.w[0, -1].reshape(4, 4)) == pytest.approx(1, abs=1e-6)
