"""Model files that are malformed, absurd or huge: a model, or one sentence, soon, and nothing of them is evaluated.

    python tests/fuzz/modelfiles.py --seed 0 --files 20000

Each case is a model of the library whose bytes are damaged, whose words and numbers are exchanged, or whose expressions
are made up at random. Prints what goes wrong: other exceptions, more than five seconds of work, code that ran; ends
with 1 if there is any.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path

import command
from damage import damaged

import minidyn as md
from minidyn.files import modelfile, models

SECONDS = 5.0  # of this process's own time
_WORD = re.compile(r'"[^"\n]*"|[\w.+-]+|[\[\]{}=,]')
_NAMES = "x y a w s k j pi E I oo zoo nan lambda in import __import__ eval exec open os Symbol _ x_{1} é Sum".split()
_CALLS = (
    "exp log sqrt sin cos tan atan tanh sinh cosh erf Abs sign Min Max Mod floor ceiling Heaviside Piecewise Sum "
    "Integral lambdify gamma acos asin sech"
).split()
_NUMBERS = [*"0 1 2 3 -1 .5 0.5 1e308 1e-320 1e999 2**63 1_000 nan inf".split(), "9" * 25, "0x" + "f" * 4300]
_VALUES = [
    *_NUMBERS, str(2**63), "true", "false", '""', "[]", "{}", "[1, [2]]", "1979-05-27", '"1/(k-3)"', '"2 - k"', '"k"',
    "'x'", '"\\u0000"', '"\\u001b[31m"', '"../../etc/passwd"', '"/dev/zero"', '"rest"', '["x", "x"]', "[{x = 3}]",
    "{a = 1e9}", "[[1,2],[3]]", "1e400", "-0.0", '"' + "a" * 300 + '"', '"' + "x+" * 3000 + 'x"',
    '"' + "(" * 200 + "x" + ")" * 200 + '"',
    "[" * 300 + "]" * 300, "9" * 5000, '"x**x**x**x"', '"9**9**9**9"', '"Sum(x, (i,0,9999999), (j,0,9999999))"',
]  # fmt: skip


def expression(rng: random.Random, depth: int = 0) -> str:
    """A text that looks like an expression."""
    kind = rng.randrange(9) if depth < 6 else 0
    inner = [expression(rng, depth + 1) for _ in range(rng.choice((1, 2, 2, 3)))] if kind else []
    if kind <= 1:
        return rng.choice(_NAMES if rng.random() < 0.6 else _NUMBERS)
    if kind <= 4:
        return rng.choice((" + ", " - ", "*", "/", "**", " < ", "//", "%", "@", "")).join(inner)
    if kind == 5:
        return f"{rng.choice(_CALLS)}({', '.join(inner)})"
    if kind == 6:
        return f"Sum({inner[0]}, (j, {rng.choice(_NUMBERS)}, {rng.choice(_NUMBERS)}))"
    if kind == 7:
        return f"Piecewise(({inner[0]}, {inner[-1]} < 1), ({inner[0]}, True))"
    return rng.choice((f"({inner[0]})", f"-{inner[0]}", f"{inner[0]}[{inner[-1]}]", f"{inner[0]}.__class__"))


def changed(text: str, rng: random.Random) -> str:
    """A model file with something else in it."""
    kind = rng.randrange(5)
    if kind == 0:
        return damaged(text.encode(), rng).decode(errors="surrogateescape")
    if kind == 1:
        lines = text.splitlines()
        rng.shuffle(lines) if rng.random() < 0.2 else lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        return "\n".join(lines)
    for _ in range(rng.choice((1, 1, 2, 3))):
        words = list(_WORD.finditer(text))
        if not words:
            break
        at = rng.choice(words)
        if kind == 2:
            new = rng.choice(_VALUES)
        elif kind == 3:
            new = rng.choice(words).group()
        else:
            at = rng.choice([w for w in words if w.group().startswith('"')] or words)
            new = '"' + expression(rng).replace('"', "") + '"'
        text = text[: at.start()] + new + text[at.end() :]
    return text


def failures(seed: int, count: int, folder: Path) -> int:
    """How many files go wrong; each is printed."""
    rng, bad, read = random.Random(seed), 0, 0
    places = [modelfile.find_model(name) for name in md.list_models()]
    texts = [place.read_text(encoding="utf-8") for place in places]
    victim = folder / "victim.toml"
    for number in range(count):
        text = changed(rng.choice(texts), rng)
        victim.write_bytes(text.encode(errors="surrogateescape"))
        began, what = time.process_time(), ""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                model = models.load_model(victim)
                text_of = (repr(model), model._repr_html_(), model.observe)
                read += bool(text_of)
            except md.MinidynError as error:
                what = "" if str(error).isprintable() and len(str(error)) < 3000 else f"no sentence: {error!r}"
            except Exception as error:
                what = repr(error)
        took = time.process_time() - began
        if what or took > SECONDS:
            bad += 1
            (folder / f"bad-{seed}-{number}.toml").write_bytes(victim.read_bytes())
            print(f"{number}: {what:.300} ({took:.1f} s)", flush=True)
    print(f"{count} files, {read} models, {bad} failures")
    return bad


def main() -> int:
    """Try the files that the command line asks for."""
    parser = command.parser(__doc__, files=20_000)
    parser.add_argument("--keep", type=Path, help="a folder where the bad ones stay")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        return int(bool(failures(wanted.seed, wanted.files, wanted.keep or Path(place))))


if __name__ == "__main__":
    sys.exit(main())
