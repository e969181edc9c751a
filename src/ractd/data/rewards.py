"""Data that nobody was paid for: what can stand in for rewards, and when nothing can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ractd.data.dataset import OfflineDataset


def settle_rewards(dataset: OfflineDataset) -> tuple[OfflineDataset, str]:
    """Return the dataset with rewards that mean something or with `has_rewards` False, and a sentence on what was done, if any.

    Where rewards are absent or all equal, the first success of each episode is paid 1. Without a success there is nothing to
    learn from them, but for equal rewards that are not 0 and episodes that the environment ended: these tell by their length.
    Mazes are left alone: what they pay for is known.
    """
    absent = not dataset.has_rewards
    if is_maze(dataset.env_id) or dataset.num_transitions == 1:
        return dataset, ""
    if not absent and dataset.rewards.min() != dataset.rewards.max():
        return dataset, ""
    what = "there are no rewards" if absent else f"every reward is {dataset.rewards[0]:g}"
    paid = _first_successes(dataset)
    if len(paid):
        rewards = np.zeros(dataset.num_transitions, np.float32)
        rewards[paid] = 1
        sentence = f"{what}, but {len(paid):,} of {dataset.num_episodes:,} episodes succeed: a success is paid 1"
        return replace(dataset, rewards=rewards, has_rewards=True), sentence
    if not absent and dataset.rewards[0] != 0 and (dataset.ends.are("failure") | dataset.ends.are("unclear")).any():
        return dataset, f"{what}, so only the lengths of episodes tell how good actions are"
    sentence = f"{what}, so none of the actions is known to be better than another: a policy can only imitate the data"
    return replace(dataset, has_rewards=False), sentence


def is_maze(env_id: str | None) -> bool:
    """Tell whether an environment is a maze of ours."""
    return env_id is not None and env_id.startswith("ractd/maze")


def _first_successes(dataset: OfflineDataset) -> np.ndarray:
    """Return the row of each episode's first success, of those that have one."""
    flags = np.zeros(dataset.num_transitions, np.bool_) if dataset.successes is None else dataset.successes.copy()
    flags[dataset.episode_ends[dataset.ends.are("success")] - 1] = True
    rows = np.flatnonzero(flags)
    _, first = np.unique(np.searchsorted(dataset.episode_ends, rows, side="right"), return_index=True)
    return rows[first]
