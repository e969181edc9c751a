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
Rows = NDArray[np.integer[Any]]


class VectorEnv(Protocol):
    """`num_envs` environments; environment i is seeded with `seed + i` and independent of the others."""

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
        """One step of the named environments (all by default), actions [len(rows), A]: observations, rewards,
        terminated, truncated. An ended environment has to be reset before its next step."""

    def close(self) -> None:
        """Free the simulators."""


MakeVector = Callable[[str, int, int], VectorEnv]
