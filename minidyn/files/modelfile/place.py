"""Where the models that come with minidyn lie, and their data beside them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def library() -> Path:
    """Where the models of the library lie: in the package, or beside it where minidyn runs from its repository."""
    package = Path(str(resources.files("minidyn")))
    return next((found for found in (package / "models", package.parent / "models") if found.is_dir()), package)
