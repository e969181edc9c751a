"""A planner's run as a picture: its data, and what its policies plan and do from the same starts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np

from ractd.data import OfflineDataset
from ractd.envs.maze import Maze, MazeVector
from ractd.envs.maze.picture import MazePanel, draw
from ractd.envs.seeds import environment_seed
from ractd.policies import Planner, Policy

PAIRS = 6
"""Starts that are drawn."""
POINTS = 200_000
"""States of the data that are drawn."""


def draw_plans(directory: Path, dataset: OfflineDataset, maze: Maze, names: Mapping[str, str], seed: int) -> Path:
    """Draw `plans.png` of a run: plans dashed, what came of one plan's actions as lines.

    `names` has the policies to draw, by what they are called. Raises `RactdError` without Matplotlib.
    """
    states = dataset.observations[:: max(1, dataset.num_transitions // POINTS)]
    panels = [MazePanel("data", data=states)]
    for title, name in names.items():
        policy = cast(Planner, Policy.load(directory / "policy" / name)).reset(seed)
        with closing(MazeVector(maze, PAIRS, environment_seed(seed))) as env:
            start = env.reset()
            plans, actions = policy.plan(start, maze.goal)
            executed = [start, *(env.step(actions[:, step])[0] for step in range(actions.shape[1]))]
        panels.append(MazePanel(title, plans=list(plans), executed=list(np.stack(executed, axis=1))))
    return draw(maze, panels, directory / "plans.png")
