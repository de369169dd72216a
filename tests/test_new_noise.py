"""A noise that is written in one file, here, and known everywhere: the package has no line for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import sympy as sp
from conformance import PARAMS, check_map, check_named, check_noise, losses, moments, noises, stated_covariance

import minidyn as md
from minidyn.files.models import model_of_text
from minidyn.maps.noise import NOISES, SIGNS, Additive, Labels, Law, Minibatch, Option, Sampling

UNIFORM = Law("3.4641016151377544 * ((word >> np.uint64(11)) * 1.1102230246251565e-16 - 0.5)", -1.2)
x, y = PARAMS


@dataclass(frozen=True, eq=False, repr=False)
class Coins(Additive):
    """`g + sigma s`, s = -1 or 1 for each coordinate, fresh every step."""

    sigma: float

    key: ClassVar[str] = "coins"
    law: ClassVar[Law] = SIGNS
    options: ClassVar[dict[str, Option]] = {"sigma": Option("number")}

    def __repr__(self) -> str:
        return f"Coins({self.sigma})"


@dataclass(frozen=True, eq=False, repr=False)
class Proportional(Additive):
    """`g (1 + share u)`, u uniform of variance 1 for each coordinate: as large as the gradient itself."""

    share: float

    key: ClassVar[str] = "proportional"
    law: ClassVar[Law] = UNIFORM
    options: ClassVar[dict[str, Option]] = {"share": Option("number")}

    def entries(self, loss: md.Loss) -> np.ndarray:
        return np.array([self.share * sp.diff(loss.expr, p) for p in loss.params], dtype=object)

    def __repr__(self) -> str:
        return f"Proportional({self.share})"


@dataclass(frozen=True, eq=False, repr=False)
class Twice(Sampling):
    """One sample drawn at random and seen alone: kappa = 1, whatever `batch` copies of it there are."""

    batch: int

    key: ClassVar[str] = "twice"

    def lines(self) -> list[str]:
        return [
            f"size = {self.batch}",
            "with_replacement(r, index, 1, n)",
            "for q in range(64, size * 64):",
            "    index[q] = index[q - 64]",
        ]

    def weight(self, size: Any, n: int) -> Any:
        return 1 + 0 * size

    def size_for(self, kappa: float, n: int) -> float:
        return np.inf

    def moments(self, n: int) -> tuple[float, float, float]:
        return 1.0, 1.0, 0.0

    def __repr__(self) -> str:
        return f"Twice({self.batch})"


HERE = {key: NOISES.pop(key) for key in ("coins", "proportional", "twice")}  # not for other tests


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """The new noises, in the table for the time of a test."""
    before = dict(NOISES)
    NOISES.update(HERE)
    yield
    NOISES.clear()
    NOISES.update(before)


@pytest.mark.parametrize("key", ["coins", "proportional", "twice"])
def test_it_satisfies_all_that_a_noise_must(key):
    """A new noise is found by its key, and conformance runs on it: draws, covariance, moments, flows, model files."""
    assert NOISES[key] is HERE[key]
    for _, noise, options in noises(key):
        check_noise(noise, losses()[noise.needs])
        check_named(key, options, noise)


def test_it_adds_to_every_other_noise():
    """With labels, batches and normal noise it is a map, and the covariances add up."""
    loss, at = losses()["regression"], np.array([0.5, 0.8])
    coins = Coins(0.3)
    for other in (md.LabelNoise(0.4, batch=2), md.GaussianNoise([[0.3, 0.0, 0.1], [0.1, 0.2, 0.0]]), md.Minibatch(2)):
        both = md.Map(loss, md.GD(0.1), other + coins)
        check_map(both, at)
        alone = stated_covariance(md.Map(loss, md.GD(0.1), other), at)[0]
        np.testing.assert_allclose(stated_covariance(both, at)[0], alone + 0.09 * np.eye(2), rtol=1e-12, atol=1e-16)
        xi = (at - 0.1 * loss.grad(at) - both.step(np.tile(at, (20_000, 1)), rng=5)) / 0.1
        outer = xi[:, :, None] * xi[:, None]
        assert (abs(outer.mean(0) - alone - 0.09 * np.eye(2)) <= 5 * outer.std(0) / np.sqrt(20_000)).all()
        assert not both.bound.couples and not both.bound.gaussian
    assert (
        repr(coins + md.GaussianNoise(0.1)) == repr(md.GaussianNoise(0.1) + coins) == "Coins(0.3) + GaussianNoise(0.1)"
    )


@pytest.mark.parametrize("paths", [1, 64, 130])
def test_a_loop_in_registers_draws_what_a_loop_in_memory_does(paths):
    """With data that two samples share, a step is no straight line: the same numbers come in the same order."""
    u, at = sp.symbols("u"), np.array([0.7, 0.3])
    expr = (1 + x**2) * y**2 / 2
    straight, looped = md.Loss(expr, [x, y]), md.Loss(u * expr, [x, y], data={u: [1.0, 1.0]})
    odd = md.GaussianNoise([[0.3, 0.0, 0.1], [0.1, 0.2, 0.0]])
    for noise in (Coins(0.3), odd, md.GaussianNoise(0.2), Coins(0.3) + odd):
        runs = [
            md.simulate(md.Map(loss, md.SGD(0.1, 0.5), noise), at, 5, paths=paths, rng=3, save_every=1).w
            for loss in (straight, looped)
        ]
        np.testing.assert_allclose(*runs, rtol=1e-12, atol=1e-14)
    with pytest.raises(md.InputError, match="sigma names the data u"):
        md.Map(looped, md.GD(0.1), Proportional(0.5))


def test_flows_take_it_or_say_why():
    """A straight rule takes coins; a sign does not, for its answer is not that of the covariance; the shared normals
    of a coupled run are for normal noise alone."""
    valley = md.Loss((1 + x**2) * y**2 / 2, [x, y])
    flow = md.QuasistaticFlow(md.Map(valley, md.SGD(0.05), Coins(0.3)))
    normal = md.QuasistaticFlow(md.Map(valley, md.SGD(0.05), md.GaussianNoise(0.3)))
    np.testing.assert_allclose(flow.drift([0.7, 0.0]), normal.drift([0.7, 0.0]), rtol=1e-12)
    assert normal.couples and not flow.couples
    with pytest.raises(md.FlowError, match=r"takes signs of the gradient, and Coins\(0.3\) is not Gaussian"):
        md.QuasistaticFlow(md.Map(valley, md.SignGD(0.05), Coins(0.3)))


def test_stability_knows_how_it_multiplies_a_displacement():
    """Noise in proportion to the gradient: the second moment grows by (1 - lr h)^2 + lr^2 share^2 h^2, at a rate that
    has the largest stable value 2/(h (1 + share^2)); a run grows as that."""
    share, h = 0.8, 3.0
    loss = md.Loss(h * x**2 / 2, [x])
    system = md.Map(loss, md.GD(0.5), Proportional(share))
    verdict = md.stability(system, [0.0])
    growth = (1 - 0.5 * h) ** 2 + 0.25 * (share * h) ** 2
    assert verdict.growth == pytest.approx(growth, rel=1e-12) and not verdict.stable
    assert verdict.max_lr == pytest.approx(2 / (h * (1 + share**2)), rel=1e-9)
    square = system.step(np.ones((PATHS, 1)), rng=2) ** 2
    assert abs(square.mean() - growth) <= 5 * square.std() / np.sqrt(PATHS)
    assert md.stability(md.Map(loss, md.GD(0.5), Coins(share)), [0.0]).stable


PATHS = 20_000


def test_new_labels_are_a_law_away():
    """Labels of another law: their moments on a batch are those of what is drawn."""

    @dataclass(frozen=True, eq=False, repr=False)
    class Uniform(Labels):
        key: ClassVar[str] = "uniform label"

        @property
        def law(self) -> Law:
            return UNIFORM

    loss = losses()["regression"]
    system, at = md.Map(loss, md.GD(0.1), Uniform(0.4) + Minibatch(2)), np.array([0.5, 0.8])
    xi = (at - 0.1 * loss.grad(at) - system.step(np.tile(at, (PATHS, 1)), rng=4)) / 0.1
    square = xi**2 - np.diag(stated_covariance(system, at)[0])
    outer = square[:, :, None] * square[:, None]
    assert (abs(outer.mean(0) - moments(system, at)[1]) <= 5 * outer.std(0) / np.sqrt(PATHS)).all()


def test_a_model_file_knows_the_names_that_there_are():
    """Among the kinds that a wrong name is told of is the new one, with its own options."""
    text = md.load_model("valley").text
    with pytest.raises(
        md.ModelFileError, match=r"one of coins, gaussian, gaussian-like, label, minibatch, proportional, reshuffle"
    ):
        model_of_text(text.replace('"gaussian"', '"gauss"'), "mine")
    with pytest.raises(md.ModelFileError, match=r"unknown key `noise.0..sigma`"):
        model_of_text(text.replace('"gaussian"', '"proportional"'), "mine")
