"""Numbers that differ from path to path: a path has the bits of its own map's, whatever lies beside it."""

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.maps.settings import changed, names_of

x, y, z, a, X = sp.symbols("x y z a X")
RANGES = {
    "lr": (0.001, 0.2), "momentum": (0, 0.95), "beta1": (0, 0.95), "beta2": (0.5, 0.999), "beta": (0.5, 0.99),
    "alpha": (0.5, 0.99), "eps": (1e-8, 0.1), "weight_decay": (0, 0.1), "sigma": (0, 1), "label_std": (0.01, 1),
    "a": (0.5, 2), "dampening": (0, 0.5),
}  # fmt: skip
rng = np.random.default_rng(11)
PLAIN = md.Loss((1 + a * x**2) * y**2 / 2 + z**2, [x, y, z], constants={a: 1.0})
DATA = md.Loss.regression(
    a * x * sp.tanh(y * X) + z, [x, y, z], {X: rng.normal(size=20)}, rng.normal(size=20), constants={a: 1.0}
)
WEIGHTS = md.vector("u", 30)
j = sp.Symbol("j", integer=True)
MANY = md.Loss(sp.Sum((WEIGHTS[j] - a) ** 2 * (2 + sp.cos(WEIGHTS[j])), (j, 0, 29)), [WEIGHTS], constants={a: 0.5})


@md.rule
def clocked(theta, g, m, *, lr, beta=0.9, k):
    """A rule whose table mixes what differs with the step number."""
    m = beta * m + (1 - beta) * g
    return theta - lr * m / (1 - beta**k) / (1 + lr * k), m


RULES = [md.GD(0.1), md.SGD(0.1, momentum=0.5, nesterov=True), md.Adam(0.05), md.AdamW(0.05), md.RMSProp(0.05),
         md.Lion(0.01), clocked(0.1), md.Adam(0.1 / (1 + sp.Symbol("k")))]  # fmt: skip
NOISES = {
    PLAIN: [None, md.GaussianNoise(0.3), md.GaussianNoise([0.1, 0.2, 0.3])],
    DATA: [md.Minibatch(4), md.LabelNoise(0.1, batch=5) + md.GaussianNoise(0.3), md.Reshuffle(5), None],
    MANY: [None, md.GaussianNoise(0.3)],
}
CASES = [(loss, rule, noises[i % len(noises)]) for loss, noises in NOISES.items() for i, rule in enumerate(RULES)]


