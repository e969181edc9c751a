"""A logged dataset in memory: contiguous arrays, where episodes end, and the statistics that training needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.errors import RactdError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BLOCK_ROWS = 65_536
"""Rows that blockwise passes look at together: small next to any dataset that needs care."""


@dataclass(frozen=True)
class Statistics:
    """What scales a dataset: `observation_mean`, `observation_std` [O], `action_low`, `action_high` [A], float32.

    A constant observation has std 1 and a constant action c the range c-1 .. c+1, so that scaling is always finite.
    """

    observation_mean: Floats
    observation_std: Floats
    action_low: Floats
    action_high: Floats


@dataclass(frozen=True, eq=False)
class OfflineDataset:
    """Transitions in the order they were logged; row n is one step, an episode is a run of rows.

    `observations` [N, O], `actions` [N, A] and `rewards` [N] are C-contiguous float32; `terminals` (the environment
    ended the episode) and `timeouts` (a time limit did) are bool [N]. Mazes
    also have their map as text, `maze`, and where the behaviour was going, `goals` [N, 2] float32. Such arrays are kept
    without a copy, others are converted. Raises RactdError for an empty dataset, a wrong rank or different lengths.
    """

    name: str
    observations: Floats
    actions: Floats
    rewards: Floats
    terminals: Bools
    timeouts: Bools
    env_id: str | None = None
    source: str = ""
    recipe: str = ""
    maze: str = ""
    goals: Floats | None = None

    def __post_init__(self) -> None:
        forms: dict[str, tuple[type[np.generic], int]] = {
            "observations": (np.float32, 2),
            "actions": (np.float32, 2),
            "rewards": (np.float32, 1),
            "terminals": (np.bool_, 1),
            "timeouts": (np.bool_, 1),
        }
        if self.goals is not None:
            forms["goals"] = (np.float32, 2)
        for field, (dtype, rank) in forms.items():
            array = np.ascontiguousarray(getattr(self, field), dtype=dtype)
            if array.ndim != rank or 0 in array.shape[1:]:
                expected = "(N, dimensions)" if rank == 2 else "(N,)"
                raise RactdError(f"dataset {self.name!r}: {field!r} has shape {array.shape}, expected {expected}")
            object.__setattr__(self, field, array)
        lengths = {field: len(getattr(self, field)) for field in forms}
        if len(set(lengths.values())) > 1:
            raise RactdError(
                f"dataset {self.name!r}: fields have different lengths, {lengths}, expected one row a transition"
            )
        if not len(self.observations):
            raise RactdError(f"dataset {self.name!r} is empty: it has no transitions")

    @property
    def num_transitions(self) -> int:
        """Return N."""
        return len(self.observations)

    @property
    def num_episodes(self) -> int:
        """Return the number of episodes, at least 1."""
        return len(self.episode_ends)

    @property
    def observation_dim(self) -> int:
        """Return O."""
        return int(self.observations.shape[1])

    @property
    def action_dim(self) -> int:
        """Return A."""
        return int(self.actions.shape[1])

    @cached_property
    def episode_ends(self) -> Ints:
        """Return the exclusive end row of each episode, int64 [E], rising; the last is always N.

        An episode ends at a terminal or a timeout; rows after the last one form an episode that was cut off.
        """
        ends = np.flatnonzero(self.terminals | self.timeouts) + 1
        if not len(ends) or ends[-1] != self.num_transitions:
            ends = np.append(ends, self.num_transitions)
        return ends.astype(np.int64)

    @cached_property
    def episode_starts(self) -> Ints:
        """Return the first row of each episode, int64 [E]."""
        return np.concatenate([np.zeros(1, np.int64), self.episode_ends[:-1]])

    @cached_property
    def episode_lengths(self) -> Ints:
        """Return the number of transitions of each episode, int64 [E], all at least 1."""
        return self.episode_ends - self.episode_starts

    def episode_returns(self) -> NDArray[np.float64]:
        """Return the undiscounted return of each episode, float64 [E]."""
        return np.add.reduceat(self.rewards, self.episode_starts, dtype=np.float64)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return every array, `goals` last where there are any."""
        fields = (self.observations, self.actions, self.rewards, self.terminals, self.timeouts)
        return fields if self.goals is None else (*fields, self.goals)

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 (hex) of every array's shape and bytes: equal if and only if the data are."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            flat = array.reshape(-1).view(np.uint8).data
            for start in range(0, len(flat), 1 << 24):
                digest.update(flat[start : start + (1 << 24)])
        return digest.hexdigest()

    @cached_property
    def _statistics(self) -> Statistics:
        mean, std = _mean_and_std(self.observations)
        low, high = self.actions.min(axis=0), self.actions.max(axis=0)
        center = (low + high) / 2
        constant = high - low <= np.finfo(np.float32).eps * np.abs(center)
        half = np.maximum(1, 1e-3 * np.abs(center))
        return Statistics(
            observation_mean=mean,
            observation_std=std,
            action_low=np.where(constant, center - half, low).astype(np.float32),
            action_high=np.where(constant, center + half, high).astype(np.float32),
        )

    def statistics(self) -> Statistics:
        """Return the scaling of observations and actions, computed once, blockwise in float64."""
        return self._statistics


