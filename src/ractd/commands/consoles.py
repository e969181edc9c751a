"""Where commands print: results to standard output, progress and errors to standard error."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

from rich.console import Console

out = Console()
err = Console(stderr=True)


def say(text: str, console: Console = out, label: str = "") -> None:
    """Print a line as it is, whole on however narrow a terminal, after a label in rich's markup."""
    if label:
        console.print(label, end=" ")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def spell_out_characters() -> None:
    """Let a terminal that lacks a character, as one of ASCII lacks ±, show what it has in place of it."""
    codecs.register_error("spell-out", _spelt_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spell-out")


def _spelt_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].replace("±", "+-").replace("·", "-")
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in letters), error.end
