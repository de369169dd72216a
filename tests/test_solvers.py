"""Solvers: accuracy, dense output, stiffness, conditions, Brownian paths, refusals. Orders are in test_orders."""

from __future__ import annotations

import numpy as np
import problems
import pytest
import sympy as sp
from scipy.integrate import solve_ivp

import minidyn as md
from minidyn.compiler import jit
from minidyn.solvers.brownian import levy_area, piece, pieces
from minidyn.solvers.piecewise import carry, stays
from minidyn.solvers.tableaus import TABLEAUS

BITS = np.testing.assert_array_equal
x, y, z = sp.symbols("x y z", real=True)


def clock(h: float, unknowns=(x, y)) -> md.Map:
    """A map that is nothing but a clock whose steps last h."""
    return md.Map(md.Loss(sum(s**2 for s in unknowns), list(unknowns)), md.GD(h))


ROTATION = md.SymbolicFlow(clock(0.1), [y, -x])
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SGD = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.3))


# Without noise ----------


def reference(problem: problems.Initial, times: np.ndarray, **options) -> np.ndarray:
    """scipy's solution (times, D) of an initial value problem."""
    field = sp.lambdify([problem.unknowns], problem.field, cse=True)
    if options["method"] == "LSODA":
        matrix = sp.lambdify([problem.unknowns], sp.Matrix(problem.field).jacobian(problem.unknowns), cse=True)
        options["jac"] = lambda t, w: matrix(w)
    start = [float(v) for v in problem.start]
    return solve_ivp(lambda t, w: field(w), (0, problem.end), start, t_eval=times, **options).y.T


def global_error(problem: problems.Initial, method: str, rtol: float, expected: np.ndarray) -> float:
    """The largest error at the saves, each unknown in units of its largest value, over rtol."""
    steps = len(expected) - 1
    flow = md.SymbolicFlow(clock(problem.end / steps, problem.unknowns), problem.field)
    size = abs(expected).max(0)
    run = md.simulate(flow, [float(v) for v in problem.start], steps, save_every=1, method=method, rtol=rtol,
                      atol=1e-3 * rtol * size.min())  # fmt: skip
    return (abs(run.w[0] - expected) / size).max() / rtol


@pytest.mark.parametrize("problem", problems.non_stiff(), ids=lambda p: p.name)
def test_global_error_of_explicit_methods(problem):
    """On every class of DETEST the global error at 41 saves is at most 100 rtol, against DOP853 at 1e-13."""
    expected = reference(problem, np.linspace(0, problem.end, 41), method="DOP853", rtol=1e-13, atol=1e-15)
    for method in ("tsit5", "dop853"):
        for rtol in (1e-4, 1e-7, 1e-10):
            assert global_error(problem, method, rtol, expected) <= 100, (method, rtol)


@pytest.mark.parametrize("name", ["ellipse", "matrix_factorization", "minimalist_eos", "scalar_deep"])
def test_gradient_flow_comes_to_rest(name):
    """Up to t = 100 the error is at most 100 rtol against scipy, and a path at rest is within a third of rtol.

    Steps that stability alone holds back would keep it two to five rtol away: the error estimate does not see there
    what the step does to the fastest mode.
    """
    loss = md.load_model(name).loss
    flow = md.GradientFlow(md.Map(loss, md.GD(2.5)))
    for seed, method, rtol in ((0, "dop853", 1e-4), (1, "dop853", 1e-8), (2, "auto", 1e-8), (3, "tsit5", 1e-5)):
        start = np.random.default_rng(seed).normal(size=loss.dim)
        options = {"method": "DOP853", "t_eval": np.linspace(0, 100, 41), "rtol": 1e-13, "atol": 1e-15}
        expected = solve_ivp(lambda t, w: -loss.grad(w), (0, 100), start, **options).y.T
        run = md.simulate(flow, start, 40, save_every=1, method=method, rtol=rtol, atol=1e-3 * rtol)
        error = abs(run.w[0] - expected).max(1) / abs(expected).max() / rtol
        assert error.max() <= 100 and np.median(error[20:]) <= 1 / 3, (method, rtol)


