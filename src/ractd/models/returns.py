"""The return model of the paper's Table 8."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ractd.models.mish import Mish


class ReturnNetwork(nn.Module):
    """Linear + Mish layers from (observation `[B, O]`, action `[B, A]`) to a return-to-go `[B]` (paper, section 3.3, Table 8).

    The mean of `members` such networks; the paper has one. With none it is no return model at all: it has no weights and no
    estimates, see `exists`.
    """

    def __init__(self, observation_dim: int, action_dim: int, layers: tuple[int, ...], members: int = 1) -> None:
        super().__init__()
        self.observation_dim = observation_dim
        widths = (observation_dim + action_dim, *layers)

        def member() -> nn.Sequential:
            hidden = [module for i, o in pairwise(widths) for module in (nn.Linear(i, o), Mish())]
            return nn.Sequential(*hidden, nn.Linear(widths[-1], 1))

        self.members = nn.ModuleList(member() for _ in range(members))

    @property
    def exists(self) -> bool:
        """Tell whether there is a return model."""
        return len(self.members) > 0

    def given(self, condition: Tensor) -> Tensor:
        """Return what it takes of a policy's `condition [B, K]`: the latest observation, or a planner's goal, `[B, O]`."""
        return condition[:, -self.observation_dim :]

    def each(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return every member's estimate, `[members, B]`."""
        x = torch.cat([observation, action], dim=1)
        return torch.stack([member(x).squeeze(1) for member in self.members])

    def cautious(self, pessimism: float) -> Callable[[Tensor, Tensor], Tensor]:
        """Return R less `pessimism` standard deviations between the members, which disagree where no data told them.

        It takes and returns what `forward` does; with a `pessimism` of 0 it is R, above that R needs two members or more.
        """

        def lower(observation: Tensor, action: Tensor) -> Tensor:
            each = self.each(observation, action)
            return each.mean(0) - pessimism * each.std(0)

        return lower if pessimism else self

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.each(observation, action).mean(0)
