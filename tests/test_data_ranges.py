"""What `validate` says about ranges: outliers, rounding, choices; and nothing about data that have none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_factory import make

from ractd import validate
from ractd.data import OfflineDataset, load_dataset
from ractd.data.findings import located
from ractd.data.validation import check_ranges

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def told(data: OfflineDataset) -> list[str]:
    """Return what the checks say, and that `validate` says it too."""
    messages = [finding.message for finding in located(check_ranges(data), data.where)]
    assert set(messages) <= {finding.message for finding in validate(data) if finding.level == "warning"}
    return messages


def toy(rows: int = 1000) -> OfflineDataset:
    return make([rows // 2, rows // 2])


def test_outliers_are_named_with_their_rows_and_what_becomes_of_them() -> None:
    data = toy()
    data.observations[17, 2], data.actions[[30, 20, 40], 1] = 1e9, [1e4, -1e4, 2e4]
    observations, actions = told(data)
    low, high = np.delete(data.observations[:, 2], 17).min(), np.delete(data.observations[:, 2], 17).max()
    assert observations == (
        f"dataset 'toy': observations far outside the others (dimension 2: row 17 with 1e+09, others {low:g} to {high:g}); "
        "they don't count for the range and are clipped to it"
    )
    assert "(dimension 1: 3 rows, the first 20, with -10000, others -0.99" in actions
    assert actions.endswith("; if they are right, give the robot's range (--action-range)")


def test_outliers_of_what_is_as_good_as_constant_are_named_alone() -> None:
    data = toy()
    rng = np.random.default_rng(0)
    data.actions[:, 1] = 1 + 1e-6 * rng.normal(size=len(data.actions))
    data.actions[700, 1] = 1000
    (actions,) = told(data)
    assert "(dimension 1: row 700 with 1000, others 1 to 1)" in actions


def test_many_dimensions_are_one_sentence() -> None:
    data = make([1000], obs=30)
    data.observations[5] = 1e9
    (found,) = told(data)
    assert found.count("dimension ") == 4
    assert "; and 26 more dimensions)" in found


@pytest.mark.parametrize(("mean", "spread"), [(1.0, 1e-6), (0.0, 1e-6), (1e6, 2.0), (9e4, 0.5)])
def test_observations_that_only_rounding_moves(mean: float, spread: float) -> None:
    data = toy()
    data.observations[:, 1] = mean + spread * np.random.default_rng(0).normal(size=1000)
    (found,) = told(data)
    assert (
        f"observations change by no more than rounding (dimension 1: {data.observations[:, 1].std(dtype=float):.2g}"
        in found
    )
    assert "are not magnified" in found


def test_observations_of_deviation_one_are_a_signal() -> None:
    data = toy()
    data.observations[:, 1] = np.where(np.arange(1000) % 2, 1, -1)
    assert data.statistics().observation_std[1] == 1
    assert told(data) == []


def test_actions_that_only_rounding_moves() -> None:
    data = toy()
    data.actions[:, 0] = 0.3 + 1e-7 * np.random.default_rng(0).normal(size=1000)
    (found,) = told(data)
    assert "actions change by no more than rounding (dimension 0: " in found
    assert "around 0.3), so the policy's are constant there" in found


def test_constants_are_no_rounding() -> None:
    data = toy()
    data.observations[:, 1], data.actions[:, 0] = 3, 0.04
    assert told(data) == []


@pytest.mark.parametrize(("values", "listed"), [((0, 1), "0, 1"), ((-1, 1), "-1, 1"), ((0, 1, 2, 3), "0, 1, 2, 3")])
def test_actions_that_are_choices(values: tuple[int, ...], listed: str) -> None:
    data = make([100_000])
    data.actions[:, 1] = np.random.default_rng(0).choice(values, 100_000)
    (found,) = told(data)
    assert f"actions are a few whole numbers only (dimension 1: {listed}); a policy gives numbers in between" in found


def test_numbers_of_a_few_rows_and_halves_and_many_whole_numbers_are_no_choices() -> None:
    few = make([15])
    few.actions[:, 1] = np.arange(15) % 3
    halves, many = make([70_000]), make([70_000])
    halves.actions[:, 1] = (np.arange(70_000) % 3) / 2
    many.actions[:, 1] = np.arange(70_000) // 1000
    assert [finding for data in (few, halves, many) for finding in check_ranges(data)] == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="skipped: the shared example datasets are not on this machine")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.hdf5")), ids=lambda path: path.stem)
def test_nothing_is_said_about_the_gym_sets(path: Path) -> None:
    assert list(check_ranges(load_dataset(path))) == []
