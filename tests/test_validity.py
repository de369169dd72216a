"""What must be small for a flow to hold: the number in its description against closed forms."""

import numpy as np
import pytest
import sympy as sp
from scipy.optimize import brentq

import minidyn as md
from minidyn.minima import manifold

x, y, s = sp.symbols("x y s")


def valley(across) -> md.Loss:
    return md.Loss((1 + x**2) * across, [x, y])


def ends_with(flow, w, value: float, rel: float = 1e-9) -> None:
    """`validity(w)` is the value, and the line on validity ends with it, with `w` only, in text and in LaTeX."""
    assert flow.validity(w) == pytest.approx(value, rel=rel)
    for latex in (False, True):
        plain, placed = flow._describe(latex).splitlines(), flow._describe(latex, w).splitlines()
        (changed,) = [pair for pair in zip(plain, placed, strict=True) if pair[0] != pair[1]]
        place = ", ".join(f"{v:.4g}" for v in w[: flow.dim])
        assert changed[0].startswith("valid: ")
        assert changed[1] == f"{changed[0]}; at theta = [{place}] it is {value:.3g}"


@pytest.mark.parametrize(
    ("rule", "sigma2"),
    [
        (md.SGD(0.1), lambda h, lr: lr / (h * (2 - lr * h))),
        (md.SGD(0.1, momentum=0.5), lambda h, lr: lr * 1.5 / (0.5 * h * (2 * 1.5 - lr * h))),
    ],
    ids=["SGD", "heavy ball"],
)
def test_quasistatic_oscillation_bends_the_valley(rule, sigma2):
    """On `h(x) y^2 / 2` the number is |h'| sqrt(W)/h with the oscillation's variance W, in closed form too."""
    loss = valley(y**2 / 2)
    manifold = md.Manifold(loss, chart={x: s, y: 0}, coordinates=[s])
    flow = md.QuasistaticFlow(md.Map(loss, rule, md.GaussianNoise(0.3)), manifold)
    h, slope = 1 + 0.8**2, 1.6
    value = slope * np.sqrt(0.3**2 * sigma2(h, 0.1)) / h
    ends_with(flow, [0.8, 0.0], value)
    closed = flow.closed_form()
    ends_with(closed, closed.start([0.8, 0.0]), value)


def test_quasistatic_oscillation_adds_over_directions():
    """With label noise `W = lr c / (2 - lr lambda)` in every normal direction: `a b` has one, `|T[s]|` by hand."""
    loss = md.Loss.regression(x * y, [x, y], inputs={}, target=[1.0])
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.1), md.LabelNoise(0.2)))
    a = 2.0
    b = 1 / a
    curvature = a**2 + b**2
    n = np.array([b, a]) / np.sqrt(curvature)
    third = np.zeros((2, 2, 2))  # of (a b - 1)^2 / 2
    third[0, 0, 1] = third[0, 1, 0] = third[1, 0, 0] = 2 * b
    third[1, 1, 0] = third[1, 0, 1] = third[0, 1, 1] = 2 * a
    width = np.sqrt(0.1 * 0.2**2 / (2 - 0.1 * curvature))
    ends_with(flow, [a, b], width * np.linalg.norm(third @ n, 2) / curvature)


@md.rule
def decayed(theta, g, *, lr, decay):
    """Gradient descent with decoupled weight decay."""
    return theta * (1 - lr * decay) - lr * g


@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.05, 0.5])
def test_weak_forces_must_shift_the_minima_less_than_the_oscillation(decay):
    """On `h (y - 1)^2/2` weight decay shifts y by decay/h; against the root of W that is the number where it is larger,
    and descriptions name the force."""
    loss, h, lr, sigma = md.Loss((1 + x**2) * (y - 1) ** 2 / 2, [x, y]), 1 + 0.8**2, 0.1, 0.1
    flow = md.QuasistaticFlow(md.Map(loss, decayed(lr, decay), md.GaussianNoise(sigma)))
    width = np.sqrt(lr * sigma**2 / (h * (2 - lr * h)))
    ends_with(flow, [0.8, 1.0], max(1.6 * width / h, decay / h / width))
    assert ("a weak force acts" in flow._describe(False)) and "oscillation, small too" in flow._describe(False)
    assert "weak force" not in md.QuasistaticFlow(md.Map(loss, md.SGD(lr), md.GaussianNoise(sigma)))._describe(False)


