"""Checkpoints that were damaged, cut, exchanged, or sealed again with another header: the same bits, or one sentence.

    python tests/fuzz/checkpoints.py --seed 0 --folders 5000

Each case is the folder of a run that was stopped half-way (a map, one that shuffles, flows with and without noise, one
that carries itself) in which something is damaged. The run goes on from it. Prints what goes wrong: other bits, other
exceptions, more than five seconds; ends with 1 if there is any.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import command
import numpy as np
import sympy as sp
from damage import damaged

import minidyn as md
from minidyn.common.wholefiles import SEAL_SIZE, seal_of

room = importlib.import_module("minidyn.simulate.checkpoint")
engines = importlib.import_module("minidyn.simulate.engines")
SECONDS = 5.0  # of this process's own time
x, y, a, u = sp.symbols("x y a u")
PLANE = md.Loss((1 + x**2) * y**2 / 2, [x, y])
SGD = md.Map(PLANE, md.SGD(0.1), md.GaussianNoise(0.3))
FIT = md.Loss.regression(a * u, [a], {u: np.linspace(-1, 2, 5)}, np.linspace(0, 1, 5))
GD = md.Map(md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y]), md.GD(0.4))
SYSTEMS: dict[str, tuple[Any, list[float]]] = {
    "map": (SGD, [1.0, 0.1]),
    "shuffles": (md.Map(FIT, md.SGD(0.1), md.Reshuffle(2)), [1.0]),
    "ode": (md.GradientFlow(SGD), [1.0, 0.1]),
    "sde": (md.SymbolicFlow(SGD, [-x, -y], [0.1, 0.2]), [1.0, 0.1]),
    "carried": (md.SubquadraticFlow(GD), [2.0, 0.3]),
}


class Stop(BaseException):
    """A process that ends."""


def run(name: str, folder: Path | None = None, stop: bool = False) -> str:
    """The digest of the run of a system, or what is left of it in its folder."""
    system, start = SYSTEMS[name]
    count = 0

    def save(self: Any, engine: Any, real: Callable[..., None] = room.Recorder.save) -> None:
        nonlocal count
        count += 1
        if stop and count > 5:
            raise Stop
        real(self, engine)

    before, room.Recorder.save = room.Recorder.save, save
    try:
        return md.simulate(system, start, 30, paths=3, save_every=3, rng=1, observe="norm", checkpoint=folder).digest()
    finally:
        room.Recorder.save = before


def sealed(data: bytes) -> bytes:
    """The bytes of a state with a seal that fits."""
    return data + seal_of(io.BytesIO(data), len(data))


def another_header(data: bytes, rng: random.Random) -> bytes:
    """A state whose header says something else, sealed again."""
    magic, line, rest = data[:-SEAL_SIZE].split(b"\n", 2)
    header = json.loads(line)
    odd: list[Any] = [None, -1, 0, 1, 2**70, 1e308, "", "a", [], {}, [[]], True, "|O", [10**12], "\x1b[31m", -1.5]
    for _ in range(rng.choice((1, 1, 2))):
        node: Any = header
        while True:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
                node = node[key]
                continue
            break
        if rng.random() < 0.2 and isinstance(node, dict):
            del node[key]
            if not node:
                break
        else:
            node[key] = copy.deepcopy(rng.choice(odd))
    return sealed(b"\n".join([magic, json.dumps(header).encode(), rest]))


def damage(folder: Path, others: list[Path], rng: random.Random) -> str:
    """Damage a checkpoint; says how."""
    files = sorted(p for p in folder.iterdir() if p.name != "lock")
    path = rng.choice(files)
    kind = rng.choice(("bytes", "bytes", "bytes", "header", "header", "gone", "other", "link", "folder"))
    if kind == "bytes":
        path.write_bytes(damaged(path.read_bytes(), rng, [p.read_bytes() for p in files]))
    elif kind == "header":
        path = folder / "state"
        path.write_bytes(another_header(path.read_bytes(), rng))
    elif kind == "gone":
        path.unlink()
    elif kind == "other":
        donor = rng.choice(others) / path.name
        if donor.exists():
            shutil.copy(donor, path)
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", path.name]))
    return f"{path.name}: {kind}"


def failures(seed: int, count: int, place: Path) -> int:
    """How many folders go wrong; each is printed."""
    rng, bad, resumed = random.Random(seed), 0, 0
    kept = (room.SECONDS, room.SPARE)
    room.SECONDS = room.SPARE = 0.0
    try:
        expected, halves = {}, {}
        for name in SYSTEMS:
            expected[name], halves[name] = run(name), place / name
            with suppress(Stop):
                run(name, halves[name], stop=True)
        victim = place / "victim"
        for number in range(count):
            name = rng.choice(sorted(SYSTEMS))
            shutil.copytree(halves[name], victim)
            how = damage(victim, list(halves.values()), rng)
            began, what = time.process_time(), ""
            try:
                what = "" if run(name, victim) == expected[name] else "other bits"
                resumed += not what
            except md.MinidynError as error:
                what = "" if str(error).isprintable() else f"no sentence: {error!r}"
            except Exception as error:
                what = repr(error)
            took = time.process_time() - began
            if what or took > SECONDS:
                bad += 1
                print(f"{number}: {name}, {how}: {what:.300} ({took:.1f} s)", flush=True)
            shutil.rmtree(victim)
    finally:
        room.SECONDS, room.SPARE = kept
    print(f"{count} checkpoints, {resumed} went on to the same bits, {bad} failures")
    return bad


def main() -> int:
    """Try the folders that the command line asks for."""
    wanted = command.parser(__doc__, folders=5000).parse_args()
    with tempfile.TemporaryDirectory() as place:
        return int(bool(failures(wanted.seed, wanted.folders, Path(place))))


if __name__ == "__main__":
    sys.exit(main())
