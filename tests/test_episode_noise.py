"""An episode depends on its own seed, not on how many run beside it, nor on when those end: stochastic policies too."""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from scipy import stats
from test_policy import make

from ractd.envs import Context, EvaluationResult, evaluate
from ractd.envs.environments import make_vector
from ractd.export.graph import batch_first
from ractd.export.verify import evaluate_both
from ractd.policies import Policy
from ractd.policies.noise import MOST_AHEAD, NUMBERS_AHEAD, EpisodeNoise

EPISODES = 25


class Walk(gymnasium.Env):  # type: ignore[misc,name-defined]
    """A point that an action moves; an episode of 3 to 142 steps, by its seed, is paid what it is moved."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 3 + 37 * (seed or 0) % 140
        self.x = np.zeros(3, np.float32)
        return self.x, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        self.x = 0.9 * self.x + 0.1 * np.array([*action, 1], np.float32)
        return self.x, float(action[0] - 0.5 * action[1]), False, self.left == 0, {}


@pytest.fixture(autouse=True)
def registered() -> Any:
    gymnasium.register("ractd/Walk-v0", entry_point=Walk, max_episode_steps=200)
    yield
    del gymnasium.registry["ractd/Walk-v0"]


class Drawing:
    """Acts by its noise and by the observation, each number by itself: nothing for a batch to round."""

    def __init__(self, seed: int = 0, draws: int = 3) -> None:
        self.noise = EpisodeNoise(seed, draws, (2, 4, 2))
        self.told: list[Context] = []

    def in_episodes(self, observations: np.ndarray, context: Context, /) -> np.ndarray:
        self.told.append(context)
        drawn = batch_first(self.noise.at(context.episodes, context.plan), 2).numpy()
        return 0.3 * drawn[:, -1, 1] - observations[:, -1:, :2]  # type: ignore[no-any-return]


def same(one: EvaluationResult, other: EvaluationResult, exact: bool = True) -> None:
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_allclose(one.returns, other.returns, rtol=0, atol=0 if exact else 2e-4)


@pytest.mark.parametrize("execute", [1, 3])
@pytest.mark.parametrize("draws", [3, 900], ids=["many plans ahead", "a plan at a time"])
def test_an_episode_is_the_same_beside_any_others(execute: int, draws: int) -> None:
    def played(episodes: int, num_envs: int | None) -> EvaluationResult:
        policy = Drawing(draws=draws)
        return evaluate(policy, "ractd/Walk-v0", episodes=episodes, num_envs=num_envs, execute=execute)

    everything = played(EPISODES, None)
    assert len(set(everything.returns)) == EPISODES
    assert len(set(everything.lengths)) > 20
    for num_envs in (1, 3, 24):
        same(played(EPISODES, num_envs), everything)
    fewer = played(10, None)
    np.testing.assert_array_equal(fewer.returns, everything.returns[:10])


@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(each, marks=pytest.mark.slow) for each in ({"candidates": 5}, {"steps": 3}))],
    ids=str,
)
def test_a_policys_scores_are_of_its_seed_and_the_episode(options: dict[str, Any]) -> None:
    """Up to what its network rounds in a batch of another size."""
    policy = make(jumps=True).configured(**options)

    def played(episodes: int, num_envs: int | None, seed: int = 0) -> EvaluationResult:
        return evaluate(policy.reset(seed).acting(), "ractd/Walk-v0", episodes=episodes, num_envs=num_envs)

    everything = played(EPISODES, None)
    same(played(EPISODES, None), everything)
    same(played(EPISODES, 1), everything, exact=False)
    same(played(EPISODES, 3), everything, exact=False)
    np.testing.assert_allclose(played(10, 4).returns, everything.returns[:10], rtol=0, atol=2e-4)
    assert (np.abs(played(EPISODES, None, seed=1).returns - everything.returns) > 1e-2).all()
    policy.act(np.zeros(3))
    same(evaluate(policy.acting(), "ractd/Walk-v0", episodes=EPISODES), played(EPISODES, None, seed=1))


def test_the_exported_graph_gets_the_same_noise() -> None:
    """Whatever the two draw elsewhere: with PyTorch's own sampling in place of a graph, both score the same."""
    policy = make(jumps=True).configured(candidates=3)

    def sample(observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
        policy.draw_noise(1)
        draws = torch.from_numpy(noise).transpose(0, 1).flatten(1, 2)
        return policy.sample(torch.from_numpy(observations), draws).numpy()  # type: ignore[no-any-return]

    both = evaluate_both(policy, sample, "ractd/Walk-v0", 12, 1, lambda *progress: None, make_vector)
    same(*both)


def test_what_a_policy_is_told() -> None:
    policy = Drawing()
    result = evaluate(policy, "ractd/Walk-v0", episodes=5, num_envs=3, execute=2)
    waves = np.split(np.arange(len(policy.told)), np.flatnonzero([c.plan[0] == 0 for c in policy.told])[1:])
    assert [policy.told[wave[0]].episodes.tolist() for wave in waves] == [[0, 1, 2], [3, 4]]
    for episode, length in enumerate(result.lengths):
        plans = [context.plan[context.episodes == episode] for context in policy.told if episode in context.episodes]
        assert np.concatenate(plans).tolist() == list(range(-(-length // 2)))


# The noise itself.


def test_noise_depends_on_seed_episode_and_plan_alone() -> None:
    noise, episodes = EpisodeNoise(7, 2, (3, 4, 2)), np.array([4, 9, 11, 30])
    drawn = {plan: noise.at(episodes, plan) for plan in range(3 * MOST_AHEAD)}
    assert drawn[0].shape == (2, 4 * 3, 4, 2)
    rng = np.random.default_rng(0)
    again = EpisodeNoise(7, 2, (3, 4, 2))
    for _ in range(200):
        plan, some = int(rng.integers(len(drawn))), rng.permutation(4)[: rng.integers(1, 5)]
        expected = drawn[plan].unflatten(1, (4, 3))[:, some].flatten(1, 2)
        assert again.at(episodes[some], plan).equal(expected), "in any order, beside any others"
    everything = torch.stack(list(drawn.values())).flatten()
    others = EpisodeNoise(8, 2, (3, 4, 2)).at(episodes, 0).flatten()
    assert len(torch.cat([everything, others]).unique()) > 0.999 * (everything.numel() + others.numel())
    assert stats.kstest(everything.numpy(), "norm").pvalue > 1e-3
    for one, next_one in pairwise(torch.stack([drawn[plan] for plan in range(100)]).transpose(0, 2).flatten(1)):
        assert abs(torch.corrcoef(torch.stack([one, next_one]))[0, 1]) < 0.2


def test_rows_may_be_at_different_plans() -> None:
    noise, together = EpisodeNoise(7, 2, (3, 4, 2)), EpisodeNoise(7, 2, (3, 4, 2))
    rng = np.random.default_rng(0)
    for _ in range(50):
        episodes, plans = rng.permutation(9)[:4], rng.integers(3 * MOST_AHEAD, size=4)
        alone = [noise.at(episodes[i : i + 1], int(plans[i])) for i in range(4)]
        assert together.at(episodes, plans).equal(torch.cat(alone, dim=1))


def test_a_policy_that_draws_nothing_gets_empty_noise() -> None:
    assert EpisodeNoise(7, 0, (1, 4, 2)).at(np.arange(3), np.zeros(3, np.int64)).shape == (0, 3, 4, 2)


@pytest.mark.parametrize("sample", [(1, 4, 2), (32, 8, 3), (1, 400, 4), (64, 128, 6)])
def test_what_is_drawn_ahead_is_bounded(sample: tuple[int, ...]) -> None:
    noise = EpisodeNoise(0, 1, sample)
    one = noise.at(np.arange(3), 5)
    assert noise.drawn.numel() <= 3 * max(NUMBERS_AHEAD, one.numel() // 3)


@pytest.mark.parametrize("seed", [0, 2**31 - 1, -1])
def test_the_noise_of_episodes_is_that_of_the_seed_last_reset_to(seed: int) -> None:
    policy: Policy = make(jumps=True)
    first = policy.reset(seed).acting().noise.at(np.arange(2), 0)
    policy.act(np.zeros((5, 3)))
    assert policy.acting().noise.at(np.arange(2), 0).equal(first)
    assert not policy.reset(seed + 1).acting().noise.at(np.arange(2), 0).equal(first)
