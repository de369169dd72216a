"""Where the models that come with minidyn lie, and their data beside them."""

from __future__ import annotations

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
