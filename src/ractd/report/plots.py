"""What a figure is, apart from who draws it: `interactive` puts it into the page, `pictures` into a PNG file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ractd.data.scores import reference
from ractd.report.contents import Contents, Row

GREY = "#7f7f7f"
POLICY_COLORS = {"teacher": "#4a7cc4", "plain": "#cf7417", "student": "#2a9d62", "return": "#9467bd"}
"""Of a run's policies and stages, at least 3:1 against both of the page's backgrounds."""
RUN_COLORS = ("#4a7cc4", "#cf7417", "#2a9d62", "#b065c4", "#d0505f", "#1d93a0", "#a0743f", "#7c7f2a")
"""Of whole runs, where several are compared."""
DIAGNOSTICS = re.compile(
    r"gradient|learning_rate|samples_per_second|reward_weight|estimated_return|out_of_bounds|watch_|episode_return|confirmed_return"
)
"""Metrics that are no term of a loss; whatever else a stage logs is one."""
DATA = "behaviour data"
HISTOGRAM_COLORS = {
    DATA: GREY,
    "teacher": POLICY_COLORS["teacher"],
    "plain student": POLICY_COLORS["plain"],
    "RACTD": POLICY_COLORS["student"],
}
"""The rows of the paper's Figure 3."""
SYMBOLS = (
    ("circle", "o", "●"),
    ("square", "s", "■"),
    ("diamond", "D", "◆"),
    ("triangle-up", "^", "▲"),
    ("cross", "P", "✚"),
    ("x", "X", "✖"),
    ("star", "*", "★"),
    ("triangle-down", "v", "▼"),
)
"""Markers as plotly, Matplotlib and a legend in text name them."""


@dataclass(frozen=True)
class Series:
    """Points [N] that belong together: drawn as a line, as markers, or as the filled outline of a histogram."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    tags: tuple[str, ...] = ()
    """Entries of the legend that show and hide it."""
    line: bool = True
    dashed: bool = False
    marker: int | None = None
    """Number of its symbol, None for no markers."""
    large: bool = False
    """Its markers are larger than others."""
    error: Sequence[float] = ()
    """Standard error of each y; empty for none."""
    label: str = ""
    """Text beside each point."""
    side: Literal["top", "bottom", "left", "right"] = "top"
    """Of the point, where its text is."""
    outline: bool = False
    """x are the [N] edges of N - 1 bins, y their heights with the last one repeated."""


@dataclass(frozen=True)
class Panel:
    """A pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of the legend: a colour, a symbol, or both."""

    tag: str
    color: str | None = None
    marker: int | None = None
    dashed: bool = False
    note: str = ""
    """Behind the tag."""


@dataclass(frozen=True)
class Figure:
    """Panels that are shown together, and one PNG file."""

    key: str
    """Name of the file and of the section."""
    title: str
    panels: list[Panel]
    legend: list[Entry]
    columns: int
    """Panels side by side where there is room."""
    folded: bool = False
    """Shown when it is asked for."""


def run_color(index: int) -> str:
    """Return the colour of the report's run of that number."""
    return RUN_COLORS[index % len(RUN_COLORS)]


def unit_of(run: Contents) -> str:
    """Return what a run's policies are measured in: runs of the same unit can share an axis."""
    if run.env_id is None:
        return f"return model's estimate, {run.dataset.get('name', run.label)}"
    if reference(run.env_id) is None:
        return f"return in {run.env_id}"
    return "D4RL-normalised score"


def value_of(run: Contents, row: Row) -> tuple[float | None, float | None]:
    """Return a row's value in its run's unit, and its standard error."""
    if run.env_id is None:
        return row.estimated_return, None
    if reference(run.env_id) is None:
        return row.mean_return, row.return_se
    return row.score, row.score_se


def timed_of(runs: Sequence[Contents]) -> str:
    """Return what runs' milliseconds are for."""
    return " or ".join(unique(run.timed for run in runs if run.rows)) or "action"


def by(key: Callable[[Contents], str], runs: Sequence[Contents]) -> dict[str, list[int]]:
    """Group runs, given by their numbers in the report, by what `key` says about them."""
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(key(run), []).append(index)
    return groups


def shortened(values: ArrayLike) -> list[float]:
    """Return numbers with six digits, which is more than a screen shows."""
    return [float(f"{value:.6g}") for value in np.asarray(values, np.float64).tolist()]


def color_of(name: str) -> str:
    """Return the colour of a stage or a policy."""
    return POLICY_COLORS.get(name, POLICY_COLORS["student"])


def row_color(row: Row) -> str:
    """Return the colour of a row of the result: its policy's."""
    return color_of(row.policy.removesuffix("-last"))


def unique(names: Iterable[str]) -> list[str]:
    """Return names without repetitions, in their order."""
    return list(dict.fromkeys(names))


def file_name(text: str) -> str:
    """Return text as the name of a file on any system."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)
