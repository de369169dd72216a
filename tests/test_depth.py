"""Time and recursion follow the number of distinct subexpressions, not the length of the expression written out."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.common.errors import ExpressionError, InputError
from minidyn.graph import Converter, Graph, reachable, walk

x, y = sp.symbols("x y")


def layers(step, count, start=x):
    for _ in range(count):
        start = step(start)
    return start


def numbers(step, count, at):
    for _ in range(count):
        at = step(at)
    return at


DEEP = {  # one layer in sympy, in numpy, its slope, and how many layers
    "doubling": (lambda h: sp.sin(h) + sp.cos(h), lambda h: np.sin(h) + np.cos(h), lambda h: np.cos(h) - np.sin(h), 60),
    "chain": (lambda h: sp.sin(h, evaluate=False), np.sin, np.cos, 250),
    "maxima": (lambda h: sp.Max(-1, h + 0.01, evaluate=False), lambda h: h + 0.01, np.ones_like, 120),
    "products": (lambda h: sp.Mul(h, 1 + y, evaluate=False), lambda h: 1.5 * h, lambda h: 1.5, 120),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_losses_take_the_whole_road(name, tmp_path):
    """60 layers that double, a chain of 250: value, gradient, Hessian, a run, its file, and every printed text."""
    step, twin, slope, count = DEEP[name]
    loss = md.Loss(layers(step, count), [x, y])
    at, chained = 0.3, 1.0
    for _ in range(count):
        at, chained = twin(at), chained * slope(at)
    np.testing.assert_allclose(loss.value([0.3, 0.5]), at, rtol=1e-12)
    np.testing.assert_allclose(loss.grad([0.3, 0.5])[0], chained, rtol=1e-10)
    assert np.isfinite(loss.hessian([0.3, 0.5])).all()
    assert len(repr(loss)) < 150 and len(loss._repr_latex_()) < 1000 and "..." in repr(loss)
    run = md.simulate(md.Map(loss, md.SGD(0.01)), [0.3, 0.5], steps=2)
    run.save(tmp_path / "run")
    with pytest.raises(InputError, match=r"too long to be written out in symbols; use the numerical flow"):
        md.Manifold(loss, chart={x: sp.Symbol("s"), y: 0}, coordinates=[sp.Symbol("s")])


def test_every_door_takes_deep_expressions():
    """60 layers that double enter as a curvature, a model, a strength of noise, a condition, an observable and an
    equation of one's own, and what is said of them is short."""
    u = sp.Symbol("u")
    deep = layers(*DEEP["doubling"][::3])
    system = md.Map(md.Loss((2 + deep) * y**2 / 2, [x, y]), md.SGD(0.05), md.GaussianNoise(0.1))
    value = numbers(DEEP["doubling"][1], 60, 0.3)
    stop = [deep > 100, sp.Eq(deep, 100), deep - 100]
    run = md.simulate(system, [0.3, 0.0], 4, stop=stop, observe={"h": deep}, rng=0)
    assert run.observables["h"][0, 0] == pytest.approx(value)
    chained, at = 1.0, 0.3
    for _ in range(60):
        chained, at = chained * DEEP["doubling"][2](at), DEEP["doubling"][1](at)
    h = 2 + value
    drift = -0.05 * 0.01 * chained / (2 * h * (2 - 0.05 * h))
    np.testing.assert_allclose(md.QuasistaticFlow(system).drift([0.3, 0.0]), [drift, 0.0], rtol=1e-9, atol=1e-20)
    assert len(md.QuasistaticFlow(system).describe(w=[0.3, 0.0])) < 3000
    fit = md.Loss.regression(y * layers(*DEEP["doubling"][::3], u), [y], {u: [0.3]}, [0.0])
    assert fit.grad([1.0])[0] == pytest.approx(value**2)
    noisy = md.Map(md.Loss(y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(deep))
    assert np.isfinite(noisy.step([0.3, 0.5])).all()
    np.testing.assert_allclose(md.SymbolicFlow(system, [deep, 0]).drift([0.3, 0.0]), [value, 0.0])
    with pytest.raises(InputError, match=r"f\(sin\(\.\.\.\) \+ cos\(\.\.\.\)\) uses f, which has no kernel") as told:
        md.simulate(system, [0.3, 0.0], 4, stop=sp.Function("f")(deep) > 1)
    assert len(str(told.value)) < 600


def test_thousands_of_layers_are_read():
    """A chain of 5000 functions is read into as many nodes, and an error in its depth still says what is wrong."""
    node = Converter(g := Graph(), {x: g.load("w")})(layers(lambda h: sp.sin(h, evaluate=False), 5000))
    assert len(reachable([node])) == 5001
    with pytest.raises(ExpressionError, match=r"the symbol y is neither a parameter, a constant nor data"):
        md.Loss(layers(lambda h: sp.sin(h, evaluate=False), 5000, y), [x])
    strange = sp.zeta(layers(lambda h: sp.sin(h, evaluate=False), 300), evaluate=False)
    with pytest.raises(ExpressionError, match=r"^the subexpression zeta\(.* uses zeta, which has no k") as told:
        md.Loss(strange, [x])
    assert len(str(told.value)) < 450


def test_masks_grow_with_the_layers_alone():
    """The gradient through 2 n choices in a row is written in twice the text of n, not four times."""
    losses = [layers(lambda h: sp.Max(0, h, evaluate=False) * y + x, n) for n in (30, 60)]
    short, long = (len(md.Loss(loss, [x, y]).source.text) for loss in losses)
    assert long < 2.2 * short


def test_printed_is_short_and_exact_where_it_can_be():
    """What sympy can write is written by sympy and cut; the outermost layers stand for the rest."""
    assert walk.printed(x + y) == "x + y"
    cut = walk.printed(sum(x**k for k in range(60)))
    assert cut.endswith("...") and len(cut) == 80
    assert walk.printed(layers(lambda h: sp.sin(h, evaluate=False), 70)) == "sin(sin(sin(...)))"
    assert walk.extent(layers(lambda h: sp.sin(h) + sp.cos(h), 3)) == (29, 7)
    assert walk.free_symbols(layers(lambda h: sp.sin(h + y, evaluate=False), 100)) == {x, y}


def test_printing_inverts_no_matrix(monkeypatch):
    """sympy asks a product for its sign and inverts matrices of entries for that: nothing of minidyn waits for it."""
    w = sp.symbols("w:16", real=True)
    m, b = (sp.ImmutableMatrix(4, 4, lambda i, k: w[4 * i + k] + shift * (i == k)) for shift in (3, 1))  # noqa: B023
    loss = md.Loss(sp.Trace(sp.MatMul(sp.Inverse(m), b, evaluate=False)), list(w))
    monkeypatch.setattr(sp.ImmutableMatrix, "_eval_inverse", lambda *_, **__: pytest.fail("inverted"))
    at = np.random.default_rng(0).normal(size=16)
    entries = at.reshape(4, 4)
    want = np.trace(np.linalg.solve(entries + 3 * np.eye(4), entries + np.eye(4)))
    assert loss.value(at) == pytest.approx(want, rel=1e-13)
    assert "Trace" in repr(loss) and loss._repr_latex_()


@pytest.mark.parametrize("number", [
    sp.Integer(10) ** 400, sp.Rational(1, 10**400), sp.Rational(10**400, 3), -(sp.Integer(10) ** 400),
    sp.Float("1e500"), sp.Float("1e-500"),
], ids=["huge", "tiny", "fraction", "negative", "float", "tiny float"])  # fmt: skip
@pytest.mark.parametrize(
    "place", [lambda n: n + x, lambda n: n * x, lambda n: x**2 / n, lambda n: sp.Max(x, n), lambda n: sp.sin(x) * n + n]
)
def test_numbers_beyond_double(number, place):
    """A number that no double comes near is refused in a sentence, wherever it stands."""
    with pytest.raises(ExpressionError, match=r"contains .*, which is .* double precision(; it stands in .*)?\.$"):
        md.Loss(place(number), [x])


def test_numbers_within_double():
    """A fraction of huge whole numbers is the double next to it, and an exponent beyond whole doubles is refused."""
    third, big = sp.Rational(10**400, 3 * 10**400 + 1), sp.Integer(10) ** 300
    assert md.Loss(third * x + sp.Rational(10**400 + 1, 10**400 - 1), [x]).value([3.0]) == pytest.approx(2.0, rel=1e-15)
    assert md.Loss(big * x, [x]).grad([1.0])[0] == 1e300
    assert md.Loss(x ** sp.Integer(3001), [x]).value([-1.0]) == -1.0
    for exponent in (2**53 + 1, -(10**400)):
        with pytest.raises(ExpressionError, match=r"the exponent .* is too large: the largest is 2\*\*53"):
            md.Loss(x ** sp.Integer(exponent), [x])
