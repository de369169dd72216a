"""What went wrong, and what to try.

Every error that minidyn raises on purpose is a `MinidynError` whose text is one sentence for a
person: what was given, what was expected, what to try.
"""

from __future__ import annotations


class MinidynError(Exception):
    """Base class: catch this to catch everything that minidyn raises on purpose."""


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
