"""What went wrong, and what to try.

Every error that minidyn raises on purpose is a `MinidynError` whose text is one sentence for a
person: what was given, what was expected, what to try.
"""

import errno
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

_catalogue: list[Mapping[str, str]] = [{}]


def said(name: str) -> str:
    """What is called so in Python, an argument, a function, a call, as the one who reads the sentence calls it.

    >>> said("save_every")
    'save_every'
    >>> with speaking({"save_every": "--save-every"}):
    ...     said("save_every")
    '--save-every'
    """
    return _catalogue[-1].get(name, name)


@contextmanager
def speaking(catalogue: Mapping[str, str]) -> Iterator[None]:
    """Here sentences are read behind another door than Python's, such as the shell: what Python's names are there."""
    _catalogue.append(catalogue)
    try:
        yield
    finally:
        _catalogue.pop()


def of_a_file() -> AbstractContextManager[None]:
    """Here sentences are about what stands in a file, whose keys are no options of the shell."""
    return speaking({name: words for name, words in _catalogue[-1].items() if not words.startswith("--")})


def printable(text: str, keep: str = "") -> str:
    r"""`text` with what would move a terminal's cursor or change its colours written out, as `\x1b`.

    >>> printable("red\x1b[31m")
    'red\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def clipped(text: object, longest: int = 60, end: int = 0) -> str:
    """`text` on one line, cut to what a person reads in a sentence; of a longer one the last `end` characters stay.

    >>> clipped("results/2026/a-long-name.h5", 20, 6)
    'results/202...ame.h5'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= longest else f"{line[: longest - 3 - end]}...{line[len(line) - end :]}"


class MinidynError(Exception):
    """Base class: catch this to catch everything that minidyn raises on purpose.

    Its text is safe on a terminal, whatever file or name it quotes.
    """

    def __init__(self, *args: object):
        super().__init__(*(printable(a) if isinstance(a, str) else a for a in args))


class InputError(MinidynError, ValueError):
    """An argument is wrong: its shape, its range, its type or its name."""


class ExpressionError(InputError):
    """A symbolic expression holds something that cannot become a kernel; names the subexpression."""


class ModelFileError(InputError):
    """A model file is missing or broken; names the file, the key and what was expected."""


class ArchiveError(MinidynError):
    """A result file cannot be written, or is truncated, foreign or from a newer version."""


class ManifoldError(MinidynError):
    """The minima do not form the manifold that was asked for: isolated, singular, or too far away."""


class FlowError(MinidynError):
    """The effective flow does not exist here: its assumptions fail; says which and where."""


class SolverError(MinidynError):
    """A solver could not reach what it promised."""


class WorkerError(MinidynError):
    """The workers of an executor were lost for good; what they had done is kept where a folder was given."""


_ADVICE = {
    errno.EACCES: "you may not write there; choose another folder or change its permissions",
    errno.EPERM: "you may not write there; choose another folder or change its permissions",
    errno.EROFS: "that disk is read-only; choose another folder",
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would be too large there; choose another folder or save less often ({})",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EEXIST: "a part of that path is a file, not a folder; choose another path",
    errno.ENOTDIR: "a part of that path is a file, not a folder; choose another path",
}


def advice(error: OSError) -> str:
    """Why a file cannot be written, and what to try."""
    known = _ADVICE.get(error.errno or 0)
    return known.format(said("save_every")) if known else f"{error.strerror or error}; choose another path"
