import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ractd.data.registry import load_dataset
from ractd.envs import make_vector
from ractd.envs.rollout import rollout
from ractd.errors import RactdError
from ractd.recipes import make_dataset
from ractd.recipes.behaviors import (
    RECIPES,
    Stretch,
    load_actors,
    mixture,
    run_recipe,
    sac_actor,
    uniform_policy,
)

pytest.importorskip("envpool")
SMALL = 8_000


def digest(path: Path) -> str:
    with h5py.File(path) as file:
        return hashlib.sha256(b"".join(file[key][:].tobytes() for key in sorted(file))).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    calls: list[tuple[int, int]] = []
    path = make_dataset(
        "hopper-mixed",
        transitions=SMALL,
        directory=tmp_path_factory.mktemp("made"),
        progress=lambda done, total: calls.append((done, total)),
    )
    return path, calls


def test_file_is_complete_and_in_d4rls_layout(made: tuple[Path, list[tuple[int, int]]]) -> None:
    path, calls = made
    assert path.name == "hopper-mixed.hdf5"
    assert calls == sorted(calls)
    assert calls[-1] == (SMALL, SMALL)
    with h5py.File(path) as file:
        assert {key: file[key].shape for key in file} == {
            "observations": (SMALL, 11),
            "actions": (SMALL, 3),
            "next_observations": (SMALL, 11),
            "rewards": (SMALL,),
            "terminals": (SMALL,),
            "timeouts": (SMALL,),
        }
        assert file.attrs["env_id"] == "Hopper-v5"
        assert file.attrs["seed"] == 0
        assert (file.attrs["ref_min_score"], file.attrs["ref_max_score"]) == (-20.272305, 3234.3)
        assert "hopper-mixed" in file.attrs["recipe"]
        terminals, timeouts = file["terminals"][:], file["timeouts"][:]
        assert terminals[-1] or timeouts[-1]
        assert not (terminals & timeouts).any()
        inside = ~(terminals | timeouts)[:-1]
        np.testing.assert_array_equal(file["observations"][1:][inside], file["next_observations"][:-1][inside])
        assert np.abs(file["actions"][:]).max() <= 1
    dataset = load_dataset(path)
    assert dataset.env_id == "Hopper-v5"
    assert os.listdir(path.parent) == ["hopper-mixed.hdf5"]


def test_statistics_resemble_medium_replay(made: tuple[Path, list[tuple[int, int]]]) -> None:
    # In small, where the shares of the schedule are the same: many falls, a few episodes that reach thousands.
    dataset = load_dataset(made[0])
    returns = dataset.episode_returns()
    assert 25 < np.median(returns) < 330
    assert 150 < returns.mean() < 800
    assert returns.max() > 1_500
    assert (returns < 400).mean() > 0.6


@pytest.mark.slow
def test_whole_recipe_matches_a_sac_replay(tmp_path: Path) -> None:
    dataset = load_dataset(make_dataset("hopper-mixed", directory=tmp_path))
    returns = dataset.episode_returns()
    assert dataset.num_transitions == 200_000
    assert 11 < 100 * (returns.mean() + 20.272305) / (3234.3 + 20.272305) < 17
    assert returns.max() > 3_000
    assert 900 < len(returns) < 1_500
    assert 900 < np.average(returns, weights=dataset.episode_lengths) < 1_400


def test_same_seed_same_bits_other_seed_other_bits(made: tuple[Path, list[tuple[int, int]]], tmp_path: Path) -> None:
    again = make_dataset("hopper-mixed", transitions=SMALL, directory=tmp_path / "again")
    assert digest(again) == digest(made[0])
    # Another process, with one BLAS thread.
    code = (
        "import sys; from ractd.recipes import make_dataset;"
        f"make_dataset('hopper-mixed', transitions={SMALL}, directory=sys.argv[1])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "fresh")], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert digest(tmp_path / "fresh" / "hopper-mixed.hdf5") == digest(made[0])
    other = make_dataset("hopper-mixed", transitions=SMALL, seed=1, directory=tmp_path / "other")
    assert digest(other) != digest(made[0])


def test_default_directory_is_the_dataset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACTD_DATA", str(tmp_path))
    assert make_dataset("hopper-mixed", transitions=300) == tmp_path / "hopper-mixed.hdf5"
    assert load_dataset("hopper-mixed").num_transitions == 300


def test_bad_input_and_a_failure_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RactdError, match=r"recipe 'hopper-mixd', expected one of .*; did you mean 'hopper-mixed'\?"):
        make_dataset("hopper-mixd")
    with pytest.raises(RactdError, match="expected one of hopper-mixed"):
        make_dataset("zzz")
    with pytest.raises(RactdError, match="at least 1"):
        make_dataset("hopper-mixed", transitions=0, directory=tmp_path)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset("hopper-mixed", transitions=3_000, directory=tmp_path, progress=stop)
    assert os.listdir(tmp_path) == []


