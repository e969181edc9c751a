"""The paper's published numbers: `paper.csv` has them as data, under the number of their table.

Scores are D4RL-normalised, mean and standard error over 100 planning seeds where the paper gives one; times are in seconds on a
V100, NFE are network evaluations, per action or per plan. A dataset is named as D4RL names it, without its version. The text's
Table 2 has RACTD's score on the medium maze in its average only; it is Table 11's here.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

MUJOCO = tuple(
    f"{robot}-{kind}"
    for kind in ("medium-expert", "medium", "medium-replay")
    for robot in ("halfcheetah", "hopper", "walker2d")
)
"""Columns of Table 1, from left to right."""
MAZES = ("maze2d-umaze", "maze2d-medium", "maze2d-large")
"""Columns of Tables 2 and 11."""
FIGURE_4_WEIGHTS = (0.3, 0.5, 0.7, 1.5)
"""Reward weights whose training curves Figure 4 shows, on hopper-medium-replay; it prints no numbers."""

# Rows of Tables 4 and 10.
BOTH_PLAIN = "unconditioned teacher, unconditioned student"
REWARD_IN_STUDENT = "unconditioned teacher, reward-aware student (RACTD)"
REWARD_IN_TEACHER = "reward-aware teacher, unconditioned student"
REWARD_IN_BOTH = "reward-aware teacher, reward-aware student"


def published(table: str) -> pd.DataFrame:
    """Return what a table prints: columns score, se, nfe, seconds, by dataset and method in the paper's order.

    Empty for a table or figure without numbers.
    """
    numbers = pd.read_csv(Path(__file__).with_name("paper.csv"), dtype={"nfe": "Int64"})
    return numbers[numbers.table == table].drop(columns="table").set_index(["dataset", "method"])


def dataset_key(name: str) -> str:
    """Return a dataset's name as the tables have it: without a version."""
    stem, _, version = name.rpartition("-v")
    return stem if version.isdigit() else name