@pytest.mark.parametrize("problem", problems.stiff(), ids=lambda p: p.name)
def test_global_error_on_stiff_problems(problem):
    """On stiff problems the implicit method, and the automatic choice, stay within 100 rtol of LSODA at 1e-12."""
    expected = reference(problem, np.linspace(0, problem.end, 41), method="LSODA", rtol=1e-12, atol=1e-16)
    for method in ("radau", "auto"):
        for rtol in (1e-4, 1e-7):
            assert global_error(problem, method, rtol, expected) <= 100, (method, rtol)


def test_van_der_pol_meets_the_published_value():
    """Radau ends where Hairer and Wanner's reference solution of the stiff van der Pol equation does."""
    problem = problems.stiff()[0]
    run = md.simulate(md.SymbolicFlow(clock(0.1), problem.field), [2.0, 0.0], 20, method="radau", rtol=1e-10)
    np.testing.assert_allclose(run.w[0, -1], [1.706167732170483, -0.8928097010247975], rtol=1e-8)


def test_auto_says_what_it_used():
    """A flow that turns stiff is carried on by the implicit method, a smooth one by an explicit one."""
    steep = md.SymbolicFlow(clock(0.1), [-(x - sp.cos(y)) * 10**5, 1])
    assert md.simulate(steep, [1.0, 0.0], 50).meta["method"] == "auto (radau)"
    assert md.simulate(ROTATION, [1.0, 0.0], 50).meta["method"] == "auto (dop853)"
    assert md.simulate(ROTATION, [1.0, 0.0], 50, rtol=1e-4).meta["method"] == "auto (tsit5)"


@pytest.mark.parametrize("name", TABLEAUS)
def test_tableau_satisfies_its_order_conditions(name):
    """The quadrature conditions hold for the step up to its order, and inside the step up to its dense output's."""
    t = TABLEAUS[name]
    np.testing.assert_allclose(t.a.sum(1), t.c, atol=2e-15, rtol=0)
    np.testing.assert_allclose(
        [t.a[t.stages - 1] @ t.c**q for q in range(t.order)], 1 / np.arange(1, t.order + 1), atol=1e-15, rtol=0
    )
    assert abs(t.a[t.stages - 1] @ t.c**t.order - 1 / (t.order + 1)) > 1e-6
    for theta in (0.2, 0.7, 1.0):
        weights = t.p @ theta ** np.arange(1, t.p.shape[1] + 1)
        for q in range(t.p.shape[1]):
            np.testing.assert_allclose(weights @ t.c**q, theta ** (q + 1) / (q + 1), atol=1e-13, rtol=0)


@pytest.mark.parametrize("method", ["tsit5", "dop853", "dopri5", "radau", "auto", "scipy:DOP853"])
def test_saves_do_not_force_steps(method):
    """Saved at every step or at the ends alone, a flow without noise gives equal bits, and right ones in between."""
    often = md.simulate(ROTATION, [1.0, 0.0], 1000, save_every=1, method=method)
    rarely = md.simulate(ROTATION, [1.0, 0.0], 1000, save_every=1000, method=method)
    BITS(often.w[0, [0, -1]], rarely.w[0])
    exact = np.stack([np.cos(often.time), -np.sin(often.time)], axis=1)
    np.testing.assert_allclose(often.w[0], exact, atol=2e-7, rtol=0)


