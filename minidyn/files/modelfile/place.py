"""Where the models that come with minidyn lie, and their data beside them."""

from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def library() -> Traversable:
    """The folder of the library: `minidyn.models` where it is installed, else beside the package in its repository."""
    try:
        return resources.files("minidyn.models")
    except ModuleNotFoundError:
        package = resources.files("minidyn")
        return (package.parent if isinstance(package, Path) else package).joinpath("models")


def first_file(folders: Sequence[Path | Traversable], name: str) -> Path | Traversable | None:
    """The first file of this name."""
    for folder in folders:
        place = folder.joinpath(name)
        with suppress(OSError, ValueError):  # a null byte, a name too long
            if place.is_file():
                return place
    return None
