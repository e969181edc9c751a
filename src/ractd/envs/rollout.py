"""Whole episodes of a policy as transitions, in the order one environment would have run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.envs.context import Context, EpisodeMemory, EpisodePolicy, past_steps_of
from ractd.envs.evaluate import check_plan
from ractd.envs.vector import Rows, VectorEnv

Act = Callable[[NDArray[np.float32], Rows], NDArray[np.floating[Any]]]
"""Observations [B, O] and the environments [B] they come from -> actions [B, A] within the bounds."""


@dataclass(frozen=True)
class Episodes:
    """Consecutive episodes, one row a transition (N in all)."""

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
        """Exclusive end row of each episode."""
        return (np.flatnonzero(self.terminals | self.timeouts) + 1).astype(np.int64)

    def rows(self, start: int, end: int) -> Episodes:
        """Return rows `start` to `end` (exclusive), as views."""
        return Episodes(**{field.name: getattr(self, field.name)[start:end] for field in fields(self)})

    def cut(self, length: int) -> Episodes:
        """Return the first `length` transitions; an episode that is cut there ends by timeout."""
        kept = self.rows(0, length)
        timeouts = kept.timeouts.copy()
        if length:
            timeouts[-1] = not kept.terminals[-1]
        return replace(kept, timeouts=timeouts)


def join(parts: Sequence[Episodes]) -> Episodes:
    """Return the episodes of several, one after the other."""
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Episodes)}
    return Episodes(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def rollout(
    policy: Act | EpisodePolicy, env: VectorEnv, lengths: NDArray[np.integer[Any]], history: int = 1
) -> list[Episodes]:
    """Run episodes in every environment, one after the other, until it has made `lengths` [E] steps.

    The last episode is run to its end, past the length: leaving out what is unfinished would leave out the long ones.
    An `EpisodePolicy` sees the last `history` observations and plans anew at every step; the first of its actions is
    executed, clipped to the bounds. The k-th episode of environment e has the number `e + k * E`.

    Returns:
        The transitions of each environment.

    Raises:
        RactdError: An `EpisodePolicy` gave actions of a wrong shape, or NaN.
    """
    rows = np.arange(env.num_envs)
    taken = np.zeros(env.num_envs, np.int64)
    memory = EpisodeMemory(env, history, past_steps_of(policy))
    act = _first_actions(policy, env, memory) if isinstance(policy, EpisodePolicy) else policy
    memory.begin(rows, env.reset())
    steps: list[tuple[NDArray[Any], ...]] = []
    while rows.size:
        current = memory.observations[rows, -1]
        actions = act(current, rows).astype(np.float32, copy=False)
        after, rewards, terminals, truncated = env.step(actions, rows)
        steps.append((rows, current, actions, rewards, after, terminals, truncated & ~terminals))
        memory.add(rows, actions, rewards, after)
        taken[rows] += 1
        ended = terminals | truncated
        if ended.any():
            enough = ended & (taken[rows] >= lengths[rows])
            begin = rows[ended & ~enough]
            if begin.size:
                memory.begin(begin, env.reset(begin))
            rows = rows[~enough]
    columns = [np.concatenate(column) for column in zip(*steps, strict=True)]
    # A stable sort by environment lays each one's steps side by side in time.
    order = np.argsort(columns[0], kind="stable")
    _, observations, actions, rewards, after, terminals, timeouts = (column[order] for column in columns)
    whole = Episodes(observations, actions, rewards.astype(np.float32), after, terminals, timeouts)
    ends = np.cumsum(taken)
    return [whole.rows(int(end - count), int(end)) for end, count in zip(ends, taken, strict=True)]


def _first_actions(policy: EpisodePolicy, env: VectorEnv, memory: EpisodeMemory) -> Act:
    """Return a policy's first actions, clipped, as a function of the environments."""

    def act(_: NDArray[np.float32], rows: Rows) -> NDArray[np.floating[Any]]:
        context = Context(rows + env.num_envs * memory.number[rows], memory.steps[rows], memory.past(rows))
        plan = np.asarray(policy.in_episodes(memory.observations[rows], context))
        check_plan(plan, rows.size, env.action_low.size, 1, int(memory.steps[rows].max()))
        clipped: NDArray[np.floating[Any]] = np.clip(plan[:, 0], env.action_low, env.action_high)
        return clipped

    return act
