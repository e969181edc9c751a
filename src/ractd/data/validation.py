"""Everything that is wrong or suspicious about the rows of a dataset, its environment apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ractd.data.dataset import Bools, OfflineDataset
from ractd.data.ends import FEWEST, kind_by_rewards
from ractd.data.findings import Finding, error, rows_have, some_rows, warning
from ractd.data.ranges import BLOCK_ROWS, CONSTANT, Floats, Ints, mean_and_std, no_spread, per_dimension
from ractd.data.returns import resolved_penalty
from ractd.data.rewards import is_maze

BOUND_TOLERANCE = 1e-4
"""Share of an action's range that float32 rounding may put it outside its bounds."""
LARGEST_RETURN = 1e30
"""Of an episode: squared errors of larger ones overflow once they are scaled."""
MOST_CHOICES = 16
"""A dimension with more values is continuous, whole numbers or not."""
ROWS_A_CHOICE = 10
"""With fewer rows for each value, that there are no others says nothing."""
LISTED = 4
"""Dimensions that a finding names."""


def check_rows(data: OfflineDataset, termination_penalty: float | None) -> Iterator[Finding]:
    """Yield what the rows of a dataset show; `termination_penalty` is what a failure is to cost, where it isn't the default."""
    yield from check_episodes(data)
    yield from check_ends(data)
    yield from check_returns(data, termination_penalty)
    yield from check_spread(data)
    yield from check_ranges(data)


def check_episodes(data: OfflineDataset) -> Iterator[Finding]:
    """Yield what is suspicious about where episodes end."""
    last, rows = int(data.episode_starts[-1]), data.num_transitions
    if not (data.terminals.any() or data.timeouts.any()):
        yield error(
            f"no row has a terminal or a timeout, so all {rows:,} rows are one episode without an end; mark the ends in "
            "'terminals' and 'timeouts', or take it as it is with --accept one-episode",
            "one-episode",
        )
        return
    if not (data.terminals[-1] or data.timeouts[-1]):
        yield warning(f"the last episode (rows {last:,} to {rows - 1:,}) has no end, it is taken as cut off there")
    if data.num_episodes == 1:
        yield warning("one episode only, so nothing can be held out to measure the return model")
    short = int((data.episode_lengths == 1).sum())
    if short and data.num_episodes > 1:
        yield warning(
            f"{short:,} of {data.num_episodes:,} episodes have one row only; if steps are not decisions of their own, an end is "
            "marked too often"
        )


def check_ends(data: OfflineDataset) -> Iterator[Finding]:
    """Yield what is doubtful about what the terminals are taken to mean."""
    ends, lengths = data.ends, data.episode_lengths
    terminal = data.terminals[data.episode_ends - 1]
    count = int(terminal.sum())
    say = "say what they are with --ends failure or --ends success"
    if ends.are("unclear").any():
        yield warning(
            f"whether the {count:,} terminals are failures or successes can't be told ({ends.source}), so no penalty is "
            f"applied; {say}"
        )
    elif count and ends.are("cut")[terminal].any():
        yield warning(
            f"the {count:,} terminals are taken for a time limit: {ends.source}; mark them in 'timeouts', or {say}"
        )
    elif count:
        at_limit = terminal & (lengths == lengths.max())
        if at_limit.sum() >= FEWEST and at_limit.sum() < count:
            yield warning(
                f"{at_limit.sum():,} of {count:,} terminals come after exactly {lengths.max():,} steps, the most there are; "
                "if a time limit ended those episodes, mark them in 'timeouts' instead"
            )
        paid = kind_by_rewards(data)
        if paid is not None and not ends.are(paid[0])[terminal].any():
            taken = "failures" if ends.are("failure").any() else "successes"
            yield warning(f"terminals are taken for {taken} ({ends.source}), and yet {paid[1]}; {say}")


