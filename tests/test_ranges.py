"""What scales a dataset: today's numbers where the data are sound, and the rest of the data where some of them are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_factory import make
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ractd.data import OfflineDataset, load_dataset
from ractd.data.ranges import BLOCK_ROWS, Floats, ranges, statistics_of

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
KINDS = ("medium-replay", "medium", "medium-expert")
GYM = [f"{robot}-{kind}" for robot in ("hopper", "walker2d", "halfcheetah") for kind in KINDS]
ROWS = 10_000


def plain_statistics(observations: Floats, actions: Floats) -> list[Floats]:
    """Mean and std of observations, lowest and highest action, as version 0.1 computed them for data without constants."""
    blocks = [observations[start : start + BLOCK_ROWS] for start in range(0, len(observations), BLOCK_ROWS)]
    mean = sum((block.sum(axis=0, dtype=np.float64) for block in blocks), np.zeros(observations.shape[1]))
    mean = mean / len(observations)
    variance = sum(((block - mean) ** 2).sum(axis=0) for block in blocks) / len(observations)
    return [mean.astype(np.float32), np.sqrt(variance).astype(np.float32), actions.min(axis=0), actions.max(axis=0)]


def assert_plain(data: OfflineDataset) -> None:
    found = data.statistics()
    scales = (found.observation_mean, found.observation_std, found.action_low, found.action_high)
    for mine, plain in zip(scales, plain_statistics(data.observations, data.actions), strict=True):
        assert mine.dtype == np.float32
        assert mine.tobytes() == plain.tobytes()
    assert found.observation_low.tobytes() == data.observations.min(axis=0).tobytes()
    assert found.observation_high.tobytes() == data.observations.max(axis=0).tobytes()
    assert not found.observation_outliers.any()
    assert not found.action_outliers.any()


@pytest.mark.skipif(not SHARED.is_dir(), reason="skipped: the shared example datasets are not on this machine")
@pytest.mark.parametrize("name", GYM)
def test_the_gym_sets_keep_their_statistics_to_the_bit(name: str) -> None:
    assert_plain(load_dataset(SHARED / f"{name}.hdf5"))


@pytest.mark.parametrize("size", ["umaze", "medium", "large"])
def test_the_mazes_keep_their_statistics_to_the_bit(size: str, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    from ractd.envs.maze.maps import MAZES
    from ractd.recipes.mazes import make_maze_dataset

    assert_plain(load_dataset(make_maze_dataset(MAZES[f"maze2d-{size}"], transitions=20_000, directory=tmp_path)))


# --- outliers ----------------------------------------------------------------------------------------------------

LEGITIMATE: dict[str, Callable[[np.random.Generator, int], NDArray[Any]]] = {
    "Gaussian": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "bimodal": lambda rng, n: np.where(rng.random(n) < 0.5, -50, 50) + rng.normal(size=n),
    "unequal modes": lambda rng, n: np.where(rng.random(n) < 0.02, 1000, 0) + rng.normal(size=n),
    "log-normal": lambda rng, n: np.exp(rng.normal(size=n)),
    "Student's t, 3": lambda rng, n: rng.standard_t(3, size=n),
    "half constant": lambda rng, n: np.where(np.arange(n) % 2, rng.normal(size=n), 0),
    "clipped": lambda rng, n: np.clip(5 * rng.normal(size=n), -1, 1),
    "a switch, on in 0.1%": lambda rng, n: np.arange(n) % 1000 == 7,
    "a switch of 85, on in 0.1%": lambda rng, n: 85.0 * (np.arange(n) % 1000 == 7),
    "a noisy switch, on in 0.2%": lambda rng, n: (np.arange(n) % 500 == 7) + 0.01 * rng.normal(size=n),
    "contacts of 2 kN in 0.5%": lambda rng, n: np.where(np.arange(n) % 200 == 7, 2000 * rng.random(n), 0),
    "constant": lambda rng, n: np.full(n, 0.04),
    "a large offset": lambda rng, n: 1e6 + rng.normal(size=n) * 100,
}


@pytest.mark.parametrize("kind", LEGITIMATE)
@pytest.mark.parametrize("rows", [15, 1000, ROWS, 200_000])
def test_what_a_sound_dimension_may_be_is_kept_whole(kind: str, rows: int) -> None:
    if rows == 1000 and kind.startswith(("a noisy switch", "a switch of", "contacts")):
        pytest.skip("skipped: in so few rows no data can tell it from a glitch")
    for seed in range(3):
        column = LEGITIMATE[kind](np.random.default_rng(seed), rows).astype(np.float32)
        low, high, outliers = ranges(column[:, None])
        assert (low[0], high[0], outliers[0]) == (column.min(), column.max(), 0)


@pytest.mark.parametrize("kind", [kind for kind in LEGITIMATE if "switch of" not in kind])
@pytest.mark.parametrize("glitches", [[1e9], [-1e9], [1e8] * 10, [3e38, -3e38], list(np.linspace(1e7, 1e9, 10))])
@pytest.mark.parametrize("rows", [ROWS, 200_000])
def test_outliers_change_nothing_for_the_rest(kind: str, glitches: list[float], rows: int) -> None:
    rng = np.random.default_rng(0)
    sound = LEGITIMATE[kind](rng, rows).astype(np.float32)
    if len(glitches) > 1 and len(set(glitches)) == 1 and kind in ("constant", "a switch, on in 0.1%"):
        pytest.skip("skipped: two levels are a switch for all that the data say")
    at = rng.choice(rows, len(glitches), replace=False)
    at = at[sound[at] == np.median(sound)] if kind.startswith(("a switch", "contacts")) else at
    glitches = glitches[: len(at)]
    rest = np.delete(sound, at)
    broken = sound.copy()
    broken[at] = glitches
    low, high, outliers = ranges(broken[:, None])
    assert (low[0], high[0], outliers[0]) == (rest.min(), rest.max(), len(glitches))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**20),
    st.integers(100, 3000),
    st.floats(1e-3, 1e3),
    st.floats(-1e3, 1e3),
    st.floats(50, 1e6),
    st.booleans(),
)
def test_a_lone_glitch_is_left_out_in_any_unit(
    seed: int, rows: int, scale: float, offset: float, widths: float, below: bool
) -> None:
    rng = np.random.default_rng(seed)
    offset *= scale
    column = (offset + scale * rng.uniform(-1, 1, rows)).astype(np.float32)
    rest, glitch = column[1:].copy(), np.float32(offset + (-1 if below else 1) * 2 * scale * widths)
    column[0] = glitch
    low, high, outliers = ranges(column[:, None])
    assert (low[0], high[0], outliers[0]) == (rest.min(), rest.max(), 1)


def test_a_dimension_with_outliers_leaves_the_others_to_the_bit() -> None:
    data = make([ROWS], obs=4, act=3)
    expected = plain_statistics(data.observations, data.actions)
    data.observations[17, 2], data.actions[18, 1] = 1e9, -1e4
    mean, std, low, high = plain_statistics(
        np.delete(data.observations, 17, axis=0), np.delete(data.actions, 18, axis=0)
    )
    found = data.statistics()
    others = [0, 1, 3]
    assert found.observation_mean[others].tobytes() == expected[0][others].tobytes()
    assert found.observation_std[others].tobytes() == expected[1][others].tobytes()
    np.testing.assert_allclose(found.observation_mean[2], mean[2], rtol=1e-4)
    np.testing.assert_allclose(found.observation_std[2], std[2], rtol=1e-5)
    assert found.action_low[1] == low[1]
    assert found.action_high[1] == high[1]
    assert found.observation_outliers.tolist() == [0, 0, 1, 0]
    assert found.action_outliers.tolist() == [0, 1, 0]


def test_few_rows_have_no_outliers_since_they_have_no_bulk() -> None:
    column = np.zeros((50, 1), np.float32)
    column[3] = 1e9
    assert [int(x[0]) for x in ranges(column)] == [0, 1_000_000_000, 0]


# --- constants ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constant", [0.0, 0.04, -0.1, 1.0, 1e-30, -3e4, 1e9, 3e38])
def test_a_constant_action_has_itself_as_its_range(constant: float) -> None:
    actions = np.full((200, 2), constant, np.float32)
    actions[:, 1] = np.linspace(-1, 1, 200)
    found = statistics_of(np.zeros((200, 1), np.float32), actions)
    assert found.action_low[0] == found.action_high[0] == np.float32(constant)
    assert (found.action_low[1], found.action_high[1]) == (-1, 1)


@pytest.mark.parametrize("middle", [1.0, -40.0, 1e6])
def test_an_action_that_only_rounding_moves_is_constant(middle: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 1000)
    actions = (middle + 1e-6 * middle * noise).astype(np.float32)[:, None]
    found = statistics_of(actions, actions)
    assert found.action_low == found.action_high == pytest.approx(middle, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e-3])
def test_small_actions_are_no_constants(unit: float) -> None:
    actions = (unit * np.random.default_rng(0).uniform(-1, 1, (1000, 1))).astype(np.float32)
    found = statistics_of(actions, actions)
    assert (found.action_low, found.action_high) == (actions.min(), actions.max())


@pytest.mark.parametrize(("mean", "std"), [(0, 1e-9), (0, 9e-6), (1, 1e-6), (1, 0), (-1000, 1e-3), (1e6, 5)])
def test_the_noise_of_a_near_constant_observation_is_not_magnified(mean: float, std: float) -> None:
    observations = (mean + std * np.random.default_rng(0).normal(size=(1000, 1))).astype(np.float32)
    found = statistics_of(observations, np.zeros((1000, 1), np.float32))
    assert found.observation_std == 1
    assert np.abs(observations - found.observation_mean).max() <= max(5 * std, 1e-6 * abs(mean))


@pytest.mark.parametrize(("mean", "std"), [(0, 2e-5), (1, 1e-4), (1e5, 10)])
def test_a_small_signal_is_standardised(mean: float, std: float) -> None:
    observations = (mean + std * np.random.default_rng(0).normal(size=(1000, 1))).astype(np.float32)
    found = statistics_of(observations, np.zeros((1000, 1), np.float32))
    assert found.observation_std == pytest.approx(observations.std(dtype=np.float64), rel=1e-5)


def test_the_statistics_of_millions_of_rows_take_no_copy_of_them() -> None:
    import tracemalloc

    observations = np.random.default_rng(0).random((1_000_000, 8), np.float32)
    tracemalloc.start()
    ranges(observations)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < observations.nbytes * 3 / 8
