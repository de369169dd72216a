"""What comes with minidyn beside its code: models, notebooks."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path


def shipped(folder: str) -> Traversable:
    """The folder `minidyn.<folder>` where it is installed, else the one beside the package in its repository."""
    try:
        return resources.files(f"minidyn.{folder}")
    except ModuleNotFoundError:
        package = resources.files("minidyn")
        return (package.parent if isinstance(package, Path) else package).joinpath(folder)
