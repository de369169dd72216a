"""Clocks and stops: schedules step by step against slow oracles, any first step, rates of zero; conditions."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import minidyn as md
from minidyn.kernels.random import seed_key
from minidyn.simulate.choose import make_engine
from minidyn.simulate.clock import Clock

x, y, k = sp.symbols("x y k")
LOSS = md.Loss(x**4 / 4 + x**2 / 2, [x])
FLAT = md.Loss(y**2 / 2, [x, y])
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
BITS = np.testing.assert_array_equal
SCHEDULES = {  # an expression in k, and the same in plain Python
    "1/k": (0.5 / (k + 3), lambda n: 0.5 / (n + 3)),
    "step": (sp.Piecewise((0.2, k <= 17), (0.02, True)), lambda n: 0.2 if n <= 17 else 0.02),
    "floor": (0.3 / (1 + sp.floor(k / 5)), lambda n: 0.3 / (1 + n // 5)),
    "ceiling": (0.3 / sp.ceiling(k / 4), lambda n: 0.3 / -(-n // 4)),
    "cycle": (0.01 + sp.Mod(k, 7) / 50, lambda n: 0.01 + n % 7 / 50),
    "warm-up": (sp.Min((k - 1) / 50, 0.15), lambda n: min((n - 1) / 50, 0.15)),
    "pause": (sp.Piecewise((0.1, k < 11), (0, k < 15), (0.05, True)), lambda n: (n < 11) * 0.1 + (n >= 15) * 0.05),
    "cosine": (0.1 * (1 + sp.cos(sp.pi * k / 60)), lambda n: 0.1 * (1 + np.cos(np.pi * n / 60))),
    "down": (sp.Max(0.2 - k / 200, 0), lambda n: max(0.2 - n / 200, 0)),
}


def schedule(name):
    return SCHEDULES[name][0]


def values(name, first, steps):
    """The schedule at the steps of a run."""
    return np.array([SCHEDULES[name][1](n) for n in range(first, first + steps)], dtype=float)


def slope(w):
    return w**3 + w


# By an oracle ----------

FIELDS = {
    "gradient": (md.GradientFlow, lambda w, lr: -lr * slope(w)),
    "symbolic": (lambda m: md.SymbolicFlow(m, drift=[-(x**3) - x]), lambda w, lr: -lr * slope(w)),
    "modified 1": (lambda m: md.ModifiedFlow(m, order=1), lambda w, lr: -lr * slope(w)),
    "modified 2": (md.ModifiedFlow, lambda w, lr: -lr * slope(w) - lr**2 / 2 * (3 * w**2 + 1) * slope(w)),
}


@settings(max_examples=24, deadline=None, derandomize=True)
@given(
    st.sampled_from(list(SCHEDULES)),
    st.sampled_from(list(FIELDS)),
    st.integers(1, 30),
    st.sampled_from(["auto", "tsit5", "radau", "scipy:RK45", "scipy:LSODA"]),
    st.sampled_from([1, 7, 40]),
)
def test_a_flow_has_the_numbers_of_the_step_that_it_is_in(name, kind, first, method, every):
    """Without noise a flow is scipy's solution, begun anew at every step with that step's rate."""
    make, field = FIELDS[kind]
    rates = values(name, first, 40)
    expected = [np.array([1.5])]
    for lr in rates:
        solved = solve_ivp(lambda _, w, lr=lr: field(w, lr), (0, 1), expected[-1], rtol=1e-11, atol=1e-13)
        expected.append(solved.y[:, -1])
    system = md.Map(LOSS, md.GD(schedule(name)))
    run = md.simulate(make(system), [1.5], 40, first_step=first, save_every=every, method=method)
    np.testing.assert_allclose(run.w[0, :, 0], np.array(expected)[run.steps, 0], rtol=2e-7)
    np.testing.assert_allclose(run.time, np.append(0.0, np.cumsum(rates))[run.steps], rtol=1e-13)
    BITS(run.time, md.simulate(system, [1.5], 40, first_step=first, save_every=every).time)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["1/k", "step", "warm-up"])
def test_a_rod_goes_on_by_the_step_behind_it(name, order):
    """Over step n of a run the rod flow has the rate of step n + 1; the run or the flow says where it begins."""
    first, rates = 4, values(name, 4, 31)

    def step(w, lr):  # the mid-point and half-difference of the next pair, less this one
        plus, minus = w[0] + w[1] - lr * slope(w[0] + w[1]), w[0] - w[1] - lr * slope(w[0] - w[1])
        return np.array([(plus + minus) / 2 - w[0], (minus - plus) / 2 - w[1]])

    def field(w, lr):
        g, h = step(w, lr), 1e-6
        bend = (step(w + h * g, lr) - step(w - h * g, lr)) / (2 * h)
        return g if order == 1 else g - bend / 2

    after = 0.8 - rates[0] * slope(0.8)
    w = np.array([(0.8 + after) / 2, (after - 0.8) / 2])
    for lr in rates[1:]:
        w = solve_ivp(lambda _, w, lr=lr: field(w, lr), (0, 1), w, rtol=1e-10, atol=1e-13).y[:, -1]
    system = md.Map(LOSS, md.GD(schedule(name)))
    for flow in (md.RodFlow(system, order=order), md.RodFlow(system, order=order, first_step=first)):
        run = md.simulate(flow, [0.8], 30, first_step=first)
        np.testing.assert_allclose(run.w[0, -1, 0], w[0], rtol=1e-6)
        assert run.time[-1] == pytest.approx(rates[:-1].sum())
    with pytest.raises(md.InputError, match="made for first_step = 9 and the run begins at 4"):
        md.simulate(md.RodFlow(system, first_step=9), [0.8], 30, first_step=first)


def test_the_subquadratic_flow_reads_no_rate_between_steps():
    """Below the edge it is the map's own drift with the rate of the step behind, constant while a step lasts."""
    rates = values("step", 5, 31)
    w = 0.4 - rates[0] * slope(0.4) / 2
    for lr in rates[1:]:
        w = solve_ivp(lambda _, w, lr=lr: -lr * slope(w), (0, 1), [w], rtol=1e-11, atol=1e-13).y[0, -1]
    flow = md.SubquadraticFlow(md.Map(LOSS, md.GD(schedule("step"))))
    assert md.simulate(flow, [0.4], 30, first_step=5).w[0, -1, 0] == pytest.approx(w, rel=1e-7)


