"""Films of environments that users register: in a module, in this process, drawn in their own way, or not at all."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from ractd.data.environment import EnvironmentSettings, WrapperSettings
from ractd.envs import modules
from ractd.envs.modules import import_environment
from ractd.errors import RactdError
from ractd.report.video import film_episodes

av = pytest.importorskip("av")

LAMP = """
import os
import gymnasium
import numpy as np

class Lamp(gymnasium.Env):
    "As bright as the last action, times a factor; an episode is paid its actions, as arrays."
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(0, 1, (1,))
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None, factor=1.0, shape=(33, 65, 3)):
        self.render_mode, self.factor, self.shape, self.light = render_mode, factor, shape, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.light = self.factor * float(action[0])
        return np.zeros(2, np.float32), np.array([self.light]), False, False, {}

    def render(self):
        return self.shape and np.full(self.shape, round(255 * self.light), np.uint8)

class Picky(Lamp):
    def __init__(self, render_mode=None):
        if os.environ["MUJOCO_GL"] != "osmesa":
            raise ImportError("no library of it")
        super().__init__(render_mode=render_mode)

class Dark(Lamp):
    def __init__(self):
        super().__init__()
"""
ACTIONS = {3: np.array([[0.0], [0.25], [0.5], [0.75], [1.0]], np.float32)}


@pytest.fixture
def lamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of lamps in the working directory, imported, and one that registers them by itself."""
    (tmp_path / "lamps.py").write_text(LAMP)
    (tmp_path / "lamp_robot.py").write_text("import gymnasium\ngymnasium.register('Lamp-v3', 'lamps:Lamp')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(modules, "_imported", set())
    before = set(gymnasium.registry)
    yield importlib.import_module("lamps")
    for name in ("lamps", "lamp_robot"):
        sys.modules.pop(name, None)
    for name in set(gymnasium.registry) - before:
        del gymnasium.registry[name]


def brightness(content: bytes) -> list[float]:
    with av.open(io.BytesIO(content)) as file:
        return [float(frame.to_ndarray(format="rgb24").mean()) for frame in file.decode(video=0)]


def test_an_environment_of_this_process_is_filmed(lamp: Any) -> None:
    gymnasium.register("ractd/Lamp-v0", lamp.Lamp, kwargs={"shape": [16, 32, 3]})
    film = film_episodes("ractd/Lamp-v0", ACTIONS)[3]
    assert film.returned == 2.5
    with av.open(io.BytesIO(film.content)) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (32, 16)
    # The last picture is that before the last action; video is not exact.
    np.testing.assert_allclose(brightness(film.content), [0, 0, 64, 128, 191], atol=6)


def test_arguments_and_wrappers_are_those_that_were_played(lamp: Any) -> None:
    gymnasium.register("ractd/Lamp-v0", lamp.Lamp)
    settings = EnvironmentSettings(
        {"factor": 0.5}, wrappers=(WrapperSettings("RescaleAction", {"min_action": 0.0, "max_action": 2.0}),)
    )
    film = film_episodes("ractd/Lamp-v0", ACTIONS, settings)[3]
    assert film.returned == 2.5 / 4
    np.testing.assert_allclose(brightness(film.content), [0, 0, 16, 32, 48], atol=6)


def test_an_environment_of_a_module_is_filmed(lamp: Any) -> None:
    with pytest.raises(RactdError, match="if you trust it, give --env lamp_robot:Lamp-v3"):
        film_episodes("lamp_robot:Lamp-v3", ACTIONS)
    import_environment("lamp_robot:Lamp-v3")
    assert film_episodes("lamp_robot:Lamp-v3", ACTIONS)[3].returned == 2.5


@pytest.mark.parametrize(
    ("shape", "found"),
    [(None, "None"), ([33, 65], r"an array of uint8, \[33, 65\]"), ([33, 65, 4], r"an array of uint8, \[33, 65, 4\]")],
)
def test_what_is_no_picture_is_a_sentence(lamp: Any, shape: Any, found: str) -> None:
    gymnasium.register("ractd/Lamp-v0", lamp.Lamp)
    with pytest.raises(
        RactdError, match=f"^ractd/Lamp-v0 can't be filmed: its render\\(\\) gives {found}, expected a pict"
    ):
        film_episodes("ractd/Lamp-v0", ACTIONS, EnvironmentSettings({"shape": shape}))


def test_the_next_renderer_is_tried_where_a_library_is_missing(lamp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    gymnasium.register("ractd/Picky-v0", lamp.Picky)
    assert film_episodes("ractd/Picky-v0", ACTIONS)[3].returned == 2.5


def test_an_environment_without_pictures_is_a_sentence(lamp: Any) -> None:
    gymnasium.register("ractd/Dark-v0", lamp.Dark)
    with pytest.raises(
        RactdError, match=r"^ractd/Dark-v0 can't be filmed: Gymnasium could not make .*render_mode"
    ) as raised:
        film_episodes("ractd/Dark-v0", ACTIONS)
    assert "\n" not in str(raised.value)


def test_an_environment_that_only_this_process_knows_is_a_sentence(lamp: Any) -> None:
    class Local(lamp.Lamp):  # type: ignore[misc]
        pass

    gymnasium.register("ractd/Local-v0", Local)
    with pytest.raises(
        RactdError, match=r"^ractd/Local-v0 can't be filmed: Gymnasium could not make ractd/Local-v0: "
    ) as raised:
        film_episodes("ractd/Local-v0", ACTIONS)
    assert "\n" not in str(raised.value)
    gymnasium.register("ractd/Lamp-v0", lamp.Lamp, kwargs={"factor": np.float32(0.5)})
    with pytest.raises(RactdError, match="only its own program can make it"):
        film_episodes("ractd/Lamp-v0", ACTIONS)
    with pytest.raises(RactdError, match="no environment of Gymnasium's"):
        film_episodes("ractd/Nowhere-v0", ACTIONS)
