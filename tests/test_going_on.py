"""A run that goes on where another one ended is one long run, to the last bit, for all kinds of systems, from files."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import minidyn as md

x, y, a, b, u, c = sp.symbols("x y a b u c")
k = sp.Symbol("k")
VALLEY = md.Loss((1 + c * x**2) * y**2 / 2, [x, y], constants={c: 1.0})
LINE = md.Loss(x**2 / 2, [x])
DATA = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 7)}, np.linspace(0, 1, 7))
NOISE = md.GaussianNoise(0.3)
SGD = md.Map(VALLEY, md.SGD(0.1), NOISE)
GD = md.Map(md.Loss((2 + x / 10) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.9))  # slow along the edge of stability
WARM = sp.Piecewise((0.01 * k, k < 30), (0.3, k < 117), (0.05, True))
SLOW = 10 / (k + 100)


def map_of(loss, rule, noise=None):
    return lambda: md.Map(loss, rule, noise)


SYSTEMS = {
    "gd": map_of(VALLEY, md.GD(0.3)),
    "momentum": map_of(VALLEY, md.SGD(0.1, momentum=0.7), NOISE),
    "odd normals": map_of(LINE, md.SGD(0.1), NOISE),
    "minibatch": map_of(DATA, md.Adam(0.02), md.Minibatch(3)),
    "labels": map_of(DATA, md.Lion(0.01), md.LabelNoise(0.2, batch=2)),
    "reshuffle": map_of(DATA, md.RMSProp(0.01), md.Reshuffle(2)),
    "schedule": map_of(VALLEY, md.SGD(SLOW, momentum=0.5), NOISE),
    "gradient": lambda: md.GradientFlow(SGD),
    "warming": lambda: md.GradientFlow(md.Map(VALLEY, md.GD(WARM))),
    "rising": lambda: md.GradientFlow(md.Map(VALLEY, md.GD(0.002 * k))),
    "decaying modified": lambda: md.ModifiedFlow(md.Map(VALLEY, md.GD(WARM)), order=2),
    "modified momentum": lambda: md.ModifiedFlow(md.Map(VALLEY, md.SGD(0.1, momentum=0.5)), order=2),
    "sde": lambda: md.QuasistaticFlow(SGD),
    "joined sde": lambda: md.QuasistaticFlow(md.Map(VALLEY, md.SGD(SLOW), NOISE)),
    "stretched sde": lambda: md.QuasistaticFlow(md.Map(VALLEY, md.SGD(WARM), NOISE)),
    "modified sde": lambda: md.StochasticModifiedFlow(md.Map(LINE, md.SGD(0.1), NOISE)),
    "additive": lambda: md.SymbolicFlow(SGD, [-x * y**2, -(1 + x**2) * y], [0.1, 0.2]),
    "noisy rod": lambda: md.NoisyRodFlow(md.Map(GD.loss, GD.rule, md.GaussianNoise(0.05))),
    "rod": lambda: md.RodFlow(GD),
    "central": lambda: md.CentralFlow(GD),
    "subquadratic": lambda: md.SubquadraticFlow(GD),
}
OPTIONS = {
    "sde": {"substeps": 8}, "joined sde": {"substeps": 32}, "stretched sde": {"substeps": 16},
    "additive": {"substeps": "adaptive"}, "modified sde": {"substeps": 0.25},
}  # fmt: skip
METHODS = {"radau": ("gradient", "radau"), "tsit5": ("decaying modified", "tsit5")}
CASES = {name: (name, OPTIONS.get(name, {})) for name in SYSTEMS}
CASES |= {name: (system, {"method": method}) for name, (system, method) in METHODS.items()}


def starts_of(system, paths, seed):
    """Random starts for the paths."""
    rng = np.random.default_rng(seed)
    owner = system if isinstance(system, md.Map) else system.map
    middle, spread = np.array([2.0, 0.3][: owner.dim]), np.array([0.05, 0.05][: owner.dim])
    if owner.loss == GD.loss:
        middle = np.array([4.0, 0.5])
    if isinstance(system, md.QuasistaticFlow):  # which lives on y = 0
        middle[1] = spread[1] = 0.0
    return middle + spread * rng.standard_normal((paths, owner.dim))


def parts(run, steps):
    """Everything that a run says at some of its saves."""
    at = np.isin(run.steps, steps)
    out = {"time": run.time[at], "status": run.status, "ended": run.ended}
    out |= {} if run.w is None else {"w": run.w[:, at]}
    out |= {name: values[:, at] for name, values in run.observables.items()}
    out |= {f"{s} of {n}": v[..., at] for n, stats in run.moments.items() for s, v in stats.items()}
    return out


def same_second_part(long, short, on):
    """The second run goes on from the first one to the bits of the long one."""
    assert on.steps[0] == short.steps[-1]
    later = long.steps[long.steps > on.steps[0]]
    np.testing.assert_array_equal(on.steps[1:], later)
    ours, theirs = parts(on, later), parts(long, later)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
    np.testing.assert_array_equal(on.state, long.state)
    first, last = parts(on, on.steps[:1]), parts(short, on.steps[:1])
    for name in first.keys() - {"status", "ended"}:
        np.testing.assert_array_equal(first[name], last[name], err_msg=name)


def through(run, folder, turn):
    """The run as it is, as another process gets it, or as a file has it."""
    if turn == 0:
        return run
    if turn == 1:
        return pickle.loads(pickle.dumps(run))
    run.save(folder / "run.h5")
    return md.load(folder / "run.h5")


@pytest.mark.parametrize("name", CASES)
def test_going_on_is_never_having_stopped(name, tmp_path):
    """Whatever the system, where it was stopped, how often it is saved, the threads, and the way that the run took."""
    kind, options = CASES[name]
    system = SYSTEMS[kind]()
    rng = np.random.default_rng([ord(letter) for letter in name])
    for turn in range(3):
        every, at = int(rng.integers(1, 30)), int(rng.integers(40, 110))
        start, threads = starts_of(system, 3 if turn else 70, turn), int(rng.integers(1, 3))
        given = {"observe": "loss", "threads": threads}
        own = {"paths": len(start), "save_every": every, "rng": turn, **options}
        long = md.simulate(system, start, 150, **own, **given)
        short = through(md.simulate(system, start, at, **own, **given), tmp_path, turn)
        before = short.digest()
        on = md.simulate(system, continue_from=short, steps=150 - at, **(given | {"threads": 3 - threads}))
        same_second_part(long, short, on)
        assert short.digest() == before  # and can be gone on from again
        again = md.simulate(SYSTEMS[kind](), continue_from=short, steps=150 - at, **given)
        assert again.digest() == on.digest()


def test_many_short_runs_are_a_long_one(tmp_path):
    """Twelve times twelve steps and a half dozen are 150, in maps, flows with noise and flows that carry themselves."""
    for name in ("odd normals", "reshuffle", "joined sde", "decaying modified", "subquadratic"):
        system, options = SYSTEMS[name](), OPTIONS.get(name, {})
        start = starts_of(system, 5, 7)
        own = {"paths": 5, "save_every": 5, "rng": 3, **options}
        long, run = md.simulate(system, start, 150, **own), md.simulate(system, start, 6, **own)
        w = [run.w]
        for turn in range(12):
            run = md.simulate(system, continue_from=through(run, tmp_path, turn % 3), steps=12)
            w.append(run.w[:, 1:])
        steps = np.isin(long.steps, range(0, 150, 5))
        joined = np.concatenate(w, axis=1)
        kept = [s for s in range(1, 151) if s % 5 == 0 or s % 12 == 6]
        here = np.isin([0, *kept], long.steps[steps])
        np.testing.assert_array_equal(joined[:, here], long.w[:, steps], err_msg=name)


def test_moments_go_on():
    """With keep="moments" the run knows its paths all the same, and keeps moments on unless it is told otherwise."""
    system, given = SYSTEMS["momentum"](), {"observe": ["loss", x * y]}
    own = {"paths": 300, "save_every": 10, "rng": 3, "keep": "moments"}
    long, short = (md.simulate(system, [2.0, 0.3], steps, **own, **given) for steps in (80, 50))
    same_second_part(long, short, md.simulate(system, continue_from=short, steps=30, **given))
    paths = md.simulate(system, [2.0, 0.3], 80, **(own | {"keep": "paths"}))
    on = md.simulate(system, continue_from=short, steps=30, keep="paths")
    np.testing.assert_array_equal(on.w[:, -1], paths.w[:, -1])
    np.testing.assert_array_equal(on.state[:, :2], paths.w[:, -1])


_CHILD = """
import sys
import minidyn as md
from test_going_on import SYSTEMS, OPTIONS
for name in sys.argv[2:]:
    run = md.load(f"{sys.argv[1]}/{name}.h5")
    md.simulate(SYSTEMS[name](), continue_from=run, steps=27, observe="loss").save(f"{sys.argv[1]}/{name}.h5")
