import sys

# mypy: disallow-subclassing-any=False
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from ractd.envs import EnvPoolVector, GymnasiumVector, make_vector
from ractd.envs.vector import MakeVector, VectorEnv
from ractd.errors import RactdError

pytest.importorskip("envpool")
BACKENDS: list[MakeVector] = [EnvPoolVector, GymnasiumVector]


def roll(env: VectorEnv, steps: int, seed: int = 0) -> list[NDArray[Any]]:
    rng = np.random.default_rng(seed)
    out: list[NDArray[Any]] = [env.reset()]
    for _ in range(steps):
        actions = rng.uniform(env.action_low, env.action_high, (env.num_envs, env.action_low.size))
        observations, rewards, terminated, truncated = env.step(actions)
        out += [observations, rewards, terminated, truncated]
    env.close()
    return out


@pytest.mark.parametrize("make", BACKENDS)
def test_shapes_types_and_reproducibility(make: MakeVector) -> None:
    env = make("Hopper-v5", 3, 7)
    assert (env.num_envs, env.observation_dim, env.max_episode_steps) == (3, 11, 1000)
    np.testing.assert_array_equal(env.action_low, [-1, -1, -1])
    np.testing.assert_array_equal(env.action_high, [1, 1, 1])
    first, again, other = roll(env, 4), roll(make("Hopper-v5", 3, 7), 4), roll(make("Hopper-v5", 3, 8), 4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [x.dtype for x in first[:5]] == [np.float32, np.float32, np.float64, np.bool_, np.bool_]
    assert first[0].shape == (3, 11)
    np.testing.assert_array_equal(first[0][1:], other[0][:2])  # environment i has the seed `seed + i`


@pytest.mark.parametrize("make", BACKENDS)
def test_rows_step_only_those_named_and_in_that_order(make: MakeVector) -> None:
    alone = make("Hopper-v5", 4, 0)
    alone.reset()
    expected = alone.step(np.full((4, 3), 0.3))[0]
    env = make("Hopper-v5", 4, 0)
    env.reset()
    env.step(np.full((2, 3), 0.3), np.array([3, 1]))
    observations, *_ = env.step(np.full((2, 3), 0.3), np.array([2, 0]))
    np.testing.assert_array_equal(observations, expected[[2, 0]])


@pytest.mark.parametrize("make", BACKENDS)
def test_reset_of_some_rows_begins_new_episodes_there(make: MakeVector) -> None:
    env = make("Pendulum-v1", 2, 0)
    first = env.reset()
    env.step(np.zeros((2, 1)))
    fresh = env.reset(np.array([1]))
    assert fresh.shape == (1, 3)
    assert not np.array_equal(fresh[0], first[1])


def test_the_two_backends_simulate_the_same_hopper() -> None:
    pool, one = EnvPoolVector("Hopper-v5", 1, 0), gymnasium.make("Hopper-v5")
    start = pool.reset()
    # Hopper's observation lacks only the x position, which its dynamics and reward do not depend on.
    one.reset(seed=0)
    q, v = one.unwrapped.init_qpos.copy(), one.unwrapped.init_qvel.copy()
    q[1:], v[:] = start[0, :5], start[0, 5:]
    one.unwrapped.set_state(q, v)
    rng = np.random.default_rng(0)
    for _ in range(15):
        action = rng.uniform(-1, 1, (1, 3)).astype(np.float32)
        observation, reward, terminated, _, _ = one.step(action[0])
        pooled, rewards, ended, _ = pool.step(action)
        np.testing.assert_allclose(pooled[0], observation, atol=1e-3)
        assert rewards[0] == pytest.approx(reward, abs=1e-3)
        assert ended[0] == terminated
        if terminated:
            break


def test_dictionary_observations_are_flattened_as_gymnasium_does() -> None:
    env = make_vector("PointMaze_UMaze-v3", 2, 0)
    observations = env.reset()
    assert env.backend == "envpool"
    assert env.observation_dim == observations.shape[1] == 8
    # achieved_goal, desired_goal, observation: the position comes first and again in the observation.
    np.testing.assert_array_equal(observations[:, :2], observations[:, 4:6])

    space = gymnasium.spaces.Dict(
        b=gymnasium.spaces.Box(-1, 1, (2,)), a=gymnasium.spaces.Dict(z=gymnasium.spaces.Box(-1, 1, (2, 2)))
    )

    class Nested(gymnasium.Env):
        observation_space = space
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            space.seed(3)
            return space.sample(), {}

    gymnasium.register("ractd/Nested-v0", Nested)
    env = make_vector("ractd/Nested-v0", 1, 0)
    observations = env.reset()
    space.seed(3)
    np.testing.assert_array_equal(observations[0], gymnasium.spaces.flatten(space, space.sample()))


def test_errors_are_one_clear_sentence() -> None:
    with pytest.raises(RactdError, match=r"'Hoper-v5'; did you mean .*Hopper-v5"):
        make_vector("Hoper-v5", 1)
    with pytest.raises(RactdError, match="give the id of a registered"):
        make_vector("zzzzqqqqxxxx", 1)
    with pytest.raises(RactdError, match="if you trust it, give --env nosuchmodule:Thing-v0"):
        make_vector("nosuchmodule:Thing-v0", 1)
    for make in BACKENDS:
        with pytest.raises(RactdError, match="needs continuous actions"):
            make("CartPole-v1", 1, 0)
        env = make("Hopper-v5", 2, 0)
        env.reset()
        with pytest.raises(RactdError, match=r"actions are \[2, 4\], expected \[2, 3\]"):
            env.step(np.zeros((2, 4)))


def test_missing_simulators_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(RactdError, match=r'pip install "ractd\[envs\]"'):
        make_vector("Hopper-v5", 1)
