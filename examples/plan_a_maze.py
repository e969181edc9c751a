"""A maze of your own: data, a planner, and the way from any place to any other in one network evaluation.

    python examples/plan_a_maze.py --out runs/mine

`make_maze_dataset` plays the part of your logs: a noisy controller that walks from place to place. What is planned and
what comes of it is in plans.png of the run.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import ractd
from ractd.data import load_dataset
from ractd.envs.maze import MazeVector, parse_maze
from ractd.methods.ractd_settings import PRESETS
from ractd.policies import Planner
from ractd.recipes.mazes import make_maze_dataset

MAP = """
#######
#S....#
#.###.#
#...#.#
###.#G#
#######
"""
"""# wall, . empty, one G the goal of the evaluation, any number of S to start in."""


def shortened(part: Any, factor: float) -> Any:
    """The same stage with a share of the steps."""
    return replace(part, optimization=replace(part.optimization, steps=max(1, round(part.optimization.steps * factor))))


def main() -> None:
    """Make data, train, plan, walk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("runs/mine"), help="run directory; the same one goes on")
    parser.add_argument("--transitions", type=int, default=500_000, help="of the data")
    parser.add_argument("--share", type=float, default=1.0, help="of the preset's steps")
    parser.add_argument("--episodes", type=int, default=100, help="that each policy is scored by")
    arguments = parser.parse_args()

    maze = parse_maze(MAP, "mine")
    path = arguments.out.parent / "mine.hdf5"
    if not path.exists():
        make_maze_dataset(maze, transitions=arguments.transitions, directory=path.parent)
    config, share = PRESETS["maze2d-umaze-cpu"], arguments.share
    names = ("return_model", "sequence", "teacher", "student")
    config = replace(config, **{name: shortened(getattr(config, name), share) for name in names})
    config = replace(config, evaluation=replace(config.evaluation, episodes=arguments.episodes))
    result = ractd.train(load_dataset(path), out=arguments.out, config=config)
    for label in ("teacher", "plain student", "RACTD"):
        row = result.row(label)
        print(f"{label}: came to the goal in {row.success_rate:.0%} of the episodes, {row.ms_per_action:.2f} ms a plan")

    planner = ractd.Policy.load(arguments.out)
    assert isinstance(planner, Planner)
    here, there = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([3.0, 3.0])
    states, actions = planner.plan(here, there)
    env = MazeVector(maze, 1)
    env.reset_to(here)
    for action in actions[0]:
        state = env.step(action[None])[0]
    env.close()
    print(f"planned to end at {states[0, -1, :2].round(2)}, walked to {state[0, :2].round(2)}, wanted {there}")


if __name__ == "__main__":
    main()
