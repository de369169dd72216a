"""Paths of flows with noise side by side: against the same equations one by one, with generic fields."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.common.status import Status
from minidyn.simulate.choose import make_engine
from minidyn.simulate.sdes import SdeEngine

x, y = sp.symbols("x y")
VALLEY = md.Loss((1 + x**2) * y**2 / 2 + sp.log(1 + x**2) / 3, [x, y])
LINE = md.Loss(sp.log(1 + x**2) / 2, [x])
NOISES = {
    "numbers": [0.3, 0.2],
    "functions": [0.3, sp.sqrt(0.02 + x**2 / 20)],
    "matrix": [[0.2, 0.1, 0.0], [0.0, x, 0.3]],
}
RULES = {
    "SGD": md.SGD(0.1),
    "heavy ball": md.SGD(0.05, 0.7),
    "Nesterov": md.SGD(0.05, 0.7, nesterov=True),
    "RMSProp": md.RMSProp(0.02, beta2=0.97, eps=0.1),
    "Adam": md.Adam(0.02, beta1=0.8, beta2=0.95, eps=0.1),
}
GBM = md.Map(md.Loss(x**2 / 2 + y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.1))
WRITTEN = {
    "euler-maruyama": md.SymbolicFlow(GBM, [-x + y, -sp.sin(y)], [[0.2 * x, 0.1, 0], [y / 5, 0.3, x]]),
    "milstein": md.SymbolicFlow(GBM, [-x + y, -sp.sin(y)], [0.4 * x, 0.3 * y]),
    "diagonal": md.SymbolicFlow(GBM, [-x + y, -sp.sin(y)], [0.4 * x, 0.3 * y]),
    "heun": md.SymbolicFlow(GBM, [-x + y, -sp.sin(y)], [0.4 * x, 0.3 * y], reading="stratonovich"),
    "sra1": md.SymbolicFlow(GBM, [-x + y, -sp.sin(y)], [[0.4, 0.1], [0.1, 0.3]]),
    "weak2": md.SymbolicFlow(GBM, [-x + y, -sp.sin(y)], [[0.2 * x, 0.1], [y / 5, 0.3 * x]]),
}


def engine(flow, paths, method, substeps, monkeypatch=None, start=0.3) -> SdeEngine:
    """The engine of so many paths from (1, 1/2); with `monkeypatch`, by function pointers."""
    if monkeypatch is not None:
        monkeypatch.setattr(type(flow), "inlined", None)
    first = np.array([1.0, 0.5])[: flow.dim]
    if flow.map.rule.name == "RMSProp":  # an accumulator that starts at zero may become negative
        first = np.concatenate([first, np.full(flow.dim, start)])
    w0 = np.repeat(flow.start(first)[None], paths, axis=0)
    key = np.array([5, 6], np.uint64)
    return make_engine(flow, w0, 1000, key, method=method, substeps=substeps)


def carried(e: SdeEngine, saves) -> np.ndarray:
    """States at the saves: (saves, paths, D)."""
    out, done = [], 0
    for k in saves:
        e.advance(done, k - done)
        done = k
        out.append(e.parameters())
    return np.array(out)


@pytest.mark.parametrize("substeps", [1, 4, 0.25])
@pytest.mark.parametrize("method", WRITTEN)
def test_paths_side_by_side_are_those_one_by_one(method, substeps, monkeypatch):
    """Every scheme in lanes: 70 paths to 1e-12 of the same scheme with its field behind a pointer, at saves inside
    steps too; and path 1 of two to the last bit."""
    saves, flow = (1, 3, 7, 40), WRITTEN[method]
    assert flow.inlined is not None
    lanes = carried(engine(flow, 70, method, substeps), saves)
    two = carried(engine(flow, 2, method, substeps), saves)
    assert np.array_equal(two[:, 1], lanes[:, 1])
    pointers = carried(engine(flow, 70, method, substeps, monkeypatch), saves)
    assert np.ptp(lanes[-1], axis=0).min() > 0.01
    assert np.allclose(lanes, pointers, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rule", RULES)
def test_written_equations_are_the_generic_ones(rule, noise, order, monkeypatch):
    """Stochastic modified equations written out: 66 paths of 30 steps to 1e-11 of the generic field."""
    flow = md.StochasticModifiedFlow(md.Map(VALLEY, RULES[rule], md.GaussianNoise(NOISES[noise])), order)
    if noise == "matrix" and flow.squares:
        assert flow.inlined is None
        return
    assert flow.inlined is not None
    lanes = carried(engine(flow, 66, "euler-maruyama", 1), (1, 10, 30))
    generic = carried(engine(flow, 66, "euler-maruyama", 1, monkeypatch), (1, 10, 30))
    assert np.ptp(lanes[-1], axis=0).min() > 1e-3
    assert np.allclose(lanes, generic, rtol=1e-11, atol=1e-12)


def charted(name: str, **changes) -> md.QuasistaticFlow:
    """The closed form of a model of the library, with another learning rate or noise."""
    model = md.load_model(name)
    system = md.Map(model.loss, changes.get("rule", model.map.rule), changes.get("noise", model.map.noise))
    return md.QuasistaticFlow(system, model.manifold).closed_form()


CHARTED = {
    "valley": {},
    "ellipse": {"rule": md.SGD(0.02, 0.8), "noise": md.GaussianNoise([0.3, 0.2])},
    "product": {"rule": md.SGD(0.02)},
    "logcosh_valley": {"rule": md.SGD(0.01), "noise": md.GaussianNoise(0.2)},
}


@pytest.mark.parametrize("name", CHARTED)
def test_closed_forms_side_by_side_are_those_one_by_one(name, monkeypatch):
    """Closed forms written out: 66 starts to 1e-10 of the generic field, with noise along the minima and without, and
    one start to the last bit."""
    flow = charted(name, **CHARTED[name])
    assert flow.inlined is not None
    model = md.load_model(name)
    starts = flow.start(md.Manifold(model.loss).project(np.asarray(model.spec.experiment.w0, float)))
    starts = starts + np.linspace(0.0, 0.05, 66)[:, None] * np.eye(flow.size)[flow.dim]
    starts[:, : flow.dim] = flow.chart.point(starts[:, flow.dim :])

    def run(count):
        made = make_engine(flow, starts[:count], 400, np.array([5, 6], np.uint64))
        return carried(made, (10, 400))

    lanes, one = run(66), run(1)
    assert np.array_equal(one[:, 0], lanes[:, 0])
    monkeypatch.setattr(type(flow), "inlined", None)
    generic = run(66)
    assert np.ptp(lanes[-1], axis=0).max() > 1e-2 and np.isfinite(lanes).all()
    assert np.allclose(lanes, generic, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", [md.SGD(0.1), md.SGD(0.1, 0.8)])
def test_a_closed_form_ends_where_the_map_leaves_the_minima(rule, monkeypatch):
    """Where the sharpness along the valley passes the rule's threshold, paths end at the same steps and for the same
    reason in lanes as one by one, and the others go on."""
    flow = charted("valley", rule=rule, noise=md.GaussianNoise(1.0))
    edge = np.sqrt(2 * (1 + rule.hyper.get("momentum", 0.0)) / 0.1 - 1)
    starts = flow.start(np.array([[x, 0.0] for x in np.linspace(0.9, 0.999, 70) * edge]))

    def run():
        e = make_engine(flow, starts, 40, np.array([5, 6], np.uint64), substeps=1)
        return carried(e, (40,)), e.ending(40)

    a, (status, ended) = run()
    monkeypatch.setattr(type(flow), "inlined", None)
    b, (other, last) = run()
    assert 0 < (status == 5).sum() < 70 and set(status) == {0, 5}
    assert np.array_equal(status, other) and np.array_equal(ended, last)
    assert np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_path_that_ends_ends_at_the_same_step_in_a_lane(monkeypatch):
    """`dx = x^3 dt + x dW` explodes: statuses and last steps are those of the loop over pointers; neighbours go on."""
    flow = md.SymbolicFlow(md.Map(LINE, md.SGD(0.1), md.GaussianNoise(0.1)), [x**3 - 2 * x], [x])
    lanes = engine(flow, 130, "euler-maruyama", 2)
    pointers = engine(flow, 130, "euler-maruyama", 2, monkeypatch)
    a, b = carried(lanes, (15, 150)), carried(pointers, (15, 150))
    (status, ended), (other, last) = lanes.ending(150), pointers.ending(150)
    diverged = status == Status.DIVERGED
    assert 5 < diverged.sum() < 125
    assert np.array_equal(status, other) and np.array_equal(ended, last)
    assert np.isnan(a[-1, diverged]).all() and np.isfinite(a[-1, ~diverged]).all()
    assert np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_rule_that_is_not_smooth_ends_a_path_with_its_own_reason(monkeypatch):
    """RMSProp with a noise that drives its accumulator below zero: the same statuses, and not all of them zero."""
    system = md.Map(VALLEY, md.RMSProp(0.05, beta2=0.5), md.GaussianNoise(0.5))
    lanes = engine(md.StochasticModifiedFlow(system), 70, "euler-maruyama", 1, start=0.0)
    pointers = engine(md.StochasticModifiedFlow(system), 70, "euler-maruyama", 1, monkeypatch, start=0.0)
    a, b = carried(lanes, (40,)), carried(pointers, (40,))
    assert np.array_equal(lanes.ending(40)[0], pointers.ending(40)[0])
    assert np.array_equal(lanes.ending(40)[1], pointers.ending(40)[1])
    assert {6} == set(lanes.ending(40)[0]) - {0}
    assert np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_one_normal_a_step_drives_map_and_equation_alike():
    """In one dimension too the equation of order 1 of SGD at whole steps is SGD itself, from any first save."""
    system = md.Map(LINE, md.SGD(0.1), md.GaussianNoise(0.3))
    ours = md.simulate(system, [1.0], 41, paths=70, save_every=3, rng=3).w
    flow = md.simulate(md.StochasticModifiedFlow(system), [1.0], 41, paths=70, save_every=7, rng=3, substeps=1).w
    assert np.allclose(ours[:, -1], flow[:, -1], rtol=1e-12, atol=1e-14)


def test_a_scheme_that_fails_beside_its_way_ends_the_path_wherever_the_run_is_saved():
    """`weak2` looks at the drift at points beside its way, and a path ends where the map has left the minima there,
    though the step itself is finite: the same paths end, whatever the saves and the neighbours."""
    flow = charted("valley", rule=md.SGD(0.1), noise=md.GaussianNoise(1.0))
    edge = np.sqrt(2 / 0.1 - 1)
    starts = np.array([[0.96 * edge, 0.0]] * 8)
    rare = md.simulate(flow, starts, 40, paths=8, save_every=40, rng=1, method="weak2", substeps=1)
    often = md.simulate(flow, starts, 40, paths=8, save_every=1, rng=1, method="weak2", substeps=1)
    one = md.simulate(flow, starts[:1], 40, paths=1, save_every=40, rng=1, method="weak2", substeps=1)
    assert {0, 5} == set(rare.status) and one.status[0] == rare.status[0]
    assert np.array_equal(rare.status, often.status) and np.array_equal(rare.ended, often.ended)
    assert np.array_equal(rare.w[:, -1], often.w[:, -1], equal_nan=True)


@pytest.mark.parametrize("substeps", [1, 0.25, 2])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_map_and_equation_share_their_noise_from_any_first_step(first, substeps):
    """One normal a step, from steps with even numbers too: `compare` finds the same noise for both."""
    system = md.Map(LINE, md.SGD(0.1), md.GaussianNoise(0.3))
    flow = md.StochasticModifiedFlow(system)
    runs = md.compare(system, flow, w0=[1.0], steps=41, paths=70, rng=3, first_step=first, substeps=substeps).runs
    ours, other = (run.w[:, -1, 0] for run in runs.values())
    assert np.corrcoef(ours, other)[0, 1] > 0.99
    assert substeps != 1 or np.allclose(ours, other, rtol=1e-12, atol=1e-14)
