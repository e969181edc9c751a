"""Maze datasets: what is in them, that they are D4RL's layout, the same bytes again, and nothing after a failure."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import ENV_ID, Answer, pendulum_data
from dataset_factory import make

from ractd import validate
from ractd.data import list_datasets, load_dataset, summarize, write_hdf5
from ractd.data.dataset import OfflineDataset
from ractd.envs import evaluate
from ractd.envs.environments import environments_of
from ractd.envs.maze import MAZES, maze_of, parse_maze
from ractd.envs.maze.physics import PointMass
from ractd.errors import RactdError
from ractd.recipes.mazes import make_maze_dataset, transitions_of

pytest.importorskip("mujoco")

UMAZE = MAZES["maze2d-umaze"]
OWN = parse_maze("######\n#S..G#\n#.##.#\n#....#\n######", "mine")
ROWS = 76_900  # 257 episodes of 300 steps, the last one cut


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACTD_DATA", str(tmp_path / "made"))


@pytest.fixture(scope="module")
def umaze(tmp_path_factory: pytest.TempPathFactory) -> OfflineDataset:
    return load_dataset(make_maze_dataset(UMAZE, transitions=ROWS, directory=tmp_path_factory.mktemp("umaze")))


def test_layout_is_d4rls(umaze: OfflineDataset) -> None:
    with h5py.File(umaze.source) as file:
        assert set(file) == {"observations", "actions", "rewards", "terminals", "timeouts", "infos"}
        shapes = {name: file[name].shape for name in ("observations", "actions", "rewards", "infos/goal")}
        assert shapes == dict(zip(shapes, [(ROWS, 4), (ROWS, 2), (ROWS,), (ROWS, 2)], strict=True))
        assert file.attrs["env_id"] == "ractd/maze2d-umaze"
        assert file.attrs["maze"] == UMAZE.text
        assert (file.attrs["ref_min_score"], file.attrs["ref_max_score"]) == (23.85, 161.86)
        assert "not D4RL's data" in file.attrs["recipe"]
    assert maze_of(umaze) is UMAZE
    assert umaze.maze == UMAZE.text
    assert not umaze.terminals.any()
    np.testing.assert_array_equal(umaze.episode_lengths, [300] * 256 + [100])
    assert umaze.timeouts[-1]
    assert validate(umaze) == []
    assert summarize(umaze)["score"]["mean"] < 50


def test_every_row_is_a_step_of_the_environment(umaze: OfflineDataset) -> None:
    physics = PointMass(UMAZE, threads=1)
    after = physics.step(umaze.observations.astype(np.float64), umaze.actions)
    physics.close()
    gap = np.abs(after[:-1] - umaze.observations[1:]).max(axis=1)
    # Points run on without a reset: only where the file goes on to another point does the next row not follow.
    breaks = np.flatnonzero(gap > 1e-4)
    assert len(breaks) == 128  # 257 episodes at once are more than 256, so 129 points run, for two or one
    assert umaze.timeouts[breaks].all()
    assert len(umaze.episode_ends) > len(breaks) + 1
    near = np.linalg.norm(after[:, :2] - UMAZE.goal, axis=1) <= 0.5
    disagree = umaze.rewards != near
    assert disagree.mean() < 1e-4  # float32 observations may round across the edge
    assert 0.02 < umaze.rewards.mean() < 0.5


def test_goals_change_where_they_are_reached(umaze: OfflineDataset) -> None:
    assert umaze.goals is not None
    assert umaze.goals.shape == (ROWS, 2)
    numbers = UMAZE.number_of(umaze.goals)
    assert set(numbers) == set(range(7))
    assert np.abs(umaze.goals - UMAZE.cells[numbers]).max() <= 0.1 + 1e-6
    changed = (umaze.goals[1:] != umaze.goals[:-1]).any(axis=1) & ~umaze.timeouts[:-1]
    rows = np.flatnonzero(changed)
    gap = np.linalg.norm(umaze.observations[rows, :2] - umaze.goals[rows], axis=1)
    assert gap.max() < 0.1 + 1e-6
    assert 40 < ROWS / len(rows) < 120  # steps for a goal; D4RL's file has about 80


def test_points_stay_out_of_walls_and_go_everywhere(umaze: OfflineDataset) -> None:
    numbers = UMAZE.number_of(umaze.observations[:, :2])
    assert numbers.min() == 0
    share = np.bincount(numbers, minlength=7) / ROWS
    assert share.min() > 0.03
    # Noise fills in what the controller leaves: it is on all of its actions, and they are clipped.
    assert np.abs(umaze.actions).max() == 1
    assert len(np.unique(umaze.actions[np.abs(umaze.actions[:, 0]) < 1, 0])) > 1000


def test_same_seed_same_bytes_whatever_the_threads(tmp_path: Path) -> None:
    def bytes_of(folder: str, **options: Any) -> bytes:
        return make_maze_dataset(OWN, transitions=3_333, directory=tmp_path / folder, **options).read_bytes()

    one = bytes_of("a", threads=1)
    assert bytes_of("b", threads=1) == one
    assert bytes_of("c", threads=3) == one
    assert bytes_of("d", seed=1, threads=1) != one


@pytest.mark.parametrize("rows", [1, 299, 300, 301, 900])
def test_any_size(rows: int, tmp_path: Path) -> None:
    data = load_dataset(make_maze_dataset(OWN, transitions=rows, directory=tmp_path))
    assert data.num_transitions == rows
    assert data.episode_lengths.max() <= 300
    assert data.num_episodes == -(-rows // 300)
    with pytest.raises(RactdError, match="0 transitions are asked for"):
        make_maze_dataset(OWN, transitions=0, directory=tmp_path)


def test_default_sizes() -> None:
    assert [transitions_of(maze) for maze in MAZES.values()] == [1_000_000, 2_000_000, 4_000_000]
    assert transitions_of(OWN) == 1_000_000
    assert transitions_of(parse_maze(MAZES["maze2d-medium"].text, "copy")) == 2_600_000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(
    umaze: OfflineDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ractd.recipes.mazes.MAX_RUNS", 40)

    def peak(rows: int) -> int:
        tracemalloc.start()
        make_maze_dataset(UMAZE, transitions=rows, directory=tmp_path, threads=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(40 * 300), peak(6 * 40 * 300)
    assert few > 40 * 300 * 9 * 4  # a block of rows is what it holds
    assert many < 1.1 * few


def test_nothing_is_left_after_an_interruption(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_maze_dataset(OWN, transitions=600, directory=tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    seen = []
    make_maze_dataset(
        UMAZE, transitions=600, directory=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (600, 600)


@pytest.mark.parametrize("name", ["maze2d-umaze", "hopper-mixed", "maze2d-umaze-v1"])
def test_an_own_maze_can_not_take_another_datasets_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(RactdError, match=f"{name!r} is another dataset's name"):
        make_maze_dataset(parse_maze(OWN.text, name), transitions=10, directory=tmp_path)
    with pytest.raises(RactdError, match=r"'\.\./x' can't be the name of a dataset"):
        make_maze_dataset(parse_maze(OWN.text, "../x"), transitions=10, directory=tmp_path)


def test_an_own_maze_travels_in_its_dataset(tmp_path: Path) -> None:
    path = make_maze_dataset(OWN, transitions=600, directory=tmp_path)
    moved = path.rename(tmp_path / "renamed.hdf5")
    data = load_dataset(moved)
    assert (data.name, data.env_id) == ("renamed", "ractd/maze/mine")
    assert maze_of(data) == OWN
    assert data.env_id is not None
    assert validate(data) == []
    still = evaluate(
        lambda seen: np.zeros((len(seen), 1, 2)), data.env_id, episodes=2, make=environments_of(data, data.source)
    )
    assert still.lengths.tolist() == [300, 300]
    with h5py.File(moved, "r+") as file:
        file.attrs["maze"] = OWN.text.replace("G", ".")
    with pytest.raises(RactdError, match=r"renamed\.hdf5, attribute 'maze': the map has no goal"):
        maze_of(load_dataset(moved))
    other = pendulum_data(100)
    assert maze_of(other) is None
    assert environments_of(other, other.source)(ENV_ID, 1, 0).backend == "envpool"


def test_goals_and_map_are_written_and_read(tmp_path: Path) -> None:
    plain = make((4, 4))
    goals = np.arange(16, dtype=np.float32).reshape(8, 2)
    fields = {name: getattr(plain, name) for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    data = OfflineDataset("toy", **fields, env_id="ractd/maze/mine", maze=OWN.text, goals=goals)
    write_hdf5(tmp_path / "toy.hdf5", data)
    again = load_dataset(tmp_path / "toy.hdf5")
    np.testing.assert_array_equal(again.goals, goals)
    assert again.maze == OWN.text
    assert again.fingerprint == data.fingerprint != plain.fingerprint
    assert plain.goals is None
    with h5py.File(tmp_path / "toy.hdf5", "r+") as file:
        del file["infos/goal"]
        file["infos/goal"] = goals[:5]
    with pytest.raises(RactdError, match=r"fields have different lengths \(.*infos/goal 5\)"):
        load_dataset(tmp_path / "toy.hdf5")
    with pytest.raises(RactdError, match="'goals' has shape"):
        OfflineDataset("toy", **fields, goals=goals[:, 0])


def test_commands(cli: Callable[..., Answer], tmp_path: Path) -> None:
    answer = cli("data", "make", "maze2d-umaze", "--steps", "700", "--seed", "3")
    assert answer.code == 0, answer.err
    data = load_dataset("maze2d-umaze")
    assert (data.num_transitions, data.env_id) == (700, "ractd/maze2d-umaze")
    assert [row.present for row in list_datasets() if row.name.startswith("maze2d-") and row.kind == "recipe"] == [
        True,
        False,
        False,
    ]
    map_file = tmp_path / "mine.txt"
    map_file.write_text(OWN.text)
    assert cli("data", "make", "mine", "--maze", map_file, "--steps", "300").code == 0
    assert maze_of(load_dataset("mine")) == OWN
    assert "is there already" in cli("data", "make", "mine", "--maze", map_file).out
    assert "#S..G#" in cli("data", "inspect", "mine").out
    assert cli("data", "validate", "mine").code == 0

    map_file.write_text(OWN.text.replace("G", "#"))
    for arguments, message in {
        ("bad", "--maze", map_file): "mine.txt: the map has no goal; mark one cell with G",
        ("maze2d-umaze", "--maze", map_file): "mine.txt: the map has no goal",
        ("bad", "--maze", tmp_path / "none.txt"): "none.txt: can't be read",
        ("maze2d-umaze", "--overwrite", "--steps", "0"): "--steps is 0, expected at least 1",
        ("maze2d-umaz",): "did you mean 'maze2d-umaze'?",
    }.items():
        answer = cli("data", "make", *arguments)
        assert (answer.code, message in answer.err.replace("\n", "")) == (2, True), answer.err
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["maze2d-umaze.hdf5", "mine.hdf5"]
