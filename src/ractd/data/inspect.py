"""The facts about a dataset that decide how it will train."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.dataset import OfflineDataset, describe
from ractd.data.formats import d4rl
from ractd.data.returns import describe_ends
from ractd.data.scores import normalized_score
from ractd.data.validation import constant_dimensions

QUANTILES = {"min": 0.0, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "max": 1.0}
SATURATED = 0.999
"""Actions beyond this share of their range, scaled to [-1, 1], count as saturated."""


def summarize(dataset: OfflineDataset) -> dict[str, Any]:
    """Return the facts about a dataset as numbers, strings, lists and dicts that JSON can hold.

    Distributions (`return`, `score`, `length`, `reward`) are dicts of mean, std and quantiles; `score` is D4RL-normalised,
    None without references or rewards; `saturated_share` is the share of action numbers at the edge of their dimension's range.
    """
    returns = dataset.episode_returns()
    statistics = dataset.statistics()
    score = _score(dataset, returns)
    last = dataset.episode_ends - 1
    terminal, timeout = dataset.terminals[last], dataset.timeouts[last] & ~dataset.terminals[last]
    return {
        **describe(dataset),
        "maze": dataset.maze,
        "has_rewards": dataset.has_rewards,
        "memory_bytes": sum(array.nbytes for array in dataset.arrays),
        "return": distribution(returns),
        "score": None if score is None else distribution(score),
        "length": distribution(dataset.episode_lengths),
        "reward": distribution(dataset.rewards),
        "ends_mean": describe_ends(dataset, 0.0),
        "ends": {
            "terminal": int(terminal.sum()),
            "timeout": int(timeout.sum()),
            "cut_off": int((~(terminal | timeout)).sum()),
        },
        "action_low": dataset.actions.min(axis=0).tolist(),
        "action_high": dataset.actions.max(axis=0).tolist(),
        "saturated_share": _saturated(dataset, statistics.action_low, statistics.action_high),
        "constant_observations": constant_dimensions(dataset.observations).tolist(),
        "constant_actions": constant_dimensions(dataset.actions).tolist(),
    }


def distribution(values: NDArray[Any]) -> dict[str, float]:
    """Return mean, std and the quantiles of a flat array, as floats."""
    quantiles = np.quantile(values, list(QUANTILES.values()))
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        **{name: float(value) for name, value in zip(QUANTILES, quantiles, strict=True)},
    }


def _score(dataset: OfflineDataset, returns: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if not dataset.has_rewards:
        return None
    if dataset.env_id is not None:
        return normalized_score(dataset.env_id, returns)
    # A file's own name says nothing about its rewards, D4RL's names do.
    return normalized_score(dataset.name, returns) if dataset.name in d4rl.DATASETS else None


def _saturated(dataset: OfflineDataset, low: NDArray[np.float32], high: NDArray[np.float32]) -> float:
    varying = high > low  # what never changes is at no edge
    scaled = 2 * (dataset.actions - low) / np.where(varying, high - low, np.float32(1)) - 1
    return float(((np.abs(scaled) > SATURATED) & varying).mean())