"""


def test_another_process_goes_on_from_a_file(tmp_path):
    """What a file says of a system is the same in another process, which goes on exactly; nothing there is a fork."""
    names = ["labels", "gradient", "noisy rod", "rod", "sde"]
    long = {}
    for name in names:
        system, own = (
            SYSTEMS[name](),
            {"paths": 3, "save_every": 10, "rng": 1, "observe": "loss"} | OPTIONS.get(name, {}),
        )
        start = starts_of(system, 3, 5)
        long[name] = md.simulate(system, start, 70, **own), md.simulate(system, start, 43, **own)
        long[name][1].save(tmp_path / f"{name}.h5")
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    subprocess.run([sys.executable, "-c", _CHILD, tmp_path, *names], check=True, env=environment, timeout=300)
    for name in names:
        on = md.load(tmp_path / f"{name}.h5")
        same_second_part(*long[name], on)
        assert on.ending.facts["origin"] == [0, 0.0]


# Forks ----------


def test_a_fork_of_a_map_keeps_what_its_paths_carry():
    """Heavy ball under another rate and momentum goes on with the momentum it has, as plain numpy does."""
    rng = np.random.default_rng(5)
    H = rng.standard_normal((2, 2))
    H = H @ H.T + np.eye(2)
    loss = md.Loss(sum(H[i, j] * (x, y)[i] * (x, y)[j] for i in (0, 1) for j in (0, 1)) / 2, [x, y])
    run = md.simulate(md.Map(loss, md.SGD(0.05, momentum=0.8)), [1.0, -2.0], 13)
    run = md.simulate(md.Map(loss, md.SGD(0.02, momentum=0.3)), continue_from=run, steps=9)
    run = md.simulate(md.Map(loss, md.SGD(0.02, momentum=0.3)), continue_from=run, steps=4)
    w, m = np.array([1.0, -2.0]), np.zeros(2)
    for step in range(26):
        lr, beta = (0.05, 0.8) if step < 13 else (0.02, 0.3)
        m = beta * m + H @ w
        w = w - lr * m
    np.testing.assert_allclose(run.state[0], [*w, *m], rtol=1e-12)
    np.testing.assert_allclose(run.time, 13 * 0.05 + 0.02 * (run.steps - 13), rtol=1e-14)


FORKS = {
    "momentum": lambda rate: md.Map(VALLEY, md.SGD(rate, momentum=0.7), NOISE),
    "minibatch": lambda rate: md.Map(DATA, md.SGD(rate), md.Minibatch(3)),
    "sde": lambda rate: md.QuasistaticFlow(md.Map(VALLEY, md.SGD(rate), NOISE)),
    "gradient": lambda rate: md.GradientFlow(md.Map(VALLEY, md.GD(rate))),
    "modified": lambda rate: md.ModifiedFlow(md.Map(VALLEY, md.GD(rate)), order=2),
    "additive": lambda rate: md.SymbolicFlow(md.Map(VALLEY, md.SGD(rate), NOISE), [-x * y**2, -y], [0.1, 0.2]),
}


@pytest.mark.parametrize("name", FORKS)
@pytest.mark.parametrize("at", [48, 53])
def test_a_fork_of_the_rate_is_a_schedule_of_it(name, at):
    """To rounding, or to the tolerance of a flow without noise: on the same noise, at the same times."""
    make = FORKS[name]
    both = make(sp.Piecewise((0.01, k <= at), (0.002, True)))
    options = {"sde": {"substeps": 8}, "additive": {"substeps": 1, "method": "sra1"}}.get(name, {})
    start = starts_of(both, 70, 1)
    own = {"paths": 70, "rng": 2, "save_every": 4, **options}
    whole = md.simulate(both, start, 100, **own)
    first = md.simulate(make(0.01), start, at, **own)
    on = md.simulate(make(0.002), continue_from=first, steps=100 - at)
    here = np.isin(whole.steps, on.steps)
    steps = np.isin(on.steps, whole.steps)
    np.testing.assert_allclose(
        on.w[:, steps], whole.w[:, here], rtol=0, atol=1e-8 if name in ("gradient", "modified") else 1e-12
    )
    np.testing.assert_allclose(on.time[steps], whole.time[here], rtol=1e-13)
    moved = md.simulate(make(0.01), continue_from=first, steps=100 - at)
    assert np.abs(moved.w[:, -1] - on.w[:, -1]).max() > 1e-4


def test_noise_constants_and_adaptive_steps_may_change(tmp_path):
    """Louder noise on the same streams, another constant of the loss, and steps that paths choose: a fork of each."""
    at_rest = md.Map(md.Loss(c * (x**2 + y**2) / 2, [x, y], constants={c: 0.0}), md.SGD(0.1), md.GaussianNoise(0.5))
    louder = md.Map(at_rest.loss, at_rest.rule, md.GaussianNoise(1.0))
    first = through(md.simulate(at_rest, [1.0, 0.0], 20, paths=5, rng=1), tmp_path, 2)
    quiet, loud = (md.simulate(s, continue_from=first, steps=10) for s in (at_rest, louder))
    gone = quiet.w[:, -1] - quiet.w[:, 0]
    np.testing.assert_allclose(loud.w[:, -1] - loud.w[:, 0], 2 * gone, rtol=1e-12)
    pulled = md.Map(at_rest.loss.with_constants({c: 10.0}), at_rest.rule, at_rest.noise)
    assert np.abs(md.simulate(pulled, continue_from=first, steps=1).w[:, -1]).max() < 0.2  # lr c = 1 forgets the start
    flow, other = (md.SymbolicFlow(s, [0, 0], [0.1, 0.2]) for s in (at_rest, at_rest.with_lr(0.4)))
    own = {"paths": 5, "rng": 1, "substeps": "adaptive", "save_every": 5}
    run = md.simulate(flow, [1.0, 0.0], 35, **own)
    same, twice = (md.simulate(f, continue_from=run, steps=40) for f in (flow, other))
    np.testing.assert_allclose(twice.w - twice.w[:, :1], 2 * (same.w - same.w[:, :1]), rtol=0, atol=1e-12)


# Paths that have ended ----------


def test_paths_that_diverged_stay_as_they_ended(tmp_path):
    """In a map and in flows: NaN, with their status and step, also under another rate."""
    loss = md.Loss(x**4 / 4, [x])
    system = md.Map(loss, md.GD(0.1), md.GaussianNoise(0.1))
    start = np.array([[0.5], [20.0]])
    for turn, other in enumerate((system, system.with_lr(0.05))):
        run = through(md.simulate(system, start, 30, paths=2, rng=1), tmp_path, turn)
        on = md.simulate(other, continue_from=run, steps=20)
        assert on.status.tolist() == [md.Status.FINISHED, md.Status.DIVERGED] and on.ended[1] == run.ended[1] < 30
        assert np.isnan(on.w[1]).all() and np.isfinite(on.w[0]).all() and on.ended[0] == 50
        assert np.isnan(on.state[1]).all() and on.state.shape == (2, 1)


STOPS = {
    "map": (map_of(VALLEY, md.SGD(0.1), NOISE), {"save_every": 1}),
    "sde": (lambda: md.QuasistaticFlow(SGD), {"substeps": 8, "save_every": 3}),
    "gradient": (lambda: md.GradientFlow(GD.with_lr(0.01)), {"save_every": 6}),
    "rod": (lambda: md.RodFlow(GD), {"save_every": 2}),
}


@pytest.mark.parametrize("name", STOPS)
def test_conditions_go_on(name, tmp_path):
    """Paths stop where they do in one long run, before and after the break; given again or not, what stopped stays."""
    make, own = STOPS[name]
    system = make()
    count = 8 if name == "gradient" else 40
    start = starts_of(system, count, 3)
    own = {"paths": count, "rng": 3, **own}
    stop = [{"map": x - 2.1, "sde": x > 2.1, "rod": x < 3.2, "gradient": y - 0.35}[name], y + 1.0]
    long = md.simulate(system, start, 120, stop=stop, **own)
    at = int(np.median(long.ended[long.status == md.Status.STOPPED])) + 1
    for turn, cut in enumerate((at - 2, at - 1, at + 2)):
        short = through(md.simulate(system, start, cut, stop=stop, **own), tmp_path, turn)
        on = md.simulate(system, continue_from=short, steps=120 - cut, stop=list(stop))
        np.testing.assert_array_equal(on.status, long.status)
        np.testing.assert_array_equal(on.ended, long.ended)
        later = long.steps > cut
        np.testing.assert_array_equal(on.w[:, 1:], long.w[:, later])
    assert 2 < (short.status == md.Status.STOPPED).sum() < (long.status == md.Status.STOPPED).sum()
    free = md.simulate(system, continue_from=short, steps=30)
    kept = short.ended < short.steps[-1] - 3
    assert (free.status[kept] == md.Status.STOPPED).all() and (free.ended[kept] == short.ended[kept]).all()
    assert np.isnan(free.w[kept]).all() and (free.status == md.Status.FINISHED).any()
    other = md.simulate(system, continue_from=free, steps=5, stop=sp.And(x > -5, y > -5))
    assert (other.status == md.Status.STOPPED).all() and set(other.ended[free.status == 0]) == {free.steps[-1]}


# Refusals ----------


def refused(system, **options):
    with pytest.raises(md.InputError) as caught:
        md.simulate(system, **options)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


def test_another_system_is_refused(tmp_path):
    """Another loss, rule with other states, kind of noise or flow is named, live and from a file."""
    base = md.Map(VALLEY, md.SGD(0.1, momentum=0.5), NOISE)
    run = md.simulate(base, [2.0, 0.3], 20, paths=3, rng=0)
    changes = {
        "the loss: Loss(": md.Map(md.Loss(x**2 + y**2, [x, y]), base.rule, NOISE),
        "the states: m there, theta alone here": md.Map(VALLEY, md.GD(0.1), NOISE),
        "the noise: GaussianNoise(0.3) there, no noise here": md.Map(VALLEY, base.rule),
        "the noise: GaussianNoise(0.3) there, GaussianNoise([[0.1], [0.2]]) here": md.Map(
            VALLEY, base.rule, md.GaussianNoise([[0.1], [0.2]])
        ),
        "the system: Map there, GradientFlow here": md.GradientFlow(base),
    }
    for turn in (0, 2):
        for words, system in changes.items():
            text = refused(system, continue_from=through(run, tmp_path, turn), steps=5)
            assert words in text and "start anew with w0=run.state" in text
    data = md.Map(DATA, md.GD(0.1), md.Reshuffle(2))
    run = md.simulate(data, [1.0, 1.0], 5, paths=2)
    assert "the noise: Reshuffle(2) there" in refused(
        md.Map(DATA, md.GD(0.1), md.Reshuffle(3)), continue_from=run, steps=5
    )


def test_what_a_run_brings_itself_is_refused_or_must_agree():
    """w0, rng, paths, first_step, method, tolerances and substeps are the run's; so said, one sentence for each."""
    system = md.QuasistaticFlow(SGD)
    run = md.simulate(system, [2.0, 0.0], 20, paths=5, rng=0, substeps=2, first_step=3)
    for name, value in {"w0": [1.0, 0.0], "rng": 0, "paths": 6, "first_step": 2, "substeps": 4, "rtol": 0.1,
                        "method": "milstein"}.items():  # fmt: skip
        text = refused(system, continue_from=run, steps=5, **{name: value})
        assert text.startswith(f"{name} is ") and "leave it out, or start anew" in text
    agreed = {"paths": 5, "first_step": 3, "substeps": 2, "rtol": 1e-3, "method": "euler-maruyama"}
    on = md.simulate(system, continue_from=run, steps=5, **agreed)
    assert on.digest() == md.simulate(system, continue_from=run, steps=5).digest()
    assert "give one of them" in refused(system, steps=5)
    assert "steps must be a whole number" in refused(system, continue_from=run)
    assert "a run that simulate returned or load read, not 'run.h5'" in refused(system, continue_from="run.h5", steps=5)


