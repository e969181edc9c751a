"""Cells as tables: in the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table


def markdown_table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return cells as a Markdown table, columns of numbers to the right."""
    headings, cells = list(columns), [tuple(row) for row in rows]
    rule = ["---:" if right else "---" for right in _numeric(headings, cells)]
    lines = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in (headings, rule, *cells))
    return "".join(f"| {line} |\n" for line in lines)


def terminal_table(columns: Iterable[str], rows: Iterable[Sequence[str]], **settings: Any) -> Table:
    """Return cells as a table for people, columns of numbers to the right; `settings` are rich's."""
    headings, cells = list(columns), [tuple(row) for row in rows]
    table = Table(title_justify="left", caption_justify="left", **settings)
    for heading, right in zip(headings, _numeric(headings, cells), strict=True):
        table.add_column(escape(heading), justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    return table


def _numeric(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Return which columns, after the first, begin with a number where they begin with something."""
    firsts = [
        next((row[index] for row in rows if row[index] not in ("", "-", "not run")), "")
        for index in range(len(headings))
    ]
    return [index > 0 and first.lstrip("+-")[:1].isdigit() for index, first in enumerate(firsts)]
