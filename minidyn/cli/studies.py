"""`minidyn reproduce`: the studies, run from their notebooks, and the table of what holds."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from minidyn.cli.commands import app
from minidyn.cli.options import Debug
from minidyn.cli.outputs import check_writable
from minidyn.cli.shell import Said
from minidyn.common.errors import InputError, SolverError
from minidyn.common.reports import Report, Table, as_text
from minidyn.simulate.threads import cores
from minidyn.studies.claims import HOLDS, UNDECIDED, table_of
from minidyn.studies.notebooks import Outcome, find_study, list_studies, run_notebook, title_of, to_the_end
from minidyn.studies.page import PAGE, write_page
from minidyn.studies.study import summary_of

_MOST = 4  # notebooks at the same time, if it is not said: each has memory and threads of its own


def _complete(typed: str) -> list[str]:
    return [name for name in list_studies() if name.startswith(typed)]


@app.command()
def reproduce(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...", help="Names of studies, or paths of their notebooks.", autocompletion=_complete
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All studies.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: half a minute each.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="How many notebooks run at the same time; by default one a core, up to four."),
    ] = None,
    out: Annotated[
        str, typer.Option(help="The folder of results; by default results, or results-quick.", metavar="PATH")
    ] = "",
    store: Annotated[bool, typer.Option("--store", help="Keep the notebooks as they ran where they lie, too.")] = False,
    debug: Debug = False,
) -> Said:
    """Run studies: what was published, measured anew, claim by claim.

    Each writes a report, figures, data and the executed notebook into a folder of its name; a page shows all that is
    there. Without a name: which studies there are.
    """
    names = list_studies() if every else list(dict.fromkeys(studies or []))
    if every and studies:
        raise InputError("give names of studies or --all, not both.")
    if not names:
        known = Table([["study", "title"], *([name, title_of(find_study(name))] for name in list_studies())], 2)
        return Said(as_text([known, "", "minidyn reproduce STUDY... or --all, also with --quick"]))
    folder = Path(out or ("results-quick" if quick else "results")).expanduser()
    check_writable(folder / PAGE)
    notebooks = [find_study(name) for name in names]
    outcomes = to_the_end(_run_all(notebooks, quick, folder, store, jobs or min(cores(), _MOST)))
    write_page(folder)
    wrong = [f"{outcome.name} ({outcome.verdict})" for outcome in outcomes if _is_wrong(outcome, quick)]
    failure = SolverError(f"not all is as claimed: {', '.join(wrong)}.") if wrong else None
    return Said(as_text(_report(outcomes, folder)), failure)


async def _run_all(notebooks: list[Path], quick: bool, folder: Path, store: bool, jobs: int) -> list[Outcome]:
    """Run notebooks, some at the same time; a line on stderr for each that is done."""
    began, free = time.perf_counter(), asyncio.Semaphore(jobs)

    async def one(notebook: Path) -> Outcome:
        async with free:
            return await run_notebook(notebook, quick, folder, store)

    asked = [asyncio.create_task(one(notebook)) for notebook in notebooks]
    try:
        for count, done in enumerate(asyncio.as_completed(asked), 1):
            outcome = await done
            at = f"{time.perf_counter() - began:5.0f} s  {count} of {len(asked)}"
            print("  ".join([at, *outcome.row()]), file=sys.stderr, flush=True)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return [done.result() for done in asked]


def _is_wrong(outcome: Outcome, quick: bool) -> bool:
    """Whether a study broke or a claim fails; at quick sizes claims may be undecided."""
    return outcome.verdict not in ((HOLDS, UNDECIDED) if quick else (HOLDS,))


def _report(outcomes: list[Outcome], folder: Path) -> Report:
    """One study: all its claims. Several: a row each, and the claims that do not hold."""
    broken: Report = [f"{outcome.name} broke: {outcome.broken}." for outcome in outcomes if outcome.broken]
    if len(outcomes) == 1:
        (only,) = outcomes
        tables: Report = (
            [f"{only.name}: {summary_of(only.claims)}", table_of(only.claims, sources=False)] if only.claims else []
        )
        return [*tables, *broken, "", f"wrote {only.folder}"]
    rows = Table([["study", "", "took", "verdict"], *(outcome.row() for outcome in outcomes)], left=2)
    other = [claim for outcome in outcomes for claim in outcome.claims if claim.verdict != HOLDS]
    rest: Report = ["", table_of(other, sources=False)] if other else []
    everything = summary_of([claim for outcome in outcomes for claim in outcome.claims])
    return [rows, *rest, *broken, "", f"{everything}; wrote {folder / PAGE}"]
