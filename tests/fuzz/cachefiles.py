"""Damaged cache folders: whatever lies in one, a process computes the same bits, and runs no code that it finds there.

    python tests/fuzz/cachefiles.py --seed 0 --files 500
    python tests/fuzz/cachefiles.py --together 20             # processes at once on an empty cache

Each case is one process on a copy of a good cache with one file (or several) damaged: other bytes, a folder or a pipe
in its place, byte code beside it, other text in it. Prints what goes wrong; ends with 1 if anything does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import command
from damage import damaged

import minidyn  # noqa: F401 - before the fork

PATIENCE = 60.0  # seconds; a process takes one, on a busy machine more
SCRIPT = """
import numpy as np, sympy as sp, minidyn as md
x, y = sp.symbols("x y")
system = md.Map(md.Loss((1 + x**2) * sp.cosh(y), [x, y]), md.SGD(0.05, 0.5), md.GaussianNoise(0.3))
print(system.loss.hessian([0.3, 0.7]).tobytes().hex())
print(md.simulate(system, [1.0, 0.5], 20, paths=3, rng=0).digest())
print(md.simulate(md.GradientFlow(system), [1.0, 0.5], 5).digest())
"""
NOTING = """
import hashlib, os
from minidyn.compiler import llvm
def noted(text, *rest, real=llvm.optimize, **options):
    with open(os.environ["HARM"], "a") as compiled:
        compiled.write(hashlib.sha256(text.encode()).hexdigest() + chr(10))
    return real(text, *rest, **options)
llvm.optimize = noted
"""
HARM = "import os\nopen(os.environ['HARM'], 'w').close()\nfrom {name} import *\n"


def run(folder: Path, harm: Path, script: str = SCRIPT) -> tuple[int, str]:
    """How a process ends that has this cache, and what it prints: forked, so that minidyn is imported once."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            try:
                os.environ |= {"MINIDYN_CACHE_DIR": str(folder), "HARM": str(harm)}
                os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
                sys.dont_write_bytecode = False
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                warnings.simplefilter("error")
                exec(script, {})
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        ended, deadline = 0, time.monotonic() + PATIENCE
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode(errors="replace")


def damage(cache: Path, rng: random.Random) -> str:
    """Damage the files of a cache; says how."""
    files = sorted(p for p in cache.rglob("*") if p.is_file())
    told = []
    for path in rng.sample(files, rng.choice((1, 1, 2, len(files)))):
        kind = rng.choice((*["bytes"] * 4, "gone", "folder", "pipe", "link", "loop", "code", "mode"))
        told.append(f"{path.name}: {kind}")
        if kind == "bytes":
            others = [p.read_bytes() for p in rng.sample(files, min(3, len(files))) if p.is_file()]
            path.write_bytes(damaged(path.read_bytes(), rng, others))
        elif kind == "code":
            path.with_suffix(".py").write_text(HARM.format(name=path.stem))
            (cache / "__pycache__").mkdir(exist_ok=True)
            tag = f"{path.stem}.{sys.implementation.cache_tag}.pyc"
            (cache / "__pycache__" / tag).write_bytes(rng.randbytes(rng.randrange(64)))
        elif kind == "mode":
            path.chmod(rng.choice((0o000, 0o222, 0o666, 0o777)))
        else:
            path.unlink()
            if kind == "folder":
                path.mkdir()
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind in ("link", "loop"):
                path.symlink_to(path if kind == "loop" else "/dev/zero")
    return ", ".join(told[:3])


def main() -> int:
    """Run the processes that the command line asks for."""
    parser = command.parser(__doc__, files=500)
    parser.add_argument("--together", type=int, default=0, help="so many processes at once on an empty cache")
    wanted = parser.parse_args()
    if wanted.together:
        return int(bool(together(wanted.together)))
    return int(bool(failures(wanted.seed, wanted.files)))


def together(count: int) -> int:
    """How many of so many processes that start at once on an empty cache differ from the first, or compile what another
    one has compiled."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(count) as pool:
        folder, log = Path(place, "empty"), Path(place, "compiled")
        found = list(pool.map(lambda _: run(folder, log, NOTING + SCRIPT), range(count)))
        compiled = log.read_text().split()
        left = [p.name for p in folder.iterdir() if p.suffix not in (".py", ".o", ".key")]
    twice = len(compiled) - len(set(compiled))
    bad = sum(f != found[0] or f[0] != 0 for f in found) + len(left) + twice
    print(f"{count} processes, {bad} failures, {found[0][0]}, left: {left}, {len(compiled)} compiled, {twice} again")
    return bad


def failures(seed: int, count: int) -> int:
    """How many of the damaged caches do harm; each is printed."""
    rng, bad = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as place:
        good, folder, harm = Path(place, "good"), Path(place, "cache"), Path(place, "harm")
        good.mkdir(0o700)
        expected = run(good, harm)
        assert expected[0] == 0, expected[1]
        for number in range(count):
            shutil.copytree(good, folder)
            folder.chmod(0o700)
            how = damage(folder, rng)
            found = run(folder, harm)
            if found != expected or harm.exists():
                bad += 1
                print(f"{number}: {how}\n    exit {found[0]}, harm {harm.exists()}: {found[1][-600:]}", flush=True)
            harm.unlink(missing_ok=True)
            shutil.rmtree(folder)
    print(f"{count} damaged caches, {bad} failures")
    return bad


if __name__ == "__main__":
    sys.exit(main())
