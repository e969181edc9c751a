"""An arm whose episodes end by a success: what the return model makes of reaching the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Answer, options

from ractd import OfflineDataset, Policy, load_dataset
from ractd.data import write_hdf5

JOINTS, LIMIT, NEAR = 6, 60, 0.25
LENGTHS = np.array([0.5, 0.4, 0.3, 0.2, 0.2, 0.1])


def hand(angles: np.ndarray) -> np.ndarray:
    """Position of a planar arm's hand, [2], of its joint angles."""
    direction = np.cumsum(angles)
    return np.array([(LENGTHS * np.cos(direction)).sum(), (LENGTHS * np.sin(direction)).sum()])


def arm_data(episodes: int = 80) -> OfflineDataset:
    """Half of the episodes reach the target, are paid 10 there and end; the others wander until the time limit."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[object]] = {
        name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")
    }
    target = np.array([0.4, 1.1])
    for episode in range(episodes):
        angles = rng.uniform(-0.6, 0.6, JOINTS)
        for step in range(LIMIT):
            offset = target - hand(angles)
            shifts = np.stack([hand(angles + 1e-4 * np.eye(JOINTS)[i]) - hand(angles) for i in range(JOINTS)]) / 1e-4
            towards = shifts @ offset if episode % 2 else np.zeros(JOINTS)
            action = np.clip(towards + 0.3 * rng.normal(size=JOINTS), -1, 1)
            moved = angles + 0.1 * action
            reached = bool(np.linalg.norm(target - hand(moved)) < NEAR)
            row = (
                np.concatenate([angles, offset]),
                action,
                10.0 * reached - 0.01,
                reached,
                step + 1 == LIMIT and not reached,
            )
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
            angles = moved
            if reached:
                break
    return OfflineDataset("arm", **{name: np.array(values) for name, values in columns.items()})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the arm's logs are."""
    path = tmp_path_factory.mktemp("arm") / "arm.hdf5"
    write_hdf5(path, arm_data())
    return path


def test_the_arm_succeeds_about_half_of_the_time(arm: Path) -> None:
    data = load_dataset(arm)
    assert 0.3 < data.ends.are("success").mean() < 0.7
    assert data.ends.counts.keys() == {"success", "cut"}
    assert "terminal rows are paid" in data.ends.source


@pytest.mark.slow
@pytest.mark.parametrize(("words", "least", "most"), [((), 3, 12), (("--ends", "failure"), -1e3, 0)])
def test_the_return_model_likes_a_success_unless_it_is_told_that_it_was_a_failure(
    arm: Path, tmp_path: Path, cli: Callable[..., Answer], words: tuple[str, ...], least: float, most: float
) -> None:
    changed = options(**{"--return-model.optimization.steps": "600", "--student.optimization.steps": "20"})
    answer = cli("train", arm, "--out", tmp_path / "run", "--no-plain", *words, *changed)
    assert answer.code == 0, answer.err
    data = load_dataset(arm)
    reached = data.terminals
    estimate = Policy.load(tmp_path / "run").estimate_return(data.observations[reached], data.actions[reached])
    assert least < estimate.mean() < most
