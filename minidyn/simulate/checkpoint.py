"""A run that survives: its state on disk, replaced whole every few seconds, and its saves in files that only grow.

A checkpoint is a folder. `state` holds the engine's arrays, how far the run is, how long each file of saves was then,
and what the run is; it is written under another name, synced and renamed, so at any instant it is whole. A file of
saves has one row per save. What stands behind the rows that `state` counts was written after it and is written again,
with the same bits, when the run goes on.

A run may be given more steps than it was begun with. A save that was made only because it had ended is none of a longer
one: it goes, and the steps from the one before on are made as if it had never ended.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minidyn.common.arrays import Arrays, Floats
from minidyn.common.errors import ArchiveError, InputError, advice, clipped, said
from minidyn.common.intake import shown
from minidyn.common.wholefiles import PREFIX, SEAL_SIZE, SUFFIX, lock, sealed_end, write_sealed, write_whole
from minidyn.simulate.engines import Engine
from minidyn.simulate.recording import Recorder, Rows

SECONDS = 5.0  # between two states,
SPARE = 20.0  # and so many times what writing one takes
_FORMAT = 4
_HASH = re.compile("[0-9a-f]{16,}")
_MAGIC = b"minidyn checkpoint\n"
ROWS = ".rows"
_BLOCK = 2**24


class Keeper:
    """Where a run's saves go, and where it starts: in memory, from the first of its saves."""

    def __init__(self, rows: Rows, saves: Sequence[int]):
        self.rows, self.saves = rows, saves
        self.seconds = 0.0  # that earlier attempts took

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def resume(self, engine: Engine, recorder: Recorder) -> int:
        """Put engine and recorder where the last attempt left them; the steps done."""
        return self.saves[0]

    def note(self, done: int, engine: Engine, recorder: Recorder, last: bool = False) -> None:
        """Write the state, if it is time to."""


def keeper(path: Any, identity: Mapping[str, str], saves: Sequence[int], ends: list[int],
           chosen: dict[str, Any]) -> Keeper:  # fmt: skip
    """The keeper of a run that saves at these steps: a `Checkpoint` where a path is given, memory otherwise.

    ends : the steps at which the run was to end, one after the other.  chosen : see `stored`."""
    folder = folder_of(path)
    return Keeper(Rows(len(saves)), saves) if folder is None else Checkpoint(folder, identity, saves, ends, chosen)


def stored(path: Any) -> dict[str, Any]:
    """What the run in a checkpoint brings itself where it is not given, nothing where there is none: `rng`, and of
    `save_every` and `substeps` what was chosen by the number of steps; and the steps at which it was to end, `ends`."""
    folder = folder_of(path)
    file = None if folder is None else folder / "state"
    if file is None or not os.path.isfile(file):
        return {"ends": []}
    with _reading(file), file.open("rb") as source:
        header = _header(source)
        seed, chosen = header["identity"]["seed"], header["chosen"]
        if not chosen.keys() <= {"save_every", "substeps"}:
            raise ValueError("no choices")
        return {"ends": _steps(header["ends"]), "rng": json.loads(seed), **chosen}


def stored_seed(path: Any) -> Any:
    """The seed of the run in a checkpoint, None where there is none: a run without a seed resumes with its own."""
    return stored(path).get("rng")


def ends_of(path: Any, known: list[int], steps: int) -> list[int]:
    """The ends of a run of so many steps whose checkpoint knows of these; InputError where they were more steps."""
    if known and steps < known[-1]:
        check_identity(Path(os.fsdecode(path)), {"steps": str(known[-1])}, {"steps": str(steps)})
    return known if steps in known[-1:] else [*known, steps]


def belongs(path: Any, identity: Mapping[str, str]) -> None:
    """Refuse the checkpoint of another run, and a damaged one, without making or changing anything."""
    folder = folder_of(path)
    file = None if folder is None else folder / "state"
    if folder is not None and file is not None and file.exists():
        with _reading(file), file.open("rb") as source:
            check_identity(folder, _header(source)["identity"], identity)


