"""What is suspicious about the ranges of observations and actions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.data.findings import Finding, some_rows, warning
from ractd.data.ranges import BLOCK_ROWS, Floats, mean_and_std, no_spread, per_dimension

MOST_CHOICES = 16
"""A dimension with more values is continuous, whole numbers or not."""
ROWS_A_CHOICE = 10
"""With fewer rows for each value, that there are no others says nothing."""
LISTED = 4
"""Dimensions that a finding names."""


def check_ranges(data: OfflineDataset) -> Iterator[Finding]:
    """Yield outliers, changes that are no more than rounding, and actions that are choices among a few numbers."""
    yield from check_outliers(data)
    yield from check_rounding(data)
    yield from check_choices(data)


def check_outliers(data: OfflineDataset) -> Iterator[Finding]:
    """Yield where a few rows lie far outside the others, and what becomes of them."""
    found = data.statistics()
    both = (
        ("observations", data.observations, found.observation_low, found.observation_high, found.observation_outliers),
        ("actions", data.actions, found.action_low, found.action_high, found.action_outliers),
    )
    for name, values, low, high, outliers in both:
        facts = {}
        for i in np.flatnonzero(outliers):
            rows = np.flatnonzero((values[:, i] < low[i]) | (values[:, i] > high[i]))
            facts[i] = f"{some_rows(rows)} with {values[rows[0], i]:g}, others {low[i]:g} to {high[i]:g}"
        if facts:
            advice = "; if they are right, give the robot's range (--action-range)" if name == "actions" else ""
            what = "they don't count for the range and are clipped to it"
            yield warning(f"{name} far outside the others ({_listed(facts)}); {what}{advice}")


def check_action_range(data: OfflineDataset, action_range: tuple[float, ...] | None) -> Iterator[Finding]:
    """Yield actions outside the robot's own range.

    Raises:
        RactdError: for a range that doesn't fit the data's dimensions.
    """
    if action_range is None:
        return
    facts = {}
    for i, (low, high) in enumerate(per_dimension(action_range, data.action_dim)):
        rows = np.flatnonzero((data.actions[:, i] < low) | (data.actions[:, i] > high))
        if len(rows):
            facts[i] = f"{some_rows(rows)} with {data.actions[rows[0], i]:g}"
    if facts:
        what = f"actions outside --action-range ({_listed(facts)}); they are clipped to it"
        yield warning(f"dataset {data.name!r}: {what}")


def check_rounding(data: OfflineDataset) -> Iterator[Finding]:
    """Yield the dimensions that change by no more than rounding, but change; those that never do are another finding."""
    found, facts = data.statistics(), {}
    for i in np.flatnonzero((found.observation_std == 1) & (found.observation_low < found.observation_high)):
        column = data.observations[:, i : i + 1]
        kept = (column >= found.observation_low[i]) & (column <= found.observation_high[i])
        mean, std = mean_and_std(column[kept][:, None])
        if no_spread(mean, std):
            facts[i] = f"{std[0]:.2g} around {mean[0]:g}"
    if facts:
        yield warning(
            f"observations change by no more than rounding ({_listed(facts)}) and are not magnified; of a signal subtract the "
            "mean, and give it in smaller units"
        )
    facts = {}
    for i in np.flatnonzero((found.action_low == found.action_high) & (found.action_outliers == 0)):
        spread = float(data.actions[:, i].max()) - float(data.actions[:, i].min())
        if spread > 0:
            facts[i] = f"{spread:.2g} around {found.action_low[i]:g}"
    if facts:
        yield warning(
            f"actions change by no more than rounding ({_listed(facts)}), so the policy's are constant there; of a signal "
            "subtract the mean"
        )


def check_choices(data: OfflineDataset) -> Iterator[Finding]:
    """Yield the dimensions whose actions are a few whole numbers."""
    facts = {}
    for i in range(data.action_dim):
        values = _few_values(data.actions[:, i])
        if 2 <= len(values) <= data.num_transitions / ROWS_A_CHOICE and (values == np.rint(values)).all():
            facts[i] = ", ".join(f"{value:g}" for value in values)
    if facts:
        yield warning(
            f"actions are a few whole numbers only ({_listed(facts)}); a policy gives numbers in between, round them where "
            "the robot takes no others"
        )


def _few_values(column: Floats) -> Floats:
    """Return the sorted values of a column, none where they are more than `MOST_CHOICES`."""
    values = column[:0]
    for start in range(0, len(column), BLOCK_ROWS):
        values = np.union1d(values, column[start : start + BLOCK_ROWS])
        if len(values) > MOST_CHOICES:
            return column[:0]
    return values


def _listed(facts: Mapping[Any, str]) -> str:
    """Return facts by their dimensions, the first `LISTED` of them in full."""
    more = len(facts) - LISTED
    shown = "; ".join(f"dimension {i}: {fact}" for i, fact in list(facts.items())[:LISTED])
    return shown + (f"; and {more} more dimension{'s' if more > 1 else ''}" if more > 0 else "")
