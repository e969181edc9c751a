"""Where commands print: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from rich.console import Console

out = Console()
err = Console(stderr=True)


def say(text: str, console: Console = out, label: str = "") -> None:
    """Print a line as it is, whole on however narrow a terminal, after a label in rich's markup."""
    if label:
        console.print(label, end=" ")
    console.print(text, markup=False, highlight=False, soft_wrap=True)