def test_recipes_are_sound() -> None:
    for recipe in RECIPES.values():
        assert sum(stage.share for stage in recipe.schedule) == pytest.approx(1)
        actors = load_actors(recipe.assets)
        env = make_vector(recipe.env_id, 1, 0)
        named = {name for stage in recipe.schedule for name in (stage.start, stage.end)} - {"random"}
        assert named == set(actors)  # nothing packaged that no recipe uses
        for weights in actors.values():
            assert all(value.dtype == np.float32 for value in weights.values())
            assert weights["hidden_0.weight"].shape[0] == env.observation_dim
            assert weights["mean.weight"].shape[1] == env.action_low.size
        assert env.action_high.max() == 1  # tanh's range is the environment's


def test_actor_is_the_network_its_asset_describes() -> None:
    weights = load_actors("hopper.safetensors")["200000"]
    x = np.random.default_rng(0).normal(size=11).astype(np.float32)
    h = np.maximum(weights["hidden_0.weight"].T @ x + weights["hidden_0.bias"], 0)
    h = np.maximum(weights["hidden_1.weight"].T @ h + weights["hidden_1.bias"], 0)
    expected = np.tanh(weights["mean.weight"].T @ h + weights["mean.bias"])
    other = load_actors("hopper.safetensors")["25000"]
    stacked = {key: np.stack([other[key], weights[key], other[key]]) for key in weights}
    act = sac_actor(stacked, np.random.default_rng(0), noise=0)
    np.testing.assert_allclose(act(x[None].repeat(3, 0), np.arange(3))[1], expected, atol=1e-5)
    np.testing.assert_allclose(act(x[None].repeat(2, 0), np.array([1, 2]))[0], expected, atol=1e-5)


def test_mixture_takes_from_the_second_with_its_share() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat([0, 1], 20_000)
    nothing = np.zeros((len(rows), 1), np.float32)
    shares = np.array([0.25, 1.0])
    act = mixture(lambda o, _: np.zeros((len(o), 2)), lambda o, _: np.ones((len(o), 2)), shares, rng)
    drawn = act(nothing, rows)
    assert drawn[rows == 0].mean() == pytest.approx(0.25, abs=0.02)
    assert drawn[rows == 1].mean() == 1
    assert (drawn[:, 0] == drawn[:, 1]).all()
    uniform = uniform_policy(np.array([-1, 0], np.float32), np.array([1, 5], np.float32), rng)(nothing, rows)
    np.testing.assert_allclose(uniform.mean(0), [0, 2.5], atol=0.05)


def test_rollout_runs_each_environments_episodes_to_their_end() -> None:
    act = lambda o, _: np.full((len(o), 3), 0.1, np.float32)  # noqa: E731
    lengths = np.array([1, 300, 60])
    together = rollout(act, make_vector("Hopper-v5", 3, 5), lengths)
    for i, run in enumerate(together):
        ends = run.episode_ends
        assert ends[-1] == len(run) >= lengths[i]
        assert len(ends) == 1 or ends[-2] < lengths[i]  # no episode begun after the length was reached
        # Alone, the environment would have given the same.
        (alone,) = rollout(act, make_vector("Hopper-v5", 1, 5 + i), lengths[i : i + 1])
        np.testing.assert_array_equal(run.rewards, alone.rewards)
        np.testing.assert_array_equal(run.next_observations, alone.next_observations)
        inside = np.delete(np.arange(len(run)), ends - 1)
        np.testing.assert_array_equal(run.observations[inside + 1], run.next_observations[inside])
    run = together[1]
    cut = run.cut(len(run) - 1)
    assert cut.timeouts[-1]
    assert not cut.terminals[-1]
    assert len(cut) == len(run) - 1
    assert not run.timeouts[-2]


def test_pendulum_ends_by_timeout_only() -> None:
    env = make_vector("Pendulum-v1", 3, 0)
    act = uniform_policy(env.action_low, env.action_high, np.random.default_rng(0))
    for run in rollout(act, env, np.full(3, 200)):
        assert len(run) == 200
        assert run.timeouts.sum() == 1
        assert not run.terminals.any()


def test_a_stage_moves_between_its_ends() -> None:
    recipe = replace(RECIPES["hopper-mixed"], transitions=4_000, wobble=0.0)
    early = run_recipe(replace(recipe, schedule=(Stretch(1.0, "random", "random"),)))
    late = run_recipe(replace(recipe, schedule=(Stretch(1.0, "150000", "150000"),)))
    assert early.terminals.sum() > 20 * max(1, late.terminals.sum())
