"""Words that error sentences share."""

import difflib
from collections.abc import Iterable

from minidyn.common.errors import clipped


def shorten(text: object) -> str:
    """`text` in backquotes on one line, cut to what a person reads in an error."""
    return f"`{clipped(text)}`"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, else all of them when few, else a full stop."""
    names = [str(n) for n in known]
    listed = f"; known: {', '.join(map(clipped, names))}." if 0 < len(names) <= 30 else "."
    return nearest(name, names) or listed


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error sentence: the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {shorten(near[0])}?" if near else ""
