"""Makes the environments of an id, of data or of a policy: on EnvPool, on Gymnasium, or a maze."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ractd.data.dataset import OfflineDataset
from ractd.data.environment import REGISTERED, EnvironmentSettings
from ractd.envs.backends import EnvPoolVector, GymnasiumVector, envpool_ids, registered_here
from ractd.envs.maze import MAZES, OWN, maze_named, maze_vector
from ractd.envs.vector import MakeVector, VectorEnv
from ractd.errors import RactdError


def make_vector(env_id: str, num_envs: int, seed: int = 0, settings: EnvironmentSettings = REGISTERED) -> VectorEnv:
    """Make environments of an id, on EnvPool where it has the same one and else on Gymnasium.

    `ractd/maze2d-umaze`, `-medium` and `-large` are D4RL's mazes on MuJoCo. A maze of one's own is not known by its id
    alone: `ractd.envs.maze.maze_vector(maze)` makes it.

    Raises:
        RactdError: The id is unknown, or the environment can't be made.
    """
    if env_id.startswith(OWN):
        raise RactdError(f"{env_id} is a maze of one's own, whose map is in its dataset; an id alone can't make it")
    for maze in MAZES.values():
        if maze.env_id == env_id:
            return maze_vector(maze, settings)(env_id, num_envs, seed)
    if settings.fault:
        raise RactdError(f"{env_id}: {settings.fault}")
    if not (settings.arguments or settings.wrappers or registered_here(env_id)) and env_id in envpool_ids():
        return EnvPoolVector(env_id, num_envs, seed, settings.max_episode_steps)
    return GymnasiumVector(env_id, num_envs, seed, settings)


@dataclass(frozen=True)
class Environment:
    """The environment that a policy is scored in, as its file says it: made by this machine's Gymnasium, or a maze."""

    env_id: str
    env_settings: EnvironmentSettings = REGISTERED
    maze: str = ""
    """Map of a maze of one's own, as text."""


def environments_of(owner: Environment | OfflineDataset, where: Path | str) -> MakeVector:
    """Return what makes the environments of data or of a policy, for `evaluate`: its own maze, or its id with its settings.

    Raises:
        RactdError: The map of its maze is damaged; `where` names the file that it is from.
    """
    maze = maze_named(owner.env_id, owner.maze, f"{where}, 'maze'")
    if maze is None:
        return partial(make_vector, settings=owner.env_settings)
    return maze_vector(maze, owner.env_settings)