def test_stiff_saves_do_not_force_steps():
    """The same where the implicit method takes over on the way, with the Jacobian of the loss and with differences."""
    loss = md.Loss(1e6 * (y - x**2) ** 2 / 2 + (x - 1) ** 2 / 2, [x, y])
    gradient = md.GradientFlow(md.Map(loss, md.GD(0.001)))
    for flow, start in ((gradient, [-1.0, 1.5]), (Differences(gradient.map), [-1.0, 1.5])):
        often = md.simulate(flow, start, 1000, save_every=1, threads=1)
        BITS(often.w[0, ::100], md.simulate(flow, start, 1000, save_every=100, threads=2).w[0])
        assert "radau" in often.meta["method"]
    np.testing.assert_allclose(often.w, md.simulate(gradient, [-1.0, 1.5], 1000, save_every=1).w, rtol=1e-6)


class Differences(md.GradientFlow):
    """Gradient flow that does not know its Jacobian."""

    jacobian = None
    jacobian_needs = ()


def test_dense_output_stays_on_the_constraint():
    """A save inside a step is put back where the flow lives, whatever the tolerance."""
    flow = md.SymbolicFlow(clock(0.1), [y, -x], constraint=[x**2 + y**2 - 1])
    for method in ("tsit5", "dop853", "radau"):
        run = md.simulate(flow, [1.0, 0.0], 60, save_every=1, method=method, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose((run.w[0] ** 2).sum(1), 1, atol=4e-16 * 4, rtol=0)
        np.testing.assert_allclose(run.w[0, :, 0], np.cos(run.time), atol=1e-3, rtol=0)


def test_scipys_solvers():
    """Every solver of scipy carries a flow to the same place."""
    for name in ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA"):
        run = md.simulate(ROTATION, [1.0, 0.0], 20, method=f"scipy:{name}", rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(run.w[0, -1], [np.cos(2), -np.sin(2)], atol=1e-4, rtol=0)
        assert run.meta["method"] == f"scipy:{name}" and run.finished.all()


def test_a_run_resumes_in_the_middle_of_a_step():
    """An engine made anew and given another's state goes on with the same bits."""
    from minidyn.simulate.choose import make_engine

    start, key = np.array([[1.0, 0.2]]), np.array([1, 2], np.uint64)
    for flow, method, substeps in (
        (ROTATION, "dop853", None),
        (ROTATION, "radau", None),
        (GEOMETRIC, "weak2", 8),
        (GEOMETRIC, "milstein", "adaptive"),
    ):

        def made(flow=flow, method=method, substeps=substeps):
            return make_engine(flow, start, 100, key, method=method, substeps=substeps)

        whole, first, second = made(), made(), made()
        whole.advance(0, 100)
        first.advance(0, 37)
        second.restore({name: a.copy() for name, a in first.state().items()})
        second.advance(37, 63)
        BITS(second.parameters(), whole.parameters())


# Conditions ----------


def test_condition_is_located_between_saves():
    """A flow without noise stops at the very instant at which an expression crosses zero; NaN from there on."""
    for method in ("tsit5", "dop853", "radau"):
        run = md.simulate(ROTATION, [1.0, 0.0], 40, save_every=5, method=method, stop=x)
        np.testing.assert_allclose(run.meta["stopped_at"], [np.pi / 2 / 0.1], rtol=1e-8)
        assert run.status[0] == md.Status.STOPPED and run.ended[0] == 16
        assert np.isfinite(run.w[0, :4]).all() and np.isnan(run.w[0, 4:]).all()
        assert "1 stopped by its condition (first at step 16)" in repr(run)


def test_every_kind_of_condition():
    """Comparisons, functions, levels of observables and lists of them end a path at the first that is met."""

    def early(w):
        return w[:, 0] - np.cos(0.5)

    for stop, t in ((x < 0.5, np.pi / 3), (early, 0.5), ({"loss": 1.5}, None), ([x, early], 0.5)):
        run = md.simulate(ROTATION, [1.0, 0.0], 40, stop=stop)
        if t is None:
            assert run.finished.all()
        else:
            np.testing.assert_allclose(run.meta["stopped_at"], [t / 0.1], rtol=1e-7)


def test_edge_of_stability():
    """Gradient flow stops where the sharpness reaches 2/lr; with momentum, 2 (1 + beta)/lr."""
    loss = md.Loss(x**4 / 4 - 30 * x + y**2, [x, y])  # the sharpness 3 x^2 grows as x goes to 30^(1/3)
    nesterov = md.SGD(0.1, momentum=0.5, nesterov=True)
    for rule, limit in ((md.GD(0.1), 20), (md.SGD(0.2, momentum=0.5), 15), (nesterov, 15)):
        flow = md.GradientFlow(md.Map(loss, rule))
        run = md.simulate(flow, [1.0, 0.0], 100, stop="edge")
        grown = md.simulate(flow, [1.0, 0.0], 100, stop=3 * x**2 - limit)
        assert run.meta["stop"] == "edge of stability"
        np.testing.assert_allclose(run.meta["stopped_at"], grown.meta["stopped_at"], rtol=1e-9)


def test_maps_and_noisy_flows_stop_where_they_are_saved():
    """A map, or a flow with noise, ends at the first save where the condition has been met."""
    gd = md.Map(md.Loss(x**2 / 2 + y**2 / 2, [x, y]), md.GD(0.1))
    run = md.simulate(gd, [1.0, 0.0], 40, save_every=2, stop={"norm": 0.5})
    assert run.ended[0] == 8 and np.isnan(run.w[0, 4:]).all() and np.isfinite(run.w[0, :4]).all()
    noisy = md.simulate(md.QuasistaticFlow(SGD), [1.0, 0.0], 400, paths=20, save_every=10, rng=1, stop=x - 0.5)
    free = md.simulate(md.QuasistaticFlow(SGD), [1.0, 0.0], 400, paths=20, save_every=10, rng=1)
    below = free.w[:, :, 0] < 0.5
    assert (noisy.status == md.Status.STOPPED).sum() == below.any(1).sum() > 3
    BITS(noisy.ended[below.any(1)], free.steps[below[below.any(1)].argmax(1)])


# With noise ----------

GEOMETRIC = md.SymbolicFlow(clock(1 / 32), [-x + sp.sin(y), -y], [x / 2, sp.Rational(3, 10)])
ADDITIVE = md.SymbolicFlow(clock(1 / 32), [-x + sp.sin(y), -y - x], [[sp.Rational(1, 2), 0.1], [0, 0.3]])
TWISTED = md.SymbolicFlow(clock(1 / 32), [-x, -y], [[y / 2, 0.1], [0.2, x / 3]])
CIRCULAR = md.SymbolicFlow(clock(1 / 32), [-x, -y], [[y / 2, 0.1], [0.2, x / 3]], reading="stratonovich")
SCHEMES = [(TWISTED, "euler-maruyama"), (GEOMETRIC, "milstein"), (GEOMETRIC, "diagonal"), (CIRCULAR, "heun"),
           (ADDITIVE, "sra1"), (TWISTED, "weak2")]  # fmt: skip


@pytest.mark.parametrize("flow, method", SCHEMES, ids=lambda v: v if isinstance(v, str) else "")
def test_bits_of_a_scheme(flow, method, sixteen_cores):
    """Threads 1, 2, 8, paths 1 and 200, saves at every step and at the ends give equal bits, for any size of steps."""
    for substeps in (8, 1, 1 / 4):
        kept = {"method": method, "substeps": substeps, "rng": 3}
        run = md.simulate(flow, [1.0, 0.2], 40, paths=200, save_every=1, threads=1, **kept)
        assert run.finished.all() and len(np.unique(run.w[:, -1, 0])) == 200
        for threads in (2, 8):
            ends = md.simulate(flow, [1.0, 0.2], 40, paths=200, save_every=40, threads=threads, **kept)
            BITS(ends.w, run.w[:, [0, 40]])
        BITS(md.simulate(flow, [1.0, 0.2], 40, save_every=7, **kept).w[0], run.w[0, [0, 7, 14, 21, 28, 35, 40]])


def test_default_steps_do_not_depend_on_saving():
    """Without `substeps` the steps follow from the length of the run alone."""
    for every in (1, 3, 1000):
        run = md.simulate(md.QuasistaticFlow(SGD), [1.0, 0.0], 1000, paths=3, rng=1, save_every=every)
        assert run.meta["substeps"] == 8
        if every == 1:
            first = run.w
        BITS(run.w, first[:, run.steps])


def test_adaptive_steps_leave_the_path_alone(sixteen_cores):
    """Adaptive runs give equal bits for any saving and threads, and converge to the fine path with the tolerance."""
    kept = {"paths": 100, "rng": 3, "method": "milstein"}
    fine = md.simulate(GEOMETRIC, [1.0, 0.2], 64, substeps=1 / 256, save_every=64, **kept).w[:, -1]
    errors = []
    for tol in (1e-1, 1e-2, 1e-3):
        adaptive = {"substeps": "adaptive", "rtol": tol, "atol": tol, **kept}
        run = md.simulate(GEOMETRIC, [1.0, 0.2], 64, save_every=1, threads=1, **adaptive)
        other = md.simulate(GEOMETRIC, [1.0, 0.2], 64, save_every=64, threads=8, **adaptive)
        BITS(run.w[:, [0, -1]], other.w)
        errors.append(abs(run.w[:, -1] - fine).mean())
    # a step's error is of order h^(3/2) and a path's of order h: ten times the tolerance is 4.6 times the error
    assert all(3 < ratio < 7 for ratio in np.divide(errors[:-1], errors[1:])) and errors[2] < 3e-3


def test_adaptive_steps_are_unbiased():
    """Where steps shrink as the noise kicks, the mean is still the exact one within 4 standard errors."""
    flow = md.SymbolicFlow(clock(1 / 8), [-x, -y / 2], [sp.sqrt(1 + x**2), y / 2])
    run = md.simulate(flow, [1.0, 1.0], 8, paths=20_000, substeps="adaptive", rtol=0.03, atol=0.03, rng=5, save_every=8,
                      method="milstein")  # fmt: skip
    w, t = run.w[:, -1], 1.0
    # d E x^2 = (-2 + 1) E x^2 + 1, so it stays at 1
    for values, exact in ((w[:, 0], np.exp(-t)), (w[:, 1], np.exp(-t / 2)), (w[:, 0] ** 2, 1.0)):
        assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values)) + 2e-3


