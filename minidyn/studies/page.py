"""The page of a folder of results: each study with its claims and figures, in Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minidyn.studies.claims import Claim, claim_in
from minidyn.studies.study import REPORT, summary_of, verdict_of, write_result

PAGE = "README.md"


def write_page(folder: Path) -> None:
    """Write `README.md` into a folder of results."""
    text = page_of(folder).encode()
    write_result(folder / PAGE, lambda file: file.write(text))


def page_of(folder: Path) -> str:
    """What the reports in a folder say, study by study."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*/{REPORT}"))]
    claims = {report["study"]: [claim_in(record) for record in report["claims"]] for report in reports}
    everything = [claim for found in claims.values() for claim in found]
    lines = [
        "# Studies",
        "",
        "What was published, and what minidyn adds, measured anew: `minidyn reproduce --all` runs the notebooks and",
        f"writes this page. {summary_of(everything)}. A claim holds where three standard errors to both sides of what",
        "was measured lie in the expected range.",
        "",
        *_rows(["study", "", "took", "verdict"], [_row(report, claims[report["study"]]) for report in reports]),
    ]
    for report in reports:
        lines += _section(report, claims[report["study"]])
    return "\n".join(lines) + "\n"


def _row(report: dict[str, Any], claims: list[Claim]) -> list[str]:
    name = report["study"]
    return [f"[{name}](#{name})", summary_of(claims), f"{report['seconds']:.0f} s", verdict_of(claims)]


def _section(report: dict[str, Any], claims: list[Claim]) -> list[str]:
    """A study: its claims, its figures, on what it was measured."""
    name, machine, versions = report["study"], report["machine"], report["versions"]
    sizes = ", quick sizes" if report["quick"] else ""
    figures = [
        line for figure, says in report["figures"].items() for line in (f"![{says}]({name}/{figure}.png)", "", says, "")
    ]
    return [
        "",
        f"## {name}",
        "",
        *_rows(["claim", "source", "measured", "expected", "verdict"], [claim.row() for claim in claims]),
        "",
        *figures,
        f"{machine['processor']}, {machine['cores']} cores, {report['seconds']:.0f} s{sizes}; "
        + ", ".join(f"{package} {version}" for package, version in versions.items())
        + ".",
    ]


def _rows(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    cells = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]
