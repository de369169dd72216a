"""Reports and mathematics as HTML for notebooks: in the colours of the page, light or dark; what is wide scrolls."""

from __future__ import annotations

from html import escape

from minidyn.common.errors import printable
from minidyn.common.reports import Report, Table

_PLAIN = "tex2jax_ignore mathjax_ignore"  # classes in which `$` is a dollar
_WIDE = "overflow-x: auto; padding: 0.2em 0"
_CELL = "padding: 0.15em 0.8em; white-space: pre; text-align: "


def as_html(report: Report) -> str:
    """The report as paragraphs and tables."""
    return _page("".join(_table(part) if isinstance(part, Table) else _paragraph(part) for part in report), _PLAIN)


def formulas(name: str, lines: list[str], text: str) -> str:
    """Mathematics: a name, lines with `$...$` that a notebook typesets, and `text`, which says the same without."""
    body = "".join(f'<div style="{_WIDE}">{escape(line)}</div>' for line in lines if line.strip())
    style = f"{_WIDE}; margin: 0; background: transparent; color: inherit"
    fallback = (
        f'<details class="{_PLAIN}"><summary>as text</summary><pre style="{style}">{escape(text)}</pre></details>'
    )
    return _page(f'<p class="{_PLAIN}"><code>{escape(name)}</code></p>{body}{fallback}')


def _page(body: str, kind: str = "") -> str:
    return f'<div class="{kind}" style="max-width: 100%">{printable(body, keep=chr(10))}</div>'


def _paragraph(text: str) -> str:
    lines = [escape(line.strip()) for line in text.splitlines()]
    return f'<p style="margin: 0.3em 0; overflow-wrap: anywhere">{"<br>".join(lines)}</p>' if text.strip() else ""


def _table(table: Table) -> str:
    rows = [
        _row(
            table,
            row,
            ["th" if (table.head and not i) or (not table.head and not c) else "td" for c in range(len(row))],
        )
        for i, row in enumerate(table.rows)
    ]
    return f'{_paragraph(table.title)}<div style="{_WIDE}"><table>{"".join(rows)}</table></div>'


def _row(table: Table, row: list[str], tags: list[str]) -> str:
    cells = [
        f'<{tag} style="{_CELL}{"left" if c < table.left else "right"}">{escape(cell)}</{tag}>'
        for c, (tag, cell) in enumerate(zip(tags, row, strict=True))
    ]
    return f"<tr>{''.join(cells)}</tr>"


def progress(bars: list[tuple[float, str]]) -> str:
    """Bars, each with how much of it is done and its line."""
    rows = [f'<div><progress value="{part:.4f}" max="1"></progress> {escape(text)}</div>' for part, text in bars]
    return _page("".join(rows), _PLAIN)
