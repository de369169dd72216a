"""Instructions of the innermost loops: of minidyn's kernels, and of the C++ programs beside them.

Shared machines often have no hardware counters; the machine code is there always. A loop over lanes whose counter
goes up by 8 (or by 64 bytes) is a vector loop: its length is the number of instructions per 8 path-steps. A loop over
all 64 lanes that is unrolled altogether shows as instructions in no loop: eight times as many.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

import numpy as np

import minidyn as md
from benchmarks import problems, references
from minidyn.compiler import compiled
from minidyn.maps.discrete import pack

_LABEL = re.compile(r"^([.\w$]+):")
_JUMP = re.compile(r"^j\w+\s+(\S+)")


def instructions(quick: bool = False) -> None:
    """Print length, vector instructions, memory operands, divisions and calls of each innermost loop."""
    print("\ninnermost loops: instructions; of them on zmm or ymm registers, with a memory operand; div, sqrt, calls")
    valley, net = problems.valley(), problems.network()
    gaussian = md.GaussianNoise(0.5)
    for name, system, paths in (
        ("GD on L1, one path", md.Map(valley, md.GD(0.01)), 1),
        ("Adam on L1, one path", md.Map(valley, md.Adam(0.01)), 1),
        ("SGD on L1", md.Map(valley, md.SGD(0.01), gaussian), 6400),
        ("heavy ball on L1", md.Map(valley, md.SGD(0.01, 0.9), gaussian), 6400),
        ("Nesterov on L1", md.Map(valley, md.SGD(0.01, 0.9, nesterov=True), gaussian), 6400),
        ("Adam on L1", md.Map(valley, md.Adam(0.01), gaussian), 6400),
        ("SGD on L3, label noise", md.Map(net, md.SGD(0.1), md.LabelNoise(0.1)), 6400),
        ("SGD on L3, minibatch", md.Map(net, md.SGD(0.1), md.Minibatch(4)), 6400),
    ):
        _report(name, lambda system=system, paths=paths: _loop(system, paths))
    for name, loss in {"L3": net, "L4": problems.network(100, 200)}.items():
        w = np.zeros(loss.dim)
        _report(f"gradient of {name}", lambda f=loss, w=w: compiled(f.kernels.grad).assembly(w, f.c, f.rows, w))
    for function in ("part<Lanes, 4, SGD>", "part<Lanes, 2, Adam>", "diffuse<Lanes, 2>"):
        _report(f"C++ {function}", lambda f=function: _disassembly("ensemble", f))
    for function in ("part<Lanes, true>", "part<Lanes, false>"):
        _report(f"C++ network {function}", lambda f=function: _disassembly("network", f))


def _report(name: str, assembly: Callable[[], str]) -> None:
    try:
        _show(name, assembly())
    except Exception as e:  # kernels change their arguments; a C++ program may be missing
        print(f"  {name}: not to be had ({type(e).__name__}: {str(e)[:80]})")


def _loop(system: md.Map, paths: int) -> str:
    """Assembly of a map's time loop."""
    blocks = pack(system.initial_state(np.ones((paths, system.dim))))
    streams = np.zeros((len(blocks), 256), np.uint64)
    arrays = (system.hyper, system.loss.c, system.loss.rows, system.bound.numbers)
    alive, orders = np.zeros((len(blocks), 64)), system.orders(len(blocks))
    loop = system.advance(paths)
    return loop.assembly(blocks, streams, alive, orders, 0, len(blocks), paths, 0, 1, *arrays)


def _disassembly(program: str, function: str) -> str:
    """Assembly of a function of a C++ program, jumps to labels as a compiler writes them."""
    path = references.library(program)._name
    tool = shutil.which("objdump")
    if tool is None:
        raise references.Missing("no objdump")
    command = [tool, "-d", "-C", "--no-show-raw-insn", path]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^[0-9a-f]+ <[^\n]*" + re.escape(function) + r"[^\n]*>:\n(.*?)\n\n", text, re.M | re.S)
    if found is None:
        raise references.Missing(f"no {function} in {program}")
    lines = []
    for line in found.group(1).splitlines():
        address, _, rest = line.strip().partition(":")
        rest = re.sub(r"^(j\w+\s+)([0-9a-f]+).*", r"\1L\2", rest.strip())
        lines += [f"L{address}:", "\t" + rest]
    return "\n".join(lines)


def loops(assembly: str) -> tuple[list[list[str]], list[str]]:
    """The instructions of each innermost loop, from a label to the jump back to it, and those in no loop at all."""
    labels: dict[str, int] = {}
    body: list[str] = []
    spans: list[tuple[int, int]] = []
    for raw in assembly.splitlines():
        line = raw.strip()
        if label := _LABEL.match(line):
            labels[label.group(1)] = len(body)
            continue
        if not line or line[0] in ".#":
            continue
        body.append(line)
        jump = _JUMP.match(line)
        if jump and jump.group(1) in labels:
            spans.append((labels[jump.group(1)], len(body)))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    rest = [line for i, line in enumerate(body) if not any(a <= i < b for a, b in spans)]
    return [body[a:b] for a, b in dict.fromkeys(inner)], rest


def _show(name: str, assembly: str) -> None:
    print(f"  {name}")
    inner, rest = loops(assembly)
    for loop in inner:
        if len(loop) >= 8:  # less are copies and fills
            counter = [" ".join(line.split()) for line in loop if re.match(r"(add|sub|inc|dec)q?\s+\$", line)]
            print(f"    {_counts(loop)}  {counter[-1] if counter else ''}".rstrip())
    if any("zmm" in line for line in rest):  # a loop over 64 lanes may be unrolled altogether
        print(f"    {_counts(rest)}  in no loop")


def _counts(lines: list[str]) -> str:
    names = [line.split()[0] for line in lines]
    counts = {f"{r}mm": sum(f"{r}mm" in line for line in lines) for r in "zy"}
    counts["memory"] = sum("(" in line for line in lines)
    counts |= {word: sum(word in n for n in names) for word in ("div", "sqrt", "call")}
    return f"{len(lines):4d}  " + "  ".join(f"{what} {count:3d}" for what, count in counts.items())
