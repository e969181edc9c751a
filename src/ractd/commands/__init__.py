"""The commands, a file each: `ractd NAME` is `ractd.commands.NAME`, whose `parse` returns what to run.

Only the file of the command that was typed is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ractd.registry import unknown

COMMANDS = {
    "train": "Train a policy on a dataset and score it.",
    "eval": "Score a policy of a run in its environment.",
    "report": "Show a run, or several side by side, as one HTML file.",
    "export": "Write a policy as one graph that runs without PyTorch.",
    "serve": "Serve a policy over WebSocket.",
    "compare": "Train methods on the same data, and set them side by side.",
    "methods": "List the methods, what they need and where they are from.",
    "sweep": "Train every combination of datasets, settings and seeds.",
    "reproduce": "Make the paper's tables and figures.",
    "data": "Datasets: list, inspect, validate, make, collect.",
}
"""Their names, which are their files', and what each does."""


class Command(Protocol):
    """A command line that was read."""

    def run(self) -> None:
        """Do what it asks; raises `RactdError` for bad input."""


def choose(
    words: Sequence[str], prog: str, about: str, commands: Mapping[str, str], options: Sequence[str] = ("--help",)
) -> tuple[str, list[str]]:
    """Return the command that the first word names, of those that a program has beside its options, and the other words.

    Raises:
        RactdError: For another word, naming the nearest.
        SystemExit: After help, with 0.
    """
    name, *rest = words or ["--help"]
    if name in ("-h", "--help", "--help-all"):
        width = max(map(len, commands))
        lines = (f"  {each:{width}}  {summary}" for each, summary in commands.items())
        print(f"usage: {prog} [-h] COMMAND ...", "", about, "", *lines, "", sep="\n")
        print(f"'{prog} COMMAND --help' shows a command's options.")
        raise SystemExit(0)
    if name not in commands:
        raise unknown("option", name, options) if name.startswith("-") else unknown("command", name, commands)
    return name, rest
