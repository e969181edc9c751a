"""Minari: local datasets as D4RL's fields, remote ones' failures as one sentence."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Answer

from ractd.data import load_dataset
from ractd.data.formats.minari import flatten
from ractd.data.formats.network import unreachable
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
            infos={"is_success": np.array([False] * length + [episode == 0])},  # that of the reset comes first
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
def test_minari_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset_id: str) -> None:
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
    assert data.successes is not None
    assert data.final_observations is not None
    assert np.flatnonzero(data.successes).tolist() == [3]
    assert data.ends.counts == {"success": 1, "cut": 2}
    np.testing.assert_allclose(data.final_observations, [np.asarray(b.observations)[-1] for b in buffers], rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_minari_boxes_of_integers_are_no_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium import spaces

    box = spaces.Box(-10, 10, (3,), np.float64)
    minari_dataset(tmp_path, monkeypatch, box, lambda rng: rng.normal(size=3), "toy/integers-v0", np.int64)
    with pytest.raises(RactdError, match=r"Minari toy/integers-v0: field 'actions' has dtype int64, expected float32"):
        load_dataset("toy/integers-v0")


@pytest.mark.filterwarnings("ignore")
def test_minari_dicts_are_flattened_in_gymnasiums_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        one: dict[str, Any] = {"z": first["z"][row], "a": {"q": first["a"]["q"][row], "k": first["a"]["k"][row]}}
        np.testing.assert_allclose(data.observations[row], np.asarray(spaces.flatten(space, one)), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", ["cut", "episode", "rewards", "width"])
def test_a_damaged_minari_dataset_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    from gymnasium import spaces

    minari_dataset(tmp_path, monkeypatch, spaces.Box(-10, 10, (3,)), lambda rng: rng.normal(size=3), "toy/bad-v0")
    path = tmp_path / "toy/bad-v0/data/main_data.hdf5"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        with h5py.File(path, "r+") as file:
            if damage == "width":
                del file["episode_1/observations"]
                file["episode_1/observations"] = np.zeros((2, 2))
            else:
                del file["episode_1" if damage == "episode" else "episode_1/rewards"]
    with pytest.raises(RactdError, match=r"Minari toy/bad-v0: .*download it again") as error:
        load_dataset("toy/bad-v0")
    assert "\n" not in str(error.value)


def test_spaces_without_numbers_are_refused() -> None:
    from gymnasium import spaces

    with pytest.raises(RactdError, match="can't be flattened"):
        flatten(spaces.Text(5), ["a", "b"])


def test_minari_download_failures_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr("ractd.data.formats.minari.unreachable", lambda *_: "")
    for error, message in [
        (ValueError("Couldn't find any version"), "Minari has no dataset 'a/b-v0': Couldn't find"),
        (ConnectionError("Name or service not known"), r"could not download 'a/b-v0' \(ConnectionError: Name.*network"),
    ]:

        def fail(dataset_id: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(minari, "download_dataset", fail)
        with pytest.raises(RactdError, match=message):
            load_dataset("a/b-v0")


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A server that answers everyone the same, or never."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    if answer is not None:
                        connection.recv(4096)
                        connection.sendall(answer)
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def two_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for name in ("mujoco/hopper/medium-v0", "D4RL/door/human-v2"):
        (tmp_path / name / "data").mkdir(parents=True)
    return minari


def test_a_mistyped_id_offline_answers_without_asking_again_and_again(
    two_local: Any, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Answer]
) -> None:
    monkeypatch.setattr(two_local, "download_dataset", lambda *_: pytest.fail("there is nobody to ask"))
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = f"http://127.0.0.1:{gone.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", closed)
    answer = cli("data", "inspect", "mujoco/hoper/medium-v0")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"error: Minari dataset 'mujoco/hoper/medium-v0' is not local, and {closed} can't be reached to download it "
        "([Errno 111] Connection refused); did you mean mujoco/hopper/medium-v0?"
    ]
    with pytest.raises(RactdError, match="`ractd data list` shows the local ones"):
        load_dataset("something/else-v9")
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    with pytest.raises(RactdError, match=r"nonsense can't be reached .*No scheme supplied"):
        load_dataset("something/else-v9")


def test_servers_that_answer_and_that_do_not(two_local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(None) as silent:
        assert "timed out" in unreachable(silent, 0.2)
    with listening(b"no web server\r\n\r\n") as odd:
        assert unreachable(odd, 5)
    for status in (b"200 OK", b"404 Not Found", b"503 Busy"):
        with listening(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as server:
            assert unreachable(server, 5) == ""

    with listening(b"HTTP/1.1 200 OK\r\n\r\n") as plain:
        assert unreachable(plain.replace("http:", "https:"), 5) == "", "it answers, though no certificate"
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    assert unreachable("http://127.0.0.1:1", 5) == ""
    monkeypatch.delenv("all_proxy")
    over = threading.Event()

    def look_up(*_: Any, **__: Any) -> None:
        over.wait(30)
        raise OSError

    monkeypatch.setattr("requests.head", look_up)
    assert "no answer" in unreachable("http://name.that.nobody.finds", -0.9)
    over.set()


def test_a_server_that_answers_is_asked(two_local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(dataset_id: str) -> None:
        raise ValueError("Couldn't find any version")

    monkeypatch.setattr(two_local, "download_dataset", ask)
    with listening(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as server:
        monkeypatch.setenv("HF_ENDPOINT", server)
        with pytest.raises(RactdError, match=r"Minari has no dataset .*did you mean mujoco/hopper/medium-v0\?"):
            load_dataset("mujoco/hoper/medium-v0")


def test_minari_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(RactdError, match=r"pip install 'ractd\[minari\]'"):
        load_dataset("mujoco/hopper/medium-v0")