def drawn(system: md.Map, paths: int, chosen: np.random.Generator) -> dict:
    """Some of what may differ, at random."""
    names = [n for n in names_of(system) if not isinstance(system.rule.hyper.get(n), sp.Expr)]
    some = [n for n in names if chosen.random() < 0.7] or names[:1]
    return {n: chosen.uniform(*RANGES[n], paths) for n in some}


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_path_has_the_bits_of_its_own_map(case):
    """Each path equals the same path of the map with its numbers, states and observables, for every rule and noise."""
    loss, rule, noise = CASES[case]
    chosen = np.random.default_rng(case)
    paths = int(chosen.integers(1, 131))
    system = md.Map(loss, rule, noise)
    given = drawn(system, paths, chosen)
    steps = int(chosen.integers(1, 300))
    observe = ["loss", "sharpness"] if loss.dim < 4 else ["loss"]
    w0 = chosen.normal(size=(paths, loss.dim))
    options = {"steps": steps, "paths": paths, "save_every": max(1, steps // 3), "observe": observe, "rng": case}
    run = md.simulate(system, w0, hyper=given, **options)
    for i in {0, paths // 2, paths - 1}:
        alone = md.simulate(changed(system, {n: float(v[i]) for n, v in given.items()}), w0, **options)
        assert run.w[i].tobytes() == alone.w[i].tobytes()
        assert run.status[i] == alone.status[i] and run.ended[i] == alone.ended[i]
        for name in observe:
            assert run.observables[name][i].tobytes() == alone.observables[name][i].tobytes()
    assert set(run.hyper) == set(given)


def test_what_reads_the_map_reads_each_path_of_it():
    """Observables of the map, conditions that stop a path and the edge are those of each path's own map."""
    system = md.Map(PLAIN, md.GD(0.1))
    given = {"lr": np.array([0.2, 0.5, 0.9]), a: np.array([0.5, 1.0, 3.0])}
    options = {"steps": 40, "save_every": 1, "stop": "edge", "observe": ["update_sharpness", a * x]}
    run = md.simulate(system, [1.5, 0.3, 0.1], hyper=given, **options)
    assert run.paths == 3 and np.isnan(run.time).all()
    for i in range(3):
        alone = md.simulate(changed(system, {"lr": given["lr"][i], "a": given[a][i]}), [1.5, 0.3, 0.1], **options)
        assert run.w[i].tobytes() == alone.w[0].tobytes() and run.ended[i] == alone.ended[0]
        for name, values in alone.observables.items():
            assert run.observables[name][i].tobytes() == values[0].tobytes()
    assert len(set(run.ended.tolist())) > 1


def test_such_a_run_travels(tmp_path):
    """A file keeps what differed, a checkpoint goes on with it to the same bits, and is no other run's."""
    system = md.Map(PLAIN, md.Adam(0.1), md.GaussianNoise(0.3))
    given = {"lr": np.linspace(0.01, 0.1, 70), "sigma": np.linspace(0, 1, 70)}
    options = {"w0": [1.0, 0.5, 0.1], "steps": 60, "rng": 3}
    run = md.simulate(system, hyper=given, **options, checkpoint=tmp_path / "kept")
    assert md.simulate(system, hyper=given, **options, threads=2).digest() == run.digest()
    assert md.simulate(system, hyper=given, **options, checkpoint=tmp_path / "kept").digest() == run.digest()
    other = {**given, "sigma": given["sigma"] + 1}
    with pytest.raises(md.InputError, match="another run"):
        md.simulate(system, hyper=other, **options, checkpoint=tmp_path / "kept")
    run.save(tmp_path / "run.h5")
    back = md.load(tmp_path / "run.h5")
    assert back.digest() == run.digest() and back.to_xarray()["lr"].dims == ("path",)
    assert md.simulate(system, hyper={**given, "lr": given["lr"][::-1]}, **options).digest() != run.digest()


def test_another_number_compiles_nothing(empty_cache):
    """The same names at other numbers, or at another base map, take the kernel that is there."""
    system = md.Map(md.Loss(a * x**2 + 0.123456 * x, [x], constants={a: 1.0}), md.GD(0.1), md.GaussianNoise(0.3))

    def files(system, hyper):
        md.simulate(system, [1], 5, hyper=hyper)
        return {f.name for f in empty_cache.rglob("*.o")}

    first = files(system, {"lr": [0.1, 0.2], "sigma": [0, 1]})
    assert first == files(system.with_lr(0.3), {"sigma": np.linspace(0, 1, 2), "lr": [0.3, 0.2]})
    assert first < files(system, {"lr": [0.1, 0.2], "sigma": [0, 1], a: [1, 2]})


@pytest.mark.parametrize(("hyper", "words"), [
    ({"lrr": [1.0]}, "no number of this map"), ({"lr": [0.1, 0.2, 0.3]}, r"shape \(3,\), expected \(2,\)"),
    ({"lr": [0.1, -0.2]}, "must be positive"), ({"lr": [0.1, np.nan]}, "NaN or Inf"), ({"lr": 0.1, "sigma": [-1, 1]},
     "must not be negative"), ([0.1, 0.2], "must be a dictionary"), ({"batch": [1, 2]}, "no number of this map"),
    ({a: [1, 2], "a": [1, 2]}, "given twice"), ({x: [1, 2]}, "no number of this map"), ({"lr": ["a", "b"]}, "lr"),
])  # fmt: skip
def test_what_cannot_differ_is_refused(hyper, words):
    """One sentence for other names, shapes and numbers."""
    system = md.Map(PLAIN, md.GD(0.1), md.GaussianNoise(0.3))
    with pytest.raises(md.InputError, match=words):
        md.simulate(system, [1, 1, 1], 5, paths=2, hyper=hyper)


def test_schedules_and_flows_are_refused():
    """All paths share a schedule; a flow is made for one number."""
    k = sp.Symbol("k")
    with pytest.raises(md.InputError, match="schedule"):
        md.simulate(md.Map(PLAIN, md.GD(0.1 / k)), [1, 1, 1], 5, hyper={"lr": [0.1, 0.2]})
    with pytest.raises(md.InputError, match="flow for each"):
        md.simulate(md.GradientFlow(md.Map(PLAIN, md.GD(0.1))), [1, 1, 1], 5, hyper={"lr": [0.1, 0.2]})
