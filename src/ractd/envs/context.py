"""What a policy is told of the episodes that it acts in: their numbers and, if it asks, their past actions and rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ractd.envs.vector import Rows, VectorEnv
from ractd.errors import RactdError
from ractd_runtime.past import Past

__all__ = ["ActionSequencePolicy", "Context", "EpisodeMemory", "EpisodePolicy", "Past", "past_steps_of"]


@dataclass(frozen=True)
class Context:
    """What a policy is told beside its observations, if it asks."""

    episodes: NDArray[np.int64]
    """Number of each row's episode, from 0 on, [B]."""
    plan: NDArray[np.int64]
    """Number of each row's plan in its episode, from 0 on, [B]."""
    past: Past | None = None
    """The last `past_steps` steps, None for a policy that asks for none."""


class ActionSequencePolicy(Protocol):
    """What is scored: observations [B, h, O] float32, oldest first -> actions [B, c, A] in the environment's units."""

    def __call__(self, observations: NDArray[np.float32], /) -> NDArray[Any]:
        """Return the next c actions of each row."""


@runtime_checkable
class EpisodePolicy(Protocol):
    """A policy that asks which episodes its rows are of, so that what it draws for one depends on no other.

    If it also has an integer `past_steps`, its `context.past` holds so many steps.
    """

    def in_episodes(self, observations: NDArray[np.float32], context: Context, /) -> NDArray[Any]:
        """Return the next c actions of each row, [B, c, A], for observations [B, h, O]."""


def past_steps_of(policy: object) -> int:
    """Return how many past steps a policy asks for; raises `RactdError` for a number that can't be."""
    steps = getattr(policy, "past_steps", 0)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise RactdError(f"the policy's past_steps is {steps!r}, expected a whole number, 0 or more")
    return steps


class EpisodeMemory:
    """What is remembered of episodes that run side by side, one an environment (E in all)."""

    def __init__(self, env: VectorEnv, history: int, past_steps: int) -> None:
        E = env.num_envs
        self.observations = np.zeros((E, history, env.observation_dim), np.float32)
        """The last h, oldest first; the first is repeated until there are as many, [E, h, O]."""
        self.number = np.full(E, -1)
        """Of the running episode in its environment, from 0 on, [E]."""
        self.steps = np.zeros(E, np.int64)
        """Of the running episode so far, [E]."""
        self.returns = np.zeros(E, np.float64)
        """Sum of the running episode's rewards so far, [E]."""
        self._actions = np.zeros((E, past_steps, env.action_low.size), np.float32)
        self._rewards = np.zeros((E, past_steps), np.float32)

    def begin(self, rows: Rows, observations: NDArray[np.float32]) -> None:
        """Begin an episode in the environments `rows`, with observations [len(rows), O]."""
        self.observations[rows] = observations[:, None]
        self.number[rows] += 1
        for values in (self.steps, self.returns, self._actions, self._rewards):
            values[rows] = 0

    def add(
        self,
        rows: Rows,
        actions: NDArray[np.floating[Any]],
        rewards: NDArray[np.floating[Any]],
        observations: NDArray[np.float32],
    ) -> None:
        """Add one step of the environments `rows`: the actions, what they were paid, and the observations after them."""
        self.steps[rows] += 1
        self.returns[rows] += rewards
        _push(self.observations, rows, observations)
        if self._rewards.shape[1]:
            _push(self._actions, rows, actions)
            _push(self._rewards, rows, rewards)

    def past(self, rows: Rows) -> Past | None:
        """Return the past of the environments `rows`, None where none is kept."""
        if not self._rewards.shape[1]:
            return None
        return Past(self._actions[rows], self._rewards[rows], self.steps[rows], self.returns[rows])


def _push(values: NDArray[Any], rows: Rows, newest: NDArray[Any]) -> None:
    """Drop the oldest entry of `values[rows]` and append the newest."""
    if values.shape[1] > 1:
        values[rows, :-1] = values[rows, 1:]
    values[rows, -1] = newest
