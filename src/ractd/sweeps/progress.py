"""What a person sees of a sweep: a line for every change, and at a terminal a table of what runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.live import Live
from rich.markup import escape
from rich.table import Table

TAIL_BYTES = 4096
COLORS = {"done": "green", "failed": "red", "not run": "red", "trying once more": "yellow", "stopped": "yellow"}


class Running(NamedTuple):
    """A row of the table."""

    name: str
    attempt: int
    started: float | None
    """`time.monotonic()` of its begin; None while a cluster has no room for it."""
    tail: str


class Progress:
    """Shows a sweep where `live` is, which is transient and refreshed here."""

    def __init__(self, live: Live, trials: int, done: int) -> None:
        self.live, self.console, self.trials, self.over = live, live.console, trials, done
        self.seconds: list[float] = []

    def started(self, name: str, attempt: int) -> None:
        """Say that a trial runs."""
        self._say(f"{escape(name)}: started{f', attempt {attempt}' if attempt > 1 else ''}")

    def ended(self, name: str, state: str, seconds: float, reason: str) -> None:
        """Say what came of a trial, or of an attempt."""
        if state in ("done", "failed", "not run"):
            self.over += 1
        if state == "done":
            self.seconds.append(seconds)
        after = f" after {duration(seconds)}" if seconds else ""
        because = f": {escape(reason)}" if reason else ""
        self._say(f"{escape(name)}: [{COLORS[state]}]{state}[/]{after} ({self.over} of {self.trials}){because}")

    def show(self, running: Sequence[Running]) -> None:
        """Draw the table anew, at a terminal."""
        if not self.console.is_terminal:
            return
        now = time.monotonic()
        table = Table(caption=self._caption(running, now), caption_justify="left", expand=True)
        for column in ("trial", "attempt", "time"):
            table.add_column(column, no_wrap=True, justify="left" if column == "trial" else "right")
        table.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
        for row in running:
            elapsed = "waiting" if row.started is None else duration(now - row.started)
            table.add_row(escape(row.name), str(row.attempt), elapsed, escape(row.tail))
        self.live.update(table, refresh=True)

    def _caption(self, running: Sequence[Running], now: float) -> str:
        begun = [row.started for row in running if row.started is not None]
        caption = f"{self.over} of {self.trials} are over, {len(begun)} running"
        if self.seconds and begun:
            mean = sum(self.seconds) / len(self.seconds)
            left = (self.trials - self.over) * mean - sum(min(now - start, mean) for start in begun)
            caption += f", about {duration(left / len(begun))} left"
        return caption

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    return f"{minutes} min" if minutes < 120 else f"{hours} h"


def last_line(log: Path, offset: int) -> str:
    """Return the last line that a log has after `offset`."""
    return next(reversed(_lines(log, offset)), "")


def last_error(log: Path, offset: int) -> str:
    """Return the last line after `offset` that says what went wrong, else the last one."""
    lines = _lines(log, offset)
    error = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "")
    return error.removeprefix("error:").strip()


def _lines(log: Path, offset: int) -> list[str]:
    try:
        with open(log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]