def test_brownian_path_can_be_refined():
    """With noise alone the end of a path is the sum of its increments, however finely they are asked for."""
    drifting = md.SymbolicFlow(clock(1 / 32), [0, 0], [[1, 0], [0, 2]])
    ends = [
        md.simulate(drifting, [0.0, 0.0], 32, paths=500, substeps=s, rng=2, save_every=32).w[:, -1]
        for s in (16, 1, 1 / 2, 1 / 32)
    ]
    for other in ends[1:]:
        np.testing.assert_allclose(other, ends[0], atol=1e-13, rtol=0)


@jit
def pieces_alone(key, path, level, w, h, out):
    """Increment and area of each piece, asked for one by one."""
    for place in range(out.shape[0]):
        out[place, 0], out[place, 1] = piece(key, path, 5, 1, level, place, w, h)


def test_refined_increments_are_those_of_a_brownian_path():
    """Increments and areas of pieces have the covariance of a Brownian path, within 5 standard errors; one piece asked
    for alone has the increment and the area of its place among them, bit for bit."""
    key, level = np.array([11, 12], np.uint64), 2
    normals = np.random.default_rng(1).normal(size=20_000)
    rows = []
    W, H = np.empty(4), np.empty(4)
    for path, w in enumerate(normals):
        pieces(key, path, 5, 1, level, w, levy_area(key, path, 5, 1), W, H)
        rows.append([*W, *H])
        if path < 200:
            alone = np.empty((4, 2))
            pieces_alone(key, path, level, w, levy_area(key, path, 5, 1), alone)
            BITS(alone, np.stack([W, 0.25 * (0.5 * W + H)], axis=1))
    rows = np.array(rows)
    exact = np.diag([1 / 4] * 4 + [1 / 48] * 4)
    np.testing.assert_allclose(rows[:, :4].sum(1), normals, atol=1e-14, rtol=0)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)) * (1 + np.eye(8)) / len(rows))
    assert (abs(rows.T @ rows / len(rows) - exact) < 5 * scale).all()


