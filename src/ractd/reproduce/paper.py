"""The paper's published numbers as data, under the number of their table.

Scores are D4RL-normalised, mean and standard error over 100 planning seeds where the paper gives one; times are in seconds
on a V100. A dataset is named as D4RL names it, without its version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the paper prints for one method on one dataset; None where it prints nothing."""

    score: float | None = None
    se: float | None = None
    nfe: int | None = None
    """Network evaluations per action, or per plan."""
    seconds: float | None = None
    """Wall time per action, or per plan."""


NOTHING = Published()
Numbers = Mapping[str, Mapping[str, Published]]
"""By dataset, then by method, in the paper's order."""

_KINDS = ("medium-expert", "medium", "medium-replay")
MUJOCO = tuple(f"{robot}-{kind}" for kind in _KINDS for robot in ("halfcheetah", "hopper", "walker2d"))
"""Columns of Table 1, from left to right."""
MAZES = ("maze2d-umaze", "maze2d-medium", "maze2d-large")
"""Columns of Tables 2 and 11."""

_TABLE_1: dict[str, tuple[int | None, tuple[float, ...], tuple[float, ...]]] = {
    "BC": (None, (55.2, 52.5, 107.5, 42.6, 52.9, 75.3, 36.6, 18.1, 26.0), ()),
    "CQL": (None, (91.6, 105.4, 108.8, 44.0, 58.5, 72.5, 45.5, 95.0, 77.2), ()),
    "IQL": (None, (86.7, 91.5, 109.6, 47.4, 66.3, 78.3, 44.2, 94.7, 73.9), ()),
    "DT": (None, (86.8, 107.6, 108.1, 42.6, 67.6, 74.0, 36.6, 82.7, 66.6), ()),
    "TT": (None, (95.0, 110.0, 101.9, 46.9, 61.1, 79.0, 41.9, 91.5, 82.6), ()),
    "MOPO": (None, (63.3, 23.7, 44.6, 42.3, 28.0, 17.8, 53.1, 67.5, 39.0), ()),
    "MOReL": (None, (53.3, 108.7, 95.6, 42.1, 95.4, 77.8, 40.2, 93.6, 49.8), ()),
    "MBOP": (None, (105.9, 55.1, 70.2, 44.6, 48.8, 41.0, 42.3, 12.4, 9.7), ()),
    "Diffusion QL": (
        5,
        (97.2, 112.3, 111.2, 51.5, 96.6, 87.3, 48.3, 102.0, 98.0),
        (0.4, 0.8, 0.9, 0.3, 3.4, 0.5, 0.2, 0.4, 0.5),
    ),
    "Consistency AC": (
        2,
        (89.2, 106.0, 111.6, 71.9, 99.7, 84.1, 62.7, 100.4, 83.0),
        (3.3, 1.3, 0.7, 0.8, 2.3, 0.3, 0.6, 0.6, 1.5),
    ),
    "Consistency BC": (
        2,
        (39.6, 96.8, 111.6, 46.2, 78.3, 84.1, 45.4, 100.4, 80.8),
        (3.4, 4.6, 0.7, 0.4, 2.6, 0.3, 0.7, 0.6, 3.4),
    ),
    "Diffuser": (
        20,
        (88.9, 103.3, 106.9, 42.8, 74.3, 79.6, 37.7, 93.6, 70.6),
        (0.3, 1.3, 0.2, 0.3, 1.4, 0.55, 0.5, 0.4, 1.6),
    ),
    "RACTD": (
        1,
        (95.9, 129.0, 119.6, 59.3, 121.0, 98.9, 57.9, 104.9, 91.5),
        (1.5, 1.3, 1.9, 0.2, 0.5, 1.6, 1.0, 2.1, 2.6),
    ),
}
"""Method: NFE, scores, standard errors where they are printed; columns as in `MUJOCO`."""

TABLE_1: Numbers = {
    dataset: {
        method: Published(scores[column], errors[column] if errors else None, nfe)
        for method, (nfe, scores, errors) in _TABLE_1.items()
    }
    for column, dataset in enumerate(MUJOCO)
}
"""Offline RL: scores on Gym-MuJoCo."""

