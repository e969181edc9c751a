"""What steps environments: EnvPool, and Gymnasium for those that EnvPool lacks."""

from __future__ import annotations

import copy
import difflib
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.environment import REGISTERED, EnvironmentSettings, gymnasium_with_robotics
from ractd.envs.modules import registered_name
from ractd.envs.vector import Rows, Step
from ractd.errors import RactdError
from ractd.processors import cores


class EnvPoolVector:
    """Environments in EnvPool: C++, all cores, one call a step; None for its own step limit."""

    backend = "envpool"

    def __init__(self, env_id: str, num_envs: int, seed: int = 0, max_episode_steps: int | None = None) -> None:
        import envpool

        threads = min(num_envs, cores())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # EnvPool's own spaces warn about their float64 bounds
                limited = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
                self._env = envpool.make(
                    env_id, env_type="gymnasium", num_envs=num_envs, seed=seed, num_threads=threads, **limited
                )
                spaces = self._env.observation_space, self._env.action_space
        except Exception as error:
            raise RactdError(f"EnvPool could not make {env_id}: {_line(error)}") from error
        self.num_envs = num_envs
        self.action_low, self.action_high = _bounds(env_id, spaces[1])
        self.observation_dim = _flat_size(env_id, spaces[0])
        limit = self._env.config.get("max_episode_steps")
        self.max_episode_steps: int | None = int(limit) if limit else None
        self._all = np.arange(num_envs, dtype=np.int32)
        self._action_shape, self._action_dtype = spaces[1].shape, spaces[1].dtype
        self._id = env_id

    def reset(self, rows: Rows | None = None) -> NDArray[np.float32]:
        try:
            observations, _ = self._env.reset(self._all if rows is None else rows.astype(np.int32))
        except Exception as error:
            raise RactdError(f"{self._id} failed in a reset: {_line(error)}") from error
        return _flatten(observations)

    def step(self, actions: NDArray[np.floating[Any]], rows: Rows | None = None) -> Step:
        ids = self._all if rows is None else rows.astype(np.int32)
        # EnvPool reads past a row of the wrong size without a word.
        if actions.shape != (len(ids), self.action_low.size):
            raise RactdError(f"actions are {list(actions.shape)}, expected {[len(ids), self.action_low.size]}")
        shaped = actions.reshape(len(ids), *self._action_shape).astype(self._action_dtype, copy=False)
        try:
            observations, rewards, terminated, truncated, _ = self._env.step(shaped, ids)
        except Exception as error:
            raise RactdError(f"{self._id} failed in a step: {_line(error)}") from error
        return _flatten(observations), rewards.astype(np.float64), terminated, truncated

    def close(self) -> None:
        self._env.close()


class GymnasiumVector:
    """Environments in this process on Gymnasium, for those that EnvPool lacks."""

    backend = "gymnasium"

    def __init__(self, env_id: str, num_envs: int, seed: int = 0, settings: EnvironmentSettings = REGISTERED) -> None:
        self._envs = [make_gymnasium(env_id, settings) for _ in range(num_envs)]
        first = self._envs[0]
        self.num_envs = num_envs
        self.action_low, self.action_high = _bounds(env_id, first.action_space)
        self._space = first.observation_space
        self.observation_dim = _flat_size(env_id, self._space)
        limit = getattr(first.spec, "max_episode_steps", None)
        self.max_episode_steps: int | None = int(limit) if limit else None
        self._seeds: list[int | None] = [seed + i for i in range(num_envs)]
        self._id, self._seed = env_id, seed
        self._steps = np.zeros(num_envs, np.int64)
        self._action_shape, self._action_dtype = first.action_space.shape, first.action_space.dtype

    def reset(self, rows: Rows | None = None) -> NDArray[np.float32]:
        indices = range(self.num_envs) if rows is None else rows.tolist()
        observations = np.empty((len(indices), self.observation_dim), np.float32)
        for k, i in enumerate(indices):
            try:
                observation, _ = self._envs[i].reset(seed=self._seeds[i])
                observations[k] = self._flat(observation)
            except Exception as error:
                raise RactdError(f"{self._id} failed in reset(seed={self._seeds[i]}): {_line(error)}") from error
            self._seeds[i] = None  # Gymnasium's convention: seed once, later episodes draw on
            self._steps[i] = 0
        return observations

    def step(self, actions: NDArray[np.floating[Any]], rows: Rows | None = None) -> Step:
        indices = range(self.num_envs) if rows is None else rows.tolist()
        count = len(indices)
        if actions.shape != (count, self.action_low.size):
            raise RactdError(f"actions are {list(actions.shape)}, expected {[count, self.action_low.size]}")
        shaped = actions.reshape(count, *self._action_shape).astype(self._action_dtype, copy=False)
        observations = np.empty((count, self.observation_dim), np.float32)
        rewards = np.empty(count, np.float64)
        terminated, truncated = np.empty(count, np.bool_), np.empty(count, np.bool_)
        for k, i in enumerate(indices):
            self._steps[i] += 1
            try:
                observation, reward, terminated[k], truncated[k], _ = self._envs[i].step(shaped[k])
                observations[k], rewards[k] = self._flat(observation), one_reward(reward)
            except Exception as error:
                raise RactdError(
                    f"{self._id} failed in step {self._steps[i]:,} of an episode of the environment with seed "
                    f"{self._seed + i}: {_line(error)}"
                ) from error
        return observations, rewards, terminated, truncated

    def _flat(self, observation: Any) -> NDArray[np.float32]:
        flat = _flatten_one(self._space, observation)
        if flat.size != self.observation_dim:
            raise ValueError(f"the observation has {flat.size} numbers, its space {self.observation_dim}")
        return flat

    def close(self) -> None:
        for env in self._envs:
            env.close()


