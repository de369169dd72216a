"""How many threads a run may use: never more than the machine, or the control group that this process is in, gives."""

import math
import os
from functools import cache
from pathlib import Path

from minidyn.common.intake import whole

_ROOT = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")


def thread_count(threads: int | None) -> int:
    """How many threads to use: at most `threads`, and never more than there are processors for this process."""
    return cores() if threads is None else min(whole("threads", threads, 1), cores())


@cache
def cores() -> int:
    """Processors that this process may use: by its affinity, and by the quotas of its control groups (Linux)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, math.ceil(min(available, quota(_ROOT, _GROUPS))))


def quota(root: Path, groups: Path) -> float:
    """The least quota of processor time, in processors, of the groups in a file like /proc/self/cgroup; or infinity.

    A line `0::/a/b` is a group of version 2, `4:cpu,cpuacct:/a/b` one of version 1; those above it bind as well.
    """
    least = math.inf
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return least
    for line in lines:
        _, _, rest = line.partition(":")
        kinds, _, name = rest.partition(":")
        if kinds and "cpu" not in kinds.split(","):
            continue
        for top in [root] if not kinds else [root / "cpu", root / kinds]:
            inside = Path(name.lstrip("/"))
            least = min([least, *(_of_group(top / part, bool(kinds)) for part in [inside, *inside.parents])])
    return least


def _of_group(folder: Path, old: bool) -> float:
    """The quota of one group, infinite where it has none."""
    try:
        if old:
            given, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        else:
            given, period = (folder / "cpu.max").read_text().split()
        share = math.inf if given.strip() == "max" else float(given) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
    return share if share > 0 else math.inf
