"""Maze2D datasets, made on the user's machine by D4RL's recipe: a planner and a PD controller from goal to random goal.

D4RL, `generate_maze2d_datasets.py --noisy`. The points run through the whole dataset without a reset, many at once, each
a run of consecutive rows. What is not D4RL's:

* `timeouts` cut those runs at the environment's step limit, so that an episode is as long as one that is scored. D4RL
  marks there the rows that reached a goal; those are the rows before `infos/goal` changes;
* a row is paid for the state that its action leads to, as the environment pays, and not for the one it starts from;
* a goal is reached where `infos/goal` says it is; D4RL's controller makes for the middle of its cell;
* whether D4RL's published files had the script's action noise is not documented; these do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.fields import GOALS
from ractd.data.formats import d4rl
from ractd.data.formats.hdf5 import create_hdf5, reference_attributes
from ractd.data.formats.made import MADE_HERE, dataset_file
from ractd.envs.maze import MAZES, Maze, WaypointController
from ractd.envs.maze.physics import PointMass
from ractd.envs.maze.vector import POSITION_NOISE, draw_start, reward
from ractd.envs.seeds import DATA, environment_seed
from ractd.errors import RactdError
from ractd.processors import cores

Progress = Callable[[int, int], None]

ACTION_NOISE = 0.5
"""Deviation of the noise added to the controller's actions, before they are clipped."""
MAX_RUNS = 256
"""Points that run at once: more gain little speed."""
TRANSITIONS = {"maze2d-umaze": 1_000_000, "maze2d-medium": 2_000_000, "maze2d-large": 4_000_000}
"""D4RL's sizes."""
WIDTHS = {"observations": (4,), "actions": (2,), "rewards": (), GOALS: (2,)}
"""Of the fields of float32, whose rows are made side by side."""
TRANSITIONS_PER_CELL = 100_000
"""For a maze of one's own, within D4RL's smallest and largest size."""


def transitions_of(maze: Maze) -> int:
    """The size of a maze's dataset where none is asked for."""
    sizes = TRANSITIONS.values()
    return TRANSITIONS.get(maze.name, int(np.clip(TRANSITIONS_PER_CELL * len(maze.cells), min(sizes), max(sizes))))


def make_maze_dataset(
    maze: Maze,
    *,
    transitions: int | None = None,
    seed: int = 0,
    directory: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a maze's dataset and return its file, `<directory>/<maze.name>.hdf5` in D4RL's layout.

    `transitions` (default: `transitions_of(maze)`) is its exact size, `directory` is `dataset_dir()` by default. The same
    seed gives the same bytes on any number of `threads` (default: all cores). Rows go to disk as they are made, so
    that memory doesn't grow with them. `progress(done, total)` is called as it goes. The file appears whole or not at all.
    Raises `RactdError` for a name that is taken by another dataset, or a size below 1.
    """
    check_name(maze)
    total = transitions_of(maze) if transitions is None else transitions
    if total < 1:
        raise RactdError(f"{total} transitions are asked for; it has to be at least 1")
    path = dataset_file(maze.name, directory)
    with create_hdf5(path) as file:
        # Neither chunked nor compressed: noise doesn't compress, and runs are written side by side.
        fields = {name: file.create_dataset(name, (total, *width), np.float32) for name, width in WIDTHS.items()}
        fields |= {name: file.create_dataset(name, (total,), np.bool_) for name in ("terminals", "timeouts")}
        note = f"noisy PD controller from goal to random goal in {maze.name}; made by ractd, not D4RL's data"
        attrs = {"env_id": maze.env_id, "recipe": note, "maze": maze.text, "seed": seed}
        file.attrs.update(attrs | reference_attributes(maze.env_id))
        _run(maze, total, seed, cores() if threads is None else threads, fields, progress)
    return path


def check_name(maze: Maze) -> Maze:
    """Return a maze; raises `RactdError` where one's own has a name that means another dataset, or can't be one."""
    if maze == MAZES.get(maze.name):
        return maze
    if not re.fullmatch(r"\w[\w.-]*", maze.name):
        raise RactdError(f"{maze.name!r} can't be the name of a dataset; use letters, digits, '-', '_' and '.'")
    if maze.name in MADE_HERE or maze.name in d4rl.DATASETS:
        raise RactdError(f"{maze.name!r} is another dataset's name; give the dataset of your maze its own")
    return maze


def _run(maze: Maze, total: int, seed: int, threads: int, fields: dict[str, Any], progress: Progress | None) -> None:
    """Run points through the maze and write their rows, run after run, each a whole number of episodes."""
    limit = maze.max_episode_steps
    episodes = -(-total // limit)
    blocks = -(-episodes // MAX_RUNS)
    runs = -(-episodes // blocks)
    lengths = limit * (episodes // runs + (np.arange(runs) < episodes % runs))
    starts = np.cumsum(lengths) - lengths
    generator = np.random.default_rng(environment_seed(seed, DATA))  # an environment draws its starts from its seed
    with closing(PointMass(maze, min(threads, runs))) as physics:
        points = _Points(maze, runs, generator, physics)
        done = 0
        for offset in range(0, blocks * limit, limit):
            block = points.episode()
            for run in np.flatnonzero(offset < lengths):
                row = int(starts[run]) + offset
                count = min(limit, total - row)
                for name, values in block.items():
                    fields[name][row : row + count] = values[run, :count]
                fields["timeouts"][row + count - 1] = True
                done += count
            if progress is not None:
                progress(done, total)


class _Points:
    """N points that never stop: each draws a new goal when it has reached one, or tried for as long as an episode."""

    def __init__(self, maze: Maze, num: int, generator: np.random.Generator, physics: PointMass) -> None:
        self._maze, self._generator, self._physics = maze, generator, physics
        self._states = np.stack([draw_start(maze, generator) for _ in range(num)])
        self._controller = WaypointController(maze, num, generator)
        self._tried = np.zeros(num, np.int64)
        self._rows = {
            name: np.empty((num, maze.max_episode_steps, *width), np.float32) for name, width in WIDTHS.items()
        }
        self._new_goals(np.arange(num))

    def _new_goals(self, points: NDArray[np.int64]) -> None:
        cells = self._maze.cells[self._generator.integers(len(self._maze.cells), size=len(points))]
        goals = cells + self._generator.uniform(-POSITION_NOISE, POSITION_NOISE, cells.shape)
        self._controller.aim(points, self._states[points, :2], goals)
        self._tried[points] = 0

    def episode(self) -> dict[str, NDArray[np.float32]]:
        """The fields of all points' next `max_episode_steps` rows, each [N, steps, ...], until the next call."""
        num, limit = len(self._states), self._maze.max_episode_steps
        observations, actions, rewards, goals = self._rows.values()
        noise = ACTION_NOISE * self._generator.standard_normal((limit, num, 2))
        for step in range(limit):
            observations[:, step] = self._states
            goals[:, step] = self._controller.goals
            action, reached = self._controller(self._states)
            actions[:, step] = np.clip(action + noise[step], -1, 1)
            self._states = self._physics.step(self._states, actions[:, step])
            rewards[:, step] = reward(self._maze, self._states)
            self._tried += 1
            over = np.flatnonzero(reached | (self._tried >= limit))
            if len(over):
                self._new_goals(over)
        return self._rows