KINKED = [  # losses across y, and what is said of them on y = 0
    (sp.Piecewise((y**2, y > 0), (2 * y**2, True)), "curvature is"),
    (y**2 + y * sp.Abs(y) / 2, "curvature is"),
    (sp.Max(y, 0) ** 2 + 3 * sp.Max(-y, 0) ** 2, "curvature is"),
    (y**2 + sp.Abs(y), "slope is"),
]


@pytest.mark.parametrize(("across", "says"), KINKED)
def test_minima_in_a_kink_have_no_quasistatic_flow(across, says):
    """Where curvature or slope jump on the minima the flow is refused with both values."""
    flow = md.QuasistaticFlow(md.Map(md.Loss((1 + x**2) * across / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.1)))
    with pytest.raises(md.FlowError, match=f"lie in a kink of the loss .* its {says}"):
        flow.drift([1.0, 0.0])


def test_kinks_on_charts_and_kinks_that_do_not_matter():
    """Closed forms and validity are refused in a kink as well; jumps of higher derivatives, and kinks elsewhere, change
    nothing."""
    noise, loss = md.GaussianNoise(0.1), md.Loss((1 + x**2) * (y**2 + y * sp.Abs(y) / 2) / 2, [x, y])
    chart = md.Manifold(loss, chart={x: s, y: 0}, coordinates=[s])
    flow = md.QuasistaticFlow(md.Map(loss, md.SGD(0.1), noise), chart)
    closed = flow.closed_form()
    for call in (flow.validity, closed.validity, lambda w: closed.drift(closed.start(w))):
        with pytest.raises(md.FlowError, match="lie in a kink of the loss"):
            call([1.0, 0.0])
    smooth = md.Loss((1 + x**2) * (y**2 + sp.Abs(y) ** 3 + sp.Max(y - 1, 0)) / 2, [x, y])
    plain = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    drifts = [md.QuasistaticFlow(md.Map(e, md.SGD(0.1), noise)).drift([1.0, 0.0]) for e in (smooth, plain)]
    np.testing.assert_allclose(*drifts, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("rule", "total"), [(md.GD(0.1), 0.1), (md.SGD(0.1, momentum=0.6), 0.25)])
def test_gradient_flow_asks_for_a_step_below_the_threshold(rule, total):
    """`lr/(1 - momentum)` times the sharpness, over 2."""
    ends_with(md.GradientFlow(md.Map(valley(y**2 / 2), rule)), [3.0, 0.0], total * 10 / 2)


def test_rod_flow_asks_for_a_slow_rod():
    """GD on the valley: mu = 1 - lr h at the mid-point."""
    flow = md.RodFlow(md.Map(valley(y**2 / 2), md.GD(0.1)))
    ends_with(flow, [4.0, 0.0, 0.0, 0.1], abs(2 - 0.1 * 17))


def test_subquadratic_flow_asks_for_a_fast_orbit():
    """On `(1 + x^2) log cosh y`: |d delta/dx| |dx/dk| / delta over 1 - |1 - lr h sech^2 delta|."""
    lr, c = 0.1, 5.0
    flow = md.SubquadraticFlow(md.Map(valley(sp.log(sp.cosh(y))), md.GD(lr)))
    h = 1 + c**2
    d = brentq(lambda d: h * np.tanh(d) - 2 * d / lr, 0.1, 5.0, xtol=1e-14)
    speed = 2 * lr * c * np.log(np.cosh(d))
    grows = -2 * c * np.tanh(d) / (h / np.cosh(d) ** 2 - 2 / lr)  # the orbit's equation, differentiated
    relaxes = 1 - abs(1 - lr * h / np.cosh(d) ** 2)
    ends_with(flow, [c, 0.0, 0.0, d], abs(grows) * speed / d / relaxes, rel=1e-3)
    still = flow.start([1.0, 0.0])
    assert flow.validity(still) == 0.0


