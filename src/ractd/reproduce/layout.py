"""How lines become columns of text, for Markdown and for terminals alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ractd.reproduce.lines import Line


class Grid(NamedTuple):
    """A table of text."""

    heading: str
    """The dataset where a table has several grids, else empty."""
    headers: list[str]
    rows: list[list[str]]
    """Each as long as the headers."""


class Column(NamedTuple):
    """One column of a listing."""

    header: str
    text: Callable[[Line, Line | None], str]
    """Of a line, beside the line that times are compared with."""


def plus_minus(mean: float | None, error: float | None, digits: int = 1) -> str:
    """Return mean ± standard error, as far as there are any."""
    if mean is None:
        return ""
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def ours(line: Line) -> str:
    """Return our score, or that there is none."""
    return plus_minus(line.mean("score"), line.error("score")) or "not run"


def _quantity(name: str, digits: int) -> Callable[[Line, Line | None], str]:
    return lambda line, _: plus_minus(line.mean(name), line.error(name), digits)


def _paper_time(line: Line, reference: Line | None) -> str:
    seconds = line.published.seconds
    if seconds is None:
        return ""
    least = reference and reference.published.seconds
    return f"{seconds:g} s" + (f" ({seconds / least:.3g}x)" if least else "")


def _our_time(line: Line, reference: Line | None) -> str:
    ms = line.mean("ms")
    if ms is None:
        return ""
    least = reference and reference.mean("ms")
    return f"{ms:.3g} ms" + (f" ({ms / least:.3g}x)" if least else "")


def _nfe(line: Line, _: Line | None) -> str:
    nfe = line.mean("nfe")
    return "" if nfe is None else f"{nfe:g}"


def _quantiles(line: Line, _: Line | None) -> str:
    by_seed = list(line.samples("return").values())
    return (
        " / ".join(f"{value:,.0f}" for value in np.percentile(np.concatenate(by_seed), (10, 50, 90))) if by_seed else ""
    )


def _share(line: Line, _: Line | None) -> str:
    mean, error = line.mean("upper"), line.error("upper")
    return "" if mean is None or error is None else f"{mean:.0%} ± {error:.1%}"


METHOD = Column("method", lambda line, _: line.method)
PAPER_SCORE = Column("paper: score", lambda line, _: plus_minus(line.published.score, line.published.se))
SCORE = Column("ours: {unit} ± s.e.", lambda line, _: ours(line))
PAPER_NFE = Column("paper: NFE", lambda line, _: "" if line.published.nfe is None else str(line.published.nfe))
NFE = Column("ours: NFE", _nfe)
PAPER_TIME = Column("paper: time", _paper_time)
TIME = Column("ours: time", _our_time)
SPREAD = Column("spread of samples", _quantity("spread", 3))
KEPT = Column("teacher's modes kept", _quantity("kept", 3))
QUANTILES = Column("returns: 10 / 50 / 90 %", _quantiles)
UPPER = Column("episodes in the better mode ± s.e.", _share)
LATE = Column("late in training: {unit}", _quantity("late", 1))
SWING = Column("swing there", _quantity("swing", 1))
SEEDS = Column("seeds", lambda line, _: ", ".join(map(str, line.seeds)))


def listing(columns: Sequence[Column], lines: Sequence[Line], reference: str, unit: str) -> list[Grid]:
    """Return a grid a dataset, in it a row a line; without columns that nothing is known for."""
    grids = []
    for dataset in dict.fromkeys(line.dataset for line in lines):
        here = [line for line in lines if line.dataset == dataset]
        beside = next((line for line in here if line.method == reference), None)
        cells = {column.header.format(unit=unit): [column.text(line, beside) for line in here] for column in columns}
        filled = {header: texts for header, texts in cells.items() if any(texts)}
        grids.append(Grid(dataset, list(filled), [list(row) for row in zip(*filled.values(), strict=True)]))
    return grids


def matrix(columns: Sequence[Column], lines: Sequence[Line], reference: str, unit: str) -> list[Grid]:
    """Return two rows a method, the paper's scores and ours, a column a dataset, and the average where none is missing."""
    datasets = list(dict.fromkeys(line.dataset for line in lines))
    by_method: dict[str, dict[str, Line]] = {}
    for line in lines:
        by_method.setdefault(line.method, {})[line.dataset] = line
    rows = []
    for method, found in by_method.items():
        each = [found.get(dataset, Line(dataset, method)) for dataset in datasets]
        scores = [line.published.score for line in each]
        if any(score is not None for score in scores):
            cells = [PAPER_SCORE.text(line, None) for line in each]
            rows.append([method, "paper", *cells, _average(scores), _first(each, PAPER_NFE)])
        means = [line.mean("score") for line in each]
        rows.append([method, "ours", *map(ours, each), _average(means), _first(each, NFE)])
    return [Grid("", ["method", "whose", *datasets, f"average {unit}", "NFE"], rows)]


def _average(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}" if known and len(known) == len(values) else ""


def _first(lines: Sequence[Line], column: Column) -> str:
    return next(filter(None, (column.text(line, None) for line in lines)), "")
