"""What the library says, in the words of the shell: its options, and the keys of model files, instead of Python's.

An error's sentence is written where it arises, for whoever calls minidyn from Python. Here it is told to somebody who
typed a command: one table of phrases, and the options' own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from minidyn.flows import FLOWS
from minidyn.maps.noise import NOISES

_PHRASES: tuple[tuple[str, str], ...] = (
    (r"follow the map itself with md\.simulate", "run the map alone, without flows in the model file"),
    (r"md\.stability says", "`minidyn stability` says"),
    (r"the limit of the gradient flow, manifold\.project\(w0?\)", 'start = "manifold" in the model file'),
    (r"start from manifold\.project\(w\)", 'start = "manifold" in the model file leads there'),
    (r"for example at manifold\.project\(w0\) =", "for example at w0 ="),
    (r"(md\.)?Manifold\((loss)?\)\.project\(w\) leads", 'start = "manifold" in the model file leads'),
    (r"manifold\.project\(w\) leads", 'start = "manifold" in the model file leads'),
    (r", or resolve smaller curvatures with Manifold\(loss, gap=\.\.\.\)", ""),
    (r"give (md\.)?Manifold\((loss|map\.loss)(, chart=.*?\])?\)", "give the model file a [manifold] with a chart"),
    (r"a chart needs both chart=.*?\]", "[manifold] needs both a chart and coordinates"),
    (r"save less often \(`?save_every`?\)", "save less often (--save-every)"),
    (r"or keep less \(keep='moments', checkpoint=\.\.\.\)", "or keep them on disk (--checkpoint)"),
    (r"time= \(t = lr k\) or as slow_time= \(lr\^2 k\)", "--time (t = lr k) or as --slow-time (lr^2 k)"),
    (r"give rng=0 or another number", "give --seed 0 or another number"),
    (r"\(first_step, steps\)", "(--steps)"),
    (r"give data= or use", "give it [loss.inputs] or use"),
    (r"observe=\{name: expression or function\}", "observe = {name = expression} in the model file"),
    (r"; try a larger gap=", "; start elsewhere"),
    (r"use method='auto' with a checkpoint", "leave --checkpoint out"),
    (r"leave method= out", "leave it out"),
    (r"scaling_study (needs|takes)", r"`minidyn scale` \1"),
    (r"\bcompare (needs|takes)", r"`minidyn run` \1"),
    (r"accumulators=\"(\w+)\"", r'accumulators "\1"'),
    (r"use order=(\d), or md\.GD\(lr\)", r'use order \1, or the rule "GD"'),
)
_RENAMED = {"rng": "seed", "batches": "batch"}


def in_the_shell(sentence: str, options: Iterable[str] = ()) -> str:
    """A sentence of the library as the shell says it, where a command has these options, such as `--save-every`.

    >>> in_the_shell("save_every is 0; it must be at least 1.", ["--save-every"])
    '--save-every is 0; it must be at least 1.'
    >>> in_the_shell("this map has none; use md.ModifiedFlow.")
    'this map has none; use the flow "modified".'
    """
    for pattern, words in _PHRASES:
        sentence = re.sub(pattern, words, sentence)
    sentence = re.sub(r"\bmd\.(\w+)(\([^()]*\))?", _called, sentence)
    return _with_options(sentence, set(options))


def _called(found: re.Match[str]) -> str:
    """What a name of the library is called in a model file."""
    name = found[1]
    flow = next((key for key, flow in FLOWS.items() if flow.__name__ == name), None)
    noise = next((key for key, noise in NOISES.items() if noise.__name__ == name), None)
    return f'the flow "{flow}"' if flow else f'noise of the kind "{noise}"' if noise else f'"{name}"'


def _with_options(sentence: str, options: set[str]) -> str:
    """Options in place of the names of arguments, where a sentence is about one or asks for one."""

    def option(end: str) -> Callable[[re.Match[str]], str]:
        def put(found: re.Match[str]) -> str:
            name = "--" + _RENAMED.get(found[1], found[1].replace("_", "-"))
            return name + end if name in options else found[0]

        return put

    sentence = re.sub(r"^(\w+)(?= (?:is|are|must|has|holds|lies)\b)", option(""), sentence)
    sentence = re.sub(r"(?<![\w.(])(\w+)=(?!=)", option(" "), sentence)
    return re.sub(r"`(\w+)`", option(""), sentence)
