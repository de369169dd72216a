"""Every size works: numbers of samples, of paths and of parameters that fill blocks and lanes and that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sizes
from sizes import RULES, SIGMAS, SPREAD

import minidyn as md
from minidyn.compiler.llvm import lane_count

TURNS = [(picks, labels) for picks in sizes.PICKS for labels in sizes.LABELS]
SOME = (1, 2, 3, 8, 17, 64, 129)


@pytest.mark.parametrize("batch", SPREAD)
def test_batches(batch):
    """A map on any batch steps as literal numpy does, whatever picks the samples and with labels shifted or not."""
    at = SPREAD.index(batch)
    for turn in range(2 if batch % 8 == 0 else 1):
        picks, labels = TURNS[(5 * at + 7 * turn) % len(TURNS)]
        samples = {"all": batch, "again": (7, 1, 2, 130)[at % 4]}.get(picks, min(130, batch + at % 3))
        sizes.check_map_on_data(samples, batch, SPREAD[(7 * at + 5) % len(SPREAD)], picks, labels)


@pytest.mark.parametrize(("picks", "labels"), TURNS)
def test_one_sample(picks, labels):
    """A single sample, which kernels read without a loop: drawn twice or five times it has as many labels."""
    for batch in (2, 5) if picks == "again" else (1,):
        sizes.check_map_on_data(1, batch, 9, picks, labels)


@pytest.mark.parametrize("noise", [md.Minibatch(8), md.Minibatch(20), md.Reshuffle(40) + md.LabelNoise(0.3)], ids=str)
def test_any_number_of_paths_on_data(noise):
    """1 to 130 paths that pick samples have the bits that they have among 130."""
    start = np.random.default_rng(0).normal(size=(130, 2))
    sizes.check_company(md.Map(sizes.regression(65)[0], md.Adam(0.1), noise), start, range(1, 130))


@pytest.mark.parametrize("rule", ["adam", "lion"])
@pytest.mark.parametrize("symbols", [True, False])
def test_any_number_of_paths(rule, symbols):
    """1 to 130 paths of a map of a few numbers, or of a loop over a vector, have the bits that they have among 130."""
    start = np.random.default_rng(0).normal(size=(130, 3))
    system = md.Map(sizes.bowl(3, symbols), RULES[rule], md.GaussianNoise([0.1, 0.2, 0.3]))
    sizes.check_company(system, start, range(1, 130))


@pytest.mark.parametrize("points", [1, 3, 4, 5, 8, 64, 65, 130])
@pytest.mark.parametrize("samples", [1, 8, 64])
def test_one_step_on_points(samples, points):
    """`Map.step` on several points of data sets that fill blocks of eight is the gradient step at each of them."""
    loss, _, _ = sizes.regression(samples)
    w = np.random.default_rng(points).normal(size=(points, 2))
    got = md.Map(loss, md.SGD(0.5), md.Reshuffle(min(samples, 8))).step(w, noise=False)
    np.testing.assert_allclose(got, w - 0.5 * loss.grad(w), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("units", SOME)
def test_derivatives_for_any_number_of_units(units):
    """Value to third derivative, with several columns of data and loops over units, at points of any shape."""
    for samples, lead in zip((1, 5, 64, 130), ((), (5,), (2, 3), (0,)), strict=True):
        sizes.check_derivatives(units, samples, lead)


def test_derivatives_for_any_number_of_samples_and_points():
    """1 to 130 samples, at 130 points to 1."""
    for samples, points in zip(SPREAD, reversed(SPREAD), strict=True):
        sizes.check_derivatives(3, samples, (points,))


@pytest.mark.parametrize("size", SOME)
def test_derivatives_of_any_number_of_symbols(size):
    """The same without loops."""
    sizes.check_symbols(size, 9)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 24, 33, 130])
def test_rules_and_gaussian_noise(size):
    """Rules with each kind of Gaussian noise, in any number of parameters: the twin's steps, alone as in company."""
    at = size.bit_length()
    sizes.check_gaussian(size, SIGMAS[size % 3], [*RULES][at % 8], False, SPREAD[at + 4])
    sizes.check_gaussian(min(size, 25), SIGMAS[at % 4], [*RULES][(at + 3) % 8], True, SPREAD[at + 13])


@pytest.mark.parametrize("symbols", [True, False])
def test_flows_from_any_number_of_points(symbols):
    """Adaptive solves of any number of starting points, in lanes and one after the other."""
    sizes.check_gradient_flow(3, symbols, SPREAD)


@pytest.mark.parametrize("kind", ["matrix", "functions"])
def test_stochastic_flows_on_any_number_of_paths(kind):
    """Schemes with noise on any number of paths, in lanes and one by one."""
    sizes.check_stochastic_flow(3, kind, True, SPREAD)


def test_any_number_of_lanes_gives_the_same_bits():
    """Maps, flows and derivatives on four lanes (or eight, where four are what this processor has)."""
    script = Path(sizes.__file__)
    other = {"MINIDYN_LANES": "8" if lane_count() == 4 else "4", "PYTHONPATH": str(script.parents[1])}
    found = subprocess.run([sys.executable, script, "bits"], env=os.environ | other, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == sizes.fingerprint()
