"""Many copies of one maze behind the interface of `ractd.envs.vector`.

Where this differs from D4RL's maze2d (version 1):

* the simulator is today's MuJoCo, not mujoco-py 2.0. Between walls a step is the same closed form; contacts are solved by
  another release. Over whole episodes D4RL's own two reference policies (uniform actions; the PD controller pulling
  straight to the goal, into the walls) earn here what its reference returns say, within 1.2 standard errors in every
  maze: `benchmarks/results/maze_data.json`;
* MuJoCo's solver starts each step anew instead of from the last step's solution, so that a step depends on nothing else;
* an episode is seeded by its environment's number, so its start is not the one that D4RL would draw.

Threshold, scale, step limits, starts, goals and what is rewarded (being near after the step) are D4RL's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.environment import REGISTERED, EnvironmentSettings
from ractd.envs.maze.maps import Floats, Maze
from ractd.envs.maze.physics import PointMass
from ractd.envs.vector import MakeVector, Rows, Step
from ractd.errors import RactdError
from ractd.processors import cores

GOAL_RADIUS = 0.5
"""A step that ends within this distance of the goal is paid 1, any other 0."""
POSITION_NOISE = 0.1
"""An episode starts uniformly within this of its cell's location, in x and in y."""
VELOCITY_NOISE = 0.1
"""Deviation of the velocities that an episode starts with."""


class MazeVector:
    """`num_envs` episodes in a maze; observations (x, y, vx, vy), actions the force in x and y, in [-1, 1].

    No episode ends before its step limit: the return is the number of steps that ended near the goal, and all that end
    at the limit are truncated. Environment i draws its starts from `seed + i`.
    """

    backend = "mujoco"
    observation_dim = 4

    def __init__(self, maze: Maze, num_envs: int, seed: int = 0, threads: int | None = None) -> None:
        if num_envs < 1:
            raise RactdError(f"num_envs is {num_envs}; it has to be at least 1")
        self.maze = maze
        self.num_envs = num_envs
        self.action_low, self.action_high = np.full((2, 2), [[-1], [1]], np.float32)
        self.max_episode_steps: int | None = maze.max_episode_steps
        self.goal: NDArray[np.float32] = maze.goal.astype(np.float32)
        """Position of the goal, [2]."""
        self._physics = PointMass(maze, min(num_envs, cores() if threads is None else threads))
        self._generators = [np.random.default_rng(seed + i) for i in range(num_envs)]
        self._states = np.zeros((num_envs, 4))
        self._steps = np.zeros(num_envs, np.int64)
        self._all = np.arange(num_envs)

    def reset(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """Begin an episode in the named environments (all by default): observations [len(rows), 4]."""
        rows = self._all if rows is None else rows
        return self._begin(rows, np.reshape([draw_start(self.maze, self._generators[i]) for i in rows], (-1, 4)))

    def reset_to(self, states: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Begin an episode at states [num_envs, 4]; raises RactdError where one is in a wall or not finite."""
        if states.shape != self._states.shape or not np.isfinite(states).all():
            raise RactdError(f"states are {list(states.shape)}, expected finite numbers, {list(self._states.shape)}")
        self.maze.check("start", states[:, :2])
        return self._begin(self._all, states)

    def _begin(self, rows: Rows, states: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        self._states[rows], self._steps[rows] = states, 0
        return self._states[rows].astype(np.float32)

    def step(self, actions: NDArray[np.floating[Any]], rows: Rows | None = None) -> Step:
        """Take one step of the named environments (all by default) with actions [len(rows), 2], clipped to [-1, 1].

        Returns observations, rewards, terminated (never) and truncated (at the step limit).
        """
        rows = self._all if rows is None else rows
        if actions.shape != (len(rows), 2):
            raise RactdError(f"actions are {list(actions.shape)}, expected {[len(rows), 2]}")
        states = self._physics.step(self._states[rows], actions)
        self._states[rows] = states
        self._steps[rows] += 1
        truncated = self._steps[rows] >= self.maze.max_episode_steps
        return states.astype(np.float32), reward(self.maze, states), np.zeros(len(rows), np.bool_), truncated

    def close(self) -> None:
        """Free the simulators."""
        self._physics.close()


def maze_vector(maze: Maze, settings: EnvironmentSettings = REGISTERED) -> MakeVector:
    """Return what makes a maze's environments, for `evaluate`; raises `RactdError` for settings that are not the maze's."""
    if settings not in (REGISTERED, EnvironmentSettings(max_episode_steps=maze.max_episode_steps)):
        raise RactdError(
            f"{maze.env_id} has its own step limit, {maze.max_episode_steps}, no arguments and no wrappers; "
            "leave out --env-steps"
        )

    def make(env_id: str, num_envs: int, seed: int = 0) -> MazeVector:
        if env_id != maze.env_id:
            raise RactdError(f"environment {env_id!r} is not maze {maze.name!r}, which is {maze.env_id!r}")
        return MazeVector(maze, num_envs, seed)

    return make


def draw_start(maze: Maze, generator: np.random.Generator) -> Floats:
    """Return a state [4] that an episode starts in (D4RL's reset): one of the maze's start cells, a little off, nearly at rest."""
    cell = maze.starts[generator.integers(len(maze.starts))]
    position = cell + generator.uniform(-POSITION_NOISE, POSITION_NOISE, 2)
    return np.concatenate([position, VELOCITY_NOISE * generator.standard_normal(2)])


def reward(maze: Maze, states: Floats) -> Floats:
    """Return 1 for states [..., 4] within `GOAL_RADIUS` of the goal, else 0."""
    return np.asarray(np.linalg.norm(states[..., :2] - maze.goal, axis=-1) <= GOAL_RADIUS, np.float64)
