"""Results come back from a file bit for bit, or an error says in one sentence why they cannot."""

import errno
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from minidyn.common.errors import ArchiveError, InputError
from minidyn.common.status import Status
from minidyn.common.wholefiles import write_sealed
from minidyn.compare.comparison import Comparison, ErrorRow
from minidyn.files import results
from minidyn.simulate.run import QUANTILES, Run

META = {
    "system": "Map(SGD)",
    "seed": str(2**100),
    "lr": 0.1,
    "paths": 3,
    "minidyn": "0.1.0",
    "wall_seconds": 1e-3,
}
ODD = {  # keys and values that no netCDF attribute holds as they are
    "none": None, "yes": True, "big": 2**200, "nested": {"a": [1, 2.5, {"b": None}]}, "": "", "_x": 1, "a/b": 2,
    "a b": 3, "nul": "a\0b", "half": "\ud800", "CLASS": "c", "NAME": "n", "title": "T", "coordinates": "c d",
    "minidyn_json": "z", "minidyn/x": 4, "inf": -np.inf, "long": "x" * 100_000, "lines": "a\nb", "λ": "η",
}  # fmt: skip


def make_run(paths=3, times=5, seed=0, **changes):
    """A run with a NaN tail, awkward bits and observables whose names are odd or already taken."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(paths, times, 2))
    w[-1, times // 2 :] = np.nan
    w[0, 0] = -0.0, 5e-324
    names = ["x**2/y", "x_2_y", "w", "status", "time", "path", "loss", ".", "λ", "a\0b", "q" * 300]
    parts = {
        "steps": np.arange(times) * 10,
        "time": np.arange(times) * 0.1,
        "w": w,
        "observables": {name: rng.normal(size=(paths, times)) for name in names},
        "status": np.arange(paths, dtype=np.int8) % 8,
        "ended": np.arange(paths) * 10,
        "names": ["x", "x_{1}"],
        "meta": dict(META),
    }
    return Run(**parts | changes)


def make_moments(names, times=5):
    """What `keep="moments"` keeps."""
    rng = np.random.default_rng(1)
    shapes = {"mean": (times,), "variance": (times,), "quantiles": (len(QUANTILES), times), "count": (times,)}
    return {name: {stat: rng.normal(size=shape) for stat, shape in shapes.items()} for name in names}


def make_comparison(**changes):
    """A map with three paths beside two flows with one, one of them with an awkward label."""
    runs = {"SGD": make_run(), "QuasistaticFlow (frozen)": make_run(1, seed=1), "a/b'": make_run(1, seed=2)}
    row = ErrorRow("x", "a/b'", 40, 4.0, 1.0, 0.5, 1.25, 0.0, 0.25, np.nan, -np.inf, 3)
    parts = {
        "runs": runs,
        "quantities": {q: {label: r.observables[q][:, ::2] for label, r in runs.items()} for q in ("loss", ".")},
        "steps": runs["SGD"].steps[::2],
        "time": runs["SGD"].time[::2],
        "errors": [row, row],
        "meta": dict(META),
    }
    return Comparison(**parts | changes)


def assert_same(a, b):
    """Same types, same order, same bits, all the way down."""
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, Run | Comparison | ErrorRow):
        assert type(a) is type(b)
        for part in fields(a):
            assert_same(getattr(a, part.name), getattr(b, part.name))
    else:
        assert (type(a), repr(a)) == (type(b), repr(b))


def error_of(call, *arguments):
    """The text of the ArchiveError that a call raises: one sentence on one line."""
    with pytest.raises(ArchiveError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text
    return text


RESULTS = {
    "run": make_run,
    "one path": lambda: make_run(1, 1),
    "large": lambda: make_run(40, 200),
    "odd meta": lambda: make_run(meta=ODD),
    "no meta": lambda: make_run(meta={}),
    "moments": lambda: make_run(w=None, observables={}, moments=make_moments(["x", "x**2/y", "mean", "a\0b"])),
    "unlike moments": lambda: make_run(
        moments=make_moments("ab") | {"c": {"mean": np.arange(5), "mean/2": np.ones(5, bool)}}
    ),
    "comparison": make_comparison,
    "no errors": lambda: make_comparison(errors=[]),
    "no quantities": lambda: make_comparison(quantities={}),
    "odd rows": lambda: make_comparison(
        errors=[ErrorRow("", "\0", 2**70, *[1.0] * 8, 0), ErrorRow("\ud800", "", -1, *[np.nan] * 8, 2**80)]
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_round_trip(name, tmp_path):
    """What is loaded is what was saved: every bit, type, name and order."""
    result = RESULTS[name]()
    assert_same(results.load(results.save(result, tmp_path / "result.h5")), result)


def test_loaded_results_save_the_same_bytes(tmp_path):
    """Saving what was loaded gives the same file, so nothing gets lost over generations."""
    first = results.save(make_comparison(meta=ODD), tmp_path / "first.h5")
    second = results.save(results.load(first), tmp_path / "second.h5")
    assert first.read_bytes() == second.read_bytes()


def test_meta_comes_back_as_json_has_it(tmp_path):
    """Tuples and arrays in `meta` come back as lists, numpy numbers as numbers, other objects as their text."""
    meta = {"w0": np.array([[1.0, 2.0]]), "pair": (1, 2), "n": np.int64(3), "kind": Status.DIVERGED, "o": 1j}
    loaded = results.load(results.save(make_run(meta=meta), tmp_path / "run.h5"))
    assert loaded.meta == {"w0": [[1.0, 2.0]], "pair": [1, 2], "n": 3, "kind": 1, "o": "1j"}


def test_large_arrays_are_compressed(tmp_path):
    """A path that ended early, NaN from there on, costs next to nothing."""
    run = make_run(10, 5000, observables={})
    run.w[:, 100:] = np.nan
    assert results.save(run, tmp_path / "run.h5").stat().st_size < run.w.nbytes / 5


def test_xarray_labels_a_run(tmp_path):
    """xarray opens a run's root group with labelled dimensions, coordinates and the bits of `to_xarray`."""
    run = make_run(moments=make_moments(["x", "loss"]))
    path = results.save(run, tmp_path / "run.h5")
    with xr.open_dataset(path, engine="h5netcdf") as data:
        assert data.w.dims == ("path", "step", "parameter")
        assert data.loss.dims == ("path", "step")
        assert data.quantiles.dims == ("quantity", "quantile", "step")
        assert set(data.coords) == {"path", "step", "time", "parameter", "quantity", "quantile"}
        assert list(data.parameter.values) == run.names
        assert data.w.sel(parameter="x_{1}", step=10).values.tobytes() == run.w[:, 1, 1].tobytes()
        assert data.mean("path").loss.time.values.tobytes() == run.time.tobytes()
        assert data["mean"].sel(quantity="loss").values.tobytes() == run.moments["loss"]["mean"].tobytes()
        assert data.x_2_y.attrs["quantity"] == "x**2/y"
        assert data.attrs["seed"] == run.meta["seed"] and data.attrs["lr"] == 0.1
        assert (data.attrs["minidyn_format"], data.attrs["minidyn_kind"]) == (2, "run")


