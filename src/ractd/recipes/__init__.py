"""Datasets that are made here. None of them is D4RL's, however closely it follows D4RL's recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ractd.data.formats.made import MADE_HERE, dataset_file
from ractd.envs.maze import MAZES, Maze
from ractd.errors import RactdError
from ractd.recipes.behaviors import RECIPES, run_recipe, write_transitions
from ractd.recipes.mazes import make_maze_dataset
from ractd.registry import unknown


def make_dataset(
    what: str | Maze,
    *,
    transitions: int | None = None,
    seed: int = 0,
    directory: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a dataset by its name (`MADE_HERE` has them) or that of a maze: `<directory>/<name>.hdf5`, in D4RL's layout.

    Args:
        what: a name or a maze.
        transitions: its exact size, by default the recipe's; an episode cut there ends by timeout.
        seed: the same one gives the same bits on the same machine.
        directory: by default `dataset_dir()`.
        progress: called with the transitions done and all of them as it goes.

    Returns:
        The file, which appears whole or not at all.

    Raises:
        RactdError: for an unknown name, a size below 1, or a seed below 0.
    """
    if seed < 0:
        raise RactdError(f"seed is {seed}, expected at least 0")
    maze = MAZES.get(what) if isinstance(what, str) else what
    if maze is not None:
        return make_maze_dataset(maze, transitions=transitions, seed=seed, directory=directory, progress=progress)
    name = str(what)
    if name not in RECIPES:
        raise unknown("recipe", name, MADE_HERE)
    recipe = RECIPES[name]
    if transitions is not None:
        recipe = replace(recipe, transitions=transitions)
    note = f"{name}: {MADE_HERE[name]}; made by ractd, not D4RL's data"
    data = run_recipe(recipe, seed, progress)
    return write_transitions(dataset_file(name, directory), data, recipe.env_id, seed, note)