def _mean_and_std(values: Floats) -> tuple[Floats, Floats]:
    blocks = [values[start : start + BLOCK_ROWS] for start in range(0, len(values), BLOCK_ROWS)]
    mean = sum((block.sum(axis=0, dtype=np.float64) for block in blocks), np.zeros(values.shape[1])) / len(values)
    # Two passes: the one-pass formula loses every digit of a small spread around a large mean.
    squares = sum(((block - mean) ** 2).sum(axis=0) for block in blocks)
    std = np.sqrt(squares / len(values))
    float32 = np.finfo(np.float32)
    std[std <= float32.eps * np.abs(mean) + float32.tiny] = 1
    return mean.astype(np.float32), std.astype(np.float32)


PIECE = 1024
"""Rows that `return_to_go` sums as one."""


def return_to_go(dataset: OfflineDataset, gamma: float, termination_penalty: float = 0.0) -> Floats:
    """Return the discounted return from each row to its episode's end, float32 [N]: `G_n = r_n + gamma G_(n+1)`.

    `termination_penalty` is added to the last reward of episodes that a terminal ended; a timeout is no termination.
    Sums are float64. Raises RactdError unless gamma is in [0, 1] and the penalty is finite.
    """
    if not 0 <= gamma <= 1:
        raise RactdError(f"gamma is {gamma}, expected a discount in [0, 1]")
    if not np.isfinite(termination_penalty):
        raise RactdError(f"termination penalty is {termination_penalty}, expected a finite number (0 switches it off)")
    rewards, out = dataset.rewards, np.empty_like(dataset.rewards)
    ends = dataset.episode_ends
    # Episodes are cut into pieces that all step back together and are then joined, so that neither a million short
    # episodes nor one of a million steps is a Python loop of that length.
    counts = -(-dataset.episode_lengths // PIECE)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(dataset.episode_starts, counts) + PIECE * number
    stops = np.append(starts[1:], dataset.num_transitions)

    head = rewards[stops - 1] + np.where(dataset.terminals[stops - 1], float(termination_penalty), 0.0)
    piece, row = np.arange(len(starts)), stops - 1
    while len(piece):
        out[row] = head[piece]
        going = row > starts[piece]
        piece, row = piece[going], row[going] - 1
        head[piece] = rewards[row] + gamma * head[piece]

    discounts = gamma ** np.arange(PIECE, 0, -1, dtype=np.float64)
    for joined in np.flatnonzero(~np.isin(stops, ends))[::-1]:
        tail = discounts[-(stops[joined] - starts[joined]) :] * head[joined + 1]
        out[starts[joined] : stops[joined]] += tail
        head[joined] += tail[0]
    return out


def describe(dataset: OfflineDataset) -> dict[str, Any]:
    """Return what a run records about its data: name, source, recipe, environment, sizes and fingerprint."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "recipe": dataset.recipe,
        "env_id": dataset.env_id,
        "transitions": dataset.num_transitions,
        "episodes": dataset.num_episodes,
        "observation_dim": dataset.observation_dim,
        "action_dim": dataset.action_dim,
        "fingerprint": dataset.fingerprint,
    }
