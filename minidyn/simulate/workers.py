"""The workers behind an executor: how many there are, what they are sent, and what happens where one is lost.

A job's work is pickled once and unpickled once by each process (`Call`). Where `cloudpickle` is installed, which dask
brings along, functions of a script and lambdas travel too.
"""

import hashlib
import importlib
import logging
import multiprocessing as mp
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from minidyn.common.errors import InputError, WorkerError
from minidyn.common.intake import shown, whole
from minidyn.simulate.packed import pack
from minidyn.simulate.threads import cores

log = logging.getLogger("minidyn")
_LOSSES = 5  # of one task, or of all workers with nothing done in between, before it is their own fault
_LOOK = 5.0  # seconds between two looks at how large a cluster is
_ALONE = 3  # looks that find no workers, before somebody is told
_REMEMBERED = 4  # jobs whose work a process keeps


class Call:
    """What is sent to workers: the work of a job, and how a piece of it is submitted."""

    def __init__(self, work: Callable[[Any], Any], here: bool):
        self.work, self.here = work, here
        self.code = b"" if here else _pickled(work)
        self.key = hashlib.blake2b(self.code, digest_size=16).digest()

    def submit(self, executor: Executor, piece: Any, attempt: int) -> "Future[bytes]":
        """Ask for the packed result of a piece."""
        if self.here:
            return executor.submit(done_here, self.work, piece)
        return executor.submit(_done_there, self.key, self.code, piece, attempt)


def _pickled(work: Any) -> bytes:
    """The bytes by which work travels to other processes."""
    by_value: Any = pickle
    with suppress(ImportError):
        by_value = importlib.import_module("cloudpickle")
    try:
        data: bytes = by_value.dumps(work)
    except Exception as error:  # whatever foreign objects raise
        raise InputError(
            f"this cannot be sent to other processes ({shown(error)}); use names, sympy expressions and functions of a "
            "module to say what is observed and what ends a run."
        ) from error
    return data


_known: dict[bytes, Any] = {}  # in a worker: the last jobs' work by the hash of its bytes


def _done_there(key: bytes, code: bytes, piece: Any, attempt: int) -> bytes:
    """The packed result of a piece, in a worker process; an `attempt` after a lost one is another call to dask."""
    work = _known.get(key)
    if work is None:
        work = _known.setdefault(key, pickle.loads(code))
        for old in list(_known)[:-_REMEMBERED]:
            _known.pop(old, None)
    return done_here(work, piece)


def done_here(work: Callable[[Any], Any], piece: Any) -> bytes:
    """The packed result of a piece. Ctrl-C while it is under way is never taken for its end: runs return what there is
    then."""
    with _interruptions() as seen:
        out = work(piece)
    if seen:
        raise KeyboardInterrupt
    return pack(out)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """The interruptions by Ctrl-C that arrive here; other threads than the first have none."""
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield seen
        return

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _with_its_parent() -> None:
    """A worker of a pool of ours: Ctrl-C ends it at once, and so does the end of the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = mp.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class Crew:
    """The workers that an executor stands for.

    executor : a `concurrent.futures.Executor`, a client of dask (`distributed.Client`), a function without arguments
        that makes an executor, or a number of processes on this machine. Of the last two the workers are ours: where
        they break down new ones are made, and they end with the job.
    """

    def __init__(self, executor: Any):
        self.make: Callable[[], Executor] | None = None
        given = executor.get_executor() if hasattr(executor, "get_executor") else executor
        if not isinstance(given, Executor):
            self.make = given if callable(given) else partial(
                ProcessPoolExecutor, whole("executor", given, 1), mp.get_context("spawn"), _with_its_parent
            )  # fmt: skip
            given = self.make()
            if not isinstance(given, Executor):
                raise InputError(f"executor must make a concurrent.futures.Executor, not {shown(given)}.")
        self.executor: Executor = given
        self.losses: dict[int, int] = {}  # by task, of those that are not done
        self.breaks = 0  # of all workers, since a task was done
        self._seen = -_LOOK
        self._size = 1
        self.alone = 0  # looks in a row that found no workers

    @property
    def here(self) -> bool:
        """Whether they are threads of this process."""
        return isinstance(self.executor, ThreadPoolExecutor)

    @property
    def size(self) -> int:
        """How many tasks are done at a time; a cluster may grow and shrink."""
        if time.perf_counter() - self._seen > _LOOK:
            client = getattr(self.executor, "_client", None)
            self._size = getattr(self.executor, "_max_workers", None) or cores()
            if client is not None:
                self._size = sum(client.nthreads().values())
                self.alone = self.alone + 1 if self._size == 0 else 0
                if self.alone == _ALONE:
                    log.warning("the cluster has had no workers for a while; waiting for one")
            self._seen = time.perf_counter()
        return max(1, self._size)

    def submit(self, call: Call, piece: Any, number: int) -> "tuple[Future[bytes], Executor]":
        """Hand out task `number`; its future, and the executor that has it."""
        try:
            return call.submit(self.executor, piece, self.losses.get(number, 0)), self.executor
        except BrokenExecutor as error:
            self._renew(error, self.executor)
            return self.submit(call, piece, number)
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            raise WorkerError(
                f"the executor takes no more tasks: it was shut down; make another one and call again{_GOES_ON}."
            ) from error

    def result(self, future: "Future[bytes]", executor: Executor, number: int) -> bytes | None:
        """What a task returned, None where it was lost and is to be done again; raises what the task raised."""
        try:
            error = future.exception()
        except CancelledError as cancelled:
            error = cancelled
        if error is None:
            self.breaks = 0
            self.losses.pop(number, None)
            return future.result()
        if isinstance(error, BrokenExecutor):
            self._renew(error, executor)
            return None
        lost = isinstance(error, (CancelledError, KeyboardInterrupt)) or type(error).__name__ == "KilledWorker"
        if not lost:  # the last one is dask's, after as many workers as its scheduler allows
            raise error
        self.losses[number] = self.losses.get(number, 0) + 1
        if self.losses[number] > _LOSSES:
            raise WorkerError(
                f"task {number} was lost with its worker {self.losses[number]} times; it may take more memory than a "
                f"worker has. Nothing else is lost{_GOES_ON}."
            ) from error
        return None

    def _renew(self, error: BrokenExecutor, executor: Executor) -> None:
        """New workers in place of those of an executor that broke down, if they are ours."""
        if executor is not self.executor:
            return  # there are new ones already
        self.breaks += 1
        if self.make is None or self.breaks > _LOSSES:
            often = f" {self.breaks} times in a row, which may be for want of memory" if self.make is not None else ""
            raise WorkerError(
                f"the workers of the executor broke down{often}; make another one and call again{_GOES_ON}."
            ) from error
        executor.shutdown(wait=False)
        self.executor = self.make()

    def close(self, now: bool) -> None:
        """Let workers go that are ours; `now` does not wait for what they are at."""
        if self.make is None:
            return
        if now:
            for process in list((getattr(self.executor, "_processes", None) or {}).values()):
                process.terminate()
        self.executor.shutdown(wait=True, cancel_futures=True)


_GOES_ON = ": with the same folder it goes on where it was"
