"""A logged dataset in memory: contiguous arrays, where episodes end, and the statistics that training needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.ranges import Statistics, statistics_of
from ractd.envs.settings import REGISTERED, EnvironmentSettings
from ractd.errors import RactdError
from ractd.serialize import to_json

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

CONTINUOUS = "save them as float32 if they are continuous; choices among a few can't be learnt: a policy gives numbers in between"
"""What to do about actions that are integers or booleans."""


@dataclass(frozen=True, eq=False)
class OfflineDataset:
    """Transitions in the order they were logged; row n is one step, an episode is a run of rows.

    `observations` [N, O], `actions` [N, A] and `rewards` [N] are C-contiguous float32; `terminals` (the environment
    ended the episode) and `timeouts` (a time limit did) are bool [N]. Mazes
    also have their map as text, `maze`, and where the behaviour was going, `goals` [N, 2] float32. The environment is
    `env_id` with `env_settings`. Such arrays are kept without a copy, others are converted. Raises RactdError for an empty dataset,
    a wrong rank, different lengths, or actions that are integers or booleans.
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
    env_settings: EnvironmentSettings = REGISTERED

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
        kind = np.asarray(self.actions).dtype
        if kind.kind in "iub":
            raise RactdError(f"dataset {self.name!r}: 'actions' has dtype {kind}, expected float32; {CONTINUOUS}")
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
        return statistics_of(self.observations, self.actions)

    def statistics(self) -> Statistics:
        """Return the scaling of observations and actions, computed once, blockwise in float64."""
        return self._statistics


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
        # Only where there are any: runs from before went by the id alone, and go on.
        **({} if dataset.env_settings == REGISTERED else {"env_settings": to_json(dataset.env_settings)}),
        "transitions": dataset.num_transitions,
        "episodes": dataset.num_episodes,
        "observation_dim": dataset.observation_dim,
        "action_dim": dataset.action_dim,
        "fingerprint": dataset.fingerprint,
    }
