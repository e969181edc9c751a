"""D4RL's published files by their names, downloaded once into D4RL's own cache folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ractd.data.fields import Source
from ractd.data.findings import warning
from ractd.data.formats import DatasetInfo, network
from ractd.data.formats.hdf5 import open_hdf5
from ractd.data.scores import published_recipe
from ractd.errors import RactdError

BASE_URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
"""Where D4RL publishes its files; `$RACTD_D4RL_URL` names a mirror."""


@dataclass(frozen=True)
class D4RLFile:
    """One D4RL dataset: its file below the base URL, the environment of today that fits it, and its step limit."""

    file: str
    env_id: str | None
    episode_limit: int


def _locomotion() -> Iterator[tuple[str, D4RLFile]]:
    # D4RL's Walker2d has 0.9 for its right foot's friction, as v4 has; v5 has 1.9. Hopper and HalfCheetah have one model in v4
    # and v5 and move alike; Hopper-v5 doesn't pay for the step that falls, D4RL's 1, 0.03 points of an episode's score.
    # Ant has no environment here: D4RL's observation has 111 dimensions, Ant-v5's has 105.
    environments = {"hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v4", "ant": None}
    for robot, env_id in environments.items():
        old = {"medium-replay": "walker_mixed" if robot == "walker2d" else f"{robot}_mixed"}
        old |= {kind: f"{robot}_{kind.replace('-', '_')}" for kind in ("random", "medium", "expert", "medium-expert")}
        if robot == "ant":
            old["random-expert"] = "ant_random_expert"
        for kind, file in old.items():
            yield f"{robot}-{kind}-v0", D4RLFile(f"gym_mujoco/{file}.hdf5", env_id, 1000)
        for version in ("v1", "v2"):
            for kind in ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert"):
                file = f"gym_mujoco_{version}/{robot}_{kind.replace('-', '_')}-{version}.hdf5"
                yield f"{robot}-{kind}-{version}", D4RLFile(file, env_id, 1000)


def _maze2d() -> Iterator[tuple[str, D4RLFile]]:
    for dense in (False, True):
        infix, kind = ("-dense", "dense") if dense else ("", "sparse")
        yield f"maze2d-open{infix}-v0", D4RLFile(f"maze2d/maze2d-open-{kind}.hdf5", None, 150)
        for size, limit in (("umaze", 300), ("medium", 600), ("large", 800)):
            # Only the sparse reward's environments are here; PointMaze's observation has the goal in it, D4RL's has not.
            env_id = None if dense else f"ractd/maze2d-{size}"
            yield f"maze2d-{size}{infix}-v1", D4RLFile(f"maze2d/maze2d-{size}-{kind}-v1.hdf5", env_id, limit)
            file = f"maze2d/maze2d-eval-{size}-{kind}-v1.hdf5"
            yield f"maze2d-eval-{size}{infix}-v1", D4RLFile(file, None, limit)


def _antmaze() -> Iterator[tuple[str, D4RLFile]]:
    folders = {"v0": "ant_maze_new", "v1": "ant_maze_v1", "v2": "ant_maze_v2"}
    mazes = {"umaze": ("u-maze", "umaze"), "medium": ("big-maze", "medium"), "large": ("hardest-maze", "large")}
    for version, folder in folders.items():
        for size, (old, new) in mazes.items():
            for kind in ("", "-diverse") if size == "umaze" else ("-play", "-diverse"):
                starts, goals = size != "umaze" or kind == "-diverse", kind == "-diverse"
                maze = new if version == "v1" else old
                file = f"Ant_maze_{maze}_noisy_multistart_{starts}_multigoal_{goals}_sparse"
                file += "_fixed.hdf5" if version == "v2" else ".hdf5"
                limit = 700 if size == "umaze" else 1000
                yield f"antmaze-{size}{kind}-{version}", D4RLFile(f"{folder}/{file}", None, limit)


def _adroit_and_kitchen() -> Iterator[tuple[str, D4RLFile]]:
    old = {"human": "{}-v0_demos_clipped", "cloned": "{}-demos-v0-bc-combined", "expert": "{}-v0_expert_clipped"}
    for task, limit in (("pen", 100), ("hammer", 200), ("relocate", 200), ("door", 200)):
        env_id = f"AdroitHand{task.capitalize()}-v1"
        for kind, pattern in old.items():
            yield f"{task}-{kind}-v0", D4RLFile(f"hand_dapg/{pattern.format(task)}.hdf5", env_id, limit)
            yield f"{task}-{kind}-v1", D4RLFile(f"hand_dapg_v1/{task}-{kind}-v1.hdf5", env_id, limit)
    # No environment: FrankaKitchen-v1's observation is not D4RL's.
    for kind, file in {
        "complete": "mini_kitchen_microwave_kettle_light_slider",
        "partial": "kitchen_microwave_kettle_light_slider",
        "mixed": "kitchen_microwave_kettle_bottomburner_light",
    }.items():
        yield f"kitchen-{kind}-v0", D4RLFile(f"kitchen/{file}-v0.hdf5", None, 280)


DATASETS: dict[str, D4RLFile] = dict([*_locomotion(), *_maze2d(), *_antmaze(), *_adroit_and_kitchen()])
"""Every locomotion, maze2d, antmaze, Adroit and kitchen dataset that D4RL publishes, by D4RL's name."""


def url_of(entry: D4RLFile) -> str:
    """Return the address of an entry's file, on `$RACTD_D4RL_URL` where that is set."""
    return f"{os.environ.get('RACTD_D4RL_URL', BASE_URL).rstrip('/')}/{entry.file}"


def cache_path(entry: D4RLFile) -> Path:
    """Return where D4RL itself keeps the file: `$D4RL_DATASET_DIR`, else `~/.d4rl/datasets`."""
    folder = os.environ.get("D4RL_DATASET_DIR")
    return (Path(os.path.expanduser(folder)) if folder else Path.home() / ".d4rl" / "datasets") / Path(entry.file).name


CALLED = "a D4RL name"


def find(name: str, download: bool) -> Source | None:
    """Open a dataset of D4RL's, downloaded if need be and wanted; raises RactdError with the address where that fails."""
    entry = DATASETS.get(name)
    if entry is None:
        return None
    path = cache_path(entry)
    if not path.is_file():
        if not download:
            return Source(where=url_of(entry), name=name, fields={}, env_id=entry.env_id)
        network.download(url_of(entry), path, open_hdf5)
    try:
        source = open_hdf5(path, name)
    except RactdError as error:
        raise RactdError(
            f"{error}; this is the cached {name}: delete the file and it will be downloaded again"
        ) from error
    source = replace(
        source,
        env_id=source.env_id or entry.env_id,
        recipe=source.recipe or published_recipe(name),
        episode_limit=entry.episode_limit,
    )
    if "timeouts" in source.fields:
        return source
    note = warning(
        f"no field 'timeouts'; an episode is taken to end at a terminal or after {entry.episode_limit} steps, "
        "as D4RL's own reader does",
    )
    return replace(source, notes=(*source.notes, note))


def datasets() -> Iterator[DatasetInfo]:
    """Yield all of D4RL's datasets."""
    for name, entry in DATASETS.items():
        path = cache_path(entry)
        if path.is_file():
            yield DatasetInfo(name, "d4rl", str(path), True, "D4RL")
        else:
            yield DatasetInfo(name, "d4rl", url_of(entry), False, "D4RL, downloaded when loaded")
