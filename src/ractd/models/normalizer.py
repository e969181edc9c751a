"""Between the environment's units and the networks': statistics that travel inside the policy file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.data.dataset import Statistics


class Normalizer(nn.Module):
    """Standardise observations per dimension and scale actions to [-1, 1] by the dataset's range."""

    def __init__(self, observation_dim: int, action_dim: int) -> None:
        super().__init__()
        self.observation_mean: Tensor
        self.observation_std: Tensor
        self.action_low: Tensor
        self.action_high: Tensor
        self.register_buffer("observation_mean", torch.zeros(observation_dim))
        self.register_buffer("observation_std", torch.ones(observation_dim))
        self.register_buffer("action_low", -torch.ones(action_dim))
        self.register_buffer("action_high", torch.ones(action_dim))

    @classmethod
    def of(cls, statistics: Statistics) -> Normalizer:
        """Build from a dataset's statistics."""
        normalizer = cls(len(statistics.observation_mean), len(statistics.action_low))
        for name in ("observation_mean", "observation_std", "action_low", "action_high"):
            setattr(normalizer, name, torch.as_tensor(getattr(statistics, name), dtype=torch.float32).clone())
        return normalizer

    def observation(self, observation: Tensor) -> Tensor:
        """Standardise raw observations `[..., O]`."""
        return (observation - self.observation_mean) / self.observation_std

    def action(self, action: Tensor) -> Tensor:
        """Scale raw actions `[..., A]` to [-1, 1]."""
        return 2 * (action - self.action_low) / (self.action_high - self.action_low) - 1

    def raw_action(self, action: Tensor) -> Tensor:
        """Clip to [-1, 1] and scale back to the environment's units."""
        return self.action_low + (action.clamp(-1, 1) + 1) * ((self.action_high - self.action_low) / 2)
