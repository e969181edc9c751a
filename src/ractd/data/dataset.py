"""A logged dataset in memory: contiguous arrays, where episodes end, and the statistics that training needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.ends import EpisodeEnds, episode_ends
from ractd.data.environment import REGISTERED, EnvironmentSettings
from ractd.data.ranges import Floats, Ints, Statistics, statistics_of
from ractd.errors import RactdError
from ractd.settings import TerminalsMean, to_json

Bools = NDArray[np.bool_]

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

    What came after a row is the next row's observation, and at an episode's end `final_observations`.
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
    successes: Bools | None = None
    """Where the logs say that the task has succeeded, [N]; None where they don't say."""
    final_observations: Floats | None = None
    """The observation that each episode ended with, after its last action, [E, O]; NaN where it wasn't logged."""
    terminals_mean: TerminalsMean | None = None
    """What the user says that terminals are, where no success flags do."""
    has_rewards: bool = True
    """False where nobody was paid: `rewards` are zeros then."""
    known_ends: EpisodeEnds | None = None
    """What each episode's end means, where that was settled already; else `ends` finds out."""

    def __post_init__(self) -> None:
        kind = np.asarray(self.actions).dtype
        if kind.kind in "iub":
            raise RactdError(f"dataset {self.name!r}: 'actions' has dtype {kind}, expected float32; {CONTINUOUS}")
        lengths = {}
        for field in ("observations", "actions", "rewards", "terminals", "timeouts", "goals", "successes"):
            if getattr(self, field) is None:
                continue
            dtype: type[np.generic] = np.bool_ if field in ("terminals", "timeouts", "successes") else np.float32
            array: NDArray[Any] = np.ascontiguousarray(getattr(self, field), dtype=dtype)
            rank, expected = (2, "(N, dimensions)") if field in ("observations", "actions", "goals") else (1, "(N,)")
            if array.ndim != rank or 0 in array.shape[1:]:
                raise RactdError(f"dataset {self.name!r}: {field!r} has shape {array.shape}, expected {expected}")
            object.__setattr__(self, field, array)
            lengths[field] = len(array)
        if len(set(lengths.values())) > 1:
            said = f"fields have different lengths, {lengths}, expected one row a transition"
            raise RactdError(f"dataset {self.name!r}: {said}")
        if not len(self.observations):
            raise RactdError(f"dataset {self.name!r} is empty: it has no transitions")
        if self.final_observations is not None:
            final = np.ascontiguousarray(self.final_observations, dtype=np.float32)
            shape = (self.num_episodes, self.observation_dim)
            if final.shape != shape:
                said = f"'final_observations' has shape {final.shape}, expected {shape}, one row an episode"
                raise RactdError(f"dataset {self.name!r}: {said}")
            object.__setattr__(self, "final_observations", final)

    @property
    def where(self) -> str:
        """Name the dataset in messages: by what it is from, or by its name."""
        return self.source or f"dataset {self.name!r}"

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

    @cached_property
    def ends(self) -> EpisodeEnds:
        """Return what each episode's end means."""
        return self.known_ends or episode_ends(self)

    @cached_property
    def final_observation_known(self) -> Bools:
        """Return for which episodes the observation that they ended with is known, bool [E]."""
        if self.final_observations is None:
            return np.zeros(self.num_episodes, np.bool_)
        return np.asarray(np.isfinite(self.final_observations).all(axis=1))

    def episode_returns(self) -> NDArray[np.float64]:
        """Return the undiscounted return of each episode, float64 [E]."""
        return np.add.reduceat(self.rewards, self.episode_starts, dtype=np.float64)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return every array with an entry a row, those that not all datasets have last."""
        fields = (self.observations, self.actions, self.rewards, self.terminals, self.timeouts)
        return (*fields, *(array for array in (self.goals, self.successes) if array is not None))

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 (hex) of the shape and bytes of every array in `arrays`: equal if and only if these are."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(array.data.cast("B"))
        return digest.hexdigest()

    @cached_property
    def _statistics(self) -> Statistics:
        return statistics_of(self.observations, self.actions)

    def statistics(self) -> Statistics:
        """Return the scaling of observations and actions, computed once, blockwise in float64."""
        return self._statistics


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
        "end_kinds": dataset.ends.counts,
        "terminals_mean": dataset.terminals_mean,
        "fingerprint": dataset.fingerprint,
    }
