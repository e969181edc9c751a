"""Whole episodes of a policy as transitions, in the order one environment would have run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.envs.vector import Rows, VectorEnv

Act = Callable[[NDArray[np.float32], Rows], NDArray[np.floating[Any]]]
"""Observations [B, O] and the environments [B] they come from -> actions [B, A] within the bounds."""


@dataclass(frozen=True)
class Transitions:
    """Transitions of consecutive episodes, one row each (N in all)."""

    observations: NDArray[np.float32]
    """[N, O]."""
    actions: NDArray[np.float32]
    """[N, A], in the environment's units."""
    rewards: NDArray[np.float32]
    """[N]."""
    next_observations: NDArray[np.float32]
    """[N, O]; at an episode's end the observation it ended with, not the next episode's first."""
    terminals: NDArray[np.bool_]
    """The environment ended the episode, [N]."""
    timeouts: NDArray[np.bool_]
    """The time limit or a cut ended it, [N]; never together with `terminals`."""

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def episode_ends(self) -> NDArray[np.int64]:
        """The exclusive end row of each episode."""
        return (np.flatnonzero(self.terminals | self.timeouts) + 1).astype(np.int64)

    def rows(self, start: int, end: int) -> Transitions:
        """Rows `start` to `end` (exclusive), as views."""
        return Transitions(**{field.name: getattr(self, field.name)[start:end] for field in fields(self)})

    def cut(self, length: int) -> Transitions:
        """The first `length` transitions; an episode that is cut there ends by timeout."""
        kept = self.rows(0, length)
        timeouts = kept.timeouts.copy()
        if length:
            timeouts[-1] = not kept.terminals[-1]
        return replace(kept, timeouts=timeouts)


def join(parts: Sequence[Transitions]) -> Transitions:
    """One after the other."""
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Transitions)}
    return Transitions(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def rollout(act: Act, env: VectorEnv, lengths: NDArray[np.integer[Any]]) -> list[Transitions]:
    """For each environment its episodes, one after the other, until it has made `lengths` [E] steps.

    The last episode is run to its end, past the length: leaving out what is unfinished would leave out the long ones.
    """
    rows = np.arange(env.num_envs)
    taken = np.zeros(env.num_envs, np.int64)
    current = env.reset()
    steps: list[tuple[NDArray[Any], ...]] = []
    while rows.size:
        actions = act(current, rows).astype(np.float32, copy=False)
        after, rewards, terminals, truncated = env.step(actions, rows)
        steps.append((rows, current, actions, rewards, after, terminals, truncated & ~terminals))
        taken[rows] += 1
        ended = terminals | truncated
        current = after
        if ended.any():
            enough = ended & (taken[rows] >= lengths[rows])
            begin = ended & ~enough
            if begin.any():
                current = after.copy()
                current[begin] = env.reset(rows[begin])
            rows, current = rows[~enough], current[~enough]
    columns = [np.concatenate(column) for column in zip(*steps, strict=True)]
    # A stable sort by environment lays each one's steps side by side in time.
    order = np.argsort(columns[0], kind="stable")
    _, observations, actions, rewards, after, terminals, timeouts = (column[order] for column in columns)
    whole = Transitions(observations, actions, rewards.astype(np.float32), after, terminals, timeouts)
    ends = np.cumsum(taken)
    return [whole.rows(int(end - count), int(end)) for end, count in zip(ends, taken, strict=True)]
