"""What is wrong or suspicious about a dataset, one sentence each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import NDArray

from ractd.errors import RactdError

ACCEPTABLE = ("one-episode", "equal-returns")
"""Errors that a user may know better about: `--accept` makes warnings of them."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`) or suspicious (`warning`) about a dataset, in one sentence."""

    level: Literal["error", "warning"]
    message: str
    key: str = ""
    """What it is about, where that matters: an error that a user may know better about is named so in `--accept`."""

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def error(message: str, key: str = "") -> Finding:
    """Return what stops training."""
    return Finding("error", message, key)


def warning(message: str, key: str = "") -> Finding:
    """Return what is worth a look."""
    return Finding("warning", message, key)


def located(findings: Iterable[Finding], where: str) -> list[Finding]:
    """Return findings whose messages begin with what they are about: a file, or a dataset in memory."""
    return [replace(finding, message=f"{where}: {finding.message}") for finding in findings]


def has_errors(findings: Iterable[Finding]) -> bool:
    """Tell whether there is an error among findings."""
    return any(finding.level == "error" for finding in findings)


def stop_at_errors(findings: Iterable[Finding], accept: Collection[str] = ()) -> list[Finding]:
    """Return findings with the errors named in `accept`, of `ACCEPTABLE`, as warnings.

    Raises:
        RactdError: with the first error that is left and the number of others, or for a name that is none.
    """
    unknown = [name for name in accept if name not in ACCEPTABLE]
    if unknown:
        raise RactdError(f"accept has {unknown[0]!r}, expected some of {', '.join(ACCEPTABLE)}")
    left = [replace(finding, level="warning") if finding.key in accept else finding for finding in findings]
    errors = [finding.message for finding in left if finding.level == "error"]
    if errors:
        more = len(errors) - 1
        rest = f" ({more} more problem{'s' if more > 1 else ''}: `ractd data validate` lists all)" if more else ""
        raise RactdError(errors[0] + rest)
    return left


def some_rows(rows: NDArray[Any]) -> str:
    """Return rows [K] as words without their verb: `row 3`, or `12 rows, the first 3,`."""
    return f"row {rows[0]:,}" if len(rows) == 1 else f"{len(rows):,} rows, the first {rows[0]:,},"


def rows_have(rows: NDArray[Any]) -> str:
    """Return rows [K] as the beginning of a sentence, with its verb."""
    return f"{some_rows(rows)} {'has' if len(rows) == 1 else 'have'}"
