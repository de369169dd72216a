"""How much memory there is: what would not fit is refused before it is taken, with its size."""

import math
import os
from contextlib import suppress
from pathlib import Path

from minidyn.common.errors import InputError

LITTLE = 2.0**24  # bytes, for which nobody looks


def available() -> float:
    """Bytes that this process can still take; infinity where the system does not say."""
    found = [math.inf]
    with suppress(OSError, ValueError, AttributeError):
        found.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        used = float((group / "memory.current").read_text())
        found.append(float((group / "memory.max").read_text()) - used)  # "max" where there is no limit
    return max(min(found), 0.0)


def need(size: float, what: str, advice: str) -> None:
    """Refuse what needs so many bytes where there are fewer: InputError with both sizes."""
    if size <= LITTLE:
        return
    there = available()
    if size > there:
        raise InputError(f"{what} would take {_shown(size)} of memory, and {_shown(there)} are free; {advice}.")


def _shown(size: float) -> str:
    return f"{size / 1e9:{'.3g' if size < 1e15 else '.1e'}} GB"
