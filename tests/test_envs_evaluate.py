import sys

# mypy: disallow-subclassing-any=False
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from ractd.envs import EnvPoolVector, GymnasiumVector, evaluate
from ractd.errors import RactdError

pytest.importorskip("envpool")

POISON = 1e6


class Countdown(gymnasium.Env):
    """Seed s: an episode of 3 + s % 4 steps, step k paying 100 s + k; odd seeds are truncated, even ones terminate.

    Anything after the first episode pays a fortune. The observation is (seed, steps so far).
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,))

    def __init__(self) -> None:
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.key = seed if seed is not None else 0
        self.episode += 1
        self.count = 0
        self.actions: list[NDArray[np.float32]] = []
        return np.array([self.key, 0], np.float32), {}

    def step(self, action: NDArray[np.float32]) -> Any:
        assert self.action_space.contains(np.asarray(action, np.float32))
        self.count += 1
        over = self.count >= 3 + self.key % 4
        poisoned = self.episode > 1 or self.count > 3 + self.key % 4
        reward = POISON if poisoned else 100.0 * self.key + self.count + float(action[0])
        return (
            np.array([self.key, self.count], np.float32),
            reward,
            over and self.key % 2 == 0,
            over and self.key % 2 == 1,
            {},
        )


gymnasium.register("ractd/Countdown-v0", Countdown)


def still(observations: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.zeros((len(observations), 4, 2))


def expected_returns(seeds: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    lengths = 3 + np.asarray(seeds) % 4
    return 100.0 * np.asarray(seeds) * lengths + lengths * (lengths + 1) / 2, lengths


@pytest.mark.parametrize("execute", [1, 2, 3, 4])
@pytest.mark.parametrize("num_envs", [None, 1, 3])
def test_steps_after_the_end_never_count(execute: int, num_envs: int | None) -> None:
    result = evaluate(still, "ractd/Countdown-v0", episodes=10, execute=execute, num_envs=num_envs, seed=5)
    returns, lengths = expected_returns(np.arange(5, 15))
    np.testing.assert_array_equal(result.returns, returns)
    np.testing.assert_array_equal(result.lengths, lengths)
    np.testing.assert_array_equal(result.terminated, np.arange(5, 15) % 2 == 0)
    assert result.env_steps == lengths.sum()
    assert result.scores is None
    assert result.mean_score is None


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_the_policy_sees_only_running_episodes_and_their_true_history(execute: int) -> None:
    calls = []

    def policy(observations: NDArray[np.float32]) -> Any:
        calls.append(observations.copy())
        # The first entry says which episode and step the plan was made for.
        plan = np.zeros((len(observations), 3, 2))
        plan[:, :, 0] = observations[:, -1:, 1] / 100 + np.arange(3) / 1000
        return plan

    result = evaluate(policy, "ractd/Countdown-v0", episodes=6, execute=execute, history=3)
    returns, lengths = expected_returns(np.arange(6))
    for number, observations in enumerate(calls):
        step = number * execute
        assert observations.shape == (int((lengths > step).sum()), 3, 2)
        np.testing.assert_array_equal(observations[:, 0, 0], np.flatnonzero(lengths > step))
        steps = np.maximum(step + np.array([-2, -1, 0]), 0)  # the first observation is repeated before the start
        np.testing.assert_array_equal(observations[:, :, 1], np.broadcast_to(steps, observations.shape[:2]))
    # Open loop: step k executes entry k % execute of the plan made at step k - k % execute.
    extra = [sum((k - k % execute) / 100 + (k % execute) / 1000 for k in range(length)) for length in lengths]
    np.testing.assert_allclose(result.returns, returns + extra, atol=1e-5)


def test_actions_are_clipped_to_the_bounds() -> None:
    wild = lambda observations: np.full((len(observations), 1, 2), 50.0)  # noqa: E731
    result = evaluate(wild, "ractd/Countdown-v0", episodes=1)
    assert result.returns[0] == expected_returns([0])[0][0] + 3 * 2.0
    pendulum = evaluate(lambda seen: np.full((len(seen), 1, 1), -50.0), "Pendulum-v1", episodes=2)
    assert pendulum.env_steps == 400
    bounded = evaluate(lambda seen: np.full((len(seen), 1, 1), -2.0), "Pendulum-v1", episodes=2)
    np.testing.assert_array_equal(pendulum.returns, bounded.returns)


def deterministic(dim: int) -> Any:
    weights = np.random.default_rng(0).normal(0, 0.5, (dim, 3)).astype(np.float32)
    return lambda observations: np.tanh(observations[:, -1:] @ weights)


def test_gymnasium_backend_equals_a_plain_loop_over_one_environment() -> None:
    policy = deterministic(11)
    result = evaluate(policy, "Hopper-v5", episodes=5, seed=3, make=GymnasiumVector, num_envs=2)
    for i in range(5):
        env = gymnasium.make("Hopper-v5")
        observation, _ = env.reset(seed=3 + i)
        total, length, over = 0.0, 0, False
        while not over:
            action = policy(observation[None, None].astype(np.float32))[0, 0]
            observation, reward, terminated, truncated, _ = env.step(action)
            total, length, over = total + reward, length + 1, terminated or truncated
        assert result.returns[i] == pytest.approx(total, rel=1e-6)
        assert result.lengths[i] == length


def test_envpool_agrees_with_gymnasium_and_not_with_the_batch_size() -> None:
    # Hopper starts within 0.005 of one state, so a calm policy falls at nearly the same step from every start.
    policy = deterministic(11)
    pool = evaluate(policy, "Hopper-v5", episodes=40, make=EnvPoolVector)
    plain = evaluate(policy, "Hopper-v5", episodes=40, make=GymnasiumVector)
    assert (pool.backend, plain.backend) == ("envpool", "gymnasium")
    gap = abs(pool.mean_return - plain.mean_return)
    assert gap < 4 * np.hypot(pool.return_se, plain.return_se) + 1e-6
    few = evaluate(policy, "Hopper-v5", episodes=40, num_envs=7)
    np.testing.assert_allclose(few.returns, pool.returns, rtol=1e-5)
    again = evaluate(policy, "Hopper-v5", episodes=40)
    np.testing.assert_array_equal(again.returns, pool.returns)
    assert not np.array_equal(evaluate(policy, "Hopper-v5", episodes=40, seed=1000).returns, pool.returns)


def test_result_is_summarised() -> None:
    seen = []
    result = evaluate(
        deterministic(11), "Hopper-v5", episodes=4, progress=lambda done, total, step: seen.append((done, total, step))
    )
    assert seen[-1][:2] == (4, 4)
    assert seen == sorted(seen)
    assert result.return_se == pytest.approx(result.returns.std(ddof=1) / 2)
    assert result.mean_score == pytest.approx(100 * (result.mean_return + 20.272305) / (3234.3 + 20.272305))
    assert result.mean_length == result.env_steps / 4
    assert 0 < result.seconds_per_action < 1 / result.steps_per_second
    assert np.isnan(evaluate(still, "ractd/Countdown-v0", episodes=1).return_se)


def test_bad_policies_and_arguments_are_clear_errors() -> None:
    def nan_at_the_second_step(observations: NDArray[np.float32]) -> Any:
        plan = np.zeros((len(observations), 1, 2))
        if observations[0, 0, 1] == 1:
            plan[1] = np.nan
        return plan

    with pytest.raises(RactdError, match=r"NaN or infinite actions at step 1, in 1 of 3 episodes"):
        evaluate(nan_at_the_second_step, "ractd/Countdown-v0", episodes=3)
    with pytest.raises(RactdError, match=r"execute is 5, but the policy predicts only 4"):
        evaluate(still, "ractd/Countdown-v0", episodes=1, execute=5)
    with pytest.raises(RactdError, match=r"shape \[1, 4, 2\] .*takes \[1, c, 3\]"):
        evaluate(still, "Hopper-v5", episodes=1)
    with pytest.raises(RactdError, match="episodes is 0"):
        evaluate(still, "ractd/Countdown-v0", episodes=0)


def test_an_episode_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Countdown):
        def step(self, action: NDArray[np.float32]) -> Any:
            observation, reward, *_ = super().step(action)
            return observation, reward, False, False, {}

    gymnasium.register("ractd/Endless-v0", Endless)
    monkeypatch.setattr(sys.modules["ractd.envs.evaluate"], "MAX_STEPS", 50)
    with pytest.raises(
        RactdError, match="2 episodes of ractd/Endless-v0 did not end within 50 steps; limit them with --env-steps"
    ):
        evaluate(still, "ractd/Endless-v0", episodes=2)
