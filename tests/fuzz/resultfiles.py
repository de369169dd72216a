"""Result files that were cut, changed, or changed and sealed again: loaded as they are, or refused in one sentence.

    python tests/fuzz/resultfiles.py --seed 0 --files 5000

A third is damaged byte by byte, a third is damaged and sealed again, a third has another index (names, types, shapes,
sizes, places, texts) and is sealed again. What loads must print. Prints what goes wrong: other exceptions, more than
five seconds of work, other results though the seal was broken; ends with 1 if there is any.
"""

from __future__ import annotations

import copy
import io
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command
import sympy as sp
from damage import damaged

import minidyn as md
from minidyn.common.wholefiles import SEAL_SIZE, seal_of
from minidyn.files.results import index

SECONDS = 5.0  # of this process's own time


def examples(folder: Path) -> list[Path]:
    """Runs, a comparison, sweeps, a scaling study, a bifurcation diagram, basins."""
    x, y = sp.symbols("x y")
    sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(0.1), md.GaussianNoise(0.3))
    flow = md.QuasistaticFlow(sgd)
    made: dict[str, Any] = {
        "run": md.simulate(sgd, [1.0, 0.1], 20, paths=3, rng=0, observe=["loss", x * y]),
        "moments": md.simulate(sgd, [1.0, 0.1], 20, paths=5, rng=0, keep="moments"),
        "comparison": md.compare(sgd, flow, w0=[1.0, 0.1], steps=20, paths=40, rng=0),
        "sweep": md.sweep(sgd, over={"lr": [0.1, 0.2], "noise": [None, sgd.noise]}, w0=[1, 0.1], steps=9, paths=3),
        "flows": md.sweep(sgd, md.GradientFlow, over={"lr": [0.1, 0.2]}, w0=[1, 0.1], steps=9, paths=3),
        "listed": md.sweep(sgd, over=md.sample({"lr": (0.1, 0.2)}, 4, rng=0), w0=[1, 0.1], steps=9, paths=2, rng=0),
        "study": md.scaling_study(sgd, flow, lrs=[0.1, 0.05], w0=[1.0, 0.1], time=0.5, paths=20, rng=0),
        "bifurcation": md.bifurcation(md.Map(sgd.loss, sgd.rule), "lr", [0.1, 0.2, 5.0], w0=[1.0, 0.1], steps=40),
        "basins": md.basin(md.Map(sgd.loss, sgd.rule), {x: [-9.0, 1.0], y: [0.0, 9.0]}, 40),
        "large": md.simulate(sgd, [1.0, 0.1], 400, paths=40, save_every=2, rng=0),
    }
    for name, result in made.items():
        result.save(folder / f"{name}.h5")
    return [folder / f"{name}.h5" for name in made]


def sealed(data: bytes) -> bytes:
    """The bytes with a seal that fits."""
    return data + seal_of(io.BytesIO(data), len(data))


def body(data: bytes) -> bytes:
    """The bytes of a file without its seal."""
    return data[:-SEAL_SIZE]


def edited(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a file with another index, as another program could write it."""
    mark = len(index._LENGTH) + 16
    length = int(data[-16:], 16)
    content = json.loads(data[-mark - length : -mark])
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(inner(content))
        parent, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0 and isinstance(parent, dict):
            del parent[key]
        elif kind == 1:
            other, at = rng.choice(places)
            parent[key] = copy.deepcopy(other[at])
        elif kind == 2 and isinstance(parent, dict):
            parent[str(rng.choice(ODD))[:500]] = copy.deepcopy(parent[key])
        elif kind == 3 and isinstance(parent[key], int):
            parent[key] = rng.choice([0, 1, -1, parent[key] + 1, parent[key] * 2, 2**31, 2**62, 2**70])
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD))
    text = json.dumps(content).encode() if rng.random() < 0.95 else b"[" * 100_000
    return data[: -mark - length] + text + index._LENGTH + f"{len(text):016x}".encode()


ODD: list[Any] = [
    "", "\x1b[31mred\x07", "[" * 5000, "null", {}, [], [1, 2], None, -1, 2**63, 1e308, 0, float("nan"), True, "x" * 999,
    "\u202eabc", "\x00", "\ud800", "<f8", "|O8", "<f2", "|V8", "<U9", [10**12], [2, -2], [10**6, 10**6, 0], [[]],
    {"a": {"b": [None]}}, ["step"], ["step", "step"], 10**400, "|b1", ">i8", "run", "comparison", "scaling",
]  # fmt: skip


def inner(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested lists and dictionaries."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from inner(node[key])


def outcome(path: Path) -> tuple[str, Any]:
    """What became of loading, printing and drawing: "refused", "loaded" with the result, or what went wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", RuntimeWarning)  # numbers that overflow
        try:
            result = md.load(path)
        except md.ArchiveError as error:
            text = str(error)
            return ("refused", None) if text.isprintable() else ("control characters", text)
        except Exception as error:
            return "loading", error
        try:
            text = repr(result)
            result._repr_html_()
            if not text.replace("\n", "").isprintable():
                return "control characters", repr(text)
        except Exception as error:
            return "printing", error
    return "loaded", result


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal, seed and time apart."""
    return type(a) is type(b) and a == b


def failures(seed: int, count: int, folder: Path) -> int:
    """How many files go wrong; each is printed."""
    rng, bad, loaded = random.Random(seed), 0, 0
    kept = examples(folder)
    good = {path: path.read_bytes() for path in kept}
    results = {path: md.load(path) for path in kept}
    victim = folder / "victim.h5"
    for number in range(count):
        path = rng.choice(kept)
        whole, how = body(good[path]), rng.choice(("damaged", "resealed", "edited"))
        if how == "edited":
            victim.write_bytes(sealed(edited(whole, rng)))
        else:
            data = damaged(good[path] if how == "damaged" else whole, rng, [good[p] for p in kept])
            victim.write_bytes(data if how == "damaged" else sealed(data))
        began = time.process_time()
        what, found = outcome(victim)
        took = time.process_time() - began
        if what == "loaded":
            loaded += 1
            if how == "damaged" and not any(same(found, result) for result in results.values()):
                what = "another result than was saved"
        if what not in ("loaded", "refused") or took > SECONDS:
            bad += 1
            print(f"{number}: {path.stem}, {how}: {what}, {took:.1f} s: {found!r:.300}", flush=True)
    print(f"{count} files, {loaded} loaded, {bad} failures")
    return bad


def main() -> int:
    """Try the files that the command line asks for."""
    wanted = command.parser(__doc__, files=5000).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return int(bool(failures(wanted.seed, wanted.files, Path(folder))))


if __name__ == "__main__":
    sys.exit(main())
