"""No episode that scores a policy is one that made its data: the seeds of both, and the states that they start in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ractd.data import load_dataset
from ractd.envs import EnvPoolVector, make_vector
from ractd.envs.maze import MAZES, maze_vector
from ractd.envs.seeds import BEHAVIOR, CHECKPOINT, CONFIRMATION, DATA, FINAL, SPAN, environment_seed
from ractd.recipes import behaviors, make_dataset
from ractd.recipes.behaviors import RANDOM, Stretch
from ractd.recipes.mazes import make_maze_dataset

pytest.importorskip("envpool")
SCORING = (FINAL, CHECKPOINT, CONFIRMATION)
SEEDS = (0, 1, 7, 99_999, 100_000, 20_241_123, 2**31 - 1)
FALLEN = replace(behaviors.RECIPES["hopper-mixed"], schedule=(Stretch(1.0, RANDOM, RANDOM),))
"""Of random actions alone, whose episodes are short."""


def rows(observations: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in observations}


def test_every_purpose_has_seeds_of_its_own_below_the_largest_int32() -> None:
    most = 100_000  # environments of an evaluation or a dataset
    purposes = sorted((*SCORING, DATA, BEHAVIOR))
    for seed in SEEDS:
        firsts = [environment_seed(seed, purpose) for purpose in purposes]
        for first, purpose in zip(firsts, purposes, strict=True):
            assert purpose <= first < purpose + SPAN
        assert (np.diff(firsts) > most).all(), "one run's purposes never meet"
        assert max(SCORING) + SPAN + most < DATA, "no run's evaluation meets any data"
        assert firsts[-1] + most < 2**31
    assert environment_seed(7) == 7_000
    EnvPoolVector("InvertedPendulum-v5", 1, environment_seed(99_999, BEHAVIOR) + most).close()


@pytest.mark.parametrize("seed", [0, 5])
def test_hopper_mixed_has_no_start_of_an_evaluation(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 environments, as the whole recipe has, whose first starts were those of seed 0's final evaluation.

    Where episodes are short, many environments have a part in few transitions.
    """
    monkeypatch.setitem(behaviors.RECIPES, "hopper-mixed", FALLEN)
    monkeypatch.setattr(behaviors, "PIECE", 25)
    dataset = load_dataset(make_dataset("hopper-mixed", transitions=2_500, seed=seed, directory=tmp_path))
    starts = rows(dataset.observations[np.r_[0, dataset.episode_ends[:-1]]])
    assert len(starts) > 60
    for purpose in SCORING:
        for scored in (0, seed):
            env = make_vector("Hopper-v5", 128, environment_seed(scored, purpose))
            assert not starts & rows(env.reset())
            env.close()


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed not in (0, 100_000, 2**31 - 1))) for seed in SEEDS]
)
def test_a_recipe_takes_its_environments_from_the_seeds_of_data(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def recording(env_id: str, num_envs: int, seed: int) -> Any:
        asked.append((seed, num_envs))
        return make_vector(env_id, num_envs, seed)

    monkeypatch.setattr(behaviors, "make_vector", recording)
    monkeypatch.setattr(behaviors, "PIECE", 4)
    assert len(behaviors.run_recipe(replace(FALLEN, transitions=600), seed)) == 600
    used = np.concatenate([first + np.arange(count) for first, count in asked])
    assert len(asked) > 1, "more environments than fit at once"
    assert len(set(used)) == len(used)
    assert used.min() >= DATA
    assert used.max() < BEHAVIOR


@pytest.mark.parametrize("seed", [0, 5])
def test_maze_data_has_no_start_of_an_evaluation(seed: int, tmp_path: Path) -> None:
    """The data's generator was once that of the environment with the same seed."""
    pytest.importorskip("mujoco")
    maze = MAZES["maze2d-umaze"]
    path = make_maze_dataset(maze, transitions=20 * maze.max_episode_steps, seed=seed, directory=tmp_path)
    states = rows(load_dataset(path).observations)
    for purpose in SCORING:
        for scored in (0, seed):
            env = maze_vector(maze)(maze.env_id, 100, environment_seed(scored, purpose))
            assert not states & rows(env.reset())
            env.close()
