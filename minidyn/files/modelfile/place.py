"""Which of several folders has a model, or data beside it."""

from collections.abc import Sequence
from contextlib import suppress
from importlib.resources.abc import Traversable
from pathlib import Path


def first_file(folders: Sequence[Path | Traversable], name: str) -> Path | Traversable | None:
    """The first file of this name."""
    for folder in folders:
        place = folder.joinpath(name)
        with suppress(OSError, ValueError):  # a null byte, a name too long
            if place.is_file():
                return place
    return None
