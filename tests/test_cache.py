"""The cache is code that runs: it is this user's or nobody's, damage is made again, and none is no error."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sympy as sp

import minidyn as md
from minidyn.common import wholefiles
from minidyn.compiler import cache, jit, llvm
from minidyn.compiler.types import F8

x, y = sp.symbols("x y")


@jit
def raised(v):
    return v + 1.5


@pytest.fixture(autouse=True)
def forgetful():
    """A function without code."""
    raised.entries.clear()
    raised.addresses.clear()


def fuzzed(*arguments):
    """What the fuzzer of caches says, in a process that has no kernels in memory."""
    command = [sys.executable, str(Path(__file__).parent / "fuzz" / "cachefiles.py"), *arguments]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(command, env=here, capture_output=True, text=True).stdout


def again():
    """The function compiled or read once more."""
    raised.entries.clear()
    raised.addresses.clear()
    return raised(1.0)


def test_damaged_caches_give_the_same_bits_and_run_nothing():
    """Six processes with other bytes, pipes, folders and planted code in their cache."""
    assert fuzzed("--seed", "4", "--files", "6").endswith("6 damaged caches, 0 failures\n")


def test_processes_that_start_together_on_an_empty_cache():
    """Three processes at once have the same bits, leave nothing unfinished, and compile every kernel once in all."""
    assert fuzzed("--together", "3").startswith("3 processes, 0 failures")


def test_nobody_waits_for_a_dead_process_or_for_ever(empty_cache, monkeypatch):
    """The lock of a process that died is free; of one that hangs it is waited for a while, and code is made anyhow."""
    holder = """
import sys, time
from minidyn.compiler import cache
with cache._alone(sys.argv[1]):
    print("holds", flush=True)
    time.sleep(100)
"""
    key = raised.hash((F8,))
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    child = subprocess.Popen([sys.executable, "-c", holder, key], env=here, stdout=subprocess.PIPE)
    with child:
        try:
            assert child.stdout.readline() == b"holds\n"
            monkeypatch.setattr(cache, "_PATIENCE", 0.2)
            began = time.monotonic()
            assert raised(1.0) == 2.5 and time.monotonic() - began > 0.2
        finally:
            child.kill()
    md.cache.clear()
    (empty_cache / f"minidyn_kernel_{key}.lock").touch()
    monkeypatch.setattr(cache, "_PATIENCE", 1e9)
    assert again() == 2.5 and not list(empty_cache.glob("*.lock"))


def test_modules_run_from_memory(empty_cache, monkeypatch):
    """A module is the text that was asked for, whatever its file or byte code beside it says; nothing is imported."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    text = "def value():\n    return 7\n"
    path = Path(cache.load_module(text).__file__)
    path.write_text("raise SystemExit")
    (empty_cache / "__pycache__").mkdir()
    (empty_cache / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc").write_bytes(b"\xcb\r\r\n")
    monkeypatch.setattr(cache, "_loaded", {})
    assert cache.load_module(text).value() == 7 and path.read_text() == text
    md.Loss(x**2 + sp.cosh(y), [x, y]).hessian([1.0, 2.0])
    assert len(list((empty_cache / "__pycache__").iterdir())) == 1


def test_an_error_in_a_module_leaves_none(empty_cache):
    """A module whose text fails is not taken for a loaded one."""
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.load_module("1 / 0\n")


def test_tracebacks_show_generated_text(empty_cache):
    """The line of a generated module stands in a traceback though its file is gone."""
    import traceback

    module = cache.load_module("def fails():\n    return 1 / 0  # here\n")
    shutil.rmtree(empty_cache)
    with pytest.raises(ZeroDivisionError) as error:
        module.fails()
    assert "return 1 / 0  # here" in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_is_no_error(code, empty_cache, monkeypatch):
    """Without room or permission code runs as well, and nothing is left in the folder."""

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(wholefiles, "_unfinished", refuse)
    assert raised(1.0) == 2.5 and cache.load_module("v = 1\n").v == 1
    assert list(empty_cache.iterdir()) == [] and md.cache.info().modules == 0


def test_a_folder_cleared_meanwhile_is_made_again(empty_cache):
    """Whatever happens to the folder between two functions, the next one is compiled and kept, for this user alone."""
    raised(1.0)
    shutil.rmtree(empty_cache)
    assert again() == 2.5 and len(list(empty_cache.glob("*.o"))) == 1
    assert empty_cache.stat().st_mode & 0o077 == 0 and all(p.stat().st_mode & 0o077 == 0 for p in empty_cache.iterdir())
    shutil.rmtree(empty_cache)
    empty_cache.write_text("a file")
    assert again() == 2.5 and empty_cache.read_text() == "a file"
    assert (md.cache.info().modules, md.cache.clear()) == (0, None)


def test_no_folder_at_all(tmp_path, monkeypatch):
    """Where neither folder can be made nothing is kept, and `info` says so."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIDYN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(cache.platformdirs, "user_cache_dir", lambda _: str(tmp_path / "file" / "too"))
    monkeypatch.setattr(cache, "_loaded", {})
    monkeypatch.setattr(cache, "folder", cache.folder.__wrapped__)
    assert cache.folder() is None and again() == 2.5 and cache.load_module("v = 1\n").v == 1
    assert str(md.cache.info()).startswith("no kernels are kept")
    md.cache.clear()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no owners of files")
def test_a_folder_of_others_is_not_used(tmp_path, monkeypatch):
    """A folder that others may write to, or that is not mine, keeps nothing, unless all are trusted."""
    place = tmp_path / "cache"
    monkeypatch.setenv("MINIDYN_CACHE_DIR", str(place))
    monkeypatch.setattr(cache, "folder", cache.folder.__wrapped__)
    assert cache.folder() == place and place.stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o707, 0o777, 0o1777):
        place.chmod(mode)
        with pytest.warns(UserWarning, match=r"others may write there, so no kernels .*CACHE_SHARED=1\.$"):
            assert cache.folder() is None
    place.chmod(0o755)
    assert cache.folder() == place
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 4321)
        with pytest.warns(UserWarning, match="belongs to somebody else"):
            assert cache.folder() is None
        patch.setattr(cache, "_shared", lambda: True)
        assert cache.folder() == place
    place.chmod(0o777)
    monkeypatch.setattr(cache, "_shared", lambda: True)
    assert cache.folder() == place


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no owners of files")
def test_files_of_others_are_not_run(empty_cache, monkeypatch):
    """Code that somebody else wrote, or may write, is made again; users who trust each other read each other's."""
    raised(1.0)
    (path,) = empty_cache.glob("*.o")
    mine = path.stat().st_ino
    path.chmod(0o666)
    assert again() == 2.5 and path.stat().st_ino != mine and path.stat().st_mode & 0o077 == 0
    mine = path.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 4321)
        assert again() == 2.5 and path.stat().st_ino != mine
        patch.setattr(cache, "_shared", lambda: True)
        patch.setattr(llvm, "optimize", None)
        assert again() == 2.5


