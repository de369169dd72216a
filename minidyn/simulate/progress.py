"""Progress of runs and studies: bars on a terminal, lines through `logging`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from minidyn.common.intake import flag
from minidyn.common.locks import cached_property

log = logging.getLogger("minidyn")
_PATIENCE = 1.0  # seconds before a bar appears
_LOGGED = 10.0  # seconds between two lines of the log
_open: list[Bar] = []  # the bars under way; a study's bar has its runs' bars below it


class Bar:
    """A bar on stderr once something has taken a second: how far it is, how fast, and the time left.

    total, unit : what is counted.  paths : how many paths go along, 0 where none do.
    wanted : None shows it on a terminal only. Every ten seconds the same goes to the log as INFO.
    """

    def __init__(self, total: float, paths: int, wanted: bool | None, label: str, unit: str = "steps"):
        self.total, self.paths, self.label, self.unit = total, paths, label, unit
        self.outer = _open[-1] if _open else None
        wanted = None if wanted is None else flag(wanted, "progress")
        self.wanted: bool | None = wanted if self.outer is None else self.outer.wanted
        self.began = self.logged = time.perf_counter()
        self.first = 0.0
        self.screen: Any = None
        self.task: Any = None

    def __enter__(self) -> Bar:
        _open.append(self)
        return self

    def start(self, done: float) -> None:
        """Speed is counted from here: what an earlier attempt did is not this one's."""
        self.first, self.began = done, time.perf_counter()

    def update(self, done: float, alive: Callable[[], int] | None = None, note: str = "") -> None:
        """Show that `done` of the total is done, by so many paths."""
        now = time.perf_counter()
        if self.task is None and now - self.began > _PATIENCE and done < self.total and self.on:
            self.show()
        write = now - self.logged > _LOGGED and log.isEnabledFor(logging.INFO)
        if self.task is None and not write:
            return
        speed = (done - self.first) / max(now - self.began, 1e-9)
        parts = [note] * bool(note)
        if self.paths:
            count = f"{alive():,} of {self.paths:,}" if alive else f"{self.paths:,}"
            parts += [f"{speed:.3g} {self.unit}/s", f"{speed * self.paths:.2g} path-{self.unit}/s", f"{count} paths"]
        text = ", ".join(parts)
        if self.task is not None:
            self.screen.update(self.task, completed=done, text=text)
        if write:
            self.logged = now
            left = f"{(self.total - done) / speed:.0f} s left" if speed > 0 else "time left unknown"
            what = ", ".join([text] * bool(text) + [left])
            log.info("%s: %.10g of %.10g %s, %s", self.label, done, self.total, self.unit, what)

    @cached_property
    def on(self) -> bool:
        """Whether a bar is to be seen: where it was not said, on a terminal."""
        return sys.stderr.isatty() if self.wanted is None else self.wanted

    def show(self) -> None:
        """Put the bar on the screen, below the one that it belongs to."""
        if self.outer is not None and self.outer.task is None:
            self.outer.show()
        self.screen = self.outer.screen if self.outer is not None else _screen()
        self.task = self.screen.add_task(self.label, total=self.total, text="")

    def __exit__(self, *_: object) -> None:
        _open.remove(self)
        if self.task is None:
            return
        if self.outer is None:
            self.screen.stop()
        else:
            self.screen.remove_task(self.task)


def _screen() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(), console=Console(stderr=True), transient=True,
    )  # fmt: skip
    screen.start()
    return screen
