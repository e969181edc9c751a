"""What a run tells: to the person at the console and, with the time, into `log.txt`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text


class Log:
    """Says things once, whatever the number of processes: `directory` is None on all but the main one."""

    def __init__(self, console: Console, directory: Path | None) -> None:
        self.console = console
        self.path = directory / "log.txt" if directory else None

    def say(self, text: str) -> None:
        """Print a line (rich markup) and append it to the log."""
        if self.path is None:
            return
        self.console.print(text, highlight=False, soft_wrap=True)
        self.write(Text.from_markup(text).plain)

    def write(self, text: str) -> None:
        """Append a line to the log alone."""
        if self.path is None:
            return
        # On a full disk the error to report is the one that is being logged, not that it can't be.
        with suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
