"""D4RL by name: the right address, downloaded once and whole, or a clear error and nothing left behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from dataset_factory import arrays, assert_same, make

from ractd import validate
from ractd.data import load_dataset, write_hdf5
from ractd.data.formats.d4rl import BASE_URL, DATASETS, cache_path, url_of
from ractd.data.scores import REFERENCES, d4rl_name, published_recipe, reference
from ractd.envs import EnvPoolVector, GymnasiumVector
from ractd.envs.vector import MakeVector
from ractd.errors import RactdError

NAME = "hopper-medium-replay-v2"
FILE = "/gym_mujoco_v2/hopper_medium_replay-v2.hdf5"


class Server:
    """Answers GET with what `answer(path)` says: status, bytes and the length it claims (None: says none)."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.pages: dict[str, tuple[int, bytes, int | None]] = {}
        self.after: dict[str, tuple[int, bytes, int | None]] = {}
        """What takes the place of a page once it was asked for."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                status, body, length = outer.pages.get(self.path, (404, b"", 0))
                outer.pages |= {path: page for path, page in outer.after.items() if path == self.path}
                self.send_response(status)
                if length is not None:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    started = Server()
    monkeypatch.setenv("RACTD_D4RL_URL", started.url)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    yield started
    started.http.shutdown()
    started.http.server_close()


@pytest.fixture
def published(tmp_path: Path) -> bytes:
    write_hdf5(tmp_path / "made.hdf5", make([300, 20], obs=11, act=3))
    return (tmp_path / "made.hdf5").read_bytes()


def cached(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").iterdir()]


def test_downloads_once_into_d4rls_cache(server: Server, published: bytes, tmp_path: Path) -> None:
    server.pages[FILE] = (200, published, len(published))
    data = load_dataset(NAME)
    assert_same(data, make([300, 20], obs=11, act=3))
    assert (data.name, data.env_id) == (NAME, "Hopper-v5")
    assert cached(tmp_path) == ["hopper_medium_replay-v2.hdf5"]
    server.pages.clear()
    assert load_dataset(NAME, env_id="Other-v0").env_id == "Other-v0"
    assert server.requests == [FILE]


def test_a_server_that_tells_no_length_is_believed_if_the_file_is_whole(
    server: Server, published: bytes, tmp_path: Path
) -> None:
    server.pages[FILE] = (200, published, None)
    assert load_dataset(NAME).num_transitions == 320
    (tmp_path / "cache" / "hopper_medium_replay-v2.hdf5").unlink()
    server.pages[FILE] = (200, published[:-1000], None)
    with pytest.raises(RactdError, match="what came is the HDF5 file is damaged or cut off"):
        load_dataset(NAME)
    assert cached(tmp_path) == []


def test_a_download_cut_short_leaves_nothing(server: Server, published: bytes, tmp_path: Path) -> None:
    server.pages[FILE] = (200, published[:5000], len(published))
    rest = len(published) - 5000
    said = rf"{server.url}{FILE}: the download stopped 3 times \(IncompleteRead\(5000 bytes read, {rest} more expected"
    with pytest.raises(RactdError, match=said):
        load_dataset(NAME)
    assert cached(tmp_path) == []
    assert server.requests == 3 * [FILE]


def test_a_download_that_stops_once_is_begun_again(server: Server, published: bytes, tmp_path: Path) -> None:
    server.pages[FILE] = (200, published[:5000], len(published))
    server.after[FILE] = (200, published, len(published))
    assert_same(load_dataset(NAME), make([300, 20], obs=11, act=3))
    assert cached(tmp_path) == ["hopper_medium_replay-v2.hdf5"]
    assert server.requests == 2 * [FILE]


def test_not_found_and_error_pages(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        RactdError, match=r"the server answered 404 Not Found; .*put the file at .*hopper_medium_replay-v2"
    ):
        load_dataset(NAME)
    server.pages[FILE] = (200, b"<html>login</html>", 18)
    with pytest.raises(RactdError, match="what came is not an HDF5 file"):
        load_dataset(NAME)
    assert cached(tmp_path) == []


def test_connection_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RACTD_D4RL_URL", f"http://127.0.0.1:{port}/")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    with pytest.raises(RactdError, match=r"can't be reached \(.*refused.*\); try again later"):
        load_dataset(NAME)
    assert cached(tmp_path) == []


def test_a_damaged_cached_file_says_how_to_get_it_again(server: Server, published: bytes, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "hopper_medium_replay-v2.hdf5").write_bytes(published[:5000])
    with pytest.raises(RactdError, match=r"cached hopper-medium-replay-v2: delete the file"):
        load_dataset(NAME)
    assert server.requests == []


def test_without_timeouts_episodes_end_at_d4rls_step_limit(server: Server, tmp_path: Path) -> None:
    fields = arrays([2300, 400], terminal=[True, False], obs=11, act=3)
    del fields["timeouts"]
    (tmp_path / "cache").mkdir()
    with h5py.File(tmp_path / "cache" / "hopper_medium.hdf5", "w") as file:
        for name, values in fields.items():
            file[name] = values
    data = load_dataset("hopper-medium-v0")
    assert data.episode_ends.tolist() == [1000, 2000, 2300, 2700]
    assert np.flatnonzero(data.timeouts).tolist() == [999, 1999]
    assert any("no field 'timeouts'; an episode is taken to end" in f.message for f in validate("hopper-medium-v0"))


def test_addresses_are_d4rls() -> None:
    expected = {
        "hopper-medium-replay-v2": "gym_mujoco_v2/hopper_medium_replay-v2.hdf5",
        "halfcheetah-full-replay-v1": "gym_mujoco_v1/halfcheetah_full_replay-v1.hdf5",
        "walker2d-medium-replay-v0": "gym_mujoco/walker_mixed.hdf5",
        "walker2d-medium-expert-v0": "gym_mujoco/walker2d_medium_expert.hdf5",
        "maze2d-umaze-v1": "maze2d/maze2d-umaze-sparse-v1.hdf5",
        "maze2d-eval-large-dense-v1": "maze2d/maze2d-eval-large-dense-v1.hdf5",
        "antmaze-umaze-v2": "ant_maze_v2/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5",
        "antmaze-medium-play-v0": "ant_maze_new/Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse.hdf5",
        "antmaze-large-diverse-v1": "ant_maze_v1/Ant_maze_large_noisy_multistart_True_multigoal_True_sparse.hdf5",
        "pen-human-v0": "hand_dapg/pen-v0_demos_clipped.hdf5",
        "door-cloned-v0": "hand_dapg/door-demos-v0-bc-combined.hdf5",
        "relocate-expert-v1": "hand_dapg_v1/relocate-expert-v1.hdf5",
        "kitchen-complete-v0": "kitchen/mini_kitchen_microwave_kettle_light_slider-v0.hdf5",
    }
    for name, file in expected.items():
        assert url_of(DATASETS[name]) == f"{BASE_URL}/{file}"
    assert DATASETS["maze2d-large-v1"].env_id == "ractd/maze2d-large"
    assert {DATASETS[name].env_id for name in ("maze2d-large-dense-v1", "maze2d-open-v0", "maze2d-eval-umaze-v1")} == {
        None
    }
    paths = [cache_path(entry) for entry in DATASETS.values()]
    assert len(set(paths)) == len(paths)
    assert cache_path(DATASETS["pen-human-v1"]).parts[-3:] == (".d4rl", "datasets", "pen-human-v1.hdf5")


@pytest.mark.parametrize(
    ("robot", "env_id", "dims"),
    [
        ("hopper", "Hopper-v5", (11, 3)),
        ("walker2d", "Walker2d-v4", (17, 6)),
        ("halfcheetah", "HalfCheetah-v5", (17, 6)),
    ],
)
def test_d4rls_own_files_and_rebuilt_ones_have_their_own_environments(
    robot: str, env_id: str, dims: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    path = tmp_path / f"{robot}_medium-v2.hdf5"
    obs, act = dims
    write_hdf5(path, make([30], env_id=f"{env_id[:-1]}5", obs=obs, act=act))
    rebuilt = (load_dataset(path), load_dataset(f"{robot}-medium-v2"))
    assert [data.env_id for data in rebuilt] == 2 * [f"{env_id[:-1]}5"], "a file that says what it is stays that"
    with h5py.File(path, "r+") as file:
        file.attrs.clear()  # D4RL's files have none
    own = load_dataset(f"{robot}-medium-v2")
    assert (own.env_id, own.recipe, d4rl_name(own)) == (
        env_id,
        published_recipe(f"{robot}-medium-v2"),
        f"{robot}-medium",
    )
    assert reference(env_id) == reference(f"{env_id[:-1]}5") == REFERENCES[robot]
    assert load_dataset(path).env_id is None, "by its path it is any file"


def test_walker2ds_right_foot_slides_in_d4rls_data() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    frictions = {}
    for version in ("v4", "v5"):
        model = gymnasium.make(f"Walker2d-{version}").unwrapped.model
        frictions[version] = [model.geom(foot).friction[0] for foot in ("foot_geom", "foot_left_geom")]
    assert frictions == {"v4": [0.9, 1.9], "v5": [1.9, 1.9]}


@pytest.mark.parametrize("backend", [EnvPoolVector, GymnasiumVector])
@pytest.mark.parametrize("robot", ["Walker2d", "Hopper", "HalfCheetah"])
def test_only_walker2d_moves_in_another_way_in_v5(
    backend: MakeVector, robot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why D4RL's other robots keep v5: the same motion, and a reward that differs where Hopper falls, by 1."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log where it is
    steps, count = 40, 4
    seen = {}
    for version in ("v4", "v5"):
        env = backend(f"{robot}-{version}", count, 7)
        observations, rewards, ended = [env.reset()], [], []
        rng = np.random.default_rng(0)
        for _ in range(steps):
            actions = rng.uniform(-1, 1, (count, len(env.action_low)))
            observation, reward, terminated, _ = env.step(actions)
            observations.append(observation)
            rewards.append(reward)
            ended.append(terminated)
        env.close()
        seen[version] = np.array(observations), np.array(rewards), np.array(ended)
    (old, old_rewards, old_ended), (new, new_rewards, new_ended) = seen["v4"], seen["v5"]
    np.testing.assert_allclose(old[0], new[0], atol=1e-6)
    if robot == "Walker2d":
        assert abs(old - new).max() > 0.1
        return
    np.testing.assert_allclose(old, new, atol=1e-6)
    assert np.array_equal(old_ended, new_ended)
    falls = old_ended & (robot == "Hopper")
    assert falls.any() == (robot == "Hopper")
    np.testing.assert_allclose(old_rewards - new_rewards, falls.astype(float), atol=1e-6)