def test_code_under_another_name_is_damage(empty_cache):
    """A whole file of one function is not taken for another's."""
    raised(1.0)
    (path,) = empty_cache.glob("*.o")
    kept, other = path.read_bytes(), path.with_name(path.name.replace(path.stem[-40:], "0" * 40))
    other.write_bytes(kept)
    assert cache.read_code("0" * 40) is None and cache.read_code(path.stem[-40:]) is not None


@pytest.mark.parametrize("bad", ["abc", "-1", "nan", ""])
def test_a_size_that_is_none_is_refused(bad, monkeypatch):
    """MINIDYN_CACHE_MB is a number."""
    monkeypatch.setenv("MINIDYN_CACHE_MB", bad)
    with pytest.raises(md.InputError, match=rf"MINIDYN_CACHE_MB is '{bad}'; it must be a number of megabytes"):
        cache.folder.__wrapped__()


# -- threads and forks ---------------------------------------------------------------------------------------


def test_threads_compile_together(empty_cache):
    """Sixteen threads that want the same new kernels at once get the same bits."""

    def work(number):
        start.wait()
        system = md.Map(loss, md.SGD(0.1), md.GaussianNoise(0.1))
        found[number] = loss.hessian([0.5, 0.25]).tobytes(), md.simulate(system, [1.0, 0.5], 5, rng=0).digest()

    loss, start, found = md.Loss(sp.sin(x) * y**2 + x**2, [x, y]), threading.Barrier(16), {}
    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 and len(set(found.values())) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_another_thread_compiles(empty_cache):
    """A child of a process whose other thread compiles can compile, make maps and rules, and ends."""
    loss = md.Loss(sp.exp(x) * y**2 + x**4, [x, y])

    def compiling():
        while not stop.is_set():
            again()
            vars(loss).pop("kernels", None)
            md.Loss(sp.exp(x) * y**2 + x**4, [x, y]).hessian([1.0, 2.0])
            md.GD(0.1)

    stop, expected = threading.Event(), loss.hessian([1.0, 2.0])[0, 0]
    thread = threading.Thread(target=compiling)
    thread.start()
    try:
        for _ in range(4):
            child = os.fork()
            if child == 0:
                good = again() == 2.5 and md.Loss(sp.exp(x) * y**2 + x**4, [x, y]).hessian([1.0, 2.0])[0, 0] == expected
                os._exit(not (good and md.rule(lambda t, g, *, lr: t - lr * g)(0.1).hyper["lr"] == 0.1))
            deadline = time.monotonic() + 60
            while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
            if ended[0] == 0:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            assert ended[0] == child and ended[1] == 0
    finally:
        stop.set()
        thread.join()


# -- what dead processes leave -------------------------------------------------------------------------------


@pytest.mark.skipif(not wholefiles.LOCKS, reason="this system has no file locks")
def test_what_a_dead_process_was_writing_is_removed(tmp_path):
    """A process killed while it writes leaves a file that the next writer removes; what is being written stays."""
    child = os.fork()
    if child == 0:
        wholefiles.write_whole(tmp_path / "a", lambda file: (file.write(b"half"), os.kill(os.getpid(), 9)))
    os.waitpid(child, 0)
    (left,) = tmp_path.glob(".minidyn-*.tmp")

    def meanwhile(file):
        wholefiles.write_whole(tmp_path / "c", lambda file: file.write(b"inner"))
        file.write(b"outer")

    wholefiles.write_whole(tmp_path / "b", meanwhile)
    assert not left.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["b", "c"]
    assert (tmp_path / "b").read_bytes() == b"outer"