def test_runs_that_do_not_know_their_state_say_so(monkeypatch):
    """Interrupted ones, scipy's, and those of another layout."""
    scipys = md.simulate(md.GradientFlow(SGD), [2.0, 0.3], 20, method="scipy:LSODA")
    assert "scipy's solvers keep their state" in refused(md.GradientFlow(SGD), continue_from=scipys, steps=5)
    assert scipys.state.shape == (1, 2) and (scipys.state == scipys.w[:, -1]).all()
    run = md.simulate(SGD, [2.0, 0.3], 20)
    run.ending.facts["layout"] = 7
    assert "keeps its state in layout 7" in refused(SGD, continue_from=run, steps=5)
    recorder = __import__("importlib").import_module("minidyn.simulate.recording").Recorder

    def save(self, engine, real=recorder.save):
        if self.count == 3:
            raise KeyboardInterrupt
        real(self, engine)

    parts = [md.simulate(SGD, [2.0, 0.3], 20, paths=5, rng=1, first_path=first) for first in (0, 5)]
    assert "put together from parts" in refused(SGD, continue_from=md.join(parts), steps=5)
    assert "in one piece" in refused(SGD, continue_from=parts[0], steps=5, executor=1)
    monkeypatch.setattr(recorder, "save", save)
    part = md.simulate(SGD, [2.0, 0.3], 20, save_every=5, keep="moments")
    assert part.state is None and "it was interrupted" in refused(SGD, continue_from=part, steps=5)


