"""D4RL's mazes and one's own: a point mass pushed to a goal. Importing it imports no simulator and no torch."""

from __future__ import annotations

from ractd.envs.maze.controller import WaypointController
from ractd.envs.maze.maps import MAZES, OWN, Maze, maze_named, maze_of, parse_maze, read_maze
from ractd.envs.maze.vector import GOAL_RADIUS, MazeVector, maze_vector

__all__ = [
    "GOAL_RADIUS",
    "MAZES",
    "OWN",
    "Maze",
    "MazeVector",
    "WaypointController",
    "maze_named",
    "maze_of",
    "maze_vector",
    "parse_maze",
    "read_maze",
]