@pytest.mark.parametrize("method", ["euler-maruyama", "weak2"])
def test_projected_scheme_holds_the_constraint(method):
    """Brownian motion on the sphere stays on it at every save, and has the exact moments (4 errors + O(h^p))."""
    w = sp.Matrix([x, y, z])
    factor = sp.eye(3) - w * w.T
    flow = md.SymbolicFlow(clock(1 / 16, (x, y, z)), list(-w), factor, constraint=[x**2 + y**2 + z**2 - 1])
    run = md.simulate(flow, [0.6, 0.0, 0.8], 16, paths=20_000, save_every=4, method=method, substeps=1, rng=4)
    np.testing.assert_allclose((run.w**2).sum(2), 1, atol=2e-15, rtol=0)
    end = run.w[:, -1]
    slack = {"euler-maruyama": 0.03, "weak2": 1e-3}[method]
    slack_of_means, mean = 4 / np.sqrt(3 * 20_000) + slack, np.exp(-1) * np.array([0.6, 0, 0.8])
    np.testing.assert_allclose(end.mean(0), mean, rtol=0, atol=slack_of_means)
    second = (end[:, 2] ** 2).mean()  # E z^2 = 1/3 + (z0^2 - 1/3) exp(-3 t)
    assert abs(second - (1 / 3 + (0.64 - 1 / 3) * np.exp(-3))) < 4 * (end[:, 2] ** 2).std() / np.sqrt(20_000) + slack