def test_a_state_that_was_changed_is_refused():
    """Arrays of other shapes, samples that do not exist and steps that were not made never reach a kernel."""
    system = SYSTEMS["reshuffle"]()
    for name, change in {
        "orders": lambda v: v + 1,
        "blocks": lambda v: v[:, :64],
        "streams": lambda v: v.astype(float),
    }.items():
        run = md.simulate(system, [1.0, 1.0], 20, paths=3, rng=0)
        run.ending.arrays[name] = change(run.ending.arrays[name])
        assert f"does not fit this system ({name})" in refused(system, continue_from=run, steps=5)
    flow = SYSTEMS["additive"]()
    for name in ("at", "windows", "places", "sizes"):
        run = md.simulate(flow, [1.0, 1.0], 20, paths=3, rng=0, substeps="adaptive")
        run.ending.arrays[name] = run.ending.arrays[name] + 10**9
        assert f"does not fit this system ({name})" in refused(flow, continue_from=run, steps=5)


def test_paths_with_numbers_and_places_of_their_own_go_on(tmp_path):
    """`hyper` and `first_path` stay, from files too; other numbers, or numbers where there were none, make a fork."""
    rates = np.linspace(0.01, 0.3, 70)
    own = {"rng": 3, "first_path": 7, "save_every": 9, "hyper": {"lr": rates, "c": rates}}
    long, short = (md.simulate(SYSTEMS["momentum"](), [2.0, 0.3], steps, **own) for steps in (80, 50))
    for turn in range(3):
        on = md.simulate(SYSTEMS["momentum"](), continue_from=through(short, tmp_path, turn), steps=30)
        same_second_part(long, short, on)
        assert on.hyper.keys() == {"lr", "c"} and on.meta["first_path"] == 7
    base = SYSTEMS["momentum"]()
    for start in (short, md.simulate(base, [2.0, 0.3], 50, paths=70, rng=1)):
        on = md.simulate(base, continue_from=start, steps=20, hyper={"lr": rates[::-1]})
        path = 5 if start is short else 60
        alone = md.Map(VALLEY, base.rule.with_hyper(lr=rates[::-1][path]), NOISE)
        one = md.simulate(alone, continue_from=start, steps=20, hyper={"lr": np.full(70, alone.lr())})
        np.testing.assert_array_equal(on.w[path], one.w[path])


def test_clock_and_words_count_on():
    """Steps and times go on from those of the first run, under a schedule too, and the report says so."""
    system = md.Map(VALLEY, md.SGD(SLOW), NOISE)
    own = {"paths": 2, "rng": 0, "first_step": 40}
    long, run = (md.simulate(system, [2.0, 0.0], steps, save_every=10, **own) for steps in (60, 30))
    on = md.simulate(system, continue_from=run, steps=30)
    np.testing.assert_array_equal(on.time, long.time[3:])
    assert on.meta["steps"] == 60 and on.meta["seed"] == long.meta["seed"]
    assert "from step 30 of an earlier run" in on.summary()
    closer = md.simulate(system, continue_from=run, steps=5, save_every=2)
    assert closer.steps.tolist() == [30, 32, 34, 35]
    early = md.simulate(system, continue_from=run, steps=970, save_every="log")
    assert early.steps[0] == 30 and early.steps[-1] == 1000 and len(early.steps) < 60
