"""What an environment's id doesn't say: its arguments, its step limit, its wrappers.

It travels in datasets and policies, which come from strangers. So it holds plain values and no code, nor anything that an
environment might take for the name of code or of a file; what is made of it comes from this machine's Gymnasium alone.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ractd.errors import RactdError

WRAPPERS = (
    "ClipAction",
    "ClipReward",
    "DelayObservation",
    "FilterObservation",
    "FlattenObservation",
    "FrameStackObservation",
    "MaxAndSkipObservation",
    "RepeatAction",
    "RescaleAction",
    "RescaleObservation",
    "ReshapeObservation",
    "StickyAction",
    "TimeAwareObservation",
)
"""Those of `gymnasium.wrappers` that plain values make again: no state of their own, no files, no windows, no functions."""
OURS = {
    "id": "it is the environment's name",
    "render_mode": "pictures are the report's to ask for",
    "max_episode_steps": "the step limit is a field of its own",
    "disable_env_checker": "it is no argument of an environment",
}
"""Arguments of `gymnasium.make` that no environment gets, and why."""
ELSEWHERE = "/\\:~"
"""Characters of paths, of addresses and of `module:name`."""


def _check_plain(of: str, arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        for part in _leaves(value):
            if not isinstance(part, bool | int | float | str | None):
                raise RactdError(f"{of} has the argument {name!r} of type {type(part).__name__}, expected plain values")
            if isinstance(part, float) and not math.isfinite(part):
                raise RactdError(f"{of} has the argument {name!r} with {part}, expected finite numbers")
            if isinstance(part, str) and any(character in ELSEWHERE for character in part):
                raise RactdError(
                    f"{of} has the argument {name!r} with {part!r}, which could name a file or code and is not passed on; "
                    "register an environment with it under an id of your own"
                )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    else:
        yield value


@dataclass(frozen=True)
class WrapperSettings:
    """A wrapper of `gymnasium.wrappers`, by its class's name, and its arguments; raises `RactdError` for any other."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in WRAPPERS:
            raise RactdError(f"wrapper {self.name!r} can't be made from a file, expected one of {', '.join(WRAPPERS)}")
        _check_plain(f"wrapper {self.name!r}", self.arguments)


@dataclass(frozen=True)
class EnvironmentSettings:
    """What makes an environment together with its id.

    Raises `RactdError` for values that are not plain (None, bool, int, float, str and lists and dicts of these), for text
    that could name a file or code, and for a step limit below 1.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    """Of its constructor."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut, None for those that it is registered with."""
    wrappers: tuple[WrapperSettings, ...] = ()
    """Around it, the innermost first."""
    fault: str = ""
    """Why the environment that a file names can't be made again, empty where it can."""

    def __post_init__(self) -> None:
        steps = self.max_episode_steps
        if steps is not None and (type(steps) is not int or steps < 1):
            raise RactdError(f"the step limit of the environment is {steps!r}, expected at least 1 (--env-steps)")
        for name in self.arguments:
            if name in OURS:
                raise RactdError(f"the environment's argument {name!r} can't be set here: {OURS[name]}")
        _check_plain("the environment", self.arguments)

    def __str__(self) -> str:
        """Say what there is, empty where nothing is said."""
        parts = [f"{name}={value!r}" for name, value in self.arguments.items()]
        parts += [f"at most {self.max_episode_steps:,} steps"] if self.max_episode_steps else []
        parts += [f"in {wrapper.name}" for wrapper in self.wrappers]
        return ", ".join([*parts, self.fault] if self.fault else parts)


REGISTERED = EnvironmentSettings()
"""An environment as it is registered."""


def gymnasium_with_robotics() -> Any:
    """Return Gymnasium, with gymnasium_robotics' environments where that is installed; raises `RactdError` without it."""
    try:
        import gymnasium
    except ImportError:
        raise RactdError(
            'environments need EnvPool or Gymnasium, and neither is installed: pip install "ractd[envs]"'
        ) from None
    if importlib.util.find_spec("gymnasium_robotics") is not None:
        gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
    return gymnasium


def settings_for(
    own_id: str | None, own: EnvironmentSettings, env_id: str | None, steps: int | None
) -> EnvironmentSettings:
    """Return the settings of the environment that a user asks for of data or a policy that has one of its own.

    Another `env_id` than its own is the environment as it is registered; `steps` takes the place of the step limit.
    """
    kept = env_id is None or (env_id == own_id and not own.fault)
    settings = own if kept else REGISTERED
    return settings if steps is None else replace(settings, max_episode_steps=steps)