# Refusals ----------


def running(flow, **options):
    return lambda: md.simulate(flow, [1.0, 0.2], 4, **options)


@pytest.mark.parametrize("make, words", [
    (running(TWISTED, method="milstein"),
     "'milstein' is for noises that commute (sum_i f_ij d_i f_kr is symmetric in j and r), and the symbolic flow has "
     "general noise; use 'euler-maruyama' or 'weak2'."),
    (running(TWISTED, method="diagonal"), "'diagonal' is for diagonal noise"),
    (running(GEOMETRIC, method="sra1"),
     "'sra1' is for additive noise (a noise factor that does not depend on the state)"),
    (running(TWISTED, method="heun"),
     "'heun' reads an equation as Stratonovich and the symbolic flow is meant as Ito: it would converge to another "
     "limit; use 'euler-maruyama' or 'weak2'."),
    (running(CIRCULAR, method="weak2"),
     "'weak2' reads an equation as Ito and the symbolic flow is meant as Stratonovich"),
    (running(TWISTED, substeps="adaptive"),
     "adaptive steps need strong order 1 to be unbiased, and 'euler-maruyama' has 0.5 for general noise; no scheme has "
     "it: use fixed substeps."),
    (running(TWISTED, substeps=0.3),
     "substeps is 0.3; below 1 it must be 1/2, 1/4, ... down to 2**-12: a step of the map is refined by halves."),
    (running(TWISTED, substeps="few"), "substeps is a number of the map's steps or 'adaptive', not 'few'."),
    (running(ROTATION, method="weak2"),
     "this flow has no noise: 'weak2' is for flows with noise; use method='auto'."),
    (running(ROTATION, method="scipy:Newton"),
     "the method of a flow without noise is 'auto', 'tsit5', 'dop853', 'dopri5', 'radau' or 'scipy:' with RK23, RK45, "
     "DOP853, Radau, BDF, LSODA, not 'scipy:Newton'."),
    (running(ROTATION, stop="later"), "stop='later' is not known"),
    (running(ROTATION, stop={"norm": "far"}), "stop={'norm': ...}, the number to reach, must be a number, not 'far'."),
    (running(md.Map(VALLEY, md.Adam(0.1)), stop="edge"), "is not one number"),
    (lambda: md.SymbolicFlow(clock(1.0), [x]), "the drift has 1 expressions, expected 2: one for each parameter."),
    (lambda: md.SymbolicFlow(clock(1.0), [x, "y"]), "the drift must be sympy expressions, not 'y'."),
    (lambda: md.SymbolicFlow(clock(1.0), [x, z]), "the symbol z is neither a parameter, a constant nor data"),
    (lambda: md.SymbolicFlow(clock(1.0), [x, y], [[1, 2]]), "the diffusion must have 2 rows of equal length"),
    (lambda: md.SymbolicFlow(clock(1.0), [x, y], reading="both"),
     "reading is 'ito' or 'stratonovich', not 'both'."),
])  # fmt: skip
def test_refusal_is_a_sentence(make, words):
    """What a method is not for is refused with what it is for and what to use."""
    with pytest.raises(md.InputError) as error:
        make()
    assert words in str(error.value)


