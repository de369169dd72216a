"""The files that a command writes: where they go, whether they can be written, and how each is."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidyn.common.errors import ArchiveError, InputError
from minidyn.common.reports import WIDTH

PICTURES = (".png", ".pdf", ".svg", ".eps", ".jpeg", ".jpg", ".ps", ".svgz", ".tif", ".tiff", ".webp")


def place_of(out: str, name: str) -> tuple[Path, str]:
    """Where results go, without an extension, and the extension of the picture.

    `out` is a folder, or the start of a file name; an extension that pictures have is that of the picture, and one of
    letters that nothing here has is refused: no file would be what its name says.
    """
    path = Path(out).expanduser()
    if not out or out.endswith(("/", "\\")) or path.is_dir():
        return path / name, ".png"
    kind = path.suffix.lower()
    if kind in PICTURES:
        return path.with_suffix(""), path.suffix
    if kind[1:].isalpha():
        known = ", ".join(end[1:] for end in PICTURES)
        raise InputError(f"a figure cannot be written as {kind}; use one of {known}.")
    return path.with_suffix("") if kind == ".h5" else path, ".png"


def results_at(out: str, name: str, no_figure: bool) -> list[Path]:
    """The data file and the picture that will be written, known to be writable."""
    stem, picture = place_of(out, name)
    outputs = [stem.with_name(stem.name + end) for end in ([".h5"] if no_figure else [".h5", picture])]
    for output in outputs:
        check_writable(output)
    return outputs


def picture_at(out: str, name: str) -> Path:
    """The picture that will be written where there is nothing else to write, known to be writable."""
    stem, picture = place_of(out, name)
    target = stem.with_name(stem.name + picture)
    check_writable(target)
    return target


def write(outputs: list[Path], *writers: Callable[[Path], Any]) -> tuple[str, Exception | None]:
    """Write each file, whatever becomes of the others; what was written, and the first thing that went wrong."""
    wrote, failures = [], []
    for output, fill in zip(outputs, writers, strict=False):
        try:
            fill(output)
            wrote.append(str(output))
        except Exception as error:
            failures.append(error)
    said = "wrote " * bool(wrote) + " and ".join(wrote)
    if len(said) > WIDTH:
        said = "\n  ".join(["wrote", *wrote])
    return said, failures[0] if failures else None


def check_writable(target: Path) -> None:
    """Refuse a file that could not be written later, before the work is done; leaves nothing behind."""
    if target.is_dir():
        raise ArchiveError(f"cannot write {target}: it is a folder; give another --out.")
    folder = target.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if not folder.is_dir():
            raise NotADirectoryError(20, f"{folder} is not a folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArchiveError(f"cannot write {target}: {error.strerror}; give another --out.") from error
