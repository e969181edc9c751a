"""Which of a method's presets suits which data."""

from __future__ import annotations

from ractd.envs.maze import MAZES, Maze, maze_named
from ractd.errors import RactdError
from ractd.methods import Method


def preset_for(method: Method, dataset: str, env_id: str | None, text: str, where: str) -> str:
    """Return the preset that data of an environment is trained with by default: a planner's for a maze, else `cpu`.

    `text` is the map of a maze of one's own, which is from `where`. Such a maze gets the preset of the smallest of D4RL's
    whose episodes are as long. Raises `RactdError` for a maze where the method can't plan.
    """
    maze = maze_named(env_id, text, f"{where}, attribute 'maze'")
    name = "cpu" if maze is None else planner_preset_of(maze)
    if name not in method.presets:
        raise RactdError(
            f"dataset {dataset!r} is of a maze, and method {method.name!r} can't plan in one: use --method ractd, or "
            "name a preset to train on its transitions all the same"
        )
    return name


def planner_preset_of(maze: Maze) -> str:
    """Return the CPU preset of a planner for a maze; without '-cpu' it is the paper's."""
    limit = maze.max_episode_steps
    as_long = [m.name for m in MAZES.values() if m.max_episode_steps >= limit]
    return f"{as_long[0] if as_long else list(MAZES)[-1]}-cpu"
