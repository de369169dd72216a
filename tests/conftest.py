"""Settings for every test.

Kernels are cached where they are for a user, so that a second run is fast; MINIDYN_CACHE_DIR moves them.
"""

import os

import hypothesis

os.environ.setdefault("MPLBACKEND", "Agg")  # no windows, in subprocesses too

# A first call compiles, so no deadline; the same examples every time, so a failure can be seen again.
hypothesis.settings.register_profile("minidyn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("minidyn")
