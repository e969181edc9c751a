"""What is suspicious about the ranges of observations and actions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.data.fields import Finding
from ractd.data.ranges import BLOCK_ROWS, Floats, Ints, mean_and_std, no_spread, per_dimension

MOST_CHOICES = 16
"""A dimension with more values is continuous, whole numbers or not."""
ROWS_A_CHOICE = 10
"""With fewer rows for each value, that there are no others says nothing."""
LISTED = 4
"""Dimensions that a finding names."""


def check_ranges(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield outliers, changes that are no more than rounding, and actions that are choices among a few numbers."""
    yield from check_outliers(data, where)
    yield from check_rounding(data, where)
    yield from check_choices(data, where)


def check_outliers(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield where a few rows lie far outside the others, and what becomes of them."""
    found = data.statistics()
    both = (
        ("observations", data.observations, found.observation_low, found.observation_high, found.observation_outliers),
        ("actions", data.actions, found.action_low, found.action_high, found.action_outliers),
    )
    for name, values, low, high, outliers in both:
        told = []
        for i in np.flatnonzero(outliers):
            rows = np.flatnonzero((values[:, i] < low[i]) | (values[:, i] > high[i]))
            told.append(f"dimension {i}: {_some(rows)} {values[rows[0], i]:g}, others {low[i]:g} to {high[i]:g}")
        if told:
            advice = "; if they are right, give the robot's range (--action-range)" if name == "actions" else ""
            yield Finding(
                "warning",
                f"{where}: {name} far outside the others ({_listed(told)}); they don't count for the range and are clipped to it"
                + advice,
            )


def check_action_range(data: OfflineDataset, action_range: tuple[float, ...] | None) -> Iterator[Finding]:
    """Yield actions outside the robot's own range; raises `RactdError` for one that doesn't fit the data's dimensions."""
    if action_range is None:
        return
    told = []
    for i, (low, high) in enumerate(per_dimension(action_range, data.action_dim)):
        rows = np.flatnonzero((data.actions[:, i] < low) | (data.actions[:, i] > high))
        if len(rows):
            told.append(f"dimension {i}: {_some(rows)} {data.actions[rows[0], i]:g}")
    if told:
        yield Finding(
            "warning",
            f"dataset {data.name!r}: actions outside --action-range ({_listed(told)}); they are clipped to it",
        )


def check_rounding(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield the dimensions that change by no more than rounding, but change; those that never do are another finding."""
    found, told = data.statistics(), []
    for i in np.flatnonzero((found.observation_std == 1) & (found.observation_low < found.observation_high)):
        column = data.observations[:, i : i + 1]
        kept = (column >= found.observation_low[i]) & (column <= found.observation_high[i])
        mean, std = mean_and_std(column[kept][:, None])
        if no_spread(mean, std):
            told.append(f"dimension {i}: {std[0]:.2g} around {mean[0]:g}")
    if told:
        yield Finding(
            "warning",
            f"{where}: observations change by no more than rounding ({_listed(told)}) and are not magnified; "
            "of a signal subtract the mean, and give it in smaller units",
        )
    told = []
    for i in np.flatnonzero((found.action_low == found.action_high) & (found.action_outliers == 0)):
        spread = float(data.actions[:, i].max()) - float(data.actions[:, i].min())
        if spread > 0:
            told.append(f"dimension {i}: {spread:.2g} around {found.action_low[i]:g}")
    if told:
        yield Finding(
            "warning",
            f"{where}: actions change by no more than rounding ({_listed(told)}), so the policy's are constant there; "
            "of a signal subtract the mean",
        )


def check_choices(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield the dimensions whose actions are a few whole numbers."""
    told = []
    for i in range(data.action_dim):
        values = _few_values(data.actions[:, i])
        if 2 <= len(values) <= data.num_transitions / ROWS_A_CHOICE and (values == np.rint(values)).all():
            told.append(f"dimension {i}: {', '.join(f'{value:g}' for value in values)}")
    if told:
        yield Finding(
            "warning",
            f"{where}: actions are a few whole numbers only ({_listed(told)}); a policy gives numbers in between, "
            "round them where the robot takes no others",
        )


def _few_values(column: Floats) -> Floats:
    """Return the sorted values of a column, none where they are more than `MOST_CHOICES`."""
    values = column[:0]
    for start in range(0, len(column), BLOCK_ROWS):
        values = np.union1d(values, column[start : start + BLOCK_ROWS])
        if len(values) > MOST_CHOICES:
            return column[:0]
    return values


def _some(rows: Ints) -> str:
    return f"row {rows[0]:,} with" if len(rows) == 1 else f"{len(rows):,} rows, the first {rows[0]:,}, with"


def _listed(told: list[str]) -> str:
    more = len(told) - LISTED
    return "; ".join(told[:LISTED]) + (f"; and {more} more dimension{'s' if more > 1 else ''}" if more > 0 else "")
