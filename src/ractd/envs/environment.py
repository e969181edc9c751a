"""The environment that a policy is scored in, as its file says it."""

from __future__ import annotations

from dataclasses import dataclass

from ractd.data.environment import REGISTERED, EnvironmentSettings


@dataclass(frozen=True)
class Environment:
    """An environment by its name, made by this machine's Gymnasium, or a maze."""

    env_id: str
    env_settings: EnvironmentSettings = REGISTERED
    maze: str = ""
    """Map of a maze of one's own, as text."""
