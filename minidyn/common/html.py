"""Reports and mathematics as HTML for notebooks: in the colours of the page, light or dark; what is wide scrolls."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from minidyn.common.errors import printable

if TYPE_CHECKING:  # what is shown opens this room, not the other way round
    from minidyn.common.reports import Report, Table

_PLAIN = "tex2jax_ignore mathjax_ignore"  # classes in which `$` is a dollar
_WIDE = "overflow-x: auto; padding: 0.2em 0"
_CELL = "padding: 0.15em 0.8em; white-space: {}; text-align: {}"  # numbers stay on a line, words go on below


def as_html(report: Report) -> str:
    """The report as paragraphs and tables."""
    return _page("".join(_paragraph(part) if isinstance(part, str) else _table(part) for part in report), _PLAIN)


def formulas(name: str, lines: list[str], text: str) -> str:
    """Mathematics: a name, lines with `$...$` that a notebook typesets, and `text`, which says the same without."""
    body = "".join(f'<div style="{_WIDE}">{escape(_displayed(line))}</div>' for line in lines if line.strip())
    style = f"{_WIDE}; margin: 0; background: transparent; color: inherit"
    fallback = (
        f'<details class="{_PLAIN}"><summary>as text</summary><pre style="{style}">{escape(text)}</pre></details>'
    )
    return _page(f'<p class="{_PLAIN}"><code>{escape(name)}</code></p>{body}{fallback}')


def _displayed(line: str) -> str:
    """A line that is one formula, at its full size."""
    alone = line.startswith("$") and line.find("$", 1) == len(line) - 1 and "displaystyle" not in line
    return rf"$\displaystyle {line[1:]}" if alone else line


def _page(body: str, kind: str = "") -> str:
    return f'<div class="{kind}" style="max-width: 100%">{printable(body, keep=chr(10))}</div>'


def _paragraph(text: str) -> str:
    lines = [escape(line.strip()) for line in text.splitlines()]
    return f'<p style="margin: 0.3em 0; overflow-wrap: anywhere">{"<br>".join(lines)}</p>' if text.strip() else ""


def _table(table: Table) -> str:
    rows = [_row(table, row, is_head=table.head and not place) for place, row in enumerate(table.rows)]
    return f'{_paragraph(table.title)}<div style="{_WIDE}"><table>{"".join(rows)}</table></div>'


def _row(table: Table, row: list[str], is_head: bool) -> str:
    names = len(row) if is_head else 0 if table.head else 1
    cells = []
    for place, cell in enumerate(row):
        tag, how = "th" if place < names else "td", ("pre-wrap", "left") if place < table.left else ("pre", "right")
        cells.append(f'<{tag} style="{_CELL.format(*how)}">{escape(cell)}</{tag}>')
    return f"<tr>{''.join(cells)}</tr>"


def progress(bars: list[tuple[float, str]]) -> str:
    """Bars, each with how much of it is done and its line."""
    rows = [f'<div><progress value="{part:.4f}" max="1"></progress> {escape(text)}</div>' for part, text in bars]
    return _page("".join(rows), _PLAIN)
