"""The notebooks of studies: where they are, and what becomes of one that is run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from minidyn.common.byvalue import ByValue
from minidyn.common.errors import ArchiveError, InputError, clipped, printable
from minidyn.common.intake import shown
from minidyn.common.shipped import shipped
from minidyn.studies.claims import Claim, claim_in
from minidyn.studies.study import QUICK, REPORT, RESULTS, summary_of, verdict_of, write_result

Returned = TypeVar("Returned")
_OPENS = re.compile(r"md\.study\(\s*[\"']([a-z0-9-]+)[\"']")
_LONGEST = 4 * 3600  # seconds that one cell may take
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, eq=False)
class Outcome(ByValue):
    """What became of a study's notebook.

    name : of the study.  claims : those of its report, none where it broke.  seconds : what it took.  folder : where
    its results are.  broken : where and why the notebook stopped, "" where it ran to its end.
    """

    name: str
    claims: list[Claim]
    seconds: float
    folder: Path
    broken: str = ""

    @property
    def verdict(self) -> str:
        """That of its claims, `broken` where there are none."""
        return "broken" if self.broken else verdict_of(self.claims)

    def row(self) -> list[str]:
        """Its row in a table: study, what holds, seconds, verdict."""
        return [self.name, summary_of(self.claims), f"{self.seconds:.0f} s", self.verdict]


def list_studies() -> list[str]:
    """The names of the studies that are installed, in order."""
    return sorted(_installed())


def find_study(given: str) -> Path:
    """The notebook of a study: by its name, or the path of a notebook file."""
    known = _installed()
    if given in known:
        return known[given]
    path = Path(given).expanduser()
    if path.suffix == ".ipynb" and path.is_file():
        return path
    raise InputError(f"there is no study called {shown(given)}; there are {', '.join(sorted(known))}.")


def title_of(path: Path) -> str:
    """What a notebook is called: its first heading."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), path.stem)


async def run_notebook(path: Path, quick: bool, results: Path, store: bool = False) -> Outcome:
    """Run a study's notebook in a kernel of its own; its results lie in a folder of its name below `results`.

    store : also keep the notebook as it ran where it was taken from.  A cell that fails ends the run and is told of;
    nothing is raised. Cancelled, it leaves no kernel behind.  Raises InputError for a file that is no study's notebook.
    """
    name, notebook = _read(path)
    _need("nbclient", "ipykernel")
    began, report = time.perf_counter(), results / name / REPORT
    before = _made(report)
    with tempfile.TemporaryDirectory() as scratch:
        told = {QUICK: str(int(quick)), RESULTS: str(results.resolve())}
        broken = await _execute(notebook, Path(scratch), told)
    took = time.perf_counter() - began
    text = import_module("nbformat").writes(notebook)
    for target in [results / name / f"{name}.ipynb", *[path] * store]:
        write_result(target, lambda file: file.write(text.encode()))
    if not broken and _made(report) == before:
        broken = "it ended without study.close()"
    claims = [] if broken else claims_of(report)
    return Outcome(name, claims, took, results / name, broken)


def to_the_end(work: Coroutine[Any, Any, Returned]) -> Returned:
    """What `work` returns. It runs in a thread: in the main one nbclient would take Ctrl-C for itself. An interrupt
    cancels it, and passes on when it has cleaned up."""
    task: list[asyncio.Task[Returned]] = []

    async def watched() -> Returned:
        task.append(asyncio.create_task(work))
        return await task[0]

    with ThreadPoolExecutor(1) as pool:  # which waits for its thread
        running = pool.submit(lambda: asyncio.run(watched()))
        try:
            return running.result()
        except BaseException:
            if task and not running.done():
                task[0].get_loop().call_soon_threadsafe(task[0].cancel)
            raise


def claims_of(report: Path) -> list[Claim]:
    """The claims of a report."""
    return [claim_in(record) for record in json.loads(report.read_text(encoding="utf-8"))["claims"]]


def _made(report: Path) -> tuple[int, int] | None:
    """What tells a report from one that was there before; None where there is none."""
    if not report.exists():
        return None
    found = report.stat()
    return found.st_ino, found.st_mtime_ns


def _installed() -> dict[str, Path]:
    """The notebooks of studies, by name."""
    files = (Path(str(entry)) for entry in shipped("notebooks").iterdir())
    return {path.stem: path for path in files if path.suffix == ".ipynb"}


def _read(path: Path) -> tuple[str, Any]:
    """A notebook without what it had shown, and the study that it opens."""
    _need("nbformat")
    nbformat = import_module("nbformat")
    try:
        notebook = nbformat.read(path, as_version=4)
    except OSError as error:
        raise ArchiveError(f"cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # whatever nbformat makes of a file that is none
        raise InputError(f"{path} is no notebook: {clipped(error)}.") from error
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    opened = [found[1] for cell in code for found in _OPENS.finditer(cell.source)]
    if len(opened) != 1:
        raise InputError(f'{path} opens {len(opened)} studies; a study is opened once, by study = md.study("name").')
    for cell in code:
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("execution", None)
    return opened[0], notebook


async def _execute(notebook: Any, folder: Path, told: Mapping[str, str]) -> str:
    """Run all cells; where and why it stopped, "" where it did not."""
    nbclient = import_module("nbclient")
    client = nbclient.NotebookClient(
        notebook,
        timeout=_LONGEST,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.create_kernel_manager()
    client.km.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    try:
        # what cells write to stderr is in the notebook
        await client.async_execute(env=os.environ | told, stderr=subprocess.DEVNULL)
    except nbclient.exceptions.CellExecutionError as error:
        lines = [line for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
        return clipped(printable(lines[-1]), 200)
    except nbclient.exceptions.DeadKernelError:
        return "its kernel died; there may not be enough memory"
    return ""


def _need(*packages: str) -> None:
    """Refuse to go on without packages that only studies use."""
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise InputError(
                f"studies are notebooks, and {package}, which runs them, is not installed; install minidyn[studies]."
            ) from error
