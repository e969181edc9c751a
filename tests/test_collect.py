import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ractd.data.registry import load_dataset
from ractd.data.scores import rebuilt_recipe
from ractd.envs import GymnasiumVector, make_vector
from ractd.envs.seeds import BEHAVIOR, CHECKPOINT, CONFIRMATION, FINAL, environment_seed
from ractd.errors import RactdError
from ractd.recipes.behaviors import load_actors, sac_actor
from ractd.recipes.collect import Snapshot, actor_weights, collect, pick_medium

STEPS, ROWS = 230, 500
Collected = tuple[Path, list[Path], dict[str, tuple[int, int]]]
"""The folder, the files and how far each stage came."""
BACKENDS = (make_vector, GymnasiumVector)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    pytest.importorskip("stable_baselines3", reason="the extra 'collect' is not installed")
    folder = tmp_path_factory.mktemp("collected")
    stages: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        assert done >= stages.get(stage, (0, 0))[0]
        stages[stage] = (done, total)

    paths = collect(
        "Pendulum-v1",
        steps=STEPS,
        transitions=ROWS,
        checkpoints=2,
        episodes=2,
        hidden=(8, 8),
        directory=folder,
        progress=progress,
    )
    return folder, paths, stages


def test_four_datasets_are_written(collected: Collected) -> None:
    folder, paths, stages = collected
    kinds = ["medium-replay", "medium", "expert", "medium-expert"]
    assert [path.name for path in paths] == [f"pendulum-v1-{kind}.hdf5" for kind in kinds]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(path.name for path in paths), "pendulum-v1-actors.safetensors"]
    )
    assert stages == {"training": (STEPS, STEPS), "medium": (ROWS, ROWS), "expert": (ROWS, ROWS)}
    sets = {kind: load_dataset(path) for kind, path in zip(kinds, paths, strict=True)}
    assert sets["medium-replay"].num_transitions in (STEPS // 2, STEPS)
    assert sets["medium"].num_transitions == sets["expert"].num_transitions == ROWS
    assert sets["medium-expert"].num_transitions == 2 * ROWS
    np.testing.assert_array_equal(sets["medium-expert"].rewards[:ROWS], sets["medium"].rewards)
    np.testing.assert_array_equal(sets["medium-expert"].actions[ROWS:], sets["expert"].actions)
    for kind, dataset in sets.items():
        assert dataset.recipe.startswith(rebuilt_recipe(kind, ""))
        assert dataset.env_id == "Pendulum-v1"
        assert "not D4RL's data" in dataset.recipe
        # Pendulum never terminates: each episode ends after 200 steps or where the dataset is cut.
        assert not dataset.terminals.any()
        assert (dataset.episode_lengths <= 200).all()
        assert dataset.timeouts[-1]
        assert 1 < np.abs(dataset.actions).max() <= 2  # in the environment's units
    with h5py.File(paths[0]) as file:
        assert file.attrs["seed"] == 0
        inside = ~file["timeouts"][:][:-1]
        np.testing.assert_allclose(file["observations"][1:][inside], file["next_observations"][:-1][inside], atol=1e-6)
        # The logged reward is that of the logged action, so actions are unscaled rightly.
        x, y, speed = file["observations"][:].T
        cost = np.arctan2(y, x) ** 2 + 0.1 * speed**2 + 0.001 * file["actions"][:, 0] ** 2
        np.testing.assert_allclose(file["rewards"][:], -cost, atol=1e-3)


def test_no_episode_starts_as_one_that_scores_a_policy_or_chose_it(collected: Collected) -> None:
    """Whichever backend scores: SAC trains on Gymnasium, data is rolled out and policies are scored on EnvPool where it can."""
    scoring = [
        make("Pendulum-v1", 100, first).reset() for make in BACKENDS for first in (FINAL, CHECKPOINT, CONFIRMATION)
    ]
    scoring += [make("Pendulum-v1", 2, environment_seed(0, BEHAVIOR)).reset() for make in BACKENDS]
    seen = {row.tobytes() for row in np.concatenate(scoring)}
    assert len(seen) == len(BACKENDS) * 302, "starts differ by their seeds"
    for path in collected[1]:
        dataset = load_dataset(path)
        starts = dataset.observations[np.r_[0, dataset.episode_ends[:-1]]]
        assert not {row.tobytes() for row in starts} & seen, path.name
    medium, expert = (load_dataset(path).observations[0] for path in collected[1][1:3])
    assert not np.array_equal(medium, expert), "each dataset has starts of its own"


def test_the_kept_actors_are_stable_baselines_own() -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="the extra 'collect' is not installed")
    model = sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8, 7]}, buffer_size=10)
    weights = actor_weights(model.actor.state_dict())
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected, _ = model.predict(observations, deterministic=True)
    ours = sac_actor(weights, np.random.default_rng(0), noise=0)(observations, np.arange(5))
    np.testing.assert_allclose(2 * ours, expected, atol=1e-5)  # Pendulum's bounds are -2 and 2


def test_actors_file_opens_like_the_packaged_ones(collected: Collected) -> None:
    actors = load_actors(collected[0] / "pendulum-v1-actors.safetensors")
    assert list(actors) == ["medium", "expert"]
    assert actors["expert"]["hidden_0.weight"].shape == (3, 8)


def test_medium_is_a_third_of_the_way() -> None:
    def at(*returns: float) -> list[Snapshot]:
        return [Snapshot(step, value, {}) for step, value in enumerate(returns)]

    assert pick_medium(at(0, 20, 35, 90, 100), 0).step == 2
    assert pick_medium(at(-1400, -1200, -900, -150), -1500).step == 2  # negative returns: from the random policy's
    assert pick_medium(at(50, 10, 5), 20).step == 0  # a run that got worse still gives something
    assert pick_medium(at(3), 0).step == 0


def test_interrupted_training_leaves_no_files(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="the extra 'collect' is not installed")

    def stop(stage: str, done: int, total: int) -> None:
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect("Pendulum-v1", steps=100, episodes=1, directory=tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3", reason="the extra 'collect' is not installed")
    with pytest.raises(RactdError, match="needs continuous actions"):
        collect("CartPole-v1", directory=tmp_path)
    with pytest.raises(RactdError, match="at least 1"):
        collect("Pendulum-v1", steps=0, directory=tmp_path)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(RactdError, match=r'pip install "ractd\[collect\]"'):
        collect("Pendulum-v1", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []
