"""Repeats episodes in Gymnasium and films them; `video` runs this as a process of its own.

python -m ractd.report.film ENV FOLDER FRAMES RATE SEED...: for each seed reads FOLDER/SEED.npy, the actions [N, A], and writes
FOLDER/SEED.mp4 of about FRAMES frames at most, RATE of them a second. Prints one line of JSON: for each seed the return that
was seen and how much faster than real time the film is.
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

SIZE = (320, 240)
"""Width and height, both even as H.264 wants it."""


def main() -> None:
    """Film the episodes that the arguments name."""
    env_id, folder, frames, rate, *seeds = sys.argv[1:]
    env = gymnasium.make(env_id, render_mode="rgb_array")
    _set_up(env)
    print(json.dumps({seed: _film(env, int(seed), Path(folder) / seed, int(frames), int(rate)) for seed in seeds}))


def _film(env: Any, seed: int, path: Path, frames: int, rate: int) -> dict[str, float]:
    actions = np.load(path.with_suffix(".npy"), allow_pickle=False)
    env.reset(seed=seed)
    step_seconds = float(getattr(env.unwrapped, "dt", 0)) or 1 / env.metadata.get("render_fps", rate)
    real = max(1, round(1 / (rate * step_seconds)))
    stride = max(real, math.ceil(len(actions) / frames))
    returned = 0.0
    with av.open(str(path.with_suffix(".mp4")), "w", options={"movflags": "faststart"}) as file:
        stream: Any = None
        for index, action in enumerate(actions):
            if index % stride == 0 or index == len(actions) - 1:
                picture = np.asarray(env.render())
                if stream is None:
                    stream = file.add_stream("libx264", rate=round(1 / (real * step_seconds)), options={"crf": "28"})
                    stream.width, stream.height = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2
                    stream.pix_fmt = "yuv420p"
                picture = np.ascontiguousarray(picture[: stream.height, : stream.width])
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            returned += float(env.step(action.reshape(env.action_space.shape))[1])
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
