"""Files that were damaged or made by somebody else: short forms of the commands in `tests/fuzz`."""

import io
from collections import Counter

import checkpoints
import expressions
import h5py
import kills
import modelfiles
import numpy as np
import pytest
import resultfiles
import sympy as sp
import workers

import minidyn as md
from minidyn.files.results import index
from minidyn.graph import special
from minidyn.simulate.run import Run


def test_result_files(tmp_path):
    """60 files, damaged, sealed again, or with another index: what was saved, or one sentence."""
    assert resultfiles.failures(seed=1, count=60, folder=tmp_path) == 0


def test_model_files(tmp_path):
    """250 malformed model files: a model or one sentence."""
    assert modelfiles.failures(seed=3, count=250, folder=tmp_path) == 0


def test_checkpoints(tmp_path):
    """25 damaged checkpoints of five kinds of run: the same bits, or one sentence."""
    assert checkpoints.failures(seed=2, count=25, place=tmp_path) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kills(capfd):
    """A map and a comparison that are stopped four times each end with the same bits."""
    assert kills.failures(seed=1, count=4, kinds=("map", "compare")) == 0


def test_killed_workers():
    """Six workers of a pool that are killed at random instants leave no trace in an ensemble."""
    assert workers.failures(seed=1, kills=6, pause=0.3) == 0


@pytest.mark.parametrize("paths, saves, dim", [(1, 1, 1), (1, 130, 3), (7, 33, 64), (64, 65, 1), (130, 17, 5)])
def test_the_index_says_what_hdf5_says(paths, saves, dim, tmp_path, monkeypatch):
    """Numbers found by the index are those that HDF5 finds, packed, plain or mapped, of every kind."""
    rng = np.random.default_rng(paths)
    w = rng.normal(size=(paths, saves, dim)).round(1)
    seen = {"f": w[:, :, 0], "i": (w[:, :, 0] * 10).astype(np.int32), "b": w[:, :, 0] > 0, "h": w[:, :, 0].astype("f4")}
    run = Run(np.arange(saves), np.arange(saves) * 0.1, w, seen, np.zeros(paths, np.int8), np.zeros(paths, np.int64),
              [f"p{i}" for i in range(dim)], {})  # fmt: skip
    for mapped, name in ((index.MAPPED, "small"), (1000, "large")):
        monkeypatch.setattr(index, "MAPPED", mapped)
        run.save(tmp_path / f"{name}.h5")
        back = md.load(tmp_path / f"{name}.h5")
        assert back.digest() == run.digest()
        with h5py.File(tmp_path / f"{name}.h5") as file:
            for key, values in {"w": back.w, **back.observables}.items():
                np.testing.assert_array_equal(file[key][...], values)


def test_what_is_not_packed_so_is_refused():
    """Sizes that gzip cannot reach, places outside the file and types that are no numbers, before anything is read."""
    reader = object.__new__(index.Reader)
    reader.end, reader.taken = 1000, 0
    for kind, shape, at, packed, says in (
        ("<f8", [10**12], 0, 900, "can be packed"), ("<f8", [126], 0, 0, "outside"), ("<f8", [1], 993, 0, "outside"),
        ("<f8", [10**9, 0], 1001, 0, "outside"), ("|O8", [1], 0, 0, "are none"), ("<c16", [1], 0, 0, "are none"),
        ("<f8", [-1], 0, 0, "are none"), ("<f8", [True], 0, 0, "are none"), ("<f8", [1.0], 0, 0, "are none"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            reader._numbers(kind, shape, at, packed)
    reader.file = io.BytesIO(bytes(1000))
    for shape, at in (([125], 0), ([1], 992), ([10**9, 0], 1000)):  # what just fits is read
        assert reader._numbers("<f8", shape, at, 0).shape == tuple(shape)


@pytest.mark.parametrize("order, count", [(1, 100), (3, 25)])
def test_expressions(order, count):
    """Random expressions over the whole language, values and derivatives: what mpmath finds, or NaN."""
    assert expressions.failures(seed=4, count=count, order=order) == 0


def test_a_wrong_value_does_not_hide_behind_its_bound():
    """An error of 1e-13 in an elementary function, of 1e-11 in a special one, in value or slopes, is seen: parts of the
    largest of these."""
    x, y = expressions.x, expressions.y
    at, seen = {x: 0.7310585786300049, y: 0.2449186624037092}, Counter()
    for kind, form in expressions.signatures():
        places = iter((x, x + y, y))
        e = kind(*(next(places) if a == "x" else sp.Integer(2) for a in form), evaluate=False)
        try:
            want = expressions.expected(e, at, 2)
        except expressions.Undefined:
            e = e.xreplace({x: x + 2})  # acosh, acoth, ...
            want = expressions.expected(e, at, 2)
        exact = np.array([[float(c * k) for c, k in zip(want.c, (1, 1, 2), strict=True)], [0.0] * 3])
        assert not expressions.wrong(e, at, exact, seen), e
        for k in np.flatnonzero(exact[0]):
            moved = exact.copy()
            moved[0, k] += (1e-11 if kind in special.READINGS else 1e-13) * np.abs(exact).max()
            assert expressions.wrong(e, at, moved, seen), (e, k)
    assert seen["compared"] > 6 * len(expressions.signatures())