def test_start_far_from_the_constraint():
    """A start that does not satisfy the constraint is put there if it is near, and refused if it is not."""
    flow = md.SymbolicFlow(clock(0.1), [y, -x], constraint=[x**2 + y**2 - 1])
    np.testing.assert_allclose(flow.start([1.01, 0.0]), [1, 0], atol=1e-15, rtol=0)
    with pytest.raises(md.ManifoldError, match="does not satisfy the constraint"):
        flow.start([3.0, 0.0])


@pytest.mark.parametrize("factor, kind", [
    ([[1, 0.5], [0, 2]], "additive"), ([x, 0.1], "diagonal"), ([[x, 0], [0, y * x]], "general"),
    ([[x, -0.3 * y], [y, 0.3 * x]], "commutative"), ([[x], [y**2]], "commutative"), ([[y, 1], [1, x]], "general"),
])  # fmt: skip
def test_kind_of_noise(factor, kind):
    """The kind of noise is read off the diffusion, also where its numbers are decimal fractions."""
    assert md.SymbolicFlow(clock(1.0), [x, y], factor).noise_kind == kind


def test_a_flow_that_is_put_back_is_the_same_numbers_wherever_it_is_saved():
    """A symbolic flow on a circle, put back after every step: rare and frequent saves end with the same bits."""
    system = md.Map(md.Loss(x**2 + y**2, [x, y]), md.SGD(0.1))
    flow = md.SymbolicFlow(system, [-y, x], constraint=[x**2 + y**2 - 1])
    ends = [md.simulate(flow, [[0.6, 0.8], [1.0, 0.0]], 60, paths=2, save_every=s).w[:, -1] for s in (60, 7, 1)]
    assert np.array_equal(ends[0], ends[1]) and np.array_equal(ends[0], ends[2])


@pytest.mark.parametrize("method", ["auto", "scipy:DOP853", "scipy:LSODA"])
def test_a_start_without_a_field_ends_at_once(method):
    """Where the field is not a number at the start the path fails at step 0; its neighbour goes on."""
    p, q = sp.symbols("p q")
    flow = md.SymbolicFlow(md.Map(md.Loss(p**2 + q**2, [p, q]), md.GD(0.1)), [sp.sqrt(p), -q])
    run = md.simulate(flow, [[-1.0, 1.0], [1.0, 1.0]], 10, paths=2, method=method)
    assert not run.finished[0] and run.finished[1]
    assert np.isnan(run.w[0, -1]).all() and run.w[1, -1, 0] == pytest.approx(2.25, rel=1e-6)


