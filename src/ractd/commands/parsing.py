"""From the words of a command line to a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def read(kind: type[T], name: str, words: Sequence[str], **options: Any) -> T:
    """Read the words after `ractd NAME` as a command of this kind.

    Raises:
        SystemExit: after help, with 0, and for words that the command doesn't know, with 2.
    """
    command: T = tyro.cli(kind, prog=f"ractd {name}", args=list(words), **options)
    return command


def split_training(words: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """Split the own words of a command that trains from those after '--', which are options of its trainings."""
    at = list(words).index("--") if "--" in words else len(words)
    return words[:at], tuple(words[at + 1 :])