def test_xarray_labels_every_group_of_a_comparison(tmp_path):
    """xarray opens every group of a comparison, and none has a dimension without coordinates."""
    names = ["SGD", "QuasistaticFlow_frozen", "a_b"]
    path = results.save(make_comparison(), tmp_path / "comparison.h5")
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree.attrs["title"] == "SGD and QuasistaticFlow (frozen) and a/b'"
        groups = set(tree.groups)
    assert groups == {"/", "/quantities", "/errors", "/runs", *(f"/runs/{name}" for name in names)}
    for group in groups:
        with xr.open_dataset(path, engine="h5netcdf", group=group) as data:
            assert set(data.dims) <= set(data.indexes)
            assert not any("phony" in str(dim) for dim in data.dims)
    with xr.open_dataset(path, engine="h5netcdf", group="runs/a_b") as data:
        assert data.attrs["minidyn_label"] == "a/b'"
    with xr.open_dataset(path, engine="h5netcdf", group="quantities") as data:
        assert data.loss_SGD.dims == ("path", "step") and data.loss_a_b.dims == ("path_1", "step")
    with xr.open_dataset(path, engine="h5netcdf", group="errors") as data:
        assert list(data.flow.values) == ["a/b'"] * 2 and data.difference.dims == ("row",)


@pytest.mark.parametrize("name", ["run", "lr0.05", "a.nc", "new/folder/run"])
def test_extension_and_folders(name, tmp_path):
    """`.h5` is added where there is no extension, missing folders are made, and `load` takes the same name."""
    written = results.save(make_run(), tmp_path / name)
    assert written == (tmp_path / (name if name == "a.nc" else name + ".h5")).resolve()
    assert_same(results.load(str(tmp_path / name)), make_run())