def normals(steps, paths, first=1):
    """The normals (steps, paths) along x of every run of two parameters with seed 1: a map that only adds them."""
    run = md.simulate(md.Map(FLAT, md.GD(1.0), md.GaussianNoise(1.0)), [0.0, 0.0], steps, paths=paths, save_every=1,
                      rng=1, first_step=first)  # fmt: skip
    return -np.diff(run.w[:, :, 0], axis=1).T


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(list(SCHEDULES)), st.integers(1, 20), st.sampled_from([1, 5, 70]))
def test_noise_has_the_rate_of_its_step(name, first, paths):
    """With a scheme step per step of the map the quasistatic flow is a literal Euler-Maruyama loop on its normals."""
    rates, z = values(name, first, 60), normals(60, paths, first)
    w = np.full(paths, 1.0)
    for lr, noise in zip(rates, z, strict=True):
        h, dh = 1 + w**2, 2 * w
        w = w - lr**2 * 0.09 / 2 * dh / (h * (2 - lr * h)) - lr * 0.3 * noise
    system = md.Map(VALLEY, md.SGD(schedule(name)), md.GaussianNoise(0.3))
    run = md.simulate(
        md.QuasistaticFlow(system), [1.0, 0.0], 60, paths=paths, first_step=first, substeps=1, rng=1, save_every=13
    )
    assert run.finished.all()
    np.testing.assert_allclose(run.w[:, -1, 0], w, rtol=1e-9)


@pytest.mark.parametrize("name", ["1/k", "step", "pause", "floor"])
@pytest.mark.parametrize("substeps", [None, 4, 0.25, "adaptive"])
def test_no_scheme_step_crosses_a_change_of_rate(name, substeps):
    """Where the noise alone moves a flow, steps of any length give the sum of the steps' own increments; rare and
    frequent saves are the same bits."""
    rates, z = values(name, 3, 800), normals(800, 5, 3)
    system = md.Map(FLAT, md.SGD(schedule(name)), md.GaussianNoise(0.3))
    options = {"paths": 5, "rng": 1, "first_step": 3, "substeps": substeps}
    flow, scale = md.QuasistaticFlow(system), 0.3 * rates
    if substeps == "adaptive":  # whose schemes are for other noises: the same equation written by hand
        flow, scale = md.SymbolicFlow(system, drift=[0, -y], diffusion=[[0.3, 0], [0, 0.2]]), 0.3 * np.sqrt(rates)
        options["method"] = "milstein"
    run = md.simulate(flow, [1.0, 0.0], 800, save_every=37, **options)
    BITS(run.w[:, -1], md.simulate(flow, [1.0, 0.0], 800, save_every=400, **options).w[:, -1])
    if substeps == "adaptive":
        fixed = md.simulate(flow, [1.0, 0.0], 800, save_every=37, **(options | {"substeps": 1}))
        np.testing.assert_allclose(run.w[:, :, 0], fixed.w[:, :, 0], rtol=1e-11, atol=1e-11)
        return
    sums = 1.0 - np.concatenate([np.zeros((1, 5)), np.cumsum(scale[:, None] * z, axis=0)])
    np.testing.assert_allclose(run.w[:, :, 0].T, sums[run.steps], rtol=1e-11, atol=1e-11)


