"""Parts of an ensemble: path i of a run from `first_path=n` on is path n + i of the larger one."""

from itertools import pairwise

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.kernels.random import counted_from, seed_blocks, seed_key

x, y, a, b, u = sp.symbols("x y a b u")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
CUBE = md.Loss(x**2 / 2 + x**4 / 4, [x])
DATA = md.Loss.regression(a * sp.tanh(b * u), [a, b], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5))
SGD = md.Map(VALLEY, md.SGD(0.1), md.GaussianNoise(0.3))
LINE = md.Map(CUBE, md.SGD(0.1), md.GaussianNoise(0.2))
BATCHES = md.Map(DATA, md.SGD(0.1), md.Minibatch(2))
ADDITIVE = md.SymbolicFlow(SGD, [-x * y**2, -(1 + x**2) * y], [0.1, 0.2])
GENERAL = md.SymbolicFlow(SGD, [-x, -y], sp.Matrix([[1, x / 4], [y / 4, 1]]) / 5)

SYSTEMS = {
    "gaussian": (SGD, {}),
    "one normal a step": (LINE, {"first_step": 2}),
    "minibatch": (BATCHES, {}),
    "reshuffle": (md.Map(DATA, md.SGD(0.1, momentum=0.5), md.Reshuffle(2)), {}),
    "labels": (md.Map(DATA, md.Adam(0.01), md.LabelNoise(0.1, batch=2)), {}),
    "heavy": (md.Map(VALLEY, md.GD(0.1), md.StudentNoise(0.1, 4.0)), {}),
    "quasistatic": (md.QuasistaticFlow(SGD), {}),
    "batches' own noise": (md.StochasticModifiedFlow(BATCHES), {}),
    "milstein's areas": (md.SymbolicFlow(SGD, [-x, -y], [x / 4, y / 4]), {"method": "diagonal"}),
    "areas": (ADDITIVE, {"method": "sra1"}),
    "coins": (GENERAL, {"method": "weak2"}),
    "refined": (ADDITIVE, {"substeps": 0.25, "method": "sra1"}),
    "refined coins": (GENERAL, {"substeps": 0.5, "method": "weak2"}),
    "adaptive": (ADDITIVE, {"substeps": "adaptive"}),
    "no noise": (md.GradientFlow(SGD), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_part_is_what_the_whole_has_there(name):
    """Whatever draws, by whatever method, from starts of their own: parts are the whole's paths, bit for bit."""
    system, options = SYSTEMS[name]
    rng = np.random.default_rng(sorted(SYSTEMS).index(name))
    starts = rng.uniform(0.2, 1.2, (200, system.dim)) * [1.0, 0.1][: system.dim]
    given = {"rng": 7, "save_every": 7, "observe": "loss", **options}
    whole = md.simulate(system, starts, 30, paths=200, **given)
    cuts = [0, 1, 64, int(rng.integers(65, 199)), 200]
    for first, last in pairwise(cuts):
        part = md.simulate(system, starts[first:last], 30, paths=last - first, first_path=first, **given)
        for one, all_ in ((part.w, whole.w), (part.observables["loss"], whole.observables["loss"])):
            np.testing.assert_array_equal(one, all_[first:last])
        np.testing.assert_array_equal(part.status, whole.status[first:last])
        np.testing.assert_array_equal(part.ended, whole.ended[first:last])
        assert list(part.to_xarray().path) == list(range(first, last))


@pytest.mark.parametrize("first", [0, 1, 63, 64, 12345, 2**53])
def test_streams_of_any_number(first):
    """The streams from any number on are those of the paths there, whole blocks and not."""
    key = seed_key(3)[1]
    if first < 10**5:
        every = seed_blocks(key, first // 64 + 3).reshape(-1, 5, 64).transpose(1, 0, 2).reshape(5, -1)
        here = seed_blocks(key, 2, first_path=first).reshape(-1, 5, 64).transpose(1, 0, 2).reshape(5, -1)
        np.testing.assert_array_equal(here, every[:, first : first + 128])
    with np.errstate(over="ignore"):
        assert counted_from(key, first)[0] == key[0] + np.uint64(first) * np.uint64(0x9E3779B97F4A7C15)


def test_a_part_without_noise_is_alike():
    """Without noise and from one start all paths are alike, from whichever number on."""
    still = md.Map(VALLEY, md.GD(0.1))
    assert md.simulate(still, [1, 1], 9, first_path=5).digest() == md.simulate(still, [1, 1], 9).digest()


def test_a_checkpoint_knows_its_part(tmp_path):
    """The checkpoint of other paths is refused."""
    md.simulate(SGD, [1, 1], 9, paths=3, rng=0, first_path=3, checkpoint=tmp_path)
    with pytest.raises(md.InputError, match="first_path is 3 there and 6 here"):
        md.simulate(SGD, [1, 1], 9, paths=3, rng=0, first_path=6, checkpoint=tmp_path)


@pytest.mark.parametrize("bad", [-1, 0.5, "a", None])
def test_first_path_is_a_number_of_a_path(bad):
    """Numbers of paths are whole and begin with 0."""
    with pytest.raises(md.InputError, match="first_path"):
        md.simulate(SGD, [1, 1], 9, first_path=bad)