def test_a_link_stays_a_link(tmp_path):
    """Saving to a symbolic link writes the file that it points to."""
    (tmp_path / "latest.h5").symlink_to(tmp_path / "run.h5")
    assert results.save(make_run(), tmp_path / "latest.h5").name == "run.h5"
    assert (tmp_path / "latest.h5").is_symlink()


@pytest.mark.parametrize("door", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), MemoryError()])
def test_interrupted_save_keeps_the_older_file(door, failure, tmp_path, monkeypatch):
    """Whatever stops a save, the older file is whole and nothing else is left in the folder."""
    path = results.save(make_run(), tmp_path / "run.h5")
    before = path.read_bytes()

    def stop(*_):
        raise failure

    monkeypatch.setattr(os, door, stop)
    with pytest.raises(ArchiveError if isinstance(failure, OSError) else type(failure)):
        results.save(make_run(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.h5"]


def test_killed_save_keeps_the_older_file(tmp_path):
    """A process that dies just before the rename leaves the older file as it was."""
    path = results.save(make_run(), tmp_path / "run.h5")
    die = "os.replace = lambda *_: os._exit(9)"
    code = f"import os, sys; from minidyn.files.results import load, save; {die}; save(load(sys.argv[1]), sys.argv[1])"
    before = path.read_bytes(), path.stat().st_ino
    environment = os.environ | {"PYTHONPATH": str(Path(results.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code, path], env=environment).returncode == 9
    assert before == (path.read_bytes(), path.stat().st_ino)
    assert_same(results.load(path), make_run())


@pytest.mark.parametrize(
    "code, advice",
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "choose another folder"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "shorter"),
        (errno.EIO, "choose another path"),
    ],
)
def test_what_the_system_refuses_becomes_advice(code, advice, tmp_path, monkeypatch):
    """Each reason for which a system refuses to write becomes a sentence that says what to do."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    text = error_of(results.save, make_run(), tmp_path / "run.h5")
    assert advice in text and "run.h5" in text
    assert not os.listdir(tmp_path)


def test_no_room_for_the_file(tmp_path):
    """A file that really does not fit is an error, not a crash, and leaves nothing behind."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        text = error_of(results.save, make_run(), tmp_path / "run.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "too large" in text and not os.listdir(tmp_path)


def test_places_that_are_no_file(tmp_path):
    """Folders, paths through a file, names that are too long and values that are no path are refused."""
    (tmp_path / "results").mkdir()
    (tmp_path / "file").write_text("")
    assert "folder" in error_of(results.save, make_run(), tmp_path / "results")
    assert "folder" in error_of(results.save, make_run(), tmp_path)
    assert "is a file" in error_of(results.save, make_run(), tmp_path / "file" / "run.h5")
    assert "is a file" in error_of(results.save, make_run(), tmp_path / "file" / "deeper" / "run.h5")
    assert "shorter" in error_of(results.save, make_run(), tmp_path / ("a" * 300 + ".h5"))
    for path in (None, 3, "a\0b"):
        assert "is not a path" in error_of(results.save, make_run(), path)
        assert "is not a path" in error_of(results.load, path)
    assert sorted(os.listdir(tmp_path)) == ["file", "results"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(tmp_path):
    """A folder without permission to write is named, with what to do."""
    tmp_path.chmod(0o500)
    try:
        assert "permissions" in error_of(results.save, make_run(), tmp_path / "run.h5")
    finally:
        tmp_path.chmod(0o700)


def test_results_that_do_not_fit_together(tmp_path):
    """A result whose parts disagree, or that netCDF cannot hold, is refused before anything is written."""
    unfit = {"path: 3, step: 5": np.zeros((3, 4)), "complex128": np.zeros((3, 5), complex)}
    unfit["cannot hold"] = np.full((3, 5), None)
    for words, values in unfit.items():
        assert words in error_of(results.save, make_run(observables={"loss": values}), tmp_path / "a")
    with pytest.raises(InputError, match="give a Run or another result"):
        results.save({"w": 1}, tmp_path / "a")
    assert not os.listdir(tmp_path)


def test_files_that_are_not_ours(tmp_path):
    """Missing, empty and foreign files are told apart, and none is read as a result."""
    file = tmp_path / "file.h5"
    assert "no file" in error_of(results.load, file)
    assert "folder" in error_of(results.load, tmp_path)
    for text in (b"", b"\x89HDF", b"not HDF5 at all\n" * 100):
        file.write_bytes(text)
        assert "not HDF5" in error_of(results.load, file)
    with h5py.File(file, "w") as foreign:
        foreign["w"] = np.zeros(3)
    assert "not a minidyn result" in error_of(results.load, file)
    make_run(observables={}).to_xarray().to_netcdf(file, engine="h5netcdf")
    assert "not a minidyn result" in error_of(results.load, file)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.h5")
        assert "no file" in error_of(results.load, tmp_path / "pipe.h5")


@pytest.mark.parametrize("version, words", [(3, "newer minidyn"), (10**6, "newer minidyn"), (0, "not a minidyn")])
def test_other_formats(version, words, tmp_path, monkeypatch):
    """A file of a later format asks for an upgrade; what is not sealed any longer is not read at all."""
    monkeypatch.setattr(results.layout, "FORMAT", version)
    path = results.save(make_run(), tmp_path / "run.h5")
    monkeypatch.undo()
    assert words in error_of(results.load, path)
    path = results.save(make_run(), path)
    with h5py.File(path, "r+") as file:
        file.attrs["minidyn_format"] = version
    assert "truncated or damaged" in error_of(results.load, path)


def test_whole_files_of_another_layout(tmp_path):
    """A sealed file of a kind, or with parts, that this minidyn does not know is refused."""
    tree = results.layout.run_tree(make_run())
    tree.attrs["minidyn_kind"] = "zoo"
    write_sealed(tmp_path / "a.h5", lambda file: file.write(results.file.image_of(tree)))
    assert "zoo" in error_of(results.load, tmp_path / "a.h5")
    tree = results.layout.comparison_tree(make_comparison())
    del tree.groups["errors"].variables["sigmas"]
    write_sealed(tmp_path / "b.h5", lambda file: file.write(results.file.image_of(tree)))
    assert "laid out differently" in error_of(results.load, tmp_path / "b.h5")


@pytest.mark.parametrize("damage", ["truncated", "zeroed tail", "flipped bit", "longer"])
def test_damage_is_never_read(damage, tmp_path):
    """A file that was cut, zeroed, flipped or extended anywhere is an error, whatever HDF5 makes of it."""
    data = results.save(make_run(), tmp_path / "run.h5").read_bytes()
    file = tmp_path / "damaged.h5"
    for place in [*range(0, len(data), 997), *range(len(data) - 60, len(data))]:
        damaged = {
            "truncated": data[:place],
            "zeroed tail": data[:place] + bytes(len(data) - place),
            "flipped bit": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
            "longer": data + data[:place] + b"\n",
        }[damage]
        file.write_bytes(damaged)
        error_of(results.load, file)


def test_edited_files_are_refused(tmp_path):
    """A number changed with another program is noticed."""
    path = results.save(make_run(), tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        file["w"][0, 0, 0] = 1.0
    assert "truncated or damaged" in error_of(results.load, path)


def test_a_locked_file_is_what_it_was(tmp_path):
    """A file that another program has locked, and not changed, is loaded."""
    fcntl = pytest.importorskip("fcntl")
    path = results.save(make_run(), tmp_path / "run.h5")
    with path.open("rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert_same(results.load(path), make_run())
    assert_same(results.load(path), make_run())