def test_a_condition_is_met_where_it_becomes_defined():
    """`sqrt(x - 1) + 1 > 0` has no value below 1 and is true from there on: the instant is that of x = 1, to 1e-9; one
    that crosses its level behind such a gap, or that is undefined again in between, is found too."""
    flow = md.GradientFlow(md.Map(md.Loss((x - 3) ** 2 / 2, [x]), md.GD(0.05)))
    gap = sp.sqrt((x - 1) * (x - 2))
    for stop, place in (
        (sp.sqrt(x - 1) + 1 > 0, 1.0),
        (sp.sqrt(x - 1) - sp.Rational(1, 2), 1.25),
        (gap > -1, 0.0),
        (sp.And(x > 1, gap > -1), 2.0),
    ):
        run = md.simulate(flow, [0.0], 60, stop=stop, rtol=1e-11, atol=1e-12)
        assert run.status == md.Status.STOPPED
        assert run.meta["stopped_at"] == pytest.approx([np.log(3 / (3 - place)) / 0.05], abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_gradient_flow_ends_where_scipys_ends(seed):
    """From anywhere beside a curved valley `project` ends where scipy's DOP853 ends at a tolerance of 1e-12."""
    rng = np.random.default_rng(seed)
    size = 2 + seed
    x, *ys = symbols = sp.symbols(f"q:{size}")
    floor = [float(rng.normal()) * sp.sin(x + i) for i in range(size - 1)]
    loss = md.Loss(
        sp.Add(*[float(rng.uniform(0.5, 3)) * (y - f) ** 2 for y, f in zip(ys, floor, strict=True)]), symbols
    )
    starts = rng.normal(size=(3, size))
    ends = [
        solve_ivp(lambda _, w: -loss.grad(w), (0, 60), w, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
        for w in starts
    ]
    np.testing.assert_allclose(md.Manifold(loss).project(starts), ends, rtol=0, atol=3e-9)


@jit
def pushed(given, w, k, b):
    """A smooth field."""
    for i in range(w.shape[0]):
        b[i] = np.sin(k + i) / (1.0 + w[i] * w[i])
        for j in range(w.shape[0]):
            b[i] += given[0][i, j] * w[j]
    return 0


@jit
def passes(given, w, k):
    """Positive beyond a height, on one side; with the side 0 never."""
    return 0, given[1] * (w[0] - given[2]) if given[1] != 0.0 else -1.0


@pytest.mark.parametrize("seed", range(4))
def test_carry_meets_its_tolerance_and_its_event(seed):
    """A smooth field goes where scipy's DOP853 goes, to its tolerance, and stops where the event is."""
    rng = np.random.default_rng(seed)
    size = 1 + 3 * seed
    A, w0 = rng.normal(size=(size, size)) - 2 * np.eye(size), rng.normal(size=size)

    def field(w, k):
        return A @ w + np.sin(k + np.arange(size)) / (1 + w**2)

    def carried(w, sign, height, tolerance):
        end = w.copy()
        flow = pushed, passes, stays, (A, float(sign), float(height))
        code, k, _, stopped = carry(flow, end, 0.0, 3.0, 0.1, (tolerance, tolerance))
        assert code == 0
        return end, k, stopped

    def there(end):
        found = solve_ivp(lambda k, w: field(w, k), (0.0, end), w0, method="DOP853", rtol=1e-12, atol=1e-13)
        return found.y[:, -1]

    w, k, stopped = carried(w0, 0.0, 1.0, 1e-9)
    assert (k, stopped) == (3.0, 0)
    np.testing.assert_allclose(w, there(3.0), rtol=0, atol=1e-6)
    height = float(there(1.5)[0])
    side = np.sign(height - w0[0])
    w, k, stopped = carried(w0, side, height, 1e-10)
    assert stopped and k <= 1.5 + 1e-6 and abs(w[0] - height) < 1e-12
    np.testing.assert_allclose(w, there(k), rtol=0, atol=1e-6)
