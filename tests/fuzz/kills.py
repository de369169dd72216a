"""Runs that are stopped at any instant: the next one goes on to the same bits, or says in one sentence why not.

    python tests/fuzz/kills.py --seed 0 --kills 200

For each kind of work (map, flow with and without noise, comparison, scaling study, command line) a process is stopped
at random instants until one comes to its end: SIGKILL, SIGTERM, SIGINT, a full disk (files may not grow further), the
folder of the checkpoint moved away and back. Prints every result with other bits and every end that is neither the
signal's nor a sentence; ends with 1 if there is any. Processes are forked from one that has imported minidyn.
"""

from __future__ import annotations

import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command
import sympy as sp

import minidyn as md
from minidyn import cli

PATIENCE = 60.0
x, y = sp.symbols("x y")
SGD = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.05), md.GaussianNoise(0.3))
FLOW = md.QuasistaticFlow(SGD)
BRAKES: dict[str, Any] = {"observe": {"q": lambda w: (time.sleep(0.002), w[:, 0])[1]}}  # a run of a tenth of a second


def _simulate(system: Any) -> Callable[[Path, Path], None]:
    def go(checkpoint: Path, out: Path) -> None:
        made = md.simulate(system, [1.0, 0.1], 400, paths=9, save_every=5, rng=1, checkpoint=checkpoint, **BRAKES)
        if (made.status == md.Status.INTERRUPTED).any():
            raise KeyboardInterrupt
        out.write_text(made.digest())

    return go


def _compare(checkpoint: Path, out: Path) -> None:
    made = md.compare(SGD, FLOW, w0=[1.0, 0.0], steps=60, paths=30, save_every=1, rng=1, checkpoint=checkpoint)
    if any((run.status == md.Status.INTERRUPTED).any() for run in made.runs.values()):
        raise KeyboardInterrupt
    out.write_text(repr([run.digest() for run in made.runs.values()]))


def _study(checkpoint: Path, out: Path) -> None:
    made = md.scaling_study(
        SGD, FLOW, lrs=[0.1, 0.05, 0.025], w0=[1.0, 0.0], time=1.0, paths=20, rng=1, checkpoint=checkpoint
    )
    out.write_text(repr(made.rows))


def _command(checkpoint: Path, out: Path) -> None:
    code = cli.call(["run", "valley", "--steps", "200", "--paths", "20", "--save-every", "2", "--no-figure",
                     "--checkpoint", str(checkpoint), "--out", str(out.parent / "result.h5")])  # fmt: skip
    if code:
        os._exit(code)
    made = md.load(out.parent / "result.h5")
    out.write_text(repr([run.digest() for run in made.runs.values()]))


WORK: dict[str, Callable[[Path, Path], None]] = {
    "map": _simulate(SGD),
    "sde": _simulate(md.SymbolicFlow(SGD, [-x, -y], [0.1, 0.2])),
    "ode": _simulate(md.GradientFlow(SGD)),
    "compare": _compare,
    "study": _study,
    "command": _command,
}
ENDS = ("SIGKILL", "SIGTERM", "SIGINT", "full disk", "folder gone")


def start(name: str, place: Path, limit: int | None = None) -> int:
    """A process that does a piece of work in a folder; its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        room = importlib.import_module("minidyn.simulate.checkpoint")
        room.SECONDS = room.SPARE = 0.0
        log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        WORK[name](place / "checkpoint", place / "out")
        code = 0
    except KeyboardInterrupt:
        code = 130
    except md.MinidynError as error:
        code = 3 if str(error).isprintable() else 1
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """How a process ended: its exit code, or minus the signal; -1000 where it did not."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1000


def stopped(name: str, place: Path, how: str, after: float, rng: random.Random) -> str:
    """Stop a piece of work after some seconds; says what was wrong with its end, or nothing."""
    limit = rng.choice((0, 50, 500, 2000, 5000, 20_000)) if how == "full disk" else None
    child = start(name, place, limit)
    signals = {0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
    allowed = {0, 3} if how in ("full disk", "folder gone") else signals
    allowed |= {1, 2} if name == "command" else set()
    if how != "full disk":
        time.sleep(after)
    if how == "folder gone":
        try:
            os.rename(place / "checkpoint", place / "away")
        except OSError:
            how = "nothing"
        else:
            time.sleep(0.02)
            if (place / "checkpoint").exists():  # it was not there yet when it was looked for
                shutil.rmtree(place / "away")
            else:
                os.rename(place / "away", place / "checkpoint")
    elif how != "full disk":
        os.kill(child, getattr(signal, how))
    code = wait(child)
    return "" if code in allowed else f"ended with {code}: {(place / 'log').read_text()[-300:]}"


def failures(seed: int, count: int, kinds: tuple[str, ...] = tuple(WORK)) -> int:
    """How many of so many stops per kind of work go wrong; each is printed."""
    rng, bad, total = random.Random(seed), 0, 0
    for name in kinds:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "whole")
            whole.mkdir()
            began = time.monotonic()
            assert wait(start(name, whole)) == 0, (whole / "log").read_text()
            began = time.monotonic()
            place, expected = Path(folder, "again"), (whole / "out").read_text()
            place.mkdir()
            assert wait(start(name, place)) == 0  # once more, with all kernels in the cache
            length, stops = time.monotonic() - began, 0
            shutil.rmtree(place)
            while stops < count:
                place.mkdir(exist_ok=True)
                how = rng.choice(ENDS)
                wrong = stopped(name, place, how, rng.uniform(0, 0.8 * length), rng)
                stops, total = stops + 1, total + 1
                if rng.random() < 0.3 or (place / "out").exists() or wrong:
                    code = wait(start(name, place))
                    said = (place / "log").read_text()[-300:]
                    found = (place / "out").read_text() if (place / "out").exists() else ""
                    if code or found != expected:
                        wrong += f" then {code}, {'other bits' if found else 'nothing'}: {said}"
                    shutil.rmtree(place)
                if wrong:
                    bad += 1
                    print(f"{name}, stop {stops}, {how}: {wrong}", flush=True)
    print(f"{total} stops, {bad} failures")
    return bad


def main() -> int:
    """Make the stops that the command line asks for."""
    parser = command.parser(__doc__, kills=200)
    parser.add_argument("--only", default="", help="kinds of work, with commas between them")
    wanted = parser.parse_args()
    kinds = tuple(wanted.only.split(",")) if wanted.only else tuple(WORK)
    return int(bool(failures(wanted.seed, wanted.kills, kinds)))


if __name__ == "__main__":
    sys.exit(main())
