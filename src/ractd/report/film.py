"""Repeats episodes in Gymnasium and films them; `video` runs this as a process of its own.

python -m ractd.report.film FOLDER FRAMES RATE SEED...: makes the environment that FOLDER/environment.json names. For each seed
it reads FOLDER/SEED.npy, the actions [N, A], and writes FOLDER/SEED.mp4 of about FRAMES frames at most, RATE of them a second.
Prints one line of JSON: for each seed the return that was seen and how much faster than real time the film is. Exit code 3
is an environment that can't be filmed, whatever it is drawn with; the last line on stderr says why.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np
from numpy.typing import NDArray

from ractd.data.environment import EnvironmentSettings, gymnasium_with_robotics
from ractd.envs.backends import make_gymnasium, one_reward
from ractd.envs.modules import import_environment, registered_name
from ractd.errors import RactdError
from ractd.settings import from_json

SIZE = (320, 240)
"""Width and height, both even as H.264 wants it."""


def main() -> None:
    """Film the episodes that the arguments name."""
    folder, frames, rate, *seeds = sys.argv[1:]
    try:
        env = _make(Path(folder) / "environment.json")
        _set_up(env)
        print(json.dumps({seed: _film(env, int(seed), Path(folder) / seed, int(frames), int(rate)) for seed in seeds}))
    except RactdError as error:
        print(error, file=sys.stderr)
        # A library of the renderer's that is missing: another renderer may work.
        cause, no_library = error.__cause__, (ImportError, AttributeError, RuntimeError)
        another = isinstance(cause, no_library) and not isinstance(cause, ModuleNotFoundError)
        raise SystemExit(1 if another else 3) from None


def _make(path: Path) -> Any:
    """Make the environment that the other process played in, as it is registered there."""
    request = json.loads(path.read_text())
    import_environment(request["env_id"])
    name = registered_name(request["env_id"])
    if name not in gymnasium_with_robotics().registry:
        if request["registration"]["kwargs"] is None:
            raise RactdError(
                "only its own program can make it, which registered it with arguments that are no plain values"
            )
        gymnasium.register(name, **request["registration"])
    settings = from_json(EnvironmentSettings, request["settings"], path)
    return make_gymnasium(request["env_id"], settings, render_mode="rgb_array")


def _picture(env: Any) -> NDArray[np.uint8]:
    picture = env.render()
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or min(array.shape[:2]) < 2:
        found = f"an array of {array.dtype}, {list(array.shape)}" if array.ndim else f"{picture!r}"
        raise RactdError(f"its render() gives {found}, expected a picture, uint8 [height, width, 3]")
    return array


def _film(env: Any, seed: int, path: Path, frames: int, rate: int) -> dict[str, float]:
    actions = np.load(path.with_suffix(".npy"), allow_pickle=False)
    env.reset(seed=seed)
    step_seconds = float(getattr(env.unwrapped, "dt", 0) or 1 / (env.metadata.get("render_fps") or rate))
    real = max(1, round(1 / (rate * step_seconds)))
    stride = max(real, math.ceil(len(actions) / frames))
    returned = 0.0
    with av.open(str(path.with_suffix(".mp4")), "w", options={"movflags": "faststart"}) as file:
        stream: Any = None
        for index, action in enumerate(actions):
            if index % stride == 0 or index == len(actions) - 1:
                picture = _picture(env)
                if stream is None:
                    stream = file.add_stream(
                        "libx264", rate=max(1, round(1 / (real * step_seconds))), options={"crf": "28"}
                    )
                    stream.width, stream.height = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2
                    stream.pix_fmt = "yuv420p"
                picture = np.ascontiguousarray(picture[: stream.height, : stream.width])
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            returned += one_reward(env.step(action.reshape(env.action_space.shape))[1])
        file.mux(stream.encode())
    return {"returned": returned, "speed": stride / real}


def _set_up(env: Any) -> None:
    """Follow the robot, and leave out what makes MuJoCo's pictures ten times as slow without a GPU: antialiasing, shadows."""
    renderer = getattr(env.unwrapped, "mujoco_renderer", None)
    if renderer is None:
        return
    import mujoco

    renderer.width, renderer.height = SIZE
    renderer.model.vis.quality.offsamples = 0
    # Gymnasium's own choice of camera stands still while the robot walks out of the picture.
    camera = mujoco.mj_name2id(renderer.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
    if camera >= 0:
        renderer.camera_id = camera
    env.reset(seed=0)
    env.render()
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.viewer.scn.flags[flag] = 0


if __name__ == "__main__":
    main()
