"""Settings for every test.

Kernels are cached where they are for a user, so that a second run is fast; MINIDYN_CACHE_DIR moves them.
"""

import os
import signal

import hypothesis

os.environ.setdefault("MPLBACKEND", "Agg")  # no windows, in subprocesses too

# A first call compiles, so no deadline; the same examples every time, so a failure can be seen again.
hypothesis.settings.register_profile("minidyn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("minidyn")

# A shell starts what it runs in the background with Ctrl-C ignored; tests of it want Python's own way.
signal.signal(signal.SIGINT, signal.default_int_handler)