# Laws ----------


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_run_in_two_parts(name):
    """n steps and then m are n + m, with first_step = n + 1: a map to the last bit, flows without noise nearly so."""
    system = md.Map(LOSS, md.GD(schedule(name)))
    for one in (system, md.GradientFlow(system), md.ModifiedFlow(system)):
        whole = md.simulate(one, [1.2], 50, save_every=50)
        half = md.simulate(one, [1.2], 23, save_every=23)
        rest = md.simulate(one, half.w[0, -1], 27, save_every=27, first_step=24)
        np.testing.assert_allclose(rest.w[0, -1], whole.w[0, -1], rtol=0 if one is system else 1e-8)
        assert half.time[-1] + rest.time[-1] == pytest.approx(whole.time[-1], rel=1e-13)


@pytest.mark.parametrize("make", [md.GradientFlow, md.ModifiedFlow, md.RodFlow, md.QuasistaticFlow])
@pytest.mark.parametrize("name", ["1/k", "pause"])
def test_the_way_does_not_depend_on_chunks(name, make):
    """Any division into slices, and an engine that goes on from another one's state, are the same bits."""
    noise = md.GaussianNoise(0.3) if make is md.QuasistaticFlow else None
    flow = make(md.Map(VALLEY, md.SGD(schedule(name)), noise)).beginning(4)
    start = flow.start(np.array([[1.0, 0.0 if noise else 0.4], [0.3, 0.0], [1.0, 0.0]]))
    key = seed_key(3)[1]

    def made():
        return make_engine(flow, start, 60, key, substeps=4 if noise else None, first_step=4)

    whole, parts, other = made(), made(), made()
    whole.advance(0, 60)
    for done, count in ((0, 1), (1, 9), (10, 3), (13, 20)):
        parts.advance(done, count)
    other.restore({name: a.copy() for name, a in parts.state().items()})
    other.advance(33, 27)
    BITS(other.parameters(), whole.parameters())


def test_constant_schedules_are_numbers():
    """A schedule that never changes gives the bits of its number; so does a momentum that never changes."""
    plain, other = md.SGD(0.1, momentum=0.5), md.SGD(0.1 + 0 * sp.floor(k / 10**9), momentum=sp.Min(0.5, k))
    for make in (md.GradientFlow, md.ModifiedFlow, md.RodFlow):
        if make is md.ModifiedFlow:
            other = md.SGD(sp.Min(0.1, k), momentum=0.5)
        runs = [md.simulate(make(md.Map(VALLEY, rule)), [1.0, 0.4], 30) for rule in (plain, other)]
        BITS(runs[0].w, runs[1].w)


def test_the_step_number_in_a_rule_is_whole():
    """`k` in a rule's own formula is the number of the step, for its map and for its flows."""

    @md.rule
    def fading(theta, g, *, lr, k):
        return theta - lr * g / k

    numbers = 0.5 / np.arange(3, 33)
    flow = md.ModifiedFlow(md.Map(md.Loss(x**2 / 2, [x]), fading(0.5)), order=1)
    run = md.simulate(flow, [1.0], 30, first_step=3)
    assert run.w[0, -1, 0] == pytest.approx(np.exp(-numbers.sum()), rel=1e-8)
    assert run.time[-1] == pytest.approx(15.0)


def test_floor_ceiling_and_mod_are_functions_of_a_loss_too():
    """They have kernels, and slopes of zero (Mod: of one)."""
    w = np.array([-2.75, -0.5, 0.25, 3.5])
    for e, value, slopes in (
        (sp.floor(x), np.floor(w), 0),
        (sp.ceiling(x), np.ceil(w), 0),
        (sp.Mod(x, 2), np.mod(w, 2), 1),
    ):
        loss = md.Loss(e + x**2, [x])
        np.testing.assert_allclose(loss.value(w[:, None]), value + w**2, rtol=1e-15)
        np.testing.assert_allclose(loss.grad(w[:, None])[:, 0], slopes + 2 * w, rtol=1e-15)