def check_returns(data: OfflineDataset, asked: float | None) -> Iterator[Finding]:
    """Yield returns that can't be computed with, don't differ, or spread less than a failure costs: as `asked`, or the paper's."""
    if not data.has_rewards:
        return
    episodes = np.add.reduceat(np.abs(data.rewards), data.episode_starts, dtype=np.float64)
    if episodes.max() > LARGEST_RETURN:
        yield error(
            f"episode {episodes.argmax():,} has rewards of {episodes.max():.3g} in all, more than float32 can be trained "
            f"with ({LARGEST_RETURN:g}); scale the rewards down"
        )
        return
    returns = data.episode_returns()
    spread = float(returns.std())
    if data.num_episodes > 1 and spread <= 1e-6 * np.abs(returns).max() and not is_maze(data.env_id):
        yield error(
            f"all {data.num_episodes:,} episodes have the same return, {returns[0]:g}, so rewards don't tell which is better; "
            "give rewards that do, imitate with --reward-weight 0, or learn how soon rewards come; either with --accept "
            "equal-returns",
            "equal-returns",
        )
    penalty = resolved_penalty(data, asked)
    if data.num_episodes > 1 and data.ends.are("failure").any() and abs(penalty) > spread:
        yield warning(
            f"a failure costs {abs(penalty):g}, more than the returns' spread of {spread:.3g}, so returns will mostly say "
            "whether an episode failed; --return-model.termination-penalty sets another"
        )


def check_spread(data: OfflineDataset) -> Iterator[Finding]:
    """Yield the dimensions that never change."""
    for name, values in (("observations", data.observations), ("actions", data.actions)):
        constant = constant_dimensions(values)
        if len(constant):
            listed = ", ".join(str(number) for number in constant[:8]) + (", ..." if len(constant) > 8 else "")
            dimensions = f"dimension{'s' if len(constant) > 1 else ''} {listed}"
            yield warning(f"{name} never change in {dimensions}, which can teach nothing")


def constant_dimensions(values: Floats) -> Ints:
    """Return which columns of [N, D] hold one value in every row, rising; none for N = 1."""
    if len(values) < 2:
        return np.zeros(0, np.int64)
    return np.flatnonzero(values.min(axis=0) == values.max(axis=0))


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
            # What is as good as constant has a range of one number, and rounding is no outlier.
            slack = CONSTANT * abs(low[i]) if low[i] == high[i] else np.float32(0)
            rows = np.flatnonzero((values[:, i] < low[i] - slack) | (values[:, i] > high[i] + slack))
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
    facts, most = {}, min(MOST_CHOICES, data.num_transitions / ROWS_A_CHOICE)
    for i in range(data.action_dim):
        column = data.actions[:, i]
        if len(np.unique(column[:BLOCK_ROWS])) > MOST_CHOICES:
            continue  # most columns need no more than a look
        values = np.unique(column)
        if 2 <= len(values) <= most and (values == np.rint(values)).all():
            facts[i] = ", ".join(f"{value:g}" for value in values)
    if facts:
        yield warning(
            f"actions are a few whole numbers only ({_listed(facts)}); a policy gives numbers in between, round them where "
            "the robot takes no others"
        )


def _listed(facts: Mapping[Any, str]) -> str:
    """Return facts by their dimensions, the first `LISTED` of them in full."""
    more = len(facts) - LISTED
    shown = "; ".join(f"dimension {i}: {fact}" for i, fact in list(facts.items())[:LISTED])
    return shown + (f"; and {more} more dimension{'s' if more > 1 else ''}" if more > 0 else "")


def check_unit_actions(data: OfflineDataset) -> Iterator[Finding]:
    """Yield actions outside [-1, 1], the bounds of most environments, where none is named."""
    rows = np.flatnonzero(outside(data, np.float32(-1), np.float32(1)))
    if len(rows):
        yield warning(
            f"{rows_have(rows)} actions outside [-1, 1]; fine if those are their units, name the environment (--env) to check "
            "them against its bounds"
        )


def outside(data: OfflineDataset, low: Floats | np.float32, high: Floats | np.float32) -> Bools:
    """Return the rows [N] with an action outside of bounds, scalars or [A], by more than rounding."""
    slack = BOUND_TOLERANCE * np.where(high - low < 1e6, high - low, np.float32(0))
    return np.asarray(((data.actions < low - slack) | (data.actions > high + slack)).any(axis=1))
