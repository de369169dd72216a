"""Points where the loss has run off to infinity: a sentence or NaN, never an error of linear algebra."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md

j = sp.Symbol("j", integer=True)
A, B, T, Y = md.vector("a", 6), md.vector("b", 6), sp.Symbol("t"), sp.Symbol("y")
NET = md.Loss.regression(
    sp.Sum(A[j] * sp.tanh(B[j] * T), (j, 0, 5)), [A, B], {T: np.linspace(-1, 1, 9)}, np.linspace(0, 1, 9) ** 2
)
x, y = sp.symbols("x y")
VALLEY = md.Loss((1 - x**2 * y**2) ** 2 / 4, [x, y])
LOSSES = pytest.mark.parametrize("loss", [NET, VALLEY], ids=["net", "valley"])


@LOSSES
def test_an_infinite_hessian_gets_a_sentence(loss):
    """Where the Hessian overflows, what needs a spectrum says so; what measures gives NaN."""
    far = np.full(loss.dim, 1e200)
    manifold, sgd = md.Manifold(loss), md.Map(loss, md.SGD(0.1), md.GaussianNoise(0.1))
    with pytest.raises(md.ManifoldError, match="not finite"):
        manifold.tangent(far)
    with pytest.raises(md.ManifoldError, match="not finite"):
        manifold.dimensions([far, np.ones(loss.dim)])
    for call in (md.stability, md.escape):
        with pytest.raises(md.ManifoldError, match="not a minimum"):
            call(sgd, far)
    for method in ("exact", "matrix-free"):
        with pytest.raises(md.InputError, match="Hessian at w is not finite"):
            md.flatness(loss, far, method=method)
    assert np.isnan(manifold.sharpness(far))
    assert np.isnan(md.GradientFlow(md.Map(loss, md.GD(0.1))).validity(far))


@LOSSES
def test_nan_is_no_minimum(loss):
    """NaN has no limit, no distance and is not found among the minima."""
    manifold, nothing = md.Manifold(loss), np.full(loss.dim, np.nan)
    with pytest.raises(md.InputError, match="NaN or Inf"):
        manifold.project(nothing)
    assert manifold.find([nothing]).shape == (0, loss.dim)
    assert np.isnan(manifold.distance(nothing))


@LOSSES
def test_a_diverging_path_does_not_spoil_its_neighbours(loss):
    """Sharpness along a run is a number on every path while it is one; the path that diverges gives NaN on its own."""
    starts = np.full((3, loss.dim), 0.3)
    starts[1] = 3e307
    run = md.simulate(md.Map(loss, md.GD(0.1)), starts, 6, paths=3, save_every=1, observe=["sharpness", "trace"])
    assert [s.name for s in map(md.Status, run.status)] == ["FINISHED", "DIVERGED", "FINISHED"]
    sharp = run.observables["sharpness"]
    assert np.isfinite(sharp[[0, 2]]).all() and np.isnan(sharp[1]).any()
    np.testing.assert_array_equal(sharp[0], md.Manifold(loss).sharpness(run.w[0]))
    np.testing.assert_array_equal(sharp[0], sharp[2])


def test_smoothness_refuses_nan():
    """Input smoothness at NaN is a sentence."""
    with pytest.raises(md.InputError, match="NaN or Inf"):
        md.smoothness(NET, np.full(NET.dim, np.nan))
