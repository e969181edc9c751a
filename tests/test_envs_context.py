"""What a policy is told of its episodes: checked against an environment that writes down every action and reward itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ractd.envs import Context, Past, evaluate
from ractd.envs.rollout import rollout
from ractd.envs.vector import Rows, Step
from ractd.errors import RactdError

BOUND = 1.5


class Ledger:
    """Episode j of the environment with seed s has 3 + (5 s + j) % 7 steps; step k pays 100 s + 10 j + k.

    An observation is (s, j, k). What is executed and paid is in `actions[s, j]` and `rewards[s, j]`.
    """

    backend = "by hand"
    observation_dim = 3
    max_episode_steps: int | None = None

    def __init__(self, num_envs: int, seed: int = 0) -> None:
        self.num_envs, self.seeds = num_envs, seed + np.arange(num_envs)
        self.action_low, self.action_high = np.full((2, 2), [[-BOUND], [BOUND]], np.float32)
        self.episode = np.full(num_envs, -1)
        self.step_number = np.zeros(num_envs, np.int64)
        self.actions: dict[tuple[int, int], list[NDArray[Any]]] = {}
        self.rewards: dict[tuple[int, int], list[float]] = {}

    def length(self, row: int) -> int:
        return int(3 + (5 * self.seeds[row] + self.episode[row]) % 7)

    def observe(self, rows: Rows) -> NDArray[np.float32]:
        return np.stack([self.seeds[rows], self.episode[rows], self.step_number[rows]], 1).astype(np.float32)

    def reset(self, rows: Rows | None = None) -> NDArray[np.float32]:
        rows = np.arange(self.num_envs) if rows is None else rows
        self.episode[rows] += 1
        self.step_number[rows] = 0
        for row in rows:
            key = int(self.seeds[row]), int(self.episode[row])
            self.actions[key], self.rewards[key] = [], []
        return self.observe(rows)

    def step(self, actions: NDArray[np.floating[Any]], rows: Rows | None = None) -> Step:
        rows = np.arange(self.num_envs) if rows is None else rows
        assert (np.abs(actions) <= BOUND).all()
        self.step_number[rows] += 1
        rewards = 100.0 * self.seeds[rows] + 10.0 * self.episode[rows] + self.step_number[rows]
        for row, action, reward in zip(rows, actions, rewards, strict=True):
            key = int(self.seeds[row]), int(self.episode[row])
            self.actions[key].append(np.array(action, np.float32))
            self.rewards[key].append(float(reward))
        over = np.array([self.step_number[row] == self.length(int(row)) for row in rows])
        even = self.seeds[rows] % 2 == 0
        return self.observe(rows), rewards, over & even, over & ~even

    def close(self) -> None:
        pass


class Watching:
    """A policy whose actions, some beyond the bounds, follow from its observations; it keeps what it was told."""

    def __init__(self, past_steps: int, horizon: int = 3) -> None:
        self.past_steps, self.horizon = past_steps, horizon
        self.told: list[tuple[NDArray[np.float32], Context]] = []

    def in_episodes(self, observations: NDArray[np.float32], context: Context, /) -> NDArray[Any]:
        self.told.append((observations.copy(), context))
        seed, episode, step = observations[:, -1].T
        ahead = np.arange(self.horizon)
        first = np.sin(seed[:, None] + 0.3 * episode[:, None] + step[:, None] + ahead)
        return np.stack([2 * first, -first / 2], axis=2)


def check(past: Past, row: int, actions: list[NDArray[Any]], rewards: list[float], steps: int, K: int) -> None:
    """The last K of an episode's first `steps` steps, and zeros before them."""
    kept = min(steps, K)
    assert past.actions.shape[1:] == (K, 2)
    assert past.rewards.shape[1:] == (K,)
    np.testing.assert_array_equal(past.actions[row, : K - kept], 0)
    np.testing.assert_array_equal(past.rewards[row, : K - kept], 0)
    np.testing.assert_array_equal(past.actions[row, K - kept :], np.reshape(actions[steps - kept : steps], (kept, 2)))
    np.testing.assert_array_equal(past.rewards[row, K - kept :], rewards[steps - kept : steps])
    np.testing.assert_array_equal(past.mask[row], [False] * (K - kept) + [True] * kept)
    assert past.steps[row] == steps
    assert past.returns[row] == sum(rewards[:steps])


