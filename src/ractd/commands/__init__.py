"""The commands, a file each: `ractd NAME` is `ractd.commands.NAME`, whose `parse` returns what to run.

Only the file of the command that was typed is imported.
"""

from __future__ import annotations

from typing import Protocol

COMMANDS = {
    "train": "Train a policy on a dataset and score it.",
    "eval": "Score a policy of a run in its environment.",
    "report": "Show a run, or several side by side, as one HTML file.",
    "export": "Write a policy as one graph that runs without PyTorch.",
    "serve": "Serve a policy over WebSocket.",
    "sweep": "Train every combination of datasets, settings and seeds.",
    "reproduce": "Make the paper's tables and figures.",
    "data": "Datasets: list, inspect, validate, make, collect.",
}
"""Their names, which are their files', and what each does."""


class Command(Protocol):
    """A command line that was read."""

    def run(self) -> None:
        """Do what it asks; raises `RactdError` for bad input."""
