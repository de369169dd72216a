"""A progress bar for runs that take longer than a moment."""

from __future__ import annotations

import sys
import time
from typing import Any


class Bar:
    """A bar on stderr once a run has taken a second; steps/s and the time left."""

    def __init__(self, steps: int, paths: int, wanted: bool | None, label: str):
        self.steps, self.paths, self.label = steps, paths, label
        self.on = sys.stderr.isatty() if wanted is None else wanted
        self.began = time.perf_counter()
        self.bar: Any = None

    def __enter__(self) -> Bar:
        return self

    def update(self, done: int) -> None:
        taken = time.perf_counter() - self.began
        if self.on and self.bar is None and taken > 1.0 and done < self.steps:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task(self.label, total=self.steps, speed="")
            self.bar.start()
        if self.bar is not None:
            speed = f"{done * self.paths / max(taken, 1e-9):.2e} path-steps/s"
            self.bar.update(self.task, completed=done, speed=speed)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

