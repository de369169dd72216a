"""Independent tasks on the workers of an executor: done once each, kept in files, given back in their order.

A folder holds a file for each task that is done, written whole, and `job`, which says what the tasks are: the same
call goes on there, whatever was killed, by whatever workers, to the same bits. A file that is damaged is a task that
is not done.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from minidyn.common.errors import ArchiveError, advice
from minidyn.common.wholefiles import PREFIX, SUFFIX, sealed_end, write_sealed
from minidyn.compiler.fingerprint import hash_of
from minidyn.simulate.checkpoint import ROWS, check_identity, claim, damaged, folder_of
from minidyn.simulate.identity import environment
from minidyn.simulate.packed import unpack
from minidyn.simulate.progress import Bar
from minidyn.simulate.run import provenance
from minidyn.simulate.workers import Call, Crew, done_here

_FLYING, _AHEAD = 4, 6  # tasks under way, and results that wait for earlier ones in memory, for each worker
_PATIENCE = 0.2  # seconds between two looks at the progress bar
_FORMAT = 1
_JOB, _TASK = "job", "task-"
_LINE = 64  # bytes before a result: the job's hash and the task's number


def carry_tasks(work: Callable[[Any], Any], pieces: Sequence[Any], executor: Any, *, what: Mapping[str, str],
                folder: Any = None, label: str = "tasks", progress: bool | None = None) -> Generator[Any]:  # fmt: skip
    """Yield `work(piece)` of every piece, in their order, as the workers of an executor find it.

    Parameters
    ----------
    work : a function of one piece, such as `functools.partial(function, system, ...)`; pickled once, and unpickled once
        by each worker process. It returns numbers, texts, numpy arrays, lists and dictionaries of them; tuples come
        back as lists, and arrays read-only. Its result must depend on the piece alone.
    pieces : a sequence of what can be pickled; read when it is a piece's turn, so that large ones need not exist at
        once.
    executor : a `concurrent.futures.Executor`, a client of dask, a function that makes an executor, a number of
        processes (see `Crew`); None: here, one after the other.
    what : what the job is, in texts: everything that reaches the numbers, with which pieces are made. Versions and
        machine are added. Another job's folder is refused.
    folder : where each result is kept in a file as it arrives; None for memory. At most a few results for each worker
        are in memory at a time.
    label, progress : of the bar.

    Tasks of lost workers are done again. Ctrl-C, an error of a task and an iterator that is closed end the job; what is
    done stays in the folder.
    Raises InputError for another job's folder, ArchiveError where it cannot be written, WorkerError where workers are
    lost for good, and whatever `work` raises.

    >>> from functools import partial
    >>> list(carry_tasks(partial(pow, 2), [1, 2, 3], None, what={}))
    [2, 4, 8]
    """
    with (
        _shelf(folder, {"tasks": str(len(pieces)), **what}) as shelf,
        Bar(len(pieces), 0, progress, label, "tasks") as bar,
    ):
        bar.start(len(shelf.known))
        if executor is None:
            yield from _one_by_one(work, pieces, shelf, bar)
        else:
            yield from _Job(work, pieces, executor, shelf, bar).results()


def job_of(folder: Any) -> dict[str, str] | None:
    """What the job in a folder is (`what` of the call that made it, with versions); None where there is none."""
    path = folder_of(folder)
    if path is None or not (path / _JOB).exists():
        return None
    try:
        with (path / _JOB).open("rb") as source:
            sealed_end(source)
            source.seek(0)
            known = json.loads(source.readline())
        what: dict[str, str] = known["what"]
        if known["format"] != _FORMAT:
            raise ValueError("another format")
        return what
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damaged(path / _JOB) from error


class _Shelf:
    """Where results wait for their turn: memory."""

    roomy = False  # whether any number of them may wait

    def __init__(self) -> None:
        self.known: set[int] = set()  # the tasks that are done
        self.held: dict[int, bytes] = {}

    def __enter__(self) -> "_Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        self.held.clear()

    def put(self, number: int, data: bytes) -> None:
        """Keep a packed result."""
        self.held[number] = data
        self.known.add(number)

    def take(self, number: int) -> Any:
        """A result that is known, which goes; ValueError where it is no longer whole."""
        return unpack(self.held.pop(number))


class _Folder(_Shelf):
    """A folder for one job, and a file for each task."""

    roomy = True

    def __init__(self, folder: Path, what: Mapping[str, str]):
        super().__init__()
        self.folder, self.what = folder, {**what, **provenance(), **environment()}
        self.key = hash_of(*(part for item in self.what.items() for part in item)).hex()[:40]
        self.lock: Any = None

    def __enter__(self) -> "_Folder":
        """Make the folder, or go on in it; InputError where it holds something else, or another is at it."""
        try:
            self.lock = claim(self.folder, _is_own)
            theirs = job_of(self.folder)
            if theirs is None:
                for stray in self.folder.glob(f"{_TASK}*"):
                    stray.unlink()
                text = json.dumps({"format": _FORMAT, "what": self.what}).encode() + b"\n"
                write_sealed(self.folder / _JOB, lambda file: file.write(text))
            else:
                check_identity(self.folder, theirs, self.what)
            self.known = {int(p.name.removeprefix(_TASK)) for p in self.folder.glob(f"{_TASK}*")}
        except OSError as error:
            self.__exit__()
            raise self._cannot(error) from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock is not None:
            self.lock.close()

    def put(self, number: int, data: bytes) -> None:
        """Write a packed result, whole; it need not outlive the machine, for one that is cut is done again."""
        line = f"{self.key} {number}".encode().ljust(_LINE - 1) + b"\n"

        def fill(file: Any) -> None:
            file.write(line)
            file.write(data)

        try:
            write_sealed(self._file(number), fill, sync=False, tidy=False)
        except OSError as error:
            raise self._cannot(error) from error
        self.known.add(number)

    def take(self, number: int) -> Any:
        """A result, read from its file; ValueError where that is gone or is not whole."""
        try:
            with self._file(number).open("rb") as source:
                end = sealed_end(source)
                source.seek(0)
                line = source.read(_LINE).split()
                if line != [self.key.encode(), str(number).encode()]:
                    raise ValueError("another job's")
                return unpack(source.read(end - _LINE))
        except (OSError, LookupError, TypeError) as error:
            raise ValueError("damaged") from error

    def _file(self, number: int) -> Path:
        return self.folder / f"{_TASK}{number:06d}"

    def _cannot(self, error: OSError) -> ArchiveError:
        lost = self.lock is not None and not self.folder.is_dir()
        why = "its folder is gone; choose another path" if lost else advice(error)
        return ArchiveError(f"Cannot write the checkpoint {self.folder}: {why}; tasks that are done stay in it.")


def _is_own(path: Path) -> bool:
    """Whether a job may have made it; nothing that leads elsewhere is."""
    name = path.name
    own = name in (_JOB, "lock") or name.endswith(ROWS) or (name.startswith(PREFIX) and name.endswith(SUFFIX))
    own = own or (name.startswith(_TASK) and name.removeprefix(_TASK).isdecimal())
    return own and path.is_file() and not path.is_symlink()


def _shelf(folder: Any, what: Mapping[str, str]) -> _Shelf:
    path = folder_of(folder)
    return _Shelf() if path is None else _Folder(path, what)


def _one_by_one(work: Callable[[Any], Any], pieces: Sequence[Any], shelf: _Shelf, bar: Bar) -> Iterator[Any]:
    """The results of tasks that are done here."""
    for number, piece in enumerate(pieces):
        if number in shelf.known:
            with suppress(ValueError):
                yield shelf.take(number)
                continue
        bar.update(len(shelf.known - {number}))
        shelf.put(number, done_here(work, piece))
        yield shelf.take(number)
    bar.update(len(pieces))


class _Job:
    """Tasks under way."""

    def __init__(self, work: Callable[[Any], Any], pieces: Sequence[Any], executor: Any, shelf: _Shelf, bar: Bar):
        self.pieces, self.shelf, self.bar = pieces, shelf, bar
        self.crew = Crew(executor)
        self.call = Call(work, self.crew.here)
        self.todo = [n for n in range(len(pieces)) if n not in shelf.known]  # a heap: the earliest is first
        self.flying: dict[Future[bytes], tuple[int, Executor]] = {}

    def results(self) -> Iterator[Any]:
        """Every result when it is its turn."""
        ended = False
        try:
            for turn in range(len(self.pieces)):
                yield self._awaited(turn)
            self.bar.update(len(self.pieces))
            ended = True
        finally:
            for future in self.flying:
                future.cancel()
            self.crew.close(now=not ended)

    def _awaited(self, turn: int) -> Any:
        """The result of a task, once it is there."""
        while True:
            self._hand_out(turn)
            if turn in self.shelf.known:
                try:
                    return self.shelf.take(turn)
                except ValueError:
                    self.shelf.known.discard(turn)
                    heappush(self.todo, turn)
                    continue
            done, _ = wait(self.flying, _PATIENCE, FIRST_COMPLETED)
            for future in sorted(done, key=_failed):  # what went well is kept before an error ends the job
                number, executor = self.flying.pop(future)
                data = self.crew.result(future, executor, number)
                if data is None:
                    heappush(self.todo, number)
                else:
                    self.shelf.put(number, data)
            self.bar.update(len(self.shelf.known))

    def _hand_out(self, turn: int) -> None:
        """Keep the workers busy, and no more results waiting than there is room for."""
        ahead = len(self.pieces) if self.shelf.roomy else turn + _AHEAD * self.crew.size
        while self.todo and self.todo[0] < ahead and len(self.flying) < _FLYING * self.crew.size:
            number = heappop(self.todo)
            future, executor = self.crew.submit(self.call, self.pieces[number], number)
            self.flying[future] = number, executor


def _failed(future: Future[bytes]) -> bool:
    return future.cancelled() or future.exception() is not None
