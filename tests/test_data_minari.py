"""Minari: local datasets as D4RL's fields, remote ones' failures as one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ractd.data import load_dataset
from ractd.data.minari import flatten
from ractd.errors import RactdError


def minari_dataset(
    folder: Path, monkeypatch: pytest.MonkeyPatch, space: Any, draw: Any, dataset_id: str, dtype: Any = np.float32
) -> list[Any]:
    minari = pytest.importorskip("minari")
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    rng = np.random.default_rng(0)
    buffers = []
    for episode, length in enumerate([4, 1, 6]):
        steps = [draw(rng) for _ in range(length + 1)]
        buffer = EpisodeBuffer(
            id=episode,
            seed=episode,
            observations=_stack(steps),
            actions=[rng.uniform(-1, 1, 2).astype(dtype) for _ in range(length)],
            rewards=[float(x) for x in rng.normal(size=length)],
            terminations=[False] * (length - 1) + [episode == 0],
            truncations=[False] * (length - 1) + [episode == 1],
            infos={},
        )
        buffers.append(buffer)
    minari.create_dataset_from_buffers(
        dataset_id,
        buffer=buffers,
        observation_space=space,
        action_space=spaces.Box(-1, 1, (2,), dtype),
        algorithm_name="none",
        author="test",
        author_email="t@example.org",
        code_permalink="https://example.org",
        description="a test",
    )
    return buffers


def _stack(steps: list[Any]) -> Any:
    if isinstance(steps[0], dict):
        return {key: _stack([step[key] for step in steps]) for key in steps[0]}
    return steps


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dataset_id", ["toy/box-v0", "box-v0"])
def test_minari_boxes(tmp_path, monkeypatch, dataset_id):
    from gymnasium import spaces

    box = spaces.Box(-10, 10, (3,), np.float64)
    buffers = minari_dataset(tmp_path, monkeypatch, box, lambda rng: rng.normal(size=3), dataset_id)
    data = load_dataset(dataset_id, env_id="Mine-v0")
    assert (data.name, data.env_id, data.source) == (dataset_id, "Mine-v0", f"Minari {dataset_id}")
    assert data.episode_lengths.tolist() == [4, 1, 6]
    expected = np.concatenate([np.asarray(b.observations)[:-1] for b in buffers]).astype(np.float32)
    np.testing.assert_array_equal(data.observations, expected)
    np.testing.assert_array_equal(data.actions, np.concatenate([b.actions for b in buffers]))
    np.testing.assert_allclose(data.rewards, np.concatenate([b.rewards for b in buffers]), rtol=1e-6)
    assert np.flatnonzero(data.terminals).tolist() == [3]
    # The last episode was cut off without a flag: its end is known all the same.
    assert np.flatnonzero(data.timeouts).tolist() == [4, 10]


@pytest.mark.filterwarnings("ignore")
def test_minari_boxes_of_integers_are_no_actions(tmp_path, monkeypatch):
    from gymnasium import spaces

    box = spaces.Box(-10, 10, (3,), np.float64)
    minari_dataset(tmp_path, monkeypatch, box, lambda rng: rng.normal(size=3), "toy/integers-v0", np.int64)
    with pytest.raises(RactdError, match=r"Minari toy/integers-v0: field 'actions' has dtype int64, expected float32"):
        load_dataset("toy/integers-v0")


@pytest.mark.filterwarnings("ignore")
def test_minari_dicts_are_flattened_in_gymnasiums_order(tmp_path, monkeypatch):
    from gymnasium import spaces

    space = spaces.Dict(
        {
            "z": spaces.Box(-10, 10, (2,), np.float64),
            "a": spaces.Dict({"q": spaces.Box(-10, 10, (1, 2), np.float64), "k": spaces.Discrete(3)}),
        }
    )

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        return {
            "z": rng.normal(size=2),
            "a": {"q": rng.normal(size=(1, 2)), "k": np.int64(rng.integers(3))},
        }

    buffers = minari_dataset(tmp_path, monkeypatch, space, draw, "toy/dict-v3")
    data = load_dataset("toy/dict-v3")
    first = buffers[0].observations
    for row in range(4):
        one = {"z": first["z"][row], "a": {"q": first["a"]["q"][row], "k": first["a"]["k"][row]}}
        np.testing.assert_allclose(data.observations[row], spaces.flatten(space, one), rtol=1e-6)


def test_spaces_without_numbers_are_refused():
    from gymnasium import spaces

    with pytest.raises(RactdError, match="can't be flattened"):
        flatten(spaces.Text(5), ["a", "b"])


def test_minari_download_failures_are_one_sentence(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for error, message in [
        (ValueError("Couldn't find any version"), "Minari has no dataset 'a/b-v0': Couldn't find"),
        (ConnectionError("Name or service not known"), r"could not download 'a/b-v0' \(ConnectionError: Name.*network"),
    ]:

        def fail(dataset_id: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(minari, "download_dataset", fail)
        with pytest.raises(RactdError, match=message):
            load_dataset("a/b-v0")


def test_minari_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(RactdError, match=r"pip install 'ractd\[minari\]'"):
        load_dataset("mujoco/hopper/medium-v0")
