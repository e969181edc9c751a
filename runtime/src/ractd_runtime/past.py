"""What has happened in an episode so far, for policies that need to know: the actions that were executed and the rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ractd_runtime.errors import RactdError

PAST_ACTIONS, PAST_REWARDS = "past_actions", "past_rewards"
"""The names by which callers and clients give them."""
_MEANING = {
    PAST_ACTIONS: "the actions that were executed in the episode so far",
    PAST_REWARDS: "the rewards of the episode so far",
}


@dataclass(frozen=True)
class Past:
    """The last K steps of each of B episodes, oldest first. Before an episode's first step, actions and rewards are 0."""

    actions: NDArray[np.float32]
    """As they were executed, clipped to the environment's bounds, [B, K, A]."""
    rewards: NDArray[np.float32]
    """[B, K]."""
    steps: NDArray[np.int64]
    """Steps of the whole episode so far, [B]."""
    returns: NDArray[np.float64]
    """Sum of the rewards of the whole episode so far, [B]."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True where there was a step, False before the episode's first, [B, K]."""
        K = self.rewards.shape[1]
        mask: NDArray[np.bool_] = np.arange(K) >= K - self.steps[:, None]
        return mask

    def inputs(self) -> dict[str, NDArray[np.float32]]:
        """Return everything by the names that a graph's inputs have."""
        steps, returns = self.steps.astype(np.float32), self.returns.astype(np.float32)
        return {PAST_ACTIONS: self.actions, PAST_REWARDS: self.rewards, "steps": steps, "returns": returns}

    @classmethod
    def of(cls, past_actions: Any, past_rewards: Any, past_steps: int, action_dim: int, batch: int | None) -> Self:
        """Return the last K = `past_steps` steps, of the actions and rewards of all t steps of an episode so far.

        Args:
            past_actions: [t, A], or [B, t, A] where there is a batch. At an episode's start t is 0.
            past_rewards: [t], or [B, t].
            past_steps: K.
            action_dim: A.
            batch: B, or None for one episode.

        Raises:
            RactdError: One is missing, is no numeric array of that shape, or holds NaN or infinite values.
        """
        batched = [] if batch is None else [batch]
        actions = _checked(PAST_ACTIONS, past_actions, [*batched, None, action_dim])
        t = actions.shape[-2]
        rewards = _checked(PAST_REWARDS, past_rewards, [*batched, t])
        B, kept = batch or 1, min(t, past_steps)
        actions, rewards = actions.reshape(B, t, action_dim), rewards.reshape(B, t)
        past = cls(
            np.zeros((B, past_steps, action_dim), np.float32),
            np.zeros((B, past_steps), np.float32),
            np.full(B, t),
            rewards.sum(axis=1),
        )
        past.actions[:, past_steps - kept :] = actions[:, t - kept :]
        past.rewards[:, past_steps - kept :] = rewards[:, t - kept :]
        return past

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the episodes of several, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def _checked(name: str, value: Any, shape: list[int | None]) -> NDArray[np.float64]:
    said = ["t" if size is None else size for size in shape]
    if value is None:
        raise RactdError(f"the policy needs {name}, {_MEANING[name]}, of shape {said}, and there is none")
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise RactdError(f"{name} is {kind}, expected a numeric array of shape {said}")
    if value.ndim != len(shape) or any(size not in (None, n) for size, n in zip(shape, value.shape, strict=True)):
        raise RactdError(f"{name} has shape {list(value.shape)}, expected {said}: {_MEANING[name]}")
    if not (np.abs(value) <= np.finfo(np.float32).max).all():
        raise RactdError(f"{name} holds NaN or infinite values")
    return value.astype(np.float64)
