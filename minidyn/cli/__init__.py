"""The command line: `minidyn run valley` and its siblings.

A command computes, writes its files, and returns what it has to say; only then anything is printed. So a closed pipe
or a full disk behind stdout costs no result.

Exit codes: 0 done, 1 a run failed, 2 wrong usage or input, 130 interrupted. An error is one sentence on stderr.
"""

import gc
import sys
from contextlib import suppress
from typing import Any, NoReturn

from minidyn.cli import studies, sweeps  # noqa: F401  # their commands
from minidyn.cli.commands import app
from minidyn.cli.shell import give_up, run


def main() -> NoReturn:
    """Run the command line and exit."""
    gc.set_threshold(200_000, 50, 50)  # a short process: looking for cycles would take a tenth of its time
    stream: Any
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # none, or none of Python's own
            stream.reconfigure(errors="replace")
    code = call(sys.argv[1:])
    try:
        sys.stdout.flush()
    except (OSError, AttributeError):
        give_up(sys.stdout)
    gc.freeze()  # nor are there cycles to look for while everything goes
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run one command; its exit code. Errors become one sentence on stderr."""
    return run(app, arguments)
