"""The files that a command writes: where they go, whether they can be written, and how each is."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidyn.common.errors import ArchiveError
from minidyn.common.wholefiles import write_whole


def stem_of(out: str, name: str) -> Path:
    """Where results go, without an extension: `out` is a folder, or the start of a file name."""
    path = Path(out).expanduser()
    if not out or out.endswith(("/", "\\")) or path.is_dir():
        return path / name
    return path.with_suffix("") if path.suffix in (".h5", ".png") else path


def results_at(stem: Path, no_figure: bool) -> list[Path]:
    """The files that will be written, known to be writable."""
    outputs = [stem.with_name(stem.name + end) for end in ([".h5"] if no_figure else [".h5", ".png"])]
    for output in outputs:
        check_writable(output)
    return outputs


def write(outputs: list[Path], *writers: Callable[[Path], Any]) -> tuple[str, Exception | None]:
    """Write each file, whatever becomes of the others; what was written, and the first thing that went wrong."""
    wrote, failures = [], []
    for output, fill in zip(outputs, writers, strict=False):
        try:
            fill(output)
            wrote.append(str(output))
        except Exception as error:
            failures.append(error)
    return "wrote " * bool(wrote) + " and ".join(wrote), failures[0] if failures else None


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


def write_text(text: str, target: Path) -> None:
    """Write a text file, whole or not at all."""
    write_whole(target, lambda file: file.write(text.encode()))
