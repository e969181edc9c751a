"""Many copies of one environment behind one small interface.

Only the environments that the caller names are stepped, and none is ever reset by itself, so nothing that happens after an
episode's end can reach its return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Step = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Observations, rewards, terminated and truncated; see `VectorEnv.step`."""
Rows = NDArray[np.integer[Any]]
"""Numbers of environments."""


class VectorEnv(Protocol):
    """Several environments; number i is seeded with `seed + i` and independent of the others."""

    backend: str
    """`envpool`, `gymnasium` or `mujoco`."""
    num_envs: int
    observation_dim: int
    """Entries of a flattened observation (as `gymnasium.spaces.flatten` orders them)."""
    action_low: NDArray[np.float32]
    """Lower action bounds, [A]."""
    action_high: NDArray[np.float32]
    """Upper action bounds, [A]."""
    max_episode_steps: int | None
    """The time limit, None without one."""

    def reset(self, rows: Rows | None = None) -> NDArray[np.float32]:
        """Begin an episode in the named environments (all by default): observations [len(rows), O]."""

    def step(self, actions: NDArray[np.floating[Any]], rows: Rows | None = None) -> Step:
        """Take one step of the named environments (all by default) with actions [len(rows), A].

        An environment whose episode has ended has to be reset before its next step.

        Returns:
            Observations [len(rows), O], rewards, terminated and truncated, each [len(rows)].
        """

    def close(self) -> None:
        """Free the simulators."""


MakeVector = Callable[[str, int, int], VectorEnv]
"""Makes environments of an id, so many, with the first one's seed."""
