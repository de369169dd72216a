"""Settings for every test.

Kernels are cached where they are for a user, so that a second run is fast; MINIDYN_CACHE_DIR moves them. Several test
processes share that folder: a test that counts files in it asks for `empty_cache`.
"""

import os
import signal

import hypothesis
import pytest

from minidyn.compiler import cache
from minidyn.simulate import threads

os.environ.setdefault("MPLBACKEND", "Agg")  # no windows, in subprocesses too

# A first call compiles, so no deadline; the same examples every time, so a failure can be seen again.
hypothesis.settings.register_profile("minidyn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("minidyn")

# A shell starts what it runs in the background with Ctrl-C ignored; tests of it want Python's own way.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def sixteen_cores(monkeypatch):
    """Runs may use as many threads as a test asks for, whatever this machine has."""
    monkeypatch.setattr(threads, "cores", lambda: 16)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache folder of its own for one test, and no kernel module in memory."""
    monkeypatch.setenv("MINIDYN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_loaded", {})
    cache.folder.cache_clear()
    yield tmp_path / "cache"
    monkeypatch.undo()
    cache.folder.cache_clear()
