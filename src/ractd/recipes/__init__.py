"""Datasets that are made here. None of them is D4RL's, however closely it follows D4RL's recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ractd.envs.maze import MAZES, Maze, read_maze
from ractd.recipes.behaviors import retrace
from ractd.recipes.mazes import check_name, make_maze_dataset


def own_maze(file: Path, name: str) -> Maze:
    """Read a maze of one's own whose dataset is to get a name.

    Raises:
        RactdError: where the file is no map, or the name is taken or can't be one.
    """
    maze = read_maze(file, name)
    check_name(maze)
    return maze


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
        RactdError: for an unknown name, or a size below 1.
    """
    maze = MAZES.get(what) if isinstance(what, str) else what
    if maze is not None:
        return make_maze_dataset(maze, transitions=transitions, seed=seed, directory=directory, progress=progress)
    assert isinstance(what, str)
    return retrace(what, transitions=transitions, seed=seed, directory=directory, progress=progress)
