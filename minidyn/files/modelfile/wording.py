"""Words that error sentences share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def shorten(text: object) -> str:
    """`text` in backquotes on one line, cut to what a person reads in an error."""
    return f"`{_short(text)}`"


def _short(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, else all of them when few, else a full stop."""
    names = [str(n) for n in known]
    listed = f"; known: {', '.join(map(_short, names))}." if 0 < len(names) <= 30 else "."
    return nearest(name, names) or listed


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {shorten(near[0])}?" if near else ""
