"""Who made D4RL's data: a planner over the maze's cells and a PD controller that follows its waypoints.

D4RL, `pointmaze/waypoint_controller.py`; its tabular Q-iteration over the cells is a breadth-first search here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ractd.envs.maze.maps import Floats, Maze

P_GAIN, D_GAIN = 10.0, -1.0
REACHED = 0.1
"""A waypoint nearer than this counts as reached."""
WAYPOINT_NOISE = 0.2
"""A waypoint lies uniformly up to this far from its cell's location, towards smaller x and y: about its true centre."""


class WaypointController:
    """Drives N points of one maze to a goal each, all at once."""

    def __init__(self, maze: Maze, num: int, generator: np.random.Generator) -> None:
        self.maze = maze
        self.goals: Floats = np.zeros((num, 2))
        """Where each point is going, [N, 2]."""
        self._generator = generator
        self._cell, self._goal_cell = np.zeros((2, num), np.int64)
        self._waypoints = np.zeros((num, 2))

    def aim(self, rows: NDArray[np.int64], positions: Floats, goals: Floats) -> None:
        """Send the points `rows` from positions [len(rows), 2] to goals [len(rows), 2].

        Raises RactdError where one of them is in a wall or cut off from the maze's goal.
        """
        self.maze.check("position", positions)
        self.maze.check("goal", goals)
        self._cell[rows] = self.maze.number_of(positions)
        self._goal_cell[rows] = self.maze.number_of(goals)
        self.goals[rows] = goals
        self._advance(rows)

    def __call__(self, states: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Actions [N, 2] in [-1, 1] for states [N, 4], and which of them are at their goals, [N].

        A point that has reached its waypoint goes on to the next one from the next call on; at its goal it stays.
        """
        position, velocity = states[:, :2], states[:, 2:]
        offset = self._waypoints - position
        actions = np.clip(P_GAIN * offset + D_GAIN * velocity, -1, 1)
        near = np.hypot(offset[:, 0], offset[:, 1]) < REACHED
        final = self._cell == self._goal_cell
        self._advance(np.flatnonzero(near & ~final))
        return actions, near & final

    def _advance(self, rows: NDArray[np.int64]) -> None:
        """Draw the next waypoint of points that have reached their last: in the next cell, or the goal itself."""
        self._cell[rows] = self.maze.next_cells[self._cell[rows], self._goal_cell[rows]]
        noise = self._generator.uniform(0, WAYPOINT_NOISE, (len(rows), 2))
        final = self._cell[rows] == self._goal_cell[rows]
        self._waypoints[rows] = np.where(final[:, None], self.goals[rows], self.maze.cells[self._cell[rows]] - noise)