def test_central_flow_asks_for_a_curvature_that_holds_over_the_oscillation():
    """With `y^2/2 - y^4/24` across, the secant over S loses S/6 of the curvature, and S holds x at the edge."""
    loss = md.Loss((1 + x**2) * (y**2 / 2 - y**4 / 24) - x, [x, y])
    flow = md.CentralFlow(md.Map(loss, md.GD(0.5)))
    ends_with(flow, [3**0.5, 0.0], 1 / np.sqrt(3) / 6)
    assert flow.validity([1.0, 0.0]) == 0.0


def test_a_symbolic_flow_knows_no_such_number():
    """An equation of one's own assumes nothing."""
    flow = md.SymbolicFlow(md.Map(valley(y**2 / 2), md.GD(0.1)), [-x, -y])
    assert np.isnan(flow.validity([1.0, 0.0])) and "valid: an equation of your own" in flow.describe(w=[1.0, 0.0])


BAD = [
    np.zeros((3, 2)), 3.0, None, np.zeros((0, 2)), [np.nan, 0.0], [np.inf, 1.0], "abc", {}, ["a", "b"], [x, y], [1j, 0],
    [[1.0], [2.0, 3.0]], [1.0, 2.0, 3.0],
]  # fmt: skip


@pytest.mark.parametrize("make", [
    md.GradientFlow, md.ModifiedFlow, md.RodFlow, md.SubquadraticFlow, md.CentralFlow,
    lambda system: md.SymbolicFlow(system, [-x, -y]),
    lambda system: md.QuasistaticFlow(md.Map(system.loss, system.rule, md.GaussianNoise(0.1))),
])  # fmt: skip
def test_what_is_no_point_gets_one_sentence(make):
    """Batches, numbers, text, symbols, NaN and wrong lengths: an InputError of one line from validity and describe."""
    flow = make(md.Map(valley(y**2 / 2), md.GD(0.1)))
    for w in BAD:
        for call in (flow.validity, lambda w: flow.describe(w=w)):
            if w is None and call != flow.validity:
                continue
            with pytest.raises(md.InputError, match=r"^w (must be (one point|real)|must hold|holds complex)") as caught:
                call(w)
            assert "\n" not in str(caught.value)


def test_the_steepest_curvature_of_many_parameters_needs_no_hessian(monkeypatch):
    """Lanczos finds the largest `|eigenvalue|` of either sign, 0 where the Hessian is, NaN where that is not finite."""
    a, i = md.vector("a", 40), sp.Symbol("i", integer=True)
    bowl = md.Loss(sp.Sum((i + 1) * sp.cos(a[i]) + a[i] ** 2, (i, 0, 39)), [a])
    flat, sharp = md.Loss(sp.Sum(a[i] ** 4, (i, 0, 39)), [a]), md.Loss(sp.Sum(sp.sqrt(a[i]), (i, 0, 39)), [a])
    points = [(bowl, np.linspace(-2, 2, 40)), (bowl, np.full(40, np.pi)), (flat, np.zeros(40))]
    exact = [manifold.steepest(loss, w) for loss, w in points]
    monkeypatch.setattr(manifold, "_WIDE", 10)
    monkeypatch.setattr(manifold, "curvatures", None)
    assert [manifold.steepest(loss, w) for loss, w in points] == pytest.approx(exact, rel=1e-10)
    assert exact[1] == pytest.approx(42) and np.isnan(manifold.steepest(sharp, np.full(40, -1.0)))