# Refusals ----------


@pytest.mark.parametrize(
    ("rule", "first", "words"),
    [
        (md.GD(1 / (k - 5)), 1, "the schedule lr = 1/(k - 5) is -0.25 at step 1; it must be positive or zero at every"),
        (md.GD(0.1 / (k - 5) ** 2), 2, "is nan at step 5; it must be finite at every step that is run"),
        (md.GD(0.1 - k / 100), 3, "is -0.01 at step 11"),
        (md.SGD(0.1, momentum=k / 10), 1, "the schedule momentum = k/10 is 1 at step 10; it must lie in [0, 1)"),
    ],
)
def test_schedules_that_do_not_exist(rule, first, words):
    """A rate that is negative or has a pole in the steps that are run is one sentence, for maps and flows; elsewhere it
    is no matter."""
    system = md.Map(LOSS, rule)
    for one in (system, md.GradientFlow(system)):
        with pytest.raises(md.InputError, match=words.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[")):
            md.simulate(one, [1.0], 20, first_step=first)
    if first == 1 and "lr" in words:
        assert md.simulate(md.GradientFlow(system), [0.1], 5, first_step=6).finished.all()


def test_a_rate_of_zero_has_no_drift_per_time():
    """At a step of rate zero drift says so; a description takes the first step that moves."""
    flow = md.GradientFlow(md.Map(LOSS, md.GD((k - 1) / 10)))
    with pytest.raises(md.InputError, match=r"the learning rate is zero at step 1: .* as k=2"):
        flow.drift([1.0])
    assert flow.drift([1.0], k=2)[0] == pytest.approx(-2.0) and "at theta = [1] it is 0.2" in flow._describe(
        False, [1.0]
    )


# Stops ----------

CIRCLE = md.SymbolicFlow(md.Map(md.Loss(x**2 + y**2, [x, y]), md.GD(0.1)), drift=[-y, x])


@pytest.mark.parametrize(
    ("stop", "angle"),
    [
        (x > 2, None), (x > 0.5, 0.0), (x < 0.5, np.pi / 3), ((x < 0.5) & (y < 0), np.pi),
        ((x < 0.5) | (y > 0.1), np.arcsin(0.1)), (~(x > 0.5), np.pi / 3), (y > 1 - 1e-9, np.arcsin(1 - 1e-9)),
        (y - (1 - 1e-9), np.arcsin(1 - 1e-9)), (lambda w: w[:, 0] < 0.5, np.pi / 3), (sp.Eq(x, 0), np.pi / 2),
        (sp.Ne(y, 0), 0.0), (x, np.pi / 2), (x - 1, 0.0), (x >= 1, 0.0), ({"norm": 1.0}, 0.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("every", [3, 40])
def test_a_condition_stops_where_it_is_or_becomes_true(stop, angle, every):
    """On a circle, turned by 0.1 a step: at the start where it holds there, else at the angle where it begins to, even
    if it is left again within a solver's step."""
    run = md.simulate(CIRCLE, [1.0, 0.0], 40, save_every=every, stop=stop)
    if angle is None:
        assert run.finished.all() and "stopped_at" not in run.meta
        return
    assert run.status[0] == md.Status.STOPPED and run.ended[0] == np.ceil(angle / 0.1)
    atol = 2e-4 if "1e-9" in str(stop) else 1e-5
    np.testing.assert_allclose(run.meta["stopped_at"], [angle / 0.1], rtol=0, atol=atol)
    kept = run.steps < angle / 0.1 if angle else run.steps == 0
    BITS(np.isfinite(run.w[0, :, 0]), kept)


@pytest.mark.parametrize("make", [lambda m: m, md.GradientFlow, md.StochasticModifiedFlow])
def test_paths_stop_each_by_itself(make):
    """Paths that begin in the condition end at step 0 with their start shown, others when they reach it; to the right
    step, whatever happens to them later."""
    noise = md.GaussianNoise(0.01) if make is md.StochasticModifiedFlow else None
    one = make(md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), noise))
    run = md.simulate(one, [[3.0], [1.0], [2.0]], 50, paths=3, save_every=1, stop=x < 1.5, rng=0)
    free = md.simulate(one, [[3.0], [1.0], [2.0]], 50, paths=3, save_every=1, rng=0)
    BITS(run.ended, (free.w[:, :, 0] < 1.5).argmax(axis=1))
    assert (run.status == md.Status.STOPPED).all() and run.ended[1] == 0
    BITS(np.isfinite(run.w[:, :, 0]).sum(axis=1), np.maximum(run.ended, 1))


def test_what_happens_after_a_stop_is_not_seen():
    """A map that diverges long after its condition was met is stopped, at the step where it was met."""
    run = md.simulate(md.Map(md.Loss(x**2 / 2, [x]), md.GD(3.0)), [1.0], 2000, save_every=1, stop=x > 5)
    assert run.status[0] == md.Status.STOPPED and run.ended[0] == 4


@pytest.mark.parametrize("make", [md.GradientFlow, md.ModifiedFlow])
def test_stops_on_the_clock_of_a_schedule(make):
    """`stopped_at` counts in steps whatever the rates: there a run that is saved at every step is at the level."""
    flow = make(md.Map(md.Loss(x**2 / 2, [x]), md.GD(schedule("1/k"))))
    at = md.simulate(flow, [1.0], 60, first_step=7, stop=x < 0.5).meta["stopped_at"][0]
    whole = md.simulate(flow, [1.0], 60, first_step=7, save_every=1).w[0, :, 0]
    n = int(at)
    between = whole[n] * (whole[n + 1] / whole[n]) ** (at - n)
    assert between == pytest.approx(0.5, rel=1e-8)


@pytest.mark.parametrize("stop", [True, sp.true, []])
def test_conditions_that_are_none(stop):
    """What is true everywhere, or no condition at all, is refused in a sentence."""
    with pytest.raises(md.InputError, match="use 'edge'"):
        md.simulate(md.GradientFlow(md.Map(LOSS, md.GD(0.1))), [1.0], 5, stop=stop)


def test_stopped_runs_resume(tmp_path):
    """With a checkpoint, a finished run with a stop and a first step comes back as it was; another one is refused."""
    flow = md.ModifiedFlow(md.Map(LOSS, md.GD(schedule("1/k"))))
    options = {"stop": x < 0.3, "first_step": 5, "checkpoint": tmp_path / "run", "rng": 0}
    first = md.simulate(flow, [1.0], 40, **options)
    assert md.simulate(flow, [1.0], 40, **options).digest() == first.digest()
    for other in ({"first_step": 6}, {"stop": x < 0.2}):
        with pytest.raises(md.InputError, match="belongs to another run"):
            md.simulate(flow, [1.0], 40, **(options | other))


SLOW = {
    "1/k": 10 / (k + 100),
    "cosine": 0.05 + 0.04 * sp.cos(k / 300),
    "steps": sp.Rational(1, 20) / (1 + sp.floor(k / 7)),
}


@pytest.mark.parametrize("name", SLOW)
def test_steps_of_nearly_the_same_rate_are_made_together_with_the_exact_sums(name):
    """Noise alone, theta' = theta - eta_k xi: a flow whose steps are joined ends every path where the map does."""
    system = md.Map(FLAT, md.SGD(SLOW[name]), md.GaussianNoise([0.3, 0.1]))
    flow = md.QuasistaticFlow(system)
    found, exact = (md.simulate(s, [1.0, 0.0], steps=4001, paths=70, rng=1, save_every=997) for s in (flow, system))
    assert np.allclose(found.w[..., 0], exact.w[..., 0], rtol=0, atol=1e-12)
    clock = Clock(flow, 4001, True, 32)
    assert 4001 <= clock.ends[-1] <= 4033 and len(clock.ends) < 2200 and np.diff(clock.ends, prepend=0).max() <= 32


def test_joined_steps_give_the_drift_of_single_ones():
    """On (1 + x^2) y^2/2 under 10/(k + 100) joined and single steps end within the scheme's own error of each other."""
    flow = md.QuasistaticFlow(md.Map(VALLEY, md.SGD(SLOW["1/k"]), md.GaussianNoise(0.5)))
    found, single = (md.simulate(flow, [1.0, 0.0], steps=5000, paths=70, rng=1, substeps=s) for s in (32, 1))
    assert np.abs(found.w[:, -1] - single.w[:, -1]).max() < 2e-3
    assert np.abs(single.w[:, -1, 0] - 1).mean() > 0.05


def test_saves_change_nothing_in_joined_steps():
    """The chain of steps does not know where it is looked at."""
    flow = md.QuasistaticFlow(md.Map(VALLEY, md.SGD(SLOW["1/k"]), md.GaussianNoise(0.5)))
    often, once = (md.simulate(flow, [1.0, 0.0], steps=3000, paths=5, rng=1, save_every=s) for s in (7, 3000))
    assert (often.w[:, -1] == once.w[:, -1]).all()
