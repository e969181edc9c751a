"""Cells as tables: in the terminal and as Markdown."""

from __future__ import annotations

import re
import shutil
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
    """Return cells as a table for people, columns of numbers to the right; `settings` are rich's.

    Where the terminal is too narrow, cells are broken between words, and names after a hyphen, a comma and the like.
    """
    headings, cells = list(columns), [tuple(row) for row in rows]
    table = Table(title_justify="left", caption_justify="left", **settings)
    widths = _widths([headings, *cells], shutil.get_terminal_size().columns - 3 * len(headings) - 1)
    for heading, width, right in zip(headings, widths, _numeric(headings, cells), strict=True):
        table.add_column(escape(_broken(heading, width)), justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(escape(_broken(cell, width)) for cell, width in zip(row, widths, strict=True)))
    return table


def _pieces(text: str) -> list[str]:
    """Return the parts of a text that stay whole."""
    return re.split(r"(?<!± )(?<=[ ,_/])(?=\S)|(?<=\w-)(?=[A-Za-z])", text)


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the width of each column: as its longest cell, or less where there is no room, but no less than its longest piece."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    least = [
        max(len(piece.rstrip()) for text in column for piece in _pieces(text)) for column in zip(*rows, strict=True)
    ]
    while sum(widths) > room and widths != least:
        widest = max((width, index) for index, width in enumerate(widths) if width > least[index])[1]
        widths[widest] -= 1
    return widths


def _broken(text: str, width: int) -> str:
    """Return a text with lines of at most a width, where its pieces allow that."""
    lines = [""]
    for piece in _pieces(text):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(map(str.rstrip, lines))


def _numeric(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Return which columns, after the first, begin with a number where they begin with something."""
    firsts = [
        next((row[index] for row in rows if row[index] not in ("", "-", "not run")), "")
        for index in range(len(headings))
    ]
    return [index > 0 and first.lstrip("+-")[:1].isdigit() for index, first in enumerate(firsts)]
