"""The return model of the paper's Table 8."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class ReturnNetwork(nn.Module):
    """Linear + Mish layers from (observation `[B, O]`, action `[B, A]`) to a return-to-go `[B]` (paper, section 3.3, Table 8)."""

    def __init__(self, observation_dim: int, action_dim: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        widths = (observation_dim + action_dim, *layers)
        hidden = [module for i, o in pairwise(widths) for module in (nn.Linear(i, o), nn.Mish())]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], 1))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.layers(torch.cat([observation, action], dim=1)).squeeze(1)  # type: ignore[no-any-return]
