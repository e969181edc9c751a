"""A method's presets: by their names, changed, and which of them suits which data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ractd.data import OfflineDataset
from ractd.data.registry import find_source
from ractd.envs.maze import MAZES, Maze, maze_named
from ractd.errors import RactdError
from ractd.methods import METHODS, Method, method_named
from ractd.methods.places import changed
from ractd.registry import unknown


def settings_of(method: str = "ractd", preset: str | None = None, **changes: Any) -> Any:
    """Return a method's settings: a frozen dataclass, which `ractd.train` takes as its `config`.

    Args:
        method: A name in `ractd.methods.METHODS`.
        preset: One of the method's presets, by default the method's own default.
        changes: Other values, by their places: `**{"student.optimization.steps": 500}`. `dataclasses.replace` changes them as well.

    Raises:
        RactdError: For an unknown method, preset or place, and a value out of its range.
    """
    chosen = method_named(method)
    preset = preset or chosen.default
    return changed(chosen, preset, preset_named(chosen, preset), changes)


def preset_named(method: Method, name: str) -> Any:
    """Return the settings of a preset; raises `RactdError` for an unknown one, naming the nearest and who has it."""
    if name not in method.presets:
        others = [other for other in METHODS if name in method_named(other).presets]
        of = f"; it is one of {', '.join(others)}" if others else ""
        raise RactdError(f"{unknown(f'preset of {method.name}', name, method.presets)}{of}")
    return method.presets[name]


def default_preset(
    method: Method, dataset: str | Path | OfflineDataset, env_id: str | None = None, teacher: bool = False
) -> str:
    """Return the preset that data, by default in its own environment, is trained with.

    That is a planner's for a maze, `cpu` for data without rewards or with the `teacher` of another run, else the method's default.

    A maze of one's own gets the preset of the smallest of D4RL's whose episodes are as long. Nothing is downloaded, and data that
    can't be opened has that: who reads it says what is wrong. Raises `RactdError` for a maze where the method can't plan.
    """
    try:
        data = dataset if isinstance(dataset, OfflineDataset) else find_source(dataset, download=False)
    except RactdError:
        return method.default
    maze = maze_named(env_id or data.env_id, data.maze, f"{data.where}, attribute 'maze'")
    own = method.default if data.has_rewards and not teacher else "cpu"
    name = own if maze is None else planner_preset_of(maze)
    if name not in method.presets:
        raise RactdError(
            f"dataset {data.name!r} is of a maze, and method {method.name!r} can't plan in one: use --method ractd, or "
            "name a preset to train on its transitions all the same"
        )
    return name


def planner_preset_of(maze: Maze) -> str:
    """Return the CPU preset of a planner for a maze; without '-cpu' it is the paper's."""
    as_long = (m.name for m in MAZES.values() if m.max_episode_steps >= maze.max_episode_steps)
    return f"{next(as_long, list(MAZES)[-1])}-cpu"
