"""The best part of a dataset: its episodes of the highest returns, until they hold a share of the transitions."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.data.ranges import Ints
from ractd.errors import RactdError

AUTO, ENOUGH = 0.25, 50_000
"""The share that `auto` takes, and the transitions that it takes at least: fewer are learnt by heart."""


def return_spread(dataset: OfflineDataset) -> float:
    """Return how much episodes differ: the standard deviation of their returns over their mean's size, a row an episode's return.

    About 0.15 where one policy acted, 0.4 of two and 0.8 to 1 of a learner's whole life, on the Gym sets; 0 where all returns are
    alike, and infinite where they differ and their mean is 0.
    """
    returns = np.repeat(dataset.episode_returns(), dataset.episode_lengths).astype(np.float64)
    spread, mean = float(returns.std()), abs(float(returns.mean()))
    if spread <= 1e-9 * mean or np.ptp(returns) == 0:
        return 0.0
    return spread / mean if mean > 0 else float("inf")


def best_episodes(dataset: OfflineDataset, share: float | Literal["auto"], batch: int = 1) -> tuple[Ints, str]:
    """Choose the best episodes first, until they hold at least `share` of the *transitions*.

    `auto` is a quarter, but at least `ENOUGH` transitions: all of a small set.

    A share of the episodes would be another thing: good episodes are often the longest, and a tenth of the episodes a third of
    the rows. Episodes are taken whole, the earlier one first where returns are equal. Where all of them are equal there is
    no best, and all episodes are taken.

    Returns:
        Their rows [R], rising, and which episodes they are, for a log.

    Raises:
        RactdError: Unless share is in (0, 1], and where the episodes hold fewer transitions than a `batch`.
    """
    if share == "auto":
        return best_episodes(dataset, min(max(AUTO, ENOUGH / dataset.num_transitions), 1.0), batch)
    if not 0 < share <= 1:
        raise RactdError(f"share is {share}, expected a share of the transitions in (0, 1]")
    returns, lengths = dataset.episode_returns(), dataset.episode_lengths
    everything = np.arange(dataset.num_transitions)
    if share == 1:
        return everything, f"all {len(returns):,} episodes"
    if np.ptp(returns) == 0:
        return (
            everything,
            f"all {len(returns):,} episodes: they have the same return, {returns[0]:.4g}, so that none is best",
        )
    order = np.argsort(-returns, kind="stable")
    held = np.cumsum(lengths[order])
    count = int(np.searchsorted(held, share * dataset.num_transitions * (1 - 1e-12))) + 1
    if held[count - 1] < batch:
        raise RactdError(
            f"the share is {share:g}, {held[count - 1]:,} transitions of {dataset.name!r}, and a batch has {batch:,}; "
            "expected a larger share or a smaller batch"
        )
    chosen = np.zeros(len(returns), np.bool_)
    chosen[order[:count]] = True
    return (
        np.flatnonzero(np.repeat(chosen, lengths)),
        f"the best {count:,} of {len(returns):,} episodes, with returns of at least {returns[order[count - 1]]:.4g}: "
        f"{held[count - 1] / dataset.num_transitions:.1%} of the transitions",
    )
