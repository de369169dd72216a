"""Every size works: numbers of samples, of paths and of parameters that fill blocks and lanes and that do not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sizes
from sizes import SPREAD

import minidyn as md

TURNS = [*itertools.product(sizes.PICKS, sizes.LABELS)]


@pytest.mark.parametrize("batch", SPREAD)
def test_batches(batch):
    """A map on any batch steps as literal numpy does, whatever picks the samples and with labels shifted or not."""
    for turn in range(3):
        picks, labels = TURNS[(5 * SPREAD.index(batch) + 4 * turn) % len(TURNS)]
        samples = {"all": batch, "again": (batch, 7, 130)[turn]}.get(picks, min(130, batch + 3 * turn))
        sizes.check_map_on_data(samples, batch, SPREAD[(batch + 7 * turn) % len(SPREAD)], picks, labels)


@pytest.mark.parametrize("points", [1, 3, 4, 5, 8, 64, 65, 130])
@pytest.mark.parametrize("samples", [1, 8, 64])
def test_one_step_on_points(samples, points):
    """`Map.step` on several points of data sets that fill blocks of eight is the gradient step at each of them."""
    loss, _, _ = sizes.regression(samples)
    w = np.random.default_rng(points).normal(size=(points, 2))
    got = md.Map(loss, md.SGD(0.5), md.Reshuffle(min(samples, 8))).step(w, noise=False)
    np.testing.assert_allclose(got, w - 0.5 * loss.grad(w), rtol=1e-12, atol=1e-13)