# The text's Table 2 has RACTD's score on the medium maze in its average only; Table 11 prints it.
TABLE_2: Numbers = {
    "maze2d-umaze": {
        "MPPI": Published(33.2),
        "CQL": Published(5.7),
        "IQL": Published(47.4),
        "Diffuser": Published(113.9, 3.1, 64, 1.664),
        "CTD (plain student)": Published(123.4, 1.0, 1, 0.029),
        "RACTD": Published(125.7, 0.6, 1, 0.029),
    },
    "maze2d-medium": {
        "MPPI": Published(10.2),
        "CQL": Published(5.0),
        "IQL": Published(34.9),
        "Diffuser": Published(121.5, 2.7, 256, 4.312),
        "CTD (plain student)": Published(119.8, 4.1, 1, 0.047),
        "RACTD": Published(130.8, 1.8, 1, 0.047),
    },
    "maze2d-large": {
        "MPPI": Published(5.1),
        "CQL": Published(12.5),
        "IQL": Published(58.6),
        "Diffuser": Published(123.0, 6.4, 256, 5.568),
        "CTD (plain student)": Published(127.1, 6.4, 1, 0.049),
        "RACTD": Published(143.8, 0.0, 1, 0.049),
    },
}
"""Long-horizon planning in Maze2D."""

TABLE_3: Numbers = {
    "hopper-medium-replay": {
        "Diffuser": Published(93.6, None, 20, 0.644),
        "DDPM": Published(24.2, None, 15, 0.236),
        "DDIM": Published(60.6, None, 15, 0.208),
        "EDM teacher": Published(114.2, None, 80, 2.134),
        "RACTD": Published(104.9, None, 1, 0.015),
    },
}
"""Time and NFE per action."""

BOTH_PLAIN = "unconditioned teacher, unconditioned student"
REWARD_IN_STUDENT = "unconditioned teacher, reward-aware student (RACTD)"
REWARD_IN_TEACHER = "reward-aware teacher, unconditioned student"
REWARD_IN_BOTH = "reward-aware teacher, reward-aware student"

TABLE_4: Numbers = {
    "hopper-medium-replay": {
        BOTH_PLAIN: Published(50.8, 0.3, 1),
        REWARD_IN_STUDENT: Published(104.9, 2.1, 1),
        REWARD_IN_TEACHER: Published(96.2, 0.2, 1),
        REWARD_IN_BOTH: Published(96.0, 0.3, 1),
    },
}
"""Where the reward comes in."""

TABLE_5: Numbers = {
    "hopper-medium-replay": {
        "RACTD, 1 step": Published(104.9, 2.1, 1, 0.0147),
        "RACTD, 2 steps": Published(109.8, 0.9, 2, 0.0241),
        "RACTD, 3 steps": Published(108.7, 0.1, 3, 0.0377),
        "RACTD, 4 steps": Published(107.9, 1.6, 4, 0.0517),
    },
}
"""Several sampling steps of the student."""

TABLE_10: Numbers = {
    "walker2d-medium": {
        BOTH_PLAIN: Published(93.3, 1.8, 1),
        REWARD_IN_STUDENT: Published(98.9, 1.6, 1),
        REWARD_IN_TEACHER: Published(97.0, 1.0, 1),
        REWARD_IN_BOTH: Published(94.5, 2.6, 1),
    },
}
"""Table 4 on another dataset."""

TABLE_11: Numbers = {
    "maze2d-umaze": {
        "DDPM, 100 steps": Published(126.3, 0.7, 100),
        "DDIM, 10 steps": Published(121.2, 1.1, 10),
        "DDIM, 1 step": Published(3.5, 4.7, 1),
        "EDM teacher": Published(125.4, 0.6, 80),
        "CTD (plain student)": Published(123.4, 1.0, 1),
        "RACTD": Published(125.7, 0.6, 1),
    },
    "maze2d-medium": {
        "DDPM, 100 steps": Published(126.8, 3.0, 100),
        "DDIM, 10 steps": Published(126.2, 2.8, 10),
        "DDIM, 1 step": Published(-2.6, 12.5, 1),
        "EDM teacher": Published(120.1, 4.2, 80),
        "CTD (plain student)": Published(119.8, 4.1, 1),
        "RACTD": Published(130.8, 1.8, 1),
    },
    "maze2d-large": {
        "DDPM, 100 steps": Published(144.8, 4.9, 100),
        "DDIM, 10 steps": Published(143.1, 4.9, 10),
        "DDIM, 1 step": Published(-1.5, 0.7, 1),
        "EDM teacher": Published(149.0, 0.5, 80),
        "CTD (plain student)": Published(127.1, 6.4, 1),
        "RACTD": Published(143.8, 0.0, 1),
    },
}
"""Fast samplers in Maze2D."""

FIGURE_4_WEIGHTS = (0.3, 0.5, 0.7, 1.5)
"""Reward weights whose training curves Figure 4 shows, on hopper-medium-replay; it prints no numbers."""


def dataset_key(name: str) -> str:
    """Return a dataset's name as the tables have it: without a version."""
    stem, _, version = name.rpartition("-v")
    return stem if version.isdigit() else name


def published(table: Numbers, dataset: str, method: str) -> Published:
    """Return what a table says about a method on a dataset of that name, with or without version; maybe nothing."""
    return table.get(dataset_key(dataset), {}).get(method, NOTHING)
