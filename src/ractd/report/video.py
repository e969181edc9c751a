"""The best and the worst of a few episodes, as video: played here, filmed by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.environment import REGISTERED, EnvironmentSettings, gymnasium_with_robotics
from ractd.envs.backends import GymnasiumVector
from ractd.envs.evaluate import evaluate
from ractd.envs.modules import registered_name
from ractd.envs.seeds import environment_seed
from ractd.envs.vector import Rows, Step, VectorEnv
from ractd.errors import RactdError
from ractd.policies import Policy
from ractd.report.contents import Contents, mapping, number
from ractd.runs.evaluation import policy_directory
from ractd.settings import to_json

EPISODES = 10
"""Played to choose from. Scored episodes ran in EnvPool, whose random numbers Gymnasium can't repeat."""
MAX_FRAMES = 150
"""Of a clip: longer episodes are shown faster, so that their ends are seen."""
FRAMES_PER_SECOND = 25
RENDERERS = ("egl", "osmesa", "glfw")
"""What MuJoCo draws with, tried in this order where MUJOCO_GL names none; the first two need no screen."""
NO_PICTURES = 3
"""Exit code of `ractd.report.film` where no renderer would help."""
SECONDS = 120
"""After which a renderer is given up."""


@dataclass(frozen=True)
class Clip:
    """A filmed episode, MP4 (H.264)."""

    title: str
    caption: str
    content: bytes


@dataclass(frozen=True)
class Film:
    """An episode that was repeated and filmed."""

    content: bytes
    """MP4."""
    returned: float
    """Return of what is seen."""
    speed: float
    """Times real time."""


def best_and_worst(run: Contents, progress: Callable[[str], None]) -> list[Clip]:
    """Play `EPISODES` episodes of the policy that a run is about and film the best and the worst.

    `progress(what)` hears what is being done. Raises `RactdError` saying why there is no video: no environment, no
    result yet, an environment that Gymnasium can't make or draw, or no renderer that works.
    """
    if run.env_id is None:
        raise RactdError("it was scored in no environment")
    if not run.rows:
        raise RactdError("it was not scored yet")
    policy = Policy.load(policy_directory(run.directory, next(iter(run.rows.values())).policy))
    settings = REGISTERED if policy.environment is None else policy.environment.env_settings
    _registration(run.env_id)
    progress(f"{run.label}: playing {EPISODES} episodes")
    actions: list[list[NDArray[np.floating[Any]]]] = [[] for _ in range(EPISODES)]
    execute = number(mapping(run.config.get("evaluation")).get("execute")) or 1
    seed = environment_seed(int(number(run.config.get("seed")) or 0))
    played = evaluate(
        policy.reset(seed).acting(),
        run.env_id,
        episodes=EPISODES,
        execute=int(execute),
        history=policy.sequence.history,
        seed=seed,
        make=lambda env_id, count, first: _noting(GymnasiumVector(env_id, count, first, settings), actions),
    )
    chosen = {"Best": int(played.returns.argmax()), "Worst": int(played.returns.argmin())}
    progress(f"{run.label}: filming the best and the worst")
    films = film_episodes(run.env_id, {seed + i: np.array(actions[i]) for i in chosen.values()}, settings)
    clips = []
    for name, index in chosen.items():
        film = films[seed + index]
        speed = "in real time" if film.speed == 1 else f"at {film.speed:.2g} times its speed"
        ended = "ended by the environment" if played.terminated[index] else "ended by the time limit"
        caption = f"{played.lengths[index]:,} steps, {ended}; return {film.returned:,.0f}; shown {speed}."
        clips.append(Clip(f"{name} of {EPISODES} episodes", caption, film.content))
    return clips


def film_episodes(
    env_id: str, actions: Mapping[int, NDArray[np.floating[Any]]], settings: EnvironmentSettings = REGISTERED
) -> dict[int, Film]:
    """Repeat episodes, given by their environment's seed and their actions [N, A], and film them.

    Drawing happens in another process: a graphics library that fails may take its process along, and one process can
    only try one. Raises `RactdError` where no renderer works, or the environment draws no pictures.
    """
    request = {"env_id": env_id, "registration": _registration(env_id), "settings": to_json(settings)}
    own = os.environ.get("MUJOCO_GL")
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "environment.json").write_text(json.dumps(request))
        for seed, array in actions.items():
            np.save(Path(folder) / f"{seed}.npy", array, allow_pickle=False)
        command = [sys.executable, "-m", "ractd.report.film", folder, str(MAX_FRAMES), str(FRAMES_PER_SECOND)]
        command += map(str, actions)
        for renderer in (own,) if own else RENDERERS:
            try:
                done = subprocess.run(
                    command,
                    env=os.environ | {"MUJOCO_GL": renderer},
                    capture_output=True,
                    text=True,
                    timeout=SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                failures.append(f"MUJOCO_GL={renderer}: took longer than {SECONDS} s")
                continue
            if done.returncode == 0:
                told = json.loads(done.stdout.splitlines()[-1])
                return {seed: Film((Path(folder) / f"{seed}.mp4").read_bytes(), **told[str(seed)]) for seed in actions}
            lines = done.stderr.strip().splitlines()
            if done.returncode == NO_PICTURES:
                raise RactdError(f"{env_id} can't be filmed: {lines[-1]}")
            failures.append(f"MUJOCO_GL={renderer}: {lines[-1].strip() if lines else f'exit code {done.returncode}'}")
    raise RactdError(f"{env_id} can't be drawn here ({'; '.join(failures)})")


def _registration(env_id: str) -> dict[str, Any]:
    """Return what this process's registry makes an environment by: another process may not have it registered.

    `kwargs` is None where they are no plain values.
    """
    spec = gymnasium_with_robotics().registry.get(registered_name(env_id))
    if spec is None:
        raise RactdError(f"{env_id} is no environment of Gymnasium's, which draws the pictures")
    entry = spec.entry_point
    if not isinstance(entry, str):
        entry = f"{getattr(entry, '__module__', None)}:{getattr(entry, '__qualname__', None)}"
    found = {"entry_point": entry}
    try:
        return found | {"kwargs": json.loads(json.dumps(spec.kwargs))}
    except TypeError:
        return found | {"kwargs": None}


def _noting(env: VectorEnv, actions: list[list[NDArray[np.floating[Any]]]]) -> VectorEnv:
    """Let an environment keep the actions of each of its copies."""
    step = env.step

    def noted(taken: NDArray[np.floating[Any]], rows: Rows | None = None) -> Step:
        for index, action in zip(range(env.num_envs) if rows is None else rows, taken, strict=True):
            actions[index].append(action)
        return step(taken, rows)

    env.step = noted  # type: ignore[assignment, method-assign]
    return env
