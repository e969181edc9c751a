"""A policy that plans: states on the way to a goal, and the actions that lead from each to the next."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ractd.envs.maze import Maze, maze_named
from ractd.errors import RactdError
from ractd.policies.policy import Policy
from ractd.sequences.states import States


class Planner(Policy):
    """A policy whose sequences are states: it plans the way to a goal, and its inverse dynamics says which actions lead there.

    To `act` and `act_chunk` an observation is a state and a goal, `[2 S]` or `[B, 2 S]`; `plan` takes the two apart.
    """

    sequence: States

    @cached_property
    def maze(self) -> Maze | None:
        """The maze that it plans in; raises `RactdError` where its map is damaged."""
        where = self.environment
        return None if where is None else maze_named(where.env_id, where.maze, "the policy's 'maze'")

    @torch.inference_mode()
    def plan(self, state: NDArray[Any], goal: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the c states that lead from `state` to `goal`, and the action that leads to each.

        `state` is `[S]` or `[B, S]`; `goal` is the first G <= S entries of a state (others are zero: to be there at rest),
        `[G]` or `[B, G]`. Returns `[c, S]`, `[c, A]` or `[B, c, S]`, `[B, c, A]`. Raises `RactdError` for a
        wrong shape or NaN, and for a state or a goal in a wall of its maze.
        """
        observation = self.sequence.with_goal(state, goal)
        if self.maze is not None and np.isfinite(observation).all():
            self.maze.check("state", observation[..., :2])
            self.maze.check("goal", observation[..., self.sequence.state_dim : self.sequence.state_dim + 2])
        batch, single = self.batch_of(observation)
        outputs = self.outputs(batch, self.draw_noise(len(batch)))
        states, actions = (outputs[name].cpu().numpy() for name in ("states", "actions"))
        return (states[0], actions[0]) if single else (states, actions)

    def observe(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an environment's states `[B, 1, S]` with the goal of the maze, `[B, 1, 2 S]`."""
        if self.maze is None:
            raise RactdError("a plan needs a goal, and the policy's environment is no maze that has one")
        return self.sequence.with_goal(observations[:, -1], self.maze.goal)[:, None]