def check_identity(folder: Path, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Refuse the state of another run, or of another version: it could not go on with the same bits."""
    for name in {**ours, **theirs}:
        there, here = theirs.get(name, "not given"), ours.get(name, "not given")
        if there != here:
            hashed = _HASH.fullmatch(there) or _HASH.fullmatch(here)  # which nobody reads
            how = "another one there" if hashed else f"{clipped(there)} there and {clipped(here)} here"
            raise InputError(
                f"the checkpoint {folder} belongs to another run: {clipped(name)} is {how}; give another path, or "
                "delete it to start anew."
            )


def claim(folder: Path, own: Callable[[Path], bool]) -> BinaryIO:
    """Make a folder or take it over; its lock, to be closed. Refuses one that holds something else than is `own`, or
    that another run is using. Raises OSError where there can be none."""
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(p.name for p in folder.iterdir() if not own(p))
    if foreign:
        raise InputError(f"the checkpoint folder {folder} holds other things ({foreign[0]}); give a folder of its own.")
    taken = (folder / "lock").open("ab")
    try:
        lock(taken)
    except OSError:
        taken.close()
        raise InputError(
            f"another run is writing the checkpoint {folder}; wait for it or give another folder."
        ) from None
    return taken


class Checkpoint(Keeper):
    """A run's folder on disk."""

    def __init__(self, folder: Path, identity: Mapping[str, str], saves: Sequence[int], ends: list[int],
                 chosen: dict[str, Any]):  # fmt: skip
        self.folder, self.identity, self.ends, self.chosen = folder, identity, ends, chosen
        super().__init__(FileRows(folder, self._guarded), saves)
        self.rows: FileRows
        self.safe = -1  # the step of the state on disk
        self._lock: Any = None
        self._began = time.perf_counter()
        self._due = 0.0

    # -- opening ---------------------------------------------------------------------------------
    def __enter__(self) -> Keeper:
        """Make the folder or take it over; refuses one that holds something else, or that another run is using."""
        with self._guarded():
            self._lock = claim(self.folder, _is_own)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files of saves and give up the lock: another run may have the folder."""
        self.rows.close()
        if self._lock is not None:
            self._lock.close()

    def resume(self, engine: Engine, recorder: Recorder) -> int:
        """Go on from the state in the folder, if there is one; the steps done.

        Raises InputError for the state of another run or version, ArchiveError where it or a file of saves is damaged.
        """
        file = self.folder / "state"
        if not file.exists():
            return self.saves[0]
        with _reading(file), file.open("rb") as source:
            header = _header(source)
            check_identity(self.folder, header["identity"], self.identity)
            done, kept = (_whole(header[name]) for name in ("done", "saves"))
            ends, count = _steps(header["ends"]), bisect_right(self.saves, done)
            longer = len(ends) < len(self.ends) and done == ends[-1]  # it may have a save more, which is no longer one
            known = ends == self.ends[: len(ends)] and done <= ends[-1] and kept - count in (0, int(longer))
            if not known or not 0 <= header["seconds"] < math.inf:
                raise ValueError("steps that no run makes")
            arrays = _arrays(source, header["arrays"], engine.state())
            self.rows.check(header["rows"], recorder.layout(), kept, count)
            engine.restore(arrays)
        recorder.count, self.seconds, self.safe = count, float(header["seconds"]), done
        return done

    # -- writing ---------------------------------------------------------------------------------
    def note(self, done: int, engine: Engine, recorder: Recorder, last: bool = False) -> None:
        """Put the saves on disk, then the state in place of the last one; ArchiveError where that fails.

        It is time once the longer of `SECONDS` and `SPARE` times the last writing has passed; with `last` it always is.
        """
        now = time.perf_counter()
        if not last and now < self._due:
            return
        recorder.observe()
        self.rows.sync()
        header = {
            "format": _FORMAT,
            "identity": self.identity,
            "ends": self.ends,
            "chosen": self.chosen,
            "done": done,
            "saves": recorder.count,
            "seconds": self.seconds + now - self._began,
            "rows": self.rows.lengths(),
        }
        with self._guarded():
            write_sealed(self.folder / "state", lambda file: _write_state(file, header, engine.state()))
        self.safe = done
        after = time.perf_counter()
        self._due = after + max(SECONDS, SPARE * (after - now))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Disk errors as one sentence that says where the run is safe."""
        try:
            yield
        except OSError as error:
            lost = self.safe >= 0 and not self.folder.is_dir()
            why = "its folder is gone; bring it back or choose another path" if lost else advice(error)
            rest = f"; it is good up to step {self.safe:,}, and the same call goes on from there" * (self.safe >= 0)
            raise ArchiveError(f"Cannot write the checkpoint {self.folder}: {why}{rest}.") from error


class FileRows(Rows):
    """Rows in files that only grow: (T, paths, ...) on disk, mapped into memory as (paths, T, ...)."""

    def __init__(self, folder: Path, guarded: Callable[[], Any]):
        self.folder, self.guarded = folder, guarded
        self.files: dict[str, FileIO] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.sums: dict[str, tuple[int, int]] = {}  # length in bytes and CRC-32 of what is written

    def put(self, name: str, turn: int, row: Floats) -> None:
        """Write row number `turn`, over what an attempt that was killed may have left there.

        Raises ArchiveError where rows before it are missing, or the disk does not take it.
        """
        data = np.ascontiguousarray(row, np.float64)
        self.shapes[name] = data.shape
        with self.guarded():
            file = self._file(name)
            if os.fstat(file.fileno()).st_size < turn * data.nbytes:
                raise self._lost(name)
            file.seek(turn * data.nbytes)
            left = data.reshape(-1).view(np.uint8).data
            while left:
                left = left[file.write(left) :]
        before = self.sums.get(name, (0, 0))[1] if turn else 0
        self.sums[name] = ((turn + 1) * data.nbytes, zlib.crc32(data.data, before))

    def column(self, name: str, count: int) -> Floats:
        """The first `count` rows as (paths, count, ...), read from disk where they are looked at."""
        with self.guarded():
            self._present(name)
            shape = (count, *self.shapes[name])
            return np.memmap(self.folder / (name + ROWS), np.float64, "r", shape=shape).swapaxes(0, 1)

    def sync(self) -> None:
        """Everything that was put is on disk, under its name."""
        with self.guarded():
            for name, file in self.files.items():
                os.fsync(file.fileno())
                self._present(name)

    def _present(self, name: str) -> None:
        """What was put is still what the folder holds under that name."""
        path, file = self.folder / (name + ROWS), self._file(name)
        here = os.fstat(file.fileno())
        if not self.folder.is_dir():
            raise FileNotFoundError(2, "the folder is gone")
        if not (path.exists() and os.path.samestat(path.stat(), here) and here.st_size >= self.sums[name][0]):
            raise self._lost(name)

    def _lost(self, name: str) -> ArchiveError:
        return ArchiveError(
            f"the checkpoint's file {self.folder / (name + ROWS)} was deleted or cut while its run was going on; "
            "delete the folder to start anew."
        )

    def lengths(self) -> dict[str, Any]:
        """What a state must know of the files."""
        return {name: list(known) for name, known in self.sums.items()}

    def check(self, lengths: Mapping[str, Any], layout: Mapping[str, tuple[int, ...]], count: int, keep: int) -> None:
        """Take over the files of an earlier attempt: `count` rows of each shape, which must be as they were, and of
        which the first ones are kept. Where that is not all, a run may still be read from the others: they stay, in a
        file without a name."""
        if lengths.keys() != layout.keys():
            raise ValueError("other rows")
        for name, shape in layout.items():
            path, row = self.folder / (name + ROWS), math.prod(shape) * 8
            if lengths[name][0] != count * row:
                raise ValueError("other rows")
            with _reading(path), path.open("rb") as source:
                first = _sum(source, keep * row)
                total = _sum(source, (count - keep) * row, first)
            if first is None or total != lengths[name][1]:
                raise damaged(path)
            if keep < count:
                with self.guarded(), path.open("rb") as source:
                    write_whole(path, partial(shutil.copyfileobj, source), tidy=False)
            self.sums[name], self.shapes[name] = (keep * row, first), shape

    def _file(self, name: str) -> FileIO:
        if name not in self.files:
            path = self.folder / (name + ROWS)
            self.files[name] = FileIO(path, "r+" if path.exists() else "x+")
        return self.files[name]

    def close(self) -> None:
        """Close all files; columns that were handed out stay readable."""
        for file in self.files.values():
            with suppress(OSError):  # a full disk was reported when the row was put
                file.close()


def _sum(source: BinaryIO, left: int, total: int | None = 0) -> int | None:
    """The CRC-32 of so many bytes behind those whose sum is `total`; None where there are fewer."""
    while left and total is not None:
        block = source.read(min(left, _BLOCK))
        total, left = zlib.crc32(block, total) if block else None, left - len(block)
    return total


# -- the state file ------------------------------------------------------------------------------


def _write_state(file: BinaryIO, header: dict[str, Any], arrays: Arrays) -> None:
    """What a run is and how far, and its arrays."""
    header["arrays"] = [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()]
    file.write(_MAGIC + json.dumps(header).encode() + b"\n")
    for a in arrays.values():
        if a.size:
            file.write(np.ascontiguousarray(a).data)


def _header(source: BinaryIO) -> dict[str, Any]:
    """What a state says before its arrays; nothing of it is read before its seal fits."""
    sealed_end(source)
    source.seek(0)
    if source.readline(len(_MAGIC)) != _MAGIC:
        raise ValueError("no checkpoint")
    header: dict[str, Any] = json.loads(source.readline(_BLOCK))
    if header["format"] != _FORMAT:
        raise InputError(
            f"the checkpoint {source.name} has format {shown(header['format'])} and this minidyn reads {_FORMAT}; "
            "finish it with the minidyn that began it."
        )
    return header


def _arrays(source: BinaryIO, said: Any, own: Arrays) -> Arrays:
    """The arrays of a state where the header ends: those that the engine has, of its own types and shapes."""
    wanted: list[list[Any]] = [[name, a.dtype.str, list(a.shape)] for name, a in own.items()]
    free = [name for name, a in own.items() if a.dtype == np.uint8]  # texts, of any length
    left = os.fstat(source.fileno()).st_size - source.tell() - SEAL_SIZE
    for want, (name, dtype, shape) in zip(wanted, said, strict=True):
        if want[0] in free and len(shape) == 1 and _whole(shape[0]) <= left:
            want[2] = shape
        if want != [name, dtype, shape]:
            raise ValueError("other arrays")
    arrays = {name: np.empty(shape, dtype) for name, dtype, shape in wanted}
    if sum(a.nbytes for a in arrays.values()) != left:
        raise ValueError("other arrays")
    for a in arrays.values():
        if a.size:
            source.readinto(a.data)  # type: ignore[attr-defined]
    return arrays


def _steps(value: Any) -> list[int]:
    """Steps of a header, one or more that grow."""
    if not value or sorted({*value}) != value:
        raise ValueError("no steps")
    return [_whole(step) for step in value]


def _whole(value: Any) -> int:
    """A whole number of a header that counts something."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("no count")
    return value


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> ArchiveError:
    """The error for a file that is gone or not what it was."""
    return ArchiveError(f"the checkpoint's file {path} is missing or damaged; delete the folder to start anew.")


def _is_own(path: Path) -> bool:
    """Whether a run may have made it; nothing that leads elsewhere is."""
    name = path.name
    own = name in ("state", "lock") or name.endswith(ROWS) or (name.startswith(PREFIX) and name.endswith(SUFFIX))
    return own and path.is_file() and not path.is_symlink()


def folder_of(path: Any) -> Path | None:
    """What was given as `checkpoint`, as a path, or an InputError; None for none."""
    try:
        return None if path is None else Path(os.fsdecode(path)).expanduser()
    except TypeError:
        raise InputError(f"{said('checkpoint')} must be the path of a folder, not {shown(path)}.") from None
