"""Which preset suits which data."""

from __future__ import annotations

from ractd.envs.maze import MAZES, Maze, maze_named


def preset_for(env_id: str | None, text: str, where: str) -> str:
    """Return the preset that data of an environment is trained with by default: a planner's for a maze, else `cpu`.

    `text` is the map of a maze of one's own, which is from `where`. Such a maze gets the preset of the smallest of D4RL's
    whose episodes are as long.
    """
    maze = maze_named(env_id, text, f"{where}, attribute 'maze'")
    return "cpu" if maze is None else planner_preset_of(maze)


def planner_preset_of(maze: Maze) -> str:
    """Return the CPU preset of a planner for a maze; without '-cpu' it is the paper's."""
    limit = maze.max_episode_steps
    as_long = [m.name for m in MAZES.values() if m.max_episode_steps >= limit]
    return f"{as_long[0] if as_long else list(MAZES)[-1]}-cpu"