@pytest.mark.parametrize("execute", [1, 2, 3])
@pytest.mark.parametrize("K", [1, 2, 5, 20])
def test_evaluate_tells_what_was_executed_and_paid(execute: int, K: int) -> None:
    made: list[Ledger] = []

    def make(env_id: str, num_envs: int, seed: int) -> Ledger:
        made.append(Ledger(num_envs, seed))
        return made[-1]

    policy = Watching(K)
    result = evaluate(policy, "by hand", episodes=10, num_envs=4, execute=execute, history=2, seed=3, make=make)
    actions = {key: value for env in made for key, value in env.actions.items()}
    rewards = {key: value for env in made for key, value in env.rewards.items()}
    assert result.returns.tolist() == [sum(rewards[3 + i, 0]) for i in range(10)]
    assert np.abs(np.concatenate([*actions.values()])).max() == BOUND, "some are clipped"
    plans = 0
    for observations, context in policy.told:
        assert context.past is not None
        for row, episode in enumerate(context.episodes):
            seed, _, step = observations[row, -1].astype(int)
            assert episode == seed - 3
            assert step == execute * context.plan[row]
            check(context.past, row, actions[seed, 0], rewards[seed, 0], int(step), K)
            plans += 1
    assert plans == sum(-(-length // execute) for length in result.lengths)


@pytest.mark.parametrize("K", [1, 4, 30])
def test_rollout_tells_what_was_executed_and_paid_in_each_of_an_environments_episodes(K: int) -> None:
    env, policy = Ledger(5, 2), Watching(K)
    runs = rollout(policy, env, np.array([1, 9, 20, 14, 30]), history=2)
    begun: set[int] = set()
    for observations, context in policy.told:
        assert context.past is not None
        for row, number in enumerate(context.episodes):
            seed, episode, step = observations[row, -1].astype(int)
            assert number == seed - 2 + 5 * episode, "whatever runs beside it"
            assert context.plan[row] == step
            before = observations[row, 0].astype(int).tolist()
            assert before == [seed, episode, max(step - 1, 0)], "nothing of the episode before"
            check(context.past, row, env.actions[seed, episode], env.rewards[seed, episode], int(step), K)
            begun.add(int(number))
    assert len(begun) == len(env.actions) > 5
    for i, run in enumerate(runs):
        own = [key for key in env.actions if key[0] == 2 + i]
        np.testing.assert_array_equal(run.actions, np.concatenate([env.actions[key] for key in own]))
        np.testing.assert_array_equal(run.rewards, np.concatenate([env.rewards[key] for key in own]))
        np.testing.assert_array_equal(np.diff([0, *run.episode_ends]), [len(env.actions[key]) for key in own])


def test_a_policy_that_does_not_ask_is_told_nothing_of_the_past() -> None:
    class Plain(Watching):
        def __init__(self) -> None:
            super().__init__(0)
            del self.past_steps

    for policy in (Watching(0), Plain()):
        evaluate(policy, "by hand", episodes=2, make=lambda _, num_envs, seed: Ledger(num_envs, seed))
        rollout(policy, Ledger(2), np.array([5, 5]))
        assert {context.past for _, context in policy.told} == {None}


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2"])
def test_an_impossible_number_of_past_steps_is_refused(wrong: Any) -> None:
    with pytest.raises(RactdError, match=r"the policy's past_steps is .*, expected a whole number, 0 or more"):
        rollout(Watching(wrong), Ledger(1), np.array([1]))


def test_wrong_actions_in_a_rollout_are_refused() -> None:
    class Diverging(Watching):
        def in_episodes(self, observations: NDArray[np.float32], context: Context, /) -> NDArray[Any]:
            return super().in_episodes(observations, context) * np.where(observations[:, -1:, 2:] == 2, np.nan, 1)

    with pytest.raises(RactdError, match="NaN or infinite actions at step 2, in 2 of 2 episodes"):
        rollout(Diverging(0), Ledger(2), np.array([9, 9]))