def make_gymnasium(env_id: str, settings: EnvironmentSettings = REGISTERED, **options: Any) -> Any:
    """Make one Gymnasium environment; `options` are further ones of `gymnasium.make`.

    The environment comes from this machine's registry and its wrappers from `gymnasium.wrappers`, whatever a file says.

    Raises:
        RactdError: The id is unknown or names a module that nobody typed, or Gymnasium is not installed.
    """
    gymnasium, name = gymnasium_with_robotics(), registered_name(env_id)
    if settings.fault:
        raise RactdError(f"{env_id}: {settings.fault}")
    try:
        arguments = copy.deepcopy(settings.arguments) | options
        # What Gymnasium's checker looks for is checked here, and it warns of what is fine: rewards as arrays.
        env = gymnasium.make(name, settings.max_episode_steps, disable_env_checker=True, **arguments)
        for wrapper in settings.wrappers:
            env = getattr(gymnasium.wrappers, wrapper.name)(env, **copy.deepcopy(wrapper.arguments))
        return env
    except gymnasium.error.UnregisteredEnv:
        known = {*gymnasium.registry, *envpool_ids()}
        raise RactdError(f"no environment is called {env_id!r}{_close_matches(env_id, known)}") from None
    except Exception as error:
        raise RactdError(f"Gymnasium could not make {env_id}: {_line(error)}") from error


def envpool_ids() -> frozenset[str]:
    """Return the environments that EnvPool has, none where it isn't installed."""
    try:
        import envpool
    except ImportError:
        return frozenset()
    return frozenset(envpool.list_all_envs())


def registered_here(env_id: str) -> bool:
    """Tell whether this process registered an id with a class of its own, whatever EnvPool calls so."""
    gymnasium = sys.modules.get("gymnasium")  # what hasn't been imported has nothing registered
    spec = gymnasium.registry.get(env_id) if gymnasium is not None else None
    return spec is not None and not isinstance(spec.entry_point, str)


def _close_matches(env_id: str, known: frozenset[str] | set[str]) -> str:
    by_lower = {name.lower(): name for name in sorted(known)}
    close = [by_lower[name] for name in difflib.get_close_matches(env_id.lower(), list(by_lower), n=3)]
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return "; give the id of a registered Gymnasium environment, or module:Id-v0 for one of a module of yours"


def _bounds(env_id: str, space: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if not hasattr(space, "low") or np.dtype(space.dtype).kind != "f":
        raise RactdError(f"{env_id} has the action space {space}; ractd needs continuous actions (a float Box)")
    return space.low.reshape(-1).astype(np.float32), space.high.reshape(-1).astype(np.float32)


def _flat_size(env_id: str, space: Any) -> int:
    if hasattr(space, "spaces") and isinstance(space.spaces, Mapping):
        return sum(_flat_size(env_id, part) for part in space.spaces.values())
    if not hasattr(space, "low"):
        raise RactdError(f"{env_id} has the observation space {space}; ractd needs Box or a Dict of Box")
    return int(np.prod(space.shape))


def one_reward(reward: Any) -> float:
    """Return what a step is paid, which may come as an array of one element; raises `ValueError` for another size."""
    array = np.asarray(reward, np.float64)
    if array.size != 1:
        raise ValueError(f"the reward has shape {list(array.shape)}, expected one number")
    return float(array.item())


def _line(error: BaseException) -> str:
    """Return an error's type and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def _flatten(observations: Any) -> NDArray[np.float32]:
    """Return EnvPool's observations as [E, O]; dictionaries by sorted key, as Gymnasium's spaces of these ids are."""
    if isinstance(observations, Mapping):
        return np.concatenate([_flatten(observations[key]) for key in sorted(observations)], axis=1)
    return np.asarray(observations, np.float32).reshape(len(observations), -1)


def _flatten_one(space: Any, observation: Any) -> NDArray[np.float32]:
    """Return one observation as [O], dictionaries in the order of their space: `gymnasium.spaces.flatten` for Box leaves."""
    if hasattr(space, "spaces"):
        return np.concatenate([_flatten_one(part, observation[key]) for key, part in space.spaces.items()])
    return np.asarray(observation, np.float32).reshape(-1)
