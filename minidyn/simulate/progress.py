"""Progress of runs and studies: bars on a terminal, a line in a notebook's cell, lines through `logging`."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from minidyn.common.html import progress
from minidyn.common.intake import flag
from minidyn.common.locks import cached_property
from minidyn.common.reports import digits

log = logging.getLogger("minidyn")
_PATIENCE = 1.0  # seconds before a bar appears
_LOGGED = 10.0  # seconds between two lines of the log
_REDRAWN = 0.2  # seconds between two pictures in a notebook
_WIDE, _BAR, _SHORT_BAR, _TIME = 100, 40, 8, 8  # columns: of a wide terminal, bars, and the time left
_LABEL, _COUNTED = 28, 10_000  # columns of a long label; from so many on, per cent in place of a count


class _Open(threading.local):
    """The bars of a thread that are under way; a study's bar has its runs' bars below it."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []


_open = _Open()


class Bar:
    """A bar on stderr, or in a notebook's cell, once something has taken a second: how far it is, how fast, and the
    time left.

    total, unit : what is counted.  paths : how many paths go along, 0 where none do.
    wanted : None shows it on a terminal and in a notebook only. Every ten seconds the same goes to the log as INFO.
    """

    def __init__(self, total: float, paths: int, wanted: bool | None, label: str, unit: str = "steps"):
        self.total, self.paths, self.label, self.unit = total, paths, label, unit
        self.outer = _open.bars[-1] if _open.bars else None
        wanted = None if wanted is None else flag(wanted, "progress")
        self.wanted: bool | None = wanted if self.outer is None else self.outer.wanted
        self.began = self.logged = time.perf_counter()
        self.first = 0.0
        self.screen: Any = None
        self.task: Any = None

    def __enter__(self) -> Bar:
        _open.bars.append(self)
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
            rates = f"{_number(speed)} {self.unit}/s", f"{_number(speed * self.paths)} path-{self.unit}/s"
            parts += [*rates, f"{count} paths"]
        left = f"{(self.total - done) / speed:.0f} s left" if speed > 0 else ""
        if self.task is not None:
            self.screen.update(
                self.task, completed=done, text=self._fitted(parts), left=left, count=_count(done, self.total)
            )
        if write:
            self.logged = now
            what = ", ".join([*parts, left or "time left unknown"])
            log.info("%s: %.10g of %.10g %s, %s", self.label, done, self.total, self.unit, what)

    def _fitted(self, parts: list[str]) -> str:
        """As much as the line has room for: rates go first, those of paths before those of steps."""
        seen = [bar for bar in _open.bars if bar.task is not None]
        label = max(_LABEL * (not self.paths), *(len(bar.label) for bar in seen))  # what runs below has long ones
        taken = label + max(len(_count(bar.total, bar.total)) for bar in seen)
        room = self.screen.console.width - taken - _bar_width(self.screen.console.width) - _TIME - 4
        kept = list(parts)
        for part in sorted(parts, key=lambda part: (f"path-{self.unit}" not in part, f"{self.unit}/s" not in part)):
            if len(", ".join(kept)) > room:
                kept.remove(part)
        return ", ".join(kept)

    @cached_property
    def on(self) -> bool:
        """Whether a bar is to be seen: where it was not said, on a terminal and in a notebook."""
        return sys.stderr.isatty() or in_notebook() if self.wanted is None else self.wanted

    def show(self) -> None:
        """Put the bar on the screen, below the one that it belongs to."""
        if self.outer is not None and self.outer.task is None:
            self.outer.show()
        self.screen = self.outer.screen if self.outer is not None else Cell() if in_notebook() else _screen()
        self.task = self.screen.add_task(self.label, total=self.total, unit=self.unit, text="", count="")

    def __exit__(self, *_: object) -> None:
        _open.bars.remove(self)
        if self.task is None:
            return
        if self.outer is None:
            self.screen.stop()
        else:
            self.screen.remove_task(self.task)


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e7 else digits(value, 3)


def _count(done: float, total: float) -> str:
    return f"{done:,.0f}/{total:,.0f}" if total < _COUNTED else f"{100 * done / total:.0f} %"


def _bar_width(columns: int) -> int:
    return _BAR if columns >= _WIDE else _SHORT_BAR


def _screen() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, force_jupyter=False)
    screen = Progress(
        TextColumn("{task.description}"),
        BarColumn(_bar_width(console.width)),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    screen.start()
    return screen


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose cells show what is displayed."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


class Cell:
    """Bars in a notebook's cell, one below the other, drawn anew in their place; at the end a line says what was done.

    It answers as `rich.progress.Progress` does, without the widgets that this one needs there.
    """

    width = 1_000  # no line is too long

    def __init__(self) -> None:
        self.began, self.drawn = time.perf_counter(), 0.0
        self.handle: Any = None
        self.console, self.tasks = self, dict[int, dict[str, Any]]()

    def add_task(self, label: str, **fields: Any) -> int:
        """One more bar, with its `total`, its `unit` and what its line ends with, `text`."""
        number = max(self.tasks, default=0) + 1
        self.tasks[number] = {"label": label, "completed": 0.0, **fields}
        return number

    def update(self, task: int, **fields: Any) -> None:
        """Another `completed` and `text`, seen if the last picture is old enough."""
        self.tasks[task] |= fields
        now = time.perf_counter()
        if self.handle is None or now - self.drawn > _REDRAWN:
            self.drawn = now
            lines = [self._line(t) for t in self.tasks.values()]
            self._show(
                "\n".join(lines),
                progress(
                    [(t["completed"] / t["total"], line) for t, line in zip(self.tasks.values(), lines, strict=True)]
                ),
            )

    def remove_task(self, task: int) -> None:
        """A bar is over; the one that it belongs to goes on."""
        del self.tasks[task]

    def stop(self) -> None:
        """One line in place of the bars."""
        first = next(iter(self.tasks.values()))
        partly = "" if first["completed"] >= first["total"] else f"{_number(first['completed'])} of "
        took = time.perf_counter() - self.began
        self._show(f"{first['label']}: {partly}{_number(first['total'])} {first['unit']} in {took:.3g} s")

    def _line(self, task: dict[str, Any]) -> str:
        done = f"{_number(task['completed'])} of {_number(task['total'])} {task['unit']}"
        return ", ".join([f"{task['label']}: {done}", *filter(None, [task["text"], task.get("left")])])

    def _show(self, text: str, html: str = "") -> None:
        shown = {"text/plain": text} | ({"text/html": html} if html else {})
        if self.handle is None:
            self.handle = import_module("IPython.display").display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)
